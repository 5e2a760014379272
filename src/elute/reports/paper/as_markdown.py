"""A report as Markdown, with its pictures as SVG files beside it; names are text, whatever marks they are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from elute.reports.paper.as_svg import svg
from elute.reports.paper.blocks import Block, Bullets, Heading, Picture, Table, Text, flat

_MARKS = re.compile(r"([\\`*_{}\[\]#|~$!^])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINKS = re.compile(r"(?i)(?<=[a-z])(://)|\b(www)\.|(?<=\w)@(?=\w)")


def document(blocks: Sequence[Block], *, folder: str) -> tuple[str, dict[str, str]]:
    """Return the text, and the pictures by the names of their files in the folder beside it."""
    parts: list[str] = []
    pictures: dict[str, str] = {}
    for block in flat(blocks):
        if isinstance(block, Picture):
            name = f"figure-{len(pictures) + 1:02d}.svg"
            pictures[name] = f'<?xml version="1.0" encoding="UTF-8"?>\n{svg(block)}\n'
            parts.append(f"![{plain_text(block.told)}](<{folder}/{name}>)")
        else:
            parts.append(_block(block))
    return "\n\n".join(parts) + "\n", pictures


def _block(block: Heading | Text | Bullets | Table) -> str:
    if isinstance(block, Heading):
        aside = f" — {plain_text(block.aside)}" if block.aside else ""
        return f"{'#' * block.level} {plain_text(block.text)}{aside}"
    if isinstance(block, Text):
        return _start(plain_text(block.text))
    if isinstance(block, Bullets):
        return "\n".join(f"- {_start(plain_text(item))}" for item in block.items)
    heads = " | ".join(plain_text(head) for head in block.heads)
    rule = " | ".join([":--", *("--:" for _ in block.heads[1:])])
    rows = "\n".join("| " + " | ".join(plain_text(cell) for cell in row) + " |" for row in block.rows)
    return f"| {heads} |\n| {rule} |\n{rows}\n\n{plain_text(block.caption)}"


def plain_text(text: str) -> str:
    """Text in one line, in which nothing is markup, a link or mathematics."""
    line = _MARKS.sub(r"\\\1", " ".join(text.split()))
    line = re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], line)
    return _LINKS.sub(lambda found: "&#58;//" if found[1] else f"{found[2]}&#46;" if found[2] else "&#64;", line)


def _start(line: str) -> str:
    """What would begin a list or a rule at the beginning of a line begins none."""
    return re.sub(r"^(\d+)([.)])(?=\s)|^([-+=])", lambda m: rf"{m[1]}\{m[2]}" if m[1] else rf"\{m[3]}", line)
