"""An AnnData object in memory as a sheet of cells; anndata itself is not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from elute.base.errors import ConfigError, DataError
from elute.models.cells.sheet import Sheet
from elute.store.imports.nonzeros import Nonzeros, in_numpy, in_scipy
from elute.store.imports.parts import Column, series

if TYPE_CHECKING:
    import polars as pl

WHERE = "AnnData in memory"


def open_object(adata: Any) -> Sheet:
    """Look at an AnnData object."""
    if not all(hasattr(adata, name) for name in ("X", "obs", "var", "layers", "raw")):
        raise ConfigError(f"cells are a path to an .h5ad file, or an AnnData object, not {type(adata).__name__}")
    if getattr(adata, "isbacked", False):
        raise DataError("is backed by a file", where=WHERE, remedy="Give the file's path in its place: adata.filename.")
    held: dict[str, Callable[[], Any]] = {
        "X": lambda: adata.X,
        **{f"layers/{name}": partial(_layer, adata, name) for name in adata.layers},
    }
    if adata.raw is not None:
        held["raw"] = lambda: adata.raw.X
    matrices: dict[str, Callable[[], Nonzeros]] = {
        name: partial(_matrix, get, name) for name, get in held.items() if name != "X" or adata.X is not None
    }
    index, obs = _table(adata.obs)
    names = next(obs[index].read(0, max(1, len(adata.obs))), series(_no_text(), WHERE))
    return Sheet(
        WHERE, names, obs, matrices, lambda matrix: _table((adata.raw if matrix == "raw" else adata).var), None
    )


def _layer(adata: Any, name: str) -> Any:
    return adata.layers[name]


def _no_text() -> Any:
    import numpy as np

    return np.empty(0, object)


def _matrix(get: Callable[[], Any], name: str) -> Nonzeros:
    import numpy as np
    from scipy.sparse import issparse

    where = f"{WHERE}, {name}"
    matrix: Any = get()
    if issparse(matrix):
        sparse: Any = matrix
        return in_scipy(sparse if sparse.format in ("csr", "csc") else sparse.tocsr(), where)
    if isinstance(matrix, np.ndarray) and matrix.ndim == 2:
        return in_numpy(np.asarray(matrix), where)
    raise DataError(
        f"is a {type(matrix).__name__}, not an array or a sparse matrix",
        where=where,
        remedy="Bring it into memory first: adata = adata.to_memory().",
    )


def _table(frame: Any) -> tuple[str, dict[str, Column]]:
    """List the columns of a pandas table; the index has a name that no column has."""
    index = "_index"
    while index in frame.columns:
        index += "_"
    columns = {
        index: _column(frame.index),
        **{str(name): _column(frame.iloc[:, i]) for i, name in enumerate(frame.columns)},
    }
    return index, columns


def _column(values: Any) -> Column:
    """Take a pandas column as a column of metadata, as it would be read back from a file."""
    kind = str(values.dtype)
    text = kind in ("object", "category", "str") or kind.startswith("string")

    def read(start: int, rows: int) -> Iterator[pl.Series]:
        for at in range(start, len(values), rows):
            yield _series(values[at : at + rows] if not hasattr(values, "iloc") else values.iloc[at : at + rows])

    return Column(len(values), "string" if text else kind, read)


def _series(values: Any) -> pl.Series:
    import polars as pl

    if values.dtype.kind in "fiub" and not hasattr(values.dtype, "na_value"):
        return series(values.to_numpy(), WHERE)
    missing = values.isna()
    known = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
    kinds = {type(value) for value in known if value is not None}
    alike = len(kinds) == 1 and kinds <= {int, float, bool, str}
    return pl.Series(known) if alike else pl.Series([v if v is None else str(v) for v in known], dtype=pl.String)
