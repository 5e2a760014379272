"""What each feature did in each shown cell, from the codes of all rows, in a fixed amount of memory.

1. A cell's activation of a feature is the largest over the cell's rows (of either sign: how strong it was). Rows come
   in their order, and the rows of a cell one after another, so a cell is finished when the next one begins.
2. A model with a row for each gene of a cell fires nearly every feature in nearly every cell, and no page could hold
   that. Of `budget` values the strongest of each feature are kept, as many for each feature as all of them can have
   (features that fire less leave their room to others); the largest that was left out is the feature's floor.
3. That is done whenever twice the budget is held. What was left out once would be left out in the end: the number that
   each feature can have only falls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.base.compiled import compiled
from elute.base.errors import GuardError
from elute.reports.explorer.cell_sample import ShownCells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

BUDGET = 64  # values a shown cell, on average
_LEAST = 1 << 20  # values that a page has room for in any case
_ROWS = 1 << 15  # that are read at a time


@dataclass(frozen=True)
class Pooled:
    """For each feature the shown cells in which it fires: those of feature f from offsets[f] up to offsets[f + 1]."""

    offsets: NDArray[np.int64]
    cells: NDArray[np.int32]
    values: NDArray[np.float32]
    fires: NDArray[np.int64]
    """In how many of the shown cells each feature fires."""
    floor: NDArray[np.float32]
    """What no cell exceeds that is left out; 0 where none is."""
    identity: str
    """Of the codes."""

    @property
    def tops(self) -> NDArray[np.float32]:
        """The largest value of each feature; 0 where it does not fire."""
        found = np.zeros(len(self.fires), np.float32)
        some = np.diff(self.offsets) > 0
        found[some] = np.maximum.reduceat(self.values, self.offsets[:-1][some]) if some.any() else 0
        return found


def pool(home: Path, place: Path, cells: ShownCells, *, budget: int | None = None) -> Pooled | None:
    """Pool the codes of a site over the shown cells; None where the run keeps no codes, or not the rows' names."""
    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

    if not all((folder / "manifest.json").is_file() for folder in (place / "codes", home / "activations")):
        return None
    codes, store = StoredCodes(place / "codes"), Store(home / "activations")
    codes.expect(store=store, complete=False)
    if "sample_id" not in store.manifest.columns:
        return None
    kept = _Kept(codes.n_features, len(cells.rows), budget or max(_LEAST, BUDGET * len(cells.rows)))
    run = _Run(codes.n_features)
    with console.progress("cells of features", len(codes)) as bar:
        for cell, indices, values in _pieces(codes, store, cells):
            kept.add(run.take(cell, indices, values))
            bar.advance(len(cell))
        kept.add(run.end())
    return kept.result(codes.manifest.codes)


def _pieces(
    codes: StoredCodes, store: Store, cells: ShownCells
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]]:
    """Some rows at a time: the place of the cell of each, −1 for one that is not shown, and the codes."""
    import polars as pl

    place = np.full(cells.of, -1, np.int64)
    place[cells.rows] = np.arange(len(cells.rows))
    known = pl.DataFrame({"cell": cells.names, "at": place}).unique("cell", keep="first", maintain_order=True)
    for shard, first in enumerate(codes.starts[:-1]):
        mine, begin = codes.shard(shard), store.starts[shard]
        names = store.metadata(begin, store.starts[shard + 1], columns=["sample_id"])
        rows = names[pl.Series(codes.store_rows(first, codes.starts[shard + 1]).numpy() - begin)]
        found = rows.join(known, left_on="sample_id", right_on="cell", how="left", maintain_order="left")
        if found["at"].null_count():
            lost = found.filter(found["at"].is_null())["sample_id"][0]
            remedy = "They are of other cells: extract anew."
            raise GuardError(f"cell {lost!r} has codes, and is not in cells.parquet", where=codes.folder, remedy=remedy)
        cell = found["at"].to_numpy()
        for a in range(0, len(mine), _ROWS):
            part = mine[a : a + _ROWS]
            yield cell[a : a + _ROWS], part.indices.numpy(), part.values.float().numpy()


Entries = tuple[Any, Any, Any]  # features, cells, values


class _Run:
    """The cell whose rows are being read, which may go on in the next piece."""

    def __init__(self, n_features: int) -> None:
        self.cell = -1
        self.strongest = np.zeros(n_features, np.float32)
        self.met = np.empty(n_features, np.int32)
        self.count = 0

    def take(self, cell: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float32]) -> Entries:
        """Go through rows; return what the cells did that ended."""
        most = indices.size + self.count
        out = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.float32)
        run = self.strongest, self.met
        n, self.cell, self.count = _walk((cell, indices, values), (self.cell, self.count), run, out)
        return out[0][:n], out[1][:n], out[2][:n]

    def end(self) -> Entries:
        """Return what the last cell did."""
        return self.take(np.array([-1]), np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32))


