"""`report/`: an index with search, a page a gene and a page a code, each one file that needs nothing else.

Only what the stages wrote is read; tiles come from whoever has them. The pages are the same bytes for the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elute.analysis.token_maps import safe_name
from elute.base import console, files
from elute.base.run import Artifact
from elute.reports.html import Markup, put
from elute.reports.tissue import section_maps, tiles_shown
from elute.reports.tissue.code_page import code_page
from elute.reports.tissue.document import HOME, Way, document, script
from elute.reports.tissue.gallery import Gallery
from elute.reports.tissue.gene_page import Gene, gene_page
from elute.reports.tissue.index_page import index_page
from elute.reports.tissue.markup import address
from elute.reports.tissue.palette import style
from elute.reports.tissue.pictures import Album, Images, make_album
from elute.reports.tissue.pixel_maps import make_pixel_maps
from elute.reports.tissue.reading import Findings, read_findings
from elute.reports.tissue.settings import TissueReportConfig
from elute.reports.tissue.verdicts import Score, Verdict, scores_of, verdict

_PLAIN = 25_000  # bytes of a page besides its program, its maps and its tiles
_MAPS = 0.4  # of the size that was asked for, at most


@dataclass(frozen=True, eq=False)
class Report:
    """All that is decided before a page is written."""

    found: Findings
    config: TissueReportConfig
    scores: dict[str, dict[str, Score]]
    verdicts: dict[str, Verdict]
    names: dict[str, str]  # genes as names of files
    mapped: frozenset[str]  # genes whose pages have maps
    gallery: Gallery

    @property
    def album(self) -> Album:
        """The tiles."""
        return self.gallery.album


def write_reports(folder: Path, *, config: TissueReportConfig, images: Images) -> Artifact:
    """Write all pages; `images` gives tiles by sample and tile, each uint8 [height, width, 3]."""
    report = _decide(read_findings(folder), config, images)
    found = report.found
    home = files.make_folder(found.folder / "report")
    total = 0
    for kind in ("genes", "codes"):
        place = files.make_folder(home / kind)
        known = set()
        for name, text in _genes(report) if kind == "genes" else _codes(report):
            total += put(place / name, text)
            known.add(name)
        for path in place.glob("*.html"):  # of an earlier run, with other genes
            if path.name not in known:
                path.unlink()
    told = " ".join(filter(None, (report.album.told, report.gallery.pixels.told, _told_maps(report))))
    budget = config.size_budget_mb
    if total > budget * 1e6:
        told += f" The pages take {total / 1e6:.1f} MB even so, more than was asked for ({budget:g} MB)."
        console.warn(told.strip())
    content = index_page(found, report.scores, report.verdicts, names=report.names, told=told)
    total += put(home / HOME, document("index", title="Genes and codes", run=found.run, content=content))
    count = {"genes": len(found.genes), "codes": len(found.codes)}
    pages = {"pages": 1 + sum(count.values()), **count, "bytes": total}
    seen = {
        "tiles": len(report.album.tiles),
        "pixel_maps": len(report.gallery.pixels.drawn),
        "tiles_per_code": report.album.per_code,
        "tile_side": report.album.side,
    }
    return Artifact(
        "tissue report", home / HOME, {**pages, **seen, "maps": len(report.mapped), "reduced": told.strip()}
    )


def _decide(found: Findings, config: TissueReportConfig, images: Images) -> Report:
    """What pages there are, how large tiles may be, and which pages have maps.

    What was explained comes first: its maps, then its tiles; maps of other genes have what is left.
    """
    scores = {str(gene): scores_of(part) for (gene,), part in found.scores.group_by("gene", maintain_order=True)}
    verdicts = {gene: verdict(scores.get(gene, {})) for gene in found.genes}
    names = {gene: safe_name(gene) for gene in found.genes}
    sections = section_maps.Sections.of(found.samples)
    room = config.size_budget_mb * 1e6
    each = max(1, sections.bytes_of(2, config.spots_per_page))
    explained = set(found.relevance["gene"].unique().to_list())
    order = sorted(found.genes, key=lambda gene: gene not in explained)
    first = min(len(explained), int(_MAPS * room / each))
    room -= (len(style()) + len(script("gene")) + _PLAIN) * (1 + len(found.genes) + len(found.codes))
    room -= first * each + len(found.codes) * sections.bytes_of(1, config.spots_per_page)
    placed = tiles_shown.maps_placed(found, config, config.tiles_per_code)
    pixels = make_pixel_maps(found.folder, placed, room=max(0.0, room))
    room -= pixels.taken
    album = make_album(
        images, lambda n: tiles_shown.places(found, config, n), most=config.tiles_per_code, room=max(0.0, room)
    )
    more = int(max(0.0, room - album.taken) / each) if first == len(explained) else 0
    mapped = frozenset(order[: first + more])
    return Report(found, config, scores, verdicts, names, mapped, Gallery.of(found, album, sections, pixels=pixels))


def _told_maps(report: Report) -> str:
    left = len(report.found.genes) - len(report.mapped)
    return f"Maps are left out of the pages of {left} genes, to keep to the size that was asked for." if left else ""


def _genes(report: Report) -> Iterator[tuple[str, str]]:
    found = report.found
    links = [(each, address("genes", report.names[each])) for each in found.genes]
    for i, name in enumerate(found.genes):
        gene = Gene(name, report.scores.get(name, {}), report.verdicts[name], name in report.mapped)
        content = gene_page(found, report.gallery, gene, config=report.config)
        yield f"{report.names[name]}.html", _page("gene", name, found.run, content, _beside(links, i))


def _codes(report: Report) -> Iterator[tuple[str, str]]:
    found = report.found
    links = [(f"Code {code}", address("codes", code)) for code in found.codes]
    for i, code in enumerate(found.codes):
        content = code_page(
            found, report.gallery, code, verdicts=report.verdicts, names=report.names, config=report.config
        )
        yield f"{code}.html", _page("code", f"Code {code}", found.run, content, _beside(links, i))


def _page(kind: str, title: str, run: str, content: Markup, ways: Sequence[Way]) -> str:
    return document(kind, title=title, run=run, content=content, ways=ways)


def _beside(links: Sequence[tuple[str, str]], at: int) -> list[Way]:
    """The pages before and after one."""
    ways: list[Way] = []
    if at > 0:
        ways.append((f"../{links[at - 1][1]}", links[at - 1][0], "prev"))
    if at + 1 < len(links):
        ways.append((f"../{links[at + 1][1]}", links[at + 1][0], "next"))
    return ways
