"""Could this cell have been called? Power of a signature at a cell's depth.

"Not senescent" is only worth saying of a cell in which the programme would have been seen. For each
lineage, depth stratum and signature: take the typical cell, switch the programme on (every up gene
at `on_cp10k` counts per 10,000 or its mean in the lineage, whichever is more; every down gene
off), and ask whether enough such cells would reach the z that p = `level` needs there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import poisson

from senoscore.kernels.passes import (
    BINS_PER_Z,
    COUNTS,
    FIX_X,
    N_BINS,
    TARGET_SUM,
    Z_MIN,
)
from senoscore.null import VotingGenes

_MAX_COUNT = 200


def expected_log1p(rate_cp10k: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Expected log1p(CP10k) of genes with these rates in a cell with `total` counts (Poisson).

    Examples
    --------
    >>> expected_log1p(np.array([0.0, 1.0]), 1e4).round(3).tolist()
    [0.0, 0.573]
    """
    counts = np.arange(_MAX_COUNT + 1)
    mean = np.minimum(np.asarray(rate_cp10k) * total / TARGET_SUM, _MAX_COUNT / 2)
    mass = poisson.pmf(counts[None, :], mean[:, None])
    return np.asarray(mass @ np.log1p(counts * TARGET_SUM / total))


def variance_log1p(rate_cp10k: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Variance of log1p(CP10k) of genes with these rates in a cell with `total` counts (Poisson)."""
    counts = np.arange(_MAX_COUNT + 1)
    mean = np.minimum(np.asarray(rate_cp10k) * total / TARGET_SUM, _MAX_COUNT / 2)
    mass = poisson.pmf(counts[None, :], mean[:, None])
    x = np.log1p(counts * TARGET_SUM / total)
    return np.asarray(np.maximum(mass @ x**2 - (mass @ x) ** 2, 0.0))


def critical_z(histogram: NDArray[np.int64], level: float) -> NDArray[np.float64]:
    """Smallest z whose p is at most `level`, for each histogram (last axis: bins); inf if none."""
    above = np.flip(np.cumsum(np.flip(histogram, -1), -1), -1)
    total = histogram.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        enough = (1 + above) / (1 + total) <= level
    first = np.argmax(enough, axis=-1)
    z = Z_MIN + first / BINS_PER_Z
    return np.where(enough.any(-1) & (total[..., 0] > 0), z, np.inf)


def powered(
    signatures: Sequence[VotingGenes],
    *,
    score: NDArray[np.float64],
    z: NDArray[np.float64],
    centres: NDArray[np.float64],
    histogram: NDArray[np.int64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    totals: NDArray[np.float64],
    sums: NDArray[np.int64],
    n_cells: NDArray[np.int64],
    kind: int,
    level: float,
    on_cp10k: float,
    share: float = 0.5,
) -> NDArray[np.bool_]:
    """Lineages × strata × signatures: whether the programme, switched on, would be seen.

    `level` is the p a call needs at least; `on_cp10k` the expression of a marker that is on (2 is
    about what PDCD1 or KLRG1 has in the T cells that carry it). `share` of such cells have to reach
    it: z of a cell that carries the programme varies with the Poisson noise of the genes that are on.

    Where values are logged already there are no counts to reason from; every stratum that has a
    null is then taken as powered.
    """
    n_codes, n_signatures, n_strata, bins = histogram.shape
    assert bins == N_BINS
    able = np.zeros((n_codes, n_strata, n_signatures), bool)
    critical = critical_z(histogram, level)
    for code in range(n_codes):
        for stratum in range(n_strata):
            cells = np.flatnonzero((codes == code) & (strata == stratum))
            if not len(cells):
                continue
            total = float(np.median(totals[cells]))
            for s, signature in enumerate(signatures):
                if not np.isfinite(critical[code, s, stratum]):
                    continue
                if kind != COUNTS:
                    able[code, stratum, s] = True
                    continue
                own_z, own = z[cells, s], score[cells, s]
                known = ~np.isnan(own_z)
                if not known.any():
                    continue
                raw = own_z[known] + centres[code, s, 0]
                with np.errstate(invalid="ignore", divide="ignore"):
                    sd = own[known] / raw
                sd = sd[np.isfinite(sd) & (sd > 0)]
                if not len(sd):
                    continue
                mean = sums[code, signature.positions] / 2**FIX_X / max(n_cells[code], 1)
                rate = np.maximum(on_cp10k, np.expm1(mean))
                on = expected_log1p(rate, total)
                change = np.where(signature.weights > 0, on - mean, -mean)
                unit = float(np.median(sd))
                gain = float(np.sum(signature.weights * change)) / unit
                noise = np.where(signature.weights > 0, variance_log1p(rate, total), 0.0)
                spread = float(np.sqrt(np.sum(signature.weights**2 * noise))) / unit
                reached = float(np.median(own_z[known])) + gain + float(ndtri(1 - share)) * spread
                able[code, stratum, s] = reached >= critical[code, s, stratum]
    return able
