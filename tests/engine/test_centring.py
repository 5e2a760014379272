"""Rows less the means of their gene: the means worked out apart, the same rows everywhere, and wrong means refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, GuardError, VersionError
from elute.base.tensors import safetensors_header
from elute.dictionaries.files import NAME, load_dictionary
from elute.engine import centring
from elute.engine.centred import CentredStore, as_trained
from elute.engine.centring import Centre, Means, find, load, measure
from elute.engine.encode import EncodeConfig, encode_store
from elute.engine.evaluate import evaluate
from elute.engine.fit import Fit, FitConfig
from elute.engine.settings import DeadConfig, DictionaryConfig, EvalConfig, LearnConfig
from elute.engine.tracking import TrackConfig
from elute.engine.train import Training, train
from elute.store.codes import StoredCodes
from elute.store.reader import Store
from elute.store.shuffle import ShuffleConfig
from elute.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("one_thread")
N, WIDTH, GENES, STATES = 1200, 16, 12, 4


def made(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, list[Any]], torch.Tensor]:
    """Rows that are their gene's large mean, and a little of the one state that their cell is in."""
    random = torch.Generator().manual_seed(seed)
    genes = torch.randint(0, GENES, (N,), generator=random)
    cells = torch.arange(N) // 20
    states = cells % STATES
    split = ["train" if cell < 45 else "test" for cell in cells.tolist()]
    names = [None if i % 97 == 5 else f"g{g}" for i, g in enumerate(genes.tolist())]
    names = [
        "new" if s == "test" and i % 50 == 0 else name for i, (name, s) in enumerate(zip(names, split, strict=True))
    ]
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=random))[0][:STATES]
    means = 8 * torch.randn(GENES, WIDTH, generator=random)
    noise = 0.05 * torch.randn(N, WIDTH, generator=random)
    a = means[genes] + directions[states] * (1 + torch.rand(N, 1, generator=random)) + noise
    b = (a - 5) @ torch.randn(WIDTH, 6, generator=random)
    metadata = {"sample_id": [f"c{c}" for c in cells.tolist()], "gene": names, "split": split, "group": [f"d{c}" for c in cells.tolist()],
                "position": [i % 20 for i in range(N)]}  # fmt: skip
    return {"a": a, "b": b}, metadata, directions


def write(folder: Path, rows: dict[str, torch.Tensor], metadata: dict[str, list[Any]], **settings: Any) -> Path:
    sites = {name: x.shape[1] for name, x in rows.items()}
    with StoreWriter(folder, sites=sites, rows_per_shard=350, **settings) as writer:
        writer.append(rows, pl.DataFrame(metadata).with_columns(pl.col("position").cast(pl.Int32)))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, metadata, _ = made()
    return write(tmp_path_factory.mktemp("centring") / "store", rows, metadata)


def by_hand(x: torch.Tensor, tokens: list[Any], split: list[Any]) -> np.ndarray[Any, Any]:
    """Subtract by a loop over the rows, in float64."""
    held: dict[Any, list[np.ndarray[Any, Any]]] = {}
    values = x.double().numpy()
    for row, token, name in zip(values, tokens, split, strict=True):
        if name == "train":
            held.setdefault(token, []).append(row)
    overall = np.mean([row for rows in held.values() for row in rows], axis=0)
    means = {token: np.mean(rows, axis=0) for token, rows in held.items() if token is not None}
    return np.stack([row - means.get(token, overall) for row, token in zip(values, tokens, strict=True)])


def centre_of(folder: Path, by: str = "gene") -> Centre:
    opened = Store(folder)
    return measure(opened, opened.select(split="train"), ["a", "b"], by=by)


def settings(*, by: str | None = "gene", learn: dict[str, Any] | None = None, **dictionary: Any) -> Training:
    given = {"reads": ("a",), "n_features": 24, "k": 1, "center_by": by, **dictionary}
    return Training(
        DictionaryConfig(**given),
        LearnConfig(**(learn or {})),
        FitConfig(steps=60, batch_size=128, lr=8e-3, checkpoint_seconds=0.0),
        DeadConfig(dead_after_rows=600, resample_every=10),
        TrackConfig(log_every=20),
    )


