"""Fusion networks against a plain PyTorch module, and what must not depend on how many learn side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from elute.base.errors import ConfigError, DataError
from elute.heads import fusion_fit
from elute.heads.fusion import (
    FusionNetworks,
    Standard,
    align,
    average,
    concat,
    default_weights,
    fuse_rows,
    weighted,
)
from elute.heads.fusion_fit import FusionStream, Part, fit_networks
from elute.heads.fusion_settings import FusionConfig

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = FusionConfig(width=5, hidden=(12, 8), epochs=3, batch_size=16, seed=3, device="cpu")


def data(n: int = 90, widths: tuple[int, ...] = (6, 4), k: int = 3, seed: int = 0) -> tuple[list[Any], Any]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, k, n)
    return [(rng.normal(0, 1, (k, w))[codes] + rng.normal(2, 1, (n, w))).astype("f4") for w in widths], codes


class Plain(nn.Module):
    """The network as its description says, written once more with PyTorch's own layers."""

    def __init__(self, widths: tuple[int, ...], layers: tuple[int, int], out: int, k: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(w, 1) for w in widths)
        self.body = nn.Sequential(
            nn.Linear(sum(widths), layers[0], bias=False), nn.BatchNorm1d(layers[0]), nn.ReLU(),
            nn.Linear(layers[0], layers[1], bias=False), nn.BatchNorm1d(layers[1]), nn.ReLU(),
            nn.Linear(layers[1], out),
        )  # fmt: skip
        self.head = nn.Linear(out, k)

    def forward(self, xs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        fused = self.body(torch.cat([torch.sigmoid(g(x)) * x for g, x in zip(self.gates, xs, strict=True)], 1))
        return fused, self.head(fused)

    def take(self, ours: FusionNetworks) -> None:
        """Copy the weights of the first of our networks."""
        pairs = {"layer1": 0, "norm1": 1, "layer2": 3, "norm2": 4, "out": 6}
        with torch.no_grad():
            for name, layer in [
                *((f"gate{i}", g) for i, g in enumerate(self.gates)),
                *((n, self.body[i]) for n, i in pairs.items()),
                ("head", self.head),
            ]:
                weight = ours.get_parameter(f"{name}_weight")[0]
                layer.weight.copy_(weight[0] if name.startswith("norm") else weight.T)
                if layer.bias is not None:
                    layer.bias.copy_(ours.get_parameter(f"{name}_bias")[0, 0])


def test_the_sizes_are_those_of_the_original_and_follow_the_widths() -> None:
    net = FusionNetworks((32, 32), 6, config=FusionConfig())
    assert FusionConfig().layers((32, 32)) == (128, 64)
    expected = 2 * 33 + 64 * 128 + 2 * 128 + 128 * 64 + 2 * 64 + 64 * 32 + 32 + 32 * 6 + 6
    assert sum(p.numel() for p in net.parameters()) == expected
    assert FusionConfig().layers((40, 32, 8)) == (160, 80)
    assert FusionConfig().layers((1280, 512)) == (512, 256)
    assert FusionConfig().layers((6, 4)) == (128, 64)
    assert FusionConfig(hidden=(9, 7)).layers((1280, 512)) == (9, 7)


def test_the_first_weights_are_spread_as_pytorch_spreads_them() -> None:
    net = FusionNetworks((32, 32), 6, config=FusionConfig(seed=1), networks=3)
    for name, fan_in in (("layer1", 64), ("out", 64), ("head", 32)):
        w = net.get_parameter(f"{name}_weight").detach()
        assert w.abs().max() <= 1 / np.sqrt(fan_in)
        assert float(w.std()) == pytest.approx(1 / np.sqrt(3 * fan_in), rel=0.1)
        assert torch.equal(w[0], w[2])


def test_forward_and_gradient_are_those_of_a_plain_module() -> None:
    xs, codes = data()
    ours = FusionNetworks((6, 4), 3, config=SMALL, networks=2).train()
    plain = Plain((6, 4), (12, 8), 5, 3).train()
    plain.take(ours)
    rows = [torch.from_numpy(x) for x in xs]
    fused, gates = ours.fuse([x[None].expand(2, -1, -1) for x in rows])
    target = torch.from_numpy(codes)
    nn.functional.cross_entropy(ours.logits(fused)[0], target).backward()
    other, logits = plain(rows)
    nn.functional.cross_entropy(logits, target).backward()
    torch.testing.assert_close(fused[0], other, atol=1e-5, rtol=1e-4)
    assert gates.shape == (2, 90, 2)
    torch.testing.assert_close(
        ours.get_parameter("layer1_weight").grad[0], plain.body[0].weight.grad.T, atol=1e-5, rtol=1e-3
    )
    torch.testing.assert_close(
        ours.get_parameter("gate1_weight").grad[0], plain.gates[1].weight.grad.T, atol=1e-5, rtol=1e-3
    )
    ours.eval(), plain.eval()
    again, _ = ours.fuse([x[None] for x in rows])
    torch.testing.assert_close(again[1], plain(rows)[0], atol=1e-5, rtol=1e-4)


def test_training_is_that_of_a_plain_loop_with_adam() -> None:
    xs, codes = data()
    config = SMALL.model_copy(update={"dropout": (0.0, 0.0)})
    part = Part(np.arange(10, 80))
    ours = fit_networks(xs, codes, [part], config=config)
    plain = Plain((6, 4), (12, 8), 5, 3).train()
    plain.take(FusionNetworks((6, 4), 3, config=config))
    rows = [torch.from_numpy(((x - x[10:80].mean(0)) / x[10:80].std(0)).astype("f4")) for x in xs]
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3)
    stream = FusionStream([part], config)
    for batch, _ in zip(stream, range(stream.steps), strict=False):
        at = batch.rows["rows"][:, 0]
        adam.zero_grad()
        nn.functional.cross_entropy(plain([x[at] for x in rows])[1], torch.from_numpy(codes)[at]).backward()
        adam.step()
    plain.eval()
    expected = plain(rows)[0].detach().numpy()
    np.testing.assert_allclose(fuse_rows(ours, xs)[0], expected, atol=1e-4)
    assert np.abs(expected - expected.mean(0)).max() > 0.1


