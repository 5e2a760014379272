"""Codes with what they came from, cut so that each batch holds whole samples.

What relevance reads is an iterable of (codes, metadata): `Codes` of some rows beside a frame with `sample_id` and,
where known, `tile_id`, `token_rc` (row and column of the patch) and `attention` (the weight of the row in its sample).
A third item, if there is one, holds the embeddings [rows, D] that the codes were made of. Instead of a frame there may
be a list of sample ids. Bare `Codes` or dense codes [samples, K] or [samples, tokens, K] are numbered.

A sample's rows must stand together. Memory: a batch, and the rows of the sample that it ends in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elute.base.codes import Codes
from elute.base.errors import DataError, GuardError
from elute.base.mergeable import Floats, Integers, as_numpy

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.relevance_head import Explained
    from elute.store.codes import StoredCodes
    from elute.store.rows import Selection, StoredRows

SEPARATOR = "\x00"  # between sample and tile: lower than any letter, so that places are in the order of their samples
ROWS = 8192  # of a batch, if no sample has more


@dataclass(frozen=True, eq=False)
class Tokens:
    """Rows of whole samples."""

    codes: Codes
    samples: tuple[str, ...]
    starts: Integers  # [samples + 1] where the rows of each begin
    places: tuple[str, ...]  # sample and tile
    place: Integers  # [rows] number of its place
    spots: npt.NDArray[np.int32]  # [rows, 2] row and column of the patch; -1 where unknown
    weights: Floats | None = None  # [rows] attention
    x: Floats | None = None  # [rows, D]

    @property
    def sample(self) -> Integers:
        """The number of each row's sample."""
        return np.repeat(np.arange(len(self.samples)), np.diff(self.starts))

    @property
    def lengths(self) -> Integers:
        """How many rows each sample has."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.codes)

    def only(self, chosen: Sequence[int]) -> Tokens:
        """Return the rows of some samples, by number, ascending."""
        rows = np.concatenate([np.arange(*self.starts[i : i + 2]) for i in chosen])
        lengths = self.lengths[list(chosen)]
        rest = (None if part is None else part[rows] for part in (self.weights, self.x))
        return Tokens(
            self.codes[rows], tuple(self.samples[i] for i in chosen), np.concatenate([[0], np.cumsum(lengths)]),
            self.places, self.place[rows], self.spots[rows], *rest,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredTokens:
    """The stored codes of a store's rows with their metadata, from the beginning each time they are asked for."""

    codes: StoredCodes
    rows: StoredRows
    where: Selection | None = None
    site: str | None = None  # also read the embeddings
    size: int = ROWS

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield codes and metadata in the store's order."""
        self.codes.expect(store=self.rows)
        known = self.rows.manifest.columns
        columns = [c for c in ("sample_id", "tile_id", "token_rc") if c in known]
        sites = [] if self.site is None else [self.site]
        if self.codes.selection is not None and self.where is None:
            what = f"these codes are of {self.codes.selection} alone"
            raise GuardError(what, where=self.codes.folder, remedy="Pass the selection of those rows as where.")
        chosen = self.where if self.codes.selection is not None else None
        first = 0
        for rows, metadata in self.rows.batches(self.size, where=chosen, sites=sites, columns=columns):
            codes = self.codes.read(first, first + len(metadata))
            keep = self._kept(first, len(metadata)) if chosen is None else None
            first += len(metadata)
            if keep is None:
                yield (codes, metadata, *rows.values())
            elif keep.any():
                yield (codes[keep], metadata.filter(keep), *(part[keep] for part in rows.values()))

    def _kept(self, first: int, n: int) -> npt.NDArray[np.bool_] | None:
        """Which rows of a batch of all rows are chosen; nothing for all. No batch crosses a shard."""
        if self.where is None:
            return None
        shard = int(np.searchsorted(self.rows.starts, first, side="right")) - 1
        start, stop = self.rows.starts[shard : shard + 2]
        mask = self.where.mask(shard, stop - start)
        return None if mask is None else mask[first - start : first - start + n]


