"""Files come whole or not at all, go on where they stopped, and are what they are called."""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base import files
from elute.base.errors import BusyError, ConfigError, DamagedError, EluteError, ServiceError, SpaceError
from elute.validation.online.answers import Absent
from elute.validation.online.download import Fetched, fetch_file, listing, page
from elute.validation.online.part import held
from elute.validation.online.patience import Patience


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


serving = load("serving")
answer = serving.answer

HOST = "files.example.org"
URL = f"https://{HOST}/data/table.tsv"
PATIENCE = Patience(silence=5, tries=3)


class Published:
    """A file on a server that can go on in the middle, and that may be cut at places of ours."""

    def __init__(self, data: bytes, **headers: str) -> None:
        self.data, self.cuts = data, list[int]()
        self.headers = {"ETag": '"one"', "Last-Modified": "Thu, 16 Jan 2025 09:30:00 GMT", **headers}
        self.ranges: list[str] = []
        self.goes_on = True

    def answer(self, request: Any) -> Any:
        """Through a method, which a test may put another one before."""
        return getattr(self, "route", self)(request)

    def __call__(self, request: Any) -> Any:
        given = {k: v for k, v in {"Content-Type": "text/plain", **self.headers}.items() if v}
        wanted = request.headers.get("range", "")
        self.ranges.append(wanted)
        start, status = 0, 200
        mark = given["ETag"] if given.get("ETag", "").startswith('"') else given.get("Last-Modified")
        if wanted and self.goes_on and request.headers["if-range"] == mark:
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(self.data):
                return 416, {"Content-Range": f"bytes */{len(self.data)}"}, b""
            given["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        body = self.data[start:]
        given["Content-Length"] = str(len(body))
        return status, given, body[: self.cuts.pop(0)] if self.cuts else body


def serve(route: Callable[[Any], Any], path: str = "data/table.tsv") -> Any:
    return serving.serve({("GET", f"{HOST}/{path}"): route})


def fetch(server: Any, target: Path, **settings: Any) -> Fetched:
    settings = {"patience": PATIENCE, "sleep": lambda _: None, **settings}
    return fetch_file(settings.pop("url", URL), target, mirror=getattr(server, "url", server), **settings)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


DATA = b"gene\tterm\n" + b"".join(b"G%d\tHP:%07d\n" % (i, i) for i in range(20_000))


def test_a_file_comes_whole(tmp_path: Path) -> None:
    heard: list[int] = []
    with serve(Published(DATA)) as server:
        fetched = fetch(server, tmp_path / "in" / "t.tsv", told=heard.append)
    assert (tmp_path / "in" / "t.tsv").read_bytes() == DATA
    digest = hashlib.sha256(DATA).hexdigest()
    assert fetched == Fetched(tmp_path / "in" / "t.tsv", digest, len(DATA), "2025-01-16T09:30:00Z", '"one"')
    assert sum(heard) == len(DATA)
    assert names(tmp_path / "in") == ["t.tsv"]


@pytest.mark.parametrize("headers", [{}, {"ETag": ""}, {"ETag": 'W/"weak"'}, {"Last-Modified": ""}])
def test_what_was_cut_goes_on(tmp_path: Path, headers: dict[str, str]) -> None:
    published = Published(DATA, **headers)
    published.cuts = [1000, 5000, 1]
    heard: list[int] = []
    with serve(published) as server:
        fetched = fetch(server, tmp_path / "t.tsv", told=heard.append)
    assert published.ranges == ["", "bytes=1000-", "bytes=6000-", "bytes=6001-"]
    assert (tmp_path / "t.tsv").read_bytes() == DATA
    assert fetched.sha256 == hashlib.sha256(DATA).hexdigest()
    assert sum(heard) == len(DATA)


def test_a_poor_line_brings_a_large_file_as_long_as_it_brings_something(tmp_path: Path) -> None:
    published = Published(DATA)
    published.cuts = [len(DATA) // 50] * 49
    with serve(published) as server:
        assert fetch(server, tmp_path / "t.tsv").size == len(DATA)
    assert len(published.ranges) > 40
    published.cuts = [100] + [0] * 99
    with serve(published) as server, pytest.raises(ServiceError, match="cut its answer short, 3 times in a row"):
        fetch(server, tmp_path / "u.tsv")
    assert len(published.cuts) == 96 + 1


def test_without_a_mark_it_begins_anew(tmp_path: Path) -> None:
    published = Published(DATA, **{"ETag": "", "Last-Modified": ""})
    published.cuts = [1000, 2000]
    heard: list[int] = []
    with serve(published) as server:
        fetch(server, tmp_path / "t.tsv", told=heard.append)
    assert published.ranges == ["", "", ""]
    assert (tmp_path / "t.tsv").read_bytes() == DATA
    assert sum(heard) == len(DATA)


def test_another_command_goes_on(tmp_path: Path) -> None:
    published = Published(DATA)
    published.cuts = [1000, 0, 0, 0]
    with serve(published) as server:
        with pytest.raises(ServiceError, match=rf"{URL}: cut its answer short.*Run the same command again: what came"):
            fetch(server, tmp_path / "t.tsv")
        assert names(tmp_path) == [".t.tsv.part", ".t.tsv.part.json"]
        published.cuts, published.ranges = [], []
        assert fetch(server, tmp_path / "t.tsv").sha256 == hashlib.sha256(DATA).hexdigest()
    assert published.ranges == ["bytes=1000-"]
    assert names(tmp_path) == ["t.tsv"]


def begun(folder: Path, published: Published, server: Any) -> None:
    """An attempt that brought the first thousand bytes."""
    published.cuts = [1000, 0, 0, 0]
    with pytest.raises(ServiceError):
        fetch(server, folder / "t.tsv")
    published.cuts, published.ranges = [], []


OTHER = DATA.replace(b"HP", b"MP")


def changed_mark(published: Published) -> None:
    published.headers["ETag"] = '"two"'


def ignores_marks(published: Published) -> None:
    """It says that it is another file, and gives the rest of it all the same."""
    published.headers["ETag"] = '"two"'
    right = published.__call__

    def call(request: Any) -> Any:
        if "range" not in request.headers:
            return right(request)
        request.headers["if-range"] = '"two"'
        return right(request)

    published.route = call  # type: ignore[attr-defined]


def shorter(published: Published) -> None:
    published.data = OTHER[:500]


def no_ranges(published: Published) -> None:
    published.goes_on = False


@pytest.mark.parametrize("change", [changed_mark, ignores_marks, shorter, no_ranges])
def test_parts_of_two_files_are_never_put_together(tmp_path: Path, change: Callable[[Published], None]) -> None:
    published = Published(DATA)
    with serve(published.answer) as server:
        begun(tmp_path, published, server)
        published.data = OTHER
        change(published)
        fetched = fetch(server, tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_bytes() == published.data
    assert fetched.sha256 == hashlib.sha256(published.data).hexdigest()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: {**record, "url": "https://elsewhere.org/x"},
        lambda record: {**record, "total": 10},
        lambda record: {**record, "total": "many"},
        lambda record: {**record, "mark": ""},
        lambda record: {**record, "more": 1},
        lambda _: [],
        lambda _: None,
    ],
)
def test_a_record_that_does_not_fit_is_not_gone_on_with(tmp_path: Path, spoil: Callable[[Any], Any]) -> None:
    published = Published(DATA)
    with serve(published) as server:
        begun(tmp_path, published, server)
        path = tmp_path / ".t.tsv.part.json"
        path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
        fetch(server, tmp_path / "t.tsv")
    assert published.ranges == [""]
    assert (tmp_path / "t.tsv").read_bytes() == DATA


def test_what_had_come_whole_needs_no_network(tmp_path: Path) -> None:
    """Stopped between the last byte and the renaming."""
    published = Published(DATA)
    with serve(published) as server:
        begun(tmp_path, published, server)
        (tmp_path / ".t.tsv.part").write_bytes(DATA)
        fetched = fetch(server, tmp_path / "t.tsv")
    assert published.ranges == []
    assert fetched == Fetched(
        tmp_path / "t.tsv", hashlib.sha256(DATA).hexdigest(), len(DATA), "2025-01-16T09:30:00Z", '"one"'
    )


@pytest.mark.parametrize("fault", ["429", "500", "time-out", "truncated", "web page", "dropped"])
def test_what_passes_is_asked_again_and_what_stays_is_an_error(tmp_path: Path, fault: str) -> None:
    patience = Patience(tries=3, **({"silence": 5.0} | serving.endured(fault)))
    with serve(Published(DATA)) as server:
        server.spoil(fault, times=1)
        fetch(server, tmp_path / "t.tsv", patience=patience)
        assert (tmp_path / "t.tsv").read_bytes() == DATA
        server.spoil(fault)
        with pytest.raises(ServiceError) as caught:
            fetch(server, tmp_path / "u.tsv", patience=patience)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None
    assert "u.tsv" not in names(tmp_path)


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("old")
    with serve(Published(DATA)) as server:
        server.spoil("truncated")
        with pytest.raises(ServiceError):
            fetch(server, tmp_path / "t.tsv")
        assert (tmp_path / "t.tsv").read_text() == "old"
        server.heal()
        fetch(server, tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_bytes() == DATA


@pytest.mark.parametrize(
    ("body", "kind", "right"),
    [
        (serving.PAGE, "text/plain", False),
        (serving.PAGE, "text/html", False),
        (b"\n <!-- a --> <HTML>" + b"x" * 5000, "application/gzip", False),
        (b"<script>location='/login'</script>", "text/html; charset=utf-8", False),
        (b"<?xml version='1.0'?><JDBOR/>", "text/html", True),
        (b"gene\tterm\n", "text/html", True),
        (b"<JDBOR/>", "text/xml", True),
        (gzip.compress(DATA, mtime=0), "text/html", True),
    ],
)
def test_a_web_page_is_no_file(tmp_path: Path, body: bytes, kind: str, right: bool) -> None:
    with serve(lambda _: answer(body, kind=kind)) as server:
        if right:
            fetch(server, tmp_path / "t")
            assert (tmp_path / "t").read_bytes() == body
            return
        with pytest.raises(ServiceError, match="gives a web page in place of the file, 2 times in a row. Does a proxy"):
            fetch(server, tmp_path / "t")
        assert names(tmp_path) == []
        assert fetch(server, tmp_path / "t", web_page=True).size == len(body)


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (404, {}, "knows nothing of it: 404 Not Found"),
        (403, {}, "refuses: 403 Forbidden"),
        (401, {}, "refuses: 401"),
        (410, {}, "answers 410 Gone"),
        (503, {"Retry-After": "86400"}, "answers 503 Service Unavailable and asks to wait 24 h 0 min"),
        (206, {"Content-Range": "bytes 0-9/10"}, "answers 206"),
        (416, {}, "answers 416"),
        (302, {"Location": "http://files.example.org/x"}, "redirects to files.example.org, without encryption"),
        (302, {"Location": "data/table.tsv"}, "404"),
        (200, {"Content-Encoding": "gzip"}, "packed as 'gzip', which was not asked for"),
    ],
)
def test_answers_that_are_no_file(tmp_path: Path, status: int, headers: dict[str, str], told: str) -> None:
    given = (status, {"Content-Type": "text/plain", **headers}, b"")
    with serve(lambda _: given) as server, pytest.raises(ServiceError, match=re.escape(told)) as caught:
        fetch(server, tmp_path / "t.tsv")
    assert str(caught.value).startswith(URL)
    assert isinstance(caught.value, Absent) == ("404" in told)
    assert names(tmp_path) == []


