"""How well a dictionary reconstructs, how it fires, and what a model loses by it; docs/guide/metrics.md says when each
number misleads.

    statistic        a batch          what is kept
    Reconstruction   (y, ŷ)           per dimension: mean, squares about it, squared errors; sums over rows
    Firing           Codes            per feature: rows in which it fired, sum and maximum of its strength

Both are statistics in one pass (see base/accumulate.py): sums in float64, memory that does not grow with rows, the
same result however rows are cut into batches and parts, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from elute.base.codes import Codes
from elute.base.errors import DataError
from elute.base.mergeable import Floats, Integers, Statistic, as_numpy, blocks, positive, real, rows_of, whole

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.base.contracts import Accumulator, Edit, Model
    from elute.base.mergeable import Batch

_BLOCK = 2**24  # cosines that are held at a time
_TINY = 8 * np.finfo(np.float64).eps  # a spread below this share of the mean is rounding


@dataclass(frozen=True, eq=False)
class ReconstructionResult:
    """How close ŷ came to y; SS is a sum of squares over rows and dimensions, ȳ the mean of all rows seen.

    Where y does not vary there is nothing to explain: explained variance and R² are 1 if ŷ is exact there, else 0.
    """

    rows: int
    explained_variance: float  # 1 - SS(y - ŷ) / SS(y - ȳ)
    fvu: float  # 1 - explained_variance
    fvu_given_mean: float | None  # the same about the mean that was passed, if one was
    mse: float  # SS(y - ŷ) / (rows · width)
    cosine: float  # mean over rows of cos(y, ŷ); a row of zeros: 1 if the other is zero too, else 0
    r2: Floats  # [width], 1 - Σ(y - ŷ)² / Σ(y - ȳ)² over rows
    norm_ratio: float  # Σ‖ŷ‖ / Σ‖y‖ over rows; 1 if both are zero, infinite if y alone is


class Reconstruction(Statistic):
    """Explained variance, errors, cosines and norms of rows y [n, width] and their reconstructions ŷ.

    `mean` is that of the training rows, for the fraction of variance unexplained about it.
    """

    _settings = ("width", "given")
    _kept = ("rows", "centre", "squares", "errors", "cosines", "norms")

    def __init__(self, width: int, mean: Batch | None = None) -> None:
        self.width = positive("width", width)
        self.given = np.zeros(0) if mean is None else real(as_numpy(mean))  # empty: none
        if self.given.size and self.given.shape != (width,):
            raise DataError(f"a mean of shape {self.given.shape} where [{width}] is expected")
        self.rows = 0
        self.centre, self.squares, self.errors = np.zeros(width), np.zeros(width), np.zeros(width)
        self.cosines, self.norms = 0.0, np.zeros(2)  # norms: of y, of ŷ

    def update(self, batch: tuple[Batch, Batch], /) -> None:
        """Take in rows and their reconstructions, (y, ŷ)."""
        y, y_hat = _pair(batch, self.width)
        for a, b in zip(blocks(y), blocks(y_hat), strict=True):
            # The mean is taken twice: that of large numbers is off by the rounding of its sum.
            rough = a.mean(0)
            off = a - rough
            rest = off.mean(0)
            off -= rest
            self._take(len(a), rough + rest, np.einsum("ij,ij->j", off, off))
            norms = np.sqrt(np.einsum("ij,ij->i", a, a)), np.sqrt(np.einsum("ij,ij->i", b, b))
            both = norms[0] * norms[1]
            same = (norms[0] == norms[1]).astype(np.float64)  # where both is 0: 1 if both norms are
            self.cosines += float(np.divide(np.einsum("ij,ij->i", a, b), both, out=same, where=both > 0).sum())
            self.norms = self.norms + np.array([norms[0].sum(), norms[1].sum()])
            np.subtract(b, a, out=b)
            self.errors = self.errors + np.einsum("ij,ij->j", b, b)

    def merge(self, other: Reconstruction, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self._take(other.rows, other.centre, other.squares)
        self.errors = self.errors + other.errors
        self.cosines, self.norms = self.cosines + other.cosines, self.norms + other.norms

    def _take(self, rows: int, centre: Floats, squares: Floats) -> None:
        """Join means and squares about them, after Chan, Golub & LeVeque (see base/accumulate.py)."""
        if not rows:
            return
        both, apart = self.rows + rows, centre - self.centre
        self.squares = self.squares + squares + self.rows * rows / both * apart * apart
        self.centre = self.centre + apart * (rows / both)
        self.rows = both

    def result(self) -> ReconstructionResult:
        """Return the numbers so far; of no rows there are none."""
        if not self.rows:
            raise DataError("there are no rows whose reconstruction could be judged")
        varies = self.squares > self.rows * (_TINY * self.centre) ** 2
        squares = np.where(varies, self.squares, 0.0)
        exact = (self.errors == 0).astype(np.float64)
        r2 = 1 - np.divide(self.errors, squares, out=1 - exact, where=varies)
        unexplained = _share(self.errors.sum(), squares.sum())
        given = None
        if self.given.size:
            given = _share(self.errors.sum(), (self.squares + self.rows * (self.centre - self.given) ** 2).sum())
        norm, norm_hat = self.norms.tolist()
        return ReconstructionResult(
            rows=self.rows,
            explained_variance=1 - unexplained,
            fvu=unexplained,
            fvu_given_mean=given,
            mse=float(self.errors.mean() / self.rows),
            cosine=self.cosines / self.rows,
            r2=r2,
            norm_ratio=norm_hat / norm if norm else (np.inf if norm_hat else 1.0),
        )


def _pair(batch: object, width: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read rows and as many reconstructions."""
    if not isinstance(batch, tuple) or len(batch) != 2:
        raise DataError(f"a batch must be (y, ŷ), not {type(batch).__name__}")
    y, y_hat = rows_of(batch[0], width), rows_of(batch[1], width)
    if len(y) != len(y_hat):
        raise DataError(f"{len(y)} rows came with {len(y_hat)} reconstructions")
    return y, y_hat


