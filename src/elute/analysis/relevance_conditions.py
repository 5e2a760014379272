"""Conditions on what relevance starts from and on what it may pass, by layer.

    {"y": ["EPCAM"], "model.sae.latent": [7, 11], "model.head.0": [3]}

Genes and units within a layer add, layers intersect, and a layer that is not named is not masked (equations 8 and 10).
A layer, gene or unit that is not there is an error with the nearest names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis.relevance_head import GENE, LATENT
from elute.base.errors import ConfigError, near
from elute.base.mergeable import Integers

if TYPE_CHECKING:
    from elute.analysis.relevance_head import Explained

Conditions = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Asked:
    """Conditions, read: which outputs relevance starts from, and which units of a layer keep it."""

    genes: Integers
    masks: dict[str, Integers]
    start: str = GENE

    @property
    def codes(self) -> Integers | None:
        """The codes that the conditions name; nothing for all."""
        return self.masks.get(LATENT)


def read_conditions(explained: Explained, conditions: Conditions, start: str | None = None) -> Asked:
    """Read conditions: names and ids within a layer add, layers intersect; an unknown one is an error (equation 8)."""
    known = (GENE, *explained.paths)
    if not isinstance(conditions, Mapping):
        raise ConfigError("conditions are a dict of layers", remedy='As {"y": "EPCAM", "model.sae.latent": [7]}.')
    for path in conditions:
        if path not in known:
            raise ConfigError(f"there is no layer {path!r} to set a condition on", remedy=near(str(path), known))
    if start is not None and start not in explained.paths:
        raise ConfigError(f"there is no layer {start!r} to start from", remedy=near(start, explained.paths))
    begin = start or GENE
    if begin not in conditions:
        remedy = "Name a gene." if begin == GENE else "Name the units that relevance starts from."
        raise ConfigError(f"the conditions say nothing of {begin!r}", remedy=remedy)
    above = known[known.index(begin) + 1 :] if begin != GENE else ()
    if begin != GENE and (lost := [path for path in conditions if path == GENE or path in above]):
        raise ConfigError(f"a condition on {lost[0]!r} lies above {begin!r}, where relevance starts", remedy="Drop it.")
    genes = gene_numbers(explained, conditions[GENE]) if begin == GENE else np.zeros(0, np.int64)
    masks = {path: _ids(units, explained.width(path), path) for path, units in conditions.items() if path != GENE}
    return Asked(genes, masks, begin)


def gene_numbers(explained: Explained, asked: Any) -> Integers:
    """Return the places of genes, by name or number; one that the head has not is an error."""
    items = [asked] if isinstance(asked, str | int | np.integer) else list(asked)
    if not items:
        raise ConfigError("the condition on 'y' names no gene", remedy="Name at least one.")
    places = {name: i for i, name in enumerate(explained.genes)}
    found = []
    for item in items:
        if isinstance(item, str):
            if item not in places:
                raise ConfigError(f"the head has no gene {item!r}", remedy=near(item, places))
            found.append(places[item])
        else:
            found.append(int(_ids([item], len(explained.genes), GENE)[0]))
    return np.unique(np.array(found, np.int64))


def _ids(asked: Any, width: int, path: str) -> Integers:
    """Read ids of units; one that a layer has not is an error."""
    items = [asked] if isinstance(asked, int | np.integer) else asked
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise ConfigError(f"the condition on {path!r} is {asked!r}", remedy="Give a list of whole numbers.")
    found = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | np.integer):
            raise ConfigError(f"the condition on {path!r} names {item!r}", remedy="Give whole numbers.")
        if not 0 <= item < width:
            raise ConfigError(f"{path!r} has no unit {item}", remedy=f"Choose 0 to {width - 1}.")
        found.append(int(item))
    if not found:
        raise ConfigError(
            f"the condition on {path!r} names no unit", remedy="Name at least one, or leave the layer out."
        )
    return np.unique(np.array(found, np.int64))
