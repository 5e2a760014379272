"""Ten databases, eight faults: no part of an answer is ever taken for the whole.

Each fault strikes once, at one of a run's requests, and the run must give the very table of an undisturbed one. Then it
strikes from the first request on and stays, then from the last one on: genes that were whole before are there,
everything else is told in a line, and nothing that was spoilt is kept. GenCC has no service: its file is fetched and read under the same faults.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import polars as pl
import pytest

from elute.base.env import KEYS
from elute.base.errors import DataError, ServiceError
from elute.validation.database import Database
from elute.validation.online.asking import Asked, ask_all
from elute.validation.online.download import fetch_file
from elute.validation.online.patience import Patience
from elute.validation.reading.associations import empty

SOURCES = (
    "open-targets",
    "hpo",
    "gwas-catalog",
    "disgenet",
    "monarch",
    "string-db",
    "omim",
    "orphanet",
    "clinvar",
    "gencc",
)
LIMITS = {"silence": 5.0, "tries": 8}


def load(name: str) -> ModuleType:
    called = name.rpartition("/")[2] if "/" not in name else name.replace("/", "_")
    if called not in sys.modules:
        spec = importlib.util.spec_from_file_location(called, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[called] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[called]


serving = load("serving")
FAULTS = tuple(serving.FAULTS)


class Run(NamedTuple):
    """What came of asking for all genes."""

    table: pl.DataFrame
    answered: tuple[Any, ...]
    failed: dict[str, str]


class Case:
    """One database, its recorded answers, and how it is asked."""

    def __init__(self, name: str) -> None:
        module = name.replace("-", "_")
        self.name = name
        self.source: Database = importlib.import_module(f"elute.validation.sources.{module}").SOURCE
        self.recorded = load(f"recorded/{module}")

    def alone(self, genes: tuple[Any, ...], folder: Path) -> pl.DataFrame:
        """The undisturbed table of some of the genes."""
        if (self.name, genes) not in _ALONE:
            with serving.serve(self.recorded.routes()) as server:
                _ALONE[self.name, genes] = self.run(server, folder, genes).table
        return _ALONE[self.name, genes]

    def run(self, server: Any, folder: Path, genes: Any = None, **limits: Any) -> Run:
        """Ask for genes with a client of its own."""
        genes = self.recorded.GENES if genes is None else genes
        if self.source.ask is None:
            return self._fetched(server, folder, **limits)
        with serving.patient(folder, server, limits=LIMITS | limits) as client:
            asked: Asked = ask_all(self.source, client, genes)
        return Run(asked.table, (*asked.answered, *asked.lacking), asked.failed)

    def _fetched(self, server: Any, folder: Path, **limits: Any) -> Run:
        """Fetch the file and read it; what is told of it then is a line, and a person fetches it once more."""
        file, patience = self.source.files[0], Patience(**(LIMITS | limits))
        folder.mkdir(exist_ok=True, parents=True)
        for _ in range(2):
            try:
                found = fetch_file(
                    file.url, folder / "f.tsv", mirror=server.url, patience=patience, sleep=lambda _: None
                )
                table = self.source.read({file.role: found.path}).table
            except (ServiceError, DataError) as error:
                told = error
            else:
                return Run(table, ("all",), {})
            if isinstance(told, ServiceError):
                break
        assert isinstance(told, DataError) or not (folder / "f.tsv").exists()
        return Run(empty(), (), {"all": str(told)})


_ALONE: dict[Any, pl.DataFrame] = {}


@pytest.fixture(scope="module")
def keys() -> Iterator[dict[str, str]]:
    """Keys as the recorded services want them, and strange ones for the others."""
    given = {name: f"s3cr3t/{name}+k&y" for name in KEYS}
    for name in SOURCES:
        case = Case(name)
        if case.source.key or hasattr(case.recorded, "KEY"):
            given[case.source.key] = getattr(case.recorded, "KEY", given.get(case.source.key, ""))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield given


@pytest.fixture(scope="module")
def undisturbed(keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Run, int]]:
    """The table of each database as it is without a fault, and the number of requests that it takes."""
    known: dict[str, tuple[Run, int]] = {}

    def have(name: str) -> tuple[Run, int]:
        if name not in known:
            case = Case(name)
            with serving.serve(case.recorded.routes()) as server:
                run = case.run(server, tmp_path_factory.mktemp(name))
                known[name] = run, len(server.asked)
        return known[name]

    return have


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], str]]:
    """What came of each database under each fault; shown as a table in the end."""
    found: dict[tuple[str, str], str] = {}
    yield found
    width = max(len(fault) for fault in FAULTS) + 2
    lines = ["", "runs in which a fault passed and all came + runs in which it stayed and nothing but whole genes came"]
    lines.append(" " * 14 + "".join(fault.rjust(width) for fault in FAULTS))
    lines += [
        name.ljust(14) + "".join(found.get((name, fault), "not run").rjust(width) for fault in FAULTS)
        for name in SOURCES
    ]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n".join(lines))


def spoilt_entries(folder: Path) -> list[str]:
    """Entries of a cache that hold what a fault sends."""
    texts = [json.loads(path.read_text())["text"] for path in folder.rglob("*.json") if path.name[0] != "."]
    return [text for text in texts if "_v2" in text or "<html" in text or '{"\x00' in text or "slow down" in text]


@pytest.mark.parametrize("name", SOURCES)
def test_recorded_answers_give_the_rows_that_are_expected(
    name: str, undisturbed: Callable[[str], tuple[Run, int]]
) -> None:
    run, asked = undisturbed(name)
    assert run.failed == {}
    assert len(run.table) == Case(name).recorded.EXPECTED
    assert asked >= 1


class Strike:
    """One fault upon one database."""

    def __init__(self, name: str, fault: str, undisturbed: Callable[[str], tuple[Run, int]]) -> None:
        self.fault, self.case, (self.right, self.requests) = fault, Case(name), undisturbed(name)
        self.told: list[str] = []
        # Those that wait do so beside the others, which takes time that is no fault.
        self.limits = {"silence": 0.4} if fault == "time-out" else {}

    def all(self, folder: Path) -> str:
        """Let it strike once, somewhere; from the beginning on; and from the last request on."""
        last = self.requests - 1
        self.passes(folder / "once", FAULTS.index(self.fault) * 3 % self.requests)
        self.stays(folder / "ever", 0)
        if last:
            self.stays(folder / "last", last)
        return f"1+{2 if last else 1}"

    def passes(self, folder: Path, place: int) -> None:
        """All comes, as if nothing had been."""
        with serving.serve(self.case.recorded.routes()) as server:
            server.spoil(self.fault, first=place, times=1)
            run = self.case.run(server, folder, **self.limits)
            assert server.spoilt == 1
        assert run.failed == {}
        assert run.table.equals(self.right.table)
        assert not spoilt_entries(folder)

    def stays(self, folder: Path, place: int) -> None:
        """What came before is whole; everything else is told; nothing of what was spoilt is kept."""
        with serving.serve(self.case.recorded.routes()) as server:
            server.spoil(self.fault, first=place)
            run = self.case.run(server, folder, tries=2, **self.limits)
            assert server.spoilt >= 1
            assert run.failed or server.harmless == server.spoilt
        assert not spoilt_entries(folder)
        if place == 0:
            assert not len(run.table)
            assert not list(folder.rglob("[!.]*.json"))
        if run.answered and self.case.source.ask is not None:
            assert run.table.equals(self.case.alone(run.answered, folder.with_name("alone")))
        assert not [line for line in run.failed.values() if "\n" in line or len(line) > 1000]
        self.told += run.failed.values()


@pytest.fixture(scope="module")
def waiting(
    undisturbed: Callable[[str], tuple[Run, int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[str]]]:
    """The strikes of which most is waiting, all under way at once."""
    strikes = {name: Strike(name, "time-out", undisturbed) for name in SOURCES}
    with ThreadPoolExecutor(len(SOURCES)) as pool:
        yield {name: pool.submit(s.all, tmp_path_factory.mktemp("time-out")) for name, s in strikes.items()}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(
    name: str,
    fault: str,
    undisturbed: Callable[[str], tuple[Run, int]],
    results: dict[tuple[str, str], str],
    waiting: dict[str, Future[str]],
    keys: dict[str, str],
    tmp_path: Path,
) -> None:
    results[name, fault] = "FAILED"
    if fault == "time-out":
        results[name, fault] = waiting[name].result(60)
        return
    strike = Strike(name, fault, undisturbed)
    done = strike.all(tmp_path)
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [value for value in keys.values() for text in (*strike.told, *files) if value in text]
    results[name, fault] = done


# What these services leave out where there is nothing to say, so that its absence cannot be told from a new name.
OPTIONAL = {"omim": {"approvedGeneSymbols", "phenotypeMapList", "phenotypeMimNumber"}}


def names_in(value: Any) -> set[str]:
    """All keys of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", ["hpo", "string-db", "omim", "orphanet"])
