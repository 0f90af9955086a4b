"""Decoding stored chunks outside HDF5, so that several threads can inflate at once.

HDF5 decodes one chunk at a time under a global lock. Here HDF5 only says where each chunk lies;
the bytes are read with ``pread`` and inflated by ISA-L, both without Python's global lock. What
is not understood (other filters, exotic number types) is left to HDF5 itself, correct but slower.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
from array import array
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Protocol

import h5py
import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from senoscore.errors import InputDataError
from senoscore.io.h5 import FILTER_NAMES, show, show_path

_DEFLATE: Final = 1
_SHUFFLE: Final = 2
_FLETCHER32: Final = 3
_RUN_BYTES: Final = 1 << 20


class DamagedError(Exception):
    """Stored bytes that cannot be what was written; the caller adds where they are."""


class Vector(Protocol):
    """A stored one-dimensional array, read by ranges from any thread.

    `grain` is the number of elements that are decoded together (0: any range costs the same).
    """

    length: int
    dtype: np.dtype[Any]
    grain: int

    def read_into(self, lo: int, hi: int, out: NDArray[Any]) -> None:
        """Put elements `lo` to `hi` into `out`, which has this vector's dtype."""

    def nbytes_stored(self) -> int:
        """Bytes on disk."""


class Table(Protocol):
    """A stored two-dimensional array, read by tiles from any thread."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    grain: tuple[int, int]

    def tiles(self, lo: int, hi: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Rows `lo` to `hi`, as (first column, values) from left to right."""

    def nbytes_stored(self) -> int:
        """Bytes on disk."""


# ---------------------------------------------------------------- filters


def inflate(raw: Any, n_bytes: int) -> bytes:
    """Undo deflate; the Adler checksum is verified and nothing beyond `n_bytes` is produced."""
    try:
        stream = isal_zlib.decompressobj(15)
        out = stream.decompress(raw, n_bytes + 1)
    except (igzip_lib.error, ValueError) as error:  # type: ignore[misc]  # the stub lacks the class
        raise DamagedError(f"inflating failed ({error})") from error
    if len(out) == n_bytes and stream.eof:
        return out
    if len(out) > n_bytes:
        raise DamagedError(f"a chunk inflates to more than its {n_bytes} bytes")
    raise DamagedError(f"a chunk ends after {len(out)} of {n_bytes} bytes")


def unshuffle(raw: Any, width: int) -> Any:
    """Undo HDF5's shuffle: first bytes of all elements, then second bytes, and so on."""
    stored = np.frombuffer(raw, dtype=np.uint8)
    n = stored.size // width
    if width <= 1 or n <= 1:
        return raw
    out = np.empty_like(stored)
    out[: n * width].reshape(n, width)[...] = stored[: n * width].reshape(width, n).T
    out[n * width :] = stored[n * width :]
    return out


