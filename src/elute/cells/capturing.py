"""From a file of cells to a store: one row a gene of a cell, or one row a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.contracts import Edit, Fingerprint, Rows, Site
from elute.base.files import digest_json
from elute.cells.opening import look_ahead, open_model
from elute.engine.capture import CaptureConfig, capture_to_store

if TYPE_CHECKING:
    import polars as pl

    from elute.base.run import Artifact
    from elute.cells.settings import ModelConfig, SitesConfig
    from elute.models.cells.cellfile import CellsConfig
    from elute.models.cells.model import CellModel, Pooling

CELL_SITE = "cell_emb"


def capture_cells(
    data: Any, output: Path, *, cells: CellsConfig, model: ModelConfig, sites: SitesConfig, capture: CaptureConfig
) -> Artifact:
    """Read a model's activations on cells into a store; what was stored by an interrupted run is kept."""
    from elute.models.cells.cellfile import open_cells

    opened = open_cells(data, cells)
    loaded = open_model(model, opened, rows=sites.rows)
    names = loaded.choose_sites(sites.layers, sites.site)
    found = look_ahead(loaded, opened)
    rows = found.rows + (loaded.tokenizer.special * found.cells if sites.rows == "all" else 0)
    console.say(f"sites: {', '.join(names)}")
    source = loaded.provenance(opened)
    return capture_to_store(loaded, opened, output, sites=names, config=capture, source=source, total_rows=rows)


def store_embeddings(
    loaded: CellModel, opened: Any, folder: Path, *, pooling: Pooling, config: CaptureConfig
) -> Artifact:
    """Write one row a cell: its embedding."""
    found = look_ahead(loaded, opened)
    view, source = CellRows(loaded, pooling), loaded.provenance(opened)
    return capture_to_store(view, opened, folder, config=config, source=source, total_rows=found.cells)


class CellRows:
    """A model of cells that gives one row a cell: its embedding."""

    def __init__(self, model: CellModel, pooling: Pooling) -> None:
        self.model, self.pooling = model, pooling
        self.name = model.name
        self.sites: Mapping[str, Site] = {CELL_SITE: Site("")}

    def fingerprint(self) -> Fingerprint:
        """Say what gives the rows: the model, and how its tokens become one vector."""
        found = self.model.fingerprint()
        return Fingerprint(found.name, found.weights, found.config, digest_json([CELL_SITE, self.pooling]))

    def batches(self, data: Any, **settings: Any) -> Iterator[tuple[Any, pl.DataFrame]]:
        """Yield the model's batches with one row of metadata a cell."""
        for batch, metadata in self.model.batches(data, **settings):
            cells = metadata.unique("sample_id", keep="first", maintain_order=True)
            yield batch, cells.drop("token", "value", "read", strict=False)

    def keep(self, _batch: Any) -> None:
        """Every row is kept."""

    def __call__(self, batch: Any) -> Any:
        """Run the model."""
        return self.model(batch)

    def patch(self, edits: Mapping[str, Edit], *, metadata: pl.DataFrame | None = None) -> AbstractContextManager[None]:
        """Replace what the model's own sites give, and see what becomes of the embeddings."""
        return self.model.patch(edits, metadata=metadata)

    def capture(self, batch: Any, sites: Sequence[str] | None = None) -> Rows:
        """Return the embeddings of a batch's cells."""
        return {name: self.model.embed(batch, self.pooling) for name in sites or self.sites}
