"""From replacement models of one input to a folder of graphs: the same for any model.

FOLDER/<name>.json, <name>.edges.csv, <name>.heads.csv, <name>.graphml, graph-metadata.json
FOLDER/checks.json             what graphs are held against: the first one, the others beside it
FOLDER/graph.html              the first one; of further ones, graph-<what follows its name>.html

made = {one.name: make(folder, one, config, meanings=…) for one in subjects}
checks = finish(folder, made, title=…, beside=…, about=…)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.reports.graphs import telling
from elute.reports.graphs.write import NAME, write_graph_page

if TYPE_CHECKING:
    import polars as pl

    from elute.base.contracts import Site
    from elute.graphs.replacement import Replacement
    from elute.graphs.result import Explained
    from elute.graphs.settings import GraphConfig

    Meanings = Callable[[Explained], Mapping[str, Mapping[str, Any]]]

CHECKS = "checks.json"
_REACHING = 40  # features whose reach into attention heads is told


@dataclass(frozen=True, eq=False)
class Subject:
    """One input, with one kind of dictionaries in the place of the MLPs."""

    name: str  # of its files
    title: str  # of the dictionaries
    replacement: Replacement
    prompt: Sequence[str]  # what stands at each position
    ids: Sequence[int]
    scan: str
    digests: tuple[str, ...]  # of the dictionaries
    text: str  # what the input is
    heads: Sequence[tuple[str, Site, int]] = ()  # of later layers: what it is called, where, how many
    elsewhere: Sequence[tuple[Mapping[str, Any], Callable[[], Replacement]]] = ()  # further inputs


@dataclass(frozen=True, eq=False)
class Made:
    """What was found, besides the files."""

    checks: dict[str, Any]
    features: Mapping[str, Mapping[str, Any]]  # what they mean, by `layer_feature`


def make(folder: Path, subject: Subject, config: GraphConfig, *, meanings: Meanings) -> Made:
    """Make, check and write one graph; `meanings` says what the features that it keeps are."""
    from elute.graphs.export import About
    from elute.graphs.result import check, control, explain, write

    made = explain(subject.replacement, config, prompt=subject.prompt, ids=subject.ids)
    checked = check(made, config)
    told = telling.told(subject.title, checked, nodes=len(made.kept), links=int(made.kept.adjacency.nnz))
    told["others"] = []
    if config.shuffled:
        told["others"].append(telling.told(f"{subject.title}, decoders shuffled", control(made, checked, config)))
    told["elsewhere"] = _elsewhere(subject, config)
    features = meanings(made)
    about = About(
        subject.name, scan=subject.scan, transcoders=subject.digests, prompt=subject.text,
        labels=_labels(made, features),
    )  # fmt: skip
    write(folder, made, about, edges=_heads(made, subject))
    return Made(told, features)


def finish(
    folder: Path, made: Mapping[str, Made], *, title: str, beside: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the pages and checks.json; return what a summary says."""
    told = {name: one.checks for name, one in made.items()}
    first = next(iter(made))
    for name, one in made.items():
        page = folder / (NAME if name == first else f"graph-{name.removeprefix(f'{first}-')}.html")
        shown = {**beside, "features": one.features}
        checks = telling.beside(told, name)
        write_graph_page(
            page, folder / f"{name}.json", title=f"{title}: {one.checks['name']}", checks=checks, beside=shown
        )
    files.write_json(folder / CHECKS, {**about, **telling.beside(told, first)})
    return {**about, "graphs": {one["name"]: telling.brief(one) for one in told.values()}}


def is_whole(folder: Path) -> bool:
    """Whether the files that people open are all there."""
    return all((folder / name).is_file() for name in (CHECKS, NAME, f"{folder.name}.json"))


def _elsewhere(subject: Subject, config: GraphConfig) -> dict[str, Any]:
    """Hold influence against measured effects on further inputs, too; `mean` is over all of them."""
    from elute.graphs.attribution import attribute
    from elute.graphs.interventions import agreement, true_effects

    found = []
    for about, replace in subject.elsewhere:
        replacement = replace()
        graph = attribute(replacement, max_features=config.max_features)
        effects = true_effects(replacement, graph, most=config.ablated, seed=config.graph_seed)
        found.append(telling.elsewhere(about, agreement(effects), graph.scores()))
    return {"inputs": found, "mean": telling.means(found)}


def _heads(made: Explained, subject: Subject) -> pl.DataFrame:
    """Return how far the most influential features reach into the attention heads of later layers."""
    import polars as pl

    from elute.graphs.downstream import onto

    parts = []
    for name, place, count in subject.heads:
        found = onto(made.replacement, made.kept, place, heads=count, most=_REACHING)
        parts.append(found.with_columns(target=pl.lit(f"{name} ") + pl.col("target")))
    if not parts:
        return pl.DataFrame(schema={"source": pl.String, "target": pl.String, "weight": pl.Float64})
    return pl.concat(parts).sort("weight", descending=True, maintain_order=True)


def _labels(made: Explained, features: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the label of each node whose feature has one."""
    found = {}
    for node, kind, layer, feature in made.kept.nodes.select("node_id", "kind", "layer", "feature").iter_rows():
        label = features.get(f"{layer}_{feature}", {}).get("label") if kind == "feature" else None
        if label:
            found[node] = str(label)
    return found
