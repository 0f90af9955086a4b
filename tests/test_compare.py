"""Comparisons of donors: what is estimated, how often it errs, and what is refused."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

import senoscore as sn
from senoscore import compare, design, keys
from senoscore.errors import InputDataError, SenoscoreWarning

SUBSETS = ("CD4", "CD8", "Treg")
MEASURES = ["per_cell", "composition", "mean"]


def cohort(
    n_donors: int = 12,
    *,
    seed: int = 0,
    n_signatures: int = 30,
    shift: float = 0.0,
    more_cd8: float = 0.0,
    cells: float = 120,
    between: float = 0.25,
    paired: bool = False,
) -> ad.AnnData:
    """T cells of donors that differ: each signature has a level per subset, donor and donor × subset.

    `shift` is added to every cell of the diseased; `more_cd8` to the log odds of their CD8 cells.
    Within donors the scores are skewed (gamma), numbers of cells are lognormal.
    """
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 0.8, (len(SUBSETS), n_signatures))
    frames, scores = [], []
    for donor in range(n_donors):
        own = rng.normal(0, between, n_signatures)
        mix = np.log([0.5, 0.4, 0.1]) + rng.normal(0, 0.35, 3)
        conditions = ("disease", "healthy") if paired else (("disease", "healthy")[donor % 2],)
        for condition in conditions:
            sick = condition == "disease"
            odds = mix + np.asarray([0, more_cd8 * sick, 0])
            if paired:
                odds = odds + rng.normal(0, 0.15, 3)
            n = max(20, int(rng.lognormal(np.log(cells), 0.8)))
            subset = rng.choice(3, n, p=np.exp(odds) / np.exp(odds).sum())
            here = own + rng.normal(0, 0.1, (len(SUBSETS), n_signatures)) + level + shift * sick
            if paired:
                here = here + rng.normal(0, 0.15, n_signatures)
            scores.append(here[subset] + rng.gamma(2, 1, (n, n_signatures)) / np.sqrt(2))
            frames.append(
                pd.DataFrame(
                    {
                        "donor_id": f"D{donor:02d}",
                        "condition": condition,
                        "age": 30 + 4 * (donor // 2) + (donor % 2),
                        "sex": ("f", "m")[(donor // 2) % 2],
                        "t_subset": np.asarray(SUBSETS, dtype=object)[subset],
                    },
                    index=[f"{donor}-{condition}-{i}" for i in range(n)],
                )
            )
    obs = pd.concat(frames)
    obs["lineage"] = pd.Categorical(["T"] * len(obs), categories=list(keys.LINEAGES))
    obs["qc_pass"] = True
    obs["total_counts"] = 3000.0
    x = np.vstack(scores)
    made = ad.AnnData(
        x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"s{k}" for k in range(x.shape[1])])
    )
    made.uns["senoscore"] = {"facts": '{"donor": {"value": "donor_id"}}'}
    return made


def rows(table: pd.DataFrame, measure: str, **values: str) -> pd.DataFrame:
    found = table[table["measure"] == measure]
    for column, value in values.items():
        found = found[found[column] == value]
    return found


# --------------------------------------------------------------------------------------------
# what is estimated


def naive_shifts(
    frame: pd.DataFrame, weights: dict[str, float]
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Per-cell mean, composition and mean of each donor, where every donor has every subset."""
    means = frame.groupby(["donor", "subset"])["z"].mean().unstack()
    shares = frame.groupby("donor")["subset"].value_counts(normalize=True).unstack().fillna(0)
    level = means.mean(axis=0)
    per_cell = (means * pd.Series(weights)).sum(axis=1)
    composition = (shares * (level - level.mean())).sum(axis=1)
    return per_cell.to_dict(), composition.to_dict(), frame.groupby("donor")["z"].mean().to_dict()


def test_shifts_are_standardised_means_as_pandas_makes_them() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    donor, subset = rng.integers(0, 6, n), rng.integers(0, 3, n)
    z = rng.normal(size=n) + donor * 0.3 + subset
    counts = np.bincount(donor * 3 + subset, minlength=18).reshape(6, 3)
    weights = compare.subset_weights(counts, np.full(6, "", dtype=object))
    np.testing.assert_allclose(weights, (counts / counts.sum(1, keepdims=True)).mean(0))
    found = compare.shifts(z, donor, subset, n_units=6, n_subsets=3, weights=weights, min_cells=10)
    frame = pd.DataFrame({"donor": donor, "subset": subset, "z": z})
    per_cell, composition, mean = naive_shifts(frame, dict(enumerate(weights)))
    np.testing.assert_allclose(found.per_cell.y, list(per_cell.values()), atol=1e-6)
    assert found.composition is not None
    np.testing.assert_allclose(found.composition.y, list(composition.values()), atol=1e-6)
    np.testing.assert_allclose(found.mean.y, list(mean.values()), atol=1e-6)
    assert found.mean.n.tolist() == np.bincount(donor).tolist()


