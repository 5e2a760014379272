"""Encoding and decoding, held against dense products; and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError, EluteError
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec

FEATURES, K = 40, 5
KINDS: dict[str, dict[str, Any]] = {
    "sae": {"reads": {"a": 9}, "writes": {"a": 9}},
    "transcoder": {"kind": "transcoder", "reads": {"a": 9}, "writes": {"b": 5}, "skip": True},
    "crosscoder": {"kind": "crosscoder", "reads": {"b": 9, "a": 4}, "writes": {"b": 9, "a": 4}},
    "clt": {"kind": "clt", "reads": {"z": 9, "b": 4, "c": 3}, "writes": {"C": 5, "B": 6, "A": 2}, "skip": True},
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(kind: str = "sae", **more: Any) -> Dictionary:
    spec = {"n_features": FEATURES, "k": K, **KINDS[kind], **more}
    dictionary = Dictionary(DictionarySpec.model_validate(spec))
    with torch.no_grad():
        for p in dictionary.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    return dictionary.eval()


def sites(widths: dict[str, int], n: int = 20) -> dict[str, Tensor]:
    return {name: torch.randn(n, width) for name, width in widths.items()}


def given(dictionary: Dictionary, n: int = 20) -> Any:
    """Rows as a caller has them: a tensor for one site, a dict for several."""
    found = sites(dictionary.spec.reads, n)
    return found if len(found) > 1 else next(iter(found.values()))


def by_formula(dictionary: Dictionary, x: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Values of all features, and what each site is reconstructed as, a site at a time."""
    spec = dictionary.spec
    read = x if isinstance(x, dict) else {next(iter(spec.reads)): x}
    written = {name: torch.zeros(len(next(iter(read.values()))), width) for name, width in spec.writes.items()}
    values = []
    for number, bank in enumerate(dictionary):
        mine = [list(spec.reads)[number]] if spec.kind == "clt" else list(spec.reads)
        pre = (torch.cat([read[name] for name in mine], 1) @ bank.W_enc.T + bank.b_enc).relu()
        least = pre.topk(spec.k, dim=1).values[:, -1:]
        values.append(torch.where(pre >= least, pre, 0))
        first = number if spec.kind == "clt" else 0
        at = 0
        for name in list(spec.writes)[first:]:
            written[name] = written[name] + values[-1] @ bank.W_dec[:, at : at + spec.writes[name]]
            at += spec.writes[name]
    whole = torch.cat(list(read.values()), 1)
    at = 0
    for name, width in spec.writes.items():
        written[name] = written[name] + dictionary.b_dec[at : at + width]
        if dictionary.W_skip is not None:
            written[name] = written[name] + whole @ dictionary.W_skip[at : at + width].T
        at += width
    return torch.cat(values, 1).detach(), {name: part.detach() for name, part in written.items()}


@pytest.mark.parametrize("n", [0, 1, 20, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_encode_and_decode_are_dense_products(kind: str, n: int) -> None:
    dictionary = make(kind)
    x = given(dictionary, n)
    values, written = by_formula(dictionary, x)
    codes = dictionary.encode(x)
    assert len(codes) == n
    assert codes.n_features == dictionary.n_features == FEATURES * (3 if kind == "clt" else 1)
    assert torch.allclose(codes.check().dense(), values, atol=1e-5)
    back = dictionary.decode(codes, x)
    back = back if isinstance(back, dict) else {next(iter(written)): back}
    assert list(back) == list(written)
    for name, part in written.items():
        assert back[name].shape == part.shape
        assert torch.allclose(back[name], part, atol=1e-5), name
    again = dictionary(x)
    again = again if isinstance(again, dict) else {next(iter(written)): again}
    assert all(torch.equal(again[name], back[name]) for name in back)


def test_codes_carry_no_graph() -> None:
    dictionary = make("transcoder")
    x = given(dictionary)
    codes = dictionary.encode(x)
    assert not codes.values.requires_grad
    assert not dictionary.decode(codes, x).requires_grad


def test_one_site_may_be_named_too() -> None:
    dictionary, rows = make(), torch.randn(4, 9)
    named = dictionary.encode({"a": rows, "beside": torch.randn(2, 2)})
    assert torch.equal(named.dense(), dictionary.encode(rows).dense())


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x.numpy(),
        lambda x: x.double(),
        lambda x: x.numpy().astype(np.float64),
        lambda x: x.tolist(),
        lambda x: np.asfortranarray(x.numpy()),
        lambda x: x.numpy()[::-1].copy()[::-1],
        lambda x: np.broadcast_to(x.numpy(), x.shape),  # read-only
        lambda x: x.T.contiguous().T,
        lambda x: x.requires_grad_(),
    ],
    ids=["numpy", "float64", "numpy float64", "lists", "by columns", "backwards", "read-only", "strided", "with graph"],
)
def test_rows_may_come_as_any_array(made: Callable[[Tensor], Any]) -> None:
    dictionary, x = make(), torch.randn(30, 9)
    assert torch.allclose(dictionary.encode(made(x.clone())).dense(), dictionary.encode(x).dense(), atol=1e-6)


