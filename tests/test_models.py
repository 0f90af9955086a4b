"""Models of few donors against statsmodels, scipy and their definitions; and their calibration."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg, stats
from scipy.optimize import brentq
from statsmodels.stats.meta_analysis import combine_effects

from senoscore import models

Floats = NDArray[np.float64]


def two_groups(n_low: int, n_high: int) -> tuple[Floats, Floats]:
    group = np.r_[np.zeros(n_low), np.ones(n_high)]
    return np.column_stack([np.ones(len(group)), group]), group


def every(n: int) -> NDArray[np.int64]:
    return np.arange(n, dtype=np.int64)


def naive_cr2(
    y: Floats, weights: Floats, design: Floats, k: int, clusters: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Estimate, standard error and degrees of freedom, written out with full matrices."""
    root = np.diag(np.sqrt(weights))
    x, v = root @ design, root @ y
    bread = np.linalg.inv(x.T @ x)
    m = np.eye(len(y)) - x @ bread @ x.T
    e = m @ v
    form = np.zeros((len(y), len(y)))
    variance = 0.0
    for g in np.unique(clusters):
        at = np.flatnonzero(clusters == g)
        adjust = linalg.pinvh(linalg.sqrtm(m[np.ix_(at, at)]).real, rtol=1e-6)
        a = adjust @ x[at] @ bread[:, k]
        variance += float(a @ e[at]) ** 2
        own = m[:, at] @ a
        form += np.outer(own, own)
    eigenvalues = np.linalg.eigvalsh(form)
    return (
        float((bread @ x.T @ v)[k]),
        float(np.sqrt(variance)),
        float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()),
    )


@pytest.mark.parametrize("seed", range(5))
def test_weighted_fit_is_statsmodels_wls_with_hc2(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(8, 30))
    design = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    y, weights = rng.normal(size=n), rng.uniform(0.2, 3, n)
    expected = sm.WLS(y, design, weights).fit(cov_type="HC2")
    for k in range(4):
        fit = models.weighted_fit(y, weights, design, k, every(n))
        assert fit.effect == pytest.approx(expected.params[k], rel=1e-9)
        assert fit.se == pytest.approx(expected.bse[k], rel=1e-9)


