"""A planted immune cohort: raw counts of several donors, with the truth about every cell beside them.

What is real in it and what is not
----------------------------------
The gene names, the lineages, the marker levels and the names of the states follow the literature;
the numbers are hand-set, rounded figures in ``data/simulation_profiles.tsv`` (counts per ten
thousand), every other gene has a log-normal abundance. No data set is copied.

The states are planted so that finding them again is a fair test, not a circle:

* what a planted gene does differs by gene (log-normal around the stated level), some planted genes
  do not respond at all, and a third of a signature's further genes do nothing;
* every state also moves many genes that are in no signature, in both directions;
* each arm of a state (phenotype, arrest, loss of TCR signalling, SASP) has its own strength in each
  cell, and the hard negatives are there: TEMRA cells have the phenotype arm alone, recently
  activated cells have CDKN1A and TNF, cytomegalovirus-adaptive NK cells have B3GAT1, age-associated
  B cells have TBX21 and ITGAX, cells handled roughly have FOS and JUN;
* counts are negative binomial by gene, depth is log-normal by kind of cell, each donor has its own
  expression of each gene, a part of the counts comes from the ambient soup of the sample, and some
  droplets hold two cells or a dying one.

``uns["simulation"]`` holds the parameters, the donors, the populations and the effect of every
programme on every gene as it was planted.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import pandas as pd

from senoscore.errors import SenoscoreError
from senoscore.keys import LINEAGES

if TYPE_CHECKING:
    from types import TracebackType

    from anndata import AnnData
    from numpy.typing import NDArray

TRUE_T_STATES: Final = ("exhausted", "senescent", "both", "senescent_like", "cycling", "neither")
DEFAULT_DEPTH: Final = 4000.0

# the biology (which gene is abundant, where) is one; the seed draws donors, effects and cells
_BIOLOGY: Final = 20240229
_SLICE: Final = 128  # cells drawn by one call of the kernel
_CHUNK: Final = 65536  # values in one HDF5 chunk
_GZIP_LEVEL: Final = 4


class Population(NamedTuple):
    """One kind of cell: where its levels come from, what is planted in it, where it is found."""

    name: str
    profile: str
    lineage: str
    subset: str
    t_state: str
    t_substate: str
    programmes: tuple[tuple[str, float], ...]
    senescent: bool
    label: str
    rna: float
    blood: float
    tissue: float


# profile -> level sets, later ones win; ribosomal load; generic load (share of other genes)
_PROFILES: Final[dict[str, tuple[tuple[str, ...], str, float, float]]] = {
    "cd4_naive": (("common", "lymphoid", "T", "CD4", "T_naive"), "lymphoid", 1.20, 0.75),
    "cd4_memory": (("common", "lymphoid", "T", "CD4", "T_memory"), "lymphoid", 1.00, 0.85),
    "cd8_naive": (("common", "lymphoid", "T", "CD8", "T_naive"), "lymphoid", 1.20, 0.75),
    "cd8_memory": (("common", "lymphoid", "T", "CD8", "CD8_memory"), "lymphoid", 0.85, 0.95),
    "treg": (("common", "lymphoid", "T", "CD4", "T_memory", "Treg"), "lymphoid", 1.00, 0.90),
    "mait": (("common", "lymphoid", "T", "CD8", "MAIT"), "lymphoid", 0.90, 0.90),
    "gamma_delta": (("common", "lymphoid", "T", "CD8", "GDT"), "lymphoid", 0.75, 0.95),
    "nk_bright": (("common", "lymphoid", "NK", "NK_bright"), "lymphoid", 0.65, 1.00),
    "nk_dim": (("common", "lymphoid", "NK", "NK_dim"), "lymphoid", 0.55, 1.00),
    "b_naive": (("common", "lymphoid", "B", "B_naive"), "lymphoid", 1.05, 0.85),
    "b_memory": (("common", "lymphoid", "B", "B_memory"), "lymphoid", 1.00, 0.90),
    "plasma": (("common", "lymphoid", "plasma"), "lymphoid", 0.60, 0.80),
    "monocyte_classical": (("common", "myeloid", "mono_classical"), "myeloid", 0.65, 0.95),
    "monocyte_nonclassical": (("common", "myeloid", "mono_nonclassical"), "myeloid", 0.60, 1.05),
    "macrophage": (("common", "myeloid", "macrophage"), "myeloid", 0.50, 1.15),
    "neutrophil": (("common", "myeloid", "neutrophil"), "myeloid", 0.15, 0.50),
    "cdc": (("common", "myeloid", "DC", "cDC"), "myeloid", 0.75, 1.05),
    "pdc": (("common", "myeloid", "DC", "pDC"), "myeloid", 0.70, 1.05),
    "epithelial": (("common", "stromal", "epithelial"), "stromal", 0.55, 1.30),
    "fibroblast": (("common", "stromal", "fibroblast"), "stromal", 0.60, 1.20),
    "mast": (("common", "stromal", "mast"), "stromal", 0.45, 1.00),
}

_CD4: Final = "CD4-positive, alpha-beta T cell"
_CD8: Final = "CD8-positive, alpha-beta T cell"
_CD4_MEMORY: Final = "CD4-positive, alpha-beta memory T cell"
_CD8_MEMORY: Final = "CD8-positive, alpha-beta memory T cell"
_BRIGHT: Final = "CD16-negative, CD56-bright natural killer cell, human"
_DIM: Final = "CD16-positive, CD56-dim natural killer cell, human"

_TERMS: Final[dict[str, str]] = {
    _CD4: "CL:0000624",
    _CD8: "CL:0000625",
    _CD4_MEMORY: "CL:0000897",
    _CD8_MEMORY: "CL:0000909",
    "naive thymus-derived CD4-positive, alpha-beta T cell": "CL:0000895",
    "naive thymus-derived CD8-positive, alpha-beta T cell": "CL:0000900",
    "regulatory T cell": "CL:0000815",
    "mucosal invariant T cell": "CL:0000940",
    "gamma-delta T cell": "CL:0000798",
    "naive B cell": "CL:0000788",
    "memory B cell": "CL:0000787",
    "plasma cell": "CL:0000786",
    _BRIGHT: "CL:0000938",
    _DIM: "CL:0000939",
    "classical monocyte": "CL:0000860",
    "non-classical monocyte": "CL:0000875",
    "macrophage": "CL:0000235",
    "neutrophil": "CL:0000775",
    "conventional dendritic cell": "CL:0000990",
    "plasmacytoid dendritic cell": "CL:0000784",
    "epithelial cell of lung": "CL:0000082",
    "fibroblast": "CL:0000057",
    "mast cell": "CL:0000097",
}


def _t(
    name: str,
    profile: str,
    subset: str,
    state: str,
    substate: str,
    programmes: Sequence[tuple[str, float]],
    label: str,
    rna: float,
    blood: float,
    tissue: float,
) -> Population:
    senescent = state in ("senescent", "both")
    return Population(
        name, profile, "T", subset, state, substate, tuple(programmes), senescent, label, rna,
        blood, tissue,
    )  # fmt: skip


def _c(
    name: str,
    profile: str,
    lineage: str,
    subset: str,
    programmes: Sequence[tuple[str, float]],
    label: str,
    rna: float,
    blood: float,
    tissue: float,
    *,
    senescent: bool = False,
) -> Population:
    return Population(
        name, profile, lineage, subset, "", "", tuple(programmes), senescent, label, rna, blood,
        tissue,
    )  # fmt: skip


_PHENOTYPE = ("senescence_phenotype", 1.0)
_ARREST = ("arrest", 1.0)
_LOSS = ("tcr_loss", 1.0)
_EXHAUSTED = ("exhaustion_core", 1.0)
_TERMINAL = ("exhaustion_terminal", 1.0)

# blood and tissue: relative frequency before the traits of the donor are applied
_POPULATIONS: Final[tuple[Population, ...]] = (
    _t("cd4_naive", "cd4_naive", "CD4", "neither", "naive", (),
       "naive thymus-derived CD4-positive, alpha-beta T cell", 0.85, 9.0, 1.0),
    _t("cd8_naive", "cd8_naive", "CD8", "neither", "naive", (),
       "naive thymus-derived CD8-positive, alpha-beta T cell", 0.85, 4.5, 0.6),
    _t("cd4_memory", "cd4_memory", "CD4", "neither", "memory", (), _CD4_MEMORY, 1.0, 8.0, 7.0),
    _t("cd8_memory", "cd8_memory", "CD8", "neither", "memory", (), _CD8_MEMORY, 1.0, 5.0, 6.0),
    _t("cd4_interferon", "cd4_memory", "CD4", "neither", "interferon", [("interferon", 1.0)],
       _CD4, 1.0, 0.8, 1.2),
    _t("cd8_interferon", "cd8_memory", "CD8", "neither", "interferon", [("interferon", 1.0)],
       _CD8, 1.0, 0.5, 0.8),
    _t("cd4_activated", "cd4_memory", "CD4", "neither", "activated", [("activation", 1.0)],
       _CD4, 1.3, 0.6, 1.5),
    _t("cd8_activated", "cd8_memory", "CD8", "neither", "activated", [("activation", 1.0)],
       _CD8, 1.3, 0.5, 1.5),
    _t("treg", "treg", "Treg", "neither", "treg", (), "regulatory T cell", 1.05, 1.5, 4.5),
    _t("mait", "mait", "innate_like", "neither", "mait", (), "mucosal invariant T cell",
       1.0, 1.2, 0.8),
    _t("gamma_delta", "gamma_delta", "innate_like", "neither", "gamma_delta", (),
       "gamma-delta T cell", 1.0, 1.2, 0.6),
    _t("cd8_exhausted_progenitor", "cd8_memory", "CD8", "exhausted", "progenitor",
       [("exhaustion_core", 0.6), ("exhaustion_progenitor", 1.0)], _CD8, 1.05, 0.35, 2.2),
    _t("cd8_exhausted_terminal", "cd8_memory", "CD8", "exhausted", "terminal",
       [_EXHAUSTED, _TERMINAL], _CD8, 1.2, 0.35, 4.5),
    _t("cd4_exhausted", "cd4_memory", "CD4", "exhausted", "terminal",
       [_EXHAUSTED, ("exhaustion_terminal", 0.5), ("exhaustion_cd4", 1.0)], _CD4, 1.1, 0.15, 1.8),
    _t("cd8_senescent", "cd8_memory", "CD8", "senescent", "arrested",
       [_PHENOTYPE, _ARREST, _LOSS], _CD8, 0.95, 1.2, 0.8),
    _t("cd8_senescent_sasp", "cd8_memory", "CD8", "senescent", "sasp_high",
       [_PHENOTYPE, _ARREST, ("tcr_loss", 0.8), ("sasp_t", 1.0)], _CD8, 1.1, 0.9, 1.6),
    _t("cd8_senescent_nk_like", "cd8_memory", "CD8", "senescent", "nk_like",
       [_PHENOTYPE, ("arrest", 0.85), _LOSS, ("nk_like", 1.0)], _CD8, 1.0, 1.1, 0.7),
    _t("cd4_senescent", "cd4_memory", "CD4", "senescent", "arrested",
       [("senescence_phenotype", 0.85), _ARREST, _LOSS, ("sasp_t", 0.35)], _CD4, 0.95, 0.8, 0.6),
    _t("cd8_exhausted_senescent", "cd8_memory", "CD8", "both", "exhausted_senescent",
       [_EXHAUSTED, ("exhaustion_terminal", 0.7), ("senescence_phenotype", 0.9), _ARREST,
        ("tcr_loss", 0.9)], _CD8, 1.1, 0.4, 1.8),
    _t("cd8_temra", "cd8_memory", "CD8", "senescent_like", "temra", [("temra", 1.0)], _CD8,
       0.95, 3.2, 1.2),
    _t("cd4_temra", "cd4_memory", "CD4", "senescent_like", "temra", [("temra", 0.9)], _CD4,
       0.95, 0.7, 0.3),
    _t("cd4_cycling", "cd4_memory", "CD4", "cycling", "cycling",
       [("s_phase", 0.7), ("g2m_phase", 0.7)], _CD4, 1.9, 0.25, 0.7),
    _t("cd8_cycling", "cd8_memory", "CD8", "cycling", "cycling",
       [("s_phase", 0.7), ("g2m_phase", 0.7)], _CD8, 1.9, 0.3, 0.8),
    _t("cd8_cycling_exhausted", "cd8_memory", "CD8", "cycling", "cycling_exhausted",
       [("s_phase", 0.7), ("g2m_phase", 0.7), ("exhaustion_core", 0.8),
        ("exhaustion_terminal", 0.5)], _CD8, 2.0, 0.05, 0.9),
    _c("b_naive", "b_naive", "B", "naive", (), "naive B cell", 0.8, 5.0, 1.5),
    _c("b_memory", "b_memory", "B", "memory", (), "memory B cell", 0.9, 2.5, 3.5),
    _c("b_age_associated", "b_memory", "B", "age_associated", [("age_associated_b", 1.0)],
       "memory B cell", 0.9, 0.8, 0.6),
    _c("b_senescent", "b_memory", "B", "age_associated",
       [("age_associated_b", 1.0), ("senescence_b", 1.0)], "memory B cell", 0.95, 0.9, 0.7,
       senescent=True),
    _c("plasma", "plasma", "B", "plasma", (), "plasma cell", 2.0, 0.15, 3.0),
    _c("nk_bright", "nk_bright", "NK", "CD56bright", (), _BRIGHT, 0.9, 0.9, 1.0),
    _c("nk_dim", "nk_dim", "NK", "CD56dim", (), _DIM, 0.9, 5.5, 2.0),
    _c("nk_adaptive", "nk_dim", "NK", "CD56dim", [("nk_adaptive", 1.0)], _DIM, 0.9, 1.2, 0.3),
    _c("nk_senescent", "nk_dim", "NK", "CD56dim", [("senescence_nk", 1.0)], _DIM, 0.9, 1.3, 0.6,
       senescent=True),
    _c("monocyte_classical", "monocyte_classical", "mono_mac", "monocyte", (),
       "classical monocyte", 1.2, 9.0, 3.0),
    _c("monocyte_nonclassical", "monocyte_nonclassical", "mono_mac", "monocyte", (),
       "non-classical monocyte", 1.3, 2.0, 0.8),
    _c("macrophage", "macrophage", "mono_mac", "macrophage", (), "macrophage", 2.3, 0.0, 8.0),
    _c("macrophage_senescent", "macrophage", "mono_mac", "macrophage",
       [("senescence_macrophage", 1.0)], "macrophage", 2.4, 0.0, 1.8, senescent=True),
    _c("neutrophil", "neutrophil", "neutrophil", "neutrophil", (), "neutrophil", 0.35, 2.5, 4.0),
    _c("neutrophil_senescent", "neutrophil", "neutrophil", "neutrophil",
       [("senescence_neutrophil", 1.0)], "neutrophil", 0.33, 0.4, 1.0, senescent=True),
    _c("cdc", "cdc", "DC", "cDC", (), "conventional dendritic cell", 2.0, 0.9, 1.6),
    _c("pdc", "pdc", "DC", "pDC", (), "plasmacytoid dendritic cell", 1.6, 0.5, 0.7),
    _c("epithelial", "epithelial", "other", "epithelial", (), "epithelial cell of lung",
       2.8, 0.0, 6.0),
    _c("fibroblast", "fibroblast", "other", "fibroblast", (), "fibroblast", 2.2, 0.0, 2.2),
    _c("fibroblast_senescent", "fibroblast", "other", "fibroblast",
       [("senescence_fibroblast", 1.0)], "fibroblast", 2.2, 0.0, 0.6, senescent=True),
    _c("mast", "mast", "other", "mast", (), "mast cell", 1.3, 0.0, 1.6),
)  # fmt: skip

# a registry signature that a programme stands for: its further genes respond too, some of them
_REGISTRY: Final[dict[str, tuple[str, ...]]] = {
    "exhaustion_core": ("t_exhaustion",),
    "exhaustion_terminal": ("t_exhaustion_terminal",),
    "exhaustion_progenitor": ("t_exhaustion_progenitor",),
    "temra": ("conf_temra_effector",),
    "arrest": ("core_senescence", "p53_tis"),
    "tcr_loss": ("tcr_signalling_loss",),
    "sasp_t": ("sasp_t", "sasp_core"),
    "nk_like": ("nk_like_gain",),
    "s_phase": ("conf_proliferation_s",),
    "g2m_phase": ("conf_proliferation_g2m",),
    "interferon": ("conf_interferon",),
    "activation": ("conf_recent_activation",),
    "dissociation": ("conf_dissociation",),
    "nk_adaptive": ("conf_cmv_adaptive_nk",),
    "senescence_b": ("b_senescence", "sasp_b"),
    "senescence_nk": ("nk_senescence",),
    "senescence_macrophage": ("macrophage_senescence", "sasp_macrophage"),
    "senescence_neutrophil": ("neutrophil_senescence", "sasp_neutrophil"),
    "senescence_fibroblast": ("core_senescence", "p53_tis", "sasp_core"),
}

# a cell's own departures from its kind: (programme, sd of the activity)
_NUISANCE: Final = (
    ("ribosomal", 0.25),
    ("mito_high", 0.45),
    *((f"module_{i}", 1.0) for i in range(1, 7)),
)
_ACTIVITY_SD: Final = 0.35
_STRESS_SD: Final = 0.5
_DAMAGE: Final = 4.0

_CENTRES: Final[dict[str, tuple[float, float]]] = {
    "cd4_naive": (-8.0, 4.5),
    "cd4_memory": (-6.0, 2.5),
    "cd8_naive": (-9.0, 1.5),
    "cd8_memory": (-6.0, -1.5),
    "treg": (-4.0, 5.0),
    "mait": (-3.5, 0.2),
    "gamma_delta": (-2.8, -2.2),
    "nk_bright": (-0.8, -5.5),
    "nk_dim": (-1.5, -7.2),
    "b_naive": (5.5, -7.5),
    "b_memory": (7.2, -6.2),
    "plasma": (11.0, -7.0),
    "monocyte_classical": (6.0, 6.0),
    "monocyte_nonclassical": (8.3, 7.6),
    "macrophage": (9.5, 3.8),
    "neutrophil": (1.5, 9.5),
    "cdc": (6.0, 2.6),
    "pdc": (3.0, 1.0),
    "epithelial": (13.5, -1.0),
    "fibroblast": (15.0, 3.0),
    "mast": (12.0, 8.5),
}

_RIBOSOMAL: Final = re.compile(r"^RP[SL]\d+(?:A|X|L|Y1|Y2)?$|^RPLP[0-2]$|^RPSA$")
_MITO: Final = re.compile(r"^MT-(?:CO[123]|ATP[68]|CYB|ND[1-6]|ND4L)$")
_SILENT: Final = re.compile(
    r"^(?:OR\d+[A-Z]\d*|TAS[12]R\d|KRTAP|KRT[3-9]\d|DEFB|PCDH[ABG]|VN1R|MAGE|SPANX|GAGE|PRAMEF|"
    r"USP17L|LCE\d|SPRR|CRYG|MYH[1-8]$|INS$|GCG$|IAPP$|PRM\d|AMY|CELA|REG\d|UGT2|CYP2[ACD]|CGB|"
    r"CSH|GH[12]$|OPN1|RBMY|TSPY|DAZ|BPY|VCY|HTN|STATH|SMR3|ZP\d|PATE|SEMG|ACTL|TEX\d|SPATA31)"
)
_ENTRY: Final = re.compile(r"^(\S+?)([=+*])([0-9.]+)(!?)$")
# the shipped gene table has no biotype; names say enough to put protein-coding genes first
_NOT_CODING: Final = re.compile(
    r"^(?:LINC\d|LNC|MIR\d|MIRLET|MIR\w+HG$|SNOR[AD]|SCARNA|RNU\d|RNVU|RN7S|RNA5|RNA[12]8S|RNY\d|"
    r"VTRNA|TR[A-Z]-|NMTR|MT-[TR]|MT(?:CO|ND|ATP|CYB)\w*P\d*$|FAM\d+[A-Z]?P$|"
    r"[A-Z]{1,2}\d{5,}\.\d+|LOC\d|ENSG\d|HSALNG|"
    r"(?:IG[HKL]|TR[ABDG])[VDJ]|Metazoa|Y_RNA|U\d+$|SNHG\d|(?:RP|CT[ABCD]|KB|XX\w+|GS|LL)\d*-)|"
    r"-(?:AS|IT|OT|DT|BT)\d*$|-AS\d+$|\d-\w+-AS"
)


class _Effect(NamedTuple):
    gene: str
    operation: str  # "=" level, "+" counts per ten thousand added, "*" factor
    value: float
    certain: bool  # always responds


@lru_cache(maxsize=1)
def _sets() -> dict[str, tuple[_Effect, ...]]:
    text = files("senoscore").joinpath("data/simulation_profiles.tsv").read_text("utf-8")
    sets: dict[str, tuple[_Effect, ...]] = {}
    for line in text.splitlines()[1:]:
        name, entries = line.split("\t")
        effects = []
        for entry in entries.split():
            match = _ENTRY.match(entry)
            if match is None:
                raise SenoscoreError(f"simulation_profiles.tsv, set {name}: cannot read {entry!r}")
            gene, operation, value, mark = match.groups()
            effects.append(_Effect(gene, operation, float(value), mark == "!"))
        sets[name] = tuple(effects)
    return sets


def _gene_table() -> pd.DataFrame:
    """Symbols with an Ensembl id, once each, sorted by id; ``coding`` is judged from the name."""
    path = files("senoscore").joinpath("data/genes_human.tsv.gz")
    with path.open("rb") as raw, gzip.open(raw, "rt", encoding="utf-8") as handle:
        table = pd.read_csv(handle, sep="\t", dtype=str, keep_default_na=False, comment="#")
    table = table[(table["symbol"] != "") & (table["ensembl"] != "") & (table["same_as"] == "")]
    table = table[table["symbol"] != table["ensembl"]]
    table = table.drop_duplicates("symbol").sort_values("ensembl", kind="stable")
    known = set(table["symbol"])
    coding = [
        _NOT_CODING.search(symbol) is None and not _is_pseudogene(symbol, known)
        for symbol in table["symbol"]
    ]
    return table[["symbol", "ensembl"]].assign(coding=coding).reset_index(drop=True)


def _is_pseudogene(symbol: str, known: set[str]) -> bool:
    """RPL3P4 is one, because RPL3 is a gene; IGFBP7 is none, because IGFB is not."""
    parent = re.sub(r"P\d*$", "", symbol)
    return parent != symbol and len(parent) > 2 and parent in known


class _Member(NamedTuple):
    gene: str
    direction: int  # 0: does not vote
    weight: float


def _registry() -> dict[str, tuple[str, tuple[_Member, ...]]]:
    """Signature -> its role and genes, without the published sets shipped for comparison."""
    from senoscore.signatures import read_signatures

    return {
        name: (
            signature.role,
            tuple(
                _Member(gene.symbol, gene.direction if gene.votes else 0, float(gene.weight))
                for gene in signature.genes
            ),
        )
        for name, signature in read_signatures().items()
        if signature.role != "comparator"
    }


@dataclass(frozen=True)
class _Universe:
    """Every gene that can be simulated, in a fixed order, with what it does on its own."""

    symbols: NDArray[Any]
    ensembl: NDArray[Any]
    coding: NDArray[np.bool_]
    required: NDArray[np.bool_]
    registry: NDArray[np.bool_]
    position: dict[str, int]
    generic: NDArray[np.float64]  # log counts per ten thousand


@lru_cache(maxsize=1)
def _universe() -> _Universe:
    table = _gene_table()
    symbols = table["symbol"].to_numpy(dtype=object)
    coding = table["coding"].to_numpy(dtype=bool)
    position = {str(symbol): i for i, symbol in enumerate(symbols)}
    n = len(symbols)
    rng = np.random.default_rng(_BIOLOGY)
    generic = np.where(coding, -3.35 + 2.05 * rng.standard_normal(n), -5.6 + rng.standard_normal(n))
    generic = np.minimum(generic, 2.4)
    silent = np.array([bool(_SILENT.match(str(symbol))) for symbol in symbols])
    generic[silent] = -9.0 + rng.standard_normal(int(silent.sum()))
    named = {e.gene for effects in _sets().values() for e in effects}
    deciding: set[str] = set()
    registry: set[str] = set()
    for role, members in _registry().values():
        registry.update(member.gene for member in members)
        if role in ("axis", "arm", "lineage"):
            deciding.update(member.gene for member in members)
    required = np.array(
        [
            s in named or s in registry or bool(_RIBOSOMAL.match(s)) or bool(_MITO.match(s))
            for s in symbols
        ]
    )
    in_registry = np.array([s in registry for s in symbols])
    # signature genes without a hand-set level: rare to moderate for the sets that decide a call,
    # more abundant for the metabolic and stress programmes
    decides = np.array([s in deciding for s in symbols])
    generic[decides] = np.clip(generic[decides], np.log(0.01), np.log(0.6))
    other = in_registry & ~decides
    generic[other] = np.clip(generic[other] + 2.5, np.log(0.05), np.log(6.0))
    return _Universe(
        symbols,
        table["ensembl"].to_numpy(dtype=object),
        coding,
        required,
        in_registry,
        position,
        generic,
    )


def _base_levels(universe: _Universe) -> NDArray[np.float32]:
    """Counts per ten thousand of every gene in every profile."""
    n = len(universe.symbols)
    rng = np.random.default_rng(_BIOLOGY + 1)
    sets = _sets()
    ribosomal = np.array([bool(_RIBOSOMAL.match(s)) for s in universe.symbols])
    # heavy tails: most genes differ little between kinds of cell, some differ by orders
    by_group = {g: 0.30 * rng.standard_t(3, n) for g in ("lymphoid", "myeloid", "stromal")}
    by_lineage: dict[str, NDArray[np.float64]] = {}
    ribo_level = np.exp(np.log(38.0) + 0.75 * rng.standard_normal(n))
    off = 0.012 * np.exp(0.8 * rng.standard_normal(n))
    levelled = {
        e.gene for effects in sets.values() for e in effects if e.operation == "="
    } & universe.position.keys()
    levelled_at = np.array([universe.position[g] for g in sorted(levelled)])
    base = np.empty((len(_PROFILES), n), np.float32)
    for row, (profile, (chain, group, ribo, load)) in enumerate(_PROFILES.items()):
        lineage = next(p.lineage for p in _POPULATIONS if p.profile == profile)
        if lineage not in by_lineage:
            by_lineage[lineage] = 0.18 * rng.standard_t(3, n)
        own = 0.10 * rng.standard_t(3, n)
        shift = np.clip(by_group[group] + by_lineage[lineage] + own, -4.0, 2.5)
        shift[universe.registry] *= 0.5
        level = load * np.exp(np.minimum(universe.generic + shift, 3.0))
        level[ribosomal] = ribo * ribo_level[ribosomal]
        level[levelled_at] = off[levelled_at]
        for name in chain:
            for effect in sets[name]:
                if effect.gene in universe.position:
                    level[universe.position[effect.gene]] = effect.value
        base[row] = 1e4 * level / level.sum()
    return base


@dataclass(frozen=True)
class _Programme:
    name: str
    genes: NDArray[np.int32]
    log_factor: NDArray[np.float32]
    added: NDArray[np.float32]
    role: NDArray[Any]


def _programmes(universe: _Universe, base: NDArray[np.float32], seed: int) -> dict[str, _Programme]:
    """What every programme does to every gene this time: levels, non-responders, bystanders."""
    names = [n for n, effects in _sets().items() if any(e.operation != "=" for e in effects)]
    registry = _registry()
    profile_rows = {profile: row for row, profile in enumerate(_PROFILES)}
    built: dict[str, _Programme] = {}
    for number, name in enumerate(names):
        rng = np.random.default_rng([seed, 1, number])
        used_in = [p.profile for p in _POPULATIONS if name in dict(p.programmes)]
        reference = base[profile_rows[used_in[0]]] if used_in else base.mean(0)
        log_factor: dict[int, float] = {}
        added: dict[int, float] = {}
        role: dict[int, str] = {}
        for effect in _sets()[name]:
            jitter, lot = rng.standard_normal(), rng.random()
            at = universe.position.get(effect.gene)
            if at is None:
                continue
            silent = lot < 0.12 and not effect.certain and name != "mito_high"
            role[at] = "planted, does not respond" if silent else "planted"
            if silent:
                continue
            if effect.operation == "+":
                added[at] = effect.value * float(np.exp(0.30 * jitter - 0.045))
            elif name == "mito_high":
                log_factor[at] = float(np.log(effect.value))
            else:
                log_factor[at] = float(np.log(effect.value) * np.exp(0.20 * jitter))
        for signature in _REGISTRY.get(name, ()):
            for gene, direction, weight in registry[signature][1]:
                jitter, lot = rng.standard_normal(), rng.random()
                at = universe.position.get(gene)
                if at is None or at in role or direction == 0:
                    continue
                if lot < 0.35:
                    role[at] = "signature, does not respond"
                    continue
                role[at] = "signature"
                size = np.sqrt(weight) * float(np.exp(-0.5 + 0.5 * jitter))
                log_factor[at] = direction * float(min(size, 1.6))
                if direction > 0:
                    added[at] = 0.04 * weight * float(np.exp(0.5 * jitter))
        if name not in ("mito_high", "dissociation"):
            free = np.flatnonzero(
                (reference > 0.04) & (reference < 12) & ~universe.registry & ~universe.required
            )
            at_random = rng.choice(free, size=160, replace=False)
            change = np.exp(-0.6 + 0.45 * rng.standard_normal(160))
            change[rng.random(160) < 0.42] *= -1.0
            for at, shift in zip(at_random.tolist(), change.tolist(), strict=True):
                role[at], log_factor[at] = "bystander", float(np.clip(shift, -1.8, 1.5))
        built[name] = _finish(name, log_factor, added, role)
    for i in range(1, 7):
        rng = np.random.default_rng([_BIOLOGY, i])
        free = np.flatnonzero(~universe.required & (base.mean(0) > 0.02))
        genes = rng.choice(free, size=250, replace=False)
        loading = 0.32 * rng.standard_normal(250)
        name = f"module_{i}"
        built[name] = _finish(
            name, dict(zip(genes.tolist(), loading.tolist(), strict=True)), {}, {}
        )
    ribosomal = [i for i, s in enumerate(universe.symbols) if _RIBOSOMAL.match(s)]
    built["ribosomal"] = _finish("ribosomal", dict.fromkeys(ribosomal, 1.0), {}, {})
    return built


def _finish(
    name: str, log_factor: dict[int, float], added: dict[int, float], role: dict[int, str]
) -> _Programme:
    genes = sorted(role.keys() | log_factor.keys() | added.keys())
    return _Programme(
        name,
        np.array(genes, np.int32),
        np.array([log_factor.get(g, 0.0) for g in genes], np.float32),
        np.array([added.get(g, 0.0) for g in genes], np.float32),
        np.array([role.get(g, "nuisance") for g in genes], object),
    )


@dataclass(frozen=True)
class _Cohort:
    """Everything that is decided before a count is drawn; small but for the columns of cells."""

    parameters: dict[str, Any]
    genes: NDArray[np.int64]  # positions in the universe
    base: NDArray[np.float32]
    donor_factor: NDArray[np.float32]
    size: NDArray[np.float32]
    programmes: dict[str, _Programme]
    donors: pd.DataFrame
    samples: pd.DataFrame
    population: NDArray[np.int16]
    partner: NDArray[np.int16]
    sample: NDArray[np.int16]
    depth: NDArray[np.float32]
    partner_depth: NDArray[np.float32]
    ambient: NDArray[np.float32]
    damaged: NDArray[np.bool_]
    ambient_sum: NDArray[np.float64]

    @property
    def n_cells(self) -> int:
        return len(self.population)

    @property
    def n_genes(self) -> int:
        return len(self.genes)


def _plan(
    n_cells: int,
    n_genes: int,
    *,
    n_donors: int,
    seed: int,
    depth_median: float | None,
    ambient_fraction: float,
    doublet_fraction: float,
    damaged_fraction: float,
    effect_scale: float,
) -> _Cohort:
    universe = _universe()
    _check(
        n_cells,
        n_genes,
        universe,
        n_donors,
        seed,
        depth_median,
        ambient_fraction=ambient_fraction,
        doublet_fraction=doublet_fraction,
        damaged_fraction=damaged_fraction,
        effect_scale=effect_scale,
    )
    median = DEFAULT_DEPTH if depth_median is None else float(depth_median)
    genes = _choose_genes(universe, n_genes)
    all_base = _base_levels(universe)
    programmes = _programmes(universe, all_base, seed)
    back = np.full(len(universe.symbols), -1, np.int64)
    back[genes] = np.arange(n_genes)
    programmes = {name: _subset(p, back, effect_scale) for name, p in programmes.items()}
    base = np.ascontiguousarray(all_base[:, genes])

    donors = _donors(n_donors, seed)
    samples = _samples(donors, seed)
    rng = np.random.default_rng([seed, 2])
    frequency = _frequencies(samples, rng)
    share = np.exp(0.25 * rng.standard_normal(len(samples)))
    per_sample = rng.multinomial(n_cells, share / share.sum())
    sample = np.repeat(np.arange(len(samples), dtype=np.int16), per_sample)
    population = np.empty(n_cells, np.int16)
    partner = np.full(n_cells, -1, np.int16)
    cut = np.concatenate(([0], np.cumsum(per_sample)))
    for s in range(len(samples)):
        here = slice(cut[s], cut[s + 1])
        population[here] = rng.choice(len(_POPULATIONS), size=per_sample[s], p=frequency[s])
        second = rng.choice(len(_POPULATIONS), size=per_sample[s], p=frequency[s])
        double = rng.random(per_sample[s]) < doublet_fraction
        partner[here][double] = second[double]

    rna = np.array([p.rna for p in _POPULATIONS], np.float32)
    scale = np.exp(0.10 * rng.standard_normal(len(samples))).astype(np.float32)[sample]
    depth = rna[population] * scale
    depth *= np.exp(0.38 * rng.standard_normal(n_cells, dtype=np.float32))
    damaged = rng.random(n_cells, dtype=np.float32) < damaged_fraction
    depth[damaged] *= 0.35
    partner_depth = rna[partner] * scale
    partner_depth *= np.exp(0.38 * rng.standard_normal(n_cells, dtype=np.float32))
    partner_depth[partner < 0] = 0.0
    factor = median / float(np.median(depth + partner_depth))
    depth *= factor
    partner_depth *= factor
    soup = samples["ambient_fraction"].to_numpy() * (ambient_fraction / 0.04)
    # the soup of a droplet does not know how large the cell is: small cells hold more of it
    ambient = soup.astype(np.float32)[sample] * (median / (depth + partner_depth)) ** 0.5
    ambient = np.clip(ambient, 0.0, 0.5).astype(np.float32)

    donor_factor = _donor_factors(universe, donors, seed)[:, genes]
    return _Cohort(
        parameters={
            "n_cells": n_cells,
            "n_genes": n_genes,
            "n_donors": n_donors,
            "seed": seed,
            "depth_median": median,
            "ambient_fraction": ambient_fraction,
            "doublet_fraction": doublet_fraction,
            "damaged_fraction": damaged_fraction,
            "effect_scale": effect_scale,
        },
        genes=genes,
        base=base,
        donor_factor=np.ascontiguousarray(donor_factor),
        size=_sizes(universe, all_base)[genes],
        programmes=programmes,
        donors=donors,
        samples=samples,
        population=population,
        partner=partner,
        sample=sample,
        depth=depth,
        partner_depth=partner_depth,
        ambient=ambient,
        damaged=damaged,
        ambient_sum=_soups(universe, genes, base, programmes, samples, donor_factor, frequency),
    )


def _check(
    n_cells: int,
    n_genes: int,
    universe: _Universe,
    n_donors: int,
    seed: int,
    depth_median: float | None,
    *,
    effect_scale: float,
    **fractions: float,
) -> None:
    if n_cells < 1:
        raise SenoscoreError(f"simulate: n_cells is {n_cells}, it must be at least 1.")
    floor, ceiling = int(universe.required.sum()), len(universe.symbols)
    if not floor <= n_genes <= ceiling:
        raise SenoscoreError(
            f"simulate: n_genes is {n_genes}, it must lie between {floor} (the genes of all "
            f"signatures, lineage markers, mitochondrial and ribosomal genes) and {ceiling} "
            "(every gene of the shipped table)."
        )
    if not 1 <= n_donors <= 1000:
        raise SenoscoreError(f"simulate: n_donors is {n_donors}, it must lie between 1 and 1000.")
    if not 0 <= seed < 2**63:
        raise SenoscoreError(f"simulate: seed is {seed}, it must be at least 0 and below 2**63.")
    if depth_median is not None and not 50 <= depth_median <= 200_000:
        raise SenoscoreError(
            f"simulate: depth_median is {depth_median:g} counts per cell, it must lie between "
            "50 and 200000."
        )
    if not 0 <= effect_scale <= 3:
        raise SenoscoreError(
            f"simulate: effect_scale is {effect_scale:g}, it must lie between 0 (nothing planted) "
            "and 3."
        )
    for name, value in fractions.items():
        if not 0 <= value <= 0.5:
            raise SenoscoreError(f"simulate: {name} is {value:g}, it must lie between 0 and 0.5.")


def _choose_genes(universe: _Universe, n_genes: int) -> NDArray[np.int64]:
    """The required genes, then protein-coding ones from the most abundant, then the others."""
    rank = np.lexsort((-universe.generic, ~universe.coding, ~universe.required))[:n_genes]
    return rank[np.argsort(universe.ensembl[rank].astype(str), kind="stable")]


def _subset(programme: _Programme, back: NDArray[np.int64], scale: float) -> _Programme:
    at = back[programme.genes]
    keep = np.flatnonzero(at >= 0)
    keep = keep[np.argsort(at[keep])]
    planted = not (
        programme.name.startswith("module") or programme.name in ("ribosomal", "mito_high")
    )
    factor = np.float32(scale if planted else 1.0)
    return _Programme(
        programme.name,
        at[keep].astype(np.int32),
        programme.log_factor[keep] * factor,
        programme.added[keep] * factor,
        programme.role[keep],
    )


def _donors(n_donors: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, 3])
    number = np.arange(n_donors)
    pair = number // 2
    # conditions alternate and share the range of ages, so neither stands for the other
    spread = np.linspace(24, 78, max(1, (n_donors + 1) // 2))
    age = np.rint(spread[pair] + rng.uniform(-3, 3, n_donors)).astype(int)
    return pd.DataFrame(
        {
            "donor_id": [f"D{i + 1:02d}" for i in number],
            "age": age,
            "sex": np.where((number // 2 + number) % 2 == 0, "female", "male"),
            "condition": np.where(number % 2 == 0, "healthy", "disease"),
            "cmv": np.where(rng.random(n_donors) < 0.5, "positive", "negative"),
        }
    )


def _samples(donors: pd.DataFrame, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, 4])
    rows = []
    for number, donor in enumerate(donors.itertuples()):
        for tissue in ("blood", "lung"):
            rows.append(
                {
                    "sample_id": f"{donor.donor_id}_{tissue}",
                    "donor": number,
                    "tissue": tissue,
                    "ambient_fraction": 0.04 * float(np.exp(0.35 * rng.standard_normal())),
                    # handling: tissue is digested, blood is not
                    "stress": float(np.exp(0.4 * rng.standard_normal()))
                    * (0.5 if tissue == "lung" else 0.12),
                }
            )
    frame = pd.DataFrame(rows)
    traits = donors[["age", "sex", "condition", "cmv"]].iloc[frame["donor"]].reset_index(drop=True)
    return pd.concat([frame, traits], axis=1)


def _frequencies(samples: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.float64]:
    """Samples x populations: what each sample is made of, after age, condition and CMV."""
    rows = []
    for sample in samples.itertuples():
        decades = (float(sample.age) - 50.0) / 10.0
        lung, disease = sample.tissue == "lung", sample.condition == "disease"
        weights = []
        for p in _POPULATIONS:
            weight = p.tissue if lung else p.blood
            if p.senescent:
                weight *= np.exp(0.28 * decades)
            if p.t_state in ("exhausted", "both") or p.t_substate == "cycling_exhausted":
                weight *= 1.8 if disease else (0.45 if lung else 0.6)
            if p.t_substate == "interferon":
                weight *= 1.7 if disease else 0.7
            if p.t_substate == "naive":
                weight *= np.exp(-0.15 * decades)
            if p.name in ("cd8_temra", "cd4_temra", "nk_adaptive"):
                weight *= 1.6 if sample.cmv == "positive" else 0.4
            weights.append(weight * np.exp(0.25 * rng.standard_normal()))
        rows.append(np.array(weights) / np.sum(weights))
    return np.array(rows)


def _donor_factors(universe: _Universe, donors: pd.DataFrame, seed: int) -> NDArray[np.float32]:
    """Each donor has its own level of each gene; a few genes differ strongly (common variants)."""
    factors = np.empty((len(donors), len(universe.symbols)), np.float32)
    symbols = universe.symbols
    female = np.array([s == "XIST" for s in symbols])
    male = np.array([s in ("RPS4Y1", "DDX3Y", "EIF1AY", "UTY", "KDM5D") for s in symbols])
    for i, sex in enumerate(donors["sex"]):
        rng = np.random.default_rng([seed, 5, i])
        shift = 0.11 * rng.standard_normal(len(symbols))
        strong = rng.random(len(symbols)) < 0.02
        shift[strong & ~universe.required] *= 5.0
        factors[i] = np.exp(shift)
        factors[i, male if sex == "female" else female] = 0.0
    return factors


def _sizes(universe: _Universe, base: NDArray[np.float32]) -> NDArray[np.float32]:
    """Negative binomial size of each gene: noisy when rare, steadier when abundant."""
    rng = np.random.default_rng(_BIOLOGY + 2)
    level = np.quantile(base, 0.75, axis=0)
    dispersion = 0.06 + 0.55 / (1.0 + level / 5.0)
    dispersion *= np.exp(0.5 * rng.standard_normal(base.shape[1]))
    return (1.0 / np.clip(dispersion, 0.03, 1.6)).astype(np.float32)


def _soups(
    universe: _Universe,
    genes: NDArray[np.int64],
    base: NDArray[np.float32],
    programmes: dict[str, _Programme],
    samples: pd.DataFrame,
    donor_factor: NDArray[np.float32],
    frequency: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Cumulative mean profile of every sample, with a little haemoglobin from lysed red cells."""
    rows = {profile: row for row, profile in enumerate(_PROFILES)}
    means = np.empty((len(_POPULATIONS), len(genes)))
    for i, p in enumerate(_POPULATIONS):
        level = base[rows[p.profile]].astype(np.float64)
        for name, activity in p.programmes:
            planted = programmes[name]
            level[planted.genes] *= np.exp(activity * planted.log_factor)
            level[planted.genes] += activity * planted.added
        means[i] = p.rna * level / level.sum()
    sums = np.empty((len(samples), len(genes)))
    red = {"HBB": 0.02, "HBA2": 0.008, "HBA1": 0.005}
    where = {s: j for j, s in enumerate(universe.symbols[genes])}
    for s, donor in enumerate(samples["donor"]):
        soup = (frequency[s] @ means) * donor_factor[donor]
        soup /= soup.sum()
        for gene, amount in red.items():
            if gene in where:
                soup[where[gene]] += amount
        sums[s] = np.cumsum(soup / soup.sum())
    sums[:, -1] = 1.0
    return sums


