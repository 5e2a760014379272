"""What an evaluation is told as: the original's keys, a picture, and a page that names from data cannot break."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.particles.views import joined as put_together
from tests.particles.views import views

from elute.particles.evaluating import evaluate
from elute.particles.results import Evaluation
from elute.particles.settings import EvaluationConfig
from elute.reports.particles import charts, figure, fused_map, original, page, wording

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "a\"b'c&amp;</style><script>alert(1)</script>",
    "תאים\u202e",
    "$\\frac{1}{2}$",
    "x" * 400,
]
CONFIG = EvaluationConfig(n_folds=3, n_resamples=100, device="cpu", inner_folds=2, attention_epochs=2, embedding_dim=4)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    config = CONFIG.model_copy(update={"fusion_method": "attention"})
    return evaluate(views(150, 3, runs=6, seed=1), config, tmp_path_factory.mktemp("e"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Classes, sources and runs with names that would do harm if they were HTML; rows paired by label; no runs."""
    import polars as pl

    rng = np.random.default_rng(0)
    codes = np.tile(np.arange(len(HOSTILE)), 16)
    vectors = [
        (rng.normal(size=(len(codes), 4)) + 2 * codes[:, None] * (rng.normal(size=4))).astype(np.float32)
        for _ in range(2)
    ]
    made = put_together(
        vectors, codes, None, pairing="label", counts={"matched": len(codes), "unmatched": {HOSTILE[0]: 3}}
    )
    from dataclasses import replace

    names = (HOSTILE[0], HOSTILE[1])
    frame = made.particles.with_columns(label=pl.Series([HOSTILE[c] for c in codes]))
    made = replace(made, names=names, particles=frame, notes=(HOSTILE[1],), digests=dict.fromkeys(names, "ab" * 32))
    return evaluate(made, CONFIG, tmp_path_factory.mktemp("h"))


def write(found: Evaluation, folder: Path, plain: dict[str, Any] | None = None) -> str:
    places = fused_map.lay_out(found.fused, found.joined.codes, seed=0)
    path = folder / page.NAME
    page.write_page(
        path, plain or found.plain(), places=places, codes=found.joined.codes, inputs={"configuration": "cd" * 32}
    )
    return path.read_text()


def test_the_originals_keys_are_there_and_more(found: Evaluation, tmp_path: Path) -> None:
    plain = found.plain()
    content = original.results(plain, settings=CONFIG.identity(), config={"random_seed": 1}, inputs={})
    content = json.loads(json.dumps(content, allow_nan=False))
    assert {
        "overall", "per_class", "config", "common_structures", "n_samples", "n_folds", "random_seed", "embedding_dim", "fusion_method",
    } <= set(content)  # fmt: skip
    for name in ("a", "b", "fusion"):
        one = content["overall"][name]
        assert one["mean_map"] == pytest.approx(np.mean(one["map_per_fold"]))
        assert one["std_map"] == pytest.approx(np.std(one["map_per_fold"]))
        assert len(one["accuracy_per_fold"]) == 3
        assert {"mean_accuracy", "std_accuracy"} <= set(one)
        for label in found.classes:
            per_class = content["per_class"][name][label]
            for metric in ("map", "precision", "recall"):
                assert per_class[f"mean_{metric}"] == pytest.approx(np.mean(per_class[f"{metric}_per_fold"]))
                assert f"std_{metric}" in per_class
    said = content["overall"]["significance"]
    assert {"p_value", "t_statistic", "mean_improvement", "ci_lower", "ci_upper", "is_significant"} <= set(said)
    folds = np.array(content["overall"]["fusion"]["map_per_fold"]) - content["overall"]["a"]["map_per_fold"]
    assert said["mean_improvement"] == pytest.approx(folds.mean())
    assert said["baseline"] == "a"
    assert said["ci_lower"] < said["ci_upper"]
    assert content["evidence"] is True
    assert content["common_structures"] == list(found.classes)


def test_words_are_those_of_the_interval() -> None:
    def one(low: float | None, high: float | None, p: float = 0.001) -> dict[str, Any]:
        return {"difference": {"estimate": 0.1, "low": low, "high": high}, "p_t_holm": p, "p_permutation_holm": p}

    assert wording.verdict(one(0.05, 0.2)) == wording.GAINS
    assert wording.verdict(one(-0.2, -0.05)) == wording.LOSES
    assert wording.verdict(one(-0.05, 0.2)) == wording.APART
    assert wording.verdict(one(0.05, 0.2, p=0.2)) == wording.APART
    assert wording.verdict(one(None, None)) == wording.APART
    assert wording.verdict({**one(0.05, 0.2), "p_t_holm": None}) == wording.APART
    assert (
        wording.with_interval({"estimate": -0.1, "low": -0.2, "high": 0.05}, sign=True) == "−0.100 (−0.200 to +0.050)"
    )


