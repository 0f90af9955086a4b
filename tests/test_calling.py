"""The verdict, rule by rule, on tables made by hand; and on planted truth and real cells."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import chi2

from senoscore import calling, donors, keys
from senoscore.errors import SenoscoreWarning
from senoscore.null import benjamini_hochberg, storey
from senoscore.settings import CallSettings

NAMES = (
    "t_discriminating_senescence_only", "t_axis_exhaustion", "t_arm_phenotype", "t_arm_arrest",
    "t_arm_tcr_loss", "t_arm_sasp", "conf_temra_effector", "conf_proliferation_s",
    "conf_proliferation_g2m", "conf_interferon", "conf_dissociation", "t_exhaustion_progenitor",
    "t_exhaustion_terminal", "dual_tumour_promoting", "dual_tumour_inhibiting", "b_senescence",
    "macrophage_senescence", "dc_senescence", "other_senescence", "nk_senescence",
    "neutrophil_senescence", "core_senescence", "stemness_loss", "conf_monocyte_ambient",
    "conf_nk_contamination", "conf_nk_cd56bright", "conf_cmv_adaptive_nk", "macrophage_arm_cd38",
    "macrophage_arm_sasp", "other_arm_p53", "sasp_core", "conf_naive",
)  # fmt: skip
SENESCENT = {
    "t_discriminating_senescence_only": 1e-6, "t_arm_phenotype": 1e-5, "t_arm_arrest": 1e-6,
    "conf_temra_effector": 1e-3,
}  # fmt: skip


def tables(cells: list[dict[str, float]]) -> calling.Tables:
    """One row per cell: the p of what is named, 0.5 elsewhere; adjusted p equals p here."""
    values = [[cell.get(name, 0.5) for name in NAMES] for cell in cells]
    p = pd.DataFrame(values, index=[f"c{i}" for i in range(len(cells))], columns=list(NAMES))
    z = -np.log10(p)
    z["stemness_loss"] = [cell.get("stemness z", 0.0) for cell in cells]
    return calling.Tables(z, p, p.copy())


def states(cells: list[dict[str, float]], **changes: object) -> pd.DataFrame:
    n = len(cells)
    options: dict[str, object] = {
        "lineage": np.full(n, "T", dtype=object),
        "t_subset": np.full(n, "CD8", dtype=object),
        "qc_pass": np.ones(n, bool),
        "doublet": np.zeros(n, bool),
        "powered": {"exhaustion": np.ones(n, bool), "senescence": np.ones(n, bool)},
        "settings": CallSettings(),
    }
    made = changes.pop("made", None) or tables(cells)
    return calling.t_states(made, **(options | changes))  # type: ignore[arg-type]


def state(cell: dict[str, float], **changes: object) -> str:
    return str(states([cell], **changes)["t_state"].iloc[0])


def test_each_state_comes_from_its_rule() -> None:
    exhausted = {"t_axis_exhaustion": 1e-6}
    assert state(exhausted) == "exhausted"
    assert state(SENESCENT) == "senescent"
    assert state(SENESCENT | exhausted) == "both"
    assert state({}) == "neither"
    assert state({"conf_proliferation_s": 1e-6}) == "cycling"
    assert state({"t_arm_phenotype": 1e-6}) == "senescent_like"
    assert state({"t_axis_exhaustion": np.nan}) == "indeterminate"


@pytest.mark.parametrize("axis", ["t_axis_exhaustion", "t_arm_phenotype"])
def test_what_nearly_is_called_is_not_ruled_out(axis: str) -> None:
    """Half the molecules of an exhausted cell gone, it used to be `neither`."""
    assert state({axis: 0.04}) in ("exhausted", "senescent_like")
    assert state({axis: 0.2}) == "indeterminate"
    assert "neither called nor ruled out" in states([{axis: 0.2}])["t_state_rule"].iloc[0]
    assert state({axis: 0.3}) == "neither"
    strict = CallSettings(doubt_fdr=0.01)
    assert state({axis: 0.2}, settings=strict) == "neither"
    # what is called, vetoed or set aside stays what it is, but the veto is of senescence alone
    cycling = state({axis: 0.2, "conf_proliferation_s": 1e-6})
    assert cycling == ("indeterminate" if axis == "t_axis_exhaustion" else "cycling")
    treg = np.array(["Treg"], dtype=object)
    assert state({axis: 0.2}, t_subset=treg) == "neither"


@pytest.mark.parametrize(
    ("axis", "phenotype", "stemness", "expected"),
    [
        (0.2, 0.2, 0.0, "indeterminate"),
        (0.01, 0.2, 0.0, "indeterminate"),
        (0.01, 0.7, 0.0, "indeterminate"),
        (0.01, 0.8, 0.0, "neither"),
        (0.3, 0.2, 0.0, "neither"),
        (0.01, 0.2, -9.0, "neither"),
    ],
)
def test_a_candidate_but_for_depth_is_not_ruled_out(
    axis: float, phenotype: float, stemness: float, expected: str
) -> None:
    """Doubt loosens all thresholds of a candidate, the phenotype arm's p too; not the naive rule."""
    cell = {"t_discriminating_senescence_only": axis, "t_arm_phenotype": phenotype}
    made = tables([cell | {"stemness z": stemness}])
    made.padj["t_arm_phenotype"] = 0.9  # p of one cell is not FDR of all
    assert state(cell, made=made) == expected


