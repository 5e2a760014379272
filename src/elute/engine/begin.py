"""What a training begins with: the description checked against the store, the first weights, features shared out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from elute.base.errors import ConfigError, DataError
from elute.base.recipe import first_fault
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec, choose_sites
from elute.engine.normalise import geometric_median

if TYPE_CHECKING:
    from torch import Tensor

    from elute.engine.given import Given
    from elute.engine.parallel import Ranks
    from elute.engine.settings import DictionaryConfig, LearnConfig


def describe(given: Given, config: DictionaryConfig, *, control: str) -> DictionarySpec:
    """Return the dictionary's description, checked against the rows."""
    if given.rows < 2:
        raise DataError(f"{given.rows} row is too few to train on", where=given.place)
    try:
        return _described(given, config, control=control)
    except ValidationError as error:
        raise ConfigError(first_fault(error)[1], remedy="Change the dictionary's settings.") from None


def _described(given: Given, config: DictionaryConfig, *, control: str) -> DictionarySpec:
    sites = choose_sites(config.kind, dict(given.sites), reads=config.reads, writes=config.writes)
    n = config.n_features or 8 * max(span.widths[0] for span in sites.spans)
    nested = tuple(n >> i for i in range(config.nested - 1, -1, -1)) if config.nested else ()
    source: dict[str, Any] = {**given.source, "control": control}
    values = {
        **sites.model_dump(), "n_features": n, "activation": config.activation, "k": config.k, "nested": nested,
        "skip": config.skip, "settings": config.numbers or {}, "source": source,
    }  # fmt: skip
    spec = DictionarySpec.model_validate(values)
    with torch.device("meta"):
        Dictionary(spec)  # says what is wrong with the activation and its settings, at no cost
    return spec


def begin(spec: DictionarySpec, learn: LearnConfig, *, seed: int) -> Dictionary:
    """Return a dictionary with its first weights: directions of length 1, the encoder their transpose if tied."""
    dictionary = Dictionary(spec)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bank in dictionary:
            bank.W_dec.normal_(generator=drawn)
            bank.W_dec.div_(bank.W_dec.norm(dim=1, keepdim=True))
            if (learn.tied and spec.mirrored) or dictionary.sparsity.tied:
                bank.W_enc.copy_(bank.W_dec)
            else:
                bank.W_enc.normal_(generator=drawn)
                bank.W_enc.div_(bank.W_enc.norm(dim=1, keepdim=True))
            if not dictionary.sparsity.tied:
                bank.W_enc.mul_(learn.encoder_scale)
    return dictionary


@torch.no_grad()
def centre(dictionary: Dictionary, rows: dict[str, Tensor], learn: LearnConfig) -> tuple[Tensor, float]:
    """Set the decoder's bias and what undoes it before the encoder; return mean and spread of what is written."""
    spec = dictionary.spec
    x = torch.cat([rows[name] for name in spec.reads], dim=1)
    y = torch.cat([rows[name] for name in spec.writes], dim=1)
    if learn.start != "zero" and not dictionary.sparsity.tied:
        middle_of = geometric_median if learn.start == "median" else (lambda z: z.mean(0))
        dictionary.b_dec.copy_(middle_of(y))
        middle = dictionary.b_dec if spec.same else middle_of(x)
        for bank in dictionary:
            bank.b_enc.copy_(-bank.W_enc @ middle[bank.span.read])
    mean = y.double().mean(0)
    spread = float((y.double() - mean).square().sum(1).mean())
    if not spread > 0:
        raise DataError("what is written does not vary: there is nothing to learn", remedy="Choose another site.")
    return mean.float(), spread


@torch.no_grad()
def share_features(dictionary: Dictionary, ranks: Ranks, *, most: int) -> None:
    """Keep this rank's features alone, of which up to `most` fire in a row."""
    spec = dictionary.spec
    if spec.kind == "clt" or spec.activation not in ("topk", "signed-topk") or spec.nested:
        remedy = "Spread the rows instead: leave --shard-features out."
        raise ConfigError(
            "features are spread over processes for topk and signed-topk with one bank, not nested", remedy=remedy
        )
    if spec.n_features % ranks.world or spec.n_features // ranks.world < most:
        what = f"{spec.n_features} features do not fall into {ranks.world} equal parts of {most} or more"
        raise ConfigError(what, remedy="Change --n-features, or the number of processes.")
    mine = ranks.share(spec.n_features)
    for bank in dictionary:
        for name, p in list(bank.named_parameters()):
            setattr(bank, name, torch.nn.Parameter(p[mine].clone()))
    dictionary.shards = ranks


@torch.no_grad()
def join_features(part: Dictionary, spec: DictionarySpec, ranks: Ranks) -> Dictionary:
    """Put the features of all ranks into one dictionary again."""
    whole = Dictionary(spec)
    whole.b_dec.copy_(part.b_dec.cpu())
    if whole.W_skip is not None and part.W_skip is not None:
        whole.W_skip.copy_(part.W_skip.cpu())
    for target, bank in zip(whole, part, strict=True):
        for name, p in target.named_parameters():
            p.copy_(ranks.gather(getattr(bank, name).data).cpu())
    return whole
