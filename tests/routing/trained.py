"""A tiny run whose pairs have dictionaries, made once for all tests of cause."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch

from elute.engine.fit import FitConfig
from elute.engine.settings import DictionaryConfig, LearnConfig
from elute.engine.train import Training, train
from elute.models.routing_policy import RoutingModel, load
from elute.routing.cause_inputs import Subject, held_out, open_subject
from elute.routing.cause_settings import JudgedConfig
from elute.routing.collecting import collect_pairs
from elute.routing.measuring import Reference, reference
from elute.routing.pair_settings import PairsConfig
from elute.routing.pairs import open_pair

MLP, LAYERS, FIRST, STEPS = "clt_L1_mlp_input_to_L1_mlp", "clt_L0_to_L2", "clt_L0_to_L1", "clt_output_to_query"
CLT = "clt_L0-L1-L2_mlp_input_to_L0-L1-L2_mlp"
NAMES = ("clt_L0_mlp_input_to_L0_mlp", MLP, LAYERS, FIRST, STEPS, CLT)
_PARTS = [f"encoder_layer_{i}.mlp" for i in range(3)]
SITES = ",".join(
    [
        *(f"{part}.input:{part}" for part in _PARTS[:2]),
        "encoder_layer_0:encoder_layer_2,encoder_layer_0:encoder_layer_1,encoder_output:decoder_query",
        "+".join(f"{part}.input" for part in _PARTS) + ":" + "+".join(_PARTS),
    ]
)
SMALL = JudgedConfig(instances=24, batch=10, resamples=100, device="cpu")


def train_tiny(run: Path, name: str, *, steps: int = 120, seed: int = 0, folder: str = "20260101_000000") -> Path:
    pair = open_pair(run, name)
    many = len(pair.spec.sources) > 1
    training = Training(
        dictionary=DictionaryConfig(
            kind="clt" if many else "transcoder", reads=pair.spec.source_sites, writes=pair.spec.target_sites,
            n_features=24, k=4, activation="jumprelu" if many else "topk",
        ),
        learn=LearnConfig(normalise="standard", device="cpu"),
        fit=FitConfig(steps=steps, batch_size=128, seed=seed),
    )  # fmt: skip
    home = run / "clt" / "clt_runs" / pair.name
    train(pair.folder, home / folder, training)
    (home / "latest").unlink(missing_ok=True)
    (home / "latest").symlink_to(folder, target_is_directory=True)
    return home / folder


@cache
def _made(tiny_run: Path, place: Path) -> Path:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = Path(shutil.copytree(tiny_run, place / "tiny"))
    collect_pairs(folder, PairsConfig(layer_pairs=SITES, num_instances_per_pair=80), device="cpu")
    for name in NAMES:
        train_tiny(folder, name)
    torch.set_num_threads(before)
    return folder


_place: list[Path] = []


@pytest.fixture(scope="session", name="trained")
def trained_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with its dictionaries; nothing may be written into it."""
    if not _place:
        _place.append(tmp_path_factory.mktemp("trained"))
    return _made(tiny_run, _place[0])


@pytest.fixture(name="own")
def own_trained(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to write into."""
    return Path(shutil.copytree(trained, tmp_path / "tiny", symlinks=True))


@pytest.fixture(scope="session", name="model")
def trained_model(trained: Path) -> RoutingModel:
    return load(trained, device="cpu")


def subject_of(run: Path, model: RoutingModel, name: str) -> Subject:
    return open_subject(run, name, model=model)


@pytest.fixture(scope="session", name="ref")
def trained_reference(trained: Path, model: RoutingModel) -> Reference:
    return reference(model, held_out(trained, SMALL))
