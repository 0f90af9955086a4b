"""The report: its numbers are the tables' numbers, and nothing in a file can break out of it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import score_space

from senoscore import keys, plots
from senoscore.compare import refused
from senoscore.errors import ConfigError, InputDataError
from senoscore.io.artefacts import write_tsv
from senoscore.report import _artefacts, _page, _sections, build_report, build_summary

VOID = {"meta", "img", "br", "hr", "link", "input", "base", "source"}


@dataclass
class Page(HTMLParser):
    """A page taken apart: its elements, its text by section, its tables, its pictures."""

    text: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    unbalanced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._section = "head"
        self._cell: str | None = None
        self._row: list[str] = []
        self._head: list[str] = []
        self._rows: list[dict[str, str]] = []
        self._name = ""
        self._naming = False
        self.feed(self.text)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = str(dict(attrs).get("id"))
        elif tag in ("caption", "summary"):
            self._naming, self._name = True, ""
        elif tag in ("td", "th"):
            self._cell = ""
        elif tag == "tr":
            self._row = []
        elif tag == "table":
            self._head, self._rows = [], []

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)
        if tag in ("caption", "summary"):
            self._naming = False
        elif tag in ("td", "th"):
            self._row.append(" ".join((self._cell or "").split()))
            self._cell = None
        elif tag == "tr" and not self._head:
            self._head = self._row
        elif tag == "tr":
            self._rows.append(dict(zip(self._head, self._row, strict=True)))
        elif tag == "table":
            name = re.sub(r" \([\d,]+ rows?\)$", "", " ".join(self._name.split()))
            self.tables[f"{self._section}/{name}"] = self._rows

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            return
        self.words[self._section] = self.words.get(self._section, "") + data
        if self._naming:
            self._name += data
        if self._cell is not None:
            self._cell += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def section(self, name: str) -> str:
        return " ".join(self.words[name].replace("\N{NO-BREAK SPACE}", " ").split())


def read(directory: Path) -> Page:
    return Page((directory / "report.html").read_text("utf-8"))


def report(s: Any, directory: Path, *, figures: bool = True, **options: Any) -> Page:
    score_space.write_artefacts(s, directory, **options)
    build_report(directory, figures=figures)
    return read(directory)


@pytest.fixture(scope="module")
def s() -> Any:
    return score_space.make()


@pytest.fixture(scope="module")
def folder(s: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("results") / "lung 1"
    score_space.write_artefacts(s, directory)
    build_report(directory)
    return directory


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return read(folder)


def number(text: str) -> int:
    return int(text.replace(",", ""))


# --------------------------------------------------------------------------------------------
# numbers


def test_the_states_are_counted_right(s: Any, page: Page) -> None:
    good = s.obs[s.obs["qc_pass"] & (s.obs["lineage"] == "T")]
    rows = page.tables["t-cells/T cells by state"]
    assert [r["state"] for r in rows] == list(keys.T_STATES)
    for row in rows:
        assert number(row["T cells"]) == int((s.obs["t_state"] == row["state"]).sum())
        assert number(row["passed quality control"]) == int((good["t_state"] == row["state"]).sum())


def test_subsets_of_t_cells_are_the_same_wherever_they_stand(tmp_path: Path) -> None:
    s = score_space.make(200)
    # the label says no more than "T cell"; the genes of the cells do
    is_t = (s.obs["lineage"] == "T").to_numpy()
    s.obs["lineage_subset"] = pd.Categorical(
        np.where(is_t, "T", s.obs["lineage_subset"].astype(object))
    )
    page = report(s, tmp_path / "x", figures=False)
    told = next(r for r in page.tables["lineages/Lineages"] if r["lineage"] == "T cells")
    counts = s.obs.loc[is_t, "t_subset"].value_counts()
    assert dict(part.rsplit(" ", 1) for part in told["subsets (cells)"].split(", ")) == {
        name: str(n) for name, n in counts.items()
    }


def test_cells_without_a_lineage_are_counted_apart(tmp_path: Path) -> None:
    s = score_space.make(200)
    lost = np.arange(200) % 10 == 0
    for column in ("lineage", "t_state", "senescence_call"):
        s.obs.loc[lost, column] = None
    source = np.where(lost, "unmapped", "label").astype(object)
    source[:20:10] = "ambiguous"
    s.obs["lineage_source"] = pd.Categorical(source)
    said = report(s, tmp_path / "x", figures=False).section("lineages")
    assert "Source: the file's labels (180 cells)." in said
    assert "20 cells have no lineage" in said
    assert "unmapped" not in said


def test_many_cells_without_a_lineage_are_a_warning(tmp_path: Path) -> None:
    s = score_space.make(100)
    for column in ("lineage", "t_state", "senescence_call"):
        s.obs.loc[np.arange(100) < 30, column] = None
    head = report(s, tmp_path / "x", figures=False).section("head")
    assert "30 of 100 cells have no lineage" in head


def test_the_first_sentence_answers_the_question(s: Any, page: Page) -> None:
    good = s.obs[s.obs["qc_pass"] & (s.obs["lineage"] == "T")]
    counts = good["t_state"].value_counts()
    said = page.section("head")
    assert f"{len(good):,} T cells passed quality control." in said
    assert f"Called exhausted: {counts['exhausted']:,} (" in said
    assert f"Called senescent: {counts['senescent']:,} (" in said
    assert f"{counts['senescent_like']:,} (" in said


def test_donor_numbers_are_those_of_the_donor_table(folder: Path, page: Page) -> None:
    table = pd.read_csv(folder / "donors.tsv", sep="\t")
    for state in ("exhausted", "senescent"):
        rows = page.tables[f"{state}/{state.capitalize()} T cells by donor"]
        own = table[table["lineage"] == "T"]
        assert [r["donor"] for r in rows] == list(own["donor"])
        assert [number(r[state]) for r in rows] == list(own[f"n_t_{state}"])
        shares = [float(r[f"share {state}"].rstrip("%")) for r in rows]
        np.testing.assert_allclose(shares, 100 * own[f"frac_t_{state}"], atol=0.5)
        carrying = [r.get("of the exhausted, carry senescence") for r in rows]
        if state == "exhausted":
            expected = own["frac_exhausted_with_senescence"]
            assert expected.notna().any()
            found = [np.nan if t == "–" else float(t.rstrip("%")) for t in map(str, carrying)]
            np.testing.assert_allclose(found, 100 * expected, atol=0.5)
        else:
            assert set(carrying) == {None}
    assert len(page.tables["donors/Donors by lineage"]) == len(table)


def test_the_exhausted_say_how_many_of_them_carry_senescence(folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "lineages.tsv", sep="\t")
    at = table.index[table["lineage"] == "T"][0]
    for end in ("lineages.tsv", "senoscore.h5ad", "donors.tsv"):
        (tmp_path / end).write_bytes((folder / end).read_bytes())
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "facts.json").write_bytes((folder / "stages/facts.json").read_bytes())

    def said(share: float, low: float, high: float) -> str:
        for end, value in zip(("", "_low", "_high"), (share, low, high), strict=True):
            table.loc[at, f"frac_exhausted_with_senescence{end}"] = value
        write_tsv(table, tmp_path / "lineages.tsv")
        build_report(tmp_path, figures=False)
        return read(tmp_path).section("exhausted")

    words = said(0.123, 0.045, 0.21)
    assert "12 % (4.5 % to 21 %) show the senescence axis too" in words
    words = said(0.0, 0.0, 0.032)
    assert "No more of them than chance would give" in words
    assert "(at most 3.2 %)" in words
    words = said(np.nan, np.nan, np.nan)
    assert "chance would" not in words


def test_other_lineages_have_their_numbers_and_their_warning(s: Any, page: Page) -> None:
    said = page.section("others")
    for name in keys.LINEAGES:
        if name == "T":
            continue
        good = s.obs[(s.obs["lineage"] == name) & s.obs["qc_pass"]]
        n = int((good["senescence_call"] == "senescent").sum())
        assert f"{n:,} of {len(good):,} cells that passed quality control are called" in said
    for signature in ("b_senescence", "nk_senescence", "macrophage_senescence", "dc_senescence"):
        assert f"Warning of {signature}." in said
    assert said.count("Weak signature") == 2
    assert "not scored: 2 of 10 genes measured" in said


def test_intervals_are_those_of_the_lineage_table(folder: Path, page: Page) -> None:
    row = pd.read_csv(folder / "lineages.tsv", sep="\t").set_index("lineage").loc["NK"]
    low, high = (100 * row[f"frac_senescent_{e}"] for e in ("low", "high"))
    assert f"interval {low:.1f} % to {high:.0f} %" in page.section("others")


def test_dropped_cells_have_their_reason(s: Any, page: Page) -> None:
    rows = page.tables["quality/Why cells were dropped"]
    n = int((~s.obs["qc_pass"]).sum())
    assert rows == [{"reason": "high mitochondrial share", "cells": str(n)}]


def test_a_cell_with_two_reasons_counts_for_both(tmp_path: Path) -> None:
    s = score_space.make(200)
    text = s.obs["qc_reason"].astype(object)
    lost = np.flatnonzero(~s.obs["qc_pass"])
    text.iloc[lost[0]] = "few genes; high mitochondrial share"
    s.obs["qc_reason"] = pd.Categorical(text)
    made = report(s, tmp_path / "x", figures=False)
    rows = {r["reason"]: r["cells"] for r in made.tables["quality/Why cells were dropped"]}
    assert rows == {"few genes": "1", "high mitochondrial share": str(len(lost))}


def test_rules_kinds_and_subsets_add_up(s: Any, page: Page) -> None:
    for state, kinds in (("exhausted", "Progenitor or terminal"), ("senescent", "Which side")):
        here = s.obs["t_state"].isin([state, "both"])
        rules = page.tables[f"{state}/Which rule fired"]
        assert sum(number(r["cells"]) for r in rules) == int(here.sum())
        subsets = page.tables[f"{state}/{state.capitalize()} T cells by subset"]
        assert sum(number(r[state]) + number(r["both"]) for r in subsets) == int(here.sum())
        sub = s.obs.loc[here, "t_substate"].value_counts()
        for row in page.tables[f"{state}/{kinds}"]:
            assert number(row["cells"]) == sub[row["kind"]]


def test_coverage_names_the_missing_genes_and_the_reason(page: Page) -> None:
    rows = {
        r["signature"]: r
        for r in page.tables["coverage/Every signature: what was found and what was not"]
    }
    assert len(rows) == len(score_space.SIGNATURES)
    lost = rows[score_space.UNSCORED]
    assert (lost["genes that vote"], lost["found"]) == ("10", "2")
    assert lost["why not scored"] == "2 of 10 genes measured, 3 needed"
    assert lost["not found"] == "CD27"


def test_calibration_numbers_are_those_of_the_table(page: Page) -> None:
    rows = page.tables["calibration/Lineage by depth"]
    table = score_space.calibration_table()
    assert len(rows) == len(table)
    shown = [float(r["false positives at p ≤ 0.05"].rstrip("%")) for r in rows]
    np.testing.assert_allclose(shown, 100 * table["fpr_0.05"], atol=0.051)


def test_settings_that_differ_are_marked(tmp_path: Path) -> None:
    s = score_space.make(200)
    settings = json.loads(s.uns["senoscore"]["settings"])
    settings["call"]["fdr"] = 0.2
    s.uns["senoscore"]["settings"] = json.dumps(settings)
    made = report(s, tmp_path / "x", figures=False)
    rows = {r["setting"]: r for r in made.tables["provenance/Settings"]}
    assert rows["call.fdr"] == {"setting": "call.fdr", "value": "0.2",
                                "changed from default": "yes"}  # fmt: skip
    assert [k for k, r in rows.items() if r["changed from default"]] == ["call.fdr"]
    assert "false-discovery rate of 20 %" in made.section("scores")


def test_the_end_says_what_made_it(page: Page) -> None:
    said = page.section("provenance")
    assert "0" * 64 in said
    assert "senoscore 0.1.0" in said
    for name in ("donors.tsv", "lineages.tsv", "coverage.tsv", "t_cells_exhausted.tsv"):
        assert name in said


# --------------------------------------------------------------------------------------------
# form: alone, whole, safe, the same


def check_form(made: Page) -> None:
    """A page that needs nothing, runs nothing, and can be found one's way in."""
    assert made.unbalanced == []
    assert not made.of("script")
    assert not made.of("link")
    assert not made.of("iframe")
    for tag, attrs in made.elements:
        assert not [k for k in attrs if k.startswith("on")], (tag, attrs)
        for key in ("src", "srcset", "data", "action", "poster", "background"):
            if key in attrs:
                assert str(attrs[key]).startswith("data:image/"), (tag, key)
        if "href" in attrs:
            assert str(attrs["href"]).startswith(("#", "./")), attrs["href"]
        assert "http" not in str(attrs.get("style", ""))
    assert "url(" not in made.text.split("</style>")[0]
    assert "@import" not in made.text
    ids = [str(a["id"]) for _, a in made.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for attrs in made.of("a"):
        target = str(attrs["href"])
        assert not target.startswith("#") or target[1:] in ids
    for attrs in made.of("img"):
        assert len(str(attrs["alt"])) > 20
    assert [t for t, _ in made.elements].count("h1") == 1
    assert made.of("html")[0] == {"lang": "en"}
    assert "width=device-width" in str([a for a in made.of("meta") if a.get("name") == "viewport"])


def pictures(made: Page) -> list[bytes]:
    return [base64.b64decode(str(a["src"]).split(",", 1)[1]) for a in made.of("img")]


def test_the_page_stands_alone(page: Page) -> None:
    check_form(page)
    assert len(page.of("img")) >= 9
    for content in pictures(page):
        if content.startswith(b"\x89PNG"):
            continue
        root = ET.fromstring(content)
        for element in root.iter():
            for key, value in element.attrib.items():
                if key.endswith("href"):
                    assert value.startswith(("#", "data:image/png")), value


def test_the_page_is_small(folder: Path) -> None:
    assert (folder / "report.html").stat().st_size < 3_000_000


def test_pictures_are_svg_while_small_and_png_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw() -> str:
        made = _page.picture(
            lambda figure: figure.subplots().plot([1, 2], [3, 4]), alt="a line", caption="A line."
        )
        return made.uri

    assert draw().startswith("data:image/svg+xml;base64,")
    monkeypatch.setattr(_page, "MAX_SVG", 1)
    assert base64.b64decode(draw().split(",", 1)[1]).startswith(b"\x89PNG")


def test_the_same_artefacts_give_the_same_bytes(folder: Path) -> None:
    before = (folder / "report.html").read_bytes()
    build_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_the_state_sections_stand_apart(page: Page) -> None:
    headings = [a["aria-labelledby"] for a in page.of("section")]
    assert headings.index("exhausted-h") < headings.index("senescent-h")
    assert "TEMRA" in page.section("senescent")
    assert "TEMRA" not in page.section("exhausted")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    s = score_space.make(400, donors=score_space.HOSTILE)
    bad = score_space.HOSTILE
    s.obs_names = [f"{bad[i % len(bad)]} {i}" for i in range(s.n_obs)]
    for column in ("t_state_rule", "t_subset", "lineage_subset", "qc_reason", "senescence_rule"):
        text = s.obs[column].astype(object)
        s.obs[column] = pd.Categorical(
            [f"{bad[i % 3]}{v}" if v and v == v else v for i, v in enumerate(text)]
        )
    for column in ("title", "warning", "reason"):
        s.var[column] = [bad[i % len(bad)] for i in range(s.n_vars)]
    facts = json.loads(s.uns["senoscore"]["facts"])
    facts["notes"] = list(bad)
    facts["path"] = bad[0]
    s.uns["senoscore"]["facts"] = json.dumps(facts)
    return report(s, tmp_path_factory.mktemp("r") / 'a "quoted" <b> id')


def test_labels_of_the_file_cannot_become_markup(hostile: Page) -> None:
    check_form(hostile)
    known = {tag for tag, _ in hostile.elements}
    assert "b" not in {t for t, a in hostile.elements if t == "b" and a}
    assert not known & {"script", "img onerror", "x"}
    assert "<script>alert(1)</script>" in hostile.section("donors")
    assert "<script>" not in hostile.text
    for content in pictures(hostile):
        if not content.startswith(b"\x89PNG"):
            assert not [e for e in ET.fromstring(content).iter() if e.tag.endswith("script")]


def test_labels_are_no_templates_and_no_mathematics(hostile: Page) -> None:
    everything = " ".join(hostile.words.values())
    assert "{{ 7 * 7 }}" in everything
    assert " 49 {%" not in everything
    assert "$x_{1}$" in everything


def test_the_title_is_escaped(s: Any, tmp_path: Path) -> None:
    directory = score_space.write_artefacts(score_space.make(60), tmp_path / "x")
    build_report(directory, title="<i>Lung & blood</i>", figures=False)
    made = read(directory)
    assert "<i>Lung & blood</i>" in made.section("head")
    assert "<title>&lt;i&gt;Lung &amp; blood&lt;/i&gt;</title>" in made.text


# --------------------------------------------------------------------------------------------
# what is missing is said


def test_without_t_cells_the_report_says_what_cannot_be_said(tmp_path: Path) -> None:
    made = report(score_space.make(150, lineages=("B", "mono_mac")), tmp_path / "x")
    check_form(made)
    assert "No T cell was identified among 150 cells" in made.section("head")
    assert "Nothing can be said about T-cell exhaustion" in made.section("t-cells")
    assert "No T cells, hence nothing to say." in made.section("exhausted")
    assert "No T cells, hence nothing to say." in made.section("senescent")
    assert "b_senescence" in made.section("others")


def test_no_exhausted_cell_is_no_proof_of_none(tmp_path: Path) -> None:
    s = score_space.make(300)
    state = s.obs["t_state"].astype(object)
    state[state.isin(["exhausted", "both"])] = "neither"
    s.obs["t_state"] = pd.Categorical(state, categories=keys.T_STATES)
    made = report(s, tmp_path / "x", figures=False)
    assert "No T cell is called exhausted." in made.section("exhausted")
    assert "That does not show that there are none" in made.section("head")
    assert "exhausted/Which rule fired" not in made.tables


def test_a_file_in_which_nothing_is_scored_reads_well(tmp_path: Path) -> None:
    s = score_space.make(200)
    s.X[:] = np.nan
    s.obsm[keys.OBSM_T_AXES][:] = np.nan
    for axis in keys.AXES:
        s.obs[f"T_{axis}"] = np.nan
    for layer in s.layers:
        s.layers[layer][:] = np.nan
    is_t = (s.obs["lineage"] == "T").to_numpy()
    s.obs["t_state"] = pd.Categorical(
        np.where(is_t, "indeterminate", None), categories=keys.T_STATES
    )
    s.obs["senescence_call"] = pd.Categorical(
        ["indeterminate"] * s.n_obs, categories=keys.SENESCENCE_CALLS
    )
    s.var["status"], s.var["reason"] = "not scored", "the file holds scaled values"
    s.obs[["total_counts", "n_genes_by_counts", "pct_counts_mt"]] = np.nan
    s.uns["senoscore"].pop("qc_limits")
    directory = score_space.write_artefacts(s, tmp_path / "x")
    write_tsv(pd.DataFrame(), directory / "calibration.tsv")
    build_report(directory)
    made = read(directory)
    check_form(made)
    head = made.section("head")
    assert "No signature could be scored: the file holds scaled values." in head
    assert "100 % of the T cells are indeterminate" in head
    assert "No signature could be scored in this file." in made.section("scores")
    assert "no raw counts" in made.section("quality")
    assert "Not tested here" in made.section("calibration")


def test_an_axis_that_is_not_scored_is_named(tmp_path: Path) -> None:
    s = score_space.make(200)
    j = s.var_names.get_loc("t_arm_phenotype")
    s.X[:, j] = np.nan
    s.var.loc["t_arm_phenotype", ["status", "reason"]] = ["not scored", "3 of 9 genes measured"]
    made = report(s, tmp_path / "x", figures=False)
    assert "Not scored: the surface phenotype of senescence (3 of 9 genes measured)" in (
        made.section("t-cells")
    )
    assert "The surface phenotype of senescence is not scored" in made.section("head")


def test_a_state_whose_axis_is_not_scored_cannot_be_judged(tmp_path: Path) -> None:
    """Mouse: no senescence axis. Zero senescent cells must not read as a finding."""
    s = score_space.make(200)
    axis = "t_discriminating_senescence_only"
    s.X[:, s.var_names.get_loc(axis)] = np.nan
    s.var.loc[axis, ["status", "reason"]] = ["not scored", "for human only, not mouse"]
    state = s.obs["t_state"].astype(object)
    state[state.isin(["senescent", "both"])] = "indeterminate"
    s.obs["t_state"] = pd.Categorical(state, categories=keys.T_STATES)
    made = report(s, tmp_path / "x", figures=False)
    said = made.section("senescent")
    assert "cannot be judged in this file: for human only, not mouse" in said
    assert "no cell stands out" not in said
    head = made.section("head")
    assert "The senescence axis is not scored: for human only, not mouse." in head
    assert "No T cell is called senescent" not in head


def test_the_depth_certificate_is_told_in_words(tmp_path: Path) -> None:
    directory = score_space.write_artefacts(score_space.make(100), tmp_path / "x")
    row = {"depth": 0.5, "lineage": "T", "call": "t_state", "state": "all calls", "n_cells": 1200,
           "n_kept": 1164, "n_indeterminate": 24, "n_flipped": 12, "frac_kept": 0.97,
           "frac_indeterminate": 0.02, "frac_flipped": 0.01, "flipped_to": "neither:12",
           "n_below_range": 0}  # fmt: skip
    write_tsv(pd.DataFrame([row]), directory / "certificate.tsv")
    build_report(directory, figures=False)
    made = read(directory)
    assert "of 1,200 T calls 97 % stand, 2 % become indeterminate" in made.section("certificate")
    (rows,) = [v for k, v in made.tables.items() if k.startswith("certificate/")]
    assert (rows[0]["stand"], rows[0]["change"], rows[0]["into"]) == ("1,164", "12", "neither:12")


def test_what_keeps_donors_from_being_compared_is_a_sentence(tmp_path: Path) -> None:
    directory = score_space.write_artefacts(score_space.make(100), tmp_path / "x")
    write_tsv(refused("disease", "2 donors in <normal>, 3 needed"), directory / "comparisons.tsv")
    write_tsv(pd.DataFrame({"antibody": ["CD57"]}), directory / "protein_audit.tsv")
    build_report(directory, figures=False)
    made = read(directory)
    assert "Nothing could be compared: 2 donors in <normal>, 3 needed." in made.section(
        "comparisons"
    )
    # it has a section of its own
    assert not [name for name in made.tables if "protein_audit" in name]


def test_the_picture_of_comparisons_names_what_differs() -> None:
    from matplotlib.figure import Figure

    rows = pd.DataFrame(
        {
            "term": "disease", "level": "lung adenocarcinoma", "lineage": ["T", "T", "mono_mac"],
            "name": ["t_discriminating_exhaustion_only", "exhausted", "macrophage_senescence"],
            "measure": ["per_cell", "fraction_called", "composition"],
            "effect": 0.5, "effect_low": 0.1, "effect_high": 0.9, "padj": 0.01,
        }
    )  # fmt: skip
    ax = Figure().add_subplot()
    _sections._forest(rows, "z", ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "T t_discriminating_exhaustion_only\nlung adenocarcinoma, per cell",
        "T exhausted\nlung adenocarcinoma, fraction called",
        "mono_mac macrophage_senescence\nlung adenocarcinoma, composition",
    ]


def test_comparisons_and_unknown_tables_are_shown(tmp_path: Path) -> None:
    directory = score_space.write_artefacts(score_space.make(100), tmp_path / "x")
    row = {"term": "condition", "level": "old", "reference": "young", "lineage": "T",
           "measure": "per_cell", "name": "<b>x</b>", "effect": 0.25, "effect_low": 0.1,
           "effect_high": 0.4, "unit": "z", "pvalue": 0.002, "padj": 0.03,
           "n_donors_reference": 4, "n_donors": 5, "note": ""}  # fmt: skip
    write_tsv(pd.DataFrame([row]), directory / "comparison.tsv")
    write_tsv(pd.DataFrame({"a": [1.5]}), directory / "something new.tsv")
    build_report(directory, figures=False)
    made = read(directory)
    (shown,) = made.tables["comparisons/Conditions and ages compared"]
    assert (shown["effect"], shown["from"], shown["donors"]) == ("0.25", "0.10", "5")
    assert shown["false-discovery rate"] == "0.030"
    assert "1 comparisons could be made; 1 of them" in made.section("comparisons")
    assert made.tables["donors/something new.tsv"] == [{"a": "1.50"}]


def test_without_donors_nothing_is_compared(tmp_path: Path) -> None:
    s = score_space.make(200)
    del s.obs["donor_id"]
    facts = json.loads(s.uns["senoscore"]["facts"])
    facts["donor"]["value"] = None
    s.uns["senoscore"]["facts"] = json.dumps(facts)
    s.uns["senoscore"].pop("qc_limits")
    made = report(s, tmp_path / "x", figures=False)
    assert "The file names no donors" in made.section("head")
    assert "The file names no donors" in made.section("donors")
    assert "exhausted/Exhausted T cells by donor" not in made.tables


@pytest.mark.parametrize(("n", "words"), [(1, "Only one donor"), (2, "Only 2 donors")])
def test_few_donors_are_said(tmp_path: Path, n: int, words: str) -> None:
    s = score_space.make(200, donors=[f"D{i}" for i in range(n)])
    assert words in report(s, tmp_path / "x", figures=False).section("head")


def test_missing_tables_leave_their_section_out(tmp_path: Path) -> None:
    directory = score_space.write_artefacts(score_space.make(150, embedding=False), tmp_path / "x")
    for path in [*directory.glob("*.tsv"), *directory.glob("stages/*")]:
        path.unlink()
    build_report(directory)
    made = read(directory)
    check_form(made)
    assert made.tables["t-cells/T cells by state"]
    assert not [a for a in made.of("img") if "Dot plot" in str(a["alt"])]


def test_a_sharded_panel_is_the_whole_panel(tmp_path: Path) -> None:
    from senoscore.io.artefacts import read_npz, write_npz
    from senoscore.streaming import Panel

    directory = score_space.write_artefacts(score_space.make(150), tmp_path / "x")
    whole = _artefacts.read_artefacts(directory).panel
    assert whole is not None
    arrays = read_npz(directory / "stages" / "qc.npz")
    panel = Panel.from_arrays(arrays, "panel")
    (directory / "stages" / "qc.npz").unlink()
    cut = np.r_[0, 40, 150]
    for k in (1, 2):
        lo, hi = cut[k - 1], cut[k]
        part = Panel(panel.rows.between(lo, hi), panel.n_vars)
        write_npz(
            {
                "metrics": arrays["metrics"][lo:hi],
                "panel_genes": arrays["panel_genes"],
            }
            | part.to_arrays("panel"),
            directory / "stages" / f"qc-{k}of2.npz",
        )
    joined = _artefacts.read_artefacts(directory).panel
    assert joined is not None
    assert (joined[0] != whole[0]).nnz == 0
    assert joined[1] == whole[1]
    np.testing.assert_array_equal(joined[2], whole[2])


def test_tables_of_another_run_are_refused(tmp_path: Path) -> None:
    directory = score_space.write_artefacts(score_space.make(150), tmp_path / "x")
    table = pd.read_csv(directory / "t_cells_exhausted.tsv", sep="\t")
    write_tsv(table.iloc[:-1], directory / "t_cells_exhausted.tsv")
    with pytest.raises(InputDataError, match="they are of two runs; run the stage 'call' again"):
        build_report(directory)
    assert not (directory / "report.html").exists()


def test_a_folder_without_scores_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"senoscore\.h5ad is missing: run the stage 'call'"):
        build_report(tmp_path)


