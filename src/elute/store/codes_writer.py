"""Writing the sparse codes of a store's rows: one whole shard at a time, and nothing lost.

1. The folder is found empty, with earlier codes of the same thing, which are continued, or with something else, which
   is refused.
2. Each call writes the codes of the store's next shard to a hidden neighbour, renames it, and then puts the manifest
   in place that names it. A writer killed at any moment leaves whole shards.
3. The last manifest says that the codes are complete.

with CodesWriter("codes", store=store, dictionary=digest, n_features=8192, sites=["block_3"]) as writer:
    for shard in range(writer.done, len(store.manifest.shards)):
        writer.append_shard(encode(store.read(store.starts[shard], store.starts[shard + 1])))
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from elute.base import files
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError, GuardError
from elute.base.tensors import write_safetensors
from elute.store import codes_layout, layout
from elute.store.codes_layout import CodeDtype, CodesManifest, CodesShard, StoreRecord
from elute.store.layout import MANIFEST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.store.rows import StoredRows

_BESIDE = ("run.json", "config.yaml")


class CodesWriter:
    """Writes the codes of a store's shards in order; goes on where an earlier writer of the same codes stopped."""

    def __init__(
        self,
        folder: Path | str,
        *,
        store: StoredRows,
        dictionary: str,
        n_features: int,
        sites: Sequence[str],
        dtype: CodeDtype = "fp32",
        selection: str | None = None,
        anew: bool = False,
    ) -> None:
        if not len(store):
            raise DataError("the store has no rows", where=store.folder, remedy="Capture or import some first.")
        record = StoreRecord.of(store, chosen=selection is not None)
        reads = tuple(store.known_sites(sites))
        _check_settings(dictionary, reads, n_features=n_features, dtype=dtype, selection=selection)
        fresh = CodesManifest(
            dictionary=dictionary,
            reads=reads,
            n_features=int(n_features),
            dtype=dtype,
            selection=selection,
            store=record,
        )
        fresh = fresh.model_copy(update={"codes": fresh.identity()})
        self.folder = files.make_folder(Path(folder))
        self._stack = ExitStack()
        self._stack.enter_context(files.locked(self.folder, "writing codes"))
        try:
            with files.disk_errors(self.folder):
                self.manifest = _find(self.folder, fresh, anew=anew)
        except BaseException:
            self._stack.close()
            raise
        self._open = True

    @property
    def done(self) -> int:
        """How many shards are whole: the number of the store's shard to go on with."""
        return len(self.manifest.shards)

    @property
    def shards(self) -> int:
        """How many shards the store has."""
        return len(self.manifest.store.rows)

    def append_shard(self, codes: Codes, rows: Tensor | NDArray[Any] | Sequence[int] | None = None) -> None:
        """Write the codes of the store's shard number `done`; `rows` are the numbers of those chosen within it."""
        self._check_open()
        shard = self.done
        if shard == self.shards:
            raise DataError(f"all {shard} shards of the store are written", where=self.folder)
        arrays = self._rows(rows, len(codes)) | self._numbers(codes)
        tag = {"codes": self.manifest.codes, "shard": f"{shard:05d}"}
        kinds = {"rows": "I64", "indices": "I32", "values": layout.SAFETENSORS_NAMES[self.manifest.dtype]}
        with files.disk_errors(self.folder):
            path = codes_layout.shard_path(self.folder, shard)
            size, digest = write_safetensors(path, arrays, dtype=kinds, metadata=tag)
            entry = CodesShard(rows=len(codes), slots=codes.k, bytes=size, sha256=digest)
            update = {"shards": (*self.manifest.shards, entry), "k": max(self.manifest.k, codes.k)}
            manifest = self.manifest.model_copy(update=update)
            codes_layout.write_manifest(self.folder, manifest)
        self.manifest = manifest

    def close(self) -> Path:
        """Mark the codes complete and return their folder; an error if shards are wanting."""
        self._check_open()
        try:
            if self.done < self.shards:
                what = f"only {self.done} of {self.shards} shards were written"
                raise DataError(what, where=self.folder, remedy="Append the others, or end with stop() to go on later.")
            if not self.manifest.complete:
                self.manifest = self.manifest.model_copy(update={"complete": True})
                with files.disk_errors(self.folder):
                    codes_layout.write_manifest(self.folder, self.manifest)
        finally:
            self.stop()
        return self.folder

    def stop(self) -> None:
        """End without completing; the shards that are written stay, to go on from later."""
        self._open = False
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._open:
            self.close()
        else:
            self.stop()

    def _check_open(self) -> None:
        if not self._open:
            raise DataError("this writer was closed", where=self.folder, remedy="Open another one to go on.")

    def _rows(self, rows: object, n: int) -> dict[str, NDArray[np.int64]]:
        """Check how many rows there are, and their numbers if some were chosen."""
        import torch

        shard, chosen = self.done, self.manifest.selection is not None
        of = self.manifest.store.rows[shard]
        if chosen == (rows is None):
            what = "codes of chosen rows come with the rows' numbers" if chosen else "rows came with codes of every row"
            raise DataError(what, where=self.folder, remedy="Pass rows if, and only if, the writer has a selection.")
        if rows is None:
            if n != of:
                raise DataError(f"{n:,} codes came for the {of:,} rows of shard {shard}", where=self.folder)
            return {}
        try:
            numbers = torch.as_tensor(rows).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as cause:
            what = f"rows are whole numbers, not {type(rows).__name__}"
            raise DataError(what, where=self.folder, remedy="Pass their numbers within the shard.") from cause
        if numbers.numel() == 0:
            numbers = numbers.long()  # an empty list is floating point to torch
        if tuple(numbers.shape) != (n,) or numbers.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
            what = f"{n:,} codes came with rows {numbers.dtype}{[*numbers.shape]}"
            raise DataError(what, where=self.folder, remedy="Pass one whole number a row of codes.")
        found = numbers.long().numpy()
        if fault := codes_layout.row_fault(found, of):
            raise DataError(fault, where=self.folder, remedy="Pass ascending numbers within the shard.")
        return {"rows": found}

    def _numbers(self, codes: Codes) -> dict[str, NDArray[Any]]:
        """Bring codes into the form of the file, and refuse what a reader would."""
        n_features, dtype = self.manifest.n_features, self.manifest.dtype
        if codes.n_features != n_features:
            what = f"codes of {codes.n_features:,} features came, where {n_features:,} were declared"
            raise DataError(what, where=self.folder)
        values = codes.values.detach()
        cast = values.to(layout.torch_dtype(dtype))
        if values.numel() and (most := values.abs().max()).isfinite() and not most.to(cast.dtype).isfinite():
            remedy = "Write the codes as fp32." if dtype == "fp16" else "Scale the dictionary down."
            raise DataError(f"the value {float(most):.6g} does not fit {dtype}", where=self.folder, remedy=remedy)
        arrays = {"indices": codes.indices.cpu().numpy(), "values": cast.cpu().numpy()}
        if fault := codes_layout.number_fault(arrays["indices"], arrays["values"], n_features):
            what = f"codes of shard {self.done}: {fault}"
            raise DataError(what, where=self.folder, remedy="Look at what encoded them: Codes.check() names it too.")
        return arrays


