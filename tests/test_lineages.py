"""What labels and ontology terms say of a cell, and what they do not."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from senoscore import annotate, keys, lineages
from senoscore.errors import SenoscoreWarning
from senoscore.lineages import map_label, map_labels, map_term

# label -> lineage, subset; by where the labels come from
LABELS: dict[str, dict[str, tuple[str, str]]] = {
    "CELLxGENE": {
        "T cell": ("T", "T"),
        "CD4-positive, alpha-beta T cell": ("T", "CD4"),
        "naive thymus-derived CD8-positive, alpha-beta T cell": ("T", "CD8"),
        "regulatory T cell": ("T", "Treg"),
        "gamma-delta T cell": ("T", "innate_like"),
        "mature NK T cell": ("T", "innate_like"),
        "mucosal invariant T cell": ("T", "innate_like"),
        "natural killer cell": ("NK", "NK"),
        "CD16-negative, CD56-bright natural killer cell, human": ("NK", "CD56bright"),
        "classical monocyte": ("mono_mac", "monocyte"),
        "alveolar macrophage": ("mono_mac", "macrophage"),
        "microglial cell": ("mono_mac", "microglia"),
        "neutrophil": ("neutrophil", "neutrophil"),
        "plasmacytoid dendritic cell": ("DC", "pDC"),
        "conventional dendritic cell": ("DC", "cDC"),
        "plasma cell": ("B", "plasma"),
        "memory B cell": ("B", "memory"),
        "innate lymphoid cell": ("other", "ILC"),
        "erythrocyte": ("other", "erythroid"),
        "platelet": ("other", "platelet"),
        "mast cell": ("other", "mast"),
        "epithelial cell": ("other", "epithelial"),
        "endothelial cell": ("other", "endothelial"),
        "hematopoietic stem cell": ("other", "progenitor"),
        "leukocyte": ("ambiguous", ""),
        "lymphocyte": ("ambiguous", ""),
        "myeloid cell": ("ambiguous", ""),
        "peripheral blood mononuclear cell": ("ambiguous", ""),
        "granulocyte": ("ambiguous", ""),
        "unknown": ("unmapped", ""),
    },
    "Azimuth": {
        "CD4 TCM": ("T", "CD4"),
        "CD8 TEM": ("T", "CD8"),
        "CD4 CTL": ("T", "CD4"),
        "Treg Memory": ("T", "Treg"),
        "gdT": ("T", "innate_like"),
        "MAIT": ("T", "innate_like"),
        "dnT": ("T", "other"),
        "other T": ("T", "other"),
        "NK_CD56bright": ("NK", "CD56bright"),
        "NK Proliferating": ("NK", "NK"),
        "B intermediate lambda": ("B", "B"),
        "B naive kappa": ("B", "naive"),
        "Plasmablast": ("B", "plasma"),
        "CD14 Mono": ("mono_mac", "monocyte"),
        "CD16 Mono": ("mono_mac", "monocyte"),
        "cDC2": ("DC", "cDC"),
        "ASDC": ("DC", "DC"),
        "HSPC": ("other", "progenitor"),
        "Eryth": ("other", "erythroid"),
        "ILC": ("other", "ILC"),
        "Doublet": ("ambiguous", "doublet"),
        "other": ("ambiguous", ""),
        "Mono": ("mono_mac", "monocyte"),
    },
    "CellTypist": {
        "Tem/Trm cytotoxic T cells": ("T", "CD8"),
        "Tem/Effector helper T cells": ("T", "CD4"),
        "Type 17 helper T cells": ("T", "CD4"),
        "Follicular helper T cells": ("T", "CD4"),
        "CRTAM+ gamma-delta T cells": ("T", "innate_like"),
        "CD16- NK cells": ("NK", "CD56bright"),
        "Age-associated B cells": ("B", "memory"),
        "Proliferative germinal center B cells": ("B", "germinal_centre"),
        "Large pre-B cells": ("B", "precursor"),
        "Erythrophagocytic macrophages": ("mono_mac", "macrophage"),
        "Migratory DCs": ("DC", "cDC"),
        "Neutrophil-myeloid progenitor": ("other", "progenitor"),
        "Megakaryocytes/platelets": ("other", "platelet"),
    },
    "scanpy": {
        "CD4 T cells": ("T", "CD4"),
        "FCGR3A+ Monocytes": ("mono_mac", "monocyte"),
        "Megakaryocytes": ("other", "platelet"),
        "CD4+/CD25 T Reg": ("T", "Treg"),
        "CD4+/CD45RO+ Memory": ("T", "CD4"),
        "CD8+/CD45RA+ Naive Cytotoxic": ("T", "CD8"),
        "CD56+ NK": ("NK", "NK"),
        "CD19+ B": ("B", "B"),
        "CD34+": ("other", "progenitor"),
        "Dendritic": ("DC", "DC"),
    },
    "Zilionis": {
        "tT cells": ("T", "T"),
        "bNK cells": ("NK", "NK"),
        "tPlasma cells": ("B", "plasma"),
        "bNeutrophils": ("neutrophil", "neutrophil"),
        "tpDC": ("DC", "pDC"),
        "tMac3": ("mono_mac", "macrophage"),
        "tMacCycl": ("mono_mac", "macrophage"),
        "bMono1": ("mono_mac", "monocyte"),
        "tDC2": ("DC", "cDC"),
        "bCD8T2": ("T", "CD8"),
        "bBasophils": ("other", "basophil"),
        "tMast2": ("other", "mast"),
        "Patient5-specific": ("other", "tumour"),
        "tMoMacDC": ("ambiguous", ""),
        "tMonoDC": ("ambiguous", ""),
        "ND": ("unmapped", ""),
    },
    "Sade-Feldman": {
        "Exhausted Cd8+ cells": ("T", "CD8"),
        "Exhausted/HS Cd8+ cells": ("T", "CD8"),
        "Memory T-cells": ("T", "T"),
        "Regulatory T-cells": ("T", "Treg"),
        "Monocytes/Macrophages": ("mono_mac", "mono_mac"),
        "Cytotoxicity (Lymphocytes)": ("ambiguous", ""),
        "Lymphocytes": ("ambiguous", ""),
        "Cell-cycle": ("unmapped", ""),
    },
    "LM22": {
        "T cells CD4 memory resting": ("T", "CD4"),
        "T cells regulatory (Tregs)": ("T", "Treg"),
        "T cells gamma delta": ("T", "innate_like"),
        "Macrophages M0": ("mono_mac", "macrophage"),
        "NK cells activated": ("NK", "NK"),
        "Eosinophils": ("other", "eosinophil"),
    },
    "mouse and tissue": {
        "Ly6C+ monocyte": ("mono_mac", "monocyte"),
        "CD8+ DC": ("DC", "cDC"),
        "CD11b+ DC": ("DC", "cDC"),
        "Kupffer cells": ("mono_mac", "macrophage"),
        "Tumour-associated macrophages": ("mono_mac", "macrophage"),
        "TAM_SPP1": ("mono_mac", "macrophage"),
        "AT2": ("other", "epithelial"),
        "Stromal B": ("other", "stromal"),
        "T-bet+ B cells": ("B", "B"),
        "Tumor cells": ("other", "tumour"),
        "T.8Nve.Sp": ("T", "CD8"),
        "B.GC.CB.Sp": ("B", "germinal_centre"),
        "MF.Alv.Lu": ("mono_mac", "macrophage"),
        "GN.BM": ("neutrophil", "neutrophil"),
        "Interstitial Mph perivascular": ("mono_mac", "macrophage"),
        "EC arterial": ("other", "endothelial"),
        "Multiciliated (non-nasal)": ("other", "epithelial"),
        "NK1.1+ T cells": ("T", "T"),
        "non-T cells": ("unmapped", ""),
    },
    "spelling": {
        "γδ T cells": ("T", "innate_like"),
        "Vδ2 T": ("T", "innate_like"),
        "CD4Tcells": ("T", "CD4"),
        "Tcells": ("T", "T"),
        "B_naive": ("B", "naive"),
        "NKcell": ("NK", "NK"),
        "  b CELLS ": ("B", "B"),
        "CD4-CD8- T cells": ("T", "other"),
        "4.6a-Treg": ("T", "Treg"),
        "8.1-Teff": ("T", "T"),
        "HLA-DR+ T": ("T", "T"),
        "gamma/delta T": ("T", "innate_like"),
        "NKdim": ("NK", "CD56dim"),
        "T4": ("T", "CD4"),
    },
    "two lineages": {
        "T/NK": ("ambiguous", ""),
        "T_NK": ("ambiguous", ""),
        "NK/T cells": ("ambiguous", ""),
        "T cells + Macrophages": ("ambiguous", ""),
        "mono/DC": ("ambiguous", ""),
        "Myeloid": ("ambiguous", ""),
        "CD8, T Resident Memory_NK Cells": ("ambiguous", ""),
        "Plasma Cells_T Regulatory Cells": ("ambiguous", ""),
        "B cell doublets": ("ambiguous", "doublet"),
    },
    "nothing": {
        "Cluster3_Unexposed": ("unmapped", ""),
        "7": ("unmapped", ""),
        "": ("unmapped", ""),
        "Naive": ("unmapped", ""),
        "4.4-FOS": ("unmapped", ""),
        "causal_cell": ("unmapped", ""),
        "low quality": ("unmapped", ""),
    },
}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param(label, expected, id=f"{source}: {label}")
        for source, labels in LABELS.items()
        for label, expected in labels.items()
    ],
)
def test_a_label_names_its_lineage(label: str, expected: tuple[str, str]) -> None:
    assert tuple(map_label(label)) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("CD83_CD14_mono", ("mono_mac", "monocyte")),
        ("CD86+ macrophage", ("mono_mac", "macrophage")),
        ("CD45+", ("ambiguous", "")),
        ("CD45-", ("unmapped", "")),
        ("CD40+ B", ("B", "B")),
        ("CD48 NK", ("NK", "NK")),
        ("CD81 epithelial", ("other", "epithelial")),
        ("CD4T2", ("T", "CD4")),
        ("CD8Tex", ("T", "CD8")),
    ],
)
def test_cd83_is_not_cd8(label: str, expected: tuple[str, str]) -> None:
    """A pattern that let digits follow CD4 and CD8 took CD45+ and CD83+ cells for T cells."""
    assert tuple(map_label(label)) == expected


def test_a_lectin_or_a_place_in_the_name_is_no_cell_type() -> None:
    assert map_label("DC-SIGN+ macrophage").lineage == "mono_mac"
    assert map_label("intraepithelial T cells").lineage == "T"
    assert map_label("liver-resident NK").lineage == "NK"


@given(st.text(max_size=60))
def test_any_text_gets_a_verdict_from_the_fixed_words(label: str) -> None:
    verdict = map_label(label)
    assert verdict.lineage in (*keys.LINEAGES, "ambiguous", "unmapped")
    if verdict.lineage in keys.LINEAGES:
        assert verdict.subset
    assert map_label(label) == verdict


@pytest.mark.parametrize("label", [*LABELS["Azimuth"], *LABELS["scanpy"], *LABELS["CELLxGENE"]])
def test_case_and_separators_do_not_matter(label: str) -> None:
    if "-" not in label and "+" not in label and "/" not in label:
        assert map_label(label.replace(" ", "_")) == map_label(label)
    if label.islower():
        assert map_label(label.capitalize()) == map_label(label)


# --------------------------------------------------------------------------------------------
# the Cell Ontology


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("CL:0000084", ("T", "T")),
        ("CL:0000624", ("T", "CD4")),
        ("CL:0000625", ("T", "CD8")),
        ("CL:0000815", ("T", "Treg")),
        ("CL:0000814", ("T", "innate_like")),
        ("CL:0000798", ("T", "innate_like")),
        ("CL:0000236", ("B", "B")),
        ("CL:0000786", ("B", "plasma")),
        ("CL:0000980", ("B", "plasma")),
        ("CL:0000787", ("B", "memory")),
        ("CL:0000623", ("NK", "NK")),
        ("CL:0000576", ("mono_mac", "monocyte")),
        ("CL:0000235", ("mono_mac", "macrophage")),
        ("CL:0000129", ("mono_mac", "microglia")),
        ("CL:0000775", ("neutrophil", "neutrophil")),
        ("CL:0000451", ("DC", "DC")),
        ("CL:0000784", ("DC", "pDC")),
        ("CL:0000990", ("DC", "cDC")),
        ("CL:0001065", ("other", "ILC")),
        ("CL:0000097", ("other", "mast")),
        ("CL:0000066", ("other", "epithelial")),
        ("CL:0000542", ("ambiguous", "")),
        ("CL:0000738", ("ambiguous", "")),
        ("CL:2000001", ("ambiguous", "")),
        ("CL:0000094", ("ambiguous", "")),
        ("CL_0000084", ("T", "T")),
        ("CL:9999999", ("unmapped", "")),
        ("unknown", ("unmapped", "")),
    ],
)
def test_a_term_takes_the_lineage_of_its_nearest_root(term: str, expected: tuple[str, str]) -> None:
    assert tuple(map_term(term)) == expected


def ontology() -> pd.DataFrame:
    path = Path(lineages.__file__).parent / "data" / "cell_ontology.tsv"
    return pd.read_csv(path, sep="\t", comment="#", keep_default_na=False)


def test_the_ontology_table_holds_the_whole_ontology_in_known_words() -> None:
    table = ontology()
    assert len(table) > 3000
    assert table["id"].is_unique
    assert set(table["lineage"]) == {*keys.LINEAGES, "ambiguous"}
    assert (table.loc[table["lineage"] == "ambiguous", "subset"] == "").all()
    assert set(table.loc[table["lineage"] == "T", "subset"]) <= set(lineages.T_SUBSETS)


def test_labels_and_ids_of_the_ontology_agree() -> None:
    """The label table must not take a CELLxGENE label for another lineage than its id."""
    table = ontology()
    immune = table[table["lineage"].isin(keys.LINEAGES[:-1]) & (table["label"] != "")]
    wrong = [
        (row.label, row.lineage, map_label(row.label).lineage)
        for row in immune.itertuples()
        if map_label(row.label).lineage != row.lineage
    ]
    assert wrong == []


# --------------------------------------------------------------------------------------------
# all cells of a file


def lineage(found: lineages.LabelMap) -> list[str | None]:
    values = found.obs["lineage"].astype(object)
    return [None if pd.isna(v) else str(v) for v in values]


def test_the_ontology_decides_and_the_label_refines() -> None:
    found = map_labels(
        ["CD8 T cells", "NK", "whatever", None],
        ontology=["CL:0000084", "CL:0000236", "CL:0000775", "CL:0000542"],
    )
    assert lineage(found) == ["T", "B", "neutrophil", None]
    assert found.obs["t_subset"].astype(object).tolist()[0] == "CD8"
    assert list(found.obs["lineage_source"]) == ["ontology", "ontology", "ontology", "ambiguous"]


def test_an_ambiguous_label_is_resolved_by_the_finer_one() -> None:
    found = map_labels(
        ["tMoMacDC", "tMoMacDC", "tMoMacDC", "Lymphocytes"],
        fine=["tMac3", "tDC2", "tMonoDC", None],
    )
    assert lineage(found) == ["mono_mac", "DC", None, None]
    assert list(found.obs["lineage_source"]) == [
        "fine_label",
        "fine_label",
        "ambiguous",
        "ambiguous",
    ]


def test_the_label_is_not_overruled_by_the_finer_one() -> None:
    found = map_labels(["Monocytes", "T cells"], fine=["Cytotoxic CD8", "CD8 TEM"])
    assert lineage(found) == ["mono_mac", "T"]
    assert found.obs["lineage_subset"].astype(object).tolist() == ["monocyte", "CD8"]


def test_a_doublet_in_either_label_stays_open() -> None:
    found = map_labels(["B cells", "Doublet", "T cells"], fine=["Doublet", "T", "CD8 T"])
    assert lineage(found) == [None, None, "T"]


def test_a_label_that_maps_to_nothing_is_listed_and_not_guessed() -> None:
    found = map_labels(["Cluster 5"] * 3 + ["B cells"])
    assert lineage(found) == [None, None, None, "B"]
    assert found.n_unresolved == 3
    assert found.unresolved()[["label", "source", "n_cells"]].to_numpy().tolist() == [
        ["Cluster 5", "unmapped", 3]
    ]


def test_the_warning_of_lost_labels_names_what_the_file_has() -> None:
    found = map_labels(None, ontology=["CL:12312", "CL:0000057", None])
    with pytest.warns(SenoscoreWarning, match=r"2 cells .*: 'none' \(1\), 'CL:12312' \(1\);"):
        annotate.warn_unmapped(found.table)


def test_cells_that_markers_leave_open_are_warned_of() -> None:
    cells = pd.DataFrame({"lineage": ["T", None, "B"]})
    with pytest.warns(SenoscoreWarning, match="1 of 3 cells have no lineage and are not scored"):
        annotate.warn_unmarked(cells)
    few = pd.DataFrame({"lineage": ["T"] * 9 + [None]})
    annotate.warn_unmarked(few)  # says nothing: warnings are errors here


def test_the_table_counts_every_cell_once() -> None:
    rng = np.random.default_rng(0)
    label = pd.Series(rng.choice(["T cells", "B", "junk", None], 500), dtype="category")
    fine = pd.Series(rng.choice(["CD4 T", "CD8 T", None], 500))
    found = map_labels(label, fine=fine)
    assert found.table["n_cells"].sum() == 500
    assert (np.diff(found.table["n_cells"]) <= 0).all()
    for row in found.table.itertuples():
        here = (label.astype(object).fillna("") == row.label) & (fine.fillna("") == row.fine_label)
        assert here.sum() == row.n_cells
        wanted = row.lineage or None
        assert {None if pd.isna(v) else v for v in found.obs["lineage"][here]} == {wanted}


def test_unused_categories_and_the_index_are_handled() -> None:
    label = pd.Series(
        pd.Categorical(["B", "B"], categories=["Doublet", "B", "T"]), index=["x", "y"]
    )
    found = map_labels(label)
    assert list(found.obs.index) == ["x", "y"]
    assert list(found.table["label"]) == ["B"]
    assert tuple(found.obs["lineage"].cat.categories) == keys.LINEAGES


def test_order_of_cells_makes_no_difference() -> None:
    labels = pd.Series(["T", "B", "NK", "x", "tMoMacDC"] * 4)
    order = np.random.default_rng(0).permutation(20)
    one, two = map_labels(labels), map_labels(labels.iloc[order])
    assert lineage(two) == [lineage(one)[i] for i in order]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="do not go together"):
        map_labels(["T", "B"], fine=["T"])
    with pytest.raises(ValueError, match="needs labels"):
        map_labels(None)


# --------------------------------------------------------------------------------------------
# real files


def mapped(
    data: Path, name: str, label: str, fine: str | None = None
) -> tuple[ad.AnnData, pd.DataFrame]:
    adata = ad.read_h5ad(data / f"{name}.h5ad", backed="r")
    found = map_labels(adata.obs[label], fine=None if fine is None else adata.obs[fine])
    return adata, found.obs


def test_exhausted_and_resting_cells_of_the_melanoma_file_are_all_t_cells(data: Path) -> None:
    """All cells were sorted as CD45+; the authors' labels name states, not lineages."""
    for name in ("sadefeldman_melanoma_cd8_dev", "sadefeldman_melanoma_cd8_1073"):
        adata, obs = mapped(data, name, "cellTypes", "celltype")
        state = adata.obs["cellTypes"].astype(str)
        for word in ("Exhausted", "Memory", "Lymphocytes", "Cytotoxicity", "Regulatory"):
            here = state.str.contains(word)
            assert (obs["lineage"][here] == "T").all(), word
        exhausted = obs[state.str.contains("Exhausted")]
        assert (exhausted["t_subset"] == "CD8").all()
        assert (obs["t_subset"][state.str.contains("Regulatory")] == "Treg").all()
        assert (obs["lineage"][state == "Monocytes"] == "mono_mac").all()


