"""Pairs are collected once, in one order, on split instances; a kill costs nothing, and no place is written over."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import elute
from elute.base import files
from elute.base.errors import ConfigError, DataError, GuardError, SpaceError
from elute.models.routing.instances import draw
from elute.models.routing.policy import begin
from elute.models.routing.settings import InstanceConfig, PolicyConfig
from elute.routing import collecting, pair_places
from elute.routing.collecting import collect_pairs, splits_of
from elute.routing.inspecting import measure_pair
from elute.routing.pair_plans import config_path
from elute.routing.pair_settings import PairsConfig, PairSpec
from elute.routing.pair_sources import PairSource
from elute.routing.pairs import open_pair
from elute.store import layout

pytestmark = pytest.mark.usefixtures("one_thread")
ONE = "encoder_layer_0:encoder_layer_2"
SHARD = 64 * 2 * 16 * 4  # bytes of 64 rows


def config(**given: Any) -> PairsConfig:
    return PairsConfig(**{"layer_pairs": ONE, "num_instances_per_pair": 40, **given})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def rows_by_hand(run: Path, numbers: range, site: str) -> torch.Tensor:
    """One instance after another through the policy's modules, without hooks."""
    policy = elute.load_model("routing_policy", run=run).policy
    found = []
    for number in numbers:
        h = policy.init_embed(draw(InstanceConfig(num_instances=1, num_loc=8, first=number)).coords)
        for i, layer in enumerate(policy.encoder.layers):
            u = layer.norm1(h + layer.attention(h))
            parts = {f"encoder_layer_{i}.mlp.input": u, f"encoder_layer_{i}.mlp": layer.mlp(u)}
            h = layer.norm2(u + layer.mlp(u))
            parts[f"encoder_layer_{i}"] = h
            if site in parts:
                found.append(parts[site][0])
    return torch.cat(found)


