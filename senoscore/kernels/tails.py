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
def read_off(
    z: NDArray[np.floating],
    cells: NDArray[np.int64],
    strata: NDArray[np.int64],
    histogram: NDArray[np.int64],
    first: int,
    last: int,
    p: NDArray[np.floating],
    padj: NDArray[np.floating],
) -> None:
    """p of the cells of one lineage, and Benjamini-Hochberg's adjustment of each column.

    Parameters
    ----------
    z
        All cells × signatures.
    cells
        The rows of the lineage.
    strata
        Of all cells; one without a stratum has no p.
    histogram
        Signatures × strata × bins: the lineage's null. p of a bin is (1 + null at or above it) /
        (1 + null).
    first, last
        The signatures wanted: those from `first` up to, without, `last`.
    p, padj
        Written in these rows, where z is a number and the stratum has a null. A `padj` without columns
        is left alone.
    """
    n_strata, n_bins = histogram.shape[1:]
    counts = np.empty((n_strata, n_bins), np.int32)
    table, adjusted = np.empty((n_strata, n_bins)), np.empty((n_strata, n_bins))
    head = np.empty(n_strata, np.int64)
    wanted = padj.shape[1] > 0
    for s in range(first, last):
        counts[:] = 0
        for i in cells:
            value = z[i, s]
            if value == value and strata[i] >= 0:
                counts[strata[i], _bin(value)] += 1
        n_cells = 0
        for t in range(n_strata):
            total, above = 0, 0
            for b in range(n_bins):
                total += histogram[s, t, b]
            for b in range(n_bins - 1, -1, -1):
                above += histogram[s, t, b]
                if counts[t, b] > 0 and total == 0:
                    counts[t, b] = 0
                elif counts[t, b] > 0:
                    table[t, b] = (1 + above) / (1 + total)
                    n_cells += counts[t, b]
        if n_cells == 0:
            continue
        if wanted:
            # p falls from bin to bin of a stratum: from the largest to the smallest of all strata
            head[:] = 0
            rank = n_cells
            least = np.inf
            while rank > 0:
                largest = -1.0
                for t in range(n_strata):
                    while head[t] < n_bins and counts[t, head[t]] == 0:
                        head[t] += 1
                    if head[t] < n_bins:
                        largest = max(largest, table[t, head[t]])
                # equal values have the rank of the last of them
                least = min(least, largest * (n_cells / rank))
                for t in range(n_strata):
                    while head[t] < n_bins and (
                        counts[t, head[t]] == 0 or table[t, head[t]] == largest
                    ):
                        adjusted[t, head[t]] = min(least, 1.0)
                        rank -= counts[t, head[t]]
                        head[t] += 1
        for i in cells:
            value = z[i, s]
            if value == value and strata[i] >= 0:
                t, b = strata[i], _bin(value)
                if counts[t, b] > 0:
                    p[i, s] = table[t, b]
                    if wanted:
                        padj[i, s] = adjusted[t, b]


@njit
def critical_bins(histogram: NDArray[np.int64], level: float, out: NDArray[np.int64]) -> None:
    """The lowest bin whose p is at most `level` (rows × bins), -1 where there is none."""
    for r in range(histogram.shape[0]):
        bins = histogram[r]
        total, above = 0, 0
        for b in range(bins.shape[0]):
            total += bins[b]
        out[r] = -1
        for b in range(bins.shape[0] - 1 if total > 0 else -1, -1, -1):
            above += bins[b]
            if (1 + above) / (1 + total) > level:
                break
            out[r] = b


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
