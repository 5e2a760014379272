"""How large a tissue report may become, and how many tiles a code shows."""

from __future__ import annotations

from pydantic import Field

from elute.base.recipe import Section


class TissueReportConfig(Section):
    """What the report of a tissue run shows."""

    size_budget_mb: float = Field(default=200.0, gt=0)
    """Megabytes of all pages together; tiles are made smaller, then fewer, until they fit."""
    tiles_per_code: int = Field(default=8, ge=1, le=64)
    """Reference tiles of a code, on its own page and on that of each gene."""
    codes_per_gene: int = Field(default=10, ge=1, le=100)
    """Codes of a gene that are shown with tiles, of those that raise its prediction and of those that lower it."""
    spots_per_page: int = Field(default=20_000, ge=100)
    """Samples that the maps of one page draw; sections beyond that are named and left out."""
