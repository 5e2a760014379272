"""One thread, and what several tests of graphs share."""

from __future__ import annotations

import pytest
import torch
from tests.graphs.planted import Planted, plant

from elute.base.contracts import Site
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.graphs.layers import Layers
from elute.models.module import TorchModel


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def known() -> Planted:
    return plant()


def drawn(spec: DictionarySpec, seed: int = 0) -> Dictionary:
    """A dictionary of random weights in float64: whatever it cannot say is an error."""
    generator = torch.Generator().manual_seed(seed)
    made = Dictionary(spec).double()
    for name, x in made.named_parameters():
        scale = 0.05 if name == "W_skip" else 0.1 if name.startswith("b_") else 0.3
        x.data = scale * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    for bank in made:
        if "log_threshold" in bank.extra:
            bank.log_threshold.data.fill_(-1.0)
    return made.requires_grad_(False).eval()


def transcoders(layers: Layers, width: int, *, features: int = 24, **settings: object) -> list[Dictionary]:
    given = {"activation": "topk", "k": 4, **settings}
    return [
        drawn(DictionarySpec(kind="transcoder", reads={r: width}, writes={w: width}, n_features=features, **given), i)
        for i, (r, w) in enumerate(zip(layers.reads, layers.writes, strict=True))
    ]


def crosslayer(layers: Layers, width: int, *, features: int = 24, **settings: object) -> Dictionary:
    given = {"activation": "topk", "k": 4, **settings}
    reads, writes = (dict.fromkeys(names, width) for names in (layers.reads, layers.writes))
    return drawn(DictionarySpec(kind="clt", reads=reads, writes=writes, n_features=features, **given))


def named(model: TorchModel, path: str, name: str, at: str = "output") -> TorchModel:
    """The same model with one site more."""
    model.sites = {**model.sites, name: Site(path, at)}
    return model
