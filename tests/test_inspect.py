"""What inspection says of real files, of synthetic matrices, and of broken input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import read_elem
from scipy import sparse

from senoscore import _columns
from senoscore._scales import SCALES, GroupMatrix, Sample, classify
from senoscore.errors import InputDataError
from senoscore.inspect import Fact, Facts, inspect_file
from senoscore.io.blocks import open_blocks
from senoscore.io.h5 import MatrixHeader

# file -> what its manifest says of it; a fact that is not named is None
EXPECTED: dict[str, dict[str, Any]] = {
    "celltypist_sample88": {"counts": "X", "cell_type": "cell_type_in_name"},
    "citefuse_eccite_pbmc500_hg19prefix": {"counts": "X", "protein": "protein_counts"},
    "hao2021_b_nk50": {
        "counts": "X",
        "cell_type": "celltype.l1",
        "cell_type_fine": "celltype.l2",
        "donor": "donor",
        "sample": "orig.ident",
        "condition": "time",
    },
    "ibex_bcells_misc_citeseq": {"counts": "X", "protein": "protein_counts"},
    "kang2018_lupus_pbmc8684": {
        "counts": "X",
        "cell_type": "cluster_id",
        "donor": "sample_id",
        "sample": "sample_id",
        "gene_kind": "ensembl",
    },
    "kang_ifnb2000": {"counts": "X", "condition": "stim"},
    "lcmv2_mouse_tcells": {
        "counts": "X",
        "organism": "mouse",
        "sample": "sample",
        "donor": "sample",
    },
    "marthandan2016_fibroblast_bulk": {
        "expression": "X",
        "scale": "linear_normalised",
        "cell_type": "CellType",
        "sample": "sampleID",
        "condition": "Condition",
    },
    "mast_mait96": {"expression": "X", "scale": "log2", "condition": "condition"},
    "mca_mouse_lung": {"counts": "X", "organism": "mouse", "sample": "sample", "donor": "sample"},
    "pbmc3k_labelled": {"counts": "X", "cell_type": "louvain", "embeddings": ["X_umap"]},
    "pbmc5k_protein_v3_200": {"counts": "X", "protein": "protein_counts"},
    "pbmc_frozen_donorA2896": {"counts": "X"},
    "sadefeldman_melanoma_cd8_1073": {
        "expression": "X",
        "scale": "log2",
        "cell_type": "cellTypes",
        "cell_type_fine": "celltype",
        "donor": "patient",
        "sample": "sample",
        "condition": "therapy",
    },
    "sadefeldman_melanoma_cd8_dev": {
        "expression": "X",
        "scale": "log2",
        "cell_type": "cellTypes",
        "cell_type_fine": "celltype",
        "donor": "patient",
        "sample": "sample",
        "condition": "condition",
    },
    "screp_ards_tcells500": {
        "counts": "X",
        "cluster": "seurat_clusters",
        "sample": "orig.ident",
        "donor": "orig.ident",
        "condition": "tissue",
        "embeddings": ["X_umap"],
    },
    "symphony_pbmc1200_lognorm": {
        "expression": "X",
        "scale": "log1p",
        "cell_type": "cell_type",
        "donor": "donor",
    },
    "trex_tcells_pt17_citeseq": {"counts": "X", "protein": "protein_counts"},
    "wu2020_til200": {
        "counts": "X",
        "cell_type": "cluster_orig",
        "donor": "patient",
        "sample": "sample",
        "condition": "source",
        "embeddings": ["X_umap_orig"],
    },
    "zilionis_nsclc300": {
        "counts": "X",
        "cell_type": "Major.cell.type",
        "cell_type_fine": "Minor.subset",
        "donor": "Patient",
        "sample": "Library",
        "condition": "Tissue",
        "embeddings": ["X_umap"],
    },
}
COMPARED = (
    "counts",
    "cell_type",
    "cell_type_fine",
    "cell_type_ontology",
    "cluster",
    "donor",
    "sample",
    "condition",
    "protein",
)


@lru_cache
def facts_of(path: Path) -> Facts:
    return inspect_file(path)


@pytest.fixture(params=sorted(EXPECTED))
def named(request: pytest.FixtureRequest, data: Path) -> tuple[str, Facts]:
    name = str(request.param)
    return name, facts_of(data / f"{name}.h5ad")


def test_facts_of_real_files_are_those_of_the_manifest(named: tuple[str, Facts]) -> None:
    name, facts = named
    expected = EXPECTED[name]
    found = {what: getattr(facts, what).value for what in COMPARED}
    assert found == {what: expected.get(what) for what in COMPARED}
    assert facts.organism.value == expected.get("organism", "human")
    assert facts.scale.value == expected.get("scale", "counts")
    assert facts.expression.value == expected.get("expression", "X")
    assert facts.embeddings.value == expected.get("embeddings", [])
    assert facts.is_primary_data.value is None
    kind = "prefixed hg19_" if "hg19" in name else expected.get("gene_kind", "symbol")
    assert facts.gene_kind.value == kind


def test_shape_and_size_are_those_anndata_reads(named: tuple[str, Facts], data: Path) -> None:
    name, facts = named
    adata = ad.read_h5ad(data / f"{name}.h5ad")
    assert (facts.n_obs, facts.n_vars) == adata.shape
    assert facts.nnz.value == adata.X.nnz
    assert facts.storage.value == "csr"
    assert facts.file_bytes.value == (data / f"{name}.h5ad").stat().st_size


def test_an_anndata_in_memory_has_the_facts_of_its_file(
    named: tuple[str, Facts], data: Path
) -> None:
    name, facts = named
    held = inspect_file(ad.read_h5ad(data / f"{name}.h5ad"))
    for what in (*COMPARED, "expression", "scale", "organism", "gene_kind", "age", "embeddings"):
        assert getattr(held, what).value == getattr(facts, what).value, what
    # the evidence in a note may quote another sample of the values
    assert [note[:40] for note in held.notes] == [note[:40] for note in facts.notes]


def test_facts_survive_json(named: tuple[str, Facts]) -> None:
    _, facts = named
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


def test_every_fact_says_how_it_was_found(named: tuple[str, Facts]) -> None:
    _, facts = named
    for what, entry in facts.to_dict().items():
        if isinstance(entry, dict):
            assert entry["how"], what
    text = facts.describe()
    assert f"{facts.n_obs:,} cells" in text
    for note in facts.notes:
        assert note in text


def fixture_files() -> list[str]:
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SENOSCORE_SHARED", default)) / "fixtures"
    return sorted(p.name for p in folder.glob("*")) if folder.is_dir() else ["none"]


@pytest.mark.parametrize("name", fixture_files())
def test_a_public_file_gives_facts_or_one_sentence(name: str, shared: Path) -> None:
    path = shared / "fixtures" / name
    if not path.exists():
        pytest.skip("fixture not found")
    facts, refused = None, ""
    try:
        facts = inspect_file(path)
    except InputDataError as error:
        refused = str(error)
    if facts is None:
        assert name in refused
        assert "\n" not in refused
        return
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    assert facts.scale.value in SCALES
    assert facts.x_scale.value in (*SCALES, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("anndata__adata__1b5f4a.h5ad", "no X"),
        ("soma__x-none__ba1569.h5ad", "no X"),
        ("scanpy__multiple_genomes__c1834e.h5", "10x"),
        ("lfspointer__pbmc3k__87c0c1.h5ad", "git-lfs"),
    ],
)
def test_what_is_no_expression_matrix_is_named_as_such(name: str, words: str, shared: Path) -> None:
    with pytest.raises(InputDataError, match=words):
        inspect_file(shared / "fixtures" / name)


def test_of_a_mudata_file_the_rna_is_taken(shared: Path) -> None:
    path = shared / "fixtures" / "muon__test_rna_atac__e92540.h5ad"
    facts = inspect_file(path)
    with h5py.File(path) as file:
        stored = read_elem(file["mod/rna/X"])
    assert (facts.n_obs, facts.n_vars) == stored.shape
    assert facts.protein.value is None
    with open_blocks(path) as blocks:
        got = sparse.vstack([block.to_csr() for block in blocks.iter_blocks(block_size=100)])
    assert (got != stored).nnz == 0


def test_columns_of_all_encodings_are_read_as_anndata_reads_them(shared: Path) -> None:
    """Modern, 0.7 (__categories) and compound obs, each against anndata's own reader."""
    seen = 0
    for path in sorted((shared / "fixtures").glob("*.h5ad")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                adata = ad.read_h5ad(path)
        except Exception:  # noqa: BLE001 - what anndata cannot read is no witness
            continue
        with h5py.File(path) as file:
            for where, frame in (("obs", adata.obs), ("var", adata.var)):
                table = _columns.GroupTable(file, where)
                assert table.n == len(frame), path.name
                assert len(set(table.names)) == len(frame.columns), path.name
                if frame.index.is_unique:  # anndata renames repeated names
                    assert table.index() == [str(v) for v in frame.index], path.name
                for name in frame.columns:
                    _same_column(table, name, frame[name], path.name)
                    seen += 1
    assert seen > 500


def _same_column(table: _columns.GroupTable, name: str, series: pd.Series, where: str) -> None:
    column = table.column(name)
    assert column is not None, (where, name)
    text = isinstance(series.dtype, pd.CategoricalDtype) or series.dtype == object
    assert table.is_text(name) == (column.kind == "label"), (where, name)
    if column.codes is None:
        assert not text or series.isna().all(), (where, name)
        np.testing.assert_array_equal(
            np.asarray(column.values, dtype=float), series.to_numpy(dtype=float)
        )
        return
    values = np.append(column.values.astype(object), None)[column.codes]
    truth = [None if pd.isna(v) or str(v) == "" else str(v) for v in series]
    assert [None if v in (None, "") else v for v in values] == truth, (where, name)


# --------------------------------------------------------------------------------------------
# synthetic files


def counts(n: int = 60, g: int = 400, *, depth: float = 1500, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    share = rng.gamma(0.4, 1, g)
    size = rng.lognormal(np.log(depth), 0.4, n)
    return rng.poisson(size[:, None] * share / share.sum()).astype(np.float32)


def build(X: Any, **obs: Any) -> ad.AnnData:
    n, g = X.shape
    return ad.AnnData(
        X=X,
        obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(1, g + 1)]),
    )


