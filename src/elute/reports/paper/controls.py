"""How good a dictionary is: every number in words and pictures beside what it is held against."""

from __future__ import annotations

from elute.reports.paper import figures
from elute.reports.paper.blocks import Block, Group, Table, Text
from elute.reports.paper.facts import THOSE, Follow, RunFacts, SiteFacts
from elute.reports.paper.figures import Bar, Panel
from elute.reports.paper.words import called, listed, of, plural, share
from elute.reports.validation_records import NOT_RUN
from elute.reports.validation_svg import number, plain
from elute.reports.validation_tables import Site, Source

_CALLED = {
    "features": "features",
    THOSE: "features, on fewer cells",
    "permuted labels": "features, labels permuted",
    "neurons": "neurons of the model",
    "principal components": "principal components",
    "genes": "single genes, no model",
    "another seed": "features of another seed",
    "random weights": "random weights",
    "embedding layer": "embedding layer",
}
_TYPES = 12
_FEWER = ("random weights", "embedding layer")


def beside(run: RunFacts, site: SiteFacts) -> list[Block]:
    """Say and draw what a site’s dictionary is worth."""
    made: list[Block] = [*_shares(site), *_follow(run, site), *_across(site)]
    if site.validated is not None:
        made += _databases(site.validated, site)
    else:
        made.append(Text(f"Databases: {NOT_RUN}. No feature was held against terms of any kind."))
    return made


def _shares(site: SiteFacts) -> list[Block]:
    """What is explained, what is found again, what stands for one gene."""
    panels: list[Panel] = []
    told: list[str] = []
    if site.explained is not None:
        found, principal, on = site.explained
        bars = (
            Bar("dictionary", found, share(found), found=True),
            Bar("as many principal directions", principal, share(principal)),
        )
        panels.append(Panel(f"Variance explained on {on}", bars, 1.0))
        told.append(f"The dictionary explains {share(found)} of the variance on {on}; principal directions, as many as")
        told[-1] += f" features fire at once, {'were not run' if principal is None else 'explain ' + share(principal)}."
    again = next((each.again for each in site.follow if each.again), None)
    if again is not None:
        bars = (Bar("features", again[0], share(again[0]), found=True), Bar("by chance", again[1], share(again[1])))
        panels.append(Panel("Features found again when training starts elsewhere (cosine 0.7 or more)", bars, 1.0))
        told.append(f"Trained again from another start, {share(again[0])} of the features that fire are found again;")
        told[-1] += f" directions drawn at random: {share(again[1])}."
    single = [(each, each.single) for each in site.follow if each.single is not None]
    if single:
        named = tuple(Bar(_name(each), x, share(x), found=each.name == "features") for each, x in single)
        panels.append(
            Panel("Of features that are neither silent nor rare, those that stand for a single gene", named, 1.0)
        )
        if any(each.name == "random weights" for each, _ in single):
            told.append(
                "That features stand for single genes is what a model gives before it has learnt anything, too."
            )
    if not panels:
        return [Text(f"Variance explained: {NOT_RUN}. Stability over seeds: {NOT_RUN}.")]
    lost = [] if again is not None else [f"Stability over seeds: {NOT_RUN}."]
    return [Group((Text(" ".join([*told, *lost])), figures.bars(panels)))]


def _name(each: Follow) -> str:
    return _CALLED.get(each.name, each.name)


def _follow(run: RunFacts, site: SiteFacts) -> list[Block]:
    """Features that follow a cell type, beside all that they are held against."""
    if site.controls is None:
        return [Text(f"Features that follow a cell type, beside controls: {NOT_RUN}.")]
    mine = site.column("features")
    if mine is None or mine.count is None:
        return [
            Text(f"Features that follow a cell type, beside controls: {NOT_RUN} (no cell types, or too few cells).")
        ]
    at = "" if site.at is None else f" of {site.at:g} or more"
    told = "A feature follows a cell type if its mean over a cell tells cells of the type from all others with an"
    told += (
        f" AUROC{at} on the cells that chose, and again on {run.others}. {of(mine.count, mine.columns)} features do."
    )
    rows = tuple(_bar(each, fewer=elsewhere(site, each) or each.name == THOSE) for each in site.follow)
    title = "How many follow a cell type, of how many"
    picture = figures.bars([Panel(title, rows)])
    made: list[Block] = [Group((Text(f"{told} {_verdict(site, mine)}"), picture))]
    notes = [_how(site)] if _how(site) else []
    return [*made, *(Text(note, small=True) for note in notes), *_by_type(site)]


