"""A gene's page: how well it is predicted and beside what, which codes raise and lower it, where in the sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue import charts, wording
from elute.reports.tissue.gallery import Gallery, references
from elute.reports.tissue.markup import Head, address, el, named, note, table
from elute.reports.tissue.reading import SPARSE, Findings
from elute.reports.tissue.removal import removal
from elute.reports.tissue.section_maps import Panel, about_zero, scale_of
from elute.reports.tissue.settings import TissueReportConfig
from elute.reports.tissue.tiles_shown import signed_codes
from elute.reports.tissue.verdicts import MODELS, TOLD, Score, Verdict, two
from elute.reports.validation_svg import number

_IN_TABLE = 15  # codes of either sign


@dataclass(frozen=True, eq=False)
class Gene:
    """What is known of a gene besides its tables."""

    name: str
    scores: Mapping[str, Score]
    verdict: Verdict
    with_maps: bool


def gene_page(found: Findings, gallery: Gallery, gene: Gene, *, config: TissueReportConfig) -> Markup:
    """Everything below the head of the page."""
    sections = [
        _head(gene),
        _scores(found, gene),
        _codes(found, gallery, gene.name, config),
        removal(found, gene.name),
        _coefficients(found, gene.name),
        _maps(found, gallery, gene, config),
        wording.how_to_read_gene(),
    ]
    return join(section for section in sections if section)


def _head(gene: Gene) -> Markup:
    verdict = gene.verdict
    word = el("span", f"{verdict.mark} {verdict.word}", class_=f"verdict {wording.css(verdict.word)}")
    lines = [el("p", word, " ", verdict.sentence, class_="lead")]
    if verdict.beside:
        lines.append(el("p", verdict.beside, class_="dim"))
    return el("section", el("h1", named(gene.name, 80)), *lines, class_="intro")


def _scores(found: Findings, gene: Gene) -> Markup:
    """Every model's scores with their intervals on one axis, and what was measured over what was predicted."""
    ends = charts.span(each for score in gene.scores.values() for each in (score.r2, score.low, score.high))
    heads: list[Head] = [
        *(("model", False), (charts.axis(ends), False), ("R² (interval)", True), ("Spearman", True), ("Pearson", True)),
        *(("within sections", True), ("deviance explained", True), ("calibration slope", True)),
    ]
    rows: list[list[object]] = []
    for name in MODELS:
        score = gene.scores.get(name)
        what = join([el("span", MODELS[name], title=TOLD[name]), *_fewer(score, gene.scores.get(SPARSE))])
        if score is None:
            rows.append([what, "", *(el("span", "not run", class_="dim") for _ in heads[2:])])
            continue
        numbers = ("spearman", "pearson", "pearson_within", "deviance_explained", "calibration_slope")
        told = [_number(None if (name, key) == ("mean", numbers[-1]) else score.row.get(key), name) for key in numbers]
        rows.append([what, charts.interval(score, ends), score.written, *told])
    title = el("h2", "How well it is predicted")
    beside = [table(heads, rows, label="Scores on held-out patients, beside baselines", cards=False)]
    if any("not defined" in str(value) for row in rows for value in row):
        beside.append(note(wording.NOT_DEFINED))
    values = found.predictions.of(gene.name)
    drawn = None
    if not values.is_empty():
        drawn = charts.density(values["measured"].to_numpy(), values["predicted"].to_numpy(), found.unit)
    return el("section", title, el("div", el("div", *beside), drawn, class_="summary two"))


def _fewer(score: Score | None, own: Score | None) -> list[Markup]:
    """Where a control was run on fewer samples, or an interval is over samples: said below its name."""
    if score is None:
        return []
    told = []
    if own is not None and score.row.get("n") != own.row.get("n"):
        told.append(f"on {number(score.row.get('n'))} of {number(own.row.get('n'))} samples")
    if score.model == SPARSE and score.row.get("interval") == "samples":
        told.append("interval over samples: too few patients")
    return [el("span", "; ".join(told), class_="below")] if told else []


