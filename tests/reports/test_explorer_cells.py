"""What the Explorer does with cells before it packs them: samples, pools of codes under a budget, maps that are kept."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.reports import explorer_made as made

from elute.reports.explorer import coordinates, pooled_codes
from elute.reports.explorer.cell_sample import ShownCells, choose_cells, draw
from elute.reports.explorer.coordinates import cell_map, feature_map, own_map, principal
from elute.reports.explorer.pooled_codes import Pooled, pool


def cells_of(n: int, **columns: Any) -> ShownCells:
    names = pl.Series([f"c{i}" for i in range(n)])
    frame = pl.DataFrame({"cell": names, "row": np.arange(n), **columns})
    return ShownCells(frame, np.arange(n), n, names)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(1, 220), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_a_sample_has_its_size_and_each_stratum_its_share(strata: list[int], most: int, seed: int) -> None:
    found = draw(strata, most, seed=seed)
    assert len(found) == min(most, len(strata))
    assert (np.diff(found) > 0).all()
    kinds = set(strata)
    for kind in kinds:
        quota = strata.count(kind) * most / len(strata)
        taken = sum(strata[i] == kind for i in found)
        if most >= len(strata):
            assert taken == strata.count(kind)
        elif most >= len(kinds):
            assert 1 <= taken <= max(1, np.ceil(quota) + 1)
            assert taken >= np.floor(quota) - len(kinds)


def test_a_sample_is_of_its_seed() -> None:
    strata = ["a"] * 50 + ["b"] * 500
    first = draw(strata, 110, seed=1)
    assert (draw(strata, 110, seed=1) == first).all()
    assert (draw(strata, 110, seed=2) != first).any()
    assert [strata[i] for i in first].count("a") == 10


def test_one_rare_cell_is_in_the_sample() -> None:
    assert 700 in draw(["many"] * 700 + ["one"] + ["many"] * 699, 20, seed=0)


def test_strata_are_types_and_donors(tmp_path: Path) -> None:
    donors = [f"d{i % 4}" for i in range(400)]
    labels = ["rare" if i % 100 == 3 else "common" for i in range(400)]
    pl.DataFrame({"cell": [f"c{i}" for i in range(400)], "label": labels, "donor": donors}).write_parquet(
        tmp_path / "cells.parquet"
    )
    found = choose_cells(tmp_path, most=41)
    assert found is not None
    assert (len(found.rows), found.of, found.sampled) == (41, 400, True)
    counts = dict(found.frame.group_by("label").len().iter_rows())
    assert counts["rare"] == 1  # all of them are of one donor: a hundredth of all cells, and one at least
    assert set(found.frame["donor"].value_counts()["count"].to_list()) <= {9, 10, 11}
    assert choose_cells(tmp_path / "nowhere") is None


class Made:
    """Codes of a run by hand: rows of (cell, {feature: value})."""

    def __init__(self, folder: Path, rows: list[tuple[str, dict[int, float]]], features: int) -> None:
        import torch

        from elute.base.codes import Codes
        from elute.store.codes_writer import CodesWriter
        from elute.store.reader import Store
        from elute.store.writer import StoreWriter

        with StoreWriter(folder / "activations", sites={"site": 1}, rows_per_shard=7) as writer:
            names = [cell for cell, _ in rows]
            tokens = [f"g{i}" for i in range(len(rows))]
            writer.append(
                {"site": np.zeros((len(rows), 1), np.float32)}, pl.DataFrame({"sample_id": names, "token": tokens})
            )
        store = Store(folder / "activations")
        width = max(len(codes) for _, codes in rows)
        indices = np.zeros((len(rows), width), np.int32)
        values = np.zeros((len(rows), width), np.float32)
        for i, (_, codes) in enumerate(rows):
            indices[i, : len(codes)], values[i, : len(codes)] = list(codes), list(codes.values())
        with CodesWriter(
            folder / "codes", store=store, dictionary="ab" * 32, n_features=features, sites=["site"]
        ) as writer_:
            at = 0
            for shard in store.manifest.shards:
                part = slice(at, at + shard.rows)
                writer_.append_shard(Codes(torch.from_numpy(indices[part]), torch.from_numpy(values[part]), features))
                at += shard.rows


def as_dict(pooled: Pooled) -> dict[int, dict[int, float]]:
    return {
        f: dict(zip(pooled.cells[a:b].tolist(), pooled.values[a:b].round(4).tolist(), strict=True))
        for f, (a, b) in enumerate(zip(pooled.offsets[:-1], pooled.offsets[1:], strict=True))
        if b > a
    }


@pytest.mark.parametrize("apart", [False, True])
def test_pools_are_the_largest_of_each_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, apart: bool) -> None:
    rows = [
        ("c0", {0: 1.0, 3: 2.0}),
        ("c0", {0: 4.0}),
        ("c1", {3: -5.0, 1: 0.5}),
        ("c1", {3: 1.0}),
        ("c2", {2: 9.0}),
        ("c3", {0: 1.5}),
    ]
    rows += [("c3", {3: 0.25}), ("c3", {0: 1.0})]
    if apart:  # a cell's rows are not one after another
        rows = [*rows[::2], *rows[1::2]]
    monkeypatch.setattr(pooled_codes, "_ROWS", 2)
    Made(tmp_path, rows, 5)
    names = pl.Series([f"c{i}" for i in range(4)])
    shown = ShownCells(pl.DataFrame({"cell": names.gather([0, 1, 3])}), np.array([0, 1, 3]), 4, names)
    pooled = pool(tmp_path, tmp_path, shown)
    assert pooled is not None
    assert as_dict(pooled) == {0: {0: 4.0, 2: 1.5}, 1: {1: 0.5}, 3: {0: 2.0, 1: 5.0, 2: 0.25}}
    assert pooled.tops.tolist() == [4.0, 0.5, 0.0, 5.0, 0.0]
    assert pooled.floor.tolist() == [0.0] * 5
    if not apart:
        assert pooled.fires.tolist() == [2, 1, 0, 3, 0]


@pytest.mark.parametrize("budget", [1, 7, 40, 150, 10_000])
def test_of_too_many_the_strongest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    rng = np.random.default_rng(budget)
    dense = rng.gamma(1, 1, (40, 12)).astype(np.float32) * (rng.random((40, 12)) < np.linspace(0.1, 1, 12))
    Made(tmp_path, [(f"c{i}", dict(enumerate(row.tolist()))) for i, row in enumerate(dense)], 12)
    monkeypatch.setattr(pooled_codes, "_ROWS", 3)
    pooled = pool(tmp_path, tmp_path, cells_of(40), budget=budget)
    assert pooled is not None
    counts = (dense > 0).sum(0)
    assert pooled.fires.tolist() == counts.tolist()
    share = pooled_codes.fair_share(counts, budget)
    assert len(pooled.values) <= budget or len(pooled.values) == counts.sum()
    for f, (a, b) in enumerate(zip(pooled.offsets[:-1], pooled.offsets[1:], strict=True)):
        ordered = np.sort(dense[:, f])[::-1]
        assert b - a >= min(share, counts[f])
        assert sorted(pooled.values[a:b].tolist(), reverse=True) == ordered[: b - a].tolist()
        assert pooled.floor[f] == (ordered[b - a] if counts[f] > b - a else 0)
        assert (np.diff(pooled.cells[a:b]) > 0).all()


def test_without_codes_there_is_no_pool(tmp_path: Path) -> None:
    assert pool(tmp_path, tmp_path, cells_of(3)) is None


def test_principal_directions_are_those_of_a_full_decomposition() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((60, 8)) @ np.diag([9, 7, 5, 3, 1, 0.5, 0.2, 0.1]) @ rng.standard_normal((8, 30))
    left, size, _ = np.linalg.svd(matrix, full_matrices=False)
    wanted = left[:, :3] * size[:3]
    for given_ in (matrix, sparse.csr_array(matrix)):
        found = principal(given_, 3, seed=1)
        assert np.abs(found) == pytest.approx(np.abs(wanted), abs=1e-6)
        assert (found[np.abs(found).argmax(axis=0), range(3)] > 0).all()
    assert principal(np.ones((4, 1)), 2, seed=0).shape == (4, 2)


def test_the_datas_own_map_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.random((6, 2))
    for first, second in (("obs:UMAP_1", "obs:UMAP_2"), ("umap_x", "umap_y"), ("obs:X_umap1", "obs:X_umap2")):
        found = own_map(cells_of(6, **{first: points[:, 0], second: points[:, 1]}), None)
        assert found is not None
        assert found.how == "the data's own UMAP"
        assert found.x.tolist() == points[:, 0].tolist()
    holes = [None, *points[1:, 1].tolist()]
    assert own_map(cells_of(6, umap_x=points[:, 0], umap_y=holes), None) is None
    assert own_map(cells_of(6, umap_x=points[:, 0]), None) is None
    assert cell_map(tmp_path, cells_of(6), pooled=None) is None


def test_a_map_in_the_file(tmp_path: Path) -> None:
    import anndata

    rng = np.random.default_rng(0)
    data = anndata.AnnData(rng.random((8, 3)).astype(np.float32))
    data.obs_names = [f"c{i}" for i in range(8)]
    data.obsm["X_umap"] = rng.random((8, 2))
    data.write_h5ad(tmp_path / "cells.h5ad")
    shown = ShownCells(
        pl.DataFrame({"cell": ["c2", "c5"], "row": [2, 5]}), np.array([0, 1]), 2, pl.Series(["c2", "c5"])
    )
    found = own_map(shown, tmp_path / "cells.h5ad")
    assert found is not None
    assert found.y.tolist() == data.obsm["X_umap"][[2, 5], 1].tolist()
    other = ShownCells(
        pl.DataFrame({"cell": ["c2", "other"], "row": [2, 5]}), np.array([0, 1]), 2, pl.Series(["c2", "other"])
    )
    assert own_map(other, tmp_path / "cells.h5ad") is None
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        del file["obsm/X_umap"]
    assert own_map(shown, tmp_path / "cells.h5ad") is None


def test_maps_are_kept_as_long_as_they_are_of_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made.make_run(tmp_path / "run")
    done: list[str] = []
    laid_out = coordinates._lay_out

    def counted(matrix: Any, way: str, *, seed: int, what: str) -> Any:
        done.append(what)
        return laid_out(matrix, way, seed=seed, what=what)

    monkeypatch.setattr(coordinates, "_lay_out", counted)
    numbers, fires = np.arange(40), np.arange(40) % 7 > 0
    first = feature_map(folder, numbers, fires=fires)
    again = feature_map(folder, numbers, fires=fires)
    assert first is not None
    assert again is not None
    assert done == ["features"]
    assert np.array_equal(first.x, again.x, equal_nan=True)
    assert (np.isfinite(first.x) == fires).all()
    feature_map(folder, numbers, fires=fires, seed=1)
    feature_map(folder, numbers, fires=~fires)
    assert done == ["features"] * 3
    cells = choose_cells(folder)
    assert cells is not None
    for pooled in (pool(folder, folder, cells), pool(folder, folder, cells)):
        assert cell_map(folder, cells, pooled=pooled) is not None
    (folder / "map_cells.parquet").write_bytes(b"damaged")
    cell_map(folder, cells, pooled=pool(folder, folder, cells))
    assert done == ["features"] * 3 + ["cells"] * 2


def test_cells_that_do_the_same_are_near_one_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 2
    rows = [
        (f"c{i}", {int(f): float(rng.gamma(9, 0.1)) for f in rng.permutation(20)[:8] + 20 * kind[i]}) for i in range(60)
    ]
    Made(tmp_path, rows, 40)
    found = cell_map(tmp_path, cells_of(60), pooled=pool(tmp_path, tmp_path, cells_of(60)))
    assert found is not None
    points = np.stack([found.x, found.y], axis=1)
    apart = np.linalg.norm(points[kind == 0].mean(0) - points[kind == 1].mean(0))
    assert apart > 3 * points[kind == 0].std(0).max()


def test_many_points_are_laid_out_by_umap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Umap:
        def __init__(self, **given_: Any) -> None:
            asked.append(given_)

        def fit_transform(self, matrix: Any) -> Any:
            return matrix[:, :2]

    fake = ModuleType("umap")
    fake.UMAP = Umap  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", fake)
    monkeypatch.setattr(coordinates, "_LEAST", 20)
    monkeypatch.setattr(coordinates, "version", lambda _: "0.5")
    folder = made.make_run(tmp_path / "run")
    found = feature_map(folder, np.arange(40), fires=np.ones(40, bool), seed=5)
    assert found is not None
    assert found.how.startswith("UMAP of the directions")
    assert [(each["metric"], each["random_state"]) for each in asked] == [("cosine", 5)]
    lengths = found.x**2 + found.y**2
    assert lengths.max() <= 1 + 1e-6  # directions, not their lengths


def test_both_axes_have_one_scale() -> None:
    columns = coordinates.Map(np.array([0.0, 4.0, np.nan]), np.array([1.0, 3.0, np.nan]), "").columns()
    x, y = (columns[name] for name in "xy")
    assert (x.scale * x.stored[:2] + x.zero).tolist() == pytest.approx([0, 1])  # type: ignore[attr-defined]
    assert (y.scale * y.stored[:2] + y.zero).tolist() == pytest.approx([0, 0.5])  # type: ignore[attr-defined]
    assert x.stored[2] == x.null  # type: ignore[attr-defined]
