"""Explanations against the definition, and calls without a gene against a run without it."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import senoscore as sn
from senoscore import calling, explain, keys
from senoscore.cli import main
from senoscore.errors import InputDataError, SignatureError
from senoscore.explain import Explanation, Judged
from senoscore.io.blocks import open_blocks
from senoscore.null import ControlGenes, draw_sets
from senoscore.pipeline import reopen
from senoscore.simulate import simulate_to
from senoscore.streaming import Intake

EXHAUSTION = calling.AXIS_SIGNATURES["exhaustion"][0]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated cohort and its results, as `senoscore analyse` leaves them."""
    folder = tmp_path_factory.mktemp("cohort")
    simulate_to(folder / "cohort.h5ad", n_cells=1500, n_genes=6000, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sn.analyse(folder / "cohort.h5ad", out=folder / "results")
    return folder


@pytest.fixture(scope="module")
def judged(cohort: Path) -> Judged:
    return reopen(cohort / "results")


@pytest.fixture(scope="module")
def exhausted(judged: Judged) -> Explanation:
    groups = explain.choose_cells(judged, state="exhausted")
    return explain.explain_cells(judged, groups, max_cells=25)


def raw_log(cohort: Path) -> tuple[ad.AnnData, np.ndarray]:
    """Expression of all cells from the file, as the definition has it."""
    adata = ad.read_h5ad(cohort / "cohort.h5ad")
    counts = sparse.csr_matrix(adata.X).toarray().astype(float)
    return adata, np.log1p(counts * 1e4 / counts.sum(1, keepdims=True))


def signature(judged: Judged, name: str) -> int:
    return judged.signatures.index(name)


# -------------------------------------------------------------------------------------------------
# a run made again


def test_a_reopened_run_makes_the_same_calls(cohort: Path, judged: Judged) -> None:
    stored = ad.read_h5ad(cohort / "results" / "senoscore.h5ad")
    assert judged.calls is not None
    for call in (keys.OBS_T_STATE, keys.OBS_SENESCENCE_CALL):
        now = judged.calls[call].astype(object).where(judged.calls[call].notna(), None)
        then = stored.obs[call].astype(object).where(stored.obs[call].notna(), None)
        pd.testing.assert_series_equal(now, then, check_names=False)
    z = stored.to_df()[list(judged.signatures)]
    np.testing.assert_allclose(judged.tables.z, z, atol=1e-5, equal_nan=True)


def test_only_the_rows_asked_for_are_read(cohort: Path) -> None:
    adata = ad.read_h5ad(cohort / "cohort.h5ad")
    data = sn.pp.inspect(adata)
    assert data.counts.value == "X"
    from senoscore.inputs import read_input

    genes = read_input(cohort / "cohort.h5ad").genes
    rows = np.array([0, 3, 700, 701, 1499])
    with open_blocks(cohort / "cohort.h5ad") as blocks:
        got = explain.read_rows(blocks, Intake(genes, 0), rows)
    expected = sparse.csr_matrix(adata.X)[rows].toarray()
    by_gene = np.zeros((len(rows), genes.n_genes))
    np.add.at(by_gene.T, genes.columns, expected.T)
    np.testing.assert_array_equal(got.toarray(), by_gene)
    assert list(explain._runs(rows, 100)) == [(0, 4), (700, 702), (1499, 1500)]


# -------------------------------------------------------------------------------------------------
# contributions


def test_contributions_equal_the_definition_from_the_file(
    cohort: Path, judged: Judged, exhausted: Explanation
) -> None:
    """w·sign·(x_g - mean of g's controls), straight from the counts, gene by gene."""
    adata, x = raw_log(cohort)
    assert len(adata.var_names) == len(judged.symbols)  # one column per gene in this cohort
    s, code = signature(judged, EXHAUSTION), judged.lineages.index("T")
    genes = judged.voting[s]
    controls = ControlGenes(judged.sums[code], judged.eligible, judged.rank)
    drawn, _ = draw_sets(
        genes, controls, judged.sums[code], lineage="T", n_null=judged.n_null, seed=judged.seed,
        resting=judged.resting[code, s],
    )  # fmt: skip
    order = np.argsort(np.asarray(genes.ids, dtype=object))
    order = [k for k in order if judged.sums[code, genes.positions[k]] > 0]
    cell = exhausted.scores["cell"].iloc[0]
    row = x[adata.obs_names.get_loc(cell)]
    own = exhausted.contributions
    own = own[(own["cell"] == cell) & (own["signature"] == EXHAUSTION)].set_index("gene")
    total = 0.0
    for k, set_row in zip(order, drawn, strict=True):
        position = genes.positions[k]
        expected = genes.weights[k] * (row[position] - row[set_row].mean())
        found = own.loc[judged.symbols[position]]
        assert found["contribution"] == pytest.approx(expected, abs=1e-5)
        assert found["expression"] == pytest.approx(row[position], abs=1e-6)
        total += expected
    stored = ad.read_h5ad(cohort / "results" / "senoscore.h5ad")
    assert total == pytest.approx(stored[cell, EXHAUSTION].layers["score"].item(), abs=1e-4)
    null = np.array([row[drawn[:, j]] @ genes.weights[order] for j in range(judged.n_null)])
    assert own["z_contribution"].sum() == pytest.approx(total / null.std(ddof=1), rel=1e-4)


def test_contributions_sum_to_the_score_and_to_z(exhausted: Explanation) -> None:
    sums = exhausted.contributions.groupby(["cell", "signature"], sort=False)[
        ["contribution", "z_contribution"]
    ].sum()
    scores = exhausted.scores.set_index(["cell", "signature"]).loc[sums.index]
    np.testing.assert_allclose(sums["contribution"], scores["score"], atol=1e-9)
    known = scores["z"].notna()
    np.testing.assert_allclose(
        sums["z_contribution"][known], (scores["z"] + scores["z_reference"])[known], atol=1e-9
    )


def test_the_averages_are_the_means_of_the_cells(exhausted: Explanation) -> None:
    cells = exhausted.contributions
    gene = "PDCD1"
    own = cells[(cells["gene"] == gene) & (cells["signature"] == EXHAUSTION)]
    mean = exhausted.genes.set_index(["signature", "gene"]).loc[(EXHAUSTION, gene)]
    assert mean["n_cells"] == len(own) == exhausted.groups["n_explained"].iloc[0]
    assert mean["contribution"] == pytest.approx(own["contribution"].mean())
    lost = ~exhausted.removals.loc[exhausted.removals["gene"] == gene, "kept"]
    assert mean["frac_call_lost"] == pytest.approx(lost.mean())


# -------------------------------------------------------------------------------------------------
# without a gene


def naive_without(
    judged: Judged, x: np.ndarray, s: int, code: int, gone: int | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """z (not aligned) and p of cells without one gene, over all cells of the lineage, by hand."""
    genes = judged.voting[s]
    controls = ControlGenes(judged.sums[code], judged.eligible, judged.rank)
    drawn, weights = draw_sets(
        genes, controls, judged.sums[code],
        lineage=judged.lineages[code], n_null=judged.n_null, seed=judged.seed,
        resting=judged.resting[code, s],
    )  # fmt: skip
    order = np.argsort(np.asarray(genes.ids, dtype=object))
    order = np.array([k for k in order if judged.sums[code, genes.positions[k]] > 0])
    keep = np.array([genes.positions[k] != gone for k in order])
    drawn, weights, own_genes = drawn[keep], weights[keep], genes.positions[order][keep]
    members = np.flatnonzero((judged.codes == code) & (judged.strata >= 0))
    own = x[np.ix_(members, own_genes)] @ weights
    sets = np.stack([x[np.ix_(members, drawn[:, j])] @ weights for j in range(judged.n_null)], 1)
    z = (own - sets.mean(1)) / sets.std(1, ddof=1)
    null = np.empty_like(sets)
    for j in range(judged.n_null):
        rest = np.delete(sets, j, axis=1)
        null[:, j] = (sets[:, j] - rest.mean(1)) / rest.std(1, ddof=1)
    shift = 0.6744897501960817
    z -= np.quantile(z, 0.25) + shift
    null -= np.quantile(null, 0.25, axis=0) + shift
    place = {int(m): i for i, m in enumerate(members)}
    at = np.array([place[int(r)] for r in rows])
    p = []
    for i in at:
        stratum = judged.strata[members] == judged.strata[members[i]]
        # the run counts its null in bins of 1/32
        floor = np.floor(z[i] * 32) / 32
        p.append((1 + (null[stratum] >= floor).sum()) / (1 + null[stratum].size))
    return z[at], np.array(p)


def test_a_removal_equals_scoring_without_the_gene(
    cohort: Path, judged: Judged, exhausted: Explanation
) -> None:
    """All T cells are sampled in so small a cohort: then nothing is approximate."""
    _, x = raw_log(cohort)
    s, code = signature(judged, EXHAUSTION), judged.lineages.index("T")
    assert (judged.codes == code).sum() <= 1000
    cells = list(dict.fromkeys(exhausted.scores["cell"]))[:6]
    rows = np.array([judged.names.get_loc(c) for c in cells])
    whole_z, whole_p = naive_without(judged, x, s, code, None, rows)
    run = judged.tables.pvalue[EXHAUSTION].to_numpy()[rows]
    np.testing.assert_allclose(whole_p, run, rtol=0.02)
    for gene in ("PDCD1", "CXCL13", "TOX"):
        gone = int(np.flatnonzero(judged.symbols == gene)[0])
        z, p = naive_without(judged, x, s, code, gone, rows)
        found = exhausted.contributions
        found = found[(found["signature"] == EXHAUSTION) & (found["gene"] == gene)]
        found = found.set_index("cell").loc[cells]
        # a z on the edge of a bin may fall to either side
        np.testing.assert_allclose(found["pvalue_without"], p, rtol=0.1, atol=1e-5)
        assert (z < whole_z).any()


def test_without_a_gene_that_votes_nowhere_nothing_changes(judged: Judged) -> None:
    """Removing nothing is the run itself: every call is reproduced by the frozen thresholds."""
    rows = np.flatnonzero((judged.codes == judged.lineages.index("T")) & (judged.strata >= 0))
    deciding = [k for k, v in enumerate(judged.voting) if v.name in calling.deciding("T")]
    nothing = {
        k: (np.array([], np.int64), explain.Without(np.zeros((len(rows), 0)), np.zeros((len(rows), 0))))
        for k in deciding
    }  # fmt: skip
    label = np.full(len(rows), "all", dtype=object)
    table = explain._removals(judged, "T", rows, label, np.array([0]), deciding, nothing)
    assert table["kept"].all()


def test_removals_are_judged_by_the_rules(judged: Judged, exhausted: Explanation) -> None:
    """An exhausted cell keeps its state if, and only if, its axis stays significant."""
    axis = exhausted.contributions
    axis = axis[axis["signature"] == EXHAUSTION].set_index(["cell", "gene"])["padj_without"]
    removals = exhausted.removals.set_index(["cell", "gene"]).loc[axis.index]
    still = axis <= judged.settings.fdr
    state = removals[keys.OBS_T_STATE]
    assert (state[~still] != "exhausted").all()
    assert state[still].isin(["exhausted", "both"]).all()
    assert (~still).any()
    assert still.mean() > 0.8


def test_stability_counts_the_removals(exhausted: Explanation) -> None:
    for row in exhausted.stability.itertuples():
        own = exhausted.removals[exhausted.removals["cell"] == row.cell]
        assert row.n_removals == len(own)
        assert row.n_kept == own["kept"].sum()
        assert row.depends_on.split() == own.loc[~own["kept"], "gene"].tolist()


def test_the_planted_exhaustion_rests_on_its_own_genes(exhausted: Explanation) -> None:
    lost = ~exhausted.removals["t_state"].isin(["exhausted", "both"])
    worst = lost.groupby(exhausted.removals["gene"]).mean().nlargest(3)
    voting = {g.symbol for g in sn.read_signatures()[EXHAUSTION].voting()}
    assert set(worst.index) <= voting
    mean = exhausted.genes[exhausted.genes["signature"] == EXHAUSTION]
    strongest = mean.sort_values("z_contribution", ascending=False)["gene"].head(6)
    assert {"PDCD1", "LAG3", "TOX", "CXCL13", "ENTPD1"} & set(strongest)


# -------------------------------------------------------------------------------------------------
# what one can ask, and mistakes


def test_in_memory_as_from_files(cohort: Path) -> None:
    adata = ad.read_h5ad(cohort / "cohort.h5ad")
    sn.pp.lineages(adata)
    sn.tl.score(adata)
    sn.tl.call(adata)
    before = adata.copy()
    found = sn.tl.explain(adata, state="exhausted", signature=EXHAUSTION, max_cells=5)
    assert set(found.contributions["signature"]) == {EXHAUSTION}
    for row in found.scores.itertuples():
        assert row.score == pytest.approx(adata.obsm[keys.OBSM_SCORE].loc[row.cell, EXHAUSTION])
        assert row.z == pytest.approx(adata.obsm[keys.OBSM_Z].loc[row.cell, EXHAUSTION])
    sums = found.contributions.groupby("cell")["contribution"].sum()
    scores = found.scores.set_index("cell")["score"].loc[sums.index]
    np.testing.assert_allclose(sums, scores, atol=1e-9)
    pd.testing.assert_frame_equal(before.obs, adata.obs)
    donors = sn.tl.explain(adata, donor=str(adata.obs["donor_id"].iloc[0]), max_cells=5)
    assert donors.groups["group"].str.startswith("T ").any()
    assert (donors.groups["n_explained"] <= 5).all()
    adata.X.data[:2000] += 3
    with pytest.raises(InputDataError, match="changed since"):
        sn.tl.explain(adata, state="exhausted")


def test_observations_without_lineages_have_scores_and_no_calls(cohort: Path) -> None:
    adata = ad.read_h5ad(cohort / "cohort.h5ad")[:300].copy()
    sn.tl.score(adata, ["core_senescence"], groupby=None)
    found = sn.tl.explain(adata, cells=list(adata.obs_names[:2]))
    assert set(found.scores["signature"]) == {"core_senescence"}
    assert found.removals.empty
    assert found.stability.empty
    assert found.genes["frac_call_lost"].isna().all()
    assert "cell " in found.describe()
    assert len(found.to_frame()) == len(found.contributions)


def test_the_sample_of_a_state_does_not_depend_on_order(judged: Judged) -> None:
    rows = np.arange(100)
    names = judged.names[rows]
    chosen = set(names[explain.thin_out(rows, names, 10)])
    flipped = names[::-1]
    assert set(flipped[explain.thin_out(rows, flipped, 10)]) == chosen
    assert len(chosen) == 10


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"cells": "nobody"}, "there is no cell named 'nobody'"),
        ({}, "0 of cells, state and donor were given"),
        ({"state": "exhausted", "donor": "D01"}, "2 of cells, state and donor were given"),
        ({"state": "tired"}, "'tired' is no state of T cells; there are exhausted"),
        ({"state": "senescent", "lineage": "Q"}, "'Q' is no lineage"),
        ({"donor": "nobody"}, "donor 'nobody' has no scored cells here; there are D01"),
    ],
)
def test_mistakes_say_what_there_is(judged: Judged, asked: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputDataError, match=sentence):
        explain.choose_cells(judged, **asked)  # type: ignore[arg-type]


