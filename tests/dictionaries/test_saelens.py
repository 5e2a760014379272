"""SAELens' format both ways; its own classes take part where ELUTE_SAELENS_PYTHON names a python that has them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from elute.base.errors import ConfigError, DamagedError, DataError, EluteError
from elute.base.tensors import load_npy
from elute.dictionaries import saelens
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.saelens_read import CONFIG, FORMS, WEIGHTS
from elute.dictionaries.spec import DictionarySpec

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "interchange.md"
PEER = Path(__file__).with_name("peer_saelens.py")
READ, FEATURES, WRITE, K = 8, 24, 5, 4
NEAR = 1e-5

KINDS: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "topk": {"activation": "topk"},
    "topk-nested": {"activation": "topk", "nested": (6, 24)},
    "signed": {"activation": "signed-topk"},
    "batchtopk": {"activation": "batchtopk"},
    "batchtopk-new": {"activation": "batchtopk", "fresh": True},
    "matryoshka": {"activation": "batchtopk", "nested": (6, 12, 24)},
    "jumprelu": {"activation": "jumprelu", "settings": {"bandwidth": 0.02, "tanh": 2.0}},
    "gated": {"activation": "gated"},
    "pursuit": {"activation": "matching-pursuit"},
    "pursuit-scaled": {"activation": "matching-pursuit", "unit": 3.0},
    "transcoder": {"kind": "transcoder", "activation": "relu"},
    "skip": {"kind": "transcoder", "activation": "relu", "skip": True},
    "jump-transcoder": {"kind": "transcoder", "activation": "jumprelu"},
    "jump-skip": {"kind": "transcoder", "activation": "jumprelu", "skip": True},
    "batch-transcoder": {"kind": "transcoder", "activation": "batchtopk"},
}
WRITTEN = {
    "relu": ("standard", "standard"),
    "topk": ("topk", "topk"),
    "topk-nested": ("topk", "topk"),
    "signed": ("abstopk", "abstopk"),
    "batchtopk": ("jumprelu", "batchtopk"),
    "batchtopk-new": ("jumprelu", "batchtopk"),
    "matryoshka": ("jumprelu", "matryoshka_batchtopk"),
    "jumprelu": ("jumprelu", "jumprelu"),
    "gated": ("gated", "gated"),
    "pursuit": ("matching_pursuit", "matching_pursuit"),
    "pursuit-scaled": ("matching_pursuit", "matching_pursuit"),
    "transcoder": ("transcoder", None),
    "skip": ("skip_transcoder", None),
    "jump-transcoder": ("jumprelu_transcoder", None),
    "jump-skip": ("jumprelu_skip_transcoder", None),
    "batch-transcoder": ("jumprelu_transcoder", None),
}


def rows(n: int = 200, width: int = READ, seed: int = 7) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def made(name: str) -> Dictionary:
    """Random weights: no bias is zero, no decoder row has length one."""
    given = {"kind": "sae", "reads": {"layer.3": READ}, "n_features": FEATURES, "k": K, **KINDS[name]}
    unit, fresh = given.pop("unit", 1.0), given.pop("fresh", False)
    given["writes"] = {"layer.4": WRITE} if given["kind"] == "transcoder" else given["reads"]
    dictionary = Dictionary(DictionarySpec(**given)).eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(sum(map(ord, name)))

    def random(tensor: Tensor, scale: float = 0.4) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)

    bank = next(iter(dictionary))
    for tensor in (bank.W_enc, bank.W_dec, bank.b_enc, dictionary.b_dec):
        random(tensor)
    for extra in bank.extra:
        random(getattr(bank, extra))
        if "threshold" in extra and not fresh:
            getattr(bank, extra).abs_().add_(0.05)
    if fresh:
        bank.threshold.fill_(-1.0)  # before the first step of training
    if dictionary.W_skip is not None:
        random(dictionary.W_skip)
    if bank.extra == [] and dictionary.sparsity.tied:
        # As folding one factor and a centre leaves it: both ways scaled against one another.
        bank.W_dec.copy_(bank.W_dec / bank.W_dec.norm(dim=1, keepdim=True) / unit**0.5)
        bank.W_enc.copy_(bank.W_dec * unit)
        bank.b_enc.copy_(-bank.W_enc @ dictionary.b_dec)
    return dictionary


def differences(one: Dictionary, other: Dictionary, x: Tensor) -> tuple[float, float]:
    codes = (one.encode(x).dense() - other.encode(x).dense()).abs().max()
    return float(codes), float((one(x) - other(x)).abs().max())


def parts_of(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.glob(f"*/{CONFIG}"))


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    dictionary, x = made(name), rows()
    folders = saelens.write(dictionary, tmp_path / "saelens")
    inference, training = WRITTEN[name]
    told = {p.name: json.loads((p / CONFIG).read_text())["architecture"] for p in folders}
    assert told == {"inference": inference} | ({"training": training} if training else {})
    assert sorted(folders) == parts_of(tmp_path / "saelens")
    assert dictionary.encode(x).l0().float().mean() > 1  # something fires, or nothing would be compared
    for folder in (*folders, tmp_path / "saelens"):
        again = saelens.read(folder)
        ours, theirs = dictionary.spec, again.spec
        assert (theirs.kind, theirs.reads, theirs.writes) == (ours.kind, ours.reads, ours.writes)
        assert (theirs.n_features, theirs.k, theirs.nested) == (ours.n_features, ours.k, ours.nested)
        assert (theirs.activation, theirs.settings, theirs.skip) == (ours.activation, ours.settings, ours.skip)
        assert max(differences(dictionary, again, x)) < NEAR
        assert not again.training
        assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_every_tensor_has_the_shape_of_their_class(name: str, tmp_path: Path) -> None:
    """Shapes in words, from their source; and nothing that the class would have to do around the weights."""
    for folder in saelens.write(made(name), tmp_path):
        config = json.loads((folder / CONFIG).read_text())
        form = FORMS[config["architecture"]]
        sizes = {"read": READ, "features": FEATURES, "write": WRITE}
        wanted = {key: [sizes[word] for word in words.split()] for key, words in form.shapes.items()}
        tensors = load_file(folder / WEIGHTS)
        assert {key: [*tensor.shape] for key, tensor in tensors.items()} == wanted
        assert not [key for key, tensor in tensors.items() if "threshold" in key and bool((tensor < 0).any())]
        assert (config["d_in"], config["d_sae"]) == (READ, FEATURES)
        assert config.get("d_out", WRITE) == WRITE
        assert config["normalize_activations"] == config["reshape_activations"] == "none"
        assert config["apply_b_dec_to_input"] is (form.activation == "matching-pursuit")
        assert not config.get("rescale_acts_by_decoder_norm")
        assert config["metadata"]["hook_name"] == "layer.3"
        assert config["metadata"].get("hook_name_out") == ("layer.4" if form.kind == "transcoder" else None)


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_of_before(tmp_path: Path) -> None:
    saelens.write(made("gated"), tmp_path)
    first = {p.name: (p / CONFIG).read_bytes() + (p / WEIGHTS).read_bytes() for p in parts_of(tmp_path)}
    saelens.write(made("gated"), tmp_path)
    assert first == {p.name: (p / CONFIG).read_bytes() + (p / WEIGHTS).read_bytes() for p in parts_of(tmp_path)}
    saelens.write(made("skip"), tmp_path)
    assert [p.name for p in parts_of(tmp_path)] == ["inference"]
    assert saelens.read(tmp_path).spec.skip


def test_a_hook_and_metadata_are_the_users(tmp_path: Path) -> None:
    given = {"model_name": "tiny", "hook_name": "other", "sae_lens_version": "1.0", "context_size": 16}
    saelens.write(made("relu"), tmp_path, site="blocks.3.hook_resid_post", metadata=given)
    metadata = json.loads((tmp_path / "training" / CONFIG).read_text())["metadata"]
    assert (metadata["model_name"], metadata["context_size"]) == ("tiny", 16)
    assert metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert metadata["sae_lens_version"].startswith("6.")  # or SAELens would take the file for an old one
    again = saelens.read(tmp_path).spec
    assert list(again.reads) == ["blocks.3.hook_resid_post"]
    assert again.source == {
        "library": "saelens", "architecture": "standard", "model_name": "tiny", "sae_lens_version": "6.54.0"
    }  # fmt: skip


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(kind: torch.dtype, tmp_path: Path) -> None:
    dictionary = made("batchtopk").to(kind)
    for folder in saelens.write(dictionary, tmp_path):
        again = next(iter(saelens.read(folder)))
        assert json.loads((folder / CONFIG).read_text())["dtype"] == str(kind).removeprefix("torch.")
        wanted = torch.float64 if kind == torch.float64 else torch.float32
        assert again.W_enc.dtype == again.threshold.dtype == wanted
        assert torch.equal(again.W_enc, next(iter(dictionary)).W_enc.to(wanted))


def test_switched_off_and_open_thresholds(tmp_path: Path) -> None:
    """A threshold of zero or less lets through what is positive; an infinite one nothing; both can be kept in a file."""
    saelens.write(made("jumprelu"), tmp_path)
    place = tmp_path / "inference"
    tensors = load_file(place / WEIGHTS)
    tensors["threshold"][:3] = torch.tensor([-0.5, 0.0, torch.inf])
    save_file(tensors, place / WEIGHTS)
    again, x = saelens.read(place), rows()
    pre = x @ tensors["W_enc"] + tensors["b_enc"]
    assert torch.allclose(again.encode(x).dense(), pre * ((pre > tensors["threshold"]) & (pre > 0)), atol=NEAR)
    assert bool(next(iter(again)).log_threshold.isfinite().all())


def refused(call: Callable[[], object], kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(DataError if issubclass(kind, DataError) else kind) as error:
        call()
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "clt", "reads": {"a": 4, "b": 4}, "writes": {"c": 4, "d": 4}}, "no class for a clt"),
        ({"kind": "crosscoder", "reads": {"a": 4, "b": 4}}, "no class for a crosscoder"),
        ({"kind": "transcoder", "reads": {"a": 4}, "writes": {"b": 4}}, "no transcoder with the activation 'topk'"),
        ({"kind": "transcoder", "reads": {"a": 4}, "writes": {"b": 4}, "activation": "gated"}, "activation 'gated'"),
    ],
)
def test_what_saelens_has_no_class_for(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    spec = DictionarySpec(**{"writes": given["reads"], **given}, n_features=8, k=2)
    line = refused(lambda: saelens.write(Dictionary(spec), tmp_path))
    assert says in line
    assert line.endswith("elute's own file.")
    assert not parts_of(tmp_path)


@pytest.mark.parametrize("what", ["encoder", "bias", "zero"])
def test_a_pursuit_with_two_sets_of_directions_stays_here(what: str, tmp_path: Path) -> None:
    dictionary = made("pursuit")
    bank = next(iter(dictionary))
    if what == "encoder":
        bank.W_enc[:, 0] *= 1.001
    elif what == "bias":
        dictionary.b_dec[0] += 0.01
    else:
        bank.W_enc.zero_()
    assert "one set of directions" in refused(lambda: saelens.write(dictionary, tmp_path))


# ---- files as SAELens writes them, made by hand from its source


def tensors_of(architecture: str, seed: int = 3) -> dict[str, Tensor]:
    sizes = {"read": READ, "features": FEATURES, "write": WRITE}
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, words in FORMS[architecture].shapes.items():
        values = torch.randn([sizes[word] for word in words.split()], generator=generator) * 0.4
        tensors[name] = values.abs() + 0.05 if "threshold" in name else values
    return tensors


def foreign(place: Path, made_as: str, tensors: dict[str, Tensor] | None = None, **config: Any) -> Path:
    place.mkdir(exist_ok=True)
    tensors = tensors_of(made_as) if tensors is None else tensors
    save_file({k: t.contiguous() for k, t in tensors.items()}, place / WEIGHTS)
    config = {
        "architecture": made_as, "d_in": READ, "d_sae": FEATURES, "dtype": "float32", "device": "cpu",
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.0", "hook_name": "hook"}, **config,
    }  # fmt: skip
    (place / CONFIG).write_text(json.dumps(config))
    return place


def theirs(
    architecture: str, t: dict[str, Tensor], x: Tensor, *, centre: bool = False, rescale: bool = False, k: int = K
) -> tuple[Tensor, Tensor]:
    """What their classes compute, in float64, from their source."""
    t, x = {name: value.double() for name, value in t.items()}, x.double()
    rest = x - t["b_dec"] if centre else x
    if architecture == "matching_pursuit":
        codes = torch.zeros(len(x), FEATURES, dtype=torch.double)
        for _ in range(k):
            scores = (rest @ t["W_dec"].T).relu()
            value, feature = scores.max(1, keepdim=True)
            codes.scatter_add_(1, feature, value)
            rest = rest - value * t["W_dec"][feature[:, 0]]
        return codes, codes @ t["W_dec"] + (t["b_dec"] if centre else 0)
    product = rest @ t["W_enc"]
    norms = t["W_dec"].norm(dim=1) if rescale else torch.ones(FEATURES, dtype=torch.double)
    if architecture == "gated":
        codes = (product + t["b_gate"] > 0) * (product * t["r_mag"].exp() + t["b_mag"]).relu()
    else:
        pre = (product + t["b_enc"]) * norms
        codes = pre.relu()
        if architecture in ("topk", "abstopk"):
            chosen = (pre.abs() if architecture == "abstopk" else pre).topk(k).indices
            kept = torch.zeros_like(pre).scatter(1, chosen, 1.0)
            codes = kept * (pre if architecture == "abstopk" else codes)
        if "threshold" in t or "topk_threshold" in t:
            codes = codes * (pre > t.get("threshold", t.get("topk_threshold")))
    out = (codes / norms) @ t["W_dec"] + t["b_dec"]
    return codes, out + (x @ t["W_skip"].T if "W_skip" in t else 0)


def agree(dictionary: Dictionary, x: Tensor, wanted: tuple[Tensor, Tensor]) -> None:
    assert 1 < float((wanted[0] != 0).sum(1).double().mean()) < FEATURES
    assert float((dictionary.encode(x).dense() - wanted[0]).abs().max()) < NEAR
    assert float((dictionary(x) - wanted[1]).abs().max()) < NEAR


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("architecture", [name for name, form in FORMS.items() if form.kind == "sae"])
def test_every_autoencoder_of_theirs(architecture: str, centre: bool, tmp_path: Path) -> None:
    tensors = tensors_of(architecture)
    more: dict[str, Any] = {"k": K} if "topk" in architecture else {}
    if architecture == "matching_pursuit":
        more = {"max_iterations": K, "residual_threshold": 0.0, "stop_on_duplicate_support": False}
    for rescale in (True, False) if "topk" in architecture else (False,):
        more |= {"rescale_acts_by_decoder_norm": rescale} if "topk" in architecture else {}
        foreign(tmp_path, architecture, tensors, apply_b_dec_to_input=centre, **more)
        dictionary = saelens.read(tmp_path)
        assert dictionary.spec.reads == dictionary.spec.writes == {"hook": READ}
        agree(dictionary, rows(), theirs(architecture, tensors, rows(), centre=centre, rescale=rescale))


@pytest.mark.parametrize("architecture", [name for name, form in FORMS.items() if form.kind == "transcoder"])
def test_every_transcoder_of_theirs(architecture: str, tmp_path: Path) -> None:
    tensors = tensors_of(architecture)
    foreign(tmp_path, architecture, tensors, d_out=WRITE, apply_b_dec_to_input=False)
    dictionary = saelens.read(tmp_path)
    assert (dictionary.spec.reads, dictionary.spec.writes) == ({"hook": READ}, {"y": WRITE})
    agree(dictionary, rows(), theirs(architecture, tensors, rows()))


def test_settings_that_a_configuration_leaves_out(tmp_path: Path) -> None:
    """SAELens' defaults: rows are centred; those that compete over a batch are rescaled, plain ones are not."""
    for architecture, rescale in (("topk", False), ("batchtopk", True)):
        tensors = tensors_of(architecture)
        foreign(tmp_path, architecture, tensors, k=K)
        agree(saelens.read(tmp_path), rows(), theirs(architecture, tensors, rows(), centre=True, rescale=rescale))
    foreign(tmp_path, "matryoshka_batchtopk", k=2.5, matryoshka_widths=[6, 12])
    spec = saelens.read(tmp_path / CONFIG).spec
    assert (spec.nested, spec.k, spec.activation) == ((6, 12, FEATURES), 2, "batchtopk")


