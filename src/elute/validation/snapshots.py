"""Snapshots: what a database said at one time, as Parquet, with where it came from and digests to hold it against.

    $ELUTE_DATA/databases/<name>/current            the version that is used
                                /<version>/snapshot.json   source, version, date, files, digests, licence, notes
                                          /table.parquet   the one table (reading/associations.py)
                                          /<file>          files that are kept as they are: ontologies

A version is written whole under a hidden name and renamed; a snapshot that was altered is refused.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.data import data_folder
from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, MissingError, VersionError
from elute.validation.database import Database

if TYPE_CHECKING:
    import polars as pl

SCHEMA = 1
RECORD, TABLE, CURRENT = "snapshot.json", "table.parquet", "current"


@dataclass(frozen=True)
class Snapshot:
    """One version of a database on disk."""

    source: str
    version: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """How it is named beside every result: source and version."""
        return f"{self.source} {self.version}"

    @property
    def taken(self) -> str:
        """The day on which it was installed."""
        return str(self.record["taken"])

    def file(self, role: str) -> Path:
        """Return a file that was kept, once its digest is right."""
        kept = {told["role"]: told for told in self.record["kept"]}
        if role not in kept:
            raise DataError(f"keeps no {role!r}", where=self.folder, remedy=_again(self.source))
        path: Path = self.folder / kept[role]["name"]
        _check(path, kept[role], self.source)
        return path


def home(name: str) -> Path:
    """Where the versions of a database lie."""
    return data_folder() / "databases" / name


def find(name: str, version: str = "") -> Snapshot | None:
    """Return a database's snapshot, the one in use unless a version is named; None if there is none."""
    folder = home(name)
    try:
        version = version or (folder / CURRENT).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError("names no version", where=folder / CURRENT, remedy=_again(name)) from error
    if plain(version) != version:
        raise DamagedError(f"{version!r} is no name of a version", where=folder / CURRENT, remedy=_again(name))
    return None if not (folder / version).is_dir() else _opened(name, folder / version)


def versions(name: str) -> list[str]:
    """All versions of a database that lie on disk."""
    folder = home(name)
    return sorted(path.parent.name for path in folder.glob(f"*/{RECORD}") if not path.parent.name.startswith("."))


def use(name: str, version: str) -> Snapshot:
    """Let another version that lies on disk be the one in use."""
    snapshot = find(name, plain(version))
    if snapshot is None:
        there = ", ".join(versions(name)) or "none"
        raise ConfigError(f"has no version {version!r}; there are: {there}", where=home(name))
    files.write_atomically(home(name) / CURRENT, lambda handle: handle.write(snapshot.version.encode()))
    return snapshot


def remove(name: str, version: str = "") -> list[str]:
    """Delete a version, or all of a database; say which."""
    gone = [plain(version)] if version else versions(name)
    if not gone or not all((home(name) / each / RECORD).exists() for each in gone):
        there = ", ".join(versions(name)) or "none"
        raise ConfigError(
            f"has no version {version!r}" if version else f"is not installed; versions: {there}", where=name
        )
    with files.locked(home(name), "removing a snapshot"):
        current = find(name)
        for each in gone:
            shutil.rmtree(home(name) / each)
        if current is None or current.version in gone:
            (home(name) / CURRENT).unlink(missing_ok=True)
            if left := versions(name):
                use(name, left[-1])
    return gone


def install(
    source: Database, given: Mapping[str, Path], *, how: str, version: str = "", told: Mapping[str, Any] | None = None
) -> Snapshot:
    """Read a database's files and keep their table; `told` adds to each role what is known of where it came from.

    The version is the one named, else the files' own, else the day. A version that is there already with the same
    content is left as it is.
    """
    _have_all(source, given)
    read = source.read(given)
    if not len(read.table):
        raise DataError(f"holds no rows of {source.title}", where=next(iter(given.values())))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    version = plain(version or read.version or today)
    folder = files.make_folder(home(source.name))
    with files.locked(folder, f"installing {source.name} {version}"):
        for left in folder.glob(".*.tmp"):  # of a process that was killed: the lock says that none is at work
            shutil.rmtree(left, ignore_errors=True)
        scratch = files.make_folder(folder / f".{version}.tmp")
        try:
            with files.disk_errors(scratch):
                table = scratch / TABLE
                read.table.write_parquet(table, compression="zstd", statistics=True)
                kept = [_keep(role, path, scratch) for role, path in given.items() if _kept(source, role)]
            record = {
                "schema": SCHEMA,
                "source": source.name,
                "title": source.title,
                "version": version,
                "taken": today,
                "how": how,
                "files": [{"role": role, **_named(path), **(told or {}).get(role, {})} for role, path in given.items()],
                "table": {**_named(table), **_counts(read.table)},
                "kept": kept,
                "notes": list(read.notes),
                "licence": asdict(source.licence),
            }
            files.write_json(scratch / RECORD, record)
            _put(scratch, folder / version)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return use(source.name, version)


