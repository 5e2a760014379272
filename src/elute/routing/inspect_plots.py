"""What was measured of a pair, drawn as SVG: variances, canonical correlations, R² of each dimension, norms."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.reports.paper.canvas import CONTROL, DIM, FOUND, OTHER, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "inspection.svg"


def draw(found: dict[str, Any]) -> bytes:
    """Draw one pair; the same numbers give the same bytes."""
    with drawing():
        import matplotlib as mpl
        from matplotlib.figure import Figure

        mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
        figure = Figure(figsize=(8.2, 6.0), layout="constrained")
        figure.suptitle(found["pair"], fontsize=10)
        axes = figure.subplots(2, 2)
        _variances(axes[0, 0], found)
        _canonical(axes[0, 1], found)
        _explained(axes[1, 0], found)
        _norms(axes[1, 1], found)
        held = io.BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    return held.getvalue()


def _variances(axes: Axes, found: dict[str, Any]) -> None:
    """How much of the variance the first directions hold."""
    for side, colour, line in (("source", FOUND, "-"), ("target", OTHER, "--")):
        rank = found["sides"][side]["rank"]
        held = np.cumsum(rank["shares"])
        label = f"{side}, effective rank {rank['effective']:.1f}"
        axes.plot(np.arange(1, len(held) + 1), held, line, color=colour, label=label)
    axes.set(xlabel="principal directions", ylabel="share of the variance", ylim=(0, 1.02))
    axes.legend(loc="lower right", frameon=False)


def _canonical(axes: Axes, found: dict[str, Any]) -> None:
    """Canonical correlations, on training rows and held-out ones, beside those with other instances' sources."""
    told = found["canonical"]
    shown = (
        ("train", DIM, ":", "training"),
        ("held_out", FOUND, "-", "held out"),
        ("shuffled_train", CONTROL, ":", "other instances, training"),
        ("shuffled_held_out", CONTROL, "-", "other instances, held out"),
    )
    for name, colour, line, label in shown:
        axes.plot(np.arange(1, len(told[name]) + 1), told[name], line, color=colour, label=label)
    axes.set(xlabel="pair of directions", ylabel="canonical correlation", ylim=(-0.2, 1.02))
    axes.legend(loc="upper right", frameon=False)


def _explained(axes: Axes, found: dict[str, Any]) -> None:
    """R² of each target dimension, worst first."""
    shown = (("linear", FOUND, "-"), ("passed through", OTHER, "--"), ("shuffled", CONTROL, "-"))
    for name, colour, line in shown:
        if (part := found["explained"].get(name)) is not None:
            values = np.sort(np.maximum(part["dimensions"], -1.0))
            label = f"{name}, {part['r2']:.3f} in all"
            axes.plot(np.arange(1, len(values) + 1), values, line, color=colour, label=label)
    axes.axhline(0, color=DIM, linewidth=0.6)
    axes.set(xlabel="target dimension, worst first (from −1)", ylabel="R², held out", ylim=(-1.05, 1.05))
    axes.legend(loc="lower right", frameon=False)


def _norms(axes: Axes, found: dict[str, Any]) -> None:
    """How long the rows are."""
    for side, colour, line in (("source", FOUND, "-"), ("target", OTHER, "--")):
        norms = found["sides"][side]["norms"]
        axes.stairs(norms["counts"], norms["edges"], color=colour, linestyle=line, label=side)
    axes.set(xlabel="norm of a row", ylabel="training rows")
    axes.legend(loc="upper left", frameon=False)