def test_the_surface_phenotype_alone_is_never_senescent() -> None:
    phenotype = SENESCENT | {"t_arm_phenotype": 1e-8, "t_arm_arrest": 0.5}
    assert state(phenotype) == "senescent_like"
    assert state(phenotype | {"conf_temra_effector": 1e-9}) == "senescent_like"


def test_arrest_without_the_phenotype_is_not_senescent() -> None:
    cell = {"t_discriminating_senescence_only": 1e-6, "t_arm_arrest": 1e-8, "t_arm_phenotype": 0.9}
    assert state(cell) == "neither"


def test_cycling_cells_are_never_senescent() -> None:
    for phase in ("conf_proliferation_s", "conf_proliferation_g2m"):
        cell = SENESCENT | {phase: 1e-6}
        assert state(cell) == "cycling"
        assert state(cell | {"t_axis_exhaustion": 1e-6}) == "exhausted"


@pytest.mark.parametrize("axis", ["conf_interferon", "conf_dissociation"])
def test_p21_induced_by_interferon_or_stress_is_no_support(axis: str) -> None:
    assert state(SENESCENT | {axis: 1e-6}) == "senescent_like"
    lost = SENESCENT | {axis: 1e-6, "t_arm_arrest": 0.5, "t_arm_tcr_loss": 1e-6}
    assert state(lost) == "senescent"


def test_a_cell_that_keeps_the_naive_programme_is_not_senescent() -> None:
    assert state(SENESCENT | {"stemness z": -2.0}) == "senescent_like"
    assert state(SENESCENT | {"stemness z": 0.5}) == "senescent"


def test_special_t_cells_keep_their_own_rule() -> None:
    treg, innate = np.array(["Treg"], dtype=object), np.array(["innate_like"], dtype=object)
    assert state({"t_axis_exhaustion": 1e-9}, t_subset=treg) == "neither"
    assert state(SENESCENT, t_subset=treg) == "neither"
    assert state(SENESCENT, t_subset=innate) == "neither"
    assert state({"t_axis_exhaustion": 1e-9}, t_subset=innate) == "exhausted"


def test_a_doublet_or_a_failed_cell_is_indeterminate_whatever_it_shows() -> None:
    assert state(SENESCENT, doublet=np.ones(1, bool)) == "indeterminate"
    assert state({"t_axis_exhaustion": 1e-9}, qc_pass=np.zeros(1, bool)) == "indeterminate"


def test_too_shallow_is_indeterminate_only_where_nothing_was_found() -> None:
    weak = {"exhaustion": np.zeros(1, bool), "senescence": np.ones(1, bool)}
    assert state({}, powered=weak) == "indeterminate"
    assert state({"t_axis_exhaustion": 1e-6}, powered=weak) == "exhausted"


def test_states_exist_only_in_t_cells_and_every_t_cell_has_a_rule() -> None:
    cells = [SENESCENT, {}, {"t_axis_exhaustion": 1e-6}]
    found = states(cells, lineage=np.array(["B", "T", None], dtype=object))
    assert found["t_state"].isna().tolist() == [True, False, True]
    assert list(found["t_state"].cat.categories) == list(keys.T_STATES)
    assert found.loc["c1", "t_state_rule"] != ""


def test_support_is_fishers_combination_adjusted_over_candidates() -> None:
    cells = [
        {"t_arm_arrest": 0.01, "t_arm_tcr_loss": 0.2, "t_arm_sasp": 0.3},
        {"t_arm_arrest": 0.5, "t_arm_tcr_loss": 0.2, "t_arm_sasp": 0.9},
        {"t_arm_arrest": 0.001},
    ]
    candidates = np.array([True, True, False])
    settings = CallSettings()
    arms = calling.support_arms(tables(cells), settings)
    q, p, arm = calling.support_padj(arms, candidates, settings)
    fisher = [
        chi2.sf(-2 * np.log([0.01, 0.2, 0.3]).sum(), 6),
        chi2.sf(-2 * np.log([0.5, 0.2, 0.9]).sum(), 6),
    ]
    expected = storey(np.array(fisher))
    expected[1] = 1.0  # Fisher's p is above 0.1: no evidence of its own
    assert fisher[1] > 0.1 > fisher[0]
    np.testing.assert_allclose(q[:2], expected)
    np.testing.assert_allclose(p[:2], fisher)
    assert np.isnan(q[2])
    assert arm.tolist() == [0, 1, -1]  # places in SUPPORT_ARMS


