"""What a dictionary reads, what it writes, and how sparse it is: everything needed to build one anew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from elute.base.errors import ConfigError, near
from elute.base.recipe import first_fault

Kind = Literal["sae", "transcoder", "clt", "crosscoder"]
Encoder = Literal["own", "pursuit"]  # the dictionary's own, or matching pursuit with its directions

_MOST = 2**31 - 1  # indices of codes are int32


@dataclass(frozen=True)
class Span:
    """The columns of one bank within all read and all written columns."""

    read: slice
    write: slice

    @property
    def widths(self) -> tuple[int, int]:
        """How many columns are read and written."""
        return self.read.stop - self.read.start, self.write.stop - self.write.start


class DictionarySpec(BaseModel):
    """The whole description of a dictionary besides its weights; kept as JSON in its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "sae"
    reads: dict[str, int]  # site -> width, in the order of the columns
    writes: dict[str, int]
    n_features: int = Field(ge=1)  # of one bank
    activation: str = "topk"
    k: int = Field(32, ge=1)  # features that fire in a row of one bank: exactly, at most, or on average
    nested: tuple[int, ...] = ()  # prefixes that each reconstruct by themselves; the last is n_features
    skip: bool = False  # a dense linear map beside the features
    settings: dict[str, float] = {}  # the activation's own numbers
    source: dict[str, Any] = {}  # what it was trained on: store, model, scaling, control

    @model_validator(mode="after")
    def _whole(self) -> DictionarySpec:
        for name, width in [*self.reads.items(), *self.writes.items()]:
            if not 1 <= width <= _MOST:
                raise ValueError(f"site {name!r} is {width} wide")
        if self.k > self.n_features:
            raise ValueError(f"k = {self.k} is more than the {self.n_features} features")
        if wrong := [name for name, number in self.settings.items() if not math.isfinite(number)]:
            raise ValueError(f"setting {wrong[0]!r} is not a finite number")
        if self.nested and (
            list(self.nested) != sorted(set(self.nested)) or self.nested[0] < 1 or self.nested[-1] != self.n_features
        ):
            raise ValueError(f"nested prefixes must grow and end with n_features = {self.n_features}")
        if self.kind == "sae" and (len(self.reads) != 1 or self.reads != self.writes):
            raise ValueError("a sparse autoencoder reads and writes one and the same site")
        if self.kind == "transcoder" and (len(self.reads) != 1 or len(self.writes) != 1):
            raise ValueError("a transcoder reads one site and writes one")
        if self.kind == "clt" and (len(self.reads) != len(self.writes) or len(self.reads) < 2):
            raise ValueError("a cross-layer transcoder reads as many sites as it writes, two or more")
        if self.kind == "crosscoder" and (len(self.reads) < 2 or not self.same):
            raise ValueError("a crosscoder reads and writes the same two or more sites, in one order")
        if self.skip and self.same:
            raise ValueError(f"a linear skip would let a {self.kind} pass its input through")
        if self.total_features > _MOST:
            raise ValueError(f"{self.total_features} features are more than codes can name ({_MOST})")
        return self

    @property
    def width_in(self) -> int:
        """Columns of all read sites."""
        return sum(self.reads.values())

    @property
    def width_out(self) -> int:
        """Columns of all written sites."""
        return sum(self.writes.values())

    @property
    def total_features(self) -> int:
        """Features of all banks."""
        return self.n_features * len(self.spans)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The columns of each bank."""
        if self.kind != "clt":
            return (Span(slice(0, self.width_in), slice(0, self.width_out)),)
        starts_in, starts_out = _starts(self.reads), _starts(self.writes)
        return tuple(
            Span(slice(starts_in[i], starts_in[i + 1]), slice(starts_out[i], self.width_out))
            for i in range(len(self.reads))
        )

    @property
    def same(self) -> bool:
        """Whether what is written is what was read."""
        return [*self.reads.items()] == [*self.writes.items()]

    @property
    def mirrored(self) -> bool:
        """Whether each bank writes the very columns that it reads."""
        return self.same and len(self.spans) == 1


def column_spans(sites: dict[str, int]) -> dict[str, slice]:
    """Columns of each site when all stand side by side."""
    starts = _starts(sites)
    return {name: slice(starts[i], starts[i + 1]) for i, name in enumerate(sites)}


def choose_sites(
    kind: Kind, known: dict[str, int], *, reads: tuple[str, ...], writes: tuple[str, ...]
) -> DictionarySpec:
    """Check which sites a kind reads and writes among those known; what is not said is what there is."""
    for name in (*reads, *writes):
        if name not in known:
            raise ConfigError(f"there is no site {name!r}", remedy=near(name, known))
    if twice := [name for part in (reads, writes) for name in part if part.count(name) > 1]:
        raise ConfigError(f"site {twice[0]!r} is named twice", remedy="Name each site once.")
    if not reads and kind in ("sae", "transcoder"):
        left = [name for name in known if kind == "sae" or name not in writes]
        if len(left) > (1 if kind == "sae" or writes else 2):
            names = ", ".join(known)
            raise ConfigError(
                f"there are several sites ({names})", remedy=f"Say which one a {kind} reads: --reads NAME."
            )
        reads = tuple(left[:1])
    if not writes and kind == "transcoder":
        left = [name for name in known if name not in reads]
        if len(left) != 1:
            what = "a transcoder needs a second site to write" if not left else f"it could write {', '.join(left)}"
            raise ConfigError(what, remedy="Give --writes NAME.")
        writes = tuple(left)
    reads = reads or tuple(known)
    writes = writes or reads
    try:
        return DictionarySpec(
            kind=kind, reads={n: known[n] for n in reads}, writes={n: known[n] for n in writes}, n_features=1, k=1
        )
    except ValidationError as error:
        remedy = f"The sites are {', '.join(known)}: choose with --reads and --writes."
        raise ConfigError(first_fault(error)[1], remedy=remedy) from None


def _starts(sites: dict[str, int]) -> list[int]:
    starts = [0]
    for width in sites.values():
        starts.append(starts[-1] + width)
    return starts
