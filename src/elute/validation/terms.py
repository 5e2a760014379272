"""Terms of a database as sets of genes over a background, and lists of genes over the same one.

1. Rows with too little evidence go; then each term is cut to the background; then, and only then, its size is looked
   at. A term of 900 genes of which 8 could have come up is a term of 8.
2. Terms with the same genes after the cut are kept and counted as tests, each marked with the first of them: a
   database says the same under two names more often than one thinks.
3. What was dropped, and why, is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from elute.base.console import count
from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import Ints, at_least
from elute.validation.background import Background, mismatch

if TYPE_CHECKING:
    from typing import Any

NEEDED = ("term", "label", "group", "gene", "score")
WEAK, EMPTY, SMALL, LARGE = "too little evidence", "no gene in the background", "too small", "too large"


@dataclass(frozen=True, eq=False)
class Terms:
    """Sets of genes as rows of 0 and 1, one a term, over the genes of a background."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str | None, ...]
    members: csr_array[Any]  # int8 [terms, genes], indices sorted
    background: Background
    source: str
    """Database and version: "Reactome 2025.06"."""
    dropped: dict[str, int]
    """Terms that were left out: too little evidence, no gene in the background, too small, too large."""
    same_as: Ints
    """The first term with the same genes; −1 for that one itself, and for terms that are like no other."""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sizes(self) -> Ints:
        """Genes a term."""
        return np.diff(self.members.indptr).astype(np.int64)

    def told(self) -> str:
        """Say in one line how many terms there are and how many were left out."""
        left_out = ", ".join(f"{n:,} {why}" for why, n in self.dropped.items() if n)
        alike = int((self.same_as >= 0).sum())
        text = f"{count(len(self), 'term')} of {self.source}"
        return text + (f", {alike:,} the same as another" if alike else "") + (f"; {left_out}" if left_out else "")


class Lists(NamedTuple):
    """Lists of genes as rows of 0 and 1, and the names of each that are not in the background."""

    members: csr_array[Any]  # int8 [lists, genes], indices sorted
    lost: tuple[tuple[str, ...], ...]


def term_sets(
    table: pl.DataFrame,
    background: Background,
    *,
    source: str,
    smallest: int = 5,
    largest: int = 2000,
    least_score: float | None = None,
) -> Terms:
    """Return the terms of a table (term, label, group, gene, score) whose genes are named as the background's.

    A term of two groups is of none. With `least_score` rows below it, or without a score, are no evidence.
    """
    if lacking := [name for name in NEEDED if name not in table.columns]:
        raise DataError(f"the table of associations has no column {lacking[0]!r}", where=source)
    if at_least(smallest, 1, "smallest") > largest:
        raise ConfigError(f"no term has at least {smallest} and at most {largest} genes", where="smallest, largest")
    rows = table.filter(pl.col("term").is_not_null() & pl.col("gene").is_not_null())
    named = (
        rows.group_by("term")
        .agg(
            label=pl.col("label").drop_nulls().first(),
            group=pl.when(pl.col("group").n_unique() == 1).then(pl.col("group").first()),
        )
        .sort("term")
        .with_row_index("row")
    )
    strong = rows if least_score is None else _strong(rows, least_score, source)
    genes = pl.DataFrame({"gene": background.genes}, schema={"gene": pl.String}).with_row_index("place")
    cells = (
        strong.select("term", "gene")
        .join(named.select("term", "row"), on="term")
        .join(genes, on="gene")
        .select("row", "place")
        .unique()
        .sort("row", "place")
    )
    sizes = np.bincount(cells["row"].to_numpy(), minlength=len(named))
    evident = named["term"].is_in(strong["term"].unique().to_list()).to_numpy()
    kept = (sizes >= smallest) & (sizes <= largest)
    dropped = {
        WEAK: int((~evident).sum()),
        EMPTY: int((evident & (sizes == 0)).sum()),
        SMALL: int(((sizes > 0) & (sizes < smallest)).sum()),
        LARGE: int((sizes > largest).sum()),
    }
    if not kept.any():
        raise DataError(_nothing_left(dropped, rows, background, (smallest, largest)), where=source)
    members = _rows(cells["row"].to_numpy(), cells["place"].to_numpy(), (len(named), len(background)))[kept]
    chosen = named.filter(pl.Series(kept))
    return Terms(
        ids=tuple(chosen["term"].to_list()),
        labels=tuple(chosen.select(pl.coalesce("label", "term")).to_series().to_list()),
        groups=tuple(chosen["group"].to_list()),
        members=members,
        background=background,
        source=source,
        dropped=dropped,
        same_as=_same_as(members),
    )


