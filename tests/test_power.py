"""Power: moments against drawn counts, and what more depth or a stricter share does to it."""

from __future__ import annotations

import numpy as np
import pytest

from senoscore import keys, power
from senoscore.kernels.passes import BINS_PER_Z, COUNTS, N_BINS, Z_MIN
from senoscore.null import VotingGenes


@pytest.mark.parametrize("total", [500.0, 2000.0, 20000.0])
def test_moments_of_logged_counts_are_those_of_drawn_ones(total: float) -> None:
    rates = np.array([0.0, 0.2, 2.0, 10.0])
    drawn = np.random.default_rng(0).poisson(rates * total / 1e4, (200_000, 4))
    logged = np.log1p(drawn * 1e4 / total)
    mean, variance = power.log1p_moments(rates, total)
    np.testing.assert_allclose(mean, logged.mean(0), atol=0.01)
    np.testing.assert_allclose(variance, logged.var(0), atol=0.02)


def able(total: float, share: float, n_genes: int = 6) -> bool:
    """One lineage and stratum, one signature of genes that are off, a standard normal null."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(400, 1))
    edges = Z_MIN + np.arange(N_BINS + 1) / BINS_PER_Z
    histogram = np.histogram(rng.normal(size=200_000), edges)[0].reshape(1, 1, 1, -1)
    signature = VotingGenes("s", np.arange(n_genes), np.ones(n_genes), ("g",) * n_genes)
    found = power.powered(
        [signature], score=z * 2.0, z=z, centres=np.zeros((1, 1, 1)),
        histogram=histogram.astype(np.int64), codes=np.zeros(400, np.int64),
        strata=np.zeros(400, np.int64), totals=np.full(400, total),
        sums=np.zeros((1, n_genes), np.int64), n_cells=np.array([400]), kind=COUNTS, level=0.05,
        on_cp10k=2.0, share=share,
    )  # fmt: skip
    return bool(found[0, 0, 0])


def test_a_larger_share_needs_a_larger_programme() -> None:
    needed = [
        next(n for n in range(1, 60) if able(2000.0, share, n)) for share in (0.2, 0.5, 0.8, 0.95)
    ]
    assert needed == sorted(needed)
    assert needed[0] < needed[1] < needed[2]


def test_the_share_is_that_of_cells_that_reach_the_critical_z() -> None:
    """Against drawn cells that carry the programme."""
    rng = np.random.default_rng(2)
    for n in range(1, 12):
        drawn = np.log1p(rng.poisson(0.4, (20_000, n)) * 5.0).sum(1) / 2.0
        reached = float((drawn >= 1.645).mean())
        if abs(reached - 0.5) > 0.1:  # the normal approximation
            assert able(2000.0, 0.5, n) == (reached > 0.5)


def test_strata_well_below_the_median_are_told_apart() -> None:
    """Two strata of one lineage, and a second lineage that is shallow as a whole."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(400, 1))
    edges = Z_MIN + np.arange(N_BINS + 1) / BINS_PER_Z
    null = np.histogram(rng.normal(size=200_000), edges)[0]
    codes = np.repeat([0, 0, 1], [100, 200, 100])
    strata = np.repeat([0, 1, 0], [100, 200, 100])
    found = power.powered(
        [VotingGenes("s", np.arange(20), np.ones(20), ("g",) * 20)], score=z * 2.0, z=z,
        centres=np.zeros((2, 1, 1)), histogram=np.broadcast_to(null, (2, 1, 2, N_BINS)).copy(),
        codes=codes, strata=strata, totals=np.repeat([2000.0, 4000.0, 2000.0], [100, 200, 100]),
        sums=np.zeros((2, 20), np.int64), n_cells=np.array([300, 100]), kind=COUNTS, level=0.05,
        on_cp10k=2.0, share=0.5, shallow=0.6,
    )  # fmt: skip
    assert found[:, :, 0].tolist() == [[keys.SHALLOW, keys.SEEN], [keys.SEEN, keys.UNSEEN]]