def test_a_signature_of_other_lineages_is_refused(cohort: Path) -> None:
    folder = cohort / "results"
    with pytest.raises(InputDataError, match="not scored in these cells; it is in NK"):
        sn.tl.explain(folder, state="exhausted", signature="nk_senescence")
    with pytest.raises(SignatureError, match="did you mean 't_axis_exhaustion'"):
        sn.tl.explain(folder, state="exhausted", signature="t_axis_exhaustio")


def test_scores_without_their_run_are_refused(cohort: Path, tmp_path: Path) -> None:
    scores = ad.read_h5ad(cohort / "results" / "senoscore.h5ad")
    with pytest.raises(InputDataError, match="it holds scores, not expression"):
        sn.tl.explain(scores, state="exhausted")
    with pytest.raises(InputDataError, match=r"senoscore\.h5ad is not there"):
        sn.tl.explain(tmp_path, state="exhausted")


def test_another_file_is_noticed(cohort: Path, tmp_path: Path) -> None:
    adata = ad.read_h5ad(cohort / "cohort.h5ad")
    adata[:-1].write_h5ad(tmp_path / "fewer.h5ad")
    with pytest.raises(InputDataError, match="has other cells than the run"):
        sn.tl.explain(cohort / "results", state="exhausted", source=tmp_path / "fewer.h5ad")
    shuffled = adata.copy()
    shuffled.X = sparse.csr_matrix(adata.X)[::-1]
    shuffled.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(InputDataError, match="has another score now than in the run"):
        sn.tl.explain(cohort / "results", state="exhausted", source=tmp_path / "other.h5ad")


