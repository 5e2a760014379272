"""What a dictionary learns from rows: losses.py's gradients, dead features, and the price of firing.

Rows are normalised, sites side by side; the loss is the share of the spread that is left over (FVU of the batch, with
the spread measured once) plus penalties. Where an activation does not fix how many features fire, the price of firing
is found while training: it rises while more than k fire on average, and falls while fewer do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.dictionaries import losses
from elute.engine import schedules
from elute.engine.controls import shuffled_columns
from elute.engine.dead import draw_rows
from elute.engine.optimizers import Adam, Learnt
from elute.engine.usage import Usage

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank
    from elute.dictionaries.dictionary import Dictionary
    from elute.dictionaries.folding import Normalisation
    from elute.engine.parallel import Ranks
    from elute.engine.settings import DeadConfig, LearnConfig

_PATIENCE = 0.01  # how fast the price follows


class DictionaryObjective:
    """A dictionary that is being trained."""

    def __init__(
        self,
        dictionary: Dictionary,
        *,
        learn: LearnConfig,
        dead: DeadConfig,
        by: Normalisation,
        spread: float,
        ranks: Ranks,
        seed: int,
        steps: int,
        rows_per_step: int,
        sharded: bool = False,
    ) -> None:
        self.dictionary, self.learn, self.dead, self.by = dictionary, learn, dead, by
        self.spread, self.ranks, self.seed, self.steps, self.sharded = spread, ranks, seed, steps, sharded
        self.rows_per_step = rows_per_step
        self.project, self.re_norm_interval = learn.project, learn.re_norm_interval
        self.usage = Usage(dictionary.n_features)
        self.born = np.zeros(dictionary.n_features, np.int64)  # the step from which silence is counted
        self.now = 0
        self.price = learn.penalty if learn.penalty is not None else 1e-4
        self.fired = [torch.zeros(len(b.W_enc), dtype=torch.uint8, device=b.W_enc.device) for b in dictionary]
        self.last: tuple[Tensor, losses.Told] | None = None
        self.learnt = self._learnt()

    def _learnt(self) -> list[Learnt]:
        """Every parameter that is not held still, with its gradient's buffer."""
        fired = {id(p): f for b, f in zip(self.dictionary, self.fired, strict=True) for p in (b.W_enc, b.W_dec)}
        unit = {id(bank.W_dec) for bank in self.dictionary} if self.re_norm_interval else set()
        found = []
        for name, p in self.dictionary.named_parameters():
            if p.requires_grad:
                p.grad = torch.zeros_like(p)
                whole = not (self.sharded and name.startswith("banks."))
                found.append(Learnt(name, p.data, p.grad, id(p) in unit, fired.get(id(p)), whole))
        return found

    def gradient(self, rows: Mapping[str, Tensor], *, step: int, total_rows: int) -> Mapping[str, float]:
        """Add a part's gradient; return sums over its rows."""
        spec = self.dictionary.spec
        x = self._columns(rows, list(spec.reads))
        y = x if spec.same else self._columns(rows, list(spec.writes))
        if self.learn.control == "shuffled-rows":
            place = self.ranks.rank if not self.sharded else 0
            x = shuffled_columns(x, seed=(self.seed, step, place))
            y = x if spec.same else y
        weight = 1 / (total_rows * self.spread)
        k = schedules.sparsity(
            step, self.steps, first=self.learn.k_start or spec.k, last=spec.k, until=self.learn.k_until
        )
        told = self._loss(x, y, k=k, weight=weight)
        self.usage.update(told.slots, step)
        self.now = step
        for fired, (idx, val) in zip(self.fired, told.slots, strict=True):
            fired[idx[val != 0].long()] = 1
        extra = self._teach(x, told, weight, step)
        self.last = x, told
        l0 = float(sum(int(val.count_nonzero()) for _, val in told.slots))
        if self.sharded:
            l0 = float(self.ranks.total(torch.tensor([l0]))[0])
        return {
            "loss": told.loss + told.penalty + extra,
            "squared": float(told.squared),
            "spread": float(torch.linalg.vector_norm(y)) ** 2,
            "l0": l0,
            "rows": float(len(x)),
        }

    def _loss(self, x: Tensor, y: Tensor, *, k: int, weight: float) -> losses.Told:
        if self.dictionary.sparsity.choose is not None:
            return losses.by_hand(self.dictionary, x, y, k=k, weight=weight)
        # A penalty is charged in units of the spread, like the error.
        price = 0.0 if self.dictionary.sparsity.exact else self.price * self.spread
        return losses.by_autograd(self.dictionary, x, y, k=k, weight=weight, price=price)

    def _teach(self, x: Tensor, told: losses.Told, weight: float, step: int) -> float:
        """Let dead features reconstruct the error, where that is asked for."""
        if not self.dead.teaches:
            return 0.0
        loss = 0.0
        for number, (bank, dead) in enumerate(zip(self.dictionary, self._dead(step), strict=True)):
            if len(dead):
                k = self.dead.aux_k or max(1, bank.W_dec.shape[1] // 2)
                error = told.error[:, bank.span.write].contiguous()
                xs = x[:, bank.span.read].contiguous()
                loss += losses.auxiliary(bank, xs, error, dead=dead, k=k, weight=weight)
                self.fired[number][dead] = 1
        return loss

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        """Begin dead features anew, follow k with the price, and tie what is tied."""
        if self.dead.resamples(step, steps) and self.last is not None:
            self._resample(step, optimizer)
        for fired in self.fired:
            fired.zero_()
        sparsity = self.dictionary.sparsity
        if not sparsity.exact and self.learn.penalty is None and self.last is not None:
            self._follow()
        if sparsity.tied:
            for bank in self.dictionary:
                bank.W_enc.data.copy_(bank.W_dec)

    def _follow(self) -> None:
        """Move the price towards what makes k features fire a row of a bank."""
        told = self.last[1] if self.last else None
        slots = told.slots if told else []
        counts = torch.tensor([float(sum(int((v != 0).sum()) for _, v in slots)), float(len(slots[0][0]) * len(slots))])
        fired, rows = self.ranks.total(counts).tolist()
        ratio = fired / max(1.0, rows) / self.dictionary.spec.k
        self.price *= float(np.exp(_PATIENCE * min(max(ratio - 1, -1.0), 3.0)))

    def _dead(self, step: int) -> list[Tensor]:
        """Features of each bank that have been silent for long, over all ranks."""
        last = torch.from_numpy(np.maximum(self.usage.last, self.born - 1))
        if not self.sharded:
            last = self.ranks.most(last)
        dead = (step - last) * self.rows_per_step >= self.dead.dead_after_rows
        parts = torch.split(dead, [len(bank.W_enc) for bank in self.dictionary])
        return [part.nonzero()[:, 0].to(self.dictionary.device) for part in parts]

    def _resample(self, step: int, optimizer: Adam) -> None:
        assert self.last is not None  # noqa: S101  # the caller has looked
        x, told = self.last
        first = 0
        for number, (bank, silent) in enumerate(zip(self.dictionary, self._dead(step), strict=True)):
            error = -told.error[:, bank.span.write]
            take = self._draw(error, len(silent), seed=(self.seed, step, number))
            dead = silent[: len(take)]
            directions = self._rows(error, take)
            towards = directions if self.dictionary.spec.same else self._rows(x[:, bank.span.read], take)
            if len(dead):
                self._renew(bank, dead, directions, towards)
                for name in (n for n, _ in bank.named_parameters() if f"banks.{number}.{n}" in optimizer.first):
                    optimizer.forget(f"banks.{number}.{name}", dead)
                self.born[first + dead.cpu().numpy()] = step + 1
            first += len(bank.W_enc)

    def _draw(self, error: Tensor, wanted: int, *, seed: tuple[int, ...]) -> Tensor:
        """Draw rows of the whole batch for this rank's dead features, other ranks' features getting others."""
        squared = error.square().sum(1)
        if not self.sharded:
            return draw_rows(self.ranks.gather(squared), wanted, seed=seed)
        counts = self.ranks.gather(torch.tensor([wanted])).tolist()
        drawn = draw_rows(squared, sum(counts), seed=seed)
        before = sum(counts[: self.ranks.rank])
        return drawn[before : before + wanted]

    def _rows(self, values: Tensor, take: Tensor) -> Tensor:
        """Rows of the whole batch, from whichever rank holds them."""
        if self.sharded or self.ranks.world == 1:
            return values[take.to(values.device)]
        counts = self.ranks.gather(torch.tensor([len(values)])).tolist()
        mine = take - sum(counts[: self.ranks.rank])
        here = (mine >= 0) & (mine < len(values))
        found = values.new_zeros(len(take), values.shape[1])
        found[here] = values[mine[here]]
        return self.ranks.total(found)

    def _renew(self, bank: Bank, dead: Tensor, directions: Tensor, towards: Tensor) -> None:
        with torch.no_grad():
            lengths = bank.W_enc.norm(dim=1)
            alive = torch.ones_like(lengths, dtype=torch.bool).index_fill_(0, dead, value=False)
            length = lengths[alive].mean() if bool(alive.any()) else lengths.mean()
            bank.W_dec[dead] = torch.nn.functional.normalize(directions, dim=1)
            bank.W_enc[dead] = torch.nn.functional.normalize(towards, dim=1) * length
            bank.b_enc[dead] = 0
            fresh = self.dictionary.sparsity.tensors(len(dead))
            for name in (n for n in bank.extra if fresh[n].shape == (len(dead),)):
                getattr(bank, name)[dead] = fresh[name].to(bank.W_enc)

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Turn sums of the rows since the last record into figures."""
        dead = sum(len(part) for part in self._dead(self.now))
        return {
            "loss": sums["loss"] / sums["steps"],
            "explained_variance": 1 - sums["squared"] / max(sums["spread"], 1e-300),
            "l0": sums["l0"] / sums["rows"],
            "dead": dead / self.dictionary.n_features,
            **({} if self.dictionary.sparsity.exact else {"price": self.price}),
        }

    def state(self) -> dict[str, Any]:
        """Return all that a later step depends on, besides the parameters."""
        usage = self.usage if self.sharded else self.usage.merge(self.ranks)
        state: dict[str, Any] = {f"usage.{n}": v for n, v in usage.state().items()}
        state["born"] = torch.from_numpy(self.born)
        if self.sharded:
            state = {n: self.ranks.gather(v) if isinstance(v, torch.Tensor) else v for n, v in state.items()}
        buffers = {f"buffer.{n}": b for n, b in self.dictionary.named_buffers()}
        return {**state, **buffers, "price": self.price}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; counts of all ranks go on with the first."""
        mine = {n: self._share(n, v) for n, v in state.items()}
        self.usage.load_state({n.removeprefix("usage."): v for n, v in mine.items() if n.startswith("usage.")})
        if not self.sharded and not self.ranks.leads:
            self.usage.rows = 0
            for array in (self.usage.counts, self.usage.sums, self.usage.bins):
                array[...] = 0
        self.born[...] = mine["born"].numpy()
        for name, buffer in self.dictionary.named_buffers():
            buffer.copy_(state[f"buffer.{name}"])
        self.price = float(state["price"])

    def _share(self, name: str, value: Any) -> Any:
        split = self.sharded and isinstance(value, torch.Tensor) and not name.startswith("buffer.")
        return value[self.ranks.share(len(value))] if split else value

    def _columns(self, rows: Mapping[str, Tensor], sites: list[str]) -> Tensor:
        device = self.dictionary.device
        parts = [self.by[name].apply(rows[name].to(device=device, dtype=torch.float32)) for name in sites]
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=1)