def test_sampling_variances_are_those_of_resampled_cells() -> None:
    """Cells drawn again and again from the same donors vary as the sampling variance says."""
    rng = np.random.default_rng(1)
    probability = np.asarray([0.6, 0.3, 0.1])
    weights = np.asarray([0.5, 0.3, 0.2])
    drawn: dict[str, list[NDArray[np.float64]]] = {m: [] for m in MEASURES}
    said: dict[str, list[NDArray[np.float64]]] = {m: [] for m in MEASURES}
    unit = np.repeat(np.arange(4), 150)
    for _ in range(600):
        subset = rng.choice(3, 600, p=probability)
        z = rng.normal(size=600) * np.asarray([1, 0.5, 2])[subset] + np.asarray([0, 2, -1])[subset]
        found = compare.shifts(
            z, unit, subset, n_units=4, n_subsets=3, weights=weights, min_cells=10
        )
        for name, data in zip(MEASURES, found, strict=True):
            drawn[name].append(data.y)
            said[name].append(data.sampling)
    for name in ("per_cell", "composition"):
        # levels are estimated from the same four donors, which ties their values together
        observed = np.mean(np.var([y - y.mean() for y in drawn[name]], axis=0)) * 4 / 3
        assert np.mean(said[name]) == pytest.approx(observed, rel=0.15), name
    # of the plain mean, that of the shares counts as well
    within = np.mean(said["mean"]) + np.mean(said["composition"])
    assert within == pytest.approx(np.mean(np.var(drawn["mean"], axis=0)), rel=0.15)


def test_levels_are_least_squares_also_where_donors_lack_subsets() -> None:
    rng = np.random.default_rng(2)
    means = rng.normal(size=(7, 4)) + rng.normal(size=(7, 1)) * 3
    known = rng.random((7, 4)) < 0.6
    known[0] = True
    levels = compare.additive_levels(means, known)
    at_unit, at_subset = np.nonzero(known)
    dummies = np.column_stack(
        [at_unit[:, None] == np.arange(7), at_subset[:, None] == np.arange(4)]
    ).astype(float)
    beta = np.linalg.lstsq(dummies, means[known], rcond=None)[0][7:]
    np.testing.assert_allclose(levels, beta - beta.mean(), atol=1e-9)
    full = compare.additive_levels(means, np.ones((7, 4), bool))
    np.testing.assert_allclose(full, means.mean(0) - means.mean(), atol=1e-9)


def test_a_subset_that_no_donor_shares_with_the_rest_has_no_level() -> None:
    known = np.asarray([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)
    levels = compare.additive_levels(np.arange(9.0).reshape(3, 3), known)
    assert np.isnan(levels[2])
    assert np.isfinite(levels[:2]).all()
    assert np.isnan(compare.additive_levels(np.zeros((2, 2)), np.zeros((2, 2), bool))).all()


def test_a_donor_without_a_rare_subset_is_not_shifted_by_it() -> None:
    """Dropping the missing subset's weight alone would move the donor by the subset's level."""
    rng = np.random.default_rng(3)
    unit, subset = np.repeat(np.arange(8), 200), np.tile(np.repeat([0, 1], [150, 50]), 8)
    z = rng.normal(size=1600) * 0.1 + 5.0 * subset
    kept = ~((unit < 4) & (subset == 1))
    weights = np.asarray([0.75, 0.25])
    found = compare.shifts(
        z[kept], unit[kept], subset[kept], n_units=8, n_subsets=2, weights=weights, min_cells=10
    )
    assert np.ptp(found.per_cell.y) < 0.1
    # and the plain mean does move
    assert np.ptp(found.mean.y) > 1


def test_shift_per_cell_and_composition_are_told_apart() -> None:
    level_only = sn.tl.compare(cohort(16, seed=4, shift=0.5), condition="condition")
    per_cell = rows(level_only, "per_cell")["effect"]
    assert per_cell.mean() == pytest.approx(0.5, abs=0.1)
    assert rows(level_only, "composition")["effect"].abs().mean() < 0.1

    mix_only = sn.tl.compare(cohort(16, seed=4, more_cd8=1.2), condition="condition")
    assert rows(mix_only, "per_cell")["effect"].mean() == pytest.approx(0, abs=0.1)
    moved = rows(mix_only, "composition")
    assert (moved["pvalue"] < 0.05).mean() > 0.7
    # the plain mean does not know which of the two it is
    assert np.corrcoef(rows(mix_only, "mean")["effect"], moved["effect"])[0, 1] > 0.7
    subset = rows(mix_only, "fraction_subset", name="CD8").iloc[0]
    assert subset["effect_low"] < 1.2 / np.log(2) * 1.0 < subset["effect_high"] + 0.5
    assert subset["pvalue"] < 0.01
    assert subset["unit"] == "log2 odds ratio"
    assert subset["value"] > subset["value_reference"]


def test_row_numbers_fit_each_other() -> None:
    table = sn.tl.compare(cohort(10, seed=5, shift=0.4), condition="condition", confidence=0.9)
    assert tuple(table.columns) == compare.COLUMNS
    tested = table[table["pvalue"].notna()]
    assert len(tested) > 90
    assert (tested["effect_low"] < tested["effect"]).all()
    assert (tested["effect"] < tested["effect_high"]).all()
    half = tested["se"] * stats.t.ppf(0.95, tested["df"].to_numpy(float))
    np.testing.assert_allclose(tested["effect_high"] - tested["effect"], half, rtol=1e-6)
    inside = (tested["effect_low"] < 0) & (tested["effect_high"] > 0)
    assert (inside == (tested["pvalue"] > 0.1)).all()
    plain = rows(table, "mean")
    np.testing.assert_allclose(
        plain["effect"], plain["value"] - plain["value_reference"], atol=0.35
    )
    assert (table["reference"] == "healthy").all()
    assert (table[["n_donors", "n_donors_reference"]] == 5).all(axis=None)
    for _, family in table.groupby(["term", "level", "measure"]):
        expected = stats.false_discovery_control(family["pvalue"].dropna())
        np.testing.assert_allclose(family["padj"].dropna(), expected)


def test_order_of_cells_and_names_of_donors_do_not_matter() -> None:
    made = cohort(10, seed=6, n_signatures=4)
    one = sn.tl.compare(made, condition="condition", covariates=["sex"])
    order = np.random.default_rng(0).permutation(made.n_obs)
    shuffled = made[order].copy()
    shuffled.obs["donor_id"] = pd.Categorical(
        [f"x{9 - int(d[1:])}" for d in shuffled.obs["donor_id"]]
    )
    two = sn.tl.compare(shuffled, condition="condition", covariates=["sex"])
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)