def test_the_inference_form_of_a_batch_keeps_what_it_was(tmp_path: Path) -> None:
    tensors = tensors_of("jumprelu")
    details = {"k": 3.0, "matryoshka_widths": [6, FEATURES]}
    trained = {"training_architecture": "matryoshka_batchtopk", "training_architecture_details": details}
    foreign(tmp_path, "jumprelu", tensors, metadata={"sae_lens_version": "6.54.0", **trained})
    assert saelens.read(tmp_path).spec.activation == "jumprelu"  # its thresholds are no longer one
    tensors["threshold"][:] = 0.25
    foreign(tmp_path, "jumprelu", tensors, metadata={"sae_lens_version": "6.54.0", **trained})
    again = saelens.read(tmp_path)
    assert (again.spec.activation, again.spec.k, again.spec.nested) == ("batchtopk", 3, (6, FEATURES))
    agree(again, rows(), theirs("jumprelu", tensors, rows(), centre=True))


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize("centre", [True, False])
def test_known_normalisations_are_folded(architecture: str, centre: bool, tmp_path: Path) -> None:
    tensors, x = tensors_of(architecture), rows()
    ranked: dict[str, Any] = {"k": K, "rescale_acts_by_decoder_norm": True} if "topk" in architecture else {}
    flags = {"centre": centre, "rescale": bool(ranked)}
    how: dict[str, Any] = {"normalize_activations": "expected_average_only_in", "apply_b_dec_to_input": centre}
    foreign(tmp_path, architecture, tensors, **how, **ranked)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 1.7}')
    codes, out = theirs(architecture, tensors, x * 1.7, **flags)
    agree(saelens.read(tmp_path), x, (codes, out / 1.7))

    generator = torch.Generator().manual_seed(5)
    mean = torch.randn(READ, generator=generator, dtype=torch.double)
    matrix = torch.eye(READ).double() + 0.2 * torch.randn(READ, READ, generator=generator, dtype=torch.double)
    inverse = torch.linalg.inv(matrix).contiguous()
    save_file(
        {"mean": mean, "matrix": matrix, "inverse_matrix": inverse}, tmp_path / "activation_whitening.safetensors"
    )
    how["normalize_activations"] = "covariance_whitening"
    foreign(tmp_path, architecture, tensors, **how, **ranked)
    codes, out = theirs(architecture, tensors, (x - mean) @ matrix, **flags)
    agree(saelens.read(tmp_path), x, (codes, out @ inverse + mean))


