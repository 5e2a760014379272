"""What is asked of services: answers whole and checked, politely, and no key where none belongs."""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pytest

from elute.base import console
from elute.base.errors import ConfigError, EluteError, MissingError, ServiceError
from elute.validation.online import explained
from elute.validation.online.answers import Absent, Later, Resting, Unusable, field, items, maybe
from elute.validation.online.breaker import Breaker
from elute.validation.online.client import Client
from elute.validation.online.patience import Patience, told_wait
from elute.validation.online.service import Service


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

HOST = "api.example.org"
PLAIN = Service("example", f"https://{HOST}/v1/", pause=0.5)
KEYED = Service("keyed", f"https://{HOST}/v1/", pause=0, key="OMIM_API_KEY", key_in="query:api_key", key_needed=True)
BY_HEADER = Service("keyed", f"https://{HOST}/v1/", pause=0, key="OMIM_API_KEY", key_in="header:ApiKey")
STRANGE = 's3cr/t+"k&y=<x>%20\\'
GENES = {"genes": [{"symbol": "TP53"}]}


def genes(value: Any) -> list[str]:
    return [field(each, "symbol", str) for each in items(value, "genes")]


def serve(*answers: Any, path: str = "genes") -> Any:
    """A server with one route that gives the answers in turn, the last one for ever; functions are called."""
    given = list(answers) or [answer(GENES)]
    asked = iter(range(10**6))

    def route(request: Any) -> Any:
        found = given[min(next(asked), len(given) - 1)]
        return found(request) if callable(found) else found

    return serving.serve({("GET", f"{HOST}/v1/{path}"): route, ("POST", f"{HOST}/v1/{path}"): route})


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".turn"]


def nowhere(key: str, folder: Path, *said: str) -> None:
    """The key, in whatever way it is written, stands in no file and no text."""
    forms = (key, key.replace("/", "%2F"), key[:6], json.dumps(key)[1:-1])
    for path in folder.rglob("*"):
        text = path.read_text() if path.is_file() else path.name
        assert not [form for form in forms if form in text], path
    for text in said:
        assert not [form for form in forms if form in text]


def chain(error: BaseException) -> str:
    """Everything that a traceback can show of an error, the variables of our own frames included."""
    shown = []
    seen: list[BaseException | None] = [error]
    while seen:
        if (one := seen.pop()) is not None:
            frames = [f for f in traceback.walk_tb(one.__traceback__) if "elute" in f[0].f_code.co_filename]
            shown += [str(one), repr(one), repr(vars(one)), *(repr(f.f_locals) for f, _ in frames)]
            seen += [one.__cause__, one.__context__]
    return "\n".join(shown)


# What is right


def test_an_answer_is_read_and_kept(tmp_path: Path) -> None:
    with serve() as server, patient(tmp_path, server) as client:
        for _ in range(3):
            assert client.get(PLAIN, "genes", params={"q": "a b&c", "of": ["x", "y"], "n": 3}, read=genes) == ["TP53"]
    assert len(server.asked) == 1
    assert server.asked[0].query == {"q": ["a b&c"], "of": ["x", "y"], "n": ["3"]}
    assert server.asked[0].headers["user-agent"].startswith("elute/")
    assert server.asked[0].headers["accept"] == "application/json, text/json"


def test_an_answer_gets_too_old_and_none_comes_from_the_future(tmp_path: Path) -> None:
    clock = Clock()
    with serve() as server, patient(tmp_path, server, clock=clock, max_age=100) as client:
        for days, expected in ((0, 1), (0, 1), (2, 2), (-5, 3), (0, 3)):
            clock.now += days * 86400
            client.get(PLAIN, "genes", read=genes)
            assert len(server.asked) == expected


def test_json_and_forms_are_sent(tmp_path: Path) -> None:
    with serve() as server, patient(tmp_path, server) as client:
        assert client.post(PLAIN, "genes", json={"ids": ["a", "ü"]}, read=genes) == ["TP53"]
        assert client.post(PLAIN, "genes", json={"ids": ["a"]}, params={"p": 1}, read=genes) == ["TP53"]
        assert client.post(PLAIN, "genes", form={"identifiers": "a\rb", "species": "9606"}, read=genes) == ["TP53"]
        assert client.post(PLAIN, "genes", form={"identifiers": "a\rb", "species": "9606"}, read=genes) == ["TP53"]
        with pytest.raises(ValueError, match="either json or form"):
            client.post(PLAIN, "genes", read=genes)
    assert len(server.asked) == 3
    assert server.asked[0].json == {"ids": ["a", "ü"]}
    assert server.asked[1].query == {"p": ["1"]}
    assert server.asked[2].form == {"identifiers": "a\rb", "species": "9606"}
    assert server.asked[2].headers["content-type"] == "application/x-www-form-urlencoded"


