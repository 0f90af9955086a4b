"""Agreement of published sets with ours, against scipy and scikit-learn pair by pair."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, jaccard_score, roc_auc_score

import senoscore as sn
from senoscore import agreement as module
from senoscore import keys, scoring, simulate
from senoscore.agreement import CALL_EXHAUSTED, CALL_SENESCENT, COLUMNS, agreement, auroc, overlap
from senoscore.errors import SignatureError
from senoscore.signatures import read_signatures

SETS = ("senmayo", "tex", "core_senescence", "t_discriminating_senescence_only",
        "t_axis_exhaustion", "b_senescence", "conf_interferon")  # fmt: skip
FDR = 0.2


def cells(n: int = 900, *, seed: int = 0, holes: float = 0.0) -> dict[str, Any]:
    """Cells with made scores and calls: ties, missing scores, every call."""
    rng = np.random.default_rng(seed)
    names = pd.Index([f"c{i}" for i in range(n)])
    lineage = rng.choice(["T", "B", "DC"], n, p=[0.5, 0.4, 0.1])
    common = rng.standard_normal((n, 1))
    z = pd.DataFrame(
        np.round(common + rng.standard_normal((n, len(SETS))), 1), index=names, columns=SETS
    )
    z.loc[lineage != "T", ["tex", "t_discriminating_senescence_only", "t_axis_exhaustion"]] = np.nan
    z.loc[lineage != "B", "b_senescence"] = np.nan
    z[rng.random(z.shape) < holes] = np.nan
    padj = np.clip(np.exp(-z).round(1), 0, 1)  # some exactly at the rate
    call = rng.choice([*keys.SENESCENCE_CALLS], n)
    state = np.where(lineage == "T", rng.choice([*keys.T_STATES], n), None)
    return {
        "z": z, "padj": padj, "lineage": pd.Series(lineage, index=names).astype("category"),
        "use": rng.random(n) < 0.9, "comparators": ["senmayo", "tex"], "fdr": FDR,
        "call": pd.Series(call, index=names).astype("category"),
        "t_state": pd.Categorical(state, categories=list(keys.T_STATES)),
    }  # fmt: skip


def slow(made: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Every pair of every lineage by scipy and scikit-learn."""
    ours = {
        "T": ["t_discriminating_senescence_only", "core_senescence", "t_axis_exhaustion"],
        "B": ["b_senescence", "core_senescence"],
        "DC": ["dc_senescence", "core_senescence"],
    }
    rows = {}
    frame = made["z"].assign(
        lineage=made["lineage"].astype(str), call=made["call"].astype(str),
        state=pd.Series(made["t_state"], index=made["z"].index).astype(object),
    )[made["use"]]  # fmt: skip
    for lineage, own in ours.items():
        part = frame[frame["lineage"] == lineage]
        padj = made["padj"].loc[part.index]
        sets = [s for s in ["senmayo", "tex", *own] if s in part and part[s].notna().any()]
        calls = {CALL_SENESCENT: part["call"].map({"senescent": True, "not_senescent": False})}
        if lineage == "T":
            known = part["state"].where(part["state"] != "indeterminate")
            calls[CALL_EXHAUSTED] = known.map(lambda v: v in ("exhausted", "both")).where(
                known.notna()
            )
        said = {s: (padj[s] <= FDR).astype(object).where(padj[s].notna()) for s in sets} | calls
        for a, b in itertools.combinations([*sets, *calls], 2):
            row = {"spearman": np.nan, "auroc": np.nan, "n_lineage": len(part)}
            if b in sets:
                both = part[[a, b]].dropna()
                row["spearman"] = spearmanr(both[a], both[b]).statistic
            elif a in sets:
                known = part[a].notna() & calls[b].notna()
                row["auroc"] = roc_auc_score(calls[b][known].astype(bool), part[a][known])
            judged = said[a].notna() & said[b].notna()
            x, y = said[a][judged].astype(bool), said[b][judged].astype(bool)
            row |= {"n_judged": len(x), "n_called_both": (x & y).sum(),
                    "jaccard": jaccard_score(x, y), "kappa": cohen_kappa_score(x, y)}  # fmt: skip
            rows[(lineage, a, b)] = row
    return rows


