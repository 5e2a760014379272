"""Which planted features fire together: for each kind how often each feature fires, and a draw of a chunk of rows.

- **independent**: `active` draws a row from all features, whose shares fall as rank^-zipf, feature 0's being largest; a
  feature drawn twice fires once, so that slightly fewer fire (11.8 of 12 at the default sizes).
- **coins**: each feature by itself with such probabilities, scaled to `active`; how many fire differs between rows.
- **hierarchy**: 1/16 of the features are parents, of which active/4 fire in a row; each of a firing parent's 8 children
  (1/2 of all features) fires with p ⅛, one on average. The rest stand in blocks of 8: a block is on in some rows, and
  there each of its members fires with p ½. Blocks make up for what is missing to `active`.
- **blocks**: the same, but exactly one child of a firing parent fires, and members of a block that is on with p 0.8.
  The sum of a parent and its child, or of a block, is then a tempting feature: the kind that separates recipes.
- **synth**: SynthSAEBench (Chanin & Garriga-Alonso, arXiv 2602.14687) scaled from 16,384 features down to `n_features`.
  As there: two thirds stand in trees of branching 4 and depth 3, where a child fires only with its parent and never
  with a sibling; roots and features outside the trees have Zipf probabilities of at most 0.4 and fire together through
  a Gaussian copula of rank 25 and scale 0.1, which makes correlated pairs of either sign. Other than there: a child's
  probability follows from its parent's (one child fires with p 0.8, siblings are Zipf among themselves) instead of
  being set beforehand; coefficients and noise are those of the other kinds; directions are not spread apart.

Draws cost what fires, not rows × features, wherever features are independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

Kind = Literal["independent", "coins", "hierarchy", "blocks", "synth"]

CHUNK = 4096  # rows of one random stream: part of what a seed means
_FAMILY = 8  # children of a parent, members of a block
_BRANCHES, _DEPTH, _DESCENDS = 4, 3, 0.8  # of the trees of "synth"
_RANK, _SCALE = 25, 0.1  # of its correlations


class Design(NamedTuple):
    """How features fire: how often, and a draw of one chunk's firings as unordered keys row · n_features + feature."""

    frequencies: Floats
    draw: Callable[[np.random.Generator], Integers]


def design(kind: Kind, n_features: int, *, active: float, zipf: float, rng: np.random.Generator) -> Design:
    """Lay down how features fire; what the kind leaves open is drawn from `rng`."""
    if kind in ("independent", "coins"):
        return (_draws if kind == "independent" else _tosses)(n_features, active, zipf)
    if kind == "synth":
        return _trees(n_features, active, zipf, rng)
    return _families(n_features, active, one_child=kind == "blocks")


def _draws(T: int, active: float, zipf: float) -> Design:
    """Draw as many features a row as are active, each time from all of them."""
    import numpy as np

    times, shares = round(active), _zipf(T, zipf)
    shares /= shares.sum()
    edges = shares.cumsum()[:-1]

    def draw(rng: np.random.Generator) -> Integers:
        features = np.searchsorted(edges, rng.random(CHUNK * times), side="right")
        keys = np.sort(np.repeat(np.arange(CHUNK) * T, times) + features)
        return np.asarray(keys[np.diff(keys, prepend=-1) > 0], dtype=np.int64)

    return Design(1 - (1 - shares) ** times, draw)


def _tosses(T: int, active: float, zipf: float) -> Design:
    """Toss a coin for each feature in each row."""
    import numpy as np

    p = _scaled(_zipf(T, zipf), np.ones(T), total=active, most=0.5)

    def draw(rng: np.random.Generator) -> Integers:
        rows, features = _coins(rng, p)
        return rows * T + features

    return Design(p, draw)