def test_text_is_given_as_it_is(tmp_path: Path) -> None:
    tables = Service("tables", f"https://{HOST}/v1/", pause=0, accepts=("text/plain",))
    with serve(answer("hsa:1\tpath:1\n", kind="text/plain")) as server, patient(tmp_path, server) as client:
        for _ in range(2):
            assert client.get(tables, "genes", read=str.split, text=True) == ["hsa:1", "path:1"]
    assert len(server.asked) == 1


@pytest.mark.parametrize("path", ["../v2/genes", "a/../../b", "/genes", "a/./b", "%2e%2e/genes"])
def test_a_path_does_not_lead_out(tmp_path: Path, path: str) -> None:
    with serve() as server, patient(tmp_path, server) as client, pytest.raises(ConfigError, match="leads out"):
        client.get(PLAIN, path, read=genes)
    assert not server.asked


def test_a_path_is_quoted(tmp_path: Path) -> None:
    with serve(path="*") as server, patient(tmp_path, server) as client:
        client.get(PLAIN, "genes/a b?c#d/NCBIGene:672/%2F", read=genes)
    assert server.asked[0].path == "v1/genes/a b?c#d/NCBIGene:672//"
    assert not server.asked[0].query


# What may pass


@pytest.mark.parametrize("fault", list(serving.FAULTS))
def test_what_passes_is_asked_again_and_what_stays_is_an_error(tmp_path: Path, fault: str) -> None:
    with serve() as server, patient(tmp_path, server, limits=serving.endured(fault)) as client:
        server.spoil(fault, times=1)
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]
        assert len(server.asked) == 2
        before = kept(tmp_path)
        server.spoil(fault)
        with pytest.raises(ServiceError) as caught:
            client.get(PLAIN, "genes", params={"n": 2}, read=genes)
        assert len(server.asked) == server.spoilt == (2 if fault in ("malformed", "web page", "changed schema") else 3)
    assert kept(tmp_path) == before
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("example: ")
    assert caught.value.__context__ is None


MEANINGS = {
    400: ("answers 400 Bad Request \\(no such field\\)", 1),
    404: ("knows nothing of it: 404 Not Found", 1),
    405: ("answers 405", 1),
    407: ("lies behind a proxy", 1),
    408: ("answers 408", 3),
    410: ("answers 410 Gone", 1),
    429: ("answers 429 Too Many Requests .*, 3 times in a row", 3),
    501: ("answers 501", 1),
    502: ("answers 502", 3),
    503: ("answers 503", 3),
    504: ("answers 504", 3),
    511: ("lies behind a proxy.*sign in", 1),
    521: ("answers 521 \\(no such field\\)", 3),
    204: ("answers 204", 2),
    206: ("answers 206", 2),
    304: ("answers 304", 2),
    401: ("refuses: 401", 1),
    403: ("refuses: 403 Forbidden.*asked too often", 1),
}


@pytest.mark.parametrize("status", MEANINGS)
def test_each_status_means_something(tmp_path: Path, status: int) -> None:
    pattern, times = MEANINGS[status]
    body = b"" if status in (204, 304) else b'{"error": {"message": "no such field"}}'
    given = (status, {"Content-Type": "application/json"}, body)
    with (
        serve(given) as server,
        patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match=pattern) as told,
    ):
        client.get(PLAIN, "genes", read=genes)
    assert len(server.asked) == times
    assert isinstance(told.value, Absent) == (status == 404)
    assert not kept(tmp_path)


def test_a_page_that_says_404_is_no_word_on_a_gene(tmp_path: Path) -> None:
    with (
        serve(answer(serving.PAGE, status=404, kind="text/html")) as server,
        patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match="answers 404 Not Found") as told,
    ):
        client.get(PLAIN, "genes", read=genes)
    assert not isinstance(told.value, Absent)


def test_waits_double_and_chance_shortens_them(tmp_path: Path) -> None:
    clock = Clock()
    limits = {"tries": 6, "first": 8.0, "longest": 50.0}
    service = Service("example", f"https://{HOST}/v1/", pause=0)
    with (
        serve(answer({}, status=503)) as server,
        patient(tmp_path, server, clock=clock, limits=limits) as client,
        pytest.raises(ServiceError),
    ):
        client.get(service, "genes", read=genes)
    assert len(clock.slept) == 5
    for slept, most in zip(clock.slept, (8, 16, 32, 50, 50), strict=True):
        assert most / 2 <= slept <= most
    assert len({round(slept / most, 6) for slept, most in zip(clock.slept, (8, 16, 32, 50, 50), strict=True)}) > 1


NOW = 1_760_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 7.5 "}, 7.5),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": formatdate(NOW + 9, usegmt=True)}, 9),
        ({"Retry-After": formatdate(NOW - 9, usegmt=True)}, 0),
        # Its clock is an hour ahead of ours, or ours behind: its own two dates count.
        ({"Retry-After": formatdate(NOW + 3611, usegmt=True), "Date": formatdate(NOW + 3600, usegmt=True)}, 11),
        ({"X-Rate-Limit-Retry-After-Seconds": "5", "Retry-After": "2"}, 5),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Mon, 99 Foo 2025 99:99:99 GMT"}, None),
        ({}, None),
    ],
)
def test_a_service_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    small = {name.lower(): value for name, value in headers.items()}
    assert told_wait(small, ("retry-after", "x-rate-limit-retry-after-seconds"), NOW) == seconds


