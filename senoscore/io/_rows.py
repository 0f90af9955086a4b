"""Sources of rows, one class per kind of storage; :mod:`senoscore.io.blocks` chooses."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from senoscore.errors import InputDataError
from senoscore.io import _tiles
from senoscore.io._canonical import (
    CsrBlock,
    CsrView,
    block_dtype,
    check_indices,
    cut_block,
    damaged,
    dense_to_block,
    empty_block,
    first_bad,
    has_zero_in,
    is_ascending,
    join_blocks,
    make_canonical,
    not_finite,
    sparse_to_block,
)
from senoscore.io._chunks import DamagedError, Table, Vector
from senoscore.io._workers import workers
from senoscore.io.h5 import MatrixHeader, check_number_type, show

# one task of a thread: small enough to stay in cache while it is checked
_PART_BYTES: Final = 1 << 20
# decoded ahead of the consumer: two blocks, or more while they are small
_AHEAD_BYTES: Final = 16 << 20
# dense rows decoded together: what a thread holds before it becomes sparse
_BAND_BYTES: Final = 8 << 20
_BAND_MAX_BYTES: Final = 256 << 20


class RowBlocks:
    """An opened matrix: its size, and its rows as CSR blocks. Made by :func:`open_blocks`.

    Attributes
    ----------
    n_obs, n_vars
        Cells and genes.
    dtype
        Type of the values in the blocks: as stored, except that booleans become uint8, float16
        float32, and wider floats float64.
    nnz
        Stored entries (before zeros are dropped and duplicates summed); None for dense storage.
    storage
        How it is stored: ``"csr"``, ``"csc"`` or ``"dense"``.
    where
        The matrix and its file, for messages.
    """

    def __init__(
        self,
        where: str,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        storage: str,
        nnz: int | None,
    ) -> None:
        self.where = where
        self.n_obs, self.n_vars = int(shape[0]), int(shape[1])
        self.dtype = block_dtype(dtype)
        self.storage = storage
        self.nnz = nnz
        self.stack = ExitStack()
        self._closer = weakref.finalize(self, self.stack.close)

    @property
    def nbytes_compressed(self) -> int:
        """Bytes the matrix takes where it is stored (for memory estimates)."""
        return self._nbytes()

    def iter_blocks(
        self,
        *,
        block_size: int = 4096,
        threads: int = 1,
        rows: tuple[int, int] | None = None,
    ) -> Iterator[CsrBlock]:
        """The rows in order, `block_size` at a time; threads decode the next blocks meanwhile.

        Parameters
        ----------
        block_size
            Rows per block (the last may have fewer). The content does not depend on it.
        threads
            With 1 each block is read and decoded in the caller's own thread when it is asked for;
            with more, so many do that beside it.
        rows
            Only rows ``rows[0] <= i < rows[1]``. Others are not decoded, but for those that share
            a stored chunk.

        Raises
        ------
        InputDataError
            For damaged data, and for NaN or infinite values: with the element, the rows, what
            was found, and what to do.
        """
        if block_size < 1 or threads < 1:
            raise ValueError(
                f"block_size and threads must be at least 1, not {block_size} and {threads}"
            )
        first, last = (0, self.n_obs) if rows is None else (int(rows[0]), int(rows[1]))
        if not 0 <= first <= last <= self.n_obs:
            raise ValueError(f"rows {rows} are not within 0 to {self.n_obs} of {self.where}")
        return self._iterate(first, last, block_size, threads)

    def close(self) -> None:
        """Close the file and drop scratch data."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"RowBlocks({self.where}: {self.n_obs} x {self.n_vars}, {self.storage}, {self.dtype})"
        )

    def _nbytes(self) -> int:
        raise NotImplementedError

    def _iterate(self, first: int, last: int, block_size: int, threads: int) -> Iterator[CsrBlock]:
        raise NotImplementedError


class LentRows(RowBlocks):
    """Rows of a source that another holds open: closing these does not close it."""

    def __init__(self, owner: RowBlocks) -> None:
        shape = (owner.n_obs, owner.n_vars)
        super().__init__(owner.where, shape, owner.dtype, owner.storage, owner.nnz)
        self.owner = owner

    def _nbytes(self) -> int:
        return self.owner.nbytes_compressed

    def _iterate(self, first: int, last: int, block_size: int, threads: int) -> Iterator[CsrBlock]:
        return self.owner._iterate(first, last, block_size, threads)


