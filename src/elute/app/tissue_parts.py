"""What the page of tissue shows of a gene: scores beside baselines, codes, reference tiles, and the sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import streamlit as st

from elute.app import tables
from elute.app.session import tell
from elute.app.tissue_pictures import Patch, blank, laid_over
from elute.app.tissue_runs import Held, tiles_of
from elute.base.errors import EluteError
from elute.reports.tissue.reading import SPARSE
from elute.reports.tissue.tiles_shown import signed_codes
from elute.reports.tissue.verdicts import MODELS, TOLD, Score, two
from elute.reports.tissue.wording import NOT_DEFINED, amount, share

if TYPE_CHECKING:
    from elute.app.session import Lab

_SCORES = {
    "spearman": "Spearman", "pearson": "Pearson", "pearson_within": "within sections",
    "deviance_explained": "deviance explained", "calibration_slope": "calibration slope",
}  # fmt: skip
_LISTS = {
    "Raises the prediction": ("relmax", "+"),
    "Lowers the prediction": ("relmax", "-"),
    "Fires most (ActMax)": ("actmax", "+"),
}
_MOST_CODES, _ACROSS = 200, 4
_LABELS = {"labelLimit": 200, "labelOverlap": False}
_COLOURS = {"head": "#0b63c4", "beside": "#8a929b", "raises": "#0b63c4", "lowers": "#b5482a"}
_ZERO: dict[str, Any] = {
    "data": {"values": [{}]},
    "mark": {"type": "rule", "strokeDash": [4, 3], "color": "#8a929b"},
    "encoding": {"x": {"datum": 0}},
}


def scores(_run: Lab, seen: Held, gene: str) -> None:
    """Every model's R² with its interval on one axis, and the numbers."""
    mine = seen.scores.get(gene, {})
    if not mine:
        st.text("It was not scored on held-out patients.")
        return
    rows = [
        {"model": MODELS[name], "R²": one.r2, "low": one.low, "high": one.high,
         "is": "head" if name == SPARSE else "beside"}
        for name, one in mine.items()
        if one.r2 is not None
    ]  # fmt: skip
    y = {"field": "model", "type": "nominal", "sort": list(MODELS.values()), "axis": {"title": None, **_LABELS}}
    spec = _intervals(rows, y, field="R²", title="R² on held-out patients, with its 95% interval")
    st.vega_lite_chart(spec, alt="R² of the sparse codes beside that of every baseline")
    st.dataframe(pl.DataFrame([_score_row(name, mine.get(name)) for name in MODELS]), hide_index=True)
    st.text(NOT_DEFINED)
    own = mine.get(SPARSE)
    if own is not None and own.row.get("interval") == "samples":
        st.text("The interval is over samples, because there are too few patients: it is too narrow.")


def _score_row(name: str, one: Score | None) -> dict[str, str]:
    """A model's numbers as text: what was not run and what is not defined are told apart."""
    if one is None:
        return {
            "model": MODELS[name],
            "R² (interval)": "not run",
            **dict.fromkeys(_SCORES.values(), ""),
            "is": TOLD[name],
        }
    told = {title: _defined(name, key, one.row.get(key)) for key, title in _SCORES.items()}
    return {"model": MODELS[name], "R² (interval)": one.written, **told, "is": TOLD[name]}


def _defined(model: str, key: str, value: object) -> str:
    alike = (model, key) == (
        "mean",
        "calibration_slope",
    )  # one value a fold has none, whatever a line through them says
    return "–" if alike or not isinstance(value, int | float) else two(float(value))


def _intervals(rows: Sequence[dict[str, Any]], y: dict[str, Any], *, field: str, title: str) -> dict[str, Any]:
    """Points with their intervals about zero, a line each."""
    x = {"type": "quantitative", "title": title}
    colour = {
        "field": "is",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(_COLOURS), "range": list(_COLOURS.values())},
    }
    return {
        "data": {"values": list(rows)},
        "height": 26 * max(1, len(rows)) + 70,  # with the axis
        "layer": [
            _ZERO,
            {
                "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.5},
                "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "tooltip": True},
                "encoding": {"y": y, "x": {"field": field, **x}, "color": colour},
            },
        ],
    }


def codes(_run: Lab, seen: Held, gene: str) -> None:
    """Coefficients with intervals, the strongest of either sign, and how much of the relevance each code has."""
    found = seen.findings
    most = int(st.number_input("Codes of either sign", 1, _MOST_CODES, 10, key="tissue most"))
    mine = found.coefficients.filter(gene=gene)
    if mine.is_empty():
        st.text("No coefficients are recorded for this gene, or all are 0.")
        return
    parts = [
        mine.filter(sign).sort("rank", "code").head(most)
        for sign in (pl.col("coefficient") > 0, pl.col("coefficient") < 0)
    ]
    chosen = pl.concat(parts).sort("coefficient", descending=True)
    rows = [
        {**{key: row[key] for key in ("coefficient", "low", "high")}, "code": str(row["code"]),
         "is": "raises" if row["coefficient"] > 0 else "lowers"}
        for row in chosen.iter_rows(named=True)
    ]  # fmt: skip
    y = {
        "field": "code",
        "type": "nominal",
        "sort": [row["code"] for row in rows],
        "axis": {"title": "code", **_LABELS},
    }
    spec = _intervals(rows, y, field="coefficient", title="coefficient, with its 95% interval")
    st.vega_lite_chart(spec, alt="Coefficients of the gene's strongest codes, with their intervals")
    relevance = found.relevance.filter(gene=gene).select("code", "share", "samples")
    table = chosen.join(relevance, on="code", how="left", maintain_order="left").drop("gene")
    tables.grid(table.rename({"stability": "folds of its sign", "share": "share of relevance"}))
    st.text(
        "Codes that fire together share their weight: a small coefficient does not say that a code is of no matter."
    )


