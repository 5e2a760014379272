"""`elute routing collect-pairs`: what a layer and a later one make of the same nodes, each pair a store.

1. The instances are drawn, and each is given to training, validation or test; no instance lies in two.
2. The policy runs once a batch; both sites are read in that one forward, and their rows have to be of the same nodes
   in the same order. A pair that ends in the decoder has a row a step: its source is the node where the tour stands.
3. Mean and spread (or a whitening) are measured on the training rows alone.
4. metadata.json comes last: a pair without it was not collected to its end, and the same command goes on.

What is collected follows from the policy, the instances' numbers and the seed: a run that was killed and begun again
leaves the same bytes as one left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files, run
from elute.base.errors import ConfigError
from elute.base.run import Artifact
from elute.base.statistics.splits import draw_splits
from elute.engine.capture import CaptureConfig, capture_to_store
from elute.models.routing import checkpoint as checkpoints
from elute.models.routing.instances import draw
from elute.models.routing.settings import InstanceConfig
from elute.models.routing_policy import RoutingModel, load
from elute.routing import pair_places
from elute.routing import pairs as reading
from elute.routing.pair_plans import asked, instances_of, merged, place_for, plan_file
from elute.routing.pair_settings import PairsConfig, PairSpec
from elute.routing.pair_sources import PairSource
from elute.routing.pair_tensors import TENSORS, write_tensors
from elute.store.reader import Store
from elute.store.scaling import Scaling, StatsConfig, measure

if TYPE_CHECKING:
    from elute.models.routing.instances import Instances

STAGE = "collect-pairs"
_SLOTS = 20  # neighbouring instances of which each split gets its share


@dataclass(frozen=True, eq=False)
class _Job:
    """One pair in its place."""

    run: Path
    model: RoutingModel
    checkpoint: str
    spec: PairSpec
    config: PairsConfig
    drawn: InstanceConfig
    sparsity: dict[str, float]
    folder: Path

    @cached_property
    def instances(self) -> Instances:
        """What the pair is collected on."""
        return draw(self.drawn)

    @cached_property
    def source(self) -> dict[str, str]:
        """What the rows follow from besides the policy."""
        drawn = [self.config.nodes_per_instance, self.config.seed]
        return {
            "instances": self.instances.source,
            "nodes": files.digest_json(drawn if self.config.nodes_per_instance else None),
            "splits": files.digest_json([self.config.fractions, self.config.seed]),
        }


def collect_pairs(
    run_dir: Path | str,
    config: PairsConfig | None = None,
    *,
    checkpoint: str | int = "last",
    pairs_file: Path | None = None,
    storage_root: Path | str | None = None,
    device: str = "auto",
) -> Artifact:
    """Collect pairs of a run's policy, those asked for or those of a file; what is done is used as it is."""
    folder, config = Path(run_dir), config or PairsConfig()
    path = checkpoints.find(folder, checkpoint)
    model = load(folder, checkpoint=path, device=device)
    network, jobs = model.policy.config, []
    layers, called = network.num_encoder_layers, path.name
    if path.resolve() != (folder / checkpoints.CHECKPOINTS / called).resolve():
        called = str(path.resolve())
    file = plan_file(folder, pairs_file)
    for spec, plan in asked(folder, config, file, layers=layers):
        spec.check(model.sites, layers=layers, graph_context=network.use_graph_context)
        mine = merged(config, plan, file)
        place = place_for(folder, spec.name, root=storage_root, recapture=config.recapture)
        sparsity = plan.sparsity if plan else {}
        jobs.append(_Job(folder, model, called, spec, mine, instances_of(folder, mine), sparsity, place))
    told = {job.spec.name: _collect(job) for job in jobs}
    return Artifact("pairs", folder / pair_places.CLT, {"run": str(folder), "policy": model.name, "pairs": told})


