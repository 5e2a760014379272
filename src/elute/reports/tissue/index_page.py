"""The index: how many genes are predicted and beside what, and tables of genes and codes to search and to sort."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping

import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue import charts, wording
from elute.reports.tissue.code_rows import code_rows
from elute.reports.tissue.lists import Cell, Column, list_table
from elute.reports.tissue.markup import address, el, named, note, table
from elute.reports.tissue.reading import SPARSE, Findings
from elute.reports.tissue.verdicts import ABOVE, CONTROLS, MODELS, SHORT, TOLD, VERDICTS, Score, Verdict, two
from elute.reports.validation_svg import number

_VARIABLE = 50
_DOTS = 2_000
Scores = Mapping[str, dict[str, Score]]


def index_page(
    found: Findings, scores: Scores, verdicts: Mapping[str, Verdict], *, names: Mapping[str, str], told: str
) -> Markup:
    """Everything below the head of the page."""
    parts = [
        el("section", el("h1", "What image patterns predict"), _headline(found, scores, verdicts), class_="intro"),
        _summary(found, scores, names),
        _tools(),
        _genes(found, scores, verdicts, names),
        _codes(found, verdicts, names),
        wording.how_to_read_index(),
        note(told) if told else None,
        _notes(found),
    ]
    return join(part for part in parts if part is not None)


def _tools() -> Markup:
    """The search over both tables; hidden where no program runs."""
    field = {"autocomplete": "off", "spellcheck": "false", "placeholder": "gene, code, tissue or verdict"}
    search = el("input", id="search", type="search", **field)
    options = [el("option", "all", value=""), *(el("option", word) for word in VERDICTS)]
    return el(
        "form",
        el("label", "Search genes and codes ", el("kbd", "/"), search, class_="grow"),
        el("label", "Verdict ", el("select", *options, id="verdict")),
        el("p", id="count", role="status", aria_live="polite"),
        id="controls",
        role="search",
        hidden="",
    )


def _notes(found: Findings) -> Markup | None:
    """What the stage of heads has to say: controls that were not run, samples that judged, genes without a fit."""
    told = found.told("train_heads")
    lines = [str(line) for line in told["notes"]] if isinstance(told.get("notes"), list) else []
    for key, words in (
        ("without_targets", "samples have tiles and no targets"),
        ("without_tiles", "have targets and no tiles"),
        ("without_counts", "have a row of targets in which nothing was counted, and are left out"),
    ):
        if isinstance(told.get(key), int) and told[key]:
            lines.append(f"{number(told[key])} {words} (targets/missing.parquet)")
    if not lines:
        return None
    return el("section", el("h2", "Notes"), el("ul", *(el("li", named(line, 300)) for line in lines), class_="plain"))


def _headline(found: Findings, scores: Scores, verdicts: Mapping[str, Verdict]) -> Markup:
    """The count of what stands up to its controls, beside what chance gives."""
    counts = Counter(verdict.word for verdict in verdicts.values())
    lead = [el("b", f"{counts[ABOVE]} of {len(verdicts)} genes"), " are predicted better than by every control."]
    rest = [f"{counts[word]} {word}" for word in VERDICTS[1:] if counts[word]]
    if rest:
        lead.append(f" Of the others: {', '.join(rest)}.")
    chance = [mine["shuffled"] for mine in scores.values() if "shuffled" in mine and mine["shuffled"].low is not None]
    by_chance = sum(score.low is not None and score.low > 0 for score in chance)
    held = sum(
        mine[SPARSE].low is not None and (mine[SPARSE].low or 0) > 0 for mine in scores.values() if SPARSE in mine
    )
    beside = (
        f"{held} have an R² interval above 0; with shuffled patients {by_chance} of {len(chance)} have."
        if chance
        else f"{held} have an R² interval above 0; shuffled patients were not run, so that chance is not known."
    )
    facts = {
        "samples": number(len(found.samples)),
        "tiles": number(len(found.tiles)),
        "patients or sites": number(found.samples["group"].drop_nulls().n_unique()),
        "sections": number(found.samples["section"].drop_nulls().n_unique()),
        "genes": number(len(found.genes)),
        "codes with a page": number(len(found.codes)),
    }
    listed = el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in facts.items()), class_="facts")
    return join([el("p", *lead, class_="lead"), el("p", beside, class_="dim"), listed])


def _summary(found: Findings, scores: Scores, names: Mapping[str, str]) -> Markup:
    """Every model over the most variable genes, as the field reports it, and both scatter plots."""
    variable = _most_variable(scores)
    rows: list[list[object]] = []
    for name in MODELS:
        mine = [scores[gene][name] for gene in variable if name in scores[gene] and scores[gene][name].r2 is not None]
        what = el("span", MODELS[name], title=TOLD[name])
        if not mine:
            rows.append([what, *(el("span", "not run", class_="dim") for _ in range(4))])
            continue
        above = sum(score.low is not None and score.low > 0 for score in mine)
        rows.append(
            [what, *(_mean(mine, name) for name in ("pearson", "pearson_within", "r2")), f"{above} of {len(mine)}"]
        )
    heads = [("model", False), ("mean Pearson", True), ("within sections", True), ("mean R²", True)]
    heads.append(("R² interval above 0", True))
    told = f"The {len(variable)} most variable genes" if len(variable) < len(scores) else "All genes"
    label = f"{told}, on held-out patients"
    drawn = [chart for chart in _charts(scores, found, names) if chart]
    beside = el(
        "div",
        el("h2", "Beside its baselines"),
        note(f"{label}."),
        table(heads, rows, label=label, cards=False),
        note(wording.NOT_DEFINED) if any("not defined" in str(value) for row in rows for value in row) else None,
    )
    return el("section", beside, el("div", *drawn, class_="charts"), class_="summary")


def _most_variable(scores: Scores) -> list[str]:
    ranked = [(mine[SPARSE].row.get("variance_rank"), gene) for gene, mine in scores.items() if SPARSE in mine]
    known = sorted((rank, gene) for rank, gene in ranked if rank is not None)
    return [gene for _, gene in known[:_VARIABLE]] or [gene for _, gene in ranked]


def _mean(found: list[Score], column: str) -> object:
    known = [score.row[column] for score in found if score.row.get(column) is not None]
    return two(statistics.fmean(known)) if known else wording.not_defined(found[0].model)


def _charts(scores: Scores, found: Findings, names: Mapping[str, str]) -> list[Markup | None]:
    dense, held = [], []
    for gene in found.genes[:_DOTS]:
        mine = scores.get(gene, {})
        if SPARSE not in mine or (own := mine[SPARSE].r2) is None:
            continue
        page = address("genes", names[gene])
        other = mine.get("dense_pca_ridge")
        if other is not None and other.r2 is not None:
            dense.append((gene, page, other.r2, own))
        known = [score for name in CONTROLS if (score := mine.get(name)) is not None and score.r2 is not None]
        if known:
            held.append((gene, page, max(score.r2 or 0.0 for score in known), own))
    return [
        charts.against(held, name="controls", other="the best control", kind="observed"),
        charts.against(dense, name="dense", other="the dense embedding", kind="doubt"),
    ]


def _genes(found: Findings, scores: Scores, verdicts: Mapping[str, Verdict], names: Mapping[str, str]) -> Markup:
    ends = charts.span(
        each for mine in scores.values() for score in mine.values() for each in (score.r2, score.low, score.high)
    )
    top = _top_codes(found)
    columns = [
        Column("gene", "Gene", words=True),
        Column("verdict", "Verdict", words=True),
        Column("r2", "R², sparse codes"),
        Column("strip", "", sorts=False),
        *(Column(name, title) for name, title in SHORT.items()),
        Column("pearson", "Pearson"),
        Column("raises", "Raised by", sorts=False, words=True),
        Column("lowers", "Lowered by", sorts=False, words=True),
    ]
    rows = []
    for gene in found.genes:
        mine, verdict = scores.get(gene, {}), verdicts[gene]
        own = mine.get(SPARSE)
        link = el("a", named(gene, 32), href=address("genes", names[gene]))
        word = el("span", f"{verdict.mark} {verdict.word}", class_=f"verdict {wording.css(verdict.word)}")
        cells = [
            Cell(link, gene.lower()[:300]),
            Cell(word, VERDICTS.index(verdict.word)),
            Cell(own.written if own else "–", own.r2 if own else None),
            Cell(charts.strip(mine, ends), None),
            *(_score_cell(mine.get(name), own) for name in SHORT),
            _plain_cell(own.row.get("pearson") if own else None),
            Cell(_links(top.get((gene, "+"), [])), None),
            Cell(_links(top.get((gene, "-"), [])), None),
        ]
        rows.append((f"{gene[:300]} {verdict.word}", cells))
    parts = [el("h2", "Genes"), note("R² on held-out patients. * no lower than the sparse codes."), charts.key()]
    return el("section", *parts, list_table("genes", columns, rows, label="Genes"))


def _score_cell(score: Score | None, own: Score | None) -> Cell:
    """Another model's R²; marked where the sparse head is no better."""
    if score is None or score.r2 is None:
        return Cell(el("span", "not run", class_="dim"), None)
    worse = own is not None and own.r2 is not None and own.r2 <= score.r2
    star = el("sup", "*", title="no lower than the sparse codes") if worse else None
    return Cell(el("span", two(score.r2), star, class_="flag" if worse else None), score.r2)


