"""Blocks: tables as the bytes that a page opens on demand, columns one after another, deflated, in base64.

A block is a header of JSON that says where each column lies and how it is to be read, and the columns themselves, each
at a multiple of eight bytes. Numbers are kept as whole numbers of one, two or four bytes wherever a reader sees no
difference, and the first bytes of all of them come before all second ones: what is alike stands together, and takes a
fifth less room. `page/pack.js` reads them; docs/formats/explorer.md is the whole of it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST = 300  # characters of one text, whatever the data is called
_LEVEL = 9  # of compression: a page is written once and opened many times
_TYPES = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "i32": np.int32, "f32": np.float32}
_NONE = {"u8": 0xFF, "u16": 0xFFFF, "u32": 0xFFFFFFFF, "i32": -(2**31)}  # what stands for "nothing" where it is needed
STEPS = 0xFFFF - 2  # of a quantised number: one code is "nothing", and one of logs is zero
SMALL = 0xFF - 2  # steps that fit into one byte
_LARGEST = 1e300  # beyond which a number counts as infinite: rounding must not leave what a float can hold
_SPREAD = 300.0  # the largest of positive numbers over the smallest from which on their logs are kept


class Column(Protocol):
    """What a block holds under one name."""

    def __len__(self) -> int:
        """Return how many rows it has."""

    def put(self, into: Body) -> dict[str, Any]:
        """Write its bytes; return what the header says of them."""


@dataclass
class Body:
    """The bytes of a block as they are put together."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, data: bytes) -> int:
        """Put bytes behind those that are there; return where they begin."""
        at = self.size
        self.parts += [data, bytes(-len(data) % 8)]
        self.size += len(data) + -len(data) % 8
        return at


@dataclass(frozen=True)
class Numbers:
    """Numbers as they are stored: value = zero + scale × stored, or the exponential of that, with 0 for 0."""

    stored: NDArray[Any]
    null: int | None = None
    scale: float | None = None
    zero: float | None = None
    log: bool = False
    sum: bool = False
    """Each value is that of the row before and this one's, so that what only grows is small."""

    def __len__(self) -> int:
        """Return how many rows it has."""
        return len(self.stored)

    def put(self, into: Body) -> dict[str, Any]:
        """Write its bytes; return what the header says of them."""
        name = next(name for name, kind in _TYPES.items() if self.stored.dtype == kind)
        spec = {"kind": "number", "type": name, "at": into.add(_planes(self.stored))}
        told = {"null": self.null, "scale": self.scale, "zero": self.zero}
        told |= {"log": self.log or None, "sum": self.sum or None}
        return spec | {key: value for key, value in told.items() if value is not None}


@dataclass(frozen=True)
class Words:
    """Texts by their place in a dictionary: another block's, or one of the column's own."""

    stored: NDArray[np.int64] | None
    """Places, −1 for nothing; None where row i has word i."""
    words: Sequence[str] | None = None
    """The column's own dictionary."""
    dictionary: str | None = None
    """The block whose words these are."""
    filled: Mapping[str, Any] | None = None
    """Where words stand that are not repeated here: the list of another block, at the rank of the row."""

    def __len__(self) -> int:
        """Return how many rows it has."""
        return len(self.words or ()) if self.stored is None else len(self.stored)

    def put(self, into: Body) -> dict[str, Any]:
        """Write its bytes; return what the header says of them."""
        spec: dict[str, Any] = {"kind": "text", "dictionary": self.dictionary, "codes": "row", "null": None}
        if self.stored is not None:
            column = whole(np.where(self.stored < 0, np.nan, self.stored))
            told = column.put(into)
            spec |= {"codes": told["type"], "at": told["at"], "null": told.get("null")}
        if self.filled is not None:
            spec["filled"] = dict(self.filled)
        if self.words is None:
            return spec
        plain_ = [plain(word) for word in self.words]
        ends = np.cumsum([0, *(_units(word) for word in plain_)]).astype(np.uint32)
        text = "".join(plain_).encode()
        return spec | {
            "entries": len(plain_),
            "offsets": into.add(_planes(ends)),
            "bytes": into.add(text),
            "length": len(text),
        }


