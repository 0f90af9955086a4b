"""The matrix of any AnnData, as canonical CSR row blocks, in bounded memory.

Everything that computes on expression values reads them here: one function, :func:`open_blocks`,
for files, zarr stores and objects in memory. Blocks come in row order, are decoded ahead of the
consumer by threads, and are the same for any block size and any number of threads.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from senoscore.errors import InputDataError
from senoscore.io import _tiles
from senoscore.io._chunks import (
    DamagedError,
    H5Table,
    H5Vector,
    Table,
    Vector,
    ZarrTable,
    ZarrVector,
    check_zarr_codecs,
)
from senoscore.io.h5 import (
    MatrixHeader,
    check_number_type,
    matrix_header,
    matrix_node,
    node_header,
    safe_h5_open,
    show,
    show_path,
)

if TYPE_CHECKING:
    from scipy import sparse

DEFAULT_MEMORY: Final = 512 << 20
# one task of a thread: small enough to stay in cache while it is checked
_PART_BYTES: Final = 1 << 19
# decoded ahead of the consumer: two blocks, or more while they are small
_AHEAD_BYTES: Final = 16 << 20
# dense rows decoded together: what a thread holds before it becomes sparse
_BAND_BYTES: Final = 8 << 20
_BAND_MAX_BYTES: Final = 256 << 20


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
        self.dtype = _block_dtype(dtype)
        self.storage = storage
        self.nnz = nnz
        self._stack = ExitStack()
        self._closer = weakref.finalize(self, self._stack.close)

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
        """The rows in order, `block_size` at a time; the next blocks are decoded meanwhile.

        Parameters
        ----------
        block_size
            Rows per block (the last may have fewer). The content does not depend on it.
        threads
            Threads that read and decode, beside the caller's own.
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
        return f"RowBlocks({self.where}: {self.n_obs} x {self.n_vars}, {self.storage}, {self.dtype})"

    def _nbytes(self) -> int:
        raise NotImplementedError

    def _iterate(
        self, first: int, last: int, block_size: int, threads: int
    ) -> Iterator[CsrBlock]:
        raise NotImplementedError


