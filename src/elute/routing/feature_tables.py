"""Tables about the features of a dictionary, from what was seen on held-out instances (looking.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.routing.cause_inputs import Subject
    from elute.routing.cause_settings import PairEvalConfig
    from elute.routing.looking import Looked
    from elute.routing.meaning import Relations

    Floats = NDArray[np.float64]

SCOPES = ("node", "beyond place", "instance")
_EDGES = 8  # strongest weights of each feature that are listed


def ranking(looked: Looked) -> NDArray[np.int64]:
    """Return features by their mean absolute attribution, the largest first."""
    return np.argsort(-np.abs(looked.attributions).mean(0), kind="stable")


def ablations(subject: Subject, looked: Looked, *, most: int) -> pl.DataFrame:
    """Take the features of the largest attribution away one by one; means over the instances that are kept whole."""
    import polars as pl
    import torch

    from elute.routing.attributing import taken_away

    kept = sum(len(part.reference.instances) for part in looked.parts)
    chosen = [f for f in ranking(looked)[:most].tolist() if looked.fired.counts[f]]
    rows = []
    with console.progress("take away", len(chosen), unit="features") as bar:
        for feature in chosen:
            effects = [taken_away(subject, part, feature) for part in looked.parts]
            told = {name: torch.cat([getattr(e, name) for e in effects]) for name in ("margin", "kl", "agreement")}
            rows.append(
                {
                    "feature": feature,
                    "attribution": float(looked.attributions[:kept, feature].mean()),
                    **{name: float(values.mean()) for name, values in told.items()},
                    "kl_error": float(told["kl"].std() / len(told["kl"]) ** 0.5),
                }
            )
            bar.advance()
    kinds = {"attribution": pl.Float64, "margin": pl.Float64, "kl": pl.Float64, "agreement": pl.Float64}
    return pl.DataFrame(rows, schema={"feature": pl.Int64, **kinds, "kl_error": pl.Float64})


def dense(looked: Looked, most: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return activations [instances, rows, features] of the first instances, and the node of each row."""
    codes = np.concatenate([part.codes.dense().numpy() for part in looked.parts])
    nodes = np.concatenate([part.nodes.numpy() for part in looked.parts])
    kept = sum(len(part.reference.instances) for part in looked.parts)
    count = min(most, kept)
    shaped = codes.reshape(kept, -1, codes.shape[1])[:count].astype(np.float64)
    return shaped, nodes.reshape(kept, -1)[:count]


def relations(subject: Subject, looked: Looked, *, config: PairEvalConfig, seed: int) -> pl.DataFrame:
    """Hold every feature that fires often enough against every quantity of nodes, and of instances."""
    import polars as pl

    from elute.routing import tour_features
    from elute.routing.meaning import among, within

    del subject
    activations, nodes = dense(looked, config.meant)
    count = len(activations)
    often = (activations > 0).mean((0, 1)) >= max(config.least_share, 1e-12)
    tested = np.flatnonzero(often)
    coords, tours = looked.instances.coords[:count].numpy().astype(np.float64), looked.tours[:count]
    of_nodes = np.take_along_axis(tour_features.of_nodes(coords, tours), nodes[..., None], 1)
    some = activations[..., tested]
    names, places = list(tour_features.OF_NODES), len(tour_features.PLACE)
    of_instances = tour_features.of_instances(coords, tours)
    often_drawn: dict[str, Any] = {"permutations": config.permutations, "seed": seed}
    frames = []
    if len(tested) and count > 2:
        rest = of_nodes[..., places:]
        told = {
            "node": (names, within(some, of_nodes, **often_drawn)),
            "beyond place": (names[places:], within(some, rest, given=of_nodes[..., :places], **often_drawn)),
            "instance": (list(tour_features.OF_INSTANCES), among(some.mean(1), of_instances, **often_drawn)),
        }
        frames = [_long(found, scope, tested, names=known) for scope, (known, found) in told.items()]
    schema = {"feature": pl.Int64, "scope": pl.String, "quantity": pl.String}
    numbers = dict.fromkeys(("rho", "p", "p_family", "p_units"), pl.Float64)
    return pl.concat([pl.DataFrame(schema={**schema, **numbers}), *frames])


def _long(found: Relations, scope: str, features: NDArray[np.int64], *, names: list[str]) -> pl.DataFrame:
    import polars as pl

    columns: dict[str, Any] = {
        "feature": np.repeat(features, len(names)),
        "scope": [scope] * (len(features) * len(names)),
        "quantity": names * len(features),
        "rho": found.rho.ravel(), "p": found.p.ravel(), "p_family": found.p_family.ravel(),
        "p_units": [None] * found.rho.size if found.p_units is None else found.p_units.ravel(),
    }  # fmt: skip
    return pl.DataFrame(columns).with_columns(pl.col("feature").cast(pl.Int64), pl.col("p_units").cast(pl.Float64))


