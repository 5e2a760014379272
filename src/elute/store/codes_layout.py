"""What sparse codes are on disk: their names, manifest and shards (docs/formats/codes.md).

    manifest.json           whose codes they are, and the size and digest of every shard
    NNNNN.safetensors       the codes of the rows of the store's shard NNNNN

The manifest alone decides what belongs to the codes: a file that it does not name is not there yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from elute.base import files
from elute.base.codes import Codes
from elute.base.errors import DamagedError, DataError, VersionError
from elute.base.tensors import safetensors_header
from elute.store import layout
from elute.store.layout import MANIFEST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.store.rows import StoredRows

SCHEMA = 1
REMEDY = "Restore it from a copy, or encode the rows anew."
MOST_FEATURES = 2**31 - 1

CodeDtype = Literal["fp32", "fp16"]
# Strict, so that "3" and true are no numbers; the bound keeps sums over shards within 64 bits.
Count = Annotated[int, Field(strict=True, ge=0, le=2**40)]

_SLOTS = 1 << 18  # looked at together: their temporaries stay in the processor's cache


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreRecord(_Record):
    """The store whose rows were encoded, as it was then."""

    store: str
    rows: tuple[Count, ...]
    tensors: str
    metadata: str | None

    @classmethod
    def of(cls, store: StoredRows, *, chosen: bool) -> StoreRecord:
        """Describe a store; its metadata count only where they chose the rows."""
        shards = store.manifest.shards
        return cls(
            store=store.manifest.store,
            rows=tuple(shard.rows for shard in shards),
            tensors=files.digest_json([shard.tensors.sha256 for shard in shards]),
            metadata=files.digest_json([shard.metadata.sha256 for shard in shards]) if chosen else None,
        )

    def changes(self, now: StoreRecord) -> list[str]:
        """Say what is no longer as it was, the first cause alone."""
        if self.store != now.store:
            return [f"they are of store {self.store}, not {now.store}"]
        if self.rows != now.rows:
            told = [f"{sum(r.rows):,} rows in {len(r.rows):,} shards" for r in (self, now)]
            return [f"their store had {told[0]} and has {told[1]}"]
        if self.tensors != now.tensors:
            return ["the rows of their store were written anew"]
        if self.metadata != now.metadata:
            return ["the metadata of their store, by which rows were chosen, have changed (another split?)"]
        return []


class CodesShard(_Record):
    """One shard: its rows, the slots of each, and its file's size and digest."""

    rows: Count
    slots: Count
    bytes: Count
    sha256: str


class CodesManifest(_Record):
    """Whose codes they are."""

    schema_version: Annotated[int, Field(strict=True, ge=1, le=SCHEMA)] = SCHEMA
    codes: str = ""
    dictionary: str
    reads: tuple[str, ...]
    n_features: Annotated[int, Field(strict=True, ge=1, le=MOST_FEATURES)]
    k: Count = 0
    dtype: CodeDtype
    selection: str | None
    store: StoreRecord
    complete: StrictBool = False
    shards: tuple[CodesShard, ...] = ()

    def identity(self) -> str:
        """Digest everything that is known before the first row is encoded."""
        known = {"dictionary", "reads", "n_features", "dtype", "selection", "store"}
        return files.digest_json(self.model_dump(mode="json", include=known))[:16]

    def contradiction(self) -> str:
        """Say what in the manifest does not agree with the rest of it; nothing when all does."""
        if len(self.shards) > len(self.store.rows):
            return f"{len(self.shards)} shards of a store of {len(self.store.rows)}"
        for number, (shard, rows) in enumerate(zip(self.shards, self.store.rows, strict=False)):
            if shard.rows > rows or (self.selection is None and shard.rows < rows):
                return f"shard {number} has {shard.rows:,} rows where the store's has {rows:,}"
        if self.k != max((shard.slots for shard in self.shards), default=0) or self.k > self.n_features:
            return f"k={self.k} is not what its shards hold"
        if self.complete and len(self.shards) < len(self.store.rows):
            return f"complete with {len(self.shards)} of {len(self.store.rows)} shards"
        return "" if self.codes == self.identity() else "its identity is of something else (edited?)"

    def tensors(self, shard: int) -> dict[str, dict[str, Any]]:
        """Return what a shard's safetensors header must declare, in order."""
        entry, item = self.shards[shard], layout.ITEM_BYTES[self.dtype]
        shape = [entry.rows, entry.slots]
        parts = [("indices", "I32", shape, 4), ("values", layout.SAFETENSORS_NAMES[self.dtype], shape, item)]
        if self.selection is not None:
            parts.insert(0, ("rows", "I64", shape[:1], 8))
        told, begin = {}, 0
        for name, dtype, dims, width in parts:
            end = begin + width * dims[0] * (dims[1] if len(dims) > 1 else 1)
            told[name] = {"dtype": dtype, "shape": dims, "data_offsets": [begin, end]}
            begin = end
        return told


def shard_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard's codes."""
    return folder / f"{shard:05d}.safetensors"


