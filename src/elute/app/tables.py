"""Tables of findings, a page at a time: a query goes to the file, and what comes back is what is shown.

A table is scanned where it lies, so neither 16,384 features nor 100,000 cells are ever sent to a browser or kept for
each person who looks. Pages that were looked at are remembered by the file's place, size and time of writing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import streamlit as st

from elute.analysis.run_tables import CELLS, FEATURES, GENES, GROUPS, NUMBERS, SHEET
from elute.app.session import Lab, numbered
from elute.base import files
from elute.base.errors import DamagedError, DataError

if TYPE_CHECKING:
    import polars as pl

SIZES = (25, 50, 100, 250)
FEW = 50  # different texts of a column up to which they are offered one by one
_TITLES = {
    FEATURES: "Features",
    GENES: "Genes of features",
    CELLS: "Top cells of features",
    GROUPS: "Cell types and groups",
    "feature_donors.parquet": "Donors",
    NUMBERS: "Numeric columns",
    "usage.parquet": "Use in training",
}
_HOME = {SHEET: "Cells", "genes.parquet": "Genes of the model"}

Stamp = tuple[int, int, int]


class Filter(NamedTuple):
    """What one column has to be; what is None or empty asks nothing."""

    column: str
    low: float | None = None
    high: float | None = None
    among: tuple[str, ...] = ()
    holds: str = ""
    flag: bool | None = None


class Query(NamedTuple):
    """Which rows of a table, in which order, and which page of them."""

    text: str = ""
    filters: tuple[Filter, ...] = ()
    sort: str | None = None
    descending: bool = False
    page: int = 0
    size: int = SIZES[1]


class Found(NamedTuple):
    """A page of rows, and how many rows there are on all pages."""

    frame: pl.DataFrame
    total: int


def listed(lab: Lab, site: Path) -> dict[str, Path]:
    """The tables that a site has, by title."""
    found = {title: lab.path(site, name) for name, title in _TITLES.items() if (site / name).is_file()}
    found |= {title: lab.path(name) for name, title in _HOME.items() if (lab.folder / name).is_file()}
    folder = lab.path(site, "validation")
    if folder.is_dir():
        found |= {f"Validation: {name}": path for name, path in numbered(folder, folder.glob("*.parquet")).items()}
    return found


def stamp(path: Path) -> Stamp:
    """What changes when a file is written anew."""
    try:
        told = path.stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from None
    return told.st_mtime_ns, told.st_size, told.st_ino


def schema(path: Path) -> dict[str, Any]:
    """The columns of a table and their types."""
    found: dict[str, Any] = _schema(str(path), stamp(path))
    return found


def look(path: Path, query: Query) -> Found:
    """Return one page of what a query finds."""
    frame, total = _look(str(path), stamp(path), query)
    return Found(frame, total)


def choices(path: Path, column: str) -> list[str] | None:
    """The different texts of a column, if they are few."""
    found: list[str] | None = _choices(str(path), stamp(path), column)
    return found


def grid(frame: pl.DataFrame, **more: Any) -> Any:
    """Show rows, numbers with as many digits as say something."""
    config = {
        name: st.column_config.NumberColumn(format="%.4g") for name, kind in frame.schema.items() if kind.is_float()
    }
    return st.dataframe(frame, hide_index=True, column_config=config, **more)


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object that a stage wrote; nothing where there is none."""
    if not path.is_file():
        return {}
    found = files.read_json(path, what="what a stage wrote")
    if not isinstance(found, dict):
        raise DamagedError("is not what a stage writes", where=path)
    return found


@st.cache_data(max_entries=64, show_spinner=False)
def _schema(path: str, written: Stamp) -> dict[str, Any]:  # noqa: ARG001  # a part of the key
    import polars as pl

    with _Reading(path):
        return dict(pl.scan_parquet(path, glob=False).collect_schema())


@st.cache_data(max_entries=256, show_spinner=False)
def _look(path: str, written: Stamp, query: Query) -> tuple[Any, int]:  # noqa: ARG001  # a part of the key
    import polars as pl

    with _Reading(path):
        lazy = pl.scan_parquet(path, glob=False)
        types = dict(lazy.collect_schema())
        for condition in (*map(_condition, query.filters), _search(types, query.text)):
            lazy = lazy if condition is None else lazy.filter(condition)
        count = lazy.select(pl.len())
        if query.sort is not None:
            lazy = lazy.sort(query.sort, descending=query.descending, nulls_last=True, maintain_order=True)
        frame, total = pl.collect_all([lazy.slice(query.page * query.size, query.size), count])
        return frame, int(total.item())


@st.cache_data(max_entries=256, show_spinner=False)
def _choices(path: str, written: Stamp, column: str) -> list[str] | None:  # noqa: ARG001  # a part of the key
    import polars as pl

    with _Reading(path):
        found = pl.scan_parquet(path, glob=False).select(pl.col(column).drop_nulls().unique()).collect()[column]
        return sorted(found.to_list()) if len(found) <= FEW else None


class _Reading:
    """What polars says of a file that is not what it should be, in one line."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        import polars as pl

        if isinstance(error, pl.exceptions.PolarsError | OSError):
            first = (str(error).splitlines() or [""])[0]
            raise DamagedError(f"cannot be read: {first}", where=self.path, remedy="Write it anew.") from None


def _condition(asked: Filter) -> pl.Expr | None:
    """A filter as polars has it."""
    import polars as pl

    column, parts = pl.col(asked.column), []
    if asked.low is not None:
        parts.append(column >= asked.low)
    if asked.high is not None:
        parts.append(column <= asked.high)
    if asked.among:
        parts.append(column.is_in(list(asked.among)))
    if asked.holds:
        parts.append(_holds(column.cast(pl.String), asked.holds))
    if asked.flag is not None:
        parts.append(column == asked.flag)
    return pl.all_horizontal(parts) if parts else None


def _search(types: dict[str, Any], text: str) -> pl.Expr | None:
    """Rows of which any text, or any of a list of texts, holds the words that were typed."""
    import polars as pl

    if not text.strip():
        return None
    parts = [_holds(pl.col(name), text.strip()) for name, kind in types.items() if kind == pl.String]
    lists = [name for name, kind in types.items() if kind == pl.List(pl.String)]
    parts += [_holds(pl.col(name).list.join("\n", ignore_nulls=True), text.strip()) for name in lists]
    return pl.any_horizontal([part.fill_null(False) for part in parts]) if parts else pl.lit(False)


def _holds(texts: pl.Expr, words: str) -> pl.Expr:
    return texts.str.to_lowercase().str.contains(words.lower(), literal=True)
