"""The local replacement model of one input: dictionaries stand for the MLPs, all else is held as it was.

E. Ameisen et al., "Circuit tracing", 2025.

1. The model runs once and `Frozen` records attention patterns and the scales of norms.
2. What each MLP read is encoded. What it wrote is the sum of what features write, and an error that is kept as it is.
3. From then on the model runs with what MLPs wrote put in from outside, so that it is linear in features' activations,
   errors and the vectors of the tokens; a linear skip of a dictionary is part of what is linear, and stays live.

What is not linear between or after the MLPs all the same, such as a bound of the logits, is named in `not_linear`; the
graph then holds its gradient at this input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from elute.base.errors import DataError, GuardError, SiteError, near
from elute.dictionaries import ops
from elute.graphs.frozen import Frozen
from elute.graphs.layers import Coded, Coders, Layers, check_width
from elute.graphs.linearity import not_linear
from elute.graphs.outputs import Chosen, Outputs
from elute.graphs.positions import check_rows, kept_rows
from elute.models import sites as hooks

if TYPE_CHECKING:
    import polars as pl

    from elute.dictionaries.dictionary import Dictionary
    from elute.models.module import TorchModel

_SLACK = {torch.float64: 1e-8}  # of a code against its pre-activation, relative to the largest
_SAME = {torch.float64: 1e-9}  # of a replayed output


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward of the replacement model, with gradients."""

    x: list[Tensor]  # what each MLP read, [all rows, width]
    y: list[Tensor]  # what each MLP wrote: the leaves
    start: Tensor | None  # the tokens' vectors: a leaf
    values: Tensor  # the outputs that are explained
    every: Tensor  # all alternatives


