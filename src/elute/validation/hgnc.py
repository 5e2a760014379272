"""HGNC's table in the data folder: fetched or imported, checked by being read, dated.

$ELUTE_DATA/genes/hgnc_complete_set.txt    as published, compressed or not
                  hgnc.json                where it came from, when, its digest
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

from elute.base import files
from elute.base.data import HGNC, data_folder, hgnc_table
from elute.base.errors import DamagedError, EluteError

URL = "https://storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt"
RECORD = "hgnc.json"
GET = "Type: elute databases fetch hgnc"


def fetch(*, mirror: str = "") -> dict[str, Any]:
    """Fetch the table and keep it, once it is read without a fault."""
    from elute.validation.online.download import fetch_file

    folder = files.make_folder(data_folder() / "downloads" / "hgnc")
    fetched = fetch_file(URL, folder / HGNC, mirror=mirror)
    told = keep(fetched.path, how="fetched", url=URL, modified=fetched.modified)
    shutil.rmtree(folder, ignore_errors=True)
    return told


def keep(path: Path, *, how: str = "imported", **told: str) -> dict[str, Any]:
    """Copy a table into the data folder; one that is damaged is refused, and what was there stays."""
    from elute.base.genes import GeneTable

    genes = GeneTable.read(path)
    folder = files.make_folder(data_folder() / "genes")
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    target = folder / (f"{HGNC}.gz" if packed else HGNC)
    with files.locked(folder, "installing HGNC's table"):
        files.write_atomically(target, lambda handle: handle.write(path.read_bytes()))
        (folder / (HGNC if packed else f"{HGNC}.gz")).unlink(missing_ok=True)
        record = {
            "name": target.name,
            "taken": dt.datetime.now(dt.UTC).date().isoformat(),
            "how": how,
            "sha256": files.digest_file(target),
            "size": target.stat().st_size,
            "genes": len(genes),
            **told,
        }
        files.write_json(folder / RECORD, record)
    return record


def standing() -> dict[str, Any] | None:
    """What is known of the table in the data folder; None if there is none. One that a person put there has no date."""
    path = hgnc_table()
    if path is None:
        return None
    record = path.with_name(RECORD)
    told = files.read_json(record, what="a record of HGNC's table", remedy=GET) if record.exists() else {}
    if not isinstance(told, dict) or told.get("name") != path.name:
        told = {}
    return {"path": str(path), "taken": "", "how": "put there", **told}


def verify() -> list[str]:
    """Say what is wrong with the table: nothing, or a line a fault."""
    from elute.base.genes import GeneTable

    told = standing()
    if told is None:
        return []
    path = Path(told["path"])
    try:
        if "sha256" in told and files.digest_file(path) != told["sha256"]:
            raise DamagedError("was altered (other digest)", where=path, remedy=GET)
        GeneTable.read(path)
    except EluteError as error:
        return [error.line()]
    return []
