"""Names of features: by hand what they are called and why, the confidence in each of its parts, and under the null."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.sparse import csr_array
from scipy.stats import hypergeom

from elute.base.errors import DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation.labels import EVEN, UNKNOWN, confidence, fair_share, held, log_bet, name_features
from elute.validation.null_lists import Matched
from elute.validation.reading import gmt
from elute.validation.stratified import Strata
from elute.validation.wording import LONGEST, apart, say_the_same, short, tidy

ROW: dict[str, Any] = {
    "feature": 1,
    "term": "T:1",
    "label": "interferon response",
    "group": None,
    "overlap": 12,
    "list_size": 50,
    "term_size": 100,
    "background": 10_000,
    "expected": 0.5,
    "p": 1e-14,
    "q": 1e-10,
    "null_p": 1e-11,
    "q_shown": 1e-4,
    "p_parent": None,
    "folded_under": None,
    "genes": ["ISG15", "IFI6", "MX1", "OAS1"],
}
FEATURE: dict[str, Any] = {
    "feature": 1,
    "kind": "gene program",
    "rows": 5000,
    "by_gene": 0.2,
    "top_genes": ["LST1", "AIF1", "TYROBP", "FCER1G"],
    "top_genes_z": [20.0, 15.0, 12.0, 9.0],
    "top_genes_raw": ["FTL", "LST1"],
    "cell_type": None,
    "auroc": None,
    "auroc_shown": None,
    "q": None,
    "q_shown": None,
    "q_donors": None,
}
MONOCYTE = {
    "cell_type": "CD14+ monocyte",
    "auroc": 0.95,
    "auroc_shown": 0.92,
    "q": 1e-30,
    "q_shown": 1e-12,
    "q_donors": 0.004,
}
TYPES = {
    "group": pl.String,
    "folded_under": pl.String,
    "null_p": pl.Float64,
    "q_shown": pl.Float64,
    "p_parent": pl.Float64,
    "genes": pl.List(pl.String),
}


def rows(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(
        [ROW | change for change in changes], schema_overrides=TYPES, schema=None if changes else [*ROW]
    )


def features(*changes: dict[str, Any]) -> pl.DataFrame:
    text = dict.fromkeys(("kind", "cell_type"), pl.String)
    numbers = dict.fromkeys(("auroc", "auroc_shown", "q", "q_shown", "q_donors", "by_gene"), pl.Float64)
    lists = {"top_genes": pl.List(pl.String), "top_genes_z": pl.List(pl.Float64), "top_genes_raw": pl.List(pl.String)}
    return pl.DataFrame([FEATURE | change for change in changes], schema_overrides={**text, **numbers, **lists})


def named(
    feature: dict[str, Any] | None = None, found: dict[str, pl.DataFrame] | None = None, **given: Any
) -> dict[str, Any]:
    """The name of one feature, tested with a thousand terms of each database, whose matched lists find nothing."""
    found = found or {}
    given = {"terms": dict.fromkeys(found, 1000), "null": {name: [1.0] for name in found}} | given
    return name_features(features(feature or {}), found, **given).row(0, named=True)


def test_the_table_has_a_row_a_feature_in_their_order() -> None:
    table = name_features(features({"feature": 7}, {"feature": 3, "kind": "silent"}), {}, terms={})
    assert table.schema == {
        "feature": pl.Int32, "name": pl.String, "name_confidence": pl.Float64, "name_reason": pl.String,
        "name_source": pl.String, "name_term": pl.String,
    }  # fmt: skip
    assert table["feature"].to_list() == [7, 3]


def test_a_term_names_with_its_numbers_beside_their_controls() -> None:
    told = named(
        found={"reactome": rows({}), "hallmark": rows({"feature": 2})}, terms={"reactome": 1600, "hallmark": 50}
    )
    assert (told["name"], told["name_source"], told["name_term"]) == ("interferon response", "reactome", "T:1")
    assert told["name_reason"] == (
        "12 of its 50 genes are among the 100 of this term (0.5 expected, q 1e-10); among like genes p 1e-11; "
        "on other cells q 0.0001; 0 of 1 other witnesses agree."
    )
    # By hand: l = −ln(1e-11 · 1600), the bet halved because one of two witnesses speaks, and other cells' control.
    least = -math.log(1e-11 * 1600)
    bet = (math.exp(least) - 1 - least) / least**2 / 2
    controls = 1 / (1 + 0.001**2)
    assert told["name_confidence"] == pytest.approx(bet / (bet + 20) * controls, rel=1e-9)


def test_what_was_not_run_is_said() -> None:
    told = named(found={"kegg": rows({"null_p": None, "q_shown": None})})
    assert "not tried among like genes; not tried on other cells." in told["name_reason"]
    assert told["name_confidence"] == pytest.approx(UNKNOWN**2, abs=0.01)
    assert told["name_confidence"] < 0.5
    unpriced = named(found={"kegg": rows({"null_p": 1e-9, "q_shown": 1e-9})}, null={})
    assert unpriced["name_confidence"] == pytest.approx(0.5), "other donors find the same popular genes again"
    bare = named(found={"kegg": rows({}).drop("group", "null_p", "q_shown", "p_parent", "folded_under")})
    assert bare["name_confidence"] == pytest.approx(told["name_confidence"])


@pytest.mark.parametrize(
    ("kind", "change", "name", "sure"),
    [
        ("silent", {"rows": 0}, "silent", 0.0),
        ("rare", {"rows": 7}, "rare", 0.0),
        ("depth", {}, "depth", 0.5),
        ("gene identity", {"by_gene": 0.8}, "gene identity: FTL", 0.8 * UNKNOWN),
    ],
)
def test_kinds_that_say_it_all(kind: str, change: dict[str, Any], name: str, sure: float) -> None:
    told = named({"kind": kind, **change, **MONOCYTE}, {"reactome": rows({})})
    assert told["name"] == name
    assert told["name_confidence"] == pytest.approx(sure)
    assert told["name_term"] is None


def test_a_gene_identity_is_named_after_the_tokens_on_which_it_fires() -> None:
    genes = pl.DataFrame(
        {
            "feature": [1, 1, 1, 2, 1],
            "symbol": ["LST1", "CD3E", "CD3D", "MS4A1", "NONE"],
            "token_z": [30.0, 100.0, 60.0, 500.0, None],
        }
    )
    told = named({"kind": "gene identity", "by_gene": 0.7}, genes=genes)
    assert told["name"] == "gene identity: CD3E, CD3D"
    assert told["name_confidence"] == pytest.approx(0.7)
    assert told["name_source"] == "genes"


def test_what_cannot_name() -> None:
    """Above the bound, folded under another, one gene alone, or a fifth of all genes."""
    for change in ({"q": 0.06}, {"folded_under": "T:9"}, {"overlap": 1}, {"term_size": 2000}):
        assert named(found={"reactome": rows(change)})["name"] == "LST1, AIF1, TYROBP", change
    assert named(found={"reactome": rows({"q": 0.06})}, fdr=0.1)["name"] == "interferon response"


@pytest.mark.parametrize(
    "better",
    [
        {"p": 1e-20, "q": 1e-16},
        {"term_size": 20},
        {"overlap": 20},
        {"null_p": 0.004},
        {"q_shown": 1e-9},
        {"p_parent": 1e-5},
    ],
)
def test_of_two_terms_the_better_supported_names(better: dict[str, Any]) -> None:
    """Each part alone, all else equal; the other comes first in the table and by its id."""
    base = {"q_shown": 0.02, "null_p": 0.02, "p_parent": 0.01}
    worse = {**base, "term": "T:0", "label": "worse"}
    told = named(found={"reactome": rows(worse, {**base, "label": "better", **better})})
    assert told["name"] == "better"


def test_cells_name_states_and_processes_name_programs() -> None:
    found = {
        "reactome": rows({"label": "phagocytosis"}),
        "panglaodb": rows({"label": "Monocytes", "genes": ["X", "Y"]}),
    }
    assert named({"kind": "cell state"}, found)["name"] == "Monocytes"
    assert named({"kind": "gene program"}, found)["name"] == "phagocytosis"
    process = {"markers": rows({"label": "cycling", "group": "process"}), "hpo": rows({"label": "Fever"})}
    assert named({"kind": "gene program"}, process)["name"] == "cycling"


def test_witnesses_that_agree_raise_the_confidence_and_kin_is_one_witness() -> None:
    weak = {"p": 1e-6, "q": 0.01}
    alone = {"reactome": rows(weak), "go": rows(), "hallmark": rows()}
    both = {"reactome": rows(weak), "go": rows({**weak, "label": "other"}), "hallmark": rows()}
    apart_ = {
        "reactome": rows(weak),
        "go": rows({**weak, "label": "other", "genes": ["A", "B", "C"]}),
        "hallmark": rows(),
    }
    sure = {
        name: named(found=found)["name_confidence"]
        for name, found in (("alone", alone), ("both", both), ("apart", apart_))
    }
    assert sure["both"] > sure["alone"] == sure["apart"]
    assert "1 of 2 other witnesses agree" in named(found=both)["name_reason"]
    kin = named(found=both, kin=[["go", "reactome"], ["elsewhere"]])
    assert "0 of 1 other witnesses agree" in kin["name_reason"]


def test_of_equal_terms_the_one_that_witnesses_agree_on_names() -> None:
    found = {
        "go": rows({"label": "alone", "genes": ["A", "B", "C", "D"]}),
        "kegg": rows({"label": "agreed", "p": 1.1e-14}),
        "reactome": rows({"label": "agreeing", "p": 1e-13}),
    }
    assert named(found=found)["name"] == "agreed"
    assert named(found=found, kin=[["kegg", "reactome"]])["name"] == "alone", "kin is no further witness"


def test_cells_that_say_the_same_stand_in_for_other_donors() -> None:
    found = {"panglaodb": rows({"label": "Monocytes", "q_shown": None})}
    plain, agreeing = named({"kind": "cell state"}, found), named({"kind": "cell state", **MONOCYTE}, found)
    assert agreeing["name_confidence"] > plain["name_confidence"]
    assert agreeing["name_reason"].endswith("so do its cells (CD14+ monocyte).")
    other = named({"kind": "cell state", **MONOCYTE, "cell_type": "B cell", "auroc_shown": 0.6}, found)
    assert other["name_confidence"] == plain["name_confidence"]


def test_a_cell_type_names_where_cells_that_did_not_choose_it_show_it() -> None:
    told = named({"kind": "cell state", **MONOCYTE})
    assert (told["name"], told["name_source"]) == ("CD14+ monocyte", "cells")
    assert told["name_confidence"] == pytest.approx(0.84 / (1 + 0.04**2), rel=1e-6)
    assert "AUROC 0.95 where it was chosen, 0.92 on cells that chose nothing (q 1e-12)" in told["name_reason"]
    for change in ({"q_shown": 0.2}, {"q_shown": None}, {"auroc_shown": 0.4}, {"auroc": 0.1}, {"q": 0.9}):
        assert named({"kind": "cell state", **MONOCYTE, **change})["name_source"] == "genes", change
    assert named({**MONOCYTE, "q_donors": None})["name_confidence"] == pytest.approx(0.84 * UNKNOWN)


def test_a_term_that_is_likelier_wrong_gives_way_to_cells_that_are_not() -> None:
    weak = {"reactome": rows({"p": 1e-5, "q": 0.04, "q_shown": 0.9})}
    assert named(MONOCYTE, weak)["name_source"] == "cells"
    assert named(MONOCYTE, {"reactome": rows({})})["name_source"] == "reactome"
    assert named({**MONOCYTE, "auroc_shown": 0.6}, weak)["name_source"] == "reactome"


def test_genes_name_at_last_and_never_above_a_half() -> None:
    told = named()
    assert (told["name"], told["name_source"]) == ("LST1, AIF1, TYROBP", "genes")
    assert 0.4 < told["name_confidence"] <= 0.5
    assert named({"top_genes_z": [3.0, 2.0, 1.0]})["name_confidence"] < 0.02
    none = named({"top_genes": None, "top_genes_z": None})
    assert (none["name"], none["name_confidence"], none["name_source"]) == ("unnamed", 0.0, None)


def test_names_that_several_share_are_told_apart() -> None:
    table = name_features(
        features(
            {"feature": 1, "top_genes": ["ISG15", "MX1"]},
            {"feature": 2, "top_genes": ["IFI6", "MX1"]},
            {"feature": 3, "top_genes": ["ISG15", "OAS1"]},
            {"feature": 4, "top_genes": ["ISG15", "OAS1"]},
            {"feature": 5, "kind": "silent"},
            {"feature": 6, "kind": "silent"},
            {"feature": 8},
        ),
        {"reactome": rows(*({"feature": i} for i in (1, 2, 3, 4)))},
        terms={"reactome": 100},
    )
    assert table["name"].to_list() == [
        "interferon response (ISG15, MX1)",
        "interferon response (IFI6)",
        "interferon response (ISG15 #3)",
        "interferon response (ISG15 #4)",
        "silent",
        "silent",
        "LST1, AIF1, TYROBP",
    ]


def test_names_told_apart_are_short_and_all_different() -> None:
    long = "antigen processing and presentation of exogenous peptide antigen via MHC class II"
    names = dict.fromkeys(range(40), tidy(long)) | {40: tidy(long) + " x", 41: long[:30]}
    told = apart(names, {i: ["CD74" if i % 2 else "A-VERY-LONG-NAME-OF-A-GENE-THAT-DOES-NOT-FIT", "X"] for i in names})
    assert len(set(told.values())) == len(told)
    assert max(map(len, told.values())) <= LONGEST
    alike = {1: long[:70] + " a", 2: long[:70] + " a", 3: long[:70] + " b", 4: long[:70] + " b"}
    cut = apart(alike, {1: ["CD74"], 2: ["X"], 3: ["CD74"], 4: ["Y"]})
    assert len(set(cut.values())) == 4
    assert max(map(len, cut.values())) <= LONGEST
    two = apart(
        {
            1: "antigen processing and a",
            2: "antigen processing and a",
            3: "antigen processing and b",
            4: "antigen processing and b",
        },
        {},
    )
    assert len(set(two.values())) == 4


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("HALLMARK_TNFA_SIGNALING_VIA_NFKB", "TNFA signalling via NFKB"),
        ("HALLMARK_HYPOXIA", "Hypoxia"),
        ("HALLMARK_IL2_STAT5_SIGNALING", "IL2 STAT5 signalling"),
        ("HALLMARK_UV_RESPONSE_DN", "UV response down"),
        ("HALLMARK_MYC_TARGETS_V1", "MYC targets V1"),
        ("HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION", "Epithelial mesenchymal transition"),
        ("GOBP_POSITIVE_REGULATION_OF_T_CELL_ACTIVATION", "Positive regulation of T cell activation"),
        ("REACTOME_CLASS_I_MHC_MEDIATED_ANTIGEN_PROCESSING_PRESENTATION", "Class I MHC mediated antigen processing presentation"),
        ("Interferon alpha/beta signaling", "Interferon alpha/beta signalling"),
        ("antigen binding (GO:0003823)", "antigen binding"),
        ("Interferon Signaling R-HSA-913531", "Interferon Signalling"),
        ("Hemostasis", "Hemostasis"),
        ("naive CD4 T cell", "naive CD4 T cell"),
        ("CD8", "CD8"),
        ("my_own_set", "my_own_set"),
        ("MY_OWN_SET", "My own set"),
        ("GO:0003823", "GO:0003823"),
        ("a\x00b\n c", "a b c"),
    ],
)  # fmt: skip
def test_wording(label: str, name: str) -> None:
    assert tidy(label) == name


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=150))
def test_wording_never_fails_and_is_short(label: str) -> None:
    name = tidy(label)
    assert len(name) <= LONGEST
    assert name.isprintable()
    assert tidy(name) == tidy(tidy(name))


def test_short_cuts_at_a_word() -> None:
    assert short("one two three", 9) == "one two…"
    assert short("one two three", 13) == "one two three"
    assert short("onetwothreefour", 9) == "onetwoth…"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("CD14+ monocyte", "classical monocytes", True),
        ("T", "naive CD4 T cell", True),
        ("NK cell", "natural killer cell", True),
        ("B cell", "T cell", False),
        ("B", "hepatitis B", False),
        ("dendritic", "conventional dendritic cell", True),
        ("T cell", "stem cell", False),
    ],
)
def test_what_says_the_same(one: str, other: str, same: bool) -> None:
    assert say_the_same(one, other) is same


def test_the_bet_is_the_mixture_of_all_bets() -> None:
    """∫ κ p^(κ−1) dκ over 0 to 1, whatever p is; and its mean over p is 1: who bets gains nothing."""
    for p in (1e-12, 1e-4, 0.03, 0.4, 0.999, 1.0):
        direct, _ = integrate.quad(lambda k, p=p: k * p ** (k - 1), 0, 1, epsrel=1e-10)
        assert math.exp(log_bet(p)) == pytest.approx(direct, rel=1e-6)
    # Between p and p' bets sum to p · w(p), w = (1 − p) / (−p ln p)…: the mean over all p is 1, of which p > 1e-12 has most.
    gain, _ = integrate.quad(lambda x: math.exp(float(log_bet(math.exp(-x))) - x), 0, 600, limit=400)
    assert gain == pytest.approx(1 - 1 / 600, abs=1e-4)
    assert log_bet(0.0) == log_bet(1e-300)
    assert np.exp(log_bet(1e-9, 1000)) == pytest.approx(np.exp(log_bet(1e-6)))
    assert np.exp(log_bet(0.01, 1000)) == pytest.approx(0.5)


@settings(max_examples=150, deadline=None)
@given(
    *(st.floats(1e-30, 1.0) for _ in range(6)),
    st.booleans(),
)
def test_the_confidence_is_monotone_in_each_evidence(
    p: float, p2: float, n: float, n2: float, s: float, s2: float, agree: bool
) -> None:
    def sure(p: float, null_p: float, shown: float, cells: bool) -> float:
        return confidence(float(log_bet(p, 100)), null_p=null_p, q_shown=shown, cells_agree=cells)

    base = sure(p, n, s, agree)
    assert 0.0 <= base <= 1.0
    for better in (
        sure(min(p, p2), n, s, agree),
        sure(p, min(n, n2), s, agree),
        sure(p, n, min(s, s2), agree),
        sure(p, n, s, True),
    ):
        assert better >= base - 1e-12
    assert held(0.1) == pytest.approx(0.5)
    assert confidence(math.log(EVEN), null_p=0.0, q_shown=0.0) == pytest.approx(0.5)
    assert confidence(1e3, null_p=None, q_shown=None) < 0.5


def test_matched_lists_price_in_what_popular_genes_give() -> None:
    rng = np.random.default_rng(0)
    fair = rng.random(4000)
    assert fair_share(fair, 1) == pytest.approx(1.0, abs=0.35)
    assert fair_share([], 100) == 1.0
    popular = fair**3  # p-values three times as far out as they should be
    share = fair_share(popular, 1)
    assert share < 0.45
    assert np.mean(np.exp(log_bet(popular, 1, share=share))) == pytest.approx(1.0, abs=1e-3)
    deep = {"reactome": rows({"p": 1e-9, "q": 1e-5})}
    priced = named(found=deep, terms={"reactome": 1}, null={"reactome": popular.tolist()})
    fairly = named(found=deep, terms={"reactome": 1}, null={"reactome": fair.tolist()})
    assert priced["name_confidence"] < fairly["name_confidence"] - 0.2


def test_tables_that_lack_something_are_refused() -> None:
    with pytest.raises(DataError, match="reactome: the table of tests has no column 'genes'"):
        named(found={"reactome": rows({}).drop("genes")})
    with pytest.raises(DataError, match="reactome: how many of its terms were tested is not said"):
        named(found={"reactome": rows({})}, terms={})


class Library:
    """Terms over a background, and what tests of lists against them give, by scipy, and among like genes."""

    def __init__(self, sets: list[list[int]], genes: int) -> None:
        self.members = np.zeros((len(sets), genes), dtype=np.int32)
        for i, each in enumerate(sets):
            self.members[i, each] = 1
        self.sizes = self.members.sum(axis=1)
        self.strata = Strata(csr_array(self.members), Matched(self.members.sum(axis=0)[:, None], seed=0))

    def p(self, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        overlap = (lists.astype(np.float32) @ self.members.T.astype(np.float32)).astype(np.int64)
        listed = lists.sum(axis=1)[:, None]
        keys, back = np.unique(((overlap * 10_000 + self.sizes) * 1_000 + listed).ravel(), return_inverse=True)
        p = hypergeom.sf(keys // 10_000_000 - 1, lists.shape[1], keys // 1_000 % 10_000, keys % 1_000)
        return overlap, p[back].reshape(overlap.shape)

    def among_like(self, lists: np.ndarray, overlap: np.ndarray) -> np.ndarray:
        """P among genes of as many terms."""
        listed, index = (each.ravel() for each in np.indices(overlap.shape))
        return self.strata.p(csr_array(lists), listed=listed, index=index, overlap=overlap.ravel()).reshape(
            overlap.shape
        )

    def tests(self, lists: np.ndarray, shown: np.ndarray, null: list[np.ndarray]) -> tuple[pl.DataFrame, list[float]]:
        """The table of a validated run, and the least p of each matched list."""
        overlap, p = self.p(lists)
        null_p = self.among_like(lists, overlap)
        q = benjamini_hochberg(np.maximum(p, null_p).ravel()).reshape(p.shape)
        nulls = np.array([np.maximum(each[1], self.among_like(drawn, each[0])).min(axis=1)
                          for drawn in null for each in [self.p(drawn)]])  # fmt: skip
        f, t = np.nonzero((q <= 0.05) & (overlap > 0))
        again, p_shown = self.p(shown)
        p_shown = np.maximum(p_shown, self.among_like(shown, again))
        q_shown = benjamini_hochberg(p_shown[f, t]) if len(f) else np.empty(0)
        genes = [[f"G{i}" for i in np.flatnonzero(lists[a] & self.members[b])] for a, b in zip(f, t, strict=True)]
        columns = {
            "feature": f.astype(np.int32), "term": [f"T{i}" for i in t], "label": [f"term {i}" for i in t],
            "overlap": overlap[f, t], "list_size": lists.sum(axis=1)[f], "term_size": self.sizes[t],
            "background": np.full(len(f), lists.shape[1]), "expected": lists.sum(axis=1)[f] * self.sizes[t] / lists.shape[1],
            "p": p[f, t], "q": q[f, t], "null_p": null_p[f, t], "q_shown": q_shown,
            "genes": pl.Series(genes, dtype=pl.List(pl.String)),
        }  # fmt: skip
        return pl.DataFrame(columns), nulls.ravel().tolist()


def drawn(rng: np.random.Generator, weights: np.ndarray, *, n: int, size: int) -> np.ndarray:
    """Lists of genes without replacement, by weight (Efraimidis and Spirakis)."""
    keys = rng.exponential(size=(n, len(weights))) / weights
    lists = np.zeros((n, len(weights)), dtype=np.int32)
    np.put_along_axis(lists, np.argpartition(keys, size, axis=1)[:, :size], 1, axis=1)
    return lists


def simulate(
    libraries: list[list[list[int]]], genes: int, *, popular: bool, seed: int, n: int = 80, draws: int = 6
) -> dict[str, float]:
    """Shares of features without meaning that get a confidence above one half, by what the names could go by."""
    rng = np.random.default_rng(seed)
    often = np.zeros(genes)
    for sets in libraries:
        for each in sets:
            often[each] += 1
    weights = often + 0.01 if popular else np.ones(genes)
    lists, shown, *null = (drawn(rng, weights, n=n, size=40) for _ in range(2 + draws))
    found, least, plain = {}, {}, {}
    for i, sets in enumerate(libraries):
        found[f"own-{i}"], least[f"own-{i}"] = Library(sets, genes).tests(lists, shown, null)
        any_genes = Library(sets, genes)
        any_genes.strata = Strata(csr_array(any_genes.members), Matched(np.zeros(genes), seed=0))
        plain[f"own-{i}"] = any_genes.tests(lists, shown, [])[0]
    many = features(*({"feature": i} for i in range(n)))
    terms = {f"own-{i}": len(sets) for i, sets in enumerate(libraries)}

    def share(tables: dict[str, pl.DataFrame], **given: Any) -> float:
        table = name_features(many, tables, terms=terms, **given)
        return float((table["name_confidence"] > 0.5).mean())

    bare = {name: table.drop("null_p", "q_shown") for name, table in found.items()}
    return {
        "all": share(found, null=least),
        "without the lists": share(found),
        "lists alone": share({name: table.drop("q_shown") for name, table in found.items()}, null=least),
        "donors alone": share({name: table.drop("null_p") for name, table in found.items()}),
        "nothing": share(bare),
        "plain": share(plain, null={name: [1.0] for name in plain}),
        "plainly named": float(np.mean([table["feature"].n_unique() / n for table in plain.values()])),
    }


def synthetic(rng: np.random.Generator, genes: int) -> list[list[list[int]]]:
    """Three libraries in which some genes stand in far more terms than others."""
    fame = rng.pareto(2.0, genes) + 0.2
    fame /= fame.sum()
    sizes = (rng.pareto(1.5, (3, 100)) * 12 + 8).clip(max=150).astype(int)
    return [[rng.choice(genes, size, replace=False, p=fame).tolist() for size in each] for each in sizes]


@pytest.fixture(scope="module")
def null_shares() -> Iterator[dict[bool, list[dict[str, float]]]]:
    libraries = synthetic(np.random.default_rng(5), 1000)
    return {
        popular: [simulate(libraries, 1000, popular=popular, seed=seed) for seed in range(2)]
        for popular in (False, True)
    }


@pytest.mark.parametrize("popular", [False, True])
def test_features_without_meaning_seldom_get_more_than_a_half(popular: bool, null_shares: Any) -> None:
    """At most one in twenty, with a binomial allowance for 160 lists; also of lists of popular genes."""
    allowed = 0.05 + 2 * math.sqrt(0.05 * 0.95 / 160)
    shares = {name: float(np.mean([each[name] for each in null_shares[popular]])) for name in null_shares[popular][0]}
    for name in ("all", "lists alone", "donors alone", "without the lists", "nothing"):
        assert shares[name] <= allowed, (name, shares)
    assert shares["nothing"] == 0.0, "without a control nothing is sure"


def test_popular_lists_would_be_called_significant_and_sure(null_shares: Any) -> None:
    """Else the test above shows nothing: plain correction calls most of them, and other donors do not help."""
    assert np.mean([each["plainly named"] for each in null_shares[True]]) > 0.5
    assert np.mean([each["plain"] for each in null_shares[True]]) > 0.1


def test_features_with_meaning_do_get_more_than_a_half() -> None:
    rng = np.random.default_rng(1)
    library = synthetic(rng, 1000)[0]
    sets = [each for each in library if 20 <= len(each) <= 100]
    lists, shown, *null = (drawn(rng, np.ones(1000), n=len(sets), size=40) for _ in range(22))
    for i, each in enumerate(sets):
        for matrix in (lists, shown):
            matrix[i] = 0
            matrix[i, rng.choice(each, 15, replace=False)] = 1
            matrix[i, rng.choice(1000, 25, replace=False)] = 1
    found, least = Library(library, 1000).tests(lists, shown, null)
    many = features(*({"feature": i} for i in range(len(sets))))
    table = name_features(many, {"own": found}, terms={"own": len(library)}, null={"own": least})
    assert (table["name_confidence"] > 0.5).mean() > 0.9
    right = [term == f"T{library.index(each)}" for term, each in zip(table["name_term"], sets, strict=True)]
    assert np.mean(right) > 0.8


@pytest.mark.real_data
def test_lists_of_popular_genes_over_real_libraries(real_data: Path) -> None:
    tables = [gmt.read(real_data / "genesets" / f"human_{name}_v2025.gmt").table for name in ("hallmark", "reactome")]
    genes = {gene: i for i, gene in enumerate(sorted({gene for table in tables for gene in table["gene"]}))}
    libraries = []
    for table in tables:
        sets = [
            [genes[gene] for gene in set(each)]
            for each in table.group_by("term", maintain_order=True).agg("gene")["gene"]
        ]
        libraries.append([each for each in sets if 5 <= len(each) <= 500][:250])
    shares = simulate(libraries, len(genes), popular=True, seed=0, n=60, draws=4)
    assert shares["all"] <= 0.1
    assert shares["lists alone"] <= 0.1
