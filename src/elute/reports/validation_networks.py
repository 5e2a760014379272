"""The interactions among a feature's genes, drawn for those features whose genes interact beyond chance.

The pictures are of the very snapshot that was tested; where it is not on this machine there are none, and the numbers
stand alone. A page holds those of the surest features; any other can be written to a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from elute.base.errors import EluteError
from elute.reports.validation_svg import plain
from elute.reports.validation_tables import Site, Source

if TYPE_CHECKING:
    from elute.validation.network import Network

MOST = 100  # features that a page draws
_LEAST = 0.7
_SCORE = re.compile(r"score of (0\.\d+|1) or more")


def surest(site: Site, most: int = MOST) -> list[int]:
    """Return the features whose genes interact beyond chance, the surest first."""
    import polars as pl

    if site.network is None:
        return []
    q = pl.coalesce("q_null", "q")
    passing = site.network.filter(q <= site.fdr, pl.col("edges") > 0).sort(q, "p", "feature")
    return passing.head(most)["feature"].to_list()


def pictures(site: Site, features: Sequence[int]) -> dict[int, str]:
    """Draw the networks of some features, each as SVG."""
    source = next((each for each in site.sources if each.is_network and each.run), None)
    if source is None or not features:
        return {}
    try:
        known = _network(source)
    except EluteError:
        return {}  # a report of what was found does not fail over a picture
    if known is None:
        return {}
    from elute.validation.network import sub_network
    from elute.validation.network_drawing import draw
    from elute.validation.network_modules import modules_of

    network, keys = known
    lists = dict(site.genes.iter_rows())
    drawn = {}
    for feature in features:
        found = {keys[symbol] for symbol in lists.get(feature) or [] if symbol in keys}
        places = sorted(network.background.place[key] for key in found if key in network.background.place)
        if len(places) < 2:
            continue
        sub = sub_network(network, np.array(places, dtype=np.int64))
        if sub.scores.nnz:
            drawn[feature] = draw(sub, modules_of(sub), title=f"Feature {feature} in {plain(source.snapshot)}")
    return drawn


def _network(source: Source) -> tuple[Network, dict[str, str]] | None:
    """Return the whole network of the snapshot that was tested, and the key of each of its symbols."""
    import polars as pl

    from elute.validation import snapshots

    version = next((each for each in snapshots.versions(source.name) if source.snapshot.endswith(f" {each}")), None)
    snapshot = None if version is None else snapshots.find(source.name, version)
    if snapshot is None:
        return None
    from elute.validation import mapping
    from elute.validation.background import Part, of_parts
    from elute.validation.network import network_of

    told = _SCORE.search(source.evidence)
    least = float(told[1]) if told else _LEAST
    table = snapshots.load(snapshot).filter(pl.col("score") >= least)
    mapped = mapping.identify(table, mapping.gene_table()).table.with_columns(key=pl.coalesce("hgnc", "symbol"))
    names = mapped.select("symbol", "key").drop_nulls().unique("symbol", maintain_order=True)
    background = of_parts([Part(names["key"].to_list(), source.snapshot)])
    return network_of(mapped, background, least, source=source.snapshot), dict(names.iter_rows())
