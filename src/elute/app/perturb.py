"""Perturb: one gene taken away, or its value changed, as `elute cells perturb` does it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from elute.app import effects

KEY = "perturb"
_WAYS = {"absent": "take it away", "up": "raise its value", "down": "lower its value"}


def show() -> None:
    """Ask which gene is changed how, and show what changes elsewhere beside genes like it."""
    st.header("Perturb")
    st.text(
        "Held-out cells that have the gene are read as they are and without it: what changes, beside genes like it."
    )
    with st.container(border=True):
        left, right = st.columns(2)
        gene = left.text_input("Gene", key="gene", placeholder="symbol or id", max_chars=200).strip()
        way = right.selectbox("What to do", list(_WAYS), format_func=_WAYS.__getitem__, key="change")
        asked: dict[str, Any] = {"cell_type": effects.cell_type("perturb type"), **effects.sample(KEY), "how": way}
        if st.button("Perturb", type="primary"):
            if gene:
                effects.begin(KEY, {"gene": gene, "asked": asked})
            else:
                st.info("Name a gene.")
    effects.finish(KEY)