def fletcher32(raw: Any) -> int:
    """HDF5's Fletcher-32 checksum: sums of 16-bit big-endian words modulo 65535."""
    stored = np.frombuffer(raw, dtype=np.uint8)
    words = stored[: stored.size // 2 * 2].view(">u2")
    if stored.size % 2:
        words = np.append(words, np.uint16(int(stored[-1]) << 8))
    piece = 1 << 16
    weights = np.arange(piece, 0, -1, dtype=np.int64)
    sum1 = sum2 = 0
    for start in range(0, len(words), piece):
        part = words[start : start + piece].astype(np.int64)
        sum2 += sum1 * len(part) + int(part @ weights[piece - len(part) :])
        sum1 += int(part.sum())
    # HDF5 folds with end-around carry, which leaves 65535, not 0, for a multiple of 65535
    folded = [65535 if total and total % 65535 == 0 else total % 65535 for total in (sum1, sum2)]
    return folded[1] << 16 | folded[0]


def strip_fletcher32(raw: Any) -> Any:
    """Verify the checksum at the end of a chunk and take it off."""
    view = memoryview(raw).cast("B")
    if len(view) < 4:
        raise DamagedError("a chunk is shorter than its checksum")
    stored = int.from_bytes(view[-4:], "little")
    content = view[:-4]
    found = fletcher32(content)
    # HDF5 before 1.6.3 wrote the two sums with swapped bytes, and HDF5 still accepts that
    swapped = (found & 0x00FF00FF) << 8 | (found & 0xFF00FF00) >> 8
    if stored not in (found, swapped):
        raise DamagedError(f"the checksum is {found:#010x} where {stored:#010x} is stored")
    return content


class Pipeline:
    """The filters of a chunked dataset, undone in reverse order."""

    def __init__(self, filters: list[tuple[int, tuple[int, ...]]], n_bytes: int) -> None:
        self.filters = filters
        self.n_bytes = n_bytes

    @classmethod
    def of(cls, dset: h5py.Dataset) -> Pipeline | None:
        """The pipeline of a dataset, or None where only HDF5 can decode it."""
        if dset.chunks is None or dset.file.driver != "sec2" or not hasattr(os, "pread"):
            return None
        if not _is_plain_type(dset) or not hasattr(dset.id, "chunk_iter"):
            return None
        plist = dset.id.get_create_plist()
        filters = []
        for i in range(plist.get_nfilters()):
            code, _, values, _ = plist.get_filter(i)
            if code not in (_DEFLATE, _SHUFFLE, _FLETCHER32):
                return None
            filters.append((int(code), tuple(int(v) for v in values)))
        return cls(filters, math.prod(dset.chunks) * dset.dtype.itemsize)

    def decode(self, raw: Any, mask: int) -> Any:
        """The bytes of one chunk; `mask` has a bit set for each filter that was skipped."""
        size = self.n_bytes
        for i in reversed(range(len(self.filters))):
            if mask >> i & 1:
                continue
            code, values = self.filters[i]
            if code == _DEFLATE:
                # a checksum laid under the compression is inflated with the values
                extra = sum(
                    4
                    for j, (other, _) in enumerate(self.filters[:i])
                    if other == _FLETCHER32 and not mask >> j & 1
                )
                raw = inflate(raw, size + extra)
            elif code == _SHUFFLE:
                raw = unshuffle(raw, values[0] if values else 1)
            else:
                raw = strip_fletcher32(raw)
        if len(raw) != size:
            raise DamagedError(f"a chunk decodes to {len(raw)} of {size} bytes")
        return raw


def _is_plain_type(dset: h5py.Dataset) -> bool:
    """Whether the stored bytes are what numpy takes them for (no 24-bit integers, no enums)."""
    if dset.dtype.kind not in "iuf":
        return False
    return bool(dset.id.get_type().equal(h5py.h5t.py_create(dset.dtype)))


def _check_filters_known(dset: h5py.Dataset, where: str) -> None:
    plist = dset.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code = int(plist.get_filter(i)[0])
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):  # registers blosc, zstd, bitshuffle and others with HDF5
            importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            name = FILTER_NAMES.get(code, "unknown")
            raise InputDataError(
                f"{where} is compressed with HDF5 filter {code} ({name}), which is not installed: "
                "`pip install hdf5plugin`, or write the file again with compression='gzip'."
            )


# ---------------------------------------------------------------- where the chunks lie


