"""Linear and binomial models of a few dozen donors. Pure functions on arrays.

Few donors, unequal in how many cells they gave: weights must not let one donor decide, and
intervals must hold without assuming that all donors vary alike. So

* weights are 1 / (variance between donors + the donor's own sampling variance), with a floor on
  the first: no donor weighs more than twice the median donor;
* standard errors are the bias-reduced cluster-robust ones (CR2; with one value per donor, HC2) with
  Satterthwaite degrees of freedom, which for two groups are those of a t test, for pairs of a paired
  t test. HC3 with n - p degrees of freedom is too wide for 3 against 3 donors and too narrow for 3
  against 12 that vary differently; the tests measure both.

References
----------
Bell & McCaffrey 2002, Survey Methodology 28:169; Pustejovsky & Tipton 2018, J Bus Econ Stat 36:672
(CR2 and its degrees of freedom). Paule & Mandel 1982, J Res NBS 87:377 (variance between donors).
Williams 1982, Appl Stat 31:144 (overdispersed shares). Clogg et al. 1991, Sociol Methodol 21:109
(the p pseudo-cells).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtr, stdtrit

Floats = NDArray[np.float64]

_TOLERANCE = 1e-9
_LARGEST_LOGIT = 30.0


class Fit(NamedTuple):
    """One coefficient: estimate, standard error, degrees of freedom; NaN where undetermined."""

    effect: float
    se: float
    df: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's interval at this confidence (0-1)."""
        if not np.isfinite(self.se):
            return np.nan, np.nan
        half = float(stdtrit(self.df, (1 + confidence) / 2)) * self.se
        return self.effect - half, self.effect + half

    @property
    def pvalue(self) -> float:
        """Two-sided p of no effect."""
        if not np.isfinite(self.se):
            return np.nan
        return float(2 * stdtr(self.df, -abs(self.effect) / self.se))


UNDETERMINED = Fit(np.nan, np.nan, np.nan)


def rank(design: Floats) -> int:
    """Rank of a design whose columns may differ in scale."""
    if design.size == 0:
        return 0
    size = np.sqrt((design**2).sum(axis=0))
    return int(np.linalg.matrix_rank(design / np.where(size > 0, size, 1), tol=1e-8))


def independent_columns(design: Floats) -> NDArray[np.int64]:
    """Columns, from the left, that are no combination of those before them."""
    kept: list[int] = []
    basis = np.zeros((len(design), 0))
    for j in range(design.shape[1]):
        column = design[:, j]
        size = float(np.sqrt(column @ column))
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)
        left = float(np.sqrt(rest @ rest))
        if size > 0 and left > 1e-8 * size:
            kept.append(j)
            basis = np.column_stack([basis, rest / left])
    return np.asarray(kept, np.int64)


def between_variance(y: Floats, sampling: Floats, design: Floats, *, floor: float = 0.0) -> float:
    """Variance between donors beyond that of sampling their cells (Paule & Mandel), at least `floor`.

    The t at which ``Σ (residual² / (t + sampling))`` of the weighted fit equals its degrees of
    freedom; 0 where the donors vary less than sampling alone would make them.
    """
    return float(between_variances(y[None], sampling[None], design, np.array([floor]))[0])


def between_variances(y: Floats, sampling: Floats, design: Floats, floor: Floats) -> Floats:
    """`between_variance` of many measures (measures × units) of the same donors."""
    freedom = y.shape[1] - rank(design)
    spread = np.var(y, axis=1)
    t = start = np.maximum(1e-12 * spread, floor)
    active = np.flatnonzero((spread > 0) & (freedom > 0))
    # the sum is convex and falls as t rises: Newton's steps from below never pass the root, and
    # where it is too small already, the root is not above the floor
    for _ in range(200):
        if not len(active):
            break
        root = np.sqrt(1 / (sampling[active] + t[active, None]))
        q = np.linalg.qr(design * root[:, :, None])[0]
        rest = _less_projection(y[active] * root, q)
        excess = (rest * rest).sum(axis=1) - freedom
        step = excess / ((rest * root) ** 2).sum(axis=1)
        step[excess <= 0] = 0.0
        t = t.copy()
        t[active] += step
        active = active[step > 1e-13 * t[active]]
    return np.where(t > start, t, floor)


def _less_projection(y: Floats, q: Floats) -> Floats:
    """What is left of each y (measures × units) beside its orthonormal columns q."""
    return np.asarray(y - (q @ (q.transpose(0, 2, 1) @ y[:, :, None]))[:, :, 0])