def test_storey_is_bh_times_the_share_of_true_nulls() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.uniform(0, 1, 200), rng.uniform(0, 0.001, 800), [np.nan]])
    share = (1 + (p[:1000] > 0.5).sum()) / 500
    np.testing.assert_allclose(storey(p)[:1000], benjamini_hochberg(p)[:1000] * share)
    assert np.isnan(storey(p)[-1])
    all_null = rng.uniform(0.4, 1, 100)
    np.testing.assert_array_equal(storey(all_null), benjamini_hochberg(all_null))


def call(cell: dict[str, float], lineage: str, **changes: object) -> tuple[str, str]:
    options: dict[str, object] = {
        "lineage": np.array([lineage], dtype=object),
        "t_state": pd.Series(pd.Categorical([None], categories=list(keys.T_STATES))),
        "qc_pass": np.ones(1, bool),
        "doublet": np.zeros(1, bool),
        "powered": np.ones(1, bool),
        "settings": CallSettings(),
    }
    found = calling.senescence_calls(tables([cell]), **(options | changes))  # type: ignore[arg-type]
    return str(found["senescence_call"].iloc[0]), str(found["senescence_rule"].iloc[0])


def test_other_lineages_need_their_signature_and_core_senescence() -> None:
    both = {"macrophage_senescence": 1e-6, "core_senescence": 1e-6}
    assert call(both, "mono_mac")[0] == "senescent"
    assert call({"macrophage_senescence": 1e-6}, "mono_mac")[0] == "indeterminate"
    assert call({"core_senescence": 1e-6}, "mono_mac")[0] == "not_senescent"
    assert call({}, "mono_mac", powered=np.zeros(1, bool))[0] == "indeterminate"


def test_interferon_explains_cd38_and_a_cycling_macrophage_is_not_senescent() -> None:
    both = {"macrophage_senescence": 1e-6, "core_senescence": 1e-6}
    assert call(both | {"conf_interferon": 1e-4}, "mono_mac")[0] == "indeterminate"
    assert call(both | {"conf_proliferation_g2m": 1e-4}, "mono_mac")[0] == "not_senescent"


def test_dendritic_cells_are_never_called_either_way() -> None:
    assert call({"dc_senescence": 1e-9, "core_senescence": 1e-9}, "DC")[0] == "indeterminate"
    assert call({}, "DC")[0] == "indeterminate"


@pytest.mark.parametrize("programme", calling.FOREIGN)
def test_rna_of_another_cell_is_no_evidence_of_senescence(programme: str) -> None:
    """A naive T cell with a monocyte in its droplet has TYROBP, CD16 and cytokines."""
    assert state(SENESCENT) == "senescent"
    assert state(SENESCENT | {programme: 1e-6}) == "indeterminate"
    assert state({programme: 1e-6}) == "neither"
    b = {"b_senescence": 1e-6, "core_senescence": 1e-6}
    assert call(b | {programme: 1e-6}, "B")[0] == "indeterminate"


def test_support_in_doubt_is_not_ruled_out() -> None:
    arms = dict.fromkeys(calling.SUPPORT_ARMS.values(), 0.3)
    assert 0.25 < chi2.sf(-2 * np.log([0.3] * 3).sum(), 6) < 0.5
    assert state(SENESCENT | arms) == "indeterminate"
    assert state(SENESCENT | arms, settings=CallSettings(lean_p=0.25)) == "senescent_like"
    assert state(SENESCENT | dict.fromkeys(arms, 0.6)) == "senescent_like"


def test_both_parts_of_the_evidence_must_show() -> None:
    """The axis is their sum: one of them alone, however strong, is not senescence."""
    assert state(SENESCENT | {"t_arm_phenotype": 0.15}) == "senescent"
    assert state(SENESCENT | {"t_arm_phenotype": 0.25}) != "senescent"
    arrested = {"t_arm_arrest": 0.04, "t_arm_tcr_loss": 0.5, "t_arm_sasp": 0.5}
    assert chi2.sf(-2 * np.log([0.04, 0.5, 0.5]).sum(), 6) < 0.2
    many = [SENESCENT | arrested] + [SENESCENT] * 20
    assert states(many)["t_state"].iloc[0] == "senescent"
    weak = dict.fromkeys(calling.SUPPORT_ARMS.values(), 0.25)
    assert states([SENESCENT | weak] + [SENESCENT] * 20)["t_state"].iloc[0] == "indeterminate"


def test_less_is_asked_of_the_parts_of_exhausted_cells_where_nearly_all_have_support() -> None:
    exhausted = {"t_axis_exhaustion": 1e-6}
    arms = {"t_arm_arrest": 0.15, "t_arm_tcr_loss": 0.4, "t_arm_sasp": 0.8}
    assert 0.2 < chi2.sf(-2 * np.log([0.15, 0.4, 0.8]).sum(), 6) < 0.5
    weak = SENESCENT | arms | {"t_arm_phenotype": 0.4}
    strong = [SENESCENT | exhausted] * 20
    assert states([weak | exhausted, *strong])["t_state"].iloc[0] == "both"
    # as many cells that are not exhausted say nothing about those that are
    assert states([weak | exhausted] + [SENESCENT] * 20)["t_state"].iloc[0] == "exhausted"
    # of other cells all is asked
    assert states([weak, *strong])["t_state"].iloc[0] != "senescent"
    for part in ({"t_arm_phenotype": 0.6}, {"t_arm_arrest": 0.9}):
        assert states([weak | exhausted | part, *strong])["t_state"].iloc[0] == "exhausted"
    # exhausted effector cells have the phenotype, and support no more often than by chance
    effector = [SENESCENT | exhausted | dict.fromkeys(arms, p) for p in np.linspace(0.05, 0.95, 20)]
    assert (states([weak | exhausted, *effector])["t_state"] == "exhausted").all()


