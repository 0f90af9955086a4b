"""Quality control: metrics against scanpy's, limits by hand, reasons, doublets of two lineages."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import senoscore as sn
from senoscore import qc
from senoscore.settings import QcSettings
from senoscore.simulate import simulate

pytestmark = pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")


def metrics(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    counts = np.rint(rng.lognormal(8, 0.3, n))
    return pd.DataFrame(
        {
            "total_counts": counts,
            "n_genes_by_counts": np.rint(counts * 0.4),
            "pct_counts_in_top_50_genes": rng.normal(30, 3, n),
            "pct_counts_mt": rng.gamma(4, 1, n),
            "pct_counts_ribo": 20.0,
            "pct_counts_hb": 0.0,
        },
        index=[f"c{i}" for i in range(n)],
    )


def judge(frame: pd.DataFrame, **options: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    defaults: dict[str, object] = {
        "sample": None, "lineage": None, "has_counts": True, "settings": QcSettings(),
    }  # fmt: skip
    return qc.judge(frame, **(defaults | options))  # type: ignore[arg-type]


def test_metrics_equal_scanpys(data: Path) -> None:
    import scanpy as sc

    adata = ad.read_h5ad(data / "pbmc3k_labelled.h5ad")[:400].copy()
    sn.pp.qc(adata)
    theirs = adata.copy()
    theirs.X = sparse.csr_matrix(theirs.X)
    theirs.var["mt"] = theirs.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(theirs, qc_vars=["mt"], percent_top=[50], inplace=True)
    np.testing.assert_allclose(adata.obs["total_counts"], theirs.obs["total_counts"])
    np.testing.assert_allclose(adata.obs["pct_counts_mt"], theirs.obs["pct_counts_mt"], rtol=1e-5)
    # columns that stand for one gene are one gene here: seven of 13,714
    genes = adata.obs["n_genes_by_counts"] - theirs.obs["n_genes_by_counts"]
    assert genes.between(-7, 0).all()
    np.testing.assert_allclose(
        adata.obs["pct_counts_in_top_50_genes"], theirs.obs["pct_counts_in_top_50_genes"], rtol=1e-4
    )


def test_limits_are_median_and_scaled_mads_of_the_log_within_each_sample() -> None:
    frame = metrics()
    sample = pd.Series(["a", "b"] * 100, index=frame.index)
    frame.loc[sample == "b", ["total_counts", "n_genes_by_counts"]] *= 20
    verdict, limits = judge(frame, sample=sample)
    assert verdict["qc_pass"].mean() > 0.95  # a deep sample is not an outlier of a shallow one
    for name in ("a", "b"):
        values = np.log1p(frame.loc[sample == name, "total_counts"])
        spread = 1.4826 * np.median(np.abs(values - np.median(values)))
        row = limits[(limits["sample"] == name) & (limits["metric"] == "counts")].iloc[0]
        assert row["low"] == pytest.approx(np.expm1(np.median(values) - 5 * spread))
        assert row["high"] == pytest.approx(np.expm1(np.median(values) + 5 * spread))


def test_every_reason_is_given() -> None:
    frame = metrics()
    frame.loc["c0", "total_counts"] = 1e6
    frame.loc["c1", "pct_counts_mt"] = 60
    frame.loc["c1", "total_counts"] = 1e6
    frame.loc["c2", ["total_counts", "n_genes_by_counts"]] = 0
    verdict, _ = judge(frame)
    assert verdict.loc["c0", "qc_reason"] == "high counts"
    assert verdict.loc["c1", "qc_reason"] == "high counts; high mitochondrial share"
    assert "no counts" in verdict.loc["c2", "qc_reason"]
    assert verdict.loc["c3", "qc_reason"] == ""
    assert (verdict["qc_pass"] == (verdict["qc_reason"] == "")).all()


def test_neutrophils_are_poor_in_rna_and_stay() -> None:
    frame = metrics()
    poor = [f"c{i}" for i in range(10)]
    frame.loc[poor, "n_genes_by_counts"] = 70
    frame.loc[poor, "total_counts"] = 150
    lineage = np.full(len(frame), "T", dtype=object)
    assert not judge(frame, lineage=lineage)[0].loc[poor, "qc_pass"].any()
    lineage[:10] = "neutrophil"
    assert judge(frame, lineage=lineage)[0].loc[poor, "qc_pass"].all()


def test_fixed_limits_replace_those_by_mad() -> None:
    frame = metrics()
    verdict, _ = judge(frame, settings=QcSettings(max_pct_mt=3.0, min_counts=2000, min_genes=0))
    expected = (frame["pct_counts_mt"] > 3.0) | (frame["total_counts"] < 2000)
    strict = verdict["qc_reason"].str.contains("mitochondrial|few counts")
    np.testing.assert_array_equal(strict, expected)


def test_without_counts_only_genes_are_judged() -> None:
    frame = metrics()
    frame["pct_counts_mt"] = np.nan
    frame.loc["c0", "n_genes_by_counts"] = 5
    verdict, limits = judge(frame, has_counts=False)
    assert verdict["qc_reason"].tolist() == ["few genes"] + [""] * (len(frame) - 1)
    assert not len(limits)


def test_mixed_lineage_finds_planted_doublets_and_little_else() -> None:
    cohort = simulate(n_cells=3000, n_genes=6000, seed=4, doublet_fraction=0.15)
    s = sn.analyse(cohort).obs
    flagged = s["doublet_mixed_lineage"].to_numpy(bool)
    planted = s["true_doublet"].to_numpy(bool)
    assert flagged.sum() >= 15
    assert planted[flagged].mean() > 0.8
    assert (s.loc[flagged, "doublet_pair"].astype(str).str.contains(r"\+")).all()
