"""Pictures that say which tile they are, tables about them, and encoders that are quick to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image

from elute.models.vision.small import SmallViT, SmallViTConfig, write_folder
from elute.tissue.tiles import Tiles

SIDE = 32


def picture(number: int, side: int = SIDE) -> np.ndarray:
    """A picture of noise, fixed by its number, with the number itself in the first pixel."""
    x = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    x[0, 0] = number
    return x


def write_tiles(folder: Path, n: int = 12, *, groups: int = 4, suffix: str = ".png") -> Path:
    """A folder of pictures and a table about them: tiles.csv."""
    folder.mkdir(parents=True)
    for i in range(n):
        Image.fromarray(picture(i)).save(folder / f"t{i}{suffix}")
    columns = {
        "spot": [f"{i:03d}" for i in range(n)],
        "patient": [f"p{i % groups}" for i in range(n)],
        "section": [f"s{i % 2}" for i in range(n)],
        "px": [float(10 * i) for i in range(n)],
        "py": [float(5 * i) for i in range(n)],
        "file": [f"t{i}{suffix}" for i in range(n)],
        "kind": ["gland" if i % 3 else "fat" for i in range(n)],
    }
    pl.DataFrame(columns).write_csv(folder / "tiles.csv")
    return folder


COLUMNS = {
    "sample": "section+spot",
    "group": "patient",
    "section": "section",
    "x": "px",
    "y": "py",
    "path": "file",
    "label": "kind",
}


def tiles_in_memory(n: int = 12, *, groups: int = 4, **columns: Any) -> Tiles:
    """Tiles that are made when they are asked for."""
    table = {"sample_id": [f"s{i}" for i in range(n)], "tile_id": [f"s{i}" for i in range(n)],
             "group": [f"p{i % groups}" for i in range(n)], **columns}  # fmt: skip
    return Tiles.of(table, picture, {"images": "made"})


def small_vit(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """The folder of a vision transformer with 4 × 4 patches and 16 numbers a token."""
    torch.manual_seed(seed)
    sizes = {"image_size": 32, "patch": 8, "width": 16, "n_layers": 2, "n_heads": 2, "hidden": 24, **changes}
    return write_folder(folder, SmallViT(SmallViTConfig(**sizes)))
