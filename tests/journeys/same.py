"""Whether two folders hold the same, and in what they differ: what a failure has to say."""

from __future__ import annotations

from itertools import islice
from pathlib import Path


def differing(one: Path, other: Path) -> list[str]:
    """Return a line for each file that the two folders do not share to the byte; hidden files apart."""
    mine, theirs = _content(one), _content(other)
    told = [f"{name} is in one of them alone" for name in sorted(mine.keys() ^ theirs.keys())]
    return told + [
        f"{name}: {_first(mine[name], theirs[name])}"
        for name in sorted(mine.keys() & theirs.keys())
        if mine[name] != theirs[name]
    ]


def _content(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def _first(one: bytes, other: bytes) -> str:
    pairs = zip(one, other, strict=False)
    unlike = list(islice((i for i, (a, b) in enumerate(pairs) if a != b), 3))
    if not unlike:
        return f"{len(one)} bytes and {len(other)}"
    at = max(0, unlike[0] - 40)
    return f"{len(one)} bytes and {len(other)}, from {unlike} on {one[at : at + 80]!r} and {other[at : at + 80]!r}"
