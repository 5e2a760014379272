"""DisGeNET's curated associations, from a person's file and from the service, all pages or none."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base.errors import DamagedError, DataError, MissingError, ServiceError
from elute.validation.database import Gene
from elute.validation.fetching import Fetching, fetch
from elute.validation.reading.associations import check
from elute.validation.sources.disgenet import SERVICE, SOURCE, ask, read


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
recorded = beside("recorded/disgenet.py")

WORDS = (
    "geneId geneSymbol DSI DPI diseaseId diseaseName diseaseType diseaseClass diseaseSemanticType score EI YearInitial "
    "YearFinal NofPmids NofSnps source"
)
COLUMNS = WORDS.split()


def row(gene: str, symbol: str, disease: str, score: str, **more: str) -> str:
    told = {
        "geneId": gene,
        "geneSymbol": symbol,
        "diseaseId": disease,
        "diseaseName": f"disease {disease}",
        "score": score,
    }
    told |= {"diseaseType": "disease", "source": "CTD_human;ORPHANET"} | more
    return "\t".join(told.get(name, "") for name in COLUMNS)


def written(folder: Path, *rows: str, head: str = "\t".join(COLUMNS)) -> dict[str, Path]:
    path = folder / "curated_gene_disease_associations.tsv"
    path.write_text("".join(f"{each}\n" for each in (head, *rows)))
    return {"associations": path}


# The file


def test_the_file_of_a_person(tmp_path: Path) -> None:
    result = read(
        written(
            tmp_path,
            row("1001", "ALFA", "C0000001", "0.7"),
            row("1002", "BETA", "UMLS_C0000002", "1", diseaseType="phenotype", source=""),
            row("1002", "BETA", "C0000003", "", diseaseName=""),
            row("", "BETA", "C0000002", "1"),
            row("1002", "BETA", "OMIM:1", "1"),
        )
    )
    table = check(result.table, where="test")
    assert table.select("gene", "gene_kind", "called", "term", "label", "score", "evidence", "group").rows() == [
        ("1001", "entrez", "ALFA", "UMLS:C0000001", "disease C0000001", 0.7, "CTD_human;ORPHANET", "disease"),
        ("1002", "entrez", "BETA", "UMLS:C0000002", "disease UMLS_C0000002", 1.0, None, "phenotype"),
        ("1002", "entrez", "BETA", "UMLS:C0000003", "UMLS:C0000003", None, "CTD_human;ORPHANET", "disease"),
    ]
    assert result.notes == ("2 rows without a gene or a UMLS concept left out",)


@pytest.mark.parametrize(
    ("head", "rows", "kind", "what"),
    [
        (
            "\t".join(COLUMNS).replace("diseaseId", "id"),
            [row("1", "A", "C0000001", "1")],
            DataError,
            "lacks the column diseaseId",
        ),
        ("\t".join(COLUMNS), [], DataError, "has a header and no rows"),
        ("\t".join(COLUMNS), [row("1", "A", "C0000001", "high")], DataError, "the score 'high' is no number"),
        ("\t".join(COLUMNS), [row("1", "A", "OMIM:1", "1")], DataError, "names no disease by its UMLS concept"),
        ("\t".join(COLUMNS), [row("1", "A", "C0000001", "1") + "\tx"], DamagedError, "line 2 has 17 fields"),
        ("<html>Sign in</html>", [], DamagedError, "web page"),
    ],
)
def test_what_is_no_such_file_is_refused(
    tmp_path: Path, head: str, rows: list[str], kind: type[DataError], what: str
) -> None:
    with pytest.raises(kind, match=what) as caught:
        read(written(tmp_path, *rows, head=head))
    assert "\n" not in str(caught.value)


def test_it_is_never_fetched_nor_passed_on() -> None:
    assert not SOURCE.redistributable
    assert "non-commercial" in SOURCE.licence.only
    with pytest.raises(MissingError, match="DisGeNET: is not fetched.*databases import disgenet FILE"):
        fetch(SOURCE, Fetching(accept_licence=True))


# The service


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DISGENET_API_KEY", recorded.KEY)
    return str(recorded.KEY)


def test_all_pages_of_all_genes(tmp_path: Path, key: str) -> None:
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        table = check(ask(client, recorded.GENES), where="test")
        assert (len(table), len(server.asked)) == (recorded.EXPECTED, 3)
        assert all(request.headers["authorization"] == key for request in server.asked)
        assert not any(key in json.dumps([request.path, request.query]) for request in server.asked)
        assert ask(client, recorded.GENES).equals(table)
        assert len(server.asked) == 3  # the rest was kept
    assert set(table["gene"]) == {"1001", "1002"}
    assert table["term"].n_unique() == recorded.EXPECTED
    one = table.filter(table["term"] == "UMLS:C0000005").row(0, named=True)
    assert (one["gene"], one["called"], one["label"]) == ("1002", "BETA", "Made-up disease 5")
    assert (one["score"], one["evidence"], one["group"]) == (0.988, "Definitive", "disease")


def test_a_gene_of_nothing_has_no_rows(tmp_path: Path, key: str) -> None:
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        assert len(check(ask(client, recorded.GENES[2:]), where="test")) == 0


def test_without_a_key_and_with_a_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        monkeypatch.delenv("DISGENET_API_KEY", raising=False)
        with pytest.raises((MissingError, ServiceError), match="DISGENET_API_KEY"):
            ask(client, recorded.GENES)
        assert not server.asked
        monkeypatch.setenv("DISGENET_API_KEY", "another-key-of-somebody")
        with pytest.raises(ServiceError, match="DISGENET_API_KEY") as caught:
            ask(client, recorded.GENES)
        assert "another-key" not in str(caught.value)
        assert len(server.asked) == 1


def test_it_waits_as_long_as_its_own_header_says(tmp_path: Path, key: str) -> None:
    clock = serving.Clock()
    right = recorded.routes()[("GET", "api.disgenet.com/api/v1/gda/summary")]
    answers = [
        serving.answer({"status": "TOO_MANY_REQUESTS"}, status=429, **{"X-Rate-Limit-Retry-After-Seconds": "17"})
    ]
    routes = {
        ("GET", "api.disgenet.com/api/v1/gda/summary"): lambda request: answers.pop() if answers else right(request)
    }
    with serving.serve(routes) as server, serving.patient(tmp_path, server, clock=clock) as client:
        assert len(ask(client, recorded.GENES)) == recorded.EXPECTED
        assert 17 in clock.slept


def changed(place: str, value: Any) -> Any:
    """A change of the answer at a dotted place."""

    def change(answer: Any) -> Any:
        status, headers, body = answer
        told = json.loads(body)
        here = told
        *way, last = place.split(".")
        for step in way:
            here = here[int(step)] if step.isdigit() else here[step]
        if isinstance(value, type):
            del here[last]
        else:
            here[last] = value
        return status, headers, json.dumps(told).encode()

    return change


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ("status", "ERROR", "status is 'ERROR'"),
        ("paging.totalElements", 500, "promises|changes|empty page"),
        ("paging.currentPageNumber", 7, "gives page 7 for page 0"),
        ("payload.0.geneNcbiID", 4711, "about the gene 4711, which was not asked for"),
        ("payload.0.score", "0.5", "number at score"),
        ("payload.0.diseaseUMLSCUI", object, "lacks diseaseUMLSCUI"),
        ("payload.0.diseaseName", None, "no text at diseaseName"),
        ("payload", {"details": "no"}, "no list at payload"),
        ("paging", None, "no object at paging"),
    ],
)
def test_an_answer_of_another_form_is_no_answer(tmp_path: Path, key: str, place: str, value: Any, what: str) -> None:
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        server.change = changed(place, value)
        with pytest.raises(ServiceError, match=what) as caught:
            ask(client, recorded.GENES)
        assert key not in str(caught.value)
        assert "\n" not in str(caught.value)
        server.heal()
        assert len(ask(client, recorded.GENES)) == recorded.EXPECTED  # nothing of it was kept


def test_the_service_takes_as_many_genes_as_a_trial_account_may_ask() -> None:
    assert (SOURCE.batch, SOURCE.ask_by, SOURCE.key) == (10, "entrez", SERVICE.key)
    assert Gene("A").entrez == ""
