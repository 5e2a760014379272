"""Whether relevance is true: what the head gives while codes or patches are removed by it, beside a random order."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue.markup import bare, el, note
from elute.reports.tissue.reading import Findings
from elute.reports.tissue.wording import amount
from elute.reports.validation_svg import Drawing, line, mark, number, ticks, words

_ORDERS = {"most": ("observed", "most relevant first"), "random": ("null", "random"), "least": ("doubt", "least first")}
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420.0, 230.0, 46.0, 26.0, 44.0


def removal(found: Findings, gene: str) -> Markup | None:
    """The curves of a gene with what they tell; nothing where none were drawn."""
    curves = found.removal.filter(pl.col("gene") == gene)
    if curves.is_empty():
        return None
    explained = found.told("crp_relmax").get("explained")
    told = explained.get(gene, {}).get("faithful", {}) if isinstance(explained, dict) else {}
    figures = []
    for (unit,), part in curves.group_by("unit", maintain_order=True):
        drawn = _curves(part, str(unit), gene)
        said = _said(told.get(unit), str(unit)) if isinstance(told, dict) else ""
        figures.append(el("figure", drawn.svg(), el("figcaption", said) if said else None, class_="chart removal"))
    head = note(
        "What the head gives while codes, or patches, are taken away from the samples. If relevance is true, it falls "
        "faster by relevance than in random order."
    )
    return el("section", el("h2", "Is the relevance true?"), head, el("div", *figures, class_="sides"))


def _said(told: Any, unit: str) -> str:
    """The area between the orders, beside that of one random order and another."""
    if not isinstance(told, dict) or not isinstance(told.get("gain"), int | float):
        return ""
    own = f"{amount(told['gain'])}{_ends(told, 'gain')}"
    control = f"{amount(told.get('control'))}{_ends(told, 'control')}"
    low = told.get("gain_low")
    verdict = "" if low is None else " More than chance." if low > 0 else " No more than chance."
    return (
        f"{unit.capitalize()}: area between random order and by relevance {own}; between two random orders {control}, "
        f"in {number(told.get('samples'))} samples.{verdict}"
    )


def _ends(told: dict[str, Any], name: str) -> str:
    low, high = told.get(f"{name}_low"), told.get(f"{name}_high")
    return "" if low is None or high is None else f" ({amount(low)} to {amount(high)})"


def _curves(part: pl.DataFrame, unit: str, gene: str) -> Drawing:
    values = part["output"].to_numpy()
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.5
    low, high = low - room, high + room
    wide, tall = _WIDTH - _LEFT - 20, _HEIGHT - _TOP - _BOTTOM
    marks: list[Markup] = []
    for tick in ticks(low, high, 4):
        y = _TOP + tall * (high - tick) / (high - low)
        marks += [line("rule", (_LEFT, y), (_WIDTH - 20, y))]
        marks.append(words(_LEFT - 6, y + 4, number(tick, 2), kind="dim", text_anchor="end"))
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = _LEFT + wide * share
        marks.append(words(x, _HEIGHT - _BOTTOM + 16, f"{share:.0%}", kind="dim", text_anchor="middle"))
    at = _LEFT + 4
    for order, (kind, told) in _ORDERS.items():
        mine = part.filter(pl.col("order") == order).sort("removed")
        if mine.is_empty():
            continue
        across = _LEFT + wide * np.clip(mine["removed"].to_numpy(), 0, 1)
        down = _TOP + tall * (high - mine["output"].to_numpy()) / (high - low)
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(across, down, strict=True))
        marks.append(el("path", d=path, class_=f"curve {kind}-line", fill="none"))
        marks += [mark("circle", kind, cx=at + 4, cy=9, r=4), words(at + 12, 13, told, kind="dim")]
        at += 30 + 6.3 * len(told)
    marks.append(words(_WIDTH - 10, _HEIGHT - 8, f"{unit} removed →", kind="dim", text_anchor="end"))
    title = f"What the head gives for {bare(gene, 40)} while {unit} are removed, by relevance and in random order"
    return Drawing(f"removal-{unit}", title, _WIDTH, _HEIGHT, join(marks))
