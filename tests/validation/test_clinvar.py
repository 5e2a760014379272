"""ClinVar's files and service: what counts as pathogenic, in which gene, and that nothing is taken for the whole."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base.errors import DamagedError, DataError, MissingError, ServiceError
from elute.validation.database import Gene
from elute.validation.reading.associations import check
from elute.validation.reading.variants import Condition, condition, conditions, one_gene
from elute.validation.sources.clinvar import SOURCE, ask, read


def beside(name: str) -> ModuleType:
    """A file of these tests, by its path from here."""
    key = f"validation_tests_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).parent / name)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[key]


serving = beside("serving.py")
recorded = beside("recorded/clinvar.py")


def put(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# The file of conditions

HEAD = "#GeneID\tAssociatedGenes\tRelatedGenes\tConceptID\tDiseaseName\tSourceName\tSourceID\tDiseaseMIM\tLastUpdated"
CONDITIONS = (
    "672\tBRCA1\t\tC0006142\tFamilial cancer of breast\tSNOMED CT\t254843006\t114480\t16 Feb 2016",
    "672\t\tBRCA1\tC1458155\tNeoplasm of the breast\tHuman Phenotype Ontology\tHP:0100013\t\t18 Jul 2017",
    "2200\tFBN1\t\tCN078214\tFamilial aortopathy\tCorrelagen\t\t\t16 Feb 2016",
    "2200\tFBN1\t\t\tMarfan syndrome\tOMIM\t154700\t154700\t16 Feb 2016",
    "2200\tFBN1\t\t\tof no number\tOMIM\t\t\t16 Feb 2016",
    "-1\tABC\t\tC0006142\tFamilial cancer of breast\tX\t\t\t16 Feb 2016",
)


@pytest.mark.parametrize("head", [(HEAD,), ()])
def test_conditions_with_and_without_a_header(tmp_path: Path, head: tuple[str, ...]) -> None:
    result = read({"conditions": put(tmp_path, "gene_condition_source_id", *head, *CONDITIONS)})
    table = check(result.table, where="test")
    assert table.select("gene", "called", "term", "label", "score", "evidence", "group").rows() == [
        ("672", "BRCA1", "UMLS:C0006142", "Familial cancer of breast", None, "SNOMED CT", "associated"),
        ("672", "BRCA1", "UMLS:C1458155", "Neoplasm of the breast", None, "Human Phenotype Ontology", "related"),
        ("2200", "FBN1", "MEDGEN:CN078214", "Familial aortopathy", None, "Correlagen", "associated"),
        ("2200", "FBN1", "OMIM:154700", "Marfan syndrome", None, "OMIM", "associated"),
    ]
    assert set(table["gene_kind"]) == {"entrez"}
    assert (result.version, result.notes) == ("2017-07-18", ("2 of 6 rows left out: without a gene or a condition",))


def test_conditions_of_the_older_form(tmp_path: Path) -> None:
    head = "#GeneID\tGeneSymbol\tConceptID\tDiseaseName\tSourceName\tSourceID\tDiseaseMIM\tLastModified"
    line = "672\tBRCA1\tC0006142\tFamilial cancer of breast\tSNOMED CT\t254843006\t114480\t16 Feb 2016"
    table = read({"conditions": put(tmp_path, "old", head, line)}).table
    assert table.select("gene", "group").rows() == [("672", "associated")]


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ((HEAD.replace("ConceptID", "Concept"), *CONDITIONS), "lacks the column ConceptID"),
        ((HEAD, CONDITIONS[0] + "\tmore"), "line 2 has 10 fields"),
        ((HEAD, CONDITIONS[4]), "names no gene with a concept"),
        ((HEAD,), "has a header and no rows"),
        (("<html>",), "web page"),
    ],
)
def test_what_is_no_file_of_conditions_is_refused(tmp_path: Path, lines: tuple[str, ...], what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read({"conditions": put(tmp_path, "bad", *lines)})
    assert "\n" not in str(caught.value)


@pytest.mark.real_data
def test_a_real_sample_of_conditions(real_data: Path) -> None:
    path = real_data / "databases" / "clinvar" / "dipper_gene_condition_source_id_subset.tsv"
    raw = [line.split("\t") for line in path.read_text().splitlines()]
    result = read({"conditions": path})
    expected = {
        (r[0], f"{'MEDGEN' if r[3][1] == 'N' else 'UMLS'}:{r[3]}", r[5], "associated" if r[1] else "related")
        for r in raw
    }
    assert set(result.table.select("gene", "term", "evidence", "group").rows()) == expected
    assert (len(raw), len(result.table), result.table["term"].n_unique()) == (48, 48, 33)
    assert (result.version, result.notes) == ("2018-11-02", ())


# The file of variants

WORDS = (
    "AlleleID Type Name GeneID GeneSymbol HGNC_ID ClinicalSignificance ClinSigSimple LastEvaluated RS nsv RCVaccession "
    "PhenotypeIDS PhenotypeList Origin OriginSimple Assembly ReviewStatus VariationID"
)
COLUMNS = WORDS.split()
ONE = "criteria provided, single submitter"
TWO = "criteria provided, multiple submitters, no conflicts"
PANEL = "reviewed by expert panel"


def variant(number: int, genes: str = "ABCA4", significance: str = "Pathogenic", **more: str) -> str:
    told = {"VariationID": str(number), "GeneSymbol": genes, "ClinicalSignificance": significance, "Assembly": "GRCh38"}
    told |= {"ReviewStatus": ONE, "PhenotypeIDS": "MedGen:C0000001", "PhenotypeList": "one"} | more
    return "\t".join(told.get(name, "-") for name in COLUMNS)


def variants(folder: Path, *lines: str) -> dict[str, Path]:
    path = folder / "variant_summary.txt.gz"
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in ("#" + "\t".join(COLUMNS), *lines)).encode()))
    return {"variants": path}


def test_variants_are_counted_for_gene_and_condition(tmp_path: Path) -> None:
    two = {"PhenotypeIDS": "MedGen:C0000001|MONDO:MONDO:0000002,OMIM:100100", "PhenotypeList": "one|two"}
    result = read(
        variants(
            tmp_path,
            variant(1),
            variant(1),  # placed twice, on X and Y
            variant(1, Assembly="GRCh37"),
            variant(2, ReviewStatus=PANEL),
            variant(3, ReviewStatus=TWO, **two),
            variant(4, "BRCA1", "Likely pathogenic", **two),
            variant(5, "BRCA1;LOC126862571", "Pathogenic/Likely pathogenic"),
            variant(6, Assembly="GRCh37"),
        )
    )
    table = check(result.table, where="test")
    assert table.select("gene", "gene_kind", "term", "label", "score", "evidence", "group").rows() == [
        ("ABCA4", "symbol", "UMLS:C0000001", "one", 3.0, PANEL, "variants"),
        ("ABCA4", "symbol", "MONDO:0000002", "two", 1.0, TWO, "variants"),
        ("BRCA1", "symbol", "UMLS:C0000001", "one", 2.0, ONE, "variants"),
        ("BRCA1", "symbol", "MONDO:0000002", "two", 1.0, ONE, "variants"),
    ]
    assert result.notes == ()


@pytest.mark.parametrize(
    ("significance", "why"),
    [
        ("Pathogenic", ""),
        ("Likely pathogenic", ""),
        ("Pathogenic/Likely pathogenic", ""),
        ("Pathogenic/Likely pathogenic/Pathogenic, low penetrance", ""),
        ("Pathogenic, low penetrance", ""),
        ("Likely pathogenic; risk factor", ""),
        ("drug response; Pathogenic", ""),
        ("Pathogenic|other", ""),
        ("Benign", "benign"),
        ("Likely benign", "benign"),
        ("Benign/Likely benign; association", "benign"),
        ("Uncertain significance", "uncertain"),
        ("Uncertain significance/Uncertain risk allele", "uncertain"),
        ("Conflicting classifications of pathogenicity", "conflicting"),
        ("Conflicting interpretations of pathogenicity; other", "conflicting"),
        ("drug response", "of another kind"),
        ("risk factor", "of another kind"),
        ("not provided", "of another kind"),
        ("-", "of another kind"),
        ("", "of another kind"),
        ("no classification for the single variant", "of another kind"),
        ("Established risk allele", "of another kind"),
    ],
)
def test_what_counts_as_pathogenic(tmp_path: Path, significance: str, why: str) -> None:
    result = read(variants(tmp_path, variant(1, "OTHER"), variant(2, "ABCA4", significance)))
    assert ("ABCA4" in set(result.table["gene"])) == (not why)
    assert result.notes == ((f"1 of 2 variants of GRCh38 left out: {why}",) if why else ())


def test_what_cannot_be_said_is_counted(tmp_path: Path) -> None:
    result = read(
        variants(
            tmp_path,
            variant(1),
            variant(2, "BRCA1;NBR2"),
            variant(3, "subset of 12 genes: BRCA1"),
            variant(4, "-"),
            variant(5, PhenotypeList="not provided", PhenotypeIDS="MedGen:C3661900"),
            variant(6, PhenotypeList="-", PhenotypeIDS="-"),
        )
    )
    assert len(result.table) == 1
    assert result.notes == (
        "3 of 6 variants of GRCh38 left out: over several genes or none",
        "2 of 6 variants of GRCh38 left out: with no named condition",
    )


def test_genes_and_conditions_of_a_variant() -> None:
    assert one_gene(["BRCA1", " LOC126862571"]) == "BRCA1"
    assert one_gene(["LOC126862571"]) == one_gene([]) == one_gene(["A", "B"]) == one_gene(["covers 34 genes"]) == ""
    ids = "MONDO:MONDO:0013342,MedGen:C3150901,OMIM:613647,Orphanet:306511||MedGen:C3661900|MedGen:CN1;OMIM:100100|MONDO:1"
    names = "Paraplegia|Macular dystrophy|not provided|a;b|c; d"
    assert list(conditions(ids, names)) == [
        Condition("UMLS:C3150901", "Paraplegia"),
        Condition("Macular dystrophy", "Macular dystrophy"),
        Condition("MEDGEN:CN1", "a"),
        Condition("OMIM:100100", "b"),
        Condition("MONDO:1", "c; d"),
    ]
    assert condition([("MedGen", "C0000001")], "See cases") is None


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([variant(1, Assembly="GRCh37")], "holds no variant of GRCh38"),
        ([variant(1) + "\tx"], "line 2 has 20 fields"),
        ([], "has a header and no rows"),
    ],
)
def test_what_is_no_file_of_variants_is_refused(tmp_path: Path, lines: list[str], what: str) -> None:
    with pytest.raises(DataError, match=what):
        read(variants(tmp_path, *lines))
    cut = variants(tmp_path, *(variant(n * n) for n in range(3000)))["variants"]
    cut.write_bytes(cut.read_bytes()[:-300])
    with pytest.raises(DamagedError, match="cut short"):
        read({"variants": cut})
    with pytest.raises(MissingError, match="gene_condition_source_id or variant_summary"):
        read({})


def test_both_files_together(tmp_path: Path) -> None:
    conditions = put(tmp_path, "gene_condition_source_id", HEAD, *CONDITIONS)
    result = read({"conditions": conditions, **variants(tmp_path, variant(1), variant(2, "A", "Benign"))})
    assert dict(result.table["group"].value_counts().rows()) == {"associated": 3, "related": 1, "variants": 1}
    assert (result.version, len(result.notes)) == ("2017-07-18", 2)


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    """A hundred megabytes of lines is read in far less memory."""
    path = tmp_path / "variant_summary.txt.gz"
    filler = "x" * 1000
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("#" + "\t".join(COLUMNS) + "\n")
        block = "".join(
            variant(n, f"GENE{n % 50}", "Benign" if n % 10 else "Pathogenic", Name=filler) + "\n" for n in range(2000)
        )
        for _ in range(50):
            file.write(block)
    code = (
        "import resource, sys; from pathlib import Path; from elute.validation.sources.clinvar import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "import polars; t = read({'variants': Path(sys.argv[1])}).table\n"
        "print(len(t), int(t['score'].sum()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(
        run, capture_output=True, text=True, timeout=120, env={**os.environ, "POLARS_MAX_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    rows, counted, kilobytes = map(int, done.stdout.split())
    assert (rows, counted) == (5, 200)
    assert kilobytes < 300_000


@pytest.mark.real_data
def test_a_real_sample_of_variants(real_data: Path) -> None:
    path = real_data / "databases" / "clinvar" / "variant_summary_2026-06_5rows.txt"
    assert len(path.read_text().splitlines()[0].split("\t")) == 43
    result = read({"variants": path})
    assert result.table.select("gene", "term", "label", "score", "evidence").rows() == [
        ("AP5Z1", "UMLS:C3150901", "Hereditary spastic paraplegia 48", 1.0, TWO),
        ("AP5Z1", *["Macular dystrophy with or without extraocular features"] * 2, 1.0, TWO),
        ("FOXRED1", "UMLS:C4748791", "Mitochondrial complex I deficiency, nuclear type 19", 1.0, TWO),
        ("FOXRED1", "UMLS:C2931891", "Leigh syndrome", 1.0, TWO),
        ("FOXRED1", *["FOXRED1-related disorder"] * 2, 1.0, TWO),
    ]
    assert result.notes == (
        "1 of 4 variants of GRCh38 left out: benign",
        "1 of 4 variants of GRCh38 left out: uncertain",
    )


# The service


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCBI_API_KEY", raising=False)


def test_all_variants_of_a_gene_are_counted(tmp_path: Path) -> None:
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        table = check(ask(client, recorded.GENES), where="test")
        assert len(table) == recorded.EXPECTED
        asked = [request.path.rpartition("/")[2] for request in server.asked]
        assert asked.count("esearch.fcgi") == 3  # two pages, and one of a gene without any
        assert all(len(request.one("id").split(",")) <= 500 for request in server.asked if "id" in request.query)
        assert all(request.one("tool") == "elute" and request.one("db") == "clinvar" for request in server.asked)
    # Of 620 variants seven lie over two genes (…01), seven conflict (…02); the first forty name two conditions.
    over = sum(uid % 100 == 1 for uid in recorded._IDS)
    conflicting = sum(uid % 100 == 2 for uid in recorded._IDS)
    few = sum(uid % 100 not in (1, 2) for uid in recorded._IDS if uid < 10_000 + recorded.FANCONI)
    assert (over, conflicting) == (7, 7)
    assert set(table.select("gene", "term", "score", "evidence").rows()) == {
        ("BRCA1", "UMLS:C2676676", recorded.VARIANTS - over - conflicting, PANEL),
        ("BRCA1", "MONDO:0019391", few, PANEL),
    }


def test_a_record_that_is_too_large_in_company_is_asked_for_in_less(tmp_path: Path) -> None:
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        ask(client, recorded.GENES[:1])
        sizes = [
            len(r.one("id").split(","))
            for r in server.asked
            if str(recorded.TOO_LARGE) in r.query.get("id", [""])[0].split(",")
        ]
        assert sizes[0] == 20
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] <= 3
        n = len(server.asked)
        ask(client, recorded.GENES[:1])
        assert len(server.asked) == n


def test_a_record_that_is_too_large_alone_fails_the_gene(tmp_path: Path) -> None:
    routes = recorded.routes()
    at = ("GET", "eutils.ncbi.nlm.nih.gov/entrez/eutils/esummary.fcgi")
    right = routes[at]

    def refusing(request: Any) -> Any:
        large = str(recorded.TOO_LARGE) in request.one("id").split(",")
        return serving.answer({"error": "the result is too large"}) if large else right(request)

    what = f"the variant {recorded.TOO_LARGE} is too large"
    with (
        serving.serve(routes | {at: refusing}) as server,
        serving.patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match=what),
    ):
        ask(client, recorded.GENES)


@pytest.mark.parametrize(("key", "least"), [("", 0.34), ("a-key-of-ncbi", 0.11)])
def test_the_pace_and_where_the_key_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, least: float
) -> None:
    if key:
        monkeypatch.setenv("NCBI_API_KEY", key)
    clock = serving.Clock()
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server, clock=clock) as client:
        begin = clock.now
        ask(client, recorded.GENES)
        assert {request.query.get("api_key", [""])[0] for request in server.asked} == {key}
        pace = (clock.now - begin) / (len(server.asked) - 1)
        assert least <= pace + 1e-6
        assert pace < least * 1.2
    assert key == "" or not any(key.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


Change = Callable[[dict[str, Any]], object]


def changing(which: str, change: Change) -> dict[tuple[str, str], Any]:
    """The routes with one of the answers changed."""
    routes = recorded.routes()
    at = ("GET", f"eutils.ncbi.nlm.nih.gov/entrez/eutils/{which}.fcgi")
    right = routes[at]

    def changed(request: Any) -> Any:
        status, headers, body = right(request)
        told = json.loads(body)
        change(told["esearchresult"] if which == "esearch" else told.get("result", told))
        return status, headers, json.dumps(told).encode()

    return {**routes, at: changed}


def of_first(result: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = result[result["uids"][0]] if "uids" in result else {"germline_classification": {}}
    return first


@pytest.mark.parametrize(
    ("which", "change", "what"),
    [
        ("esearch", lambda r: r.update(count="621"), "promises|empty page"),
        ("esearch", lambda r: r.update(count=620), "no .*text at esearchresult.count"),
        ("esearch", lambda r: r.update(idlist=[1, 2]), "has no numbers at"),
        ("esearch", lambda r: r.update(retstart="5"), "begins at 5, not at 0"),
        ("esearch", lambda r: r.update(ERROR="Search Backend failed"), "Search Backend failed"),
        ("esearch", lambda r: r.update(errorlist={"fieldsnotfound": ["gene"]}), "did not understand 'gene'"),
        ("esearch", lambda r: r.update(errorlist={"phrasesnotfound": ["X[gene]"]}), r"did not understand 'X\[gene\]'"),
        ("esearch", lambda r: r.update(warninglist={"phrasesignored": ["AND"]}), "did not understand 'AND'"),
        ("esearch", lambda r: r.update(idlist=r["idlist"][:1] * 2), "twice|promises"),
        ("esummary", lambda r: r["uids"].pop(), "other variants at result.uids"),
        ("esummary", lambda r: of_first(r).update(error="cannot get document summary"), "cannot get document summary"),
        ("esummary", lambda r: of_first(r).pop("genes"), "lacks genes"),
        ("esummary", lambda r: of_first(r)["germline_classification"].pop("trait_set", None), "lacks .*trait_set"),
        ("esummary", lambda r: of_first(r).pop("germline_classification", None), "lacks germline_classification"),
        (
            "esummary",
            lambda r: [r[u].update(genes=[{"symbol": "TTN"}]) for u in r.get("uids", ())],
            "variants of other genes than BRCA1",
        ),
    ],
)
def test_an_answer_of_another_form_is_no_answer(tmp_path: Path, which: str, change: Change, what: str) -> None:
    with serving.serve(changing(which, change)) as server, serving.patient(tmp_path, server) as client:
        with pytest.raises(ServiceError, match=what) as caught:
            ask(client, recorded.GENES[:1])
        assert "\n" not in str(caught.value)


def test_variants_of_a_gene_that_was_once_called_so_are_left_out(tmp_path: Path) -> None:
    def half(result: dict[str, Any]) -> None:
        for uid in result.get("uids", ())[::2]:
            result[uid]["genes"] = [{"symbol": "OTHER"}]

    with serving.serve(changing("esummary", half)) as server, serving.patient(tmp_path, server) as client:
        table = ask(client, recorded.GENES[:1])
    assert set(table["gene"]) == {"BRCA1"}
    assert 290 < table["score"].max() < 320  # type: ignore[operator]


def test_what_it_is() -> None:
    assert (SOURCE.name, SOURCE.redistributable, SOURCE.ask_by, SOURCE.batch, SOURCE.key) == (
        "clinvar",
        True,
        "symbol",
        1,
        "",
    )
    assert SOURCE.role_of(Path("variant_summary.txt.gz")) == "variants"
    assert SOURCE.role_of(Path("gene_condition_source_id")) == "conditions"
    assert [file.role for file in SOURCE.files if file.url] == ["conditions"]
    assert Gene("A").symbol == "A"
