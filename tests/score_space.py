"""A scored data set made by hand: every state, every lineage, and labels that try to break out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from senoscore import keys
from senoscore.calling import AXIS_SIGNATURES
from senoscore.settings import default_settings
from senoscore.streaming import Panel

EXHAUSTION = AXIS_SIGNATURES["exhaustion"][0]

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'quoted'",
    "$x_{1}$ $\\bad{$",
    "日本語 Ünïcode 🧬",
    "_starts_with_underscore",
    "a very long label " * 12,
    "two\nlines\tand a tab",
    "{{ 7 * 7 }} {% raw %}",
)

SIGNATURES: tuple[tuple[str, str, str], ...] = (
    ("t_discriminating_senescence_only", "axis", "T"),
    (EXHAUSTION, "axis", "T"),
    ("conf_temra_effector", "axis", "T"),
    ("conf_proliferation_s", "axis", " ".join(keys.LINEAGES)),
    ("conf_proliferation_g2m", "axis", " ".join(keys.LINEAGES)),
    ("conf_interferon", "axis", " ".join(keys.LINEAGES)),
    ("conf_dissociation", "axis", " ".join(keys.LINEAGES)),
    ("t_arm_phenotype", "arm", "T"),
    ("t_arm_arrest", "arm", "T"),
    ("t_arm_tcr_loss", "arm", "T"),
    ("t_arm_sasp", "arm", "T"),
    ("b_senescence", "lineage", "B"),
    ("nk_senescence", "lineage", "NK"),
    ("macrophage_senescence", "lineage", "mono_mac"),
    ("neutrophil_senescence", "lineage", "neutrophil"),
    ("dc_senescence", "lineage", "DC"),
    ("other_senescence", "lineage", "other"),
    ("core_senescence", "programme", " ".join(keys.LINEAGES)),
    ("t_exhaustion_progenitor", "programme", "T"),
    ("t_exhaustion_terminal", "programme", "T"),
)
# signature that no file can measure, in the fixture
UNSCORED = "neutrophil_senescence"
MARKERS = (
    "PDCD1", "LAG3", "ENTPD1", "TOX", "CXCL13", "LAYN", "HAVCR2", "TIGIT", "CTLA4", "TCF7",
    "KLRG1", "B3GAT1", "FCGR3A", "CD27", "CD28", "CDKN2A", "CDKN1A", "LAT", "LCP2", "DLG1",
    "IL6", "CXCL8", "GZMB", "PRF1",
)  # fmt: skip


def facts(**values: Any) -> dict[str, Any]:
    """Facts as JSON, everything unknown except what is given."""
    names = (
        "counts", "expression", "scale", "x_scale", "gene_names", "gene_kind", "organism",
        "cell_type", "cell_type_fine", "cell_type_ontology", "cluster", "donor", "sample",
        "condition", "age", "is_primary_data", "suspension_type", "embeddings", "protein",
        "storage", "nnz", "file_bytes",
    )  # fmt: skip
    made: dict[str, Any] = {n: {"value": values.get(n), "how": "by hand"} for n in names}
    return made | {
        "path": values.get("path", "made.h5ad"),
        "n_obs": values.get("n_obs", 0),
        "n_vars": values.get("n_vars", 2000),
        "notes": list(values.get("notes", [])),
    }


def make(
    n: int = 700,
    *,
    seed: int = 0,
    donors: Sequence[str] = ("D1", "D2", "D3", "D4"),
    lineages: Sequence[str] = keys.LINEAGES,
    embedding: bool = True,
) -> ad.AnnData:
    """Cells in score space with planted states; about half are T cells."""
    rng = np.random.default_rng(seed)
    share = np.array([6.0 if name == "T" else 1.0 for name in lineages])
    lineage = rng.choice(np.asarray(lineages, object), n, p=share / share.sum())
    is_t = lineage == "T"
    state = np.full(n, None, object)
    state[is_t] = rng.choice(
        np.asarray(keys.T_STATES, object), int(is_t.sum()),
        p=[0.1, 0.06, 0.02, 0.1, 0.05, 0.5, 0.17],
    )  # fmt: skip
    qc_pass = rng.random(n) > 0.06
    state[is_t & ~qc_pass] = "indeterminate"
    names = [name for name, _, _ in SIGNATURES]
    z = rng.normal(0, 1, (n, len(names)))
    up = {name: names.index(name) for name in names}
    both = state == "both"
    z[(state == "exhausted") | both, up[EXHAUSTION]] += 5
    like = np.isin(state, ["senescent", "senescent_like", "both"])
    z[like, up["t_discriminating_senescence_only"]] += 4.5
    z[like, up["t_arm_phenotype"]] += 5
    z[(state == "senescent") | both, up["t_arm_arrest"]] += 5
    z[state == "cycling", up["conf_proliferation_s"]] += 6
    for j, (name, _, valid) in enumerate(SIGNATURES):
        z[~np.isin(lineage, valid.split()), j] = np.nan
        if name == UNSCORED:
            z[:, j] = np.nan
    from scipy.stats import norm

    pvalue = norm.sf(z)
    padj = np.minimum(1.0, pvalue * 30)
    call = np.where(rng.random(n) < 0.05, "senescent", "not_senescent").astype(object)
    call[is_t] = "not_senescent"
    call[np.isin(state, ["senescent", "both"])] = "senescent"
    call[(state == "indeterminate") | ~qc_pass] = "indeterminate"
    total = np.round(rng.lognormal(8.3, 0.5, n))
    rule = np.asarray([f"rule for {s}" if s else "" for s in state], object)
    substate = np.full(n, "", object)
    tired = np.isin(state, ["exhausted", "both"])
    substate[tired] = rng.choice(["progenitor", "terminal"], int(tired.sum()))
    old = state == "senescent"
    substate[old] = rng.choice(["sasp_high", "nk_like"], int(old.sum()))
    donor = rng.choice(np.asarray(donors, object), n)
    t_subset = np.where(is_t, rng.choice(["CD4", "CD8", "Treg"], n), None)
    obs = pd.DataFrame(
        {
            "donor_id": pd.Categorical(donor, categories=list(donors)),
            "condition": pd.Categorical(
                np.where(np.isin(donor, donors[: len(donors) // 2]), "young", "old")
            ),
            "total_counts": total,
            "n_genes_by_counts": np.round(total**0.8),
            "pct_counts_mt": rng.gamma(3, 1.2, n) + 12 * ~qc_pass,
            keys.OBS_QC_PASS: qc_pass,
            keys.OBS_QC_REASON: np.where(qc_pass, "", "high mitochondrial share"),
            keys.OBS_LINEAGE: pd.Categorical(lineage, categories=list(keys.LINEAGES)),
            keys.OBS_LINEAGE_SUBSET: pd.Categorical(np.where(is_t, t_subset, lineage)),
            keys.OBS_LINEAGE_SOURCE: pd.Categorical(np.full(n, "label")),
            keys.OBS_T_SUBSET: pd.Categorical(t_subset),
            keys.OBS_T_STATE: pd.Categorical(state, categories=list(keys.T_STATES)),
            keys.OBS_T_STATE_RULE: pd.Categorical(rule),
            "t_substate": pd.Categorical(substate),
            keys.OBS_SENESCENCE_CALL: pd.Categorical(call, categories=list(keys.SENESCENCE_CALLS)),
            "senescence_rule": pd.Categorical(np.full(n, "a rule")),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    axes = pd.DataFrame(
        {
            "senescence": z[:, up["t_discriminating_senescence_only"]],
            "exhaustion": z[:, up[EXHAUSTION]],
            "cytotoxic": z[:, up["conf_temra_effector"]],
            "proliferation": z[:, up["conf_proliferation_s"]],
            "interferon": z[:, up["conf_interferon"]],
            "stress": z[:, up["conf_dissociation"]],
        },
        index=obs.index,
    )
    axes[~is_t] = np.nan
    for axis in keys.AXES:
        obs[f"T_{axis}"] = axes[axis]
    s = ad.AnnData(z.astype(np.float32), obs=obs, var=signature_table())
    s.layers["score"] = z.astype(np.float32)
    s.layers["pvalue"] = pvalue.astype(np.float32)
    s.layers["padj"] = padj.astype(np.float32)
    s.obsm[keys.OBSM_T_AXES] = axes
    if embedding:
        s.obsm["X_umap"] = rng.normal(0, 1, (n, 2)) + 4 * np.c_[is_t, ~is_t]
    s.uns[keys.UNS] = {
        "version": "0.1.0",
        "input_sha256": "0" * 64,
        "settings": json.dumps(default_settings()),
        "facts": json.dumps(
            facts(
                n_obs=n,
                organism="human",
                donor="donor_id",
                condition="condition",
                counts="X",
                expression="X",
                scale="counts",
                x_scale="counts",
                gene_names="index",
                gene_kind="symbols",
                embeddings=["X_umap"] if embedding else [],
                storage="csr",
                nnz=12345,
                file_bytes=54321,
                notes=["no age column: ages are not compared"],
            )  # fmt: skip
        ),
        "qc_limits": pd.DataFrame(
            [(d, m, 500.0, 40000.0, 10, 1) for d in donors for m in ("counts", "genes")]
            + [(d, "mitochondrial share", -np.inf, 10.0, 10, 1) for d in donors],
            columns=["sample", "metric", "low", "high", "n_cells", "n_failed"],
        ),
    }
    return s


def signature_table() -> pd.DataFrame:
    """`var` of the score space."""
    rows = []
    for name, role, valid in SIGNATURES:
        bad = name == UNSCORED
        rows.append(
            {
                "title": name.replace("_", " "),
                "role": role,
                "lineages": valid,
                "n_genes": 10,
                "n_found": 2 if bad else 9,
                "coverage": 0.2 if bad else 0.9,
                "genes_used": "PDCD1 TOX",
                "genes_missing": "CD27",
                "status": "not scored" if bad else "scored",
                "reason": "2 of 10 genes measured, 3 needed" if bad else "",
                "warning": f"Warning of {name}.",
            }
        )
    return pd.DataFrame(rows, index=pd.Index([n for n, _, _ in SIGNATURES], name="signature"))


def panel(s: ad.AnnData, *, seed: int = 0) -> tuple[sparse.csr_matrix, list[str], Any]:
    """Counts of some marker genes for the same cells."""
    rng = np.random.default_rng(seed)
    state = s.obs[keys.OBS_T_STATE].astype(object).to_numpy()
    rate = np.full((s.n_obs, len(MARKERS)), 0.15)
    tired, old = np.isin(state, ["exhausted", "both"]), np.isin(state, ["senescent", "both"])
    rate[np.ix_(tired, range(9))] = 1.5
    rate[np.ix_(old, range(10, 18))] = 1.2
    counts = rng.poisson(rate)
    return (
        sparse.csr_matrix(counts.astype(np.float32)),
        list(MARKERS),
        s.obs["total_counts"].to_numpy(np.float64),
    )


def calibration_table() -> pd.DataFrame:
    """As `senoscore.calibration` writes it."""
    rows = [
        {
            "lineage": lineage,
            "depth_stratum": k,
            "depth_median": 1000.0 * 1.5**k,
            "n_cells": 100,
            "n_sets": 100,
            "fpr_0.5": 0.51,
            "se_0.5": 0.01,
            "fpr_0.05": 0.05 + 0.001 * k,
            "se_0.05": 0.004,
            "fpr_0.01": 0.011,
            "se_0.01": 0.002,
            "fpr_0.001": 0.0012,
            "se_0.001": 0.0005,
            "spearman_z_depth": 0.03,
            "se_spearman_z_depth": 0.01,
        }
        for lineage in ("T", "B", "mono_mac")
        for k in range(6)
    ]
    return pd.DataFrame(rows)


def donor_table(s: ad.AnnData, *, min_cells: int = 10) -> pd.DataFrame:
    """As the burden stage writes it."""
    from senoscore.donors import burden_table, donor_names

    return burden_table(
        s.obs, s.to_df(), s.to_df(keys.LAYER_PVALUE),
        donor=donor_names(s.obs.get("donor_id"), s.n_obs), min_cells=min_cells, confidence=0.95,
    )  # fmt: skip


def write_artefacts(s: ad.AnnData, directory: Path, *, donors: bool = True) -> Path:
    """The folder of a data set as the stages before the report leave it."""
    from senoscore.donors import ALL_DONORS, burden_table
    from senoscore.io.artefacts import write_h5ad, write_json, write_npz, write_tsv

    limits = s.uns[keys.UNS].get("qc_limits")
    kept = s.copy()
    kept.uns[keys.UNS].pop("qc_limits", None)
    write_h5ad(kept, directory / "senoscore.h5ad")
    write_json(json.loads(s.uns[keys.UNS]["facts"]), directory / "stages" / "facts.json")
    if limits is not None:
        write_tsv(limits, directory / "stages" / "qc_limits.tsv")
    counts, symbols, totals = panel(s)
    write_npz(
        {
            "metrics": np.c_[totals, np.zeros((s.n_obs, 5))],
            "panel_genes": np.asarray(symbols),
            **Panel.of(counts).to_arrays("panel"),
        },
        directory / "stages" / "qc.npz",
    )
    table = donor_table(s) if donors else None
    if table is not None:
        write_tsv(table, directory / "donors.tsv")
    everyone = burden_table(
        s.obs, s.to_df(), s.to_df(keys.LAYER_PVALUE),
        donor=np.full(s.n_obs, ALL_DONORS, dtype=object), min_cells=10, confidence=0.95,
    )  # fmt: skip
    write_tsv(everyone.drop(columns="donor", errors="ignore"), directory / "lineages.tsv")
    for state in ("exhausted", "senescent"):
        rows = s.obs[s.obs[keys.OBS_T_STATE].isin([state, "both"])]
        write_tsv(rows.rename_axis("cell").reset_index(), directory / f"t_cells_{state}.tsv")
    write_tsv(s.var.rename_axis("signature").reset_index(), directory / "coverage.tsv")
    write_tsv(calibration_table(), directory / "calibration.tsv")
    return directory
