"""Delimited files by the names of their columns, opened safely."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from elute.base.errors import DamagedError, DataError
from elute.validation.reading import columns
from elute.validation.reading.columns import Layout, batches, lines, read_columns

LAYOUT = Layout(need={"gene": ("gene_symbol", "symbol"), "term": ("term_id", "id")}, may={"score": ("score",)})
TEXT = "gene_symbol\tterm_id\tscore\nALFA\tT:1\t0.5\n BETA \tT:2\t\nGAMA\t T:3\t1\n"
ROWS = [("ALFA", "T:1", "0.5"), ("BETA", "T:2", None), ("GAMA", "T:3", "1")]


def write(tmp_path: Path, content: str | bytes, name: str = "file.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)
    return out.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        str.encode,
        lambda text: gzip.compress(text.encode(), mtime=0),
        lambda text: zipped(a_tsv=text),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: ("# made by hand\n#" + text).encode(),
        lambda text: ("\n" + text + "\n# the end\n\n").encode(),
    ],
    ids=["plain", "gzip", "zip", "mark", "crlf", "no last end", "comments", "comments at the end"],
)
def test_the_same_rows_however_the_file_is_packed(tmp_path: Path, pack: Callable[[str], bytes]) -> None:
    sheet = read_columns(write(tmp_path, pack(TEXT)), LAYOUT)
    assert sheet.table.rows() == ROWS
    assert sheet.rows == 3


def test_columns_are_found_under_any_of_their_names_in_any_order(tmp_path: Path) -> None:
    other = "Score,ID,other,Symbol\n0.5,T:1,x,ALFA\n,T:2,y,BETA\n1,T:3,,GAMA\n"
    layout = Layout(need=LAYOUT.need, may=LAYOUT.may, separators="\t,")
    assert read_columns(write(tmp_path, other), layout).table.rows() == ROWS
    assert read_columns(write(tmp_path, other.replace(",", "\t")), layout).table.rows() == ROWS


def test_quotes_are_read_where_commas_separate_and_are_text_where_tabs_do(tmp_path: Path) -> None:
    layout = Layout(need={"a": ("a",), "b": ("b",)}, separators=",")
    path = write(tmp_path, 'a,b\n"one, two","three\nlines ""quoted"""\nx,y\n')
    assert read_columns(path, layout).table.rows() == [("one, two", 'three\nlines "quoted"'), ("x", "y")]
    path = write(tmp_path, 'a\tb\n"one\ttwo"\n')
    assert read_columns(path, Layout(need=layout.need)).table.rows() == [('"one', 'two"')]


def test_a_file_without_a_header_and_lines_that_lack_their_last_fields(tmp_path: Path) -> None:
    bare = Layout(need={"a": ("a",)}, may={"c": ("c",)}, names=("a", "b", "c"))
    assert read_columns(write(tmp_path, "1\t2\t3\n4\t5\t6\n"), bare).table.rows() == [("1", "3"), ("4", "6")]
    assert read_columns(write(tmp_path, "# made\n#a\tb\tc\n1\t2\t3\n"), bare).table.rows() == [("1", "3")]
    with pytest.raises(
        DataError, match="lacks the column a; there are 'x'"
    ):  # no comment, but a header of other columns
        read_columns(write(tmp_path, "# made\n#x\tb\tc\n1\t2\t3\n"), bare)
    ragged = Layout(need={"a": ("a",)}, may={"c": ("c",)}, ragged=True)
    assert read_columns(write(tmp_path, "a\tb\tc\n1\t2\t3\n4\n"), ragged).table.rows() == [("1", "3"), ("4", None)]


