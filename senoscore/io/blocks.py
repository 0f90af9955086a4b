"""The matrix of any AnnData, as canonical CSR row blocks, in bounded memory.

Everything that computes on expression values reads them here: one function, :func:`open_blocks`,
for files, zarr stores and objects in memory. Blocks come in row order, are decoded ahead of the
consumer by threads (by one: when they are asked for), and are the same for any block size and any
number of threads.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from senoscore.errors import InputDataError
from senoscore.io._canonical import CsrBlock
from senoscore.io._chunks import H5Table, H5Vector, ZarrTable, ZarrVector, check_zarr_codecs
from senoscore.io._rows import (
    ArrayTable,
    CscRows,
    CsrRows,
    DaskRows,
    DenseRows,
    LentRows,
    RowBlocks,
    SparseRows,
    SubsetRows,
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

__all__ = ["DEFAULT_MEMORY", "CsrBlock", "LentRows", "RowBlocks", "open_blocks"]

DEFAULT_MEMORY: Final = 512 << 20


def open_blocks(source: Any, *, matrix: str = "X", memory: int = DEFAULT_MEMORY) -> RowBlocks:
    """Open a matrix for reading by blocks of rows.

    Parameters
    ----------
    source
        Path of an ``.h5ad`` file or of a zarr store (folder or ``.zarr.zip``); an AnnData in
        memory, backed, or on dask; a scipy sparse matrix or array; a numpy array; rows opened
        already, which stay open.
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
    if isinstance(source, RowBlocks):
        return LentRows(source)
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
        blocks.stack.push(stack.pop_all())
    return blocks


def _open_h5_node(
    node: Any, header: MatrixHeader, path: str | os.PathLike[str], memory: int
) -> RowBlocks:
    where = f"{header.key} in {show_path(path)}"
    if header.storage == "dense":
        return DenseRows(where, header.shape, H5Table(node, where))
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
        return CsrRows(where, header, parts, names)
    return CscRows(where, header, parts, names, memory)


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
            node = matrix_node(root, matrix, path)
            _check_codecs(node, matrix, path)  # before anything is decoded
            header = matrix_header(root, matrix, path)
            blocks = _open_zarr_node(node, header, path, memory)
        except (InputDataError, MemoryError):
            raise
        except Exception as error:
            # zarr and its codecs raise almost any type on damaged metadata
            raise InputDataError(
                f"{shown} cannot be read as a zarr store ({type(error).__name__}: "
                f"{show(' '.join(str(error).split()))}): obtain or write it again."
            ) from error
        blocks.stack.push(stack.pop_all())
    return blocks


def _open_zarr_node(
    node: Any, header: MatrixHeader, path: str | os.PathLike[str], memory: int
) -> RowBlocks:
    where = f"{header.key} in {show_path(path)}"
    if header.storage == "dense":
        return DenseRows(where, header.shape, ZarrTable(node))
    parts = {name: ZarrVector(node[name]) for name in ("data", "indices", "indptr")}
    return _open_sparse(header, path, parts, memory)


def _check_codecs(node: Any, key: str, path: str | os.PathLike[str]) -> None:
    if hasattr(node, "dtype"):
        check_zarr_codecs(node, key, path)
        return
    for name in ("data", "indices", "indptr"):
        if name in node and hasattr(node[name], "dtype"):
            check_zarr_codecs(node[name], f"{key}/{name}", path)


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
        return SubsetRows(_open_array(parent.X, name, memory), rows, columns)
    if parent is adata:
        return _open_array(adata.raw.X, name, memory)
    rows = np.arange(parent.n_obs)[adata._oidx]
    return SubsetRows(_open_array(parent.raw.X, name, memory), rows, None)


def _open_array(array: Any, name: str, memory: int) -> RowBlocks:
    """A matrix at hand: scipy, numpy, dask, or an on-disk matrix of a backed AnnData."""
    group = getattr(array, "group", None)  # anndata's handle of a sparse matrix in a file
    node = array if group is None else group
    kind = _library(node)
    if kind == "h5py":
        path = node.file.filename
        header = node_header(node, node.name.lstrip("/"), path)
        return _open_h5_node(node, header, path, memory)
    if kind == "zarr":
        path = str(node.store_path)
        _check_codecs(node, node.path, path)
        return _open_zarr_node(node, node_header(node, node.path, path), path, memory)
    if kind == "dask":
        return DaskRows(array, name)
    from scipy import sparse

    if sparse.issparse(array):
        check_number_type(array.dtype, name, "memory")
        return SparseRows(array, name)
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
    return DenseRows(name, dense.shape, ArrayTable(dense))


def _library(node: Any) -> str:
    """Which optional library an object (or its base class: anndata derives views) belongs to."""
    roots = [cls.__module__.partition(".")[0] for cls in type(node).__mro__]
    return next((root for root in roots if root in ("h5py", "zarr", "dask")), "")
