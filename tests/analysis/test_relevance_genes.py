"""All genes in one pass: what a pass for each gene gives, from sums and lists that serve them all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from elute.analysis.relevance import Relevance, crp_relmax
from elute.analysis.relevance_genes import GenePass, relevance_by_gene
from elute.analysis.relevance_head import Explained
from elute.analysis.relevance_stream import whole_samples
from elute.base.errors import DataError, GuardError

K, GENES = 20, ("A", "B", "C", "D")


def dense(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(15, 5, K)) * (rng.random((15, 5, K)) < 0.3)


def linear(pool: str) -> Explained:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(4, K)) * (rng.random((4, K)) < 0.7)
    return Explained.of([(weight, rng.normal(size=4))], genes=GENES, pool=pool)


def alike(mine: Relevance, other: Relevance) -> None:
    for a, b in ((mine.codes, other.codes), (mine.references, other.references)):
        assert a.columns == b.columns
        for name in a.columns:
            if a[name].dtype.is_float():
                np.testing.assert_allclose(a[name].to_numpy(), b[name].to_numpy(), rtol=1e-6, atol=1e-9, err_msg=name)
            else:
                assert a[name].to_list() == b[name].to_list(), name


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_each_gene_is_as_if_it_were_alone(pool: str) -> None:
    head, z = linear(pool), dense()
    found = relevance_by_gene(head, z, k=4)
    assert found.genes == GENES
    for gene in GENES:
        alone = crp_relmax(head, z, {"y": gene}, k=4)
        alike(found.of(gene), alone)
        assert found.of(gene).conservation["bias_share"] == pytest.approx(alone.conservation["bias_share"], rel=1e-6)
    alike(relevance_by_gene(head, z, ["C"], k=4).of("C"), found.of("C"))


def test_other_heads_and_rules_are_explained_gene_by_gene() -> None:
    torch.manual_seed(0)
    head = Explained.of(nn.Sequential(nn.Linear(K, 7), nn.ReLU(), nn.Linear(7, 4)), genes=GENES, pool="mean")
    found = relevance_by_gene(head, dense(), k=4)
    alike(found.of("B"), crp_relmax(head, dense(), {"y": "B"}, k=4))
    gamma = relevance_by_gene(linear("mean"), dense(), ["D"], rule="gamma", k=4)
    alike(gamma.of("D"), crp_relmax(linear("mean"), dense(), {"y": "D"}, k=4, rule="gamma"))


def test_parts_are_merged() -> None:
    head, z = linear("mean"), dense()
    (tokens,) = whole_samples(z, head)
    whole, parts = GenePass(head, np.arange(4), k=3), [GenePass(head, np.arange(4), k=3) for _ in range(2)]
    whole.update(tokens)
    parts[0].update(tokens.only(range(9, 15)))
    parts[1].update(tokens.only(range(9)))
    parts[0].merge(parts[1])
    for place in range(4):
        alike(whole.of(place), parts[0].of(place))


def test_an_overview_names_the_codes_of_each_gene() -> None:
    found = relevance_by_gene(linear("mean"), dense())
    table = found.overview(3)
    assert table["gene"].to_list() == [gene for gene in GENES for _ in range(3)]
    assert table["rank"].to_list() == [1, 2, 3] * 4
    for gene in GENES:
        assert table.filter(table["gene"] == gene)["code"].to_list() == found.of(gene).top(3).tolist()


def test_what_is_not_there_is_refused() -> None:
    found = relevance_by_gene(linear("mean"), dense(), ["A"])
    with pytest.raises(DataError, match="gene 'B' was not explained. There are: A."):
        found.of("B")

    class Other:
        weights, bias = np.ones((1, K)), np.zeros(1)

        def eta(self, pooled: np.ndarray) -> np.ndarray:
            return pooled @ self.weights.T + 1

    with pytest.raises(GuardError, match="relevance for gene '0' is off by"):
        relevance_by_gene(Other(), dense())
