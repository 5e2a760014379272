"""The one tree of errors that a person is meant to read.

    EluteError              what is wrong, where, and what to do: one line, exit code 1
    ├── ConfigError         a setting that is unknown, of the wrong kind or out of range
    ├── DataError           a user's file or array that cannot be what was asked for
    │   ├── DamagedError    a file that was cut short, altered, or is not what its name says
    │   └── VersionError    a file written by a newer elute
    ├── GuardError          a store, model or dictionary that does not belong to what it is used with
    ├── SiteError           a place in a model that is not there, or did not give what was declared
    ├── BusyError           another process is writing here
    ├── SpaceError          no room on the disk, or no permission to write
    ├── ServiceError        a service on the network that is down, refuses, or answers with what cannot be used
    └── MissingError        an optional package, a key or a device that is not installed

Anything else that reaches a user is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EluteError(Exception):
    """What is wrong, where, and what to do about it, in one line."""

    def __init__(self, what: str, *, where: object = None, remedy: str = "") -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(self.line())

    def line(self) -> str:
        """The whole message in one line: `where: what. remedy.`"""
        head = self.what if self.where is None else f"{self.where}: {self.what}"
        text = head if not self.remedy else f"{head.rstrip('.')}. {self.remedy}"
        return " ".join(text.split())


class ConfigError(EluteError):
    """A setting that is unknown, of the wrong kind or out of range."""


class DataError(EluteError):
    """A user's file or array that cannot be what was asked for."""


class DamagedError(DataError):
    """A file that was cut short, altered, or is not what its name says."""


class VersionError(DataError):
    """A file written by a newer elute."""


class GuardError(EluteError):
    """A store, model or dictionary that does not belong to what it is used with."""


class SiteError(EluteError):
    """A place in a model that is not there, or did not give what was declared."""


class BusyError(EluteError):
    """Another process is writing here."""


class SpaceError(EluteError):
    """No room on the disk, or no permission to write."""


class ServiceError(EluteError):
    """A service on the network that is down, refuses, or answers with what cannot be used."""


class MissingError(EluteError):
    """An optional package, a key or a device that is not there."""


def near(name: str, known: Iterable[str], most: int = 3) -> str:
    """Name the known names nearest to a misspelt one, as a sentence to end an error with."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.5)
    folded = {k.lower(): k for k in known}
    if name.lower() in folded and folded[name.lower()] not in close:
        close.insert(0, folded[name.lower()])
    if close:
        return "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not known:
        return "There are none."
    shown = ", ".join(known[:12]) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
    return f"There are: {shown}."
