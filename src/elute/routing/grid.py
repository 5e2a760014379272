"""`elute routing grid`: transcoders of several pairs, sizes and sparsities, and which of them is best.

    RUN/clt/grid/NAME/grid.json                 the settings of the grid
    RUN/clt/grid/NAME/PAIR/x4_k0.0625/          a transcoder (learning.py)
    RUN/clt/grid/NAME/ranking.json and .csv     every one, best first, written anew after each

What is trained is used as it is, what was interrupted goes on. They are ranked by how much more of the validation rows
they explain than the linear map of their pair; what they explain of the test rows stands beside, and was looked at by
nobody who chose. `front` marks those of a pair than which no other explains more with as few features firing.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError, DamagedError
from elute.base.recipe import build
from elute.base.run import Artifact
from elute.engine import resume
from elute.routing.clt_settings import EpochsConfig, GridConfig, Settings, TranscoderConfig, numbers
from elute.routing.learning import describe, learn

if TYPE_CHECKING:
    from elute.routing.pairs import Pair

GRID, RANKING = "grid.json", "ranking"
_COLUMNS = ("rank", "pair", "expansion_factor", "k", "lr", "seed", "features", "l0", "dead", "validation", "test",
            "linear_map", "less_linear_map", "low", "high", "front", "folder")  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Cell:
    """One transcoder of the grid."""

    pair: Pair
    name: str
    settings: Settings


def run_grid(
    run_dir: Path | str, config: GridConfig | None = None, settings: Settings | None = None, *, anew: bool = False
) -> Artifact:
    """Train what a grid holds and is not there yet, and rank all; `settings` say what all have in common."""
    run, config, settings = Path(run_dir), config or GridConfig(), settings or Settings()
    if settings.transcoder.k is not None:
        raise ConfigError("a grid's sparsity is given by k_ratio", where="k", remedy="Leave --k out.")
    cells = list(_cells(run, config, settings))
    folder = files.make_folder(run / "clt" / "grid" / config.name)
    with files.locked(folder, "walking a grid"):
        _same(folder, settings, anew=anew)
        lines: list[dict[str, Any]] = []
        for number, cell in enumerate(cells, 1):
            place = folder / cell.pair.name / cell.name
            if anew and place.exists():
                _empty(place)
            summary = learn(place, cell.pair, cell.settings)
            lines.append(_line(cell, summary, place.relative_to(folder)))
            _write(folder, lines)
            again = ", already there" if summary["reused"] else ""
            less = lines[-1]["less_linear_map"]
            console.say(f"{number} of {len(cells)}: {cell.pair.name} {cell.name}, {less:+.4f} to the linear map{again}")
    ranked = rank(lines)
    return Artifact("grid", folder, {"transcoders": len(ranked), "ranking": ranked})


def rank(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order lines by what they explain of the validation rows beyond the linear map, and mark each pair's front."""
    ordered = sorted(lines, key=lambda one: (-one["gain"], one["l0"], one["folder"]))
    return [
        {name: value for name, value in
         {"rank": number, **one, "front": not any(_better(other, one) for other in lines)}.items() if name != "gain"}
        for number, one in enumerate(ordered, 1)
    ]  # fmt: skip


def show(answer: Mapping[str, Any]) -> str:
    """Print the ranking, for people."""
    head = f"{answer['path']}: {console.count(answer['transcoders'], 'transcoder')}, best first"
    note = "* has no better one of its pair with as few features firing"
    columns = f"{'':5}{'pair':34}{'x':>5}{'k':>5}{'L0':>7}{'dead':>6}{'validation':>12}{'test':>9}{'linear':>9}"
    lines = [head, note, columns + "  test less linear (95%)"]
    for one in answer["ranking"]:
        star = "*" if one["front"] else " "
        lines.append(
            f"{one['rank']:3}{star} {one['pair']:34}{one['expansion_factor']:5g}{one['k']:5}{one['l0']:7.1f}"
            f"{one['dead']:6}{one['validation']:12.4f}{one['test']:9.4f}{one['linear_map']:9.4f}"
            f"  {one['less_linear_map']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
        )
    return "\n".join(lines)


