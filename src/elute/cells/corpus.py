"""Cells as a small model learns from them: each gene's token and the bin of its value, in flat files.

    corpus.json     what the cells are, how they were binned and split, how many entries there are; written last
    tokens.bin      a token an entry, cell after cell: 16 bits each, 32 where the vocabulary is larger
    bins.bin        a bin an entry: 8 bits
    starts.bin      where each cell begins, and the end: 64 bits
    splits.bin      the split of each cell: its place in corpus.json's list, 8 bits

Values are bins by quantiles within a cell, over all its genes that are in the vocabulary, as the model's tokeniser
makes them. Bins depend on the order of a cell's values alone, so that log-normalised values give the bins of the counts
that they were made of; only where rounding makes or breaks a tie can they differ.

Everything is read and written a piece at a time: memory does not grow with the entries.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files
from elute.base.errors import ConfigError, DataError, SpaceError
from elute.base.statistics.splits import FRACTIONS, draw_splits
from elute.models.tahoe.tokenizer import bin_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.models.cells.cellfile import Cells
    from elute.models.cells.matching import Matched

RECORD = "corpus.json"
SCHEMA = 1
SPLITS = tuple(FRACTIONS)
_BUCKETS = 10_000  # cells, above which names are put together before they are drawn, so that it takes seconds
_PER_TEN_THOUSAND = 1e4


@dataclass(frozen=True, eq=False)
class Corpus:
    """The cells on disk, mapped into memory."""

    folder: Path
    starts: NDArray[np.int64]
    tokens: NDArray[Any]
    bins: NDArray[np.uint8]
    splits: NDArray[np.uint8]
    identity: str

    def __len__(self) -> int:
        return len(self.splits)

    def cell(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Tokens and bins of one cell."""
        part = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return self.tokens[part].astype(np.int64), self.bins[part].astype(np.float32)

    def of(self, split: str) -> NDArray[np.int64]:
        """Cells of a split that have at least two genes: one to hide, and one to tell it from."""
        mine = (np.asarray(self.splits) == SPLITS.index(split)) & (np.diff(self.starts) >= 2)
        return np.flatnonzero(mine)

    def counts(self, split: str, vocabulary: int, most: int) -> NDArray[np.int64]:
        """How often each token has each bin in the cells of a split, [vocabulary, bins up to `most`]."""
        counted = np.zeros(vocabulary * (most + 1), np.int64)
        chosen = np.asarray(self.splits) == SPLITS.index(split)
        for first in range(0, len(self), 2048):
            stop = min(first + 2048, len(self))
            part = slice(int(self.starts[first]), int(self.starts[stop]))
            mine = np.repeat(chosen[first:stop], np.diff(self.starts[first : stop + 1]))
            place = self.tokens[part][mine].astype(np.int64) * (most + 1) + self.bins[part][mine]
            counted += np.bincount(place, minlength=len(counted))
        return counted.reshape(vocabulary, most + 1)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a pass over the cells found of each gene of the file."""

    training: NDArray[np.int64]  # training cells in which it is not 0
    entries: NDArray[np.int64]  # all cells in which it is not 0
    variance: NDArray[np.float64]  # of its log-normalised value over training cells


def split_cells(cells: Cells, *, seed: int) -> NDArray[np.uint8]:
    """Give each cell to a split, a place in SPLITS: whole donors if cells have one, else cell by cell."""
    import polars as pl

    names = cells.metadata["group"] if "group" in cells.metadata.columns else pl.Series(cells.names, dtype=pl.String)
    if "group" not in cells.metadata.columns and len(names) > _BUCKETS:
        digests = [str(int(files.digest_bytes(name.encode(errors="replace"))[:8], 16) % 1000) for name in names]
        names = pl.Series(digests, dtype=pl.String)
    counted = names.value_counts().sort(names.name)
    try:
        drawn = draw_splits(counted[names.name].to_list(), seed=seed, sizes=counted["count"].to_list())
    except DataError as error:
        few = "group" in cells.metadata.columns
        remedy = "Without --donor-key random cells are held out." if few else "Give more cells."
        raise DataError(error.what, where=cells.where, remedy=remedy) from None
    places = {name: SPLITS.index(split) for name, split in drawn.items()}
    return names.replace_strict(places, return_dtype=pl.UInt8).to_numpy()


def look_through(cells: Cells, splits: NDArray[np.uint8]) -> Seen:
    """Count genes, and measure how they vary over training cells: counts per ten thousand of the cell's, then log."""
    n = len(cells.var)
    training, entries = np.zeros(n, np.int64), np.zeros(n, np.int64)
    sums, squares = np.zeros(n), np.zeros(n)
    with console.progress("genes", len(splits), unit="cells") as bar:
        for piece in cells.pieces():
            lengths = np.diff(piece.indptr)
            cell = np.repeat(np.arange(len(lengths)), lengths)
            values = piece.data.astype(np.float64)
            if cells.kind == "counts":
                totals = np.bincount(cell, weights=values, minlength=len(lengths))
                values = np.log1p(values / np.maximum(totals, 1e-300)[cell] * _PER_TEN_THOUSAND)
            there = piece.data != 0
            entries += np.bincount(piece.indices[there], minlength=n)
            mine = there & (splits[piece.first + cell] == SPLITS.index("train"))
            genes, values = piece.indices[mine], values[mine]
            training += np.bincount(genes, minlength=n)
            sums += np.bincount(genes, weights=values, minlength=n)
            squares += np.bincount(genes, weights=values * values, minlength=n)
            bar.advance(len(lengths))
    trained = max(1, int((splits == SPLITS.index("train")).sum()))
    return Seen(training, entries, np.maximum(squares / trained - (sums / trained) ** 2, 0.0))


