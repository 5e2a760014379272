"""Which databases there are, and which of them are on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base import console, plugins
from elute.base.data import data_folder
from elute.base.errors import ConfigError, EluteError, MissingError, near
from elute.validation import snapshots
from elute.validation.database import Database

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client

_CAME = "came with "


def names() -> list[str]:
    """All databases by name, those of the first tier in front, then gene sets that a person imported."""
    known = sorted(
        (database(name) for name in plugins.names("sources")), key=lambda each: (each.tier, each.title.lower())
    )
    return [each.name for each in known] + sorted(_own())


def database(name: str) -> Database:
    """Return a database by its name."""
    name = name.replace("_", "-").lower()
    if name in plugins.names("sources"):
        found: Database = plugins.load("sources", name)
        return found
    if name in _own():
        from elute.validation.reading.gmt import user_sets

        return user_sets(name)
    raise ConfigError(f"there is no database {name!r}", remedy=near(name, [*plugins.names("sources"), *_own()]))


def chosen(given: tuple[str, ...]) -> list[Database]:
    """Return databases by their names, or all."""
    return [database(name) for name in (given or names())]


def opened(name: str) -> snapshots.Snapshot:
    """Return a database's snapshot; files that came with a package are made into one when first asked for."""
    source = database(name)
    found = snapshots.find(source.name)
    if found is not None and not found.record["how"].startswith(_CAME):
        return found
    came = None if source.packaged is None else source.packaged()
    if came is not None:
        given, package = came
        if found is not None and _same(found, given, package):
            return found
        console.say(f"{source.title}: reading the files that came with {package}")
        return snapshots.install(source, given, how=_CAME + package)
    if found is not None:  # the package is gone, what it brought is not
        return found
    raise MissingError(not_there(source), where=source.title)


def client(mirror: str = "") -> Client:
    """Return what asks services, and keeps their answers in the data folder."""
    from elute.validation.online.client import Client

    return Client(data_folder() / "answers", mirror=mirror)


def _same(found: snapshots.Snapshot, given: dict[str, Path], package: str) -> bool:
    """Whether a snapshot was made of these files of this package."""
    sizes = {told["role"]: told["size"] for told in found.record["files"]}
    now = {role: path.stat().st_size for role, path in given.items()}
    return found.record["how"] == _CAME + package and sizes == now


def table(name: str) -> tuple[pl.DataFrame, snapshots.Snapshot]:
    """Return a database's table and the snapshot that it is of."""
    snapshot = opened(name)
    return snapshots.load(snapshot), snapshot


def kin(wanted: Iterable[str]) -> list[list[str]]:
    """Group databases that take over one another's rows, or those of a third: each group is one witness."""
    groups: list[set[str]] = []
    given = list(wanted)
    for name in given:
        mine = {name, *database(name).draws_on}
        apart = []
        for group in groups:
            if group & mine:
                mine |= group
            else:
                apart.append(group)
        groups = [*apart, mine]
    return [[name for name in given if name in group] for group in groups]


def not_there(source: Database) -> str:
    """Say that a database is not on this machine, and what to type."""
    if source.by_hand:
        return f"not installed: elute databases import {source.name} FILE"
    accept = " --accept-licence" if source.licence.only else ""
    return f"not installed: elute databases fetch {source.name}{accept}"


class Standing(NamedTuple):
    """How a database stands on this machine."""

    source: Database
    state: str
    """installed, packaged, missing or damaged."""
    line: str
    """What it is, or what to type."""
    online: str
    """Whether its service can be asked, and what that takes."""
    snapshot: snapshots.Snapshot | None = None

    def as_json(self) -> dict[str, Any]:
        """What a program wants to know."""
        told = (
            {} if self.snapshot is None else {k: self.snapshot.record[k] for k in ("version", "taken", "how", "table")}
        )
        source = self.source
        return {
            "name": source.name,
            "title": source.title,
            "tier": source.tier,
            "about": source.about,
            "state": self.state,
            "line": self.line,
            "online": self.online,
            "licence": source.licence.name,
            "redistributable": source.redistributable,
            "draws_on": list(source.draws_on),
            "by_hand": source.by_hand,
            **told,
        }


def standing(name: str) -> Standing:
    """Say how a database stands; nothing is installed or fetched."""
    source = database(name)
    online = _online(source)
    try:
        snapshot = snapshots.find(name)
    except EluteError as error:
        return Standing(source, "damaged", error.line(), online)
    if snapshot is not None:
        told = snapshot.record["table"]
        line = f"{snapshot.version}, {told['rows']:,} rows of {console.count(told['genes'], 'gene')}"
        return Standing(source, "installed", f"{line}, {told['terms']:,} terms", online, snapshot)
    if source.packaged is not None and (came := source.packaged()) is not None:
        return Standing(source, "packaged", f"comes with {came[1]}: read when first asked for", online)
    return Standing(source, "missing", not_there(source), online)


def verified(wanted: tuple[str, ...]) -> dict[str, list[str]]:
    """Hold what is installed against its digests; for each, what is wrong with it."""
    from elute.validation import hgnc

    found: dict[str, list[str]] = {}
    if "hgnc" in wanted or (not wanted and hgnc.standing() is not None):
        found["hgnc"] = hgnc.verify()
    for source in chosen(tuple(name for name in wanted if name != "hgnc")) if wanted != ("hgnc",) else []:
        there = snapshots.versions(source.name)
        if wanted and not there:
            raise MissingError(not_there(source), where=source.title)
        for version in there:
            try:
                snapshot = snapshots.find(source.name, version)
                faults = [] if snapshot is None else snapshots.verify(snapshot)
            except EluteError as error:
                faults = [error.line()]
            found[f"{source.name} {version}"] = faults
    return found


def _online(source: Database) -> str:
    if source.ask is None:
        return "no service"
    if source.key and not os.environ.get(source.key):
        return f"needs {source.key}"
    return "yes"


def _own() -> list[str]:
    """Names of gene sets that a person imported: they lie among the snapshots, and no file of ours is called so."""
    folder = data_folder() / "databases"
    known = set(plugins.names("sources"))
    if not folder.is_dir():
        return []
    return sorted(p.parent.name for p in folder.glob(f"*/{snapshots.CURRENT}") if p.parent.name not in known)
