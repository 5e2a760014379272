"""What could not be tested, and why: said as plainly as what was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from elute.reports.paper.chosen import Choice
from elute.reports.paper.facts import SHOWING, RunFacts, SiteFacts
from elute.reports.paper.words import called, listed
from elute.reports.validation_svg import number, plain

_INSTALL = "not installed: "


def gaps(run: RunFacts, choices: Sequence[Choice]) -> tuple[str, ...]:
    """Return a sentence for each thing that was not tested; of several sites, with their names."""
    met: dict[str, list[str]] = {}
    for text in _of_run(run):
        met[text] = [site.name for site in run.sites]
    for site, choice in zip(run.sites, choices, strict=True):
        for text in _of_site(site, choice):
            met.setdefault(text, []).append(site.name)
    several = len(run.sites) > 1
    told = [
        f"{listed(names, 4)}: {text}" if several and len(names) < len(run.sites) else text
        for text, names in met.items()
    ]
    told.append(
        "Nothing here was tested by changing the model or the cells: that a feature goes with a cell type or a term"
        " does not say that the model uses it, nor that either causes the other."
    )
    return tuple(told)


def _of_run(run: RunFacts) -> Iterator[str]:
    noted = " ".join(note for site in run.sites for note in site.notes)
    if run.cells is None:
        yield "The table of cells is not in the folder, so nothing can be said of cells, donors and splits."
        return
    if not run.labelled:
        yield "No cell types are known: nothing is counted by them, and no feature is held against one."
    if not run.donors.get("") and "no donors" not in noted:
        yield "No donors are given: the cell is the unit, and nothing is claimed across donors."
    elif run.donors.get("") == 1:
        yield "All cells are of one donor: nothing can be said of other people."
    if not run.splits.get(SHOWING):
        yield "No cells were held out: what was chosen on all cells could not be shown on any others."
    elif run.donors.get("", 0) > 1 and not run.apart:
        yield "Held-out cells are of the same donors as the others: that features hold in other people is not shown."


def _of_site(site: SiteFacts, choice: Choice) -> Iterator[str]:
    yield from (_note(note) for note in site.notes)
    yield from _of_controls(site)
    for each in site.across:
        if each.why:
            yield f"Differences in {called(each.column)} across donors: {each.why}."
    if choice.why_no_cells:
        yield f"How strongly features fire in each cell type and donor cannot be drawn: {choice.why_no_cells}."
    yield from _of_databases(site)


def _note(note: str) -> str:
    """A note of the extraction as a sentence."""
    told = f"cell types: {note.removeprefix('label: ')}" if note.startswith("label: ") else note
    return f"{told[:1].upper()}{told[1:]}."


def _of_controls(site: SiteFacts) -> Iterator[str]:
    if site.explained is not None and site.explained[1] is None:
        yield "The variance explained was held against no principal directions."
    if site.controls is None:
        yield (
            "No controls were run: how many features would follow a cell type with its labels dealt out anew, among"
            " neurons, genes and principal components, with random weights or at the embedding layer, and how many"
            " another seed finds again, is not known. Give --controls standard to elute cells run-pipeline."
        )
        return
    few = {name for each in site.follow if each.name == "features" for name in each.no_claim}
    if few:
        yield f"Too few cells to count the features that follow {listed([called(name) for name in sorted(few)])}."
    for each in site.follow:
        if each.why:
            yield f"{each.name[:1].upper()}{each.name[1:]} as a control: {each.why}."
        elif each.count is None and each.columns is not None and each.name != "features":
            on = "" if each.cells is None else f" of its {number(each.cells)} cells"
            yield f"{each.name[:1].upper()}{each.name[1:]} as a control for cell types: too few{on} are of any type."


def _of_databases(site: SiteFacts) -> Iterator[str]:
    if site.validated is None:
        yield "No database was asked, so no feature has a term or a name. Type: elute cells validate --results DIR"
        return
    absent = [source for source in site.validated.sources if not source.run]
    missing = [source for source in absent if source.why.startswith(_INSTALL)]
    if missing:
        typed = [f"{plain(source.title)} ({source.why.removeprefix(_INSTALL)})" for source in missing]
        count = "One database is" if len(missing) == 1 else f"{len(missing)} databases are"
        yield f"{count} not on this machine, so nothing is known of their terms: {listed(typed, 20)}."
    for source in absent:
        if source not in missing:
            yield f"{plain(source.title)} was not run: {source.why or 'no reason was kept'}."
    for source in site.validated.sources:
        lost = [f"{name} ({why})" for name, (value, _, why) in source.controls.items() if value is None]
        if source.run and lost:
            yield f"{plain(source.title)} has no count of {listed(lost)}."
        elif source.run and not source.controls:
            yield f"{plain(source.title)} was held against no permuted cells, random weights or embedding layer."
    yield from (f"Databases: {note}." for note in site.validated.notes)
