"""What is put in the place of a layer while a policy runs: edits of the sites that are written, from what is read.

1. As a forward comes past the sites that are read, their rows are noted; where other layers were replaced before, they
   are what those made of them.
2. At a written site the rows are replaced by what a function makes of those noted. Banks of a cross-layer dictionary
   write their own layer and later ones, so whatever a written site needs has been read by then.

With its error term, ŷ + (y − ŷ) is y to the last bit: the difference is kept as two numbers, so that nothing is lost to
rounding. What that arm says is that hooks, dictionary and decoding leave the policy as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from elute.base.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.base.contracts import Edit
    from elute.dictionaries.dictionary import Dictionary
    from elute.routing.cause_inputs import Subject

# (what was read, by the dictionary's names; the written site; its rows; their metadata) -> rows
Fill = Callable[["Mapping[str, Tensor]", str, "Tensor", "pl.DataFrame | None"], "Tensor"]


@dataclass(frozen=True, eq=False)
class Replacement:
    """Which sites of a policy are read, which are written, and with what."""

    reads: Mapping[str, str]  # the dictionary's name -> the policy's site
    writes: Mapping[str, str]
    fill: Fill


def edits(replacements: Iterable[Replacement]) -> dict[str, Edit]:
    """Return the edits that make some replacements at once, by the policy's sites."""
    writing: dict[str, Callable[[Tensor, pl.DataFrame | None], Tensor]] = {}
    noting: dict[str, list[tuple[dict[str, Tensor], str]]] = {}
    for each in replacements:
        noted: dict[str, Tensor] = {}
        for name, site in each.reads.items():
            noting.setdefault(site, []).append((noted, name))
        for name, site in each.writes.items():
            if site in writing:
                raise ConfigError(f"{site!r} would be replaced twice", remedy="Replace one of the pairs at a time.")
            writing[site] = _writer(each, noted, name)
    order = dict.fromkeys([*noting, *writing])
    return {site: _edit(writing.get(site), noting.get(site, [])) for site in order}


def _writer(
    replacement: Replacement, noted: dict[str, Tensor], name: str
) -> Callable[[Tensor, pl.DataFrame | None], Tensor]:
    return lambda x, metadata: replacement.fill(noted, name, x, metadata)


def _edit(
    write: Callable[[Tensor, pl.DataFrame | None], Tensor] | None, notes: list[tuple[dict[str, Tensor], str]]
) -> Edit:
    def edit(x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        new = x if write is None else write(x, metadata)
        for noted, name in notes:
            noted[name] = new
        return new

    return edit


def reconstruction(subject: Subject, *, error: bool = False) -> Replacement:
    """What the dictionary makes of what it reads; with its error term, which leaves the policy as it was."""
    dictionary = subject.dictionary
    rows = _rows_of(subject)

    def _fill(noted: Mapping[str, Tensor], name: str, x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        given, kept = rows(noted, x, metadata)
        y = decoded(dictionary, given, name).to(x)
        y = with_error(y, x[kept]) if error else y
        return _put(y, x, kept)

    return Replacement(subject.reads, subject.writes, _fill)


def mapped(subject: Subject, maps: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]]) -> Replacement:
    """What a map makes of what is read, one a written site."""
    rows = _rows_of(subject)

    def _fill(noted: Mapping[str, Tensor], name: str, x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        given, kept = rows(noted, x, metadata)
        return _put(maps[name](given).to(x), x, kept)

    return Replacement(subject.reads, subject.writes, _fill)


def passed_through(subject: Subject) -> Replacement:
    """The state before: what a layer read in the place of what it gave; a part that is added adds nothing.

    Where what is read has another width or other rows, as at the decoder, there is no such thing: nothing is given.
    """

    def _fill(noted: Mapping[str, Tensor], name: str, x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        del metadata
        if subject.writes[name].endswith((".mlp", ".attention")):
            return torch.zeros_like(x)
        before = [noted[read] for read in subject.reads if read in noted]
        return before[-1].clone() if before and before[-1].shape == x.shape else torch.zeros_like(x)

    return Replacement(subject.reads, subject.writes, _fill)


def held(subject: Subject, values: Mapping[str, Tensor]) -> Replacement:
    """One row for all, as a mean."""

    def _fill(noted: Mapping[str, Tensor], name: str, x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        del noted, metadata
        return values[name].to(x).expand_as(x).clone()

    return Replacement({}, subject.writes, _fill)


def another(subject: Subject, clean: Mapping[str, Tensor], nodes: int) -> Replacement:
    """What the next instance of the batch gives at the same node, or step; `clean` are its rows by policy's site."""

    def _fill(noted: Mapping[str, Tensor], name: str, x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        del noted
        rows = clean[subject.writes[name]].to(x)
        other = rows.view(-1, nodes, rows.shape[1]).roll(1, 0)
        if len(x) == len(rows):
            return other.reshape(x.shape).clone()
        step = _step(metadata)  # one row an instance: the decoder at one step
        return other[:, step].clone()

    return Replacement({}, subject.writes, _fill)


def decoded(dictionary: Dictionary, noted: Mapping[str, Tensor], name: str) -> Tensor:
    """Decode one written site from what has been read by then."""
    some = next(iter(noted.values()))
    spec = dictionary.spec
    given = {read: noted.get(read, some.new_zeros(len(some), width)) for read, width in spec.reads.items()}
    if dictionary.W_skip is not None and len(noted) < len(spec.reads):
        what = "has a linear skip from layers that come later, so that it cannot stand in a forward"
        raise ConfigError(what, where="dictionary", remedy="Train it without --skip.")
    y = dictionary.decode(dictionary.encode(given), given)
    found: Tensor = y[name] if isinstance(y, dict) else y
    return found


def with_error(y_hat: Tensor, y: Tensor) -> Tensor:
    """Return ŷ + (y − ŷ) without loss."""
    a, b = y_hat.double(), y.double()
    high = b - a
    # What rounding took from the difference (Møller and Knuth's two-sum).
    back = high + a
    low = (b - back) - (a - (back - high))
    return ((a + high) + low).to(y.dtype)


def _rows_of(
    subject: Subject,
) -> Callable[[Mapping[str, Tensor], Tensor, pl.DataFrame | None], tuple[dict[str, Tensor], Tensor | slice]]:
    """Return what brings the rows that were read beside those that are written: at the decoder, those of its nodes."""
    if not subject.at_steps:
        return lambda noted, _x, _metadata: (dict(noted), slice(None))
    from elute.routing.decoder_pairs import Beside

    beside = Beside(subject.dictionary.spec.reads)

    def rows(noted: Mapping[str, Tensor], x: Tensor, metadata: pl.DataFrame | None) -> tuple[dict[str, Tensor], Tensor]:
        if metadata is None:
            raise ConfigError("the steps of the tours are not told", where=subject.pair)
        return beside(noted, rows=len(x), metadata=metadata)

    return rows


def _put(y: Tensor, x: Tensor, kept: Tensor | slice) -> Tensor:
    if isinstance(kept, slice):
        return y
    new = x.clone()
    new[kept] = y
    return new


def _step(metadata: pl.DataFrame | None) -> int:
    if metadata is None:
        raise ConfigError("the step of the tours is not told", where="another instance's activations")
    return int(metadata["position"][0])
