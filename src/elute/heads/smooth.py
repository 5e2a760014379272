"""Heads whose problem is smooth: counts with a ridge penalty or none, by Newton's method, all genes at once.

    min over w, b   mean over rows of loss(y, offset + b + z w)  +  λ ‖w‖² / 2          (losses: see links)

1. Each gene starts at the rate that it has without codes, or where it was at the last penalty.
2. Newton's step is solved by conjugate gradients, whose products with z are made for all genes at once. They are
   preconditioned by the leading eigenvectors of zᵀz / n, all of them where there are few: where a gene's mean varies
   little over the rows they turn its Hessian into nearly the identity.
3. Steps are halved until the objective falls (Armijo). A gene is done when no slope is larger than the tolerance times
   the standard deviation of its counts, times that of the code where codes are not standardised.
4. Without a penalty the problem may have no solution: where codes separate samples without counts from the others,
   some coefficients grow for ever. A penalty of 10⁻⁹ of the curvature bounds them and, of equal solutions, gives the
   smallest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from elute.heads.design import Design
from elute.heads.links import Floats, slopes
from elute.heads.settings import Loss

BARELY = 1e-9
_EXACT = 800  # the most rows or codes of which all eigenvectors are taken
_LEADING = 160
_STEPS = 60
_PRODUCTS = 200
Product = Callable[[Floats, Floats], tuple[Floats, Floats]]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Leading eigenvectors of zᵀz / n, their eigenvalues, and one value for what is left."""

    vectors: Floats  # [width, r]
    values: Floats  # [r]
    rest: float

    def solve(self, v: Floats, *, curvature: Floats, penalty: Floats) -> Floats:
        """Divide v [width, G] by curvature · zᵀz / n + penalty, nearly."""
        rest = curvature * self.rest + penalty
        inside = 1 / (curvature * self.values[:, None] + penalty) - 1 / rest
        kind = self.vectors.dtype  # single precision will do where that of the codes does
        within = inside.astype(kind) * (self.vectors.T @ v.astype(kind))
        return np.asarray(self.vectors @ within, dtype=np.float64) + v / rest


def spectrum(x: Design) -> Spectrum:
    """Find the leading eigenvectors: exactly of small matrices, else by two rounds of subspace iteration."""
    small = min(x.n, x.width)
    if small == 0:
        return Spectrum(np.zeros((x.width, 0)), np.zeros(0), 1.0)
    if small <= _EXACT:
        wide = x.width > x.n
        values, vectors = linalg.eigh((x.kernel() if wide else x.gram()).astype(np.float64), check_finite=False)
        kept = values > (1e-12 if x.x.dtype == np.float64 else 1e-6) * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        if wide:
            vectors = x.back(vectors) / np.sqrt(values)
        return Spectrum(vectors.astype(x.x.dtype), values / x.n, float(values[0]) / x.n)
    basis = np.random.default_rng(0).normal(size=(x.width, _LEADING))
    for _ in range(3):
        basis = np.linalg.qr(x.back(x.times(np.linalg.qr(basis)[0])) / x.n)[0]
    image = x.times(basis)
    values, turn = linalg.eigh(image.T @ image / x.n, check_finite=False)
    return Spectrum((basis @ turn).astype(x.x.dtype), values, float(values[0]))


