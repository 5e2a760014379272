"""What is here, what is said of a gene, and which terms there are: over small snapshots of real sources' forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from elute.base.errors import ConfigError, DamagedError, DataError, MissingError
from elute.validation import fetching, gene_lists, hgnc, library, lookups, snapshots

HEAD = "hgnc_id\tsymbol\tensembl_gene_id\tentrez_id\tuniprot_ids\tprev_symbol\talias_symbol\tlocus_group"
GENES = f"""{HEAD}
HGNC:1\tALFA\tENSG00000000001\t11\tP00001\tOLDA\tSHARED\tprotein-coding gene
HGNC:2\tBETA\tENSG00000000002\t12\tP00002\t\tSHARED\tprotein-coding gene
HGNC:3\tGAMA\tENSG00000000003\t13\tP00003\t\tOTHERC\tprotein-coding gene
"""
SETS = "HEART\tabout\tALFA\tBETA\nHEART_MUSCLE\tabout\tOLDA\tNOBODY\nLIVER\tabout\tGAMA\tOTHERC\n"


@pytest.fixture
def table(tmp_path: Path) -> None:
    path = tmp_path / "hgnc_complete_set.txt"
    path.write_text(GENES)
    hgnc.keep(path)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "sets.gmt"
    path.write_text(SETS)
    made, _ = fetching.import_named("my-sets", [str(path)])
    assert made[0].source == "my-sets"
    return "my-sets"


def test_on_a_fresh_machine_every_source_says_what_to_type() -> None:
    states = {name: library.standing(name) for name in library.names()}
    assert {name for name, each in states.items() if each.state == "packaged"} == {"hpo", "omim", "orphanet", "markers"}
    for name, each in states.items():
        if each.state != "packaged":
            assert each.line.startswith("not installed: elute databases "), each.line
            assert name in each.line
    assert "--accept-licence" in states["kegg"].line
    assert "import disgenet FILE" in states["disgenet"].line
    assert states["disgenet"].online == "needs DISGENET_API_KEY"
    assert states["gencc"].online == "no service"
    with pytest.raises(MissingError, match="elute databases fetch reactome"):
        library.opened("reactome")


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("name", ["ALFA", "alfa", "OLDA", "HGNC:1", "ENSG00000000001.3", "11", "P00001"])
def test_a_gene_is_found_by_any_of_its_names(mine: str, name: str) -> None:
    told = lookups.inform(name, [mine], limit=5).summary
    assert told["gene"]["symbol"] == "ALFA"
    assert told["former"] == ["OLDA"]
    said = told["said"][0]
    assert sorted(row["label"] for row in said["rows"]) == ["HEART", "HEART_MUSCLE"]
    assert said["count"] == 2
    assert said["version"]


@pytest.mark.usefixtures("table")
def test_names_of_several_genes_and_of_none(mine: str) -> None:
    with pytest.raises(ConfigError, match="more than one gene: ALFA, BETA"):
        lookups.inform("SHARED", [mine], limit=5)
    with pytest.raises(ConfigError, match="no gene is called 'BETTA'. Did you mean 'BETA'"):
        lookups.inform("BETTA", [mine], limit=5)
    with pytest.raises(ConfigError, match="names no gene"):
        lookups.inform("  ", [mine], limit=5)


def test_without_hgnc_a_gene_is_found_as_it_is_written(mine: str) -> None:
    told = lookups.inform("OLDA", [mine], limit=5).summary
    assert [row["label"] for row in told["said"][0]["rows"]] == ["HEART_MUSCLE"]
    assert "elute databases fetch hgnc" in told["note"]
    with pytest.raises(ConfigError, match="elute databases fetch hgnc"):
        lookups.inform("NOWHERE", [mine], limit=5)


@pytest.mark.usefixtures("table")
def test_what_is_not_here_is_named_with_what_to_type(mine: str) -> None:
    told = lookups.inform("ALFA", [mine, "reactome", "disgenet"], limit=1).summary
    mine_said, reactome, disgenet = told["said"]
    assert (mine_said["count"], len(mine_said["rows"])) == (2, 1)
    assert reactome["rows"] is None
    assert "fetch reactome" in reactome["why"]
    assert "import disgenet" in disgenet["why"]


def test_databases_that_share_rows_are_one_witness() -> None:
    assert library.kin(["hpo", "string-db", "orphanet", "gwas-catalog"]) == [
        ["string-db"],
        ["hpo", "orphanet"],
        ["gwas-catalog"],
    ]
    assert library.kin(["gencc", "hpo"]) == [["gencc", "hpo"]]  # both take over Orphanet's


@pytest.mark.usefixtures("table")
def test_terms_are_found_by_words_and_by_id(mine: str) -> None:
    found = lookups.find("heart muscle", [mine, "reactome"], limit=5).summary
    assert [row["label"] for row in found["found"]] == ["HEART_MUSCLE"] or found["found"] == []
    found = lookups.find("heart", [mine, "reactome"], limit=5).summary
    assert [(row["label"], row["genes"]) for row in found["found"]] == [("HEART", 2), ("HEART_MUSCLE", 2)]
    assert list(found["absent"]) == ["Reactome"]
    assert found["versions"] == [f"my-sets {library.opened(mine).version}"]
    assert len(lookups.find("heart", [mine], limit=1).summary["found"]) == 1
    assert lookups.find("ALFA", [mine], limit=5).kind == "gene"
    with pytest.raises(ConfigError, match="a search needs a word"):
        lookups.search_terms("  ", [mine], limit=5)


@pytest.mark.usefixtures("table")
def test_lost_genes_of_a_source_are_listed(mine: str) -> None:
    mapped, snapshot = lookups.lost_genes(mine)
    assert snapshot.source == mine
    assert mapped.lost["gene"].to_list() == ["NOBODY"]
    assert mapped.counts["mapped"] == 5  # ALFA, BETA, OLDA, GAMA, OTHERC


@pytest.mark.usefixtures("table")
def test_what_is_installed_is_verified_and_what_is_damaged_named(mine: str, data: Path) -> None:
    good = library.verified(())
    assert list(good) == ["hgnc", f"my-sets {library.opened(mine).version}"]
    assert not any(good.values())
    path = library.opened(mine).folder / "table.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    genes = data / "genes" / "hgnc_complete_set.txt"
    genes.write_text(GENES + "HGNC:4\tDELT\t\t\t\t\t\tprotein-coding gene\n")
    bad = library.verified(())
    assert all(len(faults) == 1 for faults in bad.values())
    assert "was altered" in bad["hgnc"][0]
    with pytest.raises(DamagedError):
        lookups.lost_genes(mine)
    (path.parent / snapshots.RECORD).write_text("[]")
    assert library.standing(mine).state == "damaged"
    with pytest.raises(MissingError, match="not installed"):
        library.verified(("reactome",))


def test_a_damaged_hgnc_table_does_not_replace_a_right_one(table: None, tmp_path: Path, data: Path) -> None:
    bad = tmp_path / "other.txt"
    bad.write_text(GENES[:-40])
    with pytest.raises(DataError):
        hgnc.keep(bad)
    assert (data / "genes" / "hgnc_complete_set.txt").read_text() == GENES
    assert hgnc.verify() == []
    told = hgnc.standing()
    assert told is not None
    assert told["genes"] == 3


LISTS = {
    "plain.txt": "ALFA\nOLDA\nSHARED\nNOBODY\nALFA\n",
    "headed.txt": "gene\nALFA\nOLDA\nSHARED\nNOBODY\nALFA\n",
    "table.csv": "cluster,gene\n1,ALFA\n2,OLDA\n3,SHARED\n4,NOBODY\n5,ALFA\n",
    "table.tsv": 'logFC\tid\tnote\n0.1\tALFA\t"a, b"\n2\tOLDA\t\n3\tSHARED\t\n4\tNOBODY\t\n5\tALFA\t\n',
}


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_genes_in_any_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(LISTS[name])
    listed = gene_lists.map_list(gene_lists.read_list(path), kind="symbol" if "." in name and "table" in name else None)
    assert listed.table["symbol"].to_list() == ["ALFA", "ALFA", None, None, "ALFA"]
    assert listed.counts() == {"mapped": 3, "ambiguous": 1, "unknown": 1}
    assert listed.table["candidates"].to_list()[2] == "HGNC:1 HGNC:2"
    told = gene_lists.summary(listed)
    assert (told["identifiers"], told["unknown"], told["ambiguous"]) == (
        5,
        ["NOBODY"],
        {"SHARED": ["HGNC:1", "HGNC:2"]},
    )
    for suffix in (".tsv", ".csv", ".parquet"):
        gene_lists.write(listed, tmp_path / f"out{suffix}")
    assert (tmp_path / "out.tsv").read_text().splitlines()[1].split("\t")[:4] == ["ALFA", "mapped", "HGNC:1", "ALFA"]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# nothing\n", "lists no genes"),
        ("a,b\n1\n", "row 2 has 1 fields, and the header 2"),
        ("a,a\n1,2\n", "has the column 'a' twice"),
        ("a,b\n", "has a header and no rows"),
        ("NOT\nA\nGENE\n", "names no gene that HGNC knows"),
        ("a,b\nx,y\n", "names no gene that HGNC knows"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        gene_lists.map_list(gene_lists.read_list(path))


def test_a_list_needs_hgnc_and_a_column_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(LISTS["table.csv"])
    with pytest.raises(MissingError, match="elute databases fetch hgnc"):
        gene_lists.map_list(gene_lists.read_list(path))
    (tmp_path / "hgnc.txt").write_text(GENES)
    hgnc.keep(tmp_path / "hgnc.txt")
    with pytest.raises(ConfigError, match="Did you mean 'gene'"):
        gene_lists.map_list(gene_lists.read_list(path), column="genes")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("eccite_papalexi_perturbseq_20729x299", {"mapped": 268, "unknown": 31}),
        ("glioblastoma_panobinostat_5000x300", {"mapped": 298, "unknown": 2}),
        ("kang_ifnb_muscat_1556x1267", {"mapped": 1173, "ambiguous": 1, "unknown": 93}),
        ("pbmc1k_10xv2_996x33538", {"mapped": 23503, "ambiguous": 3, "unknown": 10032}),
        ("pbmc3k_labelled_500x12627", {"mapped": 11664, "ambiguous": 5, "unknown": 958}),
        ("pbmc_multidataset_2100x21802", {"mapped": 17396, "ambiguous": 6, "unknown": 4400}),
    ],
)
def test_genes_of_real_cells(real_data: Path, name: str, counts: dict[str, int]) -> None:
    hgnc.keep(real_data / "genes" / "hgnc_complete_set.txt.gz")
    listed = gene_lists.map_list(gene_lists.read_list(real_data / "cells" / f"{name}.h5ad"))
    assert listed.counts() == counts