def test_a_secretome_alone_is_no_support() -> None:
    """IL6 and CXCL8 are in the soup of many droplets, and in activated cells."""
    secretes = {"t_arm_arrest": 0.5, "t_arm_tcr_loss": 0.5, "t_arm_sasp": 1e-6}
    assert state(SENESCENT | secretes) == "indeterminate"
    assert state(SENESCENT | secretes | {"t_arm_arrest": 0.05}) == "senescent"


def test_a_naive_cell_in_the_same_droplet_leaves_senescence_open() -> None:
    """Of a naive and a senescent cell together the sum looks senescent; CCR7 and LEF1 tell."""
    found = states([SENESCENT | {"conf_naive": 0.08}])
    assert found["t_state"].tolist() == ["indeterminate"]
    assert "naive" in found["t_state_rule"].iloc[0]
    assert state(SENESCENT | {"conf_naive": 0.12}) == "senescent"
    # exhausted cells keep or regain some of these genes: nothing is asked of them
    assert state(SENESCENT | {"conf_naive": 0.01, "t_axis_exhaustion": 1e-6}) == "exhausted"


def test_senescence_is_asked_for_a_trace_of_an_effector() -> None:
    """In few counts a naive cell shows nothing of what it is; neither does it show cytotoxic genes."""
    nothing = SENESCENT | {"conf_temra_effector": 0.5}
    assert state(nothing) == "indeterminate"
    assert "effector" in states([nothing])["t_state_rule"].iloc[0]
    assert state(nothing | {"stemness_loss": 0.01}) == "senescent"
    assert state(nothing | {"conf_temra_effector": 0.2}) == "senescent"


@pytest.mark.parametrize("phase", ["conf_proliferation_s", "conf_proliferation_g2m"])
def test_a_cycle_that_is_not_ruled_out_leaves_senescence_open(phase: str) -> None:
    assert state(SENESCENT | {phase: 0.2}) == "indeterminate"
    assert state(SENESCENT | {phase: 0.3}) == "senescent"
    assert state(SENESCENT | {phase: 0.2, "t_axis_exhaustion": 1e-6}) == "exhausted"


@pytest.mark.parametrize("second", ["t_discriminating_senescence_only", "t_axis_exhaustion"])
def test_a_selected_cell_has_its_other_axis_tested_at_its_own_level(second: str) -> None:
    """Benjamini & Bogomolov: of m cells r were selected, a second axis is tested at q r / m."""
    first = {"t_axis_exhaustion": 1e-6}
    if second == "t_axis_exhaustion":
        first = SENESCENT
    cell = SENESCENT | {"t_axis_exhaustion": 1e-6, second: 0.02}
    for selected, expected in ((10, "both"), (7, next(iter(set(states([first])["t_state"]))))):
        cells = [cell] + [first] * (selected - 1) + [{}] * (20 - selected)
        made = tables(cells)
        made.padj[second] = np.minimum(20 * made.pvalue[second], 1.0)
        made.padj.iloc[0, list(NAMES).index(second)] = 0.4
        found = states(cells, made=made)["t_state"].iloc[0]
        assert (0.02 * 20 / selected <= 0.05) == (expected == "both")
        assert found == expected


@pytest.mark.parametrize(
    "axis", ["t_axis_exhaustion", "t_discriminating_senescence_only", "t_arm_phenotype"]
)
def test_a_shallow_cell_needs_more_to_be_ruled_out(axis: str) -> None:
    """What an adjusted p-value says was learnt from deeper cells."""
    made = tables([{"t_arm_phenotype": 0.4, axis: 0.2}])
    made.padj.loc[:, axis] = 0.9
    assert state({}, made=made) == "neither"
    assert state({}, made=made, shallow=np.ones(1, bool)) == "indeterminate"
    made.pvalue.loc[:, axis] = 0.3
    assert state({}, made=made, shallow=np.ones(1, bool)) == "neither"


def test_shallow_cells_of_other_lineages_need_more_to_be_ruled_out() -> None:
    made = tables([{"b_senescence": 0.2}])
    made.padj["b_senescence"] = 0.9
    options: dict[str, object] = {
        "lineage": np.array(["B"], dtype=object),
        "t_state": pd.Series(pd.Categorical([None], categories=list(keys.T_STATES))),
        "qc_pass": np.ones(1, bool), "doublet": np.zeros(1, bool), "powered": np.ones(1, bool),
        "settings": CallSettings(),
    }  # fmt: skip
    for shallow, expected in ((False, "not_senescent"), (True, "indeterminate")):
        found = calling.senescence_calls(made, shallow=np.array([shallow]), **options)  # type: ignore[arg-type]
        assert found["senescence_call"].tolist() == [expected]


