"""Cells that are read for a model: from an .h5ad file of any size, or from an AnnData object in memory.

1. Names, and the obs columns that were asked for, are read whole and checked.
2. The matrix of counts is found, and cells are drawn: `matrices.py`.
3. `Cells.pieces` gives the stored numbers of the chosen cells in the order of the file. A matrix that is small is kept
   from the pass that looked for counts; a larger one is read again, a piece at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from elute.base.errors import ConfigError, DataError
from elute.base.files import digest_bytes
from elute.base.recipe import Section

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from anndata import AnnData

    from elute.models.cells.matrices import Found
    from elute.models.cells.sheet import Sheet

_TYPE = "cell_type"  # where most files say it; a file without it has no labels, which is no fault
_READ_AHEAD = 1 << 20  # stored numbers that are read in one go, where pieces are smaller


class CellsConfig(Section):
    """Which cells are read, and from which matrix of their file."""

    matrix: str = "auto"
    """Where the counts are: auto, X, layers/NAME or raw."""
    accept_normalised: bool = False
    """Take log-normalised or other non-negative values as they are, where no matrix holds raw counts."""
    gene_id_key: str | None = None
    """Column of var that holds the gene ids; by default the first that looks like it does."""
    gene_map: Path | None = None
    """Table that maps the file's gene names to the model's."""
    cell_type_key: str = _TYPE
    """Column of obs that holds the cell types."""
    donor_key: str | None = None
    """Column of obs that says which donor a cell is of: cells of one donor stay together in every split."""
    batch_key: str | None = None
    """Column of obs that says which batch a cell is of."""
    max_cells: int | None = Field(None, ge=1)
    """Take so many cells at most, as a stratified random sample."""
    stratify: str | None = None
    """Columns of obs to stratify the sample by, comma-separated; by default cell type and donor, where they are."""
    seed: int = Field(0, ge=0)
    """Seed of the sample."""
    stream: bool = False
    """Read the cells a piece at a time, also where they would fit into memory."""


class Piece(NamedTuple):
    """Cells `first` and following: cell i of them has the entries from indptr[i] to indptr[i + 1]."""

    first: int
    indptr: np.ndarray[Any, np.dtype[np.int64]]
    indices: np.ndarray[Any, Any]
    data: np.ndarray[Any, np.dtype[np.float32]]


class Cells:
    """The chosen cells of a file: who they are, and their numbers, a piece at a time."""

    def __init__(self, sheet: Sheet, found: Found, config: CellsConfig, columns: dict[str, pl.Series]) -> None:
        import polars as pl

        self.where = sheet.where
        self.config = config
        self.total = len(sheet.names)  # cells of the file
        self.chosen = found.chosen
        self.names: list[str] = sheet.names.gather(pl.Series(found.chosen)).to_list()
        self.var = found.var
        self.matrix, self.kind = found.name, found.kind
        chosen = {name: column.gather(pl.Series(found.chosen)) for name, column in columns.items()}
        self.metadata = pl.DataFrame({"sample_id": self.names, **chosen}, schema_overrides={"sample_id": pl.String})
        self._sheet, self._found = sheet, found
        self._whole: int | None = None  # cells that this is a subset of

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def obs_names(self) -> list[str]:
        """The columns of obs."""
        return list(self._sheet.obs)

    def obs(self, column: str) -> pl.Series:
        """Read any column of obs, for the chosen cells."""
        import polars as pl

        return self._sheet.column(column).gather(pl.Series(self.chosen))

    def subset(self, places: Sequence[int] | np.ndarray[Any, Any]) -> Cells:
        """Return some of the chosen cells of the same file, by their places among them, which ascend."""
        import numpy as np
        import polars as pl

        index = np.asarray(places)
        if index.ndim != 1 or not len(index) or index.dtype.kind not in "iu":
            raise ConfigError("a subset of cells is one or more places, which are whole numbers", where=self.where)
        if index[0] < 0 or index[-1] >= len(self) or (np.diff(index.astype(np.int64)) <= 0).any():
            what = f"places of a subset ascend from 0 to {len(self) - 1:,} at most, and none comes twice"
            raise ConfigError(what, where=self.where, remedy="Sort them: sorted(set(places)).")
        found, index = self._found, index.astype(np.int64)
        part = copy(self)
        part.__dict__.pop("source", None)  # what the whole may have kept already
        part.chosen = found.chosen[index]
        part.names = [self.names[place] for place in index]
        part.metadata = self.metadata[pl.Series(index)]
        part._found = replace(found, rows=found.rows[index], chosen=part.chosen, lengths=found.lengths[index])
        part._whole = self._whole or len(self)
        return part

    def pieces(self, cells: int = 2048) -> Iterator[Piece]:
        """Read the chosen cells in pieces of so many, or of fewer where they hold very many numbers."""
        from elute.models.cells.counts import edges

        if cells < 1:
            raise ConfigError(f"a piece needs at least 1 cell, not {cells}")
        lengths, rows = self._found.lengths, self._found.rows
        cuts = edges(lengths, cells)
        sizes = [int(lengths[a:b].sum()) for a, b in pairwise(cuts)]
        with self._found.matrix.opened() as read:
            at = 0
            while at < len(sizes):
                stop, held = at + 1, sizes[at]
                while stop < len(sizes) and held + sizes[stop] <= _READ_AHEAD:
                    held += sizes[stop]
                    stop += 1
                begin = cuts[at]
                csr = read(rows[begin : cuts[stop]])
                for a, b in pairwise(cuts[at : stop + 1]):
                    indptr = csr.indptr[a - begin : b - begin + 1]
                    part = slice(int(indptr[0]), int(indptr[-1]))
                    yield Piece(a, indptr - indptr[0], csr.indices[part], csr.data[part])
                del csr  # before the next is read
                at = stop

    @cached_property
    def source(self) -> dict[str, str]:
        """Where the cells are from: the file's digest, the matrix, and what chose the cells."""
        config, whole = self.config, self._sheet.digest
        name = Path(self.where).name if whole is not None else self.where
        how = {"max_cells": config.max_cells, "seed": config.seed, "stratify": config.stratify}
        return {
            name: whole() if whole is not None else self._digest(),
            "matrix": f"{self.matrix} ({self.kind})",
            "cells": f"{len(self.chosen)} of {self.total}, {digest_bytes(self.chosen.tobytes())}",
            "sample": "all" if config.max_cells is None else json.dumps(how),
            **({} if self._whole is None else {"subset": f"{len(self.chosen)} of {self._whole} chosen cells"}),
        }

    def _digest(self) -> str:
        """Digest the chosen matrix, the cells' names and the genes'."""
        import numpy as np

        sha = hashlib.sha256(json.dumps([self.names, self.var["index"].to_list()]).encode())
        for piece in self.pieces():
            for array, dtype in ((piece.indptr, np.int64), (piece.indices, np.int64), (piece.data, np.float32)):
                sha.update(np.ascontiguousarray(array, dtype).data)
        return sha.hexdigest()