def test_rows_of_half_precision_are_widened() -> None:
    dictionary, x = make(), torch.randn(30, 9).half()
    assert torch.equal(dictionary.encode(x).dense(), dictionary.encode(x.float()).dense())


def test_in_double_precision_everything_is() -> None:
    dictionary, x = make("clt").double(), sites(KINDS["clt"]["reads"])
    codes = dictionary.encode(x)
    assert codes.values.dtype == torch.float64
    assert {part.dtype for part in dictionary.decode(codes, x).values()} == {torch.float64}


def test_another_k_at_inference() -> None:
    dictionary, x = make(), torch.randn(30, 9)
    assert dictionary.encode(x, k=2).l0().tolist() == [2] * 30
    assert dictionary.encode(x, k=FEATURES).k == FEATURES
    wanted = (x @ dictionary.banks[0].W_enc.T + dictionary.banks[0].b_enc).relu()  # type: ignore[union-attr,operator]
    assert torch.allclose(dictionary.encode(x, k=FEATURES).dense(), wanted, atol=1e-5)
    assert dictionary.encode(x, encoder="pursuit", k=1).l0().tolist() == [1] * 30


def test_what_each_feature_writes_where() -> None:
    dictionary = make("clt")
    one, two, three = dictionary
    assert torch.equal(dictionary.directions("C"), torch.cat([one.W_dec[:, :5], torch.zeros(2 * FEATURES, 5)]))
    middle = torch.cat([one.W_dec[:, 5:11], two.W_dec[:, :6], torch.zeros(FEATURES, 6)])
    assert torch.equal(dictionary.directions("B"), middle)
    last = torch.cat([one.W_dec[:, 11:], two.W_dec[:, 6:], three.W_dec])
    assert torch.equal(dictionary.directions("A"), last)
    single = make()
    assert torch.equal(single.directions(), next(iter(single)).W_dec)
    assert torch.equal(single.directions("a"), single.directions())
    assert not single.directions().requires_grad


def test_it_says_what_it_is() -> None:
    assert repr(make()) == "Dictionary(sae, a, 40 features, topk 5)"
    assert repr(make("clt")) == "Dictionary(clt, z + b + c → C + B + A, 120 features, topk 5)"


def refuses(kind: type[EluteError], words: str, act: Callable[[], Any]) -> None:
    with pytest.raises(kind) as caught:
        act()
    line = caught.value.line()
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("kind", "x", "words"),
    [
        ("sae", lambda: torch.randn(4, 8), "knows site 'a' as floating point [rows, 9], not float32 [4, 8]"),
        ("sae", lambda: torch.randn(9), "[rows, 9], not float32 [9]"),
        ("sae", lambda: torch.randn(2, 3, 9), "not float32 [2, 3, 9]"),
        ("sae", lambda: torch.ones(4, 9, dtype=torch.int64), "not int64 [4, 9]"),
        ("sae", lambda: np.ones((4, 9), dtype=np.int32), "not int32 [4, 9]"),
        ("sae", lambda: np.array([["a"] * 9]), "rows of site 'a' are a ndarray that is no array of numbers"),
        ("sae", lambda: "rows", "rows of site 'a' are a str that is no array of numbers"),
        ("sae", lambda: [[1.0], [1.0, 2.0]], "rows of site 'a' are a list that is no array of numbers"),
        ("sae", lambda: {"b": torch.randn(4, 9)}, "rows of site 'a' are missing. There are: b."),
        ("sae", dict, "rows of site 'a' are missing. There are none."),
        ("clt", lambda: torch.randn(4, 16), "the dictionary has several sites (z, b, c). Pass a dict of them."),
        ("clt", lambda: {**sites(KINDS["clt"]["reads"]), "b": torch.randn(20, 5)}, "site 'b' as floating point"),
        ("clt", lambda: {**sites(KINDS["clt"]["reads"]), "b": torch.randn(1, 4)}, "different numbers of rows: 1, 20"),
        ("sae", lambda: torch.randn(4, 9).index_fill_(0, torch.tensor([2]), torch.nan), "row 2 of what is encoded"),
        ("sae", lambda: torch.tensor([[0.0] * 8 + [torch.inf]]), "row 0 of what is encoded holds NaN or infinity"),
        ("sae", lambda: torch.tensor([[1.0] * 9, [torch.inf] * 4 + [-torch.inf] * 5]), "row 1 of what is encoded"),
        ("sae", lambda: torch.full((3, 9), 1e300, dtype=torch.float64), "row 0 of what is encoded"),
    ],
)
def test_rows_that_cannot_be_encoded(kind: str, x: Callable[[], Any], words: str) -> None:
    refuses(DataError, words, lambda: make(kind).encode(x()))


