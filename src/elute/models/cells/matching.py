"""A file's genes and a model's: which column of the file becomes which token.

1. Each column of identifiers is looked up in the vocabulary as it stands, then without Ensembl versions; the column
   with the most genes of the vocabulary is taken, on a tie the first of those named below.
2. Through a table (a person's own, or HGNC's where no column is of the model's kind) what is left is translated; the
   column that is taken is then the one with the most genes, translated or not.
3. Where several of the file's genes become one, the first of those that came the most direct way is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base.errors import ConfigError, DataError, near
from elute.base.genes import Guess
from elute.models.cells.gene_maps import GeneMap, find_map, read_map
from elute.models.cells.gene_vocabulary import CURRENT, FORMER, STRIPPED, WORDS, Y_COPY, Vocabulary, look_of, tidy
from elute.models.cells.unmatched import remedy

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

INDEX = "index"
_IDS = ("ensembl_id", "gene_ids", "feature_id", INDEX)
_SYMBOLS = (
    *("symbol", "gene_symbol", "feature_name", "gene_name", "gene_short_name", "symbols", "gene_symbols"),
    *("gene_names", "hgnc_symbol", "genesymbol", "genename", "gene"),
)


@dataclass(frozen=True, eq=False)
class Matched:
    """The tokens of a file's genes."""

    tokens: np.ndarray
    """int64, one a gene of the file; -1 for one that has none."""
    names: list[str | None]
    """The vocabulary's identifiers."""
    column: str
    """Which identifiers of the file were used."""
    through: str | None
    """The table that they were translated with."""
    matched: int
    given: int
    lines: list[str]
    """What was used and what was lost, for people."""
    warnings: list[str]
    symbols: list[str | None] | None
    """The file's symbols, if it has them."""


@dataclass(frozen=True, eq=False)
class _Attempt:
    """What one column of the file finds."""

    column: str
    ids: pl.Series
    found: pl.DataFrame
    through: str | None = None
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def genes(self) -> int:
        """How many genes of the vocabulary it finds."""
        return self.found["token"].drop_nulls().n_unique()

    @cached_property
    def guess(self) -> Guess:
        """What its identifiers look like."""
        return look_of(self.ids)

    @property
    def place(self) -> str:
        """Its name for people."""
        return "the index" if self.column == INDEX else f"column {self.column!r}"

    def unmatched(self) -> list[str]:
        """Identifiers that are in no vocabulary as they stand, each once."""
        left = self.ids.filter(self.found["token"].is_null()).drop_nulls()
        return list(left.unique(maintain_order=True))


def match_genes(
    var: pl.DataFrame,
    vocabulary: Mapping[str, int],
    *,
    key: str | None = None,
    gene_map: Path | None = None,
    where: str = "",
) -> Matched:
    """Find the token of each gene; `var` begins with the column "index", `key` names the column to use alone.

    `gene_map` is a table of two columns, or HGNC's. Without one, HGNC's is used if the data folder holds it and no
    column has identifiers of the vocabulary's kind.
    """
    known = Vocabulary.of(vocabulary)
    attempts = [_direct(var, column, known) for column in _columns(var, key, where)]
    if not len(var):
        raise DataError("has no genes", where=where or None)
    best = max(attempts, key=lambda attempt: attempt.genes)
    through = read_map(gene_map) if gene_map is not None else _own_map(attempts, known, key)
    if through is not None:
        named = [a for a in attempts if key or a.column in _IDS or a.column.lower() in _SYMBOLS]
        named = [a for a in named if a.ids.null_count() < len(a.ids)]
        if named and not any(through.knows(a.ids.drop_nulls().to_list()) for a in named):
            raise through.refuse(named[0].ids.drop_nulls().head(3).to_list())
        best = max([best, *(_translated(a, through, known) for a in named)], key=lambda attempt: attempt.genes)
    if not best.genes:
        raise _nothing(attempts, known, through=through, where=where)
    return _result(var, best, where)


def _columns(var: pl.DataFrame, key: str | None, where: str) -> list[str]:
    """Columns that may hold identifiers, in the order in which one is preferred."""
    import polars as pl

    if key is not None:
        if key not in var.columns:
            raise ConfigError(
                f"there is no column {key!r} of genes", where=where or None, remedy=near(key, var.columns)
            )
        return [key]
    text = [c for c in var.columns if var[c].dtype in (pl.String, pl.Categorical, pl.Enum)]
    first = [c for c in _IDS if c in text]
    return first + [c for c in _symbol_columns(text) if c not in first] + [
        c for c in text if c not in first and c.lower() not in _SYMBOLS
    ]  # fmt: skip


def _symbol_columns(columns: list[str]) -> list[str]:
    return sorted((c for c in columns if c.lower() in _SYMBOLS), key=lambda c: _SYMBOLS.index(c.lower()))


def _direct(var: pl.DataFrame, column: str, vocabulary: Vocabulary) -> _Attempt:
    ids = tidy(var[column])
    return _Attempt(column, ids, vocabulary.find(ids))