@dataclass(eq=False)
class Replacement:
    """A model on one input, with dictionaries in the place of its MLPs."""

    model: TorchModel
    batch: Any
    layers: Layers
    coders: Coders
    tokens: str | None
    chosen: Chosen
    frozen: Frozen
    rows: Tensor  # of all rows of a site, those that are positions
    x: list[Tensor]  # what each MLP read, [positions, width]
    y: list[Tensor]  # what each MLP wrote, [all rows, width]
    start: Tensor | None  # the tokens' vectors, [all rows, width]
    codes: list[Coded]
    errors: list[Tensor]  # [positions, width] a layer
    values: Tensor  # the outputs that are explained
    not_linear: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls,
        model: TorchModel,
        batch: Any,
        dictionaries: Dictionary | Sequence[Dictionary],
        *,
        outputs: Outputs,
        tokens: str | None = None,
        layers: Layers | None = None,
    ) -> Self:
        """Run a model on one sample and put dictionaries in the place of its MLPs.

        `tokens` is the site that holds the vectors of the input: what stands before it is not explained, and without
        it nothing is traced back to the input.
        """
        layers = layers or Layers.of(model.sites)
        layers.check(model.sites)
        if tokens is not None and tokens not in model.sites:
            raise SiteError(f"there is no site {tokens!r}", where="tokens", remedy=near(tokens, model.sites))
        coders = Coders(layers, dictionaries)
        if coders.device != model.device:
            what = f"the dictionary is on {coders.device} and the model on {model.device}"
            raise GuardError(what, where="attribution", remedy="Move one of them.")
        frozen = Frozen()
        names = list(dict.fromkeys([*layers.reads, *layers.writes, *([tokens] if tokens else [])]))
        chosen_sites = {name: model.sites[name] for name in names}
        with frozen:
            run = hooks.capture(model.module, chosen_sites, lambda: model(batch), flat=True)
        given = run.tensors
        chosen = outputs.choose(outputs.read(run.output))
        check_rows(given)
        for layer, (width_in, width_out) in enumerate(coders.widths):
            check_width(layers.reads[layer], given[layers.reads[layer]], width_in)
            check_width(layers.writes[layer], given[layers.writes[layer]], width_out)
        n = len(given[names[0]])
        rows = kept_rows(model, batch, n)
        x = [given[name][rows] for name in layers.reads]
        codes = coders.encode(x)
        y = [given[name] for name in layers.writes]
        made = cls(
            model, batch, layers, coders, tokens, chosen, frozen, rows, x, y, given[tokens] if tokens else None,
            codes, [], chosen.values(run.output).detach(),
        )  # fmt: skip
        made.errors = [y[i][rows] - made.written(i) for i in range(len(layers))]
        made._check()
        return made

    @property
    def n_layers(self) -> int:
        """Layers with an MLP."""
        return len(self.layers)

    @property
    def n_positions(self) -> int:
        """Rows of a site that are no padding."""
        return len(self.rows)

    @property
    def dtype(self) -> torch.dtype:
        """The type that the model computes in."""
        return self.y[0].dtype

    def written(self, to: int) -> Tensor:
        """Return what features, biases and skips write into a layer, [positions, width]."""
        total = self.coders.bias(to).to(self.dtype).expand(self.n_positions, -1).clone()
        for layer, W in self.coders.skips(to):
            total += self.x[layer] @ W.to(self.dtype).T
        for layer in range(to + 1):
            if to in self.coders.written(layer):
                total += self.decoded(layer, to, self.codes[layer].val)
        return total

    def decoded(self, layer: int, to: int, val: Tensor) -> Tensor:
        """Return what a layer's features write into a layer with other activations, [positions, width]."""
        W = self.coders.decoder(layer, to).contiguous()
        into = W.new_zeros(len(val), W.shape[1])
        idx = self.codes[layer].idx.to(torch.int32).contiguous()
        ops.of(into).decode(idx, val.to(W.dtype).contiguous(), W, into=into)
        return into.to(self.dtype)

    def fed(self, layer: int, change: Tensor) -> Tensor:
        """Return what a change of what a layer read does to the activations of the features that fired in it."""
        coded = self.codes[layer]
        W, _ = self.coders.encoders(layer, coded.idx)
        return (change.to(W.dtype)[:, None, :] * W).sum(-1) * coded.fired

    def live(
        self,
        *,
        add: Mapping[int, Tensor] | None = None,
        start: Tensor | None = None,
        grad: bool = False,
        cascade: bool = False,
    ) -> Pass:
        """Run the replacement model; `add` [positions, width] changes what layers write, `start` the tokens.

        With `grad`, what MLPs write and the tokens' vectors are leaves, and the rest can be differentiated by them.
        With `cascade` features that fired follow what they read, linearly; else all of them stay as they are.
        """
        y = [x.clone().requires_grad_(grad) for x in self.y]
        begin = None if self.start is None else self.start.clone().requires_grad_(grad)
        given = list(y)
        for layer, change in (add or {}).items():
            given[layer] = y[layer].index_add(0, self.rows, change.to(self.dtype))
        head = begin
        if start is not None and begin is not None:
            head = begin.index_add(0, self.rows, start.to(self.dtype))
        seen: dict[int, Tensor] = {}
        edits = self._edits(seen, given, head, cascade=cascade)
        with self.frozen, torch.set_grad_enabled(grad):
            output = self._run(edits)
        x = [seen[layer] for layer in range(self.n_layers)]
        return Pass(x, y, begin, self.chosen.values(output), self.chosen.every(output))

    def true(self, *, add: Mapping[int, Tensor] | None = None, held: bool = False) -> Any:
        """Run the model itself, with something added to what its MLPs write [positions, width]; return its output.

        With `held` the MLPs write what they wrote before and that, and nothing but attention and norms follows.
        """
        edits = {}
        for layer, name in enumerate(self.layers.writes):
            change = (add or {}).get(layer)
            if held or change is not None:
                edits[name] = _adding(self.rows, change, self.y[layer] if held else None)
        with torch.no_grad():
            return self._run(edits)

    def _edits(
        self, seen: dict[int, Tensor], y: list[Tensor], start: Tensor | None, *, cascade: bool
    ) -> dict[str, Any]:
        edits: dict[str, Any] = {}
        if self.tokens is not None and start is not None:
            edits[self.tokens] = lambda _, __: start
        for layer in range(self.n_layers):
            edits[self.layers.reads[layer]] = _seeing(seen, layer, edits.get(self.layers.reads[layer]))
            edits[self.layers.writes[layer]] = self._putting(layer, seen, y, cascade=cascade)
        return edits

    def _putting(self, to: int, seen: dict[int, Tensor], y: list[Tensor], *, cascade: bool) -> Any:
        def put(_: Tensor, __: pl.DataFrame | None) -> Tensor:
            whole = y[to]
            for source, W in self.coders.skips(to):
                moved = (seen[source][self.rows] - self.x[source]) @ W.to(self.dtype).T
                whole = whole.index_add(0, self.rows, moved)
            for source in range(to + 1 if cascade else 0):
                if to in self.coders.written(source):
                    change = self.fed(source, seen[source][self.rows] - self.x[source])
                    whole = whole.index_add(0, self.rows, self.decoded(source, to, change))
            return whole

        return put

    def _run(self, edits: Mapping[str, Any]) -> Any:
        with _still(self.model.module):
            if not edits:
                return self.model(self.batch)
            patching = hooks.patch(self.model.module, dict(edits), sites=self.model.sites, marked=True)
            with patching as active, active.forward():
                return self.model(self.batch)

    def _check(self) -> None:
        """Refuse codes that are not what features read, and a model that does not repeat itself."""
        for layer, coded in enumerate(self.codes):
            W, b = self.coders.encoders(layer, coded.idx)
            pre = (self.x[layer].to(W.dtype)[:, None, :] * W).sum(-1) + b
            off = ((pre - coded.val).abs() * coded.fired).max() if coded.val.numel() else torch.zeros(())
            if float(off) > _SLACK.get(W.dtype, 1e-3) * (1 + float(coded.val.abs().max()) if coded.val.numel() else 1):
                what = f"an activation of layer {layer} is off its pre-activation by {float(off):.3g}"
                raise DataError(
                    what, where="attribution", remedy="Use a dictionary whose codes are its pre-activations."
                )
        with self.frozen.trace(self.model.module):
            run = self.live(grad=True)
        off = (run.values.detach() - self.values).abs().max() / (1 + self.values.abs().max())
        if not float(off) <= _SAME.get(self.dtype, 1e-3):
            what = f"the model does not repeat itself: an output is off by {float(off):.3g}"
            raise DataError(what, where="attribution", remedy="Switch off what is random in it.")
        if not run.values.requires_grad:
            remedy = "Read numbers that depend on the layers, before any softmax."
            raise DataError("nothing that is explained depends on the layers", where="outputs", remedy=remedy)
        self.not_linear = not_linear([*run.x, run.values], self.frozen.made)
        self.frozen.made = {}


@contextmanager
def _still(module: torch.nn.Module) -> Iterator[None]:
    """Keep weights out of the graph of gradients."""
    asked = [p for p in module.parameters() if p.requires_grad]
    for p in asked:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in asked:
            p.requires_grad_(True)


def _seeing(seen: dict[int, Tensor], layer: int, before: Callable[..., Tensor] | None) -> Any:
    def see(x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        seen[layer] = x if before is None else before(x, metadata)
        return seen[layer]

    return see


def _adding(rows: Tensor, change: Tensor | None, held: Tensor | None) -> Any:
    def add(x: Tensor, _: pl.DataFrame | None) -> Tensor:
        base = x if held is None else held
        return base if change is None else base.index_add(0, rows, change.to(base.dtype))

    return add
