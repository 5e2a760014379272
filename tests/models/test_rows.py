"""What a site may hold: tuples, mappings, dataclasses and arguments, read and exchanged; and what is refused."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from elute.base.contracts import Site
from elute.base.errors import SiteError
from elute.models.edits import add, replace, scale
from elute.models.sites import capture, patch

Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class Held:
    hidden: torch.Tensor
    count: int


class ModelOutput(OrderedDict):
    """The ways of Hugging Face's: a mapping whose keys are attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Many(nn.Module):
    """Gives what it is told to, holding x + 1 and x + 2, for a parent that reads it."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        a, b = x + 1, x + 2
        return {
            "tuple": lambda: (a, b),
            "list": lambda: [a, b],
            "named": lambda: Pair(a, b),
            "dict": lambda: {"left": a, "right": b},
            "output": lambda: ModelOutput(left=a, right=b),
            "dataclass": lambda: Held(a, 7),
        }[self.kind]()


class Parent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.many = Many(kind)

    def forward(self, x):
        return self.many(x)


@pytest.mark.parametrize(
    ("kind", "select"),
    [("tuple", 1), ("list", 1), ("named", 1), ("named", "right"), ("dict", "right"), ("output", "right")],
)
def test_one_item_is_captured_and_exchanged_and_the_rest_stays(kind, select, hooks):
    net, x = Parent(kind), torch.randn(2, 3)
    site = Site("many", select=select)
    output, got = capture(net, {"s": site}, lambda: net(x))
    assert torch.equal(got["s"], x + 2)
    with patch(net, {site: lambda rows, _: rows * 10}):
        patched = net(x)
    assert type(patched) is type(output)
    left, right = patched.values() if isinstance(patched, dict) else patched
    assert torch.equal(left, x + 1)
    assert torch.equal(right, (x + 2) * 10)
    assert hooks(net) == 0


def test_a_field_of_a_frozen_dataclass_is_captured_and_exchanged():
    net, x = Parent("dataclass"), torch.randn(2, 3)
    site = Site("many", select="hidden")
    assert torch.equal(capture(net, {"s": site}, lambda: net(x)).tensors["s"], x + 1)
    with patch(net, {site: scale(0.0)}):
        assert net(x).hidden.abs().sum() == 0
        assert net(x).count == 7


def test_what_an_edit_exchanges_is_a_copy(x):
    class Keeper(nn.Module):
        kept = None

        def forward(self, x):
            self.kept = {"h": x + 1}
            return self.kept

    net = Keeper()
    with patch(net, {Site("", select="h"): scale(0.0)}):
        assert net(x)["h"].abs().sum() == 0
    assert torch.equal(net.kept["h"], x + 1)


@pytest.mark.parametrize(
    ("kind", "select", "message"),
    [
        ("tuple", None, ("it is a tuple of 0: float32 [2, 3], 1: float32 [2, 3], not a tensor. "
                        "Declare which is meant, as select=0.")),
        ("dict", None, ("it is a dict of 'left': float32 [2, 3], 'right': float32 [2, 3], not a tensor. "
                       "Declare which is meant, as select='left'.")),
        ("tuple", 2, ("it holds no 2: it is a tuple of 0: float32 [2, 3], 1: float32 [2, 3]. "
                     "Declare which is meant, as select=0.")),
        ("dataclass", "count", "its 'count' is an int, not a tensor. Declare which is meant, as select='hidden'."),
        ("dataclass", "width", ("it holds no 'width': it is a Held of 'hidden': float32 [2, 3], 'count': an int. "
                               "Declare which is meant, as select='hidden'.")),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_what_to_declare(kind, select, message, hooks):
    net = Parent(kind)
    with pytest.raises(SiteError) as error:
        capture(net, {"s": Site("many", select=select)}, lambda: net(torch.randn(2, 3)))
    assert str(error.value) == f"site 's', the output of 'many': {message}"
    assert hooks(net) == 0


class Gives(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self):
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.arange(3), "it is int64 [3], not real numbers. Name a site with activations."),
        (torch.ones(2, dtype=torch.bool), "it is bool [2], not real numbers. Name a site with activations."),
        (torch.ones(2, dtype=torch.complex64), "it is complex64 [2], not real numbers. Name a site with activations."),
        (torch.tensor(1.0), "it is float32 [], a single number without a width"),
        (None, "it is None, not a tensor"),
        ((), "it is an empty tuple, not a tensor"),
        ("text", "it is a str, not a tensor"),
        (torch.ones(2, 2).to_sparse(), ("it is a sparse or nested tensor, which is not rows of one width. "
                                       "For nn.TransformerEncoder, torch.backends.mha.set_fastpath_enabled(False) "
                                       "keeps it dense.")),
    ],
)  # fmt: skip
def test_what_is_not_rows_of_real_numbers_is_refused(value, message):
    net = Gives(value)
    with pytest.raises(SiteError) as error:
        capture(net, {"": Site("")}, net)
    assert str(error.value) == f"the output of the network: {message}"


def test_attention_and_lstm_are_tuples():
    attention, lstm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LSTM(8, 6, batch_first=True)
    x = torch.randn(2, 5, 8)
    output, got = capture(attention, {"a": Site("", select=0)}, lambda: attention(x, x, x))
    assert torch.equal(got["a"], output[0])
    with pytest.raises(SiteError, match=r"it is a tuple of 0: float32 \[2, 5, 6\], 1: a tuple, not a tensor"):
        capture(lstm, {"h": Site("")}, lambda: lstm(x))
    plain, state = lstm(x)
    with patch(lstm, {Site("", select=0, width=6): add(1.0)}):
        moved, same = lstm(x)
    assert torch.equal(moved, plain + 1)
    assert torch.equal(same[0], state[0])


def test_a_packed_sequence_is_refused():
    lstm = nn.LSTM(3, 4)
    packed = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
    with pytest.raises(SiteError, match="its 0 is a PackedSequence of"):
        capture(lstm, {"h": Site("", select=0)}, lambda: lstm(packed))


def test_inputs_by_position_and_by_keyword(hooks):
    class Mix(nn.Module):
        def forward(self, a, b, *, c=None):
            return a + 2 * b + (0 if c is None else 3 * c)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.only = Mix(), nn.Identity()

        def forward(self, x):
            return self.only(input=self.mix(x, x + 1, c=x + 2))

    net, x = Outer(), torch.randn(2, 3)
    sites = {"b": Site("mix", "input", select=1), "c": Site("mix", "input", select="c"), "o": Site("only", "input")}
    _, got = capture(net, sites, lambda: net(x))
    assert torch.equal(got["b"], x + 1)
    assert torch.equal(got["c"], x + 2)
    with patch(net, {"b": scale(0.0), "c": replace(1.0), "o": scale(2.0)}, sites=sites):
        assert torch.allclose(net(x), 2 * (x + 3))
    with pytest.raises(SiteError) as error:
        capture(net, {"m": Site("mix", "input")}, lambda: net(x))
    assert str(error.value) == (
        "site 'm', the input of 'mix': it was called with a tuple of 0: float32 [2, 3], 1: float32 [2, 3] and "
        "a dict of 'c': float32 [2, 3]. "
        "Declare which is meant: select=0 for a positional argument, select='name' for a keyword."
    )
    with pytest.raises(SiteError, match=r"it holds no 'd': it is a dict of 'c'.*as select='c'"):
        capture(net, {"m": Site("mix", "input", select="d")}, lambda: net(x))
    assert hooks(net) == 0
