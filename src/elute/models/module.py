"""A user's own torch module as a model: its sites, its batches, and which positions are rows.

    net = TorchModel(module, {"hidden": "encoder.3", "mixed": Site("attention", select=0)})
    rows = net.capture(batch)["hidden"]

A text stands for the output of a submodule. There is no short form for an input, because a submodule may itself be
called "input": write Site("encoder.3", "input").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elute.base.contracts import Edit, Fingerprint, Rows, Site
from elute.base.errors import ConfigError, DataError, SiteError, near
from elute.models import fingerprint as fingerprints
from elute.models import sites as hooks
from elute.models.rows import describe


class TorchModel:
    """A frozen network with named sites. Every forward runs in evaluation mode and leaves the training flags be."""

    name: str
    sites: Mapping[str, Site]

    def __init__(
        self,
        module: nn.Module,
        sites: Mapping[str, Site | str],
        batches: Callable[..., Iterable[Any]] | None = None,
        *,
        name: str | None = None,
        keep: str | Callable[[Any], Tensor | None] | None = None,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        config: object = None,
    ) -> None:
        """Name the sites of a module.

        `batches(data)` yields batches, or pairs of a batch and its metadata (a polars frame or a mapping of columns);
        without it the data is iterated. `keep(batch)` gives a bool mask over the positions of a batch, True where one
        is a row; a text is the key of a batch that holds it. `forward(module, batch)` runs the module where the batch
        is neither its one argument, a tuple of positional ones nor a mapping of named ones. `config` is what tells
        this network from others of the same weights; see `fingerprint`.
        """
        if not isinstance(module, nn.Module):
            raise ConfigError(f"a {type(module).__name__} is not a torch module", remedy="Pass an nn.Module.")
        if not sites:
            raise ConfigError("no site is named", remedy='Name one, as in {"hidden": "encoder.3"}.')
        self.module = module
        self.name = name or type(module).__name__
        self.sites = {key: Site(site) if isinstance(site, str) else site for key, site in sites.items()}
        self.config = config
        for key, site in self.sites.items():
            hooks.resolve(module, site, key)
        self._batches, self._keep, self._forward = batches or iter, keep, forward or _call
        self._patches: list[tuple[hooks.Patch, bool]] = []
        self._counts: dict[Any, int] = {}

    @property
    def device(self) -> torch.device:
        """Where the module's first weight lies, to which batches are moved."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    def __call__(self, batch: Any) -> Any:
        """Run the network on a batch, with the patches in force; gradients are the caller's choice."""
        batch = _moved(batch, self.device)
        with hooks.evaluating(self.module), _one_kernel(), ExitStack() as stack:
            for active, has_keep in self._patches:
                stack.enter_context(active.forward(keep=None if has_keep else self.keep(batch)))
            output = self._forward(self.module, batch)
        for active, _ in self._patches:
            self._learn(active.widths)
        return output

    def capture(self, batch: Any, sites: Sequence[str] | None = None, *, grad: bool = False) -> Rows:
        """Return the rows [n, width] of each site, padding dropped; row i is metadata row i.

        With `grad` the rows stand in the graph: they can be differentiated, and later ones with respect to earlier.
        """
        if isinstance(sites, str):
            raise ConfigError(f"sites={sites!r} is one text", remedy=f"Write a list: [{sites!r}].")
        chosen = {name: self._site(name) for name in (self.sites if sites is None else sites)}
        batch = _moved(batch, self.device)
        rows = hooks.capture(
            self.module, chosen, lambda: self(batch), grad=grad, keep=self.keep(batch), flat=True
        ).tensors
        self._learn({name: x.shape[-1] for name, x in rows.items()})
        counts = {name: len(x) for name, x in rows.items()}
        if len(set(counts.values())) > 1:
            raise SiteError(
                "sites give different numbers of rows: " + ", ".join(f"{k!r} {n}" for k, n in counts.items()),
                where=self.name,
                remedy="Capture them apart: one row of metadata must stand for one row of each.",
            )
        return rows

    @contextmanager
    def patch(
        self, edits: Mapping[str, Edit], *, metadata: pl.DataFrame | None = None, batch: Any = None
    ) -> Iterator[None]:
        """Replace what sites give by `edit(x, metadata)` in every call of the model in the block.

        Padding is that of each batch called, or of `batch` where one is given. The metadata is that of one batch.
        """
        for name in edits:
            self._site(name)
        keep = None if batch is None else self.keep(batch)
        with hooks.patch(self.module, edits, sites=self.sites, keep=keep, metadata=metadata, marked=True) as active:
            entry = (active, keep is not None)
            self._patches.append(entry)
            try:
                yield
            finally:
                self._patches.remove(entry)

    def fingerprint(self) -> Fingerprint:
        """Read what the model is now; nothing is remembered from an earlier call."""
        return fingerprints.fingerprint(self.module, self.sites, name=self.name, config=self.config)

    def keep(self, batch: Any) -> Tensor | None:
        """Return a bool mask over the positions of a batch, True where one is a row; None where all are."""
        if self._keep is None:
            return None
        if isinstance(self._keep, str):
            if not isinstance(batch, Mapping) or self._keep not in batch:
                remedy = near(self._keep, map(str, batch)) if isinstance(batch, Mapping) else "Pass a function."
                raise DataError(f"the batch, {describe(batch)}, has no {self._keep!r}", where=self.name, remedy=remedy)
            mask = batch[self._keep]
        else:
            mask = self._keep(batch)
        if mask is None:
            return None
        if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.is_complex():
            what = f"keep gave {describe(mask)}, not a mask"
            raise DataError(what, where=self.name, remedy="Return bool, or integers of which 0 is padding.")
        return mask.bool()

    def batches(self, data: Any, **settings: Any) -> Iterator[tuple[Any, pl.DataFrame]]:
        """Yield each batch with one row of metadata a row of activations.

        A pair is a batch and its metadata if its second item is a frame or a mapping; every other tuple is a batch. A
        batch without metadata gets `sample_id`, the running number of its row. Rows are counted in the mask, or for
        each new shape of batch by one forward to the first site.
        """
        start = 0
        for item in self._batches(data, **settings):
            if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], (pl.DataFrame, Mapping)):
                batch, metadata = item[0], self._frame(item[1])
                mask = self.keep(batch)
                if mask is not None and metadata.height != int(mask.sum()):
                    raise DataError(
                        f"a batch has {metadata.height} rows of metadata but keeps {int(mask.sum())} positions",
                        where=self.name,
                        remedy="Give one row a kept position, in row-major order.",
                    )
            else:
                batch, n = item, self._count(item)
                metadata = pl.DataFrame({"sample_id": pl.int_range(start, start + n, eager=True)})
            start += metadata.height
            yield batch, metadata

    def _frame(self, columns: pl.DataFrame | Mapping[str, Any]) -> pl.DataFrame:
        if isinstance(columns, pl.DataFrame):
            return columns
        plain = {key: x.tolist() if isinstance(x, Tensor) else x for key, x in columns.items()}
        try:
            return pl.DataFrame(plain)
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            raise DataError(f"the metadata of a batch is no table: {error}", where=self.name) from None

    def _count(self, batch: Any) -> int:
        mask = self.keep(batch)
        if mask is not None:
            return int(mask.sum())
        shape = _shapes(batch)
        n = self._counts.get(shape)
        if n is None:
            (rows,) = self.capture(batch, [next(iter(self.sites))]).values()
            n = len(rows)
            if shape is not None:
                self._counts[shape] = n
        return n

    def _site(self, name: str) -> Site:
        if name not in self.sites:
            raise SiteError(f"there is no site {name!r}", where=self.name, remedy=near(name, self.sites))
        return self.sites[name]

    def _learn(self, widths: Mapping[str, int]) -> None:
        new = {name: replace(self.sites[name], width=w) for name, w in widths.items() if not self.sites[name].width}
        if new:
            self.sites = {**self.sites, **new}


