"""What a dictionary learns from rows: losses.py's gradients, dead features, and the price of firing.

Rows are normalised, sites side by side; the loss is the share of the spread that is left over (FVU of the batch, with
the spread measured once) plus penalties. Where an activation does not fix how many features fire, the price of firing
is found while training: it rises while more than k are about to fire on average, and falls while fewer are. What is
about to fire is told by two running means, a quick and a slow one: thresholds follow the price late, and a price that
looks at what fires now rises far beyond what is needed before they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.dictionaries import losses
from elute.engine import schedules
from elute.engine.controls import shuffled_columns, shuffled_rows
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
_NEAR, _FAR, _LEAD = 0.1, 0.02, 3.0  # shares of the new in two running means, and how far their ratio is carried on


class DictionaryObjective:
    """A dictionary that is being trained."""

    def __init__(
        self,
        dictionary: Dictionary,
        *,
        learn: LearnConfig,
        dead: DeadConfig,
        by: Normalisation,
        mean: Tensor,
        spread: float,
        ranks: Ranks,
        seed: int,
        steps: int,
        rows_per_step: int,
        sharded: bool = False,
    ) -> None:
        self.dictionary, self.learn, self.dead, self.by = dictionary, learn, dead, by
        self.spread, self.ranks, self.seed, self.steps, self.sharded = spread, ranks, seed, steps, sharded
        self.mean, self.rows_per_step = mean, rows_per_step
        self.project, self.re_norm_interval = learn.project, learn.re_norm_interval
        held = sum(len(bank.W_enc) for bank in dictionary)
        self.usage = Usage(held)
        self.born = np.zeros(held, np.int64)  # the step from which silence is counted
        self.now = 0
        self.pace: tuple[float, float] | None = None  # running means of what fires, in units of k
        self.price = learn.penalty if learn.penalty is not None else 1e-4
        self.fired = [torch.zeros(len(b.W_enc), dtype=torch.uint8, device=b.W_enc.device) for b in dictionary]
        self.last: tuple[Tensor, losses.Told] | None = None
        self.charged = 0.0  # for what fired in the last part, a row, in units of the spread
        self.learnt = self._learnt()
        for bank in dictionary:  # where rows are spread, what a bank takes from its batch it takes from all ranks'
            bank.ranks = None if sharded or ranks.world == 1 else ranks

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
            shuffle = shuffled_columns if spec.mirrored else shuffled_rows
            x = shuffle(x, seed=(self.seed, step, place))
            y = x if spec.mirrored else y
        weight = 1 / (total_rows * self.spread)
        k = schedules.sparsity(
            step, self.steps, first=self.learn.k_start or spec.k, last=spec.k, until=self.learn.k_until
        )
        told = self._loss(x, y, k=k, weight=weight)
        self.charged = told.penalty * total_rows / max(1, len(x))
        self.usage.update(told.slots, step)
        self.now = step
        for fired, (idx, val) in zip(self.fired, told.slots, strict=True):
            fired[idx[val != 0].long()] = 1
        extra = self._teach(x, told, weight, step)
        self.last = x, told
        l0 = float(sum(int(val.count_nonzero()) for _, val in told.slots))
        if self.sharded:
            l0 = float(self.ranks.total(torch.tensor([l0], dtype=torch.float64))[0])
        return {
            "loss": told.loss + told.penalty + extra,
            "squared": float(told.squared),
            "spread": float(torch.linalg.vector_norm(y - self.mean)) ** 2,
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
            if self.ranks.any(len(dead) > 0) if self.sharded else len(dead):
                k = self.dead.aux_k or max(1, bank.W_dec.shape[1] // 2)
                error = told.error[:, bank.span.write].contiguous()
                xs = x[:, bank.span.read].contiguous()
                shards = self.dictionary.shards
                loss += losses.auxiliary(bank, xs, error, dead=dead, k=k, weight=weight, shards=shards)
                self.fired[number][dead] = 1
        return loss

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        """Begin dead features anew, follow k with the price, and tie what is tied."""
        if self.dead.resamples(step, steps) and self.last is not None:
            self._resample(step, optimizer)
        for fired in self.fired:
            fired.zero_()
        if not self.dictionary.sparsity.exact and self.learn.penalty is None and self.last is not None:
            self._follow()
        self.tie()

    def tie(self) -> None:
        """Make the encoder the decoder again, where they are one."""
        if self.dictionary.sparsity.tied:
            for bank in self.dictionary:
                bank.W_enc.data.copy_(bank.W_dec)

    def _follow(self) -> None:
        """Move the price towards what makes k features fire a row of a bank."""
        slots = self.last[1].slots if self.last else []
        n = len(slots[0][0])
        here = [float(sum(int((v != 0).sum()) for _, v in slots)), self.charged * n, float(n)]
        fired, charged, rows = self.ranks.total(torch.tensor(here, dtype=torch.float64)).tolist()
        now = max(fired / rows / len(slots) / self.dictionary.spec.k, 1e-3)
        near, far = self.pace or (now, now)
        self.pace = near, far = near + _NEAR * (now - near), far + _FAR * (now - far)
        off = min(max(near * (near / far) ** _LEAD - 1, -1.0), 3.0)
        # What fires cannot explain more than the whole spread: a price above that would only take long to come down.
        if off < 0 or charged < rows:
            self.price *= float(np.exp(_PATIENCE * off))

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
            towards = directions if self.dictionary.spec.mirrored else self._rows(x[:, bank.span.read], take)
            length = self._usual_length(bank, dead)
            if len(dead):
                self._renew(bank, dead, directions, torch.nn.functional.normalize(towards, dim=1) * length)
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

    @torch.no_grad()
    def _usual_length(self, bank: Bank, dead: Tensor) -> float:
        """Mean length of the encoder's rows of living features, of all ranks where features are spread."""
        lengths = bank.W_enc.norm(dim=1).double()
        alive = torch.ones_like(lengths).index_fill_(0, dead, value=0.0)
        sums = torch.stack([lengths @ alive, alive.sum(), lengths.sum(), torch.ones_like(alive).sum()]).cpu()
        living, n, whole, features = (self.ranks.total(sums) if self.sharded else sums).tolist()
        return float(living / n if n else whole / features)

    def _renew(self, bank: Bank, dead: Tensor, directions: Tensor, towards: Tensor) -> None:
        with torch.no_grad():
            bank.W_dec[dead] = torch.nn.functional.normalize(directions, dim=1)
            bank.W_enc[dead] = towards
            bank.b_enc[dead] = 0
            fresh = self.dictionary.sparsity.tensors(len(dead))
            for name in fresh.keys() & dict(bank.named_parameters()).keys():
                getattr(bank, name)[dead] = fresh[name].to(bank.W_enc)

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Turn sums of the rows since the last record into figures."""
        dead = float(sum(len(part) for part in self._dead(self.now)))
        if self.sharded:
            dead = float(self.ranks.total(torch.tensor([dead]))[0])
        return {
            "loss": sums["loss"] / sums["steps"],
            "explained_variance": 1 - sums["squared"] / max(sums["spread"], 1e-300),
            "l0": sums["l0"] / sums["rows"],
            "dead": dead / self.dictionary.n_features,
            **({} if self.dictionary.sparsity.exact else {"price": self.price}),
        }

    def used(self) -> Usage:
        """Return how all features have been used, over all ranks; every rank must ask."""
        if not self.sharded:
            return self.usage.merge(self.ranks)
        whole = Usage(self.dictionary.n_features)
        state = self.usage.state().items()
        whole.load_state({n: self.ranks.gather(v) if isinstance(v, torch.Tensor) else v for n, v in state})
        return whole

    def state(self) -> dict[str, Any]:
        """Return all that a later step depends on, besides the parameters."""
        state: dict[str, Any] = {f"usage.{n}": v for n, v in self.used().state().items()}
        born, sums = torch.from_numpy(self.born), torch.from_numpy(self.usage.sums)
        state["born"] = self.ranks.gather(born) if self.sharded else born
        if not self.sharded:  # each goes on with its own: adding up in another order would change the last bits
            state["usage.sums"] = self.ranks.gather(sums[None])
        buffers = {f"buffer.{n}": b for n, b in self.dictionary.named_buffers()}
        pace = {} if self.pace is None else {"near": self.pace[0], "far": self.pace[1]}
        return {**state, **buffers, **pace, "price": self.price}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; counts of all ranks go on with the first."""
        sums = state["usage.sums"].reshape(-1, self.dictionary.n_features)
        own = not self.sharded and len(sums) == self.ranks.world
        state = {**state, "usage.sums": sums[self.ranks.rank] if own else sums.sum(0)}
        mine = {n: self._share(n, v) for n, v in state.items()}
        self.usage.load_state({n.removeprefix("usage."): v for n, v in mine.items() if n.startswith("usage.")})
        if not self.sharded and not self.ranks.leads:
            self.usage.rows = 0
            for array in (self.usage.counts, self.usage.bins, *(() if own else (self.usage.sums,))):
                array[...] = 0
        self.born[...] = mine["born"].numpy()
        for name, buffer in self.dictionary.named_buffers():
            buffer.copy_(state[f"buffer.{name}"])
        self.price = float(state["price"])
        self.pace = (float(state["near"]), float(state["far"])) if "near" in state else None

    def _share(self, name: str, value: Any) -> Any:
        split = self.sharded and isinstance(value, torch.Tensor) and not name.startswith("buffer.")
        return value[self.ranks.share(len(value))] if split else value

    def _columns(self, rows: Mapping[str, Tensor], sites: list[str]) -> Tensor:
        device = self.dictionary.device
        parts = [self.by[name].apply(rows[name].to(device=device, dtype=torch.float32)) for name in sites]
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=1)
