"""What a run on painted tissue found of what was planted, beside what the same procedure finds of nothing.

A tile *holds* a structure if no other covers more of it. Of each planted gene

1. the top code is the one of the largest positive coefficient × spread over samples: the first that its page shows;
2. its references are the first K of RelMax's list of largest relevance, summed over a tile's patches;
3. its precision is the share of them that hold the gene's structure; HIT and more is a hit.

Beside them stand

chance      the share of all tiles that hold the structure, which is the precision of tiles drawn at random; and the
            share of the codes that are a hit for it, which is the probability of a hit if a code is drawn at random
permuted    all targets of a tile given to another tile of any patient, time and again: heads are judged as the run's
            were, and for their top codes fitted with the run's penalties, for which noise leaves no reason
random      the same stages with the encoder as it was before its training

Of a linear head on means, RelMax's list of a code with positive weight is in the order of the code's means
(analysis/prototypes.py): every code's references are known from the pooled codes, whatever the gene. The run's own are
read from `refs/`; the controls' are found in that way.

    recovery.parquet             a row a planted gene
    recovery_permuted.parquet    a row a planted gene and permutation
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.analysis.token_maps import safe_name
from elute.base import console, files
from elute.base.errors import DataError
from elute.heads.crossval import nested
from elute.heads.design import as_matrix
from elute.heads.fitting import Fitter
from elute.heads.head import FINE
from elute.heads.scores import scores
from elute.tissue import controls, explaining, preparing, splitting
from elute.tissue.fitting import setting_of
from elute.tissue.learning import opened
from elute.tissue.painting_files import PLANTED, TRUTH
from elute.tissue.painting_layout import STRUCTURES
from elute.tissue.pooled_codes import features

if TYPE_CHECKING:
    from elute.heads.crossval import Nested
    from elute.heads.head import Head
    from elute.tissue.controls import Setting
    from elute.tissue.plan import Plan
    from elute.tissue.tiles import Tiles

Array = np.ndarray[Any, Any]

K, HIT, LEVEL = 20, 0.8, 0.95
NAME, PERMUTED = "recovery.parquet", "recovery_permuted.parquet"


@dataclass(frozen=True, eq=False)
class Truth:
    """What is in the tiles, and which gene was planted to what."""

    holds: Array  # bool [samples, structures]
    genes: tuple[str, ...]
    planted: Array  # [genes], index into STRUCTURES

    @property
    def chance(self) -> Array:
        """Share of the tiles that hold each gene's structure, [genes]."""
        shares: Array = self.holds.mean(0)[self.planted]
        return shares


def truth_of(painted: Path, names: list[str]) -> Truth:
    """Read the truth of a painted cohort for the named samples."""
    shares = pl.read_parquet(painted / TRUTH, glob=False).group_by("sample_id").agg(pl.col(*STRUCTURES).mean())
    mine = pl.DataFrame({"sample_id": names}).join(shares, on="sample_id", how="left", maintain_order="left")
    if mine[STRUCTURES[0]].null_count():
        remedy = "Paint and run into one folder, as elute tissue demo does."
        raise DataError("has no truth of some samples of the run", where=painted / TRUTH, remedy=remedy)
    genes = pl.read_parquet(painted / PLANTED, glob=False).filter(pl.col("kind") == "planted")
    planted = np.array([STRUCTURES.index(name) for name in genes["structure"]])
    return Truth(held(mine.select(STRUCTURES).to_numpy()), tuple(genes["gene"]), planted)


def held(shares: Array) -> Array:
    """Say which structure each tile holds, bool [tiles, structures]; of equal shares the first, of none none."""
    most = shares.argmax(1)[:, None] == np.arange(shares.shape[1])
    return np.asarray(most & (shares > 0))


def reference_places(x: Any, k: int = K) -> Array:
    """Return the k samples [codes, k] in which each code is largest, −1 where fewer have it; ties by place."""
    dense = np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float64)
    order = np.argsort(-dense, axis=0, kind="stable")[:k]
    return np.asarray(np.where(np.take_along_axis(dense, order, 0) > 0, order, -1).T)


