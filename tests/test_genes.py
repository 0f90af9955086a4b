"""Gene names: every way in which a file may write them, and what must never be guessed."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscore import genes
from senoscore.errors import InputDataError
from senoscore.genes import GeneIndex, Organism, guess_organism, patterns, resolve_genes

ROOT = Path(__file__).resolve().parents[1]
TABLES = {name: ROOT / "senoscore" / "data" / f"genes_{name}.tsv.gz" for name in genes.ORGANISMS}
GENCODE = {"human": "homo_sapiens", "mouse": "mus_musculus"}
KEY_GENES = [
    *("CDKN2A", "CDKN1A", "B3GAT1", "KLRG1", "CD38", "CD27", "CD28", "PDCD1", "HAVCR2", "LAG3"),
    *("TIGIT", "CTLA4", "TOX", "ENTPD1", "LAYN", "TCF7", "IL6", "CXCL8", "TNF", "GLB1"),
]


def shipped(organism: Organism) -> list[dict[str, str]]:
    """The rows of a shipped table, read the slow way."""
    text = gzip.decompress(TABLES[organism].read_bytes()).decode("utf-8")
    return list(csv.DictReader(text.split("\n")[1:], delimiter="\t", restval=""))


def strings(element: Any) -> list[str]:
    """A string column of an h5ad file, plain or categorical."""
    if isinstance(element, h5py.Group):
        categories = strings(element["categories"])
        return [categories[code] for code in element["codes"][:]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in element[:]]


def var(path: Path, *columns: str) -> tuple[list[str], ...]:
    """The var names of an h5ad file, and columns of var."""
    with h5py.File(path) as file:
        group = file["var"]
        if isinstance(group, h5py.Dataset):  # files older than anndata 0.7
            return (strings(group[group.dtype.names[0]]),)
        names = strings(group[group.attrs["_index"]])
        return (names, *(strings(group[column]) for column in columns))


def of(index: GeneIndex, column: int) -> tuple[str, str, str]:
    position = index.columns[column]
    return str(index.ids[position]), str(index.symbols[position]), str(index.how[position])


def one(name: str, *, organism: str = "human", also: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """What a name becomes in a file that has some other names too."""
    return of(resolve_genes([name, *also], organism=organism), 0)


def found(index: GeneIndex, symbol: str) -> bool:
    return bool(index.locate([""], [symbol])[0] >= 0)


# --- the module and its tables -------------------------------------------------------------


def test_importing_reads_no_table_and_no_heavy_package() -> None:
    code = (
        "import sys, senoscore.genes as g\n"
        "heavy = {'pandas', 'scanpy', 'anndata', 'scipy', 'numba', 'h5py'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} {g._table.cache_info()}' if heavy or g._table.cache_info().misses "
        "else 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("organism", genes.ORGANISMS)
def test_a_table_is_small(organism: Organism) -> None:
    assert TABLES[organism].stat().st_size < 600 * 1024


@pytest.mark.parametrize("organism", genes.ORGANISMS)
def test_old_names_in_a_table_point_to_one_gene_and_are_nobodys_symbol(organism: Organism) -> None:
    rows = shipped(organism)
    current = {row["symbol"] for row in rows}
    owners: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for column in ("previous", "aliases"):
            for name in row[column].split("|"):
                if name:
                    owners[name].add(row["ensembl"] or row["symbol"])
    assert len(owners) > 6000
    assert not current & owners.keys()
    assert {name: keys for name, keys in owners.items() if len(keys) > 1} == {}


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_tables", ROOT / "tools/make_gene_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_tables"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_shipped_tables_are_what_the_script_makes(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load_tool()
    human = tool.human(shared / "tables")
    mouse = tool.mouse(shared / "tables", human)
    for organism, made in zip(genes.ORGANISMS, (human, mouse), strict=True):
        tool.write(made, tmp_path / "x.gz", "somewhere")
        new = gzip.decompress((tmp_path / "x.gz").read_bytes()).split(b"\n", 1)[1]
        assert new == gzip.decompress(TABLES[organism].read_bytes()).split(b"\n", 1)[1]
    assert "genes" in capsys.readouterr().err


def test_sixty_thousand_names_are_resolved_in_half_a_second() -> None:
    """Measured 0.2 to 0.4 s of processor time; the limit allows for a slow machine."""
    names = [row["ensembl"] + ".2" for row in shipped("human") if row["ensembl"]][:60_000]
    assert len(names) == 60_000
    resolve_genes(names[:10])
    guess_organism(["CD8A"])
    seconds = []
    for _ in range(3):
        start = time.process_time()
        resolve_genes(names)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.5


# --- ways to write one gene ----------------------------------------------------------------

CD8A = ("ENSG00000153563", "CD8A")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("ENSG00000153563", "ensembl"),
        ("ENSG00000153563.16", "ensembl_version"),
        (" ENSG00000153563 ", "ensembl"),
        ("CD8A", "symbol"),
        ("  CD8A\t", "symbol"),
        ('"CD8A"', "symbol"),
        ("'CD8A '", "symbol"),
        ("\ufeffCD8A\u00a0", "symbol"),
        ("CD8A_ENSG00000153563", "joined"),
        ("CD8A-ENSG00000153563", "joined"),
        ("CD8A|ENSG00000153563.16", "joined"),
        ("ENSG00000153563_CD8A", "joined"),
        ("ENSG00000153563.16_CD8A", "joined"),
        ("hg19_CD8A", "prefix+symbol"),
        ("GRCh38_CD8A", "prefix+symbol"),
        ("GRCh38___CD8A", "prefix+symbol"),
        ("GRCh38______ENSG00000153563", "prefix+ensembl"),
        ("hg19-CD8A", "prefix+symbol"),
        ("cd8a", "case"),
    ],
)
def test_every_spelling_of_a_gene_is_that_gene(name: str, how: str) -> None:
    assert one(name) == (*CD8A, how)


@pytest.mark.parametrize(
    ("name", "symbol", "how"),
    [
        ("IL8", "CXCL8", "previous_symbol"),
        ("GNB2L1", "RACK1", "previous_symbol"),
        ("H2AFX", "H2AX", "previous_symbol"),
        ("C15ORF41", "CDIN1", "previous_symbol"),
        ("SELPLG", "SELPLG", "symbol"),
        ("TIM3", "HAVCR2", "alias"),
        ("CD57", "B3GAT1", "previous_symbol"),
        ("IBA1", "AIF1", "alias"),
        ("PD-1", "PDCD1", "alias"),
        ("HLA.DRA", "HLA-DRA", "dots+symbol"),
        ("MT.CO1", "MT-CO1", "dots+symbol"),
        ("C1ORF162", "C1orf162", "case"),
    ],
)
def test_an_old_or_other_name_leads_to_the_gene(name: str, symbol: str, how: str) -> None:
    assert one(name)[1:] == (symbol, how)


def test_mouse_genes_have_mouse_ids_and_their_old_names() -> None:
    names = ["Cd8a", "H2afx", "Mb21d1", "Tmem173", "2810417H13Rik", "ENSMUSG00000053977.15"]
    index = resolve_genes(names)
    assert index.organism == "mouse"
    assert [of(index, i)[1] for i in range(6)] == [
        "Cd8a",
        "H2ax",
        "Cgas",
        "Sting1",
        "Pclaf",
        "Cd8a",
    ]
    assert index.columns[0] == index.columns[5]
    assert of(index, 0)[0] == "ENSMUSG00000053977"


@pytest.mark.parametrize(
    "name",
    [
        "ENSG00000002586.20_PAR_Y",
        "ENSG00000002586_PAR_Y",
        "ENSG00000002586.20-PAR-Y",
        "ENSGR0000002586.12",
        "ENSG00000292348",  # the id GENCODE gives the copy on Y since release 44
    ],
)
def test_the_copy_on_y_is_summed_into_the_gene_on_x(name: str) -> None:
    index = resolve_genes(["ENSG00000002586.20", name, "CD4"])
    assert index.columns.tolist() == [0, 0, 1]
    assert of(index, 0) == ("ENSG00000002586", "CD99", "ensembl_version")
    assert index.duplicates.to_dict("records") == [
        {
            "gene": "CD99",
            "ensembl": "ENSG00000002586",
            "columns": ", ".join(sorted(["ENSG00000002586.20", name])),
            "n_columns": 2,
        }
    ]
    assert of(resolve_genes([name, "CD4"]), 0)[2] == "par_y"


# --- which name wins -----------------------------------------------------------------------


def test_a_current_symbol_beats_an_old_one_and_an_alias() -> None:
    """IL8 beside CXCL8 is not known to be the same counts: it stays alone, it is not summed."""
    index = resolve_genes(["IL8", "CXCL8", "TIM3", "ENSG00000135077.9"])
    assert [of(index, i)[2] for i in range(4)] == [
        "unresolved",
        "symbol",
        "unresolved",
        "ensembl_version",
    ]
    assert index.n_genes == 4


def test_two_aliases_of_one_gene_are_not_guessed() -> None:
    index = resolve_genes(["NAF", "LUCT", "CD4"], organism="human")
    assert [of(index, i)[2] for i in range(3)] == ["unresolved", "unresolved", "symbol"]
    assert one("NAF", also=("CD4",))[1:] == ("CXCL8", "alias")


def test_two_old_symbols_of_a_gene_are_summed() -> None:
    index = resolve_genes(["FAM21A", "FAM21B", "CD4"])
    assert index.columns.tolist()[0] == index.columns.tolist()[1]
    assert index.duplicates["columns"].tolist() == ["FAM21A, FAM21B"]


def test_a_symbol_with_several_ids_stands_for_the_one_hgnc_names() -> None:
    """WASH7P: HGNC's id, though the other is a lncRNA of that symbol; both stay apart as ids."""
    rows = [row for row in shipped("human") if row["symbol"] == "WASH7P"]
    assert len(rows) == 2
    main = next(row["ensembl"] for row in rows if not row["same_as"])
    assert main == "ENSG00000227232"
    assert one("WASH7P")[0] == main
    both = resolve_genes([row["ensembl"] for row in rows])
    assert both.n_genes == 2
    assert both.symbols.tolist() == ["WASH7P", "WASH7P"]
    # asked for by the main id, a file that has only the other answers with the other
    other = next(row["ensembl"] for row in rows if row["same_as"])
    index = resolve_genes([other, "CD4"])
    assert index.locate([main, ""], ["WASH7P", "WASH7P"]).tolist() == [1, 1]
    index = resolve_genes(["ENSG00000286112", "CD4"])  # not the id KYAT1 stands for
    assert index.locate([""], ["CCBL1"]).tolist() == [1]  # its symbol of before


