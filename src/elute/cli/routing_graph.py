"""`elute routing graph`: what leads to one choice of a policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.cli.commands import command
from elute.cli.routing import run_option
from elute.cli.routing_cause import clt_run_option
from elute.cli.routing_sections import ROUTING
from elute.graphs.settings import GraphConfig
from elute.routing.graph_settings import RoutingGraphConfig

if TYPE_CHECKING:
    from elute.base.run import Artifact


@command(
    "graph",
    {"routing_graph": RoutingGraphConfig, "graph": GraphConfig},
    recipe=ROUTING,
    show="elute.routing.graphs:show",
)
@run_option
@clt_run_option
def graph(*, run_dir: Path, clt_run: str, config: dict[str, Any]) -> Artifact:
    """Explain one choice of a policy: which nodes lead, through which features, to the next node of the tour.

    Needs the transcoders that `elute routing train-clt` trains: the one across layers, and those of single layers
    beside it. Every edge is checked by an intervention, and influence is held against features ablated in the policy
    itself. Writes files that circuit-tracer and Neuronpedia read, tables, and a page.
    """
    from elute.routing.graphs import graph_run

    return graph_run(run_dir, config["routing_graph"], config["graph"], clt_run=clt_run)
