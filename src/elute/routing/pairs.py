"""A pair that was collected, opened for reading: what one layer and a later one make of the same nodes.

    RUN/clt/activation_store.json        where the pairs of this run lie
    RUN/clt/activations/PAIR/            a store with the sites source_LAYER and target_LAYER, one row a node of both
    RUN/clt/activations/PAIR/metadata.json   layers, shapes, instances, splits, mean and spread of the training rows
    RUN/clt/activations/PAIR/sources.pt, targets.pt   the same rows as two tensors, where asked for

    pair = open_pair("runs/tsp20", "clt_L0_to_L2")
    for x, y, rows in pair.batches(4096, split="train"): ...
    pair.instances("test")                                    # their coordinates

All rows of an instance lie in one split. Rows are mapped from the disk, never read as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base import files
from elute.base.errors import ConfigError, DamagedError, DataError, GuardError, VersionError, near
from elute.routing.pair_places import METADATA, activations, collected, places
from elute.routing.pair_settings import PairSpec, parse_one
from elute.store.reader import Store
from elute.store.rows import Selection

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.models.routing.instances import Instances
    from elute.models.routing_policy import RoutingModel
    from elute.store.scaling import Scaling

SCHEMA = 1
SPLITS = ("train", "validation", "test")
_AGAIN = "Collect it anew: elute routing collect-pairs --recapture."


class Span(NamedTuple):
    """Mean and standard deviation of a site over the training rows."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair's rows, and what is known of them."""

    run: Path
    spec: PairSpec
    store: Store
    record: dict[str, Any]  # metadata.json

    @property
    def name(self) -> str:
        """Its canonical name."""
        return self.spec.name

    @property
    def folder(self) -> Path:
        """The store's folder, as a training reads it."""
        return self.store.folder

    @property
    def source(self) -> str:
        """The policy's site that a transcoder reads, where there is one alone."""
        return _only(self.spec.sources, self.folder)

    @property
    def target(self) -> str:
        """The policy's site that a transcoder writes, where there is one alone."""
        return _only(self.spec.targets, self.folder)

    @property
    def source_site(self) -> str:
        """The source's name in the store."""
        return f"source_{self.source}"

    @property
    def target_site(self) -> str:
        """The target's name in the store."""
        return f"target_{self.target}"

    @property
    def widths(self) -> tuple[int, int]:
        """Width of the source and of the target; of several, their sums."""
        sites = self.store.sites
        return sum(sites[s] for s in self.spec.source_sites), sum(sites[s] for s in self.spec.target_sites)

    @property
    def sparsity(self) -> dict[str, float]:
        """What a transcoder of this pair is to be trained for, where its plan said so: k, k_ratio, expansion_factor."""
        return dict(self.record["sparsity"])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have rows."""
        return tuple(name for name, told in self.record["splits"].items() if told["rows"])

    @property
    def order(self) -> str:
        """Digest of which instance and place each row is of, in their order."""
        return str(self.record["order"])

    @cached_property
    def statistics(self) -> dict[str, Span]:
        """Mean and standard deviation of each site of the store, over the training rows alone."""
        sites = self.record["statistics"]["sites"]
        return {name: Span(tuple(told["mean"]), tuple(told["std"])) for name, told in sites.items()}

    @property
    def scaling(self) -> Scaling:
        """The store's scaling, measured on the training rows alone (embed_stats.json)."""
        from elute.store.scaling import Scaling

        return Scaling.of(self.folder)

    def select(self, split: str | None = None) -> Selection:
        """Choose the rows of a split, or all."""
        if split is not None and split not in self.splits:
            what = f"the pair has no rows in the split {split!r}"
            raise DataError(what, where=self.folder, remedy=near(split, self.splits))
        return self.store.select(split=split)

    def ids(self, split: str | None = None) -> tuple[str, ...]:
        """Names of the instances of a split, in the order of the rows."""
        columns = ["sample_id", "split"]
        found: dict[str, str] = {}
        for shard in range(len(self.store.manifest.shards)):
            low, high = self.store.starts[shard : shard + 2]
            frame = self.store.metadata(low, high, columns=columns).unique("sample_id", maintain_order=True)
            found |= dict(frame.iter_rows())
        return tuple(name for name, part in found.items() if split in (None, part))

    def batches(
        self, size: int = 4096, *, split: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[Tensor, Tensor, pl.DataFrame]]:
        """Yield rows of the source and of the target, float32, with their metadata; several sites side by side."""
        import torch

        one, other = self.spec.source_sites, self.spec.target_sites
        for rows, frame in self.store.batches(size, where=self.select(split), columns=columns):
            yield (
                torch.cat([rows[name].float() for name in one], 1),
                torch.cat([rows[name].float() for name in other], 1),
                frame,
            )

    def read(self, split: str | None = None, *, most: int = 50_000) -> tuple[Tensor, Tensor, pl.DataFrame]:
        """Read the first rows of a split at once, `most` of them."""
        import polars as pl
        import torch

        parts, rows = [], 0
        for x, y, frame in self.batches(split=split):
            take = min(len(frame), most - rows)
            parts.append((x[:take], y[:take], frame[:take]))
            rows += take
            if rows >= most:
                break
        xs, ys, frames = zip(*parts, strict=True)
        return torch.cat(xs), torch.cat(ys), pl.concat(frames)

    def instances(self, split: str | None = None) -> Instances:
        """Draw the instances of a split again, in the order of the rows."""
        from elute.base.files import digest_json
        from elute.models.routing.instances import Instances, draw
        from elute.models.routing.settings import InstanceConfig

        every = draw(InstanceConfig(**self.record["instances"]))
        wanted = set(self.ids(split))
        places = [i for i, name in enumerate(every.ids) if name in wanted]
        names = tuple(every.ids[i] for i in places)
        return Instances(every.coords[places], names, digest_json([every.source, list(names)]))

    def model(self, *, device: str = "cpu") -> RoutingModel:
        """Load the policy that the rows were read from; one that has changed since is refused."""
        from elute.models.routing_policy import load

        model = load(self.run, checkpoint=self.record["checkpoint"], device=device)
        self.store.expect(model=model.fingerprint())
        return model


