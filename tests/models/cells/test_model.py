"""A model of cells: sites by layer, batches that do not fit, cells' vectors, number types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from elute.base.errors import ConfigError, DataError, EluteError, SiteError
from elute.models.cells.example import example_cells
from elute.models.cells.model import CellModel, default_sites
from elute.models.load import kind_of, load_model
from elute.models.tahoe.config import CollatorConfig, TahoeConfig
from elute.models.tahoe.load import write_folder
from elute.models.tahoe.model import TahoeX1
from elute.models.tahoe_x1 import example, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, genes = example_cells()
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<cls>", "<eoc>", *genes])}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = TahoeX1(TahoeConfig(d_model=16, n_layers=3, n_heads=2, vocab_size=len(vocabulary)))
    return write_folder(tmp_path_factory.mktemp("model"), network, CollatorConfig(), vocabulary=vocabulary)


def test_default_layers_are_those_of_the_published_projects() -> None:
    assert default_sites(12) == [f"blocks.{i}.hook_mlp_out" for i in (0, 3, 6, 9, 11)]
    assert default_sites(24) == [f"blocks.{i}.hook_mlp_out" for i in (0, 6, 13, 19, 23)]
    assert default_sites(1) == ["blocks.0.hook_mlp_out"]


def test_layers_are_named_in_several_ways(folder: Path) -> None:
    model = load(folder, device="cpu")
    assert model.choose_sites(None) == default_sites(3)
    assert model.choose_sites("0, last") == ["blocks.0.hook_mlp_out", "blocks.2.hook_mlp_out"]
    assert model.choose_sites("all", "resid_post") == [f"blocks.{i}.hook_resid_post" for i in range(3)]
    assert model.choose_sites("1,blocks.1.hook_mlp_in,1") == ["blocks.1.hook_mlp_out", "blocks.1.hook_mlp_in"]
    with pytest.raises(ConfigError, match="there is no layer 3. It has layers 0 to 2"):
        model.choose_sites("3")
    with pytest.raises(SiteError, match="blocks.1.hook_mlp_ou"):
        model.choose_sites("blocks.1.hook_mlp_ou")
    with pytest.raises(SiteError, match="there is no site 'first'"):
        model.choose_sites("first")


def test_sites_are_what_they_say(folder: Path) -> None:
    model = load(folder, device="cpu")
    cells, _ = example_cells()
    batch, metadata = next(model.batches(cells))
    rows = model.capture(batch)
    for block in range(3):
        stem = f"blocks.{block}.hook_"
        between = rows[f"{stem}resid_pre"] + rows[f"{stem}attn_out"]
        torch.testing.assert_close(between + rows[f"{stem}mlp_out"], rows[f"{stem}resid_post"], atol=1e-5, rtol=0)
        part = model.module.get_submodule(f"transformer_encoder.layers.{block}")
        torch.testing.assert_close(part.norm2(between), rows[f"{stem}mlp_in"], atol=1e-5, rtol=0)  # type: ignore[operator]
        if block:
            assert torch.equal(rows[f"blocks.{block - 1}.hook_resid_post"], rows[f"{stem}resid_pre"])
    assert all(len(x) == len(metadata) for x in rows.values())


def test_an_edit_by_gene_changes_what_comes_later_alone(folder: Path) -> None:
    model = load(folder, device="cpu")
    cells, genes = example_cells()
    batch, metadata = next(model.batches(cells))
    plain = model.capture(batch)

    def silence(x: torch.Tensor, told: Any) -> torch.Tensor:
        x[torch.tensor((told["token"] == genes[3]).to_list())] = 0
        return x

    with model.patch({"blocks.1.hook_mlp_out": silence}, metadata=metadata):
        changed = model.capture(batch)
    assert torch.equal(plain["blocks.1.hook_mlp_in"], changed["blocks.1.hook_mlp_in"])
    assert not torch.equal(plain["blocks.2.hook_resid_pre"], changed["blocks.2.hook_resid_pre"])


def test_a_batch_that_does_not_fit_is_read_in_halves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder, device="cpu", batch_size=12)
    cells, _ = example_cells()
    batch, _ = next(model.batches(cells))
    plain, vectors = model.capture(batch), model.embed(batch)
    seen: list[int] = []
    forward = type(model.module).forward

    def small(self: Any, tokens: torch.Tensor, *rest: Any, **named: Any) -> Any:
        seen.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, tokens, *rest, **named)

    monkeypatch.setattr(type(model.module), "forward", small)
    halved = model.capture(batch)
    assert seen == [12, 6, 3, 3, 3, 3]
    for name, x in plain.items():
        torch.testing.assert_close(halved[name], x, atol=1e-6, rtol=0)
    seen.clear()
    torch.testing.assert_close(model.embed(batch), vectors, atol=1e-6, rtol=0)
    assert seen == [3, 3, 3, 3], "later batches are cut at once"


def test_one_cell_that_does_not_fit_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder, device="cpu", batch_size=2)
    cells, _ = example_cells()
    batch, _ = next(model.batches(cells))

    def none(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(type(model.module), "forward", none)
    with pytest.raises(EluteError, match=r"one cell of \d+ tokens does not fit .* Give a smaller --max-length"):
        model.capture(batch)


def test_half_precision_is_close_and_told_apart(folder: Path) -> None:
    cells, _ = example_cells()
    full, half = (load(folder, device="cpu", dtype=kind) for kind in ("fp32", "bf16"))
    assert full.fingerprint().config != half.fingerprint().config
    batch, _ = next(full.batches(cells))
    for name, x in full.capture(batch).items():
        other = half.capture(batch)[name].float()
        cosine = torch.nn.functional.cosine_similarity(x, other, dim=1)
        assert cosine.min() > 0.98, name


def test_vectors_of_cells(folder: Path) -> None:
    model = load(folder, device="cpu")
    cells, _ = example_cells()
    batch, metadata = next(model.batches(cells))
    own, mean = model.embed(batch), model.embed(batch, "mean")
    last = model.capture({**batch, "keep": batch["tokens"] != 0}, ["blocks.2.hook_resid_post"])[
        "blocks.2.hook_resid_post"
    ]
    last = model.module.transformer_encoder.norm(last)  # type: ignore[operator, union-attr]
    starts = (batch["tokens"][batch["tokens"] != 0] == 1).nonzero().flatten().tolist()
    torch.testing.assert_close(own, last[starts], atol=1e-5, rtol=0)
    ends = [*starts[1:], len(last)]
    means = torch.stack([last[a + 1 : b].mean(0) for a, b in zip(starts, ends, strict=True)])
    torch.testing.assert_close(mean, means, atol=1e-5, rtol=0)
    assert len(own) == metadata["sample_id"].n_unique()


def test_random_weights_are_another_model(folder: Path) -> None:
    model, control, again = load(folder), load(folder, random_weights=True), load(folder, random_weights=True)
    assert control.name == "tahoe-x1, random weights"
    assert control.fingerprint().weights != model.fingerprint().weights
    assert control.fingerprint() == again.fingerprint()
    assert {n: p.shape for n, p in control.module.named_parameters()} == {
        n: p.shape for n, p in model.module.named_parameters()
    }


def test_settings_that_change_tokens_change_the_fingerprint(folder: Path) -> None:
    base = load(folder).fingerprint()
    for settings in ({"max_length": 20}, {"seed": 1}, {"upstream_exact": True}, {"rows": "all"}):
        other = load(folder, **settings).fingerprint()
        assert other.weights == base.weights
        assert other.config != base.config
    assert load(folder, batch_size=3).fingerprint() == base


def test_models_are_found_by_folder_and_by_name(folder: Path, tmp_path: Path) -> None:
    assert kind_of(folder) == "tahoe-x1"
    assert load_model(str(folder)).fingerprint() == load(folder).fingerprint()
    with pytest.raises(DataError, match="is no folder of a model that is known here"):
        load_model(tmp_path)
    with pytest.raises(DataError, match="is not there. Give a model's folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is no 'tahoe-x2'"):
        load_model("tahoe-x2")
    with pytest.raises(ConfigError, match="the drug's token was asked for"):
        load(folder, drug=True)
    with pytest.raises(ConfigError, match="rows is genes or all"):
        load(folder, rows="cells")


def test_data_that_are_no_cells_are_said() -> None:
    model, _ = example()
    assert isinstance(model, CellModel)
    with pytest.raises(DataError, match="a list is not cells. Open a file"):
        next(model.batches([1, 2]))
