"""Pictures of tables: coverage, calibration, what each donor carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from senoscore import keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

from senoscore.plots._drawing import (
    KEPT,
    LINEAGE_COLORS,
    LINEAGE_NAMES,
    OTHER_COLORS,
    STATE_SHAPES,
    T_STATE_COLORS,
    add_legend,
    clean_label,
    dot_mark,
    group_name,
    log_axis,
    many_axes,
    one_axes,
    plain_style,
    require_table,
    say,
    write_above,
    write_beside,
    write_y,
)
from senoscore.plots._space import settings_of, signature_table


def coverage(
    s: AnnData,
    *,
    signatures: Sequence[str] | None = None,
    max_signatures: int = 80,
    ax: Axes | None = None,
) -> Axes:
    """How much of each signature the file measures, and which signatures are therefore not scored.

    Parameters
    ----------
    s
        Cells in score space.
    signatures
        Which; by default all.
    max_signatures
        At most so many rows.
    ax
        Where to draw.

    Returns
    -------
    Axes
        Bars: share of the signature's voting weight that is measured. Grey: not scored. The
        dashed line is the floor of the settings. Beside it: genes found of genes that vote.
    """
    from senoscore.settings import ScoreSettings

    table = signature_table(s)
    var = table if signatures is None else table.loc[list(signatures)]
    share = 100 * var["coverage"].to_numpy(dtype=np.float64)
    scored = (var["status"].astype(str) == "scored").to_numpy()
    order = np.lexsort((np.asarray(var.index, dtype=str), -share, ~scored))[:max_signatures]
    floor = float(settings_of(s).get("score", {}).get("min_coverage", ScoreSettings().min_coverage))
    with plain_style():
        ax = one_axes(ax, 6.4, 0.9 + 0.2 * len(order))
        ax.barh(
            np.arange(len(order)), np.nan_to_num(share[order]), height=0.72,
            color=[KEPT if scored[i] else "#C8C8C8" for i in order], edgecolor="none",
        )  # fmt: skip
        ax.axvline(100 * floor, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
        write_y(ax, [clean_label(var.index[i], limit=34) for i in order])
        for row, i in enumerate(order):
            tail = "" if scored[i] else "  not scored"
            write_beside(
                ax, row, f"{int(var['n_found'].iloc[i])}/{int(var['n_genes'].iloc[i])}{tail}"
            )
        ax.set_xlim(0, 100)
        ax.set_xlabel("voting weight that the file measures (%)")
        if len(order) < len(table):
            write_above(ax, f"{len(order)} of {len(table)} signatures")
    return ax


_LEVEL = 0.05  # the rate that is shown over depth


def calibration(table: pd.DataFrame, *, ax: Axes | Sequence[Axes] | None = None) -> list[Axes]:
    """Do p-values mean what they say? False positives of held-back random gene sets.

    Parameters
    ----------
    table
        ``calibration.tsv``: one row per lineage and depth stratum.
    ax
        Two Axes.

    Returns
    -------
    list of two Axes
        Left: false-positive rate at p ≤ .05 against sequencing depth, one line per lineage, bars
        of two standard errors; the dashed line is what it should be. Right: observed against
        nominal rate from .5 to .0001, over all depths (a QQ plot of p-values at round numbers);
        honest p-values lie on the diagonal.
    """
    require_table(table, "calibration.tsv", "lineage", "depth_stratum", "fpr_0.05")
    with plain_style():
        axes = many_axes(ax, 2, 7.6, 3.4, across=True) if ax is None else many_axes(ax, 2, 0, 0)
        if len(table) == 0:
            for one in axes:
                say(one, "No calibration: no lineage\nhas enough cells for a null.")
            return axes
        levels = [float(c.removeprefix("fpr_")) for c in table.columns if str(c).startswith("fpr_")]
        left, right = axes
        present = [n for n in keys.LINEAGES if n in set(table["lineage"].astype(str))]
        present += [n for n in dict.fromkeys(table["lineage"].astype(str)) if n not in present]
        for number, name in enumerate(present):
            rows = table[table["lineage"].astype(str) == name].sort_values("depth_stratum")
            color = LINEAGE_COLORS.get(name, OTHER_COLORS[number % len(OTHER_COLORS)])
            rate = 100 * rows[f"fpr_{_LEVEL:g}"].to_numpy(dtype=np.float64)
            error = 200 * rows[f"se_{_LEVEL:g}"].to_numpy(dtype=np.float64)
            left.errorbar(
                rows["depth_median"], rate, yerr=np.nan_to_num(error), color=color, marker="o",
                markersize=4, linewidth=1.1, elinewidth=0.7, markeredgecolor="#555555",
                markeredgewidth=0.3,
            )  # fmt: skip
            weight = rows["n_cells"].to_numpy(dtype=np.float64)
            observed = [
                _weighted(rows[f"fpr_{level:g}"].to_numpy(dtype=np.float64), weight)
                for level in levels
            ]
            shown = [(a, b) for a, b in zip(levels, observed, strict=True) if b > 0]
            right.plot(
                [a for a, _ in shown], [b for _, b in shown], color=color, marker="o",
                markersize=4, linewidth=1.0, markeredgecolor="#555555", markeredgewidth=0.3,
            )  # fmt: skip
        left.axhline(100 * _LEVEL, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
        depth = table["depth_median"].to_numpy(dtype=np.float64)
        depth = depth[depth > 0]
        low, high = (depth.min() / 1.4, depth.max() * 1.4) if len(depth) else (1.0, 10.0)
        log_axis(left, "x", float(low), float(high))
        left.set_ylim(0, max(100 * 2.2 * _LEVEL, left.get_ylim()[1]))
        left.set_xlabel("depth (median per cell)")
        left.set_ylabel(f"random sets with p ≤ {_LEVEL:g} (%)")
        corner = (min(levels) / 3, min(max(levels) * 3, 1.0))
        right.plot(corner, corner, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
        log_axis(right, "x", *corner)
        log_axis(right, "y", *corner)
        right.set_xlabel("nominal p")
        right.set_ylabel("observed share")
        add_legend(
            left,
            [dot_mark(LINEAGE_COLORS.get(n, OTHER_COLORS[i % 12])) for i, n in enumerate(present)],
            [group_name(n) for n in present],
            outside=False,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            columnspacing=1.0,
            handletextpad=0.2,
        )
    return axes


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else 0.0


def burden(
    table: pd.DataFrame,
    *,
    lineage: str = "T",
    condition: Mapping[str, str] | None = None,
    max_donors: int = 60,
    ax: Axes | None = None,
) -> Axes:
    """Share of each donor's cells that were called, with its interval.

    Parameters
    ----------
    table
        ``donors.tsv``: one row per donor and lineage.
    lineage
        Whose cells. For T cells exhausted and senescent are drawn beside each other.
    condition
        Donor → condition: donors of one condition stand together.
    max_donors
        The donors with most cells get a row; the picture says how many there are.
    ax
        Where to draw.

    Returns
    -------
    Axes
        Dot: share of the donor's cells that passed quality control. Line: 95 % interval of that
        share, which says how well this donor's cells determine it, not how donors differ.
        Donors with too few cells have no dot.
    """
    require_table(table, "donors.tsv", "donor", "lineage", "n_qc_pass")
    rows = table[table["lineage"].astype(str) == lineage]
    # a table by subset also holds the whole lineage, or is summed by whoever asks for it
    rows = rows.drop_duplicates("donor")
    with plain_style():
        if len(rows) == 0:
            return say(one_axes(ax, 5, 1.4), f"No {LINEAGE_NAMES.get(lineage, lineage)}.")
        kept = rows.sort_values("n_qc_pass", ascending=False, kind="stable")[:max_donors]
        names = {str(d): str((condition or {}).get(str(d), "")) for d in kept["donor"]}
        kept = kept.assign(
            _condition=[names[str(d)] for d in kept["donor"]],
            _name=[str(d) for d in kept["donor"]],
        ).sort_values(["_condition", "_name"], kind="stable")
        series = (
            [("frac_t_exhausted", "exhausted"), ("frac_t_senescent", "senescent")]
            if lineage == "T"
            else [("frac_senescent", "senescent")]
        )
        ax = one_axes(ax, 6.4, 1.1 + 0.3 * len(kept))
        place = np.arange(len(kept), dtype=np.float64)
        for k, (column, state) in enumerate(series):
            offset = 0.0 if len(series) == 1 else (k - 0.5) * 0.34
            share = 100 * kept[column].to_numpy(dtype=np.float64)
            low = 100 * kept[f"{column}_low"].to_numpy(dtype=np.float64)
            high = 100 * kept[f"{column}_high"].to_numpy(dtype=np.float64)
            known = np.isfinite(share)
            ax.hlines(
                place[known] + offset, low[known], high[known], color=T_STATE_COLORS[state],
                linewidth=1.3,
            )  # fmt: skip
            ax.scatter(
                share[known], place[known] + offset, s=26, marker=STATE_SHAPES[state],
                color=T_STATE_COLORS[state], edgecolor="#333333", linewidth=0.4, zorder=3,
                label=f"_{state}",
            )  # fmt: skip
        labels = []
        for name, group in zip(kept["_name"], kept["_condition"], strict=True):
            tail = f" ({clean_label(group, limit=18)})" if group else ""
            labels.append(clean_label(name, limit=24) + tail)
        write_y(ax, labels)
        for row, (n, share) in enumerate(zip(kept["n_qc_pass"], kept[series[0][0]], strict=True)):
            few = "" if np.isfinite(share) else ": too few"
            write_beside(ax, row, f"{int(n):,} cells{few}")
        right = max(1.0, ax.get_xlim()[1])
        ax.set_xlim(-0.02 * right, right)
        ax.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        ax.set_xlabel(f"share of the donor's {LINEAGE_NAMES.get(lineage, lineage)} (%)")
        add_legend(
            ax, [dot_mark(T_STATE_COLORS[n], STATE_SHAPES[n]) for _, n in series],
            [n for _, n in series], outside=False, loc="lower left", bbox_to_anchor=(0, 1),
            handletextpad=0.2,
        )  # fmt: skip
        if len(kept) < len(rows):
            ax.text(
                1.0, 1.01, f"{len(kept)} of {len(rows)} donors", transform=ax.transAxes,
                ha="right", fontsize=8, color="#555555",
            )  # fmt: skip
    return ax
