"""Where the pairs of a run lie: in the run's folder, or under a storage root that it remembers.

RUN/clt/activation_store.json     {"activations_dir": the last place, "pairs": {name: folder}}
RUN/clt/activations/PAIR/         a pair, unless told otherwise
ROOT/RUN/clt/activations/PAIR/    a pair under a storage root
"""

from __future__ import annotations

from pathlib import Path

from elute.base import files
from elute.base.errors import DamagedError

CLT = "clt"
PLACES = "activation_store.json"
METADATA = "metadata.json"


def collected(run: Path | str) -> list[str]:
    """Names of the pairs of a run that were collected to their end."""
    run = Path(run)
    folder = activations(run)
    here = {path.parent.name for path in folder.glob(f"*/{METADATA}")} if folder.is_dir() else set()
    there = {name for name, place in places(run).items() if (run / place / METADATA).is_file()}
    return sorted(here | there)


def activations(run: Path) -> Path:
    """Where the pairs of a run lie unless told otherwise."""
    return run / CLT / "activations"


def place_of(run: Path, name: str) -> Path | None:
    """Where a pair of a run was put, if one was begun."""
    place = places(run).get(name)
    return None if place is None else run / place


def remember(run: Path, name: str, folder: Path) -> None:
    """Keep where a pair lies: within the run by its relative path, so that a run can be moved."""
    base, folder = run.resolve(), folder.resolve()
    place = folder.relative_to(base) if folder.is_relative_to(base) else folder
    known = places(run)
    if known.get(name) != str(place):
        files.make_folder(run / CLT)
        told = {"activations_dir": str(place.parent), "pairs": dict(sorted({**known, name: str(place)}.items()))}
        files.write_json(run / CLT / PLACES, told)


def places(run: Path) -> dict[str, str]:
    """Where each pair of a run lies, by its name."""
    path = run / CLT / PLACES
    if not path.is_file():
        return {}
    held = files.read_json(path, what="the places of a run's pairs", remedy="Delete it, and collect the pairs anew.")
    pairs = held.get("pairs") if isinstance(held, dict) else None
    if not isinstance(pairs, dict) or not all(isinstance(place, str) for place in pairs.values()):
        raise DamagedError("does not say where pairs lie", where=path, remedy="Delete it, and collect the pairs anew.")
    return pairs
