"""Pictures of all cells: quality, lineages, scores, the file's own embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from senoscore import keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

from senoscore.plots._drawing import (
    BACKGROUND_STATES,
    CALL_COLORS,
    DROPPED,
    KEPT,
    LINEAGE_COLORS,
    LINEAGE_NAMES,
    LOG_METRICS,
    MAX_GROUPS,
    MAX_POINTS,
    METRIC_NAMES,
    MISSING_COLOR,
    OTHER_COLORS,
    T_STATE_COLORS,
    add_legend,
    clean_label,
    dot_mark,
    group_name,
    jitter,
    log_axis,
    many_axes,
    one_axes,
    patch_mark,
    percent,
    plain_style,
    say,
    thin,
    write_above,
    write_beside,
    write_y,
    z_range,
)
from senoscore.plots._space import (
    embedding_key,
    fact_of_signature,
    fdr_of,
    group_key,
    group_labels,
    largest_groups,
    obs_column,
    padj_of,
    signature_table,
    z_of,
)


def _violins(
    ax: Axes,
    groups: Sequence[NDArray[np.float64]],
    colors: Sequence[str],
    *,
    log: bool,
    low: float,
    high: float,
    max_points: int,
) -> None:
    """One smoothed histogram per row; rows of few cells show the cells themselves."""
    edges = np.geomspace(low, high, 61) if log else np.linspace(low, high, 61)
    middle = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    for row, (values, color) in enumerate(zip(groups, colors, strict=True)):
        if len(values) == 0:
            continue
        if len(values) < 30:
            ax.scatter(
                values, row + 0.5 * jitter(len(values)), s=9, color=color, linewidth=0.3,
                edgecolor="#555555", rasterized=True, zorder=3,
            )  # fmt: skip
            continue
        heights = np.convolve(np.histogram(np.clip(values, low, high), edges)[0], kernel, "same")
        heights = 0.42 * heights / heights.max()
        ax.fill_between(
            middle, row - heights, row + heights, where=heights > 0.002, facecolor=color,
            edgecolor="#555555", linewidth=0.4, zorder=2,
        )  # fmt: skip
        ax.plot(
            [np.median(values)], [row], marker="|", color="#000000", markersize=9, zorder=4,
            linestyle="none",
        )  # fmt: skip
    if log:
        log_axis(ax, "x", low, high)
    else:
        ax.set_xlim(low, high)
    ax.grid(axis="x", color="#E5E5E5", linewidth=0.6)


def qc(
    s: AnnData,
    *,
    groupby: str | None = None,
    metrics: Sequence[str] = ("total_counts", "n_genes_by_counts", "pct_counts_mt"),
    limits: pd.DataFrame | None = None,
    max_groups: int = MAX_GROUPS,
    max_points: int = 4000,
    ax: Axes | Sequence[Axes] | None = None,
) -> list[Axes]:
    """Counts, genes and mitochondrial share per cell, what was dropped, and at which limits.

    Parameters
    ----------
    s
        Cells in score space.
    groupby
        Column of `obs` that names the rows; by default the sample, else the donor, else all cells
        in one row.
    metrics
        Columns of `obs`, one picture each. Those that the file has no counts for are left out.
    limits
        Table of limits with the columns `sample`, `metric`, `low` and `high`, as
        `senoscore.qc.judge` makes it; by default the one stored with the scores.
    max_groups
        The largest so many groups get a row; the picture says of how many.
    max_points
        At most so many dropped cells are drawn as dots.
    ax
        As many Axes as there are metrics to draw.

    Returns
    -------
    list of Axes
        One per metric drawn. Blue: all cells. Dots: dropped cells. Bars: limits.
    """
    import pandas as pd

    shown = [m for m in metrics if m in s.obs and np.isfinite(s.obs[m].astype(float)).any()]
    if not shown:
        with plain_style():
            return [
                say(one, "No raw counts in this file:\nno quality measure can be shown.")
                for one in many_axes(ax, 1, 5, 1.6)
            ]
    key = group_key(s, groupby, "sample", "donor")
    codes, names = group_labels(s, key)
    if (codes < 0).any():
        codes, names = np.where(codes < 0, len(names), codes), [*names, "(not stated)"]
    counts = np.bincount(codes, minlength=len(names))
    rows, rest = largest_groups(counts, max_groups)
    passed = (
        s.obs[keys.OBS_QC_PASS].to_numpy(dtype=bool)
        if keys.OBS_QC_PASS in s.obs
        else np.ones(s.n_obs, bool)
    )
    if limits is None:
        stored = s.uns.get(keys.UNS, {}).get("qc_limits")
        limits = stored if isinstance(stored, pd.DataFrame) else None
    with plain_style():
        axes = many_axes(ax, len(shown), 3.1 * len(shown) + 1.2, 1.1 + 0.3 * len(rows))
        for number, (one, metric) in enumerate(zip(axes, shown, strict=True)):
            values = s.obs[metric].to_numpy(dtype=np.float64)
            log = metric in LOG_METRICS
            usable = np.isfinite(values) & ((values > 0) | (not log))
            low, high = _range(values[usable], log=log)
            members = [np.flatnonzero(usable & (codes == g)) for g in rows]
            _violins(
                one, [values[m] for m in members], [KEPT] * len(rows), log=log, low=low,
                high=high, max_points=max_points,
            )  # fmt: skip
            budget = max(1, max_points // max(1, len(rows)))
            for row, (group, member) in enumerate(zip(rows, members, strict=True)):
                out = thin(member[~passed[member]], budget)
                one.scatter(
                    np.clip(values[out], low, high), row + 0.55 * jitter(len(out)), s=4,
                    color=DROPPED, edgecolor="none", alpha=0.6, rasterized=True, zorder=3,
                )  # fmt: skip
                for limit in _limits_of(limits, metric, names[group]):
                    if low <= limit <= high:
                        one.plot(
                            [limit, limit], [row - 0.42, row + 0.42], color="#000000",
                            linewidth=1.4, zorder=5,
                        )  # fmt: skip
            one.set_xlabel(METRIC_NAMES.get(metric, clean_label(metric)))
            write_y(one, [clean_label(names[g], limit=24) for g in rows])
            if number and ax is None:
                one.tick_params(axis="y", labelleft=False)
        for row, group in enumerate(rows):
            kept = int((passed & (codes == group)).sum())
            write_beside(axes[-1], row, f"{kept:,} of {counts[group]:,} kept")
        if rest:
            write_above(axes[0], f"the {len(rows)} largest of {len(names)} groups")
    return axes


def _range(values: NDArray[np.float64], *, log: bool) -> tuple[float, float]:
    if len(values) == 0:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = np.quantile(values, [0.0005, 0.9995])
    if log:
        return float(low) / 1.3, float(high) * 1.3
    return 0.0, max(1.0, float(high) * 1.05)


# how `qc.judge` calls what it limits
_LIMIT_OF: Final = {
    "total_counts": "counts",
    "n_genes_by_counts": "genes",
    "pct_counts_in_top_50_genes": "top-50 share",
    "pct_counts_mt": "mitochondrial share",
}


def _limits_of(limits: pd.DataFrame | None, metric: str, group: str) -> list[float]:
    """Limits in force for one row: its own, else those that hold for all cells."""
    if limits is None or not {"sample", "metric", "low", "high"} <= set(limits.columns):
        return []
    rows = limits[limits["metric"].astype(str).isin([metric, _LIMIT_OF.get(metric, metric)])]
    own = rows[rows["sample"].astype(str) == group]
    if not len(own) and rows["sample"].nunique() == 1:
        own = rows
    found = own[["low", "high"]].to_numpy(dtype=np.float64).ravel()
    return [float(v) for v in found if np.isfinite(v)]


def lineages(
    s: AnnData, *, groupby: str | None = None, max_groups: int = MAX_GROUPS, ax: Axes | None = None
) -> Axes:
    """Which immune cells each donor (or sample) gave, as shares of its cells that passed quality.

    Parameters
    ----------
    s
        Cells in score space.
    groupby
        Column of `obs`; by default the donor, else the sample, else one bar.
    max_groups
        The largest so many groups get a bar of their own; the rest share one.
    ax
        Where to draw.

    Returns
    -------
    Axes
        One bar per group; the number of cells stands beside it.
    """
    key = group_key(s, groupby, "donor", "sample")
    codes, names = group_labels(s, key)
    lineage = obs_column(s, keys.OBS_LINEAGE, "lineages").astype(str).to_numpy()
    if keys.OBS_QC_PASS in s.obs:
        codes = np.where(s.obs[keys.OBS_QC_PASS].to_numpy(dtype=bool), codes, -2)
    if (codes == -1).any():
        codes, names = np.where(codes == -1, len(names), codes), [*names, "(not stated)"]
    table = np.zeros((len(names), len(keys.LINEAGES)), np.int64)
    for j, name in enumerate(keys.LINEAGES):
        chosen = (lineage == name) & (codes >= 0)
        table[:, j] = np.bincount(codes[chosen], minlength=len(names))
    labels = [clean_label(n, limit=28) for n in names]
    rows, rest = largest_groups(table.sum(1), max_groups)
    if rest:
        labels = [*(labels[r] for r in rows), f"{len(rest):,} smaller groups"]
        table = np.vstack([table[rows], table[rest].sum(0, keepdims=True)])
    totals = table.sum(1)
    with plain_style():
        ax = one_axes(ax, 6.4, 1.2 + 0.27 * len(labels))
        left = np.zeros(len(labels))
        for j, name in enumerate(keys.LINEAGES):
            share = 100 * table[:, j] / np.maximum(totals, 1)
            ax.barh(
                np.arange(len(labels)), share, left=left, height=0.74,
                color=LINEAGE_COLORS[name], edgecolor="white", linewidth=0.5,
            )  # fmt: skip
            left += share
        write_y(ax, labels)
        ax.set_xlim(0, 100)
        ax.set_xlabel("share of cells that passed quality control (%)")
        for row, total in enumerate(totals):
            write_beside(ax, row, f"{total:,}")
        present = [j for j in range(len(keys.LINEAGES)) if table[:, j].any()]
        add_legend(
            ax,
            [patch_mark(LINEAGE_COLORS[keys.LINEAGES[j]]) for j in present],
            [f"{LINEAGE_NAMES[keys.LINEAGES[j]]} ({table[:, j].sum():,})" for j in present],
            outside=False,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            columnspacing=1.2,
            handlelength=1.2,
        )
    return ax


def scores(
    s: AnnData,
    signatures: str | Sequence[str] | None = None,
    *,
    groupby: str = keys.OBS_LINEAGE,
    max_groups: int = MAX_GROUPS,
    ax: Axes | Sequence[Axes] | None = None,
) -> list[Axes]:
    """Distribution of signature scores by lineage, with the share of cells called.

    Parameters
    ----------
    s
        Cells in score space.
    signatures
        Names, or one name; by default every signature with the role "axis" that is scored.
    groupby
        Column of `obs` that names the rows. Only groups in which the signature is scored are drawn.
    max_groups
        The largest so many groups are drawn.
    ax
        As many Axes as there are signatures.

    Returns
    -------
    list of Axes
        One per signature. 0 is what random genes of the same abundance give, the unit is their
        standard deviation. Beside each row: cells called at the false-discovery rate of the
        settings, of the cells scored.
    """
    if signatures is None:
        table = signature_table(s)
        roles = table["role"].astype(str) if "role" in table else None
        wanted = [
            str(n) for i, n in enumerate(table.index) if roles is None or roles.iloc[i] == "axis"
        ]
    else:
        wanted = [signatures] if isinstance(signatures, str) else [str(n) for n in signatures]
    if not wanted:
        with plain_style():
            return [say(a, "No signature to show.") for a in many_axes(ax, 1, 5, 1.4)]
    codes, names = group_labels(s, groupby)
    fdr = fdr_of(s)
    drawn: list[tuple[str, NDArray[np.float64], NDArray[np.float64] | None, list[int]]] = []
    for name in wanted:
        z = z_of(s, name)
        counts = np.bincount(codes[np.isfinite(z) & (codes >= 0)], minlength=len(names))
        rows, _ = largest_groups(counts, max_groups)
        drawn.append((name, z, padj_of(s, name), [r for r in rows if counts[r]]))
    shown = [z[(codes >= 0) & np.isfinite(z)] for _, z, _, rows in drawn if rows]
    low, high = z_range(np.concatenate(shown) if shown else np.zeros(0))
    with plain_style():
        heights = [0.9 + 0.32 * max(1, len(d[3])) for d in drawn]
        if ax is None and len(wanted) > 1:
            import matplotlib.pyplot as plt

            _, made = plt.subplots(
                len(wanted), 1, figsize=(6.4, sum(heights)), layout="constrained",
                gridspec_kw={"height_ratios": heights},
            )  # fmt: skip
            axes = list(made)
        else:
            axes = many_axes(ax, len(wanted), 6.4, heights[0])
        for one, (name, z, padj, rows) in zip(axes, drawn, strict=True):
            title = clean_label(fact_of_signature(s, name, "title") or name, limit=70)
            if not rows:
                why = clean_label(
                    fact_of_signature(s, name, "reason") or "no cell it is valid in", limit=160
                )
                say(one, f"{title}: not scored.\n{why}")
                continue
            members = [z[(codes == r) & np.isfinite(z)] for r in rows]
            colors = [LINEAGE_COLORS.get(names[r], KEPT) for r in rows]
            one.axvline(0, color="#999999", linewidth=0.8, zorder=1)
            _violins(one, members, colors, log=False, low=low, high=high, max_points=2000)
            for row, r in enumerate(rows):
                here = codes == r
                n = int(np.isfinite(z[here]).sum())
                if padj is None:
                    write_beside(one, row, f"{n:,} cells")
                    continue
                called = here & (padj <= fdr)
                k = int(called.sum())
                write_beside(one, row, f"{percent(k, n)} called ({k:,} of {n:,})")
                chosen = np.flatnonzero(called)
                dots = thin(chosen, 1000)
                one.scatter(
                    np.clip(z[dots], low, high), row + 0.6 * jitter(len(dots)), s=5,
                    color="#000000", edgecolor="none", alpha=0.7, rasterized=True, zorder=5,
                )  # fmt: skip
            write_y(one, [group_name(names[r]) for r in rows])
            one.xaxis.get_major_locator().set_params(integer=True)
            if one is axes[-1]:
                one.set_xlabel("z (0: as random genes of the same abundance)")
            one.set_title(title, loc="left", parse_math=False)
    return axes


def embedding(
    s: AnnData,
    *,
    color: str = keys.OBS_T_STATE,
    basis: str | None = None,
    max_points: int = 5 * MAX_POINTS,
    ax: Axes | None = None,
) -> Axes:
    """The file's own map (UMAP, t-SNE), coloured by a call, a label, an axis or a signature's z.

    Parameters
    ----------
    s
        Cells in score space.
    color
        Column of `obs`, or name of a signature.
    basis
        Key of `obsm`; by default a UMAP, else a t-SNE, else the first with two columns.
    max_points
        At most so many cells are drawn (the same ones every time); the picture says so.
    ax
        Where to draw.

    Returns
    -------
    Axes
        Distances on such maps mean little; use it to see where on it the called cells lie.
    """
    key = embedding_key(s, basis)
    with plain_style():
        ax = one_axes(ax, 6.0, 5.2)
        if key is None:
            return say(ax, "This file has no embedding (UMAP, t-SNE).")
        place = np.asarray(s.obsm[key], dtype=np.float64)[:, :2]
        cells = np.flatnonzero(np.isfinite(place).all(axis=1))
        drawn = thin(cells, max_points)
        size = float(np.clip(6000 / max(1, len(drawn)), 0.6, 14))
        column = s.obs.get(color)
        if column is not None and not _is_number(column):
            _embed_labels(ax, s, color, place, cells, drawn, size)
        else:
            values = column.to_numpy(dtype=np.float64) if column is not None else z_of(s, color)
            _embed_values(ax, values, place, drawn, size, color)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_aspect("equal", adjustable="datalim")
        name = clean_label(key.removeprefix("X_"), limit=20)
        thinned = (
            f"; {len(drawn):,} of {len(cells):,} cells drawn" if len(drawn) < len(cells) else ""
        )
        ax.set_xlabel(f"{name} of the file{thinned}", parse_math=False)
    return ax


def _is_number(column: pd.Series) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column.dtype)) and not bool(
        pd.api.types.is_bool_dtype(column.dtype)
    )


def _embed_labels(
    ax: Axes,
    s: AnnData,
    color: str,
    place: NDArray[np.float64],
    cells: NDArray[np.intp],
    drawn: NDArray[np.intp],
    size: float,
) -> None:
    codes, names = group_labels(s, color)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    fixed: Mapping[str, str] = {
        keys.OBS_T_STATE: T_STATE_COLORS,
        keys.OBS_LINEAGE: LINEAGE_COLORS,
        keys.OBS_SENESCENCE_CALL: CALL_COLORS,
    }.get(color, {})
    if fixed:
        order = [names.index(n) for n in fixed if n in names]
        colors = {i: fixed[names[i]] for i in order}
    else:
        order = [int(i) for i in np.argsort(-counts, kind="stable")][: len(OTHER_COLORS)]
        colors = dict(zip(order, OTHER_COLORS, strict=False))
    rest = int((~np.isin(codes, order)).sum())
    # small groups last, on top; cells of no group first
    outside = drawn[~np.isin(codes[drawn], order)]
    ax.scatter(
        place[outside, 0], place[outside, 1], s=size, color=MISSING_COLOR, edgecolor="none",
        rasterized=True,
    )  # fmt: skip
    quiet = [i for i in order if names[i] in (*BACKGROUND_STATES, "not_senescent")]
    loud = int(sum(counts[i] for i in order if i not in quiet))
    for i in quiet + sorted((i for i in order if i not in quiet), key=lambda i: -counts[i]):
        chosen = drawn[codes[drawn] == i]
        called = bool(fixed) and i not in quiet and color != keys.OBS_LINEAGE and loud < 3000
        ax.scatter(
            place[chosen, 0], place[chosen, 1], s=size * (2.5 if called else 1.0),
            color=colors[i], linewidth=0.2, edgecolor="#333333" if called else "none", rasterized=True,
            label=f"_{i}",
        )  # fmt: skip
    labels = [f"{group_name(names[i])} ({counts[i]:,})" for i in order]
    handles = [dot_mark(colors[i]) for i in order]
    if rest:
        unnamed = len(names) > len(order)
        handles.append(dot_mark(MISSING_COLOR))
        labels.append(
            f"{len(names) - len(order)} smaller groups, or none ({rest:,})"
            if unnamed
            else f"no value ({rest:,})"
        )
    add_legend(
        ax, handles, labels, outside=False, loc="lower center", bbox_to_anchor=(0.5, 1.0),
        columnspacing=1.0,
        handletextpad=0.2,
    )  # fmt: skip


def _embed_values(
    ax: Axes,
    values: NDArray[np.float64],
    place: NDArray[np.float64],
    drawn: NDArray[np.intp],
    size: float,
    color: str,
) -> None:
    known = drawn[np.isfinite(values[drawn])]
    unknown = drawn[~np.isfinite(values[drawn])]
    ax.scatter(
        place[unknown, 0], place[unknown, 1], s=size, color=MISSING_COLOR, edgecolor="none",
        rasterized=True,
    )  # fmt: skip
    if len(known) == 0:
        write_above(ax, f"{clean_label(color)}: no value")
        return
    known = known[np.argsort(values[known], kind="stable")]
    low, high = np.quantile(values[known], [0.01, 0.99])
    made = ax.scatter(
        place[known, 0], place[known, 1], s=size, c=values[known], cmap="viridis", edgecolor="none",
        vmin=float(low), vmax=float(high) if high > low else float(low) + 1, rasterized=True,
    )  # fmt: skip
    bar = ax.figure.colorbar(made, ax=ax, shrink=0.6, pad=0.02)
    bar.set_label(clean_label(color), parse_math=False)
    bar.outline.set_visible(False)
