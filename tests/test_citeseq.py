"""Antibodies in files of every kind, their place in the calls, and how well RNA says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from anndata.io import write_elem
from scipy import sparse
from skimage.filters import threshold_otsu

import senoscore as sn
from senoscore import calling, citeseq, keys, pipeline, protein
from senoscore.errors import InputDataError
from senoscore.inputs import read_input
from senoscore.inspect import VAR_PROTEIN, inspect_file
from senoscore.settings import CallSettings

RAW = ["CD57_TotalSeqB", "CD27_TotalSeqB", "CD45RA_TotalSeqB", "CD3_TotalSeqB"]


def toy(n: int = 40) -> tuple[AnnData, np.ndarray]:
    rng = np.random.default_rng(0)
    genes = ["CD27", "KLRG1", "B3GAT1", "CD3E", "CD28", "GZMB", "ACTB", "GAPDH", "IL7R", "LTB"]
    adata = AnnData(
        sparse.csr_matrix(rng.poisson(1.0, (n, len(genes))).astype(np.float32)),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=genes),
    )
    return adata, rng.poisson(20.0, (n, 4)).astype(np.float32)


def as_file(adata: AnnData, folder: Path, *, in_file: bool) -> Any:
    if not in_file:
        return adata
    adata.write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad"


def panel_of(source: Any, **overrides: Any) -> citeseq.Panel | None:
    return citeseq.read_panel(source, read_input(source, overrides=overrides))


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("kind", ["table", "array", "sparse", "columns", "named columns"])
def test_antibodies_are_found_wherever_they_are(kind: str, in_file: bool, tmp_path: Path) -> None:
    adata, counts = toy()
    frame = pd.DataFrame(counts, index=adata.obs_names, columns=RAW)
    if kind == "table":
        adata.obsm["protein"] = frame
    elif kind in ("array", "sparse"):
        adata.obsm["protein"] = sparse.csr_matrix(counts) if kind == "sparse" else counts
        adata.uns["protein_names"] = np.asarray(RAW)
    else:
        names = [*adata.var_names, *RAW]
        types = ["Gene Expression"] * adata.n_vars + ["Antibody Capture"] * 4
        adata = AnnData(
            sparse.hstack([adata.X, sparse.csr_matrix(counts)]).tocsr(), obs=adata.obs,
            var=pd.DataFrame({"feature_types": types}, index=names),
        )  # fmt: skip
        if kind == "named columns":
            del adata.var["feature_types"]
    panel = panel_of(as_file(adata, tmp_path, in_file=in_file))
    assert panel is not None
    assert list(panel.names) == RAW
    np.testing.assert_array_equal(panel.values, counts)


def test_an_antibody_named_like_its_gene_is_not_added_to_the_rna() -> None:
    adata, counts = toy()
    joined = AnnData(
        sparse.hstack([adata.X, sparse.csr_matrix(counts[:, :1])]).tocsr(), obs=adata.obs,
        var=pd.DataFrame(
            {"feature_types": ["Gene Expression"] * adata.n_vars + ["Antibody Capture"]},
            index=[*adata.var_names, "CD27-1"],
        ),
    )  # fmt: skip
    assert inspect_file(joined).protein.value == VAR_PROTEIN
    a, b = adata.copy(), joined
    sn.pp.qc(a)
    sn.pp.qc(b)
    pd.testing.assert_series_equal(a.obs["total_counts"], b.obs["total_counts"])
    pd.testing.assert_series_equal(a.obs["n_genes_by_counts"], b.obs["n_genes_by_counts"])


def write_h5mu(path: Path, cells: pd.Index, counts: np.ndarray, *, modality: str = "prot") -> Path:
    """A MuData file as the format's description has it; no mudata needed."""
    with h5py.File(path, "w") as file:
        write_elem(file, "obs", pd.DataFrame(index=cells))
        write_elem(file, "var", pd.DataFrame(index=RAW))
        made = AnnData(
            sparse.csr_matrix(counts), obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=RAW)
        )
        write_elem(file, f"mod/{modality}", made)
        file.attrs["encoding-type"] = "MuData"
    return path


