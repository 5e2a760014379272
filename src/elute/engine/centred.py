"""Rows of a store as a dictionary was trained on them: centred where they were (see centring.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.base.errors import DataError, GuardError
from elute.engine.centring import NAME, REMEDY, load
from elute.store.reader import Store
from elute.store.shuffle import ShuffleConfig, ShuffledStream
from elute.store.window import Batch

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.base.contracts import Rows
    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.centring import Centre
    from elute.store.rows import Selection


class CentredStream(ShuffledStream):
    """A shuffled stream whose rows are centred as they are handed out."""

    store: CentredStore

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches."""
        for batch in super().__iter__():
            codes = self.store.codes[batch.places.numpy()]
            yield Batch(self.store.centre.subtract(batch.rows, codes), batch.places)


class CentredStore(Store):
    """A store whose rows are read less the means of their values; it has the sites alone that were measured."""

    def __init__(self, folder: Path | str, centre: Centre) -> None:
        super().__init__(folder)
        self.centre = centre
        self.codes = np.empty(len(self), np.int32)  # each row's value
        for start, stop in zip(self.starts, self.starts[1:], strict=False):
            self.codes[start:stop] = centre.codes(self.metadata(start, stop, columns=[centre.by])[centre.by])

    @property
    def sites(self) -> dict[str, int]:
        """Each site's width."""
        return {name: width for name, width in super().sites.items() if name in self.centre.means}

    def known_sites(self, asked: Sequence[str] | None) -> list[str]:
        """Return the sites asked for, or all that were measured; another one is an error."""
        names = super().known_sites(list(self.sites) if asked is None else asked)
        if lost := [name for name in names if name not in self.centre.means]:
            raise DataError(f"there are no means of site {lost[0]!r} to subtract", where=self.folder)
        return names

    def read(self, start: int = 0, stop: int | None = None, *, sites: Sequence[str] | None = None) -> Rows:
        """Read a range of rows."""
        rows = super().read(start, stop, sites=sites)
        start, stop, _ = slice(start, stop).indices(len(self))
        return self.centre.subtract(rows, self.codes[start : max(start, stop)])

    def batches(
        self,
        size: int = 4096,
        *,
        where: Selection | None = None,
        sites: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[tuple[Rows, pl.DataFrame]]:
        """Yield rows with their metadata in order, as a store does."""
        codes, at = self._codes(where or self.everything), 0
        for rows, frame in super().batches(size, where=where, sites=sites, columns=columns):
            n = len(next(iter(rows.values()), frame))
            yield self.centre.subtract(rows, codes[at : at + n]), frame
            at += n

    def shuffled(
        self, config: ShuffleConfig | None = None, *, where: Selection | None = None, sites: Sequence[str] | None = None
    ) -> ShuffledStream:
        """Stream rows in a seeded random order, as a store does."""
        return CentredStream(
            self, config or ShuffleConfig(), where=where or self.everything, sites=self.known_sites(sites)
        )

    def unseen(self, where: Selection) -> int:
        """Count the rows whose value was not met in training, or that have none."""
        return int((self._codes(where) == len(self.centre.values)).sum())

    def _codes(self, where: Selection) -> NDArray[np.int32]:
        """The values of the chosen rows, in order."""
        parts = []
        for shard, (start, stop) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            mask = where.mask(shard, stop - start)
            parts.append(self.codes[start:stop] if mask is None else self.codes[start:stop][mask])
        return np.concatenate([self.codes[:0], *parts])


def as_trained(dictionary: Dictionary, store: Store, *, beside: Path | str | None) -> Store:
    """Return a store whose rows are what the dictionary was trained on; `beside` is the dictionary's file or folder."""
    wanted, by = dictionary.spec.source.get("centre"), dictionary.spec.source.get("centre_by")
    if isinstance(store, CentredStore):
        if store.centre.digest != wanted:
            what = "its rows are centred, and the dictionary was not trained on rows centred in this way"
            raise GuardError(what, where=store.folder, remedy="Give the store itself.")
        return store
    if wanted is None:
        return store
    what = f"the dictionary was trained on rows centred by {by}"
    if beside is None:
        raise GuardError(f"{what}, and where its means lie is not known", remedy="Say beside which file they lie.")
    folder = Path(beside) if Path(beside).is_dir() else Path(beside).parent
    if not (folder / NAME).exists():
        raise GuardError(f"{what}, and {NAME} is not beside it", where=folder, remedy=REMEDY)
    centre = load(folder)
    if centre.digest != wanted:
        what += f" with other means ({centre.digest[:12]}, expected {wanted[:12]})"
        raise GuardError(what, where=folder / NAME, remedy=REMEDY)
    return CentredStore(store.folder, centre)


def told(store: Store, where: Selection) -> dict[str, Any]:
    """Say which of the chosen rows lose the mean of all; return what a summary says of centring."""
    if not isinstance(store, CentredStore):
        return {}
    by, unseen = store.centre.by, store.unseen(where)
    if unseen:
        what = f"{unseen:,} of {where.rows:,} rows have a {by} that was not met in training, or none"
        console.say(f"{store.folder}: {what}: the mean of all rows is subtracted from them")
    return {"centred_by": by, "unseen_rows": unseen}
