"""Conditional relevance in one batch of whole samples, from the head down to codes, tokens and embeddings.

1. Relevance starts as the explained output itself: y of the genes that the conditions name, for counts η minus the
   offset (or, with `start`, what the named units of a layer gave).
2. Each layer hands it back by its rule (equation 7); ReLU passes it through; where a condition names units of a layer,
   only they keep theirs (equation 8). Relevance that was recorded at a layer is what was left after its condition.
3. The pooled code of a sample hands it to tokens in proportion to their shares (relevance_pooling.py), TopK to the
   codes that were kept. A code's relevance in a sample is its sum over tokens (equation 9); over several genes or codes
   it is the sum of theirs (equation 10), as every step is linear in the relevance.
4. Below, a kept code hands it to the embedding: R_i = Σ_j (x − centre)_i W_ji R_j / u_j.

For a linear head and the rule ε this is R_{t,j} = a_t w_gj z_tj · y / (y ± ε), in the limit of no ε a_t w_gj z_tj.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis.relevance_conditions import Asked
from elute.analysis.relevance_head import GENE, LATENT, POOL, Explained
from elute.analysis.relevance_pooling import Pairs, pool, sums_at
from elute.analysis.relevance_rules import EXACT, Rules, hand_back, shares
from elute.base.errors import ConfigError, DataError, GuardError
from elute.base.mergeable import Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from elute.analysis.relevance_stream import Tokens

TOLERANCE = 1e-4
_WITNESSES = 8  # samples of a batch for which the head's own forward is asked too


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance in a batch of samples: what it started as, where it went, and what was kept on the way."""

    tokens: Tokens
    pairs: Pairs
    factor: Floats  # [P] relevance is pooled · factor, and a token's is share · factor
    above: Floats  # [P] relevance of pooled codes, before a condition on the codes
    output: Floats  # [S] what is explained
    bias: Floats  # [S] the biases' share
    epsilon: Floats  # [S] the residual of ε
    masked: Floats  # [S] what conditions took
    hidden: dict[str, Floats]  # [S, units] relevance at hidden layers
    activations: dict[str, Floats]  # [S, units] what hidden layers gave, after their ReLU
    witnessed: Floats  # [some S] what the head's own forward gives for the first samples

    @property
    def relevance(self) -> Floats:
        """Relevance of each pair of sample and code."""
        return self.pairs.pooled * self.factor

    def entries(self) -> Floats:
        """Relevance of each entry of the pairs: a code in a token."""
        return self.pairs.v * self.factor[self.pairs.of_entries()]

    def token_codes(self) -> csr_array[Any, tuple[int, int]]:
        """Return relevance of codes in tokens, [rows, codes]."""
        from scipy.sparse import coo_array

        code = self.pairs.code[self.pairs.of_entries()]
        return coo_array((self.entries(), (self.pairs.row, code)), (len(self.tokens), self.pairs.shape[1])).tocsr()

    def gap(self) -> Floats:
        """Return by how much relevance is not conserved, sample by sample, relative to what is explained."""
        below = sums_at(self.tokens.sample[self.pairs.row], self.entries(), len(self.output))
        scale = np.maximum(np.abs(self.output), 1e-9 * self.pairs.by_sample(np.abs(self.relevance)))
        scale = np.maximum(scale, np.finfo(np.float64).tiny)
        gap = np.abs(below + self.bias + self.epsilon + self.masked - self.output)
        worst: Floats = gap / scale
        n = len(self.witnessed)
        if n:  # the head's own forward may add up in another order or type: held against all that is added up
            reach = (np.abs(self.output) + self.pairs.by_sample(np.abs(self.relevance)) + np.abs(self.bias) + scale)[:n]
            worst[:n] = np.maximum(worst[:n], np.abs(self.witnessed - self.output[:n]) / reach)
        return worst

    def check(self) -> Explanation:
        """Refuse relevance that is not conserved: what was explained is not what the head gives."""
        gap = self.gap()
        if len(gap) and not gap.max() <= TOLERANCE:
            at = int(np.argmax(gap))
            what = f"relevance of sample {self.tokens.samples[at]!r} is off by {gap[at]:.1e} of what is explained"
            remedy = "Check that the head's weights, bias and pooling are those of its own forward."
            raise GuardError(what, remedy=remedy)
        return self


