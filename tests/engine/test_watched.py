"""Terms, first weights and a watcher in a training: what they do, and that a kill changes no bit of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from elute.base.errors import ConfigError
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import digest, load_dictionary
from elute.dictionaries.terms import TermsConfig
from elute.engine.first_weights import least_squares
from elute.engine.fit import Fit, FitConfig
from elute.engine.given import Stored
from elute.engine.records import Counted
from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
from elute.engine.tracking import TrackConfig
from elute.engine.train import Training, train
from elute.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, WIDTH = 30, 8
ALL = {"l1": 1e-3, "l2": 1e-3, "group_lasso": 1e-3, "heads": 4, "alignment": 0.1, "orthogonality": 0.1, "energy": 0.1}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y follows x through a sharp bend."""
    folder = tmp_path_factory.mktemp("rows")
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1200, WIDTH, generator=random)
    y = (x @ torch.randn(WIDTH, 12, generator=random)).relu() @ torch.randn(12, WIDTH, generator=random)
    with StoreWriter(folder, sites={"x": WIDTH, "y": WIDTH}) as writer:
        writer.append(
            {"x": x, "y": y},
            {"sample_id": [f"s{i // 10}" for i in range(1200)], "group": [f"s{i // 10}" for i in range(1200)],
             "position": torch.arange(1200).remainder(10).int().numpy()},
        )  # fmt: skip
    return folder


def settings(
    terms: TermsConfig | None = None, *, steps: int = STEPS, learn: dict[str, Any] | None = None, **made: Any
) -> Training:
    return Training(
        DictionaryConfig(**{"kind": "transcoder", "reads": ("x",), "writes": ("y",), "n_features": 32, "k": 4, **made}),
        LearnConfig(**(learn or {})),
        FitConfig(steps=steps, batch_size=64, lr=5e-3),
        DeadConfig(dead_after_rows=200, resample_every=5),
        TrackConfig(log_every=7),
        terms,
    )


class Watching:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.sum = 0.0

    def told(self, sums: Mapping[str, float]) -> None:
        self.sum += sums["loss"]

    def after(self, step: int, steps: int, dictionary: Callable[[], Dictionary]) -> None:
        if (step + 1) % 4 == 0 or step + 1 == steps:
            self.seen.append([step, self.sum, digest(dictionary())])

    def figures(self) -> dict[str, float]:
        return {"watched": float(len(self.seen))}

    def histograms(self) -> Mapping[str, Counted]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen, "sum": self.sum}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.seen, self.sum = list(state["seen"]), state["sum"]


