"""Snapshots of databases: installed, read, verified, damaged, refused, replaced, removed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import multiprocessing.synchronize
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from elute.base import files
from elute.base.errors import BusyError, ConfigError, DamagedError, DataError, MissingError, SpaceError, VersionError
from elute.validation import snapshots
from elute.validation.database import Database, File, Licence
from elute.validation.reading.associations import Read, empty, finish
from elute.validation.reading.columns import Layout, read_columns


def read(given: Mapping[str, Path]) -> Read:
    path = given["rows"]
    layout = Layout(need={"gene": ("gene",), "term": ("term",), "label": ("label",)}, may={"score": ("score",)})
    sheet = read_columns(path, layout)
    table = sheet.table.with_columns(pl.col("score").cast(pl.Float64))
    return Read(finish(table, where=path, gene_kind="symbol", group="all"), "2026-01", ("1 row was left out",))


SOURCE = Database(
    name="made-up",
    title="Made up",
    tier=1,
    licence=Licence("CC0", "https://example.org/licence", redistributable=True),
    about="a gene goes with a term",
    files=(File("rows", called=("*.tsv",)), File("terms", needed=False, keep=True, called=("*.obo",))),
    read=read,
)
ROWS = "gene\tterm\tlabel\tscore\nALFA\tT:1\tone\t0.5\nBETA\tT:1\tone\t\nBETA\tT:2\ttwo\t2\n"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    rows, terms = tmp_path / "rows.tsv", tmp_path / "terms.obo"
    rows.write_text(ROWS)
    terms.write_text("format-version: 1.2\n")
    return {"rows": rows, "terms": terms}


def install(given: Mapping[str, Path], version: str = "") -> snapshots.Snapshot:
    return snapshots.install(SOURCE, given, how="imported", version=version)


def test_what_is_installed_is_found_loaded_and_whole(given: dict[str, Path], data: Path) -> None:
    assert snapshots.find("made-up") is None
    made = install(given)
    found = snapshots.find("made-up")
    assert found == made
    assert (found.name, found.folder) == ("made-up 2026-01", data / "databases" / "made-up" / "2026-01")
    assert snapshots.load(found).select("gene", "term", "score").rows() == [
        ("ALFA", "T:1", 0.5),
        ("BETA", "T:1", None),
        ("BETA", "T:2", 2.0),
    ]
    told = json.loads((found.folder / "snapshot.json").read_text())
    assert told["table"] | {"sha256": "", "size": 0} == {
        "name": "table.parquet",
        "sha256": "",
        "size": 0,
        "rows": 3,
        "genes": 2,
        "terms": 2,
        "groups": {"all": 3},
    }
    assert told["files"][0]["sha256"] == files.digest_file(given["rows"])
    assert told["notes"] == ["1 row was left out"]
    assert told["licence"]["name"] == "CC0"
    assert found.file("terms").read_text() == "format-version: 1.2\n"
    assert snapshots.verify(found) == []
    with pytest.raises(DataError, match="keeps no 'rows'"):
        found.file("rows")


@pytest.mark.parametrize("name", ["table.parquet", "terms.obo"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_snapshot_is_refused_in_one_line(given: dict[str, Path], name: str, harm: str) -> None:
    made = install(given)
    path = made.folder / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-3])
    else:
        path.unlink()
    faults = snapshots.verify(made)
    assert len(faults) == 1
    assert str(path) in faults[0]
    assert "elute databases fetch made-up" in faults[0]
    if name == "table.parquet":
        with pytest.raises(DamagedError, match={"flip": "was altered", "cut": "bytes, not", "gone": "is gone"}[harm]):
            snapshots.load(made)
    else:
        with pytest.raises(DamagedError):
            made.file("terms")
        assert len(snapshots.load(made)) == 3


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"schema": 9}, VersionError, "newer elute"),
        ({"schema": None}, DamagedError, "not this snapshot's record"),
        ({"source": "other"}, DamagedError, "not this snapshot's record"),
        ({"version": "1999"}, DamagedError, "not this snapshot's record"),
        ({"table": {"name": "../../evil", "sha256": "", "size": 1}}, DamagedError, "not this snapshot's record"),
        ({"kept": [{"role": "terms", "name": "../x", "sha256": "", "size": 1}]}, DamagedError, "not this snapshot's"),
        ({"notes": [1]}, DamagedError, "not this snapshot's record"),
    ],
)
def test_a_record_that_is_none(
    given: dict[str, Path], change: dict[str, object], kind: type[Exception], says: str
) -> None:
    made = install(given)
    path = made.folder / "snapshot.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(kind, match=says):
        snapshots.find("made-up")
    path.write_text("{")
    with pytest.raises(DamagedError):
        snapshots.find("made-up")


def test_a_pointer_that_leads_elsewhere_is_refused(given: dict[str, Path], data: Path) -> None:
    install(given)
    current = data / "databases" / "made-up" / "current"
    for text in ("../../other", "", "a/b", "."):
        current.write_text(text)
        with pytest.raises((DamagedError, ConfigError)):
            snapshots.find("made-up")
    current.write_text("2031")
    assert snapshots.find("made-up") is None


def test_versions_stand_side_by_side_and_one_is_in_use(given: dict[str, Path]) -> None:
    first = install(given)
    given["rows"].write_text(ROWS + "GAMA\tT:2\ttwo\t1\n")
    second = install(given, "2026-02 / final")
    assert second.version == "2026-02-final"
    assert snapshots.versions("made-up") == ["2026-01", "2026-02-final"]
    assert snapshots.find("made-up") == second
    assert snapshots.use("made-up", "2026-01") == first == snapshots.find("made-up")
    with pytest.raises(ConfigError, match="there are: 2026-01, 2026-02-final"):
        snapshots.use("made-up", "2025")
    assert snapshots.remove("made-up", "2026-01") == ["2026-01"]
    assert snapshots.find("made-up") == second
    assert snapshots.remove("made-up") == ["2026-02-final"]
    assert snapshots.find("made-up") is None
    with pytest.raises(ConfigError, match="is not installed"):
        snapshots.remove("made-up")


def test_the_same_version_once_more_replaces_it(given: dict[str, Path]) -> None:
    install(given)
    given["rows"].write_text(ROWS + "GAMA\tT:2\ttwo\t1\n")
    made = install(given)
    assert len(snapshots.load(made)) == 4
    assert [path.name for path in made.folder.parent.iterdir() if path.name.endswith(".tmp")] == []


def test_a_reading_that_fails_leaves_what_was_there(given: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made = install(given)
    given["rows"].write_text("gene\tterm\nA\tB\n")
    with pytest.raises(DataError, match="lacks the column label"):
        install(given)
    nothing = replace(SOURCE, read=lambda _: Read(empty()))
    with pytest.raises(DataError, match="holds no rows"):
        snapshots.install(nothing, given, how="imported")
    given["rows"].write_text(ROWS)

    def full(self: pl.DataFrame, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(SpaceError, match="the disk is full"):
        install(given, "2027")
    assert snapshots.find("made-up") == made
    assert snapshots.versions("made-up") == ["2026-01"]
    assert snapshots.verify(made) == []


def test_files_that_lack_or_are_strange(given: dict[str, Path]) -> None:
    with pytest.raises(MissingError, match="Made up needs its file rows"):
        snapshots.install(SOURCE, {"terms": given["terms"]}, how="imported")
    with pytest.raises(MissingError, match="Made up needs its file rows"):
        snapshots.install(SOURCE, {}, how="imported")
    with pytest.raises(ConfigError, match="has no file 'other'"):
        snapshots.install(SOURCE, {**given, "other": given["rows"]}, how="imported")
    with pytest.raises(ConfigError, match="no name of a version"):
        install(given, "///")


def hold(folder: str, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with files.locked(Path(folder), "fetching made-up"):
        ready.set()
        done.wait(30)


def test_a_folder_that_another_process_writes_is_busy(given: dict[str, Path], data: Path) -> None:
    folder = data / "databases" / "made-up"
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(folder), ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(BusyError, match=r"process \d+ \(fetching made-up\) is writing here"):
            install(given)
    finally:
        done.set()
        other.join(30)
    assert install(given).version == "2026-01"
