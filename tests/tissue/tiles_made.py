"""A small set of coloured tiles with counts that follow the colours, and a small encoder, as files that users have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml

from elute.models.vision.small import SmallViT, SmallViTConfig, write_folder

SIDE, PATCH, PER = 32, 8, 8
GENES = ["RED1", "RED2", "BLUE1", "FLAT"]
COLOURS = np.array([[200, 40, 60], [60, 50, 190], [225, 215, 220]], float)  # red, blue, pale


def tiles(patients: int = 6) -> tuple[np.ndarray[Any, Any], pl.DataFrame, np.ndarray[Any, Any]]:
    """Pictures, a table and counts: a patch of a tile is red, blue or pale."""
    rng = np.random.default_rng(0)
    n, grid = patients * PER, SIDE // PATCH
    share = rng.dirichlet([0.6, 0.6, 1.5], n)
    kind = (rng.random((n, grid, grid, 1)) > np.cumsum(share, 1)[:, None, None, :-1]).sum(-1)
    stain = rng.uniform(0.85, 1.1, (patients, 1, 1, 1, 3)).repeat(PER, 0)[:, 0]
    pictures = COLOURS[kind.repeat(PATCH, 1).repeat(PATCH, 2)] * stain + rng.normal(0, 8, (n, SIDE, SIDE, 3))
    red, blue = (kind == 0).mean((1, 2)), (kind == 1).mean((1, 2))
    rate = np.stack([red, red, blue, np.full(n, 0.4)], 1) * 80 + 5
    table = pl.DataFrame(
        {
            "file": [f"p{i // PER}/t{i:03d}.png" for i in range(n)],
            "spot": [f"s{i:03d}" for i in range(n)],
            "patient": [f"p{i // PER}" for i in range(n)],
            "px": [40.0 * (i % 4) for i in range(n)],
            "py": [40.0 * (i % PER // 4) for i in range(n)],
        }
    )
    return pictures.clip(0, 255).astype(np.uint8), table, rng.poisson(rate * rng.uniform(0.8, 1.3, (n, 1)))


def write_encoder(folder: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallViT(SmallViTConfig(image_size=SIDE, patch=PATCH, width=16, n_layers=2, n_heads=2, hidden=32))
    write_folder(folder, network)
    return folder


def write_files(folder: Path) -> Path:
    """Write tiles, tables, an encoder and a file of settings; returns the latter."""
    from PIL import Image

    pictures, table, counts = tiles()
    for name, picture in zip(table["file"], pictures, strict=True):
        path = folder / "tiles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    table.write_csv(folder / "tiles.csv")
    pl.DataFrame({"spot": table["spot"], **{g: counts[:, i] for i, g in enumerate(GENES)}}).write_parquet(
        folder / "counts.parquet"
    )
    write_encoder(folder / "encoder", seed=7)  # not the seed of the random control
    settings = {
        "run": {"output": str(folder / "run")},
        "tiles": {"images": str(folder / "tiles"), "table": str(folder / "tiles.csv"),
                  "columns": {"path": "file", "sample": "spot", "group": "patient", "section": "patient", "x": "px", "y": "py"}},
        "encoder": {"encoder": str(folder / "encoder"), "device": "cpu"},
        "embedding": {"per_token": True},
        "split": {"fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}},
        "sae": {"dict_size": "4x", "top_k": 4, "steps": 80, "train_batch_size": 128, "device": "cpu"},
        "targets": {"counts": str(folder / "counts.parquet"), "sample_column": "spot", "genes": "all"},
        "heads": {"folds": 3, "inner_folds": 2, "penalties": [0.01, 0.1, 1.0]},
        "controls": {"components": 8},
        "crp": {"codes": "top3", "k": 3},
        "reports": {"tiles_per_code": 3},
    }  # fmt: skip
    path = folder / "cfg.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
