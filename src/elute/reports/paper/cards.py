"""The best-supported features in words: what each is called, why, and what it was held against."""

from __future__ import annotations

import re

from elute.reports.paper import figures
from elute.reports.paper.blocks import Block, Group, Heading, Text
from elute.reports.paper.chosen import SURE, Choice, Chosen, proportion
from elute.reports.paper.facts import RunFacts, SiteFacts
from elute.reports.paper.words import called, chance, listed, plural, power, share, sure
from elute.reports.validation_svg import number, plain

_AGAIN = 0.7  # cosine at which a feature counts as found again
_ORDER = {
    "names": "Those whose name is more likely right than wrong come first, and of these those that say more than one"
    " gene. Features that the same term or cell type names come once.",
    "cell types": "No feature has a name, since the run was not held against databases: they are in the order of how"
    " sharply they tell a cell type from all other cells.",
    "genes": "No feature has a name and no cell types are known: they are in the order of how closely"
    " the first gene follows.",
}


def cards(run: RunFacts, site: SiteFacts, choice: Choice) -> list[Block]:
    """Describe the chosen features, one after the other."""
    if not choice.features:
        return [Text("No feature fires: there is nothing to show.")]
    made: list[Block] = [Text(_ORDER[choice.order]), Text(_legend(run, choice), small=True)]
    for i, chosen in enumerate(choice.features, 1):
        made.append(_card(run, site, chosen, i))
    return made


def _legend(run: RunFacts, choice: Choice) -> str:
    told = "In the pictures a bar is of the cells that chose, and a circle that is not filled of the"
    told += (
        f" {run.others}. z says how far a gene’s expression goes with the feature beyond independence. AUROC is 0.50 by"
    )
    told += " chance. Means of fewer than three cells are left out."
    activities = [each.activity for each in choice.features if each.activity is not None]
    if any(activity.by_donor for activity in activities):
        told += " Each point at a cell type is one donor’s mean: filled, its cells that chose; not filled, its held-out"
        told += " ones."
    elif activities:
        told += " No donors are known, so there is one circle a cell type: the mean of its held-out cells."
    return told


def _card(run: RunFacts, site: SiteFacts, chosen: Chosen, place: int) -> Group:
    aside = ""
    if chosen.confidence is not None:
        aside = f"confidence {sure(chosen.confidence)}" + ("" if chosen.confidence > SURE else ", a guess")
    parts: list[Heading | Text] = [Heading(f"{place}. {chosen.name}", 3, aside)]
    by_cells = chosen.row.get("name_source") == "cells" and chosen.reason  # which says all of its cell type
    said = (_why(chosen), _term(site, chosen), "" if by_cells else _type(run, site, chosen))
    parts.append(Text(" ".join(part for part in said if part), dense=True))
    parts.append(Text(_facts(chosen), small=True))
    return Group((*parts, figures.feature(chosen)))


def _facts(chosen: Chosen) -> str:
    """What it is, and how often it fires."""
    told = [f"Feature {chosen.feature}"]
    if kind := chosen.row.get("kind"):
        told.append(plain(kind))
    often, cells = chosen.value("frequency"), chosen.value("cell_frequency")
    if often is not None:
        told.append(f"fires in {share(often)} of rows" + ("" if cells is None else f" and {share(cells)} of cells"))
    stability = chosen.value("stability")
    told.append(
        "stability not run"
        if stability is None
        else f"by another seed {'' if stability >= _AGAIN else 'not '}found again (cosine {stability:.2f})"
    )
    if chosen.alike:
        numbers = listed([str(n) for n in chosen.alike], 6)
        several = len(chosen.alike) > 1
        told.append(f"features {numbers} have the same name" if several else f"feature {numbers} has the same name")
    return "; ".join(told) + "."


def _why(chosen: Chosen) -> str:
    """The reason of its name, with the term and where it is from."""
    if not chosen.reason:
        return ""
    term = chosen.term
    if chosen.row.get("name_term") and term is not None:
        q = term.numbers.get("q_plain")
        beside = "" if q is None else f" A plain test, against any genes alone, says q {chance(q)}."
        return f"{plain(term.database)}: {called(term.label)}. {_reason(chosen)}{beside}"
    return _reason(chosen)


def _reason(chosen: Chosen) -> str:
    """The reason as it was written, but for its small numbers."""
    return re.sub(r"(?<=[qp] )[\d.]+e-\d+", lambda found: power(found[0]), chosen.reason)


def _term(site: SiteFacts, chosen: Chosen) -> str:
    """The best term of a feature that no term names."""
    if site.validated is None:
        return "No database was asked."
    if chosen.row.get("name_term") and chosen.reason:
        return ""
    term = chosen.term
    if term is None:
        return "No term of any database shares its genes by more than chance (p ≤ 0.05)."
    held = term.numbers
    told = f"Its best term is {called(term.label)} ({plain(term.database)}): {number(held.get('overlap'))} of its"
    told += (
        f" {number(held.get('list_size'))} genes, {number(held.get('expected'))} expected; q {chance(held.get('q'))},"
    )
    told += f" by a plain test {chance(held.get('q_plain'))}; among like genes p {chance(held.get('null_p'))}"
    again = held.get("q_shown")
    q = held.get("q")
    if q is None or q > site.fdr:
        return f"{told}. That is no find."
    return f"{told}; again by the genes that other cells choose, q {chance(again)}."


def _type(run: RunFacts, site: SiteFacts, chosen: Chosen) -> str:
    """The cell type that it follows best, on both sets of cells and across donors."""
    name, auroc = chosen.row.get("cell_type"), proportion(chosen.row.get("auroc"))
    if name is None or auroc is None:
        return "No cell type was tested." if not run.labelled else "No cell type could be tested with it."
    told = f"Of cell types it follows {called(name)} best: AUROC {auroc:.2f} on the cells that chose"
    shown, q = proportion(chosen.row.get("auroc_shown")), chosen.value("q_shown")
    if shown is None:
        told += ", and not run on others (none, or too few)"
    else:
        told += f", {shown:.2f} on {run.others}" + ("" if q is None else f" (q {chance(q)})")
    donors, across = chosen.value("cell_type_donors"), chosen.value("q_donors")
    if across is None:
        return f"{told}; across donors not run."
    held = "" if across <= site.fdr else ", so it does not hold across them"
    return f"{told}; across {plural(donors or 0, 'donor')} q {chance(across)}{held}."
