"""Rows of a matrix of counts in little more than one byte a value, and back.

Counts are mostly 1 to 7, and the next gene a cell expresses is mostly less than 32 away: one byte
holds both. What does not fit stands apart, in order.

Which values stand apart cannot be predicted, and a wrong guess costs a processor more than ten right
ones gain: loops here write or read what stands apart every time, and move on only if it counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels._numba import njit

FAR: Final = 31  # upper five bits: genes skipped since the last one; this many or more stand apart
REST: Final = 7  # lower three bits: a value of 1 to 7, less 1; other values stand apart
FAR_CODE: Final = FAR << 3


class PackedRows(NamedTuple):
    """CSR rows as codes, and what stands apart.

    indptr: where the codes of each row begin, rows + 1. codes: one byte per value. far_at, far: where
    the steps of each row that stand apart begin, rows + 1, and the steps. rest_at, rest: the same of
    values. `far` and `rest` go on for one entry at least after the last that is used.
    """

    indptr: NDArray[np.int64]
    codes: NDArray[np.uint8]
    far_at: NDArray[np.int64]
    far: NDArray[np.int32]
    rest_at: NDArray[np.int64]
    rest: NDArray[Any]

    @property
    def n_rows(self) -> int:
        """How many they are."""
        return len(self.indptr) - 1

    @property
    def parts(self) -> tuple[tuple[NDArray[np.int64], NDArray[Any]], ...]:
        """Codes, steps and values that stand apart: where those of each row begin, and they."""
        return (self.indptr, self.codes), (self.far_at, self.far), (self.rest_at, self.rest)

    @classmethod
    def of(cls, parts: Iterable[tuple[NDArray[np.int64], NDArray[Any]]]) -> PackedRows:
        """Rows of such parts; the codes may go on after the last, too."""
        found = cls(*(array for part in parts for array in part))  # type: ignore[arg-type]
        return found._replace(codes=found.codes[: found.indptr[-1]])

    def between(self, first: int, last: int) -> PackedRows:
        """Rows `first` to `last`, not copied."""
        return PackedRows.of(
            (at[first : last + 1] - at[first], values[at[first] :]) for at, values in self.parts
        )

    def take(self, rows: NDArray[np.int64]) -> PackedRows:
        """Some rows, copied, in the order asked for."""
        return PackedRows.of(
            (
                np.append(0, np.cumsum(np.diff(at)[rows])),
                np.concatenate(
                    [*(values[at[i] : at[i + 1]] for i in rows), np.zeros(1, values.dtype)]
                ),
            )
            for at, values in self.parts
        )


def pack(indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any]) -> PackedRows:
    """CSR rows, packed."""
    n, n_rows = len(data), len(indptr) - 1
    codes, place = np.empty(n, np.uint8), np.empty(np.diff(indptr).max(initial=0) + 1, np.int32)
    far_at, rest_at = np.empty(n_rows + 1, np.int64), np.empty(n_rows + 1, np.int64)
    # room for all; what is not written to costs nothing
    far, rest = np.empty(n + 1, np.int32), np.empty(n + 1, data.dtype)
    pack_rows(indptr, indices, data, codes, place, far_at, far, rest_at, rest)
    return PackedRows(
        indptr, codes, far_at, far[: far_at[-1] + 1].copy(), rest_at, rest[: rest_at[-1] + 1].copy()
    )


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
    far_at: NDArray[np.int64],
    far: NDArray[np.int32],
    rest_at: NDArray[np.int64],
    rest: NDArray[Any],
) -> None:
    """One code per value, and what stands apart.

    Parameters
    ----------
    indptr, indices, data
        CSR rows. Few steps stand apart where indices ascend; they need not.
    codes
        Written: one byte per value.
    place
        Scratch, as long as the longest row and one more.
    far_at, far, rest_at, rest
        Written: steps that are not 0 to 30 and values that are not 1 to 7, and where those of each row
        begin. Room for all values and one more.
    """
    n_far, n_rest = np.uint32(0), np.uint32(0)
    far_at[0] = rest_at[0] = 0
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
            step = np.uint32(own[k] - place[k] - np.int32(1))  # back is far, too
            out[k] = np.uint8((np.int32(min(step, np.uint32(FAR))) << np.int32(3)) + code)
        m = np.uint32(0)
        for k in range(n):
            place[m] = k
            m += np.uint32((out[k] >= FAR_CODE) | (out[k] & REST == REST))
        for j in range(m):
            at = np.uint32(place[j])
            far[n_far] = own[at] - (own[at - np.uint32(1)] if at > 0 else -1) - 1
            n_far += np.uint32(out[at] >= FAR_CODE)
            rest[n_rest] = values[at]
            n_rest += np.uint32(out[at] & REST == REST)
        far_at[i + 1], rest_at[i + 1] = n_far, n_rest
    far[n_far] = 0
    rest[n_rest] = 0
