"""Sets of genes and cells: Reactome, KEGG, the Gene Ontology, hallmarks, CellMarker and PanglaoDB."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from elute.base.errors import DamagedError, DataError, MissingError
from elute.validation import snapshots
from elute.validation.database import Database
from elute.validation.reading.associations import check
from elute.validation.sources import cellmarker, go, hallmark, kegg, panglaodb, reactome

SOURCES = [cellmarker.SOURCE, go.SOURCE, hallmark.SOURCE, kegg.SOURCE, panglaodb.SOURCE, reactome.SOURCE]


def put(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_what_may_be_passed_on_and_fetched(source: Database) -> None:
    assert source.redistributable == (source.name in ("go", "hallmark", "reactome"))
    assert bool(source.by_hand) == (source.name in ("cellmarker", "panglaodb"))
    assert source.by_hand or all(
        file.url.startswith("https://") for file in source.files if file.role != "sets" or not source.licence.only
    )
    assert bool(source.licence.only) == (source.name == "kegg")
    assert (source.tier, source.ask) == (4, None)


@pytest.mark.parametrize(
    ("source", "name", "role"),
    [
        (reactome.SOURCE, "ReactomePathways.gmt.zip", "pathways"),
        (hallmark.SOURCE, "h.all.v2025.1.Hs.symbols.gmt", "sets"),
        (kegg.SOURCE, "links.txt", "links"),
        (kegg.SOURCE, "names.txt", "names"),
        (kegg.SOURCE, "genes.txt", "genes"),
        (kegg.SOURCE, "c2.cp.kegg_medicus.v2025.1.Hs.symbols.gmt", "sets"),
        (go.SOURCE, "goa_human.gaf.gz", "annotations"),
        (go.SOURCE, "go-basic.obo", "ontology"),
        (cellmarker.SOURCE, "Cell_marker_Human.xlsx", "markers"),
        (panglaodb.SOURCE, "PanglaoDB_markers_27_Mar_2020.tsv.gz", "markers"),
    ],
)
def test_files_are_known_by_their_names(source: Database, name: str, role: str) -> None:
    assert source.role_of(Path(name)) == role


# Reactome and hallmark


def test_reactome(tmp_path: Path) -> None:
    path = tmp_path / "ReactomePathways.gmt.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ReactomePathways.gmt", "Signaling by X\tR-HSA-1\tTP53\tgag\nSignaling by X\tR-HSA-2\tTP53\n")
    read = reactome.read({"pathways": path})
    assert read.table.select("term", "label", "gene").rows() == [
        ("R-HSA-1", "Signaling by X", "TP53"),
        ("R-HSA-1", "Signaling by X", "gag"),
        ("R-HSA-2", "Signaling by X", "TP53"),
    ]


@pytest.mark.real_data
def test_the_whole_of_reactome(real_data: Path) -> None:
    path = real_data / "databases" / "reactome" / "ReactomePathways.gmt"
    snapshot = snapshots.install(reactome.SOURCE, {"pathways": path}, how="imported")
    told = snapshot.record["table"]
    assert (told["rows"], told["genes"], told["terms"]) == (120_817, 11_023, 2_512)
    assert snapshots.load(snapshot)["term"].str.starts_with("R-HSA-").all()


def test_hallmark_sets_alone_are_kept(tmp_path: Path) -> None:
    path = put(tmp_path, "h.all.v2025.1.Hs.symbols.gmt", "HALLMARK_A\tx\tTP53", "KEGG_B\tx\tTP53", "KEGG_C\tx\tTP53")
    read = hallmark.read({"sets": path})
    assert (read.table["term"].to_list(), read.version) == (["HALLMARK_A"], "2025.1.Hs")
    assert read.notes == ("2 sets of other collections left out",)
    with pytest.raises(DataError, match="holds no set whose name begins with HALLMARK_"):
        hallmark.read({"sets": put(tmp_path, "k.gmt", "KEGG_B\tx\tTP53")})


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "version"),
    [("genesets/human_hallmark_v2025.gmt", "2025"), ("databases/msigdb/gseapy_h.all.v7.0.symbols.gmt", "7.0")],
)
def test_the_fifty_hallmarks(real_data: Path, name: str, version: str) -> None:
    read = hallmark.read({"sets": real_data / name})
    assert (read.table["term"].n_unique(), len(read.table), read.version, read.notes) == (50, 7322, version, ())


# KEGG

LINKS = ("path:hsa00010\thsa:10327", "path:hsa00010\thsa:124", "path:hsa04110\thsa:1017", "path:hsa04110\thsa:1017")
NAMES = ("hsa00010\tGlycolysis / Gluconeogenesis - Homo sapiens (human)",)
GENES = (
    "hsa:10327\tCDS\t1:1..2\tAKR1A1, ALR; aldo-keto reductase",
    "hsa:124\tADH1A; alcohol dehydrogenase",
    "hsa:1\tCDS\t1:1..2\tuncharacterized LOC1",
)


def test_kegg_lists(tmp_path: Path) -> None:
    files = {
        "links": put(tmp_path, "l", *LINKS),
        "names": put(tmp_path, "n", *NAMES),
        "genes": put(tmp_path, "g", *GENES),
    }
    read = kegg.read(files)
    assert read.table.select("gene", "gene_kind", "called", "term", "label").rows() == [
        ("10327", "entrez", "AKR1A1", "hsa00010", "Glycolysis / Gluconeogenesis"),
        ("124", "entrez", "ADH1A", "hsa00010", "Glycolysis / Gluconeogenesis"),
        ("1017", "entrez", None, "hsa04110", "hsa04110"),
    ]
    assert read.notes == ("1 pathway without a name, called by their numbers",)


def test_kegg_sets_of_a_person(tmp_path: Path) -> None:
    read = kegg.read({"sets": put(tmp_path, "k.gmt", "KEGG_CELL_CYCLE\tx\tCDK2")})
    assert read.table["gene"].to_list() == ["CDK2"]
    with pytest.raises(MissingError, match="needs its file links"):
        kegg.read({})


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (("path:hsa00010 hsa:10327",), "line 1 is not of the form"),
        (("path:hsa00010\thsa:10327", "path:hsa00010\t"), "line 2 is not of the form"),
        (("path:mmu00010\tmmu:10327",), "links 'mmu00010' with 'mmu:10327'"),
        (("path:hsa00010\tTP53",), "not a human pathway with a gene"),
        (("<html>403 Forbidden</html>",), "web page"),
    ],
)
def test_what_is_no_list_of_kegg_is_refused(tmp_path: Path, lines: tuple[str, ...], what: str) -> None:
    with pytest.raises(DamagedError, match=what):
        kegg.read({"links": put(tmp_path, "l", *lines)})
    with pytest.raises(DamagedError, match="web page|not of the form"):
        kegg.read({"links": put(tmp_path, "ok", *LINKS), "genes": put(tmp_path, "g", "<html>")})


# The Gene Ontology

OBO = """format-version: 1.2
data-version: releases/2025-02-06

