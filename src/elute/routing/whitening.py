"""A pair's rows centred, standardised or whitened while they are streamed; the rows on disk stay as they are.

    none        as they are
    center      less their mean
    standard    each dimension centred and divided by its standard deviation
    pca         whitened (the pair has to be collected with --scaling pca)

Every number comes from the training rows alone. A dimension that never varies is not divided by its spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from elute.base.errors import ConfigError, near

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.dictionaries.folding import Affine
    from elute.routing.pairs import Pair

Method = Literal["none", "center", "standard", "pca"]


@dataclass(frozen=True, eq=False)
class Scaler:
    """What is done to the rows of some sites that stand side by side, and how it is undone."""

    parts: tuple[Affine, ...]

    def apply(self, x: Tensor) -> Tensor:
        """Scale rows."""
        import torch

        widths = [len(part.shift) for part in self.parts]
        return torch.cat(
            [part.apply(piece) for part, piece in zip(self.parts, torch.split(x, widths, 1), strict=True)], 1
        )

    def invert(self, y: Tensor) -> Tensor:
        """Undo `apply`; what a whitening left out comes back as the mean."""
        import torch

        pieces = torch.split(y, [part.width for part in self.parts], 1)
        back = [
            (piece * part.B if part.B.ndim == 1 else piece @ part.B) + part.shift
            for part, piece in zip(self.parts, pieces, strict=True)
        ]
        return torch.cat(back, 1)


def scaler(pair: Pair, sites: Sequence[str], method: Method) -> Scaler:
    """Return the scaling of some sites of a pair's store."""
    import torch

    from elute.dictionaries.folding import Affine

    if method not in get_args(Method):
        raise ConfigError(f"there is no scaling {method!r}", where=pair.folder, remedy=near(method, get_args(Method)))
    kept = pair.scaling
    if method == "pca" and kept.record["method"] != "pca":
        remedy = f"elute arrays stats {pair.folder} --method pca measures it."
        raise ConfigError("no whitening was measured for this pair", where=pair.folder, remedy=remedy)
    parts = []
    for name in sites:
        site = kept.site(name)
        mean = torch.from_numpy(site.mean).float()
        ones = torch.ones_like(mean)
        if method == "pca":
            parts.append(Affine(mean, torch.from_numpy(site.forth).float(), torch.from_numpy(site.back).float()))
        elif method == "standard":
            std = torch.from_numpy(site.std).float()
            std[list(site.constant)] = 1.0
            parts.append(Affine(mean, 1 / std, std))
        else:
            parts.append(Affine(mean if method == "center" else torch.zeros_like(mean), ones, ones))
    return Scaler(tuple(parts))


def scalers(pair: Pair, *, source: Method = "standard", target: Method = "standard") -> tuple[Scaler, Scaler]:
    """Return the scalings of a pair's sources and targets."""
    return scaler(pair, pair.spec.source_sites, source), scaler(pair, pair.spec.target_sites, target)


def scaled_batches(
    pair: Pair, *, source: Method = "standard", target: Method = "standard", split: str | None = None, size: int = 4096
) -> Iterator[tuple[Tensor, Tensor, pl.DataFrame]]:
    """Yield scaled rows of the source and of the target with their metadata."""
    one, other = scalers(pair, source=source, target=target)
    for x, y, frame in pair.batches(size, split=split):
        yield one.apply(x), other.apply(y), frame
