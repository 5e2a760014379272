"""`classification_performance.png`: all methods, the fusion's classes, and classes source by source, with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from elute.base import console, files
from elute.reports.particles import wording
from elute.reports.particles.original import FUSION, comparison
from elute.reports.validation_svg import plain

NAME = "classification_performance.png"
_COLOURS = {"source": "#5a9ad0", "fusion": "#1f6fb2", "baseline": "#b98a3c", "control": "#a9b3bd"}
_LONGEST = 42  # letters of a name
_SOURCES = ("#9cc3e4", "#c9b28a", "#a8c7a0", "#c9a3bf", "#b7b7d8")


def performance_figure(path: Path, told: Mapping[str, Any]) -> bool:
    """Draw the picture; without matplotlib there is none, and that is said."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.text import Text
    except ModuleNotFoundError:
        console.warn(f"{path} is not drawn: matplotlib is not installed (pip install matplotlib)")
        return False
    classes = told["classes"]
    tall = 5.2 + max(4.6, 0.3 * len(told["methods"]), 0.3 * len(classes))
    figure = Figure(figsize=(15, tall), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, height_ratios=[tall - 5.2, 5.2])
    _methods(figure.add_subplot(grid[0, :2]), told)
    _classes(figure.add_subplot(grid[0, 2]), told)
    _by_source(figure.add_subplot(grid[1, :]), told)
    figure.suptitle(_title(told), fontsize=13, fontweight="bold")
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with $ in it is no mathematics
    if told["mark"]:
        figure.text(0.5, 0.5, told["mark"], fontsize=48, color="#b3591d", alpha=0.3, ha="center", va="center",
                    rotation=20, fontweight="bold")  # fmt: skip

    def fill(handle: BinaryIO) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters that the font does not have
            figure.savefig(handle, format="png", dpi=110, metadata={"Software": None})

    files.write_atomically(path, fill)
    return True


def _title(told: Mapping[str, Any]) -> str:
    source = wording.best_source(told)
    one = comparison(told, FUSION, source)
    head = f"Particles told apart: {told['n_samples']:,} in {told['n_folds']} folds"
    head += f" of whole {'runs' if told['grouped_by'] == 'run' else 'particles'}"
    if one is None:
        return head
    gain = wording.with_interval(one["difference"], sign=True)
    said = f"{told['methods'][FUSION]['title']} over {_short(source)} alone: {gain}"
    word = wording.verdict(one) if told["evidence"] else told["mark"]
    return f"{head}\n{said}, corrected p = {wording.p_value(one['p_t_holm'])}: {word}"


def _short(name: str) -> str:
    whole = " ".join(plain(name).split())
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 1]}…"


def _errors(told: Mapping[str, Any]) -> tuple[float, float, float]:
    value = told["estimate"] or 0.0
    if told["low"] is None:
        return value, 0.0, 0.0
    return value, max(0.0, value - told["low"]), max(0.0, told["high"] - value)


def _methods(axes: Any, told: Mapping[str, Any]) -> None:
    rows = list(told["methods"].values())[::-1]
    values = [_errors(one["overall"]["map"]) for one in rows]
    colours = [_COLOURS[one["kind"]] for one in rows]
    axes.barh(range(len(rows)), [v[0] for v in values], xerr=[[v[1] for v in values], [v[2] for v in values]],
              color=colours, capsize=3, ecolor="#3a444f")  # fmt: skip
    for i, (value, _, high) in enumerate(values):
        axes.text(min(value + high + 0.01, 1.02), i, wording.three(value), va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [_short(one["title"]) for one in rows], fontsize=9)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("macro average precision, with 95% intervals")
    axes.set_title("Every method in the same folds; grey ones are controls", fontsize=11)
    _plain_axes(axes, "x")


def _classes(axes: Any, told: Mapping[str, Any]) -> None:
    per_class = told["methods"][FUSION]["per_class"]
    order = sorted(per_class, key=lambda name: (per_class[name]["ap"]["estimate"] or 0.0, name))
    values = [_errors(per_class[name]["ap"]) for name in order]
    axes.barh(range(len(order)), [v[0] for v in values], xerr=[[v[1] for v in values], [v[2] for v in values]],
              color=_COLOURS["fusion"], capsize=3, ecolor="#3a444f")  # fmt: skip
    axes.set_yticks(range(len(order)), [_short(name) for name in order], fontsize=9)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("average precision")
    axes.set_title("The fusion, class by class", fontsize=11)
    _plain_axes(axes, "x")


def _by_source(axes: Any, told: Mapping[str, Any]) -> None:
    names = [*told["sources"], FUSION]
    classes = told["classes"]
    wide = 0.8 / len(names)
    for i, name in enumerate(names):
        values = [_errors(told["methods"][name]["per_class"][label]["ap"]) for label in classes]
        at = [j + (i - (len(names) - 1) / 2) * wide for j in range(len(classes))]
        colour = _COLOURS["fusion"] if name == FUSION else _SOURCES[i % len(_SOURCES)]
        axes.bar(at, [v[0] for v in values], wide * 0.94, yerr=[[v[1] for v in values], [v[2] for v in values]],
                 color=colour, label=_short(told["methods"][name]["title"]), capsize=2, ecolor="#3a444f")  # fmt: skip
    axes.set_xticks(range(len(classes)), [_short(label) for label in classes], rotation=30, ha="right", fontsize=9)
    axes.set_ylim(0, 1.16)
    axes.set_ylabel("average precision")
    axes.set_title("Each source alone, and the fusion", fontsize=11)
    axes.legend(fontsize=9, ncols=len(names), loc="upper left", frameon=False)
    _plain_axes(axes, "y")


def _plain_axes(axes: Any, along: str) -> None:
    axes.grid(visible=True, axis=along, color="#e2e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