[Term]
id: GO:0008150
name: biological_process
namespace: biological_process

[Term]
id: GO:0000010
name: dying
namespace: biological_process
alt_id: GO:0000011
is_a: GO:0008150

[Term]
id: GO:0000020
name: dying fast
namespace: biological_process
is_a: GO:0000010

[Term]
id: GO:0003674
name: molecular_function
namespace: molecular_function

[Term]
id: GO:0000030
name: cutting
namespace: molecular_function
is_a: GO:0003674
relationship: part_of GO:0000020
relationship: regulates GO:0000040

[Term]
id: GO:0005575
name: cellular_component
namespace: cellular_component

[Term]
id: GO:0000040
name: membrane
namespace: cellular_component
is_a: GO:0005575

[Term]
id: GO:0000050
name: obsolete replaced
namespace: cellular_component
is_obsolete: true
replaced_by: GO:0000040

[Term]
id: GO:0000060
name: obsolete for good
namespace: cellular_component
is_obsolete: true
"""


def annotation(symbol: str, term: str, code: str = "IDA", qualifier: str = "involved_in") -> str:
    return f"UniProtKB\tP1\t{symbol}\t{qualifier}\t{term}\tPMID:1\t{code}\t\tP\tname\t\tprotein\ttaxon:9606\t20200101\tX\t\t"


def ontology_files(folder: Path, *annotations: str) -> dict[str, Path]:
    (folder / "go-basic.obo").write_text(OBO)
    gaf = put(folder, "goa_human.gaf", "!gaf-version: 2.2", "!date-generated: 2025-03-16T08:30", *annotations)
    return {"annotations": gaf, "ontology": folder / "go-basic.obo"}


def test_a_gene_has_all_terms_above_its_own(tmp_path: Path) -> None:
    files = ontology_files(
        tmp_path,
        annotation("CUT", "GO:0000030"),
        annotation("DIE", "GO:0000011", "IEA"),
        annotation("DIE", "GO:0000010", "IDA"),
        annotation("DIE", "GO:0000020", "TAS"),
        annotation("MEM", "GO:0000050"),
        annotation("MEM", "GO:0000060"),
        annotation("MEM", "GO:9999999"),
        annotation("NOT", "GO:0000020", qualifier="NOT|involved_in"),
    )
    read = go.read(files)
    assert set(read.table.select("gene", "term", "label", "group", "evidence").rows()) == {
        ("CUT", "GO:0000030", "cutting", "go_mf", "IDA"),
        ("CUT", "GO:0003674", "molecular_function", "go_mf", "inherited"),
        ("CUT", "GO:0000020", "dying fast", "go_bp", "inherited"),  # a function that is a part of a process
        ("CUT", "GO:0000010", "dying", "go_bp", "inherited"),
        ("CUT", "GO:0008150", "biological_process", "go_bp", "inherited"),
        ("DIE", "GO:0000010", "dying", "go_bp", "IDA,IEA"),
        ("DIE", "GO:0000020", "dying fast", "go_bp", "TAS"),
        ("DIE", "GO:0008150", "biological_process", "go_bp", "inherited"),
        ("MEM", "GO:0000040", "membrane", "go_cc", "IDA"),
        ("MEM", "GO:0005575", "cellular_component", "go_cc", "inherited"),
    }
    assert len(read.table) == 10
    assert read.version == "2025-02-06+goa-2025-03-16"
    assert read.notes == (
        "1 of 8 annotations left out: those that say NOT",
        "2 pairs of a gene and a term left out: the term was given up",
        "4 annotated pairs of a gene and a term became 10 by is_a and part_of",
    )


def test_without_parts_a_function_leads_to_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go, "PARTS", False)
    read = go.read(ontology_files(tmp_path, annotation("CUT", "GO:0000030")))
    assert set(read.table["term"]) == {"GO:0000030", "GO:0003674"}
    assert read.notes[-1].endswith("became 2 by is_a")


def test_the_ontology_is_kept_beside_the_table(tmp_path: Path) -> None:
    snapshot = snapshots.install(go.SOURCE, ontology_files(tmp_path, annotation("CUT", "GO:0000030")), how="imported")
    assert snapshot.file("ontology").read_text() == OBO


def test_what_is_no_gene_ontology_is_refused(tmp_path: Path) -> None:
    files = ontology_files(tmp_path, annotation("CUT", "GO:7777777"))
    with pytest.raises(DataError, match="no annotation with a term of the ontology"):
        go.read(files)
    other = put(tmp_path, "hp.obo", "format-version: 1.2", "", "[Term]", "id: HP:0000001", "name: All")
    with pytest.raises(DataError, match="is not the Gene Ontology"):
        go.read(files | {"ontology": other})


@pytest.mark.real_data
def test_the_published_example_of_a_graph(real_data: Path, tmp_path: Path) -> None:
    """The graph of map2slim's documentation: what lies above `ab` and `ac` is read off its picture."""
    files = ontology_files(tmp_path, annotation("A", "GO:0000009"), annotation("B", "GO:0000010"))
    read = go.read(files | {"ontology": real_data / "databases" / "go" / "goatools_mini_obo.obo"})
    names = {gene: {row[1] for row in read.table.select("gene", "label").rows() if row[0] == gene} for gene in "AB"}
    assert names == {"A": {"ab", "b1", "a1", "b", "a", "A", "top"}, "B": {"ac", "c", "a1", "a", "A", "B", "top"}}


