"""Thinning against its law, frozen thresholds against their definition, the certificate against runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

import senoscore as sn
from senoscore import adjust, calling, certificate, keys, pipeline, scoring
from senoscore.adjust import Curve, Frozen, Recorder
from senoscore.certificate import ALL_CALLS, Thinned, thin
from senoscore.null import benjamini_hochberg, storey
from senoscore.settings import Settings
from senoscore.simulate import simulate_to

# -------------------------------------------------------------------------------------------------
# thinning


def names(n: int, what: str) -> np.ndarray:
    return np.array([f"{what}{i}" for i in range(n)], dtype=object)


def counts(n: int = 40, g: int = 300, mean: float = 3.0, seed: int = 0) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(rng.poisson(mean, (n, g)).astype(np.float32))


def left(
    full: sparse.csr_matrix, cells: np.ndarray, genes: np.ndarray, halvings: int
) -> sparse.csr_matrix:
    """All counts that are left, as a matrix."""
    n = full.shape[0]
    hashed, everything = pd.util.hash_array(genes), np.ones(full.shape[1], bool)
    found = thin(full, np.arange(n), cells, hashed, everything)[halvings - 1]
    kept = found.counts
    np.testing.assert_array_equal(found.totals, np.asarray(kept.sum(1)).ravel())
    return kept


@pytest.mark.parametrize("halvings", [1, 2])
@pytest.mark.parametrize("count", [1, 3, 63, 64, 65, 200])
def test_thinning_is_binomial(count: int, halvings: int) -> None:
    full = sparse.csr_matrix(np.full((200, 50), count, np.float32))
    kept = left(full, names(200, "c"), names(50, "g"), halvings).toarray().ravel()
    law = stats.binom(count, 0.5**halvings)
    # the distribution in at most eight bins of probability not far from equal
    edges = np.unique(law.ppf(np.linspace(0, 1, 9)[1:-1]))
    observed = np.bincount(np.searchsorted(edges, kept), minlength=len(edges) + 1)
    expected = np.diff(np.concatenate([[0], law.cdf(edges), [1]])) * len(kept)
    use = expected > 0
    assert stats.chisquare(observed[use], expected[use]).pvalue > 1e-4
    assert kept.max() <= count


def test_molecules_of_a_cell_and_of_a_gene_are_lost_independently() -> None:
    kept = left(
        sparse.csr_matrix(np.full((100, 100), 20, np.float32)), names(100, "c"), names(100, "g"), 1
    ).toarray()
    for margin in (kept.sum(0), kept.sum(1)):
        z = (margin - 1000) / np.sqrt(500)
        assert 0.75 < z.std() < 1.25
        assert abs(z.mean()) < 0.5


def test_a_quarter_is_half_of_the_half() -> None:
    full = counts()
    half, quarter = (left(full, names(40, "c"), names(300, "g"), h) for h in (1, 2))
    assert (quarter.toarray() <= half.toarray()).all()
    assert (half.toarray() <= full.toarray()).all()
    assert (half.data > 0).all()
    assert (quarter.data > 0).all()


def test_only_the_genes_wanted_are_kept_and_all_are_counted() -> None:
    full = counts()
    rows, wanted = np.array([3, 7, 8, 30]), np.zeros(300, bool)
    wanted[5:50] = True
    found = thin(full, rows, names(40, "c")[rows], pd.util.hash_array(names(300, "g")), wanted)
    for halvings, few in enumerate(found, start=1):
        every = left(full, names(40, "c"), names(300, "g"), halvings)[rows].toarray()
        np.testing.assert_array_equal(few.totals, every.sum(1))
        kept = few.counts.toarray()
        np.testing.assert_array_equal(kept, every * wanted)


def test_what_is_lost_depends_on_names_not_on_places() -> None:
    full, cell, gene = counts(), names(40, "c"), names(300, "g")
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(40)[:25], rng.permutation(300)
    there = left(full, cell, gene, 1).toarray()[np.ix_(rows, columns)]
    moved = full[rows][:, columns].tocsr()
    moved.sort_indices()
    np.testing.assert_array_equal(left(moved, cell[rows], gene[columns], 1).toarray(), there)


# -------------------------------------------------------------------------------------------------
# adjusted p-values held fixed


@given(
    # a few true signals among true nulls, as in a run: adjusted p-values below 1 in most families
    st.lists(st.floats(1e-6, 0.02), min_size=3, max_size=30).flatmap(
        lambda low: st.lists(st.floats(1e-6, 1.0), max_size=30).map(lambda high: low + high)
    ),
    st.floats(1e-6, 0.1),
    st.sampled_from([benjamini_hochberg, storey]),
)
@settings(max_examples=200, deadline=None)
def test_a_curve_is_the_adjustment_of_its_family(p: list[float], new: float, method: Any) -> None:
    """What p gets: the least of factor * t / (number of p <= t) over thresholds t >= p."""
    family = np.array(p)
    padj = method(family)
    curve = Curve.of(family, padj)
    np.testing.assert_array_equal(curve(family), padj)
    n = len(family)
    share = 1.0
    if method is storey:
        share = min(1.0, (1 + (family > 0.5).sum()) / (0.5 * n))
    if np.all(padj >= 1) or new in p:
        return  # nothing shows the factor, or the value is a member
    thresholds = [new, *family[family >= new]]
    expected = min(1.0, *(share * n * t / max(1, (family <= t).sum()) for t in thresholds))
    assert curve(np.array([new]))[0] == pytest.approx(expected, rel=1e-9)


def test_nan_stays_out_of_a_family() -> None:
    p = np.array([0.01, np.nan, 0.3])
    curve = Curve.of(p, benjamini_hochberg(p))
    assert len(curve.p) == 2
    assert np.isnan(curve(np.array([np.nan])))[0]


def test_what_a_recorder_heard_is_repeated() -> None:
    recorder = Recorder()
    p = np.array([0.001, 0.02, np.nan, 0.7])
    padj = recorder("support", p)
    np.testing.assert_array_equal(padj, adjust.adjust_among("support", p))
    frozen = Frozen(recorder.curves)
    # one cell alone gets what it got beside the others
    assert frozen("support", p[1:2])[0] == padj[1]
    # a family that was empty: a family of one
    assert frozen("other", p[:1])[0] == p[0]


# -------------------------------------------------------------------------------------------------
# the certificate


class Made:
    """A simulated cohort that was run, and what `certify` takes."""

    def __init__(self, folder: Path) -> None:
        self.source, self.out = folder / "cohort.h5ad", folder / "results"
        simulate_to(self.source, n_cells=1800, n_genes=6000, seed=4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.result = sn.analyse(self.source, out=self.out)
        self.run = pipeline._Run(self.out, self.source, Settings())
        self.data = self.run.input()
        self.state = state = pipeline._Scoring(self.run, self.data)
        part = self.run.parts("score")[0]
        self.score, self.z, self.histogram = part["score"], part["z"], part["histogram"]
        self.plan = state.plan()
        able = pipeline._able(self.run, state, self.plan, self.histogram, self.score, self.z)
        found = scoring.finish(self.score, self.z, self.histogram, state.codes, state.strata)
        frames = [
            pd.DataFrame(v, index=state.cells.index, columns=list(state.prepared.signatures))
            for v in (found.z, found.pvalue, found.padj)
        ]
        self.tables = calling.Tables(*frames)
        recorder = Recorder()
        self.calls = pipeline._calls(self.run, state, self.tables, able, recorder)
        self.options: dict[str, Any] = {
            "voting": state.prepared.voting, "histogram": self.histogram, "able": able,
            "cells": state.cells, "calls": self.calls, "sample": state.sample,
            "sample_rows": state.sample_rows, "gene_ids": self.data.genes.ids,
            "sums": state.sums, "n_cells": state.n_cells, "depth": state.depth,
            "codes": state.codes, "strata": state.strata, "settings": self.run.settings.call,
        }  # fmt: skip
        self.thresholds = calling.thresholds(self.tables, state.cells, recorder.curves)

    def certify(self, **changes: Any) -> pd.DataFrame:
        return certificate.certify(self.plan, self.thresholds, **(self.options | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("certificate"))


def test_cells_that_lose_nothing_keep_every_call(made: Made) -> None:
    """The way through thinning, frozen thresholds and rules leads back to the run itself."""

    def nothing_lost(sample: sparse.csr_matrix, rows: np.ndarray, *_: Any) -> tuple[Thinned, ...]:
        kept = sample[rows]
        totals = np.asarray(kept.sum(1), float).ravel()
        whole = Thinned(kept, totals)
        return whole, whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "thin", nothing_lost)
        table = made.certify()
    assert table["n_cells"].sum() > 1500
    assert (table["n_kept"] == table["n_cells"]).all()
    assert (table["n_below_range"] == 0).all()


def test_the_run_writes_the_certificate(made: Made) -> None:
    written = pd.read_csv(made.out / "certificate.tsv", sep="\t", keep_default_na=False)
    table = made.certify()
    assert list(written) == list(certificate.COLUMNS)
    assert written["n_flipped"].tolist() == table["n_flipped"].tolist()
    stored = made.result.uns[keys.UNS]["certificate"]
    assert stored["n_kept"].tolist() == table["n_kept"].tolist()
    assert sorted(table["depth"].unique()) == [0.25, 0.5]


def test_every_call_has_one_fate(made: Made) -> None:
    table = made.certify()
    fates = table[["n_kept", "n_indeterminate", "n_flipped"]].sum(axis=1)
    assert (fates == table["n_cells"]).all()
    for (_, lineage, call), rows in table.groupby(["depth", "lineage", "call"]):
        states = rows[rows["state"] != ALL_CALLS].set_index("state")
        total = rows[rows["state"] == ALL_CALLS].iloc[0]
        definite = states.drop(index="indeterminate")
        for column in ("n_cells", "n_kept", "n_flipped"):
            assert total[column] == definite[column].sum(), (lineage, call)
        named = sum(int(w.split(":")[1]) for t in states["flipped_to"] for w in t.split())
        assert named == states["n_flipped"].sum()
    called = table[(table["state"] == ALL_CALLS) & (table["n_cells"] > 0)]
    assert len(certificate.sentences(table)) == len(called.drop_duplicates(["depth", "lineage"]))


def test_thinned_cells_are_scored_by_the_definition(made: Made) -> None:
    """z of thinned cells, once on the way of `certify` and once from x and the plan's sets."""
    state = made.state
    rows = np.flatnonzero(state.codes[state.sample_rows] == keys.LINEAGES.index("T"))[:30]
    cells = state.sample_rows[rows]
    gene_ids = made.data.genes.ids
    thinned = left(state.sample[rows], state.cells.index.to_numpy()[cells], gene_ids, 1)
    totals = np.asarray(thinned.sum(1)).ravel().astype(float)
    few = certificate.restrict(made.plan, {"T": calling.deciding("T")})
    assert set(few.signatures) == set(calling.deciding("T"))
    x = np.log1p(thinned.toarray() * 1e4 / totals[:, None])
    name = calling.AXIS_SIGNATURES["exhaustion"][0]
    s, code = few.signatures.index(name), keys.LINEAGES.index("T")
    sets = np.zeros((few.n_null + 1, x.shape[1]))
    first, last = few.sets.offsets[code, :-1], few.sets.offsets[code, 1:]
    gene = np.repeat(np.arange(x.shape[1]), last - first)
    here = slice(few.sets.offsets[code, 0], few.sets.offsets[code, -1])
    of_set = few.sets.sets[here] - s * (few.n_null + 1)
    own = (of_set >= 0) & (of_set <= few.n_null)
    np.add.at(sets, (of_set[own], gene[own]), few.sets.weights[here][own] / 2**18)
    values = x @ sets.T
    d = values[:, 0] - values[:, 1:].mean(1)
    z = d / values[:, 1:].std(1, ddof=1) - few.centres[code, s, 0]
    seen: dict[str, np.ndarray] = {}
    real = certificate.p_values

    def spy(z: np.ndarray, *rest: Any, **how: Any) -> np.ndarray:
        seen.setdefault("z", z)  # at half the depth
        return real(z, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "p_values", spy)
        made.certify(
            sample=state.sample[rows], sample_rows=cells,
            cells=state.cells.assign(doublet_mixed_lineage=False),
        )  # fmt: skip
    used = state.strata[cells] >= 0
    np.testing.assert_allclose(seen["z"][:, s], z[used], atol=1e-4)


