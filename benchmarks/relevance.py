"""RelMax of one gene over 256 samples × 6,144 codes: ours beside zennit-crp and beside the generic way, in turn.

All take the same codes (64 of 6,144 fire in a sample) and the same linear head, and give for every code the 40 samples
of most relevance and of most activation; the scores above 0 must agree. Ours also gives the lists below 0, those of the
strongest token, sums by code with their controls, the codes of each sample, and checks conservation.

- zennit-crp runs in a process of its own, in the peers' environment if it is installed there; it imports torchvision
  and matplotlib for pictures alone, and gets empty modules in their place.
- the generic way is what its method comes to in plain PyTorch: a gradient with the rule ε, dense relevance, and a sort
  of every code's column for each batch of 32 samples.

Then all genes of a head of 2,000 in one pass, the same with 196 tokens a sample, and memory over many tokens.

    python benchmarks/relevance.py [--rounds 5] [--small] [--peer-python PYTHON] [--peer-path FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

CODES, FIRING, KEPT, BATCH = 6144, 64, 40, 32
HERE = Path(__file__).parent
PEERS = HERE / "peers" / ".venv" / "bin" / "python"
RESULT = HERE / "results" / "relevance.json"


def made(samples: int, seed: int = 0) -> np.ndarray:
    """Codes [samples, 6144] of which 64 fire."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((samples, CODES), np.float32)
    for row in dense:
        row[rng.choice(CODES, FIRING, replace=False)] = rng.gamma(2, 0.5, FIRING)
    return dense


def head(genes: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(genes, CODES)).astype(np.float32) / 8, rng.normal(size=genes).astype(np.float32)