def test_nothing_is_written_to_what_was_given() -> None:
    made = cohort(8, n_signatures=2)
    before = made.copy()
    sn.tl.compare(made, condition="condition", age="age")
    pd.testing.assert_frame_equal(made.obs, before.obs)
    assert set(made.uns) == set(before.uns)


def called(made: ad.AnnData, rate: dict[str, float], *, seed: int = 0) -> ad.AnnData:
    """Call cells senescent at a rate per condition, donors differing."""
    rng = np.random.default_rng(seed)
    donors = sorted(set(made.obs["donor_id"]))
    own = dict(zip(donors, rng.normal(0, 0.3, len(donors)), strict=True))
    odds = [
        np.log(rate[c] / (1 - rate[c])) + own[d]
        for c, d in zip(made.obs["condition"], made.obs["donor_id"], strict=True)
    ]
    hit = rng.random(made.n_obs) < 1 / (1 + np.exp(-np.asarray(odds)))
    made.obs["senescence_call"] = pd.Categorical(
        np.where(hit, "senescent", "not_senescent"), categories=list(keys.SENESCENCE_CALLS)
    )
    made.obs["t_state"] = pd.Categorical(
        np.where(hit, "senescent", "neither"), categories=list(keys.T_STATES)
    )
    return made


def test_share_called_is_an_odds_ratio_with_the_shares_beside_it() -> None:
    made = called(cohort(16, seed=7, n_signatures=1, cells=400), {"healthy": 0.05, "disease": 0.2})
    row = rows(
        sn.tl.compare(made, condition="condition"), "fraction_called", name="senescent"
    ).iloc[0]
    truth = np.log2(0.2 / 0.8) - np.log2(0.05 / 0.95)
    assert row["effect_low"] < truth < row["effect_high"]
    assert row["pvalue"] < 1e-3
    assert row["value_reference"] == pytest.approx(0.055, abs=0.02)
    assert row["value"] == pytest.approx(0.2, abs=0.05)
    # nobody is exhausted: no number, but the reason
    none = rows(
        sn.tl.compare(made, condition="condition"), "fraction_called", name="exhausted"
    ).iloc[0]
    assert np.isnan(none["effect"])
    assert "0.0 cells called to be expected" in none["note"]


# --------------------------------------------------------------------------------------------
# how often it errs


@pytest.fixture(scope="module")
def null_tables() -> list[tuple[ad.AnnData, pd.DataFrame]]:
    return [
        (made, sn.tl.compare(made, condition="condition"))
        for made in (cohort(12, seed=100 + k, n_signatures=40) for k in range(60))
    ]


