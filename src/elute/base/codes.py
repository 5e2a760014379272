"""Sparse codes in memory: for each row, the features that fired and how strongly.

A code of n rows is two tensors, `indices` int32[n, k] and `values` float[n, k]. Three conventions hold:

- **A value of 0 marks an empty slot**, so a row may hold fewer than k features. The index of an empty slot
  still lies in range (0 where this module writes it), so kernels gather and add every slot without a branch.
- A feature stands at most once in a row; the slots of a row are in no particular order.
- Values may be negative.

Making a `Codes` looks at shapes and types alone, which is free on any device; `check()` reads the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from elute.base.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

_MOST_FEATURES = 2**31 - 1


class Fired(NamedTuple):
    """The slots that are not empty, one after another: row by row, in the order of the slots."""

    rows: Tensor  # int64[nnz]
    features: Tensor  # int32[nnz]
    values: Tensor


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Codes turned round: all rows of each feature, ascending, on the CPU."""

    indptr: npt.NDArray[np.int64]  # [n_features + 1]
    rows: npt.NDArray[np.int64]  # [nnz]
    values: npt.NDArray[Any]  # [nnz], half precision widened to float32

    def of(self, feature: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Return the rows in which a feature fired, and its values there: views, nothing is copied."""
        part = slice(*self.indptr[_feature(feature, len(self.indptr) - 1) :][:2])
        return self.rows[part], self.values[part]

    def counts(self) -> npt.NDArray[np.int64]:
        """Return in how many rows each feature fired."""
        return self.indptr[1:] - self.indptr[:-1]


@dataclass(frozen=True, eq=False, repr=False)
class Codes:
    """Sparse codes of n rows."""

    indices: Tensor
    values: Tensor
    n_features: int

    def __post_init__(self) -> None:
        import torch

        for name in ("indices", "values"):
            if not isinstance(getattr(self, name), torch.Tensor):
                kind = type(getattr(self, name)).__name__
                raise DataError(f"the {name} of codes are a {kind}", remedy="Pass a torch tensor.")
        have, want = tuple(self.indices.shape), tuple(self.values.shape)
        if len(have) != 2 or have != want:
            raise DataError(f"indices {have} and values {want} of codes must have one shape [rows, k]")
        if self.indices.dtype != torch.int32:
            raise DataError(f"the indices of codes are {self.indices.dtype}", remedy="Pass torch.int32.")
        if not self.values.dtype.is_floating_point:
            raise DataError(f"the values of codes are {self.values.dtype}", remedy="Pass floating point.")
        if self.indices.device != self.values.device:
            devices = f"{self.indices.device} and {self.values.device}"
            raise DataError(f"the indices and values of codes lie on {devices}", remedy="Move one of them.")
        if not self.k <= self.n_features <= _MOST_FEATURES:
            raise DataError(f"codes of {self.k} slots a row cannot have {self.n_features} features")

    @classmethod
    def from_dense(cls, x: Tensor, k: int, *, by: Literal["positive", "magnitude"] = "positive") -> Codes:
        """Keep the k largest numbers of each row, strongest first: those above zero, or by magnitude.

        Which of several equal numbers is kept is `torch.topk`'s choice. Gradients flow to what was kept.
        """
        import torch

        if by not in ("positive", "magnitude"):
            raise ConfigError(f"by={by!r}", remedy="Choose 'positive' or 'magnitude'.")
        if x.ndim != 2 or not x.dtype.is_floating_point:
            raise DataError(f"codes are made from floating point [rows, features], not {x.dtype}{[*x.shape]}")
        if not 0 <= k <= x.shape[1]:
            raise DataError(f"k={k} of {x.shape[1]} features", remedy=f"Choose 0 to {x.shape[1]}.")
        strengths, chosen = (x.abs() if by == "magnitude" else x).topk(k, dim=1)
        # topk ranks NaN above everything, so looking at what it kept is enough to see that there was one.
        if not bool((strengths < torch.inf).all()):
            raise DataError("NaN or infinity in what codes are made from")
        values = x.gather(1, chosen) if by == "magnitude" else strengths.clamp(min=0)
        return cls(torch.where(values != 0, chosen, 0).to(torch.int32), values, x.shape[1])

    @staticmethod
    def concatenate(parts: Sequence[Codes]) -> Codes:
        """Put codes under one another; rows of a smaller k are filled up with empty slots."""
        import torch
        from torch.nn.functional import pad

        if not parts:
            raise DataError("no codes to concatenate", remedy="Pass at least one part.")
        for what, found in (
            ("n_features", sorted({part.n_features for part in parts})),
            ("devices", sorted({str(part.values.device) for part in parts})),
        ):
            if len(found) > 1:
                raise DataError(f"codes to concatenate differ in {what}: {', '.join(map(str, found))}")
        k = max(part.k for part in parts)
        return Codes(
            torch.cat([pad(part.indices, (0, k - part.k)) for part in parts]),
            torch.cat([pad(part.values, (0, k - part.k)) for part in parts]),
            parts[0].n_features,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """The shape that `dense()` would have: rows, features."""
        return len(self), self.n_features

    @property
    def k(self) -> int:
        """The slots of a row: the most features that can fire in it."""
        return self.indices.shape[1]

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __repr__(self) -> str:
        at = f"{str(self.values.dtype).removeprefix('torch.')} on {self.values.device}"
        return f"Codes({len(self)} rows, k={self.k}, {self.n_features} features, {at})"

    def __getitem__(self, rows: int | slice | Sequence[int] | npt.NDArray[Any] | Tensor) -> Codes:
        """Choose rows by number, slice, list of numbers or mask; one number gives codes of one row."""
        pick = self._pick(rows)
        return Codes(self.indices[pick], self.values[pick], self.n_features)

    def __iter__(self) -> Iterator[Codes]:
        return (self[row : row + 1] for row in range(len(self)))

    def _pick(self, rows: object) -> slice | Tensor:
        import torch

        n = len(self)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(n)
            if step > 0:
                return slice(start, stop, step)
            rows = list(range(start, stop, step))  # torch has no backward slices
        try:
            pick = torch.as_tensor(rows, device=self.values.device)
        except (TypeError, ValueError, RuntimeError) as cause:
            raise DataError(f"rows of codes cannot be chosen by {type(rows).__name__}") from cause
        if pick.dtype == torch.bool and pick.ndim:
            if tuple(pick.shape) != (n,):
                raise DataError(f"a mask of shape {tuple(pick.shape)} over {n} rows of codes")
            return pick
        if pick.ndim > 1 or (pick.numel() and (pick.dtype == torch.bool or pick.dtype.is_floating_point)):
            raise DataError(f"rows of codes cannot be chosen by {pick.dtype}{[*pick.shape]}")
        pick = pick.reshape(-1).long()
        outside = pick[(pick < -n) | (pick >= n)]
        if len(outside):
            raise DataError(f"there is no row {int(outside[0])} in {n} rows of codes")
        return pick

    def to(self, device: torch.device | str | None = None, *, dtype: torch.dtype | None = None) -> Codes:
        """Move the codes, or change the type of their values; the indices stay int32."""
        return Codes(self.indices.to(device), self.values.to(device=device, dtype=dtype), self.n_features)

    def fired(self) -> Fired:
        """Return row, feature and value of every slot that is not empty."""
        rows, slots = (self.values != 0).nonzero(as_tuple=True)
        return Fired(rows, self.indices[rows, slots], self.values[rows, slots])

    def l0(self) -> Tensor:
        """Return how many features fired in each row, int64[n]."""
        return (self.values != 0).sum(1)

    def counts(self) -> Tensor:
        """Return in how many rows each feature fired, int64[n_features]."""
        import torch

        self._check_range()
        ones = (self.values != 0).long().reshape(-1)
        none = torch.zeros(self.n_features, dtype=torch.int64, device=self.values.device)
        return none.scatter_add_(0, self.indices.long().reshape(-1), ones)

    def frequency(self) -> Tensor:
        """Return the share of rows in which each feature fired, float64[n_features]; 0 of no rows."""
        return self.counts().double() / max(1, len(self))

    def dense(self) -> Tensor:
        """Build the full [n, n_features] tensor: the one method whose memory grows with rows × features."""
        self._check_range()
        return self.values.new_zeros(self.shape).scatter_add(1, self.indices.long(), self.values)

    def rows_of(self, feature: int) -> tuple[Tensor, Tensor]:
        """Return the rows in which one feature fired, ascending, and its values there."""
        hits = (self.indices == _feature(feature, self.n_features)) & (self.values != 0)
        rows, slots = hits.nonzero(as_tuple=True)
        return rows, self.values[rows, slots]

    def csc(self) -> FeatureRows:
        """Turn the codes round, in one counting sort: the cost grows with what fired plus n_features."""
        import numpy as np
        from scipy.sparse import csr_array

        self._check_range()  # scipy trusts the indices that it is given
        values = self.values.detach().cpu()
        values = values.float() if values.element_size() < 4 else values
        fired = values != 0
        starts = np.concatenate([[0], np.cumsum(fired.sum(1).numpy())])
        columns = self.indices.cpu()[fired].numpy()
        turned = csr_array((values[fired].numpy(), columns, starts), shape=self.shape).tocsc()
        return FeatureRows(turned.indptr.astype(np.int64), turned.indices.astype(np.int64), turned.data)

    def check(self) -> Codes:
        """Read every number and refuse what no encoder writes; returns the codes themselves."""
        import torch

        self._check_range()
        bad = (~torch.isfinite(self.values)).any(1).nonzero()
        if len(bad):
            raise DataError(f"row {int(bad[0])} of codes holds NaN or infinity")
        # Each empty slot gets a number of its own, below every feature, so that only what fired can be equal.
        empty = -1 - torch.arange(self.k, dtype=torch.int32, device=self.values.device)
        named = torch.where(self.values != 0, self.indices, empty).sort(dim=1).values
        twice = (named[:, 1:] == named[:, :-1]).nonzero()
        if len(twice):
            row, slot = twice[0].tolist()
            raise DataError(f"row {row} of codes names feature {int(named[row, slot])} twice")
        return self

    def _check_range(self) -> None:
        outside = ((self.indices < 0) | (self.indices >= self.n_features)).nonzero()
        if len(outside):
            row, slot = outside[0].tolist()
            feature = int(self.indices[row, slot])
            raise DataError(f"row {row} of codes names feature {feature} of {self.n_features}")


def _feature(feature: int, n_features: int) -> int:
    if not 0 <= feature < n_features:
        raise DataError(f"there is no feature {feature} in {n_features} features")
    return feature