@pytest.mark.parametrize("suffix", [".1", "-1", "-12"])
def test_names_made_unique_are_the_gene_they_repeat(suffix: str) -> None:
    index = resolve_genes(["PNRC2", "CD4", f"PNRC2{suffix}"])
    assert index.columns[0] == index.columns[2]
    assert one(f"PNRC2{suffix}", also=("CD4",))[2] == "unresolved"
    assert one(f"PNRC2{suffix}", also=("PNRC2",))[2] == "symbol"  # the best of the two


def test_a_symbol_that_looks_made_unique_is_itself() -> None:
    names = ["NKX2", "NKX2-1", "TRBV7-2", "TRBV7", "HLA-A", "MIR1302", "MIR1302-10"]
    index = resolve_genes(names, organism="human")
    assert of(index, 1)[1:] == ("NKX2-1", "symbol")
    assert of(index, 2)[1:] == ("TRBV7-2", "symbol")
    assert of(index, 6)[1:] == ("MIR1302-10", "symbol")
    assert index.n_genes == len(names)


@pytest.mark.parametrize("name", ["U6-3", "TFPI-2", "SNORD115.1"])
def test_a_numbered_name_that_is_also_an_old_name_is_not_guessed(name: str) -> None:
    """U6-3 beside U6 is either the third U6 of scanpy, or HGNC's alias of RNU6-3P."""
    base = re.split(r"[-.]\d+$", name)[0]
    assert one(name, also=("CD4",))[2] in ("alias", "dots+symbol")
    assert one(name, also=(base, "CD4")) == (name, name, "unresolved")