@pytest.mark.parametrize("measure", MEASURES)
def test_false_positive_rate_is_nominal_where_donors_differ(
    null_tables: list[tuple[ad.AnnData, pd.DataFrame]], measure: str
) -> None:
    found = pd.concat([rows(table, measure) for _, table in null_tables])
    assert found["pvalue"].notna().all()
    if measure == "composition":
        # one mix of subsets per data set: its 40 signatures are not independent
        found = found.groupby(np.arange(len(found)) // 40).first()
        assert 0.0 <= (found["pvalue"] < 0.05).mean() <= 0.12
    else:
        assert len(found) == 2400
        assert 0.03 <= (found["pvalue"] < 0.05).mean() <= 0.07


def test_cells_as_replicates_would_call_most_of_these_differences_real(
    null_tables: list[tuple[ad.AnnData, pd.DataFrame]],
) -> None:
    """The same data, Wilcoxon over cells: the reason why this module exists."""
    p = []
    for made, _ in null_tables[:4]:
        sick = (made.obs["condition"] == "disease").to_numpy()
        p.append(stats.mannwhitneyu(made.X[sick], made.X[~sick], axis=0).pvalue)
    assert np.mean(np.concatenate(p) < 0.05) > 0.4


def test_planted_shift_is_found_and_covered() -> None:
    covered, effects, positive = [], [], []
    for k in range(25):
        table = sn.tl.compare(
            cohort(12, seed=300 + k, n_signatures=40, shift=0.4, more_cd8=0.8),
            condition="condition",
        )
        found = rows(table, "per_cell")
        covered.append((found["effect_low"] <= 0.4) & (found["effect_high"] >= 0.4))
        effects.append(found["effect"])
        positive.append(found["pvalue"] < 0.05)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(effects) == pytest.approx(0.4, abs=0.02)
    assert np.mean(positive) > 0.5


def test_pairs_keep_their_level_and_gain_power() -> None:
    rate, power, power_unpaired = [], [], []
    for k in range(12):
        null = sn.tl.compare(
            cohort(6, seed=500 + k, n_signatures=40, paired=True), condition="condition"
        )
        assert (null["design"] == "paired").all()
        assert (null["n_donors"] == 6).all()
        rate.append(rows(null, "per_cell")["pvalue"] < 0.05)
        made = cohort(6, seed=600 + k, n_signatures=40, paired=True, shift=0.5)
        power.append(rows(sn.tl.compare(made, condition="condition"), "per_cell")["pvalue"] < 0.05)
        # the same samples as if of twelve people
        made.obs["donor_id"] = made.obs["donor_id"].astype(str) + made.obs["condition"].astype(str)
        unpaired = sn.tl.compare(made, condition="condition")
        assert (unpaired["design"] == "between donors").all()
        power_unpaired.append(rows(unpaired, "per_cell")["pvalue"] < 0.05)
    assert 0.025 <= np.mean(rate) <= 0.075
    assert np.mean(power) > np.mean(power_unpaired) + 0.15


def test_age_slope_is_per_ten_years_and_covered() -> None:
    covered = []
    for k in range(15):
        made = cohort(14, seed=700 + k, n_signatures=20)
        made.X += 0.02 * made.obs["age"].to_numpy()[:, None].astype(np.float32)
        made.obs["stage"] = [f"{a}-year-old stage" for a in made.obs["age"]]
        table = sn.tl.compare(made, age="stage", covariates=["condition"])
        found = rows(table, "per_cell")
        assert (found["level"] == "per 10 years").all()
        assert (found["unit"] == "z per 10 years").all()
        assert (rows(table, "mean")["n_donors"] == 14).all()
        covered.append((found["effect_low"] <= 0.2) & (found["effect_high"] >= 0.2))
    assert 0.9 <= np.mean(covered) <= 0.99


REAL = {
    "sadefeldman_melanoma_cd8_dev": "patient",
    "screp_ards_tcells500": "orig.ident",
    "kang2018_lupus_pbmc8684": "sample_id",
}


@pytest.fixture(scope="module")
def real_cells(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ad.AnnData]:
    """T cells of real donors from three laboratories, scored."""
    import warnings

    found = {}
    for name, donor in REAL.items():
        adata = ad.read_h5ad(data / f"{name}.h5ad")
        if name.startswith("kang"):
            adata = adata[(adata.obs["cluster_id"] == "CD4 T cells").to_numpy()][::3].copy()
        folder = tmp_path_factory.mktemp("real")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SenoscoreWarning)
            scored = sn.analyse(adata, out=folder)
        shutil.rmtree(folder)
        scored.obs["who"] = scored.obs[donor].astype(str)
        found[name] = scored[(scored.obs["lineage"] == "T").to_numpy()].copy()
    return found


def test_false_positive_rate_on_real_donors_with_shuffled_labels(
    real_cells: dict[str, ad.AnnData],
) -> None:
    """Real cells, real donors, labels drawn within each laboratory: nothing is there to be found.

    Signatures are correlated, so that 80 draws still leave the rate of one seed between .048 and .072.
    """
    rng = np.random.default_rng(0)
    found: dict[str, list[NDArray[np.float64]]] = {m: [] for m in compare.MEASURES}
    for _ in range(240):
        for made in real_cells.values():
            donors = sorted(set(made.obs["who"]))
            label = rng.permutation(np.arange(len(donors)) % 2).astype(str)
            made.obs["label"] = made.obs["who"].map(dict(zip(donors, label, strict=True)))
        table = sn.tl.compare(real_cells, condition="label", donor_key="who")
        assert (
            rows(table, "mean")["n_donors"] + rows(table, "mean")["n_donors_reference"]
        ).max() > 20
        for measure, p in found.items():
            p.append(rows(table, measure)["pvalue"].dropna().to_numpy())
    rate = {m: float(np.mean(np.concatenate(p) < 0.05)) for m, p in found.items()}
    assert len(np.concatenate(found["mean"])) > 6000
    assert 0.03 <= rate["per_cell"] <= 0.07, rate
    assert 0.03 <= rate["mean"] <= 0.07, rate
    assert rate["composition"] <= 0.07, rate
    # one data set has no cell of most calls and subsets: that must not look like evidence
    assert rate["fraction_called"] <= 0.07, rate
    assert rate["fraction_subset"] <= 0.07, rate