def test_rows_are_what_the_policy_makes_of_each_node(tiny_pairs: Path) -> None:
    for name in ("clt_L0_to_L2", "clt_L0_mlp_input_to_L0_mlp"):
        pair = open_pair(tiny_pairs, name)
        x, y, frame = pair.read(most=12 * 8)
        torch.testing.assert_close(x, rows_by_hand(tiny_pairs, range(12), pair.source), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(y, rows_by_hand(tiny_pairs, range(12), pair.target), rtol=1e-4, atol=1e-4)
        assert frame["sample_id"].to_list() == [f"uniform-8-s0-{i}" for i in range(12) for _ in range(8)]
        assert frame["position"].to_list() == [*range(8)] * 12


def test_a_row_of_the_decoder_reads_the_node_where_the_tour_stands(tiny_pairs: Path) -> None:
    """The query, computed by hand from the first node and the current one, is the row's target."""
    pair = open_pair(tiny_pairs, "clt_output_to_query")
    x, y, frame = pair.read()
    assert len(x) == 60 * 7
    assert frame["position"].to_list() == [*range(1, 8)] * 60
    h = rows_by_hand(tiny_pairs, range(60), "encoder_layer_2").view(60, 8, 16)
    instance = torch.arange(60).repeat_interleave(7)
    current = torch.tensor(frame["current"].to_list())
    torch.testing.assert_close(x, h[instance, current], rtol=1e-4, atol=1e-4)
    decoder = elute.load_model("routing_policy", run=tiny_pairs).policy.decoder
    first = current.view(60, 7)[:, :1].expand(-1, 7).reshape(-1)
    want = decoder.context.first(h[instance, first]) + decoder.context.current(h[instance, current])
    torch.testing.assert_close(y, want, rtol=1e-3, atol=1e-3)
    assert pair.record["row"] == "a step, its source the node where the tour stands"


def test_several_sites_make_one_pair(own_run: Path) -> None:
    sides = ["+".join(f"encoder_layer_{i}.mlp{part}" for i in range(3)) for part in (".input", "")]
    collect_pairs(own_run, config(layer_pairs=":".join(sides)))
    pair = open_pair(own_run, "clt_L0-L1-L2_mlp_input_to_L0-L1-L2_mlp")
    assert pair.widths == (48, 48)
    assert len(pair.store.sites) == 6
    x, y, _ = pair.read(most=40)
    torch.testing.assert_close(
        x[:, 16:32], rows_by_hand(own_run, range(5), "encoder_layer_1.mlp.input"), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(y[:, 32:], rows_by_hand(own_run, range(5), "encoder_layer_2.mlp"), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="the pair has 3 sites on a side"):
        _ = pair.source


def test_splits_are_of_instances_and_do_not_depend_on_how_many_there_are() -> None:
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    found = splits_of(range(1000), shares, 0)
    assert Counter(found) == {"train": 800, "validation": 100, "test": 100}
    assert splits_of(range(130), shares, 0) == found[:130]
    assert splits_of(range(507, 530), shares, 0) == found[507:530]
    assert splits_of(range(1000), shares, 1) != found
    assert (
        len(set(map(tuple, (found[i : i + 20] for i in range(0, 1000, 20))))) > 40
    )  # each block in an order of its own


def test_nodes_that_are_drawn_are_some_of_all(own_run: Path, tiny_pairs: Path) -> None:
    collect_pairs(own_run, config(nodes_per_instance=3))
    pair = open_pair(own_run, "clt_L0_to_L2")
    x, _, frame = pair.read()
    assert len(x) == 40 * 3
    every, _, all_rows = open_pair(tiny_pairs, "clt_L0_to_L2").read()
    places = {key: i for i, key in enumerate(all_rows.select("sample_id", "position").iter_rows())}
    mine = [places[key] for key in frame.select("sample_id", "position").iter_rows()]
    assert mine == sorted(set(mine))
    torch.testing.assert_close(x, every[mine], rtol=1e-4, atol=1e-4)
    assert len(set(frame["position"].to_list())) == 8
    with pytest.raises(ConfigError, match="nodes_per_instance=9, and an instance has 8 rows"):
        collect_pairs(own_run, config(nodes_per_instance=9, recapture=True))


def test_killed_and_run_again_it_leaves_the_same_bytes(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed at the third shard; then one that stops before the rows are measured, and before the end."""
    whole = tmp_path / "whole" / "tiny"
    shutil.copytree(own_run, whole)
    monkeypatch.setattr(layout, "DEFAULT_SHARD_BYTES", SHARD)
    monkeypatch.setattr("elute.models.routing_policy.BATCH", 7)
    monkeypatch.setattr("elute.routing.pair_sources.BATCH", 7)
    collect_pairs(whole, config(), device="cpu")
    code = f"""
import os, signal, torch
torch.set_num_threads(1)
from elute.routing import collecting, pair_sources
from elute.routing.pair_settings import PairsConfig
from elute.store import layout
layout.DEFAULT_SHARD_BYTES = {SHARD}
pair_sources.BATCH = 7
write = layout.write_manifest
def killed(folder, manifest):
    write(folder, manifest)
    if len(manifest.shards) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
layout.write_manifest = killed
collecting.collect_pairs({str(own_run)!r}, PairsConfig(**{config().model_dump()!r}), device="cpu")
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    place = pair_places.activations(own_run) / "clt_L0_to_L2"
    assert json.loads((place / "manifest.json").read_text())["complete"] is False
    with pytest.raises(DataError, match="was not collected to its end"):
        open_pair(own_run, "clt_L0_to_L2")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for name in ("measure", "_described"):
        with monkeypatch.context() as patch:
            patch.setattr(collecting, name, stop)
            with pytest.raises(KeyboardInterrupt):
                collect_pairs(own_run, config(), device="cpu")
        assert not (place / "metadata.json").exists()
    assert collect_pairs(own_run, config(), device="cpu").summary["pairs"]["clt_L0_to_L2"]["reused"] is True
    assert contents(own_run / "clt") == contents(whole / "clt")
    assert len(list(place.glob("*.safetensors"))) == 5


def test_what_is_there_is_used_and_other_settings_are_refused(own_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(own_pairs / "clt")
    same = config(num_instances_per_pair=60)
    with monkeypatch.context() as patch:
        patch.setattr(PairSource, "capture", None)
        told = collect_pairs(own_pairs, same, device="cpu").summary["pairs"]["clt_L0_to_L2"]
    assert told["reused"] is True
    assert told["rows"] == 480
    assert contents(own_pairs / "clt") == before
    with pytest.raises(GuardError, match="the input instances changed.*--recapture"):
        collect_pairs(own_pairs, config(num_instances_per_pair=80))
    with pytest.raises(GuardError, match="the model's weights .* have changed"):
        collect_pairs(own_pairs, same, checkpoint=0)
    assert contents(own_pairs / "clt") == before
    collect_pairs(own_pairs, config(num_instances_per_pair=80, recapture=True), checkpoint=0)
    pair = open_pair(own_pairs, "clt_L0_to_L2")
    assert len(pair.ids()) == 80
    assert pair.record["checkpoint"] == "checkpoint_epoch_0.ckpt"
    assert pair.model().name == "tiny, checkpoint_epoch_0"


def test_a_policy_that_changed_since_is_refused(own_pairs: Path) -> None:
    pair = open_pair(own_pairs, "clt_L0_to_L2")
    paths = [own_pairs / "checkpoints" / f"checkpoint_epoch_{i}.ckpt" for i in (0, 1)]
    paths[1].write_bytes(paths[0].read_bytes())
    with pytest.raises(GuardError, match="weights .* have changed"):
        pair.model()


def test_rows_lie_under_the_storage_root(own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "disk"
    with pytest.raises(SpaceError, match="there is no such storage root. Is the disk there"):
        collect_pairs(own_run, config(), storage_root=root)
    assert not root.exists()
    assert not (own_run / "clt").exists()
    root.mkdir()
    monkeypatch.setenv("ACTIVATIONS_ROOT", str(root))
    collect_pairs(own_run, config())
    place = root / "tiny" / "clt" / "activations" / "clt_L0_to_L2"
    told = json.loads((own_run / "clt" / "activation_store.json").read_text())
    assert told == {"activations_dir": str(place.parent), "pairs": {"clt_L0_to_L2": str(place)}}
    assert open_pair(own_run, "clt_L0_to_L2").folder == place
    assert not (own_run / "clt" / "activations").exists()
    monkeypatch.delenv("ACTIVATIONS_ROOT")
    assert collect_pairs(own_run, config()).summary["pairs"]["clt_L0_to_L2"]["reused"] is True  # where it lies
    root.rename(tmp_path / "gone")
    with pytest.raises(DataError, match="lay there, and are gone. Is the disk there"):
        open_pair(own_run, "clt_L0_to_L2")
    with pytest.raises(SpaceError, match="the storage of clt_L0_to_L2 is gone"):
        collect_pairs(own_run, config())
    collect_pairs(own_run, config(recapture=True))
    assert open_pair(own_run, "clt_L0_to_L2").folder == own_run / "clt" / "activations" / "clt_L0_to_L2"


def test_a_full_disk_is_told_before_anything_is_written(own_pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    with pytest.raises(SpaceError, match="are to come, and there is room for"):
        collect_pairs(own_pairs, config(layer_pairs="encoder_layer_0:encoder_layer_1"))
    monkeypatch.undo()
    assert open_pair(own_pairs, "clt_L0_to_L2").ids()
    collect_pairs(own_pairs, config(layer_pairs="encoder_layer_0:encoder_layer_1"))
    assert len(open_pair(own_pairs, "clt_L0_to_L1").ids()) == 40


def test_a_pairs_file_says_what_is_collected_and_how(own_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pair is named.*or write .*configs/tiny.json"):
        collect_pairs(own_run, PairsConfig())
    path = config_path(own_run)
    path.parent.mkdir(parents=True)
    plans = [
        {"layers": ONE, "k_ratio": 0.1, "expansion_factor": 4, "sampling": "nodes", "nodes_per_instance": 2},
        {"layers": "encoder_layer_1:encoder_output", "num_instances": 20, "distribution": "clustered", "num_loc": 10},
    ]
    path.write_text(json.dumps({"num_instances_per_pair": 40, "pairs": plans}))
    told = collect_pairs(own_run, PairsConfig()).summary["pairs"]
    assert {name: pair["rows"] for name, pair in told.items()} == {"clt_L0_to_L2": 80, "clt_L1_to_output": 200}
    one, other = open_pair(own_run, "clt_L0_to_L2"), open_pair(own_run, "clt_L1_to_output")
    assert one.sparsity == {"k_ratio": 0.1, "expansion_factor": 4.0}
    assert other.sparsity == {}
    assert other.ids()[0] == "clustered-10-s0-0"
    asked = config(nodes_per_instance=5, num_instances_per_pair=20, recapture=True)  # the command line wins
    assert collect_pairs(own_run, asked).summary["pairs"]["clt_L0_to_L2"]["rows"] == 100
    written = tmp_path / "pairs.yaml"
    written.write_text(f"pairs:\n- layers: {ONE}\n  k: 3\n")
    collect_pairs(own_run, PairsConfig(num_instances_per_pair=20, recapture=True), pairs_file=written)
    assert open_pair(own_run, "clt_L0_to_L2").sparsity == {"k": 3}
    for text, fault in (
        ("[1]", "is no pairs' file"),
        ('{"pairs": [{"layers": "a:b", "kk": 1}]}', "kk"),
        ("{", "is not a pairs' file"),
    ):
        path.write_text(text)
        with pytest.raises((ConfigError, DataError), match=fault):
            collect_pairs(own_run, PairsConfig())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"layer_pairs": "encoder_layer_2:encoder_output"}, "the pair is the identity"),
        ({"layer_pairs": "encoder_layer_0:encoder_layer_9"}, "Did you mean 'encoder_layer_2'"),
        ({"layer_pairs": f"{ONE},encoder_layer_2:encoder_layer_0"}, "is computed before"),
        ({"num_instances_per_pair": 3}, "3 instances leave none to"),
        ({"layer_pairs": "encoder_output:encoder_output+decoder_query"}, "the pair is the identity"),
        ({"layer_pairs": "encoder_layer_0:encoder_layer_1+decoder_query"}, "Make two pairs of them"),
    ],
)
def test_what_cannot_be_collected_is_one_line_and_leaves_nothing(own_run: Path, given: Any, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        collect_pairs(own_run, config(**given))
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(own_run.glob("clt/**/manifest.json"))


def test_a_checkpoint_that_is_missing_is_one_line(own_run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no checkpoint of epoch 7. There are those of epochs 0, 1"):
        collect_pairs(own_run, config(), checkpoint=7)
    shutil.rmtree(own_run / "checkpoints")
    with pytest.raises(DataError, match="there is no checkpoint in checkpoints/"):
        collect_pairs(own_run, config())
    with pytest.raises(DataError, match="there is no such run"):
        collect_pairs(tmp_path / "nowhere", config())


def test_a_checkpoint_from_elsewhere_is_found_again(own_run: Path, tmp_path: Path) -> None:
    path = (own_run / "checkpoints" / "checkpoint_epoch_0.ckpt").rename(tmp_path / "mine.ckpt")
    collect_pairs(own_run, config(), checkpoint=str(path))
    assert open_pair(own_run, "clt_L0_to_L2").model().name == "tiny, mine"


def test_the_settings_of_another_library_tell_the_nodes(own_run: Path) -> None:
    held = json.loads((own_run / "config.json").read_text())
    del held["policy_training"]
    path = own_run / "config.json"
    path.write_text(json.dumps({**held, "env": {"generator_params": {"num_loc": 9}}}))
    collect_pairs(own_run, config())
    assert open_pair(own_run, "clt_L0_to_L2").ids()[0] == "uniform-9-s0-0"
    path.write_text(json.dumps(held))
    with pytest.raises(ConfigError, match="Give --num_loc"):
        collect_pairs(own_run, config(recapture=True))
    collect_pairs(own_run, config(recapture=True, num_loc=7))
    assert open_pair(own_run, "clt_L0_to_L2").store.manifest.rows == 280


def test_pairs_of_a_policy_of_another_library(own_run: Path) -> None:
    """A checkpoint of rl4co, laid out by hand from our own policy's weights, gives the rows that ours does."""
    ours = elute.load_model("routing_policy", run=own_run).policy.state_dict()
    held = {}
    for name, x in ours.items():
        at = name.replace("encoder.layers.", "encoder.net.layers.").replace(
            "init_embed.", "encoder.init_embedding.init_embed."
        )
        for mine, theirs in (
            ("attention.into", "0.module.Wqkv"), ("attention.out", "0.module.out_proj"), ("norm1", "1.normalizer"),
            ("mlp.0", "2.module.lins.0"), ("mlp.2", "2.module.lins.1"), ("norm2", "3.normalizer"),
            ("decoder.project.", "decoder.project_node_embeddings."), ("pointer.out", "pointer.project_out"),
        ):  # fmt: skip
            at = at.replace(mine, theirs)
        held["policy." + at] = x
    both = [held.pop(f"policy.decoder.context.{side}.weight") for side in ("first", "current")]
    held["policy.decoder.context_embedding.project_context.weight"] = torch.cat(both, 1)
    held["policy.decoder.context_embedding.W_placeholder"] = held.pop("policy.decoder.context.nowhere").reshape(-1)
    shutil.rmtree(own_run / "checkpoints")
    (own_run / "checkpoints").mkdir()
    torch.save({"state_dict": held, "epoch": 4}, own_run / "checkpoints" / "checkpoint_epoch_4.ckpt")
    settings = {"model": "POMO", "num_heads": 2, "env": {"generator_params": {"num_loc": 8}}}
    before = rows_by_hand_of(ours, own_run)
    (own_run / "config.json").write_text(json.dumps(settings))
    collect_pairs(own_run, config(layer_pairs=f"{ONE},encoder_output:decoder_query"))
    pair = open_pair(own_run, "clt_L0_to_L2")
    torch.testing.assert_close(pair.read(most=16)[1], before, rtol=1e-4, atol=1e-4)
    assert pair.model().name == "tiny, checkpoint_epoch_4"


def rows_by_hand_of(weights: dict[str, torch.Tensor], run: Path) -> torch.Tensor:
    policy = begin(PolicyConfig(**json.loads((run / "config.json").read_text())["policy"]), 1)
    policy.load_state_dict(weights)
    coords = draw(InstanceConfig(num_instances=2, num_loc=8)).coords
    with torch.no_grad():
        return policy.eval().encode(coords).reshape(-1, 16)


def test_instances_may_begin_anywhere_and_rows_may_be_small(own_run: Path) -> None:
    collect_pairs(own_run, config(first=33, nodes_per_instance=4, dtype="bf16", seed=3))
    pair = open_pair(own_run, "clt_L0_to_L2")
    assert pair.ids()[0] == "uniform-8-s3-33"
    assert pair.store.manifest.dtype == "bf16"
    assert measure_pair(pair)["checked_instances"] == 4
    assert pair.instances("train").ids == pair.ids("train")


def test_one_file_serves_all_commands(own_run: Path, tmp_path: Path) -> None:
    from elute.cli.main import elute as program

    file = tmp_path / "all.yaml"
    file.write_text(
        f"pairs: {{layer_pairs: '{ONE}', num_instances_per_pair: 40}}\ninspect: {{check_instances: 1, plots: false}}\n"
        "transcoder: {}\npatch: {}\npolicy_training: {steps: 5}\n"
    )
    for name in ("collect-pairs", "inspect-pairs"):
        done = CliRunner().invoke(program, ["routing", name, "--run-dir", str(own_run), "--config", str(file)])
        assert done.exit_code == 0, done.exception
    told = json.loads((own_run / "clt" / "inspect" / "clt_L0_to_L2" / "inspection.json").read_text())
    assert told["checked_instances"] == 1


def test_a_pair_is_a_model_with_the_contract_of_one(tiny_pairs: Path) -> None:
    model = elute.load_model("routing_policy", run=tiny_pairs)
    source = PairSource(model, PairSpec(("encoder_layer_0",), ("encoder_layer_2",)))
    assert source.fingerprint() == model.fingerprint()
    instances = draw(InstanceConfig(num_instances=5, num_loc=8))
    ((batch, frame),) = source.batches(instances)
    assert "split" not in frame.columns
    assert set(source.capture(batch, ["target_encoder_layer_2"])) == {"target_encoder_layer_2"}
    with source.patch({"source_encoder_layer_0": lambda x, _: torch.zeros_like(x)}):
        assert float(source.capture(batch)["source_encoder_layer_0"].abs().max()) == 0.0
        source(batch)


def test_the_command_says_what_it_did(own_run: Path) -> None:
    from elute.cli.main import elute as program

    words = [
        "routing",
        "collect_pairs",
        "--run_dir",
        str(own_run),
        "--layer_pairs",
        ONE,
        "--num_instances_per_pair",
        "40",
    ]
    done = CliRunner().invoke(program, [*words, "--format", "pt", "--device", "cpu"], catch_exceptions=False)
    assert "clt_L0_to_L2        320 rows (instances: train 32, validation 4, test 4)" in done.stdout
    assert (own_run / "clt" / "activations" / "clt_L0_to_L2" / "sources.pt").is_file()
    again = CliRunner().invoke(program, [*words, "--json"], catch_exceptions=False)
    told = json.loads(again.stdout)
    assert told["pairs"]["clt_L0_to_L2"]["reused"] is True
