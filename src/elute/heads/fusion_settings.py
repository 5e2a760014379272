"""The settings of fusion networks: light to import, for command lines."""

from __future__ import annotations

from pydantic import Field

from elute.base.recipe import Section

_LEAST, _MOST = (128, 64), (512, 256)


class FusionConfig(Section):
    """A network that makes one vector of several, and how it learns."""

    width: int = Field(32, ge=1)
    """Width of the fused vector."""
    hidden: tuple[int, int] | None = None
    """Widths of the hidden layers; 2 and 1 times that of all sources if not given, 128 and 64 to 512 and 256."""
    dropout: tuple[float, float] = (0.3, 0.2)
    """Share of each hidden layer that is left out of a step."""
    epochs: int = Field(20, ge=1)
    """Passes over the training rows."""
    batch_size: int = Field(64, ge=2)
    """Most rows of a step; batches are of equal size, so that none is left with one row."""
    lr: float = Field(1e-3, gt=0)
    """Adam's step size."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the order of rows, and what is left out."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Seconds between two checkpoints; 0 writes one a step."""

    def layers(self, widths: tuple[int, ...]) -> tuple[int, int]:
        """Widths of the hidden layers for sources of these widths."""
        total = sum(widths)
        first, second = (min(max(size, a), b) for size, a, b in zip((2 * total, total), _LEAST, _MOST, strict=True))
        return self.hidden or (first, second)