def content(folder: Path) -> dict[str, bytes]:
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in (".lock", "config.yaml", "run.json")}
    state = load_dictionary(folder)
    found[NAME] = repr(state.spec).encode() + b"".join(t.numpy().tobytes() for t in state.state_dict().values())
    return found


def test_the_means_are_those_of_the_training_rows(store: Path) -> None:
    rows, metadata, _ = made()
    centred = CentredStore(store, centre_of(store))
    for site in ("a", "b"):
        wanted = by_hand(rows[site], metadata["gene"], metadata["split"])
        np.testing.assert_allclose(centred.read()[site].numpy(), wanted, atol=2e-5)
    known = np.array([m in centred.centre.values.to_list() for m in metadata["gene"]])
    training = np.array(metadata["split"]) == "train"
    assert centred.centre.counts.tolist() == [
        sum(t == v and s == "train" for t, s in zip(metadata["gene"], metadata["split"], strict=True))
        for v in centred.centre.values.to_list()
    ]
    for gene in centred.centre.values:
        rows_of_gene = training & (np.array(metadata["gene"], object) == gene)
        assert np.abs(centred.read()["a"].numpy()[rows_of_gene].mean(0)).max() < 1e-5
    assert centred.unseen(centred.everything) == int((~known).sum()) > 10


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_all_ways_of_reading_give_the_same_rows(tmp_path: Path, dtype: str) -> None:
    rows, metadata, _ = made()
    folder = write(tmp_path / "store", rows, metadata, dtype=dtype)
    centred = CentredStore(folder, centre_of(folder))
    whole = centred.read()
    assert whole["a"].dtype == torch.float32
    stored = Store(folder).read()["a"].float()
    np.testing.assert_allclose(whole["a"].numpy(), by_hand(stored, metadata["gene"], metadata["split"]), atol=2e-5)
    torch.testing.assert_close(centred.read(340, 720, sites=["b"])["b"], whole["b"][340:720], rtol=0, atol=0)
    assert len(centred.read(5, 5)["a"]) == 0
    for where in (None, centred.select(split="test"), centred.select(sample=["c3", "c58"])):
        chosen = range(N) if where is None else np.concatenate(
            [np.flatnonzero(m) + s if (m := where.mask(i, e.rows)) is not None else np.arange(s, s + e.rows)
             for i, (s, e) in enumerate(zip(centred.starts[:-1], centred.manifest.shards, strict=True))])  # fmt: skip
        index = torch.as_tensor(np.asarray(chosen))
        parts = list(centred.batches(100, where=where, columns=["position"]))
        assert torch.equal(torch.cat([part["a"] for part, _ in parts]), whole["a"][index])
        assert (
            torch.cat([torch.as_tensor(f["position"].to_numpy().copy()) for _, f in parts]).tolist()
            == (index % 20).tolist()
        )
        seen = 0
        for batch in centred.shuffled(ShuffleConfig(batch_size=64, seed=3), where=where):
            assert torch.equal(batch.rows["b"], whole["b"][batch.places])
            seen += len(batch.places)
        assert seen == len(index)
    raw = list(Store(folder).shuffled(ShuffleConfig(batch_size=64, seed=3)))
    mine = list(centred.shuffled(ShuffleConfig(batch_size=64, seed=3)))
    assert all(torch.equal(p.places, q.places) for p, q in zip(raw, mine, strict=True)), "the order is the store's"


