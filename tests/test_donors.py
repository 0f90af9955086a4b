"""What each donor carries, against slow and obvious re-derivations."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from senoscore import donors, keys

LINEAGES = ("T", "B", "mono_mac", "DC")


def cells(
    n: int, *, n_donors: int = 7, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Calls, z and donors of made cells: some without lineage, donor, call or score."""
    rng = np.random.default_rng(seed)
    lineage = rng.choice([*LINEAGES, None], n, p=[0.5, 0.2, 0.2, 0.05, 0.05])
    is_t = lineage == "T"
    obs = pd.DataFrame(
        {
            "lineage": pd.Categorical(lineage, categories=list(keys.LINEAGES)),
            "lineage_subset": rng.choice(["x", "y", None], n),
            "t_subset": np.where(is_t, np.tile(["CD4", "CD8", "innate_like"], n)[:n], ""),
            "qc_pass": rng.random(n) < 0.9,
            "senescence_call": pd.Categorical(
                np.where(pd.isna(lineage), None, rng.choice(list(keys.SENESCENCE_CALLS), n)),
                categories=list(keys.SENESCENCE_CALLS),
            ),
            "t_state": pd.Categorical(
                np.where(is_t, rng.choice(list(keys.T_STATES), n), None),
                categories=list(keys.T_STATES),
            ),
        },
        index=[f"c{i}" for i in range(n)],
    )
    names = [*donors.SENESCENCE_OF.values(), "conf_interferon"]
    z = pd.DataFrame(
        rng.standard_normal((n, len(names))).astype(np.float32), index=obs.index, columns=names
    )
    z[rng.random(z.shape) < 0.03] = np.nan
    z["b_senescence"] = np.nan
    names_of = np.asarray([f"donor {i}" for i in range(n_donors)] + [""], dtype=object)
    share = np.append(np.arange(1, n_donors + 1, dtype=float) ** 2, 1.0)
    return obs, z, names_of[rng.choice(n_donors + 1, n, p=share / share.sum())]


def p_of(z: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(stats.norm.sf(z), index=z.index, columns=z.columns)


def naive_row(
    obs: pd.DataFrame, z: pd.DataFrame, lineage: str, min_cells: int, confidence: float
) -> dict[str, float]:
    """One donor × lineage by pandas and statsmodels."""
    good = obs[obs["qc_pass"]]
    row: dict[str, float] = {"n_cells": len(obs), "n_qc_pass": len(good)}
    enough = len(good) >= max(min_cells, 1)
    values = z.loc[good.index, donors.SENESCENCE_OF[lineage]].dropna().astype(float)
    row |= {"mean_z": np.nan, "mean_z_low": np.nan, "mean_z_high": np.nan}
    if enough and len(values):
        row["mean_z"] = values.mean()
        if len(values) > 1:
            low, high = DescrStatsW(values).tconfint_mean(1 - confidence)
            row |= {"mean_z_low": low, "mean_z_high": high}

    def share(prefix: str, hits: int, *, interval: bool) -> None:
        row[f"n_{prefix}"] = hits
        row[f"frac_{prefix}"] = hits / len(good) if enough else np.nan
        if interval:
            low, high = (
                proportion_confint(hits, len(good), 1 - confidence, method="wilson")
                if enough
                else (np.nan, np.nan)
            )
            row[f"frac_{prefix}_low"], row[f"frac_{prefix}_high"] = low, high

    share("senescent", int((good["senescence_call"] == "senescent").sum()), interval=True)
    row["n_indeterminate"] = int((good["senescence_call"] == "indeterminate").sum())
    for state in keys.T_STATES:
        if lineage == "T":
            hits = int((good["t_state"] == state).sum())
            share(f"t_{state}", hits, interval=state in ("exhausted", "senescent"))
    tested = good[good["t_state"].isin(["exhausted", "both"]) & good["t_subset"].ne("innate_like")]
    p = p_of(z).loc[tested.index, donors.SENESCENCE_OF["T"]].dropna()
    name, hits = "frac_exhausted_with_senescence", int((p <= 0.05).sum())
    row |= dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    if len(p) >= max(min_cells, 1):
        limits = proportion_confint(hits, len(p), 1 - confidence, method="wilson")
        for side, value in zip(("", "_low", "_high"), (hits / len(p), *limits), strict=True):
            row[name + side] = max(0.0, (value - 0.05) / 0.95)
    return row


@pytest.mark.parametrize("by", [("lineage",), ("lineage", "lineage_subset")])
@pytest.mark.parametrize(("min_cells", "confidence"), [(10, 0.95), (1, 0.8), (0, 0.95)])
def test_burden_table_is_what_pandas_and_statsmodels_say(
    by: tuple[str, ...], min_cells: int, confidence: float
) -> None:
    obs, z, donor = cells(1500, seed=1)
    table = donors.burden_table(
        obs, z, p_of(z), donor=donor, by=by, min_cells=min_cells, confidence=confidence
    )
    frame = obs.assign(donor=donor, **{b: obs[b].astype(object) for b in by})
    frame = frame[frame["lineage"].notna() & (frame["donor"] != "")]
    groups = dict(list(frame.groupby(["donor", *by], dropna=False, sort=True)))
    assert len(table) == len(groups)
    few = table["n_qc_pass"] < max(min_cells, 1)
    assert (table["note"].ne("") == few).all()
    for row, (key, group) in zip(table.to_dict("records"), groups.items(), strict=True):
        found = [row["donor"], *(row[b] for b in by)]
        assert [x if isinstance(x, str) else "" for x in found] == [
            x if isinstance(x, str) else "" for x in key
        ]
        expected = naive_row(group, z, str(row["lineage"]), min_cells, confidence)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, abs=3e-7, nan_ok=True), (key, name)
        if row["lineage"] != "T":
            assert all(np.isnan(row[f"n_t_{s}"]) for s in keys.T_STATES)


