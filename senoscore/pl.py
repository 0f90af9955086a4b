"""Pictures: ``senoscore.pl``."""

from __future__ import annotations

from senoscore.plots import (
    CALL_COLORS,
    LINEAGE_COLORS,
    T_STATE_COLORS,
    agreement,
    burden,
    calibration,
    coverage,
    embedding,
    lineages,
    markers,
    protein,
    qc,
    scores,
    t_states,
)
from senoscore.plots_explain import explain

__all__ = [
    "CALL_COLORS",
    "LINEAGE_COLORS",
    "T_STATE_COLORS",
    "agreement",
    "burden",
    "calibration",
    "coverage",
    "embedding",
    "explain",
    "lineages",
    "markers",
    "protein",
    "qc",
    "scores",
    "t_states",
]
