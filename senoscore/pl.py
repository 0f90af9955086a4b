"""Pictures: ``senoscore.pl``."""

from __future__ import annotations

from senoscore.plots import (
    CALL_COLORS,
    LINEAGE_COLORS,
    T_STATE_COLORS,
    burden,
    calibration,
    coverage,
    embedding,
    lineages,
    markers,
    qc,
    scores,
    t_states,
)

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
