"""A first pass kept for the second: its blocks in few bytes, in a nameless file, not inflated again.

Counts are mostly below 256 and genes below 65,536, so that a value takes three bytes where it takes
eight in memory, and reading them back costs a tenth of inflating the file once more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from senoscore.io.blocks import CsrBlock


def as_float(data: NDArray[Any]) -> NDArray[np.floating]:
    """Values as the kernels take them.

    Two compiled versions of each kernel are enough: float32 as most files are, float64 for all that
    float32 could not hold exactly.
    """
    if data.dtype == np.float32 or data.dtype == np.float64:
        return data
    return data.astype(np.float32 if data.dtype.itemsize <= 2 else np.float64)


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the fewest bytes."""
    if not values.size or values.min() < 0:
        return values
    largest = values.max()
    for dtype in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(dtype).max:
            if values.dtype.itemsize <= np.dtype(dtype).itemsize:
                return values
            small = values.astype(dtype)
            return small if values.dtype.kind in "iu" or (small == values).all() else values
    return values


class _Place(NamedTuple):
    start: int
    n_vars: int
    indptr: NDArray[np.int64]
    offset: int
    types: tuple[np.dtype[Any], np.dtype[Any]]


class Spool:
    """Blocks in the order in which they were appended; gone when it is closed, or the process is."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (see close)
        self._places: list[_Place] = []
        self._end = 0

    @staticmethod
    def has_room(folder: Path, nnz: int) -> bool:
        """Whether twice what is needed is free where the file would lie."""
        return shutil.disk_usage(folder).free > 2 * 8 * nnz

    @property
    def n_obs(self) -> int:
        """Rows held."""
        return sum(len(place.indptr) - 1 for place in self._places)

    @staticmethod
    def pack(block: CsrBlock) -> CsrBlock:
        """A block in few bytes; for the threads that make blocks."""
        width = np.uint16 if block.n_vars < 2**16 else np.uint32
        return block._replace(indices=block.indices.astype(width), data=compact(block.data))

    @staticmethod
    def unpack(block: CsrBlock) -> CsrBlock:
        """The values of a packed block as they were."""
        return block._replace(indices=block.indices.astype(np.int32), data=as_float(block.data))

    def append(self, packed: CsrBlock) -> None:
        """Write a packed block behind the others."""
        types = (packed.indices.dtype, packed.data.dtype)
        self._places.append(_Place(packed.start, packed.n_vars, packed.indptr, self._end, types))
        for values in (packed.indices, packed.data):
            view = np.ascontiguousarray(values).data.cast("B")
            self._end += len(view)
            while view:
                view = view[self._file.write(view) :]

    def iter_blocks(
        self, *, block_size: int = 0, threads: int = 1, rows: tuple[int, int] | None = None
    ) -> Iterator[CsrBlock]:
        """The packed blocks as they were appended; for `senoscore.streaming`, as `RowBlocks`."""
        if rows is not None:
            raise ValueError("a spool is read whole")
        for place in self._places:
            n = int(place.indptr[-1])
            sizes = [n * dtype.itemsize for dtype in place.types]
            raw = os.pread(self._file.fileno(), sum(sizes), place.offset)
            if len(raw) != sum(sizes):
                raise OSError("the scratch file is shorter than what was written to it")
            yield CsrBlock(
                place.start,
                place.indptr,
                np.frombuffer(raw, place.types[0], n),
                np.frombuffer(raw, place.types[1], n, sizes[0]),
                place.n_vars,
            )

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
