"""Sparse dictionaries beside four libraries: what a training step, encoding and decoding cost, and what is found.

Every library runs in a process of its own with one thread, with the steps of its own training loop (clipping, AuxK and
usage counts on where it has them) and Adam; the four peers in an environment of their own (peers/build.sh).

- speed: 512 -> 16,384 features, k 64, float32, batch 4,096. The libraries take turns (A B A B); medians of the CPU
  seconds of one step, of encoding and of decoding a batch; peak memory of training; explained variance of held-out rows
  after the same rows, at one learning rate that was not tuned. overcomplete uses the plain squared error of its README:
  its AuxK, which is on in every step, costs more. About 10 minutes.
- quality: 128 -> 2,048 features, k 16, 200,000 rows of planted data in batches of 512. Each library is tuned by itself
  on data of another seed, one setting after the other: learning rate, scale of the initial encoder, AuxK; then three
  seeds, each with data of its own. 1,024 directions are planted: of 512 a tuned sparsify finds 98%. A run takes
  10 to 15 CPU seconds for a sparse library and up to 40 for a dense one, 11 runs each: 15 to 25 minutes on a quiet core
  for all four peers.

    python benchmarks/dictionaries.py [--table speed|quality] [--only NAME…] [--rounds 5] [--quick] [--jobs 1]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers.client import Library, UnavailableError

from elute.arrays.planted import Planted, PlantedConfig

NAMES = ("elute", "sparsify", "saelens", "dictionary_learning", "overcomplete")
RESULT = Path(__file__).parent / "results" / "dictionaries.json"
STEPS_A_ROUND, HELD_OUT, TUNING_SEED = 2, 8192, 100
FOUND = 0.9
METRICS = ("explained_variance", "mean_max_cosine", "recovered")
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large the dictionary and the data are."""

    d_in: int
    n_features: int
    k: int
    batch: int
    planted: int
    active: float

    def setting(self, **more: Any) -> dict[str, Any]:
        named = asdict(self)
        return {key: named[key] for key in ("d_in", "n_features", "k", "batch")} | more


SPEED = Scale(d_in=512, n_features=16384, k=64, batch=4096, planted=8192, active=48)
QUALITY = Scale(d_in=128, n_features=2048, k=16, batch=512, planted=1024, active=12)
RATES, SCALES, SEEDS, ROWS = (1e-3, 3e-3, 1e-2, 3e-2), (0.1, 0.3, 3.0), (0, 1, 2), 200_000
QUICK_SPEED = Scale(d_in=128, n_features=2048, k=16, batch=1024, planted=512, active=12)
QUICK = {"rates": (1e-3, 3e-3), "scales": (0.3,), "seeds": (0,), "rows": 20_000}


@dataclass(frozen=True)
class Data:
    """Planted rows in a file, the last HELD_OUT of them for evaluation, and the planted directions."""

    rows: str
    train: int
    directions: np.ndarray

    @property
    def held_out(self) -> dict[str, Any]:
        return {"rows": self.rows, "start": self.train, "stop": self.train + HELD_OUT}


def plant(folder: Path, scale: Scale, *, rows: int, seed: int) -> Data:
    config = PlantedConfig(
        kind="independent", n_features=scale.planted, width=scale.d_in, active=scale.active, rows=rows, seed=seed
    )
    planted = Planted(config)
    path = folder / f"rows-{scale.d_in}-{seed}.npy"
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows + HELD_OUT, scale.d_in))
    for start in range(0, len(x), 1 << 16):
        stop = min(len(x), start + (1 << 16))
        x[start:stop] = planted.rows(start, stop)[0].numpy()
    x.flush()
    return Data(str(path), rows, planted.directions.numpy())


def recovery(decoder: np.ndarray, directions: np.ndarray) -> Row:
    """For each planted direction the largest cosine with a decoder row: the mean, and how many reach FOUND."""
    unit = decoder / np.maximum(np.linalg.norm(decoder, axis=1, keepdims=True), 1e-12)
    best = (directions @ unit.T).max(axis=1)
    return {"mean_max_cosine": float(best.mean()), "recovered": float((best >= FOUND).mean())}


def start(names: list[str], stack: ExitStack) -> list[Library]:
    libraries = []
    for name in names:
        try:
            libraries.append(stack.enter_context(Library(name)))
        except UnavailableError as error:
            print(f"{name}: not available ({error})", file=sys.stderr)
    return libraries


def speed(libraries: list[Library], scale: Scale, *, rounds: int, folder: Path) -> list[Row]:
    data = plant(folder, scale, rows=(rounds + 1) * STEPS_A_ROUND * scale.batch, seed=0)
    times: dict[str, dict[str, list[float]]] = {a.name: defaultdict(list) for a in libraries}
    memory: dict[str, Row] = {}
    for a in libraries:
        a.ask("setup", setting=scale.setting(lr=1e-3, aux=a.name != "overcomplete"))
    for turn in range(rounds + 1):  # the first warms up
        for a in libraries:
            begin = turn * STEPS_A_ROUND * scale.batch
            said = {"step": a.ask("step", rows=data.rows, start=begin, n=STEPS_A_ROUND)["cpu_s"] / STEPS_A_ROUND}
            memory.setdefault(a.name, a.ask("memory"))
            for do in ("encode", "decode"):
                said[do] = a.ask(do, rows=data.rows, start=data.train)["cpu_s"]
            for do, seconds in said.items():
                if turn:
                    times[a.name][do].append(seconds)
    table = []
    for a in libraries:
        row: Row = {"name": a.name, "version": a.version}
        row |= {f"{do}_cpu_s": round(statistics.median(seen), 4) for do, seen in times[a.name].items()}
        row |= {key: round(value) for key, value in memory[a.name].items()}
        row |= {"rows": data.train, **a.ask("evaluate", **data.held_out)}
        table.append(row)
    for do in ("step", "encode", "decode"):
        fastest = min((r[f"{do}_cpu_s"] for r in table if r["name"] != "elute"), default=None)
        for row in table:
            row[f"{do}_ratio"] = round(row[f"{do}_cpu_s"] / fastest, 2) if fastest else None
    return table


