"""Judgement of a dictionary, against numpy on dense arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from elute.base.errors import DataError, GuardError
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.engine.evaluate import evaluate
from elute.engine.settings import EvalConfig
from elute.store.reader import Store
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter

ROWS, WIDTH, FEATURES = 700, 10, 24


def drawn(spec: DictionarySpec, seed: int = 0) -> Dictionary:
    random = torch.Generator().manual_seed(seed)
    dictionary = Dictionary(spec)
    with torch.no_grad():
        for p in dictionary.parameters():
            p.normal_(generator=random, std=0.4)
    return dictionary.eval().requires_grad_(requires_grad=False)


def sae(activation: str = "topk", **settings: object) -> Dictionary:
    values = {"reads": {"a": WIDTH}, "writes": {"a": WIDTH}, "n_features": FEATURES, "k": 3, "activation": activation}
    return drawn(DictionarySpec(**{**values, **settings}))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = torch.Generator().manual_seed(5)
    rows = {
        name: torch.randn(ROWS, w, generator=random) @ torch.randn(w, w, generator=random) + 1
        for name, w in (("a", WIDTH), ("b", 6))
    }
    with StoreWriter(tmp_path / "store", sites={"a": WIDTH, "b": 6}, rows_per_shard=300) as writer:
        index = range(ROWS)
        writer.append(rows, {"sample_id": [f"s{i}" for i in index], "group": [f"g{i // 10}" for i in index]})
    return tmp_path / "store"


def by_numpy(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """The numbers from rows, reconstructions and dense codes."""
    spread = ((x - x.mean(0)) ** 2).sum()
    eigen = np.sort(np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2)[::-1]
    l0 = (values != 0).sum(1).mean()
    return {
        "explained_variance": 1 - ((x - y) ** 2).sum() / spread,
        "fvu": ((x - y) ** 2).sum() / spread,
        "mse": ((x - y) ** 2).mean(),
        "cosine": ((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).mean(),
        "norm_ratio": np.linalg.norm(y, axis=1).sum() / np.linalg.norm(x, axis=1).sum(),
        "l0": l0,
        "dead_fraction": (values == 0).all(0).mean(),
        "pca": eigen[: round(l0)].sum() / spread,
    }


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
@pytest.mark.parametrize("rows", [None, 450])
def test_the_numbers_are_those_of_numpy(folder: Path, activation: str, rows: int | None) -> None:
    dictionary, store = sae(activation), Store(folder)
    answer = evaluate(dictionary, store, EvalConfig(rows=rows))
    x = store.read(0, rows, sites=["a"])["a"]
    bank = next(iter(dictionary))
    pre = (x.double() @ bank.W_enc.double().T + bank.b_enc.double()).numpy()
    values = np.maximum(pre, 0)
    if activation == "topk":
        values[values < np.sort(values, axis=1)[:, -3:-2]] = 0
    if activation == "jumprelu":
        values[values <= bank.log_threshold.double().exp().numpy()] = 0
    y = values @ bank.W_dec.double().numpy() + dictionary.b_dec.double().numpy()
    wanted = by_numpy(x.double().numpy(), y, values)
    assert answer["control"]["explained_variance_pca"] == pytest.approx(wanted.pop("pca"), abs=1e-6)
    for name, value in wanted.items():
        assert answer[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert (answer["rows"], answer["split"], answer["encoder"]) == (rows or ROWS, None, "own")
    unit = bank.W_dec.double().numpy() / np.linalg.norm(bank.W_dec.double().numpy(), axis=1, keepdims=True)
    assert answer["redundancy"] == pytest.approx((unit @ unit.T - 2 * np.eye(FEATURES)).max(1).mean(), abs=1e-5)
    assert json.loads(json.dumps(answer)) == answer


def test_the_test_rows_are_judged_where_there_are_some(folder: Path) -> None:
    split_store(folder, SplitConfig(fractions={"train": 0.7, "test": 0.3}))
    store = Store(folder)
    dictionary = sae()
    found = {split: evaluate(dictionary, Store(folder), EvalConfig(split=split)) for split in (None, "test", "train")}
    assert found[None] == found["test"]
    assert (found[None]["split"], found[None]["rows"]) == ("test", store.select(split="test").rows)
    assert found["train"]["rows"] + found["test"]["rows"] == ROWS
    assert found["train"]["explained_variance"] != found["test"]["explained_variance"]
    with pytest.raises(DataError, match=r"no row has split 'tset'\. Did you mean 'test'\?"):
        evaluate(dictionary, store, EvalConfig(split="tset"))


def test_pursuit_and_another_k(folder: Path) -> None:
    dictionary, store = sae(), Store(folder)
    own = evaluate(dictionary, store, EvalConfig())
    assert evaluate(dictionary, store, EvalConfig(k=5))["l0"] > own["l0"] == 3
    pursued = evaluate(dictionary, store, EvalConfig(encoder="pursuit"))
    assert pursued["encoder"] == "pursuit"
    assert pursued["explained_variance"] != own["explained_variance"]


def test_several_written_sites(folder: Path) -> None:
    sites = {"a": WIDTH, "b": 6}
    dictionary = drawn(DictionarySpec(kind="crosscoder", reads=sites, writes=sites, n_features=FEATURES, k=3))
    store = Store(folder)
    answer = evaluate(dictionary, store, EvalConfig())
    rows = store.read()
    codes = dictionary.encode(rows)
    y = dictionary.decode(codes)
    for name in sites:
        wanted = by_numpy(rows[name].double().numpy(), y[name].double().numpy(), codes.dense().numpy())
        assert answer["sites"][name]["explained_variance"] == pytest.approx(wanted["explained_variance"], rel=1e-4)
        assert answer["sites"][name]["explained_variance_pca"] == pytest.approx(wanted["pca"], abs=1e-6)
    both = [site["explained_variance"] for site in answer["sites"].values()]
    assert answer["explained_variance"] == pytest.approx(np.mean(both))


def test_one_row_and_one_feature(folder: Path, tmp_path: Path) -> None:
    answer = evaluate(sae(n_features=1, k=1), Store(folder), EvalConfig())
    assert "redundancy" not in answer
    with StoreWriter(tmp_path / "one", sites={"a": WIDTH}) as writer:
        writer.append({"a": torch.ones(1, WIDTH)}, {"sample_id": ["s"]})
    answer = evaluate(sae(), Store(tmp_path / "one"), EvalConfig())
    assert (answer["rows"], answer["l0"]) == (1, 3)
    assert json.loads(json.dumps(answer)) == answer


def planted(folder: Path, truth: np.ndarray, counts: list[int] | None = None) -> Path:
    np.save(folder / "truth.npy", truth)
    if counts is not None:
        np.save(folder / "truth_counts.npy", np.array(counts))
    return folder / "truth.npy"


def test_planted_directions(folder: Path, tmp_path: Path) -> None:
    dictionary, store = sae(), Store(folder)
    truth = dictionary.directions()[:4].clone()
    truth[0] = -truth[0]
    truth[1] += 100 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    path = planted(tmp_path, truth.numpy())
    answer = evaluate(dictionary, store, EvalConfig(truth=path))
    assert (answer["recovered_fraction"], answer["planted_considered"]) == (0.5, 4)
    unit = [t / np.linalg.norm(t, axis=1, keepdims=True) for t in (truth.numpy(), dictionary.directions().numpy())]
    assert answer["mean_max_cosine"] == pytest.approx((unit[0] @ unit[1].T).max(1).mean(), abs=1e-5)
    assert answer["control"]["recovered_fraction"] == 0
    assert 0.3 < answer["control"]["mean_max_cosine"] < 0.9
    # The opposite of a direction is the same feature where codes have a sign.
    signed = sae("signed-topk")
    found = evaluate(signed, store, EvalConfig(truth=planted(tmp_path, -signed.directions()[:4].numpy())))
    assert found["recovered_fraction"] == 1
    # Counts that lie beside the directions leave out what hardly fired.
    planted(tmp_path, truth.numpy(), [500, 3, 500, 99])
    assert evaluate(dictionary, store, EvalConfig(truth=path))["planted_considered"] == 2
    answer = evaluate(dictionary, store, EvalConfig(truth=path, least=50))
    assert (answer["planted_considered"], answer["recovered_fraction"]) == (3, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    "truth", [np.ones((4, WIDTH + 1), np.float32), np.ones((4, WIDTH), np.int64), np.ones(WIDTH, np.float32)]
)
def test_planted_directions_of_another_shape(folder: Path, tmp_path: Path, truth: np.ndarray) -> None:
    path = planted(tmp_path, truth)
    with pytest.raises(DataError, match=rf"truth.npy: holds \w+ \[.*\], the dictionary writes \[{WIDTH}\]"):
        evaluate(sae(), Store(folder), EvalConfig(truth=path))
    planted(tmp_path, np.ones((4, WIDTH), np.float32), [1, 2])
    with pytest.raises(DataError):
        evaluate(sae(), Store(folder), EvalConfig(truth=path))


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    other = drawn(DictionarySpec(reads={"b": 7}, writes={"b": 7}, n_features=9, k=2))
    with pytest.raises(GuardError, match=r"site 'b' is 6 wide, the dictionary knows it as 7"):
        evaluate(other, Store(folder), EvalConfig())
    other = drawn(DictionarySpec(reads={"c": 6}, writes={"c": 6}, n_features=9, k=2))
    with pytest.raises(GuardError, match=r"has no site 'c'"):
        evaluate(other, Store(folder), EvalConfig())
