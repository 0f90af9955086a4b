"""Rank scores, UCell and AUCell, from sparse rows without sorting or filling them in.

Both scores are sums over a set's genes of a function of the gene's rank in its cell, and a rank is
known once two numbers are: how many genes of the cell are higher, and how many equal. For raw
counts a histogram of the row gives both; for any other values the row's values are placed among
those of the signature genes by binary search. Only stored values are touched: genes at zero share
one rank, found by subtraction. All sums are integers, so a score is the same, to the bit, in any
block, on any number of threads and for any order of rows or genes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from senoscore.errors import InputDataError
from senoscore.kernels._numba import fetch, njit, over_rows
from senoscore.kernels.sets import (
    SetIndex,
    check_rows,
    make_set_index,
    membership,
    refuse_stray,
)

__all__ = ["SetIndex", "aucell", "make_set_index", "ucell"]

#: Rows of integers below this are ranked by histogram. Few cells hold a higher count (those take
#: the general path), and the histogram stays within the fastest cache.
N_BINS = 4096

# the highest value that has a bin, as the bits of a float
_LAST_32 = np.float32(N_BINS - 1).view(np.uint32)
_LAST_64 = np.float64(N_BINS - 1).view(np.uint64)
# from one histogram to the next; not a multiple of 4 KiB, which processors take for one place
_LANE = np.uint64(N_BINS + 272)

#: AUCell credits are rounded to this fraction of a rank. Sums stay within 63 bits for 2**16 genes
#: in a set and ``n_up`` up to 2**16, and the error (2**-31 of a rank) is below that of float64
#: arithmetic on the final score.
UNIT = 2.0**30


@njit
def _key(bits: int, width: int) -> int:
    """An integer that orders as the float behind these bits does; 0 for zero, -0.0 and NaN."""
    key = np.int64(bits)
    # magnitudes of negative floats grow away from zero: turn their bits around
    if width == 4:
        key ^= (key >> 31) & 0x7FFFFFFF
        infinity = np.int64(0x7F800000)
    else:
        key ^= (key >> 63) & 0x7FFFFFFFFFFFFFFF
        infinity = np.int64(0x7FF0000000000000)
    if key == -1 or key > infinity or key < -infinity - 1:
        key = np.int64(0)
    return key  # type: ignore[return-value]


@njit
def _place(
    keys: NDArray[np.int64],
    n: int,
    values: NDArray[np.int64],
    n_values: int,
    places: NDArray[np.uint32],
) -> None:
    """For each of n keys, how many of the sorted `values` are below it.

    One binary search for all: step by step over the keys, not key by key, so that no step waits
    for the last and none is a branch to mispredict (five times faster than searching for each).
    `values` has room for ``2 * n_values + 2`` and is padded here.
    """
    size = 1
    while size <= n_values:
        size *= 2
    values[n_values:size] = np.iinfo(np.int64).max
    places[:n] = 0
    step = np.uint32(size // 2)
    while step > 0:
        for j in range(n):
            places[j] += step * np.uint32(values[places[j] + step - np.uint32(1)] < keys[j])
        step >>= np.uint32(1)


@njit
def _highest(values: NDArray[Any]) -> int:
    """The highest of a row's columns, or of its values' bits, as unsigned integers.

    Besides proving that no lookup will fall outside its table, this reads the row in order, many
    values at a time, which brings it into the cache: what follows looks values up one by one, and
    straight from memory that takes twice as long.
    """
    highest = values.dtype.type(0)
    for j in range(len(values)):
        highest = max(highest, values[j])
    return highest  # type: ignore[no-any-return]


@njit
def _whole_counts(row: NDArray[Any], whole: NDArray[np.uint16]) -> int:
    """A row of values from 0 to N_BINS - 1 as integers, and the highest; -1 if not all are whole."""
    # two loops without branches or sums, so that many values are done at a time
    none = np.int32(N_BINS)
    for j in range(len(row)):
        count = np.int32(row[j])
        whole[j] = np.uint16(count if row.dtype.type(count) == row[j] else none)
    top = np.uint16(0)
    for j in range(len(row)):
        top = max(top, whole[j])
    return int(top) if top < N_BINS else -1


@njit
def _rank_counts(
    row: NDArray[Any],
    bits: NDArray[Any],
    columns: NDArray[np.uint32],
    marked: NDArray[np.uint8],
    whole: NDArray[np.uint16],
    bins: NDArray[np.int32],
    above: NDArray[np.int32],
    hits: NDArray[np.int32],
    higher: NDArray[np.int64],
    equal: NDArray[np.int64],
) -> tuple[int, int]:
    """Ranks in a row of integers below N_BINS, by histogram; returns hits and values above zero.

    Returns -1 hits if the row is not of that kind. `bins` is all zeros before and after.
    """
    # bits order as their floats do, and those of negative values, of -0.0 and NaN come last
    if bits.itemsize == 4:
        top = -1 if _highest(bits.view(np.uint32)) > _LAST_32 else 0
    else:
        top = -1 if _highest(bits.view(np.uint64)) > _LAST_64 else 0
    if top == 0:
        top = _whole_counts(row, whole)
    if top < 0:
        return -1, 0
    n = np.uint64(len(row))
    n_hits = np.uint64(0)
    start = np.uint64(0)
    # four histograms in turns: most counts are 1, and one addition to a bin waits for the last
    while start + np.uint64(4) <= n:
        if start % np.uint64(16) == 0:  # the row that follows, one line of memory at a time
            fetch(columns, n + start)
            fetch(row, n + start)
        for lane in range(4):
            j = start + np.uint64(lane)
            bins[np.uint64(lane) * _LANE + np.uint64(whole[j])] += 1
            hits[n_hits] = j
            n_hits += np.uint64(marked[columns[j]])
        start += np.uint64(4)
    while start < n:
        bins[np.uint64(whole[start])] += 1
        hits[n_hits] = start
        n_hits += np.uint64(marked[columns[start]])
        start += np.uint64(1)
    for b in range(top + 1):
        at = np.uint64(b)
        above[at] = (
            bins[at]
            + bins[at + _LANE]
            + bins[at + np.uint64(2) * _LANE]
            + bins[at + np.uint64(3) * _LANE]
        )
    for lane in range(4):
        bins[lane * np.int64(_LANE) : lane * np.int64(_LANE) + top + 1] = 0
    # above[b] becomes the number of values above b - 1
    total = np.int32(0)
    above[top + 1] = 0
    for b in range(top, -1, -1):
        total += above[b]
        above[b] = total
    kept = 0
    for k in range(n_hits):
        b = whole[hits[k]]
        hits[kept] = hits[k]
        higher[kept] = above[b + 1]
        equal[kept] = above[b] - above[b + 1]
        kept += b > 0  # an explicit zero is a zero
    return kept, above[1]


@njit
def _rank_any(
    bits: NDArray[Any],
    columns: NDArray[np.uint32],
    marked: NDArray[np.uint8],
    n_vars: int,
    hits: NDArray[np.int32],
    higher: NDArray[np.int64],
    equal: NDArray[np.int64],
    keys: NDArray[np.int64],
    values: NDArray[np.int64],
    places: NDArray[np.uint32],
    counts: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Ranks in a row of any values: each is placed among the values of the marked genes.

    Returns hits, values above zero, and values below zero.
    """
    n = len(bits)
    width = bits.itemsize
    n_hits = 0
    n_above = 0
    n_below = 0
    for j in range(n):
        key = _key(bits[j], width)
        keys[j] = key
        n_above += key > 0
        n_below += key < 0
        hits[n_hits] = j
        values[n_hits] = key
        n_hits += marked[columns[j]] & (key != 0)
    if n_hits == 0:
        return 0, n_above, n_below
    values[:n_hits].sort()
    n_values = 0
    for k in range(n_hits):
        if n_values == 0 or values[k] != values[n_values - 1]:
            values[n_values] = values[k]
            n_values += 1
    _place(keys, n, values, n_values, places)
    # counts[2 * i + 1]: row values equal to values[i]; counts[2 * i]: those between it and the last
    counts[: 2 * n_values + 2] = 0
    for j in range(n):
        i = places[j]
        counts[np.uint32(2) * i + np.uint32(values[i] == keys[j])] += 1
    total = 0
    for q in range(2 * n_values + 1, -1, -1):
        count = counts[q]
        counts[q] = total
        total += count
    for k in range(n_hits):
        i = places[hits[k]]
        # zeros that are not stored lie above every negative value
        higher[k] = counts[2 * i + 1] + (n_vars - n) * (keys[hits[k]] < 0)
        equal[k] = counts[2 * i] - counts[2 * i + 1]
    return n_hits, n_above, n_below


