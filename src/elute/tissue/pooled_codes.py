"""The codes of each sample as one row: the mean or the largest over its tokens, or a mean whose weights are learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elute.base.errors import DataError
from elute.tissue.sampling_rows import sample_codes

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.dictionaries.dictionary import Dictionary
    from elute.heads.attention import AttentionPool, TokenCodes
    from elute.heads.crossval import Prepare
    from elute.store.reader import Store
    from elute.tissue.fit_setting import Setting
    from elute.tissue.plan import Plan

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Features:
    """What heads are fitted on: pooled codes, or what makes them from the rows that it may learn from."""

    x: Any = None
    prepare: Prepare | None = None
    attention: Attention | None = None

    def final(self) -> Any:
        """Return the pooled codes of all samples, as the final head has them."""
        return self.x if self.attention is None else self.attention.whole()[1]


class Attention:
    """Gates that are learnt on the rows they are told; those of all rows are kept."""

    def __init__(self, tokens: TokenCodes, rows: pl.DataFrame, *, plan: Plan, setting: Setting) -> None:
        self.tokens, self.rows, self.plan, self.setting = tokens, rows, plan, setting
        self._whole: tuple[AttentionPool, Any] | None = None

    def prepare(self, rows: Array) -> Any:
        """Return the codes of all samples, pooled by gates that were learnt on some of them."""
        if len(rows) == self.tokens.n_samples:
            return self.whole()[1]
        return self._learn(rows)[1]

    def whole(self) -> tuple[AttentionPool, Any]:
        """Return the gates that were learnt on all rows, and what they pool."""
        import numpy as np

        if self._whole is None:
            self._whole = self._learn(np.arange(self.tokens.n_samples))
        return self._whole

    def _learn(self, rows: Array) -> tuple[AttentionPool, Any]:
        from elute.heads.attention import fit_attention, pool_by_attention

        setting = self.setting
        pool = fit_attention(self.tokens, setting.y, rows, config=setting.config, settings=self.plan.attention,
                             groups=setting.groups, offset=setting.offset)  # fmt: skip
        return pool, pool_by_attention(pool, self.tokens)


def features(plan: Plan, store: Store, dictionary: Dictionary, *, known: str, setting: Setting) -> Features:
    """Return what heads are fitted on, a row a sample of the setting."""
    from elute.heads.pooling import pool_codes

    names = setting.samples["sample_id"].to_list()
    if plan.heads.pool == "attention":
        tokens, rows = token_codes(plan, store, dictionary, known=known, names=names)
        held = Attention(tokens, rows, plan=plan, setting=setting)
        return Features(prepare=held.prepare, attention=held)
    parts = sample_codes(plan, store, dictionary, known=known, names=names)
    pooled = pool_codes(
        ((codes, place) for codes, place, _ in parts), samples=len(names), n_features=dictionary.n_features,
        how=plan.heads.pool,
    )  # fmt: skip
    if (pooled.tokens == 0).any():
        lost = names[int((pooled.tokens == 0).argmax())]
        raise DataError(f"sample {lost!r} has no row of codes", where=plan.output, remedy="Extract the codes anew.")
    return Features(x=pooled.codes)


def token_codes(
    plan: Plan, store: Store, dictionary: Dictionary, *, known: str, names: list[str]
) -> tuple[TokenCodes, pl.DataFrame]:
    """Return the codes of all tokens of the named samples, in the store's order, with their metadata."""
    import numpy as np
    import polars as pl

    from elute.base.codes import Codes
    from elute.heads.attention import TokenCodes

    held, places, frames = [], [], []
    for codes, place, frame in sample_codes(plan, store, dictionary, known=known, names=names):
        held.append(codes)
        places.append(place)
        frames.append(frame)
    if not held:
        raise DataError("there are no codes of these samples", where=plan.output, remedy="Extract the codes anew.")
    tokens = TokenCodes(Codes.concatenate(held), np.concatenate(places), len(names))
    return tokens, pl.concat(frames)