def test_a_packed_file_that_is_called_packed(tmp_path: Path) -> None:
    body = gzip.compress(DATA)
    with serve(lambda _: answer(body, Content_Encoding="x-gzip"), "t.tsv.gz") as server:
        fetch(server, tmp_path / "t.tsv.gz", url=f"https://{HOST}/t.tsv.gz")
    assert (tmp_path / "t.tsv.gz").read_bytes() == body


def test_other_hosts_are_gone_to_and_get_no_more_than_the_address(tmp_path: Path) -> None:
    """As from a permanent address to a store of large files."""
    there = Published(DATA)
    routes = {
        ("GET", f"{HOST}/data/table.tsv"): lambda _: (302, {"Location": "https://store.example.com/x?sig=1"}, b""),
        ("GET", "store.example.com/x"): there,
    }
    there.cuts = [1000]
    with serving.serve(routes) as server:
        fetch(server, tmp_path / "t.tsv")
    assert [request.host for request in server.asked] == [HOST, "store.example.com"] * 2
    assert there.ranges == ["", "bytes=1000-"]
    assert server.asked[1].query == {"sig": ["1"]}


@pytest.mark.parametrize(
    "url", ["http://files.example.org/x", "ftp://x/y", "file:///etc/passwd", "x", "https://a:b@c/d"]
)
def test_only_encrypted_addresses_are_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="is no address to fetch from"):
        fetch_file(url, tmp_path / "t")
    with pytest.raises(ConfigError, match="is no address to fetch from"):
        page(url)


