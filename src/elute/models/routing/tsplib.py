"""Files of TSPLIB: instances with coordinates, tours, and lengths as the library defines them.

    EUC_2D    the distance, rounded to the nearest whole number
    CEIL_2D   the distance, rounded up
    ATT       √((dx² + dy²) / 10), rounded, and one more where rounding made it smaller
    GEO       kilometres on a sphere of radius 6378.388 between points in degrees and minutes (DDD.MM)

G. Reinelt, "TSPLIB 95", 1995. A policy reads the nodes moved and scaled into the unit square, both axes alike; of GEO
those are degrees, so that it sees a map that the lengths are not measured on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from elute.base.errors import DamagedError, DataError, near
from elute.base.files import digest_bytes
from elute.models.routing.instances import Instances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

Kind = Literal["EUC_2D", "CEIL_2D", "ATT", "GEO"]
KINDS: tuple[str, ...] = get_args(Kind)
_LARGEST = 1 << 24  # bytes; the largest of the library are some megabytes
_PI, _RADIUS = 3.141592, 6378.388  # as the library has them


@dataclass(frozen=True, eq=False)
class Problem(Instances):
    """One instance of the library: what a policy reads, and what its tours are measured by."""

    places: NDArray[np.float64]  # [nodes, 2], as in the file
    kind: str
    name: str

    def distances(self) -> NDArray[np.int64]:
        """Return the distances between all nodes."""
        return distances(self.places, self.kind)

    def tour_length(self, tour: Sequence[int] | NDArray[np.integer]) -> int:
        """Return the length of a closed tour over all nodes, counted from 0."""
        order = np.asarray(tour, dtype=np.int64)
        if sorted(order.tolist()) != list(range(len(self.places))):
            what = f"is no tour: not each of the {len(self.places)} nodes once"
            raise DataError(what, where=self.name, remedy="Check which instance it belongs to.")
        return int(self.distances()[order, np.roll(order, -1)].sum())


def read(path: Path | str) -> Problem:
    """Read a `.tsp` file."""
    path = Path(path)
    header, rows = _parse(path, section="NODE_COORD_SECTION")
    if header.get("TYPE", "TSP").split()[0] != "TSP":
        raise _bad(path, f"holds a {header['TYPE']}, not a TSP")
    kind = header.get("EDGE_WEIGHT_TYPE", "")
    if kind not in KINDS:
        what = f"its distances are {kind}" if kind else "does not say how distances are measured (EDGE_WEIGHT_TYPE)"
        raise DataError(what, where=path, remedy=near(kind, KINDS))
    n = _dimension(path, header)
    if n is None or n < 3:
        raise _bad(path, "has no DIMENSION of 3 or more")
    places = _places(path, rows, n)
    name = header.get("NAME") or path.stem
    coords = torch.from_numpy(_unit_square(places)[None].astype(np.float32))
    source = digest_bytes(kind.encode(), places.tobytes())
    return Problem(coords, (name.removesuffix(".tsp"),), source, places, kind, name.removesuffix(".tsp"))


def read_tour(path: Path | str, nodes: int | None = None) -> NDArray[np.int64]:
    """Read a tour of a `.tour` file, its nodes counted from 0."""
    path = Path(path)
    header, rows = _parse(path, section="TOUR_SECTION")
    try:
        found = np.array([int(word) for row in rows for word in row], dtype=np.int64)
    except (ValueError, OverflowError):
        raise _bad(path, "its tour holds something that is no number of a node") from None
    if -1 in found:
        found = found[: found.tolist().index(-1)]
    n = nodes or _dimension(path, header) or len(found)
    if sorted(found.tolist()) != list(range(1, n + 1)):
        raise _bad(path, f"is no tour: not each of {n} nodes once")
    return found - 1


def distances(places: NDArray[np.float64], kind: str) -> NDArray[np.int64]:
    """Return the distances between all nodes, [nodes, nodes]."""
    if kind == "GEO":
        return _geographical(places)
    between = np.sqrt(np.square(places[:, None] - places[None]).sum(-1))
    if kind == "CEIL_2D":
        return _whole(np.ceil(between))
    if kind == "EUC_2D":
        return _whole(np.floor(between + 0.5))
    real = np.sqrt(np.square(places[:, None] - places[None]).sum(-1) / 10.0)
    rounded = np.floor(real + 0.5)
    return _whole(rounded + (rounded < real))


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)


def _geographical(places: NDArray[np.float64]) -> NDArray[np.int64]:
    latitude, longitude = _radians(places).T
    q1 = np.cos(longitude[:, None] - longitude)
    q2 = np.cos(latitude[:, None] - latitude)
    q3 = np.cos(latitude[:, None] + latitude)
    angle = np.arccos(np.clip(0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3), -1.0, 1.0))
    found = _whole(np.floor(_RADIUS * angle + 1.0))
    np.fill_diagonal(found, 0)
    return found


def _radians(places: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.trunc(places)
    found: NDArray[np.float64] = _PI * (whole + 5.0 * (places - whole) / 3.0) / 180.0
    return found


def _unit_square(places: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = places - places.min(0)
    scaled: NDArray[np.float64] = moved / float(moved.max() or 1.0)
    return scaled


def _places(path: Path, rows: list[list[str]], n: int) -> NDArray[np.float64]:
    if len(rows) != n:
        raise _bad(path, f"has {len(rows)} nodes where DIMENSION says {n}")
    try:
        values = [(int(row[0]), float(row[1]), float(row[2])) for row in rows if len(row) == 3]
    except (ValueError, OverflowError):
        raise _bad(path, "a node is not a number and two coordinates") from None
    if len(values) != n or not all(math.isfinite(x) and math.isfinite(y) for _, x, y in values):
        raise _bad(path, "a node is not a number and two coordinates")
    if sorted(number for number, _, _ in values) != list(range(1, n + 1)):
        raise _bad(path, f"its nodes are not numbered from 1 to {n}")
    return np.array([(x, y) for _, x, y in sorted(values)], dtype=np.float64)


def _parse(path: Path, *, section: str) -> tuple[dict[str, str], list[list[str]]]:
    """Return what stands before a section, and the words of its lines."""
    header: dict[str, str] = {}
    lines = _lines(path)
    for line in lines:
        if line.split(":")[0].strip() == section:
            return header, [line.split() for line in _until_the_end(lines)]
        name, colon, value = line.partition(":")
        if colon:
            header[name.strip()] = value.strip()
    raise _bad(path, f"has no {section}")


def _until_the_end(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("EOF") or line.rstrip(": \t").endswith("_SECTION"):
            return
        yield line


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as handle:
            content = handle.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise _bad(path, "is larger than any file of that library")
    except OSError as error:
        remedy = "Check the path."
        raise DataError(f"cannot be read: {error.strerror or error}", where=path, remedy=remedy) from None
    if b"\0" in content:
        raise _bad(path, "is no text")
    text = content.decode("latin-1")  # its comments are older than UTF-8
    return (line.strip() for line in text.splitlines() if line.strip())


def _dimension(path: Path, header: dict[str, str]) -> int | None:
    text = header.get("DIMENSION")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        raise _bad(path, f"its DIMENSION is {text[:20]!r}")
    return int(text)


def _bad(path: Path, what: str) -> DamagedError:
    return DamagedError(what, where=path, remedy="Fetch it from TSPLIB again, or give another file.")
