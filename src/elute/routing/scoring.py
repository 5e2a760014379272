"""How good a policy's tours are: beside the shortest ones, and beside what needs no policy.

1. On instances: the gap of each tour to the shortest, length / shortest − 1, as a mean with its 95% interval (Student's
   t over instances). Where the shortest cannot be proven (more than 40 nodes) the best of a local search stands for it,
   and the table says so.
2. On files of TSPLIB: lengths as the library defines them, beside the published optimum. The policy decides on nodes
   scaled into the unit square, so that sizes and shapes may be unlike anything it was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from elute.base.errors import DataError
from elute.models.routing import exact, local_search, tsplib
from elute.models.routing.decoding import How, decode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.base.run import Artifact
    from elute.models.routing.decoding import Patched
    from elute.models.routing.instances import Instances
    from elute.models.routing.settings import InstanceConfig

QUICK: tuple[How, ...] = ("greedy", "multistart")  # what is looked at while a policy is trained
SEARCHED = 20  # starts of the local search where the shortest tour is out of reach
_SOLUTIONS = "solutions"
_LEVEL = 0.95


def shortest(instances: Instances) -> tuple[Tensor, str]:
    """Return the length that tours are held against, and what it is: optimum, or local search."""
    if instances.nodes <= exact.MOST:
        return exact.optimum(instances.coords)[1], "optimum"
    return local_search.reference(instances.coords, SEARCHED)[1], "local search"


def score(
    model: Patched, instances: Instances, *, hows: tuple[How, ...] = ("greedy", "multistart", "augment8")
) -> dict[str, Any]:
    """Solve instances in several ways; the answer is plain JSON."""
    best, what = shortest(instances)
    found: dict[str, Tensor] = {how: decode(model, instances, how).lengths for how in hows}
    found |= _without(instances)
    rows = [{"tours": how, **gap(lengths, best)} for how, lengths in found.items()]
    told = {"instances": len(instances), "nodes": instances.nodes, "reference": what}
    return {**told, "reference_length": round(float(best.mean()), 6), "rows": rows}


def gap(lengths: Tensor, best: Tensor) -> dict[str, float]:
    """Mean length, and mean gap with its interval."""
    from scipy import special

    share = (lengths.double() / best - 1.0).numpy()
    mean, half = float(share.mean()), 0.0
    if len(share) > 1:
        half = float(special.stdtrit(len(share) - 1, 0.5 + _LEVEL / 2) * share.std(ddof=1) / len(share) ** 0.5)
    found = {"length": float(lengths.double().mean()), "gap": mean, "low": mean - half, "high": mean + half}
    return {name: round(value, 6) for name, value in found.items()}


def score_tsplib(model: Patched, folder: Path | str) -> list[dict[str, Any]]:
    """Solve every `.tsp` file of a folder whose optimum is known there, with a row of plain JSON each."""
    folder = Path(folder)
    paths = sorted(folder.glob("*.tsp"))
    if not paths:
        raise DataError("there is no .tsp file", where=folder, remedy="Give a folder of TSPLIB's files.")
    known = read_optima(folder / _SOLUTIONS) if (folder / _SOLUTIONS).is_file() else {}
    return [_solved(model, path, known) for path in paths]


def read_optima(path: Path) -> dict[str, int]:
    """Read lines of `name : length`."""
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, colon, value = line.partition(":")
        words = value.split()
        if colon and words and words[0].isdecimal():
            found[name.strip()] = int(words[0])
    return found


def _solved(model: Patched, path: Path, known: dict[str, int]) -> dict[str, Any]:
    problem = tsplib.read(path)
    tour = path.with_suffix(".opt.tour")
    best, what = known.get(problem.name), "published"
    if best is None and tour.is_file():
        best, what = problem.tour_length(tsplib.read_tour(tour, problem.nodes)), "its optimal tour"
    distances = problem.distances()[None].astype("float64")
    searched = int(local_search.search(distances, SEARCHED)[0][0])
    if best is None:
        if problem.nodes <= exact.MOST:
            best, what = int(exact.shortest(distances)[0][0]), "proven here"
        else:
            best, what = searched, "local search"
    lengths = {how: _length(model, problem, how) for how in get_args(How) if how != "sampling"}
    lengths["nearest + 2-opt + or-opt"] = searched
    rows = {how: {"length": length, "gap": round(length / best - 1, 6)} for how, length in lengths.items()}
    return {"name": problem.name, "nodes": problem.nodes, "kind": problem.kind, "best": best, "from": what,
            "tours": rows}  # fmt: skip


def _length(model: Patched, problem: tsplib.Problem, how: How) -> int:
    return problem.tour_length(decode(model, problem, how).actions[0].numpy())


def _without(instances: Instances) -> dict[str, Tensor]:
    """Tours that need no policy: the nearest node each time, the same made better by 2-opt, and any order."""
    import torch

    nearest = torch.from_numpy(_nearest(local_search.between(instances.coords)))
    tours = {
        "nearest node": nearest,
        "nearest node + 2-opt": local_search.two_opt(instances.coords, nearest),
    }
    found = {name: instances.lengths(t) for name, t in tours.items()}
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(len(instances), instances.nodes, generator=generator).argsort(-1)
    return {**found, "random order": instances.lengths(order)}


def _nearest(distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Go from node 0 to the nearest node that is left, [instances, nodes]."""
    import numpy as np

    left = distances.copy()
    count, n = left.shape[:2]
    rows = np.arange(count)
    tours = np.zeros((count, n), np.int64)
    for step in range(1, n):
        left[rows, :, tours[:, step - 1]] = np.inf
        tours[:, step] = left[rows, tours[:, step - 1]].argmin(1)
    return tours


