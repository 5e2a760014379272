from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elute.base import plugins
from elute.base.contracts import DOORS, Door
from elute.base.errors import ConfigError, MissingError

PACKAGE = "elute_test_open_folder"
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    """Put a file into an open folder that is there for one test alone; its door is `things`."""
    folder = tmp_path / PACKAGE / "things"
    folder.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(DOORS, "things", Door(f"{PACKAGE}.things", "THING", "elute_test.things"))

    def write(name: str, text: str | bytes) -> Path:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        importlib.invalidate_caches()
        return path

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def install(folder: Path, entries: str) -> None:
    """Lay down what an installed distribution leaves beside its code."""
    info = folder / "elute_test_addition-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elute-test-addition\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[elute_test.things]\n{entries}\n")
    importlib.invalidate_caches()


def test_a_file_is_found_by_its_name(put: Put) -> None:
    assert plugins.names("things") == []
    put("first.py", "THING = 1\n")
    put("second_one.py", "class THING:\n    worth = 2\n")
    put("third-one.py", "def THING(): return 3\n")
    put("fourth.py", "from typing import Final\nTHING: Final = 4\n")
    put("fifth/__init__.py", "THING=5\n")
    assert plugins.names("things") == ["fifth", "first", "fourth", "second-one", "third-one"]
    assert not [name for name in sys.modules if name.startswith(f"{PACKAGE}.things.")]
    assert plugins.load("things", "first") == 1
    for name in ("second-one", "second_one"):
        assert plugins.load("things", name).worth == 2
    for name in ("third-one", "third_one"):
        assert plugins.load("things", name)() == 3
    assert plugins.load("things", "fourth") == 4
    assert plugins.load("things", "fifth") == 5
    assert plugins.load("things", "first") == 1


def test_a_folders_own_machinery_is_no_plugin(put: Put) -> None:
    put("talk.py", '"""About things.\n\nTHING is what a file binds, and THINGS are many.\n"""\nSOMETHING = 1\n')
    put("longer.py", "THING_SIZE = 1\nTHINGS = 2\n")
    put("inner.py", "def make():\n    THING = 1\n    return THING\n")
    put("compare.py", "from x import THING\nTHING == 3\n")
    put("below/__init__.py", "")
    put("below/first.py", "THING = 1\n")
    put("note.txt", "THING = 1\n")
    assert plugins.names("things") == []


def test_what_editors_leave_behind_does_no_harm(put: Put) -> None:
    file = put("first.py", "THING = 1\n")
    put("._first.py", b"\x00\x05\x16\x07\nTHING = \xff\n")
    (file.parent / ".#first.py").symlink_to("someone@somewhere.123")
    put("latin.py", "# -*- coding: latin-1 -*-\nTHING = 'é'\n".encode("latin-1"))
    assert plugins.names("things") == ["first", "latin"]
    assert plugins.load("things", "latin") == "é"


def test_listing_imports_nothing(put: Put) -> None:
    put("first.py", "raise SystemExit('imported')\nTHING = 1\n")
    assert plugins.names("things") == ["first"]
    with pytest.raises(SystemExit, match="imported"):
        plugins.load("things", "first")


@pytest.mark.parametrize("name", ["second-one", "second_one"])
def test_loading_one_name_reads_no_other_file(put: Put, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put("first.py", "THING = 1\n")
    put("second_one.py", "THING = 2\n")
    put("third/__init__.py", "THING = 3\n")
    read: list[str] = []
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, **how: read.append(self.name) or original(self, **how))
    assert plugins.load("things", name) == 2
    assert read == ["second_one.py"]
    assert plugins.names("things") == ["first", "second-one", "third"]
    assert {"first.py", "second_one.py"} < set(read[1:]), "a list needs them all"


def test_a_name_that_is_not_there(put: Put) -> None:
    with pytest.raises(ConfigError) as error:
        plugins.load("things", "first")
    assert str(error.value) == "there is no 'first' among things. There are none."
    put("first_one.py", "THING = 1\n")
    put("other.py", "THING = 1\n")
    with pytest.raises(ConfigError) as error:
        plugins.load("things", "frist_one")
    assert str(error.value) == "there is no 'frist_one' among things. Did you mean 'first-one'?"
    with pytest.raises(ConfigError) as error:
        plugins.load("things", "zzz")
    assert str(error.value) == "there is no 'zzz' among things. There are: first-one, other."


