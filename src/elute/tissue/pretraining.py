"""A small vision transformer learns tissue by itself: to guess what hidden patches are like, whatever the stain.

1. A batch of tiles is turned and mirrored, and each tile is stained anew: its optical densities are mixed by a random
   matrix near the identity, scaled and shifted.
2. Some patches are hidden; the network reads the others (He et al., arXiv 2111.06377). A decoder of one block, thrown
   away afterwards, sees what the network says of those and where the hidden ones lie.
3. It must tell of every patch, hidden ones above all, the textures of the tile *as it was stained* (texture.py). What
   the random stain did is of no use for that, so the network learns to look past it.
4. Adam with weight decay; the rate rises over the first tenth of the steps, then falls as a cosine to nothing.

    FOLDER/config.json, model.safetensors     what `elute.load_model("vit", network=FOLDER)` reads
    FOLDER/run.json                           settings, what was read, the loss

No label and no count is read. Half a minute of training keeps no checkpoints: a kill costs this stage anew, and the
same seed gives the same bytes on the same machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.models.vision.small import WEIGHTS, Block, SmallViT, SmallViTConfig, write_folder
from elute.tissue.pretrain_settings import PretrainConfig
from elute.tissue.texture import density, textures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STAGE = "pretrain"
_VISIBLE = 0.5  # weight of a patch that was shown; one that was hidden has 1 more
_MIX, _SCALE, _SHIFT = 0.12, 0.25, 0.03  # of the random stain
_BETAS, _DECAY = (0.9, 0.98), 0.02
_LAST = 50  # steps whose mean loss is told


def pretrain(
    pictures: NDArray[np.uint8], folder: Path, config: PretrainConfig | None = None, *, inputs: Mapping[str, str],
    anew: bool = False,
) -> Artifact:  # fmt: skip
    """Train a network on tiles [n, side, side, 3] and write its folder; `inputs` name the tiles by digests.

    What is there already, by these settings and of these tiles, is used as it is.
    """
    config, folder = config or PretrainConfig(), Path(folder)
    if not anew and (done := finished(folder, config, inputs)) is not None:
        return Artifact("model", folder, {**done, "reused": True})
    weights = folder / WEIGHTS
    files.make_folder(folder)
    with files.locked(folder, "training"):
        network, losses = train(pictures, config)
        write_folder(folder, network)
        summary = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "tiles": len(pictures),
            "steps": config.steps,
            "loss_before": round(losses[0], 4),
            "loss": round(sum(losses[-_LAST:]) / len(losses[-_LAST:]), 4),
            "weights": files.digest_file(weights),
        }
        run.record(folder, STAGE, config, inputs=inputs, summary=summary)
    return Artifact("model", folder, {**summary, "reused": False})


def finished(folder: Path, config: PretrainConfig, inputs: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a training by these settings and of these tiles gave, if its weights are still there."""
    done, weights = run.finished(folder, STAGE, config, inputs=inputs), folder / WEIGHTS
    if done is None or not weights.is_file() or files.digest_file(weights) != done["weights"]:
        return None
    console.say(f"{folder}: already trained with these settings, used as it is")
    return done


