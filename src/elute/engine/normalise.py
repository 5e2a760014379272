"""Normalisation of a store's rows before training, and what is measured on a sample of them first.

    scale      centred; one number for all dimensions, so that a row's squared length is k on average: codes are near 1
    center     centred
    standard   each dimension centred and divided by its standard deviation
    pca        whitened
    none       as they are

`standard` and `pca` come from the store's embed_stats.json, which is measured if it is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from elute.base import console
from elute.base.errors import ConfigError, DataError
from elute.dictionaries.folding import Affine
from elute.store import layout
from elute.store.scaling import Scaling, StatsConfig, measure
from elute.store.shuffle import ShuffleConfig

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from elute.store.reader import Store
    from elute.store.rows import Selection

SAMPLE = 32_768  # rows
MEASURED = ("standard", "pca")


def sample(store: Store, where: Selection, sites: list[str], *, seed: int) -> dict[str, Tensor]:
    """Read some rows in random order."""
    stream = store.shuffled(ShuffleConfig(batch_size=min(4096, where.rows), seed=seed), where=where, sites=sites)
    held: dict[str, list[Tensor]] = {name: [] for name in sites}
    rows = 0
    for batch in stream:
        for name in sites:
            held[name].append(batch.rows[name].float())
        rows += len(batch.places)
        if rows >= SAMPLE:
            break
    found = {name: torch.cat(parts) for name, parts in held.items()}
    for name, x in found.items():
        if not bool(torch.isfinite(x).all()):
            what, remedy = f"rows of site {name!r} hold NaN or infinity", "Import them with --bad-rows drop."
            raise DataError(what, where=store.folder, remedy=remedy)
    return found


def scaling_of(method: str, store: Store) -> str | None:
    """Return the digest of the store's scaling where rows are normalised by it, if it has been measured."""
    if method not in MEASURED or not (store.folder / layout.STATS).exists():
        return None
    return Scaling.of(store.folder).digest


def measured(method: str, store: Store) -> None:
    """Measure the store's scaling where rows are normalised by it, if that has not been done."""
    if method in MEASURED and not (store.folder / layout.STATS).exists():
        console.say(f"{store.folder}: measuring the scaling ({method})")
        measure(store.folder, StatsConfig(method="pca" if method == "pca" else "standard"))


def normalisation(method: str, store: Store, rows: dict[str, Tensor], *, k: int) -> dict[str, Affine]:
    """Return each site's normalisation."""
    if method in MEASURED:
        return _measured(method, store, list(rows))
    return simple(method, rows, k=k, where=store.folder)


def simple(method: str, rows: dict[str, Tensor], *, k: int, where: Path | str) -> dict[str, Affine]:
    """Return each site's normalisation by what a sample of its rows tells."""
    found = {}
    for name, x in rows.items():
        mean = x.double().mean(0)
        square = float((x.double() - mean).square().sum(1).mean())
        if square <= 1e-12 * max(1.0, float(mean.square().sum())):
            raise _flat(name, where)
        size = (square / k) ** 0.5 if method == "scale" else 1.0
        shift = mean.float() if method != "none" else torch.zeros(x.shape[1])
        ones = torch.ones(x.shape[1])
        found[name] = Affine(shift, ones / size, ones * size)
    return found


def _flat(name: str, where: Path | str) -> DataError:
    return DataError(f"site {name!r} does not vary", where=where, remedy="Check the rows, or the site.")


def _measured(method: str, store: Store, sites: list[str]) -> dict[str, Affine]:
    measured(method, store)
    scaling = Scaling.of(store.folder)
    if scaling.record.get("store") != store.manifest.store:
        remedy = f"`elute arrays stats {store.folder} --method {method}` measures it anew."
        raise ConfigError("the scaling was measured on other rows", where=store.folder, remedy=remedy)
    if scaling.record["method"] != method:
        raise ConfigError(
            f"the store's scaling is {scaling.record['method']}, --normalise asks for {method}",
            where=store.folder,
            remedy=f"`elute arrays stats {store.folder} --method {method}` measures that one.",
        )
    found = {}
    for name in sites:
        site = scaling.site(name)
        if len(site.constant) == len(site.mean):
            raise _flat(name, store.folder)
        found[name] = Affine(*(torch.from_numpy(part).float() for part in (site.mean, site.forth, site.back)))
    return found


def geometric_median(x: Tensor, *, rounds: int = 100) -> Tensor:
    """The point with the least sum of distances to the rows (Weiszfeld's iteration)."""
    x = x.double()
    point = x.mean(0)
    for _ in range(rounds):
        weights = 1 / (x - point).norm(dim=1).clamp(min=1e-12)
        moved = (weights[:, None] * x).sum(0) / weights.sum()
        done = float((moved - point).norm()) <= 1e-9 * (1 + float(point.norm()))
        point = moved
        if done:
            break
    return point.float()
