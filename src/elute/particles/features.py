"""Sparse features of particles' embeddings: which classes they follow, their prototypes, and what controls give.

    RUN/activations/                 a store: a row a particle, a site a source (or the fused vectors)
    RUN/particles.parquet            what is known of them; cells.parquet is the same as the Explorer has it
    RUN/[SITE/]sae_final.pt, codes/  the dictionary, and which features fire in which particle
    RUN/[SITE/]features.parquet, feature_cells.parquet (prototypes), feature_groups.parquet, feature_numbers.parquet
    RUN/[SITE/]validation/summary.json    controls                                      feature_controls.py
    RUN/dashboard.html               the Explorer

Features are chosen on particles of some runs (the split `train`) and shown on those of others. A particle is one row,
so nothing is told of tokens or genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files, run
from elute.base.errors import ConfigError, DataError
from elute.base.run import Artifact
from elute.base.statistics.splits import draw_splits
from elute.particles.feature_inputs import Opened, open_inputs
from elute.particles.feature_settings import ParticleFeaturesConfig

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.tables import Told
    from elute.analysis.tally import Tallied
    from elute.dictionaries.dictionary import Dictionary
    from elute.store.layout import Manifest

STAGE, BEGUN = "particle-features", "particle-table"
STORE, PARTICLES, SHEET, SUMMARY = "activations", "particles.parquet", "cells.parquet", "extraction_summary.json"
_FURTHER = ("x", "y", "z", "voxel_spacing", "picks_index")
_OF_GENES = ("by_gene", "by_cell", "neither", "kind", "top_genes", "top_genes_z", "top_genes_raw")
_OTHERS = ("sae_final.pt", "checkpoint.pt", "cells.parquet", "particles.parquet", "features.parquet", "dashboard.html")
_ROWS = 1 << 15
_LEAST = 500  # particles from which on a map of neighbours says more than two directions
_SHOWN = ("columns", "follow", "by type", "auroc", "found again", "found again by chance", "not run")
_READ = "a cell is a particle, a cell type its class, a donor its run; nothing is told of genes or databases."
_MORE = 0.7  # AUROC from which on a class is named


def find_features(given: Path | str, output: Path | str, config: ParticleFeaturesConfig | None = None) -> Artifact:
    """Find features of the embeddings in a file, or of every source that a configuration names."""
    config, output = config or ParticleFeaturesConfig(), Path(output)
    files.make_folder(output)
    with files.locked(output, STAGE, name=".run.lock"):
        _refuse_foreign(output)
        opened = open_inputs(Path(given), config)
        identity = config.model_copy(update={"device": "auto"})
        known = run.finished(output, STAGE, identity, inputs=opened.digests)
        if known is not None and (output / "dashboard.html").exists():
            console.say(f"{output}: features were found already, with these settings and inputs")
            return Artifact("features", output, {**known, "reused": True})
        table = _mapped(_tables(opened, config), opened, seed=config.seed)
        run.record(
            output, BEGUN, identity, inputs=opened.digests, summary={"particles": len(table), "mark": opened.mark}
        )
        for name, frame in ((PARTICLES, opened.particles), (SHEET, table)):
            files.write_atomically(output / name, frame.write_parquet)
        _store(output / STORE, opened, table)
        several = len(opened.sites) > 1
        told = {
            site: _site(
                output, output / site if several else output, site, table=table, config=config, mark=opened.mark
            )
            for site in opened.sites
        }
        from elute.reports.explorer.write import write_explorer

        page = write_explorer(output, seed=config.seed).path
        summary = {"particles": len(table), "sites": told, "dashboard": page.name, "mark": opened.mark}
        run.record(output, STAGE, identity, inputs=opened.digests, summary=summary)
    return Artifact("features", output, {**summary, "reused": False})


def _refuse_foreign(output: Path) -> None:
    """Refuse a folder that holds what another command computed: it would be written over."""
    if BEGUN in run.read(output)["stages"]:
        return
    found = [name for name in (STORE, "run.json", *_OTHERS) if (output / name).exists()]
    if found:
        raise ConfigError("holds what this command did not write", where=output / found[0],
                          remedy="Name another --output.")  # fmt: skip


def _tables(opened: Opened, config: ParticleFeaturesConfig) -> pl.DataFrame:
    """Return what is known of the particles as all findings refer to it: a row a particle, and its split."""
    import polars as pl

    known = opened.particles
    n = len(known)
    if n < 20:
        raise DataError(f"{n} particles are too few for features", where=", ".join(opened.digests),
                        remedy="Give some hundreds.")  # fmt: skip
    runs = None if known["run"].null_count() else known["run"].to_list()
    if runs is not None and len(set(runs)) < 4:
        runs = None
    groups: Sequence[Any] = runs if runs is not None else known["id"].to_list()
    labels = None if runs is not None or known["label"].null_count() else known["label"].to_list()
    drawn = draw_splits(groups, labels, fractions={"train": 1 - config.hold_out, "test": config.hold_out},
                        seed=config.seed)  # fmt: skip
    return known.select(
        pl.col("id").alias("cell"),
        pl.Series("row", np.arange(n), dtype=pl.Int64),
        pl.Series("split", [drawn[group] for group in groups], dtype=pl.String),
        pl.col("label"),
        pl.col("run").alias("donor") if runs is not None else pl.lit(None, pl.String).alias("donor"),
        *(pl.col(c).cast(pl.Float64).alias(f"obs:{c}") for c in _FURTHER if known[c].n_unique() > 2),
    )


def _mapped(table: pl.DataFrame, opened: Opened, *, seed: int) -> pl.DataFrame:
    """Add where each particle lies by its vectors, for the Explorer's map; few or very many it lays out by itself."""
    import polars as pl

    from elute.reports.particles.fused_map import MOST, lay_out

    if not _LEAST <= len(table) <= MOST:
        return table
    sides = [(x - x.mean(axis=0)) / max(float(x.std()), 1e-12) for x in opened.sites.values()]
    found = lay_out(np.concatenate(sides, axis=1), np.zeros(len(table), np.int64), seed=seed)
    if found.how != "UMAP":
        return table
    return table.with_columns(pl.Series(f"umap_{axis}", found.places[:, i]) for i, axis in enumerate("xy"))


