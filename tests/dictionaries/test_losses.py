"""Gradients by hand, by autograd, and by formulas written out once more: all in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from elute.dictionaries.bank import Bank
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.losses import AUX_SHARE, Told, auxiliary, by_autograd, by_hand
from elute.dictionaries.spec import DictionarySpec

KINDS: dict[str, dict[str, Any]] = {
    "sae": {"reads": {"a": 9}, "writes": {"a": 9}},
    "transcoder": {"kind": "transcoder", "reads": {"a": 9}, "writes": {"b": 5}, "skip": True},
    "crosscoder": {"kind": "crosscoder", "reads": {"b": 9, "a": 4}, "writes": {"b": 9, "a": 4}},
    "clt": {"kind": "clt", "reads": {"a": 9, "b": 4, "c": 3}, "writes": {"A": 5, "B": 6, "C": 2}, "skip": True},
}
NESTED = [(), (8, 20, 40), (1, 40)]
FEATURES, K, ROWS, WEIGHT, PRICE = 40, 5, 30, 0.1, 0.7


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(activation: str, kind: str = "sae", *, bias: float = 0.0, **more: Any) -> Dictionary:
    spec = {"n_features": FEATURES, "k": K, "activation": activation, **KINDS[kind], **more}
    dictionary = Dictionary(DictionarySpec.model_validate(spec)).double()
    with torch.no_grad():
        for p in dictionary.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
        for bank in dictionary:
            bank.b_enc += bias
            if dictionary.sparsity.tied:
                bank.W_enc.copy_(bank.W_dec)
                bank.b_enc.zero_()
    return dictionary


def rows(dictionary: Dictionary, n: int = ROWS) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, dictionary.spec.width_in).double()
    return x, x if dictionary.spec.same else torch.randn(n, dictionary.spec.width_out).double()


def gradients(dictionary: Dictionary, run: Callable[[], Told]) -> tuple[Told, dict[str, Tensor]]:
    for p in dictionary.parameters():
        p.grad = torch.zeros_like(p)
    told = run()
    return told, {name: p.grad.clone() for name, p in dictionary.named_parameters() if p.grad is not None}


def apart(got: Tensor, wanted: Tensor) -> float:
    """The largest difference relative to the largest number."""
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-300))


def slots_dense(told: Told, features: int = FEATURES) -> list[Tensor]:
    found = []
    for idx, val in told.slots:
        found.append(val.new_zeros(len(val), features).scatter_add(1, idx.long(), val))
    return found


def both(dictionary: Dictionary, x: Tensor, y: Tensor, *, k: int = K) -> None:
    """Hold the two ways together: gradients, losses, codes, errors."""
    hand, one = gradients(dictionary, lambda: by_hand(dictionary, x, y, k=k, weight=WEIGHT))
    auto, other = gradients(dictionary, lambda: by_autograd(dictionary, x, y, k=k, weight=WEIGHT))
    assert one.keys() == other.keys()
    for name in one:
        assert float(other[name].abs().max()) > 0, name
        assert apart(one[name], other[name]) < 1e-10, name
    assert hand.loss == pytest.approx(auto.loss, rel=1e-12)
    assert float(hand.squared) == pytest.approx(float(auto.squared), rel=1e-12)
    assert apart(hand.error, auto.error) < 1e-12
    for got, wanted in zip(slots_dense(hand), slots_dense(auto), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("nested", NESTED, ids=str)
@pytest.mark.parametrize("activation", ["topk", "signed-topk", "batchtopk"])
@pytest.mark.parametrize("kind", KINDS)
def test_by_hand_is_by_autograd(kind: str, activation: str, nested: tuple[int, ...]) -> None:
    dictionary = make(activation, kind, nested=nested)
    both(dictionary, *rows(dictionary))


@pytest.mark.parametrize("activation", ["topk", "signed-topk", "batchtopk"])
@pytest.mark.parametrize(("n", "k", "bias"), [(1, K, 0.0), (7, FEATURES, 0.0), (20, 30, -0.5), (20, 1, 0.0)])
def test_by_hand_is_by_autograd_at_the_edges(activation: str, n: int, k: int, bias: float) -> None:
    """One row; every feature may fire; fewer are positive than may fire; one fires."""
    dictionary = make(activation, bias=bias)
    both(dictionary, *rows(dictionary, n), k=k)


def test_parts_of_a_batch_add_up() -> None:
    dictionary = make("topk", "clt", nested=(8, 40))
    x, y = rows(dictionary)
    whole, wanted = gradients(dictionary, lambda: by_hand(dictionary, x, y, k=K, weight=WEIGHT))
    sums: list[float] = []

    def parts() -> Told:
        pieces = (slice(0, 7), slice(7, 8), slice(8, None))
        sums.extend(by_hand(dictionary, x[piece], y[piece], k=K, weight=WEIGHT).loss for piece in pieces)
        return whole

    _, got = gradients(dictionary, parts)
    assert sum(sums) == pytest.approx(whole.loss)
    assert all(apart(got[name], wanted[name]) < 1e-12 for name in wanted)


def test_what_is_held_still_gets_no_gradient() -> None:
    dictionary = make("topk", "transcoder")
    x, y = rows(dictionary)
    _, wanted = gradients(dictionary, lambda: by_hand(dictionary, x, y, k=K, weight=WEIGHT))
    for p in dictionary.parameters():
        p.grad = None
    bank = next(iter(dictionary))
    bank.W_enc.grad = torch.zeros_like(bank.W_enc)
    by_hand(dictionary, x, y, k=K, weight=WEIGHT)
    assert bank.W_dec.grad is None
    assert dictionary.b_dec.grad is None
    assert dictionary.W_skip is not None
    assert dictionary.W_skip.grad is None
    assert apart(bank.W_enc.grad, wanted["banks.0.W_enc"]) < 1e-14


def test_an_activation_without_a_choice_has_no_gradient_by_hand() -> None:
    dictionary = make("relu")
    with pytest.raises(TypeError, match="no gradient by hand"):
        by_hand(dictionary, *rows(dictionary), k=K, weight=WEIGHT)


# by_autograd against the formula of its loss, written out again without elute and differentiated numerically.


@torch.no_grad()
def written(dictionary: Dictionary, activation: str, x: Tensor, y: Tensor, held: Dictionary) -> float:
    """The loss of relu, gated or pursuit; the gate's own reconstruction is by what `held` writes."""
    outs, penalty = [], x.new_zeros(())
    second = held.b_dec - y
    if held.W_skip is not None:
        second = second + x @ held.W_skip.T
    for bank, still in zip(dictionary, held, strict=True):
        given = x[:, bank.span.read]
        pre = given @ bank.W_enc.T + bank.b_enc
        lengths = bank.W_dec.square().sum(1).sqrt()
        if activation == "relu":
            values = pre.clamp(min=0)
            penalty = penalty + (values * lengths).sum()
        elif activation == "gated":
            values = (pre > 0) * (bank.r_mag.exp() * (given @ bank.W_enc.T) + bank.b_mag).clamp(min=0)
            penalty = penalty + (pre.clamp(min=0) * lengths).sum()
            second[:, bank.span.write] += pre.clamp(min=0) @ still.W_dec
        else:
            values, rest = torch.zeros_like(pre), given.clone()
            for _ in range(K):
                scores = rest @ bank.W_dec.T
                best = scores.argmax(1)
                take = scores.gather(1, best[:, None]).clamp(min=0)
                rest = rest - take * bank.W_dec[best]
                values = values.scatter_add(1, best[:, None], take)
        outs.append((bank, values))
    losses = []
    for end in dictionary.spec.nested or (FEATURES,):
        made = dictionary.b_dec.repeat(len(x), 1)
        if dictionary.W_skip is not None:
            made = made + x @ dictionary.W_skip.T
        for bank, values in outs:
            made[:, bank.span.write] += values[:, :end] @ bank.W_dec[:end]
        losses.append((made - y).square().sum())
    total = torch.stack(losses).mean() + PRICE * penalty
    if activation == "gated":
        total = total + second.square().sum()
    return WEIGHT * float(total)


