"""The section on published sets, of runs that scored them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from senoscore import keys, plots
from senoscore.report._page import Picture, picture, single, table_of

if TYPE_CHECKING:
    import pandas as pd

    from senoscore.report._artefacts import Artefacts


def agreement_section(found: Artefacts, *, figures: bool) -> dict[str, Any] | None:
    """How published sets agree with each other, with ours and with the calls."""
    table = found.table("agreement.tsv")
    if table is None:
        return None
    present = [name for name in keys.LINEAGES if name in set(table["lineage"].astype(str))]
    made = [_drawn(table, name) for name in present] if figures else []
    return {
        "figure": made[0] if made else None,
        "more": made[1:],
        "sampled": bool(table["sampled"].astype(str).eq("True").any()),
        "table": table_of(
            table,
            "Pair by pair",
            columns=[
                "lineage", "a", "b", "n_cells", "spearman", "auroc", "n_called_a", "n_called_b",
                "n_called_both", "jaccard", "kappa", "n_genes_shared",
            ],
            headings={
                "a": "one", "b": "other", "spearman": "Spearman's rho", "auroc": "AUROC",
                "n_called_a": "called by one", "n_called_b": "by other", "n_called_both": "by both",
                "jaccard": "Jaccard", "n_genes_shared": "genes shared",
            },
            file="agreement.tsv",
            folded=True,
            max_rows=1000,
        ),
    }  # fmt: skip


def _drawn(table: pd.DataFrame, lineage: str) -> Picture:
    rows = table[table["lineage"].astype(str) == lineage]
    n = len(set(rows["a"]) | set(rows["b"]))
    name = plots.LINEAGE_NAMES.get(lineage, lineage)
    return picture(
        single(lambda ax: plots.agreement(table, lineage=lineage, ax=ax)),
        width=2.4 + 0.38 * n,
        height=1.0 + 0.28 * n,
        alt=f"Agreement of {n} sets and calls in {name}, pair by pair.",
        caption=f"{name}: the numbers of the columns are those of the rows. Below the diagonal: "
        "Spearman's correlation of two scores; for a call, 2 × AUROC - 1. Above it: Cohen's kappa of "
        "the cells each calls. 1 is full agreement, 0 what chance gives; empty is not defined.",
    )