def write(adata: ad.AnnData, folder: Path) -> Path:
    path = folder / "file.h5ad"
    adata.write_h5ad(path)
    return path


def sample(X: np.ndarray) -> Sample:
    rows = [np.asarray(row[row != 0], dtype=np.float64) for row in X]
    return Sample(rows, np.concatenate(rows), whole=False)


C = counts(150, 2500, depth=2500)
CP10K = C / C.sum(axis=1, keepdims=True) * 1e4
SUBSET = np.random.default_rng(1).choice(2500, 600, replace=False)
_RNG = np.random.default_rng(2)
TPM = _RNG.lognormal(1, 2, (80, 5000)) * (_RNG.random((80, 5000)) < 0.4)
TPM = TPM / TPM.sum(axis=1, keepdims=True) * 1e6


@pytest.mark.parametrize(
    ("word", "values"),
    [
        pytest.param("counts", C, id="integers in float32"),
        pytest.param("log1p", np.log1p(CP10K), id="log1p CP10k"),
        pytest.param("log1p", np.log1p(CP10K)[:, SUBSET], id="log1p CP10k, genes dropped"),
        pytest.param("log1p", np.log1p(CP10K * 100)[:, SUBSET], id="log1p CPM, genes dropped"),
        pytest.param("log1p", np.round(np.log1p(CP10K), 3)[:, SUBSET], id="three decimals"),
        pytest.param("log1p", np.log1p(C), id="logged counts, no depth correction"),
        pytest.param("log2", np.log2(CP10K + 1)[:, SUBSET], id="log2 CP10k, genes dropped"),
        pytest.param("log2", np.log2(TPM + 1), id="log2 TPM"),
        pytest.param("log2", np.log2(TPM + 1)[:, :900], id="log2 TPM, genes dropped"),
        pytest.param("log_other", np.log10(CP10K + 1), id="log10"),
        pytest.param("twice_logged", np.log1p(np.log1p(CP10K)), id="log1p twice"),
        pytest.param(
            "twice_logged", np.log1p(np.log1p(CP10K))[:, SUBSET], id="twice, genes dropped"
        ),
        pytest.param("scaled", (CP10K - CP10K.mean(0)) / (CP10K.std(0) + 1), id="z-scores"),
        pytest.param("linear_normalised", CP10K, id="CP10k"),
        pytest.param("linear_normalised", CP10K[:, SUBSET], id="CP10k, genes dropped"),
        pytest.param("linear_normalised", TPM, id="TPM"),
        pytest.param("unknown", np.sqrt(CP10K), id="square roots"),
        pytest.param("unknown", (C > 0).astype(float), id="detection"),
        pytest.param(
            "fractional_counts",
            np.clip(C - _RNG.uniform(0, 0.4, C.shape) * (_RNG.random(C.shape) < 0.5), 0, None),
            id="ambient removed from some genes",
        ),
        pytest.param(
            "fractional_counts",
            np.clip(C - _RNG.uniform(0, 0.3, C.shape), 0, None),
            id="ambient removed from every gene",
        ),
        pytest.param("fractional_counts", C * 0.9, id="counts times a constant"),
    ],
)
def test_the_scale_is_seen_from_the_values(word: str, values: np.ndarray) -> None:
    found = classify(sample(np.asarray(values)))
    assert found.word == word, found.how


