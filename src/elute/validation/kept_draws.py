"""Draws of null lists, kept while a database is asked: what was killed goes on with the draw after the last one kept.

FOLDER/.SOURCE.draws.json   the counts so far, and what they are of
FOLDER/.SOURCE.draws.npy    the least p of each list in each draw; written first, so it never has fewer than are counted
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elute.base import files
from elute.base.errors import EluteError
from elute.base.tensors import load_npy
from elute.validation.null_counts import Counts

if TYPE_CHECKING:
    from elute.base.statistics.checks import Floats

EVERY = 15.0  # seconds between two times of writing


class Draws:
    """What was drawn for one database, in memory and, if it takes long, on disk."""

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self.key = key
        self.counts: Counts | None = None
        """What an earlier run counted."""
        self.least: list[Floats] = []
        """The least p of each list, by draw."""
        self.files = (
            None if path is None else tuple(path.with_name(f"{path.name}.draws.{kind}") for kind in ("json", "npy"))
        )
        self.written = time.monotonic()
        if self.files is not None and all(each.exists() for each in self.files):
            self._read(*self.files)

    def _read(self, told: Path, least: Path) -> None:
        try:
            held = files.read_json(told)
            if held["key"] == self.key:
                rows = np.array(load_npy(least)[: held["rows"]])
                self.counts, self.least = Counts.from_state(held["counts"]), list(rows)
        except (EluteError, KeyError, TypeError):
            self.counts, self.least = None, []  # made anew

    def add(self, least_p: Floats) -> None:
        """Take the least p of each list of a draw."""
        self.least.append(least_p)

    def keep(self, counts: Counts) -> None:
        """Write what is there, unless that was done just now."""
        if self.files is None or time.monotonic() - self.written < EVERY:
            return
        told, least = self.files
        files.write_atomically(least, lambda handle: np.save(handle, np.array(self.least)))
        files.write_json(told, {"key": self.key, "rows": len(self.least), "counts": counts.state()})
        self.written = time.monotonic()

    def done(self) -> None:
        """Remove what is needed no more."""
        for path in self.files or ():
            path.unlink(missing_ok=True)
