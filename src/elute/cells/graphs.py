"""`elute cells graph`: which genes of a cell lead, through which features, to the value that is predicted of a gene.

    RESULTS/transcoders/                    transcoders of all MLPs, trained where they are not there (transcoders.py)
    RESULTS/graphs/<slug>/<slug>.json       the graph through transcoders of single layers
    RESULTS/graphs/<slug>/<slug>-clt.json   that through the cross-layer transcoder, beside it
    RESULTS/graphs/<slug>/*.edges.csv, *.heads.csv, *.graphml, graph-metadata.json, checks.json, graph.html

The gene's value is hidden, and the model tells it from the others. Every edge that is kept is checked by taking its
source away; features are ablated in the model itself, in this cell and in others of its type, and their influence is
held against what that does. The control has the decoders of other features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.cells.graph_settings import CellGraphConfig, TranscodersConfig
from elute.graphs.settings import GraphConfig

if TYPE_CHECKING:
    from elute.cells.graph_inputs import Question
    from elute.cells.reopening import Reopened
    from elute.dictionaries.dictionary import Dictionary
    from elute.graphs.layers import Layers
    from elute.reports.graphs.making import Subject

STAGE = "graph"
TITLES = {"transcoder": "transcoders of single layers", "clt": "cross-layer transcoder"}


@dataclass(frozen=True, eq=False)
class Side:
    """Transcoders of one kind."""

    kind: str
    given: Dictionary | Sequence[Dictionary]
    digests: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """A run's model in front of its questions."""

    opened: Reopened
    layers: Layers
    sides: tuple[Side, ...]
    questions: tuple[Question, ...]  # the one that is explained, then those of further cells
    looked: int
    hidden: float


def graph(
    results: Path | str, *, gene: str, config: CellGraphConfig, graph: GraphConfig | None = None,
    transcoders: TranscodersConfig | None = None, data: Path | None = None, model: Path | None = None,
    device: str = "auto",
) -> Artifact:  # fmt: skip
    """Explain what a run's model predicts of a gene in a cell; what was made before is used as it is."""
    from elute.cells.graph_inputs import open_cells_run, precise, questions
    from elute.reports.graphs.making import is_whole

    graph, made_by = graph or GraphConfig(), transcoders or TranscodersConfig()
    opened, layers = open_cells_run(Path(results), data=data, model=model, device=device)
    asked = questions(opened, gene, config)
    weights = opened.model.fingerprint().weights
    sides = _sides(opened, layers, config, made_by)
    precise(opened.model)
    case = Case(opened, layers, sides, tuple(asked), config.looked, made_by.hidden)
    output = files.make_folder(Path(results) / "graphs" / slug_of(asked[0], config))
    settings = {"cell_graph": config, "graph": graph}
    inputs = {"model": weights, "gene": asked[0].gene, "cell": asked[0].cell, **opened.cells.source, **_digests(sides)}
    with files.locked(output, "making a graph"):
        done = run.finished(output, STAGE, settings, inputs=inputs)
        if done is not None and is_whole(output):
            console.say(f"{output}: already made with these settings, used as it is")
            return Artifact(STAGE, output, {**done, "reused": True})
        summary = _write(output, case, graph)
        run.record(output, STAGE, settings, inputs=inputs, summary=summary)
    return Artifact(STAGE, output, {**summary, "reused": False})


def slug_of(asked: Question, config: CellGraphConfig) -> str:
    """Name a graph's folder by gene and cell."""
    from elute.graphs.export import slugged

    words = slugged([asked.gene, asked.cell])
    if words != f"{asked.gene}-{asked.cell}".lower():
        words = f"{words[:80]}-{files.digest_bytes(asked.cell.encode(errors='replace'))[:6]}"
    return words if config.dictionaries == "both" else f"{words}-{config.dictionaries}"


