"""The settings of particles that are made up: light to import, for command lines."""

from __future__ import annotations

from pydantic import Field

from elute.base.recipe import Section


class MadeConfig(Section):
    """Particles that are made up, in tomograms, seen by two sources."""

    seed: int = Field(0, ge=0)
    """Seed of everything."""
    classes: int = Field(6, ge=2, le=24)
    """Classes of particles."""
    runs: int = Field(20, ge=2, le=999)
    """Tomograms."""
    per_run: int = Field(90, ge=1, le=100_000)
    """Particles of a tomogram."""
    widths: tuple[int, int] = (32, 32)
    """Numbers of an embedding, of the first source (as CryoLens) and of the second (as TomoTwin)."""
    common: float = Field(1.0, ge=0, le=20)
    """How far classes lie apart in what both sources see; both see it with the same noise."""
    own: float = Field(1.5, ge=0, le=20)
    """How far classes lie apart in what one source alone sees; with 0 fusion gains next to nothing."""
    noise: float = Field(0.3, gt=0, le=20)
    """Noise of each number of an embedding; what a particle itself differs by from its class is 1."""
    shift: float = Field(0.3, ge=0, le=20)
    """How far a tomogram shifts each number of its embeddings."""
    mixing: float = Field(2.0, gt=0)
    """How alike tomograms are in which classes they hold: the smaller, the more each has its own."""
    jitter: float = Field(4.0, ge=0, le=40)
    """Å by which the second source's coordinates lie off the first one's, at most."""
    lost: float = Field(0.05, ge=0, lt=1)
    """Share of the particles that a source does not have."""