@torch.no_grad()
def numerically(f: Callable[[], float], p: Tensor, places: list[int], step: float = 1e-6) -> list[float]:
    """Central differences at some places of a parameter."""
    flat, found = p.view(-1), []
    for place in places:
        was = float(flat[place])
        flat[place] = was + step
        above = f()
        flat[place] = was - step
        below = f()
        flat[place] = was
        found.append((above - below) / (2 * step))
    return found


@pytest.mark.parametrize("nested", [(), (8, 40)], ids=str)
@pytest.mark.parametrize(
    ("activation", "kind"),
    [("relu", "sae"), ("relu", "clt"), ("gated", "sae"), ("gated", "clt"), ("matching-pursuit", "sae"),
     ("matching-pursuit", "crosscoder")],
)  # fmt: skip
def test_by_autograd_is_the_slope_of_the_loss(activation: str, kind: str, nested: tuple[int, ...]) -> None:
    dictionary = make(activation, kind, nested=nested)
    x, y = rows(dictionary, 12)
    told, got = gradients(dictionary, lambda: by_autograd(dictionary, x, y, k=K, weight=WEIGHT, price=PRICE))
    held = copy.deepcopy(dictionary)
    assert told.loss + told.penalty == pytest.approx(written(dictionary, activation, x, y, held), rel=1e-12)
    for name, p in dictionary.named_parameters():
        if name not in got or (dictionary.sparsity.tied and name.endswith(("W_enc", "b_enc"))):
            continue
        strongest = got[name].abs().view(-1).topk(min(6, p.numel())).indices.tolist()
        slopes = numerically(lambda: written(dictionary, activation, x, y, held), p.data, strongest)
        assert got[name].view(-1)[strongest].tolist() == pytest.approx(slopes, rel=1e-6, abs=1e-7), name


