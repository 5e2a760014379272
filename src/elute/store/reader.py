"""Reading a store: memory-mapped and in order (see rows.py), or shuffled (see shuffle.py), and never a wrong one.

store = Store("activations")
store.read(0, 1000)                          # {site: [1000, width] tensor}
for rows, metadata in store.batches(4096, where=store.select(split="train")): ...
for batch in store.shuffled(ShuffleConfig(seed=1)): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elute.base.contracts import Fingerprint
from elute.base.errors import GuardError, near
from elute.store import layout, settle
from elute.store.rows import Selection, StoredRows
from elute.store.scaling import Scaling
from elute.store.shuffle import ShuffleConfig, ShuffledStream


class Store(StoredRows):
    """Rows of activations on disk, opened for reading."""

    def shuffled(
        self, config: ShuffleConfig | None = None, *, where: Selection | None = None, sites: Sequence[str] | None = None
    ) -> ShuffledStream:
        """Stream rows in a seeded random order, with bounded memory (see shuffle.py)."""
        return ShuffledStream(
            self, config or ShuffleConfig(), where=where or self.everything, sites=self.known_sites(sites)
        )

    def expect(
        self,
        *,
        model: Fingerprint | None = None,
        sites: Sequence[str] = (),
        scaling: str | None = None,
    ) -> None:
        """Refuse to be read with another model, site or scaling than the rows were written with; say what changed."""
        again = "Capture it anew with --recapture, or use what it was made with."
        if lost := [name for name in sites if name not in self.manifest.sites]:
            raise GuardError(f"has no site {lost[0]!r}", where=self.folder, remedy=near(lost[0], self.manifest.sites))
        if model is not None:
            record = layout.ModelRecord(**model.as_json())
            if changes := settle.model_changes(self.manifest, self.manifest.model_copy(update={"model": record})):
                name = self.manifest.model.name if self.manifest.model else "no model"
                raise GuardError(f"was captured from {name}, but {'; '.join(changes)}", where=self.folder, remedy=again)
        if scaling is not None:
            mine = Scaling.of(self.folder).digest
            if mine != scaling:
                what = f"is normalised otherwise (embed_stats {mine[:12]}, expected {scaling[:12]})"
                raise GuardError(what, where=self.folder, remedy="Use the embed_stats.json it was made with.")


def open_store(folder: Path | str) -> Store:
    """Open a store for reading."""
    return Store(folder)
