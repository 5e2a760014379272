"""A fingerprint finds every change, and nothing that is none."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import gelu, relu

from elute.base.contracts import Site
from elute.base.errors import ConfigError, GuardError
from elute.models.fingerprint import config_digest, fingerprint, sites_digest, weights_digest

SITES = {"a": Site("first"), "b": Site("last", "input")}


class Net(nn.Module):
    def __init__(self, heads=2, *, reverse=False, activation=relu):
        super().__init__()
        parts = {"first": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "last": nn.Linear(4, 2)}
        for name in reversed(parts) if reverse else parts:
            self.add_module(name, parts[name])
        self.heads, self.activation = heads, activation
        self.register_buffer("steps", torch.arange(3), persistent=False)
        self._secret = 1


def net(**settings):
    torch.manual_seed(3)
    return Net(**settings)


def test_equal_models_are_equal_and_calls_repeat():
    model = net()
    assert fingerprint(model, SITES) == fingerprint(model, SITES) == fingerprint(net(), dict(reversed(SITES.items())))
    assert fingerprint(model, SITES).name == "Net"
    assert fingerprint(model, SITES, name="mine").name == "mine"
    assert {len(v) for k, v in fingerprint(model, SITES).as_json().items() if k != "name"} == {64}


def changed(before, after):
    return {key for key, value in before.as_json().items() if after.as_json()[key] != value}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["first.weight", "norm.bias", "norm.running_mean", "last.bias"])
def test_one_unit_in_the_last_place_is_found(dtype, name):
    model = net().to(dtype)
    before = fingerprint(model, SITES)
    tensor = model.state_dict(keep_vars=True)[name]
    version = tensor._version
    bits = tensor.data.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()]).view(-1)
    bits[-1] += 1
    assert tensor._version == version
    assert changed(before, fingerprint(model, SITES)) == {"weights"}
    bits[-1] -= 1
    assert fingerprint(model, SITES) == before


@given(shape=st.lists(st.integers(0, 4), max_size=3), seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_any_changed_bit_of_any_parameter_is_found(shape, seed):
    generator, pick = torch.Generator().manual_seed(seed), random.Random(seed)
    model = nn.ParameterDict({"w": torch.randn(shape, generator=generator), "v": torch.randn(2, generator=generator)})
    before = weights_digest(model)
    words = model[pick.choice(["w", "v"]) if model["w"].numel() else "v"].data.reshape(-1).view(torch.int32)
    words[pick.randrange(len(words))] ^= 1 << pick.randrange(31)
    assert weights_digest(model) != before


def test_buffers_count_also_when_they_are_not_saved_or_hold_no_real_numbers():
    model = net()
    before = fingerprint(model, SITES)
    model.steps[1] = 9
    middle = fingerprint(model, SITES)
    model.norm.num_batches_tracked += 1
    assert changed(before, middle) == changed(middle, fingerprint(model, SITES)) == {"weights"}


def test_shape_dtype_and_name_count_and_layout_and_order_do_not():
    flat, square = nn.ParameterDict({"w": torch.zeros(4)}), nn.ParameterDict({"w": torch.zeros(2, 2)})
    digests = {
        weights_digest(flat),
        weights_digest(square),
        weights_digest(nn.ParameterDict({"v": torch.zeros(4)})),
        weights_digest(nn.ParameterDict({"w": torch.zeros(4, dtype=torch.bfloat16)})),
        weights_digest(nn.ParameterDict({"w": torch.zeros(4, dtype=torch.float16)})),
        weights_digest(nn.ParameterDict({"w": torch.zeros(2), "w2": torch.zeros(2)})),
        weights_digest(nn.Identity()),
    }
    assert len(digests) == 7
    w = torch.randn(3, 5)
    turned = nn.ParameterDict({"w": w.t().contiguous().t()})
    assert not turned["w"].is_contiguous()
    assert weights_digest(turned) == weights_digest(nn.ParameterDict({"w": w}))
    model, other = net(), net(reverse=True)
    other.load_state_dict(model.state_dict())
    assert weights_digest(other) == weights_digest(model)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.uint8, torch.int64])
def test_every_kind_of_number_can_be_read(dtype):
    model = nn.Module()
    model.register_buffer("b", torch.tensor([0, 1, 1]).to(dtype))
    before = weights_digest(model)
    model.b[0] = 1
    assert weights_digest(model) != before


def test_conjugation_that_is_only_noted_is_read():
    first, second = nn.Module(), nn.Module()
    first.register_buffer("b", torch.tensor([1 + 2j]).conj())
    second.register_buffer("b", torch.tensor([1 - 2j]))
    assert weights_digest(first) == weights_digest(second)


def test_tied_weights_count_under_each_name():
    tied = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    before = weights_digest(tied)
    tied["b"].weight = nn.Parameter(tied["a"].weight.detach().clone())
    assert weights_digest(tied) == before
    tied["b"].weight.data[0, 0] += 1
    assert weights_digest(tied) != before


def test_weights_that_are_not_there_or_not_dense_are_refused():
    message = "Linear: weight 'bias' has no values yet. Load the weights, or run one forward, before the model is used."
    with pytest.raises(GuardError) as error:
        weights_digest(nn.Linear(2, 2, device="meta"))
    assert str(error.value) == message
    with pytest.raises(GuardError, match="LazyLinear: weight 'bias' has no values yet"):
        weights_digest(nn.LazyLinear(2))
    sparse = nn.Module()
    sparse.register_buffer("s", torch.eye(2).to_sparse())
    with pytest.raises(GuardError) as error:
        weights_digest(sparse)
    message = "Module: weight 's' is not a dense tensor and cannot be fingerprinted. Convert it to a dense one."
    assert str(error.value) == message


def test_the_training_flag_a_gradient_and_a_forward_change_nothing():
    model = net().eval()
    before = fingerprint(model, SITES)
    model.train()
    model.last(torch.randn(2, 4)).sum().backward()
    assert model.last.weight.grad is not None
    assert fingerprint(model, SITES) == before


def test_plain_settings_and_classes_stand_in_for_a_configuration():
    before = fingerprint(net(), SITES)
    assert changed(before, fingerprint(net(heads=1), SITES)) == {"config"}
    assert changed(before, fingerprint(net(activation=gelu), SITES)) == {"config"}
    model = net()
    model.norm.eps = 1e-3
    assert changed(before, fingerprint(model, SITES)) == {"config"}
    act, other = nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())
    for config in (None, {"width": 3}):
        assert changed(fingerprint(act, {}, config=config), fingerprint(other, {}, config=config)) == {"config"}
    many = [nn.MultiheadAttention(8, heads) for heads in (2, 4)]
    assert fingerprint(many[0], {}).config != fingerprint(many[1], {}).config


def test_a_configuration_that_is_given_stands_for_the_settings():
    before = fingerprint(net(), SITES, config={"layers": 2})
    assert fingerprint(net(heads=1), SITES, config={"layers": 2}) == before
    assert changed(before, fingerprint(net(), SITES, config={"layers": 3})) == {"config"}


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(config=st.dictionaries(st.text(max_size=5), json_like, min_size=2, max_size=5), seed=st.integers())
@settings(max_examples=60, deadline=None)
def test_the_order_of_a_mapping_is_no_property_of_it(config, seed):
    items = list(config.items())
    random.Random(seed).shuffle(items)
    assert config_digest(dict(items)) == config_digest(config)
    assert config_digest({**config, "more" * 3: 1}) != config_digest(config)


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Config:
    width: int
    path: PurePosixPath


class Loaded:
    """As Hugging Face's: where it came from is part of what it tells, but not of what the network is."""

    def __init__(self, folder, version, width):
        self.folder, self.version, self.width = folder, version, width

    def to_dict(self):
        return {"_name_or_path": self.folder, "transformers_version": self.version, "width": self.width}