# CellMarker

WORDS = (
    "species tissue_class tissue_type uberonongology_id cancer_type cell_type cell_name cellontology_id marker Symbol GeneID "
    "Genetype Genename UNIPROTID technology_seq marker_source PMID Title journal year"
)
HEAD = WORDS.split()


def marker(gene: str, cell: str, **given: str) -> list[str]:
    told = {"species": "Human", "cell_type": "Normal cell", "cell_name": cell, "Symbol": gene, "marker": gene}
    told |= {"cellontology_id": "NA", "marker_source": "Experiment", "PMID": "1", "Title": 'The "niche", again'} | given
    return [told.get(name, "NA") for name in HEAD]


MARKERS = [
    marker("MERTK", "Macrophage", cellontology_id="CL_0000235"),
    marker("MERTK", "Macrophage", cellontology_id="CL_0000235", PMID="2", marker_source="Single-cell sequencing"),
    marker("MERTK", "Macrophage", cellontology_id="CL_0000235", PMID="2", marker_source="Review", tissue_class="Lung"),
    marker("CD163", "Macrophage"),
    marker("CD163", "Macrophage", cell_type="Cancer cell", cellontology_id="CL_0000235"),
    marker("CD3E", "T cell", cellontology_id="CL_0000084", PMID="NA"),
    marker("FOXP3", "Strange T cell", cellontology_id="CL_0000084"),
    marker("NA", "T cell"),
    marker("2-Sep", "T cell"),
    marker("44621", "T cell"),
    marker("Cd19", "B cell", species="Mouse"),
]
FOUND = {
    ("MERTK", "CL:0000235", "Macrophage", 2.0, "Experiment, Review, Single-cell sequencing", "normal"),
    ("CD163", "CL:0000235", "Macrophage", 1.0, "Experiment", "normal"),
    ("CD163", "Macrophage (cancer)", "Macrophage (cancer)", 1.0, "Experiment", "cancer"),
    ("CD3E", "T cell", "T cell", None, "Experiment", "normal"),
    ("FOXP3", "Strange T cell", "Strange T cell", 1.0, "Experiment", "normal"),
}


