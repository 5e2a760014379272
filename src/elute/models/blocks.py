"""Sites of a network of repeated blocks, found by how it is laid out.

1. The blocks are the one outermost list of modules of one class, by preference one with a usual name.
2. Every block has `hook_resid_pre`, what it reads, and `hook_resid_post`, what it gives.
3. Where a block's attention and feed-forward part are of a known layout, there are `hook_attn_out` and `hook_mlp_out`,
   what their last linear map gives (before any scale, norm or sum), and `hook_mlp_in`, what the first one reads.
4. With something to run the network on, each kind is tried on the first block: whether a tensor or a tuple comes out,
   whether it is called by position or by name. A part that never runs is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from elute.base.contracts import Site
from elute.base.errors import ConfigError, SiteError, near
from elute.models.sites import capture, evaluating

_NAMES = ("layer", "layers", "h", "block", "blocks")
_ATTENTION = (
    *("attention.output.dense", "attention.o_proj", "attention.out_proj", "attention.out_lin", "attention.dense"),
    *("self_attn.o_proj", "self_attn.out_proj", "self_attn.dense", "attn.c_proj", "attn.Wo", "attn.out_proj"),
    *("attn.proj", "self_attention.dense", "layer.0.SelfAttention.o"),
)
_FEED_FORWARD = (
    ("intermediate.dense", "output.dense"),
    ("mlp.fc1", "mlp.fc2"),
    ("mlp.up_proj", "mlp.down_proj"),
    ("mlp.c_fc", "mlp.c_proj"),
    ("mlp.Wi", "mlp.Wo"),
    ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ("ffn.lin1", "ffn.lin2"),
    ("feed_forward.intermediate_dense", "feed_forward.output_dense"),
    ("layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo"),
    ("fc1", "fc2"),
)


def find_blocks(module: nn.Module, path: str | None = None) -> str:
    """Return where the list of blocks is; `path` says which where there are several."""
    lists: dict[str, nn.Module] = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, (nn.ModuleList, nn.Sequential)) and len({type(x) for x in part.children()}) == 1
    }
    if path is not None:
        if path not in lists:
            raise SiteError(f"there is no list of blocks {path!r}", remedy=near(path, lists))
        return path
    outer: list[str] = [
        name for name in lists if not any(name.startswith(f"{other}.") for other in lists if other != name)
    ]
    usual = [name for name in outer if name.rpartition(".")[2] in _NAMES]
    found = usual or [name for name in outer if isinstance(lists[name], nn.ModuleList)]
    if len(found) != 1:
        what = f"there are several lists of blocks: {', '.join(found)}" if found else "there is no list of blocks"
        remedy = f"Give blocks={found[0]!r}." if found else 'Name the sites: sites={"hidden": "encoder.3"}.'
        raise ConfigError(what, where=type(module).__name__, remedy=remedy)
    return found[0]


def find_sites(
    module: nn.Module, *, blocks: str | None = None, run: Callable[[], Any] | None = None
) -> dict[str, Site]:
    """Return the sites of every block; `run` runs the network once on whatever it reads."""
    path = find_blocks(module, blocks)
    parts: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
    depth = sum(1 for name in parts if name.rpartition(".")[0] == path)
    drafts = [_of_block(parts, f"{path}.{i}") for i in range(depth)]
    known = {kind: site for draft in reversed(drafts) for kind, site in draft.items()}
    if run is not None:
        tried = {kind: _tried(module, site, run) for kind, site in known.items()}
        for kind in ("resid_pre", "resid_post"):
            if tried[kind] is None:
                what = f"what a block {'reads' if kind == 'resid_pre' else 'gives'} is no tensor that can be named"
                remedy = 'Name the sites, as in sites={"hidden": Site("encoder.3", select="x")}, and give blocks=None.'
                raise SiteError(what, where=known[kind].path, remedy=remedy)
    else:
        tried = {**known}
    found: dict[str, Site] = {}
    for i, draft in enumerate(drafts):
        for kind, site in draft.items():
            like = tried[kind]
            if like is not None:
                found[f"blocks.{i}.hook_{kind}"] = replace(like, path=site.path)
    return found


def _of_block(parts: dict[str, nn.Module], block: str) -> dict[str, Site]:
    """The kinds of sites of a block, in the order in which they run."""
    found = {"resid_pre": Site(block, "input", select=0)}
    attention = next((f"{block}.{name}" for name in _ATTENTION if f"{block}.{name}" in parts), None)
    if attention:
        found["attn_out"] = Site(attention)
    for first, last in _FEED_FORWARD:
        if f"{block}.{first}" in parts and f"{block}.{last}" in parts:
            found["mlp_in"] = Site(f"{block}.{first}", "input")
            found["mlp_out"] = Site(f"{block}.{last}")
            break
    found["resid_post"] = Site(block)
    return found


def _tried(module: nn.Module, site: Site, run: Callable[[], Any]) -> Site | None:
    """Return a site as it must be declared, with its width; nothing where no declaration gives a tensor."""
    selects: tuple[int | str | None, ...] = (None, 0) if site.at == "output" else (0, "hidden_states", None)
    for select in selects:
        asked = replace(site, select=select)
        try:
            with evaluating(module):
                held = capture(module, {"tried": asked}, run).tensors["tried"]
        except SiteError:
            continue
        return replace(asked, width=held.shape[-1])
    return None