def test_what_was_published_is_what_comes(tmp_path: Path) -> None:
    with serve(Published(DATA)) as server:
        fetch(server, tmp_path / "t.tsv", sha256=hashlib.sha256(DATA).hexdigest().upper(), size=len(DATA))
        with pytest.raises(ServiceError, match=r"has a file of 348,900 bytes there, and not the 5 that were published"):
            fetch(server, tmp_path / "u.tsv", size=5)
        with pytest.raises(DamagedError, match="is not what was published: its SHA-256 begins .* and not 000000000000"):
            fetch(server, tmp_path / "u.tsv", sha256="0" * 64)
    assert names(tmp_path) == ["t.tsv"]


def raw_server(talk: Callable[[socket.socket], None]) -> tuple[str, socket.socket]:
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


def test_a_file_without_a_length_is_refused_but_chunks_tell_their_end(tmp_path: Path) -> None:
    url, listener = raw_server(lambda c: c.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\na\tb\n"))
    with listener, pytest.raises(ServiceError, match="does not say how long the file is"):
        fetch(url, tmp_path / "t.tsv")
    assert names(tmp_path) == []
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: "x"\r\n\r\n4\r\na\tb\n\r\n'
    url, listener = raw_server(lambda c: c.sendall(chunked + b"0\r\n\r\n"))
    with listener:
        assert fetch(url, tmp_path / "t.tsv").size == 4
    url, listener = raw_server(lambda c: c.sendall(chunked))
    with listener, pytest.raises(ServiceError, match="cut its answer short"):
        fetch(url, tmp_path / "u.tsv")
    assert "u.tsv" not in names(tmp_path)


def test_a_line_that_is_open_and_brings_next_to_nothing_is_left(tmp_path: Path) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"x" * 60)
            time.sleep(0.01)

    url, listener = raw_server(drip)
    began = time.monotonic()
    with listener, pytest.raises(ServiceError, match="sends next to nothing"):
        fetch(url, tmp_path / "t.tsv", patience=Patience(silence=0.3, whole=0.1, tries=2, first=0))
    assert time.monotonic() - began < 10


