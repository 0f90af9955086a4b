"""Every name senoscore writes into an AnnData, and the fixed vocabularies behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from anndata import AnnData

LINEAGES: Final = ("T", "B", "NK", "mono_mac", "neutrophil", "DC", "other")
T_STATES: Final = (
    "exhausted",
    "senescent",
    "both",
    "senescent_like",
    "cycling",
    "neither",
    "indeterminate",
)
SENESCENCE_CALLS: Final = ("senescent", "not_senescent", "indeterminate")
AXES: Final = ("senescence", "exhaustion", "cytotoxic", "proliferation", "interferon", "stress")

UNS: Final = "senoscore"

OBS_QC_PASS: Final = "qc_pass"  # noqa: S105 - passing quality control
OBS_QC_REASON: Final = "qc_reason"
OBS_LINEAGE: Final = "lineage"
OBS_LINEAGE_SUBSET: Final = "lineage_subset"
OBS_LINEAGE_SOURCE: Final = "lineage_source"
OBS_T_SUBSET: Final = "t_subset"
OBS_T_STATE: Final = "t_state"
OBS_T_STATE_RULE: Final = "t_state_rule"
OBS_SENESCENCE_CALL: Final = "senescence_call"
OBS_PHENOTYPE_SOURCE: Final = "phenotype_source"

OBSM_T_AXES: Final = "t_axes"
OBSM_SCORE: Final = "senoscore_score"
OBSM_Z: Final = "senoscore_z"
OBSM_Z_SMOOTHED: Final = "senoscore_z_smoothed"
OBSM_PVALUE: Final = "senoscore_pvalue"
OBSM_PADJ: Final = "senoscore_padj"
OBSM_POWERED: Final = "senoscore_powered"
OBSM_PROTEIN_ARM: Final = "senoscore_protein"
OBSM_PROTEIN_CLR: Final = "protein_clr"
OBSM_PROTEIN_POSITIVE: Final = "protein_positive"

LAYER_SCORE: Final = "score"
LAYER_PVALUE: Final = "pvalue"
LAYER_PADJ: Final = "padj"

# would a programme have been seen (`power.powered`); anything but the first is true
UNSEEN, SEEN, SHALLOW = 0, 1, 2


def in_score_space(adata: AnnData) -> bool:
    """Whether the columns are signatures, as `senoscore.analyse` gives them, and not genes."""
    return "facts" in adata.uns.get(UNS, {})  # the provenance of a run
