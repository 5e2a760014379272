"""How much of what a graph explains goes through features: influence, and the two scores of a graph.

E. Ameisen et al., "Circuit tracing", 2025. A holds direct effects, rows are targets; w the weight of each output.

1. Â = |A|, each row divided by its sum.
2. Influence I = Σ_{m≥1} w Â^m: what comes to the outputs by all paths. There are no circles, so the sum ends.
3. Replacement: the share of what begins in tokens and not in errors, I_tokens / (I_tokens + I_errors).
4. Completeness: the share of inputs that is no error, Σ (1 − Σ_errors Â_i)(I_i + w_i) / Σ (I_i + w_i).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from elute.base.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST = 1e-10  # a row sum to divide by, at least


@dataclass(frozen=True)
class Scores:
    """The two scores of a graph; NaN where there is nothing to tell them by."""

    replacement: float
    completeness: float


def normalised(adjacency: Any) -> Any:
    """Return |A| with rows that add up to 1, or are empty."""
    positive = abs(sparse.csr_array(adjacency, dtype=np.float64))
    sums = np.asarray(positive.sum(axis=1)).reshape(-1)
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(sums, LEAST)) @ positive)


def influence(shares: Any, weights: Floats) -> Floats:
    """Return what comes from each node to the outputs by all paths, of a normalised matrix."""
    turned = sparse.csr_array(shares.T)
    found = np.zeros(len(weights))
    step = np.asarray(weights, dtype=np.float64)
    for _ in range(len(weights) + 1):
        step = turned @ step
        if not step.any():
            return found
        found += step
    raise DataError("effects go in circles", where="graph", remedy="Name the layers in the order in which they run.")


def scores(adjacency: Any, weights: Floats, *, errors: NDArray[np.bool_], tokens: NDArray[np.bool_]) -> Scores:
    """Return the scores of a graph; the masks say which nodes are errors and which are tokens."""
    shares = normalised(adjacency)
    return of_shares(shares, weights, influence(shares, weights), errors=errors, tokens=tokens)


def of_shares(
    shares: Any, weights: Floats, flow: Floats, *, errors: NDArray[np.bool_], tokens: NDArray[np.bool_]
) -> Scores:
    """Return the scores where shares and influence are known."""
    lost = np.asarray(shares[:, np.flatnonzero(errors)].sum(axis=1)).reshape(-1)
    reach = flow + weights
    begun = float(flow[tokens].sum() + flow[errors].sum())
    whole = float(reach.sum())
    return Scores(
        replacement=float(flow[tokens].sum()) / begun if begun > 0 else float("nan"),
        completeness=float(((1.0 - lost) * reach).sum()) / whole if whole > 0 else float("nan"),
    )
