"""A painted cohort on the disk: the same bytes after a kill, and what a run's own reader makes of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from elute.tissue import painting_files
from elute.tissue.painting import paint
from elute.tissue.painting_files import write_painted
from elute.tissue.painting_genes import GENES
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.tile_settings import TilesConfig
from elute.tissue.tiles import open_tiles

CONFIG = PaintConfig(seed=5, patients=3, side=3)


def content(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("painted")
    assert write_painted(folder, CONFIG).summary["tiles"] == 27
    return folder


def test_what_is_written_is_what_is_painted(written: Path) -> None:
    cohort = paint(CONFIG)
    tiles = open_tiles(TilesConfig(images=written / "tiles", table=written / "tiles.csv", microns_per_pixel=1.0))
    assert np.array_equal(np.stack(tiles.images(range(27))), cohort.pictures)
    assert tiles.table.equals(cohort.tiles.table)
    targets = pl.read_parquet(written / "targets.parquet")
    assert targets.equals(cohort.targets)
    assert targets.columns == ["sample_id", "library", *GENES]
    assert pl.read_parquet(written / "truth.parquet").equals(cohort.truth)
    assert pl.read_parquet(written / "planted.parquet").equals(cohort.genes)


def test_a_kill_between_patients_leaves_no_trace(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = painting_files.paint_one
    asked: list[int] = []

    def killed(config: PaintConfig, patient: int) -> painting_files.PaintedSection:
        asked.append(patient)
        if asked == [0, 1]:
            raise KeyboardInterrupt
        return whole(config, patient)

    monkeypatch.setattr(painting_files, "paint_one", killed)
    with pytest.raises(KeyboardInterrupt):
        write_painted(tmp_path, CONFIG)
    (tmp_path / "tiles" / ".patient01.tmp").mkdir()  # what a kill in the middle of a patient leaves
    (tmp_path / "tiles" / ".patient01.tmp" / "half.png").write_bytes(b"half")
    write_painted(tmp_path, CONFIG)
    assert asked == [0, 1, 1, 2]
    assert content(tmp_path) == content(written)


def test_a_whole_cohort_is_used_as_it_is_and_others_are_not_mixed_in(tmp_path: Path) -> None:
    small = CONFIG.model_copy(update={"patients": 2})
    assert not write_painted(tmp_path, small).summary["reused"]
    assert write_painted(tmp_path, small).summary["reused"]
    (tmp_path / "truth.parquet").write_bytes(b"damaged")
    assert not write_painted(tmp_path, small).summary["reused"]
    before = content(tmp_path)
    other = small.model_copy(update={"seed": 6})
    assert not write_painted(tmp_path, other).summary["reused"]
    after = content(tmp_path)
    tiles = [name for name in before if name.endswith(".png")]
    assert tiles
    assert all(before[name] != after[name] for name in tiles)