def test_unresolved_names_are_not_unsuffixed() -> None:
    """RP11-1.1 and RP11-1 would be two clones, not one gene twice."""
    index = resolve_genes(["RP99-7", "RP99-7.1", "CD4"])
    assert index.n_genes == 3


def test_identical_names_share_a_position_resolved_or_not() -> None:
    index = resolve_genes(["CD4", "transgene", "CD4", "transgene ", "CD8A"])
    assert index.columns.tolist() == [0, 2, 0, 2, 1]
    assert index.duplicates["n_columns"].tolist() == [2, 2]
    assert any("2 of 5 columns" in note for note in index.notes)


def test_of_several_ways_of_finding_a_gene_the_best_is_told() -> None:
    names = ["CD4_ENSG00000010610", "CD4", "CD4-1", "CD8A", "ENSG00000153563.2"]
    index = resolve_genes(names)
    assert index.how.tolist() == ["symbol", "ensembl_version"]
    assert index.columns.tolist() == [0, 0, 0, 1, 1]


def test_second_names_are_used_where_the_first_do_not_resolve() -> None:
    ids = ["ENSG00000153563", "ENSG00000999999", "ENSG00000888888.3", "ENSG00000777777"]
    index = resolve_genes(ids, feature_names=["not read", "CD4", "novel", "CD8A"])
    assert of(index, 0) == (*CD8A, "ensembl")
    assert of(index, 1)[1:] == ("CD4", "feature_name+symbol")
    assert of(index, 2) == ("ENSG00000888888", "novel", "unresolved")
    # CD8A is in the file by its own id: an unknown id that claims the symbol is not added to it
    assert of(index, 3) == ("ENSG00000777777", "CD8A", "unresolved")


def test_second_names_of_foreign_or_prefixed_columns() -> None:
    """A column that says it is a mouse gene is one, whatever its second name."""
    names = ["GRCh38_novel", "GRCh38_CD8A", "GRCh38_TOX", "mm10_novel", "ENSMUSG00000053977"]
    second = ["CD4", "CD8A", "TOX", "CD28", "CTLA4"]
    index = resolve_genes(names, feature_names=second, organism="human")
    assert of(index, 0)[1:] == ("CD4", "feature_name+symbol")
    assert of(index, 1)[1:] == ("CD8A", "prefix+symbol")
    assert of(index, 3) == ("mm10_novel", "mm10_novel", "unresolved")
    assert of(index, 4) == ("ENSMUSG00000053977", "ENSMUSG00000053977", "unresolved")
    assert not found(index, "CD28")


def test_a_symbol_joined_to_an_id_that_is_gone_is_used() -> None:
    assert one("ENSG00000999999_CD4")[1:] == ("CD4", "joined")
    index = resolve_genes(["ENSG00000999999_CD4", "CD4"])
    assert of(index, 0) == ("ENSG00000999999", "CD4", "unresolved")


def test_numbered_columns_are_read_by_their_second_names() -> None:
    index = resolve_genes(["0", "1", "2"], feature_names=["Cd4", "Cd8a", "mt-Nd1"])
    assert index.organism == "mouse"
    assert of(index, 0)[2] == "feature_name+symbol"


def test_a_retired_id_that_hgnc_knows_is_its_gene() -> None:
    """SOD2 has a new id in GENCODE; files with the old one must not lose it."""
    assert one("ENSG00000112096") == ("ENSG00000291237", "SOD2", "ensembl_retired")
    index = resolve_genes(["ENSG00000112096.18", "CD4"])
    assert index.locate(["ENSG00000112096", "ENSG00000291237"], ["", ""]).tolist() == [1, 1]


# --- damage --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("2-Sep", "SEPTIN2"),
        ("Sep-02", "SEPTIN2"),
        ("02-Sept", "SEPTIN2"),
        ("2021-09-02", "SEPTIN2"),
        ("Sep-15", "SELENOF"),
        ("3-Mar", "MARCHF3"),
        ("Dec-01", "DELEC1"),
    ],
)
def test_a_date_is_the_only_gene_it_can_have_been(name: str, symbol: str) -> None:
    index = resolve_genes([name, "CD4"], organism="human")
    assert of(index, 0)[1:] == (symbol, "date")
    assert index.damaged == ((name, symbol, symbol),)
    assert any("dates" in note for note in index.notes)


@pytest.mark.parametrize("name", ["1-Mar", "Mar-01", "2021-03-01", "2-Mar", "Mar-01.1"])
def test_a_date_that_may_be_two_genes_is_not_guessed(name: str) -> None:
    index = resolve_genes([name, "CD4"], organism="human")
    assert of(index, 0) == (name, name, "unresolved")
    number = 2 if "2-M" in name else 1
    assert index.damaged == ((name, f"MARCHF{number} or MTARC{number}", ""),)


def test_a_date_is_not_used_when_the_gene_is_there_or_claimed_twice() -> None:
    assert one("Sep-02", also=("SEPTIN2",))[2] == "unresolved"
    index = resolve_genes(["Sep-02", "2-Sep", "CD4"])
    assert [of(index, i)[2] for i in range(2)] == ["unresolved", "unresolved"]
    assert [used for *_, used in index.damaged] == ["", ""]
    assert one("12-Apr")[2] == "unresolved"


