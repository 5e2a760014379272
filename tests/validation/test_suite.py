"""All databases that are asked: planted terms are found, nothing else is, and what cannot run is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from elute.base.errors import ConfigError, DataError
from elute.validation import fetching, hgnc, library
from elute.validation.asked import Asked, keys_of
from elute.validation.enrich import enrich
from elute.validation.settings import DatabaseConfig
from elute.validation.suite import ask_databases, chosen, line, name_features, snapshots_of

G, T, F = 300, 20, 60
SYMBOLS = [f"GEN{chr(65 + i // 100)}{i % 100}" for i in range(G)]
HEAD = "hgnc_id\tsymbol\tensembl_gene_id\tentrez_id\tuniprot_ids\tprev_symbol\talias_symbol\tlocus_group\n"
FAST = {"sources": "my-sets", "null": "20"}


@pytest.fixture
def genes(tmp_path: Path) -> None:
    rows = [f"HGNC:{i + 1}\t{s}\tENSG{i:011d}\t{i + 1}\t\t\t\tprotein-coding gene\n" for i, s in enumerate(SYMBOLS)]
    (tmp_path / "hgnc.txt").write_text(HEAD + "".join(rows))
    hgnc.keep(tmp_path / "hgnc.txt")


@pytest.fixture
def sets(tmp_path: Path) -> list[list[str]]:
    """Twenty sets of 12 genes each, drawn at random."""
    rng = np.random.default_rng(1)
    drawn = [[SYMBOLS[i] for i in rng.choice(G, 12, replace=False)] for _ in range(T)]
    path = tmp_path / "sets.gmt"
    path.write_text("".join(f"SET_{i}\tabout\t" + "\t".join(each) + "\n" for i, each in enumerate(drawn)))
    fetching.import_named("my-sets", [str(path)], version="1")
    return drawn


def asked(lists: list[list[str]], **more: object) -> Asked:
    named = dict(keys_of(SYMBOLS).select("symbol", "key").iter_rows())
    rng = np.random.default_rng(2)
    table = keys_of(SYMBOLS).with_columns(
        measured=pl.lit(True), expression=pl.Series(rng.random(G)), detection=pl.Series(rng.random(G))
    )
    keyed = [[named[name] for name in each] for each in lists]
    further = {
        name: [[named[gene] for gene in each] for each in value] if isinstance(value, list) else value
        for name, value in more.items()
    }
    return Asked(keyed, table, told=("in the vocabulary", "measured"), numbers=list(range(len(lists))), **further)


def random_lists(seed: int, n: int = F) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[SYMBOLS[i] for i in rng.choice(G, 15, replace=False)] for _ in range(n)]


@pytest.mark.usefixtures("genes")
def test_planted_terms_are_found_beside_their_null(sets: list[list[str]], tmp_path: Path) -> None:
    lists, shown = random_lists(3), random_lists(4)
    for i in range(10):
        lists[i] = sets[i][:9] + lists[i][:6]
        shown[i] = sets[i][:8] + shown[i][:7] if i < 5 else shown[i]
    given = asked(lists, shown=shown)
    told = ask_databases(given, DatabaseConfig(**FAST), tmp_path)
    record = told["databases"]["my-sets"]
    assert (record["status"], record["terms"], record["tests"]) == ("run", T, T * F)
    assert 10 <= record["significant"] <= 12
    assert record["again"] == 5
    assert record["null"]["draws"] == 20
    assert record["null"]["mean"] < 3
    assert record["null"]["low"] <= record["null"]["mean"] <= record["null"]["high"]
    assert record["excess"] == pytest.approx(record["significant"] - record["null"]["mean"], abs=0.1)
    assert record["excess_low"] > 0
    annotated = {gene for each in sets for gene in each}
    assert record["genes"] == len(annotated)
    told_of = f"in the vocabulary (300), measured (300 of these), annotated in my-sets 1 ({len(annotated)} of these)"
    assert record["background"] == f"{len(annotated)} genes: {told_of}"
    table = pl.read_parquet(tmp_path / "my-sets.parquet")
    best = table.sort("p").unique("feature", keep="first", maintain_order=True).sort("feature")
    assert best.filter(pl.col("feature") < 10)["term"].to_list() == [f"SET_{i}" for i in range(10)]
    row = table.filter((pl.col("feature") == 0) & (pl.col("term") == "SET_0")).row(0, named=True)
    assert (row["term_size"], row["background"]) == (12, len(annotated))
    assert row["list_size"] == len(set(lists[0]) & annotated)
    assert row["genes"][:9] == sets[0][:9]
    assert row["q"] < 1e-4
    assert "matched lists" in line(record)
    features = pl.DataFrame({"feature": list(range(F)), "top_genes": lists}, schema_overrides={"feature": pl.Int32})
    named = name_features(features, tmp_path, told, genes=pl.DataFrame({"feature": [], "symbol": []}))
    assert named["name_term"].to_list()[:5] == [f"SET_{i}" for i in range(5)]
    again = name_features(named, tmp_path, told, genes=pl.DataFrame({"feature": [], "symbol": []}))
    assert again.equals(named)


@pytest.mark.usefixtures("genes", "sets")
def test_where_there_is_nothing_the_excess_holds_nothing(tmp_path: Path) -> None:
    held = 0
    for seed in range(6):
        record = ask_databases(asked(random_lists(100 + seed)), DatabaseConfig(**FAST), tmp_path)["databases"][
            "my-sets"
        ]
        held += record["excess_low"] <= 0 <= record["excess_high"]
    assert held >= 5


@pytest.mark.usefixtures("genes")
def test_lists_with_nothing_in_them_count_and_are_not_found(sets: list[list[str]], tmp_path: Path) -> None:
    lists = [sets[0], [], []]
    told = ask_databases(asked(lists, controls={}), DatabaseConfig(**FAST), tmp_path)["databases"]["my-sets"]
    assert (told["features"], told["with_genes"], told["significant"]) == (3, 1, 1)
    assert told["tests"] == 3 * T


@pytest.mark.usefixtures("genes", "sets")
def test_what_cannot_run_is_told_and_the_rest_runs(tmp_path: Path) -> None:
    config = DatabaseConfig(sources="reactome, my-sets,disgenet", null="none")
    told = ask_databases(asked(random_lists(5)), config, tmp_path)
    assert [name for name, record in told["databases"].items() if record["status"] == "run"] == ["my-sets"]
    assert "elute databases fetch reactome" in told["databases"]["reactome"]["why"]
    assert "elute databases import disgenet" in told["databases"]["disgenet"]["why"]
    assert told["databases"]["my-sets"]["null"] is None
    assert "null not run" in line(told["databases"]["my-sets"])
    path = library.opened("my-sets").folder / "table.parquet"
    path.write_bytes(b"damaged")
    told = ask_databases(asked(random_lists(7)), config, tmp_path)
    assert "has 7 bytes" in told["databases"]["my-sets"]["why"]
    assert not (tmp_path / "my-sets.parquet").exists()


@pytest.mark.usefixtures("genes", "sets")
def test_a_background_of_ones_own_and_one_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "background.txt").write_text("\n".join(SYMBOLS[:200]) + "\n")
    config = DatabaseConfig(**FAST, background=str(tmp_path / "background.txt"))
    record = ask_databases(asked(random_lists(6)), config, tmp_path)["databases"]["my-sets"]
    assert record["genes"] <= 200
    assert "background.txt" in record["background"]
    (tmp_path / "mouse.txt").write_text("Gena1\nActb\nTrp53\n")
    config = DatabaseConfig(**FAST, background=str(tmp_path / "mouse.txt"))
    record = ask_databases(asked(random_lists(6)), config, tmp_path)["databases"]["my-sets"]
    assert record["status"] == "not run"


def test_which_databases_are_asked(sets: list[list[str]]) -> None:
    assert [each.name for each in chosen(DatabaseConfig(tiers="1"))] == ["gwas-catalog", "hpo", "open-targets"]
    assert "my-sets" in [each.name for each in chosen(DatabaseConfig(tiers="4"))]
    assert [each.name for each in chosen(DatabaseConfig(sources="my-sets,hpo,my-sets"))] == ["my-sets", "hpo"]
    with pytest.raises(ConfigError, match="Did you mean 'reactome'"):
        chosen(DatabaseConfig(sources="reaktome"))
    with pytest.raises(ConfigError, match="names no database"):
        chosen(DatabaseConfig(sources=" , "))
    before = snapshots_of(DatabaseConfig(sources="my-sets,reactome"))
    assert before["reactome"] == "none none"
    assert len(before["my-sets"].split()[0]) == 64


@pytest.mark.usefixtures("genes")
def test_a_list_that_a_person_types(sets: list[list[str]]) -> None:
    told = enrich([*sets[3][:8], "nobody", sets[3][0].lower()], DatabaseConfig(**FAST)).summary
    assert told["lost"] == ["nobody"]
    assert told["genes"] == 8
    best = told["databases"]["my-sets"]["rows"][0]
    assert (best["term"], best["overlap"]) == ("SET_3", 8)
    with pytest.raises(DataError, match="1 genes are no list"):
        enrich(["A"], DatabaseConfig(**FAST))
    with pytest.raises(DataError, match="HGNC knows 0 of 2 genes: x, y"):
        enrich(["x", "y"], DatabaseConfig(**FAST))


def test_what_comes_with_a_package_is_of_one_version_from_the_first_time_on() -> None:
    config = DatabaseConfig(sources="markers")
    first = snapshots_of(config)
    library.table("markers")
    assert "none" not in first["markers"].split()[0]
    assert snapshots_of(config) == first