def _number(value: object, model: str) -> object:
    return two(float(value)) if isinstance(value, int | float) else wording.not_defined(model)


def _codes(found: Findings, gallery: Gallery, gene: str, config: TissueReportConfig) -> Markup:
    """Codes with their tiles: those that raise the prediction, then those that lower it."""
    relevance = found.relevance.filter(pl.col("gene") == gene)
    if relevance.is_empty():
        told = note("Its codes were not explained. Type: elute tissue crp_relmax --gene, with its name.")
        return el("section", el("h2", "What predicts it"), told)
    seen = any(key[0] == gene for key in gallery.pixels.drawn)
    parts: list[object] = [el("h2", "What predicts it"), wording.tile_tools(pixels=seen)]
    parts.append(wording.conserved(found, gene))
    if seen:
        parts.append(note(wording.PIXELS))
    if said := wording.linear(found, gene):
        parts.append(said)
    if gallery.album.told:
        parts.append(note(gallery.album.told))
    for sign, title in (("+", "Codes that raise the prediction"), ("-", "Codes that lower it")):
        chosen = signed_codes(found, gene, sign, most=config.codes_per_gene)
        parts.append(el("h3", title))
        if not chosen:
            parts.append(note("None of those that were explained."))
        parts += [_code(found, gallery, gene, code=code, sign=sign) for code in chosen]
    return el("section", *parts, class_="codes")


def _code(found: Findings, gallery: Gallery, gene: str, *, code: int, sign: str) -> Markup:
    """A code's line: what it weighs, what its tiles are of, and the tiles."""
    row = found.relevance.filter((pl.col("gene") == gene) & (pl.col("code") == code)).row(0, named=True)
    weights = found.coefficients.filter((pl.col("gene") == gene) & (pl.col("code") == code))
    refs = references(found.refs, gene=gene, code=code, kind="relmax", target="sum", sign=sign)
    facts = [el("span", wording.relevance_share(row, " of the relevance"), class_="chip")]
    if not weights.is_empty():
        facts.append(el("span", wording.coefficient(weights.row(0, named=True)), class_="chip"))
    if row["samples"] is not None:
        facts.append(el("span", f"in {number(row['samples'])} samples", class_="chip"))
    title = el("h4", el("a", f"Code {code}", href=f"../{address('codes', code)}"))
    what = f"Tiles in which code {code} {'raises' if sign == '+' else 'lowers'} the prediction most"
    shown = [gallery.tissue(refs, most=gallery.album.per_code), gallery.strip(refs, gene=gene, label=what)]
    return el("article", el("div", title, *facts, class_="code-head"), *shown, class_="code")


def _coefficients(found: Findings, gene: str) -> Markup:
    """Coefficients with intervals and stability, the strongest of either sign."""
    mine = found.coefficients.filter(pl.col("gene") == gene)
    if mine.is_empty():
        return el("section", el("h2", "Coefficients"), note("None are recorded for this gene, or all are 0."))
    with_page = set(found.codes)
    joined = mine.join(
        found.relevance.filter(pl.col("gene") == gene).select(
            "code", "share", "mean_absolute", "control_mean_absolute"
        ),
        on="code",
        how="left",
    ).sort("rank", "code")
    parts: list[object] = [el("h2", "Coefficients"), note(wording.COEFFICIENTS)]
    known = [
        abs(value)
        for value in (*joined["low"].to_list(), *joined["high"].to_list(), *joined["coefficient"].to_list())
        if value is not None and np.isfinite(value)
    ]
    most = float(np.quantile(known, 0.95)) if known else 1.0
    sides: list[Markup] = []
    for positive, title in ((True, "positive"), (False, "negative")):
        some = joined.filter(pl.col("coefficient") > 0 if positive else pl.col("coefficient") < 0)
        rows = [_coefficient_row(row, most, with_page) for row in some.head(_IN_TABLE).iter_rows(named=True)]
        if not rows:
            sides.append(el("div", el("h3", title.capitalize()), note(f"No {title} coefficient.")))
            continue
        heads = [("code", False), ("coefficient", True), ("interval", True), ("", False)]
        heads += [("folds of its sign", True), ("relevance (a code as active)", True)]
        label = f"Codes with the strongest {title} coefficients"
        sides.append(el("div", el("h3", title.capitalize()), table(heads, rows, label=label)))
    return el("section", *parts, el("div", *sides, class_="sides"))