def merge(parts: Sequence[Terms]) -> Terms:
    """Put the terms of several databases side by side, as one family of tests.

    A term without a group gets its database's name as its group. What is the same is marked across databases.
    """
    if not parts:
        raise DataError("there are no terms to merge")
    first = parts[0]
    for other in parts[1:]:
        if other.background.genes != first.background.genes:
            what = f"{other.source} and {first.source} were cut to different backgrounds"
            raise DataError(what, remedy="Make the terms of both with one background.")
    members = csr_array(
        (
            np.concatenate([each.members.data for each in parts]),
            np.concatenate([each.members.indices for each in parts]),
            np.concatenate([[0], np.cumsum(np.concatenate([each.sizes for each in parts]))]),
        ),
        shape=(sum(map(len, parts)), len(first.background)),
    )
    reasons = dict.fromkeys(reason for each in parts for reason in each.dropped)
    return Terms(
        ids=tuple(term for each in parts for term in each.ids),
        labels=tuple(label for each in parts for label in each.labels),
        groups=tuple(group or each.source for each in parts for group in each.groups),
        members=members,
        background=first.background,
        source=" + ".join(dict.fromkeys(each.source for each in parts)),
        dropped={reason: sum(each.dropped.get(reason, 0) for each in parts) for reason in reasons},
        same_as=_same_as(members),
    )


def lists_of(names: Sequence[Iterable[str]], background: Background) -> Lists:
    """Return lists of genes over a background, each gene once; a list may be empty, but not all of them.

    A list longer than the background cannot have been drawn from it, and is refused.
    """
    if isinstance(names, str | bytes) or not len(names):
        raise DataError("there are no lists of genes", remedy="Give a list of lists: one of them is [[…]].")
    places, lost, sizes, given = [], [], [], 0
    for i, each in enumerate(names):
        if isinstance(each, str | bytes):
            raise DataError(f"list {i} is the text {each!r}", remedy="Give a list of lists: one of them is [[…]].")
        genes = dict.fromkeys(each)
        if len(genes) > len(background):
            what = f"list {i} has {len(genes):,} genes, and the background {len(background):,}"
            raise DataError(what, remedy="A background holds every gene that could have been in a list.")
        found = sorted(place for gene in genes if (place := background.place.get(gene)) is not None)
        places += found
        sizes.append(len(found))
        lost.append(tuple(gene for gene in genes if gene not in background.place))
        given += len(genes)
    if given and not places:
        absent = list(dict.fromkeys(gene for each in lost for gene in each))
        what = f"none of the {count(given, 'gene')} given is in the background ({background.stated})"
        raise DataError(what, remedy=mismatch(absent, background.genes))
    owners = np.repeat(np.arange(len(sizes)), sizes)
    return Lists(_rows(owners, np.array(places, dtype=np.int64), (len(sizes), len(background))), tuple(lost))


def _rows(owners: Ints, places: Ints, shape: tuple[int, int]) -> csr_array[Any]:
    """Return a matrix of ones from cells that are sorted and all different."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=shape[0]))])
    return csr_array((np.ones(len(places), np.int8), places.astype(np.int32), starts), shape=shape)


def _strong(rows: pl.DataFrame, least: float, source: str) -> pl.DataFrame:
    if rows["score"].null_count() == len(rows):
        remedy = "Leave least_score out for it."
        raise ConfigError(f"{source} has no scores to choose by", where="least_score", remedy=remedy)
    return rows.filter(pl.col("score") >= least)


def _same_as(members: csr_array[Any]) -> Ints:
    first: dict[bytes, int] = {}
    same = np.full(members.shape[0], -1, dtype=np.int64)
    indices = members.indices.astype(np.int32)
    for i, (start, stop) in enumerate(zip(members.indptr[:-1].tolist(), members.indptr[1:].tolist(), strict=True)):
        before = first.setdefault(indices[start:stop].tobytes(), i)
        if before != i:
            same[i] = before
    return same


def _nothing_left(dropped: dict[str, int], rows: pl.DataFrame, background: Background, sizes: tuple[int, int]) -> str:
    told = ", ".join(f"{n:,} {why}" for why, n in dropped.items() if n) or "it has no terms"
    what = f"no term has {sizes[0]:,} to {sizes[1]:,} genes of the background ({told})"
    if dropped[EMPTY] and not dropped[SMALL] + dropped[LARGE]:
        what += f". {mismatch(rows['gene'].unique().to_list(), background.genes)}"
    return what