def test_cells_as_replicates_fail_on_real_donors_too(real_cells: dict[str, ad.AnnData]) -> None:
    rng = np.random.default_rng(1)
    made = real_cells["sadefeldman_melanoma_cd8_dev"]
    donors = sorted(set(made.obs["who"]))
    p = []
    for _ in range(40):
        sick = made.obs["who"].isin(rng.permutation(donors)[: len(donors) // 2]).to_numpy()
        x = made.X[:, np.isfinite(made.X).all(axis=0)]
        p.append(stats.mannwhitneyu(x[sick], x[~sick], axis=0).pvalue)
    assert np.mean(np.concatenate(p) < 0.05) > 0.2


# --------------------------------------------------------------------------------------------
# designs


def small(**options: Any) -> ad.AnnData:
    return cohort(options.pop("n_donors", 10), n_signatures=2, cells=60, **options)


@pytest.mark.parametrize("n_donors", [2, 4, 5])
def test_fewer_than_three_donors_a_group_are_refused(n_donors: int) -> None:
    with pytest.raises(InputDataError, match=r"2 donors in|1 donor in") as error:
        sn.tl.compare(small(n_donors=n_donors), condition="condition")
    assert "3 needed" in str(error.value)
    assert "not independent" in str(error.value)


def test_three_donors_a_group_are_enough() -> None:
    table = sn.tl.compare(small(n_donors=6), condition="condition")
    assert rows(table, "mean")["pvalue"].notna().all()
    with pytest.raises(InputDataError, match="fewer than 3 donors"):
        sn.tl.compare(small(n_donors=6), condition="condition", min_donors=2)


def test_condition_that_is_the_batch_is_refused_whether_named_or_not() -> None:
    made = small()
    made.obs["batch"] = np.where(made.obs["condition"] == "disease", 2, 1)
    with pytest.raises(InputDataError, match="coincides with 'batch'") as error:
        sn.tl.compare(made, condition="condition")
    assert "batch_keys=()" in str(error.value)
    with pytest.raises(InputDataError, match="coincides with 'batch'"):
        sn.tl.compare(made, condition="condition", covariates=["C(batch)"])
    assert sn.tl.compare(made, condition="condition", batch_keys=())["pvalue"].notna().any()
    made.obs["run_by"] = made.obs["batch"]
    with pytest.raises(InputDataError, match="coincides with 'run_by'"):
        sn.tl.compare(made, condition="condition", batch_keys=["run_by"])


def test_one_group_in_a_batch_of_its_own_is_refused() -> None:
    made = small()
    sick = (made.obs["condition"] == "disease").to_numpy()
    made.obs["library_batch"] = np.where(sick, "z", made.obs["donor_id"].astype(str))
    with pytest.raises(InputDataError, match="coincides with 'library_batch'"):
        sn.tl.compare(made, condition="condition")


def test_a_batch_per_donor_or_shared_by_conditions_is_no_reason_to_refuse() -> None:
    made = small()
    made.obs["batch"] = made.obs["donor_id"]
    made.obs["assay"] = np.where(made.obs["donor_id"].isin(["D00", "D01", "D02"]), "v2", "v3")
    table = sn.tl.compare(made, condition="condition")
    assert rows(table, "mean")["pvalue"].notna().all()
    adjusted = sn.tl.compare(made, condition="condition", covariates=["assay"])
    assert (adjusted["model"] == "condition + assay").all()
    assert not np.allclose(rows(adjusted, "mean")["effect"], rows(table, "mean")["effect"])


def test_batches_within_conditions_are_said() -> None:
    made = small(n_donors=12)
    number = made.obs["donor_id"].str[1:].astype(int)
    made.obs["batch"] = [
        f"{c}{(d // 2) % 3}" for c, d in zip(made.obs["condition"], number, strict=True)
    ]
    table = sn.tl.compare(made, condition="condition")
    assert table["note"].str.contains("no 'batch' holds both disease and healthy").all()


def test_covariates_that_say_all_the_condition_says_are_refused_together() -> None:
    made = small(n_donors=12)
    number = made.obs["donor_id"].str[1:].astype(int)
    made.obs["a"] = ((number % 2) + (number // 2) % 2) % 2
    made.obs["b"] = (number // 2) % 2
    made.obs["both"] = made.obs["a"] - made.obs["b"]
    made.obs["x"] = (number % 2) * 3.0 + made.obs["age"] * 0
    with pytest.raises(InputDataError, match="'condition' coincides with 'x'"):
        sn.tl.compare(made, condition="condition", covariates=["x"])
    made.obs["y"] = (number % 2) + made.obs["age"]
    with pytest.raises(InputDataError, match=r"covariates together \(age, y\)"):
        sn.tl.compare(made, condition="condition", covariates=["age", "y"])


def test_as_many_coefficients_as_donors_are_refused() -> None:
    made = small(n_donors=6)
    number = made.obs["donor_id"].str[1:].astype(int)
    made.obs["site"] = (number // 2).map({0: "p", 1: "q", 2: "r"})
    made.obs["w"] = (number**2).astype(float)
    made.obs["v"] = (number**3).astype(float)
    with pytest.raises(InputDataError, match="none is left to show how donors vary"):
        sn.tl.compare(made, condition="condition", covariates=["site", "w", "v"])


def test_a_covariate_that_differs_within_a_donor_is_refused_if_it_is_a_grouping() -> None:
    made = small()
    made.obs["tissue"] = np.where(np.arange(made.n_obs) % 2, "blood", "lung")
    with pytest.raises(InputDataError, match="'tissue' differs between cells of one donor"):
        sn.tl.compare(made, condition="condition", covariates=["tissue"])
    # numbers of cells are averaged
    made.obs["total_counts"] = np.random.default_rng(0).lognormal(8, 0.5, made.n_obs)
    table = sn.tl.compare(made, condition="condition", covariates=["total_counts"])
    assert rows(table, "mean")["pvalue"].notna().all()


def test_adjusting_for_a_number_removes_what_it_explains() -> None:
    made = cohort(20, seed=9, n_signatures=30, between=0.05)
    number = made.obs["donor_id"].str[1:].astype(int)
    # the diseased are older, and age is all there is
    made.obs["age"] = 30 + (number // 2) * 3 + 12 * (made.obs["condition"] == "disease")
    made.X += 0.03 * made.obs["age"].to_numpy(np.float32)[:, None]
    crude = rows(sn.tl.compare(made, condition="condition"), "per_cell")["effect"].mean()
    adjusted = sn.tl.compare(made, condition="condition", covariates=["age"])
    assert crude == pytest.approx(0.36, abs=0.08)
    assert rows(adjusted, "per_cell")["effect"].mean() == pytest.approx(0, abs=0.06)
    both = sn.tl.compare(made, condition="condition", age="age")
    assert set(both["term"]) == {"condition", "age"}
    np.testing.assert_allclose(
        rows(both, "per_cell", term="condition")["effect"],
        rows(adjusted, "per_cell")["effect"],
        rtol=1e-6,
    )


def test_ages_in_words_are_years_and_unread_ones_are_said() -> None:
    made = small(n_donors=12)
    stage = made.obs["age"].map(lambda a: f"{a} year-old human stage")
    stage[made.obs["donor_id"] == "D03"] = "adult stage"
    made.obs["development_stage"] = pd.Categorical(stage)
    with pytest.warns(SenoscoreWarning, match="'adult stage'"):
        table = sn.tl.compare(made, age="development_stage")
    assert (rows(table, "mean")["n_donors"] == 11).all()
    assert table["note"].str.contains("ages not read in 'development_stage': 'adult stage'").all()
    numbers = made.copy()
    numbers.obs.loc[numbers.obs["donor_id"] == "D03", "age"] = np.nan
    same = sn.tl.compare(numbers, age="age")
    np.testing.assert_allclose(
        rows(same, "mean")["effect"], rows(table, "mean")["effect"], rtol=1e-6
    )
    made.obs["development_stage"] = "adult stage"
    with (
        pytest.warns(SenoscoreWarning, match="adult stage"),
        pytest.raises(InputDataError, match="no age could be read"),
    ):
        sn.tl.compare(made, age="development_stage")


def test_an_unread_age_is_said_once_however_many_plans_are_tried() -> None:
    made = small(n_donors=12)
    stage = made.obs["age"].astype(str).mask(made.obs["donor_id"] == "D03", "adult stage")
    made.obs["age"] = pd.Categorical(stage)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # too few donors for both terms: tried with the condition, then without
        all_comparisons(made, condition="donor_id", age="age")
    assert [str(w.message) for w in caught] == [
        "ages not read in 'age': 'adult stage'; their donors are left out"
    ]


def test_mice_are_compared_per_year() -> None:
    made = small(n_donors=12)
    made.obs["age_months"] = made.obs["age"] / 2
    table = sn.tl.compare(made, age="age_months")
    assert set(table["level"]) == {"per year"}


def test_a_slope_needs_six_donors_and_two_ages() -> None:
    with pytest.raises(InputDataError, match="5 donors with a known age"):
        sn.tl.compare(small(n_donors=5), age="age")
    made = small()
    made.obs["age"] = 40
    with pytest.raises(InputDataError, match="all donors have the same age"):
        sn.tl.compare(made, age="age")


def test_a_lineage_without_donors_is_a_row_with_the_reason_and_the_others_go_on() -> None:
    made = cohort(8, n_signatures=2, seed=3)
    b = made.obs["donor_id"].isin(["D00", "D01", "D03"]).to_numpy() & (
        np.arange(made.n_obs) % 2 == 0
    )
    made.obs["lineage"] = pd.Categorical(np.where(b, "B", "T"), categories=list(keys.LINEAGES))
    made.obs["lineage_subset"] = "memory"
    table = sn.tl.compare(made, condition="condition")
    reason = table[table["lineage"] == "B"]
    assert reason["measure"].tolist() == ["all"]
    assert "2 donors in healthy, 3 needed" in reason["note"].iloc[0]
    assert reason["effect"].isna().all()
    assert rows(table, "mean", lineage="T")["pvalue"].notna().all()


def test_donors_of_few_cells_are_left_out_and_said() -> None:
    made = small()
    few = made.obs_names[(made.obs["donor_id"] == "D02").to_numpy()][5:]
    made = made[~made.obs_names.isin(few)].copy()
    table = sn.tl.compare(made, condition="condition", min_cells=10)
    assert (rows(table, "mean")["n_donors"] == 4).all()
    assert table["note"].str.contains("1 donor with fewer than 10 cells left out").all()


def test_a_third_condition_of_two_donors_gets_a_reason_and_does_not_stop_the_rest() -> None:
    made = small(n_donors=12)
    made.obs["condition"] = np.where(
        made.obs["donor_id"].isin(["D00", "D02"]), "other", made.obs["condition"]
    )
    table = sn.tl.compare(made, condition="condition")
    other = table[table["level"] == "other"]
    assert (other["measure"] == "all").all()
    assert other["note"].str.contains("2 donors in other, 3 needed").all()
    assert (rows(table, "mean", level="disease")["n_donors"] == 4).all()
    assert rows(table, "mean", level="disease")["pvalue"].notna().all()


def test_paired_donors_need_both_conditions_in_the_lineage() -> None:
    made = cohort(7, n_signatures=2, paired=True, seed=8)
    lost = made.obs["donor_id"].isin(["D00", "D01"]) & (made.obs["condition"] == "disease")
    table = sn.tl.compare(made[~lost.to_numpy()].copy(), condition="condition")
    assert (rows(table, "mean")["n_donors"] == 5).all()
    assert (rows(table, "mean")["n_donors_reference"] == 5).all()
    assert (table["design"] == "paired").all()
    assert (table["model"] == "condition + donor").all()


def test_one_shared_donor_among_many_is_clustered_not_paired() -> None:
    made = cohort(12, n_signatures=2, seed=8)
    made.obs.loc[made.obs["donor_id"] == "D01", "donor_id"] = "D00"
    table = sn.tl.compare(made, condition="condition")
    assert (table["design"] == "clustered by donor").all()
    assert (rows(table, "mean")["n_donors"] == 6).all()
    assert rows(table, "mean")["pvalue"].notna().all()


def test_batch_of_paired_samples_counts_as_well() -> None:
    made = cohort(6, n_signatures=2, paired=True)
    made.obs["lane"] = np.where(made.obs["condition"] == "disease", "L1", "L2")
    with pytest.raises(InputDataError, match="coincides with 'lane'"):
        sn.tl.compare(made, condition="condition")


def test_pairs_absorb_what_does_not_vary_within_donors() -> None:
    made = cohort(8, n_signatures=2, paired=True, seed=1)
    one = sn.tl.compare(made, condition="condition")
    two = sn.tl.compare(made, condition="condition", covariates=["sex", "age"])
    np.testing.assert_allclose(
        one["effect"].to_numpy(float), two["effect"].to_numpy(float), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("levels", "asked", "expected"),
    [
        (["COVID-19", "normal"], None, "normal"),
        (["stim", "ctrl"], None, "ctrl"),
        (["Healthy control", "SLE"], None, "Healthy control"),
        (["A-treated", "Untreated"], None, "Untreated"),
        (["b", "a"], None, "a"),
        (["b", "a"], "b", "b"),
        (["control", "healthy", "asthma"], None, "asthma"),
    ],
)
def test_reference_is_the_one_named_like_a_control(
    levels: list[str], asked: str | None, expected: str
) -> None:
    column = pd.Series(levels, name="c")
    assert design.choose_reference(column, sorted(levels), asked) == expected


def test_reference_of_an_ordered_column_is_its_first_level() -> None:
    column = pd.Series(pd.Categorical(["mild", "severe"], ["severe", "mild"], ordered=True))
    assert design.choose_reference(column, ["mild", "severe"], None) == "severe"
    with pytest.raises(InputDataError, match="reference 'x' is no value"):
        design.choose_reference(column, ["mild", "severe"], "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name what to compare"),
        ({"condition": "disease"}, "obs has no column 'disease'; it has"),
        ({"condition": "condition", "covariates": ["bmi"]}, "obs has no column 'bmi'"),
        ({"condition": "condition", "donor_key": "patient"}, "obs has no column 'patient'"),
        ({"condition": "lineage"}, "has one value only"),
        ({"condition": "nothing"}, "has no value in any cell"),
        ({"condition": "condition", "signatures": "s99"}, "not scored here: s99"),
        ({"condition": "condition", "subset_key": "fine"}, "no column 'fine'"),
        ({"condition": "condition", "reference": "normal"}, "reference 'normal' is no value"),
    ],
)
def test_mistakes_meet_a_sentence(options: dict[str, Any], message: str) -> None:
    made = small()
    made.obs["nothing"] = "unknown"
    with pytest.raises(InputDataError, match=message):
        sn.tl.compare(made, **options)


def test_no_donor_column_is_refused() -> None:
    made = small()
    made.uns["senoscore"]["facts"] = '{"donor": {"value": null}}'
    with pytest.raises(InputDataError, match="no donor column was found"):
        sn.tl.compare(made, condition="condition")
    made.obs["donor_id"] = "pooled"
    with pytest.raises(InputDataError, match="no cell has both a donor"):
        sn.tl.compare(made, condition="condition", donor_key="donor_id")


def test_cells_that_failed_quality_control_do_not_count() -> None:
    made = small()
    bad = np.arange(made.n_obs) % 3 == 0
    made.obs["qc_pass"] = ~bad
    one = sn.tl.compare(made, condition="condition")
    two = sn.tl.compare(made[~bad].copy(), condition="condition")
    pd.testing.assert_frame_equal(one, two)


def test_a_finer_annotation_can_be_held_fixed() -> None:
    """Fewer naive cells in the diseased are a shift within CD4 unless naive cells are a subset."""
    made = cohort(16, n_signatures=1, seed=2, between=0.05)
    rng = np.random.default_rng(0)
    sick = (made.obs["condition"] == "disease").to_numpy()
    naive = rng.random(made.n_obs) < np.where(sick, 0.2, 0.7)
    made.X[naive] -= 2
    made.obs["fine"] = [
        f"{s}{' naive' if n else ''}" for s, n in zip(made.obs["t_subset"], naive, strict=True)
    ]
    coarse = rows(sn.tl.compare(made, condition="condition"), "per_cell").iloc[0]
    fine = rows(sn.tl.compare(made, condition="condition", subset_key="fine"), "per_cell").iloc[0]
    assert coarse["effect"] > 0.7
    assert abs(fine["effect"]) < 0.2


def test_deeper_cells_of_one_condition_are_said() -> None:
    made = small()
    made.obs["total_counts"] = np.where(made.obs["condition"] == "disease", 6000, 2000)
    table = sn.tl.compare(made, condition="condition")
    tested = rows(table, "mean")
    np.testing.assert_allclose(tested["log2_depth_ratio"], np.log2(3), atol=1e-6)
    assert tested["note"].str.contains("disease have 3.0 times the counts of healthy").all()


def test_several_data_sets_are_pooled_with_the_data_set_as_covariate() -> None:
    parts = {"one": cohort(6, seed=1, n_signatures=3), "two": cohort(8, seed=2, n_signatures=3)}
    parts["two"].X += 5
    table = sn.tl.compare(parts, condition="condition")
    found = rows(table, "mean")
    # the same names of donors in two data sets are different people
    assert (found["n_donors"] == 7).all()
    assert (table["model"] == "condition + data_set").all()
    assert found["effect"].abs().max() < 1
    parts["one"].obs["condition"] = "healthy"
    parts["two"].obs["condition"] = "disease"
    with pytest.raises(InputDataError, match="'condition' coincides with 'data_set'"):
        sn.tl.compare(parts, condition="condition")


def test_a_refusal_can_be_written_as_a_table() -> None:
    table = compare.refused("disease", "2 donors in normal, 3 needed")
    assert tuple(table.columns) == compare.COLUMNS
    assert table["note"].tolist() == ["2 donors in normal, 3 needed"]


def all_comparisons(made: ad.AnnData, **options: Any) -> pd.DataFrame:
    given: dict[str, Any] = {
        "donor": made.obs["donor_id"].to_numpy(object),
        "condition": None,
        "age": None,
        "min_cells": 10,
        "confidence": 0.95,
    }
    return compare.comparisons(made.obs, made.to_df(), **{**given, **options})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "no condition or age is known"),
        ({"condition": "condition", "donor": None}, "the file names no donors"),
        ({"condition": "sex", "reference": "x"}, "reference 'x' is no value of 'sex'"),
        ({"condition": "condition", "covariates": ["bmi"]}, "obs has no column 'bmi'"),
        ({"age": "t_subset"}, "no age could be read"),
    ],
)
@pytest.mark.filterwarnings("ignore::senoscore.errors.SenoscoreWarning")
def test_what_a_file_does_not_allow_is_a_row_with_the_reason(
    options: dict[str, Any], reason: str
) -> None:
    table = all_comparisons(small(), **options)
    assert tuple(table.columns) == compare.COLUMNS
    assert len(table) == 1
    assert reason in table["note"].iloc[0]
    assert table["effect"].isna().all()


def test_age_is_adjusted_for_the_condition_where_donors_suffice() -> None:
    made = cohort(14, n_signatures=2)
    table = all_comparisons(made, condition="condition", age="age", covariates=["sex"])
    assert set(table.loc[table["term"] == "condition", "model"]) == {"condition + sex"}
    assert set(table.loc[table["term"] == "age", "model"]) == {"condition + age + sex"}
    # a condition of which no group has three donors does not keep age from being compared
    made.obs["condition"] = made.obs["donor_id"].map(lambda d: d if d < "D10" else "rest")
    alone = all_comparisons(made, condition="condition", age="age")
    assert set(alone.loc[alone["term"] == "age", "model"]) == {"age"}
    assert alone.loc[alone["term"] == "condition", "note"].str.contains("3 needed").all()


def test_a_million_cells_of_two_hundred_donors_take_seconds() -> None:
    import time

    rng = np.random.default_rng(0)
    n = 1_000_000
    donor = rng.integers(0, 200, n)
    obs = pd.DataFrame(
        {
            "donor_id": np.asarray([f"D{i:03d}" for i in range(200)], dtype=object)[donor],
            "condition": np.where(donor % 2, "disease", "healthy"),
            "age": 20 + donor % 61,
            "lineage": pd.Categorical.from_codes(rng.integers(0, 7, n), list(keys.LINEAGES)),
            "t_subset": pd.Categorical.from_codes(rng.integers(0, 4, n), list("abcd")),
            "lineage_subset": pd.Categorical.from_codes(rng.integers(0, 3, n), list("xyz")),
            "qc_pass": True,
            "total_counts": 3000.0,
        }
    )
    z = pd.DataFrame({f"s{k}": rng.standard_normal(n).astype(np.float32) for k in range(12)})
    start = time.process_time()
    plan = design.make_plan(
        obs,
        donor=obs["donor_id"].to_numpy(object),
        keep=np.ones(n, bool),
        condition="condition",
        age="age",
    )
    table = compare.compare_cells(obs, z, plan, min_cells=10, confidence=0.95)
    assert time.process_time() - start < 30  # 2 s on two cores
    assert len(table) == 2 * (7 * 12 * 3 + 4 + 6 * 3)
