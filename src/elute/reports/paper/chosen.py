"""The best-supported features of a site, with what is known of each.

1. First those whose name is more likely right than wrong and says more than one gene, then those that stand for one
   gene with as much confidence (a model that has learnt nothing has many of these), then the rest by confidence.
2. One of each: features that the same term or cell type names come once, and the others are counted beside.
3. Without names, by how sharply they follow a cell type on the cells that did not choose it; else by their genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elute.analysis import run_tables
from elute.reports.paper.activity import Activity, read_activity
from elute.reports.validation_records import number
from elute.reports.validation_svg import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from elute.reports.paper.facts import RunFacts, SiteFacts

GENES = 6
SURE = 0.5
_NAME = 110  # characters of a name in a heading


@dataclass(frozen=True)
class Gene:
    """A gene of a feature: how closely it follows, on the cells that chose and on the others."""

    symbol: str
    z: float | None
    z_shown: float | None


@dataclass(frozen=True)
class Level:
    """A cell type of a feature, as tested."""

    name: str
    auroc: float | None
    auroc_shown: float | None


@dataclass(frozen=True)
class Term:
    """The term of a database that speaks most for a feature."""

    label: str
    database: str
    numbers: dict[str, float | None]  # as in validation/<source>.parquet


@dataclass(frozen=True, eq=False)
class Chosen:
    """One feature, and what is known of it."""

    feature: int
    row: dict[str, Any]
    name: str
    confidence: float | None
    reason: str
    genes: tuple[Gene, ...]
    levels: tuple[Level, ...]
    term: Term | None
    alike: tuple[int, ...]  # other features of the same name
    activity: Activity | None

    def value(self, name: str) -> float | None:
        """A number of its row."""
        return number(self.row.get(name))


@dataclass(frozen=True, eq=False)
class Choice:
    """The features of a site that a report shows."""

    features: tuple[Chosen, ...]
    order: str  # names, cell types, genes: by what they were put in order
    sure: int  # of the next, features with a name more likely right than wrong
    several: int  # features that are neither silent nor rare, and do not stand for one gene
    why_no_cells: str  # why their cells cannot be shown


def choose(run: RunFacts, site: SiteFacts, most: int) -> Choice:
    """Choose the best-supported features, and read what is known of them."""
    rows = _alive(site)
    named = any(proportion(row.get("name_confidence")) is not None for row in rows)
    order = "names" if named else "cell types" if any(_sharp(row) is not None for row in rows) else "genes"
    ranked = sorted(rows, key=lambda row: _key(row, order))
    picked, alike = _apart(ranked, most)
    numbers = [int(row["feature"]) for row in picked]
    genes, levels = _genes(site, numbers), _levels(site, numbers)
    activity, why = read_activity(run, site.place, numbers)
    terms = {n: _term(site, row) for n, row in zip(numbers, picked, strict=True)}
    several = [row for row in rows if not _single(row) and row.get("kind") not in ("silent", "rare")]
    sure = sum((proportion(row.get("name_confidence")) or 0.0) > SURE for row in several)
    found = tuple(
        Chosen(
            feature=n,
            row=row,
            name=plain(row.get("name") or "", _NAME).strip() or f"feature {n}",
            confidence=proportion(row.get("name_confidence")),
            reason=_sentence(plain(row.get("name_reason") or "")),
            genes=tuple(genes.get(n) or _listed(row)),
            levels=tuple(levels.get(n, ())),
            term=terms[n],
            alike=tuple(alike[n]),
            activity=activity.get(n),
        )
        for n, row in zip(numbers, picked, strict=True)
    )
    return Choice(found, order, sure, len(several), why)


def proportion(value: Any) -> float | None:
    """A number from 0 to 1, or nothing."""
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def visible(value: object) -> str:
    """A name that came with data, also one that cannot be seen."""
    return plain(value).strip() or "(no name)"


def _sentence(text: str) -> str:
    return text if not text.strip() or text.rstrip().endswith((".", "!", "?", ")")) else f"{text.rstrip()}."


def _alive(site: SiteFacts) -> list[dict[str, Any]]:
    frame = site.frame
    if "alive" in frame.columns:
        frame = frame.filter(frame["alive"].fill_null(value=False))
    return frame.to_dicts()


def _single(row: dict[str, Any]) -> bool:
    return row.get("kind") == "gene identity" or row.get("name_source") == "kind"


def _sharp(row: dict[str, Any]) -> float | None:
    """How sharply it follows its type, on other cells where there are any."""
    shown = proportion(row.get("auroc_shown"))
    return proportion(row.get("auroc")) if shown is None else shown


def _key(row: dict[str, Any], order: str) -> tuple[float, ...]:
    n = float(row["feature"])
    if order == "names":
        sure = proportion(row.get("name_confidence")) or 0.0
        group = 0 if sure > SURE and not _single(row) else 1 if sure > SURE else 2
        return group, -sure, -(_sharp(row) or 0.0), n
    if order == "cell types":
        return -(_sharp(row) or 0.0), n
    z = row.get("top_genes_z")
    first = number(z[0]) if isinstance(z, list) and z else None
    return -(first or 0.0), n


def _apart(ranked: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], dict[int, list[int]]]:
    """The first features of different names, and those that share each name."""
    met: dict[object, int] = {}
    picked: list[dict[str, Any]] = []
    alike: dict[int, list[int]] = {}
    for row in ranked:
        n = int(row["feature"])
        key = _named_by(row)
        if key in met:
            alike[met[key]].append(n)
        elif len(picked) < most:
            met[key] = n
            picked.append(row)
            alike[n] = []
    return picked, alike


def _named_by(row: dict[str, Any]) -> object:
    source, term = row.get("name_source"), row.get("name_term")
    if term:
        return source, term
    return (source, row.get("cell_type")) if source == "cells" else row["feature"]


def _genes(site: SiteFacts, numbers: Sequence[int]) -> dict[int, list[Gene]]:
    import polars as pl

    if not (site.place / run_tables.GENES).is_file():
        return {}
    frame = run_tables.read_table(site.place, run_tables.GENES, needs=("symbol", "rank"))
    frame = frame.filter(pl.col("feature").is_in(numbers), pl.col("rank") <= GENES).sort("feature", "rank")
    found: dict[int, list[Gene]] = {}
    for row in frame.iter_rows(named=True):
        gene = Gene(visible(row["symbol"]), number(row.get("z")), number(row.get("z_shown")))
        found.setdefault(int(row["feature"]), []).append(gene)
    return found


def _listed(row: dict[str, Any]) -> list[Gene]:
    """Genes as the table of features has them."""
    names, z = row.get("top_genes"), row.get("top_genes_z")
    if not isinstance(names, list):
        return []
    values = z if isinstance(z, list) and len(z) == len(names) else [None] * len(names)
    return [Gene(visible(a), number(b), None) for a, b in zip(names[:GENES], values, strict=False)]


def _levels(site: SiteFacts, numbers: Sequence[int]) -> dict[int, list[Level]]:
    """Cell types by AUROC, the sharpest first; of whatever column holds them."""
    import polars as pl

    if not (site.place / run_tables.GROUPS).is_file():
        return {}
    frame = run_tables.read_table(site.place, run_tables.GROUPS, needs=("level", "column", "auroc"))
    frame = frame.filter(pl.col("feature").is_in(numbers), pl.col("column").is_in(["label", "cell_type"]))
    found: dict[int, list[Level]] = {}
    for row in frame.sort("feature", "auroc", "level", descending=[False, True, False], nulls_last=True).iter_rows(
        named=True
    ):
        level = Level(visible(row["level"]), *(proportion(row.get(key)) for key in ("auroc", "auroc_shown")))
        found.setdefault(int(row["feature"]), []).append(level)
    return found


def _term(site: SiteFacts, row: dict[str, Any]) -> Term | None:
    """The term that names a feature; else the one with the least q of all databases."""
    import polars as pl

    if site.validated is None:
        return None
    best: tuple[bool, float, float, str] | None = None
    found: Term | None = None
    for source in site.validated.sources:
        if source.rows is None:
            continue
        mine: pl.DataFrame = source.rows.filter(pl.col("feature") == int(row["feature"]))
        named_here = row.get("name_term") if source.name == row.get("name_source") else None
        for each in mine.iter_rows(named=True):
            naming = named_here is not None and each["term"] == named_here
            q, p = (number(each[key]) for key in ("q", "p_larger"))
            key = (not naming, 2.0 if q is None else q, 2.0 if p is None else p, source.name)
            if best is None or key < best:
                best = key
                label = plain(each["label"] or each["term"])
                numbers = {name: number(value) for name, value in each.items() if not isinstance(value, str | list)}
                found = Term(label, source.title, numbers)
    return found
