"""Slots and activations: what fires in a row, in training and at inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from elute.dictionaries import batchtopk, jumprelu, ops
from elute.dictionaries.bank import Bank
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.sparsity import Slots, above, fire, pack, scattered, stack
from elute.dictionaries.spec import DictionarySpec


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(activation: str, *, width: int = 6, features: int = 50, k: int = 3, **settings: float) -> Dictionary:
    sites = {"x": width}
    spec = DictionarySpec(reads=sites, writes=sites, n_features=features, k=k, activation=activation, settings=settings)
    dictionary = Dictionary(spec)
    with torch.no_grad():
        for p in dictionary.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    return dictionary


def bank_of(dictionary: Dictionary) -> Bank:
    return next(iter(dictionary))


def pre_of(bank: Bank, x: Tensor) -> Tensor:
    return (x @ bank.W_enc.T + bank.b_enc).detach()


def dense(slots: Slots, features: int) -> Tensor:
    idx, val = slots
    return val.new_zeros(len(val), features).scatter_add(1, idx.long(), val)


# Slots


def test_packed_values_come_back_in_order_of_index() -> None:
    values = torch.tensor([[0.0, 2.0, 0.0, -3.0], [0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]])
    idx, val = pack(values)
    assert idx.dtype == torch.int32
    assert idx.tolist() == [[1, 3], [0, 0], [0, 0]]
    assert val.tolist() == [[2.0, -3.0], [0.0, 0.0], [5.0, 0.0]]


@pytest.mark.parametrize(("shape", "slots"), [((0, 4), (0, 0)), ((3, 4), (3, 0))])
def test_nothing_packs_to_no_slots(shape: tuple[int, int], slots: tuple[int, int]) -> None:
    idx, val = pack(torch.zeros(shape))
    assert tuple(idx.shape) == tuple(val.shape) == slots


def test_stacked_slots_are_filled_up_with_empty_ones() -> None:
    parts = [torch.tensor([[0.0, 1.0, 2.0]]), torch.zeros(2, 3), torch.tensor([[4.0, 0.0, 0.0]])]
    idx, val = stack([pack(part) for part in parts])
    assert val.shape == (4, 2)
    assert torch.equal(dense((idx, val), 3), torch.cat(parts))


def test_scattered_keeps_what_was_chosen_and_its_gradient() -> None:
    pre = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    kept = scattered(torch.tensor([[2, 0]]), pre)
    assert kept.tolist() == [[1.0, 0.0, 3.0]]
    (kept * torch.tensor([[5.0, 6.0, 7.0]])).sum().backward()
    assert pre.grad is not None
    assert pre.grad.tolist() == [[5.0, 0.0, 7.0]]


def test_what_overflows_below_zero_does_not_fire() -> None:
    bank = bank_of(make("relu"))
    with torch.no_grad():
        bank.b_enc[3] = -torch.inf
        bank.b_enc[4] = torch.inf
    idx, val = above(bank, torch.randn(5, 6), torch.tensor(0.0))
    found = dense((idx, val), 50)
    assert not bool(found.isnan().any())
    assert bool((found[:, 4] == torch.inf).all())


@pytest.mark.parametrize("activation", ["relu", "gated"])
def test_codes_do_not_depend_on_how_rows_are_cut(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a way of its own, what fires is taken from the dense values, a piece of rows at a time."""
    dictionary = make(activation)
    x = torch.randn(600, 6)
    whole = dictionary.encode(x).dense()
    parts = [dictionary.encode(x[a : a + 7]).dense() for a in range(0, 600, 7)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


# ReLU, JumpReLU, gated


def test_relu_charges_strength_times_norm() -> None:
    dictionary = make("relu")
    bank, x = bank_of(dictionary), torch.randn(8, 6)
    values, penalty = dictionary.sparsity.dense(bank, x, 3)
    assert torch.equal(values.detach(), pre_of(bank, x).relu())
    wanted = (pre_of(bank, x).relu() * bank.W_dec.norm(dim=1)).sum(1)
    assert penalty is not None
    assert torch.allclose(penalty, wanted)


def test_jumprelu_fires_above_its_thresholds_with_the_whole_value() -> None:
    dictionary = make("jumprelu")
    bank, x = bank_of(dictionary), torch.randn(300, 6)
    with torch.no_grad():
        bank.log_threshold.copy_(torch.linspace(-5, 0, 50))
    pre = pre_of(bank, x)
    wanted = torch.where(pre > bank.log_threshold.exp(), pre, 0)
    assert torch.allclose(dictionary.encode(x).dense(), wanted, atol=1e-6)
    values, penalty = dictionary.sparsity.dense(bank, x, 3)
    assert torch.allclose(values.detach(), wanted)
    assert penalty is not None
    assert torch.equal(penalty.detach(), (wanted > 0).sum(1).float())


def test_jumprelus_thresholds_begin_at_a_small_number() -> None:
    fresh = Dictionary(make("jumprelu").spec)
    assert torch.allclose(bank_of(fresh).log_threshold.exp(), torch.tensor(jumprelu.START))
    assert bank_of(fresh).log_threshold.requires_grad


@pytest.mark.parametrize("activation", ["jumprelu", "gated"])
def test_numbers_of_each_feature_are_learnt_also_where_there_is_one_feature(activation: str) -> None:
    fresh = make(activation, features=1, k=1)
    assert not list(fresh.buffers())
    assert len([*bank_of(fresh).parameters()]) > 3


def test_gated_is_a_gate_and_a_strength() -> None:
    dictionary = make("gated")
    bank, x = bank_of(dictionary), torch.randn(300, 6)
    product = (x @ bank.W_enc.T).detach()
    gate = product + bank.b_enc
    strength = (product * bank.r_mag.exp() + bank.b_mag).relu()
    wanted = torch.where(gate > 0, strength, 0).detach()
    assert torch.allclose(dictionary.encode(x).dense(), wanted, atol=1e-6)
    assert bool(((gate > 0) & (strength == 0)).any()), "the two must be able to differ"
    assert bool(((gate <= 0) & (strength > 0)).any())


# BatchTopK


def chosen(dictionary: Dictionary, x: Tensor, k: int = 3) -> Tensor:
    bank = bank_of(dictionary)
    return dense(batchtopk.DICTIONARY.choose(bank, x, k), dictionary.n_features)  # type: ignore[misc]


@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_batchtopk_fires_k_times_n_and_the_strongest(n: int, k: int) -> None:
    dictionary = make("batchtopk", k=k).double()
    with torch.no_grad():
        bank_of(dictionary).b_enc += 2  # enough are positive
    x = torch.randn(n, 6).double()
    pre = pre_of(bank_of(dictionary), x).relu()
    got = chosen(dictionary, x, k)
    least = pre.flatten().sort(descending=True).values[k * n - 1]
    assert int((got > 0).sum()) == k * n
    assert torch.allclose(got, torch.where(pre >= least, pre, 0), rtol=1e-12, atol=0)


def test_a_row_that_wants_more_than_it_offered_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def strongest(*args: Any, k: int, **more: Any) -> Slots:
        asked.append(k)
        return ops.strongest(*args, k=k, **more)

    monkeypatch.setattr(batchtopk, "strongest", strongest)
    dictionary = make("batchtopk", k=2)
    bank = bank_of(dictionary)
    with torch.no_grad():
        bank.b_enc.fill_(0.1)
    x = torch.zeros(30, 6)
    x[7] = 0.01 * torch.randn(6)  # everything fires about alike: no threshold divides this row's from the others'
    x[8] = 100 * torch.ones(6)
    with torch.no_grad():
        bank.W_enc.abs_()
    got = chosen(dictionary, x, 2)
    assert asked == [8, 16, 32, 50]
    assert int((got[8] > 0).sum()) == 50
    pre = pre_of(bank, x)
    least = pre.flatten().sort(descending=True).values[59]
    assert torch.allclose(got, torch.where(pre >= least, pre, 0))


def test_rows_content_with_their_offer_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def strongest(*args: Any, k: int, **more: Any) -> Slots:
        asked.append(k)
        return ops.strongest(*args, k=k, **more)

    monkeypatch.setattr(batchtopk, "strongest", strongest)
    chosen(make("batchtopk", k=3), torch.randn(200, 6))
    assert asked == [12]


def test_fewer_fire_where_fewer_are_positive() -> None:
    dictionary = make("batchtopk", k=12)
    bank = bank_of(dictionary)
    with torch.no_grad():
        bank.b_enc -= 1.2
    x = torch.randn(40, 6)
    pre = pre_of(bank, x).relu()
    assert 0 < int((pre > 0).sum()) < 12 * 40
    assert torch.allclose(chosen(dictionary, x, 12), pre, atol=1e-6)


def test_the_threshold_is_learnt_in_training_alone() -> None:
    dictionary = make("batchtopk", k=3)
    bank = bank_of(dictionary)
    batches = [torch.randn(64, 6) for _ in range(4)]
    cuts = [float(pre_of(bank, x).relu().flatten().topk(3 * 64).values[-1]) for x in batches]
    assert float(bank.threshold) == -1
    dictionary.eval()
    chosen(dictionary, batches[0])
    assert float(bank.threshold) == -1
    dictionary.train()
    chosen(dictionary, batches[0])
    assert float(bank.threshold) == pytest.approx(cuts[0])  # the first as it is
    running = cuts[0]
    for x, cut in zip(batches[1:], cuts[1:], strict=True):
        chosen(dictionary, x)
        running = 0.99 * running + 0.01 * cut
    assert float(bank.threshold) == pytest.approx(running)
    assert "threshold" not in dict(bank.named_parameters())


def test_at_inference_a_row_stands_alone() -> None:
    dictionary = make("batchtopk", k=3)
    x = torch.randn(200, 6)
    for _ in range(3):
        chosen(dictionary, x)
    dictionary.eval()
    bank = bank_of(dictionary)
    together = dictionary.encode(x).dense()
    alone = torch.cat([dictionary.encode(row[None]).dense() for row in x])
    assert torch.allclose(together, alone, atol=1e-6)
    pre = pre_of(bank, x)
    assert torch.allclose(together, torch.where(pre > bank.threshold, pre, 0), atol=1e-6)
    assert float((together > 0).sum(1).float().mean()) == pytest.approx(3, rel=0.1)
    assert len({int(n) for n in (together > 0).sum(1)}) > 2  # rows take what they need


class Others:
    """Another rank, with rows of its own."""

    rank = 0

    def __init__(self, offers: Tensor, *, wants: bool) -> None:
        self.offers, self.wants = offers, wants
        self.asked = 0

    def any(self, flag: bool) -> bool:
        self.asked += 1
        return flag or (self.wants and self.asked == 1)

    def gather(self, values: Tensor) -> Tensor:
        width = len(values) // 20
        return torch.cat([values, self.offers.relu().topk(width, dim=1).values.reshape(-1)])


@pytest.mark.parametrize("wants", [False, True])
def test_the_threshold_is_that_of_all_ranks(wants: bool) -> None:
    dictionary = make("batchtopk", k=3)
    bank = bank_of(dictionary)
    x, elsewhere = torch.randn(20, 6), torch.randn(11, 6)
    bank.ranks = Others(pre_of(bank, elsewhere), wants=wants)  # type: ignore[assignment]
    got = chosen(dictionary, x)
    pre = pre_of(bank, torch.cat([x, elsewhere])).relu()
    least = pre.flatten().topk(3 * 31).values[-1]
    assert torch.allclose(got, torch.where(pre >= least, pre, 0)[:20], atol=1e-6)
    assert float(bank.threshold) == pytest.approx(float(least))
    assert bank.ranks.asked == (2 if wants else 1)  # type: ignore[attr-defined]


def test_no_rows_choose_nothing_when_others_have_some() -> None:
    dictionary = make("batchtopk", k=3)
    bank = bank_of(dictionary)
    bank.gathered = lambda values: torch.cat([values, torch.rand(12)])  # type: ignore[method-assign]
    idx, val = batchtopk.DICTIONARY.choose(bank, torch.zeros(0, 6), 3)  # type: ignore[misc]
    assert idx.shape == val.shape == (0, 0)


# Matching pursuit


def orthonormal(width: int = 24, features: int = 12) -> Tensor:
    return torch.linalg.qr(torch.randn(width, features).double()).Q.T.float()


def pursuing(directions: Tensor, k: int) -> Dictionary:
    dictionary = make("matching-pursuit", width=directions.shape[1], features=len(directions), k=k)
    bank = bank_of(dictionary)
    with torch.no_grad():
        bank.W_dec.copy_(directions)
        bank.W_enc.copy_(directions)
        bank.b_enc.zero_()
        dictionary.b_dec.zero_()
    return dictionary.eval()


def planted(n: int, features: int, k: int) -> Tensor:
    codes = torch.zeros(n, features)
    for row in codes:
        row[torch.randperm(features)[: int(torch.randint(1, k + 1, ()))]] = torch.rand(1) + 0.5
    return codes


def test_pursuit_recovers_codes_of_orthonormal_directions() -> None:
    directions, codes = orthonormal(), planted(60, 12, 4)
    dictionary = pursuing(directions, 4)
    assert torch.allclose(dictionary.encode(codes @ directions).dense(), codes, atol=1e-5)
    assert torch.allclose(dictionary(codes @ directions), codes @ directions, atol=1e-5)


def test_pursuit_reads_codes_out_of_any_dictionary_that_writes_what_it_reads() -> None:
    """Also where one shot at the strengths is wrong: two directions that overlap."""
    directions = orthonormal()
    directions[1] = 0.8 * directions[0] + 0.6 * directions[1]
    codes = torch.zeros(3, 12)
    codes[0, 0], codes[1, 1], codes[2, [0, 5]] = 2.0, 1.0, 1.0
    dictionary = make("topk", width=24, features=12, k=2)
    bank = bank_of(dictionary)
    with torch.no_grad():
        for W in (bank.W_enc, bank.W_dec):
            W.copy_(directions)
        bank.b_enc.zero_()
    x = codes @ directions
    assert torch.allclose(dictionary.encode(x, encoder="pursuit").dense(), codes, atol=1e-5)
    assert not torch.allclose(dictionary.encode(x).dense(), codes, atol=1e-1)


def test_a_feature_that_is_taken_again_adds_to_its_value() -> None:
    """Directions shorter than 1 leave some of themselves over."""
    dictionary = pursuing(0.7 * orthonormal(6, 4), 4)
    x = 2 * bank_of(dictionary).W_dec.detach()[:1] / 0.7
    left, total = 2.0, 0.0
    for _ in range(4):
        total += 0.7 * left
        left -= 0.49 * left
    codes = dictionary.encode(x).check()
    assert codes.l0().tolist() == [1]
    assert float(codes.dense()[0, 0]) == pytest.approx(total)
    values, _ = dictionary.sparsity.dense(bank_of(dictionary), x, 4)
    assert float(values.detach()[0, 0]) == pytest.approx(total)


def test_pursuit_stops_where_nothing_points_the_same_way() -> None:
    dictionary = pursuing(torch.eye(24)[:3], 3)
    x = -bank_of(dictionary).W_dec.detach()
    assert dictionary.encode(x).l0().tolist() == [0, 0, 0]
    assert dictionary.encode(torch.zeros(2, 24)).l0().tolist() == [0, 0]


def test_rows_may_stop_after_different_numbers_of_steps() -> None:
    directions = orthonormal()
    codes = torch.zeros(3, 12)
    codes[1, [2]] = 1.0
    codes[2, [1, 4, 7]] = torch.tensor([3.0, 2.0, 1.0])
    found = pursuing(directions, 5).encode(codes @ directions)
    assert torch.allclose(found.dense(), codes, atol=1e-5)


def test_fire_takes_its_own_way_before_the_one_of_training() -> None:
    dictionary = make("batchtopk", k=3)
    bank = bank_of(dictionary)
    bank.threshold.fill_(1e9)
    assert dense(fire(dictionary.sparsity, bank, torch.randn(4, 6), k=3), 50).count_nonzero() == 0
