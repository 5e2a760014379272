"""Pooling by gated attention with several heads: which tokens of a sample a gene's prediction rests on is learnt.

1. Head h gives token t of a sample the score s_ht = u_h · (tanh(V_h z_t + c_h) ⊙ σ(U_h z_t + d_h)), where z_t are the
   token's codes divided by their root mean square over training tokens; a_ht is the softmax of s over the sample's
   tokens.
2. The heads' maps are averaged, a_t = Σ_h a_ht / H, and the pooled codes are Σ_t a_t z_t: one row a sample, so that the
   same heads, relevance and reports hold for any pooling, R_tj = a_t w_gj z_tj. Each head's own map is kept beside.
3. Gates are learnt by Adam, together with a linear head that is thrown away afterwards: the final head is fitted to
   the pooled codes by the solvers of regression.py, with the penalty chosen as for any other pooling. Counts are learnt
   with Poisson's loss also where the head is negative binomial; more than 32 genes of log counts by 32 components.
4. Where all attention is on one kind of token, a code that all these have is the same in every sample, but for a
   held-out one that attention got wrong: standardised, that would be thousands of standard deviations. Codes whose
   spread over the training samples is below a twentieth of their size are left out of the pooled codes.
5. It ends when training patients that were set aside gain no more, and the best gates so far are kept. Nothing outside
   the rows that are named is looked at.

M. Ilse, J. Tomczak, M. Welling, "Attention-based deep multiple instance learning", ICML 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from elute.base.errors import DataError
from elute.base.statistics.checks import group_codes
from elute.heads.design import Floats, Ints
from elute.heads.folds import group_folds
from elute.heads.settings import AttentionConfig, HeadConfig
from elute.heads.targets import as_offset, as_targets

if TYPE_CHECKING:
    from elute.base.codes import Codes
    from elute.heads.crossval import Prepare

_COMPONENTS = 32
_AT_ONCE = 1 << 16  # tokens
_VARIES = 0.05


@dataclass(frozen=True, eq=False)
class TokenCodes:
    """Codes of tokens, and the number of the sample each is of."""

    codes: Codes
    sample: Ints  # [tokens]
    n_samples: int

    def __post_init__(self) -> None:
        of = np.asarray(self.sample)
        if of.shape != (len(self.codes),):
            raise DataError(f"{of.shape} sample numbers for {len(self.codes)} tokens", remedy="Give one a token.")
        if len(of) and not 0 <= of.min() <= of.max() < self.n_samples:
            raise DataError(f"sample numbers lie outside 0 … {self.n_samples - 1}", remedy="Number them from 0.")

    @cached_property
    def order(self) -> tuple[Ints, Ints]:
        """The tokens sorted by sample, and where each sample's begin."""
        order = np.argsort(self.sample, kind="stable").astype(np.int64)
        return order, np.searchsorted(self.sample[order], np.arange(self.n_samples + 1)).astype(np.int64)

    def of(self, samples: Ints) -> tuple[Ints, Ints]:
        """Return the tokens of some samples, and which of these samples each is of."""
        order, starts = self.order
        sizes = starts[samples + 1] - starts[samples]
        first = np.repeat(starts[samples], sizes)
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[first + within], np.repeat(np.arange(len(samples)), sizes)

    def by_sample(self) -> sparse.csr_array:
        """The codes as a matrix [tokens, n_features]."""
        fired = self.codes.fired()
        at = (fired.rows.cpu().numpy(), fired.features.cpu().numpy())
        return sparse.csr_array((fired.values.cpu().double().numpy(), at), shape=self.codes.shape)


class AttentionPool(nn.Module):
    """The gates of all heads: how much of a sample's attention each of its tokens gets."""

    scale: Tensor
    varies: Tensor

    def __init__(self, n_features: int, heads: int = 4, width: int = 32, *, seed: int = 0) -> None:
        """Begin with gates that are nearly even."""
        super().__init__()
        self.n_features, self.heads, self.width = n_features, heads, width
        drawn = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=drawn))

        self.V = normal(n_features, heads * width, scale=0.1)
        self.U = normal(n_features, heads * width, scale=0.1)
        self.c = nn.Parameter(torch.zeros(heads * width))
        self.d = nn.Parameter(torch.zeros(heads * width))
        self.u = normal(heads, width, scale=1 / math.sqrt(width))
        self.register_buffer("scale", torch.ones(n_features))
        self.register_buffer("varies", torch.ones(n_features, dtype=torch.bool))

    def forward(self, codes: Codes, sample: Tensor, n: int) -> Tensor:
        """Return the weights [tokens, heads]: they sum to 1 over the tokens of each of n samples."""
        index = codes.indices.long()
        values = codes.values.to(self.V.dtype) / self.scale[index]
        v = torch.tanh(embedding_bag(index, self.V, per_sample_weights=values, mode="sum") + self.c)
        u = torch.sigmoid(embedding_bag(index, self.U, per_sample_weights=values, mode="sum") + self.d)
        scores = ((v * u).view(-1, self.heads, self.width) * self.u).sum(-1)
        at = sample[:, None].expand_as(scores)
        most = scores.new_full((n, self.heads), -torch.inf).scatter_reduce(0, at, scores.detach(), "amax")
        raised = torch.exp(scores - most[sample])
        total = raised.new_zeros(n, self.heads).index_add(0, sample, raised)
        return raised / total[sample]


