"""From a store to a dictionary: kinds of dictionaries, resumed to the same bits, and every store that cannot be learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.base.errors import BusyError, ConfigError, DataError
from elute.dictionaries.files import NAME, load_dictionary
from elute.engine import resume
from elute.engine import train as module
from elute.engine.fit import Fit, FitConfig
from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
from elute.engine.tracking import TrackConfig
from elute.engine.train import Training, train
from elute.store.reader import Store
from elute.store.scaling import StatsConfig, measure
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 24
KEPT = {
    NAME,
    "usage.parquet",
    "training_metrics.json",
    "training_metrics.jsonl",
    "run.json",
    "config.yaml",
    "train_config.json",
}


def write(folder: Path, rows: dict[str, torch.Tensor], groups: int = 10, **settings: Any) -> Path:
    n = len(next(iter(rows.values())))
    with StoreWriter(
        folder, sites={name: x.shape[1] for name, x in rows.items()}, rows_per_shard=200, **settings
    ) as writer:
        writer.append(
            rows, {"sample_id": [f"s{i}" for i in range(n)], "group": [f"g{i * groups // n}" for i in range(n)]}
        )
    return folder


def normal(n: int, *widths: int, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, w, generator=random) for name, w in zip("abc", widths, strict=False)}


def settings(*, dictionary: dict[str, Any] | None = None, learn: dict[str, Any] | None = None,
             fit: dict[str, Any] | None = None, dead: dict[str, Any] | None = None) -> Training:  # fmt: skip
    return Training(
        DictionaryConfig(**{"n_features": 40, "k": 2, **(dictionary or {})}),
        LearnConfig(**(learn or {})),
        FitConfig(**{"steps": STEPS, "batch_size": 64, "lr": 8e-3, **(fit or {})}),
        DeadConfig(**{"dead_after_rows": 200, "resample_every": 5, **(dead or {})}),
        TrackConfig(log_every=5),
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file, to the byte; of the dictionary what it holds, since a ZIP's own bytes may differ."""
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}
    dictionary = load_dictionary(folder)
    found[NAME] = repr(dictionary.spec).encode() + b"".join(
        t.numpy().tobytes() for t in dictionary.state_dict().values()
    )
    return found


class KilledError(Exception):
    """Where the process would have ended."""


def cut(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], None]:
    """Let a training die after so many steps, the last checkpoint just written; returns what undoes that."""
    original = Fit._gradient

    def gradient(self: Fit, *args: Any, **kwargs: Any) -> Any:
        if self.step == at:
            raise KilledError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Fit, "_gradient", gradient)
    return lambda: monkeypatch.setattr(Fit, "_gradient", original)


def kill(folder: Path, output: Path, training: Training, monkeypatch: pytest.MonkeyPatch, *, at: int) -> None:
    often = training.fit.model_copy(update={"checkpoint_seconds": 0.0})
    mend = cut(monkeypatch, at)
    with pytest.raises(KilledError):
        train(folder, output, Training(training.dictionary, training.learn, often, training.dead, training.track))
    mend()
    assert (output / resume.NAME).exists()


