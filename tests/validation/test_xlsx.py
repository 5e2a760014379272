"""A workbook's first sheet: read as it stands, bounded, and nothing in it is followed or expanded."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from elute.base.errors import DamagedError, DataError
from elute.validation.reading import xlsx
from elute.validation.reading.columns import Layout

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
BOOK = (
    f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets><sheet name="first" sheetId="7" r:id="rId2"/>'
    '<sheet name="other" sheetId="1" r:id="rId1"/></sheets></workbook>'
)
LINKS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Target="/xl/worksheets/sheet9.xml"/>'
    "</Relationships>"
)
STRINGS = (
    f'<sst xmlns="{MAIN}"><si><t>Symbol</t></si><si><r><t>cell</t></r><r><t xml:space="preserve">_name </t></r></si>'
    "<si><t>MS4A1</t><rPh><t>spoken</t></rPh></si><si><t>B &amp; T\n cell</t></si></sst>"
)
ROWS = (
    '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="D1" t="inlineStr"><is><t>PMID</t></is></c></row>'
    '<row r="2"><c r="A2" t="s"><v>2</v></c><c r="B2" t="s"><v>3</v></c><c r="D2"><v>123.0</v></c></row>'
    '<row r="3"><c r="A3" s="1"/></row>'
    '<row r="4"><c r="A4" t="str"><f>UPPER("cd19")</f><v>CD19</v></c><c r="B4" t="e"><v>#N/A</v></c><c r="D4"><v>4.5</v></c></row>'
)


def sheet(rows: str = ROWS, head: str = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>') -> str:
    return f'{head}<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData><pageMargins/></worksheet>'


def workbook(folder: Path, **changed: str | bytes | None) -> Path:
    parts: dict[str, str | bytes | None] = {
        "book": BOOK,
        "links": LINKS,
        "strings": STRINGS,
        "other": sheet("<row><c><v>1</v></c></row>"),
        "first": sheet(),
    } | changed
    names = {
        "book": "xl/workbook.xml",
        "links": "xl/_rels/workbook.xml.rels",
        "strings": "xl/sharedStrings.xml",
        "other": "xl/worksheets/sheet1.xml",
        "first": "xl/worksheets/sheet9.xml",
    }
    path = folder / "book.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            if content is not None:
                archive.writestr(names[name], content)
    return path


def test_the_first_sheet_is_the_one_that_the_workbook_names_first(tmp_path: Path) -> None:
    assert list(xlsx.rows(workbook(tmp_path))) == [
        ["Symbol", "cell_name", "", "PMID"],
        ["MS4A1", "B & T cell", "", "123"],
        ["CD19", "", "", "4.5"],
    ]


def test_cells_without_addresses_follow_one_another(tmp_path: Path) -> None:
    path = workbook(tmp_path, first=sheet("<row><c><v>1</v></c><c/><c><v>3</v></c></row>"), strings=None)
    assert list(xlsx.rows(path)) == [["1", "", "3"]]


def test_columns_by_their_names(tmp_path: Path) -> None:
    layout = Layout(need={"gene": ("symbol",), "cell": ("cell name",)}, may={"paper": ("pmid",), "year": ("year",)})
    table, n = xlsx.read_sheet(workbook(tmp_path), layout)
    assert n == 2
    assert table.rows() == [("MS4A1", "B & T cell", "123", None), ("CD19", None, "4.5", None)]
    some, n = xlsx.read_sheet(workbook(tmp_path), layout, lambda t: t.filter(t["gene"] == "CD19"))
    assert (len(some), n) == (1, 2)


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        (
            Layout(need={"a": ("Symbol",), "b": ("marker",), "c": ("tissue",)}),
            "lacks the columns marker, tissue; there are",
        ),
        (Layout(need={"a": ("species",)}), "lacks the column species; there are 'Symbol', 'cell_name'"),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, layout: Layout, what: str) -> None:
    with pytest.raises(DataError, match=what):
        xlsx.read_sheet(workbook(tmp_path), layout)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    cell = '<c t="inlineStr"><is><t>Symbol</t></is></c>'
    path = workbook(tmp_path, first=sheet(f"<row>{cell}{cell}</row><row><c><v>1</v></c></row>"))
    with pytest.raises(DataError, match="'Symbol' twice"):
        xlsx.read_sheet(path, Layout(need={"a": ("symbol",)}))


BOMB = '<!DOCTYPE w [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE w [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("part", ["first", "strings", "book", "links"])
@pytest.mark.parametrize("evil", [BOMB, FILE, '<!doctype w SYSTEM "http://127.0.0.1:9/x.dtd">', "<!DOCTYPE w>"])
def test_no_part_may_declare_a_document_type(tmp_path: Path, part: str, evil: str) -> None:
    right = {"first": sheet(head=""), "strings": STRINGS, "book": BOOK, "links": LINKS}[part]
    with pytest.raises(DataError, match="declares a document type"):
        list(xlsx.rows(workbook(tmp_path, **{part: evil + right})))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_nor_in_another_encoding_or_far_behind(tmp_path: Path, encoding: str) -> None:
    far = "<!--" + "x" * 70_000 + "-->" + BOMB + sheet(head="")
    with pytest.raises(DataError, match="declares a document type"):
        list(xlsx.rows(workbook(tmp_path, first=far.encode(encoding))))


@pytest.mark.parametrize("encoding", ["cp037", "utf-7", "cp1252"])
def test_nor_in_an_encoding_that_hides_it(tmp_path: Path, encoding: str) -> None:
    hidden = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + (BOMB + sheet(head="")).encode(encoding)
    with pytest.raises(DataError, match=f"is in the encoding {encoding.upper()}"):
        list(xlsx.rows(workbook(tmp_path, first=hidden)))


@pytest.mark.parametrize("at", range((1 << 16) - 8, (1 << 16) + 8, 3))
def test_nor_where_two_reads_meet(tmp_path: Path, at: int) -> None:
    head = '<?xml version="1.0"?><!--'
    far = head + "x" * (at - len(head) - 3) + "-->" + BOMB + sheet(head="")
    with pytest.raises(DataError, match="declares a document type"):
        list(xlsx.rows(workbook(tmp_path, first=far)))


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path, first=sheet("<row><c><v>1</v></c></row>" * 50_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match="unpacks to more"):
        list(xlsx.rows(path, most=1_000_000))


@pytest.mark.parametrize(
    ("changed", "kind", "what"),
    [
        ({"first": sheet('<row><c r="ZZZ1"><v>1</v></c></row>')}, DataError, "more than 1,000 columns"),
        ({"first": sheet('<row><c r="A1" t="s"><v>99</v></c></row>')}, DamagedError, "A1 names a text"),
        ({"first": sheet('<row><c r="A1" t="s"><v>-1</v></c></row>')}, DamagedError, "A1 names a text"),
        ({"first": sheet()[:-30]}, DamagedError, "not well-formed"),
        ({"first": None}, DamagedError, "lacks its first sheet"),
        ({"book": BOOK.replace("sheet ", "chart ")}, DataError, "has no sheet"),
        ({"book": None}, DataError, "is a zip, but no workbook"),
        (
            {"links": LINKS.replace("/xl/worksheets/sheet9.xml", "../../../etc/passwd")},
            DamagedError,
            "lacks its first sheet",
        ),
    ],
)
def test_a_workbook_with_a_fault_is_refused(
    tmp_path: Path, changed: dict[str, str | None], kind: type[DataError], what: str
) -> None:
    path = workbook(tmp_path, **changed)
    with pytest.raises(kind, match=what) as caught:
        list(xlsx.rows(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_workbook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.xlsx"
    for content, what in (
        (b"Symbol\tcell\n", "is no workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "old .* or encrypted"),
        (workbook(tmp_path).read_bytes()[:-200], "cut short or damaged"),
        (b"", "is no workbook"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=what):
            list(xlsx.rows(path))
    with pytest.raises(DataError, match="no such file"):
        list(xlsx.rows(tmp_path / "absent.xlsx"))
    with pytest.raises(DataError, match="cannot be read: is a directory"):
        list(xlsx.rows(tmp_path))


@pytest.mark.parametrize("fault", ["password", "packing"])
def test_what_cannot_be_unpacked_is_refused(tmp_path: Path, fault: str) -> None:
    path = workbook(tmp_path)
    data = bytearray(path.read_bytes())
    for mark, flags, method in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        at = data.find(mark)
        while at >= 0:
            data[at + (flags if fault == "password" else method)] = 1 if fault == "password" else 97
            at = data.find(mark, at + 4)
    path.write_bytes(data)
    with pytest.raises(DataError, match="with a password, or packed in a way"):
        list(xlsx.rows(path))


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"<row><c><v>{n * n * 7919 % 100_003}</v></c></row>" for n in range(5000))
    path = workbook(tmp_path, first=sheet(rows))
    data = bytearray(path.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        list(xlsx.rows(path))


def test_a_header_alone_is_refused(tmp_path: Path) -> None:
    layout = Layout(need={"a": ("1",)})
    with pytest.raises(DataError, match="has a header and no rows"):
        xlsx.read_sheet(workbook(tmp_path, first=sheet("<row><c><v>1</v></c></row>")), layout)
    with pytest.raises(DataError, match="has no rows"):
        xlsx.read_sheet(workbook(tmp_path, first=sheet("")), layout)
