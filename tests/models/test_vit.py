"""Vision networks behind the door: what they are named by, how their tokens lie, what their rows are, what is refused."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import elute
from elute.base.errors import ConfigError, DamagedError, DataError, MissingError, SiteError
from elute.models.vision.small import SmallViT, SmallViTConfig, write_folder
from elute.models.vit import example, load

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(autouse=True)
def _threads(one_thread: None) -> None:
    torch.manual_seed(0)


def pictures(n: int = 5, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def tokens_of(model: Any, batch: Any) -> torch.Tensor:
    """All tokens that the last block gives, by the library's own way out."""
    with torch.no_grad():
        return model.module(batch["pixel_values"], output_hidden_states=True).hidden_states[-1]


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = SmallViTConfig(image_size=32, patch=8, width=16, n_layers=2, n_heads=2, hidden=24, mean=(0.7, 0.6, 0.5))
    return write_folder(tmp_path_factory.mktemp("small"), SmallViT(config))


def dinov2(registers: int) -> nn.Module:
    import transformers

    if registers:
        config = transformers.Dinov2WithRegistersConfig(**{**SIZES, "image_size": 56}, num_register_tokens=registers)
        return transformers.Dinov2WithRegistersModel(config).eval()
    return transformers.Dinov2Model(transformers.Dinov2Config(**{**SIZES, "image_size": 56})).eval()


def test_rows_are_patches_row_by_row_without_the_class_token() -> None:
    model, data = example()
    assert (model.grid, model.prefix, model.last) == ((4, 4), 1, "blocks.1.hook_resid_post")
    for batch, metadata in model.batches(data, batch_size=2):
        with torch.no_grad():
            whole = model.module(batch["pixel_values"]).last_hidden_state
        rows = model.capture(batch, ["final_norm"])["final_norm"]
        torch.testing.assert_close(rows, whole[:, 1:].reshape(-1, 16))
        told = metadata["token_rc"].to_list()
        assert told == [[r, c] for r in range(4) for c in range(4)] * len(whole)
        assert metadata["augment_seed"].unique().to_list() == [0]


def test_a_row_a_picture_is_its_class_token() -> None:
    model, data = example()
    (batch, metadata), *_ = model.batches(data, per_token=False)
    with torch.no_grad():
        whole = model.module(batch["pixel_values"]).last_hidden_state
    torch.testing.assert_close(model.capture(batch, ["final_norm"])["final_norm"], whole[:, 0])
    assert metadata["tile_id"].to_list() == ["0", "1"]
    assert "token_rc" not in metadata.columns


@pytest.mark.parametrize("registers", [0, 3])
def test_tokens_before_the_patches_are_counted(registers: int) -> None:
    model = load(dinov2(registers), image_size=40)  # not the size of its training: positions are interpolated
    assert (model.grid, model.prefix) == ((5, 5), 1 + registers)
    (batch, metadata), *_ = model.batches(pictures(2))
    with torch.no_grad():
        whole = model.module(batch["pixel_values"]).last_hidden_state
    rows = model.capture(batch, ["final_norm"])["final_norm"]
    torch.testing.assert_close(rows, whole[:, 1 + registers :].reshape(-1, 16))
    assert metadata.height == 50


def test_a_vit_is_read_at_another_size_than_that_of_its_training() -> None:
    model, _ = example()
    larger = load(model.module, image_size=48)
    assert larger.grid == (6, 6)
    (batch, _metadata), *_ = larger.batches(pictures(1))
    assert larger.capture(batch, [larger.last])[larger.last].shape == (36, 16)


def test_a_small_vit_s_folder_is_a_model(small_folder: Path) -> None:
    model = elute.load_model(small_folder)
    assert (model.grid, model.prefix, model.image_size) == ((4, 4), 1, 32)
    assert model.mean == (0.7, 0.6, 0.5)
    kinds = ["resid_pre", "attn_out", "mlp_in", "mlp_out", "resid_post"]
    assert list(model.sites) == [f"blocks.{i}.hook_{kind}" for i in range(2) for kind in kinds] + ["final_norm"]
    (batch, _), *_ = model.batches(pictures(1))
    wanted = (
        torch.from_numpy(pictures(1)).permute(0, 3, 1, 2) / 255 - torch.tensor([0.7, 0.6, 0.5])[:, None, None]
    ) / 0.25
    torch.testing.assert_close(batch["pixel_values"], wanted)
    rows = model.capture(batch, ["final_norm"])["final_norm"]
    torch.testing.assert_close(rows, model.module(batch["pixel_values"])[0, 1:].detach())


