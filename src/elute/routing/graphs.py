"""`elute routing graph`: which nodes lead, through which features of the MLPs, to the choice of the next node.

    RUN/graphs/<slug>/<slug>.json             the graph through the cross-layer transcoder, where there is one
    RUN/graphs/<slug>/<slug>-layers.json      that through transcoders of single layers, beside it
    RUN/graphs/<slug>/*.edges.csv, *.heads.csv, *.graphml, graph-metadata.json
    RUN/graphs/<slug>/checks.json             scores, edges beside ablations, influence beside measured effects, of both
    RUN/graphs/<slug>/graph.html, graph-layers.html      to look at

1. The policy builds its tour. At one step, the logits of the next node are what is explained.
2. Transcoders stand for the MLPs, attention patterns stay as they were, and direct effects are gradients.
3. Every edge that is kept is checked by taking its source away; features are ablated in the policy itself, on this
   choice and on those of other instances, and their influence is held against what that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.graphs.settings import GraphConfig
from elute.routing.graph_settings import RoutingGraphConfig

if TYPE_CHECKING:
    from elute.reports.graphs.making import Subject
    from elute.routing.graph_inputs import Inputs, Stand

STAGE = "graph"
TITLES = {"clt": "cross-layer transcoder", "transcoder": "transcoders of single layers"}


def graph_run(
    run_dir: Path | str, config: RoutingGraphConfig | None = None, graph: GraphConfig | None = None, *,
    clt_run: str = "latest",
) -> Artifact:  # fmt: skip
    """Explain one choice of a run's policy; what was made with the same settings is used as it is."""
    from elute.reports.graphs.making import is_whole
    from elute.routing.graph_inputs import open_inputs

    folder, config, graph = Path(run_dir), config or RoutingGraphConfig(), graph or GraphConfig()
    given = open_inputs(folder, config, clt_run=clt_run, most=graph.most_outputs)
    choice = given.choices[0]
    slug = f"{choice.name}-step{choice.step}" + ("" if config.dictionaries == "both" else f"-{config.dictionaries}")
    output = files.make_folder(folder / "graphs" / slug)
    settings = {"routing_graph": config, "graph": graph}
    with files.locked(output, "making a graph"):
        done = run.finished(output, STAGE, settings, inputs=given.digests)
        if done is not None and is_whole(output):
            console.say(f"{output}: already made with these settings, used as it is")
            return Artifact(STAGE, output, {**done, "reused": True})
        summary = _write(output, given, graph)
        run.record(output, STAGE, settings, inputs=given.digests, summary=summary)
    return Artifact(STAGE, output, {**summary, "reused": False})


def _write(output: Path, given: Inputs, config: GraphConfig) -> dict[str, Any]:
    """Make the graph through each kind of transcoders, and write all."""
    from elute.reports.graphs.making import finish, make
    from elute.routing.graph_meaning import meanings

    choice, made = given.choices[0], {}
    for stand in given.stands:
        console.say(f"{choice.name}, {choice.step} nodes in the tour: through the {TITLES[stand.kind]}")
        subject = _subject(output, given, stand)
        made[subject.name] = make(output, subject, config, meanings=partial(meanings, given))
    tour = choice.tour[0].tolist()
    beside = {"kind": "tour", "coords": choice.instances.coords[0].tolist(), "tour": tour, "at": choice.step - 1}
    about = {"instance": choice.name, "step": choice.step, "tour": tour, "slug": output.name}
    return finish(output, made, title=f"{choice.name}, after node {choice.current}", beside=beside, about=about)


def _subject(output: Path, given: Inputs, stand: Stand) -> Subject:
    from elute.base.contracts import Site
    from elute.reports.graphs.making import Subject

    choice, policy = given.choices[0], given.model.policy.config
    later = range(1, policy.num_encoder_layers)
    return Subject(
        name=output.name if stand is given.stands[0] else f"{output.name}-layers",
        title=TITLES[stand.kind],
        replacement=choice.replacement(given.model, stand, given.layers),
        prompt=choice.words,
        ids=range(choice.instances.nodes),
        scan=f"{output.parent.parent.name} {stand.kind}",
        digests=stand.digests,
        text=f"{choice.name}: the tour so far is {', '.join(map(str, choice.tour[0, : choice.step].tolist()))}",
        heads=[(f"layer {i}", Site(f"encoder.layers.{i}.attention.out", "input"), policy.num_heads) for i in later],
        elsewhere=[
            ({"instance": one.name, "step": one.step}, partial(one.replacement, given.model, stand, given.layers))
            for one in given.choices[1:]
        ],
    )


def show(answer: Mapping[str, Any]) -> str:
    """Say what came of it, beside what."""
    from elute.reports.graphs import telling

    tour, step = answer["tour"], answer["step"]
    again = " (already there, used as it is)" if answer.get("reused") else ""
    head = (
        f"{answer['instance']}: after {step} nodes the tour stands at {tour[step - 1]}, and {tour[step]} is next{again}"
    )
    told = [line for one in answer["graphs"].values() for line in telling.lines(one)]
    return "\n".join([head, *told, f"{answer['path']}/graph.html    in a browser"])