def open_cells(data: str | Path | AnnData, config: CellsConfig | None = None) -> Cells:
    """Choose cells and their matrix from a file or an AnnData object, and check both; one line says what was taken."""
    from elute.models.cells.infile import open_file
    from elute.models.cells.inmemory import open_object
    from elute.models.cells.matrices import Wanted, find_matrix

    config = config or CellsConfig()
    sheet = open_file(Path(data)) if isinstance(data, str | Path) else open_object(data)
    _check_names(sheet)
    columns = _columns(sheet, config)
    wanted = Wanted(
        matrix=config.matrix,
        accept_normalised=config.accept_normalised,
        stratum=_strata(sheet, config, columns),
        max_cells=config.max_cells,
        seed=config.seed,
        keep=not config.stream,
    )
    return Cells(sheet, find_matrix(sheet, wanted), config, columns)


def _check_names(sheet: Sheet) -> None:
    """Refuse a file without cells, and names that do not tell them apart."""
    import polars as pl

    if not len(sheet.names):
        raise DataError("has no cells", where=sheet.where, remedy="Check what wrote it.")
    names = sheet.names.cast(pl.String)
    if names.null_count():
        what = f"{names.null_count():,} cells have no name"
        raise DataError(what, where=sheet.where, remedy="Name them: adata.obs_names = …")
    alike = names.is_duplicated()
    if alike.any():
        first = names.filter(alike)[0]
        raise DataError(
            f"{int(alike.sum()):,} cells share their names with others, say {first!r}",
            where=sheet.where,
            remedy="Make them unique: adata.obs_names_make_unique().",
        )


def _columns(sheet: Sheet, config: CellsConfig) -> dict[str, pl.Series]:
    """Read donor, batch and cell type as text."""
    from elute.base.console import say
    from elute.base.errors import near
    from elute.store.imports.samples import as_text

    asked = {"group": config.donor_key, "batch": config.batch_key, "label": config.cell_type_key}
    if config.cell_type_key == _TYPE and _TYPE not in sheet.obs:
        del asked["label"]
        if (like := near(_TYPE, sheet.obs)).startswith("Did"):
            say(f"{sheet.where}: has no obs column {_TYPE!r}, so cells have no label. {like} (--cell-type-key)")
    columns = {name: as_text(sheet.column(key)) for name, key in asked.items() if key is not None}
    if "group" in columns:
        groups = columns["group"]
        missing = groups.null_count() + int((groups.str.strip_chars() == "").sum())
        if missing:
            raise DataError(
                f"obs column {config.donor_key!r} has no donor for {missing:,} of {len(groups):,} cells",
                where=sheet.where,
                remedy="Fill it in, or leave those cells out: adata[adata.obs[key].notna()].",
            )
    return columns


def _strata(sheet: Sheet, config: CellsConfig, columns: dict[str, pl.Series]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Number each cell's stratum; columns that were named are looked up even if all cells are taken."""
    import numpy as np

    from elute.models.cells.sampling import strata
    from elute.store.imports.samples import as_text

    if config.stratify is not None:
        named = [name.strip() for name in config.stratify.split(",") if name.strip()]
        by = [as_text(sheet.column(name)) for name in named]
    else:
        by = [columns[name] for name in ("label", "group") if name in columns]
    return strata(by) if by and config.max_cells is not None else np.zeros(len(sheet.names), np.int64)
