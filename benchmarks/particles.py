"""What fusing made-up particles gains, beside what the truth allows and what permuted rows gain.

A row a seed and world: macro average precision of the better source and of the fusion on tomograms held out, the gain
with its 95% interval by bootstrap over tomograms, the gain that the exact posteriors allow, the gain when the second
source's rows are permuted (its interval has to hold 0; above 0 would be a false gain, below 0 is what a useless source
costs), and what pairing by label invents.

    apart    each source alone sees a part of what tells classes apart
    nothing  both see the same part alone: next to nothing is to be gained
    many     as apart, with five times the particles, and a quarter of the seeds: what a useless source costs falls

python benchmarks/particles.py --seeds 20
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from elute.base import console
from elute.particles.demo import held_against
from elute.particles.evaluating import evaluate
from elute.particles.generator_files import CONFIG, TRUTH, write_made
from elute.particles.generator_settings import MadeConfig
from elute.particles.reading import read_joined
from elute.particles.settings import EvaluationConfig, Method, read_inputs

RESULT = Path(__file__).parent / "results" / "particles.json"
SIZES: dict[str, Any] = {"classes": 6, "runs": 20, "per_run": 60}
WORLDS: list[tuple[str, Method, dict[str, Any]]] = [
    ("apart", "attention", {}),
    ("apart", "concat", {}),
    ("nothing", "concat", {"own": 0.0, "common": 2.0}),
    ("many", "concat", {"per_run": 300}),
]
FOLDS, DRAWS = 3, 500


def measure(seed: int, world: str, method: Method, changed: dict[str, Any]) -> dict[str, Any]:
    """Make particles, evaluate them, and return what was found."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as name, console.hushed():
        made, folder = MadeConfig(seed=seed, **{**SIZES, **changed}), Path(name)
        write_made(folder / "data", made)
        config = EvaluationConfig(
            n_folds=FOLDS, fusion_method=method, random_seed=seed, device="cpu", n_resamples=DRAWS
        )  # fmt: skip
        joined = read_joined(read_inputs(folder / "data" / CONFIG), config)
        plain = evaluate(joined, config, folder / "out").plain()
        found = held_against(json.loads((folder / "data" / TRUTH).read_text()), plain)
    seconds = time.process_time() - start
    return {"world": world, "method": method, "seed": seed, "n": len(joined), **found, "seconds": seconds}


def line(row: dict[str, Any]) -> str:
    """Show a row."""
    gain, control, best = row["gain"], row["control"], row["best_source"]
    alone, fusion = (row["measured"][name]["estimate"] for name in (best, "fusion"))
    return (
        f"{row['world']:<9}{row['method']:<11}{row['seed']:>4}{row['n']:>6}  {alone:.3f} {fusion:.3f} "
        f"{row['possible']['fusion']:>8.3f}  {_ranged(gain['measured'])}{gain['possible']:>+8.3f}  {_ranged(control)}  "
        f"{row['invented']['measured']:>+7.3f}{row['invented']['possible']:>+7.3f}{row['seconds']:>6.0f}"
    )


def _ranged(told: dict[str, Any]) -> str:
    return f"{told['estimate']:+.3f} ({told['low']:+.3f} to {told['high']:+.3f})"


def summed(rows: list[dict[str, Any]]) -> list[str]:
    """Say what all seeds of a world and method come to."""
    n, told = len(rows), [row["control"] for row in rows]
    above, below = sum(one["low"] > 0 for one in told), sum(one["high"] < 0 for one in told)
    control = [one["estimate"] for one in told]
    gains = [row["gain"]["measured"]["estimate"] for row in rows]
    possible = [row["gain"]["possible"] for row in rows]
    over = sum(row["measured"]["fusion"]["low"] > row["possible"]["fusion"] for row in rows)
    sure = sum(row["gain"]["measured"]["low"] > 0 for row in rows)
    spread = statistics.stdev(control) / n**0.5 if n > 1 else float("nan")
    head = f"{rows[0]['world']}, {rows[0]['method']}, {n} seeds:"
    gained = (
        f"  gain {statistics.mean(gains):+.3f} of {statistics.mean(possible):+.3f} that are possible; "
        f"interval above 0 in {sure}; fusion's interval above what is possible in {over}"
    )
    permuted = (
        f"  permuted: gain {statistics.mean(control):+.4f} ± {spread:.4f}; interval holds 0 in {n - above - below}, "
        f"lies above in {above} (a false gain), below in {below} (a useless source costs)"
    )
    invented, known = (statistics.mean(row["invented"][name] for row in rows) for name in ("measured", "possible"))
    return [head, gained, permuted, f"  invented by pairing by label: {invented:+.3f} of {known:+.3f} that are known"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=sorted({world for world, _, _ in WORLDS}), help="one world")
    asked = parser.parse_args()
    print(
        f"{'world':<9}{'fusion':<11}{'seed':>4}{'n':>6}  alone fused possible  {'gain (95%)':<25}possible  "
        f"{'permuted (95%)':<27}invented, possible {'CPU s'}"
    )
    rows: list[dict[str, Any]] = []
    for world, method, changed in WORLDS:
        if asked.only not in (None, world):
            continue
        own = []
        for seed in range(asked.seeds if world != "many" else max(1, asked.seeds // 4)):
            own.append(measure(seed, world, method, changed))
            print(line(own[-1]), flush=True)
        rows += own
        print("\n".join(summed(own)), flush=True)
    if asked.only:
        return
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