def test_the_time_that_it_says_is_waited(tmp_path: Path) -> None:
    clock = Clock()
    with (
        serve(answer({}, status=429, Retry_After="17"), answer(GENES)) as server,
        patient(tmp_path, server, clock=clock) as client,
    ):
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]
    assert sum(clock.slept) == pytest.approx(17)


def test_a_long_time_is_not_waited_and_nobody_asks_until_then(tmp_path: Path) -> None:
    clock = Clock()
    with (
        serve(answer({}, status=429, Retry_After="7200"), answer(GENES)) as server,
        patient(tmp_path, server, clock=clock) as client,
    ):
        with pytest.raises(ServiceError, match="429 Too Many Requests and asks to wait 2 h 0 min"):
            client.get(PLAIN, "genes", read=genes)
        clock.now += 7000
        with pytest.raises(Resting, match="left alone for 3 min 20 s after .*429"):
            client.get(PLAIN, "genes", read=genes)
        assert len(server.asked) == 1
        clock.now += 201
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]
    assert not clock.slept


def test_a_reader_may_ask_for_later(tmp_path: Path) -> None:
    def read(value: Any) -> list[str]:
        if value.get("state") == "busy":
            raise Later("is still at work", seconds=3)
        return genes(value)

    clock = Clock()
    busy = answer({"state": "busy"})
    with serve(busy, busy, answer(GENES)) as server, patient(tmp_path, server, clock=clock) as client:
        assert client.get(PLAIN, "genes", read=read) == ["TP53"]
        assert sum(clock.slept) == pytest.approx(6)
    with (
        serve(busy) as server,
        patient(tmp_path / "b", server) as client,
        pytest.raises(ServiceError, match="example: is still at work, 3 times in a row"),
    ):
        client.get(PLAIN, "genes", read=read)


@pytest.mark.parametrize(
    "fault", [KeyError("x"), TypeError("None"), ValueError("no"), AttributeError("a"), ConfigError("c")]
)
def test_a_reader_that_trips_over_an_answer_makes_it_unusable(tmp_path: Path, fault: Exception) -> None:
    def read(value: Any) -> None:
        raise fault

    with (
        serve() as server,
        patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match="example: its answer"),
    ):
        client.get(PLAIN, "genes", read=read)
    assert len(server.asked) == 2
    assert not kept(tmp_path)


# What is no answer

BODIES = {
    "latin-1 under a wrong name": (b'{"genes": [], "name": "M\xfcller"}', "application/json", "no utf-8 text"),
    "not a number": (b'{"genes": [], "score": NaN}', "application/json", "is no JSON"),
    "infinite": (b'{"genes": [], "score": -Infinity}', "application/json", "is no JSON"),
    "deep": (b"[" * 200_000, "application/json", "nests deeper|is no JSON"),
    "empty": (b"", "application/json", "is no JSON"),
    "two answers": (b"{}{}", "application/json", "is no JSON"),
    "an endless number": (b'{"genes": ' + b"9" * 5000 + b"}", "application/json", "is no JSON"),
    "a table": (b"a\tb", "text/tab-separated-values", "answers with 'text/tab-separated-values'"),
    "a page called JSON": (serving.PAGE, "application/json", "a web page in place of data"),
    "a page": (serving.PAGE, "text/html", "a web page in place of data.*sign in"),
    "an array": (b"[]", "application/json", "has no object at its top"),
    "a null": (b'{"genes": null}', "application/json", "has no list at genes"),
    "texts for objects": (b'{"genes": ["TP53"]}', "application/json", r"has no object at genes\[0\]"),
    "a number for text": (b'{"genes": [{"symbol": 53}]}', "application/json", "has no text at symbol"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_answer_is_refused(tmp_path: Path, name: str) -> None:
    body, kind, pattern = BODIES[name]
    with (
        serve(answer(body, kind=kind)) as server,
        patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match=pattern) as caught,
    ):
        client.get(PLAIN, "genes", read=genes)
    assert len(server.asked) == 2
    assert len(str(caught.value)) < 300
    assert not kept(tmp_path)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"genes": [{"symbol": "Ü"}]}'.encode(), "application/json; charset=UTF-8"),
        ('\ufeff{"genes": [{"symbol": "Ü"}]}'.encode(), "application/json"),
        ('{"genes": [{"symbol": "Ü"}]}'.encode("latin-1"), 'application/json;charset="ISO-8859-1"'),
        ('{"genes": [{"symbol": "Ü"}]}'.encode(), "Application/HAL+JSON"),
    ],
)
def test_texts_that_are_right(tmp_path: Path, body: bytes, kind: str) -> None:
    with serve(answer(body, kind=kind)) as server, patient(tmp_path, server) as client:
        assert client.get(PLAIN, "genes", read=genes) == ["Ü"]
        assert client.get(PLAIN, "genes", read=genes) == ["Ü"]
    assert len(server.asked) == 1


