"""Planted rows: what was planted is what was promised, however the rows are asked for, and the store holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from elute.arrays import planted as module
from elute.arrays.planted import CHUNK, CODES, COUNTS, SITE, TRUTH, Planted, PlantedConfig, read_truth, write_store
from elute.base.codes import Codes
from elute.base.errors import DamagedError, DataError, GuardError
from elute.engine.recovery import recovery
from elute.store.reader import Store
from elute.store.splitting import SplitConfig, split_store
from elute.store.verify import verify

KINDS = ["independent", "coins", "hierarchy", "blocks", "synth"]
ROWS = 8 * CHUNK


def small(kind: str, **settings: Any) -> PlantedConfig:
    return PlantedConfig(**{"kind": kind, "n_features": 256, "width": 32, "active": 8, "rows": 5000, **settings})


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[Planted, torch.Tensor]]:
    """Whether each feature fired, [ROWS, 256], of each kind."""
    made = {kind: Planted(small(kind)) for kind in KINDS}
    return {kind: (each, each.codes(0, ROWS).dense() != 0) for kind, each in made.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_features_fire_as_often_as_promised(drawn: dict[str, Any], kind: str) -> None:
    planted, fires = drawn[kind]
    p = planted.frequencies
    if kind != "independent":
        assert p.sum() == pytest.approx(8, rel=1e-6)
    assert fires.sum(1).double().mean() == pytest.approx(p.sum(), abs=0.12)
    off = (fires.double().mean(0).numpy() - p) / np.sqrt(p * (1 - p) / ROWS)
    assert np.abs(off).max() < 4.5  # the largest of 256 normal deviates is about 3
    assert 0.8 < off.std() < 1.2


def test_the_defaults_are_those_of_the_published_numbers() -> None:
    for kind in KINDS:
        planted = Planted(PlantedConfig(kind=kind))
        assert tuple(planted.directions.shape) == (1024, 256)
        assert planted.frequencies.sum() == pytest.approx(11.81 if kind == "independent" else 12, abs=0.005)
    p = Planted(PlantedConfig(kind="coins")).frequencies
    np.testing.assert_allclose(p[0] / p[[1, 9, 99]], np.array([2, 10, 100]) ** 0.6)
    p = 1 - (1 - Planted(PlantedConfig()).frequencies) ** (1 / 12)  # of one draw in 12
    np.testing.assert_allclose(p, np.arange(1, 1025) ** -0.6 / (np.arange(1, 1025) ** -0.6).sum())
    hierarchy, blocks = (Planted(PlantedConfig(kind=kind)).frequencies for kind in ("hierarchy", "blocks"))
    for p in (hierarchy, blocks):  # 64 parents, 512 children, 56 blocks of 8
        np.testing.assert_allclose(p[:64], 3 / 64)
        np.testing.assert_allclose(p[64:576], 3 / 512)
        np.testing.assert_allclose(p[576:], 6 / 448)


def test_coins_are_independent_and_draws_leave_out_repeats_alone(drawn: dict[str, Any]) -> None:
    assert set(drawn["independent"][1].sum(1).tolist()) <= {3, 4, 5, 6, 7, 8}
    _, fires = drawn["coins"]
    shares = fires.double().mean(0)
    assert fires.sum(1).double().var() == pytest.approx(float((shares * (1 - shares)).sum()), rel=0.05)
    together = np.corrcoef(fires[:, :40].numpy().T)[np.triu_indices(40, 1)]
    assert np.abs(together).max() < 4.5 / ROWS**0.5
    assert together.std() == pytest.approx(ROWS**-0.5, rel=0.15)


@pytest.mark.parametrize("kind", ["hierarchy", "blocks"])
def test_children_need_parents_and_blocks_are_on_together(drawn: dict[str, Any], kind: str) -> None:
    _, fires = drawn[kind]
    parents, children, blocks = (
        fires[:, :16],
        fires[:, 16:144].reshape(ROWS, 16, 8),
        fires[:, 144:].reshape(ROWS, 14, 8),
    )
    assert (parents.sum(1) == 2).all()
    assert not children[~parents].any()
    of_firing = children[parents].sum(1)
    assert of_firing.double().mean() == pytest.approx(1, abs=0.02)
    if kind == "blocks":
        assert (of_firing == 1).all()
    else:
        assert of_firing.double().var() == pytest.approx(8 * (1 / 8) * (7 / 8), abs=0.05)
    # Given that one member fires, each of the others does with the probability of members.
    together = 0.8 if kind == "blocks" else 0.5
    first = blocks[:, :, 0]
    assert blocks[first][:, 1:].double().mean() == pytest.approx(together, abs=0.02)


def test_synth_has_trees_and_correlated_pairs(drawn: dict[str, Any]) -> None:
    planted, fires = drawn["synth"]
    bases, first = 256 - 2 * 84, 256 - 2 * 84
    above = fires[:, :2]
    for size in (8, 32, 128):
        level = fires[:, first : first + size].reshape(ROWS, size // 4, 4)
        assert not level[~above].any()
        assert level.sum(2).max() == 1
        assert level[above].sum(1).double().mean() == pytest.approx(0.8, abs=0.03)
        above, first = level.reshape(ROWS, size), first + size
    assert first == 256
    together = np.corrcoef(fires[:, :bases].numpy().T)[np.triu_indices(bases, 1)]
    assert (np.abs(together) > 6 / ROWS**0.5).sum() > 20
    assert together.min() < -6 / ROWS**0.5
    assert planted.frequencies.max() <= 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_any_range_is_the_same_however_it_is_asked_for(kind: str) -> None:
    whole, codes = Planted(small(kind)).rows(0, 2 * CHUNK + 50)
    planted = Planted(small(kind))
    for start, stop in [(CHUNK - 3, CHUNK + 3), (0, 5), (CHUNK, 2 * CHUNK), (10, 2 * CHUNK + 50), (7, 8)]:
        alone = planted.codes(start, stop)
        x, code = planted.rows(start, stop)
        assert torch.equal(x, whole[start:stop])
        assert torch.equal(code.dense(), codes[start:stop].dense())
        assert torch.equal(alone.dense(), code.dense())
        x.zero_()  # what was handed out is the caller's own
    assert not torch.equal(Planted(small(kind, seed=1)).rows(0, 9)[0], whole[:9])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_sums_of_unit_directions_and_noise(kind: str) -> None:
    planted = Planted(small(kind, noise=0.1))
    x, codes = planted.rows(100, 6000)
    codes.check()
    assert x.dtype == torch.float32
    np.testing.assert_allclose(planted.directions.norm(dim=1), 1, atol=1e-6)
    noise = x - codes.dense() @ planted.directions
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean()) < 0.002
    values = codes.fired().values
    assert (values > 0).all()
    assert values.mean() == pytest.approx(1, abs=0.02)
    assert values.var() == pytest.approx(0.25, abs=0.02)  # Gamma(4, ¼)
    clean = Planted(small(kind, noise=0)).rows(0, 50)
    torch.testing.assert_close(clean[0], clean[1].dense() @ planted.directions, atol=1e-5, rtol=0)


def test_a_store_holds_the_rows_and_the_truth(tmp_path: Path) -> None:
    config = small("blocks", rows=CHUNK + 900, truth_rows=CHUNK + 10)
    artifact = write_store(tmp_path / "s", config)
    planted = Planted(config)
    x, codes = planted.rows(0, config.rows)
    store = Store(tmp_path / "s")
    assert (len(store), store.complete, verify(tmp_path / "s")) == (config.rows, True, [])
    batches = list(store.batches(1000))
    assert torch.equal(torch.cat([rows[SITE] for rows, _ in batches]), x)
    metadata = store.metadata()
    assert metadata["sample_id"].to_list()[:2] == ["r0000000", "r0000001"]
    assert metadata["sample_id"].n_unique() == config.rows
    truth = read_truth(tmp_path / "s")
    assert torch.equal(truth.directions, planted.directions)
    assert truth.counts.tolist() == codes.counts().tolist()
    assert artifact.summary["mean_active"] == pytest.approx(truth.counts.sum() / config.rows)
    assert isinstance(truth.codes, Codes)
    assert torch.equal(truth.codes.dense(), codes[: CHUNK + 10].dense())
    assert recovery(planted.directions, truth.directions, truth.counts, least=1).recovered_fraction == 1.0
    assert set(split_store(tmp_path / "s", SplitConfig()).summary["rows"]) == {"train", "validation", "test"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_an_interrupted_store_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("hierarchy", rows=3 * CHUNK, width=8)
    write_store(tmp_path / "whole", config)
    plain = Planted.rows

    def broken(self: Planted, start: int, stop: int) -> Any:
        if start >= CHUNK:
            raise KeyboardInterrupt
        return plain(self, start, stop)

    with monkeypatch.context() as patched:
        patched.setattr(module.Planted, "rows", broken)
        with pytest.raises(KeyboardInterrupt):
            write_store(tmp_path / "cut", config)
    assert not (tmp_path / "cut" / TRUTH).exists()
    assert write_store(tmp_path / "cut", config).summary["reused"] is False
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert write_store(tmp_path / "cut", config).summary["reused"] is True

    (tmp_path / "cut" / COUNTS).unlink()  # the truth alone is made again
    shard = (tmp_path / "cut" / "00000.safetensors").stat().st_mtime_ns
    write_store(tmp_path / "cut", config)
    assert (tmp_path / "cut" / "00000.safetensors").stat().st_mtime_ns == shard
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")

    write_store(tmp_path / "cut", config.model_copy(update={"truth_rows": 0}))
    assert not (tmp_path / "cut" / CODES).exists()
    assert read_truth(tmp_path / "cut").codes is None
    other = config.model_copy(update={"seed": 5})
    with pytest.raises(GuardError, match="is complete|of something else"):
        write_store(tmp_path / "cut", other)
    write_store(tmp_path / "cut", other, recapture=True)
    assert torch.equal(read_truth(tmp_path / "cut").directions, Planted(other).directions)


def test_damaged_truth_is_said(tmp_path: Path) -> None:
    write_store(tmp_path, small("independent", rows=100))
    np.save(tmp_path / COUNTS, np.zeros(3, dtype=np.int64))
    with pytest.raises(DamagedError, match="truth.npy and truth_counts.npy do not belong together"):
        read_truth(tmp_path)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"kind": "synth", "n_features": 1000}, "multiple of 128"),
        ({"kind": "blocks", "n_features": 128, "active": 12}, "active must lie from 4 to 8"),
        ({"kind": "hierarchy", "active": 1}, "active must lie from 4 to 64"),
        ({"n_features": 8, "active": 3}, "active must lie from 1 to 2"),
    ],
)
def test_what_cannot_be_planted_is_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        PlantedConfig(**settings)


def test_rows_that_are_not_there_are_refused() -> None:
    with pytest.raises(DataError, match="^there are no rows from 5 to 5$"):
        Planted(small("independent")).rows(5, 5)
