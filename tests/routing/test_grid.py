"""A grid of transcoders: walked, interrupted, gone on with, ranked; and the script that does the same from a shell."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from elute.base.errors import ConfigError, DataError
from elute.cli.main import elute
from elute.engine.fit import Fit
from elute.routing import grid as module
from elute.routing.clt_settings import EpochsConfig, GridConfig, Settings, TranscoderConfig, numbers
from elute.routing.grid import rank, run_grid

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = EpochsConfig(num_epochs=2, batch_size=64, device="cpu")
ROOT = Path(__file__).parents[2]
GRID = GridConfig(pairs="clt_L0_to_L2,clt_L1_to_output", expansion_factor="2,4", k_ratio="0.125")


def line(pair: str, validation: float, gain: float, l0: float, folder: str = "a") -> dict[str, Any]:
    return {"pair": pair, "validation": validation, "gain": gain, "l0": l0, "folder": folder}


@pytest.fixture(scope="module")
def run(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_pairs, tmp_path_factory.mktemp("grid") / "tiny"))


@pytest.fixture(scope="module")
def walked(run: Path) -> dict[str, Any]:
    made = run_grid(run, GRID, Settings(epochs=SHORT))
    return {**made.summary, "path": made.path}


def test_the_best_comes_first_and_each_pair_has_a_front() -> None:
    """By hand: b gains most over its linear map; of pair one, the second is worse and fires more, the third fires less."""
    lines = [line("one", 0.9, 0.10, 8), line("one", 0.8, 0.00, 9), line("one", 0.7, -0.1, 4), line("two", 0.6, 0.2, 8)]
    ranked = rank(lines)
    assert [(one["rank"], one["pair"], one["l0"], one["front"]) for one in ranked] == [
        (1, "two", 8, True), (2, "one", 8, True), (3, "one", 9, False), (4, "one", 4, True)
    ]  # fmt: skip


def test_every_combination_is_trained_and_ranked(run: Path, walked: dict[str, Any]) -> None:
    assert walked["transcoders"] == 4
    folder = Path(walked["path"])
    assert folder == run / "clt" / "grid" / "grid"
    ranked = json.loads((folder / "ranking.json").read_text())
    assert ranked == walked["ranking"]
    assert {(one["pair"], one["expansion_factor"]) for one in ranked} == {
        (pair, factor) for pair in ("clt_L0_to_L2", "clt_L1_to_output") for factor in (2, 4)
    }
    gains = []
    for one in ranked:
        summary = json.loads((folder / one["folder"] / "summary.json").read_text())
        assert one["test"] == summary["transcoder"]["explained_variance"]
        assert one["features"] == 16 * one["expansion_factor"]
        gains.append(summary["validation"]["transcoder"] - summary["validation"]["linear_map"])
    assert gains == sorted(gains, reverse=True)
    table = list(csv.DictReader((folder / "ranking.csv").read_text().splitlines()))
    assert [int(row["rank"]) for row in table] == [1, 2, 3, 4]
    assert [row["folder"] for row in table] == [one["folder"] for one in ranked]
    assert "test less linear (95%)" in module.show(walked)


class KilledError(Exception):
    """Where the process would have ended."""


def test_a_grid_that_was_interrupted_goes_on(
    run: Path, walked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = GridConfig(**{**GRID.model_dump(), "name": "again"})
    begun: list[int] = []
    original = Fit._gradient

    def gradient(self: Fit, *args: Any, **kwargs: Any) -> Any:
        begun.append(self.step)
        if begun.count(0) == 3 and self.step == 7:  # within the third of four
            raise KilledError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Fit, "_gradient", gradient)
    often = Settings(epochs=SHORT.model_copy(update={"checkpoint_seconds": 0.0}))
    with pytest.raises(KilledError):
        run_grid(run, again, often)
    folder = run / "clt" / "grid" / "again"
    assert len(json.loads((folder / "ranking.json").read_text())) == 2  # what is there is ranked already
    monkeypatch.setattr(Fit, "_gradient", original)
    steps: list[int] = []
    monkeypatch.setattr(
        Fit, "_update", lambda self, *a, update=Fit._update: (steps.append(self.step), update(self, *a))
    )
    done = run_grid(run, again, Settings(epochs=SHORT))
    assert steps == [*range(7, 12), *range(12)]  # the third from where it was, then the fourth
    for name in ("ranking.json", "ranking.csv", "grid.json"):
        assert (folder / name).read_bytes() == (Path(walked["path"]) / name).read_bytes()
    assert done.summary["ranking"] == walked["ranking"]


def test_a_grid_grows_and_is_not_mixed(run: Path, walked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((Path(walked["path"]) / "ranking.json").read_text())
    with pytest.raises(ConfigError, match=r"epochs.num_epochs was 2 and is now 3. .* or another --name"):
        run_grid(run, GRID, Settings(epochs=SHORT.model_copy(update={"num_epochs": 3})))
    with pytest.raises(ConfigError, match="transcoder.skip was False and is now True"):
        run_grid(run, GRID, Settings(TranscoderConfig(skip=True), SHORT))
    trained: list[str] = []
    original = module.learn
    monkeypatch.setattr(module, "learn", lambda place, *a: (trained.append(place.name), original(place, *a))[1])
    more = GridConfig(**{**GRID.model_dump(), "pairs": "clt_L0_to_L2", "seeds": "0,1"})
    done = run_grid(run, more, Settings(epochs=SHORT))
    assert trained == ["x2_k0.125", "x2_k0.125_seed1", "x4_k0.125", "x4_k0.125_seed1"]
    kept = {one["folder"]: one["test"] for one in before}
    for one in done.summary["ranking"]:
        assert one["seed"] == 1 or one["test"] == kept[one["folder"]]
    run_grid(run, GRID, Settings(epochs=SHORT))  # as it was, for the tests that follow


def test_what_makes_no_grid_is_refused_before_anything_is_trained(run: Path, tiny_run: Path) -> None:
    def refused(**given: Any) -> None:
        run_grid(run, GridConfig(**{**GRID.model_dump(), "name": "none", **given}), Settings(epochs=SHORT))

    with pytest.raises(DataError, match="there is no pair 'clt_L0_to_L7'"):
        refused(pairs="clt_L0_to_L2,clt_L0_to_L7")
    with pytest.raises(ConfigError, match="'4,x' are no numbers"):
        refused(expansion_factor="4,x")
    with pytest.raises(ConfigError, match="0.5 is no seed"):
        refused(seeds="0.5")
    with pytest.raises(ConfigError, match="there are no pairs to train on"):
        run_grid(tiny_run, GridConfig(), Settings(epochs=SHORT))
    with pytest.raises(ConfigError, match="a grid's sparsity is given by k_ratio"):
        run_grid(run, GRID, Settings(TranscoderConfig(k=3), SHORT))
    with pytest.raises(ConfigError, match="k_ratio = 2"):
        refused(k_ratio="2")
    assert not (run / "clt" / "grid" / "none" / "clt_L0_to_L2").exists()


def test_numbers_are_read_once_each() -> None:
    assert numbers(" 4, 8,4,", where="x") == [4.0, 8.0]
    with pytest.raises(ConfigError, match="'-1' are no numbers from 0 on"):
        numbers("-1", where="x")


def test_the_command_walks_a_grid(run: Path, walked: dict[str, Any]) -> None:
    words = ["routing", "grid", "--run_dir", run, "--pairs", "clt_L0_to_L2,clt_L1_to_output", "--expansion_factor", "2,4",
             "--k_ratio", "0.125", "--num_epochs", "2", "--batch-size", "64", "--device", "cpu"]  # fmt: skip
    done = CliRunner().invoke(elute, [*map(str, words), "--json"], prog_name="elute")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ranking"] == walked["ranking"]
    shown = CliRunner().invoke(elute, [*map(str, words)], prog_name="elute").stdout.splitlines()
    assert shown[3].split()[0].rstrip("*") == "1"


def test_the_script_walks_too_and_passes_on_what_it_is_given(run: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    fake = tmp_path / "fake"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {told}\ncase "$*" in *output*0.25*) exit 1;; esac\n')
    fake.chmod(0o755)
    script = [str(ROOT / "scripts" / "train_clt.sh"), str(run), "--wandb_project", "mine", "--wandb_mode", "offline"]
    asked = {"PAIRS": "clt_L0_to_L2 encoder_layer_1:encoder_output", "K_RATIOS": "0.125 0.25", "ELUTE": str(fake)}
    done = subprocess.run(script, env={**os.environ, **asked}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "error: 1 of the trainings above failed\n"
    lines = told.read_text().splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        f"routing train-transcoder --run_dir {run} --pair clt_L0_to_L2 --expansion_factor 4 --k_ratio 0.125 --seed 0 "
        "--wandb_project mine --wandb_mode offline"
    )
    told.unlink()
    all_pairs = {"ELUTE": str(fake), "LRS": "0.001", "SEEDS": "0 1"}
    env = {k: v for k, v in os.environ.items() if k not in ("PAIRS", "K_RATIOS")} | all_pairs
    done = subprocess.run(script[:2], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = told.read_text().splitlines()
    assert len(lines) == 8  # four pairs, two seeds
    assert all("--lr 0.001" in one for one in lines)
    nothing = subprocess.run([script[0], str(tmp_path)], env=env, capture_output=True, text=True, timeout=60)
    assert nothing.returncode == 1
    assert nothing.stderr.startswith(f"error: {tmp_path}: there are no pairs.")


def test_the_script_trains(run: Path) -> None:
    asked = {"PAIRS": "clt_L0_to_L2", "ELUTE": f"{sys.executable} -m elute", "K_RATIOS": "0.125"}
    words = [str(ROOT / "scripts" / "train_clt.sh"), str(run), "--num_epochs", "1", "--device", "cpu"]
    done = subprocess.run(words, env={**os.environ, **asked}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "linear map" in done.stdout
