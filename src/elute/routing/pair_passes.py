"""Passes over a pair's rows: what its training rows are like, how maps do on held-out ones, and whose rows they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elute.base import console
from elute.base.accumulate import Covariance
from elute.base.errors import DataError, GuardError
from elute.routing.pair_measures import Explained, Joint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.routing.pair_measures import Map
    from elute.routing.pairs import Pair

    Floats = NDArray[np.float64]

_CLOSE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}  # of a site's spread: what rounding on the disk may change


@dataclass(frozen=True, eq=False)
class Seen:
    """What one pass over the training rows told."""

    joint: Joint
    shuffled: Joint  # the source's rows are those of other instances
    sparsity: tuple[dict[str, float], dict[str, float]]
    norms: tuple[Floats, Floats]
    cosine: float | None


def training(pair: Pair, split: str) -> Seen:
    """Go through the training rows once; those of another instance stand in for the source in `shuffled`."""
    wide, high = pair.widths
    both, apart = Covariance(wide + high), Covariance(wide + high)
    sides = (_Side(pair, 0), _Side(pair, 1))
    cosines, rows = 0.0, 0
    for x, y, _ in _batches(pair, split):
        both.update(np.concatenate([x, y], 1))
        for side, part in zip(sides, (x, y), strict=True):
            side.update(part)
        _elsewhere(apart, x, y, each=_rows_each(pair))
        if wide == high:
            sizes = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
            cosines += float(np.divide((x * y).sum(1), sizes, out=np.zeros(len(x)), where=sizes > 0).sum())
        rows += len(x)
    if not apart.count:
        remedy = "Collect more instances."
        raise DataError("the training rows are of one instance", where=pair.folder, remedy=remedy)
    return Seen(
        _joint(both, wide),
        _joint(apart, wide),
        (sides[0].told(), sides[1].told()),
        (np.concatenate(sides[0].norms), np.concatenate(sides[1].norms)),
        cosines / rows if wide == high else None,
    )


class _Side:
    """How sparse the rows of one side are."""

    def __init__(self, pair: Pair, side: int) -> None:
        sites = (pair.spec.source_sites, pair.spec.target_sites)[side]
        spans = [pair.statistics[name] for name in sites]
        self.mean = np.concatenate([np.array(span.mean) for span in spans])
        std = np.concatenate([np.array(span.std) for span in spans])
        self.std, self.constant = np.where(std > 0, std, 1.0), int((std <= 0).sum())
        self.norms: list[Floats] = []
        self.zeros = self.hoyer = self.rows = 0.0
        self.fourth = np.zeros(len(self.mean))

    def update(self, x: Floats) -> None:
        width = x.shape[1]
        norms = np.linalg.norm(x, axis=1)
        share = np.divide(np.abs(x).sum(1), norms, out=np.full(len(x), width**0.5), where=norms > 0)
        self.hoyer += float(((width**0.5 - share) / max(width**0.5 - 1, 1e-12)).sum())
        self.zeros += float((x == 0).sum()) / width
        self.fourth += (((x - self.mean) / self.std) ** 4).sum(0)
        self.norms.append(norms)
        self.rows += len(x)

    def told(self) -> dict[str, float]:
        return {
            "zeros": self.zeros / self.rows,
            "hoyer": self.hoyer / self.rows,
            "excess_kurtosis": float((self.fourth / self.rows - 3).mean()),
            "constant_dimensions": self.constant,
        }


@dataclass(frozen=True, eq=False)
class Judged:
    """What one pass over held-out rows told."""

    explained: dict[str, Explained]  # of each map
    joint: Joint
    shuffled: Joint


def held_out(pair: Pair, split: str, maps: Mapping[str, Map], *, joint: Joint) -> Judged:
    """Judge maps on the rows of a split, beside the source passed through, in one pass."""
    wide, high = pair.widths
    names = [*maps, *(["passed through"] if wide == high else [])]
    found = {name: Explained(joint.mean[wide:]) for name in names}
    both, apart = Covariance(wide + high), Covariance(wide + high)
    for x, y, ids in _batches(pair, split):
        both.update(np.concatenate([x, y], 1))
        _elsewhere(apart, x, y, each=_rows_each(pair))
        for name, part in found.items():
            part.update(y, maps[name](x) if name in maps else x, ids)
    return Judged(found, _joint(both, wide), _joint(apart, wide))


def _elsewhere(apart: Covariance, x: Floats, y: Floats, *, each: int) -> None:
    """Take in rows whose source is that of the instance before; where that could be the same one, none."""
    if len(x) >= 2 * each:
        apart.update(np.concatenate([np.roll(x, each, 0), y], 1))


def _joint(both: Covariance, wide: int) -> Joint:
    found = both.result()
    return Joint(found.count, found.mean, found.covariance, wide)


def _batches(pair: Pair, split: str) -> Iterator[tuple[Floats, Floats, list[str]]]:
    each = _rows_each(pair)
    for x, y, frame in pair.batches(max(1, 4096 // each) * each, split=split, columns=["sample_id"]):
        yield x.double().numpy(), y.double().numpy(), frame["sample_id"].to_list()


def _rows_each(pair: Pair) -> int:
    """How many rows an instance has."""
    return int(pair.record["rows"]) // int(pair.record["instances"]["num_instances"])


def recomputed(pair: Pair, count: int) -> int | None:
    """Compute the rows of some instances anew and refuse others; nothing where the policy is not there any more."""
    from elute.models.routing.instances import draw
    from elute.models.routing.settings import InstanceConfig
    from elute.routing.pair_sources import PairSource

    try:
        model = pair.model()
    except DataError as error:
        console.warn(f"{pair.name}: its rows were not computed anew: {error.line()}")
        return None
    told, each = InstanceConfig(**pair.record["instances"]), _rows_each(pair)
    most = pair.record["nodes_per_instance"]
    numbers = np.unique(np.linspace(0, told.num_instances - 1, count).astype(int)).tolist() if count else []
    for number in numbers:
        first = told.first + number
        one = draw(told.model_copy(update={"first": first, "num_instances": 1}))
        source = PairSource(model, pair.spec, nodes_per_instance=most, seed=told.seed, first=first)
        batch, frame = next(iter(source.batches(one)))
        kept = pair.store.metadata(number * each, (number + 1) * each, columns=["sample_id", "position"])
        rows, stored = source.capture(batch), pair.store.read(number * each, (number + 1) * each)
        close = _CLOSE[pair.store.manifest.dtype]
        apart = not frame.select("sample_id", "position").equals(kept)
        for name, x in rows.items():
            spread = max(float(np.mean(pair.statistics[name].std)), 1e-12)
            apart = apart or float((x.cpu() - stored[name].float()).abs().max()) > close * spread
        if apart:
            what = f"the rows of instance {one.ids[0]} are not what the policy gives: their order differs"
            raise GuardError(what, where=pair.folder, remedy="Collect it anew with --recapture.")
    return len(numbers)