def test_configurations_from_before_version_6(tmp_path: Path) -> None:
    tensors = tensors_of("topk")
    foreign(tmp_path, "topk", tensors | {"scaling_factor": torch.ones(FEATURES)})
    old: dict[str, Any] = {"d_in": READ, "d_sae": FEATURES, "hook_point": "blocks.1", "normalize_activations": False}
    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    (tmp_path / CONFIG).write_text(json.dumps(old | topk))
    dictionary = saelens.read(tmp_path)
    assert (dictionary.spec.activation, dictionary.spec.k, dictionary.spec.reads) == ("topk", 3, {"blocks.1": READ})
    agree(dictionary, rows(), theirs("topk", tensors, rows(), centre=True, k=3))
    (tmp_path / CONFIG).write_text(json.dumps(old))
    agree(saelens.read(tmp_path), rows(), theirs("standard", tensors, rows(), centre=True))
    (tmp_path / CONFIG).write_text(json.dumps(old | {"activation_fn": "tanh-relu"}))
    assert "activation_fn = 'tanh-relu'" in refused(lambda: saelens.read(tmp_path))
    (tmp_path / CONFIG).write_text(json.dumps(old | {"hook_point": "blocks.1.attn.hook_z"}))
    assert "reshape_activations = 'hook_z'" in refused(lambda: saelens.read(tmp_path))
    (tmp_path / CONFIG).write_text(json.dumps(old))
    foreign(tmp_path, "topk", tensors | {"scaling_factor": torch.full((FEATURES,), 1.1)})
    assert "finetuned" in refused(lambda: saelens.read(tmp_path))