def test_a_body_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    big = answer(b'{"genes": "' + b"x" * 3_000_000 + b'"}')
    with (
        serve(big) as server,
        patient(tmp_path, server, limits={"most": 1_000_000}) as client,
        pytest.raises(ServiceError, match=r"answers with more than 1\.0 MB"),
    ):
        client.get(PLAIN, "genes", read=genes)
    assert len(server.asked) == 1


def packed(data: bytes) -> Any:
    status, headers, body = answer(data)
    return status, {**headers, "Content-Encoding": "gzip"}, body


def test_gzip_is_unpacked_in_bounds_and_to_its_end(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(GENES).encode())
    with serve(packed(whole)) as server, patient(tmp_path, server) as client:
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]
    bomb = gzip.compress(b" " * 100_000_000, 1)
    with serve(packed(bomb)) as server, patient(tmp_path / "b", server) as client:
        began = time.monotonic()
        with pytest.raises(ServiceError, match=r"more than 67\.1 MB"):
            client.get(PLAIN, "genes", read=genes)
        assert time.monotonic() - began < 15
    for body, told in ((whole[:-3], "cut its answer short"), (b"\x1f\x8b\x08nonsense", "damaged gzip")):
        with (
            serve(packed(body)) as server,
            patient(tmp_path / "c", server) as client,
            pytest.raises(ServiceError, match=told),
        ):
            client.get(PLAIN, "genes", read=genes)
    with (
        serve(answer(b"x", Content_Encoding="br")) as server,
        patient(tmp_path / "d", server) as client,
        pytest.raises(ServiceError, match="packed as 'br', which was not asked for"),
    ):
        client.get(PLAIN, "genes", read=genes)


def test_unpacking_goes_in_steps() -> None:
    from elute.validation.online.wire import _unpacked

    pieces = list(_unpacked(iter([gzip.compress(b" " * 20_000_000, 9)])))
    assert sum(map(len, pieces)) == 20_000_000
    assert max(map(len, pieces)) <= 1 << 20


