"""What relevance found of a gene: sums by code, samples, reference lists, maps, and how well it was conserved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from elute.base.errors import DataError
from elute.base.mergeable import Integers

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.relevance_conditions import Asked
    from elute.analysis.relevance_rules import Rules
    from elute.analysis.relevance_totals import SampleRelevance

Map = npt.NDArray[np.float32]


class Spot(NamedTuple):
    """One map that is wanted: a reference of a code, and the tile that holds its strongest patch."""

    code: int
    sign: str
    rank: int
    sample_id: str
    tile_id: str | None


@dataclass(frozen=True, eq=False)
class CodeMaps:
    """The maps of one gene and code: `maps` [n, rows, cols] go with `spots`."""

    gene: str
    code: int
    spots: tuple[Spot, ...]
    maps: Map


@dataclass(frozen=True, eq=False)
class Relevance:
    """What a gene's prediction rests on: by code, by sample, in reference samples."""

    gene: str
    genes: tuple[str, ...]
    codes: pl.DataFrame
    samples: SampleRelevance | None
    lists: Callable[[Integers | None], pl.DataFrame]  # the references of some codes, or of all
    conservation: dict[str, float]
    hidden: dict[str, pl.DataFrame]  # the references of hidden layers' units
    rules: Rules
    same_order: bool  # for positive weights, RelMax that is not normed ranks as ActMax does
    asked: Asked
    draw: Callable[[Relevance], list[CodeMaps]] | None = None  # where the inputs can be read again

    @cached_property
    def references(self) -> pl.DataFrame:
        """RelMax and ActMax lists of every code whose references are kept, as `References.result` gives them."""
        return self.lists(None)

    @cached_property
    def maps(self) -> list[CodeMaps]:
        """Relevance by patch in the RelMax references, code by code, drawn in one more pass when first asked for."""
        if self.draw is None:
            raise DataError("what was explained is not at hand any more", remedy="Use token_maps.token_maps with it.")
        return self.draw(self)

    def references_of(self, codes: Sequence[int] | Integers) -> pl.DataFrame:
        """Return the lists of some codes."""
        return self.lists(np.asarray(codes, np.int64))

    def top(self, n: int = 20, *, sign: str | None = None) -> Integers:
        """Return the codes of most relevance: by Σ|R| over samples, or of one sign by its sum."""
        keys = {None: self.codes["mean_absolute"], "+": self.codes["relevance"], "-": -self.codes["relevance"]}
        if sign not in keys:
            raise DataError(f"sign={sign!r}", remedy="Choose '+', '-' or none.")
        values = keys[sign].to_numpy()
        order = np.lexsort((self.codes["code"].to_numpy(), -values))
        return self.codes["code"].to_numpy()[order[values[order] > 0][:n]].astype(np.int64)


def top_number(text: str) -> int:
    """Read `top20` as 20."""
    number = text.removeprefix("top")
    if number == text or not number.isdecimal() or not int(number):
        raise DataError(f"codes={text!r}", remedy="Give ids of codes, or topN as in top20.")
    return int(number)


def again(inputs: Any) -> None:
    """Refuse what can be read once alone."""
    if hasattr(inputs, "__next__"):
        remedy = "Give a list, or an object that begins anew each time, as StoredTokens does."
        raise DataError("these codes can be read once alone, and two passes are needed", remedy=remedy)
