"""How a dictionary begins where more than a draw is asked for: one matrix for both sides, or the least-squares map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from elute.base.errors import ConfigError
from elute.dictionaries.terms import check

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank
    from elute.dictionaries.dictionary import Dictionary
    from elute.dictionaries.terms import TermsConfig
    from elute.engine.settings import LearnConfig

_RIDGE = 1e-6  # of the mean variance that is read


@torch.no_grad()
def prepare(dictionary: Dictionary, config: TermsConfig, learn: LearnConfig, *, rows: dict[str, Tensor]) -> None:
    """Set first weights from a sample of normalised rows; the decoder's bias is set afterwards (begin.py)."""
    check(dictionary, config)
    if config.tied and (learn.control != "none" or dictionary.shards is not None):
        remedy = "Leave --tied out."
        raise ConfigError("one matrix for both sides goes with no control and no features spread out", remedy=remedy)
    spec = dictionary.spec
    x = torch.cat([rows[name] for name in spec.reads], dim=1)
    y = torch.cat([rows[name] for name in spec.writes], dim=1)
    if dictionary.W_skip is not None and config.init_method == "linear":
        dictionary.W_skip.copy_(least_squares(x, y).T)
    for bank in dictionary:
        length = bank.W_enc.norm(dim=1, keepdim=True)
        if config.init_method == "linear" and dictionary.W_skip is None:
            _as_mapped(bank, least_squares(x[:, bank.span.read], y[:, bank.span.write]))
        if config.init_method == "transpose" and bank.W_enc.shape == bank.W_dec.shape:
            bank.W_enc.copy_(bank.W_dec * length)
        elif config.init_method == "transpose":
            what = f"{bank.W_dec.shape[1]} columns are written and {bank.W_enc.shape[1]} read: they have no transpose"
            raise ConfigError(what, remedy="Choose another --init-method.")
        if config.tied:
            bank.W_enc = bank.W_dec  # the very same parameter: both gradients gather in it


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    """Return the map [read, written] that takes centred x nearest to centred y."""
    x, y = (part.double() - part.double().mean(0) for part in (x, y))
    gram = x.T @ x
    gram.diagonal().add_(_RIDGE * max(float(gram.diagonal().mean()), 1e-30))
    found: Tensor = torch.linalg.solve(gram, x.T @ y)
    return found.float()


def _as_mapped(bank: Bank, map_: Tensor) -> None:
    """Point each decoder row where the map takes its encoder row; one that it takes nowhere stays."""
    found = bank.W_enc @ map_
    length = found.norm(dim=1, keepdim=True)
    bank.W_dec.copy_(torch.where(length > 0, found / length.clamp(min=1e-30), bank.W_dec))