def test_an_older_training_file_keeps_the_logarithm(tmp_path: Path) -> None:
    tensors = tensors_of("jumprelu")
    older = {name: t for name, t in tensors.items() if name != "threshold"}
    foreign(tmp_path, "jumprelu", older | {"log_threshold": tensors["threshold"].log()}, jumprelu_bandwidth=0.07)
    dictionary = saelens.read(tmp_path)
    assert dictionary.spec.settings == {"bandwidth": 0.07}
    agree(dictionary, rows(), theirs("jumprelu", tensors, rows(), centre=True))


# ---- what cannot be read


@pytest.mark.parametrize(
    ("architecture", "config", "says"),
    [
        ("standard", {"architecture": "temporal"}, "architecture 'temporal'. elute reads standard, topk,"),
        ("standard", {"architecture": 3}, "architecture = 3 is not a text"),
        ("standard", {"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm' in a standard"),
        ("standard", {"normalize_activations": "constant_norm_rescale"}, "'constant_norm_rescale' in a standard"),
        ("standard", {"normalize_activations": ["none"]}, "normalize_activations = ['none']"),
        ("transcoder", {"normalize_activations": "expected_average_only_in"}, "in a transcoder. No fixed weights"),
        ("transcoder", {"apply_b_dec_to_input": True}, "apply_b_dec_to_input = true"),
        ("standard", {"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input = 'yes' is not true or false"),
        ("standard", {"reshape_activations": "hook_z"}, "reshape_activations = 'hook_z'"),
        ("topk", {"k": FEATURES + 1}, f"k = {FEATURES + 1} is more than the {FEATURES} features"),
        ("topk", {"k": 0}, "k: Input should be greater than or equal to 1"),
        ("topk", {"k": "many"}, "k: Input should be a valid integer"),
        ("matryoshka_batchtopk", {"k": 2, "matryoshka_widths": [12, 6]}, "nested prefixes must grow"),
        ("matryoshka_batchtopk", {"k": 2, "matryoshka_widths": "all"}, "nested: Input should be a valid"),
        ("matching_pursuit", {"max_iterations": 4}, "a pursuit that stops by residual_threshold"),
        ("matching_pursuit", {"max_iterations": 4, "residual_threshold": 0}, "stop_on_duplicate_support"),
        ("jumprelu", {"metadata": {"sae_lens_version": "6.1", "elute": {"settings": {"speed": 1}}}}, "'speed'"),
    ],
)
def test_settings_that_are_refused(architecture: str, config: dict[str, Any], says: str, tmp_path: Path) -> None:
    foreign(tmp_path, architecture, **config)
    line = refused(lambda: saelens.read(tmp_path))
    assert says in line
    assert line.startswith(str(tmp_path / CONFIG)) or "setting" in line


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"d_in": 9}, "d_in = 9 in its configuration, but its tensors say 8"),
        ({"d_sae": "24"}, "d_sae = '24' in its configuration, but its tensors say 24"),
    ],
)
def test_sizes_that_contradict_the_tensors(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    foreign(tmp_path, "standard", **config)
    assert says in refused(lambda: saelens.read(tmp_path), DamagedError)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"b_enc": None}, "has no tensor 'b_enc'"),
        ({"b_gate": torch.zeros(FEATURES)}, "holds a tensor 'b_gate'"),
        ({"b_enc": torch.zeros(5)}, "b_enc is [5], not [features] with features = 24"),
        ({"W_dec": torch.zeros(READ, FEATURES)}, "W_dec is [8, 24], not [features, read] with features = 24"),
        ({"W_enc": torch.zeros(READ)}, "W_enc is float32 [8], not numbers [read, features]"),
        ({"b_dec": torch.zeros(READ, dtype=torch.int64)}, "b_dec is int64 [8], not numbers [read]"),
        ({"W_enc": torch.zeros(READ, 0)}, "W_enc is float32 [8, 0]"),
        ({"b_dec": torch.full((READ,), torch.nan)}, "b_dec holds NaN or infinity"),
        ({"W_enc": torch.full((READ, FEATURES), torch.inf)}, "W_enc holds NaN or infinity"),
    ],
)
def test_tensors_that_are_not_those_of_the_class(change: dict[str, Tensor | None], says: str, tmp_path: Path) -> None:
    tensors = tensors_of("standard") | {name: t for name, t in change.items() if t is not None}
    for name in (name for name, t in change.items() if t is None):
        del tensors[name]
    foreign(tmp_path, "standard", tensors)
    line = refused(lambda: saelens.read(tmp_path), DamagedError)
    assert says in line
    assert line.startswith(str(tmp_path / WEIGHTS))


