"""Rows less the mean of all rows that are of one kind: of one gene, say, where the column is the token.

1. One pass over the training rows adds up, for each value of a column, the rows of every site that is read or written.
2. The means lie beside the dictionary that is trained on what is left, and the dictionary remembers their digest.
3. Whoever gives rows to that dictionary opens the store through `as_trained` (centred.py), which subtracts the same
   means. A row whose value was not met in training, or that has none, loses the mean over all training rows instead.

    centre.safetensors     rows [values]                  training rows of each value
                           mean.SITE [values, width]      their mean
                           overall.SITE [width]           the mean of all training rows
                           header: one JSON text `centre`: schema, column, values in order, sites, store and rows;
                           and a digest of it all
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from elute.base import console, files
from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, VersionError
from elute.base.mergeable import Statistic, aligned, positive, rows_of, whole
from elute.base.tensors import safetensors_header, write_safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.base.contracts import Rows
    from elute.store.reader import Store
    from elute.store.rows import Selection

NAME = "centre.safetensors"
SCHEMA = 1
REMEDY = "Copy it from the run's folder, where training wrote it, or train the dictionary anew."
_ROWS = 8192  # of one piece
_TEXT = (pl.String, pl.Categorical, pl.Enum)


class Means(Statistic):
    """Sum and number of the rows of each value; `values` is how many there are."""

    _settings = ("values", "width")
    _kept = ("counts", "sums")

    def __init__(self, values: int, width: int) -> None:
        self.values, self.width = positive("values", values), positive("width", width)
        self.counts = np.zeros(values, np.int64)
        self.sums = np.zeros((values, width))

    def update(self, batch: tuple[Any, Any], /) -> None:
        """Take in (codes [n], rows [n, width])."""
        x = rows_of(batch[1], self.width)
        codes = whole(aligned((batch[0],), "codes")[0], self.values, "code")
        if len(codes) != len(x):
            raise DataError(f"{len(codes)} codes for {len(x)} rows")
        self.counts += np.bincount(codes, minlength=self.values)
        torch.from_numpy(self.sums).index_add_(0, torch.from_numpy(codes), torch.from_numpy(x.astype(np.float64)))

    def merge(self, other: Means, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self.counts, self.sums = self.counts + other.counts, self.sums + other.sums

    def result(self) -> NDArray[np.float64]:
        """Return the mean of each value, NaN where it has no rows."""
        with np.errstate(invalid="ignore"):
            mean: NDArray[np.float64] = self.sums / self.counts[:, None]
        return mean


@dataclass(frozen=True, eq=False)
class Centre:
    """The means, and what they were measured on."""

    by: str
    store: str
    rows: str  # digest of the training rows' choice
    values: pl.Series
    counts: NDArray[np.int64]
    means: Mapping[str, NDArray[np.float32]]  # site -> [values + 1, width]: the last row is the mean of all

    @cached_property
    def digest(self) -> str:
        """Digest of all that the file says, which the dictionary remembers."""
        arrays: list[NDArray[Any]] = [self.counts, *self.means.values()]
        shapes = json.dumps([[*self.means], [array.shape for array in arrays]])
        return files.digest_bytes(self._told.encode(), shapes.encode(), *(array.tobytes() for array in arrays))

    @property
    def _told(self) -> str:
        told = {"schema": SCHEMA, "by": self.by, "store": self.store, "rows": self.rows}
        return json.dumps({**told, "sites": [*self.means], "values": self.values.to_list()}, ensure_ascii=False)

    def save(self, folder: Path) -> None:
        """Write the means into a run's folder."""
        arrays: dict[str, NDArray[Any]] = {"rows": self.counts}
        for site, mean in self.means.items():
            arrays |= {f"mean.{site}": mean[:-1], f"overall.{site}": mean[-1]}
        kinds = {name: "I64" if name == "rows" else "F32" for name in arrays}
        write_safetensors(folder / NAME, arrays, dtype=kinds, metadata={"centre": self._told, "digest": self.digest})

    def codes(self, column: pl.Series) -> NDArray[np.int32]:
        """Return each row's place among the values; what was not met in training comes after all of them."""
        text = self.values.dtype == pl.String
        if (column.dtype in _TEXT) != text:
            kind = "text" if text else "whole numbers"
            what = f"column {self.by!r} holds {column.dtype}, the means were measured for {kind}"
            raise DataError(what, remedy="Use a store that was made as the one that the dictionary was trained on.")
        known = pl.DataFrame({"value": self.values, "code": np.arange(len(self.values), dtype=np.int32)})
        asked = pl.DataFrame({"value": column.cast(self.values.dtype)})
        found = asked.join(known, on="value", how="left", maintain_order="left")["code"]
        return found.fill_null(len(self.values)).to_numpy()

    def subtract(self, rows: Rows, codes: NDArray[np.int32]) -> Rows:
        """Return rows less the means of their values, as float32."""
        at = torch.from_numpy(np.asarray(codes, np.int64))
        means = {site: torch.from_numpy(self.means[site]) for site in rows}
        return {site: x.float() - means[site][at] for site, x in rows.items()}


