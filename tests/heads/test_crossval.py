"""Nested cross-validation against the same thing written out with scikit-learn, and against leaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse, stats
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from tests.heads.made import Made, made

from elute.base.errors import ConfigError, DataError, GuardError
from elute.heads.crossval import Nested, coefficient_table, group_folds, nested
from elute.heads.penalties import candidates
from elute.heads.settings import HeadConfig

CONFIG = HeadConfig(loss="mse", model="ridge", folds=4, inner_folds=3, penalties=(10.0, 1.0, 0.1, 0.01))


def run(data: Made, config: HeadConfig = CONFIG, **more: Any) -> Nested:
    folds = group_folds(data.groups, folds=config.folds, seed=0)
    given = {"groups": data.groups, "config": config, "offset": data.off(config.loss), **more}
    return nested(data.x, data.y(config.loss), folds, **given)


def test_folds_keep_groups_and_spread_labels() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20, 500)
    kind = groups % 2
    folds = group_folds(groups, kind, folds=5, seed=3)
    assert sorted(set(folds.tolist())) == [0, 1, 2, 3, 4]
    assert all(len(set(folds[groups == g])) == 1 for g in range(20))
    shares = [kind[folds == f].mean() for f in range(5)]
    assert max(shares) - min(shares) < 0.1
    assert folds.tolist() == group_folds(groups, kind, folds=5, seed=3).tolist()


def test_fewer_patients_than_folds_are_refused_with_a_remedy() -> None:
    with pytest.raises(DataError, match=r"3 groups cannot fill 5 folds.*or fewer folds"):
        group_folds(["a", "b", "c", "c"], folds=5, seed=0)


def by_hand(data: Made) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and penalties, a gene and fold at a time."""
    folds = group_folds(data.groups, folds=4, seed=0)
    mean, chosen = np.zeros_like(data.log), np.zeros((4, 2))
    for f in range(4):
        train = np.flatnonzero(folds != f)
        inner = group_folds(data.groups[train], folds=3, seed=0)
        for g in range(2):
            losses = []
            for lam in (10.0, 1.0, 0.1, 0.01):
                total = 0.0
                for i in range(3):
                    a, b = train[inner != i], train[inner == i]
                    scaler = StandardScaler().fit(data.x[a])
                    fitted = Ridge(alpha=lam * len(a)).fit(scaler.transform(data.x[a]), data.log[a, g])
                    total += float(((fitted.predict(scaler.transform(data.x[b])) - data.log[b, g]) ** 2).sum())
                losses.append(total)
            chosen[f, g] = (10.0, 1.0, 0.1, 0.01)[int(np.argmin(losses))]
            scaler = StandardScaler().fit(data.x[train])
            fitted = Ridge(alpha=chosen[f, g] * len(train)).fit(scaler.transform(data.x[train]), data.log[train, g])
            mean[folds == f, g] = fitted.predict(scaler.transform(data.x[folds == f]))
    return mean, chosen


def test_it_is_what_one_writes_out_by_hand() -> None:
    data = made(effect=0.05)
    mean, chosen = by_hand(data)
    assert len(np.unique(chosen)) > 1  # else the choice is not tried
    found = run(data)
    np.testing.assert_array_equal(found.penalties, chosen)
    np.testing.assert_allclose(found.predictions.mean, mean, atol=1e-6)
    np.testing.assert_array_equal(found.final.penalty, np.sort(chosen, axis=0)[2])
    for f in range(4):
        train = found.folds != f
        np.testing.assert_allclose(
            found.predictions.null_mean[~train], np.tile(data.log[train].mean(0), (sum(~train), 1))
        )


@pytest.mark.parametrize("loss", ["mse", "poisson", "nb"])
@pytest.mark.parametrize("model", ["linear", "ridge", "elastic_net"])
def test_no_held_out_row_is_looked_at(loss: Any, model: Any) -> None:
    """A fold's head, its penalty and what it predicts do not change with the targets and codes of that fold."""
    data = made(120, 8, effect=0.2)
    config = HeadConfig(loss=loss, model=model, folds=3, inner_folds=2)
    before = run(data, config)
    away = before.folds == 1
    other = made(120, 8, effect=0.2)
    other.x[away] = other.x[away] * 3 + 1
    other.y(loss)[away] = other.y(loss)[away] * 2 + 5
    after = run(other, config)
    np.testing.assert_array_equal(before.heads[1].weights, after.heads[1].weights)
    np.testing.assert_array_equal(before.penalties[1], after.penalties[1])
    assert not np.array_equal(before.heads[0].weights, after.heads[0].weights)


def test_a_patient_in_two_folds_is_a_leak() -> None:
    data = made()
    folds = np.arange(200) % 4
    with pytest.raises(GuardError, match="group 0 lies in folds 0 and 1: a patient would be fitted and predicted"):
        nested(data.x, data.log, folds, groups=data.groups, config=CONFIG)
    with pytest.raises(DataError, match="there is one fold only"):
        nested(data.x, data.log, np.zeros(200, dtype=int), groups=data.groups, config=CONFIG)
    with pytest.raises(DataError, match="no whole number a row"):
        nested(data.x, data.log, np.zeros(200), groups=data.groups, config=CONFIG)


