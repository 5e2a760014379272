"""What every statistic in one pass is made of: a state that can be written down, and batches read with care.

A batch is numpy or torch, of any real type, on any device. An empty one changes nothing. NaN, infinity and a
wrong width are refused with a DataError, before anything of the batch is taken in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from elute.base.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    Batch = npt.NDArray[Any] | Tensor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_BLOCK = 2**20  # numbers that are widened to float64 at a time


class Statistic:
    """What a statistic was made with (`_settings`) and what it has seen (`_kept`) make up its state."""

    _settings: ClassVar[tuple[str, ...]] = ("width",)
    _kept: ClassVar[tuple[str, ...]]

    def state(self) -> dict[str, Any]:
        """Return numpy arrays, numbers and strings from which the statistic can go on."""
        held = {name: getattr(self, name) for name in (*self._settings, *self._kept)}
        copies = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in held.items()}
        return {"statistic": type(self).__name__, **copies}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], /) -> Self:
        """Go on from a state; lists stand for arrays, so it may have passed through JSON."""
        name = cls.__name__
        if state.get("statistic") != name:
            raise DataError(f"this is the state of {state.get('statistic')!r}, not of {name}")
        if lacks := [key for key in (*cls._settings, *cls._kept) if key not in state]:
            raise DataError(f"the state of {name} lacks {', '.join(lacks)}")
        made = cls(*(state[key] for key in cls._settings))
        for key in cls._kept:
            fresh = np.asarray(getattr(made, key))
            try:
                value = np.array(state[key], dtype=fresh.dtype)
            except (TypeError, ValueError, OverflowError) as cause:
                raise DataError(f"{key} in the state of {name} holds no numbers") from cause
            grows = not fresh.size  # only what starts empty
            if value.ndim != fresh.ndim or not (grows or value.shape == fresh.shape):
                raise DataError(f"{key} in the state of {name} is {value.shape}, not {fresh.shape}")
            setattr(made, key, value if value.ndim else value.item())
        return made

    def check_kin(self, other: Statistic) -> None:
        """Refuse to merge with another statistic, or with one of other settings."""
        if type(other) is not type(self):
            raise DataError(f"{type(self).__name__} cannot be merged with {type(other).__name__}")
        for name in self._settings:
            mine, theirs = getattr(self, name), getattr(other, name)
            if not np.array_equal(mine, theirs):
                raise DataError(
                    f"two {type(self).__name__} that differ in {name} cannot be merged: {mine} and {theirs}",
                    remedy="Make both with the same settings.",
                )


def blocks(x: npt.NDArray[Any]) -> Iterator[Floats]:
    """Cut rows so small that widening them to float64 takes little memory."""
    rows = max(1, _BLOCK // x.shape[1])
    for start in range(0, len(x), rows):
        yield x[start : start + rows].astype(np.float64)


def as_numpy(batch: object) -> npt.NDArray[Any]:
    """Read numbers from numpy, torch or lists."""
    detach = getattr(batch, "detach", None)
    if detach is not None:
        tensor = detach().cpu()
        # numpy has no bfloat16; float32 holds every half-precision number.
        batch = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
    try:
        array = np.asarray(batch)
    except ValueError as cause:
        raise DataError("a batch is a list of unequal lists") from cause
    if array.dtype.kind not in "biuf":
        raise DataError(f"a batch of {array.dtype} holds no numbers")
    return array


def _finite(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.isfinite(x).all():
        raise DataError(f"{(~np.isfinite(x)).sum()} of {x.size} values in a batch are NaN or infinite")
    return x


def rows_of(batch: object, width: int) -> npt.NDArray[Any]:
    """Read finite rows [n, width]."""
    x = as_numpy(batch)
    if x.ndim != 2 or x.shape[1] != width:
        raise DataError(f"a batch of shape {x.shape} where [rows, {width}] is expected")
    return _finite(x)


def real(values: npt.NDArray[Any]) -> Floats:
    """Widen finite numbers to float64."""
    return _finite(values).astype(np.float64)


def aligned(batch: object, *names: str) -> list[npt.NDArray[Any]]:
    """Read a tuple of arrays of one length."""
    parts = [as_numpy(part) for part in batch] if isinstance(batch, tuple) else []
    if len(parts) != len(names) or any(part.shape != (parts[0].size,) for part in parts):
        shapes = ", ".join(str(part.shape) for part in parts) or type(batch).__name__
        raise DataError(f"a batch must be ({', '.join(names)}), arrays of one length, not {shapes}")
    return parts


def whole(x: npt.NDArray[Any], below: int, what: str) -> Integers:
    """Read whole numbers from 0 up to a bound."""
    if x.size and x.dtype.kind not in "iu":
        raise DataError(f"the {what}s in a batch are {x.dtype}, not whole numbers")
    if x.size and (x.min() < 0 or x.max() >= below):
        worst = x.min() if x.min() < 0 else x.max()
        raise DataError(f"{what} {worst} in a batch is outside 0 to {below - 1}")
    return x.astype(np.int64)


def positive(name: str, size: object) -> int:
    """Read a setting that is a whole number above 0."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ConfigError(f"{name}={size!r}", remedy="Choose a whole number above 0.")
    return int(size)
