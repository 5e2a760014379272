"""A policy that gives the rows of a pair: source and target of one forward, a row of each for the same node.

Where both lie in the encoder, a row is a node. Where the target lies in the decoder, a row is a step after the first:
its source is then the node where the tour stands, along the policy's own greedy tour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from elute.base.errors import ConfigError, DataError
from elute.models.routing.instances import Instances
from elute.models.routing_policy import BATCH
from elute.routing.pair_settings import PairSpec, in_decoder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from elute.base.contracts import Edit, Fingerprint, Rows, Site
    from elute.models.routing_policy import RoutingModel


@dataclass(frozen=True, eq=False)
class _Batch:
    """A batch of the policy, and which of its rows are taken on either side."""

    inner: dict[str, Any]
    nodes: Tensor  # rows of the encoder's sites
    steps: Tensor  # rows of the decoder's


class PairSource:
    """A policy whose sites are those of a pair's store."""

    def __init__(
        self,
        model: RoutingModel,
        spec: PairSpec,
        *,
        splits: Sequence[str] | None = None,
        nodes_per_instance: int | None = None,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        """`splits` names the split of each instance; `first` is the number of the first instance."""
        self.model, self.spec, self.name = model, spec, model.name
        self.splits, self.most, self.seed, self.first = splits, nodes_per_instance, seed, first
        self.stepwise = any(map(in_decoder, spec.targets))
        if self.stepwise and not all(map(in_decoder, spec.targets)):
            what = "some targets have a row a node and some a row a step"
            raise ConfigError(what, where=spec.text, remedy="Make two pairs of them.")
        names = (*spec.sources, *spec.targets)
        stored = (*spec.source_sites, *spec.target_sites)
        self._inner = dict(zip(stored, names, strict=True))
        self.sites: Mapping[str, Site] = {new: replace(model.sites[old]) for new, old in self._inner.items()}

    def rows_of(self, nodes: int) -> int:
        """How many rows an instance gives."""
        there = nodes - 1 if self.stepwise else nodes
        if self.most is not None and self.most > there:
            what = f"nodes_per_instance={self.most}, and an instance has {there} rows"
            raise ConfigError(what, where=self.spec.text, remedy="Give fewer, or leave it out.")
        return self.most or there

    def fingerprint(self) -> Fingerprint:
        """The policy's own: what its rows are is told by the pair's store."""
        return self.model.fingerprint()

    def batches(self, data: Any, **settings: Any) -> Iterator[tuple[_Batch, pl.DataFrame]]:
        """Yield batches of instances, with a row of metadata a row of the pair."""
        instances: Instances = data
        n, start = instances.nodes, 0
        self.rows_of(n)
        size = settings.get("batch_size", BATCH)
        for inner, frame in self.model.batches(instances, tours=self.stepwise, batch_size=size):
            count = len(inner["ids"])
            steps = torch.from_numpy(self._chosen(range(start, start + count), n))
            nodes = steps
            if self.stepwise:
                stand = torch.from_numpy(frame["current"].to_numpy().astype(np.int64))[steps]
                nodes = steps // n * n + stand
            batch = _Batch(inner, nodes, steps)
            taken = frame[steps.numpy()]
            self._same(frame, batch, taken)
            if self.splits is not None:
                part = pl.Series("split", self.splits[start : start + count], pl.String)
                taken = taken.with_columns(part.gather((steps // n).numpy()))
            yield batch, taken
            start += count

    def capture(self, batch: _Batch, sites: Sequence[str] | None = None) -> Rows:
        """Return the rows of each site, of the same nodes in the same order."""
        wanted = {name: self._inner[name] for name in (self.sites if sites is None else sites)}
        rows = self.model.capture(batch.inner, list(dict.fromkeys(wanted.values())))
        return {
            name: rows[old].index_select(0, (batch.steps if in_decoder(old) else batch.nodes).to(rows[old].device))
            for name, old in wanted.items()
        }

    def keep(self, batch: _Batch) -> None:
        """Nothing is padded."""

    def __call__(self, batch: _Batch) -> Any:
        """Run the policy."""
        return self.model(batch.inner)

    def patch(self, edits: Mapping[str, Edit], *, metadata: pl.DataFrame | None = None) -> AbstractContextManager[None]:
        """Patch the policy's sites by their names in the pair."""
        return self.model.patch({self._inner[name]: edit for name, edit in edits.items()}, metadata=metadata)

    def _chosen(self, numbers: range, n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Which rows of a batch are taken: all, or some of each instance, drawn by its number."""
        skipped = int(self.stepwise)
        places = []
        for row, number in enumerate(numbers):
            there = np.arange(skipped, n)
            if self.most is not None:
                rng = np.random.default_rng([self.seed, self.first + number])
                there = np.sort(rng.choice(there, self.most, replace=False))
            places.append(row * n + there)
        return np.concatenate(places).astype(np.int64)

    def _same(self, frame: pl.DataFrame, batch: _Batch, taken: pl.DataFrame) -> None:
        """Hold the rows of the source against those of the target, by instance and node."""
        sources = frame[batch.nodes.numpy()].select("sample_id", node="position")
        targets = taken.select("sample_id", node="current" if self.stepwise else "position")
        check_order(sources, targets, where=self.spec.text)


def check_order(sources: pl.DataFrame, targets: pl.DataFrame, *, where: str) -> None:
    """Refuse rows of a source and a target that are not of the same nodes in the same order."""
    if len(sources) != len(targets):
        what = f"the source has {len(sources):,} rows and the target {len(targets):,}"
        raise DataError(what, where=where, remedy="Collect both in one forward.")
    one, other = (frame.select("sample_id", "node") for frame in (sources, targets))
    apart = (one["sample_id"] != other["sample_id"]) | (one["node"] != other["node"])
    if apart.any():
        row = int(apart.arg_max() or 0)
        (a, i), (b, j) = one.row(row), other.row(row)
        what = (
            f"the order of the rows differs: row {row} is node {i} of {a} in the source, node {j} of {b} in the target"
        )
        raise DataError(what, where=where, remedy="Collect both in one forward.")
