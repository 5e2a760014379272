from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base import files
from elute.base.errors import BusyError, DamagedError, DataError, SpaceError
from elute.base.files import (
    as_json,
    digest_bytes,
    digest_file,
    digest_json,
    disk_errors,
    free_bytes,
    locked,
    make_folder,
    read_json,
    sync_folder,
    write_atomically,
    write_json,
)

MAKE_ROOM = "What was written before is kept: make room and run the same command again."
ANOTHER_FOLDER = "Choose another folder, or change its permissions."


def put(content: bytes) -> Any:
    return lambda handle: handle.write(content)


def failing(error: BaseException) -> Any:
    def fill(handle: BinaryIO) -> None:
        handle.write(b"half of the n")
        handle.flush()
        raise error

    return fill


def python(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=60)


# Writing


def test_a_write_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_atomically(path, put(b"one and more"))
    assert path.read_bytes() == b"one and more"
    write_atomically(path, put(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["x.bin"]  # noqa: PTH208


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EBUSY, "no"), SystemExit(3)])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as raised:
        write_atomically(path, failing(error))
    assert raised.value is error
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


KILLED = """
import os, signal, sys
from pathlib import Path
from elute.base import files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def fill(handle):
    handle.write(b"new " * 1000)
    handle.flush()
    if sys.argv[2] == "while it writes":
        die()

if sys.argv[2] == "before it is flushed":
    files.os.fsync = die
if sys.argv[2] == "before it is renamed":
    Path.replace = die
files.write_atomically(Path(sys.argv[1]), fill)
die()
"""


@pytest.mark.parametrize("moment", ["while it writes", "before it is flushed", "before it is renamed", "after"])
def test_a_process_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    done = python(KILLED, path, moment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == (b"new " * 1000 if moment == "after" else b"old")
    assert [p for p in tmp_path.iterdir() if not p.name.startswith(".")] == [path]
    write_atomically(path, put(b"next"))
    assert path.read_bytes() == b"next"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bytes | None]] = []
    path, real = tmp_path / "x.bin", Path.replace

    def fsync(handle: int) -> None:
        told.append(("flushed", Path(f"/proc/self/fd/{handle}").read_bytes()))

    def replace(self: Path, target: Path) -> Path:
        told.append((f"renamed to {target.name}", None))
        return real(self, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(path, put(b"all of it"))
    assert told == [("flushed", b"all of it"), ("renamed to x.bin", None)]


def test_a_folder_is_flushed_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(files.os, "fsync", lambda handle: flushed.append(os.readlink(f"/proc/self/fd/{handle}")))  # noqa: PTH115
    before = len(list(Path("/proc/self/fd").iterdir()))
    sync_folder(tmp_path)
    assert flushed == [str(tmp_path)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# What the disk says


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, f"the disk is full (1,235 MB free). {MAKE_ROOM}"),
        (errno.EDQUOT, f"the disk quota is used up. {MAKE_ROOM}"),
        (errno.EFBIG, f"the file grew past the size limit. {MAKE_ROOM}"),
        (errno.EACCES, f"no permission to write. {ANOTHER_FOLDER}"),
        (errno.EPERM, f"no permission to write. {ANOTHER_FOLDER}"),
        (errno.EROFS, f"the file system is read-only. {ANOTHER_FOLDER}"),
    ],
)
def test_what_the_disk_says_becomes_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, line: str
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 1_234_567_890)
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    cause = OSError(number, os.strerror(number))
    with pytest.raises(SpaceError) as error:
        write_atomically(path, failing(cause))
    assert str(error.value) == f"{path}: {line}"
    assert error.value.__cause__ is cause
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_a_kernel_without_room_is_understood() -> None:
    """/dev/full answers each write as a full disk does."""
    full = Path("/dev/full")
    with pytest.raises(SpaceError) as error, disk_errors(full), full.open("wb") as handle:
        handle.write(b"x")
    assert str(error.value).startswith("/dev/full: the disk is full (")
    assert str(error.value).endswith(f" MB free). {MAKE_ROOM}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, timeout=30
        )
    except FileNotFoundError:
        pytest.skip("no small disk here: there is no mount command")
    if done.returncode:
        pytest.skip(f"no small disk here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=30)


def test_a_disk_that_is_really_full_and_then_read_only(small_disk: Path) -> None:
    path = small_disk / "x.bin"
    write_atomically(path, put(b"old"))
    with pytest.raises(SpaceError) as error:
        write_atomically(path, put(b"n" * 200_000))
    assert str(error.value) == f"{path}: the disk is full (0 MB free). {MAKE_ROOM}"
    assert path.read_bytes() == b"old"
    assert [p.name for p in small_disk.iterdir()] == ["x.bin"]
    write_atomically(path, put(b"n" * 20_000))
    assert path.stat().st_size == 20_000
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=30)
    for attempt in (
        lambda: write_json(path, 1),
        lambda: make_folder(small_disk / "a"),
        locked(small_disk, "x").__enter__,
    ):
        with pytest.raises(SpaceError, match=r"the file system is read-only\. Choose another folder, or change"):
            attempt()