def read_manifest(folder: Path) -> CodesManifest:
    """Read and check a manifest; a newer, damaged, foreign or missing one is refused in one line."""
    path = folder / MANIFEST
    if not path.exists():
        what = "there are no codes here" + (" (no manifest.json)" if folder.is_dir() else "")
        raise DataError(what, where=folder, remedy="Give a folder of codes, or encode the rows of a store first.")
    value = files.read_json(path, what="a manifest of codes", remedy=REMEDY)
    if not isinstance(value, dict) or "schema_version" not in value or "codes" not in value:
        raise DamagedError("is not a manifest of codes", where=path, remedy="Give a folder of codes.")
    version = value["schema_version"]
    if isinstance(version, int) and version > SCHEMA:
        what = f"was written by a newer elute (schema {version}, this one reads up to {SCHEMA})"
        raise VersionError(what, where=path, remedy="Update elute.")
    try:
        manifest = CodesManifest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        spot = ".".join(str(part) for part in first["loc"])
        raise DamagedError(f"the manifest is damaged at {spot}: {first['msg']}", where=path, remedy=REMEDY) from None
    if fault := manifest.contradiction():
        raise DamagedError(f"the manifest contradicts itself: {fault}", where=path, remedy=REMEDY)
    return manifest


def write_manifest(folder: Path, manifest: CodesManifest) -> None:
    """Put a manifest in place; with this rename, and no earlier, its shards belong to the codes."""
    files.write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    files.sync_folder(folder)


def size_fault(path: Path, n_bytes: int) -> str:
    """Say whether a file is missing or of another size; nothing when it is as it should be."""
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    return "" if found == n_bytes else f"has {found:,} bytes instead of {n_bytes:,}"


def check_sizes(folder: Path, manifest: CodesManifest) -> None:
    """Refuse codes with shards that are missing or of another size, and list them all."""
    bad = []
    for shard, entry in enumerate(manifest.shards):
        path = shard_path(folder, shard)
        if fault := size_fault(path, entry.bytes):
            bad.append(f"{path.name} {fault}")
    if bad:
        shown = "; ".join(bad[:8]) + (f"; and {len(bad) - 8} more" if len(bad) > 8 else "")
        raise DamagedError(shown, where=folder, remedy=REMEDY)


def map_shard(folder: Path, manifest: CodesManifest, shard: int) -> tuple[Codes, Tensor | None]:
    """Memory-map a shard whose header is as the manifest says: its codes, and the numbers of its rows if chosen."""
    import numpy as np
    import torch

    path, wanted = shard_path(folder, shard), manifest.tensors(shard)
    base, header = safetensors_header(path)
    tag = header.pop("__metadata__", None) or {}
    if tag.get("codes") != manifest.codes:
        raise DamagedError("is a shard of other codes", where=path, remedy=REMEDY)
    if tag.get("shard") != f"{shard:05d}":
        raise DamagedError(f"is shard {tag.get('shard')} under a wrong name (swapped?)", where=path, remedy=REMEDY)
    for name in (*wanted, *sorted(header)):
        if header.get(name) != wanted.get(name):
            want = wanted.get(name)
            told = f"{want['dtype']} {want['shape']} at its place" if want else "what the manifest names"
            raise DamagedError(f"its tensor {name!r} is not {told}", where=path, remedy=REMEDY)
    if base % 8:
        raise DamagedError("its numbers do not begin at a multiple of 8 bytes", where=path, remedy=REMEDY)
    # Copy-on-write: a caller that edits a row changes its own copy, never the file.
    raw = np.memmap(path, np.uint8, "c")
    kinds = {"rows": np.int64, "indices": np.int32, "values": np.float16 if manifest.dtype == "fp16" else np.float32}
    found = {}
    for name, entry in wanted.items():
        begin, end = entry["data_offsets"]
        found[name] = torch.from_numpy(raw[base + begin : base + end].view(kinds[name]).reshape(entry["shape"]))
    return Codes(found["indices"], found["values"], manifest.n_features), found.get("rows")


def number_fault(indices: NDArray[np.int32], values: NDArray[Any], n_features: int) -> str:
    """Say what the first row is that no encoder writes, in bounded memory; nothing when all is well.

    Finds what `Codes.check` does, several times faster on a processor: numpy sorts short rows better than torch.
    """
    import numpy as np

    step = max(1, _SLOTS // max(1, indices.shape[1]))
    # Each empty slot gets a number of its own, below every feature, so that only what fired can be equal.
    empty = -1 - np.arange(indices.shape[1], dtype=np.int32)
    for start in range(0, len(indices), step):
        index, value = indices[start : start + step], values[start : start + step]
        named = np.where(value != 0, index, empty)
        named.sort(axis=1)
        for bad, words in (
            (index.view(np.uint32) >= n_features, f"names a feature outside of {n_features:,}"),  # negatives too
            (~np.isfinite(value), "holds NaN or infinity"),
            (named[:, 1:] == named[:, :-1], "names a feature twice"),
        ):
            if bad.any():
                return f"row {start + int(bad.any(axis=1).argmax()):,} {words}"
    return ""


def row_fault(rows: NDArray[np.int64], of: int) -> str:
    """Say what is wrong with the numbers of chosen rows; nothing when they ascend within the store's shard."""
    outside = (rows < 0) | (rows >= of)
    if outside.any():
        return f"there is no row {int(rows[outside.argmax()])} in the {of:,} rows of the store's shard"
    falls = rows[1:] <= rows[:-1]
    return f"row {int(rows[1:][falls.argmax()])} is repeated or out of order" if falls.any() else ""