@pytest.mark.parametrize("truth", [0.0, 0.1, 0.6])
def test_the_share_that_carries_a_programme_is_found_without_calling_a_cell(truth: float) -> None:
    rng = np.random.default_rng(7)
    p = rng.random((2000, 300))
    p[rng.random(p.shape) < truth] *= 1e-3  # carriers
    share, low, high = donors.carrying_share((p <= donors.CHANCE).sum(axis=1), 300, 0.95)
    # cut at 0: without carriers the mean lies above the truth
    assert np.mean(share) == pytest.approx(truth, abs=0.002 if truth else 0.01)
    assert 0.93 < np.mean((low <= truth) & (truth <= high)) <= 1
    # carriers that few counts hide are missed, never made up
    weak = np.where(p < 1e-3, rng.random(p.shape) ** 3, p)
    share, *_ = donors.carrying_share((weak <= donors.CHANCE).sum(axis=1), 300, 0.95)
    assert np.mean(share) <= truth + 0.01


def test_a_row_with_few_cells_keeps_its_counts_and_says_so() -> None:
    obs, z, donor = cells(300, seed=2)
    table = donors.burden_table(obs, z, p_of(z), donor=donor, min_cells=20, confidence=0.95)
    few = table[table["n_qc_pass"] < 20]
    assert len(few)
    assert (few["note"] == "fewer than 20 cells passed quality control").all()
    assert few[["mean_z", "frac_senescent", "frac_senescent_low"]].isna().all(axis=None)
    assert few["n_senescent"].notna().all()


def test_no_cells_make_an_empty_table_with_all_columns() -> None:
    obs, z, donor = cells(50)
    nothing = donors.burden_table(
        obs, z, p_of(z), donor=np.full(50, "", dtype=object), min_cells=10, confidence=0.95
    )
    something = donors.burden_table(obs, z, p_of(z), donor=donor, min_cells=10, confidence=0.95)
    assert len(nothing) == 0
    assert list(nothing.columns) == list(something.columns)