def test_a_long_table_says_where_the_rest_is(tmp_path: Path) -> None:
    s = score_space.make(900, donors=[f"D{i:03d}" for i in range(60)])
    made = report(s, tmp_path / "x", figures=False)
    table = pd.read_csv(tmp_path / "x" / "donors.tsv", sep="\t")
    assert len(made.tables["donors/Donors by lineage"]) == 200 < len(table)
    assert f"The first 200 of {len(table)} rows. Full table: donors.tsv." in made.section("donors")


# --------------------------------------------------------------------------------------------
# all data sets


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, list[str]]:
    names = ["tumour", "no t cells", "javascript:alert(1)", "<b>#?%"]
    for i, name in enumerate(names):
        lineages = ("B", "NK") if i == 1 else keys.LINEAGES
        score_space.write_artefacts(
            score_space.make(120, seed=i, lineages=lineages), tmp_path / name
        )
    build_report(tmp_path / "tumour", figures=False)
    build_report(tmp_path / names[3], figures=False)
    return tmp_path, names


def test_the_summary_holds_every_lineage_of_every_data_set(
    results: tuple[Path, list[str]],
) -> None:
    folder, names = results
    build_summary(folder, names)
    table = pd.read_csv(folder / "summary.tsv", sep="\t")
    parts = [pd.read_csv(folder / n / "lineages.tsv", sep="\t").assign(dataset=n) for n in names]
    expected = pd.concat(parts, ignore_index=True)[list(table.columns)]
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    made = Page((folder / "summary.html").read_text("utf-8"))
    check_form(made)
    (key,) = [k for k in made.tables if k.endswith("T cells that passed quality control, by state")]
    rows = {r["data set"]: r for r in made.tables[key]}
    assert list(rows) == names
    assert rows["no t cells"]["exhausted"] == "–"
    own = parts[0].set_index("lineage").loc["T"]
    for state in keys.T_STATES:
        assert number(rows["tumour"][state]) == own[f"n_t_{state}"]


