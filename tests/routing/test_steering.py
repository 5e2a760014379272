"""Features are turned up and down and moved elsewhere; at their own strength nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.routing.trained import (  # noqa: F401
    CLT,
    MLP,
    SMALL,
    STEPS,
    own_trained,
    subject_of,
    trained_model,
    trained_reference,
    trained_run,
)

from elute.base.errors import ConfigError
from elute.models.routing_policy import RoutingModel
from elute.routing.ablating import OURS, RANDOM, doses, show, slope, steer_run
from elute.routing.attributing import activations, clean, taken_away
from elute.routing.cause_settings import DoseConfig
from elute.routing.measuring import Reference, effect
from elute.routing.transplanting import ANY, NEAREST, OWN, donated, donors, transplants

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = DoseConfig(strongest=2, factors=(0.0, 1.0, 2.0), random_directions=2)


def test_a_slope_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    factors, values = np.array([0.0, 0.5, 1.0]), rng.normal(size=(4, 3))
    expected = [np.polyfit(factors, row, 1)[0] for row in values]
    assert np.allclose(slope(factors, values), expected)
    assert (slope(np.array([1.0]), values[:, :1]) == 0).all()


@pytest.mark.parametrize("name", [MLP, STEPS, CLT])
def test_no_dose_is_no_change_and_none_left_is_taking_away(
    trained: Path, model: RoutingModel, ref: Reference, name: str
) -> None:
    subject = subject_of(trained, model, name)
    seen = clean(subject, ref)
    feature = int(seen.codes.dense().sum(0).argmax())
    table = pl.concat(doses(subject, seen, feature, config=FEW, seed=0))
    assert table.height == (2 * len(FEW.factors) + 2) * len(ref.instances)  # two directions, but for factor 1
    still = table.filter(pl.col("factor") == 1.0)
    assert still["kl"].abs().max() == 0
    assert still["drift"].abs().max() == 0
    away = table.filter((pl.col("factor") == 0.0) & (pl.col("direction") == OURS))
    by_hand = taken_away(subject, seen, feature)
    assert np.allclose(away["kl"], by_hand.kl.numpy())


def test_a_slope_is_held_against_each_direction() -> None:
    from elute.routing.ablating import _beside_each

    slopes = {0: 0.1, 1: -0.4, 2: 0.2}
    rows = [
        {"direction": RANDOM, "number": n, "factor": f, "sample_id": name, "margin": s * (f - 1.0) + off}
        for n, s in slopes.items()
        for f in (0.0, 0.5)
        for name, off in (("a", 0.1), ("b", -0.1))
    ]
    rows += [{"direction": RANDOM, "number": 0, "factor": 1.0, "sample_id": name, "margin": 0.0} for name in "ab"]
    told = _beside_each(pl.DataFrame(rows), [0.0, 0.5, 1.0], -0.3)
    assert told["random_slopes"] == pytest.approx([0.1, -0.4, 0.2])
    assert (told["as_large"], told["p"], told["told_apart"]) == (1, 0.5, False)
    many = [{**row, "number": n} for n in range(19) for row in rows if row["number"] == 0]
    alone = _beside_each(pl.DataFrame(many), [0.0, 0.5, 1.0], -0.3)
    assert (alone["as_large"], alone["p"], alone["told_apart"]) == (0, 0.05, True)


def test_random_directions_are_as_long(trained: Path, model: RoutingModel, ref: Reference) -> None:
    from elute.routing.ablating import _along

    subject = subject_of(trained, model, CLT)
    seen = clean(subject, ref)
    amounts = activations(seen, 3)
    steps = [_along(subject, amounts, 3, seed=(0, number)) for number in range(2)]
    for name in subject.writes:
        length = subject.dictionary.directions(name)[3].norm() * amounts.abs()
        assert torch.allclose(steps[0][name].norm(dim=1), length, atol=1e-4)
        assert not torch.allclose(steps[0][name], steps[1][name]) or float(length.max()) == 0


def test_donors_by_hand() -> None:
    coords = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[0.9, 0.9], [0.1, 0.2]]])
    found = {name: (donor.tolist(), nodes.tolist()) for name, donor, nodes in donors(coords, seed=0)}
    assert found[NEAREST] == ([1, 0], [[1, 0], [1, 0]])
    assert found[ANY][0] == [1, 0]
    assert found[OWN][0] == [0, 1]
    assert all(sorted(row) == [0, 1] for row in found[ANY][1] + found[OWN][1])
    codes = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert donated(codes, torch.tensor([1, 0]), torch.tensor([[1, 0], [1, 0]]))[..., 0].tolist() == [[4, 3], [2, 1]]


def test_a_whole_code_from_elsewhere_by_hand(trained: Path, model: RoutingModel, ref: Reference) -> None:
    subject = subject_of(trained, model, MLP)
    seen = clean(subject, ref)
    frames = {frame["way"][0]: frame for frame in transplants(subject, seen, None, seed=0)}
    n = ref.instances.nodes
    codes = seen.codes.dense().view(-1, n, 24)
    coords = ref.instances.coords
    change = torch.zeros_like(codes)
    for i in range(len(coords)):
        other = (i - 1) % len(coords)
        for v in range(n):
            u = int((coords[other] - coords[i, v]).square().sum(-1).argmin())
            change[i, v] = codes[other, u] - codes[i, v]
    rows = change.view(-1, 24) @ subject.dictionary.directions()
    by_hand = effect(model, ref, {"encoder_layer_1.mlp": lambda x, _: x + rows})
    assert np.allclose(frames[NEAREST]["kl"], by_hand.kl.numpy(), atol=1e-5)
    assert (
        transplants(subject_of(trained, model, STEPS), clean(subject_of(trained, model, STEPS), ref), 0, seed=0) == []
    )


def test_the_whole_is_done_once(own: Path) -> None:
    judged = SMALL.model_copy(update={"instances": 8})
    first = steer_run(own, MLP, judged, config=FEW)
    output = own / "clt" / "steer" / MLP
    before = {p.name: p.read_bytes() for p in output.iterdir() if p.name != ".lock"}
    assert steer_run(own, MLP, judged, config=FEW).summary["reused"]
    (output / "run.json").unlink()
    steer_run(own, MLP, judged, config=FEW)
    assert {p.name: p.read_bytes() for p in output.iterdir() if p.name != ".lock"} == before
    told = first.summary
    assert len(told["features"]) == 2
    assert all(dose["unchanged_at_1"] for dose in told["doses"])
    assert {row["feature"] for row in told["transplants"]} == {*told["features"], None}
    assert set(told["doses"][0]["curves"]) == {OURS, RANDOM}
    assert "whole code" in show({**told, "path": "x"})
    assert "Transplants" in (output / "index.html").read_text()


def test_steps_are_steered_along_their_tours(own: Path) -> None:
    told = steer_run(own, STEPS, SMALL.model_copy(update={"instances": 8}), config=FEW).summary
    assert told["transplants"] == []
    assert all(dose["unchanged_at_1"] for dose in told["doses"])


def test_a_feature_that_is_not_there(trained: Path) -> None:
    with pytest.raises(ConfigError, match="there is no feature 24.*from 0 to 23"):
        steer_run(trained, MLP, SMALL, config=DoseConfig(features=(24,)))
