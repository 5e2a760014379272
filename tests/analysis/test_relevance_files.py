"""What relevance leaves on disk: tables, lists, maps and their indexes, byte for byte the same again."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elute.analysis.relevance import crp_relmax
from elute.analysis.relevance_files import write_relevance
from elute.analysis.relevance_head import Explained
from elute.analysis.token_maps import png, safe_name, token_maps
from elute.base.codes import Codes
from elute.base.errors import DataError

K = 10
GENES = ("EPCAM", "../HLA-A *02", "conservation")


def inputs(*, spots: bool = True) -> list[tuple[Codes, pl.DataFrame]]:
    """Six samples of two tiles of 2 × 3 patches."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(72, K)) * (rng.random((72, K)) < 0.5)
    i = np.arange(72)
    frame = pl.DataFrame(
        {
            "sample_id": [f"s{n}" for n in i // 12],
            "tile_id": [f"tile {n}" for n in i // 6 % 2],
            "token_rc": pl.Series([[n // 3, n % 3] for n in (i % 6).tolist()], dtype=pl.Array(pl.Int32, 2)),
        }
    )
    return [(Codes.from_dense(torch.from_numpy(dense), K, by="magnitude"), frame if spots else frame.drop("token_rc"))]


def head() -> Explained:
    rng = np.random.default_rng(1)
    return Explained.of([(rng.normal(size=(3, K)), rng.normal(size=3))], genes=GENES, pool="mean")


def written(folder: Path, genes: tuple[str, ...] = GENES, *, keep: bool = False) -> dict[str, bytes]:
    found = [crp_relmax(head(), inputs(), {"y": gene}, k=3) for gene in genes]
    codes = [relevance.top(2).tolist() for relevance in found]
    maps = token_maps(head(), inputs(), found, codes=codes, most=2)
    paths = write_relevance(folder, found, maps, codes=codes, keep_others=keep)
    assert len(set(paths)) == len(paths)
    assert set(paths) <= {path for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_table_has_the_columns_of_its_page(tmp_path: Path) -> None:
    files = written(tmp_path)
    safe = safe_name(GENES[1])
    assert "/" not in safe
    assert f"relevance/{safe}.parquet" in files

    def columns(name: str) -> list[str]:
        return pl.read_parquet(io.BytesIO(files[name])).columns

    first = ["gene", "code", "relevance", "positive", "negative", "share", "samples", "mean_activation"]
    assert columns("relevance/EPCAM.parquet")[:8] == first
    assert columns("relevance/EPCAM.samples.parquet") == ["gene", "sample_id", "code", "relevance"]
    kept = ["gene", "worst_relative", "bias_share", "epsilon_share", "n", "masked_share"]
    assert columns("relevance/conservation.parquet") == kept
    lists = [
        "gene",
        "code",
        "kind",
        "target",
        "sign",
        "rank",
        "sample_id",
        "tile_id",
        "row",
        "col",
        "relevance",
        "activation",
    ]
    assert columns("refs/EPCAM.parquet")[:12] == lists
    named = ["gene", "code", "rank", "sample_id", "tile_id", "file", "at", "low", "high", "sign"]
    assert columns("token_maps/index.parquet") == named
    told = json.loads(files["relevance/index.json"])
    assert told["linear"] is True
    assert list(told["genes"]) == sorted(GENES)
    assert "ActMax" in told["genes"]["EPCAM"]["note"]
    table = pl.read_parquet(io.BytesIO(files["relevance/conservation.parquet"]))
    assert table["gene"].to_list() == list(GENES)
    assert table["worst_relative"].max() < 1e-4


def test_maps_are_relevance_by_patch_and_sum_to_it(tmp_path: Path) -> None:
    files = written(tmp_path)
    index = pl.read_parquet(io.BytesIO(files["token_maps/index.parquet"]))
    (codes, frame), weight = inputs()[0], head().layers[0].weight
    dense = codes.dense().numpy()
    assert len(index) > 8
    for row in index.iter_rows(named=True):
        with np.load(io.BytesIO(files[f"token_maps/{row['file']}"]), allow_pickle=False) as archive:  # noqa: TID251
            maps = archive["maps"]
        assert maps.dtype == np.float32
        mine = ((frame["sample_id"] == row["sample_id"]) & (frame["tile_id"] == row["tile_id"])).to_numpy()
        expected = (dense[mine, row["code"]] / 12 * weight[GENES.index(row["gene"]), row["code"]]).reshape(2, 3)
        np.testing.assert_allclose(maps[row["at"]], expected, rtol=1e-4, atol=1e-7)
        assert row["low"] == pytest.approx(expected.min(), rel=1e-4, abs=1e-7)
        assert row["high"] == pytest.approx(expected.max(), rel=1e-4, abs=1e-7)
        minus = "_minus" * (row["sign"] == "-")
        assert f"token_maps/{safe_name(row['gene'])}/{row['code']}{minus}_{row['rank']}.png" in files
    keys = index.select("gene", "code", "sample_id", "tile_id")
    assert keys.is_unique().all()


def test_what_is_returned_draws_its_own_maps() -> None:
    found = crp_relmax(head(), inputs(), {"y": "EPCAM"}, k=2, codes=[3, 4])
    drawn = token_maps(head(), inputs(), [found], most=2)
    assert [each.code for each in found.maps] == [3, 4]
    for mine, other in zip(found.maps, drawn, strict=True):
        assert mine.spots == other.spots
        np.testing.assert_array_equal(mine.maps, other.maps)
        for spot, drawn_map in zip(mine.spots, mine.maps, strict=True):
            assert (drawn_map.max() > 0) if spot.sign == "+" else (drawn_map.min() < 0)
    once = crp_relmax(head(), iter(inputs()), {"y": "EPCAM"})
    with pytest.raises(DataError, match="not at hand any more"):
        _ = once.maps


def test_the_same_again_is_the_same_bytes_and_others_go_or_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = written(run)
    assert written(run) == first
    assert written(run, ("EPCAM",)) == written(tmp_path / "alone", ("EPCAM",))
    both = written(run, GENES[1:], keep=True)
    assert set(both) == set(first)
    told = pl.read_parquet(io.BytesIO(both["token_maps/index.parquet"]))
    assert set(told["gene"]) == set(GENES)
    assert json.loads(both["relevance/index.json"]) == json.loads(first["relevance/index.json"])


def test_rows_without_places_have_no_maps() -> None:
    found = [crp_relmax(head(), inputs(spots=False), {"y": 0})]
    assert token_maps(head(), inputs(spots=False), found) == []
    with pytest.raises(DataError, match="two passes are needed"):
        token_maps(head(), iter(inputs()), found)


@given(st.lists(st.text(max_size=200), min_size=2, max_size=2, unique=True))
def test_safe_names_are_safe_and_no_two_alike(texts: list[str]) -> None:
    a, b = map(safe_name, texts)
    assert a != b
    for name in (a, b):
        assert 0 < len(name) <= 160
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.%")
        assert not name.startswith(".")


def test_safe_names_keep_what_can_stay() -> None:
    assert safe_name("HLA-DRB1_v2.1") == "HLA-DRB1_v2.1"
    assert safe_name("ENSG0/..") == "ENSG0%2F.."
    assert safe_name("") == "%"
    assert safe_name("..") == "%2E."
    assert safe_name("µ") == "%C2%B5"
    assert safe_name("conservation") != "conservation"
    assert not safe_name("x.samples").endswith(".samples")
    assert len({safe_name("x" * 300 + end) for end in "ab"}) == 2


def test_a_picture_of_a_map_is_red_above_and_blue_below() -> None:
    drawn = np.array([[2.0, -2.0, 0.0], [1.0, np.nan, 0.0]], np.float32)
    data = png(drawn)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data[16:24] == (24).to_bytes(4, "big") + (16).to_bytes(4, "big")
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    lines = zlib.decompress(data[start + 4 : start + 4 + length])
    rows = np.frombuffer(lines, np.uint8).reshape(16, 1 + 24 * 3)[:, 1:].reshape(16, 24, 3)
    red, blue, white, half, grey = (rows[y, x].astype(int) for y, x in ((0, 0), (0, 8), (0, 16), (8, 0), (8, 8)))
    assert red[0] > red[2] + 90
    assert blue[2] > blue[0] + 90
    assert (white == 247).all()
    assert (np.abs(half - (red + white) / 2) <= 1).all()
    assert (grey == 128).all()
    assert png(np.zeros((2, 2), np.float32)).startswith(b"\x89PNG")
