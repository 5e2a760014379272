"""Capture and patch what any torch module computes at named sites: the only hooks in the house.

What a site gives is read as rows: the last axis is the width, every axis before it counts rows, row-major.
A `keep` mask over those leading axes drops padding, so that row i belongs to metadata row i.

- Hooks go when the call or the block ends, however it ends. They run in the order in which they were entered:
  an inner patch sees what an outer one made, and a capture inside a patch sees the patched value.
- An edit that returns its x unchanged leaves the forward's own tensor in place, so every later bit is the same.
  Out of reach: `nn.TransformerEncoderLayer` leaves its fused kernel, which rounds differently, as soon as it has
  a hook; compare under `torch.backends.mha.set_fastpath_enabled(False)`, which `TorchModel` always does.
- Every thread sees the hooks of a module. A forward in another thread than the one that entered is refused,
  since its rows would be mixed in silently: give each thread a copy. Gradient checkpointing, which runs a module
  again in the backward pass, is not supported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from elute.base.contracts import Edit, Site
from elute.base.errors import SiteError, near
from elute.models.rows import argument, describe, flatten, put, same_bits, take, unflatten

if TYPE_CHECKING:
    import polars as pl
    from torch.utils.hooks import RemovableHandle

See = Callable[[Tensor, str], Tensor | None]  # (what the site gives, where) -> what it shall give; None: leave it


class Captured(NamedTuple):
    """What the call returned, and one tensor a site."""

    output: Any
    tensors: dict[str, Tensor]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Hold every submodule in evaluation mode, then give each its own training flag back."""
    # Flags alone: `eval()` may be overridden to merge weights or to leave a part in training.
    flags = {part: part.training for part in module.modules()}
    try:
        for part in flags:
            part.training = False
        yield
    finally:
        for part, flag in flags.items():
            part.training = flag


def resolve(module: nn.Module, site: Site, name: str = "") -> nn.Module:
    """Return the submodule that a site names; a misspelt one is an error with the nearest names."""
    where = _where(name, site)
    if site.at not in ("input", "output"):
        raise SiteError(f"at={site.at!r} is neither 'input' nor 'output'", where=where)
    if site.width < 0 or (site.call is not None and site.call < 0):
        raise SiteError(f"width={site.width} and call={site.call} count from 0", where=where)
    if isinstance(module, torch.jit.RecursiveScriptModule):  # type: ignore[attr-defined]
        raise SiteError("a scripted module takes no hooks", where=where, remedy="Use the module it was made from.")
    parts: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
    if site.path in parts:
        return parts[site.path]
    head, _, tail = site.path.rpartition(".")
    if tail in ("input", "output") and head in parts:
        remedy = f"For the {tail} of {head!r}, write Site({head!r}, {tail!r})."
    else:
        remedy = near(site.path, [path for path in parts if path])
    raise SiteError(f"{type(module).__name__} has no submodule {site.path!r}", where=where, remedy=remedy)


def capture(
    module: nn.Module,
    sites: Mapping[str, Site],
    call: Callable[[], Any],
    *,
    grad: bool = False,
    keep: Tensor | None = None,
    flat: bool = False,
) -> Captured:
    """Run `call`, one forward, and return its result with a copy of what each site gave.

    Tensors keep their shape, or become rows where `flat` or a `keep` mask asks for it. Without `grad` there is no
    graph. With it, each tensor returned stands between the site and the rest of the forward, so that gradients
    can be taken of it, and with respect to it through that site; one that needed no gradient becomes a leaf.
    """
    if grad and torch.is_inference_mode_enabled():
        raise SiteError("gradients were asked for under torch.inference_mode", remedy="Leave it, or drop grad=True.")
    tensors: dict[str, Tensor] = {}
    rows = flat or keep is not None

    def see(name: str) -> See:
        def record(x: Tensor, where: str) -> Tensor | None:
            # A copy in both cases: a later in-place operation would change what was captured.
            got = (flatten(x, keep, where) if rows else x).clone()
            tensors[name] = got if grad and got.requires_grad else got.detach()
            return unflatten(x, keep, tensors[name].requires_grad_()) if grad else None

        return record

    taps = [_Tap(module, name, site, see(name)) for name, site in sites.items()]
    with ExitStack() as stack:
        for tap in taps:
            stack.callback(tap.hook().remove)
        stack.enter_context(torch.set_grad_enabled(grad))
        output = call()
    for tap in taps:
        tap.check()
    return Captured(output, tensors)


class Patch:
    """Edits in force on a module, and which forward they are in."""

    def __init__(self, keep: Tensor | None) -> None:
        self.taps: list[_Tap] = []
        self.keep = keep
        self.depth = 0

    @property
    def widths(self) -> dict[str, int]:
        """The width of each site that has run, by its name."""
        return {tap.name: tap.width for tap in self.taps if tap.width}

    @contextmanager
    def forward(self, *, keep: Tensor | None = None) -> Iterator[None]:
        """Mark one forward, for a caller that runs parts of the module and not the module itself."""
        outer, self.keep = self.keep, self.keep if keep is None else keep
        self.enter()
        try:
            yield
            self.check()
        finally:
            self.leave()
            self.keep = outer

    def enter(self) -> None:
        """Begin a forward; one inside another, as a recursive module has, is part of it."""
        self.depth += 1

    def check(self) -> None:
        """Refuse a forward in which a site did not run as declared."""
        if self.depth == 1:
            for tap in self.taps:
                tap.check()

    def leave(self) -> None:
        """End a forward, also one that failed."""
        self.depth = max(0, self.depth - 1)
        if self.depth == 0:
            for tap in self.taps:
                tap.ran = 0

    def close(self) -> None:
        """Refuse a block in which an edit was never made, or may not have been."""
        if self.depth:
            raise SiteError("a forward was interrupted in this block", remedy="Enter the patch again before the next.")
        for tap in self.taps:
            if not tap.ever:
                tap.check()


