"""`dashboard.html`, the Explorer: all features of a run in one file that needs neither a network nor a server.

The page is the files of `page/`, put into one another; the data lie in it as blocks that its program inflates on demand
(pack.py). Text from data is never HTML: the program sets it as text alone, and the policy allows no other program than
this one, by its digest, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from elute.analysis import run_tables
from elute.base import files
from elute.base.run import Artifact, versions
from elute.reports.explorer import cell_sample
from elute.reports.explorer import provenance as facts
from elute.reports.explorer.pack import plain
from elute.reports.explorer.site import Asked, Site, make_site
from elute.reports.html import escape

NAME = "dashboard.html"
SCHEMA = 1
ROOM, ROOM_FOR_ALL = 12_000_000, 40_000_000  # bytes of a page with a sample of cells, and with all
_SPARE = 200_000  # bytes for what is said of the run
PAGE = Path(__file__).parent / "page"
# Each file uses those before it.
SCRIPTS = (
    *(
        "text",
        "save",
        "pack",
        "data",
        "state",
        "columns",
        "search",
        "filters",
        "list",
        "charts",
        "terms",
        "badges",
        "panel",
    ),
    *("palette", "marks", "grid", "gestures", "over", "scatter", "lasso", "colouring", "legend", "picker"),
    *("chosen_points", "map_pane", "maps", "compare", "about", "page"),
)
_FIRST = ("s0-labels", "s0-genes", "s0-features")  # what the first look needs
STYLES = ("page", "maps")


def write_explorer(
    folder: Path, *, top_n_features: int | None = None, all_cells: bool = False, seed: int = 0, data: Path | None = None
) -> Artifact:
    """Write a run's page: every feature, or the most frequent; a sample of its cells, or (up to 100,000) all of them.

    `data` is the file that the run read, for the map of cells that it holds.
    """
    folder = Path(folder)
    places = run_tables.find_sites(folder)
    if not places:
        run_tables.read_table(folder, run_tables.FEATURES)  # says what is missing
    most = cell_sample.MOST if all_cells else cell_sample.SAMPLE
    room = (ROOM_FOR_ALL if all_cells else ROOM) - len(_script()) - len(_style()) - _SPARE
    asked = Asked(top_n_features, cells=most, seed=seed, data=data, room=room // max(1, len(places)))
    sites = [make_site(folder, place, name, key=f"s{i}", asked=asked) for i, (name, place) in enumerate(places.items())]
    info = _info(folder, sites)
    path = folder / NAME
    size = 0

    def fill(handle: BinaryIO) -> None:
        nonlocal size
        for part in _page(info, sites):
            size += handle.write(part.encode())

    files.write_atomically(path, fill)
    told = {site.info["name"]: site.info["shown"] for site in sites}
    cells = next((site.info["cells"]["shown"] for site in sites if site.info["cells"]), 0)
    return Artifact("dashboard", path, {"features": told, "cells": cells, "bytes": size})


def _info(folder: Path, sites: list[Site]) -> dict[str, Any]:
    """What is small, and read at once."""
    told = [facts.summary(place) for place in run_tables.find_sites(folder).values()]
    cells = run_tables.read_cells(folder) if (folder / run_tables.SHEET).is_file() else None
    return {
        "schema": SCHEMA,
        "run": plain(folder.resolve().name),
        "version": versions().get("elute"),
        "sites": [site.info for site in sites],
        "about": facts.about(folder, cells, [pair for each in told for pair in facts.licences(each)]),
    }


def _page(info: dict[str, Any], sites: list[Site]) -> Iterator[str]:
    """The document, piece by piece."""
    style, script = _style(), _script()
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    texts = {name: text for site in sites for name, text in site.blocks.items()}
    first = [name for name in _FIRST if name in texts]
    # The program runs as soon as it is read, with what the first look needs before it, and the rest still to come.
    known = {**info, "blocks": list(texts)}
    parts: dict[str, Iterator[str]] = {
        "policy": iter(
            [escape(f"{policy}; img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action 'none'")]
        ),
        "title": iter([escape(f"{info['run']}: features")]),
        "style": iter([style]),
        "script": iter([script]),
        "info": iter(
            [_element("application/json", "info", _told(known)), *(_block(name, texts[name]) for name in first)]
        ),
        "blocks": (_block(name, text) for name, text in texts.items() if name not in first),
    }
    for i, text in enumerate(re.split(r"\{\{(\w+)\}\}", (PAGE / "page.html").read_text())):
        if i % 2:
            yield from parts[text]
        else:
            yield text


def _block(name: str, text: str) -> str:
    return _element("text/plain", f"block-{name}", text)


def _element(kind: str, name: str, text: str) -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>\n'


def _told(value: dict[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Inside a script element only these could end it, or the line in an old reader of JSON.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _script() -> str:
    """All files as one."""
    return "\n".join((PAGE / f"{name}.js").read_text() for name in SCRIPTS)


def _style() -> str:
    return "\n".join((PAGE / f"{name}.css").read_text() for name in STYLES)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
