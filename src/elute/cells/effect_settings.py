"""Settings of what is changed in a run's model or cells, to see what follows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from elute.base.recipe import Section


class SteerConfig(Section):
    """What a feature is set to, on which cells, and beside what."""

    to: float | None = None
    """Value that its code gets in every row, also where it is silent."""
    times: float | None = None
    """Multiply its code by this; 2 if nothing is asked for."""
    off: bool = False
    """Put it out: its code becomes 0."""
    cells: int = Field(200, ge=2)
    """Held-out cells to read, stratified by cell type and donor."""
    cell_type: str | None = None
    """Cells of this type alone."""
    seed: int = Field(0, ge=0)
    """Seed of the sample, the controls and of which values are hidden."""
    controls: int = Field(20, ge=0)
    """Control directions of either kind: of features that fire about as often, and random ones."""
    doses: tuple[float, ...] = ()
    """Also so many times the change that is asked for; may be given several times."""
    hide: float = Field(0.4, ge=0, lt=1)
    """Share of a cell's values that are hidden, and at which predictions are read; 0 reads them at all, hiding none."""

    @model_validator(mode="after")
    def _one_way(self) -> SteerConfig:
        if (self.to is not None) + (self.times is not None) + self.off > 1:
            raise ValueError("a feature is set to one thing: give one of to, times and off")
        if self.times == 1:
            raise ValueError("times 1 leaves a feature as it is")
        return self


class PerturbConfig(Section):
    """What becomes of a gene, in which cells, and beside what."""

    how: Literal["absent", "up", "down"] = "absent"
    """Take its token away, or raise or lower its value to a quantile of what the model reads of it."""
    quantile: float = Field(0.9, gt=0.5, lt=1)
    """Quantile for up; for down it is 1 less this."""
    cells: int = Field(200, ge=3)
    """Held-out cells with the gene to read."""
    cell_type: str | None = None
    """Cells of this type alone."""
    seed: int = Field(0, ge=0)
    """Seed of the sample and of which values are hidden."""
    controls: int = Field(20, ge=0)
    """Genes like it in expression and detection that are changed in the same way."""
    control_cells: int = Field(50, ge=3)
    """Cells to read for each of them."""
    hide: float = Field(0.4, ge=0, lt=1)
    """Share of a cell's values that are hidden, and at which predictions are read; 0 reads them at all, hiding none."""