@contextmanager
def patch(
    module: nn.Module,
    edits: Mapping[str | Site, Edit] | Mapping[str, Edit] | Mapping[Site, Edit],
    *,
    sites: Mapping[str, Site] | None = None,
    keep: Tensor | None = None,
    metadata: pl.DataFrame | None = None,
    marked: bool = False,
) -> Iterator[Patch]:
    """Replace what sites give by `edit(x, metadata)` in every forward of the block.

    A key is a Site, a name in `sites`, or without `sites` the path of a submodule whose output is meant. An edit
    gets rows [n, width], all or those that `keep` keeps, and returns as many of the same dtype on the same
    device; x is its own to write into. A forward is one call of `module`; with `marked`, or for a caller that
    runs its parts, it is what stands inside `Patch.forward()`. A site that runs outside of any is an error.
    """
    active = Patch(keep)
    with ExitStack() as stack:
        for key, edit in edits.items():
            name, site = _named(key, sites)
            active.taps.append(_Tap(module, name, site, _editing(active, edit, metadata), patch=active))
        if not marked:
            stack.callback(module.register_forward_pre_hook(lambda *_: active.enter()).remove)
        for tap in active.taps:
            stack.callback(tap.hook().remove)
        if not marked:
            stack.callback(module.register_forward_hook(lambda *_: active.check()).remove)
            stack.callback(module.register_forward_hook(lambda *_: active.leave(), always_call=True).remove)
        yield active
        active.close()


def _editing(active: Patch, edit: Edit, metadata: pl.DataFrame | None) -> See:
    def see(x: Tensor, where: str) -> Tensor | None:
        plain = flatten(x, active.keep, where)
        rows = plain.clone()
        if metadata is not None and metadata.height != len(rows):
            remedy = "Pass the metadata of this batch, and a keep mask where it has padding."
            what = f"it gives {len(rows)} rows but the metadata has {metadata.height}"
            raise SiteError(what, where=where, remedy=remedy)
        try:
            new = edit(rows, metadata)
        except Exception as error:
            error.add_note(f"in the edit of {where}")
            raise
        if new is rows and same_bits(rows, plain):
            return None
        expected, got = describe(plain), describe(new)
        if got != expected or new.device != x.device:
            remedy = f"Return the same shape and dtype, on {x.device}."
            raise SiteError(f"the edit got {expected} and returned {got}", where=where, remedy=remedy)
        return unflatten(x, active.keep, new)

    return see


def _named(key: str | Site, sites: Mapping[str, Site] | None) -> tuple[str, Site]:
    if isinstance(key, Site):
        return "", key
    if sites is None:
        return key, Site(key)
    if key not in sites:
        raise SiteError(f"there is no site {key!r}", remedy=near(key, sites))
    return key, sites[key]


class _Tap:
    """One site while it is hooked: how often it ran, and what is done with what it gives."""

    def __init__(self, module: nn.Module, name: str, site: Site, see: See, *, patch: Patch | None = None) -> None:
        self.part = resolve(module, site, name)
        self.name, self.site, self.see, self.patch = name, site, see, patch
        self.where = _where(name, site)
        self.width = site.width
        self.ran = 0
        self.ever = False
        self.thread = threading.get_ident()

    def hook(self) -> RemovableHandle:
        if self.site.at == "input":
            return self.part.register_forward_pre_hook(self.before, with_kwargs=True)
        return self.part.register_forward_hook(self.after)

    def before(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        if not self.turn():
            return None
        held, key = argument(args, kwargs, self.site.select, where=self.where)
        new = self.act(held, key)
        if new is None:
            return None
        return (new, kwargs) if held is args else (args, new)

    def after(self, _: nn.Module, __: Any, output: Any) -> Any:
        return self.act(output, self.site.select) if self.turn() else None

    def turn(self) -> bool:
        if threading.get_ident() != self.thread:
            raise SiteError("the network ran in another thread", where=self.where, remedy="Give each thread a copy.")
        if self.patch is not None and self.patch.depth == 0:
            remedy = "Call the patched model or module itself, or mark the forward with Patch.forward()."
            raise SiteError("it ran outside of a forward of what is patched", where=self.where, remedy=remedy)
        self.ran += 1
        self.ever = True
        return self.ran - 1 == (self.site.call or 0)

    def act(self, held: Any, key: int | str | None) -> Any:
        x = take(held, key, self.where)
        if self.width and x.shape[-1] != self.width:
            what = f"its width is {x.shape[-1]}, not {self.width} as declared or seen before"
            raise SiteError(what, where=self.where)
        self.width = x.shape[-1]
        new = self.see(x, self.where)
        return None if new is None else put(held, key, new)

    def check(self) -> None:
        call, times = self.site.call, "once" if self.ran == 1 else f"{self.ran} times"
        if self.ran == 0:
            remedy = "One that is compiled, scripted, skipped, or read by its parent for its weights gives nothing."
            raise SiteError("it never ran in this forward", where=self.where, remedy=remedy)
        if call is None and self.ran > 1:
            remedy = f"Declare which is meant, call=0 to call={self.ran - 1}, or mark each forward of its own."
            raise SiteError(f"it ran {times} in one forward", where=self.where, remedy=remedy)
        if call is not None and call >= self.ran:
            raise SiteError(f"it ran {times} in this forward, so there is no call={call}", where=self.where)


def _where(name: str, site: Site) -> str:
    place = f"the {site.at} of {site.path!r}" if site.path else f"the {site.at} of the network"
    return place if name in ("", site.path) else f"site {name!r}, {place}"
