"""Open a downloaded file safely, and read a delimited one by the names of its columns.

A file may be plain, gzip or zip (told by its first bytes, not by its name). It is streamed, never unpacked whole; what
is larger than its kind can be, cut short, a web page, or not UTF-8 is refused in one line that names the line.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from elute.base.errors import DamagedError, DataError
from elute.validation.reading.fields import Form, frame

if TYPE_CHECKING:
    import polars as pl

MOST = 2**30  # bytes, unpacked: what a source's file may hold unless its reader says more
LONGEST = 2**24  # bytes of one line: a set of every human gene is a sixtieth of this
_ANEW = "Download it anew."
_OTHERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "spaces"}
_UTF8 = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_FLAGS = re.IGNORECASE | re.DOTALL
_BROKEN = (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more bytes than agreed."""

    def __init__(self, inner: IO[bytes], path: Path, most: int) -> None:
        self._inner, self._path, self._left = inner, path, most

    def readable(self) -> bool:
        return True

    def readinto(self, into: object) -> int:
        view = memoryview(cast("bytearray", into)).cast("B")
        try:
            data = self._inner.read(len(view))
        except _BROKEN as cause:
            raise DamagedError("is cut short or damaged", where=self._path, remedy=_ANEW) from cause
        self._left -= len(data)
        if self._left < 0:
            raise DataError("unpacks to more than a file of this kind can hold", where=self._path)
        view[: len(data)] = data
        return len(data)


