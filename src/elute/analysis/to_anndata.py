"""A run's cells with their features, as scanpy's users know cells: .obsm["X_elute"] and .uns["elute"].

1. Codes and the metadata beside them are read a shard at a time; within a shard each cell's values are brought
   together, so no matrix of rows × features is ever made.
2. .obsm["X_elute"] has a row a cell and a column for each feature that fires at all, sparse. Which feature a column is,
   and what is known of it, is the table .uns["elute"]["features"], in the order of the columns.
3. Genes stay what .var and .X hold: those of the file, if it is given, else none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from elute.analysis.run_tables import FEATURES, find_sites, read_cells, read_table
from elute.base import console, run
from elute.base.errors import ConfigError, DataError, GuardError, MissingError, near

if TYPE_CHECKING:
    import polars as pl
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

KEY = "X_elute"
READ = "elute_read"
_ROWS = 1 << 15  # whose codes are sorted together
_TOLD = ("kind", "frequency", "cell_frequency", "top_genes", "top_genes_raw", "cell_type", "auroc", "auroc_shown",
         "fold", "fold_shown", "q", "q_shown", "by_gene", "by_cell", "neither", "module")  # fmt: skip


def to_anndata(
    folder: Path, site: str, *, data: Path | None = None, pooling: Literal["mean", "max", "sum"] = "mean"
) -> AnnData:
    """Return the cells of a run; with their file all of its cells, those that were not read having no features."""
    try:
        import anndata
    except ImportError:
        from elute.base.doctor import how_to_install

        remedy = how_to_install("cells")
        raise MissingError("the package anndata is not installed", where=folder, remedy=remedy) from None
    if pooling not in ("mean", "max", "sum"):
        raise ConfigError(f"pooling {pooling!r}", remedy="Choose mean, max or sum.")
    cells = read_cells(folder)
    if cells["cell"].n_unique() < len(cells):
        raise DataError(
            "two cells have one name", where=folder, remedy="Make the cells' names unique, and extract anew."
        )
    place, pooled, fired, source = _pool(folder, site, cells, pooling=pooling)
    if data is None:
        found = anndata.AnnData(obs=_obs(cells), obsm={KEY: pooled})
    else:
        found = anndata.read_h5ad(data)
        rows = _rows(found, cells, data)
        found.obsm[KEY] = _spread(pooled, rows, found.n_obs)
        read = np.zeros(found.n_obs, bool)
        read[rows] = True
        found.obs[READ] = read
    found.uns["elute"] = {
        "site": site,
        "pooling": pooling,
        "features": _features(place, fired),
        "versions": run.versions(),
        "record": json.dumps(run.read(folder), sort_keys=True),
        **source,
    }
    return found


def _pool(
    folder: Path, site: str, cells: pl.DataFrame, *, pooling: str
) -> tuple[Path, csr_matrix, NDArray[np.int64], dict[str, str]]:
    """The folder of a site, a row a cell of what its features did there, which features the columns are, and whence."""
    from scipy.sparse import coo_matrix

    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

    sites = find_sites(folder)
    if site not in sites:
        raise DataError(f"there is no site {site!r}", where=folder, remedy=near(site, sites))
    place = sites[site]
    store, codes = Store(folder / "activations"), StoredCodes(place / "codes")
    codes.expect(store=store)
    rows = np.zeros(len(cells), np.int64)
    parts = []
    with console.progress("pool", len(codes)) as bar:
        for cell, indices, values in _pieces(codes, store, cells):
            rows += np.bincount(cell, minlength=len(cells))
            slots, at = np.nonzero(values)
            parts.append(_together(cell[slots], indices[slots, at], values[slots, at], by=pooling, of=codes.n_features))
            bar.advance(len(cell))
    owner, feature, value = (np.concatenate([part[i] for part in parts] or [np.zeros(0)]) for i in range(3))
    if pooling == "max":  # a cell may lie in two pieces; sums of its parts are added below
        owner, feature, value = _together(owner, feature, value, by=pooling, of=codes.n_features)
    if pooling == "mean":
        value = value / rows[owner.astype(np.int64)]
    fired, column = np.unique(feature.astype(np.int64), return_inverse=True)
    pooled = coo_matrix((value.astype(np.float32), (owner.astype(np.int32), column)), (len(cells), len(fired))).tocsr()
    return place, pooled, fired, {"dictionary": codes.dictionary, "store": store.manifest.store}


def _pieces(
    codes: StoredCodes, store: Store, cells: pl.DataFrame
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]]:
    """Some rows at a time: the number of the cell of each, and its codes."""
    import polars as pl

    numbers = pl.DataFrame({"cell": cells["cell"], "at": np.arange(len(cells))})
    for shard, first in enumerate(codes.starts[:-1]):
        stop = codes.starts[shard + 1]
        mine, begin = codes.shard(shard), store.starts[shard]
        names = store.metadata(begin, store.starts[shard + 1], columns=["sample_id"])
        chosen = pl.Series(codes.store_rows(first, stop).numpy() - begin)
        found = names[chosen].join(numbers, left_on="sample_id", right_on="cell", how="left", maintain_order="left")
        if found["at"].null_count():
            lost = found.filter(found["at"].is_null())["sample_id"][0]
            remedy = "They are of other cells: extract anew."
            raise GuardError(f"cell {lost!r} has codes, and is not in cells.parquet", where=codes.folder, remedy=remedy)
        cell = found["at"].to_numpy()
        for a in range(0, len(mine), _ROWS):
            part = mine[a : a + _ROWS]
            yield cell[a : a + _ROWS], part.indices.numpy(), part.values.float().numpy()


def _together(cell: Any, feature: Any, value: Any, *, by: str, of: int) -> tuple[Any, Any, Any]:
    """One value for each cell and feature: the sum, or the highest where it fired."""
    if not len(cell):
        return cell, feature, value
    key = cell.astype(np.int64) * of + feature
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    joined = np.maximum if by == "max" else np.add
    values = joined.reduceat(value[order].astype(np.float64), starts)
    return key[starts] // of, key[starts] % of, values


def _obs(cells: pl.DataFrame) -> Any:
    """The cells' table: what is known of them, under the names that their file gave."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in cells.columns:
        if name == "cell" or cells[name].null_count() == len(cells):
            continue
        values = cells[name]
        called = name.removeprefix("obs:")
        columns[called if called not in columns else name] = (
            values.to_list() if values.dtype == str else values.to_numpy()
        )
    return pd.DataFrame({**columns, READ: True}, index=cells["cell"].to_list())


