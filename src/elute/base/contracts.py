"""Every extension point of elute, on one screen.

Four folders are open: add one file that binds the door's name at top level, and it is found by its file's name and
loaded on demand. An installed package adds to them through an entry-point group of the same name.

    door             folder                        a file binds    which is
    models           elute/models/                 MODEL           a function(**settings) -> Model, with an example()
    dictionaries     elute/dictionaries/           DICTIONARY      a Sparsity: how few features fire
    sources          elute/validation/sources/     SOURCE          a Source
    pages            elute/reports/pages/          PAGE            a Page
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

Rows = dict[str, "Tensor"]  # one [n, width] tensor a site
Edit = Callable[["Tensor", "pl.DataFrame | None"], "Tensor"]  # (x, metadata) -> x'


class Door(NamedTuple):
    """An open folder: its package, the name that a file in it binds, and its entry-point group."""

    package: str
    binds: str
    group: str


DOORS = {
    "models": Door("elute.models", "MODEL", "elute.models"),
    "dictionaries": Door("elute.dictionaries", "DICTIONARY", "elute.dictionaries"),
    "sources": Door("elute.validation.sources", "SOURCE", "elute.sources"),
    "pages": Door("elute.reports.pages", "PAGE", "elute.pages"),
}


@dataclass(frozen=True)
class Site:
    """A place in a network whose activations can be read or replaced."""

    path: str  # the submodule, as in named_modules(); "" is the network itself
    at: Literal["input", "output"] = "output"
    width: int = 0  # 0: learnt from the first forward, then checked
    select: int | str | None = None  # which item of a tuple, key of a dict, or named argument
    call: int | None = None  # which call, for a module that runs several times in one forward


@dataclass(frozen=True)
class Fingerprint:
    """What a model was when its activations were read; the three digests say what has changed since."""

    name: str
    weights: str
    config: str
    sites: str

    def as_json(self) -> dict[str, str]:
        """Return the record that a manifest keeps."""
        return asdict(self)


class Model(Protocol):
    """A frozen network with named sites."""

    name: str
    sites: Mapping[str, Site]

    def fingerprint(self) -> Fingerprint: ...
    def batches(
        self, data: Any, **settings: Any
    ) -> Iterator[tuple[Any, pl.DataFrame]]: ...  # one metadata row a kept row
    def keep(self, batch: Any) -> Tensor | None: ...  # True where a position is a row: padding is dropped
    def __call__(self, batch: Any) -> Any: ...
    def capture(self, batch: Any, sites: Sequence[str] | None = None) -> Rows: ...
    def patch(
        self, edits: Mapping[str, Edit], *, metadata: pl.DataFrame | None = None
    ) -> AbstractContextManager[None]: ...


B_contra = TypeVar("B_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Accumulator(Protocol[B_contra, R_co]):
    """A statistic in one pass: the same on one core, on several ranks, or over a cluster."""

    def update(self, batch: B_contra, /) -> None: ...
    def merge(self, other: Self, /) -> None: ...
    def result(self) -> R_co: ...
    def state(self) -> dict[str, Any]: ...  # numpy arrays, numbers and strings alone
    @classmethod
    def from_state(cls, state: Mapping[str, Any], /) -> Self: ...


class Source(Protocol):
    """A database of genes and terms; validation/database.py has all of its fields. Its table: gene, term, label, …"""

    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> int: ...
    @property
    def redistributable(self) -> bool: ...
    @property
    def read(self) -> Callable[[Mapping[str, Path]], Any]: ...  # its files, by role
    @property
    def ask(self) -> Callable[[Any, Sequence[Any]], pl.DataFrame] | None: ...  # its service, if it has one


class Page(Protocol):
    """A page of a report, made from what lies in a folder."""

    title: str
    needs: tuple[str, ...]  # files, relative to the folder, without which it is left out

    def render(self, folder: Path) -> str: ...  # HTML inside <main>; all text from data escaped