def feature_table(
    looked: Looked, taken: pl.DataFrame, meant: pl.DataFrame, *, seed: int, resamples: int
) -> pl.DataFrame:
    """One row a feature, those of the largest attribution first."""
    import polars as pl

    from elute.routing.intervals import means

    found = means(looked.attributions, resamples=resamples, seed=seed)
    order = ranking(looked)
    fired = looked.fired
    table = pl.DataFrame(
        {
            "feature": order,
            "frequency": fired.frequency[order],
            "mean_strength": fired.mean_strength[order],
            "max_strength": fired.max_strength[order],
            "attribution": [found[i].mean for i in order],
            "attribution_low": [found[i].low for i in order],
            "attribution_high": [found[i].high for i in order],
            "attribution_size": np.abs(looked.attributions).mean(0)[order],
        }
    ).with_columns(pl.col("feature").cast(pl.Int64))
    removed = taken.select(
        "feature", *(pl.col(name).alias(f"away_{name}") for name in ("margin", "kl", "kl_error", "agreement"))
    )
    table = table.join(removed, on="feature", how="left", maintain_order="left")
    for scope in SCOPES:
        best = (
            meant.filter(pl.col("scope") == scope)
            .with_columns(pl.col("rho").abs().alias("size"))
            .sort("size", "quantity", descending=[True, False])
            .unique("feature", keep="first", maintain_order=True)
            .select("feature", *(pl.col(c).alias(f"{scope.split()[0]}_{c}") for c in ("quantity", "rho", "p_family")))
        )
        table = table.join(best, on="feature", how="left", maintain_order="left")
    return table


def dimensions(looked: Looked) -> pl.DataFrame:
    """R² of each dimension of each written site, for the dictionary and for the linear map."""
    import polars as pl

    frames = [
        pl.DataFrame(
            {
                "site": [name] * len(r2), "dimension": np.arange(len(r2)), "r2": r2,
                "r2_linear": looked.r2["linear map"][name],
            }
        )
        for name, r2 in looked.r2["transcoder"].items()
    ]  # fmt: skip
    return pl.concat(frames)


def edges(subject: Subject, looked: Looked) -> pl.DataFrame:
    """The strongest weights of each feature that fires: source feature to dimension of a target, by what it carries.

    `carried` is the weight times the feature's mean activation over all rows.
    """
    import polars as pl

    mean = looked.fired.mean_strength * looked.fired.frequency
    frames = []
    for name, site in subject.writes.items():
        weights = subject.dictionary.directions(name).cpu().double().numpy()
        live = np.flatnonzero((looked.fired.counts > 0) & (np.abs(weights).max(1) > 0))
        first = np.argsort(-np.abs(weights[live]), 1, kind="stable")[:, :_EDGES]
        chosen = np.take_along_axis(weights[live], first, 1)
        frames.append(
            pl.DataFrame(
                {
                    "feature": np.repeat(live, first.shape[1]),
                    "target": [site] * first.size,
                    "dimension": first.ravel(),
                    "weight": chosen.ravel(),
                    "carried": (chosen * mean[live][:, None]).ravel(),
                }
            )
        )
    return pl.concat(frames)


def heat_rows(subject: Subject, features: list[int]) -> dict[str, tuple[list[str], Floats]]:
    """Directions of some features in each target, as a picture has them."""
    names = [f"feature {f}" for f in features]
    found = {}
    for name, site in subject.writes.items():
        found[site] = (names, subject.dictionary.directions(name).cpu().double().numpy()[features])
    return found


def drawings(looked: Looked, features: list[int], *, count: int) -> dict[int, list[dict[str, Any]]]:
    """Return for each feature the instances in which its attribution is largest, with its activation at each node."""
    activations, nodes = dense(looked, 1 << 30)
    n = looked.instances.nodes
    found: dict[int, list[dict[str, Any]]] = {}
    for feature in features:
        size = np.abs(looked.attributions[: len(activations), feature])
        found[feature] = []
        for i in np.argsort(-size, kind="stable")[:count].tolist():
            values = np.zeros(n)
            np.add.at(values, nodes[i], activations[i, :, feature])
            found[feature].append(
                {
                    "id": looked.instances.ids[i], "coords": looked.instances.coords[i].numpy().astype(np.float64),
                    "tour": looked.tours[i], "values": values,
                }
            )  # fmt: skip
    return found
