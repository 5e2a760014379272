"""The bar that a sparse map has to beat: the best affine map from what is read to what is written.

1. Means and covariances of all columns, in one pass over the rows of the training split, in float64.
2. W = (Cxx + λ I)⁻¹ Cxy with λ a billionth of the mean variance, so that columns which hardly vary do no harm.

For a dictionary of several layers each written site has a map of its own, from the sites that come before it: those
that its features may use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elute.base.accumulate import Covariance
from elute.base.errors import DataError
from elute.dictionaries.spec import column_spans

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor

    from elute.dictionaries.spec import DictionarySpec
    from elute.store.reader import Store

    Floats = NDArray[np.float64]

_RIDGE = 1e-9
_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Affine:
    """y = x W + b, with the mean of y on the rows that it was fitted to."""

    reads: tuple[str, ...]
    weight: Tensor  # float32 [read, width]
    bias: Tensor
    mean: Tensor

    def __call__(self, given: Mapping[str, Tensor]) -> Tensor:
        """Map rows of the sites that are read."""
        import torch

        x = torch.cat([given[name] for name in self.reads], 1)
        return x @ self.weight.to(x.device) + self.bias.to(x.device)


def fit(store: Store, spec: DictionarySpec) -> dict[str, Affine]:
    """Fit a map for each site that a dictionary writes, on the rows of the training split."""
    where = store.select(split="train") if "split" in store.manifest.columns else store.everything
    if not where.rows:
        raise DataError("has no rows to train on", where=store.folder, remedy="Collect the pair anew.")
    names = list(dict.fromkeys([*spec.reads, *spec.writes]))
    batches = ({name: x.numpy() for name, x in rows.items()}
               for rows, _ in store.batches(_ROWS, where=where, sites=names, columns=["sample_id"]))  # fmt: skip
    return fit_rows(batches, spec)


def fit_rows(batches: Iterable[Mapping[str, NDArray[np.floating]]], spec: DictionarySpec) -> dict[str, Affine]:
    """Fit a map for each written site on rows that come in batches."""
    names = list(dict.fromkeys([*spec.reads, *spec.writes]))
    widths = {**spec.reads, **spec.writes}
    both = Covariance(sum(widths[name] for name in names))
    for rows in batches:
        both.update(np.concatenate([np.asarray(rows[name], np.float64) for name in names], 1))
    found = both.result()
    spans = column_spans({name: widths[name] for name in names})
    maps = {}
    for number, site in enumerate(spec.writes):
        reads = tuple(spec.reads)[: number + 1] if spec.kind == "clt" else tuple(spec.reads)
        x = np.concatenate([np.arange(spans[name].start, spans[name].stop) for name in reads])
        maps[site] = _solved(found.mean, found.covariance, x, reads=reads, y=spans[site])
    return maps


def _solved(mean: Floats, covariance: Floats, x: NDArray[np.int64], *, reads: tuple[str, ...], y: slice) -> Affine:
    import torch

    within = covariance[np.ix_(x, x)]
    ridge = _RIDGE * max(float(np.trace(within)) / len(x), 1e-30)
    weight = np.linalg.solve(within + ridge * np.eye(len(x)), covariance[x, y])
    bias = mean[y] - mean[x] @ weight
    plain = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (weight, bias, mean[y]))
    return Affine(reads, *plain)