@compiled
def _walk(rows: Any, state: Any, run: Any, into: Any) -> Any:
    """Go through rows of (cell, indices, values); what a cell did is put out when the next one begins."""
    (cell, indices, values), (now, count) = rows, state
    (strongest, met), (features, cells, highs), n = run, into, 0
    for row in range(len(cell)):
        if cell[row] != now:
            for i in range(count):
                features[n], cells[n], highs[n] = met[i], now, strongest[met[i]]
                strongest[met[i]] = 0.0
                n += 1
            now, count = cell[row], 0
        if now < 0:
            continue
        for slot in range(indices.shape[1]):
            size = abs(values[row, slot])
            if size == 0.0:
                continue
            f = indices[row, slot]
            if strongest[f] == 0.0:
                met[count] = f
                count += 1
            strongest[f] = max(strongest[f], size)
    return n, now, count


@dataclass
class _Kept:
    """The strongest values of each feature so far."""

    n_features: int
    n_cells: int
    budget: int
    parts: list[Entries] = field(default_factory=list)
    held: int = 0

    def __post_init__(self) -> None:
        self.fires = np.zeros(self.n_features, np.int64)
        self.floor = np.zeros(self.n_features, np.float32)
        self.seen = np.zeros(self.n_cells, bool)
        self.apart = False  # whether a cell's rows did not come one after another

    def add(self, entries: Entries) -> None:
        """Take in some cells' values."""
        feature, cell, value = entries
        heads = cell[np.flatnonzero(np.diff(cell, prepend=-1))]
        self.apart |= bool(self.seen[heads].any()) or len(np.unique(heads)) < len(heads)
        self.seen[heads] = True
        self.fires += np.bincount(feature, minlength=self.n_features)
        above = value > self.floor[feature]
        self.parts.append((feature[above], cell[above], value[above]))
        self.held += int(above.sum())
        if self.held > 2 * self.budget:
            self._cut()

    def _cut(self) -> None:
        feature, cell, value = (np.concatenate([part[i] for part in self.parts] or [np.zeros(0)]) for i in range(3))
        order = np.lexsort((cell, -value, feature))
        feature, cell, value = feature[order], cell[order], value[order]
        if self.apart:
            feature, cell, value = self._once(feature, cell, value)
        counts = np.bincount(feature, minlength=self.n_features)
        starts = np.cumsum(counts) - counts
        most = fair_share(counts, self.budget)
        nth = np.arange(len(feature)) - np.repeat(starts, counts)
        cut = np.flatnonzero(counts > most)
        self.floor[cut] = np.maximum(self.floor[cut], value[starts[cut] + most])
        keep = nth < most
        self.parts = [(feature[keep], cell[keep], value[keep])]
        self.held = int(keep.sum())

    def _once(self, feature: Any, cell: Any, value: Any) -> Entries:
        """A cell whose rows are apart from one another comes several times: its largest value stands."""
        key = feature.astype(np.int64) * self.n_cells + cell
        _, first = np.unique(key, return_index=True)
        self.fires -= np.bincount(feature, minlength=self.n_features)
        first.sort()  # values fall within a feature, so the first is the largest
        feature, cell, value = feature[first], cell[first], value[first]
        self.fires += np.bincount(feature, minlength=self.n_features)
        return feature, cell, value

    def result(self, identity: str) -> Pooled:
        """Return what is kept, by feature and cell."""
        self._cut()
        feature, cell, value = self.parts[0]
        order = np.lexsort((cell, feature))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(feature, minlength=self.n_features))])
        kept = cell[order].astype(np.int32), value[order].astype(np.float32)
        return Pooled(offsets, *kept, fires=np.minimum(self.fires, self.n_cells), floor=self.floor, identity=identity)


def fair_share(counts: NDArray[np.int64], budget: int) -> int:
    """Return the most values that each may have so that all together have no more than the budget."""
    if counts.sum() <= budget:
        return int(counts.max(initial=0))
    ordered = np.sort(counts)
    below = np.concatenate([[0], np.cumsum(ordered)])
    left = len(ordered) - np.arange(len(ordered))
    # With share s = ordered[i], those before i have all of theirs, and i and those after it have s each.
    fits = below[:-1] + ordered * left <= budget
    i = int(fits.sum())
    return int((budget - below[i]) // left[i])
