"""Which methods are evaluated, in the order in which they are shown, and which are held against which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elute.particles.baselines import MOST_COMPONENTS_FROM, MOST_NEIGHBOURS
from elute.particles.results import MethodKind

if TYPE_CHECKING:
    from elute.particles.settings import EvaluationConfig
    from elute.particles.table import Joined

FUSION, ACROSS, WITHIN = "fusion", "permuted_across", "permuted_within"


@dataclass(frozen=True)
class Method:
    """A method before it is run."""

    name: str
    title: str
    kind: MethodKind


@dataclass(frozen=True)
class Methods:
    """All that are run, those that are not and why, and what the controls are held against."""

    run: tuple[Method, ...]
    not_run: dict[str, str]
    without_last: str  # the fusion without the source that the controls shuffle


def methods_of(joined: Joined, config: EvaluationConfig) -> Methods:
    """Say what will be evaluated."""
    names, last = joined.names, joined.names[-1]
    learnt = config.fusion_method == "attention"
    found = [Method(name, f"{name} alone", "source") for name in names]
    found.append(Method(FUSION, f"fusion ({config.fusion_method})", "fusion"))
    found += [
        Method("concat", "side by side", "baseline"),
        Method("pca", f"{config.embedding_dim} principal components", "baseline"),
        Method("knn", "nearest neighbours", "baseline"),
        Method("average", "average", "baseline"),
    ]
    if learnt:
        found += [Method(f"network_{name}", f"{name} alone, through the network", "baseline") for name in names]
    without = f"network_{names[0]}" if learnt else names[0]
    if len(names) > 2:
        without = "without_last"
        found.append(Method(without, f"fusion without {last}", "baseline"))
    found += [
        Method(ACROSS, f"fusion, {last} permuted", "control"),
        Method(WITHIN, f"fusion, {last} permuted within classes", "control"),
    ]
    not_run = _not_run(joined, config)
    return Methods(tuple(one for one in found if one.name not in not_run), not_run, without)


def _not_run(joined: Joined, config: EvaluationConfig) -> dict[str, str]:
    """Say which baselines cannot be had here, or are the fusion itself."""
    out: dict[str, str] = {}
    if config.fusion_method in ("average", "concat"):
        out[config.fusion_method] = "it is the fusion itself"
    if len(set(joined.widths)) > 1:
        out["average"] = f"vectors of widths {', '.join(map(str, joined.widths))} have no average"
    if len(joined) > MOST_NEIGHBOURS:
        out["knn"] = f"more than {MOST_NEIGHBOURS:,} particles"
    if sum(joined.widths) > MOST_COMPONENTS_FROM:
        out["pca"] = f"more than {MOST_COMPONENTS_FROM:,} numbers a particle"
    return out


def questions(joined: Joined, methods: Methods) -> list[tuple[str, str, str]]:
    """Return what is compared: first, second, and the question that the comparison answers."""
    run = {one.name: one for one in methods.run}
    last = joined.names[-1]
    asked = [(FUSION, name, f"Is the fusion better than {name} alone?") for name in joined.names]
    asked += [
        (FUSION, one.name, f"Is the fusion better than {one.title}?") for one in methods.run if one.kind == "baseline"
    ]
    asked += [
        (FUSION, ACROSS, f"Does what {last} says of each particle count?"),
        (ACROSS, methods.without_last, f"Does {last} seem to help when its rows are permuted? It must not."),
        (WITHIN, methods.without_last, "How much would pairing by label have invented?"),
    ]
    return [(first, second, text) for first, second, text in asked if first in run and second in run]
