"""Annotations in GAF 2: what counts as one, what does not, and what is no such file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from elute.base.errors import DamagedError, DataError
from elute.validation.reading.gaf import COLUMNS, read_gaf

HEAD = "!gaf-version: 2.2\n!\n!date-generated: 2025-03-16T08:30\n!generated-by: GOC\n"


def line(**given: str) -> str:
    fields = {
        "db": "UniProtKB",
        "object_id": "P04637",
        "symbol": "TP53",
        "qualifier": "involved_in",
        "term": "GO:0006915",
        "reference": "PMID:1",
        "evidence": "IDA",
        "aspect": "P",
        "name": 'a "quoted name',
        "type": "protein",
        "taxon": "taxon:9606",
        "date": "20200101",
        "assigned_by": "UniProt",
    }
    return "\t".join((fields | given).get(column, "") for column in COLUMNS)


def written(folder: Path, *lines: str, head: str = HEAD) -> Path:
    path = folder / "some.gaf"
    path.write_text(head + "".join(f"{each}\n" for each in lines))
    return path


def test_a_row_for_each_code_once(tmp_path: Path) -> None:
    read = read_gaf(written(tmp_path, line(), line(reference="PMID:2"), line(evidence="IEA"), line(symbol="MDM2")))
    assert read.table.rows() == [
        ("TP53", "symbol", "GO:0006915", "IDA"),
        ("TP53", "symbol", "GO:0006915", "IEA"),
        ("MDM2", "symbol", "GO:0006915", "IDA"),
    ]
    assert (read.version, read.notes) == ("2025-03-16", ())


def test_what_is_no_annotation_is_left_out_and_counted(tmp_path: Path) -> None:
    read = read_gaf(
        written(
            tmp_path,
            line(),
            line(symbol="A1", qualifier="NOT|involved_in"),
            line(symbol="A2", qualifier="NOT"),
            line(symbol="A3", qualifier="NOTHING_OF_THE_KIND"),
            line(symbol="A4", evidence="ND"),
            line(symbol="A5", taxon="taxon:10090"),
            line(symbol="A6", taxon="taxon:9606|taxon:562"),
            line(symbol="A7", db="ComplexPortal"),
            line(symbol="A8", db="RNAcentral", qualifier=""),
        )
    )
    assert read.table["gene"].to_list() == ["TP53", "A3", "A6"]
    assert read.notes == (
        "2 of 9 annotations left out: those that say NOT",
        "1 of 9 annotations left out: those without data (ND)",
        "1 of 9 annotations left out: those of other species",
        "2 of 9 annotations left out: those of complexes and RNAs",
    )


def test_a_product_without_a_symbol_goes_by_its_accession(tmp_path: Path) -> None:
    read = read_gaf(written(tmp_path, line(symbol="")))
    assert read.table.rows() == [("P04637", "uniprot", "GO:0006915", "IDA")]


def test_without_a_head_and_packed(tmp_path: Path) -> None:
    plain = written(tmp_path, line(), line(symbol="MDM2"), head="")
    packed = tmp_path / "packed.gaf.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_gaf(plain).table.equals(read_gaf(packed).table)
    assert read_gaf(plain).version == ""


@pytest.mark.parametrize(
    ("content", "kind", "what"),
    [
        ("", DamagedError, "is empty"),
        (HEAD, DataError, "lacks|no rows"),
        (HEAD.replace("2.2", "1.0") + line() + "\n", DataError, "is GAF 1.0, not GAF 2"),
        ("!gpa-version: 1.1\nUniProtKB\tP1\tinvolved_in\tGO:0006915\n", DataError, "lacks the columns"),
        (HEAD + line() + "\n" + line()[:40] + "\tx" * 30 + "\n", DamagedError, "line 6 has .* fields"),
        (HEAD + line(taxon="taxon:10090") + "\n", DataError, "no annotation of the species 9606"),
        (HEAD + line(term="apoptosis") + "\n", DataError, "'apoptosis' is no id"),
        ("<html><body>403</body></html>", DamagedError, "web page"),
        ("gene,term\nTP53,GO:0006915\n", DataError, "lacks the columns"),
    ],
)
def test_what_is_no_gaf_is_refused_in_a_line(tmp_path: Path, content: str, kind: type[DataError], what: str) -> None:
    path = tmp_path / "bad.gaf"
    path.write_text(content)
    with pytest.raises(kind, match=what) as caught:
        read_gaf(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gaf.gz"
    lines = "\n".join(line(symbol=f"GENE{n}", reference=f"PMID:{n * n}") for n in range(2000))
    path.write_bytes(gzip.compress((HEAD + lines).encode())[:-200])
    with pytest.raises(DamagedError, match="cut short"):
        read_gaf(path)


@pytest.mark.real_data
def test_the_head_of_a_real_file(real_data: Path) -> None:
    path = real_data / "databases" / "go" / "oak_test-uniprot_head40.gaf"
    read = read_gaf(path)
    raw = [each.split("\t") for each in path.read_text().splitlines()]
    assert set(read.table.rows()) == {(r[2], "symbol", r[4], r[6]) for r in raw}
    assert (len(raw), len(read.table), read.table["gene"].n_unique()) == (40, 35, 14)
    assert read.notes == ()