def test_large_rows_are_not_mistaken_for_infinite_ones() -> None:
    codes = make().encode(torch.full((3, 9), 1e38))  # their sum is
    assert len(codes) == 3


@pytest.mark.parametrize(
    ("words", "act"),
    [
        ("k=41 of 40 features. Choose 1 to 40.", lambda d, x: d.encode(x, k=41)),
        ("k=0 of 40 features", lambda d, x: d.encode(x, k=0)),
        ("k=-1 of 40 features", lambda d, x: d.encode(x, encoder="pursuit", k=-1)),
        ("encoder='best'. Choose 'own' or 'pursuit'.", lambda d, x: d.encode(x, encoder="best")),
        ("does not write 'b'. There are: a.", lambda d, _: d.directions("b")),
        ("the dictionary writes several sites. Name one: C, B, A.", lambda *_: make("clt").directions()),
        ("a pursuit reads codes out of dictionaries that write what they read",
         lambda *_: make("transcoder").encode(torch.randn(2, 9), encoder="pursuit")),
        ("write what they read, without sign", lambda _, x: make(activation="signed-topk").encode(x, encoder="pursuit")),
        ("activation 'relu' does not count features, so k=3 would change nothing",
         lambda _, x: make(activation="relu").encode(x, k=3)),
        ("activation 'batchtopk' does not count features", lambda _, x: make(activation="batchtopk").encode(x, k=3)),
        ("there is no 'topkk' among dictionaries. Did you mean 'topk'", lambda *_: make(activation="topkk")),
        ("'topk' has no setting 'bandwidth'. There are none.", lambda *_: make(settings={"bandwidth": 1.0})),
        ("'jumprelu' has no setting 'bandwith'. Did you mean 'bandwidth'",
         lambda *_: make(activation="jumprelu", settings={"bandwith": 1.0})),
        ("'matching-pursuit' takes features from what is left over of what it read",
         lambda *_: make("transcoder", activation="matching-pursuit")),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(words: str, act: Callable[[Dictionary, Tensor], Any]) -> None:
    refuses(ConfigError, words, lambda: act(make(), torch.randn(4, 9)))


def test_a_pursuit_needs_banks_that_write_what_they_read() -> None:
    """A cross-layer transcoder of sites to themselves writes later ones too."""
    itself = {"reads": {"a": 4, "b": 4}, "writes": {"a": 4, "b": 4}, "skip": False}
    refuses(ConfigError, "what is left over", lambda: make("clt", **itself, activation="matching-pursuit"))
    x = sites(itself["reads"])  # type: ignore[arg-type]
    refuses(ConfigError, "write what they read", lambda: make("clt", **itself).encode(x, encoder="pursuit"))
    both = make("crosscoder", activation="matching-pursuit")
    assert both.encode(sites(both.spec.reads)).check().k == K


def test_settings_of_an_activation_reach_its_banks() -> None:
    (bank,) = make(activation="jumprelu", settings={"bandwidth": 0.5})
    assert bank.settings == {"bandwidth": 0.5, "tanh": 0.0, "pull": 0.0}


def test_codes_that_are_not_this_dictionarys() -> None:
    dictionary, x = make("transcoder"), torch.randn(4, 9)
    codes = dictionary.encode(x)
    refuses(DataError, "codes of 7 features, but the dictionary has 40",
            lambda: dictionary.decode(Codes(codes.indices, codes.values, 7), x))  # fmt: skip
    refuses(DataError, "a linear skip decodes codes and rows together. Pass x too.", lambda: dictionary.decode(codes))
    refuses(DataError, "codes of 4 rows, but 1 rows", lambda: dictionary.decode(codes, x[:1]))
    for outside in (-1, 40):
        wrong = Codes(torch.full_like(codes.indices, outside), codes.values, FEATURES)
        refuses(DataError, "codes name features outside 0 to 39", lambda c=wrong: dictionary.decode(c, x))


def test_decoding_is_linear_in_the_codes_and_ignores_empty_slots() -> None:
    dictionary = make("crosscoder")
    empty = Codes(torch.full((2, 3), 7, dtype=torch.int32), torch.zeros(2, 3), FEATURES)
    assert torch.equal(dictionary.decode(empty)["a"], dictionary.b_dec.detach()[9:].repeat(2, 1))
    one = Codes(torch.tensor([[7, 0]], dtype=torch.int32), torch.tensor([[-2.0, 0.0]]), FEATURES)
    wanted = dictionary.b_dec[9:] - 2 * dictionary.directions("a")[7]
    assert torch.allclose(dictionary.decode(one)["a"][0], wanted.detach())
    nothing = Codes(torch.zeros(2, 0, dtype=torch.int32), torch.zeros(2, 0), FEATURES)
    assert torch.equal(dictionary.decode(nothing)["b"], dictionary.b_dec.detach()[:9].repeat(2, 1))
