"""One thread is one core: what more threads do beside the work is then done in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from senoscore import pipeline
from senoscore.io import _chunks
from senoscore.io._workers import InTurn, workers
from senoscore.io.artefacts import write_h5ad
from senoscore.io.blocks import open_blocks
from senoscore.pipeline import analyse
from senoscore.scratch import Kept
from senoscore.simulate import simulate_to

pytestmark = pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cohort with labels, by rows; the same without, by columns."""
    folder = tmp_path_factory.mktemp("cohort")
    labelled = simulate_to(folder / "labelled.h5ad", 600, 2500, seed=3)
    adata = ad.read_h5ad(labelled)
    adata.obs = adata.obs[["donor_id"]]
    adata.X = adata.X.tocsc()
    write_h5ad(adata, folder / "unlabelled.h5ad")
    return {"labelled": labelled, "unlabelled": folder / "unlabelled.h5ad"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads started from here on."""
    names: list[str] = []
    start = threading.Thread.start

    def noted(self: threading.Thread) -> None:
        names.append(self.name)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return names


@pytest.mark.parametrize("name", ["labelled", "unlabelled"])
def test_a_run_with_one_thread_starts_no_other(
    name: str, files: dict[str, Path], tmp_path: Path, started: list[str]
) -> None:
    how: dict[str, Any] = {"settings": {"score": {"signatures": ["verdict"]}}, "block_size": 64}
    analyse(files[name], out=tmp_path / "one", threads=1, **how)
    assert started == []
    analyse(files[name], out=tmp_path / "two", threads=2, **how)
    assert {"senoscore-io_0", "senoscore_0"} <= set(started)  # a thread would have been seen
    for path in (tmp_path / "two").rglob("*"):
        if path.is_file():
            one = tmp_path / "one" / path.relative_to(tmp_path / "two")
            assert one.read_bytes() == path.read_bytes()


def test_a_large_file_is_written_with_one_thread_by_no_other(
    tmp_path: Path, started: list[str]
) -> None:
    large = ad.AnnData(np.random.default_rng(0).normal(size=(3000, 400)).astype(np.float32))
    write_h5ad(large, tmp_path / "one.h5ad")
    assert started == []
    write_h5ad(large, tmp_path / "two.h5ad", threads=2)
    assert started  # it is large enough for threads
    assert (tmp_path / "one.h5ad").read_bytes() == (tmp_path / "two.h5ad").read_bytes()


def test_a_simulation_with_one_thread_starts_no_other(tmp_path: Path, started: list[str]) -> None:
    simulate_to(tmp_path / "a.h5ad", 300, 1500, threads=1)
    assert started == []


def test_one_thread_inflates_a_block_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = sparse.random(4000, 500, 0.3, "csr", random_state=0, dtype=np.float32)
    path = tmp_path / "a.h5ad"
    ad.AnnData(x).write_h5ad(path, compression="gzip")
    inflated, inflate = [], _chunks.inflate
    monkeypatch.setattr(
        _chunks, "inflate", lambda *args: inflated.append(threading.get_ident()) or inflate(*args)
    )
    with open_blocks(path) as rows, Kept(rows, tmp_path) as kept:
        blocks = kept.iter_blocks(block_size=400, threads=1)
        first = next(blocks)
        before = len(inflated)
        assert before > 0
        second = next(blocks)
        assert len(inflated) > before  # not all had been by then
        assert (first.start, second.start) == (0, 400)
        list(blocks)
        assert kept.is_full
    assert set(inflated) == {threading.get_ident()}


def test_what_goes_on_beside_a_stage_is_done_in_turn(tmp_path: Path) -> None:
    """`later` before what follows, `beside` when it is asked for; errors wait as in threads."""
    run = pipeline._Run(tmp_path, "", pipeline.Settings())
    done: list[str] = []

    def fail() -> None:
        done.append("failed")
        raise OSError("the disk is full")

    with run.working():
        run.later(done.append, "later")
        assert done == ["later"]
        result = run.beside(done.append, "beside")
        assert done == ["later"]
        result()
        assert done == ["later", "beside"]
        run.later(fail)
        done.append("went on")
        with pytest.raises(OSError, match="the disk is full"):
            run.finish()
    assert done == ["later", "beside", "failed", "went on"]


def test_a_file_is_hashed_when_its_hash_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    give = pipeline._Run(tmp_path, tmp_path / "a", pipeline.Settings()).hash_source()
    (tmp_path / "a").write_bytes(b"abc")
    assert give().startswith("ba7816bf")
    assert pipeline._Run(tmp_path, tmp_path / "none", pipeline.Settings()).hash_source()() == ""


def test_in_turn_is_an_executor() -> None:
    asked: list[int] = []

    def half(n: int) -> int:
        asked.append(n)
        if n % 2:
            raise ValueError(f"{n} is odd")
        return n // 2

    with workers(1) as pool:
        assert isinstance(pool, InTurn)
        futures: list[Future[Any]] = [pool.submit(half, 4), pool.submit(half, 5)]
        assert asked == [4, 5]
        assert futures[0].result() == 2
        with pytest.raises(ValueError, match="5 is odd"):
            futures[1].result()
        found: Iterator[Any] = pool.map(half, [6, 7, 8])
        assert next(found) == 3
        assert asked == [4, 5, 6]
        with pytest.raises(ValueError, match="7 is odd"):
            next(found)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InTurn().submit(interrupted)


def test_linear_algebra_of_a_command_keeps_to_one_core() -> None:
    """More threads than the command was given would be started as numpy is imported."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("the system does not list threads in /proc")
    code = (
        "from senoscore.console import settle_process; settle_process(1)\n"
        "import numpy, scipy.linalg, os; x = numpy.ones((500, 500)); x @ x; scipy.linalg.eigh(x)\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    plain = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "1"
