"""Transcoders and cross-layer transcoders of a policy: learnt, judged, taken up again, and refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.cli.main import elute, main
from elute.dictionaries.files import NAME, digest, load_dictionary
from elute.dictionaries.terms import TermsConfig
from elute.engine import resume
from elute.engine.fit import Fit
from elute.routing import clt_runs, clt_training, judged, learning
from elute.routing.clt_settings import CltConfig, EpochsConfig, Settings, TranscoderConfig, WandbConfig, pair_named
from elute.routing.clt_training import pair_of, train_clt
from elute.routing.learning import Sites, fit_into, train_transcoder
from elute.routing.pair_rows import PairRows
from elute.routing.pairs import open_pair
from elute.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("one_thread")
PAIR = "clt_L0_to_L2"
SHORT = EpochsConfig(num_epochs=5, batch_size=64, save_freq=2, device="cpu")
TERMS = TermsConfig(l1=1e-3, alignment=0.1, group_lasso=1e-3, heads=4)


def settings(epochs: EpochsConfig = SHORT, terms: TermsConfig | None = None, **made: Any) -> Settings:
    return Settings(TranscoderConfig(**{"expansion_factor": 2, "k": 4, **made}), epochs, terms or TermsConfig())


def content(folder: Path) -> dict[str, bytes]:
    """Every file, to the byte; of dictionaries what they hold, since a ZIP's own bytes may differ."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    dictionaries = {name: digest(load_dictionary(folder / name)).encode() for name in found if name.endswith(".pt")}
    return {**found, **dictionaries}