def trial(library: Library, data: Data, setting: dict[str, Any], folder: Path) -> Row:
    """Train once from the start, and say what came of it."""
    library.ask("setup", setting=setting)
    cpu = library.ask("train_on", rows=data.rows, start=0, stop=data.train)["cpu_s"]
    to = folder / f"decoder-{library.name}.npy"
    library.ask("decoder", to=str(to))
    decoder = np.lib.format.open_memmap(to, mode="r")
    told = library.ask("evaluate", **data.held_out) | recovery(np.array(decoder), data.directions)
    return {key: setting[key] for key in ("lr", "init_scale", "aux", "seed")} | told | {"cpu_s": round(cpu, 1)}


def tuned(library: Library, datas: dict[int, Data], given: argparse.Namespace, folder: Path) -> Row:
    """One setting after the other, by explained variance of held-out rows, which needs no truth; then all seeds."""
    rows = given.rows
    steps = rows // QUALITY.batch
    base = {"steps": steps, "warmup": steps // 20, "decay": steps * 3 // 10, "dead_rows": rows // 10}
    tries: list[Row] = []

    def attempt(**chosen: Any) -> Row:
        setting = QUALITY.setting(**base, **chosen, seed=TUNING_SEED)
        tries.append(trial(library, datas[TUNING_SEED], setting, folder))
        print(f"{library.name}: {short(tries[-1])}", file=sys.stderr)
        return tries[-1]

    def best() -> dict[str, Any]:
        found = max(tries, key=lambda row: row[given.tune_by])
        return {key: found[key] for key in ("lr", "init_scale", "aux")}

    for lr in given.rates:
        attempt(lr=lr, init_scale=1.0, aux=True)
    for init_scale in given.scales:
        attempt(**best() | {"init_scale": init_scale})
    attempt(**best() | {"aux": False})
    chosen = best()
    final = [trial(library, datas[s], QUALITY.setting(**base, **chosen, seed=s), folder) for s in given.seeds]
    row = {"name": library.name, "version": library.version, **chosen, "tries": tries, "seeds": final}
    for key in METRICS:
        row[key] = statistics.mean(r[key] for r in final)
        row[f"{key}_spread"] = max(r[key] for r in final) - min(r[key] for r in final)
    row["best_recovered_of_tries"] = max(r["recovered"] for r in tries)
    return row


def quality(libraries: list[Library], given: argparse.Namespace, folder: Path) -> list[Row]:
    datas = {s: plant(folder, QUALITY, rows=given.rows, seed=s) for s in (TUNING_SEED, *given.seeds)}
    with ThreadPoolExecutor(given.jobs) as pool:
        return list(pool.map(lambda a: tuned(a, datas, given, folder), libraries))


def short(row: Row) -> str:
    told = f"lr {row['lr']:g}, encoder × {row['init_scale']:g}, AuxK {'on' if row['aux'] else 'off'}: "
    return told + ", ".join(f"{key} {row[key]:.3f}" for key in METRICS) + f" ({row['cpu_s']} CPU s)"


def speed_table(rows: list[Row]) -> list[str]:
    lines = [
        "| | step, CPU s | ratio | encode, CPU s | ratio | decode, CPU s | ratio | peak MB | above imports | EV |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [f"{r['name']} {r['version']}"]
        for do in ("step", "encode", "decode"):
            cells += [f"{r[f'{do}_cpu_s']:.3f}", "" if r[f"{do}_ratio"] is None else f"{r[f'{do}_ratio']:.2f}"]
        cells += [f"{r['peak_mb']:,}", f"{r['peak_mb'] - r['base_mb']:,}", f"{r['explained_variance']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def quality_table(rows: list[Row]) -> list[str]:
    lines = [
        f"| | lr | encoder × | AuxK | explained variance | mean max cosine | recovered at {FOUND} | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [f"{r['name']} {r['version']}", f"{r['lr']:g}", f"{r['init_scale']:g}", "on" if r["aux"] else "off"]
        cells += [f"{r[key]:.3f} (±{r[f'{key}_spread'] / 2:.3f})" for key in METRICS]
        cells += [f"{statistics.median(s['cpu_s'] for s in r['seeds']):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", choices=("speed", "quality"), default="speed")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5, help="of two steps each, after one that warms up")
    parser.add_argument("--quick", action="store_true", help="small: to see that all works; writes no results")
    parser.add_argument("--jobs", type=int, default=1, help="libraries at a time (quality)")
    parser.add_argument("--tune-by", choices=METRICS, default=METRICS[0])
    given = parser.parse_args()
    sizes = QUICK if given.quick else {"rates": RATES, "scales": SCALES, "seeds": SEEDS, "rows": ROWS}
    vars(given).update(sizes)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        libraries = start(given.only, stack)
        if not libraries:
            return 1
        if given.table == "speed":
            scale = QUICK_SPEED if given.quick else SPEED
            rows = speed(libraries, scale, rounds=2 if given.quick else given.rounds, folder=folder)
        else:
            rows = quality(libraries, given, folder)
    print("\n".join(speed_table(rows) if given.table == "speed" else quality_table(rows)))
    if not given.quick:
        RESULT.parent.mkdir(exist_ok=True)
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps(known | {given.table: rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
