"""Could this cell have been called? Power of a signature at a cell's depth.

"Not senescent" is only worth saying of a cell in which the programme would have been seen. For each
lineage, depth stratum and signature: take the typical cell, switch the programme on (every up gene
at `on_cp10k` counts per 10,000 or its mean in the lineage, whichever is more; every down gene
off), and ask whether enough such cells would reach the z that p = `level` needs there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri, xlogy

from senoscore.kernels.passes import (
    BINS_PER_Z,
    COUNTS,
    FIX_X,
    N_BINS,
    TARGET_SUM,
    Z_MIN,
)
from senoscore.kernels.tails import critical_bins
from senoscore.keys import SEEN, SHALLOW, UNSEEN
from senoscore.null import VotingGenes, over_threads

_MAX_COUNT = 200


def log1p_moments(
    rate_cp10k: NDArray[np.float64], total: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of log1p(CP10k) of genes with these rates in a cell with `total` counts.

    Counts are taken as Poisson.

    Examples
    --------
    >>> mean, variance = log1p_moments(np.array([0.0, 1.0]), 1e4)
    >>> mean.round(3).tolist(), variance.round(3).tolist()
    ([0.0, 0.573], [0.0, 0.24])
    """
    counts = np.arange(_MAX_COUNT + 1)
    rates, place = np.unique(np.asarray(rate_cp10k, np.float64), return_inverse=True)
    mean = np.minimum(rates * total / TARGET_SUM, _MAX_COUNT / 2)[:, None]
    mass = np.exp(xlogy(counts, mean) - gammaln(counts + 1) - mean)
    x = np.log1p(counts * TARGET_SUM / total)
    first = mass @ x
    return first[place], np.maximum(mass @ x**2 - first**2, 0.0)[place]


def critical_z(histogram: NDArray[np.int64], level: float) -> NDArray[np.float64]:
    """Smallest z whose p is at most `level`, for each histogram (last axis: bins); inf if none."""
    flat = np.ascontiguousarray(histogram).reshape(-1, histogram.shape[-1])
    lowest = np.empty(len(flat), np.int64)
    critical_bins(flat, level, lowest)
    z = np.where(lowest >= 0, Z_MIN + lowest / BINS_PER_Z, np.inf)
    return z.reshape(histogram.shape[:-1])


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
    shallow: float = 0.0,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Lineages × strata × signatures: whether the programme, switched on, would be seen.

    `keys.UNSEEN`, `SEEN`, or `SHALLOW`: seen, but the stratum's median total is less than `shallow` times
    that of its lineage. Calls are made at levels that the cells of all depths share; a carrier that
    is shallower than most reaches them less often.

    `level` is the p a call needs at least; `on_cp10k` the expression of a marker that is on (2 is
    about what PDCD1 or KLRG1 has in the T cells that carry it). `share` of such cells have to reach
    it: z of a cell that carries the programme varies with the Poisson noise of the genes that are on.

    Where values are logged already there are no counts to reason from; every stratum that has a
    null is then taken as powered.
    """
    n_codes, n_signatures, n_strata, bins = histogram.shape
    assert bins == N_BINS
    able = np.zeros((n_codes, n_strata, n_signatures), np.uint8)
    critical = critical_z(histogram, level)
    if kind != COUNTS:
        for code, stratum in np.unique(np.stack([codes, strata])[:, strata >= 0], axis=1).T:
            if code >= 0:
                able[code, stratum] = np.where(
                    np.isfinite(critical[code, :, stratum]), SEEN, UNSEEN
                )
        return able
    # cells of each lineage and stratum, in one sorting
    known = (codes >= 0) & (strata >= 0)
    group = np.where(known, codes * n_strata + strata, -1)
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(n_codes * n_strata + 1))
    typical = _medians_of(totals, np.where(known, codes, -1), n_codes)

    def one(task: tuple[int, NDArray[np.int64]]) -> None:
        g, cells = task
        code, stratum = divmod(g, n_strata)
        reachable = np.flatnonzero(np.isfinite(critical[code, :, stratum]))
        if not len(reachable):
            return
        total = float(np.median(totals[cells]))
        worth = SHALLOW if total < shallow * typical[code] else SEEN
        own_z = np.ascontiguousarray(z[np.ix_(cells, reachable)].T)
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = score[np.ix_(cells, reachable)].T / (own_z + centres[code, reachable, :1])
        sd[~(np.isfinite(sd) & (sd > 0))] = np.nan
        middle, unit = _medians(own_z), _medians(sd)
        seen = np.flatnonzero(np.isfinite(middle) & np.isfinite(unit)).tolist()
        if not seen:
            return
        # the genes of all signatures in one go: most have the same rate
        voting = [signatures[s] for s in reachable[seen].tolist()]
        genes = np.concatenate([v.positions for v in voting])
        means = sums[code, genes] / 2**FIX_X / max(n_cells[code], 1)
        shown, noises = log1p_moments(np.maximum(on_cp10k, np.expm1(means)), total)
        end = 0
        for k, signature in zip(seen, voting, strict=True):
            begin, end = end, end + len(signature.positions)
            mean, on, noise = (values[begin:end] for values in (means, shown, noises))
            weights = signature.weights
            up = weights > 0
            gain = float(np.sum(weights * np.where(up, on - mean, -mean))) / unit[k]
            spread = float(np.sqrt(np.sum(weights**2 * np.where(up, noise, 0.0)))) / unit[k]
            reached = middle[k] + gain + float(ndtri(1 - share)) * spread
            if reached >= critical[code, reachable[k], stratum]:
                able[code, stratum, reachable[k]] = worth

    tasks = [(g, order[a:b]) for g, (a, b) in enumerate(pairwise(ends)) if b > a]
    over_threads(one, tasks, threads)
    return able


def _medians_of(
    values: NDArray[np.float64], codes: NDArray[np.int64], n_codes: int
) -> NDArray[np.float64]:
    """Median of the values of each code, NaN for none."""
    out = np.full(n_codes, np.nan)
    for code in np.unique(codes[codes >= 0]).tolist():
        out[code] = np.median(values[codes == code])
    return out


def _medians(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of each row's finite values, NaN for none."""
    out = np.full(len(values), np.nan)
    holes = np.isnan(values).any(axis=1)
    out[~holes] = np.median(values[~holes], axis=1)
    for k in np.flatnonzero(holes):
        finite = values[k, ~np.isnan(values[k])]
        if len(finite):
            out[k] = np.median(finite)
    return out
