"""Whose gene it is: identifiers of every kind become HGNC ids, and what is lost is counted."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from elute.base.genes import GeneTable
from elute.validation import mapping
from elute.validation.reading.associations import finish

HEAD = "hgnc_id\tsymbol\tensembl_gene_id\tentrez_id\tuniprot_ids\tprev_symbol\talias_symbol\tlocus_group"
GENES = f"""{HEAD}
HGNC:1\tALFA\tENSG00000000001\t11\tP00001\tOLDA\tSHARED\tprotein-coding gene
HGNC:2\tBETA\tENSG00000000002\t12\tP00002\t\t"SHARED|OTHERB"\tprotein-coding gene
HGNC:3\tGAMA\tENSG00000000003\t13\tP00003\t\tALFA\tprotein-coding gene
"""


@pytest.fixture
def genes(data: Path) -> GeneTable:
    (data / "genes").mkdir(parents=True)
    (data / "genes" / "hgnc_complete_set.txt").write_text(GENES)
    found = mapping.gene_table()
    assert found is not None
    return found


def table(*rows: tuple[str, str, str | None]) -> pl.DataFrame:
    names = ("gene_kind", "gene", "called")
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    frame = frame.with_row_index("n").with_columns(term=pl.format("T:{}", "n"), label=pl.lit("x")).drop("n")
    return finish(frame, where="test")


def test_every_kind_of_identifier_leads_to_the_gene(genes: GeneTable) -> None:
    given = table(
        ("symbol", "alfa", None),
        ("symbol", "OLDA", None),
        ("symbol", "OTHERB", None),
        ("ensembl", "ENSG00000000001.7", None),
        ("entrez", "13", "whatever"),
        ("uniprot", "P00002", None),
        ("hgnc", "HGNC:3", None),
    )
    found = mapping.identify(given, genes)
    assert found.table["symbol"].to_list() == ["ALFA", "ALFA", "BETA", "ALFA", "GAMA", "BETA", "GAMA"]
    assert found.table["hgnc"].to_list() == ["HGNC:1", "HGNC:1", "HGNC:2", "HGNC:1", "HGNC:3", "HGNC:2", "HGNC:3"]
    assert len(found.lost) == 0
    assert found.counts["mapped"] == found.counts["genes"] == 7


def test_what_is_lost_is_counted_and_listed(genes: GeneTable) -> None:
    given = table(
        ("symbol", "SHARED", None),
        ("symbol", "SHARED", None),
        ("symbol", "NOBODY", None),
        ("entrez", "999", "BETA"),
        ("entrez", "998", "NOBODY"),
        ("string", "9606.ENSP1", None),
        ("string", "9606.ENSP2", "GAMA"),
        ("symbol", "ALFA", None),
    )
    found = mapping.identify(given, genes)
    assert found.table["symbol"].to_list() == ["BETA", "GAMA", "ALFA"]
    assert found.counts == {"genes": 7, "mapped": 3, "by_symbol": 2, "ambiguous": 1, "unknown": 3, "lost_rows": 5}
    assert found.lost.rows()[0] == ("SHARED", None, "ambiguous", "HGNC:1 HGNC:2", 2)
    assert set(found.lost["gene"]) == {"SHARED", "NOBODY", "998", "9606.ENSP1"}
    assert found.summary() == (
        "3 of 7 genes are HGNC's (2 by the symbol beside an unknown id); 1 ambiguous; 3 unknown: 5 rows lost"
    )


def test_without_hgnc_symbols_stand_as_they_are_written(data: Path) -> None:
    assert mapping.gene_table() is None
    found = mapping.identify(table(("symbol", "ALFA", None), ("entrez", "12", "BETA"), ("entrez", "13", None)), None)
    assert found.table.select("hgnc", "symbol").rows() == [(None, "ALFA"), (None, "BETA")]
    assert found.lost["gene"].to_list() == ["13"]


def test_a_newer_table_is_read_anew(genes: GeneTable, data: Path) -> None:
    path = data / "genes" / "hgnc_complete_set.txt"
    path.write_text(GENES.replace("BETA", "DELTA"))
    import os

    os.utime(path, ns=(1, 1))
    again = mapping.gene_table()
    assert again is not None
    assert mapping.identify(table(("entrez", "12", None)), again).table["symbol"].to_list() == ["DELTA"]
