"""A dictionary is tried elsewhere, one change at a time, and what was done is not done again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.routing.trained import (  # noqa: F401
    LAYERS,
    MLP,
    SMALL,
    STEPS,
    own_trained,
    subject_of,
    trained_model,
    trained_run,
)

from elute.base.errors import ConfigError, DataError, GuardError
from elute.models.routing_policy import RoutingModel
from elute.routing.attributing import clean
from elute.routing.cause_inputs import held_out
from elute.routing.cause_settings import GeneraliseConfig
from elute.routing.generalising import ARMS, conditions, generalise_run, show
from elute.routing.measuring import reference

pytestmark = pytest.mark.usefixtures("one_thread")
JUDGED = SMALL.model_copy(update={"instances": 20})
FEW = GeneraliseConfig(distributions=("clustered",), sizes=(6,), checkpoints=("0",))


def test_one_thing_is_changed_at_a_time(trained: Path) -> None:
    found = list(conditions(trained, JUDGED, GeneraliseConfig()))
    assert [c.what for c in found].count("as trained") == 1
    base = found[0]
    for other in found[1:]:
        apart = {
            name for name in ("run", "checkpoint", "distribution", "nodes", "random_weights")
            if getattr(other, name) != getattr(base, name)
        }  # fmt: skip
        assert len(apart) == 1, other
    assert {c.nodes for c in found} == {5, 8, 16}
    assert [c.name for c in found if c.what == "checkpoint"] == ["epoch 0"]
    assert [c.name for c in found if c.what == "distribution"] == ["clustered", "mixed"]


def test_as_trained_is_what_the_rows_say(own: Path, model: RoutingModel) -> None:
    config = GeneraliseConfig(distributions=("uniform",), sizes=(8,), checkpoints=("1",), random_weights=False)
    (told,) = generalise_run(own, LAYERS, JUDGED, config=config).summary["conditions"]
    subject = subject_of(own, model, LAYERS)
    half = held_out(own, JUDGED).part(10, 20)
    seen = clean(subject, reference(model, half))
    x, y = seen.read["source_encoder_layer_0"], seen.written["target_encoder_layer_2"].numpy()
    spread = ((y - y.mean(0)) ** 2).sum()
    explained = 1 - ((y - subject.dictionary(x).numpy()) ** 2).sum() / spread
    assert told["arms"]["transcoder"]["explained_variance"] == pytest.approx(explained, abs=1e-4)
    learnt = clean(subject, reference(model, held_out(own, JUDGED).part(0, 10)))
    a = learnt.read["source_encoder_layer_0"].double().numpy()
    W, *_ = np.linalg.lstsq(
        np.c_[a, np.ones(len(a))], learnt.written["target_encoder_layer_2"].double().numpy(), rcond=None
    )
    anew = 1 - ((y - np.c_[x.double().numpy(), np.ones(len(x))] @ W) ** 2).sum() / spread
    assert told["arms"]["fitted anew"]["explained_variance"] == pytest.approx(anew, abs=1e-3)
    assert told["arms"]["mean"]["explained_variance"] <= 0


def test_the_whole_is_done_once_and_the_control_is_worse(own: Path) -> None:
    first = generalise_run(own, MLP, JUDGED, config=FEW)
    names = [told["name"] for told in first.summary["conditions"]]
    assert names == ["as trained", "epoch 0", "clustered", "6 nodes", "random weights"]
    output = own / "clt" / "generalise" / MLP
    before = {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file() and p.name != ".lock"}
    (output / "size_6_nodes" / "run.json").unlink()  # as if it had been killed there
    stamp = (output / "as_trained_as_trained" / "run.json").stat().st_mtime_ns
    generalise_run(own, MLP, JUDGED, config=FEW)
    after = {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
    assert (output / "as_trained_as_trained" / "run.json").stat().st_mtime_ns == stamp
    arms = {told["name"]: told["arms"] for told in first.summary["conditions"]}
    assert set(arms["as trained"]) == set(ARMS)
    ours = {name: told["transcoder"]["explained_variance"] for name, told in arms.items()}
    assert ours["random weights"] < ours["as trained"]
    assert "fitted" not in show({**first.summary, "path": "x"}).splitlines()[0]
    assert "random weights" in (output / "index.html").read_text()


def test_steps_of_the_decoder_go_elsewhere_too(own: Path) -> None:
    told = generalise_run(own, STEPS, JUDGED, config=FEW).summary["conditions"]
    assert all(np.isfinite(each["arms"]["transcoder"]["explained_variance"]) for each in told)


def test_what_cannot_be_tried_is_one_line(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 nodes.*Give 4 or more"):
        generalise_run(own, MLP, JUDGED, config=GeneraliseConfig(sizes=(3,)))
    with pytest.raises(DataError, match="there is no checkpoint of epoch 9"):
        generalise_run(own, MLP, JUDGED, config=GeneraliseConfig(checkpoints=("9",)))
    with pytest.raises(DataError, match="there is no such run"):
        generalise_run(own, MLP, JUDGED, config=GeneraliseConfig(runs=(str(tmp_path / "none"),)))


def test_a_policy_of_another_width_is_refused(own: Path, tmp_path: Path) -> None:
    from elute.models.routing.settings import PolicyConfig
    from elute.routing.policy_settings import PolicyTrainConfig
    from elute.routing.training import train_policy

    other = tmp_path / "other"
    small = PolicyTrainConfig(num_loc=8, steps=2, batch_size=4, epochs=1, held_out=10)
    train_policy(other, small, PolicyConfig(embed_dim=24, num_heads=2, feedforward_hidden=16))
    config = GeneraliseConfig(distributions=("uniform",), sizes=(8,), checkpoints=("1",), runs=(str(other),))
    with pytest.raises(GuardError, match="16 wide, and the policy gives 24"):
        generalise_run(own, MLP, JUDGED, config=config)
    shutil.rmtree(other)
