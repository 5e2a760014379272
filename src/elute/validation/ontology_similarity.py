"""How alike terms are, and profiles of terms: a feature's phenotypes against those of every disease.

1. Resnik: the information of the most informative term above both (or one of them). Lin: twice that over the sum of
   theirs; 0 where both say nothing. Of ancestors that say the same the deepest stands for them.
2. Best-match average of two profiles: each term's best match in the other profile, averaged over one profile and over
   the other, and the two means averaged.
3. All diseases at once: for each term of a profile one walk down the branch gives its likeness to every term, from
   which its best match in every disease follows; these are kept, so that any number of profiles costs sums alone.
4. Null: random profiles with as many terms (profile_null.py), from a pool that is by default the diseases' terms. For
   each disease p, so that diseases of many terms gain nothing, and p_any, corrected over the diseases.
   Terms that came up together are more alike than terms drawn apart, so these p rank diseases and are too small to
   count by: whether features find more than chance, the profiles of control lists have to say, scored in the same way.

P. Resnik, IJCAI 1995; D. Lin, ICML 1998; S. Köhler et al., Am. J. Hum. Genet. 85, 2009, for the null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from elute.base.compiled import compiled, over
from elute.base.errors import DataError
from elute.base.statistics.checks import Floats, Ints, at_least, choice
from elute.validation.ontology import matrix
from elute.validation.profile_null import against_random

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.ontology import Branch

Scores = NDArray[np.float32]
Measure = Literal["resnik", "lin"]
MEASURES = ("resnik", "lin")
_WIDTH = 32  # terms or profiles that a kernel handles side by side
_TOGETHER = 2048  # profiles of a size whose p-values are held at a time


@dataclass(frozen=True, eq=False)
class Profiles:
    """Named sets of terms of a branch; what could not be used is counted."""

    names: tuple[str, ...]
    terms: sparse.csr_array  # [profiles, terms]
    empty: tuple[str, ...]  # had no term of the branch, and are left out
    lost: dict[str, int]  # terms that count nowhere here, by the reason


@dataclass(frozen=True, eq=False)
class Matches:
    """The likeness of each profile to each disease [profiles, diseases], with its null where one was drawn."""

    profiles: tuple[str, ...]
    diseases: tuple[str, ...]
    score: Scores
    p: Floats | None
    p_any: Floats | None
    """The chance that a random profile stands out as much for any of the diseases."""
    null_mean: Scores | None
    draws: int

    def table(self, best: int = 10) -> pl.DataFrame:
        """Return each profile's best diseases, by p_any and p where there are, by score, then as they were given."""
        import polars as pl

        keys = [each for each in (-self.score, self.p, self.p_any) if each is not None]
        order = np.lexsort(keys, axis=1)[:, :best]
        columns: dict[str, Any] = {
            "profile": [name for name in self.profiles for _ in range(order.shape[1])],
            "disease": [self.diseases[i] for i in order.ravel().tolist()],
        }
        known = {"score": self.score, "null_mean": self.null_mean, "p": self.p, "p_any": self.p_any}
        found = {name: np.take_along_axis(each, order, 1).ravel() for name, each in known.items() if each is not None}
        return pl.DataFrame(columns | found)


def profiles(branch: Branch, given: Mapping[str, Iterable[str]]) -> Profiles:
    """Turn named terms into profiles; ids of old become those of now, and what is not in the branch falls out."""
    rows: dict[str, list[int]] = {}
    lost = {"term unknown": 0, "term elsewhere": 0}
    for name, terms in given.items():
        now = [branch.ontology.current(term) for term in dict.fromkeys(terms)]
        rows[name] = sorted({branch.place[term] for term in now if term in branch.place})
        lost["term unknown"] += now.count(None)
        lost["term elsewhere"] += sum(term is not None and term not in branch.place for term in now)
    used = {name: at for name, at in rows.items() if at}
    held = matrix(list(used.values()), len(branch.terms))
    return Profiles(tuple(used), held, tuple(name for name in rows if name not in used), lost)


def similarity(branch: Branch, first: Iterable[str], second: Iterable[str], *, measure: Measure = "resnik") -> Floats:
    """Return how alike each of some terms is to each of others [first, second]."""
    choice(measure, MEASURES, "similarity(measure)")
    a, b = branch.find(first), branch.find(second)
    shared: Floats = branch.information[_common(branch, a)[:, b]]
    both = branch.information[a][:, None] + branch.information[b]
    return shared if measure == "resnik" else np.where(both > 0, 2.0 * shared / np.where(both > 0, both, 1.0), 0.0)


