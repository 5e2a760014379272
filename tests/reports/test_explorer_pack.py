"""Blocks of the Explorer: what is packed is read again, here by the format's page and in Node by the page's own program."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reports.explorer_read import Block

from elute.reports.explorer import pack
from elute.reports.explorer.words import Vocabulary, texts_of, unlisted

PACK_JS = Path(pack.__file__).parent / "page" / "pack.js"
TEXTS = [
    "plain",
    "",
    "<img src=x onerror=alert(1)>",
    "👩‍👩‍👧‍👦🧬e\u0301",
    "\u202eגנים",
    "a\0b\u2028",
    "\ufeffmark",
    "</script>",
    "é",
]
real = st.one_of(st.floats(-1e300, 1e300) | st.just(math.nan), st.sampled_from([0.0, 1e-300, 1e300, -1.0, 5e-324]))


def again(column: pack.Column, **blocks: Block) -> list[Any]:
    return Block(pack.pack({"it": column}), dict(blocks)).column("it")


def near(told: list[Any], given_: list[float], within: float) -> None:
    assert len(told) == len(given_)
    for a, b in zip(told, given_, strict=True):
        assert (a is None) == math.isnan(b), (a, b)
        if a is not None:
            assert abs(a - b) <= within, (a, b)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**31) + 1, 2**31 - 1)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_whole_numbers_are_exact(values: list[int | None]) -> None:
    given_ = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    assert again(pack.whole(given_)) == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 255], "u8"), ([0, 255, np.nan], "u16"), ([0, 65535], "u16"), ([65535, np.nan], "u32"), ([2**32 - 1], "u32"),
     ([-1, 5], "i32"), ([2**40], "f32"), ([-(2**31)], "f32"), ([], "u8"), ([np.nan], "u8")],
)  # fmt: skip
def test_whole_numbers_take_the_smallest_type(values: list[float], kind: str) -> None:
    column = pack.whole(np.array(values, dtype=np.float64))
    assert Block(pack.pack({"it": column})).head["columns"]["it"]["type"] == kind
    near(again(column), values, 0)


@given(st.lists(real, max_size=30))
@settings(max_examples=100, deadline=None)
def test_equal_steps_are_a_share_of_the_range(values: list[float]) -> None:
    known = [v for v in values if not math.isnan(v)]
    span = max(known) / 2 - min(known) / 2 if known else 0.0
    near(
        again(pack.linear(np.array(values, dtype=np.float64))),
        values,
        2 * span / pack.STEPS * 0.51 + abs(span) * 1e-9 + 1e-300,
    )


@given(st.lists(st.one_of(st.floats(0, 1e300), st.floats(0, 1)), max_size=30), st.sampled_from([None, 0.05, 1e-3]))
@settings(max_examples=100, deadline=None)
def test_logs_keep_a_share_of_each_and_the_side_of_a_rate(values: list[float], keep: float | None) -> None:
    told = again(pack.logs(np.array(values, dtype=np.float64), keep=keep))
    some = [v for v in [*values, keep or 0.0] if v > 0]
    share = (math.log(max(some)) - math.log(min(some))) / (pack.STEPS - 3) if some else 0.0
    for a, b in zip(told, values, strict=True):
        assert a == 0 if b == 0 else abs(math.log(a) - math.log(b)) <= 1.01 * share + 1e-9
        assert keep is None or (a <= keep) == (b <= keep)


def test_a_rate_is_kept_with_few_steps_and_by_those_that_are_it() -> None:
    values = np.array([0.05, np.nextafter(0.05, 1), np.nextafter(0.05, 0), 1e-300, 1.0])
    told = again(pack.logs(values, keep=0.05, steps=50))
    assert [v <= 0.05 for v in told] == [True, False, True, True, False]


def test_numbers_choose_their_form() -> None:
    def form(values: list[float], **given_: Any) -> pack.Numbers:
        return pack.numbers(np.array(values, dtype=np.float64), **given_)

    assert form([1, 2, np.nan]).scale is None
    assert form([0.25, 0.5]).log is False
    assert form([1e-7, 0.5, 0]).log is True
    assert form([0.2, 0.5], keep=0.05).log is True
    assert form([-1e-7, 0.5]).log is False
    assert form([np.inf, 0.5]).stored.dtype == np.float32
    assert again(form([np.inf, 0.5, np.nan, -np.inf])) == [math.inf, 0.5, None, -math.inf]


def test_infinite_ends_are_the_ends() -> None:
    near(again(pack.linear(np.array([-np.inf, 0.0, 1.0, np.inf, 1.7e308]))), [0.0, 0.0, 1.0, 1.0, 1.0], 1e-9)


@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=()), max_size=8)), max_size=20))
@settings(max_examples=80, deadline=None)
def test_texts(values: list[str | None]) -> None:
    whole = [None if v is None else v.encode(errors="replace").decode() for v in values]
    assert again(pack.texts(values)) == whole


def test_texts_that_are_one_a_row_have_no_codes() -> None:
    spec = Block(pack.pack({"it": pack.texts(TEXTS)})).head["columns"]["it"]
    assert (spec["codes"], spec["null"]) == ("row", None)
    assert again(pack.texts(TEXTS)) == TEXTS
    assert again(pack.texts([*TEXTS, "plain", None])) == [*TEXTS, "plain", None]


def test_long_texts_are_cut_and_say_so() -> None:
    (told,) = again(pack.texts(["Ω" * 10_000]))
    assert told == "Ω" * pack.LONGEST + "… (10,000 characters)"


def test_lists_flags_and_shared_words() -> None:
    genes = Vocabulary("s0-genes")
    lists = pl.Series([["A", "B"], None, [], ["B", None, "C"]], dtype=pl.List(pl.String))
    columns = {
        "genes": genes.column(lists),
        "alive": pack.flags([True, None, False, True]),
        "type": genes.column(pl.Series(["C", None, "D", "A"])),
        "from": pack.growing(np.array([0, 1, 2, 300, 70_000])),
    }
    shared = Block(pack.pack(genes.block_columns()))
    block = Block(pack.pack(columns), {"s0-genes": shared})
    assert block.rows == 4
    assert block.column("genes") == [["A", "B"], [], [], ["B", None, "C"]]
    assert block.column("alive") == [True, None, False, True]
    assert block.column("type") == ["C", None, "D", "A"]
    assert block.column("from") == [0, 1, 2, 300, 70_000]  # it has rows of its own
    assert shared.column("word") == ["A", "B", "C", "D"]


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="lists of 3 values have 2"):
        pack.pack({"it": pack.Lists(np.array([0, 3]), pack.whole(np.array([1, 2])))})


def test_unlisted_counts_nothing_as_nothing() -> None:
    offsets, inner = unlisted(pl.Series([None, [1], [], [2, 3]], dtype=pl.List(pl.Int64)))
    assert (offsets.tolist(), inner.to_list()) == ([0, 0, 1, 1, 3], [1, 2, 3])
    offsets, inner = unlisted(pl.Series([None, []], dtype=pl.List(pl.String)))
    assert (offsets.tolist(), inner.to_list()) == ([0, 0, 0], [])


def test_the_same_columns_give_the_same_text() -> None:
    assert pack.pack({"a": pack.texts(TEXTS)}) == pack.pack({"a": pack.texts(TEXTS)})
    assert pack.pack({}) == pack.pack({})


NODE = """
const blocks = JSON.parse(require("node:fs").readFileSync(0, "utf-8"));
globalThis.document = { getElementById: (id) => (id === "info" ? { textContent: "{}" } : id in blocks ? { textContent: blocks[id] } : null) };
"""
ASKED = """
const said = {};
const tell = (value) => (typeof value === "number" && !Number.isFinite(value) ? String(value) : value);
for (const name of JSON.parse(process.argv[1])) {
  try {
    const block = await openBlock(name);
    said[name] = { rows: block.rows, names: block.names };
    for (const key of block.names) {
      const column = block.column(key);
      const values = Array.from({ length: column.length }, (_, i) => column.at(i));
      said[name][key] = values.map((v) => (Array.isArray(v) ? v.map(tell) : tell(v)));
      if (column.kind === "number") said[name][`${key}:all`] = Array.from(column.numbers(), tell);
      if (column.kind === "text") said[name][`${key}:codes`] = Array.from(column.codes(), (c) => (c === column.none ? null : column.words[c]));
      if (column.kind === "list" && column.of.kind === "number") said[name][`${key}:places`] = Array.from(column.places(0));
    }
  } catch (error) {
    said[name] = error.message;
  }
}
said.has = [hasBlock("a"), hasBlock("nowhere")];
console.log(JSON.stringify(said));
"""


def in_node(blocks: dict[str, str], asked: list[str]) -> dict[str, Any]:
    program = f"{NODE}\n(async () => {{ {PACK_JS.read_text()}\n{ASKED} }})();"
    given_ = json.dumps({f"block-{name}": text for name, text in blocks.items()})
    done = subprocess.run(
        ["node", "-e", program, json.dumps(asked)], input=given_, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def javascript(value: Any) -> Any:
    """A value as JSON carries it out of Node."""
    if isinstance(value, list):
        return [javascript(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_reads_what_was_packed() -> None:
    words = Vocabulary("shared")
    rng = np.random.default_rng(0)
    columns: dict[str, pack.Column] = {
        "u8": pack.whole(np.array([1, 2, np.nan])), "u16": pack.whole(np.array([1, 300, np.nan])), "u32": pack.whole(np.array([0, 70_000, 2**32 - 2])),
        "i32": pack.whole(np.array([-5, 2**31 - 1, np.nan])), "f32": pack.exact(np.array([np.inf, -0.5, np.nan])),
        "coarse": pack.linear(np.array([0.1, np.nan, 0.7]), steps=200), "coarse log": pack.logs(np.array([0.0, np.nan, 0.7]), steps=200),
        "linear": pack.linear(np.array([0.1, np.nan, 0.7])), "log": pack.logs(np.array([1e-300, 0.0, 3.0]), keep=0.05),
        "bool": pack.flags([True, None, False]), "own": pack.texts(["a\0", None, "👩‍👩‍👧‍👦"]), "row": pack.texts(TEXTS[4:7]),
        "shared": words.column(pl.Series(["x", None, "<b>"])), "genes": words.column(pl.Series([["x", "y"], None, ["<b>"]])),
        "cells": pack.Lists(np.array([0, 3, 3, 4]), pack.whole(np.array([5, 1, 70_000, 9]))), "from": pack.growing(np.array([0, 1, 400, 400])),
        "__proto__": pack.whole(np.array([7, 8, 9])), "many": pack.texts([f"{i}" for i in rng.integers(0, 9, 3)]),
    }  # fmt: skip
    blocks = {
        "a": pack.pack(columns, rows=3),
        "shared": pack.pack(words.block_columns()),
        "empty": pack.pack({"x": pack.whole(np.array([]))}),
    }
    here = Block(blocks["a"], {"shared": Block(blocks["shared"])})
    filled = {"block": "a", "list": "genes", "from": "t_from", "rank": "t.rank", "first": 0}
    part = {
        "t_from": pack.growing(np.array([0, 3, 4])), "t.rank": pack.whole(np.array([1, np.nan, 2, 1])),
        "t.gene": pack.Words(np.array([-1, 0, -1, -1]), dictionary="shared", filled=filled),
    }  # fmt: skip
    blocks["part"] = pack.pack(part, rows=2)
    said = in_node(blocks, ["a", "empty", "nowhere", "part"])
    assert said["part"]["t.gene"] == said["part"]["t.gene:codes"] == ["x", "x", "y", None]
    told = said["a"]
    assert (told["rows"], said["has"]) == (3, [True, False])
    assert [name for name in told["names"] if name != "__proto__"] == [name for name in columns if name != "__proto__"]
    for name in set(columns) - {"__proto__", "log", "coarse log"}:
        assert told[name] == javascript(here.column(name)), name
    assert told["log"] == pytest.approx(here.column("log"), rel=1e-12)
    assert told["log:all"] == pytest.approx(here.column("log"), rel=1e-12)  # 1e-300 is not 0
    assert told["u8:all"] == [1, 2, "NaN"]
    assert told["from:all"] == [0, 1, 400, 400]
    assert told["f32:all"] == ["Infinity", -0.5, "NaN"]
    assert told["own:codes"] == ["a\0", None, "👩‍👩‍👧‍👦"]
    assert told["shared:codes"] == ["x", None, "<b>"]
    assert told["cells:places"] == [5, 6, 70_006]
    assert said["empty"]["rows"] == 0
    assert said["nowhere"] == "This page does not hold “nowhere”."


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_damaged_block_is_told_in_one_sentence() -> None:
    whole = pack.pack({"cells": pack.Lists(np.array([0, 2]), pack.whole(np.array([1, 2]))), "t": pack.texts(["a"])})
    cut = {f"cut{i}": whole[: len(whole) * i // 5 // 4 * 4] for i in range(1, 5)}
    other = {
        "letters": "?" + whole[1:],
        "nothing": "",
        "alone": pack.pack({"t": Vocabulary("lost").column(pl.Series(["x"]))}),
    }
    said = in_node({**cut, **other}, [*cut, *other])
    for name in [*cut, "letters", "nothing"]:
        assert said[name] == f"The part “{name}” of this page is damaged: write the page again.", name
    assert said["alone"] == "This page does not hold “lost”."


def test_words_of_a_column_stand_once() -> None:
    assert texts_of(pl.Series(["a", "b", "a", None])).words == ["a", "b"]
