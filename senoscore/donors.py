"""Donors, not cells, are the replicates: tables of what each donor carries, lineage by lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit

from senoscore import keys
from senoscore.calling import INNATE_LIKE
from senoscore.kernels.moments import group_moments

ALL_DONORS = "all cells"
# values of a donor column that name nobody
NOBODY = ("", "nan", "none", "na", "n/a", "unknown", "pooled", "unassigned")

# p at which a cell counts as showing a programme, where chance is taken off (`carrying_share`)
CHANCE = 0.05

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
    """Donor of each cell as text; empty where the file names none, or nobody in particular.

    Parameters
    ----------
    values
        The donor column; None gives every cell the name `ALL_DONORS`.
    n
        Cells.
    """
    if values is None:
        return np.full(n, ALL_DONORS, dtype=object)
    codes, names = pd.factorize(values.astype(object), use_na_sentinel=True)
    texts = [str(name).strip() for name in names]
    named = np.asarray(
        [*("" if text.lower() in NOBODY else text for text in texts), ""], dtype=object
    )
    return np.asarray(named[codes], dtype=object)


def moments(
    codes: NDArray[np.int64], values: NDArray[np.floating], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each group's finite values: how many, their mean, their sum of squares about it.

    The same bits in whatever order the cells stand (`kernels.moments`).

    Parameters
    ----------
    codes
        Group of each cell, -1 for none.
    values
        One per cell.
    n
        Groups.

    Returns
    -------
    Counts, means (NaN for none), sums of squared deviations (0 for none).
    """
    rows, column = np.arange(len(codes)), np.zeros(1, np.int64)
    count, mean, squares = moments_of(codes, rows, values[:, None], column, n)
    return count[0], mean[0], squares[0]