# ------------------------------------------------------------------------------------------------
# drawing


class _Rows(NamedTuple):
    lengths: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]


def _slots(
    programmes: dict[str, _Programme],
) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
    """The kernel's view: what each population runs, and the programmes as one flat table."""
    from senoscore.kernels.draw import DAMAGE, NUISANCE, STATE, STRESS

    number = {name: i for i, name in enumerate(programmes)}
    start, programme, mean, sd, kind = [0], [], [], [], []
    for p in _POPULATIONS:
        slots = [(n, a, _ACTIVITY_SD, STATE) for n, a in p.programmes]
        slots += [(n, 0.0, s, NUISANCE) for n, s in _NUISANCE]
        slots += [("dissociation", 1.0, _STRESS_SD, STRESS), ("mito_high", _DAMAGE, 0.2, DAMAGE)]
        for name, activity, spread, which in slots:
            programme.append(number[name])
            mean.append(activity)
            sd.append(spread)
            kind.append(which)
        start.append(len(programme))
    slots_view = (
        np.array(start, np.int64),
        np.array(programme, np.int16),
        np.array(mean, np.float32),
        np.array(sd, np.float32),
        np.array(kind, np.int8),
    )
    sizes = [len(p.genes) for p in programmes.values()]
    flat = (
        np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        np.concatenate([p.genes for p in programmes.values()]),
        np.concatenate([p.log_factor for p in programmes.values()]),
        np.concatenate([p.added for p in programmes.values()]),
    )
    return slots_view, flat


