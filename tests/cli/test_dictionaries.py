"""The commands of dictionaries as people type them: settings from three places, JSON, help and refusals."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from elute.cli.commands import Face
from elute.cli.main import elute, main
from elute.dictionaries.files import load_dictionary
from elute.store.codes import StoredCodes

MakeStore = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ["--n-features", 48, "--k", 2, "--steps", 30, "--batch-size", 64, "--lr", 0.008]


@pytest.fixture(autouse=True)
def _usual_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Face, "debug", False)
    monkeypatch.setattr("elute.base.console._level", 0)
    logging.captureWarnings(capture=False)


def run(*words: object) -> Result:
    return CliRunner().invoke(elute, ["arrays", *map(str, words)], prog_name="elute")


def answer(*words: object) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["arrays", *map(str, words)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    lines = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_from_a_store_to_a_dictionary_and_elsewhere(planted: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    trained = answer("train", "--store", planted, "--output", output, *SMALL)
    assert (trained["kind"], trained["path"]) == ("sae", str(output / "sae_final.pt"))
    assert (trained["features"], trained["steps"], trained["reused"]) == (48, 30, False)
    assert answer("train", "--store", planted, "--output", output, *SMALL) == {**trained, "reused": True}
    coded = answer("encode", "--dictionary", output, "--store", planted, "--output", tmp_path / "codes")
    assert coded == {"kind": "codes", "path": str(tmp_path / "codes"), "rows": 1500, "features": 48, "k": 2}
    assert len(StoredCodes(tmp_path / "codes")) == 1500
    judged = answer("eval", "--dictionary", output, "--store", planted, "--truth", planted / "truth.npy")
    wanted = {"explained_variance", "l0", "dead_fraction", "cosine", "mean_max_cosine", "recovered_fraction", "rows"}
    assert wanted <= judged.keys()
    assert {"explained_variance_pca", "recovered_fraction", "mean_max_cosine"} <= judged["control"].keys()
    assert judged["l0"] == pytest.approx(2, abs=0.01)
    assert json.loads((output / "evaluation.json").read_text())["l0"] == judged["l0"]
    exported = answer("export", "--dictionary", output, "--to", "saelens")
    assert exported["path"] == str(output / "saelens")
    assert answer("export", "--dictionary", output, "--to", "safetensors")["path"].endswith("sae_final.safetensors")
    back = answer(
        "import-dictionary", output / "saelens" / "inference", "--output", tmp_path / "back", "--site", "planted"
    )
    assert (back["features"], back["reads"]) == (48, {"planted": 12})
    again = answer("eval", "--dictionary", tmp_path / "back", "--store", planted)
    assert again["explained_variance"] == pytest.approx(judged["explained_variance"], abs=1e-5)


def test_what_people_read(planted: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = run("train", "--store", planted, "--output", output, *SMALL).stdout
    assert first.startswith(f"{output / 'sae_final.pt'}: 48 features, 1,920 rows\nexplained variance  0.")
    assert (
        run("train", "--store", planted, "--output", output, *SMALL)
        .stdout.splitlines()[0]
        .endswith("(already there, unchanged)")
    )
    text = run("eval", "--dictionary", output, "--store", planted, "--truth", planted / "truth.npy").stdout
    assert [line.split("  ")[0] for line in text.splitlines()[1:]] == [
        "explained variance", "features firing", "dead", "cosine", "redundancy", "recovered", "mean max cosine",
    ]  # fmt: skip
    assert "as many principal directions: 0." in text
    assert "random directions: 0.0000" in text
    text = run("encode", "--dictionary", output, "--store", planted, "--output", tmp_path / "codes").stdout
    assert text == f"{tmp_path / 'codes'}: 1,500 rows, up to 2 of 48 features each\n"


def test_settings_from_a_file_and_overrides(planted: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({
        "dictionary": {"n_features": 48, "k": 2, "activation": "jumprelu", "numbers": {"bandwidth": 0.2}},
        "learn": {"normalise": "center"},
        "fit": {"steps": 12, "batch_size": 64, "lr": 0.001, "seed": 4},
        "dead": {"dead": "none"},
        "eval": {"rows": 100},
    }))  # fmt: skip
    output = tmp_path / "run"
    trained = answer("train", "--store", planted, "--output", output, "--config", recipe, "--set", "fit.lr=0.004",
                     "--set", "fit.seed=5", "--seed", 6, "--tensorboard", "--no-tied")  # fmt: skip
    assert trained["steps"] == 12
    used = json.loads((output / "train_config.json").read_text())
    assert (used["fit"]["lr"], used["fit"]["seed"], used["fit"]["steps"]) == (0.004, 6, 12)
    assert (used["learn"]["normalise"], used["learn"]["tied"]) == ("center", False)
    assert used["dictionary"]["activation"] == "jumprelu"
    assert load_dictionary(output).spec.settings["bandwidth"] == 0.2
    assert answer("eval", "--dictionary", output, "--store", planted, "--config", recipe)["rows"] == 100
    # What a run wrote is a recipe that makes it again.
    assert answer("train", "--store", planted, "--output", output, "--config", output / "config.yaml")["reused"] is True
    done = answer("train", "--store", planted, "--output", tmp_path / "more", *SMALL, "--numbers", "bandwidth=0.3,tanh=2",
                  "--activation", "jumprelu", "--steps", 2)  # fmt: skip
    assert done["steps"] == 2
    assert load_dictionary(tmp_path / "more").spec.settings == {"bandwidth": 0.3, "tanh": 2.0}


def test_refusals_are_one_line(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: object) -> str:
        return refusal(capsys, "train", "--store", planted, "--output", tmp_path / "run", *words)

    assert said(*SMALL, "--k", 49).startswith("error: k = 49 is more than the 48 features")
    assert "lr = 0" in said("--lr", 0)
    assert "unknown key 'lrr'" in said("--set", "fit.lrr=1")
    assert said("--reads", "plantd") == "error: there is no site 'plantd'. Did you mean 'planted'?"
    assert "there is nothing to resume" in said("--resume")
    assert "device" in said("--device", "tpu")
    assert "there is no store here" in refusal(
        capsys, "train", "--store", tmp_path / "no", "--output", tmp_path / "run"
    )
    assert "there is no dictionary" in refusal(capsys, "eval", "--dictionary", tmp_path, "--store", planted)
    assert "there is no dictionary" in refusal(
        capsys, "encode", "--dictionary", tmp_path, "--store", planted, "--output", tmp_path / "c"
    )
    assert "to is missing" in refusal(capsys, "export", "--dictionary", tmp_path)
    done = run("train", "--store", planted, "--output", tmp_path / "run", "--activation-k", 3)
    assert done.exit_code == 2
    done = run("train", "--store", planted, "--output", tmp_path / "run", "--numbers", "bandwidth")
    assert done.exit_code == 2
    assert "name=number" in done.output


def test_other_settings_are_refused_and_anew_starts_over(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--store", planted, "--output", tmp_path / "run", *SMALL]
    answer(*words)
    line = refusal(capsys, *words, "--lr", 0.001)
    assert line == (
        f"error: {tmp_path / 'run'}: fit.lr was 0.008 and is now 0.001. "
        "Give the same settings to go on, --anew to start over, or another --output."
    )
    assert answer(*words, "--lr", 0.001, "--anew")["reused"] is False


@pytest.mark.parametrize(
    ("command", "headings"),
    [
        ("train", ["Options", "What a dictionary reads and writes, and how sparse it is", "How a dictionary is learnt",
                   "How long and how fast to train", "What is done about features that do not fire",
                   "Where the metrics of training go, besides the file that is always written", "Every command"]),
        ("eval", ["Options"]),
        ("encode", ["Options"]),
        ("export", ["Options"]),
        ("import-dictionary", ["Options"]),
    ],
)  # fmt: skip
def test_help_stands_under_headings(command: str, headings: list[str]) -> None:
    text = run(command, "--help").stdout
    found = [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert found == headings
    flags = [word for line in text.splitlines() for word in line.split()[:1] if word.startswith("--")]
    assert len(flags) == len(set(flags)), "no option twice"


def test_every_option_of_every_section_is_there() -> None:
    from elute.cli.dictionaries import TRAINING

    text = run("train", "--help").stdout
    for section in TRAINING.values():
        for name in section.model_fields:
            assert f"--{name.replace('_', '-')}" in text


def test_of_several_processes_one_answers(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("head", planted, "--rows", 1).stdout
    monkeypatch.setenv("RANK", "1")
    assert run("head", planted, "--rows", 1).stdout == ""


def test_a_dictionary_is_not_imported_over_another(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("train", "--store", planted, "--output", tmp_path / "run", *SMALL, "--steps", 2)
    words = ["import-dictionary", tmp_path / "run", "--output", tmp_path / "back"]
    answer(*words)
    line = refusal(capsys, *words)
    assert line.endswith("there is a dictionary already. Give another --output, or delete that file.")
    # What a run wrote is a recipe that the same command reads.
    words[-1] = tmp_path / "again"
    assert answer(*words, "--config", tmp_path / "back" / "config.yaml")["path"] == str(words[-1] / "sae_final.pt")


def test_another_store_is_refused(
    planted: Path, tmp_path: Path, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("train", "--store", planted, "--output", tmp_path / "run", *SMALL, "--steps", 2)
    other = make_store("other", rows=50, sites={"planted": 5})
    for command in (["eval"], ["encode", "--output", tmp_path / "codes"]):
        line = refusal(capsys, *command, "--dictionary", tmp_path / "run", "--store", other)
        assert "site 'planted' is 5 wide, the dictionary knows it as 12" in line
    assert not (tmp_path / "codes").exists()
