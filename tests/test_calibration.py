"""Centres and held-back sets over a sample, against the pass over cells and slow definitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import spearmanr
from test_null import counts, log_cp10k, parts

from senoscore import calibration, null
from senoscore.kernels import nulls, passes

KINDS = (passes.COUNTS, passes.LINEAR, passes.LOG)


def planned(
    matrix: sparse.csr_matrix, n_null: int = 40
) -> tuple[list[null.VotingGenes], null.ControlGenes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    sums = np.rint(log_cp10k(matrix) * 2**passes.FIX_X).astype(np.int64).sum(0)
    sets = []
    for s, size in enumerate((3, 8, 2, 12)):
        genes = rng.choice(np.flatnonzero(sums > 0), size, replace=False)
        weights = rng.choice([-1.0, 0.5, 1.0, 2.0], size)
        sets.append(null.VotingGenes(f"s{s}", genes, weights, tuple(f"g{g}" for g in genes)))
    controls = null.ControlGenes(sums, np.ones(len(sums), bool), np.arange(len(sums)))
    totals = np.asarray(matrix.sum(1), float).ravel()
    return sets, controls, sums, totals


def by_cells(
    matrix: sparse.csr_matrix,
    sets: list[null.VotingGenes],
    draws: list[tuple[np.ndarray, np.ndarray]],
    sums: np.ndarray,
    totals: np.ndarray,
    kind: int,
    n_null: int,
) -> np.ndarray:
    table = null.build_sets(sets, draws, sums, n_null=n_null)
    z = np.empty((len(totals), len(sets), n_null + 1))
    walk = passes.make_walk(null.join_sets([table], matrix.shape[1]))
    passes.null_z_rows(*parts(matrix), kind, totals, *walk, n_null, z)
    return z


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_centres_of_a_sample_are_those_of_the_pass_over_cells(kind: int, threads: int) -> None:
    matrix = counts(n_cells=70, n_genes=400, seed=3)
    if kind != passes.COUNTS:
        matrix.data = np.log1p(matrix.data)
    sets, controls, sums, totals = planned(matrix)
    totals[:3] = 0  # cells without anything
    draws = [null.draw_sets(s, controls, sums, lineage="T", n_null=40, seed=0) for s in sets]
    rows = np.arange(0, 70, 2)
    sample = null.SampledCells(matrix, rows, totals[rows])
    table = null.build_sets(sets, draws, sums, n_null=40)
    turned = null.turn(sample, np.ones(400, bool), kind)
    packed = null.pack_sample(turned, table, np.arange(4), 40)
    found = null.centres_of_sample(packed, threads=threads)
    z = by_cells(matrix[rows], sets, draws, sums, totals[rows], kind, 40)
    np.testing.assert_array_equal(found, null.centre_of(z))


def test_both_ways_of_keeping_a_gene_are_met() -> None:
    matrix = counts(n_cells=70, n_genes=400, seed=3)
    column = np.arange(400)
    column[7] = -1
    found = nulls.by_gene(
        *parts(matrix), np.asarray(matrix.sum(1), float).ravel(), passes.COUNTS,
        np.where(column >= 0, column, -1), 400,
    )  # fmt: skip
    assert 10 < (found.whole >= 0).sum() < 390
    x = np.rint(log_cp10k(matrix) * 2**passes.FIX_X)
    for gene in range(400):
        if gene == 7:
            continue
        dense = np.zeros(70)
        if found.whole[gene] >= 0:
            dense += found.dense[found.whole[gene]]
        else:
            own = found.entries[found.start[gene] : found.start[gene + 1]]
            dense[own >> 32] = own & 0xFFFFFFFF
        np.testing.assert_allclose(dense, x[:, gene], atol=1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(-20, 20), st.sampled_from([0.0, -0.67, 4.0, -4.0, np.nan])), max_size=60
    ),
    st.sampled_from([0.25, 0.5, 0.1]),
)
def test_quantile_equals_numpys(values: list[float], q: float) -> None:
    array = np.asarray(values, float)
    n = len(array)
    found = nulls._quantile(array, q, np.empty(n, np.uint32), np.empty(257, np.uint32), np.empty(n))
    known = array[~np.isnan(array)]
    if not len(known):
        assert np.isnan(found)
    else:
        assert found == np.quantile(known, q)


def test_held_back_sets_are_judged_as_signatures_are() -> None:
    """z, p and medians against the pass over cells, a histogram and `null.p_values`."""
    n_null = 40
    matrix = counts(n_cells=90, n_genes=400, seed=5)
    sets, controls, sums, totals = planned(matrix)
    draws = [null.draw_sets(s, controls, sums, lineage="T", n_null=n_null, seed=0) for s in sets]
    strata = np.repeat([0, 1, 2], [20, 40, 30])
    sample = null.SampledCells(matrix, np.arange(90), totals)
    sets_of = null.build_sets(sets, draws, sums, n_null=n_null)
    turned = null.turn(sample, np.ones(400, bool), passes.COUNTS)
    packed = null.pack_sample(turned, sets_of, np.arange(4), n_null)
    z, p, medians = np.empty((4, 90)), np.empty((4, 90)), np.empty((4, 3))
    calibration.score_held_back(packed, np.array([0, 20, 60, 90]), z, p, medians, threads=2)
    slow = by_cells(matrix, sets, draws, sums, totals, passes.COUNTS, n_null)
    slow -= null.centre_of(slow)
    np.testing.assert_array_equal(z, slow[:, :, 0].T)
    histogram = np.zeros((1, 4, 3, passes.N_BINS), np.int64)
    for s in range(4):
        for t in range(3):
            own = slow[strata == t, s, 1:]
            np.add.at(histogram[0, s, t], null.bin_of(own[~np.isnan(own)]), 1)
    expected = null.p_values(slow[:, :, 0], np.zeros(90, np.int64), strata, histogram)
    np.testing.assert_array_equal(p.astype(expected.dtype), expected.T)
    np.testing.assert_array_equal(medians, null.null_medians(histogram)[0])


def table(threads: int = 1, order: np.ndarray | None = None) -> pd.DataFrame:
    matrix = counts(n_cells=300, n_genes=900, seed=8)
    sets, _, sums, totals = planned(matrix)
    strata, _ = null.depth_strata(totals, np.zeros(300, np.int64), 1, totals > 0)
    rows = np.arange(300) if order is None else order
    return calibration.calibrate_lineage(
        sets, lineage="T", sums=sums, eligible=np.ones(900, bool), rank=np.arange(900),
        ids=np.asarray([f"g{g}" for g in range(900)], dtype=object),
        sample=null.SampledCells(matrix, rows, totals[rows]), depth=totals[rows],
        strata=strata[rows], kind=passes.COUNTS, n_null=60, n_sets=40, threads=threads,
    )  # fmt: skip


def test_the_table_does_not_depend_on_threads_or_the_order_of_cells() -> None:
    once = table()
    assert len(once) == 10
    pd.testing.assert_frame_equal(table(threads=3), once)
    order = np.random.default_rng(0).permutation(300)
    pd.testing.assert_frame_equal(table(order=order), once)


def test_random_sets_of_random_cells_are_false_positives_at_the_nominal_rate() -> None:
    found = table()
    weights = found["n_cells"]
    for level, slack in ((0.05, 0.012), (0.01, 0.005)):
        rate = np.average(found[f"fpr_{level}"], weights=weights)
        assert rate == pytest.approx(level, abs=slack)


def test_the_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    z = np.round(rng.normal(size=(5, 30)), 1)
    depth = rng.integers(1, 10, 30).astype(float)
    expected = [spearmanr(row, depth).statistic for row in z]
    assert calibration.mean_correlation(z, depth)[0] == pytest.approx(np.mean(expected))
    assert np.isnan(calibration.mean_correlation(z[:0], depth)[0])


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_error_of_the_correlation_is_its_spread_over_samples(shared: float) -> None:
    """Of sets and cells: with a part that all sets share in a cell, and without."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        z = rng.normal(size=(30, 60)) + shared * rng.normal(size=60)
        found.append(calibration.mean_correlation(z, rng.normal(size=60)))
    rho, se = np.array(found).T
    assert 0.8 < np.sqrt((se**2).mean()) / rho.std() < 1.6


