"""What an answer's bytes are: their kind, their text, their JSON, and what they say of an error."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from elute.validation.online.answers import Unusable
from elute.validation.online.service import JSON

_CHARSETS = {"": "utf-8-sig", "utf-8": "utf-8-sig", "utf8": "utf-8-sig", "us-ascii": "ascii", "ascii": "ascii"}
_CHARSETS |= dict.fromkeys(("iso-8859-1", "latin-1", "latin1", "windows-1252", "cp1252"), "cp1252")
_PAGE = re.compile(rb"\s*(<!--.{0,2000}?-->\s*)*(<!doctype html|<html|<head)", re.IGNORECASE | re.DOTALL)
_SAYS = ("message", "error", "detail", "title", "errorMessage", "error_message", "description", "msg", "statusText")


def media_type(header: str) -> tuple[str, str]:
    """Return the kind and the character set that a Content-Type names, in small letters."""
    kind, _, rest = header.partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", rest, re.IGNORECASE)
    return kind.strip().lower(), charset[1].lower() if charset else ""


def accepted(kind: str, kinds: Sequence[str]) -> bool:
    """Whether an answer of that kind may be right; one that does not say its kind is looked at."""
    return not kind or kind in kinds or (kind.endswith("+json") and any(each in kinds for each in JSON))


def looks_like_page(body: bytes) -> bool:
    """Whether something begins as a web page does."""
    return _PAGE.match(body[:4096].removeprefix(b"\xef\xbb\xbf")) is not None


def decoded(body: bytes, charset: str) -> str | None:
    """Return bytes as text, None if they are none in that character set."""
    try:
        return body.decode(_CHARSETS.get(charset, "utf-8-sig"))
    except UnicodeDecodeError:
        return None


def understood(text: str) -> Any:
    """Parse JSON, strictly: NaN is none, and what nests without end is refused."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        what = "nests deeper than any that is known"
    except ValueError as error:
        what = f"is no JSON ({str(error)[:100]})"
    raise Unusable(what)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def told_error(text: str) -> str:
    """Return what an answer says of an error, in a few words; nothing if it is a page or says nothing."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        first = text.strip().partition("\n")[0]
        return "" if first[:1] in ("<", "{", "[") else _short(first)
    for _ in range(3):  # {"error": {"message": …}}, [{"message": …}]
        if isinstance(value, list):
            value = value[0] if value else None
        if not isinstance(value, dict):
            break
        value = next((value[name] for name in _SAYS if value.get(name)), None)
    return _short(value) if isinstance(value, str) else ""


def _short(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= 120 else f"{text[:119]}…"
