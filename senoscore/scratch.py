"""A matrix that is read more than once, kept in few bytes after the first time.

To inflate a file again takes most of a pass. `Kept` hands on the blocks of a source as they are read
and leaves them, packed (`senoscore.kernels.pack`), in a file without a name, half the size of the
compressed matrix and read back three times as fast. It is gone with the object, or with the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from senoscore.errors import SenoscoreError
from senoscore.inspect import Facts, inspect_file
from senoscore.io._rows import _AHEAD_BYTES, _in_order, _Pool, _recut
from senoscore.io.blocks import CsrBlock, RowBlocks, open_blocks
from senoscore.kernels.pack import PackedRows, compact, pack
from senoscore.reader import Job, Reader

logger = logging.getLogger(__name__)

_BYTES_PER_VALUE: Final = 1.5  # of counts; measured 1.25
_MARGIN: Final = 1 << 30
_WAITING: Final = 2  # blocks that may wait to be packed


class PackedBlock(NamedTuple):
    """Some consecutive rows of a matrix, packed."""

    start: int
    rows: PackedRows
    n_vars: int

    def unpacked(self) -> CsrBlock:
        """The same rows as they were."""
        from senoscore.kernels.passes import take_rows  # who only packs need not load it

        rows, n = self.rows, len(self.rows.codes)
        indices, data = np.empty(n, np.int32), np.empty(n, rows.rest.dtype)
        take_rows(*rows, np.arange(rows.n_rows), rows.indptr, indices, data)
        return CsrBlock(self.start, rows.indptr, indices, data, self.n_vars)


def pack_block(block: CsrBlock) -> PackedBlock:
    """A block, packed."""
    return PackedBlock(block.start, pack(block.indptr, block.indices, block.data), block.n_vars)


class Unit(NamedTuple):
    """Where some rows lie: codes, then steps and values that stand apart.

    indptr, far_at, rest_at: as in `PackedRows`. far, rest: in which type.
    """

    start: int
    indptr: NDArray[np.int64]
    far_at: NDArray[np.int64]
    rest_at: NDArray[np.int64]
    offset: int
    far: np.dtype[Any]
    rest: np.dtype[Any]

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + len(self.indptr) - 1

    @property
    def ends(self) -> list[int]:
        """Where each part ends, in bytes."""
        sizes = (
            int(at[-1]) * kind.itemsize
            for at, kind in (
                (self.indptr, np.dtype(np.uint8)),
                (self.far_at, self.far),
                (self.rest_at, self.rest),
            )
        )
        return list(accumulate(sizes))


def has_room(folder: Path, nnz: int, value_bytes: float = 0) -> bool:
    """Whether twice what `nnz` values need, and a gigabyte, is free in a folder.

    `value_bytes`: of each value, where most are no small counts.
    """
    needed = nnz * (_BYTES_PER_VALUE + value_bytes)
    return shutil.disk_usage(folder).free > 2 * needed + _MARGIN


class Packer:
    """Appends blocks of rows to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0

    def keep(self, block: PackedBlock) -> Unit:
        """Write a block; where it lies now."""
        indptr, codes, far_at, far, rest_at, rest = block.rows
        parts = [codes, compact(far[: far_at[-1]]), compact(rest[: rest_at[-1]])]
        unit = Unit(block.start, indptr, far_at, rest_at, self._end, parts[1].dtype, parts[2].dtype)
        for part in parts:
            view = part.view(np.uint8).data
            self._end += len(view)
            while view:
                view = view[self._file.write(view) :]
        return unit


