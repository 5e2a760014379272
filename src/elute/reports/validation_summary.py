"""The part of a report that needs no program: what each database says of all features, beside its null and controls.

It is HTML that was written here, so it is read where scripts are off, and printed. No number stands without what it is
held against; what was not run says so, why, and what to type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from elute.base.errors import EluteError
from elute.reports.html import Markup, join, tag
from elute.reports.validation_records import NOT_RUN
from elute.reports.validation_svg import Drawing, cut, number
from elute.reports.validation_tables import Site, Source


def headline(source: Source, site: Site) -> str:
    """What was found in a database, in one sentence, with everything that it is held against."""
    if not source.run:
        return f"{source.snapshot}: {NOT_RUN}" + (f" ({source.why})" if source.why else "")
    held, what = source.counts, "genes that interact" if source.is_network else "a term"
    found = f"{number(held['significant'])} of {number(held['features'])} features have {what}"
    parts = [f"{source.snapshot}: {found} at q ≤ {site.fdr:g}"]
    if source.is_network and source.null is None:
        parts[0] += " beyond lists of the same degrees"
    else:
        kind = source.null.kind if source.null else "matched lists"
        parts += [f"{kind} {_null(source)}", f"excess {_excess(source)}"]
    parts.append(f"again on {site.others} {_again(source)}")
    parts += [f"{name} {_control(part)}" for name, part in source.controls.items()] or [f"controls {NOT_RUN}"]
    return "; ".join(parts)


def summary(site: Site, drawings: Mapping[str, Sequence[Drawing]]) -> Markup:
    """All of the page above the features."""
    ran = [source for source in site.sources if source.run]
    absent = [source for source in site.sources if not source.run]
    reading = [tag("h2", "How to read this"), *_reading(site)]
    beside = [tag("h2", "Not run"), _absent(absent), *reading] if absent else reading
    notes = [tag("p", note, class_="note") for note in site.notes]
    drawn = [tag("h2", "Counts beside what chance gives"), *(figure(drawing) for drawing in drawings.get("", ()))]
    both = tag("div", tag("div", *drawn), tag("div", *beside), class_="pair")
    parts: list[object] = [_table(site, ran), *_witnesses(site), *notes, both]
    parts.extend(_section(site, source, drawings.get(source.name, ())) for source in ran)
    return join(parts)


def figure(drawing: Drawing) -> Markup:
    """A chart in the page, with what saves it."""
    buttons = []
    for kind in ("svg", "png"):
        told = {"data-save": kind, "aria-label": f"Save as {kind.upper()}: {drawing.title}"}
        buttons.append(tag("button", kind.upper(), type="button", **told))
    wide = " broad" if drawing.width > 600 else ""
    inner = tag("div", drawing.svg(), class_="wide", tabindex="0", role="group", **{"aria-label": drawing.title})
    foot = tag("figcaption", tag("span", drawing.title), tag("span", *buttons, class_="save"))
    return tag("figure", inner, foot, class_=f"chart{wide}", **{"data-name": drawing.name})


def anchor(source: Source) -> str:
    """Where a database's section stands in the page."""
    return "source-" + re.sub(r"[^A-Za-z0-9-]+", "-", source.name)


def _null(source: Source) -> str:
    null = source.null
    if null is None or null.mean is None:
        return "in the test itself" if source.is_network else NOT_RUN
    span = "" if null.low is None or null.high is None else f" ({number(null.low)}–{number(null.high)})"
    return f"{number(null.mean)}{span}"


def _excess(source: Source) -> str:
    value, low, high = (source.counts[key] for key in ("excess", "excess_low", "excess_high"))
    if value is None:
        return "–" if source.is_network and source.null is None else NOT_RUN
    to = " to " if low is not None and low < 0 else "–"  # a dash beside a minus cannot be read
    return number(value) + ("" if low is None or high is None else f" ({number(low)}{to}{number(high)})")


def _again(source: Source) -> str:
    again, found = source.counts["again"], source.counts["significant"]
    return NOT_RUN if again is None else f"{number(again)} of {number(found)}"


def _control(part: tuple[float | None, float | None, str]) -> str:
    value, of, why = part
    return why if value is None else f"{number(value)}" + ("" if of is None else f" of {number(of)}")


def _table(site: Site, ran: Sequence[Source]) -> Markup:
    """One line a database: the count, and to its right what it is held against."""
    if not ran:
        return tag("p", "No database was run: nothing here can be said of any feature.", class_="alarm")
    controls = list(dict.fromkeys(name for source in ran for name in source.controls))
    counts = (f"Features at q ≤ {site.fdr:g}", "By a plain test", "Matched lists", "Excess")
    heads = ["Database", *counts, f"Again on {site.others}", *(controls or ["Controls"])]
    heads = [head[:1].upper() + head[1:] for head in heads]
    rows = []
    for source in ran:
        found = f"{number(source.counts['significant'])} of {number(source.counts['features'])}"
        excess: list[object] = [_excess(source)]
        if source.beyond_null is False:
            excess.append(tag("span", "no more than chance gives", class_="flag"))
        held = [_control(source.controls.get(name, (None, None, NOT_RUN))) for name in controls] or [NOT_RUN]
        name = tag("a", source.snapshot, href=f"#{anchor(source)}")
        plain = source.counts["plain"]
        called = "–" if plain is None else number(plain)
        rows.append([name, tag("strong", found), called, _null(source), join(excess), _again(source), *held])
    head = tag("tr", *(tag("th", cut(text, 400), scope="col") for text in heads))
    body = []
    for row in rows:
        cells = [tag("td", value, **{"data-label": heads[i]}) for i, value in enumerate(row) if i]
        body.append(tag("tr", tag("th", row[0], scope="row"), *cells))
    caption = tag("caption", "Features with a term, by database, beside what they are held against")
    return tag("div", tag("table", caption, tag("thead", head), tag("tbody", *body), class_="cards"), class_="wide")