class _ChunkIndex:
    """Place, size and filter mask of every chunk, asked of HDF5 once, on first use."""

    def __init__(self, dset: h5py.Dataset, where: str) -> None:
        self._dset = dset
        self._where = where
        self._lock = threading.Lock()
        self._ready = False
        self.grid = tuple(
            -(-int(n) // int(c)) for n, c in zip(dset.shape, dset.chunks, strict=True)
        )

    def load(self) -> None:
        with self._lock:
            if self._ready:
                return
            try:
                self._load()
            except (OSError, RuntimeError, ValueError, OverflowError) as error:
                raise DamagedError(f"the list of chunks cannot be read ({error})") from error
            self._ready = True

    def _load(self) -> None:
        number, offset, size, mask = array("q"), array("q"), array("q"), array("q")
        chunks = tuple(int(c) for c in self._dset.chunks)
        grid = self.grid

        def note(info: Any) -> None:
            flat = 0
            for at, chunk, n in zip(info.chunk_offset, chunks, grid, strict=True):
                position, rest = divmod(at, chunk)
                if rest or position >= n:
                    return  # outside the declared shape: left over from before a resize
                flat = flat * n + position
            number.append(flat)
            offset.append(-1 if info.byte_offset is None else info.byte_offset)
            size.append(info.size)
            mask.append(info.filter_mask)

        self._dset.id.chunk_iter(note)
        n = math.prod(grid)
        at = np.asarray(number, dtype=np.int64)
        # a dense table may leave most of its chunks unstored: keep what is there, sorted
        order = np.argsort(at, kind="stable")
        self._numbers = at[order]
        self.offset = np.asarray(offset, dtype=np.int64)[order]
        self.size = np.asarray(size, dtype=np.int64)[order]
        self.mask = np.asarray(mask, dtype=np.int64)[order]
        if len(at) > 1 and (np.diff(self._numbers) == 0).any():
            raise ValueError("a chunk is listed twice")
        self._complete = len(at) == n

    def find(self, number: int) -> int:
        """Where chunk `number` stands in the arrays, or -1 if it is not stored."""
        if self._complete:
            return number
        i = int(np.searchsorted(self._numbers, number))
        return i if i < len(self._numbers) and self._numbers[i] == number else -1


class _RawFile:
    """Byte ranges of an open HDF5 file, read without HDF5."""

    def __init__(self, file: h5py.File) -> None:
        if file.mode != "r":
            file.flush()
        self._fd = file.id.get_vfd_handle()

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0:
            piece = os.pread(self._fd, size, offset)
            if not piece:
                raise DamagedError("the file ends before its data do")
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, offset: int, out: NDArray[Any], stored: np.dtype[Any]) -> None:
        """Fill `out` with values stored as they are, without a copy where the types agree."""
        if stored != out.dtype or not out.flags.c_contiguous or not hasattr(os, "preadv"):
            out[...] = np.frombuffer(self.read(offset, out.size * stored.itemsize), stored)
            return
        view = out.view(np.uint8).data
        while view:
            n = os.preadv(self._fd, [view], offset)
            if n == 0:
                raise DamagedError("the file ends before its data do")
            view, offset = view[n:], offset + n


def _contiguous_offset(dset: h5py.Dataset) -> int | None:
    if dset.chunks is not None or dset.file.driver != "sec2" or not hasattr(os, "pread"):
        return None
    if not _is_plain_type(dset):
        return None
    offset = dset.id.get_offset()
    return None if offset is None else int(offset)


# ---------------------------------------------------------------- HDF5