def test_a_restricted_plan_has_the_same_sets(made: Made) -> None:
    few = certificate.restrict(made.plan, {"T": ("t_arm_phenotype",), "B": ("b_senescence",)})
    width = made.plan.n_null + 1
    for lineage, name in (("T", "t_arm_phenotype"), ("B", "b_senescence")):
        code = keys.LINEAGES.index(lineage)
        new, old = few.signatures.index(name), made.plan.signatures.index(name)
        tables = []
        for plan, s in ((few, new), (made.plan, old)):
            first, last = plan.sets.offsets[code, 0], plan.sets.offsets[code, -1]
            gene = np.repeat(
                np.arange(plan.sets.offsets.shape[1] - 1), np.diff(plan.sets.offsets[code])
            )
            sets, weights = plan.sets.sets[first:last], plan.sets.weights[first:last]
            own = sets // width == s
            tables.append(np.stack([gene[own], sets[own] % width, weights[own]]))
        np.testing.assert_array_equal(*tables)
        np.testing.assert_array_equal(few.centres[code, new], made.plan.centres[code, old])
    assert few.usable.sum() == 2


def test_depths_fall_into_the_strata_of_the_run() -> None:
    rng = np.random.default_rng(0)
    depth = rng.integers(500, 5000, 400).astype(float)
    codes = np.repeat([0, 1], 200)
    from senoscore.null import depth_strata

    strata, _ = depth_strata(depth, codes, 2, np.ones(400, bool))
    np.testing.assert_array_equal(certificate.strata_at(depth, codes, depth, codes, strata), strata)
    below = certificate.strata_at(np.array([1.0, 1e6]), np.array([0, 0]), depth, codes, strata)
    assert below.tolist() == [-1, strata[:200].max()]