def test_files_that_are_damaged_or_missing(tmp_path: Path) -> None:
    place = foreign(tmp_path, "standard")
    whole = (place / WEIGHTS).read_bytes()
    (place / WEIGHTS).write_bytes(whole[:-9])
    assert "was cut short" in refused(lambda: saelens.read(place), DamagedError)
    (place / WEIGHTS).write_bytes(b"\x80\x02cposix\nsystem\n.")
    assert "not a whole safetensors file" in refused(lambda: saelens.read(place), DamagedError)
    (place / WEIGHTS).write_bytes(whole.replace(b'"F32"', b'"F64"', 1))  # the type no longer fits the place
    assert "not a whole safetensors file" in refused(lambda: saelens.read(place), DamagedError)
    (place / WEIGHTS).unlink()
    assert "cannot be read" in refused(lambda: saelens.read(place), DataError)
    for text in ("[]", "{", "null", ""):
        (place / CONFIG).write_text(text)
        with pytest.raises(DataError):
            saelens.read(place)
    assert "there is no cfg.json here" in refused(lambda: saelens.read(tmp_path / "none"), DataError)


ODD: list[Any] = [None, True, -1, 1e400, "none", [0], {"k": []}, {"hook_name": 3, "elute": {"k": "x"}}]
KEYS = ["architecture", "d_in", "d_sae", "d_out", "k", "metadata", "sae_lens_version", "activation_fn"]
KEYS += ["activation_fn_kwargs", "apply_b_dec_to_input", "rescale_acts_by_decoder_norm", "normalize_activations"]
KEYS += ["matryoshka_widths", "reshape_activations", "max_iterations", "residual_threshold", "jumprelu_bandwidth"]