def test_the_part_that_reads_pictures_is_taken_of_one_that_reads_texts_too(tmp_path: Path) -> None:
    import transformers

    vision = {**SIZES, "projection_dim": 8}
    text = {k: v for k, v in SIZES.items() if k not in ("image_size", "patch_size")} | {"vocab_size": 30}
    whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    whole.save_pretrained(tmp_path / "clip")
    model = load(tmp_path / "clip", image_size=32)
    assert (model.grid, model.prefix) == ((4, 4), 1)
    torch.testing.assert_close(
        next(model.module.parameters()), next(p for n, p in whole.named_parameters() if n.startswith("vision_model"))
    )


def test_a_module_of_one_s_own_by_its_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_encoder.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return net, {'image_size': 16, 'mean': 0.5, 'std': [0.1, 0.2, 0.3]}\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = elute.load_model("vit", network="own_encoder:build")
    assert (model.grid, model.last, model.std) == (None, "output", (0.1, 0.2, 0.3))
    (batch, metadata), *_ = model.batches(pictures(3), per_token=False)
    assert model.capture(batch)["output"].shape == (3, 6)
    assert metadata.height == 3
    with pytest.raises(ConfigError, match="no tokens of patches"):
        next(model.batches(pictures(3)))
    with pytest.raises(ConfigError, match=r"own_encoder:wrong: wrong gave int, not a torch module"):
        load("own_encoder:wrong")
    with pytest.raises(ConfigError, match="own_encoder has no 'biuld'. Did you mean 'build'"):
        load("own_encoder:biuld")
    with pytest.raises(ConfigError, match="there is no module 'nowhere_to_be_found'"):
        load("nowhere_to_be_found:build")
    monkeypatch.delitem(sys.modules, "own_encoder")


def test_an_encoder_without_a_class_token_and_without_a_size_of_patches() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 3, padding=1)
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.adaptive_avg_pool2d(self.first(x), 3).flatten(2).transpose(1, 2)
            for layer in self.layers:
                x = x + layer(x)
            return x

    model = load(Bare(), image_size=16)
    assert (model.grid, model.prefix) == ((3, 3), 0)
    with pytest.raises(ConfigError, match="no class token"):
        next(model.batches(pictures(2), per_token=False))
    with pytest.raises(ConfigError, match="9 tokens less 2 are no square"):
        load(Bare(), image_size=16, prefix=2)
    with pytest.raises(ConfigError, match="does not say how large its pictures are. Give image_size"):
        load(Bare())


def test_a_network_whose_blocks_give_maps_is_refused_with_what_to_do() -> None:
    net = nn.Sequential()
    net.add_module("blocks", nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)]))
    net.forward = lambda x: net.blocks[1](net.blocks[0](x))  # type: ignore[method-assign, index]
    with pytest.raises(SiteError, match=r"shape \[1, 3, 16, 16\], not tokens.*Name a site"):
        load(net, image_size=16)


def test_views_are_fixed_by_their_seed_and_patches_keep_their_places() -> None:
    model, _ = example()
    data = pictures(3)
    parts = [list(model.batches(data, batch_size=size, epochs=(0, 2), augment="flips", seed=5)) for size in (1, 3)]
    frames = [pl.concat([metadata for _, metadata in part]) for part in parts]
    assert frames[0].equals(frames[1])
    torch.testing.assert_close(*(torch.cat([batch["pixel_values"] for batch, _ in part]) for part in parts))
    pixels, frame = torch.cat([batch["pixel_values"] for batch, _ in parts[0]]), frames[0]
    turned = 0
    for i in range(3):
        seed = frame.filter(pl.col("tile_id") == str(i), pl.col("epoch") == 2)["augment_seed"].unique().item()
        turned += seed % 8 != 0
        places = frame.filter(pl.col("tile_id") == str(i), pl.col("epoch") == 2)["token_rc"].to_list()
        view, plain = pixels[3 + i], pixels[i]
        for at, (r, c) in enumerate(places):
            seen = view[:, at // 4 * 8 : at // 4 * 8 + 8, at % 4 * 8 : at % 4 * 8 + 8]
            meant = plain[:, r * 8 : r * 8 + 8, c * 8 : c * 8 + 8]
            assert torch.equal(seen.flatten().sort().values, meant.flatten().sort().values)
    assert turned, "no picture was turned, so nothing was tested"


def test_the_random_control_is_the_same_network_with_its_first_weights(small_folder: Path) -> None:
    model, one, same, other = (
        load(small_folder, **settings)
        for settings in ({}, *({"random_weights": True, "seed": seed} for seed in (1, 1, 2)))
    )
    assert one.fingerprint() == same.fingerprint()
    assert len({m.fingerprint().weights for m in (model, one, other)}) == 3
    assert list(one.sites) == list(model.sites)
    spread = [float(m.module.blocks[0].mlp.fc1.weight.std()) for m in (model, one)]
    assert abs(spread[0] - spread[1]) < 0.2 * spread[0]
    _, data = example()
    redrawn = load(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), image_size=8, random_weights=True)
    (batch, _), *_ = redrawn.batches(data, per_token=False)
    assert redrawn.capture(batch)["output"].shape == (len(data), 4)


