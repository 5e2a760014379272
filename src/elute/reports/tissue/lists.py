"""Long tables that the page's program searches and sorts; without it they stand as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elute.reports.html import Markup
from elute.reports.tissue.markup import el
from elute.reports.validation_svg import plain


@dataclass(frozen=True)
class Column:
    """A column: its key, what it is called, and whether it sorts and is of words."""

    key: str
    title: str
    words: bool = False
    sorts: bool = True


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it is sorted by; nothing comes last either way."""

    shown: object
    value: float | str | None


def list_table(
    name: str, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Cell]]], *, label: str
) -> Markup:
    """A table with a row for each; the first part of a row is what a search looks through."""
    heads = []
    for column in columns:
        kind = None if column.words else "n"
        button = el("button", column.title, type="button", data_sort=column.key) if column.sorts else column.title
        heads.append(el("th", button, scope="col", class_=kind))
    body = []
    for i, (find, cells) in enumerate(rows):
        made = []
        for j, (column, cell) in enumerate(zip(columns, cells, strict=True)):
            value = None if cell.value is None or not column.sorts else _sortable(cell.value)
            kind = " ".join(filter(None, ("" if column.words else "n", f"is-{column.key}")))
            label_ = column.title or None
            made.append(
                el("th", cell.shown, scope="row", class_=kind, data_value=value)
                if j == 0
                else el("td", cell.shown, class_=kind, data_value=value, data_label=label_)
            )
        body.append(el("tr", *made, data_find=plain(find).lower(), data_at=str(i)))
    inner = el("table", el("caption", label), el("thead", el("tr", *heads)), el("tbody", *body), id=name, class_="list")
    return el("div", inner, class_="wide", tabindex="0", role="group", aria_label=label)


def _sortable(value: float | str) -> str:
    return plain(value) if isinstance(value, str) else f"{value:.6g}"
