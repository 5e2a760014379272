"""What features follow, node by node within instances, and from instance to instance; each against a permutation null.

Nodes of one instance belong together, and instances differ: a feature that is stronger in instances with long tours
would seem to follow everything that is larger there. So two questions are kept apart.

Within instances:
1. A feature's activations, and each quantity of the nodes, are ranked within each instance (ties share their mean rank)
   and centred there: what instances differ in is gone.
2. ρ = Σ a q / √(Σ a² Σ q²) over all nodes of all instances.
3. Null: the nodes of each instance change places among themselves, all quantities together. Any exchange leaves both
   sums of squares as they are.

Among instances: the same with one group, which holds each instance's mean activation and its quantities; instances
change places.

Beyond something else that is given, a node's place above all, the same is asked of what is left: both sides less their
least-squares fit to the ranks of what is given, their squares and products, over all groups. Residuals change places,
which is exact only as far as they are exchangeable.

p counts the data among its permutations. p_family compares with the largest |ρ| over all features and quantities in
each permutation (P. Westfall, S. Young, 1993): it holds for the whole table at once, however features or quantities
hang together. Within instances there is also the test by instances as units, Student's t over each instance's share of
ρ: it does without exchangeable nodes, but needs many instances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elute.base.errors import DataError
from elute.base.statistics.checks import at_least, generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SLACK = 1e-12  # sums of the same numbers in another order differ in their last digits, and still are ties


@dataclass(frozen=True, eq=False)
class Relations:
    """One row a feature, one column a quantity."""

    rho: Floats
    p: Floats
    p_family: Floats
    p_units: Floats | None  # by instances as units; none where there is one group alone
    permutations: int


def within(
    activations: Floats, quantities: Floats, *, permutations: int, seed: int, given: Floats | None = None
) -> Relations:
    """Relate activations [groups, members, features] to quantities [groups, members, quantities] within each group.

    With `given` [groups, members, columns], it is asked what they have to do with each other beyond that.
    """
    at_least(permutations, 1, "within(permutations)")
    if activations.shape[:2] != quantities.shape[:2]:
        what = f"activations {[*activations.shape]} and quantities {[*quantities.shape]} are not of the same rows"
        raise DataError(
            what, where="within", remedy="Give [groups, members, features] and [groups, members, quantities]."
        )
    if activations.shape[1] < 2:
        raise DataError("a group has one member", where="within", remedy="There is nothing to compare.")
    a, q = ranked(activations), ranked(quantities)
    if given is not None:
        a, q = beyond(given, a, q)
    groups, members, _ = a.shape
    lengths = np.sqrt(np.square(a).sum((0, 1)))[:, None] * np.sqrt(np.square(q).sum((0, 1)))[None]
    there = lengths > 0
    scale = np.where(there, lengths, 1.0)
    flat = np.ascontiguousarray(a.reshape(groups * members, -1).T)
    rho = flat @ q.reshape(groups * members, -1) / scale
    rng = generator(seed, "within")
    above, family = np.zeros(rho.shape), np.zeros(rho.shape)
    seen = np.abs(rho) - _SLACK
    for _ in range(permutations):
        order = rng.random((groups, members)).argsort(1)
        moved = np.take_along_axis(q, order[..., None], 1)
        null = np.abs(flat @ moved.reshape(groups * members, -1) / scale)
        above += null >= seen
        family += null.max() >= seen
    p, p_family = ((1.0 + count) / (1.0 + permutations) for count in (above, family))
    return Relations(
        rho=np.where(there, rho, 0.0), p=np.where(there, p, 1.0), p_family=np.where(there, p_family, 1.0),
        p_units=_units(a, q, there) if groups > 2 else None, permutations=permutations,
    )  # fmt: skip


def among(activations: Floats, quantities: Floats, *, permutations: int, seed: int) -> Relations:
    """Relate each instance's mean activation [instances, features] to its quantities [instances, quantities]."""
    return within(activations[None], quantities[None], permutations=permutations, seed=seed)


def ranked(values: Floats) -> Floats:
    """Rank [groups, members, columns] within each group, and centre the ranks there."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(values, axis=1)
    centred: Floats = ranks - (values.shape[1] + 1) / 2.0
    return centred


def beyond(given: Floats, *ranks: Floats) -> list[Floats]:
    """Return centred ranks less their fit to those of what is given, their squares and products."""
    base = ranked(given)
    columns = [base[..., i] for i in range(base.shape[2])]
    columns += [base[..., i] * base[..., j] for i in range(base.shape[2]) for j in range(i + 1)]
    known = np.stack([column - column.mean(1, keepdims=True) for column in columns], -1)
    flat = known.reshape(-1, known.shape[2])
    left = []
    for each in ranks:
        rows = each.reshape(-1, each.shape[2])
        fitted = flat @ np.linalg.lstsq(flat, rows, rcond=None)[0]
        rest = (rows - fitted).reshape(each.shape)
        # What is explained to the last digit leaves rounding, which has ranks of its own.
        spread = np.square(rest).sum((0, 1)) > 1e-10 * np.square(each).sum((0, 1))
        left.append(np.where(spread, rest, 0.0))
    return left


def _units(a: Floats, q: Floats, there: NDArray[np.bool_]) -> Floats:
    """Test each instance's share of the correlation for mean 0, instances as units."""
    from elute.base.statistics.effects import paired_effects

    shares = np.matmul(a.transpose(0, 2, 1), q)  # [groups, features, quantities]
    found = paired_effects(shares.reshape(len(shares), -1))
    p: Floats = np.where(there, found.p.reshape(there.shape), 1.0)
    return p
