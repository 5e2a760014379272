"""Normalisation of a store's rows: what it promises of mean and spread, and stores that cannot be normalised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from elute.base.errors import ConfigError, DataError
from elute.engine.normalise import geometric_median, normalisation, sample
from elute.store.reader import Store
from elute.store.scaling import StatsConfig, measure
from elute.store.writer import StoreWriter

WIDTH = 6


def rows_of(n: int = 3000) -> torch.Tensor:
    """Rows of unequal spread, correlated, far from zero; the last dimension is constant."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, WIDTH, generator=random) @ torch.randn(WIDTH, WIDTH, generator=random)
    return x * torch.tensor([1.0, 5, 0.1, 2, 1, 0]) + torch.tensor([10.0, -3, 0, 1, 100, 7])


def write(folder: Path, x: torch.Tensor, **settings: str) -> Store:
    with StoreWriter(folder, sites={"a": x.shape[1]}, rows_per_shard=1000, **settings) as writer:  # type: ignore[arg-type]
        writer.append({"a": x}, {"sample_id": [f"s{i}" for i in range(len(x))]})
    return Store(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write(tmp_path / "store", rows_of())


def test_each_method_keeps_its_promise(store: Store) -> None:
    x = rows_of()
    rows = {"a": x}
    by = {method: normalisation(method, store, rows, k=4)["a"] for method in ("scale", "center", "none", "standard")}
    done = {method: affine.apply(x).double() for method, affine in by.items()}
    assert done["scale"].square().sum(1).mean() == pytest.approx(4, rel=1e-4)
    assert done["scale"].mean(0).abs().max() < 1e-4
    torch.testing.assert_close(
        done["scale"] / done["scale"][0, 0], done["center"] / done["center"][0, 0], atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(done["center"], x.double() - x.double().mean(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(done["none"], x.double())
    spread = done["standard"].std(0, correction=0)
    torch.testing.assert_close(spread[:-1], torch.ones(WIDTH - 1).double(), atol=1e-4, rtol=1e-4)
    assert not done["standard"][:, -1].any(), "a constant dimension is centred and divided by nothing"
    for method, affine in by.items():
        torch.testing.assert_close(affine.apply(x) * affine.B + affine.shift, x, atol=1e-4, rtol=1e-4, msg=method)


def test_whitening_leaves_out_what_does_not_vary(store: Store) -> None:
    x = rows_of()
    affine = normalisation("pca", store, {"a": x}, k=4)["a"]
    assert affine.width == WIDTH - 1
    white = affine.apply(x).double()
    torch.testing.assert_close(white.T.cov(correction=0), torch.eye(WIDTH - 1).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(white @ affine.B.double() + affine.shift, x.double(), atol=1e-3, rtol=1e-4)


def test_another_scaling_than_the_stores_is_refused(store: Store) -> None:
    measure(store.folder, StatsConfig(method="pca"))
    with pytest.raises(
        ConfigError, match=r"the store's scaling is pca, --normalise asks for standard\. `elute arrays stats"
    ):
        normalisation("standard", store, {"a": rows_of()}, k=4)


def test_a_scaling_of_other_rows_is_refused(store: Store, tmp_path: Path) -> None:
    measure(store.folder, StatsConfig())
    other = write(tmp_path / "other", rows_of() * 2, source={"made": "twice"})  # type: ignore[arg-type]
    (other.folder / "embed_stats.json").write_bytes((store.folder / "embed_stats.json").read_bytes())
    with pytest.raises(ConfigError, match="the scaling was measured on other rows"):
        normalisation("standard", other, {"a": rows_of()}, k=4)


@pytest.mark.parametrize("method", ["scale", "center", "standard", "pca", "none"])
def test_rows_that_do_not_vary(tmp_path: Path, method: str) -> None:
    store = write(tmp_path / "flat", torch.full((50, 4), 3.25))
    with pytest.raises(DataError, match=r"does not vary|no dimension varies"):
        normalisation(method, store, sample(store, store.everything, ["a"], seed=0), k=2)


def test_rows_with_nan_are_named(tmp_path: Path) -> None:
    x = rows_of(100)
    x[7, 2] = torch.nan
    store = write(tmp_path / "nan", x, bad_rows="keep")
    with pytest.raises(DataError, match=r"rows of site 'a' hold NaN or infinity\. Import them with --bad-rows drop\."):
        sample(store, store.everything, ["a"], seed=0)


def test_a_sample_is_some_of_the_rows_in_an_order_of_its_seed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample(store, store.everything, ["a"], seed=1)["a"]
    assert torch.equal(first, sample(store, store.everything, ["a"], seed=1)["a"])
    assert not torch.equal(first, sample(store, store.everything, ["a"], seed=2)["a"])
    assert {tuple(r) for r in first.tolist()} == {tuple(r) for r in rows_of().tolist()}


def test_the_geometric_median_has_the_least_sum_of_distances() -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(3))
    x[:100] += 50  # a third far away: the mean goes along, the median hardly does
    point = geometric_median(x)
    assert point.norm() < 6 < x.mean(0).norm()

    def total(p: torch.Tensor) -> float:
        return float((x.double() - p.double()).norm(dim=1).sum())

    for step in torch.cat([torch.eye(3), -torch.eye(3)]) * 0.01:
        assert total(point) < total(point + step)
    line = torch.tensor([[0.0], [1.0], [50.0]])
    assert float(geometric_median(line)) == pytest.approx(1, abs=1e-3)
    assert np.isfinite(geometric_median(torch.ones(5, 2)).numpy()).all()