def test_a_disk_that_is_gone(tmp_path: Path) -> None:
    remedy = "Is the disk there? Bring it back, or choose another folder."
    with pytest.raises(SpaceError) as error:
        write_json(tmp_path / "gone" / "x.json", 1)
    assert (
        str(error.value) == f"{tmp_path / 'gone' / 'x.json'}: the folder is not there, and none can be made. {remedy}"
    )
    with pytest.raises(SpaceError) as error:
        make_folder(Path("/proc/gone/x"))
    assert str(error.value) == f"/proc/gone/x: the folder is not there, and none can be made. {remedy}"

    def broken(_: BinaryIO) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(SpaceError, match="the disk answers with an error. Is the disk there"):
        write_atomically(tmp_path / "x.bin", broken)
    assert not list(tmp_path.iterdir())


def test_names_that_cannot_be_written(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    (tmp_path / "loop").symlink_to("loop")
    cases = {
        file / "x": "Not a directory",
        file: "File exists",
        tmp_path / ("n" * 300): "File name too long",
        tmp_path / "loop" / "x": "Too many levels of symbolic links",
    }
    for path, said in cases.items():
        with pytest.raises(SpaceError) as error:
            make_folder(path)
        assert str(error.value) == f"{path}: cannot be written: {said}. Choose another name."
    with pytest.raises(SpaceError) as error:
        write_json(folder, 1)
    assert str(error.value) == f"{folder}: cannot be written: Is a directory. Choose another name."
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "loop"]


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_the_disk_that_counts_is_the_one_that_will_hold_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def statvfs(folder: Path) -> os.statvfs_result:
        asked.append(folder)
        return os.statvfs_result((4096, 512, 90, 80, 7, 0, 0, 0, 0, 255))

    monkeypatch.setattr(files.os, "statvfs", statvfs)
    assert free_bytes(tmp_path / "not" / "yet" / "there") == 512 * 7
    assert asked == [tmp_path]


# JSON


def test_json_is_written_for_people_and_for_diffs(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": [1, 0.5], "a": "β"})
    assert path.read_text(encoding="utf-8") == '{\n "b": [\n  1,\n  0.5\n ],\n "a": "β"\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, -float("inf")]])
def test_json_never_holds_what_json_does_not_have(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_json(value)


def test_a_path_that_is_not_utf8_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.h5ad")
    write_json(tmp_path / "x.json", {name: name})
    assert read_json(tmp_path / "x.json") == {name: name}
    assert len(digest_json(name)) == 64


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert json.loads(as_json(value)) == value
    assert as_json(value) == as_json(json.loads(as_json(value)))
    assert digest_json(value) == digest_json(json.loads(as_json(value)))


NOT_JSON = {
    "empty": (b"", "is not a table: Expecting value: line 1 column 1 (char 0)"),
    "cut short": (b'{"a": [1,', "is not a table: Expecting value: line 1 column 10 (char 9)"),
    "more": (b"{} {}", "is not a table: Extra data: line 1 column 4 (char 3)"),
    "another file": (b"\x93NUMPY\x01\x00v\x00", "is not a table: 'utf-8' codec can't decode byte 0x93 in position 0: inval"),
    "deep": (b"[" * 100_000, "is not a table: maximum recursion depth exceeded"),
    "a long number": (b"1" * 10_000, "is not a table: Exceeds the limit (4300 digits) for integer string conversion"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_JSON)
def test_what_is_not_json_is_refused(tmp_path: Path, kind: str) -> None:
    content, said = NOT_JSON[kind]
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DamagedError) as error:
        read_json(path, what="a table", remedy="Make it anew.")
    assert str(error.value).startswith(f"{path}: {said}")
    assert str(error.value).endswith(". Make it anew.")


def test_json_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    file.write_text("{}")
    cases = {
        tmp_path / "none": "there is no such file (a table was expected)",
        tmp_path: "is a folder, not a table",
        file / "x": "cannot be read: Not a directory",
        tmp_path / ("n" * 300): "cannot be read: File name too long",
    }
    for path, said in cases.items():
        with pytest.raises(DataError) as error:
            read_json(path, what="a table", remedy="Look there.")
        assert str(error.value) == f"{path}: {said}. Look there."
        assert type(error.value) is DataError
    with pytest.raises(DataError, match=r"no such file \(a JSON file was expected\)$"):
        read_json(tmp_path / "none")

    def denied(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError) as error:
        read_json(file)
    assert str(error.value) == f"{file}: cannot be read: Permission denied"


# Digests


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=5))
def test_digests_of_bytes_are_sha256(parts: list[bytes]) -> None:
    assert digest_bytes(*parts) == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 700, 701])
