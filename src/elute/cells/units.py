"""Which dictionaries a run trains, and where in its folder each of them lies.

One lies in the run's own folder; of several, each has a folder of its own, named by its site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base.errors import ConfigError

if TYPE_CHECKING:
    from elute.cells.feature_settings import FeatureConfig
    from elute.dictionaries.spec import Kind

NAME = "sae_final.pt"


@dataclass(frozen=True)
class Unit:
    """One dictionary: what it reads, what it writes, and its folder."""

    name: str
    folder: Path
    kind: Kind
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    given: Path | None = None  # a dictionary that lies elsewhere

    @property
    def dictionary(self) -> Path:
        """Its file, or the folder that holds it."""
        return self.given or self.folder / NAME

    @property
    def sites(self) -> tuple[str, ...]:
        """What has to be captured for it."""
        return tuple(dict.fromkeys([*self.reads, *self.writes]))


def lay_out(output: Path, kind: str, *, into: Sequence[str], out: Sequence[str]) -> list[Unit]:
    """Lay out a run's dictionaries, from the sites that are read and those that are written."""
    if kind == "clt":
        if len(into) < 2:
            remedy = "Give two with --layers, or take --kind transcoder."
            raise ConfigError("a cross-layer transcoder needs two layers or more", remedy=remedy)
        return [Unit("clt", output, "clt", tuple(into), tuple(out))]
    named: Kind = "transcoder" if kind == "transcoder" else "sae"
    several = len(out) > 1
    return [Unit(b, output / b if several else output, named, (a,), (b,)) for a, b in zip(into, out, strict=True)]


def auto_sizes(training: FeatureConfig, width: int) -> tuple[int, int]:
    """Return the numbers of features and of those that fire."""
    n = 32 * width if training.d_sae == "auto" else int(training.d_sae)
    k = max(1, width // 8) if training.k == "auto" else int(training.k)
    if k > n:
        raise ConfigError(f"k = {k} is more than the {n} features", remedy="Give a smaller --k or a larger --d-sae.")
    return n, k
