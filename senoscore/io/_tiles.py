"""Column-wise storage (CSC) turned into rows, out of core.

Columns are read in groups; each group is transposed in memory (scipy's counting sort) into a tile
that is CSR over all wanted rows. A range of rows is then one slice of every tile, side by side.
Tiles live in memory while they fit a budget, else in an unnamed temporary file.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from senoscore.errors import InputDataError
from senoscore.io._canonical import check_indices, first_bad
from senoscore.io._chunks import DamagedError, Vector
from senoscore.io._workers import workers

if TYPE_CHECKING:
    from scipy import sparse

_TILE_ENTRIES: Final = 1 << 22
_BAND_ENTRIES: Final = 1 << 22


class CscError(Exception):
    """What is wrong in which columns; `kind` is "indices", "data", "index" or "value"."""

    def __init__(self, kind: str, first: int, last: int, detail: Any) -> None:
        super().__init__(f"{kind} at columns {first} to {last}: {detail}")
        self.kind = kind
        self.first = first
        self.last = last
        self.detail = detail


class CscSource(NamedTuple):
    """A stored CSC matrix; values are handed out as `dtype`."""

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    indices: Vector
    data: Vector
    dtype: np.dtype[Any]


class _Tile(NamedTuple):
    """A group of columns as CSR; arrays in memory, or their offset in the scratch file."""

    left: int
    width: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32] | int
    data: NDArray[Any] | int


class TileStore:
    """The tiles of one matrix, left to right, for rows `first` to `last`."""

    def __init__(self, first: int, last: int, dtype: np.dtype[Any], memory: int) -> None:
        self._first = first
        self._last = last
        self._dtype = dtype
        self._memory = memory // 2  # the rest is for tiles in the making and bands on their way
        self._band = max(1, min(_BAND_ENTRIES, memory // (32 * (4 + dtype.itemsize))))
        self._tiles: list[_Tile] = []
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._end = 0
        self._held = 0
        self.spilled = False

    def add(
        self,
        left: int,
        width: int,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        data: NDArray[Any],
    ) -> None:
        """Keep one tile, in memory or in the file; called from threads."""
        size = indices.nbytes + data.nbytes
        with self._lock:
            in_memory = self._held + size <= self._memory
            if in_memory:
                self._held += size
            else:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="senoscore-")  # noqa: SIM115
                self.spilled = True
                begin = self._end
                self._end += size
        if in_memory:
            tile = _Tile(left, width, indptr, indices, data)
        else:
            self._write(indices, begin)
            self._write(data, begin + indices.nbytes)
            tile = _Tile(left, width, indptr, begin, begin + indices.nbytes)
        with self._lock:
            self._tiles.append(tile)

    def seal(self) -> None:
        """All tiles are there: put them in order of columns and choose the bands of rows."""
        self._tiles.sort(key=lambda tile: tile.left)
        total = np.zeros(self._last - self._first + 1, dtype=np.int64)
        for tile in self._tiles:
            total += tile.indptr
        self._total = total

    def bands(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Row ranges of about equal numbers of entries."""
        at = first
        while at < last:
            limit = self._total[at - self._first] + self._band
            end = int(np.searchsorted(self._total, limit, "right")) - 1 + self._first
            end = min(last, max(at + 1, end), at + (1 << 16))
            yield at, end
            at = end

    def rows(self, first: int, last: int) -> sparse.csr_matrix:
        """Some rows, columns ascending (equal ones in stored order)."""
        from scipy import sparse

        a, b = first - self._first, last - self._first
        pieces = []
        for tile in self._tiles:
            lo, hi = int(tile.indptr[a]), int(tile.indptr[b])
            indices = self._part(tile.indices, np.dtype(np.int32), lo, hi)
            data = self._part(tile.data, self._dtype, lo, hi)
            indptr = (tile.indptr[a : b + 1] - lo).astype(np.int32)
            shape = (last - first, tile.width)
            pieces.append(sparse.csr_matrix((data, indices, indptr), shape=shape, copy=False))
        if not pieces:
            return sparse.csr_matrix((last - first, 0), dtype=self._dtype)
        return sparse.hstack(pieces, format="csr")

    def close(self) -> None:
        """Drop the tiles and the file."""
        with self._lock:
            self._tiles = []
            if self._file is not None:
                self._file.close()
                self._file = None

    def _part(
        self, stored: NDArray[Any] | int, dtype: np.dtype[Any], lo: int, hi: int
    ) -> NDArray[Any]:
        if not isinstance(stored, int):
            return stored[lo:hi]
        if self._file is None:
            raise RuntimeError("the matrix was closed while it was read")
        size = (hi - lo) * dtype.itemsize
        out = bytearray(size)
        view, offset = memoryview(out), stored + lo * dtype.itemsize
        while view:
            n = os.preadv(self._file.fileno(), [view], offset)
            if n == 0:
                raise DamagedError("the temporary file was cut off")
            view, offset = view[n:], offset + n
        return np.frombuffer(out, dtype)

    def _write(self, values: NDArray[Any], offset: int) -> None:
        if self._file is None:
            raise RuntimeError("the matrix was closed while it was read")
        view = np.ascontiguousarray(values).view(np.uint8).data
        try:
            while view:
                n = os.pwrite(self._file.fileno(), view, offset)
                view, offset = view[n:], offset + n
        except OSError as error:
            raise InputDataError(
                f"Turning the columns of a CSC matrix into rows needs scratch space in "
                f"{tempfile.gettempdir()!r}: {error.strerror}. Set TMPDIR to a larger disk."
            ) from error


