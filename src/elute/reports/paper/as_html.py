"""A report as one page of HTML that needs nothing else: no script, no connection, pictures inside it."""

from __future__ import annotations

from collections.abc import Sequence

from elute.reports.html import Markup, document, join, tag
from elute.reports.paper.as_svg import svg
from elute.reports.paper.blocks import Block, Bullets, Group, Heading, Picture, Table, Text

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #eef1f4; color: #1c232b;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 1.5rem 2.5rem 3rem; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 1rem 0 .5rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.2rem 0 .4rem; padding-top: .7rem; border-top: 2px solid #0072b2; }
h3 { font-size: 1rem; line-height: 1.35; margin: 1.6rem 0 .2rem; display: flex; flex-wrap: wrap; column-gap: 1rem;
  justify-content: space-between; }
h3 span { font-weight: normal; color: #56616d; white-space: nowrap; }
p { margin: .4rem 0; } ul { margin: .4rem 0; padding-left: 1.2rem; } li { margin: .25rem 0; }
.dense { font-size: .94rem; } .small { font-size: .86rem; color: #56616d; }
figure { margin: .6rem 0; overflow-x: auto; } svg { display: block; width: 100%; min-width: 36rem; height: auto; }
.wide { overflow-x: auto; margin: .8rem 0 .3rem; }
table { border-collapse: collapse; font-size: .84rem; min-width: 36rem; width: 100%; }
th, td { text-align: right; vertical-align: bottom; padding: .3rem 0 .3rem .8rem; border-bottom: 1px solid #c9d0d7;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
td { white-space: nowrap; } th[scope=row] { font-weight: normal; }
th:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; min-width: 9rem; }
section { break-inside: avoid; }
@media (max-width: 40rem) { main { padding: 1rem 1rem 2rem; } }
@media print { body { background: #fff; font-size: 10.5pt; } main { max-width: none; padding: 0; }
  svg, table { min-width: 0; } }
"""


def page(title: str, blocks: Sequence[Block]) -> str:
    """Build the whole document."""
    body = tag("body", tag("main", Markup("\n"), join(_block(block) for block in blocks)))
    return document(title, body, style=_STYLE)


def _block(block: Block) -> Markup:
    if isinstance(block, Group):
        return tag("section", Markup("\n"), join(_block(each) for each in block.blocks), Markup("\n"))
    if isinstance(block, Heading):
        aside = [tag("span", block.aside)] if block.aside else []
        return tag(f"h{block.level}", tag("bdi", block.text), *aside)
    if isinstance(block, Text):
        kind = "small" if block.small else "dense" if block.dense else ""
        return tag("p", block.text, class_=kind) if kind else tag("p", block.text)
    if isinstance(block, Bullets):
        return tag("ul", *(tag("li", item) for item in block.items))
    if isinstance(block, Picture):
        return tag("figure", svg(block))
    return _table(block)


def _table(table: Table) -> Markup:
    head = tag("tr", *(tag("th", text, scope="col") for text in table.heads))
    rows = []
    for first, *rest in table.rows:
        rows.append(tag("tr", tag("th", tag("bdi", first), scope="row"), *(tag("td", value) for value in rest)))
    inner = tag("table", tag("thead", head), tag("tbody", *rows))
    wide = tag("div", inner, class_="wide", tabindex="0", role="group", **{"aria-label": table.caption})
    return join([wide, tag("p", table.caption, class_="small")])
