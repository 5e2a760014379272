"""Adam over rows, held against PyTorch's own: compiled and plain, clipped, projected, put back on the sphere, sparse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from elute.engine.optimizers import Adam, Learnt, norm

ROWS, WIDTH, STEPS = 40, 7, 12


class Plain(Adam):
    """The path that other devices take, on this one."""

    def _compiled(self, w: Any, others: Any, scale: Any, options: Any, fired: Any) -> None:
        self._plain(w, others, scale, options, fired)


def drawn(seed: int = 0, dtype: torch.dtype = torch.float64, *, unit: bool = False) -> list[Learnt]:
    """A matrix, and a vector as biases are."""
    random = torch.Generator().manual_seed(seed)
    W = torch.randn(ROWS, WIDTH, generator=random, dtype=dtype)
    if unit:
        W /= W.norm(dim=1, keepdim=True)
    b = torch.randn(ROWS, generator=random, dtype=dtype)
    fired = torch.zeros(ROWS, dtype=torch.uint8)
    return [Learnt("W", W, torch.zeros_like(W), unit=unit, fired=fired), Learnt("b", b, torch.zeros_like(b))]


def gradients(step: int, learnt: list[Learnt]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(p.value.shape, generator=random, dtype=p.value.dtype) * 10 ** (step % 3 - 1) for p in learnt]


def run(adam: Adam, steps: range, *, rate: float = 0.03, **options: Any) -> None:
    for step in steps:
        for p, g in zip(adam.learnt, gradients(step, adam.learnt), strict=True):
            p.grad.copy_(g)
        adam.step(rate / (1 + step), **options)
        assert not any(p.grad.any() for p in adam.learnt), "gradients are cleared for the next batch"


def reference(learnt: list[Learnt], *, clip: float, project: bool, every: int) -> list[torch.Tensor]:
    """The same steps by torch.optim.Adam."""
    params = [torch.nn.Parameter(p.value.clone()) for p in learnt]
    adam = torch.optim.Adam(params, betas=(0.9, 0.999), eps=1e-8)
    for step in range(STEPS):
        for p, q, drawn_g in zip(learnt, params, gradients(step, learnt), strict=True):
            g, w = clip * drawn_g, q.detach()
            along = (g * w).sum(1, keepdim=True) / (w * w).sum(1, keepdim=True) * w if p.unit and project else 0
            q.grad = g - along
        for group in adam.param_groups:
            group["lr"] = 0.03 / (1 + step)
        adam.step()
        for p, q in zip(learnt, params, strict=True):
            if p.unit and every and (step + 1) % every == 0:
                q.data /= q.data.norm(dim=1, keepdim=True)
    return [q.detach() for q in params]


@pytest.mark.parametrize("made", [Adam, Plain])
@pytest.mark.parametrize(
    ("unit", "project", "every"), [(False, True, 1), (True, True, 1), (True, False, 5), (True, True, 0)]
)
def test_it_is_torchs_adam(made: type[Adam], unit: bool, project: bool, every: int) -> None:
    learnt = drawn(unit=unit)
    wanted = reference(learnt, clip=0.37, project=project, every=every)
    adam = made(learnt)
    for step in range(STEPS):
        due = every > 0 and (step + 1) % every == 0
        run(adam, range(step, step + 1), clip=0.37, project=project, renormalise=due)
    for p, w in zip(learnt, wanted, strict=True):
        torch.testing.assert_close(p.value, w, rtol=1e-12, atol=1e-13)
    lengths = learnt[0].value.norm(dim=1)
    assert bool((lengths - 1).abs().max() < 1e-12) == (unit and every == 1)


def test_float32_is_near_float64() -> None:
    exact, short = drawn(), drawn(dtype=torch.float32)
    for p, q in zip(short, exact, strict=True):
        p.value.copy_(q.value)
    run(Adam(exact), range(STEPS), clip=0.5)
    # Gradients are drawn anew in each type, so here they are rounded ones.
    adam = Adam(short)
    for step in range(STEPS):
        for p, g in zip(short, gradients(step, exact), strict=True):
            p.grad.copy_(g)
        adam.step(0.03 / (1 + step), clip=0.5)
    for p, q in zip(short, exact, strict=True):
        torch.testing.assert_close(p.value.double(), q.value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("made", [Adam, Plain])
def test_rows_that_did_not_fire_wait(made: type[Adam]) -> None:
    """A row that fires at some steps moves as if the others had never been, but for Adam's count of steps."""
    learnt, before = drawn(unit=True), drawn(unit=True)
    adam = made(learnt, "sparse-adam")
    fires = torch.zeros(ROWS, dtype=torch.bool)
    fires[::3] = True
    for step in range(STEPS):
        learnt[0].fired.copy_(fires if step % 2 else torch.zeros(ROWS))  # type: ignore[union-attr]
        run(adam, range(step, step + 1), clip=0.7)
    still = ~fires
    assert torch.equal(learnt[0].value[still], before[0].value[still]), "to the bit"
    for moments in (adam.first, adam.second):
        assert not moments["W"][still].any()
        assert moments["W"][fires].any(1).all()
    assert (learnt[0].value[fires] != before[0].value[fires]).any(1).all()
    assert (learnt[1].value != before[1].value).all(), "vectors move as a whole"
    torch.testing.assert_close(learnt[0].value.norm(dim=1), torch.ones(ROWS).double())


