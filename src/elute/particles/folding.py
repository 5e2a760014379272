"""Folds: the same for every method, stratified by class, and of whole runs where runs are known.

Particles of one tomogram share its noise, its thickness, its defocus: one that is held out while its neighbours are
learnt from looks easier than it is. Where there are fewer runs than folds, there are as many folds as runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elute.base.errors import DataError
from elute.base.files import write_atomically
from elute.base.statistics.checks import generator, group_codes
from elute.heads.folds import group_folds

if TYPE_CHECKING:
    from elute.particles.settings import EvaluationConfig
    from elute.particles.table import Joined

Ints = NDArray[np.int64]
NAME = "folds.parquet"


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold holds each particle out, and which particles belong together."""

    of: Ints  # [n], from 0
    groups: Ints  # [n], from 0: runs, or each particle by itself
    grouped_by: str  # "run" or "particle"
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many folds there are."""
        return int(self.of.max()) + 1

    @property
    def n_groups(self) -> int:
        """How many runs, or particles, there are."""
        return int(self.groups.max()) + 1


def draw_folds(joined: Joined, config: EvaluationConfig) -> Folds:
    """Deal the particles into folds."""
    sizes = np.bincount(joined.codes, minlength=len(joined.classes))
    if len(joined.classes) < 2:
        raise DataError(f"there is one class only, {joined.classes[0]!r}", where="folds",
                        remedy="Give particles of two classes or more.")  # fmt: skip
    runs = joined.runs if config.group_by == "run_name" else None
    notes: list[str] = []
    if config.group_by == "run_name" and runs is None:
        notes.append("runs are not known: particles were dealt one by one, and neighbours may lie in different folds")
    if runs is not None and len(set(runs)) < 2:
        notes.append("there is one run only: it was dealt particle by particle, and neighbours lie in different folds")
        runs = None
    groups = np.arange(len(joined)) if runs is None else group_codes(runs, "folds(runs)")[1]
    n = config.n_folds if runs is None else min(config.n_folds, int(groups.max()) + 1)
    if n < config.n_folds:
        notes.append(f"{n} folds instead of {config.n_folds}: there are {n} runs")
    few = int(sizes.argmin())
    if sizes[few] < n:
        raise DataError(f"class {joined.classes[few]!r} has {sizes[few]} particles for {n} folds", where="folds",
                        remedy=f"Give --n-folds {max(2, int(sizes[few]))}, or leave the class out.")  # fmt: skip
    if runs is not None:
        _refuse_single_run(joined, groups)
    of = stratified(joined.codes, groups, n, seed=config.random_seed, whole=runs is not None)
    notes += _untaught(joined, of)
    return Folds(of, groups, "particle" if runs is None else "run", tuple(notes))


def _refuse_single_run(joined: Joined, groups: Ints) -> None:
    """A class that lies in one run is never there to be learnt when it is held out."""
    for c, name in enumerate(joined.classes):
        if len(np.unique(groups[joined.codes == c])) < 2:
            raise DataError(
                f"class {name!r} lies in one run only: when that is held out, nothing is left to learn it from",
                where="folds",
                remedy="Leave the class out, or deal particles one by one with --group-by none.",
            )


def _untaught(joined: Joined, of: Ints) -> list[str]:
    """Say which classes some fold's training part lacks."""
    lacking = [
        f"all particles of class {name!r} lie in fold {of[joined.codes == c][0]}: it is never recognised"
        for c, name in enumerate(joined.classes)
        if len(np.unique(of[joined.codes == c])) < 2
    ]
    return lacking[:5]


def stratified(codes: Ints, groups: Ints, n: int, *, seed: int, whole: bool) -> Ints:
    """Return a fold [rows] from 0: whole groups, labels spread evenly; or rows one by one, each class in turn."""
    if whole:
        return group_folds(groups, codes, folds=n, seed=seed)
    rng = generator(seed, "particles.folds")
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    of = np.empty(len(codes), dtype=np.int64)
    of[order] = np.arange(len(codes)) % n
    return of


def inner_folds(codes: Ints, groups: Ints, *, n: int, seed: int) -> Ints:
    """Return the inner fold of each training row: whole groups where there are enough, else row by row."""
    own = np.unique(groups, return_inverse=True)[1]
    n_groups = int(own.max()) + 1
    single = n_groups == len(groups)
    n = min(n, n_groups) if n_groups > 1 else min(n, len(codes))
    return stratified(codes, own, n, seed=seed, whole=n_groups > 1 and not single)


def write_folds(folder: Path, joined: Joined, folds: Folds) -> Path:
    """Store which particle is held out when."""
    import polars as pl

    frame = joined.particles.select("id", "label", "run").with_columns(pl.Series("fold", folds.of))
    path = folder / NAME
    write_atomically(path, lambda handle: frame.write_parquet(handle, statistics=False))
    return path
