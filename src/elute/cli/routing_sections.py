"""The sections that a settings file of `elute routing` may hold: one file serves all its commands."""

from __future__ import annotations

from elute.base.recipe import Section
from elute.cli.sections import TRAINING
from elute.dictionaries.terms import TermsConfig
from elute.graphs.settings import GraphConfig
from elute.models.routing.settings import InstanceConfig, PolicyConfig
from elute.routing.cause_settings import (
    DoseConfig,
    GeneraliseConfig,
    JudgedConfig,
    PairEvalConfig,
    PatchConfig,
    PathsConfig,
    RoutingDemoConfig,
)
from elute.routing.clt_settings import CltConfig, EpochsConfig, GridConfig, TranscoderConfig, WandbConfig
from elute.routing.graph_settings import RoutingGraphConfig
from elute.routing.pair_settings import InspectConfig, PairsConfig
from elute.routing.policy_settings import PolicyTrainConfig

ROUTING: dict[str, type[Section]] = {
    "policy": PolicyConfig,
    "policy_training": PolicyTrainConfig,
    "instances": InstanceConfig,
    "pairs": PairsConfig,
    "inspect": InspectConfig,
    **TRAINING,
    "transcoder": TranscoderConfig,
    "epochs": EpochsConfig,
    "terms": TermsConfig,
    "wandb": WandbConfig,
    "clt": CltConfig,
    "grid": GridConfig,
    "judged": JudgedConfig,
    "eval": PairEvalConfig,
    "patch": PatchConfig,
    "steer": DoseConfig,
    "paths": PathsConfig,
    "generalise": GeneraliseConfig,
    "routing_graph": RoutingGraphConfig,
    "graph": GraphConfig,
    "demo": RoutingDemoConfig,
}
