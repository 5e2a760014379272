"""Seven things that public implementations of this plan got wrong, a test each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from elute.base.contracts import Site
from elute.base.errors import SiteError
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import digest, load_dictionary
from elute.dictionaries.folding import Affine
from elute.dictionaries.spec import DictionarySpec
from elute.engine import normalise
from elute.engine import train as trainer
from elute.engine.begin import begin, centre
from elute.engine.objective import DictionaryObjective
from elute.engine.optimizers import Adam
from elute.engine.parallel import Ranks
from elute.engine.settings import DeadConfig, LearnConfig
from elute.models import sites
from elute.models.routing_policy import load
from elute.routing import clt_runs, pair_rows
from elute.routing.clt_settings import EpochsConfig, Settings, TranscoderConfig
from elute.routing.learning import Sites as Asked
from elute.routing.learning import fit_into, train_transcoder
from elute.routing.pair_rows import STATISTICS, PairRows
from elute.routing.pairs import open_pair
from elute.store import settle, window
from elute.store.reader import Store
from elute.store.shuffle import ShuffleConfig
from elute.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("one_thread")
PAIR, K = "clt_L0_to_L2", 5
SHORT = EpochsConfig(num_epochs=3, batch_size=64, save_freq=2, device="cpu")


def settings(epochs: EpochsConfig = SHORT, **made: Any) -> Settings:
    return Settings(TranscoderConfig(**{"expansion_factor": 2, "k": K, **made}), epochs)


@pytest.fixture(scope="module")
def trained(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with a transcoder, and the transcoder's folder."""
    run = Path(shutil.copytree(tiny_pairs, tmp_path_factory.mktemp("trained") / "tiny"))
    return run, train_transcoder(run, PAIR, settings()).path


def test_1_exactly_k_fire_and_nothing_that_is_negative(trained: tuple[Path, Path]) -> None:
    run, folder = trained
    dictionary, pair = load_dictionary(folder), open_pair(run, PAIR)
    x, _, _ = pair.read()
    bank = next(iter(dictionary))
    pre = x.double().numpy() @ bank.W_enc.double().numpy().T + bank.b_enc.double().numpy()
    codes = dictionary.encode(x)
    fired = (codes.values != 0).sum(1).numpy()
    # Rows in which two candidates are as good as equal may go either way; there are none to speak of.
    assert np.array_equal(fired, np.minimum(K, (pre > 1e-6).sum(1)))
    assert (fired == K).mean() > 0.9
    assert float(codes.values.min()) >= 0
    for row in range(0, len(x), 7):
        kept = codes.values[row] != 0
        ours = set(codes.indices[row][kept].tolist())
        best = np.argsort(-pre[row])[:K]
        assert ours == {int(f) for f in best if pre[row, f] > 0}
        values = dict(zip(codes.indices[row][kept].tolist(), codes.values[row][kept].tolist(), strict=True))
        assert all(values[f] == pytest.approx(pre[row, f], rel=1e-3, abs=1e-5) for f in values)


def test_1_where_fewer_than_k_are_positive_fewer_fire() -> None:
    """Rows and weights by hand: pre-activations (3, 1, −2, −5) and (−1, −1, −1, −1), k = 3."""
    spec = DictionarySpec(kind="transcoder", reads={"x": 4}, writes={"y": 4}, n_features=4, k=3)
    dictionary = Dictionary(spec).requires_grad_(requires_grad=False)
    bank = next(iter(dictionary))
    bank.W_enc.copy_(torch.eye(4))
    bank.W_dec.copy_(torch.eye(4))
    x = torch.tensor([[3.0, 1.0, -2.0, -5.0], [-1.0, -1.0, -1.0, -1.0]])
    codes = dictionary.encode(x)
    assert (codes.values != 0).sum(1).tolist() == [2, 0]
    assert torch.equal(dictionary.decode(codes), torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0] * 4]))
    dense, _ = dictionary.sparsity.dense(bank, x, 3)  # the way that a training with terms goes
    assert torch.equal(dense, torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0] * 4]))


