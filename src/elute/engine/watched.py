"""A dictionary in training that is charged for more than its error, and looked at now and then.

Terms are those of dictionaries/terms.py. A watcher is told the sums of every part and may, after any step, ask for the
dictionary as it would be saved now; what it remembers is kept in the training's checkpoints, so that what it writes is
the same after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from elute.dictionaries import losses
from elute.dictionaries.terms import TermsConfig, charge
from elute.engine.objective import DictionaryObjective

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.optimizers import Adam
    from elute.engine.records import Counted


class Watcher(Protocol):
    """What looks at a training."""

    def told(self, sums: Mapping[str, float]) -> None:
        """Take in the sums of a part of a batch, as `Objective.gradient` returns them."""

    def after(self, step: int, steps: int, dictionary: Callable[[], Dictionary]) -> None:
        """Look, where it is time to, at the dictionary as it would be saved after this step."""

    def figures(self) -> dict[str, float]:
        """Return what was found last, for the records."""

    def histograms(self) -> Mapping[str, Counted]:
        """Return histograms for trackers, each once."""

    def state(self) -> dict[str, Any]:
        """Return what is remembered, as JSON."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


class WatchedObjective(DictionaryObjective):
    """A dictionary with terms beside its error, and a watcher."""

    terms: TermsConfig = TermsConfig()
    watcher: Watcher | None = None
    saved: Callable[[], Dictionary]
    part_of, at = 1, 0  # rows of the whole step, and which it is

    def also(self, terms: TermsConfig | None, watcher: Watcher | None, *, saved: Callable[[], Dictionary]) -> None:
        """Charge these terms, and let this watcher look; `saved` makes the dictionary of raw rows."""
        self.terms, self.watcher, self.saved = terms or TermsConfig(), watcher, saved

    def gradient(self, rows: Mapping[str, Tensor], *, step: int, total_rows: int) -> Mapping[str, float]:
        """Add a part's gradient; return sums over its rows."""
        self.part_of, self.at = total_rows, step
        sums = dict(super().gradient(rows, step=step, total_rows=total_rows))
        if self.terms.charges and self.last is not None:
            sums["terms"] = self.last[1].terms
            sums["loss"] += sums["terms"]
        if self.watcher is not None:
            self.watcher.told(sums)
        return sums

    def _loss(self, x: Tensor, y: Tensor, *, k: int, weight: float) -> losses.Told:
        rising = self.terms.penalty_warmup * self.steps
        risen = min(1.0, (self.at + 1) / rising) if rising and self.learn.penalty is not None else 1.0
        if not self.terms.charges and risen == 1.0:
            return super()._loss(x, y, k=k, weight=weight)

        def more(values: list[Tensor], y_hat: Tensor) -> Tensor:
            return charge(
                self.dictionary, self.terms, values=values, y=y, y_hat=y_hat, mean=self.mean, spread=self.spread,
                rows=self.part_of,
            )  # fmt: skip

        price = 0.0 if self.dictionary.sparsity.exact else self.price * self.spread * risen
        asked = more if self.terms.charges else None
        return losses.by_autograd(self.dictionary, x, y, k=k, weight=weight, price=price, terms=asked)

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        """Do what follows an update, then look."""
        super().after(step, steps, optimizer)
        if self.watcher is not None:
            self.watcher.after(step, steps, self.saved)

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Turn sums into figures, with what the watcher found last."""
        told = super().figures(sums)
        if self.terms.charges:
            told["terms"] = sums.get("terms", 0.0) / sums["steps"]
        return {**told, **({} if self.watcher is None else self.watcher.figures())}

    def histograms(self) -> Mapping[str, Counted]:
        """Return what the watcher has for trackers."""
        return {} if self.watcher is None else self.watcher.histograms()

    def state(self) -> dict[str, Any]:
        """Return all that a later step depends on, besides the parameters."""
        return {**super().state(), **({} if self.watcher is None else {"watched": self.watcher.state()})}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        super().load_state({name: value for name, value in state.items() if name != "watched"})
        if self.watcher is not None:
            self.watcher.load_state(state["watched"])
