"""What a report is made of, whatever it is written as: headings, sentences, tables, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elute.reports.paper.canvas import Canvas

WIDTH = 495.0  # points of text and pictures, on a page of A4


@dataclass(frozen=True)
class Heading:
    """A heading; the report's own is of level 1."""

    text: str
    level: int = 2
    aside: str = ""  # said at the end of the line


@dataclass(frozen=True)
class Text:
    """A paragraph; one that is `small` may be passed over, one that is `dense` stands among many."""

    text: str
    small: bool = False
    dense: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of text; `shares` says how the width is parted, and all columns but the first stand to the right."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    shares: tuple[float, ...]
    caption: str


@dataclass(frozen=True)
class Picture:
    """A drawing `height` points high and as wide as the text; `told` is what it shows, in words."""

    told: str
    height: float
    draw: Callable[[Canvas], None]


@dataclass(frozen=True)
class Group:
    """Blocks that no end of a page may part."""

    blocks: tuple[Heading | Text | Bullets | Table | Picture, ...]


Block = Heading | Text | Bullets | Table | Picture | Group


def flat(blocks: Sequence[Block]) -> list[Heading | Text | Bullets | Table | Picture]:
    """Take groups apart."""
    found: list[Heading | Text | Bullets | Table | Picture] = []
    for block in blocks:
        found.extend(block.blocks if isinstance(block, Group) else [block])
    return found