def common_ancestor(branch: Branch, first: str, second: str) -> str:
    """Return the most informative term above two terms; it may be one of them."""
    a, b = branch.find([first, second])
    return branch.terms[int(_common(branch, np.array([a]))[0, b])]


def best_match_average(
    branch: Branch, first: Iterable[str], second: Iterable[str], *, measure: Measure = "resnik"
) -> float:
    """Return how alike two profiles are."""
    alike = similarity(branch, first, second, measure=measure)
    if not alike.size:
        raise DataError("a profile has no terms", where="best_match_average", remedy="Give at least one each.")
    return float((alike.max(axis=1).mean() + alike.max(axis=0).mean()) / 2.0)


def match(
    branch: Branch,
    given: Profiles,
    diseases: Profiles,
    *,
    measure: Measure = "resnik",
    draws: int = 0,
    pool: Iterable[str] | None = None,
    seed: int = 0,
) -> Matches:
    """Score each profile against each disease by their best-match average; with `draws` also against random ones.

    Of t terms (those of the profiles, with a null also of its pool) and d diseases about 8·t·d bytes are held.
    """
    parts = list(match_in_parts(branch, given, diseases, measure=measure, draws=draws, pool=pool, seed=seed))
    back = np.argsort(np.concatenate([which for which, _ in parts]), kind="stable")

    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for _, part in parts])[back] if draws else None

    score: Scores = np.concatenate([part.score for _, part in parts])[back]
    told = {name: joined(name) for name in ("p", "p_any", "null_mean")}
    return Matches(given.names, diseases.names, score, draws=draws, **told)


def match_in_parts(
    branch: Branch,
    given: Profiles,
    diseases: Profiles,
    *,
    measure: Measure = "resnik",
    draws: int = 0,
    pool: Iterable[str] | None = None,
    seed: int = 0,
) -> Iterator[tuple[Ints, Matches]]:
    """Yield the same by profiles of one size, 2,048 at most, with their places: for more of them than fit in memory."""
    choice(measure, MEASURES, "match(measure)")
    at_least(draws, 0, "match(draws)")
    if not (len(given.names) and len(diseases.names)):
        raise DataError("there is nothing to compare", where="match", remedy="Give a profile and a disease with terms.")
    sizes, drawn = np.diff(given.terms.indptr), np.zeros(0, dtype=np.int64)
    if draws:
        drawn = np.unique(diseases.terms.indices if pool is None else branch.find(pool)).astype(np.int64)
        if len(drawn) < sizes.max():
            what = f"has {len(drawn)} terms, and a profile {sizes.max()}"
            raise DataError(what, where="match(pool)", remedy="Give more terms.")
    table = _likeness(branch, np.union1d(given.terms.indices, drawn).astype(np.int64), diseases, measure=measure)
    for size in np.unique(sizes).tolist():
        same = np.flatnonzero(sizes == size)
        for which in np.split(same, range(_TOGETHER, len(same), _TOGETHER)):
            some = given.terms[which]
            score, names = table.score(some.indptr, some.indices), tuple(given.names[i] for i in which.tolist())
            if not draws:
                yield which, Matches(names, diseases.names, score, None, None, None, 0)
                continue
            null = against_random(table.score, score, drawn, size=size, draws=draws, seed=seed)
            yield which, Matches(names, diseases.names, score, null.p, null.p_any, null.mean, draws)


