"""Databases fetched from a mirror on this machine, verified, damaged, refused; and files of a person's own."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import polars as pl
import pytest
from tests.validation.serving import Answer, Request, Server, answer, serve

from elute.base.errors import BusyError, ConfigError, DamagedError, DataError, EluteError, MissingError
from elute.base.files import locked
from elute.validation import fetching, hgnc, library, snapshots
from elute.validation.fetching import Fetching

GENES = (
    "hgnc_id\tsymbol\tensembl_gene_id\tentrez_id\tuniprot_ids\tprev_symbol\talias_symbol\tlocus_group\n"
    "HGNC:1\tALFA\tENSG00000000001\t11\tP00001\t\t\tprotein-coding gene\n"
)
SETS = "Heart work\tR-HSA-1\tALFA\tBETA\nLiver work\tR-HSA-2\tGAMA\tALFA\n"
OT = "ftp.ebi.ac.uk/pub/databases/opentargets/platform/"


def zipped(name: str, text: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


def parquet(**columns: list[object]) -> bytes:
    out = io.BytesIO()
    pl.DataFrame(columns).write_parquet(out)
    return out.getvalue()


def page(*names: str) -> Answer:
    links = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
    return answer(f"<html><body><a href='../'>up</a>{links}</body></html>", kind="text/html")


def data(content: bytes | str, kind: str = "application/octet-stream") -> Answer:
    return answer(content, kind=kind, Last_Modified="Thu, 16 Jan 2025 09:30:00 GMT")


ROUTES = {
    ("GET", "storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt"): lambda _: data(
        GENES, "text/plain"
    ),
    ("GET", "reactome.org/download/current/ReactomePathways.gmt.zip"): lambda _: data(
        zipped("ReactomePathways.gmt", SETS), "application/zip"
    ),
    ("GET", "rest.kegg.jp/link/hsa/pathway"): lambda _: data(
        "path:hsa00010\thsa:11\npath:hsa00010\thsa:12\n", "text/plain"
    ),
    ("GET", "rest.kegg.jp/list/pathway/hsa"): lambda _: data(
        "hsa00010\tGlycolysis - Homo sapiens (human)\n", "text/plain"
    ),
    ("GET", OT): lambda _: page("24.09/", "25.03/", "25.06/", "latest/"),
    ("GET", f"{OT}25.06/output/association_overall_direct/"): lambda _: page(
        "part-0.parquet", "part-1.parquet", "_SUCCESS"
    ),
    ("GET", f"{OT}25.06/output/association_overall_direct/part-0.parquet"): lambda _: data(
        parquet(diseaseId=["EFO_1"], targetId=["ENSG00000000001"], score=[0.5])
    ),
    ("GET", f"{OT}25.06/output/association_overall_direct/part-1.parquet"): lambda _: data(
        parquet(diseaseId=["MONDO_2"], targetId=["ENSG00000000001"], score=[0.25])
    ),
}


@pytest.fixture
def server() -> object:
    with serve(ROUTES) as running:
        yield running


def fetch(name: str, server: Server, **settings: object) -> snapshots.Snapshot:
    return fetching.fetch(library.database(name), Fetching(mirror=server.url, **settings))  # type: ignore[arg-type]


def test_a_database_is_fetched_verified_damaged_and_refused(server: Server, data: Path) -> None:
    made = fetch("reactome", server)
    assert snapshots.load(made).select("gene", "term", "label").rows() == [
        ("ALFA", "R-HSA-1", "Heart work"),
        ("BETA", "R-HSA-1", "Heart work"),
        ("GAMA", "R-HSA-2", "Liver work"),
        ("ALFA", "R-HSA-2", "Liver work"),
    ]
    told = made.record["files"][0]
    assert told["url"] == "https://reactome.org/download/current/ReactomePathways.gmt.zip"
    assert told["modified"] == "2025-01-16T09:30:00Z"
    assert made.record["how"] == "fetched"
    assert snapshots.verify(made) == []
    assert not (data / "downloads" / "reactome").exists() or not list((data / "downloads" / "reactome").iterdir())
    path = made.folder / "table.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert "bytes, not" in snapshots.verify(made)[0]
    with pytest.raises(DamagedError, match="elute databases fetch reactome"):
        library.table("reactome")
    fetch("reactome", server)
    assert len(library.table("reactome")[0]) == 4


def test_hgnc_and_sets_of_the_newest_release_in_parts(server: Server) -> None:
    assert hgnc.fetch(mirror=server.url)["genes"] == 1
    assert hgnc.verify() == []
    made = fetch("open-targets", server)
    assert made.version == "25.06"
    assert sorted(snapshots.load(made).select("gene", "term", "score").rows()) == [
        ("ENSG00000000001", "EFO:1", 0.5),
        ("ENSG00000000001", "MONDO:2", 0.25),
    ]
    assert made.record["files"][0]["parts"] == 2
    with pytest.raises(EluteError, match=r"24\.09"):
        fetch("open-targets", server, version="24.09")
    with pytest.raises(ConfigError, match="newest release alone"):
        fetch("reactome", server, version="80")


def test_licences_are_minded(server: Server) -> None:
    with pytest.raises(MissingError, match="academic use.*--accept-licence"):
        fetch("kegg", server)
    assert server.asked == []
    made = fetch("kegg", server, accept_licence=True)
    assert snapshots.load(made)["label"].unique().to_list() == ["Glycolysis"]
    for name in ("disgenet", "cellmarker", "panglaodb", "omim"):
        with pytest.raises(MissingError, match=f"elute databases import {name} FILE"):
            fetch(name, server, accept_licence=True)


@pytest.mark.parametrize("fault", ["500", "truncated", "dropped", "web page"])
def test_what_comes_in_part_is_never_installed(server: Server, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elute.validation.online.patience.Patience.delay", lambda *_: 0.0)
    server.spoil(fault)
    with pytest.raises(EluteError) as caught:
        fetch("reactome", server)
    assert "reactome" in str(caught.value).lower()
    assert "\n" not in str(caught.value)
    assert snapshots.find("reactome") is None
    server.heal()
    assert len(snapshots.load(fetch("reactome", server))) == 4


def test_one_that_fails_does_not_stop_the_others(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elute.validation.online.patience.Patience.delay", lambda *_: 0.0)
    made, table, failed = fetching.fetch_all(["gencc", "reactome", "hgnc", "disgenet"], Fetching(mirror=server.url))
    assert [each.source for each in made] == ["reactome"]
    assert table is not None
    assert list(failed) == ["gencc", "disgenet"]
    with pytest.raises(ConfigError, match="there is no database 'reaktome'"):
        fetching.fetch_all(["reactome", "reaktome"], Fetching(mirror=server.url))


def test_a_database_that_another_process_fetches_is_busy(server: Server, data: Path) -> None:
    folder = data / "downloads" / "reactome" / "newest"
    folder.mkdir(parents=True)
    with locked(folder, "fetching reactome"), pytest.raises(BusyError, match="fetching reactome"):
        fetch("reactome", server)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "ReactomePathways.gmt.gz"
    path.write_bytes(gzip.compress(SETS.encode(), mtime=0))
    made, _ = fetching.import_named("reactome", [str(path)], version="mine")
    assert made[0].name == "reactome mine"
    assert made[0].record["how"] == "imported"
    own = tmp_path / "own.gmt"
    own.write_text(SETS)
    fetching.import_named("my-sets", [str(own)])
    assert "my-sets" in library.names()
    assert library.standing("my-sets").state == "installed"
    fetching.import_named("hgnc", [str(_written(tmp_path / "h.txt", GENES))])
    assert hgnc.standing() is not None


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "files", "says"),
    [
        ("reactome", ["absent.gmt"], "there is no such file"),
        ("hpo", ["sets.gmt"], "its name does not say which file of HPO it is"),
        ("hpo", ["hp.obo", "other_hp.obo"], "are both taken for its file 'ontology'"),
        ("hpo", ["hp.obo"], "HPO needs its file genes_to_phenotype"),
        ("reactom", ["hp.obo"], "Did you mean 'reactome'"),
        ("../evil", ["sets.gmt"], "there is no database"),
        ("UPPER", ["sets.gmt"], "there is no database"),
        ("hgnc", ["hp.obo", "sets.gmt"], "is one file"),
        ("reactome", ["hp.obo"], "has no tab, so it is no set of genes"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path: Path, name: str, files: list[str], says: str) -> None:
    for each in ("hp.obo", "other_hp.obo"):
        (tmp_path / each).write_text("format-version: 1.2\n")
    (tmp_path / "sets.gmt").write_text(SETS)
    with pytest.raises((ConfigError, DataError, MissingError), match=says):
        fetching.import_named(name, [str(tmp_path / each) for each in files])
    assert not [each for each in library.names() if library.standing(each).state == "installed"]


def test_files_are_told_apart_by_hand(tmp_path: Path) -> None:
    path = _written(tmp_path / "links.bin", "path:hsa00010\thsa:11\n")
    made, _ = fetching.import_named("kegg", [f"links={path}"])
    assert len(snapshots.load(made[0])) == 1
    odd = _written(tmp_path / "a=b.gmt", SETS)
    assert len(snapshots.load(fetching.import_named("reactome", [str(odd)])[0][0])) == 4


def test_requests_carry_no_more_than_the_path(server: Server) -> None:
    fetch("reactome", server)
    request: Request = server.asked[-1]
    assert (request.host, request.query, request.body) == ("reactome.org", {}, b"")
