"""The same particle in the same row of every source.

1. By id, where every source gives ids and some are the same; particles whose coordinates then lie further apart than
   the tolerance are counted, and where most do, the ids name other things in either source and it stops.
2. Else by run and coordinates: two particles of one run are the same where each is the other's nearest, within the
   tolerance. Where that leaves doubt (the nearest is nearer to another one; two are equally near) neither is taken:
   ambiguous.
3. Else it stops. Rows of one class can be paired at random, as has been done; but then a particle is judged with the
   help of another one that is known to be of its class, and whatever is fused gains: `--pair-by label` does so to
   reproduce old numbers, and marks every output.

The first source's rows are the reference: others are matched to them, and their order stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elute.base import console
from elute.base.errors import DataError
from elute.base.statistics.checks import generator
from elute.particles.labels import one_form
from elute.particles.nearest_pairs import match_places
from elute.particles.table import COLUMNS, NOT_EVIDENCE, PLACE, Joined, Pairing, ParticleTable

if TYPE_CHECKING:
    import polars as pl

    from elute.particles.settings import EvaluationConfig

Ints = NDArray[np.int64]

_LABEL_PAIRING = (
    "pairing rows by class label instead would judge each particle with the help of another one known to be of its "
    "class, which invents a gain (a table fused with a shuffled copy of itself: 0.67 becomes 0.89); "
    "--pair-by label does so to reproduce old numbers, and marks every output as no evidence"
)


@dataclass(frozen=True, eq=False)
class _Match:
    """Rows of each source that are the same particles, [sources, matched], and what was not matched."""

    rows: Ints
    counts: dict[str, Any]


def join(tables: Sequence[ParticleTable], config: EvaluationConfig, *, judged: bool = True) -> Joined:
    """Pair the rows of two or more sources; `judged` says that fusion is to be judged by them, not used alone."""
    if len(tables) < 2:
        raise DataError("one source only", where="join", remedy="Give two or more: there is nothing to fuse.")
    pairing: Pairing
    if config.pair_by == "label":
        pairing, match = "label", _by_label(tables, seed=config.random_seed)
        console.warn(f"rows were paired at random within each class: {NOT_EVIDENCE}")
    else:
        pairing, match = _by_key(tables, tolerance=config.tolerance, judged=judged)
    return _joined(tables, match, pairing)


def _by_key(tables: Sequence[ParticleTable], *, tolerance: float, judged: bool) -> tuple[Pairing, _Match]:
    """Pair by id, else by place; say what is missing where neither can be."""
    without_ids = [t.name for t in tables if not t.has("id")]
    shared: set[str] = set()
    if not without_ids:
        shared = set.intersection(*(set(t.particles["id"].to_list()) for t in tables))
        if shared:
            return "id", _by_id(tables, shared, tolerance=tolerance)
    without_places = [t.name for t in tables if not t.has("run", *PLACE)]
    if not without_places:
        return "run and coordinates", _by_place(tables, tolerance=tolerance)
    ids = f"{' and '.join(without_ids)} has no ids" if without_ids else _no_common_id(tables)
    places = f"{' and '.join(without_places)} has no run and coordinates for every particle"
    raise DataError(f"the sources share no key: {ids}, and {places}{f'; {_LABEL_PAIRING}' if judged else ''}",
                    where="join",
                    remedy="Give ids, or runs and coordinates, in every source (coords, id_column, run_column, "
                           "coordinate_columns in the configuration file).")  # fmt: skip


def _no_common_id(tables: Sequence[ParticleTable]) -> str:
    shown = ", ".join(f"{t.particles['id'][0]!r} in {t.name}" for t in tables)
    return f"no id is in all of them ({shown})"


def _by_id(tables: Sequence[ParticleTable], shared: set[str], *, tolerance: float) -> _Match:
    places = [dict(zip(t.particles["id"].to_list(), range(len(t)), strict=True)) for t in tables]
    order = [name for name in tables[0].particles["id"].to_list() if name in shared]
    rows = np.array([[place[name] for name in order] for place in places], dtype=np.int64)
    counts: dict[str, Any] = {
        "matched": len(order),
        "unmatched": {t.name: len(t) - len(order) for t in tables},
        "ambiguous": {t.name: 0 for t in tables},
        "apart": _apart(tables, rows, tolerance=tolerance),
    }
    return _Match(rows, counts)


def _apart(tables: Sequence[ParticleTable], rows: Ints, *, tolerance: float) -> int:
    """Count particles of one id whose coordinates lie apart; where most do, the ids name different things."""
    placed = [i for i, t in enumerate(tables) if t.has(*PLACE)]
    if len(placed) < 2:
        return 0
    at = [tables[i].particles.select(PLACE).to_numpy()[rows[i]] for i in placed]
    far = np.zeros(rows.shape[1], dtype=bool)
    for other in at[1:]:
        far |= np.linalg.norm(other - at[0], axis=1) > tolerance
    if far.mean() > 0.5:
        raise DataError(
            f"{int(far.sum()):,} of {len(far):,} particles of one id lie more than {tolerance:g} Å apart in "
            f"{tables[placed[0]].name} and the others: these ids do not name the same particles",
            where="join",
            remedy="Check the ids and the unit of the coordinates (unit: voxel), or raise the tolerance.",
        )
    return int(far.sum())


def _by_place(tables: Sequence[ParticleTable], *, tolerance: float) -> _Match:
    """Match every other source to the first, and keep the particles that all have."""
    first = tables[0]
    kept = np.arange(len(first))
    partners = [kept]
    ambiguous, nearest = {first.name: 0}, np.inf
    several: dict[str, int] = {}
    for table in tables[1:]:
        found = match_places(first, table, tolerance=tolerance)
        partners.append(found.partner)
        ambiguous[table.name], several[table.name] = found.ambiguous, found.several
        nearest = min(nearest, found.nearest)
    all_have = np.all([p >= 0 for p in partners], axis=0)
    rows = np.array([p[all_have] for p in partners], dtype=np.int64)
    if not rows.shape[1]:
        raise DataError(f"no particle is in all sources: {_how_far(tables, nearest, tolerance)}", where="join",
                        remedy="Check run names, and the unit of the coordinates (unit, voxel_spacing).")  # fmt: skip
    counts: dict[str, Any] = {
        "matched": rows.shape[1],
        "unmatched": {t.name: len(t) - rows.shape[1] for t in tables},
        "ambiguous": ambiguous,
        "several_within_tolerance": several,
        "tolerance": tolerance,
    }
    return _Match(rows, counts)


def _how_far(tables: Sequence[ParticleTable], nearest: float, tolerance: float) -> str:
    if np.isfinite(nearest):
        return f"the nearest two lie {nearest:,.1f} Å apart, and the tolerance is {tolerance:g} Å"
    shown = ", ".join(f"{t.particles['run'][0]!r} in {t.name}" for t in tables)
    return f"they have no run in common ({shown})"


def _by_label(tables: Sequence[ParticleTable], *, seed: int) -> _Match:
    """Pair rows of one class at random, as many as the source with fewest has."""
    for table in tables:
        if not table.has("label"):
            raise DataError(f"some particles of {table.name} have no class to pair by", where="join",
                            remedy="Give every particle one.")  # fmt: skip
    forms = [np.array([one_form(label) for label in t.particles["label"]]) for t in tables]
    common = sorted(set.intersection(*(set(form.tolist()) for form in forms)))
    if not common:
        shown = ", ".join(f"{form[0]!r} in {t.name}" for form, t in zip(forms, tables, strict=True))
        raise DataError(f"no class is in all sources ({shown})", where="join", remedy="Check the classes' names.")
    rng = generator(seed, "particles.label_pairs")
    parts = []
    for label in common:
        here = [np.flatnonzero(form == label) for form in forms]
        n = min(map(len, here))
        parts.append(np.array([rng.permutation(rows)[:n] for rows in here]))
    rows = np.concatenate(parts, axis=1).astype(np.int64)
    counts = {"matched": rows.shape[1], "unmatched": {t.name: len(t) - rows.shape[1] for t in tables},
              "ambiguous": {t.name: rows.shape[1] for t in tables}}  # fmt: skip
    return _Match(rows, counts)


def _joined(tables: Sequence[ParticleTable], match: _Match, pairing: Pairing) -> Joined:
    """Put the rows side by side; particles without a class, or with two, are left out and counted."""
    import polars as pl

    frames = [t.particles[rows.tolist()] for t, rows in zip(tables, match.rows, strict=True)]
    labels = [frame["label"].to_list() for frame in frames]
    forms = [{one_form(one) for one in each if one is not None} for each in zip(*labels, strict=True)]
    good = np.array([len(form) == 1 for form in forms], dtype=bool)
    counts = {
        **match.counts,
        "without_class": sum(not form for form in forms),
        "of_two_classes": sum(len(form) > 1 for form in forms),
    }
    if not good.any():
        raise DataError("no matched particle has a class that the sources agree on", where="join",
                        remedy="Check label_column, and how classes are written.")  # fmt: skip
    known = frames[0].select(
        pl.coalesce(pl.col(c), *(pl.Series(f[c]) for f in frames[1:])).alias(c) if c != "label" else pl.col(c)
        for c in COLUMNS
    )
    known = known.with_columns(_one_spelling(labels))[np.flatnonzero(good).tolist()]
    if known["id"].null_count():
        known = known.with_columns(pl.Series("id", [f"sample_{i}" for i in range(len(known))], pl.String))
    return Joined(
        names=tuple(t.name for t in tables),
        vectors=tuple(np.ascontiguousarray(t.vectors[rows[good]]) for t, rows in zip(tables, match.rows, strict=True)),
        particles=known,
        pairing=pairing,
        counts=counts,
        digests={t.name: t.digest for t in tables},
        notes=(*(note for t in tables for note in t.notes), *_told(counts, tables[0].name)),
    )


def _one_spelling(labels: Sequence[Sequence[str | None]]) -> pl.Series:
    """Give each class the spelling in which it comes first."""
    import polars as pl

    spelling: dict[str, str] = {}
    out = []
    for each in zip(*labels, strict=True):
        label = next((one for one in each if one is not None), None)
        out.append(None if label is None else spelling.setdefault(one_form(label), label))
    return pl.Series("label", out, pl.String)


def _told(counts: dict[str, Any], first: str) -> list[str]:
    """What a reader has to know about the pairing."""
    out = []
    if counts["of_two_classes"]:
        out.append(
            f"{counts['of_two_classes']:,} particles are of another class in {first} than in the others: left out"
        )
    if counts["without_class"]:
        out.append(f"{counts['without_class']:,} particles have no class: left out")
    if counts.get("apart"):
        out.append(f"{counts['apart']:,} particles of one id lie further apart than the tolerance")
    return out


def balanced(joined: Joined, *, seed: int) -> Joined:
    """Draw as many particles of each class as the rarest has; their order stays."""
    sizes = np.bincount(joined.codes)
    rng = generator(seed, "particles.balance")
    rows = np.sort(np.concatenate([
        rng.permutation(np.flatnonzero(joined.codes == c))[: sizes.min()] for c in range(len(sizes))
    ]))  # fmt: skip
    note = f"classes were balanced: {sizes.min():,} particles each of {len(joined):,} in all"
    return replace(joined.only(rows), notes=(*joined.notes, note))
