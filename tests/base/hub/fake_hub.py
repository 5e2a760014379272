"""A hub on this machine: as much of the Hugging Face hub's HTTP interface as pushing and pulling a model needs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_" + "aBcDeFgHiJ" * 3
READER = "hf_" + "reader0000" * 3


@dataclass
class Repo:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""

    def commit(self, tree: dict[str, bytes]) -> str:
        self.head = hashlib.sha1(f"{len(self.commits)} {sorted(tree)}".encode(), usedforsecurity=False).hexdigest()
        self.commits[self.head] = dict(tree)
        return self.head


@dataclass
class Hub:
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    status: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Answers to give in place of the real ones: a part of `METHOD path` to a status and headers."""
    altered: dict[str, bytes] = field(default_factory=dict)
    """Files that come down with other bytes than were listed."""
    extra: list[dict[str, Any]] = field(default_factory=list)
    """Entries to add to every list of files."""
    cut_after: int | None = None
    """Bytes of a large file after which the connection breaks, once for each request."""
    whole_only: bool = False
    """Send a file from its beginning whatever part of it was asked for."""
    store: str = ""
    """Where requests for files are sent on to: the address of another hub."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """What came with each request for a file."""

    def count(self, part: str) -> int:
        return sum(part in request for request in self.requests)


def git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def large(path: str) -> bool:
    return path.endswith((".pt", ".safetensors"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    wbufsize = 1 << 16  # an answer in one piece: small ones after each other would wait for the other side
    hub: Hub

    def log_message(self, *_: object) -> None: ...

    def handle_any(self) -> None:
        self.connection.settimeout(10)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        split = urlsplit(self.path)
        self.query, path = parse_qs(split.query), split.path
        line = f"{self.command} {unquote(path)}"
        self.hub.requests.append(line)
        for part, (status, headers) in self.hub.status.items():
            if part in line:
                return self.answer({"error": headers.get("X-Error-Message", "no")}, status, **headers)
        given = self.headers.get("Authorization", "")
        if given not in ("", f"Bearer {TOKEN}", f"Bearer {READER}"):
            message = "Invalid credentials in Authorization header"
            return self.answer({"error": message}, 401, **{"X-Error-Message": message})
        self.writer, self.known = given == f"Bearer {TOKEN}", given != ""
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return getattr(self, method)(*(unquote(text or "") for text in found.groups()))
        return self.answer({"error": f"the fake hub has no {line}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815  # names that the base class calls

    def answer(self, value: Any, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            cut = self.hub.cut_after
            self.wfile.write(data if cut is None or len(data) < cut or "ETag" not in headers else data[:cut])
            self.close_connection = cut is not None

    def repo(self, name: str) -> Repo | None:
        found = self.hub.repos.get(name)
        if found is None or (found.private and not self.known):
            self.answer(
                {"error": "Repository not found"}, 404 if self.known else 401, **{"X-Error-Code": "RepoNotFound"}
            )
            return None
        return found

    def tree(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if (repo := self.repo(name)) is None:
            return None
        sha = repo.head if revision in ("", "main") else revision
        if sha not in repo.commits:
            self.answer({"error": "Invalid rev id"}, 404, **{"X-Error-Code": "RevisionNotFound"})
            return None
        return sha, repo.commits[sha]

    def create(self) -> None:
        if not self.writer:
            return self.answer(
                {"error": "You don't have the rights"}, 403, **{"X-Error-Message": "You lack the rights"}
            )
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            return self.answer({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
        self.hub.repos[name] = Repo(private=asked.get("visibility") == "private")
        self.hub.repos[name].commit({".gitattributes": b"*.pt filter=lfs\n"})
        return self.answer({"url": f"{self.hub.url}/{name}"})

    def info(self, name: str, revision: str) -> None:
        if found := self.tree(name, revision):
            sha, tree = found
            siblings = [{"rfilename": path} for path in tree]
            private = self.hub.repos[name].private
            self.answer({"id": name, "sha": sha, "private": private, "siblings": siblings})

    def listing(self, name: str, revision: str, path: str) -> None:
        if not (found := self.tree(name, revision)):
            return None
        rows: list[dict[str, Any]] = []
        for file, data in found[1].items():
            if path and not file.startswith(f"{path}/"):
                continue
            row = {"type": "file", "path": file, "size": len(data), "oid": git(data)}
            if large(file):
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            rows.append(row)
        if path and not rows:
            return self.answer({"error": "no folder"}, 404, **{"X-Error-Code": "EntryNotFound"})
        rows.append({"type": "directory", "path": "a_folder", "size": 0, "oid": "0" * 40})
        return self.answer(rows + self.hub.extra)

    def preupload(self, name: str, revision: str) -> None:
        if not self.writer:
            return self.answer({"error": "no"}, 403)
        if not (found := self.tree(name, revision)):
            return None
        answers = []
        for file in json.loads(self.body)["files"]:
            path, old = file["path"], found[1].get(file["path"])
            oid = None if old is None else hashlib.sha256(old).hexdigest() if large(path) else git(old)
            mode = "lfs" if large(path) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.answer({"files": answers})

    def batch(self, name: str) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            row = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.blobs:
                row["actions"] = {"upload": {"href": f"{self.hub.url}/blob/{wanted['oid']}"}}
            objects.append(row)
        self.answer({"transfer": "basic", "objects": objects})

    def blob(self, oid: str) -> None:
        assert "Authorization" not in self.headers, "the token went to the store of large files"
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.blobs[oid] = self.body
        self.answer({})

    def commit(self, name: str, revision: str) -> None:
        if not self.writer:
            return self.answer({"error": "no"}, 403)
        if (repo := self.repo(name)) is None:
            return None
        tree = dict(repo.commits[repo.head])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, repo.head):
                return self.answer({"error": "A commit has happened since"}, 412)
            if item["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                tree[value["path"]] = self.hub.blobs[value["oid"]]
            elif item["key"] == "deletedFile":
                del tree[value["path"]]
        sha = repo.commit(tree)
        return self.answer({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def resolve(self, name: str, revision: str, path: str) -> None:
        self.hub.headers.append(dict(self.headers))
        if self.hub.store:
            return self.answer(b"", 302, Location=f"{self.hub.store}{self.path}")
        if not (found := self.tree(name, revision)):
            return None
        sha, tree = found
        if path not in tree:
            return self.answer({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
        data = self.hub.altered.get(path, tree[path])
        headers = {"X-Repo-Commit": sha, "ETag": f'"{git(data)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not self.hub.whole_only:
            first = int(asked[1])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return self.answer(data[first:], 206, **headers)
        return self.answer(data, **headers)

    def card(self) -> None:
        warned = [] if self.body.startswith(b'{"content":"---') else [{"message": "empty or missing yaml metadata"}]
        self.answer({"warnings": warned, "errors": []})


NAME = r"([^/]+/[^/]+)"
ROUTES = [
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "card"),
    (rf"GET /api/models/{NAME}/tree/([^/]+)(?:/([^/]+))?", "listing"),
    (rf"GET /api/models/{NAME}(?:/revision/([^/]+))?", "info"),
    (rf"POST /api/models/{NAME}/preupload/([^/]+)", "preupload"),
    (rf"POST /api/models/{NAME}/commit/([^/]+)", "commit"),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /blob/(\w+)", "blob"),
    (rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", "resolve"),
]


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on a free port of this machine, while the block runs."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def leave_this_machine_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no token, proxy, cache or endpoint of the machine into a test."""
    from huggingface_hub import constants

    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "http_", "HTTP_", "ALL_PROXY"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