def test_configurations_of_many_kinds():
    assert config_digest(Config(3, PurePosixPath("a/b"))) == config_digest({"path": "a/b", "width": 3})
    assert config_digest({"c": Colour.RED, "d": torch.bfloat16}) == config_digest({"c": "red", "d": "torch.bfloat16"})
    assert config_digest((1, 2)) == config_digest([1, 2]) != config_digest([2, 1])
    assert config_digest({1, 2, 10}) == config_digest({10, 2, 1})
    assert config_digest({0: "a"}) == config_digest({"0": "a"})
    assert len({config_digest(x) for x in (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1, True, "1")}) == 8
    assert config_digest(Loaded("here", "4", 3)) == config_digest(Loaded("there", "5", 3))
    assert config_digest(Loaded("here", "4", 3)) != config_digest(Loaded("here", "4", 4))


def test_a_configuration_without_a_stable_text_is_refused():
    with pytest.raises(ConfigError) as error:
        config_digest({"layers": [1, {"make": object()}]})
    assert str(error.value) == (
        "config.layers[1].make: a object cannot be part of a model's configuration. "
        "Give plain values: numbers, texts, lists, mappings."
    )


@pytest.mark.parametrize(
    "sites",
    [
        {"renamed": SITES["a"], "b": SITES["b"]},
        {"a": Site("first", "input"), "b": SITES["b"]},
        {"a": Site("first", select=0), "b": SITES["b"]},
        {"a": Site("first", select="0"), "b": SITES["b"]},
        {"a": Site("first", call=0), "b": SITES["b"]},
        {"a": Site("norm"), "b": SITES["b"]},
        {"a": SITES["a"]},
    ],
)
def test_another_name_or_place_of_a_site_is_found(sites):
    model = net()
    assert changed(fingerprint(model, SITES), fingerprint(model, sites)) == {"sites"}


def test_a_width_that_was_learnt_is_no_change():
    assert sites_digest({"a": Site("first", width=4)}) == sites_digest({"a": Site("first")})
