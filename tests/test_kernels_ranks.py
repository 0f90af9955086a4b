"""Scores from sparse rows: against their definitions, their laws, and the original tools."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from senoscore.errors import InputDataError, SignatureError
from senoscore.kernels import _numba
from senoscore.kernels.means import mean, score_genes, score_genes_controls
from senoscore.kernels.ranks import N_BINS, aucell, ucell
from senoscore.kernels.sets import SetIndex, make_set_index

MAX_RANK = 6
laws = settings(
    max_examples=50,
    deadline=None,  # the first example compiles
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def rows_of(matrix: Any) -> tuple[Any, Any, Any, int]:
    """The arguments every kernel starts with."""
    csr = sparse.csr_matrix(matrix)
    return csr.indptr, csr.indices, csr.data, csr.shape[1]


def score_against_rest(
    indptr: Any, indices: Any, data: Any, n_vars: int, sets: SetIndex, **kw: Any
) -> np.ndarray:
    """score_genes where the controls of a set are its own down genes, so that all genes move."""
    controls = make_set_index(
        [(sets.genes[(sets.owner == s) & (sets.signs < 0)], 1) for s in range(sets.n_sets)]
    )
    return score_genes(indptr, indices, data, n_vars, sets, controls, **kw)


SCORERS: dict[str, Callable[..., np.ndarray]] = {
    "ucell": partial(ucell, max_rank=MAX_RANK),
    "aucell": partial(aucell, n_up=2),
    "mean": mean,
    "score_genes": score_against_rest,
}
every_scorer = pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS.keys())
rank_scorer = pytest.mark.parametrize("name", ["ucell", "aucell"])

COUNTS = st.one_of(
    st.just(0), st.integers(0, 4), st.integers(N_BINS - 2, N_BINS + 2), st.integers(0, 10**6)
).map(float)
LOGS = st.one_of(st.just(0.0), st.integers(1, 5).map(lambda n: float(np.log1p(n * 0.7))))
ANY = st.one_of(COUNTS, LOGS, st.floats(-100, 100, width=32), st.just(-0.0))


@st.composite
def problems(
    draw: st.DrawFn, values: st.SearchStrategy[float] = ANY, max_genes: int = 12
) -> tuple[np.ndarray, list[tuple[list[int], list[int]]]]:
    """A dense matrix and gene sets, each a list of up and a list of down genes."""
    n_vars = draw(st.integers(2, max_genes))
    row = st.lists(values, min_size=n_vars, max_size=n_vars)
    matrix = np.array(draw(st.lists(row, min_size=1, max_size=5)), dtype=np.float64)
    sets = []
    for _ in range(draw(st.integers(1, 3))):
        sign = st.lists(st.sampled_from([0, 0, 1, -1]), min_size=n_vars, max_size=n_vars)
        signs = np.array(draw(sign))
        sets.append((np.flatnonzero(signs > 0).tolist(), np.flatnonzero(signs < 0).tolist()))
    return matrix, sets


def index_of(sets: list[tuple[list[int], list[int]]], n_missing: Any = None) -> SetIndex:
    return make_set_index([(u + d, [1] * len(u) + [-1] * len(d)) for u, d in sets], n_missing)


# -- against the definitions ----------------------------------------------------------------------


@laws
@given(problems(), st.integers(2, 14), st.floats(0, 2), st.integers(0, 3), st.integers(0, 3))
def test_ucell_is_its_definition(
    problem: Any, max_rank: int, w_neg: float, lost_up: int, lost_down: int
) -> None:
    matrix, sets = problem
    index = index_of(sets, [(lost_up, lost_down)] * len(sets))
    scores = ucell(*rows_of(matrix), index, max_rank=max_rank, w_neg=w_neg)
    expected = [
        [reference.ucell(row, u, d, (lost_up, lost_down), max_rank, w_neg) for u, d in sets]
        for row in matrix
    ]
    # one division and one product in float64 on either side
    assert_allclose(scores, expected, rtol=0, atol=1e-14)


@laws
@given(problems(max_genes=5), st.integers(2, 5))
def test_aucell_is_the_mean_over_all_orders_of_tied_genes(problem: Any, n_up: int) -> None:
    matrix, sets = problem
    n_up = min(n_up, matrix.shape[1])
    scores = aucell(*rows_of(matrix), index_of(sets), n_up=n_up)
    expected = [[reference.aucell_any_order(row, u, n_up) for u, _ in sets] for row in matrix]
    # credits are rounded to 2**-31 of a rank
    assert_allclose(scores, expected, rtol=0, atol=1e-9)


@laws
@given(problems(), st.integers(2, 12), st.randoms(use_true_random=False))
def test_aucell_in_a_given_order_is_its_definition(problem: Any, n_up: int, rng: Any) -> None:
    matrix, sets = problem
    n_vars = matrix.shape[1]
    n_up = min(n_up, n_vars)
    order = rng.sample(range(n_vars), n_vars)
    scores = aucell(*rows_of(matrix), index_of(sets), n_up=n_up, tie_order=order)
    expected = [[reference.aucell(row, u, n_up, order) for u, _ in sets] for row in matrix]
    assert_allclose(scores, expected, rtol=0, atol=1e-12)
    # and with every zero stored
    everywhere = np.tile(np.arange(n_vars), len(matrix)), matrix.ravel(), n_vars
    pointers = np.arange(len(matrix) + 1) * n_vars
    stored = aucell(pointers, *everywhere, index_of(sets), n_up=n_up, tie_order=order)
    assert_array_equal(stored, scores)


@laws
@given(problems())
def test_means_are_their_definitions(problem: Any) -> None:
    matrix, sets = problem
    expected = [[reference.mean(row, u, d) for u, d in sets] for row in matrix]
    assert_allclose(mean(*rows_of(matrix), index_of(sets)), expected, rtol=1e-14, atol=1e-14)
    expected = [[reference.score_genes(row, u, d) for u, d in sets] for row in matrix]
    scores = score_against_rest(*rows_of(matrix), index_of(sets))
    assert_allclose(scores, expected, rtol=1e-14, atol=1e-9)  # differences of means up to 1e6


def test_mean_uses_weights_and_leaves_out_what_was_not_measured() -> None:
    matrix = np.array([[1.0, 2.0, 0.0, 8.0], [np.nan, 2.0, 0.0, 8.0], [np.nan] * 4])
    weights = [0.1, 3.0, 0.7]
    index = make_set_index([([0, 1, 3], 1)], weights=[weights])
    scores = mean(*rows_of(matrix), index)[:, 0]
    expected = [
        reference.weighted_mean(matrix[0], [0, 1, 3], weights),
        reference.weighted_mean(matrix[1], [1, 3], weights[1:]),
        np.nan,
    ]
    assert_allclose(scores, expected, rtol=1e-15)
    assert mean(*rows_of(matrix[1]), make_set_index([([0, 1], [1, -1])])).item() == -2.0


def test_sums_are_exact_for_values_of_any_size() -> None:
    """A plain float sum of these loses the small value; the order would decide."""
    matrix = np.array([[2.0**25, 2.0**-30, -(2.0**25), 0.0]])
    for genes in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        assert mean(*rows_of(matrix), make_set_index([(genes, 1)])).item() == 2.0**-30 / 3


# -- laws -----------------------------------------------------------------------------------------


@every_scorer
@laws
@given(problems(), st.integers(1, 3), st.integers(2, 4))
def test_blocks_and_threads_do_not_matter(
    scorer: Any, problem: Any, size: int, threads: int
) -> None:
    matrix, sets = problem
    index = index_of(sets)
    whole = scorer(*rows_of(matrix), index)
    blocks = [scorer(*rows_of(matrix[i : i + size]), index) for i in range(0, len(matrix), size)]
    assert_array_equal(np.vstack(blocks), whole, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_numba, "MIN_PARALLEL_NNZ", 0)
        assert_array_equal(scorer(*rows_of(matrix), index, threads=threads), whole, strict=True)


@every_scorer
@laws
@given(problems(), st.randoms(use_true_random=False))
def test_permuting_cells_permutes_and_permuting_genes_changes_nothing(
    scorer: Any, problem: Any, rng: Any
) -> None:
    matrix, sets = problem
    n_obs, n_vars = matrix.shape
    whole = scorer(*rows_of(matrix), index_of(sets))
    cells = rng.sample(range(n_obs), n_obs)
    assert_array_equal(scorer(*rows_of(matrix[cells]), index_of(sets)), whole[cells])
    genes = rng.sample(range(n_vars), n_vars)
    moved = [([genes.index(g) for g in u], [genes.index(g) for g in d]) for u, d in sets]
    assert_array_equal(scorer(*rows_of(matrix[:, genes]), index_of(moved)), whole)


@every_scorer
@laws
@given(problems())
def test_storage_does_not_matter(scorer: Any, problem: Any) -> None:
    matrix, sets = problem
    index = index_of(sets)
    whole = scorer(*rows_of(matrix), index)
    assert_array_equal(scorer(*rows_of(sparse.csc_matrix(matrix)), index), whole)
    n_obs, n_vars = matrix.shape
    # every value stored, zeros too, from the last column to the first
    backwards = np.tile(np.arange(n_vars)[::-1], n_obs)
    pointers = np.arange(n_obs + 1) * n_vars
    full = scorer(pointers, backwards, matrix[:, ::-1].ravel(), n_vars, index)
    assert_array_equal(full, whole)


@every_scorer
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint64", "f4", ">f8"])
def test_dtype_does_not_matter(scorer: Any, dtype: str) -> None:
    matrix = np.random.default_rng(0).poisson(0.7, (20, 30))
    index = index_of([([1, 4, 9], [2, 7]), ([0, 3], [29])])
    indptr, indices, data, n_vars = rows_of(matrix.astype(np.float64))
    expected = scorer(indptr, indices, data, n_vars, index)
    values = data.astype(dtype)
    values.flags.writeable = False
    given = (indptr.astype(np.int32), indices.astype(np.uint64), values)
    assert_array_equal(scorer(*given, n_vars, index), expected)
    assert_array_equal(values, data)


@every_scorer
@laws
@given(problems())
def test_a_set_scores_the_same_alone(scorer: Any, problem: Any) -> None:
    matrix, sets = problem
    together = scorer(*rows_of(matrix), index_of(sets))
    alone = [scorer(*rows_of(matrix), index_of([one])) for one in sets]
    assert_array_equal(np.hstack(alone), together)


@rank_scorer
@laws
@given(problems(st.one_of(COUNTS, LOGS)))
def test_rank_scores_ignore_scale_and_logarithm(name: str, problem: Any) -> None:
    matrix, sets = problem
    scorer = SCORERS[name]
    scores = scorer(*rows_of(matrix), index_of(sets))
    assert_array_equal(scorer(*rows_of(2 * matrix), index_of(sets)), scores)
    assert_array_equal(scorer(*rows_of(np.log1p(matrix)), index_of(sets)), scores)
    # as float32 the values stay apart too, and take the other way of ordering bits
    assert_array_equal(scorer(*rows_of(np.log1p(matrix).astype("f4")), index_of(sets)), scores)


@rank_scorer
@laws
@given(problems(), st.integers(2, 20))
def test_rank_scores_of_up_genes_are_fractions(name: str, problem: Any, limit: int) -> None:
    """Also for sets of more genes than max_rank, where UCell's own formula exceeds 1."""
    matrix, sets = problem
    index = index_of([(u, []) for u, _ in sets])
    if name == "ucell":
        scores = ucell(*rows_of(matrix), index, max_rank=limit)
    else:
        scores = aucell(*rows_of(matrix), index, n_up=min(limit, matrix.shape[1]))
    assert_array_equal(np.isnan(scores), np.tile([not u for u, _ in sets], (len(matrix), 1)))
    inside = scores[~np.isnan(scores)]
    assert ((inside >= 0) & (inside <= 1)).all()