def open_blocks(
    source: Any, *, matrix: str = "X", memory: int = DEFAULT_MEMORY
) -> RowBlocks:
    """Open a matrix for reading by blocks of rows.

    Parameters
    ----------
    source
        Path of an ``.h5ad`` file or of a zarr store (folder or ``.zarr.zip``); an AnnData in
        memory, backed, or on dask; a scipy sparse matrix or array; a numpy array.
    matrix
        ``"X"``, ``"raw.X"`` or ``"layers/NAME"``; only ``"X"`` for a bare matrix.
    memory
        Bytes that turning column-wise storage (CSC) into rows may hold; beyond that it goes
        through an unnamed temporary file in ``TMPDIR``.

    Raises
    ------
    InputDataError
        If the source cannot be read, has no such matrix, or contradicts itself.

    Examples
    --------
    >>> import numpy as np
    >>> with open_blocks(np.array([[0, 2], [1, 0], [0, 0]])) as blocks:
    ...     for block in blocks.iter_blocks(block_size=2):
    ...         print(block.start, block.indptr, block.indices, block.data)
    0 [0 1 2] [1 0] [2 1]
    2 [0 0] [] []
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(source, matrix, memory)
    if hasattr(source, "obs") and hasattr(source, "var") and hasattr(source, "layers"):
        return _open_anndata(source, matrix, memory)
    if matrix != "X":
        raise InputDataError(
            f"A bare matrix has no {show(matrix)}: ask for matrix='X', or pass the AnnData."
        )
    return _open_array(source, "the matrix", memory)


# ---------------------------------------------------------------- what kind of source


def _open_path(path: str | os.PathLike[str], matrix: str, memory: int) -> RowBlocks:
    if Path(path).is_dir() or os.fspath(path).endswith((".zarr", ".zarr.zip")):
        return _open_zarr_path(path, matrix, memory)
    with ExitStack() as stack:
        file = stack.enter_context(safe_h5_open(path))
        header = matrix_header(file, matrix, path)
        blocks = _open_h5_node(matrix_node(file, matrix, path), header, path, memory)
        blocks._stack.push(stack.pop_all())
    return blocks


def _open_h5_node(
    node: Any, header: MatrixHeader, path: str | os.PathLike[str], memory: int
) -> RowBlocks:
    where = f"{header.key} in {show_path(path)}"
    if header.storage == "dense":
        return _DenseRows(where, header.shape, H5Table(node, where))
    parts = {
        name: H5Vector(node[name], f"{header.key}/{name} in {show_path(path)}")
        for name in ("data", "indices", "indptr")
    }
    return _open_sparse(header, path, parts, memory)


def _open_sparse(
    header: MatrixHeader,
    path: str | os.PathLike[str],
    parts: dict[str, Any],
    memory: int,
) -> RowBlocks:
    names = {name: f"{header.key}/{name} in {show_path(path)}" for name in parts}
    where = f"{header.key} in {show_path(path)}"
    if header.storage == "csr":
        return _CsrRows(where, header, parts, names)
    return _CscRows(where, header, parts, names, memory)


def _open_zarr_path(path: str | os.PathLike[str], matrix: str, memory: int) -> RowBlocks:
    shown = show_path(path)
    if not Path(path).exists():
        raise InputDataError(f"No file or folder {shown}: check the path.")
    is_zip = not Path(path).is_dir()
    if not is_zip and not any((Path(path) / n).is_file() for n in (".zgroup", "zarr.json")):
        raise InputDataError(
            f"{shown} is a folder but no zarr store (it has no .zgroup and no zarr.json): "
            "name the .h5ad file in it."
        )
    try:
        import zarr
    except ImportError:
        raise InputDataError(
            f"{shown} is a zarr store, and zarr is not installed: `pip install zarr`, "
            "or give an .h5ad file."
        ) from None
    with ExitStack() as stack:
        try:
            if is_zip:
                store: Any = zarr.storage.ZipStore(os.fspath(path), mode="r")
                stack.callback(store.close)
            else:
                store = os.fspath(path)
            root = zarr.open_group(store, mode="r", use_consolidated=False)
            if "obs" not in root or "var" not in root:
                raise InputDataError(
                    f"{shown} is a zarr store but not AnnData (it has no obs and var): "
                    "give a store written by anndata."
                )
            header = matrix_header(root, matrix, path)
            node = matrix_node(root, matrix, path)
            blocks = _open_zarr_node(node, header, path, memory)
        except (InputDataError, MemoryError):
            raise
        except Exception as error:
            # zarr and its codecs raise almost any type on damaged metadata
            raise InputDataError(
                f"{shown} cannot be read as a zarr store ({type(error).__name__}: "
                f"{show(' '.join(str(error).split()))}): obtain or write it again."
            ) from error
        blocks._stack.push(stack.pop_all())
    return blocks


def _open_zarr_node(
    node: Any, header: MatrixHeader, path: str | os.PathLike[str], memory: int
) -> RowBlocks:
    where = f"{header.key} in {show_path(path)}"
    if header.storage == "dense":
        check_zarr_codecs(node, header.key, path)
        return _DenseRows(where, header.shape, ZarrTable(node))
    parts: dict[str, Any] = {}
    for name in ("data", "indices", "indptr"):
        check_zarr_codecs(node[name], f"{header.key}/{name}", path)
        parts[name] = ZarrVector(node[name])
    return _open_sparse(header, path, parts, memory)


def _open_anndata(adata: Any, matrix: str, memory: int) -> RowBlocks:
    name = f"{matrix} of the AnnData"
    backed = bool(adata.isbacked)
    parent = adata._adata_ref if backed and adata.is_view else adata
    available = (
        (["X"] if backed or adata.X is not None else [])
        + (["raw.X"] if adata.raw is not None else [])
        + [f"layers/{layer}" for layer in adata.layers]
    )
    if matrix not in available:
        raise InputDataError(
            f"The AnnData has no matrix {show(matrix)}; it has {', '.join(available) or 'none'}. "
            "Name one of these."
        )
    if matrix.startswith("layers/"):
        return _open_array(adata.layers[matrix.removeprefix("layers/")], name, memory)
    if matrix == "X":
        if parent is adata:
            return _open_array(adata.X, name, memory)
        rows, columns = np.arange(parent.n_obs)[adata._oidx], np.arange(parent.n_vars)[adata._vidx]
        return _SubsetRows(_open_array(parent.X, name, memory), rows, columns)
    if parent is adata:
        return _open_array(adata.raw.X, name, memory)
    rows = np.arange(parent.n_obs)[adata._oidx]
    return _SubsetRows(_open_array(parent.raw.X, name, memory), rows, None)


def _open_array(array: Any, name: str, memory: int) -> RowBlocks:
    """A matrix at hand: scipy, numpy, dask, or an on-disk matrix of a backed AnnData."""
    group = getattr(array, "group", None)  # anndata's handle of a sparse matrix in a file
    node = array if group is None else group
    kind = type(node).__module__.partition(".")[0]
    if kind == "h5py":
        path = node.file.filename
        header = node_header(node, node.name.lstrip("/"), path)
        return _open_h5_node(node, header, path, memory)
    if kind == "zarr":
        path = str(node.store_path)
        return _open_zarr_node(node, node_header(node, node.path, path), path, memory)
    if kind == "dask":
        return _DaskRows(array, name)
    from scipy import sparse

    if sparse.issparse(array):
        check_number_type(array.dtype, name, "memory")
        return _SparseRows(array, name)
    if array is None:
        raise InputDataError(f"{name} is None: name a matrix that has values.")
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputDataError(f"{name} has masked values: fill them (`.filled(0)`) or drop them.")
    dense = np.asarray(array)
    if dense.ndim != 2:
        raise InputDataError(
            f"{name} has {dense.ndim} dimensions; a matrix has rows (cells) and columns (genes)."
        )
    check_number_type(dense.dtype, name, "memory")
    return _DenseRows(name, dense.shape, _ArrayTable(dense))


# ---------------------------------------------------------------- making a block canonical


def _block_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize == 2:
        return np.dtype(np.float32)
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    return dtype.newbyteorder("=")


def _first_bad(values: NDArray[Any]) -> int:
    """Position of the first NaN or infinity, -1 if there is none."""
    if values.dtype.kind != "f" or not values.size:
        return -1
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(values)):  # one pass, no temporary; NaN and inf always show
            return -1
    bad = np.flatnonzero(~np.isfinite(values))
    return int(bad[0]) if len(bad) else -1


def _has_zero(values: NDArray[Any]) -> bool:
    if not values.size or values.min() > 0:  # the usual case: counts
        return False
    return not bool((values != 0).all())


def _is_ascending(indices: NDArray[Any], first: int, indptr: NDArray[np.int64]) -> bool:
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


def _canonical(
    block: CsrBlock, *, is_sorted: bool, has_zero: bool, where: str
) -> CsrBlock:
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


def _not_finite(where: str, row: int, column: int, value: object) -> InputDataError:
    return InputDataError(
        f"{where}: row {row}, column {column} holds {value}; expression values must be finite. "
        "Drop or fill such entries, or name another matrix."
    )


def _damaged(where: str, first: int, last: int, reason: object) -> InputDataError:
    return InputDataError(
        f"{where} is damaged at rows {first} to {max(first, last - 1)}: {reason}. "
        "Obtain the file again and compare its checksum with the source's."
    )


# ---------------------------------------------------------------- rows stored as CSR


class _Fill(NamedTuple):
    """What a thread found while it filled entries `lo` to `hi`."""

    lo: int
    hi: int
    fine: bool  # ascending indices; no stored zero
    bad: int  # position of the first value that is not finite, or -1


class _CsrRows(RowBlocks):
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

    def _iterate(
        self, first: int, last: int, block_size: int, threads: int
    ) -> Iterator[CsrBlock]:
        indptr = self._indptr()
        shared: dict[tuple[str, int], Future[NDArray[Any]]] = {}
        with _Pool(threads) as pool:
            starts = range(first, last, block_size)
            plans = (
                self._plan(pool, shared, indptr, a, min(a + block_size, last)) for a in starts
            )
            yield from _in_order(plans)

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
                del shared[key]
        done = pool.submit(
            self._finish, indptr, first, last, indices, data, fills, edges
        )
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

    def _fill(
        self, name: str, out: NDArray[Any], lo: int, indptr: NDArray[np.int64]
    ) -> _Fill:
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
            return _Fill(lo, hi, _is_ascending(out, lo, indptr), -1)
        bad = _first_bad(out)
        return _Fill(lo, hi, bad >= 0 or not _has_zero(out), bad)

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
                raise _damaged(self._names[name], first, last, error) from error
            found[name].sort()
        bad = [fill for fill in found["data"] if fill.bad >= 0]
        if bad:
            at = bad[0].lo + bad[0].bad
            row = int(np.searchsorted(indptr, at, "right")) - 1
            raise _not_finite(self.where, row, int(indices[at - lo]), data[at - lo])
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
        return _canonical(block, is_sorted=is_sorted, has_zero=has_zero, where=self.where)


def read_indptr(part: Vector, where: str, nnz: int) -> NDArray[np.int64]:
    """All of indptr as int64; it must start at 0, end at `nnz` and never decrease."""
    stored = np.empty(part.length, dtype=part.dtype)
    try:
        part.read_into(0, part.length, stored)
    except DamagedError as error:
        raise _damaged(where, 0, part.length - 1, error) from error
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


def check_indices(
    stored: NDArray[Any], limit: int, error: Callable[[int], InputDataError]
) -> None:
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


# ---------------------------------------------------------------- working ahead in threads


class _Pool:
    """Threads that are gone, and their queue with them, when the reader stops early."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="senoscore-io")

    def submit(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._executor.submit(task, *args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _in_order(plans: Iterator[tuple[int, Future[CsrBlock]]]) -> Iterator[CsrBlock]:
    """Results in the order planned; `plans` queues work when advanced, with its size in bytes."""
    pending: deque[tuple[int, Future[CsrBlock]]] = deque()
    ahead = 0
    exhausted = False
    while True:
        while not exhausted and (len(pending) < 2 or (ahead < _AHEAD_BYTES and len(pending) < 64)):
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


# ---------------------------------------------------------------- rows made unit by unit


class _UnitRows(RowBlocks):
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
            raise _damaged(self.where, first, last, error) from error

    def _prepare(self, first: int, last: int, threads: int) -> None:
        """Work that is needed before the first unit."""

    def _iterate(
        self, first: int, last: int, block_size: int, threads: int
    ) -> Iterator[CsrBlock]:
        if first == last:
            return
        self._prepare(first, last, threads)
        with _Pool(threads) as pool:
            plans = (
                (self._unit_bytes(a, b), pool.submit(self._guarded, a, b))
                for a, b in self._units(first, last, block_size)
            )
            yield from _recut(_in_order(plans), first, last, block_size)


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
            yield _join([_cut(piece, max(at, piece.start), end) for piece in held], at)
            tail = held[-1]
            held = [tail] if tail.start + tail.n_obs > end else []
            at = end


def _cut(block: CsrBlock, first: int, last: int) -> CsrBlock:
    a, b = first - block.start, min(last - block.start, block.n_obs)
    if a == 0 and b == block.n_obs:
        return block
    lo, hi = int(block.indptr[a]), int(block.indptr[b])
    return CsrBlock(
        first, block.indptr[a : b + 1] - lo, block.indices[lo:hi], block.data[lo:hi], block.n_vars
    )


def _join(pieces: Sequence[CsrBlock], start: int) -> CsrBlock:
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


# ---------------------------------------------------------------- dense


class _ArrayTable:
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


class _DenseRows(_UnitRows):
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
            return _empty(first, last, self.n_vars, self.dtype)
        tiles = self._table.tiles(first, last)
        return dense_to_block(tiles, first, last, self.n_vars, self.dtype, self.where)


def _empty(first: int, last: int, n_vars: int, dtype: np.dtype[Any]) -> CsrBlock:
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
        if _first_bad(values.ravel()) >= 0:
            rows, columns = np.nonzero(~np.isfinite(values))
            here = (int(rows[0]), left + int(columns[0]), values[rows[0], columns[0]])
            bad = here if bad is None else min(bad, here, key=lambda item: item[:2])
        flags = values != 0
        counts = np.count_nonzero(flags, axis=1).astype(np.int64)
        flat = np.flatnonzero(flags)
        columns32 = (flat % tile.shape[1] + left).astype(np.int32)
        found.append((counts, columns32, values.ravel()[flat]))
    if bad is not None:
        raise _not_finite(where, first + bad[0], bad[1], bad[2])
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


# ---------------------------------------------------------------- sparse in memory, dask


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
    bad = _first_bad(data)
    if bad >= 0:
        row = start + int(np.searchsorted(indptr, bad, "right")) - 1
        raise _not_finite(where, row, int(indices[bad]), data[bad])
    block = CsrBlock(start, indptr, indices, data, n_vars)
    is_sorted, has_zero = _is_ascending(indices, 0, indptr), _has_zero(data)
    if is_sorted and not has_zero:
        return block
    return _canonical(block, is_sorted=is_sorted, has_zero=has_zero, where=where)


class _SparseRows(_UnitRows):
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
        rows = _CsrView(
            matrix.indptr[first : last + 1], matrix.indices, matrix.data, (last - first, self.n_vars)
        )
        return sparse_to_block(rows, first, self.dtype, self.where)


class _CsrView(NamedTuple):
    """Some rows of a CSR matrix, without scipy's checks and copies."""

    indptr: NDArray[Any]
    indices: NDArray[Any]
    data: NDArray[Any]
    shape: tuple[int, int]


class _DaskRows(_UnitRows):
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
        return dense_to_block(
            iter([(0, tile)]), first, last, self.n_vars, self.dtype, self.where
        )


# ---------------------------------------------------------------- columns (CSC) on disk


class _CscRows(_UnitRows):
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
            self._tiles = _tiles.transpose(source, first, last, memory=self._memory, threads=threads)
        except _tiles.CscError as error:
            raise self._explain(error) from error
        self._stack.callback(self._tiles.close)

    def _explain(self, error: _tiles.CscError) -> InputDataError:
        columns = f"columns {error.first} to {error.last - 1}"
        if error.kind == "value":
            row, column, value = error.detail
            return _not_finite(self.where, row, column, value)
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
        indptr, indices, data = self._tiles.rows(first, last)
        view = _CsrView(indptr, indices, data, (last - first, self.n_vars))
        return sparse_to_block(view, first, self.dtype, self.where)


# ---------------------------------------------------------------- a view of a backed AnnData


class _SubsetRows(RowBlocks):
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
        self._stack.callback(parent.close)

    def _nbytes(self) -> int:
        return self._parent.nbytes_compressed

    def _iterate(
        self, first: int, last: int, block_size: int, threads: int
    ) -> Iterator[CsrBlock]:
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
