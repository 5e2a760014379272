"""A page of its own about one thing that was found: no program, no network, the Explorer's colours."""

from __future__ import annotations

from collections.abc import Iterable

from elute.base.run import versions
from elute.reports.html import Markup, document, tag
from elute.reports.tissue.markup import bare, el, named
from elute.reports.tissue.palette import variables


def page(title: str, of: str, content: Iterable[object], *, style: str) -> str:
    """Build a whole document; `of` is what it is about, by its name."""
    foot = el("footer", f"elute {versions().get('elute', '')}. This page needs no network.")
    body = tag("body", tag("main", el("p", named(of), class_="dim"), el("h1", title), *content), foot)
    return document(f"{title} · {bare(of, 80)}", body, style=colours() + style)


def colours() -> str:
    """The Explorer's two sets of colours, as the reader's system has them, and light on paper."""
    dark, light = variables()
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def facts(told: Iterable[tuple[str, object]]) -> Markup:
    """Numbers with what they are called."""
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in told), class_="facts")
