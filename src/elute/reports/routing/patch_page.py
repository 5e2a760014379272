"""The page about patching: each pair's arms on the same held-out instances, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elute.reports.html import Markup, join, put
from elute.reports.routing.charts import curves, whiskers
from elute.reports.routing.document import page
from elute.reports.tissue.markup import el, named, note, table
from elute.reports.validation_svg import number

_KINDS = {"transcoder": "observed", "linear map": "doubt"}


def write_patch_page(
    path: Path, run: str, parts: Sequence[Mapping[str, Any]], *, apart: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the page; `parts` are what `patch.json` of each pair holds, `apart` how those of the same layers differ."""
    if not parts:
        return
    one = parts[0]
    lead = el(
        "p",
        f"Layers were replaced while the policy solved {one['instances']:,} held-out instances of {one['nodes']} nodes."
        " Brackets are 95% intervals over instances; differences are paired.",
        class_="lead",
    )
    put(
        path,
        page(
            "What stands in for a layer", run, [lead, _overview(parts), *_same(apart), *map(_pair, parts), _reading()]
        ),
    )


def _overview(parts: Sequence[Mapping[str, Any]]) -> Markup:
    rows = []
    for part in parts:
        arms, apart = part["arms"], part["differences"]["linear map"]
        rows.append(
            [
                named(part["pair"]), _percent(arms["transcoder"]["drift"]), _percent(arms["linear map"]["drift"]),
                _word(apart["drift"]["transcoder"]), _plain(arms["transcoder"]["kl"]), _plain(arms["linear map"]["kl"]),
                _word(apart["kl"]["transcoder"]), "yes" if part["identical_with_error"] else "NO",
            ]
        )  # fmt: skip
    heads = [
        ("pair", False), ("tours longer by", True), ("linear map", True), ("than the linear map", False), ("KL", True),
        ("linear map", True), ("than the linear map", False), ("identical with error term", False),
    ]  # fmt: skip
    return el("section", el("h2", "Beside the linear map"), table(heads, rows, label="Each pair beside the linear map"))


def _same(apart: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Dictionaries of the same layers, the first less the second."""
    if not apart:
        return []
    heads = [("first", False), ("second", False), ("tours, first less second", True), ("the first is", False),
             ("KL, first less second", True), ("the first is", False)]  # fmt: skip
    rows = [
        [
            named(told["first"]), named(told["second"]), _percent(told["drift"]), _word(told["drift"]["first"]),
            _plain(told["kl"]), _word(told["kl"]["first"]),
        ]
        for told in apart
    ]  # fmt: skip
    title = el("h2", "The same layers by other dictionaries")
    return [el("section", title, table(heads, rows, label="Dictionaries of the same layers", cards=False))]


def _pair(part: Mapping[str, Any]) -> Markup:
    arms = part["arms"]
    heads = [("in its place", False), ("tours longer by", True), ("KL a step", True), ("same node", True)]
    heads += [("same tour", True), ("KL less the transcoder's", True), ("tours less the transcoder's", True)]
    rows = []
    for name, told in arms.items():
        apart = part["differences"].get(name)
        rows.append(
            [
                name, _percent(told["drift"]), _plain(told["kl"]), f"{told['agreement']['mean']:.1%}",
                f"{told['same_tour']['mean']:.1%}", "–" if apart is None else _turned(apart["kl"]),
                "–" if apart is None else _turned(apart["drift"], share=True),
            ]
        )  # fmt: skip
    lines = [
        (name, _KINDS.get(name, "null"), *(100 * arms[name]["drift"][key] for key in ("mean", "low", "high")))
        for name in arms if arms[name]["drift"]["mean"] < 0.25
    ]  # fmt: skip
    steps = {
        name: (_KINDS[name], list(range(part["nodes"])), values)
        for name, values in part["kl_steps"].items() if name in _KINDS
    }  # fmt: skip
    sites = ", ".join(part["writes"])
    return el(
        "section",
        el("h2", named(part["pair"])),
        note(f"Replaced: {sites}. Read: {', '.join(part['reads'])}."),
        table(heads, rows, label=f"Arms of {part['pair']}", cards=False),
        whiskers("drift", "How much longer the tours are", lines, unit="tours longer by, % (arms under 25%)"),
        curves("kl", "Divergence step by step", steps, across="step of the tour", up="KL from the policy left alone"),
    )


def _reading() -> Markup:
    said = [
        "Tours longer by: the patched policy's own greedy tour, over the tour of the policy left alone, less one.",
        (
            "KL: the exact divergence of the patched policy's probabilities from the policy's own, at every step along "
            "the policy's own tour at which there is a choice."
        ),
        "Transcoder + error: the reconstruction and what it misses; nothing may change. It checks the hooks, no more.",
        (
            "Linear map: the best affine map, fitted to the same training rows. A dictionary that is not better than "
            "it explains nothing that a matrix would not."
        ),
        "Passed through: what the layer read, in the place of what it gave; a part that is added adds nothing.",
    ]
    return el("section", el("h2", "How to read this"), el("ul", *(el("li", text) for text in said), class_="note"))


def _percent(told: Mapping[str, float], digits: int = 2) -> Markup:
    text = f"{100 * told['mean']:.{digits}f}%"
    return join([text, el("span", f" [{100 * told['low']:.{digits}f}, {100 * told['high']:.{digits}f}]", class_="dim")])


def _plain(told: Mapping[str, float]) -> Markup:
    return join([number(told["mean"]), el("span", f" [{number(told['low'])}, {number(told['high'])}]", class_="dim")])


def _turned(told: Mapping[str, Any], *, share: bool = False) -> Markup:
    """The control less the transcoder."""
    turned = {"mean": -told["mean"], "low": -told["high"], "high": -told["low"]}
    return _percent(turned) if share else _plain(turned)


def _word(verdict: str) -> Markup:
    return el("span", verdict, class_=verdict if verdict in ("better", "worse") else "dim")
