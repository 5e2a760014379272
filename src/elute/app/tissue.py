"""Tissue: how well a gene is predicted, from which codes, what these look like, and where in the sections.

Its parts are drawn by tissue_parts.py and tissue_sections.py; what a run found is read by tissue_runs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from elute.app import jobs, tissue_parts, tissue_sections
from elute.app.session import tell
from elute.app.tissue_runs import held, runs
from elute.base.errors import DataError, EluteError

if TYPE_CHECKING:
    from elute.app.session import Lab
    from elute.app.tissue_runs import Held

KEY = "relevance"


def show() -> None:
    """Choose a run and a gene of it, and show what predicts it."""
    st.header("Tissue")
    found = runs()
    if not found:
        from elute.app.session import lab

        what = "holds no genes predicted from tissue, and no run beside it does"
        raise DataError(what, where=lab().folder, remedy="`elute tissue run` makes one.")
    left, right = st.columns(2)
    name = left.selectbox("Run", list(found), key="tissue run")
    run = found[name]
    seen = held(run)
    genes = seen.findings.genes
    if not genes:
        raise DataError("predicts no genes", where=run.folder)
    # A choice is its number: what a gene is called is text, whatever it is made of.
    place = right.selectbox("Gene", range(len(genes)), format_func=genes.__getitem__, key=f"tissue gene {run.folder}")
    gene = genes[place]
    verdict = seen.verdicts[gene]
    st.text(f"{verdict.mark} {verdict.word}: {verdict.sentence}")
    if verdict.beside:
        st.text(verdict.beside)
    parts: dict[str, Callable[[Lab, Held, str], None]] = {
        "Scores": tissue_parts.scores,
        "Codes": tissue_parts.codes,
        "Tiles": tissue_parts.tiles,
        "Sections": tissue_sections.sections,
    }
    for tab, draw in zip(st.tabs(list(parts)), parts.values(), strict=True):
        with tab:
            try:
                draw(run, seen, gene)
            except EluteError as error:
                tell(error)
    _explain(run, seen, gene)


def _explain(run: Lab, seen: Held, gene: str) -> None:
    """Ask for other codes of the gene, which a process of its own explains; what it writes is the run's."""
    st.subheader("Explain by other codes")
    explained = not seen.findings.relevance.filter(gene=gene).is_empty()
    st.text("Explained already; its references and maps are written anew." if explained else "Not explained yet.")
    with st.container(border=True):
        left, right = st.columns([3, 1], vertical_alignment="bottom")
        asked = left.text_input(
            "Codes: topN, the N of most relevance, or numbers with commas", "top20", key="tissue codes", max_chars=2000
        ).strip()
        if right.button("Explain", type="primary"):
            if (before := st.session_state.get(KEY)) is not None:
                before.cancel()
            given = {"results": str(run.folder), "gene": gene, "codes": asked}
            st.session_state[KEY] = jobs.Job(KEY, given)
            st.session_state["relevance of"] = (str(run.folder), gene)
    if st.session_state.get("relevance of") != (str(run.folder), gene):
        return
    job = jobs.under_way(KEY)
    if job is not None and job.answer is not None:
        st.text(job.answer["text"])
        if st.session_state.get("relevance shown") is not job:
            st.session_state["relevance shown"] = job
            st.rerun()  # above stands what was read before the run was written anew