def test_between_two_states_a_cell_is_indeterminate() -> None:
    """Half its molecules gone, an exhausted cell must not turn into a TEMRA cell."""
    phenotype = {"t_arm_phenotype": 1e-6}
    assert state(phenotype) == "senescent_like"
    assert state(phenotype | {"t_axis_exhaustion": 0.2}) == "indeterminate"
    near = phenotype | {"t_discriminating_senescence_only": 0.2}
    assert state(near) == "senescent_like"
    assert state(near | {"t_arm_arrest": 0.01}) == "indeterminate"


def test_every_threshold_of_the_rule_decides_something() -> None:
    """A setting that no cell's call depends on would be an idle knob."""
    rng = np.random.default_rng(0)
    cells = [
        {name: float(p) for name, p in zip(NAMES, row, strict=True)}
        | {"stemness z": float(rng.normal(0, 1.5))}
        for row in rng.uniform(0, 1, (4000, len(NAMES))) ** 4
    ]
    base = CallSettings()
    usual = states(cells, settings=base)["t_state"]
    changes: dict[str, float] = {
        "fdr": 0.01, "support_fdr": 0.001, "doubt_fdr": 0.1, "arm_p": 0.01, "part_p": 0.01,
        "doubt_p": 0.1, "lean_p": 0.3, "kept_naive_z": 0.5, "naive_p": 0.5,
    }  # fmt: skip
    for name, value in changes.items():
        changed = states(cells, settings=replace(base, **{name: value}))["t_state"]
        assert (changed != usual).any(), name
    # three decide in `power.powered`, and of smoothing no call is made
    elsewhere = {"on_cp10k", "power", "shallow", "protein", "smooth", "smooth_neighbors"}
    assert {*changes, *elsewhere} == {f.name for f in fields(CallSettings)}


def test_the_printed_rule_has_every_threshold() -> None:
    deciding = [f.name for f in fields(CallSettings) if isinstance(f.default, float)]
    told = {name: 0.0111 + k / 1000 for k, name in enumerate(deciding)}
    text = calling.rule_text(CallSettings(**told))
    for name, value in told.items():
        shown = f"{value:.0%}".replace("%", " %") if name == "power" else f"{value:g}"
        assert shown in text, name


def test_the_verdict_is_read_from_the_signatures_it_names() -> None:
    """Any that is missing from the list would be missing from `signatures: [verdict]`."""
    asked: set[str] = set()

    class Heard(calling.Tables):
        def __getitem__(self, signature: str) -> tuple[np.ndarray, np.ndarray]:
            asked.add(signature)
            return super().__getitem__(signature)

        def p(self, signature: str) -> np.ndarray:
            asked.add(signature)
            return super().p(signature)

    made = tables([SENESCENT] * len(keys.LINEAGES))
    heard = Heard(made.z, made.pvalue, made.padj)
    cells = pd.DataFrame(
        {
            "lineage": list(keys.LINEAGES), "t_subset": "CD8", "qc_pass": True,
            "doublet_mixed_lineage": False, "total_counts": 1000.0,
        },
        index=made.z.index,
    )  # fmt: skip
    seen = pd.DataFrame(np.uint8(keys.SEEN), index=made.z.index, columns=list(NAMES))
    calling.verdicts(heard, cells, seen, settings=CallSettings())
    calling.t_axes(heard, np.ones(len(cells), bool))
    assert asked == set(calling.verdict_signatures()) == set(NAMES)


def test_nk_cells_are_called_inside_cd56dim_and_adaptive_ones_are_told() -> None:
    senescent = {"nk_senescence": 1e-6, "core_senescence": 1e-6}

    def nk(cell: dict[str, float]) -> pd.Series:
        options = {
            "lineage": np.array(["NK"], dtype=object),
            "t_state": pd.Series(pd.Categorical([None], categories=list(keys.T_STATES))),
            "qc_pass": np.ones(1, bool), "doublet": np.zeros(1, bool), "powered": np.ones(1, bool),
            "settings": CallSettings(),
        }  # fmt: skip
        return calling.senescence_calls(tables([cell]), **options).iloc[0]  # type: ignore[arg-type]

    assert nk(senescent)["senescence_call"] == "senescent"
    assert nk(senescent)["nk_subset"] == "CD56dim"
    bright = nk(senescent | {"conf_nk_cd56bright": 0.01})
    assert (bright["senescence_call"], bright["nk_subset"]) == ("indeterminate", "CD56bright")
    adaptive = nk(senescent | {"conf_cmv_adaptive_nk": 0.01})
    assert (adaptive["senescence_call"], adaptive["nk_subset"]) == ("senescent", "CD56dim_adaptive")
    assert "CMV" in adaptive["senescence_warning"]