@rank_scorer
def test_the_highest_genes_score_one_whatever_the_size_of_the_set(name: str) -> None:
    row = np.arange(10.0)[None]
    for size in range(1, 11):
        index = make_set_index([(np.arange(10)[::-1][:size], 1)])
        assert SCORERS[name](*rows_of(row), index).item() == 1.0


@every_scorer
def test_empty_rows_and_empty_sets(scorer: Any) -> None:
    index = index_of([([0, 1], [2]), ([], [])])
    scores = scorer(*rows_of(np.zeros((2, 40))), index)
    assert np.isnan(scores[:, 1]).all(), "a set of no genes has no score"
    if scorer is SCORERS["aucell"]:
        # forty genes share all ranks: one in forty is first, and gets 1 of at most 1
        assert_allclose(scores[:, 0], 2 * (1 / 40) / 1, atol=1e-9)
    else:
        assert_array_equal(scores[:, 0], [0.0, 0.0])
    assert scorer(*rows_of(np.zeros((0, 40))), index).shape == (0, 2)
    assert scorer(*rows_of(np.ones((3, 40))), make_set_index([])).shape == (3, 0)


def test_missing_genes_are_not_zeros() -> None:
    """A set of which nothing was measured is NaN, also where missing genes count as the worst."""
    index = make_set_index([([], 1), ([0], 1)], n_missing=[3, 3])
    scores = ucell(*rows_of(np.array([[5.0, 0, 0]])), index, max_rank=4)
    assert np.isnan(scores[0, 0])
    # ranks 1, 4, 4, 4: 1 - (13 - 10) / (16 - 10)
    assert scores[0, 1] == 0.5


