"""Donors, not cells, are the replicates: tables of what each donor carries, lineage by lineage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from senoscore import keys

ALL_DONORS = "all cells"
# values of a donor column that name nobody
NOBODY = ("", "nan", "none", "na", "n/a", "unknown", "pooled", "unassigned")

# lineage -> the signature whose z stands for senescence there
SENESCENCE_OF = {
    "T": "t_discriminating_senescence_only",
    "B": "b_senescence",
    "NK": "nk_senescence",
    "mono_mac": "macrophage_senescence",
    "neutrophil": "neutrophil_senescence",
    "DC": "dc_senescence",
    "other": "other_senescence",
}


def donor_names(values: pd.Series | None, n: int) -> NDArray[np.object_]:
    """Donor of each cell as text; empty where the file names none."""
    if values is None:
        return np.full(n, ALL_DONORS, dtype=object)
    text = values.astype(object).map(lambda v: "" if pd.isna(v) else str(v).strip())
    names = np.asarray(text, dtype=object)
    names[[str(v).lower() in NOBODY for v in names]] = ""
    return names


def proportion_interval(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share (0-1); NaN for no cells."""
    if n == 0:
        return np.nan, np.nan
    interval = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    """Mean of the finite values with Student's interval; NaN limits for fewer than two."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(stats.sem(values)) * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return mean, mean - half, mean + half


def burden_table(
    obs: pd.DataFrame,
    z: pd.DataFrame,
    *,
    donor: NDArray[np.object_],
    by: Sequence[str] = (keys.OBS_LINEAGE,),
    min_cells: int,
    confidence: float,
) -> pd.DataFrame:
    """Per donor and lineage: cells, mean senescence z, shares called, each with its interval.

    Shares are of the cells that passed quality control; ``indeterminate`` cells stay in the
    denominator and are counted. A row with fewer than `min_cells` such cells keeps its counts and
    has no means, shares or intervals, and says so in ``note``. Intervals describe how well a
    donor's cells determine that donor's value, not how donors vary.

    Returns
    -------
    DataFrame
        ``donor``, the `by` columns, ``n_cells``, ``n_qc_pass``, ``mean_z``, ``mean_z_low``,
        ``mean_z_high``; ``n_senescent``, ``n_indeterminate``, ``frac_senescent``, ``_low``,
        ``_high``; for T cells ``n_<state>`` and ``frac_<state>`` of every state; ``note``.
    """
    frame = obs[list(dict.fromkeys(by))].astype(object).copy()
    frame["donor"] = donor
    called = obs[keys.OBS_SENESCENCE_CALL].astype(object).to_numpy()
    state = obs[keys.OBS_T_STATE].astype(object).to_numpy()
    passed = obs[keys.OBS_QC_PASS].to_numpy(bool)
    rows = []
    keep = frame[list(by)[0]].notna() & (frame["donor"] != "")
    grouped = frame[keep].groupby(["donor", *by], sort=True, dropna=False, observed=True)
    for key, index in grouped.indices.items():
        cells = np.flatnonzero(keep)[index]
        good = cells[passed[cells]]
        row: dict[str, object] = dict(zip(["donor", *by], key, strict=True))
        lineage = str(row[keys.OBS_LINEAGE])
        row |= {"n_cells": len(cells), "n_qc_pass": len(good)}
        enough = len(good) >= min_cells
        signature = SENESCENCE_OF.get(lineage, "")
        values = z[signature].to_numpy(float)[good] if enough and signature in z else np.zeros(0)
        row["mean_z"], row["mean_z_low"], row["mean_z_high"] = mean_interval(values, confidence)
        _share(row, "senescent", called[good] == "senescent", confidence, enough=enough)
        row["n_indeterminate"] = int((called[good] == "indeterminate").sum())
        for name in keys.T_STATES:
            hits = state[good] == name
            row[f"n_t_{name}"] = int(hits.sum()) if lineage == "T" else np.nan
            row[f"frac_t_{name}"] = (
                float(hits.mean()) if lineage == "T" and enough and len(good) else np.nan
            )
        for name in ("exhausted", "senescent"):
            low, high = (
                proportion_interval(int((state[good] == name).sum()), len(good), confidence)
                if lineage == "T" and enough
                else (np.nan, np.nan)
            )
            row[f"frac_t_{name}_low"], row[f"frac_t_{name}_high"] = low, high
        row["note"] = "" if enough else f"fewer than {min_cells} cells passed quality control"
        rows.append(row)
    return pd.DataFrame(rows)


def _share(
    row: dict[str, object],
    name: str,
    hits: NDArray[np.bool_],
    confidence: float,
    *,
    enough: bool,
) -> None:
    row[f"n_{name}"] = int(hits.sum())
    row[f"frac_{name}"] = float(hits.mean()) if enough and len(hits) else np.nan
    low, high = (
        proportion_interval(int(hits.sum()), len(hits), confidence) if enough else (np.nan, np.nan)
    )
    row[f"frac_{name}_low"], row[f"frac_{name}_high"] = low, high


def pooled_table(
    groups: pd.DataFrame,
    group_sums: NDArray[np.int64],
    n_cells: NDArray[np.int64],
    signatures: Sequence[str],
    usable: NDArray[np.bool_],
    lineages: Sequence[str],
    *,
    n_null: int,
    unit: float,
) -> pd.DataFrame:
    """The same statistic per donor × subset, over all its cells at once.

    The score is linear in expression, so the sum over a group's cells, of the signature and of
    each null set, is the group's. z is the group's mean over the standard deviation of its null
    sets; p is Student's upper tail with N - 1 degrees of freedom.

    Returns
    -------
    DataFrame
        donor, lineage, subset, signature, n_cells, score, z, pvalue.
    """
    sums = group_sums.reshape(len(groups), len(signatures), n_null + 1) / unit
    rows = []
    for g, group in enumerate(groups.itertuples(index=False)):
        code = list(lineages).index(group.lineage)
        if n_cells[g] == 0:
            continue
        for s, name in enumerate(signatures):
            if not usable[code, s]:
                continue
            null = sums[g, s, 1:] / n_cells[g]
            own = float(sums[g, s, 0] / n_cells[g] - null.mean())
            sd = float(null.std(ddof=1))
            z = own / sd if sd > 0 else np.nan
            rows.append(
                (group.donor, group.lineage, group.subset, name, int(n_cells[g]), own, z,
                 float(stats.t.sf(z, n_null - 1)) if sd > 0 else np.nan)
            )  # fmt: skip
    return pd.DataFrame(
        rows,
        columns=[
            "donor", "lineage", "subset", "signature", "n_cells", "score", "z", "pvalue",
        ],
    )  # fmt: skip
