"""Numbers in few bytes; and the first pass against sums that anyone can follow."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from senoscore.errors import InputDataError
from senoscore.io.blocks import CsrBlock
from senoscore.kernels.pack import compact, pack
from senoscore.kernels.passes import COUNTS, FIX_X, LINEAR, LOG, gene_roles, scan_rows, take_rows
from senoscore.streaming import Intake, Panel, _Growing, as_float


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 255], np.uint8),
        ([1, 256], np.uint16),
        ([1, 65_536], np.float32),
        ([1, 0.5], np.float32),
        ([-1, 3], np.float32),
        ([], np.uint8),
    ],
)
def test_counts_take_few_bytes_and_nothing_is_rounded(
    values: list[float], expected: type[np.generic]
) -> None:
    stored = np.asarray(values, np.float32)
    small = compact(stored)
    assert small.dtype == expected
    np.testing.assert_array_equal(as_float(small), stored)


@pytest.mark.parametrize("largest", [200, 70_000, 2.5])
@pytest.mark.parametrize("rows", [[], [3], [4, 0, 0, 5], [5, 4, 3, 2, 1, 0]])
def test_rows_of_a_panel_are_those_that_were_put_in(rows: list[int], largest: float) -> None:
    dense = np.random.default_rng(0).poisson(0.7, (6, 400)).astype(np.float32)
    dense[2], dense[0, 7] = 0, largest
    full = sparse.csr_matrix(dense)
    panel, wanted = Panel.of(full), np.asarray(rows, np.int64)
    stored = Panel.from_arrays(panel.to_arrays("some"), "some")
    for found in (panel[wanted], stored[wanted], Panel(panel.rows.take(wanted), 400).columns()):
        assert (found.dtype, found.indices.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(found.toarray(), dense[rows])
    genes = [399, 7, 30]
    np.testing.assert_array_equal(stored.columns(genes).toarray(), dense[:, genes])


@pytest.mark.parametrize("kind", ["counts", "counts beyond 31 bits", "fractional counts", "logged"])
@pytest.mark.parametrize("width", [np.float32, np.float64])
def test_rows_that_were_packed_are_those_that_were(kind: str, width: type) -> None:
    rng = np.random.default_rng(len(kind))
    dense = values_of(kind, 30 * 500, rng).astype(width).reshape(30, 500)
    dense[rng.random(dense.shape) < 0.95] = 0  # steps of 31 and more
    dense[11] = 0
    matrix = sparse.csr_matrix(dense)
    for i in range(0, 30, 2):  # genes in any order
        row = slice(matrix.indptr[i], matrix.indptr[i + 1])
        order = rng.permutation(row.stop - row.start)
        matrix.indices[row], matrix.data[row] = matrix.indices[row][order], matrix.data[row][order]
    packed = pack(matrix.indptr.astype(np.int64), matrix.indices, matrix.data)
    for first, last in ((0, 30), (0, 0), (4, 4), (7, 12), (29, 30)):
        wanted = np.arange(first, last)
        for rows in (packed.between(first, last), packed.take(wanted)):
            assert rows.n_rows == last - first
            assert len(rows.codes) == rows.indptr[-1]
            indices, data = np.empty(len(rows.codes), np.int32), np.empty(len(rows.codes), width)
            take_rows(*rows, np.arange(last - first), rows.indptr, indices, data)
            here = slice(matrix.indptr[first], matrix.indptr[last])
            np.testing.assert_array_equal(indices, matrix.indices[here])
            np.testing.assert_array_equal(data, matrix.data[here])
            np.testing.assert_array_equal(np.diff(rows.indptr), np.diff(matrix.indptr)[wanted])


@pytest.mark.parametrize("n_genes", [1, 64, 65, 300, 500])  # with 500 no gene has two columns
@pytest.mark.parametrize(
    ("kind", "code"), [("counts", COUNTS), ("fractional counts", LINEAR), ("logged", LOG)]
)
def test_columns_become_genes_in_their_order(n_genes: int, kind: str, code: int) -> None:
    rng = np.random.default_rng(n_genes)
    dense = values_of(kind, 30 * 500, rng).reshape(30, 500)
    dense[rng.random(dense.shape) < 0.6] = 0
    dense = np.abs(dense) if code == LOG else dense
    dense[4] = 0
    if code != LOG:
        dense[9, :2] = 5, -5  # nothing is left of what cancels
    columns = rng.permutation(np.arange(500) % n_genes).astype(np.int32)
    columns[:2] = columns[0] if n_genes < 500 else columns[:2]
    used = len(np.unique(columns))
    columns = np.unique(columns, return_inverse=True)[1].astype(np.int32)
    genes = SimpleNamespace(columns=columns, n_genes=used, symbols=[f"G{i}" for i in range(used)])
    matrix = sparse.csr_matrix(dense)
    block = CsrBlock(7, matrix.indptr.astype(np.int64), matrix.indices, matrix.data, 500)
    found = Intake(genes, code, 2.0)(block)  # type: ignore[arg-type]
    assert (found.start, found.n_vars, found.data.dtype) == (7, used, np.float64)
    linear = np.exp2(dense) - 1 if code == LOG and used < 500 else dense
    expected = np.zeros((30, used))
    np.add.at(expected.T, columns, linear.T)
    expected = np.log2(expected + 1) if code == LOG and used < 500 else expected
    for i, row in enumerate(expected):
        own = slice(found.indptr[i], found.indptr[i + 1])
        np.testing.assert_array_equal(found.indices[own], np.flatnonzero(row))
        np.testing.assert_allclose(found.data[own], row[row != 0], rtol=1e-12)


def test_a_panel_of_another_version_is_told_in_words() -> None:
    with pytest.raises(InputDataError, match="run stage qc again"):
        Panel.from_arrays({"panel_data": np.zeros(0), "panel_shape": np.zeros(2)}, "panel")


@pytest.mark.parametrize("share", [1e-3, 0.2, 1.0])  # what is told of the rest may be wrong
def test_parts_that_are_appended_are_those_joined(share: float) -> None:
    rng = np.random.default_rng(1)
    kinds = (np.uint8, np.uint8, np.uint16, np.float32, np.uint8)
    parts = [
        rng.integers(0, 200, n).astype(kind)
        for n, kind in zip((5, 0, 900, 3, 70), kinds, strict=True)
    ]
    for n in range(len(parts) + 1):
        growing = _Growing(np.uint8)
        for part in parts[:n]:
            growing.append(part, share)
        joined = np.concatenate([*parts[:n], np.zeros(1, np.uint8)])
        assert growing.whole().dtype == joined.dtype
        np.testing.assert_array_equal(growing.whole(), joined)


@pytest.mark.parametrize("cuts", [[], [0], [2, 2], [0, 6]])  # a shard may be without rows
def test_panels_of_shards_are_the_panel_of_all(cuts: list[int]) -> None:
    dense = np.random.default_rng(0).poisson(0.7, (6, 40)).astype(np.float32)
    dense[3, 5] = 300  # takes more bytes than the rows before
    shards = [Panel.of(sparse.csr_matrix(rows)) for rows in np.split(dense, cuts)]
    joined, whole = Panel.stack(shards, 40), Panel.of(sparse.csr_matrix(dense))
    np.testing.assert_array_equal(joined.columns().toarray(), dense)
    for name, values in whole.to_arrays("one").items():
        found = joined.to_arrays("one")[name]
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    assert Panel.stack([], 40).shape == (0, 40)
    # read from its file or still here, it is of one type: what is worked out from it must not differ
    wide = Panel.stack([Panel.of(sparse.csr_matrix(dense.astype(np.float64)))], 40)
    assert wide.rows.rest.dtype == Panel.from_arrays(wide.to_arrays("one"), "one").rows.rest.dtype


def values_of(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Values above zero, but for the logged ones, of which some are below."""
    counts = rng.poisson(2, n).astype(np.float64)
    if kind == "counts":
        some = rng.choice(n, n // 20, replace=False)
        counts[some] = rng.choice([255, 256, 70_000], len(some))
    elif kind == "counts beyond 31 bits":
        counts[rng.choice(n, n // 50, replace=False)] = 2.0**33
    elif kind == "fractional counts":
        counts[rng.choice(n, n // 2, replace=False)] += 0.25
    elif kind == "logged":
        counts = np.round(rng.normal(1, 1, n), 3)
    return counts


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("counts", COUNTS), ("counts beyond 31 bits", COUNTS), ("fractional counts", COUNTS),
        ("counts", LINEAR), ("fractional counts", LINEAR), ("logged", LOG), ("counts", LOG),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", [np.float32, np.float64])
def test_the_first_pass_adds_up_what_is_there(kind: str, code: int, width: type) -> None:
    rng = np.random.default_rng(len(kind) + code)
    n_cells, n_genes = 40, 300
    dense = values_of(kind, n_cells * n_genes, rng).astype(width).reshape(n_cells, n_genes)
    dense[rng.random(dense.shape) < 0.4] = 0
    dense[7] = 0
    matrix = sparse.csr_matrix(dense)
    classes = rng.choice([0, 0, 0, 1, 2, 4, 3], n_genes).astype(np.uint8)
    panel = np.sort(rng.choice(n_genes, 60, replace=False))
    lineage = rng.integers(-1, 3, n_cells)
    metrics, sums = np.zeros((n_cells, 6)), np.zeros((3, n_genes), np.int64)
    indptr = np.empty(n_cells + 1, np.int64)
    indices, data = np.empty(matrix.nnz, np.int32), np.empty(matrix.nnz, width)
    scan_rows(
        *pack(matrix.indptr.astype(np.int64), matrix.indices, matrix.data), code,
        gene_roles(classes, panel), lineage, metrics, sums, indptr, indices, data,
    )  # fmt: skip

    kept = sparse.csr_matrix((data[: indptr[-1]], indices[: indptr[-1]], indptr), (n_cells, 60))
    np.testing.assert_array_equal(kept.toarray(), dense[:, panel])
    wide = dense.astype(np.float64)
    expected = np.zeros_like(sums)
    for i, row in enumerate(wide):
        total = math.fsum(row)
        top = math.fsum(sorted(row[row != 0])[-50:])
        of_class = [math.fsum(row[classes & bit > 0]) for bit in (1, 2, 4)]
        told = [total, np.count_nonzero(row), top, *of_class]
        np.testing.assert_allclose(metrics[i], told, rtol=1e-7, atol=1e-4)
        if lineage[i] < 0 or not total > 0:
            continue
        logged = {
            COUNTS: lambda v, t=total: math.log1p(v * 1e4 / t), LINEAR: math.log1p, LOG: float,
        }[code]  # fmt: skip
        expected[lineage[i]] += [round(logged(v) * 2**FIX_X) for v in row]
    # a unit for each cell: what a logarithm may differ by in its last bit
    np.testing.assert_allclose(sums, expected, rtol=0, atol=n_cells)