def _store(folder: Path, opened: Opened, table: pl.DataFrame) -> None:
    """Write the vectors as a store; one of the same particles is there already, or goes on."""
    import polars as pl
    import torch

    from elute.store.writer import StoreWriter

    split = files.digest_json(table["split"].to_list())
    source = {**opened.digests, "split": split, **({"mark": opened.mark} if opened.mark else {})}
    widths = {name: int(x.shape[1]) for name, x in opened.sites.items()}
    frame = table.select(pl.col("cell").alias("sample_id"), "split", pl.col("label").fill_null(""),
                         pl.coalesce("donor", "cell").alias("group"))  # fmt: skip
    there = _there(folder)
    other = there is not None and (there.source != source or there.sites != widths)
    if there is not None and there.complete and not other:
        return
    with StoreWriter(folder, sites=widths, source=source, recapture=other) as writer:
        for start in range(writer.offered, len(frame), _ROWS):
            stop = min(start + _ROWS, len(frame))
            rows = {name: torch.from_numpy(np.array(x[start:stop], np.float32)) for name, x in opened.sites.items()}
            writer.append(rows, frame[start:stop])


def _there(folder: Path) -> Manifest | None:
    """The store that lies there: one of other particles is this command's own, and is written anew."""
    from elute.store import layout, settle

    return settle.for_reading(folder) if (folder / layout.MANIFEST).exists() else None


def _site(
    output: Path, folder: Path, site: str, *, table: pl.DataFrame, config: ParticleFeaturesConfig, mark: str | None
) -> dict[str, Any]:  # fmt: skip
    """Train a dictionary on one site's vectors and tell what its features follow."""
    from elute.dictionaries.files import load_dictionary
    from elute.particles.feature_controls import hold_against
    from elute.particles.feature_training import learn, tally

    store = output / STORE
    learn(store, folder, site, config=config)
    dictionary = load_dictionary(folder)
    tallied = tally(store, folder, dictionary, cells=len(table), output=output, config=config)
    told = _describe(folder, table, dictionary=dictionary, tallied=tallied, config=config)
    frame = told.features.drop(_OF_GENES, strict=False)
    held, stability = hold_against(store, folder, site, table=table, tallied=tallied, config=config)
    frame = _named(frame, stability, at=config.at, mark=mark)
    for name in ("cells", "groups", "numbers"):
        files.write_atomically(folder / f"feature_{name}.parquet", getattr(told, name).write_parquet)
    files.write_atomically(folder / "feature_donors.parquet", told.dots.write_parquet)
    files.write_atomically(folder / "features.parquet", frame.write_parquet)
    summary = {key: value for key, value in told.summary.items() if key != "kinds"}
    said = {"site": site, "label": "class", "mark": mark, "reading": f"Here {_READ}"}
    files.write_json(folder / SUMMARY, {**said, **summary})
    files.make_folder(folder / "validation")
    files.write_json(folder / "validation" / "summary.json", held)
    follow = held.get("follow", {})
    return {
        "features": len(frame), "alive": int(frame["alive"].sum()), "k": dictionary.spec.k,
        "reconstruction": held["reconstruction"],
        "follow": {name: {k: one[k] for k in _SHOWN if k in one} for name, one in follow.items()},
        "notes": [*told.summary["notes"], *([held["note"]] if "note" in held else [])],
    }  # fmt: skip


