"""Steer: one feature turned up, set or put out, as `elute cells steer` does it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from elute.app import effects

KEY = "steer"
_WAYS = {"times": "multiply its activation by", "to": "set its activation to", "off": "put it out"}


def show() -> None:
    """Ask which feature is set to what, and show what changes beside controls."""
    st.header("Steer")
    st.text(
        "Held-out cells are read twice, as they are and with the feature set: what changes, beside other directions."
    )
    with st.container(border=True):
        left, middle, right = st.columns(3)
        feature = left.number_input("Feature", min_value=0, step=1, key="steered")
        way = middle.selectbox("What to do", list(_WAYS), format_func=_WAYS.__getitem__, key="way")
        value = right.number_input("Value", value=2.0, step=0.5, key="value", disabled=way == "off")
        kind = effects.cell_type("steer type")
        asked: dict[str, Any] = {**effects.sample(KEY), "cell_type": kind, way: True if way == "off" else value}
        if st.button("Steer", type="primary"):
            effects.begin(KEY, {"feature": int(feature), "asked": asked})
    effects.finish(KEY)