def test_the_fingerprint_knows_weights_and_preprocessing(small_folder: Path) -> None:
    first = load(small_folder).fingerprint()
    assert load(small_folder).fingerprint() == first
    assert load(small_folder, mean=0.1).fingerprint().config != first.config
    assert load(small_folder, crop=True).fingerprint().config != first.config
    tuned = load(small_folder)
    tuned.module.norm.weight.data[0] += 1e-3
    assert tuned.fingerprint().weights != first.weights


def test_layers_by_their_site_or_module_and_a_misspelt_one_with_the_nearest(small_folder: Path) -> None:
    model = load(small_folder)
    assert model.site_of(None) == "blocks.1.hook_resid_post"
    assert model.site_of("blocks.0.attn.proj") in model.sites
    with pytest.raises(SiteError, match=r"no layer 'blocks.1.hook_resid_pst'. Did you mean 'blocks.1.hook_resid_post'"):
        model.site_of("blocks.1.hook_resid_pst")


def test_what_it_is_named_by_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"nothing/here/at/all: is no vision model that is there"):
        load("nothing/here/at/all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"config.json: there is no such file"):
        load(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingError, match=r"timm:vit_tiny: timm is not installed. Type: pip install .*timm"):
        load("timm:vit_tiny")
    with pytest.raises(ConfigError, match="precision is 'fp8'"):
        load(nn.Flatten(), image_size=8, precision="fp8")
    with pytest.raises(ConfigError, match=r"could not be run on a picture of 12 × 12"):
        load(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), image_size=12)


def test_a_folder_with_weights_cut_short(small_folder: Path, tmp_path: Path) -> None:
    for file in small_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DamagedError, match=r"model.safetensors"):
        load(tmp_path)


def test_a_timm_model_brings_its_preprocessing(monkeypatch: pytest.MonkeyPatch, small_folder: Path) -> None:
    inner = load(small_folder).module

    def create(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert (name, num_classes) == ("vit_tiny", 0)
        return inner

    told = {"input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.8,
            "interpolation": "bicubic"}  # fmt: skip
    fake = types.SimpleNamespace(
        create_model=create, data=types.SimpleNamespace(resolve_model_data_config=lambda _network: told)
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    model = load("timm:vit_tiny", device="cpu")
    assert (model.preprocessing.edge, model.image_size, model.mean) == (40, 32, (0.1, 0.2, 0.3))


def test_pictures_of_other_kinds_are_refused() -> None:
    model, _ = example()
    for wrong, told in ((pictures(1).astype(np.float32), "float32"), (pictures(1)[..., :2], r"\[32, 32, 2\]")):
        with pytest.raises(DataError, match=f"picture 0 is .*{told}.*Give uint8"):
            next(model.batches(wrong))
    with pytest.raises(DataError, match=r"pixels of shape \[1, 3, 31, 32\].*\[n, 3, 32, 32\]"):
        model.batch(torch.zeros(1, 3, 31, 32))
    with pytest.raises(ConfigError, match="augment is 'flip'. Did you mean 'flips'"):
        next(model.batches(pictures(1), augment="flip"))


def test_half_precision_gives_about_the_same(small_folder: Path) -> None:
    plain, half = (load(small_folder, precision=kind) for kind in ("fp32", "bf16"))
    rows = []
    for model in (plain, half):
        (batch, _), *_ = model.batches(pictures(2))
        rows.append(model.capture(batch, [model.last])[model.last].float())
    assert not torch.equal(*rows)
    torch.testing.assert_close(*rows, atol=0.1, rtol=0.1)
