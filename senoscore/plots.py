"""Pictures of a scored data set: each shows numbers that are in its tables, and says how many.

All functions read the AnnData in score space that :func:`senoscore.analyse` returns (or a table
written beside it), change nothing in it, and return the Axes they drew on. Labels come from public
files: they are drawn as plain text, never as mathematics. Where cells are thinned to keep a picture
readable, the picture says so, and every count still refers to all cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from senoscore import keys
from senoscore.errors import InputDataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from scipy import sparse

__all__ = [
    "CALL_COLORS",
    "LINEAGE_COLORS",
    "T_STATE_COLORS",
    "burden",
    "calibration",
    "coverage",
    "embedding",
    "lineages",
    "markers",
    "qc",
    "scores",
    "t_states",
]

# Okabe and Ito's colours: told apart with every common form of colour blindness
LINEAGE_COLORS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "T": "#0072B2",
        "B": "#E69F00",
        "NK": "#009E73",
        "mono_mac": "#D55E00",
        "neutrophil": "#F0E442",
        "DC": "#CC79A7",
        "other": "#8C8C8C",
    }
)
T_STATE_COLORS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "exhausted": "#D55E00",
        "senescent": "#0072B2",
        "both": "#000000",
        "senescent_like": "#56B4E9",
        "cycling": "#009E73",
        "neither": "#A6A6A6",
        "indeterminate": "#DCDCDC",
    }
)
CALL_COLORS: Final[Mapping[str, str]] = MappingProxyType(
    {"senescent": "#0072B2", "not_senescent": "#A6A6A6", "indeterminate": "#DCDCDC"}
)
# the shape repeats the colour, for print and for colour-blind readers
_STATE_SHAPES: Final = {
    "exhausted": "o",
    "senescent": "s",
    "both": "D",
    "senescent_like": "^",
    "cycling": "P",
    "neither": "o",
    "indeterminate": "o",
}
_OTHER_COLORS: Final = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#000000",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
)
_MISSING_COLOR: Final = "#E4E4E4"
_INK: Final = "#333333"
_DROPPED: Final = "#D55E00"
_KEPT: Final = "#7FA8C9"
_BACKGROUND_STATES: Final = ("neither", "indeterminate")

LINEAGE_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "T": "T cells",
        "B": "B cells",
        "NK": "NK cells",
        "mono_mac": "monocytes/macrophages",
        "neutrophil": "neutrophils",
        "DC": "dendritic cells",
        "other": "other cells",
    }
)
METRIC_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "total_counts": "counts per cell",
        "n_genes_by_counts": "genes per cell",
        "pct_counts_mt": "mitochondrial counts (%)",
        "pct_counts_ribo": "ribosomal counts (%)",
        "pct_counts_hb": "haemoglobin counts (%)",
        "pct_counts_in_top_50_genes": "counts in the 50 top genes (%)",
    }
)
_LOG_METRICS: Final = ("total_counts", "n_genes_by_counts")
MAX_POINTS: Final = 20_000
MAX_GROUPS: Final = 30
MAX_LABEL: Final = 36


# --------------------------------------------------------------------------------------------
# labels, numbers, places to draw


def clean_label(value: object, *, limit: int = MAX_LABEL) -> str:
    r"""A label as one short line: control characters out, the middle of a long one cut.

    Examples
    --------
    >>> clean_label("naive\nB")
    'naive B'
    >>> clean_label("a" * 50, limit=9)
    'aaaa…aaaa'
    """
    text = "".join(c if c.isprintable() else " " for c in str(value))
    text = " ".join(text.split()) or "(no name)"
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def percent(part: float, whole: float) -> str:
    r"""A share in words that do not pretend: 0 %, <0.1 %, 0.4 %, 12 %.

    Examples
    --------
    >>> [percent(k, 4000).replace("\N{NO-BREAK SPACE}", " ") for k in (0, 1, 18, 480, 4000)]
    ['0 %', '<0.1 %', '0.5 %', '12 %', '100 %']
    """
    if not whole:
        return "–"
    share = 100 * part / whole
    if part == 0:
        text = "0"
    elif share < 0.1:
        text = "<0.1"
    elif share < 9.95:
        text = f"{share:.1f}"
    elif part < whole and share >= 99.5:
        text = ">99"
    else:
        text = f"{share:.0f}"
    return f"{text}\N{NO-BREAK SPACE}%"


def plain_style() -> AbstractContextManager[None]:
    """The settings every picture is drawn with, undone on leaving."""
    import matplotlib as mpl

    return mpl.rc_context(
        {
            "text.parse_math": False,
            "text.usetex": False,
            "font.family": "sans-serif",
            "font.size": 9.0,
            "axes.titlesize": 10.0,
            "axes.labelsize": 9.0,
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "legend.fontsize": 8.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#777777",
            "axes.labelcolor": _INK,
            "text.color": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "axes.axisbelow": True,
            "axes.unicode_minus": True,
            "legend.frameon": False,
        }
    )


def _one_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The caller's Axes, or those of a new figure that a notebook shows."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    _, made = plt.subplots(figsize=(width, height), layout="constrained")
    return made


def _many_axes(
    ax: Axes | Sequence[Axes] | None, n: int, width: float, height: float, *, across: bool = True
) -> list[Axes]:
    """`n` Axes: the caller's, or those of a new figure, side by side or below each other."""
    if ax is None:
        import matplotlib.pyplot as plt

        shape = (1, n) if across else (n, 1)
        _, made = plt.subplots(*shape, figsize=(width, height), layout="constrained", squeeze=False)
        return list(made.ravel())
    given = list(ax) if isinstance(ax, Sequence | np.ndarray) else [ax]
    if len(given) != n:
        raise InputDataError(f"ax: {len(given)} Axes given where {n} pictures are to be drawn")
    return given


