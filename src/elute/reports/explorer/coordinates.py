"""Where features and cells lie on their maps. What was computed is kept beside the tables: it takes long.

    map_features.parquet    feature, x, y     features that write in like directions are near one another
    map_cells.parquet       cell, x, y        cells in which like features fire are near one another

1. Features: by the cosine between their directions in the decoder. Those that never fire are left out.
2. Cells: the data's own map, where the run kept one (columns of `cells.parquet` that are called UMAP) or its file is
   given (`obsm["X_umap"]`). Else one is computed from the pooled codes: each value as a share of the feature's largest,
   features that fire everywhere counting less, cells scaled to one length, thirty principal directions.
3. Both by UMAP, where umap-learn is installed and points are enough, else as the first two principal directions.

A file that was made from something else, or in another way, is made anew. The same input gives the same map.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files
from elute.base.errors import EluteError
from elute.reports.explorer import pack

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.reports.explorer.cell_sample import ShownCells
    from elute.reports.explorer.pooled_codes import Pooled

FEATURES, CELLS = "map_features.parquet", "map_cells.parquet"
METHOD = 1  # raised when the same input comes to another map
_LEAST = 500  # points from which on neighbours say more than two directions
_DIRECTIONS = 30
_NEIGHBOURS = 15
_OWN = re.compile(r"^(?:obs:)?(?:x[_ .]?)?umap[_ .-]?([12xy])$", re.IGNORECASE)


@dataclass(frozen=True)
class Map:
    """Points, NaN where one has no place, and how they came to theirs."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    how: str

    def columns(self) -> dict[str, pack.Column]:
        """Return the columns of a block: both between 0 and 1, and one as long as the other."""
        low = np.array([np.nanmin(self.x), np.nanmin(self.y)])
        wide = max(np.nanmax(self.x) - low[0], np.nanmax(self.y) - low[1]) or 1.0
        return {"x": pack.linear((self.x - low[0]) / wide), "y": pack.linear((self.y - low[1]) / wide)}


def feature_map(place: Path, numbers: NDArray[np.int64], *, fires: NDArray[np.bool_], seed: int = 0) -> Map | None:
    """Lay out a site's features; None where it keeps no dictionary, or none that the table is of."""
    from elute.dictionaries.files import NAME, digest, load_dictionary

    if not (place / NAME).is_file() or int(fires.sum()) < 3:
        return None
    try:
        dictionary = load_dictionary(place)
    except EluteError as error:
        console.warn(f"no map of features: {error.line()}")
        return None
    chosen = numbers[fires]
    if int(numbers.max()) >= dictionary.n_features or int(numbers.min()) < 0:
        return None
    way, words = _way(len(chosen))
    key = files.digest_json([METHOD, "features", digest(dictionary), chosen.tolist(), seed, way])
    x, y = _kept(place / FEATURES, key, len(numbers))
    if x is None:
        parts = [dictionary.directions(site) for site in dictionary.spec.writes]
        matrix = np.concatenate([part.numpy() for part in parts], axis=1)[chosen].astype(np.float64)
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        matrix /= np.where(lengths > 0, lengths, 1.0)
        points = _lay_out(matrix, way, seed=seed, what="features")
        x, y = np.full(len(numbers), np.nan), np.full(len(numbers), np.nan)
        x[fires], y[fires] = points[:, 0], points[:, 1]
        _keep(place / FEATURES, key, {"feature": numbers, "x": x, "y": y})
    return Map(x, y, f"{words} of the directions that features write, by their cosine")


def cell_map(
    place: Path, cells: ShownCells, *, pooled: Pooled | None, data: Path | None = None, seed: int = 0
) -> Map | None:
    """Lay out the shown cells; None where nothing is known by which they could be."""
    own = own_map(cells, data)
    if own is not None:
        return own
    if pooled is None or len(cells.rows) < 3 or not len(pooled.values):
        return None
    way, words = _way(len(cells.rows))
    names = cells.frame["cell"].to_list()
    key = files.digest_json([METHOD, "cells", pooled.identity, _digest(names), len(pooled.values), seed, way])
    x, y = _kept(place / CELLS, key, len(names))
    if x is None:
        with console.progress("principal directions of cells", 1, unit="steps") as bar:
            matrix = _directions(pooled, len(names), seed=seed)
            bar.advance(1)
        points = _lay_out(matrix, way, seed=seed, what="cells")
        x, y = points[:, 0], points[:, 1]
        _keep(place / CELLS, key, {"cell": cells.frame["cell"], "x": x, "y": y})
    return Map(x, y, f"{words} of what the features did in each cell, computed by elute")


def own_map(cells: ShownCells, data: Path | None) -> Map | None:
    """Return the map that came with the data: in the run's table of cells, or in the file."""
    found = {match[1].lower(): name for name in cells.frame.columns if (match := _OWN.match(name))}
    for first, second in (("x", "y"), ("1", "2")):
        if first in found and second in found:
            both = [cells.frame[found[axis]] for axis in (first, second)]
            if all(column.dtype.is_numeric() for column in both):
                return _whole(*(column.cast(float).fill_null(float("nan")).to_numpy() for column in both))
    return None if data is None else _in_file(cells, data)


