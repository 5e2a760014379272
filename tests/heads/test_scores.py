"""Scores against hand-worked sums, scikit-learn and statsmodels; intervals against how often they should hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import d2_tweedie_score, r2_score
from tests.heads.made import made

from elute.base.errors import DataError
from elute.heads.calibration import calibration
from elute.heads.crossval import group_folds, nested
from elute.heads.expected import expected_log1p_cpm
from elute.heads.links import deviance, log1p_cpm, surprise
from elute.heads.predicted import Predictions, predictions
from elute.heads.scores import field_mean, r2_interval, scores
from elute.heads.settings import HeadConfig

GROUPS = np.repeat(np.arange(6), 20)


def guess(seed: int = 0, genes: int = 3) -> Predictions:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(120, genes))
    mean = 0.6 * y + 0.5 * rng.normal(size=y.shape) + 0.3
    return predictions("mse", y, GROUPS // 2, mean=mean, null_mean=np.full_like(y, 0.1))


def test_scores_by_hand() -> None:
    found = guess()
    table = scores(found, ["a", "b", "c"], groups=GROUPS, sections=np.arange(120) // 10)
    y, p = found.y[:, 1], found.mean[:, 1]
    row = table.row(1, named=True)
    assert row["r2"] == pytest.approx(1 - ((y - p) ** 2).sum() / ((y - 0.1) ** 2).sum())
    assert row["deviance_explained"] == pytest.approx(row["r2"])
    folds = [slice(40 * f, 40 * f + 40) for f in range(3)]
    assert row["pearson"] == pytest.approx(np.mean([np.corrcoef(y[f], p[f])[0, 1] for f in folds]))
    assert row["spearman"] == pytest.approx(np.mean([stats.spearmanr(y[f], p[f]).statistic for f in folds]))
    sections = [slice(10 * s, 10 * s + 10) for s in range(12)]
    assert row["pearson_within"] == pytest.approx(np.mean([np.corrcoef(y[s], p[s])[0, 1] for s in sections]))
    spread = sum(((y[s] - y[s].mean()) ** 2).sum() for s in sections)
    assert row["r2_within"] == pytest.approx(1 - ((y - p) ** 2).sum() / spread)
    line = stats.linregress(p, y)
    assert row["calibration_slope"] == pytest.approx(line.slope)
    assert row["calibration_intercept"] == pytest.approx(line.intercept)
    assert row["n"] == 120
    assert row["interval"] == "groups"
    assert table["variance_rank"].to_list() == stats.rankdata(-found.y.var(0)).tolist()
    assert table.columns[:13] == [
        "gene",
        "model",
        "r2",
        "r2_low",
        "r2_high",
        "spearman",
        "pearson",
        "deviance_explained",
        "calibration_slope",
        "calibration_intercept",
        "r2_within",
        "pearson_within",
        "variance_rank",
    ]


def test_the_interval_is_the_jackknife_over_patients() -> None:
    found = guess()
    _, low, high, by = r2_interval(found, GROUPS, level=0.9)
    for g in range(3):
        y, p = found.y[:, g], found.mean[:, g]
        r2 = [1 - ((y - p)[i != GROUPS] ** 2).sum() / ((y - 0.1)[i != GROUPS] ** 2).sum() for i in range(6)]
        error = np.sqrt(5 / 6 * ((np.array(r2) - np.mean(r2)) ** 2).sum())
        assert high[g] - low[g] == pytest.approx(2 * stats.t.ppf(0.95, 2) * error)
    assert by == "groups"
    assert r2_interval(found, GROUPS // 3, level=0.9)[3] == "samples"


def test_what_has_no_score_is_null() -> None:
    found = guess()
    flat = predictions("mse", np.zeros((120, 3)), GROUPS // 2, mean=found.null_mean, null_mean=found.null_mean)
    row = scores(flat, ["a", "b", "c"], groups=GROUPS).row(0, named=True)
    assert row["r2"] == 0
    assert row["pearson"] is None
    assert row["calibration_slope"] is None
    assert row["r2_within"] is None
    with pytest.raises(DataError, match="2 names for 3 genes"):
        scores(flat, ["a", "b"], groups=GROUPS)


def test_the_mean_over_the_most_variable_genes() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(120, 5)) * np.array([1, 5, 2, 4, 3])
    found = predictions("mse", y, GROUPS // 2, mean=y + rng.normal(size=y.shape), null_mean=np.zeros_like(y))
    table = scores(found, list("abcde"), groups=GROUPS)
    told = field_mean(table, most=2)
    assert told["genes"] == 2
    assert told["pearson"] == pytest.approx(table["pearson"].gather([1, 3]).mean())


def test_deviance_of_counts_is_that_of_others() -> None:
    sm = pytest.importorskip("statsmodels.api")
    data = made()
    mean = np.exp(data.rate)
    null = np.full_like(mean, data.poisson.mean())
    found = predictions("poisson", data.poisson, data.groups, mean=mean, null_mean=null)
    table = scores(found, ["a", "b"], groups=data.groups)
    expected = d2_tweedie_score(data.poisson[:, 0], mean[:, 0], power=1)
    level = deviance(data.poisson, null, loss="poisson")[:, 0].sum()
    own = deviance(data.poisson, np.full_like(mean, data.poisson[:, 0].mean()), loss="poisson")[:, 0].sum()
    assert table["deviance_explained"][0] == pytest.approx(1 - (1 - expected) * own / level)
    alpha = np.array([0.3, 0.7])
    ours = deviance(data.nb, mean, loss="nb", dispersion=alpha).sum(0)
    theirs = [sm.families.NegativeBinomial(alpha=a).deviance(data.nb[:, g], mean[:, g]) for g, a in enumerate(alpha)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    r = 1 / alpha
    whole = -stats.nbinom.logpmf(data.nb, r, r / (r + mean))
    gap = surprise(data.nb, mean, loss="nb", dispersion=alpha) - whole
    other = surprise(data.nb, mean * 2, loss="nb", dispersion=alpha * 3) + stats.nbinom.logpmf(
        data.nb, r / 3, r / 3 / (r / 3 + mean * 2)
    )
    np.testing.assert_allclose(gap, other, atol=1e-8)  # only what depends on y alone is left out


def test_calibration_of_counts_is_a_poisson_regression() -> None:
    sm = pytest.importorskip("statsmodels.api")
    data = made()
    eta = 0.5 * data.rate + 0.2
    found = predictions(
        "poisson",
        data.poisson,
        data.groups,
        mean=np.exp(eta + data.offset[:, None]),
        null_mean=np.ones_like(eta),
        offset=data.offset,
    )
    slope, intercept = calibration(found)
    for g in range(2):
        fit = sm.GLM(
            data.poisson[:, g], sm.add_constant(eta[:, g]), family=sm.families.Poisson(), offset=data.offset
        ).fit()
        assert [intercept[g], slope[g]] == pytest.approx(fit.params.tolist(), abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.8, 4.0])
def test_the_expected_log_is_a_sum_over_counts(alpha: float) -> None:
    mean = np.array([[0.01, 0.7, 5.0, 60.0, 190.0, 350.0, 3000.0, 40000.0]])
    library = np.array([5000.0])
    ours = expected_log1p_cpm(mean, library, np.full(8, alpha))
    y = np.arange(4_000_000.0)
    for i, mu in enumerate(mean[0]):
        last = int(mu + 60 * np.sqrt(mu + alpha * mu * mu)) + 50
        law = stats.poisson(mu) if alpha == 0 else stats.nbinom(1 / alpha, 1 / (1 + alpha * mu))
        chance = law.pmf(y[:last])
        expected = float((chance * np.log1p(y[:last] * 1e6 / 5000)).sum() / chance.sum())
        assert ours[0, i] == pytest.approx(expected, rel=2e-4), mu


def test_a_right_model_of_counts_is_not_punished_on_the_scale_of_logs() -> None:
    rng = np.random.default_rng(0)
    library = np.exp(rng.normal(7, 0.3, 4000))
    rate = np.exp(rng.normal(-7, 0.7, (4000, 1)))  # about one count a sample
    y = rng.poisson(rate * library[:, None]).astype(float)
    null = np.full_like(rate, y.sum() / library.sum()) * library[:, None]
    of = np.arange(4000) % 4
    found = predictions("poisson", y, of, mean=rate * library[:, None], null_mean=null, offset=np.log(library))
    assert r2_score(found.measured, found.predicted) > 0.1
    naive = log1p_cpm(rate * library[:, None], library)
    assert r2_score(found.measured, naive) < -0.1


def test_depth_is_no_prediction() -> None:
    """A sample's own library size would correlate with log counts per million of a rare gene."""
    rng = np.random.default_rng(0)
    library = np.exp(rng.normal(6, 0.8, 2000))
    y = rng.poisson(0.001 * library[:, None]).astype(float)
    mean = 0.001 * library[:, None]
    found = predictions("poisson", y, np.zeros(2000, dtype=int), mean=mean, null_mean=mean, offset=np.log(library))
    assert np.ptp(found.predicted) < 1e-9


