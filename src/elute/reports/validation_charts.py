"""Charts over all features of a validated site: counts beside their null, and dots of terms × features.

Every chart is a `Drawing`, the same in the page and in a file. Counts stand beside what matched lists and controls
gave.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from elute.base import files
from elute.reports.html import Markup, join, tag
from elute.reports.validation_records import NOT_RUN
from elute.reports.validation_svg import Drawing, chance, cut, hint, keys, line, mark, number, plain, words
from elute.reports.validation_tables import Site, Source
from elute.reports.validation_volcano import volcano

_WIDTH = 480.0
_TERMS, _FEATURES = 18, 24  # of a dot plot
_STEPS = (0.05, 1e-3, 1e-6, 1e-12)  # q from which on a dot is a shade darker


def charts(site: Site) -> dict[str, list[Drawing]]:
    """All charts: the counts under "", and those of each database under its name."""
    found = {"": [counts(site)]}
    for source in site.sources:
        both = (volcano(source, site.fdr), dots(source, site.fdr))
        found[source.name] = [drawing for drawing in both if drawing is not None]
    return found


def write_drawings(drawings: list[Drawing], folder: Path) -> list[Path]:
    """Write each drawing as an SVG file of its name."""
    files.make_folder(folder)
    paths = []
    for drawing in drawings:
        path = folder / f"{drawing.name}.svg"
        data = f'<?xml version="1.0" encoding="UTF-8"?>\n{drawing.svg(alone=True)}\n'.encode()
        files.write_atomically(path, lambda handle, data=data: handle.write(data))  # type: ignore[misc]
        paths.append(path)
    return paths


def counts(site: Site) -> Drawing:
    """Features with a term in each database, beside matched lists and controls, with intervals."""
    width, room, y = _WIDTH, 255.0, 0.0
    shown = [value for source in site.sources if source.run for value in _counts_of(source) if value is not None]
    scale = room / max([*shown, 1.0])
    marks: list[Markup] = []
    for source in site.sources:
        y += 20
        excess = _excess(source) if source.run else ""
        taken = 6.9 * len(excess) + 12
        marks.append(words(0, y, cut(source.snapshot, width - taken, 16), font_size=14, font_weight="600"))
        marks.append(words(width, y, excess, kind="dim", text_anchor="end", font_size=12.5))
        y += 7
        if not source.run:
            told = f"{NOT_RUN}: {source.why}" if source.why else NOT_RUN
            marks.append(words(0, y + 10, cut(told, width, 12.5), kind="dim", font_size=12.5))
            y += 15
            continue
        for bar in _bars(source):
            marks.append(_bar(bar, y, scale))
            y += bar.tall + 5
        y += 3
    if not site.sources:
        marks.append(words(0, 20, "No database was asked.", kind="dim"))
    title = f"Features with a term at q ≤ {site.fdr:g} in each database, beside matched lists and controls"
    return Drawing("counts", title, width, max(y, 24) + 6, join(marks))


class _Bar(NamedTuple):
    kind: str
    tall: float
    value: float | None
    ends: tuple[float, float] | None
    name: str
    told: str


def _bars(source: Source) -> Iterator[_Bar]:
    """The bars of a database: what was found, what matched lists gave, what controls gave."""
    found, null = source.counts["significant"], source.null
    yield _Bar("observed", 14, found, None, "", f"{number(found)} features")
    if null is None:
        absent = "beyond lists of the same degrees" if source.is_network else f"matched lists {NOT_RUN}"
        yield _Bar("null", 11, None, None, "", absent)
    else:
        ends = None if null.low is None or null.high is None else (null.low, null.high)
        told = f" ({number(ends[0])}–{number(ends[1])})" if ends else ""
        yield _Bar("null", 11, null.mean, ends, null.kind, f"{number(null.mean)}{told}")
    for name, (value, _, _) in source.controls.items():
        yield _Bar("control", 11, value, None, name, number(value))


def _bar(bar: _Bar, y: float, scale: float) -> Markup:
    """One bar, its interval, and its number behind it."""
    kind, tall, value, ends, name, told = bar
    long = 0.0 if value is None else max(value * scale, 1.0 if value else 0.0)
    middle, end = y + tall / 2, long
    parts = [mark("rect", kind, x=0, y=y, width=long, height=tall)]
    if ends:
        low, high = (each * scale for each in ends)
        end = max(long, high)
        spans = [((low, middle), (high, middle)), *(((x, middle - 4), (x, middle + 4)) for x in (low, high))]
        parts += [line("whisker", *span) for span in spans]
    named = cut(name, _WIDTH - end - 12 - 7 * len(told), 12.5)
    label = f"{named} {told}" if name else told
    parts.append(words(end + 6, middle + 4, label, kind="ink" if kind == "observed" else "dim", font_size=12.5))
    return join(parts)


def _excess(source: Source) -> str:
    value, low, high = (source.counts[key] for key in ("excess", "excess_low", "excess_high"))
    if value is None:
        return "" if source.is_network else f"excess {NOT_RUN}"
    return f"excess {number(value)}" + ("" if low is None or high is None else f" ({number(low)} to {number(high)})")


def _counts_of(source: Source) -> list[float | None]:
    null = (source.null.mean, source.null.high) if source.null else ()
    return [source.counts["significant"], *null, *(value for value, _, _ in source.controls.values())]


def dots(source: Source, fdr: float) -> Drawing | None:
    """The terms that most features have, against the features that have them most surely; nothing where none passes."""
    import polars as pl

    if source.rows is None:
        return None
    kept = source.rows.filter(pl.col("q") <= fdr, pl.col("folded_under").is_null())
    if kept.is_empty():
        return None
    often = kept.group_by("term").agg(pl.len().alias("n"), pl.col("p_larger").min(), pl.col("label").first())
    often = often.sort(["n", "p_larger", "term"], descending=[True, False, False]).head(_TERMS)
    place = {term: i for i, term in enumerate(often["term"].to_list())}
    here = source.rows.filter(pl.col("term").is_in(often["term"].implode()))
    chosen = _spread(kept, list(place))
    here = here.filter(pl.col("feature").is_in(chosen)).sort("feature", "term")
    at = {feature: i for i, feature in enumerate(chosen)}
    left, step, top = 262.0, 22.0, 54.0
    marks = _grid(often.select("label", "n", "term").rows(), chosen, left=left, step=step, top=top)
    most = max(1, int(here["overlap"].fill_null(1).max() or 1))  # type: ignore[arg-type]
    for row in here.select("feature", "term", "label", "overlap", "list_size", "q").iter_rows():
        x, y = left + (at[row[0]] + 0.5) * step, top + (place[row[1]] + 0.5) * step
        marks.append(_dot((x, y), row, most=most, fdr=fdr))
    foot = top + len(place) * step + 20
    shades = [("dot", f"s{i}", f"q ≤ {each:g}") for i, each in enumerate((fdr, *_STEPS[1:]), 1)]
    marks.append(keys([*shades, ("dot", "plain", "above")], 0, foot))
    legend = f"Area: genes in common, up to {most}. Columns: features."
    marks.append(words(0, foot + 20, legend, kind="dim", font_size=12))
    width = max(left + len(chosen) * step + 6, 440)
    title = f"{source.snapshot}: the {len(place)} terms that most features have, and {len(chosen)} of their features"
    return Drawing(f"dots-{source.name}", title, width, foot + 28, join(marks))


def _spread(kept: Any, terms: list[str]) -> list[int]:
    """Features in the order of the terms that they have, so that none of the terms takes all columns."""
    import polars as pl

    ranked = kept.filter(pl.col("term").is_in(terms)).sort("p_larger", "feature")
    by = {key[0]: part["feature"].to_list() for key, part in ranked.group_by("term", maintain_order=True)}
    taken: dict[int, int] = {}  # feature: the term for which it was taken
    depth = 0
    while len(taken) < _FEATURES and any(len(found) > depth for found in by.values()):
        for i, term in enumerate(terms):
            found = by.get(term, [])
            if len(found) > depth and len(taken) < _FEATURES:
                taken.setdefault(found[depth], i)
        depth += 1
    return sorted(taken, key=lambda feature: (taken[feature], feature))


def _grid(terms: list[Any], features: list[int], *, left: float, step: float, top: float) -> list[Markup]:
    """Rules, names of terms with how many features have them, and numbers of features."""
    marks: list[Markup] = []
    right, bottom = left + len(features) * step, top + len(terms) * step
    for i, (label, n, term) in enumerate(terms):
        y = top + (i + 0.5) * step
        marks.append(line("rule", (left, y), (right, y)))
        text = words(2, y + 4, cut(label, left - 42, 12), font_size=12)
        marks.append(tag("g", hint(f"{plain(label)} ({plain(term)}): {n:,} features"), text))
        marks.append(words(left - 8, y + 4, f"{n:,}", kind="dim", font_size=12, text_anchor="end"))
    for i, feature in enumerate(features):
        x = left + (i + 0.5) * step
        marks.append(line("rule", (x, top), (x, bottom)))
        turned = words(x + 4, top - 6, feature, font_size=12, transform=f"rotate(-60 {x + 4:g} {top - 6:g})")
        marks.append(tag("a", turned, href=f"#feature-{feature}", tabindex="-1"))
    return marks


def _dot(at: tuple[float, float], row: tuple[Any, ...], *, most: int, fdr: float) -> Markup:
    feature, _, label, overlap, size, q = row
    shade = "plain"
    if q is not None and q <= fdr:
        shade = f"s{1 + sum(q <= step for step in _STEPS[1:])}"
    told = f"feature {feature}: {number(overlap)} of {number(size)} genes, q {chance(q)}"
    radius = 2.2 + 7.0 * math.sqrt((overlap or 1) / most)
    return mark("circle", shade, hint(f"{told}: {plain(label)}"), cx=at[0], cy=at[1], r=radius)