@pytest.mark.parametrize("holes", [0.0, 0.1])
def test_every_pair_is_that_of_scipy_and_scikit_learn(holes: float) -> None:
    made = cells(holes=holes)
    table = agreement(**made)
    expected = slow(made)
    found = table.set_index(["lineage", "a", "b"])
    assert sorted(found.index) == sorted(expected)
    assert len(found) == 21 + 6 + 3
    for pair, row in expected.items():
        for name, value in row.items():
            assert found.loc[pair, name] == pytest.approx(value, abs=1e-12, nan_ok=True), (
                pair,
                name,
            )
    assert not table["sampled"].any()


def test_the_order_of_cells_and_the_length_of_the_file_say_nothing() -> None:
    made = cells(holes=0.05)
    order = np.random.default_rng(3).permutation(len(made["z"]))
    mixed = {
        k: v.iloc[order] if isinstance(v, (pd.DataFrame, pd.Series)) else v for k, v in made.items()
    }
    mixed["use"], mixed["t_state"] = made["use"][order], made["t_state"][order]
    for most in (10_000, 150):
        pd.testing.assert_frame_equal(
            agreement(**made, max_cells=most), agreement(**mixed, max_cells=most), check_exact=True
        )


def test_of_a_large_lineage_some_cells_are_looked_at() -> None:
    made = cells(2000)
    table = agreement(**made, max_cells=300).set_index("lineage")
    whole = agreement(**made).set_index("lineage")
    assert (table.loc["T", "n_cells"] <= 300).all()
    assert (table.loc["T", "n_lineage"] == whole.loc["T", "n_lineage"]).all()
    assert table["sampled"].groupby(level=0).first().to_dict() == {
        "B": True,
        "DC": False,
        "T": True,
    }
    pd.testing.assert_frame_equal(table.loc["DC"], whole.loc["DC"])
    sets = whole["spearman"].notna()
    assert np.abs(table["spearman"] - whole["spearman"])[sets].max() < 0.15


def test_without_a_comparator_there_is_only_the_header() -> None:
    made = cells()
    for names in ([], ["absent"]):
        table = agreement(**(made | {"comparators": names}))
        assert list(table.columns) == list(COLUMNS)
        assert table.empty
    made["z"][["senmayo", "tex"]] = np.nan
    assert agreement(**made).empty


def test_shared_genes_are_counted() -> None:
    table = agreement(**cells(), genes={"senmayo": ["A", "B"], "core_senescence": ["B", "C"]})
    found = table.set_index(["lineage", "a", "b"])["n_genes_shared"]
    assert found["T", "senmayo", "core_senescence"] == 1
    assert found.drop(index="senmayo", level="a").eq(0).all()


def test_what_is_not_defined_is_missing() -> None:
    made = cells()
    made["padj"][:] = 1.0
    made["z"]["senmayo"] = 2.0
    made["call"] = pd.Series("indeterminate", index=made["z"].index)
    table = agreement(**made)
    assert CALL_SENESCENT not in set(table["b"])
    assert table.loc[table["a"] == "senmayo", "spearman"].isna().all()
    none = table[(table["n_called_a"] == 0) & (table["n_called_b"] == 0)]
    assert len(none)
    assert none[["jaccard", "kappa"]].isna().all(axis=None)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30),
    st.sampled_from([np.exp, lambda v: 2 * v + 1, np.cbrt]),
)
@settings(max_examples=60, deadline=None)
def test_auroc_is_a_share_of_pairs(pairs: list[tuple[int, bool]], rising: Any) -> None:
    values, called = (np.asarray(v) for v in zip(*pairs, strict=True))
    found = auroc(values.astype(float), called)
    won = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, yes), (b, no) in itertools.product(pairs, pairs)
        if yes and not no
    ]
    assert found == pytest.approx(np.mean(won) if won else np.nan, nan_ok=True)
    assert auroc(rising(values.astype(float)), called) == pytest.approx(found, nan_ok=True)
    assert auroc(-values.astype(float), called) == pytest.approx(1 - found, nan_ok=True)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_overlap_is_symmetric_and_one_for_the_same_cells(said: list[tuple[bool, bool]]) -> None:
    x, y = np.asarray(said).T
    counts = int(x.sum()), int(y.sum()), int((x & y).sum())
    jaccard, kappa = overlap(len(x), *counts)
    assert overlap(len(x), counts[1], counts[0], counts[2]) == pytest.approx(
        (jaccard, kappa), nan_ok=True
    )
    if (x == y).all() and 0 < x.sum() < len(x):
        assert (jaccard, kappa) == (1.0, 1.0)
    if not np.isnan(kappa):
        assert kappa == pytest.approx(cohen_kappa_score(x, y))


