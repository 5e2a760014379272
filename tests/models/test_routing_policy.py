"""The door: a policy by its run, its checkpoint, or as it is; its control with random weights; gradients through it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import elute
from elute.base import plugins
from elute.base.errors import ConfigError
from elute.engine.capture import capture_to_store
from elute.models.load import kind_of
from elute.models.routing import checkpoint
from elute.models.routing.instances import draw
from elute.models.routing.policy import begin
from elute.models.routing.settings import InstanceConfig, PolicyConfig
from elute.models.routing_policy import RoutingModel, load
from elute.store.reader import Store

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = PolicyConfig(embed_dim=8, num_encoder_layers=2, num_heads=2, feedforward_hidden=8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "tsp"
    for epoch in (0, 1, 10):
        checkpoint.write(checkpoint.path_of(folder, epoch), begin(SMALL, epoch), epoch=epoch, step=epoch)
    (folder / "config.json").write_text("{}")
    return folder


def weights(model: RoutingModel) -> str:
    return model.fingerprint().weights


def test_a_run_by_name_by_epoch_and_by_file(run: Path) -> None:
    assert "routing-policy" in plugins.names("models")
    assert kind_of(run) == "routing-policy"
    last = elute.load_model("routing_policy", run=run)
    assert (
        weights(last)
        == weights(elute.load_model("routing-policy", run=str(run), checkpoint=10))
        == weights(elute.load_model(run))
    )
    assert weights(last) == weights(load(policy=begin(SMALL, 10)))
    for other in (1, "1", "checkpoint_epoch_1.ckpt", checkpoint.path_of(run, 1), str(checkpoint.path_of(run, 1))):
        assert weights(load(run, checkpoint=other)) == weights(load(policy=begin(SMALL, 1)))
    assert not any(p.requires_grad for p in last.module.parameters())


def test_random_weights_are_another_model_with_the_same_sites(run: Path) -> None:
    trained, drawn = load(run), load(run, random_weights=True, seed=3)
    assert weights(drawn) == weights(load(policy=SMALL, seed=3)) != weights(trained)
    assert drawn.sites == trained.sites
    assert drawn.name == "tsp, checkpoint_epoch_10 (random weights 3)"


def test_what_is_not_said_is_one_line(run: Path) -> None:
    for settings in ({}, {"run": run, "policy": SMALL}):
        with pytest.raises(ConfigError, match="Give one of both"):
            load(**settings)
    with pytest.raises(ConfigError, match="Give 0 or more"):
        load(run, random_weights=True, seed=-1)


def test_two_settings_are_two_models() -> None:
    other = SMALL.model_copy(update={"tanh_clipping": 5.0})
    one, two = load(policy=begin(SMALL, 0)).fingerprint(), load(policy=begin(other, 0)).fingerprint()
    assert one.weights == two.weights
    assert one.config != two.config


def test_sites_of_every_layer() -> None:
    model = load(policy=SMALL)
    layer = ["", ".input", ".attention", ".attention.input", ".mlp", ".mlp.input"]
    names = [f"encoder_layer_{i}{part}" for i in range(2) for part in layer]
    assert set(model.sites) == {*names, "encoder_output", "decoder_context", "decoder_query"}
    assert {site.width for site in model.sites.values()} == {8}


def test_what_sites_give_is_what_the_layers_say() -> None:
    """u = norm1(x + attention(x));  y = norm2(u + mlp(u))"""
    model, instances = load(policy=SMALL), draw(InstanceConfig(num_instances=3, num_loc=5))
    rows = model.capture(next(model.batches(instances))[0])
    layer = model.policy.encoder.layers[1]
    for name in ("encoder_layer_1.input", "encoder_layer_1.attention.input"):
        assert torch.equal(rows[name], rows["encoder_layer_0"])
    u = layer.norm1((rows["encoder_layer_1.input"] + rows["encoder_layer_1.attention"]).view(3, 5, 8))
    torch.testing.assert_close(u.reshape(15, 8), rows["encoder_layer_1.mlp.input"])
    torch.testing.assert_close(layer.mlp(u).reshape(15, 8), rows["encoder_layer_1.mlp"])
    y = layer.norm2(u + layer.mlp(u)).reshape(15, 8)
    torch.testing.assert_close(y, rows["encoder_layer_1"])
    torch.testing.assert_close(y, rows["encoder_output"])
    torch.testing.assert_close(rows["decoder_query"], rows["decoder_context"])  # without a graph context


def test_gradients_reach_what_was_captured() -> None:
    model, instances = load(policy=SMALL), draw(InstanceConfig(num_instances=2, num_loc=5))
    batch, _ = next(model.batches(instances))
    kept: list[torch.Tensor] = []

    def keep(x: torch.Tensor, _: object) -> torch.Tensor:
        kept.append(x.detach().requires_grad_())
        return kept[0]

    with model.patch({"encoder_layer_0.mlp": keep}):
        model(batch)["logits"][:, 1:4].log_softmax(-1).gather(-1, batch["actions"][:, 1:4, None]).sum().backward()
    assert float(kept[0].grad.abs().min(1).values.max()) > 0


def test_rows_are_stored_by_instance(tmp_path: Path) -> None:
    model, instances = load(policy=SMALL), draw(InstanceConfig(num_instances=7, num_loc=5))
    done = capture_to_store(
        model,
        instances,
        tmp_path / "s",
        sites=["encoder_layer_0", "decoder_query"],
        source={"instances": instances.source},
    )
    assert done.summary["rows"] == 35
    table = Store(tmp_path / "s").metadata()
    assert table["group"].n_unique() == 7
    assert table.filter(table["sample_id"] == instances.ids[3])["position"].to_list() == [0, 1, 2, 3, 4]
