"""Quality control: metrics per cell, limits, and the reasons a cell fails.

Nothing is dropped from the file: a cell that fails keeps its row, with ``qc_pass`` False and the
reasons in words, and takes no part in nulls, calls and donor tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from senoscore import keys
from senoscore.settings import QcSettings

METRICS = (
    "total_counts",
    "n_genes_by_counts",
    "pct_counts_in_top_50_genes",
    "pct_counts_mt",
    "pct_counts_ribo",
    "pct_counts_hb",
)
# scales the MAD (median absolute deviation) to a normal's standard deviation
_MAD_TO_SD = 1.4826
# a sample smaller than this has no tails to judge
MIN_CELLS_FOR_MAD = 30


def metrics_frame(
    metrics: NDArray[np.float64], index: pd.Index, *, has_counts: bool
) -> pd.DataFrame:
    """Scanpy's names for the columns of `streaming.Scan.metrics`.

    Percentages are 0-100. Without counts only the number of genes means anything; the rest is NaN.
    """
    total = metrics[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        percent = np.where(total[:, None] > 0, 100 * metrics[:, 2:6] / total[:, None], np.nan)
    frame = pd.DataFrame(
        {
            "total_counts": total,
            "n_genes_by_counts": metrics[:, 1],
            "pct_counts_in_top_50_genes": percent[:, 0],
            "pct_counts_mt": percent[:, 1],
            "pct_counts_ribo": percent[:, 2],
            "pct_counts_hb": percent[:, 3],
        },
        index=index,
    )
    if not has_counts:
        frame.loc[:, [m for m in METRICS if m != "n_genes_by_counts"]] = np.nan
    return frame


def mad_limits(values: NDArray[np.float64], n_mads: float) -> tuple[float, float]:
    """Median ± n MADs (scaled to a normal's sd); infinite where too few values or no spread."""
    values = values[np.isfinite(values)]
    if len(values) < MIN_CELLS_FOR_MAD:
        return -np.inf, np.inf
    median = float(np.median(values))
    spread = _MAD_TO_SD * float(np.median(np.abs(values - median)))
    if spread == 0:
        return -np.inf, np.inf
    return median - n_mads * spread, median + n_mads * spread


def judge(
    metrics: pd.DataFrame,
    *,
    sample: pd.Series | None,
    lineage: NDArray[np.object_] | None,
    has_counts: bool,
    settings: QcSettings,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Which cells pass, and why others do not.

    Limits are median ± `n_mads` MADs of log1p(counts) and log1p(genes), of the top-50 share, and of
    the mitochondrial share (never below `min_pct_mt_limit`), within each sample; fixed limits of the
    settings replace them. Cells need `min_genes_floor` genes, neutrophils fewer: their RNA is poor.

    Returns
    -------
    DataFrame
        ``qc_pass`` (bool) and ``qc_reason`` (text, reasons separated by "; ", empty if passed).
    DataFrame
        The limits in force, one row per sample and metric: sample, metric, low, high, n_cells,
        n_failed.
    """
    n = len(metrics)
    groups = (
        np.asarray(sample.astype(str).fillna("nan"), dtype=object)
        if sample is not None
        else np.full(n, "all cells", dtype=object)
    )
    genes = metrics["n_genes_by_counts"].to_numpy()
    poor = np.zeros(n, bool) if lineage is None else np.asarray(lineage == "neutrophil", bool)
    failed: dict[str, NDArray[np.bool_]] = {}
    limits: list[dict[str, object]] = []

    floor = np.where(poor, float(settings.min_genes_floor_neutrophil), settings.min_genes_floor)
    if settings.min_genes is not None:
        floor[:] = settings.min_genes
    failed["no counts" if has_counts else "no genes"] = genes == 0
    # a panel that measures few genes in all cannot be asked for many
    if np.median(genes) >= 2 * settings.min_genes_floor or settings.min_genes is not None:
        failed["few genes"] = (genes < floor) & (genes > 0)
    if has_counts:
        total = metrics["total_counts"].to_numpy()
        if settings.min_counts is not None:
            failed["few counts"] = (total < settings.min_counts) & (total > 0)
        measures = {
            "counts": (np.log1p(total), settings.n_mads, True, settings.min_counts is None),
            "genes": (np.log1p(genes), settings.n_mads, True, settings.min_genes is None),
            "top-50 share": (
                metrics["pct_counts_in_top_50_genes"].to_numpy(), settings.n_mads, False, True,
            ),
        }  # fmt: skip
        mt = metrics["pct_counts_mt"].to_numpy()

        def fail(why: str, cells: NDArray[np.int64]) -> None:
            failed.setdefault(why, np.zeros(n, bool))[cells] = True

        for name, here in _by_name(groups):
            for what, (values, n_mads, both, wanted) in measures.items():
                if not wanted:
                    continue
                own, logged = values[here], what in ("counts", "genes")
                low, high = mad_limits(own, n_mads)
                low = low if both else -np.inf
                below, above = own < low, own > high
                # cells poor in RNA by nature stand far below the others of their sample
                if logged:
                    below &= ~poor[here]
                fail(f"low {what}", here[below])
                fail(f"high {what}", here[above])
                n_failed = int((below | above).sum())
                limits.append(_limit(name, what, low, high, len(here), n_failed, logged=logged))
            if settings.max_pct_mt is not None:
                high = settings.max_pct_mt
            else:
                high = max(mad_limits(mt[here], settings.n_mads_mt)[1], settings.min_pct_mt_limit)
            over = here[mt[here] > high]
            fail("high mitochondrial share", over)
            limits.append(_limit(name, "mitochondrial share", -np.inf, high, len(here), len(over)))
    reason = np.full(n, "", dtype=object)
    for why, cells in failed.items():
        reason[cells] = np.where(reason[cells] == "", why, reason[cells] + "; " + why)
    verdict = pd.DataFrame(
        {keys.OBS_QC_PASS: reason == "", keys.OBS_QC_REASON: reason}, index=metrics.index
    )
    columns = ["sample", "metric", "low", "high", "n_cells", "n_failed"]
    return verdict, pd.DataFrame(limits, columns=columns)


def _by_name(groups: NDArray[np.object_]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The cells of each group; groups by name, for the order of cells must not show."""
    codes, names = pd.factorize(groups, sort=True)
    by_group = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    yield from zip(map(str, names), by_group, strict=True)


def _limit(
    sample: str,
    metric: str,
    low: float,
    high: float,
    n_cells: int,
    n_failed: int,
    *,
    logged: bool = False,
) -> dict[str, object]:
    if logged:
        low = float(np.expm1(low)) if np.isfinite(low) else low
        high = float(np.expm1(high)) if np.isfinite(high) else high
    return {
        "sample": sample,
        "metric": metric,
        "low": low,
        "high": high,
        "n_cells": n_cells,
        "n_failed": n_failed,
    }


def mixed_lineage(
    panel: sparse.csr_matrix,
    totals: NDArray[np.float64],
    markers: Mapping[str, NDArray[np.int64]],
    exclusive: Mapping[tuple[str, str], bool] | None = None,
    *,
    level: float = 0.001,
) -> tuple[NDArray[np.bool_], NDArray[np.object_]]:
    """Cells that express the markers of two lineages more than ambient RNA explains.

    For each lineage the counts on its markers are compared with a Poisson whose rate is the
    ambient one: the cell's total times the markers' share among the half of cells that express
    them least, plus one count. A cell significant (`level`) for two lineages that exclude each
    other is flagged; it is annotated, never dropped.

    Parameters
    ----------
    panel
        Cells × panel genes, counts.
    totals
        Total counts of each cell.
    markers
        Lineage → panel columns of its most specific markers.
    exclusive
        Pairs of lineages that one cell cannot be both of; None takes all pairs.

    Returns
    -------
    flags, and for each flagged cell the pair in words (``"T+mono_mac"``).
    """
    from scipy.special import gammainc

    names = sorted(markers)
    n = panel.shape[0]
    hit = np.zeros((len(names), n), bool)
    for k, name in enumerate(names):
        columns = markers[name]
        if not len(columns):
            continue
        counts = np.asarray(panel[:, columns].sum(axis=1)).ravel()
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(totals > 0, counts / totals, 0.0)
        low = share <= np.median(share)
        background = counts[low].sum() / max(totals[low].sum(), 1.0)
        # ambient RNA varies from droplet to droplet: three times its mean, and never below one count
        rate = np.maximum(3 * background * totals, 1.0)
        # P(Poisson >= n) is the regularised gamma function of n at the rate; no n below the rate is rare
        many = np.flatnonzero(counts > rate)
        hit[k, many] = gammainc(counts[many], rate[many]) < level
    flag = np.zeros(n, bool)
    pair = np.full(n, "", dtype=object)
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            if exclusive is not None and not (
                exclusive.get((names[a], names[b])) or exclusive.get((names[b], names[a]))
            ):
                continue
            both = hit[a] & hit[b]
            pair[both & ~flag] = f"{names[a]}+{names[b]}"
            flag |= both
    return flag, pair
