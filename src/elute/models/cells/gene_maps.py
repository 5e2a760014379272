"""Tables from one name of a gene to another: two columns of a person's own, or HGNC's complete set.

Which of the two columns is which, and whether there is a header, is seen from what they hold: the model's genes are
in one and the file's in the other. A name that stands beside two genes is ambiguous and never settled by a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base.data import hgnc_table
from elute.base.errors import DamagedError, DataError
from elute.base.genes import GeneTable, Guess, Kind, whole_text
from elute.models.cells.gene_vocabulary import WORDS, Vocabulary, bare, tidy

if TYPE_CHECKING:
    import polars as pl

REMEDY = "Give a CSV or TSV file with two columns, the file's names of genes and the model's, or HGNC's complete set."


@dataclass(frozen=True)
class Translation:
    """What names became, and why others were lost."""

    targets: dict[str, str]
    former: frozenset[str] = frozenset()
    """Names that a gene no longer has, or has as an alias, or that fit but for small and capital letters."""
    lost: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pairs:
    """A table of two columns or more."""

    table: pl.DataFrame
    """Text; Ensembl ids without their versions."""
    source: str

    def translate(self, names: Sequence[str], guess: Guess, vocabulary: Vocabulary) -> Translation:
        """Go from the column that has these names to the one that has the vocabulary's."""
        target = max(self.table.columns, key=lambda c: _distinct(self.table[c], vocabulary))
        if not _distinct(self.table[target], vocabulary):
            raise DataError(f"no column has genes of the model ({self._seen()})", where=self.source, remedy=REMEDY)
        keys = _keys(names)
        asked = set(keys.values())
        sources = [c for c in self.table.columns if c != target]
        source = max(sources, key=lambda c: len(set(self.table[c].to_list()) & asked))
        found = _index(self.table, source, target)
        # Names of mouse genes are those of human ones but for small letters: these are not the same genes.
        folded = {} if guess.species == "mouse" else _folded(found, {key for key in keys.values() if key not in found})
        targets, former = {}, set()
        without = f"without {self._word(vocabulary)}"
        lost: dict[str, list[str]] = {"ambiguous": [], "not in the map": [], without: []}
        for name, key in keys.items():
            to = found.get(key)
            if to is None and (to := folded.get(key.upper())) is not None:
                former.add(name)
            if to is not None and len(to) == 1:
                targets[name] = next(iter(to))
            else:
                lost["not in the map" if to is None else "ambiguous" if to else without].append(name)
        return Translation(targets, frozenset(former), {why: tuple(each) for why, each in lost.items() if each})

    def knows(self, names: Sequence[str]) -> bool:
        """Whether any of the names stands there, but for small and capital letters."""
        keys = set(_keys(names).values())
        if any(not keys.isdisjoint(self.table[c].to_list()) for c in self.table.columns):
            return True
        return not {key.upper() for key in keys}.isdisjoint(self._upper)

    def refuse(self, names: Sequence[str]) -> DataError:
        """The error for a table in which none of the file's genes is."""
        what = f"has none of the file's names, such as {', '.join(names)} ({self._seen()})"
        return DataError(what, where=self.source, remedy=REMEDY)

    @cached_property
    def _upper(self) -> set[str]:
        return {name for c in self.table.columns for name in self.table[c].drop_nulls().str.to_uppercase()}

    def _seen(self) -> str:
        last = self.table.tail(1).row(0)  # the first line may be a header
        return "its columns hold " + " and ".join(str(value) for value in last[:4])

    def _word(self, vocabulary: Vocabulary) -> str:
        return WORDS[vocabulary.guess.kind].removesuffix("s")


@dataclass(frozen=True, eq=False)
class Hgnc:
    """HGNC's complete set."""

    table: GeneTable

    @property
    def source(self) -> str:
        """The file."""
        return self.table.source

    def translate(self, names: Sequence[str], guess: Guess, vocabulary: Vocabulary) -> Translation:
        """Go from names of the kind that was guessed to the vocabulary's kind."""
        to = vocabulary.guess.kind
        if to == "unknown":
            return Translation({}, lost={"not in the map": tuple(names)})
        kind: Kind = "symbol" if guess.kind == "unknown" else guess.kind
        mapping = self.table.map(names, to, kind=kind)
        lost = {"ambiguous": tuple(mapping.ambiguous), "unknown": mapping.unmapped, f"without {to}": mapping.lacking}
        now = set(self.table.genes["symbol"].str.to_uppercase())
        former = [name for name in mapping.mapped if kind == "symbol" and name.upper() not in now]
        return Translation(mapping.mapped, frozenset(former), {why: each for why, each in lost.items() if each})

    def knows(self, names: Sequence[str]) -> bool:
        """Every human gene is there, under all of its names."""
        return bool(names)

    def refuse(self, names: Sequence[str]) -> DataError:
        """The error for a table in which none of the file's genes is."""
        return DataError(f"has none of the file's names, such as {', '.join(names)}", where=self.source)


GeneMap = Pairs | Hgnc


def find_map() -> Hgnc | None:
    """HGNC's table, if the data folder holds it."""
    path = hgnc_table()
    return None if path is None else Hgnc(GeneTable.read(path))


def read_map(path: Path) -> GeneMap:
    """Read a table, compressed or not."""
    import polars as pl

    text = whole_text(path, larger="is far larger than any table of genes", remedy=REMEDY)
    first = next((line for line in text[:100_000].splitlines() if line.strip() and not line.startswith(b"#")), b"")
    if b"hgnc_id\t" in first:
        return Hgnc(GeneTable.read(path))
    separator = next((mark for mark in ("\t", ",", ";") if mark.encode() in first), ",")
    try:
        table = pl.read_csv(
            text, separator=separator, has_header=False, infer_schema=False, encoding="utf8", comment_prefix="#"
        )
    except pl.exceptions.NoDataError:
        raise DataError("is empty", where=path, remedy=REMEDY) from None
    except pl.exceptions.PolarsError as error:
        told = " ".join(str(error).split())[:100]
        raise DamagedError(f"is no table of text ({told})", where=path, remedy=REMEDY) from None
    table = pl.DataFrame([bare(tidy(table[name])).alias(name) for name in table.columns])
    table = table.select([name for name in table.columns if table[name].null_count() < len(table)])
    if len(table.columns) < 2:
        what = "has one column" if table.columns else "holds nothing"
        raise DataError(f"{what} where two are needed", where=path, remedy=REMEDY)
    return Pairs(table, str(path))


def _keys(names: Sequence[str]) -> dict[str, str]:
    """What each name is looked up as."""
    import polars as pl

    return dict(zip(names, bare(pl.Series(names, dtype=pl.String)).to_list(), strict=True))


def _index(table: pl.DataFrame, source: str, target: str) -> dict[str, set[str]]:
    """All that stands beside each name; none where it stands alone."""
    index: dict[str, set[str]] = {}
    for name, to in zip(table[source].to_list(), table[target].to_list(), strict=True):
        if name is not None:
            each = index.setdefault(name, set())
            if to is not None:
                each.add(to)
    return index


def _distinct(column: pl.Series, vocabulary: Vocabulary) -> int:
    return vocabulary.find(column)["token"].drop_nulls().n_unique()


def _folded(index: dict[str, set[str]], missing: set[str]) -> dict[str, set[str]]:
    """What there is for missing names without regard to small and capital letters."""
    wanted, folded = {key.upper() for key in missing}, dict[str, set[str]]()
    for name, to in index.items() if wanted else ():
        if (upper := name.upper()) in wanted:
            folded.setdefault(upper, set()).update(to)
    return folded
