"""Adam over rows: each row is a feature, and is clipped, stepped, and put back on the sphere in one pass.

D. Kingma, J. Ba, "Adam", 2015. For a row w of a parameter whose rows keep length 1, in this order:
1. g ← clip · g, less its part along w (it would only change the length).
2. m ← β₁ m + (1−β₁) g;  v ← β₂ v + (1−β₂) g²;  w ← w − rate · m̂ / (√v̂ + ε)
3. w ← w / ‖w‖, where it is due.
4. The gradient's memory is cleared for the next batch.

`sparse-adam` leaves rows alone whose feature did not fire: their moments wait and neither decay nor move them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base.compiled import compiled, over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from elute.engine.settings import OptimizerKind

BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(eq=False)
class Learnt:
    """A parameter, where its gradient is gathered, and how its rows are kept."""

    name: str
    value: Tensor
    grad: Tensor
    unit: bool = False  # rows keep length 1
    fired: Tensor | None = None  # uint8[rows]: 1 where the row's feature fired since the last step
    whole: bool = True  # every rank holds all of it, else each its own rows


class Adam:
    """Moments of every parameter, and one step over all."""

    def __init__(self, learnt: list[Learnt], kind: OptimizerKind = "adam") -> None:
        self.learnt, self.kind = learnt, kind
        self.steps = 0
        self.first = {p.name: torch.zeros_like(p.value) for p in learnt}
        self.second = {p.name: torch.zeros_like(p.value) for p in learnt}

    def step(self, rate: float, *, clip: float = 1.0, project: bool = True, renormalise: bool = True) -> None:
        """Move every parameter, and clear its gradient; `clip` scales all gradients."""
        self.steps += 1
        for p in self.learnt:
            rows = p.value if p.value.ndim == 2 else p.value[None]
            shaped = [t.view_as(rows) for t in (p.grad, self.first[p.name], self.second[p.name])]
            fired = p.fired if self.kind == "sparse-adam" else None
            options = (p.unit and project, p.unit and renormalise)
            if rows.device.type == "cpu" and rows.is_contiguous():
                self._compiled(rows, shaped, (rate, clip), options, fired)
            else:
                self._plain(rows, shaped, (rate, clip), options, fired)

    def forget(self, name: str, rows: Tensor) -> None:
        """Clear the moments of some rows: their features begin anew."""
        self.first[name][rows] = 0
        self.second[name][rows] = 0

    def state(self) -> dict[str, Any]:
        """Return everything that a later step depends on."""
        moments = {f"first.{n}": t for n, t in self.first.items()} | {f"second.{n}": t for n, t in self.second.items()}
        return {"steps": self.steps, **moments}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.steps = int(state["steps"])
        for name in self.first:
            self.first[name].copy_(state[f"first.{name}"])
            self.second[name].copy_(state[f"second.{name}"])

    def _sizes(self, rate: float) -> tuple[float, float]:
        """The step's length and ε with the corrections for the moments' start folded in."""
        correct = math.sqrt(1 - BETAS[1] ** self.steps)
        return rate * correct / (1 - BETAS[0] ** self.steps), EPS * correct

    def _compiled(self, w: Tensor, others: list[Tensor], scale: Any, options: Any, fired: Tensor | None) -> None:
        real = w.numpy().dtype.type
        length, eps = self._sizes(scale[0])
        numbers = [real(z) for z in (length, eps, scale[1], BETAS[0], 1 - BETAS[0], BETAS[1], 1 - BETAS[1])]
        touched = np.ones(0, np.uint8) if fired is None else fired.numpy()
        over(len(w), _adam, w.numpy(), *(t.numpy() for t in others), touched, *numbers, *options)

    def _plain(self, w: Tensor, others: list[Tensor], scale: Any, options: Any, fired: Tensor | None) -> None:
        g, m, v = others
        length, eps = self._sizes(scale[0])
        g.mul_(scale[1])
        if options[0]:
            g.sub_((g * w).sum(1, keepdim=True) / (w * w).sum(1, keepdim=True).clamp(min=1e-30) * w)
        rows = slice(None) if fired is None or w.shape[0] == 1 else fired.bool()
        m[rows] = m[rows].lerp(g[rows], 1 - BETAS[0])
        v[rows] = v[rows] * BETAS[1] + (1 - BETAS[1]) * g[rows].square()
        w[rows] = w[rows] - length * m[rows] / (v[rows].sqrt() + eps)
        if options[1]:
            w[rows] = w[rows] / w[rows].norm(dim=1, keepdim=True).clamp(min=1e-30)
        g.zero_()


@compiled
def _adam(
    w: Any, g: Any, m: Any, v: Any, fired: Any, length: Any, eps: Any, clip: Any, old1: Any, new1: Any,
    old2: Any, new2: Any,
    project: bool, unit: bool, lo: int, hi: int,
) -> None:  # fmt: skip
    zero = eps * 0
    for f in range(lo, hi):
        wf, gf, mf, vf = w[f], g[f], m[f], v[f]
        width = wf.shape[0]
        if fired.shape[0] == w.shape[0] and fired[f] == 0:
            for j in range(width):
                gf[j] = 0  # a penalty may have left something; it must not wait for the row to fire
            continue
        along = zero
        if project:
            square = zero
            for j in range(width):
                along += gf[j] * wf[j]
                square += wf[j] * wf[j]
            along = along / square if square > 0 else zero
        for j in range(width):
            grad = (gf[j] - along * wf[j]) * clip
            mf[j] = old1 * mf[j] + new1 * grad
            vf[j] = old2 * vf[j] + new2 * grad * grad
            wf[j] -= length * mf[j] / (np.sqrt(vf[j]) + eps)
            gf[j] = 0
        if unit:
            total = zero
            for j in range(width):
                total += wf[j] * wf[j]
            size = np.sqrt(total) if total > 0 else zero + 1
            for j in range(width):
                wf[j] /= size


def norm(learnt: list[Learnt]) -> tuple[Tensor, Tensor]:
    """Squared length of the gradient: of what every rank holds whole, and of its own rows."""
    parts = [torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)]
    for p in learnt:
        parts[0 if p.whole else 1] += float(torch.linalg.vector_norm(p.grad)) ** 2
    return parts[0], parts[1]
