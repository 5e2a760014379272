"""What a graph explains: some numbers that a model gives, and how much each counts.

    Outputs(lambda out: out["logits"][0, step])                              # a choice: the likeliest, by probability
    Outputs(lambda out: out.expr_preds[0], weights={17: 1.0}, centred=False)   # one predicted value

Of a choice the likeliest alternatives are explained, as few as have `share` of the probability and `most` at most, each
against the mean of all that can be chosen (-inf marks what cannot): what is added to all of them decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elute.base.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Which numbers of a model's output are explained."""

    read: Callable[[Any], Tensor]  # what the model returns -> a vector [alternatives]
    labels: Mapping[int, str] | Sequence[str] = ()  # what an alternative is called; else its number
    weights: Mapping[int, float] | None = None  # which count, and how much; None: by their probability
    most: int = 10
    share: float = 0.95
    centred: bool = True
    position: int | None = None  # where in the graph they stand; the last position if None

    def __post_init__(self) -> None:
        """Refuse settings that choose nothing."""
        if self.most < 1 or not 0 < self.share <= 1:
            raise ConfigError(
                f"most={self.most}, share={self.share}", where="outputs", remedy="Give 1 or more, 0 to 1."
            )
        if self.weights is not None and (
            not self.weights or not all(math.isfinite(w) and w > 0 for w in self.weights.values())
        ):
            raise ConfigError(
                "weights must be numbers above 0", where="outputs", remedy="Leave out what does not count."
            )

    def choose(self, vector: Tensor) -> Chosen:
        """Choose by what the model gave."""
        import torch

        x = _checked(vector).detach().double()
        if self.weights is not None:
            ids = list(self.weights)
            if wrong := [i for i in ids if not 0 <= i < len(x) or not bool(torch.isfinite(x[i]))]:
                what = f"there is no number {wrong[0]} among the {len(x)} that the model gives"
                raise DataError(what, where="outputs", remedy="Count them from 0; -inf is none.")
            weights = [float(self.weights[i]) for i in ids]
        else:
            shares, order = x.softmax(0).sort(descending=True, stable=True)
            reached = int((shares.cumsum(0) < self.share - 1e-12).sum()) + 1
            ids = order[: min(reached, self.most, int((shares > 0).sum()))].tolist()
            weights = shares[: len(ids)].tolist()
        able = torch.isfinite(x).nonzero()[:, 0]
        return Chosen(self, tuple(ids), tuple(weights), tuple(map(self.label, ids)), able.to(vector.device))

    def label(self, number: int) -> str:
        """Return what an alternative is called."""
        if isinstance(self.labels, Mapping):
            return self.labels.get(number, str(number))
        return self.labels[number] if number < len(self.labels) else str(number)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The numbers that a graph explains, by what the model gave once."""

    of: Outputs
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    labels: tuple[str, ...]
    able: Tensor = field(repr=False)  # which alternatives there are

    def values(self, output: Any) -> Tensor:
        """Read them from what the model returns, [chosen]."""
        vector = _checked(self.of.read(output))
        chosen = vector[list(self.ids)]
        return chosen - vector[self.able].mean() if self.of.centred else chosen

    def every(self, output: Any) -> Tensor:
        """Read all alternatives that there are, [alternatives]."""
        return _checked(self.of.read(output))[self.able]


def _checked(vector: Any) -> Tensor:
    import torch

    if not isinstance(vector, torch.Tensor) or vector.ndim != 1 or not len(vector):
        got = list(vector.shape) if isinstance(vector, torch.Tensor) else f"a {type(vector).__name__}"
        raise DataError(f"what is read is {got}", where="outputs", remedy="Return a vector of the alternatives.")
    if bool(vector.isnan().any()) or bool(vector.isposinf().any()) or bool(vector.isneginf().all()):
        raise DataError("what is read holds NaN or infinity", where="outputs", remedy="Check the input and the model.")
    return vector
