"""A picture of an explanation: what each gene adds to a score, and which ones a call rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from senoscore.errors import InputDataError
from senoscore.plots import clean_label
from senoscore.plots._drawing import one_axes, plain_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from senoscore.explain import Explanation

# Okabe and Ito's vermilion and blue: told apart with every common form of colour blindness
_FOR, _AGAINST = "#D55E00", "#0072B2"
_INK: Final = "#333333"


def explain(
    explanation: Explanation,
    signature: str | None = None,
    *,
    group: str | None = None,
    max_genes: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Bars of the genes' contributions to z, largest first; a diamond where the call rests on one.

    Bars sum to the score in units of the cell's null spread, before the reference level of the
    lineage is taken off. For several cells they are means, and the number beside a gene is the
    share of the cells whose call is another without it.

    Parameters
    ----------
    explanation
        From `tl.explain`.
    signature
        Which signature; None takes the one with the largest mean z.
    group
        Which group (cell, state, or subset of the donor); None takes the first.
    max_genes
        Genes drawn; the sum of the others is the last bar.
    ax
        Where to draw.

    Returns
    -------
    The Axes.
    """
    group = group or str(explanation.groups["group"].iloc[0])
    genes = explanation.genes[explanation.genes["group"] == group]
    if genes.empty:
        known = ", ".join(map(str, explanation.groups["group"]))
        raise InputDataError(f"group '{group}' is not in this explanation; there are {known}")
    scores = explanation.scores[explanation.scores["group"] == group]
    if signature is None:
        signature = str(scores.groupby("signature")["z"].mean().idxmax())
    own = genes[genes["signature"] == signature]
    if own.empty:
        known = ", ".join(genes["signature"].unique())
        raise InputDataError(
            f"signature '{signature}' is not in this explanation; there are {known}"
        )
    z = float(scores.loc[scores["signature"] == signature, "z"].mean())
    n = int(own["n_cells"].max())
    with plain_style():
        return _draw(own, f"{clean_label(group)}: {signature}", z, n, max_genes, ax)


def _draw(own: pd.DataFrame, title: str, z: float, n: int, max_genes: int, ax: Axes | None) -> Axes:
    order = np.argsort(-own["z_contribution"].abs().to_numpy(), kind="stable")
    shown = own.iloc[order[:max_genes]]
    rest = own.iloc[order[max_genes:]]
    names = [clean_label(g) for g in shown["gene"]]
    values = shown["z_contribution"].tolist()
    lost = shown["frac_call_lost"].fillna(0.0).tolist()
    if len(rest):
        names.append(f"{len(rest)} others")
        values.append(float(rest["z_contribution"].sum()))
        lost.append(0.0)
    ax = one_axes(ax, 6.4, 1.2 + 0.24 * len(names))
    y = [float(k) for k in range(len(names))]
    ax.barh(y, values, color=[_FOR if v > 0 else _AGAINST for v in values], height=0.72)
    ax.axvline(0, color=_INK, linewidth=0.8)
    reach = max(map(abs, values), default=1.0) or 1.0
    for place, value, share in zip(y, values, lost, strict=True):
        if share > 0:
            at = max(value, 0.0) + 0.03 * reach
            ax.plot(at, place, marker="D", color=_INK, markersize=4)
            if n > 1:
                ax.text(at + 0.03 * reach, place, f"{share:.0%}", va="center", fontsize=8)
    ax.set_yticks(y, names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel("contribution to z" if n == 1 else f"mean contribution to z, {n:,} cells")
    ax.set_title(f"{title}\n{'z' if n == 1 else 'mean z'} = {z:.2f}", loc="left")
    if any(lost):
        what = "another call without this gene" if n == 1 else "share of calls lost without it"
        ax.plot([], [], "D", color=_INK, markersize=4, label=what)
        ax.legend(loc="lower right")
    return ax


def save(explanation: Explanation, path: str | Path, signature: str | None = None) -> None:
    """The picture as a file, without a window."""
    from matplotlib.figure import Figure

    from senoscore.io.artefacts import atomic_path

    n_genes = explanation.genes.groupby(["group", "signature"]).size().max()
    size = (6.4, 1.2 + 0.24 * (min(int(n_genes), 20) + 1))
    with plain_style(), atomic_path(path) as temporary:
        figure = Figure(figsize=size, layout="constrained")
        explain(explanation, signature, ax=figure.add_subplot())
        figure.savefig(temporary, dpi=200, format=Path(path).suffix.lstrip(".") or "png")
