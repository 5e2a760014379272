"""Bring a database's files here, from where they are published or from a person's own folder, and make a snapshot.

A download that was cut off goes on where it stopped; what came whole stays until its snapshot is made. A mirror holds
every file under its host's name: https://HOST/PATH is asked for as MIRROR/HOST/PATH.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elute.base import console, files
from elute.base.data import data_folder
from elute.base.errors import ConfigError, DataError, EluteError, MissingError, ServiceError
from elute.validation import library, snapshots
from elute.validation.database import Database, File


@dataclass(frozen=True)
class Fetching:
    """How files are fetched."""

    version: str = ""
    """The release that is wanted, where a database keeps its releases; empty: the newest."""
    mirror: str = ""
    """Where the same files lie under their hosts' names."""
    accept_licence: bool = False
    """Whether the person said that a licence with conditions is kept."""


def fetch(source: Database, how: Fetching) -> snapshots.Snapshot:
    """Fetch a database's files and make a snapshot of them."""
    if source.by_hand:
        remedy = f"Then type: elute databases import {source.name} FILE"
        raise MissingError(f"is not fetched: {source.by_hand}", where=source.title, remedy=remedy)
    if source.licence.only and not how.accept_licence:
        what = f"is for {source.licence.only} ({source.licence.name}, {source.licence.url})"
        remedy = f"If that is you, type: elute databases fetch {source.name} --accept-licence"
        raise MissingError(what, where=source.title, remedy=remedy)
    release = _release(source, how)
    folder = files.make_folder(data_folder() / "downloads" / source.name / (release or "newest"))
    with files.locked(folder, f"fetching {source.name}"):
        given: dict[str, Path] = {}
        told: dict[str, dict[str, Any]] = {}
        for file in source.files:
            if not file.url:
                continue
            try:
                url = file.url.replace("{version}", release)
                path, modified = _bring(file, url, folder, how.mirror)
            except ServiceError as error:
                if file.needed:
                    raise
                console.warn(f"{source.title} goes without its {file.role}: {error.line()}")
                continue
            given[file.role] = path
            told[file.role] = {"url": url, "modified": modified}
        snapshot = snapshots.install(source, given, how="fetched", version=release, told=told)
    shutil.rmtree(folder, ignore_errors=True)
    return snapshot


def import_files(source: Database, given: Sequence[str | Path], *, version: str = "") -> snapshots.Snapshot:
    """Make a snapshot of files that a person has; ROLE=FILE says which is which, where its name does not."""
    roles: dict[str, Path] = {}
    for each in given:
        role, path = _told_role(source, each)
        if role in roles:
            what = f"{roles[role].name} and {path.name} are both taken for its file {role!r}"
            raise ConfigError(what, where=source.title, remedy=f"Say which is which: {role}=FILE.")
        roles[role] = path
    return snapshots.install(source, roles, how="imported", version=version)


def _told_role(source: Database, given: str | Path) -> tuple[str, Path]:
    names = [file.role for file in source.files]
    head, _, tail = str(given).partition("=")
    role, path = (head, Path(tail)) if tail and head in names else (None, Path(given))
    if not path.exists():
        raise DataError("there is no such file", where=path, remedy="Check the path.")
    role = role or source.role_of(path)
    if role is None:
        known = "; ".join(f"{file.role} ({', '.join(file.called) or 'any name'})" for file in source.files)
        remedy = f"Say what it is: ROLE=FILE. There are: {known}."
        raise ConfigError(f"its name does not say which file of {source.title} it is", where=path, remedy=remedy)
    return role, path


def _release(source: Database, how: Fetching) -> str:
    """Return the release that is fetched: the one asked for, the newest on the page of releases, or nothing."""
    from elute.validation.online.download import page

    if source.releases is None:
        if how.version:
            raise ConfigError(f"{source.title} publishes its newest release alone", remedy="Leave --version out.")
        return ""
    if how.version:
        return snapshots.plain(how.version)
    found = re.findall(source.releases.pattern, page(source.releases.url, mirror=how.mirror))
    if not found:
        raise ServiceError("lists no release", where=source.releases.url, remedy="Name one: --version.")
    return str(max(found))


def _bring(file: File, url: str, folder: Path, mirror: str) -> tuple[Path, str]:
    """Fetch one file, or all parts of a folder; return where it is, and when it was last changed."""
    from elute.validation.online.download import fetch_file, listing

    if not url.endswith("/"):
        name = url.rpartition("/")[2].partition("?")[0]
        fetched = fetch_file(url, folder / (name if "." in name else f"{file.role}.txt"), mirror=mirror)
        return fetched.path, fetched.modified
    names = listing(url, r".*\.parquet", mirror=mirror)
    if not names:
        raise ServiceError("lists no Parquet file", where=url, remedy="Is there such a release?")
    inner = files.make_folder(folder / file.role)
    return inner, max(fetch_file(url + name, inner / name, mirror=mirror).modified for name in names)


def fetch_all(
    wanted: Sequence[str], how: Fetching
) -> tuple[list[snapshots.Snapshot], dict[str, Any] | None, dict[str, str]]:
    """Fetch databases by name and HGNC's table as `hgnc`; without names what is not here and is free for everyone.

    What fails with one does not stop the rest; the last that is returned says why each failed.
    """
    from elute.validation import hgnc

    made: list[snapshots.Snapshot] = []
    table: dict[str, Any] | None = None
    failed: dict[str, str] = {}
    for name in wanted or _free():
        if name != "hgnc":
            library.database(name)  # a wrong name is told before anything is fetched
    for name in wanted or _free():
        try:
            if name == "hgnc":
                table = hgnc.fetch(mirror=how.mirror)
            else:
                made.append(fetch(library.database(name), how))
        except EluteError as error:
            failed[name] = error.line()
            console.warn(error.line())
    return made, table, failed


def _free() -> list[str]:
    from elute.validation import hgnc

    missing = [each.source for each in map(library.standing, library.names()) if each.state in ("missing", "damaged")]
    names = [source.name for source in missing if not source.by_hand and not source.licence.only]
    return (["hgnc"] if hgnc.standing() is None else []) + names


def import_named(
    name: str, given: Sequence[str], *, version: str = ""
) -> tuple[list[snapshots.Snapshot], dict[str, Any] | None]:
    """Make a snapshot of a person's files under a database's name; a .gmt under another name is sets of their own."""
    from elute.base import plugins
    from elute.validation import hgnc
    from elute.validation.reading.gmt import user_sets

    if name == "hgnc":
        if len(given) != 1:
            raise ConfigError("HGNC's table is one file", remedy="elute databases import hgnc hgnc_complete_set.txt")
        return [], hgnc.keep(Path(given[0]))
    own = re.fullmatch(r"(?=.*[a-z])[a-z0-9][a-z0-9-]{0,59}", name) and len(given) == 1 and ".gmt" in given[0].lower()
    known = name.replace("_", "-").lower() in plugins.names("sources")
    source = user_sets(name) if own and not known else library.database(name)
    return [import_files(source, given, version=version)], None