def tiles(run: Lab, seen: Held, gene: str) -> None:
    """The tiles in which a code matters most to the gene, with the relevance of their patches or pixels laid over."""
    found = seen.findings
    refs = found.refs.filter(gene=gene, target="sum")
    if refs.is_empty():
        st.text("Its codes were not explained. Explain them below.")
        return
    left, middle, right = st.columns(3)
    title = left.selectbox("Tiles", list(_LISTS), key="tissue list")
    kind, sign = _LISTS[title]
    order = signed_codes(found, gene, "-" if sign == "-" else "+", most=_MOST_CODES)
    listed = refs.filter(kind=kind, sign=sign)
    there = [code for code in order if code in set(listed["code"])]
    if not there:
        st.text("None of the codes that were explained does.")
        return
    code = middle.selectbox("Code", there, key=f"tissue code {title} {gene}")
    opacity = right.slider("Map over tile, in %", 0, 100, 45, step=5, key="tissue opacity") / 100
    _told(found, gene, code)
    rows = listed.filter(code=code).sort("rank").to_dicts()
    _strip(run, seen, rows, maps=_maps(run, found, rows), opacity=opacity)
    st.text(
        "Yellow raises the prediction, light blue lowers it, clear is none; the frame is around the strongest patch."
    )


def _told(found: Any, gene: str, code: int) -> None:
    """A code's line."""
    weights = found.coefficients.filter(gene=gene, code=code).to_dicts()
    own = found.relevance.filter(gene=gene, code=code).to_dicts()
    parts = [f"code {code}"]
    if weights:
        row = weights[0]
        ends = f" ({amount(row['low'])} to {amount(row['high'])})" if row["low"] is not None else ""
        parts.append(f"coefficient {amount(row['coefficient'])}{ends}")
    if own:
        parts.append(f"{share(own[0]['share'])} of the relevance")
    st.text(", ".join(parts))


def _maps(run: Lab, found: Any, rows: list[dict[str, Any]]) -> list[Any]:
    """The map of each reference: of its patches, or of its pixels where there are such maps and a person asks."""
    from elute.reports.tissue.pixel_maps import pixel_values

    keys = [(row["gene"], row["code"], row["sample_id"], row["tile_id"] or "") for row in rows]
    pixels = pixel_values(run.folder, keys)
    if (
        pixels
        and st.segmented_control("Maps", ["of patches", "of pixels"], default="of patches", key="tissue maps")
        == "of pixels"
    ):
        st.text("Relevance was followed down to the pixels of these tiles alone; each as strong as its own strongest.")
        return [pixels.get(key) for key in keys]
    return [found.maps.map(gene, code, (sample, tile)) for gene, code, sample, tile in keys]


def _strip(run: Lab, seen: Held, rows: list[dict[str, Any]], *, maps: list[Any], opacity: float) -> None:
    """Tiles side by side, each with what is known of it."""
    found = seen.findings
    pictures, fault = _pictures(run, rows)
    if fault is not None:
        tell(fault)
    known = {(r["sample_id"], r["tile_id"] or ""): r for r in _of_tiles(found.tiles, rows).iter_rows(named=True)}
    one_scale = max((float(np.abs(each).max()) for each in maps if each is not None and each.size), default=0.0)
    fine = any(each is not None and each.shape != found.grid for each in maps)
    places = st.columns(_ACROSS)
    for i, (row, values) in enumerate(zip(rows, maps, strict=True)):
        own = 0.0 if values is None or not values.size else float(np.quantile(np.abs(values), 0.995))
        grid = found.grid
        at = Patch(row["row"], row["col"], grid) if grid is not None and row["row"] is not None else None
        shown = laid_over(
            pictures[i], values, most=own if fine else one_scale, seen=found.seen, opacity=opacity,
            strongest=None if fine else at,
        )  # fmt: skip
        with places[i % _ACROSS]:
            st.image(shown, width="stretch")
            st.text(_caption(row, known.get((row["sample_id"], row["tile_id"] or ""), {})))


def _of_tiles(table: pl.DataFrame, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return table.filter(pl.col("sample_id").is_in([row["sample_id"] for row in rows]))


def _pictures(run: Lab, rows: list[dict[str, Any]]) -> tuple[list[Any], EluteError | None]:
    """The pictures of tiles; where they cannot be opened, blank ones and the reason."""
    try:
        return tiles_of(run).named([(row["sample_id"], row["tile_id"] or "") for row in rows]), None
    except EluteError as error:
        return [blank() for _ in rows], error


def _caption(row: dict[str, Any], tile: dict[str, Any]) -> str:
    told = [f"{row['rank']}. {row['sample_id']}", f"relevance {amount(row['relevance'])}"]
    told += [str(tile[key]) for key in ("label", "section", "group") if tile.get(key)]
    size, scale = tile.get("size_px"), tile.get("microns_per_pixel")
    if size and scale:
        told.append(f"{amount(size * scale)} µm a side")
    return " · ".join(told)