def test_links_of_the_summary_stay_beside_it(results: tuple[Path, list[str]]) -> None:
    """A data set named like an address is a folder, and a link only where its report is."""
    folder, names = results
    build_summary(folder, names)
    made = Page((folder / "summary.html").read_text("utf-8"))
    assert [a["href"] for a in made.of("a")] == [
        "./tumour/report.html", "./%3Cb%3E%23%3F%25/report.html",
    ]  # fmt: skip


def test_the_summary_has_the_same_bytes_each_time(results: tuple[Path, list[str]]) -> None:
    folder, names = results
    build_summary(folder, names)
    before = (folder / "summary.html").read_bytes()
    build_summary(folder, names)
    assert (folder / "summary.html").read_bytes() == before


def test_the_summary_refuses_what_is_not_there_or_not_inside(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"lineages\.tsv' does not exist"):
        build_summary(tmp_path, ["gone"])
    with pytest.raises(ConfigError):
        build_summary(tmp_path, ["../elsewhere"])


def test_published_sets_have_a_section_where_they_were_scored(tmp_path: Path) -> None:
    from test_agreement import cells

    from senoscore.agreement import agreement

    directory = score_space.write_artefacts(score_space.make(100), tmp_path / "x")
    table = agreement(**cells(300))
    write_tsv(table.iloc[:0], directory / "agreement.tsv")
    build_report(directory, figures=False)
    assert "agreement" not in read(directory).words
    write_tsv(table, directory / "agreement.tsv")
    build_report(directory)
    made = read(directory)
    assert "20,000" not in made.section("agreement")
    for name in set(table["lineage"]):
        said = f"sets and calls in {plots.LINEAGE_NAMES[name]}, pair by pair."
        assert made.text.count(said) == 1, name
    rows = made.tables["agreement/Pair by pair"]
    assert len(rows) == len(table)
    first = table.iloc[0]
    assert rows[0]["Spearman's rho"] == f"{first['spearman']:.2f}"
    assert rows[0]["by both"] == f"{first['n_called_both']:,}"


