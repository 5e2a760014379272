"""Normalisation that is folded into the weights, so that a saved dictionary takes and gives raw activations.

A site's normalisation is x' = (x − shift) M, undone by y = y' B + shift; M and B are diagonal, or hold the directions
of a PCA. With x' W'_enc + b'_enc in training:

    W_enc = M W'_enc     b_enc = b'_enc − shift W_enc     W_dec = W'_dec B     b_dec = b'_dec B + shift
    W_skip = M W'_skip B,  whose share of the shift is taken off b_dec

so pre-activations, and with them codes and thresholds, are unchanged. An activation with biases of its own beside
b_enc takes the shift off them itself (`Sparsity.shift`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec, Span, column_spans

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """One site's normalisation; M is [width] or [width, kept], B is [width] or [kept, width]."""

    shift: Tensor
    M: Tensor
    B: Tensor

    @property
    def width(self) -> int:
        """Columns after normalisation."""
        return self.M.shape[-1]

    def apply(self, x: Tensor) -> Tensor:
        """Normalise rows."""
        centred = x - self.shift
        return centred * self.M if self.M.ndim == 1 else centred @ self.M

    def to(self, device: torch.device) -> Affine:
        """Move to a device."""
        return Affine(self.shift.to(device), self.M.to(device), self.B.to(device))


Normalisation = Mapping[str, Affine]


def normalised(spec: DictionarySpec, by: Normalisation) -> DictionarySpec:
    """Return the description of a dictionary on normalised rows."""
    reads = {name: by[name].width for name in spec.reads}
    writes = {name: by[name].width for name in spec.writes}
    return spec.model_copy(update={"reads": reads, "writes": writes})


@torch.no_grad()
def fold(trained: Dictionary, spec: DictionarySpec, by: Normalisation) -> Dictionary:
    """Return the dictionary of raw rows that does what `trained` does on normalised ones."""
    folded = Dictionary(spec)
    shift_in = torch.cat([by[name].shift for name in spec.reads]).double()
    shift_out = torch.cat([by[name].shift for name in spec.writes]).double()
    b_dec = _by_site(trained.b_dec.double()[None], trained.spec.writes, by, side="B")[0] + shift_out
    if trained.W_skip is not None and folded.W_skip is not None:
        half = _by_site(trained.W_skip.double(), trained.spec.reads, by, side="M")  # [out', in]
        skip = _by_site(half.T.contiguous(), trained.spec.writes, by, side="B").T
        folded.W_skip.copy_(skip)
        b_dec -= skip @ shift_in
    folded.b_dec.copy_(b_dec)
    for raw, bank in zip(folded, trained, strict=True):
        W_enc = _by_site(bank.W_enc.double(), _within(trained.spec.reads, bank.span, "read"), by, side="M")
        raw.W_enc.copy_(W_enc)
        constant = W_enc @ shift_in[raw.span.read]
        raw.b_enc.copy_(bank.b_enc.double() - constant)
        raw.W_dec.copy_(_by_site(bank.W_dec.double(), _within(trained.spec.writes, bank.span, "write"), by, side="B"))
        for name in bank.extra:
            getattr(raw, name).copy_(getattr(bank, name))
        if trained.sparsity.shift is not None:
            trained.sparsity.shift(raw, constant)
    return folded.eval().requires_grad_(requires_grad=False)


def _within(sites: Mapping[str, int], span: Span, side: str) -> dict[str, int]:
    """The sites that lie in a bank's span."""
    whole = getattr(span, side)
    columns = column_spans(dict(sites))
    return {n: w for n, w in sites.items() if whole.start <= columns[n].start and columns[n].stop <= whole.stop}


def _by_site(rows: Tensor, sites: Mapping[str, int], by: Normalisation, *, side: str) -> Tensor:
    """Take rows over normalised columns to raw columns, a site at a time: × M^T for what reads, × B for what writes."""
    parts = []
    for name, span in column_spans(dict(sites)).items():
        matrix = getattr(by[name], side).double()
        part = rows[:, span]
        parts.append(part * matrix if matrix.ndim == 1 else part @ (matrix.T if side == "M" else matrix))
    return torch.cat(parts, dim=1)
