"""What stands beside a graph, checked: the instance of a tour, a cell's genes, and what is known of its features."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from elute.base.errors import ConfigError

_EXAMPLES = 50  # of a feature
_TEXT = 2000
# A link leads into a file of the run, or to a page on the web; a browser would take other beginnings for programs.
_LINK = re.compile(r"https?://[^\s]+|(?!//)(?![A-Za-z][A-Za-z0-9+.-]*:)[^\s\\]+")


def besides(given: Mapping[str, Any] | None, *, positions: int) -> dict[str, Any]:
    """Return what is shown beside a graph of so many positions; nothing given is nothing shown."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        _refuse("is no object", "Give a kind and what it needs.")
    known = {"tour": _tour, "genes": _genes, None: lambda *_: {}}
    kind = given.get("kind")
    if kind not in known:
        _refuse(f"is of kind {kind!r}", "Known are 'tour' and 'genes'.")
    found: dict[str, Any] = known[kind](given, positions)
    features = given.get("features") or {}
    if not isinstance(features, Mapping):
        _refuse("has features that are no object", "Give an object by node id.")
    return {**found, "features": {str(name): _feature(str(name), one) for name, one in features.items()}}


def _tour(given: Mapping[str, Any], positions: int) -> dict[str, Any]:
    coords = [[_number(x, "coords") for x in _list(pair, "coords")] for pair in _list(given.get("coords"), "coords")]
    if not coords or any(len(pair) != 2 or None in pair for pair in coords):
        _refuse("has coords that are no pairs of numbers", "Give [x, y] for each place.")
    tour = given.get("tour")
    tour = [] if tour is None else _places(tour, "tour", len(coords))
    at = given.get("at")
    if at is not None:
        at = _places([at], "at", max(1, len(tour)))[0]
    where = given.get("positions")
    where = list(range(min(positions, len(coords)))) if where is None else _places(where, "positions", len(coords))
    return {"kind": "tour", "coords": coords, "tour": tour, "at": at, "positions": where}


def _genes(given: Mapping[str, Any], positions: int) -> dict[str, Any]:
    genes = [_text(name) for name in _list(given.get("genes"), "genes")]
    values = [_number(value, "values") for value in _list(given.get("values"), "values")]
    if not len(genes) == len(values) <= max(positions, len(genes)) or not genes:
        _refuse(f"has {len(genes)} genes and {len(values)} values", "Give both for each position.")
    if len(genes) > positions:
        _refuse(f"has {len(genes)} genes, and the graph {positions} positions", "Give one for each position.")
    return {"kind": "genes", "genes": genes, "values": values}


def _feature(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        _refuse(f"says of feature {name[:60]!r} what is no object", "Give label, examples, facts or link.")
    examples = []
    for one in _list(given.get("examples") or [], "examples")[:_EXAMPLES]:
        what, value = (one.get("what"), one.get("value")) if isinstance(one, Mapping) else (one, None)
        examples.append({"what": _text(what), "value": _number(value, "examples")})
    facts = given.get("facts") or {}
    if not isinstance(facts, Mapping):
        _refuse(f"has facts of feature {name[:60]!r} that are no object", "Give values by name.")
    link = given.get("link")
    if link is not None and not _LINK.fullmatch(str(link)):
        _refuse(
            f"has a link that leads to no page: {str(link)[:60]!r}", "Give a path from this page, or a web address."
        )
    told = {key: _fact(value) for key, value in facts.items()}
    label = given.get("label")
    return {
        "label": None if label is None else _text(label),
        "examples": examples,
        "facts": told,
        "link": None if link is None else str(link),
    }


def _fact(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return _number(value, "facts") if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)


def _list(value: Any, name: str) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        _refuse(f"has {name} that are no list", "Give a list.")
    return list(value)


def _places(value: Any, name: str, n: int) -> list[int]:
    found = _list(value, name)
    for one in found:
        whole = hasattr(one, "__index__") and not isinstance(one, bool)
        if not whole or not 0 <= int(one) < n:
            _refuse(f"has {name} with {str(one)[:40]!r}, which is no place of {n}", "Count from 0.")
    return [int(one) for one in found]


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"has {name} with {str(value)[:40]!r}, which is no number", "Give numbers.")
    return value if math.isfinite(value) else None


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _TEXT else text[:_TEXT] + "…"


def _refuse(what: str, remedy: str) -> NoReturn:
    raise ConfigError(f"what stands beside the graph {what}", where="the page of a graph", remedy=remedy)
