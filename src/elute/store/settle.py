"""The state in which a folder is found: fresh, unfinished, complete, or interrupted while splits were drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import files
from elute.base.errors import BusyError, DamagedError, DataError, GuardError, SpaceError
from elute.base.tensors import safetensors_header
from elute.store import layout
from elute.store.layout import FileRecord, Manifest

if TYPE_CHECKING:
    import polars as pl
    import torch

_REMEDY = "Restore it from a copy, or write the store anew with --recapture."


def for_writing(folder: Path, fresh: Manifest, *, recapture: bool) -> Manifest:
    """Decide what a writer finds: a new store, its own unfinished one, or one that it must not touch."""
    if recapture:
        clear(folder)
    if not (folder / layout.MANIFEST).exists():
        strange = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and not _ours(p.name))
        if strange:
            what = f"holds other files ({', '.join(strange[:3])}) and no store"
            raise DataError(what, where=folder, remedy="Choose an empty or new folder.")
        clear(folder)
        return fresh
    found = layout.read_manifest(folder)
    finish_split(folder, found)
    if changes := differences(found, fresh):
        remedy = "Choose another folder, or write this one anew with --recapture."
        raise GuardError("the store here is of something else: " + "; ".join(changes), where=folder, remedy=remedy)
    if found.complete:
        raise GuardError("the store here is complete", where=folder, remedy="Write it anew with --recapture.")
    check_sizes(folder, found)
    for path in folder.iterdir():
        if path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)
    return found


def differences(found: Manifest, fresh: Manifest) -> list[str]:
    """Say in words what two stores differ in."""
    told = []
    for what, one, other in (
        ("sites", found.sites, fresh.sites),
        ("number type", found.dtype, fresh.dtype),
        ("rows per shard", found.rows_per_shard, fresh.rows_per_shard),
        ("treatment of bad rows", found.bad_rows, fresh.bad_rows),
    ):
        if one != other:
            told.append(f"{what} {one}, not {other}")
    return told + model_changes(found, fresh) + source_changes(found.source, fresh.source)


def model_changes(found: Manifest, fresh: Manifest) -> list[str]:
    """Say what has changed of the model."""
    old, new = found.model, fresh.model
    if old is None or new is None:
        return [] if old is new else ["a model was named in one and not in the other"]
    words = {"weights": "the model's weights (fine-tuned?)", "config": "its configuration", "sites": "its sites"}
    return [f"{text} have changed" for part, text in words.items() if getattr(old, part) != getattr(new, part)]


def source_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Say which inputs have changed."""
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [f"the input {', '.join(names)} changed"] if names else []


def clear(folder: Path) -> None:
    """Remove a store's files, the manifest first, and nothing else."""
    for path in [folder / layout.MANIFEST, *sorted(folder.iterdir())]:
        if _ours(path.name) and path.name != ".lock":
            path.unlink(missing_ok=True)


def _ours(name: str) -> bool:
    stem = name.lstrip(".").split(".")[0]
    shard = len(stem) >= 5 and stem.isdigit() and (".safetensors" in name or ".parquet" in name)
    return shard or name in (layout.MANIFEST, layout.STATS, ".lock", "run.json", "config.yaml") or name.endswith(".tmp")


def for_reading(folder: Path) -> Manifest:
    """Read the manifest; a change of splits that was interrupted is finished first, unless a writer is at work."""
    manifest = layout.read_manifest(folder)
    if any(folder.glob("*.parquet.next")):
        with suppress(BusyError, SpaceError), files.locked(folder, "finishing a split"):
            finish_split(folder, manifest)
    check_sizes(folder, manifest)
    return manifest


