"""A second process that reads: the same rows, the same errors, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import anndata as ad
import numpy as np
import pytest
from row_blocks import same
from scipy import sparse

from senoscore import reader
from senoscore.errors import InputDataError
from senoscore.inspect import inspect_file
from senoscore.io import _rows
from senoscore.io.blocks import open_blocks
from senoscore.pipeline import analyse
from senoscore.reader import Job, Reader, started
from senoscore.scratch import Kept

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "send_fds"), reason="no file can be handed to another process here"
)


def counts(n_obs: int = 200, n_vars: int = 40, seed: int = 0) -> sparse.csr_matrix:
    values = np.random.default_rng(seed).poisson(0.5, (n_obs, n_vars))
    values[n_obs // 3] = 0
    values[:, 7] += 900 * (np.arange(n_obs) % 9 == 0)
    return sparse.csr_matrix(values.astype(np.float32))


def stored(folder: Path, x: Any, **how: Any) -> Path:
    path = folder / "a file's name; with more.h5ad"
    ad.AnnData(x).write_h5ad(path, compression="gzip", **how)
    return path


def has_ended(process: Reader) -> bool:
    return process._process.poll() is not None


@contextmanager
def handed(path: Path, *, block_size: int = 16, threads: int = 2) -> Iterator[tuple[Kept, Reader]]:
    """Rows of a file that another process reads; it is gone at the end."""
    other = Reader(path)
    try:
        other.begin(Job(str(path), {}, block_size, threads), path.parent)
        assert other.facts() == inspect_file(path)
        with Kept(open_blocks(path), path.parent) as kept:
            kept.hand_over(other)
            yield kept, other
    finally:
        other.close()
    assert has_ended(other)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16"])
def test_rows_are_the_same(tmp_path: Path, storage: str, dtype: str) -> None:
    x = counts().astype(dtype)
    path = stored(tmp_path, x.toarray() if storage == "dense" else x.asformat(storage))
    with open_blocks(path) as plain, handed(path) as (kept, other):
        assert (kept.n_obs, kept.n_vars, kept.storage) == (*x.shape, storage)
        same(plain.iter_blocks(block_size=16), kept.iter_blocks(block_size=16, threads=2))
        assert kept.is_full
        assert has_ended(other)
        for size, rows in ((16, None), (23, None), (5, (31, 150))):  # once more, from scratch space
            same(
                plain.iter_blocks(block_size=size, rows=rows),
                kept.iter_blocks(block_size=size, rows=rows, threads=2),
            )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("first", [{"block_size": 7}, {"block_size": 16, "rows": (20, 90)}])
def test_rows_asked_for_otherwise_are_the_same(tmp_path: Path, first: dict[str, Any]) -> None:
    path = stored(tmp_path, counts())
    with open_blocks(path) as plain, handed(path) as (kept, _):
        same(plain.iter_blocks(**first), kept.iter_blocks(**first))
        same(plain.iter_blocks(block_size=16), kept.iter_blocks(block_size=16))
        assert kept.is_full


def test_what_is_damaged_is_said_in_the_same_words(tmp_path: Path) -> None:
    x = counts(n_obs=40_000)
    row = 13_000  # not among those that are looked at
    x.data[x.indptr[row]] = np.nan
    path = stored(tmp_path, x)
    with open_blocks(path) as plain, pytest.raises(InputDataError) as alone:
        list(plain.iter_blocks(block_size=16))
    with handed(path) as (kept, other), pytest.raises(InputDataError) as found:
        list(kept.iter_blocks(block_size=16))
    assert str(found.value) == str(alone.value)
    assert f"row {row}" in str(found.value)
    assert has_ended(other)
    # and a file that is none
    path.write_text("cells,genes")
    with pytest.raises(InputDataError) as alone:
        inspect_file(path)
    for other in (Reader(""), Reader(path)):
        other.begin(Job(str(path), {}, 16, 1), tmp_path)
        with pytest.raises(InputDataError) as found:
            other.facts()
        other.close()
        assert str(found.value) == str(alone.value)


@pytest.mark.parametrize("looks_first", [False, True])
def test_what_is_known_better_is_told(tmp_path: Path, looks_first: bool) -> None:
    adata = ad.AnnData(counts(), layers={"mine": counts(seed=1)})
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    other = Reader(path) if looks_first else Reader("")
    other.begin(Job(str(path), {"counts": "layers/mine"}, 200, 1), tmp_path)
    assert other.facts() == inspect_file(path, overrides={"counts": "layers/mine"})
    with (
        open_blocks(path, matrix="layers/mine") as plain,
        Kept(open_blocks(path), tmp_path) as kept,
    ):
        kept.hand_over(other)
        same(plain.iter_blocks(block_size=200), kept.iter_blocks(block_size=200))
    assert has_ended(other)


def test_what_is_no_counts_is_not_read(tmp_path: Path) -> None:
    x = counts()
    x.data = np.log1p(x.data)
    path = stored(tmp_path, x)
    other = Reader("")
    other.begin(Job(str(path), {}, 16, 1), tmp_path)
    assert other.facts().counts.value is None
    assert list(other.units()) == []
    assert other._process.wait(timeout=60) == 0
    other.close()


def test_an_answer_nobody_understands_keeps_nobody_waiting(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with handed(stored(tmp_path, counts())) as (_, other):
        other._socket.close()
        other._socket, other._said = ours, SimpleQueue()
        theirs.sendall(b"csenoscore\nno_such_thing\n.")
        with pytest.raises(AttributeError):
            other._listen()
        with pytest.raises(OSError, match="has ended"):
            other.facts()
        theirs.close()


def test_what_nobody_foresaw_is_found_again_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run goes on without the other process, and what it raises has its traceback."""
    path = stored(tmp_path, counts(n_vars=60))
    monkeypatch.setattr(reader, "MIN_BYTES", 0)
    monkeypatch.setattr(reader, "_SERVE", "import sys; sys.exit(3)")
    whole = read_stage(path, tmp_path / "alone", threads=1)
    with caplog.at_level("INFO"):
        assert read_stage(path, tmp_path / "helped", threads=2) == whole
    assert "the file is read here" in caplog.text


