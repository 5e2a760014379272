"""The house's habits, as tests: what a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest

import elute
from elute.base.recipe import Section, read_yaml, resolve
from elute.store.layout import COLUMNS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "elute"
FILES = sorted(SOURCE.rglob("*.py"))
OURS = [
    p
    for p in subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, timeout=30
    ).stdout.splitlines()
    if (ROOT / p).is_file()
]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= 300, f"{lines} lines: a file this long has two jobs"
    for node in functions(ast.parse(path.read_text())):
        length = (node.end_lineno or 0) - node.lineno + 1
        assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_at_most_three_positional_arguments(path: Path) -> None:
    for node in functions(ast.parse(path.read_text())):
        named = [a.arg for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")]
        assert node.name.startswith("_") or len(named) <= 3, f"{node.name}({', '.join(named)}): make the rest keywords"


def test_names_say_something() -> None:
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "common", "misc")]


def test_packages_are_empty_but_for_the_face() -> None:
    faces = (SOURCE, SOURCE / "tissue")  # what users import by these names is found there when it is asked for
    assert not [p for p in FILES if p.name == "__init__.py" and p.parent not in faces and p.read_text().strip()]


def test_no_import_cycles() -> None:
    """Also those through imports inside functions, which layers between packages would not show."""
    graph = grimp.build_graph("elute")
    state: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> None:
        state[module] = 1
        for other in graph.find_modules_directly_imported_by(module):
            assert state.get(other) != 1, f"cycle: {' → '.join([*trail, module, other])}"
            if other not in state:
                visit(other, [*trail, module])
        state[module] = 2

    for module in sorted(graph.modules):
        if module not in state:
            visit(module, [])


def test_nothing_is_left_open() -> None:
    left = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert not [str(p) for p in FILES if left.search(p.read_text())]


def test_no_path_of_one_machine() -> None:
    home = str(ROOT.parent) + "/"
    assert not [p for p in OURS if home.encode() in (ROOT / p).read_bytes()]


def sections() -> list[type[Section]]:
    for module in pkgutil.walk_packages(elute.__path__, "elute."):
        bare = module.name == "elute.dictionaries.triton" and importlib.util.find_spec("triton") is None
        if not module.name.endswith("__main__") and not bare:
            importlib.import_module(module.name)
    return sorted(Section.__subclasses__(), key=lambda s: s.__name__)


def test_settings_are_documented_and_few() -> None:
    found = sections()
    assert found
    for section in found:
        assert len(section.model_fields) <= 12, section
        assert inspect.getdoc(section), section
        assert not [n for n, f in section.model_fields.items() if not f.description], section


def test_every_shipped_configuration_loads() -> None:
    from elute.cli.routing import ROUTING
    from elute.cli.sections import ARRAYS, CELLS
    from elute.cli.tissue import TISSUE

    domains: dict[str, Any] = {"arrays": ARRAYS, "tissue": TISSUE, "routing": ROUTING}
    paths = sorted((ROOT / "configs").rglob("*.yaml"))
    assert paths
    for path in paths:
        known = domains.get(path.parent.name, CELLS)
        assert resolve(known, path, needed=())
        assert read_yaml(path)


def test_every_dependency_is_pinned() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text()
    names = re.findall(r'"([A-Za-z][\w.-]*)>=[\d.]+"', project)
    assert len(names) > 20
    assert not [n for n in names if n != "setuptools" and n.lower() not in pins]
    assert pins["torch"] == "2.13.0"


def test_the_command_reference_is_what_the_program_says() -> None:
    from elute.cli.reference import reference

    written = (ROOT / "docs" / "cli.md").read_text()
    assert written == reference(), "run: python -m elute.cli.reference > docs/cli.md"


def test_the_store_format_page_names_every_column() -> None:
    page = (ROOT / "docs" / "formats" / "store.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (yes|) ?\|", page, re.MULTILINE)
    assert {name: (kind, key == "yes") for name, kind, key in rows} == COLUMNS


LIGHT = [["--help"], ["--version"], ["arrays", "--help"], ["completion", "--help"], ["arrays", "train", "--help"]]


@pytest.mark.parametrize("words", LIGHT)
def test_light_commands_load_nothing_heavy(words: list[str]) -> None:
    heavy = ("torch", "polars", "numba", "scanpy", "streamlit", "ray", "transformers", "h5py", "zarr", "pandas")
    code = (
        "import sys; from elute.cli.main import main; main(sys.argv[1:]); "
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_the_face_is_what_it_says() -> None:
    for name in dir(elute):
        assert getattr(elute, name) is not None
    with pytest.raises(AttributeError, match="elute has no 'loud_model'"):
        _ = elute.loud_model
