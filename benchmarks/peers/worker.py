"""One library in a process of its own, that takes commands as JSON lines and answers each with one line.

    python -c "import worker; worker.main()" sparsify      (in this folder, with the interpreter that has the library)

The first line out says what is there: {"library": "eai-sparsify", "version": "1.3.3"}, or {"error": "…"}. Then

    {"do": "setup", "setting": {…}}                        a new dictionary with its optimiser; see Setting
    {"do": "step", "rows": FILE, "start": 0, "n": 2}       n training steps on the batches from row `start` on
    {"do": "train_on", "rows": FILE, "start": 0, "stop": 200000}    the same, all batches of a range of rows
    {"do": "encode" | "decode", "rows": FILE, "start": 0}  one batch, without gradients
    {"do": "evaluate", "rows": FILE, "start": 0, "stop": 8192}      {"explained_variance": …}
    {"do": "decoder", "to": FILE}                          the decoder, [features, d_in], as .npy
    {"do": "memory"}                                       {"peak_mb": …, "base_mb": …}

Every answer has "cpu_s" and "wall_s" of the library's own work: reading rows and preparing are outside. An adapter is a
module adapt_NAME.py with `load() -> (library, version)`, which imports the library, and `build(setting) -> Adapter`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Setting:
    """What every library is asked for, in the words of none of them."""

    d_in: int
    n_features: int
    k: int
    batch: int
    lr: float
    init_scale: float = 1.0  # times the library's own initial encoder; the decoder is left as it is
    seed: int = 0
    steps: int = 1_000_000  # how many there will be, for the schedule
    warmup: int = 0  # steps of linear warm-up
    decay: int = 0  # last steps, over which the rate falls to 0
    dead_rows: int = 10_000_000  # a feature silent for so many rows is dead
    aux: bool = True  # the library's auxiliary loss for dead features


class Adapter(Protocol):
    """A dictionary of one library, with the steps of that library's own training loop."""

    def step(self, x: torch.Tensor) -> torch.Tensor | float:
        """One training step on one batch, everything that the library's loop does each step; gives the loss."""
        ...

    def freeze(self) -> None:
        """Make what the library would use for inference; called, untimed, after steps and before encode or decode."""
        ...

    def encode(self, x: torch.Tensor) -> Any:
        """The codes of a batch, in the library's own form."""
        ...

    def decode(self, codes: Any) -> torch.Tensor:
        """Rows from what encode gave."""
        ...

    def decoder(self) -> torch.Tensor:
        """The decoder, a row a feature, of any norm."""
        ...


class _Nothing(types.ModuleType):
    """Stands for a module that a library imports at its top and does not need for training."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def absent(*names: str) -> None:
    """Put an empty module in the place of each of these."""
    for name in names:
        sys.modules[name] = _Nothing(name)


def tapered(step: int, setting: Setting) -> float:
    """The schedule for libraries that leave it to their user: warm-up, constant, linear decay."""
    up = min(1.0, (step + 1) / setting.warmup) if setting.warmup else 1.0
    down = min(1.0, (setting.steps - step) / setting.decay) if setting.decay else 1.0
    return max(0.0, min(up, down))


def _status(field: str) -> float:
    with open(f"/proc/{os.getpid()}/status") as lines:  # noqa: PTH123
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _rows(path: str, start: int, stop: int) -> torch.Tensor:
    """Copied out of a mapping that is let go again, so that the file does not count as memory of the library."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(np.lib.format.open_memmap(path, mode="r")[start:stop]))


class Worker:
    """What is measured, for any adapter."""

    def __init__(self, build: Callable[[Setting], Adapter]) -> None:
        self.build = build
        self.base = _status("VmRSS")
        self.frozen = False
        self.codes: Any = None

    def setup(self, setting: dict[str, Any]) -> dict[str, Any]:
        import torch

        self.setting = Setting(**setting)
        self.adapter = self.codes = None  # the last one's memory goes first
        torch.manual_seed(self.setting.seed)
        self.adapter = self.build(self.setting)
        self.frozen = False
        return {}

    def step(self, rows: str, start: int, n: int = 1) -> dict[str, Any]:
        cpu = wall = 0.0
        loss = float("nan")
        self.codes, self.frozen = None, False
        for i in range(n):
            x = _rows(rows, start + i * self.setting.batch, start + (i + 1) * self.setting.batch)
            c, w = time.process_time(), time.perf_counter()
            loss = float(self.adapter.step(x))
            cpu, wall = cpu + time.process_time() - c, wall + time.perf_counter() - w
        return {"cpu_s": cpu, "wall_s": wall, "loss": loss}

    def train_on(self, rows: str, start: int, stop: int) -> dict[str, Any]:
        return self.step(rows, start, (stop - start) // self.setting.batch)

    def _frozen(self) -> Adapter:
        if not self.frozen:
            self.adapter.freeze()
            self.frozen = True
        return self.adapter

    def encode(self, rows: str, start: int = 0) -> dict[str, Any]:
        import torch

        adapter, x = self._frozen(), _rows(rows, start, start + self.setting.batch)
        self.codes = None
        with torch.no_grad():
            c, w = time.process_time(), time.perf_counter()
            self.codes = adapter.encode(x)
            return {"cpu_s": time.process_time() - c, "wall_s": time.perf_counter() - w}

    def decode(self, rows: str, start: int = 0) -> dict[str, Any]:
        import torch

        if self.codes is None:
            self.encode(rows, start)
        adapter = self._frozen()
        with torch.no_grad():
            c, w = time.process_time(), time.perf_counter()
            adapter.decode(self.codes)
            return {"cpu_s": time.process_time() - c, "wall_s": time.perf_counter() - w}

    def evaluate(self, rows: str, start: int, stop: int) -> dict[str, Any]:
        """1 − the squared error over the squared distance from the mean row, both over all columns at once."""
        import torch

        adapter, x = self._frozen(), _rows(rows, start, stop)
        with torch.no_grad():
            parts = [adapter.decode(adapter.encode(part)) for part in x.split(self.setting.batch)]
            error = (torch.cat(parts).double() - x).square().sum()
            spread = (x.double() - x.double().mean(0)).square().sum()
        return {"explained_variance": 1 - float(error / spread)}

    def decoder(self, to: str) -> dict[str, Any]:
        import numpy as np

        np.save(to, self._frozen().decoder().detach().numpy(), allow_pickle=False)
        return {}

    def memory(self) -> dict[str, Any]:
        return {"peak_mb": _status("VmHWM"), "base_mb": self.base}


COMMANDS = ("setup", "step", "train_on", "encode", "decode", "evaluate", "decoder", "memory")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints does not come between the answers

    def answer(said: dict[str, Any]) -> None:
        answers.write(json.dumps(said) + "\n")

    try:
        adapter = importlib.import_module(f"adapt_{sys.argv[1]}")
        library, version = adapter.load()
        build = adapter.build
    except Exception as error:  # noqa: BLE001
        answer({"error": f"{type(error).__name__}: {error}"})
        return
    answer({"library": library, "version": version})
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    worker = Worker(build)
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop("do")
        if do not in COMMANDS:
            answer({"error": f"there is no command {do!r}; there are {', '.join(COMMANDS)}"})
            continue
        try:
            answer(getattr(worker, do)(**command))
        except Exception as error:  # noqa: BLE001
            answer({"error": f"{do}: {type(error).__name__}: {error}"})