def test_a_single_key_under_another_name_changes_no_row(
    name: str, undisturbed: Callable[[str], tuple[Run, int]], tmp_path: Path
) -> None:
    """Each key of the answers in turn: there are the same rows, or there is an error (for those that answer briefly)."""
    case, (right, _) = Case(name), undisturbed(name)
    seen: set[str] = set()

    def noted(given: Any) -> Any:
        seen.update(names_in(json.loads(given[2])))
        return given

    said = ("term", "label", "score")
    with serving.serve(case.recorded.routes()) as server:
        server.change = noted
        case.run(server, tmp_path / "right")
        refused, changed = set(), set()
        for place, key in enumerate(sorted(seen)):
            server.change = lambda given, key=key: (
                *given[:2],
                json.dumps(serving.renamed(json.loads(given[2]), key)).encode(),
            )
            run = case.run(server, tmp_path / str(place), tries=2)
            if run.failed:
                refused.add(key)
            elif not run.table.select(said).equals(right.table.select(said)):
                changed.add(key)
    assert len(refused) >= 4
    assert changed <= OPTIONAL.get(name, set())


def test_all_ten_have_recorded_answers() -> None:
    """A database that lacks its recorded answers is not passed over."""
    folder = Path(__file__).parent / "recorded"
    assert not [name for name in SOURCES if not (folder / f"{name.replace('-', '_')}.py").is_file()]
    assert len(SOURCES) == 10
    assert len(FAULTS) == 8