def test_a_scale_seen_from_a_range_only_is_said_to_be_uncertain() -> None:
    found = classify(sample(np.log2(TPM + 1)[:, :900]))
    assert not found.sure
    assert classify(sample(np.log1p(CP10K)[:, SUBSET])).sure


def test_nan_is_never_a_count() -> None:
    X = C[:20].astype(float)
    X[3, 4] = np.nan
    assert classify(sample(X)).word == "unknown"


def test_integers_in_the_first_rows_do_not_make_counts(tmp_path: Path) -> None:
    """A check of the first cells alone takes a file for counts that is not."""
    X = counts(3000, 50, depth=200)
    X[2000:] *= 0.37
    for form in (sparse.csr_matrix(X), sparse.csc_matrix(X), X):
        facts = inspect_file(write(build(form), tmp_path))
        assert facts.scale.value != "counts"


def test_the_end_of_the_file_is_looked_at() -> None:
    starts = []

    class Node:
        shape, dtype, chunks = (10_000, 4), np.dtype("f4"), None

        def __getitem__(self, rows: slice) -> np.ndarray:
            starts.append((rows.start, rows.stop))
            return np.ones((min(rows.stop, 10_000) - rows.start, 4), dtype="f4")

    header = MatrixHeader("X", "dense", (10_000, 4), np.dtype("f4"), None)
    GroupMatrix(Node(), header).sample()
    assert starts[0][0] == 0
    assert starts[-1][1] == 10_000
    assert any(4000 < start < 6000 for start, _ in starts)
    assert sum(stop - start for start, stop in starts) <= 500


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("scale", ["counts", "log1p"])
def test_storage_makes_no_difference(form: str, scale: str, tmp_path: Path) -> None:
    X = C[:60] if scale == "counts" else np.log1p(CP10K[:60]).astype(np.float32)
    held = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[form](X)
    path = write(build(held), tmp_path)
    assert inspect_file(path).scale.value == scale
    assert inspect_file(path).storage.value == form
    assert inspect_file(ad.read_h5ad(path)).scale.value == scale
    backed = ad.read_h5ad(path, backed="r")
    assert inspect_file(backed).scale.value == scale
    backed.file.close()


