"""Every model behind the `models` door is held to the contract with the example that its file brings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from elute.base import plugins
from elute.base.errors import GuardError, SiteError
from elute.engine.capture import capture_to_store
from elute.store.reader import Store

NAMES = plugins.names("models")


@pytest.fixture(params=NAMES)
def example(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    maker = plugins.load("models", request.param)
    return importlib.import_module(maker.__module__).example()  # type: ignore[no-any-return]


def test_there_are_models() -> None:
    assert "module" in NAMES


def test_one_row_of_metadata_a_row_of_every_site(example: tuple[Any, Any]) -> None:
    model, data = example
    seen = 0
    for batch, metadata in model.batches(data):
        rows = model.capture(batch)
        assert set(rows) == set(model.sites)
        for x in rows.values():
            assert x.ndim == 2
            assert len(x) == len(metadata)
            assert not x.requires_grad
        seen += len(metadata)
    assert seen > 0
    assert "sample_id" in metadata.columns


def test_reading_changes_nothing(example: tuple[Any, Any]) -> None:
    model, data = example
    batch, _ = next(iter(model.batches(data)))
    before, plain = model.fingerprint(), model(batch)
    model.capture(batch)
    with model.patch({name: (lambda x, _: x) for name in model.sites}):
        patched = model(batch)
    assert same(plain, patched), "a patch that changes nothing gives the same bits"
    assert model.fingerprint() == before


def test_a_patch_reaches_the_output_and_goes(example: tuple[Any, Any]) -> None:
    model, data = example
    batch, _ = next(iter(model.batches(data)))
    plain = model(batch)
    for name in model.sites:
        with model.patch({name: lambda x, _: torch.zeros_like(x)}):
            assert not same(plain, model(batch)), f"{name} has no effect"
            assert float(model.capture(batch, [name])[name].abs().sum()) == 0
        assert same(plain, model(batch))


def test_a_misspelt_site_names_the_near_one(example: tuple[Any, Any]) -> None:
    model, data = example
    batch, _ = next(iter(model.batches(data)))
    name = next(iter(model.sites))
    with pytest.raises(SiteError, match=f"Did you mean .*{name!r}"):
        model.capture(batch, [name + "x"])


def test_it_can_be_stored_and_the_store_knows_it_again(example: tuple[Any, Any], tmp_path: Path) -> None:
    model, data = example
    capture_to_store(model, data, tmp_path / "s")
    Store(tmp_path / "s").expect(model=model.fingerprint(), sites=list(model.sites))
    weight = next(p for p in model.module.parameters())
    weight.data.view(-1)[0] += 1
    with pytest.raises(GuardError, match="weights"):
        Store(tmp_path / "s").expect(model=model.fingerprint())


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    values = (
        zip(one.values(), other.values(), strict=True) if isinstance(one, Mapping) else zip(one, other, strict=True)
    )
    return all(same(a, b) for a, b in values)