def read_stage(path: Path, out: Path, threads: int) -> dict[str, bytes]:
    """What `analyse` leaves of inspect and qc before it finds that there are too few genes."""
    with pytest.raises(InputDataError):
        analyse(path, out=out, threads=threads)
    return {p.name: p.read_bytes() for p in sorted((out / "stages").iterdir())}


@pytest.mark.parametrize("after", [0, 3])
def test_a_process_that_is_killed_costs_time_and_nothing_else(
    tmp_path: Path, after: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = reader.Reader.units

    def some(self: Reader) -> Iterator[Any]:
        for n, unit in enumerate(told(self)):
            if n == after:
                os.kill(self._process.pid, signal.SIGKILL)
                self._process.wait()
                raise OSError("the process that reads the file has ended")
            yield unit

    monkeypatch.setattr(_rows, "_AHEAD_BYTES", 0)  # or all is heard of before the first is used
    path = stored(tmp_path, counts())
    with caplog.at_level("INFO"), open_blocks(path) as plain, handed(path) as (kept, _):
        monkeypatch.setattr(reader.Reader, "units", some)
        same(plain.iter_blocks(block_size=16), kept.iter_blocks(block_size=16))
        assert not kept.is_full
        same(plain.iter_blocks(block_size=16), kept.iter_blocks(block_size=16))
        assert kept.is_full
    assert "the rest is read here" in caplog.text


def test_the_end_of_the_process_is_noticed(tmp_path: Path) -> None:
    path = stored(tmp_path, counts())
    with open_blocks(path) as plain, handed(path) as (kept, other):
        other._process.kill()  # wherever it is
        same(plain.iter_blocks(block_size=16), kept.iter_blocks(block_size=16))
    other = Reader("")
    other._process.kill()  # before it was told anything
    other._process.wait()
    other.begin(Job(str(path), {}, 16, 1), tmp_path)
    with pytest.raises(OSError, match=r"has ended|[Pp]ipe"):
        other.facts()
    other.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_costs_time_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> IO[bytes]:
        return Path("/dev/full").open("r+b", buffering=0)

    path = stored(tmp_path, counts())
    monkeypatch.setattr(reader.tempfile, "TemporaryFile", full)
    with caplog.at_level("INFO"), open_blocks(path) as plain, handed(path) as (kept, _):
        same(plain.iter_blocks(block_size=16), kept.iter_blocks(block_size=16))
    assert "No space left" in caplog.text


def test_it_ends_when_nobody_listens(tmp_path: Path) -> None:
    path = stored(tmp_path, counts(n_obs=2000))
    waiting, working = Reader(""), Reader("")
    with (tmp_path / "rows").open("wb") as file:
        message = reader.pickle.dumps(Job(str(path), {}, 1, 1))
        socket.send_fds(working._socket, [message], [file.fileno()])
        for one in (waiting, working):
            one._socket.close()  # as when this process is killed
            assert one._process.wait(timeout=60) == 0


def test_nothing_is_left_of_a_reader_that_stops_early(tmp_path: Path) -> None:
    path = stored(tmp_path, counts())
    with handed(path) as (kept, other):
        blocks = kept.iter_blocks(block_size=16)
        assert next(blocks).start == 0
        blocks.close()
        assert has_ended(other)
    end = time.monotonic() + 60
    while any("senoscore-reader" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < end, "a thread still listens"
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_started_where_it_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, counts())
    with started(path, 2) as small:
        assert small is None
    monkeypatch.setattr(reader, "MIN_BYTES", path.stat().st_size)
    for source, threads in (
        (path, 1), (tmp_path, 2), (tmp_path / "nothing", 2), (ad.AnnData(counts()), 2)
    ):  # fmt: skip
        with started(source, threads) as found:
            assert found is None
    with started(str(path), 2) as found:
        assert found is not None
        assert not has_ended(found)
    assert has_ended(found)
    with pytest.raises(KeyError), started(path, 2) as found:
        raise KeyError
    assert found is not None
    assert has_ended(found)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with started(path, 2) as found:
        assert found is None