def test_counts_are_found_in_layer_raw_or_x(tmp_path: Path) -> None:
    X = C[:40, :300]
    logged = np.log1p(CP10K[:40, :300])
    layered = build(logged)
    layered.layers["counts"] = X
    layered.layers["spliced"] = X
    raw = build(X)
    raw.raw = raw
    raw.X = logged
    bare = build(X)
    for adata, key in ((layered, "layers/counts"), (raw, "raw.X"), (bare, "X")):
        facts = inspect_file(write(adata, tmp_path))
        assert facts.counts.value == key
        assert facts.scale.value == "counts"
    assert inspect_file(raw).x_scale.value == "log1p"


def test_spliced_counts_are_not_the_counts() -> None:
    adata = build(np.log1p(CP10K[:40, :300]))
    adata.layers["spliced"] = C[:40, :300]
    facts = inspect_file(adata)
    assert facts.counts.value is None
    assert facts.expression.value == "X"
    assert any("No raw counts" in note for note in facts.notes)


def test_raw_with_more_genes_is_preferred_to_a_cut_down_layer() -> None:
    whole = build(C[:40, :300])
    adata = build(np.log1p(CP10K[:40, :300]))
    adata.raw = whole
    adata = adata[:, :50].copy()
    adata.layers["counts"] = C[:40, :50]
    facts = inspect_file(adata)
    assert (facts.counts.value, facts.n_vars) == ("raw.X", 300)


