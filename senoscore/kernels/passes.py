"""The two passes over the matrix, as kernels on packed rows (`kernels.pack`).

A row is unpacked where it is used, so that it never leaves the processor's cache.

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
from senoscore.kernels.pack import FAR_CODE, REST

FIX_X: Final = 22  # bits after the point of an expression value (below 2**6 before it)
FIX_W: Final = 18  # bits after the point of a weight
FIX_TOTAL: Final = 20  # bits after the point of a stored value, where values are summed
GROUP_SHIFT: Final = 12  # bits dropped from a cell's sums before they enter a group's
UNIT: Final = float(2 ** (FIX_X + FIX_W))
TARGET_SUM: Final = 1e4
LONG: Final = 63  # genes in so many sets or more are walked last (see `Walk`)
TOP_GENES: Final = 50  # the field's pct_counts_in_top_50_genes

# how stored values become expression x
COUNTS: Final = 0  # x = log1p(1e4 * count / total of the cell)
LINEAR: Final = 1  # x = log1p(value): normalised, not logged
LOG: Final = 2  # x = value: logged already

Z_MIN: Final = -12.0
BINS_PER_Z: Final = 32
N_BINS: Final = 2048  # z from -12 to 52; what lies outside is counted in the outermost bins

SMALL: Final = 256  # counts below this are looked up, not computed, within a row
_COMMON: Final = 40  # a cell has most counts below this: their logarithms are taken at once
_X_UNIT: Final = float(2**FIX_X)
_TOTAL_UNIT: Final = float(2**FIX_TOTAL)
NOTHING: Final = 1e-10  # share of a variance that is rounding, not variance
_HALF: Final = 1 << (GROUP_SHIFT - 1)


# multiplied by a single bit, this number has that bit's own six bits on top
_DE_BRUIJN: Final = np.uint64(0x03F79D71B4CB0A89)
_PLACE_OF_BIT: Final = np.empty(64, np.uint32)
for _bit in range(64):
    _PLACE_OF_BIT[(int(_DE_BRUIJN) << _bit & (2**64 - 1)) >> 58] = _bit


@njit
def log_fixed(value: float) -> int:
    """log(1 + value) in fixed point, in which nothing is left of the digits that log1p would save."""
    return int(np.rint(np.log(1.0 + value) * _X_UNIT))


@njit
def expression_fixed(value: float, total: float, kind: int, logs: NDArray[np.int64]) -> int:
    """One stored value as fixed-point expression.

    `logs` (SMALL) remembers the logarithm of each small count of the current row, 0 where it is not
    known: most of a cell's counts are 1, 2 or 3, and a logarithm costs more than everything else here.
    """
    if kind == LOG:
        return int(np.rint(value * _X_UNIT))
    if kind == LINEAR:
        return log_fixed(value)
    small = np.uint32(int(value))  # numba looks for negative places in what is signed
    if small < np.uint32(SMALL) and small == value:
        if logs[small] == 0:
            logs[small] = log_fixed(value * TARGET_SUM / total)
        return int(logs[small])
    return log_fixed(value * TARGET_SUM / total)


@njit
def _top_sum(
    values: NDArray[np.floating],
    counts: NDArray[np.int64],
    large: NDArray[np.float64],
    n_large: int,
) -> float:
    """Sum of the `TOP_GENES` largest of a row's values.

    `counts` tells how many are 1, 2, ...; those that are too large for it, or fractions, are in
    `large[:n_large]`. Values are added in ascending order, so that the order of genes cannot show.
    """
    for i in range(n_large):
        if large[i] < SMALL:  # a fraction, which may rank below some of those counted: sort all
            row = np.empty(values.shape[0])
            row[:] = values
            return float(np.sort(row)[max(0, row.shape[0] - TOP_GENES) :].sum())
    left = TOP_GENES
    top = 0.0
    if n_large:
        ordered = np.sort(large[:n_large])[max(0, n_large - TOP_GENES) :]
        top = ordered.sum()
        left -= len(ordered)
    for c in range(SMALL - 1, 0, -1):
        if left <= 0:
            break
        take = min(left, counts[c])
        top += take * c
        left -= take
    return top


def gene_roles(gene_class: NDArray[np.uint8], panel: NDArray[np.int64]) -> NDArray[np.int32]:
    """What `scan_rows` does with each gene: its class (bits 0 to 2), its place in the panel + 1.

    `gene_class`: bit 0 mitochondrial, bit 1 ribosomal, bit 2 haemoglobin. `panel`: genes that are
    kept cell by cell, ascending.
    """
    if len(panel) > 1 and (np.diff(panel) <= 0).any():
        raise ValueError("the panel's genes must ascend")
    roles = gene_class.astype(np.int32)
    roles[panel] |= (np.arange(len(panel), dtype=np.int32) + 1) << 3
    return roles


@njit
def to_genes(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    columns: NDArray[np.int32],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.int32],
    out_data: NDArray[np.floating],
) -> None:
    """Rows of columns as rows of genes, ascending and without zeros.

    Parameters
    ----------
    indptr, indices, data
        CSR rows.
    columns
        The gene of each column; values of one gene are added up.
    out_indptr, out_indices, out_data
        Written; room for all values.
    """
    n_words = (int(columns.max()) >> 6) + 1
    found = np.zeros(n_words, np.uint64)  # a bit for each gene: read off, they are in order
    sums = np.zeros(n_words << 6, out_data.dtype)
    n = 0
    out_indptr[0] = 0
    for i in range(indptr.shape[0] - 1):
        own, values = indices[indptr[i] : indptr[i + 1]], data[indptr[i] : indptr[i + 1]]
        for k in range(np.uint32(own.shape[0])):
            gene = np.uint32(columns[np.uint32(own[k])])
            found[gene >> np.uint32(6)] |= np.uint64(1) << np.uint64(gene & np.uint32(63))
            sums[gene] += values[k]
        for word in range(np.uint32(n_words)):
            left = found[word]
            found[word] = 0
            while left != 0:
                lowest = left & (~left + np.uint64(1))
                left ^= lowest
                bit = _PLACE_OF_BIT[(lowest * _DE_BRUIJN) >> np.uint64(58)]
                gene = (np.uint32(word) << np.uint32(6)) + bit
                out_indices[n], out_data[n] = gene, sums[gene]
                n += sums[gene] != 0
                sums[gene] = 0
        out_indptr[i + 1] = n


@njit
def unpack_genes(
    codes: NDArray[np.uint8], far: NDArray[np.int32], genes: NDArray[np.int32]
) -> None:
    """Written: the genes of a row's codes; `far` begins with the row's steps that stand apart."""
    last, f = np.int32(-1), np.uint32(0)
    for k in range(np.uint32(codes.shape[0])):
        apart, is_far = far[f], codes[k] >= FAR_CODE
        last += (apart if is_far else np.int32(codes[k] >> 3)) + np.int32(1)
        genes[k] = last
        f += np.uint32(is_far)


@njit
def unpack_values(
    codes: NDArray[np.uint8], rest: NDArray[np.generic], values: NDArray[np.generic]
) -> None:
    """Written: the values of a row's codes; `rest` begins with the row's values that stand apart."""
    n, r = np.uint32(codes.shape[0]), np.uint32(0)
    for k in range(n):
        values[k] = (codes[k] & REST) + 1
    for k in range(n):
        beside, is_rest = rest[r], codes[k] & REST == REST
        values[k] = beside if is_rest else values[k]
        r += np.uint32(is_rest)


@njit
def scan_rows(
    indptr: NDArray[np.int64],
    codes: NDArray[np.uint8],
    far_at: NDArray[np.int64],
    far: NDArray[np.int32],
    rest_at: NDArray[np.int64],
    rest: NDArray[np.floating],
    kind: int,
    roles: NDArray[np.int32],
    lineages: NDArray[np.int64],
    metrics: NDArray[np.float64],
    sums: NDArray[np.int64],
    panel_indptr: NDArray[np.int64],
    panel_indices: NDArray[np.int32],
    panel_data: NDArray[np.floating],
) -> None:
    """Metrics of each row, its values of the panel and, per lineage, each gene's sum of x.

    Parameters
    ----------
    indptr, codes, far_at, far, rest_at, rest
        The fields of `PackedRows`; no explicit zeros.
    kind
        ``COUNTS``, ``LINEAR`` or ``LOG``.
    roles
        Of each gene, see `gene_roles`.
    lineages
        Per row: its code, -1 for a cell that belongs to none.
    metrics
        Written, rows × 6: total, genes detected, sum of the top 50, mitochondrial, ribosomal,
        haemoglobin sums (of stored values).
    sums
        Added to, lineages × genes: fixed-point sum of x.
    panel_indptr, panel_indices, panel_data
        Written: the panel's values as CSR rows; the last two need room for all values of all rows.
    """
    logs = np.zeros(SMALL, np.int64)
    n_rows = indptr.shape[0] - 1
    longest = 1
    for i in range(n_rows):
        longest = max(longest, indptr[i + 1] - indptr[i])
    large = np.empty(longest)
    genes, values = np.empty(longest, np.int32), np.empty(longest, rest.dtype)
    apart, hits = np.empty(longest + 1, np.uint32), np.empty(longest + 1, np.uint32)
    counts = np.empty(SMALL, np.int64)
    near = np.zeros(REST + 1, np.int64)  # the last stays 0, for what stands apart
    classes = np.empty(3, np.int64)
    has_role = np.empty(roles.shape[0], np.uint8)  # a quarter of the size: it stays in the cache
    for g in range(roles.shape[0]):
        has_role[g] = roles[g] != 0
    taken = 0
    panel_indptr[0] = 0
    for i in range(n_rows):  # loop after loop over a row, which stays in the cache
        own, beside = codes[indptr[i] : indptr[i + 1]], rest[rest_at[i] : rest_at[i + 1]]
        n = np.uint32(own.shape[0])
        counts[:] = 0
        for c in range(REST):
            found = 0
            for k in range(n):
                found += own[k] & REST == c
            counts[c + 1] = found
        m = np.uint32(0)
        for k in range(n):  # written every time, kept if it counts: a wrong guess costs more
            apart[m] = k
            m += np.uint32(own[k] & REST == REST)
        for k in range(n):
            values[k] = (own[k] & REST) + 1
        # a total of whole numbers is exact; a total of fractions is made exact by fixed point, so
        # that the order of genes cannot show
        n_large, fraction = 0, 0
        for j in range(m):
            value = beside[j]
            values[apart[j]] = value
            whole = np.int32(value)
            if np.uint32(whole) < np.uint32(SMALL) and whole == value:
                counts[whole] += 1
            else:
                large[n_large] = value
                n_large += 1
                fraction += int(np.rint(float(value) * _TOTAL_UNIT))
        counted = 0
        for c in range(1, SMALL):
            counted += c * counts[c]
        total = counted + fraction / _TOTAL_UNIT
        metrics[i, 0] = total
        metrics[i, 1] = n
        metrics[i, 2] = _top_sum(values[: np.int64(n)], counts, large, n_large)
        is_summed = lineages[i] >= 0 and total > 0
        if is_summed:
            logs[:] = 0
            for c in range(REST):
                near[c] = expression_fixed(c + 1.0, total, kind, logs)
        else:
            near[:] = 0
        to = sums[max(lineages[i], 0)]
        last, f = np.int32(-1), far_at[i]
        h = np.uint32(0)
        for k in range(n):  # `unpack_genes`, and what is done with each
            step, is_far = far[f], own[k] >= FAR_CODE
            last += (step if is_far else np.int32(own[k] >> 3)) + np.int32(1)
            f += is_far
            gene = np.uint32(last)
            genes[k] = last
            to[gene] += near[own[k] & REST]
            hits[h] = k
            h += np.uint32(has_role[gene])
        if is_summed:
            for j in range(m):
                to[np.uint32(genes[apart[j]])] += expression_fixed(
                    float(beside[j]), total, kind, logs
                )
        classes[:] = 0
        for at in hits[:h]:
            role, value = roles[np.uint32(genes[at])], values[at]
            if role & 7:
                fixed = int(np.rint(float(value) * _TOTAL_UNIT))
                for b in range(3):
                    if role & (1 << b):
                        classes[b] += fixed
            panel_indices[taken] = (role >> 3) - 1
            panel_data[taken] = value
            taken += (role >> 3) > 0
        panel_indptr[i + 1] = taken
        for b in range(3):
            metrics[i, 3 + b] = classes[b] / _TOTAL_UNIT


@njit
def take_rows(
    indptr: NDArray[np.int64],
    codes: NDArray[np.uint8],
    far_at: NDArray[np.int64],
    far: NDArray[np.int32],
    rest_at: NDArray[np.int64],
    rest: NDArray[np.generic],
    rows: NDArray[np.int64],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.int32],
    out_data: NDArray[np.generic],
) -> None:
    """Some rows, unpacked, in the order asked for; `out_indptr` says where each is to lie."""
    for i in range(rows.shape[0]):
        row = rows[i]
        own = codes[indptr[row] : indptr[row + 1]]
        unpack_genes(own, far[far_at[row] :], out_indices[out_indptr[i] :])
        unpack_values(own, rest[rest_at[row] :], out_data[out_indptr[i] :])


@njit
def take_columns(
    indptr: NDArray[np.int64],
    codes: NDArray[np.uint8],
    far_at: NDArray[np.int64],
    far: NDArray[np.int32],
    rest_at: NDArray[np.int64],
    rest: NDArray[np.floating],
    place: NDArray[np.int32],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[np.int32],
    out_data: NDArray[np.floating],
) -> None:
    """The columns with a place >= 0, unpacked, row after row; written into room for all values."""
    longest = 1
    for i in range(indptr.shape[0] - 1):
        longest = max(longest, indptr[i + 1] - indptr[i])
    genes, values = np.empty(longest, np.int32), np.empty(longest, rest.dtype)
    n = 0
    out_indptr[0] = 0
    for i in range(indptr.shape[0] - 1):
        own = codes[indptr[i] : indptr[i + 1]]
        unpack_genes(own, far[far_at[i] :], genes)
        unpack_values(own, rest[rest_at[i] :], values)
        for k in range(own.shape[0]):
            at = place[genes[k]]
            if at >= 0:
                out_indices[n] = at
                out_data[n] = values[k]
                n += 1
        out_indptr[i + 1] = n


class GeneSets(NamedTuple):
    """gene -> (set, weight), for several lineages at once.

    offsets: lineages × (genes + 1), into `sets` and `weights`.
    sets: position of a set = signature × (N + 1) + j; j = 0 is the signature, 1..N its nulls.
    weights: fixed point, signed.
    """

    offsets: NDArray[np.int64]
    sets: NDArray[np.int32]
    weights: NDArray[np.int64]


class Walk(NamedTuple):
    """`GeneSets` as cells are walked over: the genes of a cell sorted by how many sets they are in.

    A loop whose length changes from gene to gene costs more than what it adds up: the processor
    guesses where it ends and guesses wrong. Sorted, it guesses right.

    offsets: as in `GeneSets`. entries: the weight in the upper 32 bits, the set in the lower. size:
    lineages × genes, sets of a gene, at most `LONG`. start: lineages × (LONG + 1), where the genes of
    each size begin among all of the lineage.
    """

    offsets: NDArray[np.uint32]
    entries: NDArray[np.int64]
    size: NDArray[np.uint8]
    start: NDArray[np.uint32]


def make_walk(table: GeneSets) -> Walk:
    """Arrange gene sets for `score_rows` and `null_z_rows`."""
    size = np.minimum(np.diff(table.offsets, axis=1), LONG).astype(np.uint8)
    counts = [np.bincount(one, minlength=LONG + 1)[: LONG + 1] for one in size]
    start = np.cumsum(counts, axis=1) - counts if len(counts) else np.zeros((0, LONG + 1))
    return Walk(
        table.offsets.astype(np.uint32),
        (table.weights << 32) | table.sets,
        size,
        np.asarray(start, np.uint32),
    )


@njit
def _gather(
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    start: int,
    stop: int,
    total: float,
    kind: int,
    offsets: NDArray[np.uint32],
    entries: NDArray[np.int64],
    size: NDArray[np.uint8],
    begin: NDArray[np.uint32],
    logs: NDArray[np.int64],
    whole: NDArray[np.int32],
    cursor: NDArray[np.uint32],
    places: NDArray[np.uint32],
    values: NDArray[np.int64],
    acc: NDArray[np.int64],
) -> None:
    """Add the row's genes to the sums of the sets they belong to; `acc` starts at 0.

    A gene is put down by where its entries begin: that is looked up while genes come in their order.
    `whole` has room for the row's values as small counts, `SMALL` for all others, of which `logs` has no
    logarithm.
    """
    n = np.uint32(stop - start)
    genes, counts = indices[start:stop], data[start:stop]
    logs[:] = 0
    if kind == COUNTS:
        for k in range(n):  # without a branch, so that it is done several at a time
            small = np.int32(counts[k]) & np.int32(SMALL - 1)
            whole[k] = small if small == counts[k] else np.int32(SMALL)
        for c in range(1, _COMMON):
            logs[c] = log_fixed(c * TARGET_SUM / total)
    else:
        whole[: np.int64(n)] = SMALL
    for t in range(LONG + 1):
        cursor[t] = begin[t]
    for k in range(n):
        gene = np.uint32(genes[k])
        x = logs[np.uint32(whole[k])]
        if x == 0:
            x = expression_fixed(float(counts[k]), total, kind, logs)
        t = size[gene]
        p = cursor[t]
        places[p] = gene if t == LONG else offsets[gene]
        values[p] = x
        cursor[t] = p + np.uint32(1)
    for t in range(1, LONG):
        for p in range(begin[t], cursor[t]):
            x, first = values[p], places[p]
            for e in range(first, first + np.uint32(t)):
                entry = entries[e]
                acc[np.uint32(entry)] += x * (entry >> 32)
    for p in range(begin[LONG], cursor[LONG]):
        x, gene = values[p], places[p]
        for e in range(offsets[gene], offsets[gene + np.uint32(1)]):
            entry = entries[e]
            acc[np.uint32(entry)] += x * (entry >> 32)


@njit
def _deviations(
    acc: NDArray[np.int64], base: int, n_null: int, own: NDArray[np.float64]
) -> tuple[float, float]:
    """How far each null sum is from their mean, into `own[1:]`; that mean, and the summed squares."""
    total = 0
    for j in range(1, n_null + 1):
        total += acc[base + j]
    mean = total / n_null
    for j in range(1, n_null + 1):
        own[j] = acc[base + j] - mean
    # eight sums side by side, for a processor waits for one sum before it adds to it again
    lanes = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    a, b, c, d, e, f, g, h = lanes
    j = 1
    while j + 8 <= n_null + 1:
        a += own[j] * own[j]
        b += own[j + 1] * own[j + 1]
        c += own[j + 2] * own[j + 2]
        d += own[j + 3] * own[j + 3]
        e += own[j + 4] * own[j + 4]
        f += own[j + 5] * own[j + 5]
        g += own[j + 6] * own[j + 6]
        h += own[j + 7] * own[j + 7]
        j += 8
    squares = ((a + b) + (c + d)) + ((e + f) + (g + h))
    while j < n_null + 1:
        squares += own[j] * own[j]
        j += 1
    return mean, squares


@njit
def inverse_root(x: float) -> float:
    """1 / sqrt(x) of a number between 1e-30 and 1e30, to 2e-14 of it.

    A root and a division in single precision and a step of Newton's, several numbers at a time: a
    third of what they cost in double precision. The bits do not depend on how many at a time.
    """
    root = np.float64(np.float32(1.0) / np.sqrt(np.float32(x)))
    return float(root * (1.5 - 0.5 * x * root * root))


@njit
def _null_z(squares: float, n_null: int, own: NDArray[np.float64]) -> None:
    """z of each null set into `own[1:]`, from what `_deviations` left there.

    Each null set is measured against the others, as the signature is measured against all: with u
    its deviation over the root of the summed squares, z = u N sqrt(N - 2) / (N - 1) / sqrt(1 - u^2
    N / (N - 1)). NaN where it alone is expressed.
    """
    ratio = n_null / (n_null - 1.0)
    scale = ratio * np.sqrt((n_null - 2.0) / squares)
    share = ratio / squares
    # without a branch, so that it is done several at a time
    for j in range(1, n_null + 1):
        deviation = own[j]
        rest = 1.0 - share * deviation * deviation
        own[j] = deviation * scale * inverse_root(rest if rest > NOTHING else np.nan)


@njit
def score_rows(
    indptr: NDArray[np.int64],
    codes: NDArray[np.uint8],
    far_at: NDArray[np.int64],
    far: NDArray[np.int32],
    rest_at: NDArray[np.int64],
    rest: NDArray[np.floating],
    kind: int,
    totals: NDArray[np.float64],
    lineages: NDArray[np.int64],
    strata: NDArray[np.int64],
    order: NDArray[np.int64],
    offsets: NDArray[np.uint32],
    entries: NDArray[np.int64],
    size: NDArray[np.uint8],
    begin: NDArray[np.uint32],
    usable: NDArray[np.bool_],
    n_null: int,
    centres: NDArray[np.float64],
    score: NDArray[np.float64],
    z: NDArray[np.float64],
    histogram: NDArray[np.integer],
    groups: NDArray[np.int64],
    group_sums: NDArray[np.int64],
) -> None:
    """Score, z and the pooled null of each row, inside the lineage given by its code.

    Parameters
    ----------
    indptr, codes, far_at, far, rest_at, rest
        The fields of `PackedRows`.
    totals, lineages, strata
        Per row: total of its values, lineage (-1: not scored), depth stratum (-1: scored, but
        not part of the null: the cell failed quality control, or others of its stratum suffice).
    order
        The rows in the order to work in. Nothing depends on it but speed: with cells of one lineage
        and depth one after another, their sets and bins are still in the processor's cache.
    offsets, entries, size, begin
        The fields of `Walk`.
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
    width = n_null + 1
    logs = np.zeros(SMALL + 1, np.int64)  # the last stays 0, for all that are not small counts
    genes, counts = np.empty(size.shape[1], np.int32), np.empty(size.shape[1], rest.dtype)
    whole = np.empty(size.shape[1], np.int32)
    acc = np.zeros(n_signatures * width, np.int64)
    cursor = np.empty(LONG + 1, np.uint32)
    places, values = np.empty(size.shape[1], np.uint32), np.empty(size.shape[1], np.int64)
    own = np.empty(width)
    place = np.empty(width, np.uint32)
    for i in order:
        code = lineages[i]
        if code < 0 or totals[i] <= 0:
            continue
        for s in range(n_signatures):
            if usable[code, s]:
                acc[s * width : (s + 1) * width] = 0
        own_codes = codes[indptr[i] : indptr[i + 1]]
        unpack_genes(own_codes, far[far_at[i] :], genes)
        unpack_values(own_codes, rest[rest_at[i] :], counts)
        _gather(
            genes, counts, 0, own_codes.shape[0], totals[i], kind,
            offsets[code], entries, size[code], begin[code], logs, whole, cursor, places, values, acc,
        )  # fmt: skip
        group, stratum = groups[i], strata[i]
        for s in range(n_signatures):
            if not usable[code, s]:
                continue
            base = s * width
            if group >= 0:
                sums = group_sums[group, base : base + width]
                for j in range(width):
                    sums[j] += (acc[base + j] + _HALF) >> GROUP_SHIFT
            mean, squares = _deviations(acc, base, n_null, own)
            distance = acc[base] - mean
            score[i, s] = distance / UNIT
            if squares <= 0:  # no null set is expressed
                continue
            z[i, s] = distance / np.sqrt(squares / (n_null - 1.0)) - centres[code, s, 0]
            if stratum < 0:
                continue
            _null_z(squares, n_null, own)
            centre = centres[code, s]
            for j in range(1, width):
                value = (own[j] - centre[j] - Z_MIN) * BINS_PER_Z
                inside = min(max(value, 0.0), N_BINS - 1.0)
                place[j] = np.uint32(
                    inside if value == value else float(N_BINS)
                )  # NaN is not itself
            bins = histogram[code, s, stratum]
            for j in range(1, width):
                if place[j] < N_BINS:
                    bins[place[j]] += 1


