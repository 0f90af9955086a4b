"""Writing results: all or nothing, the same bytes for the same content, never outside the folder."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import math
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from senoscore.errors import ConfigError, InputDataError
from senoscore.io._workers import workers
from senoscore.io.h5 import show, show_path

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_MAX_ID_BYTES: Final = 200
FLOAT_FORMAT: Final = "%.9g"
_CHUNK_BYTES: Final = 1 << 18


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    r"""A temporary name to write to; it becomes `path` only when the block ends without error.

    The temporary file lies in the same folder (made if need be) and keeps the suffixes, so that
    writers that look at them work. The content is on disk (fsync) before the name changes; after
    an error, or a kill at any moment, what was at `path` is still there.

    Examples
    --------
    >>> with atomic_path("results/pbmc/donors.tsv") as part:  # doctest: +SKIP
    ...     part.write_text("donor\tcells\n")
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(target.suffixes[-2:])
    suffix = suffix if len(suffix) <= 20 else target.suffix[:20]
    part = target.parent / f".senoscore-{secrets.token_hex(8)}{suffix}"
    try:
        yield part
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; some file systems do not offer it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def dataset_dir(results: str | os.PathLike[str], dataset_id: str) -> Path:
    """The folder of one data set, ``results/<dataset_id>``; it is not made.

    Spaces, quotes and ``;`` are fine. What could leave the folder, or not be a name, is refused.

    Raises
    ------
    ConfigError
        If the id is empty, ``.`` or ``..``, absolute, too long, or holds a separator or a
        control character.

    Examples
    --------
    >>> dataset_dir("results", "pbmc 3k").as_posix()
    'results/pbmc 3k'
    """
    reason = None
    if not isinstance(dataset_id, str):
        reason = "is not text"
    elif not dataset_id.strip():
        reason = "is empty"
    elif any(ord(c) < 32 or ord(c) == 127 for c in dataset_id):
        reason = "holds a control character"
    elif "/" in dataset_id or "\\" in dataset_id:
        reason = "holds a path separator"
    elif dataset_id.startswith((".", "-")):
        reason = f"starts with {dataset_id[0]!r}"
    elif len(dataset_id.encode("utf-8", "surrogatepass")) > _MAX_ID_BYTES:
        reason = f"is longer than {_MAX_ID_BYTES} bytes"
    elif any("\ud800" <= c <= "\udfff" for c in dataset_id):
        reason = "is not valid Unicode"
    if reason is not None:
        raise ConfigError(
            f"The dataset id {show(dataset_id)} {reason}; it names a folder inside the results: "
            "use letters, digits, spaces, dots or underscores."
        )
    return Path(results) / dataset_id


def write_h5ad(
    adata: AnnData,
    path: str | os.PathLike[str],
    *,
    compression: str | None = "gzip",
    threads: int = 1,
) -> None:
    """Write an AnnData atomically; equal content gives equal bytes. `adata` is not changed."""
    from anndata.experimental import write_dispatched

    # the fastest level: scores are nearly noise, which no level makes much smaller
    level = {"compression_opts": 1} if compression == "gzip" else {}

    def write(store_one: Any, store: h5py.Group, key: str, elem: Any, **how: Any) -> None:
        if compression == "gzip" and _is_large(elem):
            spec = how["iospec"]
            made = _write_deflated(store, key, np.asarray(elem), threads)
            made.attrs["encoding-type"] = spec.encoding_type
            made.attrs["encoding-version"] = spec.encoding_version
        # what is not there has no name in the file: readers before anndata 0.12 know no null
        elif not (elem is None and key.lstrip("/") in ("X", "raw")):
            store_one(store, key, elem, dataset_kwargs=how["dataset_kwargs"])

    with atomic_path(path) as part, h5py.File(part, "w") as file:
        write_dispatched(
            file, "/", adata, write, dataset_kwargs={"compression": compression, **level}
        )


def _is_large(elem: Any) -> bool:
    """Whether it is an array of plain numbers that does not fit into one chunk."""
    return (
        isinstance(elem, np.ndarray)
        and elem.dtype.kind in "biuf"
        and elem.dtype.itemsize <= 8
        and elem.nbytes > _CHUNK_BYTES
    )


