"""From files that people already have to a store: in pieces, resumable, and only once.

1. Every file is opened and checked against the others before anything is written.
2. The inputs' digests name the store: the same import again has nothing to do, another one is refused.
3. Rows are read piece by piece; an import that was interrupted goes on after the rows that are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from elute.base import console, files, run
from elute.base.errors import ConfigError, DataError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.store import layout, settle
from elute.store.imports.samples import read_metadata
from elute.store.imports.source import ArraySource, open_source
from elute.store.layout import Dtype
from elute.store.writer import StoreWriter

if TYPE_CHECKING:
    import polars as pl

_PIECE_BYTES = 32 << 20


class ImportConfig(Section):
    """What is read from the files, and how it is stored."""

    key: tuple[str, ...] = ()
    """Array to read, e.g. obsm/X_pca; give it again for a further site."""
    site: str | None = None
    """Name of the site, when there is one array."""
    sample_id: str | None = None
    """Column that names the sample of each row; else rows are numbered."""
    group: str | None = None
    """Column of the donor, patient or site that a row is of: splits keep it together."""
    label: str | None = None
    """Column of a label, to stratify splits by."""
    column: tuple[str, ...] = ()
    """Further column to keep with the rows; may be given several times."""
    metadata: Path | None = None
    """Table (Parquet, CSV, TSV, JSONL) of these columns: a row each, or matched by sample_id."""
    dtype: Dtype = "fp32"
    """Number type on disk."""
    rows_per_shard: int | None = Field(None, ge=1)
    """Rows of one shard; about 64 MB if not given."""
    bad_rows: Literal["refuse", "drop", "keep"] = "refuse"
    """What to do with rows that hold NaN or Inf; they are counted in any case."""
    recapture: bool = False
    """Write the store anew, whatever lies there."""


def import_arrays(paths: list[Path], output: Path, config: ImportConfig) -> Artifact:
    """Turn the arrays in some files into one store."""
    sources = _open(paths, config)
    given = [*paths, *([config.metadata] if config.metadata else [])]
    digests = {f"{i} {path.name}": digest_input(path) for i, path in enumerate(given)}
    choices = config.model_dump(mode="json", exclude={"recapture", "metadata", "dtype", "rows_per_shard", "bad_rows"})
    digests["settings"] = files.digest_json(choices)
    if not config.recapture and (found := _done(output, digests, config)):
        return Artifact("store", output, {**found, "reused": True})
    writer = StoreWriter(
        output,
        sites=sources[0].sites,
        dtype=config.dtype,
        rows_per_shard=config.rows_per_shard,
        bad_rows=config.bad_rows,
        source=digests,
        recapture=config.recapture,
    )
    total = sum(source.n_rows for source in sources)
    with writer, console.progress("import", total, done=writer.offered) as bar:
        if writer.offered:
            console.say(f"{output}: going on after {writer.offered:,} of {total:,} rows")
        first = 0
        for source in sources:
            start = max(0, writer.offered - first)
            if start < source.n_rows:
                piece = max(1, _PIECE_BYTES // (4 * sum(source.sites.values())))
                for rows, frame in source.pieces(piece, start):
                    writer.append(rows, _labelled(frame, config.label))
                    bar.advance(len(frame))
            first += source.n_rows
    summary = {"rows": writer.rows, "sites": sources[0].sites, "bad_rows": writer.bad_counted}
    run.record(output, "import", config, inputs=digests, summary=summary)
    return Artifact("store", output, {**summary, "reused": False})


def digest_input(path: Path) -> str:
    """Digest of a file, or of the names and contents in a folder such as a Zarr array."""
    if path.is_file():
        return files.digest_file(path)
    inside = sorted(p for p in path.rglob("*") if p.is_file())
    return files.digest_json([[str(p.relative_to(path)), files.digest_file(p)] for p in inside])


def _open(paths: list[Path], config: ImportConfig) -> list[ArraySource]:
    """Open every file, and refuse those that do not fit the first."""
    if config.metadata is not None and len(paths) > 1:
        remedy = "Import one file, or put the columns into the files."
        raise ConfigError("--metadata goes with one file, since it has a row for each of its rows", remedy=remedy)
    table = None if config.metadata is None else read_metadata(config.metadata)
    columns = list(dict.fromkeys([*config.column, *([config.label] if config.label else [])]))
    sources: list[ArraySource] = []
    for path in paths:
        source = open_source(
            path,
            keys=config.key,
            site=config.site,
            sample_id=config.sample_id,
            group=config.group,
            columns=columns,
            metadata=table,
            first=sum(s.n_rows for s in sources),
        )
        if sources and source.sites != sources[0].sites:
            what = f"holds {source.sites}, but {paths[0].name} holds {sources[0].sites}"
            raise DataError(what, where=path, remedy="Import files of one kind together, others to their own store.")
        sources.append(source)
    return sources


def _labelled(frame: pl.DataFrame, label: str | None) -> pl.DataFrame:
    """Call the label's column by the name that every store gives it."""
    return frame if label is None else frame.rename({label: "label"})


def _done(output: Path, source: dict[str, str], config: ImportConfig) -> dict[str, object] | None:
    """Return what a complete store of these very inputs and settings holds."""
    if not (output / layout.MANIFEST).exists():
        return None
    found = settle.for_reading(output)
    same = found.source == source and found.dtype == config.dtype and found.bad_rows == config.bad_rows
    if not found.complete or not same:
        return None
    return {"rows": found.rows, "sites": found.sites, "bad_rows": found.bad_counted}
