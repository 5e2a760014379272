"""Which sample lies in which split and fold: looked at anew by every stage, so that nothing leaks unseen.

`split` is drawn once, by patient or site, when embeddings are exported, and is stored with each of their rows. Folds
are drawn once, over all samples, and lie in `folds.parquet`. What a later stage finds must be what an earlier one used.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import DamagedError, DataError, GuardError

if TYPE_CHECKING:
    import polars as pl

    from elute.store.rows import StoredRows

NAME = "folds.parquet"
_REDRAW = f"Delete {NAME} to draw folds anew; scores on other folds cannot be compared."


def samples_of(store: StoredRows) -> pl.DataFrame:
    """List the samples of a store with group and split, in the order in which they come; refuse a leak."""
    import polars as pl

    for column in ("group", "split"):
        if column not in store.manifest.columns:
            remedy = "Export the embeddings with a column of patients or sites: --group-column."
            raise GuardError(f"the rows have no {column}", where=store.folder, remedy=remedy)
    names = ["sample_id", "group", "split"]
    parts = [pl.DataFrame(schema=dict.fromkeys(names, pl.String))]
    for start, stop in zip(store.starts, store.starts[1:], strict=False):
        parts.append(store.metadata(start, stop, columns=names).unique(maintain_order=True))
    frame = pl.concat(parts).unique(maintain_order=True)
    if frame["group"].null_count() or frame["split"].null_count():
        raise GuardError("some rows have no group or no split", where=store.folder, remedy="Export them anew.")
    no_leak(frame, where=store.folder)
    return frame


def no_leak(frame: pl.DataFrame, *, where: object) -> None:
    """Refuse a group in two splits, and a sample in two groups or splits."""
    for column, other in (("group", "split"), ("sample_id", "split"), ("sample_id", "group")):
        twice = frame.select(column, other).unique().sort(column, other)
        found = twice.filter(twice[column].is_duplicated())
        if len(found):
            name = found[column][0]
            lies = found.filter(found[column] == name)[other].to_list()
            word = "sample" if column == "sample_id" else column
            what = f"a leak: {word} {name!r} lies in {_and(lies)} ({found[column].n_unique():,} such {word}s)"
            remedy = "A patient or site belongs to one split: export the embeddings anew with --recapture."
            raise GuardError(what, where=where, remedy=remedy)


def _and(names: list[str]) -> str:
    return " and ".join(repr(name) for name in names[:3])


def split_digest(frame: pl.DataFrame) -> str:
    """Name which sample lies in which split, whatever their order."""
    return files.digest_json(sorted(frame.select("sample_id", "group", "split").iter_rows()))[:16]


def same_split(frame: pl.DataFrame, known: object, *, where: object, made: str) -> None:
    """Refuse a split other than the one that an earlier stage was made under."""
    if known is not None and known != split_digest(frame):
        what = f"the split has changed since {made} was made: what it learnt from may be tested on now"
        raise GuardError(what, where=where, remedy=f"Make {made} anew, or export the embeddings with the old split.")


def folds_of(folder: Path, samples: pl.DataFrame, *, folds: int, seed: int, strata: Any = None) -> pl.DataFrame:
    """Return sample_id, group, fold, split; drawn at first, and the same ones ever after."""
    import polars as pl

    from elute.base.statistics.splits import group_folds

    path = folder / NAME
    asked = {"folds": str(folds), "seed": str(seed), "split": split_digest(samples)}
    if path.exists():
        return _stored(path, samples, asked)
    n = samples["group"].n_unique()
    if n < folds:
        what = f"{n} patients or sites cannot fill {folds} folds"
        raise DataError(
            what, where=folder, remedy=f"Take --folds {n}." if n > 1 else "Give tiles of at least 2 patients."
        )
    drawn = group_folds(samples["group"].to_list(), strata, n_folds=folds, seed=seed)
    place = pl.col("group").replace_strict(drawn, return_dtype=pl.Int32).alias("fold")
    frame = samples.select("sample_id", "group", place, "split")
    tagged = {**asked, "digest": _digest(frame)}
    files.write_atomically(path, lambda handle: frame.write_parquet(handle, metadata=tagged))
    console.say(f"{path}: {folds} folds over {console.count(frame['group'].n_unique(), 'group')}")
    return frame


def _stored(path: Path, samples: pl.DataFrame, asked: dict[str, str]) -> pl.DataFrame:
    """Read the folds that were drawn, and hold them against the samples, the settings and their own digest."""
    import polars as pl

    try:
        data = path.read_bytes()
        frame, tags = pl.read_parquet(io.BytesIO(data)), pl.read_parquet_metadata(io.BytesIO(data))
        frame = frame.select("sample_id", "group", pl.col("fold").cast(pl.Int32), "split")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DamagedError(f"is not a table of folds ({error})", where=path, remedy=_REDRAW) from None
    two = frame.select("group", "fold").unique()
    if (leak := two.filter(two["group"].is_duplicated())["group"]).len():
        raise GuardError(f"a leak: group {leak.sort()[0]!r} lies in two folds", where=path, remedy=_REDRAW)
    if tags.get("digest") != _digest(frame):
        raise GuardError("the folds are not those that were drawn here (edited?)", where=path, remedy=_REDRAW)
    for name, value in asked.items():
        if tags.get(name) != value:
            known = tags.get(name, "nothing")
            what = "other samples or splits" if name == "split" else f"{name} {known}, not {value}"
            raise GuardError(f"the stored folds were drawn for {what}", where=path, remedy=_REDRAW)
    order = samples.select("sample_id").join(frame, on="sample_id", how="left", maintain_order="left")
    return order.select("sample_id", "group", "fold", "split")


def _digest(frame: pl.DataFrame) -> str:
    return files.digest_json(sorted(frame.select("sample_id", "group", "fold", "split").iter_rows()))[:16]
