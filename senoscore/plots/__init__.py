"""Pictures of a scored data set: each shows numbers that are in its tables, and says how many.

All functions read the AnnData in score space that :func:`senoscore.analyse` returns (or a table
written beside it), change nothing in it, and return the Axes they drew on. Labels come from public
files: they are drawn as plain text, never as mathematics. Where cells are thinned to keep a picture
readable, the picture says so, and every count still refers to all cells.
"""

from __future__ import annotations

from senoscore.plots._agreement import agreement
from senoscore.plots._cells import embedding, lineages, qc, scores
from senoscore.plots._drawing import (
    CALL_COLORS,
    LINEAGE_COLORS,
    LINEAGE_NAMES,
    MAX_GROUPS,
    MAX_LABEL,
    METRIC_NAMES,
    T_STATE_COLORS,
    clean_label,
    percent,
    plain_style,
    write_y,
)
from senoscore.plots._protein import protein
from senoscore.plots._space import (
    axis_level,
    embedding_key,
    fact,
    facts_of,
    fdr_of,
    group_key,
    group_labels,
    has_counts,
    padj_of,
    settings_of,
    z_of,
)
from senoscore.plots._tables import burden, calibration, coverage
from senoscore.plots._tcells import marker_groups, marker_table, markers, state_bars, t_states

__all__ = [
    "CALL_COLORS",
    "LINEAGE_COLORS",
    "LINEAGE_NAMES",
    "MAX_GROUPS",
    "MAX_LABEL",
    "METRIC_NAMES",
    "T_STATE_COLORS",
    "agreement",
    "axis_level",
    "burden",
    "calibration",
    "clean_label",
    "coverage",
    "embedding",
    "embedding_key",
    "fact",
    "facts_of",
    "fdr_of",
    "group_key",
    "group_labels",
    "has_counts",
    "lineages",
    "marker_groups",
    "marker_table",
    "markers",
    "padj_of",
    "percent",
    "plain_style",
    "protein",
    "qc",
    "scores",
    "settings_of",
    "state_bars",
    "t_states",
    "write_y",
    "z_of",
]
