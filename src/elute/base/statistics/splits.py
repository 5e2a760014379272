"""Splits by group: a donor, patient or site lies in one split alone.

1. `draw_splits` is the only place where rows get to train, validation or test.
2. Groups come in a random order that depends on the seed and on their names, never on the order of the rows. Each
   goes where it lessens most the distance Σ (have − want)² / want over all splits, for all its rows and for its rows
   of each label. Groups that are needed to fill empty splits go there.
3. Several orders are tried, fewer the more groups there are, and the one that ends nearest to the fractions is kept.
4. `group_folds` is the same with equal shares; as many folds as groups leaves out one group at a time.

The objective is that of stratified sampling for multi-label data: K. Sechidis, G. Tsoumakas, I. Vlahavas,
"On the stratification of multi-label data", ECML PKDD 2011; here rows move by whole groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from scipy import sparse

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import Floats, Ints, at_least, generator, group_codes

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
ORDERS = 16
PLACEMENTS = 10_000  # over all orders: what keeps a hundred thousand groups to seconds


def _row_counts(
    groups: Iterable[Any], labels: Iterable[Any] | None, where: str, *, sizes: Iterable[int] | None = None
) -> tuple[list[Hashable], Any]:
    """Return the groups, and how many rows each has: of any label, then of each one."""
    names, codes = group_codes(groups, f"{where}(groups)")
    columns, rows = [np.zeros(len(codes), dtype=np.int64)], [codes]
    n_kinds = 1
    if labels is not None:
        kinds, label_codes = group_codes(labels, f"{where}(labels)", n_rows=len(codes))
        columns.append(label_codes + 1)
        rows.append(codes)
        n_kinds += len(kinds)
    at = (np.concatenate(rows), np.concatenate(columns))
    ones = np.ones(len(codes)) if sizes is None else _positive_sizes(sizes, len(codes), f"{where}(sizes)")
    counts = sparse.csr_array((np.tile(ones, len(columns)), at), shape=(len(names), n_kinds))
    counts.sum_duplicates()
    return names, counts


def _positive_sizes(sizes: Iterable[int], n: int, where: str) -> Floats:
    """Return how many rows each given row stands for."""
    given = np.asarray(list(sizes), dtype=np.float64)
    if given.shape != (n,) or not np.all(np.isfinite(given) & (given >= 1)):
        raise DataError(
            "is not one number of 1 or more a row", where=where, remedy="Leave out rows that stand for none."
        )
    return given


def _place(counts: Any, order: Ints, shares: Floats) -> tuple[Ints, float]:
    """Put the groups where they fit best, one after another; return the splits and the distance left."""
    want = shares[:, None] * counts.sum(axis=0)[None, :]
    weight = 1.0 / want
    surplus = -want
    held = np.full(len(order), -1)
    empty = np.ones(len(shares), dtype=bool)
    for done, group in enumerate(order.tolist()):
        part = slice(counts.indptr[group], counts.indptr[group + 1])
        kinds, size = counts.indices[part], counts.data[part]
        change = ((size + 2.0 * surplus[:, kinds]) * size * weight[:, kinds]).sum(axis=1)
        if len(order) - done <= empty.sum():
            change[~empty] = np.inf
        best = int(change.argmin())
        held[group] = best
        empty[best] = False
        surplus[best, kinds] += size
    return held, float((surplus * surplus * weight).sum())


def _assign(counts: Any, shares: Floats, rng: np.random.Generator) -> Ints:
    n = counts.shape[0]
    tries = int(np.clip(PLACEMENTS // n, 1, ORDERS))
    found = [_place(counts, rng.permutation(n), shares) for _ in range(tries)]
    return min(found, key=lambda pair: pair[1])[0]


def _fractions(fractions: Mapping[str, float], where: str) -> dict[str, float]:
    if not fractions:
        raise ConfigError("is empty", where=where, remedy="Give, say, {'train': 0.8, 'test': 0.2}.")
    given: Mapping[str, object] = fractions
    for name, share in given.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
            raise ConfigError(f"{name!r} is {share!r}", where=where, remedy="A fraction lies between 0 and 1.")
    total = sum(fractions.values())
    if abs(total - 1.0) > 1e-6:
        raise ConfigError(f"they add up to {total:g}", where=where, remedy="Make them add up to 1.")
    return {name: float(share) for name, share in fractions.items() if share > 0}


def draw_splits(
    groups: Iterable[Any],
    labels: Iterable[Any] | None = None,
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int,
    sizes: Iterable[int] | None = None,
) -> dict[Any, str]:
    """Give each group, one name a row, to one split; labels, one a row, are spread evenly over the splits.

    Many rows that are alike may be given as one, with their number in `sizes`.
    """
    where = "draw_splits"
    shares = _fractions(fractions, f"{where}(fractions)")
    rng = generator(seed, where)
    names, counts = _row_counts(groups, labels, where, sizes=sizes)
    if len(names) < len(shares):
        raise DataError(
            f"{len(names)} groups cannot fill {len(shares)} splits",
            where=f"{where}(groups)",
            remedy=f"Give at least {len(shares)} groups, or set a fraction to 0.",
        )
    # Sorted, so that the order in which a configuration names the splits does not matter.
    splits = sorted(shares)
    held = _assign(counts, np.array([shares[name] for name in splits]), rng)
    return {name: splits[split] for name, split in zip(names, held.tolist(), strict=True)}


def group_folds(
    groups: Iterable[Any],
    labels: Iterable[Any] | None = None,
    *,
    n_folds: int | Literal["leave-one-out"],
    seed: int,
) -> dict[Any, int]:
    """Give each group to one fold from 0; "leave-one-out" makes each group a fold, in sorted order."""
    where = "group_folds"
    rng = generator(seed, where)
    names, counts = _row_counts(groups, labels, where)
    if len(names) < 2:
        raise DataError("one group only", where=f"{where}(groups)", remedy="Give at least 2 groups.")
    if n_folds == "leave-one-out":
        return {name: i for i, name in enumerate(names)}
    if isinstance(n_folds, str):
        raise ConfigError(
            f"{n_folds!r} is not a choice", where=f"{where}(n_folds)", remedy="Give a number, or 'leave-one-out'."
        )
    folds = at_least(n_folds, 2, f"{where}(n_folds)")
    if len(names) < folds:
        raise DataError(
            f"{len(names)} groups cannot fill {folds} folds",
            where=f"{where}(groups)",
            remedy=f"Give at least {folds} groups, or fewer folds.",
        )
    held = _assign(counts, np.full(folds, 1.0 / folds), rng)
    return dict(zip(names, held.tolist(), strict=True))


def check_splits(pairs: Iterable[tuple[Any, str]]) -> dict[Any, str]:
    """Return the split of each group, from (group, split) a row; refuse a group that lies in two."""
    held: dict[Any, str] = {}
    for group, split in pairs:
        before = held.setdefault(group, split)
        if before != split:
            raise DataError(
                f"group {group!r} lies in both {before!r} and {split!r}",
                where="check_splits",
                remedy="Draw the splits by group, with draw_splits.",
            )
    if not held:
        raise DataError("there are no rows", where="check_splits", remedy="Give one (group, split) a row.")
    return held
