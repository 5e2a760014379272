"""A feature's activations taken from one instance to another: does it matter where they come to lie?

    nearest place    each node gets what fired at the node of the other instance that lies nearest to it
    any node         it gets what fired at a node of the other instance drawn at random
    own, elsewhere   the instance's own activations, in another order of its nodes

If a feature says where a node lies, the nearest place is near to the truth and changes little; drawn at random the same
activations change much. If the three are alike, the feature carries nothing of place that the policy uses. The other
instance is the next one of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elute.routing.measuring import effect

if TYPE_CHECKING:
    import polars as pl

    from elute.routing.attributing import Clean
    from elute.routing.cause_inputs import Subject

NEAREST, ANY, OWN = "nearest place", "any node", "own, elsewhere"
WAYS = (NEAREST, ANY, OWN)


def transplants(subject: Subject, seen: Clean, feature: int | None, *, seed: int) -> list[pl.DataFrame]:
    """Measure a feature's transplants on one batch, or those of the whole code; none at the decoder's steps."""
    import polars as pl

    from elute.routing.attributing import pushing

    if subject.at_steps:
        return []
    coords = seen.reference.instances.coords
    count, n = coords.shape[:2]
    codes = seen.codes.dense().view(count, n, -1)
    mine = codes if feature is None else codes[..., feature : feature + 1]
    frames = []
    for way, donor, nodes in donors(coords, seed=seed):
        given = donated(mine, donor, nodes)
        steps = {}
        for name in subject.writes:
            directions = subject.dictionary.directions(name).cpu()
            directions = directions if feature is None else directions[feature : feature + 1]
            steps[name] = (given - mine).reshape(count * n, -1) @ directions
        found = effect(subject.model, seen.reference, pushing(subject, seen, steps))
        columns = {m: getattr(found, m).numpy() for m in ("drift", "kl", "agreement", "margin")}
        frame = pl.DataFrame({"sample_id": list(seen.reference.instances.ids), **columns})
        frames.append(frame.select(pl.lit(feature, pl.Int64).alias("feature"), pl.lit(way).alias("way"), pl.all()))
    return frames


def donors(coords: Tensor, *, seed: int) -> list[tuple[str, Tensor, Tensor]]:
    """Return for each way which instance gives [instances], and which of its nodes [instances, nodes]."""
    count, n = coords.shape[:2]
    other, same = torch.arange(count).roll(1), torch.arange(count)
    apart = (coords[:, :, None] - coords[other][:, None]).square().sum(-1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(2, count, n, generator=generator).argsort(-1)
    return [(NEAREST, other, apart.argmin(-1)), (ANY, other, drawn[0]), (OWN, same, drawn[1])]


def donated(codes: Tensor, donor: Tensor, nodes: Tensor) -> Tensor:
    """Return what each node gets, [instances, nodes, features]."""
    given = codes[donor]
    return given.gather(1, nodes[..., None].expand(-1, -1, codes.shape[-1]))
