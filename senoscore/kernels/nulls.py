"""Null sets over a sample of cells, set by set: their centres, and random sets held back.

The second pass walks along a cell and adds to all sets at once. For a sample that fits in memory it
is faster the other way round: the values are kept by gene, one set is added up over all its cells
at a time, and everything after that runs along contiguous cells. The sums are the same integers and
z has the same bits as in `kernels.passes` (a test compares them).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit
from senoscore.kernels.passes import (
    BINS_PER_Z,
    N_BINS,
    NOTHING,
    SMALL,
    UNIT,
    Z_MIN,
    expression_fixed,
    inverse_root,
)

_LARGEST: Final = 2**31 - 1
_LOW: Final = 0xFFFFFFFF
_OFTEN: Final = 0.3  # a gene found in more of the cells than this is kept with its zeros
# bins in which an order statistic is looked for, between -4 and 4; and one for NaN
_COARSE: Final = 256
_COARSE_PER_Z: Final = 32.0
_COARSE_MIN: Final = -4.0


class ByGene(NamedTuple):
    """Expression of some genes in some cells, gene by gene, in fixed point (FIX_X bits).

    start: where the entries of each gene begin, and the end. entries: the cell in the upper 32
    bits, its value in the lower. whole: row of `dense` of each gene, -1 where it has entries
    instead. dense: genes × cells.
    """

    start: NDArray[np.int64]
    entries: NDArray[np.int64]
    whole: NDArray[np.int64]
    dense: NDArray[np.int32]


@njit
def by_gene(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    totals: NDArray[np.float64],
    kind: int,
    column: NDArray[np.int64],
    n_columns: int,
) -> ByGene:
    """Turn rows of a matrix round.

    Parameters
    ----------
    indptr, indices, data
        CSR rows.
    totals
        Of each row; a row without a total stays empty.
    kind
        As in `kernels.passes`.
    column
        Per gene its place among those wanted, -1 for the others.

    Returns
    -------
    Values of 2**9, which no logarithm reaches, and beyond are cut there.
    """
    n_cells, n_genes = totals.shape[0], column.shape[0]
    often = np.zeros(n_genes, np.int64)
    for i in range(n_cells):
        if totals[i] > 0:
            for k in range(indptr[i], indptr[i + 1]):
                often[indices[k]] += 1
    start = np.zeros(n_columns + 1, np.int64)
    whole = np.full(n_columns, -1, np.int64)
    n_whole = 0
    for gene in range(n_genes):
        if column[gene] >= 0:
            if often[gene] > _OFTEN * n_cells:
                whole[column[gene]] = n_whole
                n_whole += 1
            else:
                start[column[gene] + 1] = often[gene]
    for c in range(n_columns):
        start[c + 1] += start[c]
    # every value is written to both, once for good and once where it does no harm (the last
    # entry, the last row): cheaper than asking, for the answer cannot be predicted
    entries = np.empty(start[n_columns] + 1, np.int64)
    dense = np.zeros((n_whole + 1, n_cells), np.int32)
    at = np.full(n_genes, start[n_columns])
    step, row = np.zeros(n_genes, np.int64), np.full(n_genes, n_whole)
    for gene in range(n_genes):
        c = column[gene]
        if c >= 0 and whole[c] >= 0:
            row[gene] = whole[c]
        elif c >= 0:
            at[gene], step[gene] = start[c], 1
    logs = np.zeros(SMALL, np.int64)
    for i in range(n_cells):
        if totals[i] <= 0:
            continue
        logs[:] = 0
        for k in range(indptr[i], indptr[i + 1]):
            gene = indices[k]
            fixed = expression_fixed(float(data[k]), totals[i], kind, logs)
            fixed = max(min(fixed, _LARGEST), -_LARGEST)
            dense[row[gene], i] = fixed
            entries[at[gene]] = (i << 32) | (fixed & _LOW)
            at[gene] += step[gene]
    return ByGene(start, entries, whole, dense)


@njit
def _sum_set(
    values: ByGene,
    genes: NDArray[np.int64],
    weights: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Weighted sums of some genes in every cell: whole numbers, exact below 2**53."""
    sums[:] = 0.0
    for g in range(genes.shape[0]):
        c, w = genes[g], weights[g]
        if values.whole[c] >= 0:
            x = values.dense[values.whole[c]]
            for i in range(sums.shape[0]):
                sums[i] += x[i] * w
        else:
            for k in range(values.start[c], values.start[c + 1]):
                entry = values.entries[k]
                sums[np.uint32(entry >> 32)] += np.int32(entry) * w


