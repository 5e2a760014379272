"""Words that many tables share, each written once: genes, labels of cells, terms of databases.

A word gets its place when it is first met, so that what is met first has small numbers, which take less room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from elute.reports.explorer.pack import Column, Lists, Words, whole

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

GENES, LABELS, TERMS = "genes", "labels", "terms"


class Vocabulary:
    """The words of one block."""

    def __init__(self, block: str) -> None:
        self.block = block
        self.places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.places)

    def codes(self, column: pl.Series) -> NDArray[np.int64]:
        """Return the place of each text; −1 where there is none."""
        import polars as pl

        known = column.cast(pl.String, strict=False)
        met = known.drop_nulls().unique(maintain_order=True)
        places = [self.places.setdefault(word, len(self.places)) for word in met.to_list()]
        if not places:
            return np.full(len(column), -1, np.int64)
        return known.replace_strict(met, places, default=-1, return_dtype=pl.Int64).to_numpy()

    def words(self, codes: NDArray[np.int64]) -> Words:
        """Return a column of texts by their places."""
        return Words(codes, dictionary=self.block)

    def column(self, column: pl.Series) -> Column:
        """Return a column of texts, or of lists of texts."""
        import polars as pl

        if column.dtype != pl.List:
            return self.words(self.codes(column))
        offsets, inner = unlisted(column)
        return Lists(offsets, self.words(self.codes(inner)))

    def block_columns(self) -> dict[str, Column]:
        """Return the block itself."""
        return {"word": Words(None, words=list(self.places))}


class Terms:
    """The terms of all databases that are named, a row each."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str | None, str | None, float | None]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, source: str, terms: pl.DataFrame) -> NDArray[np.int64]:
        """Add what a database's rows name (term, label, group, term_size); return the row of each here."""
        import polars as pl

        first = len(self.rows)
        met = terms.unique("term", keep="first", maintain_order=True)
        for term, label, group, size in met.select("term", "label", "group", "term_size").iter_rows():
            self.rows.append((source, term, label, group, size))
        places = pl.Series(range(first, len(self.rows)), dtype=pl.Int64)
        return terms["term"].replace_strict(met["term"], places, return_dtype=pl.Int64).to_numpy()

    def block_columns(self, labels: Vocabulary) -> dict[str, Column]:
        """Return the block; groups and databases are few, and stand among the labels."""
        import polars as pl

        sources, terms, names, groups, sizes = zip(*self.rows, strict=True) if self.rows else ((), (), (), (), ())
        own = {"term": Words(None, words=_apart(terms))}
        return {
            **own,
            "label": texts_of(pl.Series(names, dtype=pl.String)),
            "group": labels.column(pl.Series(groups, dtype=pl.String)),
            "source": labels.column(pl.Series(sources, dtype=pl.String)),
            "size": whole(np.array([np.nan if size is None else size for size in sizes], dtype=np.float64)),
        }


def texts_of(column: pl.Series) -> Words:
    """A column of texts with a dictionary of its own."""
    own = Vocabulary("")
    codes = own.codes(column)
    if len(own) == len(column):
        return Words(None, words=list(own.places))
    return Words(codes, words=list(own.places))


def unlisted(column: pl.Series) -> tuple[NDArray[np.int64], pl.Series]:
    """Where the list of each row begins among the values of all lists, and these; null is a list of nothing."""
    lengths = column.list.len().fill_null(0).cast(int).to_numpy()
    inner = column.drop_nulls()
    inner = inner.filter(inner.list.len() > 0).explode()
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), inner


def _apart(texts: tuple[Any, ...]) -> list[str]:
    """Texts as they are, one a row."""
    return ["" if text is None else str(text) for text in texts]