@rank_scorer
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("late", [0.5, -3.0, float(N_BINS), 3e9, np.inf, -np.inf, -0.0])
def test_one_odd_value_late_in_a_row_of_counts_is_ranked_as_it_is(
    name: str, dtype: str, late: float
) -> None:
    """Rows are taken for counts by their first values; the rest must be looked at as well."""
    row = np.random.default_rng(0).poisson(2, 60).astype(dtype)
    row[50:52] = late
    index = make_set_index([([g], 1) for g in range(60)])
    if name == "ucell":
        scores = ucell(*rows_of(row[None]), index, max_rank=50)
        expected = [[reference.ucell(row, [g], max_rank=50) for g in range(60)]]
    else:
        order = np.random.default_rng(1).permutation(60)
        scores = aucell(*rows_of(row[None]), index, n_up=40, tie_order=order)
        expected = [[reference.aucell(row, [g], 40, order) for g in range(60)]]
    assert_allclose(scores, expected, rtol=0, atol=1e-12)


@rank_scorer
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_is_not_a_number_ranks_as_zero(name: str, dtype: str) -> None:
    """As in pyUCell, and whichever of its many bit patterns it has."""
    matrix = np.random.default_rng(0).normal(0, 2, (3, 60)).astype(dtype)
    matrix[1] = abs(matrix[1]).round()
    matrix[2] = abs(matrix[2])
    zeroed = matrix.copy()
    zeroed[:, 30:33] = 0
    index = make_set_index([([g], 1) for g in range(60)])
    for sign in (1, -1):
        given = matrix.copy()
        given[:, 30:33] = np.copysign(np.nan, sign)
        assert np.signbit(given[0, 30]) == (sign < 0)
        assert_array_equal(
            SCORERS[name](*rows_of(given), index), SCORERS[name](*rows_of(zeroed), index)
        )


