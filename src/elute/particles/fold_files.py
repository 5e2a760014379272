"""What a fold gave, as a file: safetensors whose metadata names all that it depends on.

A file of other inputs, settings or folds counts as none, and so does one that was cut short.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import files
from elute.base.errors import DataError
from elute.base.tensors import safetensors_header, write_safetensors
from elute.particles.fold_work import FoldResult

if TYPE_CHECKING:
    from elute.particles.folding import Folds
    from elute.particles.settings import EvaluationConfig
    from elute.particles.table import Joined

SCHEMA = 1
_KINDS: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4")}


class FoldFiles:
    """The folder of the folds' files."""

    def __init__(
        self, folder: Path, joined: Joined, folds: Folds, config: EvaluationConfig, *, methods: list[str]
    ) -> None:
        """Take note of what the files depend on."""
        self.folder, self.n, self.methods = files.make_folder(folder), folds.n, methods
        settings = {**config.identity(), "n_resamples": 0, "methods": methods, "schema": SCHEMA}
        settings["sources"], settings["device"] = list(joined.names), config.device.partition(":")[0]
        self.key = files.digest_bytes(
            files.digest_json(settings).encode(),
            folds.of.tobytes(), folds.groups.tobytes(), joined.codes.tobytes(), "\n".join(joined.classes).encode(),
            *(np.ascontiguousarray(x).tobytes() for x in joined.vectors),
        )  # fmt: skip

    def path(self, number: int) -> Path:
        """The file of a fold."""
        return self.folder / f"fold_{number:02d}.safetensors"

    def scratch(self, number: int) -> Path:
        """Where the networks of a fold keep their checkpoint while they learn."""
        return self.folder / f"fold_{number:02d}"

    def finished(self) -> int:
        """How many folds need not be done again."""
        return sum(self._header(number) is not None for number in range(self.n))

    def write(self, number: int, result: FoldResult) -> None:
        """Keep what a fold gave."""
        tensors: dict[str, Any] = {f"p.{name}": np.ascontiguousarray(p) for name, p in result.probabilities.items()}
        kinds = dict.fromkeys(tensors, "F64")
        for name in ("fused", "gates", "anchors"):
            if (value := getattr(result, name)) is not None:
                tensors[name], kinds[name] = np.ascontiguousarray(value, dtype=np.float32), "F32"
        write_safetensors(self.path(number), tensors, dtype=kinds, metadata={"key": self.key})
        shutil.rmtree(self.scratch(number), ignore_errors=True)

    def tidy(self) -> None:
        """Remove what an evaluation in more folds left."""
        ours = {self.path(number).name for number in range(self.n)}
        for path in self.folder.glob("fold_*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in ours:
                path.unlink()

    def read(self, number: int) -> FoldResult | None:
        """Return what a fold gave, nothing where it has to be done."""
        found = self._header(number)
        if found is None:
            return None
        data = self.path(number).read_bytes()
        arrays = {}
        for name, entry in found[1].items():
            if name != "__metadata__":
                begin, end = (found[0] + place for place in entry["data_offsets"])
                kind: np.dtype[Any] = _KINDS[entry["dtype"]]
                arrays[name] = np.frombuffer(data[begin:end], kind).reshape(entry["shape"])
        return FoldResult(
            {name: arrays[f"p.{name}"] for name in self.methods},
            arrays["fused"],
            arrays.get("gates"),
            arrays.get("anchors"),
        )

    def _header(self, number: int) -> tuple[int, dict[str, Any]] | None:
        if not self.path(number).exists():
            return None
        try:
            offset, header = safetensors_header(self.path(number))
        except DataError:
            return None
        told = (header.get("__metadata__") or {}).get("key")
        return (offset, header) if told == self.key else None
