"""What features reach further down: attention heads, and channels of any site.

    onto(replacement, graph, "blocks.2.hook_resid_post")                     a row a source and channel
    onto(replacement, graph, Site("blocks.2.attn.proj", "input"), heads=4)   a row a source and head

A source is taken away in the replacement model, all other features as they were. A channel's effect is the change of
its sum over positions; that of a head the length of the change of all that it gives, over positions. Of what lies
within an MLP nothing can be told: it is not linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from elute.base.contracts import Site
from elute.base.errors import ConfigError, SiteError, near
from elute.graphs.interventions import change_of
from elute.models import sites as hooks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from elute.graphs.graph import Graph
    from elute.graphs.replacement import Replacement


def onto(
    replacement: Replacement,
    graph: Graph,
    site: str | Site,
    *,
    heads: int = 0,
    sources: Sequence[str] | None = None,
    most: int = 50,
) -> pl.DataFrame:
    """Return what sources contribute to the channels of a site, or to `heads` equal parts of it: the strongest first.

    `sources` are node ids; else the `most` features of the greatest influence.
    """
    known = replacement.model.sites
    if isinstance(site, str) and site not in known:
        raise SiteError(f"there is no site {site!r}", where="onto", remedy=near(site, known))
    place = known[site] if isinstance(site, str) else site
    if isinstance(site, str) and site in replacement.layers.writes:
        what = "what an MLP writes are features and an error, which stay as they are"
        raise SiteError(what, where=f"site {site!r}", remedy="Name one behind it, or read the graph's edges.")
    before = _seen(replacement, place, {}, None)
    width = before.shape[-1]
    if heads < 0 or (heads and width % heads):
        raise ConfigError(
            f"{width} columns are not {heads} heads", where="onto", remedy="Give the heads of that layer."
        )
    if sources is None:
        able = np.flatnonzero(graph.of("feature"))
        numbers = able[np.argsort(-graph.influence[able], kind="stable")][:most]
    else:
        numbers = graph.numbers(sources)
    ids, parts = graph.nodes["node_id"], []
    for number in numbers:
        add, start = change_of(replacement, graph, int(number))
        lost = (before - _seen(replacement, place, add, start)).double()
        effect = lost.view(len(lost), heads, -1).square().sum((0, 2)).sqrt() if heads else lost.sum(0)
        parts.append(
            pl.DataFrame(
                {
                    "source": [ids[int(number)]] * len(effect),
                    "target": [f"{'head' if heads else 'channel'} {i}" for i in range(len(effect))],
                    "weight": effect.cpu().numpy(),
                }
            )
        )
    empty = pl.DataFrame(schema={"source": pl.String, "target": pl.String, "weight": pl.Float64})
    found = pl.concat([empty, *parts])
    order = found.with_columns(size=pl.col("weight").abs()).sort("size", descending=True, maintain_order=True)
    return order.filter(pl.col("size") > 0).drop("size")


def _seen(replacement: Replacement, site: Site, add: Mapping[int, Tensor], start: Tensor | None) -> Tensor:
    found = hooks.capture(
        replacement.model.module,
        {"onto": site},
        lambda: replacement.live(add=add, start=start),
        flat=True,
    ).tensors["onto"]
    rows = replacement.rows
    if len(found) != len(replacement.y[0]):
        what = f"it gives {len(found)} rows where layers give {len(replacement.y[0])}"
        raise SiteError(what, where=f"site {site.path!r}", remedy="Name one with a row for each position.")
    kept: Tensor = found[rows]
    return kept.to(torch.float64)
