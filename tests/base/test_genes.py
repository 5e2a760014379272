from __future__ import annotations

import csv
import gzip
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.base.genes import GeneTable, Guess, kind_of, strip_version

COLUMNS = ["hgnc_id", "symbol", "name", "locus_group", "alias_symbol", "prev_symbol",
           "entrez_id", "ensembl_gene_id", "uniprot_ids"]  # fmt: skip
CODING, PSEUDO = "protein-coding gene", "pseudogene"
GENES = [
    ["HGNC:1", "ALFA", "first", CODING, '"AL1|SHARED|BETA"', "", "101", "ENSG00000000001", "P00001"],
    ["HGNC:2", "BETA", "second", CODING, "SHARED", '"OLDB|SEP2"', "102", "ENSG00000000002", "P00002|Q00002"],
    ["HGNC:3", "GAMM", "third", CODING, "SEP2", "ALFA", "103", "ENSG00000000003", "P00003"],
    ["HGNC:4", "DELT1", "fourth", PSEUDO, "", '"OLDD"', "104", "ENSG00000000005", ""],
    ["HGNC:5", "DELT2", "fifth", CODING, "", '"OLDD"', "105", "ENSG00000000005", "P00005"],
    ["HGNC:6", "C9orf7", "sixth", "other", "p33", "", "", "", "P00005"],
    ["HGNC:7", "H2AC11", "with the form of an accession", CODING, "", "", "107", "ENSG00000000007", "P00007"],
]


def text_of(rows: list[list[str]], columns: list[str] = COLUMNS) -> bytes:
    return "".join("\t".join(row) + "\n" for row in [columns, *rows]).encode()