@dataclass(frozen=True, eq=False)
class _Likeness:
    """Of some terms: how alike each is to every term of a disease, and its best match in every disease."""

    place: Ints  # [terms of the branch]: where a term stands here, or −1
    alike: Scores  # [terms here, terms of diseases]
    best: Scores  # [terms here, diseases]
    ends: Ints  # of each disease's terms
    members: Ints  # places among the terms of diseases

    def score(self, ends: Any, terms: Any) -> Scores:
        """Return the best-match averages of profiles, given as the ends of their rows and their terms."""
        result, ends = np.zeros((len(ends) - 1, len(self.ends) - 1), dtype=np.float32), ends.astype(np.int64)
        known = (self.alike, self.best, self.ends, self.members)
        over(-(-len(result) // _WIDTH), _average, ends, self.place[terms], known, result)
        return result


def _likeness(branch: Branch, terms: Ints, diseases: Profiles, *, measure: Measure) -> _Likeness:
    used, members = np.unique(diseases.terms.indices, return_inverse=True)
    ends, members = diseases.terms.indptr.astype(np.int64), members.astype(np.int64)
    alike = np.empty((len(terms), len(used)), dtype=np.float32)
    best = np.empty((len(terms), len(diseases.names)), dtype=np.float32)
    content = branch.information.astype(np.float32)
    sums = content if measure == "lin" else np.zeros(0, dtype=np.float32)
    shape, order = _shape(branch)
    over(-(-len(terms) // _WIDTH), _compare, terms, shape, (content[order], sums, used, ends, members), alike, best)
    place = np.full(len(branch.terms), -1, dtype=np.int64)
    place[terms] = np.arange(len(terms))
    return _Likeness(place, alike, best, ends, members)


def _shape(branch: Branch) -> tuple[tuple[Ints, ...], Ints]:
    """Return the branch as a kernel wants it, and the terms from the least informative to the most."""
    # Down the branch neither information nor place falls, so the largest rank is the most informative, then deepest.
    order = np.lexsort((np.arange(len(branch.terms)), branch.information))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    links = (branch.above.indptr, branch.above.indices, branch.parents.indptr, branch.parents.indices)
    return (rank, *(each.astype(np.int64) for each in links)), order


def _common(branch: Branch, terms: Ints) -> Ints:
    """Return the most informative common ancestor of some terms and of every term [terms, all terms]."""
    shape, order = _shape(branch)
    ranks = np.empty((len(order), len(terms)), dtype=np.int32)
    _walk(terms, shape, ranks)
    return order[ranks.T]


@compiled  # of rows, which lie in one piece: only so are the loops turned into wide instructions
def _raise(values: Any, others: Any) -> None:
    for i in range(values.shape[0]):
        values[i] = max(values[i], others[i])


@compiled
def _add(values: Any, others: Any, factor: Any) -> None:
    for i in range(values.shape[0]):
        values[i] += factor * others[i]


@compiled
def _walk(terms: Any, shape: Any, ranks: Any) -> None:
    """Find the rank of the most informative common ancestor of each term of the branch and of some [all, some]."""
    rank, up, above, ends, parents = shape
    ranks[:] = 0
    for i in range(terms.shape[0]):
        for at in range(up[terms[i]], up[terms[i] + 1]):
            ranks[above[at], i] = rank[above[at]]
    for term in range(ranks.shape[0]):  # its parents come before it, and none of theirs has a larger rank than it
        for at in range(ends[term], ends[term + 1]):
            _raise(ranks[term], ranks[parents[at]])


@compiled
def _compare(terms: Any, shape: Any, known: Any, alike: Any, best: Any, low: int, high: int) -> None:
    """Compare terms with those of diseases, a block of terms at a time, side by side in memory."""
    content, sums, used, ends, members = known
    for start in range(low * _WIDTH, min(high * _WIDTH, terms.shape[0]), _WIDTH):
        some = terms[start : start + _WIDTH]
        n = some.shape[0]
        ranks = np.empty((shape[0].shape[0], n), dtype=np.int32)
        _walk(some, shape, ranks)
        part = np.empty((used.shape[0], n), dtype=np.float32)
        for other in range(used.shape[0]):
            for i in range(n):
                value = content[ranks[used[other], i]]
                if sums.shape[0]:
                    both = sums[some[i]] + sums[used[other]]
                    value = np.float32(2) * value / both if both > 0 else np.float32(0)
                part[other, i] = value
        alike[start : start + n] = part.T
        largest = np.zeros((best.shape[1], n), dtype=np.float32)
        for disease in range(best.shape[1]):
            for at in range(ends[disease], ends[disease + 1]):
                _raise(largest[disease], part[members[at]])
        best[start : start + n] = largest.T


@compiled
def _average(ends: Any, rows: Any, known: Any, result: Any, low: int, high: int) -> None:
    """Score profiles: the mean best match of their terms, and that of each disease's terms, averaged."""
    alike, best, stops, members = known
    for start in range(low * _WIDTH, min(high * _WIDTH, result.shape[0]), _WIDTH):
        own = result[start : start + _WIDTH]
        nearest = np.zeros((own.shape[0], alike.shape[1]), dtype=np.float32)
        for i in range(own.shape[0]):
            first, last = ends[start + i], ends[start + i + 1]
            for at in range(first, last):
                _raise(nearest[i], alike[rows[at]])
                _add(own[i], best[rows[at]], np.float32(0.5) / np.float32(last - first))
        across = nearest.T.copy()
        theirs = np.zeros((best.shape[1], own.shape[0]), dtype=np.float32)
        for disease in range(best.shape[1]):
            first, last = stops[disease], stops[disease + 1]
            for at in range(first, last):
                _add(theirs[disease], across[members[at]], np.float32(0.5) / np.float32(last - first))
        own += theirs.T
