"""The picture of antibodies: who has the phenotype, and how well RNA would have said so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from senoscore import keys
from senoscore.errors import InputDataError
from senoscore.plots._drawing import (
    T_STATE_COLORS,
    add_legend,
    clean_label,
    dot_mark,
    many_axes,
    plain_style,
    say,
    thin,
    write_above,
    write_beside,
    write_y,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

GAINED: Final = ("CD57", "KLRG1")
LOST: Final = ("CD27", "CD28")
MAX_POINTS: Final = 4000
MAX_ROWS: Final = 14
_FIRST: Final = ("CD57", "KLRG1", "CD27", "CD28", "CD16", "CD45RA", "CCR7", "NKG2D", "NKG2A")


def protein(
    adata: AnnData, *, lineage: str = "T", ax: Axes | Sequence[Axes] | None = None
) -> list[Axes]:
    """Antibodies of T cells, and how well the RNA of their genes says the same.

    Parameters
    ----------
    adata
        From `senoscore.analyse` of a data set with antibodies, or after `senoscore.tl.protein`.
    lineage
        Whose cells the second picture is about.
    ax
        Two Axes.

    Returns
    -------
    list of two Axes
        First: each dot is a T cell, by a mark that senescent cells gain (CD57, else KLRG1) and one
        that they lose (CD27, else CD28); blue where the phenotype is called at a false discovery
        rate of .05. Second: how well the RNA of an antibody's gene tells positive from negative
        cells (AUROC; the dashed line is a coin); beside it the share of positive cells in which
        the RNA is seen at all.

    Raises
    ------
    InputDataError
        There are no antibodies.
    """
    told = adata.uns.get(keys.UNS, {}).get("protein")
    if told is None:
        raise InputDataError(
            "no antibodies here: run senoscore.tl.protein(adata), or analyse a data set that has them"
        )
    with plain_style():
        axes = many_axes(ax, 2, 5.0, 7.2, across=False)
        _phenotype(adata, str(told["why"]), axes[0])
        _agreement(pd.DataFrame(told["audit"]), lineage, axes[1])
    return axes


def _phenotype(adata: AnnData, why: str, ax: Axes) -> None:
    positive, clr = adata.obsm[keys.OBSM_PROTEIN_POSITIVE], adata.obsm[keys.OBSM_PROTEIN_CLR]
    arm = adata.obsm[keys.OBSM_PROTEIN_ARM]["padj"].to_numpy(np.float64)
    is_t = np.asarray(adata.obs[keys.OBS_LINEAGE] == "T")
    pair = [
        next((p for p in names if p in positive and positive.loc[is_t, p].notna().any()), None)
        for names in (GAINED, LOST)
    ]
    if None in pair or not np.isfinite(arm).any():
        say(ax, clean_label(why, limit=160))
        return
    known = np.flatnonzero(is_t & np.isfinite(arm))
    called = arm <= 0.05
    for cells, color, size in (
        (known[~called[known]], T_STATE_COLORS["neither"], 9),
        (known[called[known]], T_STATE_COLORS["senescent_like"], 12),
    ):
        shown = thin(cells, MAX_POINTS)
        ax.scatter(
            clr[pair[0]].to_numpy()[shown], clr[pair[1]].to_numpy()[shown], s=size, color=color,
            edgecolor="#555555", linewidth=0.2, rasterized=len(shown) > 1000,
        )  # fmt: skip
    ax.set_xlabel(f"{pair[0]} protein (centred log ratio)")
    ax.set_ylabel(f"{pair[1]} protein (centred log ratio)")
    n = int(called[known].sum())
    add_legend(
        ax,
        [dot_mark(T_STATE_COLORS["senescent_like"]), dot_mark(T_STATE_COLORS["neither"])],
        [f"phenotype called: {n:,} T cells", f"not called: {len(known) - n:,}"],
        outside=False, loc="lower left", bbox_to_anchor=(0, 1), handletextpad=0.2,
    )  # fmt: skip


def _agreement(table: pd.DataFrame, lineage: str, ax: Axes) -> None:
    rows = table[(table["lineage"] == lineage) & table["auroc"].notna()]
    rows = rows[rows["status"] == "separates"]
    if not len(rows):
        say(ax, f"No antibody separates in {lineage} cells with RNA of its gene beside it.")
        return
    order = {p: k for k, p in enumerate(_FIRST)}
    place = [
        (order.get(str(p), len(order)), -float(a))
        for p, a in zip(rows["protein"], rows["auroc"], strict=True)
    ]
    rows = rows.iloc[sorted(range(len(rows)), key=lambda k: place[k])][:MAX_ROWS]
    at = np.arange(len(rows))
    auroc = rows["auroc"].to_numpy(np.float64)
    ax.axvline(0.5, color="#555555", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.hlines(at, 0.5, auroc, color="#BBBBBB", linewidth=1.2)
    colors = ["#D55E00" if p == "CD57" else "#0072B2" for p in rows["protein"]]
    ax.scatter(auroc, at, s=34, c=colors, edgecolor="#333333", linewidth=0.4, zorder=3)
    genes = rows["compared_with"].astype(str).str.removesuffix(" RNA")
    write_y(ax, [f"{gene} for {p}" for p, gene in zip(rows["protein"], genes, strict=True)])
    for k, seen in enumerate(rows["frac_rna_in_positive"]):
        write_beside(ax, k, f"{100 * seen:.0f} %")
    ax.set_xlim(min(0.4, float(auroc.min()) - 0.03), 1.02)
    ax.set_xlabel("AUROC of RNA for protein-positive cells")
    write_above(ax, "beside: positive cells in which the RNA is seen")