def test_fractional_counts_are_used_and_said() -> None:
    X = np.clip(C - 0.25 * (C == 1), 0, None)
    facts = inspect_file(build(X[:60]))
    assert facts.counts.value == "X"
    assert facts.scale.value == "fractional_counts"
    assert any("not whole numbers" in note for note in facts.notes)


def test_the_expression_of_a_scaled_file_is_its_logged_raw() -> None:
    adata = build(np.log1p(CP10K[:60]))
    adata.raw = adata
    adata.X = (adata.X - adata.X.mean(0)) / (adata.X.std(0) + 0.1)
    facts = inspect_file(adata)
    assert facts.counts.value is None
    assert (facts.expression.value, facts.scale.value) == ("raw.X", "log1p")
    assert facts.x_scale.value == "scaled"


# --------------------------------------------------------------------------------------------
# genes, organism


def test_a_column_of_ids_is_preferred_to_row_numbers() -> None:
    adata = build(C[:20, :300])
    adata.var["gene_ids"] = list(adata.var_names)
    adata.var_names = [str(i) for i in range(300)]
    facts = inspect_file(adata)
    assert facts.gene_names.value == "gene_ids"
    assert facts.gene_kind.value == "ensembl"


def test_genes_without_names_are_said_to_cost_everything() -> None:
    adata = build(C[:20, :300])
    adata.var_names = [str(i) for i in range(300)]
    facts = inspect_file(adata)
    assert facts.gene_kind.value == "number"
    assert any("no signature can be scored" in note for note in facts.notes)


def test_versions_of_ids_are_seen() -> None:
    adata = build(C[:20, :300])
    adata.var_names = [f"{name}.7" for name in adata.var_names]
    assert inspect_file(adata).gene_kind.value == "ensembl_version"


@pytest.mark.parametrize(
    ("where", "term", "organism"),
    [
        ("uns", "NCBITaxon:9606", "human"),
        ("obs", "NCBITaxon:10090", "mouse"),
        ("uns", "NCBITaxon:9541", "NCBITaxon:9541"),
    ],
)
def test_the_organism_is_found_where_the_schema_put_it(
    where: str, term: str, organism: str
) -> None:
    adata = build(C[:20, :300])
    if where == "uns":
        adata.uns["organism_ontology_term_id"] = term
    else:
        adata.obs["organism_ontology_term_id"] = pd.Categorical([term] * 20)
    facts = inspect_file(adata)
    assert facts.organism.value == organism
    if organism not in ("human", "mouse"):
        assert any("not supported" in note for note in facts.notes)


def test_gene_names_that_contradict_the_organism_are_said() -> None:
    adata = build(C[:20, :300])
    adata.uns["organism"] = "Mus musculus"
    facts = inspect_file(adata)
    assert facts.organism.value == "mouse"
    assert any("look like human" in note for note in facts.notes)


# --------------------------------------------------------------------------------------------
# columns

