"""Queries against tables, beside the same asked of Python's own lists; and large tables, of which one page is sent."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from tests.app.conftest import Open, well

from elute.app import tables
from elute.app.session import begin
from elute.app.tables import Filter, Query, look
from elute.base.errors import DamagedError, DataError

ROWS = [
    {"feature": i, "q": None if i % 7 == 0 else (i * 37 % 100) / 100, "name": f"Name {i % 13}", "alive": i % 3 > 0,
     "top_genes": [f"G{i}", None, "CD3D" if i % 5 == 0 else "x"]}
    for i in range(230)
]  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def numbers(path: Path, query: Query) -> tuple[list[int], int]:
    found = look(path, query)
    return found.frame["feature"].to_list(), found.total


def test_filters(table: Path) -> None:
    kept = [r["feature"] for r in ROWS if r["q"] is not None and 0.2 <= r["q"] <= 0.5 and r["alive"]]  # type: ignore[operator]
    asked = Query(filters=(Filter("q", low=0.2, high=0.5), Filter("alive", flag=True)), size=500)
    assert numbers(table, asked) == (kept, len(kept))
    kept = [r["feature"] for r in ROWS if r["name"] in ("Name 3", "Name 5")]
    assert numbers(table, Query(filters=(Filter("name", among=("Name 3", "Name 5")),), size=500)) == (kept, len(kept))
    assert look(table, Query(filters=(Filter("name"),))).total == len(ROWS)
    kept = [r["feature"] for r in ROWS if str(r["name"]).endswith("2")]
    assert numbers(table, Query(filters=(Filter("name", holds="E 12"),), size=500))[0] == [
        r["feature"] for r in ROWS if "e 12" in str(r["name"])
    ]
    assert kept


def test_search_looks_into_texts_and_lists(table: Path) -> None:
    kept = [r["feature"] for r in ROWS if r["feature"] % 5 == 0]  # type: ignore[operator]
    assert numbers(table, Query(text=" cd3D ", size=500)) == (kept, len(kept))
    assert look(table, Query(text="[x](.*")).total == 0


def test_pages_follow_one_another_and_nulls_come_last(table: Path) -> None:
    asked = Query(sort="q", descending=True, size=25)
    pages = [look(table, asked._replace(page=i)).frame for i in range(10)]
    assert [len(page) for page in pages] == [25] * 9 + [5]
    every = pl.concat(pages)
    order = sorted(ROWS, key=lambda r: (r["q"] is None, -(r["q"] or 0.0), r["feature"]))  # type: ignore[operator,arg-type]
    assert every["feature"].to_list() == [r["feature"] for r in order]


def test_a_file_written_anew_is_read_anew(table: Path) -> None:
    assert look(table, Query()).total == 230
    hidden = table.with_name("new")
    pl.DataFrame(ROWS[:7]).write_parquet(hidden)
    told = table.stat()
    os.utime(hidden, ns=(told.st_mtime_ns, told.st_mtime_ns))
    hidden.replace(table)
    assert look(table, Query()).total == 7


def test_choices(table: Path) -> None:
    assert tables.choices(table, "name") == sorted({str(r["name"]) for r in ROWS})
    pl.DataFrame({"name": [f"n{i}" for i in range(60)]}).write_parquet(table)
    assert tables.choices(table, "name") is None


def test_damage_is_one_line(table: Path, tmp_path: Path) -> None:
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(DamagedError, match=r"t\.parquet: cannot be read"):
        look(table, Query())
    with pytest.raises(DataError, match="No such file"):
        look(tmp_path / "absent.parquet", Query())
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DamagedError):
        tables.read(tmp_path / "list.json")


def test_large_tables_stay_paged(tmp_path: Path, show: Open) -> None:
    """16,384 features, 650,000 genes of them and 100,000 cells: never more than a page reaches the browser."""
    n, cells = 16_384, 100_000
    number = pl.int_range(n, dtype=pl.Int32, eager=True).alias("feature")
    pl.select(
        number, frequency=number / n, alive=number % 9 > 0, kind=pl.lit("cell state"),
        top_genes=pl.concat_list(pl.concat_str(pl.lit("G"), number), pl.lit("CD3D")),
    ).write_parquet(tmp_path / "features.parquet")  # fmt: skip
    rows = pl.int_range(n * 40, eager=True)
    pl.select(feature=(rows // 40).cast(pl.Int32), symbol=pl.concat_str(pl.lit("G"), rows % 2000), z=rows % 97 / 7.0,
              rank=(rows % 40).cast(pl.Int32)).write_parquet(tmp_path / "feature_genes.parquet")  # fmt: skip
    cell = pl.int_range(cells, eager=True)
    pl.select(
        cell=pl.concat_str(pl.lit("cell "), cell), label=pl.concat_str(pl.lit("type "), cell % 300), total=cell * 1.5
    ).write_parquet(tmp_path / "cells.parquet")
    page = show(tmp_path, "explore")
    assert "16,384 rows; 1 to 50 are shown" in [each.value for each in page.text]
    assert len(page.dataframe[0].value) == 50
    for title, total in (("Cells", "100,000"), ("Genes of features", "655,360")):
        well(page.selectbox(key="table").select(title).run())
        assert f"{total} rows; 1 to 50 are shown" in [each.value for each in page.text]
        assert len(page.dataframe[0].value) == 50
    well(page.selectbox(key="table").select("Cells").run())
    well(page.text_input(key="search Cells").input("CELL 9999").run())
    assert "11 rows; 1 to 11 are shown" in [each.value for each in page.text]
    well(page.text_input(key="search Cells").input("").run())
    well(page.selectbox(key="sort Cells").select("total").run())
    last = page.number_input[-1]
    assert last.max == 2000
    well(last.set_value(2000).run())
    assert page.dataframe[0].value["cell"].tolist()[-1] == "cell 0"
    begin(tmp_path)
