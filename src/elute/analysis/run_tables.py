"""Where a run keeps its tables, and reading them: one that is missing or damaged is told in one line.

With one site they lie in the run's folder, with several in a folder of each site's name below it; the cells are those
of the whole run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import files
from elute.base.errors import DamagedError, DataError

if TYPE_CHECKING:
    import polars as pl

FEATURES, GENES, CELLS, GROUPS, NUMBERS = (
    f"{name}.parquet" for name in ("features", "feature_genes", "feature_cells", "feature_groups", "feature_numbers")
)
SHEET = "cells.parquet"
# Any of these makes a folder the place of one site's results.
_MARKS = (FEATURES, "sae_final.pt", "codes/manifest.json")
# And one of these is beside folders of sites: a folder that holds runs is no run of several sites.
_HOME = (SHEET, "run.json", "activations")
_EXTRACT = "Type: elute cells extract --sae {} --data FILE.h5ad"


def find_sites(folder: Path) -> dict[str, Path]:
    """Return where the results of each site lie: in the run's own folder, or in one below it for each of several."""
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder, remedy="Give the folder of a run.")
    if any((folder / mark).exists() for mark in _MARKS):
        return {_read_site(folder): folder}
    if not any((folder / mark).exists() for mark in _HOME):
        return {}
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    found = {path.name: path for path in inner if any((path / mark).exists() for mark in _MARKS)}
    return {name: found[name] for name in sorted(found, key=_natural)}


def read_table(folder: Path, name: str, *, feature: int | None = None, needs: tuple[str, ...] = ()) -> pl.DataFrame:
    """Read a table of findings, or its rows of one feature; one that is not there is told with what makes it."""
    import polars as pl

    path = folder / name
    if not path.is_file():
        raise DataError(f"holds no {name}", where=folder, remedy=_EXTRACT.format(folder))
    try:
        lazy = pl.scan_parquet(path, glob=False)
        columns = lazy.collect_schema().names()
        if lost := [column for column in ("feature", *needs) if column not in columns]:
            what = f"has no column {lost[0]!r}, so it is no table of features"
            raise DamagedError(what, where=path, remedy=_EXTRACT.format(folder))
        return (lazy if feature is None else lazy.filter(pl.col("feature") == feature)).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"cannot be read: {first}", where=path, remedy=_EXTRACT.format(folder)) from None


def read_cells(folder: Path) -> pl.DataFrame:
    """Read the cells of a run; their order is that of every table."""
    import polars as pl

    path = folder / SHEET
    if not path.is_file():
        raise DataError(f"holds no {SHEET}", where=folder, remedy=_EXTRACT.format(folder))
    try:
        frame = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"cannot be read: {first}", where=path, remedy=_EXTRACT.format(folder)) from None
    if "cell" not in frame.columns:
        raise DamagedError("has no column 'cell'", where=path, remedy=_EXTRACT.format(folder))
    return frame


def _read_site(folder: Path) -> str:
    """The name of the site of a run that has one alone, as its codes say it."""
    path = folder / "codes" / "manifest.json"
    if path.is_file():
        value = files.read_json(path, what="a manifest of codes", remedy="Encode the rows anew.")
        reads = value.get("reads") if isinstance(value, dict) else None
        if isinstance(reads, list) and reads and all(isinstance(name, str) for name in reads):
            return " + ".join(reads)
    return folder.resolve().name


def _natural(name: str) -> list[tuple[int, str]]:
    """An order in which block 2 comes before block 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
