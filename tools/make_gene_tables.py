"""Make ``senoscore/data/genes_{human,mouse}.tsv.gz`` from GENCODE and HGNC tables.

Inputs, in ``$SENOSCORE_SHARED/tables`` (default ``../shared/tables``):

* ``cellxgene_gencode_genes_{homo_sapiens,mus_musculus}.csv.gz``: the GENCODE gene lists that
  chanzuckerberg/single-cell-curation ships (MIT): id, symbol, version, length, biotype.
* ``cellxgene_hgnc_complete_set.txt.gz``: the HGNC complete set (free to use).

Output columns, one row per Ensembl gene id, sorted by id:

``ensembl``
    Id without version; empty for the few genes HGNC names that have none.
``symbol``
    Current symbol: GENCODE's; where GENCODE has none, HGNC's for that id.
``same_as``
    Empty where the symbol stands for this row. Otherwise the id the symbol stands for, with ``=``
    before it when the row is the same gene (the copy on the pseudoautosomal region of Y, to which
    GENCODE gives an id of its own), so that the two are summed.
``retired``
    Ids HGNC still gives for this gene that GENCODE no longer has, separated by ``|``.
``previous``
    Previous symbols that name this gene and no other, and are nobody's current symbol.
``aliases``
    Aliases that name this gene and no other, and are nobody's current or previous symbol; names
    of cDNA clones (FLJ, MGC, DKFZ) are left out.

Which id a symbol with several ids stands for: HGNC's ``ensembl_gene_id`` if it is one of them,
else the protein-coding one, else the lowest id. The lists carry no coordinates, so a patch or
haplotype id is only recognised through HGNC.

Mouse has no HGNC. Its previous symbols are those of the human gene of the same name, when the
mouse spelling of both agrees (``H2AFX`` became ``H2AX``, so ``H2afx`` is taken for ``H2ax``),
and a few names set down below by hand.

The bytes depend on the inputs alone (no time stamp in the gzip header).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("ensembl", "symbol", "same_as", "retired", "previous", "aliases")

# Ids that GENCODE gave in one go to the pseudoautosomal genes on Y; their X copies keep the old id
PAR_Y = ("ENSG00000292327", "ENSG00000292373")

# HGNC entries that are no transcript: they cannot be a row of an expression matrix
NOT_A_GENE = {
    "RNA, cluster",
    "complex locus constituent",
    "fragile site",
    "phenotype only",
    "region",
    "virus integration site",
}

# Mouse renames that do not run parallel to the human ones
MOUSE_PREVIOUS = {
    "2810417H13Rik": "Pclaf",
    "Cd244": "Cd244a",
    "H1fx": "H1f10",
    "Hist1h1a": "H1f1",
    "Hist1h1b": "H1f5",
    "Hist1h1c": "H1f2",
    "Hist1h1d": "H1f3",
    "Hist1h1e": "H1f4",
    "Hist1h1t": "H1f6",
    "Tcrg-C1": "Trgc1",
    "Tcrg-C2": "Trgc2",
    "Tcrg-C3": "Trgc3",
    "Tcrg-C4": "Trgc4",
}


@dataclass
class Gene:
    """One row of an output table."""

    ensembl: str
    symbol: str
    biotype: str = ""
    same_as: str = ""
    retired: set[str] = field(default_factory=set)
    previous: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        return self.ensembl or self.symbol

    def row(self) -> tuple[str, ...]:
        lists = (self.retired, self.previous, self.aliases)
        return (self.ensembl, self.symbol, self.same_as, *("|".join(sorted(x)) for x in lists))


def read_gencode(path: Path) -> dict[str, Gene]:
    """GENCODE genes by id; a symbol that only repeats the id counts as none."""
    genes: dict[str, Gene] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
        for ensembl, symbol, _version, _length, biotype in csv.reader(handle):
            if ensembl in genes:
                sys.exit(f"{path.name}: {ensembl} is listed twice")
            genes[ensembl] = Gene(ensembl, "" if symbol == ensembl else symbol, biotype)
    return genes


def read_hgnc(path: Path) -> list[dict[str, str]]:
    """Approved HGNC genes in the order of the file."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    return [
        row for row in rows if row["status"] == "Approved" and row["locus_type"] not in NOT_A_GENE
    ]


def words(cell: str) -> list[str]:
    """The entries of a ``|``-separated cell."""
    return [word for word in (part.strip(" \"'") for part in cell.split("|")) if word]


def by_symbol(genes: Iterable[Gene]) -> dict[str, list[Gene]]:
    table: dict[str, list[Gene]] = defaultdict(list)
    for gene in genes:
        if gene.symbol:
            table[gene.symbol].append(gene)
    return table


def mark_same(genes: Iterable[Gene], preferred: set[str]) -> None:
    """Say for each symbol with several ids which id it stands for."""
    for same in by_symbol(genes).values():
        if len(same) == 1:
            continue
        main = min(
            same,
            key=lambda g: (g.ensembl not in preferred, g.biotype != "protein_coding", g.ensembl),
        )
        for gene in same:
            if gene is not main:
                copy = PAR_Y[0] <= gene.ensembl <= PAR_Y[1]
                gene.same_as = ("=" if copy else "") + main.ensembl


