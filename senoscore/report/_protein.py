"""The section on antibodies, of data sets that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from senoscore import keys, plots
from senoscore.report._artefacts import Artefacts
from senoscore.report._page import picture, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MplFigure


def protein_section(found: Artefacts, *, figures: bool) -> dict[str, Any] | None:
    """What the antibodies said, whether calls rest on them, and how well RNA says the same."""
    told = found.s.uns.get(keys.UNS, {}).get("protein")
    table = found.table("protein_audit.tsv")
    if told is None or table is None:
        return None
    made = None
    if figures:

        def draw(figure: MplFigure) -> object:
            axes = figure.subplots(2, 1, height_ratios=[1.1, 1.0])
            return plots.protein(found.s, ax=list(axes))

        made = picture(
            draw,
            height=6.8,
            alt="T cells by two antibodies, and how well the RNA of each antibody's gene tells "
            "positive cells.",
            caption="Above: T cells by a mark that senescent cells gain and one that they lose; blue "
            "where the phenotype is called from the antibodies. Below: how well the RNA of the "
            "antibody's gene tells positive from negative T cells; 0.5 is a coin.",
        )
    unused = table[(table["lineage"] == "T") & (table["status"] == "not judged")]
    return {
        "where": str(told["where"]),
        "used": bool(told["used"]),
        "why": str(told["why"]),
        "sentences": [s for s in str(told["sentences"]).split("\n") if s],
        "notes": str(told["notes"]),
        "n_unused": len(unused),
        "figure": made,
        "table": table_of(
            table[table["n_cells"] > 0],
            "Antibody by antibody",
            columns=[
                "lineage", "protein", "n_judged", "frac_detected", "frac_positive", "separation",
                "reason", "compared_with", "frac_rna_in_positive", "frac_rna_in_negative", "auroc",
                "spearman",
            ],
            headings={
                "n_judged": "cells judged", "frac_detected": "detected", "frac_positive": "positive",
                "separation": "Ashman's D", "reason": "why not judged", "auroc": "AUROC",
                "frac_rna_in_positive": "RNA seen in positive",
                "frac_rna_in_negative": "RNA seen in negative", "spearman": "Spearman",
            },
            file="protein_audit.tsv",
            folded=True,
            max_rows=150,
        ),
    }  # fmt: skip
