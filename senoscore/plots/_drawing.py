"""Colours, labels, numbers in words, and places to draw: what all pictures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from senoscore.errors import InputDataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


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
STATE_SHAPES: Final = {
    "exhausted": "o",
    "senescent": "s",
    "both": "D",
    "senescent_like": "^",
    "cycling": "P",
    "neither": "o",
    "indeterminate": "o",
}


OTHER_COLORS: Final = (
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


MISSING_COLOR: Final = "#E4E4E4"


_INK: Final = "#333333"


DROPPED: Final = "#D55E00"


KEPT: Final = "#7FA8C9"


BACKGROUND_STATES: Final = ("neither", "indeterminate")


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


LOG_METRICS: Final = ("total_counts", "n_genes_by_counts")


MAX_POINTS: Final = 20_000


MAX_GROUPS: Final = 30


MAX_LABEL: Final = 36


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


def one_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The caller's Axes, or those of a new figure that a notebook shows."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    _, made = plt.subplots(figsize=(width, height), layout="constrained")
    return made


def many_axes(
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


def require_table(table: Any, file: str, *columns: str) -> None:
    """Refuse what is not the table that a picture is of: an AnnData, or another table."""
    lacking = [c for c in columns if c not in getattr(table, "columns", ())]
    if lacking:
        raise InputDataError(
            f"this picture is of a table such as {file}, with the columns {', '.join(columns)}; found "
            f"{type(table).__name__} without {', '.join(lacking)}"
        )


def write_y(ax: Axes, labels: Sequence[str]) -> None:
    """Row labels, first row on top."""
    ax.set_yticks(np.arange(len(labels)), list(labels), parse_math=False)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def write_beside(ax: Axes, row: float, text: str) -> None:
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


def log_axis(ax: Axes, which: str, low: float, high: float) -> None:
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


def say(ax: Axes, text: str) -> Axes:
    """An empty picture that says why it is empty."""
    ax.set_axis_off()
    ax.text(
        0.5, 0.5, text, ha="center", va="center", wrap=True, parse_math=False,
        transform=ax.transAxes, color="#555555",
    )  # fmt: skip
    return ax


def write_above(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=8, color="#555555", pad=4, parse_math=False)


def add_legend(
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
        kwargs.setdefault("ncols", _n_columns(ax, labels))
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


def dot_mark(color: str, shape: str = "o", size: float = 6.0) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="none", marker=shape, markersize=size, markerfacecolor=color,
        markeredgecolor="#555555", markeredgewidth=0.4,
    )  # fmt: skip


def patch_mark(color: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor="#777777", linewidth=0.4)


def jitter(n: int) -> NDArray[np.float64]:
    """Evenly spread offsets in [-0.5, 0.5) that look random and are always the same."""
    return np.asarray((np.arange(n) * 0.6180339887498949) % 1.0 - 0.5)


def thin(cells: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """At most `n` of the cells, the same ones every time."""
    if len(cells) <= n:
        return cells
    return np.sort(np.random.default_rng(0).choice(cells, n, replace=False))


def group_name(name: str) -> str:
    return LINEAGE_NAMES.get(name, clean_label(name, limit=28))


def z_range(z: NDArray[np.float64]) -> tuple[float, float]:
    if len(z) == 0:
        return -3.0, 6.0
    low, high = np.quantile(z, [0.0005, 0.9998])
    return min(-3.0, float(low) - 0.3), max(6.0, float(high) + 0.5)
