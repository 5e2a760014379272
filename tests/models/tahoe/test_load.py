"""A model's folder: read whole, written back the same, and every fault in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from elute.base.errors import DamagedError, DataError
from elute.models.tahoe.config import CollatorConfig, ExpressionDecoderConfig, MvcConfig, TahoeConfig, read_config
from elute.models.tahoe.load import read_folder, write_folder
from elute.models.tahoe.model import TahoeX1

GENES = {"<pad>": 0, "<cls>": 1, "<eoc>": 2, "ENSG00000000003": 3, "ENSG00000000005": 4}


def network(**settings: object) -> TahoeX1:
    told = {"d_model": 8, "n_layers": 2, "n_heads": 2, "vocab_size": 5, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TahoeX1(TahoeConfig.model_validate(told)).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", network(mvc=MvcConfig()), CollatorConfig(), vocabulary=GENES)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm_scheme": "post", "use_glu": True},
        {"chemical_encoder": {"num_drugs": 3, "fp_dim": 4}, "transformer_activation": "relu"},
        {"expression_decoder": ExpressionDecoderConfig(n_layers=1, n_outputs=2), "cell_emb_style": "avg-pool"},
        {"gene_encoder": {"use_norm": True}, "use_generative_training": False},
    ],
)
def test_what_is_written_is_read(tmp_path: Path, settings: dict[str, object]) -> None:
    net = network(**settings)
    found = read_folder(write_folder(tmp_path, net, CollatorConfig(max_length=77), vocabulary=GENES))
    assert found.network.config == net.config
    assert found.collator.max_length == 77
    assert found.vocabulary == GENES
    tokens, values = torch.tensor([[1, 3, 4, 0]]), torch.tensor([[-2.0, 5, 50, -2]])
    with torch.no_grad():
        for ours, theirs in zip(net(tokens, values), found.network(tokens, values), strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)
    assert not any(p.requires_grad for p in found.network.parameters())


def test_under_the_mask_of_training_a_hidden_gene_is_seen_by_itself_alone() -> None:
    net = network()
    tokens, values = torch.tensor([[1, 3, 4, 3, 4]]), torch.tensor([[-2.0, 5, 50, 1, 2]])
    generated = torch.tensor([[False, False, False, True, True]])
    with torch.no_grad():
        one = net(tokens, values, generated=generated, generative_mask=True).gene_emb
        other = net(
            tokens[:, [0, 1, 2, 4]], values[:, [0, 1, 2, 4]], generated=generated[:, :4], generative_mask=True
        ).gene_emb
        plain = net(tokens, values, generated=generated).gene_emb
        nothing = net(tokens, values, generated=torch.zeros_like(generated), generative_mask=True).gene_emb
        known = net(tokens, values).gene_emb
    # With one hidden gene gone, the known ones and the other hidden one stay as they were.
    torch.testing.assert_close(one[:, [0, 1, 2, 4]], other, atol=1e-6, rtol=0)
    assert (one - plain).abs().max() > 1e-3
    torch.testing.assert_close(nothing, known, atol=1e-6, rtol=0)


def test_the_number_of_genes_is_that_of_the_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    table = weights["model.gene_encoder.embedding.weight"]
    save_file(
        {**weights, "model.gene_encoder.embedding.weight": torch.cat([table, table])}, folder / "model.safetensors"
    )
    assert read_folder(folder).network.config.vocab_size == 10


def test_weights_in_several_files_are_one(folder: Path) -> None:
    whole = read_folder(folder).network.state_dict()
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    again = read_folder(folder).network.state_dict()
    assert all(torch.equal(again[name], x) for name, x in whole.items())


def rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return spoil


def put(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


NORM = "model.transformer_encoder.norm.weight"
FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (rewrite(lambda w: w.pop(NORM)), r"model.safetensors: transformer_encoder.norm.weight missing"),
    (rewrite(lambda w: w.update(extra=torch.zeros(1))), "extra not of this model"),
    (rewrite(lambda w: w.update({NORM: torch.zeros(9)})), r"transformer_encoder.norm.weight is \[9\], not \[8\]"),
    (rewrite(lambda w: w.update({NORM: torch.zeros(8, dtype=torch.int64)})), "hold no real numbers"),
    (rewrite(lambda w: [w.pop(n) for n in list(w) if "layers.1" in n]), "and 6 more missing"),
    (put("model.safetensors", "no"), "not a whole safetensors file"),
    (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors.*--model-size"),
    (lambda f: (f / "model_config.yml").unlink(), "model_config.yml: is not there"),
    (put("model_config.yml", "- a\n"), "holds no settings"),
    (put("model_config.yml", "d_model: [\n"), "cannot be read"),
    (put("model_config.yml", "{d_model: 9, n_layers: 2, n_heads: 2, vocab_size: 5}"), "no multiple of n_heads"),
    (put("model_config.yml", "{d_model: 8, n_layers: 0, n_heads: 2, vocab_size: 5}"), "n_layers: "),
    (put("collator_config.yml", "do_binning: false"), "do_binning: .*Only what the published models use"),
    (put("collator_config.yml", "mlm_probability: .nan"), "mlm_probability: "),
    (put("vocab.json", "[1]"), "no table from genes to tokens"),
    (put("vocab.json", '{"<cls>": 1, "a": 9}'), "a: tokens outside of the 5 rows"),
    (put("vocab.json", '{"<cls>": 1, "a": 3, "b": 3}'), "several genes one token"),
    (put("vocab.json", '{"<cls>": 1'), "vocab.json"),
]


@pytest.mark.parametrize(("spoil", "said"), FAULTS)
def test_a_fault_is_one_line(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=said) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)


def test_what_would_compute_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model_config.yml"
    base = "d_model: 8\nn_layers: 1\nn_heads: 1\nvocab_size: 9\n"
    for more, said in [
        ("expression_encoder: {input_emb_style: category}", "expression_encoder.input_emb_style"),
        ("norm_config: {norm_type: rmsnorm}", "norm_config.norm_type"),
        ("standard_scale_outputs: true", "standard_scale_outputs"),
        ("mvc: {arch_style: concat query}", "mvc.arch_style"),
        ("transformer_activation: swiglu", "transformer_activation"),
    ]:
        file.write_text(base + more)
        with pytest.raises(DataError, match=said):
            read_config(file, TahoeConfig)
    file.write_text(base + "precision: amp_bf16\nattn_config: {kv_nheads: 4}")
    assert read_config(file, TahoeConfig).d_model == 8  # what concerns kernels and training is passed over


def test_an_index_that_leads_elsewhere_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    with pytest.raises(DamagedError, match="names files outside of its folder"):
        read_folder(folder)


def test_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there. A model's folder holds model.safetensors"):
        read_folder(tmp_path / "nowhere")
