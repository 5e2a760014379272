"""All settings of a run from cells to features, and what of them each stage depends on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.cells.feature_settings import DashboardConfig, ExtractConfig, FeatureConfig, ValidationConfig
from elute.cells.settings import ModelConfig, SitesConfig
from elute.engine.capture import CaptureConfig
from elute.engine.tracking import TrackConfig
from elute.models.cells.cellfile import CellsConfig
from elute.validation.settings import DatabaseConfig

if TYPE_CHECKING:
    from elute.base.recipe import Section


@dataclass(frozen=True)
class Plan:
    """One run: its cells, its folder, and the settings of every stage."""

    data: Path
    output: Path
    cells: CellsConfig
    model: ModelConfig
    sites: SitesConfig
    capture: CaptureConfig
    training: FeatureConfig
    track: TrackConfig
    extract: ExtractConfig
    validation: ValidationConfig
    databases: DatabaseConfig
    dashboard: DashboardConfig

    @classmethod
    def of(cls, data: Path, output: Path, sections: dict[str, Any]) -> Plan:
        """Fill in what is not given by its defaults."""
        made: dict[str, Any] = {
            "cells": CellsConfig, "model": ModelConfig, "sites": SitesConfig, "capture": CaptureConfig,
            "training": FeatureConfig, "track": TrackConfig, "extract": ExtractConfig,
            "validation": ValidationConfig, "databases": DatabaseConfig, "dashboard": DashboardConfig,
        }  # fmt: skip
        return cls(Path(data), Path(output), **{name: sections.get(name) or kind() for name, kind in made.items()})

    def sections(self) -> dict[str, Section]:
        """All settings by the names of their sections."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in held.items() if name not in ("data", "output")}

    @property
    def activations(self) -> Path:
        """Where the rows lie."""
        return self.output / "activations"