MODEL = TorchModel


def example() -> tuple[TorchModel, Any]:
    """Return a small model and data for it, with which the contract is tested."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    for weight in net.parameters():
        weight.data.normal_(generator=generator)
    return TorchModel(net, {"hidden": "1", "into": Site("2", "input")}), [torch.randn(5, 4, generator=generator)] * 2


@contextmanager
def _one_kernel() -> Iterator[None]:
    """Run transformers by the same kernels with and without hooks, so that a patch alone makes a difference."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _call(module: nn.Module, batch: Any) -> Any:
    if isinstance(batch, (Tensor, PackedSequence)):
        return module(batch)
    if isinstance(batch, Mapping):
        return module(**batch)
    if isinstance(batch, (tuple, list)):
        return module(*batch)
    raise ConfigError(f"a batch is a {type(batch).__name__}", remedy="Pass forward=, which runs the module on one.")


def _moved(value: Any, device: torch.device) -> Any:
    to = getattr(value, "to", None)
    if callable(to):
        return to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(item, device) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(item, device) for item in value)
    return value


def _shapes(value: Any) -> Any:
    """Say what fixes the number of rows of a batch, or None where only a forward can tell."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if type(value) in (tuple, list) else ()
    shapes = tuple((key, _shapes(item)) for key, item in items)
    return shapes if shapes and all(shape is not None for _, shape in shapes) else None
