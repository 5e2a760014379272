"""Codes on disk are those of the dictionary, row by row, however they came there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from elute.base.errors import EluteError, GuardError
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import digest, save_dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.engine import encode as module
from elute.engine.encode import EncodeConfig, encode_store
from elute.store.codes import StoredCodes, verify
from elute.store.reader import Store
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter

ROWS, WIDTH = 700, 10
MODEL = {"name": "tiny", "weights": "w1", "config": "c1", "sites": "s1"}


def drawn(folder: Path, activation: str = "topk", **settings: Any) -> Dictionary:
    values = {
        "reads": {"a": WIDTH},
        "writes": {"a": WIDTH},
        "n_features": 24,
        "k": 3,
        "activation": activation,
        **settings,
    }
    dictionary = Dictionary(DictionarySpec(**values))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in dictionary.parameters():
            p.normal_(generator=random, std=0.4)
    save_dictionary(dictionary, folder / "sae_final.pt")
    return dictionary.eval().requires_grad_(requires_grad=False)


def write(folder: Path, **settings: Any) -> Path:
    random = torch.Generator().manual_seed(5)
    rows = {"a": torch.randn(ROWS, WIDTH, generator=random), "b": torch.randn(ROWS, 6, generator=random)}
    with StoreWriter(folder, sites={"a": WIDTH, "b": 6}, rows_per_shard=200, **settings) as writer:
        index = range(ROWS)
        writer.append(rows, {"sample_id": [f"s{i}" for i in index], "group": [f"g{i // 20}" for i in index]})
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write(tmp_path / "store")


def same(codes: Any, wanted: Any) -> None:
    assert torch.equal(codes.dense(), wanted.dense())


@pytest.mark.parametrize("activation", ["topk", "signed-topk", "relu", "jumprelu", "gated", "matching-pursuit"])
def test_codes_are_those_of_the_dictionary(
    store: Path, tmp_path: Path, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 64)
    dictionary = drawn(tmp_path, activation)
    done = encode_store(tmp_path, store, tmp_path / "codes")
    codes = StoredCodes(tmp_path / "codes")
    same(codes.read(), dictionary.encode(Store(store).read()["a"]))
    assert codes.complete
    assert verify(tmp_path / "codes") == []
    codes.expect(dictionary=digest(dictionary), store=Store(store))
    assert done.summary == {"rows": ROWS, "features": 24, "k": codes.k}
    # The same again writes nothing.
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "codes").glob("*.safetensors")}
    assert encode_store(tmp_path / "sae_final.pt", store, tmp_path / "codes").summary == done.summary
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "codes").glob("*.safetensors")} == before


def test_several_banks_and_sites(store: Path, tmp_path: Path) -> None:
    sites = {"a": WIDTH, "b": 6}
    dictionary = drawn(tmp_path, kind="clt", reads=sites, writes=sites)
    encode_store(tmp_path, store, tmp_path / "codes")
    codes = StoredCodes(tmp_path / "codes")
    assert codes.n_features == 48
    same(codes.read(), dictionary.encode(Store(store).read()))


def test_nothing_fires(store: Path, tmp_path: Path) -> None:
    dictionary = drawn(tmp_path, "relu")
    with torch.no_grad():
        next(iter(dictionary)).b_enc.fill_(-1000)
    save_dictionary(dictionary, tmp_path / "sae_final.pt")
    assert encode_store(tmp_path, store, tmp_path / "codes").summary["k"] == 0
    assert not StoredCodes(tmp_path / "codes").counts().any()


def test_another_encoder_k_and_type_are_other_codes(store: Path, tmp_path: Path) -> None:
    dictionary = drawn(tmp_path)
    x = Store(store).read()["a"]
    encode_store(tmp_path, store, tmp_path / "k5", config=EncodeConfig(k=5))
    same(StoredCodes(tmp_path / "k5").read(), dictionary.encode(x, k=5))
    encode_store(tmp_path, store, tmp_path / "mp", config=EncodeConfig(encoder="pursuit", dtype="fp16"))
    codes = StoredCodes(tmp_path / "mp")
    assert codes.dtype == torch.float16
    torch.testing.assert_close(
        codes.read().dense().float(), dictionary.encode(x, encoder="pursuit").dense().half().float()
    )
    assert len({StoredCodes(tmp_path / name).dictionary for name in ("k5", "mp")}) == 2
    with pytest.raises(GuardError):
        encode_store(tmp_path, store, tmp_path / "k5")
    encode_store(tmp_path, store, tmp_path / "k5", config=EncodeConfig(anew=True))
    same(StoredCodes(tmp_path / "k5").read(), dictionary.encode(x))
    with pytest.raises(EluteError, match=r"25"):
        encode_store(tmp_path, store, tmp_path / "k25", config=EncodeConfig(k=25))


def test_rows_of_one_split(store: Path, tmp_path: Path) -> None:
    split_store(store, SplitConfig(fractions={"train": 0.6, "test": 0.4}))
    opened = Store(store)
    chosen = (opened.metadata(columns=["split"])["split"] == "test").to_numpy().nonzero()[0]
    dictionary = drawn(tmp_path)
    done = encode_store(tmp_path, store, tmp_path / "codes", config=EncodeConfig(split="test"))
    codes = StoredCodes(tmp_path / "codes")
    assert done.summary["rows"] == len(codes) == len(chosen)
    assert codes.store_rows().tolist() == chosen.tolist()
    same(codes.read(), dictionary.encode(opened.read()["a"][torch.from_numpy(chosen)]))
    assert codes.selection == "split test"
    with pytest.raises(EluteError, match="Did you mean 'test'"):
        encode_store(tmp_path, store, tmp_path / "other", config=EncodeConfig(split="tests"))


def test_it_goes_on_after_the_last_whole_shard(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(tmp_path)
    encode_store(tmp_path, store, tmp_path / "whole")
    original = module._shard
    done: list[int] = []

    def stop() -> Any:
        raise KeyboardInterrupt

    def shard(*args: Any, shard: int, **given: Any) -> Any:
        done.append(shard)
        return original(*args, shard=shard, **given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            module, "_shard", lambda *a, shard, **g: original(*a, shard=shard, **g) if shard < 2 else stop()
        )
        encode_store(tmp_path, store, tmp_path / "cut")
    assert not StoredCodes(tmp_path / "cut").complete
    monkeypatch.setattr(module, "_shard", shard)
    encode_store(tmp_path, store, tmp_path / "cut")
    assert done == [2, 3]
    assert "going on after 400 rows" in capsys.readouterr().err
    for path in (tmp_path / "whole").iterdir():
        if path.name != ".lock":
            assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes(), path.name


def test_another_models_rows_are_refused(tmp_path: Path) -> None:
    from elute.base.contracts import Fingerprint

    store = write(tmp_path / "store", model=Fingerprint(**{**MODEL, "weights": "w2"}))
    drawn(tmp_path, source={"model": MODEL})
    with pytest.raises(
        GuardError, match=r"the dictionary was trained on tiny, the rows are from tiny with other weights"
    ):
        encode_store(tmp_path, store, tmp_path / "codes")
    assert not (tmp_path / "codes").exists()
    for name, model in (("same", MODEL), ("renamed", {**MODEL, "name": "other", "sites": "s2"})):
        encode_store(tmp_path, write(tmp_path / f"store-{name}", model=Fingerprint(**model)), tmp_path / name)


def test_other_sites_and_widths_are_refused(store: Path, tmp_path: Path) -> None:
    drawn(tmp_path, reads={"b": 7}, writes={"b": 7})
    with pytest.raises(
        GuardError, match=r"store: site 'b' is 6 wide, the dictionary knows it as 7\. Use the store that it was"
    ):
        encode_store(tmp_path, store, tmp_path / "codes")
    drawn(tmp_path, reads={"c": 7}, writes={"c": 7})
    with pytest.raises(GuardError, match=r"has no site 'c'"):
        encode_store(tmp_path, store, tmp_path / "codes")