def load(snapshot: Snapshot) -> pl.DataFrame:
    """Return a snapshot's table, once its digest is right."""
    import polars as pl

    from elute.validation.reading.associations import check

    path = snapshot.folder / TABLE
    _check(path, snapshot.record["table"], snapshot.source)
    try:
        return check(pl.read_parquet(path, glob=False), where=path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedError("cannot be read", where=path, remedy=_again(snapshot.source)) from error


def verify(snapshot: Snapshot) -> list[str]:
    """Say what is wrong with a snapshot: nothing, or a line a fault."""
    faults = []
    try:
        table = load(snapshot)
        if _counts(table) != {key: snapshot.record["table"][key] for key in _counts(table)}:
            faults.append(DamagedError("has other rows than its record says", where=snapshot.folder / TABLE).line())
    except EluteError as error:
        faults.append(error.line())
    for told in snapshot.record["kept"]:
        try:
            snapshot.file(told["role"])
        except EluteError as error:
            faults.append(error.line())
    return faults


def plain(version: str) -> str:
    """Bring a version into a form that can name a folder."""
    text = re.sub(r"[^A-Za-z0-9._+-]+", "-", version.strip()).strip("-.")[:80]
    if not text:
        raise ConfigError(f"{version!r} is no name of a version", remedy="Letters, digits, dots and dashes name one.")
    return text


def _have_all(source: Database, given: Mapping[str, Path]) -> None:
    roles = {file.role: file for file in source.files}
    if strange := set(given) - set(roles):
        raise ConfigError(f"{source.title} has no file {min(strange)!r}", remedy=f"There are: {', '.join(roles)}.")
    lacking = [role for role, file in roles.items() if file.needed and role not in given]
    # Some databases can be read from any one of several files; then none alone is needed, but one is.
    if lacking or not given:
        names = ", ".join(lacking or roles)
        raise MissingError(f"{source.title} needs its file {names}", remedy=f"{_get(source)}")


def _get(source: Database) -> str:
    return source.by_hand or f"Type: elute databases fetch {source.name}"


def _again(name: str) -> str:
    return f"Install it anew: elute databases fetch {name}, or import it."


def _kept(source: Database, role: str) -> bool:
    return next(file.keep for file in source.files if file.role == role)


def _keep(role: str, path: Path, folder: Path) -> dict[str, Any]:
    target = folder / path.name
    shutil.copyfile(path, target)
    return {"role": role, **_named(target)}


def _named(path: Path) -> dict[str, Any]:
    """A file's name, size and digest; a folder is its files in order."""
    if path.is_dir():
        parts = [_named(part) for part in sorted(path.glob("*")) if part.is_file()]
        size = sum(part["size"] for part in parts)
        return {"name": path.name, "size": size, "sha256": files.digest_json(parts), "parts": len(parts)}
    return {"name": path.name, "size": path.stat().st_size, "sha256": files.digest_file(path)}


def _counts(table: pl.DataFrame) -> dict[str, Any]:
    groups = table["group"].drop_nulls().value_counts(sort=True).rows()
    return {
        "rows": len(table),
        "genes": table["gene"].n_unique(),
        "terms": table["term"].n_unique(),
        "groups": dict(sorted(groups)),
    }


def _put(scratch: Path, target: Path) -> None:
    """Give a finished version its name; one of that name makes room."""
    old = target.with_name(f".{target.name}.old.tmp")
    with files.disk_errors(target):
        if target.exists():
            target.rename(old)
        scratch.rename(target)
    files.sync_folder(target.parent)
    with suppress(OSError):
        shutil.rmtree(old)


def _opened(name: str, folder: Path) -> Snapshot:
    record = files.read_json(folder / RECORD, what="a snapshot's record", remedy=_again(name))
    schema = record.get("schema") if isinstance(record, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        what = f"was written by a newer elute (schema {schema}, this one reads {SCHEMA})"
        raise VersionError(what, where=folder / RECORD, remedy="Update elute.")
    if schema != SCHEMA or not _whole(record) or record["source"] != name or record["version"] != folder.name:
        raise DamagedError("is not this snapshot's record", where=folder / RECORD, remedy=_again(name))
    return Snapshot(name, record["version"], folder, record)


def _whole(record: Any) -> bool:
    try:
        texts = [record[key] for key in ("source", "title", "version", "taken", "how")]
        told = [record["table"], *record["kept"], *record["files"]]
        named = all(
            isinstance(t["sha256"], str) and isinstance(t["size"], int) and isinstance(t["name"], str) for t in told
        )
        inside = all(Path(t["name"]).name == t["name"] for t in (record["table"], *record["kept"]))
        roles = all(isinstance(t["role"], str) for t in (*record["kept"], *record["files"]))
        counts = all(isinstance(record["table"][key], int) for key in ("rows", "genes", "terms"))
        notes = all(isinstance(note, str) for note in record["notes"]) and isinstance(record["licence"]["name"], str)
    except (KeyError, TypeError):
        return False
    return named and inside and roles and counts and notes and all(isinstance(text, str) for text in texts)


def _check(path: Path, told: Mapping[str, Any], name: str) -> None:
    try:
        size = path.stat().st_size
        right = size == told["size"] and files.digest_file(path) == told["sha256"]
    except FileNotFoundError:
        raise DamagedError("is gone", where=path, remedy=_again(name)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from None
    if not right:
        what = f"has {size:,} bytes, not {told['size']:,}" if size != told["size"] else "was altered (other digest)"
        raise DamagedError(what, where=path, remedy=_again(name))
