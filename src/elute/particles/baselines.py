"""What the fusion is held against: each source alone, and ways to use several that learn little or nothing.

Each takes vectors [n, width] of the sources, standardised on the training rows, and gives probabilities of the rows
that are held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elute.heads.fusion import Standard
from elute.particles.classifier import fit_classifier

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEIGHBOURS = 15
MOST_NEIGHBOURS = 200_000  # particles above which all distances take too long
MOST_COMPONENTS_FROM = 4096  # numbers a row above which principal components take too long
_AT_ONCE = 1 << 22


def standardised(vectors: Sequence[NDArray[Any]], train: Ints, rows: Ints) -> list[Floats]:
    """Return some rows of each source in units of the training rows' spread."""
    return [Standard.of(x, train).apply(x[rows]) for x in vectors]


def logistic(train: NDArray[Any], codes: Ints, test: NDArray[Any], *, n_classes: int) -> Floats:
    """Fit the classifier to training rows and return the probabilities of others."""
    return fit_classifier(train, codes, n_classes=n_classes).probabilities(test)


def principal(train: Floats, test: Floats, *, width: int) -> tuple[Floats, Floats]:
    """Return both in the principal components of the training rows, the largest first."""
    mean = train.mean(axis=0)
    away = train - mean
    values, directions = np.linalg.eigh(away.T @ away)
    kept = directions[:, np.argsort(-values, kind="stable")[: min(width, len(train) - 1)]]
    # An eigenvector is known up to its sign: the largest entry is made positive.
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    return away @ kept, (test - mean) @ kept


def nearest(train: Floats, codes: Ints, test: Floats, *, n_classes: int, k: int = NEIGHBOURS) -> Floats:
    """Return the share of each class among the k nearest training rows.

    One more vote is spread over the classes as the training rows are, so that no class is held impossible.
    """
    k = min(k, len(train))
    square = np.square(train).sum(axis=1)
    prior = np.bincount(codes, minlength=n_classes) / len(codes)
    out = np.empty((len(test), n_classes))
    step = max(1, _AT_ONCE // len(train))
    for start in range(0, len(test), step):
        part = test[start : start + step]
        distance = square - 2 * part @ train.T
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(part), n_classes))
        np.add.at(votes, (np.repeat(np.arange(len(part)), k), codes[near].ravel()), 1.0)
        out[start : start + step] = (votes + prior) / (k + 1)
    return out