def whole_samples(inputs: Any, explained: Explained | None = None) -> Iterator[Tokens]:
    """Yield batches of whole samples, whatever the inputs were cut into."""
    held: list[_Part] = []
    seen: set[str] = set()
    rows = 0
    for part in _parts(inputs, explained):
        if not len(part.codes):
            continue
        if rows >= ROWS and part.samples[0] != held[-1].samples[-1]:
            yield from _joined(held, seen)
            held, rows = [], 0
        elif rows >= ROWS and (border := held[-1].last_sample_begins()):
            last = held.pop()
            yield from _joined([*held, last.cut(0, border)], seen)
            held = [last.cut(border, len(last.codes))]
            rows = len(held[0].codes)
        held.append(part)
        rows += len(part.codes)
    yield from _joined(held, seen)


@dataclass(frozen=True, eq=False)
class _Part:
    codes: Codes
    samples: npt.NDArray[Any]  # [rows] of str
    tiles: npt.NDArray[Any] | None
    spots: npt.NDArray[np.int32] | None
    weights: Floats | None
    x: Any

    def last_sample_begins(self) -> int:
        others = np.flatnonzero(self.samples != self.samples[-1])
        return int(others[-1]) + 1 if len(others) else 0

    def cut(self, a: int, b: int) -> _Part:
        rest = (None if each is None else each[a:b] for each in (self.tiles, self.spots, self.weights, self.x))
        return _Part(self.codes[a:b], self.samples[a:b], *rest)  # type: ignore[arg-type]


def _joined(parts: list[_Part], seen: set[str]) -> Iterator[Tokens]:
    if not parts:
        return
    if len({tuple(x is None for x in (p.tiles, p.spots, p.weights, p.x)) for p in parts}) > 1:
        raise DataError("the metadata of one batch have columns that another batch has not")

    def joined(name: str) -> Any:
        first = getattr(parts[0], name)
        return first if first is None or len(parts) == 1 else np.concatenate([getattr(part, name) for part in parts])

    codes = parts[0].codes if len(parts) == 1 else Codes.concatenate([part.codes for part in parts])
    samples, tiles, spots = joined("samples"), joined("tiles"), joined("spots")
    begins = np.flatnonzero(np.concatenate([[True], samples[1:] != samples[:-1]]))
    names = tuple(samples[begins].tolist())
    for i, name in enumerate(names):
        if name in seen:
            what = f"sample {name!r} comes again after other samples (row {begins[i]} of a batch)"
            raise DataError(what, remedy="Put the rows of a sample together, and give one epoch of them alone.")
        seen.add(name)
    new = np.zeros(len(samples), bool)
    new[begins] = True
    if tiles is not None:
        new[1:] |= tiles[1:] != tiles[:-1]
    at = np.flatnonzero(new)
    owner = samples[at].tolist()
    full = (
        owner
        if tiles is None
        else [f"{s}{SEPARATOR}{t}" if t else s for s, t in zip(owner, tiles[at].tolist(), strict=True)]
    )
    yield Tokens(
        codes, names, np.append(begins, len(samples)), tuple(full), np.cumsum(new) - 1,
        np.full((len(samples), 2), -1, np.int32) if spots is None else spots, joined("weights"), joined("x"),
    )  # fmt: skip


def _parts(inputs: Any, explained: Explained | None) -> Iterator[_Part]:
    if isinstance(inputs, Tokens):
        inputs = [inputs]
    if isinstance(inputs, Codes) or hasattr(inputs, "shape"):
        yield _numbered(inputs, explained)
        return
    if not isinstance(inputs, Iterable):
        raise DataError(
            f"codes cannot be read from a {type(inputs).__name__}", remedy="Give (Codes, metadata) batches."
        )
    first = 0
    for item in inputs:
        if isinstance(item, Tokens):
            yield _of_tokens(item)
        elif isinstance(item, Codes):
            yield _numbered(item, explained, first)
            first += len(item)
        elif isinstance(item, tuple) and 2 <= len(item) <= 3:
            yield _described(item[0], item[1], x=item[2] if len(item) == 3 else None, explained=explained)
        else:
            what = f"a batch is a {type(item).__name__}, not (Codes, metadata)"
            raise DataError(what, remedy="Give pairs of codes and a frame with sample_id.")