class KilledError(Exception):
    """Where the process would have ended."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = Fit._gradient

    def gradient(self: Fit, *args: Any, **kwargs: Any) -> Any:
        if self.step == step:
            monkeypatch.setattr(Fit, "_gradient", original)
            raise KilledError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Fit, "_gradient", gradient)


@pytest.fixture(scope="module")
def run(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_pairs, tmp_path_factory.mktemp("learnt") / "tiny"))


@pytest.fixture(scope="module")
def trained(run: Path) -> Path:
    return train_transcoder(run, PAIR, settings()).path


def test_a_folder_holds_what_is_promised(run: Path, trained: Path) -> None:
    names = set(content(trained))
    assert {"config.json", "normalization_stats.json", "metrics.jsonl", "summary.json", "run.json", "config.yaml", NAME,
            "checkpoints/best.pt", "checkpoints/epoch_2.pt", "checkpoints/epoch_4.pt", "checkpoints/epoch_5.pt"} <= names  # fmt: skip
    assert resume.NAME not in names
    assert (trained.parent / "latest").resolve() == trained.resolve()
    assert not (trained.parent / "latest").readlink().is_absolute()  # the run may be moved
    summary = json.loads((trained / "summary.json").read_text())
    width = open_pair(run, PAIR).widths[1]
    assert [len(summary[name]["r2"]["target_encoder_layer_2"]) for name in ("transcoder", "linear_map")] == [width] * 2
    assert summary["less_linear_map"]["instances"] == summary["held_out"]["rows"] / 8
    final = load_dictionary(trained)
    assert digest(final) == digest(load_dictionary(trained / "checkpoints" / "epoch_5.pt")) == summary["dictionary"]
    for time in ("time", "date", str(trained.name)):
        assert not [
            n for n in names if n.endswith((".json", ".jsonl", ".yaml")) and f'"{time}'.encode() in content(trained)[n]
        ]


def test_every_epoch_leaves_its_figures(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert [("histograms" in line) for line in lines] == [False, True, False, True, True]
    for line in lines:
        assert {"loss", "explained_variance", "l0"} <= line["train"].keys()
        assert {"loss", "explained_variance", "cosine", "r2_mean", "r2_min", "l0", "dead"} <= line["validation"].keys()
    assert lines[-1]["validation"]["loss"] < lines[0]["validation"]["loss"]
    frequency = lines[-1]["histograms"]["frequency"]
    features = load_dictionary(trained).n_features
    assert sum(frequency["counts"]) + frequency["never"] == features
    assert frequency["never"] == lines[-1]["validation"]["dead"]
    assert sum(lines[-1]["histograms"]["decoder_length"]["counts"]) == features
    best = max(lines, key=lambda line: line["validation"]["explained_variance"])
    known = load_dictionary(trained / "checkpoints" / "best.pt")
    if best["epoch"] in (2, 4, 5):
        assert digest(known) == digest(load_dictionary(trained / "checkpoints" / f"epoch_{best['epoch']}.pt"))


def test_figures_are_those_of_the_rows(run: Path, trained: Path) -> None:
    """Against numpy: explained variance about the training mean, R² of a dimension, the linear map, and the interval."""
    pair, summary = open_pair(run, PAIR), json.loads((trained / "summary.json").read_text())
    (x, y, _), (x_test, y_test, frame) = (
        (a.double().numpy(), b.double().numpy(), f) for a, b, f in (pair.read("train"), pair.read("test"))
    )
    found = load_dictionary(trained)(torch.from_numpy(x_test).float()).double().numpy()
    solved = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    mapped = np.c_[x_test, np.ones(len(x_test))] @ solved
    spread = ((y_test - y.mean(0)) ** 2).sum(1)
    for name, y_hat in (("transcoder", found), ("linear_map", mapped)):
        told = summary[name]
        assert told["explained_variance"] == pytest.approx(1 - ((y_test - y_hat) ** 2).sum() / spread.sum(), abs=2e-5)
        r2 = 1 - ((y_test - y_hat) ** 2).sum(0) / ((y_test - y_test.mean(0)) ** 2).sum(0)
        np.testing.assert_allclose(told["r2"]["target_encoder_layer_2"], r2, atol=1e-3)
    names = frame["sample_id"].to_numpy()
    each = [
        (((y_test - mapped) ** 2).sum(1)[names == n].sum() - ((y_test - found) ** 2).sum(1)[names == n].sum())
        for n in dict.fromkeys(names)
    ]
    scaled = np.array(each) / (spread.sum() / len(each))
    low, high = stats.ttest_1samp(scaled, 0).confidence_interval()
    less = summary["less_linear_map"]
    assert [less["difference"], less["low"], less["high"]] == pytest.approx([scaled.mean(), low, high], abs=2e-5)
    passed = 1 - ((y_test - x_test) ** 2).sum() / spread.sum()
    assert summary["passed_through"]["explained_variance"] == pytest.approx(passed, abs=1e-5)


def test_what_is_not_linear_is_learnt_beyond_the_linear_map(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 4, generator=random)
    y = (x @ torch.randn(4, 12, generator=random)).relu() @ torch.randn(12, 4, generator=random)
    groups = [f"i{i // 10}" for i in range(3000)]
    split = ["train"] * 2400 + ["validation"] * 300 + ["test"] * 300
    with StoreWriter(tmp_path / "store", sites={"x": 4, "y": 4}) as writer:
        position = np.arange(3000, dtype=np.int32) % 10
        writer.append({"x": x, "y": y}, {"sample_id": groups, "group": groups, "position": position, "split": split})
    found = {}
    for control in ("none", "shuffled-rows"):
        rows = PairRows(tmp_path / "store", methods={"x": "scale", "y": "scale"}, epochs=SHORT)
        told = {"kind": "transcoder", "pair": "p", "settings": {}, "inputs": {}}
        asked = settings(SHORT.model_copy(update={"num_epochs": 20}), control=control)
        found[control] = fit_into(tmp_path / control, rows, told, sites=Sites(("x",), ("y",), 32, 6), settings=asked)
    assert found["none"]["less_linear_map"]["low"] > 0.05
    assert found["shuffled-rows"]["transcoder"]["explained_variance"] < 0.05


@pytest.mark.parametrize("terms", [TermsConfig(), TERMS], ids=["plain", "terms"])
def test_a_kill_changes_no_byte(run: Path, monkeypatch: pytest.MonkeyPatch, terms: TermsConfig) -> None:
    asked = settings(SHORT.model_copy(update={"seed": 3}), terms)
    whole = train_transcoder(run, PAIR, asked).path
    often = Settings(asked.transcoder, asked.epochs.model_copy(update={"checkpoint_seconds": 0.0}), asked.terms)
    kill_at(monkeypatch, 20)  # in the fourth of five epochs, of six steps each
    with pytest.raises(KilledError):
        train_transcoder(run, PAIR, often, anew=True)
    parts = clt_runs.begun(whole.parent)[-1]
    assert parts != whole
    assert (parts / resume.NAME).exists()
    assert (whole.parent / "latest").resolve() == whole.resolve()  # what has not ended is not the latest
    done = train_transcoder(run, PAIR, asked, resume="latest")
    assert done.path == parts
    assert content(parts) == content(whole)
    shutil.rmtree(parts)


def test_the_same_command_uses_what_is_there(run: Path, trained: Path) -> None:
    before = content(trained)
    again = train_transcoder(run, "encoder_layer_0:encoder_layer_2", settings())
    assert again.path == trained
    assert again.summary["reused"]
    assert content(trained) == before
    other = train_transcoder(run, PAIR, settings(k=3))
    assert other.path != trained
    assert other.summary["k"] == 3
    (trained.parent / "latest").unlink()
    clt_runs.point(trained.parent, trained)


def test_refusals_are_one_line(run: Path, trained: Path, tmp_path: Path) -> None:
    known = clt_runs.begun(trained.parent)
    with pytest.raises(DataError, match=r"there is no pair 'clt_L0_to_L9'. Did you mean"):
        train_transcoder(run, "clt_L0_to_L9", settings())
    with pytest.raises(DataError, match="there is no such run"):
        train_transcoder(tmp_path / "nowhere", PAIR, settings())
    with pytest.raises(ConfigError, match=r"transcoder.k was 4 and is now 2. Give the same settings to go on"):
        train_transcoder(run, PAIR, settings(k=2), resume=trained.name)
    with pytest.raises(DataError, match=r"there is no training '2001' to resume"):
        train_transcoder(run, PAIR, settings(), resume="2001")
    with pytest.raises(DataError, match="there is no training to resume"):
        train_transcoder(run, "clt_L1_to_output", settings(), resume="latest")
    with pytest.raises(ConfigError, match=r"k = 40 is more than the 32 features"):
        train_transcoder(run, PAIR, settings(k=40))
    with pytest.raises(ConfigError, match="the 16 columns of 'target_encoder_layer_2' do not fall into 3 heads"):
        train_transcoder(run, PAIR, settings(terms=TermsConfig(group_lasso=1.0, heads=3)))
    assert clt_runs.begun(trained.parent) == known  # none of them left a folder


def test_a_training_without_a_checkpoint_cannot_be_resumed(own_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_at(monkeypatch, 2)
    with pytest.raises(KilledError):
        train_transcoder(own_pairs, PAIR, settings())
    with pytest.raises(ConfigError, match=r"there is no checkpoint to resume from. Leave --resume out"):
        train_transcoder(own_pairs, PAIR, settings(), resume="latest")
    kept = clt_runs.begun(clt_runs.home(own_pairs, PAIR))
    done = train_transcoder(own_pairs, PAIR, settings())
    assert [done.path] == kept  # the same folder, from the start


class Hostile:
    """Leaves a mark if anybody unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_is_never_run(own_pairs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    often = SHORT.model_copy(update={"checkpoint_seconds": 0.0})
    kill_at(monkeypatch, 4)
    with pytest.raises(KilledError):
        train_transcoder(own_pairs, PAIR, settings(often))
    folder = clt_runs.begun(clt_runs.home(own_pairs, PAIR))[0]
    mark = tmp_path / "was-run"
    for old in (True, False):  # a bare pickle, and one in a ZIP
        torch.save(Hostile(mark), folder / resume.NAME, _use_new_zipfile_serialization=not old)
        with pytest.raises(DamagedError, match="is not a whole training checkpoint"):
            train_transcoder(own_pairs, PAIR, settings())
    (folder / resume.NAME).unlink()
    done = train_transcoder(own_pairs, PAIR, settings())
    torch.save(Hostile(mark), done.path / NAME)
    with pytest.raises(DamagedError):
        train_transcoder(own_pairs, PAIR, settings())
    assert not mark.exists()
    assert "reused" not in json.loads((done.path / "summary.json").read_text())


class FakeRun:
    """What is asked of a run at W&B."""

    def __init__(self, told: list[dict[str, Any]], **given: Any) -> None:
        self.told, self.summary = told, SimpleNamespace(update=lambda _: None)
        told.append(given)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self.told.append({"step": step, **values})

    def finish(self, exit_code: int) -> None:
        self.told.append({"exit_code": exit_code})


def test_the_id_at_wandb_is_kept_and_reused(own_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    fake = SimpleNamespace(
        init=lambda **given: FakeRun(told, **given), Settings=lambda **_: None,
        Histogram=lambda np_histogram: ("histogram", *np_histogram),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("elute.engine.tracking.find_spec", lambda _: SimpleNamespace(origin="here"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    asked = settings(SHORT.model_copy(update={"checkpoint_seconds": 0.0}))
    asked = Settings(asked.transcoder, asked.epochs, asked.terms, WandbConfig(wandb_project="mine", log_every=4))
    kill_at(monkeypatch, 20)
    with pytest.raises(KilledError):
        train_transcoder(own_pairs, PAIR, asked)
    done = train_transcoder(own_pairs, PAIR, asked)
    began = [one for one in told if "id" in one]
    assert len(began) == 2
    assert began[0]["id"] == began[1]["id"] == clt_runs.read_config(done.path)["wandb_run_id"]
    assert {one["mode"] for one in began} == {"offline"}
    assert {one["project"] for one in began} == {"mine"}
    logged = [one for one in told if "step" in one]
    assert any("validation_loss" in one for one in logged)
    shown = [one["frequency"] for one in logged if "frequency" in one]
    assert len(shown) == 3  # of the epochs 2, 4 and 5, each once
    assert {part[0] for part in shown} == {"histogram"}


def test_a_plan_of_the_pair_says_how_sparse() -> None:
    made = TranscoderConfig()
    assert made.sized(64, {}) == (256, 16)
    assert made.sized(64, {"k": 5, "expansion_factor": 2}) == (128, 5)
    assert made.sized(64, {"k_ratio": 0.25}) == (256, 64)
    assert TranscoderConfig(k=3).sized(64, {"k_ratio": 0.25}) == (256, 3)
    assert TranscoderConfig(k_ratio=0.5, expansion_factor=1).sized(64, {"k": 5}) == (64, 32)


def test_a_pair_is_named_once() -> None:
    assert pair_named(None, "encoder_layer_0", "encoder_layer_2") == "encoder_layer_0:encoder_layer_2"
    for given, told in (((PAIR, "a", "b"), "are both given"), ((None, "a", None), "no pair is named")):
        with pytest.raises(ConfigError, match=told):
            pair_named(*given)


@pytest.fixture(scope="module")
def crossing(run: Path) -> tuple[Path, dict[str, Any]]:
    made = train_clt(run, CltConfig(k=4, expansion_factor=2, num_instances=60), Settings(epochs=SHORT))
    return made.path, made.summary


def test_a_cross_layer_transcoder_writes_into_every_later_layer(
    run: Path, crossing: tuple[Path, dict[str, Any]]
) -> None:
    folder, summary = crossing
    dictionary = load_dictionary(folder)
    spec = dictionary.spec
    assert spec.kind == "clt"
    assert list(spec.reads) == [f"source_encoder_layer_{i}.mlp.input" for i in range(3)]
    assert list(spec.writes) == [f"target_encoder_layer_{i}.mlp" for i in range(3)]
    assert (spec.activation, spec.settings["tanh"]) == ("jumprelu", 4.0)
    assert [bank.W_dec.shape[1] for bank in dictionary] == [48, 32, 16]
    pair = open_pair(run, pair_of(CltConfig()))
    rows, _ = next(iter(pair.store.batches(50)))
    codes = dictionary.encode(rows)
    features = spec.n_features
    for bank in range(3):
        idx, val = codes.indices, codes.values
        kept = (idx >= bank * features) & (idx < (bank + 1) * features) & (val != 0)
        from elute.base.codes import Codes

        alone = dictionary.decode(Codes(idx, torch.where(kept, val, 0), dictionary.n_features))
        none = dictionary.decode(Codes(idx, torch.zeros_like(val), dictionary.n_features))
        moved = [bool((alone[name] - none[name]).abs().max() > 1e-6) for name in spec.writes]
        assert moved == [layer >= bank and bool(kept.any()) for layer in range(3)]
    told = summary["layers"]
    assert [one["layer"] for one in told] == [f"encoder_layer_{i}.mlp" for i in range(3)]
    assert told[0]["linear_map"] == told[0]["linear_map_of_all_before"]
    assert sum(one["clt_l0"] for one in told) == pytest.approx(summary["l0"], abs=1e-4)
    for number, one in enumerate(told):
        alone = json.loads((folder / f"layer_{number}" / "summary.json").read_text())
        assert one["transcoder"] == alone["transcoder"]["explained_variance"]
        assert load_dictionary(folder / f"layer_{number}").spec.activation == "jumprelu"
    assert json.loads((folder / "beside.json").read_text())["layers"] == told
    assert "cross-layer" in clt_training.show({"path": str(folder), **summary})


def test_a_cross_layer_transcoder_that_was_killed_ends_the_same(
    run: Path, crossing: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CltConfig(k=4, expansion_factor=2, num_instances=60)
    often = Settings(epochs=SHORT.model_copy(update={"checkpoint_seconds": 0.0}))
    kill_at(monkeypatch, 13)
    with pytest.raises(KilledError):
        train_clt(run, config, often, anew=True)
    done = train_clt(run, config, Settings(epochs=SHORT))
    assert done.path != crossing[0]
    assert content(done.path) == content(crossing[0])
    again = train_clt(run, config, Settings(epochs=SHORT))
    assert again.path == done.path
    assert again.summary["reused"]


@pytest.mark.parametrize(("layers", "told"), [("0", "are no layers"), ("a,b", "are no layers"), ("1,0", "Write 0,1")])
def test_layers_that_make_no_sense_are_refused(layers: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        pair_of(CltConfig(layers=layers))


def test_a_layer_that_is_not_there_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="the policy has no layer 'encoder_layer_7.mlp.input'"):
        train_clt(run, CltConfig(layers="0,7", num_instances=60), Settings(epochs=SHORT))


def test_an_interval_needs_two_instances(tmp_path: Path) -> None:
    one = judged.Judged.__new__(judged.Judged)
    one.errors, one.spreads = np.ones(1), np.ones(1)
    with pytest.raises(DataError, match="1 instance is too few for an interval"):
        one.less(one)


def test_the_command_line_takes_both_spellings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["routing", "train_transcoder", "--run_dir", str(run), "--source_key", "encoder_layer_0", "--target-key",
             "encoder_layer_2", "--expansion_factor", "2", "--k_ratio", "0.125", "--num-epochs", "2", "--batch_size", "64",
             "--l1_coef", "0.001", "--tied_weights", "--group-lasso", "0.01", "--group_by", "tokens", "--wandb_mode",
             "disabled", "--clip_grad_norm", "1", "--no_reinit_dead", "--normalize_source", "center", "--json"]  # fmt: skip
    done = CliRunner().invoke(elute, words, prog_name="elute")
    assert done.exit_code == 0, done.output
    held = clt_runs.read_config(Path(json.loads(done.stdout)["path"]))["settings"]
    assert held["terms"]["l1"] == 0.001
    assert held["terms"]["tied"] is True
    assert held["transcoder"]["normalize_source"] == "center"
    assert held["epochs"]["reinit_dead"] is False
    shown = CliRunner().invoke(elute, words[:-1], prog_name="elute").stdout
    assert "already there" in shown
    assert "linear map" in shown
    assert main(["routing", "train-transcoder", "--run-dir", str(run), "--pair", "clt_nothing"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_settings_of_a_run_are_read_back(run: Path, trained: Path) -> None:
    """config.yaml is what --config takes."""
    done = CliRunner().invoke(
        elute, ["routing", "train-transcoder", "--run-dir", str(run), "--pair", PAIR, "--config", str(trained / "config.yaml"),
                "--json"], prog_name="elute"
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["reused"]
    assert Path(answer["path"]) == trained
    assert learning.show(answer)