def test_down_genes_lower_ucell_and_only_clipping_hides_it() -> None:
    row = np.array([[9.0, 8.0, 0.0, 0.0]])
    index = index_of([([0], [1]), ([2], [0]), ([], [0])])
    free = ucell(*rows_of(row), index, max_rank=4, clip=False)
    assert_allclose(free, [[1 - 2 / 3, -1.0, -1.0]])
    assert_array_equal(ucell(*rows_of(row), index, max_rank=4), np.maximum(free, 0))


def test_zeros_of_scaled_data_rank_above_negative_values() -> None:
    """pyUCell ranks the stored values only, so that a zero falls behind every negative value."""
    row = np.array([[-1.0, 0.0, 2.0, 0.0, -3.0]])
    index = make_set_index([([g], 1) for g in range(5)])
    scores = ucell(*rows_of(row), index, max_rank=5)
    ranks = np.array([4, 2.5, 1, 2.5, 5])
    assert_allclose(scores, 1 - (ranks - 1)[None] / 4)


# -- mistakes -------------------------------------------------------------------------------------


@every_scorer
def test_damaged_rows_are_refused_and_not_read(scorer: Any) -> None:
    index = make_set_index([([0], 1)])
    with pytest.raises(InputDataError, match="0 to 7 do not fit 5 genes"):
        scorer([0, 2], [0, 7], [1.0, 2.0], 5, index)
    for integer in (np.int32, np.int64):
        with pytest.raises(InputDataError, match="-2 to 0 do not fit 5 genes"):
            scorer([0, 2], np.array([0, -2], integer), [1.0, 2.0], 5, index)
    with pytest.raises(InputDataError, match="never decrease"):
        scorer([0, 2, 1], [0], [1.0], 5, index)
    with pytest.raises(InputDataError, match="promises 3 values, found 2 indices"):
        scorer([0, 3], [0, 1], [1.0, 2.0], 5, index)
    with pytest.raises(InputDataError, match="must be numbers"):
        scorer([0, 1], [0], ["high"], 5, index)
    with pytest.raises(InputDataError, match=r"beyond 2\*\*53"):
        scorer([0, 1], [0], np.array([2**60]), 5, index)
    with pytest.raises(SignatureError, match="do not fit a matrix of 5 genes"):
        scorer([0, 1], [0], [1.0], 5, make_set_index([([5], 1)]))
    with pytest.raises(SignatureError, match="-1 to -1 do not fit"):
        scorer([0, 1], [0], [1.0], 5, make_set_index([([-1], 1)]))


def test_parameters_out_of_range_are_refused() -> None:
    rows = rows_of(np.ones((1, 5)))
    index = make_set_index([([0], 1)])
    with pytest.raises(InputDataError, match="max_rank must be at least 2, found 1"):
        ucell(*rows, index, max_rank=1)
    with pytest.raises(InputDataError, match=r"between 2 and the number of genes \(5\), found 6"):
        aucell(*rows, index, n_up=6)
    with pytest.raises(InputDataError, match="each of the 5 columns once"):
        aucell(*rows, index, n_up=2, tie_order=[0, 1, 2, 3, 3])
    with pytest.raises(SignatureError, match="1 sets, but controls for 2"):
        score_genes(*rows, index, make_set_index([([1], 1), ([2], 1)]))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e9])