def raw_server(talk: Callable[[socket.socket], None]) -> tuple[str, socket.socket]:
    """A server that says what no decent one would; it ends when its socket is closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    talk(connection)
                except OSError:
                    continue

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b" ")
        time.sleep(0.02)


def test_a_body_that_drips_does_not_hold_us(tmp_path: Path) -> None:
    url, listener = raw_server(drip)
    with listener, patient(tmp_path, url, limits={"whole": 0.1, "tries": 2}) as client:
        began = time.monotonic()
        with pytest.raises(ServiceError, match=r"did not end its answer within 0\.1 s"):
            client.get(PLAIN, "genes", read=genes)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhsa:1\n", "does not say how long its answer is"),
        (b"220 mail.example.org ESMTP\r\n", "broke the connection off"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 300_000 + b"\r\n\r\n", "broke the connection off"),
        (b"", "broke the connection off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nab", "cut its answer short"),
    ],
)
def test_what_is_hardly_http(tmp_path: Path, said: bytes, told: str) -> None:
    tables = Service("tables", f"https://{HOST}/v1/", pause=0, accepts=("text/plain",))
    url, listener = raw_server(lambda connection: connection.sendall(said))
    with listener, patient(tmp_path, url) as client, pytest.raises(ServiceError, match=told):
        client.get(tables, "genes", read=str, text=True)
    assert not kept(tmp_path)


# Where it leads


def moved(to: str, status: int = 302) -> Any:
    return status, {"Location": to}, b""


@pytest.mark.parametrize(
    "to", ["genes2", f"/{HOST}/v1/genes2", "/v1/genes2", f"https://{HOST}/v1/genes2", "{mirror}/" + f"{HOST}/v1/genes2"]
)
def test_a_redirect_within_the_host_is_followed(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMIM_API_KEY", STRANGE)
    routes = {("GET", f"{HOST}/v1/genes2"): lambda _: answer(GENES)}
    with serving.serve(routes) as server, patient(tmp_path, server) as client:
        routes["GET", f"{HOST}/v1/genes"] = lambda _: moved(to.replace("{mirror}", server.url))
        assert client.get(KEYED, "genes", read=genes) == ["TP53"]
    assert [request.one("api_key") for request in server.asked] == [STRANGE, STRANGE]


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("https://login.example.com/", "redirects to login.example.com, another host: not followed. Does a proxy"),
        ("//elsewhere.org/v1/genes", "without encryption|another host"),
        (f"http://{HOST}/v1/genes", f"redirects to {HOST}, without encryption"),
        (f"https://{HOST}:8443/v1/genes", "another host"),
        (f"https://{HOST}@elsewhere.org/", "without encryption|another host"),
        ("{mirror}/elsewhere.org/v1/genes", "redirects to elsewhere.org, another host"),
        ("file:///etc/passwd", "without encryption"),
        ("", "redirects to nowhere"),
        ("https://[bad/", "redirects to what is no address"),
        ("genes", "redirects more than 5 times"),
    ],
)
def test_no_other_redirect_is(tmp_path: Path, to: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMIM_API_KEY", STRANGE)
    routes: dict[Any, Any] = {("GET", "*"): lambda _: answer(GENES)}
    with serving.serve(routes) as server, patient(tmp_path, server) as client:
        routes.clear()
        routes["GET", f"{HOST}/v1/genes"] = lambda _: moved(to.replace("{mirror}", server.url))
        with pytest.raises(ServiceError, match=told) as caught:
            client.get(BY_HEADER, "genes", read=genes)
    assert {request.host for request in server.asked} == {HOST}
    nowhere(STRANGE, tmp_path, chain(caught.value))


def test_what_was_sent_is_not_sent_elsewhere(tmp_path: Path) -> None:
    with (
        serve(moved("genes", 301)) as server,
        patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match="redirects what was sent to it"),
    ):
        client.post(PLAIN, "genes", json={}, read=genes)
    assert len(server.asked) == 1
    with serve(moved("genes", 308), answer(GENES)) as server, patient(tmp_path / "b", server) as client:
        assert client.post(PLAIN, "genes", json={"a": 1}, read=genes) == ["TP53"]
    assert [request.json for request in server.asked] == [{"a": 1}, {"a": 1}]


def test_nothing_is_remembered_for_a_service(tmp_path: Path) -> None:
    with serve(answer(GENES, Set_Cookie="session=1; Path=/")) as server, patient(tmp_path, server) as client:
        for n in range(3):
            client.get(PLAIN, "genes", params={"n": n}, read=genes)
    assert not [request for request in server.asked if "cookie" in request.headers]


def test_a_name_that_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    clock = Clock()
    with Client(tmp_path, clock=clock, sleep=clock.sleep) as client, pytest.raises(ServiceError) as caught:
        client.get(PLAIN, "genes", read=genes)
    line = f"example: the name {HOST} is not found (no network?), 2 times in a row. Check the network, and the proxy if one is set."
    assert str(caught.value) == line


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with patient(tmp_path, url) as client, pytest.raises(ServiceError, match="cannot be reached .*refused.*3 times"):
        client.get(PLAIN, "genes", read=genes)


def test_no_encryption_where_it_is_due(tmp_path: Path) -> None:
    with (
        serve() as server,
        patient(tmp_path, server.url.replace("http:", "https:")) as client,
        pytest.raises(ServiceError, match="no encrypted connection to api.example.org"),
    ):
        client.get(PLAIN, "genes", read=genes)
    assert not server.asked


def test_a_certificate_that_is_not_to_be_trusted() -> None:
    import httpx

    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"

    def connect() -> None:
        try:
            raise cause
        except ssl.SSLError as error:
            raise httpx.ConnectError("[SSL]") from error

    with pytest.raises(explained.Failed) as caught, explained.failures(HOST):
        connect()
    assert caught.value.what == f"the certificate of {HOST} is not to be trusted (self-signed certificate)"
    assert "SSL_CERT_FILE" in caught.value.remedy
    assert caught.value.again == "no"


@pytest.mark.parametrize("proxy", ["http://me:s3cr3t-word@h:port", "ftp://me:s3cr3t-word@h:1"])
def test_a_proxy_that_is_none_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with Client(tmp_path) as client, pytest.raises(ConfigError, match="the proxy that the environment sets") as caught:
        client.get(PLAIN, "genes", read=genes)
    assert "s3cr3t" not in chain(caught.value).replace(repr(proxy), "")


def test_a_mirror_on_this_machine_needs_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serve() as server, patient(tmp_path, server) as client:
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]


@pytest.mark.parametrize(
    "mirror", ["mirror.example.org", "ftp://x", "http://me:pw@x", "http://x?q", "http://[x", "http://"]
)
def test_a_mirror_is_an_address(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a mirror"):
        Client(tmp_path, mirror=mirror)


# Keys


@pytest.mark.parametrize("service", [KEYED, BY_HEADER])
@pytest.mark.parametrize("key", [STRANGE, "0123456789abcdef", "a-key-with-%25-in-it"])
def test_a_key_is_sent_and_told_nowhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    service: Service,
    key: str,
) -> None:
    """Also where the service echoes it: in an answer, in an error, in a redirect, in a header."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(console, "_level", 2)
    monkeypatch.setenv("OMIM_API_KEY", f" {key}\n")
    monkeypatch.setenv("DISGENET_API_KEY", "another-key-of-ours")

    def echo(request: Any) -> Any:
        given = request.one("api_key") or request.headers.get("apikey", "")
        text = f"you gave {given}, that is {request.query}"
        if len(server.asked) < 3:
            return answer({"message": text}, status=500, X_Echo=given)
        if len(server.asked) == 3:
            return moved(f"genes?{urlencode(request.query, doseq=True)}")
        if request.query.get("n") == ["2"]:
            return answer({"error": {"message": text + "!" * 200}}, status=403, X_Echo=given)
        if request.query.get("n") == ["3"]:
            return answer(f"<html>{text}", kind="text/html")
        if request.query.get("n") == ["4"]:
            return answer({text: text})
        return answer({**GENES, "echo": text, "next": f"https://{HOST}/v1/genes?api_key={given}"})

    said = []
    with serve(echo) as server, patient(tmp_path, server, limits={"tries": 9}) as client:
        assert client.get(service, "genes", read=genes) == ["TP53"]
        for n in (2, 3, 4):
            with pytest.raises(ServiceError) as caught:
                client.get(service, "genes", params={"n": n}, read=genes)
            said.append(chain(caught.value))
        with pytest.raises(ServiceError) as caught:
            client.get(service, "genes", params={"n": 5}, read=lambda value: {}[value["echo"]])
        said.append(chain(caught.value))
    sent = {request.one("api_key") or request.headers.get("apikey") for request in server.asked}
    assert sent == {key}
    assert len(kept(tmp_path)) == 1
    assert "(key)" in kept(tmp_path)[0].read_text()
    assert "(key)" in said[0]
    logged = [record.getMessage() + repr(record.args) for record in caplog.records]
    assert any("httpx" in record.name for record in caplog.records)
    nowhere(key, tmp_path, *said, *logged, *capfd.readouterr())


