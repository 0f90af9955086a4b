"""Pictures of T cells: the map of states, their shares, their markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from senoscore import keys
from senoscore.errors import InputDataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from scipy import sparse

from senoscore.plots._drawing import (
    BACKGROUND_STATES,
    MAX_POINTS,
    STATE_SHAPES,
    T_STATE_COLORS,
    add_legend,
    clean_label,
    dot_mark,
    one_axes,
    patch_mark,
    plain_style,
    say,
    thin,
    write_beside,
    write_y,
    z_range,
)
from senoscore.plots._space import axis_level, fact, group_labels, has_counts, obs_column


def state_bars(frame: pd.DataFrame, *, label: str, ax: Axes | None = None) -> Axes:
    """T-cell states as stacked shares, one bar per row of a table.

    Parameters
    ----------
    frame
        One column per state of `keys.T_STATES` with numbers of cells.
    label
        Column that names the rows.
    ax
        Where to draw.
    """
    counts = frame[list(keys.T_STATES)].to_numpy(dtype=np.float64)
    totals = counts.sum(axis=1)
    with plain_style():
        ax = one_axes(ax, 6.4, 1.3 + 0.27 * len(frame))
        left = np.zeros(len(frame))
        for j, name in enumerate(keys.T_STATES):
            share = 100 * counts[:, j] / np.maximum(totals, 1)
            ax.barh(
                np.arange(len(frame)), share, left=left, height=0.74, linewidth=0.5,
                color=T_STATE_COLORS[name], edgecolor="white",
            )  # fmt: skip
            left += share
        write_y(ax, [clean_label(v, limit=28) for v in frame[label]])
        ax.set_xlim(0, 100)
        ax.set_xlabel("share of T cells that passed quality control (%)")
        for row, total in enumerate(totals):
            write_beside(ax, row, f"{total:,.0f}")
        add_legend(
            ax, [patch_mark(T_STATE_COLORS[n]) for n in keys.T_STATES],
            [f"{n} ({counts[:, j].sum():,.0f})" for j, n in enumerate(keys.T_STATES)],
            outside=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2,
            handlelength=1.2,
        )  # fmt: skip
    return ax


def _axis_values(s: AnnData, axis: str) -> NDArray[np.float64]:
    axes = s.obsm.get(keys.OBSM_T_AXES)
    if axes is not None and hasattr(axes, "columns") and axis in axes.columns:
        return np.asarray(axes[axis], dtype=np.float64)
    return np.asarray(obs_column(s, f"T_{axis}", "t_states"), dtype=np.float64)


def _thin_states(
    cells: NDArray[np.intp], state: NDArray[np.object_], n: int, *, keep: int = 200
) -> NDArray[np.intp]:
    """About `n` of the cells: all of a state of at most `keep`, the rest evenly."""
    if len(cells) <= n:
        return cells
    names, counts = np.unique(state[cells].astype(str), return_counts=True)
    rare = np.isin(state[cells].astype(str), names[counts <= keep])
    common = thin(cells[~rare], max(1, n - int(rare.sum())))
    return np.sort(np.concatenate([cells[rare], common]))


def t_states(
    s: AnnData,
    *,
    x: str = "exhaustion",
    y: str = "senescence",
    max_points: int = MAX_POINTS,
    ax: Axes | None = None,
) -> Axes:
    """The map of T cells: exhaustion to the right, senescence upwards, colour is the state.

    Parameters
    ----------
    s
        Cells in score space.
    x, y
        Two of the six axes in `keys.AXES`.
    max_points
        Up to so many T cells each is a dot. Beyond that, cells with no programme become a grey
        density and the others are thinned evenly, rare states not at all; the picture says so and
        the legend counts all cells.
    ax
        Where to draw.

    Returns
    -------
    Axes
        Dashed lines: the lowest z that was significant on that axis. A state is decided by the
        rule in `obs["t_state_rule"]`, which looks at arms and vetoes beside these two axes, so
        that colours need not end at the lines.
    """
    is_t = obs_column(s, keys.OBS_LINEAGE, "t_states").astype(str).to_numpy() == "T"
    state = obs_column(s, keys.OBS_T_STATE, "t_states").astype(object).to_numpy()
    across, up = _axis_values(s, x), _axis_values(s, y)
    shown = is_t & np.isfinite(across) & np.isfinite(up)
    counts = {name: int((is_t & (state == name)).sum()) for name in keys.T_STATES}
    with plain_style():
        ax = one_axes(ax, 6.0, 5.6)
        if not is_t.any():
            return say(ax, "No T cells in this file.")
        if not shown.any():
            return say(ax, f"{is_t.sum():,} T cells, but {x} and {y}\ncould not both be scored.")
        low_x, high_x = z_range(across[shown])
        low_y, high_y = z_range(up[shown])
        thinned = int(shown.sum()) > max_points
        xs, ys = np.clip(across, low_x, high_x), np.clip(up, low_y, high_y)
        notes = []
        ground = np.flatnonzero(shown & np.isin(state, BACKGROUND_STATES))
        called = np.flatnonzero(shown & ~np.isin(state, BACKGROUND_STATES))
        drawn = _thin_states(called, state, max_points // 2) if thinned else called
        if thinned and len(ground):
            ax.hexbin(
                xs[ground], ys[ground], gridsize=70, bins="log", cmap="Greys", mincnt=1,
                linewidths=0, rasterized=True, extent=(low_x, high_x, low_y, high_y), alpha=0.5,
            )  # fmt: skip
            notes.append(f"grey: density of {len(ground):,} cells without a programme")
        if len(drawn) < len(called):
            notes.append(f"{len(drawn):,} of {len(called):,} other cells drawn")
        # the more dots, the smaller; the rarer the state, the later it is drawn
        size = float(np.clip(16 * 1500 / max(1, len(drawn)), 3, 16))
        for name in sorted(keys.T_STATES, key=lambda n: (n not in BACKGROUND_STATES, -counts[n])):
            quiet = name in BACKGROUND_STATES
            if thinned and quiet:
                continue
            cells = (ground if quiet else drawn)[state[ground if quiet else drawn] == name]
            ax.scatter(
                xs[cells], ys[cells], s=6 if quiet else size, marker=STATE_SHAPES[name],
                color=T_STATE_COLORS[name], edgecolor="none" if quiet or size < 8 else "#333333",
                linewidth=0.25, alpha=0.8 if quiet else 0.9,
                rasterized=len(cells) > 200, zorder=2, label=f"_{name}",
            )  # fmt: skip
        for axis, draw, at in ((x, ax.axvline, 0.99), (y, ax.axhline, 0.99)):
            level = axis_level(s, axis)
            if level is not None:
                draw(level, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
                place = (level, at) if axis == x else (at, level)
                ax.annotate(
                    f"significant from {level:.1f}", place,
                    xycoords=("data", "axes fraction") if axis == x else ("axes fraction", "data"),
                    xytext=(3, 0) if axis == x else (0, 3), textcoords="offset points",
                    ha="left" if axis == x else "right", va="top" if axis == x else "bottom",
                    fontsize=8, rotation=90 if axis == x else 0, color="#333333", zorder=4,
                    bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.0},
                )  # fmt: skip
        ax.set_xlim(low_x, high_x)
        ax.set_ylim(low_y, high_y)
        ax.set_xlabel(f"T_{x} (z)")
        ax.set_ylabel(f"T_{y} (z)")
        missing = int((is_t & ~shown).sum())
        if missing:
            notes.append(f"{missing:,} T cells without both scores are not drawn")
        add_legend(
            ax,
            [
                dot_mark(T_STATE_COLORS[n], STATE_SHAPES[n], 4 if n in BACKGROUND_STATES else 6)
                for n in keys.T_STATES
            ],
            [f"{n} ({counts[n]:,})" for n in keys.T_STATES],
            outside=False,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.02),
            columnspacing=1.2,
            handletextpad=0.3,
            borderaxespad=0.0,
        )
        if notes:
            ax.text(
                0.0, -0.12, "; ".join(notes), transform=ax.transAxes, fontsize=7.5,
                color="#555555", va="top", wrap=True, parse_math=False,
            )  # fmt: skip
    return ax


def marker_groups(state: str, *, organism: str = "human") -> dict[str, list[str]]:
    """Genes to look at for a T-cell state, by what they do in the call; a down gene ends with ``-``.

    Taken from the signatures that make the call, with the genes both states share, which do not
    vote.
    """
    from senoscore import calling
    from senoscore.signatures import read_signatures

    shipped = read_signatures()

    def genes(name: str, *, most: int = 12) -> list[str]:
        """The voting genes of largest weight."""
        if name not in shipped or organism not in shipped[name].species:
            return []
        voting = shipped[name].for_organism(organism).voting()
        heaviest = sorted(voting, key=lambda g: -abs(g.weight))[:most]
        return [g.symbol + ("-" if g.direction < 0 else "") for g in heaviest]

    if state == "exhausted":
        groups = {
            "votes for exhaustion": genes(calling.AXIS_SIGNATURES["exhaustion"][0], most=16),
            "progenitor": genes(calling.PROGENITOR, most=6),
            "terminal": genes(calling.TERMINAL, most=10),
            "in both states: no vote": ["HAVCR2", "TIGIT", "CTLA4"],
        }
    elif state == "senescent":
        groups = {
            "phenotype arm": genes(calling.PHENOTYPE),
            **{f"{arm} arm": genes(name) for arm, name in calling.SUPPORT_ARMS.items()},
            "cytotoxic: no vote": ["GZMB", "PRF1", "NKG7", "GNLY"],
            "in both states: no vote": ["HAVCR2", "TIGIT", "CTLA4"],
        }
    else:
        raise InputDataError(f"state: {state!r} is not known; choose 'exhausted' or 'senescent'")
    if organism == "mouse":
        groups = {
            k: [g.capitalize() if "no vote" in k else g for g in v] for k, v in groups.items()
        }
    seen: set[str] = set()
    unique: dict[str, list[str]] = {}
    for heading, members in groups.items():
        new = [g for g in dict.fromkeys(members) if g.removesuffix("-") not in seen]
        seen.update(g.removesuffix("-") for g in new)
        if new:
            unique[heading] = new
    return unique


def marker_table(
    s: AnnData,
    panel: tuple[sparse.csr_matrix, Sequence[str], NDArray[Any]],
    *,
    genes: Sequence[str],
    groupby: str = keys.OBS_T_STATE,
    cells: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Detection and mean expression of genes by group.

    Returns
    -------
    DataFrame
        Columns `gene`, `group`, `n_cells`, `pct_detected` (0-100: cells with a value above 0) and
        `mean` (of log1p(CP10k), or of the stored values where the file has no counts); one row
        per gene that the panel holds and group that has cells.
    """
    import pandas as pd

    values, symbols, totals = panel
    if values.shape[0] != s.n_obs:
        raise InputDataError(
            f"panel has {values.shape[0]:,} cells, the scores {s.n_obs:,}: they are of two files"
        )
    counted = has_counts(s)
    where: dict[str, int] = {}
    for i, symbol in enumerate(symbols):
        where.setdefault(str(symbol), i)
    codes, names = group_labels(s, groupby)
    if cells is not None:
        codes = np.where(cells, codes, -1)
    columns = values.tocsc()
    scale = np.divide(
        1e4, totals, out=np.zeros(len(totals), np.float64), where=np.asarray(totals) > 0
    )
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    rows = []
    for gene in genes:
        position = where.get(gene.removesuffix("-"))
        if position is None:
            continue
        lo, hi = columns.indptr[position], columns.indptr[position + 1]
        at, stored = columns.indices[lo:hi], np.asarray(columns.data[lo:hi], np.float64)
        at, stored = at[stored > 0], stored[stored > 0]
        group = codes[at]
        inside = group >= 0
        detected = np.bincount(group[inside], minlength=len(names))
        total = np.bincount(
            group[inside], weights=(np.log1p(stored * scale[at]) if counted else stored)[inside],
            minlength=len(names),
        )  # fmt: skip
        rows += [
            (gene, names[j], int(counts[j]), 100 * detected[j] / counts[j], total[j] / counts[j])
            for j in range(len(names))
            if counts[j]
        ]
    return pd.DataFrame(rows, columns=["gene", "group", "n_cells", "pct_detected", "mean"])