@contextmanager
def opened(path: Path, *, most: int = MOST, member: str = "") -> Iterator[BinaryIO]:
    """Open a plain, gzip or zip file for its bytes; of a zip the only file, or the one whose name ends in `member`.

    What is empty, a web page or UTF-16 is refused; a UTF-8 mark at the beginning is passed over.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DataError("is no file", where=path)
        file = path.open("rb")
    except OSError as cause:
        raise DataError(f"cannot be read: {(cause.strerror or 'an error').lower()}", where=path) from cause
    with file:
        first = file.read(4)
        file.seek(0)
        if first[:4] == b"PK\x03\x04" or first[:4] == b"PK\x05\x06":
            inner = _unzipped(file, path, member)
        elif first[:2] == b"\x1f\x8b":
            inner = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        else:
            inner = file
        with inner:
            stream = io.BufferedReader(_Bounded(inner, path, most), 1 << 20)
            _look(stream, path)
            yield cast("BinaryIO", stream)


def _unzipped(file: IO[bytes], path: Path, member: str) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(file)
        names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
        fits = [n for n in names if n.endswith(member)]
        if len(fits) != 1:
            which = f" whose name ends in {member}" if member else ""
            raise DataError(f"is a zip with {len(fits)} files{which}, not one", where=path)
        return archive.open(fits[0])
    except (*_BROKEN, OSError, ValueError) as cause:
        raise DamagedError("is a zip that is cut short or damaged", where=path, remedy=_ANEW) from cause
    except RuntimeError as cause:  # a password, or a way of packing that Python does not know
        raise DataError("is a zip that needs a password or a program of its own", where=path) from cause


def _look(stream: io.BufferedReader[Any], path: Path) -> None:
    head = stream.peek(4096)[:4096]
    if not head.strip():
        raise DamagedError("is empty", where=path, remedy=_ANEW)
    if head.startswith(_UTF16):
        raise DataError("is UTF-16 text", where=path, remedy="Save it as UTF-8.")
    if re.match(rb"\s*(<!--.{0,2000}?-->\s*)*(<!doctype html|<html|<head)", head.removeprefix(_UTF8), _FLAGS):
        raise DamagedError("is a web page, not data", where=path, remedy="Download the file itself.")
    if head.startswith(_UTF8):
        stream.read(len(_UTF8))


def lines(path: Path, *, most: int = MOST, member: str = "") -> Iterator[tuple[int, str]]:
    """Give the lines of a text with their numbers from 1, without their ends."""
    with opened(path, most=most, member=member) as stream:
        number = 0
        while raw := stream.readline(LONGEST + 1):
            number += 1
            yield number, _text(raw, number, path).rstrip("\r\n")


def _text(raw: bytes, number: int, path: Path) -> str:
    """Decode what begins at a line; say which line is too long, is no UTF-8, or holds what no text holds."""
    if len(raw) > LONGEST and b"\n" not in raw:
        raise DataError(f"line {number:,} is longer than {LONGEST >> 20} MiB", where=path)
    try:
        text = raw.decode()
    except UnicodeDecodeError as cause:
        at = number + raw.count(b"\n", 0, cause.start)
        raise DataError(f"line {at:,} is no UTF-8 text", where=path, remedy="Save it as UTF-8.") from cause
    if "\0" in text:
        at = number + text.count("\n", 0, text.index("\0"))
        raise DamagedError(f"line {at:,} holds zero bytes, as no text does", where=path, remedy=_ANEW)
    return text


@dataclass(frozen=True)
class Layout:
    """What a delimited file must hold, by the names that its releases have used, and how it is written."""

    need: Mapping[str, tuple[str, ...]]  # our name → its spellings, the best first; case, space and _ do not matter
    may: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # absent ones become nulls
    separators: str = "\t"  # those that are right, the likeliest first
    quoted: bool | None = None  # None: where commas or semicolons separate
    comment: str = "#"  # begins a line that is no row; the header itself may begin so
    names: tuple[str, ...] = ()  # the columns in order of a file that may come without a header
    ragged: bool = False  # lines may lack their last fields
    most: int = MOST
    member: str = ""  # of a zip with several files, how the right one's name ends
    remedy: str = ""


class Head(NamedTuple):
    """How a delimited file begins: `columns` has the place of each column of the layout, None where it is absent."""

    comments: tuple[str, ...]
    header: tuple[str, ...]
    columns: dict[str, int | None]
    separator: str
    quoted: bool
    lines: int  # before the first row
    first: bytes  # a first row that was read while the header was looked for


class Sheet(NamedTuple):
    """The columns of a file that were asked for, as text without white space around it; blank fields are null."""

    table: pl.DataFrame
    comments: tuple[str, ...]  # the lines before the header, without their mark
    header: tuple[str, ...]
    rows: int  # of the file, before `keep`


def read_columns(path: Path, layout: Layout, keep: Callable[[pl.DataFrame], pl.DataFrame] | None = None) -> Sheet:
    """Read the columns of a layout; `keep` sees each part of a large file and says what stays of it."""
    import polars as pl

    rows, parts = 0, []
    with opened(path, most=layout.most, member=layout.member) as stream:
        head = _head(stream, Path(path), layout)
        for part in _parts(stream, Path(path), layout, head):
            rows += len(part)
            parts.append(keep(part) if keep else part)
    if not rows:
        raise DataError("has a header and no rows", where=path, remedy=layout.remedy or _ANEW)
    return Sheet(pl.concat(parts), head.comments, head.header, rows)


def batches(path: Path, layout: Layout) -> Iterator[pl.DataFrame]:
    """Give the columns of a layout in parts of some megabytes, for what does not fit into memory."""
    with opened(path, most=layout.most, member=layout.member) as stream:
        head = _head(stream, Path(path), layout)
        yield from _parts(stream, Path(path), layout, head)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _head(stream: BinaryIO, path: Path, layout: Layout) -> Head:
    comments: list[str] = []
    for number in range(1, 1001):
        raw = stream.readline(LONGEST + 1)
        line = _text(raw, number, path).rstrip("\r\n")
        marked = bool(layout.comment) and line.startswith(layout.comment)
        if raw and not line.strip():
            continue
        for separator in layout.separators:
            quoted = layout.quoted if layout.quoted is not None else separator in ",;"
            cells = [c.strip() for c in _cells(line.lstrip(layout.comment or None), separator, quoted)]
            if found := _found(cells, path, layout):
                return Head(tuple(comments), tuple(cells), found, separator, quoted, number, b"")
        as_named = bool(layout.names) and line.count(layout.separators[0]) == len(layout.names) - 1
        if marked and not as_named:  # a header whose columns were renamed must not pass for a comment
            comments.append(line.lstrip(layout.comment).strip())
            continue
        separator = layout.separators[0]
        named = as_named and not marked and _found(list(layout.names), path, layout)
        if named:
            return Head(tuple(comments), layout.names, named, separator, layout.quoted or False, number - 1, raw)
        break
    like = [comment for comment in comments if layout.separators[0] in comment]  # a header may begin with a mark
    raise _lacking(max([line, *like], key=lambda text: _known(text, layout)), path, layout)


def _known(line: str, layout: Layout) -> int:
    """How many of the columns that are needed stand in a line."""
    plain = {_plain(cell) for cell in line.split(layout.separators[0])}
    return sum(bool(plain.intersection(map(_plain, spellings))) for spellings in layout.need.values())


def _cells(line: str, separator: str, quoted: bool) -> list[str]:
    import csv

    if not quoted:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a field beyond the reader's limit is no name of a column
        return []


def _found(cells: list[str], path: Path, layout: Layout) -> dict[str, int | None] | None:
    """Place the layout's columns in a header; None if one that is needed is not there."""
    plain = [_plain(cell) for cell in cells]
    found: dict[str, int | None] = {}
    for name, spellings in (*layout.need.items(), *layout.may.items()):
        there = next((s for s in map(_plain, spellings) if s in plain), None)
        if there is None and name in layout.need:
            return None
        if there is not None and plain.count(there) > 1:
            raise DataError(f"has the column {cells[plain.index(there)]!r} twice", where=path, remedy=layout.remedy)
        found[name] = None if there is None else plain.index(there)
    return found


