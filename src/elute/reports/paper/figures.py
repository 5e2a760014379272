"""The pictures of a report: shares and counts beside their controls, databases, and one for each feature.

What was found is blue and filled, what it is held against grey or of another shape; a circle that is not filled is of
cells that chose nothing. So the pictures can be read in grey, and by those who see red and green alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from elute.reports.paper.blocks import WIDTH, Picture
from elute.reports.paper.canvas import CONTROL, DIM, FOUND, INK, OTHER, RULE, Canvas, cut
from elute.reports.paper.chosen import Chosen
from elute.reports.validation_records import NOT_RUN
from elute.reports.validation_svg import number, plain
from elute.reports.validation_tables import Site, Source

_LINE = 13.0
_LEFT = 178.0  # for names of columns
_TYPES = 6
_ROW = 10.6
_MARKS = (("permuted cells", "cross", INK), ("random weights", "triangle", OTHER), ("embedding layer", "square", DIM))


class Bar(NamedTuple):
    """One bar: what it is of, how long, and what is said behind it."""

    name: str
    value: float | None
    told: str
    found: bool = False  # of the features themselves
    most: float | None = None  # how far it came at most


class Panel(NamedTuple):
    """Some bars of one scale, with a title; the scale ends at `end`, or at the longest bar."""

    title: str
    bars: tuple[Bar, ...]
    end: float | None = None


def bars(panels: Sequence[Panel]) -> Picture:
    """Draw bars beside one another, each with its number."""
    told = ". ".join(f"{p.title}: {'; '.join(f'{bar.name} {bar.told}' for bar in p.bars)}" for p in panels)
    height = sum(18.0 + _LINE * len(panel.bars) for panel in panels)

    def draw(canvas: Canvas) -> None:
        y = 0.0
        for panel in panels:
            canvas.words(0, y + 10, cut(panel.title, WIDTH, bold=True), bold=True)
            y += 15
            lengths = [x for bar in panel.bars for x in (bar.value, bar.most) if x is not None]
            end = panel.end or max([*lengths, 0.0]) or 1.0
            for bar in panel.bars:
                _bar(canvas.part(0, y), bar, end)
                y += _LINE
            y += 3

    return Picture(told, height, draw)


def _bar(canvas: Canvas, bar: Bar, end: float) -> None:
    room = 185.0
    canvas.words(_LEFT - 6, 9, cut(bar.name, _LEFT - 8), end=True, colour=INK if bar.found else DIM)
    canvas.line((_LEFT, 0.5), (_LEFT, _LINE - 0.5))
    long = 0.0 if bar.value is None else room * min(max(bar.value, 0.0), end) / end
    canvas.bar(_LEFT, 2, width=long, height=_LINE - 5, colour=FOUND if bar.found else CONTROL)
    if bar.most is not None and bar.value is not None and bar.most > bar.value:
        far = room * min(bar.most, end) / end
        middle = _LINE / 2 - 0.5
        canvas.line((_LEFT + long, middle), (_LEFT + far, middle), colour=INK, wide=0.9)
        canvas.line((_LEFT + far, middle - 3), (_LEFT + far, middle + 3), colour=INK, wide=0.9)
        long = far
    canvas.words(_LEFT + long + 6, 9, cut(bar.told, WIDTH - _LEFT - long - 8), colour=INK if bar.found else DIM)


def databases(site: Site, told: str) -> Picture:
    """Draw each database's count beside matched lists and controls."""
    ran = [source for source in site.sources if source.run]
    step, top = 25.0, 34.0

    def draw(canvas: Canvas) -> None:
        _legend(canvas, ran)
        seen = [x for source in ran for x in _all_counts(source) if x is not None]
        scale = (WIDTH - _LEFT - 104.0) / (max([*seen, 0.0]) or 1.0)
        for i, source in enumerate(ran):
            _database(canvas.part(0, top + i * step), source, scale)

    return Picture(told, top + step * len(ran), draw)


def _legend(canvas: Canvas, ran: Sequence[Source]) -> None:
    x = 0.0
    canvas.bar(x, 3, width=16, height=6, colour=FOUND)
    x += 21 + canvas.words(x + 21, 9, "features with a term") + 14
    canvas.mark("diamond", x + 4, 6, colour=FOUND, filled=False)
    x += 12 + canvas.words(x + 12, 9, "by a plain test", colour=DIM) + 14
    canvas.bar(x, 4.5, width=16, height=3.5, colour=CONTROL)
    canvas.words(x + 21, 9, "matched lists, and between which numbers they lie", colour=DIM)
    x = 0.0
    for name, shape, colour in _MARKS:
        if all(source.controls.get(name, (None, None, ""))[0] is None for source in ran):
            continue
        canvas.mark(shape, x + 4, 20, colour=colour, filled=False)
        x += 12 + canvas.words(x + 12, 23, name, colour=DIM) + 14