def _write_y(ax: Axes, labels: Sequence[str]) -> None:
    """Row labels, first row on top."""
    ax.set_yticks(np.arange(len(labels)), list(labels), parse_math=False)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _beside(ax: Axes, row: float, text: str) -> None:
    """A short text to the right of the axes, level with a row."""
    ax.annotate(
        text,
        (1.0, row),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        ha="left",
        fontsize=8,
        color="#555555",
        annotation_clip=False,
        parse_math=False,
    )


def _log_axis(ax: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis with few ticks, written as plain numbers (no mathematics to parse)."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    (ax.set_xlim if which == "x" else ax.set_ylim)(low, high)
    decades = np.log10(high) - np.log10(low)
    steps = (1.0,) if decades > 2.5 else ((1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0))
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [m * 10.0**e for e in powers for m in steps if low <= m * 10.0**e <= high]
    labels = [f"{v:,.0f}" if v >= 1 else f"{v:.10f}".rstrip("0") for v in ticks]
    axis.set_ticks(ticks, labels, parse_math=False)
    axis.set_ticks([], minor=True)


def _say(ax: Axes, text: str) -> Axes:
    """An empty picture that says why it is empty."""
    ax.set_axis_off()
    ax.text(
        0.5, 0.5, text, ha="center", va="center", wrap=True, parse_math=False,
        transform=ax.transAxes, color="#555555",
    )  # fmt: skip
    return ax


def _note(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=8, color="#555555", pad=4, parse_math=False)


def _legend(
    ax: Axes,
    handles: Sequence[Any],
    labels: Sequence[str],
    *,
    title: str | None = None,
    outside: bool = True,
    **kwargs: Any,
) -> None:
    """A legend whose texts are taken as they are, also those that begin with an underscore."""
    if not outside:
        kwargs["ncols"] = _n_columns(ax, labels)
    place: dict[str, Any] = (
        {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2} if outside else {}
    )
    made = ax.legend(handles, ["x"] * len(labels), title=title, alignment="left", **place, **kwargs)
    made.get_title().set_fontweight("bold")
    for text, label in zip(made.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def _n_columns(ax: Axes, labels: Sequence[str]) -> int:
    """As many columns as the width of the figure has room for, at most three."""
    width = float(ax.get_figure(root=True).get_figwidth())  # type: ignore[union-attr]
    longest = max((len(label) for label in labels), default=1)
    return max(1, min(3, len(labels), int(14.5 * (width - 0.4) / (longest + 4))))


def _dot(color: str, shape: str = "o", size: float = 6.0) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="none", marker=shape, markersize=size, markerfacecolor=color,
        markeredgecolor="#555555", markeredgewidth=0.4,
    )  # fmt: skip


def _patch(color: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor="#777777", linewidth=0.4)


def _jitter(n: int) -> NDArray[np.float64]:
    """Evenly spread offsets in [-0.5, 0.5) that look random and are always the same."""
    return np.asarray((np.arange(n) * 0.6180339887498949) % 1.0 - 0.5)


def _thin(cells: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """At most `n` of the cells, the same ones every time."""
    if len(cells) <= n:
        return cells
    return np.sort(np.random.default_rng(0).choice(cells, n, replace=False))


# --------------------------------------------------------------------------------------------
# reading the score space


def facts_of(s: AnnData) -> dict[str, Any]:
    """The facts of inspection stored with the scores; empty where they are not."""
    return _stored_json(s, "facts")


def settings_of(s: AnnData) -> dict[str, Any]:
    """The settings stored with the scores; empty where they are not."""
    return _stored_json(s, "settings")


def _stored_json(s: AnnData, name: str) -> dict[str, Any]:
    value = s.uns.get(keys.UNS, {}).get(name)
    if isinstance(value, str):
        value = json.loads(value)
    return dict(value) if isinstance(value, Mapping) else {}


def fact(s: AnnData, name: str) -> Any:
    """The value of one fact, None where unknown."""
    found = facts_of(s).get(name)
    return found.get("value") if isinstance(found, Mapping) else found


def has_counts(s: AnnData) -> bool:
    """Whether expression was read from counts (also where facts are not stored)."""
    return fact(s, "scale") in (None, "counts", "fractional_counts")


def fdr_of(s: AnnData) -> float:
    """The false-discovery rate at which scores were called."""
    from senoscore.settings import CallSettings

    return float(settings_of(s).get("call", {}).get("fdr", CallSettings().fdr))


def _column(s: AnnData, name: str, what: str) -> pd.Series:
    if name not in s.obs:
        near = ", ".join(str(c) for c in list(s.obs.columns)[:12])
        raise InputDataError(f"{what}: obs has no column {name!r}; it has {near}")
    return s.obs[name]


def group_labels(s: AnnData, name: str | None) -> tuple[NDArray[np.int64], list[str]]:
    """Codes (-1 is missing) and names of a grouping column, in the order of its categories.

    None as name puts all cells into one group.
    """
    import pandas as pd

    if name is None:
        return np.zeros(s.n_obs, np.int64), ["all cells"]
    column = _column(s, name, "groupby")
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("category")
    column = column.cat.remove_unused_categories()
    return column.cat.codes.to_numpy(np.int64), [str(c) for c in column.cat.categories]


def group_key(s: AnnData, groupby: str | None, *facts: str) -> str | None:
    """The asked-for column, else the first of the named facts that is a column of obs."""
    if groupby is not None:
        _column(s, groupby, "groupby")
        return groupby
    for name in facts:
        value = fact(s, name)
        if isinstance(value, str) and value in s.obs:
            return value
    return None


def _largest(counts: NDArray[np.int64], limit: int) -> tuple[list[int], list[int]]:
    """Groups to draw, in their own order, and the groups too small to get a row."""
    if len(counts) <= limit:
        return list(range(len(counts))), []
    by_size = np.argsort(-counts, kind="stable")
    return sorted(int(i) for i in by_size[:limit]), [int(i) for i in by_size[limit:]]


def _position(s: AnnData, signature: str) -> int:
    if signature not in s.var_names:
        known = ", ".join(str(v) for v in s.var_names[:8])
        raise InputDataError(f"no signature {signature!r} among the scores; there are {known}, …")
    return int(s.var_names.get_loc(signature))


def column_of(matrix: Any, position: int) -> NDArray[np.float64]:
    """One column of a matrix as float64, NaN kept."""
    values = matrix[:, [position]]
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values, dtype=np.float64).ravel()


def z_of(s: AnnData, signature: str) -> NDArray[np.float64]:
    """z of one signature, NaN where it is not scored."""
    return column_of(s.X, _position(s, signature))


def padj_of(s: AnnData, signature: str) -> NDArray[np.float64] | None:
    """Adjusted p of one signature, None where the method gives no p-values."""
    if keys.LAYER_PADJ not in s.layers:
        return None
    return column_of(s.layers[keys.LAYER_PADJ], _position(s, signature))


# --------------------------------------------------------------------------------------------
# distributions


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
                values, row + 0.5 * _jitter(len(values)), s=9, color=color, linewidth=0.3,
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
        _log_axis(ax, "x", low, high)
    else:
        ax.set_xlim(low, high)
    ax.grid(axis="x", color="#E5E5E5", linewidth=0.6)


def qc(
    s: AnnData,
    *,
    groupby: str | None = None,
    metrics: Sequence[str] = ("total_counts", "n_genes_by_counts", "pct_counts_mt"),
    limits: pd.DataFrame | None = None,
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
                _say(one, "No raw counts in this file:\nno quality measure can be shown.")
                for one in _many_axes(ax, 1, 5, 1.6)
            ]
    key = group_key(s, groupby, "sample", "donor")
    codes, names = group_labels(s, key)
    if (codes < 0).any():
        codes, names = np.where(codes < 0, len(names), codes), [*names, "(not stated)"]
    counts = np.bincount(codes, minlength=len(names))
    rows, rest = _largest(counts, MAX_GROUPS)
    passed = (
        s.obs[keys.OBS_QC_PASS].to_numpy(dtype=bool)
        if keys.OBS_QC_PASS in s.obs
        else np.ones(s.n_obs, bool)
    )
    if limits is None:
        stored = s.uns.get(keys.UNS, {}).get("qc_limits")
        limits = stored if isinstance(stored, pd.DataFrame) else None
    with plain_style():
        axes = _many_axes(ax, len(shown), 3.1 * len(shown) + 1.2, 1.1 + 0.3 * len(rows))
        for number, (one, metric) in enumerate(zip(axes, shown, strict=True)):
            values = s.obs[metric].to_numpy(dtype=np.float64)
            log = metric in _LOG_METRICS
            usable = np.isfinite(values) & ((values > 0) | (not log))
            low, high = _range(values[usable], log=log)
            members = [np.flatnonzero(usable & (codes == g)) for g in rows]
            _violins(
                one, [values[m] for m in members], [_KEPT] * len(rows), log=log, low=low,
                high=high, max_points=max_points,
            )  # fmt: skip
            budget = max(1, max_points // max(1, len(rows)))
            for row, (group, member) in enumerate(zip(rows, members, strict=True)):
                out = _thin(member[~passed[member]], budget)
                one.scatter(
                    np.clip(values[out], low, high), row + 0.55 * _jitter(len(out)), s=4,
                    color=_DROPPED, linewidth=0, alpha=0.6, rasterized=True, zorder=3,
                )  # fmt: skip
                for limit in _limits_of(limits, metric, names[group]):
                    if low <= limit <= high:
                        one.plot(
                            [limit, limit], [row - 0.42, row + 0.42], color="#000000",
                            linewidth=1.4, zorder=5,
                        )  # fmt: skip
            one.set_xlabel(METRIC_NAMES.get(metric, clean_label(metric)))
            _write_y(one, [clean_label(names[g], limit=24) for g in rows])
            if number and ax is None:
                one.tick_params(axis="y", labelleft=False)
        for row, group in enumerate(rows):
            kept = int((passed & (codes == group)).sum())
            _beside(axes[-1], row, f"{kept:,} of {counts[group]:,} kept")
        if rest:
            _note(axes[0], f"the {len(rows)} largest of {len(names)} groups")
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
    lineage = _column(s, keys.OBS_LINEAGE, "lineages").astype(str).to_numpy()
    if keys.OBS_QC_PASS in s.obs:
        codes = np.where(s.obs[keys.OBS_QC_PASS].to_numpy(dtype=bool), codes, -2)
    if (codes == -1).any():
        codes, names = np.where(codes == -1, len(names), codes), [*names, "(not stated)"]
    table = np.zeros((len(names), len(keys.LINEAGES)), np.int64)
    for j, name in enumerate(keys.LINEAGES):
        chosen = (lineage == name) & (codes >= 0)
        table[:, j] = np.bincount(codes[chosen], minlength=len(names))
    labels = [clean_label(n, limit=28) for n in names]
    rows, rest = _largest(table.sum(1), max_groups)
    if rest:
        labels = [*(labels[r] for r in rows), f"{len(rest):,} smaller groups"]
        table = np.vstack([table[rows], table[rest].sum(0, keepdims=True)])
    totals = table.sum(1)
    with plain_style():
        ax = _one_axes(ax, 6.4, 1.2 + 0.27 * len(labels))
        left = np.zeros(len(labels))
        for j, name in enumerate(keys.LINEAGES):
            share = 100 * table[:, j] / np.maximum(totals, 1)
            ax.barh(
                np.arange(len(labels)), share, left=left, height=0.74,
                color=LINEAGE_COLORS[name], edgecolor="white", linewidth=0.5,
            )  # fmt: skip
            left += share
        _write_y(ax, labels)
        ax.set_xlim(0, 100)
        ax.set_xlabel("share of cells that passed quality control (%)")
        for row, total in enumerate(totals):
            _beside(ax, row, f"{total:,}")
        present = [j for j in range(len(keys.LINEAGES)) if table[:, j].any()]
        _legend(
            ax,
            [_patch(LINEAGE_COLORS[keys.LINEAGES[j]]) for j in present],
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
        roles = s.var["role"].astype(str) if "role" in s.var else None
        wanted = [
            str(n) for i, n in enumerate(s.var_names) if roles is None or roles.iloc[i] == "axis"
        ]
    else:
        wanted = [signatures] if isinstance(signatures, str) else [str(n) for n in signatures]
    if not wanted:
        with plain_style():
            return [_say(a, "No signature to show.") for a in _many_axes(ax, 1, 5, 1.4)]
    codes, names = group_labels(s, groupby)
    fdr = fdr_of(s)
    drawn: list[tuple[str, NDArray[np.float64], NDArray[np.float64] | None, list[int]]] = []
    for name in wanted:
        z = z_of(s, name)
        counts = np.bincount(codes[np.isfinite(z) & (codes >= 0)], minlength=len(names))
        rows, _ = _largest(counts, max_groups)
        drawn.append((name, z, padj_of(s, name), [r for r in rows if counts[r]]))
    shown = [z[(codes >= 0) & np.isfinite(z)] for _, z, _, rows in drawn if rows]
    low, high = _z_range(np.concatenate(shown) if shown else np.zeros(0))
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
            axes = _many_axes(ax, len(wanted), 6.4, heights[0])
        for one, (name, z, padj, rows) in zip(axes, drawn, strict=True):
            title = clean_label(_fact_of_signature(s, name, "title") or name, limit=70)
            if not rows:
                why = clean_label(
                    _fact_of_signature(s, name, "reason") or "no cell it is valid in", limit=160
                )
                _say(one, f"{title}: not scored.\n{why}")
                continue
            members = [z[(codes == r) & np.isfinite(z)] for r in rows]
            colors = [LINEAGE_COLORS.get(names[r], _KEPT) for r in rows]
            one.axvline(0, color="#999999", linewidth=0.8, zorder=1)
            _violins(one, members, colors, log=False, low=low, high=high, max_points=2000)
            for row, r in enumerate(rows):
                here = codes == r
                n = int(np.isfinite(z[here]).sum())
                if padj is None:
                    _beside(one, row, f"{n:,} cells")
                    continue
                called = here & (padj <= fdr)
                k = int(called.sum())
                _beside(one, row, f"{percent(k, n)} called ({k:,} of {n:,})")
                chosen = np.flatnonzero(called)
                dots = _thin(chosen, 1000)
                one.scatter(
                    np.clip(z[dots], low, high), row + 0.6 * _jitter(len(dots)), s=5,
                    color="#000000", linewidth=0, alpha=0.7, rasterized=True, zorder=5,
                )  # fmt: skip
            _write_y(one, [_group_name(names[r]) for r in rows])
            one.xaxis.get_major_locator().set_params(integer=True)
            if one is axes[-1]:
                one.set_xlabel("z (0: as random genes of the same abundance)")
            one.set_title(title, loc="left", parse_math=False)
    return axes


def _group_name(name: str) -> str:
    return LINEAGE_NAMES.get(name, clean_label(name, limit=28))


def _z_range(z: NDArray[np.float64]) -> tuple[float, float]:
    if len(z) == 0:
        return -3.0, 6.0
    low, high = np.quantile(z, [0.0005, 0.9998])
    return min(-3.0, float(low) - 0.3), max(6.0, float(high) + 0.5)


def _fact_of_signature(s: AnnData, name: str, column: str) -> str:
    if column not in s.var:
        return ""
    import pandas as pd

    value = s.var[column].iloc[_position(s, name)]
    return "" if pd.isna(value) else str(value)


# --------------------------------------------------------------------------------------------
# T cells


def axis_level(s: AnnData, axis: str) -> float | None:
    """Smallest z of a T cell that is significant on this axis; None where no cell is."""
    from senoscore.calling import AXIS_SIGNATURES

    name = AXIS_SIGNATURES[axis][0]
    if name not in s.var_names or keys.OBS_LINEAGE not in s.obs:
        return None
    z, padj = z_of(s, name), padj_of(s, name)
    if padj is None:
        return None
    called = (s.obs[keys.OBS_LINEAGE].astype(str).to_numpy() == "T") & (padj <= fdr_of(s))
    return float(z[called].min()) if called.any() else None


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
        ax = _one_axes(ax, 6.4, 1.3 + 0.27 * len(frame))
        left = np.zeros(len(frame))
        for j, name in enumerate(keys.T_STATES):
            share = 100 * counts[:, j] / np.maximum(totals, 1)
            ax.barh(
                np.arange(len(frame)), share, left=left, height=0.74, linewidth=0.5,
                color=T_STATE_COLORS[name], edgecolor="white",
            )  # fmt: skip
            left += share
        _write_y(ax, [clean_label(v, limit=28) for v in frame[label]])
        ax.set_xlim(0, 100)
        ax.set_xlabel("share of T cells that passed quality control (%)")
        for row, total in enumerate(totals):
            _beside(ax, row, f"{total:,.0f}")
        _legend(
            ax, [_patch(T_STATE_COLORS[n]) for n in keys.T_STATES],
            [f"{n} ({counts[:, j].sum():,.0f})" for j, n in enumerate(keys.T_STATES)],
            outside=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2,
            handlelength=1.2,
        )  # fmt: skip
    return ax


def _axis_values(s: AnnData, axis: str) -> NDArray[np.float64]:
    axes = s.obsm.get(keys.OBSM_T_AXES)
    if axes is not None and hasattr(axes, "columns") and axis in axes.columns:
        return np.asarray(axes[axis], dtype=np.float64)
    return np.asarray(_column(s, f"T_{axis}", "t_states"), dtype=np.float64)


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
        At most about so many dots. Beyond that, cells with no programme become a grey density and
        every other state is thinned evenly; the picture says so and the legend counts all cells.
    ax
        Where to draw.

    Returns
    -------
    Axes
        Dashed lines: the lowest z that was significant on that axis. A state is decided by the
        rule in `obs["t_state_rule"]`, which looks at arms and vetoes beside these two axes, so
        that colours need not end at the lines.
    """
    is_t = _column(s, keys.OBS_LINEAGE, "t_states").astype(str).to_numpy() == "T"
    state = _column(s, keys.OBS_T_STATE, "t_states").astype(object).to_numpy()
    across, up = _axis_values(s, x), _axis_values(s, y)
    shown = is_t & np.isfinite(across) & np.isfinite(up)
    counts = {name: int((is_t & (state == name)).sum()) for name in keys.T_STATES}
    with plain_style():
        ax = _one_axes(ax, 6.0, 5.6)
        if not is_t.any():
            return _say(ax, "No T cells in this file.")
        if not shown.any():
            return _say(ax, f"{is_t.sum():,} T cells, but {x} and {y}\ncould not both be scored.")
        low_x, high_x = _z_range(across[shown])
        low_y, high_y = _z_range(up[shown])
        thinned = int(shown.sum()) > max_points
        notes = []
        if thinned:
            ground = np.flatnonzero(shown & np.isin(state, _BACKGROUND_STATES))
            if len(ground):
                ax.hexbin(
                    np.clip(across[ground], low_x, high_x), np.clip(up[ground], low_y, high_y),
                    gridsize=70, bins="log", cmap="Greys", mincnt=1, linewidths=0,
                    rasterized=True, extent=(low_x, high_x, low_y, high_y), alpha=0.75,
                )  # fmt: skip
                notes.append(f"grey: density of {len(ground):,} cells without a programme")
        order = ("indeterminate", "neither", "senescent_like", "cycling", "exhausted",
                 "senescent", "both")  # fmt: skip
        budget = max(1, max_points // 5)
        for name in order:
            cells = np.flatnonzero(shown & (state == name))
            if thinned and name in _BACKGROUND_STATES:
                continue
            drawn = _thin(cells, budget) if thinned else cells
            if len(drawn) < len(cells):
                notes.append(f"{len(drawn):,} of {len(cells):,} {name} drawn")
            quiet = name in _BACKGROUND_STATES
            ax.scatter(
                np.clip(across[drawn], low_x, high_x), np.clip(up[drawn], low_y, high_y),
                s=6 if quiet else 16, marker=_STATE_SHAPES[name], color=T_STATE_COLORS[name],
                edgecolor="none" if quiet else "#333333", linewidth=0.25,
                alpha=0.8 if quiet else 0.9, rasterized=len(drawn) > 200, zorder=2,
                label=f"_{name}",
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
                    fontsize=8, rotation=90 if axis == x else 0, color="#333333",
                )  # fmt: skip
        ax.set_xlim(low_x, high_x)
        ax.set_ylim(low_y, high_y)
        ax.set_xlabel(f"T_{x} (z)")
        ax.set_ylabel(f"T_{y} (z)")
        missing = int((is_t & ~shown).sum())
        if missing:
            notes.append(f"{missing:,} T cells without both scores are not drawn")
        _legend(
            ax,
            [
                _dot(T_STATE_COLORS[n], _STATE_SHAPES[n], 4 if n in _BACKGROUND_STATES else 6)
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
        ax = _one_axes(ax, 6.0, 5.2)
        if key is None:
            return _say(ax, "This file has no embedding (UMAP, t-SNE).")
        place = np.asarray(s.obsm[key], dtype=np.float64)[:, :2]
        cells = np.flatnonzero(np.isfinite(place).all(axis=1))
        drawn = _thin(cells, max_points)
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


def embedding_key(s: AnnData, basis: str | None = None) -> str | None:
    """Key of the embedding to draw: the asked-for one, else a UMAP, a t-SNE, any in two columns."""
    usable = [
        str(k)
        for k in s.obsm
        if k != keys.OBSM_T_AXES and np.ndim(s.obsm[k]) == 2 and np.shape(s.obsm[k])[1] >= 2
    ]
    if basis is not None:
        for name in (basis, f"X_{basis}"):
            if name in usable:
                return name
        raise InputDataError(
            f"no embedding {basis!r} in obsm; there are {', '.join(usable) or 'none'}"
        )
    for word in ("umap", "tsne"):
        for name in usable:
            if word in name.lower().replace("-", "").replace("_", ""):
                return name
    flat = [k for k in usable if np.shape(s.obsm[k])[1] == 2]
    return flat[0] if flat else None


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
        order = [int(i) for i in np.argsort(-counts, kind="stable")][: len(_OTHER_COLORS)]
        colors = dict(zip(order, _OTHER_COLORS, strict=False))
    rest = int((~np.isin(codes, order)).sum())
    # small groups last, on top; cells of no group first
    outside = drawn[~np.isin(codes[drawn], order)]
    ax.scatter(
        place[outside, 0], place[outside, 1], s=size, color=_MISSING_COLOR, linewidth=0,
        rasterized=True,
    )  # fmt: skip
    quiet = [i for i in order if names[i] in (*_BACKGROUND_STATES, "not_senescent")]
    for i in quiet + sorted((i for i in order if i not in quiet), key=lambda i: -counts[i]):
        chosen = drawn[codes[drawn] == i]
        called = bool(fixed) and i not in quiet and color != keys.OBS_LINEAGE
        ax.scatter(
            place[chosen, 0], place[chosen, 1], s=size * (2.5 if called else 1.0),
            color=colors[i], linewidth=0.2 if called else 0, edgecolor="#333333", rasterized=True,
            label=f"_{i}",
        )  # fmt: skip
    labels = [f"{_group_name(names[i])} ({counts[i]:,})" for i in order]
    handles = [_dot(colors[i]) for i in order]
    if rest:
        unnamed = len(names) > len(order)
        handles.append(_dot(_MISSING_COLOR))
        labels.append(
            f"{len(names) - len(order)} smaller groups, or none ({rest:,})"
            if unnamed
            else f"no value ({rest:,})"
        )
    _legend(
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
        place[unknown, 0], place[unknown, 1], s=size, color=_MISSING_COLOR, linewidth=0,
        rasterized=True,
    )  # fmt: skip
    if len(known) == 0:
        _note(ax, f"{clean_label(color)}: no value")
        return
    known = known[np.argsort(values[known], kind="stable")]
    low, high = np.quantile(values[known], [0.01, 0.99])
    made = ax.scatter(
        place[known, 0], place[known, 1], s=size, c=values[known], cmap="viridis", linewidth=0,
        vmin=float(low), vmax=float(high) if high > low else float(low) + 1, rasterized=True,
    )  # fmt: skip
    bar = ax.figure.colorbar(made, ax=ax, shrink=0.6, pad=0.02)
    bar.set_label(clean_label(color), parse_math=False)
    bar.outline.set_visible(False)


def marker_groups(state: str, *, organism: str = "human") -> dict[str, list[str]]:
    """Genes to look at for a T-cell state, by what they do in the call; a down gene ends with ``-``.

    Taken from the signatures that make the call, with the genes both states share, which do not
    vote.
    """
    from senoscore import calling
    from senoscore.signatures import read_signatures

    shipped = read_signatures()

    def genes(name: str, *, least: float = 0.0, voting: bool = True) -> list[str]:
        if name not in shipped:
            return []
        signature = shipped[name]
        if organism not in signature.species:
            return []
        signature = signature.for_organism(organism)
        return [
            g.symbol + ("-" if g.direction < 0 else "")
            for g in signature.genes
            if (g.votes or not voting) and abs(g.weight) >= least
        ]

    if state == "exhausted":
        groups = {
            "votes for exhaustion": genes(calling.AXIS_SIGNATURES["exhaustion"][0], least=0.25),
            "progenitor": genes(calling.PROGENITOR, least=0.5),
            "terminal": genes(calling.TERMINAL, least=0.5),
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
        ax = _one_axes(ax, 6.4, 1.4 + 0.21 * n_rows)
        if not columns:
            return _say(ax, "None of the markers is measured, or no cell has a group.")
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
        ax.set_xlim(-0.7, len(columns) - 0.3)
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

        _legend(
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
            labelspacing=0.9,
        )  # fmt: skip
    return ax


# --------------------------------------------------------------------------------------------
# what the scores rest on


def coverage(s: AnnData, *, max_signatures: int = 80, ax: Axes | None = None) -> Axes:
    """How much of each signature the file measures, and which signatures are therefore not scored.

    Parameters
    ----------
    s
        Cells in score space.
    max_signatures
        At most so many rows, worst coverage first.
    ax
        Where to draw.

    Returns
    -------
    Axes
        Bars: share of the signature's voting weight that is measured. Grey: not scored. The
        dashed line is the floor of the settings. Beside it: genes found of genes that vote.
    """
    from senoscore.settings import ScoreSettings

    var = s.var
    share = 100 * var["coverage"].to_numpy(dtype=np.float64)
    scored = (var["status"].astype(str) == "scored").to_numpy()
    order = np.lexsort((np.asarray(var.index, dtype=str), -share, ~scored))[:max_signatures]
    floor = float(settings_of(s).get("score", {}).get("min_coverage", ScoreSettings().min_coverage))
    with plain_style():
        ax = _one_axes(ax, 6.4, 0.9 + 0.2 * len(order))
        ax.barh(
            np.arange(len(order)), np.nan_to_num(share[order]), height=0.72,
            color=[_KEPT if scored[i] else "#C8C8C8" for i in order], edgecolor="none",
        )  # fmt: skip
        ax.axvline(100 * floor, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
        _write_y(ax, [clean_label(var.index[i], limit=34) for i in order])
        for row, i in enumerate(order):
            tail = "" if scored[i] else "  not scored"
            _beside(ax, row, f"{int(var['n_found'].iloc[i])}/{int(var['n_genes'].iloc[i])}{tail}")
        ax.set_xlim(0, 100)
        ax.set_xlabel("voting weight that the file measures (%)")
        if len(order) < len(var):
            _note(ax, f"{len(order)} of {len(var)} signatures")
    return ax


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
        nominal rate at .05, .01 and .001, over all depths; honest p-values lie on the diagonal.
    """
    with plain_style():
        axes = _many_axes(ax, 2, 7.6, 3.4, across=True) if ax is None else _many_axes(ax, 2, 0, 0)
        if len(table) == 0:
            for one in axes:
                _say(one, "No calibration: no lineage\nhas enough cells for a null.")
            return axes
        levels = [float(c.removeprefix("fpr_")) for c in table.columns if str(c).startswith("fpr_")]
        left, right = axes
        present = [n for n in keys.LINEAGES if n in set(table["lineage"].astype(str))]
        present += [n for n in dict.fromkeys(table["lineage"].astype(str)) if n not in present]
        for number, name in enumerate(present):
            rows = table[table["lineage"].astype(str) == name].sort_values("depth_stratum")
            color = LINEAGE_COLORS.get(name, _OTHER_COLORS[number % len(_OTHER_COLORS)])
            top = max(levels)
            rate = 100 * rows[f"fpr_{top:g}"].to_numpy(dtype=np.float64)
            error = 200 * rows[f"se_{top:g}"].to_numpy(dtype=np.float64)
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
        left.axhline(100 * max(levels), color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
        depth = table["depth_median"].to_numpy(dtype=np.float64)
        depth = depth[depth > 0]
        low, high = (depth.min() / 1.4, depth.max() * 1.4) if len(depth) else (1.0, 10.0)
        _log_axis(left, "x", float(low), float(high))
        left.set_ylim(0, max(100 * 2.2 * max(levels), left.get_ylim()[1]))
        left.set_xlabel("depth (median counts per cell)")
        left.set_ylabel(f"random sets with p ≤ {max(levels):g} (%)")
        corner = (min(levels) / 3, max(levels) * 3)
        right.plot(corner, corner, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
        _log_axis(right, "x", *corner)
        _log_axis(right, "y", *corner)
        right.set_xlabel("nominal p")
        right.set_ylabel("observed share")
        _legend(
            left,
            [_dot(LINEAGE_COLORS.get(n, _OTHER_COLORS[i % 12])) for i, n in enumerate(present)],
            [_group_name(n) for n in present],
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
    rows = table[table["lineage"].astype(str) == lineage]
    # a table by subset also holds the whole lineage, or is summed by whoever asks for it
    rows = rows.drop_duplicates("donor")
    with plain_style():
        if len(rows) == 0:
            return _say(_one_axes(ax, 5, 1.4), f"No {LINEAGE_NAMES.get(lineage, lineage)}.")
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
        ax = _one_axes(ax, 6.4, 1.1 + 0.3 * len(kept))
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
                share[known], place[known] + offset, s=26, marker=_STATE_SHAPES[state],
                color=T_STATE_COLORS[state], edgecolor="#333333", linewidth=0.4, zorder=3,
                label=f"_{state}",
            )  # fmt: skip
        labels = []
        for name, group in zip(kept["_name"], kept["_condition"], strict=True):
            tail = f" ({clean_label(group, limit=18)})" if group else ""
            labels.append(clean_label(name, limit=24) + tail)
        _write_y(ax, labels)
        for row, (n, share) in enumerate(zip(kept["n_qc_pass"], kept[series[0][0]], strict=True)):
            few = "" if np.isfinite(share) else ": too few"
            _beside(ax, row, f"{int(n):,} cells{few}")
        ax.set_xlim(left=0)
        ax.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        ax.set_xlabel(f"share of the donor's {LINEAGE_NAMES.get(lineage, lineage)} (%)")
        _legend(
            ax, [_dot(T_STATE_COLORS[n], _STATE_SHAPES[n]) for _, n in series],
            [n for _, n in series], outside=False, loc="lower left", bbox_to_anchor=(0, 1),
            handletextpad=0.2,
        )  # fmt: skip
        if len(kept) < len(rows):
            ax.text(
                1.0, 1.01, f"{len(kept)} of {len(rows)} donors", transform=ax.transAxes,
                ha="right", fontsize=8, color="#555555",
            )  # fmt: skip
    return ax