def test_there_must_be_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    with (
        serve(Published(DATA)) as server,
        pytest.raises(SpaceError, match="0 MB are to come, and there is room for 0 MB"),
    ):
        fetch(server, tmp_path / "t.tsv")
    assert names(tmp_path) == []


def test_a_disk_that_gets_full_keeps_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elute.validation.online import part

    write, room = part.Part.write, [100_000]

    class Full:
        def __init__(self, handle: Any) -> None:
            self.handle = handle

        def write(self, piece: Any) -> int:
            room[0] -= len(piece)
            if room[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.handle.write(piece))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.handle, name)

    def through(self: Any, piece: bytes) -> None:
        if not isinstance(self._handle, Full):
            self._handle = Full(self._handle)
        write(self, piece)

    published = Published(DATA)
    with serve(published) as server:
        with monkeypatch.context() as patch:
            patch.setattr(part.Part, "write", through)
            with pytest.raises(SpaceError, match="the disk is full.*run the same command again"):
                fetch(server, tmp_path / "t.tsv")
        assert ".t.tsv.part" in names(tmp_path)
        assert "t.tsv" not in names(tmp_path)
        fetch(server, tmp_path / "t.tsv")
    assert published.ranges[-1].startswith("bytes=")
    assert (tmp_path / "t.tsv").read_bytes() == DATA


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with serve(Published(DATA)) as server, pytest.raises(SpaceError):
        fetch(server, tmp_path / "file" / "t.tsv")
    assert not server.asked


def test_one_at_a_time(tmp_path: Path) -> None:
    with serve(Published(DATA)) as server:
        with held(tmp_path / "t.tsv"), pytest.raises(BusyError, match=r"t\.tsv: another process is fetching this file"):
            fetch(server, tmp_path / "t.tsv")
        fetch(server, tmp_path / "t.tsv")
    assert names(tmp_path) == ["t.tsv"]


def test_a_part_that_another_process_finished_meanwhile_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening of the part and the lock on it, its owner gave it its name."""
    import fcntl

    def late(handle: Any, how: int) -> None:
        (tmp_path / ".t.tsv.part").write_text("whole")
        (tmp_path / ".t.tsv.part").replace(tmp_path / "t.tsv")
        if others:
            (tmp_path / ".t.tsv.part").write_text("begun by a third one")

    monkeypatch.setattr(fcntl, "flock", late)
    others: list[str] = []
    for _ in range(2):
        with pytest.raises(BusyError), held(tmp_path / "t.tsv") as part:
            part.write(b"spoilt")
        assert (tmp_path / "t.tsv").read_text() == "whole"
        others.append("a third one")


FETCH = """
import sys, time
from pathlib import Path
from elute.base.errors import BusyError
from elute.validation.online.download import fetch_file
try:
    fetch_file(sys.argv[1], Path(sys.argv[2]), mirror=sys.argv[3])
except BusyError:
    print("busy")
