"""The shell of every page of a tissue report: one file each, that needs neither a network nor a server.

Text from data is escaped here or set as text by the page's program; the policy allows no other program than this one,
by its digest, no connection and no picture but those within.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache

from elute.base.run import versions
from elute.reports.html import Markup, escape, join
from elute.reports.tissue.markup import bare, el, named
from elute.reports.tissue.palette import EXPLORER, PAGE, style

HOME = "index.html"
# What each kind of page needs; each file uses those before it.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "index": ("list",),
    "gene": ("dom", "tiles", "map_data", "map_panel", "maps"),
    "code": ("dom", "tiles", "map_data", "map_panel", "maps"),
}
Way = tuple[str, str, str]  # an address, what it is called, and whether it is the one before (prev) or after (next)


def document(kind: str, *, title: object, run: str, content: object, ways: Sequence[Way] = ()) -> str:
    """Build a page; `ways` lead from it to others."""
    program, theme = script(kind), _read("theme")
    digests = " ".join(f"'{_digest(text)}'" for text in (theme, program))
    policy = (
        f"default-src 'none'; style-src '{_digest(style())}'; script-src {digests}; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'),
            el("title", f"{bare(title, 120)} · {bare(run, 80)}"),
            el("style", Markup(style())),
            el("script", Markup(theme)),
        ]
    )
    home = el("strong", named(run, 40)) if kind == "index" else el("a", named(run, 40), href=f"../{HOME}")
    arrows = {"prev": ("← ", ""), "next": ("", " →")}
    links = [
        el("a", arrows[told][0], named(text, 24), arrows[told][1], href=where, rel=told) for where, text, told in ways
    ]
    switch = el("button", "Dark", id="theme", type="button", hidden="")
    body = join(
        [
            el("a", "To the content", href="#main", class_="skip"),
            el("header", el("nav", home, *links, aria_label="Pages"), switch, id="top"),
            el("main", content, id="main", tabindex="-1"),
            el("footer", f"elute {_version()}. This page needs no network.", class_="dim"),
            el("script", Markup(program), type="module"),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n'
        f'<body data-page="{kind}">\n{body}\n</body>\n</html>\n'
    )


@cache
def script(kind: str) -> str:
    """The program of a kind of page; colours of numbers are those of the Explorer's maps."""
    own = [_read(name) for name in SCRIPTS[kind]]
    return "\n".join(own if kind == "index" else [(EXPLORER / "palette.js").read_text(), *own])


@cache
def _version() -> str:
    return versions().get("elute", "")


@cache
def _read(name: str) -> str:
    return (PAGE / f"{name}.js").read_text()


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