def _draw(cohort: _Cohort, *, threads: int, slice_size: int = _SLICE) -> Iterator[_Rows]:
    """Rows of the matrix in order; slices are drawn ahead in threads and are always the same."""
    from senoscore.kernels.draw import draw_cells

    slots, flat = _slots(cohort.programmes)
    rows = {profile: row for row, profile in enumerate(_PROFILES)}
    profile = np.array([rows[p.profile] for p in _POPULATIONS], np.int16)
    donor = cohort.samples["donor"].to_numpy(np.int16)
    stress = cohort.samples["stress"].to_numpy(np.float32)
    seed = np.uint64(cohort.parameters["seed"])

    def one(first: int) -> _Rows:
        last = min(first + slice_size, cohort.n_cells)
        part = slice(first, last)
        lengths = np.zeros(last - first, np.int64)
        indices = np.empty((last - first) * cohort.n_genes, np.int32)
        data = np.empty((last - first) * cohort.n_genes, np.float32)
        written = draw_cells(
            first,
            seed,
            cohort.population[part],
            cohort.partner[part],
            cohort.sample[part],
            cohort.depth[part],
            cohort.partner_depth[part],
            cohort.ambient[part],
            cohort.damaged[part],
            donor,
            stress,
            cohort.base,
            cohort.donor_factor,
            cohort.size,
            profile,
            *slots,
            *flat,
            cohort.ambient_sum,
            lengths,
            indices,
            data,
        )
        return _Rows(lengths, indices[:written].copy(), data[:written].copy())

    firsts = range(0, cohort.n_cells, slice_size)
    yield from _ahead(one, firsts, threads)


