"""Where tiles of tissue come from, and how a slide is cut into them.

    tiles:
      images: tiles/                      # a folder of images, or one file of packed JPEGs
      table: tiles.csv                    # a row a tile, or with `slides` a row a slide or a spot
      columns: {sample: section+spot, group: patient, x: pixel_x, y: pixel_y, label: annotation}

A role that is not named is read from the column of its usual name (`USUAL`), where there is one. `a+b` joins columns
with `_`. `sample_column: spot` is another way to write `columns: {sample: spot}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from elute.base.errors import near
from elute.base.recipe import Section

USUAL = {
    "sample": "sample_id",
    "tile": "tile_id",
    "group": "group",
    "section": "section",
    "x": "x",
    "y": "y",
    "label": "label",
    "path": "path",
    "offset": "offset",
    "nbytes": "nbytes",
}
_ALSO = {"patient": "group", "site": "group", "donor": "group", "slide": "path", "file": "path"}


class TilesConfig(Section):
    """Which tiles of tissue are read."""

    images: Path | None = None
    """Folder of images (a sub-folder is a patient), or one file of JPEGs laid end to end, with a table of offsets."""
    table: Path | None = None
    """Table (.csv, .tsv, .parquet): a row a tile; with slides a row a spot (x and y), or a row a slide."""
    slides: Path | None = None
    """Whole-slide image or a folder of them, to be cut into tiles."""
    columns: tuple[str, ...] = ()
    """role=column of the table: sample, tile, group (patient or site), section, x, y, label, path, offset, nbytes."""
    tile_size: int | None = Field(None, ge=8, le=8192)
    """Pixels of a tile's side; 224 for slides if not given, else that of the images."""
    microns_per_pixel: float | None = Field(None, gt=0, le=100)
    """Scale at which slides are cut, or at which the tiles were; a slide's own if not given."""
    stride: int | None = Field(None, ge=1)
    """Pixels from one tile of a slide to the next; the tile's size if not given."""
    tissue_share: float = Field(0.5, ge=0, le=1)
    """Share of a tile of a slide that must be tissue; 0 takes every tile."""
    max_tiles: int | None = Field(None, ge=1)
    """Most tiles of each slide, or of the table, spread evenly; all if not given."""

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, given: Any) -> Any:
        """Fold `columns: {role: column}` and `role_column: column` into one list."""
        if not isinstance(given, Mapping):
            return given
        held, texts = dict(given), given.get("columns") or ()
        if isinstance(texts, Mapping):
            texts = [f"{role}={column}" for role, column in texts.items() if column is not None]
        elif isinstance(texts, str):
            texts = [texts]
        apart = [key for key in held if str(key).removesuffix("_column") in {*USUAL, *_ALSO} and key not in USUAL]
        apart = [key for key in apart if str(key).endswith("_column")]
        found = [f"{key.removesuffix('_column')}={column}" for key in apart if (column := held.pop(key)) is not None]
        return {**held, "columns": (*texts, *found)}

    @field_validator("columns")
    @classmethod
    def _roles(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for text in given:
            role, equals, column = (part.strip() for part in text.partition("="))
            role = _ALSO.get(role, role)
            if not equals or not column:
                raise ValueError(f"{text!r} is not role=column, as in sample=spot")
            if role not in USUAL:
                raise ValueError(f"{role!r} is no role of a column. {near(role, {*USUAL, *_ALSO})}")
            if found.setdefault(role, column) != column:
                raise ValueError(f"two columns are named for {role}: {found[role]!r} and {column!r}")
        return tuple(f"{role}={found[role]}" for role in USUAL if role in found)

    @property
    def roles(self) -> dict[str, str]:
        """The columns that were named, by role."""
        return {role: column for role, _, column in (text.partition("=") for text in self.columns)}
