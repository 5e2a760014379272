"""A list's sub-network as an SVG that stands alone or in a page: modules by colour and shape, interactions by score.

1. Layout, of each connected part by itself. Genes begin on circles of their modules, the modules on a circle of their
   own, so nothing is drawn by lot. Interactions pull, those inside a module more, all pairs push, and the middle pulls
   a little, in steps that shorten (Fruchterman and Reingold). A pull is shared out among a gene's interactions, else a
   dense module is one spot. The longest way through the points is then laid across.
2. Then each gene is a box of its mark and its label, and boxes that overlap are moved apart the shorter way. Connected
   parts stand in rows like words, the highest first.
3. Genes without an interaction inside are named below. Of more than 120 with one, those with fewest are left out, and
   that is said.
4. Colours are Okabe and Ito's without their yellow, which is lost on white; a module has a shape, too. Beyond six
   modules the rest share grey. Text and ground follow the page's colour scheme (`light-dark`); a program that does not
   know of it shows the light one.

T. M. J. Fruchterman, E. M. Reingold, Softw. Pract. Exp. 21, 1991; M. Okabe, K. Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from elute.base.console import count
from elute.base.errors import DataError
from elute.base.statistics.checks import Floats, Ints
from elute.validation.network import SubNetwork
from elute.validation.network_modules import Modules

MOST = 120  # genes drawn
NAMED = 80  # genes without an interaction that are named
REACH = 70.0  # how far apart two genes would like to be, in pixels
STEPS = 200
_LETTER, _LINE = 7.4, 17.0  # how wide a letter of 12 pixels is taken to be, and how high a line
_MARGIN, _GAP, _WIDTH = 14.0, 28.0, 720.0  # of the drawing; between parts; and how wide the drawing is at least
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
_REST = "#8a939e"
_CORNERS = ((0, 0.0), (4, 45.0), (3, -90.0), (4, 0.0), (3, 90.0), (6, 0.0))  # of each module's mark, and its turn
# What a page says of its own lines and texts must not reach these; what is not understood leaves what stands before it.
_STYLE = """
svg.elute-network:root { color-scheme: light dark; background: Canvas; color: CanvasText }
svg.elute-network { max-width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg.elute-network text { fill: currentColor; font-size: 12px }
svg.elute-network text.title { font-weight: 600; font-size: 14px }
svg.elute-network text.name { stroke: #fff; stroke: light-dark(#fff, #0e1217); stroke-width: 3px; paint-order: stroke;
  text-anchor: middle }
svg.elute-network text.dim { fill: #4d5661; fill: light-dark(#4d5661, #a7b3c1) }
svg.elute-network .mark { stroke: #20262e; stroke: light-dark(#20262e, #e8ecf1) }
svg.elute-network line.between { stroke: #69737e; stroke: light-dark(#69737e, #8d98a5) }
""" + "".join(
    f"svg.elute-network line.m{i} {{ stroke: {c} }}\nsvg.elute-network .mark.m{i} {{ fill: {c} }}\n"
    for i, c in enumerate((*_COLOURS, _REST))
)


class Place(NamedTuple):
    """Where a gene of the sub-network is drawn: its mark's middle and size; the label stands below."""

    gene: int
    x: float
    y: float
    radius: float


def draw(sub: SubNetwork, modules: Modules, *, title: str = "", p: Sequence[float] | None = None) -> str:
    """Return the sub-network as SVG; `p`, one a module, is said in the legend (`module_tests`)."""
    if len(modules.module) != len(sub.genes) or (p is not None and len(p) != len(modules.sizes)):
        raise DataError("the modules are not of this sub-network", where="draw(modules)", remedy="Find them anew.")
    linked = np.flatnonzero(sub.inside > 0)
    shown = np.sort(linked[np.argsort(-sub.inside[linked], kind="stable")][:MOST])
    places = layout(sub, modules, shown)
    width = max([_WIDTH, *(place.x + _half_width(sub.names[place.gene], place.radius) + _MARGIN for place in places)])
    body = [*_edges(sub, modules, places), *_marks(sub, modules, places), *_labels(sub, places)]
    heading = textwrap.wrap(title, int((width - 2 * _MARGIN) / (1.2 * _LETTER)))
    parts = [_text(line, _MARGIN, _MARGIN + i * _LINE, kind="title") for i, line in enumerate(heading)]
    y = _MARGIN + _LINE * len(heading)
    parts += [f'<g transform="translate(0 {y:.1f})">', *body, "</g>"]
    y += max((place.y + place.radius + 2 * _LINE for place in places), default=0.0)
    for row in (*_legend(sub, modules, p, width), *_notes(sub, linked, shown, width)):
        parts.append(f'<g transform="translate({_MARGIN:g} {y:.1f})">{row}</g>')
        y += _LINE
    told = f"{count(len(sub.genes), 'gene')}, {count(int(sub.inside.sum()) // 2, 'interaction')}"
    told = _safe(f"{title}: {told}" if title else told)
    size = f'viewBox="0 0 {width:.0f} {y + _MARGIN:.0f}" width="{width:.0f}" height="{y + _MARGIN:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="elute-network" role="img" aria-label="{told}" {size}>'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def layout(sub: SubNetwork, modules: Modules, shown: Ints) -> list[Place]:
    """Place the genes that are shown, so that no two marks or labels overlap."""
    if not len(shown):
        return []
    radius = 5.0 + 5.0 * np.sqrt(sub.inside[shown] / sub.inside[shown].max())
    boxes = np.array([[_half_width(sub.names[gene], r), r + _LINE / 2] for gene, r in zip(shown, radius, strict=True)])
    pulls = _pulls(sub, modules, shown)
    part_of = connected_components(pulls)[1]
    at, sizes = np.empty((len(shown), 2)), []
    for part in range(part_of.max() + 1):
        some = np.flatnonzero(part_of == part)
        own = _begun(modules.module[shown[some]])
        _settle(own, pulls[np.ix_(some, some)])
        _part(own, boxes[some] + np.array([5.0, 2.0]))
        at[some] = own - (own - boxes[some]).min(axis=0)
        sizes.append((at[some] + boxes[some]).max(axis=0))
    at += _rows(np.array(sizes))[part_of] + _MARGIN
    # A box is the mark and the label below it, so the mark lies above the box's middle.
    return [
        Place(int(gene), float(x), float(y - _LINE / 2), float(r))
        for gene, (x, y), r in zip(shown, at, radius, strict=True)
    ]


def _rows(sizes: Floats) -> Floats:
    """Return the upper left corner of each box, set in rows."""
    width = max(_WIDTH - 2 * _MARGIN, float(sizes[:, 0].max()), math.sqrt(1.6 * float(sizes.prod(axis=1).sum())))
    corners, x, y, high = np.empty_like(sizes), 0.0, 0.0, 0.0
    for box in np.argsort(-sizes[:, 1], kind="stable"):
        if x and x + sizes[box, 0] > width:
            x, y, high = 0.0, y + high + _GAP, 0.0
        corners[box] = x, y
        x, high = x + sizes[box, 0] + _GAP, max(high, float(sizes[box, 1]))
    return corners


def _begun(module: Ints) -> Floats:
    numbers, sizes = np.unique(module, return_counts=True)
    ring = 0.0 if len(numbers) == 1 else 0.6 * REACH * math.sqrt(len(module))
    at = np.empty((len(module), 2))
    turned = (np.cumsum(sizes) - 0.5 * sizes) / len(module)
    for number, size, turn in zip(numbers, sizes, turned, strict=True):
        angle = 2.0 * np.pi * np.arange(size) / size
        own = 0.35 * REACH * math.sqrt(size)
        middle = ring * np.array([math.cos(2.0 * math.pi * turn), math.sin(2.0 * math.pi * turn)])
        at[module == number] = middle + own * np.column_stack([np.cos(angle), np.sin(angle)])
    return at


def _pulls(sub: SubNetwork, modules: Modules, shown: Ints) -> Floats:
    """Return how strongly each pair is drawn together."""
    scores = sub.scores[shown][:, shown].toarray()
    module = modules.module[shown]
    weight = scores * np.where(module[:, None] == module[None, :], 1.0, 0.3)
    shared = np.maximum(sub.inside[shown], 1.0) ** 0.5
    pulls: Floats = 2.0 * weight / np.sqrt(shared[:, None] * shared[None, :])
    return pulls


def _settle(at: Floats, pulls: Floats) -> None:
    """Move points [points, 2] by forces between them, in steps that shorten."""
    for step in range(STEPS):
        apart = at[:, None, :] - at[None, :, :]
        far = np.maximum(np.sqrt((apart * apart).sum(axis=2)), 1.0)
        strength = REACH * REACH / (far * far) - pulls * far / REACH
        force = (apart * strength[:, :, None]).sum(axis=1) - 0.08 * at * math.sqrt(len(at))
        size = np.maximum(np.sqrt((force * force).sum(axis=1)), 1e-9)
        longest = REACH * (1.0 - step / STEPS)
        at += force * (np.minimum(size, longest) / size)[:, None]
    at -= at.mean(axis=0)
    at[:] = at @ np.linalg.svd(at, full_matrices=False)[2].T


def _part(at: Floats, boxes: Floats) -> None:
    """Move boxes of half widths and heights apart until none overlap another."""
    order = np.arange(len(at))
    side = np.sign(order[:, None] - order[None, :])
    for _ in range(2000):
        apart = at[:, None, :] - at[None, :, :]
        over = boxes[:, None, :] + boxes[None, :, :] - np.abs(apart)
        both = (over > 1e-3).all(axis=2) & (side != 0)
        if not both.any():
            return
        across = over[:, :, 0] < over[:, :, 1]
        for axis, chosen in ((0, both & across), (1, both & ~across)):
            way = np.where(apart[:, :, axis] == 0.0, side, np.sign(apart[:, :, axis]))
            push = np.where(chosen, way * over[:, :, axis], 0.0)
            # Half each, and less where several push at once: else a crowd is blown apart.
            at[:, axis] += 0.5 * push.sum(axis=1) / np.sqrt(np.maximum(chosen.sum(axis=1), 1))


def _edges(sub: SubNetwork, modules: Modules, places: list[Place]) -> list[str]:
    by_gene = {place.gene: place for place in places}
    links = sub.scores.tocoo()
    pairs = [
        (score, a, b)
        for a, b, score in zip(links.row.tolist(), links.col.tolist(), links.data.tolist(), strict=True)
        if a < b and a in by_gene and b in by_gene
    ]
    # The more lines there are, the fainter; the surest are drawn last.
    faint = max(0.12, min(1.0, 3.0 * len(places) / max(1, len(pairs))))
    lines = []
    for score, a, b in sorted(pairs):
        one, other = by_gene[a], by_gene[b]
        module = int(modules.module[a]) if modules.module[a] == modules.module[b] else None
        ends = f'x1="{one.x:.1f}" y1="{one.y:.1f}" x2="{other.x:.1f}" y2="{other.y:.1f}"'
        lines.append(_line(ends, _sure(sub, score), faint=faint, module=module))
    return lines


def _line(ends: str, sure: float, *, faint: float, module: int | None) -> str:
    look = f'stroke-width="{0.8 + 1.7 * sure:.2f}" stroke-opacity="{faint * (0.5 + 0.4 * sure):.2f}"'
    if module is None:
        return f'<line class="between" {ends} {look}/>'
    return f'<line class="m{_kind(module)}" {ends} {look}/>'


def _sure(sub: SubNetwork, score: float) -> float:
    least = sub.network.least_score
    return (score - least) / (1.0 - least) if least < 1.0 else 1.0


def _marks(sub: SubNetwork, modules: Modules, places: list[Place]) -> list[str]:
    lines = []
    for place in places:
        number, inside = int(modules.module[place.gene]), int(sub.inside[place.gene])
        degree = int(sub.network.degrees[sub.genes[place.gene]])
        told = f"{sub.names[place.gene]}: {count(inside, 'interaction')} here, {degree:,} in all, module {number + 1}"
        lines.append(_mark(number, (place.x, place.y), place.radius, told=told))
    return lines


def _mark(module: int, at: tuple[float, float], radius: float, *, told: str = "") -> str:
    title = f"<title>{_safe(told)}</title>" if told else ""
    look = f'class="mark m{_kind(module)}"'
    corners, turn = (*_CORNERS, (0, 0.0))[_kind(module)]
    if not corners:
        return f'<circle {look} cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}">{title}</circle>'
    angles = [math.radians(turn + 360.0 * i / corners) for i in range(corners)]
    wide = radius * (1.0 + 0.5 / corners)  # an angular mark of the same radius looks smaller
    points = " ".join(f"{at[0] + wide * math.cos(a):.1f},{at[1] + wide * math.sin(a):.1f}" for a in angles)
    return f'<polygon {look} points="{points}">{title}</polygon>'


def _labels(sub: SubNetwork, places: list[Place]) -> list[str]:
    return [_text(sub.names[p.gene], p.x, p.y + p.radius + _LINE / 2 + 1.0, kind="name") for p in places]


def _legend(sub: SubNetwork, modules: Modules, p: Sequence[float] | None, width: float) -> list[str]:
    if not modules.sizes:
        return []
    items = []
    for number, size in enumerate(modules.sizes[: len(_COLOURS)]):
        told = f"module {number + 1}: {count(size, 'gene')}" + ("" if p is None else f", p = {p[number]:.2g}")
        items.append((_mark(number, (6.0, 0.0), 6.0), told))
    if rest := modules.sizes[len(_COLOURS) :]:
        items.append((_mark(-1, (6.0, 0.0), 6.0), f"{count(len(rest), 'more module')}: {count(sum(rest), 'gene')}"))
    least = sub.network.least_score
    for sure, told in ((0.0, f"score {least:g}"), (1.0, "score 1")):
        items.append((_line('x1="0" y1="0" x2="14" y2="0"', sure, faint=1.0, module=None), told))
    rows: list[str] = []
    row, x = "", 0.0
    for mark, told in items:
        wide = 34.0 + _LETTER * len(told)
        if row and x + wide > width - 2 * _MARGIN:
            rows, row, x = [*rows, row], "", 0.0
        row += f'<g transform="translate({x:.1f} 0)">{mark}{_text(told, 18.0, 0.0, kind="dim")}</g>'
        x += wide
    return [*rows, row]


def _notes(sub: SubNetwork, linked: Ints, shown: Ints, width: float) -> list[str]:
    least, notes = f"{sub.network.least_score:g}", []
    alone = [sub.names[gene] for gene in np.flatnonzero(sub.inside == 0).tolist()]
    if alone:
        more = f" and {len(alone) - NAMED:,} more" if len(alone) > NAMED else ""
        notes.append(f"No interaction of {least} or more here: {', '.join(alone[:NAMED])}{more}")
    if len(linked) > len(shown):
        notes.append(f"{count(len(linked) - len(shown), 'gene')} with the fewest interactions not drawn")
    letters = int((width - 2 * _MARGIN) / _LETTER)
    return [_text(line, 0.0, 0.0, kind="dim") for note in notes for line in textwrap.wrap(note, letters)]


def _text(text: str, x: float, y: float, *, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" dy="0.35em">{_safe(text)}</text>'


def _safe(text: str) -> str:
    """Escape, and drop what no XML may hold."""
    return html.escape("".join(letter if letter.isprintable() else " " for letter in text))


def _kind(module: int) -> int:
    return module if 0 <= module < len(_COLOURS) else len(_COLOURS)


def _half_width(name: str, radius: float) -> float:
    return max(float(radius), 0.5 * _LETTER * len(name))
