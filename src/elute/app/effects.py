"""What Steer and Perturb have in common: what was asked goes to a process, and what came out stands beside controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from elute.analysis.run_tables import SHEET
from elute.app import jobs, tables
from elute.app.session import lab, site_name

_BARS = 20
_KINDS = {"gene": "Genes' predicted values", "feature": "Features"}
_FRONT = (
    "symbol",
    "feature",
    "site",
    "change",
    "low",
    "high",
    "q",
    "features_most",
    "random_most",
    "genes_most",
    "before",
)
_MOST = "_most"  # ends the columns that hold the largest change under any control of a kind


def cell_type(key: str) -> str | None:
    """Ask for one cell type, or none for all."""
    path = lab().path(SHEET)
    known = tables.choices(path, "label") if path.is_file() and "label" in tables.schema(path) else []
    if known is None:
        return st.text_input("Cells of this type alone", key=key).strip() or None
    chosen: str | None = st.selectbox("Cells of this type alone", known, index=None, key=key, placeholder="all cells")
    return chosen


def sample(key: str) -> dict[str, int]:
    """Ask how many cells and controls are read."""
    left, right = st.columns(2)
    cells = left.number_input("Held-out cells", 3, 100_000, 200, key=f"{key} cells")
    controls = right.number_input("Controls", 0, 1000, 20, key=f"{key} controls")
    return {"cells": int(cells), "controls": int(controls)}


def begin(key: str, given: dict[str, Any]) -> None:
    """Start the work, in place of what was asked before."""
    if (before := st.session_state.get(key)) is not None:
        before.cancel()
    st.session_state[key] = jobs.Job(key, {"results": str(lab().folder), "site": site_name(), **given})


def finish(key: str) -> None:
    """Show how far the work is, and in the end what it came to."""
    job = jobs.under_way(key)
    if job is None or job.answer is None:
        return
    st.text(job.answer["text"])
    path = lab().path(Path(job.answer["path"]))
    kinds = tables.choices(path, "kind") or []
    kind = st.selectbox("Show", kinds, format_func=lambda name: _KINDS.get(name, name), key=f"{key} kind")
    if kind is not None:
        _table(path, kind, key)


def _table(path: Path, kind: str, key: str) -> None:
    query = tables.Query(filters=(tables.Filter("kind", among=(kind,)),), sort="q", size=100)
    total = tables.look(path, query).total
    pages = max(1, -(-total // query.size))
    page = st.number_input(f"Page, of {pages:,}", 1, pages, 1, key=f"{key} page {kind}", disabled=pages == 1)
    frame = tables.look(path, query._replace(page=int(page) - 1)).frame
    frame = frame.drop(
        "kind", *(name for name in frame.columns if frame[name].null_count() == len(frame)), strict=False
    )
    front = [name for name in _FRONT if name in frame.columns]
    frame = frame.select(*front, *(name for name in frame.columns if name not in front))
    name = "symbol" if "symbol" in frame.columns else "feature"
    if {name, "change"} <= set(frame.columns):
        _bars(frame.head(_BARS).to_dicts(), name)
    tables.grid(frame)


def _bars(rows: list[dict[str, Any]], name: str) -> None:
    """The surest changes as bars, each with the largest change that a control of either kind made."""
    names = [f"{i}. {row[name]}" for i, row in enumerate(rows, 1)]  # two may have one name
    bars = [{"name": told, "change": row["change"]} for told, row in zip(names, rows, strict=True)]
    ticks = [
        {"name": told, "most": sign * row[column], "control": column.removesuffix(_MOST)}
        for told, row in zip(names, rows, strict=True)
        for column in row
        if column.endswith(_MOST) and row[column] is not None
        for sign in (-1, 1)
    ]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": names,
        "axis": {"title": None, "labelLimit": 160, "labelOverlap": False},
    }
    spec: dict[str, Any] = {
        "height": 22 * len(bars) + 30,
        "layer": [
            {
                "data": {"values": bars},
                "mark": {"type": "bar", "tooltip": True},
                "encoding": {"y": y, "x": {"field": "change", "type": "quantitative", "title": "mean change"}},
            },
            {
                "data": {"values": ticks},
                "mark": {"type": "tick", "thickness": 2, "tooltip": True},
                "encoding": {
                    "y": y,
                    "x": {"field": "most", "type": "quantitative"},
                    "color": {"field": "control", "type": "nominal", "title": "largest under a control"},
                },
            },
        ],
    }
    st.vega_lite_chart(spec, alt="The surest changes, beside the largest change under any control")
