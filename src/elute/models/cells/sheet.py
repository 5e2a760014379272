"""What a file or an object of cells holds, before any cell or matrix is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elute.base.errors import ConfigError, DamagedError, DataError, near
from elute.store.imports.parts import AGAIN

if TYPE_CHECKING:
    import polars as pl

    from elute.store.imports.nonzeros import Nonzeros
    from elute.store.imports.parts import Column

_ROWS = 1 << 20
_LIKE_COUNTS = ("counts", "rawcounts", "count", "raw", "rawcount", "countsraw", "umi", "umis", "umicounts", "rawumi")


@dataclass(frozen=True, eq=False)
class Sheet:
    """Matrices by name (X, layers/NAME, raw), the table of cells, and the tables of genes, each read when asked for."""

    where: str
    names: pl.Series  # of all cells
    obs: dict[str, Column]
    matrices: dict[str, Callable[[], Nonzeros]]
    genes: Callable[[str], tuple[str, dict[str, Column]]]  # the table that names a matrix's columns, and its index
    digest: Callable[[], str] | None  # of the whole file; nothing for an object in memory

    def matrix(self, name: str, genes: int) -> Nonzeros:
        """Look at a matrix, whose rows and columns must be as many as the tables have."""
        found = self.matrices[name]()
        if found.shape != (len(self.names), genes):
            what = f"is {found.shape[0]:,} × {found.shape[1]:,}, beside {len(self.names):,} cells and {genes:,} genes"
            raise DamagedError(what, where=f"{self.where}, {name}", remedy=AGAIN)
        return found

    def candidates(self) -> list[str]:
        """Where counts may be, the likeliest first: X, layers that are called so, raw."""
        layers = [name for name in self.matrices if plain_name(name) in _LIKE_COUNTS]
        layers.sort(key=lambda name: _LIKE_COUNTS.index(plain_name(name)))
        return [name for name in ("X", *layers, "raw") if name in self.matrices]

    def column(self, name: str) -> pl.Series:
        """Read a column of the cells' table."""
        if name not in self.obs:
            raise ConfigError(f"has no obs column {name!r}", where=self.where, remedy=near(name, self.obs))
        return whole(self.obs[name], len(self.names), f"{self.where}, obs column {name!r}").alias(name)

    def var(self, matrix: str) -> pl.DataFrame:
        """Read the table of a matrix's genes: `index`, and the columns of text."""
        import polars as pl

        index, columns = self.genes(matrix)
        where = f"{self.where}, {'raw.var' if matrix == 'raw' else 'var'}"
        found = {"index": whole(columns[index], None, where).cast(pl.String)}
        if not len(found["index"]):
            raise DataError("has no genes", where=where, remedy="Check what wrote it.")
        for name, column in columns.items():
            if name == index or column.flaw is not None or column.dtype not in ("string", "categorical"):
                continue
            read = whole(column, len(found["index"]), where)
            if read.dtype == pl.String:
                found[name if name != "index" else "index_1"] = read
        return pl.DataFrame([series.alias(name) for name, series in found.items()])


def plain_name(key: str) -> str:
    """Write a layer's name in small letters and nothing else; the other matrices have none."""
    folder, _, name = key.partition("/")
    return "".join(c for c in name.lower() if c.isalnum()) if folder == "layers" else ""


def whole(column: Column, length: int | None, where: str) -> pl.Series:
    """Read a whole column, which must have as many rows as its table."""
    import polars as pl

    if column.flaw is not None:
        raise DataError(column.flaw[0], where=where, remedy=column.flaw[1])
    if length is not None and column.length != length:
        raise DamagedError(f"has {column.length:,} rows, not {length:,}", where=where, remedy=AGAIN)
    pieces = list(column.read(0, _ROWS))
    return pl.concat(pieces) if pieces else pl.Series(dtype=pl.String)


def some(names: Iterable[str], most: int = 3) -> str:
    """Name the first few."""
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