class Kept(RowBlocks):
    """A source whose rows are read from it once, and from scratch after that.

    Its blocks are those of the source. The first reading of all rows fills the scratch file; readings
    of some rows before that go to the source. Where the file cannot be written any further, all
    go to the source.

    Parameters
    ----------
    source
        Taken over: closed with this.
    folder
        Where the file is to lie.
    """

    def __init__(self, source: RowBlocks, folder: Path) -> None:
        super().__init__(
            source.where, (source.n_obs, source.n_vars), source.dtype, source.storage, source.nnz
        )
        self.stack.callback(source.close)
        self._source = source
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._packer: Packer | None = None
        self._stored: list[Unit] = []
        self._reader: Reader | None = None
        self._is_lost = False
        self.is_full = False

    def close(self) -> None:
        """Close the source and give back the scratch space."""
        super().close()
        self._drop()

    def _nbytes(self) -> int:
        return self._source.nbytes_compressed

    def _iterate(self, first: int, last: int, block_size: int, threads: int) -> Iterator[CsrBlock]:
        loads = self.iter_packed(block_size=block_size, threads=threads, rows=(first, last))
        with _Pool(threads) as pool:
            plans = ((_AHEAD_BYTES, pool.submit(_unpacked, load)) for load in loads)
            yield from _recut(_in_order(pool, plans, threads + 1), first, last, block_size)

    def iter_packed(
        self, *, block_size: int, threads: int, rows: tuple[int, int] | None = None
    ) -> Iterator[Callable[[], PackedBlock]]:
        """The rows in order, packed, as soon as one asks for them, from any thread.

        Parameters
        ----------
        block_size
            Rows that are read at a time, if this is the first time; the heights of what comes differ.
        threads, rows
            As in `iter_blocks`.
        """
        first, last = (0, self.n_obs) if rows is None else rows
        if self.is_full:
            return (
                partial(self._load, unit, max(unit.start, first), min(unit.stop, last), self._file)
                for unit in self._stored
                if max(unit.start, first) < min(unit.stop, last)
            )
        if (first, last) != (0, self.n_obs):
            return self._from_source(first, last, block_size, threads)
        reader, self._reader = self._reader, None
        if reader is not None:
            return self._by_other(reader, block_size, threads)
        return self._filling(self._read_source(first, last, block_size, threads), threads)

    def _from_source(
        self, first: int, last: int, block_size: int, threads: int
    ) -> Iterator[Callable[[], PackedBlock]]:
        for block in self._read_source(first, last, block_size, threads):
            yield partial(pack_block, block)

    def _read_source(
        self, first: int, last: int, block_size: int, threads: int
    ) -> Iterator[CsrBlock]:
        return self._source.iter_blocks(block_size=block_size, threads=threads, rows=(first, last))

    # ------------------------------------------------------------------ the first time

    def _filling(
        self, blocks: Iterator[CsrBlock], threads: int
    ) -> Iterator[Callable[[], PackedBlock]]:
        waiting: deque[Future[PackedBlock]] = deque()
        self._drop()
        with _Pool(threads, n=1) as pool:  # not more: blocks are written in order
            for block in blocks:
                waiting.append(pool.submit(self._keep, block))
                if len(waiting) > _WAITING:
                    yield waiting.popleft().result
            wait(waiting)  # a pool that ends lets go of what it has not begun
        for packed in waiting:
            yield packed.result
        if self._is_lost:
            self._drop()
            return
        self.is_full = True
        self._source.close()

    def _keep(self, block: CsrBlock) -> PackedBlock:
        packed = pack_block(block)
        if not self._is_lost:
            try:
                if self._packer is None:
                    file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
                    self._packer = Packer(self._keep_open(file))
                self._stored.append(self._packer.keep(packed))
            except OSError as error:
                logger.info("scratch data cannot be written (%s): the file is read again", error)
                self._is_lost = True
        return packed

    def _keep_open(self, file: IO[bytes]) -> IO[bytes]:
        self._file = file
        self.stack.callback(file.close)
        return file

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._stored, self._packer, self._is_lost = None, [], None, False

    # ------------------------------------------------------------------ by another process

    def hand_over(self, reader: Reader) -> None:
        """Take the rows from another process, which reads the same matrix already.

        It serves who first asks for all of them.
        """
        self._reader = reader

    def _by_other(
        self, reader: Reader, block_size: int, threads: int
    ) -> Iterator[Callable[[], PackedBlock]]:
        self._drop()
        assert reader.file is not None
        self._keep_open(os.fdopen(os.dup(reader.file.fileno()), "rb", buffering=0))
        at = 0
        try:
            for unit in reader.units():
                self._stored.append(unit)
                yield partial(self._load, unit, unit.start, unit.stop, self._file)
                at = unit.stop
        except OSError as error:
            logger.info("%s: the rest is read here", error)
            reader.close()
            self._file = None  # what was handed out may not have been read: it is closed with this
            self._drop()
            yield from self._from_source(at, self.n_obs, block_size, threads)
            return
        finally:
            reader.close()
        self.is_full = True
        self._source.close()

    # ------------------------------------------------------------------ from then on

    def _load(self, unit: Unit, first: int, last: int, file: IO[bytes] | None) -> PackedBlock:
        if file is None or file.closed:
            raise RuntimeError("the matrix was closed while it was read")
        raw = _read(file, unit.offset, unit.ends[-1])
        codes, far, rest = np.split(raw, unit.ends[:-1])
        values = (codes, _padded(far, unit.far, np.int32), _padded(rest, unit.rest, self.dtype))
        starts = (unit.indptr, unit.far_at, unit.rest_at)
        rows = PackedRows.of(zip(starts, values, strict=True))
        return PackedBlock(first, rows.between(first - unit.start, last - unit.start), self.n_vars)


