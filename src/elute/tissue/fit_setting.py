"""What heads and their controls share: the samples with their folds, and what is predicted of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.heads.settings import HeadConfig

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.heads.crossval import Nested

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Setting:
    """What all controls share: the samples with their folds, and what is predicted of them."""

    samples: pl.DataFrame  # sample_id, group, section, x, y, split, fold
    y: Array  # [n, G] on the scale that is fitted
    offset: Array | None
    config: HeadConfig

    @property
    def groups(self) -> list[str]:
        """The patient or site of each sample."""
        return self.samples["group"].to_list()

    @property
    def folds(self) -> Array:
        """The fold of each sample."""
        return self.samples["fold"].to_numpy().astype("int64")

    def fit(self, x: Any, *, prepare: Any = None, title: str, config: HeadConfig | None = None) -> Nested:
        """Fit and predict fold by fold."""
        from elute.heads.crossval import nested

        config = config or self.config
        with console.progress(title, config.folds + 1, unit="fits") as bar:
            return nested(x, self.y, self.folds, groups=self.groups, config=config, offset=self.offset,
                          prepare=prepare, progress=lambda done, _: bar.advance(done - bar.done))  # fmt: skip

    def part(self, rows: Array) -> Setting:
        """Return the same of some samples."""
        import polars as pl

        offset = None if self.offset is None else self.offset[rows]
        return replace(self, samples=self.samples[pl.Series(rows)], y=self.y[rows], offset=offset)


def sections_of(samples: pl.DataFrame) -> list[str]:
    """The section of each sample; its patient where no section is known."""
    import polars as pl

    return samples.select(pl.coalesce("section", "group")).to_series().to_list()