def _own_map(attempts: list[_Attempt], vocabulary: Vocabulary, key: str | None) -> GeneMap | None:
    """HGNC's table, where it is needed and means the same genes."""
    kind = vocabulary.guess.kind
    for attempt in attempts:
        guess, named = attempt.guess, attempt.column in _IDS or attempt.column.lower() in _SYMBOLS
        # Words such as protein_coding look like symbols: only a column of that name counts as one of them.
        if guess.kind == kind and guess.share > 0.5 and (kind == "ensembl" or key or named):
            return None
        if named and guess.species in ("mouse", "other"):
            return None
    # Numbers are as often those of rows as Entrez's: nobody is given genes for them unasked.
    wanted = ("symbol", "ensembl", "hgnc")
    return find_map() if any(attempt.guess.kind in wanted for attempt in attempts) else None


def _translated(attempt: _Attempt, through: GeneMap, vocabulary: Vocabulary) -> _Attempt:
    """The same column with what was not found translated."""
    import polars as pl

    told = through.translate(attempt.unmatched(), attempt.guess, vocabulary)
    names = pl.DataFrame({"ids": list(told.targets)}, schema={"ids": pl.String})
    there = vocabulary.find(pl.Series(list(told.targets.values()), dtype=pl.String))
    ways = [FORMER if name in told.former else CURRENT for name in told.targets]
    more = pl.concat([names, there.with_columns(way=pl.Series(ways, dtype=pl.Int8))], how="horizontal")
    found = pl.concat([attempt.ids.to_frame(), attempt.found], how="horizontal")
    found = found.join(more, on="ids", how="left", maintain_order="left", suffix="_2").select(
        pl.coalesce("name", "name_2").alias("name"),
        pl.coalesce("token", "token_2").alias("token"),
        pl.when(pl.col("name").is_null()).then(pl.col("way_2")).otherwise(pl.col("way")).alias("way"),
    )
    absent = tuple(more.filter(pl.col("token").is_null())["ids"])
    lost = {**told.lost, "not in the vocabulary": absent}
    return _Attempt(attempt.column, attempt.ids, found, through.source, lost)


def _result(var: pl.DataFrame, best: _Attempt, where: str) -> Matched:
    import polars as pl

    rows = best.found.with_row_index("row")
    there = rows.filter(pl.col("token").is_not_null())
    kept = there.sort("token", "way", "row").unique("token", keep="first").select("row", keep=True)
    rows = rows.join(kept, on="row", how="left", maintain_order="left").with_columns(pl.col("keep").fill_null(False))
    double = rows["token"].is_not_null() & ~rows["keep"]
    tokens = rows.select(pl.when("keep").then("token").otherwise(-1)).to_series().to_numpy().astype("int64")
    matched, given = len(kept), len(var)
    head, warnings = f"{where}: " if where else "", []
    if double.any():
        names = ", ".join(best.ids.filter(double).head(3))
        what = "gene is" if double.sum() == 1 else "genes are"
        warnings.append(f"{head}{double.sum():,} {what} another's second column and left out ({names})")
    if matched * 2 < given:
        share = f"{matched:,} of {given:,} genes ({matched / given:.0%})"
        warnings.append(f"{head}fewer than half matched to the vocabulary: {share}, by {best.place}")
    if best.through is not None and best.guess.species in ("mouse", "other"):
        warnings.append(f"{head}the genes look like those of {_species(best.guess)}, and went through {best.through}")
    return Matched(
        tokens=tokens,
        names=rows.select(pl.when("keep").then("name")).to_series().to_list(),
        column=best.column,
        through=best.through,
        matched=matched,
        given=given,
        lines=_lines(best, rows.filter("keep")["way"], given, head=head),
        warnings=warnings,
        symbols=_symbols(var),
    )


def _lines(best: _Attempt, ways: pl.Series, given: int, *, head: str) -> list[str]:
    """What was used, and what was lost."""
    line = f"{head}{len(ways):,} of {given:,} genes matched, by {WORDS[best.guess.kind]} in {best.place}"
    if stripped := ways.is_in([STRIPPED, Y_COPY]).sum():
        line += f"; {stripped:,} without their version"
    if best.through is not None:
        line += f"; {ways.is_in([CURRENT, FORMER]).sum():,} through {best.through}"
    lost = dict(best.lost) if best.through is not None else {"not in the vocabulary": tuple(best.unmatched())}
    parts = [f"{len(names):,} {why} ({', '.join(names[:3])})" for why, names in lost.items() if names]
    if blank := best.ids.null_count():
        parts.append(f"{blank:,} blank")
    return [line, *([f"{head}genes not matched: {'; '.join(parts)}"] if parts else [])]


def _symbols(var: pl.DataFrame) -> list[str | None] | None:
    for column in (*_symbol_columns(var.columns), INDEX):
        ids = tidy(var[column]) if column in var.columns else None
        if ids is not None and look_of(ids).kind == "symbol":
            return ids.to_list()
    return None


def _nothing(attempts: list[_Attempt], vocabulary: Vocabulary, *, through: GeneMap | None, where: str) -> DataError:
    shown = next((a for a in attempts if a.guess.kind != "unknown"), attempts[0])
    theirs, ours = ", ".join(shown.ids.drop_nulls().head(3)), ", ".join(vocabulary.exact["id"].head(3))
    what = f"No genes matched to vocabulary: {shown.place} has {theirs or 'blanks alone'}; the model knows {ours}"
    source = None if through is None else through.source
    return DataError(what, where=where or None, remedy=remedy(shown.ids, shown.guess, vocabulary.guess, through=source))


def _species(guess: Guess) -> str:
    return "mouse" if guess.species == "mouse" else "another species"
