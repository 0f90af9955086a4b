"""The two passes over the matrix, as kernels on CSR rows.

The first gives quality metrics per cell and gene sums per lineage. The second scores matched
controls and their null as one sparse accumulation: for one cell, every set (a signature and its N
null sets) is a weighted sum of the cell's expression, and all of them are gathered in one walk over
the cell's nonzeros: gene -> the sets it belongs to, with its weight.

Sums over cells and over genes are kept in fixed point (int64), so that they are the same bits for
any order of cells or genes, any block size, any number of threads, and whatever else is scored:
the sum of integers has no rounding.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit

FIX_X: Final = 22  # bits after the point of an expression value (below 2**6 before it)
FIX_W: Final = 18  # bits after the point of a weight
FIX_TOTAL: Final = 20  # bits after the point of a stored value, where values are summed
GROUP_SHIFT: Final = 12  # bits dropped from a cell's sums before they enter a group's
UNIT: Final = float(2 ** (FIX_X + FIX_W))
TARGET_SUM: Final = 1e4
TOP_GENES: Final = 50  # the field's pct_counts_in_top_50_genes

# how stored values become expression x
COUNTS: Final = 0  # x = log1p(1e4 * count / total of the cell)
LINEAR: Final = 1  # x = log1p(value): normalised, not logged
LOG: Final = 2  # x = value: logged already

Z_MIN: Final = -12.0
BINS_PER_Z: Final = 32
N_BINS: Final = 2048  # z from -12 to 52; what lies outside is counted in the outermost bins

_SMALL: Final = 256  # counts below this are looked up, not computed, within a row
_X_UNIT: Final = float(2**FIX_X)
_TOTAL_UNIT: Final = float(2**FIX_TOTAL)
_NOTHING: Final = 1e-10  # share of a variance that is rounding, not variance
_HALF: Final = 1 << (GROUP_SHIFT - 1)


@njit
def expression_fixed(
    value: float, total: float, kind: int, table: NDArray[np.int64], stamp: int
) -> int:
    """One stored value as fixed-point expression.

    `table` (2 × _SMALL) remembers the logarithm of each small count of the current row: most
    of a cell's counts are 1, 2 or 3, and a logarithm costs more than everything else here.
    """
    if kind == LOG:
        return int(np.rint(value * _X_UNIT))
    if kind == LINEAR:
        return int(np.rint(np.log1p(value) * _X_UNIT))
    small = int(value)
    if small < _SMALL and small == value:
        if table[0, small] != stamp:
            table[0, small] = stamp
            table[1, small] = int(np.rint(np.log1p(value * TARGET_SUM / total) * _X_UNIT))
        return int(table[1, small])
    return int(np.rint(np.log1p(value * TARGET_SUM / total) * _X_UNIT))


@njit
def _top_sum(values: NDArray[np.float64], n: int, k: int, histogram: NDArray[np.int64]) -> float:
    """Sum of the k largest of `values[:n]`; small integers are counted instead of sorted."""
    if n <= k:
        # in the order of values, so that the order of genes cannot show
        return float(np.sort(values[:n]).sum())
    size = histogram.shape[0]
    large = 0
    for i in range(n):
        v = values[i]
        c = int(v)
        if c != v or c >= size or c < 0:
            large += 1
    if large > k:
        # rare: fractional or very high values dominate, sort the row
        ordered = np.sort(values[:n])
        return float(ordered[n - k :].sum())
    histogram[:] = 0
    top = 0.0
    left = k
    if large:
        fractional = False
        for i in range(n):
            c = int(values[i])
            if c != values[i]:
                fractional = True
        if fractional:
            ordered = np.sort(values[:n])
            return float(ordered[n - k :].sum())
    for i in range(n):
        c = int(values[i])
        if c >= size:
            top += values[i]
            left -= 1
        else:
            histogram[c] += 1
    for c in range(size - 1, 0, -1):
        if left <= 0:
            break
        take = min(left, histogram[c])
        top += take * c
        left -= take
    return top


@njit
def scan_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    kind: int,
    gene_class: NDArray[np.uint8],
    codes: NDArray[np.int64],
    metrics: NDArray[np.float64],
    sums: NDArray[np.int64],
    detected: NDArray[np.int64],
) -> None:
    """Metrics of each row and, per lineage code, the sums of x and the detections of each gene.

    Parameters
    ----------
    indptr, indices, data
        CSR rows, no explicit zeros.
    kind
        ``COUNTS``, ``LINEAR`` or ``LOG``.
    gene_class
        Per gene: bit 0 mitochondrial, bit 1 ribosomal, bit 2 haemoglobin.
    codes
        Per row: lineage code, -1 for a cell that belongs to none.
    metrics
        Written, rows × 6: total, genes detected, sum of the top 50, mitochondrial, ribosomal,
        haemoglobin sums (of stored values).
    sums
        Added to, lineages × genes: fixed-point sum of x.
    detected
        Added to, lineages × genes: cells with a value above 0.
    """
    table = np.zeros((2, _SMALL), np.int64)
    histogram = np.zeros(1024, np.int64)
    row = np.empty(max(1, np.max(indptr[1:] - indptr[:-1]) if indptr.shape[0] > 1 else 1))
    for i in range(indptr.shape[0] - 1):
        start, stop = indptr[i], indptr[i + 1]
        n = stop - start
        # stored in order of gene index; a total of integers is exact in float64, a total of
        # fractions is made exact by fixed point, so that the order of genes cannot show
        total = 0
        parts = np.zeros(3, np.int64)
        for k in range(start, stop):
            value = float(data[k])
            row[k - start] = value
            fixed = int(np.rint(value * _TOTAL_UNIT))
            total += fixed
            c = gene_class[indices[k]]
            if c:
                for b in range(3):
                    if c & (1 << b):
                        parts[b] += fixed
        amount = total / _TOTAL_UNIT
        metrics[i, 0] = amount
        metrics[i, 1] = n
        metrics[i, 2] = _top_sum(row, n, TOP_GENES, histogram)
        for b in range(3):
            metrics[i, 3 + b] = parts[b] / _TOTAL_UNIT
        code = codes[i]
        if code >= 0 and amount > 0:
            for k in range(start, stop):
                gene = indices[k]
                sums[code, gene] += expression_fixed(float(data[k]), amount, kind, table, i + 1)
                detected[code, gene] += 1


class GeneSets(NamedTuple):
    """gene -> (set, weight), for several lineages at once.

    offsets: lineages × (genes + 1), into `sets` and `weights`.
    sets: position of a set = signature × (N + 1) + j; j = 0 is the signature, 1..N its nulls.
    weights: fixed point, signed.
    """

    offsets: NDArray[np.int64]
    sets: NDArray[np.int32]
    weights: NDArray[np.int64]


@njit
def _gather(
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    start: int,
    stop: int,
    total: float,
    kind: int,
    offsets: NDArray[np.int64],
    sets: NDArray[np.int32],
    weights: NDArray[np.int64],
    table: NDArray[np.int64],
    stamp: int,
    acc: NDArray[np.int64],
) -> None:
    acc[:] = 0
    for k in range(start, stop):
        gene = indices[k]
        first, last = offsets[gene], offsets[gene + 1]
        if first == last:
            continue
        x = expression_fixed(float(data[k]), total, kind, table, stamp)
        for e in range(first, last):
            acc[sets[e]] += x * weights[e]


@njit
def _null_z(
    acc: NDArray[np.int64], base: int, n_null: int, own: NDArray[np.float64]
) -> tuple[float, float]:
    """z of each null set into `own[1:]`, and the mean and standard deviation of the null sums.

    Each null set is measured against the others, as the signature is measured against all: with u
    its deviation over the root of the summed squares, z = u N sqrt(N - 2) / (N - 1) / sqrt(1 - u^2
    N / (N - 1)). NaN where it alone is expressed. A standard deviation of 0: none is.
    """
    total = 0
    for j in range(1, n_null + 1):
        total += acc[base + j]
    mean = total / n_null
    squares = 0.0
    for j in range(1, n_null + 1):
        deviation = acc[base + j] - mean
        own[j] = deviation
        squares += deviation * deviation
    if squares <= 0:
        return mean, 0.0
    ratio = n_null / (n_null - 1.0)
    scale = ratio * np.sqrt((n_null - 2.0) / squares)
    share = ratio / squares
    # without a branch, so that it is done several at a time
    for j in range(1, n_null + 1):
        deviation = own[j]
        rest = 1.0 - share * deviation * deviation
        own[j] = deviation * scale / np.sqrt(rest if rest > _NOTHING else np.nan)
    return mean, np.sqrt(squares / (n_null - 1.0))


@njit
def score_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    kind: int,
    totals: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    offsets: NDArray[np.int64],
    sets: NDArray[np.int32],
    weights: NDArray[np.int64],
    usable: NDArray[np.bool_],
    n_null: int,
    centres: NDArray[np.float64],
    score: NDArray[np.float64],
    z: NDArray[np.float64],
    histogram: NDArray[np.int64],
    groups: NDArray[np.int64],
    group_sums: NDArray[np.int64],
) -> None:
    """Score, z and the pooled null of each row, inside the lineage given by its code.

    Parameters
    ----------
    totals, codes, strata
        Per row: total of its values, lineage (-1: not scored), depth stratum (-1: scored, but
        not part of the null, e.g. a cell that failed quality control).
    offsets, sets, weights
        The fields of `GeneSets`.
    usable
        lineages × signatures: whether the signature is scored there.
    centres
        lineages × signatures × (N + 1): reference level of each set, subtracted from its z.
    score, z
        Written, rows × signatures; left alone (NaN by the caller) where not scored.
    histogram
        Added to, lineages × signatures × strata × bins: the null's z in BINS_PER_Z bins per unit.
    groups
        Per row: the group (donor × subset) whose sums it enters, -1 for none.
    group_sums
        Added to, groups × (signatures × (N + 1)): every set's sum over the group's cells, in
        units of 2**-(FIX_X + FIX_W - GROUP_SHIFT), so that a million cells fit in 63 bits.
    """
    n_signatures = usable.shape[1]
    table = np.zeros((2, _SMALL), np.int64)
    acc = np.zeros(n_signatures * (n_null + 1), np.int64)
    own = np.empty(n_null + 1)
    for i in range(indptr.shape[0] - 1):
        code = codes[i]
        if code < 0 or totals[i] <= 0:
            continue
        _gather(
            indices, data, indptr[i], indptr[i + 1], totals[i], kind,
            offsets[code], sets, weights, table, i + 1, acc,
        )  # fmt: skip
        group = groups[i]
        if group >= 0:
            for e in range(acc.shape[0]):
                group_sums[group, e] += (acc[e] + _HALF) >> GROUP_SHIFT
        for s in range(n_signatures):
            if not usable[code, s]:
                continue
            base = s * (n_null + 1)
            mean, sd = _null_z(acc, base, n_null, own)
            distance = acc[base] - mean
            score[i, s] = distance / UNIT
            if sd <= 0:
                continue
            z[i, s] = distance / sd - centres[code, s, 0]
            stratum = strata[i]
            if stratum < 0:
                continue
            bins = histogram[code, s, stratum]
            for j in range(1, n_null + 1):
                value = (own[j] - centres[code, s, j] - Z_MIN) * BINS_PER_Z
                if value == value:  # NaN is not
                    bins[int(min(max(value, 0.0), N_BINS - 1.0))] += 1


@njit
def null_z_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    kind: int,
    totals: NDArray[np.float64],
    offsets: NDArray[np.int64],
    sets: NDArray[np.int32],
    weights: NDArray[np.int64],
    n_null: int,
    out: NDArray[np.float64],
) -> None:
    """z of the signature and of every null set, not centred: rows × signatures × (N + 1).

    The cells of one lineage (`offsets` has one row less: genes + 1). NaN where a cell expresses
    none of the genes involved.
    """
    n_signatures = out.shape[1]
    table = np.zeros((2, _SMALL), np.int64)
    acc = np.zeros(n_signatures * (n_null + 1), np.int64)
    own = np.empty(n_null + 1)
    for i in range(indptr.shape[0] - 1):
        for s in range(n_signatures):
            for j in range(n_null + 1):
                out[i, s, j] = np.nan
        if totals[i] <= 0:
            continue
        _gather(
            indices, data, indptr[i], indptr[i + 1], totals[i], kind,
            offsets, sets, weights, table, i + 1, acc,
        )  # fmt: skip
        for s in range(n_signatures):
            base = s * (n_null + 1)
            mean, sd = _null_z(acc, base, n_null, own)
            if sd <= 0:
                continue
            out[i, s, 0] = (acc[base] - mean) / sd
            for j in range(1, n_null + 1):
                out[i, s, j] = own[j]
