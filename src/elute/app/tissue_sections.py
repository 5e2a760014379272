"""A section of tissue on the page: as measured, as predicted when it was held out, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import streamlit as st

from elute.reports.tissue.verdicts import two

if TYPE_CHECKING:
    from elute.app.session import Lab
    from elute.app.tissue_runs import Held

_POINTS = 5000  # of a map


def sections(_run: Lab, seen: Held, gene: str) -> None:
    """One section as measured, as predicted, and what is left."""
    values = seen.findings.predictions.of(gene)
    frame = seen.sections.frame.join(values, on="sample_id", how="inner")
    if frame.is_empty():
        st.text("No maps: the places of the samples in a section are not known.")
        return
    names = frame["section"].unique().sort().to_list()
    place = st.selectbox("Section", range(len(names)), format_func=names.__getitem__, key="tissue section")
    mine = frame.filter(pl.col("section") == names[place]).with_columns(
        residual=pl.col("measured") - pl.col("predicted")
    )
    shown = mine[:: max(1, -(-len(mine) // _POINTS))]
    # One scale of what was measured and predicted over all sections, as in the report.
    ends = np.quantile(np.concatenate([frame["measured"].to_numpy(), frame["predicted"].to_numpy()]), (0.01, 0.99))
    most = float(np.quantile(np.abs((frame["measured"] - frame["predicted"]).to_numpy()), 0.99)) or 1.0
    rows = shown.select("sample_id", "x", "y", "measured", "predicted", "residual").to_dicts()
    ramp, about = {"scheme": "viridis", "domain": ends.tolist()}, {"scheme": "blueorange", "domain": [-most, 0, most]}
    for column, name, scale in zip(
        st.columns(3), ("measured", "predicted", "residual"), (ramp, ramp, about), strict=True
    ):
        with column:
            st.text("measured − predicted" if name == "residual" else name)
            st.vega_lite_chart(_map(rows, name, scale, extent=_extent(mine)), alt=f"The section, {name}")
    m, p = mine["measured"].to_numpy(), mine["predicted"].to_numpy()
    moves = len(m) > 2 and np.ptp(m) > 0 and np.ptp(p) > 0
    pearson = two(float(np.corrcoef(m, p)[0, 1])) if moves else "– (all are alike)"
    few = "" if len(shown) == len(mine) else f", {len(shown):,} of them drawn"
    st.text(f"{len(mine):,} samples{few}; Pearson {pearson}; {seen.findings.unit}, as predicted when held out")


def _extent(frame: pl.DataFrame) -> float:
    """Height by width of a section."""
    wide, tall = (float(np.ptp(frame[name].to_numpy())) for name in ("x", "y"))
    return min(2.0, max(0.3, tall / wide)) if wide > 0 else 1.0


def _map(rows: list[dict[str, Any]], name: str, scale: dict[str, Any], *, extent: float) -> dict[str, Any]:
    def axis(field: str, **more: Any) -> dict[str, Any]:
        return {
            "field": field,
            "type": "quantitative",
            "axis": None,
            "scale": {"zero": False, "nice": False, "padding": 10, **more},
        }

    size = max(8.0, 60_000.0 * extent / max(len(rows), 1) / 2)
    return {
        "data": {"values": rows},
        "height": int(300 * extent) + 90,  # with the legend
        "mark": {"type": "circle", "size": min(size, 200.0), "opacity": 1, "tooltip": True},
        "encoding": {
            "x": axis("x"),
            "y": axis("y", reverse=True),
            "color": {"field": name, "type": "quantitative", "scale": {**scale, "clamp": True},
                      "legend": {"title": None, "orient": "bottom", "gradientLength": 120}},
            "tooltip": [{"field": "sample_id", "type": "nominal", "title": "sample"},
                        {"field": name, "type": "quantitative", "format": ".3g"}],
        },
    }  # fmt: skip