class H5Vector:
    """A one-dimensional HDF5 dataset."""

    def __init__(self, dset: h5py.Dataset, where: str) -> None:
        _check_filters_known(dset, where)
        self._dset = dset
        self.length = int(dset.shape[0])
        self._stored = dset.dtype
        self.dtype = dset.dtype.newbyteorder("=")
        self.grain = int(dset.chunks[0]) if dset.chunks else 0
        self._pipeline = Pipeline.of(dset)
        self._raw = _RawFile(dset.file)
        self._index = _ChunkIndex(dset, where) if self._pipeline else None
        self._offset = _contiguous_offset(dset)

    def nbytes_stored(self) -> int:
        return int(self._dset.id.get_storage_size())

    def read_into(self, lo: int, hi: int, out: NDArray[Any]) -> None:
        if hi <= lo:
            return
        if self._index is not None and self._pipeline is not None:
            self._read_chunks(self._index, self._pipeline, lo, hi, out)
        elif self._offset is not None:
            self._raw.read_into(self._offset + lo * self._stored.itemsize, out, self._stored)
        else:
            try:
                self._dset.read_direct(out, np.s_[lo:hi])
            except (OSError, RuntimeError) as error:
                raise DamagedError(f"HDF5 cannot read it ({error})") from error

    def _read_chunks(
        self, index: _ChunkIndex, pipeline: Pipeline, lo: int, hi: int, out: NDArray[Any]
    ) -> None:
        index.load()
        grain, stored = self.grain, self._stored
        number, last = lo // grain, (hi - 1) // grain
        while number <= last:
            place = index.find(number)
            if place < 0 or index.offset[place] < 0:
                raise DamagedError(f"its chunk {number} was never written")
            # neighbours in the array mostly lie side by side in the file: one read for several
            begin, size, count = int(index.offset[place]), int(index.size[place]), 1
            while (
                number + count <= last
                and size < _RUN_BYTES
                and place + count < len(index.offset)
                and index.find(number + count) == place + count
                and int(index.offset[place + count]) == begin + size
            ):
                size += int(index.size[place + count])
                count += 1
            if not pipeline.filters:
                # the chunks of a run are one stretch of plain values
                if size != count * pipeline.n_bytes:
                    raise DamagedError(f"a chunk has {size // count} of {pipeline.n_bytes} bytes")
                first = number * grain
                number += count
                a, b = max(lo, first), min(hi, number * grain)
                begin += (a - first) * stored.itemsize
                self._raw.read_into(begin, out[a - lo : b - lo], stored)
                continue
            raw = memoryview(self._raw.read(begin, size))
            at = 0
            for i in range(place, place + count):
                n = int(index.size[i])
                chunk = pipeline.decode(raw[at : at + n], int(index.mask[i]))
                at += n
                first = number * grain
                a, b = max(lo, first), min(hi, first + grain)
                out[a - lo : b - lo] = np.frombuffer(chunk, stored)[a - first : b - first]
                number += 1


