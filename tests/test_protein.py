"""Names, normalisation, mixtures and the phenotype of antibodies, on arrays made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, norm, spearmanr

from senoscore import protein

NAMES = {
    "CD57-TotalSeqC": "CD57",
    "CD57_TotalSeqB": "CD57",
    "anti-human_CD57": "CD57",
    "anti-human CD57 Recombinant": "CD57",
    "CD57_TotalA": "CD57",
    "Hu.CD57": "CD57",
    "HuMs.CD27": "CD27",
    "CD57_Recombinant": "CD57",
    "CD57-R": "CD57",
    "adt_CD57-TotalA": "CD57",
    "B3GAT1": "CD57",
    "CD45RA_PTPRC": "CD45RA",
    "Hu.CD45RA": "CD45RA",
    "ADT_CD57": "CD57",
    "prot:CD57": "CD57",
    "C0168_anti-human_CD57": "CD57",
    "CD279 (PD-1)": "PD-1",
    "CD279_PDCD1": "PD-1",
    "ADT_PD-1 (CD279)": "PD-1",
    "PD1": "PD-1",
    "KLRG1_(MAFA)": "KLRG1",
    "CD16-1": "CD16",
    "CD16.1": "CD16",
    "CD161": "CD161",
    "CD197 (CCR7)": "CCR7",
    "ADT_B7-H1 (PD-L1)": "PD-L1",
    "CD8a": "CD8",
    "HLA-DR": "HLA-DR",
    "CD159a (NKG2A)": "NKG2A",
    "  CD28 ": "CD28",
    # not what they look like
    "CD27L": "",
    "CD27 ligand": "",
    "CD137-L": "",
    "CD178 (Fas-L)": "",
    "ADT_B220 (CD45R)": "",
    "CD45RA/CD45RO": "",
    "CD3_CD19": "",
    "CD571": "",
    "HLA-A,B,C": "",
    "": "",
}


@pytest.mark.parametrize(("raw", "expected"), NAMES.items(), ids=repr)
def test_names_of_antibodies(raw: str, expected: str) -> None:
    assert protein.normalise_names([raw])["protein"].tolist() == [expected]


def test_controls_and_hashtags_are_no_antibodies() -> None:
    names = [
        "IgG1", "ADT_IgG2a", "Mouse-IgG2b-isotype", "rat IgG1, kappa isotype Ctrl", "HTO_HTO28_5P",
        "Hashtag 3", "IgD", "IgM", "IgGFc", "HTO-1", "Isotype_MOPC.21", "CD27",
    ]  # fmt: skip
    kinds = dict(zip(names, protein.normalise_names(names)["kind"], strict=True))
    controls = [name for name, kind in kinds.items() if kind == protein.ISOTYPE]
    assert controls == [
        "IgG1", "ADT_IgG2a", "Mouse-IgG2b-isotype", "rat IgG1, kappa isotype Ctrl",
        "Isotype_MOPC.21",
    ]  # fmt: skip
    assert [n for n, k in kinds.items() if k == protein.HASHTAG] == [
        "HTO_HTO28_5P", "Hashtag 3", "HTO-1",
    ]  # fmt: skip
    assert [kinds[n] for n in ("IgD", "IgM", "CD27")] == [protein.ANTIBODY] * 3


def test_igg1_alone_may_be_the_class_on_b_cells() -> None:
    assert protein.normalise_names(["IgG1", "CD19"])["kind"][0] == protein.UNKNOWN


def test_the_table_of_antibodies_is_consistent() -> None:
    table = protein.read_antibodies()
    assert table["protein"].is_unique
    names = [protein._key(n) for n in table["protein"]]
    for row in table.itertuples():
        for synonym in filter(None, row.synonyms.split(";")):
            key = protein._key(synonym)
            if key in names:
                assert names.index(key) == row.Index, f"{synonym} is another protein's name"
            assert protein.normalise_names([synonym])["protein"][0] == row.protein
    votes = table[table["role"] == "phenotype"]
    assert votes["direction"].isin(["+", "-"]).all()
    assert (votes["weight"] > 0).all()
    assert (table.loc[table["role"] != "phenotype", "weight"] == 0).all()


def test_phenotype_weights_are_those_of_the_signature() -> None:
    """One truth: where the gene votes in t_arm_phenotype, its antibody votes alike.

    CD57 has weight 1, not that of its proxy B3GAT1; CD45RA and CCR7 have no vote by RNA.
    """
    from senoscore.signatures import read_signatures

    voting = read_signatures().select(["t_arm_phenotype"])["t_arm_phenotype"]
    weight = {g.symbol: (g.weight, g.direction) for g in voting.genes if g.votes}
    table = protein.read_antibodies()
    for row in table[table["role"] == "phenotype"].itertuples():
        if row.protein in ("CD57", "CD45RA", "CCR7"):
            continue
        assert weight[row.gene] == (row.weight, 1 if row.direction == "+" else -1), row.protein


def seurat_clr(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """CLR of one antibody over cells as Seurat writes it, word by word."""
    return np.log1p(x / np.exp(np.sum(np.log1p(x[x > 0])) / len(x)))


def test_clr_is_that_of_seurat_over_cells() -> None:
    counts = np.random.default_rng(0).poisson(3, (50, 4)).astype(float)
    want = np.column_stack([seurat_clr(counts[:, k]) for k in range(4)])
    np.testing.assert_allclose(protein.clr(counts), want, rtol=1e-6)


def test_clr_is_made_sample_by_sample() -> None:
    counts = np.random.default_rng(1).poisson(3, (60, 2)).astype(float)
    sample = np.repeat([0, 1], 30)
    got = protein.clr(counts, sample)
    for k in (0, 1):
        np.testing.assert_array_equal(got[sample == k], protein.clr(counts[sample == k]))


def test_size_factors_find_the_depth_and_not_the_type() -> None:
    rng = np.random.default_rng(2)
    size = np.exp(rng.normal(0, 0.8, 400))
    level = np.exp(rng.uniform(2, 5, 20))
    rates = np.outer(size, level)
    rates[:200, :5] *= 20  # a quarter of the panel marks a type
    found, estimated = protein.size_factors(rng.poisson(rates).astype(float))
    assert estimated
    assert np.corrcoef(np.log(found), np.log(size))[0, 1] > 0.97
    assert np.isclose(np.log(found).mean(), 0)


def test_small_panels_are_not_adjusted() -> None:
    found, estimated = protein.size_factors(np.ones((30, protein.MIN_PANEL - 1)))
    assert not estimated
    assert (found == 1).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(4.0, 8.0), st.floats(0.2, 0.8), st.integers(0, 50))
def test_mixtures_find_two_normals(distance: float, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    upper = rng.random(1500) < share
    x = rng.normal(np.where(upper, distance, 0.0), 1.0)
    fit = protein.fit_mixture(x)
    assert fit.reason == ""
    assert abs(fit.weight - share) < 0.1
    assert abs(fit.separation - distance) < 0.2 * distance
    # posterior of the truth, up to the error of the fit
    truth = share * norm.pdf(x, distance) / (
        share * norm.pdf(x, distance) + (1 - share) * norm.pdf(x)
    )  # fmt: skip
    between = (x > 0) & (x < distance)
    assert np.median(np.abs(fit.posterior(x)[between] - truth[between])) < 0.1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.random.default_rng(3).normal(0, 1, 500), "one population"),
        (np.random.default_rng(4).gamma(2.0, 1.0, 500), "overlap"),
        (np.r_[np.random.default_rng(5).normal(0, 1, 500), [30.0]], "too few cells"),
        (np.zeros(500), "same value"),
        (np.arange(20.0), "fewer than 50 cells"),
        (np.full(100, np.nan), "fewer than 50 cells"),
    ],
    ids=["normal", "skewed", "outlier", "constant", "few", "missing"],
)
def test_an_antibody_that_does_not_separate_is_refused(
    values: NDArray[np.float64], reason: str
) -> None:
    fit = protein.fit_mixture(values)
    assert reason in fit.reason
    assert np.isnan(fit.posterior(values)).all()


def test_posteriors_never_fall_with_the_value() -> None:
    """The wider of two normals would claim the far side of the narrow one, too."""
    rng = np.random.default_rng(6)
    fit = protein.fit_mixture(np.r_[rng.normal(0, 2.0, 800), rng.normal(6, 0.3, 300)])
    assert fit.reason == ""
    assert (np.diff(fit.posterior(np.linspace(-20, 20, 400))) >= 0).all()


def test_one_molecule_is_no_population() -> None:
    """Zeros and ones of a rare antibody are the noise of counting, not two kinds of cells."""
    counts = np.random.default_rng(7).poisson(0.7, 2000).astype(float)
    x = protein.clr(counts[:, None])[:, 0].astype(float)
    level = protein.geometric_levels(counts[:, None])[0]
    assert protein.fit_mixture(x, resolution=float(np.log1p(1 / level))).reason != ""


@given(st.lists(st.integers(0, 30), min_size=10, max_size=40), st.data())
def test_auroc_is_mann_whitney(values: list[int], data: st.DataObject) -> None:
    score = np.asarray(values, float)
    flags = data.draw(st.lists(st.booleans(), min_size=len(score), max_size=len(score)))
    yes = np.asarray(flags, bool)
    got = protein.auroc(score, yes)
    if min(yes.sum(), (~yes).sum()) < 5:
        assert np.isnan(got)
    else:
        want = mannwhitneyu(score[yes], score[~yes]).statistic / (yes.sum() * (~yes).sum())
        assert np.isclose(got, want)


def test_spearman_is_scipys() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.poisson(2, 60).astype(float), rng.normal(size=60)
    a[3] = np.nan
    known = np.isfinite(a)
    assert np.isclose(protein.spearman(a, b), spearmanr(a[known], b[known]).statistic)
    assert np.isnan(protein.spearman(np.zeros(60), b))


# -------------------------------------------------------------------------------------------------
# the phenotype arm


def arm_by_hand(marks: dict[str, float]) -> float:
    """P(phenotype) of one cell, from P(positive) of its antibodies, by listing what may be true."""
    gained = [m for m in ("CD57", "KLRG1") if m in marks]
    lost = [m for m in ("CD27", "CD28") if m in marks]
    names = gained + lost
    total = 0.0
    for code in range(2 ** len(names)):
        true = {name: bool(code >> k & 1) for k, name in enumerate(names)}
        chance = 1.0
        for name in names:
            p = marks[name] if name in gained else 1 - marks[name]
            chance *= p if true[name] else 1 - p
        if any(true[g] for g in gained) and any(true[m] for m in lost):
            total += chance
    return total


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=3, max_size=12))
def test_the_arm_is_a_mark_gained_and_a_mark_lost(rows: list[tuple[float, ...]]) -> None:
    names = ("CD57", "KLRG1", "CD27", "CD28")
    positive = np.asarray(rows)
    arm = protein.phenotype_arm(positive, names, np.ones(len(rows), bool))
    want = [1 - arm_by_hand(dict(zip(names, row, strict=True))) for row in rows]
    np.testing.assert_allclose(arm.pvalue, want, atol=1e-9)
    for i, own in enumerate(arm.pvalue):  # the tail rate, slowly
        tail = arm.pvalue[arm.pvalue <= own]
        assert np.isclose(arm.padj[i], tail.mean(), atol=1e-9)


def test_a_gained_mark_alone_is_no_phenotype() -> None:
    positive = np.asarray([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]] * 5)
    arm = protein.phenotype_arm(positive, ["CD57", "CD27"], np.ones(20, bool))
    np.testing.assert_array_equal(arm.pvalue[:4], [1, 0, 1, 1])
    assert arm.z[1] > max(arm.z[0], arm.z[2]) > arm.z[3]


@pytest.mark.parametrize(
    "names", [["CD57", "KLRG1"], ["CD27", "CD28"], ["CD45RA", "CCR7"], ["CD3", "CD4"]]
)
def test_the_arm_is_refused_without_both_kinds_of_mark(names: list[str]) -> None:
    arm = protein.phenotype_arm(np.full((10, 2), 0.5), names, np.ones(10, bool))
    assert arm.reason
    assert np.isnan(arm.pvalue).all()


def test_cells_that_cannot_be_judged_have_no_arm() -> None:
    positive = np.asarray([[1.0, 0.0], [np.nan, 0.0], [1.0, np.nan], [0.0, 1.0], [1.0, 0.0]])
    cells = np.asarray([True, True, True, True, False])
    arm = protein.phenotype_arm(positive, ["CD57", "CD27"], cells)
    np.testing.assert_array_equal(np.isfinite(arm.padj), [True, False, False, True, False])
    np.testing.assert_array_equal(np.isfinite(arm.z), [True, False, False, True, False])


def planted(
    n: int, seed: int, *, linked: bool, shares: tuple[float, float] = (0.3, 0.4)
) -> tuple[NDArray[np.float32], list[str], NDArray[np.bool_]]:
    """Counts of 20 antibodies; CD57 and CD27 mark cells, independently or together."""
    rng = np.random.default_rng(seed)
    names = ["CD57", "CD27", *protein.read_antibodies()["protein"][20:38]]
    size = np.exp(rng.normal(0, 0.6, n))
    gained = rng.random(n) < shares[0]
    lost = np.where(linked, gained, rng.random(n) < shares[1]).astype(bool)
    rates = np.outer(size, np.exp(rng.uniform(2.0, 5.0, len(names))))
    noise = np.exp(rng.normal(0, 0.45, rates.shape))
    rates[:, 0] = size * np.where(gained, 90, 10)
    rates[:, 1] = size * np.where(lost, 5, 80)
    return rng.poisson(rates * noise).astype(np.float32), names, gained & lost


@pytest.mark.parametrize("linked", [False, True])
def test_planted_phenotypes_are_found_at_the_stated_rate(linked: bool) -> None:
    """The nominal rate holds on average; where the marks occur together it is met with room."""
    rates, recalls, aurocs = [], [], []
    for seed in range(6):
        counts, names, truth = planted(1500, seed, linked=linked)
        n = len(counts)
        judged = protein.judge(
            counts, names, lineage=np.full(n, "T", dtype=object), use=np.ones(n, bool)
        )
        arm = protein.phenotype_arm(judged.positive, judged.names, np.ones(n, bool))
        assert arm.reason == ""
        called = arm.padj <= 0.05
        rates.append((called & ~truth).sum() / max(called.sum(), 1))
        recalls.append((called & truth).sum() / truth.sum())
        aurocs.append(protein.auroc(arm.z, truth))
    # normals are not quite what counts look like after the logarithm: up to 0.08 was measured
    assert np.mean(rates) <= 0.09
    assert np.mean(recalls) >= 0.7
    assert min(aurocs) >= 0.95


def test_without_the_phenotype_almost_nothing_is_called() -> None:
    """CD57+ cells that keep CD27, and CD27- cells without CD57: nobody has both."""
    rng = np.random.default_rng(9)
    counts, names, _ = planted(1500, 9, linked=False, shares=(0.0, 0.0))
    kind = rng.integers(0, 3, 1500)
    counts[kind == 1, 0] = rng.poisson(9 * counts[kind == 1, 0])
    counts[kind == 2, 1] = rng.poisson(counts[kind == 2, 1] / 16)
    judged = protein.judge(
        counts, names, lineage=np.full(1500, "T", dtype=object), use=np.ones(1500, bool)
    )
    arm = protein.phenotype_arm(judged.positive, judged.names, np.ones(1500, bool))
    assert arm.reason == ""
    assert (arm.padj <= 0.05).mean() <= 0.01


def judged_panel(order: NDArray[np.int64] | None = None) -> protein.Antibodies:
    counts, names, _ = planted(600, 11, linked=True)
    order = np.arange(600) if order is None else order
    return protein.judge(
        counts[order], names, lineage=np.full(600, "T", dtype=object), use=np.ones(600, bool)
    )


def test_the_order_of_cells_changes_no_bit() -> None:
    order = np.random.default_rng(12).permutation(600)
    first, second = judged_panel(), judged_panel(order)
    np.testing.assert_array_equal(first.positive[order], second.positive)
    np.testing.assert_array_equal(first.clr[order], second.clr)
    one, two = (
        protein.phenotype_arm(j.positive, j.names, np.ones(600, bool)) for j in (first, second)
    )
    np.testing.assert_array_equal(one.padj[order], two.padj)
    np.testing.assert_array_equal(one.z[order], two.z)
    pd.testing.assert_frame_equal(first.fits, second.fits)


def test_depth_alone_is_no_population() -> None:
    """Without size factors cells with many molecules look positive for everything."""
    rng = np.random.default_rng(13)
    size = np.exp(np.r_[rng.normal(-1, 0.3, 400), rng.normal(1.5, 0.3, 400)])
    names = protein.read_antibodies()["protein"][:20].tolist()
    counts = rng.poisson(np.outer(size, np.full(20, 30.0))).astype(np.float32)
    lineage, use = np.full(800, "T", dtype=object), np.ones(800, bool)
    assert protein.fit_mixture(protein.clr(counts)[:, 0]).reason == ""
    fits = protein.judge(counts, names, lineage=lineage, use=use).fits
    assert (fits["status"] == "not judged").all()


def test_cells_too_small_to_tell_are_not_judged() -> None:
    counts, names, _ = planted(600, 14, linked=True)
    counts[:20] = np.minimum(counts[:20], 1)
    judged = protein.judge(
        counts, names, lineage=np.full(600, "T", dtype=object), use=np.ones(600, bool)
    )
    assert np.isnan(judged.positive[:20, :2]).all()
    assert np.isfinite(judged.positive[20:, :2]).mean() > 0.95


def test_a_population_within_the_isotype_controls_is_not_positive() -> None:
    counts, names, _ = planted(600, 15, linked=True)
    controls = np.random.default_rng(15).poisson(5000, (600, 2)).astype(np.float32)
    judged = protein.judge(
        np.column_stack([counts, controls]), [*names, "Mouse IgG1 isotype", "Rat IgG2a isotype"],
        lineage=np.full(600, "T", dtype=object), use=np.ones(600, bool),
    )  # fmt: skip
    assert judged.fits.set_index("protein").loc["CD57", "reason"].endswith("isotype controls")
    assert "2 isotype controls" in judged.notes


def test_of_two_antibodies_to_one_protein_the_brighter_is_used() -> None:
    counts, names, _ = planted(600, 16, linked=True)
    twice = np.column_stack([counts[:, :1] // 10, counts])
    judged = protein.judge(
        twice, ["CD57 (clone 2)", *names], lineage=np.full(600, "T", dtype=object),
        use=np.ones(600, bool),
    )  # fmt: skip
    assert judged.names.count("CD57") == 1
    assert judged.fits.set_index("protein").loc["CD57", "antibody"] == "CD57"


def test_values_normalised_before_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(17)
    x = np.column_stack([np.r_[rng.normal(-1, 0.5, 200), rng.normal(3, 0.5, 200)]] * 2)
    x[:, 1] = rng.permutation(x[:, 1])
    judged = protein.judge(
        x, ["CD57", "CD27"], lineage=np.full(400, "T", dtype=object), use=np.ones(400, bool)
    )
    assert (judged.fits["status"] == "separates").all()
    assert judged.fits["frac_detected"].isna().all()
    np.testing.assert_allclose(judged.clr, x, rtol=1e-6)
