"""p-values and adjusted p-values read off counted nulls: the work is per bin, not per cell.

Every cell of a lineage and depth stratum whose z falls into the same bin has the same p. So p is
worked out once per bin, and Benjamini-Hochberg's adjustment from how many cells each bin holds: the
same numbers as from a sorted list of all cells, to the bit (tests compare them with scipy's).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit
from senoscore.kernels.passes import BINS_PER_Z, N_BINS, Z_MIN


@njit
def _bin(z: float) -> int:
    return int(min(max((z - Z_MIN) * BINS_PER_Z, 0.0), N_BINS - 1.0))


@njit
def medians(histogram: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    """Median of each histogram (rows × bins), interpolated within its bin; 0 if it is empty."""
    for r in range(histogram.shape[0]):
        bins = histogram[r]
        total = 0
        for b in range(bins.shape[0]):
            total += bins[b]
        out[r] = 0.0
        below = 0
        for b in range(bins.shape[0] if total > 0 else 0):
            below += bins[b]
            if 2 * below >= total:
                part = (total / 2 - (below - bins[b])) / bins[b]
                out[r] = Z_MIN + (b + part) / BINS_PER_Z
                break


@njit
def tail_shares(
    histogram: NDArray[np.int64], p: NDArray[np.float64], known: NDArray[np.bool_]
) -> None:
    """p of a z in each bin (rows × bins): (1 + null at or above it) / (1 + null).

    `known` (rows) says which rows have a null; of the others p is left alone.
    """
    for r in range(histogram.shape[0]):
        bins = histogram[r]
        total = 0
        for b in range(bins.shape[0]):
            total += bins[b]
        known[r] = total > 0
        above = 0
        for b in range(bins.shape[0] - 1 if known[r] else -1, -1, -1):
            above += bins[b]
            p[r, b] = (1 + above) / (1 + total)


@njit
def count_cells(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    known: NDArray[np.bool_],
    counts: NDArray[np.int32],
) -> None:
    """How many cells fall into each bin: added to lineages × signatures × strata × bins.

    `known` (lineages × signatures × strata) says where there is a null.
    """
    for i in range(z.shape[0]):
        if codes[i] < 0 or strata[i] < 0:
            continue
        for s in range(z.shape[1]):
            value = z[i, s]
            if value == value and known[codes[i], s, strata[i]]:
                counts[codes[i], s, strata[i], _bin(value)] += 1


@njit
def adjust_bins(
    p: NDArray[np.float64], counts: NDArray[np.int32], padj: NDArray[np.float64]
) -> None:
    """Benjamini-Hochberg over cells that are counted in bins: families × bins, in any order.

    Written, and read, only where there are cells.
    """
    for f in range(p.shape[0]):
        filled = np.flatnonzero(counts[f])
        if filled.shape[0] == 0:
            continue
        filled = filled[np.argsort(p[f][filled])]
        m = 0
        for b in filled:
            m += counts[f, b]
        rank = m
        least = np.inf
        k = filled.shape[0] - 1
        while k >= 0:
            value = p[f, filled[k]]
            # equal values have the rank of the last of them
            least = min(least, value * (m / rank))
            while k >= 0 and p[f, filled[k]] == value:
                padj[f, filled[k]] = min(least, 1.0)
                rank -= counts[f, filled[k]]
                k -= 1


@njit
def look_up(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    known: NDArray[np.bool_],
    table: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """The entry of each z's bin (lineages × signatures × strata × bins); NaN where there is none."""
    for i in range(z.shape[0]):
        inside = codes[i] >= 0 and strata[i] >= 0
        for s in range(z.shape[1]):
            value = z[i, s]
            out[i, s] = np.nan
            if inside and value == value and known[codes[i], s, strata[i]]:
                out[i, s] = table[codes[i], s, strata[i], _bin(value)]


@njit
def shift_rows(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    shift: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """z less what belongs to its lineage and stratum (lineages × signatures × strata).

    A cell in no stratum takes the first; one in no lineage stays as it is.
    """
    for i in range(z.shape[0]):
        code, stratum = codes[i], max(strata[i], 0)
        for s in range(z.shape[1]):
            out[i, s] = z[i, s] - shift[code, s, stratum] if code >= 0 else z[i, s]
