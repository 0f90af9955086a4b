"""Blocks that were spooled come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from senoscore.io.blocks import CsrBlock
from senoscore.io.spool import Spool, as_float, compact


def block(seed: int, start: int, n_vars: int, scale: float, *, fractions: bool) -> CsrBlock:
    rng = np.random.default_rng(seed)
    matrix = sparse.random_array((7, n_vars), density=0.05, rng=rng, format="csr")
    data = np.ceil(matrix.data * scale) + (0.25 if fractions else 0.0)
    return CsrBlock(
        start, matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32),
        data.astype(np.float32), n_vars,
    )  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([5.0, 300.0, 1e5, 1e7]),
    st.booleans(),
    st.sampled_from([50, 70_000]),
)
def test_blocks_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, seed: int, scale: float, fractions: bool, n_vars: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    blocks = [block(seed + k, 7 * k, n_vars, scale, fractions=fractions) for k in range(3)]
    spool = Spool(folder)
    for one in blocks:
        spool.append(spool.pack(one))
    assert spool.n_obs == 21
    for _ in range(2):  # as often as wanted
        for one, packed in zip(blocks, spool.iter_blocks(), strict=True):
            found = spool.unpack(packed)
            assert (found.start, found.n_vars) == (one.start, one.n_vars)
            for a, b in zip(found[1:4], one[1:4], strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
    spool.close()
    assert not list(folder.iterdir())  # nothing is left


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 255], np.uint8),
        ([1, 256], np.uint16),
        ([1, 65_536], np.float32),
        ([1, 0.5], np.float32),
        ([-1, 3], np.float32),
    ],
)
def test_counts_take_few_bytes_and_nothing_is_rounded(
    values: list[float], expected: type[np.generic]
) -> None:
    stored = np.asarray(values, np.float32)
    small = compact(stored)
    assert small.dtype == expected
    np.testing.assert_array_equal(as_float(small), stored)


def test_the_file_has_no_name_so_that_a_killed_run_leaves_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(spool.pack(block(0, 0, 50, 5.0, fractions=False)))
    assert not list(tmp_path.iterdir())
    spool.close()
