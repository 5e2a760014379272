"""A run that is killed again and again, wherever it is, ends with the same bytes as one that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tissue.test_pipeline import planned
from tests.tissue.tiles_made import write_files

from elute.base import run as records
from elute.tissue import stages
from elute.tissue.pipeline import run_tissue
from elute.tissue.plan import Plan
from elute.tissue.settings import CodesConfig, SaeConfig


class KilledError(BaseException):
    """Goes through every handler of errors, as a kill does."""


def content(folder: Path) -> dict[str, bytes]:
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("tissue"))


def test_a_run_that_is_killed_again_and_again(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = config.parent
    plan = planned(config, home / "run", crp={"curve_samples": 3, "most_genes": 2})
    run_tissue(plan)
    alone = content(home / "run")
    (home / "run").rename(home / "alone")

    left, after, kills, real = 0, True, 0, Path.replace

    def replace(self: Path, target: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise KilledError
        moved = real(self, target)
        if left == 0:
            raise KilledError
        return moved

    monkeypatch.setattr(Path, "replace", replace)
    size = 4.0
    while True:
        left, after = int(size), not after
        try:
            run_tissue(plan)
        except KilledError:
            kills += 1
            size *= 1.35
            continue
        break
    assert kills >= 8
    again = content(home / "run")
    assert again.keys() == alone.keys()
    assert [name for name in alone if alone[name] != again[name]] == []


def test_what_was_done_is_told_by_settings_inputs_and_files(tmp_path: Path) -> None:
    sections = {"sae": SaeConfig()}
    (tmp_path / "a").write_text("one")
    assert stages.done(tmp_path, "s", sections, inputs={"x": "1"}) is None
    stages.record(tmp_path, "s", sections, inputs={"x": "1"}, summary={"n": 3}, written=[tmp_path / "a"])
    assert stages.done(tmp_path, "s", sections, inputs={"x": "1"}) == {"n": 3}
    assert stages.done(tmp_path, "s", sections, inputs={"x": "2"}) is None
    assert stages.done(tmp_path, "s", {"sae": SaeConfig(seed=1)}, inputs={"x": "1"}) is None
    assert stages.done(tmp_path, "s", {"sae": SaeConfig(device="cpu")}, inputs={"x": "1"}) == {"n": 3}
    assert stages.done(tmp_path, "s", {"codes": CodesConfig()}, inputs={"x": "1"}) is None
    (tmp_path / "a").write_text("two")
    assert stages.done(tmp_path, "s", sections, inputs={"x": "1"}) is None
    (tmp_path / "a").unlink()
    assert stages.done(tmp_path, "s", sections, inputs={"x": "1"}) is None


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    from elute.base.errors import DataError

    with pytest.raises(DataError, match=r"train_heads has not been done here\. Type: elute tissue train_heads"):
        stages.told(tmp_path, "train_heads", needs="train_heads")
    stages.record(tmp_path, "s", {"sae": SaeConfig()}, inputs={}, summary={}, written=[])
    stages.forget(tmp_path, "s")
    assert records.read(tmp_path)["stages"] == {}
    assert Plan.of(tmp_path).coded == tmp_path / "codes"