def _ahead(function: Any, arguments: Sequence[Any], threads: int) -> Iterator[Any]:
    """`function` of each argument, in order, at most a few results in advance."""
    if threads <= 1:
        for argument in arguments:
            yield function(argument)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Any]] = []
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > 2 * threads:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


# ------------------------------------------------------------------------------------------------
# what stands beside the counts


def _categorical(codes: NDArray[Any], names: Sequence[str]) -> pd.Categorical:
    """Categories in the order given, those that occur only."""
    codes = np.asarray(codes)
    unique = list(dict.fromkeys(names))
    to_unique = np.array([unique.index(n) for n in names])
    codes = np.where(codes < 0, -1, to_unique[codes])
    present = [i for i in range(len(unique)) if (codes == i).any()]
    new = np.full(len(unique) + 1, -1)
    new[present] = np.arange(len(present))
    return pd.Categorical.from_codes(new[codes], categories=[unique[i] for i in present])


def _fixed(values: Sequence[str], categories: Sequence[str], rows: NDArray[Any]) -> pd.Categorical:
    """All of `categories`, whether they occur or not; an empty value is NaN."""
    code = np.array([categories.index(v) if v else -1 for v in values])
    return pd.Categorical.from_codes(code[rows], categories=list(categories))


def _obs(cohort: _Cohort) -> pd.DataFrame:
    who, sample = cohort.population, cohort.sample
    samples, donors = cohort.samples, cohort.donors
    labels = [p.label for p in _POPULATIONS]
    donor = samples["donor"].to_numpy()[sample]
    diseases = ["normal" if c == "healthy" else "lung adenocarcinoma" for c in samples["condition"]]
    stages = [f"{a}-year-old stage" for a in donors["age"]]
    n = cohort.n_cells
    columns = {
        "cell_type": _categorical(who, labels),
        "cell_type_ontology_term_id": _categorical(who, [_TERMS[label] for label in labels]),
        "donor_id": _categorical(donor, donors["donor_id"].tolist()),
        "sample_id": _categorical(sample, samples["sample_id"].tolist()),
        "condition": _categorical(sample, samples["condition"].tolist()),
        "disease": _categorical(sample, diseases),
        "tissue": _categorical(sample, samples["tissue"].tolist()),
        "sex": _categorical(donor, donors["sex"].tolist()),
        "age": donors["age"].to_numpy(np.int16)[donor],
        "development_stage": _categorical(donor, stages),
        "assay": _categorical(np.zeros(n, np.int8), ["10x 3' v3"]),
        "suspension_type": _categorical(np.zeros(n, np.int8), ["cell"]),
        "is_primary_data": np.ones(n, bool),
        "true_lineage": _fixed([p.lineage for p in _POPULATIONS], LINEAGES, who),
        "true_lineage_subset": _categorical(who, [p.subset for p in _POPULATIONS]),
        "true_t_state": _fixed([p.t_state for p in _POPULATIONS], TRUE_T_STATES, who),
        "true_t_substate": _categorical(
            np.where(_is_t()[who], who, -1), [p.t_substate for p in _POPULATIONS]
        ),
        "true_senescent": np.array([p.senescent for p in _POPULATIONS])[who],
        "true_population": _categorical(who, [p.name for p in _POPULATIONS]),
        "true_doublet": cohort.partner >= 0,
        "true_low_quality": cohort.damaged,
        "true_ambient_fraction": cohort.ambient,
    }
    return pd.DataFrame(columns, index=pd.Index(_barcodes(cohort), name=None))