class KilledError(Exception):
    """Where the process would have ended."""


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_a_kill_changes_no_bit(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation: str) -> None:
    training = settings(TermsConfig(**ALL), activation=activation)
    whole, parts = Watching(), Watching()
    train(store, tmp_path / "whole", training, watcher=whole)
    original = Fit._gradient

    def gradient(self: Fit, *args: Any, **kwargs: Any) -> Any:
        if self.step == 17:
            raise KilledError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Fit, "_gradient", gradient)
    often = settings(TermsConfig(**ALL), activation=activation)
    often = Training(often.dictionary, often.learn, often.fit.model_copy(update={"checkpoint_seconds": 0.0}),
                     often.dead, often.track, often.terms)  # fmt: skip
    with pytest.raises(KilledError):
        train(store, tmp_path / "parts", often, watcher=Watching())
    monkeypatch.setattr(Fit, "_gradient", original)
    train(store, tmp_path / "parts", training, watcher=parts)
    assert parts.seen == whole.seen
    assert len(whole.seen) == STEPS // 4 + 1
    assert whole.seen[-1][2] == digest(load_dictionary(tmp_path / "whole"))  # what it saw last is what was saved
    for name in ("training_metrics.jsonl", "run.json", "usage.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert digest(load_dictionary(tmp_path / "whole")) == digest(load_dictionary(tmp_path / "parts"))
    assert '"watched": ' in (tmp_path / "whole" / "training_metrics.jsonl").read_text()


def test_without_terms_the_settings_and_the_weights_are_as_ever(store: Path, tmp_path: Path) -> None:
    plain = train(store, tmp_path / "plain", settings())
    watched = train(store, tmp_path / "watched", settings(), watcher=Watching())
    none = train(store, tmp_path / "none", settings(TermsConfig()))
    assert "terms" not in (tmp_path / "plain" / "train_config.json").read_text()
    assert plain.summary["dictionary"] == watched.summary["dictionary"] == none.summary["dictionary"]


@pytest.mark.parametrize("term", ["l2", "group_lasso", "orthogonality", "l1"])
def test_a_price_lowers_what_it_is_on(store: Path, tmp_path: Path, term: str) -> None:
    def of(price: float, name: str) -> float:
        terms = TermsConfig(**{term: price}, heads=4)
        dictionary = load_dictionary(train(store, tmp_path / name, settings(terms, steps=150)).path)
        bank = next(iter(dictionary))
        if term == "l2":
            return float(bank.W_enc.square().sum())
        if term == "group_lasso":
            unit = torch.nn.functional.normalize(bank.W_dec, dim=1)
            return float(unit.reshape(len(unit), 4, -1).norm(dim=2).sum(1).mean())
        if term == "orthogonality":
            unit = torch.nn.functional.normalize(bank.W_dec, dim=1)
            return float((unit @ unit.T).square().mean())
        codes = dictionary.encode(Stored(store, method="none", by=None).store.read(sites=["x"]))
        return float(codes.values.abs().mean())

    price = {"l2": 0.3, "group_lasso": 1.0, "orthogonality": 5.0, "l1": 0.03}[term]
    assert of(price, "priced") < 0.93 * of(0.0, "free")


def test_one_matrix_stays_one(store: Path, tmp_path: Path) -> None:
    """In normalised units; folding then puts each side's own scale into it."""
    learn = {"re_norm_interval": 0, "project": False, "normalise": "center"}
    made = train(store, tmp_path / "tied", settings(TermsConfig(tied=True), learn=learn))
    bank = next(iter(load_dictionary(made.path)))
    torch.testing.assert_close(bank.W_enc, bank.W_dec, rtol=0, atol=0)
    free = next(iter(load_dictionary(train(store, tmp_path / "free", settings(learn=learn)).path)))
    assert not torch.equal(free.W_enc, free.W_dec)
    with pytest.raises(ConfigError, match="one matrix for both sides goes with no control"):
        train(store, tmp_path / "no", settings(TermsConfig(tied=True), learn={"control": "frozen-decoder"}))


def test_least_squares_is_least_squares() -> None:
    random = torch.Generator().manual_seed(3)
    x, y = torch.randn(200, 5, generator=random), torch.randn(200, 3, generator=random)
    x = x + 4
    expected = torch.linalg.lstsq((x - x.mean(0)).double(), (y - y.mean(0)).double()).solution
    torch.testing.assert_close(least_squares(x, y), expected.float(), rtol=1e-4, atol=1e-5)


def test_a_linear_skip_begins_as_the_linear_map(store: Path, tmp_path: Path) -> None:
    """After one step of next to no length, with features that hardly fire, what is left is what the map leaves."""
    terms = TermsConfig(init_method="linear")
    training = settings(terms, steps=1, skip=True, learn={"encoder_scale": 1e-6})
    training = Training(training.dictionary, training.learn, FitConfig(steps=1, batch_size=64, lr=1e-9), training.dead,
                        training.track, terms)  # fmt: skip
    dictionary = load_dictionary(train(store, tmp_path / "skip", training).path)
    rows = Stored(store, method="none", by=None).store.read()
    x, y = (rows[name].double() for name in "xy")
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y)
    best = float((y - torch.cat([x, torch.ones(len(x), 1)], 1) @ solved.solution).square().sum())
    found = float((y - dictionary({"x": x.float()}).double()).square().sum())
    assert found == pytest.approx(best, rel=1e-3)


def test_first_weights_are_what_was_asked_for(store: Path, tmp_path: Path) -> None:
    learn = {"normalise": "center"}
    slow = FitConfig(steps=1, batch_size=64, lr=1e-9)

    def begun(method: Any) -> Any:
        asked = settings(TermsConfig(init_method=method), learn=learn)
        asked = Training(asked.dictionary, asked.learn, slow, DeadConfig(dead="none"), asked.track, asked.terms)
        return next(iter(load_dictionary(train(store, tmp_path / method, asked).path)))

    flipped = begun("transpose")
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(flipped.W_enc, dim=1), flipped.W_dec, rtol=0, atol=1e-5)
    mapped, rows = begun("linear"), Stored(store, method="none", by=None).store.read()
    expected = unit(mapped.W_enc @ least_squares(rows["x"], rows["y"]), dim=1)
    torch.testing.assert_close(mapped.W_dec, expected, rtol=0, atol=1e-3)


def test_a_given_price_rises(store: Path, tmp_path: Path) -> None:
    """At step 0 of 30 that warm up over all, a price of 0.3 counts a thirtieth."""
    learn = {"penalty": 0.3}
    one = train(store, tmp_path / "flat", settings(TermsConfig(), activation="relu", learn=learn, steps=STEPS))
    two = train(
        store,
        tmp_path / "risen",
        settings(TermsConfig(penalty_warmup=1.0), activation="relu", learn=learn, steps=STEPS),
    )
    lines = [(Path(p.path).parent / "training_metrics.jsonl").read_text().splitlines()[0] for p in (one, two)]
    first = [json.loads(line) for line in lines]
    # The first record is of one step: the same error, and the penalty 30 times smaller.
    error = 1 - first[0]["explained_variance"]
    assert first[0]["explained_variance"] == pytest.approx(first[1]["explained_variance"])
    assert (first[0]["loss"] - error) > 5 * abs(first[1]["loss"] - error)


def test_a_histogram_is_told_to_trackers_as_they_take_it() -> None:
    told = Counted((0.0, 1.0, 3.0), (2, 5)).raw()
    assert told == {"min": 0.0, "max": 3.0, "num": 7, "sum": 0.5 * 2 + 2 * 5, "sum_squares": 0.25 * 2 + 4 * 5,
                    "bucket_limits": [1.0, 3.0], "bucket_counts": [2, 5]}  # fmt: skip
