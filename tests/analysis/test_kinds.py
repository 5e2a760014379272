from __future__ import annotations

import numpy as np
import pytest

from elute.analysis.kinds import KINDS, KindConfig, kinds
from elute.base.errors import DataError
from elute.base.recipe import build

NAN = float("nan")
CASES = [
    # rows, by gene, by cell, ρ with total, ρ with genes, AUROC, kind
    (0, 0.9, 0.0, 0.9, 0.9, 0.9, "silent"),
    (0, NAN, NAN, NAN, NAN, NAN, "silent"),
    (19, 0.9, 0.0, 0.0, 0.0, 0.5, "rare"),
    (500, NAN, 0.2, 0.0, 0.0, 0.5, "rare"),
    (500, 0.2, NAN, 0.0, 0.0, 0.5, "rare"),
    (20, 0.5, 0.0, 0.0, 0.0, 0.5, "gene identity"),
    (500, 0.8, 0.1, 0.0, -0.95, 0.5, "gene identity"),  # a mean over more tokens falls: no depth
    (500, 0.3, 0.1, 0.6, 0.0, 0.6, "depth"),
    (500, 0.1, 0.3, 0.0, -0.5, NAN, "depth"),
    (500, 0.1, 0.3, 0.6, 0.0, 0.9, "cell state"),  # it follows its type more closely: 0.8
    (500, 0.1, 0.3, 0.6, 0.0, 0.1, "cell state"),  # or by being silent there
    (500, 0.1, 0.3, 0.9, 0.0, 0.9, "depth"),
    (500, 0.1, 0.3, 0.49, 0.0, 0.6, "cell state"),
    (500, 0.0, 0.05, 0.0, 0.0, 0.5, "cell state"),
    (500, 0.0, 0.049, 0.0, 0.0, 0.5, "gene program"),
    (500, 0.0, 0.049, 0.9, 0.9, 0.5, "gene program"),  # next to nothing between cells
    (500, 0.3, 0.3, 0.0, 0.0, 0.5, "gene program"),
    (500, 0.49, 0.2, NAN, NAN, 0.95, "gene program"),
    (500, 0.0, 0.9, NAN, NAN, NAN, "cell state"),
]
ROWS, GENE, CELL, TOTAL, GENES, AUROC, WORDS = zip(*CASES, strict=True)


def test_each_rule_in_its_order():
    found = kinds(ROWS, GENE, CELL, depth=np.stack([TOTAL, GENES], axis=1), auroc=AUROC)
    assert found.words == WORDS
    assert found.counts == {kind: WORDS.count(kind) for kind in KINDS}
    assert all(found.counts.values())


def test_the_share_is_of_features_that_can_be_told():
    found = kinds([0, 5, 100, 100, 100, 100], [0, 0, 0.9, 0.8, 0, 0.1], [0, 0, 0, 0, 0.5, 0.0])
    assert found.share("gene identity") == 0.5
    assert found.share("cell state") == found.share("gene program") == 0.25
    assert found.share("depth") == found.share("silent") == 0
    assert kinds([0], [NAN], [NAN]).share("cell state") == 0


def test_without_depth_and_types_shares_decide():
    assert kinds([99] * 3, [0.6, 0.1, 0.2], [0.1, 0.2, 0.01]).words == ("gene identity", "cell state", "gene program")
    assert kinds([99], [0.1], [0.3], depth=[-0.7]).words == ("depth",)


def test_limits_are_settings():
    config = KindConfig(least_rows=5, by_gene=0.2, by_cell=0.4, depth=0.9)
    found = kinds([4, 5, 9, 9], [0, 0.2, 0.1, 0.1], [0.9, 0.1, 0.3, 0.5], depth=[0.95, 0, 0.95, 0.8], config=config)
    assert found.words == ("rare", "gene identity", "gene program", "cell state")
    assert build(KindConfig, {"by_cell": 0.1}, "here").by_cell == 0.1


def test_columns_of_another_length_are_refused():
    with pytest.raises(DataError, match=r"kinds\(by_cell\): has shape \(1,\). Give 2 numbers"):
        kinds([1, 2], [0, 0], [0])
    with pytest.raises(DataError, match=r"kinds\(depth\): has shape \(3, 1\). Give 2 rows"):
        kinds([1, 2], [0, 0], [0, 0], depth=[1, 2, 3])
    with pytest.raises(DataError, match=r"kinds\(rows\): has shape \(\). Give one number a feature"):
        kinds(3, [0], [0])
