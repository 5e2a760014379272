"""GenCC's submissions: all are kept that say yes, and what others say against them stays in sight."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from elute.base.errors import DamagedError, DataError
from elute.validation.fetching import Fetching, fetch
from elute.validation.reading.associations import check
from elute.validation.sources.gencc import AGAINST, RANKS, SOURCE, read


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
recorded = beside("recorded/gencc.py")


def written(folder: Path, content: bytes, name: str = "submissions.txt") -> dict[str, Path]:
    path = folder / name
    path.write_bytes(content)
    return {"submissions": path}


def test_every_submission_is_a_row(tmp_path: Path) -> None:
    result = read(written(tmp_path, recorded.export(recorded.SUBMISSIONS)))
    table = check(result.table, where="test")
    assert table.select("gene", "gene_kind", "called", "term", "label", "score", "evidence").rows() == [
        ("HGNC:8109", "hgnc", "ODC1", "MONDO:0033642", "disease 42", 4.0, "Strong, G2P"),
        ("HGNC:8109", "hgnc", "ODC1", "MONDO:0033642", "disease 42", 4.0, "Strong, PanelApp Australia"),
        (
            "HGNC:15710",
            "hgnc",
            "LDB3",
            "MONDO:0005021",
            "disease 21",
            5.0,
            "Definitive, Ambry Genetics; against: Disputed Evidence, ClinGen",
        ),
        (
            "HGNC:15710",
            "hgnc",
            "LDB3",
            "MONDO:0005021",
            "disease 21",
            3.0,
            "Moderate, Invitae; against: Disputed Evidence, ClinGen",
        ),
    ]
    assert result.version == "2026-09-05"
    assert result.notes == (
        "1 submission superseded by newer versions of themselves",
        "1 submission left out: Disputed Evidence",
        "1 submission left out: Refuted Evidence",
        "1 pair of a gene and a disease with submissions for and against it",
    )


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("columns", ["COLUMNS", "OLD_COLUMNS"])
def test_the_columns_of_old_and_of_today(tmp_path: Path, separator: str, columns: str) -> None:
    ones = [each for each in recorded.SUBMISSIONS if each["sgc_id"] != "SGC-5" or each["version_number"] == "2"]
    content = recorded.export(ones, getattr(recorded, columns), separator)
    assert content.startswith(b'"uuid"' if columns == "OLD_COLUMNS" else b'"sgc_id"')
    assert len(read(written(tmp_path, content)).table) == recorded.EXPECTED


def test_the_ranks_go_from_sure_to_unsure() -> None:
    order = ["definitive", "strong", "moderate", "supportive", "limited"]
    assert sorted(RANKS, key=RANKS.__getitem__, reverse=True) == order
    assert not RANKS.keys() & set(AGAINST)
    assert len(RANKS) + len(AGAINST) == 9  # as many as GenCC has


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    rows = [
        recorded.submission(1, "HGNC:1 A", "MONDO:0000001", "strong", "X"),
        recorded.submission(2, "HGNC:1 A", "", "Strong", "X"),
        recorded.submission(3, " A", "MONDO:0000001", "Strong", "X"),
        recorded.submission(4, "HGNC:1 A", "MONDO:0000001", "Beyond doubt", "X"),
        recorded.submission(5, "HGNC:2 B", "MONDO:0000001", "Animal Model Only", ""),
        recorded.submission(6, "HGNC:2 B", "MONDO:0000002", "No Known Disease Relationship", "X"),
    ]
    result = read(written(tmp_path, recorded.export(rows)))
    assert result.table.select("gene", "evidence").rows() == [("HGNC:1", "strong, X")]
    assert result.notes == (
        "2 submissions without a gene, a disease or a classification",
        "1 submission left out: Animal Model Only",
        "1 submission left out: No Known Disease Relationship",
        "1 submission left out for a classification that is new ('Beyond doubt')",
    )


@pytest.mark.parametrize(
    ("content", "kind", "what"),
    [
        (
            recorded.export(recorded.SUBMISSIONS).replace(b"classification_title", b"verdict"),
            DataError,
            "lacks the column classification_title",
        ),
        (recorded.export([]), DataError, "has a header and no rows"),
        (
            recorded.export([recorded.submission(1, "HGNC:1 A", "M:1", "Refuted Evidence", "X")]),
            DataError,
            "holds no submission",
        ),
        (recorded.export(recorded.SUBMISSIONS)[:-40], DataError, "line|fields|cannot be read"),
        (recorded.export(recorded.SUBMISSIONS, separator=";"), DataError, "semicolons"),
        (b"<!DOCTYPE html><html>Too many requests</html>", DamagedError, "web page"),
        (b"", DamagedError, "is empty"),
        (recorded.export(recorded.SUBMISSIONS).replace(b"Said", b"S\xe4id"), DataError, "is no UTF-8"),
    ],
)
def test_what_is_no_export_is_refused_in_a_line(
    tmp_path: Path, content: bytes, kind: type[DataError], what: str
) -> None:
    with pytest.raises(kind, match=what) as caught:
        read(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_it_is_fetched_in_its_new_form() -> None:
    with serving.serve(recorded.routes()) as server:
        snapshot = fetch(SOURCE, Fetching(mirror=server.url))
        assert [request.path for request in server.asked] == ["download/action/submissions-export-tsv"]
    assert (snapshot.version, snapshot.record["table"]["rows"]) == ("2026-09-05", recorded.EXPECTED)


def test_what_it_is() -> None:
    assert (SOURCE.name, SOURCE.redistributable, SOURCE.ask, SOURCE.by_hand) == ("gencc", True, None, "")
    assert SOURCE.files[0].url == recorded.URL
    assert SOURCE.role_of(Path("gencc-submissions.csv")) == SOURCE.role_of(Path("any name")) == "submissions"


@pytest.mark.real_data
def test_a_real_sample(real_data: Path) -> None:
    result = read({"submissions": real_data / "databases" / "gencc" / "oak_example-g2d.gencc.csv"})
    table = result.table
    assert (len(table), table["gene"].n_unique(), table["term"].n_unique()) == (19, 16, 19)
    counts = dict(table["score"].value_counts().rows())
    assert counts == {5.0: 1, 4.0: 7, 3.0: 5, 1.0: 6}  # Definitive, Strong, Moderate, Limited
    assert (result.version, result.notes) == ("2020-12-24", ())
