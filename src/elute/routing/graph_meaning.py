"""What features of a graph follow: which quantity of nodes, on instances of the same kind, against a permutation null.

As `elute routing eval` asks it of a dictionary (meaning.py), but of the features alone that a graph keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.graphs.result import Explained
    from elute.routing.graph_inputs import Inputs

PERMUTATIONS = 199
_LEVEL = 0.05  # of the whole table
_EXAMPLES = 5


def meanings(given: Inputs, made: Explained) -> dict[str, dict[str, Any]]:
    """Return, by `layer_feature`, the quantity that a feature follows, how often it fires, and where the most."""
    import polars as pl

    from elute.routing import meaning
    from elute.routing.tour_features import OF_NODES, of_nodes

    rows = (
        made.kept.nodes.filter(pl.col("kind") == "feature").select("layer", "feature").unique().sort("layer", "feature")
    )
    chosen = rows.rows()
    if not chosen:
        return {}
    seen = given.seen
    values = _activations(given, made, chosen)
    quantities = of_nodes(seen.coords.double().numpy(), given.seen_tours.numpy())
    found = meaning.within(values, quantities, permutations=PERMUTATIONS, seed=0)
    names = list(OF_NODES)
    told = {}
    for i, (layer, feature) in enumerate(chosen):
        best = int(np.abs(found.rho[i]).argmax())
        follows = bool(found.p_family[i, best] < _LEVEL)
        fired = values[..., i]
        places = np.argsort(-fired, axis=None, kind="stable")[:_EXAMPLES]
        strongest = [np.unravel_index(int(place), fired.shape) for place in places if fired.flat[int(place)] > 0]
        told[f"{layer}_{feature}"] = {
            "label": f"{names[best].replace('_', ' ')} {found.rho[i, best]:+.2f}" if follows else None,
            "examples": [{"what": f"{seen.ids[a]}, node {b}", "value": float(fired[a, b])} for a, b in strongest],
            "facts": {
                "fires in": f"{float((fired != 0).mean()):.1%} of nodes",
                "follows": OF_NODES[names[best]] if follows else "nothing found",
            },
        }
    return told


def _activations(given: Inputs, made: Explained, chosen: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Return how strongly features fire, [instances, nodes, features]."""
    seen, replacement = given.seen, made.replacement
    layers = replacement.layers
    batch = {"coords": seen.coords.double(), "actions": None, "ids": seen.ids}
    rows = given.model.capture(batch, list(layers.reads))
    coded = replacement.coders.encode([rows[name] for name in layers.reads])
    found = np.zeros((len(seen) * seen.nodes, len(chosen)))
    for i, (layer, feature) in enumerate(chosen):
        hit = (coded[layer].idx == feature) & coded[layer].fired
        found[:, i] = (coded[layer].val * hit).sum(1).double().cpu().numpy()
    return found.reshape(len(seen), seen.nodes, -1)