def explain(
    explained: Explained, tokens: Tokens, asked: Asked, *, rules: Rules, pairs: Pairs | None = None
) -> Explanation:
    """Explain whole samples; pairs that were pooled before are used again."""
    if tokens.codes.n_features != explained.n_codes:
        what = f"codes of {tokens.codes.n_features} features, but the head reads {explained.n_codes}"
        raise GuardError(what, remedy="Use the codes of the dictionary that the head was fitted on.")
    if pairs is None:
        pairs = pool(tokens, "sum" if asked.start == LATENT else explained.pool)
    n = pairs.shape[0]
    kept = _Kept(n)
    hidden: dict[str, Floats] = {}
    activations: dict[str, Floats] = {}
    witnessed = np.zeros(0)
    if asked.start in (LATENT, POOL):
        factor, above = np.ones(len(pairs)), pairs.pooled
        output = pairs.by_sample(np.where(_named(asked, asked.start, pairs.shape[1])[pairs.code], pairs.pooled, 0))
        above = np.where(_named(asked, asked.start, pairs.shape[1])[pairs.code], above, 0)
        factor = factor * _named(asked, asked.start, pairs.shape[1])[pairs.code]
    else:
        matrix = pairs.matrix()
        factor, output = _through_head(
            explained, matrix, asked, rules=rules, pairs=pairs, kept=kept, into=(hidden, activations)
        )
        if asked.start == GENE and explained.forward is not None:
            witnessed = explained.eta(matrix[: min(n, _WITNESSES)].toarray(), asked.genes).sum(1)
        factor = kept.mask(factor, pairs, asked, path=POOL)
        above = pairs.pooled * factor
        if rules.pool:
            share, lost = shares(above, pairs.pooled, rules.pool)
            factor, kept.epsilon = share, kept.epsilon + pairs.by_sample(lost)
    factor = kept.mask(factor, pairs, asked, path=LATENT)
    return Explanation(
        tokens, pairs, factor, above, output, kept.bias, kept.epsilon, kept.masked, hidden, activations, witnessed
    )


def embedding_relevance(explained: Explained, found: Explanation, rules: Rules) -> Floats:
    """Return relevance of the embeddings [rows, D] that the codes were made of; checked to be conserved."""
    encoder, x = explained.encoder, found.tokens.x
    if encoder is None:
        raise ConfigError("nothing says how codes were made of embeddings", remedy="Give the dictionary as encoder.")
    if x is None:
        raise DataError("the embeddings of these codes are missing", remedy="Give them as third item of each batch.")
    relevance = found.token_codes()
    total = np.asarray(relevance.sum(1)).reshape(-1)
    width = encoder.weight.shape[1]
    if rules.encoder.name == "flat":
        return np.repeat(total[:, None] / (width + rules.encoder.epsilon), width, axis=1)
    s, lost = _per_code(found, rules.encoder.epsilon)
    given: Floats = (x - encoder.centre) * np.asarray(s @ encoder.weight)
    gap = given.sum(1) + s @ encoder.bias + lost - total
    scale = np.maximum(np.abs(total), 1e-6 * np.asarray(abs(relevance).sum(1)).reshape(-1)) + np.finfo(np.float64).tiny
    if len(gap) and not (np.abs(gap) / scale).max() <= TOLERANCE * 10:
        what = "codes are not what their dictionary gives for these embeddings"
        raise GuardError(what, remedy="Encode the embeddings anew, with the dictionary that the head was fitted on.")
    return given


