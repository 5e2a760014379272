"""Writing files so that nothing is ever half written, and reading the small ones.

A write goes to a hidden neighbour, is flushed to the disk and renamed over its name: a process that is killed at any
moment leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from elute.base.errors import BusyError, DamagedError, DataError, SpaceError

_CHUNK = 1 << 22
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew past the size limit",
}
_DENIED = {
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.EROFS: "the file system is read-only",
}
_GONE = {
    errno.ENOENT: "the folder is not there, and none can be made",
    errno.EIO: "the disk answers with an error",
    errno.ENODEV: "the disk is not there",
    errno.ENXIO: "the disk is not there",
    errno.ESTALE: "the disk is not there any more",
}
_MISNAMED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            # A quota or a limit on a file's size says nothing about the room on the disk.
            left = f" ({free_bytes(path) / 1e6:,.0f} MB free)" if error.errno == errno.ENOSPC else ""
            raise SpaceError(
                f"{_FULL[error.errno]}{left}",
                where=path,
                remedy="What was written before is kept: make room and run the same command again.",
            ) from error
        if error.errno in _DENIED:
            raise SpaceError(
                _DENIED[error.errno], where=path, remedy="Choose another folder, or change its permissions."
            ) from error
        if error.errno in _GONE:
            raise SpaceError(
                _GONE[error.errno], where=path, remedy="Is the disk there? Bring it back, or choose another folder."
            ) from error
        if error.errno in _MISNAMED:
            raise SpaceError(
                f"cannot be written: {error.strerror}", where=path, remedy="Choose another name."
            ) from error
        raise


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the disk that holds `path`."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Let `fill` write to a hidden neighbour of `path`, then rename it; on any failure the neighbour is removed."""
    hidden = path.with_name(f".{path.name}.tmp")
    try:
        with disk_errors(path), hidden.open("wb") as handle:
            fill(handle)
            handle.flush()
            os.fsync(handle.fileno())
        with disk_errors(path):
            hidden.replace(path)
    except BaseException:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_json(value: object) -> bytes:
    """Render JSON that is the same bytes for the same content, and never NaN, which JSON does not have."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # A path whose name is not UTF-8 holds lone surrogates: their backslash form is JSON's own escape.
    return text.encode(errors="backslashreplace")


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically."""
    data = as_json(value)
    write_atomically(path, lambda handle: handle.write(data))


def read_json(path: Path, *, what: str = "a JSON file", remedy: str = "") -> Any:
    """Read a JSON file; `what` and `remedy` go into the error."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"there is no such file ({what} was expected)", where=path, remedy=remedy) from None
    except IsADirectoryError:
        raise DataError(f"is a folder, not {what}", where=path, remedy=remedy) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy=remedy) from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"is not {what}: {error}", where=path, remedy=remedy) from None


def digest_bytes(*parts: bytes) -> str:
    """SHA-256 over some bytes, in hexadecimal."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def digest_json(value: object) -> str:
    """SHA-256 over the canonical JSON of a value."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def digest_file(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """SHA-256 of a file's content, read in pieces."""
    sha = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(_CHUNK):
            sha.update(piece)
            if progress is not None:
                progress(len(piece))
    return sha.hexdigest()


@contextmanager
def locked(folder: Path, doing: str, *, name: str = ".lock") -> Iterator[None]:
    """Hold the folder's writing lock; the kernel frees it however the process ends."""
    path = folder / name
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise BusyError(
                f"{holder} is writing here",
                where=folder,
                remedy="Wait until it ends, or choose another folder.",
            ) from None
        with disk_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} ({doing})".encode(), 0)
        yield
    finally:
        os.close(handle)
