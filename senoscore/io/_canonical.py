"""One form for every block: sorted, without duplicates or zeros, finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from senoscore.errors import InputDataError

if TYPE_CHECKING:
    from scipy import sparse


class CsrBlock(NamedTuple):
    """Some consecutive rows of a matrix, in canonical CSR form.

    `indices` ascend strictly within each row; `data` hold no zero, NaN or infinity. The arrays
    may be views of the caller's own matrix: do not write to them.
    """

    start: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[Any]
    n_vars: int

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    def to_csr(self) -> sparse.csr_matrix:
        """The block as a scipy matrix."""
        from scipy import sparse

        matrix = sparse.csr_matrix(
            (self.data, self.indices, self.indptr), shape=(self.n_obs, self.n_vars), copy=False
        )
        matrix.has_canonical_format = True
        return matrix


class CsrView(NamedTuple):
    """Some rows of a CSR matrix, without scipy's checks and copies."""

    indptr: NDArray[Any]
    indices: NDArray[Any]
    data: NDArray[Any]
    shape: tuple[int, int]


def block_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize == 2:
        return np.dtype(np.float32)
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    return dtype.newbyteorder("=")


def first_bad(values: NDArray[Any]) -> int:
    """Position of the first NaN or infinity, -1 if there is none."""
    if values.dtype.kind != "f" or not values.size:
        return -1
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(values)):  # one pass, no temporary; NaN and inf always show
            return -1
    bad = np.flatnonzero(~np.isfinite(values))
    return int(bad[0]) if len(bad) else -1


def has_zero_in(values: NDArray[Any]) -> bool:
    if not values.size or values.min() > 0:  # the usual case: counts
        return False
    return not bool((values != 0).all())


def is_ascending(indices: NDArray[Any], first: int, indptr: NDArray[np.int64]) -> bool:
    """Whether entries `first`... of a CSR matrix ascend strictly within each row."""
    if len(indices) < 2:
        return True
    drops = int(np.count_nonzero(indices[1:] <= indices[:-1]))
    if drops == 0:
        return True
    lo = int(np.searchsorted(indptr, first, "right"))
    hi = int(np.searchsorted(indptr, first + len(indices), "left"))
    starts = np.unique(indptr[lo:hi]) - first
    return drops == int(np.count_nonzero(indices[starts] <= indices[starts - 1]))


def make_canonical(block: CsrBlock, *, is_sorted: bool, has_zero: bool, where: str) -> CsrBlock:
    """Sort the indices of each row, sum duplicates, drop zeros; values must be finite."""
    start, indptr, indices, data, n_vars = block
    if not is_sorted:
        indptr, indices, data = _sort_rows(indptr, indices, data, n_vars)
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        fresh = np.ones(len(indices), dtype=bool)
        fresh[1:] = (indices[1:] != indices[:-1]) | (rows[1:] != rows[:-1])
        if not fresh.all():
            firsts = np.flatnonzero(fresh)
            data = _sum_groups(data, firsts, start, rows, where)
            indices = indices[firsts]
            indptr = _count_up(fresh, indptr)
            has_zero = True  # a sum may be zero
    if has_zero:
        keep = data != 0
        if not keep.all():
            indptr = _count_up(keep, indptr)
            indices, data = indices[keep], data[keep]
    return CsrBlock(start, indptr, indices, data, n_vars)


def _count_up(keep: NDArray[np.bool_], indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    kept = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=kept[1:])
    return kept[indptr]


def _sort_rows(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any], n_vars: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
    """Transposed twice: a counting sort, linear and stable, so that sums have one order."""
    from scipy import sparse

    pointers = indptr.astype(np.int32) if len(indices) < 2**31 else indptr
    matrix = sparse.csr_matrix((data, indices, pointers), shape=(len(indptr) - 1, n_vars))
    matrix = matrix.tocsc().tocsr()
    return (
        matrix.indptr.astype(np.int64, copy=False),
        matrix.indices.astype(np.int32, copy=False),
        matrix.data,
    )


def _sum_groups(
    data: NDArray[Any],
    firsts: NDArray[np.int64],
    start: int,
    rows: NDArray[np.int64],
    where: str,
) -> NDArray[Any]:
    """Sums of duplicates in a wide type, then back; a sum that does not fit is an error."""
    wide = {"f": np.float64, "i": np.int64, "u": np.uint64}[data.dtype.kind]
    sums = np.add.reduceat(data, firsts, dtype=wide)
    with np.errstate(over="ignore"):
        narrow: NDArray[Any] = sums.astype(data.dtype)
    unfit = ~np.isfinite(narrow) if data.dtype.kind == "f" else narrow != sums
    if unfit.any():
        row = start + int(rows[firsts[np.flatnonzero(unfit)[0]]])
        raise InputDataError(
            f"{where}: row {row} stores one column several times, and the sum does not fit "
            f"{data.dtype}: sum the duplicates in a wider type and write the matrix again."
        )
    return narrow


def not_finite(where: str, row: int, column: int, value: object) -> InputDataError:
    return InputDataError(
        f"{where}: row {row}, column {column} holds {value}; expression values must be finite. "
        "Drop or fill such entries, or name another matrix."
    )


def damaged(where: str, first: int, last: int, reason: object) -> InputDataError:
    return InputDataError(
        f"{where} is damaged at rows {first} to {max(first, last - 1)}: {reason}. "
        "Obtain the file again and compare its checksum with the source's."
    )


