"""What may be charged beside the squared error, each term behind a price that is 0 unless it is given.

With z the codes, ŷ the reconstruction, w_i the decoder's row of feature i, ȳ the mean of what is written, means over
rows, and everything in normalised units:

    l1              mean Σ_i |z_i| ‖w_i‖
    l2              mean over features of ‖w_i‖² + ‖encoder's row‖²
    group_lasso     tokens: mean ‖(z_i ‖w_i‖)_i‖, so that whole rows fall silent
                    heads: mean over features of Σ_h ‖w_i's columns of head h‖, so that a feature writes into few heads
    alignment       mean of 1 − cos(ŷ − ȳ, y − ȳ)
    energy          mean of (‖ŷ − ȳ‖ − ‖y − ȳ‖)² / spread: a reconstruction that has shrunk is charged for it
    orthogonality   mean squared cosine of two decoder rows

All are in units of the loss, the share of the spread that is left over. They go through autograd, which holds the
values of all features of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from elute.base.errors import ConfigError
from elute.base.recipe import Section
from elute.dictionaries.spec import column_spans

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary

_PRICES = ("l1", "l2", "group_lasso", "alignment", "energy", "orthogonality")


class TermsConfig(Section):
    """What is charged beside the squared error, and how a dictionary begins."""

    l1: float = Field(0.0, ge=0)
    """Price of the codes' magnitudes."""
    l2: float = Field(0.0, ge=0)
    """Price of the squared lengths of encoder and decoder rows."""
    group_lasso: float = Field(0.0, ge=0)
    """Price of groups: of whole tokens, or of the heads that a feature writes into."""
    group_by: Literal["tokens", "heads"] = "heads"
    """What a group is: all codes of a token, or a feature's decoder in the columns of one head."""
    heads: int = Field(8, ge=1)
    """Equal parts into which the written columns fall."""
    alignment: float = Field(0.0, ge=0)
    """Price of the angle between a reconstruction and its target, both less the mean."""
    orthogonality: float = Field(0.0, ge=0)
    """Price of the mean squared cosine of two decoder rows."""
    energy: float = Field(0.0, ge=0)
    """Price of a reconstruction whose length differs from its target's."""
    penalty_warmup: float = Field(0.0, ge=0, le=1)
    """Share of the run over which a given price of firing rises from nothing."""
    tied: bool = False
    """One matrix that encodes and decodes; source and target must be equally wide."""
    init_method: Literal["random", "transpose", "linear"] = "random"
    """First weights: drawn; the encoder as the decoder's transpose; or what the least-squares map makes of the encoder
    as the decoder, and that map itself as the linear skip where there is one."""

    @property
    def charges(self) -> bool:
        """Whether any term has a price."""
        return any(getattr(self, name) for name in _PRICES)


def check(dictionary: Dictionary, config: TermsConfig) -> None:
    """Refuse what these columns cannot have."""
    spec = dictionary.spec
    if config.tied:
        for bank in dictionary:
            if bank.W_enc.shape != bank.W_dec.shape:
                what = f"one matrix cannot read {bank.W_enc.shape[1]} columns and write {bank.W_dec.shape[1]}"
                raise ConfigError(what, remedy="Leave --tied out.")
    if config.group_lasso and config.group_by == "heads":
        for name, width in spec.writes.items():
            if width % config.heads:
                what = f"the {width} columns of {name!r} do not fall into {config.heads} heads"
                raise ConfigError(what, remedy="Change --heads, or group by tokens.")


def charge(
    dictionary: Dictionary,
    config: TermsConfig,
    *,
    values: list[Tensor],
    y: Tensor,
    y_hat: Tensor,
    mean: Tensor,
    spread: float,
    rows: int,
) -> Tensor:
    """Return what a part of a batch of so many rows is charged; parts add up."""
    share = len(y) / rows
    total = y.new_zeros(())
    lengths = [bank.W_dec.norm(dim=1) for bank in dictionary]
    sized = [value * length for value, length in zip(values, lengths, strict=True)]
    if config.l1:
        total = total + config.l1 * _sum([part.abs().sum() for part in sized]) / rows
    if config.group_lasso and config.group_by == "tokens":
        squares = _sum([part.square().sum(1) for part in sized])
        # The root of nothing has no slope: a row without codes has none to learn from.
        total = total + config.group_lasso * squares[squares > 0].sqrt().sum() / rows
    if config.alignment or config.energy:
        total = total + _beside_mean(config, y - mean, y_hat - mean, spread) / rows
    if config.l2:
        squares = _sum([bank.W_enc.square().sum() + bank.W_dec.square().sum() for bank in dictionary])
        total = total + share * config.l2 * squares / dictionary.n_features
    if config.group_lasso and config.group_by == "heads":
        total = total + share * config.group_lasso * _heads(dictionary, config.heads) / dictionary.n_features
    if config.orthogonality:
        total = total + share * config.orthogonality * _cosines(dictionary)
    return total


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _beside_mean(config: TermsConfig, y: Tensor, y_hat: Tensor, spread: float) -> Tensor:
    """Alignment and energy, summed over rows."""
    from torch.nn.functional import cosine_similarity

    aligned = (1 - cosine_similarity(y_hat, y, dim=1)).sum()
    apart = (y_hat.norm(dim=1) - y.norm(dim=1)).square().sum()
    total: Tensor = config.alignment * aligned + config.energy * apart / spread
    return total


def _heads(dictionary: Dictionary, heads: int) -> Tensor:
    """Sum over features and heads of the length of the decoder's part."""
    columns = column_spans(dictionary.spec.writes)
    parts = []
    for bank in dictionary:
        first = bank.span.write.start
        for span in columns.values():
            if span.start >= first:
                block = bank.W_dec[:, span.start - first : span.stop - first]
                parts.append(block.reshape(len(block), heads, -1).norm(dim=2).sum())
    return _sum(parts)


def _cosines(dictionary: Dictionary) -> Tensor:
    """Mean squared cosine of two decoder rows of one bank, over the pairs of all banks."""
    from torch.nn.functional import normalize

    found, pairs = [], 0
    for bank in dictionary:
        unit = normalize(bank.W_dec, dim=1)
        # Σ_ij cos² is the squared length of the Gram matrix, which is as large on either side.
        found.append((unit.T @ unit).square().sum() - unit.square().sum(1).square().sum())
        pairs += len(unit) * (len(unit) - 1)
    return _sum(found) / max(1, pairs)
