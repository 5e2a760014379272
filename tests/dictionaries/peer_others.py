"""Run by a python that has dictionary_learning and sparsify (test_foreign.py): save one of each, with what it gives.

peer_others.py FOLDER     codes and outputs for FOLDER/x.npy
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

for missing in ("nnsight", "wandb", "zstandard", "umap", "circuitsvis", "plotly"):
    if find_spec(missing) is None:  # imported for other things than dictionaries
        sys.modules[missing] = MagicMock(__spec__=ModuleSpec(missing, None))

READ, FEATURES, K = 8, 24, 4


def keep(folder: Path, codes: torch.Tensor, out: torch.Tensor) -> None:
    np.save(folder / "own_codes.npy", codes.detach().double().numpy())
    np.save(folder / "own_out.npy", out.detach().double().numpy())


def filled(module: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name == "threshold":
                tensor.copy_(torch.rand(tensor.shape) * 0.6 + 0.1)
            elif tensor.dtype.is_floating_point:
                tensor.copy_(torch.randn(tensor.shape) * 0.4)
    return module


def dictionary_learning(folder: Path, x: torch.Tensor) -> None:
    from dictionary_learning import dictionary as d
    from dictionary_learning import utils as loader
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made = [
        d.AutoEncoder(READ, FEATURES),
        d.AutoEncoderNew(READ, FEATURES),
        d.GatedAutoEncoder(READ, FEATURES),
        d.JumpReluAutoEncoder(READ, FEATURES),
        AutoEncoderTopK(READ, FEATURES, K),
        BatchTopKSAE(READ, FEATURES, K),
        MatryoshkaBatchTopKSAE(READ, FEATURES, K, [6, 6, 12]),
    ]
    for seed, module in enumerate(made):
        name = type(module).__name__
        place = folder / name
        place.mkdir()
        torch.save(filled(module, seed).state_dict(), place / "ae.pt")
        trainer = {"dict_class": name, "activation_dim": READ, "dict_size": FEATURES, "submodule_name": "resid_3"}
        trainer |= {"k": K} if "TopK" in name else {}
        (place / "config.json").write_text(json.dumps({"trainer": trainer}))
        theirs, _ = loader.load_dictionary(str(place), "cpu")
        keep(place, theirs.encode(x), theirs(x))
    print("dictionary_learning", len(made))


def sparsify(folder: Path, x: torch.Tensor) -> None:
    from sparsify import SparseCoder, SparseCoderConfig

    settings = {"sae": {}, "transcoder": {"transcode": True}, "skip": {"transcode": True, "skip_connection": True}}
    for seed, (name, more) in enumerate(settings.items()):
        place = folder / f"sparsify_{name}"
        coder = filled(SparseCoder(READ, SparseCoderConfig(num_latents=FEATURES, k=K, **more)), seed)
        coder.save_to_disk(place)
        coder = SparseCoder.load_from_disk(place)
        given = coder(x)
        codes = torch.zeros(len(x), FEATURES).scatter(1, given.latent_indices, given.latent_acts)
        keep(place, codes, given.sae_out)
    print("sparsify", len(settings))


def main() -> None:
    folder = Path(sys.argv[1])
    x = torch.from_numpy(np.array(np.lib.format.open_memmap(folder / "x.npy", mode="r")))
    dictionary_learning(folder, x)
    sparsify(folder, x)


main()