def test_a_year_may_be_the_number_too() -> None:
    """A spreadsheet reads Mar-03 as March 2003, and 3-Mar as the third of March of this year."""
    index = resolve_genes(["2003-03-01", "CD4"], organism="human")
    assert index.damaged == (("2003-03-01", "MARCHF1 or MARCHF3 or MTARC1", ""),)


def test_symbols_that_look_like_dates_are_not_damaged() -> None:
    assert resolve_genes(["DEC1", "MARCHF1", "JUN", "CD4"]).damaged == ()


# --- organism ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "organism"),
    [
        (["ENSG00000153563", "ENSG00000010610.4"], "human"),
        (["ENSMUSG00000053977.15"], "mouse"),
        (["hg19_X", "hg19_Y"], "human"),
        (["mm10___Xkr4", "mm10___Sox17"], "mouse"),
        (["CD8A", "CD4", "FOXP3"], "human"),
        (["Cd8a", "Cd4", "Foxp3"], "mouse"),
        (["ensemble", "gene2"], None),
        ([], None),
        (["0", "1", "2"], None),
        (["chr1:100-200", "chr2:5-9"], None),
        (["H19"], None),  # spelled so in both
        (["ENSG00000153563", *(f"Cd{n}" for n in (4, 5, 6, 7, 9, 14, 19, 22, 27, 28))], "mouse"),
        (["sampleA_CD4", "sampleA_CD8A", "sampleA_FOXP3"], "human"),
    ],
)
def test_the_organism_is_seen_from_the_names(names: list[str], organism: str | None) -> None:
    guessed, how = guess_organism(names)
    assert guessed == organism
    assert how


@pytest.mark.parametrize("organism", genes.ORGANISMS)
def test_the_organism_is_seen_whatever_the_case(organism: Organism) -> None:
    """An upper-case mouse file is two thirds human symbols: the rest give it away."""
    symbols = [row["symbol"] for row in shipped(organism) if row["symbol"]][::7]
    assert guess_organism(symbols)[0] == organism
    assert guess_organism([symbol.upper() for symbol in symbols])[0] == organism
    assert guess_organism([symbol.capitalize() for symbol in symbols])[0] == organism


def test_a_mouse_file_in_capitals_is_resolved_by_case() -> None:
    symbols = [row["symbol"] for row in shipped("mouse") if row["symbol"]][::7]
    index = resolve_genes([symbol.upper() for symbol in symbols])
    assert index.organism == "mouse"
    assert index.frac_resolved > 0.99
    assert np.mean(index.how == "case") > 0.95
    assert any("another case" in note for note in index.notes)
    assert one("CD8A", organism="mouse")[1:] == ("Cd8a", "case")


def test_mouse_genes_of_a_graft_are_not_taken_for_human_ones() -> None:
    """Human and mouse symbols in one file without a prefix: case is not a slip there."""
    index = resolve_genes(["CD8A", "FOXP3", "CD4", "TOX", "Cd28", "H2afx"])
    assert index.organism == "human"
    assert [of(index, i)[2] for i in (4, 5)] == ["unresolved", "unresolved"]
    assert not found(index, "CD28")


def test_of_two_species_the_majority_is_kept_and_the_other_named() -> None:
    names = ["GRCh38_CD4", "GRCh38_CD8A", "GRCh38_TOX", "mm10_Cd4", "mm10_CD28"]
    index = resolve_genes(names)
    assert index.organism == "human"
    assert [of(index, i)[2] for i in range(5)] == ["prefix+symbol"] * 3 + ["unresolved"] * 2
    assert of(index, 4)[0] == "mm10_CD28"
    assert not found(index, "CD28")
    assert "the prefix 'GRCh38_' was taken off 3 of 5 gene names" in index.notes
    assert any("2 of 5 columns are genes of another organism (mm10_" in n for n in index.notes)
    ids = resolve_genes(["ENSG00000153563", "ENSG00000010610", "ENSMUSG00000053977"])
    assert of(ids, 2)[2] == "unresolved"
    assert any("(ENSMUSG" in note for note in ids.notes)


def test_a_prefix_that_is_no_genome_is_taken_off_if_most_names_have_it() -> None:
    index = resolve_genes(["run1_CD4", "run1_CD8A", "run1_TOX", "run1_none", "CD28"])
    assert index.frac_resolved == pytest.approx(0.8)
    assert of(index, 3)[0] == "none"
    few = resolve_genes(["run1_CD4", "CD8A", "TOX", "CD28"])
    assert of(few, 0) == ("run1_CD4", "run1_CD4", "unresolved")
    # taking this one off would turn no name into a gene
    novel = resolve_genes(["novel_1", "novel_2", "novel_3", "CD8A", "CD28"])
    assert of(novel, 0)[0] == "novel_1"


def test_names_of_neither_organism_are_kept_apart_and_said() -> None:
    index = resolve_genes(["Foo", "Baz", "Bar", "Baz", "Qux"])
    assert index.organism is None
    assert index.n_genes == 4
    assert index.frac_resolved == 0
    assert any("organism cannot be seen" in note for note in index.notes)
    assert index.locate(["", ""], ["Baz", "CD4"]).tolist() == [1, -1]
    assert index.mask("mito").sum() == 0


# --- asking for genes ----------------------------------------------------------------------


def test_locate_finds_a_gene_by_id_else_by_any_of_its_symbols() -> None:
    index = resolve_genes(["CD4", "CXCL8", "TIM3", "transgene", "IL6"])
    ensembl = ["ENSG00000010610", "ENSG00000169429.5", "", "", "", "ENSG00000153563", ""]
    symbols = ["", "ignored", "HAVCR2", "TIM3", "transgene", "CD8A", "IL8"]
    where = index.locate(ensembl, symbols)
    assert where.dtype == np.int64
    expected = [index.columns[i] for i in (0, 1, 2, 2, 3)] + [-1, index.columns[1]]
    assert where.tolist() == expected


