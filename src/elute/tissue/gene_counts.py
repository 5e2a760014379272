"""What the numbers of a file of targets are, gene by gene, in one pass; and those of the chosen genes.

Every number is looked at: NaN, infinity and (where counts are needed) negative or broken numbers are refused with the
sample and the gene where the first one stands. Means and variances are over the training samples alone, so that genes
are chosen by them alone. A sample in which nothing was counted (library size 0, or none given) says nothing of any
gene: it is left out, and `empty` marks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elute.base.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from elute.tissue.targets import TargetFile

    Floats = np.ndarray[Any, np.dtype[np.float64]]

PER = 1e6  # counts per million, the field's scale
_COUNTS = ("poisson", "nb")


@dataclass(frozen=True, eq=False)
class Survey:
    """What the numbers are: of all aligned samples the library, of the training samples the rest."""

    counts: bool  # whole numbers from 0 on
    library: Floats  # of each sample
    empty: np.ndarray[Any, np.dtype[np.bool_]]  # samples in which nothing was counted, which enter no mean
    mean: Floats  # of each gene, on the scale on which it varies
    variance: Floats
    detected: Floats  # share of the samples in which it is above 0


def survey(file: TargetFile, places: Any, *, training: Any, library: str, loss: str, accept: bool = False) -> Survey:
    """Look at all numbers of the aligned samples; `places` say where each stands, `training` marks some of them."""
    import numpy as np

    order = np.argsort(places, kind="stable")
    width, n = len(file.genes), len(places)
    # Without a library, "per million" of a million leaves counts as they are.
    sizes = None if library == "total" else np.full(n, PER) if library == "none" else _column(file, library, places)
    sums, squares, seen = np.zeros((2, width)), np.zeros((2, width)), np.zeros(width)
    totals, whole = np.zeros(n), True
    for start, piece in file.pieces(places[order]):
        mine = order[start : start + len(piece.indptr) - 1]
        data = piece.data.astype(np.float64)
        whole = _look(file, piece, places[mine], whole=whole, strict=loss in _COUNTS, accept=accept) and whole
        row = np.repeat(np.arange(len(mine)), np.diff(piece.indptr))
        totals[mine] = np.bincount(row, weights=data, minlength=len(mine))
        of = np.asarray(totals[mine] if sizes is None else sizes[mine])
        # Numbers whose sum is no library (scaled values) are told by their values; of a size that is 0 nothing is.
        kept = training[mine][row] & ((sizes is None) | (of[row] > 0))
        column, x = piece.indices[kept], data[kept]
        scaled = np.log1p(np.maximum(x, 0) * PER / np.maximum(of[row[kept]], 1e-12))
        for i, values in enumerate((x, scaled)):
            sums[i] += np.bincount(column, weights=values, minlength=width)
            squares[i] += np.bincount(column, weights=values**2, minlength=width)
        seen += np.bincount(column[x > 0], minlength=width)
    # Values that are no counts have no total.
    held = np.asarray(sizes) if sizes is not None else totals if whole else np.full(n, PER)
    empty = held <= 0
    m = max(1, int((training & ~empty).sum()))
    which = 1 if whole else 0
    mean = sums[which] / m
    variance = np.maximum(squares[which] / m - mean**2, 0)
    return Survey(whole, held, empty, mean, variance, seen / m)


def _column(file: TargetFile, name: str, places: Any) -> Any:
    """Read the library sizes of the aligned samples; where none is given nothing was counted."""
    import numpy as np
    import polars as pl

    column = file.column(name)
    if not column.dtype.is_numeric():
        raise DataError(f"column {name!r} holds {column.dtype}, not library sizes", where=file.where)
    sizes = column.cast(pl.Float64).fill_nan(0).fill_null(0).to_numpy()[places]
    bad = ~np.isfinite(sizes) | (sizes < 0)
    if bad.any():
        what = f"column {name!r} has {int(bad.sum()):,} library sizes that are no numbers of 0 or more"
        first = file.names[int(places[int(bad.argmax())])]
        raise DataError(what, where=file.where, remedy=f"The first is that of sample {first!r}.")
    return sizes


def _look(file: TargetFile, piece: Any, places: Any, *, whole: bool, strict: bool, accept: bool) -> bool:
    """Say whether a piece holds counts; refuse what cannot be a target."""
    import numpy as np

    data = piece.data

    def first(bad: Any) -> str:
        at = int(np.flatnonzero(bad)[0])
        row = int(np.searchsorted(piece.indptr, at, side="right")) - 1
        value, sample, gene = data[at], file.names[int(places[row])], file.genes[int(piece.indices[at])]
        return f"{value:g} in sample {sample!r}, gene {gene!r}"

    if (bad := ~np.isfinite(data)).any():
        remedy = "Leave such samples or genes out: a missing count is no 0."
        raise DataError(f"targets hold {first(bad)}", where=file.where, remedy=remedy)
    negative = data < 0
    if negative.any() and not (accept and not strict):
        remedy = "Counts are 0 or more; for scaled values take --loss mse and --transform none."
        raise DataError(f"targets hold {first(negative)}", where=file.where, remedy=remedy)
    broken = data != np.rint(data)
    if strict and broken.any():
        what = f"targets are no counts (say {first(broken)}), which a loss of poisson or nb needs"
        raise DataError(what, where=file.where, remedy="Name the raw counts (--layer), or take --loss mse.")
    return whole and not bool(broken.any()) and not bool(negative.any())


def numbers(file: TargetFile, places: Any, columns: Any) -> Any:
    """Return the numbers of some genes, float32 [samples, genes], in the order of both."""
    import numpy as np

    order = np.argsort(places, kind="stable")
    target = np.full(len(file.genes), -1)
    target[columns] = np.arange(len(columns))
    found = np.zeros((len(places), len(columns)), np.float32)
    for start, piece in file.pieces(places[order]):
        mine = order[start : start + len(piece.indptr) - 1]
        row = np.repeat(mine, np.diff(piece.indptr))
        column = target[piece.indices]
        kept = column >= 0
        np.add.at(found, (row[kept], column[kept]), piece.data[kept])
    return found


def scale_of(survey: Survey, *, loss: str, transform: str, where: str) -> str:
    """Say on which scale heads are fitted: counts, log1p (of counts per million) or values."""
    if loss in _COUNTS:
        return "counts"
    if transform == "log1p" and not survey.counts:
        raise ConfigError("the targets are no counts, so they are not turned into counts per million", where=where,
                          remedy="Leave --transform log1p out, or name the raw counts (--layer).")  # fmt: skip
    return "log1p" if transform == "log1p" or (transform == "auto" and survey.counts) else "values"
