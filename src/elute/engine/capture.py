"""From a model to a store: every row that a model gives at its sites, with bounded memory, resumable by batch.

1. The first batch tells the sites' widths; the model's fingerprint and the inputs' digests name the store.
2. A store that is already there is reused, taken up, or refused with what has changed since.
3. Batches whose rows are stored are passed over without running the model; a batch stored in part is run again.
4. At the end the fingerprint is taken once more: rows of a model that changed meanwhile belong to no model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from elute.base import console, files, run
from elute.base.contracts import Fingerprint, Model, Rows
from elute.base.errors import DataError, GuardError, SpaceError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.store import layout, settle
from elute.store.layout import Dtype
from elute.store.writer import StoreWriter

if TYPE_CHECKING:
    import polars as pl

_METADATA_BYTES = 8  # of a row, compressed


class CaptureConfig(Section):
    """How activations are stored."""

    dtype: Dtype = "fp32"
    """Number type on disk."""
    rows_per_shard: int | None = Field(None, ge=1)
    """Rows of one shard; about 64 MB if not given."""
    bad_rows: Literal["refuse", "drop", "keep"] = "refuse"
    """What to do with rows that hold NaN or Inf; they are counted in any case."""
    recapture: bool = False
    """Write the store anew, whatever lies there."""


def capture_to_store(
    model: Model,
    data: Any,
    folder: Path | str,
    *,
    sites: Sequence[str] | None = None,
    config: CaptureConfig | None = None,
    source: Mapping[str, str] | None = None,
    total_rows: int | None = None,
) -> Artifact:
    """Capture a model's sites over all of `data`; `source` names the inputs by their digests."""
    config, folder = config or CaptureConfig(), Path(folder)
    names = list(model.sites) if sites is None else list(sites)
    fingerprint = model.fingerprint()
    batches = iter(model.batches(data))
    first = next(batches, None)
    if first is None:
        raise DataError("the data gave no batch", where=folder, remedy="Check that the input has rows.")
    widths = _widths(model, first[0], names)
    if not config.recapture and (done := _complete(folder, widths, fingerprint, config, dict(source or {}))):
        console.say(f"{folder}: already captured, {done['rows']:,} rows are used as they are")
        if "capture" not in run.read(folder)["stages"]:  # killed between the store's end and its record
            run.record(folder, "capture", config, inputs=dict(source or {}), summary=done, model=fingerprint)
        return Artifact("store", folder, {**done, "reused": True})
    writer = StoreWriter(
        folder,
        sites=widths,
        dtype=config.dtype,
        rows_per_shard=config.rows_per_shard,
        bad_rows=config.bad_rows,
        model=fingerprint,
        source=source,
        recapture=config.recapture,
    )
    with writer, console.progress("capture", total_rows, done=writer.offered) as bar:
        if writer.offered:
            console.say(f"{folder}: going on after {writer.offered:,} rows")
        if total_rows is not None:
            _room(folder, total_rows - writer.offered, widths, config.dtype)
        skip = writer.offered
        for batch, metadata in itertools.chain([first], batches):
            if skip >= len(metadata):
                skip -= len(metadata)
                continue
            rows = model.capture(batch, names)
            _match(rows, metadata, folder)
            writer.append({name: x[skip:] for name, x in rows.items()}, metadata[skip:])
            bar.advance(len(metadata) - skip)
            skip = 0
        _unchanged(model, fingerprint, folder)
    summary = {"rows": writer.rows, "sites": widths, "bad_rows": writer.bad_counted}
    run.record(folder, "capture", config, inputs=dict(source or {}), summary=summary, model=fingerprint)
    return Artifact("store", folder, {**summary, "reused": False})


def _complete(
    folder: Path, widths: dict[str, int], model: Fingerprint, config: CaptureConfig, source: dict[str, str]
) -> dict[str, Any] | None:
    """Return what a complete store of this very model, settings and input holds."""
    if not (folder / layout.MANIFEST).exists():
        return None
    found = settle.for_reading(folder)
    wanted = found.model_copy(
        update={
            "sites": widths,
            "model": layout.ModelRecord(**model.as_json()),
            "dtype": config.dtype,
            "bad_rows": config.bad_rows,
            "source": source,
        }
    )
    if not found.complete or settle.differences(found, wanted):
        return None
    return {"rows": found.rows, "sites": found.sites, "bad_rows": found.bad_counted}


def _widths(model: Model, batch: Any, names: Sequence[str]) -> dict[str, int]:
    """Widths of the sites, from what the model declares where it does, else from one forward."""
    declared = {name: model.sites[name].width for name in names if name in model.sites}
    if len(declared) == len(names) and all(declared.values()):
        return declared
    return {name: int(x.shape[-1]) for name, x in model.capture(batch, names).items()}


def _room(folder: Path, rows: int, widths: Mapping[str, int], dtype: Dtype) -> None:
    """Refuse to begin what the disk cannot hold."""
    needed = rows * (sum(widths.values()) * layout.ITEM_BYTES[dtype] + _METADATA_BYTES)
    if needed > (free := files.free_bytes(folder)):
        what = f"about {console.size(needed)} are to come, and there is room for {console.size(free)}"
        remedy = "Choose fewer sites or rows, --dtype bf16, or another disk."
        raise SpaceError(what, where=folder, remedy=remedy)


def _match(rows: Rows, metadata: pl.DataFrame, folder: Path) -> None:
    for name, x in rows.items():
        if len(x) != len(metadata):
            what = f"site {name!r} gave {len(x)} rows for {len(metadata)} rows of metadata"
            raise DataError(what, where=folder, remedy="Give one metadata row for each kept position (see keep).")


def _unchanged(model: Model, before: Fingerprint, folder: Path) -> None:
    if model.fingerprint() != before:
        remedy = "Freeze the model, then capture with --recapture."
        raise GuardError("the model's weights changed while it was captured", where=folder, remedy=remedy)
