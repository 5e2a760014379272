"""The loop: steps, clipping, averages, records and checkpoints, with an objective small enough to work out by hand."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.engine import resume
from elute.engine.fit import Fit, FitConfig, Fitted
from elute.engine.optimizers import Adam, Learnt
from elute.engine.parallel import Ranks
from elute.engine.tracking import LINES, Metrics, TrackConfig
from elute.store.window import Batch

SETTINGS = {"fit": {"lr": 0.1, "seed": 0}, "store": "abc"}


class Line:
    """y = x w; the squared error's gradient, written out."""

    project, re_norm_interval = True, 1

    def __init__(self, *, spoilt: int | None = None, unit: bool = False) -> None:
        self.w = torch.full((1, 4), 0.5, dtype=torch.float64)
        self.learnt = [Learnt("w", self.w, torch.zeros_like(self.w), unit=unit)]
        self.spoilt, self.seen, self.clips, self.tied = spoilt, 0, [], 0
        self.act: Any = lambda _step: None
        self.parts: list[tuple[int, int]] = []

    def gradient(self, rows: Mapping[str, torch.Tensor], *, step: int, total_rows: int) -> dict[str, float]:
        x = rows["x"].double()
        left = x @ self.w.T - x.sum(1, keepdim=True)
        self.learnt[0].grad += 2 * left.T @ x / total_rows
        self.seen += len(x)
        self.parts.append((len(x), total_rows))
        self.act(step)
        bad = math.nan if step == self.spoilt else 1.0
        return {"loss": bad * float(left.square().sum()) / total_rows, "rows": float(len(x))}

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        self.clips.append(optimizer.first["w"].clone())

    def tie(self) -> None:
        self.tied += 1

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"] / sums["steps"], "rows": sums["rows"]}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen, "twice": 2 * self.w}

    def load_state(self, state: Mapping[str, Any]) -> None:
        assert torch.equal(state["twice"], 2 * self.w)
        self.seen = int(state["seen"])