def write(folder: Path, content: bytes, name: str = "hgnc.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> GeneTable:
    return GeneTable.read(write(tmp_path_factory.mktemp("genes"), text_of(GENES)))


@pytest.mark.parametrize(
    ("ids", "guess"),
    [
        (["ENSG00000141510", "ENSG00000012048.23"], Guess("ensembl", 1.0, "human")),
        (["ensg00000141510", "ENSG00000182378.15_PAR_Y"], Guess("ensembl", 1.0, "human")),
        (["ENSMUSG00000059552", "ENSMUSG00000017146.13"], Guess("ensembl", 1.0, "mouse")),
        (["ENSRNOG00000010756"], Guess("ensembl", 1.0, "other")),
        (["ENSG00000141510", "ENSMUSG00000059552"], Guess("ensembl", 1.0, "unknown")),
        ([7157, 672, np.int64(675)], Guess("entrez", 1.0, "unknown")),
        ([7157.0, "672", None, float("nan")], Guess("entrez", 1.0, "unknown")),
        (["HGNC:11998", "hgnc:1100"], Guess("hgnc", 1.0, "human")),
        (["P04637", "Q9Y6K9-2", "A0A024R161"], Guess("uniprot", 1.0, "unknown")),
        (["TP53", "HLA-A", "C1orf21", "RP11-34P13.7"], Guess("symbol", 1.0, "human")),
        (["Trp53", "Gapdh", "mt-Nd1", "0610005C13Rik", "H2-Aa"], Guess("symbol", 1.0, "mouse")),
        (["tp53", "gapdh"], Guess("symbol", 1.0, "unknown")),
        (["TP53", "BRCA1", "H2AC11"], Guess("symbol", 2 / 3, "human")),
        ([" TP53 ", "ENSG00000141510", "MYC", "EGFR", ""], Guess("symbol", 0.75, "human")),
        (np.array(["TP53", "MYC"]), Guess("symbol", 1.0, "human")),
        (pl.Series(["TP53", None]), Guess("symbol", 1.0, "human")),
        ([b"TP53"], Guess("symbol", 1.0, "human")),
        (["ENST00000269305", "ENSP00000269305"], Guess("unknown", 0.0, "unknown")),
        (["a gene", "!!", "é"], Guess("unknown", 0.0, "unknown")),
        ([], Guess("unknown", 0.0, "unknown")),
        ([None, " ", "nan"], Guess("unknown", 0.0, "unknown")),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_kinds_are_told_apart(ids: Any, guess: Guess) -> None:
    assert kind_of(ids) == guess


def test_only_ensembl_loses_its_version() -> None:
    stripped = {
        "ENSG00000141510.17": "ENSG00000141510",
        " ENSMUSG00000059552.14\n": "ENSMUSG00000059552",
        "ENSG00000182378.15_PAR_Y": "ENSG00000182378",
        "ENST00000269305.9": "ENST00000269305",
        **{same: same for same in ("ENSG00000141510", "RP11-34P13.7", "AC012345.1", "")},
    }
    assert {identifier: strip_version(identifier) for identifier in stripped} == stripped


def test_the_table_is_read_as_written(table: GeneTable) -> None:
    assert len(table) == 7
    assert table.genes.columns == ["hgnc", "symbol", "ensembl", "entrez", "uniprot", "previous", "alias", "locus_group"]
    assert table.genes.row(1) == (
        *("HGNC:2", "BETA", "ENSG00000000002", "102", "P00002|Q00002", "OLDB|SEP2", "SHARED"),
        "protein-coding gene",
    )
    assert table.genes["locus_group"].to_list()[3] == "pseudogene"


def test_every_kind_maps_to_every_other(table: GeneTable) -> None:
    names = {"hgnc": "HGNC:3", "symbol": "GAMM", "ensembl": "ENSG00000000003", "entrez": "103", "uniprot": "P00003"}
    for kind, name in names.items():
        for to, target in names.items():
            assert table.map([name], to, kind=kind).mapped == {name: target}


def test_what_was_lost_is_named(table: GeneTable) -> None:
    ids = ["ALFA", "OLDB", "SHARED", "NOSUCH", "C9ORF7", "ALFA", None, "AL1", "  ", "DELT1"]
    mapping = table.map(ids, "entrez")
    assert (mapping.to, mapping.kind, mapping.species, mapping.blank) == ("entrez", "symbol", "human", 2)
    assert mapping.targets == ("101", "102", None, None, None, "101", None, "101", None, "104")
    assert mapping.mapped == {"ALFA": "101", "OLDB": "102", "AL1": "101", "DELT1": "104"}
    assert mapping.ambiguous == {"SHARED": ("101", "102")}
    assert (mapping.unmapped, mapping.lacking, mapping.repeated) == (("NOSUCH",), ("C9ORF7",), ("ALFA",))
    assert mapping.shared == {"101": ("ALFA", "AL1")}
    assert mapping.summary() == (
        "4 of 7 identifiers (symbol) mapped to entrez; 1 ambiguous; 1 unknown; 1 without entrez; 2 blank; "
        "1 given more than once; 2 sharing 1 targets"
    )


def test_a_symbol_means_the_approved_gene_then_the_previous_then_the_alias(table: GeneTable) -> None:
    mapping = table.map(["ALFA", "BETA", "SEP2", "P33", "OLDD"], "symbol")
    assert mapping.mapped == {"ALFA": "ALFA", "BETA": "BETA", "SEP2": "BETA", "P33": "C9orf7"}
    assert mapping.ambiguous == {"OLDD": ("DELT1", "DELT2")}


def test_an_identifier_of_two_genes_is_ambiguous_in_every_kind(table: GeneTable) -> None:
    assert table.map(["ENSG00000000005.2"], "symbol").ambiguous == {"ENSG00000000005.2": ("DELT1", "DELT2")}
    # The gene that has no Entrez number still stands among the candidates.
    assert table.map(["P00005"], "entrez").ambiguous == {"P00005": ("105", "HGNC:6")}
    assert table.map(["BETA"], "uniprot").ambiguous == {"BETA": ("P00002", "Q00002")}
    assert table.map(["ENSG00000000005"], "ensembl").mapped == {}


def test_form_does_not_matter(table: GeneTable) -> None:
    same = [" alfa ", "Alfa", b"ALFA"]
    assert table.map(same, "hgnc").targets == ("HGNC:1",) * 3
    assert table.map(["ensg00000000001.7", "ENSG00000000001.7_PAR_Y"]).targets == ("HGNC:1",) * 2
    assert table.map(["P00001-2", "p00001"]).targets == ("HGNC:1",) * 2
    assert table.map([101, 101.0, "0101", np.int64(101)]).targets == ("HGNC:1",) * 4
    assert table.map([1, "hgnc:1"], "symbol", kind="hgnc").targets == ("ALFA",) * 2
    assert table.map(pl.Series(["c9orf7", None]), "symbol").targets == ("C9orf7", None)


def test_symbols_with_the_form_of_accessions_are_told_by_the_table(table: GeneTable) -> None:
    assert kind_of(["H2AC11"]).kind == "uniprot"
    assert table.map(["H2AC11"], "hgnc").mapped == {"H2AC11": "HGNC:7"}
    assert table.map(["P00007", "P00003"], "symbol").mapped == {"P00007": "H2AC11", "P00003": "GAMM"}


def test_another_species_is_said(table: GeneTable) -> None:
    assert table.map(["Alfa", "Beta"]).summary().endswith("; they look like genes of mouse")
    other = table.map(["ENSRNOG00000010756"]).summary()
    assert other == "0 of 1 identifiers (ensembl) mapped to hgnc; 1 unknown; they look like genes of another species"


def test_nothing_and_nonsense_map_to_nothing(table: GeneTable) -> None:
    assert table.map([]).summary() == "0 of 0 identifiers (unknown) mapped to hgnc"
    assert table.map([None, ""]).blank == 2
    mapping = table.map(["?!", "a b"])
    assert (mapping.kind, mapping.unmapped, mapping.targets) == ("unknown", ("?!", "a b"), (None, None))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from(["ALFA", "alfa", "AL1", "SHARED", "OLDD", "C9orf7", "NOSUCH", None, " ", "ENSG00000000001"])
        | st.text(max_size=4)
    )
)
def test_every_identifier_ends_in_exactly_one_place(table: GeneTable, ids: list[str | None]) -> None:
    mapping = table.map(ids, "entrez", kind="symbol")
    places = [*mapping.mapped, *mapping.ambiguous, *mapping.unmapped, *mapping.lacking]
    blank = [each for each in ids if each is None or each.strip() in ("", "nan", "NaN", "None", "<NA>")]
    assert sorted(places) == sorted({each for each in ids if each is not None} - set(blank))
    assert mapping.blank == len(blank)
    assert mapping.targets == tuple(mapping.mapped.get(each or "") for each in ids)
    assert "\n" not in mapping.summary()


def test_a_question_that_makes_no_sense_is_refused(table: GeneTable) -> None:
    with pytest.raises(ConfigError, match=r"^to='ensemble' is no kind of identifier\. Did you mean 'ensembl' or "):
        table.map(["ALFA"], "ensemble")
    with pytest.raises(ConfigError, match=r"^kind='Symbol' is no kind of identifier\. Did you mean 'symbol'\?$"):
        table.map(["ALFA"], kind="Symbol")
    with pytest.raises(DataError, match=r"^one text where a list of identifiers is expected\. Write \['ALFA'\]\.$"):
        table.map("ALFA")
    with pytest.raises(DataError, match=r"^identifiers come as a list, not as int$"):
        kind_of(7157)


def test_a_compressed_table_is_known_by_its_bytes(tmp_path: Path) -> None:
    packed = write(tmp_path, gzip.compress(text_of(GENES)), "table.txt")
    assert GeneTable.read(str(packed)).map(["ALFA"]).mapped == {"ALFA": "HGNC:1"}
    windows = write(tmp_path, text_of(GENES).replace(b"\n", b"\r\n"))
    assert GeneTable.read(windows).map(["P00007"], "symbol").mapped == {"P00007": "H2AC11"}


def damaged() -> dict[str, tuple[bytes, type[DataError], str]]:
    whole = text_of(GENES)
    packed = bytearray(gzip.compress(whole))
    cut = bytes(packed[: len(packed) // 2])
    packed[len(packed) // 2] ^= 0xFF
    squeezed = "the compressed file is cut short or altered"
    return {
        "cut gz": (cut, DamagedError, squeezed),
        "altered gz": (bytes(packed), DamagedError, squeezed),
        "cut": (whole[:-20], DamagedError, "the last line is cut short"),
        "html": (b"<!DOCTYPE html>\n<html><body>503</body></html>\n", DataError, "lacks the columns hgnc_id, symbol"),
        "csv": (whole.replace(b"\t", b","), DataError, "lacks the columns hgnc_id"),
        "binary": (bytes(range(256)) * 40, DamagedError, "this is no table separated by tabs"),
        "not utf-8": (whole.replace(b"third", b"\xff\xfe\xfd"), DamagedError, "this is no table separated by tabs"),
        "ragged": (whole.replace(b"third", b"third\tmore\tmore"), DamagedError, "this is no table separated by tabs"),
        "empty": (b"", DamagedError, "this is no table separated by tabs"),
        "no rows": (text_of([]), DamagedError, "holds no genes"),
        "lacks one": (
            text_of([row[:-1] for row in GENES], COLUMNS[:-1]), DataError, "lacks the columns uniprot_ids"),
        "no id": (whole.replace(b"HGNC:3\t", b"\t"), DamagedError, "line 4 names no gene"),
        "no symbol": (whole.replace(b"\tGAMM\t", b"\t\t"), DamagedError, "line 4 names no gene"),
        "id twice": (whole.replace(b"HGNC:3\t", b"HGNC:2\t"), DamagedError, "HGNC:2 is there more than once"),
        "symbol twice": (whole.replace(b"GAMM", b"ALFA"), DamagedError, "ALFA is there more than once"),
    }  # fmt: skip


@pytest.mark.parametrize("name", damaged())
def test_a_file_that_is_not_the_table_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, kind, says = damaged()[name]
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        GeneTable.read(path)
    line = str(caught.value)
    assert type(caught.value) is kind
    assert line.startswith(f"{path}: {says}")
    assert line.endswith("from https://www.genenames.org/download/.")
    assert "\n" not in line


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"none\.txt: cannot be read \(No such file or directory\)\. Download"):
        GeneTable.read(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        GeneTable.read(tmp_path)
    monkeypatch.setattr("elute.base.genes._MOST_BYTES", 1000)
    bomb = write(tmp_path, gzip.compress(b"A" * 2**26, compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DamagedError, match=r"far larger than HGNC's table"):
        GeneTable.read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


loaded = cache(GeneTable.read)


@pytest.fixture
def hgnc(real_data: Path) -> GeneTable:
    return loaded(real_data / "genes/hgnc_complete_set.txt.gz")


@pytest.mark.real_data
def test_known_genes_are_found_in_the_real_table(hgnc: GeneTable) -> None:
    assert len(hgnc) > 40_000
    assert hgnc.map(["TP53", "SEPT2", "MARCH1", "HER2", "C1ORF21"], "symbol").targets == (
        *("TP53", "SEPTIN2", "MARCHF1", "ERBB2", "C1orf21"),
    )
    assert hgnc.map(["ENSG00000141510.17"], "entrez").targets == ("7157",)
    assert hgnc.map(["P04637-2"], "hgnc").targets == ("HGNC:11998",)
    assert hgnc.map(["CDKN2A"], "uniprot").ambiguous == {"CDKN2A": ("P42771", "Q8N726")}
    assert hgnc.map(["ENSG00000230417"], "symbol").ambiguous == {"ENSG00000230417": ("LINC00595", "LINC00856")}


@pytest.mark.real_data
def test_every_gene_finds_itself(hgnc: GeneTable) -> None:
    symbols = hgnc.genes["symbol"].to_list()
    assert hgnc.map(symbols, "symbol").targets == tuple(symbols)
    assert hgnc.map(hgnc.genes["hgnc"], "symbol").targets == tuple(symbols)
    entrez = hgnc.genes["entrez"].to_list()
    assert hgnc.map(entrez, "entrez").targets == tuple(entrez)


@pytest.mark.real_data
def test_gencode_agrees_with_the_real_table(hgnc: GeneTable, real_data: Path) -> None:
    with (real_data / "genes/GENCODEv44_Gene_id2name.csv").open() as file:
        gencode = {row[0]: row[1] for row in csv.reader(file)}
    mapped = hgnc.map(gencode, "symbol").mapped
    by_symbol = hgnc.map(gencode.values(), "symbol").mapped
    agreeing = sum(by_symbol.get(gencode[i]) == symbol for i, symbol in mapped.items())
    assert len(mapped) > 40_000
    assert agreeing / len(mapped) > 0.98