WAYS = {
    "topk": settings(),
    "batchtopk": settings(dictionary={"activation": "batchtopk"}),
    "jumprelu": settings(dictionary={"activation": "jumprelu"}),
    "auxk": settings(dead={"dead": "both"}),
    "ema": settings(fit={"ema": 0.9}),
    "accumulate": settings(fit={"accumulate": 3, "batch_size": 32}),
    "sparse-adam": settings(fit={"optimizer": "sparse-adam"}, dictionary={"activation": "gated"}),
    "pursuit": settings(fit={"ema": 0.9}, dictionary={"activation": "matching-pursuit"}),
    "frozen": settings(learn={"control": "frozen-decoder", "normalise": "pca"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_killed_ends_with_the_same_bits(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    training = WAYS[way]
    done = train(planted, tmp_path / "whole", training)
    assert set(content(tmp_path / "whole")) == KEPT
    for at in (11, STEPS - 1):
        kill(planted, tmp_path / "cut", training, monkeypatch, at=at)
    again = train(planted, tmp_path / "cut", training, must_resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert again.summary == done.summary
    if way == "pursuit":
        bank = next(iter(load_dictionary(tmp_path / "cut")))
        ratio = bank.W_enc / bank.W_dec
        torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio.median())), rtol=1e-3, atol=0)


def test_killed_between_the_last_step_and_the_end(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last checkpoint there are the files and the record to write; each may be the last thing done."""
    training = settings()
    train(planted, tmp_path / "whole", training)
    wanted = content(tmp_path / "whole")
    often = Training(training.dictionary, training.learn, training.fit.model_copy(update={"checkpoint_seconds": 0.0}),
                     training.dead, training.track)  # fmt: skip

    def die(*_: Any, **__: Any) -> Any:
        raise KilledError

    for name in ("fold", "save_dictionary", "_save", "run.record"):
        output = tmp_path / name
        with monkeypatch.context() as patched:
            patched.setattr(f"elute.engine.train.{name}", die)
            with pytest.raises(KilledError):
                train(planted, output, often)
        assert (output / resume.NAME).exists()
        assert train(planted, output, training).summary["reused"] is False
        assert content(output) == wanted, name
    # The record is written, the checkpoint not yet taken away.
    (tmp_path / "whole" / resume.NAME).write_bytes(b"")
    assert train(planted, tmp_path / "whole", training).summary["reused"] is True


def test_a_finished_run_is_used_as_it_is(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, output = settings(), tmp_path / "run"
    first = train(planted, output, training)
    assert first.summary["reused"] is False
    before = content(output)
    mend = cut(monkeypatch, 0)
    for must in (False, True):
        again = train(planted, output, training, must_resume=must)
        assert again.summary == {**first.summary, "reused": True}
    # Where it is computed, and how often it is kept or logged, is no other training.
    elsewhere = Training(training.dictionary, LearnConfig(device="cpu"), training.fit.model_copy(update={"checkpoint_seconds": 1.0}),
                         training.dead, TrackConfig(log_every=1))  # fmt: skip
    assert train(planted, output, elsewhere).summary["reused"] is True
    assert content(output) == before
    with pytest.raises(KilledError):
        train(planted, output, training, anew=True)
    mend()
    assert train(planted, output, training, anew=True).summary == first.summary
    assert content(output) == before
    # A dictionary that is not what was written is trained anew, and never used.
    other = load_dictionary(output)
    with torch.no_grad():
        other.b_dec += 1
    from elute.dictionaries.files import save_dictionary

    save_dictionary(other, output / NAME)
    assert train(planted, output, training).summary == first.summary
    assert content(output) == before


def test_other_settings_are_not_mixed_with_what_is_there(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    kill(planted, output, settings(), monkeypatch, at=9)
    others = [
        (settings(fit={"lr": 1e-3}), r"fit\.lr was 0\.008 and is now 0\.001"),
        (settings(dictionary={"n_features": 41}), r"dictionary\.n_features was 40 and is now 41"),
        (settings(learn={"normalise": "center"}), r"learn\.normalise was 'scale' and is now 'center'"),
        (settings(dead={"dead": "auxk"}), r"dead\.dead was 'resample' and is now 'auxk'"),
    ]
    for training, words in others:
        with pytest.raises(
            ConfigError, match=words + r"\. Give the same settings to go on, --anew to start over, or another --output"
        ):
            train(planted, output, training)
    other = write(tmp_path / "other", normal(300, 12))
    with pytest.raises(ConfigError, match=r"rows was .*; store was '\w+' and is now"):
        train(other, output, settings())
    train(planted, output, settings())
    before = content(output)
    for training, words in others:
        with pytest.raises(ConfigError, match=words):
            train(planted, output, training)
    assert content(output) == before, "what is finished is not written over"
    # Begun anew with other settings, killed, and gone on with.
    kill_anew = settings(fit={"lr": 1e-3, "checkpoint_seconds": 0})
    mend = cut(monkeypatch, 5)
    with pytest.raises(KilledError):
        train(planted, output, kill_anew, anew=True)
    mend()
    assert train(planted, output, settings()).summary["reused"] is True, "the old one is still there"
    assert (output / resume.NAME).exists()
    assert train(planted, output, kill_anew, must_resume=True).summary["reused"] is False
    assert json.loads((output / "train_config.json").read_text())["fit"]["lr"] == 1e-3
    assert set(content(output)) == KEPT


def test_a_store_that_has_changed_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, output = write(tmp_path / "store", normal(400, 8)), tmp_path / "run"
    kill(folder, output, settings(), monkeypatch, at=3)
    split_store(folder, SplitConfig(fractions={"train": 0.5, "test": 0.5}))
    with pytest.raises(ConfigError, match=r"rows was '\w+' and is now '\w+'"):
        train(folder, output, settings())
    train(folder, tmp_path / "split", settings())
    split_store(folder, SplitConfig(fractions={"train": 0.5, "test": 0.5}, seed=1))
    with pytest.raises(ConfigError, match=r"rows was"):
        train(folder, tmp_path / "split", settings())
    standard = settings(learn={"normalise": "standard"})
    kill(folder, tmp_path / "scaled", standard, monkeypatch, at=3)
    measure(folder, StatsConfig(split="test"))
    with pytest.raises(ConfigError, match=r"scaling was '\w+' and is now '\w+'"):
        train(folder, tmp_path / "scaled", standard)


def test_resume_with_nothing_there(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        train(planted, tmp_path / "run", settings(), must_resume=True)
    assert str(told.value) == f"{tmp_path / 'run'}: there is nothing to resume. Leave --resume out to start."
    assert not (tmp_path / "run").exists(), "nothing is left behind"


def test_a_damaged_checkpoint(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(planted, tmp_path, settings(), monkeypatch, at=3)
    path = tmp_path / resume.NAME
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        DataError, match=r"checkpoint\.pt: is not a whole training checkpoint\. Start over with --anew\.$"
    ):
        train(planted, tmp_path, settings())
    assert train(planted, tmp_path, settings(), anew=True).summary["steps"] == STEPS


def test_two_at_once(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Fit._gradient

    def gradient(self: Fit, *args: Any, **kwargs: Any) -> Any:
        if self.step == 2:
            with pytest.raises(BusyError, match="is writing here"):
                train(planted, tmp_path / "run", settings())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Fit, "_gradient", gradient)
    train(planted, tmp_path / "run", settings())


def test_what_a_run_leaves(planted: Path, tmp_path: Path) -> None:
    done = train(planted, tmp_path, settings())
    assert set(content(tmp_path)) == KEPT
    summary = done.summary
    assert (summary["kind"], summary["features"], summary["steps"], summary["rows"]) == ("sae", 40, STEPS, STEPS * 64)
    record = json.loads((tmp_path / "run.json").read_text())["stages"]["train"]
    assert record["summary"] == {k: v for k, v in summary.items() if k != "reused"}
    assert record["inputs"]["store"] == Store(planted).manifest.store
    usage = pl.read_parquet(tmp_path / "usage.parquet")
    assert usage.height == 40
    assert usage["frequency"].sum() == pytest.approx(2, abs=0.05)
    assert (usage["first_step"] < 0).sum() == summary["never_fired"]
    metrics = json.loads((tmp_path / "training_metrics.json").read_text())
    assert metrics["history"]["step"] == [0, 5, 10, 15, 20, 23]
    assert metrics["final"]["explained_variance"] == summary["explained_variance"]
    dictionary = load_dictionary(tmp_path)
    assert dictionary.spec.source["store"] == Store(planted).manifest.store
    assert done.path == tmp_path / NAME


@pytest.mark.parametrize("normalise", ["scale", "center", "standard", "pca", "none"])
def test_what_is_saved_takes_raw_rows(planted: Path, tmp_path: Path, normalise: str) -> None:
    """The figures of training, on normalised rows, are those of the folded dictionary on raw ones, near the end."""
    training = settings(learn={"normalise": normalise}, fit={"steps": 60, "decay": 1})
    done = train(planted, tmp_path, training)
    (planted / "embed_stats.json").unlink(missing_ok=True)
    x = Store(planted).read()["planted"]
    y = load_dictionary(tmp_path)(x)
    explained = 1 - (x - y).square().sum() / (x - x.mean(0)).square().sum()
    # Whitened, other directions count in training than in raw rows.
    room = 0.25 if normalise == "pca" else 0.06
    assert float(explained) == pytest.approx(done.summary["explained_variance"], abs=room)
    assert explained > 0.2


@pytest.mark.parametrize(
    ("kind", "given", "banks"),
    [
        ("transcoder", {"reads": ("a",), "writes": ("b",)}, 1),
        ("transcoder", {"reads": ("a",), "writes": ("b",), "skip": True}, 1),
        ("crosscoder", {}, 1),
        ("crosscoder", {"reads": ("a", "c"), "activation": "relu"}, 1),
        ("clt", {}, 3),
        ("clt", {"reads": ("a", "b"), "writes": ("b", "c"), "activation": "jumprelu"}, 2),
    ],
)
def test_other_kinds_from_end_to_end(
    tmp_path: Path, kind: str, given: dict[str, Any], banks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = normal(400, 8, 8, 6)
    rows["b"] = rows["a"] @ torch.randn(8, 8, generator=torch.Generator().manual_seed(1)) + 3
    rows["c"] = rows["b"][:, :6].tanh() + 0.5 * rows["c"]
    folder = write(tmp_path / "store", rows)
    training = settings(dictionary={"kind": kind, "n_features": 64, "k": 6, **given}, fit={"steps": 80})
    done = train(folder, tmp_path / "whole", training)
    assert done.summary["features"] == 64 * banks
    dictionary = load_dictionary(tmp_path / "whole")
    assert dictionary.spec.kind == kind
    y = dictionary({name: rows[name] for name in dictionary.spec.reads})
    y = y if isinstance(y, dict) else {next(iter(dictionary.spec.writes)): y}
    for name in dictionary.spec.writes:
        left = (rows[name] - y[name]).square().sum() / (rows[name] - rows[name].mean(0)).square().sum()
        assert left < 0.8, name
    kill(folder, tmp_path / "cut", training, monkeypatch, at=40)
    train(folder, tmp_path / "cut", training)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_features_if_none_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "store", normal(100, 4, 6))
    for kind, n in (("crosscoder", 80), ("clt", 48), ("transcoder", 32)):
        spec = train(folder, tmp_path / kind, settings(dictionary={"kind": kind, "n_features": None}, fit={"steps": 1}))
        assert load_dictionary(spec.path).spec.n_features == n


def test_the_split_named_train_is_used_alone(tmp_path: Path) -> None:
    x = normal(400, 8)["a"]
    folder = write(tmp_path / "store", {"a": x})
    split_store(folder, SplitConfig(fractions={"train": 0.5, "test": 0.5}))
    kept = Store(folder).metadata(columns=["split"])["split"].to_numpy() == "train"
    alone = write(tmp_path / "alone", {"a": x[torch.from_numpy(kept)]})
    both = [
        load_dictionary(
            train(
                f, tmp_path / f"run-{f.name}", settings(fit={"batch_size": 200, "steps": 4}, dead={"dead": "none"})
            ).path
        )
        for f in (folder, alone)
    ]
    # One batch an epoch: the same rows in another order, which rounding alone tells apart.
    for p, q in zip(both[0].parameters(), both[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-2)
    spoilt = x.clone()
    spoilt[torch.from_numpy(~kept)] *= 1000
    other = write(tmp_path / "spoilt", {"a": spoilt})
    split_store(other, SplitConfig(fractions={"train": 0.5, "test": 0.5}))
    same = train(other, tmp_path / "run-spoilt", settings(fit={"batch_size": 200, "steps": 4}, dead={"dead": "none"}))
    for p, q in zip(both[0].parameters(), load_dictionary(same.path).parameters(), strict=True):
        assert torch.equal(p, q), "rows of other splits are not seen"


def test_fewer_rows_than_a_batch(tmp_path: Path) -> None:
    folder = write(tmp_path / "store", normal(10, 8))
    done = train(folder, tmp_path / "run", settings(fit={"steps": 3, "accumulate": 2}))
    assert done.summary["rows"] == 3 * 10 * 2
    assert pl.read_parquet(tmp_path / "run" / "usage.parquet")["frequency"].sum() == pytest.approx(2, abs=0.1)


def one_line(folder: Path, output: Path, training: Training) -> str:
    with pytest.raises((DataError, ConfigError)) as told:
        train(folder, output, training)
    text = str(told.value)
    assert "\n" not in text
    assert not (output / NAME).exists()
    return text


@pytest.mark.parametrize("normalise", ["scale", "standard", "pca", "none"])
def test_rows_that_cannot_be_learnt(tmp_path: Path, normalise: str) -> None:
    training, output = settings(learn={"normalise": normalise}), tmp_path / "run"
    one = write(tmp_path / "one", normal(1, 8))
    assert one_line(one, output, training) == f"{one}: 1 row is too few to train on"
    flat = write(tmp_path / "flat", {"a": torch.full((60, 8), 2.5)})
    text = one_line(flat, output, training)
    assert "does not vary" in text or "no dimension varies" in text
    partly = normal(300, 8)
    partly["a"][:, 3:] = 7.0
    done = train(write(tmp_path / "partly", partly), tmp_path / "fine", training)
    dictionary = load_dictionary(done.path)
    assert np.isfinite(done.summary["explained_variance"])
    y = dictionary(partly["a"])
    assert (y[:, 3:] - 7).abs().max() < 1, "far from where they would be if divided by nothing"


def test_settings_that_do_not_fit_the_store(tmp_path: Path) -> None:
    folder, output = write(tmp_path / "store", normal(100, 8, 6)), tmp_path / "run"

    def said(fit: dict[str, Any] | None = None, learn: dict[str, Any] | None = None, **dictionary: Any) -> str:
        text = one_line(folder, output, settings(dictionary=dictionary, fit=fit, learn=learn))
        assert not output.exists(), "nothing is left behind"
        return text

    assert said().startswith("there are several sites (a, b). Say which one a sae reads: --reads NAME")
    assert said(reads=("layer",)) == "there is no site 'layer'. There are: a, b."
    assert said(reads=("A",)) == "there is no site 'A'. Did you mean 'a'?"
    assert said(reads=("a",), k=41).startswith("k = 41 is more than the 40 features")
    assert said(reads=("a",), learn={"k_start": 41}).startswith("k_start = 41 is more than the 40 features")
    assert "Did you mean 'topk'?" in said(reads=("a",), activation="topq")
    assert "no setting 'width'" in said(reads=("a",), numbers={"width": 1.0}, activation="jumprelu")
    assert "nested" in said(reads=("a",), nested=9)
    assert "reads as many sites as it writes" in said(kind="clt", reads=("a",))
    assert "crosscoder" in said(kind="crosscoder", reads=("a",))
    assert "linear skip" in said(reads=("a",), skip=True)
    assert said(reads=("a",), fit={"rows": 5}).startswith("steps and rows are both given")
    assert "transcoder" in said(kind="transcoder", reads=("a", "b"), writes=("b",))


def test_the_loss_turns_nan(tmp_path: Path) -> None:
    folder = write(tmp_path / "store", normal(200, 8))
    text = one_line(folder, tmp_path / "run", settings(fit={"lr": 1e30, "clip": 0, "checkpoint_seconds": 0}))
    assert "the loss is no longer a number at step" in text
    assert "Try a lower --lr" in text
    rows = normal(200, 8)
    rows["a"][20] = torch.inf
    text = one_line(write(tmp_path / "inf", rows, bad_rows="keep"), tmp_path / "inf-run", settings())
    assert "rows of site 'a' hold NaN or infinity" in text


def test_the_seed_decides(planted: Path, tmp_path: Path) -> None:
    runs = [
        content(train(planted, tmp_path / str(i), settings(fit={"seed": seed, "steps": 5})).path.parent)
        for i, seed in enumerate((1, 1, 2))
    ]
    assert runs[0] == runs[1]
    assert runs[0][NAME] != runs[2][NAME]


def test_the_module_says_which_files_there_are() -> None:
    text = module.__doc__ or ""
    assert all(name in text for name in KEPT - {"training_metrics.jsonl"})
    assert resume.NAME in text
