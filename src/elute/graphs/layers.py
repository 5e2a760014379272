"""Where the MLPs of a model read and write, and the dictionaries that stand in for them.

    layers = Layers.of(model)                                       # from the names of its sites
    layers = Layers(("encoder_layer_0.mlp.input",), ("encoder_layer_0.mlp",))

A dictionary stands for one layer, a transcoder, or for all of them, a cross-layer transcoder. `Coders` makes one thing
of both: features of layer l read what MLP l reads, and write to layer l and, of a cross-layer transcoder, later ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from elute.base.errors import ConfigError, DataError, GuardError, SiteError, near
from elute.dictionaries.spec import column_spans

if TYPE_CHECKING:
    from torch import Tensor

    from elute.base.contracts import Site
    from elute.dictionaries.bank import Bank
    from elute.dictionaries.dictionary import Dictionary

_FORMS = (
    (re.compile(r"blocks\.(\d+)\.hook_mlp_in"), "blocks.{}.hook_mlp_out"),
    (re.compile(r"encoder_layer_(\d+)\.mlp\.input"), "encoder_layer_{}.mlp"),
)


@dataclass(frozen=True)
class Layers:
    """For each layer the site that its MLP reads and the site that it writes, in the order in which they run."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse layers that do not pair up."""
        if not self.reads or len(self.reads) != len(self.writes):
            what = f"{len(self.reads)} sites are read and {len(self.writes)} written"
            raise ConfigError(what, where="layers", remedy="Give one of each for every layer.")
        both = (*self.reads, *self.writes)
        if twice := [name for name in both if both.count(name) > 1]:
            raise ConfigError(f"site {twice[0]!r} is named twice", where="layers", remedy="Name each site once.")

    def __len__(self) -> int:
        return len(self.reads)

    @classmethod
    def of(cls, sites: Mapping[str, Site]) -> Self:
        """Find the MLPs among a model's sites by how these are named."""
        for form, write in _FORMS:
            found = {int(m[1]): name for name in sites if (m := form.fullmatch(name))}
            if found and all(write.format(i) in sites for i in found):
                order = sorted(found)
                return cls(tuple(found[i] for i in order), tuple(write.format(i) for i in order))
        remedy = "Give Layers(reads, writes)."
        raise SiteError("no MLP is known by the names of its sites", where="layers", remedy=remedy)

    def check(self, sites: Mapping[str, Site]) -> None:
        """Refuse sites that a model does not have."""
        for name in (*self.reads, *self.writes):
            if name not in sites:
                raise SiteError(f"there is no site {name!r}", where="layers", remedy=near(name, sites))


@dataclass(frozen=True, eq=False)
class Coded:
    """What fired in one layer, [rows, slots] each, in order of the feature; a value of 0 marks an empty slot."""

    idx: Tensor  # int64, counted within the layer
    val: Tensor

    @property
    def fired(self) -> Tensor:
        """Which slots are not empty."""
        return self.val != 0