def write_corpus(
    cells: Cells, matched: Matched, folder: Path, *, splits: NDArray[np.uint8], entries: int, bins: int = 51
) -> Corpus:
    """Write the cells, or use what is there if it is of the same source; `entries` is about how many there will be."""
    if not 2 <= bins <= 255:
        raise ConfigError(f"{bins} bins", remedy="A value has from 2 to 255 of them.")
    wide = "<u2" if int(matched.tokens.max(initial=0)) < 1 << 16 else "<i4"
    told = {
        "source": cells.source,
        "tokens": files.digest_bytes(np.ascontiguousarray(matched.tokens, np.int64).tobytes()),
        "splits": files.digest_bytes(splits.tobytes()),
        "names": list(SPLITS),
        "bins": bins,
    }
    if (found := open_corpus(folder, told)) is not None:
        return found
    files.make_folder(folder)
    needed = entries * (np.dtype(wide).itemsize + 1) + 9 * len(splits)
    if needed > (free := files.free_bytes(folder)):
        what = f"the cells as tokens take about {console.size(needed)}, and there is room for {console.size(free)}"
        raise SpaceError(what, where=folder, remedy="Make room, choose another --output, or give --max-cells.")
    with files.disk_errors(folder):
        (folder / RECORD).unlink(missing_ok=True)  # until it is there again, what lies here counts for nothing
    _fill(cells, matched.tokens, folder, wide=wide, bins=bins)
    files.write_atomically(folder / "splits.bin", lambda handle: handle.write(splits.tobytes()))
    files.write_json(folder / RECORD, {"schema": SCHEMA, "cells": len(splits), "type": wide, **told})
    found = open_corpus(folder, told)
    if found is None:
        raise DataError("changed while it was written", where=folder, remedy="Run the same command again.")
    return found


def open_corpus(folder: Path, told: Mapping[str, Any]) -> Corpus | None:
    """Open what is there, if it is whole and what is wanted."""
    if not (folder / RECORD).exists():
        return None
    record = files.read_json(folder / RECORD, what="a record of cells", remedy="Delete the folder.")
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return None
    if any(record.get(key) != value for key, value in told.items()):
        return None
    n, kinds = int(record["cells"]), {"starts": "<i8", "tokens": str(record["type"]), "bins": "u1", "splits": "u1"}
    try:
        starts = np.fromfile(folder / "starts.bin", kinds["starts"])
        lengths = {"tokens": int(starts[-1]), "bins": int(starts[-1]), "splits": n}
        if len(starts) != n + 1 or any(
            (folder / f"{name}.bin").stat().st_size != length * np.dtype(kinds[name]).itemsize
            for name, length in lengths.items()
        ):
            return None
    except (OSError, IndexError):
        return None
    maps = {name: _mapped(folder / f"{name}.bin", kinds[name], length) for name, length in lengths.items()}
    return Corpus(folder, starts, **maps, identity=files.digest_json(dict(told)))


def _mapped(path: Path, kind: str, length: int) -> NDArray[Any]:
    return np.memmap(path, kind, "r", shape=(length,)) if length else np.zeros(0, kind)


def _fill(cells: Cells, tokens: NDArray[np.int64], folder: Path, *, wide: str, bins: int) -> None:
    """Write entries in the order of the cells."""
    lengths: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    n = len(cells.names)

    def fill(handle: Any) -> None:
        with (folder / ".bins.tmp").open("wb") as beside, console.progress("tokens", n, unit="cells") as bar:
            for piece in cells.pieces():
                mask = (tokens[piece.indices] >= 0) & (piece.data != 0)
                ends = np.concatenate([[0], np.cumsum(mask)])[piece.indptr]
                values, numbers = piece.data[mask], np.zeros(int(ends[-1]), np.uint8)
                for start, stop in itertools.pairwise(ends):
                    if stop > start:
                        numbers[start:stop] = bin_values(values[start:stop], bins)
                handle.write(tokens[piece.indices[mask]].astype(wide).tobytes())
                beside.write(numbers.tobytes())
                lengths.append(np.diff(ends))
                bar.advance(len(piece.indptr) - 1)

    try:
        files.write_atomically(folder / "tokens.bin", fill)
        with files.disk_errors(folder):
            (folder / ".bins.tmp").replace(folder / "bins.bin")
    finally:
        (folder / ".bins.tmp").unlink(missing_ok=True)
    starts = np.cumsum(np.concatenate(lengths)).astype("<i8")
    files.write_atomically(folder / "starts.bin", lambda handle: handle.write(starts.tobytes()))