def test_two_patients_leave_none_to_choose_by() -> None:
    data = made(patients=2)
    two = HeadConfig(loss="mse", model="ridge", folds=2)
    with pytest.raises(DataError, match=r"all of one patient or site.*Give one penalty"):
        run(data, two)
    one = run(data, two.model_copy(update={"penalties": (0.1,)}))
    assert one.penalties.tolist() == [[0.1, 0.1], [0.1, 0.1]]


@pytest.mark.parametrize("loss", ["mse", "nb"])
def test_genes_together_or_one_after_another_are_the_same(loss: Any) -> None:
    data = made(150)
    config = HeadConfig(loss=loss, model="ridge", folds=3)
    together = run(data, config)
    apart = run(data, config.model_copy(update={"multi_output": False}))
    np.testing.assert_array_equal(together.penalties, apart.penalties)
    np.testing.assert_allclose(together.final.weights, apart.final.weights, atol=1e-4)
    np.testing.assert_allclose(together.predictions.mean, apart.predictions.mean, rtol=1e-3)


def test_prepared_features_are_those_of_the_training_rows() -> None:
    data = made()
    asked: list[tuple[int, ...]] = []

    def prepare(rows: np.ndarray) -> Any:
        asked.append(tuple(rows.tolist()))
        return sparse.csr_array(data.x * (1 + len(rows)))

    folds = group_folds(data.groups, folds=4, seed=0)
    found = nested(None, data.log, folds, groups=data.groups, config=CONFIG, prepare=prepare)
    plain = run(data)
    np.testing.assert_allclose(found.predictions.mean, plain.predictions.mean, atol=1e-8)  # scale is standardised away
    sizes = {len(rows) for rows in asked}
    assert 200 in sizes
    for f in range(4):
        held = set(np.flatnonzero(folds == f).tolist())
        assert tuple(np.flatnonzero(folds != f).tolist()) in asked
        assert any(not held & set(rows) for rows in asked)
    with pytest.raises(ConfigError, match="Give one of both"):
        nested(data.x, data.log, folds, groups=data.groups, config=CONFIG, prepare=prepare)


def test_stability_and_the_table_of_coefficients() -> None:
    found = run(made(effect=0.5), CONFIG.model_copy(update={"penalties": (0.01,)}))
    weights = np.stack([head.weights for head in found.heads])
    np.testing.assert_allclose(found.stability.mean, weights.mean(0))
    np.testing.assert_allclose(found.stability.error, np.sqrt(3 / 4 * ((weights - weights.mean(0)) ** 2).sum(0)))
    same = (np.sign(weights) == np.sign(found.final.weights)).mean(0) * (found.final.weights != 0)
    np.testing.assert_allclose(found.stability.share, same)
    table = coefficient_table(found, ["one", "two"], top=3)
    assert table.columns == ["gene", "code", "coefficient", "low", "high", "stability", "rank", "sign"]
    for g, gene in enumerate(("one", "two")):
        effect = found.final.weights[g] * found.spread
        best = table.filter((pl.col("gene") == gene) & (pl.col("sign") == "+") & (pl.col("rank") == 1)).row(
            0, named=True
        )
        assert best["code"] == int(effect.argmax())
        half = stats.t.ppf(0.975, 3) * found.stability.error[g, best["code"]]
        assert best["high"] - best["coefficient"] == pytest.approx(half)
        worst = table.filter((pl.col("gene") == gene) & (pl.col("sign") == "-") & (pl.col("rank") == 1)).row(
            0, named=True
        )
        assert worst["code"] == int(effect.argmin())
    assert (table.filter(pl.col("sign") == "+")["coefficient"] > 0).all()
    assert table["rank"].max() == 3
    assert coefficient_table(found, ["one", "two"], top=50).filter(pl.col("code").is_in([3, 5])).is_empty()


def test_candidates_run_from_nothing_to_nearly_everything() -> None:
    from elute.heads.fitting import Fitter

    data = made()
    for loss in ("mse", "poisson", "nb"):
        fitter = Fitter(data.x, data.y(loss), loss=loss, model="elastic_net", offset=data.off(loss))  # type: ignore[arg-type]
        path = candidates(fitter, HeadConfig(loss=loss, model="elastic_net"))  # type: ignore[arg-type]
        assert path.shape == (10, 2)
        assert (np.diff(path, axis=0) < 0).all()
        assert not fitter.fit(path[0]).weights.any()
        assert fitter.fit(path[1]).weights.any(axis=1).all()
    assert candidates(fitter, HeadConfig(model="linear")).tolist() == [[0, 0]]
    given = HeadConfig(model="ridge", penalties=(0.1, 10.0))
    assert candidates(fitter, given).tolist() == [[10, 10], [0.1, 0.1]]
