"""Pages walked to their end, and many genes asked for: nothing is ever a part that passes for the whole."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError, DataError, MissingError, ServiceError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.online.answers import Unusable, items
from elute.validation.online.asking import ask_all
from elute.validation.online.client import Client
from elute.validation.online.pages import Page, walk
from elute.validation.online.service import Service
from elute.validation.reading.associations import Read, empty, finish


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


serving = load("serving")
answer, patient, Clock = serving.answer, serving.patient, serving.Clock

# Pages


def paged(all_items: Sequence[Any], size: int, says: str) -> Callable[[int], Page]:
    pages = -(-len(all_items) // size)

    def fetch(number: int) -> Page:
        part = all_items[number * size : (number + 1) * size]
        return Page(part, len(all_items) if "total" in says else None, pages if "pages" in says else None)

    return fetch


@settings(max_examples=150, deadline=None)
@given(count=st.integers(0, 60), size=st.integers(1, 17), says=st.sampled_from(["total", "pages", "total pages", ""]))
def test_all_pages_give_all_items(count: int, size: int, says: str) -> None:
    expected = [{"id": i} for i in range(count)]
    assert walk(paged(expected, size, says), identity=lambda item: item["id"]) == expected


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(2, 60),
    size=st.integers(1, 17),
    says=st.sampled_from(["total", "pages", "total pages"]),
    fault=st.sampled_from(["lost", "twice", "emptied", "other total", "again"]),
    place=st.integers(0, 10**6),
)
def test_whatever_happens_to_a_page_there_is_the_whole_or_nothing(
    count: int, size: int, says: str, fault: str, place: int
) -> None:
    expected = [{"id": i} for i in range(count)]
    right = paged(expected, size, says)
    spoilt = place % -(-count // size)

    def fetch(number: int) -> Page:
        page = right(number)
        found, total = list(page.items), page.total
        if number == spoilt:
            if fault == "lost":
                found = found[1:]
            elif fault == "twice":
                found = [found[0], *found[:-1]]
            elif fault == "emptied":
                found = []
            elif fault == "again":
                found = list(right(max(0, number - 1)).items)
            elif total is not None:
                total += 1
        return Page(found, total, page.of_pages)

    try:
        assert walk(fetch, identity=lambda item: item["id"]) == expected
    except Unusable:
        return
    except AssertionError:
        # Without a total, nothing tells of a page that is too short where a short one is due, or the only one.
        assert says == "pages"
        assert fault in ("lost", "emptied")
        assert spoilt in (0, -(-count // size) - 1)


def test_a_service_that_knows_no_pages_is_seen_through() -> None:
    """The parameter is ignored: every page is the first. Without the check, the count would be right."""
    with pytest.raises(Unusable, match="gives page 1 again as page 2"):
        walk(lambda _: Page([{"id": 1}, {"id": 2}], 4))
    with pytest.raises(Unusable, match="gives page 1 again as page 2"):
        walk(lambda _: Page([{"id": 1}], None))


@pytest.mark.parametrize(
    ("pages", "told"),
    [
        ([Page([1, 2], 4), Page([3], 4), Page([], 4)], "gives an empty page 3"),
        ([Page([1, 2], 4), Page([3, 4, 5], 4)], "promises 4 items and gives 5"),
        ([Page([1, 2], 4), Page([3, 4], 5)], "changes its number of items from 4 to 5 on page 2"),
        ([Page([1, 2], 4), Page([3, 4], None)], "changes its number of items from 4 to None"),
        ([Page([1, 2], 3, 2), Page([3], 3, 3)], "changes its number of pages from 2 to 3"),
        ([Page([1, 2], 4, 2), Page([3], 4, 2)], "promises 4 items and gives 3"),
        ([Page([1, 2], None, 3), Page([3], None, 3)], "gives 1 items on page 2 and 2 on the first"),
        ([Page([], 3)], "gives an empty page 1"),
        ([Page([], -1)], "promises -1 items"),
        ([Page([1, 2], 4), Page([2, 3], 4)], "gives an item twice, the second time on page 2"),
        ([Page([1, 1], 2)], "gives an item twice"),
        ([Page([1, 2, 3, 4, 5, 6, 7], None)], "gives more than 6 items"),
    ],
)
def test_what_is_wrong_with_pages_is_told(pages: list[Page], told: str) -> None:
    with pytest.raises(Unusable, match=told):
        walk(lambda number: pages[number], identity=lambda item: item, most_items=6)


def test_pages_without_end_are_left() -> None:
    asked = []

    def fetch(number: int) -> Page:
        asked.append(number)
        return Page([{"id": number}], None)

    with pytest.raises(Unusable, match="or 20 pages"):
        walk(fetch, most_pages=20)
    assert max(asked) == 20


HOST = "api.example.org"
SERVICE = Service("example", f"https://{HOST}/", pause=0)
ROWS = [{"id": i} for i in range(25)]


def page_of(value: Any) -> Page:
    return Page(items(value, "rows"), value["total"])


class Paged:
    """A list that a service gives in pages of ten, and that may change between them."""

    def __init__(self) -> None:
        self.rows = list(ROWS)
        self.changes: dict[int, list[dict[str, int]]] = {}
        self.asked = 0

    def __call__(self, request: Any) -> Any:
        self.asked += 1
        self.rows = self.changes.pop(self.asked, self.rows)
        start = int(request.one("page")) * 10
        return answer({"total": len(self.rows), "rows": self.rows[start : start + 10]})


def walked(client: Client) -> list[Any]:
    def fetch(number: int) -> Page:
        return client.get(SERVICE, "rows", params={"page": number}, read=page_of)

    return walk(fetch, identity=lambda row: row["id"])


def entries(folder: Path) -> list[Path]:
    return list(folder.rglob("*.json"))


def test_a_walk_that_stopped_goes_on(tmp_path: Path) -> None:
    rows = Paged()
    with serving.serve({("GET", f"{HOST}/rows"): rows}) as server, patient(tmp_path, server) as client:
        server.spoil("500", first=2)
        with pytest.raises(ServiceError, match="500"):
            walked(client)
        assert len(entries(tmp_path)) == 2
        server.heal()
        assert walked(client) == ROWS
        assert len(server.asked) == 1


def test_a_list_that_changes_under_way_is_walked_once_more(tmp_path: Path) -> None:
    rows = Paged()
    longer = [{"id": -1}, *ROWS]
    rows.changes = {2: longer}
    with serving.serve({("GET", f"{HOST}/rows"): rows}) as server, patient(tmp_path, server) as client:
        assert walked(client) == longer
        assert rows.asked == 2 + 3


def test_a_list_that_never_stands_still_is_not_had_and_not_kept(tmp_path: Path) -> None:
    rows = Paged()
    rows.changes = {n: ROWS + [{"id": 100 + k} for k in range(n)] for n in range(2, 99)}
    with serving.serve({("GET", f"{HOST}/rows"): rows}) as server, patient(tmp_path, server) as client:
        with pytest.raises(Unusable, match="changes its number of items"):
            walked(client)
        assert not entries(tmp_path)


def test_pages_of_different_days_are_not_put_together(tmp_path: Path) -> None:
    """The first page is three days old when the rest comes, and the list has been shifted: its length is the same."""
    clock = Clock()
    rows = Paged()
    later = [{"id": i} for i in range(1, 26)]
    with serving.serve({("GET", f"{HOST}/rows"): rows}) as server, patient(tmp_path, server, clock=clock) as client:
        client.get(SERVICE, "rows", params={"page": 0}, read=page_of)
        clock.now += 3 * 86400
        rows.rows = later
        assert walked(client) == later
        asked = rows.asked
        assert walked(client) == later
        assert rows.asked == asked


# Genes

GENES = [Gene(f"G{i}", f"HGNC:{i}", str(1000 + i)) for i in range(10)]


def about(request: Any) -> Any:
    names = request.query.get("id", [])
    return answer({"rows": [{"gene": name, "term": f"T:{i}"} for name in names for i in range(3)]})


def ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    params = {"id": [gene.entrez for gene in genes]}
    rows = client.get(SERVICE, "genes", params=params, read=lambda value: items(value, "rows"))
    frame = pl.DataFrame(rows, schema={"gene": pl.String, "term": pl.String}).with_columns(label="term")
    return finish(frame, where="example", gene_kind="entrez")


def never(_: Mapping[str, Path]) -> Read:
    raise AssertionError


def database(**settings: Any) -> Database:
    given = {"ask": ask, "ask_by": "entrez", "batch": 3, **settings}
    licence = Licence("CC0", "https://example.org/", redistributable=True)
    return Database("example", "Example", 1, licence, "rows", (File("all"),), never, **given)


ROUTES = {("GET", f"{HOST}/genes"): about}


def test_all_genes_are_asked_for_in_batches(tmp_path: Path) -> None:
    genes = [*GENES, Gene("NOTHING"), GENES[0]]
    with serving.serve(ROUTES) as server, patient(tmp_path, server) as client:
        asked = ask_all(database(), client, genes)
        assert [len(request.query["id"]) for request in server.asked] == [3, 3, 3, 1]
    assert len(asked.table) == 30
    assert asked.answered == tuple(GENES)
    assert asked.lacking == (Gene("NOTHING"),)
    assert asked.failed == {}


@pytest.mark.parametrize("fault", list(serving.FAULTS))
def test_a_batch_that_fails_does_not_lose_the_others(tmp_path: Path, fault: str) -> None:
    limits = {"tries": 2} | serving.endured(fault)
    with serving.serve(ROUTES) as server, patient(tmp_path, server, limits=limits) as client:
        server.spoil(fault, first=1, times=2)
        asked = ask_all(database(), client, GENES)
        assert set(asked.table["gene"]) == {gene.entrez for gene in (*GENES[:3], *GENES[6:])}
        assert len(asked.table) == 21
        assert list(asked.failed) == ["G3", "G4", "G5"]
        assert asked.answered == (*GENES[:3], *GENES[6:])
        server.heal()
        again = ask_all(database(), client, GENES)
        assert len(server.asked) == 1
        assert again.failed == {}
        assert len(again.table) == 30


def test_a_service_that_is_down_is_not_asked_for_every_gene(tmp_path: Path) -> None:
    limits = {"tries": 2, "failures": 2}
    tried: list[Gene] = []

    def counted(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
        tried.extend(genes)
        return ask(client, genes)

    with serving.serve(ROUTES) as server, patient(tmp_path, server, limits=limits) as client:
        server.spoil("500", first=1)
        asked = ask_all(database(batch=1, ask=counted), client, GENES)
        assert tried == GENES[:4]  # the last one is told that the service is left alone
        assert len(server.asked) == 1 + 2 * 2
    assert asked.answered == (GENES[0],)
    assert list(asked.failed) == [gene.symbol for gene in GENES[1:]]
    assert "answers 500" in asked.failed["G1"]
    assert "left alone" in asked.failed["G9"]
    assert not [line for line in asked.failed.values() if "\n" in line]


def test_rows_about_other_genes_fail_their_batch(tmp_path: Path) -> None:
    """What a service does that ignores the parameter: it answers with whatever it has."""

    def whatever(request: Any) -> Any:
        return answer({"rows": [{"gene": "7157", "term": "T:1"}]})

    with serving.serve({("GET", f"{HOST}/genes"): whatever}) as server, patient(tmp_path, server) as client:
        asked = ask_all(database(), client, GENES[:3])
    assert asked.answered == ()
    assert not len(asked.table)
    assert asked.failed["G0"] == "Example: answers with 7157, which was not asked for (1 such row)"


def test_no_rows_is_an_answer(tmp_path: Path) -> None:
    asked = ask_all(database(ask=lambda *_: empty()), Client(tmp_path), GENES[:2])
    assert asked.answered == tuple(GENES[:2])
    assert asked.table.equals(empty())


def test_a_table_of_another_form_fails_its_batch(tmp_path: Path) -> None:
    asked = ask_all(database(ask=lambda *_: pl.DataFrame({"gene": ["1"]})), Client(tmp_path), GENES[:2])
    assert set(asked.failed) == {"G0", "G1"}
    assert "is no table of associations" in asked.failed["G0"]

    def fails(*_: Any) -> pl.DataFrame:
        raise DataError("x")

    assert ask_all(database(ask=fails), Client(tmp_path), GENES[:1]).failed == {"G0": "x"}


def test_what_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(tmp_path)
    with pytest.raises(ConfigError, match="Example: has no service that can be asked"):
        ask_all(database(ask=None), client, GENES)
    monkeypatch.delenv("OMIM_API_KEY", raising=False)
    with pytest.raises(MissingError, match="Example: is not asked: OMIM_API_KEY is not set"):
        ask_all(database(key="OMIM_API_KEY"), client, GENES)
    monkeypatch.setenv("OMIM_API_KEY", "0123456789")

    def tells(*_: Any) -> pl.DataFrame:
        raise ServiceError("no: 0123456789")

    assert ask_all(database(key="OMIM_API_KEY", ask=tells), client, GENES[:1]).failed == {"G0": "no: (key)"}


def test_stopping_by_hand_keeps_what_came(tmp_path: Path) -> None:
    def stops(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
        if genes[0] == GENES[6]:
            raise KeyboardInterrupt
        return ask(client, genes)

    with serving.serve(ROUTES) as server, patient(tmp_path, server) as client:
        with pytest.raises(KeyboardInterrupt):
            ask_all(database(ask=stops), client, GENES)
        assert ask_all(database(), client, GENES).failed == {}
        assert len(server.asked) == 4


def test_nothing_to_ask_for(tmp_path: Path) -> None:
    asked = ask_all(database(), Client(tmp_path), [])
    assert (len(asked.table), asked.answered, asked.lacking, asked.failed) == (0, (), (), {})