class H5Table:
    """A two-dimensional HDF5 dataset."""

    def __init__(self, dset: h5py.Dataset, where: str) -> None:
        _check_filters_known(dset, where)
        self._dset = dset
        self.shape = (int(dset.shape[0]), int(dset.shape[1]))
        self._stored = dset.dtype
        self.dtype = dset.dtype.newbyteorder("=")
        chunks = dset.chunks
        self.grain = (int(chunks[0]), int(chunks[1])) if chunks else (0, 0)
        self._pipeline = Pipeline.of(dset)
        self._raw = _RawFile(dset.file)
        self._index = _ChunkIndex(dset, where) if self._pipeline else None
        self._offset = _contiguous_offset(dset)

    def nbytes_stored(self) -> int:
        return int(self._dset.id.get_storage_size())

    def tiles(self, lo: int, hi: int) -> Iterator[tuple[int, NDArray[Any]]]:
        n_vars = self.shape[1]
        if self._index is not None and self._pipeline is not None:
            yield from self._chunk_tiles(self._index, self._pipeline, lo, hi)
        elif self._offset is not None:
            width = self._stored.itemsize * n_vars
            raw = self._raw.read(self._offset + lo * width, (hi - lo) * width)
            yield 0, np.frombuffer(raw, self._stored).reshape(hi - lo, n_vars)
        else:
            out = np.empty((hi - lo, n_vars), dtype=self.dtype)
            try:
                self._dset.read_direct(out, np.s_[lo:hi])
            except (OSError, RuntimeError) as error:
                raise DamagedError(f"HDF5 cannot read it ({error})") from error
            yield 0, out

    def _chunk_tiles(
        self, index: _ChunkIndex, pipeline: Pipeline, lo: int, hi: int
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        index.load()
        (height, width), n_vars = self.grain, self.shape[1]
        for band in range(lo // height, (hi - 1) // height + 1):
            top = band * height
            a, b = max(lo, top), min(hi, top + height)
            if (a, b) != (lo, hi):
                raise AssertionError("tiles are asked within one band of chunks")
            for column in range(index.grid[1]):
                left = column * width
                right = min(left + width, n_vars)
                place = index.find(band * index.grid[1] + column)
                if place < 0 or index.offset[place] < 0:  # never written: the fill value
                    fill = self._dset.fillvalue
                    yield left, np.full((b - a, right - left), fill, dtype=self.dtype)
                    continue
                raw = self._raw.read(int(index.offset[place]), int(index.size[place]))
                chunk = pipeline.decode(raw, int(index.mask[place]))
                values = np.frombuffer(chunk, self._stored).reshape(height, width)
                yield left, values[a - top : b - top, : right - left]


# ---------------------------------------------------------------- zarr

# fmt: off
_ZARR_CODECS: Final = frozenset({
    "adler32", "bitround", "blosc", "bytes", "bz2", "cast_value", "crc32", "crc32c", "delta",
    "endian", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma",
    "packbits", "pcodec", "quantize", "scale_offset", "sharding_indexed", "shuffle", "transpose",
    "zfpy", "zlib", "zstd",
})
# fmt: on


def check_zarr_codecs(zarr_array: Any, where: str, path: str | os.PathLike[str]) -> None:
    """Refuse codecs that are not known to be mere arithmetic (pickle would run code)."""
    for name in _codec_names(zarr_array.metadata.to_dict()):
        if name.removeprefix("numcodecs.") not in _ZARR_CODECS:
            raise InputDataError(
                f"{where} in {show_path(path)} is stored with the codec {show(name)}, which is "
                "not accepted from a file: write the store again with anndata."
            )


def _codec_names(metadata: Any) -> Iterator[str]:
    for key in ("compressor", "filters", "codecs", "index_codecs"):
        entry = metadata.get(key) if isinstance(metadata, dict) else None
        for codec in entry if isinstance(entry, (list, tuple)) else [entry]:
            if codec is None:
                continue
            if hasattr(codec, "to_dict"):
                codec = codec.to_dict()
            elif hasattr(codec, "get_config"):
                codec = codec.get_config()
            name = codec.get("name", codec.get("id")) if isinstance(codec, dict) else codec
            yield str(name)
            if isinstance(codec, dict):
                yield from _codec_names(codec.get("configuration"))


class ZarrVector:
    """A one-dimensional zarr array."""

    def __init__(self, zarr_array: Any) -> None:
        self._array = zarr_array
        self.length = int(zarr_array.shape[0])
        self.dtype = zarr_array.dtype.newbyteorder("=")
        self.grain = int(zarr_array.chunks[0])

    def nbytes_stored(self) -> int:
        return int(self._array.nbytes_stored())

    def read_into(self, lo: int, hi: int, out: NDArray[Any]) -> None:
        if hi > lo:
            out[...] = read_zarr(self._array, slice(lo, hi))


class ZarrTable:
    """A two-dimensional zarr array."""

    def __init__(self, zarr_array: Any) -> None:
        self._array = zarr_array
        self.shape = (int(zarr_array.shape[0]), int(zarr_array.shape[1]))
        self.dtype = zarr_array.dtype.newbyteorder("=")
        self.grain = (int(zarr_array.chunks[0]), int(zarr_array.chunks[1]))

    def nbytes_stored(self) -> int:
        return int(self._array.nbytes_stored())

    def tiles(self, lo: int, hi: int) -> Iterator[tuple[int, NDArray[Any]]]:
        yield 0, read_zarr(self._array, slice(lo, hi))


def read_zarr(zarr_array: Any, rows: slice) -> NDArray[Any]:
    """Some rows of a zarr array; whatever a codec raises on damaged bytes is one error."""
    try:
        return np.asarray(zarr_array[rows])
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(f"zarr cannot read it ({type(error).__name__}: {error})") from error
