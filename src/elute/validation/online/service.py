"""What there is to know of a service before it is asked: its address, its pace, its key, and what it answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from elute.base.errors import ConfigError

JSON = ("application/json", "text/json")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_KEY_IN = re.compile(r"(header|query):[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Service:
    """A service on the network that answers requests."""

    name: str
    """In messages, and of its folder in the cache."""
    base: str
    """Its address; paths are relative to it, and never lead out of it."""
    pause: float
    """Least seconds between two requests, also of other processes."""
    key: str = ""
    """The environment variable that holds the key, if it takes one."""
    key_in: str = ""
    """Where the key goes: `header:NAME` or `query:NAME`."""
    key_needed: bool = False
    """Whether it answers nothing without."""
    waits: tuple[str, ...] = ("retry-after",)
    """Headers in which it says how long to wait."""
    accepts: tuple[str, ...] = JSON
    """Content types of a right answer; what ends in `+json` passes where JSON does."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
        if parts.scheme != "https" or not parts.hostname or not plain or not parts.path.endswith("/"):
            raise ConfigError("is no address of a service", where=self.base, remedy="Write https://host/path/")
        if not _NAME.fullmatch(self.name):
            raise ConfigError("is no name of a service", where=repr(self.name), remedy="Small letters, digits and -.")
        if bool(self.key) != bool(_KEY_IN.fullmatch(self.key_in)) or (self.key_needed and not self.key):
            raise ConfigError("where its key goes is not clear", where=self.name, remedy="Write header:NAME.")

    @property
    def host(self) -> str:
        """The host, with its port if it has one."""
        return urlsplit(self.base).netloc