# --------------------------------------------------------------------------------------------
# in a run


def test_comparators_are_added_to_what_is_scored() -> None:
    published = set(read_signatures().with_role("comparator"))
    chosen = scoring.choose_signatures(None, comparators=True)
    assert set(chosen) == set(scoring.choose_signatures(None)) | published
    named = scoring.choose_signatures(["senmayo", "core_senescence"], comparators=True)
    assert set(named) == {"core_senescence"} | published


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Any, Path]]:
    """One cohort, without and with the published sets."""
    adata = simulate.simulate(1500, 8000, n_donors=4, seed=1)
    made = {}
    for asked in (False, True):
        out = tmp_path_factory.mktemp("run")
        chosen = {"score": {"comparators": asked, "n_null": 50}}
        made[asked] = (sn.analyse(adata, out=out, settings=chosen), out)
    return made


def test_comparators_change_no_other_score_and_no_call(runs: dict[bool, tuple[Any, Path]]) -> None:
    (without, _), (beside, _) = runs[False], runs[True]
    own = list(without.var_names)
    published = set(read_signatures().with_role("comparator"))
    assert set(beside.var_names) - set(own) == published
    np.testing.assert_array_equal(beside[:, own].X, without.X)
    for layer in (keys.LAYER_PVALUE, keys.LAYER_PADJ):
        np.testing.assert_array_equal(beside[:, own].layers[layer], without.layers[layer])
    for column in (keys.OBS_T_STATE, keys.OBS_SENESCENCE_CALL, keys.OBS_T_STATE_RULE):
        assert (beside.obs[column].astype(object).fillna("")
                == without.obs[column].astype(object).fillna("")).all()  # fmt: skip


def test_a_run_writes_what_its_own_result_gives(runs: dict[bool, tuple[Any, Path]]) -> None:
    _, out = runs[False]
    empty = (out / "agreement.tsv").read_text("utf-8")
    assert empty == "\t".join(COLUMNS) + "\n"
    s, out = runs[True]
    table = pd.read_csv(out / "agreement.tsv", sep="\t", na_values=["NA"])
    assert set(table["lineage"]) >= {"T", "B", "mono_mac"}
    t = table[table["lineage"] == "T"].set_index(["a", "b"])
    assert t.loc[("winkler_2020_tex", "zhang_2018_cd8_tex"), "n_genes_shared"] > 0
    cells = s[(s.obs["lineage"] == "T") & s.obs["qc_pass"]]
    z = cells.to_df()
    both = z[["senmayo", "core_senescence"]].dropna()
    row = t.loc[("senmayo", "core_senescence")]
    assert row["n_cells"] == len(both)
    # the file holds single precision
    rho = spearmanr(both["senmayo"], both["core_senescence"]).statistic
    assert row["spearman"] == pytest.approx(rho, abs=1e-4)
    called = cells.obs["senescence_call"]
    known = called.isin(["senescent", "not_senescent"]).to_numpy()
    if (called == "senescent").any():
        area = roc_auc_score(called[known] == "senescent", z["senmayo"][known])
        assert t.loc[("senmayo", CALL_SENESCENT), "auroc"] == pytest.approx(area, abs=1e-4)


def test_a_reference_without_published_sets_cannot_compare(tmp_path: Path) -> None:
    from senoscore.reference import Reference

    ref = object.__new__(Reference)
    object.__setattr__(ref, "signatures", scoring.choose_signatures(None))
    with pytest.raises(
        SignatureError, match=r"freeze a run that was scored with score\.comparators"
    ):
        ref.choose(None, comparators=True)
    object.__setattr__(ref, "signatures", scoring.choose_signatures(None, comparators=True))
    assert "senmayo" in ref.choose(["core_senescence"], comparators=True)
    assert set(ref.choose(["core_senescence"])) == {"core_senescence"}


def test_the_module_names_what_it_writes() -> None:
    assert agreement.__doc__ is not None
    assert all(c in agreement.__doc__ for c in COLUMNS if c not in ("lineage", "a", "b"))
    assert module.MAX_CELLS == 20_000
