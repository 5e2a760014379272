"""The checkpoint file: what goes in comes out, what differs is named, and what is damaged is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from elute.base.errors import ConfigError, DamagedError, DataError, VersionError
from elute.engine import resume

TOLD = {
    "step": 7,
    "settings": {"fit": {"lr": 0.1}},
    "stream": {"position": 3},
    "sums": {"loss": 0.1 + 0.2},
    "figures": {},
}


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    assert resume.load(tmp_path) is None
    parts = {
        "value": {"banks.0.W": torch.randn(3, 2), "b": torch.zeros(2, dtype=torch.float64)},
        "optimizer": {"steps": 9, "first.banks.0.W": torch.ones(3, 2)},
        "objective": {"price": math.pi / 1e5, "born": torch.arange(3)},
    }
    resume.save(tmp_path, parts, TOLD)
    found, told = resume.load(tmp_path) or ({}, {})
    assert told == TOLD
    assert found.keys() == parts.keys()
    for part, values in parts.items():
        assert found[part].keys() == values.keys()
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(found[part][name], value)
                assert found[part][name].dtype == value.dtype
            else:
                assert found[part][name] == value
    assert [p.name for p in tmp_path.iterdir()] == [resume.NAME]
    resume.save(tmp_path, {"value": {}}, TOLD)
    assert (resume.load(tmp_path) or ({},))[0] == {}, "the file before is replaced"


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    before = {"fit": {"lr": 0.1, "seed": 0, "clip": 1.0}, "learn": {"tied": True}, "store": "aaa"}
    resume.same_settings(tmp_path, before, json.loads(json.dumps(before)))
    for now, words in (
        ({**before, "fit": {**before["fit"], "lr": 0.2}}, "fit.lr was 0.1 and is now 0.2"),  # type: ignore[dict-item]
        ({**before, "store": "bbb"}, "store was 'aaa' and is now 'bbb'"),
        ({**before, "scaling": "ccc"}, "scaling was None and is now 'ccc'"),
        (
            {**before, "fit": {"lr": 1, "seed": 2, "clip": 3}},
            "fit.clip was 1.0 and is now 3; fit.lr was 0.1 and is now 1 (and 1 more)",
        ),
    ):
        with pytest.raises(ConfigError) as told:
            resume.same_settings(tmp_path, before, now)
        assert str(told.value).startswith(f"{tmp_path}: {words}. Give the same settings to go on, --anew to start over")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / resume.NAME
    resume.save(tmp_path, {"value": {"w": torch.ones(100)}}, TOLD)
    whole = path.read_bytes()

    def refused() -> None:
        with pytest.raises(DamagedError) as told:
            resume.load(tmp_path)
        assert str(told.value) == f"{path}: is not a whole training checkpoint. Start over with --anew."

    for damaged in (b"", b"PK", whole[:50], whole[: len(whole) // 2], whole[:-10], b"text " * 100):
        path.write_bytes(damaged)
        refused()
    for content in (
        torch.ones(3), {"w": torch.ones(2)}, {"told": torch.ones(2)}, {"told": "{"}, {"told": "[]"},
        {"told": json.dumps({"schema": 1})}, {"told": json.dumps({"schema": 1, "numbers": {}})}, {"told": Evil()},
        {"told": json.dumps({"schema": 1, "numbers": {}, **TOLD}), 5: torch.ones(2)},
    ):  # fmt: skip
        torch.save(content, path)
        refused()
    assert capsys.readouterr().out == "", "nothing in it was executed"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError):
        resume.load(tmp_path)


def test_a_newer_one_is_refused(tmp_path: Path) -> None:
    torch.save({"told": json.dumps({"schema": 2, "numbers": {}})}, tmp_path / resume.NAME)
    with pytest.raises(VersionError, match=r"was written by a newer elute\. Update elute\."):
        resume.load(tmp_path)


def test_whose_it_is(tmp_path: Path) -> None:
    assert not resume.belongs(tmp_path, TOLD["settings"])  # type: ignore[arg-type]
    resume.save(tmp_path, {"value": {}}, TOLD)
    assert resume.belongs(tmp_path, {"fit": {"lr": 0.1}})
    assert not resume.belongs(tmp_path, {"fit": {"lr": 0.2}})
    (tmp_path / resume.NAME).write_bytes(b"")
    assert not resume.belongs(tmp_path, {"fit": {"lr": 0.1}})