def _database(canvas: Canvas, source: Source, scale: float) -> None:
    """A count above what it is held against."""
    found, beside = source.counts["significant"], source.counts["plain"]
    canvas.words(_LEFT - 6, 9, cut(source.snapshot or source.title, _LEFT - 8), end=True)
    canvas.line((_LEFT, 0), (_LEFT, 21))
    long = 0.0 if found is None else found * scale
    canvas.bar(_LEFT, 2, width=long, height=7, colour=FOUND)
    end = max(long, 0.0)
    if beside is not None:
        canvas.mark("diamond", _LEFT + beside * scale, 5.5, colour=FOUND, filled=False)
        end = max(end, beside * scale + 3)
    told = canvas.words(_LEFT + end + 6, 9, number(found))
    if beside is not None:
        canvas.words(_LEFT + end + 10 + told, 9, f"({number(beside)} plain)", colour=DIM)
    null, y = source.null, 15.5
    if null is not None and null.mean is not None:
        canvas.bar(_LEFT, y - 1.75, width=null.mean * scale, height=3.5, colour=CONTROL)
        if null.low is not None and null.high is not None:
            ends = [(_LEFT + x * scale, y) for x in (null.low, null.high)]
            canvas.line(ends[0], ends[1], colour=INK, wide=0.8)
            for x, _ in ends:
                canvas.line((x, y - 2.5), (x, y + 2.5), colour=INK, wide=0.8)
    for name, shape, colour in _MARKS:
        value = source.controls.get(name, (None, None, ""))[0]
        if value is not None:
            canvas.mark(shape, _LEFT + value * scale, y, colour=colour, filled=False, size=2.4)


def _all_counts(source: Source) -> list[float | None]:
    null = source.null
    ends = [] if null is None else [null.mean, null.high]
    known = [source.controls.get(name, (None, None, ""))[0] for name, _, _ in _MARKS]
    return [source.counts["significant"], source.counts["plain"], *ends, *known]


class Row(NamedTuple):
    """A line of a feature's picture: a bar, and marks on it."""

    name: str
    value: float | None
    filled: tuple[float, ...]
    hollow: tuple[float, ...]
    told: str = ""


def feature(chosen: Chosen) -> Picture:
    """Draw a feature's genes as bars and its cell types with donors as points."""
    genes = [
        Row(gene.symbol, gene.z, (), () if gene.z_shown is None else (gene.z_shown,), number(gene.z))
        for gene in chosen.genes
    ]
    types, title, base = _types(chosen)
    height = 15.0 + _ROW * max(len(genes), len(types), 1)

    def draw(canvas: Canvas) -> None:
        if genes:
            _rows(canvas, "Genes, by z", genes, left=72.0, width=232.0)
        else:
            canvas.words(0, 9, "No gene goes with it.", colour=DIM)
        if types:
            _rows(canvas.part(250, 0), title, types, left=100.0, width=WIDTH - 250, base=base)

    first = ", ".join(gene.symbol for gene in chosen.genes) or "none"
    said = ", ".join(row.name for row in types) or NOT_RUN
    return Picture(f"Feature {chosen.feature}: genes {first}; cell types {said}", height, draw)


def _types(chosen: Chosen) -> tuple[list[Row], str, float]:
    """Cell types by mean activation, or, where that is not known, by AUROC."""
    own = plain(chosen.row.get("cell_type") or "")
    if chosen.activity is not None:
        groups = [group for group in chosen.activity.groups if group.mean is not None]
        groups = _with_own(groups, own)
        rows = []
        for group in groups:
            hollow = group.donors_shown if chosen.activity.by_donor else () if group.shown is None else (group.shown,)
            dots = group.donors if chosen.activity.by_donor else ()
            rows.append(Row(f"{group.name} ({group.cells:,})", group.mean, dots, hollow))
        return rows, "Cell types (cells), by mean activation", 0.0
    levels = _with_own([level for level in chosen.levels if level.auroc is not None], own)
    rows = [
        Row(
            level.name, level.auroc, (), () if level.auroc_shown is None else (level.auroc_shown,), f"{level.auroc:.2f}"
        )
        for level in levels
    ]
    return rows, "Cell types, by AUROC (0.5 is chance)", 0.5


def _with_own(groups: list[Any], own: str) -> list[Any]:
    """The first few, and the type that the feature follows."""
    first = groups[:_TYPES]
    late = [group for group in groups[_TYPES:] if getattr(group, "name", None) == own]
    return [*first[: _TYPES - len(late)], *late]


def _rows(canvas: Canvas, title: str, rows: Sequence[Row], *, left: float, width: float, base: float = 0.0) -> None:
    """Draw bars from a base line, with dots on them."""
    canvas.words(0, 8, cut(title, width, 7.5, bold=True), size=7.5, bold=True, colour=DIM)
    values = [x for row in rows for x in (row.value, *row.filled, *row.hollow) if x is not None]
    low, high = min([base, *values]), max([base, *values])
    room = width - left - 36
    scale = room / (high - low) if high > low else 0.0
    zero = left + (base - low) * scale
    bottom = 14 + _ROW * len(rows)
    canvas.line((zero, 13), (zero, bottom))
    for i, row in enumerate(rows):
        y = 14 + _ROW * i
        canvas.words(left - 5, y + 8, cut(row.name, left - 6, 7.5), size=7.5, end=True)
        at = zero
        if row.value is not None:
            at = left + (row.value - low) * scale
            canvas.bar(min(zero, at), y + 2, width=abs(at - zero), height=7, colour=FOUND if row.told else RULE)
        marks = [(x, True) for x in row.filled] + [(x, False) for x in row.hollow]
        for x, filled in marks:
            canvas.mark(
                "dot", left + (x - low) * scale, y + 5.5, colour=FOUND if filled else INK, filled=filled, size=2
            )
        end = max([zero, at, *(left + (x - low) * scale + 3 for x, _ in marks)])
        if row.told:
            canvas.words(end + 4, y + 8, cut(row.told, 34, 7.5), size=7.5, colour=DIM)
