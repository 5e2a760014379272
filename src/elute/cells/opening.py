"""From settings to a model, and what is said of the two together before long work begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import ConfigError
from elute.models.load import kind_of, load_model

if TYPE_CHECKING:
    from elute.cells.settings import ModelConfig
    from elute.models.cells.batches import Survey
    from elute.models.cells.cellfile import Cells
    from elute.models.cells.model import CellModel


def open_model(config: ModelConfig, cells: Cells, *, rows: str = "genes") -> CellModel:
    """Load the model that the settings name, to read these cells."""
    own: dict[str, Any] = {}
    if config.upstream_exact:
        own["upstream_exact"] = True
    if config.with_drug != "auto":
        own["drug"] = config.with_drug == "on"
    if config.model is None:
        own["revision"] = config.revision
    elif own and (kind := kind_of(config.model)) != "tahoe-x1":
        given = ", ".join(f"--{name.replace('_', '-')}" for name in own)
        raise ConfigError(f"{given}: not for {kind}", where=config.model, remedy="Leave it out.")
    model: CellModel = load_model(
        config.model or f"tahoe-x1-{config.model_size}",
        rows=rows,
        random_weights=config.random_weights,
        max_length=config.max_length,
        seed=cells.config.seed,
        batch_size=config.batch_size,
        gene_id_key=cells.config.gene_id_key,
        gene_map=cells.config.gene_map,
        device=config.device,
        dtype=config.precision,
        **own,
    )
    parameters = sum(p.numel() for p in model.module.parameters())
    quirks = (
        "as the published code does, quirks included" if config.upstream_exact else "our way (see --upstream-exact)"
    )
    console.say(f"model: {model.name}, {parameters:,} parameters; {model.compute.why}")
    console.say(f"tokens: made {quirks}; up to {model.tokenizer.max_length:,} a cell")
    return model


def look_ahead(model: CellModel, cells: Cells) -> Survey:
    """Count what will be read, and say it."""
    found = model.survey(cells)
    console.say(
        f"cells: {found.cells:,} to read, {found.rows:,} tokens of genes, {found.median:,} tokens in the median cell"
    )
    if found.cut:
        console.say(f"cells: {found.cut:,} have more genes than --max-length allows: a part of their genes is read")
    if found.without:
        console.warn(f"{cells.where}: {found.without:,} cells have no gene that the model knows, and are left out")
    return found
