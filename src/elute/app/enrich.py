"""Enrich my genes: a list that a person types, held against databases as `elute genes enrich` holds it."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from elute.app import jobs, tables
from elute.validation import library
from elute.validation.enrich import LEAST
from elute.validation.settings import DatabaseConfig

KEY = "enrichment"
_USABLE = ("installed", "packaged")
_EVIDENCE = ("standard", "strict", "all")
_MOST = 20_000  # characters of a list
_TERMS = (
    "label",
    "term",
    "overlap",
    "term_size",
    "expected",
    "p",
    "null_p",
    "q",
    "q_plain",
    "odds",
    "folded_under",
    "genes",
)


def show() -> None:
    """Ask for genes, and show what the databases say."""
    st.header("Enrich my genes")
    known = _standing()
    with st.form("genes", border=False):
        text = st.text_area(
            "Genes, by any name that HGNC knows", max_chars=_MOST, key="typed", placeholder="MYH7 TNNT2 TTN"
        )
        chosen = st.multiselect(
            "Databases on this machine", list(known), list(known), format_func=lambda name: known[name], key="sources"
        )
        left, right = st.columns(2)
        limit = left.number_input("Terms of a database that are shown", 1, 500, 10, key="limit")
        evidence = right.selectbox("How good the evidence has to be", _EVIDENCE, key="evidence")
        asked = st.form_submit_button("Enrich", type="primary")
    if asked and len(text.replace(",", " ").split()) < LEAST:
        st.info(f"Name {LEAST} genes or more.")
    elif asked and not chosen:
        st.info("Choose a database; `elute databases fetch` brings them here.")
    elif asked:
        if (before := st.session_state.get(KEY)) is not None:
            before.cancel()
        config = DatabaseConfig(sources=",".join(chosen), evidence=evidence)
        given = {"genes": text.split(), "limit": int(limit), "settings": config.model_dump(mode="json")}
        st.session_state[KEY] = jobs.Job("enrich", given)
    job = jobs.under_way(KEY)
    if job is not None and job.answer is not None:
        _answered(job.answer)


@st.cache_data(ttl=30, show_spinner=False)
def _standing() -> dict[str, str]:
    """Databases that can be asked here, by name, with their titles."""
    found = (library.standing(name) for name in library.names())
    return {each.source.name: each.source.title for each in found if each.state in _USABLE}


def _answered(answer: dict[str, Any]) -> None:
    st.text(f"{answer['genes']:,} genes" + (f"; unknown: {', '.join(answer['lost'])}" if answer["lost"] else ""))
    for note in answer["notes"]:
        st.text(note)
    st.text(
        "p: against any genes; null_p: among lists of like genes; q: the larger of both, corrected; "
        "q_plain: p alone, corrected."
    )
    for record in answer["databases"].values():
        if record["status"] != "run":
            continue
        st.text(f"{record['snapshot']} · {record['background']} · {record['correction']}")
        if not record["rows"]:
            st.text("No term shares more of them than chance gives.")
            continue
        frame = pl.DataFrame(record["rows"], infer_schema_length=None)
        tables.grid(frame.select([name for name in _TERMS if name in frame.columns] or frame.columns))
    silent = [record for record in answer["databases"].values() if record["status"] != "run"]
    for record in silent:
        st.text(f"{record['title']}: not asked: {record['why']}")