def donor_weights(y: Floats, sampling: Floats, design: Floats) -> Floats:
    """1 / (variance between donors + sampling variance), no more than twice the median donor's.

    The floor on the variance between donors is the median sampling variance: five donors are too
    few to believe that there is none, and without it the donor with most cells would decide.

    `y`, `sampling`: one measure of the donors, or measures × donors.
    """
    if y.ndim == 1:
        return np.asarray(donor_weights(y[None], sampling[None], design)[0])
    floor = np.median(sampling, axis=1)
    total = between_variances(y, sampling, design, floor)[:, None] + sampling
    # no cells vary and no donors vary
    total[~(total > 0).all(axis=1)] = 1.0
    return np.asarray(1 / total)


def weighted_fit(
    y: Floats, weights: Floats, design: Floats, coefficient: int, clusters: NDArray[np.int64]
) -> Fit:
    """Weighted least squares, one coefficient with CR2 standard error.

    With working residual ``e = (I - H) y`` of the weighted design, the estimate is ``c'y`` and its
    variance ``Σ over clusters g of (c_g' (I - H_gg)^-1/2 e_g)²``; degrees of freedom are those of
    the chi-square with the same first two moments were the weights right.

    Parameters
    ----------
    y, weights
        One value per unit (a donor, or a donor in one condition).
    design
        Units × coefficients, of full column rank.
    coefficient
        Which column.
    clusters
        Code of each unit's donor: units of one donor may be correlated in any way.

    Returns
    -------
    `Fit`; undetermined where nothing is left to estimate the variance from.
    """
    return weighted_fits(y[None], weights[None], design, coefficient, clusters)[0]


def weighted_fits(
    y: Floats, weights: Floats, design: Floats, coefficient: int, clusters: NDArray[np.int64]
) -> list[Fit]:
    """`weighted_fit` of many measures (measures × units) of the same donors."""
    root = np.sqrt(weights / weights.mean(axis=1, keepdims=True))
    q, r = np.linalg.qr(design * root[:, :, None])
    scaled = y * root
    unit = np.zeros((design.shape[1], 1))
    unit[coefficient] = 1.0
    c = (q @ np.linalg.solve(r.transpose(0, 2, 1), unit))[:, :, 0]
    residual = _less_projection(scaled, q)
    effect = (c * scaled).sum(axis=1)
    size = np.bincount(clusters)
    a = np.zeros(y.shape)
    single = size[clusters] == 1
    left = 1 - (q[:, single] ** 2).sum(axis=2)
    a[:, single] = np.where(
        left > _TOLERANCE, c[:, single] / np.sqrt(np.maximum(left, _TOLERANCE)), 0.0
    )
    for g in np.flatnonzero(size > 1):
        units = np.flatnonzero(clusters == g)
        own = q[:, units]
        values, vectors = np.linalg.eigh(np.eye(len(units)) - own @ own.transpose(0, 2, 1))
        power = np.where(values > _TOLERANCE, 1 / np.sqrt(np.maximum(values, _TOLERANCE)), 0.0)
        turned = vectors.transpose(0, 2, 1) @ c[:, units, None]
        a[:, units] = ((vectors * power[:, None, :]) @ turned)[:, :, 0]
    # (measure by measure: the same bits whatever else is fitted beside it)
    member = (clusters[:, None] == np.arange(len(size))).astype(np.float64)
    variance = (((a * residual)[:, None] @ member)[:, 0] ** 2).sum(axis=1)
    # the quadratic form's matrix, clusters × clusters: A_g' (I - H) A_h
    reach = member.T @ (a[:, :, None] * q)
    form = -reach @ reach.transpose(0, 2, 1)
    at = np.arange(len(size))
    form[:, at, at] += ((a**2)[:, None] @ member)[:, 0]
    trace = np.ascontiguousarray(form[:, at, at]).sum(axis=1)
    square = (form.reshape(len(form), -1) ** 2).sum(axis=1)
    flat = (residual**2).sum(axis=1) <= _TOLERANCE**2 * (scaled**2).sum(axis=1)
    known = (trace > _TOLERANCE * (c**2).sum(axis=1)) & ~flat & (variance > 0)
    known &= y.shape[1] > design.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        se = np.where(known, np.sqrt(variance), np.nan)
        freedom = np.where(known, trace**2 / square, np.nan)
    return [Fit(*map(float, fit)) for fit in zip(effect, se, freedom, strict=True)]


def fit_means(
    y: Floats,
    sampling: Floats,
    design: Floats,
    coefficient: int,
    clusters: NDArray[np.int64],
) -> Fit:
    """`weighted_fit` of donor means with `donor_weights`."""
    return fits_of_means(y[None], sampling[None], design, coefficient, clusters)[0]


