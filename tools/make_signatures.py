#!/usr/bin/env python
"""Derive the tables of ``signatures/`` from the reading notes and the gene tables.

Inputs, in ``$SENOSCORE_SHARED`` (default ``../shared``):

* ``evidence/``: reading notes of the two reviews and of papers that complete or contradict them
  (``evidence.tsv``, ``evidence_external.tsv``, ``targets.tsv``, ``dual_role.tsv``), the proposed
  sets (``signatures/*.tsv``) and published sets for comparison (``published/``).
* ``tables/``: GENCODE gene lists (ids and symbols of both organisms) and HGNC (older symbols).

Outputs: ``evidence.tsv``, ``targets.tsv``, ``dual_role.tsv``, one table per signature and
``published/*.tsv``. ``index.tsv`` and ``references.tsv`` are written by hand and only read here.

Markers, genes, directions and places are facts; no sentence of a source is carried over. What
differs from the proposal is set down below (CHANGES, ARMS, NO_MOUSE), each with its reason, and the
reason is repeated in the note of the gene.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _signature_notes import (
    ARMS,
    CHANGES,
    DROPPED_PARTS,
    LABELS,
    LITERATURE,
    MARKERS,
    NO_MOUSE,
    NOTES,
    ONLY_FOR,
    PARTS,
    REASONS,
    STATEMENTS,
    TARGET_LINEAGES,
)

ROOT = Path(__file__).resolve().parents[1]
YU, LEE = "10.3389/fimmu.2026.1779141", "10.3390/ijms27010357"
REVIEWS = {"S0": LEE, "S1": "IJMS special issue 212097", "S2": YU, "S3": YU}
GENE_COLUMNS = (
    "gene", "ensembl", "mouse_gene", "mouse_ensembl", "direction", "weight", "votes",
    "evidence_ids", "literature", "measurable", "note",
)  # fmt: skip
LINEAGE_CELLS = {
    "T": {"T", "CD4 T", "CD8 T"},
    "B": {"B"},
    "NK": {"NK"},
    "mono_mac": {"macrophage"},
    "neutrophil": {"neutrophil"},
    "DC": {"DC", "DC (cDC)", "DC (pDC)"},
    "other": {"tumour cell"},
}
EXHAUSTION_SETS = {
    "t_exhaustion", "t_exhaustion_progenitor", "t_exhaustion_terminal",
    "t_discriminating_exhaustion_only", "t_axis_exhaustion", "conf_taa_gzmk",
}  # fmt: skip
SIGN = {"up": "+", "down": "-"}
Row = dict[str, str]


class Genes:
    """GENCODE ids and symbols of both organisms, and HGNC's older symbols."""

    def __init__(self, tables: Path) -> None:
        self.human = _ids(tables / "cellxgene_gencode_genes_homo_sapiens.csv.gz")
        self.mouse = _ids(tables / "cellxgene_gencode_genes_mus_musculus.csv.gz")
        self.newer: dict[str, str] = {}
        with gzip.open(tables / "cellxgene_hgnc_complete_set.txt.gz", "rt") as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                for old in row["prev_symbol"].strip('"').split("|"):
                    if old and old not in self.human and row["symbol"] in self.human:
                        self.newer[old] = row["symbol"]
        self.homologs: dict[str, list[str]] = {}
        with (tables / "scdrs_mouse_human_homologs.txt").open() as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                if row["MOUSE_GENE_SYM"] in self.mouse:
                    self.homologs.setdefault(row["HUMAN_GENE_SYM"], []).append(
                        row["MOUSE_GENE_SYM"]
                    )

    def ids(self, human: str, mouse: str) -> tuple[str, str]:
        return self.human.get(human, ""), self.mouse.get(mouse, "")

    def mouse_of(self, human: str) -> str:
        """The one mouse gene of a human one: the same name, else the only homolog; else none."""
        if human.capitalize() in self.mouse:
            return human.capitalize()
        found = self.homologs.get(human, [])
        return found[0] if len(found) == 1 else "none"