def _is_t() -> NDArray[np.bool_]:
    return np.array([p.lineage == "T" for p in _POPULATIONS])


def _barcodes(cohort: _Cohort) -> list[str]:
    """Sixteen letters that look drawn at random and never repeat, then the sample's number."""
    number = np.arange(cohort.n_cells, dtype=np.uint64)
    # multiplying by an odd number modulo 2**32 is one to one; so is the shifted xor
    mixed = (number * np.uint64(2654435761) + np.uint64(0x1B873593)) & np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(15)
    mixed = (mixed * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    shifts = np.arange(0, 32, 2, dtype=np.uint64)
    letters = np.frombuffer(b"ACGT", np.uint8)
    text = np.empty((cohort.n_cells, 16), np.uint8)
    for column, shift in enumerate(shifts):
        text[:, column] = letters[((mixed >> shift) & np.uint64(3)).astype(np.intp)]
    names = text.view("S16").ravel().astype("U16")
    return [f"{a}-{b + 1}" for a, b in zip(names, cohort.sample.tolist(), strict=True)]


def _var(cohort: _Cohort) -> pd.DataFrame:
    universe = _universe()
    return pd.DataFrame(
        {
            "gene_ids": universe.ensembl[cohort.genes].astype(object),
            "feature_types": _categorical(np.zeros(cohort.n_genes, np.int8), ["Gene Expression"]),
        },
        index=pd.Index(universe.symbols[cohort.genes].astype(object), name=None),
    )


def _umap(cohort: _Cohort) -> NDArray[np.float32]:
    """A layout, not an embedding: the centre of the profile, a step for the state, noise."""
    rng = np.random.default_rng([cohort.parameters["seed"], 6])
    step = np.random.default_rng(_BIOLOGY + 3)
    centres = np.array(
        [
            np.array(_CENTRES[p.profile]) + (0.9 * step.standard_normal(2) if p.programmes else 0.0)
            for p in _POPULATIONS
        ],
        np.float32,
    )
    at = centres[cohort.population]
    double = cohort.partner >= 0
    at[double] = (at[double] + centres[cohort.partner[double]]) / 2
    return at + 0.45 * rng.standard_normal(at.shape, dtype=np.float32)


def _truth(cohort: _Cohort) -> dict[str, Any]:
    symbols = _universe().symbols[cohort.genes]
    registry = _universe().registry[cohort.genes]
    parts = [
        pd.DataFrame(
            {
                "programme": name,
                "gene": symbols[p.genes],
                "role": p.role,
                "log_factor": p.log_factor,
                "added_cp10k": p.added,
                "in_registry": registry[p.genes],
            }
        )
        for name, p in cohort.programmes.items()
        if not name.startswith("module") and name != "ribosomal"
    ]
    effects = pd.concat(parts, ignore_index=True)
    populations = pd.DataFrame(
        {
            "population": [p.name for p in _POPULATIONS],
            "profile": [p.profile for p in _POPULATIONS],
            "lineage": [p.lineage for p in _POPULATIONS],
            "subset": [p.subset for p in _POPULATIONS],
            "t_state": [p.t_state for p in _POPULATIONS],
            "t_substate": [p.t_substate for p in _POPULATIONS],
            "senescent": [p.senescent for p in _POPULATIONS],
            "programmes": [
                ";".join(f"{name}:{activity:g}" for name, activity in p.programmes)
                for p in _POPULATIONS
            ],
            "n_cells": np.bincount(cohort.population, minlength=len(_POPULATIONS)),
        }
    )
    for frame in (effects, populations):
        frame.index = frame.index.astype(str)
    donors, samples = cohort.donors.set_index("donor_id"), cohort.samples.set_index("sample_id")
    donors.index.name = samples.index.name = None
    return {
        "parameters": dict(cohort.parameters),
        "effects": effects,
        "populations": populations,
        "donors": donors,
        "samples": samples,
    }


def _uns(cohort: _Cohort) -> dict[str, Any]:
    return {
        "title": "Simulated immune cohort with planted senescent and exhausted cells",
        "organism": "Homo sapiens",
        "simulation": _truth(cohort),
    }


# ------------------------------------------------------------------------------------------------
# public


def simulate(
    n_cells: int = 6000,
    n_genes: int = 20000,
    *,
    n_donors: int = 8,
    seed: int = 0,
    depth_median: float | None = None,
    ambient_fraction: float = 0.04,
    doublet_fraction: float = 0.03,
    damaged_fraction: float = 0.03,
    effect_scale: float = 1.0,
    threads: int = 1,
) -> AnnData:
    """An immune cohort with planted senescent, exhausted, cycling, TEMRA and neutral cells.

    Every donor gives blood and lung tissue; half of the donors are diseased, ages run from young to
    old within both conditions. Senescence rises with age, exhaustion with disease, both modestly.

    Parameters
    ----------
    n_cells, n_genes
        Size. Genes are real human ones: those of every signature, lineage marker, mitochondrial and
        ribosomal genes always, then protein-coding genes, then others, in the order of Ensembl ids.
    n_donors
        How many people.
    seed
        Draws donors, effects and cells. Which gene is abundant where does not depend on it.
    depth_median
        Median counts per cell, 4000 unless said otherwise. Genes per cell follow from it: about
        1500 at 4000 counts, 2500 at 10000.
    ambient_fraction
        Mean share of the counts of a cell that come from the soup of its sample.
    doublet_fraction, damaged_fraction
        Share of droplets with two cells (of one sample), and of dying cells: few counts, many of
        them mitochondrial.
    effect_scale
        Multiplies what the programmes do; 0 plants nothing (the truth columns stay as drawn).
    threads
        Cells are drawn in this many threads. The result does not depend on it.

    Returns
    -------
    Counts as float32 CSR in ``X``; ``obs`` with ``cell_type``, ``cell_type_ontology_term_id``,
    ``donor_id``, ``sample_id``, ``condition``, ``disease``, ``tissue``, ``sex``, ``age``,
    ``development_stage`` and more as in a published file, and the truth:

    ``true_lineage``
        Exactly T, B, NK, mono_mac, neutrophil, DC, other.
    ``true_lineage_subset``
        CD4, CD8, Treg, innate_like, naive, memory, age_associated, plasma, CD56bright, …
    ``true_t_state``
        exhausted, senescent, both, senescent_like, cycling, neither; NaN outside T cells.
    ``true_t_substate``
        progenitor, terminal, arrested, sasp_high, nk_like, exhausted_senescent, temra, cycling,
        cycling_exhausted, naive, memory, interferon, activated, treg, mait, gamma_delta; NaN
        outside T cells.
    ``true_senescent``
        Whether a senescence programme was planted, in any lineage.
    ``true_doublet``, ``true_low_quality``, ``true_ambient_fraction``
        What else happened in the droplet. A doublet has the labels of its first cell.

    ``obsm["X_umap"]`` is a layout by kind of cell, computed from the truth: good for pictures, not
    evidence. ``uns["simulation"]`` holds the parameters, donors, populations and planted effects.

    Raises
    ------
    SenoscoreError
        A size, depth or fraction is out of range.

    Examples
    --------
    >>> adata = simulate(200, 3000, n_donors=2)
    >>> adata.shape
    (200, 3000)
    >>> adata.obs["true_t_state"].cat.categories.tolist()
    ['exhausted', 'senescent', 'both', 'senescent_like', 'cycling', 'neither']
    """
    from anndata import AnnData
    from scipy import sparse

    cohort = _plan(
        n_cells,
        n_genes,
        n_donors=n_donors,
        seed=seed,
        depth_median=depth_median,
        ambient_fraction=ambient_fraction,
        doublet_fraction=doublet_fraction,
        damaged_fraction=damaged_fraction,
        effect_scale=effect_scale,
    )
    parts = list(_draw(cohort, threads=threads))
    lengths = np.concatenate([part.lengths for part in parts])
    nnz = int(lengths.sum())
    indptr = np.zeros(n_cells + 1, np.int32 if nnz < 2**31 else np.int64)
    np.cumsum(lengths, out=indptr[1:])
    matrix = sparse.csr_matrix(
        (
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.indices for part in parts]),
            indptr,
        ),
        shape=(n_cells, n_genes),
    )
    return AnnData(
        X=matrix,
        obs=_obs(cohort),
        var=_var(cohort),
        uns=_uns(cohort),
        obsm={"X_umap": _umap(cohort)},
    )


