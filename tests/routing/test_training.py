"""A policy learns, a run that was killed ends with the same bytes, and what lies there is never written over."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import elute
from elute.base.errors import ConfigError, DataError
from elute.engine.fit import Fit
from elute.models.routing import checkpoint
from elute.models.routing.instances import draw, tour_lengths
from elute.models.routing.policy import begin
from elute.models.routing.settings import PolicyConfig
from elute.routing import scoring, training
from elute.routing.learning_policy import PolicyObjective, PolicyStream
from elute.routing.policy_settings import PolicyTrainConfig
from elute.routing.training import show, train_policy

pytestmark = pytest.mark.usefixtures("one_thread")
POLICY = PolicyConfig(embed_dim=16, num_encoder_layers=1, num_heads=2, feedforward_hidden=16)
SMALL = PolicyTrainConfig(num_loc=6, steps=9, batch_size=8, epochs=3, held_out=20, lr=5e-3)
FILES = ("config.json", "config.yaml", "metrics.jsonl", "run.json", "training_metrics.json", "training_metrics.jsonl",
         *(f"checkpoints/checkpoint_epoch_{i}.ckpt" for i in range(3)))  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, train_policy(folder, SMALL, POLICY).summary


def same_bytes(one: Path, other: Path) -> None:
    names = {str(p.relative_to(one)) for p in one.rglob("*") if p.is_file() and p.name != ".lock"}
    assert names == set(FILES)
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_policy_learns(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"steps": 100, "batch_size": 16, "epochs": 1, "held_out": 60})
    summary = train_policy(tmp_path / "run", config, POLICY).summary
    rows = {row["tours"]: row for row in summary["score"]["rows"]}
    untrained = elute.load_model("routing_policy", run=tmp_path / "run", random_weights=True)
    before = scoring.score(untrained, draw(config.instances(60)), hows=("greedy",))["rows"][0]
    assert rows["greedy"]["gap"] < 0.6 * before["gap"]
    assert rows["greedy"]["gap"] < 0.4 * rows["random order"]["gap"]
    assert 0 <= rows["augment8"]["gap"] <= rows["multistart"]["gap"] < rows["greedy"]["gap"]
    assert summary["score"]["reference"] == "optimum"
    first, last = (
        json.loads(line) for line in (tmp_path / "run" / "training_metrics.jsonl").read_text().splitlines()[::2]
    )
    assert last["tour_length"] < first["tour_length"]


def test_what_is_written_is_what_was_judged(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    assert checkpoint.epochs(folder) == [0, 1, 2]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(0, 3), (1, 6), (2, 9)]
    assert lines[-1]["greedy"] == {k: v for k, v in summary["score"]["rows"][0].items() if k != "tours"}
    model = elute.load_model("routing_policy", run=folder)
    assert model.fingerprint().as_json() == summary["model"]
    first = elute.load_model("routing_policy", run=folder, checkpoint=0)
    assert first.fingerprint().weights != model.fingerprint().weights
    assert first.name == "small, checkpoint_epoch_0"
    assert elute.load_model(folder).fingerprint().weights == model.fingerprint().weights
    told = show({**summary, "path": str(folder)})
    assert "20 held-out instances of 6 nodes; gaps to the shortest tours" in told
    assert "nearest node + 2-opt" in told
    assert not (folder / "checkpoint.pt").exists()
    assert json.loads((folder / "config.json").read_text())["policy"]["embed_dim"] == 16


def test_stopped_between_an_epoch_and_a_checkpoint_it_ends_with_the_same_bytes(
    tmp_path: Path, done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint to go on from is of step 5; the second epoch, closed at step 6, is done again."""
    gradient, save = PolicyObjective.gradient, Fit._save

    def stopped(self: PolicyObjective, rows: Any, *, step: int, total_rows: int) -> Any:
        if step == 7:
            raise KeyboardInterrupt
        return gradient(self, rows, step=step, total_rows=total_rows)

    folder = tmp_path / "small"
    often = SMALL.model_copy(update={"checkpoint_seconds": 0.0})
    with monkeypatch.context() as patch:
        patch.setattr(PolicyObjective, "gradient", stopped)
        patch.setattr(Fit, "_save", lambda self, *args: save(self, *args) if self.step == 5 else None)
        with pytest.raises(KeyboardInterrupt):
            train_policy(folder, often, POLICY)
    assert checkpoint.epochs(folder) == [0, 1]
    assert not (folder / "run.json").exists()
    with pytest.raises(
        ConfigError, match=r"policy_training.lr was 0.005 and is now 0.1.*--anew to start over, or another --run-dir"
    ):
        train_policy(folder, often.model_copy(update={"lr": 0.1}), POLICY)
    train_policy(folder, often, POLICY)
    same_bytes(folder, done[0])


