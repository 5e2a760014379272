"""A library in a process of its own, as the benchmark sees it: start, ask, stop. The protocol is in worker.py."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
PEERS = HERE / ".venv" / "bin" / "python"
LIMIT = 900  # seconds for any one answer


class UnavailableError(Exception):
    """The library cannot be measured here; the message says why."""


class Library:
    """One worker, alive until `stop`."""

    def __init__(self, name: str, *, threads: int = 1) -> None:
        self.name = name
        python = Path(sys.executable) if name == "elute" else PEERS
        if not python.exists():
            raise UnavailableError("the peers' environment is missing: run benchmarks/peers/build.sh")
        env = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
        }
        env.pop("PYTHONPATH", None)
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, "-c", "import worker; worker.main()", name],
            cwd=HERE,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
        )
        try:
            hello = self._answer()
        except RuntimeError as error:
            self.stop()
            raise UnavailableError(str(error)) from None
        self.library, self.version = str(hello["library"]), str(hello["version"])

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; RuntimeError says what went wrong."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | details).encode() + b"\n")
        self.process.stdin.flush()
        try:
            return self._answer()
        except RuntimeError as error:
            raise RuntimeError(f"{self.name}: {error}") from None

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(LIMIT):
                    self.stop()
                    raise RuntimeError(f"no answer within {LIMIT} s")
                part = os.read(self.process.stdout.fileno(), 1 << 16)
                if not part:
                    raise RuntimeError(f"the process ended: {self._last_words()}")
                line += part
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise RuntimeError(said["error"])
        return said

    def _last_words(self) -> str:
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