def simulate_to(
    path: str | Path,
    n_cells: int = 6000,
    n_genes: int = 20000,
    seed: int = 0,
    threads: int = 1,
    *,
    n_donors: int = 8,
    depth_median: float | None = None,
    ambient_fraction: float = 0.04,
    doublet_fraction: float = 0.03,
    damaged_fraction: float = 0.03,
    effect_scale: float = 1.0,
) -> Path:
    """Write the cohort of :func:`simulate` to an h5ad file, a few hundred cells at a time.

    Memory does not grow with the matrix: about 0.5 GB for any size, plus a few hundred bytes per
    cell for ``obs``. The same arguments give the same bytes, for any number of threads.

    Parameters
    ----------
    path
        Where to write; it appears when it is complete, and replaces what was there.
    n_cells, n_genes, seed, n_donors, depth_median
        As in :func:`simulate`.
    ambient_fraction, doublet_fraction, damaged_fraction, effect_scale
        As in :func:`simulate`.
    threads
        Cells are drawn and compressed in this many threads.

    Returns
    -------
    The path.
    """
    cohort = _plan(
        n_cells,
        n_genes,
        n_donors=n_donors,
        seed=seed,
        depth_median=depth_median,
        ambient_fraction=ambient_fraction,
        doublet_fraction=doublet_fraction,
        damaged_fraction=damaged_fraction,
        effect_scale=effect_scale,
    )
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        _write(cohort, temporary, threads=threads)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write(cohort: _Cohort, path: Path, *, threads: int, slice_size: int = _SLICE) -> None:
    import anndata
    import h5py

    compressed = {"compression": "gzip", "compression_opts": _GZIP_LEVEL}
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file.attrs["encoding-version"] = "0.1.0"
        x = file.create_group("X")
        x.attrs["encoding-type"] = "csr_matrix"
        x.attrs["encoding-version"] = "0.1.0"
        x.attrs["shape"] = np.array([cohort.n_cells, cohort.n_genes], np.int64)
        lengths = []
        with _Values(x, threads) as values:
            for part in _draw(cohort, threads=threads, slice_size=slice_size):
                lengths.append(part.lengths)
                values.append(part.data, part.indices)
        indptr = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
        if indptr[-1] < 2**31:
            indptr = indptr.astype(np.int32)
        x.create_dataset("indptr", data=indptr, **compressed)
        write = anndata.io.write_elem
        write(file, "obs", _obs(cohort), dataset_kwargs=compressed)
        write(file, "var", _var(cohort), dataset_kwargs=compressed)
        write(file, "obsm", {"X_umap": _umap(cohort)}, dataset_kwargs=compressed)
        write(file, "uns", _uns(cohort), dataset_kwargs=compressed)
        for name in ("layers", "obsp", "varm", "varp"):
            write(file, name, {})


