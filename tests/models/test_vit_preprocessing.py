"""Pictures become numbers as the transformers library makes them; views are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elute.base.errors import ConfigError, DamagedError
from elute.models.vision import augmenting
from elute.models.vision.preprocessing import Preprocessing, read_preprocessing

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2,
            "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    "phikon": {"do_resize": True, "size": {"height": 40, "width": 40}, "resample": 2, **IMAGENET},
    "dinov2": {"do_resize": True, "size": {"shortest_edge": 48}, "do_center_crop": True,
               "crop_size": {"height": 40, "width": 40}, "resample": 3, **IMAGENET},
    "plain": {"do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_normalize": False},
}  # fmt: skip


def picture(height: int = 50, width: int = 50) -> np.ndarray:
    x = np.random.default_rng(3).integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
    return x.repeat(5, 0).repeat(5, 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_the_library_makes_of_the_same_settings(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = CONFIGS[name]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    made = read_preprocessing(tmp_path, 32)
    assert made is not None
    kind = "BitImageProcessorPil" if "do_center_crop" in config else "ViTImageProcessorPil"
    if not hasattr(transformers, kind):
        pytest.skip(f"this transformers has no {kind}")
    theirs = getattr(transformers, kind)(**{**config, "do_convert_rgb": None})
    pictures = [picture(), picture()[::-1].copy()]
    wanted = np.stack([np.asarray(x) for x in theirs(pictures)["pixel_values"]])
    ours = made.numbers([made.square(x) for x in pictures])
    np.testing.assert_allclose(ours.numpy(), wanted, atol=2e-6)


def test_by_hand() -> None:
    grey = np.full((4, 4, 3), 51, np.uint8)
    made = Preprocessing(2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    x = made.numbers([made.square(grey)])
    assert x.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(x[0, :, 0, 0].numpy(), [0.2, 0.0, -0.1], atol=1e-6)
    assert x.dtype == torch.float32


def test_cutting_the_middle_out_and_what_is_seen_of_it() -> None:
    x = np.zeros((100, 100, 3), np.uint8)
    x[25:75, 25:75] = 200
    made = Preprocessing(50, edge=100)
    assert (made.square(x) == 200).all()
    assert made.seen(100, 100) == (25, 25, 75, 75)
    assert Preprocessing(50).seen(100, 100) == (0, 0, 100, 100)
    whole = made.changed(size=None, crop=False)
    assert (whole.edge, whole.size) == (None, 50)
    assert made.changed(size=80, crop=None).edge == 160
    assert Preprocessing(224).changed(size=None, crop=True).edge == 256


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ({"size": {"height": 10, "width": 20}}, "20 × 10, and tiles are square"),
        ({"size": {"longest": 3}}, "KeyError"),
        ({"size": {"height": 8, "width": 8}, "image_mean": [0.5], "image_std": [1]}, "not three numbers"),
        ({"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0, 1, 1]}, "cannot be"),
        ({"size": 8, "resample": 9}, "resample is 9"),
        ([], "is no model's preprocessing"),
    ],
)
def test_settings_that_cannot_be_followed(held: Any, told: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(held))
    with pytest.raises(DamagedError, match=told):
        read_preprocessing(tmp_path, 32)
    assert read_preprocessing(tmp_path / "nowhere", 32) is None


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="size 8, edge 4"):
        Preprocessing(8, edge=4)


def test_the_eight_turns_are_eight_and_places_go_with_them() -> None:
    x = np.arange(16 * 3).reshape(4, 4, 3).astype(np.uint8)
    views = [augmenting.turned(x, turn) for turn in range(8)]
    assert len({view.tobytes() for view in views}) == 8
    for turn, view in enumerate(views):
        places = augmenting.places(4, 4, turn)
        assert np.array_equal(view.reshape(16, 3), x[places[:, 0], places[:, 1]])


def test_a_view_is_fixed_by_seed_epoch_and_name() -> None:
    seeds = {
        augmenting.view_seed(*given)
        for given in ((0, 1, "a", "b"), (1, 1, "a", "b"), (0, 2, "a", "b"), (0, 1, "ab", ""))
    }
    assert len(seeds) == 4
    assert augmenting.view_seed(7, 0, "a") == 0
    x = picture()
    assert augmenting.view(x, "stain", 0) is x


def test_a_stain_is_made_stronger_or_weaker_and_glass_stays_white() -> None:
    haematoxylin = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
    dense = np.exp(-0.8 * haematoxylin) * 256 - 1
    x = np.full((8, 8, 3), 255, np.uint8)
    x[:4] = dense.round()
    factors = np.random.default_rng(12).uniform(0.75, 1.25, 2)
    made = augmenting.stained(x, 12)
    assert (made[4:] == 255).all()
    wanted = np.exp(-0.8 * factors[0] * haematoxylin) * 256 - 1
    np.testing.assert_allclose(made[0, 0], wanted, atol=2)
    assert augmenting.stained(x, 13)[0, 0].tolist() != made[0, 0].tolist()
