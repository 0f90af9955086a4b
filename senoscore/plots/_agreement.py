"""A picture of how published sets, our sets and our calls agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from senoscore.plots._drawing import (
    LINEAGE_NAMES,
    clean_label,
    one_axes,
    plain_style,
    require_table,
    say,
    write_y,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_COLOURS: Final = "PuOr_r"  # purple and orange are told apart with every colour blindness


def agreement(table: pd.DataFrame, *, lineage: str = "T", ax: Axes | None = None) -> Axes:
    """How far published sets, our sets and our calls agree on the cells of one lineage.

    Parameters
    ----------
    table
        ``agreement.tsv``: one row per lineage and pair.
    lineage
        Whose cells.
    ax
        Where to draw.

    Returns
    -------
    Axes
        A square per pair; the numbers of the columns are those of the rows. Below the diagonal
        Spearman's correlation of z, and for a call against a set 2 × AUROC - 1, which also is 0
        for no relation and 1 for the same order. Above it Cohen's kappa of the cells that are
        called. Empty: not defined, such as kappa where neither calls a cell.
    """
    require_table(table, "agreement.tsv", "lineage", "a", "b", "spearman")
    rows = table[table["lineage"].astype(str) == lineage]
    with plain_style():
        if len(rows) == 0:
            name = LINEAGE_NAMES.get(lineage, clean_label(lineage))
            return say(one_axes(ax, 5, 1.4), f"No published set is scored in {name}.")
        names, shown = _square(rows)
        ax = one_axes(ax, 2.4 + 0.38 * len(names), 1.0 + 0.28 * len(names))
        ax.imshow(shown, cmap=_COLOURS, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        for i, j in np.argwhere(np.isfinite(shown)):
            value = shown[i, j]
            ax.text(
                j, i, f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1), ha="center", va="center", fontsize=7,
                color="white" if abs(value) > 0.6 else "#222222",
            )  # fmt: skip
        write_y(ax, [f"{clean_label(n, limit=34)}  {k + 1}" for k, n in enumerate(names)])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xticks(np.arange(len(names)), [str(k + 1) for k in range(len(names))])
        ax.tick_params(length=0)
        ax.set_xlabel("below: ranks of z; above: kappa of calls")
    return ax


def _square(rows: pd.DataFrame) -> tuple[list[str], NDArray[np.float64]]:
    """Names in the order of the table, and the numbers: ranks below the diagonal, kappa above."""
    names = list(dict.fromkeys([*rows["a"].astype(str), *rows["b"].astype(str)]))
    place = {name: k for k, name in enumerate(names)}
    shown = np.full((len(names), len(names)), np.nan)
    a = np.asarray([place[n] for n in rows["a"].astype(str)])
    b = np.asarray([place[n] for n in rows["b"].astype(str)])
    rank = rows["spearman"].to_numpy(np.float64)
    area = rows["auroc"].to_numpy(np.float64)
    shown[b, a] = np.where(np.isnan(rank), 2 * area - 1, rank)
    shown[a, b] = rows["kappa"].to_numpy(np.float64)
    return names, shown
