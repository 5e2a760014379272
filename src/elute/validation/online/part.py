"""The beginning of a file that is being fetched, kept beside its place so that another attempt goes on with it.

`.NAME.part` holds what has come, `.NAME.part.json` of what: the address, how many bytes it has in all, and the mark
by which its server knows whether it is still the same (a strong ETag, else the date of its last change). Without such
a mark, or without a length, an attempt begins anew. The kernel's lock on the part keeps a second process out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from elute.base import files
from elute.base.errors import BusyError, DataError, SpaceError
from elute.validation.online.keys import scrub

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Told:
    """What a server says of a file."""

    url: str
    total: int | None = None
    mark: str = ""
    etag: str = ""
    modified: str = ""

    @staticmethod
    def by(headers: Mapping[str, str], url: str) -> Told:
        """Read it from the headers of an answer."""
        etag, modified = (headers.get(name, "").strip()[:200] for name in ("etag", "last-modified"))
        length = headers.get("content-length", "")
        strong = etag if etag.startswith('"') else ""
        return Told(scrub(url), int(length) if length.isdecimal() else None, strong or modified, etag, modified)


class Part:
    """What has come of a file; all writing is at its end."""

    def __init__(self, target: Path, handle: BinaryIO, path: Path) -> None:
        self._target, self._handle, self._path = target, handle, path
        self._record = path.with_name(f"{path.name}.json")
        self._sha = hashlib.sha256()
        self.had = 0
        self.told = Told("")

    def recall(self, url: str) -> int:
        """Take up what an earlier attempt at the same address left, if it can be gone on with; return its bytes."""
        with suppress(DataError, TypeError, AttributeError):
            told = Told(**files.read_json(self._record))
            had = os.fstat(self._handle.fileno()).st_size
            if told.url == scrub(url) and told.mark and isinstance(told.total, int) and 0 < had <= told.total:
                self._handle.seek(0)
                while piece := self._handle.read(_CHUNK):
                    self._sha.update(piece)
                self.had, self.told = had, told
                return had
        self.clear()
        return 0

    @property
    def whole(self) -> bool:
        """Whether all of it has come."""
        return self.told.total is not None and self.had == self.told.total

    def begin(self, told: Told) -> None:
        """Begin anew with what a server has now."""
        self.clear()
        if told.total is not None and told.total > (free := files.free_bytes(self._path)):
            what = f"{told.total / 1e6:,.0f} MB are to come, and there is room for {free / 1e6:,.0f} MB"
            raise SpaceError(what, where=self._target, remedy="Make room, or choose another folder.")
        if told.mark and told.total is not None:
            files.write_json(self._record, asdict(told))
        self.told = told

    def write(self, piece: bytes) -> None:
        """Add what has come."""
        with files.disk_errors(self._target):
            left = memoryview(piece)
            while left:  # without a buffer, a write may take a part
                left = left[self._handle.write(left) :]
        self._sha.update(piece)
        self.had += len(piece)

    def clear(self) -> None:
        """Let go of what has come."""
        with files.disk_errors(self._target):
            self._handle.seek(0)
            self._handle.truncate()
            self._record.unlink(missing_ok=True)
        self.had, self.told, self._sha = 0, Told(""), hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest of what has come."""
        return self._sha.hexdigest()

    def finish(self) -> None:
        """Give the file its name."""
        with files.disk_errors(self._target):
            os.fsync(self._handle.fileno())
            self._path.replace(self._target)
            self._record.unlink(missing_ok=True)
            files.sync_folder(self._target.parent)


@contextmanager
def held(target: Path) -> Iterator[Part]:
    """Hold the part of a file for writing; what is empty at the end is removed."""
    path = target.with_name(f".{target.name}.part")
    with files.disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have finished, and so renamed, what was opened here a moment ago.
            mine = os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            remedy = "Wait until it ends, or choose another folder."
            raise BusyError("another process is fetching this file", where=target, remedy=remedy)
        part = Part(target, handle, path)
        try:
            yield part
        finally:
            if not part.had:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