def _witnesses(site: Site) -> Iterable[Markup]:
    """Databases that take over one another's rows are one witness."""
    ran = {source.name for source in site.sources if source.run}
    for group in site.kin:
        titles = site.titles([name for name in group if name in ran])
        if len(titles) > 1:
            names = f"{', '.join(titles[:-1])} and {titles[-1]}"
            told = f"{names} take over one another’s rows: that they agree is one witness, not {len(titles)}."
            yield tag("p", told, class_="witness")


def _absent(sources: Sequence[Source]) -> Markup:
    """What did not run, why, and what to type."""
    entries = []
    for source in sources:
        typed = remedy(source)
        told = [source.why or "no reason was kept", *([". Type: ", tag("code", typed)] if typed else [])]
        entries.append(tag("div", tag("dt", source.title), tag("dd", *told)))
    return tag("dl", *entries, class_="absent")


def remedy(source: Source) -> str:
    """What to type so that a database runs the next time; nothing where its reason says so already."""
    from elute.validation import library

    if "elute " in source.why:
        return ""
    try:
        return library.not_there(library.database(source.name)).removeprefix("not installed: ")
    except EluteError:
        return ""


def _reading(site: Site) -> list[Markup]:
    top = f"its {site.top_n_genes} most specific genes" if site.top_n_genes else "its genes"
    counted = (
        f"A feature is asked for with {top}. With each term it is tested twice: against any genes, and among like"
        " genes, alike in expression, detection and number of annotations. The larger p counts. A feature"
        f" counts for a database when a term there has q ≤ {site.fdr:g}: the share of false finds, over all features ×"
        " all terms of the database, counted in full before any was left out."
    )
    without = (
        "By a plain test: how many features would count if the test against any genes were all. It takes a liking for"
        " well-known or highly expressed genes for a finding: what it counts more cannot be told from like genes."
    )
    beside = (
        "A count says little alone. Matched lists are random lists of like genes, taken through the same tests; the"
        " excess is what the features have beyond them, with its interval."
    )
    again = f"Again on {site.others}: the genes were chosen anew on cells that had no part in it, and a term held."
    absent = f"“{NOT_RUN.capitalize()}” is what was not computed. It does not mean that nothing was found."
    texts = (counted, without, beside, again, absent)
    return [tag("p", text, class_="note") for text in texts]


def _family(source: Source) -> str:
    """All tests that were corrected together, counted before any filter."""
    tests, features, terms = (source.counts[key] for key in ("tests", "features", "terms"))
    if tests is None:
        return NOT_RUN
    if source.is_network:
        return f"{number(tests)} lists, corrected together"
    made = f"{number(features)} features × {number(terms)} terms = " if (features or 0) * (terms or 0) == tests else ""
    return f"{made}{number(tests)} tests, corrected together"


def _section(site: Site, source: Source, drawings: Sequence[Drawing]) -> Markup:
    """All that is known of one database's tests."""
    null = source.null
    drawn = f", {number(null.draws)} draws a feature" if null and null.draws is not None else ""
    without = "lists of the same degrees" if source.is_network else NOT_RUN
    facts = [
        ("Background", source.background or NOT_RUN),
        ("Family of tests", _family(source)),
        ("Null", f"{null.kind}{drawn}" if null else without),
        *([("Evidence", source.evidence)] if source.evidence else []),
        *source.further,
        ("Taken", source.taken or "not recorded"),
        ("Licence", source.licence or "not recorded"),
    ]
    listed = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]
    notes = [tag("p", note, class_="note") for note in source.notes]
    charts: list[Markup] = [figure(drawing) for drawing in drawings]
    if source.rows is None and not source.is_network:
        told = f"Its table validation/{source.name}.parquet is not here, so its terms cannot be shown."
        charts = [tag("p", told, class_="alarm")]
    elif len(charts) < 2 and not source.is_network:
        told = f"No term has q ≤ {site.fdr:g}: there is nothing to draw of terms and features."
        charts.append(tag("p", told, class_="note"))
    title = tag("h2", source.snapshot)
    said = tag("p", headline(source, site) + ".", class_="headline")
    body = [title, said, tag("dl", *listed, class_="facts"), *notes, tag("div", *charts, class_="charts")]
    return tag("section", *body, id=anchor(source))
