"""The network gives what the published code gives, layer by layer, on the golden files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elute.models.tahoe.config import TahoeConfig, read_config
from elute.models.tahoe.load import read_folder, read_weights
from elute.models.tahoe.model import Output, TahoeX1
from elute.models.tahoe_x1 import sites

pytestmark = pytest.mark.real_data

CASES = [
    ("tiny_relu", "infer"),
    ("tiny_relu", "genmask"),
    ("tiny_gelu_chem", "infer_chem"),
    ("tiny_gelu_chem", "infer_nochem"),
    ("tiny_gelu_chem", "genmask_chem"),
]


def network_of(folder: Path) -> TahoeX1:
    # The golden folders hold no vocabulary: the weights are read by themselves.
    from elute.models.tahoe.load import build

    config = read_config(folder / "model_config.yml", TahoeConfig)
    return build(config, read_weights(folder), where=folder)


@pytest.mark.parametrize(("model", "case"), CASES)
@pytest.mark.parametrize("generative", [False, True])
def test_every_layer_agrees(real_data: Path, model: str, case: str, generative: bool) -> None:
    folder = real_data / "tahoe-golden" / model
    held = load_file(folder / f"{case}.safetensors")
    asked = bool(held["in.gen_mask"].any())
    if asked and generative:
        pytest.skip("the golden files hold no forward under the mask of training")
    network = network_of(folder)
    got: dict[str, torch.Tensor] = {}
    for name, site in sites(network.config.n_layers, network.config.d_model).items():
        kind = {"hook_attn_out": "attn_out", "hook_mlp_out": "mlp_out", "hook_resid_post": "out"}.get(
            name.split(".")[2]
        )
        if kind is not None:
            part = network.get_submodule(site.path)
            key = f"blocks.{name.split('.')[1]}.{kind}"
            part.register_forward_hook(lambda _m, _a, out, key=key: got.__setitem__(key, out))
    with torch.no_grad():
        out: Output = network(
            held["in.gene"],
            held["in.expr"],
            generated=held["in.gen_mask"],
            drugs=held.get("in.drug_ids"),
            generative_mask=generative,
        )
    got |= {k: v for k, v in out._asdict().items() if v is not None}
    assert len(got) == 3 * network.config.n_layers + 4
    for key, value in got.items():
        torch.testing.assert_close(
            value, held[f"out.{key}"], atol=1e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_a_batch_without_padding_needs_no_mask(real_data: Path) -> None:
    folder = real_data / "tahoe-golden" / "tiny_relu"
    held = load_file(folder / "infer.safetensors")
    network = network_of(folder)
    whole = held["in.gene"][:1], held["in.expr"][:1]
    assert bool((whole[0] != 0).all())
    with torch.no_grad():
        for with_mask, without in zip(network(*whole), network(*whole, padded=False), strict=True):
            torch.testing.assert_close(with_mask, without, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", ["70m", "1b", "3b"])
def test_the_published_names_and_shapes_are_ours(real_data: Path, size: str) -> None:
    folder = real_data / "tahoe-golden"
    config = read_config(folder / f"config_{size}_model.yml", TahoeConfig)
    with torch.device("meta"):
        network = TahoeX1(config)
    wanted = json.loads((folder / f"state_keys_{size}.json").read_text())
    assert {f"model.{name}": list(t.shape) for name, t in network.state_dict().items()} == wanted
    assert (
        sum(p.numel() for p in network.parameters())
        == json.loads((folder / "sizes.json").read_text())[size]["n_params"]
    )


def test_a_whole_folder_is_read(real_data: Path, tmp_path: Path) -> None:
    for file in (real_data / "tahoe-golden" / "tiny_relu").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    genes = {f"ENSG{i:011d}": i for i in range(3, 200)}
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<cls>": 1, "<eoc>": 2, **genes}))
    found = read_folder(tmp_path)
    assert found.network.config.d_model == 64
    assert found.collator.max_length == 1024
    assert len(found.vocabulary) == 200