@njit
def _sets_z(
    values: ByGene,
    first: NDArray[np.int64],
    genes: NDArray[np.int64],
    weights: NDArray[np.float64],
    work: NDArray[np.float64],
    z: NDArray[np.float64],
) -> None:
    """z of a signature (row 0) and of its null sets, not centred: (N + 1) × cells.

    The arithmetic of `kernels.passes`, step by step, along cells instead of along sets. `first`:
    where the genes of each set begin, and the end. NaN where a cell expresses none of them.
    """
    n_null, n = z.shape[0] - 1, z.shape[1]
    mean, squares, scale, share, lanes = work[0], work[1], work[2], work[3], work[4:]
    _sum_set(values, genes[first[0] : first[1]], weights[first[0] : first[1]], z[0])
    mean[:] = 0.0
    for j in range(1, n_null + 1):
        row = z[j]
        a, b = first[j], first[j + 1]
        _sum_set(values, genes[a:b], weights[a:b], row)
        for i in range(n):
            mean[i] += row[i]
    for i in range(n):
        mean[i] /= n_null
    # eight sums that are added up at the end, and what is left over: the order of kernels.passes
    lanes[:] = 0.0
    whole = n_null - n_null % 8
    for j in range(1, whole + 1):
        row, sums = z[j], lanes[(j - 1) % 8]
        for i in range(n):
            deviation = row[i] - mean[i]
            row[i] = deviation
            sums[i] += deviation * deviation
    for i in range(n):
        squares[i] = ((lanes[0, i] + lanes[1, i]) + (lanes[2, i] + lanes[3, i])) + (
            (lanes[4, i] + lanes[5, i]) + (lanes[6, i] + lanes[7, i])
        )
    for j in range(whole + 1, n_null + 1):
        row = z[j]
        for i in range(n):
            deviation = row[i] - mean[i]
            row[i] = deviation
            squares[i] += deviation * deviation
    ratio = n_null / (n_null - 1.0)
    for i in range(n):
        known = squares[i] if squares[i] > 0 else np.nan
        scale[i] = ratio * np.sqrt((n_null - 2.0) / known)
        share[i] = ratio / known
        z[0, i] = (z[0, i] - mean[i]) / np.sqrt(known / (n_null - 1.0))
    for j in range(1, n_null + 1):
        row = z[j]
        for i in range(n):
            deviation = row[i]
            rest = 1.0 - share[i] * deviation * deviation
            row[i] = deviation * scale[i] * inverse_root(rest if rest > NOTHING else np.nan)


@njit
def _quantile(
    values: NDArray[np.float64],
    q: float,
    place: NDArray[np.uint32],
    count: NDArray[np.uint32],
    few: NDArray[np.float64],
) -> float:
    """`numpy.nanquantile(values, q)`, to the bit; NaN if there is no value.

    Values are counted in coarse bins; only those in the bin that holds the quantile are sorted.
    """
    count[:] = 0
    for i in range(values.shape[0]):
        v = (values[i] - _COARSE_MIN) * _COARSE_PER_Z
        v = max(min(v, _COARSE - 1.0), 0.0) if v == v else float(_COARSE)
        place[i] = np.uint32(v)
    for i in range(values.shape[0]):
        count[place[i]] += np.uint32(1)
    n = values.shape[0] - int(count[_COARSE])
    if n == 0:
        return np.nan
    virtual = (n - 1) * q
    k = int(np.floor(virtual))
    part = virtual - k
    before = 0
    b = 0
    while before + int(count[b]) <= k:
        before += int(count[b])
        b += 1
    m = 0
    for i in range(values.shape[0]):
        if place[i] == b:
            few[m] = values[i]
            m += 1
    few[:m].sort()
    low = few[k - before]
    if part == 0.0:
        return float(low)
    if k - before + 1 < m:
        high = few[k - before + 1]
    else:
        high = np.inf
        for i in range(values.shape[0]):
            if b < place[i] < _COARSE:
                high = min(high, values[i])
    if part >= 0.5:
        return float(high - (high - low) * (1 - part))
    return float(low + (high - low) * part)


