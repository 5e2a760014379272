"""The page about other checkpoints, distributions, sizes and policies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elute.reports.html import put
from elute.reports.routing.charts import whiskers
from elute.reports.routing.document import interval, page
from elute.reports.tissue.markup import el, note, table


def write_generalise_page(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the page."""
    lead = el(
        "p",
        f"It reads {', '.join(summary['reads'])} and writes {', '.join(summary['writes'])}, where it was "
        f"not trained: {summary['instances']:,} instances a condition, half to fit a map anew, half to judge by.",
        class_="lead",
    )
    heads = [
        ("condition", False), ("explained variance", True), ("linear map", True), ("fitted anew", True),
        ("tours longer by", True), ("linear map", True), ("fitted anew", True), ("KL", True),
        ("KL less the linear map's", True),
    ]  # fmt: skip
    rows = []
    for told in summary["conditions"]:
        arms = told["arms"]
        rows.append(
            [
                f"{told['what']}: {told['name']}" if told["name"] != told["what"] else told["name"],
                *(_explained(arms[arm]) for arm in ("transcoder", "linear map", "fitted anew")),
                *(f"{100 * arms[arm]['drift']['mean']:.2f}%" for arm in ("transcoder", "linear map", "fitted anew")),
                interval(arms["transcoder"]["kl"]), interval(told["kl_less_linear_map"]),
            ]
        )  # fmt: skip
    lines = [
        (told["name"], "observed", *(told["arms"]["transcoder"]["kl"][key] for key in ("mean", "low", "high")))
        for told in summary["conditions"]
    ]
    said = note(
        "Tours and divergence are those of the condition's own policy. Fitted anew is what a linear map of the "
        "condition's own rows gives: where the dictionary is far below it, the layer has changed and the dictionary "
        "has not. A policy of random weights is the control."
    )
    drawn = whiskers("kl", "Divergence with the dictionary in the layer's place", lines, unit="KL a step")
    content = [lead, said, table(heads, rows, label="Conditions", cards=False), drawn]
    put(path, page("How far it carries", summary["pair"], content))


def _explained(told: Mapping[str, Any]) -> str:
    value = told["explained_variance"]
    return f"{value:.3f}" if value >= -1 else "below −1"
