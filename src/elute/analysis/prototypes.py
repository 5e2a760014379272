"""Reference samples of codes over a stream: RelMax and ActMax lists in bounded memory, mergeable.

RelMax ranks samples by how relevant a code was in them, ActMax by how strongly it fired (facts in docs: equation 17):

    sum   T = Σ_t over the sample's tokens         max   T = the largest (in the list −: the smallest) of a token

of relevance or activation. A list + holds the k largest T above 0, a list − the k smallest below 0; nothing pads them.
A sample stands in a list once; of equal T the lowest sample id comes first. So the lists depend on no order of the
rows, of the batches, or of the parts that were merged. `*_normed` divides T by the sum over codes of the sample's |T|.

For a linear head and a positive weight, RelMax that is not normed is in the order of ActMax and says nothing new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from elute.analysis.relevance_stream import SEPARATOR
from elute.base.compiled import compiled
from elute.base.errors import ConfigError, DataError, near
from elute.base.mergeable import Floats, Integers, as_numpy, positive

if TYPE_CHECKING:
    import polars as pl

KINDS = ("relmax", "actmax", "relmax_normed", "actmax_normed")
TARGETS = ("sum", "max")
SIGNS = ("+", "-")
_ARRAYS = ("scores", "places", "spots", "relevance", "activation")


class Candidates(NamedTuple):
    """Samples that may enter a list: one entry a pair of sample and code."""

    codes: Integers  # numbers of codes, as the network counts them
    scores: Floats  # above 0, also in lists −
    places: Integers  # into `names`
    spots: Any  # [n, 2] row and column of the strongest patch
    relevance: Floats
    activation: Floats


class References:
    """The k best samples of every code, list by list."""

    def __init__(self, codes: int | Sequence[int] | Integers, k: int = 20, *, kinds: Sequence[str] = KINDS[:2]) -> None:
        """Keep lists of codes 0 … n - 1, or of those that are named."""
        self.codes = np.arange(codes) if isinstance(codes, int) else np.unique(np.asarray(codes, dtype=np.int64))
        self.k, self.kinds = positive("k", k), tuple(kinds)
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"there is no list {kind!r} of references", remedy=near(kind, KINDS))
        self.lists = [(kind, target, sign) for kind in self.kinds for target in TARGETS for sign in SIGNS]
        shape = (len(self.lists), len(self.codes), self.k)
        self.scores = np.full(shape, -np.inf)
        self.places = np.full(shape, -1, np.int64)
        self.spots = np.full((*shape, 2), -1, np.int32)
        self.relevance, self.activation = np.zeros(shape), np.zeros(shape)
        self._names = np.zeros(0, np.str_)  # of places, ascending
        self._samples = np.zeros(0, np.str_)
        self._owner = np.zeros(0, np.int64)  # the sample of each place, by number
        self._settled = 0

    @property
    def names(self) -> list[str]:
        """The places that lists may name: samples, with their tiles where these are known."""
        return [str(name) for name in self._names.tolist()]

    def update(self, found: Mapping[tuple[str, str, str], Candidates], names: Sequence[str], /) -> None:
        """Take in candidates list by list; `names` are the places that they count."""
        taken: list[tuple[int, Integers, tuple[Any, ...]]] = []
        used = np.zeros(len(names), bool)
        for place, key in enumerate(self.lists):
            if key not in found:
                continue
            given = found[key]
            scores = np.asarray(given.scores, np.float64)
            if len(scores) and not (np.isfinite(scores).all() and scores.min() > 0):
                raise DataError("a score of a reference sample is not above 0")
            columns = np.searchsorted(self.codes, given.codes)
            known = columns < len(self.codes)
            known[known] = self.codes[columns[known]] == np.asarray(given.codes)[known]
            known[known] = scores[known] >= self.scores[place, columns[known], -1]
            each = tuple(as_numpy(part)[known] for part in given[1:])
            used[each[1]] = True
            taken.append((place, columns[known], each))
        mine, again = self._known(names, used)
        owner = self._owner if again else self._owner[:0]
        for place, columns, (score, places, spots, relevance, activation) in taken:
            held = tuple(getattr(self, name)[place] for name in _ARRAYS)
            at = np.ascontiguousarray(spots, np.int32)
            _take((columns, score, mine[places], at, relevance, activation), owner, held)

    def merge(self, other: References, /) -> None:
        """Take in what another one has seen."""
        if (other.k, other.kinds) != (self.k, self.kinds):
            raise DataError("references of other lists cannot be merged", remedy="Make both with the same settings.")
        if not np.array_equal(self.codes, other.codes):
            raise DataError("references of other codes cannot be merged", remedy="Make both with the same settings.")
        found = {}
        for i, key in enumerate(other.lists):
            columns, ranks = np.nonzero(other.places[i] >= 0)
            held = (getattr(other, name)[i][columns, ranks] for name in _ARRAYS)
            found[key] = Candidates(self.codes[columns], *held)
        self.update(found, other.names)

    def state(self) -> dict[str, Any]:
        """Return numpy arrays, numbers and strings from which the lists can go on."""
        self._compact()
        arrays = {name: getattr(self, name).copy() for name in ("codes", *_ARRAYS)}
        return {"statistic": "References", "k": self.k, "kinds": list(self.kinds), "names": self.names, **arrays}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], /) -> Self:
        """Go on from a state; lists stand for arrays."""
        if state.get("statistic") != "References":
            raise DataError(f"this is the state of {state.get('statistic')!r}, not of References")
        try:
            made = cls(np.asarray(state["codes"], np.int64), int(state["k"]), kinds=list(state["kinds"]))
            for name in _ARRAYS:
                fresh = getattr(made, name)
                given = np.array(state[name], dtype=fresh.dtype)
                if given.shape != fresh.shape:
                    raise DataError(f"{name} in the state of References is {given.shape}, not {fresh.shape}")
                setattr(made, name, given)
            names = [str(name) for name in state["names"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the state of References is not what it writes ({error})") from None
        ascending = all(a < b for a, b in pairwise(names))
        if not ascending or made.places.max(initial=-1) >= len(names) or made.places.min(initial=-1) < -1:
            raise DataError("the places in the state of References are not what it writes")
        made._names = np.array(names, dtype=np.str_)
        made._samples = np.array([_halves(name)[0] for name in names], dtype=np.str_)
        made._own()
        return made

    def result(self, codes: Integers | None = None) -> pl.DataFrame:
        """Return code, kind, target, sign, rank (from 1), sample, tile, row, col, relevance, activation and score."""
        import polars as pl

        wanted = np.arange(len(self.codes)) if codes is None else np.flatnonzero(np.isin(self.codes, codes))
        columns, lists, ranks = np.nonzero(self.places[:, wanted].transpose(1, 0, 2) >= 0)
        columns = wanted[columns]
        at = (lists, columns, ranks)
        halves = [_halves(name) for name in self.names]
        samples, tiles = [half[0] for half in halves], [half[1] for half in halves]
        named = self.places[at]
        keys = [pl.Series(_KEY[i], [key[i] for key in self.lists], dtype=pl.String)[lists] for i in range(3)]
        spots = self.spots[at]
        frame = pl.DataFrame(
            {
                "code": self.codes[columns].astype(np.int32),
                **dict(zip(_KEY, keys, strict=True)),
                "rank": (ranks + 1).astype(np.int32),
                "sample_id": pl.Series(samples, dtype=pl.String)[named],
                "tile_id": pl.Series(tiles, dtype=pl.String)[named],
                "row": spots[:, 0],
                "col": spots[:, 1],
                "relevance": self.relevance[at],
                "activation": self.activation[at],
                "score": self.scores[at],
            }
        )
        unknown = pl.col("row") < 0
        return frame.with_columns(pl.when(unknown).then(None).otherwise(pl.col(c)).alias(c) for c in ("row", "col"))

    def of(self, code: int, kind: str = "relmax", *, target: str = "sum", sign: str = "+") -> list[tuple[str, float]]:
        """Return the samples of one list with their scores, best first."""
        key = (kind, target, sign)
        if key not in self.lists:
            raise DataError(f"there is no list {key}", remedy=near(kind, self.kinds))
        column = int(np.searchsorted(self.codes, code))
        if column == len(self.codes) or self.codes[column] != code:
            raise DataError(f"there are no references of code {code}")
        i = self.lists.index(key)
        held = zip(self.places[i, column].tolist(), self.scores[i, column].tolist(), strict=True)
        return [(str(self._samples[place]), score) for place, score in held if place >= 0]

    def _known(self, names: Sequence[str], used: Any) -> tuple[Integers, bool]:
        """Number places as they are numbered here, new ones where they belong; and whether samples come again."""
        mine = np.full(len(names), -1, np.int64)
        at = np.flatnonzero(used)
        if not len(at):
            return mine, False
        if len(self._names) > 2 * self._settled + 100_000:
            self._compact()
        asked = np.array([names[i] for i in at.tolist()], dtype=np.str_)
        new = np.setdiff1d(asked, self._names)
        mine_too = np.array([_halves(name)[0] for name in asked.tolist()], dtype=np.str_)
        again = bool(np.isin(mine_too, self._samples).any())
        if len(new):
            kind = np.promote_types(self._names.dtype, new.dtype)
            before = np.searchsorted(self._names, new)
            shift = np.searchsorted(before, np.arange(len(self._names)), side="right")
            moved = np.append(np.arange(len(self._names)) + shift, -1)  # the last one: an empty place stays empty
            self.places = moved[self.places]
            self._names = np.insert(self._names.astype(kind), before, new)
            samples = np.array([_halves(name)[0] for name in new.tolist()], dtype=np.str_)
            kind = np.promote_types(self._samples.dtype, samples.dtype)
            self._samples = np.insert(self._samples.astype(kind), before, samples)
            self._own()
        mine[at] = np.searchsorted(self._names, asked)
        return mine, again

    def _compact(self) -> None:
        """Forget places that no list names any more."""
        left = np.unique(self.places)
        left = left[left >= 0]
        if len(left) < len(self._names):
            self.places = np.where(self.places >= 0, np.searchsorted(left, self.places), -1)
            self._names, self._samples = self._names[left], self._samples[left]
            self._own()
        self._settled = len(self._names)

    def _own(self) -> None:
        self._owner = np.cumsum(np.append(False, self._samples[1:] != self._samples[:-1]))[: len(self._samples)]


def _halves(name: str) -> tuple[str, str | None]:
    """The sample and the tile of a place."""
    sample, found, tile = name.partition(SEPARATOR)
    return sample, tile if found else None


_KEY = ("kind", "target", "sign")


@compiled
def _take(given: Any, owner: Any, into: Any) -> None:
    """Put each candidate where it belongs in the list of its column; a sample that is there keeps its better one."""
    columns, scores, places, spots, relevance, activation = given
    held, held_at, held_spots, held_relevance, held_activation = into
    k = held.shape[1]
    twice = owner.shape[0] > 0  # whether a sample may stand in a list already
    for i in range(columns.shape[0]):
        c, s, p = columns[i], scores[i], places[i]
        rank, end = 0, k
        while rank < end:
            middle = (rank + end) // 2
            better = held[c, middle] > s or (held[c, middle] == s and held_at[c, middle] < p)
            rank, end = (middle + 1, end) if better else (rank, middle)
        last = k - 1  # what is moved down ends here: at the last place, or at the sample's own worse entry
        if twice:
            for j in range(k):
                if held_at[c, j] >= 0 and owner[held_at[c, j]] == owner[p]:
                    last = j
                    break
        if rank > last:
            continue
        for j in range(last, rank, -1):
            held[c, j], held_at[c, j] = held[c, j - 1], held_at[c, j - 1]
            held_relevance[c, j], held_activation[c, j] = held_relevance[c, j - 1], held_activation[c, j - 1]
            held_spots[c, j, 0], held_spots[c, j, 1] = held_spots[c, j - 1, 0], held_spots[c, j - 1, 1]
        held[c, rank], held_at[c, rank] = s, p
        held_relevance[c, rank], held_activation[c, rank] = relevance[i], activation[i]
        held_spots[c, rank, 0], held_spots[c, rank, 1] = spots[i, 0], spots[i, 1]