def test_means_merge_as_they_add_up() -> None:
    random = np.random.default_rng(0)
    codes, x = random.integers(0, 7, 500), random.normal(size=(500, 3)) + 1e4
    whole, parts = Means(8, 3), [Means(8, 3) for _ in range(3)]
    whole.update((codes, x))
    for i, part in enumerate(parts):
        part.update((codes[i::3], torch.from_numpy(x[i::3])))
    parts[0].merge(parts[1])
    parts[0].merge(Means.from_state(json.loads(json.dumps({k: v.tolist() if hasattr(v, "tolist") else v
                                                           for k, v in parts[2].state().items()}))))  # fmt: skip
    np.testing.assert_allclose(parts[0].result()[:7], whole.result()[:7], rtol=1e-14)
    np.testing.assert_array_equal(parts[0].counts, np.bincount(codes, minlength=8))
    assert np.isnan(whole.result()[7]).all()
    for bad in ((codes, x[:10]), (codes + 7, x), (codes, np.where(x > 1e4, np.nan, x))):
        with pytest.raises(DataError):
            whole.update(bad)
    np.testing.assert_allclose(whole.sums, sum(np.eye(8)[codes[i]][:, None] * x[i] for i in range(500)), rtol=1e-12)
    with pytest.raises(DataError, match="differ in values"):
        whole.merge(Means(7, 3))


def test_training_is_that_on_rows_centred_beforehand(store: Path, tmp_path: Path) -> None:
    _rows, metadata, _ = made()
    opened = CentredStore(store, centre_of(store))
    before = write(tmp_path / "before", {k: x.clone() for k, x in opened.read().items()}, metadata)
    for given in ({}, {"kind": "transcoder", "writes": ("b",)}):
        centred = train(store, tmp_path / f"centred{len(given)}", settings(**given))
        plain = train(before, tmp_path / f"plain{len(given)}", settings(by=None, **given))
        mine, theirs = load_dictionary(centred.path), load_dictionary(plain.path)
        for name, p in mine.state_dict().items():
            assert torch.equal(p, theirs.state_dict()[name]), name
        assert centred.summary["explained_variance"] == plain.summary["explained_variance"]
        assert centred.summary["centred_by"] == "gene"
        assert "centred_by" not in plain.summary
        assert "centre" not in theirs.spec.source
        assert mine.spec.source["centre"] == load(centred.path.parent).digest
        assert mine.spec.source["centre_by"] == "gene"
        assert not (plain.path.parent / centring.NAME).exists()


def test_it_turns_features_from_genes_to_states(store: Path, tmp_path: Path) -> None:
    """A gene's mean is many times longer than the state: alone it is what few features learn."""
    _, _, directions = made()
    towards = torch.nn.functional.normalize(directions - directions.mean(0))  # a gene's mean holds all states' mean
    found = {}
    for by in (None, "gene"):
        path = train(store, tmp_path / str(by), settings(by=by)).path
        learnt = torch.nn.functional.normalize(load_dictionary(path).directions())
        found[by] = (learnt @ towards.T).max(0).values
    assert float(found["gene"].min()) > 0.75
    assert float(found[None].max()) < 0.6


def test_a_killed_training_ends_with_the_same_bits(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(store, tmp_path / "whole", settings())
    original = Fit._gradient

    def gradient(self: Fit, *args: Any, **kwargs: Any) -> Any:
        if self.step == 31:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Fit, "_gradient", gradient)
        train(store, tmp_path / "cut", settings())
    assert (tmp_path / "cut" / centring.NAME).exists(), "the means are kept for who goes on"
    with monkeypatch.context() as patched:
        patched.setattr("elute.engine.centring.measure", lambda *_, **__: pytest.fail("measured again"))
        train(store, tmp_path / "cut", settings())
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    record = json.loads((tmp_path / "cut" / "run.json").read_text())["stages"]["train"]
    assert record["config"]["dictionary"]["center_by"] == "gene"
    assert record["inputs"]["centre"] == load(tmp_path / "cut").digest[:16]


