"""The rows of the index's table of codes: how often each fires, what it predicts, and the tissue of its tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue import wording
from elute.reports.tissue.lists import Cell, Column
from elute.reports.tissue.markup import address, el, named
from elute.reports.tissue.reading import Findings
from elute.reports.tissue.verdicts import Verdict
from elute.reports.validation_svg import number


def code_rows(
    found: Findings, verdicts: Mapping[str, Verdict], names: Mapping[str, str]
) -> tuple[Sequence[Column], list[tuple[str, Sequence[Cell]]]]:
    """Columns and rows; the codes that matter to most genes first."""
    columns = [
        Column("code", "Code", words=True),
        Column("frequency", "Fires in, of rows"),
        Column("matters", "Genes explained with it"),
        Column("predicted", "of them predicted"),
        Column("best", "Strongest for", sorts=False, words=True),
        Column("share", "Share of its relevance"),
        Column("tissue", "Tissue of its tiles (of all tiles)", words=True),
        Column("patients", "Patients or sites of its tiles"),
    ]
    frequency = _frequencies(found)
    tissue, by_chance = _tissues(found), _chance(found)
    parts = found.relevance.filter(pl.col("code").is_in(found.codes)).sort(
        pl.col("share").fill_nan(None), "gene", descending=[True, False], nulls_last=True
    )
    rows: list[tuple[float, int, str, list[Cell]]] = []
    by_code = parts.partition_by("code", as_dict=True, include_key=False)
    for code in found.codes:
        mine = by_code.get((code,), parts.clear())
        genes = mine["gene"].to_list()
        predicted = sum(verdicts[gene].predicted for gene in genes)
        best = mine.row(0, named=True) if genes else None
        seen = tissue.get(code, {"labels": Counter(), "groups": 0, "n": 0})
        cells = [
            Cell(el("a", str(code), href=address("codes", code)), code),
            Cell(wording.share(frequency.get(code)), frequency.get(code)),
            Cell(number(len(genes)), len(genes)),
            Cell(number(predicted), predicted),
            Cell(_best(best, names), None),
            Cell(wording.share(best["share"]) if best else "–", best["share"] if best else None),
            _tissue_cell(seen, by_chance),
            Cell(f"{seen['groups']} in {seen['n']} tiles", seen["groups"]),
        ]
        find = " ".join(
            [
                str(code),
                f"code {code}",
                *(gene[:80] for gene in genes[:5]),
                *(label[:80] for label in list(seen["labels"])[:3]),
            ]
        )
        rows.append((-float(len(genes)), code, find, cells))
    return columns, [(find, cells) for _, _, find, cells in sorted(rows, key=lambda row: row[:2])]


def _best(row: dict[str, Any] | None, names: Mapping[str, str]) -> Markup:
    if row is None:
        return el("span", "–", class_="dim")
    sign = "↑" if (row["relevance"] or 0) >= 0 else "↓"
    told = "raises" if sign == "↑" else "lowers"
    link = el("a", named(row["gene"], 24), href=address("genes", names[row["gene"]]))
    return join([link, el("span", f" {sign}", title=told, class_="dim"), el("span", told, class_="aside")])


def _frequencies(found: Findings) -> dict[int, float]:
    if "frequency" not in found.usage.columns:
        return {}
    return dict(found.usage.select("code", pl.col("frequency").cast(pl.Float64)).drop_nulls().iter_rows())


def _tissues(found: Findings) -> dict[int, dict[str, Any]]:
    """Labels and patients of the distinct tiles that are listed for a code."""
    tiles = found.tiles.select("sample_id", pl.col("tile_id").fill_null(""), "label", "group")
    pairs = found.refs.select("code", "sample_id", pl.col("tile_id").fill_null("")).unique(maintain_order=True)
    joined = pairs.join(
        tiles.unique(["sample_id", "tile_id"]), on=["sample_id", "tile_id"], how="left", maintain_order="left"
    )
    seen: dict[int, dict[str, Any]] = {}
    for (code,), part in joined.group_by("code", maintain_order=True):
        labels = Counter(part["label"].drop_nulls().to_list())
        seen[int(str(code))] = {"labels": labels, "groups": part["group"].drop_nulls().n_unique(), "n": len(part)}
    return seen


def _chance(found: Findings) -> dict[str, float]:
    labels = Counter(found.tiles["label"].drop_nulls().to_list())
    total = sum(labels.values())
    return {label: n / total for label, n in labels.items()}


def _tissue_cell(seen: dict[str, Any], by_chance: dict[str, float]) -> Cell:
    if not seen["labels"]:
        return Cell(el("span", "not labelled", class_="dim"), None)
    label, n = seen["labels"].most_common(1)[0]
    share = n / seen["labels"].total()
    told = el("span", f" {share:.0%} ({by_chance[label]:.0%})", class_="dim")
    return Cell(join([named(label, 24), told]), label.lower()[:80])
