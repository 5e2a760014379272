"""A small vision transformer in plain PyTorch: what the demonstration trains, and what tests read.

    network = SmallViT(SmallViTConfig(image_size=64, patch=8, width=64))
    tokens = network(pixels)                        # [images, prefix + patches, width], normalised pixels in
    write_folder(folder, network)                   # config.json and model.safetensors
    network = load(folder)

Blocks add to the residual stream as ViTs do (Dosovitskiy et al., arXiv 2010.11929): attention and a feed-forward part,
each behind a layer norm. One learnt token goes before the patches (`prefix` = 1).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elute.base import files
from elute.base.errors import ConfigError, DamagedError, DataError
from elute.base.tensors import safetensors_header

MODEL_TYPE = "elute_vit"
SETTINGS, WEIGHTS = "config.json", "model.safetensors"
_REMEDY = f"A small ViT's folder holds {SETTINGS} and {WEIGHTS}."


@dataclass(frozen=True)
class SmallViTConfig:
    """What a small ViT is made of, and what its pixels are normalised by."""

    image_size: int = 64
    patch: int = 8
    width: int = 64
    n_layers: int = 4
    n_heads: int = 4
    hidden: int = 128  # width of the feed-forward parts
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of colours from 0 to 1
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        """Refuse what no network can be made of."""
        sizes = ("image_size", "patch", "width", "n_layers", "n_heads", "hidden")
        for name in sizes:
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)!r} is not a whole number above 0")
        if self.image_size % self.patch or self.width % self.n_heads:
            raise ConfigError(
                f"patches of {self.patch} do not tile {self.image_size} pixels, "
                f"or {self.n_heads} heads do not divide width {self.width}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch


class Attention(nn.Module):
    """Self-attention of all tokens of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens [n, tokens, width]."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, width))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Change each token by itself."""
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a feed-forward part, each added to what it read."""

    def __init__(self, config: SmallViTConfig) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(config.width), Attention(config.width, config.n_heads)
        self.norm2, self.mlp = nn.LayerNorm(config.width), FeedForward(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Add both parts."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class SmallViT(nn.Module):
    """Patches of an image, one token before them, and some blocks."""

    prefix = 1

    def __init__(self, config: SmallViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SmallViTConfig()
        self.image_size, self.patch = config.image_size, config.patch
        self.width, self.n_layers = config.width, config.n_layers
        self.embed = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, self.prefix + config.grid**2, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.trunc_normal_(self.cls, std=0.02)

    def forward(self, pixels: Tensor, shown: Tensor | None = None) -> Tensor:
        """Return all tokens, the one of the image first; `shown` [n, m] names the patches that are read, all if None.

        Patches are numbered row by row. What is not shown costs nothing: this is how masked training is cheap.
        """
        if tuple(pixels.shape[1:]) != (3, self.image_size, self.image_size):
            size = self.image_size
            raise DataError(f"pixels of shape {list(pixels.shape)} where [n, 3, {size}, {size}] is expected")
        x = self.embed(pixels).flatten(2).transpose(1, 2) + self.positions[:, self.prefix :]
        if shown is not None:
            x = x.gather(1, shown[:, :, None].expand(-1, -1, x.shape[2]))
        first = (self.cls + self.positions[:, : self.prefix]).expand(len(x), -1, -1)
        x = torch.cat([first, x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]


def write_folder(folder: Path, network: SmallViT) -> Path:
    """Write a network's folder: its weights, then its settings, by which a folder counts as whole."""
    from safetensors.torch import save

    files.make_folder(folder)
    data = save({name: t.detach().contiguous().cpu() for name, t in sorted(network.state_dict().items())})
    files.write_atomically(folder / WEIGHTS, lambda handle: handle.write(data))
    files.write_json(folder / SETTINGS, {"model_type": MODEL_TYPE, **asdict(network.config)})
    return folder


def load(folder: Path) -> SmallViT:
    """Read a network's folder, for evaluation alone."""
    from safetensors.torch import load_file

    folder = Path(folder)
    network = SmallViT(read_config(folder))
    safetensors_header(folder / WEIGHTS)
    held = load_file(folder / WEIGHTS)
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    if wrong := sorted(set(wanted) ^ set(held)) or [n for n in wanted if tuple(held[n].shape) != wanted[n]]:
        what = f"{wrong[0]} is missing, unknown or of another shape than {SETTINGS} says"
        raise DataError(what, where=folder / WEIGHTS, remedy="Check that both files are of one network.")
    network.load_state_dict(held)
    return network.requires_grad_(requires_grad=False).eval()


def read_config(folder: Path) -> SmallViTConfig:
    """Read the settings of a folder."""
    held: Any = files.read_json(folder / SETTINGS, what="a network's settings", remedy=_REMEDY)
    if not isinstance(held, dict) or held.get("model_type") != MODEL_TYPE:
        raise DataError(f"is not of model_type {MODEL_TYPE}", where=folder / SETTINGS, remedy=_REMEDY)
    names = {field.name for field in fields(SmallViTConfig)}
    if unknown := sorted(set(held) - names - {"model_type"}):
        raise DamagedError(f"has an unknown key {unknown[0]!r}", where=folder / SETTINGS, remedy=_REMEDY)
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in held.items() if key in names
    }
    for key in ("mean", "std"):
        if key in given and not _three(given[key]):
            raise DamagedError(f"{key} is not three numbers", where=folder / SETTINGS, remedy=_REMEDY)
    return SmallViTConfig(**given)


def _three(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(type(x) in (int, float) for x in value)
