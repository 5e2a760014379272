"""What is explained: sparse codes, pooled to samples, read by a head.

    model.sae.latent → model.pool → model.head.0 → … → y

A head is one linear layer (closed form), or linear layers with ReLU between them. A Poisson or negative binomial head
is explained at η = log μ minus the offset, which is what its linear layer gives. `Explained.of` reads heads by what
they have: `weights` [G, K] and `bias` [G] on raw codes, a torch module of Linear, ReLU and Dropout, or layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from elute.analysis.relevance_rules import Dense
from elute.base.errors import ConfigError, DataError, near
from elute.base.mergeable import Floats, Integers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from elute.base.codes import Codes
    from elute.dictionaries.dictionary import Dictionary

Pool = Literal["none", "mean", "max", "attention"]
Forward = Callable[[Floats, Integers], Any]
GENE, LATENT, POOL = "y", "model.sae.latent", "model.pool"


@dataclass(frozen=True, eq=False)
class Encoder:
    """What makes codes of embeddings x: u = W (x − centre) + b, of which the strongest are kept as they are."""

    weight: Floats  # [K, D]
    bias: Floats  # [K]
    centre: Floats  # [D]
    encode: Callable[[Tensor], Codes] | None = None

    @staticmethod
    def of(dictionary: Dictionary) -> Encoder:
        """Take the encoder of a sparse autoencoder whose codes are pre-activations that were kept."""
        if dictionary.spec.kind != "sae" or dictionary.spec.activation in ("gated", "matching_pursuit"):
            what = f"codes of a {dictionary.spec.kind} with {dictionary.spec.activation} are not kept pre-activations"
            raise ConfigError(
                what, remedy="Use a sparse autoencoder with TopK, signed TopK, BatchTopK, ReLU or JumpReLU."
            )
        (bank,) = dictionary
        weight, bias = _float64(bank.W_enc, "W_enc"), _float64(bank.b_enc, "b_enc")
        return Encoder(weight, bias, np.zeros(weight.shape[1]), dictionary.encode)

    @staticmethod
    def topk(weight: Any, bias: Any, *, k: int, centre: Any = None, signed: bool = False) -> Encoder:
        """Keep the k largest pre-activations of a row: by magnitude with their sign, or those above zero."""
        from elute.base.codes import Codes

        w, b = _float64(weight, "weight"), _float64(bias, "bias")
        c = np.zeros(w.shape[1]) if centre is None else _float64(centre, "centre")

        def encode(x: Tensor) -> Codes:
            import torch

            u = torch.from_numpy((x.double().numpy() - c) @ w.T + b)
            return Codes.from_dense(u, k, by="magnitude" if signed else "positive")

        return Encoder(w, b, c, encode)

    def behind(self, scale: Any, shift: Any) -> Encoder:
        """Return the encoder of raw embeddings, where the dictionary reads x · scale + shift."""
        s, t = _float64(scale, "scale"), _float64(shift, "shift")
        return Encoder(self.weight * s, self.bias + self.weight @ (t - self.centre), np.zeros(self.weight.shape[1]))


@dataclass(frozen=True, eq=False)
class Explained:
    """Codes → pooling → head, as relevance goes back through it."""

    layers: tuple[Dense, ...]
    genes: tuple[str, ...]
    pool: Pool = "mean"
    encoder: Encoder | None = None
    forward: Forward | None = None  # the head's own, [n, K] → [n, genes]: what conservation is held against

    def __post_init__(self) -> None:
        if self.pool not in get_args(Pool):
            raise ConfigError(f"pool={self.pool!r}", remedy=near(str(self.pool), get_args(Pool)))
        for below, above in pairwise(self.layers):
            if above.weight.shape[1] != len(below.bias):
                reads, gives = above.weight.shape[1], len(below.bias)
                raise DataError(f"layer {above.path!r} reads {reads} numbers, {below.path!r} gives {gives}")
        if len(self.genes) != len(self.layers[-1].bias):
            raise DataError(f"{len(self.genes)} names for a head of {len(self.layers[-1].bias)} genes")
        if len(set(self.genes)) < len(self.genes):
            twice = next(name for i, name in enumerate(self.genes) if name in self.genes[:i])
            raise DataError(f"gene {twice!r} is named twice", remedy="Give each output of the head a name of its own.")
        if len(set(self.paths)) < len(self.paths):
            raise DataError(f"layers of one name: {', '.join(self.paths)}", remedy="Name each layer once.")
        if self.encoder is not None and len(self.encoder.bias) != self.n_codes:
            raise DataError(f"a dictionary of {len(self.encoder.bias)} codes, but a head that reads {self.n_codes}")

    @property
    def n_codes(self) -> int:
        """The codes that the head reads."""
        return int(self.layers[0].weight.shape[1])

    @property
    def linear(self) -> bool:
        """Whether the head is one linear layer."""
        return len(self.layers) == 1

    @property
    def paths(self) -> tuple[str, ...]:
        """The layers on which there can be conditions, besides y."""
        return (LATENT, POOL, *(layer.path for layer in self.layers[:-1]))

    def width(self, path: str) -> int:
        """How many units a layer has."""
        return next((len(layer.bias) for layer in self.layers[:-1] if layer.path == path), self.n_codes)

    def eta(self, pooled: Floats, genes: Integers) -> Floats:
        """Return what the head gives for pooled codes [n, K], by its own forward where it has one: [n, genes]."""
        if self.forward is not None:
            return np.asarray(self.forward(pooled, genes), dtype=np.float64)
        return self.run(pooled)[-1][:, genes]

    def run(self, pooled: Any) -> list[Floats]:
        """Return what each layer gives, before its ReLU."""
        given: list[Floats] = []
        a = pooled
        for layer in self.layers:
            given.append(layer.forward(a))
            a = np.maximum(given[-1], 0)
        return given

    def with_pool(self, pool: Pool) -> Explained:
        """Return the same head over another pooling."""
        return replace(self, pool=pool)

    @staticmethod
    def of(
        top: Any,
        *,
        genes: Sequence[str] | None = None,
        pool: Pool = "mean",
        encoder: Encoder | Dictionary | None = None,
        hidden: Sequence[str] | None = None,
    ) -> Explained:
        """Read a head; `hidden` gives its hidden layers other paths than model.head.0, model.head.1, …"""
        if isinstance(top, Explained):
            return top
        parts, forward, known = _layers(top)
        paths = tuple(hidden) if hidden is not None else tuple(f"model.head.{i}" for i in range(len(parts) - 1))
        if len(paths) != len(parts) - 1:
            raise ConfigError(f"{len(paths)} names for {len(parts) - 1} hidden layers")
        layers = [Dense(path, w, b) for path, (w, b) in zip((*paths, GENE), parts, strict=True)]
        names = genes if genes is not None else known
        if names is None:
            names = [str(i) for i in range(len(layers[-1].bias))]
        if encoder is not None and not isinstance(encoder, Encoder):
            encoder = Encoder.of(encoder)
        return Explained(tuple(layers), tuple(map(str, names)), pool, encoder, forward)


def _layers(top: Any) -> tuple[list[tuple[Floats, Floats]], Forward | None, Sequence[str] | None]:
    """Weights and biases of a head, its own forward, and the names that it knows."""
    if hasattr(top, "weights") and hasattr(top, "bias"):
        known = getattr(top, "genes", None)
        weight, bias = _float64(top.weights, "weights"), _float64(top.bias, "bias")
        return [_checked(weight, bias)], _own(top), None if callable(known) else known
    if hasattr(top, "named_modules"):
        return _of_module(top)
    if isinstance(top, list | tuple) and top and all(isinstance(part, list | tuple) for part in top):
        return [_checked(_float64(part[-2], "weight"), _float64(part[-1], "bias")) for part in top], None, None
    what = f"a {type(top).__name__} is no head that relevance goes through"
    raise DataError(what, remedy="Give one with weights and bias, a torch module of Linear and ReLU, or layers.")


def _of_module(module: nn.Module) -> tuple[list[tuple[Floats, Floats]], Forward, None]:
    from torch import nn

    leaves = [part for part in module.modules() if not list(part.children())]
    kinds = [part for part in leaves if not isinstance(part, nn.Dropout | nn.Identity)]
    for place, part in enumerate(kinds):
        if not isinstance(part, nn.ReLU if place % 2 else nn.Linear):
            what = f"a head with {type(part).__name__} at place {place} is not known to relevance"
            raise DataError(what, remedy="Heads are Linear, ReLU, Linear, ….")
    linear = [part for part in kinds if isinstance(part, nn.Linear)]
    if not linear or len(kinds) % 2 == 0:
        raise DataError("a head ends with a Linear layer", remedy="Heads are Linear, ReLU, Linear, ….")
    layers = []
    for part in linear:
        weight = _float64(part.weight, "weight")
        given = getattr(part, "bias", None)
        bias = np.zeros(len(weight)) if given is None else _float64(given, "bias")
        layers.append(_checked(weight, bias))
    return layers, _forward_of(module), None


def _forward_of(module: nn.Module) -> Forward:
    """The module's own forward on pooled codes, in float64, on a copy."""
    import copy

    import torch

    own = copy.deepcopy(module).double().cpu().eval()

    def forward(pooled: Floats, genes: Integers) -> Any:
        with torch.no_grad():
            return own(torch.from_numpy(np.ascontiguousarray(pooled))).numpy()[:, genes]

    return forward


def _own(head: Any) -> Forward | None:
    """A fitted head's own linear predictor, of some of its genes alone where it can be asked for them."""
    if not hasattr(head, "eta"):
        return None
    if callable(getattr(head, "genes", None)):
        return lambda pooled, genes: head.genes(genes).eta(pooled)
    return lambda pooled, genes: np.asarray(head.eta(pooled))[:, genes]


def _checked(weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
    if weight.ndim != 2 or bias.shape != (len(weight),):
        raise DataError(f"a layer's weight {weight.shape} and bias {bias.shape} must be [out, in] and [out]")
    return weight, bias


def _float64(values: Any, what: str) -> Floats:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise DataError(f"the {what} of a head or encoder holds NaN or infinity")
    return array
