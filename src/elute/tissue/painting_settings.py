"""The settings of a painted cohort: light to import, for command lines."""

from __future__ import annotations

from pydantic import Field, model_validator

from elute.base.recipe import Section


class PaintConfig(Section):
    """A painted cohort."""

    seed: int = Field(0, ge=0)
    """Seed of everything."""
    patients: int = Field(12, ge=2, le=999)
    """Patients, with one section each."""
    side: int = Field(12, ge=2, le=200)
    """Tiles along a section's side."""
    tile_size: int = Field(64, ge=32, le=512)
    """Pixels of a tile's side; a pixel is a micrometre."""
    patch: int = Field(8, ge=4)
    """Pixels of a patch's side: the unit in which the truth is told."""
    stain: float = Field(1.0, ge=0, le=3)
    """How much patients differ in stain; 0 stains all alike."""
    effect: float = Field(10.0, ge=0)
    """How many times its base a planted gene gains where its structure fills a tile."""
    patient_spread: float = Field(0.15, ge=0, le=2)
    """Spread of the logarithm of every gene from patient to patient."""
    dispersion: float = Field(0.1, gt=0, le=10)
    """Dispersion of the counts: their variance is mean + dispersion · mean²."""
    library: float = Field(20_000, gt=0)
    """Library of a tile full of epithelium, about."""

    @model_validator(mode="after")
    def _fits(self) -> PaintConfig:
        if self.tile_size % self.patch:
            raise ValueError(f"patches of {self.patch} pixels do not tile {self.tile_size}")
        return self