def precisions(places: Array, holds: Array) -> Array:
    """Return the share of each code's references that hold each structure, [codes, structures]; 0 for none."""
    there = places >= 0
    right = holds[np.maximum(places, 0)] & there[:, :, None]
    return np.asarray(right.sum(1) / np.maximum(there.sum(1), 1)[:, None])


def top_codes(head: Head, spread: Array) -> Array:
    """Return each gene's code of the largest positive coefficient × spread, −1 where none is positive."""
    effect = head.weights * spread
    best = effect.argmax(1)
    return np.where(effect[np.arange(len(best)), best] > 0, best, -1)


def recover(plan: Plan, painted: Path, *, tiles: Tiles | None = None, permutations: int = 20) -> dict[str, Any]:
    """Hold a finished run against the truth, write the tables, and sum them up."""
    case = explaining.open_case(plan)
    setting, truth = planted_setting(plan, painted)
    stream = case.stream
    x = features(plan, stream.store, stream.dictionary, known=stream.known, setting=setting).final()
    by_code = precisions(reference_places(x), truth.holds)
    final = case.heads.final.genes([case.heads.genes.index(gene) for gene in truth.genes])
    runs = permuted(setting, x, truth, by_code=by_code, penalty=final.penalty, times=permutations)
    theirs = controls.random_features(plan, setting, tiles).final()
    made = setting.fit(theirs, title="random weights")
    alive = by_code.sum(1) > 0
    table = found(plan, truth, setting.samples["sample_id"].to_list()).with_columns(
        chance=pl.Series(truth.chance),
        code_chance=pl.Series((by_code[alive][:, truth.planted] >= HIT).mean(0)),
        random_r2=pl.Series(_judge(setting, made, truth)["r2"]),
        random_precision=pl.Series(
            _of(precisions(reference_places(theirs), truth.holds), top_codes(made.final, made.spread), truth)
        ),
    )
    means = runs.group_by("gene").agg(pl.col("r2", "precision", "hit").mean().name.prefix("permuted_"))
    table = table.join(means, on="gene", maintain_order="left")
    files.write_atomically(plan.output / NAME, table.write_parquet)
    files.write_atomically(plan.output / PERMUTED, runs.write_parquet)
    return summarise(table, runs)


def planted_setting(plan: Plan, painted: Path) -> tuple[Setting, Truth]:
    """Return the run's samples and folds with the targets of the planted genes alone, and the truth of them."""
    targets = preparing.read_targets(plan)
    drawn = splitting.folds_of(
        plan.output, splitting.samples_of(opened(plan)), folds=plan.heads.folds, seed=plan.heads.seed
    )
    setting = setting_of(plan, targets, drawn)
    truth = truth_of(painted, setting.samples["sample_id"].to_list())
    if lost := [gene for gene in truth.genes if gene not in targets.names]:
        raise DataError(f"the run predicts no {lost[0]}", where=plan.output, remedy="Run with --genes all.")
    return replace(setting, y=setting.y[:, [targets.names.index(gene) for gene in truth.genes]]), truth


def found(plan: Plan, truth: Truth, names: list[str]) -> pl.DataFrame:
    """Say what the run wrote of each planted gene: scores, the top code, and how many of its references hold."""
    heads = plan.output / "heads"
    metrics = {row["gene"]: row for row in pl.read_parquet(heads / "metrics.parquet", glob=False).iter_rows(named=True)}
    first = pl.read_parquet(heads / "coefficients.parquet", glob=False)
    tops = dict(first.filter(pl.col("rank") == 1, pl.col("sign") == "+").select("gene", "code").iter_rows())
    place = {name: i for i, name in enumerate(names)}
    rows = []
    for gene, structure in zip(truth.genes, truth.planted.tolist(), strict=True):
        samples = references(plan.output, gene, tops.get(gene))
        right = [bool(truth.holds[place[name], structure]) for name in samples]
        rows.append({
            "gene": gene, "structure": STRUCTURES[structure], "code": tops.get(gene),
            **{key: metrics[gene][key] for key in ("r2", "r2_low", "r2_high")},
            "references": len(right), "precision": sum(right) / len(right) if right else 0.0,
        })  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"code": pl.Int64})


