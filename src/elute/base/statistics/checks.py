"""What every statistic asks of its input, so that each refusal reads the same.

1. An array is turned into float64 of a known shape; text, emptiness and NaN are refused by name.
2. A mask has to be made of True and False: a column of 0, 1 and 2 taken as a mask would silently lose a label.
3. Groups and labels become sorted names and codes, so that no result depends on the order of the rows.
4. A seed and the name of what draws from it give a generator, so that two draws from one seed are unrelated.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal, SupportsFloat, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elute.base.errors import ConfigError, DataError, near

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Alternative = Literal["two-sided", "greater", "less"]

ALTERNATIVES = ("two-sided", "greater", "less")


def choice(value: object, known: Sequence[str], where: str) -> None:
    """Refuse a word that is not one of the known ones."""
    if value not in known:
        raise ConfigError(f"{value!r} is not a choice", where=where, remedy=near(str(value), known))


def proportion(value: SupportsFloat, where: str) -> float:
    """Return a number strictly between 0 and 1."""
    number = float(value)
    if not 0.0 < number < 1.0:
        raise ConfigError(f"{number:g} is not between 0 and 1", where=where, remedy="Give, say, 0.95.")
    return number


def at_least(value: object, least: int, where: str) -> int:
    """Return a whole number that is not below the least one allowed."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(
            f"{value!r} is not a whole number of at least {least}", where=where, remedy=f"Give {least} or more."
        )
    return int(value)


def numbers(values: ArrayLike, where: str) -> Floats:
    """Return finite float64 numbers of any shape, at least one."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("is not an array of numbers", where=where, remedy="Give numbers of one shape.") from error
    if array.size == 0:
        raise DataError("is empty", where=where, remedy="Give at least one value.")
    bad = ~np.isfinite(array)
    if bad.any():
        at = ", ".join(str(int(i)) for i in np.argwhere(bad)[0]) or "0"
        raise DataError(
            f"{int(bad.sum())} of {array.size} values are NaN or infinite, the first at [{at}]",
            where=where,
            remedy="Drop or fill those first.",
        )
    return array


def matrix(values: ArrayLike, where: str) -> Floats:
    """Return numbers as [rows, features]; one dimension is one feature."""
    array = numbers(values, where)
    if array.ndim == 1:
        return array[:, None]
    if array.ndim != 2:
        raise DataError(f"has {array.ndim} dimensions", where=where, remedy="Give [rows, features].")
    return array


def same_length(given: int, expected: int, where: str) -> None:
    """Refuse a column that does not have one entry a row."""
    if given != expected:
        raise DataError(f"has {given} entries for {expected} rows", where=where, remedy="Give one entry a row.")


def masks(mask: ArrayLike, n_rows: int, where: str) -> Bools:
    """Return a mask as [rows, masks], each with rows on both sides."""
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise DataError(f"holds {array.dtype}, not True and False", where=where, remedy="Compare first: labels == 'x'.")
    if array.ndim not in (1, 2):
        raise DataError(f"has {array.ndim} dimensions", where=where, remedy="Give [rows] or [rows, masks].")
    same_length(array.shape[0], n_rows, where)
    columns = array[:, None] if array.ndim == 1 else array
    if columns.shape[1] == 0:
        raise DataError("is empty", where=where, remedy="Give at least one mask.")
    inside = columns.sum(axis=0)
    one_sided = np.flatnonzero((inside == 0) | (inside == n_rows))
    if one_sided.size:
        which = int(one_sided[0])
        side = "outside" if inside[which] == 0 else "inside"
        raise DataError(
            f"mask {which} puts all {n_rows} rows {side}",
            where=where,
            remedy="A comparison needs rows on both sides.",
        )
    return columns


def _is_missing(item: Any) -> bool:
    return item is None or bool(item != item)


def _python(item: Any) -> Hashable:
    return cast("Hashable", item.item() if isinstance(item, np.generic) else item)


def group_codes(groups: Iterable[Any], where: str, *, n_rows: int | None = None) -> tuple[list[Hashable], Ints]:
    """Return the sorted distinct names, and the index of each row's name among them."""
    if isinstance(groups, str | bytes):
        raise DataError("is one string", where=where, remedy="Give one name a row.")
    names: list[Hashable]
    if isinstance(groups, np.ndarray) and groups.ndim == 1 and groups.dtype.kind in "iuU" and groups.size:
        found, inverse = np.unique(groups, return_inverse=True)
        names, codes = list(found.tolist()), inverse.astype(np.int64)
    else:
        items = list(groups)
        if not items:
            raise DataError("is empty", where=where, remedy="Give one name a row.")
        try:
            missing = next((i for i, item in enumerate(items) if _is_missing(item)), None)
            names = [_python(item) for item in dict.fromkeys(items)]
        except (TypeError, ValueError) as error:
            raise DataError("holds names that cannot be compared", where=where, remedy="Give text.") from error
        if missing is not None:
            raise DataError(f"row {missing} has no name", where=where, remedy="Name it or drop the row.")
        try:
            names.sort(key=cast("Any", lambda name: name))
        except TypeError:
            names.sort(key=lambda name: (type(name).__name__, str(name)))
        code = {name: i for i, name in enumerate(names)}
        codes = np.fromiter((code[item] for item in items), dtype=np.int64, count=len(items))
    if n_rows is not None:
        same_length(len(codes), n_rows, where)
    return names, codes


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the generator that belongs to a seed and to the name of what draws from it."""
    whole = at_least(seed, 0, f"{name}(seed)")
    return np.random.default_rng(np.random.SeedSequence([whole, *name.encode()]))
