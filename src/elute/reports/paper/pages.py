"""The report itself, in the order in which it is read: in short, what was trained, how good it is, features, gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from elute.reports.paper import cards, controls, gaps
from elute.reports.paper.blocks import Block, Bullets, Heading, Text
from elute.reports.paper.chosen import Choice
from elute.reports.paper.facts import CHOOSING, SHOWING, RunFacts, SiteFacts
from elute.reports.paper.words import called, listed, of, plural, share
from elute.reports.validation_svg import number

_BESIDE = (
    ("genes", "single genes"),
    ("neurons", "neurons"),
    ("random weights", "features of a model with random weights"),
)
_READING = """
A feature is a direction in what the model computes; a sparse dictionary finds many, of which few fire at once. A row is
one gene of one cell, or one cell. A feature that another seed finds again has one there with a cosine of 0.70 or more.

AUROC is the chance that a cell of the type has more of the feature than a cell of another: 0.50 is by chance, and 1.00
tells every such pair apart.

q is the share of false finds to be expected among all that have so low a q.

Matched lists are random lists of like genes (in expression, detection and number of annotations), taken through the
same tests: what they find is found by chance. For interactions of proteins they are lists of the same degrees.

Permuted cells are the run’s own cells with each cell’s activations dealt to another cell. Random weights are the same
model before it learnt anything; the embedding layer is what enters it: genes and values, before any cell is read.

Confidence goes from 0, nothing is known, to 1, nothing is left to speak against the name. Of features without meaning
at most one in twenty gets above 0.50. The name of a single gene says how much of the feature that gene accounts for.

