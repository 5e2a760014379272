"""Dictionaries of dictionary_learning and sparsify, by format; by their own code with ELUTE_PEERS_PYTHON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
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
from elute.dictionaries import foreign, saelens
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import save_dictionary
from elute.dictionaries.spec import DictionarySpec

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "interchange.md"
PEER = Path(__file__).with_name("peer_others.py")
READ, FEATURES, K = 8, 24, 4
NEAR = 1e-5


def rows(n: int = 200) -> Tensor:
    return torch.randn(n, READ, generator=torch.Generator().manual_seed(7))


def random(shapes: dict[str, list[int]], seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


LINEAR = {"encoder.weight": [FEATURES, READ], "encoder.bias": [FEATURES], "decoder.weight": [READ, FEATURES]}
MATRIX = {"W_enc": [READ, FEATURES], "b_enc": [FEATURES], "W_dec": [FEATURES, READ], "b_dec": [READ]}
FEATURE = {"r_mag": [FEATURES], "gate_bias": [FEATURES], "mag_bias": [FEATURES]}
SHAPES: dict[str, dict[str, list[int]]] = {
    "AutoEncoder": {**LINEAR, "bias": [READ]},
    "AutoEncoderNew": {**LINEAR, "decoder.bias": [READ]},
    "GatedAutoEncoder": {k: s for k, s in LINEAR.items() if k != "encoder.bias"} | {"decoder_bias": [READ], **FEATURE},
    "JumpReluAutoEncoder": {**MATRIX, "threshold": [FEATURES]},
    "AutoEncoderTopK": {**LINEAR, "b_dec": [READ]},
    "BatchTopKSAE": {**LINEAR, "b_dec": [READ]},
    "MatryoshkaBatchTopKSAE": MATRIX,
}


def state_of(name: str) -> dict[str, Tensor]:
    """A state as the class saves it."""
    state = random(SHAPES[name])
    if "TopK" in name:
        state |= {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(0.3)}
    if "Matryoshka" in name:
        state["group_sizes"] = torch.tensor([6, 6, 12])
    if name == "JumpReluAutoEncoder":
        state["threshold"] = state["threshold"].abs()
        state["threshold"][0] = -1.0
    return state


def learning(place: Path, name: str, state: Any = None, **trainer: Any) -> Path:
    """A folder as dictionary_learning's trainSAE leaves it."""
    place.mkdir(exist_ok=True)
    torch.save(state_of(name) if state is None else state, place / "ae.pt")
    sizes = {"activation_dim": READ, "dict_size": FEATURES, **({"k": K} if "TopK" in name else {})}
    config = {"dict_class": name, "layer": 3, "lm_name": "tiny", "submodule_name": "resid_3", **sizes, **trainer}
    (place / "config.json").write_text(json.dumps({"trainer": config, "buffer": {"d_submodule": READ}}))
    return place


