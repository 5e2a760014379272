"""Targets and tiles brought together by `sample_id`: what both have, and what either side lacks, counted and listed.

A sample is what has a row of targets: a spot, a core, a slide. It has one tile or many; its place is their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

# Ways in which two spellings of one id commonly differ.
_ALIKE: dict[str, Callable[[str], str]] = {
    "upper and lower case": str.casefold,
    "what stands before the last / and after the last dot": lambda name: PurePath(name).stem,
    "signs that are no letters or digits": lambda name: "".join(c for c in name if c.isalnum()),
}


@dataclass(frozen=True, eq=False)
class Aligned:
    """Samples that have both tiles and targets, in the order of the tiles."""

    samples: pl.DataFrame
    places: np.ndarray[Any, Any]  # of each in the file of targets
    missing: pl.DataFrame  # sample_id, side: which of the two lacks it; `counts` where there is a row of nothing


def align(samples: pl.DataFrame, names: pl.Series, *, where: str) -> Aligned:
    """Match the samples of the tiles with the names in a file of targets."""
    import polars as pl

    targets = pl.DataFrame({"sample_id": names}).with_row_index("place")
    both = samples.join(targets, on="sample_id", how="inner", maintain_order="left")
    if not len(both):
        raise DataError(_nothing(samples["sample_id"], names), where=where,
                        remedy="Name the column that both share: --sample-column.")  # fmt: skip
    lacking = samples.select("sample_id").join(targets, on="sample_id", how="anti", maintain_order="left")
    unseen = targets.select("sample_id").join(samples, on="sample_id", how="anti", maintain_order="left")
    missing = pl.concat([lacking.with_columns(side=pl.lit("targets")), unseen.with_columns(side=pl.lit("tiles"))])
    if len(missing):
        console.warn(f"{where}: {told(len(both), len(lacking), len(unseen))}")
    return Aligned(both.drop("place"), both["place"].to_numpy().astype("int64"), missing)


def leave_out(both: Aligned, empty: np.ndarray[Any, Any], *, where: str) -> Aligned:
    """Return what is left without the samples in which nothing was counted, which are listed with what is missing."""
    import polars as pl

    if not empty.any():
        return both
    mask = pl.Series(empty)
    lost = both.samples.filter(mask).select("sample_id")
    if len(lost) == len(both.samples):
        remedy = "Name the matrix of counts (--layer), or the column of library sizes (--library)."
        raise DataError("in no sample that has tiles was anything counted", where=where, remedy=remedy)
    shown = ", ".join(repr(name) for name in lost["sample_id"].head(3)) + (", …" if len(lost) > 3 else "")
    console.warn(f"{where}: nothing was counted in {console.count(len(lost), 'sample')} ({shown}), left out "
                 "(targets/missing.parquet names them)")  # fmt: skip
    missing = pl.concat([both.missing, lost.with_columns(side=pl.lit("counts"))])
    return Aligned(both.samples.filter(~mask), both.places[~empty], missing)


def told(both: int, without_targets: int, without_tiles: int) -> str:
    """Say how many samples were matched, and how many have one side alone."""
    return (
        f"{console.count(both, 'sample')} have tiles and targets; {without_targets:,} have tiles alone, "
        f"{without_tiles:,} targets alone (targets/missing.parquet names them)"
    )


def _nothing(tiles: pl.Series, targets: pl.Series) -> str:
    """Show ids of both sides, and say what they have in common but for how they are written."""
    shown = [", ".join(repr(name) for name in side.head(3)) for side in (tiles, targets)]
    what = f"no sample of the tiles has targets: the tiles have {shown[0]}, …; the targets {shown[1]}, …"
    for words, spelt in _ALIKE.items():
        common = {spelt(name) for name in tiles} & {spelt(name) for name in targets}
        if common:
            return f"{what} ({len(common):,} are alike but for {words})"
    return what
