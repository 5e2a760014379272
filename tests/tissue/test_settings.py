"""Settings of a run: what is taken from a file, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elute.base.errors import ConfigError
from elute.base.recipe import resolve
from elute.cli.tissue import TISSUE
from elute.tissue.plan import SECTIONS, Plan
from elute.tissue.settings import SaeConfig

ROOT = Path(__file__).parents[2]


def test_a_plan_is_filled_with_defaults() -> None:
    plan = Plan.of("here", {"sae": SaeConfig(dict_size=64)})
    assert plan.sae.dict_size == "64"
    assert set(plan.sections()) == set(SECTIONS)
    assert plan.dictionary == Path("here/sae.pt")


@pytest.mark.parametrize(
    ("asked", "width", "n"), [("4x", 96, 384), ("8x", 768, 6144), (512, 96, 512), ("512", 96, 512)]
)
def test_sizes_of_a_dictionary(asked: Any, width: int, n: int) -> None:
    assert SaeConfig(dict_size=asked).features(width) == n


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sae: {dict_size: many}", r"sae: dict_size = 'many'"),
        ("sae: {topk: 3}", r"unknown key 'topk'.*'top_k'"),
        ("crp: {codes: best}", r"crp: codes = 'best'"),
        ("crp: {codes: 'top3,4'}", r"crp: codes = 'top3,4'"),
        ("targets: {path: x}", r"unknown key 'path'"),
        ("saes: {}", r"unknown section 'saes'.*'sae'"),
        ("heads: {loss: gaussian}", r"heads: loss = 'gaussian'"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cfg.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=message) as told:
        resolve(TISSUE, tmp_path / "cfg.yaml")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["top5", "7", "7, 12", 7])
def test_codes_that_are_asked_for(tmp_path: Path, text: Any) -> None:
    (tmp_path / "cfg.yaml").write_text(f"crp: {{codes: {text!r}}}\n")
    assert resolve(TISSUE, tmp_path / "cfg.yaml")["crp"].codes == str(text)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "tissue").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_file_is_a_run(path: Path) -> None:
    plan = Plan.of("here", resolve(TISSUE, path))
    assert plan.targets.counts is not None
    assert plan.encoder.encoder is not None
