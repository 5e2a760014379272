"""What is found again of planted features, beside controls.

--table planted    the three planted dictionaries of the guide: seeds, controls, time
--table kinds      every activation on a scaled-down SynthSAEBench, a dictionary narrower than the truth

python benchmarks/recovery.py --table kinds --seeds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from elute.arrays.planted import PlantedConfig, read_truth, write_store
from elute.base import console
from elute.dictionaries.files import load_dictionary
from elute.engine.fit import FitConfig
from elute.engine.recovery import assign, matched_f1, recovery
from elute.engine.settings import DictionaryConfig, LearnConfig
from elute.engine.train import Training, train
from elute.store.reader import open_store

RESULTS = Path(__file__).parent / "results"
# Published for 16,384 features in 768 dimensions, a dictionary of 4,096, L0 25; read off a plot.
PUBLISHED = {
    "relu": (0.56, 0.60),
    "matching-pursuit": (0.45, 0.69),
    "jumprelu": (0.61, 0.73),
    "batchtopk": (0.73, 0.76),
    "batchtopk nested": (0.88, 0.79),
}
KINDS = [
    ("topk", 0), ("topk", 5), ("batchtopk", 0), ("batchtopk", 5), ("jumprelu", 0), ("relu", 0), ("gated", 0),
    ("signed-topk", 0), ("matching-pursuit", 0),
]  # fmt: skip
SYNTH: dict[str, Any] = {"kind": "synth", "n_features": 1024, "width": 128, "active": 12, "rows": 400_000}
NARROW, SYNTH_K, SYNTH_ROWS = 512, 10, 800_000
# kind of planting, rows trained on, rows stored
PLANTED = {
    "A": ("independent", 600_000, 600_000),
    "B": ("hierarchy", 3_000_000, 1_500_000),
    "C": ("blocks", 8_000_000, 2_000_000),
}


def fitted(store: Path, folder: Path, *, seed: int, rows: int, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Train one, and say how it went."""
    control = settings.pop("control", "none")
    training = Training(
        dictionary=DictionaryConfig.model_validate(settings),
        learn=LearnConfig.model_validate({"control": control}),
        fit=FitConfig(rows=rows, seed=seed),
    )
    cpu, wall = time.process_time(), time.perf_counter()
    done = train(store, folder, training, anew=True)
    told = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall, **done.summary}
    return load_dictionary(folder), told


def planted(work: Path, seeds: int, names: list[str]) -> list[dict[str, Any]]:
    """The planted dictionaries of the guide."""
    rows = []
    for name in names:
        kind, trained_on, stored = PLANTED[name]
        store = work / f"planted_{name}"
        write_store(store, PlantedConfig.model_validate({"kind": kind, "rows": stored, "truth_rows": 0}))
        truth = read_truth(store)
        for control in ("none", "frozen-decoder"):
            for seed in range(seeds if control == "none" else 1):
                few = trained_on if control == "none" else min(trained_on, 600_000)
                dictionary, told = fitted(
                    store, work / "run", seed=seed, rows=few, control=control, n_features=2048, k=12
                )
                found = recovery(dictionary.directions(), truth.directions, truth.counts)
                row = {
                    "data": name, "control": control, "seed": seed, "rows": few, "cpu_s": told["cpu_s"],
                    "wall_s": told["wall_s"], "recovered": found.recovered_fraction,
                    "mean_max_cosine": found.mean_max_cosine, "explained_variance": told["explained_variance"],
                }  # fmt: skip
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def kinds(work: Path, seeds: int) -> list[dict[str, Any]]:
    """Every activation on one synthetic benchmark; the k that fires is the same for all, found where it is not set."""
    store = work / "synth"
    write_store(store, PlantedConfig.model_validate(SYNTH))
    truth = read_truth(store)
    assert truth.codes is not None
    x = open_store(store).read(0, len(truth.codes))["planted"]
    rows = []
    for activation, nested in KINDS:
        for seed in range(seeds):
            dictionary, told = fitted(
                store, work / "run", seed=seed, rows=SYNTH_ROWS, n_features=NARROW, k=SYNTH_K, activation=activation,
                nested=nested,
            )  # fmt: skip
            matched = assign(dictionary.directions(), truth.directions, absolute=activation == "signed-topk")
            codes = dictionary.encode(x)
            row = {
                "kind": activation + (" nested" if nested else ""), "seed": seed, "cpu_s": told["cpu_s"],
                "explained_variance": told["explained_variance"], "l0": float(codes.l0().double().mean()),
                "mcc": matched.mean_cosine, "f1": matched_f1(codes, truth.codes, matched.pairs).mean,
                "dead": float((codes.counts() == 0).double().mean()),
            }  # fmt: skip
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def table(rows: list[dict[str, Any]], by: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """Means over seeds, as markdown."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    head = [*by, "seeds", *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key, members in groups.items():
        means = [statistics.mean(m[c] for m in members) for c in columns]
        cells = [f"{v:.3f}" if abs(v) < 10 else f"{v:,.0f}" for v in means]
        lines.append("| " + " | ".join([*map(str, key), str(len(members)), *cells]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=["planted", "kinds"], default="kinds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(PLANTED), choices=list(PLANTED), help="planted dictionaries")
    parser.add_argument("--work", type=Path, help="folder for stores and runs; a temporary one if not given")
    given = parser.parse_args()
    console.set_level(-1)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        if given.table == "planted":
            rows = planted(work, given.seeds, given.only)
            columns = ("recovered", "mean_max_cosine", "explained_variance", "cpu_s", "wall_s")
            text = table(rows, ("data", "control", "rows"), columns)
        else:
            rows = kinds(work, given.seeds)
            text = table(rows, ("kind",), ("f1", "mcc", "explained_variance", "l0", "dead", "cpu_s"))
            shown = [f"| {kind} | {f1:.2f} | {mcc:.2f} |" for kind, (f1, mcc) in PUBLISHED.items()]
            text += "\n\nPublished, at sixteen times the size:\n\n| kind | F1 | MCC |\n|---|---|---|\n" + "\n".join(
                shown
            )
    RESULTS.mkdir(exist_ok=True)
    record = {"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}
    (RESULTS / f"recovery_{given.table}.json").write_text(json.dumps(record, indent=1))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
