"""How the tokens of a vision network lie: so many before the patches, then the patches row by row.

The network is run once on a black picture. What its blocks give says how many tokens there are; the size of a patch
says how many of them are patches; what is left stands before them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elute.base.contracts import Site
from elute.base.errors import ConfigError, SiteError
from elute.models.blocks import find_blocks, find_sites
from elute.models.sites import capture, evaluating

_LAST_NORMS = ("norm", "layernorm", "ln_post", "post_layernorm", "encoder.norm", "encoder.layer_norm", "ln_f")
_USUAL = (0, 1, 5)  # no token before the patches, a class token, one and four registers


@dataclass(frozen=True)
class Layout:
    """The sites of a network, and how tokens lie at them; no grid where none of them gives tokens of patches."""

    sites: Mapping[str, Site]
    grid: tuple[int, int] | None
    prefix: int
    tokens: int
    last: str
    """The site that is read where none is named: what the last block gives."""


def lay_out(
    module: nn.Module,
    run: Callable[[], Any],
    size: int,
    *,
    blocks: str | None = None,
    prefix: int | None = None,
    sites: Mapping[str, Site | str] | None = None,
) -> Layout:
    """Find a network's sites and grid; `run` runs it once on one picture of that size."""
    own = {name: Site(site) if isinstance(site, str) else site for name, site in (sites or {}).items()}
    found = _found(module, run, blocks=blocks, needed=not own)
    last = [name for name in found if name.endswith("hook_resid_post")]
    name = last[-1] if last else next(iter({**own, **found}))
    shapes = _shapes(module, {**found, **own}, run)
    shape = shapes[name]
    if len(shape) == 2:
        return Layout({**found, **own}, None, 0, 1, name)
    if len(shape) != 3:
        what = f"it gives an array of shape {list(shape)}, not tokens [pictures, tokens, width]"
        remedy = 'Name a site that gives [pictures, width], as in sites={"embedding": "pool"}, and read a row a tile.'
        raise SiteError(what, where=f"{type(module).__name__}, {name}", remedy=remedy)
    tokens = shape[1]
    grid, before = _grid(module, tokens, size, prefix)
    kept = {key: site for key, site in found.items() if key == name or shapes[key][:2] == shape[:2]}
    return Layout({**kept, **own}, grid, before, tokens, name)


def _found(module: nn.Module, run: Callable[[], Any], *, blocks: str | None, needed: bool) -> dict[str, Site]:
    try:
        find_blocks(module, blocks)
    except ConfigError as error:
        if not needed:
            return {}
        with torch.no_grad(), evaluating(module):
            output = run()
        if isinstance(output, Tensor) and output.dim() in (2, 3):
            return {"output": Site("", width=output.shape[-1])}
        raise ConfigError(error.what, where=error.where, remedy=error.remedy) from None
    found = find_sites(module, blocks=blocks, run=run)
    parts = dict(module.named_modules())
    for path in _LAST_NORMS:
        if path in parts and _runs(module, Site(path), run):
            return {**found, "final_norm": Site(path)}
    return found


def _runs(module: nn.Module, site: Site, run: Callable[[], Any]) -> bool:
    try:
        with evaluating(module):
            capture(module, {"tried": site}, run)
    except SiteError:
        return False
    return True


def _shapes(module: nn.Module, sites: Mapping[str, Site], run: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    with evaluating(module):
        return {name: tuple(x.shape) for name, x in capture(module, sites, run).tensors.items()}


def _grid(module: nn.Module, tokens: int, size: int, prefix: int | None) -> tuple[tuple[int, int] | None, int]:
    """Rows and columns of patches, and how many tokens stand before them."""
    patch = patch_size(module)
    if patch is not None:
        side = size // patch
        before = tokens - side * side
        if prefix is not None and prefix != before:
            what = (
                f"{tokens} tokens are {side} × {side} patches of {patch} pixels and {before} before them, not {prefix}"
            )
            raise ConfigError(what, where=type(module).__name__, remedy="Leave prefix out.")
        # A network whose blocks shrink the grid, as a pyramid does, has fewer tokens than patches.
        return (None, 0) if before < 0 else ((side, side), before)
    for before in _USUAL if prefix is None else (prefix,):
        side = math.isqrt(max(0, tokens - before))
        if side > 0 and side * side == tokens - before:
            return (side, side), before
    if prefix is not None:
        what = f"{tokens} tokens less {prefix} are no square of patches"
        raise ConfigError(what, where=type(module).__name__, remedy="Give another prefix, or leave it out.")
    return None, 0


def patch_size(module: nn.Module) -> int | None:
    """Pixels of a patch's side, where the network says them, or its first convolution does."""
    holders = (module, getattr(module, "config", None), getattr(module, "patch_embed", None))
    for said in (getattr(holder, name, None) for holder in holders for name in ("patch_size", "patch")):
        side = said[0] if isinstance(said, (tuple, list)) and said else said
        if isinstance(side, int) and side > 0 and not isinstance(side, bool):
            return side
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is not None and tuple(first.kernel_size) == tuple(first.stride) and first.kernel_size[0] > 1:
        return int(first.kernel_size[0])
    return None
