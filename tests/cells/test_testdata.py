"""Fetching the test data from a server of our own: what comes, what must not, and what a person is told."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, GuardError
from elute.cells.testdata import PBMC3K, Published, _unique, download_test_data
from elute.models.cells.cellfile import CellsConfig, open_cells

GENES = ["ENSG1\tCD79A", "ENSG2\tLYZ", "ENSG3\tCD79A", "ENSG4\tNKG7"]
CELLS = ["AAAC-1", "CCGT-1", "TTTA-1"]
COUNTS = np.array([[1, 0, 2, 0], [0, 5, 0, 0], [3, 0, 0, 7]])
ENTRIES = "".join(f"{g + 1} {c + 1} {COUNTS[c, g]}\n" for c in (0, 1, 2) for g in (3, 2, 1, 0) if COUNTS[c, g])
MATRIX = f"%%MatrixMarket matrix coordinate real general\n%\n4 3 5\n{ENTRIES}"
Reply = Callable[[BaseHTTPRequestHandler, bytes], None]


def archive(change: Callable[[tarfile.TarFile], None] | None = None, **texts: str) -> bytes:
    whole = {"matrix": MATRIX, "genes": "\n".join(GENES) + "\n", "barcodes": "\n".join(CELLS) + "\n"} | texts
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as made:
        for name, text in whole.items():
            if text:
                ending = "mtx" if name == "matrix" else "tsv"
                add(made, f"filtered_gene_bc_matrices/hg19/{name}.{ending}", text.encode())
        if change:
            change(made)
    return held.getvalue()


def add(made: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    made.addfile(info, io.BytesIO(content))


def whole(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class Served:
    """A server on this machine that answers as it is told."""

    def __init__(self) -> None:
        self.reply: Reply = whole
        self.body = archive()
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                outer.reply(self, outer.body)

            def log_message(self, *_: object) -> None: ...

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that hangs up is what is tested."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def source(self) -> Published:
        url = f"http://127.0.0.1:{self.server.server_port}/pbmc.tar.gz"
        return Published(url, len(self.body), hashlib.sha256(self.body).hexdigest(), "hg19", 3, 4)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Served()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_what_comes_is_what_was_published(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = download_test_data(tmp_path / "data", source=served.source)
    assert artifact.path == tmp_path / "data" / "pbmc3k.h5ad"
    assert artifact.summary["reused"] is False
    found = anndata.read_h5ad(artifact.path)
    assert found.X.toarray().tolist() == COUNTS.tolist()
    assert found.X.format == "csr"
    assert found.obs_names.tolist() == CELLS
    assert found.var_names.tolist() == ["CD79A", "LYZ", "CD79A-1", "NKG7"]
    assert found.var["ensembl_id"].tolist() == ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]
    assert found.uns["source"]["sha256"] == served.source.sha256
    assert found.uns["source"]["licence"].startswith("CC BY 4.0")
    cells = open_cells(artifact.path, CellsConfig())
    assert (cells.kind, len(cells), cells.names) == ("counts", 3, CELLS)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["pbmc3k.h5ad"]
    before = artifact.path.read_bytes()
    assert download_test_data(artifact.path, source=served.source).summary["reused"] is True
    assert served.asked == 1
    assert "already there, unchanged; nothing was fetched" in capsys.readouterr().err
    download_test_data(artifact.path, source=served.source, force=True)
    assert served.asked == 2
    assert artifact.path.read_bytes() == before


def test_an_archive_fetched_by_hand_needs_no_network(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "by hand.tar.gz"
    path.write_bytes(served.body)
    source = replace(served.source, url="https://127.0.0.1:1/none")
    assert download_test_data(tmp_path / "a.h5ad", file=path, source=source).summary["cells"] == 3
    path.write_bytes(served.body[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"by hand.tar.gz: is not the published archive: its SHA-256 begins"):
        download_test_data(tmp_path / "b.h5ad", file=path, source=source)
    with pytest.raises(DataError, match="Check the path given to --file"):
        download_test_data(tmp_path / "b.h5ad", file=tmp_path / "none", source=source)
    assert not (tmp_path / "b.h5ad").exists()
    assert path.exists()


def page(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    whole(handler, b"\n<!doctype html><title>Log in</title>")


def short(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(body[:100])


def broken(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:100])


def endless(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b"x" * 65536)


def other(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    whole(handler, body[:-1] + b"?")


def slow(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    time.sleep(1.5)


def garbage(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.wfile.write(b"\0\1nonsense\r\n\r\n")


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (lambda handler, _: handler.send_error(404), r"127.0.0.1:\d+ answered 404 Not Found"),
        (lambda handler, _: handler.send_error(503), r"answered 503 Service Unavailable"),
        (page, "a web page came in place of the archive"),
        (short, r"has 100 bytes and not the \d+ of the archive"),
        (broken, r"has 100 bytes and not the \d+ of the archive|cannot be reached \(IncompleteRead"),
        (endless, r"more came than the \d+ bytes"),
        (other, "is not the published archive: its SHA-256 begins"),
        (slow, "did not answer in time. Check the network"),
        (garbage, r"cannot be reached \(BadStatusLine"),
    ],
)
def test_each_fault_of_a_network_is_one_line(served: Served, tmp_path: Path, reply: Reply, line: str) -> None:
    served.reply = reply
    with pytest.raises(EluteError, match=line) as caught:
        download_test_data(tmp_path / "data", source=served.source, timeout=0.5)
    assert "by hand and type: elute cells download-test-data --file FILE" in caught.value.line()
    assert str(caught.value).startswith("http://127.0.0.1")
    assert list((tmp_path / "data").iterdir()) == []


def test_offline(tmp_path: Path, served: Served) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x.tar.gz"
        with pytest.raises(EluteError, match=r"cannot be reached \(ConnectionRefusedError"):
            download_test_data(tmp_path, source=replace(served.source, url=url))
    with pytest.raises(EluteError, match=r"nowhere.invalid cannot be reached \(gaierror"):
        download_test_data(tmp_path, source=replace(served.source, url="https://nowhere.invalid/x"))
    for bad in ("file:///etc/passwd", "ftp://a/b", "x"):
        with pytest.raises(ConfigError, match="is no address to fetch from"):
            download_test_data(tmp_path, source=replace(served.source, url=bad))
    assert list(tmp_path.iterdir()) == []


def link(made: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("filtered_gene_bc_matrices/hg19/matrix.mtx")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    made.addfile(info)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (archive(matrix=""), "holds no hg19/matrix.mtx"),
        (archive(link, matrix=""), "its matrix.mtx is a link, too large, or there twice"),
        (
            archive(lambda made: add(made, "../hg19/genes.tsv", b"x")),
            "its genes.tsv is a link, too large, or there twice",
        ),
        (archive(lambda made: [add(made, f"x{i}", b"") for i in range(80)]), "holds more than 64 members"),
        (archive(barcodes="A\nB\n"), "names 2 cells and 4 genes, not 3 and 4"),
        (archive(matrix=MATRIX.replace("4 3 5", "4 3 6")), "is not that of its genes and cells"),
        (archive(matrix=MATRIX.replace("4 3 5", "4 3 5\n9 1 1")), "is not that of its genes and cells"),
        (archive(matrix=MATRIX.replace("4 3 5", "4 three 5")), "its matrix.mtx cannot be read"),
        (archive(matrix="4 3 5\n"), "matrix.mtx"),
        (archive()[:200], "is no archive"),
        (gzip.compress(b"no tar", mtime=0), "is no archive"),
        (b"PK nothing of the kind", "is no archive"),
    ],
)
def test_archives_that_are_not_what_they_say(served: Served, tmp_path: Path, body: bytes, line: str) -> None:
    served.body = body
    with pytest.raises(DamagedError, match=line):
        download_test_data(tmp_path / "data", source=served.source)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_that_is_something_else_is_kept(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "pbmc3k.h5ad"
    path.write_bytes(b"mine")
    with pytest.raises(GuardError, match="is there already, and does not hold this data. Give --force"):
        download_test_data(path, source=served.source)
    assert path.read_bytes() == b"mine"
    download_test_data(path, source=served.source, force=True)
    with h5py.File(path, "r+") as file:
        file["X/data"][0] = 99
    with pytest.raises(GuardError, match="does not hold this data"):
        download_test_data(path, source=served.source)
    assert served.asked == 1


def test_names_become_unique_as_anndata_makes_them() -> None:
    names = ["A", "B", "A", "A", "A-1", "C", "B"]
    found = _unique(names)
    with pytest.warns(UserWarning, match="Suffix used"):
        assert found == anndata.utils.make_index_unique(pd.Index(names)).tolist()
    assert len(set(found)) == len(names)


def test_what_is_asked_for_by_default() -> None:
    assert PBMC3K.url.startswith("https://cf.10xgenomics.com/")
    assert (PBMC3K.size, PBMC3K.cells, PBMC3K.genes, len(PBMC3K.sha256)) == (7_621_991, 2_700, 32_738, 64)
