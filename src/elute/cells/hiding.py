"""Batches of cells with some of their values hidden: how a model that learnt to tell hidden values is asked for them.

A model of our own (`elute cells pretrain`) learns from hidden values alone, and what it says of a value that it sees
means nothing: on the demonstration's held-out cells R² is .34 for hidden values and below 0 for visible ones. So of
each cell a share of the genes is hidden, drawn by the cell's name, and predictions are read there. Codes of features
are read with nothing hidden, which is how the dictionary saw the model.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.analysis.rerunning import Round
    from elute.base.mergeable import Integers

_MASKED = ("tahoe-x1-70m", "tahoe-x1-1.3b")  # were trained under a mask: a hidden gene is seen by itself alone


def rounds(
    model: Any, batch: Any, frame: pl.DataFrame, *, gene: Integers, hide: float, seed: int, coded: bool,
    visible: Any = None,
) -> list[Round]:  # fmt: skip
    """Return how a batch is read: with values hidden for predictions, and as it is for codes.

    With `hide` 0 predictions are read at all genes as they are. `visible` marks rows that are not to be hidden.
    """
    import torch

    from elute.analysis.rerunning import Round

    if "values" not in batch:  # a model that reads ranks predicts no values
        return [Round(batch, None, coded)] if coded else []
    may = gene >= 0 if visible is None else (gene >= 0) & ~visible
    if hide == 0:
        return [Round(batch, torch.from_numpy(may), coded)]
    mask = torch.from_numpy(_drawn(frame, may, share=hide, seed=seed))
    masked = hidden(model, batch, mask)
    plain = [Round(batch, None, coded)] if coded else []
    return [Round(masked, mask, False), *plain]


def hidden(model: Any, batch: Any, rows: Tensor) -> dict[str, Any]:
    """Hide the values of a batch's rows that are chosen, as the model was trained to see them hidden."""
    masked = {**batch, "generated": at_rows(batch, rows)}
    if model.name.startswith(_MASKED):
        masked["generative_mask"] = True
    return masked


def at_rows(batch: Any, rows: Tensor) -> Tensor:
    """Turn a choice of rows into one of positions, [cells, tokens]."""
    import torch

    chosen = torch.zeros_like(batch["keep"])
    chosen[batch["keep"]] = rows
    return chosen


def _drawn(frame: pl.DataFrame, may: Any, *, share: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Draw a share of each cell's rows, at least one and never all of them."""
    names = frame["sample_id"].cast(str).to_numpy()
    edges = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1], [True]]))
    chosen = np.zeros(len(names), bool)
    for start, stop in pairwise(edges):
        places = np.flatnonzero(may[start:stop]) + start
        name = hashlib.blake2b(str(names[start]).encode(errors="replace"), digest_size=8).digest()
        rng = np.random.default_rng([seed, int.from_bytes(name, "little")])
        n = min(max(1, round(share * len(places))), len(places) - 1)
        chosen[rng.permutation(places)[: max(n, 0)]] = True
    return chosen