def test_locate_does_not_cross_organisms_or_follow_a_wrong_symbol() -> None:
    index = resolve_genes(["Cd4", "Cd8a", "Foxp3", "H19"])
    assert index.locate(["ENSG00000130600"], ["H19"]).tolist() == [-1]
    assert index.locate([""], ["CD8A"]).tolist() == [-1]
    human = resolve_genes(["CD4", "CD8A"])
    # the id says IL6, which is not there: the symbol of another gene does not stand in for it
    assert human.locate(["ENSG00000136244"], ["CD4"]).tolist() == [-1]


def test_locate_needs_as_many_ids_as_symbols() -> None:
    with pytest.raises(InputDataError, match="2 Ensembl ids but 1 symbols"):
        resolve_genes(["CD4"]).locate(["", ""], ["CD4"])


def test_the_report_says_how_each_gene_was_found() -> None:
    index = resolve_genes(["hg19_CD4", "hg19_IL8", "hg19_CD4-1"])
    report = index.report(["ENSG00000010610", "", ""], ["CD4", "CXCL8", "CD8A"])
    assert report.to_dict("list") == {
        "gene": ["CD4", "CXCL8", "CD8A"],
        "ensembl": ["ENSG00000010610", "ENSG00000169429", ""],
        "columns": ["hg19_CD4, hg19_CD4-1", "hg19_IL8", ""],
        "how": ["prefix+symbol", "prefix+previous_symbol", "not measured"],
    }
    assert index.report([], []).columns.tolist() == ["gene", "ensembl", "columns", "how"]


def test_missing_and_strange_names_do_not_fail() -> None:
    index = resolve_genes([None, float("nan"), "", b"CD4", 7, "CD8A"], organism="human")
    assert index.columns.tolist()[:3] == [0, 0, 0]
    assert of(index, 3)[1] == "CD4"
    assert index.ids[index.columns[4]] == "7"
    empty = resolve_genes([])
    assert (empty.n_genes, empty.n_vars, empty.frac_resolved) == (0, 0, 0.0)
    assert len(empty.duplicates) == 0


def test_mistakes_are_said_in_a_sentence() -> None:
    with pytest.raises(InputDataError, match="3 gene names but 1 feature names"):
        resolve_genes(["a", "b", "c"], feature_names=["a"])
    with pytest.raises(InputDataError, match="organism 'rat' is not known"):
        resolve_genes(["Cd4"], organism="rat")
    with pytest.raises(InputDataError, match="gene name 1 has 501 characters"):
        resolve_genes(["CD4", "x" * 501])
    with pytest.raises(InputDataError, match="no gene pattern 'mt'; there are mito, ribo"):
        resolve_genes(["CD4"]).mask("mt")


# --- gene families -------------------------------------------------------------------------


def gencode(shared: Path, organism: Organism) -> list[list[str]]:
    path = shared / "tables" / f"cellxgene_gencode_genes_{GENCODE[organism]}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))


@pytest.mark.parametrize("organism", genes.ORGANISMS)
def test_receptor_segments_are_those_gencode_calls_so(shared: Path, organism: Organism) -> None:
    """GENCODE's biotypes as the witness; a few segments have a name that says nothing."""
    rows = [row for row in gencode(shared, organism) if not row[1].startswith("ENS")]
    segments = {row[1] for row in rows if re.match("(TR|IG)_[VDJ]_", row[4])}
    matched = {row[1] for row in rows if patterns(organism)["tcr_ig"].match(row[1])}
    assert len(segments) > 600
    assert all(re.match(r"Gm\d+$", name) for name in segments - matched)
    extra = (
        {"IGKV1OR2-2", "TRBV11-2", "IGHV3OR16-16", "IGLJCOR18"} if organism == "human" else set()
    )
    assert matched - segments == extra


@pytest.mark.parametrize("organism", genes.ORGANISMS)
def test_there_are_37_mitochondrial_genes(shared: Path, organism: Organism) -> None:
    rows = gencode(shared, organism)
    index = resolve_genes([row[0] for row in rows])
    mito = {str(s) for s in index.symbols[index.mask("mito")]}
    assert len(mito) == 37
    assert {s.upper() for s in mito} >= {"MT-ND1", "MT-CO3", "MT-RNR2", "MT-TP"}


def test_families_hold_their_genes_and_not_the_lookalikes() -> None:
    kinds = {
        "ribo": (
            "RPS4X RPS27A RPL13A RPL41 RPLP0 RPLP2 RPSA RACK1",
            "RPS6KA1 RPS6KB1 RPS6KC1 RPS6KL1 RPS19BP1 RPSAP5 RP9 RPA1 RPN1",
        ),
        "haemoglobin": (
            "HBA1 HBA2 HBB HBD HBE1 HBG1 HBG2 HBM HBQ1 HBZ",
            "HBP1 HBS1L HBEGF HBB-AS1 HBBP1",
        ),
        "tcr_ig": (
            "TRAV1-1 TRBV7-2 TRDV1 TRGJP TRBD1 IGHV3-23 IGKV1-5 IGLJ3 IGHD1-1",
            "TRADD TRAC TRBC1 IGHD IGHM IGKC IGLC1 TRABD TRAF1 IGHMBP2",
        ),
        "mito": ("MT-ND1 MT-TA", "MT1A MT2A MTOR MTND1P23 MTATP6P1"),
    }
    for kind, (inside, outside) in kinds.items():
        for words, expected in ((inside, True), (outside, False)):
            index = resolve_genes(words.split(), organism="human")
            wrong = index.symbols[index.mask(kind) != expected].tolist()
            assert wrong == [], kind
    mouse = {
        "ribo": ("Rps4x Rpl13a Rplp1 Rpsa Rack1", "Rps6ka1 Rps19bp1"),
        "haemoglobin": (
            "Hba-a1 Hba-a2 Hba-x Hbb-bs Hbb-bt Hbb-b1 Hbb-bh1 Hbb-y Hbq1b",
            "Hbp1 Hbs1l",
        ),
        "tcr_ig": ("Trav1 Trbv1 Ighv1-4 Igkv1-110 Tcrg-V4 Trgv2", "Tradd Ighd Ighm Trac"),
        "mito": ("mt-Nd1", "Mt1 Mt2 Mtor"),
    }
    for kind, (inside, outside) in mouse.items():
        for words, expected in ((inside, True), (outside, False)):
            index = resolve_genes(words.split(), organism="mouse")
            assert index.symbols[index.mask(kind) != expected].tolist() == [], kind


