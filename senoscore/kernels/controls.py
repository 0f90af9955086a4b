"""Choosing control genes: the nearest in mean, on sorted arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit


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