def test_few_cells_are_tested_with_more_sets() -> None:
    assert table()["n_sets"].eq(160).all()  # of 300 cells: four times the 40 asked for


def test_a_plan_is_read_as_it_was_written() -> None:
    matrix = counts()
    sets, _, sums, totals = planned(matrix)
    plan = null.plan_scores(
        sets, np.array([[True, True, False, True], [True, True, True, True]]),
        lineages=["T", "B"], sums=np.vstack([sums, sums]), n_cells=np.array([60, 3]),
        eligible=np.ones(300, bool), rank=np.arange(300),
        sample=[null.SampledCells(matrix, np.arange(60), totals)] * 2,
        kind=passes.COUNTS, n_null=30,
    )  # fmt: skip
    assert plan.reasons["B", "s0"] == "3 cells, a null needs 10"
    again = null.Plan.from_arrays(plan.to_arrays())
    assert (again.lineages, again.signatures, again.n_null, again.reasons) == (
        plan.lineages, plan.signatures, plan.n_null, plan.reasons,
    )  # fmt: skip
    for a, b in zip((*again.sets, again.usable, again.centres),
                    (*plan.sets, plan.usable, plan.centres), strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    assert sorted(again.resting) == sorted(plan.resting) == [(0, 0), (0, 1), (0, 3)]
    for pair, near in plan.resting.items():
        np.testing.assert_array_equal(again.resting[pair], near)
        assert len(near) == len(sets[pair[1]].positions)


def test_held_back_sets_are_matched_as_signatures_are(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = counts(n_cells=210, n_genes=400, seed=5)
    signatures, _, sums, totals = planned(matrix)
    drawn: list[tuple[null.VotingGenes, np.ndarray]] = []

    def draw(genes: null.VotingGenes, *arguments: object, **named: object) -> object:
        drawn.append((genes, named["resting"]))
        return null.draw_sets(genes, *arguments, **named)

    monkeypatch.setattr(calibration, "draw_sets", draw)
    sample = null.SampledCells(matrix, np.arange(210), totals)
    calibration.calibrate_lineage(
        signatures, lineage="T", sums=sums, eligible=np.ones(400, bool), rank=np.arange(400),
        ids=np.asarray([f"g{k}" for k in range(400)], dtype=object), sample=sample, depth=totals,
        strata=np.zeros(210, np.int64), kind=passes.COUNTS, n_null=30, n_sets=6,
    )  # fmt: skip
    turned = null.turn(sample, np.ones(400, bool), passes.COUNTS)
    expected = null.resting_means([genes for genes, _ in drawn], sums, turned)
    assert len(drawn) == 24
    for (_, found), near in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(found, near)
