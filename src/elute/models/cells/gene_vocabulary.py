"""The genes that a model has tokens for, looked up by what a file calls them.

An identifier is looked up as it stands, then without an Ensembl version on either side. Special tokens (`<pad>`,
`<junk3>`) are no genes and never match.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from elute.base.errors import DataError
from elute.base.genes import Guess, kind_of

if TYPE_CHECKING:
    import polars as pl

Words = Literal["Ensembl ids", "symbols", "HGNC ids", "Entrez numbers", "UniProt accessions", "names"]
WORDS: dict[str, Words] = {
    "ensembl": "Ensembl ids",
    "symbol": "symbols",
    "hgnc": "HGNC ids",
    "entrez": "Entrez numbers",
    "uniprot": "UniProt accessions",
    "unknown": "names",
}

# Ways to a gene, the best first: of several columns for one gene, that with the best is kept.
EXACT, CURRENT, STRIPPED, Y_COPY, FORMER = range(5)

_SPECIAL = r"^<.*>$"
_ENSEMBL = r"(?i)^(ENS[A-Z]*\d{11})(?:\.\d+)?(_PAR_Y)?$"
_SAMPLE = 2000  # identifiers of a column that are enough to see what they are
_BLANK = ("", "nan", "NaN", "None", "<NA>")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Genes with their tokens, and what their identifiers look like."""

    exact: pl.DataFrame
    """id, name, token."""
    plain: pl.DataFrame
    """id (without its version), name, token."""
    guess: Guess

    @classmethod
    def of(cls, vocabulary: Mapping[str, int]) -> Vocabulary:
        """Leave out what is no gene."""
        import polars as pl

        genes = pl.DataFrame(
            {"id": list(vocabulary), "token": list(vocabulary.values())}, schema={"id": pl.String, "token": pl.Int64}
        ).filter(~pl.col("id").str.contains(_SPECIAL) & ~pl.col("id").is_in(_BLANK))
        if not len(genes):
            raise DataError("the model's vocabulary holds no genes")
        exact = genes.with_columns(name="id").unique("id", keep="first", maintain_order=True)
        plain = exact.with_columns(id=_plain("name"), own=_plain("name") == pl.col("name")).drop_nulls("id")
        # What is left of two versions of a gene stands for neither, unless one of them has no version.
        plain = plain.sort("own", descending=True, maintain_order=True).filter(
            pl.col("own") | (pl.len().over("id") == 1)
        )
        plain = plain.unique("id", keep="first", maintain_order=True).select("id", "name", "token")
        return cls(exact.select("id", "name", "token"), plain, look_of(exact["id"]))

    def find(self, ids: pl.Series) -> pl.DataFrame:
        """Return name, token and way for each identifier; without a name where there is no such gene."""
        import polars as pl

        asked = pl.DataFrame({"as_given": ids}).with_columns(
            plain=_plain("as_given"), y=pl.col("as_given").str.extract(_ENSEMBL, 2).is_not_null()
        )
        asked = asked.join(self.exact, left_on="as_given", right_on="id", how="left", maintain_order="left")
        asked = asked.join(self.plain, left_on="plain", right_on="id", how="left", maintain_order="left", suffix="_2")
        way = pl.when(pl.col("name").is_not_null()).then(EXACT).when(pl.col("y")).then(Y_COPY).otherwise(STRIPPED)
        return asked.select(
            pl.coalesce("name", "name_2").alias("name"),
            pl.coalesce("token", "token_2").alias("token"),
            way.cast(pl.Int8).alias("way"),
        )


def tidy(column: pl.Series) -> pl.Series:
    """Identifiers as text without white space around them; nothing where there is none."""
    import polars as pl

    text = column.cast(pl.String).str.strip_chars().alias("ids")
    return pl.select(pl.when(~text.is_in(_BLANK)).then(text)).to_series().alias("ids")


def bare(column: pl.Series) -> pl.Series:
    """Identifiers with Ensembl's versions dropped, and all else as it stands."""
    import polars as pl

    return column.alias("ids").to_frame().select(pl.coalesce(_plain("ids"), "ids").alias("ids")).to_series()


def look_of(ids: pl.Series) -> Guess:
    """Guess what a column holds, from as many of its identifiers as are enough."""
    whole = ids.drop_nulls()
    return kind_of(whole.gather_every(max(1, len(whole) // _SAMPLE)).to_list())


def _plain(column: str) -> pl.Expr:
    """An Ensembl id without version; nothing for anything else."""
    import polars as pl

    return pl.col(column).str.extract(_ENSEMBL, 1).str.to_uppercase()