@njit
def _rank_row(
    data: NDArray[Any],
    bits: NDArray[Any],
    columns: NDArray[np.uint32],
    marked: NDArray[np.uint8],
    n_vars: int,
    whole: NDArray[np.uint16],
    bins: NDArray[np.int32],
    above: NDArray[np.int32],
    hits: NDArray[np.int32],
    higher: NDArray[np.int64],
    equal: NDArray[np.int64],
    keys: NDArray[np.int64],
    values: NDArray[np.int64],
    places: NDArray[np.uint32],
    counts: NDArray[np.int64],
) -> tuple[int, int, int]:
    """For each value of a marked gene other than zero: how many are higher, how many equal (itself
    included), in `higher` and `equal`; its place in the row in `hits`.

    Returns the number of such values, and how many values of the row are above and below zero.
    """
    n_hits, n_above = _rank_counts(
        data, bits, columns, marked, whole, bins, above, hits, higher, equal
    )
    if n_hits >= 0:
        return n_hits, n_above, 0
    return _rank_any(
        bits, columns, marked, n_vars, hits, higher, equal, keys, values, places, counts
    )


@njit
def _add_gains(
    gains: NDArray[np.int64],
    slots: NDArray[np.int32],
    n: int,
    first: NDArray[np.int64],
    owner: NDArray[np.int64],
    credit: NDArray[np.int64],
) -> None:
    """Add what each of n genes gained to the sets it is in; `gains` and `slots` are used up.

    The first set of all genes, then the second of those that have one, and so on: in how many sets
    the next gene is cannot be predicted.
    """
    level = 0
    while n > 0:
        left = 0
        for k in range(n):
            entry, end = first[slots[k]] + level, first[slots[k] + 1]
            credit[owner[entry]] += gains[k]
            gains[left], slots[left] = gains[k], slots[k]
            left += entry + 1 < end
        n, level = left, level + 1


