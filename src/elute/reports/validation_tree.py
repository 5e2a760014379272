"""A feature's phenotypes as a small tree: its significant terms, and of the terms above them those where ways part.

1. From each significant term the way up to the root, by is_a. Of several parents a term stands below the one that has
   most of the feature's significant terms below it, then the most specific (the most terms above it), then the first.
2. A term above that is not significant itself and has one branch below it is folded: the tree says how many were.
3. Without an ontology at hand, a term stands below the one under which the test folded it, and nothing is added.

A tree is a list of nodes in the order in which they are read, each with its depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elute.base.errors import EluteError
from elute.reports.html import Markup, join, tag
from elute.reports.validation_svg import Drawing, chance, cut, hint, line, mark, plain, words
from elute.reports.validation_tables import Site, Source

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.reading.obo import Ontology

ONTOLOGIES = {"hpo": "ontology"}  # source: under which role its snapshot keeps its ontology
MOST = 12  # significant terms of one tree
_ROW, _STEP = 22, 20


@dataclass(frozen=True)
class Node:
    """A line of a tree."""

    term: str
    depth: int
    skipped: int
    """Terms between it and the node above that were folded away."""
    q: float | None
    """None for a term that is not significant, and only joins others."""
    folded: bool
    """Whether the test found it to repeat what a term below it says."""


@dataclass(frozen=True, eq=False)
class Trees:
    """The trees of all features in one source."""

    nodes: dict[int, list[Node]]
    of: dict[int, int]
    """How many significant terms a feature has, of which its tree shows the surest."""
    labels: dict[str, str]
    whole: bool
    """Whether an ontology said which terms lie above."""


def trees(site: Site) -> dict[str, Trees]:
    """Grow the trees of every source that has an ontology."""
    found = {}
    for source in site.sources:
        if source.name in ONTOLOGIES and source.rows is not None and len(source.rows):
            found[source.name] = grow(source.rows, site.fdr, ontology_of(source))
    return found


def ontology_of(source: Source) -> Ontology | None:
    """Return the ontology of the very snapshot that was used; None where it is not on this machine."""
    from elute.validation import snapshots
    from elute.validation.reading.obo import read_obo

    try:
        for version in snapshots.versions(source.name):
            if source.snapshot.endswith(version):
                snapshot = snapshots.find(source.name, version)
                return None if snapshot is None else read_obo(snapshot.file(ONTOLOGIES[source.name]))
    except EluteError:
        return None  # a report of what was found does not fail over a drawing
    return None


def grow(rows: pl.DataFrame, fdr: float, ontology: Ontology | None) -> Trees:
    """Grow a tree for each feature that has a significant term."""
    import polars as pl

    passing = rows.filter(pl.col("q") <= fdr)
    of = {int(feature): int(n) for feature, n in passing.group_by("feature").len().iter_rows()}
    passing = passing.group_by("feature", maintain_order=True).head(MOST)
    nodes: dict[int, list[Node]] = {}
    labels: dict[str, str] = {}
    columns = ("term", "label", "q", "folded_under")
    for (feature,), part in passing.group_by("feature", maintain_order=True):
        mine = {term: (q, under) for term, _, q, under in part.select(columns).iter_rows()}
        if ontology is not None:
            mine = {term: told for term, told in mine.items() if ontology.current(term) == term}
        if not mine:
            continue
        parents = _above(mine, ontology)
        labels |= dict(part.select("term", "label").iter_rows())
        if ontology is not None:
            labels |= {term: ontology.names[term] for term in parents}
        nodes[int(str(feature))] = list(_read(parents, {term: told[0] for term, told in mine.items()}, mine))
    return Trees(nodes, of, labels, ontology is not None)


def _above(mine: Mapping[str, tuple[float, str | None]], ontology: Ontology | None) -> dict[str, str | None]:
    """Return the one parent of each term of a tree; None for its root."""
    if ontology is None:
        # Folded under: that term lies below. So it is the other way about, where this can be said at all.
        below = {term: under for term, (_, under) in mine.items() if under in mine}
        return {term: next((up for up in sorted(below) if below[up] == term), None) for term in mine}
    held: dict[str, set[str]] = {}
    for term in mine:
        for up in (term, *ontology.ancestors(term)):
            if up == term or ontology.parents.get(up):  # the term that is above all says nothing
                held.setdefault(up, set()).add(term)
    chosen: dict[str, str | None] = {}
    left = sorted(mine)
    while left:
        term = left.pop()
        if term in chosen:
            continue
        above = [up for up in ontology.parents.get(term, ()) if up in held]
        best = min(above, key=lambda up: (-len(held[up]), -len(ontology.ancestors(up)), up), default=None)
        chosen[term] = best
        if best is not None:
            left.append(best)
    return chosen


def _read(
    parents: Mapping[str, str | None], found: Mapping[str, float], told: Mapping[str, tuple[float, str | None]]
) -> Iterable[Node]:
    """Yield the nodes from the roots down; the surest branch first."""
    children: dict[str | None, list[str]] = {}
    for term, up in parents.items():
        children.setdefault(up, []).append(term)
    surest: dict[str, float] = {}

    def best(term: str) -> float:
        if term not in surest:
            surest[term] = min([found.get(term, 1.0), *map(best, children.get(term, ()))])
        return surest[term]

    open_: list[tuple[str, int, int]] = []

    def push(terms: list[str], depth: int, skipped: int) -> None:
        ordered = sorted(terms, key=lambda term: (best(term), term), reverse=True)
        open_.extend((term, depth, skipped) for term in ordered)

    push(children.get(None, []), 0, 0)
    while open_:
        term, depth, skipped = open_.pop()
        below = children.get(term, [])
        if term not in found and len(below) == 1 and depth > 0:
            push(below, depth, skipped + 1)
            continue
        yield Node(term, depth, skipped, found.get(term), told[term][1] is not None if term in told else False)
        push(below, depth + 1, 0)


def caption(feature: int, grown: Trees, title: str, *, fdr: float) -> str:
    """What a tree shows, in words."""
    shown, of = sum(node.q is not None for node in grown.nodes[feature]), grown.of[feature]
    which = f"its {of:,} terms" if shown == of else f"the {shown} surest of its {of:,} terms"
    return f"Feature {feature}: {which} of {title} at q ≤ {fdr:g}, and where the terms above them part"


def drawing(nodes: list[Node], labels: Mapping[str, str], *, name: str, title: str) -> Drawing:
    """Draw one tree."""
    marks: list[Markup] = []
    above: dict[int, int] = {}
    for i, node in enumerate(nodes):
        x, y = 8.0 + node.depth * _STEP, 16.0 + i * _ROW
        if node.depth:
            marks.append(line("rule", (x - _STEP, 16.0 + above[node.depth - 1] * _ROW + 5), (x - _STEP, y)))
            marks.append(line("rule", (x - _STEP, y), (x - 5, y)))
        above[node.depth] = i
        kind = "plain" if node.q is None else "s1" if node.folded else "observed"
        marks.append(mark("circle", kind, cx=x, cy=y, r=3 if node.q is None else 5))
        told = "" if node.q is None else f"q {chance(node.q)}" + (", folded" if node.folded else "")
        more = f" ({node.skipped} between)" if node.skipped else ""
        room = 470 - x - 6.2 * len(told)
        text = words(x + 11, y + 4, cut(labels.get(node.term, node.term) + more, room), kind="ink" if told else "dim")
        marks.append(tag("g", hint(f"{plain(node.term)}: {plain(labels.get(node.term, ''))}"), text))
        marks.append(words(480, y + 4, told, kind="dim", font_size=11, text_anchor="end"))
    return Drawing(name, title, 486, 16 + len(nodes) * _ROW, join(marks))
