"""Ridge regression in closed form, all genes at once, through the smaller of the two Gram matrices.

    w = argmin  ‖y − z w‖² / 2n  +  λ ‖w‖² / 2          (scikit-learn's Ridge with alpha = n λ)

1. As many codes as rows or fewer: (zᵀz + n λ) w = zᵀ y; else w = zᵀ (z zᵀ + n λ)⁻¹ y. The Gram matrix is made once.
2. Each different λ is one Cholesky factorisation, shared by all genes that have it. Measured, that beats an
   eigendecomposition up to about fifteen of them.
3. λ = 0 gives the least squares solution of smallest ‖w‖, by an eigendecomposition; directions whose eigenvalue is no
   more than rounding are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from elute.heads.design import Design, Floats

_NOTHING = 2e-15  # times the size of the matrix


class Ridge:
    """The Gram matrix of some rows, and solutions with it."""

    def __init__(self, x: Design, y: Floats) -> None:
        """Take centred targets [n, G]."""
        self.x = x
        self.wide = x.width > x.n
        self.gram = x.kernel() if self.wide else x.gram()
        self.right = y if self.wide else x.back(y)
        self._spectrum: tuple[Floats, Floats] | None = None

    def solve(self, penalty: Floats, genes: np.ndarray | None = None) -> Floats:
        """Return weights [width, G] on z for a penalty a gene, of all genes or of those that are named."""
        right = self.right if genes is None else self.right[:, genes]
        out = np.zeros((self.gram.shape[0], right.shape[1]))
        for value in np.unique(penalty):
            of = np.flatnonzero(penalty == value)
            if np.isinf(value):
                continue
            part = np.ascontiguousarray(right[:, of])
            out[:, of] = self._shifted(value, part) if value > 0 else self._smallest(part)
        return self.x.back(out) if self.wide else out

    def _shifted(self, penalty: float, right: Floats) -> Floats:
        # Rounding of a matrix in single precision is far below a penalty of this size, not so its factors below it.
        precise = self.gram.dtype == np.float64 or penalty < 1e-3 * self.x.top
        shifted: Any = np.array(self.gram, dtype=np.float64 if precise else np.float32, order="F")
        shifted.flat[:: len(shifted) + 1] += self.x.n * penalty
        try:
            factor: Any = linalg.cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
        except linalg.LinAlgError:  # a penalty so small that rounding outweighs it
            return self._smallest(right, shift=self.x.n * penalty)
        solved = linalg.cho_solve(factor, right.astype(shifted.dtype), check_finite=False)
        return np.asarray(solved, dtype=np.float64)

    def _smallest(self, right: Floats, shift: float = 0.0) -> Floats:
        if self._spectrum is None:
            self._spectrum = linalg.eigh(self.gram.astype(np.float64), check_finite=False)
        values, vectors = self._spectrum
        kept = values > _NOTHING * len(values) * max(float(values[-1]), 1e-300)
        used = vectors[:, kept]
        return np.asarray(used @ ((used.T @ right) / (values[kept] + shift)[:, None]))
