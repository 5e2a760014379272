"""What a status other than 200 says, and whether it is worth to ask again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from elute.validation.online.answers import Absent
from elute.validation.online.content import decoded, looks_like_page, media_type, told_error
from elute.validation.online.explained import SIGN_IN, Failed
from elute.validation.online.keys import Key, scrub
from elute.validation.online.patience import told_wait

if TYPE_CHECKING:
    from elute.validation.online.service import Service

_BUSY = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, where: str, now: float) -> Failed | Absent:
    """Say what a status means that a server gives for a file."""
    return _refusal((status, headers, body), where, now, waits=("retry-after",), remedy="")


def of_service(
    status: int, headers: Mapping[str, str], body: bytes, *, service: Service, key: Key | None, now: float
) -> Failed | Absent:
    """Say what a status means that a service gives for a request."""
    remedy = "It may have been asked too often: try again later."
    if key is not None:
        remedy = f"Check {key.name}: the key may be wrong, have ended, or not be for this."
    elif service.key:
        remedy = f"Set {service.key} in the environment or in a file .env in this folder."
    told = _refusal((status, headers, body), service.name, now, waits=service.waits, remedy=remedy)
    if status == 400 and key is not None and re.search(r"\bapi.?key|\(key\)", told.what, re.IGNORECASE):
        return Failed(told.what, remedy=remedy)
    return told


def _refusal(
    answer: tuple[int, Mapping[str, str], bytes], where: str, now: float, *, waits: Sequence[str], remedy: str
) -> Failed | Absent:
    status, headers, body = answer
    kind, charset = media_type(headers.get("content-type", ""))
    page = kind == "text/html" or looks_like_page(body)
    # Scrubbed before it is made short: the beginning of a key would not be known as one.
    said = told_error(scrub(decoded(body, charset) or ""))
    what = f"{status} {_PHRASES.get(status, '')}".strip() + (f" ({said})" if said else "")
    if status == 404 and not page:
        return Absent(f"knows nothing of it: {what}", where=where)
    if status in (407, 511):
        return Failed(f"lies behind a proxy: {what}", remedy=SIGN_IN)
    if status in (401, 403):
        return Failed(f"refuses: {what}", remedy=remedy)
    if status in _BUSY:
        return Failed(f"answers {what}", again="yes", wait=told_wait(headers, waits, now))
    return Failed(f"answers {what}", again="once" if status < 400 else "no")