def test_a_mudata_file_is_matched_by_the_names_of_cells(tmp_path: Path) -> None:
    adata, counts = toy()
    order = np.random.default_rng(1).permutation(adata.n_obs)[:30]
    path = write_h5mu(tmp_path / "x.h5mu", adata.obs_names[order], counts[order])
    panel = panel_of(adata, protein=str(path))
    assert panel is not None
    np.testing.assert_array_equal(panel.values[order], counts[order])
    absent = np.setdiff1d(np.arange(adata.n_obs), order)
    assert np.isnan(panel.values[absent]).all()


def test_a_mudata_file_gives_rna_and_antibodies(tmp_path: Path) -> None:
    adata, counts = toy()
    order = np.random.default_rng(2).permutation(adata.n_obs)[:35]
    path = write_h5mu(tmp_path / "x.h5mu", adata.obs_names[order], counts[order])
    with pytest.raises(InputDataError, match="no modality of genes"):
        inspect_file(path)
    with h5py.File(path, "a") as file:
        write_elem(file, "mod/rna", adata)
    data = read_input(path)
    assert data.facts.protein.value == "mod/prot"
    assert list(data.obs.index) == list(adata.obs_names)
    panel = citeseq.read_panel(path, data)
    assert panel is not None
    assert list(panel.names) == RAW
    np.testing.assert_array_equal(panel.values[order], counts[order])
    assert np.isnan(np.delete(panel.values, order, axis=0)).all()
    assert panel_of(path, protein="mod/prot") is not None
    with pytest.raises(InputDataError, match="there are mod/prot, mod/rna"):
        panel_of(path, protein="mod/adt")


def test_the_calls_of_a_mudata_file_are_those_of_the_same_h5ad(
    shared: Path, tmp_path: Path
) -> None:
    plain = shared / "data" / "trex_tcells_pt17_citeseq.h5ad"
    adata = read_h5ad(plain)
    table = adata.obsm.pop("protein_counts")
    prot = AnnData(
        table.to_numpy(),
        obs=pd.DataFrame(index=adata.obs_names),
        var=pd.DataFrame(index=table.columns),
    )
    with h5py.File(tmp_path / "x.h5mu", "w") as file:
        write_elem(file, "mod/rna", adata)
        write_elem(file, "mod/prot", prot)
    expected, got = sn.analyse(plain), sn.analyse(tmp_path / "x.h5mu")
    pd.testing.assert_frame_equal(got.obs, expected.obs)
    assert (got.obs["t_state"] == "senescent_like").any()


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_mudata_files_that_cannot_be_used_are_one_sentence(tmp_path: Path) -> None:
    adata, counts = toy()
    other = write_h5mu(tmp_path / "a.h5mu", pd.Index([f"x{i}" for i in range(40)]), counts)
    with pytest.raises(InputDataError, match="none of the data set's cells"):
        panel_of(adata, protein=str(other))
    rna = write_h5mu(tmp_path / "b.h5mu", adata.obs_names, counts, modality="rna")
    with pytest.raises(InputDataError, match="no protein modality; it has rna"):
        panel_of(adata, protein=str(rna))
    plain = tmp_path / "c.h5mu"
    adata.write_h5ad(plain)
    with pytest.raises(InputDataError, match="is no MuData file"):
        panel_of(adata, protein=str(plain))
    twice = write_h5mu(tmp_path / "d.h5mu", pd.Index(["c0"] * 40), counts)
    with pytest.raises(InputDataError, match="names cells twice"):
        panel_of(adata, protein=str(twice))


