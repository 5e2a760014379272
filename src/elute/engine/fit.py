"""The one loop that trains: it knows steps, rates, ranks, checkpoints and metrics, and nothing of what is learnt.

An objective brings parameters and leaves the gradient of a part of a batch; sums over rows, already divided by the rows
of the whole step, so that accumulated parts and ranks add up. The loop then

1. adds up gradients and sums over ranks, in one exchange each;
2. stops, the last checkpoint kept, where a number is no longer finite;
3. clips, moves the parameters, lets the objective do what it does after an update, averages;
4. writes a record now and then, and a checkpoint by the clock, which decides nothing else: a run that was killed and
   resumed ends with the same bits as one left alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from elute.base import console
from elute.base.errors import ConfigError, DataError
from elute.base.recipe import Section
from elute.engine import resume, schedules
from elute.engine.forecast import Forecast
from elute.engine.settings import OptimizerKind
from elute.engine.stopping import stoppable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from elute.engine.optimizers import Adam, Learnt
    from elute.engine.parallel import Ranks
    from elute.engine.tracking import Metrics
    from elute.store.window import Batch


class FitConfig(Section):
    """How long and how fast to train."""

    steps: int | None = Field(None, ge=1)
    """Updates; from --rows if not given."""
    rows: int | None = Field(None, ge=1)
    """Rows to train on, again and again if there are fewer; each row once, but 2,000 steps at least, if not given."""
    batch_size: int = Field(512, ge=1)
    """Rows of one update, over all processes."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients make one update."""
    lr: float | None = Field(None, gt=0)
    """Learning rate; 0.032 / √width for a dictionary if not given."""
    warmup: float = Field(0.02, ge=0, le=1)
    """Share of the steps over which the rate rises."""
    decay: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the rate falls to nothing."""
    clip: float = Field(1.0, ge=0)
    """Longest gradient; 0 leaves it as it is."""
    optimizer: OptimizerKind = "adam"
    """Adam, or Adam that moves only the rows of features that fired."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Keep an average of the weights with this share of the old a step, and save that; 0 saves the last weights."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the order of rows and all draws."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Seconds between two checkpoints; 0 writes one a step."""

    def total(self, stored: int) -> int:
        """Steps of the whole run."""
        if self.steps is not None and self.rows is not None:
            raise ConfigError("steps and rows are both given", remedy="Give one of them.")
        if self.steps is not None:
            return self.steps
        each = self.batch_size * self.accumulate
        rows = self.rows if self.rows is not None else max(stored, 2000 * each)
        return max(1, math.ceil(rows / each))


class Objective(Protocol):
    """What is learnt, and from what."""

    learnt: list[Learnt]
    project: bool  # take from the gradient of rows that keep length 1 what would only change it
    re_norm_interval: int  # steps between two returns of such rows to length 1; 0 for none

    def gradient(self, rows: Mapping[str, Tensor], *, step: int, total_rows: int) -> Mapping[str, float]:
        """Add a part's gradient to the parameters' buffers; return sums over its rows."""

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        """Do what follows an update."""

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Turn sums of the rows since the last record into figures for people."""

    def tie(self) -> None:
        """Bring parameters that are one in line, when others were put in their place."""

    def state(self) -> dict[str, Any]:
        """Return all that a later step depends on, besides the parameters."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


class Stream(Protocol):
    """Batches without end, from a place that can be kept."""

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches."""

    def state(self) -> dict[str, Any]:
        """Return the place after the last batch."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a place."""


@dataclass
class Fitted:
    """How a training ended."""

    steps: int
    figures: dict[str, float]
    rows_per_step: int
    rows_per_second: float


