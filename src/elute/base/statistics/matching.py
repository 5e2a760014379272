"""Matched resampling: lists that are like a given one in everything but what is being tested.

1. Covariates (mean expression, length, degree, …) become rank scores in 0 … 1, so that no unit or outlier counts.
2. pool="all", for a p-value: were the list like any other, its items could have been any rows of their stratum, so
   draws come from items and others together, and the test is exact within strata. pool="others", for controls to
   show beside a list: drawn from the rest alone they vary too little, by (m − k)/(m + k) for k items among m others,
   and a p-value from them is too small unless k is far below m.
3. Bins: each covariate is cut into quantile bins; a draw takes from each cell of the grid as many rows, without
   replacement, as the list has items there. A cell with fewer others than items is refused by name; with
   too_few="fill" it is drawn from all the same, or where others alone are drawn, filled from the nearest left over.
4. Nearest: each item takes a random one of the `neighbours` nearest rows that the draw has left; the items go in a
   random order.
5. The result says which cells were short, and how far items and controls still differ in each covariate.

P. R. Rosenbaum, "Conditional permutation tests and the propensity score in observational studies", J. Am. Stat.
Assoc. 79, 1984, for the exchange within strata; D. B. Rubin, "Matching to remove bias in observational studies",
Biometrics 29, 1973.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from elute.base.errors import DataError
from elute.base.statistics.checks import Floats, Ints, at_least, choice, generator, matrix
from elute.base.statistics.ranks import rank_columns


@dataclass(frozen=True)
class ShortStratum:
    """A cell of the grid with fewer other rows than items."""

    bins: tuple[int, ...]  # one a covariate, from 0
    n_items: int
    n_candidates: int


@dataclass(frozen=True)
class MatchedControls:
    """Rows drawn as controls; column i of every draw is matched to item i."""

    draws: Ints  # [draws, items]
    short: tuple[ShortStratum, ...]
    imbalance: Floats  # one a covariate: mean rank score of the items minus that of their controls


def _indices(given: ArrayLike, n_rows: int, where: str) -> Ints:
    array = np.asarray(given)
    if array.size == 0:
        raise DataError("is empty", where=where, remedy="Give at least one row.")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"holds {array.dtype} of shape {array.shape}", where=where, remedy="Give row numbers.")
    if array.min() < 0 or array.max() >= n_rows:
        raise DataError(
            f"names row {array.max() if array.max() >= n_rows else array.min()}",
            where=where,
            remedy=f"Rows go from 0 to {n_rows - 1}.",
        )
    if len(np.unique(array)) != len(array):
        raise DataError("names a row twice", where=where, remedy="Give each once.")
    return array.astype(np.int64)


def _short_strata(chosen: Ints, others: Ints, *, cells: Ints, kinds: Ints) -> tuple[ShortStratum, ...]:
    wanted = np.bincount(cells[chosen], minlength=len(kinds))
    offered = np.bincount(cells[others], minlength=len(kinds))
    return tuple(
        ShortStratum(tuple(kinds[cell].tolist()), int(wanted[cell]), int(offered[cell]))
        for cell in np.flatnonzero(offered < wanted)
    )


def _from_strata(chosen: Ints, pool: Ints, draws: Ints, *, cells: Ints, rng: np.random.Generator) -> None:
    """Fill the draws cell by cell, leaving at −1 the items of cells that the pool cannot serve."""
    for cell in np.unique(cells[chosen]).tolist():
        wanted = np.flatnonzero(cells[chosen] == cell)
        candidates = pool[cells[pool] == cell]
        if len(candidates) >= len(wanted):
            keys = rng.random((len(draws), len(candidates)))
            first = np.argpartition(keys, len(wanted) - 1, axis=1)[:, : len(wanted)]
            # A partition leaves its first entries in no random order, and item i is to get a random one of them.
            draws[:, wanted] = candidates[rng.permuted(first, axis=1)]


def _from_nearest(
    places: Ints, pool: Ints, draws: Ints, *, scores: tuple[Floats, Floats], neighbours: int, rng: np.random.Generator
) -> None:
    """Fill the columns `places` of the draws from the nearest rows that each draw has left."""
    wanted, offered = scores
    near = min(neighbours, len(pool))
    found: Ints = np.asarray(cKDTree(offered).query(wanted, k=np.arange(1, near + 1))[1], dtype=np.int64)
    at = np.full(int(pool.max()) + 1, -1)
    at[pool] = np.arange(len(pool))
    used = np.zeros((len(draws), len(pool)), dtype=bool)
    row, column = np.nonzero(draws >= 0)
    used[row, at[draws[row, column]]] = True
    every = np.arange(len(draws))
    for i in rng.permutation(len(places)).tolist():
        keys = np.where(used[:, found[i]], -1.0, rng.random((len(draws), near)))
        best = keys.argmax(axis=1)
        spent = int((keys[every, best] < 0).sum())
        if spent:
            raise DataError(
                f"item {int(places[i])} has none of its {near} nearest candidates left in {spent} draws",
                where="matched_controls",
                remedy="Raise neighbours, or give more rows to draw from.",
            )
        taken = found[i][best]
        used[every, taken] = True
        draws[:, places[i]] = pool[taken]


def matched_controls(
    items: ArrayLike,
    covariates: ArrayLike,
    *,
    seed: int,
    n_draws: int = 1000,
    method: Literal["bins", "nearest"] = "bins",
    n_bins: int = 10,
    neighbours: int = 50,
    pool: Literal["all", "others"] = "all",
    too_few: Literal["refuse", "fill"] = "refuse",
    excluded: ArrayLike | None = None,
) -> MatchedControls:
    """Draw for the rows `items` of covariates [rows, covariates] as many rows like them, `n_draws` times."""
    where = "matched_controls"
    choice(method, ("bins", "nearest"), f"{where}(method)")
    choice(pool, ("all", "others"), f"{where}(pool)")
    choice(too_few, ("refuse", "fill"), f"{where}(too_few)")
    for name, value in (("n_draws", n_draws), ("n_bins", n_bins), ("neighbours", neighbours)):
        at_least(value, 1, f"{where}({name})")
    table = matrix(covariates, f"{where}(covariates)")
    n = table.shape[0]
    chosen = _indices(items, n, f"{where}(items)")
    others = np.setdiff1d(np.arange(n), chosen)
    if excluded is not None and np.size(excluded):
        others = np.setdiff1d(others, _indices(excluded, n, f"{where}(excluded)"))
    if len(others) < len(chosen):
        raise DataError(
            f"{len(chosen)} items and {len(others)} other rows", where=where, remedy="Give more rows to draw from."
        )
    drawn_from = others if pool == "others" else np.union1d(others, chosen)
    rng = generator(seed, where)
    scores = (rank_columns(table)[0] - 0.5) / n
    draws = np.full((n_draws, len(chosen)), -1, dtype=np.int64)
    short: tuple[ShortStratum, ...] = ()
    if method == "bins":
        kinds, cells = np.unique(np.floor(scores * n_bins).astype(np.int64), axis=0, return_inverse=True)
        short = _short_strata(chosen, others, cells=cells.reshape(-1), kinds=kinds)
    if short and too_few == "refuse":
        first = short[0]
        raise DataError(
            f"{len(short)} strata have too few candidates, the first being bins {first.bins}"
            f" with {first.n_candidates} for {first.n_items} items",
            where=where,
            remedy="Use fewer n_bins, or too_few='fill'.",
        )
    if method == "bins":
        _from_strata(chosen, drawn_from, draws, cells=cells.reshape(-1), rng=rng)
    places = np.flatnonzero(draws[0] < 0)
    if places.size:
        near = (scores[chosen[places]], scores[drawn_from])
        _from_nearest(places, drawn_from, draws, scores=near, neighbours=neighbours, rng=rng)
    imbalance = scores[chosen].mean(axis=0) - scores[draws].mean(axis=(0, 1))
    return MatchedControls(draws, short, imbalance)