def embedding_gradient(explained: Explained, found: Explanation, rules: Rules) -> Floats:
    """Return by what each number of an embedding is multiplied to give its relevance, [rows, D]."""
    if explained.encoder is None:
        raise ConfigError("nothing says how codes were made of embeddings", remedy="Give the dictionary as encoder.")
    s, _ = _per_code(found, rules.encoder.epsilon)
    return np.asarray(s @ explained.encoder.weight)


def _per_code(found: Explanation, epsilon: float) -> tuple[Any, Floats]:
    """R_j / (u_j ± ε) of the codes in tokens, sparse, and what ε takes of each row."""
    from scipy.sparse import coo_array

    pairs = found.pairs
    s, lost = shares(found.entries(), pairs.z, epsilon)
    code = pairs.code[pairs.of_entries()]
    rows = len(found.tokens)
    return coo_array((s, (pairs.row, code)), (rows, pairs.shape[1])).tocsr(), sums_at(pairs.row, lost, rows)


class _Kept:
    """What does not arrive: the biases' share, the residual of ε, what conditions take."""

    def __init__(self, n: int) -> None:
        self.bias, self.epsilon, self.masked = np.zeros(n), np.zeros(n), np.zeros(n)

    def mask(self, factor: Floats, pairs: Pairs, asked: Asked, *, path: str) -> Floats:
        """Let only the named codes keep relevance."""
        if path not in asked.masks or path == asked.start:
            return factor
        keeps = _named(asked, path, pairs.shape[1])[pairs.code]
        self.masked += pairs.by_sample(np.where(keeps, 0, pairs.pooled * factor))
        masked: Floats = factor * keeps
        return masked


def _named(asked: Asked, path: str, width: int) -> Any:
    mask = np.zeros(width, bool)
    mask[asked.masks[path]] = True
    return mask


def _through_head(
    explained: Explained,
    matrix: csr_array[Any, tuple[int, int]],
    asked: Asked,
    *,
    rules: Rules,
    pairs: Pairs,
    kept: _Kept,
    into: tuple[dict[str, Floats], dict[str, Floats]],
) -> tuple[Floats, Floats]:
    """Hand relevance back layer by layer; returns the factors of the pairs, and what is explained."""
    layers = list(explained.layers)
    if explained.linear and rules.head == EXACT:
        weight, bias = layers[0].weight[asked.genes], layers[0].bias[asked.genes]
        kept.bias += bias.sum()
        return weight.sum(0)[pairs.code], np.asarray(matrix @ weight.T).sum(1) + bias.sum()
    if asked.start == GENE:
        layers[-1] = layers[-1].only(asked.genes)  # what no relevance starts from has none
    else:
        layers = layers[: [layer.path for layer in layers].index(asked.start) + 1]
    inputs: list[Any] = [matrix]
    outs: list[Floats] = []
    for layer in layers:
        outs.append(layer.forward(inputs[-1]))
        inputs.append(np.maximum(outs[-1], 0))
    relevance = outs[-1] if asked.start == GENE else inputs[-1] * _named(asked, asked.start, inputs[-1].shape[1])
    output = relevance.sum(1)
    hidden, activations = into
    if asked.start != GENE:
        hidden[asked.start], activations[asked.start] = relevance, inputs[-1]
    for depth in range(len(layers) - 1, -1, -1):
        layer = layers[depth]
        handed = hand_back(rules.head, layer, inputs[depth], out=outs[depth], relevance=relevance)
        kept.bias += handed.bias
        kept.epsilon += handed.epsilon
        if not depth:
            return handed.at(pairs.sample, pairs.code, pairs.pooled > 0), output
        relevance = handed.to_dense(inputs[depth])
        path = layers[depth - 1].path
        if path in asked.masks:
            keeps = _named(asked, path, relevance.shape[1])
            kept.masked += relevance[:, ~keeps].sum(1)
            relevance = relevance * keeps
        hidden[path], activations[path] = relevance, inputs[depth]
    raise AssertionError("a head has layers")


__all__ = ["TOLERANCE", "Explanation", "embedding_gradient", "embedding_relevance", "explain"]
