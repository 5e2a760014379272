"""The rows of a pair as a training takes them: which instances it learns from, and what they are normalised by.

1. Instances fall into training, validation and test as they did when the pair was collected. A share for validation
   that is asked for here is drawn over the instances of training and validation, test stays as it is.
2. Of the training instances the first are taken, whole, where a number of rows is given.
3. Mean and spread are measured on the training rows that are left, in one pass, and on nothing else.

Nothing is held in memory but one window of rows (store/shuffle.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.accumulate import Moments
from elute.base.errors import ConfigError, DataError
from elute.base.statistics.splits import draw_splits
from elute.engine.given import Stored

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.dictionaries.folding import Affine
    from elute.routing.clt_settings import EpochsConfig, Normalise
    from elute.store.rows import Selection

STATISTICS = "normalization_stats.json"
_ROWS = 8192


class PairRows(Stored):
    """Training, validation and test rows of a pair's store; `methods` say how each site is normalised."""

    def __init__(self, folder: Path, *, methods: Mapping[str, Normalise], epochs: EpochsConfig) -> None:
        super().__init__(folder, method="none", by=None)
        self.methods = dict(methods)
        self.parts = _parts(self, epochs)
        self.where = self.parts["train"]
        self._moments: dict[str, Any] = {}

    @property
    def held_out(self) -> str:
        """The split to judge by: test, where there is one."""
        return "test" if "test" in self.parts else "validation"

    def inputs(self) -> dict[str, str]:
        """Name what is trained on: the store, which of its rows, and how they are normalised."""
        told = ", ".join(f"{name}: {method}" for name, method in self.methods.items())
        return {**super().inputs(), "normalisation": told}

    def measure(self, sites: Sequence[str], output: Path) -> None:
        """Measure mean and spread of the training rows."""
        del output
        found = {name: Moments(self.store.sites[name]) for name in sites}
        for rows, _ in self.batches("train", sites=sites):
            for name, x in rows.items():
                found[name].update(x)
        self._moments = {name: moments.result() for name, moments in found.items()}

    def keep(self, output: Path) -> None:
        """Write what was measured beside the dictionary."""
        sites = {
            name: {"method": self.methods[name], "mean": told.mean.tolist(), "std": told.std.tolist()}
            for name, told in self._moments.items()
        }
        told = {"split": "train", "rows": self.where.rows, "store": self.store.manifest.store, "sites": sites}
        files.write_json(output / STATISTICS, told)

    def normalisation(self, rows: dict[str, Tensor], *, k: int) -> dict[str, Affine]:
        """Return each site's normalisation."""
        return {name: self._affine(name, k) for name in rows}

    def mean(self, site: str) -> Tensor:
        """Mean of a site over the training rows."""
        import torch

        return torch.from_numpy(self._moments[site].mean).float()

    def batches(
        self, split: str, *, sites: Sequence[str], columns: Sequence[str] = ("sample_id",), size: int = _ROWS
    ) -> Iterator[tuple[dict[str, Tensor], pl.DataFrame]]:
        """Yield rows of a split in order, float32."""
        where = self.parts[split]
        for rows, frame in self.store.batches(size, where=where, sites=list(sites), columns=list(columns)):
            yield {name: x.float() for name, x in rows.items()}, frame

    def _affine(self, name: str, k: int) -> Affine:
        import torch

        from elute.dictionaries.folding import Affine

        told, method = self._moments[name], self.methods[name]
        mean, std = torch.from_numpy(told.mean), torch.from_numpy(told.std)
        square = float(std.square().sum())
        if square <= 1e-12 * max(1.0, float(mean.square().sum())):
            raise DataError(f"site {name!r} does not vary", where=self.store.folder, remedy="Choose another pair.")
        ones = torch.ones_like(mean)
        back = {"scale": ones * (square / k) ** 0.5, "standard": torch.where(std > 0, std, ones)}.get(method, ones)
        shift = mean if method != "none" else torch.zeros_like(mean)
        return Affine(shift.float(), (1 / back).float(), back.float())


def _parts(rows: PairRows, epochs: EpochsConfig) -> dict[str, Selection]:
    """Choose the rows of each split."""
    store = rows.store
    if lost := [c for c in ("sample_id", "group") if c not in store.manifest.columns]:
        remedy = "Collect it with `elute routing collect-pairs`."
        raise DataError(f"the rows have no column {lost[0]!r}, by which instances are kept together",
                        where=store.folder, remedy=remedy)  # fmt: skip
    split: dict[str, str] = {}
    counts: dict[str, int] = {}
    columns = ["group", *(["split"] if "split" in store.manifest.columns else [])]
    for low, high in itertools.pairwise(store.starts):
        table = store.metadata(low, high, columns=columns).group_by(columns, maintain_order=True).len()
        for group, *part, n in table.iter_rows():
            split[group] = part[0] if part else "train"
            counts[group] = counts.get(group, 0) + n
    ratio = epochs.val_ratio
    if ratio is None and "validation" not in split.values():
        ratio = 0.1  # without rows to hold out nothing could be said of it
    if ratio is not None:
        _redraw(split, ratio, epochs.seed, store.folder)
    if epochs.max_samples is not None:
        _first(split, counts, epochs.max_samples, store.folder)
    groups = {name: [g for g, part in split.items() if part == name] for name in ("train", "validation", "test")}
    return {name: store.select(group=known) for name, known in groups.items() if known}


def _redraw(split: dict[str, str], ratio: float, seed: int, where: Path) -> None:
    """Draw validation anew over the instances of training and validation."""
    drawn = [group for group, part in split.items() if part in ("train", "validation")]
    try:
        split.update(draw_splits(drawn, fractions={"train": 1 - ratio, "validation": ratio}, seed=seed))
    except (ConfigError, DataError) as error:
        raise type(error)(error.what, where=where, remedy="Collect more instances, or change --val-ratio.") from None


def _first(split: dict[str, str], counts: Mapping[str, int], most: int, where: Path) -> None:
    """Keep the first training instances that fit into so many rows."""
    held = 0
    full = False
    for group, part in split.items():
        if part == "train":
            full = full or held + counts[group] > most
            held += 0 if full else counts[group]
            split[group] = "left out" if full else part
    if not held:
        what = f"{most} rows hold no whole instance"
        raise ConfigError(what, where=where, remedy="Raise --max-samples: instances are taken whole.")
