"""The first sheet of an Excel workbook (.xlsx) as rows of text, read safely and as a stream.

1. The workbook says which part holds the first sheet; shared strings are read once, with bounds.
2. No part may declare a document type or entities, or be in an encoding that could hide one: a workbook has none, an
   attack has.
3. Numbers are given as they are written, a whole one without `.0`. Formulas give the value that was last worked out.
4. A part may not unpack to more than agreed, and a row not be wider than a table of ours can be.

Format: ECMA-376, part 1 (SpreadsheetML). Old .xls and encrypted workbooks are other formats.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING
from xml.etree import ElementTree as ET

from elute.base.errors import DamagedError, DataError

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.reading.columns import Layout

MOST = 2**30  # bytes of one part, unpacked
WIDEST = 1000  # columns
_REMEDY = "Save the sheet as a text with tabs (.tsv) and use that."
_ANEW = "Download it anew."
_CELL = re.compile(r"([A-Z]{1,3})(\d+)")
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError)
_ENCODING = re.compile(rb"<\?XML[^>]*?ENCODING\s*=\s*[\"']([^\"'>]{1,40})")
_PLAIN = (b"UTF-8", b"UTF-16", b"US-ASCII", b"ASCII", b"ISO-8859-1")
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_STRICT = "http://purl.oclc.org/ooxml/officeDocument/relationships"


class _Watched(io.RawIOBase):
    """A part's bytes, up to a bound, as long as no document type is declared."""

    def __init__(self, inner: IO[bytes], path: Path, most: int) -> None:
        self._inner, self._path, self._left, self._tail = inner, path, most, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(size if size > 0 else 1 << 20)
        self._left -= len(data)
        if self._left < 0:
            raise DataError("unpacks to more than a workbook of this kind can hold", where=self._path)
        seen = (self._tail + data).replace(b"\0", b"").upper()  # UTF-16 hides nothing
        if not self._tail and (found := _ENCODING.search(seen[:1000])) and found[1] not in _PLAIN:
            raise DataError(f"is in the encoding {found[1].decode()}, as no workbook is", where=self._path)
        if b"<!DOCTYPE" in seen or b"<!ENTITY" in seen:
            raise DataError("declares a document type, as no workbook does: it is not read", where=self._path)
        self._tail = (self._tail + data)[-32:]
        return data


