"""Run by a python that has SAELens (test_saelens.py): load what elute wrote, or save what elute is to read.

peer_saelens.py load FOLDER     every FOLDER/*/{inference,training}: codes and outputs for FOLDER/x.npy
peer_saelens.py save FOLDER     one of each architecture, with codes and outputs for FOLDER/x.npy
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sae_lens as sl
import torch
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening

READ, FEATURES, WRITE, K = 8, 24, 5, 4
warnings.simplefilter("ignore")


def keep(folder: Path, name: str, codes: torch.Tensor, out: torch.Tensor) -> None:
    codes = codes.to_dense() if codes.is_sparse else codes
    np.save(folder / f"{name}_codes.npy", codes.detach().double().numpy())
    np.save(folder / f"{name}_out.npy", out.detach().double().numpy())


def load(folder: Path, x: torch.Tensor) -> None:
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        sae: Any = sl.SAE.load_from_disk(place / "inference")
        keep(place, "inference", sae.encode(x.to(sae.dtype)), sae(x.to(sae.dtype)))
        if (place / "training").exists():
            trained: Any = sl.TrainingSAE.load_from_disk(place / "training")
            step = TrainStepInput(
                sae_in=x.to(trained.dtype),
                coefficients=dict.fromkeys(trained.get_coefficients(), 1.0),
                dead_neuron_mask=torch.zeros(trained.cfg.d_sae, dtype=torch.bool),
                n_training_steps=0,
                is_logging_step=False,
            )
            frozen = place / "frozen"  # what its own classes make of it for inference
            trained.save_inference_model(frozen)
            sae = sl.SAE.load_from_disk(frozen)
            keep(place, "training", sae.encode(x.to(sae.dtype)), sae(x.to(sae.dtype)))
            (place / "class.txt").write_text(type(trained).__name__)
            assert bool(trained.training_forward_pass(step).loss.isfinite())
        print(place.name, type(sae).__name__)


def filled(sae: Any, seed: int) -> Any:
    """Random weights; no bias is zero and no row of the decoder has length one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sae.state_dict().items():
            if "threshold" in name:
                values = torch.rand(tensor.shape, dtype=tensor.dtype) * 0.6 + 0.1
            else:
                values = torch.randn(tensor.shape, dtype=tensor.dtype) * (0.5 if "_" in name and "W" in name else 0.3)
            tensor.copy_(values)
    return sae


def archs() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, class and settings of each, training classes with their defaults where they matter."""
    size = {"d_in": READ, "d_sae": FEATURES}
    ranked = {**size, "k": K}
    across = {**size, "d_out": WRITE, "apply_b_dec_to_input": False}
    yield "standard", sl.StandardSAE, size
    yield "standard_uncentred", sl.StandardSAE, {**size, "apply_b_dec_to_input": False}
    yield "topk", sl.TopKSAE, ranked
    yield "topk_rescaled", sl.TopKSAE, {**ranked, "rescale_acts_by_decoder_norm": True}
    yield "abstopk", sl.AbsTopKSAE, ranked
    yield "jumprelu", sl.JumpReLUSAE, size
    yield "gated", sl.GatedSAE, size
    yield "transcoder", sl.Transcoder, across
    yield "skip_transcoder", sl.SkipTranscoder, across
    yield "jumprelu_transcoder", sl.JumpReLUTranscoder, across
    yield "jumprelu_skip_transcoder", sl.JumpReLUSkipTranscoder, across
    stops = {"residual_threshold": 0.0, "stop_on_duplicate_support": False, "max_iterations": K}
    yield "matching_pursuit", sl.MatchingPursuitSAE, {**size, **stops}
    yield "standard_training", sl.StandardTrainingSAE, size
    yield "topk_training", sl.TopKTrainingSAE, ranked
    yield "abstopk_training", sl.AbsTopKTrainingSAE, ranked
    yield "jumprelu_training", sl.JumpReLUTrainingSAE, size
    yield "gated_training", sl.GatedTrainingSAE, size
    yield "batchtopk_training", sl.BatchTopKTrainingSAE, {**ranked, "k": 2.5}
    matryoshka = {**ranked, "matryoshka_widths": [6, 12, FEATURES]}
    yield "matryoshka_training", sl.MatryoshkaBatchTopKTrainingSAE, matryoshka
    for how, short in (("expected_average_only_in", "scaled"), ("covariance_whitening", "whitened")):
        normalised = {"normalize_activations": how}
        yield f"standard_{short}", sl.StandardTrainingSAE, {**size, **normalised}
        yield f"gated_{short}", sl.GatedTrainingSAE, {**size, **normalised, "apply_b_dec_to_input": False}
        yield f"topk_{short}", sl.TopKTrainingSAE, {**ranked, **normalised}
        yield f"batchtopk_{short}", sl.BatchTopKTrainingSAE, {**ranked, **normalised}
        yield f"jumprelu_{short}", sl.JumpReLUTrainingSAE, {**size, **normalised}


def scaler(name: str) -> ActivationScaler:
    if name.endswith("_scaled"):
        return ActivationScaler(scaling_factor=1.7)
    if name.endswith("_whitened"):
        matrix = torch.randn(READ, READ, dtype=torch.double) * 0.3 + torch.eye(READ, dtype=torch.double)
        mean = torch.randn(READ, dtype=torch.double)
        return ActivationScaler(whitening=ActivationWhitening(mean, matrix, torch.linalg.inv(matrix)))
    return ActivationScaler()


def forwards(sae: Any, x: torch.Tensor, scale: ActivationScaler, frozen: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What it gives at inference: a BatchTopK through its threshold."""
    if hasattr(sae, "topk_threshold"):
        sae.save_inference_model(frozen)
        sae = sl.SAE.load_from_disk(frozen)
    rows = scale.scale(x)
    return sae.encode(rows), scale.unscale(sae(rows))