def open_pair(run: Path | str, pair: str | PairSpec) -> Pair:
    """Open a pair of a run by its name, as clt_L0_to_L2, or as SOURCE:TARGET."""
    run = Path(run)
    name = pair.name if isinstance(pair, PairSpec) else parse_one(pair).name if ":" in pair else pair
    if not run.is_dir():
        raise DataError("there is no such run", where=run, remedy="Give the folder of a policy's run.")
    where = places(run)
    known = collected(run)
    folder = run / where[name] if name in where else activations(run) / name
    if name in where and not folder.is_dir():
        remedy = "Is the disk there? Else collect the pair anew, with --storage_root where it shall lie."
        raise DataError(f"the rows of {name} lay there, and are gone", where=folder, remedy=remedy)
    if name not in known:
        what = f"there is no pair {name!r}" + (", it was not collected to its end" if folder.is_dir() else "")
        remedy = near(name, known) if known else f"`elute routing collect-pairs --run-dir {run}` makes pairs."
        raise DataError(what, where=run, remedy=remedy)
    return read_pair(run, folder)


def read_pair(run: Path, folder: Path) -> Pair:
    """Open the pair in a folder, and refuse one whose parts do not belong together."""
    record = files.read_json(folder / METADATA, what="a pair's description", remedy=_AGAIN)
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise DamagedError("is not a pair's description", where=folder / METADATA, remedy=_AGAIN)
    if record["schema"] > SCHEMA:
        raise VersionError("was written by a newer elute", where=folder / METADATA, remedy="Update elute.")
    try:
        spec = PairSpec(tuple(record["sources"]), tuple(record["targets"]))
        parts = [record["store"], record["rows_digest"]]
        _ = record["order"], record["splits"], record["statistics"]["sites"], record["sparsity"], record["instances"]
    except (KeyError, TypeError):
        raise DamagedError("the pair's description is not whole", where=folder / METADATA, remedy=_AGAIN) from None
    store = Store(folder)
    lost = [site for site in (*spec.source_sites, *spec.target_sites) if site not in store.sites]
    if lost or parts[0] != store.manifest.store or not store.complete:
        what = f"has no site {lost[0]!r}" if lost else "holds other rows than its metadata.json describes"
        raise GuardError(what, where=folder, remedy=_AGAIN)
    if metadata_digest(store) != parts[1]:
        what = "the rows' order or splits were changed after the pair was collected"
        raise GuardError(what, where=folder, remedy=_AGAIN)
    return Pair(run, spec, store, record)


def check_same_rows(*pairs: Pair) -> None:
    """Refuse pairs whose rows are not those of the same nodes in the same order, and say which is the first."""
    for other in pairs[1:]:
        if other.order == pairs[0].order:
            continue
        columns = ["sample_id", "position"]
        told = f"{len(pairs[0].store):,} and {len(other.store):,} rows"
        for low in range(0, min(len(pairs[0].store), len(other.store)), 4096):
            one, two = (pair.store.metadata(low, low + 4096, columns=columns).rows() for pair in (pairs[0], other))
            apart = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
            if apart is not None:
                a, b = one[apart], two[apart]
                told = f"row {low + apart} is node {a[1]} of {a[0]} here and node {b[1]} of {b[0]} there"
                break
        what = f"the order of {pairs[0].name} and of {other.name} differs: {told}"
        remedy = "Collect both with the same instances: one command with both in --layer_pairs."
        raise GuardError(what, where=other.folder, remedy=remedy)


def metadata_digest(store: Store) -> str:
    """Digest of the rows' metadata as it lies on the disk: quick, and another one in every store."""
    return files.digest_json([shard.metadata.sha256 for shard in store.manifest.shards])


def order_of(store: Store) -> str:
    """Digest of which instance and place each row is of: the same for all pairs of the same nodes in one order."""
    found = hashlib.sha256()
    for shard in range(len(store.manifest.shards)):
        low, high = store.starts[shard : shard + 2]
        frame = store.metadata(low, high, columns=["sample_id", "position"])
        found.update("".join(f"{name}\t{place}\n" for name, place in frame.iter_rows()).encode())
    return found.hexdigest()


def _only(sites: tuple[str, ...], where: Path) -> str:
    if len(sites) != 1:
        what = f"the pair has {len(sites)} sites on a side ({', '.join(sites)})"
        raise ConfigError(what, where=where, remedy="A cross-layer transcoder takes all: use sources and targets.")
    return sites[0]