def measure(store: Store, where: Selection, sites: Sequence[str], *, by: str) -> Centre:
    """Measure the means over the chosen rows, in one pass."""
    values = _values(store, where, by)
    if 2 * len(values) > where.rows:
        what = f"column {by!r} has {len(values):,} values for {where.rows:,} rows: little would be left of them"
        raise ConfigError(what, where=store.folder, remedy="Centre by a column whose values come often.")
    lookup = Centre(by, "", "", values, np.zeros(0, np.int64), {})
    sums = {site: Means(len(values) + 1, store.sites[site]) for site in sites}
    with console.progress("centre", where.rows) as bar:
        for rows, frame in store.batches(_ROWS, where=where, sites=sites, columns=[by]):
            codes = lookup.codes(frame[by])
            for site, x in rows.items():
                _add(sums[site], (codes, x), f"site {site!r} of {store.folder}")
            bar.advance(len(frame))
    means = {}
    for site, seen in sums.items():
        overall = seen.sums.sum(0) / seen.counts.sum()
        means[site] = np.concatenate([seen.result()[:-1], overall[None]]).astype(np.float32)
    counts = next(iter(sums.values())).counts
    without = f"; {counts[-1]:,} rows have none and lose the mean of all" if counts[-1] else ""
    console.say(f"{store.folder}: rows are centred by {by}: {len(values):,} values over {where.rows:,} rows{without}")
    return Centre(by, store.manifest.store, where_digest(where), values, counts[:-1], means)


def where_digest(where: Selection) -> str:
    """Name a choice of rows."""
    bits = [b"" if part is None else part.tobytes() for part in where.bits]
    return files.digest_bytes(*bits, repr(where.counts).encode())[:16]


def _add(sums: Means, batch: tuple[Any, Any], place: str) -> None:
    try:
        sums.update(batch)
    except DataError as error:
        raise DataError(error.what, where=place, remedy="Import the rows with --bad-rows drop.") from None


def _values(store: Store, where: Selection, by: str) -> pl.Series:
    """Return every value that the chosen rows have, sorted."""
    found: list[pl.Series] = []
    for shard, entry in enumerate(store.manifest.shards):
        if not where.counts[shard]:
            continue
        column = store.metadata(store.starts[shard], store.starts[shard + 1], columns=[by])[by]
        if column.dtype not in _TEXT and not column.dtype.is_integer():
            what = f"column {by!r} holds {column.dtype}: rows are centred by text or by whole numbers"
            raise ConfigError(what, where=store.folder, remedy="Name another column, for example token.")
        mask = where.mask(shard, entry.rows)
        kept = column if mask is None else column.filter(pl.Series(mask))
        found.append(kept.cast(pl.String if column.dtype in _TEXT else pl.Int64).unique())
    values = pl.concat(found).unique().drop_nulls().sort()
    if not len(values):
        raise ConfigError(f"no row has a {by}", where=store.folder, remedy="Centre by another column.")
    return values


def find(folder: Path, store: Store, where: Selection, *, sites: Sequence[str], by: str) -> Centre | None:
    """Return the means that lie in a run's folder, if they are those of these very rows and sites."""
    try:
        found = load(folder) if (folder / NAME).exists() else None
    except EluteError:
        return None  # measured anew, the same come out
    mine = (by, store.manifest.store, where_digest(where), list(sites))
    return found if found and (found.by, found.store, found.rows, list(found.means)) == mine else None


def load(folder: Path) -> Centre:
    """Read the means that lie in a run's folder."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / NAME
    damaged = DamagedError("does not hold the means that rows are centred by", where=path, remedy=REMEDY)
    header = safetensors_header(path)[1].get("__metadata__") or {}
    try:
        told = json.loads(header["centre"])
        if not isinstance(told["schema"], int) or told["schema"] > SCHEMA:
            raise VersionError("was written by a newer elute", where=path, remedy="Update elute.")
        arrays = load_file(path)
        counts = arrays["rows"]
        means = {s: np.concatenate([arrays[f"mean.{s}"], arrays[f"overall.{s}"][None]]) for s in told["sites"]}
        values = pl.Series(
            told["values"], strict=True, dtype=pl.String if isinstance(told["values"][0], str) else pl.Int64
        )
        centre = Centre(told["by"], told["store"], told["rows"], values, counts, means)
        fits = all(len(mean) == len(values) + 1 and mean.dtype == np.float32 for mean in means.values())
        whole_file = fits and len(counts) == len(values) and centre.digest == header["digest"]
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise damaged from error
    if not whole_file:
        raise damaged
    return centre
