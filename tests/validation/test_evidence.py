"""Which associations count: every rule by hand, on rows as the sources' own readers write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from elute.base import plugins
from elute.base.errors import ConfigError, DataError, MissingError
from elute.validation import library
from elute.validation.evidence import ALL, LEVELS, RULES, filter_evidence, rule_of
from elute.validation.reading import variants
from elute.validation.reading.associations import schema
from elute.validation.reading.obo import read_obo
from elute.validation.sources import gencc


def table(
    *rows: tuple[Any, ...], columns: tuple[str, ...] = ("gene", "term", "score", "evidence", "group")
) -> pl.DataFrame:
    """Rows of the one table; what is not said is null."""
    given = [dict(zip(columns, row, strict=True)) for row in rows]
    full = [{"gene_kind": "symbol", "label": row.get("term"), **row} for row in given]
    return pl.DataFrame(full, schema=schema())


def kept(source: str, level: Any, *rows: tuple[Any, ...], **settings: Any) -> list[str]:
    return filter_evidence(table(*rows), source, level=level, **settings).table["gene"].to_list()


def row(
    gene: str, score: float | None = None, evidence: str | None = None, group: str | None = None, term: str = "T"
) -> tuple[Any, ...]:
    return gene, term, score, evidence, group


def test_rules_are_for_databases_that_there_are_and_say_what_they_keep() -> None:
    assert set(RULES) <= {library.database(name).name for name in plugins.names("sources")}
    assert rule_of("open_targets") == rule_of("open-targets")
    for source, levels in RULES.items():
        assert set(levels) == {"standard", "strict"}
        for level in LEVELS:
            said = rule_of(source, level).keeps
            assert said
            assert "{" not in said, "the least score is filled in"
        assert rule_of(source, "all").keeps == ALL


@pytest.mark.parametrize(
    ("source", "standard", "strict"),
    [("open-targets", 0.3, 0.5), ("disgenet", 0.3, 0.5), ("string-db", 0.7, 0.9), ("gencc", 3.0, 5.0)],
)
def test_scores(source: str, standard: float, strict: float) -> None:
    rows = [row("low", standard - 0.01), row("fair", standard), row("good", strict), row("none")]
    assert kept(source, "all", *rows) == ["low", "fair", "good", "none"]
    assert kept(source, "standard", *rows) == ["fair", "good"]
    assert kept(source, "strict", *rows) == ["good"]
    assert kept(source, "standard", *rows, least=standard - 0.01) == ["low", "fair", "good"]


def test_a_least_score_of_ones_own_is_said() -> None:
    assert "0.1 or more" in rule_of("open_targets", "standard", least=0.1).keeps
    assert rule_of("reactome", least=2).keeps == f"{ALL}, with a score of 2 or more"
    with pytest.raises(ConfigError, match="no scores to choose by"):
        kept("reactome", "standard", row("A"), least=0.5)
    with pytest.raises(ConfigError, match="no scores to choose by"):
        kept("open_targets", "standard", row("A"))
    assert kept("reactome", "standard") == []


def test_what_is_left_out_is_counted_step_by_step() -> None:
    rows = [row("A", 9.0, "S1"), row("A", 8.0, "S2"), row("B", 9.0, "S1", "intergenic"), row("C", 5.0, "S1")]
    record = filter_evidence(table(*rows), "gwas_catalog").record
    assert record["left_out"] == {"with a score below 7.3, or none": 1, "of variants between two genes": 1}
    assert (record["rows"], record["kept"], record["pairs"], record["pairs_kept"]) == (4, 2, 3, 1)
    assert record["level"] == "standard"
    assert record["keeps"].startswith("variants with −log10 p of 7.3 or more")
    assert record["why"] == ""


def test_gwas_strict_asks_for_two_studies_of_what_is_good_enough() -> None:
    rows = [row("A", 9.0, "S1"), row("A", 8.0, "S2"), row("B", 9.0, "S1"), row("B", 6.0, "S2"), row("C", 9.0, "S1")]
    rows += [row("C", 9.0, "S2", "intergenic"), row("D", 9.0, "S1"), row("D", 9.0, "S2", term="U")]
    assert kept("gwas_catalog", "strict", *rows) == ["A", "A"]


def test_gencc_strict_leaves_out_what_is_disputed() -> None:
    rows = [
        row("A", gencc.RANKS["definitive"], "Definitive, ClinGen"),
        row("B", gencc.RANKS["definitive"], "Definitive, Ambry Genetics; against: Disputed Evidence, ClinGen"),
        row("C", gencc.RANKS["moderate"], "Moderate, ClinGen"),
        row("D", gencc.RANKS["supportive"], "Supportive, Orphanet"),
    ]
    assert kept("gencc", "standard", *rows) == ["A", "B", "C"]
    assert kept("gencc", "strict", *rows) == ["A"]


def test_clinvar_counts_stars_as_its_reader_does() -> None:
    for stars, words in variants._REVIEWS:
        review = f"criteria provided, {words}"
        assert kept("clinvar", "standard", row("A", 1, review, "variants")) == ["A"]
        assert kept("clinvar", "strict", row("A", 1, review, "variants")) == (["A"] if stars >= 2 else [])
    rows = [
        row("named", None, "OMIM", "associated"),
        row("near", None, "OMIM", "related"),
        row("starless", 1, "no assertion criteria provided", "variants"),
        row("unsaid", 1, None, "variants"),
    ]
    assert kept("clinvar", "standard", *rows) == ["named"]
    record = filter_evidence(table(*rows), "clinvar", level="strict").record
    assert record["kept"] == 0
    assert record["why"].startswith("none of 4 associations is good enough (conditions of a gene's")


def test_hpo_by_how_often_a_phenotype_is_seen() -> None:
    seen = {
        "obligate": "OMIM:1 obligate",
        "unsaid": "OMIM:1",
        "half": "OMIM:1 3/6",
        "third": "OMIM:1 33%",
        "occasional": "OMIM:1 occasional",
        "few": "OMIM:1 1/9",
        "percent": "OMIM:1 5%",
        "rare": "ORPHA:2 very rare",
        "never": "OMIM:1 0/7",
    }
    rows = [row(gene, None, text, "phenotype") for gene, text in seen.items()]
    rows += [row("mode", None, "OMIM:1", "mode of inheritance")]
    rows += [
        row("mendel", None, "MENDELIAN", "disease"),
        row("poly", None, "POLYGENIC", "disease"),
        row("bare", None, None, "disease"),
    ]
    assert kept("hpo", "standard", *rows) == [*list(seen)[:-1], "mendel", "poly", "bare"]
    assert kept("hpo", "strict", *rows) == ["obligate", "unsaid", "half", "third", "mendel"]


def test_omim_and_orphanet_of_their_own_files_and_of_hpos_copy() -> None:
    omim = [
        row("sure", None, "molecular basis known (3); Autosomal dominant", "disease"),
        row("maybe", None, "provisional; molecular basis known (3)", "disease"),
        row("prone", None, "molecular basis known (3)", "susceptibility"),
        row("linked", None, "linked to the locus (2)", "disease"),
    ]
    copy = row("copy", None, "HPO annotation", "disease")
    assert kept("omim", "standard", *omim, copy) == ["sure", "maybe", "prone", "copy"]
    assert kept("omim", "strict", *omim, copy) == ["sure"]
    orphanet = [
        row("sure", None, "Disease-causing germline mutation(s) in", "causal"),
        row("maybe", None, "Disease-causing germline mutation(s) in; Not yet assessed", "causal"),
        row("prone", None, "Major susceptibility factor in", "susceptibility"),
        row("modifier", None, "Modifying germline mutation in", "modifier"),
    ]
    assert kept("orphanet", "standard", *orphanet, copy) == ["sure", "maybe", "prone", "copy"]
    assert kept("orphanet", "strict", *orphanet, copy) == ["sure"]
    assert filter_evidence(table(copy), "orphanet", level="strict").record["why"]


def test_monarch_and_markers_of_cells() -> None:
    groups = [row(group, None, "causes; omim", group) for group in ("causal", "noncausal", "phenotype")]
    assert kept("monarch", "standard", *groups) == ["causal", "phenotype"]
    assert kept("monarch", "strict", *groups) == ["causal"]
    cells = [
        row("listed", 1, "Single-cell sequencing", "normal"),
        row("tried", 1, "Experiment", "normal"),
        row("unsaid", None, None, "normal"),
        row("often", 3, "Single-cell sequencing", "normal"),
        row("tumour", 5, "Experiment", "cancer"),
    ]
    assert kept("cellmarker", "standard", *cells) == ["tried", "often", "tumour"]
    assert kept("cellmarker", "strict", *cells) == ["often"]
    panglao = [
        row("A", 0.9, "canonical marker"),
        row("B", 0.05, "canonical marker"),
        row("C", 0.9, "marker"),
        row("D", None, "canonical marker"),
    ]
    assert kept("panglaodb", "standard", *panglao) == ["A", "B", "D"]
    assert kept("panglaodb", "strict", *panglao) == ["A"]


OBO = """format-version: 1.2

