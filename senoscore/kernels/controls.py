"""Choosing control genes: the nearest in mean, on sorted arrays, and null sets drawn from them.

Random numbers come from a stream (splitmix64) that belongs to one signature, lineage and gene by
their names: a draw depends on nothing else that is drawn, nor on the order of genes or cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@njit
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit
def streams(names: NDArray[np.uint64], each: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Where the stream of each begins: a hash of the hashes in `names`, in their order, and its own."""
    head = _GOLDEN
    for name in names:
        head = _mix(head ^ _mix(name + _GOLDEN))
    out = np.empty(each.shape[0], np.uint64)
    for k in range(each.shape[0]):
        out[k] = _mix(head ^ _mix(each[k] + _GOLDEN))
    return out


@njit
def _below(state: NDArray[np.uint64], n: int) -> int:
    """A whole number from 0 to n - 1; n is far below 2**32, so all are equally likely."""
    state[0] += _GOLDEN
    return int(((_mix(state[0]) >> _S32) * np.uint64(n)) >> _S32)


@njit
def nearest_in_mean(
    means: NDArray[np.int64],
    rank: NDArray[np.int64],
    barred: NDArray[np.bool_],
    target: int,
    n: int,
) -> NDArray[np.int64]:
    """Places of the n values nearest to `target`, nearest first; of equally near, lowest rank.

    Parameters
    ----------
    means
        Ascending; equal values in the order of `rank`.
    rank
        Decides between values equally near.
    barred
        Places that may not be chosen.
    """
    out = np.empty(min(n, means.shape[0]), np.int64)
    right = np.searchsorted(means, target)
    left = right - 1
    found = 0
    while found < out.shape[0]:
        while left >= 0 and barred[left]:
            left -= 1
        while right < means.shape[0] and barred[right]:
            right += 1
        if left < 0 and right >= means.shape[0]:
            break
        take_left = right >= means.shape[0]
        if left >= 0 and right < means.shape[0]:
            below, above = target - means[left], means[right] - target
            take_left = below < above
        # a run of equal values on the left is met from its highest rank: walk to its start,
        # then take the run, and both runs where they are equally near, in order of rank
        if left >= 0 and (
            take_left or (right < means.shape[0] and target - means[left] == means[right] - target)
        ):
            tie = right < means.shape[0] and target - means[left] == means[right] - target
            start = left
            while start > 0 and means[start - 1] == means[left]:
                start -= 1
            a = start
            b = right
            while found < out.shape[0]:
                while a <= left and barred[a]:
                    a += 1
                while tie and b < means.shape[0] and means[b] == means[right] and barred[b]:
                    b += 1
                more_left = a <= left
                more_right = tie and b < means.shape[0] and means[b] == means[right]
                if not more_left and not more_right:
                    break
                if more_left and (not more_right or rank[a] < rank[b]):
                    out[found] = a
                    a += 1
                else:
                    out[found] = b
                    b += 1
                found += 1
            left = start - 1
            if tie:
                right = b
        else:
            out[found] = right
            found += 1
            right += 1
    return out[:found]


@njit
def _in_column(taken: NDArray[np.int64], n_rows: int, j: int, value: int) -> bool:
    found = False
    for k in range(n_rows):
        found |= taken[k, j] == value
    return found


@njit
def draw_null_sets(
    means: NDArray[np.int64],
    rank: NDArray[np.int64],
    without: NDArray[np.int64],
    targets: NDArray[np.int64],
    streams: NDArray[np.uint64],
    pool_size: int,
    n_null: int,
) -> NDArray[np.int64]:
    """One control of each gene for every null set: genes × null sets, places in `means`.

    The pool of a gene (the `pool_size` nearest in mean) is dealt out in random order, each control
    as often as any other. A control that another gene of the same null set already has changes
    places with one of another set, where neither set then holds a gene twice.

    Parameters
    ----------
    means, rank
        As in `nearest_in_mean`.
    without
        Places that may not be chosen.
    targets
        Mean of each gene.
    streams
        Where the random numbers of each gene begin.
    """
    barred = np.zeros(means.shape[0], np.bool_)
    for place in without:
        barred[place] = True
    out = np.empty((targets.shape[0], n_null), np.int64)
    state = np.empty(1, np.uint64)
    for g in range(targets.shape[0]):
        pool = nearest_in_mean(means, rank, barred, targets[g], pool_size)
        state[0] = streams[g]
        row = out[g]
        for j in range(n_null):
            row[j] = pool[j % pool.shape[0]]
        for j in range(n_null - 1, 0, -1):
            other = _below(state, j + 1)
            row[j], row[other] = row[other], row[j]
        for j in range(n_null if g else 0):
            if not _in_column(out, g, j, row[j]):
                continue
            first = _below(state, n_null)
            for step in range(n_null):
                other = (first + step) % n_null
                if not _in_column(out, g, j, row[other]) and not _in_column(out, g, other, row[j]):
                    row[j], row[other] = row[other], row[j]
                    break
    return out


@njit
def draw_like(
    means: NDArray[np.int64],
    rank: NDArray[np.int64],
    without: NDArray[np.int64],
    targets: NDArray[np.int64],
    streams: NDArray[np.uint64],
    pool_size: int,
) -> NDArray[np.int64]:
    """A random gene set: for each target one of the genes nearest in mean, none twice.

    Places in `means`, -1 where nothing is left; arguments as in `draw_null_sets`.
    """
    barred = np.zeros(means.shape[0], np.bool_)
    for place in without:
        barred[place] = True
    out = np.full(targets.shape[0], -1, np.int64)
    state = np.empty(1, np.uint64)
    for g in range(targets.shape[0]):
        pool = nearest_in_mean(means, rank, barred, targets[g], pool_size)
        if pool.shape[0]:
            state[0] = streams[g]
            out[g] = pool[_below(state, pool.shape[0])]
            barred[out[g]] = True
    return out


@njit
def fill_sets(
    genes: NDArray[np.int64],
    weight: NDArray[np.int64],
    first_set: int,
    at: NDArray[np.int64],
    sets: NDArray[np.int32],
    weights: NDArray[np.int64],
) -> None:
    """Enter sets into a table gene -> (set, weight).

    Parameters
    ----------
    genes
        One gene of each set in every row: genes × sets.
    weight
        Of each row.
    first_set
        Number of the first of the sets.
    at
        Where the next entry of each gene goes; moved on.
    sets, weights
        Written.
    """
    for j in range(genes.shape[1]):
        for g in range(genes.shape[0]):
            k = at[genes[g, j]]
            sets[k] = first_set + j
            weights[k] = weight[g]
            at[genes[g, j]] = k + 1
