"""Where effects are kept: a table and what it was made with, found again by the digest of all that they depend on.

SITE/effects/NAME_KEY.parquet    a row a gene or feature
SITE/effects/NAME_KEY.json       settings, inputs, what came out; written last: without it there is nothing
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files, run

if TYPE_CHECKING:
    import polars as pl

SCHEMA = 1
FOLDER = "effects"


def key_of(kind: str, settings: dict[str, Any], inputs: dict[str, str]) -> str:
    """Digest what an effect depends on."""
    return files.digest_json({"schema": SCHEMA, "kind": kind, "settings": settings, "inputs": inputs})


def place_of(folder: Path, name: str, key: str) -> Path:
    """The table's path; the name is made fit for a file's."""
    return folder / FOLDER / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)[:60]}_{key[:8]}.parquet"


def known(path: Path, key: str) -> dict[str, Any] | None:
    """Return what was found before under this very key, if its table is whole."""
    beside = path.with_suffix(".json")
    if not path.is_file() or not beside.is_file():
        return None
    told = files.read_json(beside, what="what an effect was made with", remedy="Delete it.")
    if not isinstance(told, dict) or told.get("key") != key or told.get("table") != files.digest_file(path):
        return None
    return told


def keep(path: Path, frame: pl.DataFrame, told: dict[str, Any]) -> dict[str, Any]:
    """Write a table, then what it is."""
    files.make_folder(path.parent)
    path.with_suffix(".json").unlink(missing_ok=True)
    files.write_atomically(path, frame.write_parquet)
    whole = {"schema": SCHEMA, **told, "table": files.digest_file(path), "versions": run.versions()}
    files.write_json(path.with_suffix(".json"), whole)
    return whole


def saved(results: Path | str, site: str | None = None) -> list[tuple[Path, dict[str, Any]]]:
    """Return the effects that lie in a run, of one site or of all: each table's path, and what it is."""
    from elute.analysis.findings import open_run

    found = open_run(Path(results))
    folders = [found.site(name).folder for name in ([site] if site else found.sites)]
    paths = [path for folder in folders for path in sorted((folder / FOLDER).glob("*.json"))]
    told = [(path.with_suffix(".parquet"), files.read_json(path, what="an effect")) for path in paths]
    return [(path, each) for path, each in told if path.is_file() and isinstance(each, dict)]