# --- laws ----------------------------------------------------------------------------------


def pool() -> list[str]:
    rows = shipped("human")
    names = [row["ensembl"] for row in rows[::900] if row["ensembl"]]
    names += [row["symbol"] for row in rows[::700] if row["symbol"]]
    names += [row["retired"].split("|")[0] for row in rows if row["retired"]][:10]
    for column in ("previous", "aliases"):
        named = [row for row in rows if row[column]][::400]
        # old names together with the symbols and ids they compete with
        names += [name for row in named for name in row[column].split("|")[:2]]
        names += [row["symbol"] for row in named[::2]]
        names += [row["ensembl"] for row in named[1::4]]
    names += ["Mar-01", "Sep-02", "2-Sep", "transgene", "RP99-7", "RP99-7.1", "gene_x", "Cd4", ""]
    names += ["PNRC2", "PNRC2.1", "PNRC2-1", "HLA.DRA", "ENSG00000002586.2_PAR_Y", "CD99"]
    names += ["ENSMUSG00000053977", "mm10_Cd4", "ENSG00000999999", "C15ORF41", "cd8a", "CD8A"]
    return sorted(set(names))


NAMES = st.lists(st.sampled_from(pool()), min_size=1, max_size=25)
LAW = settings(max_examples=80, deadline=None)


def same_genes(a: GeneIndex, b: GeneIndex) -> None:
    assert a.ids[a.columns].tolist() == b.ids[b.columns].tolist()
    assert a.symbols.tolist() == b.symbols.tolist()
    assert a.columns.tolist() == b.columns.tolist()


@LAW
@given(NAMES, st.randoms())
def test_permuting_names_permutes_the_result(names: list[str], random: Any) -> None:
    order = list(range(len(names)))
    random.shuffle(order)
    a = resolve_genes(names, organism="human")
    b = resolve_genes([names[i] for i in order], organism="human")
    assert b.columns.tolist() == a.columns[order].tolist()
    for field in ("ids", "symbols", "how", "notes", "damaged"):
        assert list(getattr(a, field)) == list(getattr(b, field)), field
    assert a.duplicates.equals(b.duplicates)


@LAW
@given(NAMES)
def test_resolving_what_was_resolved_changes_nothing(names: list[str]) -> None:
    a = resolve_genes(names, organism="human")
    b = resolve_genes(a.ids[a.columns].tolist(), organism="human")
    assert b.ids[b.columns].tolist() == a.ids[a.columns].tolist()


@LAW
@given(NAMES, st.sampled_from([" {}", "{} ", '"{}"', "\t'{}'\n"]))
def test_padding_changes_nothing(names: list[str], padding: str) -> None:
    a = resolve_genes(names, organism="human")
    b = resolve_genes([padding.format(name) for name in names], organism="human")
    same_genes(a, b)
    assert a.how.tolist() == b.how.tolist()


@LAW
@given(NAMES, st.integers(1, 40))
def test_a_version_changes_nothing(names: list[str], version: int) -> None:
    bare = re.compile(r"ENS(MUS)?G\d{11}$")
    versioned = [f"{name}.{version}" if bare.match(name) else name for name in names]
    same_genes(resolve_genes(names, organism="human"), resolve_genes(versioned, organism="human"))


@LAW
@given(NAMES, st.sampled_from(["hg19_", "GRCh38___"]))
def test_a_genome_prefix_changes_nothing(names: list[str], prefix: str) -> None:
    names = [name for name in names if name and not name.startswith(("mm10", "ENSMUS"))]
    a = resolve_genes(names, organism="human")
    b = resolve_genes([prefix + name for name in names], organism="human")
    same_genes(a, b)


@LAW
@given(NAMES)
def test_second_names_equal_to_the_first_change_nothing(names: list[str]) -> None:
    a = resolve_genes(names, organism="human")
    b = resolve_genes(names, feature_names=names, organism="human")
    assert a.ids[a.columns].tolist() == b.ids[b.columns].tolist()
    assert a.how.tolist() == b.how.tolist()


@LAW
@given(NAMES)
def test_a_gene_is_located_where_its_column_is(names: list[str]) -> None:
    index = resolve_genes(names, organism="human")
    known = np.flatnonzero(index.resolved)
    ids = [name if name.startswith("ENS") else "" for name in index.ids[known].tolist()]
    assert index.locate(ids, index.symbols[known].tolist()).tolist() == known.tolist()


# --- second witness and real files ---------------------------------------------------------


def plain(shared: Path, organism: Organism, names: list[str]) -> list[str]:
    """Ids and current symbols looked up one by one in GENCODE itself; '' for all else."""
    rows = gencode(shared, organism)
    ids = {row[0] for row in rows}
    by_symbol: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_symbol[row[1]].add(row[0])
    out = []
    for name in names:
        bare = name.strip().split(".")[0] if name.startswith("ENS") else name.strip()
        if bare in ids:
            out.append(bare)
        elif len(by_symbol.get(bare, ())) == 1:
            out.append(next(iter(by_symbol[bare])))
        else:
            out.append("")
    return out