def test_other_cells_need_p53_or_the_sasp_and_say_which() -> None:
    own = {"other_senescence": 1e-6}
    assert call(own, "other")[0] == "indeterminate"
    # core senescence shares its genes with the signature: it is no support
    assert call(own | {"core_senescence": 1e-9}, "other")[0] == "indeterminate"
    assert call(own | {"other_arm_p53": 1e-6}, "other")[0] == "senescent"
    assert call(own | {"sasp_core": 1e-6}, "other")[0] == "senescent"


def test_the_arms_that_show_are_named_apart() -> None:
    cells = [
        {"macrophage_senescence": 1e-6, "macrophage_arm_cd38": 0.01},
        {"macrophage_senescence": 1e-6, "macrophage_arm_sasp": 0.01},
        {"macrophage_senescence": 1e-6, "macrophage_arm_cd38": 0.01, "macrophage_arm_sasp": 0.01},
        {"macrophage_arm_cd38": 0.01},
        {"other_senescence": 1e-6, "other_arm_p53": 1e-6},
    ]
    n = len(cells)
    found = calling.senescence_calls(
        tables(cells),
        lineage=np.array(["mono_mac"] * 4 + ["other"], dtype=object),
        t_state=pd.Series(pd.Categorical([None] * n, categories=list(keys.T_STATES))),
        qc_pass=np.ones(n, bool), doublet=np.zeros(n, bool), powered=np.ones(n, bool),
        settings=CallSettings(),
    )  # fmt: skip
    assert found["senescence_arms"].tolist() == ["CD38", "SASP", "CD38; SASP", "", "p53"]


def test_every_lineage_has_its_warning_and_weak_ones_are_of_low_confidence() -> None:
    lineages = [*keys.LINEAGES, None]
    n = len(lineages)
    found = calling.senescence_calls(
        tables([{}] * n),
        lineage=np.array(lineages, dtype=object),
        t_state=pd.Series(
            pd.Categorical(["neither", *[None] * (n - 1)], categories=list(keys.T_STATES))
        ),
        qc_pass=np.ones(n, bool), doublet=np.zeros(n, bool), powered=np.ones(n, bool),
        settings=CallSettings(),
    )  # fmt: skip
    assert found["senescence_warning"].tolist() == [
        *(calling.WARNINGS[x] for x in lineages[:-1]),
        "",
    ]
    low = found["senescence_confidence"] == "low"
    assert [x for x, flag in zip(lineages, low, strict=True) if flag] == ["neutrophil", "DC"]
    assert "lupus" in calling.WARNINGS["B"]
    assert "infection" in calling.WARNINGS["B"]


def test_weak_signatures_say_so() -> None:
    assert "low-confidence" in call({}, "DC")[1]
    assert "low-confidence" not in call({}, "B")[1]


def test_t_cells_follow_their_state() -> None:
    for t_state, expected in (
        ("senescent", "senescent"), ("both", "senescent"), ("exhausted", "not_senescent"),
        ("cycling", "not_senescent"), ("indeterminate", "indeterminate"),
    ):  # fmt: skip
        series = pd.Series(pd.Categorical([t_state], categories=list(keys.T_STATES)))
        assert call({}, "T", t_state=series)[0] == expected


OPEN = (
    ({"t_arm_phenotype": 1e-6}, "CD8"),  # senescent_like: shown, not supported
    ({"t_arm_phenotype": 1e-6, "t_axis_exhaustion": 1e-6}, "CD8"),
    ({}, "Treg"),  # not assessed
    ({}, "innate_like"),
)


@pytest.mark.parametrize(("cell", "subset"), OPEN)
def test_incomplete_evidence_is_indeterminate_in_t_cells_as_elsewhere(
    cell: dict[str, float], subset: str
) -> None:
    """A macrophage with its signature and no core senescence is indeterminate: so is a T cell."""
    assert call({"macrophage_senescence": 1e-6}, "mono_mac")[0] == "indeterminate"
    found = states([cell], t_subset=np.array([subset], dtype=object))
    opened = found["senescence_open"].to_numpy(bool)
    assert call(cell, "T", t_state=found["t_state"], t_open=opened)[0] == "indeterminate"


def test_what_was_seen_to_be_absent_is_not_senescent() -> None:
    for cell in ({}, {"t_axis_exhaustion": 1e-6}, {"conf_proliferation_s": 1e-6}):
        found = states([cell])
        opened = found["senescence_open"].to_numpy(bool)
        assert call(cell, "T", t_state=found["t_state"], t_open=opened)[0] == "not_senescent"
    # ... and an exhausted cell too shallow to show senescence is not known to be free of it
    weak = {"exhaustion": np.ones(1, bool), "senescence": np.zeros(1, bool)}
    found = states([{"t_axis_exhaustion": 1e-6}], powered=weak)
    assert found["t_state"].tolist() == ["exhausted"]
    assert found["senescence_open"].all()


