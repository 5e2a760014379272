"""The settings of the demonstration: light to import, for command lines."""

from __future__ import annotations

from pydantic import Field

from elute.base.recipe import Section


class DemoConfig(Section):
    """How made-up particles are judged."""

    n_folds: int = Field(5, ge=2)
    """Parts of the particles; each is held out once."""
    attention_epochs: int = Field(20, ge=1)
    """Passes over the training particles of the attention fusion."""
    n_resamples: int = Field(1000, ge=100)
    """Draws of runs for an interval."""
    features: bool = True
    """Find sparse features of the fused embeddings too."""