# JumpReLU has no slope in its thresholds: the pseudo-derivative is checked against its definition, by hand.


def jumping(**settings: float) -> tuple[Dictionary, Bank, Tensor, Tensor]:
    dictionary = make("jumprelu", settings=settings)
    bank = next(iter(dictionary))
    with torch.no_grad():
        bank.log_threshold.copy_(torch.linspace(math.log(0.01), math.log(0.5), FEATURES))
    x, y = rows(dictionary, 400)
    return dictionary, bank, x, y


def test_jumprelus_thresholds_move_by_the_formula_on_its_page() -> None:
    width = 0.2
    dictionary, bank, x, y = jumping(bandwidth=width)
    _, got = gradients(dictionary, lambda: by_autograd(dictionary, x, y, k=K, weight=WEIGHT, price=PRICE))
    with torch.no_grad():
        pre, theta = x @ bank.W_enc.T + bank.b_enc, bank.log_threshold.exp()
        values = pre * (pre > theta)
        error = values @ bank.W_dec + dictionary.b_dec - y
        toward = 2 * WEIGHT * error @ bank.W_dec.T  # d loss / d value
        near = (pre - theta).abs() < width / 2
        assert bool((near & (pre < 0)).any()), "some rows must lie near the threshold and below zero"
        by_theta = (near * (toward * -theta / width - WEIGHT * PRICE / width)).sum(0)
        by_pre = toward * (pre > theta)
    assert apart(got["banks.0.log_threshold"], by_theta * theta) < 1e-12
    assert apart(got["banks.0.W_enc"], by_pre.T @ x) < 1e-12
    assert apart(got["banks.0.b_enc"], by_pre.sum(0)) < 1e-12
    assert apart(got["banks.0.W_dec"], 2 * WEIGHT * values.T @ error) < 1e-12


def test_rows_far_below_a_threshold_do_not_move_it() -> None:
    """Not even where the threshold itself lies within half a bandwidth of zero."""
    dictionary, bank, x, y = jumping(bandwidth=0.2)
    with torch.no_grad():
        bank.b_enc.fill_(-100.0)
    _, got = gradients(dictionary, lambda: by_autograd(dictionary, x, y, k=K, weight=WEIGHT, price=PRICE))
    assert float(got["banks.0.log_threshold"].abs().max()) == 0


def test_jumprelus_other_penalty_by_its_formula() -> None:
    """tanh of value times norm, and the pull on what does not fire; gradients of weights by dense autograd."""
    steep, pull = 3.0, 0.05
    dictionary, bank, x, y = jumping(tanh=steep, pull=pull, bandwidth=1e-9)  # so narrow that no row moves a threshold
    told, got = gradients(dictionary, lambda: by_autograd(dictionary, x, y, k=K, weight=WEIGHT, price=PRICE))
    W_enc, W_dec, b_enc = (p.detach().clone().requires_grad_() for p in (bank.W_enc, bank.W_dec, bank.b_enc))
    log_threshold = bank.log_threshold.detach().clone().requires_grad_()
    pre, theta = x @ W_enc.T + b_enc, log_threshold.exp()
    values, norms = torch.where(pre > theta, pre, 0), W_dec.norm(dim=1)
    penalty = torch.tanh(steep * values * norms).sum() + pull * ((theta - pre).clamp(min=0) * norms).sum()
    loss = (values @ W_dec + dictionary.b_dec.detach() - y).square().sum()
    wanted = torch.autograd.grad(WEIGHT * (loss + PRICE * penalty), [W_enc, W_dec, b_enc, log_threshold])
    for name, want in zip(("W_enc", "W_dec", "b_enc", "log_threshold"), wanted, strict=True):
        assert apart(got[f"banks.0.{name}"], want) < 1e-12, name
    assert told.penalty == pytest.approx(WEIGHT * PRICE * float(penalty.detach()))