TYPES = ["CD4 T", "B cell", "NK", "Monocyte"] * 15


def test_author_labels_are_preferred_to_predicted_ones_and_to_their_copies() -> None:
    authors = ["T cells", "B cells", "Lymphocytes", "Myeloid"] * 15
    adata = build(
        C[:60],
        annotation=authors,
        predicted_celltype_l1=TYPES,
        cell_type=TYPES,
    )
    facts = inspect_file(adata)
    assert facts.cell_type.value == "annotation"
    assert "cell_type" in facts.cell_type.how
    assert facts.cell_type_fine.value in ("cell_type", "predicted_celltype_l1")


def test_a_prediction_is_used_where_there_is_nothing_else_and_said_to_be_one() -> None:
    facts = inspect_file(build(C[:60], predicted_celltype=TYPES))
    assert facts.cell_type.value == "predicted_celltype"
    assert "predicted" in facts.cell_type.how


def test_the_cellxgene_column_wins() -> None:
    adata = build(
        C[:60],
        author_cell_type=["cd4_1", "b_1", "nk_1", "mono_1"] * 15,
        cell_type=["T cell", "B cell", "natural killer cell", "monocyte"] * 15,
        cell_type_ontology_term_id=["CL:0000084", "CL:0000236", "CL:0000623", "CL:0000576"] * 15,
    )
    facts = inspect_file(adata)
    assert facts.cell_type.value == "cell_type"
    assert facts.cell_type_ontology.value == "cell_type_ontology_term_id"


def test_clusters_are_numbers_and_labels_are_words() -> None:
    leiden = pd.Categorical([str(i % 4) for i in range(60)])
    facts = inspect_file(build(C[:60], leiden=leiden))
    assert (facts.cluster.value, facts.cell_type.value) == ("leiden", None)
    facts = inspect_file(build(C[:60], leiden=TYPES))
    assert (facts.cluster.value, facts.cell_type.value) == (None, "leiden")


@pytest.mark.parametrize("column", ["tissue", "source", "disease", "sample", "Phase"])
def test_a_column_of_something_else_is_no_cell_type(column: str) -> None:
    values = ["T cell lymphoma", "B cell lymphoma"] * 30
    assert inspect_file(build(C[:60], **{column: values})).cell_type.value is None


def test_a_label_that_names_nothing_is_kept_for_its_groups() -> None:
    facts = inspect_file(build(C[:60], cell_type=["causal", "control"] * 30))
    assert facts.cell_type.value == "cell_type"
    assert "none of its 2 labels names a lineage" in facts.cell_type.how


def test_unknown_donors_are_noted() -> None:
    facts = inspect_file(build(C[:60], donor_id=["d1", "d2", "pooled", "na"] * 15))
    assert facts.donor.value == "donor_id"
    assert facts.donor.how == "2 donors"
    assert any("'pooled'" in note for note in facts.notes)


def test_a_donor_column_that_names_nobody_is_none() -> None:
    facts = inspect_file(build(C[:60], donor_id=["pooled", "na"] * 30))
    assert facts.donor.value is None
    assert any("Donor column 'donor_id' names nobody: it holds" in n for n in facts.notes)


def test_samples_stand_in_for_donors_and_the_cost_is_said() -> None:
    facts = inspect_file(build(C[:60], sample=["s1", "s2", "s3", "s4"] * 15))
    assert facts.donor.value == "sample"
    assert any("stands in for donors" in note for note in facts.notes)


def test_barcodes_are_no_donors() -> None:
    facts = inspect_file(build(C[:60], donor=[f"AAAC{i}" for i in range(60)]))
    assert facts.donor.value is None


def test_copies_nuclei_and_filtered_genes_are_noted() -> None:
    adata = build(
        C[:60],
        is_primary_data=[True] * 50 + [False] * 10,
        suspension_type=["nucleus"] * 60,
    )
    adata.var["feature_is_filtered"] = [True] * 7 + [False] * (adata.n_vars - 7)
    facts = inspect_file(adata)
    assert facts.is_primary_data.value is False
    assert facts.suspension_type.value == "nucleus"
    notes = " ".join(facts.notes)
    assert "10 of 60 cells are not primary data" in notes
    assert "nuclei" in notes
    assert "7 genes were filtered" in notes


