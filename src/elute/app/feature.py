"""A feature in full: its genes, its cells, its groups with the donors, and terms beside what their nulls found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from elute.analysis.findings import Feature
from elute.analysis.run_tables import CELLS, FEATURES, GENES, GROUPS, NUMBERS, read_table
from elute.app import tables
from elute.app.session import guarded, lab, numbered, site, tell
from elute.base.errors import DataError, EluteError
from elute.validation.suite import line

if TYPE_CHECKING:
    import polars as pl

DONORS = "feature_donors.parquet"
_TERMS = ("label", "term", "overlap", "term_size", "expected", "p", "null_p", "q", "q_plain", "odds", "genes")
_FIGURES = {
    "frequency": ("Frequency", "{:.3%}", "share of rows in which it fires"),
    "cells": ("Cells", "{:,}", "cells in which it fires"),
    "max": ("Maximum", "{:.3g}", "largest activation"),
    "auroc_shown": ("AUROC, held out", "{:.3f}", "how well it tells its cell type, on cells that chose nothing"),
    "stability": ("Stability", "{:.2f}", "largest cosine with a feature of another seed"),
    "name_confidence": ("Sure of its name", "{:.2f}", "0: nothing speaks for it; 1: nothing is left against it"),
}


@st.fragment
@guarded
def show() -> None:
    """Ask for a feature by its number and show it."""
    folder = site()
    path = lab().path(folder, FEATURES)
    if not path.is_file():
        read_table(folder, FEATURES)  # says what is missing
    number = st.number_input("Feature", min_value=0, step=1, key="feature")
    found = tables.look(path, tables.Query(filters=(tables.Filter("feature", low=number, high=number),)))
    if not found.total:
        total = tables.look(path, tables.Query(size=1)).total
        raise DataError(f"there is no feature {number} in {total:,} features", where=folder)
    one = Feature(int(number), found.frame.row(0, named=True), folder)
    _head(one)
    parts: dict[str, Callable[[Feature], None]] = {
        "Genes": _genes,
        "Cells": _cells,
        "Groups and donors": _groups,
        "Terms": _terms,
        "Numbers": _numbers,
        "Nearest features": _near,
    }
    for tab, draw in zip(st.tabs(list(parts)), parts.values(), strict=True):
        with tab:
            try:
                draw(one)
            except EluteError as error:
                tell(error)


def _head(one: Feature) -> None:
    row = one.row
    st.subheader(f"Feature {one.number}")
    st.text(str(row.get("name") or ", ".join((row.get("top_genes") or [])[:5]) or "no name"))
    told = [str(row[key]) for key in ("kind", "cell_type") if row.get(key)]
    st.text(" · ".join(told) if told else "of no kind")
    figures = {key: row[key] for key in _FIGURES if row.get(key) is not None}
    with st.container(horizontal=True):
        for key, value in figures.items():
            title, form, explained = _FIGURES[key]
            st.metric(title, form.format(value), help=explained, width="content")
    if any(row.get("histogram") or []):
        counts = [{"strength": i, "rows": n} for i, n in enumerate(row["histogram"])]
        spec = {
            "mark": {"type": "bar"},
            "height": 120,
            "encoding": {
                "x": {
                    "field": "strength",
                    "type": "ordinal",
                    "axis": {"title": "strength, half an octave a bar", "labels": False, "ticks": False},
                },
                "y": {"field": "rows", "type": "quantitative"},
            },
        }
        st.vega_lite_chart(counts, spec, alt="Rows by strength of activation")


def _table(name: str, one: Feature) -> Path:
    """The path of a table, looked at before what reads it does."""
    return lab().path(one.folder, name)


def _genes(one: Feature) -> None:
    _table(GENES, one)
    raw = st.toggle("Rank by the plain sum, which lists what is expressed everywhere", key="raw")
    frame = one.genes_raw if raw else one.genes
    first = [
        name for name in ("symbol", "z", "z_shown", "token_z", "mean", "expression", "rate") if name in frame.columns
    ]
    tables.grid(frame.select(first))
    st.text("z: against independence, on cells that chose; z_shown: on those that chose nothing.")


def _cells(one: Feature) -> None:
    _table(CELLS, one)
    frame = one.cells
    tables.grid(frame.drop("feature"))


def _numbers(one: Feature) -> None:
    _table(NUMBERS, one)
    tables.grid(one.numbers.drop("feature"))


def _near(one: Feature) -> None:
    left, right = st.columns(2)
    left.text("By direction")
    with left:
        tables.grid(one.near)
    right.text("By firing together")
    with right:
        tables.grid(one.together)


def _groups(one: Feature) -> None:
    _table(GROUPS, one)
    frame = one.tests.drop("feature")
    frame = frame.sort("auroc", descending=True, nulls_last=True) if "auroc" in frame.columns else frame
    tables.grid(frame)
    st.text("Columns that end in _shown are of cells that chose nothing; q_donors has the donor as its unit.")
    path = _table(DONORS, one)
    dots = read_table(one.folder, DONORS, feature=one.number) if path.is_file() else None
    if dots is None or dots.is_empty():
        st.text("No donors: nothing is claimed about them.")
        return
    levels = dots.select("column", "level").unique(maintain_order=True).rows()
    # A choice is its number: two levels may have the same words.
    chosen = st.selectbox("Donors of", range(len(levels)), format_func=lambda i: f"{levels[i][1]} ({levels[i][0]})")
    _dots(dots.filter((dots["column"] == levels[chosen][0]) & (dots["level"] == levels[chosen][1])))


def _dots(dots: pl.DataFrame) -> None:
    """Each donor's mean inside and outside a group, joined by a line."""
    sides = (("mean_inside", "in the group"), ("mean_outside", "other cells"))
    rows = [
        {"donor": row["donor"], "side": said, "mean": row[key]}
        for row in dots.to_dicts()
        for key, said in sides
        if row.get(key) is not None
    ]
    spec: dict[str, Any] = {
        "mark": {"type": "line", "point": {"size": 60, "filled": True}, "tooltip": True},
        "height": 240,
        "encoding": {
            "x": {
                "field": "side",
                "type": "nominal",
                "sort": [said for _, said in sides],
                "axis": {"title": None, "labelAngle": 0},
                "scale": {"type": "point", "padding": 0.5},
            },
            "y": {"field": "mean", "type": "quantitative", "title": "mean activation"},
            "detail": {"field": "donor", "type": "nominal"},
            "tooltip": [{"field": "donor", "type": "nominal"}, {"field": "mean", "type": "quantitative"}],
        },
    }
    st.vega_lite_chart(rows, spec, alt="Mean activation of each donor's cells inside and outside the group")


