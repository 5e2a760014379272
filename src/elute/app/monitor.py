"""Train monitor: the curves of what is being trained in the run's folder, drawn anew while they grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from elute.app.session import CURVES, guarded, lab
from elute.base.errors import DataError

EVERY = 2.0  # seconds between two looks at what is still written
_POINTS = 1500  # of a curve that are drawn
_LARGEST = 50_000_000  # bytes that are read, the last ones
_SAID = {
    "loss": "Loss: squared error, penalty and the dead features' loss",
    "explained_variance": "Explained variance of the normalised rows",
    "l0": "Features that fired in a row",
    "dead": "Share of features that have been silent for long",
    "gradient_norm": "Length of the gradient before it is clipped",
    "price": "Price of firing",
}


def show() -> None:
    """Choose among the trainings of the run and show one."""
    st.header("Train monitor")
    found = lab().trainings()
    if not found:
        raise DataError("nothing was trained here yet", where=lab().folder, remedy="`elute cells train` begins.")
    chosen = st.selectbox("Training", list(found), key="training")
    folder = found[chosen]
    (_still if _ended(folder) else _live)(str(folder.relative_to(lab().folder)))


@st.fragment(run_every=EVERY)
def _live(place: str) -> None:
    if _ended(lab().path(place)):
        st.rerun()  # once more, without looking again and again
    _curves(place)


def _still(place: str) -> None:
    _curves(place)


def _curves(place: str) -> None:
    guarded(lambda: _draw(lab().path(place)))()


def _ended(folder: Path) -> bool:
    """The table is written when training has ended."""
    return (folder / CURVES[1]).is_file()


def _draw(folder: Path) -> None:
    records = recorded(lab().path(folder, CURVES[0]))
    if not records:
        st.text("No record yet: the first one comes after some steps.")
        return
    steps = f"{len(records):,} records, up to step {records[-1]['step']:,}"
    st.text(f"{steps}; training has ended" if _ended(folder) else f"{steps}; looked at every {EVERY:g} s")
    names = [name for name in dict.fromkeys(key for record in records for key in record) if name != "step"]
    names.sort(key=lambda name: list(_SAID).index(name) if name in _SAID else len(_SAID))
    thin = records[:: max(1, len(records) // _POINTS)]
    thin += [] if thin[-1] is records[-1] else [records[-1]]
    places = st.columns(2)
    for i, name in enumerate(names):
        with places[i % 2]:
            st.text(_SAID.get(name, name))
            rows = [{"step": each["step"], "value": each[name]} for each in thin if _is_number(each.get(name))]
            st.line_chart(rows, x="step", y="value", x_label="step", y_label="", height=220)


def recorded(path: Path) -> list[dict[str, Any]]:
    """The records of a training that may go on: half a line at the end is not read yet."""
    if not path.is_file():
        return []
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - _LARGEST))
        lines = handle.read(_LARGEST).split(b"\n")[:-1]
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            found.append(record)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