def _numbered(given: Any, explained: Explained | None, first: int = 0) -> _Part:
    """Codes or dense codes whose rows are samples, named by their number; three axes are samples, tokens, codes."""
    tokens, x = 1, None
    shape = tuple(given.shape)
    spots = None
    if not isinstance(given, Codes):
        if len(shape) == 3:
            tokens = shape[1]
            spots = np.stack([np.zeros(shape[0] * tokens), np.tile(np.arange(tokens), shape[0])], 1).astype(np.int32)
        given = as_numpy(given).reshape(-1, shape[-1])
        codes, x = _codes_of(given, explained)
    else:
        codes = given
    names = np.array([f"{i:09d}" for i in range(first, first + len(codes) // tokens)], dtype=np.str_)
    return _Part(codes, np.repeat(names, tokens), None, spots, None, x)


def _codes_of(rows: npt.NDArray[Any], explained: Explained | None) -> tuple[Codes, Floats | None]:
    """Dense codes as sparse ones; rows of the embedding's width are encoded first."""
    import torch

    width, encoder = rows.shape[1], None if explained is None else explained.encoder
    dense = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float64))
    if encoder is not None and explained is not None and width != explained.n_codes:
        if width != encoder.weight.shape[1]:
            raise DataError(f"rows {width} wide are neither codes ({explained.n_codes}) nor embeddings")
        if encoder.encode is None:
            raise DataError("this encoder cannot make codes", remedy="Give codes beside the embeddings.")
        return encoder.encode(dense), rows.astype(np.float64)
    most = int((rows != 0).sum(1).max(initial=0))
    return Codes.from_dense(dense, most, by="magnitude"), None


def _described(codes: Any, metadata: Any, *, x: Any, explained: Explained | None) -> _Part:
    import polars as pl

    if not isinstance(codes, Codes):
        codes, made = _codes_of(as_numpy(codes), explained)
        x = made if x is None else x
    frame = metadata if isinstance(metadata, pl.DataFrame) else pl.DataFrame({"sample_id": list(map(str, metadata))})
    if len(frame) != len(codes):
        raise DataError(f"{len(codes)} rows of codes with metadata of {len(frame)} rows")
    if "sample_id" not in frame.columns:
        raise DataError("the metadata have no column 'sample_id'", remedy=f"They have: {', '.join(frame.columns)}.")
    if frame["sample_id"].null_count():
        raise DataError("a row without a sample_id", remedy="Drop such rows, or name their samples.")
    weights = None if "attention" not in frame.columns else frame["attention"].cast(pl.Float64).to_numpy()
    if weights is not None and not np.isfinite(weights).all():
        raise DataError("an attention weight is missing, NaN or infinite")
    given = None if x is None else as_numpy(x).astype(np.float64)
    if given is not None and len(given) != len(codes):
        raise DataError(f"{len(given)} embeddings for {len(codes)} rows of codes")
    return _Part(codes, _text(frame["sample_id"]), _tiles(frame), _spots(frame), weights, given)


def _text(column: pl.Series) -> npt.NDArray[Any]:
    import polars as pl

    # By runs: a sample has many rows, and an array of Python strings is dear.
    runs = column.cast(pl.String).rle().struct.unnest()
    if runs["value"].str.contains(SEPARATOR, literal=True).any():
        raise DataError(f"a {column.name} holds the character NUL", remedy="Rename it.")
    return np.repeat(np.array(runs["value"].to_list(), dtype=np.str_), runs["len"].to_numpy())


def _tiles(frame: pl.DataFrame) -> npt.NDArray[Any] | None:
    if "tile_id" not in frame.columns or frame["tile_id"].null_count() == len(frame):
        return None
    return _text(frame["tile_id"].cast(str).fill_null(""))


def _spots(frame: pl.DataFrame) -> npt.NDArray[np.int32] | None:
    import polars as pl

    if "token_rc" not in frame.columns or frame["token_rc"].null_count() == len(frame):
        return None
    both = frame["token_rc"].cast(pl.Array(pl.Int32, 2))
    if both.null_count():
        raise DataError("some rows have a token_rc and others have none")
    return both.to_numpy().astype(np.int32).reshape(-1, 2)


def _of_tokens(tokens: Tokens) -> _Part:
    names = np.array(tokens.samples, dtype=np.str_)[tokens.sample]
    pairs = [place.partition(SEPARATOR) for place in tokens.places]
    tiles = np.array([tile for _, _, tile in pairs], dtype=np.str_)[tokens.place] if any(p[1] for p in pairs) else None
    return _Part(tokens.codes, names, tiles, tokens.spots, tokens.weights, tokens.x)
