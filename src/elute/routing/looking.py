"""A dictionary seen on held-out instances: what it reconstructs, when its features fire, what each is worth.

One pass: the policy solves instances and is left alone; the dictionary and the linear map are held against what it
computes. The first instances are kept whole, for features to be taken away and held against quantities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.routing.intervals import plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.engine.metrics import FiringResult
    from elute.models.routing.instances import Instances
    from elute.routing.attributing import Clean
    from elute.routing.cause_inputs import Subject
    from elute.routing.cause_settings import JudgedConfig
    from elute.routing.linear_map import Affine

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Looked:
    """What was seen on held-out instances."""

    instances: Instances
    tours: NDArray[np.int64]
    parts: list[Clean]  # those on which features are taken away and held against quantities
    attributions: Floats  # [instances, features]
    rows: int
    fired: FiringResult
    r2: dict[str, dict[str, Floats]]  # by map and written site
    explained: dict[str, dict[str, float]]  # by map: explained variance, cosine


def look(subject: Subject, instances: Instances, *, judged: JudgedConfig, most: int) -> Looked:
    """Run the policy on instances, and see what the dictionary makes of it; `most` instances are kept whole."""
    from elute.engine.metrics import Firing, Reconstruction
    from elute.routing.attributing import attributions, clean
    from elute.routing.cause_inputs import cut
    from elute.routing.linear_map import fit
    from elute.routing.measuring import reference

    maps = fit(subject.rows.store, subject.dictionary.spec)
    writes = subject.dictionary.spec.writes
    firing = Firing(subject.dictionary.n_features)
    judges = {
        kind: {name: Reconstruction(width, maps[name].mean) for name, width in writes.items()}
        for kind in ("transcoder", "linear map")
    }
    parts, tours, found, kept = [], [], [], 0
    with console.progress("eval", len(instances), unit="instances") as bar:
        for part in cut(instances, judged.batch):
            ref = reference(subject.model, part)
            seen = clean(subject, ref)
            firing.update(seen.codes)
            for name in writes:
                for kind, y_hat in _both(subject, seen, maps, name).items():
                    judges[kind][name].update((seen.written[name].cpu(), y_hat))
            found.append(attributions(subject, seen).numpy())
            tours.append(ref.actions.numpy())
            if kept < most:
                parts.append(seen)
                kept += len(part)
            bar.advance(len(part))
    results = {kind: {name: judge.result() for name, judge in sites.items()} for kind, sites in judges.items()}
    return Looked(
        instances, np.concatenate(tours), parts, np.concatenate(found), firing.result().rows, firing.result(),
        r2={kind: {name: each.r2 for name, each in sites.items()} for kind, sites in results.items()},
        explained={
            kind: {
                "explained_variance": plain(1 - _mean([each.fvu_given_mean for each in sites.values()])),
                "cosine": plain(_mean([each.cosine for each in sites.values()])),
            }
            for kind, sites in results.items()
        },
    )  # fmt: skip


def _both(subject: Subject, seen: Clean, maps: dict[str, Affine], name: str) -> dict[str, Any]:
    from elute.routing.replacing import decoded

    return {"transcoder": decoded(subject.dictionary, seen.read, name).cpu(), "linear map": maps[name](seen.read).cpu()}


def _mean(values: list[Any]) -> float:
    return float(np.mean([0.0 if value is None else value for value in values]))