def test_a_large_file_comes_in_parts_that_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "LONGEST", 64)
    text = "gene_symbol\tterm_id\n" + "".join(f"G{i}\tT:{i}\n" for i in range(200))
    path = write(tmp_path, text)
    parts = list(batches(path, LAYOUT))
    assert len(parts) > 10
    assert pl.concat(parts)["gene"].to_list() == [f"G{i}" for i in range(200)]
    kept = read_columns(path, LAYOUT, keep=lambda part: part.filter(pl.col("gene") == "G7"))
    assert (kept.table["term"].to_list(), kept.rows) == (["T:7"], 200)
    quoted = Layout(need={"a": ("a",), "b": ("b",)}, separators=",")
    text = "a,b\n" + "".join(f'{i},"two\nlines {i}"\n' for i in range(40))
    rows = pl.concat(batches(write(tmp_path, text, "q.csv"), quoted)).rows()
    assert rows == [(str(i), f"two\nlines {i}") for i in range(40)]


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (b"", DamagedError, "is empty"),
        (b"   \n \n", DamagedError, "is empty"),
        (b"<!DOCTYPE html><html>log in</html>", DamagedError, "is a web page"),
        (b"<!-- hello -->\n<html></html>", DamagedError, "is a web page"),
        (TEXT.encode("utf-16"), DataError, "is UTF-16 text"),
        (TEXT.replace("BETA", "BÉTA").encode("latin-1"), DataError, "line 3 is no UTF-8 text"),
        (TEXT.replace("BETA", "B\0TA").encode(), DamagedError, "line 3 holds zero bytes"),
        (gzip.compress(TEXT.encode() * 99, mtime=0)[:-30], DamagedError, "is cut short or damaged"),
        (b"\x1f\x8b\x08\x00garbage that is no archive", DamagedError, "is cut short or damaged"),
        (zipped(a_tsv=TEXT)[:-40], DamagedError, "is a zip that is cut short or damaged"),
        (zipped(a_tsv=TEXT, b_tsv=TEXT), DataError, "is a zip with 2 files"),
        (b"gene_symbol\tother\nA\tB\n", DataError, "lacks the column term_id; there are 'gene_symbol', 'other'"),
        (
            b"# made\n# gene_symbol\tother\nA\tB\n",
            DataError,
            "lacks the column term_id; there are 'gene_symbol', 'other'",
        ),
        (b"gene_symbol,term_id\nA,T:1\n", DataError, "has commas between its columns, where tabs are expected"),
        (b"gene_symbol\tterm_id\tgene symbol\nA\tT\tB\n", DataError, "has the column 'gene_symbol' twice"),
        (b"gene_symbol\tterm_id\n", DataError, "has a header and no rows"),
        (TEXT.encode() + b"DELTA\n", DamagedError, "line 5 has 1 fields, not the header's 3"),
        (TEXT.encode() + b"DELTA\tT:4\t1\tmore\n", DamagedError, "line 5 has 4 fields"),
        (b'{"error": "no such file"}', DamagedError, "is no table: it begins"),
        (b"<?xml version='1.0'?><Error>denied</Error>", DamagedError, "is no table: it begins"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, kind: type[DataError], says: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(kind) as caught:
        read_columns(path, LAYOUT)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_and_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is no file"):
        read_columns(tmp_path, LAYOUT)
    with pytest.raises(DataError, match="no such file"):
        read_columns(tmp_path / "absent", LAYOUT)
    bomb = write(tmp_path, gzip.compress(b"gene_symbol\tterm_id\n" + b"A\tB\n" * 100_000, mtime=0))
    with pytest.raises(DataError, match="unpacks to more than"):
        read_columns(bomb, Layout(need=LAYOUT.need, most=100_000))
    monkeypatch.setattr(columns, "LONGEST", 1000)
    long = write(tmp_path, "gene_symbol\tterm_id\n" + "A" * 5000 + "\tT:1\n")
    with pytest.raises(DataError, match=r"line 2 is longer than"):
        read_columns(long, LAYOUT)
    with pytest.raises(DataError, match=r"line 2 is longer than"):
        list(lines(long))


def test_an_open_quote_is_told_by_its_line(tmp_path: Path) -> None:
    layout = Layout(need={"a": ("a",), "b": ("b",)}, separators=",")
    with pytest.raises(DataError, match="line 3 cannot be read"):
        read_columns(write(tmp_path, 'a,b\n1,2\n"3,4\n5,6\n'), layout)