def _write_deflated(
    store: h5py.Group, key: str, values: NDArray[Any], threads: int
) -> h5py.Dataset:
    """A gzip dataset like any other, its chunks deflated by ISA-L: in a fifth of the time."""
    from isal import isal_zlib

    rows = max(1, _CHUNK_BYTES // values[:1].nbytes)
    made = store.create_dataset(
        key, values.shape, values.dtype, chunks=(rows, *values.shape[1:]),
        compression="gzip", compression_opts=1,
    )  # fmt: skip

    def deflated(start: int) -> bytes:
        # chunks are stored whole
        chunk = np.zeros(made.chunks, values.dtype)
        part = values[start : start + rows]
        chunk[: len(part)] = part
        return isal_zlib.compress(chunk, 1)

    starts = range(0, len(values), rows)
    with workers(threads) as pool:
        for start, chunk in zip(starts, pool.map(deflated, starts), strict=True):
            made.id.write_direct_chunk((start, *(0,) * (values.ndim - 1)), chunk)
    return made


def write_tsv(frame: pd.DataFrame, path: str | os.PathLike[str], *, index: bool = False) -> None:
    r"""Write a table atomically as UTF-8 text: tabs, ``\n``, floats with nine digits, NA.

    Nine significant digits give back every float32 exactly. Cells that hold a tab, a quote or a
    line break are quoted. A path ending in ``.gz`` is compressed, without a time stamp.

    Parameters
    ----------
    frame
        The table.
    path
        Where to.
    index
        Whether to write the index, as the first column(s).
    """
    text = frame.to_csv(
        None,
        sep="\t",
        index=index,
        na_rep="NA",
        float_format=FLOAT_FORMAT,
        lineterminator="\n",
        # a bare carriage return is not quoted by default, and readers take it for a line end
        quoting=csv.QUOTE_NONNUMERIC if _has_carriage_return(frame) else csv.QUOTE_MINIMAL,
    )
    content = text.encode("utf-8", "backslashreplace")
    if os.fspath(path).endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    _write_bytes(content, path)


def _has_carriage_return(frame: pd.DataFrame) -> bool:
    import pandas as pd

    labels = [*frame.columns, *(frame.index if frame.index.dtype == object else ())]
    if any("\r" in label for label in labels if isinstance(label, str)):
        return True
    for i in range(frame.shape[1]):
        column = frame.iloc[:, i]
        values = column.cat.categories if column.dtype == "category" else column
        if pd.api.types.is_numeric_dtype(values.dtype):
            continue
        if any("\r" in value for value in values if isinstance(value, str)):
            return True
    return False


def write_json(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write JSON atomically: sorted keys, UTF-8, two spaces; NaN becomes null.

    Takes dataclasses, paths, numpy scalars and arrays, tuples and sets too.

    Raises
    ------
    TypeError
        For anything else, and for keys that are not text.
    ValueError
        For infinite numbers, which JSON cannot hold.
    """
    text = json.dumps(_plain(obj), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    _write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"), path)


def _plain(obj: Any) -> Any:
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: _plain(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        wrong = [key for key in obj if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"JSON keys must be text, not {wrong[0]!r}")
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, np.ndarray):
        return _plain(obj.tolist())
    if isinstance(obj, np.generic):
        return _plain(obj.item())
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if isinstance(obj, (set, frozenset)):
        return sorted(_plain(value) for value in obj)
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, str):
        return str(obj)
    if isinstance(obj, float):
        if math.isinf(obj):
            raise ValueError("JSON cannot hold an infinite number")
        return None if math.isnan(obj) else float(obj)
    if obj is None or isinstance(obj, (bool, int)):
        return obj
    raise TypeError(f"cannot write {type(obj).__name__} as JSON")


def write_npz(
    arrays: Mapping[str, ArrayLike], path: str | os.PathLike[str], *, compress: bool = True
) -> None:
    """Write named arrays atomically as ``.npz``: no pickle, no time stamps, names sorted.

    Raises
    ------
    TypeError
        If an array holds Python objects; text must be a fixed-width (``U``) array.
    """
    with atomic_path(path) as part:
        method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        with zipfile.ZipFile(part, "w", method, compresslevel=1 if compress else None) as archive:
            for name in sorted(arrays):
                array = np.asanyarray(arrays[name])
                if array.dtype.hasobject:
                    raise TypeError(f"array {name!r} holds Python objects, which npz cannot hold")
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = method
                entry.external_attr = 0o644 << 16
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def read_npz(path: str | os.PathLike[str], prefix: str = "") -> dict[str, NDArray[Any]]:
    """Read what :func:`write_npz` wrote; checksums are verified and nothing is unpickled.

    With `prefix` only the arrays whose names begin with it.

    Raises
    ------
    InputDataError
        If the file is missing, damaged, or no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for name in archive.namelist():
                if not name.startswith(prefix):
                    continue
                with archive.open(name) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                    if member.read(1):  # reading to the end also verifies the checksum
                        raise ValueError(f"{name} is longer than its array")
                arrays[name.removesuffix(".npy")] = array
            return arrays
    except FileNotFoundError:
        raise InputDataError(
            f"No file {show_path(path)}: run the stage that writes it first."
        ) from None
    except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise InputDataError(
            f"{show_path(path)} is damaged or no .npz file ({show(str(error))}): delete it and "
            "run the stage that writes it again."
        ) from error


def _write_bytes(content: bytes, path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as part, io.FileIO(part, "w") as handle:
        view = memoryview(content)
        while view:
            view = view[handle.write(view) :]