def _terms(one: Feature) -> None:
    summary = tables.read(lab().path(one.folder, "validation", "summary.json"))
    records = summary.get("databases") or {}
    if not records:
        raise DataError(
            "no database was asked", where=one.folder, remedy=f"Type: elute cells validate --results {lab().folder}"
        )
    folder = lab().path(one.folder, "validation")
    paths = numbered(folder, folder.glob("*.parquet"))
    for name, record in records.items():
        st.text(_said(record))
        if name in paths and record.get("status") == "run":
            asked = tables.Query(
                filters=(tables.Filter("feature", low=one.number, high=one.number),), sort="p", size=25
            )
            _of_terms(tables.look(paths[name], asked).frame)


def _said(record: dict[str, Any]) -> str:
    """A database's headline, beside its nulls."""
    try:
        return line(record) if record["status"] == "run" else f"{record['title']}: not run: {record['why']}"
    except (KeyError, TypeError, ValueError):
        return f"{record.get('title', 'a database')}: its record cannot be read; validate anew"


def _of_terms(frame: pl.DataFrame) -> None:
    if frame.is_empty():
        st.text("No term shares more of its genes than chance gives.")
        return
    frame = frame.select([name for name in _TERMS if name in frame.columns] or frame.columns)
    tables.grid(frame)