def test_on_the_command_line(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = pd.read_csv(cohort / "results" / "t_cells_exhausted.tsv", sep="\t")["cell"].iloc[0]
    table, picture = tmp_path / "cell.tsv", tmp_path / "cell.png"
    words = ["explain", str(cohort / "results"), "--cell", cell, "--signature", EXHAUSTION]
    assert main([*words, "--tsv", str(table), "--png", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"cell {cell}: T, exhausted")
    assert "removals of one gene" in out
    written = pd.read_csv(table, sep="\t")
    assert set(written["cell"]) == {cell}
    assert {"contribution", "call_kept", "t_state_without"} <= set(written)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["explain", str(cohort / "results"), "--cell", "nobody"]) == 2
    assert "there is no cell named 'nobody'" in capsys.readouterr().err


def test_the_picture_shows_the_largest_contributions(exhausted: Explanation) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ax = sn.pl.explain(exhausted, EXHAUSTION, max_genes=5)
    own = exhausted.genes[exhausted.genes["signature"] == EXHAUSTION]
    largest = own.sort_values("z_contribution", key=abs, ascending=False).head(5)
    assert [t.get_text() for t in ax.get_yticklabels()][:5] == largest["gene"].tolist()
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths[:5], largest["z_contribution"])
    assert sum(widths) == pytest.approx(own["z_contribution"].sum())
    plt.close(ax.figure)
    with pytest.raises(InputDataError, match="is not in this explanation"):
        sn.pl.explain(exhausted, "no_such_set")
