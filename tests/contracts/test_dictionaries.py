"""Every activation behind the door keeps the same promises; a new file is held to them without touching this one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import elute.dictionaries
from elute.base import plugins
from elute.base.errors import ConfigError
from elute.dictionaries.bank import Bank
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.losses import by_autograd, by_hand
from elute.dictionaries.sparsity import Slots, Sparsity, fire
from elute.dictionaries.spec import DictionarySpec

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "activations.md"
WIDTH, FEATURES, K = 8, 30, 4


def make(name: str, *, features: int = FEATURES, k: int = K) -> Dictionary:
    """A dictionary whose weights are such that features fire, in float64."""
    sites = {"x": WIDTH}
    dictionary = Dictionary(
        DictionarySpec(reads=sites, writes=sites, n_features=features, k=k, activation=name)
    ).double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for bank in dictionary:
            for p in (bank.W_enc, bank.W_dec, bank.b_enc, dictionary.b_dec):
                p.copy_(torch.randn(p.shape, generator=draw).double() * 0.4)
            bank.W_dec.div_(bank.W_dec.norm(dim=1, keepdim=True))
            if dictionary.sparsity.tied:
                bank.W_enc.copy_(bank.W_dec)
                bank.b_enc.zero_()
    return dictionary


def rows(n: int = 50) -> Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(4)).double()


def only(dictionary: Dictionary) -> Bank:
    (bank,) = dictionary
    return bank


def spread(slots: Slots, features: int = FEATURES) -> Tensor:
    idx, val = slots
    return val.new_zeros(len(val), features).scatter_add(1, idx.long(), val)


def whole(slots: Slots, n: int) -> None:
    """Slots are as Codes want them."""
    idx, val = slots
    assert idx.dtype == torch.int32
    assert idx.shape == val.shape
    assert len(idx) == n
    assert bool(((idx >= 0) & (idx < FEATURES)).all())
    for row, kept in zip(idx.tolist(), (val != 0).tolist(), strict=True):
        named = [feature for feature, there in zip(row, kept, strict=True) if there]
        assert len(named) == len(set(named)), "a feature stands at most once in a row"


# The promises. Each takes a name behind the door.


def is_a_sparsity(name: str) -> None:
    found = plugins.load("dictionaries", name)
    assert isinstance(found, Sparsity)
    assert found.line
    assert not found.line.endswith(".")
    functions: dict[str, Any] = {"dense": found.dense, "choose": found.choose, "fire": found.fire}
    for part, function in functions.items():
        if function is not None:
            assert len(inspect.signature(function).parameters) == 3, f"{part}(bank, x, k)"
    assert all(isinstance(key, str) and isinstance(value, float) for key, value in found.settings.items())
    assert found.choose is None or found.exact, "what chooses knows how many"
    assert inspect.getdoc(inspect.getmodule(found.dense)), "its module says what it is"


def has_numbers_of_a_feature_or_of_the_bank(name: str) -> None:
    found = plugins.load("dictionaries", name)
    for n in (1, 7):
        for key, tensor in found.tensors(n).items():
            assert tuple(tensor.shape) in ((n,), (1,)), key
            assert tensor.dtype == torch.float32
            assert bool(torch.isfinite(tensor).all())
    bank = only(make(name))
    assert bank.extra == list(found.tensors(3))
    for key in bank.extra:
        learnt = key in dict(bank.named_parameters())
        assert learnt == (found.tensors(7)[key].shape == (7,)), "a feature's own numbers are learnt"


def gives_dense_values_and_a_penalty(name: str) -> None:
    dictionary = make(name)
    for n in (1, 50):
        values, penalty = dictionary.sparsity.dense(only(dictionary), rows(n), K)
        assert values.shape == (n, FEATURES)
        assert values.dtype == torch.float64
        assert bool(torch.isfinite(values).all())
        assert bool((values != 0).any())
        assert dictionary.sparsity.signed or bool((values >= 0).all())
        assert penalty is not None or dictionary.sparsity.exact, "what does not count must be charged"
        if penalty is not None:
            assert penalty.shape == (n,)
            assert bool((penalty >= 0).all())


def fires_what_it_trains(name: str) -> None:
    """The three ways agree; a running number of the whole batch makes inference another function of the rows."""
    dictionary = make(name)
    bank, x = only(dictionary), rows()
    dense = dictionary.sparsity.dense(bank, x, K)[0].detach()
    if dictionary.sparsity.choose is not None:
        slots = dictionary.sparsity.choose(bank, x, K)
        whole(slots, len(x))
        assert torch.allclose(spread(slots), dense, atol=1e-12)
    fired = fire(dictionary.sparsity, bank, x, k=K)
    whole(fired, len(x))
    if not list(bank.buffers()):
        assert torch.allclose(spread(fired), dense, atol=1e-12)
    if dictionary.sparsity.exact:
        assert int((dense != 0).sum()) <= K * len(x)
    if dictionary.sparsity.counts:
        assert int((dense != 0).sum(1).max()) <= K


def encodes_valid_codes(name: str) -> None:
    for dtype in (torch.float64, torch.float32):
        dictionary = make(name).to(dtype).eval()
        for n in (0, 1, 50):
            codes = dictionary.encode(rows(n)).check()
            assert len(codes) == n
            assert codes.values.dtype == dtype
            assert dictionary.decode(codes).shape == (n, WIDTH)
            assert bool(torch.isfinite(dictionary.decode(codes)).all())
            assert dictionary.sparsity.signed or bool((codes.values >= 0).all())


def encodes_a_row_alone(name: str) -> None:
    dictionary = make(name)
    if dictionary.sparsity.choose is not None:
        dictionary.sparsity.choose(only(dictionary), rows(), K)  # what follows the data has seen some
    dictionary.eval()
    together = dictionary.encode(rows()).dense()
    alone = torch.cat([dictionary.encode(row[None]).dense() for row in rows()])
    assert torch.allclose(together, alone, atol=1e-12)


def counts_where_it_says_so(name: str) -> None:
    dictionary = make(name).eval()
    if dictionary.sparsity.counts:
        assert int(dictionary.encode(rows(), k=2).l0().max()) <= 2
    else:
        with pytest.raises(ConfigError, match="does not count features"):
            dictionary.encode(rows(), k=2)


def teaches_everything(name: str) -> None:
    """Every parameter gets a gradient, from one row as from many; what is tied, through the decoder."""
    for n in (1, 50):
        dictionary = make(name).train()
        for p in dictionary.parameters():
            p.grad = torch.zeros_like(p)
        told = by_autograd(dictionary, rows(n), rows(n), k=K, weight=1 / n, price=0.1)
        assert told.loss > 0
        assert torch.allclose(told.error.square().sum(), told.squared)
        whole(told.slots[0], n)
        for key, p in dictionary.named_parameters():
            assert p.grad is not None
            assert bool(torch.isfinite(p.grad).all())
            tied = dictionary.sparsity.tied and key.endswith(("W_enc", "b_enc"))
            assert n == 1 or tied or bool((p.grad != 0).any()), f"{key} learns"


def chooses_with_the_gradient_of_its_reference(name: str) -> None:
    dictionary = make(name).train()
    if dictionary.sparsity.choose is None:
        return
    found = []
    for way in (by_hand, by_autograd):
        for p in dictionary.parameters():
            p.grad = torch.zeros_like(p)
        way(dictionary, rows(), rows(), k=K, weight=0.1)
        found.append([p.grad.clone() for p in dictionary.parameters() if p.grad is not None])
    for hand, auto in zip(*found, strict=True):
        assert float((hand - auto).abs().max()) <= 1e-10 * max(1e-12, float(auto.abs().max()))


def works_with_one_feature(name: str) -> None:
    dictionary = make(name, features=1, k=1)
    values, _ = dictionary.sparsity.dense(only(dictionary), rows(), 1)
    assert values.shape == (50, 1)
    assert dictionary.eval().encode(rows()).check().k <= 1


PROMISES: list[Callable[[str], None]] = [
    is_a_sparsity,
    has_numbers_of_a_feature_or_of_the_bank,
    gives_dense_values_and_a_penalty,
    fires_what_it_trains,
    encodes_valid_codes,
    encodes_a_row_alone,
    counts_where_it_says_so,
    teaches_everything,
    chooses_with_the_gradient_of_its_reference,
    works_with_one_feature,
]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", plugins.names("dictionaries"))
def test_every_activation(name: str, promise: Callable[[str], None]) -> None:
    promise(name)


@pytest.mark.parametrize("name", plugins.names("dictionaries"))
def test_every_activation_has_its_section_in_the_guide(name: str) -> None:
    assert f"\n## {name}\n" in GUIDE.read_text()


def test_the_guide_ends_with_what_to_use() -> None:
    text = GUIDE.read_text()
    known = {f"## {name}" for name in plugins.names("dictionaries")}
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert known == set(headings[:-1]) - {"## Words"}
    assert headings[-1] == "## Which to use"


# A file that is new behind the door.

GOOD = '''
"""Magnitudes: whatever is above 1 fires, each paying for its strength."""
from elute.dictionaries.sparsity import Sparsity


def _dense(bank, x, k):
    pre = x @ bank.W_enc.T + bank.b_enc
    values = pre * (pre > 0.1)
    return values, values @ bank.W_dec.norm(dim=1)


DICTIONARY = Sparsity("whatever is above a tenth", dense=_dense)
'''
FAULTS: dict[str, tuple[str, str, Callable[[str], None]]] = {
    "another kind of object": ("DICTIONARY = Sparsity", "DICTIONARY = print", is_a_sparsity),
    "a penalty of the batch": (".norm(dim=1)\n", ".norm()\n", gives_dense_values_and_a_penalty),
    "no penalty": ("values, values @ bank.W_dec.norm(dim=1)", "values, None", gives_dense_values_and_a_penalty),
    "negative values": ("pre * (pre > 0.1)", "pre", gives_dense_values_and_a_penalty),
    "no gradient": ("pre * (pre > 0.1)", "(pre * (pre > 0.1)).detach()", teaches_everything),
    "rows that look at each other": ("(pre > 0.1)", "(pre > pre.mean().relu())", encodes_a_row_alone),
    "it counts, but does not": ("dense=_dense", "dense=_dense, exact=True, counts=True", fires_what_it_trains),
    "single precision": ("x @ bank", "x.float() @ bank.float()", gives_dense_values_and_a_penalty),
    "numbers of another length": (
        "dense=_dense",
        "dense=_dense, tensors=lambda n: {'a': __import__('torch').zeros(n + 1)}",
        has_numbers_of_a_feature_or_of_the_bank,
    ),
    "another way at inference": ("dense=_dense", "dense=_dense, fire=_fire", fires_what_it_trains),
}
FIRE = "\n\ndef _fire(bank, x, k):\n    from elute.dictionaries.sparsity import above\n    return above(bank, x, bank.b_enc)\n"


@pytest.fixture
def drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Put a file into the folder of activations, for one test alone."""
    folders = [*elute.dictionaries.__path__, str(tmp_path)]
    monkeypatch.setattr(elute.dictionaries, "__path__", folders)
    assert elute.dictionaries.__spec__ is not None
    monkeypatch.setattr(elute.dictionaries.__spec__, "submodule_search_locations", folders)

    def write(text: str) -> str:
        (tmp_path / "above_a_tenth.py").write_text(text)
        return "above-a-tenth"

    yield write
    sys.modules.pop("elute.dictionaries.above_a_tenth", None)
    vars(elute.dictionaries).pop("above_a_tenth", None)


def test_a_new_file_is_found_and_keeps_the_promises(drop: Callable[[str], str]) -> None:
    before = plugins.names("dictionaries")
    name = drop(GOOD)
    assert set(plugins.names("dictionaries")) - set(before) == {name}
    for promise in PROMISES:
        promise(name)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_new_file_that_breaks_a_promise_is_caught(fault: str, drop: Callable[[str], str]) -> None:
    old, new, promise = FAULTS[fault]
    assert old in GOOD
    name = drop(GOOD.replace(old, new).replace("\n\n\nDICTIONARY", FIRE + "\n\nDICTIONARY"))
    with pytest.raises((AssertionError, RuntimeError, AttributeError, TypeError)):
        promise(name)