def _bar(each: Follow, *, fewer: bool) -> Bar:
    if each.why:
        return Bar(_name(each), None, f"{NOT_RUN}: {each.why}")
    if each.count is None:
        return Bar(_name(each), None, f"{NOT_RUN}: too few cells of any type")
    most = f", at most {number(each.most)}" if each.most is not None else ""
    cells = f", on {number(each.cells)} cells" if each.cells is not None and fewer else ""
    mine = each.name in ("features", THOSE)
    return Bar(_name(each), each.count, f"{of(each.count, each.columns)}{most}{cells}", found=mine, most=each.most)


def elsewhere(site: SiteFacts, each: Follow) -> bool:
    """Whether something was counted on fewer cells than the run’s own features."""
    return each.name in _FEWER and site.column(THOSE) is not None


def _verdict(site: SiteFacts, mine: Follow) -> str:
    """Which controls follow types by as large a share; on the cells on which each was counted."""
    held: list[str] = []
    compared = 0
    for each in site.follow:
        base = site.column(THOSE) if elsewhere(site, each) else mine
        if each.name in ("features", THOSE, "another seed") or base is None:
            continue
        shares = [None if x.count is None or not x.columns else x.count / x.columns for x in (each, base)]
        if shares[0] is None or shares[1] is None:
            continue
        compared += 1
        if shares[0] >= shares[1] and (each.count or 0) > 0:
            held.append(f"{_name(each)} ({share(shares[0])})")
    if not compared:
        return "There is nothing to hold that against."
    if held:
        return f"As large a share or a larger one do of {listed(held)}: for cell types these need no dictionary."
    return "Of all that they are held against a smaller share does."


def _how(site: SiteFacts) -> str:
    told = []
    if any(each.both_signs for each in site.follow):
        told.append(
            "Neurons and principal components count in either direction, features and genes where they are high."
        )
    if site.controls == "standard":
        told.append("Other dictionaries were trained for a fifth of the steps.")
    if site.column(THOSE) is not None:
        told.append(
            "Random weights and the embedding layer were read on fewer cells, on which the run’s own features are"
        )
        told[-1] += " counted once more."
    dealt = site.column("permuted labels")
    if dealt is not None and dealt.count is not None:
        told.append("Labels were dealt out anew twenty times: the bar is the median, the line goes to the most.")
    return " ".join(told)


def _by_type(site: SiteFacts) -> list[Block]:
    """Each cell type, and how many follow it."""
    left = (THOSE, "another seed")
    shown = [each for each in site.follow if each.by_type and each.name not in left and not elsewhere(site, each)]
    mine = site.column("features")
    if mine is None or not shown:
        return []
    types = sorted(mine.by_type, key=lambda name: (-mine.by_type[name], name))
    rows = [
        (called(name, 40)[1:-1], *(number(each.by_type[name]) if name in each.by_type else "–" for each in shown))
        for name in types[:_TYPES]
    ]
    more = f" {len(types) - _TYPES:,} further types are left out." if len(types) > _TYPES else ""
    caption = f"How many follow each cell type; one may follow several.{more}"
    heads = ("Cell type", *(_name(each) for each in shown))
    return [Table(heads, tuple(rows), (1.7, *(1.0 for _ in shown)), caption)] if rows else []


