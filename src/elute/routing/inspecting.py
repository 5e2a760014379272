"""`elute routing inspect-pairs`: what a pair's rows are like, and the bar that a transcoder of it has to beat.

    RUN/clt/inspect/PAIR/inspection.json   all numbers
    RUN/clt/inspect/PAIR/inspection.svg    variances, canonical correlations, R² of each dimension, norms
    RUN/clt/inspect/pairs.tsv              a line a pair

1. One pass over the training rows: means, covariances, how sparse and how long the rows are.
2. The linear map of the target from the source, and canonical directions, from these.
3. One pass over held-out instances: R² of the linear map, beside that of the source passed through as it is, and of a
   linear map that was fitted to sources of other instances (the null: what so many parameters explain by chance).
4. The rows of some instances are computed anew: they have to be this policy's, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files, run
from elute.base.errors import DataError, MissingError
from elute.base.run import Artifact
from elute.routing.pair_measures import canonical, correlations, linear_map, spectrum
from elute.routing.pair_passes import held_out, recomputed, training
from elute.routing.pair_places import CLT, collected
from elute.routing.pair_settings import InspectConfig
from elute.routing.pairs import Pair, open_pair

if TYPE_CHECKING:
    from elute.routing.pair_measures import Canonical, Explained, Spectrum
    from elute.routing.pair_passes import Judged, Seen

STAGE = "inspect-pairs"
FOLDER = "inspect"
NUMBERS = "inspection.json"
TABLE = "pairs.tsv"
_FEW = 5  # training rows a column of the source, below which a linear map learns its noise


def inspect_pairs(
    run_dir: Path | str, config: InspectConfig | None = None, *, pairs: Sequence[str] = (), anew: bool = False
) -> Artifact:
    """Measure a run's pairs, those named or all, and write numbers, a table and drawings."""
    folder, config = Path(run_dir), config or InspectConfig()
    names = list(pairs) or collected(folder)
    if not names:
        remedy = f"`elute routing collect-pairs --run-dir {folder}` makes pairs."
        raise DataError("there are no pairs to look at", where=folder, remedy=remedy)
    opened = [open_pair(folder, name) for name in names]
    found = {pair.name: _inspect(pair, config, anew=anew) for pair in opened}
    home = folder / CLT / FOLDER
    rows = [_row(name, told) for name, told in found.items()]
    text = "\n".join(["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]) + "\n"
    files.write_atomically(home / TABLE, lambda handle: handle.write(text.encode()))
    return Artifact("inspection", home, {"pairs": found})


def measure_pair(pair: Pair, config: InspectConfig | None = None) -> dict[str, Any]:
    """Measure one pair; the answer is plain JSON."""
    config = config or InspectConfig()
    seen = training(pair, config.train_split)
    between = canonical(seen.joint)
    if seen.joint.count < _FEW * seen.joint.width:
        console.warn(f"{pair.name}: {seen.joint.count:,} training rows for {seen.joint.width} columns are few")
    maps = {"linear": linear_map(seen.joint, config.ridge), "shuffled": linear_map(seen.shuffled, config.ridge)}
    judged = held_out(pair, config.held_out, maps, joint=seen.joint)
    return {
        "pair": pair.name,
        "source": pair.spec.sources,
        "target": pair.spec.targets,
        "rows": {config.train_split: seen.joint.count, config.held_out: judged.joint.count},
        "instances": {part: len(pair.ids(part)) for part in (config.train_split, config.held_out)},
        "sides": {"source": _side(seen, 0), "target": _side(seen, 1)},
        "cosine": seen.cosine,
        "correlations": correlations(seen.joint),
        "canonical": _correlated(between, canonical(seen.shuffled), judged),
        "explained": {name: _told(part, config.seed) for name, part in judged.explained.items()},
        "checked_instances": recomputed(pair, config.check_instances),
    }


def _inspect(pair: Pair, config: InspectConfig, *, anew: bool) -> dict[str, Any]:
    """Measure one pair, unless that was done, and write what came of it."""
    from elute.routing.inspect_plots import NAME, draw

    home = pair.run / CLT / FOLDER / pair.name
    inputs = {"store": pair.store.manifest.store, "rows": str(pair.record["rows_digest"])}
    if not anew and run.finished(home, STAGE, config, inputs=inputs) and (home / NUMBERS).is_file():
        held = files.read_json(home / NUMBERS, what="an inspection", remedy="Measure it again with --anew.")
        if isinstance(held, dict):
            return held
    with console.hushed():
        found = measure_pair(pair, config)
    files.make_folder(home)
    files.write_json(home / NUMBERS, found)
    if config.plots:
        try:
            picture = draw(found)
            files.write_atomically(home / NAME, lambda handle: handle.write(picture))
        except MissingError as error:
            console.warn(f"{home}: not drawn: {error.line()}")
    summary = {"linear_r2": found["explained"]["linear"]["r2"], "instances": found["instances"]}
    run.record(home, STAGE, config, inputs=inputs, summary=summary)
    return found


def _side(seen: Seen, side: int) -> dict[str, Any]:
    within = seen.joint.parts[0 if side == 0 else 2]
    used: Spectrum = spectrum(within)
    norms = seen.norms[side]
    mean = seen.joint.mean[: seen.joint.width] if side == 0 else seen.joint.mean[seen.joint.width :]
    low, middle, high = np.quantile(norms, [0.05, 0.5, 0.95])
    edges = np.linspace(0, float(norms.max()) or 1.0, 41)
    return {
        "width": len(mean),
        "sparsity": seen.sparsity[side],
        "norms": {
            "mean": float(norms.mean()), "std": float(norms.std()), "least": float(norms.min()), "low": float(low),
            "median": float(middle), "high": float(high), "most": float(norms.max()),
            "edges": edges.tolist(), "counts": np.histogram(norms, edges)[0].tolist(),
            "share_of_mean": float((mean**2).sum() / max((norms**2).mean(), 1e-300)),
        },
        "rank": {
            "effective": used.effective, "participation": used.participation, "varying": used.alive,
            "for_90_percent": used.most, "for_99_percent": used.nearly_all, "shares": list(used.shares),
        },
    }  # fmt: skip


def _correlated(between: Canonical, null: Canonical, judged: Judged) -> dict[str, Any]:
    there = between.on(judged.joint)
    return {
        "train": between.correlations.tolist(),
        "held_out": there.tolist(),
        "shuffled_train": null.correlations.tolist(),
        "shuffled_held_out": null.on(judged.shuffled).tolist() if judged.shuffled.count else [],
        "mean_held_out": float(there.mean()) if len(there) else 0.0,
        "above_0.9": int((there > 0.9).sum()),
    }


def _told(part: Explained, seed: int) -> dict[str, Any]:
    low, high = part.interval(seed)
    return {"r2": part.r2, "low": low, "high": high, "dimensions": part.dimensions.tolist()}


def _row(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    row: dict[str, Any] = {"pair": name, "held_out_instances": list(told["instances"].values())[-1]}
    for which in ("linear", "passed through", "shuffled"):
        part = told["explained"].get(which)
        row[f"r2_{which.replace(' ', '_')}"] = "" if part is None else f"{part['r2']:.6g}"
        if which == "linear":
            row |= {"r2_linear_low": f"{part['low']:.6g}", "r2_linear_high": f"{part['high']:.6g}"}
            row["r2_linear_worst_dimension"] = f"{min(part['dimensions']):.6g}"
    row["canonical_held_out"] = f"{told['canonical']['mean_held_out']:.6g}"
    row["best_correlation"] = f"{told['correlations']['best_mean']:.6g}"
    for side in ("source", "target"):
        part = told["sides"][side]
        row |= {
            f"{side}_effective_rank": f"{part['rank']['effective']:.6g}",
            f"{side}_norm": f"{part['norms']['mean']:.6g}",
            f"{side}_zeros": f"{part['sparsity']['zeros']:.6g}",
            f"{side}_hoyer": f"{part['sparsity']['hoyer']:.6g}",
        }
    return row


def lines(answer: dict[str, Any]) -> list[str]:
    """Say it for people."""
    pairs = answer["pairs"]
    wide = max(len("pair"), *map(len, pairs))
    told = [
        f"R² of the target on held-out instances; the linear map is the bar. More: {answer['path']}",
        f"  {'pair':<{wide}}  linear (95% interval)      as it is  shuffled  canonical  rank          norm",
    ]
    for name, pair in pairs.items():
        part, sides = pair["explained"], (pair["sides"]["source"], pair["sides"]["target"])
        linear, same = part["linear"], part.get("passed through")
        shown = f"{linear['r2']:.4f} ({linear['low']:.4f} to {linear['high']:.4f})"
        as_it_is = "-" if same is None else f"{same['r2']:.3f}"
        rank = " → ".join(f"{side['rank']['effective']:.1f}" for side in sides)
        norm = " → ".join(f"{side['norms']['mean']:.2f}" for side in sides)
        told.append(
            f"  {name:<{wide}}  {shown:<26} {as_it_is:>8} {part['shuffled']['r2']:>9.4f}"
            f" {pair['canonical']['mean_held_out']:>10.3f}  {rank:<12}  {norm}"
        )
    told.append("canonical: mean canonical correlation, held out; rank: effective, of source → target; norms likewise")
    return told