@njit
def _longest(indptr: NDArray[np.int64], start: int, stop: int) -> int:
    longest = 0
    for i in range(start, stop):
        longest = max(longest, indptr[i + 1] - indptr[i])
    return longest


@njit
def _ucell_rows(
    first_row: int,
    last_row: int,
    indptr: NDArray[np.int64],
    columns: NDArray[np.uint32],
    data: NDArray[Any],
    bits: NDArray[Any],
    n_vars: int,
    marked: NDArray[np.uint8],
    slot: NDArray[np.int32],
    first: NDArray[np.int64],
    arm: NDArray[np.int64],
    n_found: NDArray[np.int64],
    most: NDArray[np.int64],
    max_rank: int,
    w_neg: float,
    lowest: float,
    scores: NDArray[np.float64],
    stray: NDArray[np.bool_],
) -> None:
    longest = _longest(indptr, first_row, last_row)
    whole = np.empty(longest, np.uint16)
    bins = np.zeros(4 * np.int64(_LANE), np.int32)
    above = np.empty(N_BINS + 1, np.int32)
    hits = np.empty(longest + 1, np.int32)
    higher = np.empty(longest + 1, np.int64)
    equal = np.empty(longest + 1, np.int64)
    keys = np.empty(longest, np.int64)
    values = np.empty(2 * longest + 2, np.int64)
    places = np.empty(longest, np.uint32)
    counts = np.empty(2 * longest + 2, np.int64)
    gains = np.empty(longest + 1, np.int64)
    slots = np.empty(longest + 1, np.int32)
    # half ranks below max_rank, summed over an arm's genes
    credit = np.empty(len(n_found), np.int64)
    for i in range(first_row, last_row):
        row = slice(indptr[i], indptr[i + 1])
        stray[i] = _highest(columns[row]) >= n_vars
        if stray[i]:
            continue
        n_hits, n_above, n_below = _rank_row(
            data[row], bits[row], columns[row], marked, n_vars,
            whole, bins, above, hits, higher, equal, keys, values, places, counts,
        )  # fmt: skip
        gain_zero = 0
        if n_below > 0:  # only then is a zero more than "not detected", and has a rank
            n_zero = n_vars - n_above - n_below
            gain_zero = max(2 * max_rank - (2 * n_above + n_zero + 1), 0)
        # what a gene at zero gets; those that are not zero get the rest below
        for s in range(len(n_found)):
            credit[s] = gain_zero * n_found[s]
        for k in range(n_hits):
            gain = max(2 * max_rank - (2 * higher[k] + equal[k] + 1), 0)
            gains[k] = gain - gain_zero
            slots[k] = slot[columns[indptr[i] + hits[k]]]
        _add_gains(gains, slots, n_hits, first, arm, credit)
        for s in range(len(n_found) // 2):
            up, down = 2 * s, 2 * s + 1
            score = np.nan
            if n_found[up] + n_found[down] > 0:
                score = 0.0
                if most[up] > 0:
                    score = credit[up] / most[up]
                if most[down] > 0:
                    score -= w_neg * (credit[down] / most[down])
                score = max(score, lowest)
            scores[i, s] = score


def _bits(data: NDArray[Any]) -> NDArray[Any]:
    """The same memory as integers: numba cannot look at the bits of a float."""
    return data.view(np.int32 if data.dtype.itemsize == 4 else np.int64)


def ucell(
    indptr: ArrayLike,
    indices: ArrayLike,
    data: ArrayLike,
    n_vars: int,
    sets: SetIndex,
    *,
    max_rank: int = 1500,
    w_neg: float = 1.0,
    clip: bool = True,
    threads: int = 1,
) -> NDArray[np.float64]:
    r"""How far up its cell's ranking a gene set stands: UCell, the Mann-Whitney U as a fraction.

    Genes of a cell are ranked from the highest (rank 1), ties sharing their average rank; a rank
    above `max_rank`, a gene that is not detected, and a gene the data lack (``sets.n_missing``)
    count as `max_rank`. With :math:`n` genes and rank sum :math:`R`,

    .. math:: U = 1 - (R - R_{min}) / (n \cdot max\_rank - R_{min}), \quad R_{min} = n (n + 1) / 2

    and the score is :math:`U_{up} - w_{neg} U_{down}`, not below 0 unless `clip` is off.

    *How to read it*: 1, the set's genes are the cell's highest; 0, none is among the top
    `max_rank`. It falls with sequencing depth, and a set of down genes only is 0 everywhere if
    clipped.

    Andreatta & Carmona 2021, doi:10.1016/j.csbj.2021.06.043. Equal to pyUCell 0.8 within float32
    rounding (it computes in float32), except:

    * rows with negative values: a zero then takes its true rank, between positive and negative
      values, where pyUCell puts it behind the negative ones;
    * a set with more than `max_rank` genes: :math:`R_{min}` is the smallest rank sum that can be
      reached once ranks stop at `max_rank`, so that scores stay within [0, 1];
    * a set of which no gene is in the data is NaN, not 0.

    Parameters
    ----------
    indptr, indices, data
        Rows as CSR, each column at most once in a row. Explicit zeros and NaN count as zero.
    n_vars
        Number of columns of the whole matrix.
    sets
        From :func:`make_set_index`.
    max_rank
        Ranks beyond this are all the same; at least 2.
    w_neg
        Weight of the down genes.
    clip
        Replace negative scores by 0, as UCell does.
    threads
        Rows are shared among so many threads; the scores are the same for any number.

    Returns
    -------
    ``rows x sets``, float64: [0, 1]; without `clip`, down to ``-w_neg``. NaN: no gene found.

    Raises
    ------
    InputDataError
        The arrays are not CSR rows of `n_vars` columns, or `max_rank` is below 2.
    SignatureError
        A set names a column that does not exist.

    Examples
    --------
    Three genes at 5, 1 and 1 counts rank 1, 2.5 and 2.5; the fourth is not detected.

    >>> index = make_set_index([([0], 1), ([1, 2], 1), ([3], 1)])
    >>> ucell([0, 3], [0, 1, 2], [5, 1, 1], 4, index, max_rank=4).round(3).tolist()
    [[1.0, 0.6, 0.0]]
    """
    if max_rank < 2:
        raise InputDataError(f"max_rank must be at least 2, found {max_rank}")
    pointers, columns, values = check_rows(indptr, indices, data, n_vars, look=False)
    table = membership(sets, n_vars)
    n_found = sets.n_found()
    reach = np.minimum(n_found + sets.n_missing, max_rank)
    most = 2 * reach * max_rank - reach * (reach + 1)  # credit of the best possible cell
    scores = np.empty((len(pointers) - 1, sets.n_sets))
    stray = np.empty(len(scores), bool)
    over_rows(
        _ucell_rows, pointers, columns, values, _bits(values), n_vars,
        table.marked, table.slot, table.first, table.arm, n_found.ravel(), most.ravel(),
        int(max_rank), float(w_neg), 0.0 if clip else -np.inf, scores, stray, threads=threads,
    )  # fmt: skip
    refuse_stray(columns, stray, n_vars)
    return scores


@njit
def _credit(n_higher: int, n_equal: int, n_up: int) -> int:
    """Mean of ``max(n_up - rank, 0)`` over the ranks of a tie, in units of 2**-30."""
    room = n_up - n_higher
    if room <= 0:
        return 0
    inside = min(n_equal, room)
    total = inside * room - inside * (inside + 1) // 2
    return int(np.rint(total / n_equal * UNIT))


@njit
def _count_earlier(
    bits: NDArray[Any],
    hits: NDArray[np.int32],
    n_hits: int,
    higher: NDArray[np.int64],
    equal: NDArray[np.int64],
    n_up: int,
    earlier: NDArray[np.int64],
) -> None:
    """For each marked value, how many equal values stand before it in the row."""
    width = bits.itemsize
    for k in range(n_hits):
        earlier[k] = 0
        if equal[k] == 1 or higher[k] >= n_up:  # no tie, or out of reach in any order
            continue
        key = _key(bits[hits[k]], width)
        for j in range(hits[k]):
            earlier[k] += _key(bits[j], width) == key


@njit
def _aucell_rows(
    first_row: int,
    last_row: int,
    indptr: NDArray[np.int64],
    columns: NDArray[np.uint32],
    data: NDArray[Any],
    bits: NDArray[Any],
    n_vars: int,
    marked: NDArray[np.uint8],
    slot: NDArray[np.int32],
    genes: NDArray[np.int64],
    first: NDArray[np.int64],
    owner: NDArray[np.int64],
    n_found: NDArray[np.int64],
    most: NDArray[np.int64],
    n_up: int,
    in_order: bool,  # noqa: FBT001 (kernels take no keywords)
    scores: NDArray[np.float64],
    stray: NDArray[np.bool_],
) -> None:
    longest = _longest(indptr, first_row, last_row)
    whole = np.empty(longest, np.uint16)
    bins = np.zeros(4 * np.int64(_LANE), np.int32)
    above = np.empty(N_BINS + 1, np.int32)
    hits = np.empty(longest + 1, np.int32)
    higher = np.empty(longest + 1, np.int64)
    equal = np.empty(longest + 1, np.int64)
    earlier = np.empty(longest, np.int64)
    keys = np.empty(longest, np.int64)
    values = np.empty(2 * longest + 2, np.int64)
    places = np.empty(longest, np.uint32)
    counts = np.empty(2 * longest + 2, np.int64)
    gains = np.empty(longest + 1, np.int64)
    slots = np.empty(longest + 1, np.int32)
    credit = np.empty(len(n_found), np.int64)
    width = bits.itemsize
    for i in range(first_row, last_row):
        row = slice(indptr[i], indptr[i + 1])
        stray[i] = _highest(columns[row]) >= n_vars
        if stray[i]:
            continue
        n_hits, n_above, n_below = _rank_row(
            data[row], bits[row], columns[row], marked, n_vars,
            whole, bins, above, hits, higher, equal, keys, values, places, counts,
        )  # fmt: skip
        if in_order:
            _count_earlier(bits[row], hits, n_hits, higher, equal, n_up, earlier)
        n_zero = n_vars - n_above - n_below
        # what a gene at zero gets; those that are not zero are taken out below
        gain_zero = 0
        if not in_order and n_zero > 0:
            gain_zero = _credit(n_above, n_zero, n_up)
        for s in range(len(n_found)):
            credit[s] = gain_zero * n_found[s]
        for k in range(n_hits):
            before = earlier[k] if in_order else 0
            gain = _credit(higher[k] + before, 1 if in_order else equal[k], n_up)
            gains[k] = gain - gain_zero
            slots[k] = slot[columns[indptr[i] + hits[k]]]
        _add_gains(gains, slots, n_hits, first, owner, credit)
        if in_order and n_above < n_up:
            # walk the signature genes and the row's values together, in the order of columns
            j = indptr[i]
            n_before = 0
            for s in range(len(genes)):
                while j < indptr[i + 1] and columns[j] < genes[s]:
                    n_before += _key(bits[j], width) != 0
                    j += 1
                stored = j < indptr[i + 1] and columns[j] == genes[s]
                if not stored or _key(bits[j], width) == 0:
                    gain = _credit(n_above + genes[s] - n_before, 1, n_up)
                    for m in range(first[s], first[s + 1]):
                        credit[owner[m]] += gain
        for s in range(len(n_found)):
            scores[i, s] = credit[s] / (most[s] * UNIT) if n_found[s] > 0 else np.nan


def aucell(
    indptr: ArrayLike,
    indices: ArrayLike,
    data: ArrayLike,
    n_vars: int,
    sets: SetIndex,
    *,
    n_up: int | None = None,
    tie_order: ArrayLike | None = None,
    threads: int = 1,
) -> NDArray[np.float64]:
    r"""How early a gene set is recovered among a cell's highest genes: AUCell.

    With ranks :math:`r` from the highest gene (1) down, over the set's :math:`n` up genes,

    .. math:: AUC = \sum_g \max(n_{up} - r_g, 0) \Big/ \sum_{k=1}^{n} \max(n_{up} - k, 0)

    Genes of equal value have no order, and the originals draw one at random: once for all cells
    (decoupler) or cell by cell (R). Here the score is the **mean over all orders** of tied genes,
    exactly: each gene of a tie gets the mean of :math:`\max(n_{up} - r, 0)` over the ranks that
    the tie spans. It depends neither on a seed nor on the order of genes. Genes at zero are a tie
    like any other, so they count, a little, in cells that express fewer than `n_up` genes.

    *How to read it*: 1, the set's genes are the cell's highest; 0, none is among the top `n_up`.

    Aibar et al. 2017, doi:10.1038/nmeth.4463. With `tie_order` equal to decoupler 2.2 within
    float64 rounding. Down genes are left out: AUCell does not know them (decoupler takes them for
    up genes). Genes the data lack are left out, as in decoupler.

    Parameters
    ----------
    indptr, indices, data
        Rows as CSR, each column at most once in a row. Explicit zeros and NaN count as zero.
    n_vars
        Number of columns of the whole matrix. decoupler first drops columns that are zero in all
        cells of its input, so give it the same columns to compare the two.
    sets
        From :func:`make_set_index`.
    n_up
        How many of the highest genes count; default 5 % of `n_vars`, rounded up.
    tie_order
        A permutation of the columns: of tied genes the one that stands first in it ranks higher.
        decoupler's is ``np.random.default_rng(0).choice(np.arange(n_vars), n_vars, replace=False)``
    threads
        Rows are shared among so many threads; the scores are the same for any number.

    Returns
    -------
    ``rows x sets``, float64 in [0, 1]. NaN: no up gene of the set is in the data.

    Raises
    ------
    InputDataError
        The arrays are not CSR rows of `n_vars` columns, `n_up` is not within 2 and `n_vars`, or
        `tie_order` is not a permutation of the columns.
    SignatureError
        A set names a column that does not exist.

    Examples
    --------
    The top 2 of 4 genes count. Alone at the top the first gene gets all; the second and third
    share ranks 2 and 3, worth nothing.

    >>> index = make_set_index([([0], 1), ([1, 2], 1)])
    >>> aucell([0, 3], [0, 1, 2], [5, 1, 1], 4, index, n_up=2).tolist()
    [[1.0, 0.0]]

    With three genes on top, each is first in one order of three:

    >>> aucell([0, 3], [0, 1, 2], [1, 1, 1], 4, index, n_up=2).round(3).tolist()
    [[0.333, 0.667]]
    """
    if n_up is None:
        n_up = max(2, -(-n_vars // 20))
    if not 2 <= n_up <= n_vars:
        raise InputDataError(
            f"n_up must be between 2 and the number of genes ({n_vars}), found {n_up}"
        )
    look = tie_order is not None  # it looks columns up before the kernel does
    pointers, columns, values = check_rows(indptr, indices, data, n_vars, look=look)
    if tie_order is not None:
        order = np.asarray(tie_order, dtype=np.int64)
        if not np.array_equal(np.sort(order), np.arange(n_vars)):
            raise InputDataError(f"tie_order must hold each of the {n_vars} columns once")
        # give the columns the names of their places, so that order of columns is order of ties
        place = np.empty(n_vars, dtype=np.uint32)
        place[order] = np.arange(n_vars)
        renamed = sparse.csr_matrix(
            (values.copy(), place[columns].astype(np.int32), pointers),
            shape=(len(pointers) - 1, n_vars),
        )
        renamed.sort_indices()
        columns, values = renamed.indices.astype(np.uint32), renamed.data
        sets = replace(sets, genes=place[sets.genes].astype(np.int64))
    table = membership(sets, n_vars, only_up=True)
    n_found = sets.n_found()[:, 0]
    reach = np.minimum(n_found, n_up)
    most = reach * n_up - reach * (reach + 1) // 2
    scores = np.empty((len(pointers) - 1, sets.n_sets))
    stray = np.empty(len(scores), bool)
    over_rows(
        _aucell_rows, pointers, columns, values, _bits(values), n_vars,
        table.marked, table.slot, table.columns, table.first, table.arm // 2, n_found, most,
        int(n_up), tie_order is not None, scores, stray, threads=threads,
    )  # fmt: skip
    refuse_stray(columns, stray, n_vars)
    return scores
