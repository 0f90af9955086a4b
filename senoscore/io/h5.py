"""Opening HDF5 files that nobody here wrote: every surprise is one sentence, never a traceback."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from senoscore.errors import InputDataError

_HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
# deflate cannot shrink anything more than 1032-fold; LZF and "none" do less
_MAX_RATIO: Final = 1100
# bitshuffle, zstd and their like shrink a constant further than deflate, but not without limit
_MAX_RATIO_OTHER: Final = 100_000
_SMALL: Final = 16 << 20
_MAX_OBJECTS: Final = 50_000
_MAX_SOFT_LINKS: Final = 16
_WALKED: Final = ("X", "raw", "raw.X", "raw.var", "layers", "obs", "var", "obsm")
_UNDECLARED: Final = "null"
# what the modalities of genes and of antibodies are called in MuData files
RNA_MODALITIES: Final = ("rna", "RNA", "gex", "GEX", "gene_expression", "Gene Expression")
PROTEIN_MODALITIES: Final = ("prot", "protein", "proteins", "adt", "ADT", "cite", "antibody", "ab")

FILTER_NAMES: Final = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}


def show(text: object, limit: int = 120) -> str:
    """A name from a file, quoted and cut, so that a message stays one line."""
    quoted = repr(os.fspath(text) if isinstance(text, os.PathLike) else text)
    return quoted if len(quoted) <= limit else f"{quoted[: limit - 4]}...'"


def show_path(path: str | os.PathLike[str]) -> str:
    """A path, quoted; never cut, so that it can be found again."""
    return repr(os.fspath(path))


class UnreadableMatrixError(InputDataError):
    """A matrix of a kind that cannot be read, in a file that may hold others."""


@dataclass(frozen=True)
class MatrixHeader:
    """What a file declares about one matrix, checked against its parts but not decoded.

    `nnz` is the number of stored entries, ``None`` for a dense matrix.
    """

    key: str
    storage: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    nnz: int | None


@contextmanager
def safe_h5_open(
    path: str | os.PathLike[str], *, everything: bool = False, mudata: bool = False
) -> Iterator[h5py.Group]:
    """Open an h5ad file that may be damaged or hostile, for reading.

    Refused with one sentence: what is not an HDF5 file (git-lfs pointers, gzip, web pages are
    named as such), what is HDF5 but not AnnData (10x, loom), a truncated file, external
    links, virtual datasets, external storage, and declared sizes that contradict each other or
    cannot fit in the file. Nothing is decoded except the ends of each ``indptr``. Of a MuData file
    (an AnnData per modality under ``mod``) the RNA is opened.

    Parameters
    ----------
    path
        The file.
    everything
        Look at every object of the file. By default only what senoscore reads is looked at
        (``X``, ``raw``, ``layers``, ``obs``, ``var``, ``obsm`` and the first level of ``uns``);
        reach anything else through :func:`find_node`, which checks what it passes.
    mudata
        Expect a MuData file, and look at all of it.

    Returns
    -------
    A context manager that gives the open file; of a MuData file the group of its RNA, or the whole
    file where `mudata` asks for it.

    Raises
    ------
    InputDataError
        For all of the above, and for HDF5's own read errors inside the ``with`` block.
    """
    _check_is_hdf5(path)
    try:
        file = h5py.File(os.fspath(path), "r")
    except OSError as error:
        raise InputDataError(_explain_open_error(path, error)) from error
    with file:
        try:
            if mudata:
                root = _check_is_mudata(file, path)
            else:
                root = _anndata_root(file, path)
            _check_links(root, path, everything=everything or mudata)
            for key in matrix_keys(root):
                with suppress(UnreadableMatrixError):  # matters only to who asks for this one
                    matrix_header(root, key, path)
        except Exception as error:
            # on damaged headers h5py raises almost any type, from ValueError to TypeError
            if isinstance(error, InputDataError) or not _is_raised_by_h5py(error):
                raise
            raise _damaged(path, error) from error
        try:
            yield root
        except (OSError, RuntimeError, KeyError) as error:
            # only HDF5's own words: an error of the caller's code must stay what it is
            if not (_is_raised_by_h5py(error) and _HDF5_WORDS(str(error))):
                raise
            raise _damaged(path, error) from error


def _damaged(path: str | os.PathLike[str], error: BaseException) -> InputDataError:
    return InputDataError(
        f"{show_path(path)} is damaged: HDF5 says {_hdf5_words(error)}. "
        "Obtain the file again and compare its checksum with the source's."
    )


def matrix_keys(root: Any) -> list[str]:
    """The matrices of an AnnData file: ``X``, ``raw.X``, ``layers/NAME``, in this order.

    `root` is an open file, or a zarr group with the same layout.
    """
    keys = ["X"] if _is_matrix(_child(root, "X")) else []
    raw = _child(root, "raw")
    if _is_matrix(_child(raw, "X")) or _is_matrix(_child(root, "raw.X")):
        keys.append("raw.X")
    layers = _child(root, "layers")
    if layers is not None and not _is_array(layers):
        keys += [f"layers/{name}" for name in sorted(layers) if _is_matrix(_child(layers, name))]
    return keys


def matrix_node(root: Any, key: str, path: str | os.PathLike[str]) -> Any:
    """The group or dataset behind a matrix key; a wrong key lists the ones that exist."""
    node = None
    if key == "X":
        node = _child(root, "X")
    elif key == "raw.X":
        node = _child(_child(root, "raw"), "X")
        node = _child(root, "raw.X") if node is None else node
    elif key.startswith("layers/") and len(key) > len("layers/"):
        node = _child(_child(root, "layers"), key.removeprefix("layers/"))
    else:
        raise InputDataError(
            f"Unknown matrix {show(key)}: write 'X', 'raw.X' or 'layers/NAME'. "
            f"{show_path(path)} has {_listing(matrix_keys(root))}."
        )
    if not _is_matrix(node):
        raise InputDataError(
            f"{show_path(path)} has no matrix {show(key)}; it has "
            f"{_listing(matrix_keys(root))}. Name one of these, or use a file with values."
        )
    return node


def matrix_header(root: Any, key: str, path: str | os.PathLike[str]) -> MatrixHeader:
    """Storage, shape, dtype and number of stored entries of one matrix, proven consistent.

    Works on an open HDF5 file and on a zarr group. Only the two ends of ``indptr`` are decoded.

    Raises
    ------
    InputDataError
        If the parts contradict each other, the lengths of ``obs`` and ``var``, or the file size.
    """
    node = matrix_node(root, key, path)
    raw = key == "raw.X"
    n_obs = frame_length(root, "obs")
    n_vars = frame_length(root, "raw/var" if raw else "var")
    if n_vars is None and raw:
        n_vars = frame_length(root, "raw.var")
    header = node_header(node, key, path, n_obs=n_obs, n_vars=n_vars)
    for axis, frame, length in ((0, "obs", n_obs), (1, "raw.var" if raw else "var", n_vars)):
        if length is not None and header.shape[axis] != length:
            raise InputDataError(
                f"{key} in {show_path(path)} has {header.shape[axis]} "
                f"{('rows', 'columns')[axis]} but {frame} has {length} entries: "
                "the file contradicts itself; obtain or write it again."
            )
    return header


def node_header(
    node: Any,
    key: str,
    path: str | os.PathLike[str],
    *,
    n_obs: int | None = None,
    n_vars: int | None = None,
) -> MatrixHeader:
    """As :func:`matrix_header`, for a group or dataset at hand."""
    if _is_array(node):
        return _dense_header(node, key, path)
    return _sparse_header(node, key, path, n_obs, n_vars)


def frame_length(root: Any, name: str) -> int | None:
    """Number of rows of ``obs`` or ``var`` in any of AnnData's encodings; None if not declared."""
    node = root
    for part in name.split("/"):
        node = _child(node, part)
    if node is None:
        return None
    if _is_array(node):
        return int(node.shape[0]) if len(node.shape) == 1 else None
    index = _text(node.attrs.get("_index"))
    for candidate in (index, "_index", "index"):
        column = _child(node, candidate) if candidate else None
        if column is None:
            continue
        if not _is_array(column):  # nullable strings and categories keep theirs in a group
            column = _child(column, "values" if _child(column, "codes") is None else "codes")
        if _is_array(column) and len(column.shape) == 1:
            return int(column.shape[0])
    return None


