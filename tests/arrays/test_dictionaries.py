"""Dictionaries of any arrays: judged, taken elsewhere and brought back, by the functions behind the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elute.arrays import dictionaries as module
from elute.arrays.dictionaries import EVALUATION, BringConfig, ExportConfig, bring, export, judge, locate
from elute.base import files, run
from elute.base.errors import ConfigError, EluteError
from elute.base.hub.address import Address
from elute.base.recipe import read_yaml
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import load_dictionary, save_dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.engine.settings import EvalConfig
from elute.store.writer import StoreWriter

WIDTH = 8


def drawn(folder: Path, **settings: Any) -> Dictionary:
    values = {"reads": {"a": WIDTH}, "writes": {"a": WIDTH}, "n_features": 20, "k": 3, **settings}
    dictionary = Dictionary(DictionarySpec(**values))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in dictionary.parameters():
            p.normal_(generator=random, std=0.4)
    folder.mkdir(exist_ok=True)
    save_dictionary(dictionary, folder / "sae_final.pt")
    return load_dictionary(folder)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    x = torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(1))
    with StoreWriter(tmp_path / "store", sites={"a": WIDTH}) as writer:
        writer.append({"a": x}, {"sample_id": [f"s{i}" for i in range(300)]})
    return tmp_path / "store"


def same(a: Dictionary, b: Dictionary) -> None:
    x = torch.randn(50, a.spec.width_in, generator=torch.Generator().manual_seed(2))
    assert torch.equal(a.encode(x).dense(), b.encode(x).dense())
    assert torch.equal(a(x), b(x))


def test_a_judgement_is_kept_beside_the_run(store: Path, tmp_path: Path) -> None:
    drawn(tmp_path / "run")
    done = judge(str(tmp_path / "run"), store, EvalConfig())
    assert json.loads((tmp_path / "run" / EVALUATION).read_text()) == done.summary
    assert (done.kind, done.path, done.summary["rows"]) == ("evaluation", tmp_path / "run", 300)
    (tmp_path / "run" / EVALUATION).unlink()
    assert judge(str(tmp_path / "run" / "sae_final.pt"), store, EvalConfig()).summary == done.summary
    assert not (tmp_path / "run" / EVALUATION).exists(), "a file has no folder of its own"


def test_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert locate("results/mine") == Path("results/mine")
    asked: list[Address] = []

    class Pulled:
        folder = tmp_path

    def pull(address: Address) -> Pulled:
        asked.append(address)
        return Pulled()

    monkeypatch.setattr("elute.dictionaries.hub.pull", pull)
    assert locate("hf://me/mine@v2") == tmp_path
    assert (asked[0].repo, asked[0].revision) == ("me/mine", "v2")


def test_a_safetensors_file_and_back(store: Path, tmp_path: Path) -> None:
    dictionary = drawn(tmp_path / "run")
    done = export(str(tmp_path / "run"), None, ExportConfig(to="safetensors"))
    assert done.path == tmp_path / "run" / "sae_final.safetensors"
    same(load_dictionary(done.path), dictionary)
    assert load_dictionary(done.path).spec == dictionary.spec
    named = export(
        str(tmp_path / "run" / "sae_final.pt"), tmp_path / "named.safetensors", ExportConfig(to="safetensors")
    )
    assert named.path.read_bytes() == done.path.read_bytes()
    assert judge(str(named.path), store, EvalConfig()).summary["rows"] == 300


@pytest.mark.parametrize("activation", ["topk", "jumprelu", "relu"])
def test_saelens_and_back(tmp_path: Path, activation: str) -> None:
    dictionary = drawn(tmp_path / "run", activation=activation)
    done = export(str(tmp_path / "run"), None, ExportConfig(to="saelens"))
    assert done.path == tmp_path / "run" / "saelens"
    assert done.summary == {"to": "saelens", "parts": ["inference", "training"]}
    for part in ("inference", "training"):
        if not (done.path / part).exists():
            continue
        back = bring(str(done.path / part), tmp_path / part, BringConfig(site="layer"))
        found = load_dictionary(back.path)
        assert found.spec.reads == {"layer": WIDTH}
        assert back.summary["features"] == 20
        x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(found(x), dictionary(x), atol=1e-5, rtol=1e-5)


def test_parts_are_those_that_were_written(tmp_path: Path) -> None:
    """SAELens has no class that trains a transcoder."""
    drawn(tmp_path / "run", kind="transcoder", writes={"b": 5}, activation="relu")
    done = export(str(tmp_path / "run"), None, ExportConfig(to="saelens"))
    assert done.summary == {"to": "saelens", "parts": ["inference"]}
    assert [part.name for part in done.path.iterdir()] == ["inference"]


def test_what_was_brought_is_recorded_and_not_written_over(tmp_path: Path) -> None:
    drawn(tmp_path / "run")
    source, out = tmp_path / "run" / "sae_final.pt", tmp_path / "out"
    done = bring(str(source), out, BringConfig(site="layer"))
    stage = run.read(out)["stages"]["import-dictionary"]
    assert stage["config"] == {"site": "layer", "writes": None}
    assert stage["inputs"] == {"source": files.digest_file(source)}
    assert stage["summary"] == done.summary
    assert read_yaml(out / "config.yaml") == {"import-dictionary": stage["config"]}
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    drawn(tmp_path / "run", k=4)
    with pytest.raises(ConfigError) as told:
        bring(str(source), out, BringConfig())
    assert str(told.value) == (
        f"{out / 'sae_final.pt'}: there is a dictionary already. Give another --output, or delete that file."
    )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "sae_final.pt").unlink()
    assert bring(str(source), out, BringConfig()).summary["k"] == 4
    assert run.read(out)["stages"]["import-dictionary"]["summary"]["k"] == 4


def test_sites_are_renamed_where_there_is_one_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def brought(config: BringConfig, **settings: Any) -> DictionarySpec:
        dictionary = drawn(tmp_path / "run", **settings)
        monkeypatch.setattr("elute.dictionaries.foreign.read_any", lambda _: dictionary)
        monkeypatch.setattr("elute.dictionaries.foreign.sniff", lambda _: "saelens")
        (tmp_path / "out" / "sae_final.pt").unlink(missing_ok=True)
        return load_dictionary(bring("somewhere", tmp_path / "out", config).path).spec

    assert brought(BringConfig()).reads == {"a": WIDTH}
    spec = brought(BringConfig(site="here"))
    assert spec.reads == spec.writes == {"here": WIDTH}
    assert brought(BringConfig(site="here", writes="here")).same
    with pytest.raises(
        ConfigError, match=r"^a sparse autoencoder writes the site that it reads\. Leave --writes out\.$"
    ):
        brought(BringConfig(site="here", writes="there"))
    transcoder = {"kind": "transcoder", "writes": {"b": 5}}
    spec = brought(BringConfig(site="here", writes="there"), **transcoder)
    assert (spec.reads, spec.writes) == ({"here": WIDTH}, {"there": 5})
    spec = brought(BringConfig(writes="there"), **transcoder)
    assert (spec.reads, spec.writes) == ({"a": WIDTH}, {"there": 5})
    sites = {"a": WIDTH, "b": 5}
    with pytest.raises(ConfigError, match="renamed where one is read and one written"):
        brought(BringConfig(site="x"), kind="crosscoder", reads=sites, writes=sites)


def test_pushing_needs_a_repository_and_a_run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"the repository is missing\. Give --repo owner/name\."):
        export(str(tmp_path / "run"), None, ExportConfig(to="hub"))
    with pytest.raises(ConfigError, match="a whole run is pushed"):
        export(str(tmp_path / "run" / "sae_final.pt"), None, ExportConfig(to="hub", repo="me/mine"))
    judge(str(tmp_path / "run"), store, EvalConfig())
    pushed: list[Any] = []
    monkeypatch.setattr("elute.dictionaries.hub.push", lambda *a, **k: pushed.append((a, k)) or "hf://me/mine@abc")
    done = export(str(tmp_path / "run"), None, ExportConfig(to="hub", repo="me/mine", private=True))
    assert pushed == [((tmp_path / "run", "me/mine"), {"private": True})]
    assert done.summary == {"to": "hub", "address": "hf://me/mine@abc"}
    card = (tmp_path / "run" / "README.md").read_text()
    told = json.loads((tmp_path / "run" / EVALUATION).read_text())
    assert f"- explained variance {told['explained_variance']:.3f}; as many principal directions: " in card
    assert (tmp_path / "run" / "saelens").is_dir()
    (tmp_path / "run" / "README.md").write_text("mine")
    export(str(tmp_path / "run"), None, ExportConfig(to="hub", repo="me/mine"))
    assert (tmp_path / "run" / "README.md").read_text() == "mine", "a card that is there is kept"


def test_what_is_not_there(store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for call in (
        lambda: judge(str(tmp_path / "empty"), store, EvalConfig()),
        lambda: judge(str(tmp_path / "nowhere"), store, EvalConfig()),
        lambda: export(str(tmp_path / "empty"), None, ExportConfig(to="saelens")),
        lambda: bring(str(tmp_path / "empty"), tmp_path / "out", BringConfig()),
        lambda: bring(str(tmp_path / "nowhere"), tmp_path / "out", BringConfig()),
    ):
        with pytest.raises(EluteError) as told:
            call()
        assert "\n" not in str(told.value)
    assert not (tmp_path / "out" / "sae_final.pt").exists()


def test_numbers_are_those_of_the_dictionary(store: Path, tmp_path: Path) -> None:
    """What comes back through `judge` is what the dictionary does."""
    dictionary = drawn(tmp_path / "run")
    x = torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(1))
    answer = judge(str(tmp_path / "run"), store, EvalConfig()).summary
    y = dictionary(x)
    assert answer["mse"] == pytest.approx(float((x - y).square().mean()), rel=1e-5)
    assert answer["l0"] == pytest.approx(np.mean((dictionary.encode(x).values != 0).sum(1).numpy()))
    assert module.EVALUATION == "evaluation.json"
