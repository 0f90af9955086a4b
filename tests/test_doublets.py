"""Scrublet as a stage of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from senoscore import calling, pipeline
from senoscore.doublets import scrublet
from senoscore.errors import InputDataError, SenoscoreWarning
from senoscore.inputs import read_input
from senoscore.simulate import simulate

pytest.importorskip("skimage")

pytestmark = pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")


def test_planted_doublets_score_higher_and_samples_are_separate() -> None:
    cohort = simulate(n_cells=1500, n_genes=4000, n_donors=2, seed=2, doublet_fraction=0.1)
    found = scrublet(cohort, read_input(cohort))
    planted = cohort.obs["true_doublet"].to_numpy(bool)
    score = found["doublet_score"]
    assert score[planted].mean() > 1.5 * score[~planted].mean()
    one = cohort[cohort.obs["sample_id"] == cohort.obs["sample_id"].iloc[0]].copy()
    alone = scrublet(one, read_input(one))
    np.testing.assert_allclose(found.loc[one.obs_names, "doublet_score"], alone["doublet_score"])


def test_the_order_of_cells_and_genes_changes_no_score() -> None:
    cohort = simulate(n_cells=700, n_genes=3000, n_donors=2, seed=2, doublet_fraction=0.1)
    rng = np.random.default_rng(0)
    mixed = cohort[rng.permutation(cohort.n_obs), rng.permutation(cohort.n_vars)].copy()
    one, other = scrublet(cohort, read_input(cohort)), scrublet(mixed, read_input(mixed))
    assert one["doublet_score"].nunique() > 20
    pd.testing.assert_frame_equal(other.loc[one.index], one, check_exact=True)


def test_the_stage_runs_only_where_the_settings_ask_for_it(tmp_path: Path) -> None:
    cohort = simulate(n_cells=600, n_genes=3000, n_donors=1, seed=2)
    without = pipeline.analyse(cohort, out=tmp_path / "a")
    assert not (tmp_path / "a/stages/doublets.tsv").exists()
    assert "doublet_score" not in without.obs
    scored = pipeline.analyse(cohort, out=tmp_path / "b", settings={"qc": {"scrublet": True}})
    table = pd.read_csv(tmp_path / "b/stages/doublets.tsv", sep="\t")
    np.testing.assert_allclose(scored.obs["doublet_score"], table["doublet_score"], rtol=1e-6)


def test_what_scrublet_predicts_is_not_called(tmp_path: Path) -> None:
    cohort = simulate(n_cells=2500, n_genes=4000, n_donors=1, seed=2, doublet_fraction=0.1)
    settings = {"qc": {"scrublet": True}}
    scored = pipeline.analyse(cohort, out=tmp_path / "a", settings=settings)
    predicted = scored.obs["predicted_doublet"].to_numpy(bool)
    only = predicted & ~scored.obs["doublet_mixed_lineage"].to_numpy(bool)
    assert only.sum() > 5
    assert set(scored.obs.loc[predicted, "senescence_call"].dropna()) == {"indeterminate"}
    is_t = (scored.obs["lineage"] == "T").to_numpy()
    assert set(scored.obs.loc[predicted & is_t, "t_state"]) == {"indeterminate"}
    passed = scored.obs["qc_pass"].to_numpy(bool)
    assert set(scored.obs.loc[only & is_t & passed, "t_state_rule"]) == {
        "doublet, by mixed lineages or as predicted"
    }
    assert not calling.is_doublet(scored.obs[[]]).any()
    with_gap = pd.DataFrame({"predicted_doublet": pd.Series([True, None, False], dtype=object)})
    assert calling.is_doublet(with_gap).tolist() == [True, False, False]


def test_logged_values_are_refused_and_small_samples_are_said() -> None:
    cohort = simulate(n_cells=600, n_genes=3000, n_donors=1, seed=2)
    cohort.obs["sample_id"] = ["few"] * 20 + ["many"] * 580
    with pytest.warns(SenoscoreWarning, match="fewer than 50 cells: few"):
        found = scrublet(cohort, read_input(cohort))
    assert found["doublet_score"].isna().sum() == 20
    logged = cohort.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(InputDataError, match="needs counts"):
        scrublet(logged, read_input(logged, overrides=None))
