"""Ids, groups and tables of samples: aligned by order or by id, and refused in one line where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from elute.base.errors import DataError, EluteError
from elute.store.imports.samples import read_metadata
from elute.store.imports.source import open_source

X = np.arange(4000, dtype=np.float32).reshape(1000, 4)


def rows_of(path: Path, **asked: Any) -> pl.DataFrame:
    return pl.concat([frame for _, frame in open_source(path, **asked).pieces(7)])


def test_rows_are_told_apart_by_all_columns_of_their_key(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [[1.0], [2.0], [3.0]], "cell": ["a", "a", "b"], "position": [0, 1, 0]})
    frame.write_parquet(tmp_path / "x.parquet")
    rows = rows_of(tmp_path / "x.parquet", sample_id="cell", columns=["position"])
    assert rows["sample_id"].to_list() == ["a", "a", "b"]


def test_categories_and_dates_become_text(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [[1.0], [2.0]], "type": ["T", "B"], "day": ["2024-01-02", None]})
    frame = frame.with_columns(pl.col("type").cast(pl.Categorical), pl.col("day").str.to_date())
    frame.write_parquet(tmp_path / "x.parquet")
    rows = rows_of(tmp_path / "x.parquet", columns=["type", "day"])
    assert rows.select("type", "day").to_dict(as_series=False) == {"type": ["T", "B"], "day": ["2024-01-02", None]}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_metadata_by_order_and_by_id(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame({"sample_id": ["b", "a", "z"], "group": ["q", "p", "p"], "n": [2, 1, 9], "w": [0.5, 1.5, 2.0]})
    write = {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}
    write.get(suffix, lambda path: table.write_csv(path, separator="\t"))(tmp_path / f"meta.{suffix}")
    metadata = read_metadata(tmp_path / f"meta.{suffix}")
    assert metadata.equals(table)
    np.savez(tmp_path / "x.npz", x=X[:2], id=["a", "b"])
    by_id = rows_of(tmp_path / "x.npz", sample_id="id", metadata=metadata)
    expected = {"sample_id": ["a", "b"], "group": ["p", "q"], "n": [1, 2], "w": [1.5, 0.5]}
    assert by_id.to_dict(as_series=False) == expected
    np.save(tmp_path / "x.npy", X[:3])
    by_order = rows_of(tmp_path / "x.npy", metadata=metadata)
    assert by_order.select(table.columns).equals(table)
    named = rows_of(tmp_path / "x.npy", metadata=metadata, sample_id="n", group="w")
    assert named["sample_id"].to_list() == ["2", "1", "9"]
    assert named["group"].to_list() == ["0.5", "1.5", "2.0"]


def test_metadata_in_text_loses_nothing(tmp_path: Path) -> None:
    text = "sample_id,zeros,well,when,n,f,flag\n1,007,1E5,2024-01-01,3,0.1,True\n2,010,2E5,,NA,,False\n"
    (tmp_path / "m.csv").write_text(text)
    assert read_metadata(tmp_path / "m.csv").to_dict(as_series=False) == {
        "sample_id": ["1", "2"], "zeros": ["007", "010"], "well": ["1E5", "2E5"], "when": ["2024-01-01", None],
        "n": [3, None], "f": [0.1, None], "flag": [True, False],
    }  # fmt: skip


def line_of(path: Path, **asked: Any) -> str:
    with pytest.raises(EluteError) as error:
        for _ in open_source(path, **asked).pieces(64):
            pass
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(str(path))


def test_ids_and_groups_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pl.DataFrame(
        {
            "x": [[1.0]] * 5,
            "id": ["a", "b", "a", "c", "b"],
            "part": ["a", None, "b", None, None],
            "w": [1.0, float("nan"), 2.0, 3.0, 4.0],
            "blob": [b"a"] * 5,
        }
    ).write_parquet(path)
    assert line_of(path, sample_id="id") == (
        ": column 'id' is no id: 'a' stands in rows 0 and 2, and 1 more such rows. "
        "Choose a unique column (--sample-id), or add one that tells the rows apart (position, tile_id)."
    )
    assert line_of(path, sample_id="part") == (
        ": column 'part' has no value in 3 rows, say 1 and 3: each needs a sample_id. "
        "Fill it in, or choose another column."
    )
    assert ": column 'w' has no value in 1 row, say 1: each needs a group." in line_of(path, group="w")
    assert line_of(path, columns=["blob"]) == ": column 'blob' holds Binary. Leave it out."
    assert line_of(path, group="idd") == ": has no column 'idd'. Did you mean 'id'?"


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X[:6].reshape(2, 3, 4), ids=["a", "b"], longer=np.arange(3), position=[0, 1])
    assert line_of(tmp_path / "x.npz", columns=["longer"]) == (
        ": column 'longer' has 3 rows, and the array 2. Choose a column with a row a sample."
    )
    assert line_of(tmp_path / "x.npz", columns=["position"]) == (
        ": a column 'position' would stand beside the tokens' own. Leave it out, or rename it."
    )
    table = pl.DataFrame({"sample_id": ["p", "q"]})
    assert line_of(tmp_path / "x.npz", sample_id="ids", columns=["sample_id"], metadata=table).startswith(
        ": 2 of 2 samples are not in the metadata ('a', 'b')"
    )
    pl.DataFrame({"f": [1.0], "sample_id": ["a"]}).write_parquet(tmp_path / "x.parquet")
    assert line_of(tmp_path / "x.parquet", columns=["sample_id"]) == (
        ": a column 'sample_id' would stand beside the one that --sample-id gives. "
        "Give --sample-id sample_id, or leave it out of the columns."
    )


def test_metadata_that_does_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X[:5], ids=["a", "b", "c", "d", "e"])
    path, by_id = tmp_path / "x.npz", {"sample_id": "ids"}
    assert line_of(path, metadata=pl.DataFrame({"n": [1, 2]})) == (
        ": has 5 samples, and the metadata 2 rows. "
        "Give one row a sample in the same order, or a column sample_id in both."
    )
    table = pl.DataFrame({"sample_id": ["e", "x", None]})
    assert line_of(path, metadata=table, **by_id) == (
        ": 4 of 5 samples are not in the metadata ('a', 'b', 'c', …). "
        "Add their rows, or check that both write the ids alike."
    )  # fmt: skip
    table = pl.DataFrame({"sample_id": [*"abcdeaab", "x", "x"]})
    assert line_of(path, metadata=table, **by_id) == (
        ": 2 sample ids stand twice in the metadata ('a', 'b'). Keep one row of each."
    )


def test_metadata_files_that_cannot_be_read(tmp_path: Path) -> None:
    files: dict[str, tuple[bytes, str]] = {
        "a.csv": (b"", "is empty (0 bytes)"),
        "b.csv": (b"sample_id,n\n", "has no rows"),
        "c.csv": (b"n,n\n1,2\n", "has two columns 'n'. Rename one of them."),
        "d.csv": (b"n\n\xff\xfe\n", "cannot be read as a table in text ("),
        "e.csv": (b"a,b\n1,2\n1,2,3\n", "cannot be read as a table in text ("),
        "f.jsonl": (b'{"a": [1]}\n', "column 'a' holds lists or records. Leave it out."),
        "g.jsonl": (b'{"a": 1}\n{"a"', "cannot be read as JSON lines ("),
        "h.parquet": (b"PAR1" + b"\0" * 50, "cannot be read as Parquet ("),
        "i.tsv": (b"PAR1\0\0PAR1", "holds Parquet, not a table in text as its suffix says. Rename it to i.parquet."),
        "j.xlsx": (b"PK", "has the unknown suffix '.xlsx'. Known are .parquet, .csv, .tsv, .jsonl, .ndjson."),
    }
    for name, (content, line) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as error:
            read_metadata(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {line}"), str(error.value)
        assert "\n" not in str(error.value)