@pytest.mark.parametrize("tied", [False, True])
def test_2_beginning_dead_features_anew_changes_their_weights(tied: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, 6, generator=random), torch.randn(256, 6, generator=random)
    spec = DictionarySpec(kind="transcoder", reads={"x": 6}, writes={"y": 6}, n_features=16, k=2)
    learn = LearnConfig(normalise="none")
    dictionary = begin(spec, learn, seed=0)
    mean, spread = centre(dictionary, {"x": x, "y": y}, learn)
    bank = next(iter(dictionary))
    if tied:
        bank.W_enc = bank.W_dec
    dead = torch.tensor([1, 7, 12])
    with torch.no_grad():
        bank.b_enc[dead] = -1e6  # nothing makes them fire
    ones = torch.ones(6)
    objective = DictionaryObjective(
        dictionary, learn=learn, dead=DeadConfig(dead_after_rows=512, resample_every=4, resample_until=1.0),
        by={name: Affine(torch.zeros(6), ones, ones) for name in "xy"}, mean=mean, spread=spread, ranks=Ranks(),
        seed=0, steps=100, rows_per_step=256,
    )  # fmt: skip
    adam = Adam(objective.learnt)
    before = bank.W_dec.detach().clone(), bank.W_enc.detach().clone()
    for step in range(4):
        objective.gradient({"x": x, "y": y}, step=step, total_rows=256)
        adam.step(0.0)  # no update: what changes is changed by the new beginning alone
        objective.after(step, 100, adam)
        assert torch.allclose(bank.W_dec, before[0], atol=1e-6)
    objective.gradient({"x": x, "y": y}, step=4, total_rows=256)
    adam.step(0.0)
    objective.after(4, 100, adam)
    changed = (bank.W_dec.detach() - before[0]).norm(dim=1) > 0.1
    assert changed.nonzero()[:, 0].tolist() == dead.tolist()
    assert ((bank.W_enc.detach() - before[1]).norm(dim=1) > 0.05).nonzero()[:, 0].tolist() == dead.tolist()
    assert torch.equal(bank.b_enc[dead], torch.zeros(3))
    name = "banks.0.W_enc"  # where one matrix does both, it has one name
    assert not adam.first[name][dead].any()
    assert objective.dictionary.encode(x).indices.unique().tolist() == sorted(
        set(objective.dictionary.encode(x).indices.unique().tolist()) | set(dead.tolist())
    )  # they fire again


@pytest.mark.parametrize(
    "epochs", [SHORT, EpochsConfig(val_ratio=0.3), EpochsConfig(max_samples=100), EpochsConfig(val_ratio=0.2, seed=3)]
)
def test_3_no_instance_lies_in_two_splits(tiny_pairs: Path, epochs: EpochsConfig) -> None:
    pair = open_pair(tiny_pairs, PAIR)
    site = pair.source_site
    rows = PairRows(pair.folder, methods={site: "none"}, epochs=epochs)
    ids: dict[str, list[str]] = {}
    for split in ("train", "validation", "test"):
        ids[split] = [name for _, frame in rows.batches(split, sites=[site]) for name in frame["sample_id"]]
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(ids[one]) & set(ids[other])
    for names in ids.values():
        assert names
        assert set(pl.Series(names).value_counts()["count"]) == {8}  # all nodes of an instance
    assert set(ids["test"]) == set(pair.ids("test"))  # whatever is drawn anew, test stays what it was
    if epochs.max_samples is not None:
        assert len(ids["train"]) == 96  # 12 instances of 8 nodes: a part of one would not do
        assert list(dict.fromkeys(ids["train"])) == list(pair.ids("train"))[:12]
    if epochs.val_ratio is not None:
        known = len(pair.ids("train")) + len(pair.ids("validation"))
        assert len(set(ids["validation"])) == pytest.approx(epochs.val_ratio * known, abs=1)
    # And what a training draws from is those very rows.
    names = pair.store.metadata(columns=["sample_id"])["sample_id"]
    stream = rows.shuffled(ShuffleConfig(batch_size=32), sites=[site])
    drawn = [names[int(place)] for batch in stream for place in batch.places]
    assert sorted(drawn) == sorted(ids["train"])


def write(folder: Path, x: torch.Tensor, split: list[str], nodes: int = 10, **more: Any) -> Path:
    groups = [f"i{i // nodes}" for i in range(len(x))]
    metadata = {"sample_id": groups, "group": groups, "position": np.arange(len(x)) % nodes, "split": split}
    with StoreWriter(folder, sites={"x": x.shape[1], "y": x.shape[1]}, **more) as writer:
        writer.append({"x": x, "y": x.flip(1).relu()}, metadata)
    return folder


@pytest.mark.parametrize("method", ["scale", "center", "standard"])
def test_4_statistics_are_of_the_training_rows_alone(tmp_path: Path, method: Any) -> None:
    """Rows of validation and test lie far away: whoever measured them too would be far off."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=random) * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 5
    split = ["train"] * 200 + ["validation"] * 50 + ["test"] * 50
    x[200:] = 100 * x[200:] + 1000
    folder = write(tmp_path / "store", x, split)
    rows = PairRows(folder, methods={"x": method, "y": "none"}, epochs=SHORT)
    asked = Asked(("x",), ("y",), 8, 2)
    told = {"kind": "transcoder", "pair": "p", "settings": {}, "inputs": {}}
    fit_into(tmp_path / "run", rows, told, sites=asked, settings=settings())
    kept = json.loads((tmp_path / "run" / STATISTICS).read_text())
    train = x[:200].double().numpy()
    assert kept["rows"] == 200
    np.testing.assert_allclose(kept["sites"]["x"]["mean"], train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(kept["sites"]["x"]["std"], train.std(0), rtol=1e-12)
    by = rows.normalisation({"x": x}, k=2)["x"].apply(x[:200]).double().numpy()
    np.testing.assert_allclose(by.mean(0), 0, atol=1e-4)
    expected = {"scale": ((by**2).sum(1).mean(), 2), "center": (by.std(0)[3], train.std(0)[3]),
                "standard": (by.std(0), np.ones(4))}[method]  # fmt: skip
    np.testing.assert_allclose(expected[0], expected[1], rtol=1e-4)
    assert float(rows.mean("x")[0]) == pytest.approx(train.mean(0)[0], rel=1e-6)  # explained variance is about it


class Encoder(nn.Module):
    """One that returns a tuple, as that of rl4co does."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.part(x), x


