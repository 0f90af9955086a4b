"""Targets of senolytic and senomorphic strategies in called and not-called cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from statsmodels.stats.proportion import proportion_confint

import senoscore as sn
from senoscore import annotate, keys, models, scoring
from senoscore import targets as module
from senoscore.inputs import read_input
from senoscore.signatures import read_signatures, read_targets
from senoscore.simulate import simulate
from senoscore.streaming import Panel

GENES = ("SRC", "BCL2", "BCL2L1", "CDKN1A")
TARGETS = pd.DataFrame(
    [
        ("T-1", "D+Q", "senolytic", "T B", "SRC", "inhibit", "proxy"),
        ("T-2", "D+Q", "senolytic", "T B", "BCL2L1", "inhibit", "yes"),
        ("T-3", "Navitoclax", "senolytic", "T B", "BCL2L1", "inhibit", "yes"),
        ("T-4", "rapamycin", "readout", "T", "CDKN1A", "reduced", "yes"),
        ("T-5", "CAR-T", "CAR antigen", "other", "PROM1", "deplete", "yes"),
        ("T-6", "vaccine", "senolytic", "T", "TNFSF8", "deplete", "yes"),
    ],
    columns=["target_id", "strategy", "class", "lineages", "gene", "action", "measurable"],
)


def counts(
    n: int = 3000,
    *,
    seed: int = 0,
    n_donors: int = 6,
    gain: float = 1.0,
    rate: float = 0.1,
    between: float = 0.3,
) -> dict[str, Any]:
    """Counts of the target genes in made cells; BCL2L1 is `gain` times higher in called cells."""
    rng = np.random.default_rng(seed)
    donor = np.asarray([f"D{i}" for i in rng.integers(0, n_donors, n)], dtype=object)
    lineage = np.asarray(rng.choice(["T", "B"], n, p=[0.8, 0.2]), dtype=object)
    call = np.asarray(
        rng.choice(["senescent", "not_senescent", "indeterminate"], n, p=[rate, 0.8 - rate, 0.2]),
        dtype=object,
    )
    totals = np.rint(rng.lognormal(8, 0.3, n))
    own = {f"D{i}": rng.normal(0, between, (2, len(GENES))) for i in range(n_donors)}
    effect = np.asarray([own[d] for d in donor])
    level = np.log([3, 1, 2, 0.5]) + effect[:, 0]
    sick = call == "senescent"
    # donors differ in what senescence does, too
    level = level + np.where(sick[:, None], 0.5 * effect[:, 1], 0)
    level[sick, GENES.index("BCL2L1")] += np.log(gain)
    x = rng.poisson(np.exp(level) * totals[:, None] / 1e4)
    return {
        "x": sparse.csr_matrix(x.astype(float)),
        "totals": totals,
        "donor": donor,
        "lineage": lineage,
        "call": call,
        "use": rng.random(n) < 0.95,
    }


def table_of(made: dict[str, Any], **options: Any) -> pd.DataFrame:
    log = scoring.expression_matrix(made["x"], made["totals"], "counts")
    linear = log.copy()
    linear.data = np.expm1(linear.data)
    expression = module.Expression(
        log,
        linear,
        {g: k for k, g in enumerate(GENES)},
        {"PROM1": "not measured in this file", "TNFSF8": "not measured in this file"},
    )
    given = {k: made[k] for k in ("lineage", "call", "use", "donor", "totals")}
    return module.target_table(expression, TARGETS, **{**given, "confidence": 0.95, **options})


def cells_of(made: dict[str, Any], gene: str, lineage: str) -> pd.DataFrame:
    """The cells that count, one gene, by hand."""
    x = np.asarray(made["x"].todense())[:, GENES.index(gene)]
    frame = pd.DataFrame(
        {k: made[k] for k in ("donor", "lineage", "call", "use", "totals")} | {"x": x}
    )
    frame["cp10k"] = frame["x"] / frame["totals"] * 1e4
    frame["log"] = np.log1p(frame["cp10k"])
    return frame[
        frame["use"]
        & (frame["lineage"] == lineage)
        & frame["call"].isin(["senescent", "not_senescent"])
    ]


def test_rows_of_a_donor_are_what_pandas_and_statsmodels_say() -> None:
    made = counts()
    table = table_of(made)
    assert tuple(table.columns) == module.COLUMNS
    checked = 0
    for row in table[table["donor"] != module.EVERYONE].to_dict("records"):
        own = cells_of(made, row["gene"], row["lineage"])
        own = own[own["donor"] == row["donor"]]
        for side, value in (("called", "senescent"), ("not_called", "not_senescent")):
            group = own[own["call"] == value]
            assert row[f"n_{side}"] == len(group)
            assert row[f"frac_{side}"] == pytest.approx((group["x"] > 0).mean())
            limits = proportion_confint((group["x"] > 0).sum(), len(group), method="wilson")
            assert (row[f"frac_{side}_low"], row[f"frac_{side}_high"]) == pytest.approx(limits)
            assert row[f"mean_cp10k_{side}"] == pytest.approx(group["cp10k"].mean(), abs=1e-5)
            assert row[f"mean_log_{side}"] == pytest.approx(group["log"].mean(), abs=1e-6)
            checked += 1
        assert row["log_difference"] == pytest.approx(
            row["mean_log_called"] - row["mean_log_not_called"]
        )
        assert np.isnan(row["log_difference_low"])
        assert np.isnan(row["pvalue"])
    assert checked > 60


def test_the_row_of_all_donors_is_a_paired_test_over_donors() -> None:
    """Donors of as many cells weigh alike: then it is scipy's t test of their differences."""
    made = counts(6 * 300, n_donors=6, seed=3, gain=2.0)
    n = len(made["donor"])
    made["donor"] = np.asarray([f"D{i % 6}" for i in range(n)], dtype=object)
    made["lineage"][:] = "T"
    made["use"][:] = True
    made["call"][:] = np.where((np.arange(n) // 6) % 3 == 0, "senescent", "not_senescent")
    row = table_of(made).query("donor == @module.EVERYONE and target_id == 'T-2'").iloc[0]
    frame = cells_of(made, "BCL2L1", "T")
    means = frame.groupby(["donor", "call"])["log"].mean().unstack()
    expected = stats.ttest_rel(means["senescent"], means["not_senescent"])
    assert row["log_difference"] == pytest.approx(
        (means["senescent"] - means["not_senescent"]).mean(), abs=1e-6
    )
    assert row["pvalue"] == pytest.approx(expected.pvalue, rel=1e-4)
    interval = expected.confidence_interval(0.95)
    assert (row["log_difference_low"], row["log_difference_high"]) == pytest.approx(
        (interval.low, interval.high), abs=1e-6
    )
    shares = frame.assign(on=frame["x"] > 0).groupby(["donor", "call"])["on"].mean().unstack()
    assert row["frac_called"] == pytest.approx(shares["senescent"].mean())
    low, high = stats.ttest_1samp(shares["senescent"], 0).confidence_interval(0.95)
    assert (row["frac_called_low"], row["frac_called_high"]) == pytest.approx(
        (max(low, 0), min(high, 1))
    )
    assert row["n_donors"] == 6


def test_donors_of_few_called_cells_weigh_less_as_their_sampling_says() -> None:
    made = counts(4000, n_donors=7, seed=8)
    keep = np.random.default_rng(0).random(4000) < np.where(made["donor"] == "D0", 0.25, 1.0)
    made = {k: v[keep] for k, v in made.items()}
    row = table_of(made).query("donor == @module.EVERYONE and target_id == 'T-1'").iloc[0]
    groups = cells_of(made, "SRC", "T").assign(on=lambda f: f["x"] > 0).groupby(["call", "donor"])
    n = groups.size().unstack()
    assert n.loc["senescent"].min() < n.loc["senescent"].max() / 2
    smooth = (groups["on"].sum().unstack() + 0.5) / (n + 1)
    deviation = groups["log"].var(ddof=1).unstack()
    pooled = (deviation * (n - 1)).sum(axis=1) / (n - 1).sum(axis=1)
    expected = {
        "frac_difference": (groups["on"].mean(), (smooth * (1 - smooth) / n).sum(axis=0)),
        "log_difference": (groups["log"].mean(), (1 / n).mul(pooled, axis=0).sum(axis=0)),
    }
    each = np.arange(n.shape[1], dtype=np.int64)
    for name, (mean, sampling) in expected.items():
        values = mean.unstack().loc["senescent"] - mean.unstack().loc["not_senescent"]
        fit = models.fit_means(
            values.to_numpy(), sampling.to_numpy(), np.ones((len(each), 1)), 0, each
        )
        assert row[name] == pytest.approx(fit.effect, abs=1e-6)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(
            fit.interval(0.95), abs=1e-6
        )


def test_no_difference_is_found_in_one_of_twenty_tables_and_a_planted_one_is() -> None:
    null, covered = [], []
    for seed in range(150):
        table = table_of(counts(1800, seed=seed, n_donors=8))
        own = table[(table["donor"] == module.EVERYONE) & (table["lineage"] == "T")]
        null.append(own.drop_duplicates("gene")["pvalue"].dropna().to_numpy())
    rate = np.mean(np.concatenate(null) < 0.05)
    assert len(np.concatenate(null)) == 450
    assert 0.02 <= rate <= 0.08
    for seed in range(25):
        table = table_of(counts(1800, seed=seed, n_donors=8, gain=4.0))
        row = table[(table["donor"] == module.EVERYONE) & (table["gene"] == "BCL2L1")].iloc[0]
        covered.append(row["pvalue"] < 0.05)
    assert np.mean(covered) > 0.9


def test_few_donors_are_described_not_tested() -> None:
    made = counts(n_donors=2)
    row = table_of(made).query("donor == @module.EVERYONE and target_id == 'T-1'").iloc[0]
    frame = cells_of(made, "SRC", "T")
    group = frame[frame["call"] == "senescent"]
    assert row["frac_called"] == pytest.approx((group["x"] > 0).mean())
    limits = proportion_confint((group["x"] > 0).sum(), len(group), method="wilson")
    assert (row["frac_called_low"], row["frac_called_high"]) == pytest.approx(limits)
    assert row["mean_log_called"] == pytest.approx(group["log"].mean(), abs=1e-6)
    assert row["mean_cp10k_called"] == pytest.approx(group["cp10k"].mean(), abs=1e-5)
    assert np.isnan(row["pvalue"])
    assert "2 donors have 5 cells of each kind, 3 needed" in row["note"]


def test_cells_of_nobody_in_particular_are_pooled_where_the_file_names_no_donors() -> None:
    from senoscore.donors import ALL_DONORS

    made = counts()
    made["donor"][:] = ALL_DONORS
    table = table_of(made)
    assert set(table["donor"]) == {module.EVERYONE}
    measured = table[table["gene"] != "TNFSF8"]
    assert measured["note"].str.contains("the file names no donors").all()
    assert table["pvalue"].isna().all()
    made["donor"][:] = ""
    assert len(table_of(made)) == 0


def test_genes_not_measured_and_genes_that_make_the_call_are_said() -> None:
    table = table_of(counts())
    missing = table[table["gene"] == "TNFSF8"]
    assert (missing["note"] == "not measured in this file").all()
    assert missing["frac_called"].isna().all()
    # no cell of lineage other: its targets have no row
    assert "PROM1" not in set(table["gene"])
    arrest = {g.symbol for g in read_signatures()["t_arm_arrest"].voting()}
    assert "CDKN1A" in arrest
    assert (
        table.loc[table["gene"] == "CDKN1A", "note"].str.contains("genes that make this call").all()
    )
    assert not table.loc[table["gene"] == "SRC", "note"].str.contains("make this call").any()
    assert "KLRG1" in module.voters("T")
    assert "KLRG1" not in module.voters("B")


def test_a_gene_of_two_strategies_is_one_test() -> None:
    table = table_of(counts(gain=2.0))
    tested = table[table["pvalue"].notna()]
    unique = tested.drop_duplicates(["lineage", "gene"])
    assert len(tested) > len(unique)
    expected = dict(
        zip(
            zip(unique["lineage"], unique["gene"], strict=True),
            stats.false_discovery_control(unique["pvalue"]),
            strict=True,
        )
    )
    for row in tested.itertuples():
        assert row.padj == pytest.approx(expected[row.lineage, row.gene])
    assert table.loc[table["pvalue"].isna(), "padj"].isna().all()


def test_deeper_called_cells_are_said() -> None:
    made = counts()
    made["totals"] = np.where(made["call"] == "senescent", 9000.0, 3000.0)
    everyone = table_of(made).query("donor == @module.EVERYONE and gene == 'SRC'")
    np.testing.assert_allclose(everyone["log2_depth_ratio"], np.log2(3), atol=1e-6)
    assert (
        everyone["note"].str.contains("called cells have 3.0 times the counts of not-called").all()
    )


def test_order_of_cells_does_not_matter() -> None:
    made = counts(seed=5)
    order = np.random.default_rng(0).permutation(len(made["donor"]))
    shuffled = {k: v[order] for k, v in made.items()}
    pd.testing.assert_frame_equal(table_of(made), table_of(shuffled))


def test_no_called_cell_leaves_the_others_described() -> None:
    made = counts()
    made["call"][:] = "not_senescent"
    table = table_of(made)
    assert set(table["donor"]) == {module.EVERYONE}
    row = table[table["gene"] == "SRC"].iloc[0]
    assert row["n_called"] == 0
    assert np.isnan(row["frac_called"])
    assert row["frac_not_called"] > 0
    assert "no cell called senescent" in row["note"]


# --------------------------------------------------------------------------------------------
# in a file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[ad.AnnData, Path, ad.AnnData]:
    made = simulate(1500, 19000, n_donors=6, seed=2)
    folder = tmp_path_factory.mktemp("targets")
    return made, folder, sn.analyse(made, out=folder)


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name, sep="\t", keep_default_na=False, na_values=["NA"])


def test_table_of_a_run_is_that_of_its_counts(run: tuple[ad.AnnData, Path, ad.AnnData]) -> None:
    made, folder, scored = run
    table = read(folder, "targets.tsv")
    assert tuple(table.columns) == module.COLUMNS
    assert set(table["target_id"]) == set(read_targets()["target_id"])
    total = np.asarray(made.X.sum(axis=1)).ravel()
    judged = scored.obs[scored.obs["qc_pass"] & (scored.obs["lineage"] == "T")]
    called = judged.loc[judged["senescence_call"] == "senescent", "donor_id"].astype(str)
    assert len(called) >= 5, "too few T cells of this cohort are called: plant more"
    of_donors = table[(table["lineage"] == "T") & (table["donor"] != module.EVERYONE)]
    assert set(of_donors["donor"]) == set(called)
    checked = 0
    for row in of_donors[of_donors["gene"].isin(made.var_names)].to_dict("records"):
        own = judged[judged["donor_id"] == row["donor"]]
        for side, value in (("called", "senescent"), ("not_called", "not_senescent")):
            cells = made.obs_names.isin(own.index[own["senescence_call"] == value])
            x = np.asarray(made[cells, row["gene"]].X.todense()).ravel()
            assert row[f"n_{side}"] == cells.sum() > 0
            assert row[f"frac_{side}"] == pytest.approx((x > 0).mean(), abs=1e-6)
            assert row[f"mean_cp10k_{side}"] == pytest.approx(
                (x / total[cells]).mean() * 1e4, rel=1e-4, abs=1e-5
            )
            checked += 1
    assert checked >= 20


def test_panel_holds_all_targets_and_controls_stay_what_they_were(
    run: tuple[ad.AnnData, Path, ad.AnnData],
) -> None:
    made, folder, _ = run
    from senoscore.pipeline import read_panel

    panel, symbols, _ = read_panel(folder)
    wanted = {g for g in read_targets()["gene"] if g in made.var_names}
    assert wanted <= set(symbols)
    data = read_input(made)
    assert panel.shape[1] == len(annotate.panel_positions(data))
    registry = scoring.registry_positions(data.genes)
    outside = [p for p in annotate.target_positions(data) if p >= 0 and not registry[p]]
    assert len(outside) > 10
    eligible = scoring.control_eligible(data.genes)
    assert eligible[outside].all()
    expected = ~(registry | data.genes.mask("mito") | data.genes.mask("tcr_ig"))
    np.testing.assert_array_equal(eligible, expected)


def test_mouse_genes_without_counterpart_and_values_that_are_no_expression() -> None:
    rng = np.random.default_rng(0)
    names = ["Src", "Bcl2", "Cdkn1a", "Cd3e", "Ptprc", *[f"Gm{1000 + i}" for i in range(40)]]
    made = ad.AnnData(
        rng.poisson(2, (60, len(names))).astype(np.float32),
        var=pd.DataFrame(index=names),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(60)]),
    )
    data = read_input(made, overrides={"organism": "mouse"})
    known = read_targets()
    kept = annotate.panel_positions(data)
    column = {g: i for i, g in enumerate(data.genes.symbols)}
    values = sparse.csr_matrix(made.X)
    taken = values[:, [names.index(data.genes.symbols[p]) for p in kept]].tocsr()
    panel = Panel.of(taken)
    found = module.target_expression(panel, np.asarray(made.X.sum(1)), data, known)
    assert found.absent["LILRB2"] == "no counterpart in the mouse"
    assert found.absent["BCL2L1"] == "not measured in this file"
    assert "SRC" in found.columns
    assert found.cp10k is not None
    src = np.asarray(found.cp10k.todense())[:, found.columns["SRC"]]
    np.testing.assert_allclose(src, made.X[:, 0] / made.X.sum(1) * 1e4, rtol=1e-5)
    assert column["Src"] >= 0

    from dataclasses import replace

    scaled = module.target_expression(
        panel, np.asarray(made.X.sum(1)), replace(data, scale="scaled"), known
    )
    assert not scaled.columns
    assert "scaled values" in scaled.absent["SRC"]


def test_comparisons_of_a_run_are_written_and_readable(
    run: tuple[ad.AnnData, Path, ad.AnnData],
) -> None:
    from senoscore.compare import COLUMNS

    _, folder, scored = run
    table = read(folder, "comparisons.tsv")
    assert tuple(table.columns) == COLUMNS
    # the facts chose the column of diseases; its reference is the healthy one
    assert set(table.loc[table["term"] == "disease", "reference"]) == {"normal"}
    assert (table["term"] == "age").any()
    again = sn.tl.compare(scored, condition="disease")
    own = table[table["term"] == "disease"].reset_index(drop=True)
    np.testing.assert_allclose(own["effect"], again["effect"].astype(float), rtol=1e-6)
    assert set(scored.obs["lineage"].dropna()) <= set(keys.LINEAGES)
