"""Lists of genes as they are held against databases: by keys that every database's genes have as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from elute.base.errors import DataError
from elute.base.files import digest_json
from elute.base.genes import kind_of
from elute.validation import mapping
from elute.validation.background import Part

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

KEY = pl.coalesce("hgnc", "symbol")
"""What a gene is called here: its HGNC id, or without HGNC's table its symbol."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """A score of every gene for every list, on disk if it is large; NaN where there is none."""

    scores: NDArray[np.float32]
    """[lists, genes]"""
    keys: Sequence[str | None]
    """What the genes of the columns are called here; of several that are called the same the first counts."""
    digest: str


@dataclass(frozen=True, eq=False)
class Asked:
    """Lists of genes by their keys, the best first; a list may be empty."""

    lists: list[list[str]]
    genes: pl.DataFrame
    """key, symbol, measured, and where it is known expression and detection: a row a gene that could be listed."""
    told: tuple[str, str]
    """What all these genes are, and what the measured ones are; empty where all are."""
    numbers: list[int]
    """What each list is called: a feature's number."""
    shown: list[list[str]] | None = None
    """The same features' genes by other cells."""
    controls: dict[str, list[list[str]]] = field(default_factory=dict)
    """Lists in which there is nothing to find, by what was done."""
    notes: tuple[str, ...] = ()
    ranking: Ranking | None = None
    """All genes by the scores of which the lists are the top."""
    controls_ranked: dict[str, Ranking] = field(default_factory=dict)
    """Rankings in which there is nothing to find, by what was done."""

    @property
    def digest(self) -> str:
        """What tells these lists from others."""
        table = self.genes.write_json()
        ranked = {what: each.digest for what, each in self.controls_ranked.items()}
        whole = [None if self.ranking is None else self.ranking.digest, ranked]
        return digest_json([self.lists, self.shown, self.controls, self.told, self.numbers, table, whole])

    @property
    def parts(self) -> list[Part]:
        """The two parts of a background that do not depend on the database; nothing where no gene is ruled out."""
        if not len(self.genes):
            return []
        whole = Part(self.genes["key"].to_list(), self.told[0])
        if not self.told[1]:
            return [whole]
        return [whole, Part(self.genes.filter("measured")["key"].to_list(), self.told[1])]


def keys_of(names: Iterable[str], called: Iterable[str | None] | None = None) -> pl.DataFrame:
    """Return key and symbol of genes in their order, null where HGNC knows none; `called` are symbols beside them."""
    given = list(names)
    symbols: Sequence[str | None] = list(called) if called is not None else [None] * len(given)
    kind = kind_of(given).kind
    frame = pl.DataFrame(
        {"gene": given, "called": symbols}, schema={"gene": pl.String, "called": pl.String}
    ).with_columns(gene_kind=pl.lit("symbol" if kind == "unknown" else kind))
    if not len(frame):
        raise DataError("there are no genes to name")
    found = mapping.identify(frame.unique(maintain_order=True), mapping.gene_table()).table
    named = found.select("gene", "called", "symbol", key=KEY)
    return frame.join(named, on=["gene", "called"], how="left", nulls_equal=True, maintain_order="left").select(
        "key", "symbol"
    )
