"""Rows of a matrix of counts in little more than one byte a value, and back.

Counts are mostly 1 to 7, and the next gene a cell expresses is mostly less than 32 away: one byte
holds both. What does not fit stands apart, in order.

Which values stand apart cannot be predicted, and a wrong guess costs a processor more than ten right
ones gain: loops here write or read what stands apart every time, and move on only if it counts.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit

FAR: Final = 31  # upper five bits: genes skipped since the last one; this many or more stand apart
REST: Final = 7  # lower three bits: a value of 1 to 7, less 1; other values stand apart
_FAR_CODE: Final = FAR << 3


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the fewest bytes; none at all as uint8.

    The type of nothing must not show: which rows are empty depends on how blocks are cut.
    """
    if not values.size:
        return values.astype(np.uint8)
    if values.min() < 0:
        return values
    largest = values.max()
    for dtype in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(dtype).max:
            if values.dtype.itemsize <= np.dtype(dtype).itemsize:
                return values
            small = values.astype(dtype)
            return small if values.dtype.kind in "iu" or (small == values).all() else values
    return values


@njit
def pack_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[Any],
    codes: NDArray[np.uint8],
    place: NDArray[np.int32],
    far: NDArray[np.int32],
    rest: NDArray[Any],
) -> tuple[int, int]:
    """One code per value, and what stands apart.

    Parameters
    ----------
    indptr, indices, data
        CSR rows, indices ascending within each.
    codes
        Written: one byte per value.
    place
        Scratch, as long as the longest row and one more.
    far, rest
        Written: steps of `FAR` or more, and values that are not 1 to 7. Room for all values and
        one more.

    Returns
    -------
    How much of `far` and of `rest` is used.
    """
    n_far, n_rest = np.uint32(0), np.uint32(0)
    for i in range(indptr.shape[0] - 1):  # loop after loop over a row, which stays in the cache
        start, n = indptr[i], np.uint32(indptr[i + 1] - indptr[i])
        own, values, out = (
            indices[start : indptr[i + 1]],
            data[start : indptr[i + 1]],
            codes[start:],
        )
        place[0] = -1
        for k in range(n):
            place[k + np.uint32(1)] = own[k]
        for k in range(n):
            value = values[k]
            near = np.int32(value) if 1 <= value <= REST else np.int32(0)
            code = near - np.int32(1) if near == value else np.int32(REST)
            step = own[k] - place[k] - np.int32(1)
            out[k] = np.uint8((min(step, np.int32(FAR)) << np.int32(3)) + code)
        m = np.uint32(0)
        for k in range(n):
            place[m] = k
            m += np.uint32((out[k] >= _FAR_CODE) | (out[k] & REST == REST))
        for j in range(m):
            at = np.uint32(place[j])
            far[n_far] = own[at] - (own[at - np.uint32(1)] if at > 0 else -1) - 1
            n_far += np.uint32(out[at] >= _FAR_CODE)
            rest[n_rest] = values[at]
            n_rest += np.uint32(out[at] & REST == REST)
    return int(n_far), int(n_rest)


@njit
def unpack_rows(
    indptr: NDArray[np.int64],
    codes: NDArray[np.uint8],
    far: NDArray[np.int32],
    rest: NDArray[Any],
    indices: NDArray[np.int32],
    data: NDArray[Any],
) -> None:
    """What `pack_rows` was given; `indices` and `data` are written.

    `far` and `rest` need one entry more than are used.
    """
    n_far, n_rest = np.uint32(0), np.uint32(0)
    for i in range(indptr.shape[0] - 1):
        last = np.int32(-1)
        start, n = indptr[i], np.uint32(indptr[i + 1] - indptr[i])
        own, where, what = codes[start : indptr[i + 1]], indices[start:], data[start:]
        for k in range(n):
            apart, is_far = far[n_far], own[k] >= _FAR_CODE
            last += (apart if is_far else np.int32(own[k] >> 3)) + np.int32(1)
            where[k] = last
            n_far += np.uint32(is_far)
        for k in range(n):
            what[k] = (own[k] & REST) + 1
        for k in range(n):
            beside, is_rest = rest[n_rest], own[k] & REST == REST
            what[k] = beside if is_rest else what[k]
            n_rest += np.uint32(is_rest)