def null_tables(loss: Any, model: Any, seeds: int) -> tuple[float, float, int]:
    above = below = n = 0
    for seed in range(seeds):
        data = made(160, 30, genes=20, seed=seed, patients=6)
        rows = np.random.default_rng(seed).permutation(160)
        folds = group_folds(data.groups, folds=5, seed=seed)
        config = HeadConfig(loss=loss, model=model)
        off = None if loss == "mse" else data.offset[rows]
        found = nested(data.x, data.y(loss)[rows], folds, groups=data.groups, config=config, offset=off)
        r2, low, high, _ = r2_interval(found.predictions, data.groups, level=0.95)
        assert np.median(r2) == pytest.approx(0, abs=0.02)
        above, below, n = above + int((low > 0).sum()), below + int((high < 0).sum()), n + len(r2)
    return above / n, below / n, n


@pytest.mark.parametrize(("loss", "model"), [("mse", "ridge"), ("mse", "elastic_net"), ("poisson", "ridge")])
def test_permuted_targets_are_not_predicted(loss: Any, model: Any) -> None:
    """Of 95% intervals under the null one in forty may lie above 0, and about one in twenty may miss 0."""
    above, below, n = null_tables(loss, model, 8 if loss == "mse" else 4)
    most = stats.binom.ppf(0.999, n, 0.025) / n
    assert above <= most
    assert above + below <= stats.binom.ppf(0.999, n, 0.05) / n
