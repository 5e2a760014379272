"""All nine combinations of loss and model against scikit-learn and statsmodels, and against the optimality conditions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import optimize, sparse, special
from sklearn.linear_model import ElasticNet, LinearRegression, PoissonRegressor
from sklearn.linear_model import Ridge as SklearnRidge
from tests.heads.made import Floats, Made, made, raw, standard

from elute.heads.head import Head
from elute.heads.regression import fit_head

LAM = 0.05
LOSSES = ("mse", "poisson", "nb")
MODELS = ("linear", "ridge", "elastic_net")


def statsmodels() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("statsmodels.api")


def sklearn_fit(data: Made, model: str, g: int) -> tuple[Floats, float]:
    z, _ = standard(data.x)
    fits: dict[str, Any] = {
        "linear": LinearRegression(),
        "ridge": SklearnRidge(alpha=LAM * len(z)),
        "elastic_net": ElasticNet(alpha=LAM, l1_ratio=0.5, tol=1e-10, max_iter=100_000),
    }
    fitted = fits[model].fit(z, data.log[:, g])
    return raw(fitted.coef_, fitted.intercept_, data.x)


def counts_fit(data: Made, loss: str, model: str, g: int, dispersion: float) -> tuple[Floats, float]:
    """What statsmodels finds; for a penalised negative binomial at the dispersion that is to be judged."""
    sm = statsmodels()
    z, _ = standard(data.x)
    design = sm.add_constant(z)
    y = data.y(loss)[:, g]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (loss, model) == ("nb", "linear"):
            found = sm.NegativeBinomial(y, design, offset=data.offset).fit(
                disp=0, method="bfgs", maxiter=2000, gtol=1e-8
            )
            assert found.params[-1] == pytest.approx(dispersion, abs=1e-3)
            return raw(found.params[1:-1], found.params[0], data.x)
        family = sm.families.Poisson() if loss == "poisson" else sm.families.NegativeBinomial(alpha=dispersion)
        glm = sm.GLM(y, design, family=family, offset=data.offset)
        if model == "linear":
            found = glm.fit(tol=1e-12)
        else:
            alpha = np.full(design.shape[1], LAM)
            alpha[0] = 0.0
            share = 0.5 if model == "elastic_net" else 0.0
            found = glm.fit_regularized(alpha=alpha, L1_wt=share, cnvrg_tol=1e-12, maxiter=5000)
    return raw(found.params[1:], found.params[0], data.x)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_nine_heads_are_those_of_others(loss: Any, model: Any, kind: Callable[[Floats], Any]) -> None:
    data = made()
    penalty = 0.0 if model == "linear" else LAM
    head = fit_head(kind(data.x), data.y(loss), loss=loss, model=model, penalty=penalty, offset=data.off(loss))
    assert head.states == ("fitted", "fitted")
    for g in range(2):
        if loss == "mse":
            weights, bias = sklearn_fit(data, model, g)
        else:
            alpha = 0.0 if head.dispersion is None else float(head.dispersion[g])
            weights, bias = counts_fit(data, loss, model, g, alpha)
        np.testing.assert_allclose(head.weights[g], weights, atol=1e-3, rtol=1e-3)
        assert head.bias[g] == pytest.approx(bias, abs=1e-3)
    assert (head.weights[:, [3, 5]] == 0).all()  # what never varies says nothing


def test_poisson_ridge_is_that_of_scikit_learn() -> None:
    data = made()
    z, _ = standard(data.x)
    head = fit_head(data.x, data.poisson, loss="poisson", model="ridge", penalty=LAM)
    for g in range(2):
        found = PoissonRegressor(alpha=LAM, tol=1e-10, max_iter=10_000).fit(z, data.poisson[:, g])
        weights, bias = raw(found.coef_, found.intercept_, data.x)
        np.testing.assert_allclose(head.weights[g], weights, atol=1e-4)
        assert head.bias[g] == pytest.approx(bias, abs=1e-4)


def log_likelihood(y: Floats, mean: Floats, alpha: float) -> float:
    r = 1 / alpha
    return float(
        (special.gammaln(y + r) - special.gammaln(r) - special.gammaln(y + 1)).sum()
        + (r * np.log(r / (r + mean)) + y * np.log(mean / (r + mean))).sum()
    )


def violation(head: Head, data: Made, loss: str, g: int, *, l1: float, l2: float) -> float:
    """The optimality conditions in float64, from the definition of the problem alone."""
    z, kept = standard(data.x)
    off = 0.0 if data.off(loss) is None else data.offset
    w = head.weights[g, kept] * data.x[:, kept].std(0)
    eta = head.bias[g] + data.x @ head.weights[g] + off
    mean = eta if loss == "mse" else np.exp(eta)
    slope = mean - data.y(loss)[:, g]
    if loss == "nb":
        assert head.dispersion is not None
        slope = slope / (1 + head.dispersion[g] * mean)
    gradient = z.T @ slope / len(z) + l2 * w
    off_by = np.where(w != 0, np.abs(gradient + l1 * np.sign(w)), np.maximum(np.abs(gradient) - l1, 0))
    return max(float(off_by.max()), abs(float(slope.mean())))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", ["ridge", "elastic_net"])
@pytest.mark.parametrize("shape", [(150, 40), (40, 150)])
@pytest.mark.parametrize("lam", [0.3, 0.01, 0.001])
def test_heads_are_optimal(loss: Any, model: Any, shape: tuple[int, int], lam: float) -> None:
    data = made(*shape, effect=0.15)
    head = fit_head(
        sparse.csr_array(data.x), data.y(loss), loss=loss, model=model, penalty=lam, l1_ratio=0.7, offset=data.off(loss)
    )
    l1, l2 = (0.0, lam) if model == "ridge" else (0.7 * lam, 0.3 * lam)
    for g in range(2):
        assert violation(head, data, loss, g, l1=l1, l2=l2) < 1e-6 * max(1.0, data.y(loss)[:, g].std())


@pytest.mark.parametrize("model", MODELS)
def test_the_dispersion_is_the_most_likely_one(model: Any) -> None:
    data = made(400)
    penalty = 0.0 if model == "linear" else LAM
    head = fit_head(data.x, data.nb, loss="nb", model=model, penalty=penalty, offset=data.offset)
    assert head.dispersion is not None
    mean = head.mean(data.x, data.offset)
    for g in range(2):
        y, mu = data.nb[:, g], mean[:, g]
        best = optimize.minimize_scalar(
            lambda t, y=y, mu=mu: -log_likelihood(y, mu, np.exp(t)), bounds=(-6, 3), options={"xatol": 1e-9}
        )
        assert head.dispersion[g] == pytest.approx(np.exp(best.x), rel=1e-4)


def test_counts_that_vary_less_than_poisson_have_no_dispersion() -> None:
    data = made()
    even = np.tile([2.0, 3.0, 2.0, 3.0], 50)[:, None]
    head = fit_head(data.x, even, loss="nb", model="ridge", penalty=LAM)
    plain = fit_head(data.x, even, loss="poisson", model="ridge", penalty=LAM)
    assert head.dispersion is not None
    assert head.dispersion.tolist() == [0.0]
    np.testing.assert_allclose(head.weights, plain.weights, atol=1e-8)


def test_more_codes_than_samples_give_the_smallest_least_squares() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 50)), rng.normal(size=(20, 3))
    head = fit_head(x, y, loss="mse", model="linear", standardise=False)
    found = LinearRegression().fit(x, y)
    np.testing.assert_allclose(head.weights, found.coef_, atol=1e-8)
    np.testing.assert_allclose(head.bias, found.intercept_, atol=1e-8)
    np.testing.assert_allclose(head.mean(x), y, atol=1e-8)


def test_codes_that_are_copies_share_their_weight() -> None:
    data = made()
    twice = np.concatenate([data.x, data.x[:, :1]], axis=1)
    for loss in ("mse", "poisson"):
        once = fit_head(data.x, data.y(loss), loss=loss, model="linear")  # type: ignore[arg-type]
        head = fit_head(twice, data.y(loss), loss=loss, model="linear")  # type: ignore[arg-type]
        np.testing.assert_allclose(head.weights[:, 0], head.weights[:, -1], atol=1e-5)
        np.testing.assert_allclose(head.weights[:, 0] * 2, once.weights[:, 0], atol=1e-4)


@pytest.mark.parametrize("model", ["ridge", "elastic_net"])
@pytest.mark.parametrize("loss", LOSSES)
def test_without_standardising_raw_weights_are_penalised(loss: Any, model: Any) -> None:
    data = made()
    scales = np.linspace(0.2, 3, 10)
    head = fit_head(
        data.x * scales, data.y(loss), loss=loss, model=model, penalty=LAM, offset=data.off(loss), standardise=False
    )
    x, off = data.x * scales, 0.0 if data.off(loss) is None else data.offset
    mean = head.mean(x, data.off(loss))
    for g in range(2):
        slope = mean[:, g] - data.y(loss)[:, g]
        slope = slope / (1 + head.dispersion[g] * mean[:, g]) if head.dispersion is not None else slope
        l1, l2 = (0.0, LAM) if model == "ridge" else (LAM / 2, LAM / 2)
        w = head.weights[g]
        gradient = (x - x.mean(0)).T @ slope / len(x) + l2 * w
        assert np.abs((gradient + l1 * np.sign(w))[w != 0]).max(initial=0) < 1e-5
        assert (np.abs(gradient)[w == 0] <= l1 + 1e-5).all()
    assert np.isfinite(off).all()


def test_a_penalty_a_gene_and_one_without_end() -> None:
    data = made()
    both = fit_head(data.x, data.log, loss="mse", model="ridge", penalty=[0.1, 1.0])
    for g, lam in enumerate((0.1, 1.0)):
        alone = fit_head(data.x, data.log[:, g], loss="mse", model="ridge", penalty=lam)
        np.testing.assert_allclose(both.weights[g], alone.weights[0], atol=1e-12)
    for loss in LOSSES:
        head = fit_head(data.x, data.y(loss), loss=loss, model="ridge", penalty=np.inf, offset=data.off(loss))  # type: ignore[arg-type]
        assert not head.weights.any()
        np.testing.assert_allclose(head.mean(data.x, data.off(loss)).sum(0), data.y(loss).sum(0), rtol=0.2)


def test_a_large_problem_is_solved_in_the_room_of_its_rank() -> None:
    """More rows and codes than all eigenvectors are taken of: the way by leading ones."""
    rng = np.random.default_rng(1)
    n, k = 1000, 900
    x = sparse.random(n, k, density=0.05, random_state=rng, format="csr", data_rvs=lambda m: rng.gamma(1, 1, m))
    x = sparse.csr_array(x)
    y = rng.poisson(np.exp(0.5 + x @ rng.normal(0, 0.2, (k, 2)))).astype(float)
    head = fit_head(x, y, loss="poisson", model="ridge", penalty=0.02)
    assert head.states == ("fitted", "fitted")
    full = x.toarray()
    spread = full.std(0)
    slope = head.mean(x) - y
    gradient = ((full - full.mean(0)) / spread).T @ slope / n + 0.02 * (head.weights * spread).T
    assert np.abs(gradient).max() < 1e-6 * y.std()
