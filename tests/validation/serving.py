"""A server on this machine that gives recorded answers as a mirror of the real hosts, and spoils them on demand.

    with serve({("GET", "api.example.org/v1/genes"): lambda request: answer({"genes": []})}) as server:
        with patient(tmp_path, server) as client:
            client.get(SERVICE, "genes", read=...)
        server.asked        # requests in order
        server.spoil("500", first=0, times=1)

A route's key is (method, "host/path"); `*` in the path fits anything. What has no route is answered 404 as JSON and
noted in `server.lost`.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from elute.validation.online.client import Client
from elute.validation.online.patience import Patience

SILENCE = 5.0  # seconds without a byte that the client of tests endures: a busy machine is no fault


class Request(NamedTuple):
    """What was asked, as the real host would see it."""

    method: str
    host: str
    path: str  # without the leading slash, unquoted
    query: dict[str, list[str]]
    headers: Mapping[str, str]  # names in small letters
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    def one(self, name: str, default: str = "") -> str:
        """The only value of a query parameter."""
        values = self.query.get(name, [default])
        assert len(values) == 1, f"{name} is given {len(values)} times"
        return values[0]


Answer = tuple[int, Mapping[str, str], bytes]
Route = Callable[[Request], Answer]
Routes = Mapping[tuple[str, str], Route]


def answer(value: Any, *, status: int = 200, kind: str = "application/json", **headers: str) -> Answer:
    """An answer: bytes and text as they are, anything else as JSON; `Retry_After="1"` makes a header."""
    if isinstance(value, str):
        value = value.encode()
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return status, {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}, body


def renamed(value: Any, only: str = "") -> Any:
    """The same JSON with every key, or one, under another name."""
    if isinstance(value, dict):
        return {(f"{k}_v2" if not only or k == only else k): renamed(v, only) for k, v in value.items()}
    return [renamed(v, only) for v in value] if isinstance(value, list) else value


def _renamed_body(right: Answer) -> Answer:
    status, headers, body = right
    try:
        return status, headers, json.dumps(renamed(json.loads(body))).encode()
    except ValueError:  # a table: its first line names the columns
        head, newline, rest = body.partition(b"\n")
        return status, headers, b"\t".join(b"new " + c for c in head.split(b"\t")) + newline + rest


def endured(fault: str) -> dict[str, float]:
    """Limits of a client that is to meet a fault: only where it waits for nothing is its patience short."""
    return {"silence": 0.3} if fault == "time-out" else {}


PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in to the network.</body></html>"

# What is sent in place of the right answer; those of which the connection suffers are done by the handler.
FAULTS: dict[str, Callable[[Answer], Answer] | None] = {
    "429": lambda _: answer({"message": "slow down"}, status=429, Retry_After="0"),
    "500": lambda _: answer({"message": "internal error"}, status=500),
    "time-out": None,
    "truncated": None,
    "malformed": lambda right: (200, right[1], right[2][: len(right[2]) // 2] + b'{"\x00'),
    "web page": lambda _: answer(PAGE, kind="text/html; charset=utf-8"),
    "changed schema": _renamed_body,
    "dropped": None,
}


@dataclass
class Server:
    """The running server."""

    url: str
    routes: Routes
    asked: list[Request] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    fault: str = ""
    first: int = 0
    times: int = 0
    spoilt: int = 0
    harmless: int = 0  # of those, answers that were no 200 and so have no form to change
    change: Callable[[Answer], Answer] | None = None
    released: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spoil(self, fault: str, *, first: int = 0, times: int = 1_000_000) -> None:
        """Spoil some answers from request number `first` (counted from now) on."""
        assert fault in FAULTS
        self.asked.clear()
        self.fault, self.first, self.times, self.spoilt, self.harmless = fault, first, times, 0, 0

    def heal(self) -> None:
        """Answer rightly from now on."""
        self.fault, self.change = "", None
        self.asked.clear()

    def note(self, request: Request) -> str:
        """Count a request, and say which fault it is to meet."""
        with self._lock:
            place = len(self.asked)
            self.asked.append(request)
            if self.fault and self.first <= place < self.first + self.times:
                self.spoilt += 1
                return self.fault
        return ""

    def route(self, request: Request) -> Route | None:
        """The route of a request."""
        name = f"{request.host}/{request.path}"
        if found := self.routes.get((request.method, name)):
            return found
        return next((r for (m, p), r in self.routes.items() if m == request.method and fnmatchcase(name, p)), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    wbufsize = -1
    disable_nagle_algorithm = True  # else every answer waits for an acknowledgement
    served: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def _do(self) -> None:
        parts = urlsplit(self.path)
        host, _, path = parts.path.lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k.lower(): v for k, v in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        request = Request(self.command, host, unquote(path), query, headers, body)
        fault = self.served.note(request)
        if fault == "time-out":
            self.served.released.wait(10)
            self.close_connection = True
            return
        if fault == "dropped":
            self._drop()
            return
        route = self.served.route(request)
        if route is None:
            self.served.lost.append(f"{request.method} {host}/{request.path}")
            right = answer({"message": "no such route in this test"}, status=404)
        else:
            right = route(request)
        self.served.harmless += fault == "changed schema" and right[0] != 200
        change = FAULTS.get(fault) or self.served.change
        self._send(change(right) if change else right, cut=fault == "truncated")

    def _send(self, given: Answer, *, cut: bool) -> None:
        status, headers, body = given
        promised = next((int(v) for n, v in headers.items() if n.lower() == "content-length"), 0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not {"content-length", "transfer-encoding"} & {n.lower() for n in headers}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
        except OSError:  # the other side had seen enough
            cut = True
        if cut or len(body) < promised:
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def serve(routes: Routes) -> Iterator[Server]:
    """Run a server with these routes."""
    handler = type("Handler", (_Handler,), {})
    http = _Quiet(("127.0.0.1", 0), handler)
    served = Server(f"http://127.0.0.1:{http.server_address[1]}", routes)
    handler.served = served  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.released.set()
        http.shutdown()
        http.server_close()
        thread.join(5)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1_760_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds


def patient(folder: Path, server: Server | str, *, clock: Clock | None = None, **settings: Any) -> Client:
    """A client that asks the server in place of the real hosts, and whose waiting takes no time."""
    clock = clock or Clock()
    limits = {"silence": SILENCE, "tries": 3} | settings.pop("limits", {})
    url = server if isinstance(server, str) else server.url
    return Client(folder, mirror=url, clock=clock, sleep=clock.sleep, patience=Patience(**limits), **settings)