def _plain_cell(value: float | None) -> Cell:
    return Cell("–" if value is None else two(value), value)


def _top_codes(found: Findings, most: int = 3) -> dict[tuple[str, str], list[int]]:
    """The strongest codes of each gene that have a page, of either sign."""
    tops: dict[tuple[str, str], list[int]] = {}
    mine = found.relevance.filter(pl.col("code").is_in(found.codes))
    for sign, column in (("+", "positive"), ("-", "negative")):
        ranked = mine.filter(pl.col(column).abs() > 0).sort(pl.col(column).abs(), "code", descending=[True, False])
        for gene, code in ranked.group_by("gene", maintain_order=True).head(most).select("gene", "code").iter_rows():
            tops.setdefault((gene, sign), []).append(code)
    return tops


def _links(codes: list[int]) -> Markup:
    return (
        join(el("a", str(code), href=address("codes", code)) for code in codes)
        if codes
        else el("span", "–", class_="dim")
    )


def _codes(found: Findings, verdicts: Mapping[str, Verdict], names: Mapping[str, str]) -> Markup:
    columns, rows = code_rows(found, verdicts, names)
    title = el("h2", "Codes")
    if not rows:
        told = "No code was explained. Type: elute tissue crp_relmax, with the run's --config."
        return el("section", title, note(told))
    said = note(f"The {len(rows)} codes that were explained for a gene, by how many genes they matter to.")
    return el("section", title, said, list_table("codes", columns, rows, label="Codes"))