def as_workbook(folder: Path, rows: list[list[str]]) -> Path:
    cells = ("".join(f'<c t="inlineStr"><is><t>{escape(text)}</t></is></c>' for text in row) for row in rows)
    body = "".join(f"<row>{each}</row>" for each in cells)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    path = folder / "Cell_marker_Human.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", f'<workbook xmlns="{main}"><sheets><sheet name="a"/></sheets></workbook>')
        archive.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>'
        )
    return path


def as_text(folder: Path, rows: list[list[str]], separator: str) -> Path:
    lines = [separator.join('"' + text.replace('"', '""') + '"' for text in row) for row in rows]
    return put(folder, "Cell_marker_Human.csv" if separator == "," else "Cell_marker_Human.tsv", *lines)


@pytest.mark.parametrize("form", ["xlsx", ",", "\t"])
def test_cellmarker_in_every_form(tmp_path: Path, form: str) -> None:
    rows = [HEAD, *MARKERS]
    path = as_workbook(tmp_path, rows) if form == "xlsx" else as_text(tmp_path, rows, form)
    read = cellmarker.read({"markers": path})
    assert set(read.table.select("gene", "term", "label", "score", "evidence", "group").rows()) == FOUND
    assert len(read.table) == len(FOUND)
    assert read.notes == (
        "1 row left out: of other species",
        "1 row left out: without a symbol",
        "2 rows left out: whose symbol a spreadsheet made into a date or a number",
    )