@pytest.mark.parametrize("padding", range(90, 122, 3))
def test_a_key_that_is_cut_is_not_told_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: int) -> None:
    """An error's text is made short: the beginning of a key at its end would not be known as one."""
    key = "0123456789abcdefghij"
    monkeypatch.setenv("OMIM_API_KEY", key)
    said = answer({"message": "x" * padding + key}, status=400)
    with serve(said) as server, patient(tmp_path, server) as client, pytest.raises(ServiceError) as caught:
        client.get(KEYED, "genes", read=genes)
    assert "012" not in chain(caught.value)


def test_answers_are_kept_under_names_that_no_key_is_part_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server, patient(tmp_path, server) as client:
        for key in ("first-key-of-ours", "other-key-of-ours"):
            monkeypatch.setenv("OMIM_API_KEY", key)
            client.get(KEYED, "genes", read=genes)
    assert len(server.asked) == 1


@pytest.mark.parametrize("key", ["with a blank", "two\nlines-long", "ümlaut-key", "sh0rt", "tab\tin the key"])
def test_a_key_that_can_be_none_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OMIM_API_KEY", key)
    with (
        serve() as server,
        patient(tmp_path, server) as client,
        pytest.raises(ConfigError, match="keyed: OMIM_API_KEY is too short or has characters") as caught,
    ):
        client.get(KEYED, "genes", read=genes)
    assert not server.asked
    assert key not in str(caught.value)


def test_a_key_that_is_not_there_or_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMIM_API_KEY", raising=False)
    with serve(answer({"message": "bad key"}, status=401)) as server, patient(tmp_path, server) as client:
        with pytest.raises(MissingError, match=r"keyed: there is no key: OMIM_API_KEY is not set\. Set OMIM_API_KEY"):
            client.get(KEYED, "genes", read=genes)
        assert not server.asked
        with pytest.raises(ServiceError, match=r"refuses: 401 Unauthorized \(bad key\)\. Set OMIM_API_KEY"):
            client.get(BY_HEADER, "genes", read=genes)
        monkeypatch.setenv("OMIM_API_KEY", "0123456789")
        with pytest.raises(ServiceError, match=r"refuses: 401 Unauthorized \(bad key\)\. Check OMIM_API_KEY"):
            client.get(KEYED, "genes", read=genes)
        assert len(server.asked) == 2
    with (
        serve(answer({"error": "API key invalid"}, status=400)) as server,
        patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match=r"answers 400 Bad Request \(API key invalid\)\. Check OMIM_API_KEY"),
    ):
        client.get(KEYED, "genes", read=genes)


def test_a_key_does_not_travel_in_the_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMIM_API_KEY", "0123456789")
    with (
        Client(tmp_path, mirror="http://mirror.example.org") as client,
        pytest.raises(ConfigError, match="OMIM_API_KEY would travel without encryption to mirror.example.org"),
    ):
        client.get(KEYED, "genes", read=genes)


def test_a_key_is_no_part_of_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMIM_API_KEY", "0123456789")
    with serve() as server, patient(tmp_path, server) as client:
        with pytest.raises(ConfigError, match="the key stands in what is asked"):
            client.get(KEYED, "genes", params={"apiKey": "0123456789"}, read=genes)
        with pytest.raises(ConfigError, match="the key stands in what is asked"):
            client.post(KEYED, "genes", json={"apiKey": "0123456789"}, read=genes)
    assert not server.asked
    assert not kept(tmp_path)


# Politeness


