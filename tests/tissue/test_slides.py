"""Slides: reading at a level, finding tissue, tiling, spots; and slides that cannot be cut."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from elute.base.errors import DamagedError, DataError, MissingError
from elute.base.recipe import build
from elute.tissue.masks import otsu, shares, tissue_mask
from elute.tissue.slides import PlainSlide, PyramidSlide, cut, open_slide, thumbnail
from elute.tissue.tile_settings import TilesConfig
from elute.tissue.tiles import open_tiles

GLASS, PINK = (243, 242, 244), (220, 120, 170)


def settings(**given: Any) -> TilesConfig:
    return build(TilesConfig, given, where="tiles")


def scan(width: int = 1200, height: int = 800, seed: int = 0) -> np.ndarray:
    """Glass with noise, and a rectangle of tissue from x 300 to 900 and y 200 to 600."""
    rng = np.random.default_rng(seed)
    x = np.empty((height, width, 3), np.int16)
    x[:] = GLASS
    x[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = PINK
    x += rng.integers(-6, 7, x.shape, dtype=np.int16)
    return x.clip(0, 255).astype(np.uint8)


class Pyramid:
    """A slide of three levels, which counts what is read of it."""

    def __init__(self, pixels: np.ndarray, microns: float | None = 0.25) -> None:
        self.microns_per_pixel = microns
        self.downsamples: Sequence[float] = (1.0, 4.0, 16.0)
        self.levels = [np.array(Image.fromarray(pixels).reduce(int(by))) for by in self.downsamples]
        self.size = pixels.shape[1], pixels.shape[0]
        self.read_pixels: list[int] = []
        self.closed = 0

    def read(self, x: int, y: int, *, size: tuple[int, int], level: int) -> np.ndarray:
        by = self.downsamples[level]
        left, top = round(x / by), round(y / by)
        found = self.levels[level][top : top + size[1], left : left + size[0]]
        assert found.shape[:2] == size[::-1], "what lies outside was asked for"
        self.read_pixels.append(size[0] * size[1])
        return found

    def close(self) -> None:
        self.closed += 1


def test_a_tile_at_the_slide_s_own_scale_is_its_pixels() -> None:
    pixels = scan()
    tile = cut(Pyramid(pixels), (400, 300), side=64, size=64)
    assert np.array_equal(tile, pixels[268:332, 368:432])


@pytest.mark.parametrize(("side", "most"), [(128, 128 * 128), (256, 64 * 64), (960, 240 * 240), (300, 300 * 300)])
def test_a_coarser_tile_is_read_of_a_coarser_level(side: int, most: int) -> None:
    smooth = np.array(Image.fromarray(scan(80, 60)).resize((1280, 960), Image.Resampling.BICUBIC))
    slide = Pyramid(smooth)
    tile = cut(slide, (640, 480), side=side, size=64)
    assert tile.shape == (64, 64, 3)
    assert slide.read_pixels[0] <= most
    box = (640 - side / 2, 480 - side / 2, 640 + side / 2, 480 + side / 2)
    wanted = np.asarray(Image.fromarray(smooth).resize((64, 64), Image.Resampling.BOX, box=box))
    inner = slice(8, -8)
    assert np.abs(tile.astype(int) - wanted)[inner, inner].mean() < 4


def test_what_lies_outside_of_a_slide_is_white() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    tile = cut(Pyramid(pixels), (0, 50), side=40, size=40)
    assert (tile[:, :20] == 255).all()
    assert (tile[:, 20:] == 0).all()
    assert (cut(Pyramid(pixels), (-500, 50), side=40, size=40) == 255).all()


def test_a_thumbnail_is_read_in_bounded_pieces() -> None:
    pixels = scan(3000, 2000)
    slide = Pyramid(pixels)
    small, factor = thumbnail(slide, 300)
    assert max(small.shape[:2]) <= 300
    assert factor * small.shape[1] == pytest.approx(3000, abs=factor)
    assert sum(slide.read_pixels) < 3000 * 2000 / 10, "a coarser level is enough"
    wanted = np.asarray(Image.fromarray(pixels).resize(small.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(small.astype(int) - wanted).mean() < 3


def test_tissue_is_told_from_glass_noise_and_ink() -> None:
    x = scan()
    x[20:60, 20:300] = 15  # a black pen
    x[700:703, 1100:1103] = PINK  # dust
    x[380:420, 580:590] = GLASS  # a fat cell
    small = np.array(Image.fromarray(x).reduce(2))
    mask = tissue_mask(small)
    truth = np.zeros_like(mask)
    truth[100:300, 150:450] = True
    assert (mask == truth).mean() > 0.995
    assert mask[195:205, 291:294].all(), "a small hole in tissue is tissue"
    assert not mask[345:355, 545:555].any()


def test_glass_alone_is_no_tissue() -> None:
    glass = np.full((300, 300, 3), 240, np.uint8)
    glass += np.random.default_rng(1).integers(0, 9, glass.shape, dtype=np.uint8)
    assert not tissue_mask(glass).any()


def test_otsu_against_every_threshold_tried() -> None:
    values = np.random.default_rng(0).normal([60, 160], [20, 15], (500, 2)).clip(0, 255).astype(np.uint8).reshape(-1)

    def between(t: int) -> float:
        low, high = values[values <= t], values[values > t]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    assert otsu(values) == max(range(256), key=between)
    assert otsu(np.full(9, 7, np.uint8)) == 0


def test_shares_against_a_count() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((40, 50)) < 0.4
    corners = rng.integers(0, 30, (20, 2)).astype(float)
    wanted = [mask[int(y) : int(y) + 8, int(x) : int(x) + 8].mean() for x, y in corners]
    np.testing.assert_allclose(shares(mask, corners, 8), wanted)


def test_tiling_a_slide_keeps_what_is_tissue(tmp_path: Path) -> None:
    (tmp_path / "pat").mkdir()
    (tmp_path / "pat" / "one.svs").touch()
    pixels, opened = scan(), []

    def reader(path: Path) -> Pyramid:
        opened.append(Pyramid(pixels))
        assert path.name == "one.svs"
        return opened[-1]

    config = settings(slides=tmp_path, tile_size=50, microns_per_pixel=0.5)
    tiles = open_tiles(config, reader=reader)
    assert tiles.table["group"].unique().to_list() == ["pat"]
    assert tiles.table["section"].unique().to_list() == ["pat/one"]
    row = tiles.table.row(0, named=True)
    assert (row["sample_id"], row["tile_id"], row["size_px"], row["microns_per_pixel"]) == ("pat/one", "2x3", 100, 0.25)
    assert (row["x"], row["y"]) == (350, 250)
    assert tiles.table.height == 6 * 4, "600 × 400 pixels of tissue are 6 × 4 tiles of 100"
    assert tiles.table["x"].is_between(300, 900).all()
    half = np.array(Image.fromarray(pixels[200:300, 300:400]).reduce(2))
    assert np.abs(tiles.image(0).astype(int) - half).mean() < 6
    assert tiles.size == 50
    assert opened[0].closed == 1
    more = open_tiles(settings(slides=tmp_path, tile_size=50, stride=25, tissue_share=0, max_tiles=7), reader=reader)
    assert more.table.height == 7
    assert more.table["size_px"][0] == 50, "without a scale that is asked for, the slide's own pixels"
    assert more.source["tiling"] != tiles.source["tiling"]


def test_images_that_pillow_reads_are_slides_of_one_level(tmp_path: Path) -> None:
    pixels = scan(400, 400)
    Image.fromarray(pixels).save(tmp_path / "a.tif", resolution_unit=3, x_resolution=20_000.0, y_resolution=20_000.0)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    with closing(open_slide(tmp_path / "a.tif")) as slide:
        assert slide.microns_per_pixel == pytest.approx(0.5)
    pl.DataFrame({"path": ["b.png", "a.tif"], "patient": ["pb", "pa"], "grade": ["2", "3"]}).write_csv(
        tmp_path / "s.csv"
    )
    config = settings(slides=tmp_path, table=tmp_path / "s.csv", columns={"patient": "patient", "label": "grade"},
                      tile_size=32)  # fmt: skip
    tiles = open_tiles(config)
    assert dict(tiles.table.select("sample_id", "group").unique().iter_rows()) == {"a": "pa", "b": "pb"}
    assert set(tiles.table.filter(pl.col("sample_id") == "a")["label"]) == {"3"}
    assert tiles.table["microns_per_pixel"].unique().sort(nulls_last=True).to_list() == [0.5, None]
    for i in (0, len(tiles) - 1):
        row = tiles.table.row(i, named=True)
        x, y = int(row["x"]) - 16, int(row["y"]) - 16
        assert np.array_equal(tiles.image(i), pixels[y : y + 32, x : x + 32])
    assert isinstance(tiles.source["slides"], str)


def test_spots_are_cut_around_their_places(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(scan(300, 300, seed=i)).save(tmp_path / f"sec{i}.png")
    spots = pl.DataFrame({"sample_id": [f"spot{i}" for i in range(6)], "section": [f"sec{i % 3}" for i in range(6)],
                          "group": ["p"] * 6, "x": [50.0 + 30 * i for i in range(6)], "y": [100.0] * 6})  # fmt: skip
    spots.write_csv(tmp_path / "spots.csv")
    config = settings(slides=tmp_path, table=tmp_path / "spots.csv", tile_size=20)
    tiles = open_tiles(config)
    assert sorted(tiles.table["sample_id"]) == [f"spot{i}" for i in range(6)]
    for i, row in enumerate(tiles.table.iter_rows(named=True)):
        pixels = scan(300, 300, seed=int(row["section"][3:]))
        assert np.array_equal(tiles.image(i), pixels[90:110, int(row["x"]) - 10 : int(row["x"]) + 10])
    spots.with_columns(pl.col("x") * 3).write_csv(tmp_path / "spots.csv")
    with pytest.raises(DataError, match=r"sec0.png: spot 'spot3' has x 420.0, and the slide ends at 299.*another size"):
        open_tiles(config)
    spots.drop("y").write_csv(tmp_path / "spots.csv")
    with pytest.raises(DataError, match=r"spots.csv: has a column for x and none for y. Name it: columns y=COLUMN"):
        open_tiles(config)
    spots.with_columns(section=pl.lit("sec9")).write_csv(tmp_path / "spots.csv")
    with pytest.raises(DataError, match="there is no slide named 'sec9' in .*Did you mean"):
        open_tiles(config)


def test_slides_that_cannot_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.full((200, 200, 3), 244, np.uint8)).save(tmp_path / "glass.png")
    with pytest.raises(DataError, match=r"glass.png: no tile of 36 is tissue to 50%. Leave the slide out, or lower"):
        open_tiles(settings(slides=tmp_path, tile_size=32))
    with pytest.raises(DataError, match=r"glass.png: is 200 × 200 pixels, and a tile takes 224"):
        open_tiles(settings(slides=tmp_path))
    with pytest.raises(DataError, match="is not there"):
        open_tiles(settings(slides=tmp_path / "none"))
    for library in ("tiffslide", "openslide"):
        monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "scan.svs").write_bytes(b"nothing")
    with pytest.raises(
        MissingError, match=r"scan.svs: slides of kind .svs need tiffslide or openslide.*Type: pip install"
    ):
        open_slide(tmp_path / "scan.svs")
    (tmp_path / "a.doc").touch()
    with pytest.raises(DataError, match=r"a.doc: is no slide: files of .doc kind are not read"):
        open_slide(tmp_path / "a.doc")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "glass.png").read_bytes()[:60])
    with pytest.raises(DamagedError, match=r"cut.tif: is no whole image"):
        open_slide(tmp_path / "cut.tif")


class Foreign:
    """What tiffslide and openslide offer."""

    dimensions = (64, 48)
    level_downsamples = (1.0, 2.0)
    properties: dict[str, Any] = {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.502"}  # noqa: RUF012

    def __init__(self, _path: str) -> None:
        if "broken" in _path:
            raise ValueError("not a slide")

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        if level == 1:
            raise OSError("tile 7 is damaged\nand more")
        image = Image.new("RGBA", size, (10, 20, 30, 255))
        image.paste((0, 0, 0, 0), (0, 0, 1, 1))
        return image

    def close(self) -> None: ...


def test_a_library_for_pyramids_is_used_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("openslide")
    module.OpenSlide = Foreign  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name="openslide")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "tiffslide", None)
    monkeypatch.setitem(sys.modules, "openslide", module)
    (tmp_path / "a.svs").touch()
    slide = open_slide(tmp_path / "a.svs")
    assert isinstance(slide, PyramidSlide)
    assert (slide.size, slide.downsamples, slide.microns_per_pixel) == ((64, 48), (1.0, 2.0), pytest.approx(0.501))
    region = slide.read(0, 0, size=(4, 3), level=0)
    assert region[0, 0].tolist() == [255, 255, 255]
    assert region[2, 3].tolist() == [10, 20, 30]
    with pytest.raises(DamagedError, match=r"a.svs: level 1 cannot be read at 4, 8: tile 7 is damaged"):
        slide.read(4, 8, size=(4, 3), level=1)
    (tmp_path / "broken.svs").touch()
    with pytest.raises(DamagedError, match=r"broken.svs: is no slide that openslide reads: not a slide"):
        open_slide(tmp_path / "broken.svs")
    Image.fromarray(scan(40, 40)).save(tmp_path / "broken.tif")
    assert isinstance(open_slide(tmp_path / "broken.tif"), PlainSlide)


def test_an_enormous_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(scan(100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(DataError, match=r"a.png: holds more than 8,000 pixels, too many to be held in memory"):
        open_slide(tmp_path / "a.png")
