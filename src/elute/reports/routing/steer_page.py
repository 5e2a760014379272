"""The page about doses: what features do as they are turned up and down, and when they come from another instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elute.reports.html import Markup, put
from elute.reports.routing.charts import curves
from elute.reports.routing.document import interval, page
from elute.reports.tissue.markup import el, note, table
from elute.reports.validation_svg import number

_KINDS = {"feature": "observed", "random direction": "null"}


def write_steer_page(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the page."""
    lead = el(
        "p",
        f"{len(summary['features'])} features that write {', '.join(summary['writes'])} were multiplied by a factor "
        f"wherever they fire, on {summary['instances']:,} held-out instances of {summary['nodes']} nodes.",
        class_="lead",
    )
    content = [lead, _slopes(summary), *map(_feature, summary["doses"]), _moved(summary)]
    put(path, page("Dose and response", summary["pair"], content))


def _slopes(summary: Mapping[str, Any]) -> Markup:
    heads = [("feature", False), ("margin a factor", True), ("random directions", True), ("as large", True),
             ("p", True), ("attribution", True), ("unchanged at 1", False)]  # fmt: skip
    rows = [
        [
            told["feature"], interval(told["slope"]), _range(told["random_slopes"]),
            f"{told['as_large']} of {len(told['random_slopes'])}", number(told["p"]), number(told["attribution"]),
            {True: "yes", False: "NO", None: "not asked"}[told["unchanged_at_1"]],
        ]
        for told in summary["doses"]
    ]  # fmt: skip
    said = note(
        "The margin is how far the node that the policy takes lies above the runner-up. To first order its slope from "
        "factor 0 to 1 is the feature's attribution. Random directions are as long, at the same nodes: the lowest and "
        "the highest slope stand beside it, and p is the share of them, the feature counted in, that is as large."
    )
    return el("section", el("h2", "Slopes"), said, table(heads, rows, label="Slopes", cards=False))


def _feature(told: Mapping[str, Any]) -> Markup:
    parts: list[object] = [el("h2", f"Feature {told['feature']}")]
    for metric, up in (("margin", "change of the margin"), ("kl", "KL from the policy left alone")):
        lines = {
            name: (_KINDS[name], [c["factor"] for c in curve], [c[metric]["mean"] for c in curve])
            for name, curve in told["curves"].items()
        }
        parts.append(curves(metric, f"{up}, feature {told['feature']}", lines, across="factor", up=up))
    return el("section", *parts, class_="feature")


def _moved(summary: Mapping[str, Any]) -> Markup:
    if not summary["transplants"]:
        return el("section", note("At the decoder's steps nothing was transplanted."))
    ways = list(summary["transplants"][0]["kl"])
    heads = [("from another instance", False), *((f"KL, {way}", True) for way in ways), ("nearest less any", True)]
    rows = [
        [
            "whole code" if told["feature"] is None else f"feature {told['feature']}",
            *(interval(told["kl"][way]) for way in ways), interval(told["nearest_less_any"]),
        ]
        for told in summary["transplants"]
    ]  # fmt: skip
    said = note(
        "Activations were taken from the next instance: at the node that lies nearest, at any node, or from the same "
        "instance at other nodes. Where the nearest place changes less than any node, the feature carries a place."
    )
    return el("section", el("h2", "Transplants"), said, table(heads, rows, label="Transplants", cards=False))


def _range(values: Sequence[float]) -> str:
    return f"{number(min(values))} to {number(max(values))}"
