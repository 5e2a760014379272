"""The classifier behind every method: columns standardised, then multinomial logistic regression.

Minimised is Σ cross-entropy + ½ λ ‖W‖², λ = 1, by L-BFGS; the intercepts are free. That is what StandardScaler and
LogisticRegression of scikit-learn give. Mean and spread are those of the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from elute.base.errors import DataError
from elute.heads.fusion import Standard

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_STEPS = 1000
_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Classifier:
    """What was fitted."""

    standard: Standard
    weights: Floats  # [width, classes]
    bias: Floats  # [classes]; −∞ for a class that no training row has

    def probabilities(self, x: NDArray[Any]) -> Floats:
        """Return the probability of each class [rows, classes]."""
        return np.asarray(special.softmax(self.standard.apply(x) @ self.weights + self.bias, axis=1))


def fit_classifier(x: NDArray[Any], codes: Ints, *, n_classes: int, penalty: float = 1.0) -> Classifier:
    """Fit to rows x [n, width] of the classes `codes`."""
    present = np.unique(codes)
    if len(present) < 2:
        raise DataError("the training part of a fold has one class only", where="fit_classifier",
                        remedy="Give more runs, fewer folds, or --group-by none.")  # fmt: skip
    standard = Standard.of(x)
    z = standard.apply(x)
    n, width, k = len(z), z.shape[1], len(present)
    own = np.searchsorted(present, codes)
    rows = np.arange(n)

    def loss(flat: Floats) -> tuple[float, Floats]:
        both = flat.reshape(width + 1, k)
        weights = both[:-1]
        logits = z @ weights + both[-1]
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(axis=1)
        value = float((np.log(total) - logits[rows, own]).sum()) / n
        p /= total[:, None]
        p[rows, own] -= 1
        gradient = np.vstack([z.T @ p + penalty * weights, p.sum(axis=0)]) / n
        return value + 0.5 * penalty * float((weights * weights).sum()) / n, gradient.ravel()

    options: Any = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "gtol": _TOLERANCE, "ftol": 1e-12}
    start: Any = np.zeros((width + 1) * k)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    both = np.asarray(found.x).reshape(width + 1, k)
    weights, bias = np.zeros((width, n_classes)), np.full(n_classes, -np.inf)
    weights[:, present], bias[present] = both[:-1], both[-1]
    return Classifier(standard, weights, bias)