@pytest.mark.parametrize("package", ["elute_test_none", "elute_test_none.things", "json.things", "math.things"])
def test_a_door_without_a_folder_is_empty(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(DOORS, "things", Door(package, "THING", "elute_test.none"))
    assert plugins.names("things") == []


def test_an_installed_package_adds_to_a_door(put: Put, tmp_path: Path) -> None:
    put("first.py", "THING = 1\n")
    (tmp_path / "elute_test_addition.py").write_text("class Mine:\n    worth = 7\n")
    install(tmp_path, "my_thing = elute_test_addition:Mine\nfirst = elute_test_addition:Mine\ngone = elute_test_gone:X")
    assert plugins.names("things") == ["first", "gone", "my-thing"]
    assert "elute_test_addition" not in sys.modules
    try:
        assert plugins.load("things", "my-thing").worth == 7
        assert plugins.load("things", "my_thing").worth == 7
        assert plugins.load("things", "first") == 1  # elute's own file is not replaced
    finally:
        sys.modules.pop("elute_test_addition", None)
    with pytest.raises(MissingError) as error:
        plugins.load("things", "gone")
    assert str(error.value) == (
        "things: 'gone' needs the package 'elute_test_gone', which is not installed. `elute doctor` says what to type."
    )


@pytest.mark.parametrize("asked", ["elute_test_ray", "elute_test_ray.data", "elutelike"])
def test_a_package_that_is_missing_is_named(put: Put, asked: str) -> None:
    put("far_away.py", f"import {asked}\nTHING = 1\n")
    with pytest.raises(MissingError) as error:
        plugins.load("things", "far-away")
    assert str(error.value) == (
        f"things: 'far-away' needs the package {asked.split('.')[0]!r}, which is not installed. "
        "`elute doctor` says what to type."
    )
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("1 / 0\nTHING = 1\n", ZeroDivisionError, "division by zero"),
        ("import elute.nothing_of_ours\nTHING = 1\n", ModuleNotFoundError, "elute.nothing_of_ours"),
        ("import json.nothing\nTHING = 1\n", ModuleNotFoundError, "json.nothing"),
        (f"import {PACKAGE}.nothing\nTHING = 1\n", ModuleNotFoundError, f"{PACKAGE}.nothing"),
        ("from json import nothing\nTHING = 1\n", ImportError, "cannot import name 'nothing'"),
        ("raise ModuleNotFoundError('by hand')\nTHING = 1\n", ModuleNotFoundError, "by hand"),
        ("THING = 1 +\n", SyntaxError, "invalid syntax"),
        ("THING = 1\ndel THING\n", AttributeError, "has no attribute 'THING'"),
    ],
)
def test_a_fault_in_a_plugin_keeps_its_traceback(put: Put, text: str, kind: type[Exception], said: str) -> None:
    path = put("broken.py", text)
    with pytest.raises(kind, match=said) as error:
        plugins.load("things", "broken")
    assert error.type is kind
    if kind is ZeroDivisionError:
        assert str(error.traceback[-1].path) == str(path)


def test_our_own_doors_are_listed_without_importing() -> None:
    heavy = ["torch", "polars", "numpy", "scipy", "scanpy", "streamlit", "ray", "transformers", "h5py", "pandas"]
    code = (
        "import sys\n"
        "from elute.base import plugins\n"
        "from elute.base.contracts import DOORS\n"
        "print({door: plugins.names(door) for door in DOORS})\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert listed == repr({door: plugins.names(door) for door in DOORS})
    assert any(ast.literal_eval(listed).values())


@pytest.mark.parametrize(("door", "name"), [(door, name) for door in DOORS for name in plugins.names(door)])
def test_what_lies_behind_our_own_doors_loads(door: str, name: str) -> None:
    try:
        assert plugins.load(door, name) is plugins.load(door, name.replace("-", "_"))
    except MissingError as error:
        assert error.remedy == "`elute doctor` says what to type."  # noqa: PT017
