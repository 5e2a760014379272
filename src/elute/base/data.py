"""Tables of a person's own that are used where they are found: the data folder."""

from __future__ import annotations

import os
from pathlib import Path

HGNC = "hgnc_complete_set.txt"


def data_folder() -> Path:
    """Return the folder of tables: $ELUTE_DATA, else `elute` in the user's cache folder; it need not be there."""
    if named := os.environ.get("ELUTE_DATA"):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path there is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "elute"


def hgnc_table() -> Path | None:
    """Return HGNC's complete set, if it lies in the data folder's folder `genes` or beside it, compressed or not."""
    folder = data_folder()
    places = (place / name for place in (folder / "genes", folder) for name in (HGNC, f"{HGNC}.gz"))
    return next((path for path in places if path.is_file()), None)
