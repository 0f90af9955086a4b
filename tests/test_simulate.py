"""The planted cohort: what was planted is there, what was not is not, and it looks like real data."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from senoscore import simulate as module
from senoscore._planted import (
    RIBOSOMAL,
    build_levels,
    read_populations,
    read_profiles,
    read_universe,
)
from senoscore.errors import SenoscoreError
from senoscore.kernels.draw import add_negative_binomial
from senoscore.keys import LINEAGES
from senoscore.signatures import read_signatures
from senoscore.simulate import simulate, simulate_to

SMALL = {"n_cells": 300, "n_genes": 3000, "n_donors": 3, "seed": 7}


@pytest.fixture(scope="module")
def cohort() -> anndata.AnnData:
    return simulate(8000, 12000, seed=1, threads=2)


@pytest.fixture(scope="module")
def clean(cohort: anndata.AnnData) -> anndata.AnnData:
    """Without doublets and dying cells."""
    return cohort[~cohort.obs["true_doublet"] & ~cohort.obs["true_low_quality"]].copy()


def _cp10k(adata: anndata.AnnData, *populations: str) -> pd.Series:
    """Pseudobulk of populations, counts per ten thousand."""
    counts = adata[adata.obs["true_population"].isin(populations)].X.sum(axis=0)
    counts = np.asarray(counts, np.float64).ravel()
    return pd.Series(1e4 * counts / counts.sum(), index=adata.var_names)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- the law of the counts


@pytest.mark.parametrize(
    ("mean", "size"), [(0.02, 0.5), (0.4, 2.0), (3.0, 0.7), (40.0, 9.0), (2.0, 1e7)]
)
def test_counts_follow_the_negative_binomial_law(mean: float, size: float) -> None:
    weights = np.array([mean, 5.0, mean])
    sizes = np.array([size, 3.0, size], np.float32)
    state = np.array([12345], np.uint64)
    n = 40_000
    drawn = np.zeros((n, 3), np.int32)
    for row in drawn:
        add_negative_binomial(weights, weights.sum(), sizes, state, row)
    law = stats.nbinom(size, size / (size + mean))
    for column in (0, 2):
        values = np.arange(int(law.ppf(0.999)) + 1)
        seen = np.bincount(drawn[:, column], minlength=len(values))[: len(values)]
        expected = n * law.pmf(values)
        enough = expected >= 8
        z = (seen[enough] - expected[enough]) / np.sqrt(expected[enough])
        assert (z**2).sum() < stats.chi2.ppf(0.9999, enough.sum())
        assert drawn[:, column].var() == pytest.approx(law.var(), rel=0.15)
    # the genes of a cell are independent
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 0.02


def test_a_cell_without_molecules_is_empty() -> None:
    counts = np.zeros(2, np.int32)
    sizes = np.ones(2, np.float32)
    add_negative_binomial(np.ones(2), 0.0, sizes, np.array([1], np.uint64), counts)
    assert counts.tolist() == [0, 0]


# ---- same seed, same bytes


def test_same_seed_gives_same_bytes_for_any_threads(tmp_path: Path) -> None:
    one = simulate_to(tmp_path / "one.h5ad", **SMALL, threads=1)
    two = simulate_to(tmp_path / "two.h5ad", **SMALL, threads=3)
    other = simulate_to(tmp_path / "other.h5ad", **{**SMALL, "seed": 8})
    assert _sha256(one) == _sha256(two)
    assert _sha256(one) != _sha256(other)


def test_result_does_not_depend_on_the_slices_it_is_drawn_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4096)  # several chunks even here
    plain = simulate_to(tmp_path / "plain.h5ad", **SMALL)
    monkeypatch.setattr(module, "_SLICE", 7)
    sliced = simulate_to(tmp_path / "sliced.h5ad", **SMALL, threads=2)
    assert _sha256(plain) == _sha256(sliced)


def test_file_and_memory_hold_the_same(tmp_path: Path) -> None:
    path = simulate_to(tmp_path / "a.h5ad", **SMALL, threads=2)
    read, made = anndata.read_h5ad(path), simulate(**SMALL)
    assert isinstance(read.X, sparse.csr_matrix)
    for name in ("data", "indices", "indptr"):
        a, b = getattr(read.X, name), getattr(made.X, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    pd.testing.assert_frame_equal(read.obs, made.obs)
    pd.testing.assert_frame_equal(read.var, made.var)
    np.testing.assert_array_equal(read.obsm["X_umap"], made.obsm["X_umap"])
    a, b = read.uns["simulation"], made.uns["simulation"]
    assert a.keys() == b.keys()
    assert a["parameters"] == b["parameters"]
    for name in ("effects", "populations", "donors", "samples"):
        pd.testing.assert_frame_equal(a[name], b[name], check_dtype=False, check_categorical=False)


def test_file_is_an_ordinary_h5ad(tmp_path: Path) -> None:
    path = simulate_to(tmp_path / "a.h5ad", **SMALL)
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"encoding-type": "anndata", "encoding-version": "0.1.0"}
        assert set(file) == {"X", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns"}
        assert file["X"].attrs["encoding-type"] == "csr_matrix"
        assert file["X"].attrs["shape"].tolist() == [300, 3000]
        assert file["X/data"].compression == file["X/indices"].compression == "gzip"
        assert file["X/data"].dtype == np.float32
        assert file["X/indices"].dtype == file["X/indptr"].dtype == np.int32
        assert len(file["X/data"]) == len(file["X/indices"]) == file["X/indptr"][-1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]


def test_matrix_is_a_clean_count_matrix(cohort: anndata.AnnData) -> None:
    x = cohort.X
    assert x.dtype == np.float32
    assert x.has_canonical_format
    assert x.data.min() >= 1
    assert (x.data == np.rint(x.data)).all()
    assert cohort.obs_names.is_unique
    assert cohort.var_names.is_unique
    assert cohort.obs_names.str.fullmatch(r"[ACGT]{16}-\d+").all()


def test_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5ad"
    path.write_bytes(b"before")

    def fail(*_: Any) -> Any:
        raise RuntimeError("disk full")

    monkeypatch.setattr(module, "_uns", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        simulate_to(path, **SMALL)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(SenoscoreError, match="is a folder; name the h5ad file"):
        simulate_to(tmp_path, **SMALL)


# ---- the truth


def test_truth_columns_have_exactly_the_promised_categories(cohort: anndata.AnnData) -> None:
    obs = cohort.obs
    assert tuple(obs["true_lineage"].cat.categories) == LINEAGES
    assert list(obs["true_t_state"].cat.categories) == [
        "exhausted", "senescent", "both", "senescent_like", "cycling", "neither",
    ]  # fmt: skip
    t_cell = obs["true_lineage"] == "T"
    for column in ("true_t_state", "true_t_substate"):
        assert (obs[column].notna() == t_cell).all()
    assert set(obs.loc[t_cell, "true_lineage_subset"]) == {"CD4", "CD8", "Treg", "innate_like"}
    assert set(obs.loc[obs["true_lineage"] == "DC", "true_lineage_subset"]) == {"cDC", "pDC"}
    for column in ("true_senescent", "true_doublet", "true_low_quality"):
        assert obs[column].dtype == bool


def test_every_state_and_lineage_occurs(cohort: anndata.AnnData) -> None:
    obs = cohort.obs
    assert obs["true_t_state"].value_counts().min() >= 60
    assert obs["true_lineage"].value_counts().min() >= 100
    assert set(obs["true_population"]) == {p.name for p in read_populations()}
    senescent = obs.groupby("true_lineage", observed=True)["true_senescent"].mean()
    for lineage in ("T", "B", "NK", "mono_mac", "neutrophil", "other"):
        assert 0.03 < senescent[lineage] < 0.35
    assert senescent["DC"] == 0


def test_senescent_t_cells_are_those_of_the_two_states(cohort: anndata.AnnData) -> None:
    t = cohort.obs[cohort.obs["true_lineage"] == "T"]
    assert (t["true_senescent"] == t["true_t_state"].isin(["senescent", "both"])).all()
    assert not t.loc[t["true_t_substate"] == "temra", "true_senescent"].any()


def test_author_labels_do_not_tell_the_state(cohort: anndata.AnnData) -> None:
    obs = cohort.obs
    states = obs.groupby("cell_type", observed=True)["true_t_state"].nunique()
    assert states["CD8-positive, alpha-beta T cell"] >= 5
    for lineage in ("B", "NK", "mono_mac", "neutrophil"):
        here = obs[(obs["true_lineage"] == lineage) & obs["true_senescent"]]
        rest = obs[(obs["true_lineage"] == lineage) & ~obs["true_senescent"]]
        assert set(here["cell_type"]) <= set(rest["cell_type"])


def test_ontology_terms_name_the_lineage_that_was_simulated() -> None:
    path = files("senoscore").joinpath("data/cell_ontology.tsv")
    lines = [x for x in path.read_text("utf-8").splitlines() if not x.startswith("#")]
    terms = {row["id"]: row for row in csv.DictReader(lines, delimiter="\t")}
    for p in read_populations():
        assert terms[p.term]["lineage"] == p.lineage
        row = terms[p.term]
        assert p.label == row["label"] or p.label in row["synonyms"].split("|")
        if p.lineage == "T":
            assert row["subset"] == p.subset


def test_sizes_of_one_and_extremes() -> None:
    one = simulate(1, 2500, n_donors=1)
    assert one.shape == (1, 2500)
    assert one.obs["true_lineage"].notna().all()
    floor = int(read_universe().required.sum())
    assert simulate(3, floor).n_vars == floor
    everything = len(read_universe().symbols)
    assert simulate(3, everything).n_vars == everything > 35_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n_cells": 0}, "n_cells is 0; choose 1 to"),
        ({"n_genes": 50}, "n_genes is 50; choose .* of all signatures"),
        ({"n_genes": 10**6}, "n_genes is 1000000; choose"),
        ({"n_donors": 0}, "n_donors is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"depth_median": float("nan")}, "depth_median is nan"),
        ({"doublet_fraction": 0.9}, "doublet_fraction is 0.9; choose 0 to 0.5"),
        ({"effect_scale": -1}, "effect_scale is -1"),
    ],
)
def test_sizes_out_of_range_are_refused_with_the_range(
    arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(SenoscoreError, match=says):
        simulate(**{"n_cells": 10, "n_genes": 3000, **arguments})


# ---- genes


def test_every_signature_gene_marker_and_quality_gene_is_there() -> None:
    names = set(simulate(1, int(read_universe().required.sum())).var_names)
    known = read_universe().position.keys()
    for name, signature in read_signatures().items():
        if signature.role != "comparator":
            missing = {g.symbol for g in signature.genes} & known - names
            assert not missing, name
    wanted = "CD3D MS4A1 NKG7 LYZ CSF3R LILRA4 COL1A1 MT-CO1 RPL13 HBB HBA1 XIST MKI67 B3GAT1"
    assert set(wanted.split()) <= names


def test_genes_are_real_ones_in_the_order_of_their_ids() -> None:
    adata = simulate(1, 20000)
    ids = adata.var["gene_ids"].tolist()
    assert ids == sorted(ids)
    assert adata.var["gene_ids"].str.fullmatch(r"ENSG\d{11}").all()
    assert adata.var.loc["CD3D", "gene_ids"] == "ENSG00000167286"
    noncoding = adata.var_names.str.match(r"LINC\d|MIR\d|SNOR|.*-AS\d$").sum()
    assert noncoding < 50  # protein-coding genes come first


def test_genes_kept_do_not_depend_on_how_many_are_asked_for() -> None:
    few, many = simulate(1, 4000), simulate(1, 9000)
    assert set(few.var_names) < set(many.var_names)


# ---- what is planted is there


CONTRASTS = [
    ("cd8_exhausted_terminal", "cd8_memory"),
    ("cd8_senescent_sasp", "cd8_memory"),
    ("cd8_exhausted_senescent", "cd8_memory"),
    ("cd8_temra", "cd8_memory"),
    ("cd8_cycling", "cd8_memory"),
    ("b_senescent", "b_memory"),
    ("nk_senescent", "nk_dim"),
    ("macrophage_senescent", "macrophage"),
    ("neutrophil_senescent", "neutrophil"),
]


def _stated(adata: anndata.AnnData, population: str, level: pd.Series) -> pd.Series:
    """Level of every gene as ``uns`` says it was planted, from the level without it."""
    truth = adata.uns["simulation"]
    entry = truth["populations"].set_index("population").loc[population, "programmes"]
    level = level.copy()
    for item in entry.split(";"):
        name, strength = item.split(":")
        effects = truth["effects"]
        effects = effects[effects["programme"] == name].set_index("gene")
        level[effects.index] = (
            level[effects.index] * np.exp(float(strength) * effects["log_factor"])
            + float(strength) * effects["added_cp10k"]
        )
    return level


@pytest.mark.parametrize(("population", "reference"), CONTRASTS)
def test_planted_genes_move_as_stated_in_pseudobulk(
    clean: anndata.AnnData, population: str, reference: str
) -> None:
    before, after = _cp10k(clean, reference), _cp10k(clean, population)
    stated = np.log2((_stated(clean, population, before) + 0.05) / (before + 0.05))
    seen = np.log2((after + 0.05) / (before + 0.05))
    # where the smaller population should hold 25 molecules at one end of the change
    depth = clean[clean.obs["true_population"] == population].X.sum() / 1e4
    enough = (depth * np.maximum(before, before * 2.0**stated) >= 25).to_numpy()
    moved = enough & (stated.abs() > 0.7).to_numpy()
    assert moved.sum() >= 12
    agree = np.sign(stated[moved]) == np.sign(seen[moved])
    assert agree.mean() >= 0.93
    assert np.corrcoef(stated[moved], seen[moved])[0, 1] > 0.85
    still = enough & (stated == 0).to_numpy()
    assert seen[still].abs().median() < 0.45


def test_nothing_is_planted_at_effect_scale_zero() -> None:
    adata = simulate(3000, 4000, seed=2, effect_scale=0.0, doublet_fraction=0, damaged_fraction=0)
    assert (adata.uns["simulation"]["effects"]["log_factor"] == 0).all()
    before = _cp10k(adata, "cd8_memory")
    genes = ["PDCD1", "TOX", "KLRG1", "CDKN1A", "GZMB", "CX3CR1"]
    for population in ("cd8_exhausted_terminal", "cd8_senescent_sasp", "cd8_temra"):
        after = _cp10k(adata, population)
        assert np.log2((after[genes] + 0.2) / (before[genes] + 0.2)).abs().max() < 1.6


def test_temra_has_the_phenotype_but_neither_arrest_nor_loss_of_tcr_signalling(
    clean: anndata.AnnData,
) -> None:
    memory, temra = _cp10k(clean, "cd8_memory"), _cp10k(clean, "cd8_temra")
    senescent = _cp10k(clean, "cd8_senescent", "cd8_senescent_sasp", "cd8_senescent_nk_like")
    for gene in ("KLRG1", "FCGR3A", "CX3CR1"):
        assert min(temra[gene], senescent[gene]) > 1.4 * memory[gene]
    for gene in ("CD27", "CD28"):
        assert max(temra[gene], senescent[gene]) < 0.5 * memory[gene]
    for gene in ("CDKN1A", "CDKN2A"):
        assert temra[gene] < 0.5
        assert 0.7 < senescent[gene] < 5
    for gene in ("LAT", "LCP2"):
        assert temra[gene] == pytest.approx(memory[gene], rel=0.35)
        assert senescent[gene] < 0.7 * memory[gene]


def test_exhausted_cells_have_their_genes_at_literature_levels(clean: anndata.AnnData) -> None:
    terminal, memory = _cp10k(clean, "cd8_exhausted_terminal"), _cp10k(clean, "cd8_memory")
    progenitor = _cp10k(clean, "cd8_exhausted_progenitor")
    for gene in ("PDCD1", "LAG3", "TOX", "ENTPD1", "CXCL13"):
        assert 0.8 < terminal[gene] < 9
        assert terminal[gene] > 4 * memory[gene]
    assert progenitor["TCF7"] > 2 * terminal["TCF7"]
    for gene in ("CDKN1A", "CDKN2A"):
        assert terminal[gene] < 0.5
    assert terminal["CD27"] > 0.7 * memory["CD27"]


def test_recently_activated_cells_are_a_trap_for_p21(clean: anndata.AnnData) -> None:
    activated, memory = _cp10k(clean, "cd8_activated"), _cp10k(clean, "cd8_memory")
    assert activated["TNF"] > 3 * memory["TNF"]
    effects = clean.uns["simulation"]["effects"]
    effects = effects[effects["programme"] == "activation"].set_index("gene")
    assert "CDKN1A" in effects.index


def test_lineage_markers_mark_their_lineage(clean: anndata.AnnData) -> None:
    bulk = {name: _cp10k(clean, name) for name in read_profiles()}
    for gene, where in {
        "NCAM1": "nk_bright", "S100A12": "neutrophil",
        "C1QA": "macrophage", "LILRA4": "pdc", "CD1C": "cdc", "COL1A1": "fibroblast",
        "EPCAM": "epithelial", "TPSAB1": "mast", "JCHAIN": "plasma", "SLC4A10": "mait",
        "FOXP3": "treg", "TRDC": "gamma_delta", "VCAN": "monocyte_classical",
    }.items():  # fmt: skip
        levels = pd.Series({name: level[gene] for name, level in bulk.items()})
        assert levels.idxmax() == where, gene
    ms4a1 = pd.Series({name: level["MS4A1"] for name, level in bulk.items()})
    assert ms4a1.idxmax() in ("b_memory", "b_naive")
    lineage = {p.profile: p.lineage for p in read_populations()}
    cd3d = pd.Series({name: level["CD3D"] for name, level in bulk.items()})
    t_cell = cd3d.index.map(lineage) == "T"
    assert cd3d[t_cell].min() > 2 * cd3d[~t_cell].max()


def test_markers_of_cells_that_are_not_there_are_off_everywhere(clean: anndata.AnnData) -> None:
    levels = pd.DataFrame({name: _cp10k(clean, name) for name in read_profiles()})
    for gene in ("VWF", "PPBP", "SCGB1A1", "PMEL", "ALAS2", "PLP1"):
        assert levels.loc[gene].max() < 0.4
    assert levels.loc["POU2AF1"].idxmax() == "plasma"  # a marker with a level from the table


def test_planting_is_not_the_signatures_over_again(cohort: anndata.AnnData) -> None:
    effects = cohort.uns["simulation"]["effects"]
    states = [
        "exhaustion_core", "exhaustion_terminal", "arrest", "sasp_t", "senescence_b",
        "senescence_nk", "senescence_macrophage",
    ]  # fmt: skip
    responding = []
    for name in states:
        here = effects[effects["programme"] == name]
        outside = here[~here["in_registry"] & (here["role"] == "bystander")]
        assert len(outside) > 80
        assert 0.3 < (outside["log_factor"] > 0).mean() < 0.8
        assert not here.loc[here["role"] == "bystander", "in_registry"].any()
        inside = here[here["in_registry"]]
        responding.append((~inside["role"].str.contains("does not respond")).mean())
        up = inside.loc[inside["added_cp10k"] > 0, "added_cp10k"]
        assert np.log(up).std() > 0.4
    assert 0.6 < np.mean(responding) < 0.95
    silent = effects[effects["role"].str.contains("does not respond")]
    assert (silent["log_factor"] == 0).all()
    assert (silent["added_cp10k"] == 0).all()


@pytest.mark.parametrize(
    ("programme", "signature"),
    [
        ("exhaustion_core", "t_exhaustion"),
        ("exhaustion_terminal", "t_exhaustion_terminal"),
        ("exhaustion_progenitor", "t_exhaustion_progenitor"),
        ("senescence_phenotype", "t_arm_phenotype"),
        ("arrest", "t_arm_arrest"),
        ("arrest", "p53_tis"),
        ("tcr_loss", "t_arm_tcr_loss"),
        ("sasp_t", "t_arm_sasp"),
        ("senescence_b", "b_senescence"),
        ("age_associated_b", "b_senescence"),
        ("senescence_nk", "nk_senescence"),
        ("senescence_macrophage", "macrophage_senescence"),
        ("senescence_neutrophil", "neutrophil_senescence"),
        ("senescence_fibroblast", "core_senescence"),
        ("interferon", "conf_interferon"),
        ("s_phase", "conf_proliferation_s"),
        ("g2m_phase", "conf_proliferation_g2m"),
        ("nk_adaptive", "conf_cmv_adaptive_nk"),
    ],
)
def test_planted_signs_are_those_of_the_registry(
    cohort: anndata.AnnData, programme: str, signature: str
) -> None:
    effects = cohort.uns["simulation"]["effects"]
    effects = effects[effects["programme"] == programme].set_index("gene")
    sign = np.sign(effects["log_factor"] + effects["added_cp10k"])
    shared = {g.symbol: g.direction for g in read_signatures()[signature].voting()}
    moved = [g for g in shared if g in sign.index and sign[g] != 0]
    assert len(moved) >= 3
    assert [g for g in moved if sign[g] != shared[g]] == []


def test_effects_differ_between_seeds_but_the_biology_does_not() -> None:
    a, b = simulate(1, 3000, seed=1), simulate(1, 3000, seed=2)
    assert a.var_names.equals(b.var_names)
    x, y = (
        d.uns["simulation"]["effects"].query("programme == 'arrest'").set_index("gene")
        for d in (a, b)
    )
    assert x.loc["CDKN1A", "added_cp10k"] != y.loc["CDKN1A", "added_cp10k"]
    assert x.loc["CDKN1A", "added_cp10k"] > 0.8 < y.loc["CDKN1A", "added_cp10k"]


# ---- what else happens in a droplet


def test_depth_has_the_median_asked_for(cohort: anndata.AnnData) -> None:
    depth = np.asarray(cohort.X.sum(axis=1)).ravel()
    assert np.median(depth) == pytest.approx(4000, rel=0.03)
    shallow = simulate(1000, 3000, depth_median=900)
    assert np.median(np.asarray(shallow.X.sum(axis=1))) == pytest.approx(900, rel=0.06)
    neutrophil = (cohort.obs["true_lineage"] == "neutrophil").to_numpy()
    assert np.median(depth[neutrophil]) < 0.5 * np.median(depth[~neutrophil])


def test_dying_cells_are_shallow_and_mitochondrial(cohort: anndata.AnnData) -> None:
    mito = cohort.var_names.str.startswith("MT-")
    total = np.asarray(cohort.X.sum(axis=1)).ravel()
    percent = 100 * np.asarray(cohort[:, mito].X.sum(axis=1)).ravel() / total
    dying = cohort.obs["true_low_quality"].to_numpy()
    assert dying.mean() == pytest.approx(0.03, abs=0.01)
    assert np.median(percent[dying]) > 15
    assert 0.5 < np.median(percent[~dying]) < 6
    assert np.median(total[dying]) < 0.6 * np.median(total[~dying])


def test_doublets_hold_two_cells(cohort: anndata.AnnData) -> None:
    double = cohort.obs["true_doublet"].to_numpy()
    total = np.asarray(cohort.X.sum(axis=1)).ravel()
    assert double.mean() == pytest.approx(0.03, abs=0.01)
    assert np.median(total[double]) > 1.5 * np.median(total[~double])
    t = (cohort.obs["true_lineage"] == "T").to_numpy()
    lyz = np.asarray(cohort[:, "LYZ"].X.todense()).ravel()
    assert (lyz[t & double] > 10).mean() > 5 * (lyz[t & ~double] > 10).mean() + 0.03
    assert not simulate(500, 3000, doublet_fraction=0).obs["true_doublet"].any()


def test_a_doublet_has_the_labels_of_the_cell_that_gave_more_counts() -> None:
    options: dict[str, Any] = {"seed": 6, "ambient_fraction": 0}
    # the cells drawn first, by themselves
    alone = simulate(1500, 3000, doublet_fraction=0, **options)
    made = simulate(1500, 3000, doublet_fraction=0.5, **options)
    double = made.obs["true_doublet"].to_numpy()
    first, total = (np.asarray(a.X.sum(axis=1)).ravel() for a in (alone, made))
    share = first / total / np.median((first / total)[~double])
    other = (
        alone.obs["true_population"].astype(str) != made.obs["true_population"].astype(str)
    ).to_numpy()
    assert not other[~double].any()
    assert 0.4 < other[double].mean() < 0.6
    # counts are drawn, so that halves may seem a little more or less
    assert (share[other] < 0.55).all()
    stayed = double & ~other
    assert (share[stayed] > 0.45).mean() > 0.9  # or both cells were of one population


def test_ambient_counts_are_the_stated_share_of_the_sample_mean() -> None:
    none = simulate(1500, 3000, seed=4, ambient_fraction=0, doublet_fraction=0)
    much = simulate(1500, 3000, seed=4, ambient_fraction=0.2, doublet_fraction=0)
    naive = (much.obs["true_population"] == "cd4_naive").to_numpy()
    assert none.obs["true_ambient_fraction"].max() == 0
    share = much.obs["true_ambient_fraction"].to_numpy()
    assert 0.1 < share.mean() < 0.3
    markers = ["LYZ", "S100A8", "S100A9", "IGKC", "HBB"]
    clean, soupy = (_cp10k(a, "cd4_naive")[markers] for a in (none, much))
    assert (soupy > 5 * clean).all()
    # the soup of a blood sample is its mean: LYZ of a naive T cell is about share x mean
    blood = (much.obs["tissue"] == "blood").to_numpy()
    mean = np.asarray(much[blood].X.sum(axis=0)).ravel()
    mean = pd.Series(1e4 * mean / mean.sum(), index=much.var_names)["LYZ"]
    here = much[naive & blood]
    seen = np.asarray(here[:, "LYZ"].X.sum()) / np.asarray(here.X.sum()) * 1e4
    assert seen == pytest.approx(share[naive & blood].mean() * mean, rel=0.35)


def test_donors_differ_and_sex_age_and_condition_are_separable(cohort: anndata.AnnData) -> None:
    donors = cohort.uns["simulation"]["donors"]
    assert len(donors) == 8
    assert donors.groupby("condition")["age"].agg(np.ptp).min() > 30
    assert pd.crosstab(donors["condition"], donors["sex"]).to_numpy().min() >= 1
    females = (cohort.obs["sex"] == "female").to_numpy()
    xist = np.asarray(cohort[:, "XIST"].X.sum(axis=1)).ravel()
    assert xist[females].mean() > 10 * xist[~females].mean()
    senescent = cohort.obs.groupby("age", observed=True)["true_senescent"].mean()
    assert stats.spearmanr(senescent.index, senescent)[0] > 0.5


def test_obs_is_ordered_by_sample_and_looks_like_a_published_table(
    cohort: anndata.AnnData,
) -> None:
    obs = cohort.obs
    assert (np.diff(obs["sample_id"].cat.codes) >= 0).all()
    assert set(obs.groupby("sample_id", observed=True)["donor_id"].nunique()) == {1}
    assert obs["development_stage"].str.fullmatch(r"\d+-year-old stage").all()
    assert {"healthy", "disease"} == set(obs["condition"])
    assert cohort.obsm["X_umap"].shape == (8000, 2)
    centre = pd.DataFrame(cohort.obsm["X_umap"]).groupby(obs["true_lineage"].to_numpy()).median()
    assert stats.rankdata(centre.round(1).to_numpy(), axis=None).max() > 10  # lineages lie apart


# ---- against real cells


@pytest.fixture(scope="module")
def blood() -> anndata.AnnData:
    adata = simulate(6000, 20000, seed=3, depth_median=2400, threads=2)
    obs = adata.obs
    keep = (obs["tissue"] == "blood") & ~obs["true_doublet"] & ~obs["true_low_quality"]
    return adata[keep].copy()


@pytest.fixture(scope="module")
def pbmc(data: Path) -> anndata.AnnData:
    return anndata.read_h5ad(data / "pbmc3k_labelled.h5ad")


def _cells(adata: anndata.AnnData, column: str, names: list[str]) -> sparse.csr_matrix:
    return sparse.csr_matrix(adata[adata.obs[column].isin(names)].X, dtype=np.float64)


def _shape(x: sparse.csr_matrix) -> dict[str, Any]:
    """Curves that do not depend on which gene is which."""
    x = x[:, np.asarray(x.sum(axis=0)).ravel() > 0]
    total = np.asarray(x.sum(axis=1)).ravel()
    share = np.sort(np.asarray(x.sum(axis=0)).ravel())[::-1] / x.sum()
    mean = np.asarray(x.mean(axis=0)).ravel()
    zeros = 1 - np.diff(x.tocsc().indptr) / x.shape[0]
    var = np.asarray(x.multiply(x).mean(axis=0)).ravel() - mean**2
    slope = stats.linregress(np.log(total), np.log(np.diff(x.indptr)))
    edges = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
    bins = np.digitize(mean, edges)
    return {
        "genes_at_2000": np.exp(slope.intercept + slope.slope * np.log(2000)),
        "slope": slope.slope,
        "sd_log_depth": np.log(total).std(),
        "share_of_top": np.array([share[:n].sum() for n in (10, 50, 100, 500, 2000)]),
        "zeros": np.array([zeros[bins == b].mean() for b in range(1, len(edges))]),
        "fano": np.array([np.median((var / mean)[bins == b]) for b in range(1, len(edges))]),
    }


@pytest.mark.parametrize(
    ("real", "simulated"),
    [
        (["CD4 T cells"], ["cd4_naive", "cd4_memory"]),
        (["CD14+ Monocytes"], ["monocyte_classical"]),
        (["B cells"], ["b_naive", "b_memory"]),
    ],
)
def test_counts_have_the_shape_of_real_cells(
    pbmc: anndata.AnnData, blood: anndata.AnnData, real: list[str], simulated: list[str]
) -> None:
    a = _shape(_cells(pbmc, "louvain", real))
    b = _shape(_cells(blood, "true_population", simulated))
    assert b["genes_at_2000"] == pytest.approx(a["genes_at_2000"], rel=0.12)
    assert b["slope"] == pytest.approx(a["slope"], abs=0.15)
    assert b["sd_log_depth"] == pytest.approx(a["sd_log_depth"], abs=0.15)
    np.testing.assert_allclose(b["share_of_top"], a["share_of_top"], atol=0.06)
    # share of zeros among genes of similar mean, and variance over mean
    np.testing.assert_allclose(b["zeros"], a["zeros"], atol=0.09)
    # (Poisson counts or one dispersion for all genes differ by 0.6 or more)
    assert np.abs(np.log(b["fano"] / a["fano"])).max() < 0.45


def test_ribosomal_and_mitochondrial_shares_are_those_of_real_cells(
    pbmc: anndata.AnnData, blood: anndata.AnnData
) -> None:
    for real, simulated in (
        ("CD4 T cells", ["cd4_naive", "cd4_memory"]),
        ("NK cells", ["nk_dim"]),
        ("CD14+ Monocytes", ["monocyte_classical"]),
    ):
        for pattern in (RIBOSOMAL.pattern, r"^MT-"):
            shares = []
            for adata, column, names in (
                (pbmc, "louvain", [real]),
                (blood, "true_population", simulated),
            ):
                x = _cells(adata, column, names)
                shares.append(x[:, adata.var_names.str.contains(pattern)].sum() / x.sum())
            assert shares[1] == pytest.approx(shares[0], rel=0.35)


def test_hand_set_marker_levels_agree_with_real_cells(pbmc: anndata.AnnData) -> None:
    """Levels were written down from general knowledge; the rank order holds in data."""
    universe = read_universe()
    levels = build_levels(universe)
    row = {name: i for i, name in enumerate(read_profiles())}
    genes = [
        "CD3D", "CD8A", "IL7R", "CCR7", "GZMK", "GZMB", "NKG7", "GNLY", "MS4A1", "CD79A", "LYZ",
        "S100A8", "FCGR3A", "CST3", "HLA-DRA", "TYROBP", "CD27", "LCK", "LAT", "KLRG1", "CDKN1A",
        "PDCD1", "B2M", "MALAT1", "TMSB4X", "FTL", "FOS", "MKI67", "TOX", "HAVCR2", "CD28",
    ]  # fmt: skip
    at = [universe.position[g] for g in genes]
    for real, name in (
        ("CD8 T cells", "cd8_memory"),
        ("NK cells", "nk_dim"),
        ("B cells", "b_naive"),
        ("CD14+ Monocytes", "monocyte_classical"),
    ):
        x = _cells(pbmc, "louvain", [real])
        seen = pd.Series(1e4 * np.asarray(x.sum(axis=0)).ravel() / x.sum(), pbmc.var_names)
        set_by_hand = pd.Series(levels[row[name], at], genes)
        here = seen[genes] > 1.5  # below, the soup of the real sample decides
        assert here.sum() >= 10
        assert stats.spearmanr(seen[genes][here], set_by_hand[here])[0] > 0.8
        assert (set_by_hand[~here] < 1.5).all()


def test_every_gene_set_by_hand_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    from senoscore import _planted

    sets: dict[str, Any] = _planted._sets()
    known = read_universe().position
    assert {e.gene for s in sets.values() for e in s} <= known.keys()
    build: Callable[[], Any] = _planted._sets.__wrapped__
    monkeypatch.setattr(_planted, "_rows", lambda _: iter([["T", "CD3D=1 CD3E"]]))
    with pytest.raises(SenoscoreError, match="set T: cannot read 'CD3E'"):
        build()
