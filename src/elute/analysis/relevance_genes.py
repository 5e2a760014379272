"""The relevance of codes for all genes of a head in one pass over the samples.

For a linear head and the limit ε → 0 of the rule ε, R_gj = w_gj · p_j (equations 7 and 9 in closed form). So sums by
code, and the lists of samples in which a pooled code p_j is largest and smallest, serve every gene: its weight scales
them, and a negative one exchanges + and −. The pass costs no more for 2,000 genes than for one, but for what is
explained of every sample and gene, which Σ_j R_gj + b_g is held against. Normed lists are not in it.

Other heads and rules: one pass over the stream, in which each batch is pooled once and explained for one gene after
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis.prototypes import References
from elute.analysis.prototypes_lists import candidates
from elute.analysis.relevance import Relevance, RelevancePass, crp_relmax
from elute.analysis.relevance_conditions import Asked, gene_numbers, read_conditions
from elute.analysis.relevance_explain import TOLERANCE, Explanation, explain
from elute.analysis.relevance_head import GENE, POOL, Explained
from elute.analysis.relevance_pooling import pool
from elute.analysis.relevance_rules import EXACT, Rule, Rules, rules_of
from elute.analysis.relevance_stream import Tokens, whole_samples
from elute.analysis.relevance_totals import CodeTotals, code_table
from elute.base.errors import DataError, GuardError, near
from elute.base.mergeable import Floats, Integers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl

_KINDS = ("relmax", "actmax")
_SPARSE = 0.05  # share of pooled codes that are not 0, above which a dense product is the quicker one
_WITNESSES = 8  # samples of a batch for which the head's own forward is asked too
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class GeneRelevances:
    """Relevance gene by gene."""

    genes: tuple[str, ...]
    find: Callable[[str], Relevance]

    def of(self, gene: str) -> Relevance:
        """Return what one gene's prediction rests on."""
        if gene not in self.genes:
            raise DataError(f"gene {gene!r} was not explained", remedy=near(gene, self.genes))
        return self.find(gene)

    def __iter__(self) -> Iterator[Relevance]:
        return (self.of(gene) for gene in self.genes)

    def __len__(self) -> int:
        return len(self.genes)

    def overview(self, n: int = 20) -> pl.DataFrame:
        """Return the n codes of most relevance of each gene: gene, rank, and the columns of `Relevance.codes`."""
        import polars as pl

        frames = []
        for relevance in self:
            top = relevance.top(n)
            table = relevance.codes[top]  # a row a code, in the order of codes
            ranks = pl.Series("rank", np.arange(1, len(top) + 1, dtype=np.int32))
            frames.append(table.select(pl.lit(relevance.gene).alias("gene"), ranks, pl.all()))
        return pl.concat(frames)


