"""All settings of a run from tiles to genes, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.heads.settings import AttentionConfig, HeadConfig
from elute.reports.tissue.settings import TissueReportConfig
from elute.store.splitting import SplitConfig
from elute.tissue.embed_settings import EmbeddingConfig, EncoderConfig
from elute.tissue.settings import CodesConfig, ControlsConfig, CrpConfig, SaeConfig, TargetsConfig
from elute.tissue.tile_settings import TilesConfig

if TYPE_CHECKING:
    from elute.base.recipe import Section

SECTIONS: dict[str, type[Section]] = {
    "tiles": TilesConfig,
    "encoder": EncoderConfig,
    "embedding": EmbeddingConfig,
    "split": SplitConfig,
    "sae": SaeConfig,
    "codes": CodesConfig,
    "targets": TargetsConfig,
    "heads": HeadConfig,
    "attention": AttentionConfig,
    "controls": ControlsConfig,
    "crp": CrpConfig,
    "reports": TissueReportConfig,
}


@dataclass(frozen=True)
class Plan:
    """One run: its folder, and the settings of every stage."""

    output: Path
    tiles: TilesConfig
    encoder: EncoderConfig
    embedding: EmbeddingConfig
    split: SplitConfig
    sae: SaeConfig
    codes: CodesConfig
    targets: TargetsConfig
    heads: HeadConfig
    attention: AttentionConfig
    controls: ControlsConfig
    crp: CrpConfig
    reports: TissueReportConfig

    @classmethod
    def of(cls, output: Path | str, sections: dict[str, Any] | None = None) -> Plan:
        """Fill in what is not given by its defaults."""
        made: dict[str, Any] = {name: (sections or {}).get(name) or kind() for name, kind in SECTIONS.items()}
        return cls(Path(output), **made)

    def sections(self) -> dict[str, Section]:
        """All settings by the names of their sections."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "output"}

    @property
    def embeddings(self) -> Path:
        """The store that the dictionary is trained on and encodes: rows of patches, or else of tiles."""
        return self.output / "embeddings"

    @property
    def dictionary(self) -> Path:
        """The dictionary's file."""
        return self.output / "sae.pt"

    @property
    def coded(self) -> Path:
        """The sparse codes of every row."""
        return self.output / "codes"
