"""Rows straight from a model: each once an epoch, in bounded memory, and a killed training with the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.base.contracts import Fingerprint, Site
from elute.base.errors import ConfigError, DataError, GuardError
from elute.dictionaries.files import NAME, load_dictionary
from elute.engine import live as module
from elute.engine import resume
from elute.engine.encode import encode_store
from elute.engine.fit import Fit, FitConfig
from elute.engine.live import LiveRows
from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
from elute.engine.tracking import TrackConfig
from elute.engine.train import Training, train
from elute.store.shuffle import ShuffleConfig
from elute.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("one_thread")
UNITS = 45
LENGTHS = [5 + 3 * (i % 4) for i in range(UNITS)]  # rows of each unit
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
ROWS = int(STARTS[-1])


class Tiny:
    """A model whose data are numbers of units; row j of unit i is a planted row, and says which at site `where`."""

    name = "tiny"

    def __init__(self, width: int = 12, *, declared: bool = True) -> None:
        random = torch.Generator().manual_seed(0)
        codes = torch.relu(torch.randn(ROWS, 32, generator=random) - 1.5)
        self.x = codes @ torch.randn(32, width, generator=random) + 3
        self.weights, self.calls, self.shift = "w1", [], 0.0
        self.sites = {"a": Site("a", width=width if declared else 0), "where": Site("b", width=1 if declared else 0)}

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name, self.weights, "c1", "s1")

    def batches(self, data: Sequence[int], **_: Any) -> Iterator[tuple[Any, pl.DataFrame]]:
        units = list(data)
        for at in range(0, len(units), 3):
            rows = [r for unit in units[at : at + 3] for r in range(STARTS[unit], STARTS[unit + 1])]
            yield rows, pl.DataFrame({"sample_id": [str(r) for r in rows], "row": rows})

    def capture(self, batch: list[int], sites: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        self.calls.append(len(batch))
        index = torch.tensor(batch)
        held = {"a": self.x[index].bfloat16(), "where": index[:, None].float() + self.shift}
        return {name: held[name] for name in sites or held}


def live(model: Any = None, *, sites: Sequence[str] = ("a", "where"), **given: Any) -> LiveRows:
    values = {"n_units": UNITS, "rows": ROWS, "source": {"data": "d1"}, "buffer_rows": 90, "block_units": 4, **given}
    return LiveRows(model or Tiny(), list, sites=sites, **values)


def places(batches: Any) -> list[list[int]]:
    return [batch.rows["where"][:, 0].long().tolist() for batch in batches]


def flat(lists: list[list[int]]) -> list[int]:
    return [n for numbers in lists for n in numbers]


@pytest.mark.parametrize("buffer", [1, 40, 90, 10_000])
@pytest.mark.parametrize("size", [7, 32])
def test_every_row_comes_once_an_epoch(buffer: int, size: int) -> None:
    stream = live(buffer_rows=buffer).shuffled(ShuffleConfig(batch_size=size, epochs=2, seed=1), sites=["a", "where"])
    model = Tiny()
    found = []
    for batch in stream:
        index = batch.rows["where"][:, 0].long()
        assert torch.equal(batch.rows["a"], model.x[index].bfloat16().float()), "sites stay row by row together"
        found.append(index.tolist())
    assert sorted(flat(found)) == sorted(2 * list(range(ROWS)))
    each = -(-ROWS // size)
    assert [len(batch) for batch in found[: each - 1]] == [size] * (each - 1)
    first, second = flat(found[:each]), flat(found[each:])
    assert sorted(first) == list(range(ROWS))
    assert first != second
    assert first != sorted(first)
    whole = live(buffer_rows=buffer).shuffled(ShuffleConfig(batch_size=size, seed=1, drop_last=True), sites=["where"])
    assert places(whole) == found[: ROWS // size]


def test_the_seed_and_the_sizes_decide_the_order() -> None:
    def order(seed: int = 0, **given: Any) -> list[list[int]]:
        return places(live(**given).shuffled(ShuffleConfig(batch_size=16, seed=seed), sites=["where"]))

    assert order() == order()
    ways = [order(), order(1), order(buffer_rows=200), order(block_units=5)]
    assert all(a != b for i, a in enumerate(ways) for b in ways[:i])
    wide = order(buffer_rows=10_000)
    mixed = np.array([np.std(batch) for batch in wide[:-1]]).mean()
    assert mixed > 0.8 * np.arange(ROWS).std(), "one buffer for all rows mixes all of them"


@pytest.mark.parametrize("drop", [True, False])
def test_a_stream_goes_on_from_any_place(drop: bool) -> None:
    config = ShuffleConfig(batch_size=16, epochs=2, seed=5, drop_last=drop)
    whole = places(live().shuffled(config, sites=["where"]))
    for cut in range(len(whole)):
        stream = live().shuffled(config, sites=["where"])
        iterator = iter(stream)
        for _ in range(cut):
            next(iterator)
        kept = json.loads(json.dumps(stream.state()))
        model = Tiny()
        again = live(model).shuffled(config, sites=["where"])
        again.load_state(kept)
        assert again.state() == kept
        resumed = iter(again)
        assert next(resumed).rows["where"][:, 0].long().tolist() == whole[cut]
        assert sum(model.calls) <= 2 * (90 + 4 * max(LENGTHS)), (
            "its round is read again, and the next if it was at its end"
        )
        assert places(resumed) == whole[cut + 1 :]


def test_a_place_in_another_order_is_refused() -> None:
    config = ShuffleConfig(batch_size=16, seed=5)
    state = live().shuffled(config, sites=["where"]).state()
    changed = Tiny()
    changed.weights = "w2"
    others = [
        live(changed), live(buffer_rows=91), live(block_units=5), live(n_units=UNITS - 1), live(source={"data": "d2"}),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(ConfigError, match=r"^model tiny: this stream's order differs"):
            other.shuffled(config, sites=["where"]).load_state(state)
    for given in ({"seed": 6}, {"batch_size": 17}, {"drop_last": True}):
        with pytest.raises(ConfigError, match="order differs"):
            live().shuffled(config.model_copy(update=given), sites=["where"]).load_state(state)


def test_memory_is_that_of_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    original = module.Buffer.add

    def add(self: Any, rows: Any) -> None:
        original(self, rows)
        held.append(max(len(x) for x in self._rows.values()))
        assert self.fill <= 60 + 4 * max(LENGTHS)

    monkeypatch.setattr(module.Buffer, "add", add)
    assert len(places(live(buffer_rows=60).shuffled(ShuffleConfig(batch_size=16, epochs=3), sites=["where"]))) > 80
    assert max(held) <= 1.2 * (60 + 4 * max(LENGTHS)) < ROWS
    # More rows than was thought: the buffer grows, and nothing is lost.
    few = live(rows=20, buffer_rows=60).shuffled(ShuffleConfig(batch_size=16), sites=["where"])
    assert sorted(flat(places(few))) == list(range(ROWS))


def test_rows_that_are_no_numbers_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    model = Tiny()
    model.x[17, 3], model.x[200, 0] = torch.nan, torch.inf
    rows = live(model, keep=lambda frame: frame["row"].to_numpy() % 5 != 0)
    found = places(rows.shuffled(ShuffleConfig(batch_size=16, epochs=2), sites=["a", "where"]))
    assert sorted(set(flat(found))) == [i for i in range(ROWS) if i % 5 and i != 17]
    text = capsys.readouterr().err
    assert text.count("warning: model tiny: ") == text.count("NaN or infinity; such rows are left out") == 1


def settings(**dictionary: Any) -> Training:
    learn = dictionary.pop("learn", {})
    return Training(
        DictionaryConfig(**{"reads": ("a",), "n_features": 40, "k": 2, **dictionary}),
        LearnConfig(**learn),
        FitConfig(steps=40, batch_size=32, lr=8e-3),
        DeadConfig(dead_after_rows=200, resample_every=5),
        TrackConfig(log_every=7),
    )


def content(folder: Path) -> dict[str, bytes]:
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}
    dictionary = load_dictionary(folder)
    state = b"".join(t.numpy().tobytes() for t in dictionary.state_dict().values())
    return found | {NAME: repr(dictionary.spec).encode() + state}


def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = train(live(), tmp_path / "whole", settings())
    original, often = Fit._gradient, settings()
    often = Training(often.dictionary, often.learn, often.fit.model_copy(update={"checkpoint_seconds": 0.0}),
                     often.dead, often.track)  # fmt: skip
    for at in (1, 11, 12, 29, 39):

        def gradient(self: Fit, *args: Any, at: int = at, **kwargs: Any) -> Any:
            if self.step == at:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Fit, "_gradient", gradient)
            train(live(), tmp_path / "cut", often)
        assert (tmp_path / "cut" / resume.NAME).exists()
    again = train(live(), tmp_path / "cut", settings(), must_resume=True)
    assert again.summary == done.summary
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    model = Tiny()
    assert train(live(model), tmp_path / "cut", settings()).summary == {**done.summary, "reused": True}
    assert not model.calls, "what is finished does not run the model"
    record = json.loads((tmp_path / "whole" / "run.json").read_text())["stages"]["train"]
    assert record["inputs"] == {"rows": live().digest[:16]}
    assert record["summary"]["rows"] == 40 * 32
    with pytest.raises(ConfigError, match="rows was"):
        train(live(source={"data": "d2"}), tmp_path / "whole", settings())


def test_what_is_learnt_is_what_a_store_teaches(tmp_path: Path) -> None:
    """With another order of rows, but the same ones: about as much is explained, and nothing of the form differs."""
    model, fingerprint = Tiny(), Tiny().fingerprint()
    with StoreWriter(tmp_path / "store", sites={"a": 12}, model=fingerprint) as writer:
        writer.append({"a": model.x.bfloat16().float()}, {"sample_id": [str(i) for i in range(ROWS)]})
    stored = train(tmp_path / "store", tmp_path / "stored", settings())
    straight = train(live(), tmp_path / "live", settings())
    assert list(stored.summary) == list(straight.summary)
    assert straight.summary["explained_variance"] == pytest.approx(stored.summary["explained_variance"], abs=0.1)
    assert straight.summary["explained_variance"] > 0.4
    assert set(content(tmp_path / "live")) == set(content(tmp_path / "stored"))
    source = load_dictionary(tmp_path / "live").spec.source
    assert source["live"] == live().digest
    assert source["data"] == {"data": "d1"}
    assert encode_store(tmp_path / "live", tmp_path / "store", tmp_path / "codes").summary["rows"] == ROWS
    with StoreWriter(tmp_path / "other", sites={"a": 12}, model=Fingerprint("tiny", "w2", "c1", "s1")) as writer:
        writer.append({"a": model.x}, {"sample_id": [str(i) for i in range(ROWS)]})
    with pytest.raises(GuardError, match="trained on tiny, the rows are from tiny with other weights"):
        encode_store(tmp_path / "live", tmp_path / "other", tmp_path / "codes2")


def test_several_sites_and_widths_that_are_not_declared(tmp_path: Path) -> None:
    rows = live(Tiny(declared=False))
    assert rows.sites == {"a": 12, "where": 1}
    done = train(rows, tmp_path, settings(kind="transcoder", writes=("where",)))
    assert load_dictionary(done.path).spec.writes == {"where": 1}


def one_line(tmp_path: Path, rows: LiveRows, training: Training) -> str:
    with pytest.raises((ConfigError, DataError, GuardError)) as told:
        train(rows, tmp_path / "run", training)
    assert not (tmp_path / "run" / NAME).exists()
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_live_rows_cannot_do(tmp_path: Path) -> None:
    for method in ("standard", "pca"):
        assert one_line(tmp_path, live(), settings(learn={"normalise": method})) == (
            f"model tiny: rows that come straight from a model cannot be normalised by {method}, which is measured on "
            "a store. Capture them into a store first, or normalise by scale or center."
        )
    assert one_line(tmp_path, live(), settings(center_by="token")) == (
        "model tiny: rows that come straight from a model cannot be centred by token, which is measured on a store. "
        "Capture them into a store first, or leave the centring out."
    )
    assert "there is no site 'b'" in one_line(tmp_path, live(), settings(reads=("b",)))
    nothing = live(keep=lambda frame: np.zeros(len(frame), bool))
    assert one_line(tmp_path, nothing, settings()).startswith("model tiny: gave no row")
    scarce = live(keep=lambda frame: frame["row"].to_numpy() < 20)
    assert "20 rows do not fill one batch of 32" in one_line(tmp_path, scarce, settings())
    with pytest.raises(ConfigError, match="block_units = 0"):
        live(block_units=0)
    model = Tiny()
    rows = live(model)
    model.weights = "w2"
    assert "the model's weights changed while a dictionary was trained" in one_line(tmp_path, rows, settings())
    short = Tiny()
    whole = short.capture
    short.capture = lambda batch, sites=None: {k: x[1:] for k, x in whole(batch, sites).items()}  # type: ignore[method-assign]
    with pytest.raises(DataError, match="site 'where' gave"):
        next(iter(live(short).shuffled(ShuffleConfig(batch_size=8), sites=["where"])))


def test_a_model_that_gives_other_rows_after_a_stop() -> None:
    config = ShuffleConfig(batch_size=16)
    stream = live().shuffled(config, sites=["where"])
    next(iter(stream))
    rows = live()
    rows.keep = lambda frame: frame["row"].to_numpy() % 2 == 0
    again = rows.shuffled(config, sites=["where"])
    again.load_state(stream.state())
    with pytest.raises(DataError, match=r"the model gave \d+ rows where it had given \d+\. Start anew\."):
        next(iter(again))


def test_only_the_units_of_the_part_are_asked_for() -> None:
    asked: list[list[int]] = []

    def parts(of: Sequence[int]) -> list[int]:
        asked.append(list(of))
        return [2 * i for i in of]  # say the training cells are those of even number

    rows = LiveRows(Tiny(), parts, n_units=22, sites=["where"], rows=250, source={}, buffer_rows=50, block_units=4)
    found = flat(places(rows.shuffled(ShuffleConfig(batch_size=16), sites=["where"])))
    wanted = [r for unit in range(0, 44, 2) for r in range(STARTS[unit], STARTS[unit + 1])]
    assert sorted(found) == wanted
    assert sorted(flat(asked)) == list(range(22))
    assert all(part == list(range(part[0], part[-1] + 1)) and len(part) <= 4 for part in asked)
