"""Putting pages together: every page whose files are there, in one self-contained document."""

from __future__ import annotations

from pathlib import Path

from elute.base import files, plugins
from elute.base.errors import DataError
from elute.base.run import Artifact
from elute.reports.html import Markup, join, page, tag


def build_report(folder: Path) -> Artifact:
    """Write `report.html` of a folder from the pages that find what they need there."""
    folder = Path(folder)
    pages = [(name, plugins.load("pages", name)) for name in plugins.names("pages")]
    usable = [(name, p) for name, p in pages if all((folder / need).exists() for need in p.needs)]
    if not usable:
        needs = sorted({need for _, p in pages for need in p.needs})
        raise DataError(
            "there is nothing to report on", where=folder, remedy=f"A page needs one of {', '.join(needs)}."
        )
    sections = [tag("section", tag("h2", p.title), Markup(p.render(folder)), id=name) for name, p in usable]
    data = page(folder.resolve().name, join(sections)).encode()
    path = folder / "report.html"
    files.write_atomically(path, lambda handle: handle.write(data))
    return Artifact("report", path, {"pages": [name for name, _ in usable], "bytes": len(data)})