def test_digests_of_files_are_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(files, "_CHUNK", 7)
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "x").write_bytes(content)
    told: list[int] = []
    assert digest_file(tmp_path / "x", told.append) == hashlib.sha256(content).hexdigest()
    assert sum(told) == size
    assert max(told, default=0) <= 7
    assert digest_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_digests_of_json_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_json({"b": 1, "a": [1, 2]}) == digest_json({"a": [1, 2], "b": 1})
    assert digest_json({"b": 1, "a": [1, 2]}) == hashlib.sha256(b'{"a":[1,2],"b":1}').hexdigest()
    assert digest_json([1, 2]) != digest_json([2, 1])
    assert digest_json(1) != digest_json("1")


# Locks

HOLDER = """
import sys, time
from pathlib import Path
from elute.base.files import locked

with locked(Path(sys.argv[1]), "writing a store"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(BusyError) as error, locked(tmp_path, "measuring"):
                pass
            assert str(error.value) == (
                f"{tmp_path}: process {holder.pid} (writing a store) is writing here. "
                "Wait until it ends, or choose another folder."
            )
        finally:
            holder.kill()
        assert holder.wait(30) == -signal.SIGKILL
    with locked(tmp_path, "m"):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} (m)"


def test_a_process_does_not_lock_a_folder_twice(tmp_path: Path) -> None:
    with locked(tmp_path, "measuring"):
        with pytest.raises(BusyError, match=rf"process {os.getpid()} \(measuring\) is writing here"):
            locked(tmp_path, "drawing").__enter__()
        with pytest.raises(BusyError, match=r"\(measuring\) is writing here"):  # the refused one did not sign the lock
            locked(tmp_path, "drawing").__enter__()
        (tmp_path / "other").mkdir()
        with locked(tmp_path / "other", "drawing"):
            pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "drawing"):
        raise ZeroDivisionError
    with locked(tmp_path, "measuring"):
        pass


def test_a_holder_that_has_not_signed_yet(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(BusyError) as error, locked(tmp_path, "measuring"):
            pass
    assert error.value.what == "another process is writing here"


def test_a_lock_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "pwrite", full)
        with pytest.raises(
            SpaceError, match=r"\.lock: the disk is full .* make room and run the same command again\.$"
        ):
            locked(tmp_path, "measuring").__enter__()
    with locked(tmp_path, "measuring"):
        pass


def test_a_lock_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "open", denied)
    with pytest.raises(SpaceError) as error:
        locked(tmp_path, "measuring").__enter__()
    assert str(error.value) == f"{tmp_path / '.lock'}: no permission to write. {ANOTHER_FOLDER}"


def test_an_error_within_a_lock_is_not_taken_for_the_locks_own(tmp_path: Path) -> None:
    """What the block raises belongs to what the block was doing."""
    with pytest.raises(OSError, match="No space left") as error, locked(tmp_path, "measuring"):
        raise OSError(errno.ENOSPC, "No space left")
    assert type(error.value) is OSError