def moments_of(
    codes: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[np.floating],
    columns: NDArray[np.int64],
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """`moments` of some columns (columns × groups), of the cells in `rows`, whose groups are `codes`."""
    shape = (len(columns), n)
    count, mean, squares = np.empty(shape, np.int64), np.empty(shape), np.empty(shape)
    group_moments(codes, rows, values, columns, count, mean, squares)
    return count, mean, squares


def proportion_interval(
    hits: ArrayLike, n: ArrayLike, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's interval of shares (0-1); NaN for no cells.

    ``(p + q²/2n ± q √(p (1 - p)/n + q²/4n²)) / (1 + q²/n)`` with q the normal quantile (Wilson
    1927, J Am Stat Assoc 22:209).

    Examples
    --------
    >>> low, high = proportion_interval(1, 10, 0.95)
    >>> round(float(low), 3), round(float(high), 3)
    (0.018, 0.404)
    """
    k, total = np.asarray(hits, np.float64), np.asarray(n, np.float64)
    q = float(ndtri((1 + confidence) / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / total
        middle = p + q**2 / (2 * total)
        half = q * np.sqrt(p * (1 - p) / total + q**2 / (4 * total**2))
        low, high = (middle - half) / (1 + q**2 / total), (middle + half) / (1 + q**2 / total)
    # at no or all cells the limit is 0 or 1 but for rounding
    low, high = np.where(k == 0, 0.0, low), np.where(k == total, 1.0, high)
    empty = total == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def mean_interval(
    n: ArrayLike, mean: ArrayLike, squares: ArrayLike, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Student's interval of means, from the `moments` of their values; NaN for fewer than two."""
    count, centre = np.asarray(n, np.float64), np.asarray(mean, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.asarray(squares, np.float64) / (count - 1) / count)
        half = error * stdtrit(count - 1, (1 + confidence) / 2)
    half = np.where(count > 1, half, np.nan)
    return centre - half, centre + half


def carrying_share(
    hits: ArrayLike, n: ArrayLike, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Share of cells that carry a programme, from how many have it at p ≤ `CHANCE`, and its interval.

    ``(hits / n - CHANCE) / (1 - CHANCE)``: what is there beyond the cells that chance alone puts at
    that p, cut at 0 (one minus Storey's estimate of the true nulls at that cut: 2002, J R Stat Soc B
    64:479). No cell is called, so that cells too shallow for a call of their own count, too. Carriers
    with a larger p are missed: the share is at least this. The interval is Wilson's, of
    ``hits / n``. NaN for no cells.

    Examples
    --------
    >>> share, low, high = carrying_share(46, 338, 0.95)
    >>> round(float(share), 3), round(float(low), 3), round(float(high), 3)
    (0.091, 0.057, 0.133)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.asarray(hits, np.float64) / np.asarray(n, np.float64)
    values = (share, *proportion_interval(hits, n, confidence))
    share, low, high = (np.maximum((v - CHANCE) / (1 - CHANCE), 0.0) for v in values)
    return share, low, high


def burden_table(
    obs: pd.DataFrame,
    z: pd.DataFrame,
    pvalue: pd.DataFrame,
    *,
    donor: NDArray[np.object_],
    by: Sequence[str] = (keys.OBS_LINEAGE,),
    min_cells: int,
    confidence: float,
) -> pd.DataFrame:
    """Per donor and lineage: cells, mean senescence z, shares called, each with its interval.

    Shares are of the cells that passed quality control; ``indeterminate`` cells stay in the
    denominator and are counted. A row with fewer than `min_cells` such cells keeps its counts and
    has no means, shares or intervals, and says so in ``note``. Intervals (Student's for means,
    Wilson's for shares) describe how well a donor's cells determine that donor's value, not how
    donors vary: to compare donors, `senoscore.tl.compare`.

    Parameters
    ----------
    obs
        Columns ``qc_pass``, ``senescence_call``, ``t_state``, ``t_subset`` and those of `by`.
    z
        Cells × signatures; the lineage's senescence signature (`SENESCENCE_OF`) is used.
    pvalue
        Cells × signatures; only that of T cells is used.
    donor
        Donor of each cell; empty text is left out.
    by
        Columns that divide a donor's cells, ``lineage`` first. Cells without a lineage are left out.
    min_cells
        Fewer cells that passed quality control: counts only.
    confidence
        Of the intervals (0-1).

    Returns
    -------
    DataFrame
        ``donor``, the `by` columns, ``n_cells``, ``n_qc_pass``, ``mean_z`` (in standard
        deviations above an unaffected cell), ``mean_z_low``, ``mean_z_high``; ``n_senescent``,
        ``frac_senescent`` (0-1), ``_low``, ``_high``, ``n_indeterminate``; for T cells
        ``n_t_<state>`` and ``frac_t_<state>`` of every state (NaN elsewhere) and
        ``frac_exhausted_with_senescence``, ``_low``, ``_high``: of the cells called exhausted or
        both (`min_cells` of them at least), the share that carries the senescence axis by
        `carrying_share`, whatever is called of the single cell; ``note``. Sorted by donor and `by`.
    """
    by = list(by)
    groups = {"donor": donor} | {name: obs[name].astype(object).to_numpy() for name in by}
    codes, table = _group_codes(groups, keep=obs[by[0]].notna().to_numpy() & (donor != ""))
    n = len(table)
    passed = obs[keys.OBS_QC_PASS].to_numpy(bool)
    good = np.where(passed, codes, -1)
    n_good = np.bincount(good[good >= 0], minlength=n)
    table["n_cells"] = np.bincount(codes[codes >= 0], minlength=n)
    table["n_qc_pass"] = n_good
    lineage = np.asarray(table[keys.OBS_LINEAGE].astype(str), dtype=object)
    least = max(min_cells, 1)
    enough, is_t = n_good >= least, lineage == "T"

    mean, low, high = np.full((3, n), np.nan)
    for signature in sorted({SENESCENCE_OF.get(name, "") for name in lineage}):
        if signature not in z:
            continue
        rows = enough & np.asarray([SENESCENCE_OF.get(x) == signature for x in lineage], bool)
        wanted = np.where((good >= 0) & np.append(rows, [False])[good], good, -1)
        count, centre, squares = moments(wanted, z[signature].to_numpy(), n)
        mean[rows] = centre[rows]
        low[rows], high[rows] = (
            limit[rows] for limit in mean_interval(count, centre, squares, confidence)
        )
    table["mean_z"], table["mean_z_low"], table["mean_z_high"] = mean, low, high

    called = _hits(obs[keys.OBS_SENESCENCE_CALL], keys.SENESCENCE_CALLS, good, n)
    table["n_senescent"] = called["senescent"]
    _add_share(table, "senescent", called["senescent"], n_good, enough, confidence)
    table["n_indeterminate"] = called["indeterminate"]
    states = _hits(obs[keys.OBS_T_STATE], keys.T_STATES, good, n)
    for name in keys.T_STATES:
        table[f"n_t_{name}"] = np.where(is_t, states[name], np.nan)
        table[f"frac_t_{name}"] = _share(states[name], n_good, is_t & enough)
    for name in ("exhausted", "senescent"):
        limits = proportion_interval(states[name], n_good, confidence)
        for side, limit in zip(("low", "high"), limits, strict=True):
            table[f"frac_t_{name}_{side}"] = np.where(is_t & enough, limit, np.nan)
    axis = SENESCENCE_OF["T"]
    p = pvalue[axis].to_numpy() if axis in pvalue else np.full(len(obs), np.nan)
    # of innate-like cells the senescence axis is not judged: they have its phenotype by nature
    exhausted = obs[keys.OBS_T_STATE].isin(["exhausted", "both"]).to_numpy() & (good >= 0)
    exhausted &= ~np.isnan(p) & (obs[keys.OBS_T_SUBSET] != INNATE_LIKE).to_numpy(bool)
    n_exhausted = np.bincount(good[exhausted], minlength=n)
    shown = np.bincount(good[exhausted & (p <= CHANCE)], minlength=n)
    carrying = carrying_share(shown, n_exhausted, confidence)
    for side, value in zip(("", "_low", "_high"), carrying, strict=True):
        table[f"frac_exhausted_with_senescence{side}"] = np.where(
            n_exhausted >= least, value, np.nan
        )
    table["note"] = np.where(enough, "", f"fewer than {least} cells passed quality control")
    return table


def _group_codes(
    columns: Mapping[str, NDArray[np.object_]], *, keep: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Code of each cell's group, -1 where not kept, and the groups that occur, sorted."""
    code = np.zeros(len(keep), np.int64)
    levels = []
    for values in columns.values():
        own, names = pd.factorize(values, sort=True, use_na_sentinel=True)
        names = np.append(np.asarray(names, dtype=object), [None])
        own = np.where(own < 0, len(names) - 1, own)
        code = code * len(names) + own
        levels.append(names)
    code[~keep] = -1
    present = np.unique(code[keep])
    table: dict[str, NDArray[np.object_]] = {}
    rest = present
    for name, names in zip(reversed(list(columns)), reversed(levels), strict=True):
        table[name] = names[rest % len(names)]
        rest = rest // len(names)
    compact = np.where(keep, np.searchsorted(present, code), -1).astype(np.int64)
    return compact, pd.DataFrame({name: table[name] for name in columns})


def _hits(
    column: pd.Series, categories: Sequence[str], codes: NDArray[np.int64], n: int
) -> dict[str, NDArray[np.int64]]:
    """How many cells of each group have each category."""
    values = pd.Categorical(column, categories=list(categories)).codes.astype(np.int64)
    known = (codes >= 0) & (values >= 0)
    flat = np.bincount(
        codes[known] * len(categories) + values[known], minlength=n * len(categories)
    )
    counts = flat.reshape(n, len(categories))
    return {name: counts[:, k] for k, name in enumerate(categories)}


def _share(
    hits: NDArray[np.int64], n: NDArray[np.int64], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.where(known, hits / np.where(n, n, 1), np.nan)


def _add_share(
    table: pd.DataFrame,
    name: str,
    hits: NDArray[np.int64],
    n: NDArray[np.int64],
    enough: NDArray[np.bool_],
    confidence: float,
) -> None:
    table[f"frac_{name}"] = _share(hits, n, enough)
    for side, limit in zip(("low", "high"), proportion_interval(hits, n, confidence), strict=True):
        table[f"frac_{name}_{side}"] = np.where(enough, limit, np.nan)


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
    sums = group_sums.reshape(len(groups), len(signatures), n_null + 1)
    code = np.asarray([list(lineages).index(name) for name in groups["lineage"]], np.int64)
    rows, columns = np.nonzero(usable[code] & (np.asarray(n_cells) > 0)[:, None])
    score, z = np.full((2, len(rows)), np.nan)
    ends = np.searchsorted(rows, np.arange(len(groups) + 1))
    for g, (start, end) in enumerate(pairwise(ends)):
        if start == end:
            continue
        means = sums[g, columns[start:end]] / unit / n_cells[g]
        null = means[:, 1:]
        score[start:end] = means[:, 0] - null.mean(axis=1)
        sd = null.std(axis=1, ddof=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            z[start:end] = np.where(sd > 0, score[start:end] / sd, np.nan)
    table = groups[["donor", "lineage", "subset"]].iloc[rows].reset_index(drop=True)
    table["signature"] = np.asarray(list(signatures), dtype=object)[columns]
    table["n_cells"] = np.asarray(n_cells)[rows]
    table["score"], table["z"] = score, z
    table["pvalue"] = stdtr(n_null - 1, -z)
    return table