def markers(
    s: AnnData,
    panel: tuple[sparse.csr_matrix, Sequence[str], NDArray[Any]],
    *,
    state: str = "exhausted",
    genes: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    groupby: str = keys.OBS_T_STATE,
    ax: Axes | None = None,
) -> Axes:
    """Markers of a T-cell state in every state: the larger the dot, the more cells express it.

    Parameters
    ----------
    s
        Cells in score space.
    panel
        Counts of the marker genes (cells × genes), their symbols, and all counts of each cell, as
        `senoscore.pipeline.read_panel` returns them.
    state
        "exhausted" or "senescent": whose markers.
    genes
        Other genes, or heading → genes; ``"CD27-"`` marks a gene expected to go down.
    groupby
        Column of `obs` that names the columns; groups without cells are left out.
    ax
        Where to draw.

    Returns
    -------
    Axes
        One dot per gene and group: area is the share of cells with at least one count, colour
        the mean log1p(CP10k) over all cells of the group. Genes that the file does not measure
        are marked so.
    """
    if genes is None:
        groups: dict[str, Sequence[str]] = dict(
            marker_groups(state, organism=str(fact(s, "organism") or "human"))
        )
    elif isinstance(genes, Mapping):
        groups = dict(genes)
    else:
        groups = {"": list(genes)}
    listed = [g for members in groups.values() for g in members]
    table = marker_table(s, panel, genes=listed, groupby=groupby)
    _, names = group_labels(s, groupby)
    fixed = list(keys.T_STATES) if groupby == keys.OBS_T_STATE else names
    columns = [n for n in fixed if n in set(table["group"])]
    with plain_style():
        n_rows = len(listed) + len(groups) * 0.9
        ax = one_axes(ax, 6.4, 1.4 + 0.21 * n_rows)
        if not columns:
            return say(ax, "None of the markers is measured, or no cell has a group.")
        sizes = dict(zip(table["group"], table["n_cells"], strict=True))
        found = set(table["gene"])
        ys: dict[str, float] = {}
        ticks: list[tuple[float, str]] = []
        y = 0.0
        for heading, members in groups.items():
            if heading:
                ax.text(
                    -0.6, y, clean_label(heading, limit=60), fontsize=8.5, fontweight="bold",
                    ha="left", va="center", parse_math=False,
                )  # fmt: skip
                y += 0.9
            for gene in members:
                ys[gene] = y
                name = gene.removesuffix("-") + (" ↓" if gene.endswith("-") else "")
                ticks.append((y, clean_label(name, limit=20)))
                if gene not in found:
                    ax.text(
                        -0.35, y, "not measured", fontsize=7.5, color="#8A8A8A", va="center",
                        style="italic",
                    )  # fmt: skip
                y += 1.0
        column_of_group = {name: j for j, name in enumerate(columns)}
        from matplotlib.colors import PowerNorm

        top = max(0.5, float(table["mean"].max()))
        made = ax.scatter(
            [column_of_group[g] for g in table["group"]], [ys[g] for g in table["gene"]],
            s=1.0 + 1.15 * table["pct_detected"], c=table["mean"], cmap="viridis_r",
            norm=PowerNorm(0.5, vmin=0, vmax=top), edgecolor="#555555", linewidth=0.3,
            clip_on=False,
        )  # fmt: skip
        ax.set_xlim(-0.7, max(len(columns), 5) - 0.3)
        ax.set_ylim(y - 0.3, -0.7)
        ax.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], parse_math=False)
        ax.set_xticks(
            range(len(columns)),
            [f"{clean_label(n, limit=18)} ({sizes[n]:,})" for n in columns],
            parse_math=False, rotation=40, rotation_mode="anchor", ha="left", fontsize=8,
        )  # fmt: skip
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(made, ax=ax, shrink=0.45, pad=0.03, anchor=(0.0, 1.0), aspect=14)
        bar.set_label("mean log1p(CP10k)" if has_counts(s) else "mean of the file's own values")
        bar.outline.set_visible(False)
        from matplotlib.lines import Line2D

        add_legend(
            ax,
            [
                Line2D(
                    [], [], linestyle="none", marker="o", markersize=float(np.sqrt(1 + 1.15 * p)),
                    markerfacecolor="#BBBBBB", markeredgecolor="#555555", markeredgewidth=0.3,
                )
                for p in (10, 50, 100)
            ],
            ["10 %", "50 %", "100 %"],
            title="cells expressing",
            outside=False,
            loc="lower left",
            bbox_to_anchor=(1.02, 0.0),
            ncols=1,
            labelspacing=0.9,
        )  # fmt: skip
    return ax