def _rows(found: AnnData, cells: pl.DataFrame, data: Path) -> NDArray[np.int64]:
    """Where in its file each cell lies; another file is refused."""
    remedy = "Give the file that the run read, with --data."
    if "row" not in cells.columns or cells["row"].null_count():
        raise DataError(
            "the run does not say which rows of a file its cells are", where=data, remedy="Leave --data out."
        )
    rows = cells["row"].to_numpy().astype(np.int64)
    if len(rows) and not 0 <= rows.min() <= rows.max() < found.n_obs:
        raise GuardError(
            f"has {found.n_obs:,} cells, and the run read number {rows.max():,}", where=data, remedy=remedy
        )
    names = cells["cell"].to_list()
    for row, name in zip(rows.tolist(), names, strict=True):
        if found.obs_names[row] != name:
            what = f"its cell number {row:,} is {found.obs_names[row]!r}, and the run read {name!r} there"
            raise GuardError(what, where=data, remedy=remedy)
    return rows


def _spread(pooled: csr_matrix, rows: NDArray[np.int64], n: int) -> csr_matrix:
    """The same rows at their places among all cells of the file."""
    from scipy.sparse import csr_matrix

    lengths, order = np.zeros(n, np.int64), np.argsort(rows)
    lengths[rows] = np.diff(pooled.indptr)
    ascending = pooled[order]
    return csr_matrix(
        (ascending.data, ascending.indices, np.concatenate([[0], np.cumsum(lengths)])), (n, pooled.shape[1])
    )


def _features(place: Path, fired: NDArray[np.int64]) -> Any:
    """What is known of the features, in the order of the columns; text is empty where nothing is."""
    import pandas as pd
    import polars as pl

    table: dict[str, Any] = {"feature": fired}
    if (place / FEATURES).is_file():
        frame = pl.DataFrame({"feature": fired}).join(
            read_table(place, FEATURES).with_columns(pl.col("feature").cast(pl.Int64)),
            on="feature", how="left", maintain_order="left",
        )  # fmt: skip
        for name in (n for n in _TOLD if n in frame.columns):
            column = frame[name]
            if column.dtype == pl.List(pl.String):
                column = column.list.join(", ", ignore_nulls=True)
            is_text = column.dtype == pl.String
            table[name] = column.fill_null("").to_list() if is_text else column.cast(pl.Float64).to_numpy()
    return pd.DataFrame(table, index=[f"feature {number}" for number in fired])
