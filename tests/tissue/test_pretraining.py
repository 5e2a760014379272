"""A small vision transformer that learns tissue by itself: that it learns, is the same each time, and reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from elute.base import run
from elute.base.errors import ConfigError, DataError
from elute.models.vision.small import SmallViT, SmallViTConfig, load, write_folder
from elute.tissue import pretraining
from elute.tissue.painting import paint
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.pretrain_settings import PretrainConfig
from elute.tissue.pretraining import Decoder, pretrain, restained, turned
from elute.tissue.texture import textures

TINY = PretrainConfig(width=16, layers=1, heads=2, steps=30, batch_size=6, lr=1e-2)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return paint(PaintConfig(patients=2, side=4)).pictures


@pytest.fixture(scope="module")
def tiles(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def test_it_learns_and_a_rerun_gives_the_same_bytes(pictures: np.ndarray, tmp_path: Path) -> None:
    first = pretrain(pictures, tmp_path / "a", TINY, inputs={"tiles": "x"})
    assert first.summary["loss"] < 0.9 * first.summary["loss_before"]
    torch.rand(7)  # what others draw meanwhile changes nothing
    again = pretrain(pictures, tmp_path / "b", TINY, inputs={"tiles": "x"})
    for name in ("model.safetensors", "config.json", "run.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = pretrain(pictures, tmp_path / "c", TINY.model_copy(update={"seed": 1}), inputs={"tiles": "x"})
    assert other.summary["weights"] != again.summary["weights"]


def test_what_is_there_is_used_until_it_is_another(pictures: np.ndarray, tmp_path: Path) -> None:
    quick = TINY.model_copy(update={"steps": 2})
    assert not pretrain(pictures, tmp_path, quick, inputs={"tiles": "x"}).summary["reused"]
    assert pretrain(pictures, tmp_path, quick, inputs={"tiles": "x"}).summary["reused"]
    assert not pretrain(pictures, tmp_path, quick, inputs={"tiles": "y"}).summary["reused"]
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not pretrain(pictures, tmp_path, quick, inputs={"tiles": "y"}).summary["reused"]


@pytest.mark.parametrize("where", ["restained", "write_folder", "record"])
def test_a_kill_costs_the_stage_anew_and_nothing_else(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    quick = TINY.model_copy(update={"steps": 2})
    module: Any = run if where == "record" else pretraining
    whole = getattr(module, where)

    def killed(*given: Any, **named: Any) -> None:
        if where != "record":
            whole(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, where, killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(pictures, tmp_path / "killed", quick, inputs={"tiles": "x"})
    monkeypatch.setattr(module, where, whole)
    assert not pretrain(pictures, tmp_path / "killed", quick, inputs={"tiles": "x"}).summary["reused"]
    pretrain(pictures, tmp_path / "alone", quick, inputs={"tiles": "x"})
    for name in ("model.safetensors", "config.json", "run.json", "config.yaml"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_the_step_is_that_of_adam_with_weight_decay() -> None:
    rng = np.random.default_rng(0)
    shapes, wanted = [(3, 4), (5,), (1, 2, 2)], rng.standard_normal(21)
    start = rng.standard_normal(21)
    mine = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    with torch.no_grad():
        for p, part in zip(mine, np.split(start, [12, 17]), strict=True):
            p.copy_(torch.from_numpy(part).view_as(p))
    adam = pretraining._Adam(mine)
    w, first, second = start.copy(), np.zeros(21), np.zeros(21)
    for step in range(1, 7):
        rate = 0.1 / step
        ((torch.cat([p.flatten() for p in mine]) - torch.from_numpy(wanted)) ** 4).sum().backward()
        adam.step(rate)
        slope = 4 * (w - wanted) ** 3
        slope *= min(1, 1 / np.linalg.norm(slope))
        first = 0.9 * first + 0.1 * slope
        second = 0.98 * second + 0.02 * slope**2
        w = (1 - 0.02 * rate) * w
        w -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.98**step)) + 1e-8)
        assert torch.cat([p.detach().flatten() for p in mine]).numpy() == pytest.approx(w, abs=1e-4)


def test_nothing_hidden_is_read(pictures: np.ndarray) -> None:
    network = SmallViT(SmallViTConfig(width=16, n_heads=2, n_layers=2, hidden=32))
    x = torch.rand(2, 3, 64, 64)
    shown = torch.tensor([[0, 9, 63], [5, 6, 7]])
    changed = x.clone()
    changed[:, :, 32:40, 32:40] = 0  # patch 36, which is not shown
    assert torch.equal(network(x, shown), network(changed, shown))
    assert not torch.equal(network(x), network(changed))
    every = torch.arange(64).expand(2, -1)
    torch.testing.assert_close(network(x, every), network(x))
    decoder = Decoder(network.config, 4)
    assert decoder(network(x, shown), shown).shape == (2, 64, 4)


def test_turning_moves_patches_and_what_is_told_of_them_alike(tiles: torch.Tensor) -> None:
    x = tiles[:4].float() / 255
    means = x.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)).permute(0, 2, 3, 1)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(30):
        turn, told = turned(x, means, generator)
        torch.testing.assert_close(turn.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)).permute(0, 2, 3, 1), told)
        seen.add(round(float(turn[0, 0, 0, 0] * 1000 + turn[0, 0, 5, 60]), 4))
    assert len(seen) >= 6  # of eight


def test_staining_anew_changes_colours_and_little_of_the_textures(tiles: torch.Tensor) -> None:
    x = tiles.float() / 255
    other = restained(x, torch.Generator().manual_seed(0))
    assert float(other.min()) >= 0
    assert float(other.max()) <= 1
    by_tile = (other - x).mean((2, 3)).abs().mean()
    assert by_tile > 0.03
    before = textures(tiles, 8).flatten(0, 2)
    after = textures((other * 255).round().to(torch.uint8), 8).flatten(0, 2)
    same = [float(torch.corrcoef(torch.stack([before[:, i], after[:, i]]))[0, 1]) for i in range(before.shape[1])]
    assert len(same) == 22
    assert min(same[1:4]) > 0.93  # energies of the optical density
    assert np.median(same) > 0.8


def test_textures_do_not_depend_on_which_way_up_a_tile_lies(tiles: torch.Tensor) -> None:
    told = textures(tiles, 8)
    torch.testing.assert_close(textures(tiles.flip(3), 8).flip(2), told, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(textures(tiles.transpose(2, 3), 8).transpose(1, 2), told, atol=2e-3, rtol=1e-3)
    flat = told.flatten(0, 2)
    torch.testing.assert_close(flat.mean(0), torch.zeros(flat.shape[1]), atol=1e-4, rtol=0)


def test_a_folder_reads_back_and_refuses_what_it_is_not(tmp_path: Path) -> None:
    network = SmallViT(SmallViTConfig(image_size=32, patch=16, width=8, n_heads=2, n_layers=1, hidden=16))
    write_folder(tmp_path, network)
    back = load(tmp_path)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(back(x), network(x))
    assert (back.image_size, back.patch, back.width, back.n_layers, back.prefix) == (32, 16, 8, 1, 1)
    with pytest.raises(DataError, match=r"\[n, 3, 32, 32\] is expected"):
        back(torch.rand(1, 3, 64, 64))
    settings = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(settings.replace('"width": 8', '"width": 16'))
    with pytest.raises(DataError, match="of another shape than config.json says"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(settings.replace("elute_vit", "vit"))
    with pytest.raises(DataError, match="is not of model_type elute_vit"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(settings.replace('"patch": 16', '"patch": 15'))
    with pytest.raises(ConfigError, match="do not tile"):
        load(tmp_path)
