"""The shell of the page about particles."""

from __future__ import annotations

from collections.abc import Iterable

from elute.reports import leaf

COLOURS = ("#4c8fd1", "#d98323", "#35a070", "#c05a9e", "#b09a20", "#8673d0", "#d1574a", "#3fa0b0")
"""Of classes, in their order; later ones have them again, as squares."""

_STYLE = """
* { box-sizing: border-box; }
html { font: 15px/1.5 system-ui, sans-serif; background: var(--ground); color: var(--text); }
body { margin: 0; } h1, h2, h3, p, dl, dd, figure, ul { margin: 0; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
main, footer { max-width: 76rem; margin: 0 auto; padding: 1.2rem; } footer { font-size: .83rem; }
.dim, .note, dt, figcaption, footer { color: var(--dim); }
figcaption { font-size: .88rem; }
.note { font-size: .88rem; max-width: 80ch; margin: .2rem 0 .6rem; }
.note li { margin: .2rem 0; }
.lead { font-size: 1.05rem; max-width: 80ch; margin: .25rem 0; overflow-wrap: anywhere; }
.alarm { border-left: 4px solid var(--mark); background: var(--raised); padding: .5rem .9rem; margin: .8rem 0;
  max-width: 80ch; font-weight: 600; }
.verdict { display: inline-block; border: 1px solid var(--line); border-left: 3px solid var(--null); border-radius:
  4px; padding: .05em .5em; font-size: .85rem; white-space: nowrap; }
.gains { border-left-color: var(--yes); } .loses { border-left-color: var(--no); }
.apart { border-left-color: var(--doubt); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem 1.2rem; margin: 1rem
  0 0; }
.facts dt { font-size: .83rem; }
.facts dd { font-size: 1.12rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; vertical-align: top; border-bottom: 1px solid var(--line);
  font-weight: 400; }
tbody th { overflow-wrap: anywhere; min-width: 10.5rem; }
thead th { font-weight: 600; color: var(--dim); font-size: .83rem; vertical-align: bottom; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
td .dim { font-size: .86em; }
.name { overflow-wrap: anywhere; unicode-bidi: isolate; } a { color: var(--link); } code { overflow-wrap: anywhere; }
.pair { display: grid; gap: .4rem 2.4rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
  align-items: start; }
.pair h2 { margin-top: 1.6rem; } .chart { max-width: 46rem; margin: .4rem 0 .8rem; }
.chart svg { display: block; width: 100%; height: auto; }
.key { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; font-size: .86rem; color: var(--dim); margin: .2rem 0
  .3rem; padding: 0; list-style: none; }
.key span::before { content: ""; display: inline-block; width: .72em; height: .72em; margin-right: .4em;
  border-radius: 50%; background: var(--swatch); }
.square-chart { max-width: 26rem; }
.key .square::before { border-radius: 1px; }
svg .ground { fill: var(--ground); } svg .ink { fill: var(--text); } svg .dim { fill: var(--dim); }
svg .rule { stroke: var(--line); }
svg .observed { fill: var(--held); } svg .doubt { fill: var(--doubt); } svg .null { fill: var(--null); }
svg .plain { fill: var(--ring); }
svg .whisker { stroke: var(--ring); } svg .mark { stroke: var(--mark); } svg .cell { fill: var(--held); }
svg .dots { fill: none; stroke-linecap: round; stroke-width: 3.6; opacity: .72; }
svg .curve { fill: none; stroke: var(--held); stroke-width: 2; }
svg .halo { paint-order: stroke; stroke: var(--ground); stroke-width: 3px; stroke-linejoin: round; font-weight: 600; }
.telephone { display: none; } svg .light { font-weight: 400; }
@media (max-width: 640px) { .desk { display: none; } .telephone { display: block; } main { padding: .9rem; }
  h1 { font-size: 1.35rem; } td, th { padding-right: .6rem; } tbody th { min-width: 7.5rem; }
  .cards, .cards tbody { display: block; } .cards thead { display: none; }
  .cards tr { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .3rem .7rem; padding: .6rem 0;
    border-bottom: 1px solid var(--line); }
  .cards th, .cards td { border: 0; padding: 0; text-align: left; white-space: normal; min-width: 0;
    overflow-wrap: anywhere; }
  .cards th { grid-column: 1 / -1; font-weight: 600; } .cards td .dim { display: block; }
  .cards td[data-label]::before { content: attr(data-label); display: block; font-size: .76rem; color: var(--dim); }
  .cards td:has(.verdict)::before { content: none; } }
@media print { main { max-width: none; padding: 0; } tr, figure { break-inside: avoid; } h2 { break-after: avoid; } }
"""


def page(title: str, run: str, content: Iterable[object]) -> str:
    """Build a whole document."""
    swatches = "".join(
        f".c{i} {{ --swatch: {colour}; }} svg .d{i} {{ stroke: {colour}; }} " for i, colour in enumerate(COLOURS)
    )
    return leaf.page(title, run, content, style=swatches + _STYLE)