class GenePass:
    """The pass for a linear head: gene-free sums and lists, mergeable, from which each gene's follow."""

    def __init__(self, explained: Explained, genes: Integers, *, k: int = 20, seed: int = 0) -> None:
        self.explained, self.genes, self.seed = explained, genes, seed
        self.layer = explained.layers[0].only(genes)
        self._across = np.ascontiguousarray(self.layer.weight.T)  # [K, genes], as products read it
        self.asked = read_conditions(explained, {POOL: range(explained.n_codes)}, POOL)
        self.totals = CodeTotals(explained.n_codes)
        self.references = References(explained.n_codes, k, kinds=_KINDS)
        self._typical = np.sqrt((self.layer.weight**2).mean(1))  # the size of a weight
        self.worst, self.output = np.zeros(len(genes)), np.zeros(len(genes))  # largest gap; Σ|y| by gene

    def update(self, tokens: Tokens, /) -> None:
        """Take in whole samples."""
        found = explain(self.explained, tokens, self.asked, rules=Rules(EXACT))
        self._check(found)
        self.totals.update(found)
        self.references.update(candidates(found, _KINDS), tokens.places)

    def merge(self, other: GenePass, /) -> None:
        """Take in what another part has seen."""
        self.totals.merge(other.totals)
        self.references.merge(other.references)
        self._typical = np.sqrt((self.layer.weight**2).mean(1))  # the size of a weight
        self.worst, self.output = np.maximum(self.worst, other.worst), self.output + other.output

    def of(self, place: int) -> Relevance:
        """Return the relevance of one of the genes, by its place among them."""
        w, b, t = self.layer.weight[place], self.layer.bias[place], self.totals
        up = w >= 0
        positive, negative = w * np.where(up, t.positive, t.negative), w * np.where(up, t.negative, t.positive)
        codes = code_table(
            positive=positive, negative=negative, samples=np.where(w != 0, t.samples, 0), active=t.active,
            pooled=t.pooled, strength=t.strength, n=t.n, seed=self.seed,
        )  # fmt: skip
        bias = t.n * abs(float(b)) / (float(self.output[place]) or 1.0)
        told = {
            "worst_relative": float(self.worst[place]),
            "bias_share": bias,
            "epsilon_share": 0.0,
            "masked_share": 0.0,
        }
        gene = self.explained.genes[int(self.genes[place])]
        told = {**told, "n": t.n}
        asked = Asked(self.genes[place : place + 1], {})
        return Relevance(
            gene, (gene,), codes, None, lambda chosen: self._lists(w, chosen), told, {}, Rules(EXACT), True, asked
        )

    def _lists(self, w: Floats, chosen: Integers | None) -> pl.DataFrame:
        """The lists of pooled codes as those of a gene: its weights scale them, negative ones exchange + and −."""
        import polars as pl

        lists = self.references.result(chosen)
        lists = lists.with_columns(pl.Series(w)[lists["code"].to_numpy()].alias("w"))
        ours = pl.col("kind") == "relmax"
        other = pl.when(pl.col("sign") == "+").then(pl.lit("-")).otherwise(pl.lit("+"))
        turned = ours & (pl.col("w") < 0)
        lists = lists.filter(~ours | (pl.col("w") != 0)).with_columns(
            pl.when(turned).then(other).otherwise(pl.col("sign")).alias("sign"),
            (pl.col("relevance") * pl.col("w")).alias("relevance"),
            pl.when(ours).then(pl.col("score") * pl.col("w").abs()).otherwise(pl.col("score")).alias("score"),
        )
        return lists.drop("w").sort(["code", ~ours, pl.col("target") == "max", pl.col("sign") == "-", "rank"])

    def _check(self, found: Explanation) -> None:
        """Hold Σ_j R_gj + b_g against the head's own forward, and add up what is explained."""
        matrix = found.pairs.matrix()
        given = _product(matrix, self._across) + self.layer.bias
        gap = np.zeros((1, len(self.genes)))
        if self.explained.forward is not None:
            few = matrix[: min(len(given), _WITNESSES)].toarray()
            adds = np.abs(few).sum(1, keepdims=True) * self._typical + np.abs(self.layer.bias) + _TINY
            gap = np.abs(self.explained.eta(few, self.genes) - given[: len(few)]) / adds
        self.worst = np.maximum(self.worst, gap.max(0, initial=0))
        self.output = self.output + np.abs(given).sum(0)
        if self.worst.max(initial=0) > TOLERANCE:
            gene = self.explained.genes[int(self.genes[int(np.argmax(self.worst))])]
            what = f"relevance for gene {gene!r} is off by {self.worst.max():.1e} of what is explained"
            raise GuardError(
                what, remedy="Check that the head's weights, bias and pooling are those of its own forward."
            )


def relevance_by_gene(
    top_module: Any,
    inputs: Any,
    genes: Sequence[str | int] | None = None,
    *,
    rule: str | Rule | Rules = "epsilon",
    k: int = 20,
    seed: int = 0,
) -> GeneRelevances:
    """Explain many genes, all of a head if none are named, in one pass over the samples."""
    explained = Explained.of(top_module)
    rules = rules_of(rule, linear=explained.linear)
    places = gene_numbers(explained, list(genes) if genes is not None else range(len(explained.genes)))
    names = tuple(explained.genes[i] for i in places.tolist())
    if explained.linear and rules.head == EXACT:
        run = GenePass(explained, places, k=k, seed=seed)
        for tokens in whole_samples(inputs, explained):
            run.update(tokens)
        if not run.totals.n:
            raise DataError("there are no samples to explain", remedy="Check that the selection has rows.")
        return GeneRelevances(names, lambda gene: run.of(names.index(gene)))
    passes = {
        name: RelevancePass(explained, {GENE: place}, rule=rules, k=k, per_sample=0, seed=seed)
        for name, place in zip(names, places.tolist(), strict=True)
    }
    for tokens in whole_samples(inputs, explained):
        pairs = pool(tokens, explained.pool)
        for each in passes.values():
            each.update(tokens, pairs=pairs)
    return GeneRelevances(names, lambda gene: passes[gene].result())


def _product(matrix: Any, across: Floats) -> Floats:
    """Pooled codes times weights, by whichever product is quicker."""
    if matrix.nnz > _SPARSE * np.prod(matrix.shape):
        matrix = matrix.toarray()
    given: Floats = np.asarray(matrix @ across)
    return given


__all__ = ["GenePass", "GeneRelevances", "crp_relmax", "relevance_by_gene"]
