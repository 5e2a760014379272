"""What a patch of tissue looks like in a few numbers that keep their meaning from one stain to the next.

1. Two pictures of a tile: its optical density, averaged over colours, and red less green, where nuclei differ from the
   rest. Optical density is what dyes add up in (Beer and Lambert).
2. Of each, smoothed by Gaussians of growing width, per patch: the mean; the logarithm of the energy between two
   neighbouring widths (a dye of twice the strength adds a constant to it); and what stands out dark at the widest.
3. Of the density, how much one direction prevails: the coherence of the structure tensor (Bigün & Granlund, 1987).
4. Each number once for the patch and once for the patch with its neighbours.

None depends on which way up a tile lies. They are what masked patches are guessed in (pretraining.py), as MaskFeat
does with histograms of gradients (Wei et al., arXiv 2112.09133): pixels of a hidden patch cannot be guessed, what it
is like can.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

_WIDTHS = (0.8, 1.6, 3.2)  # of the Gaussians, in pixels
_DARKEST = 1 / 255
_AT_ONCE = 256


def density(pixels: Tensor) -> Tensor:
    """Return optical densities of colours from 0 to 1."""
    return -torch.log(pixels.clamp(_DARKEST, 1))


def textures(pictures: Tensor, patch: int) -> Tensor:
    """Describe the patches of tiles uint8 [n, 3, side, side]: [n, rows, columns, numbers].

    Each number has mean 0 and spread 1 over all patches.
    """
    parts = [_of(density(pictures[i : i + _AT_ONCE].float() / 255), patch) for i in range(0, len(pictures), _AT_ONCE)]
    found = torch.cat(parts)
    mean, spread = found.mean((0, 2, 3), keepdim=True), found.std((0, 2, 3), keepdim=True)
    return ((found - mean) / spread.clamp(min=1e-6)).permute(0, 2, 3, 1).contiguous()


def _of(dense: Tensor, patch: int) -> Tensor:
    numbers = []
    for picture in (dense.mean(1, keepdim=True), dense[:, :1] - dense[:, 1:2]):
        smooth = [picture, *(_smoothed(picture, width) for width in _WIDTHS)]
        bands = [fine - coarse for fine, coarse in pairwise(smooth)]
        numbers.append(functional.avg_pool2d(picture, patch))
        numbers += [0.5 * torch.log(functional.avg_pool2d(band * band, patch) + 1e-5) for band in bands]
        numbers.append(functional.avg_pool2d(bands[-1].clamp(min=0), patch))
    numbers.append(_coherence(dense.mean(1, keepdim=True), patch))
    own = torch.cat(numbers, 1)
    return torch.cat([own, functional.avg_pool2d(own, 3, 1, 1, count_include_pad=False)], 1)


def _smoothed(picture: Tensor, width: float) -> Tensor:
    """Smooth by a Gaussian that is cut at three widths; beyond the edge lies the mirrored picture."""
    side = picture.shape[-1]
    reach = int(3 * width + 0.5)
    away = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-(away.float() ** 2) / (2 * width**2))
    from_ = (torch.arange(side)[:, None] + away).abs()
    from_ = torch.where(from_ < side, from_, 2 * (side - 1) - from_)
    # As a matrix: for pictures of a tile's size that is many times faster than a convolution of one channel.
    band = torch.zeros(side, side).scatter_add_(1, from_, (kernel / kernel.sum()).expand(side, -1))
    return band @ picture @ band.T


def _coherence(picture: Tensor, patch: int) -> Tensor:
    smooth = functional.pad(_smoothed(picture, 1.0), (1,) * 4, mode="replicate")
    across = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    down = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    xx, yy, xy = (functional.avg_pool2d(product, patch) for product in (across * across, down * down, across * down))
    return torch.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + 1e-4)
