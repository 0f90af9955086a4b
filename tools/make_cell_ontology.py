"""Write ``senoscore/data/cell_ontology.tsv``: the immune lineage of every Cell Ontology term.

The ancestors of each term come from the PyPI package ``cellxgene-ontology-guide`` (MIT; the Cell
Ontology itself is CC BY 4.0). Run it in an environment of its own, the package is no dependency
of senoscore::

    python -m venv ontology && ontology/bin/pip install cellxgene-ontology-guide
    ontology/bin/python tools/make_cell_ontology.py senoscore/data/cell_ontology.tsv

A term takes the lineage and the subset of the nearest roots above it (or of itself) in ``ROOTS``;
a root that lies above another root of the same term says nothing more. Where the remaining roots
name two lineages, the term is ``ambiguous``. A term below no root of ``ROOTS`` is ``other``
when it is no blood cell and ``ambiguous`` when it is one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# CL id, lineage, subset. "ambiguous" is a term that several lineages share.
ROOTS: tuple[tuple[str, str, str], ...] = (
    # T
    ("CL:0000084", "T", "T"),  # T cell
    ("CL:0000624", "T", "CD4"),  # CD4-positive, alpha-beta T cell
    ("CL:0000810", "T", "CD4"),  # CD4-positive, alpha-beta thymocyte
    ("CL:0000912", "T", "CD4"),  # helper T cell
    ("CL:0000625", "T", "CD8"),  # CD8-positive, alpha-beta T cell
    ("CL:0000811", "T", "CD8"),  # CD8-positive, alpha-beta thymocyte
    ("CL:0000910", "T", "CD8"),  # cytotoxic T cell
    ("CL:0000815", "T", "Treg"),  # regulatory T cell
    ("CL:0000792", "T", "Treg"),  # CD4-positive, CD25-positive, alpha-beta regulatory T cell
    ("CL:0000798", "T", "innate_like"),  # gamma-delta T cell
    ("CL:0000940", "T", "innate_like"),  # mucosal invariant T cell
    ("CL:0000814", "T", "innate_like"),  # mature NK T cell
    ("CL:0000827", "other", "progenitor"),  # pro-T cell
    # B
    ("CL:0000236", "B", "B"),  # B cell
    ("CL:0000945", "B", "B"),  # lymphocyte of B lineage
    ("CL:0000786", "B", "plasma"),  # plasma cell
    ("CL:0000946", "B", "plasma"),  # antibody secreting cell
    ("CL:0000980", "B", "plasma"),  # plasmablast
    ("CL:0000787", "B", "memory"),  # memory B cell
    ("CL:0000788", "B", "naive"),  # naive B cell
    ("CL:0000844", "B", "germinal_centre"),  # germinal center B cell
    ("CL:0000817", "B", "precursor"),  # precursor B cell
    ("CL:0000818", "B", "transitional"),  # transitional stage B cell
    ("CL:0000826", "other", "progenitor"),  # pro-B cell
    # NK
    ("CL:0000623", "NK", "NK"),  # natural killer cell
    ("CL:0000938", "NK", "CD56bright"),  # CD16-negative, CD56-bright natural killer cell, human
    ("CL:0000939", "NK", "CD56dim"),  # CD16-positive, CD56-dim natural killer cell, human
    ("CL:0001065", "other", "ILC"),  # innate lymphoid cell
    # monocytes and macrophages
    ("CL:0000576", "mono_mac", "monocyte"),  # monocyte
    ("CL:0000559", "mono_mac", "monocyte"),  # promonocyte
    ("CL:0000235", "mono_mac", "macrophage"),  # macrophage
    ("CL:0000129", "mono_mac", "microglia"),  # microglial cell
    ("CL:0000092", "other", "osteoclast"),  # osteoclast
    # granulocytes
    ("CL:0000775", "neutrophil", "neutrophil"),  # neutrophil
    ("CL:0000767", "other", "basophil"),  # basophil
    ("CL:0000771", "other", "eosinophil"),  # eosinophil
    ("CL:0000097", "other", "mast"),  # mast cell
    # dendritic cells
    ("CL:0000451", "DC", "DC"),  # dendritic cell
    ("CL:0000784", "DC", "pDC"),  # plasmacytoid dendritic cell
    ("CL:0000990", "DC", "cDC"),  # conventional dendritic cell
    ("CL:0001057", "DC", "cDC"),  # myeloid dendritic cell, human
    # rest of the blood
    ("CL:0000764", "other", "erythroid"),  # erythroid lineage cell
    ("CL:0000233", "other", "platelet"),  # platelet
    ("CL:0000556", "other", "platelet"),  # megakaryocyte
    ("CL:0000553", "other", "progenitor"),  # megakaryocyte progenitor cell
    ("CL:0008001", "other", "progenitor"),  # hematopoietic precursor cell
    ("CL:0002191", "other", "progenitor"),  # granulocytopoietic cell
    ("CL:0002194", "other", "progenitor"),  # monopoietic cell
    # tissue
    ("CL:0000066", "other", "epithelial"),  # epithelial cell
    ("CL:0000115", "other", "endothelial"),  # endothelial cell
    ("CL:0000057", "other", "fibroblast"),  # fibroblast
    ("CL:0000499", "other", "stromal"),  # stromal cell
    ("CL:0000187", "other", "muscle"),  # muscle cell
    ("CL:0000669", "other", "stromal"),  # pericyte
    ("CL:0002319", "other", "neural"),  # neural cell
    ("CL:0001063", "other", "tumour"),  # neoplastic cell
    # names that say too little
    ("CL:0000988", "ambiguous", ""),  # hematopoietic cell
    ("CL:0000738", "ambiguous", ""),  # leukocyte
    ("CL:0000842", "ambiguous", ""),  # mononuclear leukocyte
    ("CL:2000001", "ambiguous", ""),  # peripheral blood mononuclear cell
    ("CL:0000542", "ambiguous", ""),  # lymphocyte
    ("CL:0000763", "ambiguous", ""),  # myeloid cell
    ("CL:0000766", "ambiguous", ""),  # myeloid leukocyte
    ("CL:0000113", "ambiguous", ""),  # mononuclear phagocyte
    ("CL:0000145", "ambiguous", ""),  # professional antigen presenting cell
    ("CL:0000094", "ambiguous", ""),  # granulocyte
    ("CL:0000081", "ambiguous", ""),  # blood cell
    ("CL:0000000", "ambiguous", ""),  # cell
    ("CL:0000003", "ambiguous", ""),  # obsolete native cell
    ("CL:0000255", "ambiguous", ""),  # eukaryotic cell
    ("CL:0000219", "ambiguous", ""),  # motile cell
    ("CL:0000226", "ambiguous", ""),  # single nucleate cell
    ("CL:0002242", "ambiguous", ""),  # nucleate cell
    ("CL:0000080", "ambiguous", ""),  # circulating cell
    ("CL:0000548", "ambiguous", ""),  # animal cell (obsolete)
    ("CL:0000234", "ambiguous", ""),  # phagocyte
    ("CL:0000518", "ambiguous", ""),  # phagocyte (sensu Vertebrata)
    ("CL:0011115", "ambiguous", ""),  # precursor cell
    ("CL:0000034", "ambiguous", ""),  # stem cell
    ("CL:0011026", "ambiguous", ""),  # progenitor cell
)

# Terms whose nearest roots disagree, decided by hand.
DECIDED: dict[str, tuple[str, str]] = {
    # CD141-positive myeloid dendritic cell: also below the plasmacytoid one, which it is not
    "CL:0002394": ("DC", "cDC"),
}

# Where the roots agree on the lineage, the subset that comes first here is kept.
SUBSET_ORDER = (
    "Treg",
    "innate_like",
    "CD8",
    "CD4",
    "plasma",
    "germinal_centre",
    "memory",
    "naive",
    "transitional",
    "precursor",
    "CD56bright",
    "CD56dim",
    "microglia",
    "macrophage",
    "monocyte",
    "pDC",
    "cDC",
    "ILC",
    "mast",
    "basophil",
    "eosinophil",
    "erythroid",
    "platelet",
    "osteoclast",
    "progenitor",
    "tumour",
    "endothelial",
    "epithelial",
    "fibroblast",
    "neural",
    "muscle",
    "stromal",
)


def lineage_of(term: str, terms: dict[str, Any]) -> tuple[str, str]:
    """Lineage and subset of one term, from the nearest roots at or above it."""
    if term in DECIDED:
        return DECIDED[term]
    roots = {root: (lineage, subset) for root, lineage, subset in ROOTS}
    above = {term, *terms[term].get("ancestors", {})}
    hits = [root for root in roots if root in above]
    nearest = [
        root
        for root in hits
        if not any(root in terms[other].get("ancestors", {}) for other in hits if other != root)
    ]
    found = {roots[root] for root in nearest}
    named = {pair for pair in found if pair[0] != "ambiguous"}
    if not named:
        blood = bool(above & {"CL:0000988", "CL:0000738"})
        itself = term in roots
        return ("ambiguous", "") if blood or itself or not found else ("other", "other")
    lineages = {lineage for lineage, _ in named}
    if len(lineages) > 1:
        lineages.discard("other")  # "other" is the absence of one of the six
    if len(lineages) > 1:
        return "ambiguous", ""
    lineage = lineages.pop()
    subsets = [subset for pair_lineage, subset in named if pair_lineage == lineage]
    ranked = [name for name in SUBSET_ORDER if name in subsets]
    return lineage, ranked[0] if ranked else subsets[0]


def main(path: str) -> None:
    """Read the newest Cell Ontology of the package and write the table."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    terms: dict[str, Any] = parser.cxg_schema.ontology("CL")
    version = parser.cxg_schema.supported_ontologies["CL"]["version"]
    missing = [root for root, _, _ in ROOTS if root not in terms]
    if missing:
        print(f"roots not in the ontology: {missing}", file=sys.stderr)
    lines = [
        (
            f"# Cell Ontology {version} (CC BY 4.0), ancestors from cellxgene-ontology-guide; "
            "written by tools/make_cell_ontology.py"
        ),
        "id\tlabel\tlineage\tsubset\tsynonyms",
    ]
    for term in sorted(t for t in terms if t.startswith("CL:")):
        entry = terms[term]
        source = term
        if entry.get("deprecated"):
            source = entry.get("replaced_by") or next(iter(entry.get("consider", [])), "")
            if source not in terms:
                continue
        lineage, subset = lineage_of(source, terms)
        synonyms = (
            "" if lineage == "other" and subset == "other" else "|".join(entry.get("synonyms", []))
        )
        lines.append("\t".join((term, entry["label"], lineage, subset, synonyms)))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
