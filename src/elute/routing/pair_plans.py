"""What is asked for when pairs are collected: by the command line, a pairs' file, and the policy's own settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elute.base import files
from elute.base.errors import ConfigError, SpaceError
from elute.models.routing import checkpoint as checkpoints
from elute.models.routing.settings import InstanceConfig
from elute.routing import pair_places
from elute.routing.pair_settings import PairPlan, PairsConfig, PairsFile, PairSpec, parse, parse_one

ROOT = "ACTIVATIONS_ROOT"


def asked(
    folder: Path, config: PairsConfig, file: PairsFile | None, *, layers: int
) -> list[tuple[PairSpec, PairPlan | None]]:
    """Which pairs are collected: those of the command line, with what a file says of them, or all of the file."""
    planned = {parse_one(plan.layers): plan for plan in (file.pairs if file is not None else ())}
    if config.layer_pairs:
        return [(spec, planned.get(spec)) for spec in parse(config.layer_pairs, layers=layers)]
    if not planned:
        remedy = f"Give --layer_pairs encoder_layer_0:encoder_layer_2, or all; or write {config_path(folder)}."
        raise ConfigError("no pair is named", where=folder, remedy=remedy)
    return list(planned.items())


def plan_file(folder: Path, given: Path | None) -> PairsFile | None:
    """Read the pairs' file that is given, or the run's own where it has one."""
    own = (config_path(folder, ending) for ending in ("json", "yaml", "yml"))
    path = given or next((place for place in own if place.is_file()), None)
    return None if path is None else read_file(path)


def config_path(folder: Path, ending: str = "json") -> Path:
    """Where a run's own pairs' file lies."""
    return folder / pair_places.CLT / "configs" / f"{folder.resolve().name}.{ending}"


def read_file(path: Path) -> PairsFile:
    """Read a pairs' file, JSON or YAML."""
    from elute.base.recipe import build, read_yaml

    if path.suffix == ".json":
        values = files.read_json(path, what="a pairs' file", remedy="Check the path and its commas.")
        if not isinstance(values, dict):
            raise ConfigError("is no pairs' file", where=path, remedy='Write {"pairs": [{"layers": "A:B"}]}.')
    else:
        values = read_yaml(path)
    return build(PairsFile, values, str(path))


def merged(config: PairsConfig, plan: PairPlan | None, file: PairsFile | None) -> PairsConfig:
    """Fill in what a pairs' file says and the command line did not."""
    said: dict[str, Any] = {}
    if file is not None:
        said["num_instances_per_pair"] = file.num_instances_per_pair
    if plan is not None:
        said["num_instances_per_pair"] = plan.num_instances or said["num_instances_per_pair"]
        said |= {name: getattr(plan, name) for name in ("num_loc", "distribution", "nodes_per_instance")}
    given = config.model_fields_set
    return config.model_copy(update={n: value for n, value in said.items() if value is not None and n not in given})


def instances_of(folder: Path, config: PairsConfig) -> InstanceConfig:
    """Settings of a pair's instances; what is not said is as the policy was trained."""
    held = checkpoints.read_config(folder)
    nodes = config.num_loc or _told(held, "num_loc")
    if not isinstance(nodes, int) or nodes < 3:
        what = "its settings do not say on how many nodes the policy was trained"
        raise ConfigError(what, where=folder / checkpoints.CONFIG, remedy="Give --num_loc.")
    kind = config.distribution or _told(held, "distribution")
    return InstanceConfig(
        num_instances=config.num_instances_per_pair,
        num_loc=nodes,
        distribution=kind if kind in ("clustered", "mixed") else "uniform",
        seed=config.seed,
        first=config.first,
    )


def _told(values: Mapping[str, Any], name: str) -> Any:
    """A setting by its name, at any depth: rl4co has its own in one of several places."""
    if isinstance(values.get(name), int | str):
        return values[name]
    inner = (_told(value, name) for value in values.values() if isinstance(value, dict))
    return next((value for value in inner if value is not None), None)


def place_for(folder: Path, name: str, *, root: Path | str | None, recapture: bool) -> Path:
    """Where a pair lies or will lie: under the storage root, where it lay before, or in the run."""
    root = root or os.environ.get(ROOT) or None
    if root is None:
        before = pair_places.place_of(folder, name)
        if before is None or (recapture and not before.is_dir()):
            return pair_places.activations(folder) / name
        if not before.is_dir():
            remedy = "Is the disk there? --storage_root DIR or --recapture collects it anew."
            raise SpaceError(f"the storage of {name} is gone", where=before, remedy=remedy)
        return before
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        remedy = "Is the disk there? Make the folder, or give another --storage_root; nothing was written."
        raise SpaceError("there is no such storage root", where=root, remedy=remedy)
    return root / folder.resolve().name / pair_places.CLT / "activations" / name
