"""Features are looked at: numbers are those of the rows, attributions those of finite differences, bytes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.routing.trained import (  # noqa: F401
    CLT,
    LAYERS,
    MLP,
    SMALL,
    STEPS,
    own_trained,
    subject_of,
    trained_model,
    trained_reference,
    trained_run,
)

from elute.models.routing_policy import RoutingModel
from elute.routing.attributing import activations, adding, attributions, clean, gradients, taken_away
from elute.routing.cause_inputs import held_out
from elute.routing.cause_settings import PairEvalConfig
from elute.routing.decoder_pairs import ceiling
from elute.routing.evaluating import evaluate_run, show
from elute.routing.looking import look
from elute.routing.measuring import Reference, along, effect, margins

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = PairEvalConfig(top=3, ablated=5, permutations=39, meant=24, drawn=2)


@pytest.mark.parametrize("site", ["encoder_layer_0", "encoder_layer_1.mlp", "decoder_query"])
def test_gradients_are_finite_differences(model: RoutingModel, ref: Reference, site: str) -> None:
    (slope,) = gradients(model, ref, [site]).values()
    rows = len(ref.instances) * ref.instances.nodes
    assert slope.shape == (rows, 16)
    direction = torch.randn(rows, 16, generator=torch.Generator().manual_seed(0))
    if site == "decoder_query":  # the first step is no choice, and its row stands for nothing
        assert float(slope.view(-1, ref.instances.nodes, 16)[:, 0].abs().max()) == 0
    told = {"runner_up": ref.runner_up, "choice": ref.choice}
    found = []
    for step in (1e-3, -1e-3):
        logits = along(model, ref, {site: lambda x, _, step=step: x + step * direction}).double()
        found.append(margins(logits, ref.actions, **told).sum())
    assert float(found[0] - found[1]) / 2e-3 == pytest.approx(float((slope * direction).sum()), rel=2e-2)


@pytest.mark.parametrize("name", [MLP, CLT, STEPS])
def test_an_attribution_is_what_a_little_less_of_a_feature_takes(
    trained: Path, model: RoutingModel, ref: Reference, name: str
) -> None:
    subject = subject_of(trained, model, name)
    seen = clean(subject, ref)
    found = attributions(subject, seen)
    assert found.shape == (len(ref.instances), subject.dictionary.n_features)
    feature = int(found.abs().sum(0).argmax())
    amounts = -2e-3 * activations(seen, feature)
    little = effect(model, ref, adding(subject, seen, amounts, feature=feature), tours=False)
    apart = (-500 * little.margin - found[:, feature]).abs()  # a bend of the policy may lie between
    assert float(apart.median()) < 0.02 * float(found[:, feature].abs().median())
    assert np.corrcoef(little.margin, found[:, feature])[0, 1] < -0.99


def test_taking_a_feature_away_is_decoding_without_it(trained: Path, model: RoutingModel, ref: Reference) -> None:
    subject = subject_of(trained, model, MLP)
    seen = clean(subject, ref)
    feature = int(seen.codes.dense().sum(0).argmax())
    codes = seen.codes.dense()
    without = codes.clone()
    without[:, feature] = 0
    W = subject.dictionary.directions()
    change = (without - codes) @ W
    by_hand = effect(model, ref, {"encoder_layer_1.mlp": lambda x, _: x + change})
    found = taken_away(subject, seen, feature, tours=True)
    assert torch.allclose(found.kl, by_hand.kl, atol=1e-6)
    assert torch.allclose(found.lengths, by_hand.lengths)


def test_what_is_read_and_written_lies_beside_each_other(trained: Path, model: RoutingModel, ref: Reference) -> None:
    """At the decoder a row is a step: its node is where the tour stands."""
    seen = clean(subject_of(trained, model, STEPS), ref)
    n = ref.instances.nodes
    assert len(seen.codes) == len(ref.instances) * (n - 1)
    assert torch.equal(seen.nodes.view(-1, n - 1), ref.actions[:, :-1])
    h = model.policy.encode(ref.instances.coords)
    one, step = 3, 4
    row = one * (n - 1) + step - 1
    assert torch.allclose(seen.read["source_encoder_output"][row], h[one, ref.actions[one, step - 1]], atol=1e-5)
    assert int(seen.instance[row]) == one


def test_figures_are_those_of_the_rows(trained: Path, model: RoutingModel) -> None:
    subject = subject_of(trained, model, LAYERS)
    instances = held_out(trained, SMALL)
    looked = look(subject, instances, judged=SMALL, most=100)
    x = np.concatenate([part.read["source_encoder_layer_0"] for part in looked.parts])
    y = np.concatenate([part.written["target_encoder_layer_2"] for part in looked.parts])
    y_hat = subject.dictionary(torch.from_numpy(x)).numpy()
    r2 = 1 - ((y - y_hat) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    assert np.allclose(looked.r2["transcoder"]["target_encoder_layer_2"], r2, atol=1e-4)
    codes = subject.dictionary.encode(torch.from_numpy(x)).dense().numpy()
    assert np.array_equal(looked.fired.counts, (codes != 0).sum(0))
    assert looked.rows == SMALL.instances * 8


def test_a_query_is_affine_in_both_of_its_nodes(trained: Path, model: RoutingModel) -> None:
    shares = ceiling(model, held_out(trained, SMALL.model_copy(update={"instances": 80})), "decoder_query")
    assert shares["both"] > 0.9999
    assert shares["current"] < 0.99


def test_the_whole_leaves_the_same_bytes_and_is_used_as_it_is(own: Path) -> None:
    first = evaluate_run(own, MLP, SMALL, config=FEW)
    output = own / "clt" / "eval" / MLP
    before = {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file() and p.name != ".lock"}
    assert evaluate_run(own, MLP, SMALL, config=FEW).summary["reused"]
    (output / "run.json").unlink()
    assert not evaluate_run(own, MLP, SMALL, config=FEW).summary["reused"]
    after = {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
    assert "Spearman" in show({**first.summary, "path": str(first.path)})
    features = pl.read_parquet(output / "features.parquet")
    assert features.height == 24
    assert features["attribution_size"].is_sorted(descending=True)
    assert features["away_kl"].drop_nulls().len() == FEW.ablated
    meant = pl.read_parquet(output / "meaning.parquet")
    assert set(meant["scope"]) == {"node", "beyond place", "instance"}
    assert meant["p_family"].min() >= 1 / (FEW.permutations + 1)
    drawings = sorted((output / "figures").glob("*.svg"))
    assert len(drawings) == FEW.top * FEW.drawn
    for path in drawings:
        assert path.read_text().count("<circle") >= 8  # a dot a node, and one that grows where the feature fires
    page = (output / "index.html").read_text()
    assert "<script" not in page
    assert "Content-Security-Policy" in page


@pytest.mark.parametrize("name", [STEPS, CLT])
def test_steps_and_several_layers_are_looked_at_too(own: Path, name: str) -> None:
    told = evaluate_run(own, name, SMALL, config=FEW).summary
    assert ("linear_in_nodes" in told) == (name == STEPS)
    dimensions = pl.read_parquet(own / "clt" / "eval" / name / "dimensions.parquet")
    assert dimensions["site"].n_unique() == (3 if name == CLT else 1)
    assert "linear map" in show({**told, "path": "x"})
