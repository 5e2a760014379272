"""`validation/report.html`: what databases say of a run's features, each number beside what it is held against.

One page that needs nothing else, neither a network nor a server. The summary is HTML; the features lie in it as
deflated chunks that the page's program opens one by one. Text from data is never HTML: it is escaped here, and set as
text there, and the policy allows no other program than this one, by its digest, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from elute.analysis import run_tables
from elute.base import files
from elute.base.errors import DataError
from elute.reports import validation_charts, validation_networks, validation_tree
from elute.reports.html import Markup, escape, join, page, table, tag
from elute.reports.validation_chunks import pack
from elute.reports.validation_records import NOT_RUN
from elute.reports.validation_summary import headline, summary
from elute.reports.validation_svg import Drawing, plain
from elute.reports.validation_tables import SUMMARY, Site, read_site

NAME = "validation/report.html"
_PAGE = Path(__file__).parent / "validation_page"
_SCRIPTS = ("text.js", "data.js", "pictures.js", "list.js", "panel.js", "page.js")  # each uses those before it


def write_report(folder: Path) -> Path:
    """Write the report of a run or of one site; a run of several sites gets one each, and a page that leads to them."""
    folder = Path(folder)
    places = run_tables.find_sites(folder)
    if not places:
        run_tables.read_table(folder, run_tables.FEATURES)  # says what is missing
    if list(places.values()) == [folder]:
        name = next(iter(places))
        return _write(folder, read_site(folder, name=name, run=folder.resolve().name))
    sites = {name: _validated(place, name, folder) for name, place in places.items()}
    if not any(sites.values()):
        remedy = f"Type: elute cells validate --results {folder}"
        raise DataError(f"no site holds {SUMMARY}", where=folder, remedy=remedy)
    for name, place in places.items():
        if (site := sites[name]) is not None:
            _write(place, site)
    text = page(f"{plain(folder.resolve().name)}: validation", _sites(folder, sites, places))
    return _put(folder / NAME, text)


def write_charts(folder: Path, into: Path, *, features: Sequence[int] = ()) -> list[Path]:
    """Write the charts of a site as SVG files, and the trees of phenotypes and the networks of some features."""
    site = read_site(Path(folder))
    drawings = [drawing for each in validation_charts.charts(site).values() for drawing in each]
    paths = []
    if features:
        known = set(site.features["feature"].to_list())
        if lost := [feature for feature in features if feature not in known]:
            raise DataError(f"has no feature {lost[0]}", where=folder, remedy=f"It has {len(known):,}.")
        for name, grown in validation_tree.trees(site).items():
            drawings += [_tree(site, name, grown, feature=feature) for feature in features if feature in grown.nodes]
        for feature, text in validation_networks.pictures(site, features).items():
            paths.append(_put(Path(into) / f"network-{feature}.svg", text))
    return [*validation_charts.write_drawings(drawings, Path(into)), *paths]


def _tree(site: Site, name: str, grown: validation_tree.Trees, *, feature: int) -> Drawing:
    title = validation_tree.caption(feature, grown, site.titles([name])[0], fdr=site.fdr)
    return validation_tree.drawing(grown.nodes[feature], grown.labels, name=f"tree-{name}-{feature}", title=title)


def _validated(folder: Path, name: str, run: Path) -> Site | None:
    """A site's report, if it was validated at all."""
    if not (folder / SUMMARY).is_file():
        return None
    told = files.read_json(folder / SUMMARY, what="a summary of validation", remedy="Validate the run anew.")
    if isinstance(told, dict) and "databases" not in told:
        return None
    return read_site(folder, name=name, run=run.resolve().name)


def _sites(folder: Path, sites: dict[str, Site | None], places: dict[str, Path]) -> Markup:
    """What leads to the reports of several sites, with their headlines."""
    parts = []
    for name, site in sites.items():
        if site is None:
            told = f"{NOT_RUN}: it was not validated against databases"
            parts += [tag("h2", plain(name)), tag("p", told, class_="dim")]
            continue
        place = places[name].relative_to(folder).as_posix()
        link = tag("a", plain(name), href=f"../{quote(place)}/{NAME}")
        lines = [headline(source, site) + "." for source in site.sources]
        parts += [tag("h2", link), tag("ul", *(tag("li", line) for line in lines))]
    found = [site for site in sites.values() if site is not None]
    rows = [(site.name, sum(source.run for source in site.sources), len(site.sources)) for site in found]
    return join([table(["site", "databases run", "asked for"], rows), *parts])


def _write(folder: Path, site: Site) -> Path:
    grown = validation_tree.trees(site)
    drawings = validation_charts.charts(site)
    networks = validation_networks.pictures(site, validation_networks.surest(site))
    return _put(folder / NAME, _page(site, summary(site, drawings), pack(site, grown, networks)))


def _put(path: Path, text: str) -> Path:
    files.make_folder(path.parent)
    data = text.encode()
    files.write_atomically(path, lambda handle: handle.write(data))
    return path


def _page(site: Site, content: Markup, chunks: dict[str, str]) -> str:
    """Put the files of the page, the summary and the data into one document."""
    style, script = (_PAGE / "page.css").read_text(), _script()
    blocks = (f'<script type="text/plain" id="{name}">{text}</script>' for name, text in chunks.items())
    alive = int(site.features["alive"].sum())
    facts = [
        ("site", site.name),
        ("features", f"{len(site.features):,}, {alive:,} fire"),
        ("databases", f"{sum(source.run for source in site.sources)} of {len(site.sources)} run"),
        ("q", f"≤ {site.fdr:g}"),
        ("genes of a feature", f"{site.top_n_genes}" if site.top_n_genes else "not recorded"),
    ]
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:"
    parts = {
        "policy": escape(f"{policy}; base-uri 'none'; form-action 'none'"),
        "title": escape(f"{site.run}: what its features stand for"),
        "run": tag("bdi", site.run),
        "facts": join(tag("div", tag("dt", name), tag("dd", tag("bdi", value))) for name, value in facts),
        "style": style,
        "summary": content,
        "data": "\n".join(blocks),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (_PAGE / "page.html").read_text())


def _script() -> str:
    """All modules as one: the lines by which they know one another are taken out."""
    text = "\n".join(path.read_text() for path in (_PAGE / name for name in _SCRIPTS))
    return re.sub(r"^export ", "", re.sub(r"^import .*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
