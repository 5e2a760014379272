"""`elute report`: a few pages about a run, for people who do not run programs.

RUN/report/report.html   one page that needs nothing else
RUN/report/report.pdf    the same on A4
RUN/report/report.md     the same, with report-figures/*.svg beside it
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from elute.base import files
from elute.base.errors import ConfigError, near
from elute.base.run import Artifact
from elute.reports.paper import as_html, as_markdown, as_pdf
from elute.reports.paper.canvas import drawing
from elute.reports.paper.chosen import choose
from elute.reports.paper.facts import read_run
from elute.reports.paper.pages import report

FORMATS = ("html", "pdf", "md")
FEATURES = 20
_LEAST = 3  # features of a site, however many sites there are


def write_paper(
    folder: Path, kind: str = "html", *, output: Path | None = None, top_n_features: int | None = None
) -> Artifact:
    """Write the report of a run, or of one of its sites, as html, pdf or md; of several sites all are in it."""
    folder = Path(folder)
    if kind not in FORMATS:
        raise ConfigError(f"there is no format {kind!r} of a report", remedy=near(kind, FORMATS))
    if top_n_features is not None and top_n_features < 1:
        raise ConfigError(f"a report of {top_n_features} features", remedy="Give --top-n-features 1 or more.")
    path = folder / "report" / f"report.{kind}" if output is None else Path(output)
    run = read_run(folder)
    most = top_n_features or max(_LEAST, -(-FEATURES // len(run.sites)))
    with drawing():
        choices = [choose(run, site, most) for site in run.sites]
        blocks = report(run, choices)
        title = f"What was found in {run.name}"
        written = {path: b""}
        if kind == "html":
            written[path] = as_html.page(title, blocks).encode()
        elif kind == "pdf":
            written[path] = as_pdf.pdf(title, blocks)
        else:
            beside = f"{path.stem}-figures"
            text, pictures = as_markdown.document(blocks, folder=quote(beside.encode(errors="surrogateescape")))
            written[path] = text.encode()
            written |= {path.parent / beside / name: svg.encode() for name, svg in pictures.items()}
    for each, data in reversed(written.items()):  # the report last: what it shows is there
        files.make_folder(each.parent)
        files.write_atomically(each, lambda handle, data=data: handle.write(data))  # type: ignore[misc]
    shown = {site.name: [each.feature for each in c.features] for site, c in zip(run.sites, choices, strict=True)}
    return Artifact("report", path, {"format": kind, "features": shown, "bytes": len(written[path])})
