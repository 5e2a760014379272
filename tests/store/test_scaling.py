"""Scaling: from training rows alone, against numpy, and undone exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from elute.base.errors import ConfigError, DamagedError, DataError, GuardError
from elute.store.reader import Store
from elute.store.scaling import Scaling, StatsConfig, measure
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter

MakeStore = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Correlated rows far from zero, one dimension constant, one a copy of another."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(900, 6, generator=g) @ torch.randn(6, 6, generator=g) + 100
    x[:, 2], x[:, 5] = 7.0, x[:, 0]
    with StoreWriter(tmp_path / "s", sites={"a": 6}, rows_per_shard=123) as writer:
        writer.append(
            {"a": x}, {"sample_id": [f"s{i}" for i in range(900)], "group": [f"g{i // 90}" for i in range(900)]}
        )
    return tmp_path / "s"


def rows(store: Path, split: str | None = None) -> np.ndarray:
    opened = Store(store)
    return torch.cat([r["a"] for r, _ in opened.batches(where=opened.select(split=split))]).double().numpy()


def test_standard_scaling_is_that_of_numpy(store: Path) -> None:
    artifact = measure(store, StatsConfig())
    site, x = Scaling.of(store).site("a"), rows(store)
    np.testing.assert_allclose(site.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(site.std, x.std(0), rtol=1e-9, atol=1e-9)
    assert site.constant == (2,)
    assert artifact.summary == {"method": "standard", "split": None, "sites": {"a": {"rows": 900, "constant": 1}}}


def test_scaled_rows_have_mean_zero_and_spread_one_and_come_back(store: Path) -> None:
    measure(store, StatsConfig())
    scaling, x = Scaling.of(store), torch.from_numpy(rows(store))
    y = scaling.apply("a", x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(y.std(0, correction=0)[[0, 1, 3, 4, 5]], 1, rtol=1e-9)
    assert torch.all(y[:, 2] == 0)
    torch.testing.assert_close(scaling.invert("a", y), x)


def test_whitened_rows_are_uncorrelated_and_come_back(store: Path) -> None:
    measure(store, StatsConfig(method="pca"))
    scaling, x = Scaling.of(store), torch.from_numpy(rows(store))
    y = scaling.apply("a", x)
    assert y.shape == (900, 4), "a constant and a copied dimension leave four directions"
    np.testing.assert_allclose(np.cov(y.numpy().T, bias=True), np.eye(4), atol=1e-8)
    torch.testing.assert_close(scaling.invert("a", y), x)
    values = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1][:4]
    np.testing.assert_allclose(scaling.site("a").variances, values, rtol=1e-9)


def test_a_chosen_rank_keeps_the_largest_directions(store: Path) -> None:
    measure(store, StatsConfig(method="pca", rank=2))
    site = Scaling.of(store).site("a")
    values = np.linalg.eigvalsh(np.cov(rows(store).T, bias=True))[::-1]
    assert site.explained == pytest.approx(values[:2].sum() / values.sum())
    assert site.components is not None
    assert site.components.shape == (6, 2)


def test_more_directions_than_vary(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure(store, StatsConfig(method="pca", rank=6))
    assert "only 4 directions vary: 4 are kept" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="rank 7 is more than the width"):
        measure(store, StatsConfig(method="pca", rank=7))
    with pytest.raises(ConfigError, match="rank is for the method pca alone"):
        measure(store, StatsConfig(rank=2))


def test_the_training_split_is_measured_where_there_is_one(store: Path) -> None:
    split_store(store, SplitConfig(seed=2))
    artifact = measure(store, StatsConfig())
    assert artifact.summary["split"] == "train"
    np.testing.assert_allclose(Scaling.of(store).site("a").mean, rows(store, "train").mean(0), rtol=1e-12)
    assert not np.allclose(rows(store, "train").mean(0), rows(store).mean(0), rtol=1e-9)
    measure(store, StatsConfig(split="test"))
    np.testing.assert_allclose(Scaling.of(store).site("a").mean, rows(store, "test").mean(0), rtol=1e-12)


def test_another_scaling_is_refused(store: Path) -> None:
    measure(store, StatsConfig())
    digest = Scaling.of(store).digest
    Store(store).expect(scaling=digest)
    measure(store, StatsConfig(method="pca"))
    with pytest.raises(GuardError, match="is normalised otherwise"):
        Store(store).expect(scaling=digest)


def test_measuring_twice_writes_the_same_bytes(store: Path) -> None:
    measure(store, StatsConfig(method="pca"))
    first = (store / "embed_stats.json").read_bytes()
    measure(store, StatsConfig(method="pca"))
    assert (store / "embed_stats.json").read_bytes() == first


def test_stores_that_cannot_be_measured(make_store: MakeStore, store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 row is too few"):
        measure(make_store(rows=1, groups=1), StatsConfig())
    with pytest.raises(DataError, match="no dimension varies"):
        with StoreWriter(tmp_path / "flat", sites={"a": 2}) as writer:
            writer.append({"a": torch.ones(5, 2)}, {"sample_id": list("abcde")})
        measure(tmp_path / "flat", StatsConfig(method="pca"))
    with pytest.raises(DataError, match="elute arrays stats"):
        Scaling.of(store)
    (store / "embed_stats.json").write_text(json.dumps([1]))
    with pytest.raises(DamagedError, match="is not a store's scaling"):
        Scaling.of(store)
    measure(store, StatsConfig())
    with pytest.raises(DataError, match="no scaling of site 'b'"):
        Scaling.of(store).site("b")
    with pytest.raises(DataError, match="is for width 6, not 5"):
        Scaling.of(store).apply("a", torch.zeros(3, 5))