def check_indices(stored: NDArray[Any], limit: int, error: Callable[[int], Exception]) -> None:
    """Every index must lie in 0 to `limit` - 1; `error` makes the message for the first."""
    if not stored.size:
        return
    if stored.dtype.kind == "i":
        # seen as unsigned, a negative index is a huge one: one pass for both ends
        unsigned = stored.view(stored.dtype.str.replace("i", "u"))
    else:
        unsigned = stored
    if int(unsigned.max()) >= limit:
        raise error(int(np.flatnonzero(unsigned >= limit)[0]))


def empty_block(first: int, last: int, n_vars: int, dtype: np.dtype[Any]) -> CsrBlock:
    return CsrBlock(
        first,
        np.zeros(last - first + 1, dtype=np.int64),
        np.empty(0, dtype=np.int32),
        np.empty(0, dtype=dtype),
        n_vars,
    )


def dense_to_block(
    tiles: Iterator[tuple[int, NDArray[Any]]],
    first: int,
    last: int,
    n_vars: int,
    dtype: np.dtype[Any],
    where: str,
) -> CsrBlock:
    """Tiles of a band of rows, left to right, as one canonical block."""
    n = last - first
    found: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]] = []
    bad: tuple[int, int, object] | None = None
    for left, tile in tiles:
        values = np.ascontiguousarray(tile, dtype=dtype)
        if first_bad(values.ravel()) >= 0:
            rows, columns = np.nonzero(~np.isfinite(values))
            here = (int(rows[0]), left + int(columns[0]), values[rows[0], columns[0]])
            bad = here if bad is None else min(bad, here, key=lambda item: item[:2])
        flat = np.flatnonzero(values != 0)
        starts = np.arange(n + 1) * tile.shape[1]
        counts = np.diff(np.searchsorted(flat, starts))
        columns32 = (flat - np.repeat(starts[:-1] - left, counts)).astype(np.int32)
        found.append((counts, columns32, values.ravel()[flat]))
    if bad is not None:
        raise not_finite(where, first + bad[0], bad[1], bad[2])
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(sum((counts for counts, _, _ in found), np.zeros(n, np.int64)), out=indptr[1:])
    if len(found) == 1:
        return CsrBlock(first, indptr, found[0][1], found[0][2], n_vars)
    indices = np.empty(int(indptr[-1]), dtype=np.int32)
    data = np.empty(int(indptr[-1]), dtype=dtype)
    at = indptr[:-1].copy()
    for counts, columns32, picked in found:
        begins = np.cumsum(counts) - counts
        place = np.repeat(at - begins, counts) + np.arange(len(columns32))
        indices[place], data[place] = columns32, picked
        at += counts
    return CsrBlock(first, indptr, indices, data, n_vars)


def sparse_to_block(matrix: Any, start: int, dtype: np.dtype[Any], where: str) -> CsrBlock:
    """A scipy CSR matrix as a canonical block; it is not changed, and copied only if need be."""
    n_vars = int(matrix.shape[1])
    indptr = matrix.indptr.astype(np.int64)
    lo, hi = int(indptr[0]), int(indptr[-1])
    stored, values = matrix.indices[lo:hi], matrix.data[lo:hi]
    indptr -= lo
    if (np.diff(indptr) < 0).any() or len(stored) != hi - lo or len(values) != hi - lo:
        raise InputDataError(
            f"{where}: indptr does not fit its {len(matrix.data)} values at rows {start} to "
            f"{start + len(indptr) - 2}: build the matrix again."
        )

    def error(i: int) -> InputDataError:
        row = start + int(np.searchsorted(indptr, i, "right")) - 1
        return InputDataError(
            f"{where}: row {row} has the column index {stored[i]}, but there are {n_vars} "
            "columns: build the matrix again."
        )

    check_indices(stored, n_vars, error)
    indices = stored.astype(np.int32, copy=False)
    data = values.astype(dtype, copy=False)
    bad = first_bad(data)
    if bad >= 0:
        row = start + int(np.searchsorted(indptr, bad, "right")) - 1
        raise not_finite(where, row, int(indices[bad]), data[bad])
    block = CsrBlock(start, indptr, indices, data, n_vars)
    is_sorted, has_zero = is_ascending(indices, 0, indptr), has_zero_in(data)
    if is_sorted and not has_zero:
        return block
    return make_canonical(block, is_sorted=is_sorted, has_zero=has_zero, where=where)


def cut_block(block: CsrBlock, first: int, last: int) -> CsrBlock:
    a, b = first - block.start, min(last - block.start, block.n_obs)
    if a == 0 and b == block.n_obs:
        return block
    lo, hi = int(block.indptr[a]), int(block.indptr[b])
    return CsrBlock(
        first, block.indptr[a : b + 1] - lo, block.indices[lo:hi], block.data[lo:hi], block.n_vars
    )


def join_blocks(pieces: Sequence[CsrBlock], start: int) -> CsrBlock:
    if len(pieces) == 1:
        # a copy lets go of the rest of its unit
        one = pieces[0]
        return one._replace(indices=one.indices.copy(), data=one.data.copy())
    offsets = np.cumsum([0] + [len(piece.indices) for piece in pieces])
    indptr = np.concatenate(
        [[0]] + [p.indptr[1:] + o for p, o in zip(pieces, offsets[:-1], strict=True)]
    )
    return CsrBlock(
        start,
        indptr.astype(np.int64, copy=False),
        np.concatenate([piece.indices for piece in pieces]),
        np.concatenate([piece.data for piece in pieces]),
        pieces[0].n_vars,
    )
