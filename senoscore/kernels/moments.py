"""Counts, means and squared deviations of groups of cells, the same bits in any order of the cells.

Values are rounded to a multiple of 2**-24 (coarser where their total might not fit), so that sums
below 2**53 such units are exact and no order of adding can change them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit


@njit
def _bits(largest: float) -> int:
    """Bits below one that a sum of terms may keep, the sum of their sizes being at most `largest`."""
    if largest <= 0.0:
        return 24
    part, power = math.frexp(largest)
    return min(24, 52 - (power - 1 if part == 0.5 else power))


@njit
def group_moments(
    codes: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[np.floating],
    columns: NDArray[np.int64],
    count: NDArray[np.int64],
    mean: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """Of the finite values of each group, column by column.

    Parameters
    ----------
    codes
        Group of each of the rows, -1 for none.
    rows
        Which rows of `values`.
    values, columns
        Rows × columns, and which of the columns.
    count, mean, squares
        Written, columns × groups: how many, their mean (NaN for none), the sum of their squared
        deviations from it (0 for none).
    """
    for k in range(columns.shape[0]):
        column = columns[k]
        count[k] = 0
        n, largest = 0, 0.0
        for i in range(rows.shape[0]):
            value = float(values[rows[i], column])
            if codes[i] >= 0 and np.isfinite(value):
                count[k, codes[i]] += 1
                n += 1
                largest = max(largest, abs(value))
        squares[k] = 0.0
        mean[k] = 0.0 if n else np.nan
        if n == 0:
            continue
        scale = 2.0 ** _bits(largest * n)
        for i in range(rows.shape[0]):
            value = float(values[rows[i], column])
            if codes[i] >= 0 and np.isfinite(value):
                mean[k, codes[i]] += np.rint(value * scale)
        for g in range(count.shape[1]):
            mean[k, g] = mean[k, g] / scale / count[k, g] if count[k, g] else np.nan
        largest = 0.0
        for i in range(rows.shape[0]):
            value = float(values[rows[i], column])
            if codes[i] >= 0 and np.isfinite(value):
                largest = max(largest, (value - mean[k, codes[i]]) ** 2)
        scale = 2.0 ** _bits(largest * n)
        for i in range(rows.shape[0]):
            value = float(values[rows[i], column])
            if codes[i] >= 0 and np.isfinite(value):
                squares[k, codes[i]] += np.rint((value - mean[k, codes[i]]) ** 2 * scale)
        for g in range(count.shape[1]):
            squares[k, g] /= scale