# ---------------------------------------------------------------- working ahead in threads


class _Pool:
    """Workers that are gone, and their queue with them, when the reader stops early."""

    def __init__(self, threads: int, n: int | None = None) -> None:
        self._executor = workers(threads, n=n, name="senoscore-io")
        self.works_ahead = threads > 1

    def submit(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._executor.submit(task, *args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: _Pool, plans: Iterator[tuple[int, Future[CsrBlock]]], at_least: int = 2
) -> Iterator[CsrBlock]:
    """Results in the order planned; `plans` queues work when advanced, with its size in bytes.

    `at_least` results are under way at any time, and more while they are small; one after the
    other where `pool` does its work in turn.
    """
    room = _AHEAD_BYTES if pool.works_ahead else 0
    at_least = at_least if pool.works_ahead else 1
    pending: deque[tuple[int, Future[CsrBlock]]] = deque()
    ahead = 0
    exhausted = False
    while True:
        while not exhausted and (len(pending) < at_least or (ahead < room and len(pending) < 64)):
            plan = next(plans, None)
            if plan is None:
                exhausted = True
                break
            pending.append(plan)
            ahead += plan[0]
        if not pending:
            return
        size, ready = pending.popleft()
        ahead -= size
        block = ready.result()
        del ready
        yield block
        del block


# ---------------------------------------------------------------- rows stored as CSR


class _Fill(NamedTuple):
    """What a thread found while it filled entries `lo` to `hi`."""

    lo: int
    hi: int
    fine: bool  # ascending indices; no stored zero
    bad: int  # position of the first value that is not finite, or -1


class CsrRows(RowBlocks):
    """CSR in a file: the chunks of indices and data are decoded by threads into place."""

    def __init__(
        self,
        where: str,
        header: MatrixHeader,
        parts: dict[str, Vector],
        names: dict[str, str],
    ) -> None:
        super().__init__(where, header.shape, header.dtype, "csr", header.nnz)
        self._parts = parts
        self._names = names
        self._lock = threading.Lock()
        self._pointers: NDArray[np.int64] | None = None

    def _nbytes(self) -> int:
        return sum(part.nbytes_stored() for part in self._parts.values())

    def _indptr(self) -> NDArray[np.int64]:
        with self._lock:
            if self._pointers is None:
                self._pointers = read_indptr(
                    self._parts["indptr"], self._names["indptr"], self._parts["data"].length
                )
            return self._pointers

    def _iterate(self, first: int, last: int, block_size: int, threads: int) -> Iterator[CsrBlock]:
        indptr = self._indptr()
        shared: dict[tuple[str, int], Future[NDArray[Any]]] = {}
        with _Pool(threads) as pool:
            starts = range(first, last, block_size)
            plans = (self._plan(pool, shared, indptr, a, min(a + block_size, last)) for a in starts)
            yield from _in_order(pool, plans)

    def _plan(
        self,
        pool: _Pool,
        shared: dict[tuple[str, int], Future[NDArray[Any]]],
        indptr: NDArray[np.int64],
        first: int,
        last: int,
    ) -> tuple[int, Future[CsrBlock]]:
        """Queue all work of one block; the last task waits for the others, which wait for none."""
        lo, hi = int(indptr[first]), int(indptr[last])
        indices = np.empty(hi - lo, dtype=np.int32)
        data = np.empty(hi - lo, dtype=self.dtype)
        fills: dict[str, list[Future[_Fill]]] = {"indices": [], "data": []}
        edges: dict[str, list[tuple[int, Future[NDArray[Any]]]]] = {"indices": [], "data": []}
        for name, out in (("indices", indices), ("data", data)):
            part = self._parts[name]
            for a, b, chunk in _split(lo, hi, part, self._stored_width(name)):
                if chunk < 0:
                    fills[name].append(
                        pool.submit(self._fill, name, out[a - lo : b - lo], a, indptr)
                    )
                    continue
                # a chunk that two blocks share is decoded once, for both
                key = (name, chunk)
                if key not in shared:
                    shared[key] = pool.submit(self._decode, name, chunk)
                edges[name].append((chunk, shared[key]))
            for key in [k for k in shared if k[0] == name and (k[1] + 1) * part.grain <= hi]:
                del shared[key]  # no later block reaches it
        done = pool.submit(self._finish, indptr, first, last, indices, data, fills, edges)
        return indices.nbytes + data.nbytes, done

    def _stored_width(self, name: str) -> int:
        return self._parts[name].dtype.itemsize

    def _decode(self, name: str, chunk: int) -> NDArray[Any]:
        part = self._parts[name]
        lo = chunk * part.grain
        hi = min(lo + part.grain, part.length)
        out = np.empty(hi - lo, dtype=part.dtype)
        part.read_into(lo, hi, out)
        return out

    def _fill(self, name: str, out: NDArray[Any], lo: int, indptr: NDArray[np.int64]) -> _Fill:
        part = self._parts[name]
        hi = lo + len(out)
        if part.dtype == out.dtype:
            part.read_into(lo, hi, out)
            return self._check(name, out, out, lo, indptr)
        stored = np.empty(hi - lo, dtype=part.dtype)
        part.read_into(lo, hi, stored)
        return self._check(name, stored, out, lo, indptr)

    def _check(
        self,
        name: str,
        stored: NDArray[Any],
        out: NDArray[Any],
        lo: int,
        indptr: NDArray[np.int64],
    ) -> _Fill:
        """Check entries as stored and, if they are not `out` itself, put them there."""
        hi = lo + len(out)
        if name == "indices":
            self._check_range(stored, lo, indptr)
        if stored is not out:
            out[...] = stored
        if name == "indices":
            return _Fill(lo, hi, is_ascending(out, lo, indptr), -1)
        bad = first_bad(out)
        return _Fill(lo, hi, bad >= 0 or not has_zero_in(out), bad)

    def _check_range(self, stored: NDArray[Any], lo: int, indptr: NDArray[np.int64]) -> None:
        check_indices(stored, self.n_vars, lambda i: self._index_error(stored, i, lo, indptr))

    def _index_error(
        self, stored: NDArray[Any], i: int, lo: int, indptr: NDArray[np.int64]
    ) -> InputDataError:
        row = int(np.searchsorted(indptr, lo + i, "right")) - 1
        return InputDataError(
            f"{self._names['indices']}: row {row} has the column index {stored[i]}, but there are "
            f"{self.n_vars} columns: the file is damaged; obtain it again."
        )

    def _finish(
        self,
        indptr: NDArray[np.int64],
        first: int,
        last: int,
        indices: NDArray[np.int32],
        data: NDArray[Any],
        fills: dict[str, list[Future[_Fill]]],
        edges: dict[str, list[tuple[int, Future[NDArray[Any]]]]],
    ) -> CsrBlock:
        lo, hi = int(indptr[first]), int(indptr[last])
        found: dict[str, list[_Fill]] = {"indices": [], "data": []}
        for name, out in (("indices", indices), ("data", data)):
            grain = self._parts[name].grain
            try:
                for chunk, ready in edges[name]:
                    values = ready.result()
                    a, b = max(lo, chunk * grain), min(hi, chunk * grain + len(values))
                    piece = values[a - chunk * grain : b - chunk * grain]
                    found[name].append(self._check(name, piece, out[a - lo : b - lo], a, indptr))
                found[name] += [ready.result() for ready in fills[name]]
            except DamagedError as error:
                raise damaged(self._names[name], first, last, error) from error
            found[name].sort()
        bad = [fill for fill in found["data"] if fill.bad >= 0]
        if bad:
            position = bad[0].lo + bad[0].bad
            row = int(np.searchsorted(indptr, position, "right")) - 1
            column, value = int(indices[position - lo]), data[position - lo]
            raise not_finite(self.where, row, column, value)
        is_sorted = all(fill.fine for fill in found["indices"])
        if is_sorted:  # the seams between the threads' parts remain
            seams = np.array([fill.lo for fill in found["indices"][1:]], dtype=np.int64)
            at = seams - lo
            doubtful = seams[indices[at] <= indices[at - 1]]
            is_sorted = bool((indptr[np.searchsorted(indptr, doubtful)] == doubtful).all())
        block = CsrBlock(first, indptr[first : last + 1] - lo, indices, data, self.n_vars)
        has_zero = not all(fill.fine for fill in found["data"])
        if is_sorted and not has_zero:
            return block
        return make_canonical(block, is_sorted=is_sorted, has_zero=has_zero, where=self.where)


def read_indptr(part: Vector, where: str, nnz: int) -> NDArray[np.int64]:
    """All of indptr as int64; it must start at 0, end at `nnz` and never decrease."""
    stored = np.empty(part.length, dtype=part.dtype)
    try:
        part.read_into(0, part.length, stored)
    except DamagedError as error:
        raise damaged(where, 0, part.length - 1, error) from error
    if stored.dtype == np.uint64 and stored.size and int(stored.max()) > np.iinfo(np.int64).max:
        raise InputDataError(
            f"{where} holds {stored.max()}, more than any matrix: the file is damaged; "
            "obtain it again."
        )
    indptr = stored.astype(np.int64)
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        i = int(falls[0])
        hint = " (a 32-bit overflow?)" if indptr[i + 1] < 0 else ""
        raise InputDataError(
            f"{where} decreases from {indptr[i]} to {indptr[i + 1]} after entry {i}{hint}: "
            "the file is damaged; obtain it again."
        )
    if indptr[0] != 0 or indptr[-1] != nnz:
        raise InputDataError(
            f"{where} runs from {indptr[0]} to {indptr[-1]}, but data hold {nnz} values: "
            "the file is damaged; obtain it again."
        )
    return indptr


def _split(lo: int, hi: int, part: Vector, width: int) -> Iterator[tuple[int, int, int]]:
    """Cut entries into tasks: (from, to, -1), or (.., .., chunk) where a chunk is cut through."""
    grain = part.grain
    step = max(1, _PART_BYTES // width)
    if grain == 0:
        for a in range(lo, hi, step):
            yield a, min(a + step, hi), -1
        return
    step = max(1, step // grain) * grain
    a = lo
    while a < hi:
        chunk = a // grain
        end = min((chunk + 1) * grain, part.length)
        if a > chunk * grain or hi < end:
            yield a, min(end, hi), chunk
            a = end
            continue
        b = min(a - a % grain + step, hi if hi == part.length else hi // grain * grain)
        yield a, b, -1
        a = b


# ---------------------------------------------------------------- rows made unit by unit


class UnitRows(RowBlocks):
    """A source read in units of rows that suit its storage; blocks are cut from them."""

    def _units(self, first: int, last: int, block_size: int) -> Iterator[tuple[int, int]]:
        """Consecutive row ranges that cover `first` to `last`."""
        raise NotImplementedError

    def _unit(self, first: int, last: int) -> CsrBlock:
        """The canonical rows of one unit; called from threads."""
        raise NotImplementedError

    def _unit_bytes(self, first: int, last: int) -> int:
        """About how much a unit holds."""
        return (last - first) * 4096

    def _guarded(self, first: int, last: int) -> CsrBlock:
        try:
            return self._unit(first, last)
        except DamagedError as error:
            raise damaged(self.where, first, last, error) from error

    def _prepare(self, first: int, last: int, threads: int) -> None:
        """Work that is needed before the first unit."""

    def _ahead(self, threads: int) -> int:
        """Units under way at any time."""
        return threads + 1

    def _iterate(self, first: int, last: int, block_size: int, threads: int) -> Iterator[CsrBlock]:
        if first == last:
            return
        self._prepare(first, last, threads)
        with _Pool(threads) as pool:
            plans = (
                (self._unit_bytes(a, b), pool.submit(self._guarded, a, b))
                for a, b in self._units(first, last, block_size)
            )
            yield from _recut(_in_order(pool, plans, self._ahead(threads)), first, last, block_size)


def _recut(units: Iterator[CsrBlock], first: int, last: int, size: int) -> Iterator[CsrBlock]:
    """Units of any heights as blocks of `size` rows."""
    held: list[CsrBlock] = []
    at = first
    for unit in units:
        if held or unit.n_obs != min(size, last - at) or unit.start != at:
            held.append(unit)
        else:
            yield unit
            at += unit.n_obs
            continue
        while held and held[-1].start + held[-1].n_obs >= min(at + size, last) > at:
            end = min(at + size, last)
            yield join_blocks([cut_block(piece, max(at, piece.start), end) for piece in held], at)
            tail = held[-1]
            held = [tail] if tail.start + tail.n_obs > end else []
            at = end


# ---------------------------------------------------------------- dense


class ArrayTable:
    """A numpy array as a table."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.shape = (int(values.shape[0]), int(values.shape[1]))
        self.dtype = values.dtype
        self.grain = (0, 0)

    def nbytes_stored(self) -> int:
        return int(self._values.nbytes)

    def tiles(self, lo: int, hi: int) -> Iterator[tuple[int, NDArray[Any]]]:
        yield 0, self._values[lo:hi]


class DenseRows(UnitRows):
    """A dense matrix, made sparse tile by tile."""

    def __init__(self, where: str, shape: tuple[int, int], table: Table) -> None:
        super().__init__(where, shape, table.dtype, "dense", None)
        self._table = table

    def _nbytes(self) -> int:
        return self._table.nbytes_stored()

    def _units(self, first: int, last: int, block_size: int) -> Iterator[tuple[int, int]]:
        width = max(1, self.n_vars * self._table.dtype.itemsize)
        height = self._table.grain[0]
        if height:  # a band of chunks, unless it is too much at once
            step = min(height, max(1, _BAND_MAX_BYTES // width))
        else:
            height = step = max(1, min(block_size, _BAND_BYTES // width))
        at = first
        while at < last:
            end = min(last, (at // height + 1) * height, at + step)
            yield at, end
            at = end

    def _unit_bytes(self, first: int, last: int) -> int:
        return (last - first) * self.n_vars * self.dtype.itemsize

    def _unit(self, first: int, last: int) -> CsrBlock:
        if self.n_vars == 0:
            return empty_block(first, last, self.n_vars, self.dtype)
        tiles = self._table.tiles(first, last)
        return dense_to_block(tiles, first, last, self.n_vars, self.dtype, self.where)


# ---------------------------------------------------------------- sparse in memory, dask


class SparseRows(UnitRows):
    """A scipy matrix in memory. Other formats than CSR are converted, whole, on first use."""

    def __init__(self, matrix: Any, where: str) -> None:
        storage = matrix.format if matrix.format in ("csr", "csc") else "csr"
        super().__init__(where, matrix.shape, matrix.dtype, storage, int(matrix.nnz))
        self._matrix = matrix

    def _nbytes(self) -> int:
        parts = (getattr(self._matrix, name, None) for name in ("data", "indices", "indptr"))
        return sum(int(part.nbytes) for part in parts if isinstance(part, np.ndarray))

    def _prepare(self, first: int, last: int, threads: int) -> None:
        if self._matrix.format == "csc":
            n_obs = self.n_obs

            def error(i: int) -> InputDataError:
                return InputDataError(
                    f"{self.where}: a row index is {self._matrix.indices[i]}, but there are "
                    f"{n_obs} rows: build the matrix again."
                )

            check_indices(self._matrix.indices, n_obs, error)
        if self._matrix.format != "csr":
            # COO would sum duplicates in its own type; by way of CSR they are summed as elsewhere
            self._matrix = self._matrix.tocsr()

    def _units(self, first: int, last: int, block_size: int) -> Iterator[tuple[int, int]]:
        for at in range(first, last, block_size):
            yield at, min(at + block_size, last)

    def _unit(self, first: int, last: int) -> CsrBlock:
        matrix = self._matrix
        rows = CsrView(
            matrix.indptr[first : last + 1],
            matrix.indices,
            matrix.data,
            (last - first, self.n_vars),
        )
        return sparse_to_block(rows, first, self.dtype, self.where)


class DaskRows(UnitRows):
    """A dask array of dense or sparse pieces; each piece is computed once."""

    def __init__(self, array: Any, where: str) -> None:
        if array.ndim != 2 or any(np.isnan(n) for n in array.shape):
            raise InputDataError(
                f"{where} is a dask array of unknown or non-matrix shape {show(str(array.shape))}: "
                "call compute_chunk_sizes() on it first."
            )
        check_number_type(array.dtype, where, "dask")
        super().__init__(where, array.shape, array.dtype, "dense", None)
        self._array = array if array.numblocks[1] == 1 else array.rechunk({1: -1})
        if type(array._meta).__module__.startswith("scipy"):
            self.storage = "csr"

    def _nbytes(self) -> int:
        return int(self.n_obs) * int(self.n_vars) * int(self.dtype.itemsize)

    def _units(self, first: int, last: int, block_size: int) -> Iterator[tuple[int, int]]:
        edges = np.concatenate([[0], np.cumsum(self._array.chunks[0])])
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if a < last and b > first and a < b:
                yield max(a, first), min(b, last)

    def _unit(self, first: int, last: int) -> CsrBlock:
        from scipy import sparse

        piece = self._array[first:last].compute(scheduler="synchronous")
        if sparse.issparse(piece):
            return sparse_to_block(piece.tocsr(), first, self.dtype, self.where)
        tile = np.asarray(piece)
        return dense_to_block(iter([(0, tile)]), first, last, self.n_vars, self.dtype, self.where)


# ---------------------------------------------------------------- columns (CSC) on disk


class CscRows(UnitRows):
    """CSC in a file: turned once into tiles of rows, in memory or in a temporary file."""

    def __init__(
        self,
        where: str,
        header: MatrixHeader,
        parts: dict[str, Vector],
        names: dict[str, str],
        memory: int,
    ) -> None:
        super().__init__(where, header.shape, header.dtype, "csc", header.nnz)
        self._parts = parts
        self._names = names
        self._memory = memory
        self._tiles: _tiles.TileStore | None = None
        self._span = (0, 0)

    def _nbytes(self) -> int:
        return sum(part.nbytes_stored() for part in self._parts.values())

    def _prepare(self, first: int, last: int, threads: int) -> None:
        if self._tiles is not None and self._span[0] <= first and last <= self._span[1]:
            return
        indptr = read_indptr(
            self._parts["indptr"], self._names["indptr"], self._parts["data"].length
        )
        source = _tiles.CscSource(
            (self.n_obs, self.n_vars),
            indptr,
            self._parts["indices"],
            self._parts["data"],
            self.dtype,
        )
        if self._tiles is not None:
            self._tiles.close()
        self._span = (first, last)
        try:
            self._tiles = _tiles.transpose(
                source, first, last, memory=self._memory, threads=threads
            )
        except _tiles.CscError as error:
            raise self._explain(error) from error
        self.stack.callback(self._tiles.close)

    def _explain(self, error: _tiles.CscError) -> InputDataError:
        columns = f"columns {error.first} to {error.last - 1}"
        if error.kind == "value":
            row, column, value = error.detail
            return not_finite(self.where, row, column, value)
        if error.kind == "index":
            column, index = error.detail
            return InputDataError(
                f"{self._names['indices']}: column {column} has the row index {index}, but there "
                f"are {self.n_obs} rows: the file is damaged; obtain it again."
            )
        return InputDataError(
            f"{self._names[error.kind]} is damaged at {columns}: {error.detail}. "
            "Obtain the file again and compare its checksum with the source's."
        )

    def _units(self, first: int, last: int, block_size: int) -> Iterator[tuple[int, int]]:
        if self._tiles is None:
            raise RuntimeError("the matrix was closed while it was read")
        yield from self._tiles.bands(first, last)

    def _unit(self, first: int, last: int) -> CsrBlock:
        if self._tiles is None:
            raise RuntimeError("the matrix was closed while it was read")
        return sparse_to_block(self._tiles.rows(first, last), first, self.dtype, self.where)


# ---------------------------------------------------------------- a view of a backed AnnData


class SubsetRows(RowBlocks):
    """Some rows and columns of another source, without loading it."""

    def __init__(
        self,
        parent: RowBlocks,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64] | None,
    ) -> None:
        if len(rows) > 1 and (np.diff(rows) <= 0).any():
            raise InputDataError(
                f"{parent.where}: a view of a backed AnnData can be read only with its cells in "
                "the file's order: load it with `.to_memory()` first."
            )
        n_vars = parent.n_vars if columns is None else len(columns)
        super().__init__(parent.where, (len(rows), n_vars), parent.dtype, parent.storage, None)
        self._parent = parent
        self._rows = rows
        self._columns = columns
        self.stack.callback(parent.close)

    def _nbytes(self) -> int:
        return self._parent.nbytes_compressed

    def _iterate(self, first: int, last: int, block_size: int, threads: int) -> Iterator[CsrBlock]:
        if first == last:
            return
        wanted = self._rows[first:last]
        span = (int(wanted[0]), int(wanted[-1]) + 1)
        units = self._picked(wanted, first, span, block_size, threads)
        yield from _recut(units, first, last, block_size)

    def _picked(
        self,
        wanted: NDArray[np.int64],
        first: int,
        span: tuple[int, int],
        block_size: int,
        threads: int,
    ) -> Iterator[CsrBlock]:
        at = 0
        for block in self._parent.iter_blocks(block_size=block_size, threads=threads, rows=span):
            upto = int(np.searchsorted(wanted, block.start + block.n_obs))
            if upto == at:
                continue
            matrix = block.to_csr()[wanted[at:upto] - block.start]
            if self._columns is not None:
                matrix = matrix[:, self._columns]
            yield sparse_to_block(matrix, first + at, self.dtype, self.where)
            at = upto
