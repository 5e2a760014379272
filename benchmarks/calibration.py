"""How often each test of elute.base.statistics finds something where there is nothing.

For every test and null, 200 seeds draw data without any effect. The table shows the share of seeds in which any
feature has q < 0.05 after Benjamini–Hochberg and after Storey (about 0.05 is right, less is conservative), and the
share of all p-values below 0.1, 0.01 and 0.001 (which should be that large, or less).

The last column says what is expected: `uniform`; `conservative`, where p-values are discrete or tails are light; and
`fails`, for procedures that the library offers a remedy for, shown beside it.

    python benchmarks/calibration.py [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from elute.base.statistics.checks import Floats
from elute.base.statistics.corrections import benjamini_hochberg, storey
from elute.base.statistics.correlation import spearman
from elute.base.statistics.effects import between_groups, group_differences, paired_effects, pseudobulk
from elute.base.statistics.exact import fisher_exact, tables_from_overlap
from elute.base.statistics.matching import matched_controls
from elute.base.statistics.nulls import empirical_p, permutation_test
from elute.base.statistics.ranks import rank_sum, rank_sum_sparse
from elute.base.statistics.signed import sign_flip, signed_rank

SEEDS = 200
LEVELS = (0.1, 0.01, 0.001)
Rng = np.random.Generator


@dataclass(frozen=True)
class Null:
    test: str
    data: str
    draw: Callable[[Rng], Floats]  # the p-values of one seed
    expected: str


def overlaps(rng: Rng, alternative: str) -> Floats:
    listed, inside = rng.integers(50, 200, 40), rng.integers(20, 200, 40)
    shared = rng.hypergeometric(inside, 2000 - inside, listed)
    tables = tables_from_overlap(shared, listed, inside, population=2000)
    return fisher_exact(tables, alternative=alternative).p


def rare_features(rng: Rng, n: int = 400, width: int = 30) -> tuple[Floats, Floats]:
    """Features that fire in 1 to 40 of 400 rows, and a mask of 20 rows."""
    firing = rng.integers(1, 41, width)
    values = np.where(rng.random((n, width)).argsort(axis=0) < firing, rng.exponential(size=(n, width)), 0.0)
    return values, np.arange(n) < 20


def half_zeros(rng: Rng) -> Floats:
    values = rng.exponential(size=(60, 60)) * rng.integers(0, 2, (60, 60))
    return rank_sum_sparse(sparse.csc_array(values), np.arange(60) < 30).p


def cells_of_donors(rng: Rng, width: int = 60) -> tuple[Floats, Floats]:
    """Ten donors with 15 cells each, and a level of their own in every feature."""
    donors = np.repeat(np.arange(10), 15)
    return rng.normal(size=(10, width))[donors] + rng.normal(size=(150, width)), donors


def cells_ignoring_donors(rng: Rng) -> Floats:
    values, donors = cells_of_donors(rng)
    return rank_sum(values, donors < 5).p


def donors_between(rng: Rng) -> Floats:
    values, donors = cells_of_donors(rng)
    return between_groups(pseudobulk(values, donors).values, np.arange(10) < 5).p


def donors_within(rng: Rng, test: str) -> Floats:
    values, donors = cells_of_donors(rng)
    inside = np.arange(150) % 15 < 2 + donors  # cell types in shares that differ by donor
    return paired_effects(group_differences(values, inside, donors).values, test=test).p


def labels_within(rng: Rng) -> Floats:
    """Labels twice as common in half of the donors: a shuffle across donors would find the donors."""
    donors = np.repeat(np.arange(6), 10)
    values = rng.normal(size=(6, 3))[donors] + rng.normal(size=(60, 3))
    labels = rng.random(60) < np.where(donors < 3, 0.3, 0.6)
    labels[::10], labels[1::10] = True, False
    found = permutation_test(
        lambda inside: inside @ values,
        labels,
        donors,
        n_permutations=99,
        alternative="greater",
        seed=int(rng.integers(9999)),
    )
    return found.p


def gene_lists(rng: Rng) -> tuple[Floats, Floats, Floats]:
    """A list of 20 highly expressed genes, and ten scores that grow with expression and with nothing else."""
    expression = rng.normal(size=500)
    scores = 0.5 * expression[:, None] + rng.normal(size=(500, 10))
    return expression, scores, np.flatnonzero(expression + rng.normal(size=500) > 1.5)[:20]


def matched_lists(rng: Rng, pool: str) -> Floats:
    expression, scores, items = gene_lists(rng)
    seed = int(rng.integers(9999))
    drawn = matched_controls(items, expression, n_draws=299, n_bins=25, pool=pool, too_few="fill", seed=seed)
    return empirical_p(scores[items].mean(axis=0), scores[drawn.draws].mean(axis=1))


def unmatched_lists(rng: Rng) -> Floats:
    _, scores, items = gene_lists(rng)
    return empirical_p(scores[items].mean(axis=0), scores[rng.integers(0, 500, (299, len(items)))].mean(axis=1))


HALF = np.arange(80) < 40
NULLS = [
    Null("fisher_exact two-sided", "lists and sets", lambda r: overlaps(r, "two-sided"), "conservative"),
    Null("fisher_exact greater", "lists and sets", lambda r: overlaps(r, "greater"), "conservative"),
    Null(
        "rank_sum exact",
        "7 against 12",
        lambda r: rank_sum(r.normal(size=(19, 100)), np.arange(19) < 7).p,
        "conservative",
    ),
    Null("rank_sum", "40 against 40", lambda r: rank_sum(r.normal(size=(80, 100)), HALF).p, "uniform"),
    Null("rank_sum", "counts with ties", lambda r: rank_sum(1 + r.poisson(2.0, (80, 100)), HALF).p, "uniform"),
    Null("rank_sum", "rare features", lambda r: rank_sum(*rare_features(r)).p, "conservative"),
    Null(
        "rank_sum greater",
        "rare features",
        lambda r: rank_sum(*rare_features(r), alternative="greater").p,
        "conservative",
    ),
    Null("rank_sum normal", "rare features", lambda r: rank_sum(*rare_features(r), method="normal").p, "fails"),
    Null("rank_sum_sparse", "half zeros", half_zeros, "uniform"),
    Null("rank_sum", "cells, donors ignored", cells_ignoring_donors, "fails"),
    Null("between_groups", "cells of donors", donors_between, "conservative"),
    Null("paired_effects t", "cells of donors", lambda r: donors_within(r, "t"), "uniform"),
    Null("paired_effects sign-flip", "cells of donors", lambda r: donors_within(r, "sign-flip"), "conservative"),
    Null("paired_effects t", "8 heavy-tailed", lambda r: paired_effects(r.standard_t(3, (8, 100))).p, "conservative"),
    Null("signed_rank", "10 pairs", lambda r: signed_rank(r.normal(size=(10, 60))).p, "conservative"),
    Null("signed_rank", "60 heavy-tailed", lambda r: signed_rank(r.standard_t(2, (60, 100))).p, "uniform"),
    Null("sign_flip", "10 heavy-tailed", lambda r: sign_flip(r.standard_t(3, (10, 60))).p, "conservative"),
    Null("sign_flip", "20 pairs, drawn", lambda r: sign_flip(r.normal(size=(20, 40)), n_flips=999).p, "uniform"),
    Null("spearman exact", "7 rows", lambda r: spearman(r.normal(size=(7, 40)), r.normal(size=7)).p, "conservative"),
    Null("spearman", "40 rows", lambda r: spearman(r.normal(size=(40, 100)), r.normal(size=40)).p, "uniform"),
    Null("permutation_test", "labels within donors", labels_within, "uniform"),
    Null("empirical_p", "matched lists", lambda r: matched_lists(r, "all"), "uniform"),
    Null("empirical_p", "lists not in their pool", lambda r: matched_lists(r, "others"), "fails"),
    Null("empirical_p", "unmatched lists", unmatched_lists, "fails"),
]


def measure(null: Null) -> dict[str, object]:
    """Return the row of one test and null."""
    start = time.perf_counter()
    drawn = [null.draw(np.random.default_rng(seed)) for seed in range(SEEDS)]
    p = np.concatenate(drawn)
    return {
        "test": null.test,
        "null": null.data,
        "any_bh": float(np.mean([benjamini_hochberg(x).min() < 0.05 for x in drawn])),
        "any_storey": float(np.mean([storey(x).q.min() < 0.05 for x in drawn])),
        "shares": {str(level): float(np.mean(p <= level)) for level in LEVELS},
        "n_p": len(p),
        "seconds": time.perf_counter() - start,
        "expected": null.expected,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    as_json = parser.parse_args().json
    rows = [measure(null) for null in NULLS]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    heads = ("test", "null", "any BH", "Storey", "p≤0.1", "p≤0.01", "p≤0.001", "p-values", "s", "expected")
    print("{:<26}{:<24}{:>7}{:>8}{:>8}{:>8}{:>9}{:>10}{:>6}  {}".format(*heads))
    for row in rows:
        shares = [row["shares"][str(level)] for level in LEVELS]
        print(
            f"{row['test']:<26}{row['null']:<24}{row['any_bh']:>7.3f}{row['any_storey']:>8.3f}{shares[0]:>8.4f}"
            f"{shares[1]:>8.4f}{shares[2]:>9.5f}{row['n_p']:>10}{row['seconds']:>6.1f}  {row['expected']}"
        )


if __name__ == "__main__":
    main()
