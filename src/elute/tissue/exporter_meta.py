"""What a training loop hands over: its pictures, and what it says of them in the columns of stored rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from elute.base.errors import DataError, near
from elute.models.vision.preprocessing import checked_pictures
from elute.tissue.tile_table import SCHEMA

if TYPE_CHECKING:
    from elute.models.vit import Vit

KEY = ["sample_id", "tile_id", "augment_seed", "epoch"]
_ALSO = {"split_tag": "split", "patient": "group", "site": "group"}
_KINDS: dict[str, Any] = {
    "sample_id": pl.String,
    "tile_id": pl.String,
    "group": pl.String,
    "split": pl.String,
    "augment_seed": pl.Int64,
    "epoch": pl.Int32,
}
_WHERE = "meta"


def read_meta(meta: Any, n: int) -> pl.DataFrame:
    """Take a frame, a mapping of columns (one value stands for all rows), or a list of mappings, one a picture."""
    columns = _columns(meta)
    told: dict[str, pl.Series] = {}
    for name, given in columns.items():
        column = _ALSO.get(name, name)
        if column in told:
            raise DataError(f"{name} and {column} are both given", where=_WHERE, remedy="Give one of them.")
        values = _values(given, n)
        if len(values) != n:
            what = f"{name} has {len(values)} values for {n} pictures"
            raise DataError(what, where=_WHERE, remedy="Give one a picture, or one for all.")
        if column in _KINDS or column in SCHEMA:
            told[column] = _cast(values, _KINDS.get(column, SCHEMA.get(column)), name)
    for name in ("sample_id", "group"):
        if name not in told:
            word = "patient or site, by which splits are drawn" if name == "group" else "name of each sample"
            raise DataError(f"has no {name}: the {word}", where=_WHERE, remedy=near(name, columns))
    told.setdefault("tile_id", told["sample_id"])
    told.setdefault("augment_seed", pl.Series([0] * n, dtype=pl.Int64))
    told.setdefault("epoch", pl.Series([0] * n, dtype=pl.Int32))
    for name in ("sample_id", "tile_id", "group", "augment_seed", "epoch"):
        if told[name].null_count():
            row = told[name].is_null().arg_true()[0]
            raise DataError(f"{name} is missing for picture {row} of this batch", where=_WHERE, remedy="Give it.")
    return pl.DataFrame([series.alias(name) for name, series in told.items()])


def are_floats(images: Any) -> bool:
    """Whether pictures are on the encoder's scale already."""
    return isinstance(images, Tensor) and images.is_floating_point()


def pixels_of(images: Any, chosen: list[int], model: Vit) -> Tensor:
    """Some of a batch's pictures on the encoder's scale."""
    if are_floats(images):
        return images[torch.as_tensor(chosen, device=images.device)].detach()  # type: ignore[no-any-return]
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        # A tensor of 8 bits has its colours first, as libraries of images make them, or last.
        last = images.dim() == 4 and images.shape[1] != 3 and images.shape[3] == 3
        images = (images if last else images.permute(0, 2, 3, 1)).numpy() if images.dim() == 4 else images.numpy()
    pictures = checked_pictures([np.asarray(images[i]) for i in chosen])
    return model.preprocessing.numbers([model.preprocessing.square(picture) for picture in pictures])


def _columns(meta: Any) -> dict[str, Any]:
    if isinstance(meta, pl.DataFrame):
        return {name: meta[name] for name in meta.columns}
    if isinstance(meta, Mapping):
        return {str(name): given for name, given in meta.items()}
    if isinstance(meta, Sequence) and meta and all(isinstance(row, Mapping) for row in meta):
        names = dict.fromkeys(name for row in meta for name in row)
        return {str(name): [row.get(name) for row in meta] for name in names}
    what = f"is a {type(meta).__name__}"
    raise DataError(what, where=_WHERE, remedy="Give a mapping of columns, a polars frame, or one mapping a picture.")


def _values(given: Any, n: int) -> list[Any]:
    given = given.tolist() if hasattr(given, "tolist") else given.to_list() if hasattr(given, "to_list") else given
    if isinstance(given, list | tuple):
        return list(given)
    return [given] * n


def _cast(values: list[Any], kind: Any, name: str) -> pl.Series:
    texts = [None if x is None else str(x) for x in values] if kind == pl.String else values
    try:
        return pl.Series(texts, dtype=kind)
    except (pl.exceptions.PolarsError, TypeError, OverflowError, ValueError):
        raise DataError(f"{name} holds {values[0]!r}, which is no number of its kind", where=_WHERE) from None