def _lacking(line: str, path: Path, layout: Layout) -> DataError:
    if line.lstrip()[:1] in ("<", "{", "["):
        return DamagedError(f"is no table: it begins {line.strip()[:60]!r}", where=path, remedy=_ANEW)
    for separator, called in _OTHERS.items():
        if separator not in layout.separators and _found(_cells(line, separator, separator in ",;"), path, layout):
            wanted = " or ".join(_OTHERS[s] for s in layout.separators)
            return DataError(f"has {called} between its columns, where {wanted} are expected", where=path)
    cells = line.lstrip(layout.comment or None).split(layout.separators[0])
    plain = {_plain(cell) for cell in cells}
    lacks = [s[0] for s in layout.need.values() if not plain.intersection(map(_plain, s))]
    shown = ", ".join(repr(c.strip()[:40]) for c in cells[:20]) + (" …" if len(cells) > 20 else "")
    word = "column" if len(lacks) == 1 else "columns"
    return DataError(f"lacks the {word} {', '.join(lacks)}; there are {shown}", where=path, remedy=layout.remedy)


def _parts(stream: BinaryIO, path: Path, layout: Layout, head: Head) -> Iterator[pl.DataFrame]:
    left, number = head.first, head.lines + 1
    form = Form(head.separator, head.quoted, layout.comment, len(head.header), layout.ragged)
    while True:
        data = stream.read(LONGEST)
        left += data
        end = len(left) if not data else _end(left, head)
        if end == 0 and len(left) > LONGEST:
            raise DataError(f"line {number:,} is longer than {LONGEST >> 20} MiB", where=path)
        whole, left = left[:end], left[end:]
        if whole.strip():
            yield frame(_text(whole, number, path), number, path, form=form, columns=head.columns)
        number += whole.count(b"\n")
        if not data:
            return


def _end(data: bytes, head: Head) -> int:
    """Return where the last whole line ends; a line's end within quotes is none."""
    end = data.rfind(b"\n") + 1
    while head.quoted and end and data.count(b'"', 0, end) % 2:
        end = data.rfind(b"\n", 0, end - 1) + 1
    return end