"""


def test_two_processes_and_one_that_is_killed(tmp_path: Path) -> None:
    published = Published(DATA)
    gate = threading.Event()

    def slow(request: Any) -> Any:
        if not gate.is_set():
            published.cuts = [5000]
        return published(request)

    with serve(slow) as server:
        server.spoil("time-out", first=1)
        words = [sys.executable, "-c", FETCH, URL, str(tmp_path / "t.tsv"), server.url]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as one:
            for _ in range(400):
                if len(server.asked) == 2:  # five thousand bytes came; now it waits for the rest
                    break
                time.sleep(0.02)
            two = subprocess.run(words, capture_output=True, text=True, timeout=20)
            assert two.stdout == "busy\n"
            one.kill()
        assert names(tmp_path) == [".t.tsv.part", ".t.tsv.part.json"]
        server.heal()
        gate.set()
        assert fetch(server, tmp_path / "t.tsv").sha256 == hashlib.sha256(DATA).hexdigest()
    assert published.ranges[-1] == "bytes=5000-"
    assert names(tmp_path) == ["t.tsv"]


def test_who_stops_by_hand_goes_on_later(tmp_path: Path) -> None:
    def stop(amount: int) -> None:
        if amount:
            raise KeyboardInterrupt

    published = Published(DATA)
    with serve(published) as server:
        with pytest.raises(KeyboardInterrupt):
            fetch(server, tmp_path / "t.tsv", told=stop)
        assert "t.tsv" not in names(tmp_path)
        fetch(server, tmp_path / "t.tsv")
    assert published.ranges[1].startswith("bytes=")
    assert (tmp_path / "t.tsv").read_bytes() == DATA


def test_a_key_in_an_address_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMIM's addresses of files hold the key."""
    monkeypatch.setenv("OMIM_API_KEY", "s3cr3t-key-0123")
    url = f"https://{HOST}/downloads/s3cr3t-key-0123/genemap2.txt"
    published = Published(DATA)
    published.cuts = [1000, 0, 0, 0]
    with serve(published, "downloads/s3cr3t-key-0123/genemap2.txt") as server:
        with pytest.raises(ServiceError, match=r"/downloads/\(key\)/genemap2.txt: cut its answer"):
            fetch(server, tmp_path / "t.txt", url=url)
        assert "s3cr3t" not in (tmp_path / ".t.txt.part.json").read_text()
        fetch(server, tmp_path / "t.txt", url=url)
    assert published.ranges[-1] == "bytes=1000-"


# Pages


def test_a_page_is_read_as_text() -> None:
    for body, kind in ((b"<html>\xc3\xbc", "text/html; charset=utf-8"), (b"<html>\xfc", "text/html")):
        given = answer(body, kind=kind)
        with serving.serve({("GET", f"{HOST}/data/table.tsv"): functools.partial(lambda a, _: a, given)}) as server:
            assert page(URL, mirror=server.url, patience=PATIENCE) == "<html>ü"


@pytest.mark.parametrize("fault", ["429", "500", "truncated", "dropped"])
def test_a_page_is_asked_for_again(fault: str) -> None:
    with serve(lambda _: answer(b"<html>", kind="text/html")) as server:
        server.spoil(fault, times=1)
        assert page(URL, mirror=server.url, patience=PATIENCE, sleep=lambda _: None) == "<html>"
        server.spoil(fault)
        with pytest.raises(EluteError, match="3 times in a row"):
            page(URL, mirror=server.url, patience=PATIENCE, sleep=lambda _: None)


def test_a_folder_lists_what_lies_directly_below() -> None:
    links = [
        "part-0.parquet",
        "./part-1.parquet",
        "/data/part-2.parquet",
        f"https://{HOST}/data/part%203.parquet",
        "part-0.parquet",
        "../up.parquet",
        "below/deeper.parquet",
        "https://elsewhere.org/data/other.parquet",
        "%2e%2e%2fetc.parquet",
        "a%00b.parquet",
        "back%5cslash.parquet",
        "?C=N;O=D",
        "part-4.parquet?x",
        "#x.parquet",
        "javascript:alert(1)",
        "https://[bad/x.parquet",
        "_SUCCESS",
        "",
    ]
    body = "<html><body>" + "".join(f'<A HREF="{link}">x</A>' for link in links) + "<a>no</a><a href>no</a>"
    with serve(lambda _: answer(body, kind="text/html"), "data/") as server:
        for url in (f"https://{HOST}/data/", f"https://{HOST}/data"):
            found = listing(url, r".*\.parquet", mirror=server.url, patience=PATIENCE)
            assert found == ["part 3.parquet", "part-0.parquet", "part-1.parquet", "part-2.parquet"]
