"""A folded dictionary does on raw rows what the trained one does on normalised rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from elute.base import plugins
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.folding import Affine, fold, normalised
from elute.dictionaries.spec import DictionarySpec

METHODS = ["none", "center", "scale", "standard", "pca", "pca of lower rank"]
KINDS: dict[str, dict[str, Any]] = {
    "sae": {"reads": {"a": 9}, "writes": {"a": 9}},
    "transcoder": {"kind": "transcoder", "reads": {"a": 9}, "writes": {"b": 5}, "skip": True},
    "crosscoder": {"kind": "crosscoder", "reads": {"b": 6, "a": 4}, "writes": {"b": 6, "a": 4}},
    "clt": {"kind": "clt", "reads": {"z": 9, "b": 4, "c": 3}, "writes": {"C": 5, "B": 6, "A": 7}, "skip": True},
}
ROWS = 200


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def raw(spec: DictionarySpec) -> dict[str, Tensor]:
    """Rows with a mean far from 0 and spreads that differ."""
    found = {}
    for name, width in {**spec.reads, **spec.writes}.items():
        mixed = torch.randn(ROWS, width) @ (torch.eye(width) + 0.3 * torch.randn(width, width))
        found[name] = mixed * torch.linspace(0.5, 4, width) + 3 * torch.randn(width)
    return found


def affine(method: str, x: Tensor) -> Affine:
    """One site's normalisation, from its rows and by definition."""
    width = x.shape[1]
    mean, one = x.mean(0), torch.ones(width)
    if method == "none":
        return Affine(torch.zeros(width), one, one)
    if method == "center":
        return Affine(mean, one, one)
    if method == "scale":
        size = (x - mean).square().sum(1).mean().sqrt()
        return Affine(mean, one / size, one * size)
    if method == "standard":
        return Affine(mean, 1 / x.std(0), x.std(0))
    variances, directions = torch.linalg.eigh((x - mean).T.double() @ (x - mean).double() / len(x))
    kept = width if method == "pca" else max(2, width // 2)
    directions, spread = directions.flip(1)[:, :kept].float(), variances.flip(0)[:kept].sqrt().float()
    return Affine(mean, directions / spread, directions.T * spread[:, None])


def fresh(spec: DictionarySpec) -> Dictionary:
    dictionary = Dictionary(spec)
    with torch.no_grad():
        for p in dictionary.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
        for bank in dictionary:
            if "threshold" in bank.extra:
                bank.threshold.fill_(0.4)
            if dictionary.sparsity.tied:
                bank.W_enc.copy_(bank.W_dec)
                bank.b_enc.zero_()
                dictionary.b_dec.zero_()
    return dictionary.eval()


def back(given: Any, spec: DictionarySpec, by: dict[str, Affine]) -> dict[str, Tensor]:
    """Take reconstructions of normalised rows to raw ones."""
    sites = given if isinstance(given, dict) else {next(iter(spec.writes)): given}
    return {
        name: (y * by[name].B if by[name].B.ndim == 1 else y @ by[name].B) + by[name].shift for name, y in sites.items()
    }


CASES = [
    (kind, name, method)
    for kind in KINDS
    for name in plugins.names("dictionaries")
    for method in (METHODS if name in ("topk", "gated", "matching-pursuit") else METHODS[-2:])
    if kind in ("sae", "crosscoder") or not plugins.load("dictionaries", name).tied
]


@pytest.mark.parametrize(("kind", "activation", "method"), CASES)
def test_folded_on_raw_rows_is_trained_on_normalised_ones(kind: str, activation: str, method: str) -> None:
    spec = DictionarySpec(n_features=40, k=5, activation=activation, **KINDS[kind])
    rows = raw(spec)
    by = {name: affine(method, x) for name, x in rows.items()}
    trained = fresh(normalised(spec, by))
    folded = fold(trained, spec, by)
    x = {name: rows[name] for name in spec.reads}
    normal = {name: by[name].apply(rows[name]) for name in spec.reads}
    wanted, got = trained.encode(normal), folded.encode(x)
    assert float(wanted.l0().float().mean()) >= 1
    largest = float(wanted.values.abs().max())
    one, other = wanted.dense(), got.dense()
    close = 1e-5 * max(1.0, largest)
    assert float((one - other).abs().max()) < close
    strong = one.abs() > close
    assert torch.equal(strong, other.abs() > close), "the same features fire"
    written = folded.decode(got, x)
    written = written if isinstance(written, dict) else {next(iter(spec.writes)): written}
    for name, y in back(trained.decode(wanted, normal), spec, by).items():
        assert torch.allclose(written[name], y, atol=1e-4 * float(y.abs().max())), name
    assert folded.spec == spec
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())


def test_what_is_trained_on_has_the_normalised_widths() -> None:
    spec = DictionarySpec(n_features=40, k=5, **KINDS["clt"])
    assert spec.spans[1].widths == (4, 13)  # looked at before: the columns must not be remembered
    by = {name: affine("pca of lower rank", x) for name, x in raw(spec).items()}
    inner = normalised(spec, by)
    assert inner.reads == {"z": 4, "b": 2, "c": 2}
    assert inner.writes == {"C": 2, "B": 3, "A": 3}
    assert [span.widths for span in inner.spans] == [(4, 8), (2, 6), (2, 3)]
    assert DictionarySpec.model_validate(inner.model_dump()) == inner


def test_nothing_to_fold_leaves_the_weights() -> None:
    spec = DictionarySpec(n_features=40, k=5, activation="gated", **KINDS["clt"])
    by = {name: affine("none", x) for name, x in raw(spec).items()}
    trained = fresh(normalised(spec, by))
    folded = fold(trained, spec, by)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(folded.state_dict()[name], tensor), name


def test_folding_does_not_touch_what_was_trained() -> None:
    spec = DictionarySpec(n_features=40, k=5, activation="gated", **KINDS["sae"])
    by = {name: affine("standard", x) for name, x in raw(spec).items()}
    trained = fresh(normalised(spec, by))
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    folded = fold(trained, spec, by)
    with torch.no_grad():
        for p in folded.parameters():
            p.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())


def test_a_normalisation_and_what_undoes_it() -> None:
    x = raw(DictionarySpec(n_features=40, k=5, **KINDS["sae"]))["a"]
    for method in METHODS[:5]:
        by = affine(method, x)
        y = by.apply(x)
        undone = (y * by.B if by.B.ndim == 1 else y @ by.B) + by.shift
        assert torch.allclose(undone, x, atol=1e-4)
        assert by.width == 9
    assert affine("pca of lower rank", x).width == 4
    moved = affine("pca", x).to(torch.device("cpu"))
    assert torch.equal(moved.apply(x), affine("pca", x).apply(x))