def test_values_without_a_mean_are_refused_only_where_they_matter(bad: float) -> None:
    matrix = np.array([[1.0, 2.0], [bad, 2.0]])
    with pytest.raises(InputDataError, match="row 1 holds"):
        mean(*rows_of(matrix), make_set_index([([0, 1], 1)]))
    assert_array_equal(mean(*rows_of(matrix), make_set_index([([1], 1)])), [[2.0], [2.0]])


def test_sets_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SignatureError, match="set 1: gene position 4 is listed more than once"):
        make_set_index([([4], 1), ([4, 2, 4], [1, 1, -1])])
    with pytest.raises(SignatureError, match=r"set 0: signs must be \+1 or -1"):
        make_set_index([([4], 0)])
    with pytest.raises(SignatureError, match="set 0: weights must be positive"):
        make_set_index([([4], 1)], weights=[[np.nan]])
    with pytest.raises(SignatureError, match="set 0: .* give one of each per gene"):
        make_set_index([([4, 5], [1])])
    with pytest.raises(SignatureError, match=r"n_missing has shape \(3,\)"):
        make_set_index([([4], 1)], [1, 2, 3])
    with pytest.raises(SignatureError, match="negative number"):
        make_set_index([([4], 1)], [-1])


# -- control genes --------------------------------------------------------------------------------


def test_controls_share_the_expression_bin_and_the_seed_decides() -> None:
    means = np.arange(100.0)
    draw = partial(score_genes_controls, means, [50], n_bins=11, ctrl_size=4)
    chosen = draw()
    assert 3 <= len(chosen) <= 4
    assert 50 not in chosen
    assert (abs(chosen - 50) < 10).all()
    assert_array_equal(draw(), chosen)
    assert any(not np.array_equal(draw(random_state=seed), chosen) for seed in range(1, 5))


def test_choosing_controls_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    score_genes_controls(np.arange(100.0), [50], n_bins=11, ctrl_size=4)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_controls_that_cannot_be_chosen_are_refused() -> None:
    means = np.array([1.0, 2.0, np.nan, 4.0])
    with pytest.raises(SignatureError, match=r"1 of 2 genes .* \(first: position 2\)"):
        score_genes_controls(means, [0, 2])
    with pytest.raises(SignatureError, match="the list is empty"):
        score_genes_controls(means, [])
    with pytest.raises(SignatureError, match="no control gene shares"):
        score_genes_controls(means, [0, 1, 3])
    with pytest.raises(SignatureError, match="n_bins must be at least 2"):
        score_genes_controls(means, [0], n_bins=1)


# -- the original tools on real data --------------------------------------------------------------

FILES = {
    "pbmc3k_labelled": "counts",
    "kang2018_lupus_pbmc8684": "counts, few genes",
    "zilionis_nsclc300": "counts, deep cells",
    "mca_mouse_lung": "counts, shallow cells",
    "mast_mait96": "log2",
    "symphony_pbmc1200_lognorm": "log-normalised, 1,767 genes",
    "marthandan2016_fibroblast_bulk": "normalised, without a single zero",
}
others_warn = pytest.mark.filterwarnings("ignore")  # the original tools' own warnings