def test_a_mudata_file_cannot_reach_out_of_itself(tmp_path: Path) -> None:
    adata, counts = toy()
    secret = write_h5mu(tmp_path / "secret.h5mu", adata.obs_names, counts)
    path = write_h5mu(tmp_path / "x.h5mu", adata.obs_names, counts)
    with h5py.File(path, "a") as file:
        del file["mod/prot/X"]
        file["mod/prot/X"] = h5py.ExternalLink(str(secret), "mod/prot/X")
    with pytest.raises(InputDataError, match="external link|another file"):
        panel_of(adata, protein=str(path))


def test_a_damaged_panel_is_one_sentence(tmp_path: Path) -> None:
    adata, counts = toy()
    adata.obsm["protein"] = pd.DataFrame(counts, index=adata.obs_names, columns=RAW)
    path = as_file(adata, tmp_path, in_file=True)
    data = read_input(path)
    with h5py.File(path, "a") as file:
        del file["obsm/protein/CD27_TotalSeqB"]
        file["obsm/protein/CD27_TotalSeqB"] = np.zeros(7, np.float32)
    with pytest.raises(InputDataError, match="7 values for 40 cells"):
        citeseq.read_panel(path, data)


# -------------------------------------------------------------------------------------------------
# calls


def evidence(padj: list[float], *, used: bool = True) -> citeseq.Evidence:
    n = len(padj)
    q = np.asarray(padj)
    arm = protein.Arm(np.zeros(n), q.copy(), q, ("CD57", "CD27"), "")
    empty = np.zeros((n, 0), np.float32)
    return citeseq.Evidence(
        citeseq.Panel((), empty, ""), protein.Antibodies((), empty, empty, pd.DataFrame()), arm,
        np.ones(n, bool), used, "",
    )  # fmt: skip


def test_the_arm_is_replaced_where_antibodies_know() -> None:
    p = pd.DataFrame({calling.PHENOTYPE: [0.5, 0.6, 0.7], "t_arm_sasp": 0.5})
    tables = calling.Tables(p.copy(), p.copy(), p.copy())
    found = evidence([0.01, np.nan, 0.02]).on(tables)
    assert found.padj[calling.PHENOTYPE].tolist() == [0.01, 0.6, 0.02]
    assert found.padj["t_arm_sasp"].tolist() == [0.5, 0.5, 0.5]
    assert tables.padj[calling.PHENOTYPE].tolist() == [0.5, 0.6, 0.7]
    assert evidence([0.01, 0.02, 0.03], used=False).on(tables) is tables


def test_rules_say_where_the_arm_came_from() -> None:
    calls = pd.DataFrame({keys.OBS_T_STATE_RULE: ["phenotype arm without support", "x"] * 2})
    said = evidence([0.1, 0.1, np.nan, np.nan]).tell(calls)
    assert said[keys.OBS_T_STATE_RULE].tolist() == [
        "phenotype arm (protein) without support", "x", "phenotype arm without support", "x",
    ]  # fmt: skip
    assert said[keys.OBS_PHENOTYPE_SOURCE].tolist() == ["protein", "protein", "rna", "rna"]


def test_no_antibodies_no_trace() -> None:
    """Without antibodies the setting changes nothing, and 'use' is an error."""
    adata, _ = toy()
    data = read_input(adata)
    cells = pd.DataFrame({keys.OBS_LINEAGE: ["T"] * 40, keys.OBS_QC_PASS: True})
    assert citeseq.for_run(adata, data, cells, CallSettings()) is None
    with pytest.raises(InputDataError, match="no antibodies were found"):
        citeseq.for_run(adata, data, cells, CallSettings(protein="use"))


def test_a_panel_without_the_marks_is_reported_and_not_used() -> None:
    adata, counts = toy()
    adata.obsm["protein"] = pd.DataFrame(counts, index=adata.obs_names, columns=RAW)
    data = read_input(adata)
    cells = pd.DataFrame({keys.OBS_LINEAGE: ["T"] * 40, keys.OBS_QC_PASS: True})
    found = citeseq.for_run(adata, data, cells, CallSettings())
    assert found is not None
    assert not found.used
    assert "CD57 or KLRG1" in found.why
    with pytest.raises(InputDataError, match="'use', but no antibody"):
        citeseq.for_run(adata, data, cells, CallSettings(protein="use"))