def test_killed_and_run_again_it_ends_with_the_same_bytes(tmp_path: Path, done: tuple[Path, dict[str, Any]]) -> None:
    folder = tmp_path / "small"
    code = f"""
import os, signal, torch
torch.set_num_threads(1)
from elute.models.routing.settings import PolicyConfig
from elute.routing.learning_policy import PolicyObjective
from elute.routing.policy_settings import PolicyTrainConfig
from elute.routing.training import train_policy
gradient = PolicyObjective.gradient
def killed(self, rows, *, step, total_rows):
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return gradient(self, rows, step=step, total_rows=total_rows)
PolicyObjective.gradient = killed
train_policy({str(folder)!r}, PolicyTrainConfig(**{SMALL.model_dump()!r} | dict(checkpoint_seconds=0)), PolicyConfig(**{POLICY.model_dump()!r}))
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=300, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert checkpoint.epochs(folder) == [0]
    train_policy(folder, SMALL, POLICY)
    same_bytes(folder, done[0])


def test_what_is_there_is_used_and_others_work_is_left_alone(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, summary = done
    with monkeypatch.context() as patch:
        patch.setattr(PolicyObjective, "gradient", None)
        again = train_policy(folder, SMALL.model_copy(update={"device": "cpu", "checkpoint_seconds": 5.0}), POLICY)
        assert again.summary == {**summary, "reused": True}
        with pytest.raises(ConfigError, match="embed_dim was 16 and is now 32"):
            train_policy(folder, SMALL, POLICY.model_copy(update={"embed_dim": 32}))
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        (theirs / "config.json").write_text('{"num_heads": 8}')
        for anew in (False, True):
            with pytest.raises(ConfigError, match="that elute did not train"):
                train_policy(theirs, SMALL, POLICY, anew=anew)
        (tmp_path / "bare" / "checkpoints").mkdir(parents=True)
        (tmp_path / "bare" / "checkpoints" / "checkpoint_epoch_0.ckpt").write_bytes(b"")
        with pytest.raises(ConfigError, match="without its config.json"):
            train_policy(tmp_path / "bare", SMALL, POLICY)


def test_anew_leaves_nothing_of_what_was_there(tmp_path: Path, done: tuple[Path, dict[str, Any]]) -> None:
    folder = tmp_path / "small"
    train_policy(folder, SMALL.model_copy(update={"epochs": 5, "seed": 1}), POLICY)
    assert checkpoint.epochs(folder) == [0, 1, 2, 3, 4]
    train_policy(folder, SMALL, POLICY, anew=True)
    same_bytes(folder, done[0])


def test_the_gradient_is_that_of_reinforce_with_a_shared_baseline() -> None:
    """Against tours replayed one at a time, weighed by hand."""
    policy = begin(POLICY, 0)
    objective = PolicyObjective(policy, starts=3, seed=0, epoch_steps=9, at_epoch=lambda *_: {})
    batch = next(iter(PolicyStream(SMALL.instances(), 4))).rows
    seen: list[torch.Tensor] = []
    along = policy.along
    policy.along = lambda nodes, actions: (seen.append(actions), along(nodes, actions))[1]  # type: ignore[method-assign]
    told = objective.gradient(batch, step=0, total_rows=4)
    policy.along = along  # type: ignore[method-assign]
    (actions,) = seen
    assert actions[:, :, 0].tolist() == [[0, 2, 4]] * 4
    found = {p.name: p.grad.clone() for p in objective.learnt}
    policy.zero_grad(set_to_none=True)
    nodes = policy.decoder.prepare(policy.encode(batch["coords"]))
    lengths = tour_lengths(batch["coords"], actions)
    loss = torch.zeros(())
    for i in range(4):
        for s in range(3):
            logits = policy.along(nodes, actions[:, s])[i]
            steps = [logits[t].log_softmax(-1)[actions[i, s, t]] for t in range(6)]
            loss = loss + (lengths[i, s] - lengths[i].mean()) * sum(steps) / 12
    loss.backward()
    for name, p in policy.named_parameters():
        torch.testing.assert_close(
            found[name], p.grad if p.grad is not None else torch.zeros_like(p), rtol=1e-4, atol=1e-6
        )
    assert told["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert told["length"] == pytest.approx(float(lengths.mean(1).sum()), rel=1e-5)


def test_minutes_become_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SMALL.model_copy(update={"steps": None, "minutes": 1e-9})
    clock = iter([0.0, 8 * 5e-9, *[0.0] * 1000])
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    told = train_policy(tmp_path / "run", config, POLICY).summary
    assert told["steps"] == 1
    monkeypatch.setattr(training, "_steps", None)
    (tmp_path / "run" / "run.json").unlink()
    assert train_policy(tmp_path / "run", config, POLICY).summary == told


def test_settings_that_exclude_each_other() -> None:
    from elute.base.recipe import build

    with pytest.raises(ConfigError, match="steps and minutes are both given"):
        build(PolicyTrainConfig, {"steps": 2, "minutes": 3}, where="policy_training")
    with pytest.raises(ConfigError, match="9 starts of 6 nodes"):
        build(PolicyTrainConfig, {"starts": 9, "num_loc": 6}, where="policy_training")


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, done: tuple[Path, dict[str, Any]]) -> None:
    whole = checkpoint.path_of(done[0], 2).read_bytes()
    path = tmp_path / "checkpoint_epoch_2.ckpt"
    for spoilt, said in (
        (whole[:-8], "was cut short"),
        (whole.replace(b"elute routing policy", b"elute routing folicy"), "not a policy of elute"),
        (whole.replace(b'"schema":"1"', b'"schema":"2"'), "newer elute"),
        (whole.replace(b"init_embed.bias", b"init_embed.bios"), "lacks 'init_embed.bias'"),
        (whole.replace(b'embed_dim\\":16', b'embed_dim\\":12'), "where .* is needed"),
        (whole.replace(b'embed_dim\\":16', b'embed_dim\\":-6'), "does not say what its policy is"),
    ):
        assert spoilt != whole
        path.write_bytes(spoilt)
        with pytest.raises((DataError, ConfigError), match=said) as caught:
            checkpoint.read(path)
        assert str(path) in str(caught.value)


@pytest.mark.real_data
def test_tsplib_is_told_honestly(done: tuple[Path, dict[str, Any]], real_data: Path, tmp_path: Path) -> None:
    for name in ("burma14.tsp", "eil51.tsp", "eil51.opt.tour"):
        (tmp_path / name).write_bytes((real_data / "tsplib" / name).read_bytes())
    rows = scoring.score_run(done[0], SMALL.instances(), tsplib_dir=tmp_path, device="cpu").summary["tsplib"]
    burma, eil = rows
    assert (burma["best"], burma["from"]) == (3323, "proven here")
    assert (eil["best"], eil["from"]) == (426, "its optimal tour")
    for row in rows:
        assert (
            row["tours"]["augment8"]["length"]
            <= row["tours"]["multistart"]["length"]
            <= row["tours"]["greedy"]["length"]
        )
        for told in row["tours"].values():
            assert told["gap"] == pytest.approx(told["length"] / row["best"] - 1, abs=1e-6)
            assert told["length"] >= row["best"]
    assert "eil51, 51 nodes, EUC_2D: 426 (its optimal tour)" in scoring.lines({"policy": "p", "tsplib": rows})
    with pytest.raises(DataError, match=r"no \.tsp file"):
        scoring.score_run(done[0], SMALL.instances(), tsplib_dir=done[0], device="cpu")


def test_gaps_have_the_interval_of_students_t() -> None:
    from scipy import stats

    best = torch.full((5,), 2.0, dtype=torch.float64)
    lengths = best * torch.tensor([1.0, 1.1, 1.2, 1.0, 1.3], dtype=torch.float64)
    told = scoring.gap(lengths, best)
    x = [0.0, 0.1, 0.2, 0.0, 0.3]
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (told["gap"], told["low"], told["high"]) == (
        pytest.approx(0.12),
        pytest.approx(low, abs=1e-6),
        pytest.approx(high, abs=1e-6),
    )


def test_the_commands_say_what_came_of_it(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    from click.testing import CliRunner

    from elute.cli.main import elute

    words = ["--run_dir", str(tmp_path / "run"), "--num-loc", "6", "--steps", "2", "--batch-size", "4", "--epochs", "1",
             "--held-out", "5", "--embed-dim", "8", "--num-heads", "2", "--feedforward-hidden", "8"]  # fmt: skip
    words = [word.replace("_", "-") if word.startswith("--") else word for word in words]
    told = CliRunner().invoke(elute, ["routing", "train-policy", *words, "--json"])
    assert told.exit_code == 0, told.output + str(told.exception)
    answer = json.loads(told.stdout)
    assert (answer["kind"], answer["steps"], answer["reused"]) == ("policy", 2, False)
    told = CliRunner().invoke(elute, ["routing", "train-policy", *words])
    assert "held-out instances of 6 nodes" in told.stdout
    told = CliRunner().invoke(
        elute,
        [
            "routing",
            "score-policy",
            "--run-dir",
            str(done[0]),
            "--num-loc",
            "7",
            "--num-instances",
            "9",
            "--checkpoint",
            "1",
        ],
    )
    assert told.exit_code == 0, told.output + str(told.exception)
    assert told.stdout.startswith("small, checkpoint_epoch_1\n9 held-out instances of 7 nodes")


def test_every_shipped_configuration_loads() -> None:
    from elute.base.recipe import resolve
    from elute.cli.routing import ROUTING

    paths = sorted((Path(__file__).parents[2] / "configs" / "routing").glob("policy_*.yaml"))
    assert len(paths) >= 3
    for path in paths:
        assert resolve(ROUTING, path, needed=("policy", "policy_training"))
