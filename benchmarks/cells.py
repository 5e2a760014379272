"""How fast cells are read: batches of one length against padding to the model's full length.

The baseline is the straightforward forward: cells in the order of the file, each padded to the context of 1,024, no
mask left out. Both run the same network (the 70M shape, random weights) on the same real or made-up cells, in turns,
and the median of each is told; on a CPU in seconds of its cores.

    python benchmarks/cells.py [--data X.h5ad] [--cells 32] [--model FOLDER] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elute.models.cells.cellfile import CellsConfig, open_cells
from elute.models.cells.example import example_cells
from elute.models.cells.model import CellModel
from elute.models.tahoe.config import CollatorConfig, GeneEncoderConfig, MvcConfig, TahoeConfig
from elute.models.tahoe.model import TahoeX1
from elute.models.tahoe.tokenizer import TahoeTokenizer
from elute.models.tahoe_x1 import load, wrap

LENGTH = 1024
RESULT = Path(__file__).parent / "results" / "cells.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="cells as .h5ad; made-up ones if not given")
    parser.add_argument("--gene-map", type=Path)
    parser.add_argument("--model", type=Path, help="folder of a model; the 70M shape with random weights if not given")
    parser.add_argument("--cells", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    model, cells = prepared(asked)
    sites = model.default_sites
    batches = [batch for batch, _ in model.batches(cells, batch_size=asked.batch_size)]
    model.tokenizer.ordered = True  # type: ignore[attr-defined, misc]
    plain = [full(batch) for batch, _ in model.batches(cells, batch_size=asked.batch_size)]
    ways: dict[str, Callable[[], object]] = {
        "elute, batches of one length": lambda: [model.capture(batch, sites) for batch in batches],
        f"padded to {LENGTH:,}": lambda: [model.capture(batch, sites) for batch in plain],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(asked.rounds + 1):
        for name, way in ways.items():
            began = clock(model.device)
            way()
            if round_:  # the first warms up
                seconds[name].append(clock(model.device) - began)
    n = len(cells)
    tokens = sum(int(batch["keep"].sum()) for batch in batches)
    lengths = [f"{int(q):,}" for q in np.quantile([int(r.sum()) for b in batches for r in b["keep"]], (0.1, 0.5, 0.9))]
    print(f"{n} cells, {tokens:,} tokens (a tenth below {lengths[0]}, half {lengths[1]}, nine tenths {lengths[2]}), "
          f"{len(sites)} sites, {model.device}, {model.compute.dtype}, {torch.get_num_threads()} threads")  # fmt: skip
    middles = {name: statistics.median(taken) for name, taken in seconds.items()}
    best = min(middles.values())
    RESULT.parent.mkdir(exist_ok=True)
    told = {"cells": n, "tokens": tokens, "device": str(model.device), "seconds": middles}
    RESULT.write_text(json.dumps(told, indent=1) + "\n")
    for name, middle in middles.items():
        print(
            f"{name:<32}{n / middle:>8.2f} cells/s   {tokens / middle:>9,.0f} tokens/s   {middle / best:.2f}× the time"
        )


def prepared(asked: argparse.Namespace) -> tuple[CellModel, Any]:
    settings: dict[str, Any] = {"batch_size": asked.batch_size, "max_length": LENGTH}
    if asked.data is not None:
        cells: Any = open_cells(asked.data, CellsConfig(max_cells=asked.cells))
        genes = cells.var["index"].to_list()
    else:
        cells, genes = example_cells(asked.cells, 2000, seed=1)
    if asked.model is not None:
        return load(asked.model, gene_map=asked.gene_map, **settings), cells
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<cls>", "<eoc>", *genes])}
    config = TahoeConfig(
        d_model=512, n_layers=12, n_heads=8, vocab_size=len(vocabulary), transformer_activation="relu",
        gene_encoder=GeneEncoderConfig(use_norm=True), mvc=MvcConfig(scaled_dot_product=True),
    )  # fmt: skip
    torch.manual_seed(0)
    network = TahoeX1(config).requires_grad_(False).eval()
    tokenizer = TahoeTokenizer(vocabulary, CollatorConfig(max_length=LENGTH))
    return wrap(network, tokenizer, batch_size=asked.batch_size), cells


def full(batch: dict[str, Any]) -> dict[str, Any]:
    """The same batch padded to the whole context."""
    more = LENGTH - batch["tokens"].shape[1]
    filler = {"tokens": 0, "values": -2.0, "keep": False}
    wide = {
        key: torch.nn.functional.pad(x, (0, more), value=filler[key]) if key in filler else x
        for key, x in batch.items()
    }
    return {**wide, "padded": True}


def clock(device: torch.device) -> float:
    """CPU seconds of all threads, which other programs hardly change; on a GPU the time of day, when it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


if __name__ == "__main__":
    main()