# -------------------------------------------------------------------------------------------------
# real cells


@pytest.fixture(scope="module")
def trex(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[AnnData, Path]:
    out = tmp_path_factory.mktemp("trex")
    made = pipeline.analyse(data / "trex_tcells_pt17_citeseq.h5ad", out=out)
    return made, out


def gate_by_hand(counts: pd.DataFrame, keep: np.ndarray) -> np.ndarray:
    """CD57+CD27- as one would gate: centred log ratio within the cell, Otsu's threshold."""
    logs = np.log1p(counts.to_numpy(float))
    x = pd.DataFrame(logs - logs.mean(axis=1, keepdims=True), columns=counts.columns)
    first, second = x["CD57-TotalSeqC"].to_numpy(), x["CD27-TotalSeqC"].to_numpy()
    return (first > threshold_otsu(first[keep])) & (second <= threshold_otsu(second[keep]))


def test_with_antibodies_cd57_cd27_cells_separate(trex: tuple[AnnData, Path], data: Path) -> None:
    """AUROC at least 0.90, also against a gate that shares neither normalisation nor mixture."""
    s, _ = trex
    t = np.asarray(s.obs[keys.OBS_LINEAGE] == "T") & s.obs[keys.OBS_QC_PASS].to_numpy()
    arm = s.obsm[keys.OBSM_PROTEIN_ARM]["z"].to_numpy(float)
    positive = s.obsm[keys.OBSM_PROTEIN_POSITIVE]
    own = (positive["CD57"] >= 0.5).to_numpy() & (positive["CD27"] < 0.5).to_numpy()
    known = t & positive[["CD57", "CD27"]].notna().all(axis=1).to_numpy()
    assert protein.auroc(arm[known], own[known]) >= 0.98
    counts = read_h5ad(data / "trex_tcells_pt17_citeseq.h5ad").obsm["protein_counts"]
    hand = gate_by_hand(counts, t)
    assert protein.auroc(arm[t], hand[t]) >= 0.95
    assert s.uns[keys.UNS]["protein"]["used"]
    assert (s.obs.loc[t, keys.OBS_PHENOTYPE_SOURCE] == "protein").mean() > 0.95


def test_the_audit_says_how_weak_b3gat1_is(trex: tuple[AnnData, Path]) -> None:
    s, out = trex
    table = pd.read_csv(out / "protein_audit.tsv", sep="\t")
    row = table[(table["protein"] == "CD57") & (table["lineage"] == "T")].iloc[0]
    assert row["compared_with"] == "B3GAT1 RNA"
    assert abs(row["auroc"] - 0.5) < 0.03
    assert row["frac_rna_in_positive"] < 0.03
    assert "B3GAT1 RNA does not tell who carries CD57" in s.uns[keys.UNS]["protein"]["sentences"]


def test_without_both_antibodies_the_others_do_not_replace_them(
    trex: tuple[AnnData, Path],
) -> None:
    """What does not hold: with CD57 and CD27 left out the AUROC stays below 0.90, and is written."""
    _, out = trex
    table = pd.read_csv(out / "protein_audit.tsv", sep="\t")
    gated = table[table["protein"] == citeseq.GATE].set_index("compared_with")["auroc"]
    less = gated[[k for k in gated.index if "without CD57 and CD27" in k]]
    assert len(less) == 1
    assert 0.6 < less.iloc[0] < 0.9
    assert gated["arm (protein)"] > 0.98
    assert 0.6 < gated["t_arm_phenotype z (RNA)"] < 0.9


def test_ignored_antibodies_leave_the_calls_of_rna(data: Path, trex: tuple[AnnData, Path]) -> None:
    path = data / "trex_tcells_pt17_citeseq.h5ad"
    ignored = pipeline.analyse(path, settings={"call": {"protein": "ignore"}})
    bare = read_h5ad(path)
    del bare.obsm["protein_counts"]
    without = pipeline.analyse(bare)
    for column in (keys.OBS_T_STATE, keys.OBS_T_STATE_RULE, keys.OBS_SENESCENCE_CALL):
        pd.testing.assert_series_equal(ignored.obs[column], without.obs[column])
    assert keys.OBS_PHENOTYPE_SOURCE not in without.obs
    assert "protein" not in without.uns[keys.UNS]
    assert set(ignored.obs[keys.OBS_PHENOTYPE_SOURCE].dropna()) == {"rna"}
    used, _ = trex
    assert (used.obs[keys.OBS_T_STATE] == "senescent_like").sum() > (
        without.obs[keys.OBS_T_STATE] == "senescent_like"
    ).sum()
    # scores stay those of RNA: the antibodies decide calls, they do not overwrite z
    np.testing.assert_array_equal(used.X, without.X)


@pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")
def test_a_notebook_gives_the_calls_of_a_run(data: Path, trex: tuple[AnnData, Path]) -> None:
    s, _ = trex
    adata = read_h5ad(data / "trex_tcells_pt17_citeseq.h5ad")
    for column in (keys.OBS_LINEAGE, keys.OBS_QC_PASS, keys.OBS_T_SUBSET, "doublet_mixed_lineage"):
        adata.obs[column] = s.obs[column]
    sn.tl.protein(adata)
    for key in (keys.OBSM_PROTEIN_CLR, keys.OBSM_PROTEIN_POSITIVE, keys.OBSM_PROTEIN_ARM):
        np.testing.assert_array_equal(adata.obsm[key].to_numpy(), s.obsm[key].to_numpy())
    sn.tl.score(adata)
    sn.tl.call(adata)
    assert (adata.obs[keys.OBS_PHENOTYPE_SOURCE] == s.obs[keys.OBS_PHENOTYPE_SOURCE]).sum() > 290
    assert adata.obs[keys.OBS_T_STATE_RULE].str.contains("(protein)", regex=False).sum() > 50
    sn.tl.call(adata, settings=CallSettings(protein="ignore"))
    assert adata.obs[keys.OBS_T_STATE_RULE].str.contains("(protein)", regex=False).sum() == 0


def test_explanations_stand_on_the_same_calls(trex: tuple[AnnData, Path]) -> None:
    s, out = trex
    found = sn.tl.explain(out, state="senescent_like", max_cells=5)
    assert len(found.stability)
    assert pipeline.reopen(out).calls is not None
    again = pipeline.reopen(out).calls
    assert (
        again[keys.OBS_T_STATE].astype(str).to_numpy()
        == s.obs[keys.OBS_T_STATE].astype(str).to_numpy()
    ).all()


def test_the_report_has_a_section_on_antibodies(trex: tuple[AnnData, Path]) -> None:
    from senoscore.report import build_report

    _, out = trex
    build_report(out)
    text = (out / "report.html").read_text("utf-8")
    assert "does not tell who carries CD57" in text
    assert 'id="protein"' in text


def test_the_picture_shows_what_is_called(trex: tuple[AnnData, Path]) -> None:
    import matplotlib.pyplot as plt

    s, _ = trex
    axes = sn.pl.protein(s)
    called = int((s.obsm[keys.OBSM_PROTEIN_ARM]["padj"] <= 0.05).sum())
    drawn = [len(c.get_offsets()) for c in axes[0].collections]
    assert called in drawn
    assert any(label.get_text() == "B3GAT1 for CD57" for label in axes[1].get_yticklabels())
    plt.close("all")
    bare = AnnData(np.zeros((3, 2), np.float32))
    with pytest.raises(InputDataError, match="no antibodies here"):
        sn.pl.protein(bare)
