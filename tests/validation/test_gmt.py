"""Sets of genes in GMT, of every form that public ones have, and what is none."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elute.base.errors import DamagedError, DataError
from elute.validation.reading import gmt


def written(folder: Path, *lines: str, name: str = "sets.gmt") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def rows(path: Path) -> list[tuple[object, ...]]:
    return gmt.read(path).table.select("term", "label", "gene", "score").rows()


def test_a_line_is_a_set(tmp_path: Path) -> None:
    path = written(tmp_path, "A set\thttps://example.org/a\tTP53\tMDM2", "Other\t\tTP53")
    assert rows(path) == [
        ("A set", "A set", "TP53", None),
        ("A set", "A set", "MDM2", None),
        ("Other", "Other", "TP53", None),
    ]
    table = gmt.read(path, group="mine").table
    assert set(table["gene_kind"]) == {"symbol"}
    assert set(table["group"]) == {"mine"}


@pytest.mark.parametrize(
    ("name", "description", "term", "label"),
    [
        ("chemotaxis (GO:0006935)", "", "GO:0006935", "chemotaxis"),
        ("Cell Cycle R-HSA-1640170", "", "R-HSA-1640170", "Cell Cycle"),
        ("Cell Cycle", "R-HSA-1640170", "R-HSA-1640170", "Cell Cycle"),
        ("Seizure (HP:0001250)", "na", "HP:0001250", "Seizure"),
        ("hsa04110", "Cell cycle", "hsa04110", "Cell cycle"),
        ("path:hsa04110", "https://kegg.jp", "hsa04110", "hsa04110"),
        ("Apoptosis WP254", "", "WP254", "Apoptosis"),
        ("HALLMARK_HYPOXIA", "https://x.org/HALLMARK_HYPOXIA", "HALLMARK_HYPOXIA", "HALLMARK_HYPOXIA"),
        ("up in GO:0006935 mutants", "", "up in GO:0006935 mutants", "up in GO:0006935 mutants"),
        ("(GO:0006935)", "", "(GO:0006935)", "(GO:0006935)"),
    ],
)
def test_ids_are_found_where_files_have_them(
    tmp_path: Path, name: str, description: str, term: str, label: str
) -> None:
    assert rows(written(tmp_path, f"{name}\t{description}\tTP53")) == [(term, label, "TP53", None)]


def test_weights_are_scores(tmp_path: Path) -> None:
    path = written(tmp_path, "s\t\tTP53,1.0\tMDM2,-2e-3\tHLA-A\tBRCA1, .5\t")
    assert [row[2:] for row in rows(path)] == [("TP53", 1.0), ("MDM2", -0.002), ("HLA-A", None), ("BRCA1", 0.5)]


def test_sets_of_one_name(tmp_path: Path) -> None:
    read = gmt.read(written(tmp_path, "a\t\tTP53\tMDM2", "a\t\tMDM2\tTP53", "a\t\tBRCA1", "b\t\t", "b\t"))
    assert set(read.table.select("term", "gene").rows()) == {("a", "TP53"), ("a", "MDM2"), ("a [2]", "BRCA1")}
    assert len(read.notes) == 3
    assert "2 sets without genes left out" in read.notes
    assert "1 set given twice" in read.notes[1]
    assert "1 set with the name of an earlier one" in read.notes[2]
    assert "(a)" in read.notes[2]


def test_a_gene_twice_in_a_set_counts_once(tmp_path: Path) -> None:
    assert len(rows(written(tmp_path, "a\t\tTP53\tTP53"))) == 1


@pytest.mark.parametrize(
    ("genes", "kind"),
    [
        ("7157\t4193\t672", "entrez"),
        ("ENSG00000141510\tENSG00000135679.26", "ensembl"),
        ("HGNC:11998\tHGNC:6973", "hgnc"),
        ("P04637\tQ00987", "uniprot"),
    ],
)
def test_the_kind_of_identifiers_is_that_of_most(tmp_path: Path, genes: str, kind: str) -> None:
    assert set(gmt.read(written(tmp_path, f"a\t\t{genes}")).table["gene_kind"]) == {kind}


def test_sets_of_the_mouse_are_told(tmp_path: Path) -> None:
    (note,) = gmt.read(written(tmp_path, "a\t\tTrp53\tMdm2\tCd19\tGzma")).notes
    assert "look like those of mouse" in note


def test_packed_files_and_blank_lines(tmp_path: Path) -> None:
    text = b"# a comment\n\nA\t\tTP53\r\n\r\nB\t\tMDM2\r\n"
    packed = tmp_path / "a.gmt.gz"
    packed.write_bytes(gzip.compress(text))
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.gmt", text)
    assert rows(packed) == rows(zipped) == [("A", "A", "TP53", None), ("B", "B", "MDM2", None)]


@pytest.mark.parametrize(
    ("content", "kind", "what"),
    [
        (b"A set TP53 MDM2\n", DataError, "line 1 has no tab"),
        (b"a\t\tTP53\n\tx\tTP53\n", DataError, "line 2 has no name"),
        (b"a\t\t\n", DataError, "holds no set of genes"),
        (b"", DamagedError, "is empty"),
        (b"<!DOCTYPE html><html></html>", DamagedError, "web page"),
        (b"a\t\tTP53\n\xff\xfe\n", DataError, "line 2 is no UTF-8"),
        ("a\t\tTP53".encode("utf-16"), DataError, "UTF-16"),
        (b"a\t\t.\t?\t--\n", DataError, "looks like none"),
        (b"a\t\tTP53\x00\n", DamagedError, "zero bytes"),
        (gzip.compress(b"a\t\tTP53\n" * 999, mtime=0)[:-9], DamagedError, "cut short"),
        (b'{"a": ["TP53"]}\n', DataError, "has no tab"),
    ],
)
def test_what_is_no_gmt_is_refused_in_a_line(tmp_path: Path, content: bytes, kind: type[DataError], what: str) -> None:
    path = tmp_path / "bad.gmt"
    path.write_bytes(content)
    with pytest.raises(kind, match=what) as caught:
        gmt.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


SYMBOLS = st.lists(st.from_regex(r"[A-Z][A-Z0-9]{1,6}", fullmatch=True), min_size=1, max_size=8, unique=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=st.lists(SYMBOLS, min_size=1, max_size=6), ends=st.sampled_from(["\n", "\r\n"]), trailing=st.booleans())
def test_every_gene_of_every_set_is_read_once(tmp_path: Path, sets: list[list[str]], ends: str, trailing: bool) -> None:
    path = tmp_path / "any.gmt"
    tail = "\t" * trailing
    path.write_text(ends.join(f"set {n}\t\t" + "\t".join(genes) + tail for n, genes in enumerate(sets)), newline="")
    read = gmt.read(path).table
    assert read.select("term", "gene").rows() == [(f"set {n}", gene) for n, genes in enumerate(sets) for gene in genes]


def test_a_persons_own_sets_are_a_database(tmp_path: Path) -> None:
    source = gmt.user_sets("my-sets")
    path = written(tmp_path, "a\t\tTP53", name="whatever.txt")
    assert (source.name, source.redistributable, source.ask) == ("my-sets", False, None)
    assert source.role_of(path) == "sets"
    assert source.read({"sets": path}).table["term"].to_list() == ["a"]


REAL = {  # sets, rows, genes, counted with awk, sort and uniq
    "genesets/enrichr.GO_Biological_Process_2021.gmt": (6036, 197596, 14937),
    "genesets/human_go_cc_v2025.gmt": (1042, 102996, 14869),
    "genesets/human_go_mf_v2025.gmt": (1855, 112783, 15699),
    "genesets/human_hallmark_v2025.gmt": (50, 7322, 4384),
    "genesets/human_reactome_v2025.gmt": (1787, 97544, 11369),
    "databases/msigdb/gseapy_h.all.v7.0.symbols.gmt": (50, 7322, 4384),
    "databases/enrichr/gseapy_enrichr.GO_BP_2021_head3.gmt": (3, 51, 51),
    "databases/reactome/ReactomePathways.gmt": (2512, 120817, 11023),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_public_files_are_read_whole(real_data: Path, name: str) -> None:
    read = gmt.read(real_data / name)
    table = read.table
    assert (table["term"].n_unique(), len(table), table["gene"].n_unique()) == REAL[name]
    assert (set(table["gene_kind"]), read.notes) == ({"symbol"}, ())
    form = {"enrichr": r"GO:\d{7}", "Reactome": r"R-HSA-\d+"}
    pattern = next((p for word, p in form.items() if word in Path(name).name), r"(HALLMARK|GO..|REACTOME)_\w+")
    assert all(re.fullmatch(pattern, term) for term in table["term"].unique())


def test_a_huge_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elute.validation.reading.columns.LONGEST", 1000)
    path = tmp_path / "long.gmt"
    path.write_bytes(b"a\t\t" + b"TP53\t" * 999)
    with pytest.raises(DataError, match="line 1 is longer than"):
        gmt.read(path)


def test_a_zip_of_two_files_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.gmt", "a\t\tTP53\n")
        archive.writestr("b.gmt", "a\t\tTP53\n")
    path = tmp_path / "two.gmt.zip"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="2 files"):
        gmt.read(path)