class Fit:
    """One training: an objective, a stream and a folder."""

    def __init__(self, objective: Objective, stream: Stream, config: FitConfig, *, folder: Path, steps: int) -> None:
        from elute.engine.optimizers import Adam

        self.objective, self.stream, self.config = objective, stream, config
        self.folder, self.steps = folder, steps
        self.optimizer = Adam(objective.learnt, config.optimizer)
        self.average = {p.name: p.value.clone() for p in objective.learnt} if config.ema else {}
        self.rate = config.lr or 1e-3
        self.step = 0
        self.sums: dict[str, float] = {}
        self.figures: dict[str, float] = {}  # of the last record
        self.rows_per_step = config.batch_size * config.accumulate

    def resume(self, settings: Mapping[str, Any], ranks: Ranks) -> int | None:
        """Go on from the folder's checkpoint if there is one; returns its last step."""
        found = resume.load(self.folder)
        if found is None:
            return None
        parts, told = found
        resume.same_settings(self.folder, told["settings"], dict(settings))
        try:
            for p in self.objective.learnt:
                p.value.copy_(self._mine(parts["value"][p.name], p, ranks))
                if self.average:
                    self.average[p.name].copy_(self._mine(parts["average"][p.name], p, ranks))
            self.optimizer.load_state(self._moments(parts["optimizer"], self._mine, ranks))
            self.objective.load_state(parts.get("objective", {}))
            self.step, self.sums, self.figures = told["step"], told["sums"], told["figures"]
        except (KeyError, RuntimeError, ValueError, AttributeError) as error:  # what is not there, or has another shape
            raise resume.damaged(self.folder) from error
        self.objective.tie()
        self.stream.load_state(told["stream"])
        return self.step - 1

    def run(self, settings: Mapping[str, Any], *, ranks: Ranks, metrics: Metrics, split: bool) -> Fitted:
        """Train to the end; `split` gives each rank its part of the rows, else all see all."""
        began, first = time.perf_counter(), self.step
        saved = time.monotonic()
        batches = iter(self.stream)
        rows = self.rows_per_step
        forecast = Forecast(self.steps - first, rows, self.stream, active=ranks.leads)
        bar = console.progress("train", self.steps * rows, done=self.step * rows)
        with stoppable() as stop, bar as shown:
            while self.step < self.steps:
                sums = self._gradient(batches, ranks, split=split)
                due = time.monotonic() - saved >= self.config.checkpoint_seconds
                stopped, keep = self._together(sums, ranks, (stop.is_set(), ranks.leads and due), split=split)
                self._update(ranks, sums)
                forecast.step()
                if metrics.due(self.step - 1) or self.step == self.steps:
                    self._record(metrics, began, first)
                    shown.note = _words(self.figures)
                shown.advance(rows)
                if stopped or keep:
                    self._save(settings, ranks, metrics)
                    saved = time.monotonic()
                if stopped:
                    ranks.any(flag=False)  # torchrun ends all as soon as one has ended: not before this is written
                    raise KeyboardInterrupt
        self._finish()
        rate = (self.step - first) * rows / max(1e-9, time.perf_counter() - began)
        return Fitted(self.step, self.figures, rows, rate)

    def _gradient(self, batches: Iterator[Batch], ranks: Ranks, *, split: bool) -> dict[str, float]:
        """Add up the gradients of a step's parts on this rank."""
        sums: dict[str, float] = {}
        for _ in range(self.config.accumulate):
            batch = next(batches).rows
            n = len(next(iter(batch.values())))
            mine = {name: x[ranks.share(n)] for name, x in batch.items()} if split else batch
            told = self.objective.gradient(mine, step=self.step, total_rows=n * self.config.accumulate)
            for name, value in told.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def _together(
        self, sums: dict[str, float], ranks: Ranks, flags: tuple[bool, bool], *, split: bool
    ) -> tuple[bool, bool]:
        """Add up gradients, sums and flags over ranks."""
        import torch

        if ranks.world == 1:
            return flags
        own = list(sums.values()) if split or ranks.leads else [0.0] * len(sums)
        values = ranks.total(torch.tensor([*own, *map(float, flags)], dtype=torch.float64))
        sums.update(zip(sums, values[:-2].tolist(), strict=True))
        if split:
            for p in self.objective.learnt:
                ranks.total(p.grad)
            moved = self.objective.learnt if self.config.optimizer == "sparse-adam" else []
            for fired in {id(p.fired): p.fired for p in moved if p.fired is not None}.values():
                ranks.most(fired)
        return bool(values[-2] > 0), bool(values[-1] > 0)

    def _update(self, ranks: Ranks, sums: dict[str, float]) -> None:
        from elute.engine.optimizers import norm

        whole, own = norm(self.objective.learnt)
        length = math.sqrt(float(whole + ranks.total(own)))
        if not math.isfinite(length) or not math.isfinite(sums.get("loss", 0.0)):
            kept = " The last checkpoint is kept." if (self.folder / resume.NAME).exists() else ""
            remedy = "Try a lower --lr, a longer --warmup, or --clip 1; look for huge values with `elute arrays stats`."
            raise DataError(
                f"the loss is no longer a number at step {self.step}", where=self.folder, remedy=remedy + kept
            )
        clip = min(1.0, self.config.clip / length) if self.config.clip and length > 0 else 1.0
        share = schedules.rate(self.step, self.steps, warmup=self.config.warmup, decay=self.config.decay)
        every = self.objective.re_norm_interval
        due = every > 0 and (self.step + 1) % every == 0
        self.optimizer.step(self.rate * share, clip=clip, project=self.objective.project, renormalise=due)
        self.objective.after(self.step, self.steps, self.optimizer)
        for p in self.objective.learnt if self.average else ():
            self.average[p.name].lerp_(p.value, 1 - self.config.ema)
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums["steps"] = self.sums.get("steps", 0.0) + 1
        self.sums["length"] = self.sums.get("length", 0.0) + length
        self.step += 1

    def _record(self, metrics: Metrics, began: float, first: int) -> None:
        figures = self.objective.figures(self.sums)
        figures["gradient_norm"] = self.sums["length"] / self.sums["steps"]
        rate = (self.step - first) * self.rows_per_step / max(1e-9, time.perf_counter() - began)
        metrics.log(self.step - 1, figures, extra={"rows_per_second": rate})
        self.sums, self.figures = {}, figures

    def _save(self, settings: Mapping[str, Any], ranks: Ranks, metrics: Metrics) -> None:
        """Write a checkpoint; every rank brings its part."""
        learnt = {p.name: p for p in self.objective.learnt}
        parts = {
            "value": {n: self._whole(p.value, p, ranks) for n, p in learnt.items()},
            "average": {n: self._whole(v, learnt[n], ranks) for n, v in self.average.items()},
            "optimizer": self._moments(self.optimizer.state(), self._whole, ranks),
            "objective": self.objective.state(),
        }
        if ranks.leads:
            metrics.sync()
            told = {"step": self.step, "settings": settings, "stream": self.stream.state(), "sums": self.sums,
                    "figures": self.figures}  # fmt: skip
            resume.save(self.folder, parts, told)

    def _finish(self) -> None:
        for p in self.objective.learnt if self.average else ():
            p.value.copy_(self.average[p.name])
            if p.unit:
                p.value.div_(p.value.norm(dim=1, keepdim=True).clamp(min=1e-30))
        self.objective.tie()

    @staticmethod
    def _whole(t: torch.Tensor, p: Learnt, ranks: Ranks) -> torch.Tensor:
        return t if p.whole else ranks.gather(t)

    @staticmethod
    def _mine(t: torch.Tensor, p: Learnt, ranks: Ranks) -> torch.Tensor:
        return t if p.whole else t[ranks.share(len(t))]

    def _moments(self, state: Mapping[str, Any], part: Callable[[Tensor, Learnt, Ranks], Tensor],
                 ranks: Ranks) -> dict[str, Any]:  # fmt: skip
        """Take `_whole` or `_mine` of every tensor of the optimizer's."""
        learnt = {p.name: p for p in self.objective.learnt}
        return {k: part(v, learnt[k.partition(".")[2]], ranks) if hasattr(v, "shape") else v for k, v in state.items()}


def _words(figures: Mapping[str, float]) -> str:
    """The figures that a progress line shows."""
    shown = {"loss": "loss {:.4f}", "explained_variance": "explained {:.1%}", "l0": "L0 {:.1f}", "dead": "dead {:.1%}"}
    return ", ".join(text.format(figures[name]) for name, text in shown.items() if name in figures)
