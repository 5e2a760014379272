"""The graph of one choice of a policy: what is written, what it is held against, and what cannot be asked."""

from __future__ import annotations

import csv
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from elute.base.errors import ConfigError, DataError, EluteError
from elute.cli.main import main
from elute.graphs.read import read_graph
from elute.graphs.schema import check_graph_file
from elute.graphs.settings import GraphConfig
from elute.models.routing.decoding import decode, replay
from elute.models.routing.instances import draw
from elute.models.routing.settings import InstanceConfig
from elute.models.routing_policy import load
from elute.routing.cause_settings import HELD_OUT_SEED
from elute.routing.clt_settings import CltConfig, EpochsConfig, Settings
from elute.routing.clt_training import train_clt
from elute.routing.graph_settings import RoutingGraphConfig
from elute.routing.graphs import graph_run, show

pytestmark = pytest.mark.usefixtures("one_thread")
ASKED = RoutingGraphConfig(instance="3", step=2, others=1)
FEW = GraphConfig(ablated=12)


@cache
def made(tiny_run: Path, place: Path) -> Path:
    folder = Path(shutil.copytree(tiny_run, place / "tiny"))
    settings = Settings(epochs=EpochsConfig(num_epochs=25, batch_size=64, save_freq=25, device="cpu"))
    train_clt(folder, CltConfig(expansion_factor=2, k=4, num_instances=60), settings)
    return folder


_place: list[Path] = []


