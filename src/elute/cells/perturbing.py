"""A gene taken away, or its value changed, in held-out cells that have it: which features and genes change elsewhere.

    effects/perturb_GENE_KEY.parquet, .json     docs/formats/effects.md

What is compared, and beside what: analysis/perturbation.py. The token is taken from what the model reads, or the value
beside it changed; the values of all other genes stay as they were read. The same settings on the same run are read,
not computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import ConfigError, DataError, near
from elute.base.recipe import build
from elute.base.run import Artifact
from elute.cells import effect_files as kept
from elute.cells.effect_settings import PerturbConfig
from elute.cells.effect_tables import of_features, of_genes, progress, resolution_of, section

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from elute.analysis.changes import Cancel, Pace, Told, Units
    from elute.analysis.perturbation import Altered, Perturbing
    from elute.analysis.rerunning import Part
    from elute.base.mergeable import Floats, Integers
    from elute.cells.reopening import Recorded, Reopened

KIND = "perturb"
LEAST_CELLS = 3
MOST_LOOKED = 2000
"""Held-out cells that are looked through for those that have a gene."""


def perturb(
    results: Path | str | Recorded,
    *,
    gene: str,
    site: str | None = None,
    config: PerturbConfig | None = None,
    opened: Reopened | None = None,
    data: Path | str | None = None,
    model: Path | str | None = None,
    told: Told | None = None,
    cancel: Cancel | None = None,
    **asked: Any,
) -> Artifact:
    """Change a gene in held-out cells, and write what changes beside controls; or read what was written before.

    The gene is named by its symbol or id. Settings come as a `config`, or one by one (`how="absent"`, `cells=200`, …);
    `opened`, `told` and `cancel` are as in `steer`.
    """
    from elute.cells import reopening, table

    config = config or build(PerturbConfig, asked, where=KIND)
    recorded = opened.recorded if opened is not None else results
    recorded = recorded if not isinstance(recorded, Path | str) else reopening.look_up(recorded, site)
    number, name = find_gene(table.read(recorded.run.folder / table.GENES), gene, recorded.run.folder)
    settings = {"gene": name, "site": recorded.site.name, **config.model_dump(mode="json")}
    key = kept.key_of(KIND, settings, recorded.inputs)
    path = kept.place_of(recorded.site.folder, f"{KIND}_{name}", key)
    before = kept.known(path, key)
    if before is not None:
        console.say(f"{path}: this was computed already")
        return Artifact(KIND, path, {**before, "reused": True})
    looked = reopening.showing(recorded, most=MOST_LOOKED, seed=config.seed, cell_type=config.cell_type)
    opened = opened or reopening.reopen(recorded, data=data, model=model)
    frame, summary = _compute(opened, number, config, looked=_Looked(opened, looked, name, number), told=told,
                              cancel=cancel)  # fmt: skip
    whole = {"kind": KIND, "key": key, "settings": settings, "inputs": recorded.inputs, "summary": summary}
    return Artifact(KIND, path, {**kept.keep(path, frame, whole), "reused": False})


def find_gene(genes: pl.DataFrame, asked: str, where: Path) -> tuple[int, str]:
    """Find a gene by symbol or id, in any case; of two with one symbol the first."""
    for fold in (str, str.lower):
        for column in ("symbol", "gene"):
            names = [fold(name or "") for name in genes[column].to_list()]
            if fold(asked) in names:
                number = names.index(fold(asked))
                return number, genes["symbol"][number]
    what = f"the model knows no gene {asked!r} of these cells"
    raise ConfigError(what, where=where, remedy=near(asked, genes["symbol"].drop_nulls().to_list()))


class _Looked:
    """Which held-out cells have which genes as tokens, and with what value: read without running the model."""

    def __init__(self, opened: Reopened, places: Integers, name: str, gene: int) -> None:
        import numpy as np

        from elute.cells.reopening import located
        from elute.models.tahoe.tokenizer import TahoeTokenizer

        if not isinstance(opened.model.tokenizer, TahoeTokenizer):
            what = "reads genes in the order of their values: taking one away would move all that follow"
            raise ConfigError(what, where=opened.model.name, remedy="Models that read a value a gene can be perturbed.")
        self.places, n = places, len(opened.genes)
        cells, genes, read = [], [], []
        for _, frame, cell, number in located(opened, places):
            there = number >= 0
            cells.append(cell[there])
            genes.append(number[there])
            read.append(frame["read"].to_numpy()[there].astype(np.float64))
        self.cell, self.gene, self.read = (np.concatenate(parts) for parts in (cells, genes, read))
        self.detected = np.bincount(self.gene, minlength=n)
        total = np.bincount(self.gene, weights=self.read, minlength=n)
        self.covariates: Floats = np.stack([self.detected, total], axis=1).astype(np.float64)
        if self.detected[gene] < LEAST_CELLS:
            has = console.count(int(self.detected[gene]), "cell")
            what = f"{has} of {len(places):,} held-out ones that were looked at have {name}: too few"
            where = opened.recorded.run.folder
            raise DataError(what, where=where, remedy="Choose a gene of more cells, or another cell type.")

    def having(self, opened: Reopened, gene: int, *, most: int, seed: int) -> Integers:
        """Places of cells that have a gene, ascending: a sample stratified by type and donor."""
        import numpy as np

        from elute.models.cells.sampling import draw, strata

        mine = self.places[np.unique(self.cell[self.gene == gene])]
        part = opened.recorded.run.cells[mine]
        chosen: Integers = mine[draw(strata([part["label"], part["donor"]]), most, seed)]
        return chosen

    def value(self, gene: int, config: PerturbConfig) -> float:
        """The quantile of what the model reads of a gene where it is there."""
        import numpy as np

        share = config.quantile if config.how == "up" else 1 - config.quantile
        return float(np.quantile(self.read[self.gene == gene], share))


def _compute(
    opened: Reopened, gene: int, config: PerturbConfig, *, looked: _Looked, told: Told | None, cancel: Cancel | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    from elute.analysis.changes import Pace
    from elute.analysis.perturbation import like_genes

    like = like_genes(looked.covariates, gene, config.controls, among=looked.detected >= LEAST_CELLS)
    asked = [(gene, config.cells), *((int(i), config.control_cells) for i in like)]
    sampled = [looked.having(opened, i, most=most, seed=config.seed) for i, most in asked]
    total = 2 * sum(map(len, sampled)) * (2 if config.hide else 1)
    names = opened.genes["symbol"].to_list()
    found = []
    with progress(names[gene], total, told) as tell:
        pace = Pace(total, told=tell, cancel=cancel)
        for (number, _), places in zip(asked, sampled, strict=True):
            found.append(_one(opened, number, places, config=config, looked=looked, pace=pace))
    (own, units), controls = found[0], found[1:]
    frame, summary = _tables(opened, own, units, controls=controls)
    value = None if config.how == "absent" else looked.value(gene, config)
    far = looked.covariates[like].mean(axis=0) if len(like) else None
    summary |= {
        "value": value,
        "n_cells": len(units.codes), "units": units.kind, "n_units": len(units), "looked": len(looked.places),
        "detected": int(looked.detected[gene]), "read": float(looked.covariates[gene, 1] / looked.detected[gene]),
        "like": [names[i] for i in like],
        "like_detected": None if far is None else float(far[0]),
        "like_read": None if far is None else float(far[1] / far[0]),
    }  # fmt: skip
    return frame, summary


def _one(
    opened: Reopened, gene: int, places: Integers, *, config: PerturbConfig, looked: _Looked, pace: Pace
) -> tuple[Altered, Units]:
    from elute.analysis.changes import Units
    from elute.analysis.perturbation import alter

    asked = _perturbing(opened, config, looked.value(gene, config))
    parts = _parts(opened, places, gene, config)
    units = Units.of(opened.recorded.run.cells[places]["donor"].to_list())
    return alter(asked, parts, gene, cells=len(places), pace=pace), units


def _perturbing(opened: Reopened, config: PerturbConfig, value: float) -> Perturbing:
    from elute.analysis.perturbation import Perturbing
    from elute.cells.hiding import at_rows

    absent = config.how == "absent"
    filler = opened.model.tokenizer.config  # type: ignore[attr-defined]  # a TahoeTokenizer, see _Looked

    def change(batch: Any, rows: Any) -> Any:
        import torch

        at = at_rows(batch, rows)
        if not absent:
            most = torch.maximum if config.how == "up" else torch.minimum
            values = most(batch["values"], torch.tensor(value, dtype=batch["values"].dtype))
            return {**batch, "values": torch.where(at, values, batch["values"])}
        return {
            **batch,
            "tokens": batch["tokens"].masked_fill(at, filler.pad_token_id),
            "values": batch["values"].masked_fill(at, float(filler.pad_value)),
            "keep": batch["keep"] & ~at,
        }

    return Perturbing(opened.model, opened.watched, change, drops=absent, n_genes=len(opened.genes))


def _parts(opened: Reopened, places: Integers, gene: int, config: PerturbConfig) -> Iterator[Part]:
    from elute.analysis.rerunning import Part
    from elute.cells.hiding import rounds
    from elute.cells.reopening import located

    for batch, frame, cell, number in located(opened, places):
        told = {**batch, "padded": True}  # so that both forwards go the same way
        made = rounds(opened.model, told, frame, gene=number, hide=config.hide, seed=config.seed, coded=True,
                      visible=number == gene)  # fmt: skip
        yield Part(made, frame, cell, number)


def _tables(
    opened: Reopened, own: Altered, units: Units, *, controls: list[tuple[Altered, Units]]
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One table of features and genes, and what it says."""
    import polars as pl

    from elute.analysis.perturbation import readings

    features, genes = readings(own, controls)
    resolution, site = resolution_of(opened), opened.recorded.site.name
    frame, told = of_features(features, units, site=site, resolution=resolution)
    summary: dict[str, Any] = {"features": {site: told}, "told": own.told}
    if genes is None:
        return frame, summary
    more, summary["genes"] = of_genes(opened, genes, units, resolution=resolution)
    return pl.concat([frame, more], how="diagonal"), summary


def show(answer: dict[str, Any]) -> str:
    """Say what came out, beside its controls."""
    import polars as pl

    settings, found = answer["settings"], answer["summary"]
    frame = pl.read_parquet(answer["path"])
    how = "taken away" if settings["how"] == "absent" else f"{settings['how']} to {found['value']:g}"
    unit = f"{found['n_units']:,} {found['units']}"
    unit += f", {found['n_cells']:,} cells" if found["units"] == "donors" else ""
    told = [f"{settings['gene']} {how} in {unit}; {found['detected']:,} of {found['looked']:,} held-out cells have it"]
    for site, part in found["features"].items():
        told.append(f"features of {site}, in the cells' other rows")
        told += section(frame.filter(pl.col("kind") == "feature"), part, "feature")
    if "genes" in found:
        said = "" if found["told"] is None else f" (R² of the predictions: {found['told']:.2f})"
        told.append(f"other genes' predicted values{said}")
        told += section(frame.filter(pl.col("kind") == "gene"), found["genes"], "symbol")
    told.append(f"table: {answer['path']}" + (" (computed before)" if answer["reused"] else ""))
    return "\n".join(told)
