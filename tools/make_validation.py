#!/usr/bin/env python
"""Write ``docs/validation.md``: what was measured on real cells and on planted truth.

Needs the real data in ``$SENOSCORE_SHARED`` (default ``../shared``). Nothing is fitted to them: gene
lists and weights are the registry's.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import rankdata

import senoscore as sn
from senoscore import __version__, calling
from senoscore.simulate import simulate

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SENOSCORE_SHARED", ROOT.parent / "shared")) / "data"
EXHAUSTION = calling.AXIS_SIGNATURES["exhaustion"][0]
SENESCENCE = calling.AXIS_SIGNATURES["senescence"][0]


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    ranks = rankdata(np.r_[positive, negative])
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / n / len(negative))


def table(frame: pd.DataFrame, digits: int = 3) -> str:
    text = frame.map(lambda v: f"{v:.{digits}f}" if isinstance(v, float) else str(v))
    lines = ["| " + " | ".join(map(str, text.columns)) + " |", "|" + "---|" * text.shape[1]]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in text.to_numpy())])


def melanoma() -> str:
    file = DATA / "sadefeldman_melanoma_cd8_dev.h5ad"
    s = sn.analyse(file)
    label = s.obs["cellTypes"].astype(str).to_numpy()
    exhausted = np.char.startswith(label.astype(str), "Exhausted")
    rest = np.isin(label, ["Memory T-cells", "Lymphocytes"])
    cytotoxic = label == "Cytotoxicity"
    rows = [("matched (ours)", EXHAUSTION, s.to_df()[EXHAUSTION].to_numpy())]
    raw = ad.read_h5ad(file)
    for method in ("ucell", "aucell", "score_genes", "mean"):
        sn.tl.score(raw, [EXHAUSTION], groupby=None, method=method)
        rows.append((method, EXHAUSTION, raw.obsm["senoscore_score"][EXHAUSTION].to_numpy()))
    rows.append(("matched (ours)", SENESCENCE, s.to_df()[SENESCENCE].to_numpy()))
    found = pd.DataFrame(
        [
            (method, name, auroc(v[exhausted], v[rest]), auroc(v[exhausted], v[cytotoxic]))
            for method, name, v in rows
        ],
        columns=["method", "genes", "v Memory + Lymphocytes", "v Cytotoxicity"],
    )
    called = s.obs["t_state"].isin(["exhausted", "both"]).to_numpy()
    return (
        "## Exhausted T cells of melanoma (Sade-Feldman 2018, ten patients)\n\n"
        "AUROC for the cells the authors call exhausted; every method with the same genes.\n\n"
        f"{table(found)}\n\n"
        f"Called `exhausted` at FDR .05: {called.sum()} of {s.n_obs} cells; "
        f"{exhausted[called].mean():.1%} of them are exhausted by the authors' label, and "
        f"{called[exhausted].mean():.1%} of the authors' exhausted cells are called.\n"
    )


def calibration() -> str:
    rows = []
    files = ["pbmc3k_labelled", "kang_ifnb2000", "zilionis_nsclc300", "kang2018_lupus_pbmc8684"]
    sources = [(f, DATA / f"{f}.h5ad") for f in files] + [("planted cohort", simulate(6000))]
    for name, source in sources:
        found = sn.analyse(source).uns["senoscore"]["calibration"]
        large = found[found["n_cells"] >= 50]
        rows.append(
            (
                name, len(large), large["fpr_0.05"].mean(), large["fpr_0.05"].min(),
                large["fpr_0.05"].max(), large["fpr_0.01"].mean(), large["fpr_0.01"].min(),
                large["fpr_0.01"].max(), large["spearman_z_depth"].abs().max(),
            )
        )  # fmt: skip
    columns = [
        "data", "lineage x depth strata (>= 50 sampled cells)", "FPR at .05", "lowest", "highest",
        "FPR at .01", "lowest ", "highest ", "largest abs. Spearman(z, depth)",
    ]  # fmt: skip
    return (
        "## Calibration\n\nShare of p-values at or below the level, over 100 held-back random gene "
        f"sets per lineage.\n\n{table(pd.DataFrame(rows, columns=columns), 4)}\n"
    )


def controls() -> str:
    rows = []
    for name, key in (("kang_ifnb2000", "stim"), ("mast_mait96", "condition")):
        obs = sn.analyse(DATA / f"{name}.h5ad").obs
        for value, part in obs.groupby(key, observed=True):
            share = (part["senescence_call"] == "senescent").mean()
            rows.append((name, f"{key} = {value}", len(part), float(share)))
    pbmc = sn.analyse(DATA / "pbmc3k_labelled.h5ad").obs
    t_cells = pbmc[pbmc["lineage"] == "T"]
    for state in ("senescent", "exhausted"):
        share = float((t_cells["t_state"] == state).mean())
        rows.append(("pbmc3k_labelled", f"T cells {state}", len(t_cells), share))
    frame = pd.DataFrame(rows, columns=["data", "cells", "n", "share called"])
    return f"## Negative controls\n\n{table(frame, 4)}\n"


def planted() -> str:
    parts = []
    for seed in (1, 2, 3):
        obs = sn.analyse(simulate(6000, seed=seed)).obs
        parts.append(obs[obs["lineage"] == "T"].assign(seed=seed))
    cells = pd.concat(parts)
    truth, state = cells["true_t_state"].astype(str), cells["t_state"].astype(str)
    confusion = pd.crosstab(truth, state)
    recall = (truth == state).groupby(truth).mean()
    depth = pd.cut(cells["total_counts"], [0, 2000, 4000, 8000, np.inf]).astype(str)
    by_depth = [
        (limit, wanted, int(here.sum()), float((state[here] == wanted).mean()))
        for limit in ["(0.0, 2000.0]", "(2000.0, 4000.0]", "(4000.0, 8000.0]", "(8000.0, inf]"]
        for wanted in ("exhausted", "senescent", "both")
        if (here := (depth == limit) & (truth == wanted)).any()
    ]
    sub = cells["true_t_substate"].astype(str)
    lines = [
        f"FDR of `{name}`: {1 - truth[state == name].isin(right).mean():.3f} "
        f"({int((state == name).sum())} cells called)."
        for name, right in (
            ("exhausted", ["exhausted", "both"]),
            ("senescent", ["senescent", "both"]),
        )
    ]
    never = sub.isin(["naive", "cycling", "cycling_exhausted"])
    wrong = int(state[never].isin(["senescent", "both"]).sum())
    return (
        "## Planted cohort (three of 6,000 cells)\n\n"
        f"Balanced accuracy over the T states: {recall.mean():.3f}. {' '.join(lines)} Naive or "
        f"cycling cells called senescent: {wrong} of {int(never.sum())}.\n\n"
        f"{table(confusion.reset_index())}\n\nRecall by depth (total counts):\n\n"
        + table(pd.DataFrame(by_depth, columns=["counts", "planted", "cells", "recall"]))
        + "\n"
    )


def depth() -> str:
    rows = []
    for name in ("pbmc3k_labelled", "zilionis_nsclc300"):
        with tempfile.TemporaryDirectory() as folder:
            sn.analyse(DATA / f"{name}.h5ad", out=folder)
            found = pd.read_csv(Path(folder) / "certificate.tsv", sep="\t")
        found = found[(found["state"] == "all calls") & (found["n_cells"] > 0)]
        found.insert(0, "data", name)
        rows.append(found[["data", "depth", "lineage", "call", "n_cells", "frac_kept",
                           "frac_indeterminate", "frac_flipped"]])  # fmt: skip
    return f"## Calls at lower depth\n\n{table(pd.concat(rows).fillna(''))}\n"


def bulk() -> str:
    data = ad.read_h5ad(DATA / "marthandan2016_fibroblast_bulk.h5ad")
    sn.tl.score(data, groupby=None)
    z = data.obsm["senoscore_z"]["core_senescence"].to_numpy()
    old = (data.obs["Condition"] == "Senescent").to_numpy()
    return (
        "## Fibroblasts in bulk (Marthandan 2016)\n\n`core_senescence`, senescent against "
        f"proliferating: AUROC {auroc(z[old], z[~old]):.3f} ({old.sum()} v {(~old).sum()}).\n"
    )


def main() -> None:
    warnings.simplefilter("ignore")
    head = (
        "# Validation\n\nMade by `tools/make_validation.py` with senoscore "
        f"{__version__}; nothing was fitted to these cells.\n"
    )
    parts = [head, *(part() for part in (melanoma, calibration, controls, planted, depth, bulk))]
    (ROOT / "docs/validation.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