@njit
def null_z_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    kind: int,
    totals: NDArray[np.float64],
    offsets: NDArray[np.uint32],
    entries: NDArray[np.int64],
    size: NDArray[np.uint8],
    begin: NDArray[np.uint32],
    n_null: int,
    out: NDArray[np.float64],
) -> None:
    """z of the signature and of every null set, not centred: rows × signatures × (N + 1).

    All cells are of the first lineage of the `Walk`. NaN where a cell expresses none of the genes
    involved.
    """
    n_signatures = out.shape[1]
    logs = np.zeros(SMALL + 1, np.int64)  # the last stays 0, for all that are not small counts
    whole = np.empty(size.shape[1], np.int32)
    acc = np.zeros(n_signatures * (n_null + 1), np.int64)
    cursor = np.empty(LONG + 1, np.uint32)
    places, values = np.empty(size.shape[1], np.uint32), np.empty(size.shape[1], np.int64)
    own = np.empty(n_null + 1)
    for i in range(indptr.shape[0] - 1):
        for s in range(n_signatures):
            for j in range(n_null + 1):
                out[i, s, j] = np.nan
        if totals[i] <= 0:
            continue
        acc[:] = 0
        _gather(
            indices, data, indptr[i], indptr[i + 1], totals[i], kind,
            offsets[0], entries, size[0], begin[0], logs, whole, cursor, places, values, acc,
        )  # fmt: skip
        for s in range(n_signatures):
            base = s * (n_null + 1)
            mean, squares = _deviations(acc, base, n_null, own)
            if squares <= 0:
                continue
            _null_z(squares, n_null, own)
            out[i, s, 0] = (acc[base] - mean) / np.sqrt(squares / (n_null - 1.0))
            for j in range(1, n_null + 1):
                out[i, s, j] = own[j]