def splits_of(numbers: Sequence[int], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Return the split of each instance by its number, the same however many are drawn.

    Of every 20 neighbours each split gets its share, in a random order that follows from the seed.
    """
    slots = draw_splits(range(_SLOTS), fractions=fractions, seed=seed)
    names = [slots[i] for i in range(_SLOTS)]
    orders: dict[int, Any] = {}
    found = []
    for number in numbers:
        block, place = divmod(number, _SLOTS)
        if block not in orders:
            orders[block] = np.random.default_rng([seed, block]).permutation(_SLOTS)
        found.append(names[orders[block][place]])
    return found


def _collect(job: _Job) -> dict[str, Any]:
    """Collect one pair, or go on, or use what is there."""
    name, folder, config = job.spec.name, job.folder, job.config
    numbers = range(config.first, config.first + config.num_instances_per_pair)
    splits = splits_of(numbers, config.fractions, config.seed)
    if empty := [part for part in config.fractions if part not in splits]:
        what = f"{len(numbers)} instances leave none to {empty[0]}"
        raise ConfigError(what, where=name, remedy=f"Give {_SLOTS} or more.")
    source = PairSource(
        job.model, job.spec, splits=splits, nodes_per_instance=config.nodes_per_instance, seed=config.seed,
        first=config.first,
    )  # fmt: skip
    rows = source.rows_of(job.drawn.num_loc) * len(numbers)
    if config.recapture:
        for stale in (pair_places.METADATA, "embed_stats.json", *TENSORS):
            (folder / stale).unlink(missing_ok=True)
    pair_places.remember(job.run, name, folder)
    capturing = CaptureConfig(dtype=config.dtype, recapture=config.recapture)
    done = capture_to_store(source, job.instances, folder, config=capturing, source=job.source, total_rows=rows)
    store = Store(folder)
    _measure(store, config)
    record = _described(job, store)
    files.write_json(folder / pair_places.METADATA, record)
    if config.format == "pt":
        write_tensors(reading.read_pair(job.run, folder))
    summary = {
        "folder": str(folder),
        "rows": len(store),
        "widths": store.sites,
        "splits": record["splits"],
        "reused": done.summary["reused"],
    }
    kept = config.model_copy(update={"recapture": False, "layer_pairs": job.spec.text})
    told = {k: v for k, v in summary.items() if k not in ("folder", "reused")}
    run.record(folder, STAGE, kept, inputs=job.source, summary=told, model=job.model.fingerprint())
    return summary


def _measure(store: Store, config: PairsConfig) -> None:
    """Measure the training rows, unless that was done."""
    if (store.folder / "embed_stats.json").is_file():
        held = Scaling.of(store.folder).record
        if held["store"] == store.manifest.store and held["method"] == config.scaling and held["split"] == "train":
            return
    with console.hushed():
        measure(store.folder, StatsConfig(method=config.scaling, split="train"))


def _described(job: _Job, store: Store) -> dict[str, Any]:
    """What metadata.json says of a pair."""
    sites = Scaling.of(store.folder).record["sites"]
    rows: dict[str, int] = dict.fromkeys(job.config.fractions, 0)
    instances = dict(rows)
    for shard in range(len(store.manifest.shards)):
        low, high = store.starts[shard : shard + 2]
        frame = store.metadata(low, high, columns=["sample_id", "split", "position"])
        for part, count in frame.group_by("split").len().iter_rows():
            rows[part] += count
    numbers = range(job.config.first, job.config.first + job.config.num_instances_per_pair)
    for part in splits_of(numbers, job.config.fractions, job.config.seed):
        instances[part] += 1
    spec = job.spec
    return {
        "schema": reading.SCHEMA,
        "pair": spec.name,
        "sources": list(spec.sources),
        "targets": list(spec.targets),
        "shapes": {name: [len(store), width] for name, width in store.sites.items()},
        "rows": len(store),
        "row": "a step, its source the node where the tour stands" if spec.stepwise else "a node",
        "instances": job.drawn.model_dump(mode="json"),
        "nodes_per_instance": job.config.nodes_per_instance,
        "checkpoint": job.checkpoint,
        "policy": job.model.name,
        "splits": {part: {"instances": instances[part], "rows": rows[part]} for part in rows},
        "statistics": {
            "split": "train",
            "sites": {name: {"mean": told["mean"], "std": told["std"]} for name, told in sites.items()},
        },
        "sparsity": job.sparsity,
        "store": store.manifest.store,
        "order": reading.order_of(store),
        "rows_digest": reading.metadata_digest(store),
    }


def lines(answer: dict[str, Any]) -> list[str]:
    """Say it for people."""
    told = [f"{answer['policy']}: {console.count(len(answer['pairs']), 'pair')}"]
    width = max(map(len, answer["pairs"]))
    for name, pair in answer["pairs"].items():
        parts = ", ".join(f"{part} {n['instances']:,}" for part, n in pair["splits"].items())
        also = "; was there already" if pair["reused"] else ""
        told.append(f"  {name:<{width}} {pair['rows']:>10,} rows (instances: {parts}){also}")
        told.append(f"  {'':<{width}} {pair['folder']}")
    return told
