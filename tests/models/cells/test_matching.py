from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import polars as pl
import pytest

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.models.cells.matching import Matched, match_genes

A, B, C, D, E = (f"ENSG0000000000{n}" for n in (1, 2, 3, 4, 5))
SPECIAL = {"<pad>": 0, "<cls>": 1, "<eoc>": 2, "<junk0>": 99}
VOCABULARY = {**SPECIAL, A: 3, B: 4, C: 5, D: 6}
SYMBOLS = {**SPECIAL, "ALFA": 3, "BETA": 4, "GAMM": 5, "DELT": 6}
PAIRS = f"{A},ALFA\n{B},BETA\n{C},GAMM\n{D},DELT\n"
HGNC_COLUMNS = ["hgnc_id", "symbol", "locus_group", "alias_symbol", "prev_symbol", "entrez_id", "ensembl_gene_id", "uniprot_ids"]  # fmt: skip
HGNC_GENES = [
    ["HGNC:1", "ALFA", "x", "AL1|SHARED", "OLDA", "101", A, ""],
    ["HGNC:2", "BETA", "x", "SHARED", "", "102", B, ""],
    ["HGNC:3", "GAMM", "x", "", "", "103", "", ""],
    ["HGNC:4", "DELT", "x", "", "OLDD", "104", D, ""],
    ["HGNC:5", "EPSI", "x", "", "", "105", E, ""],
]


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty data folder."""
    folder = tmp_path / "tables"
    (folder / "genes").mkdir(parents=True)
    monkeypatch.setenv("ELUTE_DATA", str(folder))
    return folder


def hgnc(folder: Path, name: str = "genes/hgnc_complete_set.txt") -> Path:
    (folder / name).write_text("".join("\t".join(row) + "\n" for row in [HGNC_COLUMNS, *HGNC_GENES]))
    return folder / name


def write(folder: Path, text: str, name: str = "map.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def var(index: list[Any], **columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"index": index, **columns})


def tokens(matched: Matched) -> list[int]:
    assert matched.tokens.dtype == "int64"
    assert matched.matched == sum(token >= 0 for token in matched.tokens)
    assert [name is None for name in matched.names] == [token < 0 for token in matched.tokens]
    return list(map(int, matched.tokens))


# Which column


@pytest.mark.parametrize("column", ["ensembl_id", "gene_ids", "feature_id", "any_other"])
def test_a_column_of_ensembl_ids(column: str) -> None:
    table = var(["ALFA", "BETA", "x"], note=["a", "b", "c"], **{column: [B, A, E]})
    matched = match_genes(table, VOCABULARY, where="f.h5ad")
    assert tokens(matched) == [4, 3, -1]
    assert matched.names == [B, A, None]
    assert (matched.column, matched.through, matched.matched, matched.given) == (column, None, 2, 3)
    assert matched.lines == [
        f"f.h5ad: 2 of 3 genes matched, by Ensembl ids in column '{column}'",
        f"f.h5ad: genes not matched: 1 not in the vocabulary ({E})",
    ]
    assert matched.warnings == []
    assert matched.symbols == ["ALFA", "BETA", "x"]


def test_order_on_a_tie_and_most_matches_otherwise() -> None:
    columns = {"feature_id": [A, B], "gene_ids": [B, A], "ensembl_id": [A, B]}
    assert match_genes(var([B, A], **columns), VOCABULARY).column == "ensembl_id"
    assert match_genes(var([B, A], feature_id=[A, B]), VOCABULARY).column == "feature_id"
    assert match_genes(var([B, A], other=[A, B]), VOCABULARY).column == "index"
    assert match_genes(var([B, A], ensembl_id=[A, E]), VOCABULARY).column == "index"
    assert (
        match_genes(var(["x", "y", "z"], chromosome=["1", "1", "2"], n=[A, B, E]), {"1": 1, A: 3, B: 4}).column == "n"
    )


def test_the_key_is_used_alone() -> None:
    table = var([A, B], mine=[C, E], number=[1, 2])
    assert tokens(match_genes(table, VOCABULARY, key="mine")) == [5, -1]
    assert tokens(match_genes(table, VOCABULARY, key="index")) == [3, 4]
    with pytest.raises(ConfigError, match=r"f: there is no column 'mind' of genes. Did you mean 'mine' or 'index'"):
        match_genes(table, VOCABULARY, key="mind", where="f")
    assert tokens(match_genes(table, {"1": 8}, key="number")) == [8, -1]


def test_categories_and_columns_of_numbers() -> None:
    table = var(["x", "y"], ids=[A, B], n=[1.5, 2.0]).with_columns(pl.col("ids").cast(pl.Categorical))
    assert tokens(match_genes(table, VOCABULARY)) == [3, 4]


def test_special_tokens_and_blanks_never_match() -> None:
    table = var([A, "<pad>", "<junk0>", "", "nan", None, " " + B + " "])
    matched = match_genes(table, VOCABULARY)
    assert tokens(matched) == [3, -1, -1, -1, -1, -1, 4]
    assert matched.lines[1] == "genes not matched: 2 not in the vocabulary (<pad>, <junk0>); 3 blank"
    with pytest.raises(DataError, match="vocabulary holds no genes"):
        match_genes(table, SPECIAL)


# Versions


def test_versions_go_where_the_id_is_not_there_as_it_stands() -> None:
    vocabulary = {**VOCABULARY, f"{A}.7": 7}
    matched = match_genes(var([f"{A}.7", f"{A}.8", f"{B}.2", C.lower(), "RP11-34P13.7"]), vocabulary)
    assert tokens(matched) == [7, 3, 4, 5, -1]
    assert "; 3 without their version" in matched.lines[0]


def test_versions_of_the_vocabulary_go_too() -> None:
    vocabulary = {f"{A}.1": 1, f"{B}.1": 2, f"{B}.2": 3, f"{C}.1": 4, C: 5}
    assert tokens(match_genes(var([A, B, f"{C}.4"]), vocabulary)) == [1, -1, 5]


def test_the_gene_on_x_is_kept_before_its_copy_on_y() -> None:
    matched = match_genes(var([f"{A}.5_PAR_Y", f"{A}.5", B]), VOCABULARY)
    assert tokens(matched) == [-1, 3, 4]
    assert matched.warnings == [f"1 gene is another's second column and left out ({A}.5_PAR_Y)"]


# Several columns for one gene


def test_the_first_of_several_is_kept_and_an_exact_one_before_a_stripped_one() -> None:
    matched = match_genes(var([f"{A}.1", A, B, B, B, f"{B}.1"]), VOCABULARY, where="f")
    assert tokens(matched) == [-1, 3, 4, -1, -1, -1]
    assert matched.warnings == [
        f"f: 4 genes are another's second column and left out ({A}.1, {B}, {B})",
        "f: fewer than half matched to the vocabulary: 2 of 6 genes (33%), by the index",
    ]


def test_a_current_name_is_kept_before_a_former_one(data_folder: Path) -> None:
    hgnc(data_folder)
    matched = match_genes(var(["OLDA", "AL1", "ALFA", "DELT", "BETA"]), VOCABULARY)
    assert tokens(matched) == [-1, -1, 3, 6, 4]
    assert matched.warnings == ["2 genes are another's second column and left out (OLDA, AL1)"]


def test_half_is_enough() -> None:
    assert match_genes(var([A, E]), VOCABULARY).warnings == []
    assert "1 of 3 genes (33%)" in match_genes(var([A, E, "x"]), VOCABULARY).warnings[0]


# Maps


@pytest.mark.parametrize("header", ["", "id,name\n", "# made by hand\nid,name\n"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz", "m.tsv", "m.txt.gz"])
def test_two_columns_in_any_form(tmp_path: Path, header: str, turned: bool, name: str) -> None:
    text = header + PAIRS
    if turned:
        text = "".join(",".join(line.split(",")[::-1]) + "\n" for line in text.splitlines())
    path = write(tmp_path, text if "csv" in name else text.replace(",", "\t"), name)
    matched = match_genes(var(["GAMM", "nobody", "ALFA"]), VOCABULARY, gene_map=path)
    assert tokens(matched) == [5, -1, 3]
    assert matched.through == str(path)
    assert matched.lines == [
        f"2 of 3 genes matched, by symbols in the index; 2 through {path}",
        "genes not matched: 1 not in the map (nobody)",
    ]


def test_why_genes_are_lost_in_a_map(tmp_path: Path) -> None:
    path = write(tmp_path, f'{A}.3,ALFA\n{B},BETA\n{C},BETA\n{C}.1,GAMM\n{C}.2,GAMM\n{E},EPSI\n,ZETA\n"{D}","DELT"\n')
    matched = match_genes(var(["ALFA", "BETA", "GAMM", "EPSI", "ZETA", "delt"]), VOCABULARY, gene_map=path)
    assert tokens(matched) == [3, -1, 5, -1, -1, 6]
    assert matched.lines[1] == (
        "genes not matched: 1 ambiguous (BETA); 1 without Ensembl id (ZETA); 1 not in the vocabulary (EPSI)"
    )


def test_the_column_of_symbols_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, PAIRS)
    for column in ("gene_symbols", "Symbol", "feature_name", "gene_short_name"):
        matched = match_genes(var(["g1", "g2"], **{column: ["ALFA", "BETA"]}), VOCABULARY, gene_map=path)
        assert (tokens(matched), matched.column) == ([3, 4], column)
    matched = match_genes(var(["ALFA", "BETA"], mine=["GAMM", "DELT"]), VOCABULARY, gene_map=path, key="mine")
    assert tokens(matched) == [5, 6]


def test_what_matches_more_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, PAIRS)
    few = var(["ALFA", "BETA", "GAMM"], gene_ids=[A, E, E])
    assert match_genes(few, VOCABULARY, gene_map=path).column == "index"
    same = var(["ALFA", "BETA", "x"], gene_ids=[A, B, E])
    matched = match_genes(same, VOCABULARY, gene_map=path)
    assert (matched.column, matched.through) == ("gene_ids", None)


def test_an_index_of_symbols_and_ids(tmp_path: Path, data_folder: Path) -> None:
    hgnc(data_folder)
    mixed = var(["ALFA", "DELT", "OLDD", f"{C}.1", "SHARED", "GAMM", "EPSI"])
    matched = match_genes(mixed, VOCABULARY)
    assert tokens(matched) == [3, 6, -1, 5, -1, -1, -1]
    assert matched.lines == [
        f"3 of 7 genes matched, by symbols in the index; 1 without their version; 2 through {data_folder}/genes/hgnc_complete_set.txt",
        "genes not matched: 1 ambiguous (SHARED); 1 without ensembl (GAMM); 1 not in the vocabulary (EPSI)",
    ]


def test_the_table_of_the_data_folder_is_for_symbols_alone(data_folder: Path) -> None:
    table = var(["ALFA", "BETA", "DELT"], gene_ids=[A, E, E])
    assert match_genes(table, VOCABULARY).column == "gene_ids"
    path = hgnc(data_folder)
    assert match_genes(table, VOCABULARY).column == "gene_ids"  # there are ids of the model's kind
    assert match_genes(table, VOCABULARY, key="index").through == str(path)
    assert tokens(match_genes(table, VOCABULARY, gene_map=path)) == [3, 4, 6]
    with pytest.raises(DataError, match="Entrez numbers, or numbers of rows"):
        match_genes(var(["101", "102"]), VOCABULARY)
    assert tokens(match_genes(var(["101", "102"]), VOCABULARY, gene_map=path)) == [3, 4]
    path.write_text("cut")
    with pytest.raises(DataError, match=str(path)):
        match_genes(var(["ALFA"]), VOCABULARY)


def test_a_vocabulary_of_symbols(tmp_path: Path, data_folder: Path) -> None:
    table = var([A, B, E], symbol=["ALFA", "DELT", "x"], biotype=["coding"] * 3)
    matched = match_genes(table, SYMBOLS)
    assert (tokens(matched), matched.column) == ([3, 6, -1], "symbol")
    assert matched.lines[0] == "2 of 3 genes matched, by symbols in column 'symbol'"
    ids = var([f"{A}.1", B, C])
    path = write(tmp_path, PAIRS)
    assert tokens(match_genes(ids, SYMBOLS, gene_map=path)) == [3, 4, 5]
    hgnc(data_folder)
    assert tokens(match_genes(ids, SYMBOLS)) == [3, 4, -1]
    assert tokens(match_genes(var(["OLDA", "BETA"]), SYMBOLS)) == [-1, 4]  # no guess unless it is asked for
    assert tokens(
        match_genes(var(["OLDA", "BETA"]), SYMBOLS, gene_map=data_folder / "genes/hgnc_complete_set.txt")
    ) == [3, 4]


# Errors


def failing(table: pl.DataFrame, vocabulary: dict[str, int] = VOCABULARY, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        match_genes(table, vocabulary, where="f.h5ad", **more)
    line = str(caught.value)
    assert line.startswith("f.h5ad: No genes matched to vocabulary: ")
    assert "\n" not in line
    return line


def test_symbols_for_ensembl_ids(data_folder: Path, tmp_path: Path) -> None:
    line = failing(var(["TP53", "MYC", "EGFR", "KRAS"]))
    assert f"the index has TP53, MYC, EGFR; the model knows {A}, {B}, {C}. They look like symbols" in line
    assert (
        f"give --gene-id-key COLUMN or --gene-map FILE (two columns), or put hgnc_complete_set.txt into {data_folder}"
        in line
    )
    hgnc(data_folder)
    assert "None of them leads to a gene of the model in " in failing(var(["TP53", "MYC"]))
    path = write(tmp_path, f"{A},ALFA\n{E},MYC\n")
    assert f"None of them leads to a gene of the model in {path}" in failing(var(["TP53", "MYC"]), gene_map=path)


@pytest.mark.parametrize(
    ("ids", "vocabulary", "guess"),
    [
        (["ENSMUSG00000059552", "ENSMUSG00000017146.13"], VOCABULARY, "They look like mouse genes, and this model knows human genes"),
        (["Trp53", "Myc", "Gapdh"], VOCABULARY, "They look like mouse genes, and this model knows human genes"),
        (["Trp53", "Myc", "Gapdh"], SYMBOLS, "They look like mouse genes, and this model knows human genes"),
        (["ENSRNOG00000010756"], VOCABULARY, "They look like genes of another species"),
        ([E], VOCABULARY, "Check that file and model are of one species"),
        ([A], SYMBOLS, "They look like Ensembl ids, and the model knows symbols"),
        (["7157", "672"], VOCABULARY, "They look like Entrez numbers, or numbers of rows, and the model knows Ensembl ids"),
        (["HGNC:11998", "HGNC:7"], VOCABULARY, "They look like HGNC ids"),
        ([f"GRCh38_{A}", f"GRCh38_{B}"], VOCABULARY, "Ensembl ids stand inside longer text"),
        (["ENST00000269305", "ENST00000357654.9"], VOCABULARY, "They are transcripts or proteins of Ensembl"),
        (["", None], VOCABULARY, "the index has blanks alone"),
    ],
)  # fmt: skip
def test_a_guess_why_nothing_matched(ids: list[str], vocabulary: dict[str, int], guess: str) -> None:
    assert guess in failing(var(ids), vocabulary)


def test_mouse_symbols_are_no_human_genes(data_folder: Path, tmp_path: Path) -> None:
    hgnc(data_folder)
    mouse = var(["Alfa", "Beta", "Delt"])
    assert "mouse genes" in failing(mouse)
    orthologues = write(tmp_path, f"Alfa\t{B}\nBeta\t{A}\nDELT\t{D}\n", "orthologues.tsv")
    matched = match_genes(mouse, VOCABULARY, gene_map=orthologues)
    assert tokens(matched) == [4, 3, -1]
    assert "the genes look like those of mouse, and went through" in matched.warnings[-1]


def test_no_genes_at_all() -> None:
    with pytest.raises(DataError, match="f: has no genes"):
        match_genes(pl.DataFrame({"index": []}, schema={"index": pl.String}), VOCABULARY, where="f")


@pytest.mark.parametrize(
    ("content", "kind", "line"),
    [
        (b"", DataError, "is empty"),
        (f"{A}\n{B}\n".encode(), DataError, "has one column where two are needed"),
        (f"{A},\n{B},\n".encode(), DataError, "has one column where two are needed"),
        (b",\n,\n", DataError, "holds nothing where two are needed"),
        (b"ALFA,BETA\nBETA,GAMM\n", DataError, "no column has genes of the model .its columns hold BETA and GAMM"),
        (f"{A},NOBODY\n{B},NONE\n".encode(), DataError, f"has none of the file's names, such as ALFA, BETA .its columns hold {B} and NONE"),
        (b"\x89HDF\r\n\x1a\n\x00\xff\xfe,\xff\n", DamagedError, "is no table of text"),
        (f"{A},ALFA\n{B},BETA,more,and,more\n".encode(), DamagedError, "is no table of text"),
        (gzip.compress(PAIRS.encode(), mtime=0)[:-9], DamagedError, "cut short or altered"),
        (b"hgnc_id\tsymbol\nHGNC:1\tALFA\n", DataError, "lacks the columns"),
    ],
)  # fmt: skip
def test_maps_that_are_none(tmp_path: Path, content: bytes, kind: type[DataError], line: str) -> None:
    path = tmp_path / "map.csv"
    path.write_bytes(content)
    with pytest.raises(kind, match=f"^{path}: .*{line}") as caught:
        match_genes(var(["ALFA", "BETA"]), VOCABULARY, gene_map=path)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is kind


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=rf"^{path}: cannot be read .*Give a CSV or TSV file with two columns"):
            match_genes(var(["ALFA"]), VOCABULARY, gene_map=path)


def test_a_map_that_is_not_needed_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, PAIRS)
    assert tokens(match_genes(var([A, B]), VOCABULARY, gene_map=path)) == [3, 4]
    assert tokens(match_genes(var([A, E]), VOCABULARY, gene_map=path)) == [3, -1]


# Real data


def column(file: Path, name: str) -> list[str]:
    with h5py.File(file) as handle:
        return [text.decode() for text in handle["var"][name][:]]


def gencode(real_data: Path) -> pd.DataFrame:
    path = real_data / "genes" / "GENCODEv44_Gene_id2name.csv"
    return pd.read_csv(path, header=None, names=["id", "name"], dtype=str, keep_default_na=False)


@pytest.mark.real_data
def test_symbols_through_gencode_as_a_join_would(real_data: Path) -> None:
    table = gencode(real_data)
    vocabulary = {**SPECIAL, **{gene: n + 3 for n, gene in enumerate(sorted(table["id"]))}}
    symbols = column(real_data / "cells" / "pbmc3k_labelled_500x12627.h5ad", "_index")
    path = real_data / "genes" / "GENCODEv44_Gene_id2name.csv"
    matched = match_genes(var(symbols), vocabulary, gene_map=path)
    alone = table[~table["name"].duplicated(keep=False)]
    joined = pd.DataFrame({"name": symbols}).merge(alone, on="name", how="left")
    exact = joined["id"].map(vocabulary)
    ours = pd.Series(tokens(matched))
    assert (ours[exact.notna()] == exact[exact.notna()]).all()
    assert exact.notna().sum() > 10_000
    more = [symbols[i] for i in ours.index[exact.isna() & (ours >= 0)]]
    upper = table.assign(name=table["name"].str.upper()).drop_duplicates()
    upper = upper[~upper["name"].duplicated(keep=False)].set_index("name")["id"]
    assert [matched.names[symbols.index(s)] for s in more] == [upper[s.upper()] for s in more]
    assert len(more) < 10


@pytest.mark.real_data
def test_symbols_through_hgnc_as_a_join_would(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELUTE_DATA", str(real_data))
    vocabulary = {**SPECIAL, **{gene: n + 3 for n, gene in enumerate(sorted(gencode(real_data)["id"]))}}
    symbols = column(real_data / "cells" / "pbmc3k_labelled_500x12627.h5ad", "_index")
    matched = match_genes(var(symbols), vocabulary)
    assert matched.through == str(real_data / "genes" / "hgnc_complete_set.txt.gz")
    table = pd.read_csv(matched.through, sep="\t", dtype=str)
    now = dict(zip(table["symbol"].str.upper(), table["ensembl_gene_id"], strict=True))
    current = [(token, now[s.upper()]) for token, s in zip(tokens(matched), symbols, strict=True) if s.upper() in now]
    assert len(current) > 9_000
    assert [token for token, _ in current] == [vocabulary.get(gene, -1) for _, gene in current]
    assert matched.matched > 1.05 * len(current)  # names that genes had before
    kept = [token for token in tokens(matched) if token >= 0]
    assert len(kept) == len(set(kept))


@pytest.mark.real_data
def test_versions_of_the_glioblastoma(real_data: Path) -> None:
    vocabulary = {gene: n for n, gene in enumerate(sorted(gencode(real_data)["id"]))}
    file = real_data / "cells" / "glioblastoma_panobinostat_5000x300.h5ad"
    ids, plain, symbols = (column(file, name) for name in ("_index", "ensembl_id", "symbol"))
    assert all("." in gene for gene in ids)
    table = var(ids, ensembl_id=plain, symbol=symbols)
    theirs = pd.Series([gene.split(".")[0] for gene in ids]).map(vocabulary).fillna(-1).astype(int).tolist()
    for key in (None, "index", "ensembl_id"):
        assert tokens(match_genes(table, vocabulary, key=key)) == theirs
    matched = match_genes(table, vocabulary, key="index")
    assert matched.symbols == [symbol or None for symbol in symbols]
    assert "299 of 300 genes matched, by Ensembl ids in the index; 299 without their version" in matched.lines[0]


def test_many_genes_are_all_matched(tmp_path: Path) -> None:
    ids = [f"ENSG{n:011d}" for n in range(60_000)]
    table = var([f"{gene}.{n % 9}" for n, gene in enumerate(ids)], symbol=[f"GENE{n}" for n in range(60_000)])
    vocabulary = {gene: n for n, gene in enumerate(ids)}
    path = write(tmp_path, "".join(f"{gene},GENE{n}\n" for n, gene in enumerate(ids)))
    for more in ({}, {"key": "symbol", "gene_map": path}):
        assert match_genes(table, vocabulary, **more).matched == 60_000