def test_substates_divide_the_exhausted_and_the_senescent() -> None:
    def substate(cell: dict[str, float]) -> str:
        return str(states([cell])["t_substate"].iloc[0])

    exhausted = {"t_axis_exhaustion": 1e-6}
    assert substate(exhausted | {"t_exhaustion_progenitor": 0.01}) == "progenitor"
    assert substate(exhausted | {"t_exhaustion_terminal": 0.01}) == "terminal"
    assert substate(SENESCENT) == ""
    sides = {"dual_tumour_inhibiting": 1e-6}
    assert substate(SENESCENT | sides) == "nk_like"
    assert substate(SENESCENT | sides | {"dual_tumour_promoting": 0.01}) == "sasp_high"
    assert substate(sides) == ""


# --------------------------------------------------------------------------------------------
# real cells and planted truth, end to end


@pytest.fixture(scope="module")
def cohort() -> AnnData:
    """A planted cohort, analysed."""
    import senoscore as sn
    from senoscore.simulate import simulate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SenoscoreWarning)
        return sn.analyse(simulate(n_cells=4000, seed=3))


@pytest.fixture(scope="module")
def planted(cohort: AnnData) -> pd.DataFrame:
    return cohort.obs


def test_no_planted_cycling_or_naive_cell_is_called_senescent(planted: pd.DataFrame) -> None:
    quiet = planted["true_t_substate"].isin(["naive", "cycling", "cycling_exhausted"])
    assert quiet.sum() > 300
    assert not planted.loc[quiet, "t_state"].isin(["senescent", "both"]).any()


def test_planted_states_are_called_at_the_promised_rate(planted: pd.DataFrame) -> None:
    exhausted = planted[planted["t_state"].isin(["exhausted", "both"])]
    assert len(exhausted) > 50
    right = exhausted["true_t_substate"].isin(
        ["progenitor", "terminal", "exhausted_senescent", "cycling_exhausted"]
    )
    assert 1 - right.mean() <= 0.10
    senescent = planted[planted["senescence_call"] == "senescent"]
    assert len(senescent) > 20
    assert 1 - senescent["true_senescent"].mean() <= 0.10


def test_the_share_of_planted_cells_with_both_programmes_is_found(cohort: AnnData) -> None:
    import senoscore as sn

    exhausted = cohort.obs[cohort.obs["t_state"].isin(["exhausted", "both"])]
    truth = (exhausted["true_t_state"] == "both").mean()
    found = sn.tl.burden(cohort).set_index("lineage").loc["T"]
    assert found["frac_exhausted_with_senescence"] > (exhausted["t_state"] == "both").mean()
    low, high = (found[f"frac_exhausted_with_senescence_{end}"] for end in ("low", "high"))
    assert 0 < low < truth < high
    # where senescence is planted in none of them, none is found
    p = cohort[exhausted.index[exhausted["true_t_state"] == "exhausted"]].to_df("pvalue")
    hits = (p["t_discriminating_senescence_only"] <= 0.05).sum()
    assert donors.carrying_share(hits, len(p), 0.95)[0] < 0.03


def test_planted_substates_are_told_apart(planted: pd.DataFrame) -> None:
    truth, found = planted["true_t_substate"].astype(str), planted["t_substate"].astype(str)
    exhausted = planted["t_state"] == "exhausted"
    terminal = exhausted & (truth == "terminal")
    assert (found[terminal] == "terminal").mean() >= 0.95
    progenitor = exhausted & (truth == "progenitor")
    if progenitor.sum() >= 5:
        assert (found[progenitor] == "progenitor").mean() > (found[terminal] == "progenitor").mean()
    senescent = planted["t_state"] == "senescent"
    high = (found == "sasp_high") & senescent
    rate = {name: high[senescent & (truth == name)].mean() for name in ("sasp_high", "nk_like")}
    assert rate["sasp_high"] > 0.25
    assert rate["nk_like"] < 0.1
    assert (found[senescent & (truth == "nk_like")] == "nk_like").mean() > 0.9


def test_planted_nk_subsets_are_told_apart(planted: pd.DataFrame) -> None:
    nk = planted[planted["lineage"] == "NK"]
    bright = nk["true_population"] == "nk_bright"
    assert (nk.loc[bright, "nk_subset"] == "CD56bright").mean() >= 0.8
    assert (nk.loc[~bright, "nk_subset"] == "CD56bright").mean() <= 0.1
    adaptive = nk["nk_subset"] == "CD56dim_adaptive"
    assert (nk.loc[adaptive, "true_population"] == "nk_adaptive").mean() >= 0.9


def analysed(source: object, **settings: object) -> pd.DataFrame:
    import senoscore as sn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SenoscoreWarning)
        return sn.analyse(source, settings=settings).obs  # type: ignore[arg-type]