def tokens(samples: int, per_sample: int, *, firing: int = 32, first: int = 0) -> Iterator[tuple[Any, Any]]:
    """Batches of 32 samples' tokens: neighbours share most of what fires, as patches of a tile do."""
    import polars as pl

    from elute.base.codes import Codes

    for start in range(first, first + samples, BATCH):
        n = min(BATCH, first + samples - start)
        rng = np.random.default_rng([2, start])
        own = rng.integers(0, CODES // firing, (n, 1, firing)) + rng.integers(0, 8, (n, per_sample, firing))
        idx = (own % (CODES // firing) + np.arange(firing) * (CODES // firing)).reshape(-1, firing).astype(np.int32)
        val = rng.gamma(2, 0.5, idx.shape).astype(np.float32)
        at = np.tile(np.arange(per_sample), n)
        spots = pl.Series(np.stack([at // 14, at % 14], 1).astype(np.int32), dtype=pl.Array(pl.Int32, 2))
        frame = pl.DataFrame({"sample_id": np.repeat([f"s{start + i:07d}" for i in range(n)], per_sample)})
        codes = Codes(torch.from_numpy(idx), torch.from_numpy(val), CODES)
        yield codes, frame.with_columns(spots.alias("token_rc"))


def sparse(dense: np.ndarray) -> Any:
    from elute.base.codes import Codes

    return Codes.from_dense(torch.from_numpy(dense), FIRING)


def ours(codes: Any, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    from elute.analysis.relevance import RelevancePass
    from elute.analysis.relevance_head import Explained
    from elute.analysis.relevance_stream import whole_samples

    explained = Explained.of([(weight, bias)], pool="none")
    run = RelevancePass(explained, {"y": 0}, k=KEPT)
    for part in whole_samples(codes, explained):
        run.update(part)
    run.result()
    lists = run.references.lists
    return {kind: run.references.scores[lists.index((kind, "sum", "+"))].T for kind in ("relmax", "actmax")}


def generic(dense: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Dense, batch by batch: forward, gradient of the modified output, a sort of each column with what was kept."""
    w, b = torch.from_numpy(weight), torch.from_numpy(bias)
    held = {kind: (torch.zeros(0, CODES), torch.zeros(0, CODES, dtype=torch.long)) for kind in ("relmax", "actmax")}
    for start in range(0, len(dense), BATCH):
        z = torch.from_numpy(dense[start : start + BATCH]).requires_grad_()
        out = z @ w.T + b
        s = torch.zeros_like(out)
        s[:, 0] = out.detach()[:, 0] / (out.detach()[:, 0] + 1e-9 * torch.where(out.detach()[:, 0] >= 0, 1.0, -1.0))
        (slope,) = torch.autograd.grad(out, z, s)
        for kind, values in (("relmax", z.detach() * slope), ("actmax", z.detach())):
            ids = torch.arange(start, start + len(values))[:, None].expand(-1, CODES)
            scores, named = torch.cat([held[kind][0], values]), torch.cat([held[kind][1], ids])
            order = scores.argsort(0, descending=True)[:KEPT]
            held[kind] = scores.gather(0, order), named.gather(0, order)
    return {kind: scores.numpy() for kind, (scores, _) in held.items()}


def alike(mine: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for kind, scores in other.items():
        np.testing.assert_allclose(np.maximum(mine[kind], 0), np.maximum(scores, 0), rtol=1e-4, atol=1e-6)


class Empty(ModuleType):
    """A module that has a class of any name."""

    __path__ = ()  # a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Pictures(MetaPathFinder, Loader):
    """Empty modules in the place of those that show pictures, where these are not installed."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ("torchvision", "matplotlib") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        del module


def peer(samples: int, folder: str) -> None:
    """zennit-crp, in its own process: prints its seconds and leaves its lists in the folder."""
    sys.meta_path.append(Pictures())
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization
    from torch import nn
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight, bias = head(5)
            self.latent, self.out = nn.Identity(), nn.Linear(CODES, 5)
            self.out.weight.data, self.out.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.latent(x))

    torch.set_num_threads(1)
    dense = torch.from_numpy(made(samples))
    data = [(row, 0) for row in dense]
    way = CondAttribution(Network())
    seen = FeatureVisualization(way, data, {"latent": ChannelConcept()}, abs_norm=False, path=folder)
    sys.stdout = sys.stderr
    began = time.process_time()
    seen.run(LayerMapComposite([(nn.Linear, Epsilon(1e-9))]), 0, samples, batch_size=BATCH)
    print(json.dumps({"seconds": time.process_time() - began}), file=sys.__stdout__)


def zennit(samples: int, asked: argparse.Namespace) -> tuple[float, dict[str, np.ndarray]] | str:
    """Seconds and lists of zennit-crp, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        path = {"PYTHONPATH": asked.peer_path} if asked.peer_path else {}
        words = [asked.peer_python, str(Path(__file__).resolve()), "--peer", folder, "--samples", str(samples)]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=900, check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1", **path},
            )  # fmt: skip
        except OSError as error:
            return f"not run: {error}"
        if done.returncode:
            return f"not run: {(done.stderr.splitlines() or [''])[-1]}"
        lists = {}
        for kind, name in (("relmax", "RelMax"), ("actmax", "ActMax")):
            found = next(Path(folder).parent.glob(f"{Path(folder).name}/**/{name}_sum_unnormed/latent_rel.npy"))
            lists[kind] = np.lib.format.open_memmap(found, mode="r").copy()
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"]), lists


def timed(way: Callable[[], Any]) -> float:
    began = time.process_time()
    way()
    return time.process_time() - began


def one_gene(asked: argparse.Namespace) -> dict[str, Any]:
    samples = 64 if asked.small else 256
    dense, (weight, bias) = made(samples), head(5)
    codes = sparse(dense)
    alike(ours(codes, weight, bias), generic(dense, weight, bias))  # also compiles
    taken: dict[str, list[float]] = {"elute": [], "zennit-crp": [], "the generic way": []}
    told = ""
    for _ in range(asked.rounds):
        taken["elute"].append(timed(lambda: ours(codes, weight, bias)))
        found = told or zennit(samples, asked)
        if isinstance(found, str):
            told = found
        else:
            taken["zennit-crp"].append(found[0])
            alike(ours(codes, weight, bias), found[1])
        taken["the generic way"].append(timed(lambda: generic(dense, weight, bias)))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items() if seconds}
    print(f"one gene, {samples} samples × {CODES:,} codes; CPU seconds, medians of {asked.rounds}, one thread")
    for name, seconds in medians.items():
        print(f"  {name:<18}{seconds:>9.3f} s   ours is {seconds / medians['elute']:>6.1f}×")
    if told:
        print(f"  zennit-crp {told}")
    return {"samples": samples, "codes": CODES, "seconds": taken, "medians": medians, "zennit_crp": told or "measured"}


def many_genes(asked: argparse.Namespace) -> dict[str, Any]:
    from elute.analysis.relevance import crp_relmax
    from elute.analysis.relevance_genes import relevance_by_gene
    from elute.analysis.relevance_head import Explained

    samples, genes = (64, 50) if asked.small else (256, 2000)
    weight, bias = head(genes)
    told: dict[str, Any] = {"samples": samples, "genes": genes}
    rows = sparse(made(samples))
    patches = list(tokens(samples, 196))
    for name, pool, inputs in (("a row a sample", "none", rows), ("196 tokens a sample", "mean", patches)):
        explained = Explained.of([(weight, bias)], pool=pool)
        ways = (
            partial(crp_relmax, explained, inputs, {"y": 0}, k=KEPT),
            partial(relevance_by_gene, explained, inputs, k=KEPT),
        )
        one, every = (statistics.median(timed(way) for _ in range(asked.rounds)) for way in ways)
        told[name] = {"one_gene": one, "all_genes": every}
        print(f"{name:<20} one gene {one:7.3f} s   {genes:,} genes {every:7.3f} s, {1e3 * every / genes:.2f} ms each")
    return told


def anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) // 1024
    return 0


def memory(samples: int) -> dict[str, Any]:
    """One pass over samples of 196 tokens: its peak above what the libraries take."""
    from elute.analysis.relevance import RelevancePass
    from elute.analysis.relevance_head import Explained
    from elute.analysis.relevance_stream import whole_samples

    weight, bias = head(5)
    explained = Explained.of([(weight, bias)])
    peak, done = 0, False

    def run(n: int) -> float:
        found = RelevancePass(explained, {"y": 0}, k=20)
        began = time.process_time()
        for part in whole_samples(tokens(n, 196), explained):
            found.update(part)
        return time.process_time() - began

    def watch() -> None:
        nonlocal peak
        while not done:
            peak = max(peak, anonymous())
            time.sleep(0.01)

    run(BATCH)
    base = anonymous()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    making = timed(lambda: deque(tokens(samples, 196), maxlen=0))
    seconds = run(samples) - making
    done = True
    watcher.join()
    return {"tokens": samples * 196, "peak_mb": peak - base, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--peer-python", default=str(PEERS), help="a Python that has zennit-crp")
    parser.add_argument("--peer-path", default="", help="a folder to look for it in")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peer:
        peer(asked.samples, asked.peer)
        return
    if asked.memory:
        print(json.dumps(memory(asked.memory)))
        return
    if asked.small:
        asked.rounds = 1
    told: dict[str, Any] = {"one_gene": one_gene(asked), "many_genes": many_genes(asked), "memory": []}
    for samples in (64, 128) if asked.small else (640, 2560, 10_240):
        words = [sys.executable, __file__, "--memory", str(samples)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=3600)
        seen = json.loads(done.stdout)
        told["memory"].append(seen)
        rate = seen["tokens"] / seen["seconds"]
        print(f"{seen['tokens']:>10,} tokens: {seen['peak_mb']:,} MB at the peak, {rate:,.0f} tokens a CPU second")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