def references(folder: Path, gene: str, code: int | None) -> list[str]:
    """Read the samples of RelMax's list of a code for a gene, the most relevant first."""
    path = folder / "refs" / f"{safe_name(gene)}.parquet"
    if code is None or not path.is_file():
        return []
    asked = {"code": code, "kind": "relmax", "target": "sum", "sign": "+"}
    mine = pl.read_parquet(path, glob=False).filter(*(pl.col(key) == value for key, value in asked.items()))
    if not mine.height:
        what = f"has no references of {gene}'s code {code}"
        raise DataError(what, where=path, remedy="Explain more codes: --codes top50.")
    return mine.sort("rank")["sample_id"].head(K).to_list()


def permuted(setting: Setting, x: Any, truth: Truth, *, by_code: Array, penalty: Array, times: int) -> pl.DataFrame:
    """Give each tile the targets of another, fit anew and judge, `times` over: a row a gene and permutation."""
    tables = []
    with console.progress("permuted targets", times, unit="times") as bar:
        for time in range(times):
            order = np.random.default_rng([setting.config.seed, 17, time]).permutation(len(setting.y))
            offset = None if setting.offset is None else setting.offset[order]
            mine = replace(setting, y=setting.y[order], offset=offset)
            made = nested(x, mine.y, mine.folds, groups=mine.groups, config=mine.config, offset=offset)
            tops = top_codes(_fitted(mine, x, penalty), made.spread)
            precision = _of(by_code, tops, truth)
            together = _judge(mine, made, truth, level=1 - (1 - LEVEL) / len(truth.genes))
            tables.append(
                _judge(mine, made, truth).select(
                    "gene", "r2", "r2_low", "r2_high",
                    together_low=together["r2_low"], together_high=together["r2_high"], code=pl.Series(tops),
                    precision=pl.Series(precision), hit=pl.Series(precision >= HIT),
                    permutation=pl.lit(time, dtype=pl.Int64),
                )
            )  # fmt: skip
            bar.advance()
    return pl.concat(tables)


def _fitted(setting: Setting, x: Any, penalty: Array) -> Head:
    """Fit all samples at given penalties."""
    config = setting.config
    return Fitter(
        as_matrix(x), setting.y, loss=config.loss, model=config.model, l1_ratio=config.l1_ratio,
        offset=setting.offset, standardise=config.standardise, tolerance=FINE,
    ).fit(penalty)  # fmt: skip


def _judge(setting: Setting, made: Nested, truth: Truth, *, level: float = LEVEL) -> pl.DataFrame:
    return scores(made.predictions, truth.genes, groups=setting.groups, level=level)


def _of(by_code: Array, codes: Array, truth: Truth) -> Array:
    """The precision of each gene's code for its structure; 0 where it has none."""
    return np.where(codes >= 0, by_code[np.maximum(codes, 0), truth.planted], 0.0)


def summarise(table: pl.DataFrame, runs: pl.DataFrame) -> dict[str, Any]:
    """Count hits and intervals: of what was planted, and of what nothing was planted to."""
    times = runs["permutation"].n_unique()
    together = runs.group_by("permutation").agg((pl.col("together_low") > 0).any())["together_low"]
    means = {name: _mean(frame[of]) for name, frame, of in (
        ("permuted_precision", runs, "precision"), ("chance_precision", table, "chance"),
        ("r2", table, "r2"), ("random_r2", table, "random_r2"), ("permuted_r2", runs, "r2"),
    )}  # fmt: skip
    return {
        "genes": table.height,
        "least": HIT,
        "references": K,
        "hits": int((table["precision"] >= HIT).sum()),
        "random_hits": int((table["random_precision"] >= HIT).sum()),
        "permutations": times,
        "permuted_hits": round(float(runs["hit"].sum() / times), 4),
        "chance_hits": round(float(table["code_chance"].sum()), 4),
        "permuted_above_0": int((runs["r2_low"] > 0).sum()),
        "permuted_below_0": int((runs["r2_high"] < 0).sum()),
        "permuted_above_0_together": int(together.sum()),
        **means,
        "table": table.to_dicts(),
    }


def _mean(column: pl.Series) -> float:
    return round(float(column.to_numpy().mean()), 6)