def _cells(run: Path, config: GridConfig, settings: Settings) -> Iterator[_Cell]:
    """Every combination; all pairs are opened before anything is trained."""
    from elute.routing.pairs import open_pair

    pairs = [open_pair(run, name) for name in _pairs(run, config.pairs)]
    factors, ratios = (
        numbers(config.expansion_factor, where="expansion_factor"),
        numbers(config.k_ratio, where="k_ratio"),
    )
    rates: list[float | None] = list(numbers(config.lrs, where="lrs")) if config.lrs.strip() else [settings.epochs.lr]
    seeds = numbers(config.seeds, where="seeds")
    if wrong := [seed for seed in seeds if seed != int(seed)]:
        raise ConfigError(f"{wrong[0]:g} is no seed", where="seeds", remedy="Seeds are whole numbers.")
    for pair, factor, ratio, rate, seed in itertools.product(pairs, factors, ratios, rates, seeds):
        sized = {**settings.transcoder.model_dump(), "expansion_factor": factor, "k_ratio": ratio}
        made = build(TranscoderConfig, sized, "grid")
        epochs = build(EpochsConfig, {**settings.epochs.model_dump(), "lr": rate, "seed": int(seed)}, "grid")
        name = f"x{factor:g}_k{ratio:g}"
        name += "" if rate is None else f"_lr{rate:g}"
        name += f"_seed{int(seed)}" if seed else ""
        yield _Cell(pair, name, replace(settings, transcoder=made, epochs=epochs))


def _pairs(run: Path, text: str) -> list[str]:
    """Names of the pairs that are meant; of a cross-layer transcoder's rows none are."""
    from elute.routing.pair_places import collected

    single = [name for name in collected(run) if "-" not in name]
    if text.strip() in ("all", "mlp", "layers"):
        kept = {
            "all": single,
            "mlp": [n for n in single if "_mlp" in n],
            "layers": [n for n in single if "_mlp" not in n],
        }
        found = kept[text.strip()]
    else:
        found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        remedy = f"`elute routing collect-pairs --run-dir {run}` makes pairs."
        raise ConfigError("there are no pairs to train on", where=run, remedy=remedy)
    return list(dict.fromkeys(found))


def _same(folder: Path, settings: Settings, *, anew: bool) -> None:
    """Refuse to walk on with other settings than the grid was begun with; more pairs or sizes are none."""
    plain = settings.plain()
    for name in ("lr", "seed"):
        plain["epochs"].pop(name)
    for name in ("expansion_factor", "k_ratio", "k"):
        plain["transcoder"].pop(name)
    path = folder / GRID
    if path.exists() and not anew:
        held = files.read_json(path, what="a grid's settings", remedy="Begin anew with --anew.")
        if not isinstance(held, dict) or not all(isinstance(part, dict) for part in held.values()):
            raise DamagedError("is not a grid's settings", where=path, remedy="Begin anew with --anew.")
        try:
            resume.same_settings(folder, held, plain)
        except resume.OtherSettingsError as error:
            remedy = "Give the same settings to go on, --anew to start over, or another --name."
            raise resume.OtherSettingsError(error.what, where=folder, remedy=remedy) from None
    files.write_json(path, plain)


def _empty(place: Path) -> None:
    """Take away a transcoder that is trained anew."""
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _line(cell: _Cell, summary: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """One line of the ranking."""
    told = describe(cell.pair, cell.settings)
    less = summary["less_linear_map"]
    return {
        "pair": cell.pair.name, "expansion_factor": round(told["expansion_factor"], 6), "k": told["k"],
        "lr": cell.settings.epochs.lr, "seed": cell.settings.epochs.seed, "features": summary["features"],
        "l0": summary["l0"], "dead": summary["dead"], "validation": summary["validation"]["transcoder"],
        "gain": summary["validation"]["transcoder"] - summary["validation"]["linear_map"],
        "test": summary["transcoder"]["explained_variance"], "linear_map": summary["linear_map"]["explained_variance"],
        "less_linear_map": less["difference"], "low": less["low"], "high": less["high"], "folder": place.as_posix(),
    }  # fmt: skip


def _better(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one explains as much with as few features, and one of both better."""
    if one is other or one["pair"] != other["pair"]:
        return False
    explained, fired = one["validation"] - other["validation"], one["l0"] - other["l0"]
    return bool(explained >= 0 >= fired and (explained > 0 or fired < 0))


def _write(folder: Path, lines: list[dict[str, Any]]) -> None:
    ranked = rank(lines)
    files.write_json(folder / f"{RANKING}.json", ranked)
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(ranked)
    files.write_atomically(folder / f"{RANKING}.csv", lambda handle: handle.write(text.getvalue().encode()))