def test_the_page_says_what_the_numbers_say(found: Evaluation, tmp_path: Path) -> None:
    text = write(found, tmp_path)
    plain = found.plain()
    fusion = plain["methods"]["fusion"]["overall"]["map"]
    assert wording.with_interval(fusion) in text
    for one in plain["methods"].values():
        assert wording.three(one["overall"]["accuracy"]["estimate"]) in text
    for label, size in zip(plain["classes"], plain["class_sizes"], strict=True):
        assert f'<bdi class="name">{label}</bdi></th><td class="n" data-label="particles">{size}' in text
    assert "How much each source counts" in text
    assert "alarm" not in text.split("</style>")[1]
    assert write(found, tmp_path) == text


def test_a_control_that_gains_is_cried_out(found: Evaluation, tmp_path: Path) -> None:
    plain = json.loads(json.dumps(found.plain()))
    for one in plain["comparisons"]:
        if one["first"] == "permuted_across":
            one["difference"] = {"estimate": 0.2, "low": 0.1, "high": 0.3}
    text = write(found, tmp_path, plain)
    assert "look for a leak" in text
    assert "gains: a leak?" in text
    assert wording.leaks(plain)
    assert not wording.leaks(found.plain())


def test_what_was_paired_by_label_is_marked_everywhere(hostile: Evaluation, tmp_path: Path) -> None:
    text = write(hostile, tmp_path)
    assert 'class="alarm" role="alert">label-paired: not evidence' in text
    assert "no evidence, since rows were paired by label" in text
    assert not re.search(r'verdict (gains|loses|apart)"', text)
    content = original.results(hostile.plain(), settings=CONFIG.identity(), config={}, inputs={})
    assert (content["evidence"], content["mark"]) == (False, "label-paired: not evidence")
    assert content["overall"]["significance"]["mark"] == "label-paired: not evidence"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_names_from_data_are_text(hostile: Evaluation, tmp_path: Path) -> None:
    text = write(hostile, tmp_path)
    parser = _Tags()
    parser.feed(text)
    assert parser.open == []
    assert not {"script", "img", "iframe", "link"} & set(parser.tags)
    assert "\u202e" not in text
    assert "&lt;img src=x" in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


@pytest.mark.parametrize("which", ["found", "hostile"])
def test_the_picture_is_drawn_the_same_twice(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    plain = request.getfixturevalue(which).plain()
    pictures = []
    for name in ("a.png", "b.png"):
        assert figure.performance_figure(tmp_path / name, plain)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture_and_that_is_said(
    found: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not figure.performance_figure(tmp_path / "a.png", found.plain())
    assert "matplotlib is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_of_very_many_particles_a_sample_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_map, "MOST", 50)
    codes = np.repeat(np.arange(3), [160, 30, 2])
    fused = np.random.default_rng(0).normal(size=(192, 4)).astype(np.float32)
    found = fused_map.lay_out(fused, codes, seed=0)
    assert np.bincount(codes[found.rows]).tolist() == [42, 8, 1]
    assert np.array_equal(found.rows, fused_map.lay_out(fused, codes, seed=0).rows)
    drawn = fused_map.drawn(found, codes, ["a", "b", "c"], of=192)
    assert "51 of 192 particles" in drawn
    assert sum(drawn.count(f"h0{end}") for end in ("M", '"')) == 51


def test_principal_directions_of_a_flat_space(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.zeros((30, 1), np.float32)
    assert fused_map.lay_out(flat, np.zeros(30, np.int64), seed=0).places.shape == (30, 2)
    assert "svg" in fused_map.drawn(
        fused_map.lay_out(flat, np.zeros(30, np.int64), seed=0), np.zeros(30, np.int64), ["a"], of=30
    )


def test_ends_of_axes_hold_what_is_shown() -> None:
    rows: list[charts.Row] = [
        ("a", "plain", {"estimate": 0.9, "low": 0.8, "high": 0.99}),
        ("b", "null", {"estimate": None, "low": None, "high": None}),
    ]
    low, high = charts.span(rows)
    assert low < 0.8 < 0.99 < high <= 1
    low, high = charts.span(rows, zero=True)
    assert low < 0
    assert "not told" in charts.whiskers("w", "t", rows, unit="u", ends=(0, 1))
    assert charts.span([]) == (0.0, 1.0)