def test_5_the_encoder_output_is_a_tensor_when_it_is_stored(tiny_pairs: Path) -> None:
    pair = open_pair(tiny_pairs, "clt_L1_to_output")
    model = load(tiny_pairs, device="cpu")
    _, y, frame = pair.read()
    instances = pair.instances()
    with torch.no_grad():
        h = model.policy.encode(instances.coords)
    assert isinstance(h, torch.Tensor)
    places = {name: i for i, name in enumerate(instances.ids)}
    which = torch.tensor([places[name] for name in frame["sample_id"]])
    torch.testing.assert_close(y, h[which, torch.tensor(frame["position"].to_list())], rtol=1e-4, atol=1e-5)
    # A module that does return a tuple is refused, unless the site says which of its parts is meant.
    module = nn.Sequential(Encoder())
    x = torch.randn(4, 5, 2)
    with pytest.raises(SiteError, match="not a tensor"):
        sites.capture(module, {"out": Site("0")}, lambda: module(x))
    got = sites.capture(module, {"out": Site("0", select=0)}, lambda: module(x), flat=True)
    torch.testing.assert_close(got.tensors["out"], module(x)[0].detach().reshape(20, 3))


def test_6_what_is_saved_is_enough_to_train_the_same_again(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = trained
    held = json.loads((folder / clt_runs.CONFIG).read_text())
    width = open_pair(run, PAIR).widths[0]
    assert held["expansion_factor"] == 2
    assert held["n_features"] == 2 * width
    assert held["k"] == K
    assert held["k_ratio"] == K / (2 * width)
    assert held["num_epochs"] == SHORT.num_epochs
    assert (held["source_key"], held["target_key"]) == ("encoder_layer_0", "encoder_layer_2")
    assert held["wandb_run_id"] is None
    again = train_transcoder(run, held["pair"], clt_runs.settings_of(folder), anew=True)
    assert again.path != folder
    assert digest(load_dictionary(again.path)) == digest(load_dictionary(folder))
    (again.path / "wandb_run_id").write_text("abc12345\n")  # as the trainer leaves it where W&B is asked for
    clt_runs.write_config(again.path, {key: value for key, value in held.items() if key != "schema"})
    assert clt_runs.read_config(again.path)["wandb_run_id"] == "abc12345"


@pytest.fixture
def long_store(tmp_path: Path) -> Path:
    """Six megabytes a site in several shards."""
    x = torch.randn(24_000, 64, generator=torch.Generator().manual_seed(0))
    split = ["train"] * 20_000 + ["validation"] * 2000 + ["test"] * 2000
    return write(tmp_path / "long", x, split, rows_per_shard=9000)


def test_7_no_file_is_read_as_a_whole(long_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are mapped from the disk, and what is copied out of them is a window or a batch at a time."""
    mapped: list[bool] = []
    original = settle.read_tensors

    def read(folder: Path, manifest: Any, shard: int) -> dict[str, torch.Tensor]:
        found = original(folder, manifest, shard)
        name = f"{shard:05d}.safetensors"
        spans = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()
                 if line.endswith(name)]  # fmt: skip
        mapped.extend(any(int(a, 16) <= t.data_ptr() < int(b, 16) for a, b in spans) for t in found.values())
        return found

    held: list[int] = []

    class Counting(window.Window):
        def __init__(self, store: Store, where: Any, widths: dict[str, int], rows: int) -> None:
            held.append(rows * sum(widths.values()) * 4)
            super().__init__(store, where, widths, rows)

    pieces: list[int] = []
    batches = PairRows.batches

    def counted(self: PairRows, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for rows, frame in batches(self, *args, **kwargs):
            pieces.append(sum(x.nbytes for x in rows.values()))
            yield rows, frame

    monkeypatch.setattr(settle, "read_tensors", read)
    monkeypatch.setattr("elute.store.shuffle.Window", Counting)
    monkeypatch.setattr(PairRows, "batches", counted)
    monkeypatch.setattr(pair_rows, "_ROWS", 1024)
    small = lambda **given: ShuffleConfig(**given, buffer_mb=1, block_kb=64)  # noqa: E731
    monkeypatch.setattr(trainer, "ShuffleConfig", small)
    monkeypatch.setattr(normalise, "ShuffleConfig", small)
    rows = PairRows(long_store, methods={"x": "scale", "y": "scale"}, epochs=SHORT)
    epochs = SHORT.model_copy(update={"num_epochs": 1, "batch_size": 512})
    told = {"kind": "transcoder", "pair": "p", "settings": {}, "inputs": {}}
    fit_into(tmp_path / "run", rows, told, sites=Asked(("x",), ("y",), 64, 4), settings=settings(epochs))
    whole = 24_000 * 128 * 4
    assert mapped
    assert all(mapped)
    assert held
    assert max(held) <= 1.1e6
    assert pieces
    assert max(pieces) <= 8192 * 128 * 4 < whole / 2
