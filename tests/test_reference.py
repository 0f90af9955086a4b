"""A frozen run: the same numbers for the same cell, whoever is beside it, and plain refusals."""

from __future__ import annotations

import dataclasses
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import senoscore as sn
from senoscore import keys, pipeline
from senoscore.adjust import Curve, Frozen
from senoscore.cli import main
from senoscore.errors import ConfigError, InputDataError, SenoscoreWarning, SignatureError
from senoscore.genes import resolve_genes
from senoscore.io.artefacts import read_npz, write_npz
from senoscore.null import benjamini_hochberg, storey
from senoscore.reference import (
    FrozenSet,
    Reference,
    _fit_one,
    _hash,
    _text,
    steps_from,
    steps_table,
)
from senoscore.simulate import simulate_to

TABLES = (keys.OBSM_SCORE, keys.OBSM_Z, keys.OBSM_PVALUE, keys.OBSM_PADJ, keys.OBSM_POWERED)


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Scores of a few cells come with warnings about signatures that no cell is there for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SenoscoreWarning)
        return function(*args, **kwargs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated cohort, its results, and the reference frozen from them."""
    folder = tmp_path_factory.mktemp("frozen")
    simulate_to(folder / "cohort.h5ad", n_cells=1200, n_genes=5000, seed=4)
    quietly(sn.analyse, folder / "cohort.h5ad", out=folder / "results")
    sn.tl.freeze(folder / "results", folder / "ref.npz")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> ad.AnnData:
    return ad.read_h5ad(folder / "results" / "senoscore.h5ad")


@pytest.fixture(scope="module")
def ref(folder: Path) -> Reference:
    return Reference.read(folder / "ref.npz")


@pytest.fixture(scope="module")
def cohort(folder: Path, run: ad.AnnData) -> ad.AnnData:
    """The cells with the lineages, subsets and quality verdicts of the run."""
    adata = ad.read_h5ad(folder / "cohort.h5ad")
    for column in ("lineage", "t_subset", "qc_pass", "doublet_mixed_lineage"):
        adata.obs[column] = run.obs[column].array
    return adata


@pytest.fixture(scope="module")
def scored(cohort: ad.AnnData, ref: Reference) -> ad.AnnData:
    adata = cohort.copy()
    quietly(sn.tl.score, adata, reference=ref)
    sn.tl.call(adata)
    return adata


def same(one: ad.AnnData, other: ad.AnnData) -> None:
    """The bytes of every table, for the cells of `one`."""
    for key in TABLES:
        a, b = one.obsm[key], other.obsm[key].loc[one.obs_names]
        assert list(a.columns) == list(b.columns)
        assert a.to_numpy().tobytes() == np.ascontiguousarray(b.to_numpy()).tobytes(), key


# -------------------------------------------------------------------------------------------------
# the file


def test_a_reference_comes_back_as_it_was_written(
    folder: Path, ref: Reference, tmp_path: Path
) -> None:
    again = tmp_path / "again.npz"
    ref.write(again)
    assert again.read_bytes() == (folder / "ref.npz").read_bytes()
    assert ref.about["input"] == "cohort.h5ad"
    assert len(ref.about["input_sha256"]) == 64
    assert (ref.organism, ref.scale, ref.n_null) == ("human", "counts", 200)
    assert (folder / "ref.npz").stat().st_size < 2_000_000


def test_freezing_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    made = sn.tl.freeze(folder / "results", tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (folder / "ref.npz").read_bytes()
    table = made.summary()
    assert (table["n_genes"] > 0).all()
    assert table["critical_p"].between(0, 0.05).all()


def test_the_critical_p_is_what_the_run_asked_for(run: ad.AnnData, ref: Reference) -> None:
    for row in ref.summary(0.05).itertuples():
        here = (run.obs["lineage"] == row.lineage).to_numpy()
        k = run.var_names.get_loc(row.signature)
        p, q = run.layers["pvalue"][here, k], run.layers["padj"][here, k]
        called = p[q <= 0.05]
        assert row.critical_p == pytest.approx(called.max() if len(called) else 0, rel=1e-6)


# -------------------------------------------------------------------------------------------------
# the same cells


def test_the_frozen_run_scores_its_own_cells_as_it_did(folder: Path, run: ad.AnnData) -> None:
    again = quietly(
        sn.analyse,
        folder / "cohort.h5ad",
        settings={"score": {"reference": str(folder / "ref.npz")}},
    )
    passed = run.obs["qc_pass"].to_numpy()
    assert list(again.var_names) == list(run.var_names)
    for one, other in ((again.X, run.X), *((again.layers[k], run.layers[k]) for k in run.layers)):
        np.testing.assert_array_equal(one[passed], other[passed])
    for column in ("t_state", "t_state_rule", "t_substate", "senescence_call"):
        assert (again.obs[column].astype(str) == run.obs[column].astype(str)).all(), column
    assert (run.obs["t_state"] == "exhausted").sum() > 10
    told = again.uns["senoscore"]["reference"]
    assert told["sha256"] == Reference.read(folder / "ref.npz").sha256
    rate = told["transfer"]["fpr_0.05"]
    # the reference's own null sets, so that only the width of a bin is left
    assert rate.between(0.035, 0.0501).all()


def test_a_cell_scores_the_same_alone_and_among_others(
    cohort: ad.AnnData, scored: ad.AnnData, ref: Reference
) -> None:
    for state in ("exhausted", "senescent", "neither"):
        cell = scored.obs_names[(scored.obs["t_state"] == state).to_numpy()][0]
        alone = cohort[[cell]].copy()
        quietly(sn.tl.score, alone, reference=ref)
        same(alone, scored)
        sn.tl.call(alone)
        assert alone.obs.loc[cell, "t_state"] == state
        assert alone.obs.loc[cell, "t_state_rule"] == scored.obs.loc[cell, "t_state_rule"]
    b_cell = cohort[scored.obs["lineage"] == "B"][:1].copy()
    quietly(sn.tl.score, b_cell, reference=ref)
    same(b_cell, scored)


def test_order_and_company_do_not_matter_but_do_without_a_reference(
    cohort: ad.AnnData, scored: ad.AnnData, ref: Reference
) -> None:
    order = np.random.default_rng(0).permutation(cohort.n_obs)
    mixed = cohort[order].copy()
    quietly(sn.tl.score, mixed, reference=ref, threads=2, block_size=100)
    same(mixed, scored)
    few = cohort[(scored.obs["t_state"] != "exhausted").to_numpy()].copy()
    quietly(sn.tl.score, few, reference=ref)
    same(few, scored)
    sn.tl.call(few)
    assert (
        few.obs["t_state"].astype(str) == scored.obs["t_state"][few.obs_names].astype(str)
    ).all()
    own = few.copy()
    quietly(sn.tl.score, own)
    with pytest.raises(AssertionError):
        same(own, scored)


def test_a_score_is_what_the_file_says(
    cohort: ad.AnnData, scored: ad.AnnData, ref: Reference
) -> None:
    """z, p and adjusted p of single cells, worked out from the file's content gene by gene."""
    genes = resolve_genes(cohort.var_names.tolist())
    k = ref.lineages.index("T")
    cells = np.flatnonzero((scored.obs["lineage"] == "T").to_numpy())[:40]
    checked = 0
    for name in ("t_axis_exhaustion", "t_arm_arrest", "conf_temra_effector"):
        frozen = ref.sets[k, list(ref.signatures).index(name)]
        column = {str(i): c for c, i in enumerate(genes.ids[genes.columns])}
        for cell in cells:
            row = np.asarray(cohort.X[cell].todense()).ravel().astype(float)
            x = np.log1p(row * 1e4 / row.sum())
            at = lambda g: x[column[ref.ids[g]]]  # noqa: B023, E731
            own = sum(w * at(g) for g, w in zip(frozen.genes, frozen.weights, strict=True))
            null = np.zeros(ref.n_null)
            for controls, w in zip(frozen.controls, frozen.weights, strict=True):
                null += [w * at(g) for g in controls]
            assert scored.obsm[keys.OBSM_SCORE][name].iloc[cell] == pytest.approx(
                own - null.mean(), abs=1e-4
            )
            if row.sum() < ref.lowest[k] or null.std() == 0:
                continue
            raw = (own - null.mean()) / null.std(ddof=1) - frozen.centres[0]
            stratum = int((row.sum() > ref.limits[k]).sum())
            counts = ref.histogram[k, list(ref.signatures).index(name), stratum]
            bins = int(np.floor((raw + 12) * 32))
            p = (1 + counts[bins:].sum()) / (1 + counts.sum())
            # a value on the edge of a bin may fall to either side
            near = (1 + counts[bins + 1 :].sum()) / (1 + counts.sum())
            found = scored.obsm[keys.OBSM_PVALUE][name].iloc[cell]
            assert near * (1 - 1e-6) <= found <= p * (1 + 1e-6)  # float32
            middle = np.repeat(np.arange(2048), counts)[counts.sum() // 2] / 32 - 12
            z = scored.obsm[keys.OBSM_Z][name].iloc[cell]
            assert z == pytest.approx(raw - middle, abs=1.01 / 32)
            checked += 1
    assert checked > 60


def test_calibrated_thresholds_do_not_move_with_the_cells(ref: Reference) -> None:
    """The support of a candidate is judged by the curve of the reference, not among the candidates."""
    steps = Frozen(ref.steps)
    p = np.array([1e-6, 0.01, 0.2, np.nan])
    many = np.concatenate([p, np.full(500, 1e-9)])
    np.testing.assert_array_equal(steps("support", p), steps("support", many)[:4])
    back = steps_from(steps_table(ref.steps))
    np.testing.assert_array_equal(steps("support", p), Frozen(back)("support", p))


# -------------------------------------------------------------------------------------------------
# curves


@pytest.mark.parametrize("adjusted", [benjamini_hochberg, storey])
@pytest.mark.parametrize("step", [0, 100])
def test_a_compact_curve_is_the_curve(adjusted: Any, step: int) -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(size=900) ** rng.choice([1, 3], 900)
    p = np.ceil(p * step) / step if step else p
    whole = Curve.of(p, adjusted(p))
    small = whole.compact()
    assert len(small.p) < len(np.unique(p))
    np.testing.assert_array_equal(small(p), adjusted(p))
    between = np.sort(rng.uniform(size=3000))
    np.testing.assert_allclose(small(between), whole(between), rtol=1e-12)
    assert (np.diff(small(between)) >= -1e-15).all()
    assert small.critical(0.05) == (
        p[adjusted(p) <= 0.05].max() if (adjusted(p) <= 0.05).any() else 0
    )


def test_a_family_without_candidates_lets_nobody_in_for_free() -> None:
    """A curve of no p-values gave everything an adjusted p of 0."""
    curve = Curve.of(np.full(3, np.nan), np.full(3, np.nan))
    np.testing.assert_array_equal(curve(np.array([0.3, 0.04])), [0.3, 0.04])


# -------------------------------------------------------------------------------------------------
# genes that are not there


def test_missing_genes_are_counted_and_their_places_taken(
    cohort: ad.AnnData, scored: ad.AnnData, ref: Reference
) -> None:
    rng = np.random.default_rng(3)
    fewer = cohort[:, np.sort(rng.permutation(cohort.n_vars)[: int(0.9 * cohort.n_vars)])].copy()
    quietly(sn.tl.score, fewer, reference=ref)
    told = fewer.uns["senoscore"]["reference"]["coverage"].set_index(["lineage", "signature"])
    there = set(resolve_genes(fewer.var_names.tolist()).ids)
    gone = np.array([i not in there for i in ref.ids])
    for (k, s), frozen in ref.sets.items():
        row = told.loc[(ref.lineages[k], list(ref.signatures)[s])]
        assert row["frac_controls_missing"] == pytest.approx(gone[frozen.controls].mean())
        assert row["n_genes_missing"] == gone[frozen.genes].sum()
    var = fewer.uns["senoscore"]["signatures"]
    name = "t_axis_exhaustion"
    assert 0.02 < var.loc[name, "reference_frac_controls_missing"] < 0.3
    one, other = fewer.obsm[keys.OBSM_Z][name], scored.obsm[keys.OBSM_Z][name]
    known = one.notna() & other.notna()
    assert np.corrcoef(one[known], other[known])[0, 1] > 0.85
    rate = fewer.uns["senoscore"]["reference"]["transfer"]
    assert np.average(rate["fpr_0.05"], weights=rate["n_cells"]) < 0.06


def test_a_missing_control_is_replaced_by_the_nearest_of_the_same_gene() -> None:
    means = np.array([0, 1.0, 1.1, 1.5, 9.0, 2.0], np.float32)
    frozen = FrozenSet(
        np.array([0, 5]),
        np.array([1.0, -0.5]),
        np.array([[1, 2, 3, 4], [4, 4, 1, 1]]),
        np.zeros(5),
    )
    at = np.array([10, 11, -1, 13, 14, 15])
    row, genes, draw = _fit_one(frozen, "s", at, means, 0.5)
    assert draw is not None
    np.testing.assert_array_equal(draw[0], [[11, 11, 13, 14], [14, 14, 11, 11]])
    np.testing.assert_array_equal(draw[1], [1.0, -0.5])
    assert row["frac_controls_missing"] == 1 / 8
    # a signature gene that is missing takes its controls with it
    at[5] = -1
    row, genes, draw = _fit_one(frozen, "s", at, means, 0.5)
    assert draw is not None
    assert (row["n_genes_missing"], row["coverage"]) == (1, pytest.approx(2 / 3))
    np.testing.assert_array_equal(genes.positions, [10])
    assert draw[0].shape == (1, 4)
    # below the floor, nothing
    row, _, draw = _fit_one(frozen, "s", at, means, 0.7)
    assert draw is None
    assert row["reason"] == "1 of 2 genes of the reference measured (67% of the weight, 70% needed)"
    # most controls missing: as good as missing itself
    row, _, draw = _fit_one(frozen, "s", np.array([10, -1, -1, -1, 14, 15]), means, 0.2)
    assert draw is not None
    assert row["n_genes_missing"] == 1


def test_a_signature_without_its_genes_is_not_scored_and_says_so(
    cohort: ad.AnnData, ref: Reference
) -> None:
    genes = [g.symbol for g in ref.signatures["t_axis_exhaustion"].voting()]
    without = cohort[:, ~cohort.var_names.isin(genes)].copy()
    with pytest.warns(SenoscoreWarning) as caught:
        sn.tl.score(without, ["t_axis_exhaustion", "conf_temra_effector"], reference=ref)
    assert any("'t_axis_exhaustion' is not scored: 0 of " in str(w.message) for w in caught)
    assert without.obsm[keys.OBSM_Z]["t_axis_exhaustion"].isna().all()
    assert without.obsm[keys.OBSM_Z]["conf_temra_effector"].notna().any()


def test_what_the_reference_does_not_hold_is_said(cohort: ad.AnnData, ref: Reference) -> None:
    k = ref.lineages.index("B")
    smaller = dataclasses.replace(
        ref,
        lineages=tuple("absent" if name == "B" else name for name in ref.lineages),
        lowest=np.where(np.arange(len(ref.lowest)) == ref.lineages.index("T"), 3000, ref.lowest),
        cells={("absent" if a == "B" else a, b): c for (a, b), c in ref.cells.items()},
    )
    adata = cohort.copy()
    with pytest.warns(SenoscoreWarning) as caught:
        sn.tl.score(adata, ["b_senescence", "t_axis_exhaustion"], reference=smaller)
    said = " | ".join(str(w.message) for w in caught)
    n_b = (cohort.obs["lineage"] == "B").sum()
    assert f"the reference has no B ({n_b} cells)" in said
    assert "the reference does not hold this lineage" in said
    assert adata.obsm[keys.OBSM_Z]["b_senescence"].isna().all()
    shallow = (cohort.obs["lineage"] == "T").to_numpy() & (
        np.asarray(cohort.X.sum(axis=1)).ravel() < 3000
    )
    assert shallow.any()
    assert "are shallower than any of the reference" in said
    assert adata.obsm[keys.OBSM_PVALUE]["t_axis_exhaustion"][shallow].isna().all()
    assert k >= 0


# -------------------------------------------------------------------------------------------------
# from memory, and logged values


@pytest.mark.parametrize("logged", [False, True], ids=["counts", "log1p"])
def test_scores_made_in_memory_can_be_frozen(
    cohort: ad.AnnData, tmp_path: Path, *, logged: bool
) -> None:
    adata = cohort.copy()
    if logged:
        x = sparse.csr_matrix(adata.X).astype(np.float64)
        x = sparse.csr_matrix(sparse.diags(1e4 / np.asarray(x.sum(axis=1)).ravel()) @ x)
        adata = ad.AnnData(x.log1p().astype(np.float32), obs=adata.obs, var=adata.var)
    chosen = ["t_axis_exhaustion", "conf_temra_effector", "b_senescence"]
    quietly(sn.tl.score, adata, chosen)
    made = sn.tl.freeze(adata, tmp_path / "memory.npz")
    assert made.scale == ("log1p" if logged else "counts")
    again = adata[::-1].copy()
    quietly(sn.tl.score, again, reference=tmp_path / "memory.npz")
    # against a reference every cell is tested, in a run of its own those that passed quality control
    passed = adata.obs["qc_pass"].to_numpy(bool)
    assert not passed.all()
    for key in TABLES:
        now, then = again.obsm[key][chosen][::-1], adata.obsm[key][chosen]
        np.testing.assert_array_equal(now[passed], then[passed])
    assert adata.obsm["senoscore_pvalue"][~passed].isna().all(axis=None)
    # limits are in counts, or in genes detected where values are logged
    values = sparse.csr_matrix(adata.X)
    depth = values.getnnz(axis=1) if logged else np.asarray(values.sum(axis=1)).ravel()
    depth = depth[(adata.obs["lineage"] == "T").to_numpy() & passed]
    k = made.lineages.index("T")
    n = len(made.limits[k]) + 1
    np.testing.assert_array_equal(made.limits[k], np.quantile(depth, np.arange(1, n) / n))
    assert made.lowest[k] == depth.min()
    with pytest.raises(InputDataError, match="scored against a reference: use that one"):
        sn.tl.freeze(again, tmp_path / "x.npz")
    with pytest.raises(InputDataError, match="analyse them with it"):
        sn.tl.explain(again, state="exhausted")


def test_scoring_without_a_reference_forgets_the_last_one(
    cohort: ad.AnnData, ref: Reference
) -> None:
    adata = cohort[:400].copy()
    quietly(sn.tl.score, adata, reference=ref)
    assert "reference" in adata.uns["senoscore"]
    quietly(sn.tl.score, adata)
    assert "reference" not in adata.uns["senoscore"]


# -------------------------------------------------------------------------------------------------
# refusals


def test_data_that_do_not_fit_are_refused(ref: Reference, cohort: ad.AnnData) -> None:
    human = resolve_genes(["CD3E", "CD8A", "LYZ"])
    ref.require_like(human, "fractional_counts")
    with pytest.raises(InputDataError, match="of human cells, the data are mouse"):
        ref.require_like(resolve_genes(["Cd3e", "Cd8a"], organism="mouse"), "counts")
    with pytest.raises(InputDataError, match="made of counts, the data hold log1p"):
        ref.require_like(human, "log1p")
    with pytest.raises(SignatureError, match=r"'t_axis_exhaustoin' is not among .*mean 't_axis_ex"):
        ref.choose(["t_axis_exhaustoin"])
    with pytest.raises(SignatureError, match="give names of these"):
        ref.choose({"mine": ["CD3E"]})
    with pytest.raises(SignatureError, match="'ucell' knows no reference"):
        sn.tl.score(cohort.copy(), method="ucell", reference=ref)


def _with_meta(path: Path, out: Path, **changed: Any) -> Path:
    """The same reference with some facts changed, and a hash that fits."""
    arrays = read_npz(path)
    arrays.pop("sha256")
    meta = json.loads(arrays["meta"].tobytes()) | changed
    arrays["meta"] = _text(json.dumps(meta))
    write_npz({**arrays, "sha256": _text(_hash(arrays))}, out)
    return out


def test_files_that_are_no_reference_are_refused(folder: Path, tmp_path: Path) -> None:
    good = folder / "ref.npz"
    with pytest.raises(InputDataError, match="there is no reference at"):
        Reference.read(tmp_path / "none.npz")
    text = tmp_path / "text.npz"
    text.write_text("not at all")
    with pytest.raises(InputDataError, match="damaged or no reference"):
        Reference.read(text)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(good.read_bytes()[:-4000])
    with pytest.raises(InputDataError, match="damaged or no reference"):
        Reference.read(cut)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputDataError, match="damaged or no reference"):
        Reference.read(pickled)
    other = tmp_path / "other.npz"
    write_npz({"x": np.arange(3)}, other)
    with pytest.raises(InputDataError, match="is no reference of senoscore"):
        Reference.read(other)
    newer = _with_meta(good, tmp_path / "newer.npz", format=99)
    with pytest.raises(InputDataError, match="format 99, this senoscore reads 2"):
        Reference.read(newer)
    for changed in ({"n_null": 50}, {"n_strata": 10**6}, {"ids": ["A"]}, {"lineages": ["T"]}):
        bad = _with_meta(good, tmp_path / "bad.npz", **changed)
        with pytest.raises(InputDataError, match="contradicts itself"):
            Reference.read(bad)


def test_a_changed_number_is_noticed(folder: Path, tmp_path: Path) -> None:
    arrays = read_npz(folder / "ref.npz")
    arrays["centre"] = arrays["centre"].copy()
    arrays["centre"][0, 0] += 1e-9
    write_npz(arrays, tmp_path / "changed.npz")
    with pytest.raises(InputDataError, match="changed or damaged: its hash"):
        Reference.read(tmp_path / "changed.npz")
    with zipfile.ZipFile(folder / "ref.npz") as archive:
        assert all(not name.startswith(("/", "..")) for name in archive.namelist())


@pytest.fixture(scope="module")
def at_home(folder: Path) -> Path:
    """The cohort analysed against the reference frozen from it."""
    settings = {"score": {"reference": str(folder / "ref.npz")}}
    out = folder / "home"
    quietly(sn.analyse, folder / "cohort.h5ad", out=out, settings=settings)
    return out


def test_a_run_against_its_own_reference_is_explained_as_without_it(
    folder: Path, at_home: Path
) -> None:
    plain = sn.tl.explain(folder / "results", state="exhausted", max_cells=20)
    frozen = sn.tl.explain(at_home, state="exhausted", max_cells=20)
    assert len(plain.scores) > 20
    for name in ("scores", "contributions", "removals", "stability", "genes", "groups"):
        pd.testing.assert_frame_equal(
            getattr(frozen, name), getattr(plain, name), check_exact=False, rtol=1e-5, atol=1e-6
        )


def test_one_cell_is_explained_by_the_null_of_the_reference(
    folder: Path, at_home: Path, tmp_path: Path
) -> None:
    """No sample to estimate a gene's absence from: the null and the centres stay as they are."""
    home = ad.read_h5ad(at_home / "senoscore.h5ad")
    here = (home.obs["t_state"] == "exhausted").to_numpy()
    names = home.obs_names[np.flatnonzero(here)[:3]]
    few = ad.read_h5ad(folder / "cohort.h5ad")[names].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    settings = {"score": {"reference": str(folder / "ref.npz")}}
    quietly(sn.analyse, tmp_path / "few.h5ad", out=tmp_path / "out", settings=settings)
    found = sn.tl.explain(tmp_path / "out", cells=[names[0]])
    there = sn.tl.explain(at_home, cells=[names[0]])
    columns = ["signature", "gene", "contribution", "z_contribution"]
    pd.testing.assert_frame_equal(found.contributions[columns], there.contributions[columns])
    sums = found.contributions.groupby("signature")["z_contribution"].sum()
    scores = found.scores.set_index("signature")
    np.testing.assert_allclose(sums[scores.index], scores["z"] + scores["z_reference"])
    # without a gene z falls by about what it gave, and p stands in the null of the reference
    assert found.contributions["pvalue_without"].between(0, 1).all()


def test_a_run_against_a_reference_has_a_certificate(folder: Path, at_home: Path) -> None:
    """At home it is that of the run, but for cells below the range: they get no p-value."""
    plain, frozen = (
        pd.read_csv(where / "certificate.tsv", sep="\t", keep_default_na=False)
        for where in (folder / "results", at_home)
    )
    assert len(frozen) == len(plain) > 20
    inside = (plain["n_below_range"] == 0) & (plain["n_cells"] > 0)
    assert inside.sum() > 5
    counts = ["n_cells", "n_kept", "n_indeterminate", "n_flipped", "n_below_range"]
    pd.testing.assert_frame_equal(frozen.loc[inside, counts], plain.loc[inside, counts])
    below = frozen[~inside & (frozen["state"] == "all calls") & (frozen["n_cells"] > 0)]
    assert (below["n_indeterminate"] >= below["n_below_range"]).all()


def test_runs_against_a_reference_are_not_frozen(folder: Path, tmp_path: Path) -> None:
    ref = str(folder / "ref.npz")
    out = tmp_path / "again"
    settings = {"score": {"reference": ref}}
    quietly(sn.analyse, folder / "cohort.h5ad", out=out, settings=settings)
    with pytest.raises(InputDataError, match="itself scored against a reference"):
        sn.tl.freeze(out, tmp_path / "x.npz")
    coverage = pd.read_csv(out / "coverage.tsv", sep="\t")
    assert (coverage["reference_frac_controls_missing"].dropna() == 0).all()
    # the file is another one by the time of the calls
    other = dataclasses.replace(Reference.read(ref), about={"version": "x"})
    other.write(tmp_path / "other.npz")
    with pytest.raises(InputDataError, match="has changed since the cells were scored"):
        pipeline.run_stage(
            "call", out, source=folder / "cohort.h5ad",
            settings={"score": {"reference": str(tmp_path / "other.npz")}},
        )  # fmt: skip
    with pytest.raises(ConfigError, match="leave out score.signature_files"):
        pipeline.run_stage(
            "score", out, source=folder / "cohort.h5ad",
            settings={"score": {"reference": ref, "signature_files": ["mine.gmt"]}},
        )  # fmt: skip


def test_the_command_line_freezes_and_refuses(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["freeze", str(folder / "results"), str(tmp_path / "cli.npz")]) == 0
    assert "signatures, cells: " in capsys.readouterr().out
    assert (tmp_path / "cli.npz").read_bytes() == (folder / "ref.npz").read_bytes()
    assert main(["freeze", str(tmp_path), str(tmp_path / "no.npz")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    wrong = ["--reference", str(tmp_path / "none.npz"), "--no-report", "--out", str(tmp_path / "o")]
    assert main(["analyse", str(folder / "cohort.h5ad"), *wrong]) == 2
    assert "there is no reference at" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------
# real cells


def test_the_null_of_one_donor_holds_in_another(data: Path, tmp_path: Path) -> None:
    """Blood of two donors, other laboratories' libraries: random sets stay at their level."""
    out = tmp_path / "pbmc3k"
    quietly(sn.analyse, data / "pbmc3k_labelled.h5ad", out=out)
    sn.tl.freeze(out, tmp_path / "pbmc3k.npz")
    assert (tmp_path / "pbmc3k.npz").stat().st_size < 2_500_000
    settings = {"score": {"reference": str(tmp_path / "pbmc3k.npz")}}
    other = quietly(sn.analyse, data / "pbmc_frozen_donorA2896.h5ad", settings=settings)
    told = other.uns["senoscore"]["reference"]
    for level, least, most in ((0.05, 0.04, 0.06), (0.01, 0.007, 0.015), (0.001, 0.0005, 0.002)):
        by_lineage = (
            told["transfer"]
            .groupby("lineage")[["n_cells", f"fpr_{level:g}"]]
            .apply(lambda t, c=f"fpr_{level:g}": np.average(t[c], weights=t["n_cells"]))
        )
        assert by_lineage[["T", "B", "NK", "mono_mac"]].between(least, most).all(), level
    states = other.obs["t_state"].value_counts(normalize=True)
    assert states["exhausted"] + states["senescent"] + states["both"] < 0.005
    assert (told["coverage"]["status"] == "scored").all()
