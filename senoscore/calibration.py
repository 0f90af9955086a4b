"""Is the null true? Random gene sets that are held back, scored as if they were signatures.

Every run scores at least a hundred sets of random genes, shaped like the signatures in use (as many
genes, of the same expression, with the same weights), each with control genes and a null of its
own, on a sample of each lineage's cells. If p-values mean what they say, 5 % of them are below .05
in every lineage at every depth.

Standard errors are over sets, for the cells of one set share its genes. In a lineage with few cells
more sets are scored: it costs no more than a hundred in a thousand cells, and halves the error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore.kernels.nulls import held_back
from senoscore.null import (
    CENTRE_QUANTILE,
    MIN_CELLS,
    MIN_POOL,
    NORMAL_QUARTILE,
    ControlGenes,
    PackedSample,
    SampledCells,
    VotingGenes,
    build_sets,
    draw_order,
    draw_sets,
    over_threads,
    pack_sample,
    resting_means,
    streams_for,
    turn,
)

N_HELD_BACK = 100
CELL_SETS = (
    100_000  # more sets than asked for, where the cells are fewer than this over their number
)
MOST = 4  # but no more than so many times what was asked for
LEVELS = (0.5, 0.1, 0.05, 0.01, 0.001, 0.0001)

COLUMNS = (
    "lineage",
    "depth_stratum",
    "depth_median",
    "n_cells",
    "n_sets",
    *(f"{what}_{level:g}" for level in LEVELS for what in ("fpr", "se")),
    "spearman_z_depth",
    "se_spearman_z_depth",
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
        order = draw_order(shape, means)
        begin = streams_for(seed, name, lineage, each=[shape.ids[k] for k in order])
        taken = controls.random_set(means[shape.positions[order]], shape.positions, begin)
        kept = taken >= 0
        taken = taken[kept]
        sets.append(VotingGenes(name, taken, shape.weights[order][kept], tuple(ids[taken])))
    return sets


def calibrate_lineage(
    signatures: Sequence[VotingGenes],
    *,
    lineage: str,
    sums: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    rank: NDArray[np.int64],
    ids: NDArray[np.object_],
    sample: SampledCells,
    depth: NDArray[np.float64],
    strata: NDArray[np.int64],
    kind: int,
    n_null: int,
    n_sets: int = N_HELD_BACK,
    seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """False-positive rates of held-back random sets, per depth stratum of one lineage.

    Returns
    -------
    DataFrame
        One row per stratum, columns `COLUMNS`: `fpr_0.05` is the share of (cell, set) with
        p <= .05 and `se_0.05` its standard error over sets; `spearman_z_depth` is the mean over
        sets of Spearman's rho between z and depth in the whole lineage, with its standard error.
        Empty where no null exists.
    """
    controls = ControlGenes(sums, eligible, rank)
    use = np.flatnonzero((strata >= 0) & (sample.totals > 0))
    if len(use) < MIN_CELLS or len(controls) < MIN_POOL:
        return pd.DataFrame(columns=list(COLUMNS))
    # ordered by stratum, so that the cells of one lie together
    use = use[np.argsort(strata[use], kind="stable")]
    sample = sample._replace(rows=sample.rows[use], totals=sample.totals[use])
    depth, strata = depth[use], strata[use]
    n_sets = int(np.clip(CELL_SETS // len(use), n_sets, MOST * n_sets))
    sets = held_back_sets(
        signatures, controls, sums, ids, lineage=lineage, n_sets=n_sets, seed=seed
    )
    if not sets:
        return pd.DataFrame(columns=list(COLUMNS))
    turned = turn(sample, controls.place >= 0, kind)
    resting = resting_means(sets, sums, turned, threads=threads)
    draws = [
        draw_sets(s, controls, sums, lineage=lineage, n_null=n_null, seed=seed, resting=near)
        for s, near in zip(sets, resting, strict=True)
    ]
    table = build_sets(sets, draws, sums, n_null=n_null)
    present, begin = np.unique(strata, return_index=True)
    packed = pack_sample(turned, table, np.arange(len(sets)), n_null)
    z, p = np.empty((len(sets), len(use))), np.empty((len(sets), len(use)))
    medians = np.empty((len(sets), len(present)))
    score_held_back(packed, np.append(begin, len(use)), z, p, medians, threads=threads)
    z -= medians[:, np.searchsorted(present, strata)]
    whole = z[~np.isnan(z).any(axis=1)]
    rho, rho_error = mean_correlation(whole, depth)
    rows = []
    for stratum in present:
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
            n = len(hits)
            row[f"fpr_{level:g}"] = float(hits.mean()) if n else np.nan
            row[f"se_{level:g}"] = float(hits.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
        row["spearman_z_depth"], row["se_spearman_z_depth"] = rho, rho_error
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def score_held_back(
    packed: PackedSample,
    limits: NDArray[np.int64],
    z: NDArray[np.float64],
    p: NDArray[np.float64],
    medians: NDArray[np.float64],
    *,
    threads: int = 1,
) -> None:
    """z, p and null medians of every set, as `kernels.nulls.held_back` writes them."""

    def one(some: slice) -> None:
        held_back(
            packed.values, limits, packed.n_null, packed.which[some], packed.first, packed.genes,
            packed.weights, CENTRE_QUANTILE, NORMAL_QUARTILE, z[some], p[some], medians[some],
        )  # fmt: skip

    over_threads(one, packed.chunks(threads), threads)


def mean_correlation(z: NDArray[np.float64], depth: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over rows of z of Spearman's rho with depth, and its standard error; NaN without rows.

    The error is that of drawing other sets and that of drawing other cells, for what random sets
    share in a cell (its state, its batch) they share in all rows. A row without variation has 0.

    Examples
    --------
    >>> z = np.array([[1.0, 2.0, 5.0], [4.0, 4.0, 4.0]])
    >>> mean_correlation(z, np.array([10.0, 20.0, 30.0]))[0]
    0.5
    """
    if not len(z):
        return np.nan, np.nan
    # ranks less their mean are halves, so that these sums have no rounding, and the order of cells
    # cannot show; fsum rounds once
    middle = (len(depth) + 1) / 2
    # pandas' ranks, for scipy.stats takes longer to import than all of this
    a = pd.DataFrame(z.T).rank().to_numpy().T - middle
    b = pd.Series(depth).rank().to_numpy() - middle
    products = a * b
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum())
    rho = np.divide(products.sum(axis=1), scale, out=np.zeros(len(z)), where=scale > 0)
    inverse = np.divide(1.0, scale, out=np.zeros(len(z)), where=scale > 0)
    shared = (products * inverse[:, None]).mean(axis=0)
    mean = math.fsum(shared) / len(shared)
    over_cells = math.fsum((shared - mean) ** 2)
    over_sets = rho.var(ddof=1) / len(rho) if len(rho) > 1 else np.nan
    return float(rho.mean()), float(np.sqrt(over_sets + over_cells))