def test_requests_keep_their_distance_also_across_processes(tmp_path: Path) -> None:
    clock = Clock()
    began = clock.now
    with (
        serve() as server,
        patient(tmp_path, server, clock=clock) as one,
        patient(tmp_path, server, clock=clock) as two,
    ):
        for n, client in enumerate((one, two, one, two)):
            client.get(PLAIN, "genes", params={"n": n}, read=genes)
        assert clock.now - began == pytest.approx(1.5)
        client.get(PLAIN, "genes", params={"n": 1}, read=genes)  # from the cache: no turn
        assert clock.now - began == pytest.approx(1.5)


@pytest.mark.parametrize("text", ["nonsense", "nan", "1e300", "-5", "", "9" * 60])
def test_a_turn_that_is_nonsense_holds_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "example.turn").write_text(text)
    clock = Clock()
    with serve() as server, patient(tmp_path, server, clock=clock) as client:
        client.get(PLAIN, "genes", read=genes)
    assert sum(clock.slept) == 0


def test_a_clock_that_goes_back_holds_nobody(tmp_path: Path) -> None:
    clock = Clock()
    with serve() as server, patient(tmp_path, server, clock=clock) as client:
        client.get(PLAIN, "genes", read=genes)
        clock.now -= 10**6
        client.get(PLAIN, "genes", params={"n": 2}, read=genes)
    assert sum(clock.slept) == 0


def test_what_a_service_asks_holds_other_processes_too(tmp_path: Path) -> None:
    clock = Clock()
    with (
        serve(answer({}, status=429, Retry_After="30"), answer(GENES)) as server,
        patient(tmp_path, server, clock=clock) as one,
        patient(tmp_path, server, clock=clock) as two,
    ):
        sleep = clock.sleep
        began = clock.now

        def interrupted(seconds: float) -> None:
            """While the first one waits, the second one asks."""
            client._sleep = sleep
            two.get(PLAIN, "genes", params={"n": 2}, read=genes)
            assert clock.now - began >= 30

        client = one
        one._sleep = interrupted
        one.get(PLAIN, "genes", read=genes)
    assert len(server.asked) == 3


def test_many_threads_ask_at_once(tmp_path: Path) -> None:
    service = Service("example", f"https://{HOST}/v1/", pause=0)
    got: list[Any] = []
    with serve() as server, patient(tmp_path, server) as client:

        def ask(n: int) -> None:
            got.append(client.get(service, "genes", params={"n": n % 5}, read=genes))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert got == [["TP53"]] * 20
    assert len(kept(tmp_path)) == 5


# Being left alone


def test_a_service_that_keeps_failing_is_left_alone_for_a_while(tmp_path: Path) -> None:
    clock = Clock()
    service = Service("example", f"https://{HOST}/v1/", pause=0)
    other = Service("other", f"https://{HOST}/v1/", pause=0)
    limits = {"tries": 2, "failures": 3, "rest": 60.0}
    with serve() as server, patient(tmp_path, server, clock=clock, limits=limits) as client:
        server.spoil("500")

        def ask(n: int, of: Service = service) -> Any:
            return client.get(of, "genes", params={"n": n}, read=genes)

        for n in range(3):
            with pytest.raises(ServiceError, match="500"):
                ask(n)
        assert len(server.asked) == 6
        for n in range(3):
            with pytest.raises(
                Resting, match="left alone for 1 min 0 s after 3 failures in a row; the last: answers 500"
            ):
                ask(n)
        assert len(server.asked) == 6
        with pytest.raises(ServiceError, match="other: answers 500"):
            ask(0, other)
        clock.now += 61
        with pytest.raises(ServiceError, match="answers 500"):
            ask(1)
        with pytest.raises(Resting, match="after 4 failures in a row"):
            ask(1)
        clock.now += 61
        server.heal()
        assert ask(1) == ["TP53"]
        server.spoil("500")
        for n in (10, 11):
            with pytest.raises(ServiceError, match="500"):
                ask(n)
        server.heal()
        assert ask(12) == ["TP53"]


def test_a_trial_may_be_told_to_wait_longer(tmp_path: Path) -> None:
    clock = Clock()
    given = (answer({}, status=500), answer({}, status=500), answer({}, status=429, Retry_After="3600"), answer(GENES))
    limits = {"tries": 1, "failures": 2, "rest": 60.0}
    with serve(*given) as server, patient(tmp_path, server, clock=clock, limits=limits) as client:
        for told in ("500", "500", "left alone for 1 min 0 s"):
            with pytest.raises(ServiceError, match=told):
                client.get(PLAIN, "genes", read=genes)
        clock.now += 61
        with pytest.raises(ServiceError, match="429"):
            client.get(PLAIN, "genes", read=genes)
        clock.now += 61
        with pytest.raises(Resting, match="left alone for 58 min"):
            client.get(PLAIN, "genes", read=genes)
        clock.now += 3600
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]