def _families(T: int, active: float, *, one_child: bool) -> Design:
    """Parents, then their children, then blocks."""
    import numpy as np

    together = 0.8 if one_child else 0.5
    parents = T // 16
    firing = max(1, round(active / 4))
    first = parents * (1 + _FAMILY)  # of the blocks
    blocks = (T - first) // _FAMILY
    on = (active - 2 * firing) / (blocks * _FAMILY * together)

    def draw(rng: np.random.Generator) -> Integers:
        order = rng.random((CHUNK, parents), dtype=np.float32)
        chosen = np.argpartition(order, firing, axis=1)[:, :firing].reshape(-1)
        rows = np.repeat(np.arange(CHUNK), firing) * T
        if one_child:
            children = rows + parents + chosen * _FAMILY + rng.integers(0, _FAMILY, len(chosen))
        else:
            pair, child = (rng.random((len(chosen), _FAMILY), dtype=np.float32) < 1 / _FAMILY).nonzero()
            children = rows[pair] + parents + chosen[pair] * _FAMILY + child
        block_rows, block = _coins(rng, np.full(blocks, on))
        pair, member = (rng.random((len(block), _FAMILY), dtype=np.float32) < together).nonzero()
        members = block_rows[pair] * T + first + block[pair] * _FAMILY + member
        return np.concatenate([rows + chosen, children, members])

    sizes = [parents, parents * _FAMILY, blocks * _FAMILY]
    p = np.array([firing / parents, firing / parents / _FAMILY, on * together])
    return Design(np.repeat(p, sizes), draw)


def _trees(T: int, active: float, zipf: float, rng: np.random.Generator) -> Design:
    """Roots, then features outside the trees, then the trees level by level."""
    import numpy as np
    from scipy.special import ndtri

    roots = T // 128
    levels = [roots * _BRANCHES**depth for depth in range(_DEPTH + 1)]
    bases = T - sum(levels[1:])
    below = np.where(np.arange(bases) < roots, sum(_DESCENDS**depth for depth in range(_DEPTH + 1)), 1.0)
    p = _scaled(_zipf(bases, zipf), below, total=active, most=0.4)
    heir = _zipf(_BRANCHES, zipf)
    heir /= heir.sum()
    loads = (rng.standard_normal((_RANK, bases)) * _SCALE).astype(np.float32)
    loads *= np.minimum(1, np.sqrt(0.9 / np.square(loads).sum(0)))  # keeps some of each feature its own
    own = np.sqrt(1 - np.square(loads).sum(0))
    marks = (ndtri(1 - p) / own).astype(np.float32)
    loads /= own
    frequencies = [p, _DESCENDS * np.outer(p[:roots], heir).reshape(-1)]
    for _ in range(_DEPTH - 1):
        frequencies.append(_DESCENDS * np.outer(frequencies[-1], heir).reshape(-1))

    def draw(rng: np.random.Generator) -> Integers:
        shared = rng.standard_normal((CHUNK, _RANK), dtype=np.float32)
        latent = rng.standard_normal((CHUNK, bases), dtype=np.float32)
        latent += shared @ loads
        rows, features = np.divmod((latent > marks).reshape(-1).nonzero()[0], bases)
        keys = [rows * T + features]
        rows, nodes = rows[features < roots], features[features < roots]  # nodes are numbered within their level
        first = bases
        for size in levels[1:]:
            goes_on = rng.random(len(nodes)) < _DESCENDS
            rows, nodes = rows[goes_on], nodes[goes_on]
            nodes = nodes * _BRANCHES + np.searchsorted(heir.cumsum()[:-1], rng.random(len(nodes)), side="right")
            keys.append(rows * T + first + nodes)
            first += size
        return np.concatenate(keys)

    return Design(np.concatenate(frequencies), draw)


def _zipf(n: int, exponent: float) -> Floats:
    import numpy as np

    return np.asarray(np.arange(1, n + 1) ** -exponent, dtype=np.float64)


def _coins(rng: np.random.Generator, p: Floats) -> tuple[Integers, Integers]:
    """Toss each coin once a row of a chunk; return rows and coins of the heads.

    Points of a Poisson process fall at a rate of -log(1 - p) a row, and a row that any hit is heads: with probability
    p, and independent of all others, at the cost of the heads alone.
    """
    import numpy as np

    points = rng.poisson(-np.log1p(-p) * CHUNK)
    coins = np.repeat(np.arange(len(p)), points)
    keys = np.sort(coins * CHUNK + rng.integers(0, CHUNK, len(coins)))
    coins, rows = np.divmod(keys[np.diff(keys, prepend=-1) > 0], CHUNK)
    return rows, coins


def _scaled(shares: Floats, weights: Floats, *, total: float, most: float) -> Floats:
    """Scale shares, capped at `most`, so that their weighted sum is the total."""
    import numpy as np

    low, high = 0.0, most / float(shares.min())
    for _ in range(100):
        middle = (low + high) / 2
        enough = float(weights @ np.minimum(most, middle * shares)) >= total
        low, high = (low, middle) if enough else (middle, high)
    return np.asarray(np.minimum(most, high * shares), dtype=np.float64)