@pytest.mark.parametrize("architecture", ["jumprelu", "matryoshka_batchtopk", "matching_pursuit"])
def test_odd_values_give_one_line_or_a_dictionary(architecture: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {"k": 2, "residual_threshold": 0.0, "stop_on_duplicate_support": False}
    foreign(tmp_path, architecture, **config)
    text = json.loads((tmp_path / CONFIG).read_text())
    lines: list[str] = []
    for key in KEYS:
        for value in ODD:
            (tmp_path / CONFIG).write_text(json.dumps(text | {key: value}))
            try:
                assert bool(saelens.read(tmp_path)(rows(3)).isfinite().all())
            except EluteError as error:
                lines.append(str(error))
    assert len(lines) > 30
    assert not [line for line in lines if "\n" in line]


def test_a_factor_that_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    foreign(tmp_path, "standard", normalize_activations="expected_average_only_in")
    assert "no such file" in refused(lambda: saelens.read(tmp_path), DataError)
    for text in ('{"scaling_factor": null}', '{"scaling_factor": -1.0}', '{"scaling_factor": Infinity}'):
        (tmp_path / "activation_scaler.json").write_text(text)
        assert "scaling_factor = " in refused(lambda: saelens.read(tmp_path))
    foreign(tmp_path, "standard", normalize_activations="covariance_whitening")
    assert "cannot be read" in refused(lambda: saelens.read(tmp_path), DataError)
    five = {"mean": torch.zeros(5), "matrix": torch.eye(5), "inverse_matrix": torch.eye(5)}
    save_file(five, tmp_path / "activation_whitening.safetensors")
    assert "d_in = 5" in refused(lambda: saelens.read(tmp_path), DamagedError)


def test_the_page_names_every_architecture() -> None:
    page = PAGE.read_text()
    assert not [name for name in FORMS if f"`{name}`" not in page]


# ---- SAELens' own classes


@pytest.fixture
def peer(tmp_path: Path) -> Callable[[str], str]:
    python = os.environ.get("ELUTE_SAELENS_PYTHON")
    if not python:
        pytest.skip("no SAELens here: set ELUTE_SAELENS_PYTHON to a python that has it")
    np.save(tmp_path / "x.npy", rows(300).numpy())

    def run(mode: str) -> str:
        command = [python, "-B", str(PEER), mode, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


def compare(name: str, dictionary: Dictionary, given: tuple[Path, Path], unit: float = 1.0) -> float:
    """The largest difference from what they computed, as a part of the largest number where that is above one."""
    x, worst = rows(300), []
    codes, out = (torch.from_numpy(np.array(load_npy(path))) for path in given)
    assert float((codes != 0).sum(1).double().mean()) > 1
    for ours, theirs_ in ((dictionary.encode(x).dense() / unit, codes), (dictionary(x), out)):
        worst.append(float((ours - theirs_).abs().max() / theirs_.abs().max().clamp(min=1)))
    print(f"{name:34} codes {worst[0]:.1e}  outputs {worst[1]:.1e}")
    return max(worst)


def test_their_classes_load_what_is_written(peer: Callable[[str], str], tmp_path: Path) -> None:
    for name in KINDS:
        saelens.write(made(name), tmp_path / name)
    print(peer("load"))
    for name in KINDS:
        unit = KINDS[name].get("unit", 1.0) ** 0.5  # tied, theirs has one scale where ours has two
        for part in ("inference", "training") if WRITTEN[name][1] else ("inference",):
            given = tmp_path / name / f"{part}_codes.npy", tmp_path / name / f"{part}_out.npy"
            assert compare(f"{name} {part}", made(name), given, unit) < NEAR, name


def test_what_their_classes_save_is_read(peer: Callable[[str], str], tmp_path: Path) -> None:
    print(peer("save"))
    found = sorted(p.parent for p in tmp_path.glob("*/own_out.npy"))
    assert len(found) > 35
    for place in found:
        dictionary = saelens.read(place)
        assert compare(place.name, dictionary, (place / "own_codes.npy", place / "own_out.npy")) < NEAR, place.name
        assert next(iter(dictionary.spec.reads)).startswith("blocks.")
