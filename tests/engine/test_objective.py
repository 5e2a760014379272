"""What a dictionary learns from rows: parts add up, dead features begin anew, the price of firing finds k."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elute.arrays.planted import Planted, PlantedConfig
from elute.dictionaries.spec import DictionarySpec
from elute.engine.begin import begin, centre
from elute.engine.controls import hold_still
from elute.engine.normalise import Affine
from elute.engine.objective import DictionaryObjective
from elute.engine.optimizers import Adam
from elute.engine.parallel import Ranks
from elute.engine.settings import DeadConfig, LearnConfig

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, K = 32, 3


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    planted = Planted(PlantedConfig(n_features=64, width=WIDTH, active=K, noise=0.01, zipf=0.3))
    return planted.rows(0, 8192)[0]


def made(rows: torch.Tensor, activation: str = "topk", *, dead: DeadConfig | None = None, steps: int = 300, n: int = 96,
         batch: int = 256, **learn: Any) -> DictionaryObjective:  # fmt: skip
    spec = DictionarySpec(reads={"a": WIDTH}, writes={"a": WIDTH}, n_features=n, k=K, activation=activation)
    mean = rows.mean(0)
    size = float((rows - mean).square().sum(1).mean() / K) ** 0.5
    ones = torch.ones(WIDTH)
    by = {"a": Affine(mean, ones / size, ones * size)}
    settings = LearnConfig(**learn)
    dictionary = begin(spec, settings, seed=0)
    middle, spread = centre(dictionary, {"a": by["a"].apply(rows)}, settings)
    hold_still(dictionary.train(), settings.control)
    return DictionaryObjective(
        dictionary, learn=settings, dead=dead or DeadConfig(dead="none"), by=by, mean=middle, spread=spread,
        ranks=Ranks(), seed=0, steps=steps, rows_per_step=batch,
    )  # fmt: skip


def steps(
    objective: DictionaryObjective, rows: torch.Tensor, many: range, *, batch: int = 256, rate: float = 6e-3
) -> Adam:
    adam = Adam(objective.learnt)
    for step in many:
        start = step * batch % (len(rows) - batch)
        objective.gradient({"a": rows[start : start + batch]}, step=step, total_rows=batch)
        adam.step(rate)
        objective.after(step, objective.steps, adam)
    return adam


@pytest.mark.parametrize("activation", ["topk", "signed-topk", "jumprelu", "relu", "gated", "matching-pursuit"])
def test_parts_of_a_batch_add_up_to_the_whole(rows: torch.Tensor, activation: str) -> None:
    whole, parts = made(rows, activation, penalty=0.01), made(rows, activation, penalty=0.01)
    told = whole.gradient({"a": rows[:512]}, step=0, total_rows=512)
    sums: dict[str, float] = {}
    for start in range(0, 512, 128):
        for name, value in parts.gradient({"a": rows[start : start + 128]}, step=0, total_rows=512).items():
            sums[name] = sums.get(name, 0) + value
    for name, value in told.items():
        assert sums[name] == pytest.approx(value, rel=1e-5), name
    for p, q in zip(whole.learnt, parts.learnt, strict=True):
        assert p.grad.any() or p.name in ("b_dec", "banks.0.log_threshold") or activation == "matching-pursuit"
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=2e-6)
    assert np.array_equal(whole.usage.counts, parts.usage.counts)


@pytest.mark.parametrize("activation", ["topk", "relu"])
def test_the_loss_is_the_share_of_the_spread_that_is_left(rows: torch.Tensor, activation: str) -> None:
    objective = made(rows, activation, penalty=0.0)
    told = objective.gradient({"a": rows}, step=0, total_rows=len(rows))
    dictionary = objective.dictionary
    x = objective.by["a"].apply(rows)
    y = dictionary(x)
    fvu = float((x - y).square().sum() / (x - x.mean(0)).square().sum())
    assert told["loss"] == pytest.approx(fvu, rel=1e-4)
    assert 1 - told["squared"] / told["spread"] == pytest.approx(1 - fvu, abs=1e-4)
    assert told["l0"] / told["rows"] == pytest.approx(float((dictionary.encode(x).values != 0).sum(1).float().mean()))
    figures = objective.figures({**told, "steps": 1.0})
    assert figures["explained_variance"] == pytest.approx(1 - fvu, abs=1e-4)


def test_rows_that_are_not_centred_do_not_flatter() -> None:
    """Without normalisation a mean far from zero is no variance that was explained."""
    rows = torch.randn(2048, WIDTH, generator=torch.Generator().manual_seed(0)) + 30
    objective = made(rows)
    objective.by = {"a": Affine(torch.zeros(WIDTH), torch.ones(WIDTH), torch.ones(WIDTH))}
    objective.mean, objective.spread = centre(objective.dictionary, {"a": rows}, LearnConfig())
    told = objective.gradient({"a": rows}, step=0, total_rows=2048)
    assert told["spread"] == pytest.approx(float((rows - rows.mean(0)).square().sum()), rel=1e-3)


def test_fewer_features_fire_as_the_schedule_says(rows: torch.Tensor) -> None:
    objective = made(rows, steps=100, k_start=20, k_until=0.5)
    found = [objective.gradient({"a": rows[:64]}, step=s, total_rows=64)["l0"] / 64 for s in (0, 25, 49, 50, 99)]
    assert found == pytest.approx([20, round(20 - 17 / 2), 3, 3, 3], abs=0.05)


def test_dead_features_begin_anew_in_weights_and_moments(rows: torch.Tensor) -> None:
    """In the parameters themselves: writing into what boolean indexing returns would change a copy."""
    dead = DeadConfig(dead="resample", dead_after_rows=5 * 256, resample_every=10, resample_until=1.0)
    objective = made(rows, dead=dead)
    bank = next(iter(objective.dictionary.requires_grad_(requires_grad=False)))
    silent = torch.tensor([3, 50, 95])
    bank.b_enc[silent] = -1000
    steps(objective, rows, range(10))
    before = {p.name: p.value.clone() for p in objective.learnt}
    adam = Adam(objective.learnt)
    for moments in (adam.first, adam.second):
        for t in moments.values():
            t.fill_(0.5)
    assert (objective.usage.last[silent.numpy()] == -1).all()
    silent_now = objective._dead(10)[0]
    assert set(silent.tolist()) <= set(silent_now.tolist())
    objective.gradient({"a": rows[:256]}, step=10, total_rows=256)
    assert objective.last is not None
    error = -objective.last[1].error
    objective.after(10, objective.steps, adam)
    others = torch.ones(96, dtype=torch.bool)
    others[silent_now] = False
    unit = torch.nn.functional.normalize(error, dim=1)
    length = before["banks.0.W_enc"][others].norm(dim=1).mean()
    for feature in silent_now:
        assert float((unit @ bank.W_dec[feature]).max()) == pytest.approx(1, abs=1e-5), "a row's error"
        torch.testing.assert_close(bank.W_enc[feature], bank.W_dec[feature] * length, rtol=1e-4, atol=1e-6)
        assert bank.b_enc[feature] == 0
    assert len({tuple(r) for r in bank.W_dec[silent_now].tolist()}) == len(silent_now), "each another row"
    for p in objective.learnt:
        if p.name.startswith("banks."):
            assert not adam.first[p.name][silent_now].any()
            assert not adam.second[p.name][silent_now].any()
            assert torch.equal(p.value[others], before[p.name][others])
            assert (adam.first[p.name][others] == 0.5).all()
    # Silence counts anew from here.
    assert not set(objective._dead(11)[0].tolist()) & set(silent_now.tolist())
    assert (objective.born[silent_now.numpy()] == 11).all()


def test_a_jump_that_begins_anew_has_a_fresh_threshold(rows: torch.Tensor) -> None:
    dead = DeadConfig(dead="resample", dead_after_rows=256, resample_every=5, resample_until=1.0)
    objective = made(rows, "jumprelu", dead=dead)
    bank = next(iter(objective.dictionary))
    start = bank.log_threshold[0].item()
    with torch.no_grad():
        bank.log_threshold[7] = 9.0
        bank.log_threshold[8] = -2.0
    objective.usage.last[:] = 4
    objective.usage.last[7] = -1
    steps(objective, rows, range(5, 6))
    assert bank.log_threshold[7].item() == pytest.approx(start)
    assert bank.log_threshold[8].item() == pytest.approx(-2.0, abs=0.1)


def test_dead_features_learn_from_the_error(rows: torch.Tensor) -> None:
    dead = DeadConfig(dead="auxk", dead_after_rows=256, aux_k=4)
    objective = made(rows, dead=dead)
    bank = next(iter(objective.dictionary))
    objective.usage.last[:] = 9
    objective.usage.last[5] = -1
    with torch.no_grad():  # above zero, and never among the three strongest
        bank.W_enc[5] *= 1e-3
        bank.b_enc[5] = 1e-3
    told = objective.gradient({"a": rows[:256]}, step=10, total_rows=256)
    assert objective.fired[0][5] == 1, "sparse-adam moves it too"
    assert objective.learnt[0].grad is not None
    grads = {p.name: p.grad for p in objective.learnt}
    assert grads["banks.0.W_dec"][5].any()
    alone = made(rows)
    alone.dictionary.load_state_dict(objective.dictionary.state_dict())
    plain = alone.gradient({"a": rows[:256]}, step=10, total_rows=256)
    assert 1 / 32 * 0.3 < (told["loss"] - plain["loss"]) / plain["loss"] <= 1 / 32 * 1.01
    assert not {p.name: p.grad for p in alone.learnt}["banks.0.W_dec"][5].any()


@pytest.mark.parametrize(
    ("activation", "low", "high"), [("relu", 2.4, 4.2), ("gated", 2.4, 4.2), ("jumprelu", 1.8, 4.8)]
)
def test_the_price_brings_k_features_to_fire(rows: torch.Tensor, activation: str, low: float, high: float) -> None:
    objective = made(rows, activation, steps=700)
    steps(objective, rows, range(700), batch=48, rate=8e-3)
    told = objective.gradient({"a": rows}, step=700, total_rows=len(rows))
    assert low < told["l0"] / told["rows"] < high
    assert 1 - told["squared"] / told["spread"] > 0.6, "and they are worth something"
    assert 1e-3 < objective.price < 1.0


def test_the_price_stays_within_reason_where_k_is_out_of_reach(rows: torch.Tensor) -> None:
    """What is charged never exceeds the spread by far, so that the price can come down again in time."""
    objective = made(rows, "jumprelu", steps=200)
    steps(objective, rows, range(200), batch=16, rate=1e-6)
    assert objective.charged < 1.2
    fixed = made(rows, "jumprelu", penalty=0.25)
    steps(fixed, rows, range(3))
    assert fixed.price == 0.25


def test_the_decoders_rows_return_to_length_one_when_they_are_due(rows: torch.Tensor) -> None:
    assert [p.name for p in made(rows).learnt if p.unit] == ["banks.0.W_dec"]
    assert not [p for p in made(rows, re_norm_interval=0).learnt if p.unit]


def test_a_tied_encoder_follows_its_decoder(rows: torch.Tensor) -> None:
    objective = made(rows, "matching-pursuit")
    bank = next(iter(objective.dictionary))
    before = bank.W_dec.clone()
    steps(objective, rows, range(3))
    assert torch.equal(bank.W_enc, bank.W_dec)
    assert not torch.equal(bank.W_dec, before)


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu", "gated"])
def test_a_state_goes_on_to_the_same_bits(rows: torch.Tensor, activation: str, tmp_path: Path) -> None:
    dead = DeadConfig(dead="both", dead_after_rows=512, resample_every=4)
    whole, first, second = (made(rows, activation, dead=dead, steps=40) for _ in range(3))
    adam = steps(whole, rows, range(12))
    early = steps(first, rows, range(7))
    second.dictionary.load_state_dict(first.dictionary.state_dict())
    second.load_state(first.state())
    late = Adam(second.learnt)
    late.load_state(early.state())
    for step in range(7, 12):
        start = step * 256 % (len(rows) - 256)
        second.gradient({"a": rows[start : start + 256]}, step=step, total_rows=256)
        late.step(6e-3)
        second.after(step, 40, late)
    for p, q in zip(whole.learnt, second.learnt, strict=True):
        assert torch.equal(p.value, q.value), p.name
        assert torch.equal(adam.first[p.name], late.first[p.name])
    for name, value in whole.state().items():
        assert np.array_equal(second.state()[name], value), name
