"""The codes of the samples that heads were fitted on, as relevance reads them: from the beginning each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from elute.base.errors import GuardError
from elute.tissue.coding import first_epoch
from elute.tissue.sampling_rows import numbered, sample_codes

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.base.codes import Codes
    from elute.dictionaries.dictionary import Dictionary
    from elute.store.reader import Store
    from elute.tissue.plan import Plan

_ROWS = 8192


@dataclass(frozen=True, eq=False)
class CodeStream:
    """Batches of (codes, metadata); with an attention, its weight of each row stands beside."""

    plan: Plan
    store: Store
    dictionary: Dictionary
    known: str
    names: list[str]
    weights: np.ndarray[Any, Any] | None = None  # of each row, in this very order

    def __iter__(self) -> Iterator[tuple[Codes, pl.DataFrame]]:
        """Yield codes and metadata, the rows of a sample together: in the store's order, where it has them so."""
        return self._parts() if self.together else self._sorted()

    @cached_property
    def together(self) -> bool:
        """Whether the store has the rows of each sample one after another; a loop that shuffles its tiles has not."""
        import polars as pl

        first = first_epoch(self.store)
        columns = ["sample_id"] + ([] if first is None else ["epoch"])
        wanted, runs, last = pl.Series(self.names).implode(), 0, None
        for start, stop in zip(self.store.starts, self.store.starts[1:], strict=False):
            frame = self.store.metadata(start, stop, columns=columns).filter(pl.col("sample_id").is_in(wanted))
            held = (frame if first is None else frame.filter(pl.col("epoch") == first))["sample_id"].rle()
            if len(held):
                names = held.struct.field("value")
                runs += len(names) - (names[0] == last)
                last = names[-1]
        return runs <= len(self.names)

    def _parts(self) -> Iterator[tuple[Codes, pl.DataFrame]]:
        import polars as pl

        columns = [c for c in ("sample_id", "tile_id", "token_rc") if c in self.store.manifest.columns]
        first = 0
        parts = sample_codes(self.plan, self.store, self.dictionary, known=self.known, names=self.names)
        for codes, _, frame in parts:
            kept = frame.select(columns)
            if self.weights is not None:
                part = self.weights[first : first + len(kept)]
                if len(part) != len(kept):
                    raise self._other()
                kept = kept.with_columns(attention=pl.Series(part))
            first += len(kept)
            yield codes, kept
        if self.weights is not None and first != len(self.weights):
            raise self._other()

    def _sorted(self) -> Iterator[tuple[Codes, pl.DataFrame]]:
        """Yield the same sorted by sample, from memory, which holds the sparse codes of all rows."""
        import numpy as np
        import polars as pl
        import torch

        from elute.base.codes import Codes

        parts = list(self._parts())
        codes, frame = Codes.concatenate([part for part, _ in parts]), pl.concat([part for _, part in parts])
        del parts
        place = numbered(frame, pl.Enum(self.names))
        order = np.argsort(place, kind="stable")
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            yield codes[torch.from_numpy(rows)], frame[rows.tolist()]

    def _other(self) -> GuardError:
        return GuardError("the attention's weights are of other rows than the codes", where=self.plan.output / "heads",
                          remedy="Type: elute tissue train_heads, with the same --config.")  # fmt: skip
