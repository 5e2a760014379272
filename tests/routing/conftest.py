"""A tiny policy that has learnt something, and pairs of it, made once for all tests of routing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: three layers of width 16 that were trained on 8 nodes; nothing may be written into it."""
    import torch

    from elute.models.routing.settings import PolicyConfig
    from elute.routing.policy_settings import PolicyTrainConfig
    from elute.routing.training import train_policy

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = PolicyTrainConfig(num_loc=8, steps=60, batch_size=16, epochs=2, held_out=50, lr=5e-3)
    train_policy(folder, config, PolicyConfig(embed_dim=16, num_heads=2, feedforward_hidden=32))
    torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="session")
def tiny_pairs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that run with pairs of 60 instances: L0 to L2, L1 to output, the first MLP, output to query."""
    from elute.routing.collecting import collect_pairs
    from elute.routing.pair_settings import PairsConfig

    folder = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("paired") / "tiny"))
    pairs = (
        "encoder_layer_0:encoder_layer_2,encoder_layer_1:encoder_output,"
        "encoder_layer_0.mlp.input:encoder_layer_0.mlp,encoder_output:decoder_query"
    )
    collect_pairs(folder, PairsConfig(layer_pairs=pairs, num_instances_per_pair=60), device="cpu")
    return folder


@pytest.fixture
def own_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to write into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "tiny"))


@pytest.fixture
def own_pairs(tiny_pairs: Path, tmp_path: Path) -> Path:
    """A copy of the run with its pairs, to write into."""
    return Path(shutil.copytree(tiny_pairs, tmp_path / "tiny"))
