"""The registry against the reviews and the traps, its validator, and the readers."""

from __future__ import annotations

import csv
import gzip
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscore.errors import SenoscoreWarning, SignatureError
from senoscore.keys import LINEAGES
from senoscore.signatures import (
    EXHAUSTION_AXIS,
    EXHAUSTION_SETS,
    SENESCENCE_AXIS,
    SHARED_GENES,
    Problem,
    Signature,
    SignatureGene,
    SignatureSet,
    check_signatures,
    read_dual_role,
    read_evidence,
    read_signatures,
    read_targets,
    registry_folder,
)

ARMS = ("t_arm_phenotype", "t_arm_arrest", "t_arm_tcr_loss", "t_arm_sasp")
OTHER_ARMS = ("macrophage_arm_cd38", "macrophage_arm_sasp", "other_arm_p53")
SENESCENCE = (SENESCENCE_AXIS, *ARMS)
AXES = (
    SENESCENCE_AXIS, *EXHAUSTION_SETS, "conf_temra_effector", "conf_proliferation_s",
    "conf_proliferation_g2m", "conf_interferon", "conf_dissociation",
)  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> SignatureSet:
    return read_signatures()


@pytest.fixture(scope="module")
def evidence() -> list[dict[str, str]]:
    return read_evidence().to_dict("records")


def voting(signature: Signature) -> dict[str, float]:
    """Voting genes with their signed weight."""
    return {gene.symbol: gene.direction * gene.weight for gene in signature.voting()}


# ---------------------------------------------------------------------------------------------------
# the registry


def test_the_validator_finds_nothing_in_the_shipped_registry() -> None:
    assert check_signatures() == []


def test_axes_and_arms_are_there_with_their_roles(registry: SignatureSet) -> None:
    assert tuple(sorted(registry.with_role("axis"))) == tuple(sorted(AXES))
    assert tuple(sorted(registry.with_role("arm"))) == tuple(sorted((*ARMS, *OTHER_ARMS)))
    lineage = {name: s.lineages for name, s in registry.with_role("lineage").items()}
    assert lineage == {
        "t_senescence": ("T",),
        "t_exhaustion": ("T",),
        "nk_senescence": ("NK",),
        "b_senescence": ("B",),
        "macrophage_senescence": ("mono_mac",),
        "neutrophil_senescence": ("neutrophil",),
        "dc_senescence": ("DC",),
        "other_senescence": ("other",),
    }


def test_every_proposed_set_kept_its_name(registry: SignatureSet, shared: Path) -> None:
    proposed = {path.stem for path in (shared / "evidence/signatures").glob("[a-z]*.tsv")}
    assert len(proposed) == 46
    assert proposed <= set(registry)


def test_comparators_are_not_scored_unless_named(registry: SignatureSet) -> None:
    default = registry.default()
    assert "senmayo" in registry
    assert "senmayo" not in default
    assert not [s.name for s in default.values() if s.role == "comparator"]
    assert set(registry) - set(default) - set(registry.with_role("comparator")) == {
        "t_shared_no_vote"
    }
    assert all(s.licence and s.source for s in registry.values())


def test_the_reader_agrees_with_a_plain_reading_of_the_file(registry: SignatureSet) -> None:
    path = registry_folder() / "t_arm_phenotype.tsv"
    with path.open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    genes = registry["t_arm_phenotype"].genes
    assert [row["gene"] for row in rows] == [gene.symbol for gene in genes]
    assert [row["votes"] == "yes" for row in rows] == [gene.votes for gene in genes]
    assert [row["evidence_ids"] for row in rows] == [";".join(gene.evidence) for gene in genes]
    assert voting(registry["t_arm_phenotype"]) == {
        "KLRG1": 1,
        "B3GAT1": 0.5,
        "FCGR3A": 0.75,
        "KLRK1": 0.25,
        "KLRC1": 0.25,
        "TYROBP": 0.5,
        "CD27": -1,
        "CD28": -1,
    }


def test_cited_literature_is_in_the_reference_table(registry: SignatureSet) -> None:
    text = (registry_folder() / "references.tsv").read_text().splitlines()
    keys = {line.split("\t")[0] for line in text if not line.startswith("#")} - {"key"}
    cited = {
        key.strip()
        for signature in registry.values()
        for gene in signature.genes
        for key in gene.literature.split(";")
        if key.strip()
    }
    assert cited <= keys
    assert keys - cited <= {"Yu 2026", "Lee 2025", "Nga 2024", "Moss 2023"}


def test_a_gene_that_does_not_vote_says_why(registry: SignatureSet) -> None:
    silent = [
        (signature.name, gene.symbol)
        for signature in registry.values()
        for gene in signature.genes
        if not gene.votes and not gene.note
    ]
    assert silent == []


