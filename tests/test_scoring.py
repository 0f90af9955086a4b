"""`tl.score` and friends on an AnnData: equal to the originals, and what users may get wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import senoscore as sn
from senoscore import calling, keys, pipeline, scoring
from senoscore.errors import InputDataError, SenoscoreWarning, SignatureError
from senoscore.genes import resolve_genes
from senoscore.scoring import null_strata
from senoscore.settings import CallSettings
from senoscore.simulate import simulate

pytestmark = pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")


@pytest.fixture(scope="module")
def pbmc(data: Path) -> ad.AnnData:
    adata = ad.read_h5ad(data / "pbmc3k_labelled.h5ad")[:600].copy()
    adata.X = sparse.csr_matrix(adata.X)
    # columns that stand for one gene are summed here and not by the originals: keep one of each
    columns = resolve_genes(adata.var_names.tolist(), organism="human").columns
    _, first = np.unique(columns, return_index=True)
    return adata[:, np.sort(first)].copy()


SETS = {
    "cytotoxic": ["NKG7", "GNLY", "PRF1", "GZMB", "CST7"],
    "b": ["MS4A1", "CD79A", "CD79B", "HLA-DRA"],
    "naive": ["CCR7", "LEF1", "TCF7", "CD27", "GZMB-"],
}


def scored(adata: ad.AnnData, **options: object) -> pd.DataFrame:
    out = sn.tl.score(adata, SETS, groupby=None, copy=True, **options)
    return out.obsm["senoscore_score"]


def test_ucell_equals_pyucell(pbmc: ad.AnnData) -> None:
    pyucell = pytest.importorskip("pyucell")
    ours = scored(pbmc, method="ucell")
    theirs = pbmc.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyucell.compute_ucell_scores(theirs, signatures=SETS)
    for name in SETS:
        np.testing.assert_allclose(ours[name], theirs.obs[f"{name}_UCell"], atol=1e-6)


def test_score_genes_equals_scanpy(pbmc: ad.AnnData) -> None:
    import scanpy as sc

    up = {name: [g for g in genes if not g.endswith("-")] for name, genes in SETS.items()}
    ours = sn.tl.score(pbmc, up, groupby=None, method="score_genes", copy=True)
    logged = pbmc.copy()
    logged.X = logged.X.astype(np.float64)
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    for name, genes in up.items():
        sc.tl.score_genes(logged, genes, score_name=name)
        np.testing.assert_allclose(ours.obsm["senoscore_score"][name], logged.obs[name], atol=1e-6)


def test_aucell_is_close_to_decoupler_whose_ties_are_random(pbmc: ad.AnnData) -> None:
    decoupler = pytest.importorskip("decoupler")
    up = {name: [g for g in genes if not g.endswith("-")] for name, genes in SETS.items()}
    ours = sn.tl.score(pbmc, up, groupby=None, method="aucell", copy=True)
    net = pd.DataFrame(
        [(s, g) for s, genes in up.items() for g in genes], columns=["source", "target"]
    )
    theirs = pbmc.copy()
    theirs.X = theirs.X.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoupler.mt.aucell(theirs, net, tmin=1)
    for name in up:
        r = np.corrcoef(ours.obsm["senoscore_score"][name], theirs.obsm["score_aucell"][name])[0, 1]
        assert r > 0.97  # equality with its own order of ties is tested on the kernel


def test_mean_is_the_mean_of_log_cp10k(pbmc: ad.AnnData) -> None:
    ours = scored(pbmc, method="mean")["naive"]
    dense = pbmc.X.toarray().astype(float)
    x = pd.DataFrame(
        np.log1p(dense / dense.sum(1, keepdims=True) * 1e4),
        index=pbmc.obs_names, columns=pbmc.var_names,
    )  # fmt: skip
    expected = (x[["CCR7", "LEF1", "TCF7", "CD27"]].sum(1) - x["GZMB"]) / 5
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("method", ["matched", "ucell", "aucell", "mean"])
def test_storage_does_not_show(pbmc: ad.AnnData, method: str) -> None:
    expected = scored(pbmc, method=method)
    for convert in (sparse.csc_matrix, lambda x: x.toarray(), sparse.csr_array):
        other = pbmc.copy()
        other.X = convert(pbmc.X)
        pd.testing.assert_frame_equal(scored(other, method=method, threads=2), expected)
    order = np.random.default_rng(0).permutation(pbmc.n_vars)
    pd.testing.assert_frame_equal(scored(pbmc[:, order].copy(), method=method), expected)
    rows = np.random.default_rng(1).permutation(pbmc.n_obs)
    pd.testing.assert_frame_equal(
        scored(pbmc[rows].copy(), method=method).loc[pbmc.obs_names], expected
    )


def test_input_is_not_changed_but_for_the_named_fields(pbmc: ad.AnnData) -> None:
    before = pbmc.copy()
    work = pbmc.copy()
    assert sn.tl.score(work, SETS, groupby=None) is None
    np.testing.assert_array_equal(work.X.data, before.X.data)
    assert list(work.obs) == list(before.obs)
    assert set(work.obsm) - set(before.obsm) == {
        "senoscore_score", "senoscore_z", "senoscore_pvalue", "senoscore_padj",
        "senoscore_powered",
    }  # fmt: skip
    assert list(work.obsm["senoscore_z"]) == list(SETS)


def sentences(run: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(w.message) for w in caught if w.category is SenoscoreWarning]


def test_all_signatures_that_are_not_scored_make_one_warning() -> None:
    cohort = simulate(n_cells=600, n_genes=4000, seed=1)
    sn.pp.lineages(cohort)
    t = cohort[cohort.obs["lineage"] == "T"].copy()
    # those of other lineages are as expected
    assert sentences(lambda: sn.tl.score(t)) == []
    poor = t[:, ~t.var_names.isin(["PDCD1", "LAG3", "TOX", "ENTPD1", "LAYN", "LCP2", "LAT"])].copy()
    (told,) = sentences(lambda: sn.tl.score(poor))
    reasons = poor.uns["senoscore"]["signatures"]["reason"]
    lost = reasons.index[reasons.str.contains("needed")]
    assert "t_arm_tcr_loss" in lost
    assert told.startswith(f"{len(lost)} of {len(reasons)} signatures are not scored: {lost[0]}")
    assert sentences(lambda: sn.tl.score(poor, ["t_arm_tcr_loss"])) == [
        "signature 't_arm_tcr_loss' is not scored: 1 of 3 genes measured, 2 needed"
    ]


def test_a_run_that_scores_nothing_says_so() -> None:
    few = simulate(n_cells=300, n_genes=2000, seed=1)
    genes = resolve_genes(few.var_names.tolist(), organism="human")
    few = few[:, scoring.control_eligible(genes)[genes.columns]].copy()
    (told,) = sentences(lambda: sn.analyse(few))
    assert "no signature could be scored, so that no cell is called" in told


def test_scores_without_p_values_leave_none_of_an_earlier_call() -> None:
    cohort = simulate(n_cells=300, n_genes=3000, seed=2)
    sn.pp.lineages(cohort)
    sn.tl.score(cohort)
    sn.tl.score(cohort, ["t_senescence"], method="ucell")
    assert [k for k in cohort.obsm if k.startswith("senoscore")] == ["senoscore_score"]
    with pytest.raises(InputDataError, match="with method='matched' first"):
        sn.tl.call(cohort)


def test_the_table_of_t_cells_has_a_row_per_cell_whatever_the_names() -> None:
    cohort = simulate(n_cells=600, n_genes=4000, seed=1)
    cohort.obs_names = [f"cell{i // 2}" for i in range(cohort.n_obs)]  # two samples' barcodes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = sn.analyse(cohort)
    is_t = s.obs["t_state"].notna().to_numpy()
    table = sn.get.t_cells(s)
    assert list(table.index) == list(s.obs_names[is_t])
    np.testing.assert_array_equal(
        table[list(sn.keys.AXES)], s.obsm["t_axes"].loc[is_t], strict=True
    )


def test_steps_one_by_one_give_what_analyse_gives() -> None:
    cohort = simulate(n_cells=1200, n_genes=6000, seed=5)
    whole = sn.analyse(cohort)
    sn.pp.lineages(cohort)
    sn.pp.qc(cohort)
    sn.tl.score(cohort)
    sn.tl.call(cohort)
    assert (cohort.obs["lineage"].astype(str) == whole.obs["lineage"].astype(str)).all()
    assert (cohort.obs["qc_pass"] == whole.obs["qc_pass"]).all()
    # cells that fail quality control are in the null here, and not in the pipeline's
    same = cohort.obs["t_state"].astype(str) == whole.obs["t_state"].astype(str)
    assert same.mean() > 0.97
    assert list(cohort.obsm["t_axes"]) == list(sn.keys.AXES)


def test_a_signature_is_refused_outside_its_lineages() -> None:
    cohort = simulate(n_cells=600, n_genes=4000, seed=1)
    sn.pp.lineages(cohort)
    monocytes = cohort[cohort.obs["lineage"] == "mono_mac"].copy()
    with pytest.raises(SignatureError, match="b_senescence' is valid in B"):
        sn.tl.score(monocytes, ["b_senescence"])
    sn.tl.score(cohort, ["b_senescence"])
    z = cohort.obsm["senoscore_z"]["b_senescence"]
    assert z[cohort.obs["lineage"] != "B"].isna().all()
    assert z[cohort.obs["lineage"] == "B"].notna().mean() > 0.9


def test_missing_is_not_zero(pbmc: ad.AnnData) -> None:
    sets = {"absent": ["CD3D", "NOSUCHGENE1", "NOSUCHGENE2", "NOSUCHGENE3"], "b": SETS["b"]}
    with pytest.warns(SenoscoreWarning, match="1 of 4 genes measured"):
        out = sn.tl.score(pbmc, sets, groupby=None, copy=True)
    assert out.obsm["senoscore_z"]["absent"].isna().all()
    assert out.uns["senoscore"]["signatures"].loc["absent", "status"] == "not scored"
    assert out.obsm["senoscore_z"]["b"].notna().any()


def test_mistakes_meet_a_sentence(pbmc: ad.AnnData) -> None:
    with pytest.raises(SignatureError, match="t_exhaustion"):
        sn.tl.score(pbmc, "t_exhaustoin", groupby=None)
    with pytest.raises(InputDataError, match="no column 'lineage'"):
        sn.tl.score(pbmc, SETS)
    with pytest.raises(InputDataError, match="no layer 'counts'"):
        sn.tl.score(pbmc, SETS, groupby=None, layer="counts")
    with pytest.raises(SignatureError, match="method 'ulm'"):
        sn.tl.score(pbmc, SETS, groupby=None, method="ulm")
    with pytest.raises(InputDataError, match=r"run senoscore\.tl\.score"):
        sn.tl.call(pbmc)
    scaled = pbmc.copy()
    scaled.X = scaled.X.toarray() - 1.0
    with pytest.raises(InputDataError, match="rank"):
        sn.tl.score(scaled, SETS, groupby=None)


def test_genes_that_the_authors_filtered_are_not_measured() -> None:
    """They are zero in X, and in raw as they were (CELLxGENE): missing is not zero."""
    cohort = simulate(n_cells=400, n_genes=4000, seed=6)
    gone = ["CD27", "CD28", "KLRG1", "B3GAT1", "TYROBP"]
    lost = cohort.var_names.isin(gone)
    absent = cohort[:, ~lost].copy()
    kept = cohort.copy()
    kept.raw = cohort
    for adata in (cohort, kept):
        adata.X = sparse.csr_matrix(adata.X.multiply(~lost))
        adata.var["feature_is_filtered"] = lost
    told, without, whole = (sn.analyse(a) for a in (cohort, absent, kept))
    assert set(gone) <= set(told.var.loc["t_arm_phenotype", "genes_missing"].split())
    assert told.var.loc["t_arm_phenotype", "coverage"] < 0.5
    pd.testing.assert_frame_equal(told.var, without.var)
    np.testing.assert_array_equal(told.X, without.X)
    assert whole.var.loc["t_arm_phenotype", "genes_missing"] == ""


def test_no_group_at_all_and_negative_counts_are_one_sentence(pbmc: ad.AnnData) -> None:
    nowhere = pbmc.copy()
    nowhere.obs["lineage"] = pd.Categorical([None] * nowhere.n_obs, categories=["T", "B"])
    with pytest.raises(InputDataError, match=r"obs\['lineage'\] names no group"):
        sn.tl.score(nowhere)
    negative = pbmc.copy()
    negative.X = -negative.X
    negative.var_names = ["CD27", *negative.var_names[1:]]  # two columns of one gene are summed
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sn.analyse(negative)
    (told,) = [w for w in caught if "names are not unique" not in str(w.message)]
    assert "holds scaled values" in str(told.message)


def test_bulk_fibroblasts_are_ordered_by_core_senescence(data: Path) -> None:
    from scipy.stats import rankdata

    bulk = ad.read_h5ad(data / "marthandan2016_fibroblast_bulk.h5ad")
    sn.tl.score(bulk, groupby=None)
    z = bulk.obsm["senoscore_z"]["core_senescence"].to_numpy()
    old = (bulk.obs["Condition"] == "Senescent").to_numpy()
    rank = rankdata(z)
    auroc = (rank[old].sum() - old.sum() * (old.sum() + 1) / 2) / old.sum() / (~old).sum()
    assert auroc >= 0.95


def test_cells_without_labels_and_without_markers_are_refused() -> None:
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.5, (60, 300)).astype(np.float32))
    nobody = ad.AnnData(counts)
    with pytest.raises(InputDataError, match="no cell could be given a lineage"):
        sn.analyse(nobody)


def test_a_lineage_without_a_null_is_named() -> None:
    """Nine cells make no null: NaN there, and the table of signatures says which and why."""
    adata = simulate(900, n_genes=4000, seed=3)
    adata.obs["lineage"] = adata.obs["true_lineage"].astype(str)
    few = np.flatnonzero(adata.obs["lineage"] == "NK")[9:]
    kept = adata[np.setdiff1d(np.arange(adata.n_obs), few)].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sn.tl.score(kept, ["core_senescence", "nk_senescence"])
    table = kept.uns["senoscore"]["signatures"]
    assert "NK: 9 cells, a null needs 10" in table.loc["core_senescence", "not_scored_in"]
    assert table.loc["core_senescence", "status"] == "scored"
    assert table.loc["nk_senescence", "status"] == "not scored"
    nk = (kept.obs["lineage"] == "NK").to_numpy()
    assert kept.obsm["senoscore_z"][nk].isna().all(axis=None)
    assert kept.obsm["senoscore_pvalue"][~nk]["core_senescence"].notna().mean() > 0.9


# -------------------------------------------------------------------------------------------------
# whose null sets are counted


def test_the_cells_of_the_null_are_chosen_by_name_and_only_where_there_are_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 2000
    monkeypatch.setattr(scoring, "NULL_CELLS", most)
    rng = np.random.default_rng(0)
    names = pd.Index([f"cell {k}" for k in range(12_000)])
    codes, strata = rng.integers(-1, 2, 12_000), rng.integers(-1, 2, 12_000)
    small = (codes == 0) & (strata == 1) & (np.arange(12_000) > 1000)
    codes[small] = 1
    found = null_strata(names, codes, strata)
    assert ((found == strata) | (found == -1)).all()
    assert (found[codes < 0] == -1).all()
    for code in (0, 1):
        for stratum in (0, 1):
            here = (codes == code) & (strata == stratum)
            assert (found[here] >= 0).sum() == min(here.sum(), most)
    assert ((codes == 1) & (strata == 1)).sum() > most
    assert 0 < ((codes == 0) & (strata == 1)).sum() < most
    order = rng.permutation(12_000)
    np.testing.assert_array_equal(
        null_strata(names[order], codes[order], strata[order]), found[order]
    )


def test_fewer_cells_in_the_null_leave_the_false_positive_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sets of random genes, of which no cell carries a programme: p is uniform with either null."""
    adata = simulate(3000, 3000, seed=4, depth_median=3000)
    adata = adata[adata.obs["true_t_state"] == "neither"].copy()
    rng = np.random.default_rng(1)
    means = np.asarray(adata.X.mean(0)).ravel()
    middle = np.flatnonzero((means > np.quantile(means, 0.6)) & (means < np.quantile(means, 0.95)))
    sets = {
        f"random {k}": adata.var_names[rng.choice(middle, 15, replace=False)].tolist()
        for k in range(60)
    }
    p = {}
    for cells in (10**9, 40):
        monkeypatch.setattr(scoring, "NULL_CELLS", cells)
        found = sn.tl.score(adata, sets, groupby=None, copy=True)
        p[cells] = found.obsm["senoscore_pvalue"].to_numpy()
    assert adata.n_obs > 1000  # 100 a stratum
    for level, error in ((0.05, 0.15), (0.01, 0.15), (0.001, 0.3)):
        whole, part = ((values <= level).mean() for values in p.values())
        assert abs(part / whole - 1) < error, (level, whole, part)
        assert part < 2 * level
    # one and the same order of cells, but for the median of the null and the ties of its tail
    for k in range(60):
        assert pd.Series(p[40][:, k]).corr(pd.Series(p[10**9][:, k]), method="spearman") > 0.995


