from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from elute.base import doctor
from elute.base.doctor import KEYS, WHAT_FOR, examine, how_to_install

ROOT = Path(__file__).parents[2]
SECRET = "hf_Sup3rS3cretValue"  # noqa: S105


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without .env, and an environment without keys."""
    monkeypatch.chdir(tmp_path)
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that elute declares some packages, and that some of them are there."""

    def pretend(declared: list[str], there: list[str]) -> None:
        def version(name: str) -> str:
            if name not in there:
                raise PackageNotFoundError(name)
            return "1.0"

        monkeypatch.setattr(doctor, "requires", lambda _: declared)
        monkeypatch.setattr(doctor, "version", version)
        monkeypatch.setattr(doctor, "how_to_install", "pip install {}".format)

    return pretend


def usable() -> set[str]:
    return {name for name, key in examine().summary["keys"].items() if key["usable"]}


# Keys


def test_a_keys_value_is_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert usable() == set()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (tmp_path / ".env").write_text(f"WANDB_API_KEY={SECRET}\nSOMETHING_ELSE={SECRET}\n")
    artifact = examine()
    assert {name for name, key in artifact.summary["keys"].items() if key["usable"]} == {"HF_TOKEN", "WANDB_API_KEY"}
    assert SECRET not in json.dumps(artifact.summary)
    assert SECRET not in repr(artifact)
    assert "SOMETHING_ELSE" not in repr(artifact)
    assert SECRET not in "".join(capfd.readouterr())
    assert artifact.summary["keys"]["HF_TOKEN"] == {
        "usable": True,
        "for": "models and dictionaries that need an account at Hugging Face",
        "type": "export HF_TOKEN=…  (or a line in .env)",
    }


@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"]])
def test_the_whole_command_never_tells_a_keys_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    from elute.cli.main import main

    monkeypatch.setenv("HF_TOKEN", SECRET)
    (tmp_path / ".env").write_text(f"NCBI_API_KEY={SECRET}\n")
    try:
        assert main(words) == 0
    finally:
        logging.captureWarnings(capture=False)  # which the command line has turned on
    out, err = capfd.readouterr()
    assert "HF_TOKEN" in out
    assert SECRET not in out + err


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("HF_TOKEN=x", True), ("export HF_TOKEN=x", True), ("  HF_TOKEN = 'x' ", True), ("HF_TOKEN=a=b", True),
        ("HF_TOKEN=", False), ("HF_TOKEN=   ", False), ('HF_TOKEN=""', False), ("HF_TOKEN=''", False),
        ("HF_TOKEN", False), ("#HF_TOKEN=x", False), ("  # HF_TOKEN=x", False), ("MY_HF_TOKEN=x", False), ("", False),
        ("COMMENT=é\nHF_TOKEN=x", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_lines_of_a_dotenv(tmp_path: Path, line: str, there: bool, encoding: str) -> None:
    (tmp_path / ".env").write_text(line + "\n", encoding=encoding)
    assert usable() == ({"HF_TOKEN"} if there else set())


def test_a_key_that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert usable() == set()


def test_a_dotenv_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").mkdir()
    assert usable() == set()
    (tmp_path / ".env").rmdir()
    (tmp_path / ".env").write_text("HF_TOKEN=x\n")
    assert usable() == {"HF_TOKEN"}
    real = Path.open

    def denied(self: Path, *args: Any, **settings: Any) -> Any:
        if self.name == ".env":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **settings)

    monkeypatch.setattr(Path, "open", denied)
    assert usable() == set()


# Extras


def test_extras_are_those_that_the_package_declares(installed: Callable[..., None]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        f'{line}; extra == "{extra}"' for extra, lines in project["optional-dependencies"].items() for line in lines
    ]
    installed([*project["dependencies"], *declared], [])
    packages = {
        extra: [re.split(r"[>=\[]", line)[0] for line in lines]
        for extra, lines in project["optional-dependencies"].items()
    }
    del packages["all"]
    assert set(WHAT_FOR) == set(packages)
    extras = examine().summary["extras"]
    assert set(extras) == set(packages)
    for name, extra in extras.items():
        assert extra["for"] == WHAT_FOR[name]
        assert extra["usable"] is (not packages[name])
        missing = f"pip install {name}  (missing: {', '.join(packages[name])})" if packages[name] else ""
        assert extra["type"] == missing


def test_what_is_missing_is_named(installed: Callable[..., None]) -> None:
    declared = [
        "numpy>=2",
        'zarr>=3.0; extra == "arrays"',
        "anndata[dask]>=0.12; extra == 'cells'",
        'scanpy (>=1.11) ; python_version < "3.13" and extra == "cells"',
        'streamlit>=1.45; extra == "all"',
        'unheard-of>=1; extra == "others"',
    ]
    installed(declared, ["zarr"])
    extras = examine().summary["extras"]
    assert extras["arrays"] == {"usable": True, "for": "Zarr files", "type": ""}
    assert extras["cells"]["type"] == "pip install cells  (missing: anndata, scanpy)"
    assert extras["cells"]["usable"] is False
    assert extras["app"]["usable"] is True
    assert set(extras) == set(WHAT_FOR)
    installed(declared, ["zarr", "scanpy"])
    assert examine().summary["extras"]["cells"]["type"] == "pip install cells  (missing: anndata)"


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, 'pip install "elute[cells]"'),
        ("{", 'pip install "elute[cells]"'),
        ('{"url": "https://a.b/elute.whl", "archive_info": {}}', 'pip install "elute[cells]"'),
        ('{"url": "file:///a/my%20code", "dir_info": {}}', 'pip install -e "/a/my code[cells]"'),
        ("here", 'pip install -e ".[cells]"'),
    ],
)
def test_what_to_type_for_an_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: str | None, line: str
) -> None:
    if origin == "here":
        origin = json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    monkeypatch.setattr(doctor, "distribution", lambda _: SimpleNamespace(read_text=lambda _: origin))
    assert how_to_install("cells") == line


def test_elute_from_its_source_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", missing)
    monkeypatch.setattr(doctor, "distribution", missing)
    assert set(examine().summary["extras"]) == set(WHAT_FOR)
    assert how_to_install("cells") == 'pip install "elute[cells]"'


def test_the_device_and_the_versions_are_told() -> None:
    import torch

    artifact = examine()
    assert artifact.kind == "doctor"
    assert artifact.summary["versions"]["torch"] == torch.__version__
    assert re.match(r"(cpu|cuda|mps): .+; (fp32|bf16): .+", artifact.summary["device"])


# What every command pays for


def test_the_light_parts_load_nothing_heavy() -> None:
    light = ["errors", "contracts", "console", "device", "files", "plugins", "recipe", "run", "tensors", "doctor"]
    code = (
        "import importlib, sys\n"
        "heavy = {'torch', 'polars', 'scipy', 'numpy', 'pandas', 'h5py', 'safetensors'}\n"
        f"for name in {light}:\n"
        "    importlib.import_module(f'elute.base.{name}')\n"
        "    print(name, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"{name} []" for name in light], done.stderr