“Not run” is what was not computed. It does not mean that nothing was found.
"""


def report(run: RunFacts, choices: Sequence[Choice]) -> list[Block]:
    """Put the whole report together."""
    made: list[Block] = [Heading(f"What was found in {run.name}", 1)]
    made += [Heading("In short"), *(Text(line) for line in _short(run, choices))]
    made += [Heading("What was trained"), *(Text(line) for line in _trained(run))]
    several = len(run.sites) > 1
    for site, choice in zip(run.sites, choices, strict=True):
        at = f"{site.name}: " if several else ""
        made += [Heading(f"{at}how good it is, beside its controls" if at else "How good it is, beside its controls")]
        made += controls.beside(run, site)
        n = len(choice.features)
        best = "twenty" if n == 20 else number(n)
        words = f"the {best} best-supported features" if n != 1 else "the best-supported feature"
        made += [Heading(f"{at}{words}" if at else words[:1].upper() + words[1:]), *cards.cards(run, site, choice)]
    made += [Heading("What could not be tested"), Bullets(gaps.gaps(run, choices))]
    return [*made, Heading("How to read this"), Bullets(tuple(_READING.strip().split("\n\n")))]


def _short(run: RunFacts, choices: Sequence[Choice]) -> Iterator[str]:
    for site, choice in zip(run.sites, choices, strict=True):
        at = f"At {called(site.name)}, " if len(run.sites) > 1 else ""
        told = [f"{at}{of(site.alive, site.features)} features fire."]
        told += [_names(site, choice), _types(site), _explains(site)]
        yield " ".join(part for part in told if part)


def _names(site: SiteFacts, choice: Choice) -> str:
    if choice.order != "names":
        return "None has a name: the run was not held against databases."
    told = f"{of(choice.sure, choice.several)} of those that do not stand for a single gene have a name that is more"
    told += " likely right than wrong; if none meant anything, at most one in twenty would, that is"
    told += f" {number(round(choice.several / 20, 1))}. {_single(site)}"
    return told.strip()


def _single(site: SiteFacts) -> str:
    """How many stand for single genes, beside a model that has learnt nothing."""
    n, bare = site.kinds.get("gene identity", 0), site.column("random weights")
    if not n:
        return ""
    beside = "" if bare is None or bare.single is None else f"; {share(bare.single)} with random weights"
    mine = site.column("features")
    known = "" if mine is None or mine.single is None else f" ({share(mine.single)} of those of a known kind{beside})"
    return f"{number(n)}{known} stand for a single gene."


def _types(site: SiteFacts) -> str:
    mine = site.column("features")
    if mine is None or mine.count is None:
        return "How many follow a cell type beside controls was not run."
    parts = [
        f"{number(each.count)} of {number(each.columns)} {name}"
        for key, name in _BESIDE
        if (each := site.column(key)) is not None and each.count is not None and not controls.elsewhere(site, each)
    ]
    dealt = site.column("permuted labels")
    parts = ([] if dealt is None or dealt.count is None else [f"{number(dealt.count)} with permuted labels"]) + parts
    return f"{of(mine.count, mine.columns)} follow a cell type" + (f", beside {listed(parts)}." if parts else ".")


def _explains(site: SiteFacts) -> str:
    if site.explained is None:
        return "How much the dictionary explains was not run."
    found, principal, on = site.explained
    beside = (
        "held against nothing" if principal is None else f"beside {share(principal)} by as many principal directions"
    )
    return f"The dictionary explains {share(found)} of the variance of {on}, {beside}."


def _trained(run: RunFacts) -> Iterator[str]:
    model = f"The model {called(run.model)}" if run.model else "A model whose name is not recorded"
    size = f" ({number(run.parameters)} parameters)" if run.parameters else ""
    cells = "cells that are not recorded" if run.cells is None else plural(len(run.cells), "cell")
    data = f" of {called(run.data)}" if run.data else ""
    genes = f", with {plural(run.genes, 'gene')} that it knows" if run.genes else ""
    yield f"{model}{size} read {cells}{data}{genes}. {_who(run)}"
    if run.splits:
        yield _split(run)
    for site in run.sites:
        yield _dictionary(site)


def _who(run: RunFacts) -> str:
    if run.cells is None:
        return ""
    donors = run.donors.get("", 0)
    told = f"They are of {plural(donors, 'donor')}" if donors else "No donors are given"
    if not run.labelled:
        return f"{told}, and no cell types are known."
    types = run.cells["label"].drop_nulls().n_unique()
    named = f" (column {called(run.label)})" if run.label else ""
    missing = run.cells["label"].null_count()
    without = f"; {plural(missing, 'cell has', 'cells have')} none" if missing else ""
    return f"{told}{' and of' if donors else '; they are of'} {plural(types, 'cell type')}{named}{without}."


def _split(run: RunFacts) -> str:
    """Who chose, and who showed."""
    parts = []
    for name, n in run.splits.items():
        donors = f" of {plural(run.donors[name], 'donor')}" if run.donors.get(name) else ""
        used = {
            CHOOSING: "chose: on them the dictionary was trained and features’ genes, cell types and terms picked",
            SHOWING: "were held out, and show whether what was picked holds",
        }.get(name, f"are of the split {called(name)} and have no part in this report")
        parts.append(f"{plural(n, 'cell')}{donors} {used}")
    told = "; ".join(parts) + "."
    if run.splits.get(SHOWING) and run.donors.get("", 0) > 1:
        told += " No donor is on both sides." if run.apart else " The same donors are on both sides."
    return told


def _dictionary(site: SiteFacts) -> str:
    k = f", at most {site.k} of which fire at once" if site.k else ""
    told = f"At {called(site.name)} of the model, a sparse dictionary of {plural(site.features, 'feature')}{k},"
    steps, rows = (site.trained.get(key) for key in ("steps", "rows"))
    drawn = f" on {number(rows)} rows," if isinstance(rows, int) else ""
    told += f" was trained{drawn} in {number(steps)} steps." if isinstance(steps, int) else " was read."
    kinds = [f"{number(n)} {name}" for name, n in site.kinds.items() if n]
    return told + (f" Its features are by kind: {listed(kinds)}." if kinds else "")
