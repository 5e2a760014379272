"""One gene taken from cells that have it, or its value changed: which features change elsewhere in those cells.

1. Each cell is read as it is and with the gene's token changed, all else being the same.
2. Compared are a feature's mean codes over the cell's other rows, the same in both, and the predicted values of other
   genes: what the gene's own row gives is left out, since it changes by itself.
3. Controls are other genes that are read in about as many cells with about the same values, changed in the same way.
   Each is changed in cells of its own, of which there may be fewer: their means scatter more, so that a p against them
   is rather too large than too small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.analysis.changes import Pace, Reading, Sums, Units, by_unit, mean_over
from elute.analysis.rerunning import Guesses, forward, predicted, valued_rows
from elute.base.statistics.ranks import rank_columns

if TYPE_CHECKING:
    from torch import Tensor

    from elute.analysis.rerunning import Head, Part, Round, Watched
    from elute.base.mergeable import Floats, Integers

GENES = "genes"
Alter = Callable[[Any, "Tensor"], Any]  # (a batch, bool [rows]: which to change) -> the batch with their tokens changed


@dataclass(frozen=True, eq=False)
class Perturbing:
    """What is changed, and what is read."""

    model: Any
    watched: Watched
    alter: Alter
    drops: bool
    """Whether the changed tokens are no rows any more."""
    n_genes: int
    head: Head = predicted


@dataclass(frozen=True, eq=False)
class Altered:
    """What changed in the cells of one gene."""

    features: Sums
    """[cells, features]"""
    genes: Sums | None
    """[cells, genes]; None where the network predicts no values."""
    before: tuple[Floats, Floats]
    """Mean codes of the features, mean predicted values of the genes."""
    told: float | None
    """Share of the variance of what was read that the predictions tell (R²)."""

    def means(self, units: Units) -> tuple[Floats, Floats | None]:
        """Mean change of each feature, and of each gene, over units."""
        genes = None if self.genes is None else mean_over(by_unit(self.genes.means(), units))
        return mean_over(by_unit(self.features.means(), units)), genes


def alter(asked: Perturbing, parts: Iterable[Part], gene: int, *, cells: int, pace: Pace) -> Altered:
    """Read so many cells with and without a change of a gene, which each of them has."""
    n_features = asked.watched.dictionary.n_features
    features, codes = Sums(cells, n_features), Sums(1, n_features)
    genes, values, guesses = Sums(cells, asked.n_genes), Sums(1, asked.n_genes), Guesses()
    valued = False
    for part in parts:
        own = part.gene == gene
        for round_ in part.rounds:
            plain, after = _both(asked, part, round_, own=own, pace=pace)
            rest = part._replace(
                frame=part.frame.filter(~own), cell=part.cell[~own], gene=part.gene[~own]
            )  # fmt: skip
            if round_.coded:
                at = np.unique(rest.cell[rest.cell >= 0])
                numbers = np.where(rest.cell < 0, -1, np.searchsorted(at, rest.cell))
                before, later = (
                    asked.watched.by_cell(rows, rest.frame, numbers, n=len(at)) for rows in (plain[1], after[1])
                )
                codes.add_rows(np.zeros(len(at), np.int64), before)
                features.add_rows(at, later - before)
            if round_.valued is not None and plain[0] is not None and after[0] is not None:
                valued = True
                here = valued_rows(round_.valued[torch.from_numpy(~own)], rest)
                values.add(np.zeros(len(here), np.int64), rest.gene[here], plain[0][here])
                genes.add(rest.cell[here], rest.gene[here], after[0][here] - plain[0][here])
                guesses.add(rest, here, plain[0])
    return Altered(features, genes if valued else None, (codes.mean(), values.mean()), guesses.told())


def _both(asked: Perturbing, part: Part, round_: Round, *, own: Any, pace: Pace) -> list[tuple[Any, Any]]:
    """Read a batch as it is and changed: predicted values and rows of each, those of the gene itself left out."""
    sites = asked.watched.sites if round_.coded else ()
    changed = asked.alter(round_.batch, torch.from_numpy(own))
    found = []
    for batch, left in ((round_.batch, own), (changed, np.zeros((~own).sum(), bool) if asked.drops else own)):
        pace.check()
        seen = forward(asked.model, batch, {}, sites=sites, head=asked.head)
        keep = torch.from_numpy(~left)
        rows = {site: x[keep] for site, x in seen.rows.items()}
        found.append((None if seen.values is None else seen.values[keep].double().numpy(), rows))
        pace.advance(len(np.unique(part.cell[part.cell >= 0])))
    return found


def readings(own: Altered, controls: Sequence[tuple[Altered, Units]]) -> tuple[Reading, Reading | None]:
    """Put a gene's changes beside those of its controls: of features, and of predicted values where there are any."""
    others = [each.means(theirs) for each, theirs in controls]
    kinds = {GENES: np.array([row for row, _ in others])} if others else {}
    features = Reading(own.features.means(), own.before[0], kinds, np.zeros((0, 0)))
    if own.genes is None:
        return features, None
    rows = [row for _, row in others if row is not None]
    told = {GENES: np.array(rows)} if rows else {}
    return features, Reading(own.genes.means(), own.before[1], told, np.zeros((0, 0)))


def like_genes(covariates: Floats, gene: int, n: int, *, among: Any) -> Integers:
    """Return the n genes nearest to one, by the ranks of covariates [genes, covariates] among those that may be taken.

    Nearest is by the largest difference in rank.
    """
    places = np.union1d(np.flatnonzero(among), [gene])
    ranks = rank_columns(covariates[places])[0]
    far = np.abs(ranks - ranks[places == gene]).max(axis=1)
    order = places[np.argsort(far, kind="stable")]
    chosen: Integers = order[order != gene][:n]
    return chosen