def _check_settings(
    dictionary: str, reads: tuple[str, ...], *, n_features: int, dtype: str, selection: str | None
) -> None:
    if not dictionary:
        raise ConfigError("codes name the dictionary that made them", remedy="Pass its digest.")
    if not reads or len(set(reads)) < len(reads):
        raise ConfigError(f"codes are read from one or several sites, each once, not from {list(reads)}")
    if not 1 <= n_features <= codes_layout.MOST_FEATURES:
        raise ConfigError(f"n_features={n_features}", remedy=f"Choose 1 to {codes_layout.MOST_FEATURES:,}.")
    if dtype not in ("fp32", "fp16"):
        raise ConfigError(f"the values of codes are written as fp32 or fp16, not {dtype!r}")
    if selection == "":
        raise ConfigError("a selection is named in words", remedy="Pass None if every row is encoded.")


def _find(folder: Path, fresh: CodesManifest, *, anew: bool) -> CodesManifest:
    """Decide what a writer finds: new codes, its own unfinished or finished ones, or what it must not touch."""
    if anew or not (folder / MANIFEST).exists():
        _clear(folder)
        return fresh
    found = codes_layout.read_manifest(folder)
    if changes := _differences(found, fresh):
        what = "the codes here are of something else: " + "; ".join(changes)
        raise GuardError(what, where=folder, remedy="Choose another folder, or write the codes anew.")
    codes_layout.check_sizes(folder, found)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    return found


def _differences(found: CodesManifest, fresh: CodesManifest) -> list[str]:
    """Say in words what two codes differ in."""
    told = found.store.changes(fresh.store) if (found.selection is None) == (fresh.selection is None) else []
    for what, one, other in (
        ("dictionary", found.dictionary[:64], fresh.dictionary[:64]),
        ("sites", ", ".join(found.reads), ", ".join(fresh.reads)),
        ("features", found.n_features, fresh.n_features),
        ("number type", found.dtype, fresh.dtype),
        ("rows", found.selection or "all", fresh.selection or "all"),
    ):
        if one != other:
            told.append(f"{what} {one}, not {other}")
    return told or ([] if found.codes == fresh.codes else ["their identity is another"])


def _clear(folder: Path) -> None:
    """Remove the files of codes, the manifest first, and nothing else; a folder of something else is refused.

    A store's shards have the names of ours: what a manifest does not call codes is left alone.
    """
    path = folder / MANIFEST
    try:
        value = files.read_json(path) if path.exists() else None
    except DataError:
        value = None  # damaged: what lies beside it decides
    if not (isinstance(value, dict) and "codes" in value):
        names = sorted(p.name for p in folder.iterdir())
        strange = [MANIFEST] if value is not None else [name for name in names if name[0] != "." and not _ours(name)]
        if strange:
            what = f"holds other files ({', '.join(strange[:3])}) and no codes"
            raise DataError(what, where=folder, remedy="Choose an empty or new folder.")
    path.unlink(missing_ok=True)
    for other in sorted(folder.iterdir()):
        if _ours(other.name):
            other.unlink(missing_ok=True)


def _ours(name: str) -> bool:
    stem, _, ending = name.partition(".")
    shard = len(stem) >= 5 and stem.isdigit() and ending == "safetensors"
    return shard or name in (MANIFEST, *_BESIDE) or (name.startswith(".") and name.endswith(".tmp"))