def original(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def real_cells(data: Path, file: str, n: int = 40) -> sparse.csr_matrix:
    """Some cells of a file, without the genes that none of them has."""
    anndata = original("anndata")
    adata = anndata.read_h5ad(data / f"{file}.h5ad")
    rows = np.linspace(0, adata.n_obs - 1, min(n, adata.n_obs)).astype(int)
    matrix = sparse.csr_matrix(adata.X)[rows]
    return matrix[:, matrix.getnnz(axis=0) > 0]


def as_anndata(matrix: Any) -> Any:
    adata = original("anndata").AnnData(matrix)
    adata.var_names = [f"g{i}" for i in range(adata.n_vars)]
    return adata


def random_sets(matrix: sparse.csr_matrix, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Sets of 1 to 300 genes, drawn with their expression so that many are detected."""
    rng = np.random.default_rng(seed)
    seen = matrix.getnnz(axis=0) + 1.0
    sets = []
    for n_up, n_down in [(1, 0), (5, 0), (20, 0), (20, 5), (10, 10), (300, 100)]:
        genes = rng.choice(matrix.shape[1], n_up + n_down, replace=False, p=seen / seen.sum())
        sets.append((genes[:n_up].tolist(), genes[n_up:].tolist()))
    return sets


@others_warn
@pytest.mark.parametrize(
    ("file", "storage", "missing"),
    [
        *((file, "csr", "impute") for file in FILES),
        ("pbmc3k_labelled", "csr", "skip"),
        ("pbmc3k_labelled", "csc", "impute"),
        ("mast_mait96", "dense", "impute"),
    ],
)
def test_ucell_equals_pyucell(data: Path, file: str, storage: str, missing: str) -> None:
    pyucell = original("pyucell")
    matrix = real_cells(data, file)
    sets = random_sets(matrix)
    adata = as_anndata({"csr": matrix, "csc": matrix.tocsc(), "dense": matrix.toarray()}[storage])
    named = {
        str(s): [f"g{g}" for g in u] + [f"g{g}-" for g in d] + ["absent", "lacking-", "lost-"]
        for s, (u, d) in enumerate(sets)
    }
    pyucell.compute_ucell_scores(adata, named, w_neg=0.8, missing_genes=missing, n_jobs=1)
    theirs = adata.obs[[f"{s}_UCell" for s in named]].to_numpy()
    index = index_of(sets, [(1, 2)] * len(sets) if missing == "impute" else None)
    ours = ucell(*rows_of(adata.X), index, w_neg=0.8)
    # pyUCell computes in float32: scores near 1 are rounded to 6e-8, a few times over
    assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert ours.max() > 0.1, "these sets must not all score zero"


@others_warn
def test_ucell_equals_pyucell_on_scaled_data_without_zeros(data: Path) -> None:
    pyucell = original("pyucell")
    matrix = real_cells(data, "mast_mait96").toarray().astype(np.float64)
    scaled = (matrix - matrix.mean(0)) / matrix.std(0)
    assert (scaled != 0).all()
    assert (scaled < 0).any()
    sets = random_sets(sparse.csr_matrix(matrix))
    adata = as_anndata(scaled)
    named = {str(s): [f"g{g}" for g in u] for s, (u, _) in enumerate(sets)}
    pyucell.compute_ucell_scores(adata, named, n_jobs=1)
    ours = ucell(*rows_of(scaled), index_of([(u, []) for u, _ in sets]))
    assert_allclose(ours, adata.obs.to_numpy(), rtol=0, atol=1e-6)


def decoupler_aucell(matrix: Any, sets: list[list[int]], n_up: int | None) -> np.ndarray:
    decoupler, pandas = original("decoupler"), original("pandas")
    adata = as_anndata(matrix)
    net = [(f"set{s}", f"g{g}") for s, genes in enumerate(sets) for g in genes]
    net = pandas.DataFrame(net, columns=["source", "target"])
    decoupler.mt.aucell(adata, net, tmin=0, n_up=n_up, empty=False)
    return adata.obsm["score_aucell"][[f"set{s}" for s in range(len(sets))]].to_numpy()


def decoupler_order(n_vars: int) -> np.ndarray:
    return np.random.default_rng(0).choice(np.arange(n_vars), n_vars, replace=False)


@others_warn
@pytest.mark.parametrize(
    ("file", "n_up"),
    [*((file, None) for file in FILES), ("pbmc3k_labelled", 2500), ("mast_mait96", 12000)],
)
def test_aucell_equals_decoupler_in_its_order_of_ties(
    data: Path, file: str, n_up: int | None
) -> None:
    matrix = real_cells(data, file)
    sets = [u for u, _ in random_sets(matrix)]
    theirs = decoupler_aucell(matrix, sets, n_up)
    ours = aucell(
        *rows_of(matrix), make_set_index([(genes, 1) for genes in sets]),
        n_up=n_up, tie_order=decoupler_order(matrix.shape[1]),
    )  # fmt: skip
    # 1e-6 was asked for; both are one quotient of the same integers
    assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert ours.max() > 0.05, "these sets must not all score zero"


@others_warn
def test_aucell_equals_decoupler_on_scaled_data(data: Path) -> None:
    """Zeros lie between positive and negative values here, and are tied among themselves."""
    matrix = real_cells(data, "mast_mait96").toarray().astype(np.float64)
    scaled = (matrix - matrix.mean(0)) / matrix.std(0)
    scaled[matrix == 0] = 0
    sets = [u for u, _ in random_sets(sparse.csr_matrix(matrix))]
    n_up = int(0.7 * matrix.shape[1])
    theirs = decoupler_aucell(scaled, sets, n_up)
    index = make_set_index([(genes, 1) for genes in sets])
    order = decoupler_order(matrix.shape[1])
    ours = aucell(*rows_of(scaled), index, n_up=n_up, tie_order=order)
    assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_aucell_is_what_orders_of_ties_scatter_around(data: Path) -> None:
    """How far one order of ties (decoupler's way) is from the mean of all (ours), on real counts.

    In PBMC with about 800 genes per cell the tie at one count straddles the cut-off: a single order
    moves the score of a gene by 0.05 (root mean square), of a set of 20 genes by 0.015. The mean of
    many orders comes as near to ours as chance allows.
    """
    matrix = real_cells(data, "pbmc3k_labelled", 100)
    n_vars = matrix.shape[1]
    seen = matrix.getnnz(axis=0) + 1.0
    rng = np.random.default_rng(0)
    sizes = np.repeat([1, 20], 10)
    sets = [rng.choice(n_vars, size, replace=False, p=seen / seen.sum()) for size in sizes]
    index = make_set_index([(genes, 1) for genes in sets])
    ours = aucell(*rows_of(matrix), index)
    orders = [decoupler_order(n_vars), *(rng.permutation(n_vars) for _ in range(100))]
    drawn = np.array([aucell(*rows_of(matrix), index, tie_order=order) for order in orders])
    typical = np.sqrt(((drawn - ours) ** 2).mean(axis=(0, 1)))
    decouplers = np.sqrt(((drawn[0] - ours) ** 2).mean(axis=0))
    for distance in (typical, decouplers):
        assert 0.03 < distance[sizes == 1].mean() < 0.1
        assert 0.01 < distance[sizes == 20].mean() < 0.03
    spread = drawn.std(axis=0, ddof=1)
    deviation = (drawn.mean(axis=0) - ours)[spread > 1e-3] / spread[spread > 1e-3]
    deviation *= np.sqrt(len(orders))
    assert len(deviation) > 1000
    # cells share the orders, so deviations within a set are not independent of each other
    assert abs(deviation.mean()) < 0.3, "no bias"
    assert 0.7 < deviation.std() < 1.3, "no more than chance"


@others_warn
@pytest.mark.parametrize("ctrl_as_ref", [True, False])
@pytest.mark.parametrize(
    ("file", "dtype"),
    [*((file, "f8") for file in FILES), ("pbmc3k_labelled", "f4"), ("mast_mait96", "f4")],
)
def test_score_genes_equals_scanpy(data: Path, file: str, ctrl_as_ref: bool, dtype: str) -> None:
    scanpy = original("scanpy")
    adata = as_anndata(real_cells(data, file).astype(dtype))
    if FILES[file].startswith("counts"):
        scanpy.pp.normalize_total(adata, target_sum=1e4)
        scanpy.pp.log1p(adata)
    sets = [u for u, _ in random_sets(adata.X)]
    gene_means = np.asarray(adata.X.sum(axis=0, dtype="float64")).ravel() / adata.n_obs
    pool = np.arange(adata.n_vars)[::-1][: adata.n_vars - 7]
    inside = [[g for g in genes if g in pool] for genes in sets]
    controls, theirs = [], []
    for seed, genes in enumerate(inside):
        how = {"ctrl_size": 30, "n_bins": 20, "ctrl_as_ref": ctrl_as_ref, "random_state": seed}
        scanpy.tl.score_genes(
            adata, [f"g{g}" for g in genes], gene_pool=[f"g{g}" for g in pool], **how
        )
        theirs.append(adata.obs["score"].to_numpy())
        controls.append((score_genes_controls(gene_means, genes, pool, **how), 1))
    ours = score_genes(
        *rows_of(adata.X),
        make_set_index([(genes, 1) for genes in inside]),
        make_set_index(controls),
    )
    # Another draw of controls would differ by 1e-2 of the highest value or so. Sums have up to 600
    # terms. scipy adds float32 in float32, whose rounding is 6e-8 of a sum: far above ours.
    atol = adata.X.max() * (1e-14 if dtype == "f8" else 1e-6)
    assert_allclose(ours, np.transpose(theirs), rtol=0, atol=atol)


@others_warn
def test_controls_equal_scanpys_for_default_settings_and_tiny_pools(data: Path) -> None:
    """Eleven genes are fewer than half a bin each: scanpy then has a single bin."""
    scanpy = original("scanpy")
    for n_vars in (11, 12, 500):
        matrix = real_cells(data, "mast_mait96")[:, :n_vars].astype(np.float64)
        adata = as_anndata(matrix)
        scanpy.tl.score_genes(adata, ["g3", "g8"])
        gene_means = np.asarray(matrix.sum(axis=0, dtype="float64")).ravel() / adata.n_obs
        controls = make_set_index([(score_genes_controls(gene_means, [3, 8]), 1)])
        ours = score_genes(*rows_of(matrix), make_set_index([([3, 8], 1)]), controls)
        assert_allclose(ours[:, 0], adata.obs["score"], rtol=0, atol=1e-12)


# -- compiled code on disk ------------------------------------------------------------------------

KERNEL = """
    from senoscore.kernels._numba import njit

    @njit
    def double(x):
        return 2 * x

    print(double(21), sum(double.stats.cache_hits.values()), double._cache.cache_path)
"""


def run_kernel(folder: Path, *, blocked: bool = False, **environment: str) -> tuple[str, int, str]:
    """Run a kernel of a module in `folder` in a fresh process.

    Returns its result, how often it was found compiled, and the folder where that is kept.
    """
    script = folder / "module.py"
    if not script.exists():
        script.write_text(textwrap.dedent(KERNEL))
    if blocked:  # stands for a folder without permission to write, which root always has
        (folder / "__pycache__").write_text("not a folder")
    root = Path(_numba.__file__).parents[2]
    env = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    env |= {"PYTHONPATH": str(root), **environment}
    done = subprocess.run(
        [sys.executable, script], check=False, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result, hits, where = done.stdout.strip().split(" ", 2)
    return result, int(hits), where


def test_compiled_code_is_kept_beside_the_source(tmp_path: Path) -> None:
    where = str(tmp_path / "__pycache__")
    assert run_kernel(tmp_path) == ("42", 0, where)
    assert run_kernel(tmp_path) == ("42", 1, where)


def test_compiled_code_is_kept_in_the_users_folder_if_the_source_is_read_only(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    result, _, where = run_kernel(tmp_path, blocked=True, XDG_CACHE_HOME=str(home))
    assert result == "42"
    assert Path(where).is_relative_to(home)
    assert list(home.rglob("*.nbi"))


def test_folder_for_compiled_code_can_be_chosen(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    result, _, where = run_kernel(tmp_path, NUMBA_CACHE_DIR=str(chosen))
    assert result == "42"
    assert Path(where).is_relative_to(chosen)
    assert list(chosen.rglob("*.nbi"))


def test_without_any_folder_kernels_still_run(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("not a folder")
    assert run_kernel(tmp_path, blocked=True, XDG_CACHE_HOME=str(nowhere)) == ("42", 0, "None")


def test_damaged_cache_costs_one_compilation_not_the_run(tmp_path: Path) -> None:
    """An index cut short by a full disk or a killed job must not end every later run."""
    run_kernel(tmp_path)
    (index,) = (tmp_path / "__pycache__").glob("*.nbi")
    index.write_bytes(index.read_bytes()[:-9])
    assert run_kernel(tmp_path)[:2] == ("42", 0)
    assert run_kernel(tmp_path)[:2] == ("42", 1)
    (code,) = (tmp_path / "__pycache__").glob("*.nbc")
    code.write_bytes(b"junk")
    assert run_kernel(tmp_path)[:2] == ("42", 0)
    assert run_kernel(tmp_path)[:2] == ("42", 1)


ARRAYS = """
    import sys
    import numpy as np
    from senoscore.kernels._numba import njit

    @njit
    def logs(x):
        return np.sort(np.log(1.0 + x))

    @njit
    def largest(x):
        out = np.zeros(3)
        out[:] = logs(x)[-3:]
        return out.sum() + np.partition(x, 2)[2]

    x = np.arange(10.0)
    value = logs(x)[1] + largest(x)
    hits = sum(sum(f.stats.cache_hits.values()) for f in (logs, largest))
    print(value, hits, "numba.typed.typeddict" in sys.modules)
"""


def test_kept_code_runs_without_all_that_numba_can_compile(tmp_path: Path) -> None:
    """That is loaded when something is to be compiled, be it beside code that was kept."""
    (tmp_path / "module.py").write_text(textwrap.dedent(ARRAYS))
    expected = math.log(2) + math.log(8) + math.log(9) + math.log(10) + 2
    first = run_kernel(tmp_path)
    assert abs(float(first[0]) - expected) < 1e-12
    assert first[1:] == (0, "True")
    assert run_kernel(tmp_path) == (first[0], 2, "False")
    for kept in (tmp_path / "__pycache__").glob("*largest*"):
        kept.unlink()
    assert run_kernel(tmp_path) == (first[0], 1, "True")
    assert run_kernel(tmp_path) == (first[0], 2, "False")


def test_cells_are_shared_out_once_each_and_by_depth() -> None:
    depth = np.random.default_rng(0).integers(0, 50_000, 37)
    depth[:5] = 0
    indptr = np.concatenate(([0], np.cumsum(depth)))
    ranges: list[tuple[int, int]] = []
    _numba.over_rows(lambda a, b, _: ranges.append((a, b)), indptr, threads=3)
    ranges.sort()
    assert [i for a, b in ranges for i in range(a, b)] == list(range(37))
    assert len(ranges) > 6
    assert max(indptr[b] - indptr[a] for a, b in ranges) < indptr[-1] / 3


def test_an_error_in_a_thread_is_not_lost() -> None:
    def fail(start: int, stop: int, indptr: np.ndarray) -> None:
        raise ZeroDivisionError(f"rows {start} to {stop}")

    with pytest.raises(ZeroDivisionError, match="rows"):
        _numba.over_rows(fail, np.array([0, 10**6, 2 * 10**6]), threads=2)
