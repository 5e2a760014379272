"""Rates and numbers of features over a run, against cases worked by hand."""

from __future__ import annotations

import pytest

from elute.engine import schedules
from elute.engine.settings import DeadConfig


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    found = [schedules.rate(step, 100, warmup=0.1, decay=0.2) for step in range(101)]
    assert found[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    assert set(found[9:81]) == {1.0}
    assert found[81:] == pytest.approx([1 - i / 20 for i in range(1, 21)])
    assert found[100] == 0.0


def test_the_rate_at_its_ends() -> None:
    assert [schedules.rate(s, 5, warmup=0, decay=0) for s in range(5)] == [1.0] * 5
    assert schedules.rate(0, 1, warmup=1, decay=1) == 1.0
    # Where rise and fall meet, the lower of the two holds, and no step but the one after the last is at zero.
    found = [schedules.rate(s, 10, warmup=1, decay=1) for s in range(10)]
    assert found == pytest.approx([min((s + 1) / 10, (10 - s) / 10) for s in range(10)])
    assert min(found) > 0


def test_features_that_fire_become_fewer_evenly() -> None:
    found = [schedules.sparsity(step, 100, first=50, last=10, until=0.4) for step in range(100)]
    assert found[:5] == [50, 49, 48, 47, 46]
    assert found[20] == 30
    assert found[39] == 11
    assert set(found[40:]) == {10}
    assert [schedules.sparsity(s, 9, first=7, last=3, until=0) for s in range(9)] == [3] * 9
    assert [schedules.sparsity(s, 4, first=2, last=6, until=1) for s in range(4)] == [2, 3, 4, 5]


def test_resampling_is_due_in_the_first_part_of_a_run() -> None:
    config = DeadConfig(resample_every=10, resample_until=0.5)
    assert [step for step in range(100) if config.resamples(step, 100)] == [10, 20, 30, 40]
    assert not any(DeadConfig(dead="auxk").resamples(step, 1000) for step in range(1000))
    assert [d for d in ("resample", "auxk", "both", "none") if DeadConfig(dead=d).teaches] == ["auxk", "both"]