class Coders:
    """The features of every layer: how they read, and what they write."""

    def __init__(self, layers: Layers, given: Dictionary | Sequence[Dictionary]) -> None:
        self.layers = layers
        self.whole = None if isinstance(given, Sequence) else given
        self.parts: list[Dictionary] = list(given) if isinstance(given, Sequence) else []
        _check_kinds(layers, given)
        known = [self.whole] if self.whole is not None else self.parts
        self.kind = known[0].spec.kind
        self.banks: list[Bank] = [bank for dictionary in known for bank in dictionary]
        for i, dictionary in enumerate(known):
            reads = layers.reads if self.whole is not None else layers.reads[i : i + 1]
            writes = layers.writes if self.whole is not None else layers.writes[i : i + 1]
            _check_names(dictionary, reads, writes)
        self._spans = [column_spans(d.spec.writes) for d in known]
        self._check_skip()

    @property
    def n_features(self) -> list[int]:
        """Features of each layer."""
        return [len(bank.W_enc) for bank in self.banks]

    @property
    def widths(self) -> list[tuple[int, int]]:
        """What each layer reads and writes, in columns."""
        if self.whole is not None:
            spec = self.whole.spec
            return list(zip(spec.reads.values(), spec.writes.values(), strict=True))
        return [(part.spec.width_in, part.spec.width_out) for part in self.parts]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.banks[0].W_enc.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.banks[0].W_enc.device

    def encode(self, x: Sequence[Tensor]) -> list[Coded]:
        """Encode what each MLP read, rows of each layer."""
        if self.whole is not None:
            codes = self.whole.encode(dict(zip(self.whole.spec.reads, x, strict=True)))
            found = []
            for layer in range(len(self.layers)):
                first = layer * self.whole.spec.n_features
                mine = (codes.indices >= first) & (codes.indices < first + self.whole.spec.n_features)
                found.append(_ordered(codes.indices.long() - first, torch.where(mine, codes.values, 0)))
            return found
        own = [part.encode(rows) for part, rows in zip(self.parts, x, strict=True)]
        return [_ordered(codes.indices.long(), codes.values) for codes in own]

    def encoders(self, layer: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights [n, width] and biases [n] with which features read, where they fire."""
        bank = self.banks[layer]
        W, b = bank.W_enc.detach()[features], bank.b_enc.detach()[features]
        if "r_mag" in bank.extra:  # gated: how strongly a feature fires is told by a scale and a bias of its own
            return W * bank.r_mag.detach()[features].exp()[..., None], bank.b_mag.detach()[features]
        return W, b

    def decoder(self, layer: int, to: int) -> Tensor:
        """Return what all features of a layer write into a layer, [features, width]."""
        W = self.banks[layer].W_dec.detach()
        if self.whole is None:
            return W
        span = list(self._spans[0].values())[to]
        start = self.banks[layer].span.write.start
        return W[:, span.start - start : span.stop - start]

    def written(self, layer: int) -> range:
        """Return the layers that features of a layer write into."""
        return range(layer, len(self.layers) if self.whole is not None else layer + 1)

    def bias(self, to: int) -> Tensor:
        """Return what is written into a layer whatever fires."""
        if self.whole is None:
            return self.parts[to].b_dec.detach()
        return self.whole.b_dec.detach()[list(self._spans[0].values())[to]]

    def skips(self, to: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the layers whose input reaches a layer by a linear skip, with the matrix [written, read]."""
        if self.whole is None:
            if (W := self.parts[to].W_skip) is not None:
                yield to, W.detach()
            return
        if (W := self.whole.W_skip) is not None:
            rows = list(self._spans[0].values())[to]
            for layer, columns in enumerate(column_spans(self.whole.spec.reads).values()):
                if layer <= to:
                    yield layer, W.detach()[rows, columns]

    def _check_skip(self) -> None:
        if self.whole is None or self.whole.W_skip is None:
            return
        reads = list(column_spans(self.whole.spec.reads).values())
        for to, rows in enumerate(self._spans[0].values()):
            for layer in range(to + 1, len(reads)):
                if bool(self.whole.W_skip.detach()[rows, reads[layer]].any()):
                    what = f"its skip takes what layer {layer} reads back to layer {to}, so that effects go in circles"
                    raise ConfigError(what, where="cross-layer transcoder", remedy="Train one without a skip.")


def _ordered(idx: Tensor, val: Tensor) -> Coded:
    """Sort the slots of each row by feature, and leave out columns that are empty in all."""
    key = torch.where(val != 0, idx, torch.iinfo(torch.int64).max)
    order = key.argsort(dim=1, stable=True)
    most = int((val != 0).sum(1).max()) if len(val) else 0
    order = order[:, :most]
    held = val.gather(1, order)
    return Coded(torch.where(held != 0, idx.gather(1, order), 0), held)


def _check_kinds(layers: Layers, given: Dictionary | Sequence[Dictionary]) -> None:
    known = list(given) if isinstance(given, Sequence) else [given]
    wanted = "transcoder" if isinstance(given, Sequence) else "clt"
    if wrong := [d.spec.kind for d in known if d.spec.kind != wanted]:
        what = f"a {wrong[0]} cannot stand for the MLP of a layer"
        remedy = "Give one cross-layer transcoder, or a list of transcoders, one a layer."
        raise ConfigError(what, where="attribution", remedy=remedy)
    count = len(known) if isinstance(given, Sequence) else len(known[0].spec.reads)
    if count != len(layers):
        what = f"the dictionaries stand for {count} layers, and {len(layers)} are named"
        raise ConfigError(what, where="attribution", remedy="Give as many as there are layers.")
    if len({d.b_dec.dtype for d in known}) > 1:
        raise ConfigError("the dictionaries are of different precision", where="attribution", remedy="Choose one.")


def _check_names(dictionary: Dictionary, reads: Sequence[str], writes: Sequence[str]) -> None:
    """A dictionary of other sites than those of its layer gives codes that mean nothing."""
    for known, wanted, verb in ((dictionary.spec.reads, reads, "reads"), (dictionary.spec.writes, writes, "writes")):
        for name, site in zip(known, wanted, strict=True):
            if name != site:
                remedy = "Give the dictionaries in the order of the layers."
                raise GuardError(f"the dictionary {verb} {name!r} where the layer has {site!r}", remedy=remedy)


def check_width(name: str, rows: Tensor, width: int) -> None:
    """Refuse rows that a dictionary cannot read or write, and such as are no numbers."""
    if rows.shape[-1] != width:
        what = f"the model gives {rows.shape[-1]} columns and the dictionary has {width}"
        raise GuardError(what, where=f"site {name!r}", remedy="Give the dictionary that was trained on this model.")
    bad = (~torch.isfinite(rows)).any(-1)
    if bool(bad.any()):
        what = f"row {int(bad.nonzero()[0])} holds NaN or infinity"
        raise DataError(what, where=f"site {name!r}", remedy="Check the input and the model's weights.")
