"""A run on a few pages: every number beside its control, what was not run said, and names as text in all formats."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tests.reports.explorer_made import CLOSING, EMOJI, HOSTILE, LONG, RIGHT, make_run

from elute.base.errors import ConfigError, DataError, SpaceError
from elute.cli.main import main
from elute.reports.paper import as_markdown, as_pdf, figures
from elute.reports.paper.activity import read_activity
from elute.reports.paper.as_svg import svg
from elute.reports.paper.blocks import WIDTH, Block, Bullets, Heading, Picture, Table, Text, flat
from elute.reports.paper.canvas import Box, Canvas, cut, drawable, drawing, width, wrap
from elute.reports.paper.chosen import choose
from elute.reports.paper.facts import read_run
from elute.reports.paper.pages import report
from elute.reports.paper.words import chance, power, share, sure
from elute.reports.paper.write import FORMATS, write_paper
from elute.store.codes import StoredCodes
from elute.store.reader import Store

TEX = (
    r"$\frac{1}{2}$ x_1^2 \alpha {",
    "$unclosed",
    "a_b_c *bold* `code` #1 ~~no~~",
    "[a](http://e.vil) ![b](c) <http://e.vil> www.e.vil me@e.vil",
    "| a | b |",
    "1. first",
    "- &lt;b&gt; & <b>",
)
ODD = (*TEX, HOSTILE, CLOSING, EMOJI, LONG, RIGHT, "]]>", "<!--<script>")


@pytest.fixture(autouse=True, scope="module")
def _as_drawn() -> Iterator[None]:
    with drawing():
        yield


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("plain") / "run", features=30)


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is odd; and names first that a typesetter, a browser or Markdown would take for orders."""
    folder = make_run(tmp_path_factory.mktemp("hostile") / "run", features=24, hostile=True)
    path = folder / "features.parquet"
    frame = pl.read_parquet(path).drop("name_term")
    names = [ODD[i % len(ODD)] for i in range(len(frame))]
    sure = [1 - i / 100 for i in range(len(frame))]
    frame = frame.with_columns(
        pl.Series("name", names), pl.Series("name_confidence", sure), kind=pl.lit("gene program")
    )
    frame.with_columns(alive=pl.lit(value=True)).write_parquet(path)
    return folder


class Written(NamedTuple):
    """A report, as it was put together and in all formats."""

    folder: Path
    blocks: list[Block]
    html: str
    md: str
    pdf: str


def written(folder: Path, most: int, into: Path) -> Written:
    made = {kind: write_paper(folder, kind, output=into / f"r.{kind}", top_n_features=most).path for kind in FORMATS}
    assert made["pdf"].read_bytes().startswith(b"%PDF")
    told = made["html"].read_text(), made["md"].read_text(), pdf_text(made["pdf"].read_bytes())
    return Written(folder, blocks_of(folder, most), *told)


