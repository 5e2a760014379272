"""How often each test of elute.base.statistics finds something where there is nothing.

For every test and null, 200 seeds draw data without any effect. The table shows the share of seeds in which any
feature has q < 0.05 after Benjamini–Hochberg and after Storey (about 0.05 is right, less is conservative), and the
share of all p-values below 0.1, 0.01 and 0.001 (which should be that large, or less).

The last column says what is expected: `uniform`; `conservative`, where p-values are discrete or tails are light; and
`fails`, for procedures that the library offers a remedy for, shown beside it.

    python benchmarks/calibration.py [--json]

The rows are also written to results/calibration.json beside this file. `--table lists` measures lists of genes against
sets of genes instead, which takes about an hour: see _lists.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
RESULT = Path(__file__).parent / "results" / "calibration.json"
Rng = np.random.Generator


@dataclass(frozen=True)
class Null:
    test: str
    data: str
    draw: Callable[[Rng], Floats]  # the data of one seed, a feature a column
    apply: Callable[[Floats], Floats]  # the p-values of such columns, of all seeds at once
    expected: str


def overlaps(rng: Rng) -> Floats:
    """Cells of 60 tables: lists and sets that share what chance puts there."""
    listed, inside = rng.integers(50, 200, 60), rng.integers(20, 200, 60)
    shared = rng.hypergeometric(inside, 2000 - inside, listed)
    return tables_from_overlap(shared, listed, inside, population=2000).reshape(60, 4).T


def fisher(alternative: str) -> Callable[[Floats], Floats]:
    return lambda cells: fisher_exact(cells.T.reshape(-1, 2, 2), alternative=alternative).p


def normal(rows: int, width: int = 100) -> Callable[[Rng], Floats]:
    return lambda rng: rng.normal(size=(rows, width))


def heavy(rows: int, width: int = 100) -> Callable[[Rng], Floats]:
    return lambda rng: rng.standard_t(3, (rows, width))


def rare(rng: Rng) -> Floats:
    """Features that fire in 1 to 40 of 400 rows."""
    values = np.zeros((400, 25))
    for i, firing in enumerate(rng.integers(1, 41, 25)):
        values[rng.choice(400, firing, replace=False), i] = rng.exponential(size=firing)
    return values


def inside(rows: int, n: int, **settings: str) -> Callable[[Floats], Floats]:
    """The rank sum of the first rows against the rest."""
    return lambda values: rank_sum(values, np.arange(n) < rows, **settings).p


DONORS = np.repeat(np.arange(10), 15)
CELL_TYPE = np.arange(150) % 15 < 2 + DONORS  # in shares that differ by donor


def cells(rng: Rng, width: int = 60) -> Floats:
    """Ten donors with 15 cells each, and a level of their own in every feature."""
    return rng.normal(size=(10, width))[DONORS] + rng.normal(size=(150, width))


def by_donor(test: str) -> Callable[[Floats], Floats]:
    return lambda values: paired_effects(group_differences(values, CELL_TYPE, DONORS).values, test=test).p


def spearman_of(rows: int, width: int) -> Callable[[Rng], Floats]:
    return lambda rng: spearman(rng.normal(size=(rows, width)), rng.normal(size=rows)).p[None]


def labels_within(rng: Rng) -> Floats:
    """Labels twice as common in half of the donors: a shuffle across donors would find the donors."""
    donors = np.repeat(np.arange(6), 10)
    values = rng.normal(size=(6, 3))[donors] + rng.normal(size=(60, 3))
    labels = rng.random(60) < np.where(donors < 3, 0.3, 0.6)
    labels[::10], labels[1::10] = True, False
    settings = {"n_permutations": 99, "alternative": "greater", "seed": int(rng.integers(9999))}
    return permutation_test(lambda marked: marked @ values, labels, donors, **settings).p[None]


def gene_lists(rng: Rng) -> tuple[Floats, Floats, Floats]:
    """A list of 20 highly expressed genes, and ten scores that grow with expression and with nothing else."""
    expression = rng.normal(size=500)
    scores = 0.5 * expression[:, None] + rng.normal(size=(500, 10))
    return expression, scores, np.flatnonzero(expression + rng.normal(size=500) > 1.5)[:20]


def matched(pool: str) -> Callable[[Rng], Floats]:
    def draw(rng: Rng) -> Floats:
        expression, scores, items = gene_lists(rng)
        settings = {"n_draws": 299, "n_bins": 25, "pool": pool, "too_few": "fill", "seed": int(rng.integers(9999))}
        draws = matched_controls(items, expression, **settings).draws
        return empirical_p(scores[items].mean(axis=0), scores[draws].mean(axis=1))[None]

    return draw


def unmatched(rng: Rng) -> Floats:
    _, scores, items = gene_lists(rng)
    drawn = rng.integers(0, 500, (299, len(items)))
    return empirical_p(scores[items].mean(axis=0), scores[drawn].mean(axis=1))[None]


NULLS = [
    Null("fisher_exact two-sided", "lists and sets", overlaps, fisher("two-sided"), "conservative"),
    Null("fisher_exact greater", "lists and sets", overlaps, fisher("greater"), "conservative"),
    Null("rank_sum exact", "7 against 12", normal(19), inside(7, 19), "conservative"),
    Null("rank_sum", "40 against 40", normal(80), inside(40, 80), "uniform"),
    Null("rank_sum", "counts with ties", lambda r: 1.0 + r.poisson(2.0, (80, 60)), inside(40, 80), "uniform"),
    Null("rank_sum", "rare features", rare, inside(20, 400), "conservative"),
    Null("rank_sum greater", "rare features", rare, inside(20, 400, alternative="greater"), "conservative"),
    Null("rank_sum normal", "rare features", rare, inside(20, 400, method="normal"), "fails"),
    Null(
        "rank_sum_sparse",
        "half zeros",
        lambda r: r.exponential(size=(60, 60)) * r.integers(0, 2, (60, 60)),
        lambda values: rank_sum_sparse(sparse.csc_array(values), np.arange(60) < 30).p,
        "uniform",
    ),
    Null("rank_sum", "cells, donors ignored", cells, lambda values: rank_sum(values, DONORS < 5).p, "fails"),
    Null(
        "between_groups",
        "cells of donors",
        cells,
        lambda values: between_groups(pseudobulk(values, DONORS).values, np.arange(10) < 5).p,
        "conservative",
    ),
    Null("paired_effects t", "cells of donors", cells, by_donor("t"), "uniform"),
    Null("paired_effects sign-flip", "cells of donors", cells, by_donor("sign-flip"), "conservative"),
    Null("paired_effects t", "8 heavy-tailed", heavy(8), lambda values: paired_effects(values).p, "conservative"),
    Null("signed_rank", "10 pairs", normal(10, 60), lambda values: signed_rank(values).p, "conservative"),
    Null("signed_rank", "60 heavy-tailed", heavy(60, 60), lambda values: signed_rank(values).p, "uniform"),
    Null("sign_flip", "10 heavy-tailed", heavy(10, 60), lambda values: sign_flip(values).p, "conservative"),
    Null("sign_flip", "20 pairs, drawn", normal(20, 40), lambda values: sign_flip(values, n_flips=1999).p, "uniform"),
    Null("spearman exact", "7 rows", spearman_of(7, 40), np.ravel, "conservative"),
    Null("spearman", "40 rows", spearman_of(40, 100), np.ravel, "uniform"),
    Null("permutation_test", "labels within donors", labels_within, np.ravel, "uniform"),
    Null("empirical_p", "matched lists", matched("all"), np.ravel, "uniform"),
    Null("empirical_p", "lists not in their pool", matched("others"), np.ravel, "fails"),
    Null("empirical_p", "unmatched lists", unmatched, np.ravel, "fails"),
]


def measure(null: Null) -> dict[str, object]:
    """Return the row of one test and null."""
    start = time.perf_counter()
    p = null.apply(np.hstack([null.draw(np.random.default_rng(seed)) for seed in range(SEEDS)]))
    seeds = p.reshape(SEEDS, -1)
    return {
        "test": null.test,
        "null": null.data,
        "any_bh": float(np.mean([benjamini_hochberg(x).min() < 0.05 for x in seeds])),
        "any_storey": float(np.mean([storey(x).q.min() < 0.05 for x in seeds])),
        "shares": {str(level): float(np.mean(p <= level)) for level in LEVELS},
        "n_p": p.size,
        "seconds": time.perf_counter() - start,
        "expected": null.expected,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--table", choices=("tests", "lists"), default="tests", help="lists: of genes, see _lists.py")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of --table lists")
    parser.add_argument("--only", help="one library of --table lists")
    asked = parser.parse_args()
    if asked.table == "lists":
        import _lists

        _lists.main(asked.seeds, asked.only)
        return
    as_json = asked.json
    rows = [measure(null) for null in NULLS]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
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