class _Values:
    """``data`` and ``indices`` of a growing CSR matrix, compressed in threads, stored chunk by chunk.

    Chunks go to the file in one order, whatever the threads and the sizes of the parts.
    """

    def __init__(self, group: Any, threads: int) -> None:
        self.datasets = [
            group.create_dataset(
                name,
                shape=(0,),
                maxshape=(None,),
                chunks=(_CHUNK,),
                dtype=dtype,
                compression="gzip",
                compression_opts=_GZIP_LEVEL,
            )
            for name, dtype in (("data", np.float32), ("indices", np.int32))
        ]
        self.pool = ThreadPoolExecutor(max(1, threads))
        self.limit = 2 * max(1, threads)
        self.waiting: deque[tuple[Future[bytes], ...]] = deque()
        self.rest: list[tuple[NDArray[Any], ...]] = []
        self.n_rest = 0
        self.n_stored = 0  # whole chunks in the file
        self.n_values = 0

    def __enter__(self) -> Self:
        return self

    def append(self, data: NDArray[np.float32], indices: NDArray[np.int32]) -> None:
        self.rest.append((data, indices))
        self.n_rest += len(data)
        self.n_values += len(data)
        if self.n_rest >= _CHUNK:
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        joined = [np.concatenate(parts) for parts in zip(*self.rest, strict=True)]
        if last:
            filler = -self.n_rest % _CHUNK
            joined = [np.concatenate((a, np.zeros(filler, a.dtype))) for a in joined]
        whole = len(joined[0]) // _CHUNK * _CHUNK
        for first in range(0, whole, _CHUNK):
            chunk = slice(first, first + _CHUNK)
            self.waiting.append(
                tuple(
                    self.pool.submit(zlib.compress, a[chunk].tobytes(), _GZIP_LEVEL) for a in joined
                )
            )
            while len(self.waiting) > self.limit:
                self._store()
        self.rest = [tuple(a[whole:].copy() for a in joined)]
        self.n_rest = len(joined[0]) - whole

    def _store(self) -> None:
        for dataset, compressed in zip(self.datasets, self.waiting.popleft(), strict=True):
            dataset.resize(((self.n_stored + 1) * _CHUNK,))
            dataset.id.write_direct_chunk((self.n_stored * _CHUNK,), compressed.result())
        self.n_stored += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self.n_rest:
                    self._flush(last=True)
                while self.waiting:
                    self._store()
                for dataset in self.datasets:
                    dataset.resize((self.n_values,))
        finally:
            self.pool.shutdown(cancel_futures=True)