@pytest.mark.parametrize(
    ("file", "share"),
    [("pbmc3k_labelled", 0.8), ("kang2018_lupus_pbmc8684", 0.99), ("mca_mouse_lung", 0.9)],
)
def test_plain_names_agree_with_a_slow_search_of_gencode(
    shared: Path, file: str, share: float
) -> None:
    (names,) = var(shared / "data" / f"{file}.h5ad")
    index = resolve_genes(names)
    assert index.organism is not None
    slow = plain(shared, index.organism, names)
    ids = index.ids[index.columns].tolist()
    assert np.mean([bool(expected) for expected in slow]) > share
    assert [(n, a, b) for n, a, b in zip(names, ids, slow, strict=True) if b and a != b] == []


def manifest(shared: Path) -> dict[str, set[str]]:
    """Which of twenty genes MANIFEST.md says each file lacks (a column of its first table)."""
    text = (shared / "data" / "MANIFEST.md").read_text(encoding="utf-8")
    lacking = {}
    for line in text.split("## Cells expressing each key gene")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in FILES:
            assert "missing" in cells[4] or cells[4] == "none (20/20)"
            lacking[cells[0]] = set(cells[4].split()) & set(KEY_GENES)
    return lacking


# file: (columns, organism, least fraction resolved, columns merged into another)
FILES = {
    "celltypist_sample88": (16383, "human", 0.64, 7),
    "citefuse_eccite_pbmc500_hg19prefix": (19521, "human", 0.82, 17),
    "hao2021_b_nk50": (20729, "human", 0.81, 14),
    "ibex_bcells_misc_citeseq": (33538, "human", 0.69, 24),
    "kang2018_lupus_pbmc8684": (2511, "human", 0.99, 0),
    "kang_ifnb2000": (9015, "human", 0.97, 0),
    "lcmv2_mouse_tcells": (989, "mouse", 0.96, 0),
    "marthandan2016_fibroblast_bulk": (11526, "human", 0.98, 0),
    "mast_mait96": (16302, "human", 0.86, 1035),
    "mca_mouse_lung": (23450, "mouse", 0.92, 0),
    "pbmc3k_labelled": (13714, "human", 0.90, 7),
    "pbmc5k_protein_v3_200": (16581, "human", 0.86, 12),
    "pbmc_frozen_donorA2896": (13939, "human", 0.89, 6),
    "sadefeldman_melanoma_cd8_1073": (1000, "human", 0.99, 0),
    "sadefeldman_melanoma_cd8_dev": (3523, "human", 0.94, 1),
    "screp_ards_tcells500": (2000, "human", 0.95, 0),
    "symphony_pbmc1200_lognorm": (1767, "human", 0.85, 0),
    "trex_tcells_pt17_citeseq": (33538, "human", 0.69, 24),
    "wu2020_til200": (3000, "human", 0.95, 0),
    "zilionis_nsclc300": (20388, "human", 0.85, 1),
}


@pytest.mark.parametrize("file", FILES)
def test_real_files_resolve_and_have_the_genes_the_manifest_says(shared: Path, file: str) -> None:
    n_columns, organism, least, merged = FILES[file]
    (names,) = var(shared / "data" / f"{file}.h5ad")
    index = resolve_genes(names)
    assert (len(names), index.organism) == (n_columns, organism)
    assert least <= index.frac_resolved < least + 0.015
    assert index.n_vars - index.n_genes == merged
    assert index.duplicates["n_columns"].sum() - len(index.duplicates) == merged
    symbols = [g.capitalize() if organism == "mouse" else g for g in KEY_GENES]
    where = index.locate([""] * len(symbols), symbols)
    missing = {gene for gene, position in zip(KEY_GENES, where, strict=True) if position < 0}
    if file.startswith("citefuse"):  # the manifest looked for names without the prefix
        assert missing == set()
        assert all(how.startswith("prefix+") for how in index.how[index.resolved])
    else:
        assert missing == manifest(shared)[file]


def test_every_real_file_is_in_the_list(shared: Path) -> None:
    assert {path.stem for path in (shared / "data").glob("*.h5ad")} == FILES.keys()


def test_dates_in_a_real_file_are_reported(shared: Path) -> None:
    (names,) = var(shared / "data" / "celltypist_sample88.h5ad")
    index = resolve_genes(names)
    damaged = {name: used for name, _, used in index.damaged}
    assert len(damaged) == 17
    assert {name for name, used in damaged.items() if not used} == {"Mar-01", "Mar-01.1", "Mar-02"}
    assert damaged["Sep-15"] == "SELENOF"


def test_duplicated_rows_of_a_real_file_are_listed(shared: Path) -> None:
    (names,) = var(shared / "data" / "mast_mait96.h5ad")
    duplicates = resolve_genes(names).duplicates.set_index("gene")
    assert duplicates.loc["PKM", "columns"] == "PKM, PKM-1"
    assert duplicates.loc["POLR1H", "n_columns"] == 7  # ZNRD1 on seven haplotypes
    assert duplicates.loc["CD99", "n_columns"] == 2  # X and Y


def test_all_but_two_names_of_every_public_cellxgene_file_resolve(shared: Path) -> None:
    """Each holds one ERCC spike and at most one id that is gone; var_* have two made-up ones."""
    files = sorted((shared / "fixtures").glob("curation__*.h5ad"))
    assert len(files) > 40
    for path in files:
        (names,) = var(path)
        index = resolve_genes(names)
        assert index.organism == "human", path.name
        lost = [n for i, n in enumerate(names) if of(index, i)[2] == "unresolved"]
        spared = {"ERCC-00002", "ENSG_NO_ID", "NO_ID"}
        assert len(set(lost) - spared) <= 1, path.name


