"""A report as PDF, set in lines and pages of A4 through matplotlib; it is the same bytes at any time."""

from __future__ import annotations

import io
from collections.abc import Sequence

from elute.reports.paper.blocks import WIDTH, Block, Bullets, Group, Heading, Picture, Table, Text
from elute.reports.paper.canvas import DIM, FOUND, INK, RULE, Canvas, cut, drawable, width, wrap

PAPER = (595.0, 842.0)
_LEFT, _TOP, _BOTTOM = 50.0, 46.0, 44.0
_BODY, _DENSE, _SMALL, _CELL = 9.0, 8.4, 7.6, 7.6
_LEAD = 1.42  # of a line, in letters
_HEADS = {1: 17.0, 2: 12.5, 3: 9.6}
_ABOVE = {1: 0.0, 2: 16.0, 3: 9.0}


class Pages:
    """Pages that fill from the top."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.pages: list[Canvas] = []
        self.y = 0.0
        self.turn()

    def turn(self) -> None:
        """Begin a page."""
        self.pages.append(Canvas(*PAPER))
        self.y = _TOP

    @property
    def room(self) -> float:
        """What is left of the page."""
        return PAPER[1] - _BOTTOM - self.y

    @property
    def fresh(self) -> bool:
        """Whether nothing stands on the page yet."""
        return self.y == _TOP

    def need(self, height: float) -> None:
        """Go on to a new page where less is left."""
        if height > self.room and not self.fresh:
            self.turn()

    @property
    def here(self) -> Canvas:
        """The page, from the place that is reached."""
        return self.pages[-1].part(_LEFT, self.y)

    def lines(self, lines: Sequence[str], size: float, *, left: float = 0.0, colour: str = INK) -> None:
        """Set lines of text; a paragraph is parted where two lines or more stay on each side."""
        step = size * _LEAD
        for i, line in enumerate(lines):
            alone = (i == 0 and len(lines) > 1) or i == len(lines) - 2
            self.need(step * (2 if alone else 1))
            self.here.words(left, size, line, size=size, colour=colour)
            self.y += step


def pdf(title: str, blocks: Sequence[Block]) -> bytes:
    """Return the whole document."""
    from matplotlib.backends.backend_pdf import PdfPages

    held = io.BytesIO()
    told = {"Title": drawable(title), "Creator": "elute", "Producer": "elute", "CreationDate": None}
    with PdfPages(held, metadata=told) as into:
        for canvas in lay_out(title, blocks):
            into.savefig(canvas.figure)
    return held.getvalue()


def lay_out(title: str, blocks: Sequence[Block]) -> list[Canvas]:
    """Set the blocks on pages, and number these."""
    pages = Pages(title)
    for i, block in enumerate(blocks):
        if isinstance(block, Heading):  # which does not stand alone at the foot of a page
            pages.need(_height(block) + min(_opening(blocks[i + 1 :]), 340.0))
        _set(pages, block)
    for number, canvas in enumerate(pages.pages, 1):
        foot = f"{number} / {len(pages.pages)}"
        y = PAPER[1] - 26
        canvas.words(_LEFT, y, cut(title, WIDTH - 60, 7.0), size=7.0, colour=DIM)
        canvas.words(_LEFT + WIDTH, y, foot, size=7.0, colour=DIM, end=True)
    return pages.pages


def _opening(blocks: Sequence[Block]) -> float:
    """How high what follows a heading is, up to the first block that is no text."""
    height = 0.0
    for block in blocks:
        height += _height(block)
        if not isinstance(block, Text):
            break
    return height


def _set(pages: Pages, block: Block) -> None:
    if isinstance(block, Group):
        pages.need(_height(block))
        for each in block.blocks:
            _set(pages, each)
    elif isinstance(block, Heading):
        _heading(pages, block)
    elif isinstance(block, Text):
        size = _size(block)
        pages.lines(wrap(block.text, WIDTH, size), size, colour=DIM if block.small else INK)
        pages.y += _after(block)
    elif isinstance(block, Bullets):
        for item in block.items:
            lines = wrap(item, WIDTH - 11, _BODY)
            pages.need(_BODY * _LEAD * min(len(lines), 2))
            pages.here.mark("dot", 3.5, _BODY - 3.2, colour=FOUND, size=1.5)
            pages.lines(lines, _BODY, left=11)
            pages.y += 2.5
    elif isinstance(block, Picture):
        pages.need(block.height + 6)
        pages.y += 3
        block.draw(pages.here)
        pages.y += block.height + 5
    else:
        _table(pages, block)


def _size(block: Text) -> float:
    return _SMALL if block.small else _DENSE if block.dense else _BODY


def _after(block: Text) -> float:
    return 2.0 if block.dense else 4.0


def _head_lines(block: Heading) -> tuple[list[str], float, str]:
    size = _HEADS[block.level]
    aside = cut(block.aside, WIDTH / 2, _SMALL)
    taken = width(aside, _SMALL) + 12 if aside else 0.0
    return wrap(block.text, WIDTH - taken, size, bold=True)[:4], size, aside


def _heading(pages: Pages, block: Heading) -> None:
    lines, size, aside = _head_lines(block)
    pages.y += 0.0 if pages.fresh else _ABOVE[block.level]
    if block.level == 2:
        pages.here.line((0, 0), (WIDTH, 0), colour=FOUND, wide=1.0)
        pages.y += 6
    for i, line in enumerate(lines):
        pages.here.words(0, size, line, size=size, bold=True)
        if aside and not i:
            pages.here.words(WIDTH, size, aside, size=_SMALL, colour=DIM, end=True)
        pages.y += size * 1.3
    pages.y += 3 if block.level < 3 else 1


def _height(block: Block) -> float:
    """How high a block is, in points."""
    if isinstance(block, Group):
        return sum(_height(each) for each in block.blocks)
    if isinstance(block, Heading):
        return (
            _ABOVE[block.level]
            + (9 if block.level == 2 else 3)
            + len(_head_lines(block)[0]) * _HEADS[block.level] * 1.3
        )
    if isinstance(block, Text):
        size = _size(block)
        return len(wrap(block.text, WIDTH, size)) * size * _LEAD + _after(block)
    if isinstance(block, Bullets):
        return sum(len(wrap(item, WIDTH - 11, _BODY)) * _BODY * _LEAD + 2.5 for item in block.items)
    if isinstance(block, Picture):
        return block.height + 8
    return sum(_row_height(row) for row in _cells(block)) + 24


def _widths(table: Table) -> list[float]:
    return [WIDTH * each / sum(table.shares) for each in table.shares]


def _cells(table: Table) -> list[list[list[str]]]:
    """Each row's cells in lines, the heads first; a very long name is cut after three."""
    widths = _widths(table)
    rows = [table.heads, *table.rows]
    return [
        [wrap(text, room - 7, _CELL, bold=not i)[:3] for text, room in zip(row, widths, strict=True)]
        for i, row in enumerate(rows)
    ]


