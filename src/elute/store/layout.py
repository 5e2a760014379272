"""What a store is on disk: the one place that knows its names, its columns and its manifest (docs/formats/store.md).

    manifest.json           what the store holds, and the digest of every shard
    NNNNN.safetensors       one [rows, width] tensor a site
    NNNNN.parquet           one metadata row a row
    NNNNN.parquet.next      a metadata file that a new split is about to put in place (see splitting.py)
    embed_stats.json        scaling per site (see scaling.py)

The manifest alone decides what belongs to the store: a file that it does not name is not there yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from elute.base import files
from elute.base.errors import ConfigError, DamagedError, DataError, VersionError

if TYPE_CHECKING:
    import polars as pl
    import torch

SCHEMA = 1
MANIFEST = "manifest.json"
STATS = "embed_stats.json"
DEFAULT_SHARD_BYTES = 64 << 20

Dtype = Literal["fp32", "fp16", "bf16"]
SAFETENSORS_NAMES: dict[str, str] = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
ITEM_BYTES: dict[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2}

# Columns whose meaning is fixed; a domain may add others. Those marked as key tell one row from another.
COLUMNS: dict[str, tuple[str, bool]] = {
    "sample_id": ("String", True),
    "tile_id": ("String", True),
    "position": ("Int32", True),
    "token": ("String", True),
    "token_rc": ("Array(Int32, 2)", True),
    "augment_seed": ("Int64", True),
    "epoch": ("Int32", True),
    "group": ("String", False),
    "label": ("String", False),
    "split": ("String", False),
    "value": ("Float32", False),
}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """A file's size and digest."""

    bytes: int
    sha256: str


class ShardRecord(_Record):
    """One shard: how many rows it holds, and how many had been offered to the writer when it was full."""

    rows: int
    offered: int
    tensors: FileRecord
    metadata: FileRecord


class ModelRecord(_Record):
    """The fingerprint of the model that the rows were read from."""

    name: str
    weights: str
    config: str
    sites: str


class SplitRecord(_Record):
    """How the splits were drawn; absent when they came with the rows."""

    fractions: dict[str, float]
    stratified_by: str | None
    seed: int
    groups: dict[str, int]
    rows: dict[str, int]


class Manifest(_Record):
    """What a store holds."""

    schema_version: int = SCHEMA
    store: str
    sites: dict[str, int]
    dtype: Dtype
    rows_per_shard: int
    key: tuple[str, ...]
    columns: dict[str, str]
    model: ModelRecord | None
    source: dict[str, str]
    bad_rows: Literal["refuse", "drop", "keep"]
    bad_counted: int
    split: SplitRecord | None
    complete: bool
    shards: tuple[ShardRecord, ...]

    @property
    def rows(self) -> int:
        """Rows in whole shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all sites."""
        return sum(self.sites.values()) * ITEM_BYTES[self.dtype]


def tensors_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard's activations."""
    return folder / f"{shard:05d}.safetensors"


def metadata_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard's metadata."""
    return folder / f"{shard:05d}.parquet"


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's number type for a store's."""
    import torch

    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if name not in known:
        raise ConfigError(f"a store holds fp32, fp16 or bf16, not {name!r}")
    return known[name]


def polars_type(text: str) -> pl.DataType | type[pl.DataType]:
    """Polars' type for a column type as the manifest writes it."""
    import polars as pl

    if text == "Array(Int32, 2)":
        return pl.Array(pl.Int32, 2)
    known: dict[str, type[pl.DataType]] = {
        t.__name__: t for t in (pl.String, pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Float32, pl.Float64)
    } | {t.__name__: t for t in (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)}
    if text not in known:
        raise DataError(f"a metadata column cannot be of type {text}", remedy=f"Use one of {', '.join(sorted(known))}.")
    return known[text]


def type_name(dtype: Any) -> str:
    """Name a polars type as the manifest does; categories are kept as their text."""
    import polars as pl

    if isinstance(dtype, pl.Array) and dtype == pl.Array(pl.Int32, 2):
        return "Array(Int32, 2)"
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return "String"
    return str(dtype)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest; a newer, damaged or missing one is refused in one line."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(
            "there is no store here", where=folder, remedy="`elute arrays import FILE --output STORE` makes one."
        )
    if not path.exists():
        raise DataError(
            "this folder holds no store (no manifest.json)", where=folder, remedy="Give the folder of a store."
        )
    value = files.read_json(path, what="a store's manifest", remedy="Restore it from a copy, or write the store anew.")
    if not isinstance(value, dict) or "schema_version" not in value:
        raise DamagedError("is not a store's manifest", where=path, remedy="Give the folder of a store.")
    version = value["schema_version"]
    if isinstance(version, int) and version > SCHEMA:
        raise VersionError(
            f"was written by a newer elute (schema {version}, this one reads up to {SCHEMA})",
            where=path,
            remedy="Update elute.",
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        spot = ".".join(str(part) for part in first["loc"])
        raise DamagedError(
            f"the manifest is damaged at {spot}: {first['msg']}",
            where=path,
            remedy="Restore it from a copy, or write the store anew.",
        ) from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in place; with this rename, and no earlier, its shards belong to the store."""
    files.write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    files.sync_folder(folder)