def _named(frame: pl.DataFrame, stability: Any, *, at: float, mark: str | None) -> pl.DataFrame:
    """Call each feature by the class that it follows, as far as it does, and say why."""
    import polars as pl

    frame = frame.with_columns(stability=pl.Series(stability, dtype=pl.Float64))
    if "cell_type" not in frame.columns:
        return frame
    label = pl.col("cell_type")
    least = pl.min_horizontal(pl.col("auroc"), pl.coalesce("auroc_shown", "auroc"))
    shown = pl.col("auroc_shown").round(2).cast(pl.String).fill_null("none")
    why = pl.format("AUROC {} on particles that chose, {} on those held out", pl.col("auroc").round(2), shown)
    why = pl.format("{}; {}", why, pl.lit(mark)) if mark else why
    return frame.with_columns(
        name=pl.when(~pl.col("alive")).then(pl.lit("silent")).when(least >= at).then(label)
        .when(least >= _MORE).then(pl.format("more in {}", label)).otherwise(pl.lit("of no one class")),
        name_reason=pl.when(pl.col("alive") & label.is_not_null()).then(pl.format("{}: {}", label, why)),
    )  # fmt: skip


def _describe(
    folder: Path, table: pl.DataFrame, *, dictionary: Dictionary, tallied: Tallied, config: ParticleFeaturesConfig
) -> Told:  # fmt: skip
    """Tell what features follow, by the tables that cells have too."""
    import polars as pl
    import torch

    from elute.analysis.genes import GeneConfig
    from elute.analysis.groups import GroupConfig
    from elute.analysis.tables import Asked, describe
    from elute.store.codes import StoredCodes

    labelled = table["label"].drop_nulls().n_unique() > 1
    groups = GroupConfig(
        columns=("label",) if labelled else (), top_k_cells=config.top, least=config.least, one_cell="note"
    )
    codes = StoredCodes(folder / "codes")
    return describe(
        tallied,
        cells=table,
        genes=pl.DataFrame({"gene": ["particle"], "symbol": ["particle"]}),
        directions=torch.cat([dictionary.directions(site) for site in dictionary.spec.writes], dim=1),
        codes=lambda: (codes.read(s, min(s + _ROWS, len(codes))) for s in range(0, len(codes), _ROWS)),
        asked=Asked(GeneConfig(top_k_genes=1), groups, seed=config.seed),
    )


def show(answer: dict[str, Any]) -> str:
    """Say what was found, beside its controls."""
    lines = ["", *([f"*** {answer['mark']} ***", ""] if answer["mark"] else []), f"{answer['particles']:,} particles"]
    for site, told in answer["sites"].items():
        judged = told["reconstruction"]
        fire = f"{told['alive']:,} of {told['features']:,} features fire, {told['k']} at a time"
        parts = (f"{judged[name]:.1%}" for name in ("explained_variance", "principal"))
        explained = "  variance explained on particles held out {}; by as many principal directions {}".format(*parts)
        lines += ["", f"{site}: {fire}", explained, *(_line(name, one) for name, one in told["follow"].items())]
        lines += [f"  {note}" for note in told["notes"]]
    return "\n".join([*lines, "", f"Open {answer['path']}/{answer['dashboard']} in a browser.", f"In it {_READ}"])


def _line(name: str, one: dict[str, Any]) -> str:
    """What follows a class of one kind of columns, and how far the best of each class goes."""
    if "not run" in one:
        return f"  {name:<22} not run: {one['not run']}"
    told = f"  {name:<22}"
    if one.get("follow") is not None:
        told += f" {one['follow']:>4g} of {one['columns']:,} follow a class"
    if one.get("by type"):
        told += f", {sum(n > 0 for n in one['by type'].values())} of {len(one['by type'])} classes have one"
    if one.get("auroc") is not None:
        told += f"; AUROC held out {one['auroc']:.2f}"
    if "found again" in one:
        told += f"; {one['found again']:.0%} found again ({one['found again by chance']:.0%} by chance)"
    return told.replace(f"{name:<22};", f"{name:<22}")