def score_run(
    run_dir: Path, config: InstanceConfig, *, checkpoint: str = "last", tsplib_dir: Path | None = None,
    device: str = "auto",
) -> Artifact:  # fmt: skip
    """Solve drawn instances, or TSPLIB's files, with a run's policy."""
    from elute.base.run import Artifact
    from elute.models.routing.instances import draw
    from elute.models.routing_policy import load

    model = load(run_dir, checkpoint=checkpoint, device=device)
    if tsplib_dir is not None:
        return Artifact("score", run_dir, {"policy": model.name, "tsplib": score_tsplib(model, tsplib_dir)})
    return Artifact("score", run_dir, {"policy": model.name, "score": score(model, draw(config))})


def lines(answer: dict[str, Any]) -> list[str]:
    """Say it for people."""
    if "tsplib" not in answer:
        return [answer["policy"], *table_lines(answer["score"])]
    found = [f"{answer['policy']}: lengths on TSPLIB's files, and how much longer than the shortest tour"]
    for row in answer["tsplib"]:
        found.append(f"{row['name']}, {row['nodes']} nodes, {row['kind']}: {row['best']:,} ({row['from']})")
        width = max(map(len, row["tours"]))
        found += [f"  {how:<{width}} {told['length']:>9,} {told['gap']:>8.2%}" for how, told in row["tours"].items()]
    return found


def table_lines(score: dict[str, Any]) -> list[str]:
    """Gaps as a table."""
    known = "the shortest tours" if score["reference"] == "optimum" else "the best tours of a local search, no proof"
    title = f"{score['instances']:,} held-out instances of {score['nodes']} nodes"
    lines = [f"{title}; gaps to {known} (mean {score['reference_length']:.4f})"]
    width = max(len(row["tours"]) for row in score["rows"])
    for row in score["rows"]:
        interval = f"{row['low']:.2%} to {row['high']:.2%}"
        lines.append(f"  {row['tours']:<{width}} {row['length']:>8.4f} {row['gap']:>8.2%}   ({interval})")
    return lines
