"""The matched-control statistic against a slow obvious implementation, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import norm

from senoscore import null, power
from senoscore.kernels import passes
from senoscore.kernels.pack import PackedRows, pack


def counts(n_cells: int = 60, n_genes: int = 300, seed: int = 0) -> sparse.csr_matrix:
    """Over-dispersed counts with a wide spectrum of gene means."""
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(-2, 1.5, n_genes)
    depth = rng.lognormal(0, 0.3, (n_cells, 1))
    dense = rng.poisson(rng.gamma(2.0, mean / 2.0, (n_cells, n_genes)) * depth)
    return sparse.csr_matrix(dense.astype(np.float32))


def parts(matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def packed(matrix: sparse.csr_matrix) -> PackedRows:
    return pack(*parts(matrix))


def test_an_inverse_root_is_one_over_the_root() -> None:
    x = np.concatenate([[1e-10, 1.0, 4.0], 10 ** np.random.default_rng(0).uniform(-10, 10, 5000)])
    found = np.array([passes.inverse_root(value) for value in x])
    np.testing.assert_allclose(found, 1 / np.sqrt(x), rtol=2e-14, atol=0)
    assert np.isnan(passes.inverse_root(np.nan))


def everyone(matrix: sparse.csr_matrix, totals: np.ndarray) -> null.SampledCells:
    return null.SampledCells(matrix, np.arange(matrix.shape[0]), totals)


def turned(matrix: sparse.csr_matrix, totals: np.ndarray, kind: int = passes.COUNTS) -> null.Turned:
    """All cells and genes of a matrix, gene by gene."""
    return null.turn(everyone(matrix, totals), np.ones(matrix.shape[1], bool), kind)


def log_cp10k(matrix: sparse.csr_matrix) -> np.ndarray:
    dense = matrix.toarray().astype(float)
    total = dense.sum(1, keepdims=True)
    return np.log1p(np.divide(dense * 1e4, total, out=np.zeros_like(dense), where=total > 0))


def setup(
    matrix: sparse.csr_matrix, n_null: int = 30
) -> tuple[null.Plan, list[null.VotingGenes], np.ndarray, np.ndarray]:
    n_genes = matrix.shape[1]
    signatures = [
        null.VotingGenes(
            "up", np.array([3, 8, 20]), np.array([1.0, 0.5, 0.25]), ("g3", "g8", "g20")
        ),
        null.VotingGenes("mixed", np.array([5, 7]), np.array([1.0, -1.0]), ("g5", "g7")),
    ]
    eligible = np.ones(n_genes, bool)
    eligible[[3, 8, 20, 5, 7]] = False
    totals = np.asarray(matrix.sum(1), float).ravel()
    sums = np.rint(log_cp10k(matrix) * 2**passes.FIX_X).astype(np.int64).sum(0, keepdims=True)
    plan = null.plan_scores(
        signatures,
        np.ones((1, 2), bool),
        lineages=["T"],
        sums=sums,
        n_cells=np.array([matrix.shape[0]]),
        eligible=eligible,
        rank=np.arange(n_genes),
        sample=[everyone(matrix, totals)],
        kind=passes.COUNTS,
        n_null=n_null,
    )
    return plan, signatures, sums, totals


def run(
    matrix: sparse.csr_matrix, plan: null.Plan, totals: np.ndarray, n_strata: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = matrix.shape[0]
    score, z = np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    histogram = np.zeros((1, 2, n_strata, passes.N_BINS), np.int64)
    strata = np.arange(n) % n_strata
    passes.score_rows(
        *packed(matrix), passes.COUNTS, totals, np.zeros(n, np.int64), strata,
        np.arange(n), *passes.make_walk(plan.sets), plan.usable, plan.n_null,
        plan.centres, score, z, histogram, np.full(n, -1), np.zeros((0, 0), np.int64),
    )  # fmt: skip
    return score, z, histogram


def naive(
    matrix: sparse.csr_matrix,
    signature: null.VotingGenes,
    sums: np.ndarray,
    eligible: np.ndarray,
    n_null: int,
    resting: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d, z and the null's z, cell by cell, from the definition."""
    x = log_cp10k(matrix)
    controls = null.ControlGenes(sums[0], eligible, np.arange(matrix.shape[1]))
    drawn, weights = null.draw_sets(
        signature, controls, sums[0], lineage="T", n_null=n_null, seed=0, resting=resting
    )
    own = x[:, signature.positions] @ signature.weights
    sets = np.stack([x[:, drawn[:, j]] @ weights for j in range(n_null)], axis=1)
    d = own - sets.mean(1)
    with np.errstate(invalid="ignore"):  # a cell without any of the genes
        z = d / sets.std(1, ddof=1)
    null_z = np.empty_like(sets)
    for j in range(n_null):
        others = np.delete(sets, j, axis=1)
        spread = others.std(1, ddof=1)
        spread[spread < 1e-12] = np.nan  # nothing to measure this set against
        null_z[:, j] = (sets[:, j] - others.mean(1)) / spread
    shift = -norm.ppf(0.25)
    z -= np.nanquantile(z, 0.25) + shift
    null_z -= np.nanquantile(null_z, 0.25, axis=0) + shift
    return d, z, null_z