def test_cellmarker_of_another_kind_is_refused(tmp_path: Path) -> None:
    old = [["speciesType", "tissueType", "cellName", "geneSymbol"], ["Human", "Blood", "T cell", "CD3E, CD3D"]]
    for path in (as_workbook(tmp_path, old), as_text(tmp_path, old, "\t")):
        with pytest.raises(DataError, match="lacks the columns species"):
            cellmarker.read({"markers": path})
    mouse = [HEAD, marker("Cd19", "B cell", species="Mouse")]
    with pytest.raises(DataError, match="no marker of human cells"):
        cellmarker.read({"markers": as_workbook(tmp_path, mouse)})
    with pytest.raises(DataError, match="is no workbook"):
        cellmarker.read({"markers": put(tmp_path, "Cell_marker_Human.xlsx", "Symbol")})
    with pytest.raises(DataError):
        cellmarker.read({"markers": tmp_path / "absent.csv"})


# PanglaoDB

PANGLAO = (
    "species\tofficial gene symbol\tcell type\tnicknames\tubiquitousness index\tproduct description\tgene type\t"
    "canonical marker\tgerm layer\torgan\tsensitivity_human\tsensitivity_mouse\tspecificity_human\tspecificity_mouse"
)


def panglao(species: str, gene: str, cell: str, *, canonical: str = "1", score: str = "0.5") -> str:
    return f"{species}\t{gene}\t{cell}\tNA\t0.01\ta 5' \"thing\tprotein-coding\t{canonical}\tMesoderm\tImmune system\t{score}\tNA\t0.1\tNA"


def test_panglaodb(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "PanglaoDB_markers_27_Mar_2020.tsv",
        PANGLAO,
        panglao("Mm Hs", "CD3D", "T cells"),
        panglao("Hs", "LCK", "T cells", canonical="NA", score="NA"),
        panglao("Mm", "Cd19", "B cells"),
        panglao("None", "CD19", "B cells"),
        panglao("Hs", "NA", "B cells"),
    )
    read = panglaodb.read({"markers": path})
    assert read.table.select("gene", "term", "label", "score", "evidence", "group").rows() == [
        ("CD3D", "T cells", "T cells", 0.5, "canonical marker", "Immune system"),
        ("LCK", "T cells", "T cells", None, "marker", "Immune system"),
    ]
    assert (read.version, len(read.notes)) == ("2020-03-27", 2)
    assert read.notes == (
        "2 markers that are not for human cells left out",
        "1 row without a gene or a type of cell left out",
    )


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ((PANGLAO.replace("cell type", "cells"), panglao("Hs", "A", "B")), "lacks the column cell type"),
        ((PANGLAO, panglao("Mm", "Cd19", "B cells")), "no marker of human cells"),
        ((PANGLAO, panglao("Hs", "CD19", "B cells", score="high")), "sensitivity_human is 'high'"),
        ((PANGLAO, panglao("Hs", "CD19", "B cells") + "\tmore"), "line 2 has 15 fields"),
        ((PANGLAO,), "has a header and no rows"),
    ],
)
def test_what_is_no_panglaodb_is_refused(tmp_path: Path, lines: tuple[str, ...], what: str) -> None:
    with pytest.raises(DataError, match=what):
        panglaodb.read({"markers": put(tmp_path, "markers.tsv", *lines)})


def test_every_table_has_the_one_form(tmp_path: Path) -> None:
    files = ontology_files(tmp_path, annotation("CUT", "GO:0000030"))
    for table in (go.read(files).table, cellmarker.read({"markers": as_workbook(tmp_path, [HEAD, *MARKERS])}).table):
        assert check(table, where="here") is table
