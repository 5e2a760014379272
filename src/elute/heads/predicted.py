"""Held-out predictions of genes, with what would have been predicted without codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from elute.heads.design import Floats, Ints
from elute.heads.expected import expected_log1p_cpm
from elute.heads.links import log1p_cpm
from elute.heads.settings import Loss


@dataclass(frozen=True, eq=False)
class Predictions:
    """Targets and predictions [n, G] of samples that were not fitted.

    `mean` and `null_mean` are on the scale of the targets: what the head predicts, and what the same loss predicts
    from the same training samples without codes. `measured`, `predicted` and `reference` are those three on the scale
    that is shown: the targets' own for squared error, log(1 + counts per million) for counts.
    """

    loss: Loss
    y: Floats
    mean: Floats
    null_mean: Floats
    folds: Ints  # [n]
    offset: Floats | None  # [n], the log of the library size
    dispersion: Floats | None  # [n, G]
    measured: Floats
    predicted: Floats
    reference: Floats


def predictions(
    loss: Loss,
    y: Floats,
    folds: Ints,
    *,
    mean: Floats,
    null_mean: Floats,
    offset: Floats | None = None,
    dispersion: Floats | None = None,
    null_dispersion: Floats | None = None,
) -> Predictions:
    """Add the scale that is shown; without an offset counts are of samples of a million each.

    A sample's own depth shifts log(1 + counts per million) of rare genes, and is measured with the targets. So what is
    predicted is shown as at one depth for all, the median: nothing that is known of the targets goes into it.
    """
    held: dict[str, Any] = {"loss": loss, "y": y, "mean": mean, "null_mean": null_mean, "folds": folds}
    if loss == "mse":
        return Predictions(**held, offset=None, dispersion=None, measured=y, predicted=mean, reference=null_mean)
    library = np.full(len(y), 1e6) if offset is None else np.exp(offset)
    return Predictions(
        **held,
        offset=offset,
        dispersion=dispersion,
        measured=log1p_cpm(y, library),
        predicted=_at_one_depth(mean, library, dispersion),
        reference=_at_one_depth(null_mean, library, null_dispersion),
    )


def _at_one_depth(mean: Floats, library: Floats, dispersion: Floats | None) -> Floats:
    depth = float(np.median(library))
    return expected_log1p_cpm(mean * (depth / library)[:, None], np.full(len(library), depth), dispersion)