def add_names(
    genes: list[Gene], previous: dict[str, set[str]], aliases: dict[str, set[str]]
) -> None:
    """Keep the old names and aliases that point to one gene only."""
    by_key = {gene.key: gene for gene in genes}
    current = {gene.symbol.upper() for gene in genes}
    for name, keys in previous.items():
        if len(keys) == 1 and name.upper() not in current:
            by_key[next(iter(keys))].previous.add(name)
    taken = current | {name.upper() for name in previous}
    for name, keys in aliases.items():
        plain = len(name) > 1 and name.isascii() and not set(name) & set(" ,:/()")
        clone = name.startswith(("DKFZ", "FLJ", "MGC"))
        if len(keys) == 1 and plain and not clone and name.upper() not in taken:
            by_key[next(iter(keys))].aliases.add(name)


def human(tables: Path) -> list[Gene]:
    gencode = read_gencode(tables / "cellxgene_gencode_genes_homo_sapiens.csv.gz")
    hgnc = read_hgnc(tables / "cellxgene_hgnc_complete_set.txt.gz")
    named = by_symbol(gencode.values())
    preferred = {row["ensembl_gene_id"] for row in hgnc}

    found: list[tuple[dict[str, str], Gene]] = []
    extra: list[Gene] = []
    # entries whose own symbol GENCODE gives to their id come first, so that they keep the id
    taken: set[str] = set()

    def agrees(row: dict[str, str]) -> bool:
        gene = gencode.get(row["ensembl_gene_id"])
        return gene is not None and gene.symbol == row["symbol"]

    for row in sorted(hgnc, key=lambda row: not agrees(row)):
        symbol, ensembl = row["symbol"], row["ensembl_gene_id"]
        gene = gencode.get(ensembl)
        if not agrees(row) and symbol in named:  # GENCODE, being newer, moved the symbol
            gene = min(
                named[symbol],
                key=lambda g: (g.ensembl not in preferred, g.biotype != "protein_coding", g.key),
            )
            if ensembl and ensembl not in gencode:
                gene.retired.add(ensembl)
        elif gene is None or gene.key in taken:
            gene = Gene("" if ensembl in gencode else ensembl, symbol)
            extra.append(gene)
        elif not gene.symbol:
            gene.symbol = symbol
        taken.add(gene.key)
        found.append((row, gene))

    genes = [*gencode.values(), *extra]
    mark_same(genes, preferred)
    previous: dict[str, set[str]] = defaultdict(set)
    aliases: dict[str, set[str]] = defaultdict(set)
    for row, gene in found:
        if gene.symbol != row["symbol"]:
            previous[row["symbol"]].add(gene.key)
        for name in words(row["prev_symbol"]):
            previous[name].add(gene.key)
        for name in words(row["alias_symbol"]):
            aliases[name].add(gene.key)
    add_names(genes, previous, aliases)
    return genes


def mouse(tables: Path, human_genes: list[Gene]) -> list[Gene]:
    genes = list(read_gencode(tables / "cellxgene_gencode_genes_mus_musculus.csv.gz").values())
    mark_same(genes, set())
    main = [gene for gene in genes if gene.symbol and not gene.same_as]
    spelling: dict[str, list[Gene]] = defaultdict(list)
    for gene in main:
        spelling[gene.symbol.upper()].append(gene)
    human_symbols = {gene.symbol.upper() for gene in human_genes}
    previous: dict[str, set[str]] = defaultdict(set)
    for gene in human_genes:
        target = spelling.get(gene.symbol.upper(), [])
        if len(target) != 1:
            continue
        for name in gene.previous:
            parallel = not re.match(r"C(\d+|X|Y)orf|KIAA|LOC|FLJ|DKFZ|MGC", name)
            if parallel and name.upper() not in human_symbols and name.upper() not in spelling:
                previous[name.capitalize()].add(target[0].key)
    current = {gene.symbol: gene.key for gene in main}
    for old, new in MOUSE_PREVIOUS.items():
        previous[old] = {current[new]}
    add_names(genes, previous, {})
    return genes


def write(genes: list[Gene], path: Path, sources: str) -> None:
    text = io.StringIO()
    text.write(f"# Gene names; made by tools/make_gene_tables.py from {sources}\n")
    text.write("\t".join(COLUMNS) + "\n")
    for gene in sorted(genes, key=lambda g: (g.ensembl == "", g.key)):
        row = gene.row()
        if any("\t" in cell or "\n" in cell for cell in row):
            sys.exit(f"{gene.key}: a tab or line break in a name")
        text.write("\t".join(row).rstrip("\t") + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    sys.stderr.write(f"{path.name}: {len(genes)} genes, {path.stat().st_size / 1024:.0f} KiB\n")


def main() -> None:
    shared = Path(os.environ.get("SENOSCORE_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description="Make the shipped gene tables.")
    parser.add_argument("--tables", type=Path, default=shared / "tables")
    parser.add_argument("--out", type=Path, default=ROOT / "senoscore" / "data")
    options = parser.parse_args()
    gencode = "GENCODE as shipped by chanzuckerberg/single-cell-curation (MIT)"
    human_genes = human(options.tables)
    write(human_genes, options.out / "genes_human.tsv.gz", f"{gencode} and HGNC (2020-05)")
    mouse_genes = mouse(options.tables, human_genes)
    write(mouse_genes, options.out / "genes_mouse.tsv.gz", f"{gencode}; old names after HGNC")


if __name__ == "__main__":
    main()