[Term]
id: GO:1
name: top
namespace: biological_process

[Term]
id: GO:2
name: left
namespace: biological_process
is_a: GO:1

[Term]
id: GO:3
name: right
namespace: biological_process
relationship: part_of GO:1
"""


def test_go_strict_inherits_anew(tmp_path: Path) -> None:
    path = tmp_path / "go.obo"
    path.write_text(OBO)
    ontology = read_obo(path)
    columns = ("gene", "term", "evidence")
    rows = table(
        ("A", "GO:2", "IEA"), ("A", "GO:1", "inherited"),  # electronic alone, so is what is above it
        ("B", "GO:3", "IDA,IEA"), ("B", "GO:1", "inherited"),  # part of
        ("C", "GO:2", "IEA"), ("C", "GO:3", "TAS"), ("C", "GO:1", "inherited"),  # above a better one, too
        ("D", "GO:2", "IMP"), ("D", "GO:1", "IEA"),  # electronic itself, but also above what is not
        columns=columns,
    )  # fmt: skip
    assert filter_evidence(rows, "go", level="standard").record["kept"] == len(rows)
    strict = filter_evidence(rows, "go", level="strict", ontology=ontology)
    found = strict.table.select("gene", "term").rows()
    assert found == [("B", "GO:3"), ("B", "GO:1"), ("C", "GO:3"), ("C", "GO:1"), ("D", "GO:2"), ("D", "GO:1")]
    assert sum(strict.record["left_out"].values()) == 3
    with pytest.raises(MissingError, match="takes the ontology's own file"):
        filter_evidence(rows, "go", level="strict")


def test_a_database_without_a_rule_keeps_all_and_wrong_words_are_refused() -> None:
    rows = [row("A"), row("B", 0.0)]
    for source in ("reactome", "hallmark", "my-sets"):
        for level in LEVELS:
            assert kept(source, level, *rows) == ["A", "B"]
    with pytest.raises(ConfigError, match="no level 'strickt' of evidence.*'strict'"):
        kept("omim", "strickt", *rows)
    with pytest.raises(DataError, match="no column 'evidence'"):
        filter_evidence(table(row("A")).drop("evidence"), "omim")


@pytest.mark.parametrize("source", sorted(RULES))
def test_a_stricter_level_keeps_no_more(source: str) -> None:
    """Over every combination of values that sources write."""
    evidence = [
        None,
        "",
        "IEA",
        "IDA",
        "Experiment",
        "canonical marker",
        "Definitive, X",
        "criteria provided, multiple submitters, no conflicts",
    ]
    evidence += [
        "molecular basis known (3)",
        "HPO annotation",
        "OMIM:1 2/9",
        "MENDELIAN",
        "Strong, X; against: Y",
        "S1",
        "S2",
    ]
    groups = [None, "phenotype", "disease", "causal", "variants", "associated", "normal", "intergenic"]
    rows = [
        row(f"G{i}{j}{k}", s, e, g)
        for i, s in enumerate((None, 0.4, 0.95, 3.0, 9.0))
        for j, e in enumerate(evidence)
        for k, g in enumerate(groups)
    ]
    ontology = None
    if source == "go":
        from elute.validation.reading.obo import Ontology

        ontology = Ontology("", {"T": "t"}, {"T": ()}, {}, {"T": ""}, {}, {}, frozenset(), {}, {})
    everything = set(kept(source, "all", *rows))
    standard = set(kept(source, "standard", *rows))
    strict = set(kept(source, "strict", *rows, ontology=ontology))
    assert strict <= standard <= everything
    assert len(strict) < len(everything) == len(rows)


def test_rows_mapped_to_genes_keep_their_further_columns() -> None:
    rows = table(row("A", 0.8), row("B", 0.1)).with_columns(hgnc=pl.lit("HGNC:1"), symbol=pl.lit("A"))
    assert filter_evidence(rows, "open_targets").table.columns == rows.columns