def _across(site: SiteFacts) -> list[Block]:
    told = []
    for each in site.across:
        if each.why:
            told.append(f"{called(each.column)} across donors: {NOT_RUN} ({each.why}).")
            continue
        null = "each donor has one level alone, so there is no null"
        if each.permuted:
            mean = sum(each.permuted) / len(each.permuted)
            null = f"with its levels dealt out anew {number(mean)} on average, {number(max(each.permuted))} at most of"
            null += f" {len(each.permuted)} times"
        found = plural(each.features or 0, "feature differs", "features differ")
        told.append(
            f"{found} by {called(each.column)} across {plural(each.donors or 0, 'donor')} at q ≤ {site.fdr:g}; {null}."
        )
    if not told and site.controls is not None:
        told.append(f"Differences across donors: {NOT_RUN} (no donors are given).")
    return [Text(" ".join(told))] if told else []


def _databases(held: Site, site: SiteFacts) -> list[Block]:
    ran = [source for source in held.sources if source.run]
    if not ran:
        return [
            Text(
                f"Databases: {NOT_RUN}. None that was asked for is on this machine, or none has terms for these genes."
            )
        ]
    top = f"its {held.top_n_genes} most specific genes" if held.top_n_genes else "its genes"
    told = f"A feature has a term of a database if {top} share more with it than like genes would, at q ≤ {held.fdr:g}"
    told += " over all features and terms. A count alone says little: beside each stand a plain test, which takes"
    told += (
        " well-known genes for a finding, matched lists of like genes, cells dealt out anew, and the same model with"
    )
    told += " random weights."
    rows = tuple(_row(source) for source in ran)
    heads = ("Database", "Features with a term", "Plain test", "Matched lists", "Permuted cells", "Random weights",
             "Embedding layer", f"Again on {held.others}")  # fmt: skip
    title = f"Features with a term at q ≤ {held.fdr:g}, of {number(site.features)}, and what they are held against"
    table = Table(heads, rows, (1.75, 1.05, 0.8, 1.15, 0.95, 0.95, 1.05, 1.1), f"{title}.")
    said = "; ".join(f"{row[0]} {row[1]}, {heads[3].lower()} {row[3]}" for row in rows)
    picture = figures.databases(held, f"{title}: {said}")
    made: list[Block] = [Group((Text(told), picture)), table]
    if flags := list(_flags(held, ran)):
        made.append(Text(" ".join(flags)))
    return made


def _row(source: Source) -> tuple[str, ...]:
    held, null = source.counts, source.null
    matched = NOT_RUN if null is None or null.mean is None else number(null.mean)
    if null is not None and null.low is not None and null.high is not None:
        matched += f" ({number(null.low)}–{number(null.high)})"
    known = [source.controls.get(name, (None, None, ""))[0] for name in ("permuted cells", *_FEWER)]
    again = NOT_RUN if held["again"] is None else f"{number(held['again'])} of {number(held['significant'])}"
    name = called(source.snapshot or source.title, 60)[1:-1]
    return (name, number(held["significant"]), number(held["plain"]), matched, *(number(n) for n in known), again)


def _flags(held: Site, ran: list[Source]) -> list[str]:
    """What the counts do not say by themselves."""
    told = []
    if few := [plain(source.title) for source in ran if source.beyond_null is False]:
        told.append(f"No more than matched lists give by chance: {listed(few)}.")
    beside = [_name_of(source) for source in ran if _is_matched(source)]
    if beside:
        told.append(
            f"Where a model with random weights has a third as many or more ({listed(beside)}), a term speaks for"
        )
        told[-1] += " the genes and cells that were read, and not for what the model learnt."
    names = {source.name for source in ran}
    for group in held.kin:
        titles = held.titles([name for name in group if name in names])
        if len(titles) > 1:
            told.append(f"{listed(titles)} take over one another’s rows: that they agree is one witness.")
    return told


def _name_of(source: Source) -> str:
    return plain(source.title)


def _is_matched(source: Source) -> bool:
    value, found = source.controls.get("random weights", (None, None, ""))[0], source.counts["significant"]
    return value is not None and bool(found) and value * 3 >= (found or 0)
