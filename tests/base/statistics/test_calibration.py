"""The table of benchmarks/calibration.py, held to what it says it expects."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "calibration.py"
SPEC = importlib.util.spec_from_file_location("calibration", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
calibration = importlib.util.module_from_spec(SPEC)
sys.modules["calibration"] = calibration  # dataclasses look their module up by name
SPEC.loader.exec_module(calibration)

SEEDS_WITH_A_FINDING = 0.08  # of 200; 0.05 are right
STANDARD_ERRORS = 3.5  # of a share of independent p-values: 1 in 4,000 by chance, and the seeds are fixed


@pytest.mark.parametrize("null", calibration.NULLS, ids=lambda null: f"{null.test}, {null.data}")
def test_nothing_is_found_where_nothing_is(null):
    row = calibration.measure(null)
    above, below = [], []
    for level in calibration.LEVELS:
        slack = STANDARD_ERRORS * (level * (1.0 - level) / row["n_p"]) ** 0.5
        above.append(row["shares"][str(level)] > level + slack)
        below.append(row["shares"][str(level)] < level - slack)
    quiet = max(row["any_bh"], row["any_storey"]) <= SEEDS_WITH_A_FINDING
    if null.expected == "fails":
        assert any(above), row
        assert not quiet, row
        return
    assert quiet, row
    assert not any(above), row
    if null.expected == "uniform":
        assert not any(below[:2]), row


def test_the_script_prints_what_it_measures(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(calibration, "SEEDS", 3)
    monkeypatch.setattr(calibration, "RESULT", tmp_path / "results" / "calibration.json")
    monkeypatch.setattr(calibration, "NULLS", calibration.NULLS[2:4])

    def printed(*flags):
        monkeypatch.setattr(sys, "argv", ["calibration.py", *flags])
        calibration.main()
        return capsys.readouterr().out

    rows = json.loads(printed("--json"))
    assert [row["test"] for row in rows] == ["rank_sum exact", "rank_sum"]
    assert rows[0]["n_p"] == 300
    assert json.loads(calibration.RESULT.read_text()) == rows
    table = printed().splitlines()
    assert len(table) == 3
    assert table[0].split()[:2] == ["test", "null"]
    assert table[2].startswith("rank_sum ")
