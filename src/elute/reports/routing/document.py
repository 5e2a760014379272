"""The shell of a page about a policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from elute.reports import leaf
from elute.reports.validation_svg import number

_OWN = """
* { box-sizing: border-box; }
html { font: 15px/1.5 system-ui, sans-serif; background: var(--ground); color: var(--text); }
body { margin: 0; } h1, h2, h3, p, dl, dd, figure { margin: 0; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; } h3 { font-size: 1.02rem; margin: 1.4rem 0 .3rem;
  overflow-wrap: anywhere; }
main, footer { max-width: 76rem; margin: 0 auto; padding: 1.2rem; } footer { font-size: .83rem; }
.dim, .note, dt, figcaption, footer { color: var(--dim); } .note { font-size: .88rem; max-width: 80ch;
  margin: .25rem 0 .6rem; }
.lead { font-size: 1.05rem; max-width: 80ch; margin: .5rem 0 .3rem; } .name { overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem 1.2rem;
  margin: 1rem 0 0; }
.facts dt { font-size: .83rem; } .facts dd { font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; color: var(--dim); font-size: .84rem; padding-bottom: .25rem; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { font-weight: 600; color: var(--dim); font-size: .83rem; vertical-align: bottom; }
tbody th { min-width: 9rem; overflow-wrap: anywhere; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.better { color: var(--yes); } .worse { color: var(--no); } .alarm { border-left: 3px solid var(--mark);
  padding: .3rem .8rem; margin: .6rem 0; max-width: 80ch; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr));
  gap: 1rem 1.4rem; margin: .5rem 0; }
.chart { max-width: 46rem; margin: .6rem 0 1rem; } .chart svg, .figures svg { display: block; width: 100%;
  height: auto; }
.feature { border-top: 1px solid var(--line); padding: .7rem 0 .9rem; } figcaption { font-size: .84rem; }
a { color: var(--link); }
svg .squares { image-rendering: pixelated; } .square { max-width: 26rem; }
svg .ground { fill: var(--ground); } svg .ink { fill: var(--text); } svg .dim { fill: var(--dim); }
svg .rule { stroke: var(--line); }
svg .observed { fill: var(--held); } svg .doubt { fill: var(--doubt); } svg .null { fill: var(--null); }
svg .control { fill: var(--control); }
svg .whisker { stroke: var(--ring); } svg .mark { stroke: var(--mark); } svg .plain { fill: var(--null); }
@media print { main { max-width: none; padding: 0; } .feature, tr, figure { break-inside: avoid; } }
"""


def page(title: str, pair: str, content: Iterable[object]) -> str:
    """Build a whole document."""
    return leaf.page(title, pair, content, style=_OWN)


def interval(told: Mapping[str, float]) -> str:
    """A mean with its interval."""
    return f"{number(told['mean'])} [{number(told['low'])}, {number(told['high'])}]"
