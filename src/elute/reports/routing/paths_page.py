"""The page about paths: what weights predict beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.reports.html import Markup, join, put
from elute.reports.routing.document import interval, page
from elute.reports.tissue.markup import el, note, table
from elute.reports.validation_svg import Drawing, chance, hint, line, mark, number, ticks, words

if TYPE_CHECKING:
    import polars as pl

_SHOWN = 40
_NAMES = {"paths": "sum of the paths", "dictionary": "the dictionary, without the target's autoencoder",
          "linear map": "the linear map in its place", "gradient": "the policy's own gradient"}  # fmt: skip


def write_paths_page(path: Path, summary: Mapping[str, Any], *, paths: pl.DataFrame, wholes: pl.DataFrame) -> None:
    """Write the page."""
    s, c, t = summary["features"]
    lead = el(
        "p",
        f"From {summary['read']} ({s} features of an autoencoder) through the dictionary ({c}) to {summary['write']} "
        f"({t} features of an autoencoder) and the margin of the policy's decisions; {summary['instances']:,} held-out "
        f"instances of {summary['nodes']} nodes.",
        class_="lead",
    )
    content = [lead, _held(summary), _wholes(summary, wholes), _paths(paths)]
    put(path, page("Paths by weights and as measured", summary["pair"], content))


def _held(summary: Mapping[str, Any]) -> Markup:
    found = summary["paths"]
    rows = [
        [name, _told(found[key]["by_weights"]), _told(found[key]["with_gates"])]
        for key, name in (("all", f"all {found['measured']} paths"), ("drawn", "those drawn at random"))
    ]
    heads: list[tuple[object, bool]] = [
        ("Spearman with what was measured", False),
        ("by weights", False),
        ("with gates", False),
    ]
    said = note(
        "By weights: products of three weights and of mean activations. With gates: the same row by row, features "
        "firing as they do. Measured: the path alone is cut, gates free to open and close."
    )
    return el("section", el("h2", "Do weights say what paths do?"), said, table(heads, rows, label="Agreement"))


def _wholes(summary: Mapping[str, Any], wholes: pl.DataFrame) -> Markup:
    whole = summary["whole"]
    rows: list[list[object]] = [[told, _told(whole[way])] for way, told in _NAMES.items()]
    parts: list[object] = [
        el("h2", "The whole effect of a source feature"),
        note("Each feature was taken from the source in the policy itself. What predicts how much the margin loses?"),
        table([("predicted by", False), ("Spearman", False)], rows, label="Whole effects"),
    ]
    if "paths_less_linear_map" in whole:
        apart = whole["paths_less_linear_map"]
        parts.append(note(f"Paths less linear map: {interval(apart)}."))
    parts.append(_scatter("whole", "whole effects", wholes["paths"].to_list(), wholes["measured"].to_list(),
                          [f"feature {f}" for f in wholes["feature"].to_list()]))  # fmt: skip
    return el("section", *parts)


def _paths(paths: pl.DataFrame) -> Markup:
    names = [f"{s} → {c} → {t}" for s, c, t in paths.select("s", "c", "t").iter_rows()]
    scatter = _scatter("paths", "paths", paths["with_gates"].to_list(), paths["measured"].to_list(), names)
    heads = [
        ("path", False),
        ("chosen", False),
        ("by weights", True),
        ("with gates", True),
        ("measured", True),
        ("± error", True),
    ]
    rows = []
    for i, row in enumerate(paths.head(_SHOWN).iter_rows(named=True)):
        rows.append(
            [names[i], row["chosen"], *(number(row[key]) for key in ("by_weights", "with_gates", "measured", "error"))]
        )
    return el("section", el("h2", "Paths"), scatter, table(heads, rows, label="Paths", cards=False))


def _scatter(name: str, title: str, xs: list[float], ys: list[float], names: list[str]) -> Markup:
    """Predictions across, what was measured upwards; on the line both are one."""
    if not xs:
        return Markup("")
    size, left, top, bottom = 340.0, 60.0, 22.0, 40.0
    low, high = min([0.0, *xs, *ys]), max([0.0, *xs, *ys])
    room = 0.04 * (high - low) or 1.0
    low, high = low - room, high + room

    def at(x: float, y: float) -> tuple[float, float]:
        share = (size - left - 10) / (high - low), (size - bottom - top) / (high - low)
        return left + share[0] * (x - low), size - bottom - share[1] * (y - low)

    marks: list[Markup] = []
    for tick in ticks(low, high, 4):
        marks += [line("rule", at(tick, low), at(tick, high)), line("rule", at(low, tick), at(high, tick))]
        marks.append(words(at(tick, low)[0], size - bottom + 15, number(tick), kind="dim", text_anchor="middle"))
        marks.append(words(left - 6, at(low, tick)[1] + 4, number(tick), kind="dim", text_anchor="end"))
    marks.append(line("mark", at(low, low), at(high, high)))
    for x, y, told in zip(xs, ys, names, strict=True):
        px, py = at(x, y)
        marks.append(
            mark(
                "circle",
                "observed",
                hint(f"{told}: {number(y)} over {number(x)}"),
                cx=px,
                cy=py,
                r=3.5,
                fill_opacity=0.7,
            )
        )
    marks += [
        words(0, 12, "↑ margin lost, measured", kind="dim"),
        words(size - 10, size - 6, "predicted →", kind="dim", text_anchor="end"),
    ]
    drawn = Drawing(name, f"What was measured over what was predicted: {title}", size, size, join(marks))
    return el("figure", drawn.svg(), class_="chart square")


def _told(each: Mapping[str, float | None]) -> str:
    return "too few" if each["rho"] is None else f"{each['rho']:+.2f} (p {chance(each['p'])})"