def _sides(opened: Reopened, layers: Layers, config: CellGraphConfig, made_by: TranscodersConfig) -> tuple[Side, ...]:
    """Open transcoders, or train them."""
    from elute.cells.transcoders import Job, transcoders
    from elute.dictionaries.files import digest

    both = ("transcoder", "clt") if len(layers) > 1 else ("transcoder",)
    kinds = both if config.dictionaries == "both" else (config.dictionaries,)
    found = []
    for kind, given in zip(kinds, transcoders(Job(opened, layers, made_by), kinds), strict=True):
        every = list(given) if isinstance(given, Sequence) else [given]
        found.append(Side(kind, given, tuple(digest(one) for one in every)))
        for one in every:
            one.to(opened.model.device)
    return tuple(found)


def _digests(sides: Sequence[Side]) -> dict[str, str]:
    return {f"{side.kind} {number}": digest for side in sides for number, digest in enumerate(side.digests)}


def _write(output: Path, case: Case, config: GraphConfig) -> dict[str, Any]:
    """Make the graph through each kind of transcoders, and write all."""
    from elute.cells.graph_meaning import meanings
    from elute.reports.graphs.making import finish, make

    asked, made = case.questions[0], {}
    look = partial(meanings, case.opened, most=case.looked, hidden=case.hidden)
    for side in case.sides:
        console.say(f"{asked.gene} in {asked.cell}: through the {TITLES[side.kind]}")
        subject = _subject(output, case, side)
        made[subject.name] = make(output, subject, config, meanings=look)
        predicted = float(subject.replacement.values[0])
    about = {
        "gene": asked.gene, "cell": asked.cell, "type": asked.label, "split": asked.split, "slug": output.name,
        "tokens": len(asked.symbols), "predicted": predicted, "read": asked.read,
    }  # fmt: skip
    title = f"{asked.gene} in {asked.cell}" + (f" ({asked.label})" if asked.label else "")
    beside = {"kind": "genes", "genes": asked.words, "values": list(asked.values)}
    return finish(output, made, title=title, beside=beside, about=about)


def _subject(output: Path, case: Case, side: Side) -> Subject:
    from elute.base.contracts import Site
    from elute.reports.graphs.making import Subject

    asked, model = case.questions[0], case.opened.model
    dtype = next(model.module.parameters()).dtype
    given = [one.to(dtype) for one in side.given] if isinstance(side.given, Sequence) else side.given.to(dtype)
    count = int(getattr(getattr(model.module, "config", None), "n_heads", 0))
    places = [model.sites[f"blocks.{i}.hook_attn_out"].path for i in range(1, len(case.layers))] if count else []
    return Subject(
        name=output.name if side is case.sides[0] else f"{output.name}-{side.kind}",
        title=TITLES[side.kind],
        replacement=asked.replacement(model, given, case.layers),
        prompt=asked.words,
        ids=asked.tokens,
        scan=f"{model.name} {side.kind}",
        digests=side.digests,
        text=f"{asked.gene} in {asked.cell}" + (f", {asked.label}" if asked.label else ""),
        heads=[(f"layer {i}", Site(path, "input"), count) for i, path in enumerate(places, 1)],
        elsewhere=[
            ({"cell": one.cell}, partial(one.replacement, model, given, case.layers)) for one in case.questions[1:]
        ],
    )


def show(answer: Mapping[str, Any]) -> str:
    """Say what came of it, beside what."""
    from elute.reports.graphs import telling

    again = " (already there, used as it is)" if answer.get("reused") else ""
    of = f" ({answer['type']})" if answer["type"] else ""
    head = f"{answer['gene']} in {answer['cell']}{of}, told from {answer['tokens'] - 1} other tokens{again}:"
    known = f"  predicted {answer['predicted']:.2f}, hidden {answer['read']:.2f}"
    seen = "" if answer["split"] == "test" else "; the transcoders saw this cell while they were trained"
    told = [line for one in answer["graphs"].values() for line in telling.lines(one)]
    return "\n".join([head, known + seen, *told, f"{answer['path']}/graph.html    in a browser"])