def fits_of_means(
    y: Floats,
    sampling: Floats,
    design: Floats,
    coefficient: int,
    clusters: NDArray[np.int64],
) -> list[Fit]:
    """`fit_means` of many measures (measures × units) of the same donors."""
    weights = donor_weights(y, sampling, design)
    return weighted_fits(y, weights, design, coefficient, clusters)


def fit_shares(
    hits: Floats,
    n: Floats,
    design: Floats,
    coefficient: int,
    clusters: NDArray[np.int64],
) -> Fit:
    """Log odds ratio of called cells: binomial model whose donors vary more than counting does.

    Logistic, quasi-likelihood with Williams' variance ``p (1 - p) (1 + (n - 1) ρ) / n``: ρ by
    moments, at least 1 / median n (a donor's weight cannot grow without end with its cells). One
    pseudo-cell per coefficient, at the overall share and spread over the units, keeps an empty
    group finite. The standard error is CR2 and never below what counting alone would give.

    Parameters
    ----------
    hits, n
        Cells called, and cells, of each unit; n > 0.
    design, coefficient, clusters
        As for `weighted_fit`.

    Returns
    -------
    `Fit` on the scale of natural log odds; undetermined where no cell is called, or every one is,
    or the likelihood has no maximum.
    """
    n_units, n_columns = design.shape
    overall = float(hits.sum() / n.sum())
    if not 0 < overall < 1:
        return UNDETERMINED
    pseudo = n_columns / n_units
    k, m = hits + pseudo * overall, n + pseudo
    share = k / m
    freedom = n_units - rank(design)
    if freedom <= 0:
        return UNDETERMINED
    rho = floor = 1.0 / float(np.median(m))
    start = np.log(share / (1 - share))
    root = np.sqrt(m * share * (1 - share))
    beta = np.linalg.lstsq(design * root[:, None], start * root, rcond=None)[0]
    for _ in range(25):
        found = _logistic(share, m / (1 + (m - 1) * rho), design, beta)
        if found is None:
            return UNDETERMINED
        beta = found
        mean = expit(design @ beta)
        square = (share - mean) ** 2 / (mean * (1 - mean)) * m
        better = max(_correlation(square, m, freedom), floor)
        if abs(better - rho) < 1e-7:
            break
        rho = better
    slope = mean * (1 - mean)
    weights = m / (1 + (m - 1) * rho) * slope
    working = design @ beta + (share - mean) / slope
    fit = weighted_fit(working, weights, design, coefficient, clusters)
    bread = np.linalg.inv((design * weights[:, None]).T @ design)[coefficient]
    counting = float((((design @ bread) * weights) ** 2 / (m * slope)).sum())
    return fit._replace(se=max(fit.se, float(np.sqrt(counting))))


def _logistic(share: Floats, weights: Floats, design: Floats, beta: Floats) -> Floats | None:
    """Weighted logistic regression by Newton steps, halved until the likelihood rises.

    None where it has no maximum within odds of 1 to 10^13.
    """

    def likelihood(b: Floats) -> float:
        eta = design @ b
        return float((weights * (share * eta - np.logaddexp(0, eta))).sum())

    value = likelihood(beta)
    for _ in range(100):
        eta = design @ beta
        if float(np.abs(eta).max()) > _LARGEST_LOGIT:
            return None
        mean = expit(eta)
        root = np.sqrt(weights * mean * (1 - mean))
        gradient = weights * (share - mean) / np.maximum(root, 1e-300)
        step = np.linalg.lstsq(design * root[:, None], gradient, rcond=None)[0]
        for _ in range(40):
            new = likelihood(beta + step)
            if new >= value - 1e-12 * abs(value):
                break
            step = step / 2
        beta, value = beta + step, new
        if float(np.abs(design @ step).max()) < 1e-9:
            return np.asarray(beta)
    return None


def _correlation(square: Floats, n: Floats, freedom: int) -> float:
    """The ρ at which squared residuals over ``1 + (n - 1) ρ`` sum to the degrees of freedom."""
    rho = 0.0
    # the sum is convex and falls as ρ rises: Newton's steps from below never pass the root
    for _ in range(200):
        scale = 1 + (n - 1) * rho
        excess = float((square / scale).sum()) - freedom
        slope = float((square * (n - 1) / scale**2).sum())
        if excess <= 0:
            break
        if slope <= 0 or rho >= 1:
            return 1.0
        rho += excess / slope
        if excess / slope <= 1e-13 * rho:
            break
    return min(rho, 1.0)
