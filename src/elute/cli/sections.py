"""The sections that a settings file of a group may hold: one file serves all its commands."""

from __future__ import annotations

from elute.arrays.demo import DemoConfig
from elute.arrays.dictionaries import BringConfig, ExportConfig
from elute.arrays.importing import ImportConfig
from elute.arrays.look import HeadConfig
from elute.base.recipe import Section
from elute.cells.demo import DemoConfig as CellsDemoConfig
from elute.cells.effect_settings import PerturbConfig, SteerConfig
from elute.cells.feature_settings import DashboardConfig, ExtractConfig, FeatureConfig, ValidationConfig
from elute.cells.graph_settings import CellGraphConfig, TranscodersConfig
from elute.cells.pretraining import PretrainConfig
from elute.cells.settings import EmbedConfig, ModelConfig, SitesConfig
from elute.engine.capture import CaptureConfig
from elute.engine.encode import EncodeConfig
from elute.engine.fit import FitConfig
from elute.engine.settings import DeadConfig, DictionaryConfig, EvalConfig, LearnConfig
from elute.engine.tracking import TrackConfig
from elute.graphs.settings import GraphConfig
from elute.models.cells.cellfile import CellsConfig
from elute.store.scaling import StatsConfig
from elute.store.splitting import SplitConfig
from elute.validation.settings import DatabaseConfig, NarratorConfig

TRAINING: dict[str, type[Section]] = {
    "dictionary": DictionaryConfig,
    "learn": LearnConfig,
    "fit": FitConfig,
    "dead": DeadConfig,
    "track": TrackConfig,
}
ARRAYS: dict[str, type[Section]] = {
    "import": ImportConfig,
    "split": SplitConfig,
    "stats": StatsConfig,
    "head": HeadConfig,
    "demo": DemoConfig,
    **TRAINING,
    "encode": EncodeConfig,
    "eval": EvalConfig,
    "export": ExportConfig,
    "import-dictionary": BringConfig,
}
CELLS: dict[str, type[Section]] = {
    "cells": CellsConfig,
    "model": ModelConfig,
    "sites": SitesConfig,
    "capture": CaptureConfig,
    "embed": EmbedConfig,
    "pretrain": PretrainConfig,
    "demo": CellsDemoConfig,
    "training": FeatureConfig,
    "extract": ExtractConfig,
    "validation": ValidationConfig,
    "dashboard": DashboardConfig,
    "databases": DatabaseConfig,
    "narrator": NarratorConfig,
    "steer": SteerConfig,
    "perturb": PerturbConfig,
    "cell_graph": CellGraphConfig,
    "graph": GraphConfig,
    "transcoders": TranscodersConfig,
    **TRAINING,
}
GENES: dict[str, type[Section]] = {"databases": DatabaseConfig}