def transpose(source: CscSource, first: int, last: int, *, memory: int, threads: int) -> TileStore:
    """Read all columns once and keep rows `first` to `last` as tiles.

    `memory` bounds the tiles held and those in the making, as far as stored chunks allow.
    """
    store = TileStore(first, last, source.dtype, memory)
    executor = workers(threads, name="senoscore-csc")

    def one(group: tuple[int, int]) -> None:
        _transpose_group(source, store, first, last, *group)

    try:
        for _ in executor.map(one, _column_groups(source, memory, threads)):
            pass
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        store.close()
        raise
    executor.shutdown()
    store.seal()
    return store


def _column_groups(source: CscSource, memory: int, threads: int) -> Iterator[tuple[int, int]]:
    """Columns in groups of about equal numbers of entries, not less than a stored chunk."""
    width = 4 + source.dtype.itemsize
    size = min(_TILE_ENTRIES, max(1, memory // (16 * width * threads)))
    # a tile keeps one pointer per row: it should hold more entries than that
    size = max(size, source.indices.grain, source.data.grain, source.shape[0] // 2, 1)
    n_vars = source.shape[1]
    at = 0
    while at < n_vars:
        end = int(np.searchsorted(source.indptr, source.indptr[at] + size, "right")) - 1
        end = min(n_vars, max(at + 1, end))
        yield at, end
        at = end


def _transpose_group(
    source: CscSource, store: TileStore, first: int, last: int, left: int, right: int
) -> None:
    from scipy import sparse

    lo, hi = int(source.indptr[left]), int(source.indptr[right])
    indices = _read(source.indices, "indices", lo, hi, left, right)
    _check_rows(source, indices, lo, left, right)
    values = _read(source.data, "data", lo, hi, left, right).astype(source.dtype, copy=False)
    if first_bad(values) >= 0:
        _raise_not_finite(source, indices, values, lo, first, last, left, right)
    group = sparse.csc_matrix(
        (
            values,
            indices.astype(np.int32, copy=False),
            (source.indptr[left : right + 1] - lo).astype(
                np.int32 if hi - lo < 2**31 else np.int64
            ),
        ),
        shape=(source.shape[0], right - left),
    ).tocsr()
    a, b = int(group.indptr[first]), int(group.indptr[last])
    indptr = group.indptr[first : last + 1].astype(np.int64) - a
    kept = slice(a, b)
    columns = group.indices[kept].astype(np.int32, copy=False)
    data = group.data[kept]
    if b - a < len(group.data):  # do not keep the rows that were not asked for
        columns, data = columns.copy(), data.copy()
    store.add(left, right - left, indptr, columns, data)


def _read(part: Vector, name: str, lo: int, hi: int, left: int, right: int) -> NDArray[Any]:
    out = np.empty(hi - lo, dtype=part.dtype)
    try:
        part.read_into(lo, hi, out)
    except DamagedError as error:
        raise CscError(name, left, right, error) from error
    return out


def _check_rows(source: CscSource, indices: NDArray[Any], lo: int, left: int, right: int) -> None:
    def error(i: int) -> CscError:
        column = int(np.searchsorted(source.indptr, lo + i, "right")) - 1
        return CscError("index", left, right, (column, int(indices[i])))

    check_indices(indices, source.shape[0], error)


def _raise_not_finite(
    source: CscSource,
    indices: NDArray[Any],
    values: NDArray[Any],
    lo: int,
    first: int,
    last: int,
    left: int,
    right: int,
) -> None:
    bad = np.flatnonzero(~np.isfinite(values) & (indices >= first) & (indices < last))
    if len(bad):
        at = bad[np.argmin(indices[bad])]
        column = int(np.searchsorted(source.indptr, lo + at, "right")) - 1
        raise CscError("value", left, right, (int(indices[at]), column, values[at]))
