"""Elements of the pages, over the house's `tag`: names from data, notes, tables that become cards, data."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from elute.reports.html import Markup, escape, tag
from elute.reports.validation_svg import plain

_NAME = 60  # characters of a name that stand in a line
_VOID = ("img", "input", "meta", "br")
Head = tuple[object, bool]  # what a column is called, and whether it is of numbers


def el(name: str, *content: object, **attributes: str | None) -> Markup:
    """Build an element; `_` in an attribute's name is a dash, `class_` means class, and what is None is left out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    if name in _VOID:
        return Markup(tag(name, **given).removesuffix(f"</{name}>"))
    return tag(name, *(item for item in content if item is not None), **given)


def named(text: object, most: int = _NAME) -> Markup:
    """A name from data, kept apart from the text around it whichever way it is written; a long one is cut."""
    whole = " ".join(plain(text).split()) or "(no name)"
    if len(whole) <= most:
        return el("bdi", whole, class_="name")
    return el("bdi", f"{whole[:most]}…", class_="name", title=whole)


def bare(text: object, most: int = _NAME) -> str:
    """The same as text alone, for a title or a label."""
    whole = " ".join(plain(text).split()) or "(no name)"
    return whole if len(whole) <= most else f"{whole[:most]}…"


def address(folder: str, name: object) -> str:
    """Where the page of a gene or code lies, from the index."""
    return quote(f"{folder}/{name}.html")


def note(*content: object) -> Markup:
    """A remark below a heading."""
    return el("p", *content, class_="note")


def picture(kind: str, content: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def data(name: str, value: Any) -> Markup:
    """What the page's program reads."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Inside a script element only these could end it, or the line in an old reader of JSON.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def table(heads: Sequence[Head], rows: Iterable[Sequence[object]], *, label: str, cards: bool = True) -> Markup:
    """A table whose heads say which columns are numbers; on a telephone each row is a card, or the table is moved."""
    kinds = ["n" if right else None for _, right in heads]
    top = el("tr", *(el("th", head, scope="col", class_=kind) for (head, _), kind in zip(heads, kinds, strict=True)))
    body = []
    for row in rows:
        cells = [el("th", row[0], scope="row")]
        for value, (head, _), kind in zip(row[1:], heads[1:], kinds[1:], strict=True):
            cells.append(el("td", value, class_=kind, data_label=None if isinstance(head, Markup) else str(head)))
        body.append(el("tr", *cells))
    inner = el(
        "table", el("caption", label), el("thead", top), el("tbody", *body), class_="cards" if cards else "tight"
    )
    return el("div", inner, class_="wide", tabindex="0", role="group", aria_label=label)


def listed(names: Sequence[object]) -> Markup:
    """Pieces with commas between them."""
    return Markup(", ".join(escape(name) for name in names))