@dataclass(eq=False)
class Smooth:
    """A problem of several genes: targets, offset, penalties, dispersions."""

    x: Design
    y: Floats  # [n, G]
    offset: Floats  # [n, 1]
    loss: Loss
    spectrum: Spectrum
    tolerance: float

    def minimise(
        self, w: Floats, b: Floats, *, penalty: Floats, dispersion: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        """Start at w [width, G] and b [G]; return both at the minimum, and the slopes left, as a share (see 3)."""
        w, b = w.copy(), b.copy()
        left = np.full(len(b), np.inf)
        todo = np.arange(len(b))
        z_w = self.x.times(w)
        for _ in range(_STEPS):
            alpha = None if dispersion is None else dispersion[todo]
            gene = _Genes(self, self.y[:, todo], penalty[todo], alpha)
            at = slopes(gene.y, self.offset + b[todo] + z_w[:, todo], loss=self.loss, dispersion=alpha)
            g_w = self.x.back(at.first) / self.x.n + gene.penalty * w[:, todo]
            g_b = at.first.mean(axis=0)
            left[todo] = np.maximum(np.abs(g_w).max(axis=0, initial=0), np.abs(g_b)) / gene.size
            busy = left[todo] > self.tolerance
            if not busy.any():
                break
            todo, gene = todo[busy], gene.only(busy)
            second = at.second[:, busy]
            d_w, d_b = self._newton(g_w[:, busy], g_b[busy], second=second, gene=gene, left=left[todo])
            step = self.x.times(d_w) + d_b
            slope = (g_w[:, busy] * d_w).sum(axis=0) + g_b[busy] * d_b
            t = self._length(gene, (w[:, todo], b[todo] + z_w[:, todo]), (d_w, step), slope)
            w[:, todo] += t * d_w
            b[todo] += t * d_b
            z_w[:, todo] += t * (step - d_b)
            todo = todo[t > 0]
            if not len(todo):
                break
        return w, b, left

    def _newton(self, g_w: Floats, g_b: Floats, *, second: Floats, gene: _Genes, left: Floats) -> tuple[Floats, Floats]:
        """Solve H d = −g by preconditioned conjugate gradients, as exactly as the slopes that are left deserve."""
        x, n = self.x, self.x.n
        level = np.maximum(second.mean(axis=0), 1e-300)
        d_w, d_b = np.zeros_like(g_w), np.zeros_like(g_b)
        r_w, r_b = -g_w, -g_b
        s_w, s_b = self.spectrum.solve(r_w, curvature=level, penalty=gene.penalty), r_b / level
        p_w, p_b = s_w, s_b
        before = (r_w * s_w).sum(axis=0) + r_b * s_b
        enough = before * np.minimum(0.1, np.sqrt(left)) ** 2
        for _ in range(_PRODUCTS):
            weighted = second * (x.times(p_w) + p_b)
            h_w, h_b = x.back(weighted) / n + gene.penalty * p_w, weighted.mean(axis=0)
            bend = (p_w * h_w).sum(axis=0) + p_b * h_b
            t = np.where(bend > 0, before / np.where(bend > 0, bend, 1), 0)
            d_w, d_b = d_w + t * p_w, d_b + t * p_b
            r_w, r_b = r_w - t * h_w, r_b - t * h_b
            s_w, s_b = self.spectrum.solve(r_w, curvature=level, penalty=gene.penalty), r_b / level
            now = (r_w * s_w).sum(axis=0) + r_b * s_b
            if (now <= enough).all():
                break
            share = np.where((before > 0) & (now > enough), now / np.where(before > 0, before, 1), 0)
            p_w, p_b = s_w + share * p_w, s_b + share * p_b
            p_w, p_b = p_w * (now > enough), p_b * (now > enough)
            before = np.where(now > enough, now, 0)
        return d_w, d_b

    def _length(self, gene: _Genes, at: tuple[Floats, Floats], step: tuple[Floats, Floats], slope: Floats) -> Floats:
        """Halve each gene's step until its objective falls as the slope promises; 0 if it never does."""
        (w, eta), (d_w, d_eta) = at, step
        quadratic = gene.penalty * np.stack([(w * w).sum(0), 2 * (w * d_w).sum(0), (d_w * d_w).sum(0)]) / 2
        start = gene.objective(self.offset + eta)
        t = np.ones(len(slope))
        for _ in range(30):
            gain = gene.objective(self.offset + eta + t * d_eta) - start + t * quadratic[1] + t * t * quadratic[2]
            # What rounding hides is let pass: the slopes decide when to end.
            fine = gain <= 1e-4 * t * slope + 1e-13 * np.abs(start)
            if fine.all():
                return t
            t = np.where(fine, t, t / 2)
        return np.where(fine, t, 0.0)


@dataclass(frozen=True, eq=False)
class _Genes:
    """What belongs to the genes that are not done."""

    of: Smooth
    y: Floats
    penalty: Floats
    dispersion: Floats | None

    @property
    def size(self) -> Floats:
        """The scale of a slope: no slope of a gene without codes is larger than its spread times that of a code."""
        return np.asarray(np.maximum(self.y.std(axis=0), 1e-12) * max(self.of.x.reach, 1e-300))

    def only(self, which: np.ndarray) -> _Genes:
        alpha = None if self.dispersion is None else self.dispersion[which]
        return _Genes(self.of, self.y[:, which], self.penalty[which], alpha)

    def objective(self, eta: Floats) -> Floats:
        """The mean loss of each gene."""
        value = slopes(self.y, eta, loss=self.of.loss, dispersion=self.dispersion).loss.mean(axis=0)
        return np.asarray(np.where(np.isfinite(value), value, np.inf))
