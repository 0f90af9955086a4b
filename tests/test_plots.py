"""Pictures: what is drawn is what the tables hold, and no label can break one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import score_space
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

import senoscore as sn
from senoscore import keys, pl, plots
from senoscore.errors import InputDataError


@pytest.fixture(autouse=True)
def _agg() -> Iterator[None]:
    """Draw without a screen, and leave no figure open."""
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def s() -> Any:
    return score_space.make()


def dots(ax: Axes, label: str) -> int:
    """Cells drawn by the scatter with this label."""
    return sum(
        len(c.get_offsets())
        for c in ax.collections
        if isinstance(c, PathCollection) and c.get_label() == label
    )


def legend(ax: Axes) -> list[str]:
    made = ax.get_legend()
    assert made is not None
    return [t.get_text() for t in made.get_texts()]


def words(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.texts]


def svg_of(ax: Axes) -> bytes:
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "x", "svg.fonttype": "none"}):
        ax.figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def buffer_of(ax: Axes) -> Any:
    """The pixels of the figure."""
    ax.figure.canvas.draw()
    return ax.figure.canvas.buffer_rgba()


# --------------------------------------------------------------------------------------------
# labels and numbers


@pytest.mark.parametrize("label", score_space.HOSTILE)
def test_a_label_becomes_one_short_printable_line(label: str) -> None:
    made = plots.clean_label(label)
    assert len(made) <= plots.MAX_LABEL
    assert made.isprintable()
    assert made == plots.clean_label(made)


def test_cutting_a_label_keeps_both_ends() -> None:
    made = plots.clean_label("CD8 T effector memory " + "x" * 100 + " donor 17", limit=20)
    assert len(made) == 20
    assert made.startswith("CD8 T")
    assert made.endswith("donor 17")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0"),
        (1, 100_000, "<0.1"),
        (1, 1000, "0.1"),
        (5, 100, "5.0"),
        (10, 100, "10"),
        (999, 1000, ">99"),
        (10, 10, "100"),
    ],
)
def test_a_share_never_rounds_to_nothing_or_to_all(part: int, whole: int, text: str) -> None:
    assert plots.percent(part, whole) == f"{text}\N{NO-BREAK SPACE}%"


def test_a_share_of_nothing_is_a_dash() -> None:
    assert plots.percent(0, 0) == "–"


def test_palettes_cover_the_vocabularies_and_hold_no_colour_twice() -> None:
    for palette, names in (
        (pl.LINEAGE_COLORS, keys.LINEAGES),
        (pl.T_STATE_COLORS, keys.T_STATES),
        (pl.CALL_COLORS, keys.SENESCENCE_CALLS),
    ):
        assert tuple(palette) == tuple(names)
        assert len(set(palette.values())) == len(names)


# linear RGB as seen without the L, the M, the S cone (Machado, Oliveira and Fernandes 2009)
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of linear RGB (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                       [0.0193, 0.1192, 0.9505]])  # fmt: skip
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("palette", [pl.LINEAGE_COLORS, pl.T_STATE_COLORS])
def test_colours_differ_for_the_colour_blind(kind: str, palette: Any) -> None:
    """Every pair is at least 8 apart in Lab, about four just noticeable differences."""
    seen = []
    for color in palette.values():
        rgb = np.array(mpl.colors.to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen.append(lab(np.array(BLINDNESS[kind]) @ linear))
    apart = [np.linalg.norm(seen[i] - seen[j]) for i in range(len(seen)) for j in range(i)]
    assert min(apart) > 8


# --------------------------------------------------------------------------------------------
# quality, lineages, scores


def test_qc_draws_every_dropped_cell_and_every_limit(s: Any) -> None:
    axes = pl.qc(s)
    assert [a.get_xlabel() for a in axes] == [
        "counts per cell", "genes per cell", "mitochondrial counts (%)",
    ]  # fmt: skip
    dropped = int((~s.obs["qc_pass"]).sum())
    for ax in axes:
        drawn = sum(len(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection))
        assert drawn == dropped
    kept = s.obs.groupby("donor_id", observed=True)["qc_pass"].agg(["sum", "size"])
    assert words(axes[-1]) == [
        f"{row['sum']:,} of {row['size']:,} kept" for _, row in kept.iterrows()
    ]
    limits = [line.get_xdata()[0] for line in axes[2].lines if len(line.get_xdata()) == 2]
    assert limits == [10.0] * 4


def test_qc_of_many_samples_draws_the_largest_and_says_so() -> None:
    s = score_space.make(400, donors=[f"D{i:02d}" for i in range(20)])
    (ax,) = pl.qc(s, metrics=["total_counts"], max_groups=3)
    sizes = s.obs["donor_id"].value_counts()
    shown = {t.get_text() for t in ax.get_yticklabels()}
    assert len(shown) == 3
    assert min(sizes[list(shown)]) >= sizes.drop(list(shown)).max()
    assert ax.get_title(loc="left") == "the 3 largest of 20 groups"


def test_qc_takes_limits_of_its_caller(s: Any) -> None:
    limits = pd.DataFrame({"sample": ["all cells"], "metric": ["genes"], "low": [600.0],
                           "high": [np.inf]})  # fmt: skip
    (ax,) = pl.qc(s, metrics=["n_genes_by_counts"], limits=limits)
    assert [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2] == [600.0] * 4


def test_qc_without_counts_says_so(s: Any) -> None:
    bare = s[:50].copy()
    for metric in ("total_counts", "n_genes_by_counts", "pct_counts_mt"):
        bare.obs[metric] = np.nan
    (ax,) = pl.qc(bare)
    assert "No raw counts" in words(ax)[0]


def test_lineage_bars_are_the_composition(s: Any) -> None:
    ax = pl.lineages(s)
    good = s.obs[s.obs["qc_pass"]]
    table = pd.crosstab(good["donor_id"], good["lineage"])
    widths = np.array([[bar.get_width() for bar in group] for group in ax.containers])
    expected = 100 * table.div(table.sum(axis=1), axis=0).to_numpy().T
    np.testing.assert_allclose(widths, expected)
    assert words(ax) == [f"{n:,}" for n in table.sum(axis=1)]
    assert legend(ax) == [
        f"{plots.LINEAGE_NAMES[name]} ({table[name].sum():,})" for name in table.columns
    ]


def test_many_donors_share_a_bar_and_no_cell_is_lost() -> None:
    s = score_space.make(600, donors=[f"D{i:02d}" for i in range(40)])
    ax = pl.lineages(s, max_groups=5)
    assert [t.get_text() for t in ax.get_yticklabels()][-1] == "35 smaller groups"
    assert sum(int(w) for w in words(ax)) == int(s.obs["qc_pass"].sum())


def test_cells_without_a_donor_have_a_row() -> None:
    s = score_space.make(200)
    s.obs["donor_id"] = s.obs["donor_id"].astype(object).where(np.arange(200) % 4 > 0, None)
    s.obs["donor_id"] = s.obs["donor_id"].astype("category")
    ax = pl.lineages(s)
    assert "(not stated)" in [t.get_text() for t in ax.get_yticklabels()]
    assert sum(int(w) for w in words(ax)) == int(s.obs["qc_pass"].sum())


def test_scores_say_the_share_called(s: Any) -> None:
    (ax,) = pl.scores(s, "conf_interferon")
    z, padj = plots.z_of(s, "conf_interferon"), plots.padj_of(s, "conf_interferon")
    lineage = s.obs["lineage"].astype(str).to_numpy()
    expected = []
    for name in keys.LINEAGES:
        here = lineage == name
        k, n = int((padj[here] <= 0.05).sum()), int(np.isfinite(z[here]).sum())
        expected.append(f"{plots.percent(k, n)} called ({k:,} of {n:,})")
    assert words(ax) == expected
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        plots.LINEAGE_NAMES[n] for n in keys.LINEAGES
    ]


def test_scores_show_only_lineages_the_signature_is_valid_in(s: Any) -> None:
    (ax,) = pl.scores(s, "b_senescence")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["B cells"]


def test_a_signature_that_is_not_scored_says_why(s: Any) -> None:
    (ax,) = pl.scores(s, score_space.UNSCORED)
    assert "not scored" in words(ax)[0]
    assert "2 of 10 genes measured" in words(ax)[0]


def test_scores_without_p_values_give_numbers_of_cells(s: Any) -> None:
    plain = s.copy()
    del plain.layers["padj"]
    (ax,) = pl.scores(plain, "b_senescence")
    n = int((plain.obs["lineage"] == "B").sum())
    assert words(ax) == [f"{n:,} cells"]


def in_place(s: Any) -> Any:
    """The same cells and scores as `tl.score` leaves them, beside a matrix of genes."""
    genes = ad.AnnData(
        np.full((s.n_obs, 3), 7.0), obs=s.obs, obsm={k: s.obsm[k] for k in s.obsm},
        var=pd.DataFrame(index=["CD27", "CD28", "KLRG1"]),
    )  # fmt: skip
    genes.obsm["senoscore_z"] = s.to_df()
    genes.obsm["senoscore_padj"] = s.to_df(layer="padj")
    genes.uns["senoscore"] = {"signatures": s.var.copy()}
    return genes


@pytest.mark.parametrize(
    "draw",
    [
        pl.coverage,
        lambda s: pl.scores(s, "b_senescence")[0],
        lambda s: pl.scores(s)[0],
        lambda s: pl.embedding(s, color="nk_senescence"),
        pl.t_states,
    ],
)
def test_cells_scored_in_place_give_the_same_picture(s: Any, draw: Any) -> None:
    expected = svg_of(draw(s))
    plt.close("all")
    assert svg_of(draw(in_place(s))) == expected


def test_genes_are_not_taken_for_scores(s: Any) -> None:
    genes = in_place(s)
    with pytest.raises(InputDataError, match="no signature 'CD27' among the scores"):
        pl.scores(genes, "CD27")
    with pytest.raises(InputDataError, match="no signature 'CD27' among the scores"):
        pl.embedding(genes, color="CD27")
    for key in [k for k in genes.obsm if k.startswith("senoscore")]:
        del genes.obsm[key]
    with pytest.raises(InputDataError, match="no z here"):
        pl.scores(genes, "b_senescence")
    with pytest.raises(InputDataError, match="no z here"):
        sn.get.scores_df(genes)
    with pytest.raises(InputDataError, match="no z here"):
        sn.tl.burden(genes)
    del genes.uns["senoscore"]["signatures"]
    with pytest.raises(InputDataError, match="no scores here"):
        pl.scores(genes)


def test_unknown_signatures_and_columns_are_named(s: Any) -> None:
    with pytest.raises(InputDataError, match="no signature 'nope' among the scores"):
        pl.scores(s, "nope")
    with pytest.raises(InputDataError, match="obs has no column 'nope'"):
        pl.lineages(s, groupby="nope")
    with pytest.raises(InputDataError, match="no embedding 'pca' in obsm; there are X_umap"):
        pl.embedding(s, basis="pca")
    with pytest.raises(InputDataError, match="1 Axes given where 2 pictures"):
        pl.scores(s, ["b_senescence", "nk_senescence"], ax=plt.subplots()[1])
    with pytest.raises(InputDataError, match="choose 'exhausted' or 'senescent'"):
        pl.markers(s, score_space.panel(s), state="tired")


# --------------------------------------------------------------------------------------------
# T cells


def state_counts(s: Any) -> dict[str, int]:
    counts = s.obs["t_state"].value_counts()
    return {name: int(counts[name]) for name in keys.T_STATES}


def test_the_map_has_one_dot_per_t_cell_and_its_legend_counts_them(s: Any) -> None:
    ax = pl.t_states(s)
    counts = state_counts(s)
    assert {n: dots(ax, f"_{n}") for n in keys.T_STATES} == counts
    assert legend(ax) == [f"{n} ({counts[n]:,})" for n in keys.T_STATES]


def test_the_map_puts_a_cell_where_its_axes_are(s: Any) -> None:
    ax = pl.t_states(s, x="exhaustion", y="senescence")
    both = s.obs[s.obs["t_state"] == "both"]
    (drawn,) = [c for c in ax.collections if c.get_label() == "_both"]
    low, high = ax.get_xlim()
    assert ((both["T_exhaustion"] > low) & (both["T_exhaustion"] < high)).all()
    np.testing.assert_allclose(
        np.asarray(drawn.get_offsets()), both[["T_exhaustion", "T_senescence"]].to_numpy()
    )


def test_the_lines_stand_at_the_lowest_significant_score(s: Any) -> None:
    ax = pl.t_states(s)
    name = score_space.EXHAUSTION
    z, padj = plots.z_of(s, name), plots.padj_of(s, name)
    level = z[padj <= 0.05].min()
    assert f"significant from {level:.1f}" in words(ax)
    vertical = [ln.get_xdata()[0] for ln in ax.lines if len(set(ln.get_xdata())) == 1]
    assert vertical == [pytest.approx(level)]


def test_a_thinned_map_says_what_it_left_out_and_counts_everything() -> None:
    s = score_space.make(8000)
    ax = pl.t_states(s, max_points=1500)
    counts = state_counts(s)
    assert legend(ax) == [f"{n} ({counts[n]:,})" for n in keys.T_STATES]
    called = [n for n in keys.T_STATES if n not in ("neither", "indeterminate")]
    drawn = {n: dots(ax, f"_{n}") for n in called}
    assert sum(drawn.values()) == 750
    assert drawn["both"] == counts["both"] <= 200  # a rare state is drawn whole
    shares = [drawn[n] / counts[n] for n in called if counts[n] > 200]
    assert max(shares) - min(shares) < 0.1  # the others evenly
    said = " ".join(words(ax))
    assert f"750 of {sum(counts[n] for n in called):,} other cells drawn" in said
    assert f"density of {counts['neither'] + counts['indeterminate']:,} cells" in said


def test_files_without_t_cells_say_so() -> None:
    s = score_space.make(60, lineages=("B", "NK"))
    assert words(pl.t_states(s)) == ["No T cells in this file."]


def test_t_cells_without_axes_say_so(s: Any) -> None:
    lost = s.copy()
    lost.obsm[keys.OBSM_T_AXES][:] = np.nan
    assert "could not both be scored" in words(pl.t_states(lost))[0]


def test_the_embedding_draws_every_cell_once(s: Any) -> None:
    ax = pl.embedding(s)
    assert sum(len(c.get_offsets()) for c in ax.collections) == s.n_obs
    counts = state_counts(s)
    expected = [f"{n} ({counts[n]:,})" for n in keys.T_STATES]
    outside = s.n_obs - sum(counts.values())
    assert legend(ax) == [*expected, f"no value ({outside:,})"]


def test_the_embedding_takes_a_signature_and_greys_what_is_not_scored(s: Any) -> None:
    ax = pl.embedding(s, color="b_senescence")
    grey, coloured = (len(c.get_offsets()) for c in ax.collections[:2])
    n = int((s.obs["lineage"] == "B").sum())
    assert (grey, coloured) == (s.n_obs - n, n)


def test_no_embedding_is_said() -> None:
    ax = pl.embedding(score_space.make(40, embedding=False))
    assert "no embedding" in words(ax)[0]


def test_a_column_of_many_labels_keeps_the_largest_and_pools_the_rest(s: Any) -> None:
    many = s.copy()
    many.obs["cluster"] = pd.Categorical([f"c{i % 30}" for i in range(s.n_obs)])
    ax = pl.embedding(many, color="cluster")
    assert len(legend(ax)) == 13
    numbers = [int(t.rsplit("(", 1)[1].rstrip(")").replace(",", "")) for t in legend(ax)]
    assert sum(numbers) == s.n_obs


def test_marker_dots_are_detection_and_mean(s: Any) -> None:
    """Second witness: the same numbers from a dense matrix and pandas."""
    counts, symbols, totals = score_space.panel(s)
    table = plots.marker_table(s, (counts, symbols, totals), genes=["CD27-", "TOX", "nope"])
    dense = pd.DataFrame(counts.toarray(), columns=symbols)
    logged = np.log1p(dense.div(totals, axis=0) * 1e4)
    state = s.obs["t_state"].astype(object).to_numpy()
    assert set(table["gene"]) == {"CD27-", "TOX"}
    for row in table.itertuples():
        gene, here = row.gene.removesuffix("-"), state == row.group
        assert row.n_cells == here.sum()
        assert row.pct_detected == pytest.approx(100 * (dense[gene][here] > 0).mean())
        assert row.mean == pytest.approx(logged[gene][here].mean())


def test_markers_draw_a_dot_per_measured_gene_and_state(s: Any) -> None:
    groups = {"up": ["TOX", "PDCD1"], "down": ["CD27-"], "gone": ["NOT_THERE"]}
    ax = pl.markers(s, score_space.panel(s), genes=groups)
    (made,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert len(made.get_offsets()) == 3 * 7
    assert "not measured" in words(ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "TOX", "PDCD1", "CD27 ↓", "NOT_THERE",
    ]  # fmt: skip
    counts = state_counts(s)
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        f"{n} ({counts[n]:,})" for n in keys.T_STATES
    ]


@pytest.mark.parametrize("state", ["exhausted", "senescent"])
@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_marker_groups_name_no_gene_twice(state: str, organism: str) -> None:
    groups = plots.marker_groups(state, organism=organism)
    genes = [g.removesuffix("-") for members in groups.values() for g in members]
    assert len(genes) == len(set(genes)) > 5
    shared = {"human": "HAVCR2", "mouse": "Havcr2"}[organism]
    voting = [g for k, v in groups.items() if "vote" in k and "no vote" not in k for g in v]
    assert shared not in voting


def test_a_panel_of_another_file_is_refused(s: Any) -> None:
    with pytest.raises(InputDataError, match="they are of two files"):
        pl.markers(s[:10].copy(), score_space.panel(s))


# --------------------------------------------------------------------------------------------
# coverage, calibration, burden


def test_coverage_bars_are_the_table(s: Any) -> None:
    ax = pl.coverage(s)
    names = [t.get_text() for t in ax.get_yticklabels()]
    widths = dict(zip(names, (b.get_width() for b in ax.patches), strict=True))
    assert widths == {n: pytest.approx(100 * c) for n, c in s.var["coverage"].items()}
    assert names[-1] == score_space.UNSCORED
    assert words(ax)[-1] == "2/10  not scored"


def test_calibration_draws_a_line_per_lineage() -> None:
    table = score_space.calibration_table()
    left, right = pl.calibration(table)
    assert legend(left) == ["T cells", "B cells", "monocytes/macrophages"]
    lines = [ln for ln in left.lines if len(ln.get_xdata()) == 6]
    assert len(lines) == 3
    np.testing.assert_allclose(
        lines[0].get_ydata(), 100 * table.loc[table["lineage"] == "T", "fpr_0.05"]
    )
    observed = [ln.get_ydata() for ln in right.lines if len(ln.get_xdata()) == 4]
    np.testing.assert_allclose(observed[0], [0.51, 0.0525, 0.011, 0.0012])


@pytest.mark.parametrize("draw", [pl.calibration, pl.burden, pl.agreement])
def test_what_is_no_table_is_refused_with_the_name_of_one(s: Any, draw: Any) -> None:
    with pytest.raises(InputDataError, match=r"such as (\w+)\.tsv, .* found AnnData without"):
        draw(s)


def test_an_empty_calibration_says_so() -> None:
    axes = pl.calibration(pd.DataFrame(columns=["lineage", "depth_stratum", "fpr_0.05"]))
    assert all("No calibration" in words(ax)[0] for ax in axes)


def test_burden_dots_are_the_donors_shares(s: Any) -> None:
    table = score_space.donor_table(s)
    rows = table[table["lineage"] == "T"].sort_values("donor")
    ax = pl.burden(table)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(rows["donor"])
    for state in ("exhausted", "senescent"):
        (made,) = [c for c in ax.collections if c.get_label() == f"_{state}"]
        np.testing.assert_allclose(
            np.asarray(made.get_offsets())[:, 0], 100 * rows[f"frac_t_{state}"]
        )
    assert words(ax)[0] == f"{int(rows['n_qc_pass'].iloc[0]):,} cells"


def test_donors_of_a_condition_stand_together(s: Any) -> None:
    table = score_space.donor_table(s)
    ax = pl.burden(table, condition={"D1": "b", "D2": "a", "D3": "b", "D4": "a"})
    assert [t.get_text() for t in ax.get_yticklabels()] == ["D2 (a)", "D4 (a)", "D1 (b)", "D3 (b)"]


def test_donors_with_too_few_cells_have_a_row_but_no_dot(s: Any) -> None:
    table = score_space.donor_table(s, min_cells=80)
    rows = table[table["lineage"] == "T"]
    few = int((rows["n_qc_pass"] < 80).sum())
    assert 0 < few < len(rows)
    ax = pl.burden(table)
    assert len(ax.get_yticklabels()) == len(rows)
    assert dots(ax, "_exhausted") == len(rows) - few
    assert sum("too few" in w for w in words(ax)) == few


# --------------------------------------------------------------------------------------------
# every picture


def hostile() -> Any:
    s = score_space.make(500, donors=score_space.HOSTILE)
    s.var["title"] = [score_space.HOSTILE[i % len(score_space.HOSTILE)] for i in range(s.n_vars)]
    s.var["reason"] = [f"because {t}" for t in s.var["title"]]
    return s


def renamed(s: Any) -> Any:
    """The same with signatures of hostile names."""
    names = [f"{score_space.HOSTILE[i % len(score_space.HOSTILE)]} {i}" for i in range(s.n_vars)]
    s.var_names = names
    return s


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
@pytest.mark.parametrize(
    "draw",
    [
        lambda s: pl.qc(s)[0],
        pl.lineages,
        lambda s: pl.scores(s, [*s.var_names[[0, 2]], score_space.UNSCORED])[0],
        lambda s: pl.embedding(s, color="donor_id"),
        lambda s: pl.burden(score_space.donor_table(s, min_cells=1)),
        lambda s: pl.markers(
            s, score_space.panel(s), genes={h: ["TOX", h] for h in score_space.HOSTILE}
        ),
        lambda s: pl.coverage(renamed(s)),
    ],
    ids=["qc", "lineages", "scores", "embedding", "burden", "markers", "coverage"],
)
def test_hostile_labels_are_drawn_as_they_are(draw: Any) -> None:
    """Dollars are no mathematics, angle brackets no elements, a leading underscore is kept."""
    content = svg_of(draw(hostile()))
    root = ET.fromstring(content)
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    text = "".join(t for e in root.iter() if e.tag.endswith("}text") for t in e.itertext())
    assert "<script>" in text
    assert "$x_{1}$" in text


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
def test_a_label_that_starts_with_an_underscore_is_in_the_legend() -> None:
    assert any("_starts" in t for t in legend(pl.embedding(hostile(), color="donor_id")))


@pytest.mark.parametrize(
    "draw",
    [
        lambda s, ax: pl.lineages(s, ax=ax),
        lambda s, ax: pl.t_states(s, ax=ax),
        lambda s, ax: pl.embedding(s, ax=ax),
        lambda s, ax: pl.coverage(s, ax=ax),
        lambda s, ax: pl.markers(s, score_space.panel(s), ax=ax),
        lambda s, ax: pl.burden(score_space.donor_table(s), ax=ax),
        lambda s, ax: pl.scores(s, "b_senescence", ax=ax)[0],
        lambda s, ax: pl.qc(s, metrics=["total_counts"], ax=[ax])[0],
    ],
)
def test_a_picture_is_drawn_where_it_is_told_and_changes_nothing_else(s: Any, draw: Any) -> None:
    before = {k: mpl.rcParams[k] for k in mpl.rcParams if not k.startswith("backend")}
    copied = s.copy()
    _, ax = plt.subplots()
    assert draw(s, ax) is ax
    assert len(plt.get_fignums()) == 1
    assert {k: mpl.rcParams[k] for k in mpl.rcParams if not k.startswith("backend")} == before
    pd.testing.assert_frame_equal(s.obs, copied.obs)
    np.testing.assert_array_equal(s.X, copied.X)


@pytest.mark.parametrize("draw", [pl.t_states, pl.embedding, lambda s: pl.qc(s)[0]])
def test_the_same_data_give_the_same_picture(draw: Any) -> None:
    s = score_space.make(3000)
    first, second = (np.asarray(buffer_of(draw(s))) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_thirty_cells_are_enough_to_draw() -> None:
    s = score_space.make(30)
    for made in (pl.qc(s), pl.scores(s), [pl.t_states(s), pl.embedding(s), pl.lineages(s)]):
        for ax in made:
            svg_of(ax)


def test_the_picture_of_agreement_shows_the_numbers_of_its_table() -> None:
    from test_agreement import cells

    from senoscore.agreement import agreement

    table = agreement(**cells(400))
    ax = pl.agreement(table, lineage="B")
    shown = np.asarray(ax.images[0].get_array().filled(np.nan))
    rows = table[table["lineage"] == "B"].reset_index(drop=True)
    names = list(dict.fromkeys([*rows["a"], *rows["b"]]))
    assert [t.get_text().split("  ")[0] for t in ax.get_yticklabels()] == names
    for row in rows.itertuples():
        i, j = names.index(row.a), names.index(row.b)
        rank = 2 * row.auroc - 1 if np.isnan(row.spearman) else row.spearman
        np.testing.assert_equal((shown[j, i], shown[i, j]), (rank, row.kappa))
    assert len(ax.texts) == int(np.isfinite(shown).sum())
    empty = pl.agreement(table, lineage="NK")
    assert words(empty) == ["No published set is scored in NK cells."]