def test_networks_side_by_side_learn_what_each_learns_alone() -> None:
    xs, codes = data()
    parts = [Part(np.arange(90)), Part(np.arange(30)), Part(np.arange(20, 70), present=(True, False))]
    both = fit_networks(xs, codes, [*parts[:1], Part(np.arange(90)[::-1].copy())], config=SMALL)
    alone = fit_networks(xs, codes, parts[:1], config=SMALL)
    np.testing.assert_allclose(fuse_rows(both, xs)[0], fuse_rows(alone, xs)[0], atol=1e-5)
    every = fit_networks(xs, codes, parts, config=SMALL)
    np.testing.assert_allclose(fuse_rows(every, xs)[0], fuse_rows(alone, xs)[0], atol=1e-5)


def test_two_trainings_give_the_same_bytes_and_another_seed_others() -> None:
    xs, codes = data()
    a, b = (fit_networks(xs, codes, [Part(np.arange(90))], config=SMALL) for _ in range(2))
    c = fit_networks(xs, codes, [Part(np.arange(90))], config=SMALL.model_copy(update={"seed": 4}))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not torch.equal(a.get_parameter("out_weight"), c.get_parameter("out_weight"))


@pytest.mark.parametrize("n", [2, 3, 17, 33])
def test_no_number_of_rows_leaves_a_batch_of_one(n: int) -> None:
    xs, codes = data(n=40)
    codes[:2] = 0, 1
    nets = fit_networks(xs, codes, [Part(np.arange(n)), Part(np.arange(max(2, n // 2)))], config=SMALL, n_classes=3)
    assert np.isfinite(fuse_rows(nets, xs)[0]).all()
    stream = FusionStream([Part(np.arange(n))], SMALL)
    sizes = {len(batch.rows["rows"]) for batch, _ in zip(stream, range(stream.steps), strict=False)}
    assert sizes == {min(n, 16)}


def test_every_row_is_seen_once_before_any_is_seen_again() -> None:
    stream = FusionStream([Part(np.arange(100, 150)), Part(np.arange(7))], SMALL)
    drawn = np.concatenate([b.rows["rows"].numpy() for b, _ in zip(stream, range(stream.steps), strict=False)])
    assert len(drawn) >= 3 * 50
    for column, rows in ((0, np.arange(100, 150)), (1, np.arange(7))):
        first = drawn[: len(drawn) // len(rows) * len(rows), column].reshape(-1, len(rows))
        assert (np.sort(first, axis=1) == rows).all()
        assert not (first[0] == first[1]).all()


def test_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xs, codes = data()
    parts = [Part(np.arange(90)), Part(np.arange(50))]
    config = SMALL.model_copy(update={"checkpoint_seconds": 0.0})
    whole = fit_networks(xs, codes, parts, config=config)
    real, steps = fusion_fit.FusionObjective.gradient, []

    def stop(self: Any, rows: Any, *, step: int, total_rows: int) -> Any:
        steps.append(step)
        if step == 7 and steps.count(7) == 1:
            raise KeyboardInterrupt
        return real(self, rows, step=step, total_rows=total_rows)

    monkeypatch.setattr(fusion_fit.FusionObjective, "gradient", stop)
    with pytest.raises(KeyboardInterrupt):
        fit_networks(xs, codes, parts, config=config, folder=tmp_path / "fit")
    again = fit_networks(xs, codes, parts, config=config, folder=tmp_path / "fit")
    assert steps.count(3) == 1
    assert steps.count(7) == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not (tmp_path / "fit" / "checkpoint.pt").exists()
    other = config.model_copy(update={"seed": 9})
    steps[:] = []
    with pytest.raises(KeyboardInterrupt):
        fit_networks(xs, codes, parts, config=other, folder=tmp_path / "fit")
    fit_networks(xs, codes, parts, config=config, folder=tmp_path / "fit")  # another's checkpoint is begun anew
    assert steps.count(0) == 2


def test_partners_are_a_permuted_table_and_absent_sources_say_nothing() -> None:
    xs, codes = data()
    order = np.random.default_rng(0).permutation(90)
    by_map = fit_networks(xs, codes, [Part(np.arange(90), partners=(None, order))], config=SMALL)
    moved = fit_networks([xs[0], xs[1][order]], codes, [Part(np.arange(90))], config=SMALL)
    np.testing.assert_allclose(
        fuse_rows(by_map, xs, partners=(None, order))[0], fuse_rows(moved, [xs[0], xs[1][order]])[0], atol=1e-5
    )
    alone = fit_networks(xs, codes, [Part(np.arange(90), present=(True, False))], config=SMALL)
    noise = [xs[0], xs[1][::-1] * 9 - 4]
    np.testing.assert_array_equal(fuse_rows(alone, xs)[0], fuse_rows(alone, noise)[0])
    assert (fuse_rows(alone, xs)[1][:, 1] == 0).all()


def test_more_than_two_sources_and_rows_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    xs, codes = data(widths=(6, 4, 9))
    nets = fit_networks(xs, codes, [Part(np.arange(90))], config=SMALL)
    whole = fuse_rows(nets, xs)
    assert whole[0].shape == (90, 5)
    assert whole[1].shape == (90, 3)
    assert ((whole[1] > 0) & (whole[1] < 1)).all()
    monkeypatch.setattr("elute.heads.fusion._AT_ONCE", 7)
    np.testing.assert_allclose(fuse_rows(nets, xs)[0], whole[0], atol=1e-5)
    some = np.array([80, 3, 3])
    np.testing.assert_allclose(fuse_rows(nets, xs, some)[0], whole[0][some], atol=1e-5)


def test_it_learns_and_the_gate_of_a_useless_source_closes() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 600)
    good = (rng.normal(0, 2, (3, 6))[codes] + rng.normal(0, 1, (600, 6))).astype("f4")
    noise = rng.normal(0, 1, (600, 6)).astype("f4")
    config = FusionConfig(width=8, epochs=30, device="cpu")
    nets = fit_networks([good, noise], codes, [Part(np.arange(400))], config=config)
    fused, gates = fuse_rows(nets, [good, noise], np.arange(400, 600))
    centres = np.stack([fuse_rows(nets, [good, noise], np.arange(400))[0][codes[:400] == c].mean(0) for c in range(3)])
    told = np.square(fused[:, None] - centres).sum(-1).argmin(1)
    assert (told == codes[400:]).mean() > 0.95
    assert gates[:, 0].mean() > gates[:, 1].mean()


def test_standard_is_numpys_and_leaves_still_columns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elute.heads.fusion._AT_ONCE", 11)
    x = np.random.default_rng(0).normal(1e4, 2, (50, 3)).astype("f4")
    x[:, 1] = 0.1
    rows = np.arange(5, 45)
    found = Standard.of(x, rows)
    np.testing.assert_allclose(found.mean, x[rows].astype(float).mean(0))
    np.testing.assert_allclose(found.spread[[0, 2]], x[rows].astype(float).std(0)[[0, 2]])
    assert found.spread[1] == 1
    assert np.abs(found.apply(x)[:, 1]).max() < 1e-6


def test_align_finds_shift_turn_and_stretch() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (200, 4))
    turn = np.linalg.qr(rng.normal(0, 1, (4, 4)))[0]
    y = 2.5 * (x - 1) @ turn + rng.normal(0, 1, 4)
    found = align(x[:50], y[:50])
    np.testing.assert_allclose(found.apply(x[50:]), y[50:], atol=1e-5)
    bent = align(x, np.tanh(y))
    np.testing.assert_allclose(bent.turn @ bent.turn.T, np.eye(4) * (bent.turn @ bent.turn.T)[0, 0], atol=1e-9)
    with pytest.raises(DataError, match="cannot be brought together"):
        align(x, y[:, :3])


def test_rules_of_fusion() -> None:
    a, b = np.ones((2, 3)), 4 * np.ones((2, 3))
    assert (average([a, b]) == 2.5).all()
    np.testing.assert_allclose(weighted([a, b], default_weights(2)), 0.7 + 0.3 * 4)
    assert concat([a, b[:, :2]]).shape == (2, 5)
    assert default_weights(3) == pytest.approx((0.7, 0.15, 0.15))
    with pytest.raises(ConfigError, match="widths 2 and 3 have no average"):
        average([a, b[:, :2]])
    with pytest.raises(ConfigError, match="1 weights for 2 sources"):
        weighted([a, b], [1.0])


def test_what_cannot_be_trained_is_refused_in_one_line() -> None:
    xs, codes = data()
    with pytest.raises(DataError, match="1 row is too few"):
        fit_networks(xs, codes, [Part(np.arange(1))], config=SMALL)
    with pytest.raises(DataError, match="for 90 classes"):
        fit_networks([xs[0][:50], xs[1]], codes, [Part(np.arange(9))], config=SMALL)
    with pytest.raises(DataError, match="no network"):
        fit_networks(xs, codes, [], config=SMALL)
    with pytest.raises(DataError, match="without sources"):
        fit_networks(xs, codes, [Part(np.arange(9), present=(False, False))], config=SMALL)
