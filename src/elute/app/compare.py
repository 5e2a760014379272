"""Compare runs: features of this run that another one found again, and both runs' counts beside their controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import streamlit as st

from elute.analysis.run_tables import FEATURES
from elute.app import jobs, tables
from elute.app.comparing import ALIKE
from elute.app.session import Lab, lab
from elute.base.errors import DataError

KEY = "comparison"
_READ = ("sae_final.pt", FEATURES)
_SHOWN = 100


def show() -> None:
    """Choose another run and a site that both have."""
    st.header("Compare runs")
    mine = lab()
    others = mine.beside()
    if not others:
        raise DataError(
            "no other run lies beside this one", where=mine.folder.parent, remedy="Put runs into one folder."
        )
    other = others[st.selectbox("With the run", list(others), key="other run")]
    pairs = _pairs(mine, other)
    if not pairs:
        raise DataError(f"has no site in common with {mine.folder.name}", where=other.folder)
    chosen = st.selectbox("At the site", list(pairs), key="other site")
    pair = pairs[chosen]
    _counts((mine, other), pair)
    st.subheader("Features found again")
    if st.button("Match features", type="primary"):
        if (before := st.session_state.get(KEY)) is not None:
            before.cancel()
        folders = [str(_checked(run, folder)) for run, folder in zip((mine, other), pair, strict=True)]
        st.session_state[KEY] = jobs.Job("compare", dict(zip(("mine", "theirs"), folders, strict=True)))
        st.session_state["compared"] = pair
    if st.session_state.get("compared") == pair and (job := jobs.under_way(KEY)) and job.answer:
        _matched(job.answer)


def _pairs(mine: Lab, other: Lab) -> dict[str, tuple[Path, Path]]:
    """The folders of each site that both have; two runs of one site each are a pair, whatever the sites are called."""
    here, there = mine.sites(), other.sites()
    if len(here) == len(there) == 1:
        (name, first), (second,) = *here.items(), there.values()
        return {name: (first, second)}
    return {name: (here[name], there[name]) for name in here if name in there}


def _checked(run: Lab, folder: Path) -> Path:
    for name in _READ:
        run.path(folder, name)
    return folder


def _counts(runs: tuple[Lab, Lab], pair: tuple[Path, Path]) -> None:
    """What each run counted, and what its controls did."""
    st.subheader("Counts beside controls")
    first, second = (_counted(run, folder) for run, folder in zip(runs, pair, strict=True))
    rows = [{"what": what, "a": first.get(what), "b": second.get(what)} for what in dict.fromkeys([*first, *second])]
    frame = pl.DataFrame(rows, schema={"what": pl.String, "a": pl.String, "b": pl.String})
    st.text("\n".join(f"{letter}: {run.folder.name}" for letter, run in zip("ab", runs, strict=True)))
    tables.grid(frame.with_columns(pl.col("a", "b").fill_null("not run")))


def _counted(run: Lab, folder: Path) -> dict[str, str]:
    told: dict[str, str] = {}
    path = run.path(folder, FEATURES)
    if path.is_file():
        total = tables.look(path, tables.Query(size=1)).total
        told["features"] = f"{total:,}"
        if "alive" in tables.schema(path):
            fire = tables.look(path, tables.Query(filters=(tables.Filter("alive", flag=True),), size=1))
            told["features that fire"] = f"{fire.total:,}"
    summary = tables.read(run.path(folder, "validation", "summary.json"))
    follow = summary.get("follow")
    for name, found in (follow if isinstance(follow, dict) else {}).items():
        if isinstance(found, dict) and "follow" in found:
            told[f"follow a cell type: {name}"] = _of(found["follow"], found.get("columns"))
    databases = summary.get("databases")
    for record in (databases if isinstance(databases, dict) else {}).values():
        told |= _database(record)
    return told


def _database(record: Any) -> dict[str, str]:
    """A database's count, and the same among lists in which there is less to find."""
    if not isinstance(record, dict) or record.get("status") != "run":
        return {}
    title, of = record.get("title", ""), record.get("features", 0)
    told = {f"with a term of {title}": _of(record.get("significant"), of)}
    null = record.get("null")
    if isinstance(null, dict):
        mean, low, high = (_count(null.get(key)) for key in ("mean", "low", "high"))
        told[f"with a term of {title}: matched lists"] = f"{mean} ({low}–{high})"
    for name, control in (record.get("controls") or {}).items():
        if isinstance(control, dict) and "significant" in control:
            told[f"with a term of {title}: {name}"] = _count(control["significant"])
    return told


def _of(value: object, of: object) -> str:
    return f"{_count(value)} of {_count(of)}" if value is not None else _count(value)


def _count(value: object) -> str:
    """A number, or that nothing is claimed."""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else "no claim"


def _matched(answer: dict[str, Any]) -> None:
    alike, mean, (a, b) = answer["alike"], answer["mean"], answer["features"]
    st.text(f"{a:,} features that fire here, {b:,} there. Found again: cosine of {ALIKE:g} or more.")
    if not answer["same model"]:
        st.warning("The two runs read models with other weights: equal directions need not mean the same there.")
    said = {"found": "in the other run", "random": "random directions", "shuffled": "shuffled columns"}
    for place, (key, words) in zip(st.columns(3), said.items(), strict=True):
        place.metric(f"Found again: {words}", f"{alike[key]:,}", help="of the features that fire here")
        place.text(f"mean cosine {mean[key]:.2f}")
    frame = pl.DataFrame(answer["rows"], infer_schema_length=None).sort("cosine", descending=True)
    pages = max(1, -(-len(frame) // _SHOWN))
    page = st.number_input(f"Page, of {pages:,}", 1, pages, 1, key="page of matches", disabled=pages == 1)
    tables.grid(frame.slice((int(page) - 1) * _SHOWN, _SHOWN))
