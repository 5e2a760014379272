"""HTML that text from data cannot break: everything goes through `tag`, which escapes, or is Markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from elute.base import files

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #8889; --mark: #b3591d; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin-bottom: 0; }
h2::before { content: ""; display: block; border-top: 2px solid var(--mark); width: 2rem; margin-bottom: .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:not(.n) { overflow-wrap: anywhere; min-width: 5rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { overflow-wrap: anywhere; } .dim { opacity: .7; }
"""
# The page may show itself and nothing else: no script, no connection.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Make any value safe to stand in HTML."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def tag(name: str, *content: object, **attributes: str) -> Markup:
    """Build an element; content that is not Markup is escaped. `class_` means class."""
    inside = "".join(escape(item) for item in content)
    given = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{inside}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Put pieces one after another."""
    return Markup("\n".join(escape(part) for part in parts))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Build a table; numbers stand to the right, with separators for thousands."""
    lines = [list(row) for row in rows]
    numeric = {i for i in range(len(heads)) if lines and all(_is_number(row[i]) for row in lines)}
    head = tag("tr", *(_cell("th", text, right=i in numeric) for i, text in enumerate(heads)))
    body = [tag("tr", *(_cell("td", value, right=i in numeric) for i, value in enumerate(row))) for row in lines]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="wide")


def page(title: str, content: object) -> str:
    """Build a whole self-contained document."""
    body = tag("body", tag("h1", title), tag("main", content))
    return document(title, body, style=STYLE)


def document(title: object, body: Markup, *, style: str) -> str:
    """Build a file that shows itself and nothing else."""
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            tag("title", title),
            tag("style", Markup(style)),
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'


def put(path: Path, text: str) -> int:
    """Write a page; return its bytes."""
    body = text.encode(errors="replace")
    files.write_atomically(path, lambda handle: handle.write(body))
    return len(body)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(name: str, value: object, *, right: bool) -> Markup:
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    elif isinstance(value, float):
        value = f"{value:,.4g}"
    return tag(name, value, class_="n") if right else tag(name, value)
