"""A small network on a small cohort: from a model to rows that anything later can stand on, in half a minute.

1. Make a cohort: 24 donors, each with a shift of its own; a sample is in one of four states, which no single
   measurement tells: the state is the sign of two hidden sums.
2. Draw train, validation and test by donor, and train a network on the donors of the first.
3. Capture two of its sites into a store, check every byte, measure the scaling, and read it back shuffled.
4. Do the same with a network of random weights: what it also gives, training did not bring about.
5. Plant features whose truth is known, and count what a dictionary finds of them (demo_planted.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from elute.base import console, run
from elute.base.errors import DamagedError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.base.statistics.splits import draw_splits
from elute.engine.capture import CaptureConfig, capture_to_store
from elute.reports.build import build_report
from elute.store.reader import Store
from elute.store.scaling import Scaling, StatsConfig, measure
from elute.store.shuffle import ShuffleConfig
from elute.store.splitting import SplitConfig, split_store
from elute.store.verify import verify

if TYPE_CHECKING:
    import torch
    from torch import nn

    from elute.models.module import TorchModel

DONORS, SAMPLES, WIDTH, STATES = 24, 500, 32, 4
SITES = {"early": "1", "late": "3"}


class DemoConfig(Section):
    """What the demonstration does."""

    seed: int = Field(0, ge=0)
    """Seed of the cohort, the network and the splits."""
    steps: int = Field(600, ge=1)
    """Training steps of the network."""
    recapture: bool = False
    """Write the stores anew, whatever lies there."""


def demonstrate(folder: Path, config: DemoConfig) -> Artifact:
    """Run the whole demonstration into a folder; what is already there and still right is reused."""
    from elute.arrays.demo_planted import find_planted

    folder = Path(folder)
    cohort = _cohort(config.seed)
    split = SplitConfig(stratify="label", seed=config.seed)
    summary: dict[str, Any] = {"accuracy": {}, "sites": {}}
    for name, steps in (("trained", config.steps), ("random weights", 0)):
        store = folder / ("activations" if steps else "control_random_weights")
        network, accuracy, common = _train(cohort, split, config.seed, steps)
        summary["accuracy"][name] = accuracy
        summary["accuracy"]["commonest state"] = common
        capture = capture_to_store(
            _model(network),
            cohort,
            store,
            config=CaptureConfig(recapture=config.recapture),
            total_rows=DONORS * SAMPLES,
        )
        drawn = split_store(store, split)
        if bad := verify(store):
            raise DamagedError(f"{bad[0]['file']} {bad[0]['fault']}", where=store, remedy="Run with --recapture.")
        measure(store, StatsConfig(method="pca"))
        summary["sites"][name] = {site: _directions(store, site) for site in SITES}
        if steps:
            summary |= {"store": str(store), "rows": capture.summary["rows"], "split": drawn.summary["rows"]}
            summary |= {"donors": drawn.summary["groups"], "stream": _stream(store, config.seed)}
    summary["dictionary"] = find_planted(folder, seed=config.seed, anew=config.recapture)
    run.record(folder, "demo", config, inputs={}, summary={k: v for k, v in summary.items() if k != "stream"})
    summary["report"] = str(build_report(Path(summary["store"])).path)
    return Artifact("demo", folder, summary)


def _cohort(seed: int) -> dict[str, Any]:
    """Make the samples: x [n, WIDTH], state [n], donor [n]."""
    import numpy as np

    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((2, WIDTH)) / WIDTH**0.5
    donor = np.repeat(np.arange(DONORS), SAMPLES)
    x = rng.standard_normal((DONORS * SAMPLES, WIDTH))
    hidden = x @ axes.T
    state = (hidden[:, 0] > 0) * 2 + (hidden[:, 0] * hidden[:, 1] > 0)
    x += 0.3 * rng.standard_normal((DONORS, WIDTH))[donor]
    return {"x": x.astype(np.float32), "state": state.astype(np.int64), "donor": [f"donor{d:02d}" for d in donor]}


def _train(cohort: dict[str, Any], split: SplitConfig, seed: int, steps: int) -> tuple[nn.Module, float, float]:
    """Train on the donors of the train split; return the network, its accuracy on test donors, and the floor's."""
    import numpy as np
    import torch
    from torch import nn

    labels = np.array([str(s) for s in cohort["state"]], dtype=object)
    donors = np.array(cohort["donor"], dtype=object)
    assigned = draw_splits(donors, labels, fractions=split.fractions, seed=split.seed)
    of = np.array([assigned[d] for d in cohort["donor"]])
    x, y = torch.from_numpy(cohort["x"]), torch.from_numpy(cohort["state"])
    train, test = np.flatnonzero(of == "train"), np.flatnonzero(of == "test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, STATES))
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        with console.progress("train", steps, unit="steps") as bar:
            for _ in range(steps):
                rows = torch.from_numpy(train)[torch.randint(len(train), (256,))]
                loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                bar.advance()
    with torch.no_grad():
        right = float((network(x[test]).argmax(1) == y[test]).float().mean())
    common = int(torch.bincount(y[train]).argmax())
    return network, right, float((y[test] == common).float().mean())


def _model(network: nn.Module) -> TorchModel:
    """Give the network names for two of its places, and a way from data to batches."""
    import torch

    from elute.models.module import TorchModel

    def batches(cohort: dict[str, Any]) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
        for start in range(0, len(cohort["x"]), SAMPLES):
            stop = start + SAMPLES
            metadata = {
                "sample_id": [f"sample{i:05d}" for i in range(start, stop)],
                "group": cohort["donor"][start:stop],
                "label": [f"state{s}" for s in cohort["state"][start:stop]],
            }
            yield torch.from_numpy(cohort["x"][start:stop]), metadata

    return TorchModel(network, SITES, batches, name="demo-network")


def _directions(store: Path, site: str) -> int:
    """Count the directions that hold 95% of a site's variance."""
    import numpy as np

    variances = np.asarray(Scaling.of(store).site(site).variances)
    share = np.cumsum(variances) / variances.sum()
    return int(np.searchsorted(share, 0.95)) + 1


def _stream(folder: Path, seed: int) -> dict[str, Any]:
    """Read the training rows once in random order, and say how long the reader waited."""
    store = Store(folder)
    stream = store.shuffled(ShuffleConfig(batch_size=512, seed=seed), where=store.select(split="train"))
    began = time.perf_counter()
    for _ in stream:
        pass
    seconds = time.perf_counter() - began
    return {"rows": stream.report.rows, "seconds": round(seconds, 3)}
