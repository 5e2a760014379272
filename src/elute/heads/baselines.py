"""What a head is held against, on the same folds: the training mean, dense features, neighbours, shuffled samples.

- The mean predictor is a prediction's own reference.
- Dense embeddings: standardised, 256 principal components fitted on training rows, ridge; `pca` prepares them for
  `nested`, which takes the penalty by the same inner folds. Codes of an encoder with random weights go the same way.
- Neighbours: the mean of a gene over the nearest samples of the same section, never the sample itself. It sees what the
  head does not (targets of the held-out patient) and says how far smoothness in space alone goes.
- Shuffled: codes of other samples in the place of each one's own, over all patients or within each patient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from elute.base.errors import DataError
from elute.base.statistics.checks import at_least, generator, group_codes
from elute.heads.crossval import Prepare
from elute.heads.design import Floats, Ints, as_matrix
from elute.heads.predicted import Predictions, predictions


def pca(dense: ArrayLike, n: int = 256) -> Prepare:
    """Return what `nested` prepares: components of standardised features, both fitted on training rows."""
    full = as_matrix(dense, "dense features")
    at_least(n, 1, "pca(n)")

    def prepare(rows: Ints) -> Any:
        train = full[rows]
        spread = train.std(axis=0)
        scaled = (full - train.mean(axis=0)) / np.where(spread > 0, spread, 1)
        inside = scaled[rows]
        if inside.shape[0] < inside.shape[1]:
            values, vectors = np.linalg.eigh(inside @ inside.T)
            turn = inside.T @ vectors[:, ::-1][:, : min(n, len(values))]
        else:
            values, vectors = np.linalg.eigh(inside.T @ inside)
            turn = vectors[:, ::-1][:, : min(n, len(values))]
        kept = values[::-1][: turn.shape[1]] > 1e-10 * max(float(values[-1]), 1e-300)
        turn = turn[:, kept]
        if not turn.shape[1]:
            return scaled[:, :1]
        return np.asarray(scaled @ (turn / np.linalg.norm(turn, axis=0)))

    return prepare


def mean_predictor(found: Predictions) -> Predictions:
    """Return what is predicted without codes as a prediction of its own, with the same reference."""
    return Predictions(
        loss=found.loss,
        y=found.y,
        mean=found.null_mean,
        null_mean=found.null_mean,
        folds=found.folds,
        offset=found.offset,
        dispersion=found.dispersion,
        measured=found.measured,
        predicted=found.reference,
        reference=found.reference,
    )


def neighbours(x: ArrayLike, y: ArrayLike, sections: Iterable[object], *, nearest: int = 6) -> tuple[Ints, Ints]:
    """Return pairs (sample, neighbour): the nearest others of the same section, fewer where it has no more."""
    at_least(nearest, 1, "neighbours(nearest)")
    at = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)], axis=1)
    if not np.isfinite(at).all():
        raise DataError("coordinates are missing for some samples", remedy="Leave the neighbours' mean out.")
    _, of = group_codes(sections, "neighbours(sections)", n_rows=len(at))
    rows, others = [], []
    for section in range(int(of.max()) + 1):
        here = np.flatnonzero(of == section)
        k = min(nearest, len(here) - 1)
        if k < 1:
            continue
        # one more than asked for, since each sample is among its own; of several at one place any may be it
        found = np.asarray(KDTree(at[here]).query(at[here], k=k + 1)[1])
        own = found == np.arange(len(here))[:, None]
        own[:, -1] |= ~own.any(axis=1)
        rows.append(np.repeat(here, k))
        others.append(here[found[~own].reshape(len(here), k)].ravel())
    empty = np.zeros(0, dtype=np.int64)
    return (np.concatenate(rows), np.concatenate(others)) if rows else (empty, empty)


def neighbours_mean(
    found: Predictions, *, x: ArrayLike, y: ArrayLike, sections: Iterable[object], nearest: int = 6
) -> Predictions:
    """Predict each sample by the samples around it; one alone in its section by the reference.

    Counts are pooled before they are divided: Σ counts / Σ library sizes.
    """
    rows, others = neighbours(x, y, sections, nearest=nearest)
    n = len(found.y)
    library = np.ones(n) if found.offset is None else np.exp(found.offset)
    total, weight = np.zeros_like(found.y), np.zeros(n)
    np.add.at(total, rows, found.y[others])
    np.add.at(weight, rows, library[others])
    alone = weight == 0
    rate = total / np.where(alone, 1, weight)[:, None]
    mean: Floats = np.where(alone[:, None], found.null_mean, rate * library[:, None])
    made = predictions(
        found.loss,
        found.y,
        found.folds,
        mean=mean,
        null_mean=found.null_mean,
        offset=found.offset,
        dispersion=found.dispersion,
    )
    return Predictions(**{**made.__dict__, "reference": found.reference})


def shuffled(groups: Iterable[object], *, within: bool, seed: int) -> Ints:
    """Return whose codes are put in each sample's place: any sample's, or any of the same group."""
    _, of = group_codes(groups, "shuffled(groups)")
    rng = generator(seed, "heads.shuffled")
    if not within:
        return rng.permutation(len(of))
    out = np.arange(len(of))
    for group in range(int(of.max()) + 1):
        here = np.flatnonzero(of == group)
        out[here] = rng.permutation(here)
    return out
