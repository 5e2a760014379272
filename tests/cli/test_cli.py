"""The command line as people type it: spelling, settings, JSON, errors and exit codes."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import elute.cli
from elute.cli.commands import Face
from elute.cli.main import main
from elute.store.reader import Store

MakeStore = Callable[..., Path]


@pytest.fixture(autouse=True)
def _usual_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Face, "debug", False)
    monkeypatch.setattr("elute.base.console._level", 0)
    logging.captureWarnings(capture=False)


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A file of 60 rows, and a table that goes with it."""
    np.save(tmp_path / "x.npy", np.arange(240, dtype=np.float32).reshape(60, 4))
    pl.DataFrame({"cell": [f"c{i}" for i in range(60)], "donor": [f"d{i // 6}" for i in range(60)]}).write_csv(
        tmp_path / "meta.csv"
    )
    return tmp_path / "x.npy"


def run(*words: object) -> int:
    return main([str(w) for w in words])


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert run(*words, "--json") == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "one JSON object, and nothing else, on standard output"
    value: dict[str, object] = json.loads(out)
    return value


def test_import_split_stats_verify_head_report(
    numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    got = answer(capsys, "arrays", "import", numbers, "--output", store, "--metadata", tmp_path / "meta.csv",
                 "--sample-id", "cell", "--group", "donor")  # fmt: skip
    assert (got["rows"], got["sites"], got["reused"]) == (60, {"activations": 4}, False)
    got = answer(capsys, "arrays", "split", store, "--fractions", "train=0.6,test=0.4", "--seed", 3)
    assert got["rows"] == {"train": 36, "test": 24}
    got = answer(capsys, "arrays", "stats", store)
    assert got["sites"] == {"activations": {"rows": 36, "constant": 0}}
    assert answer(capsys, "arrays", "verify", store)["shards"] == 1
    head = answer(capsys, "arrays", "head", store, "--rows", 2, "--split", "train")["head"]
    assert isinstance(head, list)
    assert len(head) == 2
    assert set(head[0]) == {"sample_id", "group", "donor", "split", "activations"}
    assert Path(str(answer(capsys, "arrays", "report", store)["path"])).read_text().startswith("<!doctype html>")


def test_names_may_be_spelt_with_dash_or_underscore(
    numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for spelling in ("--rows-per-shard", "--rows_per_shard"):
        store = tmp_path / spelling
        assert run("arrays", "import", numbers, "--output", store, spelling, "25") == 0
        assert len(Store(store).manifest.shards) == 3
    capsys.readouterr()


def test_file_then_set_then_flag(numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("import: {dtype: fp16, rows_per_shard: 50, site: file}\nsplit: {seed: 9}\n")
    store = tmp_path / "s"
    words = ["arrays", "import", numbers, "--output", store, "--config", tmp_path / "c.yaml"]
    answer(capsys, *words, "--set", "import.rows_per_shard=20", "--set", "import.dtype=bf16", "--dtype", "fp32")
    manifest = Store(store).manifest
    assert (manifest.dtype, manifest.rows_per_shard, manifest.sites) == ("fp32", 20, {"file": 4})
    saved = (store / "config.yaml").read_text()
    assert "rows_per_shard: 20" in saved
    assert run("arrays", "import", numbers, "--output", tmp_path / "again", "--config", store / "config.yaml") == 0
    assert Store(tmp_path / "again").manifest.rows_per_shard == 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import: {dtyp: fp16}\n", "import: unknown key 'dtyp'. Did you mean 'dtype'?"),
        ("imports: {}\n", "unknown section 'imports'. Did you mean 'import' or"),
        ("import: {rows_per_shard: many}\n", "rows_per_shard = 'many'"),
        ("import: {dtype: fp64}\n", "dtype = 'fp64': Input should be 'fp32', 'fp16' or 'bf16'"),
        ("import: {site: a, site: b}\n", "the key 'site' is given twice"),
        ("split: {fractions: {train: 2}}\n", "the shares must be positive and add up to 1"),
    ],
)
def test_a_wrong_setting_is_one_line(
    numbers: Path, tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert run("arrays", "import", numbers, "--output", tmp_path / "s", "--config", tmp_path / "c.yaml") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["arays"], "There is no command 'arays'. Did you mean 'arrays'?"),
        (["arrays", "imprt"], "There is no command 'imprt'. Did you mean 'import' or 'report' or 'export'?"),
        (["arrays", "import"], "Missing argument 'FILES...'"),
        (["arrays", "stats", "x", "--metod", "pca"], "--metod"),
        (["arrays", "stats", "x", "--method", "ica"], "'ica' is not one of"),
        (["arrays", "split", "x", "--fractions", "half"], "write it as train=0.8"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_an_error_is_one_line_and_1_and_debug_shows_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("arrays", "verify", tmp_path / "none") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "there is no store here. `elute arrays import FILE --output STORE` makes one" in err
    from elute.base.errors import DataError

    with pytest.raises(DataError):
        run("arrays", "verify", tmp_path / "none", "--debug")


def test_a_damaged_store_fails_verify(make_store: MakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_store()
    data = bytearray((folder / "00001.safetensors").read_bytes())
    data[-1] ^= 128
    (folder / "00001.safetensors").write_bytes(data)
    assert run("arrays", "verify", folder) == 1
    assert "00001.safetensors was altered: its digest does not match" in capsys.readouterr().err


def test_the_same_import_again_has_nothing_to_do(
    numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "s"
    answer(capsys, "arrays", "import", numbers, "--output", store)
    before = (store / "manifest.json").stat().st_mtime_ns
    assert answer(capsys, "arrays", "import", numbers, "--output", store)["reused"] is True
    assert (store / "manifest.json").stat().st_mtime_ns == before
    np.save(numbers, np.zeros((60, 4), np.float32))
    assert run("arrays", "import", numbers, "--output", store) == 1
    assert (
        "the input 0 x.npy changed. Choose another folder, or write this one anew with --recapture"
        in capsys.readouterr().err
    )
    assert answer(capsys, "arrays", "import", numbers, "--output", store, "--recapture")["reused"] is False
    assert float(Store(store).read()["activations"].abs().sum()) == 0


def test_several_files_become_one_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, start in (("a", 0), ("b", 10)):
        np.save(tmp_path / f"{name}.npy", np.arange(start, start + 10, dtype=np.float32)[:, None])
    np.save(tmp_path / "wide.npy", np.zeros((3, 2)))
    got = answer(capsys, "arrays", "import", tmp_path / "a.npy", tmp_path / "b.npy", "--output", tmp_path / "s")
    assert got["rows"] == 20
    store = Store(tmp_path / "s")
    assert store.read()["activations"][:, 0].tolist() == list(range(20))
    assert store.metadata()["sample_id"].to_list() == [str(i) for i in range(20)]
    assert run("arrays", "import", tmp_path / "a.npy", tmp_path / "wide.npy", "--output", tmp_path / "t") == 1
    assert "wide.npy: holds {'activations': 2}, but a.npy holds {'activations': 1}" in capsys.readouterr().err


def test_quiet_says_nothing_and_verbose_more(numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-q", "arrays", "import", numbers, "--output", tmp_path / "s", "--json") == 0
    assert capsys.readouterr().err == ""


def test_doctor_and_completion(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "very-secret")
    got = answer(capsys, "doctor")
    assert got["keys"]["HF_TOKEN"]["usable"] is True  # type: ignore[index]
    assert "very-secret" not in json.dumps(got)
    for shell in ("bash", "zsh", "fish"):
        assert run("completion", shell) == 0
        assert "_ELUTE_COMPLETE" in capsys.readouterr().out


def test_completion_completes(tmp_path: Path) -> None:
    env = {**os.environ, "_ELUTE_COMPLETE": "bash_complete", "COMP_WORDS": "elute arrays sp", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-m", "elute"], env=env, capture_output=True, text=True, timeout=60)
    assert "split" in done.stdout


def test_a_reader_that_went_away_is_no_error(make_store: MakeStore) -> None:
    command = f"{sys.executable} -m elute arrays head {make_store()} --rows 500 | head -c 10"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert len(done.stdout) == 10


def test_interrupting_says_that_it_goes_on(tmp_path: Path) -> None:
    code = "import sys, time; from elute.cli import main as m; m.elute.main = lambda **_: time.sleep(30); print('up', flush=True); sys.exit(m.main(['x']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "stopped; what was finished is kept, and the same command goes on from there\n"


def test_python_m_elute_is_elute() -> None:
    done = subprocess.run([sys.executable, "-m", "elute", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "elute 0.1.0\n"


@pytest.mark.parametrize("calls", [0, 1, 3, 5])
def test_an_interrupted_import_goes_on(
    numbers: Path, tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from elute.arrays import importing
    from elute.store.writer import StoreWriter

    monkeypatch.setattr(importing, "_PIECE_BYTES", 160)  # ten rows
    words = [
        "arrays",
        "import",
        numbers,
        "--metadata",
        tmp_path / "meta.csv",
        "--sample-id",
        "cell",
        "--rows-per-shard",
        7,
    ]
    assert run(*words, "--output", tmp_path / "whole") == 0
    real, left = StoreWriter.append, [calls]

    def interrupted(self: StoreWriter, *arguments: object) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "append", interrupted)
        assert run(*words, "--output", tmp_path / "s") == 130
    assert run(*words, "--output", tmp_path / "s") == 0
    err = capsys.readouterr().err
    assert (f"going on after {calls * 10} of 60 rows" in err) == (calls > 0)
    files = [
        {p.name: p.read_bytes() for p in (tmp_path / f).iterdir() if not p.name.startswith(".")} for f in ("whole", "s")
    ]
    assert files[0] == files[1]


def test_a_head_without_rows(make_store: MakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "arrays", "head", make_store(), "--rows", 0)["head"] == []


def test_a_command_called_by_itself_says_the_same_of_its_help() -> None:
    import click

    from elute.cli.main import elute
    from elute.cli.reference import walk

    for path, command in walk(elute):
        with command.make_context(path, [], resilient_parsing=True) as context:
            option = command.get_help_option(context)
            assert isinstance(option, click.Option)
            assert option.opts == ["-h", "--help"], path


def test_whoever_says_an_answer_is_there() -> None:
    from elute.cli.commands import imported

    source = "".join(path.read_text() for path in Path(elute.cli.__file__).parent.glob("*.py"))
    named = re.findall(r'show="([\w.:]+)"', source)
    assert len(named) > 20
    assert all(callable(imported(target)) for target in named)