def test_text_columns_keep_what_differs_and_what_is_missing() -> None:
    """True and 1 are equal to Python, and are two texts."""
    values = pd.Series(["b", None, True, 1, np.nan, "a", 2.5, "b"], dtype=object)
    found = pipeline._as_text(values)
    assert [v if isinstance(v, str) else None for v in found] == [
        "b", None, "True", "1", None, "a", "2.5", "b",
    ]  # fmt: skip
    assert list(found.categories) == ["1", "2.5", "True", "a", "b"]
    assert list(pipeline._as_text(pd.Series([None, np.nan], dtype=object)).codes) == [-1, -1]


def test_step_by_step_and_in_one_go_give_the_same_where_cells_fail_quality_control() -> None:
    """In a notebook, cells that failed were part of the null, and had p-values; in a run they were not."""
    cohort = simulate(1200, n_genes=6000, seed=4)
    whole = sn.analyse(cohort)
    assert 0 < (~whole.obs["qc_pass"]).sum() < 200
    sn.pp.qc(cohort)
    sn.pp.lineages(cohort)
    sn.tl.score(cohort)
    for name, key in (("z", None), ("pvalue", "pvalue"), ("padj", "padj")):
        np.testing.assert_array_equal(sn.get.scores_df(cohort, name), whole.to_df(layer=key))
    sn.tl.call(cohort)
    assert (cohort.obs["t_state_rule"].astype(str) == whole.obs["t_state_rule"].astype(str)).all()