def test_jumprelus_count_is_its_penalty() -> None:
    dictionary, bank, x, y = jumping()
    told = by_autograd(dictionary, x, y, k=K, weight=WEIGHT, price=PRICE)
    fired = (x @ bank.W_enc.T + bank.b_enc > bank.log_threshold.exp()).sum()
    assert told.penalty == pytest.approx(WEIGHT * PRICE * float(fired))


# What dead features are taught.


@pytest.mark.parametrize("k", [1, 4, 100])
@pytest.mark.parametrize("kind", ["sae", "clt"])
def test_auxiliary_is_dense_autograd_of_its_formula(kind: str, k: int) -> None:
    dictionary = make("topk", kind)
    x, _ = rows(dictionary)
    bank = list(dictionary)[-1]
    dead = torch.tensor([3, 4, 11, 20, 39, 0])
    x = x[:, bank.span.read].contiguous()
    error = torch.randn(len(x), bank.W_dec.shape[1]).double()
    for p in (bank.W_enc, bank.W_dec, bank.b_enc):
        p.grad = torch.ones_like(p)  # what it leaves is added to what is there
    loss = auxiliary(bank, x, error, dead=dead, k=k, weight=WEIGHT)
    leaves = [p.detach().clone().requires_grad_() for p in (bank.W_enc, bank.W_dec, bank.b_enc)]
    W_enc, W_dec, b_enc = leaves
    pre = (x @ W_enc[dead].T + b_enc[dead]).relu()
    kept = pre * torch.zeros_like(pre).scatter(1, pre.topk(min(k, len(dead)), dim=1).indices, 1.0)
    formula = WEIGHT * AUX_SHARE * (kept @ W_dec[dead] - (-error)).square().sum()  # ‖ê − (y − ŷ)‖²
    wanted = torch.autograd.grad(formula, leaves)
    assert loss == pytest.approx(float(formula.detach()), rel=1e-12)
    alive = [f for f in range(FEATURES) if f not in dead.tolist()]
    for p, want in zip((bank.W_enc, bank.W_dec, bank.b_enc), wanted, strict=True):
        assert p.grad is not None
        assert apart(p.grad - 1, want) < 1e-10
        assert bool((p.grad[alive] == 1).all())


def test_the_share_of_dead_features_is_the_papers() -> None:
    assert AUX_SHARE == 1 / 32


# What fires.


def test_topk_fires_exactly_k_where_enough_are_positive() -> None:
    dictionary = make("topk", bias=5.0)
    x, y = rows(dictionary, 200)
    told = by_hand(dictionary, x, y, k=K, weight=WEIGHT)
    assert {int(n) for n in (told.slots[0][1] != 0).sum(1)} == {K}


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_a_negative_pre_activation_never_fires(activation: str) -> None:
    dictionary = make(activation, bias=-1.5)
    x, y = rows(dictionary, 200)
    bank = next(iter(dictionary))
    pre = (x @ bank.W_enc.T + bank.b_enc).detach()
    told = by_hand(dictionary, x, y, k=K, weight=WEIGHT)
    (dense,) = slots_dense(told)
    positive = (pre > 0).sum(1)
    assert int(positive.min()) < K, "some rows must have fewer positive ones than may fire"
    assert bool((dense >= 0).all())
    assert not bool((dense[pre <= 0] != 0).any())
    if activation == "topk":
        assert torch.equal((dense != 0).sum(1), positive.clamp(max=K))


def test_signed_topk_keeps_the_sign_and_fires_k() -> None:
    dictionary = make("signed-topk")
    x, y = rows(dictionary, 200)
    bank = next(iter(dictionary))
    (dense,) = slots_dense(by_hand(dictionary, x, y, k=K, weight=WEIGHT))
    pre = (x @ bank.W_enc.T + bank.b_enc).detach()
    least = pre.abs().topk(K, dim=1).values[:, -1:]
    assert torch.allclose(dense, torch.where(pre.abs() >= least, pre, 0))
    assert bool((dense < 0).any())
    assert bool((dense > 0).any())
