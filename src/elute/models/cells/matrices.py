"""Which matrix of a file is taken, and which of its cells.

1. X, then a layer that is called counts, then raw: the first that holds raw counts in every chosen cell is taken.
2. If none does, and normalised values are accepted, the first of them whose values are not negative.
3. Cells are drawn from those for which the matrix stores something; those without any number but 0 are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from elute.base import console
from elute.base.errors import ConfigError, DataError, near
from elute.models.cells.counts import IN_WORDS, Look, look
from elute.models.cells.sampling import draw
from elute.models.cells.sheet import Sheet, some

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.store.imports.nonzeros import Nonzeros

    Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_ACCEPTED = ("log-normalised", "numbers")
_WHY_NOT_SCALED = "Values below 0 have no place among quantiles of what is expressed, so they are never read as counts."


@dataclass(frozen=True)
class Wanted:
    """What was asked for: a matrix or `auto`, and which of the cells, numbered by `stratum`."""

    matrix: str
    accept_normalised: bool
    stratum: Integers
    max_cells: int | None
    seed: int
    keep: bool


@dataclass(frozen=True, eq=False)
class Found:
    """A matrix with the chosen cells: `rows` of `matrix` are the cells `chosen` of the file."""

    name: str
    kind: str
    matrix: Nonzeros
    rows: Integers
    chosen: Integers
    lengths: Integers
    var: pl.DataFrame


@dataclass(frozen=True, eq=False)
class _Candidate:
    name: str
    matrix: Nonzeros
    var: pl.DataFrame
    rows: Integers
    where: str
    seen: Look | None = None


def find_matrix(sheet: Sheet, wanted: Wanted) -> Found:
    """Find the matrix, say in one line which it is, and leave empty cells out."""
    names = _asked(sheet, wanted.matrix)
    looked: list[_Candidate] = []
    for name in names:
        candidate = _look(_candidate(sheet, name, wanted), sheet, (wanted.keep, True))
        if _kind(candidate) == "counts" and _seen(candidate).fault is None:
            _say(sheet, candidate, looked)
            return _without_empty(sheet, candidate)
        looked.append(replace(candidate, seen=replace(_seen(candidate), kept=None)))
    return _without_empty(sheet, _normalised(sheet, looked, wanted))


def _asked(sheet: Sheet, matrix: str) -> list[str]:
    if not sheet.matrices:
        raise DataError("holds no matrix (X, layers or raw)", where=sheet.where, remedy="Check what wrote it.")
    if matrix == "auto":
        if found := sheet.candidates():
            return found
        raise ConfigError(
            "has no X and no raw, and no layer that is called counts",
            where=sheet.where,
            remedy=f"Choose a matrix: --matrix {next(iter(sheet.matrices))}.",
        )
    name = {"raw/X": "raw", "raw.X": "raw"}.get(matrix, matrix)
    if name not in sheet.matrices:
        raise ConfigError(f"has no matrix {matrix!r}", where=sheet.where, remedy=near(name, sheet.matrices))
    return [name]


def _candidate(sheet: Sheet, name: str, wanted: Wanted) -> _Candidate:
    import numpy as np

    var = sheet.var(name)
    matrix = sheet.matrix(name, len(var))
    stored = np.arange(len(sheet.names)) if matrix.lengths is None else np.flatnonzero(matrix.lengths)
    if wanted.max_cells is not None:
        stored = stored[draw(wanted.stratum[stored], wanted.max_cells, wanted.seed)]
    return _Candidate(name, matrix, var, stored, f"{sheet.where}, {name}")


def _look(candidate: _Candidate, sheet: Sheet, how: tuple[bool, bool]) -> _Candidate:
    keep, hasty = how
    genes = candidate.var["index"]
    names = (candidate.where, lambda row: str(sheet.names[row]), lambda column: str(genes[column]))
    return replace(candidate, seen=look(candidate.matrix, candidate.rows, names, keep=keep, hasty=hasty))


def _seen(candidate: _Candidate) -> Look:
    assert candidate.seen is not None  # noqa: S101  # for the type checker: every candidate has been looked at
    return candidate.seen


def _kind(candidate: _Candidate) -> str:
    return _seen(candidate).kind


def _normalised(sheet: Sheet, looked: list[_Candidate], wanted: Wanted) -> _Candidate:
    """Refuse what holds no counts, or take it as it is where that was accepted."""
    if all(_kind(candidate) == "empty" for candidate in looked):
        what = f"all of {console.count(len(sheet.names), 'cell')} are empty: {_and(looked)}"
        raise DataError(what, where=sheet.where, remedy="Check what wrote it.")
    for candidate in looked:
        if _seen(candidate).whole and _seen(candidate).fault is not None:
            raise _fault(sheet, candidate)
    if not wanted.accept_normalised:
        remedy = (
            "Put raw counts into X, layers['counts'] or raw, or name the matrix that holds them (--matrix). With "
            "--accept-normalised values are taken as they are: bins are quantiles within a cell, so logarithms of "
            "counts give nearly the same bins."
        )
        useless = all(_kind(candidate) in ("scaled", "empty") for candidate in looked)
        raise DataError(
            f"holds no raw counts: {_and(looked)}",
            where=sheet.where,
            remedy=f"Put raw counts into X, layers['counts'] or raw. {_WHY_NOT_SCALED}" if useless else remedy,
        )
    for candidate in looked:
        if _kind(candidate) in _ACCEPTED:
            full = _look(candidate, sheet, (wanted.keep, False))
            if _seen(full).fault is not None:
                raise _fault(sheet, full)
            if _kind(full) in _ACCEPTED:
                _say(sheet, full, [c for c in looked if c is not candidate])
                return full
    raise DataError(f"holds no raw counts: {_and(looked)}", where=sheet.where, remedy=_WHY_NOT_SCALED)


def _fault(sheet: Sheet, candidate: _Candidate) -> DataError:
    fault, genes = _seen(candidate).fault, candidate.var["index"]
    assert fault is not None  # noqa: S101  # for the type checker
    return fault.error(candidate.where, lambda row: str(sheet.names[row]), lambda column: str(genes[column]))


def _and(looked: list[_Candidate]) -> str:
    """Say what each matrix is."""
    return ", ".join(f"{candidate.name} {IN_WORDS[_kind(candidate)]}" for candidate in looked)


def _say(sheet: Sheet, taken: _Candidate, others: list[_Candidate]) -> None:
    because = f"; {_and(others)}" if others else ""
    if _kind(taken) == "counts":
        console.say(f"{sheet.where}: {taken.name} holds counts and is taken{because}")
    else:
        console.say(f"{sheet.where}: no counts: {taken.name} {IN_WORDS[_kind(taken)]}, and is taken as it is{because}")


def _without_empty(sheet: Sheet, candidate: _Candidate) -> Found:
    """Leave out cells that hold nothing but 0, and say how many and which."""
    import numpy as np

    seen, stored = _seen(candidate), candidate.matrix.lengths
    never = np.empty(0, np.int64) if stored is None else np.flatnonzero(stored == 0)
    left_out = np.sort(np.concatenate([never, candidate.rows[~seen.filled]]))
    chosen = candidate.rows[seen.filled]
    if len(left_out):
        named = some(str(sheet.names[int(row)]) for row in left_out[:4])
        empty = "is empty and is" if len(left_out) == 1 else "are empty and are"
        console.warn(
            f"{candidate.where}: {len(left_out):,} of {console.count(len(sheet.names), 'cell')} "
            f"{empty} left out: no gene has a number but 0 ({named})"
        )
    matrix, rows = (candidate.matrix, chosen) if seen.kept is None else (seen.kept, np.flatnonzero(seen.filled))
    return Found(candidate.name, seen.kind, matrix, rows, chosen, seen.lengths[seen.filled], candidate.var)
