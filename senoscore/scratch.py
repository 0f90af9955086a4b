"""A matrix that is read more than once, kept in few bytes after the first time.

To inflate a file again takes most of a pass. `Kept` hands on the blocks of a source as they are read
and leaves them, packed (`senoscore.kernels.pack`), in a file without a name, half the size of the
compressed matrix and read back three times as fast. It is gone with the object, or with the process.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import pickle
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from senoscore.errors import SenoscoreError
from senoscore.inspect import Facts, inspect_file
from senoscore.io._canonical import cut_block
from senoscore.io._rows import UnitRows, _in_order, _Pool, _recut
from senoscore.io.blocks import CsrBlock, RowBlocks, open_blocks
from senoscore.kernels.pack import compact, pack_rows, unpack_rows
from senoscore.reader import Job, Reader

logger = logging.getLogger(__name__)

_BYTES_PER_VALUE: Final = 1.5  # of counts; measured 1.25
_MARGIN: Final = 1 << 30
_WAITING: Final = 2  # blocks that may wait to be packed


class Unit(NamedTuple):
    """Where some rows lie: codes, then steps and values that stand apart."""

    start: int
    indptr: NDArray[np.int64]
    offset: int
    far: tuple[np.dtype[Any], int]
    rest: tuple[np.dtype[Any], int]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return int(self.indptr[-1]) + sum(kind.itemsize * n for kind, n in (self.far, self.rest))


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

    def keep(self, block: CsrBlock) -> Unit:
        """Write a block; where it lies now."""
        n = len(block.data)
        longest = int(np.diff(block.indptr).max(initial=0))
        codes, place = np.empty(n, np.uint8), np.empty(longest + 1, np.int32)
        # room for all; what is not written to costs nothing
        far, rest = np.empty(n + 1, np.int32), np.empty(n + 1, block.data.dtype)
        n_far, n_rest = pack_rows(block.indptr, block.indices, block.data, codes, place, far, rest)
        parts = [codes, compact(far[:n_far]), compact(rest[:n_rest])]
        far_kind, rest_kind = ((part.dtype, len(part)) for part in parts[1:])
        unit = Unit(block.start, block.indptr, self._end, far_kind, rest_kind)
        for part in parts:
            view = part.view(np.uint8).data
            self._end += len(view)
            while view:
                view = view[self._file.write(view) :]
        return unit


class Kept(UnitRows):
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
        self.is_full = False

    def close(self) -> None:
        """Close the source and give back the scratch space."""
        super().close()
        self._drop()

    def _nbytes(self) -> int:
        return self._source.nbytes_compressed

    def _iterate(self, first: int, last: int, block_size: int, threads: int) -> Iterator[CsrBlock]:
        if self.is_full:
            return super()._iterate(first, last, block_size, threads)
        if (first, last) != (0, self.n_obs):
            return self._read_source(first, last, block_size, threads)
        reader, self._reader = self._reader, None
        if reader is not None:
            return self._by_other(reader, block_size, threads)
        return self._filling(self._read_source(first, last, block_size, threads), threads)

    def _read_source(
        self, first: int, last: int, block_size: int, threads: int
    ) -> Iterator[CsrBlock]:
        return self._source.iter_blocks(block_size=block_size, threads=threads, rows=(first, last))

    # ------------------------------------------------------------------ the first time

    def _filling(self, blocks: Iterator[CsrBlock], threads: int) -> Iterator[CsrBlock]:
        waiting: deque[Future[None]] = deque()
        failed = False
        self._drop()
        with _Pool(threads, n=1) as pool:  # not more: blocks are written in order
            for block in blocks:
                if not failed:
                    waiting.append(pool.submit(self._keep, block))
                yield block
                while len(waiting) > _WAITING:
                    failed = self._is_lost(waiting.popleft()) or failed
            while waiting:
                failed = self._is_lost(waiting.popleft()) or failed
        if failed:
            self._drop()
        self.is_full = not failed
        if self.is_full:
            self._source.close()

    def _keep(self, block: CsrBlock) -> None:
        if self._packer is None:
            file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            self._packer = Packer(self._keep_open(file))
        self._stored.append(self._packer.keep(block))

    def _keep_open(self, file: IO[bytes]) -> IO[bytes]:
        self._file = file
        self.stack.callback(file.close)
        return file

    @staticmethod
    def _is_lost(done: Future[None]) -> bool:
        error = done.exception()
        if isinstance(error, OSError):
            logger.info("scratch data cannot be written (%s): the file is read again", error)
        elif error is not None:
            raise error
        return error is not None

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._stored, self._packer = None, [], None

    # ------------------------------------------------------------------ by another process

    def hand_over(self, reader: Reader) -> None:
        """Take the rows from another process, which reads the same matrix already.

        It serves who first asks for all of them.
        """
        self._reader = reader

    def _by_other(self, reader: Reader, block_size: int, threads: int) -> Iterator[CsrBlock]:
        self._drop()
        assert reader.file is not None
        self._keep_open(os.fdopen(os.dup(reader.file.fileno()), "rb", buffering=0))
        at = 0
        try:
            with _Pool(threads) as pool:
                units = _in_order(pool, self._hand_on(reader, pool), self._ahead(threads))
                for block in _recut(units, 0, self.n_obs, block_size):
                    at = block.start + block.n_obs
                    yield block
        except OSError as error:
            logger.info("%s: the rest is read here", error)
            reader.close()
            self._drop()
            yield from self._read_source(at, self.n_obs, block_size, threads)
            return
        finally:
            reader.close()
        self.is_full = True
        self._source.close()

    def _hand_on(self, reader: Reader, pool: _Pool) -> Iterator[tuple[int, Future[CsrBlock]]]:
        for unit in reader.units():
            self._stored.append(unit)
            first, last = unit.start, unit.start + len(unit.indptr) - 1
            yield self._unit_bytes(first, last), pool.submit(self._unit, first, last)

    # ------------------------------------------------------------------ from then on

    def _units(self, first: int, last: int, block_size: int) -> Iterator[tuple[int, int]]:
        for unit in self._stored:
            a, b = max(unit.start, first), min(unit.start + len(unit.indptr) - 1, last)
            if a < b:
                yield a, b

    def _ahead(self, threads: int) -> int:
        return 1  # they are at hand faster than they are used

    def _unit_bytes(self, first: int, last: int) -> int:
        unit = self._stored[self._at(first)]
        values = int(unit.indptr[-1]) / (len(unit.indptr) - 1)
        return int((last - first) * values * (4 + self.dtype.itemsize))

    def _at(self, row: int) -> int:
        return bisect.bisect_right(self._stored, row, key=lambda unit: unit.start) - 1

    def _unit(self, first: int, last: int) -> CsrBlock:
        unit = self._stored[self._at(first)]
        raw = self._read(unit)
        n = int(unit.indptr[-1])
        ends = np.cumsum([n, *(kind.itemsize * m for kind, m in (unit.far, unit.rest))])
        far, rest = (
            np.append(raw[a:b].view(kind), np.zeros(1, kind)).astype(wanted, copy=False)
            for a, b, kind, wanted in (
                (ends[0], ends[1], unit.far[0], np.int32),
                (ends[1], ends[2], unit.rest[0], self.dtype),
            )
        )
        indices, data = np.empty(n, np.int32), np.empty(n, self.dtype)
        unpack_rows(unit.indptr, raw[:n], far, rest, indices, data)
        block = CsrBlock(unit.start, unit.indptr, indices, data, self.n_vars)
        return cut_block(block, first, last)

    def _read(self, unit: Unit) -> NDArray[np.uint8]:
        if self._file is None:
            raise RuntimeError("the matrix was closed while it was read")
        raw = np.empty(unit.size, np.uint8)
        view = raw.data
        while view:
            n = os.preadv(self._file.fileno(), [view], unit.offset + len(raw) - len(view))
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
            yield packer.keep(block)