def save(folder: Path, x: torch.Tensor) -> None:
    for seed, (name, kind, settings) in enumerate(archs()):
        config = _config(kind)(**settings)
        config.metadata.hook_name, config.metadata.model_name = "blocks.3.hook_resid_post", "tiny"
        if "transcoder" in name:
            config.metadata.hook_name_out = "blocks.3.hook_mlp_out"
        sae, place = filled(kind(config), seed), folder / name
        sae.save_model(place)
        scale = scaler(name)
        if name.endswith(("_scaled", "_whitened")):
            scale.save(str(place / "activation_scaler.json"))
        keep(place, "own", *forwards(sae, x, scale, folder / f"{name}_frozen"))
        frozen = folder / f"{name}_frozen"
        if frozen.exists():
            for file in place.glob("own_*.npy"):
                (frozen / file.name).write_bytes(file.read_bytes())
            if name.endswith(("_scaled", "_whitened")):
                for file in place.glob("activation_*"):
                    (frozen / file.name).write_bytes(file.read_bytes())
    for name, half in (("standard", torch.bfloat16), ("topk", torch.float16)):
        _halved(folder, name, half, x)
    _legacy(folder, x)


def _config(kind: Any) -> Callable[..., Any]:
    return getattr(sl, f"{kind.__name__}Config")  # type: ignore[no-any-return]


def _halved(folder: Path, name: str, half: torch.dtype, x: torch.Tensor) -> None:
    """Half precision, computed on in float32."""
    place = folder / f"{name}_{str(half).removeprefix('torch.')}"
    sl.SAE.load_from_disk(folder / name).to(dtype=half).save_model(place)
    sae: Any = sl.SAE.load_from_disk(place, dtype="float32")
    keep(place, "own", sae.encode(x), sae(x))


def _legacy(folder: Path, x: torch.Tensor) -> None:
    """Configurations from before version 6, as SAELens still reads them."""
    for name in ("standard", "topk", "jumprelu", "gated"):
        place = folder / f"{name}_legacy"
        place.mkdir()
        (place / "sae_weights.safetensors").write_bytes((folder / name / "sae_weights.safetensors").read_bytes())
        config = {"d_in": READ, "d_sae": FEATURES, "dtype": "float32", "hook_point": "blocks.1.hook_mlp_out"}
        config |= {"architecture": "standard" if name == "topk" else name, "normalize_activations": False}
        if name == "topk":
            config |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
        (place / "cfg.json").write_text(json.dumps(config))
        sae: Any = sl.SAE.load_from_disk(place)
        keep(place, "own", sae.encode(x), sae(x))


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    x = torch.from_numpy(np.array(np.lib.format.open_memmap(folder / "x.npy", mode="r")))
    {"load": load, "save": save}[mode](folder, x)
    print("SAELens", sl.__version__)


main()
