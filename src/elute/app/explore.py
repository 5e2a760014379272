"""Explore: the tables of findings by queries, one feature in full, and the Explorer if it was written."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from elute.app import feature, tables
from elute.app.session import guarded, lab, site
from elute.app.tables import FEW, SIZES, Filter, Query
from elute.base.errors import DataError

if TYPE_CHECKING:
    import polars as pl

TABLES, ONE, PAGE = "Tables", "One feature", "Explorer"
NAME = "dashboard.html"
_HEIGHT = 900
# What a row is told by comes first; lists of numbers are looked at in one feature.
_FRONT = ("feature", "name", "kind", "frequency", "top_genes", "cell_type", "auroc", "auroc_shown")
_STYLE = "html, body, iframe { margin: 0; width: 100%; height: 100%; border: 0; } body { overflow: hidden; }"
# A page in a frame has the policy of what frames it, besides its own.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "worker-src blob:; form-action 'none'"
)
_LARGEST = 60_000_000  # bytes of a page that are sent


def show() -> None:
    """Let a person choose between the tables, a feature and the Explorer."""
    st.header("Explore")
    views = [TABLES, ONE] + ([PAGE] if (lab().folder / NAME).is_file() else [])
    if st.session_state.get("view") not in views:
        st.session_state["view"] = TABLES
    view = st.segmented_control("View", views, key="view", label_visibility="collapsed")
    {ONE: feature.show, PAGE: _explorer}.get(view or TABLES, _tables)()


@st.fragment
@guarded
def _tables() -> None:
    found = tables.listed(lab(), site())
    if not found:
        raise DataError("holds no tables yet", where=site(), remedy="`elute cells extract` writes them.")
    left, right = st.columns([1, 2])
    title = left.selectbox("Table", list(found), key="table")
    text = right.text_input(
        "Search", key=f"search {title}", placeholder="a gene, a cell type, a term: any text in a row"
    )
    path = found[title]
    types = tables.schema(path)
    with st.expander("Filter and sort"):
        filters = _filters(path, types, title)
        sort, descending = _order(types, title)
    left, middle, _ = st.columns([1, 1, 2])
    size = left.selectbox("Rows a page", SIZES, index=1, key="size")
    place = middle.empty()
    query = Query(text, filters, sort, descending, 0, size)
    # Another query begins at its first page.
    total = tables.look(path, query).total
    pages = max(1, math.ceil(total / size))
    number = place.number_input(
        f"Page, of {pages:,}", 1, pages, 1, key=f"page {title} {hash(query)}", disabled=pages == 1
    )
    page = tables.look(path, query._replace(page=int(number) - 1))
    _grid(page.frame, title)
    first = (int(number) - 1) * size
    st.text(f"{total:,} rows" + (f"; {first + 1:,} to {first + len(page.frame):,} are shown" if total else ""))


def _grid(frame: pl.DataFrame, title: str) -> None:
    """Show rows; a row that is chosen leads to its feature."""
    if "feature" not in frame.columns or frame.is_empty():
        tables.grid(frame, key="grid of all")
        return
    front = [name for name in _FRONT if name in frame.columns]
    behind = [name for name, kind in frame.schema.items() if name not in front and kind.is_nested()]
    frame = frame.select(*front, *(name for name in frame.columns if name not in (*front, *behind)))
    chosen = tables.grid(frame, on_select="rerun", selection_mode="single-row", key=f"grid {title} {_place(frame)}")
    rows = chosen["selection"]["rows"]
    if rows and rows[0] < len(frame):
        number = int(frame["feature"][rows[0]])
        if st.button(f"Open feature {number}", type="primary", on_click=_open, args=(number,)):
            st.rerun()  # the whole page: this is a part of it


def _place(frame: pl.DataFrame) -> int:
    """What tells one page of rows from another, so that a choice does not outlive its rows."""
    return hash(tuple(frame["feature"].to_list()))


def _open(number: int) -> None:
    st.session_state["view"], st.session_state["feature"] = ONE, number


def _filters(path: Path, types: dict[str, Any], title: str) -> tuple[Filter, ...]:
    """Ask for each column that is chosen what it has to be."""
    plain = [name for name, kind in types.items() if kind.is_numeric() or kind in _texts() or _is_flag(kind)]
    chosen = st.multiselect("Columns to filter by", plain, key=f"by {title}", placeholder="choose columns")
    return tuple(_filter(path, name, types[name], key=f"{title} {name}") for name in chosen)


def _filter(path: Path, name: str, kind: Any, *, key: str) -> Filter:
    st.text(name)
    if kind.is_numeric():
        low, high = st.columns(2)
        least = low.number_input("At least", value=None, format="%g", key=f"low {key}")
        most = high.number_input("At most", value=None, format="%g", key=f"high {key}")
        return Filter(name, low=least, high=most)
    if _is_flag(kind):
        asked = st.selectbox("Is", ["yes", "no"], index=None, key=f"flag {key}", placeholder="any")
        return Filter(name, flag=None if asked is None else asked == "yes")
    known = tables.choices(path, name)
    if known is not None:
        picked = st.multiselect(f"One of up to {FEW}", known, key=f"among {key}", placeholder="any")
        return Filter(name, among=tuple(picked))
    return Filter(name, holds=st.text_input("Holds", key=f"holds {key}"))


def _order(types: dict[str, Any], key: str) -> tuple[str | None, bool]:
    plain = [name for name, kind in types.items() if not kind.is_nested()]
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    by = left.selectbox("Sort by", plain, index=None, key=f"sort {key}", placeholder="the table's own order")
    return by, right.toggle("Largest first", value=True, key=f"down {key}")


def _texts() -> tuple[Any, ...]:
    import polars as pl

    return pl.String, pl.Categorical


def _is_flag(kind: Any) -> bool:
    import polars as pl

    return bool(kind == pl.Boolean)


@guarded
def _explorer() -> None:
    path = lab().path(NAME)
    if tables.stamp(path)[1] > _LARGEST:
        raise DataError(f"is larger than {_LARGEST / 1e6:.0f} MB", where=path, remedy="Open it in a browser itself.")
    st.iframe(
        _caged(path.read_text(encoding="utf-8", errors="replace")), height=_HEIGHT, alt="The Explorer of this run"
    )


def _caged(page: str) -> str:
    """A page within a frame of no origin: what came with a run's folder can neither reach the Lab nor the network.

    The base keeps its own addresses (#…) its own: they would else be taken for places of the Lab.
    """
    inner = html.escape(page, quote=True)
    frame = f'<iframe title="Explorer" sandbox="allow-scripts allow-downloads" srcdoc="{inner}"></iframe>'
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    head = f'<head><meta charset="utf-8">{policy}<base href="about:srcdoc"><style>{_STYLE}</style></head>'
    return f'<!doctype html><html lang="en">{head}<body>{frame}</body></html>'
