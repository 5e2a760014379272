"""Lists of genes × terms: over-representation beside gseapy and SciPy, and running sums beside gseapy's, A B A B.

Made up: 12,000 genes of which some are popular, 5,000 terms of 5 to 2,000 genes (59 on average, as in GO), lists of 50
genes, as features have; `varied` has lists of 5 to 499, where fewer pairs are the same table. Ours tests all lists with
all terms and corrects over all of them, with odds ratios and their intervals of what is kept; a peer gets as many of
the same lists as it needs for a second or more. gseapy: the loop at its heart with sets at hand and no background to
cut to (`stats.calc_pvalues`), and what a person calls (`enrich`). CPU seconds, one thread, medians.

The p-values are held against gseapy's and SciPy's before anything is timed.

    python benchmarks/enrichment.py [--lists 16384] [--rounds 3] [--small]

gseapy comes from the peers' environment (benchmarks/peers/build.sh). Rows are also written to results/enrichment.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GENES, TERMS, SIZE = 12_000, 5_000, 50
HERE = Path(__file__).parent
PEERS = HERE / "peers" / ".venv" / "bin" / "python"
RESULT = HERE / "results" / "enrichment.json"
LIMIT = 900  # seconds for one answer of a peer
Sets = list[np.ndarray]


def made_terms(seed: int = 0) -> Sets:
    """Terms in which popular genes come up more often."""
    rng = np.random.default_rng(seed)
    popularity = rng.permutation((np.arange(GENES) + 50.0) ** -0.6)
    sizes = np.clip(np.exp(rng.normal(3.6, 1.0, TERMS)), 5, 2000).astype(int)
    return [np.sort(np.argpartition(rng.exponential(size=GENES) / popularity, size)[:size]) for size in sizes]


def made_lists(n: int, *, varied: bool, seed: int = 1) -> Sets:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 500, n) if varied else np.full(n, SIZE)
    return [np.sort(rng.choice(GENES, size, replace=False)) for size in sizes]


def named(sets: Sets) -> list[list[str]]:
    return [[f"G{gene:05d}" for gene in each] for each in sets]


# --- in the peers' environment ----------------------------------------------------------------------------------------


def peer() -> None:
    """Answer commands, a line of JSON each: {"do": "loop" | "enrich" | "prerank", "n": lists}."""
    sys.path.insert(0, str(HERE / "peers"))
    from worker import absent

    drawn = (
        "pyplot",
        "transforms",
        "backends",
        "backends.backend_agg",
        "category",
        "colors",
        "figure",
        "lines",
        "ticker",
    )
    absent("matplotlib", *(f"matplotlib.{name}" for name in drawn))  # imported for pictures alone
    for name in drawn:
        setattr(sys.modules["matplotlib"], name, sys.modules[f"matplotlib.{name}"])
    try:
        import gseapy
        import pandas as pd
        from gseapy.stats import calc_pvalues, multiple_testing_correction
    except Exception as error:  # noqa: BLE001
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    print(json.dumps({"version": gseapy.__version__}), flush=True)
    terms = {f"T{i:04d}": set(genes) for i, genes in enumerate(named(made_terms()))}
    plain = {term: sorted(genes) for term, genes in terms.items()}
    for line in sys.stdin:
        asked = json.loads(line)
        lists = named(made_lists(asked["n"], varied=False))
        found: list[list[Any]] = []
        if asked["do"] == "prerank":
            values = np.random.default_rng(7).normal(size=GENES)
            ranking = pd.Series(values, index=named([np.arange(GENES)])[0])
        began = time.process_time()
        if asked["do"] == "loop":
            for i, each in enumerate(lists):
                term, p, *_ = calc_pvalues(each, terms, background=GENES)
                multiple_testing_correction(p)
                found += [[i, name, float(value)] for name, value in zip(term, p, strict=True)]
        elif asked["do"] == "enrich":
            for each in lists:
                gseapy.enrich(each, gene_sets=plain, background=GENES, outdir=None, no_plot=True)
        else:
            settings = {"permutation_num": asked["permutations"], "min_size": 5, "max_size": 2000, "threads": 1}
            settings["method"] = asked.get("method", "permutation")
            done = gseapy.prerank(ranking, plain, outdir=None, no_plot=True, seed=1, **settings)
        seconds = time.process_time() - began
        if asked["do"] == "prerank":
            found = [[row.Term, float(row.ES), float(row["NOM p-val"])] for _, row in done.res2d.iterrows()]
        print(json.dumps({"seconds": seconds, "found": found}), flush=True)


class Gseapy:
    """gseapy in a process of its own."""

    def __init__(self) -> None:
        env = os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
        env.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [PEERS, __file__, "--peer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
        )
        hello = self._answer()
        self.version = hello.get("version")
        if self.version is None:
            raise OSError(hello["error"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise OSError("gseapy's process ended")

    def ask(self, do: str, n: int, **details: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "n": n} | details) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(LIMIT)


# --- ours -------------------------------------------------------------------------------------------------------------


def matrix(sets: Sets) -> Any:
    from scipy.sparse import csr_array

    ends = np.concatenate([[0], np.cumsum([len(each) for each in sets])])
    genes = np.concatenate(sets).astype(np.int32)
    return csr_array((np.ones(len(genes), np.int8), genes, ends), shape=(len(sets), GENES))


def over_terms(sets: Sets) -> Any:
    from elute.validation.background import Background
    from elute.validation.terms import Terms

    ids = tuple(f"T{i:04d}" for i in range(len(sets)))
    background = Background(tuple(named([np.arange(GENES)])[0]), f"{GENES:,} genes: made up")
    alone = np.full(len(sets), -1)
    return Terms(ids, ids, (None,) * len(ids), matrix(sets), background, "made up", {}, alone)


def spent(way: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    done = way()
    return time.process_time() - began, done


def by_fisher(lists: Any, terms: Any) -> np.ndarray:
    """The usual loop: one call a pair."""
    from scipy.stats import fisher_exact

    sizes, term_sizes = np.diff(lists.indptr).tolist(), terms.sizes.tolist()
    shared = (lists.astype(np.int32) @ terms.members.astype(np.int32).T).toarray().tolist()
    return np.array(
        [
            fisher_exact([[k, n - k], [m - k, GENES - n - m + k]], alternative="greater")[1]
            for n, row in zip(sizes, shared, strict=True)
            for k, m in zip(row, term_sizes, strict=True)
        ]
    )


def by_sf(lists: Any, terms: Any) -> np.ndarray:
    """What SciPy does best: a sparse product, and one call for all pairs that share a gene."""
    from scipy.stats import hypergeom

    shared = (lists.astype(np.int32) @ terms.members.astype(np.int32).T).tocoo()
    n, m = np.diff(lists.indptr)[shared.row], terms.sizes[shared.col]
    return hypergeom.sf(shared.data - 1, GENES, m, n)


def agree(gseapy: Gseapy | None, lists: Any, terms: Any) -> dict[str, float]:
    """The largest relative difference of a p-value from gseapy's and from SciPy's."""
    from elute.validation.enrichment import over_representation

    table = over_representation(lists[:4], terms).table
    ours = {(i, term): p for i, term, p in table.select("list", "term", "p").iter_rows()}
    apart = {}
    p = by_fisher(lists[:1], terms)
    apart["fisher_exact"] = max(abs(ours.get((0, f"T{t:04d}"), 1.0) / p[t] - 1) for t in range(len(p)))
    if gseapy is not None:
        theirs = {(i, term): p for i, term, p in gseapy.ask("loop", 4)["found"]}
        assert set(theirs) == set(ours)
        apart["gseapy"] = max(abs(ours[pair] / p - 1) for pair, p in theirs.items())
    assert max(apart.values()) < 1e-9, apart
    return apart


def over_lists(asked: argparse.Namespace, gseapy: Gseapy | None) -> dict[str, Any]:
    from elute.validation.enrichment import over_representation

    terms = over_terms(made_terms())
    lists, varied = (matrix(made_lists(asked.lists, varied=kind)) for kind in (False, True))
    apart = agree(gseapy, lists, terms)
    ways: dict[str, tuple[int, Callable[[], float]]] = {
        "elute": (asked.lists, lambda: spent(lambda: over_representation(lists, terms))[0]),
        "scipy, fisher_exact in a loop": (1, lambda: spent(lambda: by_fisher(lists[:1], terms))[0]),
        "scipy, sparse product and hypergeom.sf": (64, lambda: spent(lambda: by_sf(lists[:64], terms))[0]),
        "elute, significant rows alone": (
            asked.lists,
            lambda: spent(lambda: over_representation(lists, terms, most_q=0.05))[0],
        ),
        "elute, lists of 5 to 499": (asked.lists, lambda: spent(lambda: over_representation(varied, terms))[0]),
        "elute, two-sided": (
            asked.lists,
            lambda: spent(lambda: over_representation(lists, terms, alternative="two-sided"))[0],
        ),
    }
    if gseapy is not None:
        ways["gseapy, its loop"] = (8, lambda: gseapy.ask("loop", 8)["seconds"])
        ways["gseapy, enrich"] = (4, lambda: gseapy.ask("enrich", 4)["seconds"])
    seconds = in_turns(ways, asked.rounds)
    rates = {name: ways[name][0] * TERMS / statistics.median(taken) for name, taken in seconds.items()}
    whole = statistics.median(seconds["elute"])
    print(
        f"{asked.lists:,} lists of {SIZE} genes × {TERMS:,} terms over {GENES:,} genes: {whole:.2f} CPU s; p-values are"
    )
    print("apart by " + ", ".join(f"{value:.0e} from {name}'s" for name, value in apart.items()))
    show(rates, "elute", "pairs/s")
    return {"lists": asked.lists, "terms": TERMS, "pairs_per_cpu_second": rates, "seconds": seconds, "apart": apart}


def in_turns(ways: dict[str, tuple[int, Callable[[], float]]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, (_, way) in ways.items():
            taken = way()
            if round_:  # the first compiles and warms up
                seconds[name].append(taken)
    return seconds


def show(rates: dict[str, float], ours: str, unit: str) -> None:
    for name, rate in rates.items():
        print(f"{name:<52}{rate:>12,.0f} {unit}   {ours} is {rates[ours] / rate:>9,.1f}×")


def over_rankings(asked: argparse.Namespace, gseapy: Gseapy | None) -> dict[str, Any]:
    from elute.validation.ranked import rank_sums, running_sums

    terms = over_terms(made_terms())
    values = np.random.default_rng(7).normal(size=(asked.rankings, GENES))
    one, times = np.random.default_rng(7).normal(size=(1, GENES)), asked.permutations
    apart = 0.0
    if gseapy is not None:
        told = {term: es for term, es, _ in gseapy.ask("prerank", 0, permutations=10)["found"]}
        ours = running_sums(one, terms, seed=1, permutations=10, most_permutations=10).table
        apart = max(abs(told[term] - es) for term, es in ours.select("term", "es").iter_rows())
        assert apart < 1e-6, apart

    def running(scores: np.ndarray, most: int) -> float:
        return spent(lambda: running_sums(scores, terms, seed=1, permutations=times, most_permutations=most))[0]

    far = f"elute, running sums, up to {1000 * times:,} permutations"
    ways: dict[str, tuple[int, Callable[[], float]]] = {
        "elute, running sums": (1, lambda: running(one, times)),
        f"elute, running sums, {len(values)} lists": (len(values), lambda: running(values, times)),
        far: (1, lambda: running(one, 1000 * times)),
        "elute, rank sums": (len(values), lambda: spent(lambda: rank_sums(values, terms))[0]),
    }
    if gseapy is not None:
        ways["gseapy, prerank"] = (1, lambda: gseapy.ask("prerank", 0, permutations=times)["seconds"])
        ways["gseapy, prerank, multilevel"] = (
            1,
            lambda: gseapy.ask("prerank", 0, permutations=1000, method="multilevel")["seconds"],
        )
    seconds = in_turns(ways, min(asked.rounds, 2))
    rates = {name: ways[name][0] * TERMS / statistics.median(taken) for name, taken in seconds.items()}
    print(f"\nrankings of {GENES:,} genes × {TERMS:,} terms, {times:,} permutations; scores apart by {apart:.0e}")
    show(rates, "elute, running sums", "pairs/s")
    return {"permutations": times, "pairs_per_cpu_second": rates, "seconds": seconds, "apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lists", type=int, default=16_384)
    parser.add_argument("--rankings", type=int, default=16)
    parser.add_argument("--permutations", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer:
        peer()
        return
    import torch

    torch.set_num_threads(1)
    if asked.small:
        asked.lists, asked.rankings, asked.permutations, asked.rounds = 512, 2, 20, 1
    gseapy = None
    try:
        gseapy = Gseapy()
        print(f"gseapy {gseapy.version}")
    except OSError as error:
        print(f"gseapy is not measured ({error}): run benchmarks/peers/build.sh", file=sys.stderr)
    told = {"lists": over_lists(asked, gseapy), "rankings": over_rankings(asked, gseapy)}
    told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\nat most {told['peak_mb']:,} MB, libraries included")
    if gseapy is not None:
        told["gseapy"] = gseapy.version
        gseapy.stop()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