def test_sparse_compiled_and_plain_agree() -> None:
    both = []
    for made in (Adam, Plain):
        learnt = drawn(unit=True)
        adam = made(learnt, "sparse-adam")
        for step in range(STEPS):
            random = torch.Generator().manual_seed(step)
            learnt[0].fired.copy_(torch.rand(ROWS, generator=random) < 0.4)  # type: ignore[union-attr]
            run(adam, range(step, step + 1), clip=0.7)
        both.append([p.value for p in learnt])
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_threads_change_nothing() -> None:
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            learnt = [Learnt("W", torch.ones(100, 5) * torch.arange(100)[:, None], torch.zeros(100, 5), unit=True)]
            run(Adam(learnt), range(3))
            found.append(learnt[0].value)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_row_of_zeros_stays_finite() -> None:
    for made in (Adam, Plain):
        learnt = drawn(unit=True)
        learnt[0].value[3] = 0
        adam = made(learnt)
        learnt[0].grad.zero_()
        adam.step(0.1)
        assert not learnt[0].value[3].any()
        run(adam, range(2))
        assert torch.isfinite(learnt[0].value).all()


def test_forgetting_clears_the_moments_of_rows() -> None:
    learnt = drawn()
    adam = Adam(learnt)
    run(adam, range(2))
    kept = {name: t.clone() for name, t in adam.first.items()}
    rows = torch.tensor([1, 5])
    for name in ("W", "b"):
        adam.forget(name, rows)
        for moments in (adam.first, adam.second):
            assert not moments[name][rows].any(), "in the optimizer itself, not in a copy"
        others = torch.ones(ROWS, dtype=torch.bool)
        others[rows] = False
        assert torch.equal(adam.first[name][others], kept[name][others])


def test_a_state_goes_on_to_the_same_bits() -> None:
    whole = drawn(unit=True)
    run(Adam(whole), range(STEPS))
    half = drawn(unit=True)
    first = Adam(half)
    run(first, range(5))
    state = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in first.state().items()}
    rest = drawn(seed=9, unit=True)
    for p, q in zip(rest, half, strict=True):
        p.value.copy_(q.value)
    second = Adam(rest)
    second.load_state(state)
    assert second.steps == 5
    run(second, range(5, STEPS))
    for p, q in zip(rest, whole, strict=True):
        assert torch.equal(p.value, q.value)


def test_the_norm_tells_what_is_shared_from_what_is_not() -> None:
    learnt = drawn()
    for p, g in zip(learnt, gradients(0, learnt), strict=True):
        p.grad.copy_(g)
    learnt[1].whole = False
    whole, own = norm(learnt)
    assert float(whole) == pytest.approx(float((learnt[0].grad ** 2).sum()))
    assert float(own) == pytest.approx(float((learnt[1].grad ** 2).sum()))
    assert np.sqrt(float(whole + own)) == pytest.approx(float(torch.cat([p.grad.reshape(-1) for p in learnt]).norm()))