def test_ids_and_symbols_are_those_of_gencode(registry: SignatureSet, shared: Path) -> None:
    for organism, file in (("human", "homo_sapiens"), ("mouse", "mus_musculus")):
        with gzip.open(shared / f"tables/cellxgene_gencode_genes_{file}.csv.gz", "rt") as lines:
            symbols = {row[0]: row[1] for row in csv.reader(lines)}
        pairs = {
            (gene.ensembl, gene.symbol) if organism == "human" else (gene.mouse_ensembl, gene.mouse_symbol)
            for signature in registry.values()
            for gene in signature.genes
        }  # fmt: skip
        wrong = [(i, s) for i, s in pairs if (i or s) and symbols.get(i) != s]
        unnamed = [
            gene.symbol
            for signature in registry.values()
            for gene in signature.genes
            if not gene.ensembl and gene.measurable != "no"
        ]
        assert len(pairs) > 900
        assert unnamed == []
        # a published symbol that no gene has today keeps its name, has no id, and does not vote
        assert [pair for pair in wrong if pair[0] or organism == "mouse"] == []


# ---------------------------------------------------------------------------------------------------
# the evidence

TABLE_1 = {
    ("exhaustion", "up"): "PD-1 CTLA-4 TIM-3 LAG-3 BTLA TIGIT CD244 CD160 CD39 4-1BB Blimp-1 BATF",
    ("exhaustion", "down"): "LCK ZAP70 IL-2",
    ("senescence", "down"): "CD27 CD28",
    ("TCR-signalling loss", "down"): "LCK ZAP70 DLG1 LAT SLP-76",
    ("SASP", "up"): "IL-6 IL-8 IFN-gamma TNF-alpha",
    ("senescence", "up"): "FOXP3 SAHF",
}
TABLE_3 = {
    ("T", "up"): "p16 p21 CD57 KLRG-1 TIM-3 TIGIT CD45RA CTLA-4 NKG2D NKG2A CD16 IL-6 IL-8",
    ("B", "up"): "CD11c CD11b IL-6 TNF-alpha ROS",
    ("NK", "up"): "PD-1 mTOR",
    ("NK", "label"): "CD56 CD16",
    ("macrophage", "up"): "CD38 IBA-1 CD40 COX2 RACK1 ABC1 p16 p21 Arg1 CD206 CXCR1 BMP2 CCL2 CCL7 "
    "CCL8 CCL24 IL-10",
    ("neutrophil", "no change"): "CD11a CD11b",
    ("neutrophil", "down"): "CXCR2 NETs",
    ("neutrophil", "up"): "IL-8 MMP-9 glycolysis ROS",
}
TABLE_4 = "SRC BCL2L1 TNFSF8 PLAUR TLR8 MYD88 BFAR MTOR CDKN2A CDKN1A LILRB2 PLA2G4A CREB1 BRD4"


def _named(rows: Iterable[dict[str, str]], table: str, column: str, value: str) -> set[str]:
    return {
        row["marker"]
        for row in rows
        if row["location"] == table and row[column] == value and row["review"].startswith("10.3389")
    }


@pytest.mark.parametrize(("state", "direction"), TABLE_1)
def test_every_marker_of_table_1_has_a_row(
    evidence: list[dict[str, str]], state: str, direction: str
) -> None:
    rows = [row for row in evidence if row["direction"] == direction]
    missing = set(TABLE_1[state, direction].split()) - _named(rows, "Table 1", "state", state)
    assert missing == set()


@pytest.mark.parametrize(("cell", "direction"), TABLE_3)
def test_every_marker_of_table_3_has_a_row(
    evidence: list[dict[str, str]], cell: str, direction: str
) -> None:
    rows = [row for row in evidence if row["direction"] == direction]
    missing = set(TABLE_3[cell, direction].split()) - _named(rows, "Table 3", "cell_type", cell)
    assert missing == set()


def test_every_strategy_of_table_4_has_its_target() -> None:
    targets = read_targets()
    assert set(TABLE_4.split()) <= set(targets.loc[targets["location"] == "Table 4", "gene"])
    assert set(" ".join(targets["lineages"]).split()) <= set(LINEAGES)
    assert targets["target_id"].is_unique


def test_no_statement_of_the_reading_notes_is_lost(
    evidence: list[dict[str, str]], shared: Path
) -> None:
    rows = {row["evidence_id"]: row for row in evidence}
    noted = 0
    for file in ("evidence.tsv", "evidence_external.tsv"):
        with (shared / "evidence" / file).open() as lines:
            for note in csv.DictReader(lines, delimiter="\t"):
                row = rows[note["evidence_id"]]
                assert row["gene"] == note["hgnc_symbol"].replace("none", "")
                assert row["cell_type"] == note["cell_type"]
                assert row["direction"] in (note["direction"], "label")
                assert row["location"] == note["location"]
                noted += 1
    assert noted == len(evidence)


def test_what_rna_cannot_show_has_a_reason(evidence: list[dict[str, str]]) -> None:
    assert [
        r["evidence_id"] for r in evidence if r["measurable"] != "yes" and not r["reason"]
    ] == []
    unmeasurable = {row["gene"] for row in evidence if row["measurable"] == "no" and row["gene"]}
    assert {"PTPRC", "H2AX"} <= unmeasurable