@pytest.mark.parametrize(
    ("pattern", "organism"),
    [
        ("scanpy__10x_pbmc68k_reduced__d53464.h5ad", "human"),
        ("scanpy__10x_pbmc68k_reduced__5f4824.h5ad", "human"),
        ("soma__x-none__ba1569.h5ad", "human"),
        ("cellxgene__nan__d97078.h5ad", "human"),
        ("muon__test_rna_atac__e92540.h5ad", "human"),
        ("scdrs__toydata_mouse__e9cdd3.h5ad", "mouse"),
        ("squidpy__test_data__0daf62.h5ad", "mouse"),
        ("scvi__TM_droplet_mat__86ebe8.h5ad", "mouse"),
        ("scp__dup_feature__155a51.h5ad", None),
        ("anndata__adata__989405.h5ad", None),
        ("pertpy__smillie_data__40f413.h5ad", None),
        ("scvi__brainlarge_dataset_test__306b28.h5ad", None),
        ("omnideconv__processed__75ece0.h5ad", None),
    ],
)
def test_the_organism_of_public_files(shared: Path, pattern: str, organism: str | None) -> None:
    (names,) = var(shared / "fixtures" / pattern)
    assert resolve_genes(names).organism == organism


def test_names_of_a_10x_h5_file_resolve(shared: Path) -> None:
    path = shared / "fixtures" / "scanpy__filtered_gene_bc_matrices_h5__16c13c.h5"
    with h5py.File(path) as file:
        group = file["hg19_chr21"]
        index = resolve_genes(strings(group["genes"]), feature_names=strings(group["gene_names"]))
    assert index.organism == "human"
    assert index.frac_resolved > 0.5


@pytest.fixture(scope="module")
def tenx(shared: Path) -> tuple[list[str], list[str]]:
    text = (shared / "tables" / "tenx_hg19_genes.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    return [row[0] for row in rows], [row[1] for row in rows]


def test_most_of_the_old_10x_reference_resolves(tenx: tuple[list[str], list[str]]) -> None:
    ids, symbols = tenx
    by_id = resolve_genes(ids)
    assert by_id.frac_resolved == pytest.approx(0.9265, abs=5e-4)
    assert by_id.n_genes == by_id.n_vars
    both = resolve_genes(ids, feature_names=symbols)
    assert both.frac_resolved == pytest.approx(0.9379, abs=5e-4)
    # a third of its symbols are names of clones (RP11-34P13.7) that nobody keeps any more
    assert resolve_genes(symbols).frac_resolved == pytest.approx(0.6447, abs=5e-4)


def test_old_symbols_lead_to_the_ids_they_stood_beside(tenx: tuple[list[str], list[str]]) -> None:
    """The reference gives id and symbol of each gene: two independent ways to the same gene.

    Where they part, the reference used one symbol for two ids, or a host gene took a microRNA's.
    """
    ids, symbols = tenx
    by_id, by_symbol = resolve_genes(ids), resolve_genes(symbols)
    agree: dict[str, list[bool]] = defaultdict(list)
    for i in range(len(ids)):
        a, b = of(by_id, i), of(by_symbol, i)
        if "unresolved" not in (a[2], b[2]):
            agree[b[2]].append(a[0] == b[0])
    assert np.mean(agree["symbol"]) > 0.99
    assert len(agree["previous_symbol"]) > 1400
    assert np.mean(agree["previous_symbol"]) > 0.985
    assert np.mean(agree["alias"]) > 0.95


def test_symbols_of_a_real_human_file_agree_with_its_ids(shared: Path) -> None:
    names, ids = var(
        shared / "fixtures" / "curation__small_perturbations__11e7b2.h5ad", "feature_name"
    )
    by_id, by_symbol = resolve_genes(names), resolve_genes(ids)
    differ = [
        (of(by_id, i), of(by_symbol, i))
        for i in range(len(names))
        if of(by_symbol, i)[2] != "unresolved" and of(by_id, i)[0] != of(by_symbol, i)[0]
    ]
    assert len(differ) <= 3, differ


def test_old_mouse_names_lead_to_the_ids_they_stood_beside(shared: Path) -> None:
    names, ids = var(shared / "fixtures" / "squidpy__test_data__0daf62.h5ad", "gene_ids")
    by_id, by_name = resolve_genes(ids), resolve_genes(names)
    old = [i for i in range(len(names)) if of(by_name, i)[2] == "previous_symbol"]
    assert len(old) > 30
    assert [(names[i], ids[i]) for i in old if of(by_name, i)[0] != of(by_id, i)[0]] == []


def test_old_mouse_names_have_the_human_gene_they_should(shared: Path) -> None:
    """An older homology table, by old mouse symbols: their human gene must be ours, too."""
    text = (shared / "tables" / "scdrs_mouse_human_homologs.txt").read_text(encoding="utf-8")
    homologs: dict[str, set[str]] = defaultdict(set)
    for line in text.splitlines()[1:]:
        mouse, human = line.split("\t")[:2]
        homologs[mouse].add(human)
    mouse_table, human_table = genes._table("mouse"), genes._table("human")
    checked = wrong = 0
    for old, key in mouse_table.previous.items():
        if old in homologs:
            humans = {human_table.by_symbol(symbol) for symbol in homologs[old]}
            symbols = {human_table.symbol_of[gene].upper() for gene in humans if gene}
            checked += 1
            wrong += mouse_table.symbol_of[key].upper() not in symbols
    assert checked > 250
    assert wrong <= 6


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_no_name_of_a_gene_looks_like_a_prefix_and_another(organism: str) -> None:
    """Names that are in the table are not searched for prefixes."""
    table = genes._table(organism)
    for name in (*table.id_of, *table.symbol_of):
        assert genes._genome_of(name) == (None, name)
        found = genes._ensembl(name)
        assert found is None or found.ensembl.startswith(table.prefix)
