"""A folder that is filled from a hub: every file under its own name is whole, and `hub.json` says whence it came.

A file is fetched into a hidden folder, held against the size and digest that were listed for it, and moved to its
place. A pull that was cut off passes over what is in place already and goes on in the middle of the file at which it
stopped; one that changed its commit removes what is gone.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elute.base import console, files
from elute.base.errors import DamagedError, GuardError, SpaceError

RECORD = "hub.json"
_STAGING = ".pull"

Download = Callable[[str, Path, Callable[[int], None]], None]


@dataclass(frozen=True)
class Entry:
    """A file as a hub lists it; the digest is `sha256:…`, or `git:…` for a small one that lies in git itself."""

    size: int
    digest: str

    @property
    def part(self) -> str:
        """Name of the file that holds what has come of it; other content has another."""
        return self.digest.replace(":", "-")

    def is_at(self, path: Path) -> bool:
        """Whether a file's content is what was listed."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.digest.startswith("sha256:"):
            return files.digest_file(path) == self.digest.removeprefix("sha256:")
        git = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        git.update(path.read_bytes())
        return f"git:{git.hexdigest()}" == self.digest


def known(folder: Path, stamp: Mapping[str, Any], *, what: str) -> tuple[str, ...] | None:
    """Names of the files that lie there, if that is all that a pull with this stamp would bring."""
    record = _record(folder, stamp, what=what)
    sizes = {name: entry["size"] for name, entry in record.get("files", {}).items()}
    if not record.get("complete") or {key: record.get(key) for key in stamp} != dict(stamp):
        return None
    if any(not (folder / name).is_file() or (folder / name).stat().st_size != size for name, size in sizes.items()):
        return None
    return tuple(sizes)


def fill(folder: Path, stamp: Mapping[str, Any], *, wanted: Mapping[str, Entry], what: str, download: Download) -> None:
    """Bring the wanted files; `download` goes on with one where the file that it is given ends, and tells the bytes."""
    files.make_folder(folder)
    with files.locked(folder, "pull"):
        old = _record(folder, stamp, what=what).get("files", {})
        record = {"schema": 1, **stamp, "complete": False, "files": {n: asdict(e) for n, e in wanted.items()}}
        for name in set(old) - set(wanted):
            if (folder / name).resolve().is_relative_to(folder.resolve()):
                (folder / name).unlink(missing_ok=True)
        files.write_json(folder / RECORD, record)
        missing = {name: entry for name, entry in wanted.items() if not entry.is_at(folder / name)}
        staging = files.make_folder(folder / _STAGING)
        total = sum(entry.size for entry in wanted.values())
        left = sum(entry.size for entry in missing.values()) - _begun(staging, missing)
        if left > (free := files.free_bytes(folder)):
            told = f"{console.size(left)} are to come, and there is room for {console.size(free)}"
            raise SpaceError(told, where=folder, remedy="Make room, or choose another folder.")
        with console.progress("pull", total, unit="bytes", done=total - left) as bar, files.disk_errors(folder):
            for name, entry in missing.items():
                part = staging / entry.part
                download(name, part, bar.advance)
                if not entry.is_at(part):
                    part.unlink(missing_ok=True)
                    remedy = "Run the same command again; if it stays so, the copy on the hub is damaged."
                    raise DamagedError("is not what the hub lists", where=folder / name, remedy=remedy)
                files.make_folder((folder / name).parent)
                part.replace(folder / name)
        shutil.rmtree(staging, ignore_errors=True)
        files.write_json(folder / RECORD, {**record, "complete": True})


def _begun(staging: Path, missing: Mapping[str, Entry]) -> int:
    """Bytes of the missing files that came before; what belongs to none of them is removed."""
    sizes = {entry.part: entry.size for entry in missing.values()}
    for path in staging.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_symlink() or not path.is_file() or path.stat().st_size > sizes.get(path.name, -1):
            path.unlink(missing_ok=True)
    return sum(path.stat().st_size for path in staging.iterdir() if path.name in sizes)


def _record(folder: Path, stamp: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """What an earlier pull recorded; a folder of anything else is refused."""
    path = folder / RECORD
    if path.exists():
        record = files.read_json(path, what="the record of a pull", remedy="Delete the folder, and pull again.")
        entries = record.get("files") if isinstance(record, dict) else None
        if not isinstance(entries, dict) or any(type(e) is not dict or "size" not in e for e in entries.values()):
            remedy = "Delete the folder, and pull again."
            raise DamagedError("is not the record of a pull", where=path, remedy=remedy)
        if any(record.get(key) != stamp[key] for key in ("repo", "path")):
            raise GuardError(f"holds another {what}", where=folder, remedy="Choose an empty folder.")
        return dict(record)
    if folder.is_dir() and any(entry.name not in (_STAGING, ".lock") for entry in folder.iterdir()):
        raise GuardError("holds other files already", where=folder, remedy="Choose an empty folder.")
    return {}
