"""What a file in `sources/` binds: one database, what its files are called, how they are read, and how it is asked.

Everything here is data and functions of data. What fetches, keeps and checks files is `snapshots`; what speaks to a
service politely is `online`; what says which gene is meant is `mapping`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client
    from elute.validation.reading.associations import Read

Identifier = Literal["symbol", "hgnc", "entrez", "ensembl", "uniprot"]


class Gene(NamedTuple):
    """A gene under all its names, as a service is asked for it; empty where it has none of a kind."""

    symbol: str
    hgnc: str = ""  # HGNC:11998
    entrez: str = ""
    ensembl: str = ""
    uniprot: str = ""


@dataclass(frozen=True)
class Licence:
    """Under which terms a database is given out."""

    name: str
    url: str
    redistributable: bool
    """Whether anybody may pass its rows on."""
    only: str = ""
    """For whom or what, where it is not for everyone: then a person says that it is for them before it is fetched."""


@dataclass(frozen=True)
class File:
    """One file, or folder of Parquet files, that a database publishes."""

    role: str
    """What its reader calls it."""
    url: str = ""
    """Where it lies; `{version}` is filled in; a folder's address ends in `/`. Empty: nowhere that is public."""
    called: tuple[str, ...] = ()
    """How a copy of it may be named, as shell patterns."""
    needed: bool = True
    keep: bool = False
    """Whether a snapshot keeps the file itself, for what its table does not hold: an ontology."""


@dataclass(frozen=True)
class Releases:
    """A page that lists a database's releases."""

    url: str
    pattern: str
    """A regular expression whose first group is a release's name on that page; the greatest is the newest."""


@dataclass(frozen=True)
class Database:
    """One database of genes and terms."""

    name: str
    title: str
    tier: int
    """1 core, 2 comprehensive, 3 specialised, 4 sets of genes."""
    licence: Licence
    about: str
    """In one line: what a row of it says."""
    files: tuple[File, ...]
    read: Callable[[Mapping[str, Path]], Read]
    """From files by their roles (those not needed may be absent) to the one table."""
    by_hand: str = ""
    """Why, and from where, a person fetches the files; then `fetch` says this in place of fetching."""
    releases: Releases | None = None
    packaged: Callable[[], tuple[dict[str, Path], str] | None] | None = None
    """Files that came with an installed package, by role, and what to call that package; None if it is not there."""
    ask: Callable[[Client, Sequence[Gene]], pl.DataFrame] | None = None
    """Ask the service for all rows of at most `batch` genes: the same table, or an error, never a part of it."""
    ask_by: Identifier = "symbol"
    """The identifier without which a gene cannot be asked for."""
    batch: int = 1
    key: str = ""
    """The environment variable without which `ask` does not work."""
    draws_on: tuple[str, ...] = ()
    """Databases whose rows it takes over: agreement with them is no second confirmation."""

    @property
    def redistributable(self) -> bool:
        """Whether anybody may pass its rows on."""
        return self.licence.redistributable

    def role_of(self, path: Path) -> str | None:
        """Tell by a file's name what it is of this database; the only one there can be needs no right name."""
        for file in self.files:
            if any(fnmatch(path.name.lower(), pattern) for pattern in file.called):
                return file.role
        return self.files[0].role if len(self.files) == 1 else None