@contextmanager
def _workbook(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except _BROKEN as cause:
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith(b"\xd0\xcf\x11\xe0"):
            raise DataError("is an old (.xls) or encrypted workbook", where=path, remedy=_REMEDY) from cause
        what = "is a workbook that is cut short or damaged" if head.startswith(b"PK") else "is no workbook (.xlsx)"
        raise DamagedError(what, where=path, remedy=_ANEW) from cause
    except ET.ParseError as cause:
        raise DamagedError(f"holds XML that is not well-formed ({cause})", where=path, remedy=_ANEW) from cause
    except RuntimeError as cause:
        what = "is a workbook with a password, or packed in a way that Python does not know"
        raise DataError(what, where=path, remedy=_REMEDY) from cause
    except OSError as cause:
        raise DataError(f"cannot be read: {(cause.strerror or 'an error').lower()}", where=path) from cause


def rows(path: Path, *, most: int = MOST) -> Iterator[list[str]]:
    """Give the rows of the first sheet, without those that are blank; cells are text, empty where there is none."""
    path = Path(path)
    with _workbook(path) as archive:
        names = set(archive.namelist())
        part = _first_sheet(archive, names, path, most)
        shared = _shared(archive, names, path, most)
        for element in _elements(archive, part, path, most=most, tag="row"):
            row = _row(element, shared, path)
            if any(row):
                yield row


def _elements(archive: zipfile.ZipFile, part: str, path: Path, *, most: int, tag: str) -> Iterator[ET.Element]:
    """Give each element of a name once it is whole, and forget it afterwards."""
    with archive.open(part) as inner:
        root: ET.Element | None = None
        watched = _Watched(inner, path, most)
        for event, element in ET.iterparse(watched, events=("start", "end")):  # noqa: S314  # no entities: see 2.
            root = element if root is None else root
            if event == "end" and _local(element.tag) == tag:
                yield element
                element.clear()
            elif event == "end" and _local(element.tag) == "sheetData":
                root.clear()


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _first_sheet(archive: zipfile.ZipFile, names: set[str], path: Path, most: int) -> str:
    book, relations = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
    if book not in names:
        raise DataError("is a zip, but no workbook (.xlsx)", where=path, remedy=_REMEDY)
    sheet = next(_elements(archive, book, path, most=most, tag="sheet"), None)
    if sheet is None:
        raise DataError("has no sheet", where=path)
    key = sheet.get(f"{{{_OFFICE}}}id") or sheet.get(f"{{{_STRICT}}}id")
    part = "xl/worksheets/sheet1.xml"
    if relations in names:
        for link in _elements(archive, relations, path, most=most, tag="Relationship"):
            if link.get("Id") == key and (target := link.get("Target")):
                part = posixpath.normpath(target.lstrip("/") if target.startswith("/") else f"xl/{target}")
    if part not in names:
        raise DamagedError("lacks its first sheet", where=path, remedy=_ANEW)
    return part


def _shared(archive: zipfile.ZipFile, names: set[str], path: Path, most: int) -> list[str]:
    part = "xl/sharedStrings.xml"
    if part not in names:
        return []
    return [_text(element) for element in _elements(archive, part, path, most=most, tag="si")]


def _text(element: ET.Element) -> str:
    """Join the runs of a rich text, without how it is spoken."""
    spoken = {id(t) for each in element.iter() if _local(each.tag) == "rPh" for t in each.iter()}
    return "".join(t.text or "" for t in element.iter() if _local(t.tag) == "t" and id(t) not in spoken)


def _row(element: ET.Element, shared: list[str], path: Path) -> list[str]:
    row: list[str] = []
    for cell in element:
        if _local(cell.tag) != "c":
            continue
        at = _column(cell.get("r"), len(row), path)
        row += [""] * (at + 1 - len(row))
        row[at] = " ".join(_value(cell, shared, path).split())
    return row


def _column(reference: str | None, following: int, path: Path) -> int:
    found = _CELL.fullmatch(reference or "")
    at = following
    if found:
        at = -1
        for letter in found[1]:
            at = (at + 1) * 26 + ord(letter) - ord("A")
    if at >= WIDEST:
        raise DataError(f"has more than {WIDEST:,} columns", where=path)
    return at


def _value(cell: ET.Element, shared: list[str], path: Path) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return _text(cell)
    text = next((each.text or "" for each in cell if _local(each.tag) == "v"), "")
    if kind == "s":
        if not text.strip().isdigit() or int(text) >= len(shared):
            where = cell.get("r", "a cell")
            raise DamagedError(f"{where} names a text that the workbook lacks", where=path, remedy=_ANEW)
        return shared[int(text)]
    if kind == "e":
        return ""
    return text.removesuffix(".0") if kind == "n" else text


def read_sheet(
    path: Path, layout: Layout, keep: Callable[[pl.DataFrame], pl.DataFrame] | None = None
) -> tuple[pl.DataFrame, int]:
    """Read the columns of a layout by the names in the sheet's first row, and how many rows there were."""
    import polars as pl

    path = Path(path)
    given = rows(path, most=layout.most)
    header = next(given, None)
    if header is None:
        raise DataError("has no rows", where=path, remedy=_ANEW)
    places = _places(header, layout, path)
    columns: dict[str, list[str | None]] = {name: [] for name in places}
    for row in given:
        for name, at in places.items():
            columns[name].append((row[at] or None) if at is not None and at < len(row) else None)
    table = pl.DataFrame(columns, schema=dict.fromkeys(places, pl.String))
    if not len(table):
        raise DataError("has a header and no rows", where=path, remedy=layout.remedy or _ANEW)
    return (keep(table) if keep else table), len(table)


def _places(header: list[str], layout: Layout, path: Path) -> dict[str, int | None]:
    plain = [_plain(cell) for cell in header]
    places: dict[str, int | None] = {}
    lacking = []
    for name, spellings in (*layout.need.items(), *layout.may.items()):
        there = next((s for s in map(_plain, spellings) if s in plain), None)
        if there is None and name in layout.need:
            lacking.append(spellings[0])
        if there is not None and plain.count(there) > 1:
            raise DataError(f"has the column {header[plain.index(there)]!r} twice", where=path, remedy=layout.remedy)
        places[name] = None if there is None else plain.index(there)
    if lacking:
        shown = ", ".join(repr(cell[:40]) for cell in header[:20]) + (" …" if len(header) > 20 else "")
        word = "column" if len(lacking) == 1 else "columns"
        what = f"lacks the {word} {', '.join(lacking)}; there are {shown}"
        raise DataError(what, where=path, remedy=layout.remedy)
    return places


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
