"""What features of a cell's graph fire at: genes of held-out cells, a share of whose values is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from elute.cells.reopening import Reopened
    from elute.graphs.result import Explained

_GENES = 8  # examples of a feature
_NAMED = 3  # genes in its label
_PRIOR = 5  # rows that every gene is given at which nothing fires, so that rare ones do not lead by chance


def meanings(opened: Reopened, made: Explained, *, most: int, hidden: float) -> dict[str, dict[str, Any]]:
    """Return, by `layer_feature`, the genes at which a feature fires the most, and how often it fires."""
    import torch

    from elute.cells.reopening import showing
    from elute.cells.transcoders import FRONT, Hiding

    chosen = made.kept.nodes.filter(pl.col("kind") == "feature").select("layer", "feature").unique()
    chosen = chosen.sort("layer", "feature").with_row_index("at")
    if not chosen.height:
        return {}
    replacement, model = made.replacement, opened.model
    symbols = opened.genes["symbol"].fill_null("").to_list()
    number = {name: i for i, name in enumerate(opened.genes["gene"].to_list())}
    size = (chosen.height, len(symbols) + 1)  # the last one is the cell's own token
    total, fired, blind = np.zeros(size), np.zeros(chosen.height), np.zeros(chosen.height)
    rows_of = np.zeros(size[1])
    places = showing(opened.recorded, most=most, seed=0)
    for batch, frame in Hiding(model, hidden, 0).batches(opened.cells.subset(places)):
        given = model.capture(batch, list(replacement.layers.reads))
        gene = np.array([number.get(token, size[1] - 1) for token in frame["token"]])
        unseen = batch["generated"][batch["keep"]].numpy()
        np.add.at(rows_of, gene, 1.0)
        coded = replacement.coders.encode([given[name].to(replacement.dtype) for name in replacement.layers.reads])
        for layer, part in chosen.group_by("layer", maintain_order=True):
            code = coded[int(layer[0])]
            wanted = torch.full((replacement.coders.n_features[int(layer[0])],), -1)
            wanted[torch.from_numpy(part["feature"].to_numpy().copy())] = torch.from_numpy(
                part["at"].to_numpy().astype(np.int64)
            )
            at = wanted.to(code.idx.device)[code.idx]
            row, slot = ((at >= 0) & code.fired).nonzero(as_tuple=True)
            which, row_ = at[row, slot].cpu().numpy(), row.cpu().numpy()
            np.add.at(total, (which, gene[row_]), code.val[row, slot].double().cpu().numpy())
            np.add.at(fired, which, 1.0)
            np.add.at(blind, which, unseen[row_].astype(float))
    names = [*symbols, FRONT]
    mean = total / (rows_of + _PRIOR)
    return {
        f"{layer}_{feature}": _told(
            names, mean[at], fired[at] / max(1.0, rows_of.sum()), blind[at] / max(1.0, fired[at])
        )
        for at, layer, feature in chosen.iter_rows()
    }


def _told(names: list[str], mean: np.ndarray[Any, Any], often: float, blind: float) -> dict[str, Any]:
    order = [int(i) for i in np.argsort(-mean, kind="stable")[:_GENES] if mean[i] > 0]
    return {
        "label": ", ".join(names[i] for i in order[:_NAMED]) or None,
        "examples": [{"what": names[i], "value": round(float(mean[i]), 6)} for i in order],
        "facts": {"fires in": f"{often:.1%} of tokens", "of those hidden": f"{blind:.0%}"},
    }