def find_node(file: h5py.Group, name: str, path: str | os.PathLike[str] | None = None) -> Any:
    """The object `name` of an HDF5 file, or None; never follows a link out of the file.

    Every link on the way is looked at before it is followed, and the object's storage is
    checked, so that parts of ``uns`` can be read without :func:`safe_h5_open`'s ``everything``.
    """
    where = file.file.filename if path is None else path
    node, _ = _walk(file, name, where, _MAX_SOFT_LINKS)
    if isinstance(node, h5py.Dataset):
        _check_dataset_storage(node.id, name, where)
    return node


# ---------------------------------------------------------------- is this an AnnData file?


def _check_is_hdf5(path: str | os.PathLike[str]) -> None:
    shown = show_path(path)
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise InputDataError(f"No file {shown}: check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputDataError(f"Cannot open {shown}: {reason}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputDataError(
            f"{shown} is a folder, not an HDF5 file: name the .h5ad file in it"
            " (a zarr store is a folder with a .zgroup or zarr.json)."
        )
    if not stat.S_ISREG(status.st_mode):
        raise InputDataError(f"{shown} is not a regular file: copy its content to a file first.")
    if status.st_size == 0:
        raise InputDataError(f"{shown} is empty (0 bytes): obtain it again.")
    try:
        with Path(path).open("rb") as handle:
            head = handle.read(512)
            if head.startswith(_HDF5_MAGIC):
                return
            offset = 512  # a user block may come first: its length is a power of two
            while offset < status.st_size:
                handle.seek(offset)
                if handle.read(8) == _HDF5_MAGIC:
                    return
                offset *= 2
    except OSError as error:
        raise InputDataError(f"Cannot read {shown}: {error.strerror}.") from error
    raise InputDataError(f"{shown} is not an HDF5 file: {_guess_content(head)}")


def _guess_content(head: bytes) -> str:
    start = head.lstrip()[:64].lower()
    if head.startswith(b"version https://git-lfs"):
        return (
            "it is a git-lfs pointer, a note of where the data are. Fetch the data with "
            "`git lfs pull`, or download the file from its source."
        )
    if head.startswith(b"\x1f\x8b"):
        return "it is gzip-compressed. Unpack it with `gunzip` and name the unpacked file."
    if head.startswith(b"PK"):
        return "it is a zip archive. A zipped zarr store must be named *.zarr.zip; unpack others."
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page or an error message of a download. Download the file again."
    if start.startswith(b"%%matrixmarket"):
        return "it is a MatrixMarket text file. Write it as .h5ad with anndata first."
    if head.startswith((b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "it is compressed. Unpack it and name the unpacked file."
    if not head.strip(b"\x00"):
        return "it starts with zeros only, as an unfinished download does. Download it again."
    return f"it starts with {show(head[:16])}. Give an .h5ad file written by anndata."


def _explain_open_error(path: str | os.PathLike[str], error: OSError) -> str:
    shown = show_path(path)
    text = str(error)
    sizes = re.search(r"truncated file: eof = (\d+).*?stored_eof = (\d+)", text)
    if sizes:
        return (
            f"{shown} is truncated: it has {sizes[1]} bytes and its header declares {sizes[2]}. "
            "Download or copy it again."
        )
    if "unable to lock file" in text:
        return (
            f"{shown} is locked by another program that writes it. Wait until it is finished, or, "
            "on a file system without locks, set HDF5_USE_FILE_LOCKING=FALSE."
        )
    return (
        f"{shown} cannot be opened as HDF5 ({_hdf5_words(error)}): it is damaged or cut off. "
        "Obtain it again."
    )


def _anndata_root(file: h5py.File, path: str | os.PathLike[str]) -> h5py.Group:
    """Where the AnnData of genes begins: the file, or a modality of a MuData file."""
    links = file.id.links
    if links.exists(b"mod"):
        return _rna_of(file, path)
    if links.exists(b"obs") and links.exists(b"var"):
        return file
    names = _link_names(file, 12)
    shown = show_path(path)
    if _looks_like_10x(file, names):
        raise InputDataError(
            f"{shown} is a 10x Genomics matrix (.h5), not an h5ad file: read it with "
            "`scanpy.read_10x_h5` and save it with `write_h5ad`."
        )
    if {"row_attrs", "col_attrs"} <= set(names):
        raise InputDataError(
            f"{shown} is a loom file: read it with `anndata.io.read_loom`, save with `write_h5ad`."
        )
    missing = " and ".join(n for n in ("obs", "var") if not links.exists(n.encode()))
    raise InputDataError(
        f"{shown} is HDF5 but not AnnData: it has no {missing}; it holds {_listing(names)}. "
        "Give an .h5ad file written by anndata."
    )


def _check_is_mudata(file: h5py.File, path: str | os.PathLike[str]) -> h5py.File:
    if not file.id.links.exists(b"mod"):
        raise InputDataError(
            f"{show_path(path)} is no MuData file (.h5mu): it has no group 'mod'; it holds "
            f"{_listing(_link_names(file, 12))}."
        )
    return file


def _rna_of(file: h5py.File, path: str | os.PathLike[str]) -> h5py.Group:
    there = modalities(file)
    name = next((name for name in RNA_MODALITIES if name in there), None)
    if name is None:
        raise InputDataError(
            f"{show_path(path)} is a MuData file with no modality of genes: looked for "
            f"{', '.join(RNA_MODALITIES)}; it has {_listing(there)}. Rename it, or write it to an "
            ".h5ad file."
        )
    root = find_node(file, f"mod/{name}", path)
    inside = _link_names(root, _MAX_OBJECTS) if isinstance(root, h5py.Group) else []
    missing = [n for n in ("obs", "var") if n not in inside]
    if missing:
        raise InputDataError(
            f"{show_path(path)}: modality {name!r} has no {' and '.join(missing)}: the file is "
            "incomplete."
        )
    return root


def modalities(root: Any) -> list[str]:
    """Modalities of the MuData file a group belongs to; none for an h5ad file or a zarr store."""
    mod = find_node(root.file, "mod") if isinstance(root, h5py.Group) else None
    return sorted(_link_names(mod, _MAX_OBJECTS)) if isinstance(mod, h5py.Group) else []


def _looks_like_10x(file: h5py.File, names: list[str]) -> bool:
    for name in names:
        link = name.encode("utf-8", "surrogateescape")
        if file.id.links.get_info(link).type != h5py.h5l.TYPE_HARD:
            continue
        child = file[link]
        if isinstance(child, h5py.Group) and all(
            child.id.links.exists(part) for part in (b"barcodes", b"data", b"indptr")
        ):
            return True
    return False


# ---------------------------------------------------------------- links and storage


def _check_links(file: h5py.Group, path: str | os.PathLike[str], *, everything: bool) -> None:
    names = set(_link_names(file, _MAX_OBJECTS))
    seen: set[int] = set()
    wanted = sorted(names) if everything else [name for name in _WALKED if name in names]
    for name in wanted:
        _check_below(file, name, path, seen, depth=None)
    if "uns" in names and not everything:
        _check_below(file, "uns", path, seen, depth=1)


def _check_below(
    file: h5py.Group,
    name: str,
    path: str | os.PathLike[str],
    seen: set[int],
    *,
    depth: int | None,
) -> None:
    """Look at `name` and at what lies below it (`depth` levels; None: all)."""
    todo: list[tuple[Any, str, str, int | None]] = [(file, name, name, depth)]
    while todo:
        parent, link, where, left = todo.pop()
        node, address = _walk(parent, link, path, _MAX_SOFT_LINKS, where=where, split=False)
        if node is None:
            raise InputDataError(
                f"{show(where)} in {show_path(path)} is a link to nothing: the file is incomplete."
            )
        if address in seen:
            continue
        seen.add(address)
        if len(seen) > _MAX_OBJECTS:
            raise InputDataError(
                f"{show_path(path)} holds more than {_MAX_OBJECTS} objects, the last seen is "
                f"{show(where)}: this is no table of cells; remove what is not needed."
            )
        if isinstance(node, h5py.Dataset):
            _check_dataset_storage(node.id, where, path)
        elif isinstance(node, h5py.Group) and left != 0:
            below = None if left is None else left - 1
            todo += [
                (node, child, f"{where}/{child}", below)
                for child in _link_names(node, _MAX_OBJECTS)
            ]


def _walk(
    parent: Any,
    name: str,
    path: str | os.PathLike[str],
    soft_left: int,
    *,
    where: str | None = None,
    split: bool = True,
) -> tuple[Any, int]:
    """Follow `name` from `parent` link by link; the object (or None) and its address."""
    where = name if where is None else where
    node = parent
    address = -1
    for part in [p for p in name.split("/") if p not in ("", ".")] if split else [name]:
        if not isinstance(node, h5py.Group):
            return None, -1
        link = part.encode("utf-8", "surrogateescape")
        if not node.id.links.exists(link):
            return None, -1
        info = node.id.links.get_info(link)
        if info.type == h5py.h5l.TYPE_HARD:
            target = h5py.h5o.get_info(node.id, link)
            address = int(target.addr)
            node = node[link]
        elif info.type == h5py.h5l.TYPE_SOFT:
            if soft_left == 0:
                raise InputDataError(
                    f"{show(where)} in {show_path(path)} is a chain of links without end: "
                    "the file is damaged or hostile; do not use it."
                )
            soft = node.id.links.get_val(link).decode("utf-8", "surrogateescape")
            start = node.file if soft.startswith("/") else node
            soft_left -= 1
            node, address = _walk(start, soft, path, soft_left, where=where)
            if node is None:
                return None, -1
        elif info.type == h5py.h5l.TYPE_EXTERNAL:
            other = node.id.links.get_val(link)[0].decode("utf-8", "replace")
            raise InputDataError(
                f"{show(where)} in {show_path(path)} is an external link to another file, "
                f"{show(other)}, which is not followed: write one file that holds all its data."
            )
        else:
            raise InputDataError(
                f"{show(where)} in {show_path(path)} is a link of an unknown kind "
                f"({info.type}), which is not followed: write the file again with anndata."
            )
    return node, address


def _check_dataset_storage(dset: Any, where: str, path: str | os.PathLike[str]) -> None:
    plist = dset.get_create_plist()
    layout = plist.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise InputDataError(
            f"{show(where)} in {show_path(path)} is a virtual dataset, whose values lie in other "
            "files and are not followed: write one file that holds all its data."
        )
    if layout == h5py.h5d.CONTIGUOUS and plist.get_external_count() > 0:
        other = plist.get_external(0)[0].decode("utf-8", "replace")
        raise InputDataError(
            f"{show(where)} in {show_path(path)} keeps its values in external storage, "
            f"{show(other)}, which is not read: write one file that holds all its data."
        )


def _link_names(group: h5py.Group, limit: int) -> list[str]:
    names: list[str] = []

    def note(name: bytes) -> bool | None:
        names.append(name.decode("utf-8", "surrogateescape"))
        return True if len(names) >= limit else None

    if len(group.id):
        group.id.links.iterate(note)
    return names


# ---------------------------------------------------------------- declared sizes


def _sparse_header(
    group: Any,
    key: str,
    path: str | os.PathLike[str],
    n_obs: int | None,
    n_vars: int | None,
) -> MatrixHeader:
    file = show_path(path)
    parts = {name: _child(group, name) for name in ("data", "indices", "indptr")}
    for name, part in parts.items():
        if part is None or not _is_array(part) or len(part.shape) != 1:
            found = "missing" if part is None else "not a one-dimensional array"
            raise InputDataError(
                f"{key}/{name} in {file} is {found}: a sparse matrix needs data, indices "
                "and indptr; obtain or write the file again."
            )
    data, indices, indptr = parts["data"], parts["indices"], parts["indptr"]
    for name in ("indices", "indptr"):
        if parts[name].dtype.kind not in "iu":
            raise InputDataError(
                f"{key}/{name} in {file} has type {show(str(parts[name].dtype))} where integers "
                "are needed: write the file again with anndata."
            )
    check_number_type(data.dtype, f"{key}/data", path)
    storage, shape = _declared_sparse(group, key, path, n_obs, n_vars, int(indptr.shape[0]))
    n_major = shape[0] if storage == "csr" else shape[1]
    if indptr.shape[0] != n_major + 1:
        raise InputDataError(
            f"{key}/indptr in {file} has {indptr.shape[0]} entries; a {storage} matrix of "
            f"{shape[0]} x {shape[1]} needs {n_major + 1}: the file is damaged; obtain it again."
        )
    if data.shape[0] != indices.shape[0]:
        raise InputDataError(
            f"{key} in {file} has {data.shape[0]} values in data but {indices.shape[0]} in "
            "indices: the file is damaged; obtain it again."
        )
    for name, part in parts.items():
        _check_plausible(part, f"{key}/{name}", path)
    nnz = int(data.shape[0])
    first, last = (int(x) for x in (indptr[0], indptr[-1]))
    if first != 0 or last != nnz:
        hint = " (a 32-bit overflow?)" if last < 0 else ""
        raise InputDataError(
            f"{key}/indptr in {file} runs from {first} to {last}{hint}, but data hold {nnz} "
            "values: the file is damaged; obtain it again."
        )
    return MatrixHeader(key, storage, shape, data.dtype, nnz)


def _declared_sparse(
    group: Any,
    key: str,
    path: str | os.PathLike[str],
    n_obs: int | None,
    n_vars: int | None,
    n_indptr: int,
) -> tuple[str, tuple[int, int]]:
    """Format and shape, as anndata has written them since 0.5."""
    attrs = group.attrs
    encoding = _text(attrs.get("encoding-type")) or _text(attrs.get("h5sparse_format"))
    storage = {"csr_matrix": "csr", "csr": "csr", "csc_matrix": "csc", "csc": "csc"}.get(
        encoding or ""
    )
    file = show_path(path)
    if encoding is not None and storage is None:
        raise UnreadableMatrixError(
            f"{key} in {file} is encoded as {show(encoding)}; csr_matrix, csc_matrix and dense "
            "arrays can be read. Convert it with scipy and write the file again."
        )
    declared = attrs.get("shape", attrs.get("h5sparse_shape"))
    shape: tuple[int, int] | None = None
    if declared is not None:
        values = np.asarray(declared).ravel()
        if values.shape != (2,) or values.dtype.kind not in "iu" or (values < 0).any():
            raise InputDataError(
                f"{key} in {file} declares the shape {show(str(values[:4].tolist()))}, "
                "which is no number of rows and columns: the file is damaged; obtain it again."
            )
        shape = (int(values[0]), int(values[1]))
    elif n_obs is not None and n_vars is not None:
        shape = (n_obs, n_vars)
    if shape is None:
        raise InputDataError(
            f"{key} in {file} declares no shape, and obs and var have no index to take it "
            "from: write the file again with anndata."
        )
    if max(shape) >= 2**31 - 1 and (storage == "csc" or shape[1] >= 2**31 - 1):
        raise InputDataError(
            f"{key} in {file} declares {shape[0]} x {shape[1]}, too many to be cells and genes: "
            "the file is damaged; obtain it again."
        )
    if storage is None:
        fits = [
            n for n, length in zip(("csr", "csc"), shape, strict=True) if length == n_indptr - 1
        ]
        if len(fits) != 1:
            raise InputDataError(
                f"{key} in {file} does not say whether it is stored by rows or by columns: "
                "write the file again with anndata."
            )
        storage = fits[0]
    return storage, shape


def _dense_header(dset: Any, key: str, path: str | os.PathLike[str]) -> MatrixHeader:
    shape = tuple(int(n) for n in dset.shape)
    if len(shape) != 2:
        raise UnreadableMatrixError(
            f"{key} in {show_path(path)} has {len(shape)} dimensions, {show(str(shape))}; a matrix "
            "has rows (cells) and columns (genes): write the file again with anndata."
        )
    check_number_type(dset.dtype, key, path)
    if shape[1] >= 2**31 - 1:
        raise InputDataError(
            f"{key} in {show_path(path)} declares {shape[1]} columns, too many to be genes: "
            "the file is damaged; obtain it again."
        )
    # chunks of zeros only need not be stored, so a dense matrix may be far larger than its bytes
    _check_plausible(dset, key, path, slack=1000)
    return MatrixHeader(key, "dense", (shape[0], shape[1]), dset.dtype, None)


def check_number_type(dtype: np.dtype[Any], where: str, path: str | os.PathLike[str]) -> None:
    """Only real numbers can be scored."""
    if dtype.kind not in "fiub":
        raise UnreadableMatrixError(
            f"{where} in {show_path(path)} has type {show(str(dtype))}; expression values "
            "must be numbers: write the matrix as float32 or integers."
        )


def _check_plausible(
    part: Any, where: str, path: str | os.PathLike[str], *, slack: int = 1
) -> None:
    """Refuse a declared size that the stored bytes cannot hold, before anything is allocated."""
    if not isinstance(part, h5py.Dataset):
        return
    declared = int(np.prod([int(n) for n in part.shape], dtype=object)) * part.dtype.itemsize
    if declared <= _SMALL and not (declared and slack == 1):
        return
    stored = min(int(part.id.get_storage_size()), Path(part.file.filename).stat().st_size)
    filters = part.id.get_create_plist()
    codes = {filters.get_filter(i)[0] for i in range(filters.get_nfilters())}
    ratio = _MAX_RATIO if codes <= {1, 2, 3, 32000} else _MAX_RATIO_OTHER
    if declared > (stored + 4096 if stored else 0) * ratio * slack:
        raise InputDataError(
            f"{where} in {show_path(path)} declares {' x '.join(map(str, part.shape))} values but "
            f"only {stored} bytes are stored: the file is unfinished or damaged; obtain it again."
        )


# ---------------------------------------------------------------- small helpers, HDF5 and zarr


def _child(group: Any, name: str) -> Any:
    """The child of an HDF5 or zarr group, or None."""
    if not hasattr(group, "keys"):
        return None
    if isinstance(group, h5py.Group):
        return find_node_in(group, name)
    return group[name] if name in group else None  # noqa: SIM401


def find_node_in(group: h5py.Group, name: str) -> Any:
    """As :func:`find_node`, relative to a group."""
    node, _ = _walk(group, name, group.file.filename, _MAX_SOFT_LINKS)
    if isinstance(node, h5py.Dataset):
        _check_dataset_storage(node.id, f"{group.name}/{name}".lstrip("/"), group.file.filename)
    return node


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _is_matrix(node: Any) -> bool:
    if _is_array(node):
        return node.shape is not None and _text(node.attrs.get("encoding-type")) != _UNDECLARED
    return hasattr(node, "keys")


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _listing(names: list[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(show(name, 60) for name in names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"


_HDF5_WORDS: Final[Callable[[str], re.Match[str] | None]] = re.compile(
    r"^['\"]?(Can't|Unable to|Couldn't|Unspecified error|Object |Bad |Addr |Incorrect |Link )"
).match


def _is_raised_by_h5py(error: BaseException) -> bool:
    trace = error.__traceback__
    innermost = ""
    while trace is not None:
        innermost = trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    return "h5py" in innermost.replace("\\", "/").split("/")


def _hdf5_words(error: BaseException) -> str:
    words = str(error.args[0] if error.args else error).strip("'\"")
    return show(" ".join(words.split()), 200)
