"""Rows that were kept come back as they were read, and the source is read once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_blocks import same
from scipy import sparse

from senoscore import scratch
from senoscore.genes import resolve_genes
from senoscore.io import _rows
from senoscore.io.blocks import CsrBlock, RowBlocks, open_blocks
from senoscore.kernels.passes import COUNTS
from senoscore.pipeline import analyse
from senoscore.scratch import Kept, PackedBlock
from senoscore.simulate import simulate_to
from senoscore.streaming import Intake, scan

WIDTHS = (40, 3000)  # in the wider one steps to the next gene do not fit five bits


def matrix(n_obs: int, n_vars: int, seed: int, values: str) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    found = sparse.random_array((n_obs, n_vars), density=0.02, rng=rng, format="csr")
    whole = np.ceil(rng.pareto(1.0, found.nnz)).clip(1, 60_000)
    kinds: dict[str, Any] = {
        "float32": whole.astype(np.float32),
        "uint16": whole.astype(np.uint16),
        "int64": whole.astype(np.int64) * 2**33,
        "fractions": np.log1p(whole).astype(np.float32),
        "negative": -whole,
        "mixed": np.where(rng.random(found.nnz) < 0.9, whole, whole + 0.25),
    }
    found.data = kinds[values]
    found.indptr[1:3] = found.indptr[3] if n_obs > 3 else found.indptr[1:3]  # rows of nothing
    return sparse.csr_matrix(found)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.sampled_from(WIDTHS), st.integers(0, 10_000),
    st.sampled_from(["float32", "uint16", "int64", "fractions", "negative", "mixed"]),
    st.integers(1, 50), st.integers(1, 50), st.integers(1, 3), st.data(),
)  # fmt: skip
def test_what_is_kept_is_what_was_read(
    n_obs: int, n_vars: int, seed: int, values: str, written: int, read: int, threads: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    stored = matrix(n_obs, n_vars, seed, values)
    first = data.draw(st.integers(0, n_obs))
    rows = (first, data.draw(st.integers(first, n_obs)))
    with open_blocks(stored) as plain, Kept(open_blocks(stored), Path(gettempdir())) as kept:
        same(
            plain.iter_blocks(block_size=written),
            kept.iter_blocks(block_size=written, threads=threads),
        )
        assert kept.is_full
        for some in (None, rows):
            same(
                plain.iter_blocks(block_size=read, rows=some),
                kept.iter_blocks(block_size=read, threads=threads, rows=some),
            )
            packed = (load() for load in kept.iter_packed(block_size=read, threads=1, rows=some))
            again = np.vstack(
                [np.zeros((0, n_vars)), *(block.unpacked().to_csr().toarray() for block in packed)]
            )
            np.testing.assert_array_equal(again, stored.toarray()[slice(*(some or (None,)))])


@pytest.mark.parametrize("renamed", [False, True])  # genes in the order of columns, or not
def test_a_pass_takes_kept_rows_as_they_lie(
    renamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lent by another, as stages lend them, they were unpacked and packed again: same sums, more time."""
    stored = matrix(50, 300, 0, "float32")
    genes = resolve_genes([f"GENE{1000 + i}" for i in range(300)])
    if renamed:
        genes = replace(genes, columns=np.arange(300, dtype=np.int32)[::-1].copy())
    how: dict[str, Any] = {
        "gene_class": np.arange(300, dtype=np.uint8) % 4, "codes": np.arange(50) % 2, "n_codes": 2,
        "panel": np.array([3, 40, 299]), "sampled": np.arange(50) % 3 == 0,
    }  # fmt: skip
    intake = Intake(genes, COUNTS)
    unpacked = PackedBlock.unpacked
    asked: list[PackedBlock] = []
    monkeypatch.setattr(PackedBlock, "unpacked", lambda b: (asked.append(b), unpacked(b))[1])
    with open_blocks(stored) as plain, Kept(open_blocks(stored), tmp_path) as kept:
        for rows in ((0, 50), (0, 50), (7, 31)):
            expected = scan(plain, intake, rows=rows, block_size=9, **how)
            assert not asked
            found = scan(open_blocks(kept), intake, rows=rows, block_size=20, threads=2, **how)
            assert bool(asked) == renamed
            asked.clear()
            for name in ("metrics", "sums", "n_cells", "sample_rows"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
            for name in ("panel", "sample"):
                one, other = getattr(found, name), getattr(expected, name)
                assert one.shape == other.shape
                np.testing.assert_array_equal(one.columns().toarray(), other.columns().toarray())
        assert kept.is_full
    everything = stored[how["sampled"]].toarray()[:, :: -1 if renamed else 1]
    sampled = scan(open_blocks(stored), intake, **how).sample.columns()
    np.testing.assert_array_equal(sampled.toarray(), everything)


def test_some_rows_before_all_were_read_come_from_the_source(tmp_path: Path) -> None:
    stored = matrix(30, 40, 0, "float32")
    with open_blocks(stored) as plain, Kept(open_blocks(stored), tmp_path) as kept:
        same(plain.iter_blocks(rows=(5, 20)), kept.iter_blocks(rows=(5, 20)))
        assert not kept.is_full
        next(iter(kept.iter_blocks(block_size=7)))  # a reader that stops keeps nothing
        assert not kept.is_full
        same(plain.iter_blocks(block_size=7), kept.iter_blocks(block_size=7))
        assert kept.is_full


def test_a_full_disk_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def write(self, view: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            pass

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", lambda **_: Full())
    stored = matrix(30, 40, 0, "float32")
    with (
        caplog.at_level("INFO"),
        open_blocks(stored) as plain,
        Kept(open_blocks(stored), tmp_path) as kept,
    ):
        for _ in range(2):
            same(plain.iter_blocks(block_size=4), kept.iter_blocks(block_size=4))
        assert not kept.is_full
    assert "the file is read again" in caplog.text


def test_scratch_space_is_given_back(tmp_path: Path) -> None:
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("the system does not list open files in /proc")
    before = {int(path.name) for path in handles.iterdir()}
    kept = Kept(open_blocks(matrix(30, 40, 0, "float32")), tmp_path)
    list(kept.iter_blocks())
    assert not list(tmp_path.iterdir())  # the file has no name
    kept.close()
    # the folder itself is open while it is listed
    assert len({int(path.name) for path in handles.iterdir()} - before) <= 1


def test_room_is_asked_for_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 10 << 30
    usage = scratch.shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage)
    assert scratch.has_room(tmp_path, 10**9)
    assert not scratch.has_room(tmp_path, 10**9, 4)
    assert not scratch.has_room(tmp_path, 4 * 10**9)


@pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")
@pytest.mark.parametrize("labelled", [True, False])
def test_a_run_reads_the_compressed_matrix_at_most_twice(
    labelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without labels there are clusters to find and gene sums to add up: four readings more."""
    path = simulate_to(tmp_path / "cohort.h5ad", 300, 1500, seed=1, depth_median=2000)
    if not labelled:
        import anndata as ad

        adata = ad.read_h5ad(path)
        adata.obs = adata.obs[["donor_id"]]
        adata.write_h5ad(path, compression="gzip")
    read: list[int] = []
    iterate = _rows.CsrRows._iterate

    def counted(self: RowBlocks, first: int, last: int, *args: Any) -> Iterator[CsrBlock]:
        read.append(last - first)
        return iterate(self, first, last, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(_rows.CsrRows, "_iterate", counted)
    analyse(path, out=tmp_path / "out")
    assert sum(read) <= 2 * 300
    assert not [p for p in (tmp_path / "out" / "stages").iterdir() if "tmp" in p.name]
