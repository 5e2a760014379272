"""elute itself, run by the project's own interpreter: the steps of its loop, fed one batch at a time."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from worker import Setting

SITE = "rows"
SAMPLE = 8192  # rows that mean and spread are measured on


def load() -> tuple[str, str]:
    importlib.import_module("elute.engine.fit")
    return "elute", importlib.metadata.version("elute")


def build(setting: Setting) -> Elute:
    return Elute(setting)


class _Fed:
    """A stream of the batches that it is fed."""

    def __init__(self) -> None:
        self.x: Any = None

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield SimpleNamespace(rows={SITE: self.x})


class Elute:
    """A dictionary with the loop that trains it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.stream = _Fed()
        self.fit: Any = None

    def _begin(self, x: torch.Tensor) -> None:
        """Measure and draw on the first batch, as a training does on a sample before its first step."""
        from elute.dictionaries.spec import DictionarySpec
        from elute.engine.begin import begin, centre
        from elute.engine.fit import Fit, FitConfig
        from elute.engine.normalise import normalisation
        from elute.engine.objective import DictionaryObjective
        from elute.engine.parallel import Ranks
        from elute.engine.settings import DeadConfig, LearnConfig

        s = self.setting
        sites = {SITE: s.d_in}
        self.spec = DictionarySpec(reads=sites, writes=sites, n_features=s.n_features, k=s.k)
        learn = LearnConfig()
        learn = learn.model_copy(update={"encoder_scale": learn.encoder_scale * s.init_scale})
        rows = {SITE: x[:SAMPLE]}
        self.by = normalisation(learn.normalise, SimpleNamespace(folder=Path()), rows, k=s.k)  # type: ignore[arg-type]
        self.dictionary = begin(self.spec, learn, seed=s.seed)
        mean, spread = centre(self.dictionary, {SITE: self.by[SITE].apply(rows[SITE])}, learn)
        dead = DeadConfig(dead="both" if s.aux else "resample", dead_after_rows=s.dead_rows)
        config = FitConfig(
            lr=s.lr, warmup=s.warmup / s.steps, decay=s.decay / s.steps, batch_size=s.batch, steps=s.steps
        )
        objective = DictionaryObjective(
            self.dictionary, learn=learn, dead=dead, by=self.by, mean=mean, spread=spread, ranks=Ranks(), seed=s.seed,
            steps=s.steps, rows_per_step=s.batch,
        )  # fmt: skip
        self.ranks = Ranks()
        self.fit = Fit(objective, self.stream, config, folder=Path(), steps=s.steps)
        self.batches = iter(self.stream)

    def step(self, x: torch.Tensor) -> float:
        if self.fit is None:
            self._begin(x)
        self.stream.x = x
        sums = self.fit._gradient(self.batches, self.ranks, split=True)
        self.fit._update(self.ranks, sums)
        return float(sums["loss"])

    def freeze(self) -> None:
        from elute.dictionaries.folding import fold

        self.folded = fold(self.dictionary, self.spec, self.by)

    def encode(self, x: torch.Tensor) -> Any:
        return self.folded.encode(x)

    def decode(self, codes: Any) -> torch.Tensor:
        y: torch.Tensor = self.folded.decode(codes)
        return y

    def decoder(self) -> torch.Tensor:
        return self.dictionary.directions()