def test_exhausted_melanoma_t_cells_are_found(data: Path) -> None:
    obs = analysed(data / "sadefeldman_melanoma_cd8_dev.h5ad")
    label = obs["cellTypes"].astype(str)
    truth = label.str.startswith("Exhausted")
    called = obs["t_state"].isin(["exhausted", "both"])
    assert truth[called].mean() >= 0.8
    assert called[truth].mean() >= 0.45  # of author-labelled cells, at FDR .05
    assert not called[label.isin(["Memory T-cells", "Lymphocytes"])].any()


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    return float((positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2)


def test_the_axes_tell_exhausted_cells_apart_better_than_ucell(data: Path) -> None:
    import anndata as ad

    import senoscore as sn

    path = data / "sadefeldman_melanoma_cd8_dev.h5ad"
    axis = calling.AXIS_SIGNATURES["exhaustion"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SenoscoreWarning)
        s = sn.analyse(path)
        raw = ad.read_h5ad(path)
        sn.tl.score(raw, [axis], groupby=None, method="ucell")
    label = s.obs["cellTypes"].astype(str)
    exhausted = label.str.startswith("Exhausted").to_numpy()
    rest = label.isin(["Memory T-cells", "Lymphocytes"]).to_numpy()
    cytotoxic = (label == "Cytotoxicity").to_numpy()
    ours = s.obsm["t_axes"]["exhaustion"].to_numpy()
    ucell = raw.obsm["senoscore_score"][axis].to_numpy()
    assert auroc(ours[exhausted], ours[rest]) >= 0.89
    assert auroc(ours[exhausted], ours[cytotoxic]) >= 0.94
    for other in (rest, cytotoxic):
        assert auroc(ours[exhausted], ours[other]) > auroc(ucell[exhausted], ucell[other])
    # the axes are not the same thing
    senescence = s.obsm["t_axes"]["senescence"].to_numpy()
    assert 0.35 <= auroc(senescence[exhausted], senescence[rest]) <= 0.65


def test_interferon_does_not_make_cells_senescent(data: Path) -> None:
    obs = analysed(data / "kang_ifnb2000.h5ad")
    share = (obs["senescence_call"] == "senescent").groupby(obs["stim"], observed=True).mean()
    assert abs(share["STIM"] - share["CTRL"]) <= 0.01


def test_healthy_blood_has_few_exhausted_and_senescent_t_cells(data: Path) -> None:
    obs = analysed(data / "pbmc3k_labelled.h5ad")
    states_ = obs.loc[obs["lineage"] == "T", "t_state"].value_counts(normalize=True)
    assert states_["exhausted"] + states_["both"] <= 0.02
    assert states_["senescent"] + states_["both"] <= 0.02


def test_stimulation_does_not_make_cells_senescent(data: Path) -> None:
    obs = analysed(data / "mast_mait96.h5ad")
    share = (obs["senescence_call"] == "senescent").groupby(obs["condition"], observed=True).mean()
    assert set(share.index) == {"Stim", "Unstim"}
    assert abs(share["Stim"] - share["Unstim"]) <= 0.01


LABEL_OF = {
    "T": "T cell", "B": "B cell", "NK": "natural killer cell", "mono_mac": "monocyte",
    "neutrophil": "neutrophil", "DC": "dendritic cell", "other": "fibroblast",
}  # fmt: skip


@pytest.mark.parametrize("among", ["all genes", "genes of like mean"])
@pytest.mark.parametrize(
    "file", ["pbmc3k_labelled", "zilionis_nsclc300", "trex_tcells_pt17_citeseq"]
)
def test_shuffled_gene_labels_give_no_more_calls_than_the_nominal_rate(
    data: Path, file: str, among: str
) -> None:
    """The cells, their depth and their correlations are real; only which gene is which is not."""
    import anndata as ad

    raw = ad.read_h5ad(data / f"{file}.h5ad")
    ignore = {"protein": "ignore"}  # antibodies are not shuffled
    lineage = analysed(data / f"{file}.h5ad", call=ignore)["lineage"].astype(object)
    n = raw.n_vars
    same_genes = raw.raw is not None and raw.raw.shape[1] == n
    x = raw.raw.X if same_genes else raw.X
    rng, order = np.random.default_rng(0), np.arange(n)
    if among == "all genes":
        order = rng.permutation(n)
    else:
        ranked = np.argsort(np.asarray(x.mean(axis=0)).ravel(), kind="stable")
        for start in range(0, n, 50):
            order[ranked[start : start + 50]] = rng.permutation(ranked[start : start + 50])
    labels = lineage.map(LABEL_OF).fillna("unknown").to_numpy()
    shuffled = ad.AnnData(
        x, obs=pd.DataFrame({"kept": labels}, index=raw.obs_names), var=raw.var.iloc[order].copy()
    )
    obs = analysed(shuffled, dataset={"cell_type": "kept"}, call=ignore)
    assert (obs["lineage"].astype(object).fillna("") == lineage.fillna("")).mean() > 0.95
    level = CallSettings().fdr
    t = obs.loc[obs["lineage"] == "T", "t_state"]
    called = t.isin(["exhausted", "senescent", "both", "senescent_like", "cycling"])
    assert called.mean() <= level
    assert (obs["senescence_call"] == "senescent").mean() <= level / 5