@pytest.fixture(scope="session", name="run")
def run_with_transcoders(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a cross-layer transcoder and those of single layers; graphs may be added."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    if not _place:
        _place.append(tmp_path_factory.mktemp("graphs"))
    folder = made(tiny_run, _place[0])
    torch.set_num_threads(before)
    return folder


def test_both_graphs_are_written_checked_and_used_again(run: Path) -> None:
    artifact = graph_run(run, ASKED, FEW)
    folder, summary = artifact.path, artifact.summary
    slug = f"uniform-8-s{HELD_OUT_SEED}-3-step2"
    assert folder == run / "graphs" / slug
    listed = json.loads((folder / "graph-metadata.json").read_text())["graphs"]
    assert [one["slug"] for one in listed] == [slug, f"{slug}-layers"]
    for name in (slug, f"{slug}-layers"):
        content = check_graph_file(folder / f"{name}.json")
        assert len(content["metadata"]["prompt_tokens"]) == 8
        assert (folder / f"{name}.graphml").is_file()
        table = list(csv.DictReader((folder / f"{name}.edges.csv").read_text().splitlines()))
        assert len(table) == len(content["links"])
        heads = list(csv.DictReader((folder / f"{name}.heads.csv").read_text().splitlines()))
        assert {row["target"][:7] for row in heads} <= {"layer 1", "layer 2"}
    for page in ("graph.html", "graph-layers.html"):
        assert "Content-Security-Policy" in (folder / page).read_text()
    checks = json.loads((folder / "checks.json").read_text())
    assert (checks["instance"], checks["step"]) == (f"uniform-8-s{HELD_OUT_SEED}-3", 2)
    names = [one["name"] for one in checks["others"]]
    assert checks["name"] == "cross-layer transcoder"
    assert names[0] == "transcoders of single layers"
    assert [name for name in names if name.endswith("decoders shuffled")] == names[1:]
    for one in (checks, checks["others"][0]):
        assert one["edges"]["edges"] == one["links"]
        assert one["edges"]["largest"] < 1e-4
        assert 0 < one["scores"]["replacement"] < 1
        assert -1 <= one["agreement"]["change"] <= 1
        assert one["elsewhere"]["inputs"][0]["instance"].endswith("-4")
        assert one["not_linear"] == ["decoder.pointer: bmm", "decoder.pointer: tanh"]
        assert one["into_outputs"]["edges"] > 0
    for layer, wrong in zip(checks["layers"], checks["others"][1]["layers"], strict=True):
        assert wrong["l0"] == layer["l0"]
        assert wrong["explained_variance"] < layer["explained_variance"]
    text = show({"kind": artifact.kind, "path": str(folder), **summary})
    assert "checked by interventions" in text
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = graph_run(run, ASKED, FEW)
    assert again.summary == {**summary, "reused": True}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_explained_is_the_policys_own_choice(run: Path) -> None:
    config = RoutingGraphConfig(instance=f"uniform-8-s{HELD_OUT_SEED}-5", step=4, others=0, dictionaries="clt")
    artifact = graph_run(run, config, GraphConfig(ablated=0, shuffled=False))
    assert artifact.path.name.endswith("-5-step4-clt")
    graph = read_graph(artifact.path / f"{artifact.path.name}.json").graph
    model = load(run, device="cpu")
    drawn = draw(InstanceConfig(num_instances=6, num_loc=8, seed=HELD_OUT_SEED)).part(5, 6)
    tour = decode(model, drawn).actions
    assert artifact.summary["tour"] == tour[0].tolist()
    shares = replay(model, drawn, tour)[0, 4].softmax(-1)
    explained = graph.nodes.filter(graph.of("logit"))
    order = shares.argsort(descending=True).tolist()[: explained.height]
    assert explained["feature"].to_list() == order
    assert explained["weight"].to_numpy() == pytest.approx(shares[order].numpy(), abs=1e-5)
    assert set(explained["position"]) == {int(tour[0, 3])}
    assert graph.prompt[int(tour[0, 0])].endswith("(first)")
    assert graph.prompt[int(tour[0, 3])].endswith("(current)")
    assert sum("visited" in word for word in graph.prompt) == 2


def test_an_uncertain_step_is_found(run: Path) -> None:
    config = RoutingGraphConfig(instance="7", others=0, dictionaries="transcoder")
    artifact = graph_run(run, config, GraphConfig(ablated=0, shuffled=False))
    model = load(run, device="cpu")
    drawn = draw(InstanceConfig(num_instances=8, num_loc=8, seed=HELD_OUT_SEED)).part(7, 8)
    shares = replay(model, drawn, decode(model, drawn).actions)[0].softmax(-1)
    entropy = torch.special.entr(shares.double()).sum(-1)
    assert artifact.summary["step"] == int(entropy[1:7].argmax()) + 1
    assert list(artifact.summary["graphs"]) == ["transcoders of single layers"]


def test_features_are_named_by_what_they_follow(run: Path) -> None:
    from elute.graphs.result import explain
    from elute.routing.graph_inputs import open_inputs
    from elute.routing.graph_meaning import meanings

    given = open_inputs(run, ASKED)
    stand = given.stands[0]
    told = meanings(given, explain(given.choices[0].replacement(given.model, stand, given.layers), FEW))
    assert told
    batch = {"coords": given.seen.coords.double(), "actions": None, "ids": given.seen.ids}
    rows = given.model.capture(batch, list(given.layers.reads))
    codes = stand.given.encode({name: rows[name] for name in given.layers.reads})  # type: ignore[union-attr]
    name, one = next(iter(told.items()))
    layer, feature = map(int, name.split("_"))
    mine = codes.dense()[:, layer * 32 + feature]
    assert one["facts"]["fires in"] == f"{float((mine != 0).double().mean()):.1%} of nodes"
    assert one["examples"][0]["value"] == pytest.approx(float(mine.max()))
    at = int(mine.argmax())
    assert one["examples"][0]["what"] == f"{given.seen.ids[at // 8]}, node {at % 8}"


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({"instance": "soon"}, ConfigError, "there is no instance 'soon'"),
        ({"instance": "uniform-9-s1-3"}, ConfigError, "those that are drawn are called uniform-8-s7919-NUMBER"),
        ({"step": 7}, ConfigError, "there is nothing to choose"),
        ({"instance_seed": 0}, ConfigError, "are among those of its rows"),
        ({"checkpoint": "77"}, EluteError, "77"),
    ],
)
def test_what_cannot_be_asked(run: Path, config: dict[str, Any], error: type[EluteError], text: str) -> None:
    with pytest.raises(error, match=text):
        graph_run(run, RoutingGraphConfig(**config), FEW)


def test_a_run_without_transcoders(own_run: Path) -> None:
    for kind in ("both", "clt", "transcoder"):
        with pytest.raises(DataError, match="elute routing train-clt"):
            graph_run(own_run, RoutingGraphConfig(dictionaries=kind), FEW)  # type: ignore[arg-type]
    assert not (own_run / "graphs").exists()


def test_another_training_by_name(run: Path) -> None:
    with pytest.raises(DataError, match="there is no run 'tomorrow'"):
        graph_run(run, ASKED, FEW, clt_run="tomorrow")


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["routing", "graph", "--run-dir", str(run), "--instance", "3", "--step", "2", "--others", "1"]
    assert main([*words, "--ablated", "12"]) == 0
    assert "through the cross-layer transcoder" in capsys.readouterr().out
    assert main(["routing", "graph", "--run-dir", str(run), "--step", "99"]) != 0
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "nothing to choose" in told[0]