@dataclass(frozen=True)
class Lists:
    """A list of values a row: those of row i are from `offsets[i]` up to `offsets[i + 1]`."""

    offsets: NDArray[np.integer[Any]]
    of: Column

    def __len__(self) -> int:
        """Return how many rows it has."""
        return len(self.offsets) - 1

    def put(self, into: Body) -> dict[str, Any]:
        """Write its bytes; return what the header says of them."""
        if self.offsets[-1] != len(self.of):
            raise ValueError(f"lists of {self.offsets[-1]} values have {len(self.of)}")
        lengths = whole(np.diff(self.offsets)).put(into)
        of = {**self.of.put(into), "rows": len(self.of)}
        return {"kind": "list", "type": lengths["type"], "at": lengths["at"], "of": of}


@dataclass(frozen=True)
class Flags:
    """Yes or no: 1, 0, and 2 for nothing."""

    stored: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return how many rows it has."""
        return len(self.stored)

    def put(self, into: Body) -> dict[str, Any]:
        """Write its bytes; return what the header says of them."""
        return {"kind": "bool", "at": into.add(self.stored.astype(np.uint8).tobytes())}


def pack(columns: Mapping[str, Column], *, rows: int | None = None) -> str:
    """Return a block of columns as a page carries it; `rows` is what they all have, but for offsets among them."""
    count = rows if rows is not None else len(next(iter(columns.values()))) if columns else 0
    body = Body()
    specs = {}
    for name, column in columns.items():
        spec = column.put(body)
        specs[name] = spec if len(column) == count else {**spec, "rows": len(column)}
    head = json.dumps({"rows": count, "columns": specs}, allow_nan=False, separators=(",", ":")).encode()
    start = len(head).to_bytes(4, "little") + head
    packer = zlib.compressobj(_LEVEL)
    parts = [packer.compress(part) for part in (start + bytes(-len(start) % 8), *body.parts)]
    return base64.b64encode(b"".join([*parts, packer.flush()])).decode()


def whole(values: NDArray[Any]) -> Numbers:
    """Whole numbers in the smallest type that holds them; NaN is nothing."""
    known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    some = bool(known.all())
    low, high = (int(values[known].min()), int(values[known].max())) if known.any() else (0, 0)
    if low < 0:
        if low <= _NONE["i32"] or high > -(_NONE["i32"] + 1):
            return exact(values)
        return Numbers(np.where(known, values, _NONE["i32"]).astype(np.int32), None if some else _NONE["i32"])
    for name in ("u8", "u16", "u32"):
        if high < _NONE[name] or (high == _NONE[name] and some):
            filled = values if some else np.where(known, values, _NONE[name])
            return Numbers(filled.astype(_TYPES[name]), None if some else _NONE[name])
    return exact(values)


def growing(values: NDArray[np.integer[Any]]) -> Numbers:
    """Whole numbers of which none is less than the one before."""
    return replace(whole(np.diff(values, prepend=0)), sum=True)


def exact(values: NDArray[Any]) -> Numbers:
    """Numbers with seven digits; NaN is nothing."""
    with np.errstate(over="ignore"):  # what is larger than a float of four bytes becomes infinite
        return Numbers(values.astype(np.float32))


def linear(values: NDArray[Any], *, steps: int = STEPS) -> Numbers:
    """Numbers in equal steps from the smallest to the largest; NaN is nothing, and infinite ones are the ends."""
    given = values.astype(np.float64)
    known = np.isfinite(given) & (np.abs(given) <= _LARGEST)
    if not known.any():
        return exact(given)
    low, high = float(given[known].min()), float(given[known].max())
    scale = high / steps - low / steps or 1.0
    near = np.rint(np.clip(np.nan_to_num(given, nan=low), low, high) / scale - low / scale)
    name = _room(steps)
    return Numbers(np.where(np.isnan(given), _NONE[name], near).astype(_TYPES[name]), _NONE[name], scale, low)


def logs(values: NDArray[Any], *, keep: float | None = None, steps: int = STEPS) -> Numbers:
    """Numbers from 0 on in equal steps of their logarithm: a share of each is kept, the same from first to last.

    Of two numbers on either side of `keep` none crosses it: what is at most `keep` still is. NaN and negative numbers
    are nothing.
    """
    given = values.astype(np.float64)
    known = np.isfinite(given) & (given > 0)
    name = _room(steps)
    codes = np.where(given == 0, 0, _NONE[name]).astype(np.int64)
    if not known.any():
        return Numbers(codes.astype(_TYPES[name]), _NONE[name], 1.0, 0.0, log=True)
    told = np.log(given[known])
    ends = [float(told.min()), float(told.max())]
    mark = None if keep is None or keep <= 0 else float(np.log(keep))
    ends = ends if mark is None else [min(ends[0], mark), max(ends[1], mark)]
    scale = (ends[1] - ends[0]) / (steps - 3) or 1.0
    zero = ends[0] - 2 * scale
    if mark is not None:  # in the middle between two steps
        middle = np.floor((mark - zero) / scale)
        zero = mark - (middle + 0.5) * scale
    near = np.clip(np.rint((told - zero) / scale), 1, steps + 1).astype(np.int64)
    if mark is not None and keep is not None:
        near = np.where(given[known] <= keep, np.minimum(near, int(middle)), np.maximum(near, int(middle) + 1))
    codes[known] = near
    codes[np.isposinf(given)] = steps + 1
    return Numbers(codes.astype(_TYPES[name]), _NONE[name], scale, zero, log=True)


def numbers(
    values: NDArray[Any], *, keep: float | None = None, steps: int = STEPS, log_steps: int | None = None
) -> Numbers:
    """Numbers in the form that suits them: whole, in equal steps, or in equal steps of their logarithm."""
    given = values.astype(np.float64)
    known = given[np.isfinite(given)]
    if values.dtype.kind in "iu":
        return whole(values)
    if not known.size or np.isinf(given).any():
        return exact(given)
    if (known == np.rint(known)).all() and np.abs(known).max() < 2**31 - 1:
        return whole(given)
    positive = known[known > 0]
    wide = (known >= 0).all() and positive.max() / positive.min() > _SPREAD
    if wide or keep is not None:
        return logs(given, keep=keep, steps=log_steps or steps)
    return linear(given, steps=steps)


def flags(values: Sequence[bool | None]) -> Flags:
    """Yes, no, or nothing."""
    return Flags(np.array([2 if value is None else int(value) for value in values], dtype=np.uint8))


def texts(values: Sequence[str | None]) -> Words:
    """Texts with a dictionary of their own, in the order in which they come."""
    places: dict[str, int] = {}
    stored = np.array([-1 if v is None else places.setdefault(v, len(places)) for v in values], dtype=np.int64)
    if len(places) == len(stored):
        return Words(None, words=list(places))
    return Words(stored, words=list(places))


def plain(value: object) -> str:
    """Any text as a file has room for it: whole characters, and not too many."""
    text = str(value).encode(errors="replace").decode()  # half a character has no place in a file
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def _units(text: str) -> int:
    """How long a page's program takes a text to be: characters beyond the first 65,536 count twice."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _room(steps: int) -> str:
    """The type that holds so many steps, a zero and a nothing."""
    return "u8" if steps <= SMALL else "u16"


def _planes(values: NDArray[Any]) -> bytes:
    """The first bytes of all numbers, then the second ones, and so on; the lowest first."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return little.view(np.uint8).reshape(len(values), values.itemsize).T.tobytes()