def test_every_author_label_of_the_lung_tumour_is_right(data: Path) -> None:
    adata, obs = mapped(data, "zilionis_nsclc300", "Major.cell.type", "Minor.subset")
    expected = {
        "tT cells": "T",
        "bT cells": "T",
        "tB cells": "B",
        "bB cells": "B",
        "tPlasma cells": "B",
        "tNK cells": "NK",
        "bNK cells": "NK",
        "bNeutrophils": "neutrophil",
        "tNeutrophils": "neutrophil",
        "bMonocytes": "mono_mac",
        "tpDC": "DC",
        "tMast cells": "other",
        "bBasophils": "other",
        "Fibroblasts": "other",
        "Endothelial cells": "other",
        "Ciliated cells": "other",
        "Smooth muscle cells": "other",
        "bMyeloid precursor-like": "other",
    }
    major = adata.obs["Major.cell.type"].astype(str)
    for label, name in expected.items():
        assert (obs["lineage"][major == label] == name).all(), label
    assert (obs["lineage"][major.str.startswith("Patient")] == "other").all()
    minor = adata.obs["Minor.subset"].astype(str)
    mixed = major == "tMoMacDC"
    assert (obs["lineage"][mixed & minor.str.contains("Mac")] == "mono_mac").all()
    assert (obs["lineage"][mixed & minor.str.startswith("tDC")] == "DC").all()
    open_ = obs["lineage"].isna()
    assert set(minor[open_]) == {"tMonoDC", "ND_DPP4/CRABP2"}


@pytest.mark.parametrize(
    ("name", "label", "counts"),
    [
        (
            "pbmc3k_labelled",
            "louvain",
            {"T": 1460, "mono_mac": 630, "B": 342, "NK": 154, "DC": 37, "other": 15},
        ),
        (
            "kang2018_lupus_pbmc8684",
            "cluster_id",
            {"T": 4521, "mono_mac": 2247, "B": 1129, "NK": 787},
        ),
        ("hao2021_b_nk50", "celltype.l3", {"B": 25, "NK": 25}),
        (
            "symphony_pbmc1200_lognorm",
            "cell_type",
            {"T": 599, "mono_mac": 332, "B": 172, "NK": 59, "DC": 28, "other": 10},
        ),
        ("celltypist_sample88", "cell_type_in_name", {"T": 20, "B": 10, "DC": 10}),
        ("marthandan2016_fibroblast_bulk", "CellType", {"other": 39}),
    ],
)
def test_labels_of_real_files_give_the_counts_of_the_manifest(
    name: str, label: str, counts: dict[str, int], data: Path
) -> None:
    _, obs = mapped(data, name, label)
    found = obs["lineage"].value_counts()
    assert {k: int(v) for k, v in found.items() if v} == counts
