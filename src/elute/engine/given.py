"""What a training is given: the rows of a store, or rows that come straight from a model (see live.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from elute.base.errors import ConfigError
from elute.engine import centring
from elute.engine.centred import CentredStore
from elute.engine.fit import Stream
from elute.engine.normalise import MEASURED, measured, normalisation, sample, scaling_of, simple
from elute.store.reader import Store

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.folding import Affine
    from elute.engine.centring import Centre
    from elute.store.shuffle import ShuffleConfig, StreamReport


class Fed(Stream, Protocol):
    """Batches from a place that can be kept, and how long they were waited for."""

    report: StreamReport


class Supply(Protocol):
    """Rows that lie in no store."""

    @property
    def sites(self) -> Mapping[str, int]:
        """Each site's width."""

    @property
    def rows(self) -> int:
        """How many rows there are, about."""

    @property
    def digest(self) -> str:
        """Which rows they are, and in which portions they come."""

    @property
    def place(self) -> str:
        """Where they come from, in messages."""

    @property
    def source(self) -> dict[str, Any]:
        """What a dictionary that is trained on them remembers of them."""

    def sample(self, rows: int, *, sites: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Return some rows."""

    def shuffled(self, config: ShuffleConfig, *, sites: Sequence[str]) -> Fed:
        """Stream all rows in a seeded random order."""

    def confirm(self) -> None:
        """Refuse if what gives the rows has changed meanwhile."""


class Stored:
    """Rows of a store: those of the split named train where there is one."""

    def __init__(self, folder: Path | str, *, method: str, by: str | None) -> None:
        self.store: Store = Store(folder)
        self.where = self.store.select(split="train" if "split" in self.store.manifest.columns else None)
        self.method, self.by = method, by
        self.centre: Centre | None = None
        if by is not None and method in MEASURED:
            what = f"{method} is measured on rows as they are stored, not on rows centred by {by}"
            raise ConfigError(what, where=folder, remedy="Normalise by scale or center.")

    @property
    def sites(self) -> Mapping[str, int]:
        """Each site's width."""
        return self.store.sites

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.where.rows

    @property
    def place(self) -> Path:
        """Where they come from, in messages."""
        return self.store.folder

    @property
    def source(self) -> dict[str, Any]:
        """What a dictionary that is trained on them remembers of them."""
        manifest = self.store.manifest
        model = {} if manifest.model is None else {"model": manifest.model.model_dump()}
        centre = {} if self.centre is None else {"centre": self.centre.digest, "centre_by": self.centre.by}
        return {"store": manifest.store, **model, **centre}

    def inputs(self) -> dict[str, str]:
        """Name what is trained on: the store, which of its rows, and what they are normalised and centred by."""
        scaling = scaling_of(self.method, self.store)
        named = {"store": self.store.manifest.store, "rows": centring.where_digest(self.where)}
        named |= {"scaling": scaling[:16]} if scaling else {}
        return named | ({"centre": self.centre.digest[:16]} if self.centre is not None else {})

    def measure(self, sites: Sequence[str], output: Path) -> None:
        """Find out what is subtracted; nothing is written yet."""
        if self.by is not None:
            found = centring.find(output, self.store, self.where, sites=sites, by=self.by)
            self._use(found or centring.measure(self.store, self.where, sites, by=self.by))

    def keep(self, output: Path) -> None:
        """Write what was measured, where it does not lie already."""
        if self.centre is not None:
            found = centring.find(output, self.store, self.where, sites=list(self.centre.means), by=self.centre.by)
            if found is None:
                self.centre.save(output)
        measured(self.method, self.store)

    def join(self, output: Path) -> None:
        """Read what another process has measured."""
        if self.by is not None:
            self._use(centring.load(output))

    def _use(self, centre: Centre) -> None:
        self.centre, self.store = centre, CentredStore(self.store.folder, centre)

    def sample(self, sites: Sequence[str], *, seed: int) -> dict[str, Tensor]:
        """Return some rows."""
        return sample(self.store, self.where, list(sites), seed=seed)

    def normalisation(self, rows: dict[str, Tensor], *, k: int) -> dict[str, Affine]:
        """Return each site's normalisation."""
        return normalisation(self.method, self.store, rows, k=k)

    def shuffled(self, config: ShuffleConfig, *, sites: Sequence[str]) -> Fed:
        """Stream all rows in a seeded random order."""
        return self.store.shuffled(config, where=self.where, sites=sites)

    def confirm(self) -> None:
        """A store does not change while it is read."""


class Supplied:
    """Rows from elsewhere than a store: nothing is measured on them before a training."""

    def __init__(self, supply: Supply, *, method: str, by: str | None) -> None:
        self.supply, self.method = supply, method
        asked = f"normalised by {method}" if method in MEASURED else None if by is None else f"centred by {by}"
        if asked is not None:
            other = "normalise by scale or center" if method in MEASURED else "leave the centring out"
            what = f"rows that come straight from a model cannot be {asked}, which is measured on a store"
            raise ConfigError(what, where=supply.place, remedy=f"Capture them into a store first, or {other}.")
        self.sites, self.rows, self.place, self.source = supply.sites, supply.rows, supply.place, supply.source

    def inputs(self) -> dict[str, str]:
        """Name what is trained on."""
        return {"rows": self.supply.digest[:16]}

    def measure(self, sites: Sequence[str], output: Path) -> None:
        """Nothing is measured."""

    def keep(self, output: Path) -> None:
        """Nothing was measured."""

    def join(self, output: Path) -> None:
        """Nothing was measured."""

    def sample(self, sites: Sequence[str], *, seed: int) -> dict[str, Tensor]:
        """Return some rows."""
        from elute.engine.normalise import SAMPLE

        return self.supply.sample(SAMPLE, sites=sites, seed=seed)

    def normalisation(self, rows: dict[str, Tensor], *, k: int) -> dict[str, Affine]:
        """Return each site's normalisation."""
        return simple(self.method, rows, k=k, where=self.place)

    def shuffled(self, config: ShuffleConfig, *, sites: Sequence[str]) -> Fed:
        """Stream all rows in a seeded random order."""
        return self.supply.shuffled(config, sites=sites)

    def confirm(self) -> None:
        """Refuse if what gives the rows has changed meanwhile."""
        self.supply.confirm()


Given = Stored | Supplied


def given(rows: Path | str | Supply | Stored, *, method: str, by: str | None) -> Given:
    """Open what a training is given; `method` and `by` say what is measured on it first."""
    if isinstance(rows, Stored):
        return rows
    if isinstance(rows, str | Path):
        return Stored(rows, method=method, by=by)
    return Supplied(rows, method=method, by=by)
