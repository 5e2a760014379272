"""What a description allows, and which sites are meant when not all are said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from elute.base.errors import ConfigError
from elute.dictionaries.spec import DictionarySpec, choose_sites, column_spans

ONE = {"reads": {"a": 4}, "writes": {"a": 4}, "n_features": 8, "k": 2}
TWO = {"reads": {"b": 4, "a": 3}, "writes": {"b": 4, "a": 3}, "n_features": 8, "k": 2}
LATER = {"reads": {"b": 4, "a": 3}, "writes": {"d": 2, "c": 5}, "n_features": 8, "k": 2}


def spec(*parts: dict[str, Any], **more: Any) -> DictionarySpec:
    merged: dict[str, Any] = {}
    for part in (*parts, more):
        merged |= part
    return DictionarySpec.model_validate(merged)


def test_one_bank_reads_and_writes_all_columns() -> None:
    for made in (spec(ONE), spec(TWO, kind="crosscoder"), spec(ONE, kind="transcoder", writes={"z": 5})):
        (span,) = made.spans
        assert span.widths == (made.width_in, made.width_out)
        assert made.total_features == made.n_features == 8
    assert spec(ONE).same
    assert spec(ONE).mirrored
    assert spec(TWO, kind="crosscoder").mirrored
    assert not spec(ONE, kind="transcoder", writes={"z": 5}).same


def test_a_cross_layer_transcoder_writes_from_each_site_on() -> None:
    made = spec(LATER, kind="clt")
    assert [(s.read.start, s.read.stop, s.write.start, s.write.stop) for s in made.spans] == [
        (0, 4, 0, 7),
        (4, 7, 2, 7),
    ]
    assert [s.widths for s in made.spans] == [(4, 7), (3, 5)]
    assert (made.width_in, made.width_out, made.total_features) == (7, 7, 16)


def test_where_a_bank_writes_more_than_it_reads_it_does_not_mirror() -> None:
    made = spec(TWO, kind="clt")
    assert made.same
    assert not made.mirrored


def test_sites_in_another_order_are_other_columns() -> None:
    turned = spec(TWO, kind="clt", writes={"a": 3, "b": 4})
    assert not turned.same
    assert column_spans({"b": 4, "a": 3}) == {"b": slice(0, 4), "a": slice(4, 7)}


def test_a_copy_with_other_widths_has_their_columns() -> None:
    made = spec(LATER, kind="clt")
    assert made.spans[1].read == slice(4, 7)
    narrower = made.model_copy(update={"reads": {"b": 2, "a": 2}})
    assert narrower.spans[1].read == slice(2, 4)


def test_json_keeps_everything_and_the_order_of_the_sites() -> None:
    made = spec(LATER, kind="clt", nested=(4, 8), skip=True, settings={"x": 0.5}, source={"model": {"name": "m"}})
    again = DictionarySpec.model_validate_json(made.model_dump_json())
    assert again == made
    assert list(again.reads) == ["b", "a"]
    assert list(again.writes) == ["d", "c"]


def test_a_description_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec(ONE).k = 3


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"k": 9}, "k = 9 is more than the 8 features"),
        ({"k": 0}, "greater than or equal to 1"),
        ({"n_features": 0}, "greater than or equal to 1"),
        ({"reads": {"a": 0}, "writes": {"a": 0}}, "site 'a' is 0 wide"),
        ({"writes": {"a": 4, "b": -1}}, "site 'b' is -1 wide"),
        ({"writes": {"a": 2**31}}, "site 'a' is 2147483648 wide"),
        ({"surprise": 1}, "Extra inputs are not permitted"),
        ({"kind": "vae"}, "Input should be 'sae'"),
        ({"nested": (2, 4)}, "nested prefixes must grow and end with n_features = 8"),
        ({"nested": (4, 2, 8)}, "nested prefixes must grow"),
        ({"nested": (4, 4, 8)}, "nested prefixes must grow"),
        ({"nested": (0, 8)}, "nested prefixes must grow"),
        ({"settings": {"bandwidth": float("nan")}}, "setting 'bandwidth' is not a finite number"),
        ({"writes": {"b": 4}}, "reads and writes one and the same site"),
        ({"writes": {"a": 5}}, "reads and writes one and the same site"),
        ({"reads": {}, "writes": {}}, "reads and writes one and the same site"),
        ({**TWO}, "reads and writes one and the same site"),
        ({"skip": True}, "a linear skip would let a sae pass its input through"),
        ({"kind": "transcoder", "skip": True}, "a linear skip would let a transcoder pass its input through"),
        ({**TWO, "kind": "clt", "skip": True}, "a linear skip would let a clt pass its input through"),
        ({"kind": "transcoder", "writes": {"b": 4, "c": 4}}, "a transcoder reads one site and writes one"),
        ({"kind": "clt", "writes": {"b": 4}}, "reads as many sites as it writes, two or more"),
        ({**LATER, "kind": "clt", "writes": {"d": 2}}, "reads as many sites as it writes, two or more"),
        ({"kind": "crosscoder"}, "reads and writes the same two or more sites"),
        ({**LATER, "kind": "crosscoder"}, "reads and writes the same two or more sites"),
        ({**TWO, "kind": "crosscoder", "writes": {"a": 3, "b": 4}}, "sites, in one order"),
        ({"n_features": 2**31}, "2147483648 features are more than codes can name"),
        ({**LATER, "kind": "clt", "n_features": 2**30}, "2147483648 features are more than codes can name"),
    ],
)
def test_what_cannot_be_is_refused(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(ONE, parts)
    assert words in str(caught.value)


KNOWN = {"b": 4, "a": 3}
SOME = {"b": 4, "a": 3, "c": 2}


@pytest.mark.parametrize(
    ("kind", "known", "said", "reads", "writes"),
    [
        ("sae", {"a": 3}, {}, ["a"], ["a"]),
        ("sae", KNOWN, {"reads": ("a",)}, ["a"], ["a"]),
        ("transcoder", KNOWN, {}, ["b"], ["a"]),
        ("transcoder", KNOWN, {"reads": ("a",)}, ["a"], ["b"]),
        ("transcoder", KNOWN, {"writes": ("b",)}, ["a"], ["b"]),
        ("transcoder", SOME, {"reads": ("c",), "writes": ("a",)}, ["c"], ["a"]),
        ("crosscoder", SOME, {}, ["b", "a", "c"], ["b", "a", "c"]),
        ("crosscoder", SOME, {"reads": ("c", "b")}, ["c", "b"], ["c", "b"]),
        ("clt", KNOWN, {}, ["b", "a"], ["b", "a"]),
        ("clt", SOME, {"reads": ("b", "a"), "writes": ("a", "c")}, ["b", "a"], ["a", "c"]),
    ],
)
def test_what_is_not_said_is_what_there_is(
    kind: Any, known: dict[str, int], said: dict[str, tuple[str, ...]], reads: list[str], writes: list[str]
) -> None:
    chosen = choose_sites(kind, known, **{"reads": (), "writes": (), **said})
    assert [*chosen.reads.items()] == [(name, known[name]) for name in reads]
    assert [*chosen.writes.items()] == [(name, known[name]) for name in writes]
    assert chosen.kind == kind


@pytest.mark.parametrize(
    ("kind", "known", "said", "words"),
    [
        ("sae", KNOWN, {}, "there are several sites (b, a). Say which one a sae reads: --reads NAME."),
        ("transcoder", SOME, {}, "there are several sites (b, a, c). Say which one a transcoder reads: --reads NAME."),
        ("transcoder", SOME, {"writes": ("b",)}, "there are several sites (b, a, c). Say which one a transcoder reads"),
        ("transcoder", SOME, {"reads": ("b",)}, "it could write a, c. Give --writes NAME."),
        ("transcoder", {"a": 3}, {}, "a transcoder needs a second site to write. Give --writes NAME."),
        ("sae", {"layer3": 3}, {"reads": ("layer4",)}, "there is no site 'layer4'. Did you mean 'layer3'?"),
        ("sae", KNOWN, {"reads": ("a",), "writes": ("q",)}, "there is no site 'q'. There are: a, b."),
        ("crosscoder", KNOWN, {"reads": ("a", "b", "a")}, "site 'a' is named twice. Name each site once."),
        (
            "sae",
            KNOWN,
            {"reads": ("a",), "writes": ("b",)},
            "reads and writes one and the same site. The sites are b, a",
        ),
        ("crosscoder", {"a": 3}, {}, "reads and writes the same two or more sites, in one order. The sites are a"),
        ("crosscoder", KNOWN, {"writes": ("a",)}, "reads and writes the same two or more sites"),
        ("clt", {"a": 3}, {}, "reads as many sites as it writes, two or more. The sites are a"),
    ],
)
def test_sites_that_a_kind_cannot_use_give_one_line(
    kind: Any, known: dict[str, int], said: dict[str, tuple[str, ...]], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_sites(kind, known, **{"reads": (), "writes": (), **said})
    assert words in caught.value.line()
