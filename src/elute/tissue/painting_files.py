"""A painted cohort on the disk, as a user's own would lie there.

    FOLDER/tiles/PATIENT/*.png    the tiles
    FOLDER/tiles.csv              a row a tile: sample_id, tile_id, group, section, x, y, label, path
    FOLDER/targets.parquet        a row a tile: sample_id, library, and the counts of each gene
    FOLDER/truth.parquet          a row a patch: the share of each structure
    FOLDER/planted.parquet        a row a gene: what it was planted to
    FOLDER/run.json               the settings, and the digests of the tables

A patient's tiles are written under a hidden name, with the truth of their patches, and renamed: what a kill left is
painted anew, what is whole is not.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.base.tensors import load_npy
from elute.tissue.painting import PaintedSection, paint_one
from elute.tissue.painting_genes import gene_table
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.painting_tables import target_table, tile_table, truth_table

STAGE = "paint"
TILES, TABLE, TARGETS, TRUTH, PLANTED = "tiles", "tiles.csv", "targets.parquet", "truth.parquet", "planted.parquet"
_SHARES = ".shares.npy"  # of a patient's patches, beside the tiles: what a resumed run does not paint again
_SETTINGS = ".settings.json"  # under which the tiles that lie there were painted


def write_painted(folder: Path, config: PaintConfig | None = None, *, anew: bool = False) -> Artifact:
    """Paint a cohort into a folder; what is there already, by these settings, is used as it is."""
    config, folder = config or PaintConfig(), Path(folder)
    files.make_folder(folder)
    with files.locked(folder, "painting"):
        if not anew and (done := _finished(folder, config)) is not None:
            console.say(f"{folder}: already painted with these settings, used as it is")
            return Artifact("painted", folder, {**done, "reused": True})
        _begin(folder, config, anew=anew)
        shares = []
        with console.progress("paint", config.patients, unit="sections") as bar:
            for patient in range(config.patients):
                shares.append(_patient(folder, config, patient))
                bar.advance()
        summary = _tables(folder, config, np.concatenate(shares))
        run.record(folder, STAGE, config, inputs={}, summary=summary)
    return Artifact("painted", folder, {**summary, "reused": False})


def _finished(folder: Path, config: PaintConfig) -> dict[str, Any] | None:
    """Return what was painted by these settings, if its tables and tiles are still there."""
    done = run.finished(folder, STAGE, config, inputs={})
    if done is None:
        return None
    tables = all((folder / name).is_file() and files.digest_file(folder / name)[:16] == digest
                 for name, digest in done["tables"].items())  # fmt: skip
    tiles = all((folder / TILES / _group(patient) / _SHARES).is_file() for patient in range(config.patients))
    return done if tables and tiles else None


def _begin(folder: Path, config: PaintConfig, *, anew: bool) -> None:
    """Take away what was painted by other settings."""
    told = folder / TILES / _SETTINGS
    settings = config.model_dump(mode="json")
    if anew or not told.is_file() or told.read_bytes() != files.as_json(settings):
        shutil.rmtree(folder / TILES, ignore_errors=True)
        files.make_folder(folder / TILES)
        files.write_json(told, settings)


def _group(patient: int) -> str:
    return f"patient{patient:02d}"


def _patient(folder: Path, config: PaintConfig, patient: int) -> NDArray[np.float64]:
    """Paint a patient's tiles, or read the truth of those that lie there."""
    place = folder / TILES / _group(patient)
    if (place / _SHARES).is_file():
        return np.array(load_npy(place / _SHARES))
    section = paint_one(config, patient)
    hidden = place.with_name(f".{place.name}.tmp")
    for leftover in (hidden, place):
        shutil.rmtree(leftover, ignore_errors=True)
    files.make_folder(hidden)
    _write_tiles(hidden, section, config)
    shares = section.shares()
    np.save(hidden / _SHARES, shares)
    with files.disk_errors(place):
        hidden.rename(place)
    return shares


def _write_tiles(folder: Path, section: PaintedSection, config: PaintConfig) -> None:
    names = tile_table(config, np.zeros((config.patients * config.side**2, 1)))["path"]
    first = section.patient * config.side**2
    with files.disk_errors(folder):
        for i, picture in enumerate(section.tiles()):
            data = io.BytesIO()
            Image.fromarray(picture).save(data, "PNG", compress_level=1)
            (folder / Path(names[first + i]).name).write_bytes(data.getvalue())


def _tables(folder: Path, config: PaintConfig, shares: NDArray[np.float64]) -> dict[str, Any]:
    """Write the tables, and say what was painted."""
    by_tile = shares.mean(1)
    table = tile_table(config, by_tile)
    writers: dict[str, Callable[[Any], object]] = {
        TABLE: table.drop("size_px", "microns_per_pixel").write_csv,
        TARGETS: target_table(table, by_tile, config).write_parquet,
        TRUTH: truth_table(table, shares).write_parquet,
        PLANTED: gene_table(config.effect).write_parquet,
    }
    for name, write in writers.items():
        files.write_atomically(folder / name, write)
    found = table.group_by("label").len().sort("label")
    return {
        "tiles": table.height,
        "patients": config.patients,
        "labels": dict(found.iter_rows()),
        "tables": {name: files.digest_file(folder / name)[:16] for name in writers},
    }


def read_truth(folder: Path) -> pl.DataFrame:
    """Read the share of each structure, a row a patch."""
    return pl.read_parquet(folder / TRUTH)