def train(pictures: NDArray[np.uint8], config: PretrainConfig) -> tuple[SmallViT, list[float]]:
    """Train a network on tiles [n, side, side, 3]; return it with the loss of every step."""
    tiles = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    told = textures(tiles, config.patch)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = begin(config, image_size=tiles.shape[2])
        decoder = Decoder(network.config, told.shape[-1])
    adam = _Adam([*network.parameters(), *decoder.parameters()])
    losses = []
    with console.progress("pretrain", config.steps, unit="steps") as bar:
        for step in range(config.steps):
            rows = torch.randint(len(tiles), (config.batch_size,), generator=generator)
            x, y = turned(tiles[rows].float() / 255, told[rows], generator)
            loss = _loss(network, decoder, restained(x, generator), y.flatten(1, 2), config, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step(config.lr * _rate(step, config.steps))
            losses.append(float(loss.detach()))
            bar.note = f"loss {losses[-1]:.3f}"
            bar.advance()
    return network.requires_grad_(requires_grad=False).eval(), losses


def begin(config: PretrainConfig, *, image_size: int) -> SmallViT:
    """Return the network before its training, drawn from torch's own state."""
    return SmallViT(
        SmallViTConfig(
            image_size, config.patch, config.width, n_layers=config.layers, n_heads=config.heads,
            hidden=2 * config.width,
        )
    )  # fmt: skip


class Decoder(nn.Module):
    """From the tokens of the patches that were shown to numbers about every patch."""

    def __init__(self, config: SmallViTConfig, numbers: int) -> None:
        super().__init__()
        self.enter, self.block = nn.Linear(config.width, config.width), Block(config)
        self.hidden = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, SmallViT.prefix + config.grid**2, config.width))
        self.norm, self.leave = nn.LayerNorm(config.width), nn.Linear(config.width, numbers)

    def forward(self, tokens: Tensor, shown: Tensor) -> Tensor:
        """Return [n, patches, numbers]."""
        x = self.enter(tokens)
        n, _, width = x.shape
        first, x = x[:, : SmallViT.prefix], x[:, SmallViT.prefix :]
        patches = self.positions.shape[1] - SmallViT.prefix
        x = self.hidden.expand(n, patches, width).scatter(1, shown[:, :, None].expand(-1, -1, width), x)
        x = self.block(torch.cat([first, x], 1) + self.positions)
        return self.leave(self.norm(x[:, SmallViT.prefix :]))  # type: ignore[no-any-return]


def turned(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror and transpose tiles [n, 3, side, side] and what is told of their patches [n, rows, columns, …] alike."""
    mirror, flip, swap = (torch.rand(3, generator=generator) < 0.5).tolist()
    if mirror:
        x, y = x.flip(3), y.flip(2)
    if flip:
        x, y = x.flip(2), y.flip(1)
    if swap:
        x, y = x.transpose(2, 3), y.transpose(1, 2)
    return x, y


def restained(x: Tensor, generator: torch.Generator) -> Tensor:
    """Stain each tile anew: colours from 0 to 1 in, and out."""
    n = len(x)
    dense = density(x).flatten(2)
    mix = torch.eye(3) + _MIX * torch.randn(n, 3, 3, generator=generator)
    scale = torch.exp(_SCALE * torch.randn(n, 1, 1, generator=generator))
    shift = _SHIFT * torch.randn(n, 3, 1, generator=generator)
    return torch.exp(-(mix * scale @ dense + shift).clamp(min=0)).view_as(x)


def _loss(
    network: SmallViT, decoder: Decoder, x: Tensor, y: Tensor, config: PretrainConfig, generator: torch.Generator
) -> Tensor:
    """Mean squared error of what is told of the patches, hidden ones weighing most."""
    n, patches, _ = y.shape
    kept = max(1, round(patches * (1 - config.mask_share)))
    shown = torch.rand(n, patches, generator=generator).argsort(1)[:, :kept]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (network.config.mean, network.config.std))
    guess = decoder(network((x - mean) / std, shown), shown)
    weight = torch.full((n, patches), 1 + _VISIBLE).scatter(1, shown, _VISIBLE)
    error: Tensor = ((guess - y).square().mean(-1) * weight).sum() / weight.sum()
    return error


class _Adam:
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), all parameters side by side in one row.

    So few parameters cost more to visit one by one than to move; and torch's own takes seconds to import.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.values = torch.cat([p.detach().flatten() for p in parameters])
        self.slopes, self.first, self.second = torch.zeros(3, len(self.values))
        self.steps, start = 0, 0
        for p in parameters:
            part = slice(start, start + p.numel())
            p.data, p.grad = self.values[part].view_as(p), self.slopes[part].view_as(p)
            start += p.numel()

    def step(self, rate: float) -> None:
        """Clip the gradient to length 1, move, and clear it."""
        self.steps += 1
        g = self.slopes.mul_(min(1.0, 1 / (float(self.slopes.norm()) + 1e-6)))
        self.first.lerp_(g, 1 - _BETAS[0])
        self.second.mul_(_BETAS[1]).addcmul_(g, g, value=1 - _BETAS[1])
        size = (self.second / (1 - _BETAS[1] ** self.steps)).sqrt_().add_(1e-8)
        self.values.mul_(1 - rate * _DECAY).addcdiv_(self.first, size, value=-rate / (1 - _BETAS[0] ** self.steps))
        self.slopes.zero_()


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