@pytest.mark.parametrize("pairs", [False, True])
def test_many_measures_at_once_are_each_alone(pairs: bool) -> None:
    """The same bits as one by one; weights by statsmodels' variance between donors, fit by HC2."""
    rng = np.random.default_rng(7)
    n, many = 16, 9
    clusters = np.repeat(every(n // 2), 2) if pairs else every(n)
    design = np.column_stack([np.ones(n), np.tile([0.0, 1.0], n // 2), rng.normal(size=n)])
    y = rng.normal(size=(many, n)) * 10.0 ** rng.integers(-3, 3, (many, 1))
    sampling = rng.uniform(0, 1, (many, n)) ** 2 * 10.0 ** rng.integers(-6, 3, (many, 1))
    y[1], sampling[2], y[3] = 0.5, 0.0, 0.0
    sampling[3] = 0.0
    fits = models.fits_of_means(y, sampling, design, 1, clusters)
    weights = models.donor_weights(y, sampling, design)
    for k in range(many):
        alone = models.fit_means(y[k], sampling[k], design, 1, clusters)
        np.testing.assert_array_equal(fits[k], alone)
        np.testing.assert_array_equal(weights[k], models.donor_weights(y[k], sampling[k], design))
        if k in (1, 3):
            assert np.isnan(fits[k].se)
            continue
        # the variance between donors solves its equation, or is at its floor
        between, floor = 1 / weights[k] - sampling[k], np.median(sampling[k])
        assert between == pytest.approx(between[0], rel=1e-6)
        residual = sm.WLS(y[k], design, weights[k]).fit().resid
        excess = float((weights[k] * residual**2).sum()) - (n - 3)
        assert excess == pytest.approx(0, abs=1e-7) or (
            between[0] == pytest.approx(floor) and excess < 0
        )
        expected = naive_cr2(y[k], weights[k], design, 1, clusters)
        assert tuple(fits[k]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_and_degrees_of_freedom_are_as_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = np.sort(rng.integers(0, 6, 20))
    _, clusters = np.unique(clusters, return_inverse=True)
    design = np.column_stack([np.ones(20), rng.normal(size=20), clusters > 2]).astype(float)
    y, weights = rng.normal(size=20), rng.uniform(0.2, 3, 20)
    for k in range(3):
        fit = models.weighted_fit(y, weights, design, k, clusters.astype(np.int64))
        expected = naive_cr2(y, weights, design, k, clusters)
        assert (fit.effect, fit.se, fit.df) == pytest.approx(expected, rel=1e-6)


def test_two_equal_groups_are_a_t_test_and_unequal_ones_have_welchs_error() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(size=6), rng.normal(size=6) + 1
    design, _ = two_groups(6, 6)
    fit = models.weighted_fit(np.r_[low, high], np.ones(12), design, 1, every(12))
    expected = stats.ttest_ind(high, low)
    assert fit.pvalue == pytest.approx(expected.pvalue, rel=1e-9)
    assert fit.df == pytest.approx(10)
    interval = expected.confidence_interval(0.9)
    assert fit.interval(0.9) == pytest.approx((interval.low, interval.high), rel=1e-9)
    few, many = rng.normal(size=4), rng.normal(size=9)
    design, _ = two_groups(4, 9)
    fit = models.weighted_fit(np.r_[few, many], np.ones(13), design, 1, every(13))
    welch = stats.ttest_ind(many, few, equal_var=False)
    assert fit.effect / fit.se == pytest.approx(welch.statistic, rel=1e-9)


def test_pairs_are_a_paired_t_test_whether_by_fixed_effects_or_by_clusters() -> None:
    rng = np.random.default_rng(1)
    n = 7
    donor = np.repeat(np.arange(n), 2)
    high = np.tile([0.0, 1.0], n)
    y = rng.normal(size=n)[donor] * 3 + rng.normal(size=2 * n) + 0.5 * high
    expected = stats.ttest_rel(y[1::2], y[::2])
    fixed = np.column_stack([(donor[:, None] == np.arange(n)).astype(float), high])
    plain = np.column_stack([np.ones(2 * n), high])
    for design in (fixed, plain):
        fit = models.weighted_fit(
            y, np.ones(2 * n), design, design.shape[1] - 1, donor.astype(np.int64)
        )
        assert fit.pvalue == pytest.approx(expected.pvalue, rel=1e-8)
        assert fit.df == pytest.approx(n - 1)


def test_intercept_of_equal_clusters_is_a_t_test_of_their_means() -> None:
    rng = np.random.default_rng(2)
    clusters = np.repeat(every(6), 4)
    y = rng.normal(size=6)[clusters] + rng.normal(size=24) + 1
    fit = models.weighted_fit(y, np.ones(24), np.ones((24, 1)), 0, clusters)
    expected = stats.ttest_1samp(y.reshape(6, 4).mean(axis=1), 0)
    assert fit.pvalue == pytest.approx(expected.pvalue, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.floats(0.01, 100))
def test_scale_shift_and_order_of_donors_do_not_matter(
    seed: int, shift: float, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    n = 11
    design, _ = two_groups(5, 6)
    y, sampling = rng.normal(size=n), rng.uniform(0.01, 1, n)
    one = models.fit_means(y, sampling, design, 1, every(n))
    two = models.fit_means((y + shift) * scale, sampling * scale**2, design, 1, every(n))
    assert two.effect == pytest.approx(one.effect * scale, rel=1e-4, abs=1e-6 * scale)
    assert two.pvalue == pytest.approx(one.pvalue, rel=1e-3)
    order = rng.permutation(n)
    three = models.fit_means(y[order], sampling[order], design[order], 1, every(n))
    assert three.pvalue == pytest.approx(one.pvalue, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_variance_between_donors_is_statsmodels_paule_mandel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sampling = rng.uniform(0.01, 0.2, 12)
    y = rng.normal(size=12) * 0.4 + rng.normal(size=12) * np.sqrt(sampling)
    # statsmodels stops after 50 rounds, near enough
    expected = combine_effects(y, sampling, method_re="iterated").tau2
    found = models.between_variance(y, sampling, np.ones((12, 1)))
    assert found == pytest.approx(max(expected, 0), rel=1e-3, abs=1e-6)


def test_no_donor_weighs_more_than_twice_the_median_donor() -> None:
    sampling = np.r_[1e-9, np.full(5, 0.1), 3.0]
    y = np.zeros(7)
    y[0] = 0.01
    weights = models.donor_weights(y, sampling, np.ones((7, 1)))
    assert weights.max() == pytest.approx(2 * np.median(weights), rel=1e-6)
    assert weights[-1] < np.median(weights) / 10
    assert (models.donor_weights(y, np.zeros(7), np.ones((7, 1))) > 0).all()
    assert (models.donor_weights(np.zeros(7), np.zeros(7), np.ones((7, 1))) == 1).all()


def test_nothing_left_to_estimate_from_gives_no_test() -> None:
    design, _ = two_groups(3, 3)
    flat = models.fit_means(np.ones(6), np.ones(6), design, 1, every(6))
    assert flat.effect == pytest.approx(0)
    assert np.isnan(flat.pvalue)
    assert np.isnan(flat.interval(0.95)).all()
    full = models.weighted_fit(np.arange(2.0), np.ones(2), np.eye(2), 0, every(2))
    assert np.isnan(full.se)


def test_columns_that_say_nothing_new_are_found_from_the_left() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9))
    design = np.column_stack([np.ones(9), a, 1e6 * (a + 1), b, a + b, np.zeros(9)])
    assert models.independent_columns(design).tolist() == [0, 1, 3]
    assert models.rank(design) == 3
    assert models.rank(np.zeros((4, 0))) == 0


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_equal_donors_are_statsmodels_binomial_glm(seed: int) -> None:
    """With as many cells in every donor the weights are alike and the estimate is the plain one."""
    rng = np.random.default_rng(seed)
    design, group = two_groups(5, 7)
    design = np.column_stack([design, rng.normal(size=12)])
    n = np.full(12, 400.0)
    hits = rng.binomial(400, 1 / (1 + np.exp(2 - group + rng.normal(size=12) * 0.3))).astype(float)
    pseudo, overall = 3 / 12, hits.sum() / n.sum()
    k, m = hits + pseudo * overall, n + pseudo
    expected = sm.GLM(np.column_stack([k, m - k]), design, sm.families.Binomial()).fit()
    for at in range(3):
        fit = models.fit_shares(hits, n, design, at, every(12))
        assert fit.effect == pytest.approx(expected.params[at], rel=1e-6)
        # never narrower than counting alone allows
        assert fit.se >= expected.bse[at] * 0.99


def test_a_donor_of_many_cells_does_not_decide_a_share() -> None:
    design, _ = two_groups(4, 4)
    n = np.asarray([200.0] * 7 + [200_000.0])
    hits = np.asarray([10, 12, 9, 11, 10, 11, 9, 60_000], float)
    fit = models.fit_shares(hits, n, design, 1, every(8))
    pooled = np.log(60_030 / 140_570) - np.log(42 / 758)
    assert fit.effect < 0.75 * pooled
    assert fit.pvalue > 0.2


def test_an_empty_group_has_a_finite_odds_ratio() -> None:
    design, _ = two_groups(4, 4)
    hits = np.asarray([0, 0, 0, 0, 20, 25, 30, 22.0])
    fit = models.fit_shares(hits, np.full(8, 300.0), design, 1, every(8))
    assert 3 < fit.effect < 8
    assert np.isfinite(fit.se)
    nothing = models.fit_shares(np.zeros(8), np.full(8, 300.0), design, 1, every(8))
    assert np.isnan(nothing.effect)


def test_a_data_set_without_a_called_cell_is_no_evidence() -> None:
    """Its odds are zero whatever the condition; steps of the fit once ran away to 10^12 there."""
    rng = np.random.default_rng(0)
    empty = np.r_[np.zeros(10), np.ones(6)]
    group = np.tile([0.0, 1.0], 8)
    design = np.column_stack([np.ones(16), empty, group])
    n = np.r_[rng.integers(20, 60, 10), rng.integers(500, 1500, 6)].astype(float)
    hits = np.where(empty == 1, 0, rng.binomial(n.astype(int), 0.2)).astype(float)
    fit = models.fit_shares(hits, n, design, 2, every(16))
    alone = models.fit_shares(hits[:10], n[:10], design[:10, [0, 2]], 1, every(10))
    assert fit.effect == pytest.approx(alone.effect, abs=0.1)
    assert fit.se == pytest.approx(alone.se, rel=0.25)
    assert fit.pvalue > 0.05


# --------------------------------------------------------------------------------------------
# calibration


def simulated(
    rng: np.random.Generator, n_low: int, n_high: int, *, ratio: float = 1.0, more: float = 1.0
) -> tuple[Floats, Floats, Floats]:
    """Donor means without an effect: lognormal cell numbers, groups that may vary differently."""
    design, group = two_groups(n_low, n_high)
    n = np.maximum(10, rng.lognormal(np.log(80), 1.2, len(group)) * np.where(group == 1, more, 1))
    spread = 0.2 * np.where(group == 1, 1, ratio)
    y = rng.normal(size=len(group)) * spread + rng.normal(size=len(group)) / np.sqrt(n)
    return y, 1 / n, design


@pytest.mark.parametrize(
    ("n_low", "n_high", "options"),
    [
        (3, 3, {}),
        (6, 6, {}),
        (6, 6, {"more": 5.0}),
        (5, 12, {"ratio": 2.0}),
        (20, 20, {}),
    ],
)
def test_false_positive_rate_of_means(n_low: int, n_high: int, options: dict[str, float]) -> None:
    rng = np.random.default_rng(10 * n_low + n_high)
    p = []
    for _ in range(3000):
        y, sampling, design = simulated(rng, n_low, n_high, **options)
        p.append(models.fit_means(y, sampling, design, 1, every(len(y))).pvalue)
    assert 0.03 <= np.mean(np.asarray(p) < 0.05) <= 0.07


def test_hc3_is_why_we_use_cr2() -> None:
    """HC3 with n - p degrees of freedom is too wide for 3 v 3 and too narrow for 3 v 12."""

    def rate(n_low: int, n_high: int, ratio: float) -> tuple[float, float]:
        rng = np.random.default_rng(0)
        hc3, ours = [], []
        for _ in range(1200):
            y, sampling, design = simulated(rng, n_low, n_high, ratio=ratio)
            hat = design @ np.linalg.inv(design.T @ design)
            left = 1 - (hat * design).sum(axis=1)
            residual = y - hat @ (design.T @ y)
            se = np.sqrt(((hat[:, 1] * residual / left) ** 2).sum())
            hc3.append(2 * stats.t.sf(abs(hat[:, 1] @ y) / se, len(y) - 2))
            ours.append(models.fit_means(y, sampling, design, 1, every(len(y))).pvalue)
        return float(np.mean(np.asarray(hc3) < 0.05)), float(np.mean(np.asarray(ours) < 0.05))

    small, ours_small = rate(3, 3, 1.0)
    uneven, ours_uneven = rate(3, 12, 4.0)
    assert small < 0.035
    assert uneven > 0.085
    assert 0.03 <= ours_small <= 0.065
    assert 0.04 <= ours_uneven <= 0.085


@pytest.mark.parametrize(
    ("n_low", "n_high", "share", "typical", "more", "low", "high"),
    [
        (6, 6, 0.05, 300, 1.0, 0.03, 0.08),
        (6, 6, 0.05, 200, 5.0, 0.03, 0.08),
        (4, 12, 0.3, 300, 1.0, 0.03, 0.08),
        # rare calls: careful rather than wrong
        (6, 6, 0.01, 200, 1.0, 0.0, 0.06),
        (3, 3, 0.05, 200, 1.0, 0.0, 0.06),
    ],
)
def test_false_positive_rate_of_shares(
    n_low: int, n_high: int, share: float, typical: int, more: float, low: float, high: float
) -> None:
    rng = np.random.default_rng(100 * n_low + n_high)
    design, group = two_groups(n_low, n_high)
    p = []
    for _ in range(1500):
        n = np.maximum(10, rng.lognormal(np.log(typical), 1, len(group)))
        n = np.rint(n * np.where(group == 1, more, 1))
        odds = np.log(share / (1 - share)) + 0.7 * rng.normal(size=len(group))
        hits = rng.binomial(n.astype(int), 1 / (1 + np.exp(-odds))).astype(float)
        p.append(models.fit_shares(hits, n, design, 1, every(len(group))).pvalue)
    assert low <= np.mean(np.asarray(p) < 0.05) <= high


def test_empirical_logits_would_call_a_difference_in_cell_numbers_a_difference_in_shares() -> None:
    """The usual log((k + ½) / (n - k + ½)) falls with n while k is 0; a binomial model does not."""
    rng = np.random.default_rng(3)
    design, group = two_groups(6, 6)
    logit, ours = [], []
    for _ in range(300):
        n = np.rint(200 * np.where(group == 1, 10, 1) * rng.lognormal(0, 0.5, 12))
        hits = rng.binomial(n.astype(int), 0.004).astype(float)
        logit.append(
            stats.ttest_ind(*(np.log((hits + 0.5) / (n - hits + 0.5))[group == g] for g in (0, 1)))
        )
        ours.append(models.fit_shares(hits, n, design, 1, every(12)).pvalue)
    assert np.mean([t.pvalue < 0.05 for t in logit]) > 0.15
    assert np.nanmean(np.asarray(ours) < 0.05) < 0.07


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10_000), st.integers(1, 28))
def test_the_overdispersion_is_scipys_root(n_donors: int, seed: int, freedom: int) -> None:
    rng = np.random.default_rng(seed)
    square = rng.chisquare(1, n_donors) * rng.choice([0.3, 2.0, 40.0])
    n = rng.integers(1, rng.choice([2, 50, 5000]), n_donors).astype(float)

    def excess(rho: float) -> float:
        return float((square / (1 + (n - 1) * rho)).sum()) - freedom

    found = models._correlation(square, n, freedom)
    if excess(0.0) <= 0:
        assert found == 0
    elif excess(1.0) >= 0:
        assert found == 1
    else:
        assert found == pytest.approx(brentq(excess, 0, 1, xtol=1e-14, rtol=1e-10), rel=1e-8)