@njit
def low_in_the_rest(
    values: ByGene,
    order: NDArray[np.int64],
    limits: NDArray[np.int64],
    genes: NDArray[np.int64],
    weights: NDArray[np.float64],
    q: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Each gene of a signature in the cells that have least of the signature's other genes.

    Parameters
    ----------
    values
        Of the cells.
    order, limits
        The cells, one depth stratum after another; where each begins, and the end.
    genes, weights
        Of the signature: columns of `values`, and weights in units of 2**-FIX_W.
    q
        The share of each stratum's cells that is taken, and all that are equal to its last.

    Returns
    -------
    Per gene: its sum over the cells taken, their number, its sum over all cells, and the number of
    cells in which it is not 0.
    """
    n, n_genes = order.shape[0], genes.shape[0]
    low, everywhere = np.zeros(n_genes), np.zeros(n_genes)
    n_low, n_on = np.zeros(n_genes, np.int64), np.zeros(n_genes, np.int64)
    total, others, x, one = np.empty(n), np.empty(n), np.empty(n), np.ones(1)
    _sum_set(values, genes, weights, total)
    for e in range(n_genes):
        _sum_set(values, genes[e : e + 1], one, x)
        for i in range(n):
            everywhere[e] += x[i]
            n_on[e] += x[i] != 0
        for i in range(n):
            others[i] = total[order[i]] - weights[e] * x[order[i]]
        for t in range(limits.shape[0] - 1):
            a, b = limits[t], limits[t + 1]
            if a == b:
                continue
            k = max(int(np.ceil(q * (b - a))) - 1, 0)
            cut = np.partition(others[a:b], k)[k]
            for i in range(a, b):
                if others[i] <= cut:
                    low[e] += x[order[i]]
                    n_low[e] += 1
    return low, n_low, everywhere, n_on


@njit
def set_centres(
    values: ByGene,
    n_cells: int,
    n_null: int,
    which: NDArray[np.int64],
    first: NDArray[np.int64],
    genes: NDArray[np.int64],
    weights: NDArray[np.float64],
    q: float,
    level: float,
    centres: NDArray[np.float64],
) -> None:
    """What to subtract from the z of each set, so that its q-quantile is `level`.

    Parameters
    ----------
    values
        Of the cells.
    which
        The signatures asked for; the sets of signature s are number s (N + 1) to s (N + 1) + N.
    first, genes, weights
        Where each set begins, and the end; its genes (columns of `values`) and their weights, in
        units of 2**-FIX_W.
    centres
        Written, signatures asked for × (N + 1); 0 where a set has no value.
    """
    z = np.empty((n_null + 1, n_cells))
    work = np.empty((12, n_cells))
    place, few = np.empty(n_cells, np.uint32), np.empty(n_cells)
    count = np.empty(_COARSE + 1, np.uint32)
    for s in range(which.shape[0]):
        base = which[s] * (n_null + 1)
        _sets_z(values, first[base : base + n_null + 2], genes, weights, work, z)
        for j in range(z.shape[0]):
            found = _quantile(z[j], q, place, count, few)
            centres[s, j] = found - level if found == found else 0.0


@njit
def held_back(
    values: ByGene,
    limits: NDArray[np.int64],
    n_null: int,
    which: NDArray[np.int64],
    first: NDArray[np.int64],
    genes: NDArray[np.int64],
    weights: NDArray[np.float64],
    q: float,
    level: float,
    z_out: NDArray[np.float64],
    p_out: NDArray[np.float64],
    medians: NDArray[np.float64],
) -> None:
    """Score random sets as if they were signatures, on cells ordered by depth stratum.

    Parameters
    ----------
    limits
        Where each stratum's cells begin, and the end.
    z_out, p_out
        Written, signatures asked for × cells: centred z, and p against the pooled null of the stratum, counted in
        bins as the second pass does.
    medians
        Written, signatures asked for × strata: the median of that null (`null.null_medians`).

    The others as in `set_centres`.
    """
    n_cells, n_strata = z_out.shape[1], limits.shape[0] - 1
    z = np.empty((n_null + 1, n_cells))
    work = np.empty((12, n_cells))
    place, few = np.empty(n_cells, np.uint32), np.empty(n_cells)
    count = np.empty(_COARSE + 1, np.uint32)
    histogram = np.empty((n_strata, N_BINS + 1), np.int64)  # the last is for NaN
    above = np.empty(N_BINS, np.int64)
    for s in range(which.shape[0]):
        base = which[s] * (n_null + 1)
        _sets_z(values, first[base : base + n_null + 2], genes, weights, work, z)
        histogram[:] = 0
        for j in range(z.shape[0]):
            row = z[j]
            found = _quantile(row, q, place, count, few)
            shift = found - level if found == found else 0.0
            if j == 0:
                for i in range(n_cells):
                    z_out[s, i] = row[i] - shift
                continue
            for i in range(n_cells):
                value = (row[i] - shift - Z_MIN) * BINS_PER_Z
                value = max(min(value, N_BINS - 1.0), 0.0) if value == value else float(N_BINS)
                place[i] = np.uint32(value)
            for t in range(n_strata):
                bins = histogram[t]
                for i in range(limits[t], limits[t + 1]):
                    bins[place[i]] += 1
        for t in range(n_strata):
            higher = 0
            for e in range(N_BINS - 1, -1, -1):
                higher += histogram[t, e]
                above[e] = higher
            for i in range(limits[t], limits[t + 1]):
                value = (z_out[s, i] - Z_MIN) * BINS_PER_Z
                if value == value and higher > 0:
                    e = int(min(max(value, 0.0), N_BINS - 1.0))
                    p_out[s, i] = (1 + above[e]) / (1 + higher)
                else:
                    p_out[s, i] = np.nan
            medians[s, t] = 0.0
            below = 0
            for e in range(N_BINS if higher > 0 else 0):
                below += histogram[t, e]
                if 2 * below >= higher:
                    part = (higher / 2 - (below - histogram[t, e])) / histogram[t, e]
                    medians[s, t] = Z_MIN + (e + part) / BINS_PER_Z
                    break


@njit
def score_sample(
    values: ByGene,
    strata: NDArray[np.int64],
    n_null: int,
    which: NDArray[np.int64],
    first: NDArray[np.int64],
    genes: NDArray[np.int64],
    weights: NDArray[np.float64],
    centres: NDArray[np.float64],
    score: NDArray[np.float64],
    z_out: NDArray[np.float64],
    histogram: NDArray[np.int64],
) -> None:
    """The second pass over a sample: d, z and the pooled null (`kernels.passes.score_rows`).

    Parameters
    ----------
    strata
        Per cell, -1 where its null sets are not counted.
    centres
        Signatures × (N + 1).
    score, z_out
        Written, signatures asked for × cells.
    histogram
        Added to, signatures asked for × strata × bins.

    The others as in `set_centres`.
    """
    n_cells = z_out.shape[1]
    z = np.empty((n_null + 1, n_cells))
    work = np.empty((12, n_cells))
    counted = np.flatnonzero(strata >= 0)
    for s in range(which.shape[0]):
        base = which[s] * (n_null + 1)
        _sets_z(values, first[base : base + n_null + 2], genes, weights, work, z)
        centre = centres[which[s]]
        for i in range(n_cells):
            score[s, i] = z[0, i] * np.sqrt(work[1, i] / (n_null - 1.0)) / UNIT
            z_out[s, i] = z[0, i] - centre[0]
        for j in range(1, n_null + 1 if counted.shape[0] else 1):
            for cell in counted:
                value = (z[j, cell] - centre[j] - Z_MIN) * BINS_PER_Z
                if value == value:  # NaN is not
                    histogram[s, strata[cell], int(min(max(value, 0.0), N_BINS - 1.0))] += 1


@njit
def by_set(
    offsets: NDArray[np.int64], sets: NDArray[np.int32], n_sets: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Turn a table gene -> sets round: where each set begins, its genes, and their entries."""
    first = np.zeros(n_sets + 1, np.int64)
    for e in range(offsets[0], offsets[-1]):
        first[sets[e] + 1] += 1
    for s in range(n_sets):
        first[s + 1] += first[s]
    genes = np.empty(first[n_sets], np.int64)
    entry = np.empty(first[n_sets], np.int64)
    at = first[:-1].copy()
    for g in range(offsets.shape[0] - 1):
        for e in range(offsets[g], offsets[g + 1]):
            k = at[sets[e]]
            genes[k], entry[k] = g, e
            at[sets[e]] = k + 1
    return first, genes, entry
