"""How long is waited for a service, how often it is asked again, and when it is given up."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

_chance = random.SystemRandom()


@dataclass(frozen=True)
class Patience:
    """Limits to the asking of one thing."""

    tries: int = 5
    """How often one thing is asked for in all."""
    unusable: int = 2
    """How often it is asked for in all while answers come that are of no use, or its host is not found."""
    first: float = 1.0
    """Seconds before the second try; they double each time, and chance shortens them by up to a half."""
    longest: float = 60.0
    """Most seconds before a try of which the service does not say when it may come."""
    told: float = 120.0
    """Most seconds that a service may ask to wait; if it asks for more, it is not waited for."""
    connect: float = 10.0
    """Seconds until a connection stands."""
    silence: float = 60.0
    """Seconds without a byte."""
    whole: float = 300.0
    """Seconds until an answer is whole."""
    most: int = 64 << 20
    """Bytes that an answer may have, unpacked."""
    failures: int = 3
    """After how many things in a row that could not be had a service is left alone."""
    rest: float = 60.0
    """Seconds that it is left alone."""

    def delay(self, tried: int) -> float:
        """Seconds before the next try, after some; chance keeps many clients from coming back at once."""
        return min(self.longest, self.first * 2.0 ** min(tried - 1, 30)) * _chance.uniform(0.5, 1.0)


def told_wait(headers: Mapping[str, str], names: Iterable[str], now: float) -> float | None:
    """Return the seconds that a service asks to wait, as seconds or as a date; None if it asks for none."""
    asked = [seconds for name in names if (seconds := _seconds(headers.get(name, ""), headers, now)) is not None]
    return max(asked, default=None)


def _seconds(text: str, headers: Mapping[str, str], now: float) -> float | None:
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        if (until := moment(text)) is None:
            return None
        # The service's own clock, if it tells it: ours may be wrong.
        here = moment(headers.get("date", ""))
        return max(0.0, until - (now if here is None else here))
    return max(0.0, seconds) if math.isfinite(seconds) else None


def moment(text: str) -> float | None:
    """Read a date as HTTP writes it, in seconds since 1970."""
    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
