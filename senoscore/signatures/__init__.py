"""The registry of signatures: which genes vote, in which lineage, and on whose word.

A signature is a signed, weighted list of genes that is valid inside named lineages only. The shipped
ones live in the ``signatures`` folder of the checkout (``senoscore/_signatures`` in a wheel): one
small table per signature beside ``index.tsv`` and ``evidence.tsv``. Users add their own as TSV, GMT
or a dictionary, and the same checks apply.
"""

from __future__ import annotations

from senoscore.signatures._check import (
    EXHAUSTION_AXIS,
    EXHAUSTION_SETS,
    SENESCENCE_AXIS,
    SHARED_GENES,
    check_signatures,
)
from senoscore.signatures._model import (
    MEASURABLE,
    ORGANISMS,
    ROLES,
    Problem,
    Signature,
    SignatureGene,
    SignatureSet,
)
from senoscore.signatures._read import (
    read_dual_role,
    read_evidence,
    read_signatures,
    read_targets,
    registry_folder,
)

__all__ = [
    "EXHAUSTION_AXIS",
    "EXHAUSTION_SETS",
    "MEASURABLE",
    "ORGANISMS",
    "ROLES",
    "SENESCENCE_AXIS",
    "SHARED_GENES",
    "Problem",
    "Signature",
    "SignatureGene",
    "SignatureSet",
    "check_signatures",
    "read_dual_role",
    "read_evidence",
    "read_signatures",
    "read_targets",
    "registry_folder",
]
