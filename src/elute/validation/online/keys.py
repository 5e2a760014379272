"""Keys for services: taken from the environment, put into a request at the last moment, and never told.

What a service, a library or a log says is scrubbed of every key that the environment holds, also where it stands
percent-encoded, escaped as in JSON or HTML, or as base64.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qsl, quote, quote_plus, urlencode

from elute.base.env import SECRETS
from elute.base.errors import ConfigError, MissingError
from elute.validation.online.service import Service

HIDDEN = "(key)"
_SHORTEST = 8  # a shorter one is none, and scrubbing it would change innocent words
_LOGS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")
_names: set[str] = set(SECRETS)


@dataclass(frozen=True)
class Key:
    """A key and where it goes in a request."""

    name: str
    place: str
    value: str = field(repr=False)

    def put(self, url: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        """Return the address and headers with the key in its place."""
        where, _, called = self.place.partition(":")
        if where == "header":
            return url, {**headers, called: self.value}
        bare, _, query = url.partition("?")
        # A service that redirects may have put the key that it got into the new address.
        pairs = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != called]
        return f"{bare}?{urlencode([*pairs, (called, self.value)])}", headers


def key_of(service: Service) -> Key | None:
    """Return the key that the environment holds for a service; say so if one is needed and is not there."""
    value = os.environ.get(service.key, "").strip() if service.key else ""
    if not value:
        if service.key_needed:
            remedy = f"Set {service.key} in the environment or in a file .env in this folder."
            raise MissingError(f"there is no key: {service.key} is not set", where=service.name, remedy=remedy)
        return None
    if not re.fullmatch(r"[!-~]+", value) or len(value) < _SHORTEST:
        what = f"{service.key} is too short or has characters that no key has"
        raise ConfigError(what, where=service.name, remedy="Copy it once more; it is one word.")
    _names.add(service.key)
    return Key(service.key, service.key_in, value)


def scrub(text: str) -> str:
    """Return a text without any key of the environment."""
    values = tuple(sorted({v for n in _names if len(v := os.environ.get(n, "").strip()) >= _SHORTEST}))
    if not values:
        return text
    forms, pattern = _forms(values)
    small = text.lower()
    # Most texts hold no key, and to see that is far quicker without the pattern.
    return pattern.sub(HIDDEN, text) if any(form in small for form in forms) else text


@lru_cache(maxsize=4)
def _forms(values: tuple[str, ...]) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """All ways in which keys may be written, in small letters, and a pattern of them."""
    forms: set[str] = set()
    for value in values:
        escaped = json.dumps(value)[1:-1]
        forms |= {value, quote(value, safe=""), quote(value), quote_plus(value), html.escape(value), escaped}
        forms |= {escaped.replace("/", "\\/"), repr(value)[1:-1]}
        forms.add(base64.b64encode(value.encode()).decode().rstrip("="))
        forms.add("".join(f"%{byte:02x}" for byte in value.encode()))
    # Longest first: a form that begins another one must not leave its end.
    ordered = sorted({form.lower() for form in forms}, key=len, reverse=True)
    return tuple(ordered), re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE)


class _Scrubbed(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        told = record.getMessage()
        if (clean := scrub(told)) != told:
            record.msg, record.args = clean, ()
        return True


_filter = _Scrubbed()


def quiet_logs() -> None:
    """Keep keys out of what the library for requests logs, whoever listens."""
    for name in _LOGS:
        logging.getLogger(name).addFilter(_filter)  # once only: the same filter is not added again