def test_absent_things_are_no_failures(tmp_path: Path) -> None:
    with serve(answer({}, status=404)) as server, patient(tmp_path, server) as client:
        for n in range(6):
            with pytest.raises(Absent):
                client.get(PLAIN, "genes", params={"n": n}, read=genes)
    assert len(server.asked) == 6


def test_one_alone_tries_after_a_rest() -> None:
    clock = Clock()
    breaker = Breaker(Patience(failures=1, rest=60), clock)
    with pytest.raises(ServiceError), breaker.watching(PLAIN):
        raise ServiceError("x")
    clock.now += 61
    with breaker.watching(PLAIN), pytest.raises(Resting), breaker.watching(PLAIN):
        pass
    with breaker.watching(PLAIN):
        pass


@pytest.mark.parametrize("passed", [61.0, -1000.0])
def test_who_stops_in_a_trial_leaves_the_next_one_to_try(passed: float) -> None:
    clock = Clock()
    breaker = Breaker(Patience(failures=1, rest=60), clock)
    with pytest.raises(ServiceError), breaker.watching(PLAIN):
        raise ServiceError("x")
    clock.now += passed
    with pytest.raises(KeyboardInterrupt), breaker.watching(PLAIN):
        raise KeyboardInterrupt
    with breaker.watching(PLAIN):
        pass


def test_stopping_by_hand_leaves_nothing_half_done(tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with serve() as server, patient(tmp_path, server) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get(PLAIN, "genes", read=stop)
        assert not kept(tmp_path)
        server.spoil("500", times=1)
        client._sleep = stop
        with pytest.raises(KeyboardInterrupt):
            client.get(PLAIN, "genes", read=genes)
        client._sleep = lambda _: None
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]


# Without a network


def test_offline_the_cache_alone_answers(tmp_path: Path) -> None:
    clock = Clock()
    with serve() as server, patient(tmp_path, server, clock=clock) as client:
        client.get(PLAIN, "genes", read=genes)
    clock.now += 10**9  # however old
    with Client(tmp_path, offline=True, clock=clock, sleep=clock.sleep) as client:
        assert client.get(PLAIN, "genes", read=genes) == ["TP53"]
        with pytest.raises(ServiceError, match="example: what is asked is not in the cache, and the network"):
            client.get(PLAIN, "genes", params={"n": 2}, read=genes)
        with pytest.raises(ServiceError, match="not in the cache"):  # of no use, and no other can be had
            client.get(PLAIN, "genes", read=lambda value: items(value, "others"))
        with pytest.raises(ServiceError, match="not in the cache"):
            client.get(KEYED, "genes", read=genes)


def test_a_client_may_be_closed_twice_and_forgotten(tmp_path: Path) -> None:
    import gc

    with serve() as server:
        client = patient(tmp_path, server)
        client.get(PLAIN, "genes", read=genes)
        client.close()
        client.close()
        other = patient(tmp_path / "b", server)
        other.get(PLAIN, "genes", read=genes)
        del other, client
        gc.collect()  # an open connection would warn


# Checkers and descriptions


def test_parts_of_answers() -> None:
    value = {"page": {"total": 3, "share": 1, "on": True, "none": None}, "rows": [{"a": 1}]}
    assert field(value, "page.total", int) == 3
    assert field(value, "page.share", float) == 1.0
    assert field(value, "page.on", bool) is True
    assert items(value, "rows") == [{"a": 1}]
    assert items([{"a": 1}]) == [{"a": 1}]
    assert maybe(value, "page.none", int) is None
    assert maybe(value, "page.gone.deeper", int) is None
    assert maybe(value, "page.total", int) == 3
    for act, told in {
        (lambda: field(value, "page.totalPages", int)): "lacks page.totalPages",
        (lambda: field(value, "pages.totalPages", int)): "lacks pages",
        (lambda: field(value, "page.total.x", int)): "has no object at page.total",
        (lambda: field(value, "page.on", int)): "has no whole number",
        (lambda: field(value, "page.total", bool)): "true or false at page.total",
        (lambda: field(value, "page.none", str)): "has no text at page.none",
        (lambda: maybe(value, "rows.a", str)): "has no object around rows.a",
        (lambda: maybe(value, "page.total", str)): "has no text at page.total",
        (lambda: items(value, "page")): "has no list at page",
        (lambda: items({})): "has no list at its top",
    }.items():
        with pytest.raises(Unusable, match=told):
            act()


@pytest.mark.parametrize(
    "settings",
    [
        {"base": "http://api.example.org/"},
        {"base": "https://api.example.org"},
        {"base": "https://me:pw@api.example.org/"},
        {"base": "https://api.example.org/?q=/"},
        {"name": "Example"},
        {"name": "../x"},
        {"key": "X"},
        {"key": "X", "key_in": "cookie:x"},
        {"key_needed": True},
    ],
)
def test_a_service_is_described_whole(settings: dict[str, Any]) -> None:
    with pytest.raises(EluteError):
        Service(**{"name": "example", "base": "https://api.example.org/", "pause": 0.0, **settings})
