"""Maps of pixels in the report of a tissue run, beside those of patches; and scores that are not defined."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.reports import tissue_made

from elute.base.errors import DamagedError
from elute.reports.tissue import pixel_maps
from elute.reports.tissue.reading import read_findings
from elute.reports.tissue.settings import TissueReportConfig
from elute.reports.tissue.tiles_shown import maps_placed
from elute.reports.tissue.token_maps import LOWERS, RAISES
from elute.reports.tissue.write import write_reports

SIDE, FOLLOWED = 56, 2  # pixels of a map; references of a code that are followed down
FIGURE = r'<figure class="shot pixels">.*?</figure>'


def follow(folder: Path, gene: str, codes: tuple[int, ...]) -> dict[tuple[int, str], Any]:
    """Write maps of pixels as the stage does; returns them by code and sample."""
    refs = pl.read_parquet(folder / "refs" / f"{gene}.parquet").filter(kind="relmax", target="sum", sign="+")
    place = folder / "pixel_maps" / gene
    place.mkdir(parents=True)
    draw, rows, made = np.random.default_rng(0), [], {}
    for code in codes:
        mine = refs.filter(pl.col("code") == code, pl.col("rank") <= FOLLOWED).sort("rank")
        stack = draw.normal(0.2, 1, (len(mine), SIDE, SIDE)).astype(np.float32)
        np.savez_compressed(place / f"{code}.npz", maps=stack)
        for at, row in enumerate(mine.iter_rows(named=True)):
            known = {"gene": gene, "code": code, **{key: row[key] for key in ("rank", "sample_id", "tile_id")}}
            output = float(stack[at].sum()) / 0.4  # so that four tenths lie in the pixels
            told = {"output": output, "gap": 2e-6, "method": "lrp"}
            rows.append({**known, "file": f"{code}.npz", "at": at, **told})
            made[code, row["sample_id"]] = stack[at]
    pl.DataFrame(rows).write_parquet(place / "index.parquet")
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[tuple[int, str], Any]]:
    made = tissue_made.make_run(tmp_path_factory.mktemp("made") / "breast", side=5)
    maps = follow(made.folder, "KRT19", (17, 402))
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    return made, maps


def page(run: Any, name: str) -> str:
    return (run[0].folder / "report" / f"{name}.html").read_text()


def decoded(address: str) -> np.ndarray[Any, Any]:
    kind, _, content = address.partition(";base64,")
    assert kind == "data:image/webp"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


def test_a_tile_stands_again_beside_itself_with_its_pixels(run: Any) -> None:
    _, maps = run
    text = page(run, "genes/KRT19")
    strip = text[text.index(">Code 17<") : text.index(">Code 402<")]
    figures = re.findall(r"<figure.*?</figure>", strip, re.DOTALL)
    assert ["pixels" in figure[:40] for figure in figures] == [False, True, False, True, *[False] * (len(figures) - 4)]
    assert len(re.findall(FIGURE, text, re.DOTALL)) == len(maps) == 4
    for patches, pixels in (figures[:2], figures[2:4]):
        tile = re.search(r'<img src="([^"]+)" alt="Tile (\S+) of ([^",]+)', patches)
        again = re.search(r'<img src="([^"]+)" alt="Tile (\S+) of ([^",]+), relevance of its pixels"', pixels)
        assert tile is not None
        assert again is not None
        assert tile.groups() == again.groups()  # the same tile, the same picture
        over = re.search(r'<image href="([^"]+)"', pixels)
        assert over is not None
        shown, true = decoded(over[1]), maps[17, again[3]]
        assert shown.shape == (SIDE, SIDE, 4)
        seen = shown[..., 3] > 0
        np.testing.assert_array_equal(shown[seen][:, :3], np.where(true[seen, None] >= 0, RAISES, LOWERS))
        most = np.quantile(np.abs(true), 0.995)
        assert np.abs(shown[..., 3] / 255 - np.clip(np.abs(true) / most, 0, 1)).max() < 0.05
        assert "40 %" in pixels
        assert "attention-aware LRP" in pixels
        assert "&lt; 0.1 %" in pixels  # what does not add up


def test_the_legend_says_what_a_dashed_frame_is(run: Any) -> None:
    for name in ("genes/KRT19", "codes/17", "codes/402"):
        text = page(run, name)
        assert re.search(FIGURE, text, re.DOTALL), name
        assert 'class="swatch pixel-key">of pixels<' in text
        assert "A tile with a dashed frame stands once more for its pixels" in text
    for name in ("genes/CD3E", "codes/128"):
        text = page(run, name)
        assert not re.search(FIGURE, text, re.DOTALL)
        assert 'class="swatch pixel-key"' not in text
        assert "A tile with a dashed frame stands" not in text


def test_maps_of_pixels_keep_to_their_part_of_the_size(run: Any) -> None:
    made, _ = run
    found = read_findings(made.folder)
    placed = maps_placed(found, TissueReportConfig(), 8)
    whole = pixel_maps.make_pixel_maps(made.folder, placed, room=1e8)
    assert len(whole.drawn) == 4
    assert whole.told == ""
    less = pixel_maps.make_pixel_maps(made.folder, placed, room=(whole.taken - 1) / pixel_maps.PART)
    assert 0 < less.taken < whole.taken
    assert "reduced to 28 pixels a side" in less.told
    assert max(decoded(each.address).shape[0] for each in less.drawn.values()) == 28
    none = pixel_maps.make_pixel_maps(made.folder, placed, room=5_000)
    assert not none.drawn
    assert "left out" in none.told
    done = write_reports(made.folder, config=TissueReportConfig(size_budget_mb=1.0), images=made.images)
    assert done.summary["bytes"] < 1e6 or "more than was asked for" in done.summary["reduced"]
    assert (done.summary["pixel_maps"] == 4) or "Maps of pixels are left out" in done.summary["reduced"]
    assert write_reports(made.folder, config=TissueReportConfig(), images=made.images).summary["pixel_maps"] == 4


@pytest.mark.parametrize(
    ("shape", "side", "small"), [((56, 56), 28, (28, 28)), ((10, 7), 4, (4, 3)), ((5, 5), 8, (5, 5))]
)
def test_a_map_is_averaged_in_blocks(shape: tuple[int, int], side: int, small: tuple[int, int]) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = pixel_maps.shrunk(values, side)
    by = -(-max(shape) // side)
    assert found.shape == small
    assert found[0, 0] == pytest.approx(values[:by, :by].mean(), rel=1e-5)
    assert found[-1, -1] == pytest.approx(values[(small[0] - 1) * by :, (small[1] - 1) * by :].mean(), rel=1e-5)


def test_what_is_damaged_is_refused_in_one_line(run: Any, tmp_path: Path) -> None:
    index = tmp_path / "pixel_maps" / "KRT19" / "index.parquet"
    index.parent.mkdir(parents=True)
    source = run[0].folder / "pixel_maps" / "KRT19"
    table = pl.read_parquet(source / "index.parquet")
    (index.parent / "17.npz").write_bytes((source / "17.npz").read_bytes())
    key = tuple(table.select("gene", "code", "sample_id", "tile_id").row(0))

    def refused(change: pl.DataFrame | bytes, match: str) -> None:
        index.write_bytes(change) if isinstance(change, bytes) else change.write_parquet(index)
        with pytest.raises(DamagedError, match=match) as told:
            pixel_maps.make_pixel_maps(tmp_path, {key: 1}, room=1e8)
        assert "\n" not in told.value.line()

    refused(b"nothing", "cannot be read")
    refused(table.drop("at"), "has no column 'at'")
    refused(table.with_columns(file=pl.lit("../../../secret.npz")), "leads out of the run")
    refused(table.with_columns(at=pl.lit(99)), "holds 2 maps, and its index asks for number 99")
    refused(table.with_columns(file=pl.lit("none.npz")), "cannot be read")


def test_what_is_not_defined_is_a_dash_with_a_reason(run: Any) -> None:
    """The mean predictor gives one value a fold: no correlation, and no slope, whatever number a table has of it."""
    made, _ = run
    table = pl.read_parquet(made.folder / "heads" / "baselines.parquet")
    assert table.filter(model="mean")["calibration_slope"].to_list() == [1.02] * 6
    text = page(run, "genes/KRT19")
    row = text[text.index(">Mean predictor<") : text.index("</tr>", text.index(">Mean predictor<"))]
    reason = 'title="not defined: the mean predictor gives all samples of a fold one value"'
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert [reason in cell for cell in cells] == [False, False, True, True, True, False, True]
    assert all("–" in cell for cell in cells if reason in cell)
    assert "– is not defined: where all samples of a fold are predicted alike, as by the mean predictor" in text
    own = text[text.index(">Sparse codes<") : text.index("</tr>", text.index(">Sparse codes<"))]
    assert "not defined" not in own
    assert "1.02" in own
    index = page(run, "index")
    row = index[index.index(">Mean predictor<") : index.index("</tr>", index.index(">Mean predictor<"))]
    assert row.count(reason) == 2
    assert "– is not defined" in index


def test_a_heads_slope_that_is_not_defined_says_so_too(tmp_path: Path) -> None:
    made = tissue_made.make_run(tmp_path / "flat", side=3, sections=2)
    path = made.folder / "heads" / "metrics.parquet"
    blank = [pl.lit(None, pl.Float64).alias(name) for name in ("calibration_slope", "pearson", "spearman")]
    pl.read_parquet(path).with_columns(blank).write_parquet(path)
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    text = (made.folder / "report/genes/KRT19.html").read_text()
    row = text[text.index(">Sparse codes<") : text.index("</tr>", text.index(">Sparse codes<"))]
    assert row.count("not defined: all samples of a fold are predicted alike, or were measured alike") == 3
