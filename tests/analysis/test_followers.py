from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import sparse, stats

from elute.analysis.followers import BEST, followers
from elute.base.errors import ConfigError, DataError

RNG = np.random.default_rng(21)
N = 300
TYPES = np.array(["B", "NK", "T"])[RNG.integers(0, 3, N)]
CHOOSING = RNG.random(N) < 0.6
X = RNG.gamma(1.0, size=(N, 40)) * (RNG.random((N, 40)) < 0.5)
X[TYPES == "B", :3] += 9.0
X[:, 3] = RNG.random(N) + 1 - (TYPES == "T")
X[(TYPES == "T") & CHOOSING, 4] += 9.0  # follows on choosing cells alone
X[:, 5] = 0
X[TYPES != "NK", 6] += 9.0


def blocks(x=X, width=7):
    return (x[:, i : i + width] for i in range(0, x.shape[1], width))


def auroc(x, inside):
    return stats.mannwhitneyu(x[inside], x[~inside]).statistic / (inside.sum() * (~inside).sum())


def follow(level, side, at, below=False):
    found = np.array([auroc(X[side, j], (level == TYPES)[side]) for j in range(X.shape[1])])
    return found <= 1 - at if below else found >= at


@pytest.mark.parametrize("at", [0.6, 0.9])
@pytest.mark.parametrize("both_signs", [False, True])
def test_counts_are_those_of_pairs_won(at, both_signs):
    found = followers(blocks(), TYPES, CHOOSING, shown=~CHOOSING, at=at, both_signs=both_signs)
    anyone = np.zeros(X.shape[1], bool)
    for level in ("B", "NK", "T"):
        wanted = follow(level, CHOOSING, at) & follow(level, ~CHOOSING, at)
        if both_signs:
            wanted |= follow(level, CHOOSING, at, below=True) & follow(level, ~CHOOSING, at, below=True)
        assert found.levels[level] == wanted.sum()
        assert {b.column for b in found.best[level]} <= set(np.flatnonzero(wanted))
        anyone |= wanted
    assert found.total == anyone.sum() > 0
    assert (found.columns, found.at, found.both_signs, found.held_out) == (40, at, both_signs, True)


def test_the_planted_columns_and_no_other():
    found = followers(blocks(), TYPES, CHOOSING, shown=~CHOOSING)
    assert found.levels == {"B": 3, "NK": 0, "T": 0}
    assert {b.column for b in found.best["B"]} == {0, 1, 2}
    assert found.best["B"][0].auroc == pytest.approx(
        auroc(X[CHOOSING, found.best["B"][0].column], (TYPES == "B")[CHOOSING])
    )
    assert all(b.auroc_shown > 0.9 for b in found.best["B"])
    either = followers(blocks(), TYPES, CHOOSING, shown=~CHOOSING, both_signs=True)
    assert either.levels == {"B": 3, "NK": 1, "T": 1}
    assert either.best["T"][0].column == 3
    assert either.best["T"][0].auroc < 0.1


def test_without_cells_that_show_choosing_ones_decide():
    found = followers(blocks(), TYPES, CHOOSING)
    assert found.levels == {"B": 3, "NK": 0, "T": 1}
    assert not found.held_out
    assert found.best["T"][0].auroc_shown is None
    json.dumps(found.record())


@pytest.mark.parametrize("form", [sparse.csc_array, sparse.csr_array, sparse.csc_matrix])
def test_any_form_and_width_of_block_gives_the_same(form):
    wanted = followers(blocks(), TYPES, CHOOSING, shown=~CHOOSING, permutations=2)
    for width in (1, 40):
        forms = (form(b) for b in blocks(width=width))
        assert followers(forms, TYPES, CHOOSING, shown=~CHOOSING, permutations=2) == wanted


def test_only_the_best_are_named_strongest_first():
    x = np.zeros((N, 12))
    for j in range(12):
        x[:, j] = (TYPES == "B") + RNG.normal(size=N) * (0.05 + 0.02 * j)
    found = followers([x], TYPES, CHOOSING, shown=~CHOOSING, at=0.8)
    assert found.levels["B"] == 12
    named = [b.auroc for b in found.best["B"]]
    every = sorted((auroc(x[CHOOSING, j], (TYPES == "B")[CHOOSING]) for j in range(12)), reverse=True)
    assert named == pytest.approx(every[:BEST])


def test_permuted_labels_follow_nothing_and_keep_who_is_where():
    found = followers(blocks(), TYPES, CHOOSING, shown=~CHOOSING, permutations=20)
    assert found.permuted == (0,) * 20
    # Where a level is one of every donor's own, shuffling inside donors changes nothing, and is told.
    fixed = followers(blocks(), TYPES, CHOOSING, shown=~CHOOSING, permutations=2, within=TYPES)
    assert fixed.permuted == ()
    assert fixed.note.startswith("labels cannot be permuted: none of 6 groups has two labels")
    assert fixed.total == 3


def test_labels_are_permuted_inside_donors():
    """Two donors differ in their types, and a column tells the donor: it still follows, which the shuffle must show."""
    donor = np.arange(N) % 2
    types = np.where(RNG.random(N) < 0.02, 1 - donor, donor)
    x = (donor + RNG.normal(size=N) * 0.01)[:, None]
    inside = followers([x], types, CHOOSING, shown=~CHOOSING, permutations=5, within=donor)
    free = followers([x], types, CHOOSING, shown=~CHOOSING, permutations=5)
    assert (inside.total, inside.permuted) == (1, (1,) * 5)
    assert free.permuted == (0,) * 5


def test_permutations_belong_to_the_seed():
    def run(seed):
        return followers(
            blocks(), TYPES, CHOOSING, shown=~CHOOSING, at=0.55, least=2, permutations=8, seed=seed
        ).permuted

    assert run(1) == run(1) != run(2)


def test_small_levels_are_named_and_not_asked():
    types = TYPES.astype(object)
    types[:9] = "pDC"
    types[9:12] = None
    found = followers(blocks(), types, CHOOSING, shown=~CHOOSING)
    assert found.small == ("pDC",)
    assert "pDC" not in found.levels
    lone = followers(blocks(X[12:]), types[12:], CHOOSING[12:])
    cells = np.arange(N) >= 12
    assert followers(blocks(), types, CHOOSING & cells).levels == lone.levels


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="no cell has a label"):
        followers(blocks(), [None] * N, CHOOSING)
    with pytest.raises(DataError, match="all labels are 'T'"):
        followers(blocks(), ["T"] * N, CHOOSING)
    for at in (0.5, 1.5):
        with pytest.raises(ConfigError, match=f"{at} is not above 0.5 and at most 1"):
            followers(blocks(), TYPES, CHOOSING, at=at)
    with pytest.raises(DataError, match="has 299 entries for 300 rows"):
        followers(blocks(X[1:]), TYPES, CHOOSING)
    with pytest.raises(DataError, match="no column was given"):
        followers([], TYPES, CHOOSING)