def attention_weights(pool: AttentionPool, tokens: TokenCodes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return each head's map: weights [tokens, heads] in the order of the tokens; their mean is what pools."""
    out = np.zeros((len(tokens.sample), pool.heads), dtype=np.float32)
    starts = tokens.order[1]
    begin = 0
    with torch.no_grad():
        while begin < tokens.n_samples:
            end = max(begin + 1, int(np.searchsorted(starts, starts[begin] + _AT_ONCE, side="right")) - 1)
            at, of = tokens.of(np.arange(begin, end))
            out[at] = pool(tokens.codes[at], torch.from_numpy(of), end - begin).numpy()
            begin = end
    return out


def pool_by_attention(pool: AttentionPool, tokens: TokenCodes) -> sparse.csr_array:
    """Return the pooled codes [samples, n_features]; a sample without tokens is a row of zeros."""
    weight = attention_weights(pool, tokens).mean(axis=1, dtype=np.float64)
    at = (tokens.sample, np.arange(len(weight)))
    mixing = sparse.csr_array((weight, at), shape=(tokens.n_samples, len(weight)))
    return sparse.csr_array((mixing @ tokens.by_sample()) * pool.varies.numpy().astype(np.float64))


def attention_pooling(
    tokens: TokenCodes,
    y: ArrayLike,
    *,
    config: HeadConfig,
    settings: AttentionConfig,
    groups: Iterable[object],
    offset: ArrayLike | None = None,
) -> Prepare:
    """Return what `nested` prepares: codes pooled by gates that were learnt on the training rows."""
    of = list(groups)

    def prepare(rows: Ints) -> Any:
        pool = fit_attention(tokens, y, rows, config=config, settings=settings, groups=of, offset=offset)
        return pool_by_attention(pool, tokens)

    return prepare


def fit_attention(
    tokens: TokenCodes,
    y: ArrayLike,
    rows: ArrayLike,
    *,
    config: HeadConfig,
    settings: AttentionConfig,
    groups: Iterable[object],
    offset: ArrayLike | None = None,
) -> AttentionPool:
    """Learn the gates from the samples that `rows` names, with their targets y [samples, G]."""
    at = np.asarray(rows, dtype=np.int64)
    targets = as_targets(y, tokens.n_samples, loss=config.loss)
    off = None if offset is None else as_offset(offset, tokens.n_samples, loss=config.loss)
    pool = AttentionPool(tokens.codes.n_features, config.attention_heads, settings.width, seed=config.seed)
    pool.scale = _scale(tokens, at)
    _, of = group_codes(groups, "fit_attention(groups)", n_rows=tokens.n_samples)
    learning = _Learning(pool, tokens, _Goal.of(targets, off, at, config=config), settings=settings)
    learning.run(at, aside=_aside(of[at], seed=config.seed), seed=config.seed)
    pooled = pool_by_attention(pool, tokens)[at]
    square = np.asarray(pooled.power(2).mean(axis=0)).ravel()
    spread = square - np.square(np.asarray(pooled.mean(axis=0)).ravel())
    pool.varies = torch.from_numpy(spread > _VARIES**2 * square)
    return pool.eval().requires_grad_(requires_grad=False)


def _scale(tokens: TokenCodes, rows: Ints) -> Tensor:
    """The root mean square of each code over tokens of these samples; 1 where it is silent."""
    codes = tokens.codes[tokens.of(rows)[0]]
    fired = codes.fired()
    square = torch.zeros(codes.n_features, dtype=torch.float64)
    square.index_add_(0, fired.features.long(), fired.values.double() ** 2)
    root = (square / max(1, len(codes))).sqrt()
    return torch.where(root > 0, root, 1.0).float()


def _aside(groups: Ints, *, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """About a fifth of the patients, by which it is seen when to end; of one patient alone a fifth of its samples."""
    n = len(np.unique(groups))
    units = groups if n > 1 else np.arange(len(groups))
    if len(np.unique(units)) < 2:
        return np.zeros(len(groups), dtype=bool)
    return np.asarray(group_folds(units, folds=min(5, len(np.unique(units))), seed=seed) == 0)


@dataclass(frozen=True, eq=False)
class _Goal:
    """What the gates are learnt by: targets scaled on the training rows, or counts with a rate that is known."""

    y: Tensor  # [samples, outputs]
    level: Tensor | None  # [samples, outputs], η without codes, of counts
    weight: Tensor  # [outputs]

    @staticmethod
    def of(y: Floats, offset: Floats | None, rows: Ints, *, config: HeadConfig) -> _Goal:
        if config.loss == "mse":
            train = y[rows]
            spread = train.std(axis=0)
            scaled = (y - train.mean(axis=0)) / np.where(spread > 0, spread, 1)
            if scaled.shape[1] > _COMPONENTS:
                turn = np.linalg.svd(scaled[rows], full_matrices=False)[2][:_COMPONENTS].T
                scaled = scaled @ turn
            return _Goal(torch.from_numpy(scaled).float(), None, torch.ones(scaled.shape[1]))
        flat = np.zeros(len(y)) if offset is None else offset
        total = np.maximum(y[rows].sum(axis=0), 0.5)
        level = np.log(total / np.exp(flat[rows]).sum()) + flat[:, None]
        weight = 1 / np.maximum(y[rows].mean(axis=0), 1e-3)
        return _Goal(*(torch.from_numpy(part).float() for part in (y, level, weight)))

    def loss(self, out: Tensor, rows: Tensor) -> Tensor:
        """The mean loss of what the linear head adds to the level."""
        if self.level is None:
            return ((out - self.y[rows]) ** 2).mean()
        eta = self.level[rows] + out
        return ((torch.exp(eta.clamp(max=30)) - self.y[rows] * eta) * self.weight).mean()


class _Learning:
    """Adam over the gates and a linear head that goes with them."""

    def __init__(self, pool: AttentionPool, tokens: TokenCodes, goal: _Goal, *, settings: AttentionConfig) -> None:
        self.pool, self.tokens, self.goal, self.settings = pool, tokens, goal, settings
        self.head = nn.Parameter(torch.zeros(pool.n_features, goal.y.shape[1]))
        self.bias = nn.Parameter(torch.zeros(goal.y.shape[1]))

    def out(self, samples: Ints) -> Tensor:
        """Return Σ_t a_t (z_t · head) + bias [samples, outputs], without pooling codes first."""
        at, of = self.tokens.of(samples)
        codes, sample = self.tokens.codes[at], torch.from_numpy(of)
        weight = self.pool(codes, sample, len(samples)).mean(1)
        index = codes.indices.long()
        values = codes.values.float() / self.pool.scale[index]
        made = embedding_bag(index, self.head, per_sample_weights=values, mode="sum")
        empty = made.new_zeros(len(samples), made.shape[1])
        return empty.index_add(0, sample, weight[:, None] * made) + self.bias

    def run(self, rows: Ints, *, aside: np.ndarray[Any, np.dtype[np.bool_]], seed: int) -> None:
        """Learn until what was set aside gains no more; keep the gates that did best there."""
        gates = list(self.pool.parameters())
        adam = torch.optim.AdamW(
            [
                {"params": gates, "weight_decay": self.settings.weight_decay},
                {"params": [self.head, self.bias], "weight_decay": 0.01},
            ],
            lr=self.settings.lr,
        )
        rng = np.random.default_rng([seed, *b"attention"])
        train, held = rows[~aside], rows[aside]
        best, kept, worse = math.inf, self._state(), 0
        for _ in range(self.settings.epochs):
            order = rng.permutation(train)
            for start in range(0, len(order), self.settings.batch_size):
                part = order[start : start + self.settings.batch_size]
                adam.zero_grad()
                self.goal.loss(self.out(part), torch.from_numpy(part)).backward()  # type: ignore[no-untyped-call]
                adam.step()
            now = self._judge(held if len(held) else train)
            if math.isinf(best) or now < best - 1e-4 * abs(best):
                best, kept, worse = now, self._state(), 0
            else:
                worse += 1
                if worse >= self.settings.patience:
                    break
        self.pool.load_state_dict(kept)

    def _state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.pool.state_dict().items()}

    def _judge(self, rows: Ints) -> float:
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(rows), 256):
                part = rows[start : start + 256]
                total += float(self.goal.loss(self.out(part), torch.from_numpy(part))) * len(part)
        return total / len(rows)