def test_what_was_called_with_is_told_and_used_again(tmp_path: Path) -> None:
    cohort = simulate(1200, n_genes=6000, seed=4)
    sn.pp.lineages(cohort)
    sn.tl.score(cohort, ["verdict"])
    strict = CallSettings(fdr=0.02, support_fdr=0.02)
    sn.tl.call(cohort, settings=strict)
    told = cohort.uns[keys.UNS]
    assert told["rule"] == calling.rule_text(strict)
    exhaustion = "t_axis_exhaustion"
    called = cohort.obsm[keys.OBSM_PADJ][exhaustion] <= 0.02
    assert 0 < called.sum() < (cohort.obsm[keys.OBSM_PADJ][exhaustion] <= 0.05).sum()
    (ax,) = sn.pl.scores(cohort, exhaustion)
    assert any(f"({called.sum():,} of" in text.get_text() for text in ax.texts)
    # explained by the same thresholds, through a file
    cohort.write_h5ad(tmp_path / "called.h5ad")
    again = ad.read_h5ad(tmp_path / "called.h5ad")
    found = sn.tl.explain(again, state="exhausted", max_cells=3)
    assert len(found.scores)
    with pytest.raises(InputDataError, match="comes from other settings"):
        sn.tl.explain(again, state="exhausted", settings=CallSettings(), max_cells=3)


def test_cells_that_stay_in_their_file_are_written_to_in_memory_and_not_copied(
    tmp_path: Path,
) -> None:
    simulate(300, n_genes=6000, seed=4).write_h5ad(tmp_path / "cohort.h5ad")
    backed = ad.read_h5ad(tmp_path / "cohort.h5ad", backed="r")
    for function in (sn.pp.qc, sn.pp.lineages, sn.tl.score):
        with pytest.raises(InputDataError, match=r"copy=True needs .*cohort\.h5ad.*to_memory"):
            function(backed, copy=True)
    sn.pp.lineages(backed)
    sn.tl.score(backed, ["t_axis_exhaustion"])
    assert backed.isbacked
    assert keys.OBSM_Z in backed.obsm