def _share(errors: float, squares: float) -> float:
    """Return the part that is left unexplained; of nothing, all or none."""
    return float(errors / squares) if squares else float(errors > 0)


@dataclass(frozen=True, eq=False)
class FiringResult:
    """How features fired; a strength is the absolute value of a code that is not 0."""

    rows: int
    l0: float  # features that fired, mean over rows
    dead_fraction: float  # share of features that fired in none of the rows
    counts: Integers  # [features], rows in which each fired
    frequency: Floats  # [features], counts / rows
    mean_strength: Floats  # [features], over the rows in which it fired; 0 for dead features
    max_strength: Floats  # [features]; 0 for dead features


class Firing(Statistic):
    """How often and how strongly each feature fires; the cost grows with what fired, never rows × features."""

    _settings = ("n_features",)
    _kept = ("rows", "counts", "sums", "high")

    def __init__(self, n_features: int) -> None:
        self.n_features = positive("n_features", n_features)
        self.rows = 0
        self.counts = np.zeros(n_features, dtype=np.int64)
        self.sums, self.high = np.zeros(n_features), np.zeros(n_features)

    def update(self, batch: Codes, /) -> None:
        """Take in the codes of some rows."""
        if not isinstance(batch, Codes):
            raise DataError(f"a batch must be Codes, not {type(batch).__name__}")
        if batch.n_features != self.n_features:
            raise DataError(f"codes of {batch.n_features} features where {self.n_features} are expected")
        values = as_numpy(batch.values)
        fired = values != 0
        features = whole(as_numpy(batch.indices)[fired], self.n_features, "feature")
        strengths = np.abs(real(values[fired]))
        self.rows += len(batch)
        self.counts = self.counts + np.bincount(features, minlength=self.n_features)
        self.sums = self.sums + np.bincount(features, weights=strengths, minlength=self.n_features)
        np.maximum.at(self.high, features, strengths)

    def merge(self, other: Firing, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self.rows += other.rows
        self.counts, self.sums = self.counts + other.counts, self.sums + other.sums
        self.high = np.maximum(self.high, other.high)

    def result(self) -> FiringResult:
        """Return the numbers so far; of no rows there are none."""
        if not self.rows:
            raise DataError("there are no rows in which features could have fired")
        return FiringResult(
            rows=self.rows,
            l0=float(self.counts.sum() / self.rows),
            dead_fraction=float((self.counts == 0).mean()),
            counts=self.counts.copy(),
            frequency=self.counts / self.rows,
            mean_strength=self.sums / np.maximum(self.counts, 1),
            max_strength=self.high.copy(),
        )


@dataclass(frozen=True, eq=False)
class Redundancy:
    """How alike the features of a decoder are."""

    mean: float  # of nearest
    nearest: Floats  # [features], each one's largest cosine with any other


def decoder_redundancy(W_dec: Tensor) -> Redundancy:
    """Find each feature's largest cosine with another, max over j ≠ i of cos(W_dec[i], W_dec[j]), block by block.

    A row of zeros has cosine 0 with all others.
    """
    if W_dec.ndim != 2 or len(W_dec) < 2:
        raise DataError(f"a decoder of shape {tuple(W_dec.shape)} where [2 or more features, width] is expected")
    with torch.no_grad():
        unit = torch.nn.functional.normalize(W_dec.float(), dim=1)
        size = max(1, _BLOCK // len(unit))
        nearest = []
        for start in range(0, len(unit), size):
            cosines = unit[start : start + size] @ unit.T
            cosines.diagonal(start).fill_(-torch.inf)
            nearest.append(cosines.amax(1))
    found = real(as_numpy(torch.cat(nearest).clamp(-1, 1)))
    return Redundancy(float(found.mean()), found)


def loss_recovered(clean: float, patched: float, ablated: float) -> float:
    """Return (ablated - patched) / (ablated - clean): 1 if the patch costs nothing, 0 if as much as ablating."""
    span = ablated - clean
    if not np.isfinite([clean, patched, ablated]).all():
        raise DataError(f"a loss is not finite: clean {clean}, patched {patched}, ablated {ablated}")
    if abs(span) <= 1e-9 * max(abs(ablated), abs(clean)):
        remedy = "The loss does not depend on the site: choose another site or another loss."
        raise DataError(f"ablating leaves the loss at {clean:g}: there is nothing to recover", remedy=remedy)
    return (ablated - patched) / span


@dataclass(frozen=True)
class Losses:
    """Mean losses of a model as it is, with a reconstruction patched in, and with its sites ablated."""

    clean: float
    patched: float
    ablated: float
    items: int  # losses that were averaged

    @property
    def recovered(self) -> float:
        """The share of the loss recovered; an error where ablating changes nothing."""
        return loss_recovered(self.clean, self.patched, self.ablated)


def measure_loss_recovered(
    model: Model,
    batches: Iterable[tuple[Any, pl.DataFrame]],
    *,
    edits: Mapping[str, Edit],
    ablations: Mapping[str, Edit],
    loss: Callable[[Any, Any], Tensor],
) -> Losses:
    """Run a model three times on each batch: clean, with `edits`, and with `ablations`; average the losses.

    `batches` are those of `model.batches(data)`. `loss(output, batch)` gives one loss an item, in a tensor of any
    shape; a single number stands for the mean over the rows of the batch and is weighted by them.
    """
    totals, weights = np.zeros(3), np.zeros(3)
    for batch, metadata in batches:
        for i, patches in enumerate(({}, edits, ablations)):
            with torch.no_grad(), model.patch(patches, metadata=metadata):
                losses = loss(model(batch), batch)
            each = losses.numel() if losses.ndim else len(metadata)
            totals[i] += float(losses.double().mean()) * each if each else 0.0
            weights[i] += each
    if not weights.all() or len(set(weights.tolist())) > 1:
        counts = ", ".join(f"{n:.0f}" for n in weights)
        raise DataError(f"no mean loss can be taken over {counts} items (clean, patched, ablated)")
    clean, patched, ablated = (totals / weights).tolist()
    return Losses(clean, patched, ablated, int(weights[0]))


if TYPE_CHECKING:
    # The type checker holds each of them to the contract here.
    _RECONSTRUCTION: Accumulator[tuple[Batch, Batch], ReconstructionResult] = Reconstruction(1)
    _FIRING: Accumulator[Codes, FiringResult] = Firing(1)
