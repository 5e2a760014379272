"""Open Targets: folders of Parquet parts under the names of several releases, and its GraphQL."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from elute.base.errors import DamagedError, DataError, ServiceError
from elute.validation.online.answers import Unusable
from elute.validation.reading.associations import Read
from elute.validation.sources import open_targets
from elute.validation.sources.open_targets import SOURCE


def beside(name: str) -> ModuleType:
    """A module that lies beside this test."""
    spec = importlib.util.spec_from_file_location(
        f"beside_open_targets_{Path(name).stem}", Path(__file__).parent / name
    )
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
recorded = beside("recorded/open_targets.py")

ROWS = [
    ("EFO_0000274", "ENSG00000169194", 0.73, 812),
    ("MONDO_0004979", "ENSG00000169194", 0.66, 4031),
    ("Orphanet_154", "ENSG00000092054", 0.5, 3),
    ("HP_0001644", "ENSG00000092054", 0.25, 1),
]
NAMES = [("EFO_0000274", "atopic eczema"), ("MONDO_0004979", "asthma"), ("Orphanet_154", "dilated cardiomyopathy")]
OLD = {"diseaseId": pl.String, "targetId": pl.String, "score": pl.Float64, "evidenceCount": pl.Int64}


def folder(tmp_path: Path, *parts: pl.DataFrame, name: str = "association_overall_direct") -> Path:
    path = tmp_path / name
    path.mkdir()
    for i, part in enumerate(parts):
        part.write_parquet(path / f"part-{i:05}-1d2c-c000.snappy.parquet", compression="snappy")
    (path / "_SUCCESS").touch()
    return path


def frame(rows: list[tuple[Any, ...]] = ROWS) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=OLD, orient="row")


def new(rows: list[tuple[Any, ...]] = ROWS) -> pl.DataFrame:
    """The columns of 26.03."""
    lists = pl.Series([[{"year": 2020, "score": 0.1}]] * len(rows))
    kind = pl.lit("overall")
    table = frame(rows).rename({"score": "associationScore"})
    return table.with_columns(aggregationType=kind, aggregationValue=kind, currentNovelty=0.1, timeseries=lists)


def diseases(tmp_path: Path, rows: list[tuple[str, str | None]] = NAMES) -> Path:  # type: ignore[assignment]
    table = pl.DataFrame(rows, schema={"id": pl.String, "name": pl.String}, orient="row")
    return folder(tmp_path, table.with_columns(parents=pl.lit([["EFO_1"]])), name="disease")


def read(path: Path, **others: Path) -> Read:
    return SOURCE.read({"associations": path, **others})


@pytest.mark.parametrize("make", [frame, new], ids=["up to 25.12", "from 26.03"])
def test_a_folder_of_parts_is_one_table(tmp_path: Path, make: Callable[[Any], pl.DataFrame]) -> None:
    found = read(folder(tmp_path, make(ROWS[:3]), make(ROWS[3:])), diseases=diseases(tmp_path))
    assert found.table.select("gene", "gene_kind", "term", "label", "score", "evidence").rows() == [
        ("ENSG00000169194", "ensembl", "EFO:0000274", "atopic eczema", 0.73, "812 pieces of evidence"),
        ("ENSG00000169194", "ensembl", "MONDO:0004979", "asthma", 0.66, "4031 pieces of evidence"),
        ("ENSG00000092054", "ensembl", "ORPHA:154", "dilated cardiomyopathy", 0.5, "3 pieces of evidence"),
        ("ENSG00000092054", "ensembl", "HP:0001644", "HP:0001644", 0.25, "1 piece of evidence"),
    ]
    assert found.version == ""
    assert found.notes == ("1 disease without a name in its table: the id stands there.",)


def test_one_part_alone_without_names_of_diseases(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    frame().drop("evidenceCount").write_parquet(path)
    found = read(path)
    assert found.table["label"].to_list() == ["EFO:0000274", "MONDO:0004979", "ORPHA:154", "HP:0001644"]
    assert found.table["evidence"].null_count() == 4
    assert found.notes == ("Diseases are named by their ids: the table of diseases was not given.",)


def test_the_table_of_targets_gives_symbols(tmp_path: Path) -> None:
    targets = pl.DataFrame({"id": ["ENSG00000169194"], "approvedSymbol": ["IL13"], "tss": [1]})
    found = read(folder(tmp_path, frame()), targets=folder(tmp_path, targets, name="target"))
    assert found.table["called"].to_list() == ["IL13", "IL13", None, None]


def test_targets_that_are_no_human_genes_are_counted(tmp_path: Path) -> None:
    found = read(folder(tmp_path, frame([*ROWS, ("EFO_1", "ENSMUSG00000000001", 0.1, 1)])))
    assert len(found.table) == 4
    assert found.notes[0] == "1 row left out: the target is no human Ensembl gene."


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4, len(data) - 8):
        data[at] ^= 0x5A
    path.write_bytes(bytes(data))


BAD: dict[str, tuple[Callable[[Path], object], type[DataError], str]] = {
    "cut short": (cut, DamagedError, "cannot be read as Parquet"),
    "altered": (flipped, DamagedError, "cannot be read as Parquet"),
    "empty": (lambda p: p.write_bytes(b""), DamagedError, "is empty"),
    "a web page": (lambda p: p.write_text("<!DOCTYPE html><html></html>"), DamagedError, "is a web page, not data"),
    "text": (lambda p: p.write_text("diseaseId\ttargetId\tscore\n"), DamagedError, "is no Parquet file"),
    "the magic alone": (lambda p: p.write_bytes(b"PAR1"), DamagedError, "cannot be read as Parquet"),
    "a cut gzip": (lambda p: p.write_bytes(b"\x1f\x8b\x08\x00\x00"), DamagedError, "is cut short or damaged"),
    "no score": (
        lambda p: frame().drop("score").write_parquet(p),
        DataError,
        "lacks the column score or associationScore",
    ),
    "no gene": (
        lambda p: frame().drop("targetId").write_parquet(p),
        DataError,
        "lacks the column targetId; there are dis",
    ),
    "another table": (lambda p: pl.DataFrame({"id": ["x"]}).write_parquet(p), DataError, "lacks the column targetId"),
    "a gene of numbers": (
        lambda p: frame().with_columns(targetId=pl.lit(1)).write_parquet(p),
        DataError,
        "has Int32 in the column targetId",
    ),
    "a score in words": (
        lambda p: frame().with_columns(score=pl.lit("high")).write_parquet(p),
        DataError,
        "has String in the column score",
    ),
    "no rows": (lambda p: frame([]).write_parquet(p), DataError, "holds no rows"),
    "a score that is none": (
        lambda p: frame([("EFO_1", "ENSG00000000001", float("nan"), 1)]).write_parquet(p),
        DataError,
        "row 1 of the associations has a score that is no number",
    ),
    "a disease without id": (
        lambda p: frame([("EFO_1", "ENSG00000000001", 0.1, 1), (None, "ENSG00000000002", 0.1, 1)]).write_parquet(p),
        DataError,
        "row 2 of the associations has no term",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_part_that_is_none_is_one_line(tmp_path: Path, name: str) -> None:
    spoil, kind, says = BAD[name]
    path = tmp_path / "part-00000.parquet"
    frame().write_parquet(path)
    spoil(path)
    with pytest.raises(kind, match=re.escape(says)) as error:
        read(path)
    assert str(error.value).startswith(f"{path}")
    assert "\n" not in str(error.value)


def test_one_bad_part_among_good_ones_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, frame(ROWS[:2]), frame(ROWS[2:]))
    cut(sorted(path.glob("*.parquet"))[1])
    with pytest.raises(DamagedError, match=r"part-00001.*cannot be read as Parquet"):
        read(path)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.parquet files"):
        read(folder(tmp_path))
    with pytest.raises(DataError, match="parts of two releases"):
        read(folder(tmp_path, frame(ROWS[:2]), new(ROWS[2:]), name="mixed"))
    with pytest.raises(DataError, match="has 2 pairs of gene and disease more than once"):
        later = [(disease, gene, score / 2, n) for disease, gene, score, n in ROWS[:2]]
        read(folder(tmp_path, frame(), frame(later), name="twice"))
    with pytest.raises(DataError, match="is the indirect table"):
        read(folder(tmp_path, frame(), name="association_by_overall_indirect"))
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nothing")
    with pytest.raises(DataError, match="lacks the column id"):
        read(folder(tmp_path, frame(), name="direct"), diseases=folder(tmp_path, frame(), name="diseases"))


def test_copies_are_told_by_their_names() -> None:
    for name in ("association_overall_direct", "associationByOverallDirect", "association_overall_direct.parquet"):
        assert SOURCE.role_of(Path(name)) == "associations"
    for name in ("disease", "diseases", "disease.parquet"):
        assert SOURCE.role_of(Path(name)) == "diseases"
    for name in ("disease_phenotype", "disease_hpo", "association_by_overall_indirect", "evidence"):
        assert SOURCE.role_of(Path(name)) is None


def test_the_newest_release_is_last_on_the_page() -> None:
    assert SOURCE.releases
    page = '<a href="24.09/">24.09/</a> 2024-09-19 <a href="26.03/">26.03/</a> <a href="latest/">latest/</a>'
    assert max(re.findall(SOURCE.releases.pattern, page)) == "26.03"


def test_all_pages_of_all_genes_come_in_few_questions(tmp_path: Path) -> None:
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        table = SOURCE.ask(client, recorded.GENES)  # type: ignore[misc]
        # One for the counts, one for the two genes that share, and three pages of the gene with 901 diseases: the
        # first of them is asked for once with the others' query and once as a page.
        assert len(server.asked) == 6
    assert len(table) == recorded.EXPECTED
    first = table.filter(pl.col("term") == "EFO:0000274").row(0, named=True)
    assert (first["gene"], first["called"], first["label"], first["score"]) == (
        "ENSG00000169194",
        "IL13",
        "atopic eczema",
        0.73,
    )
    assert table.filter(pl.col("called") == "MYH7")["term"].to_list() == ["ORPHA:154"]
    assert (
        table.filter(pl.col("term") == "MONDO:0000002")["evidence"].item()
        == "genetic_association; literature; known_drug"
    )
    assert set(table["gene"]) == {g for g, (_, rows) in recorded.ROWS.items() if rows}


@pytest.mark.parametrize("status", [200, 400])
def test_smaller_queries_where_the_service_finds_them_too_expensive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(recorded, "LIMIT", 1000)
    route = recorded.routes()
    real = next(iter(route.values()))
    route = dict.fromkeys(
        route, lambda request: (status, *real(request)[1:]) if b'"errors"' in real(request)[2] else real(request)
    )
    with serving.serve(route) as server, serving.patient(tmp_path, server) as client:
        assert len(SOURCE.ask(client, recorded.GENES)) == recorded.EXPECTED  # type: ignore[misc]
    monkeypatch.setattr(recorded, "LIMIT", 0)
    few = pytest.raises(ServiceError, match=r"^open-targets: .*(400|too expensive).*even for few rows")
    with serving.serve(route) as server, serving.patient(tmp_path / "2", server) as client, few:
        SOURCE.ask(client, recorded.GENES)  # type: ignore[misc]


def changed(change: Callable[[list[dict[str, Any]]], object]) -> Any:
    """Routes whose answers about rows are changed."""
    routes = recorded.routes()
    real = next(iter(routes.values()))

    def graphql(request: Any) -> Any:
        status, headers, body = real(request)
        value = json.loads(body)
        if b"approvedSymbol" in body:
            change(value["data"]["targets"])
        return status, headers, json.dumps(value).encode()

    return dict.fromkeys(routes, graphql)


def rows_of(targets: list[dict[str, Any]]) -> Any:
    return targets[0]["associatedDiseases"]["rows"]


WRONG = {
    "a gene left out": (lambda t: t.pop(), "leaves out ENSG"),
    "another gene": (lambda t: t[0].update(id="ENSG00000000001"), "one that was not asked for"),
    "a disease twice": (lambda t: rows_of(t).append(rows_of(t)[0]), "gives a disease twice"),
    "rows missing": (lambda t: rows_of(t).pop(), r"promises|empty page"),
    "a score of 73": (lambda t: rows_of(t)[0].update(score=73), "not from 0 to 1"),
    "no score": (lambda t: rows_of(t)[0].pop("score"), "lacks score"),
    "a disease without a name": (lambda t: rows_of(t)[0]["disease"].update(name=None), r"no text at disease\.name"),
    "no symbol": (lambda t: t[0].pop("approvedSymbol"), "lacks approvedSymbol"),
    "no list": (lambda t: t[0].update(associatedDiseases={"count": 1}), r"lacks associatedDiseases\.rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_cannot_be_is_refused_and_not_kept(tmp_path: Path, name: str) -> None:
    change, says = WRONG[name]
    with serving.serve(changed(change)) as server, serving.patient(tmp_path, server) as client:
        with pytest.raises(ServiceError, match=says) as error:
            SOURCE.ask(client, recorded.GENES[1:])  # type: ignore[misc]
        assert "\n" not in str(error.value)
        server.routes = recorded.routes()
        with serving.patient(tmp_path, server) as again:
            assert len(SOURCE.ask(again, recorded.GENES[1:])) == 41  # type: ignore[misc]


def test_errors_beside_data_are_errors(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="tells of an error: no such field"):
        open_targets._answer({"data": {"targets": []}, "errors": [{"message": "no such field"}]}, ids=[], paged=False)