def test_the_rule_the_warnings_and_the_strongest_effects_are_shown(tmp_path: Path) -> None:
    s = score_space.make(200)
    s.uns["senoscore"]["rule"] = "First <this>.\n\n1. Then that."
    warnings = {"T": "Also TEMRA.", "B": "Also lupus."}
    s.obs["senescence_warning"] = [warnings.get(str(v), "") for v in s.obs["lineage"]]
    directory = score_space.write_artefacts(s, tmp_path / "x")
    rows = [
        {"term": "condition", "level": "old", "reference": "young", "lineage": "T",
         "measure": "per_cell", "name": f"$x_{k}$", "effect": 0.1 * k, "effect_low": 0.1 * k - 0.1,
         "effect_high": 0.1 * k + 0.1, "unit": "z", "pvalue": 0.5 / (k + 1), "padj": 0.6 / (k + 1),
         "n_donors_reference": 4, "n_donors": 5, "note": ""}
        for k in range(20)
    ]  # fmt: skip
    write_tsv(pd.DataFrame(rows), directory / "comparisons.tsv")
    build_report(directory)
    made = read(directory)
    assert "First <this>. 1. Then that." in made.section("rule")
    assert "Also TEMRA." in made.section("senescent")
    assert "Also lupus." in made.section("others")
    assert "the 15 of 20 with the smallest p" in made.section("comparisons")
    first = made.tables["comparisons/Conditions and ages compared"][0]
    assert first["effect"] == "1.90"