class Rows:
    """Batches that are drawn from their number."""

    def __init__(self, size: int = 8) -> None:
        self.size, self.place = size, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            random = torch.Generator().manual_seed(self.place)
            self.place += 1
            x = torch.randn(self.size, 4, generator=random)
            yield Batch({"x": x}, torch.arange(self.size))

    def state(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.place = int(state["place"])


def fit(folder: Path, objective: Line, *, size: int = 8, settings: Mapping[str, Any] = SETTINGS, log_every: int = 3,
        **config: Any) -> tuple[Fit, Fitted]:  # fmt: skip
    folder.mkdir(exist_ok=True)
    chosen = FitConfig(**{"steps": 20, "batch_size": size, "lr": 0.1, "warmup": 0, "decay": 0, **config})
    it = Fit(objective, Rows(size), chosen, folder=folder, steps=chosen.total(100))
    begun = it.resume(settings, Ranks())
    with Metrics(folder, TrackConfig(log_every=log_every), settings=settings, resume_at=begun) as metrics:
        done = it.run(settings, ranks=Ranks(), metrics=metrics, split=True)
        metrics.close(done.figures)
    return it, done


def test_steps_of_a_run() -> None:
    assert FitConfig(steps=7).total(100) == 7
    assert FitConfig(rows=1000, batch_size=64).total(100) == 16
    assert FitConfig(rows=1000, batch_size=64, accumulate=4).total(100) == 4
    assert FitConfig(batch_size=10).total(1_000_000) == 100_000, "each row once"
    assert FitConfig(batch_size=10).total(100) == 2000, "but 2,000 steps at least"
    assert FitConfig(batch_size=10, accumulate=5).total(100) == 2000
    assert FitConfig(rows=1, batch_size=64).total(100) == 1
    with pytest.raises(ConfigError, match=r"^steps and rows are both given\. Give one of them\.$"):
        FitConfig(steps=1, rows=1).total(100)


def test_it_is_adam_with_clipped_gradients(tmp_path: Path) -> None:
    objective = Line()
    _, done = fit(tmp_path, objective, clip=0.25, decay=0.5)
    w = torch.nn.Parameter(torch.full((1, 4), 0.5, dtype=torch.float64))
    adam = torch.optim.Adam([w])
    losses, lengths = [], []
    for step, batch in zip(range(20), Rows(), strict=False):
        x = batch.rows["x"].double()
        loss = ((x @ w.T - x.sum(1, keepdim=True)) ** 2).sum() / 8
        adam.zero_grad()
        loss.backward()
        lengths.append(float(torch.nn.utils.clip_grad_norm_([w], 0.25)))
        losses.append(float(loss.detach()))
        adam.param_groups[0]["lr"] = 0.1 * min(1, (20 - step) / 10)
        adam.step()
    torch.testing.assert_close(objective.w, w.detach(), rtol=1e-5, atol=1e-6)  # torch adds 1e-6 to the length
    assert done.steps == 20
    records = [json.loads(line) for line in (tmp_path / LINES).read_text().splitlines()]
    assert [r["step"] for r in records] == [0, 3, 6, 9, 12, 15, 18, 19]
    assert records[1]["loss"] == pytest.approx(np.mean(losses[1:4]), rel=1e-4)
    assert records[1]["gradient_norm"] == pytest.approx(np.mean(lengths[1:4]), rel=1e-4)
    assert done.figures["loss"] == pytest.approx(losses[19], rel=1e-4), "figures are those of the last record"


def test_no_clipping_where_it_is_zero(tmp_path: Path) -> None:
    short, free = Line(), Line()
    fit(tmp_path / "a", short, clip=1e-6, steps=1)
    fit(tmp_path / "b", free, clip=0, steps=1)
    assert short.clips[0].norm() == pytest.approx(1e-7, rel=1e-3)
    assert free.clips[0].norm() > 0.1


def test_four_batches_make_one_update(tmp_path: Path) -> None:
    objective = Line()
    fit(tmp_path, objective, size=8, accumulate=4, steps=5, clip=0)
    assert objective.parts == [(8, 32)] * 20
    w = torch.full((1, 4), 0.5, dtype=torch.float64)
    single = [Learnt("w", w, torch.zeros_like(w))]
    adam, stream = Adam(single), iter(Rows(8))
    for _ in range(5):
        x = torch.cat([next(stream).rows["x"] for _ in range(4)]).double()
        single[0].grad.copy_(2 * (x @ w.T - x.sum(1, keepdim=True)).T @ x / 32)
        adam.step(0.1)
    torch.testing.assert_close(objective.w, w, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("unit", [False, True])
def test_the_average_of_the_weights_is_what_is_kept(tmp_path: Path, unit: bool) -> None:
    plain, averaged = Line(unit=unit), Line(unit=unit)
    track: list[torch.Tensor] = []
    plain.after = lambda *_: track.append(plain.w.clone())  # type: ignore[method-assign, assignment]
    fit(tmp_path / "a", plain)
    fit(tmp_path / "b", averaged, ema=0.8)
    mean = torch.full((1, 4), 0.5, dtype=torch.float64)
    for w in track:
        mean = 0.8 * mean + 0.2 * w
    if unit:
        mean /= mean.norm()
    torch.testing.assert_close(averaged.w, mean)
    assert averaged.tied, "what is tied to the weights follows them"


def test_rows_return_to_length_one_when_they_are_due(tmp_path: Path) -> None:
    for every, at_one in ((1, list(range(20))), (5, [4, 9, 14, 19]), (0, [])):
        objective = Line(unit=True)
        objective.re_norm_interval, objective.project = every, False
        lengths: list[float] = []
        objective.after = lambda *_, o=objective, n=lengths: n.append(float(o.w.norm()))  # type: ignore[method-assign, misc]
        fit(tmp_path / str(every), objective)
        assert [i for i, length in enumerate(lengths) if abs(length - 1) < 1e-9] == at_one


@pytest.mark.parametrize("config", [{}, {"ema": 0.9}, {"accumulate": 3}, {"optimizer": "sparse-adam", "clip": 0.1}])
@pytest.mark.parametrize("last", [1, 7, 19, 20])
def test_stopped_after_any_step_and_gone_on_with_it_is_the_same(
    tmp_path: Path, config: dict[str, Any], last: int
) -> None:
    whole = Line()
    _, wanted = fit(tmp_path / "whole", whole, **config)

    class StopError(Exception):
        pass

    def stop(step: int) -> None:
        if step == last:
            raise StopError

    first = Line()
    first.act = stop
    if last < 20:
        with pytest.raises(StopError):
            fit(tmp_path / "cut", first, checkpoint_seconds=0, **config)
    else:
        fit(tmp_path / "cut", first, checkpoint_seconds=0, **config)
    second = Line()
    it, done = fit(tmp_path / "cut", second, **config)
    assert torch.equal(second.w, whole.w)
    assert done.figures == wanted.figures
    assert second.seen == whole.seen
    for name in (LINES, "training_metrics.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert it.step == 20


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        fit(tmp_path / "a", Line(spoilt=5), checkpoint_seconds=0)
    text = str(told.value)
    assert text.startswith(f"{tmp_path / 'a'}: the loss is no longer a number at step 5. Try a lower --lr")
    assert text.endswith("The last checkpoint is kept.")
    assert "\n" not in text
    parts, at = resume.load(tmp_path / "a") or ({}, {})
    assert at["step"] == 5
    assert torch.isfinite(parts["value"]["w"]).all()
    with pytest.raises(DataError, match=r"elute arrays stats`\.$"):
        fit(tmp_path / "b", Line(spoilt=0))
    assert not (tmp_path / "b" / resume.NAME).exists()


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    objective = Line()

    def spoil(step: int) -> None:
        if step == 3:
            objective.learnt[0].grad[0, 0] = torch.inf

    objective.act = spoil
    with pytest.raises(DataError, match="no longer a number at step 3"):
        fit(tmp_path, objective)
    assert torch.isfinite(objective.w).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_step_and_writes_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    whole = Line()
    fit(tmp_path / "whole", whole)
    objective = Line()

    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), number)

    objective.act = interrupt
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", objective)
    assert signal.getsignal(number) is before
    _, told = resume.load(tmp_path / "cut") or ({}, {})
    assert told["step"] == 7, "the step in which it came is done"
    again = Line()
    fit(tmp_path / "cut", again)
    assert torch.equal(again.w, whole.w)


def test_checkpoints_are_written_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(resume, "save", lambda _folder, _parts, told: saved.append(told["step"]))
    fit(tmp_path, Line())
    assert saved == []
    fit(tmp_path, Line(), checkpoint_seconds=0)
    assert saved == list(range(1, 21))


def test_a_checkpoint_of_other_settings_or_another_shape(tmp_path: Path) -> None:
    fit(tmp_path, Line(), checkpoint_seconds=0)
    other = {"fit": {"lr": 0.2, "seed": 0}, "store": "abc"}
    with pytest.raises(
        ConfigError, match=r"fit\.lr was 0\.1 and is now 0\.2\. Give the same settings to go on, --anew"
    ):
        fit(tmp_path, Line(), settings=other)
    wide = Line()
    wide.learnt[0].name = "v"
    with pytest.raises(
        DamagedError, match=r"checkpoint\.pt: is not a whole training checkpoint\. Start over with --anew"
    ):
        fit(tmp_path, wide)