def slow_resting(
    matrix: sparse.csr_matrix,
    signature: null.VotingGenes,
    means: np.ndarray,
    totals: np.ndarray,
    kind: int = passes.COUNTS,
) -> np.ndarray:
    """`null.resting_means` from its docstring: gene by gene, stratum by stratum."""
    x = log_cp10k(matrix) if kind == passes.COUNTS else matrix.toarray().astype(float)
    x = np.rint(x[:, signature.positions] * 2**passes.FIX_X)
    n = min(max(len(x) // 20, 1), 10)
    depth = totals if kind == passes.COUNTS else (matrix.toarray() != 0).sum(1)
    limits = np.quantile(depth, np.arange(1, n) / n)
    strata = (depth[:, None] > limits).sum(1)
    out = means[signature.positions].copy()
    if len(x) < 200:
        return out
    for g, position in enumerate(signature.positions):
        others = np.delete(x, g, axis=1) @ np.delete(signature.weights, g)
        taken = np.zeros(len(x), bool)
        for stratum in set(strata):
            here = np.flatnonzero(strata == stratum)
            half = -(-len(here) // 2)
            taken[here] = others[here] <= np.sort(others[here])[half - 1]
        if means[position] > 0 and x[:, g].sum() > 0:
            worth = 10 * x[x[:, g] != 0, g].mean()
            expected = x[:, g].mean() * taken.sum()
            ratio = (x[taken, g].sum() + worth) / (expected + worth)
            out[g] = max(round(means[position] * ratio), 1)
    return out


def planted(
    share: float, *, n_genes: int = 200, rare: bool = False, seed: int = 0
) -> tuple[sparse.csr_matrix, null.VotingGenes, np.ndarray, np.ndarray, np.ndarray]:
    """Cells of which a share has all genes of a signature on; matrix, signature, sums, totals, carriers."""
    rng, n_cells, n_on = np.random.default_rng(seed), 1000, 8
    mean = rng.lognormal(-1, 1.0, n_genes)
    mean[:n_on] = 0.003 if rare else 0.15
    carrier = rng.random(n_cells) < share
    rates = np.tile(mean, (n_cells, 1))
    rates[np.ix_(carrier, np.arange(n_on))] += 0 if rare else 1.2
    rates *= rng.lognormal(0, 0.3, (n_cells, 1))
    matrix = sparse.csr_matrix(rng.poisson(rates).astype(np.float32))
    genes = null.VotingGenes(
        "s", np.arange(n_on), np.ones(n_on), tuple(f"g{k}" for k in range(n_on))
    )
    sums = np.rint(log_cp10k(matrix) * 2**passes.FIX_X).astype(np.int64).sum(0)
    return matrix, genes, sums, np.asarray(matrix.sum(1), float).ravel(), carrier


@pytest.mark.parametrize("kind", [passes.COUNTS, passes.LOG])
@pytest.mark.parametrize("threads", [1, 3])
def test_resting_means_equal_the_definition(kind: int, threads: int) -> None:
    matrix = counts(n_cells=230, n_genes=80, seed=4)
    totals = np.asarray(matrix.sum(1), float).ravel()
    if kind == passes.LOG:
        matrix.data = np.log1p(matrix.data)
    rng = np.random.default_rng(3)
    signatures = [
        null.VotingGenes(
            f"s{n}", rng.choice(80, n, replace=False), rng.choice([-1.0, -0.5, 0.25, 1.0], n),
            tuple(f"{n}-{k}" for k in range(n)),
        )
        for n in (1, 2, 5, 17)
    ]  # fmt: skip
    means = np.rint(log_cp10k(matrix) * 2**passes.FIX_X).astype(np.int64).sum(0)
    means[signatures[2].positions[0]] = 0  # expressed nowhere, as far as the first pass knows
    found = null.resting_means(signatures, means, turned(matrix, totals, kind), threads=threads)
    for signature, got in zip(signatures, found, strict=True):
        np.testing.assert_array_equal(got, slow_resting(matrix, signature, means, totals, kind))
    # nothing else to go by, nothing to tell
    np.testing.assert_array_equal(found[0], means[signatures[0].positions])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_resting_means_know_no_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = counts(n_cells=int(rng.integers(180, 260)), n_genes=40, seed=seed % 1000)
    totals = np.asarray(matrix.sum(1), float).ravel()
    means = np.rint(log_cp10k(matrix) * 2**passes.FIX_X).astype(np.int64).sum(0)
    genes = null.VotingGenes(
        "s", rng.choice(40, 6, replace=False), rng.choice([-1.0, 1.0], 6), tuple("abcdef")
    )
    cells, place = rng.permutation(matrix.shape[0]), rng.permutation(6)
    mixed = null.VotingGenes("s", genes.positions[place], genes.weights[place], tuple("abcdef"))
    once = null.resting_means([genes], means, turned(matrix, totals))[0]
    again = null.resting_means([mixed], means, turned(matrix[cells], totals[cells]))[0]
    np.testing.assert_array_equal(once[place], again)


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_a_resting_mean_is_that_of_cells_without_the_programme(share: float) -> None:
    matrix, genes, sums, totals, carrier = planted(share)
    found = null.resting_means([genes], sums, turned(matrix, totals))[0]
    x = log_cp10k(matrix)[:, :8]
    true = x[~carrier].mean() / x.mean()
    assert true < 0.8
    # less the tenth part of the way that the weight of the mean in all cells takes
    assert np.mean(found / sums[:8]) == pytest.approx(true, abs=0.06)


def test_where_no_cell_carries_a_programme_resting_means_are_the_means() -> None:
    ratios = []
    for seed in range(12):
        matrix, genes, sums, totals, _ = planted(0.0, seed=seed)
        found = null.resting_means([genes], sums, turned(matrix, totals))[0]
        ratios.append(found / sums[:8])
    # a gene that had a say in which cells are taken would be at half of its mean
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)
    assert np.std(ratios) < 0.12


def test_a_few_cells_tell_nothing_about_resting_means() -> None:
    matrix, genes, sums, totals, _ = planted(0.3)
    for n, moved in ((199, False), (200, True)):
        found = null.resting_means([genes], sums, turned(matrix[:n], totals[:n]))[0]
        assert (found != sums[:8]).any() == moved


def test_a_rare_gene_follows_chance_no_further_than_ten_cells_let_it() -> None:
    matrix, genes, sums, totals, _ = planted(0.0, rare=True)
    seen = np.asarray((matrix[:, :8] > 0).sum(0)).ravel()
    assert (seen[sums[:8] > 0] < 9).all()
    found = null.resting_means([genes], sums, turned(matrix, totals))[0]
    ratio = found[sums[:8] > 0] / sums[:8][sums[:8] > 0]
    assert ((ratio > 10 / (10 + 9)) & (ratio < (10 + 9) / 10)).all()
    assert (found[sums[:8] == 0] == 0).all()


def test_cells_without_a_programme_have_even_p_beside_cells_with_it() -> None:
    """The reason for resting means: matched at the mean of all cells p is too large."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(4):
        matrix, genes, sums, totals, carrier = planted(0.15, n_genes=3000, seed=seed)
        controls = null.ControlGenes(sums, np.arange(3000) >= 8, np.arange(3000))
        sample = turned(matrix, totals)
        near = null.resting_means([genes], sums, sample)[0]
        for resting in (True, False):
            draw = null.draw_sets(
                genes, controls, sums, lineage="T", n_null=100, seed=seed,
                resting=near if resting else None,
            )  # fmt: skip
            table = null.build_sets([genes], [draw], sums, n_null=100)
            packed = null.pack_sample(sample, table, np.array([0]), 100)
            centres = null.centres_of_sample(packed)
            strata = np.zeros(len(totals), np.int64)
            _, z, histogram = null.score_lineage(packed, strata, centres, 1)
            p = null.p_values(z.T, strata, strata, histogram[None])
            shares[resting].append(float((p[~carrier, 0] <= 0.05).mean()))
    assert np.mean(shares[False]) < 0.03
    assert 0.035 < np.mean(shares[True]) < 0.06


@pytest.mark.parametrize("n_cells", [60, 210])
def test_score_z_and_null_equal_the_definition(n_cells: int) -> None:
    matrix = counts(n_cells)
    plan, signatures, sums, totals = setup(matrix)
    score, z, histogram = run(matrix, plan, totals)
    eligible = np.ones(matrix.shape[1], bool)
    eligible[[3, 8, 20, 5, 7]] = False
    for s, signature in enumerate(signatures):
        d, expected, null_z = naive(
            matrix, signature, sums, eligible, plan.n_null,
            slow_resting(matrix, signature, sums[0], totals),
        )  # fmt: skip
        # fixed point keeps 22 bits of x and 18 of a weight
        np.testing.assert_allclose(score[:, s], d, atol=1e-5)
        np.testing.assert_allclose(z[:, s], expected, atol=1e-4)
        edges = passes.Z_MIN + np.arange(passes.N_BINS + 1) / passes.BINS_PER_Z
        direct, _ = np.histogram(null_z[~np.isnan(null_z)], edges)
        # a value on the edge of a bin may fall to either side
        assert np.abs(np.cumsum(histogram[0, s, 0]) - np.cumsum(direct)).max() <= 3
        assert histogram[0, s, 0].sum() == (~np.isnan(null_z)).sum()


def test_p_values_equal_counting_by_hand() -> None:
    matrix = counts()
    plan, _, _, totals = setup(matrix)
    _, z, histogram = run(matrix, plan, totals, n_strata=2)
    strata = np.arange(len(z)) % 2
    p = null.p_values(z, np.zeros(len(z), np.int64), strata, histogram)
    for i in range(0, len(z), 7):
        for s in range(2):
            bins = histogram[0, s, strata[i]]
            first = int((z[i, s] - passes.Z_MIN) * passes.BINS_PER_Z)
            assert p[i, s] == np.float32((1 + bins[first:].sum()) / (1 + bins.sum()))


def test_each_control_is_used_equally_often_and_none_is_a_signature_gene() -> None:
    matrix = counts(n_genes=1000)
    _, signatures, sums, _ = setup(matrix)
    eligible = np.ones(1000, bool)
    controls = null.ControlGenes(sums[0], eligible, np.arange(1000))
    drawn, _ = null.draw_sets(signatures[0], controls, sums[0], lineage="T", n_null=50, seed=0)
    assert not np.isin(drawn, signatures[0].positions).any()
    for row in drawn:
        _, often = np.unique(row, return_counts=True)
        assert often.max() - often.min() <= 1


def test_no_null_set_holds_a_gene_twice_where_that_can_be_avoided() -> None:
    means = np.sort(np.random.default_rng(0).integers(1, 1 << 40, 90))
    controls = null.ControlGenes(means, np.ones(90, bool), np.arange(90))
    # all four genes share one pool of 20 controls, dealt out to 20 sets
    genes = null.VotingGenes("s", np.arange(40, 44), np.ones(4), ("a", "b", "c", "d"))
    for seed in range(20):
        drawn, _ = null.draw_sets(genes, controls, means, lineage="T", n_null=20, seed=seed)
        assert all(len(set(column)) == 4 for column in drawn.T)


def test_a_draw_is_seeded_by_names_alone() -> None:
    means = np.random.default_rng(0).integers(1, 1 << 40, 400)
    controls = null.ControlGenes(means, np.ones(400, bool), np.arange(400))
    genes = null.VotingGenes("s", np.array([5, 9, 11]), np.array([1.0, 2.0, 3.0]), ("b", "c", "a"))
    drawn, weights = null.draw_sets(genes, controls, means, lineage="T", n_null=50, seed=1)
    assert weights.tolist() == [3.0, 1.0, 2.0]  # in the order of ids
    mixed = null.VotingGenes("s", np.array([11, 5, 9]), np.array([3.0, 1, 2]), ("a", "b", "c"))
    again, _ = null.draw_sets(mixed, controls, means, lineage="T", n_null=50, seed=1)
    np.testing.assert_array_equal(again, drawn)
    for changed in ({"lineage": "B", "seed": 1}, {"lineage": "T", "seed": 2}):
        other, _ = null.draw_sets(genes, controls, means, n_null=50, **changed)
        assert (other != drawn).any()
    # the genes of the file in another order
    order = np.random.default_rng(1).permutation(400)
    place = np.argsort(order)
    elsewhere = null.ControlGenes(means[order], np.ones(400, bool), order)
    moved = null.VotingGenes("s", place[genes.positions], genes.weights, genes.ids)
    there, _ = null.draw_sets(moved, elsewhere, means[order], lineage="T", n_null=50, seed=1)
    np.testing.assert_array_equal(order[there], drawn)


def test_each_order_of_a_pool_is_as_likely_as_any_other() -> None:
    means = np.arange(1, 24)
    controls = null.ControlGenes(means, np.ones(23, bool), np.arange(23))
    first = [
        null.draw_sets(
            null.VotingGenes("s", np.array([0]), np.ones(1), (f"g{k}",)), controls, means,
            lineage="T", n_null=20, seed=0,
        )[0][0, 0]
        for k in range(4000)
    ]  # fmt: skip
    _, often = np.unique(first, return_counts=True)
    assert len(often) == 20
    assert np.sum((often - 200) ** 2 / 200) < 45  # chi-squared of 19 degrees: p = .0007


def test_controls_are_the_nearest_in_mean() -> None:
    matrix = counts(n_genes=500)
    _, _, sums, _ = setup(matrix)
    controls = null.ControlGenes(sums[0], np.ones(500, bool), np.arange(500))
    target = int(np.sort(sums[0])[250])
    picked = controls.nearest(target, 20, np.array([7]))
    candidates = [g for g in range(500) if sums[0][g] > 0 and g != 7]
    slow = sorted(candidates, key=lambda g: (abs(int(sums[0][g]) - target), g))[:20]
    assert picked.tolist() == slow


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_cells_and_genes_does_not_show(seed: int) -> None:
    matrix = counts(n_cells=25, n_genes=120, seed=seed)
    plan, _, _, totals = setup(matrix, n_null=20)
    score, z, histogram = run(matrix, plan, totals)
    order = np.random.default_rng(seed).permutation(matrix.shape[0])
    score2, z2, histogram2 = run(matrix[order].tocsr(), plan, totals[order])
    np.testing.assert_array_equal(score2, score[order])
    np.testing.assert_array_equal(z2, z[order])
    np.testing.assert_array_equal(histogram2, histogram)
    # the nonzeros of a row in any order
    shuffled = matrix.copy()
    for i in range(matrix.shape[0]):
        row = slice(matrix.indptr[i], matrix.indptr[i + 1])
        mixed = np.random.default_rng(seed + i).permutation(row.stop - row.start)
        shuffled.indices[row] = matrix.indices[row][mixed]
        shuffled.data[row] = matrix.data[row][mixed]
    score3, z3, _ = run(shuffled, plan, totals)
    np.testing.assert_array_equal(score3, score)
    np.testing.assert_array_equal(z3, z)


def test_a_score_does_not_depend_on_what_else_is_scored() -> None:
    matrix = counts()
    plan, signatures, sums, totals = setup(matrix)
    _, z, _ = run(matrix, plan, totals)
    eligible = np.ones(matrix.shape[1], bool)
    eligible[[3, 8, 20, 5, 7]] = False
    alone = null.plan_scores(
        [signatures[1]], np.ones((1, 1), bool), lineages=["T"], sums=sums,
        n_cells=np.array([len(z)]), eligible=eligible, rank=np.arange(matrix.shape[1]),
        sample=[everyone(matrix, totals)], kind=passes.COUNTS, n_null=30,
    )  # fmt: skip
    out = np.full((len(z), 1), np.nan)
    z1 = out.copy()
    passes.score_rows(
        *packed(matrix), passes.COUNTS, totals, np.zeros(len(z), np.int64),
        np.zeros(len(z), np.int64), np.arange(len(z))[::-1].copy(),
        *passes.make_walk(alone.sets), alone.usable, 30, alone.centres, out, z1,
        np.zeros((1, 1, 1, passes.N_BINS), np.int64), np.full(len(z), -1),
        np.zeros((0, 0), np.int64),
    )  # fmt: skip
    np.testing.assert_array_equal(z1[:, 0], z[:, 1])


@pytest.mark.parametrize("what", ["many molecules", "fractions", "both"])
def test_any_counts_are_scored_by_the_definition(what: str) -> None:
    """Small counts, large ones and fractions are looked up or worked out, each on a way of its own."""
    matrix = counts(n_cells=60, n_genes=80, seed=6)
    if what != "fractions":
        matrix.data[::3] *= 300
        matrix.data[1::5] = 256
    if what != "many molecules":
        matrix.data[::4] += 0.25
    plan, signatures, sums, totals = setup(matrix)
    score, _, _ = run(matrix, plan, totals)
    eligible = np.ones(80, bool)
    eligible[[3, 8, 20, 5, 7]] = False
    for s, signature in enumerate(signatures):
        resting = plan.resting[0, s]
        d, _, _ = naive(matrix, signature, sums, eligible, 30, resting)
        np.testing.assert_allclose(score[:, s], d, atol=1e-5)


@pytest.mark.parametrize("n_sets", [passes.LONG - 1, passes.LONG, passes.LONG + 1, 3 * passes.LONG])
def test_a_gene_in_many_sets_is_added_to_all_of_them(n_sets: int) -> None:
    """Such genes are walked last, by a loop of their own, which no other test came to."""
    matrix = counts(n_cells=20, n_genes=30, seed=2)
    totals = np.asarray(matrix.sum(1), float).ravel()
    rng = np.random.default_rng(0)
    dense = np.zeros((30, n_sets + 1))  # genes x sets; gene 4 is in every null set
    dense[4, 1:] = rng.choice([-1.0, 0.5, 2.0], n_sets)
    dense[7, 0] = 1.0
    for j in range(1, n_sets + 1):
        dense[rng.choice(np.arange(10, 30), 3, replace=False), j] = 1.0
    genes, sets = np.nonzero(dense)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(genes, minlength=30))])
    table = (offsets, sets.astype(np.int32), null.fixed_weights(dense[genes, sets]))
    z = np.empty((20, 1, n_sets + 1))
    walk = passes.make_walk(null.join_sets([table], 30))
    passes.null_z_rows(*parts(matrix), passes.COUNTS, totals, *walk, n_sets, z)
    sums = log_cp10k(matrix) @ dense
    slow = (sums[:, 0] - sums[:, 1:].mean(1)) / sums[:, 1:].std(1, ddof=1)
    np.testing.assert_allclose(z[:, 0, 0], slow, rtol=1e-4)


def test_a_weight_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the largest weight is 9000, not below 8192"):
        null.fixed_weights(np.array([1.0, -9000.0]))


def test_first_pass_equals_scanpys_definitions() -> None:
    matrix = counts(n_genes=400)
    gene_class = np.zeros(400, np.uint8)
    gene_class[:10] = 1
    gene_class[10:30] = 2
    metrics = np.zeros((matrix.shape[0], 6))
    sums = np.zeros((2, 400), np.int64)
    codes = np.arange(matrix.shape[0], dtype=np.int64) % 3 - 1
    panel = np.array([2, 11, 12, 200, 399])
    roles = passes.gene_roles(gene_class, panel)
    kept = kept_columns(matrix)
    passes.scan_rows(*packed(matrix), passes.COUNTS, roles, codes, metrics, sums, *kept)
    dense = matrix.toarray()
    used = kept[0][-1]
    taken = sparse.csr_matrix((kept[2][:used], kept[1][:used], kept[0]), (len(dense), len(panel)))
    np.testing.assert_array_equal(taken.toarray(), dense[:, panel])
    np.testing.assert_array_equal(metrics[:, 0], dense.sum(1))
    np.testing.assert_array_equal(metrics[:, 1], (dense > 0).sum(1))
    np.testing.assert_array_equal(metrics[:, 2], np.sort(dense, 1)[:, -50:].sum(1))
    np.testing.assert_array_equal(metrics[:, 3], dense[:, :10].sum(1))
    np.testing.assert_array_equal(metrics[:, 4], dense[:, 10:30].sum(1))
    for code in (0, 1):
        here = codes == code
        np.testing.assert_allclose(
            sums[code] / 2**passes.FIX_X, log_cp10k(matrix)[here].sum(0), atol=1e-4
        )


def kept_columns(matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = matrix.nnz
    return np.zeros(matrix.shape[0] + 1, np.int64), np.zeros(n, np.int32), np.zeros(n)


@pytest.mark.parametrize("scale", [1, 300, 5000])
def test_top_fifty_share_of_small_and_large_counts(scale: int) -> None:
    rng = np.random.default_rng(scale)
    dense = rng.integers(0, scale + 2, (20, 200)).astype(np.float64)
    if scale == 300:
        dense += rng.random((20, 200))  # fractional counts take another path
    matrix = sparse.csr_matrix(dense)
    metrics = np.zeros((20, 6))
    passes.scan_rows(
        *packed(matrix), passes.COUNTS, np.zeros(200, np.int32), np.full(20, -1), metrics,
        np.zeros((1, 200), np.int64), *kept_columns(matrix),
    )  # fmt: skip
    np.testing.assert_allclose(metrics[:, 2], np.sort(dense, 1)[:, -50:].sum(1), rtol=1e-12)


def test_depth_strata_hold_equal_shares_and_ignore_order() -> None:
    rng = np.random.default_rng(1)
    depth = rng.lognormal(8, 0.5, 1000).round()
    codes = np.zeros(1000, np.int64)
    use = rng.random(1000) > 0.1
    strata, n = null.depth_strata(depth, codes, 1, use)
    assert n == 10
    assert (strata[~use] == -1).all()
    sizes = np.bincount(strata[use])
    assert sizes.min() > 80
    order = rng.permutation(1000)
    again, _ = null.depth_strata(depth[order], codes, 1, use[order])
    np.testing.assert_array_equal(again, strata[order])


def test_null_medians_lie_where_half_the_null_lies() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1.3, 2, 50_000)
    histogram = np.bincount(null.bin_of(values), minlength=passes.N_BINS)
    assert null.null_medians(histogram) == pytest.approx(np.median(values), abs=0.02)


def test_critical_z_is_the_smallest_that_reaches_the_level() -> None:
    rng = np.random.default_rng(0)
    histogram = np.bincount(null.bin_of(rng.normal(0, 1, 100_000)), minlength=passes.N_BINS)
    critical = float(power.critical_z(histogram, 0.05))
    code, stratum = np.zeros(2, np.int64), np.zeros(2, np.int64)
    p = null.p_values(
        np.array([[critical + 1e-9], [critical - 1 / 32 + 1e-9]]), code, stratum,
        histogram[None, None, None],
    )  # fmt: skip
    assert p[0, 0] <= 0.05 < p[1, 0]
    assert critical == pytest.approx(norm.isf(0.05), abs=0.06)


def shares(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """z with ties, gaps, cells outside, a lineage without a null, a null that is short."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0.2, 1.5, (n, 3)).round(1)
    z[rng.random((n, 3)) < 0.1] = np.nan
    codes, strata = rng.integers(-1, 3, n), rng.integers(-1, 2, n)
    draws = null.bin_of(rng.normal(size=(2, 3, 2, int(rng.integers(5, 2000)))))
    histogram = np.zeros((3, 3, 2, passes.N_BINS), np.int64)
    for where in np.ndindex(2, 3, 2):
        histogram[where] = np.bincount(draws[where], minlength=passes.N_BINS)
    return z, codes, strata, histogram


@pytest.mark.parametrize("seed", range(8))
def test_adjusting_by_bins_equals_scipy_cell_by_cell(seed: int) -> None:
    z, codes, strata, histogram = shares(seed)
    p, padj = null.adjusted_p_values(z, codes, strata, histogram)
    np.testing.assert_array_equal(p, null.p_values(z, codes, strata, histogram))
    assert np.isnan(p[codes == 2]).all()
    assert np.isnan(padj[codes == 2]).all()
    for code in range(2):
        cells = codes == code
        for s in range(3):
            expected = null.benjamini_hochberg(p[cells, s])
            np.testing.assert_allclose(padj[cells, s], expected, rtol=1e-6)
    assert np.isnan(padj[codes == -1]).all()


def test_aligning_takes_the_median_of_the_cells_own_stratum() -> None:
    z, codes, strata, histogram = shares(1)
    middle = null.null_medians(histogram)
    found = null.align_depth(z, codes, strata, middle)
    for i in range(len(z)):
        shift = middle[codes[i], :, max(strata[i], 0)] if codes[i] >= 0 else 0.0
        np.testing.assert_array_equal(found[i], z[i] - shift)
    # the median of an empty null
    assert middle[2].tolist() == [[0.0, 0.0]] * 3