def test_the_order_of_cells_does_not_matter(made: Made) -> None:
    order = np.random.default_rng(0).permutation(len(made.state.sample_rows))
    shuffled = made.certify(
        sample=made.state.sample[order], sample_rows=made.state.sample_rows[order]
    )
    pd.testing.assert_frame_equal(shuffled, made.certify())


def test_at_half_depth_calls_stand_or_become_indeterminate(made: Made) -> None:
    """The aim for every lineage: of all calls, 95 % are not turned into another."""
    table = made.certify()
    half = table[(table["depth"] == 0.5) & (table["state"] == ALL_CALLS) & (table["n_cells"] > 30)]
    assert len(half) >= 5
    # of so few cells, as far as their number tells
    slack = 2 * np.sqrt(0.05 * 0.95 / half["n_cells"])
    assert (half["frac_flipped"] <= 0.05 + slack).all(), half[["lineage", "call", "frac_flipped"]]
    assert np.average(half["frac_flipped"], weights=half["n_cells"]) <= 0.05


def test_without_the_zone_of_doubt_more_calls_would_flip(made: Made) -> None:
    """A called cell that lost molecules is one that nearly would be called, not one without."""
    strict = Settings.from_mapping({"call": {"doubt_fdr": 1e-9}}).call
    flips = []
    for chosen in (made.run.settings.call, strict):
        table = made.certify(settings=chosen)
        calls = (table["call"] == keys.OBS_T_STATE) & table["state"].isin(
            ["exhausted", "senescent"]
        )
        flips.append(table.loc[calls, "n_flipped"].sum())
    assert flips[0] < flips[1]


def test_logged_values_have_no_certificate(tmp_path: Path, made: Made) -> None:
    import scanpy as sc

    adata = ad.read_h5ad(made.source)[:400].copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sn.analyse(adata, out=tmp_path / "out")
    assert "certificate" not in result.uns[keys.UNS]
    text = (tmp_path / "out" / "certificate.tsv").read_text("utf-8")
    assert text.splitlines() == ["\t".join(certificate.COLUMNS)]
