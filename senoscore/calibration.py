"""Is the null true? Random gene sets that are held back, scored as if they were signatures.

Every run scores at least a hundred sets of random genes, shaped like the signatures in use (as many
genes, of the same expression, with the same weights), each with control genes and a null of its
own, on a sample of each lineage's cells. If p-values mean what they say, 5 % of them are below .05
in every lineage at every depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from senoscore.kernels.passes import null_z_rows
from senoscore.null import (
    MIN_CELLS,
    MIN_POOL,
    ControlGenes,
    VotingGenes,
    build_sets,
    centre_of,
    draw_sets,
    rng_for,
)

N_HELD_BACK = 100
LEVELS = (0.05, 0.01, 0.001)
_AT_ONCE = 10

COLUMNS = (
    "lineage",
    "depth_stratum",
    "depth_median",
    "n_cells",
    "n_sets",
    *(f"{what}_{level:g}" for level in LEVELS for what in ("fpr", "se")),
    "spearman_z_depth",
)


def held_back_sets(
    signatures: Sequence[VotingGenes],
    controls: ControlGenes,
    means: NDArray[np.int64],
    ids: NDArray[np.object_],
    *,
    lineage: str,
    n_sets: int,
    seed: int,
) -> list[VotingGenes]:
    """Random gene sets shaped like the signatures, which they take in turn."""
    shapes = [s for s in signatures if (means[s.positions] > 0).any()]
    sets = []
    for h in range(n_sets if shapes else 0):
        shape = shapes[h % len(shapes)]
        name = f"held back {h}"
        voting = means[shape.positions] > 0
        taken: list[int] = []
        weights: list[float] = []
        for position, weight in zip(shape.positions[voting], shape.weights[voting], strict=True):
            pool = controls.nearest(
                int(means[position]),
                controls.pool_size(200),
                np.asarray([*shape.positions, *taken]),
            )
            if len(pool):
                rng = rng_for(seed, name, lineage, str(len(taken)))
                taken.append(int(rng.choice(pool)))
                weights.append(float(weight))
        sets.append(VotingGenes(name, np.asarray(taken), np.asarray(weights), tuple(ids[taken])))
    return sets


def set_p_values(z: NDArray[np.float64], strata: NDArray[np.int64]) -> NDArray[np.float64]:
    """p of column 0 against the pooled other columns of the same stratum (cells × (N + 1))."""
    p = np.full(len(z), np.nan)
    for stratum in np.unique(strata):
        cells = np.flatnonzero((strata == stratum) & ~np.isnan(z[:, 0]))
        null = z[strata == stratum, 1:].ravel()
        null = np.sort(null[~np.isnan(null)])
        above = len(null) - np.searchsorted(null, z[cells, 0], side="left")
        p[cells] = (1 + above) / (1 + len(null))
    return p


def calibrate_lineage(
    signatures: Sequence[VotingGenes],
    *,
    lineage: str,
    sums: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    rank: NDArray[np.int64],
    ids: NDArray[np.object_],
    cells: sparse.csr_matrix,
    totals: NDArray[np.float64],
    depth: NDArray[np.float64],
    strata: NDArray[np.int64],
    kind: int,
    n_null: int,
    n_sets: int = N_HELD_BACK,
    seed: int = 0,
) -> pd.DataFrame:
    """False-positive rates of held-back random sets, per depth stratum of one lineage.

    Returns
    -------
    DataFrame
        One row per stratum, columns `COLUMNS`: `fpr_0.05` is the share of (cell, set) with
        p <= .05 and `se_0.05` its standard error over sets (the cells of one set share its
        genes, so the sets are the replicates); `spearman_z_depth` is the mean over sets of
        Spearman's rho between z and depth in the whole lineage. Empty where no null exists.
    """
    controls = ControlGenes(sums, eligible, rank)
    use = np.flatnonzero((strata >= 0) & (totals > 0))
    if len(use) < MIN_CELLS or len(controls) < MIN_POOL:
        return pd.DataFrame(columns=list(COLUMNS))
    cells, totals, depth, strata = cells[use], totals[use], depth[use], strata[use]
    sets = held_back_sets(
        signatures, controls, sums, ids, lineage=lineage, n_sets=n_sets, seed=seed
    )
    p_all, rho = [], []
    ranked_depth = _centred_ranks(depth)
    for first in range(0, len(sets), _AT_ONCE):
        some = sets[first : first + _AT_ONCE]
        draws = [
            draw_sets(s, controls, sums, lineage=lineage, n_null=n_null, seed=seed) for s in some
        ]
        offsets, set_, weights = build_sets(some, draws, sums, n_null=n_null)
        z = np.empty((len(use), len(some), n_null + 1))
        null_z_rows(
            cells.indptr.astype(np.int64), cells.indices.astype(np.int32), cells.data, kind,
            totals, offsets, set_, weights, n_null, z,
        )  # fmt: skip
        z -= centre_of(z)
        for k in range(len(some)):
            p_all.append(set_p_values(z[:, k], strata))
            own = z[:, k, 0].copy()
            for stratum in np.unique(strata):
                here = strata == stratum
                null = z[here, k, 1:]
                null = null[~np.isnan(null)]
                if len(null):
                    own[here] -= np.median(null)
            if not np.isnan(own).any():
                rho.append(_correlation(_centred_ranks(own), ranked_depth))
    if not p_all:
        return pd.DataFrame(columns=list(COLUMNS))
    p = np.asarray(p_all)
    rows = []
    for stratum in np.unique(strata):
        here = strata == stratum
        row: dict[str, object] = {
            "lineage": lineage,
            "depth_stratum": int(stratum),
            "depth_median": float(np.median(depth[here])),
            "n_cells": int(here.sum()),
            "n_sets": len(p),
        }
        for level in LEVELS:
            tested = (~np.isnan(p[:, here])).sum(axis=1)
            # a cell without a p-value is not a false positive, and not evidence either
            hits = (p[:, here] <= level).sum(axis=1)[tested > 0] / tested[tested > 0]
            n_sets = len(hits)
            row[f"fpr_{level:g}"] = float(hits.mean()) if n_sets else np.nan
            row[f"se_{level:g}"] = (
                float(hits.std(ddof=1) / np.sqrt(n_sets)) if n_sets > 1 else np.nan
            )
        row["spearman_z_depth"] = float(np.mean(rho)) if rho else np.nan
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = rankdata(values)
    return np.asarray(ranks - ranks.mean())


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0
