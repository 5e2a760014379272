"""Codes as solvers see them: centred and scaled without being changed, so that sparse ones stay sparse.

With x the codes, m their means and s their standard deviations (of the rows given, divisor n; 1 if not standardised),
z = (x − m) / s. Codes that do not vary in these rows are left out and get no weight. Whether codes are centred makes no
difference to a head, whose bias is free; it does to how fast solvers converge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from elute.base.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FLAT = 1e-9  # a code whose spread is this share of its size does not vary
_DENSE = {np.float64: 0.08, np.float32: 0.04}  # densities above which a product of dense numbers is faster
_ROOM = 1 << 30  # bytes that a dense copy may take
_BLOCK = 1 << 24  # numbers that are made dense at a time


@dataclass(frozen=True, eq=False)
class Design:
    """Rows of codes, those that vary."""

    x: Any  # [n, width]: csr_array as it came, or ndarray with the means taken off; float64, or float32 where rough
    kept: Ints  # which codes these are
    n_codes: int
    centre: Floats  # their means
    mean: Floats  # what is still to be taken off x: the means, or zeros
    scale: Floats
    reach: float  # the largest standard deviation of a z

    @property
    def n(self) -> int:
        """The rows."""
        return int(self.x.shape[0])

    @property
    def width(self) -> int:
        """The codes that vary."""
        return int(self.x.shape[1])

    def times(self, w: Floats) -> Floats:
        """Return z w [n, G] of weights [width, G]."""
        scaled = w / self.scale[:, None]
        return np.asarray(self.x @ scaled.astype(self.x.dtype), dtype=np.float64) - self.mean @ scaled

    def back(self, r: Floats) -> Floats:
        """Return zᵀ r [width, G] of something a row [n, G]."""
        product = np.asarray(self.x.T @ r.astype(self.x.dtype), dtype=np.float64)
        return (product - np.outer(self.mean, r.sum(axis=0))) / self.scale[:, None]

    def unfold(self, w: Floats) -> tuple[Floats, Floats]:
        """Return weights [G, n_codes] on raw codes, and what is to be added to the bias, of weights [width, G]."""
        scaled = w / self.scale[:, None]
        weights = np.zeros((w.shape[1], self.n_codes))
        weights[:, self.kept] = scaled.T
        return weights, -(self.centre @ scaled)

    def fold(self, weights: Floats) -> Floats:
        """Return weights [width, G] on z, of weights [G, n_codes] on raw codes."""
        return weights[:, self.kept].T * self.scale[:, None]

    @cached_property
    def columns(self) -> sparse.csc_array:
        """The codes by column, divided by their standard deviation and not centred."""
        turned = sparse.csc_array(self.x)
        return sparse.csc_array(turned.multiply(1 / self.scale).tocsc())

    def gram(self) -> Floats:
        """Return zᵀ z [width, width], of the precision of x."""
        product = _inner(self.x)
        if self.mean.any():
            product -= self.n * np.outer(self.mean, self.mean)
        product /= self.scale[:, None].astype(product.dtype)
        product /= self.scale.astype(product.dtype)
        return product

    def kernel(self) -> Floats:
        """Return z zᵀ [n, n], of the precision of x."""
        if isinstance(self.x, np.ndarray):
            z = self.x / self.scale.astype(self.x.dtype)
            return np.asarray(z @ z.T)
        scaled = sparse.csr_array(self.x.multiply(1 / self.scale).tocsr())
        middle = self.mean / self.scale
        along = scaled @ middle
        product = _inner(sparse.csr_array(scaled.T))
        product += middle @ middle - along[:, None] - along[None, :]
        return product

    @cached_property
    def top(self) -> float:
        """The largest eigenvalue of zᵀ z / n, within a few percent."""
        if not self.width or self.n < 2:
            return 1.0
        v = np.random.default_rng(0).normal(size=(self.width, 1))
        value = 1.0
        for _ in range(20):
            v /= np.linalg.norm(v)
            v = self.back(self.times(v)) / self.n
            value = float(np.linalg.norm(v))
            if value == 0:
                return 1.0
        return value


def _inner(x: Any) -> Floats:
    """Return xᵀ x, dense."""
    n, width = x.shape
    if isinstance(x, np.ndarray):
        return np.asarray(x.T @ x)
    if x.nnz < 0.05 * n * width:
        return np.asarray((x.T @ x).todense())
    product = np.zeros((width, width))
    step = max(1, _BLOCK // width)
    for start in range(0, n, step):
        part = x[start : start + step].toarray()
        product += part.T @ part
    return product


def as_matrix(x: Any, what: str = "codes") -> Any:
    """Return float64 codes, csr_array or ndarray, checked: two dimensions, a row at least, no NaN or infinity."""
    if sparse.issparse(x):
        matrix: Any = sparse.csr_array(cast("Any", x), dtype=np.float64)
        matrix.sum_duplicates()
        values = matrix.data
    else:
        try:
            matrix = np.asarray(x, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"the {what} are no array of numbers", remedy="Give [samples, columns].") from None
        values = matrix
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(f"the {what} have shape {[*matrix.shape]}", remedy="Give at least one sample and one column.")
    if bad := int(values.size - np.isfinite(values).sum()):
        raise DataError(f"{bad} of the {what} are NaN or infinite", remedy="Leave those samples out.")
    return matrix


def design(x: Any, *, standardise: bool, sparsely: bool = False, rough: bool = False) -> Design:
    """Measure checked codes (see `as_matrix`), without those that do not vary.

    `sparsely` keeps sparse ones sparse; `rough` lets products be of single precision.
    """
    n, n_codes = x.shape
    if isinstance(x, np.ndarray):
        mean = x.mean(axis=0)
        spread = np.sqrt(np.square(x - mean).mean(axis=0))
        size = np.sqrt(np.square(x).mean(axis=0))
    else:
        stored = np.bincount(x.indices, minlength=n_codes)
        mean = np.bincount(x.indices, weights=x.data, minlength=n_codes) / n
        away = np.bincount(x.indices, weights=np.square(x.data - mean[x.indices]), minlength=n_codes)
        spread = np.sqrt((away + (n - stored) * mean * mean) / n)
        size = np.sqrt(np.bincount(x.indices, weights=x.data * x.data, minlength=n_codes) / n)
    kept = np.flatnonzero(spread > _FLAT * size).astype(np.int64)
    x = x if len(kept) == n_codes else x[:, kept]
    mean, scale = mean[kept], spread[kept] if standardise else np.ones(len(kept))
    reach = 1.0 if standardise else float(spread.max())
    kind, size_of = (np.float32, 4) if rough else (np.float64, 8)
    if not isinstance(x, np.ndarray):
        full = size_of * n * len(kept)
        if sparsely or x.nnz < _DENSE[kind] * n * len(kept) or full > _ROOM:
            return Design(x, kept, n_codes, mean, mean, scale, reach)
        x = x.astype(kind).toarray()
    centred = np.subtract(x, mean, dtype=np.float64).astype(kind) if not rough else x.astype(kind) - mean.astype(kind)
    return Design(centred, kept, n_codes, mean, np.zeros_like(mean), scale, reach)