def finish_split(folder: Path, manifest: Manifest) -> None:
    """Put metadata in place that the manifest already names, and remove what it does not (see splitting.py)."""
    for path in sorted(folder.glob("*.parquet.next")):
        shard = int(path.name.split(".")[0]) if path.name.split(".")[0].isdigit() else len(manifest.shards)
        named = shard < len(manifest.shards) and files.digest_file(path) == manifest.shards[shard].metadata.sha256
        with files.disk_errors(path):
            path.replace(layout.metadata_path(folder, shard)) if named else path.unlink()


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Refuse a store with shards that are missing or of another size, and list them all."""
    bad = []
    for shard, entry in enumerate(manifest.shards):
        for path, record in (
            (layout.tensors_path(folder, shard), entry.tensors),
            (layout.metadata_path(folder, shard), entry.metadata),
        ):
            if not path.exists():
                bad.append(f"{path.name} is missing")
            elif (size := path.stat().st_size) != record.bytes:
                bad.append(f"{path.name} has {size:,} bytes instead of {record.bytes:,}")
    if bad:
        shown = "; ".join(bad[:8]) + (f"; and {len(bad) - 8} more" if len(bad) > 8 else "")
        raise DamagedError(shown, where=folder, remedy=_REMEDY)


def write_metadata(path: Path, frame: pl.DataFrame, tag: Mapping[str, str]) -> FileRecord:
    """Write a shard's metadata as Parquet and return its size and digest."""
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd", metadata=dict(tag))
    data = buffer.getvalue()
    files.write_atomically(path, lambda handle: handle.write(data))
    return FileRecord(bytes=len(data), sha256=files.digest_bytes(data))


def read_metadata(
    folder: Path, manifest: Manifest, shard: int, *, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Read a shard's metadata; what is not a whole Parquet file with the right rows is refused."""
    import polars as pl

    path = layout.metadata_path(folder, shard)
    try:
        frame = pl.read_parquet(path, columns=None if columns is None else list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read as Parquet: {error}"
        raise DamagedError(what, where=path, remedy=_REMEDY) from None
    if len(frame) != manifest.shards[shard].rows:
        what = f"holds {len(frame)} rows instead of {manifest.shards[shard].rows}"
        raise DamagedError(what, where=path, remedy=_REMEDY)
    return frame


def tensor_spans(folder: Path, manifest: Manifest, shard: int) -> dict[str, int]:
    """Check a shard's header against the manifest and return where each site's data begin in its file."""
    path = layout.tensors_path(folder, shard)
    if not path.exists():
        raise DamagedError("is missing", where=path, remedy=_REMEDY)
    base, header = safetensors_header(path)
    tag = header.get("__metadata__") or {}
    if tag.get("store") != manifest.store:
        raise DamagedError("is a shard of another store", where=path, remedy=_REMEDY)
    if tag.get("shard") != f"{shard:05d}":
        raise DamagedError(f"is shard {tag.get('shard')} under a wrong name (swapped?)", where=path, remedy=_REMEDY)
    spans = {}
    for name, width in manifest.sites.items():
        entry = header.get(name, {})
        begin, end = entry.get("data_offsets", (0, 0))
        shape = [manifest.shards[shard].rows, width]
        n_bytes = shape[0] * width * layout.ITEM_BYTES[manifest.dtype]
        kind = layout.SAFETENSORS_NAMES[manifest.dtype]
        if entry.get("shape") != shape or entry.get("dtype") != kind or end - begin != n_bytes or begin < 0:
            what = f"site {name!r} is not the {shape[0]} × {width} {manifest.dtype} that the manifest names"
            raise DamagedError(what, where=path, remedy=_REMEDY)
        spans[name] = base + begin
    return spans


def read_tensors(folder: Path, manifest: Manifest, shard: int) -> dict[str, torch.Tensor]:
    """Memory-map a shard: one `[rows, width]` tensor a site; pages are read when they are touched."""
    import numpy as np
    import torch

    spans = tensor_spans(folder, manifest, shard)
    rows = manifest.shards[shard].rows
    path = layout.tensors_path(folder, shard)
    kind = {"fp32": np.float32, "fp16": np.float16, "bf16": np.int16}[manifest.dtype]
    mapped = {}
    for name, width in manifest.sites.items():
        # Copy-on-write: a caller that edits a row changes its own copy, never the file.
        array = np.memmap(path, kind, "c", spans[name], (rows, width))
        tensor = torch.from_numpy(array)
        mapped[name] = tensor.view(torch.bfloat16) if manifest.dtype == "bf16" else tensor
    return mapped