def _row_height(row: list[list[str]]) -> float:
    return max(len(lines) for lines in row) * _CELL * 1.25 + 6


def _table(pages: Pages, table: Table) -> None:
    heads, *rows = _cells(table)
    pages.y += 4
    pages.need(_row_height(heads) + sum(_row_height(row) for row in rows[:2]))
    _row(pages, table, heads, bold=True)
    for row in rows:
        if _row_height(row) > pages.room:
            pages.turn()
            _row(pages, table, heads, bold=True)
        _row(pages, table, row, bold=False)
    pages.y += 3
    pages.lines(wrap(table.caption, WIDTH, _SMALL), _SMALL, colour=DIM)
    pages.y += 6


def _row(pages: Pages, table: Table, row: list[list[str]], *, bold: bool) -> None:
    height, left = _row_height(row), 0.0
    for i, (lines, room) in enumerate(zip(row, _widths(table), strict=True)):
        top = height - 6 - len(lines) * _CELL * 1.25 + 2  # lines end at the foot of the row
        for j, line in enumerate(lines):
            y = top + (j + 1) * _CELL * 1.25 - 1.5
            pages.here.words(left if i == 0 else left + room, y, line, size=_CELL, bold=bold, end=i > 0)
        left += room
    pages.here.line((0, height), (WIDTH, height), colour=DIM if bold else RULE)
    pages.y += height
