"""Gene heads: from pooled codes to genes, by any of three losses and three models.

    fit_head    min over w, b   mean over samples of loss  +  λ (ρ ‖w‖₁ + (1 − ρ) ‖w‖² / 2)

    model         λ                      ρ
    linear        0                      -           of several solutions that of smallest ‖w‖
    ridge         `penalty`, a gene      0
    elastic_net   `penalty`, a gene      `l1_ratio`

The losses are those of links.py: half the squared error, and the negative log likelihood of Poisson and of negative
binomial counts, whose dispersion is estimated by maximum likelihood together with the coefficients. The bias is free.
With `standardise` the penalty is on w in standard deviations of the codes; the head's weights are on raw codes.

The same in other programs, if codes are standardised: scikit-learn's LinearRegression, Ridge(alpha = n λ),
ElasticNet(alpha = λ, l1_ratio), PoissonRegressor(alpha = λ); statsmodels' GLM, NegativeBinomial, and
GLM.fit_regularized(alpha = λ, L1_wt = ρ) without a penalty on the constant.

A gene whose targets are all the same (for counts: all zero) gets no weights, a gene with `state` "separated" has no
finite optimum (codes tell samples without counts apart), and `residual` says how far the optimality conditions are from
met, as a share of the slopes that a gene without codes can have.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from elute.heads.design import as_matrix
from elute.heads.fitting import Fitter
from elute.heads.head import FINE, Head
from elute.heads.settings import Loss, Model

__all__ = ["Head", "fit_head"]


def fit_head(
    x: Any,
    y: ArrayLike,
    *,
    loss: Loss,
    model: Model,
    penalty: float | ArrayLike = 0.0,
    l1_ratio: float = 0.5,
    offset: ArrayLike | None = None,
    standardise: bool = True,
) -> Head:
    """Fit a head to codes x [n, K], csr_array or ndarray, and targets y [n, G] or [n] (see the top of this file).

    `penalty` is one number or one a gene. `offset` [n] is the log of the library size, for counts alone; without one
    samples are taken to be of equal depth.
    """
    fitter = Fitter(
        as_matrix(x),
        y,
        loss=loss,
        model=model,
        l1_ratio=l1_ratio,
        offset=offset,
        standardise=standardise,
        tolerance=FINE,
    )
    return fitter.fit(penalty)