def _padded(raw: NDArray[np.uint8], stored: np.dtype[Any], dtype: DTypeLike) -> NDArray[Any]:
    """What was stored, and one entry more."""
    return np.append(raw.view(stored), np.zeros(1, stored)).astype(dtype, copy=False)


def _unpacked(load: Callable[[], PackedBlock]) -> CsrBlock:
    return load().unpacked()


def _read(file: IO[bytes], offset: int, size: int) -> NDArray[np.uint8]:
    raw = np.empty(size, np.uint8)
    view = raw.data
    while view:
        n = os.preadv(file.fileno(), [view], offset + size - len(view))
        if n == 0:
            raise OSError("the scratch file is shorter than what was written to it")
        view = view[n:]
    return raw


# ---------------------------------------------------------------------- the other process


def serve(descriptor: int, path: str) -> None:
    """All that a `Reader` does: look at the file, and tell of each block where it was written.

    `path`: what it will most likely be asked to look at, or nothing.
    """
    with socket.socket(fileno=descriptor) as line, contextlib.suppress(KeyboardInterrupt, OSError):
        seen = _glance(path)
        message, files, _, _ = socket.recv_fds(line, 1 << 20, 1)
        if not message:  # nothing is to be read
            return
        job = pickle.loads(message)  # noqa: S301 - from who started this process
        try:
            facts = seen if seen is not None and job.path == path and not job.overrides else None
            for said in _read_for(job, files[0], facts):
                line.sendall(pickle.dumps(said))
        except (SenoscoreError, OSError) as error:  # of any other the end of the process tells
            line.sendall(pickle.dumps(error))
        line.sendall(pickle.dumps(None))


def _glance(path: str) -> Facts | None:
    """What the file holds, if nothing is known better; what is wrong with it is told when asked."""
    with contextlib.suppress(SenoscoreError, OSError):
        return inspect_file(path) if path else None
    return None


def _read_for(job: Job, descriptor: int, facts: Facts | None) -> Iterator[Facts | Unit]:
    if facts is None:
        facts = inspect_file(job.path, overrides=job.overrides)
    yield facts
    if facts.counts.value is None:
        return
    with (
        os.fdopen(descriptor, "wb", buffering=0) as file,
        open_blocks(job.path, matrix=facts.counts.value) as rows,
    ):
        packer = Packer(file)
        for block in rows.iter_blocks(block_size=job.block_size, threads=job.threads):
            yield packer.keep(pack_block(block))
