"""Features of two runs matched by what they write, beside two matches in which there is nothing to find.

1. Both dictionaries have to write the same sites, of the same width; models with other weights are told.
2. For each feature of the first run that fires: the feature of the second with the largest cosine.
3. The same with as many random directions, and with the second run's own directions after each of their columns was
   put in an order of its own: such directions keep how large each number of the model is, and lose what is one feature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import DataError, GuardError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

ALIKE = 0.7  # cosine at which a feature counts as found again, as in the control of another seed
_SEED = 1_000_003


def match(mine: Path, theirs: Path, tell: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Match the features of two sites' folders; returns a row a feature, and counts beside controls."""
    import torch

    from elute.engine.controls import shuffled_columns
    from elute.engine.recovery import recovery

    tell(0, 4, "reading two dictionaries")
    a, rows, b, others, same = _read(mine, theirs)
    generator = torch.Generator().manual_seed(_SEED)
    held = {
        "found": ("matching features", b),
        "random": ("control: random directions", torch.randn(b.shape, generator=generator)),
        "shuffled": ("control: shuffled columns", shuffled_columns(b, seed=(_SEED,))),
    }
    best = {}
    for i, (name, (words, directions)) in enumerate(held.items(), 1):
        tell(i, 4, words)
        best[name] = recovery(directions, a)
    found = best["found"]
    at = others["feature"].gather(found.nearest.tolist())
    names = others["told"].gather(found.nearest.tolist())
    return {
        "rows": [
            {"feature": f, "told": t, "other": o, "other told": u, "cosine": c, "random": r, "shuffled": s}
            for f, t, o, u, c, r, s in zip(
                rows["feature"].to_list(), rows["told"].to_list(), at.to_list(), names.to_list(),
                *(best[name].max_cosine.tolist() for name in held), strict=True,
            )
        ],
        "alike": {name: int((each.max_cosine >= ALIKE).sum()) for name, each in best.items()},
        "mean": {name: each.mean_max_cosine for name, each in best.items()},
        "features": [len(a), len(b)],
        "same model": same,
    }  # fmt: skip


def _read(mine: Path, theirs: Path) -> tuple[Tensor, pl.DataFrame, Tensor, pl.DataFrame, bool]:
    from elute.cells.associations import directions
    from elute.dictionaries.files import load_dictionary

    first, second = load_dictionary(mine), load_dictionary(theirs)
    a, b = directions(first), directions(second)
    if first.spec.writes != second.spec.writes or a.shape[1] != b.shape[1]:
        what = f"writes {_sites(second.spec.writes, b)}, and this run {_sites(first.spec.writes, a)}"
        raise GuardError(what, where=theirs, remedy="Only what is written to the same sites can be compared.")
    one, other = (_weights(each.spec.source) for each in (first, second))
    return (*_alive(a, mine), *_alive(b, theirs), one == other)


def _weights(source: dict[str, Any]) -> object:
    """The digest of the weights that a dictionary's rows came from, where it is known."""
    model = source.get("model")
    return model.get("weights") if isinstance(model, dict) else None


def _sites(names: Any, directions: Tensor) -> str:
    return f"{', '.join(names)} of width {directions.shape[1]:,}"


def _alive(directions: Tensor, folder: Path) -> tuple[Tensor, pl.DataFrame]:
    """Directions of the features that fire, and a row of words for each; without a table all count."""
    import polars as pl

    from elute.analysis.run_tables import FEATURES, read_table

    if not (folder / FEATURES).is_file():
        numbers = range(len(directions))
        return directions, pl.DataFrame({"feature": numbers, "told": [None] * len(directions)})
    frame = read_table(folder, FEATURES).sort("feature")
    words = [pl.col(name) for name in ("name", "cell_type", "kind") if name in frame.columns]
    told = pl.coalesce([*words, pl.lit(None, pl.String)]).alias("told")
    kept = frame.filter(pl.col("alive")) if "alive" in frame.columns else frame
    kept = kept.select("feature", told).filter(pl.col("feature") < len(directions))
    if kept.is_empty():
        raise DataError("has no feature that fires", where=folder)
    return directions[kept["feature"].to_list()], kept