def test_what_is_finished_is_used_and_what_is_lost_is_measured_again(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(store, run, settings()).summary
    before = content(run)
    assert train(store, run, settings()).summary == {**first, "reused": True}
    for spoil in ("gone", "cut", "flipped"):
        path = run / centring.NAME
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.unlink()
        if spoil != "gone":
            path.write_bytes(data[:-8] if spoil == "cut" else data)
            with pytest.raises(DamagedError):
                load(run)
        assert train(store, run, settings()).summary == {**first, "reused": True}, spoil
        assert content(run) == before, spoil
    for other in (settings(by=None), settings(by="position")):
        with pytest.raises(ConfigError, match=r"dictionary\.center_by was 'gene' and is now"):
            train(store, run, other)
    assert content(run) == before
    train(store, run, settings(by=None), anew=True)
    assert not (run / centring.NAME).exists(), "means of another dictionary are not left beside it"


def test_codes_and_judgement_are_of_centred_rows(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _rows, metadata, _ = made()
    run = train(store, tmp_path / "run", settings()).path.parent
    dictionary = load_dictionary(run)
    x = CentredStore(store, load(run)).read()["a"]
    told = encode_store(run, store, tmp_path / "codes").summary
    unseen = sum(t == "new" or t is None for t in metadata["gene"])
    assert (told["centred_by"], told["unseen_rows"]) == ("gene", unseen)
    assert f"{unseen} of 1,200 rows have a gene that was not met in training, or none" in capsys.readouterr().err
    assert torch.equal(StoredCodes(tmp_path / "codes").read().dense(), dictionary.encode(x).dense())
    encode_store(run / NAME, store, tmp_path / "test", config=EncodeConfig(split="test"))
    kept = torch.tensor([s == "test" for s in metadata["split"]])
    assert torch.equal(StoredCodes(tmp_path / "test").read().dense(), dictionary.encode(x[kept]).dense())
    answer = evaluate(dictionary, Store(store), EvalConfig(split="train"), beside=run)
    y, x = dictionary(x[~kept]), x[~kept]
    explained = 1 - (x - y).square().sum() / (x - x.mean(0)).square().sum()
    assert answer["explained_variance"] == pytest.approx(float(explained), abs=1e-4)
    assert answer["centred_by"] == "gene"
    assert evaluate(dictionary, CentredStore(store, load(run)), EvalConfig(split="train")) == answer
    plain = train(store, tmp_path / "plain", settings(by=None)).path
    assert "centred_by" not in evaluate(load_dictionary(plain), Store(store), EvalConfig(), beside=plain)


def test_wrong_means_are_refused(store: Path, tmp_path: Path) -> None:
    run = train(store, tmp_path / "run", settings()).path.parent
    dictionary, opened = load_dictionary(run), Store(store)
    bare, other = tmp_path / "bare", tmp_path / "other"
    for folder in (bare, other):
        folder.mkdir()
        shutil.copy(run / NAME, folder)
    centre_of(store, by="position").save(other)

    def said(folder: Path | None) -> str:
        lines = set()
        for ask in (
            lambda: as_trained(dictionary, opened, beside=folder),
            lambda: evaluate(dictionary, opened, EvalConfig(), beside=folder),
            lambda: (
                encode_store(folder, store, tmp_path / "codes")
                if folder
                else as_trained(dictionary, opened, beside=None)
            ),
        ):
            with pytest.raises(GuardError) as error:
                ask()
            lines.add(str(error.value))
        assert len(lines) == 1
        assert not (tmp_path / "codes").exists()
        return lines.pop()

    assert said(bare) == (
        f"{bare}: the dictionary was trained on rows centred by gene, and centre.safetensors is not beside it. "
        "Copy it from the run's folder, where training wrote it, or train the dictionary anew."
    )
    assert f"{other / centring.NAME}: the dictionary was trained on rows centred by gene with other means (" in said(
        other
    )
    assert "where its means lie is not known" in said(None)
    plain = load_dictionary(train(store, tmp_path / "plain", settings(by=None)).path)
    with pytest.raises(GuardError, match="not trained on rows centred in this way"):
        evaluate(plain, CentredStore(store, load(run)), EvalConfig())
    rows, metadata, _ = made()
    del metadata["gene"]
    without = write(tmp_path / "without", rows, metadata)
    with pytest.raises(DataError, match="the rows have no column 'gene'"):
        as_trained(dictionary, Store(without), beside=run)
    opened = as_trained(dictionary, Store(store), beside=run / NAME)
    with pytest.raises(DataError, match="no means of site 'b'"):
        opened.read(sites=["b"])
    assert list(opened.read()) == ["a"]


def test_files_that_are_no_means(store: Path, tmp_path: Path) -> None:
    centre_of(store).save(tmp_path)
    path = tmp_path / centring.NAME
    arrays, header = load_file(path), dict(safetensors_header(path)[1]["__metadata__"])
    told = json.loads(header["centre"])
    again = load(tmp_path)
    assert again.values.to_list() == told["values"] == sorted({f"g{i}" for i in range(GENES)})
    assert set(arrays) == {"rows", "mean.a", "mean.b", "overall.a", "overall.b"}

    def spoilt(error: type[EluteError], part: dict[str, Any] | None = None, **change: Any) -> None:
        text = json.dumps({**told, **change})
        save_file(arrays if part is None else part, path, {**header, "centre": text})
        with pytest.raises(error) as raised:
            load(tmp_path)
        assert "\n" not in str(raised.value)

    spoilt(VersionError, schema=2)
    for change in ({"values": []}, {"values": [1, "a"]}, {"values": told["values"][:-1]}, {"by": "x"}, {"sites": []},
                   {"sites": ["a"]}, {"sites": ["c"]}, {"schema": "1"}, {"values": 3}):  # fmt: skip
        spoilt(DamagedError if change != {"schema": "1"} else VersionError, **change)
    for part in ({k: x for k, x in arrays.items() if k != "mean.a"}, {**arrays, "mean.a": arrays["mean.a"][:-1]},
                 {**arrays, "mean.a": arrays["mean.a"].astype(np.float64)}, {**arrays, "rows": arrays["rows"] + 1}):  # fmt: skip
        spoilt(DamagedError, part=part)
    save_file(arrays, path)
    with pytest.raises(DamagedError):
        load(tmp_path)
    path.write_bytes(b"no")
    with pytest.raises(EluteError):
        load(tmp_path)
    opened = Store(store)
    assert find(tmp_path, opened, opened.everything, sites=["a"], by="gene") is None


def test_columns_that_cannot_be_centred_by(store: Path, tmp_path: Path) -> None:
    def said(training: Training, folder: Path = store) -> str:
        with pytest.raises(EluteError) as error:
            train(folder, tmp_path / "run", training)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists(), "nothing is left behind"
        return str(error.value)

    assert "the rows have no column 'gen'. Did you mean 'gene'?" in said(settings(by="gen"))
    for method in ("standard", "pca"):
        text = said(settings(learn={"normalise": method}))
        assert f"{method} is measured on rows as they are stored, not on rows centred by gene" in text
        assert text.endswith("Normalise by scale or center.")
    rows, metadata, _ = made()
    metadata["sample_id"] = [f"r{i}" for i in range(N)]
    metadata["value"] = [0.5] * N
    metadata["label"] = [None] * N
    frame = pl.DataFrame(metadata, schema_overrides={"value": pl.Float32, "label": pl.String}).to_dict(as_series=True)
    odd = write(tmp_path / "odd", rows, frame)  # type: ignore[arg-type]
    assert "column 'sample_id' has 900 values for 900 rows: little would be left" in said(settings(by="sample_id"), odd)
    assert "column 'value' holds Float32: rows are centred by text or by whole numbers" in said(
        settings(by="value"), odd
    )
    assert "no row has a label" in said(settings(by="label"), odd)


def test_whole_numbers_are_values_too(store: Path, tmp_path: Path) -> None:
    rows, metadata, _ = made()
    centre = centre_of(store, by="position")
    centre.save(tmp_path)
    assert load(tmp_path).digest == centre.digest
    assert load(tmp_path).values.to_list() == list(range(20))
    wanted = by_hand(rows["a"], metadata["position"], metadata["split"])
    np.testing.assert_allclose(CentredStore(store, load(tmp_path)).read()["a"].numpy(), wanted, atol=2e-5)
    with pytest.raises(DataError, match="column 'position' holds String, the means were measured for whole numbers"):
        centre.codes(pl.Series(["1", "2"]))
