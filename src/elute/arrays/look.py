"""What a store holds, in a few lines."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from elute.base import console
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.store.reader import Store


class HeadConfig(Section):
    """What is printed."""

    rows: int = Field(5, ge=0)
    """Rows to show."""
    numbers: int = Field(4, ge=1)
    """Numbers of each row to show, of every site."""
    split: str | None = None
    """Rows of this split alone."""
    group: str | None = None
    """Rows of this group alone."""


def look(folder: Path, config: HeadConfig) -> Artifact:
    """Describe a store and its first rows, as text and as data."""
    import polars as pl

    store = Store(folder)
    where = store.select(split=config.split, group=config.group)
    names = list(store.sites)
    frame = pl.DataFrame()
    values: dict[str, list[list[float]]] = {name: [] for name in names}
    if config.rows:
        rows, frame = next(store.batches(config.rows, where=where))
        values = {name: rows[name][:, : config.numbers].float().tolist() for name in names}
    size = sum(entry.tensors.bytes + entry.metadata.bytes for entry in store.manifest.shards)
    shards = console.count(len(store.manifest.shards), "shard")
    state = "" if store.complete else ", unfinished"
    lines = [
        f"{folder}: {console.count(len(store), 'row')}, {shards}, {console.size(size)}{state}",
        "sites:   "
        + ", ".join(f"{name} × {width}" for name, width in store.sites.items())
        + f" ({store.manifest.dtype})",
        "columns: " + ", ".join(f"{name} ({kind})" for name, kind in store.manifest.columns.items()),
    ]
    if store.manifest.split:
        lines.append("splits:  " + ", ".join(f"{n} {r:,}" for n, r in store.manifest.split.rows.items()))
    if config.rows:
        shown = frame.with_columns(
            pl.Series(name, [" ".join(f"{x:.3g}" for x in row) + " …" for row in values[name]]) for name in names
        )
        with pl.Config(tbl_rows=config.rows, tbl_cols=-1, fmt_str_lengths=60, tbl_hide_dataframe_shape=True):
            lines.append(str(shown))
    summary = {
        "rows": len(store),
        "selected": where.rows,
        "sites": store.sites,
        "columns": store.manifest.columns,
        "complete": store.complete,
        "head": [{**meta, **{n: values[n][i] for n in names}} for i, meta in enumerate(frame.iter_rows(named=True))],
    }
    return Artifact("store", folder, {**summary, "text": "\n".join(lines)})