def test_order_of_cells_does_not_change_a_bit() -> None:
    obs, z, donor = cells(3000, seed=3)
    order = np.random.default_rng(0).permutation(len(obs))
    options = {"min_cells": 5, "confidence": 0.95}
    one = donors.burden_table(obs, z, p_of(z), donor=donor, **options)
    two = donors.burden_table(
        obs.iloc[order], z.iloc[order], p_of(z).iloc[order], donor=donor[order], **options
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    # plain sums do depend on it
    values = np.float32(np.random.default_rng(1).lognormal(0, 4, 3000)) * np.float32(1.1)
    code = np.zeros(3000, np.int64)
    for one, two in zip(
        donors.moments(code, values, 1), donors.moments(code, values[order], 1), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    assert values.astype(float)[order].cumsum()[-1] != values.astype(float).cumsum()[-1]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.floats(-1e3, 1e3)), max_size=60),
    st.randoms(use_true_random=False),
)
def test_moments_are_those_of_numpy_in_any_order(
    pairs: list[tuple[int, float]], random: object
) -> None:
    codes = np.asarray([c for c, _ in pairs], np.int64)
    values = np.asarray([v for _, v in pairs], np.float64)
    found = donors.moments(codes, values, 4)
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for one, two in zip(found, donors.moments(codes[order], values[order], 4), strict=True):
        np.testing.assert_array_equal(one, two)
    for c in range(4):
        own = values[codes == c]
        count, mean, squares = (each[c] for each in found)
        assert count == len(own)
        assert mean == pytest.approx(own.mean() if len(own) else np.nan, abs=1e-5, nan_ok=True)
        expected = ((own - own.mean()) ** 2).sum() if len(own) else 0
        assert squares == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_moments_of_columns_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=(500, 4)).astype(np.float32)
    values[rng.random((500, 4)) < 0.1] = np.nan
    values[:, 2] = np.nan
    rows = rng.permutation(500)[:300]
    codes = rng.integers(-1, 5, 300)
    some = np.array([3, 2, 0])
    for laid in (values, np.asfortranarray(values)):
        found = donors.moments_of(codes, rows, laid, some, 6)
        for k, column in enumerate(some):
            alone = donors.moments(codes, values[rows, column], 6)
            for one, two in zip(found, alone, strict=True):
                np.testing.assert_array_equal(one[k], two)


def test_moments_of_values_far_from_zero_keep_their_variance() -> None:
    values = 1000 + np.random.default_rng(5).standard_normal(4000)
    codes = np.repeat([0, 1, -1, 2], 1000)
    values[:10] = np.nan
    n, mean, squares = donors.moments(codes, values, 4)
    assert n.tolist() == [990, 1000, 1000, 0]
    assert mean[0] == pytest.approx(values[10:1000].mean(), abs=1e-7)
    assert squares[1] / 999 == pytest.approx(values[1000:2000].var(ddof=1), rel=1e-5)
    assert np.isnan(mean[3])
    assert squares[3] == 0


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 5000), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_interval_is_that_of_statsmodels_and_scipy(
    n: int, data: st.DataObject, confidence: float
) -> None:
    hits = data.draw(st.integers(0, n))
    low, high = donors.proportion_interval(hits, n, confidence)
    expected = proportion_confint(hits, n, 1 - confidence, method="wilson")
    assert (float(low), float(high)) == pytest.approx(expected, abs=1e-12)
    scipys = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert (float(low), float(high)) == pytest.approx((scipys.low, scipys.high), abs=1e-9)
    assert 0 <= low <= hits / n <= high <= 1


def test_interval_of_no_cells_is_unknown() -> None:
    low, high = donors.proportion_interval([0, 0], [0, 5], 0.95)
    assert np.isnan(low[0])
    assert np.isnan(high[0])
    assert low[1] == 0


def test_wilson_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = rng.binomial(60, 0.1, 20000)
    low, high = donors.proportion_interval(hits, np.full(20000, 60), 0.95)
    assert np.mean((low <= 0.1) & (high >= 0.1)) == pytest.approx(0.95, abs=0.02)