def _coefficient_row(row: dict[str, Any], most: float, with_page: set[int]) -> list[object]:
    code = int(row["code"])
    link = el("a", str(code), href=f"../{address('codes', code)}") if code in with_page else str(code)
    low, high = row["low"], row["high"]
    ends = "–" if low is None or high is None else f"{wording.amount(low)} to {wording.amount(high)}"
    drawn = charts.whisker(row["coefficient"], low, high, most=most)
    return [
        link,
        wording.amount(row["coefficient"]),
        ends,
        drawn,
        wording.share(row["stability"]),
        wording.relevance_share(row),
    ]


def _maps(found: Findings, gallery: Gallery, gene: Gene, config: TissueReportConfig) -> Markup:
    """Measured, predicted and residual over the sections, and what each section's numbers are."""
    title = el("h2", "Where in the sections")
    values = found.predictions.of(gene.name)
    if values.is_empty():
        return el("section", title, note("No predictions are recorded for this gene."))
    sections = gallery.sections
    held = sections.values(values, "measured", "predicted")
    both = np.concatenate(list(held.values()))
    if not np.isfinite(both).any():
        return el("section", title, note("No maps: the places of the samples in a section are not known."))
    residual = about_zero(held["measured"] - held["predicted"], "measured − predicted")
    scales = {"value": scale_of(both, found.unit), "residual": residual}
    panels = [
        Panel("measured", "measured", "value"),
        Panel("predicted", "predicted", "value"),
        Panel("residual", "measured", "residual", minus="predicted"),
    ]
    parts: list[object] = [title, note(wording.MAPS)]
    if gene.with_maps:
        drawn, left = sections.draw(held, panels, scales, most=config.spots_per_page)
        parts.append(drawn)
        if left:
            parts.append(
                note(f"Not drawn, to keep the page small ({len(left)}): ", ", ".join(map(wording.short, left[:20])))
            )
    else:
        parts.append(note("Maps are left out to keep to the size that was asked for (size_budget_mb)."))
    return el("section", *parts, _by_section(sections.frame.with_columns(**{k: pl.Series(v) for k, v in held.items()})))


def _by_section(frame: pl.DataFrame) -> Markup:
    rows = []
    for (name,), part in frame.sort("section").group_by("section", maintain_order=True):
        measured, predicted = part["measured"].to_numpy(), part["predicted"].to_numpy()
        there = np.isfinite(measured) & np.isfinite(predicted)
        if not there.any():
            continue
        m, p = measured[there], predicted[there]
        moves = m.size > 2 and np.ptp(m) > 0 and np.ptp(p) > 0
        pearson = number(float(np.corrcoef(m, p)[0, 1]), 2) if moves else "–"
        error = number(float(np.sqrt(np.mean((m - p) ** 2))), 2) if m.size else "–"
        group = part["group"].drop_nulls()
        means = [number(float(each.mean()), 2) if each.size else "–" for each in (m, p)]
        rows.append(
            [
                named(name, 40),
                named(group[0], 40) if len(group) else "–",
                number(int(there.sum())),
                *means,
                pearson,
                error,
            ]
        )
    heads = [("section", False), ("patient or site", False), ("samples", True), ("mean measured", True)]
    heads += [("mean predicted", True), ("Pearson", True), ("error (root mean square)", True)]
    return table(heads, rows, label="Measured and predicted, by section")