def test_dual_role_and_targets_cite_evidence_that_exists(evidence: list[dict[str, str]]) -> None:
    known = {row["evidence_id"] for row in evidence}
    for frame in (read_dual_role(), read_targets()):
        cited = {i for cell in frame["evidence_ids"] for i in cell.split(";") if i}
        assert cited
        assert cited <= known


def test_no_sentence_of_a_source_is_shipped(shared: Path) -> None:
    """Seven words in a row that are also in the source would be a quotation."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(words[i : i + 7]) for i in range(len(words) - 6)}

    source: set[tuple[str, ...]] = set()
    for path in (shared / "evidence/source").glob("*.txt"):
        source |= runs(path.read_text(encoding="utf-8"))
    assert len(source) > 1000
    for path in registry_folder().rglob("*.tsv"):
        for line in path.read_text(encoding="utf-8").splitlines():
            for cell in line.split("\t"):
                assert not runs(cell) & source, (path.name, cell)


# ---------------------------------------------------------------------------------------------------
# the traps


def test_shared_genes_never_vote(registry: SignatureSet) -> None:
    for name in (*SENESCENCE, *EXHAUSTION_SETS, "t_senescence", "t_exhaustion"):
        assert not set(voting(registry[name])) & set(SHARED_GENES), name


def test_what_the_review_names_for_both_states_is_withheld(
    registry: SignatureSet, evidence: list[dict[str, str]]
) -> None:
    """The same list a second time, from the statements themselves."""

    def named(states: set[str]) -> set[tuple[str, str]]:
        return {
            (row["gene"], row["direction"])
            for row in evidence
            if row["state"] in states
            and row["cell_type"] in ("T", "CD4 T", "CD8 T")
            and row["gene"]
            and row["evidence_id"].startswith("S3")
        }

    both = named({"exhaustion"}) & named({"senescence", "TCR-signalling loss"})
    assert {gene for gene, _ in both} == {"HAVCR2", "TIGIT", "CTLA4", "FOXP3", "LCK", "ZAP70"}
    for name in (*SENESCENCE, *EXHAUSTION_SETS):
        assert not {gene for gene, _ in both} & set(voting(registry[name]))


def test_exhaustion_and_senescence_share_no_vote(registry: SignatureSet) -> None:
    exhaustion = set().union(
        *(voting(registry[name]) for name in (*EXHAUSTION_SETS, "t_exhaustion"))
    )
    for name in (*SENESCENCE, "t_senescence"):
        assert not exhaustion & set(voting(registry[name])), name


def test_cytotoxic_differentiation_is_an_axis_of_its_own(registry: SignatureSet) -> None:
    cytotoxic = set(voting(registry["conf_temra_effector"]))
    assert {"PRF1", "GZMB", "NKG7", "GNLY", "CX3CR1", "ZEB2"} <= cytotoxic
    for name in (*SENESCENCE, *EXHAUSTION_SETS):
        assert not cytotoxic & set(voting(registry[name])), name


def test_naive_genes_do_not_decide(registry: SignatureSet) -> None:
    naive = {"FOXO1", "CCR7", "IL7R", "LEF1", "TCF7", "BACH2"}
    for name in (*SENESCENCE, *EXHAUSTION_SETS):
        assert not naive & set(voting(registry[name])), name
    assert set(voting(registry["stemness_loss"])) == naive


def test_cd57_proxy_is_human_only(registry: SignatureSet) -> None:
    with_proxy = [s for s in registry.values() if "B3GAT1" in voting(s)]
    assert {s.name for s in with_proxy} == {
        "t_senescence", SENESCENCE_AXIS, "t_arm_phenotype", "nk_senescence",
    }  # fmt: skip
    for signature in with_proxy:
        assert signature.species == ("human",)
        assert "human only" in signature.warning.lower()
        assert "human only" in signature.refusal(organism="mouse").replace("for human", "human")
        gene = next(g for g in signature.genes if g.symbol == "B3GAT1")
        assert (gene.mouse_symbol, gene.measurable) == ("", "proxy")


def test_cd45ra_is_not_read_from_rna(registry: SignatureSet) -> None:
    isoform = [g for s in registry.values() for g in s.genes if g.symbol == "PTPRC"]
    assert isoform
    assert all(not gene.votes and gene.measurable == "no" for gene in isoform)


def test_p16_is_a_proxy_wherever_it_votes(registry: SignatureSet) -> None:
    own = [s for s in registry.values() if s.role != "comparator"]
    p16 = [g for s in own for g in s.genes if g.symbol == "CDKN2A"]
    assert len(p16) > 5
    assert {gene.measurable for gene in p16} == {"proxy"}


def test_nothing_the_review_signs_twice_votes(
    registry: SignatureSet, evidence: list[dict[str, str]]
) -> None:
    cells = {
        "T": {"T", "CD4 T", "CD8 T"},
        "B": {"B"},
        "NK": {"NK"},
        "mono_mac": {"macrophage"},
        "neutrophil": {"neutrophil"},
    }
    found = {}
    for lineage, names in cells.items():
        signs: dict[str, set[str]] = {}
        for row in evidence:
            level = row["direction"] in ("up", "down", "no change")
            if row["cell_type"] in names and level and row["state"] != "exhaustion":
                signs.setdefault(row["gene"], set()).add(row["direction"])
        twice = {gene for gene, said in signs.items() if gene and len(said) > 1}
        found[lineage] = twice
        for signature in registry.with_role("axis", "arm", "lineage").values():
            if signature.lineages == (lineage,) and signature.name != "conf_temra_effector":
                assert not twice & set(voting(signature)), signature.name
    assert found["mono_mac"] == {"ARG1", "TLR5"}


def test_a_monocyte_is_refused_the_b_set(registry: SignatureSet) -> None:
    assert {"ITGAX", "ITGAM"} <= set(voting(registry["b_senescence"]))
    assert registry["b_senescence"].refusal(lineage="B") == ""
    assert "valid in B, not in mono_mac" in registry["b_senescence"].refusal(lineage="mono_mac")
    assert "b_senescence" not in registry.in_lineage("mono_mac")


def test_cd56dim_is_a_share_of_cells_and_not_a_gain_of_ncam1(
    registry: SignatureSet, evidence: list[dict[str, str]]
) -> None:
    assert not {"NCAM1", "FCGR3A"} & set(voting(registry["nk_senescence"]))
    table_3 = [r for r in evidence if r["location"] == "Table 3" and r["cell_type"] == "NK"]
    assert {r["direction"] for r in table_3 if r["gene"] in ("NCAM1", "FCGR3A")} == {"label"}


def test_neutrophil_cd11_do_not_vote(registry: SignatureSet) -> None:
    neutrophil = registry["neutrophil_senescence"]
    carried = {gene.symbol for gene in neutrophil.genes}
    assert {"ITGAL", "ITGAM", "SELL"} <= carried
    assert voting(neutrophil) == {"CXCR2": -1, "CXCL8": 1, "MMP9": 1, "TLR1": -0.25}


def test_macrophage_markers_keep_their_warnings(registry: SignatureSet) -> None:
    votes = voting(registry["macrophage_senescence"])
    names = [gene.symbol for gene in registry["macrophage_senescence"].genes]
    assert votes["CD38"] == 1
    assert names.count("CD38") == 1  # named twice in one cell of Table 3
    assert {"AIF1", "PTGS2", "ABCA1", "MRC1"} <= set(votes)  # IBA-1, COX2, ABC1, CD206
    assert not {"RACK1", "ARG1", "NOS2", "GLB1", "TLR5"} & set(votes)


def test_families_share_their_weight(registry: SignatureSet) -> None:
    def total(name: str, prefix: str) -> float:
        return sum(abs(w) for gene, w in voting(registry[name]).items() if gene.startswith(prefix))

    assert total(EXHAUSTION_AXIS, "NFATC") == pytest.approx(0.3)
    assert total(EXHAUSTION_AXIS, "NR4A") == pytest.approx(0.75)
    assert total("macrophage_senescence", "HLA-D") == pytest.approx(0.6)
    assert total("macrophage_senescence", "TLR") == pytest.approx(0.9)


def test_nkg2a_has_opposite_signs_in_t_and_nk(registry: SignatureSet) -> None:
    assert voting(registry["t_arm_phenotype"])["KLRC1"] > 0
    assert voting(registry["nk_senescence"])["KLRC1"] < 0


def test_weak_sets_say_so(registry: SignatureSet) -> None:
    for name in ("neutrophil_senescence", "dc_senescence"):
        assert registry[name].warning.startswith("Weak")
    dc = {gene.symbol: gene.direction for gene in registry["dc_senescence"].voting()}
    assert [gene for gene, sign in dc.items() if sign > 0] == ["CDKN2A", "CDKN1A"]
    assert "lupus" in registry["b_senescence"].warning
    assert "CD56dim" in registry["nk_senescence"].warning


def test_rest_is_no_evidence_of_senescence(registry: SignatureSet) -> None:
    """No gene of S or G2M may push a score of senescence up by being absent."""
    cycling = set(voting(registry["conf_proliferation_s"]))
    cycling |= set(voting(registry["conf_proliferation_g2m"]))
    assert {"MKI67", "TOP2A", "HMGB2", "TYMS"} <= cycling
    names = [*SENESCENCE, *registry.with_role("lineage"), "core_senescence", "p53_tis"]
    for name in names:
        assert not cycling & set(voting(registry[name])), name


def test_activation_cytokines_do_not_vote_in_the_sasp_arm(registry: SignatureSet) -> None:
    arm, activation = registry["t_arm_sasp"], voting(registry["conf_recent_activation"])
    carried = {gene.symbol for gene in arm.genes}
    assert {"IFNG", "TNF", "IL21"} <= carried
    assert not set(voting(arm)) & (set(activation) | {"IFNG", "TNF", "IL21"})


def test_lost_tcr_machinery_is_what_only_senescence_loses(registry: SignatureSet) -> None:
    assert voting(registry["t_arm_tcr_loss"]) == {"LAT": -1, "LCP2": -1, "DLG1": -0.5}
    assert {"LCK", "ZAP70"} <= set(voting(registry["tcr_signalling_loss"]))


def test_arrest_is_read_from_its_genes_alone(registry: SignatureSet) -> None:
    assert voting(registry["t_arm_arrest"]) == {"CDKN2A": 1, "CDKN1A": 1, "SESN2": 0.25}
    # p15 and p27 are listed for exhaustion
    for name in (*SENESCENCE, "t_senescence"):
        assert not {"CDKN2B", "CDKN1B"} & {gene.symbol for gene in registry[name].genes}


def test_every_lineage_has_the_confounders_and_a_set_of_its_own(registry: SignatureSet) -> None:
    everywhere = {
        "core_senescence", "p53_tis", "sasp_core", "conf_interferon", "conf_dissociation",
        "conf_proliferation_s", "conf_proliferation_g2m",
    }  # fmt: skip
    for lineage in LINEAGES:
        valid = registry.in_lineage(lineage)
        assert everywhere <= set(valid)
        assert valid.with_role("lineage")


def test_interleukin_8_has_no_mouse_gene(registry: SignatureSet) -> None:
    mouse = registry.for_organism("mouse")
    il8 = next(g for g in mouse["sasp_neutrophil"].genes if g.symbol == "CXCL8")
    assert (il8.votes, il8.ensembl) == (False, "")
    assert il8.note.startswith("no mouse gene")
    assert "Ccl2" in voting(mouse["macrophage_senescence"])
    assert "Ccl12" not in {g.symbol for s in mouse.values() for g in s.genes}
    # H2-Ea is silent in C57BL/6: its absence would read as lost antigen presentation
    assert "H2-Ea" not in {g.symbol for s in mouse.values() for g in s.genes}


def test_a_published_t_cell_list_would_contradict_the_axes(registry: SignatureSet) -> None:
    """Why comparators are comparators: CD27 is up there and down in senescence."""
    assert voting(registry["li_2019_cd8_dysfunction"])["CD27"] > 0 > voting(
        registry["t_arm_phenotype"]
    )["CD27"]  # fmt: skip
    assert not {"CDKN2A", "CDKN1A"} & set(voting(registry["senmayo"]))


# ---------------------------------------------------------------------------------------------------
# the validator

KNOWN = {
    "human": ["MKI67", "CDKN1A", "TIGIT", "PDCD1", "KLRG1", "PTPRC", "CD27"],
    "mouse": ["Mki67", "Cdkn1a", "Tigit", "Pdcd1", "Klrg1", "Ptprc", "Cd27"],
}
FACTS = {"source": "s", "licence": "l", "description": "d", "role": "programme"}


def good(symbol: str = "MKI67", **changes: object) -> SignatureGene:
    gene = SignatureGene(symbol, mouse_symbol=symbol.capitalize(), literature="Tirosh 2016")
    return replace(gene, **changes)  # type: ignore[arg-type]


def one(*genes: SignatureGene, name: str = "mine", **facts: object) -> SignatureSet:
    return SignatureSet([Signature(name, genes, **FACTS | facts)])  # type: ignore[arg-type]


def rival(name: str, symbol: str, role: str) -> Signature:
    return Signature(name, (good(symbol),), lineages=("T",), **FACTS | {"role": role})  # type: ignore[arg-type]


BAD: dict[str, Callable[[], SignatureSet]] = {
    "unknown gene": lambda: one(good("MKI76")),
    "gene": lambda: one(good(), good()),
    "sign": lambda: one(good("CD27", evidence=("S3-T1-14",)), lineages=("T",)),
    "lineage of evidence": lambda: one(
        good("PDCD1", evidence=("S3-T3-24",)), lineages=("T",)
    ),
    "evidence": lambda: one(good("CD27", direction=-1, evidence=("S3-T1-15",))),
    "unsupported vote": lambda: one(good(literature="")),
    "unmeasurable vote": lambda: one(good("PTPRC", measurable="no")),
    "weight": lambda: one(good(weight=0.0)),
    "direction": lambda: one(good(direction=0)),
    "measurable": lambda: one(good(measurable="perhaps")),
    "no vote": lambda: one(good(votes=False)),
    "lineages": lambda: one(good(), lineages=()),
    "species": lambda: one(good(), species=("zebrafish",)),
    "role": lambda: one(good(), role="axes"),
    "licence": lambda: one(good(), licence=""),
    "date": lambda: one(good("1-Mar"), good()),
    "shared gene votes": lambda: one(good("TIGIT"), role="arm"),
    "rival sets overlap": lambda: SignatureSet(
        [rival(EXHAUSTION_AXIS, "PDCD1", "axis"), rival("t_arm_phenotype", "PDCD1", "arm")]
    ),
}  # fmt: skip
BAD["gene twice"] = BAD.pop("gene")


def test_a_good_set_passes_the_validator() -> None:
    assert check_signatures(one(good()), known=KNOWN) == []
    assert check_signatures(one(good(weight=0.0, votes=False), good("CDKN1A")), known=KNOWN) == []


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_of_the_validator_fires(rule: str) -> None:
    problems = check_signatures(BAD[rule](), known=KNOWN)
    assert {p.rule for p in problems} == {rule}
    assert all(p.what and p.todo and p.signature for p in problems)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_voting_weight_is_positive_and_finite(weight: float) -> None:
    problems = check_signatures(one(good(weight=weight)), known=KNOWN)
    assert [p.rule for p in problems] == ["weight"]


def test_one_gene_under_two_names_is_found_in_the_packaged_tables() -> None:
    twice = {"mine": ["HAVCR2", "TIM3"], "fine": ["HAVCR2", "CD27"]}
    problems = check_signatures(twice)
    assert [(p.rule, p.signature, p.gene) for p in problems] == [("gene twice", "mine", "TIM3")]


def test_an_older_name_an_id_of_another_gene_and_a_typo_are_found() -> None:
    genes = (
        good("H2AFX", mouse_symbol=""),
        good("CDKN1A", ensembl="ENSG00000147889"),
        good("CDKN3B", mouse_symbol=""),
    )
    problems = check_signatures(one(*genes))
    assert [p.rule for p in problems] == ["old name", "ensembl", "unknown gene"]
    assert "H2AX" in problems[0].what
    assert "CDKN2A" in problems[1].what
    assert "did you mean" in problems[2].what


def test_user_lists_may_be_human_or_mouse_symbols_or_ids() -> None:
    lists = {
        "human": ["CDKN1A", "MKI67-"],
        "mouse": ["Cdkn1a", "Mki67-"],
        "ids": ["ENSG00000124762", "ENSG00000148773.18-"],
    }
    assert check_signatures(lists) == []
    problems = check_signatures({"typo": ["cdkn1a"]})
    assert [p.rule for p in problems] == ["unknown gene"]
    assert "CDKN1A" in problems[0].what


def test_all_problems_come_at_once_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.tsv"
    file.write_text(
        "signature\tgene\tdirection\tweight\tlineages\n"
        "a\tCDKN1A\tup\t1\tT\n"
        "a\tNOSUCHGENE\tsideways\t1\tT\n"
        "b\tMKI67\t+\tmuch\tplatelets\n"
        "b\tMKI67\t-\t1\tplatelets\n"
        "c\tCD27\t+\t-1\tT\n"
    )
    problems = check_signatures(file)
    found = {(p.rule, p.line, p.signature) for p in problems}
    assert found == {
        ("direction", 3, "a"),
        ("unknown gene", 3, "a"),
        ("weight", 4, "b"),
        ("lineages", 4, "b"),
        ("repeated gene with another sign", 5, "b"),
        ("weight", 6, "c"),
    }
    assert str(problems[0]).startswith(f"{file}:")
    with pytest.raises(SignatureError, match=r"mistakes in the signatures:") as error:
        read_signatures(file)
    assert f"{file}:5: signature 'b', gene MKI67: listed as" in str(error.value)


def test_a_file_without_its_row_and_a_row_without_its_file_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "signatures"
    shutil.copytree(registry_folder(), folder)
    (folder / "extra.tsv").write_text("gene\nMKI67\n")
    (folder / "sasp_b.tsv").unlink()
    problems = check_signatures(folder)
    assert [(p.rule, p.signature) for p in problems] == [("index", "sasp_b"), ("index", "extra")]


def test_a_turned_sign_in_the_registry_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "signatures"
    shutil.copytree(registry_folder(), folder)
    table = folder / "t_arm_tcr_loss.tsv"
    table.write_text(table.read_text().replace("\t-\t1\tyes", "\t+\t1\tyes"))
    problems = check_signatures(folder)
    assert {(p.rule, p.gene) for p in problems} == {
        ("sign", "LAT"), ("unsupported vote", "LAT"),
        ("sign", "LCP2"), ("unsupported vote", "LCP2"),
    }  # fmt: skip
    assert problems[0].line == 2
    assert problems[0].file == str(table)


def test_a_problem_reads_as_one_sentence() -> None:
    problem = Problem("rule", "what is wrong", "do this", "set", "GENE", "file.tsv", 3)
    assert str(problem) == "file.tsv:3: signature 'set', gene GENE: what is wrong; do this"


# ---------------------------------------------------------------------------------------------------
# readers

symbols = st.from_regex(r"[A-Z][A-Za-z0-9.-]{0,8}[A-Z0-9]", fullmatch=True)
names = st.from_regex(r"[a-zA-Z][\w ().:-]{0,20}[\w)]", fullmatch=True).filter(str.isprintable)
signed_sets = st.dictionaries(
    names.map(str.strip),
    st.dictionaries(symbols, st.sampled_from([1, -1]), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)


few = settings(max_examples=40, deadline=None)


def signs(signatures: SignatureSet) -> dict[str, dict[str, int]]:
    return {
        name: {gene.symbol: gene.direction for gene in signature.genes}
        for name, signature in signatures.items()
    }


@few
@given(sets=signed_sets, blank=st.booleans(), plus=st.booleans(), newline=st.sampled_from("\n\r"))
def test_gmt_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    sets: dict[str, dict[str, int]],
    blank: bool,
    plus: bool,
    newline: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.gmt"
    lines = []
    for name, genes in sets.items():
        up = "+" if plus else ""
        words = [gene + (up if sign > 0 else "-") for gene, sign in genes.items()]
        lines.append("\t".join([name, "MKI67 TOP2A are words here", *words, *([""] * 2 * blank)]))
    path.write_bytes(("\r\n" if newline == "\r" else "\n").join(lines).encode())
    assert signs(read_signatures(path)) == sets


@few
@given(sets=signed_sets)
def test_dictionary_round_trip(sets: dict[str, dict[str, int]]) -> None:
    suffixed = {
        name: [gene + ("-" if sign < 0 else "") for gene, sign in genes.items()]
        for name, genes in sets.items()
    }
    assert signs(read_signatures(suffixed)) == sets
    assert signs(read_signatures(sets)) == sets  # signed weights


@few
@given(sets=signed_sets, weight=st.floats(0.01, 100))
def test_tsv_round_trip(
    tmp_path_factory: pytest.TempPathFactory, sets: dict[str, dict[str, int]], weight: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.tsv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["gene", "direction", "weight", "signature", "lineages"])
        for name, genes in sets.items():
            for gene, sign in genes.items():
                writer.writerow([gene, "+" if sign > 0 else "-", repr(weight), name, "T NK"])
    found = read_signatures(path)
    assert signs(found) == sets
    assert {gene.weight for s in found.values() for gene in s.genes} == {weight}
    assert {s.lineages for s in found.values()} == {("T", "NK")}


def test_a_gmt_description_is_not_a_gene(tmp_path: Path) -> None:
    path = tmp_path / "my.gmt"
    path.write_text("a\tMKI67\tCDKN1A\tCD28-\nb\t\tTOX+\t\n# comment\n\n")
    found = read_signatures(path)
    assert signs(found) == {"a": {"CDKN1A": 1, "CD28": -1}, "b": {"TOX": 1}}
    assert found["a"].description == "MKI67"


def test_user_sets_are_valid_everywhere_unless_they_say_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("gene,lineages\nHLA-DRA,\nCD27,\n")
    mine = read_signatures(path)["mine"]
    assert (mine.role, mine.lineages, mine.species) == ("user", LINEAGES, ("human", "mouse"))
    assert signs(SignatureSet([mine])) == {"mine": {"HLA-DRA": 1, "CD27": 1}}
    assert mine.for_organism("mouse").voting()[0].symbol == "HLA-DRA"  # as written


def test_no_current_gene_name_ends_in_a_sign(shared: Path) -> None:
    """A trailing sign can therefore be read as a direction."""
    for organism in ("homo_sapiens", "mus_musculus"):
        with gzip.open(shared / f"tables/cellxgene_gencode_genes_{organism}.csv.gz", "rt") as lines:
            assert [row[1] for row in csv.reader(lines) if row[1][-1] in "+-"] == []


def test_a_folder_of_loose_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gmt").write_text("x\t\tMKI67\n")
    with gzip.open(tmp_path / "b.tsv.gz", "wt") as file:
        file.write("gene\nCD27\n")
    (tmp_path / "README.md").write_text("not a set")
    assert list(read_signatures(tmp_path)) == ["x", "b"]


def test_a_gene_given_twice_alike_is_counted_once_and_said() -> None:
    with pytest.warns(SenoscoreWarning, match="'a', gene CD27: listed twice and counted once"):
        found = read_signatures({"a": ["CD27", "TOX", "CD27"]})
    assert signs(found) == {"a": {"CD27": 1, "TOX": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("genes\tweight\nCD27\t1\n", "no column 'gene'; the header line has genes, weight"),
        ("gene\twieght\nCD27\t1\n", "unknown column 'wieght'; did you mean 'weight'"),
        ("gene\n", "no signature found"),
        ("gene\tsignature\nCD27\ta/b\n", "'a/b' cannot name a signature"),
        ("gene\tweight\nCD27\tnan\n", "weight 'nan' is not a finite number"),
        ("gene\tweight\nCD27\t5000\n", "weight 5000 is outside 0.0001 to 1,000"),
        ("gene\tweight\nCD27\t-1e-6\n", "only ratios matter"),
        ("gene\tvotes\nCD27\tmaybe\n", "votes 'maybe'; use yes or no"),
        ("gene\trole\nCD27\taxes\n", r"unknown role 'axes' \(did you mean axis\?\)"),
        ("gene\tspecies\nCD27\tmouse human rat\n", "unknown species 'rat'"),
        ("gene\tlineages\tsignature\nA1\tT\ts\nB2\tB\ts\n", "lineages is given as 'T', 'B'"),
        ("gene\nCD27\0\n", "zero bytes"),
        ("gene\tdirection\n\t+\n", "a row without a gene"),
    ],
)
def test_a_bad_table_says_what_to_do(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text(content)
    with pytest.raises(SignatureError, match=message):
        read_signatures(path)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"a": "CD27"}, "the value is 'CD27', not a list of genes"),
        ({"a": []}, "signature 'a': no genes; list at least one gene"),
        ({"a": ["CD27", "CD27-"]}, "listed as .1 and again as -1"),
        ({"a/b": ["CD27"]}, "cannot name a signature"),
        ({}, "no signature found"),
    ],
)
def test_a_bad_dictionary_says_what_to_do(sets: dict[str, object], message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        read_signatures(sets)


def test_unreadable_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"\xff\xfe\x00gene")
    (tmp_path / "a.gmt.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    (tmp_path / "a.gmt").write_text("name description CD27 CD28\n")
    (tmp_path / "a.rds").write_text("gene\n")
    (tmp_path / "twice.gmt").write_text("x\t\tCD27\nx\t\tCD28\n")
    for name, message in (
        ("a.tsv", "cannot be read as a text file"),
        ("a.gmt.gz", "cannot be read as a text file"),
        ("a.gmt", "with tabs between them"),
        ("a.rds", "use .gmt, .tsv or .csv"),
        ("twice.gmt", "also defined in"),
        ("absent.gmt", "no such file or folder"),
    ):
        with pytest.raises(SignatureError, match=message):
            read_signatures(tmp_path / name)


# ---------------------------------------------------------------------------------------------------
# sets of signatures


def test_a_misspelt_name_lists_its_neighbours(registry: SignatureSet) -> None:
    with pytest.raises(SignatureError, match=r"'t_senesence' \(did you mean t_senescence"):
        registry.select(["t_senesence", "b_senescence"])
    with pytest.raises(KeyError, match="did you mean"):
        registry["T_exhaustion"]
    assert list(registry.select(["nk_senescence", "b_senescence"])) == [
        "nk_senescence", "b_senescence",
    ]  # fmt: skip
    assert registry.get("nothing") is None


def test_a_user_set_does_not_replace_a_shipped_one(registry: SignatureSet) -> None:
    mine = read_signatures({"mine": ["CD27-"]})
    assert len(registry | mine) == len(registry) + 1
    assert (registry | registry.select("senmayo")) == registry
    with pytest.raises(SignatureError, match="'sasp_b' is already taken"):
        registry | read_signatures({"sasp_b": ["CD27"]})


def test_the_frame_holds_every_gene(registry: SignatureSet) -> None:
    frame = registry.to_frame()
    assert len(frame) == sum(len(signature.genes) for signature in registry.values())
    arm = frame[(frame["signature"] == "t_arm_tcr_loss") & frame["votes"]]
    assert dict(zip(arm["gene"], arm["direction"] * arm["weight"], strict=True)) == {
        "LAT": -1,
        "LCP2": -1,
        "DLG1": -0.5,
    }


def test_an_unknown_organism_lineage_or_role_is_refused(registry: SignatureSet) -> None:
    for call in (
        lambda: registry.for_organism("rat"),
        lambda: registry.in_lineage("platelet"),
        lambda: registry.with_role("axes"),
        lambda: registry["nk_senescence"].for_organism("mouse"),
    ):
        with pytest.raises(SignatureError):
            call()


def test_a_set_without_votes_is_refused(registry: SignatureSet) -> None:
    assert "no voting gene" in registry["t_shared_no_vote"].refusal(lineage="T")


# ---------------------------------------------------------------------------------------------------
# cost and place


def test_reading_the_registry_needs_no_heavy_import() -> None:
    code = (
        "import sys, time; t = time.perf_counter()\n"
        "from senoscore.signatures import read_signatures\n"
        "read_signatures()\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'anndata', 'scanpy', 'numba'} & set(sys.modules)\n"
        "print(sorted(heavy), time.perf_counter() - t < 2)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[0] == "[] True"


def test_an_installed_package_reads_its_own_copy(tmp_path: Path) -> None:
    """In a wheel the registry is `senoscore/_signatures`; no checkout is near."""
    package = Path(registry_folder()).parent / "senoscore"
    target = tmp_path / "senoscore"
    target.mkdir()
    for file in ("__init__.py", "errors.py", "keys.py"):
        shutil.copy(package / file, target / file)
    shutil.copytree(package / "signatures", target / "signatures")
    shutil.copytree(registry_folder(), target / "_signatures")
    code = (
        "from senoscore.signatures import read_signatures, registry_folder\n"
        "print(registry_folder().name, len(read_signatures()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["_signatures", str(len(read_signatures()))]
    shutil.rmtree(target / "_signatures")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "the shipped signatures are missing" in run.stderr


def test_no_gene_votes_in_the_exhaustion_axis_and_in_another_axis_or_arm(
    registry: SignatureSet,
) -> None:
    exhaustion = set(voting(registry["t_axis_exhaustion"]))
    for name in (*AXES, *ARMS):
        if name not in EXHAUSTION_SETS:
            assert not exhaustion & set(voting(registry[name])), name