def _whole(x: Any, y: Any) -> Map | None:
    """The data's own map, if it has a place for every cell."""
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    return Map(x, y, "the data's own UMAP")


def _in_file(cells: ShownCells, data: Path) -> Map | None:
    import h5py

    from elute.models.cells.infile import open_file

    if "row" not in cells.frame.columns or cells.frame["row"].null_count():
        return None
    try:
        names = open_file(data).names
    except EluteError as error:
        console.warn(f"no map of cells is taken from the data: {error.line()}")
        return None
    rows = cells.frame["row"].to_numpy().astype(np.int64)
    fits = len(rows) and rows.max() < len(names) and names.gather(rows).to_list() == cells.frame["cell"].to_list()
    if not fits:
        console.warn(f"{data}: its cells are others than those of the run, so its map is not taken")
        return None
    with h5py.File(data) as file:
        matrix = file.get("obsm/X_umap")
        if not isinstance(matrix, h5py.Dataset) or matrix.ndim != 2 or matrix.shape[1] < 2:
            return None
        points = np.asarray(matrix[:, :2], dtype=np.float64)[rows]
    return _whole(points[:, 0], points[:, 1])


def _way(points: int) -> tuple[str, str]:
    """How points are laid out, as told apart by a digest, and in words."""
    try:
        name = f"umap-learn {version('umap-learn')}"
    except PackageNotFoundError:
        return "pca", "the first two principal directions (umap-learn is not installed)"
    if points < _LEAST:
        return "pca", "the first two principal directions"
    return name, "UMAP"


def _lay_out(matrix: NDArray[np.float64], way: str, *, seed: int, what: str) -> NDArray[np.float64]:
    """Two numbers a point."""
    if way == "pca":
        return principal(matrix - matrix.mean(axis=0), 2, seed=seed)
    console.say(f"laying out {len(matrix):,} {what} (kept, so done once)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a seed forbids, and of points that stand apart
        umap = import_module("umap").UMAP(n_neighbors=_NEIGHBOURS, metric="cosine", random_state=seed, n_jobs=1)
        return np.asarray(umap.fit_transform(matrix.astype(np.float32)), dtype=np.float64)


def principal(matrix: Any, n: int, *, seed: int) -> NDArray[np.float64]:
    """Return how far each row lies along the first n singular directions (dense or sparse, as it is: not centred).

    By a random start and four turns, as in N. Halko, P.-G. Martinsson, J. Tropp, SIAM Rev. 53, 2011.
    """
    rng = np.random.default_rng(seed)
    width = min(n + 10, *matrix.shape)
    found = np.linalg.qr(matrix @ rng.standard_normal((matrix.shape[1], width)))[0]
    for _ in range(4):
        found = np.linalg.qr(matrix @ (matrix.T @ found))[0]
    left, size, _ = np.linalg.svd(np.asarray((matrix.T @ found).T), full_matrices=False)
    scores = np.zeros((matrix.shape[0], n))
    kept = min(n, width)
    scores[:, :kept] = (found @ left[:, :kept]) * size[:kept]
    largest = scores[np.abs(scores).argmax(axis=0), np.arange(n)]
    return scores * np.where(largest < 0, -1.0, 1.0)  # of two directions that are as good the same one always


def _directions(pooled: Pooled, cells: int, *, seed: int) -> NDArray[np.float64]:
    from scipy.sparse import csc_array

    lengths = np.diff(pooled.offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    rare = np.log(cells / np.maximum(pooled.fires, 1) + 1.0)
    shares = pooled.values / pooled.tops[owner] * rare[owner]
    matrix = csc_array((shares, pooled.cells, pooled.offsets), shape=(cells, len(lengths))).tocsr()
    sizes = np.sqrt(np.asarray(matrix.power(2).sum(axis=1)).reshape(-1))
    matrix.data /= np.repeat(np.where(sizes > 0, sizes, 1.0), np.diff(matrix.indptr))
    return principal(matrix, _DIRECTIONS, seed=seed)


def _digest(names: list[str]) -> str:
    return files.digest_bytes("\0".join(names).encode(errors="replace"))


def _kept(path: Path, key: str, points: int) -> tuple[Any, Any]:
    """What lies there, if it was made of the same."""
    import polars as pl

    try:
        if not path.is_file() or pl.read_parquet_metadata(path).get("made_of") != key:
            return None, None
        frame: pl.DataFrame = pl.read_parquet(path, glob=False)
        x, y = (frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in ("x", "y"))
    except (pl.exceptions.PolarsError, OSError):
        return None, None
    return (x, y) if len(x) == points else (None, None)


def _keep(path: Path, key: str, columns: dict[str, Any]) -> None:
    import polars as pl

    frame = pl.DataFrame(columns)
    files.write_atomically(path, lambda handle: frame.write_parquet(handle, metadata={"made_of": key}))