@pytest.fixture(scope="module")
def plain(plain_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(plain_run, 5, tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def hostile(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(hostile_run, 14, tmp_path_factory.mktemp("written"))


def blocks_of(folder: Path, most: int = 20) -> list[Block]:
    run = read_run(folder)
    return report(run, [choose(run, site, most) for site in run.sites])


def said(blocks: list[Block]) -> Iterator[str]:
    """Every text of a report."""
    for block in flat(blocks):
        if isinstance(block, Heading):
            yield from (text for text in (block.text, block.aside) if text)
        elif isinstance(block, Text):
            yield block.text
        elif isinstance(block, Bullets):
            yield from block.items
        elif isinstance(block, Table):
            yield from (*block.heads, *(cell for row in block.rows for cell in row), block.caption)


def words(folder: Path, most: int = 20) -> str:
    return "\n".join(said(blocks_of(folder, most)))


ELEMENTS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "section",
    "h1",
    "h2",
    "h3",
    "bdi",
    "span",
    "p",
    "ul",
    "li",
    "figure",
    "div",
    "table",
    "thead",
    "tbody",
}
ELEMENTS |= {"tr", "th", "td", "svg", "g", "path", "text"}


def bare(text: str) -> str:
    return re.sub(r"\s", "", text)


class Page(HTMLParser):
    """The text of a page, and the elements that it is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def markdown_text(text: str) -> tuple[str, set[str]]:
    """What a reader of Markdown shows, and the kinds of what it is made of."""
    parts, kinds = [], set()
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        kinds.add(token.type)
        for child in token.children or []:
            kinds.add(child.type)
            parts.append(child.content if child.type in ("text", "text_special", "code_inline") else "")
    return "".join(parts), kinds


def pdf_text(data: bytes) -> str:
    """The text of a PDF that was made here: its strings, through the tables that say what letters they are."""
    objects = {int(m[1]): m[2] for m in re.finditer(rb"(?s)\n(\d+) 0 obj\n(.*?)\nendobj", data)}
    streams = {n: stream_of(body) for n, body in objects.items()}
    fonts: dict[bytes, dict[int, str]] = {}
    for name, n in re.findall(rb"/(F\d+) (\d+) 0 R", data):
        table = re.search(rb"/ToUnicode (\d+) 0 R", objects[int(n)])
        assert table is not None
        fonts[name] = letters_of(streams[int(table[1])])
    pages = [int(n) for n in re.findall(rb"/Contents (\d+) 0 R", data)]
    return "\n".join(line for n in pages for line in lines_of(streams[n], fonts))


def stream_of(body: bytes) -> bytes:
    found = re.search(rb"(?s)stream\r?\n(.*)\r?\nendstream", body)
    return zlib.decompress(found[1]) if found and b"FlateDecode" in body else b""


def letters_of(table: bytes) -> dict[int, str]:
    found = {}
    for first, _, rest in re.findall(rb"<(\w+)> <(\w+)> \[([^\]]*)\]", table):
        for i, code in enumerate(re.findall(rb"<(\w+)>", rest)):
            found[int(first, 16) + i] = bytes.fromhex(code.decode()).decode("utf-16-be")
    return found


def lines_of(content: bytes, fonts: dict[bytes, dict[int, str]]) -> Iterator[str]:
    for part in re.findall(rb"(?s)BT\n(.*?)\nET", content):
        line, letters = "", {}
        for font, string in re.findall(rb"/(F\d+) [\d.]+ Tf|\(((?:\\.|[^\\)])*)\)", part, re.DOTALL):
            if font:
                letters = fonts[font]
                continue
            whole = {b"n": b"\n", b"r": b"\r"}
            codes = re.sub(rb"(?s)\\(.)", lambda m, whole=whole: whole.get(m[1], m[1]), string)
            line += "".join(letters[code] for code in np.frombuffer(codes, ">u2").tolist())
        yield line


def turned(text: str) -> bool:
    return bool(re.search("[\u0590-\u08ff]", text))


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_all_formats_say_the_same(which: str, request: pytest.FixtureRequest) -> None:
    made: Written = request.getfixturevalue(which)
    texts = [bare(text) for text in said(made.blocks)]
    assert len(texts) > 60
    shown = bare("".join(Page(made.html).parts))
    assert not [text for text in texts if text not in shown]
    read, kinds = markdown_text(made.md)
    shown = bare(read)
    assert not [text for text in texts if text not in shown]
    assert not kinds & {"html_block", "html_inline", "link_open", "em_open", "strong_open", "code_inline", "fence"}
    shown = bare(made.pdf)
    lost = [text for text in texts if not turned(text) and bare(drawable(text)) not in shown]
    assert not [text for text in lost if len(text) < 60], lost  # longer ones may go over the end of a page
    assert len(lost) <= 4


def test_the_page_holds_nothing_but_text_and_pictures(hostile: Written) -> None:
    page = Page(hostile.html)
    assert {tag for tag, _ in page.tags} <= ELEMENTS
    assert not [each for _, each in page.tags if any(name.startswith("on") or name in ("href", "src") for name in each)]
    policy = next(each["content"] for tag, each in page.tags if tag == "meta" and "http-equiv" in each)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    links = re.findall('https?://[^ <"]*', hostile.html)
    assert {link for link in links if "e.vil" not in link} == {"http://www.w3.org/2000/svg"}


def test_odd_names_are_text_in_every_format(hostile: Written) -> None:
    shown = "\n".join(said(hostile.blocks))
    for name in (*TEX, HOSTILE, CLOSING, EMOJI, LONG[:100], RIGHT.replace("\u202e", "")):
        assert bare(name) in bare(shown), name
    assert "half ? a character" in shown
    for name in (*TEX, HOSTILE, CLOSING, LONG[:30], drawable(EMOJI)):
        assert bare(name) in bare(hostile.pdf), name
    assert "[U+1F9EC]" in hostile.pdf
    assert set("גנים") <= set(hostile.pdf)


def test_numbers_stand_beside_their_controls(plain_run: Path, plain: Written) -> None:
    shown = "\n".join(said(plain.blocks))
    assert "explains 81% of the variance on rows of cells that it was not trained on; principal directions" in shown
    assert "explain 72%" in shown
    assert "9 of 30 (30%) features do." in shown
    assert "61% of the features that fire are found again; directions drawn at random: 1%" in shown
    assert "5 features differ by “cell_type” across 6 donors at q ≤ 0.05; with its levels dealt out anew 0.5" in shown
    told = json.loads((plain_run / "validation" / "summary.json").read_text())["databases"]["reactome"]
    table = next(b for b in flat(plain.blocks) if isinstance(b, Table) and b.heads[0] == "Database")
    row = dict(zip(table.heads, next(row for row in table.rows if row[0].startswith("Reactome")), strict=True))
    assert row["Features with a term"] == str(told["significant"])
    assert row["Plain test"] == str(told["plain"])
    assert row["Matched lists"].startswith(f"{told['null']['mean']:g} (")
    assert row["Permuted cells"] == "1"
    assert row["Random weights"] == row["Embedding layer"] == "not run"
    assert row["Again on other donors"] == f"{told['again']} of {told['significant']}"
    pictures = " ".join(b.told for b in flat(plain.blocks) if isinstance(b, Picture))
    assert "features, labels permuted 0.4 of 30 (1.3%), at most 2" in pictures
    assert "embedding layer not run: the model has no such site" in pictures


def test_a_control_that_does_as_well_is_named(plain_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in plain_run.iterdir():
        if path.name not in ("validation", "report"):
            (other / path.name).symlink_to(path)
    (other / "validation").mkdir()
    told = json.loads((plain_run / "validation" / "summary.json").read_text())
    del told["databases"]
    assert "Of all that they are held against a smaller share does." in words(plain_run, 1)
    told["follow"]["neurons"] = {"columns": 10, "follow": 5, "both signs": True}
    told["follow"]["random weights"] |= {"follow": 20}
    told["follow"]["features, on those cells"] = {"columns": 30, "follow": 25, "cells": 100}
    (other / "validation" / "summary.json").write_text(json.dumps(told))
    shown = words(other, 1)
    assert "As large a share or a larger one do of neurons of the model (50%): for cell types" in shown
    assert "on which the run’s own features are counted once more" in shown
    assert "No database was asked, so no feature has a term or a name" in shown


def test_the_best_supported_come_first_and_once(plain_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    rows = [
        ("one gene", 0.99, "genes", None, "gene identity"), ("the same", 0.8, "hpo", "HP:1", "gene program"),
        ("again", 0.9, "hpo", "HP:1", "gene program"), ("a guess", 0.3, "genes", None, "gene program"),
        ("B cells", 0.7, "cells", None, "cell state"), ("silent", 0.0, "kind", None, "silent"),
    ]  # fmt: skip
    names = ("name", "name_confidence", "name_source", "name_term", "kind")
    frame = pl.DataFrame(rows, schema=names, orient="row").with_row_index("feature")
    frame = frame.with_columns(alive=pl.col("kind") != "silent", cell_type=pl.lit("B")).cast({"feature": pl.Int32})
    frame.write_parquet(folder / "features.parquet")
    run = read_run(folder)
    choice = choose(run, run.sites[0], 20)
    assert [each.feature for each in choice.features] == [2, 4, 0, 3]
    assert choice.features[0].alike == (1,)
    assert (choice.sure, choice.several) == (3, 4)
    shown = words(folder, 4)
    assert "confidence 0.30, a guess" in shown
    assert "feature 1 has the same name" in shown
    assert "3 of 4 (75%) of those that do not stand for a single gene" in shown
    assert "at most one in twenty would, that is 0.2" in shown


def test_means_of_cell_types_are_those_of_the_codes(plain_run: Path) -> None:
    run = read_run(plain_run)
    assert run.cells is not None
    found, why = read_activity(run, plain_run, [4, 11])
    assert why == ""
    codes, store = StoredCodes(plain_run / "codes").read(), Store(plain_run / "activations")
    names = store.metadata(0, len(store), columns=["sample_id"])["sample_id"].to_list()
    sums: dict[str, list[float]] = {}
    for name, row, values in zip(names, codes.indices.tolist(), codes.values.tolist(), strict=True):
        sums.setdefault(name, []).append(sum(v for f, v in zip(row, values, strict=True) if f == 11))
    cells = run.cells.with_columns(pl.col("cell").replace_strict({k: np.mean(v) for k, v in sums.items()}).alias("m"))
    group = found[11].groups[0]
    mine = cells.filter(pl.col("label") == group.name)
    chose = mine.filter(pl.col("split") == "train")
    assert group.cells == len(chose)
    assert group.mean == pytest.approx(chose["m"].mean())
    assert group.shown == pytest.approx(mine.filter(pl.col("split") == "test")["m"].mean())
    by = chose.group_by("donor").agg(pl.col("m").mean(), pl.len().alias("n")).filter(pl.col("n") >= 3).sort("donor")
    assert group.donors == pytest.approx(by["m"].to_list())
    assert found[11].groups[1].mean is not None
    assert group.mean is not None
    assert group.mean >= found[11].groups[1].mean


def crossed(boxes: list[Box]) -> list[tuple[str, str]]:
    return [
        (a.text, b.text)
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if min(a.right, b.right) - max(a.left, b.left) > 0.5 and min(a.bottom, b.bottom) - max(a.top, b.top) > 1.2
    ]


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_no_text_lies_on_another_or_off_the_page(which: str, request: pytest.FixtureRequest) -> None:
    blocks = request.getfixturevalue(which).blocks
    pages = as_pdf.lay_out("a very long title " * 20, blocks)
    assert len(pages) > 2
    for page in pages:
        assert not crossed(page.boxes)
        assert all(b.left >= 49 and b.right <= 546.5 and b.top >= 30 and b.bottom <= 825 for b in page.boxes)
    assert sum(box.text.endswith(f"/ {len(pages)}") for page in pages for box in page.boxes) == len(pages)
    for block in flat(blocks):
        if isinstance(block, Picture):
            canvas = Canvas(WIDTH, block.height)
            block.draw(canvas)
            assert all(b.left >= -0.5 and b.right <= WIDTH + 0.5 and b.bottom <= block.height + 1 for b in canvas.boxes)
            assert ET.fromstring(svg(block)).tag.endswith("svg")  # noqa: S314  what was made here


def test_a_run_with_nothing_but_features(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    frame = pl.DataFrame({"feature": [0, 1], "top_genes": [["A"], ["B", "C"]], "top_genes_z": [[2.0], [5.0, 4.0]]})
    frame.write_parquet(folder / "features.parquet")
    for kind in FORMATS:
        assert write_paper(folder, kind).summary["features"] == {"run": [1, 0]}
    shown = words(folder, 4)
    for told in (
        "Variance explained: not run. Stability over seeds: not run.",
        "Features that follow a cell type, beside controls: not run.",
        "Databases: not run.",
        "in the order of how closely the first gene follows",
        "No controls were run",
        "No database was asked",
        "The table of cells is not in the folder",
        "No cell type was tested.",
        "stability not run",
    ):
        assert told in shown, told


def test_without_types_donors_split_or_codes_it_says_so(plain_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("features", "feature_genes", "feature_groups"):
        (folder / f"{name}.parquet").write_bytes((plain_run / f"{name}.parquet").read_bytes())
    cells = pl.read_parquet(plain_run / "cells.parquet")
    cells.with_columns(donor=pl.lit(None, pl.String), split=pl.lit(None, pl.String)).write_parquet(
        folder / "cells.parquet"
    )
    shown = words(folder, 4)
    assert "No donors are given" in shown
    assert "No cells were held out" in shown
    assert "cannot be drawn: the run keeps no codes of its rows" in shown
    run = read_run(folder)
    one = choose(run, run.sites[0], 3).features[0]
    assert "by AUROC" in figures._types(one)[1]
    cells.drop("label", "donor").write_parquet(folder / "cells.parquet")
    assert "No cell types are known: nothing is counted by them" in words(folder, 2)
    cells.with_columns(donor=pl.lit("one")).write_parquet(folder / "cells.parquet")
    assert "All cells are of one donor" in words(folder, 2)
    both = cells.with_columns(donor=pl.Series([f"d{i % 2}" for i in range(len(cells))]))
    both.with_columns(split=pl.Series([("train", "test")[i // 2 % 2] for i in range(len(cells))])).write_parquet(
        folder / "cells.parquet"
    )
    assert "Held-out cells are of the same donors" in words(folder, 2)


def test_several_sites_are_all_in_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", sites=2, features=16, cells=60)
    artifact = write_paper(folder, "md")
    told, shown = artifact.summary["features"], markdown_text(artifact.path.read_text())[0]
    assert [len(features) for features in told.values()] == [10, 10]
    for name in told:
        assert f"{name}: how good it is, beside its controls" in shown
        assert f"{name}: the 10 best-supported features" in shown
    assert shown.count("OMIM was not run: not installed") == 1
    alone = folder / "blocks.0.hook_mlp_out"
    shown = words(alone)
    assert "They are of 6 donors" in shown  # whose cells lie in the run's folder
    assert re.search(r"^How good it is, beside its controls$", shown, re.MULTILINE)
    assert re.search(r"^The 1\d best-supported features$", shown, re.MULTILINE)


def test_the_same_bytes_at_any_time(plain_run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from elute.reports.paper.write import FORMATS, write_paper; "
        "[write_paper(Path(sys.argv[1]), k, output=Path(sys.argv[2]) / f'r.{k}', top_n_features=2) for k in FORMATS]"
    )
    one, other = tmp_path / "one", tmp_path / "other"
    env = {"PYTHONHASHSEED": "7", "PATH": "", "MPLCONFIGDIR": str(tmp_path), "TZ": "UTC7", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, plain_run, one], check=True, timeout=300, env=env, capture_output=True)
    for kind in FORMATS:
        write_paper(plain_run, kind, output=other / f"r.{kind}", top_n_features=2)
    found = [{p.relative_to(at): p.read_bytes() for p in sorted(at.rglob("*")) if p.is_file()} for at in (one, other)]
    assert found[0] == found[1]
    assert {path.suffix for path in found[0]} == {".html", ".pdf", ".md", ".svg"}
    assert not [data for data in found[0].values() if b"CreationDate" in data or b"<dc:date>" in data]


def test_pictures_beside_markdown_are_there(plain_run: Path, tmp_path: Path) -> None:
    path = write_paper(plain_run, "md", output=tmp_path / "a report (1).md", top_n_features=3).path
    named = re.findall(r"\]\(<([^>]+)>\)", path.read_text())
    assert len(named) == 6
    assert all(
        (tmp_path / name.replace("%20", " ").replace("%28", "(").replace("%29", ")")).is_file() for name in named
    )


def test_errors_are_one_line(plain_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        write_paper(tmp_path / "none")
    with pytest.raises(DataError, match=r"is not the folder of a run.*run-pipeline"):
        write_paper(tmp_path)
    with pytest.raises(ConfigError, match="no format 'pfd' of a report. Did you mean 'pdf'"):
        write_paper(plain_run, "pfd")
    with pytest.raises(ConfigError, match="a report of 0 features"):
        write_paper(plain_run, top_n_features=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(SpaceError, match="cannot be written"):
        write_paper(plain_run, output=tmp_path / "file" / "report.html")
    assert main(["report", "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["report", "--results", str(plain_run), "--format", "docx"]) == 2
    assert "'docx' is not one of" in capsys.readouterr().err
    assert main(["report", "--results", str(plain_run), "--json", "--top-n-features", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(plain_run / "report" / "report.html")


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60), st.floats(20, 200))
def test_lines_fit_and_lose_no_letter(text: str, room: float) -> None:
    lines = wrap(text, room)
    assert bare("".join(lines)) == bare(drawable(text))
    assert all(width(line, 8.0) <= room or len(line) == 1 for line in lines)
    shown = cut(text, room)
    assert width(shown, 8.0) <= room or shown == "…"


def test_numbers_in_words() -> None:
    assert [share(x) for x in (None, 0.0, 0.0004, 0.0293, 0.5, 1.0)] == [
        "not run",
        "0%",
        "less than 0.1%",
        "2.9%",
        "50%",
        "100%",
    ]
    assert sure(0.999) == "0.99"
    assert chance(4.6e-12) == "4.6×10⁻¹²"
    assert power("q 3.1e-06, gene 1e5x, 0.0011") == "q 3.1×10⁻⁶, gene 1e5x, 0.0011"
    assert as_markdown.plain_text("a_b\n<i> $x$") == r"a\_b &lt;i&gt; \$x\$"
