"""Sums of activation × expression by feature and gene: ours beside a sparse product and the usual loop, A B A B.

The peers add up Σ a·e alone. Ours also gives how often each pair fired, Σ a and the largest a: a sparse product takes
three turns to that, and gives no maximum. `tally` is the whole pass: by gene and by cell, totals and histograms of
features, the rows' expression on the disk. CPU seconds, which other programs change less than the time of day; medians.

Then a million rows in parts: peak memory (RssAnon, what no file backs) above what the libraries take, and four merged
parts against one pass.

    python benchmarks/associations.py [--rows 262144] [--million 1000000] [--rounds 5] [--small]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array

from elute.analysis.pairs import IN_MEMORY, Pairs
from elute.analysis.tally import Tally, pair_sums
from elute.base.codes import Codes

FEATURES, GENES, K, GENES_OF_A_CELL, BATCH = 16_384, 60_000, 64, 1000, 4096
NAMES = [f"ENSG{i:011d}" for i in range(GENES)]
RESULT = Path(__file__).parent / "results" / "associations.json"
Rows = tuple[Codes, np.ndarray, np.ndarray, np.ndarray]  # codes, cells, genes, expression


def made(n: int, first: int = 0) -> Rows:
    """Rows as of a cell model, where most features know genes: 3 in 4 of a row's are its gene's own, 1 of all rows'."""
    rng = np.random.default_rng([n, first])
    gene_p = (np.arange(GENES) + 10.0) ** -0.8
    genes = np.searchsorted(gene_p.cumsum() / gene_p.sum(), rng.random(n)).clip(max=GENES - 1).astype(np.int32)
    own = (genes[:, None] * 7919 + (128 * rng.random((n, K * 3 // 4)) ** 2).astype(np.int64) * 104_729) % FEATURES
    shared_p = (np.arange(FEATURES) + 20.0) ** -0.7
    shared = np.searchsorted(shared_p.cumsum() / shared_p.sum(), rng.random((n, K // 4))).clip(max=FEATURES - 1)
    idx = np.concatenate([own, shared], 1).astype(np.int32)
    val = rng.gamma(2, 0.5, (n, K)).astype(np.float32)
    order = np.argsort(idx, 1, kind="stable")
    ranked = np.take_along_axis(idx, order, 1)
    again = np.zeros_like(idx, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
    idx[again], val[again] = 0, 0  # empty slots
    cells = ((first + np.arange(n)) // GENES_OF_A_CELL).astype(np.int32)
    return Codes(torch.from_numpy(idx), torch.from_numpy(val), FEATURES), cells, genes, rng.random(n, np.float32)


def arrays(codes: Codes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, k = codes.indices.shape
    return codes.values.numpy().ravel(), codes.indices.numpy().ravel(), np.arange(0, n * k + 1, k)


def by_gene(rows: Rows) -> Any:
    codes, _, genes, e = rows
    return pair_sums(codes, genes, e)


def whole_pass(rows: Rows) -> Any:
    codes, cells, genes, e = rows
    tally = Tally(FEATURES, int(cells[-1]) + 1, GENES)
    for start in range(0, len(codes), BATCH):
        part = slice(start, start + BATCH)
        tally.update((codes[part], cells[part], genes[part], e[part]))
    return tally.result()


def as_matrix(rows: Rows) -> csr_array:
    """The codes as they are usually brought into scipy: row, column and value of each."""
    values, columns, _ = arrays(rows[0])
    places = np.repeat(np.arange(len(rows[0])), K)
    return coo_array((values, (places, columns)), shape=rows[0].shape).tocsr()


def product(codes: csr_array, rows: Rows) -> Any:
    _, _, genes, e = rows
    return codes.T @ csr_array((e, genes, np.arange(len(genes) + 1)), shape=(len(genes), GENES))


def ready(rows: Rows) -> csr_array:
    """The quickest way: what we hold is CSR already, but for its empty slots."""
    return csr_array(arrays(rows[0]), shape=rows[0].shape)


def three_products(rows: Rows) -> list[Any]:
    codes, _, genes, e = rows
    matrix = as_matrix(rows)
    fired = matrix.copy()
    fired.data = (fired.data != 0).astype(np.float32)
    ones = (codes, None, genes, np.ones_like(e))
    return [product(matrix, rows), product(matrix, ones), product(fired, ones)]


def loop(rows: Rows) -> dict[int, dict[str, float]]:
    codes, _, genes, e = rows
    sums: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in range(len(codes)):
        name, weight = NAMES[genes[row]], float(e[row])
        for feature, value in zip(codes.indices[row].tolist(), codes.values[row].tolist(), strict=True):
            if value > 0:
                sums[feature][name] += value * weight
    return sums


def timed(n: int, rounds: int) -> dict[str, Any]:
    rows = made(n)
    few = tuple(part[: n // 16] for part in rows)
    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "elute, count Σa Σae max": (n, lambda: by_gene(rows)),
        "scipy, three products": (n, lambda: three_products(rows)),
        "scipy, Σae alone": (n, lambda: product(as_matrix(rows), rows)),
        "scipy, Σae alone, CSR at hand": (n, lambda: product(ready(rows), rows)),
        "dictionary loop, Σae": (n // 16, lambda: loop(few)),  # type: ignore[arg-type]
        "elute, tally": (n, lambda: whole_pass(rows)),
    }
    agree(rows)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, (_, way) in ways.items():
            began = time.process_time()
            way()
            if round_:  # the first compiles and warms up
                seconds[name].append(time.process_time() - began)
    pairs = len(by_gene(rows))
    rates = {name: ways[name][0] / statistics.median(taken) for name, taken in seconds.items()}
    print(f"{n:,} rows, k {K}, {FEATURES:,} features, {GENES:,} genes: {n * K / pairs:.1f} codes a pair; one thread")
    ours = rates["elute, count Σa Σae max"]
    for name, rate in rates.items():
        print(f"{name:<34}{rate:>12,.0f} rows/s   ours is {ours / rate:>6.1f}×")
    return {"rows": n, "codes_per_pair": n * K / pairs, "rows_per_cpu_second": rates, "seconds": seconds}


def agree(rows: Rows) -> None:
    """What is compared must be the same."""
    ours, theirs = Pairs(FEATURES, GENES), product(ready(rows), rows).tocsr()
    ours.update(by_gene(rows))
    for block in ours.blocks():
        part = theirs[block.first : block.stop]
        part.eliminate_zeros()
        part.sort_indices()
        np.testing.assert_array_equal(part.indices, block.others)
        np.testing.assert_allclose(part.data, block.weighted, rtol=2e-5)


def anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) // 1024
    return 0


def batches(n: int, first: int = 0, stop: int | None = None) -> Iterator[Rows]:
    for start in range(first, n if stop is None else stop, BATCH):
        yield made(min(BATCH, n - start), start)


def memory(n: int, most_pairs: int) -> dict[str, Any]:
    """One pass over n rows, its peak, and the same in four parts."""
    whole_pass(made(BATCH))  # compiled, and the libraries are there
    peak, done, base = 0, False, anonymous()

    def watch() -> None:
        nonlocal peak
        while not done:
            peak = max(peak, anonymous())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    cells = (n - 1) // GENES_OF_A_CELL + 1
    tally = Tally(FEATURES, cells, GENES, most_pairs=most_pairs)
    for batch in batches(n):
        tally.update(batch)
    one = tally.result()
    pairs = [sum(len(block) for block in each.blocks()) for each in (one.genes, one.cells)]
    done = True
    watcher.join()
    parts = []
    for i in range(4):
        part = Tally(FEATURES, cells, GENES, most_pairs=most_pairs)
        quarter = -(-n // BATCH // 4) * BATCH
        for batch in batches(n, i * quarter, min(n, (i + 1) * quarter)):
            part.update(batch)
        parts.append(part)
    parts[2].merge(parts[3])
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    apart = differences(one, parts[0].result())
    return {"rows": n, "pairs": pairs, "peak_mb": peak - base, "largest_difference_of_a_sum": apart}


def differences(one: Any, four: Any) -> float:
    """Counts and largest values must be the same to the bit; returns the largest relative difference of a sum."""
    worst = 0.0
    for name in ("n_rows", "fired", "highs", "histogram", "gene_rows", "cell_rows"):
        np.testing.assert_array_equal(getattr(one, name), getattr(four, name), err_msg=name)
    for mine, theirs in ((one.genes, four.genes), (one.cells, four.cells)):
        for a, b in zip(mine.blocks(), theirs.blocks(), strict=True):
            for name in ("indptr", "others", "counts", "highs"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
            for x, y in ((a.sums, b.sums), (a.weighted, b.weighted)):
                worst = max(worst, float((np.abs(x - y) / np.maximum(np.abs(x), 1e-12)).max(initial=0)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most-pairs", type=int, default=IN_MEMORY)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory:
        print(json.dumps(memory(asked.memory, asked.most_pairs)))
        return
    if asked.small:
        asked.rows, asked.million, asked.rounds = 16_384, 20_000, 1
    told: dict[str, Any] = {"sums": timed(asked.rows, asked.rounds), "most_pairs": asked.most_pairs, "passes": []}
    for n in (asked.million // 4, asked.million):
        words = [sys.executable, __file__, "--memory", str(n), "--most-pairs", str(asked.most_pairs)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=3600)
        seen = json.loads(done.stdout)
        told["passes"].append(seen)
        print(f"{n:>9,} rows: {seen['pairs'][0]:,} pairs with genes, {seen['pairs'][1]:,} with cells; "
              f"{seen['peak_mb']:,} MB at the peak; four parts: counts and highest the same to the bit, "
              f"sums to {seen['largest_difference_of_a_sum']:.0e}")  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
