"""`graph.html`: one attribution graph in one file that needs neither a network nor a server.

    write_graph_page(folder / "graph.html", folder / "tour-3.json", title="Tour 3", checks=checks, beside=beside)

The page is the files of `page/`, put into one another, with the Explorer's look and some of its program; the graph lies
in it whole, deflated, so that the page can write the file back with the reader's pins and supernodes. Text from data is
never HTML: the program sets it as text alone, and the policy allows no other program than this one, by its digest, and
no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elute.base import files
from elute.base.run import versions
from elute.reports.graphs.beside import besides
from elute.reports.graphs.checks import told_checks
from elute.reports.graphs.content import finite, opened
from elute.reports.html import escape, put

NAME = "graph.html"
PAGE = Path(__file__).parent / "page"
EXPLORER = Path(__file__).parents[1] / "explorer" / "page"
# Each file uses those before it.
SHARED = ("text", "save")
SCRIPTS = ("state", "data", "units", "layout", "ink", "canvas", "beside", "groups", "panel", "layers", "scores", "page")
_LEVEL = 9  # of compression: a page is written once and opened many times


def write_graph_page(
    path: Path,
    content: Mapping[str, Any] | Path,
    *,
    title: str,
    checks: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a graph file, or of what would stand in one.

    `checks` is what `checks.checks_of` made: scores, the check of edges and the agreement with ablations, each beside
    its control, and the same of `others`. `beside` is what is shown next to the graph: {"kind": "tour", "coords",
    "tour", "at"} or {"kind": "genes", "genes", "values"}, each by position, and `features`: what is known of features
    by node id or `layer_feature`: {"label", "examples": [{"what", "value"}], "facts", "link"}.
    """
    graph = opened(content)
    known = {
        "schema": 1,
        "title": str(title),
        "version": versions().get("elute"),
        **graph.told(),
        "checks": told_checks(checks),
        "beside": besides(beside, positions=graph.positions),
    }
    path = Path(path)
    files.make_folder(path.parent)
    put(path, _page(known))
    return path


def _page(known: dict[str, Any]) -> str:
    style, script = _style(), _script()
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    parts = {
        "policy": escape(f"{policy}; img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"),
        "title": escape(known["title"]),
        "style": style,
        "script": script,
        "graph": _packed(known),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (PAGE / "page.html").read_text())


def _packed(known: dict[str, Any]) -> str:
    # ASCII, so that half a character in a name reaches the page as it is, and not an error here.
    text = json.dumps(finite(known), allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), _LEVEL)).decode()


def _script() -> str:
    """All files as one."""
    shared = [(EXPLORER / f"{name}.js").read_text() for name in SHARED]
    return "\n".join([*shared, *((PAGE / f"{name}.js").read_text() for name in SCRIPTS)])


def _style() -> str:
    return "\n".join([(EXPLORER / "page.css").read_text(), (PAGE / "page.css").read_text()])


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
