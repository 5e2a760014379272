"""The rules by which a layer of a head hands relevance back to what it read, in float64.

A layer gave z_j = Σ_i w_ji a_i + b_j and holds relevance R_j; layer-wise relevance propagation (LRP) gives of it
R_{i←j} = (z_ij / z_j) · R_j to input i. The rules differ in z_ij and in what keeps the quotient finite:

    epsilon   z_ij = w_ji a_i                          / (z_j + ε·sign(z_j)), where sign(0) = +1
    zplus     the positive of z_ij                     / (their sum + the positive bias + ε)
    gamma     z_ij with what agrees with the sign of   / (their sum with b_j treated alike ± ε)
              z_j counted 1 + γ times
    flat      1 for each input                         / (their number + ε); for the encoder alone

All but `flat` are a_i times a factor that depends on the sign of a_i alone. So they come back as factors, and relevance
can be spread over tokens where a_i is a sum that nearly cancels, without dividing by it. What a rule keeps is counted:
the bias's share and the residual of ε, so that Σ_i R_i + bias + residual = Σ_j R_j.

Montavon et al., "Layer-Wise Relevance Propagation: An Overview" (2019); the rule γ for signed activations is the one
that treats positive and negative outputs alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from elute.base.errors import ConfigError, near
from elute.base.mergeable import Floats, Integers

Name = Literal["epsilon", "gamma", "zplus", "flat"]
EPSILON = 1e-9
_DENSE = 1 << 22  # numbers of a dense piece


@dataclass(frozen=True)
class Rule:
    """One rule and its numbers."""

    name: Name = "epsilon"
    epsilon: float = EPSILON
    gamma: float = 0.25

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise ConfigError(f"there is no rule {self.name!r}", remedy=near(str(self.name), get_args(Name)))
        if not 0 <= self.epsilon < np.inf or not 0 <= self.gamma < np.inf:
            raise ConfigError(f"epsilon={self.epsilon} and gamma={self.gamma}", remedy="Give finite numbers from 0 on.")


@dataclass(frozen=True)
class Rules:
    """A rule for every layer of the head, and one for the step from codes down to the embedding."""

    head: Rule = Rule()
    encoder: Rule = Rule()
    pool: float = 0.0  # ε beside a pooled code: none is needed here, other programs have one

    def __post_init__(self) -> None:
        if self.head.name == "flat":
            raise ConfigError(
                "the rule 'flat' is for the encoder alone", remedy="Give the head epsilon, gamma or zplus."
            )
        if self.encoder.name not in ("epsilon", "flat"):
            what = f"the encoder cannot take the rule {self.encoder.name!r}"
            raise ConfigError(what, remedy="Choose epsilon or flat: codes that are kept are linear in the embedding.")
        if not 0 <= self.pool < np.inf:
            raise ConfigError(f"pool={self.pool}", remedy="Give a finite number from 0 on.")


_NAMED: dict[str, Rules] = {
    "epsilon": Rules(),
    "gamma": Rules(Rule("gamma")),
    "zplus": Rules(Rule("zplus")),
    "epsilon_flat": Rules(Rule(), Rule("flat")),
}


EXACT = Rule("epsilon", 0.0)


def rules_of(asked: str | Rule | Rules, *, linear: bool = False) -> Rules:
    """Read rules: a name (epsilon, gamma, zplus, epsilon_flat), one for the head, or one for each part.

    The named rule epsilon is the limit of no ε for a linear head, where nothing is divided by.
    """
    if isinstance(asked, Rules):
        return asked
    if isinstance(asked, Rule):
        return Rules(asked)
    if asked not in _NAMED:
        raise ConfigError(f"there is no rule {asked!r}", remedy=near(str(asked), _NAMED))
    named = _NAMED[asked]
    return replace(named, head=EXACT) if linear and named.head == Rule() else named


class Dense(NamedTuple):
    """A linear layer: its path in the network, its weight [out, in] and its bias [out]."""

    path: str
    weight: Floats
    bias: Floats

    def forward(self, a: Any) -> Floats:
        """Return what the layer gives for rows, sparse or dense."""
        given: Floats = np.asarray(a @ self.weight.T) + self.bias
        return given

    def only(self, outputs: Integers) -> Dense:
        """Return the layer with some of its outputs."""
        return Dense(self.path, self.weight[outputs], self.bias[outputs])


Term = tuple[Floats, Floats]  # s [rows, out] and W [out, in]: the factors are s @ W


class Handed(NamedTuple):
    """Factors for positive and for negative inputs, as sums of products; and what did not reach any input."""

    plus: tuple[Term, ...]
    minus: tuple[Term, ...]
    bias: Floats  # [rows]
    epsilon: Floats  # [rows] what ε took, and what had no product to go to

    def to_dense(self, a: Floats) -> Floats:
        """Return the relevance of dense inputs [rows, in]."""
        relevance: Floats = np.maximum(a, 0) * _sum(self.plus) + np.minimum(a, 0) * _sum(self.minus)
        return relevance

    def at(self, rows: Integers, columns: Integers, positive: Any) -> Floats:
        """Return the factors of some inputs, rows ascending; `positive` says of each which sign it has."""
        if len(self.plus) == 1 and self.plus[0][1] is self.minus[0][1]:
            return _at(self.plus, rows, columns)
        factors: Floats = np.where(positive, _at(self.plus, rows, columns), _at(self.minus, rows, columns))
        return factors


def hand_back(rule: Rule, layer: Dense, a: Any, *, out: Floats, relevance: Floats) -> Handed:
    """Hand relevance [rows, out] of a layer back to its inputs `a` [rows, in]; `out` is what it gave (equation 7)."""
    ways: dict[str, Callable[..., Handed]] = {"epsilon": _epsilon, "gamma": _gamma, "zplus": _zplus}
    return ways[rule.name](rule, layer, a, out, relevance)


def sign(z: Any) -> Any:
    """Return the sign of numbers, +1 for 0."""
    return np.where(np.asarray(z) >= 0, 1.0, -1.0)


def shares(relevance: Floats, z: Floats, epsilon: float) -> tuple[Floats, Floats]:
    """Return R / (z ± ε), and what ε takes of R; where both are 0 all of R is taken."""
    below = z + epsilon * sign(z)
    s = np.divide(relevance, below, out=np.zeros_like(below), where=below != 0)
    return s, np.where(below != 0, s * epsilon * sign(z), relevance)


def _epsilon(rule: Rule, layer: Dense, _a: Any, out: Floats, relevance: Floats) -> Handed:
    s, lost = shares(relevance, out, rule.epsilon)
    term = ((s, layer.weight),)
    return Handed(term, term, s @ layer.bias, lost.sum(1))


def _zplus(rule: Rule, layer: Dense, a: Any, out: Floats, relevance: Floats) -> Handed:
    del out
    up, down = np.maximum(layer.weight, 0), np.minimum(layer.weight, 0)
    high, low = _parts(a)
    bias = np.maximum(layer.bias, 0)
    s, lost = shares(relevance, np.asarray(high @ up.T) + np.asarray(low @ down.T) + bias, rule.epsilon)
    return Handed(((s, up),), ((s, down),), s @ bias, lost.sum(1))


def _gamma(rule: Rule, layer: Dense, a: Any, out: Floats, relevance: Floats) -> Handed:
    up = layer.weight + rule.gamma * np.maximum(layer.weight, 0)
    down = layer.weight + rule.gamma * np.minimum(layer.weight, 0)
    high, low = _parts(a)
    told = []
    for agreeing, opposed, bias, mine in (
        (up, down, layer.bias + rule.gamma * np.maximum(layer.bias, 0), out > 0),
        (down, up, layer.bias + rule.gamma * np.minimum(layer.bias, 0), out < 0),
    ):
        z = np.asarray(high @ agreeing.T) + np.asarray(low @ opposed.T) + bias
        told.append((*shares(np.where(mine, relevance, 0), z, rule.epsilon), bias))
    (sp, lost_p, bias_p), (sn, lost_n, bias_n) = told
    nowhere = np.where(out == 0, relevance, 0)
    return Handed(
        ((sp, up), (sn, down)),
        ((sp, down), (sn, up)),
        sp @ bias_p + sn @ bias_n,
        (lost_p + lost_n + nowhere).sum(1),
    )


def _parts(a: Any) -> tuple[Any, Any]:
    """The positive and the negative part of inputs, sparse or dense."""
    if isinstance(a, np.ndarray):
        return np.maximum(a, 0), np.minimum(a, 0)
    high, low = a.copy(), a.copy()
    high.data, low.data = np.maximum(a.data, 0), np.minimum(a.data, 0)
    return high, low


def _sum(terms: tuple[Term, ...]) -> Floats:
    total: Floats = sum((s @ weight for s, weight in terms), np.zeros(()))
    return total


def _at(terms: tuple[Term, ...], rows: Integers, columns: Integers) -> Floats:
    """Entries of a sum of products, by whole rows where that is cheaper than entry by entry."""
    factors = np.zeros(len(rows))
    for s, weight in terms:
        out, width = weight.shape
        if out <= 2:
            for j in range(out):
                factors += s[rows, j] * weight[j, columns]
            continue
        step = max(1, _DENSE // width)
        for first in range(0, len(s), step):
            a, b = np.searchsorted(rows, (first, first + step))
            if a < b:
                factors[a:b] += (s[first : first + step] @ weight)[rows[a:b] - first, columns[a:b]]
    return factors