def test_repeated_cell_names_are_noted(tmp_path: Path) -> None:
    adata = build(C[:60])
    adata.obs_names = ["a"] * 30 + [f"b{i}" for i in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = inspect_file(write(adata, tmp_path))
    assert any("29 cell names occur more than once" in note for note in facts.notes)


def test_antibodies_among_the_genes_are_noted() -> None:
    adata = build(C[:60])
    kind = ["Gene Expression"] * (adata.n_vars - 3) + ["Antibody Capture"] * 3
    adata.var["feature_types"] = pd.Categorical(kind)
    assert any(
        "3 of the columns of the matrix are antibodies" in n for n in inspect_file(adata).notes
    )


def test_protein_columns_are_seen_by_their_names() -> None:
    adata = build(C[:60])
    adata.obsm["X_umap"] = np.zeros((60, 2))
    adata.obsm["X_pca"] = np.zeros((60, 5))
    adata.obsm["adt_raw"] = pd.DataFrame(
        np.ones((60, 3)), columns=["CD3_TotalSeqB", "PD-1", "IgG1"], index=adata.obs_names
    )
    adata.obsm["meta"] = pd.DataFrame(
        np.ones((60, 2)), columns=["age", "weight"], index=adata.obs_names
    )
    facts = inspect_file(adata)
    assert facts.protein.value == "adt_raw"
    assert facts.embeddings.value == ["X_umap", "X_pca"]


# --------------------------------------------------------------------------------------------
# overrides and mistakes


def test_the_configuration_wins() -> None:
    adata = build(C[:60], donor_id=["a", "b"] * 30, who=["x", "y", "z"] * 20, types=TYPES)
    facts = inspect_file(
        adata,
        overrides={
            "donor": "who",
            "cell_type": "types",
            "condition": False,
            "organism": "mouse",
            "age": None,
        },
    )
    assert facts.donor == Fact("who", "given in the configuration")
    assert facts.cell_type.value == "types"
    assert facts.condition.value is None
    assert facts.organism.value == "mouse"


def test_a_misspelt_column_is_answered_with_the_near_ones() -> None:
    adata = build(C[:60], patient_id=["a", "b"] * 30)
    with pytest.raises(InputDataError, match="did you mean 'patient_id'"):
        inspect_file(adata, overrides={"donor": "patient_ids"})
    with pytest.raises(InputDataError, match="available: patient_id"):
        inspect_file(adata, overrides={"donor": "zzz"})


def test_a_matrix_that_holds_no_counts_cannot_be_declared_counts() -> None:
    adata = build(np.log1p(CP10K[:60]))
    with pytest.raises(InputDataError, match="does not hold counts but log1p"):
        inspect_file(adata, overrides={"counts": "X"})
    with pytest.raises(InputDataError, match="there is no matrix 'layers/raw'"):
        inspect_file(adata, overrides={"counts": "layers/raw"})
    facts = inspect_file(adata, overrides={"scale": "log2"})
    assert (facts.scale.value, facts.counts.value) == ("log2", None)
    with pytest.raises(InputDataError, match="is not one of"):
        inspect_file(adata, overrides={"scale": "logarithmic"})


@pytest.mark.parametrize(
    ("adata", "words"),
    [
        (ad.AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["g"])), "no X"),
        (ad.AnnData(X=np.zeros((0, 3), dtype="f4")), "empty"),
        (ad.AnnData(X=np.zeros((3, 0), dtype="f4")), "empty"),
        (ad.AnnData(X=sparse.csr_matrix((3, 4), dtype="f4")), "empty"),
    ],
)
def test_nothing_to_score_is_one_sentence(adata: ad.AnnData, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=words):
        inspect_file(adata)
    with pytest.raises(InputDataError, match=words) as caught:
        inspect_file(write(adata, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_path_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="no such file"):
        inspect_file(tmp_path / "none.h5ad")


def test_something_else_than_data_is_one_sentence() -> None:
    with pytest.raises(InputDataError, match="a path or an AnnData"):
        inspect_file(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["truncated", "indptr"])
def test_a_damaged_file_is_one_sentence(damage: str, tmp_path: Path) -> None:
    path = write(build(sparse.csr_matrix(C[:60])), tmp_path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    else:
        with h5py.File(path, "r+") as file:
            file["X/indptr"][30] = 5
    with pytest.raises(InputDataError) as caught:
        inspect_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["gone", "number", "group", "short"])
def test_no_missing_or_misshapen_part_is_more_than_one_sentence(
    damage: str, tmp_path: Path
) -> None:
    adata = build(sparse.csr_matrix(C[:30, :40]), donor=["a", "b", None] * 10, age=range(30))
    adata.obs["cell_type"] = pd.Categorical(["T cell", "B cell"] * 15)
    adata.raw = adata
    adata.layers["counts"] = C[:30, :40]
    adata.obsm["X_umap"] = np.zeros((30, 2))
    adata.uns["organism"] = "Homo sapiens"
    original = write(adata, tmp_path)
    parts: list[str] = []
    with h5py.File(original) as file:
        file.visit(parts.append)
    assert len(parts) > 30
    refused = 0
    for part in parts:
        path = tmp_path / "damaged.h5ad"
        path.write_bytes(original.read_bytes())
        with h5py.File(path, "r+") as file:
            held = file[part]
            if damage == "short":
                if not isinstance(held, h5py.Dataset) or held.shape in ((), (1,)):
                    continue
                values, attributes = held[: held.shape[0] // 2], dict(held.attrs)
                del file[part]
                file[part] = values
                file[part].attrs.update(attributes)
            else:
                del file[part]
                if damage == "number":
                    file[part] = 5
                elif damage == "group":
                    file.create_group(part)
        try:
            facts = inspect_file(path)
        except InputDataError as error:
            assert "\n" not in str(error), part  # noqa: PT017
            refused += 1
        else:
            assert facts.describe(), part
    assert refused > 5


def test_a_column_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    adata = build(C[:60])
    adata.obs["cell_type"] = pd.Categorical(TYPES)
    path = write(adata, tmp_path)
    with h5py.File(path, "r+") as file:
        file["obs/cell_type/codes"][7] = 99
    facts = inspect_file(path)
    assert facts.cell_type.value is None
    assert any("cannot be read and are left out: cell_type" in note for note in facts.notes)


def test_zarr_has_the_facts_of_its_h5ad(tmp_path: Path) -> None:
    adata = build(sparse.csr_matrix(C[:60]), donor=["a", "b"] * 30, cell_type=TYPES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(tmp_path / "store.zarr")
    one, two = inspect_file(tmp_path / "store.zarr"), inspect_file(write(adata, tmp_path))
    for what in (*COMPARED, "scale", "organism", "storage", "nnz"):
        assert getattr(one, what) == getattr(two, what), what


def test_old_facts_that_lack_a_field_are_refused() -> None:
    facts = inspect_file(build(C[:60])).to_dict()
    del facts["donor"]
    with pytest.raises(InputDataError, match="'donor' is missing"):
        Facts.from_dict(facts)


def test_inspection_of_a_file_starts_without_the_heavy_libraries(data: Path) -> None:
    code = (
        "import sys; from senoscore.inspect import inspect_file; "
        f"inspect_file({str(data / 'pbmc3k_labelled.h5ad')!r}); "
        "print([m for m in ('pandas', 'anndata', 'scanpy', 'numba', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("odd", [b"\xff\xfe", None, "text", 3, float("nan")])
def test_texts_are_read_whatever_stands_among_them(odd: object) -> None:
    values = np.array([b"CD8 T", odd, "\u03b3\u03b4".encode()], dtype=object)
    shown = {b"\xff\xfe": "\ufffd\ufffd", None: "", "text": "text", 3: "3"}.get(odd, "")
    assert _columns.as_text(values).tolist() == ["CD8 T", shown, "\u03b3\u03b4"]
