"""Controls: what they hold still is still to the bit, what they shuffle is shuffled, and none of them finds anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from elute.arrays.planted import PlantedConfig, write_store
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import load_dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.engine.begin import begin
from elute.engine.controls import hold_still, shuffled_columns, shuffled_rows
from elute.engine.evaluate import evaluate
from elute.engine.fit import FitConfig
from elute.engine.settings import DeadConfig, DictionaryConfig, EvalConfig, LearnConfig
from elute.engine.train import Training, train
from elute.store.reader import Store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write_store(
        folder, PlantedConfig(n_features=64, width=32, active=3, noise=0.01, zipf=0.3, rows=12_000, truth_rows=0)
    )
    return folder


def run(planted: Path, output: Path, control: str, *, steps: int = 400, activation: str = "topk") -> Dictionary:
    training = Training(
        DictionaryConfig(n_features=96, k=3, activation=activation),
        LearnConfig(control=control),  # type: ignore[arg-type]
        FitConfig(steps=steps, batch_size=256, lr=6e-3),
        DeadConfig(dead_after_rows=5000),
    )
    train(planted, output, training)
    return load_dictionary(output)


def test_the_trained_one_finds_what_was_planted_and_no_control_does(planted: Path, tmp_path: Path) -> None:
    config = EvalConfig(truth=planted / "truth.npy")
    found = {}
    for control in ("none", "frozen-decoder", "random-decoder", "shuffled-rows"):
        dictionary = run(planted, tmp_path / control, control, steps=400 if control == "none" else 100)
        assert dictionary.spec.source["control"] == control
        found[control] = evaluate(dictionary, Store(planted), config)
    assert found["none"]["recovered_fraction"] > 0.9
    assert found["none"]["explained_variance"] > 0.85
    assert [found[c]["recovered_fraction"] for c in found if c != "none"] == [0, 0, 0]
    assert all(answer["control"]["recovered_fraction"] == 0 for answer in found.values())


@pytest.mark.parametrize("activation", ["topk", "jumprelu", "gated", "matching-pursuit"])
@pytest.mark.parametrize("control", ["frozen-decoder", "random-decoder"])
def test_directions_stay_as_they_were_drawn(planted: Path, tmp_path: Path, control: str, activation: str) -> None:
    got = run(planted, tmp_path / "run", control, steps=25, activation=activation)
    learn = LearnConfig(control=control)  # type: ignore[arg-type]
    before = next(iter(begin(got.spec, learn, seed=0)))
    after = next(iter(got))
    # Folding multiplies all of W_dec by one number and divides all of W_enc by it.
    scale = after.W_dec[0, 0] / before.W_dec[0, 0]
    torch.testing.assert_close(after.W_dec, before.W_dec * scale, rtol=1e-6, atol=0)
    held = bool(torch.isclose(after.W_enc, before.W_enc / scale, rtol=1e-5).all())
    assert held == (control == "random-decoder" or activation == "matching-pursuit")


def test_what_is_held_is_the_same_to_the_bit() -> None:
    spec = DictionarySpec(reads={"a": 8}, writes={"a": 8}, n_features=16, k=2)
    dictionary = begin(spec, LearnConfig(), seed=0)
    assert not hold_still(dictionary, "none")
    assert all(p.requires_grad for p in dictionary.parameters())
    assert hold_still(dictionary, "frozen-decoder")
    assert {n for n, p in dictionary.named_parameters() if not p.requires_grad} == {"banks.0.W_dec"}
    assert hold_still(dictionary, "random-decoder")
    assert {n for n, p in dictionary.named_parameters() if p.requires_grad} == {"banks.0.b_enc", "b_dec"}


def test_columns_keep_their_values_and_lose_each_other() -> None:
    random = torch.Generator().manual_seed(0)
    common = torch.randn(2000, 1, generator=random)
    x = common + 0.1 * torch.randn(2000, 6, generator=random)
    shuffled = shuffled_columns(x, seed=(1, 2))
    assert torch.equal(shuffled.sort(dim=0).values, x.sort(dim=0).values)
    assert np.corrcoef(x.T)[np.triu_indices(6, 1)].min() > 0.98
    assert np.abs(np.corrcoef(shuffled.T)[np.triu_indices(6, 1)]).max() < 0.1
    assert torch.equal(shuffled, shuffled_columns(x, seed=(1, 2)))
    assert not torch.equal(shuffled, shuffled_columns(x, seed=(1, 3)))


def test_rows_are_shuffled_as_a_whole() -> None:
    x = torch.arange(300.0).reshape(100, 3)
    shuffled = shuffled_rows(x, seed=(1,))
    assert torch.equal(shuffled[shuffled[:, 0].argsort()], x)
    assert not torch.equal(shuffled, x)
