"""The first stage of a run: the cells, the model, and its activations as a store, or ready to be read in the loop.

RUN/activations/          a row a gene of a cell, at every site that a dictionary reads or writes
RUN/cells.parquet         the cells; RUN/genes.parquet the genes (see table.py)
RUN/model_config.json     which model, and what tells it from others
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError, DataError
from elute.cells import table
from elute.cells.opening import look_ahead, open_model
from elute.cells.units import lay_out
from elute.engine.capture import capture_to_store
from elute.store.reader import Store

if TYPE_CHECKING:
    import polars as pl

    from elute.cells.plan import Plan
    from elute.cells.units import Unit
    from elute.models.cells.cellfile import Cells
    from elute.models.cells.model import CellModel

OLDER = "activations.pt"
MODEL = "model_config.json"


@dataclass(frozen=True, eq=False)
class Source:
    """What a run's features come from: the rows in a store, or a model that gives them."""

    cells: Cells
    table: pl.DataFrame
    genes: pl.DataFrame
    units: list[Unit]
    store: Store | None
    model: CellModel | None
    rows: int

    @property
    def digest(self) -> str:
        """What tells these cells and genes from others."""
        held = [self.table.write_json(), self.genes.write_json(), self.cells.kind]
        return files.digest_json(held)


def prepare(plan: Plan, units: list[Unit] | None = None, *, opened: tuple[Cells, str] | None = None) -> Source:
    """Open the cells and the model, and capture what is needed; what lies there already is used as it is.

    `opened` are cells that were split elsewhere, and the digest of that split.
    """
    cells, split = opened or _open(plan)
    model = open_model(plan.model, cells, rows=plan.sites.rows)
    found = look_ahead(model, cells)
    rows = found.rows + (model.tokenizer.special * found.cells if plan.sites.rows == "all" else 0)
    chosen = units or _laid_out(plan, model)
    sites = model.choose_sites(",".join(dict.fromkeys(site for unit in chosen for site in unit.sites)))
    console.say(f"sites: {', '.join(sites)}")
    files.make_folder(plan.output)
    store = None
    if not plan.training.stream:
        source = {**model.provenance(cells), "split": split}
        capture_to_store(
            model, cells, plan.activations, sites=sites, config=plan.capture, source=source, total_rows=rows
        )
        store = Store(plan.activations)
    genes = table.gene_table(model.match(cells))
    files.write_json(plan.output / MODEL, _described(model, sites, plan))
    return _source(plan, cells, genes, units=chosen, store=store, model=model, rows=rows)


def saved(plan: Plan, units: list[Unit] | None = None) -> Source:
    """Open the cells, and the activations that an earlier run left; the model is not needed."""
    cells, split = _open(plan)
    if not (plan.activations / "manifest.json").exists():
        older = plan.output / OLDER
        if not older.exists():
            what = f"there are neither activations/manifest.json nor {OLDER} to use"
            raise DataError(what, where=plan.output, remedy="Leave --use-saved-activations out, or check --output.")
        from elute.cells.older import bring_older

        model = open_model(plan.model, cells)
        bring_older(older, cells, model, folder=plan.activations, split=split)
        table.write(plan.output / table.GENES, table.gene_table(model.match(cells)))
    store = Store(plan.activations)
    if not store.complete:
        remedy = "Give the command again without --use-saved-activations: it goes on where it was stopped."
        raise DataError("the activations are not complete", where=plan.activations, remedy=remedy)
    recorded = store.manifest.source.get("split")
    if recorded not in (None, split):
        remedy = "Give the --seed, --hold-out, --donor-key and --max-cells that they were captured with."
        raise DataError("the activations were captured with another split", where=plan.activations, remedy=remedy)
    console.say(f"{plan.activations}: {len(store):,} rows are used as they are")
    chosen = units or _units_of(plan, store)
    genes = table.read(plan.output / table.GENES) if (plan.output / table.GENES).exists() else table.genes_of(store)
    return _source(plan, cells, genes, units=chosen, store=store, model=None, rows=len(store))


def _units_of(plan: Plan, store: Store) -> list[Unit]:
    """Lay out dictionaries of what is stored; of the layers that are asked for, where any are."""
    names = list(store.sites)
    if plan.sites.layers is not None:
        names = _asked(plan.sites.layers, names, plan.activations)
    into = [name for name in names if name.endswith("hook_mlp_in")]
    out = [name for name in names if name.endswith("hook_mlp_out")]
    if plan.training.kind == "sae":
        into = out = names
    elif not into or len(into) != len(out):
        what = f"holds {', '.join(names)}, and a {plan.training.kind} needs what each layer's MLP reads and writes"
        raise DataError(what, where=plan.activations, remedy="Capture anew, into another --output.")
    return lay_out(plan.output, plan.training.kind, into=into, out=out)


def _asked(layers: str, names: list[str], where: Path) -> list[str]:
    """Choose among stored sites by block, by name, `last` or `all`."""
    block = {name: name.partition(".hook_")[0].rpartition(".")[2] for name in names}
    last = max((number for number in block.values() if number.isdecimal()), key=int, default="")
    chosen: list[str] = []
    for part in (piece.strip() for piece in layers.split(",")):
        wanted = last if part == "last" else part
        found = [name for name in names if part == "all" or wanted in (name, block[name])]
        if not found:
            raise ConfigError(f"holds no layer {part!r}", where=where, remedy=f"Stored are {', '.join(names)}.")
        chosen += found
    return list(dict.fromkeys(chosen))


def _open(plan: Plan) -> tuple[Cells, str]:
    from elute.models.cells.cellfile import open_cells

    cells = open_cells(plan.data, plan.cells)
    table.check_labels(cells)
    return cells, table.draw_halves(cells, hold_out=plan.training.hold_out, seed=plan.training.seed)


def _laid_out(plan: Plan, model: CellModel) -> list[Unit]:
    """Lay out dictionaries of the sites that are asked for."""
    if plan.training.kind == "sae":
        into = out = model.choose_sites(plan.sites.layers, plan.sites.site)
    else:
        into, out = (model.choose_sites(plan.sites.layers, kind) for kind in ("mlp_in", "mlp_out"))
    return lay_out(plan.output, plan.training.kind, into=into, out=out)


def _source(plan: Plan, cells: Cells, genes: pl.DataFrame, **parts: Any) -> Source:
    """Write the tables, and put all together."""
    frame = table.cell_table(cells, plan.extract.columns)
    table.write(plan.output / table.CELLS, frame)
    table.write(plan.output / table.GENES, genes)
    return Source(cells=cells, table=frame, genes=genes, **parts)


def _described(model: CellModel, sites: list[str], plan: Plan) -> dict[str, Any]:
    return {
        "name": model.name,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "sites": {site: model.sites[site].width for site in sites},
        "fingerprint": model.fingerprint().as_json(),
        "model": None if plan.model.model is None else str(Path(plan.model.model)),
        "model_size": plan.model.model_size if plan.model.model is None else None,
        "revision": model.source.get("revision", plan.model.revision),
    }