def _ids(path: Path) -> dict[str, str]:
    """Symbol to id; where a symbol has several, the oldest (a readthrough or patch comes later)."""
    found: dict[str, str] = {}
    with gzip.open(path, "rt") as lines:
        for identifier, symbol, *_ in csv.reader(lines):
            found[symbol] = min(identifier, found.get(symbol, identifier))
    return found


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns)]
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        for cell in cells:
            if '"' in cell or "\t" in cell or "seed" in cell.lower():
                raise SystemExit(f"{path.name}: {cell!r} is not fit to ship")
        lines.append("\t".join(cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def mouse_gene(gene: str, proposed: str, where: str = "") -> tuple[str, str]:
    """The gene to read in mouse data, and why there is none."""
    reason = NO_MOUSE.get((where, gene)) or NO_MOUSE.get(("", gene), "")
    return ("none", reason) if reason else (proposed, "")


def make_evidence(notes: Path, genes: Genes) -> list[Row]:
    rows = []
    notes_rows = read(notes / "evidence.tsv") + read(notes / "evidence_external.tsv")
    shared_column = "shared_with_other_state"
    shared = {row["hgnc_symbol"] for row in notes_rows if row[shared_column] == "yes"} - {"none"}
    for row in notes_rows:
        identifier = row["evidence_id"]
        gene = "" if row["hgnc_symbol"] == "none" else row["hgnc_symbol"]
        marker, reason = STATEMENTS[identifier] if not gene else (MARKERS.get(gene, gene), "")
        measurable = row["measurable_at_rna"]
        if not gene:
            measurable = "proxy" if "read" in reason.replace(";", " ").split() else "no"
        if gene and measurable != "yes":
            reason = REASONS[gene]
        proposed, why_none = mouse_gene(gene, row["mouse_symbol"]) if gene else ("", "")
        ensembl, mouse_ensembl = genes.ids(gene, proposed)
        parts = [PARTS.get(part.strip(), part.strip()) for part in row["note"].split(";")]
        kept = [
            part
            for part in parts
            if gene and part and part not in DROPPED_PARTS and ONLY_FOR.get(part, gene) == gene
        ]
        if why_none:
            kept.append(f"mouse: {why_none}")
        rows.append(
            {
                "evidence_id": identifier,
                "review": REVIEWS.get(identifier[:2], ""),
                "location": row["location"],
                "cell_type": row["cell_type"],
                "state": row["state"],
                "direction": "label" if identifier in LABELS else row["direction"],
                "marker": marker,
                "gene": gene,
                "ensembl": ensembl,
                "mouse_gene": proposed if gene else "",
                "mouse_ensembl": mouse_ensembl,
                "measurable": measurable,
                "reason": reason,
                "adt": row["adt_names"],
                "shared_with_other_state": "yes" if gene in shared else row[shared_column],
                "references": row["citation_in_seed"].split(" (")[0],
                "note": LABELS.get(identifier) or "; ".join(dict.fromkeys(kept)),
                "source": ""
                if row["source"] == "seed"
                else PARTS.get(row["source"], row["source"]),
                "licence": row.get("source_licence", "") or "CC BY 4.0 (facts)",
            }
        )
    return rows


def make_sets(notes: Path, genes: Genes, evidence: list[Row], lineages: Mapping[str, set[str]]):
    by_id = {row["evidence_id"]: row for row in evidence}
    for path in sorted((notes / "signatures").glob("[a-z]*.tsv")):
        name = path.stem
        proposed = [
            {
                "gene": row["gene"],
                "mouse_gene": row["mouse_symbol"],
                "direction": row["direction"],
                "weight": row["weight"],
                "votes": "yes" if row["direction"] != "0" and float(row["weight"]) > 0 else "no",
                "evidence_ids": row["evidence_ids"],
                "literature": "" if row["source"] == "seed" else LITERATURE[row["source"]],
                "measurable": row["measurable"],
                "note": NOTES.get(row["note"], row["note"]),
            }
            for row in read(path)
        ]
        yield name, [_finish(name, row, genes, by_id, lineages[name]) for row in proposed]
    every = {row["gene"]: row for row in evidence if row["gene"]}
    for name, members in ARMS.items():
        rows = []
        for gene, (direction, weight, votes, literature, note) in members.items():
            known = every.get(gene, {})
            sign = {"+": "up", "-": "down"}.get(direction, "")
            ids = [
                r["evidence_id"]
                for r in evidence
                if r["gene"] == gene
                and (r["direction"] == sign if votes else r["direction"] != "target")
            ]
            rows.append(
                {
                    "gene": gene,
                    "mouse_gene": known.get("mouse_gene", "") or genes.mouse_of(gene),
                    "direction": direction,
                    "weight": f"{weight:g}",
                    "votes": "yes" if votes else "no",
                    "evidence_ids": ";".join(ids),
                    "literature": literature,
                    "measurable": known.get("measurable", "yes"),
                    "note": note,
                }
            )
        yield name, [_finish(name, row, genes, by_id, lineages[name]) for row in rows]


def _finish(name: str, row: Row, genes: Genes, by_id: Mapping[str, Row], lineages: set[str]) -> Row:
    gene = row["gene"]
    change = dict(CHANGES.get((name, gene), CHANGES.get(("*", gene), {})))
    note = change.pop("note", "")
    row |= change
    row["mouse_gene"], why_none = mouse_gene(gene, row["mouse_gene"], name)
    row["ensembl"], row["mouse_ensembl"] = genes.ids(gene, row["mouse_gene"])
    if not row["ensembl"]:
        raise SystemExit(f"{name}: {gene} is not in GENCODE")
    row["note"] = "; ".join(
        part for part in ((note or row["note"]).strip(), why_none and f"mouse: {why_none}") if part
    )
    cells = {"any immune"}.union(*(LINEAGE_CELLS[lineage] for lineage in lineages))
    kept = []
    for identifier in filter(None, row["evidence_ids"].split(";")):
        source = by_id[identifier]
        if source["cell_type"] not in cells:
            continue
        if row["votes"] == "yes":
            sign = SIGN.get(source["direction"])
            if sign and sign != row["direction"]:
                continue
            exhaustion = source["state"] in ("exhaustion", "both")
            if name in EXHAUSTION_SETS and not exhaustion:
                continue
            if not name.startswith("conf_") and name not in EXHAUSTION_SETS and exhaustion:
                continue
        kept.append(identifier)
    row["evidence_ids"] = ";".join(kept)
    return row


def make_targets(notes: Path, genes: Genes) -> list[Row]:
    rows = []
    for row in read(notes / "targets.tsv"):
        gene = row["hgnc_symbol"]
        mouse, why_none = mouse_gene(gene, row["mouse_symbol"])
        ensembl, mouse_ensembl = genes.ids(gene, mouse)
        note = NOTES.get(row["note"], row["note"])
        named = row["named_in_seed"].partition(" ")[0]
        if named == "no":
            note = "; ".join(filter(None, ["drug named, target from pharmacology", note]))
        if row["measurable_at_rna"] == "proxy":
            note = "; ".join(filter(None, [note, REASONS[gene]]))
        if why_none:
            note = "; ".join(filter(None, [note, f"mouse: {why_none}"]))
        rows.append(
            {
                "target_id": row["target_id"],
                "strategy": row["strategy"],
                "class": row["strategy_class"],
                "cell_type": row["target_cell_type"],
                "lineages": TARGET_LINEAGES[row["target_cell_type"]],
                "gene": gene,
                "ensembl": ensembl,
                "mouse_gene": mouse,
                "mouse_ensembl": mouse_ensembl,
                "action": row["drug_action"],
                "named_in_review": named,
                "location": row["location"],
                "references": row["citation_in_seed"],
                "measurable": row["measurable_at_rna"],
                "adt": row["adt_names"],
                "evidence_ids": row["evidence_ids"],
                "note": note,
            }
        )
    return rows


def make_dual_role(notes: Path, genes: Genes) -> list[Row]:
    rows = []
    for row in read(notes / "dual_role.tsv"):
        gene = "" if row["hgnc_symbol"] == "none" else row["hgnc_symbol"]
        mouse = mouse_gene(gene, row["mouse_symbol"])[0] if gene else ""
        ensembl, mouse_ensembl = genes.ids(gene, mouse)
        rows.append(
            {
                "axis": row["axis"],
                "feature": row["feature"],
                "gene": gene,
                "ensembl": ensembl,
                "mouse_gene": mouse,
                "mouse_ensembl": mouse_ensembl,
                "evidence_ids": row["evidence_ids"],
                "note": NOTES.get(row["note"], row["note"]),
            }
        )
    return rows


# name -> file, rows to keep, literature
PUBLISHED = {
    "senmayo": ("senmayo_human.tsv", "", "Saul 2022"),
    "fridman_senescence": ("fridman.tsv", "", "Fridman 2008"),
    "corescence": ("corescence_v2.tsv", "", "DeepScence"),
    "senepy_universal": ("senepy_universal_human.tsv", "", "SenePy"),
    "reactome_sasp": ("reactome_sasp_human_from_mouse.tsv", "", "Reactome R-HSA-2559582"),
    "winkler_2020_tex": ("tcell_published.tsv", "WinklerBengsch2020_TEX_", "Winkler 2020"),
    "zhang_2018_cd8_tex": ("tcell_published.tsv", "Zhang2018_CD8_Tex", "Zhang 2018"),
    "zhang_2018_cd8_temra": ("tcell_published.tsv", "Zhang2018_CD8_Temra_Teff", "Zhang 2018"),
    "li_2019_cd8_dysfunction": ("tcell_published.tsv", "Li2019_dysfunctional_CD8", "Li 2019"),
}


def make_published(notes: Path, genes: Genes) -> Iterable[tuple[str, list[Row]]]:
    for name, (file, prefix, literature) in PUBLISHED.items():
        found: dict[str, Row] = {}
        for row in read(notes / "published" / file):
            if prefix and not row["signature"].startswith(prefix):
                continue
            if row["direction"] == "?":  # a mouse gene without a human name
                continue
            if "occurrence" in row and int(row["occurrence"]) < 5:
                continue
            gene = genes.newer.get(row["gene"], row["gene"])
            known = gene in genes.human
            mouse = mouse_gene(gene, genes.mouse_of(gene))[0] if known else "none"
            ensembl, mouse_ensembl = genes.ids(gene, mouse)
            note = "" if gene == row["gene"] else f"published as {row['gene']}"
            found[gene] = {
                "gene": gene,
                "ensembl": ensembl,
                "mouse_gene": mouse,
                "mouse_ensembl": mouse_ensembl,
                "direction": row["direction"],
                "weight": "1",
                "votes": "yes" if known else "no",
                "literature": literature,
                "measurable": "yes" if known else "no",
                "note": note if known else "no gene of this name in GENCODE today",
            }
        by_name = {row["mouse_gene"] for gene, row in found.items() if _same(gene, row)}
        for gene, row in found.items():
            if not _same(gene, row) and row["mouse_gene"] in by_name:
                row |= {"mouse_gene": "none", "mouse_ensembl": ""}
        yield name, list(found.values())


def _same(gene: str, row: Row) -> bool:
    return gene.capitalize() == row["mouse_gene"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "signatures")
    out: Path = parser.parse_args().out
    shared = Path(os.environ.get("SENOSCORE_SHARED", ROOT.parent / "shared"))
    notes, genes = shared / "evidence", Genes(shared / "tables")
    lineages = {
        row["name"]: set(row["lineages"].split()) for row in read(ROOT / "signatures/index.tsv")
    }
    evidence = make_evidence(notes, genes)
    for name, rows in (
        ("evidence", evidence),
        ("targets", make_targets(notes, genes)),
        ("dual_role", make_dual_role(notes, genes)),
    ):
        write(out / f"{name}.tsv", tuple(rows[0]), rows)
    for name, rows in make_sets(notes, genes, evidence, lineages):
        write(out / f"{name}.tsv", GENE_COLUMNS, rows)
    for name, rows in make_published(notes, genes):
        write(out / "published" / f"{name}.tsv", GENE_COLUMNS, rows)


if __name__ == "__main__":
    main()
