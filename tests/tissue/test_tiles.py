"""Tiles from folders, tables and packed files; and every way in which they cannot be what was asked for."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.tissue.pictures_made import COLUMNS, SIDE, picture, tiles_in_memory, write_tiles

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.base.recipe import build
from elute.tissue.tile_settings import TilesConfig
from elute.tissue.tiles import Tiles, open_tiles


def settings(**given: Any) -> TilesConfig:
    return build(TilesConfig, given, where="tiles")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles")


def test_a_table_gives_names_groups_and_places(folder: Path) -> None:
    tiles = open_tiles(settings(images=folder, table=folder / "tiles.csv", columns=COLUMNS, microns_per_pixel=0.5))
    assert len(tiles) == 12
    row = tiles.table.row(3, named=True)
    assert row == {
        "sample_id": "s1_003", "tile_id": "s1_003", "group": "p3", "section": "s1", "x": 30.0, "y": 15.0,
        "size_px": 32.0, "microns_per_pixel": 0.5, "label": "fat",
    }  # fmt: skip
    assert all(np.array_equal(tiles.image(i), picture(i)) for i in range(12))
    assert np.array_equal(tiles.named([("s1_005", "s1_005")])[0], picture(5))
    with pytest.raises(DataError, match="no tile 'x' of sample 's1_005'"):
        tiles.named([("s1_005", "x")])


def test_a_folder_s_sub_folders_are_patients(tmp_path: Path) -> None:
    for i, name in enumerate(("a/1.png", "a/2.png", "b/deep/1.png", ".hidden/1.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i)).save(tmp_path / name)
    tiles = open_tiles(settings(images=tmp_path))
    assert tiles.table["sample_id"].to_list() == ["a/1", "a/2", "b/deep/1"]
    assert tiles.table["group"].to_list() == ["a", "a", "b"]
    assert tiles.table["x"].null_count() == 3
    assert np.array_equal(tiles.image(2), picture(2))


def packed(folder: Path, n: int = 6) -> tuple[Path, Path]:
    parts, rows = [], []
    for i in range(n):
        buffer = io.BytesIO()
        Image.fromarray(picture(i)).save(buffer, "PNG")
        rows.append((f"s{i}", f"p{i % 2}", sum(map(len, parts)), len(buffer.getvalue())))
        parts.append(buffer.getvalue())
    (folder / "all.bin").write_bytes(b"".join(parts))
    pl.DataFrame(rows, schema=["sample_id", "group", "offset", "nbytes"], orient="row").write_parquet(
        folder / "t.parquet"
    )
    return folder / "all.bin", folder / "t.parquet"


def test_one_packed_file(tmp_path: Path) -> None:
    images, table = packed(tmp_path)
    tiles = open_tiles(settings(images=images, table=table))
    assert all(np.array_equal(tiles.image(i), picture(i)) for i in range(6))
    assert tiles.table["sample_id"].to_list() == [f"s{i}" for i in range(6)]
    images.write_bytes(images.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"row 6 says bytes \d+ and \d+ more, and all.bin ends at"):
        open_tiles(settings(images=images, table=table))
    with pytest.raises(DataError, match="no table says where each tile lies"):
        open_tiles(settings(images=images))


def test_the_source_changes_with_a_picture_and_with_the_table(folder: Path) -> None:
    config = settings(images=folder, table=folder / "tiles.csv", columns=COLUMNS)
    first = open_tiles(config).source
    assert open_tiles(config).source == first
    Image.fromarray(picture(99)).save(folder / "t4.png")
    second = open_tiles(config).source
    assert (first["table"], first["images"] == second["images"]) == (second["table"], False)
    text = (folder / "tiles.csv").read_text()
    (folder / "tiles.csv").write_text(text.replace("fat", "tumour"))
    assert open_tiles(config).source["table"] != first["table"]


def test_at_most_so_many_tiles_spread_evenly(folder: Path) -> None:
    tiles = open_tiles(settings(images=folder, table=folder / "tiles.csv", columns=COLUMNS, max_tiles=4))
    assert tiles.table["x"].to_list() == [0.0, 30.0, 60.0, 90.0]
    assert np.array_equal(tiles.image(2), picture(6))


def test_tiles_of_one_s_own_and_some_of_them() -> None:
    tiles = tiles_in_memory(6, x=[1.0] * 6)
    some = tiles.subset([4, 1])
    assert some.table["sample_id"].to_list() == ["s4", "s1"]
    assert np.array_equal(some.image(0), picture(4))
    assert some.source["subset"] != tiles.subset([1, 4]).source["subset"]
    wrong = Tiles.of({"sample_id": ["a"], "tile_id": ["a"]}, lambda i: picture(i).astype(float), {})
    with pytest.raises(DataError, match=r"tile 'a': is float64 \[32, 32, 3\], not uint8"):
        wrong.image(0)


def test_settings_may_be_written_in_several_ways() -> None:
    one = settings(images="x", columns={"sample": "a+b", "patient": "who"})
    assert one == settings(images="x", columns=["group=who", "sample=a+b"])
    assert one == settings(images="x", sample_column="a+b", group_column="who")
    assert one.roles == {"sample": "a+b", "group": "who"}
    with pytest.raises(ConfigError, match="'sampel' is no role of a column. Did you mean 'sample'"):
        settings(images="x", columns={"sampel": "a"})
    with pytest.raises(ConfigError, match="two columns are named for group: 'a' and 'b'"):
        settings(images="x", columns={"patient": "a", "site": "b"})
    with pytest.raises(ConfigError, match="unknown key 'tile_sise'. Did you mean 'tile_size'"):
        settings(images="x", tile_sise=3)
    with pytest.raises(ConfigError, match="no tiles are named"):
        open_tiles(settings())
    with pytest.raises(ConfigError, match="images and slides are both given"):
        open_tiles(settings(images="x", slides="y"))


def test_names_stay_texts(tmp_path: Path) -> None:
    write_tiles(tmp_path / "t", 3)
    tiles = open_tiles(settings(images=tmp_path / "t", table=tmp_path / "t" / "tiles.csv",
                                columns={"sample": "spot", "path": "file", "group": "patient"}))  # fmt: skip
    assert tiles.table["sample_id"].to_list() == ["000", "001", "002"]


MENDS = [
    (
        {"columns": {**COLUMNS, "group": "patiant"}},
        "has no column 'patiant', which was named for group. Did you mean 'patient'",
    ),
    ({"columns": {**COLUMNS, "x": "kind"}}, "row 1 has x 'fat', which is no number"),
    ({"columns": {**COLUMNS, "sample": "section"}}, "tiles 1 and 3 are both sample 's0', tile 't0.png'"),
    ({"columns": {"sample": "spot", "group": "patient"}}, "has no column that names each tile's file"),
    ({"table": "nowhere.csv"}, "nowhere.csv: there is no such table"),
    ({"table": "t0.png"}, "t0.png: is no table that is known here"),
    ({"images": "elsewhere"}, "names 't0.png', which is not in .*elsewhere"),
]


@pytest.mark.parametrize(("change", "told"), MENDS)
def test_a_table_that_does_not_fit(folder: Path, change: dict[str, Any], told: str) -> None:
    given = {"images": folder, "table": folder / "tiles.csv", "columns": COLUMNS}
    places = {key: folder / value for key, value in change.items() if key in ("table", "images")}
    if told.startswith("tiles 1"):
        text = (folder / "tiles.csv").read_text()
        (folder / "tiles.csv").write_text(text.replace("t2.png", "t0.png"))
    with pytest.raises(DataError, match=told) as caught:
        open_tiles(settings(**{**given, **change, **places}))
    assert "\n" not in str(caught.value)


def test_a_table_cannot_name_files_outside_of_the_folder(folder: Path) -> None:
    text = (folder / "tiles.csv").read_text()
    for name in ("../tiles.csv", str(folder / "t1.png")):
        (folder / "tiles.csv").write_text(text.replace("t0.png", name))
        with pytest.raises(DataError, match="which lies outside of"):
            open_tiles(settings(images=folder, table=folder / "tiles.csv", columns=COLUMNS))


def test_a_damaged_table(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n")
    (tmp_path / "empty.csv").write_text("a,b\n")
    for name, kind, told in (("t.parquet", DamagedError, "cannot be read"), ("t.csv", DamagedError, "cannot be read"),
                             ("empty.csv", DataError, "has no rows")):  # fmt: skip
        with pytest.raises(kind, match=told):
            open_tiles(settings(images=tmp_path, table=tmp_path / name))


def saved(path: Path, image: Image.Image, **how: Any) -> Path:
    image.save(path, **how)
    return path


def test_pictures_of_all_kinds_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(picture(1)[..., 0])
    clear = Image.fromarray(np.dstack([np.full((SIDE, SIDE, 3), 10, np.uint8), np.zeros((SIDE, SIDE), np.uint8)]))
    saved(tmp_path / "0.png", grey)
    saved(tmp_path / "1.png", clear)
    saved(tmp_path / "2.png", Image.fromarray(picture(2)).quantize(8))
    saved(tmp_path / "3.jpg", Image.fromarray(picture(3)).convert("CMYK"))
    saved(tmp_path / "4.tif", Image.fromarray(picture(4)), compression="tiff_lzw")
    saved(tmp_path / "5.webp", Image.fromarray(picture(5)), lossless=True)
    tiles = open_tiles(settings(images=tmp_path))
    images = tiles.images(range(6))
    assert {x.shape for x in images} == {(SIDE, SIDE, 3)}
    assert all(np.array_equal(images[0][..., c], picture(1)[..., 0]) for c in range(3))
    assert (images[1] == 255).all(), "what is transparent is laid on white"
    assert len(np.unique(images[2].reshape(-1, 3), axis=0)) <= 8
    assert np.array_equal(images[4], picture(4))
    assert np.array_equal(images[5], picture(5))


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it is enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def bad_pictures() -> list[tuple[str, bytes, type[DataError], str]]:
    jpeg, deep = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture(0)).save(jpeg, "JPEG")
    Image.fromarray((np.arange(SIDE * SIDE, dtype=np.uint16) * 50).reshape(SIDE, SIDE)).save(deep, "TIFF")
    small = io.BytesIO()
    Image.fromarray(picture(0, 20)).save(small, "PNG")
    return [
        ("cut.jpg", jpeg.getvalue()[:-200], DamagedError, "is no whole image: .*truncated"),
        ("text.png", b"this is a text", DamagedError, "is no whole image"),
        ("none.png", b"", DamagedError, "is no whole image"),
        ("deep.tif", deep.getvalue(), DataError, "no 8-bit colours"),
        ("bomb.png", bomb(60_000, 60_000), DataError, "more pixels than any tile has"),
        ("large.png", bomb(9_000, 9_000), DataError, "9,000 × 9,000 pixels, more than the"),
        ("small.png", small.getvalue(), DataError, "is 20 × 20 pixels, not 32 × 32 as the others"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", DamagedError, "is no whole image"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "kind", "told"), bad_pictures(), ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_picture_that_cannot_be_read_is_named(
    name: str, data: bytes, kind: type[DataError], told: str, tmp_path: Path
) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "0first.png")
    (tmp_path / name).write_bytes(data)
    tiles = open_tiles(settings(images=tmp_path))
    with pytest.raises(kind, match=told) as caught:
        tiles.images(range(2))
    assert name.split(".")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_a_tile_that_is_no_square_and_a_size_that_was_asked_for(tmp_path: Path) -> None:
    Image.fromarray(picture(0)[:20]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is 32 × 20 pixels, not 32 × 32"):
        open_tiles(settings(images=tmp_path)).image(0)
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is 32 × 32 pixels, not 64 × 64 as the others"):
        open_tiles(settings(images=tmp_path, tile_size=64)).image(0)


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images. Give a folder with files of .png"):
        open_tiles(settings(images=tmp_path))
    with pytest.raises(DataError, match="nowhere: is not there"):
        open_tiles(settings(images=tmp_path / "nowhere"))


@pytest.mark.real_data
def test_real_tiles(real_data: Path) -> None:
    home = real_data / "tissue" / "her2st_tiles"
    columns = {"sample": "section+spot", "patient": "patient", "section": "section", "x": "pixel_x", "y": "pixel_y",
               "label": "coarse_label"}  # fmt: skip
    tiles = open_tiles(settings(images=home / "tiles_jpeg112.bin", table=home / "tiles.csv", columns=columns))
    assert len(tiles) == 1202
    assert tiles.table["group"].unique().sort().to_list() == ["B", "C"]
    assert tiles.table["sample_id"][0] == "B4_9x13"
    images = tiles.images(range(0, 1202, 100))
    assert {x.shape for x in images} == {(112, 112, 3)}
    assert 100 < np.mean(images) < 250