def test_donor_names_are_text_and_nobody_is_empty() -> None:
    column = pd.Series(
        ["D1", " D1 ", None, np.nan, "unknown", "Pooled", "NA", "", 7, 7.0, "nan", "n/a"],
        dtype=object,
    )
    assert donors.donor_names(column, 12).tolist() == [
        "D1", "D1", "", "", "", "", "", "", "7", "7", "", "",
    ]  # fmt: skip
    unused = pd.Series(pd.Categorical(["a", None, "b"], categories=["a", "b", "c"]))
    assert donors.donor_names(unused, 3).tolist() == ["a", "", "b"]
    assert donors.donor_names(None, 2).tolist() == [donors.ALL_DONORS] * 2


def test_pooled_table_is_the_group_mean_over_its_null() -> None:
    rng = np.random.default_rng(0)
    n_null, unit = 30, 8.0
    groups = pd.DataFrame(
        {"donor": ["a", "a", "b"], "lineage": ["T", "B", "T"], "subset": ["CD4", "", "CD8"]}
    )
    n_cells = np.asarray([10, 0, 4])
    sums = rng.integers(-50, 400, (3, 2 * (n_null + 1)))
    sums[2, n_null + 1 :] = 5  # a null without spread
    usable = np.asarray([[True, True], [True, True]])
    table = donors.pooled_table(
        groups, sums, n_cells, ["one", "two"], usable, ["T", "B"], n_null=n_null, unit=unit
    )
    assert table[["donor", "signature"]].to_numpy().tolist() == [
        ["a", "one"], ["a", "two"], ["b", "one"], ["b", "two"],
    ]  # fmt: skip
    for row, (g, s) in zip(table.itertuples(), [(0, 0), (0, 1), (2, 0), (2, 1)], strict=True):
        block = sums[g].reshape(2, n_null + 1)[s] / unit / n_cells[g]
        score = block[0] - np.mean(block[1:])
        sd = np.std(block[1:], ddof=1)
        assert row.score == pytest.approx(score)
        if sd == 0:
            assert np.isnan(row.z)
            assert np.isnan(row.pvalue)
        else:
            assert row.z == pytest.approx(score / sd)
            assert row.pvalue == pytest.approx(stats.t.sf(score / sd, n_null - 1))
    usable[0, 1] = False
    fewer = donors.pooled_table(
        groups, sums, n_cells, ["one", "two"], usable, ["T", "B"], n_null=n_null, unit=unit
    )
    assert set(fewer["signature"]) == {"one"}


def test_a_million_cells_of_two_hundred_donors_take_seconds() -> None:
    """No loop over cells, nor over donors: 5 s leaves room for a slow machine (0.6 s on ours)."""
    n = 1_000_000
    rng = np.random.default_rng(0)
    lineage = pd.Categorical.from_codes(
        rng.integers(-1, len(keys.LINEAGES), n), categories=list(keys.LINEAGES)
    )
    obs = pd.DataFrame(
        {
            "lineage": lineage,
            "qc_pass": rng.random(n) < 0.9,
            "senescence_call": pd.Categorical.from_codes(
                rng.integers(0, 3, n), categories=list(keys.SENESCENCE_CALLS)
            ),
            "t_state": pd.Categorical.from_codes(
                rng.integers(-1, 7, n), categories=list(keys.T_STATES)
            ),
            "t_subset": "CD8",
        }
    )
    values = rng.standard_normal(n).astype(np.float32)
    z = pd.DataFrame(dict.fromkeys(donors.SENESCENCE_OF.values(), values))
    column = pd.Series(
        pd.Categorical.from_codes(rng.integers(0, 200, n), [f"D{i}" for i in range(200)])
    )
    start = time.process_time()
    donor = donors.donor_names(column, n)
    table = donors.burden_table(obs, z, p_of(z), donor=donor, min_cells=10, confidence=0.95)
    assert time.process_time() - start < 5
    assert len(table) == 200 * len(keys.LINEAGES)