def theirs(name: str, s: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What their classes compute, in float64, from their source."""
    s, x = {key: value.double() for key, value in s.items()}, x.double()
    bias = s.get("b_dec", s.get("bias", s.get("decoder_bias", s.get("decoder.bias"))))
    assert bias is not None
    linear = "decoder.weight" in s
    W_enc, W_dec = (s["encoder.weight"].T, s["decoder.weight"].T) if linear else (s["W_enc"], s["W_dec"])
    rest = x if name in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - bias
    if name == "GatedAutoEncoder":
        product = rest @ W_enc
        codes = (product + s["gate_bias"] > 0) * (s["r_mag"].exp() * product + s["mag_bias"]).relu()
        return codes, codes @ W_dec + bias
    pre = rest @ W_enc + s.get("encoder.bias", s.get("b_enc"))
    codes = pre.relu()
    if name == "AutoEncoder":
        codes = codes * W_dec.norm(dim=1)  # its loader brings directions to length one
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
    elif name == "AutoEncoderTopK":
        codes = codes * torch.zeros_like(pre).scatter(1, codes.topk(K).indices, 1.0)
    elif "threshold" in s:
        codes = codes * (pre > s["threshold"])
    return codes, codes @ W_dec + bias


def agree(dictionary: Dictionary, wanted: tuple[Tensor, Tensor]) -> None:
    assert 1 < float((wanted[0] != 0).sum(1).double().mean()) < FEATURES
    assert float((dictionary.encode(rows()).dense() - wanted[0]).abs().max()) < NEAR
    assert float((dictionary(rows()) - wanted[1]).abs().max()) < NEAR


@pytest.mark.parametrize("name", SHAPES)
def test_every_class_of_dictionary_learning(name: str, tmp_path: Path) -> None:
    learning(tmp_path, name)
    assert foreign.sniff(tmp_path) == foreign.sniff(tmp_path / "ae.pt") == "dictionary_learning"
    dictionary = foreign.read_any(tmp_path / "ae.pt")
    assert not any(p.requires_grad for p in dictionary.parameters())
    spec = dictionary.spec
    assert spec.reads == spec.writes == {"resid_3": READ}
    assert spec.nested == ((6, 12, 24) if "Matryoshka" in name else ())
    assert spec.k == (K if "TopK" in name else FEATURES)
    assert spec.source == {"library": "dictionary_learning", "dict_class": name, "lm_name": "tiny"}
    agree(dictionary, theirs(name, state_of(name), rows()))


def test_directions_of_length_one_are_left_alone(tmp_path: Path) -> None:
    """As their loader does: so that values stay bit for bit those of training."""
    state = state_of("AutoEncoder")
    state["decoder.weight"] /= state["decoder.weight"].norm(dim=0)
    dictionary = foreign.read_dictionary_learning(learning(tmp_path, "AutoEncoder", state))
    assert torch.equal(next(iter(dictionary)).W_enc, state["encoder.weight"])


def test_a_threshold_that_was_never_set_lets_all_through(tmp_path: Path) -> None:
    state = state_of("BatchTopKSAE") | {"threshold": torch.tensor(-1.0)}
    agree(foreign.read_any(learning(tmp_path, "BatchTopKSAE", state)), theirs("BatchTopKSAE", state, rows()))


def test_the_site_is_the_submodule_or_the_layer(tmp_path: Path) -> None:
    for given, site in (({"submodule_name": None}, "layer_3"), ({"submodule_name": None, "layer": None}, "x")):
        assert list(foreign.read_any(learning(tmp_path, "AutoEncoder", **given)).spec.reads) == [site]


# ---- sparsify


def coder(place: Path, *, tensors: dict[str, Tensor] | None = None, **config: Any) -> tuple[Path, dict[str, Tensor]]:
    """A folder as sparsify's save_to_disk leaves it."""
    place.mkdir(exist_ok=True)
    shapes = {
        "encoder.weight": [FEATURES, READ],
        "encoder.bias": [FEATURES],
        "W_dec": [FEATURES, READ],
        "b_dec": [READ],
    }
    shapes |= {"W_skip": [READ, READ]} if config.get("skip_connection") else {}
    tensors = random(shapes) if tensors is None else tensors
    save_file(tensors, place / "sae.safetensors", metadata={"format": "pt"})
    told = {
        "activation": "topk", "expansion_factor": 3, "normalize_decoder": True, "num_latents": 0, "k": K,
        "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": READ, **config,
    }  # fmt: skip
    (place / "cfg.json").write_text(json.dumps(told))
    return place, tensors


@pytest.mark.parametrize("config", [{}, {"transcode": True}, {"transcode": True, "skip_connection": True}])
def test_every_coder_of_sparsify(config: dict[str, Any], tmp_path: Path) -> None:
    place, tensors = coder(tmp_path, **config)
    assert foreign.sniff(place) == foreign.sniff(place / "sae.safetensors") == "sparsify"
    dictionary = foreign.read_any(place)
    t, x = {name: value.double() for name, value in tensors.items()}, rows().double()
    transcode = bool(config.get("transcode"))
    pre = ((x if transcode else x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    codes = pre * torch.zeros_like(pre).scatter(1, pre.topk(K).indices, 1.0)
    out = codes @ t["W_dec"] + t["b_dec"] + (x @ t["W_skip"].T if "W_skip" in t else 0)
    agree(dictionary, (codes, out))
    assert dictionary.spec.kind == ("transcoder" if transcode else "sae")
    assert (list(dictionary.spec.reads), list(dictionary.spec.writes)) == (["x"], ["y" if transcode else "x"])
    assert dictionary.spec.k == K


# ---- which library


def test_which_library_lies_at_a_path(tmp_path: Path) -> None:
    spec = DictionarySpec(reads={"s": READ}, writes={"s": READ}, n_features=FEATURES, k=K, activation="relu")
    ours = Dictionary(spec)
    with torch.no_grad():
        next(iter(ours)).W_enc.normal_()
    run = tmp_path / "run"
    run.mkdir()
    save_dictionary(ours, run / "sae_final.pt")
    saelens.write(ours, run / "saelens")
    wanted = {
        "run": "elute",
        "run/sae_final.pt": "elute",
        "run/saelens": "saelens",
        "run/saelens/inference": "saelens",
        "run/saelens/training/cfg.json": "saelens",
        "run/saelens/training/sae_weights.safetensors": "saelens",
    }
    for path, library in wanted.items():
        assert foreign.sniff(tmp_path / path) == library
        assert torch.equal(foreign.read_any(tmp_path / path).encode(rows()).dense(), ours.encode(rows()).dense())


@pytest.mark.parametrize("content", [{}, {"cfg.json": "[]"}, {"cfg.json": "{"}, {"config.json": '{"a": 1}'}])
def test_a_folder_of_something_else(content: dict[str, str], tmp_path: Path) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    assert foreign.sniff(tmp_path) is None
    assert "there is no dictionary here that elute reads" in refused(lambda: foreign.read_any(tmp_path), DataError)
    missing = tmp_path / "none" / "at_all"
    assert foreign.sniff(missing) is None
    assert "there is no such file or folder" in refused(lambda: foreign.read_any(missing), DataError)


def test_what_is_missing_is_said_by_its_reader(tmp_path: Path) -> None:
    """A configuration alone says whose it is, and its reader what is not there."""
    (tmp_path / "cfg.json").write_text('{"architecture": "standard"}')
    assert foreign.sniff(tmp_path) == "saelens"
    assert "sae_weights.safetensors: cannot be read" in refused(lambda: foreign.read_any(tmp_path), DataError)
    (tmp_path / "cfg.json").write_text('{"expansion_factor": 3}')
    assert foreign.sniff(tmp_path) == "sparsify"
    assert "sae.safetensors: cannot be read" in refused(lambda: foreign.read_any(tmp_path), DataError)
    (tmp_path / "cfg.json").unlink()
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoder"}}')
    assert "ae.pt: cannot be read" in refused(lambda: foreign.read_any(tmp_path), DataError)


# ---- what cannot be read


def refused(call: Callable[[], object], kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(Exception, match=r"\S") as error:
        call()
    assert type(error.value) is kind, error.value
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "trainer", "kind", "says"),
    [
        ("AutoEncoder", {"dict_class": "CrossCoder"}, ConfigError, "dict_class 'CrossCoder'. elute reads AutoEncoder,"),
        ("AutoEncoder", {"dict_class": None}, ConfigError, "names no dict_class under trainer"),
        ("AutoEncoder", {"activation_dim": 9}, DamagedError, "activation_dim = 9 in its configuration"),
        ("AutoEncoder", {"dict_size": 25}, DamagedError, "dict_size = 25 in its configuration"),
        ("BatchTopKSAE", {"k": 5}, DamagedError, "k = 5 in its configuration, but its tensors say 4"),
    ],
)
def test_settings_of_dictionary_learning_that_are_refused(
    name: str, trainer: dict[str, Any], kind: type[Exception], says: str, tmp_path: Path
) -> None:
    learning(tmp_path, name, state_of(name), **trainer)
    assert says in refused(lambda: foreign.read_dictionary_learning(tmp_path), kind)


@pytest.mark.parametrize(
    ("name", "change", "kind", "says"),
    [
        ("AutoEncoder", {"bias": None}, DamagedError, "has no tensor 'bias'"),
        ("AutoEncoder", {"more": torch.zeros(3)}, DamagedError, "holds a tensor 'more'"),
        ("AutoEncoder", {"bias": torch.zeros(9)}, DamagedError, "bias is [9], not [read] with read = 8"),
        ("AutoEncoder", {"bias": torch.full((READ,), torch.nan)}, DamagedError, "bias holds NaN or infinity"),
        ("AutoEncoder", {"bias": [1.0]}, DamagedError, "holds something else than tensors by name"),
        ("AutoEncoderTopK", {"k": torch.tensor(25)}, ConfigError, "k = 25 is more than the 24 features"),
        ("AutoEncoderTopK", {"k": torch.tensor(0)}, ConfigError, "k: Input should be greater than"),
        ("AutoEncoderTopK", {"k": torch.tensor(4.0)}, DamagedError, "k is not made of whole numbers"),
        ("MatryoshkaBatchTopKSAE", {"group_sizes": torch.tensor([6, 6])}, ConfigError, "nested prefixes must grow"),
        ("MatryoshkaBatchTopKSAE", {"group_sizes": torch.tensor([24, 0])}, ConfigError, "nested prefixes must grow"),
    ],
)
def test_tensors_of_dictionary_learning_that_are_refused(
    name: str, change: dict[str, Any], kind: type[Exception], says: str, tmp_path: Path
) -> None:
    state = {key: value for key, value in {**state_of(name), **change}.items() if value is not None}
    k = {"k": int(change["k"])} if "k" in change else {}
    learning(tmp_path, name, state, **k)
    assert says in refused(lambda: foreign.read_dictionary_learning(tmp_path), kind)


class Harm:
    """What an attacker puts into a file: reading it as a pickle creates another file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    learning(tmp_path, "AutoEncoder", {**state_of("AutoEncoder"), "bias": Harm(touched)})
    assert "would run code" in refused(lambda: foreign.read_any(tmp_path), DamagedError)
    assert not touched.exists()
    whole = io.BytesIO()
    torch.save(state_of("AutoEncoder"), whole)
    for content in (whole.getvalue()[:-50], whole.getvalue()[:200], b"", b"\x80\x02cposix\nsystem\n."):
        (tmp_path / "ae.pt").write_bytes(content)
        refused(lambda: foreign.read_any(tmp_path), DamagedError)
    with zipfile.ZipFile(tmp_path / "ae.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(DataError):
        foreign.read_any(tmp_path)


@pytest.mark.parametrize(
    ("config", "kind", "says"),
    [
        ({"activation": "groupmax"}, ConfigError, "activation = 'groupmax'. elute reads topk alone"),
        ({"activation": 7}, ConfigError, "activation = 7 is not a text"),
        ({"signed": True}, ConfigError, "signed = true"),
        ({"skip_connection": True}, ConfigError, "skip_connection without transcode"),
        ({"transcode": "no"}, ConfigError, "transcode = 'no' is not true or false"),
        ({"k": 25}, ConfigError, "k = 25 is more than the 24 features"),
        ({"k": 0}, ConfigError, "k: Input should be greater than"),
        ({"d_in": 9}, DamagedError, "d_in = 9 in its configuration"),
        ({"num_latents": 25}, DamagedError, "num_latents = 25 in its configuration"),
    ],
)
def test_settings_of_sparsify_that_are_refused(
    config: dict[str, Any], kind: type[Exception], says: str, tmp_path: Path
) -> None:
    coder(tmp_path, **config)
    assert says in refused(lambda: foreign.read_sparsify(tmp_path), kind)


def test_odd_values_give_one_line_or_a_dictionary(tmp_path: Path) -> None:
    odd: list[Any] = [None, True, -1, 2.5, 1e400, "", [0], {"k": []}]
    coder(tmp_path / "coder")
    learning(tmp_path / "learning", "AutoEncoderTopK")
    lines: list[str] = []
    for place, name, inside in (
        (tmp_path / "coder", "cfg.json", None),
        (tmp_path / "learning", "config.json", "trainer"),
    ):
        config = json.loads((place / name).read_text())
        part = config[inside] if inside else config
        for key in list(part):
            for value in odd:
                changed = {**part, key: value}
                (place / name).write_text(json.dumps({inside: changed} if inside else changed))
                try:
                    assert bool(foreign.read_any(place)(rows()[:3]).isfinite().all())
                except EluteError as error:
                    lines.append(str(error))
    assert len(lines) > 30
    assert not [line for line in lines if "\n" in line]


def test_tensors_of_sparsify_that_are_refused(tmp_path: Path) -> None:
    place, tensors = coder(tmp_path)
    changes: list[tuple[dict[str, Tensor], str]] = [
        ({k: t for k, t in tensors.items() if k != "W_dec"}, "has no tensor 'W_dec'"),  # saved without a decoder
        ({**tensors, "W_skip": torch.zeros(READ, READ)}, "holds a tensor 'W_skip'"),
        ({**tensors, "W_dec": torch.zeros(READ, FEATURES)}, "W_dec is [8, 24]"),
    ]
    for changed, says in changes:
        coder(tmp_path, tensors=changed)
        assert says in refused(lambda: foreign.read_sparsify(place), DamagedError)
    coder(tmp_path)
    (place / "sae.safetensors").write_bytes((place / "sae.safetensors").read_bytes()[:-5])
    assert "was cut short" in refused(lambda: foreign.read_sparsify(place), DamagedError)


def test_the_page_names_every_class_and_tensor() -> None:
    page = PAGE.read_text()
    assert not [name for name in SHAPES if f"`{name}`" not in page]
    assert not [name for name in ("transcode", "skip_connection", "groupmax", "signed") if f"`{name}`" not in page]


# ---- their own code


def test_what_their_own_code_saves_is_read(tmp_path: Path) -> None:
    python = os.environ.get("ELUTE_PEERS_PYTHON")
    if not python:
        pytest.skip("no peers here: set ELUTE_PEERS_PYTHON to a python with dictionary_learning and sparsify")
    np.save(tmp_path / "x.npy", rows().numpy())
    done = subprocess.run([python, "-B", str(PEER), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = sorted(p.parent for p in tmp_path.glob("*/own_out.npy"))
    assert len(found) == 10
    for place in found:
        codes, out = (torch.from_numpy(np.array(load_npy(place / f"own_{what}.npy"))) for what in ("codes", "out"))
        dictionary = foreign.read_any(place)
        apart = [float((dictionary.encode(rows()).dense() - codes).abs().max() / codes.abs().max().clamp(min=1))]
        apart.append(float((dictionary(rows()) - out).abs().max() / out.abs().max().clamp(min=1)))
        print(f"{place.name:26} codes {apart[0]:.1e}  outputs {apart[1]:.1e}")
        assert max(apart) < NEAR, place.name
        if (place / "sae.safetensors").exists():
            assert load_file(place / "sae.safetensors")["W_dec"].shape == (FEATURES, READ)
