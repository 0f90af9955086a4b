"""Which gene each column of a file is: ids, symbols, old symbols, aliases, and what damaged them.

`resolve_genes` turns the names of a file's columns into a `GeneIndex`: one position per gene,
columns that are the same gene share it (their values are summed by whoever reads the matrix), and
each gene says how it was found. A name that is not recognised stays a gene of its own.

Nothing is guessed. In the order in which they are tried:

1. an Ensembl id, with or without version; `_PAR_Y` copies and the ids GENCODE gives them are the
   gene on X;
2. the current symbol (GENCODE's, else HGNC's), exactly as written; a symbol joined to its id
   (``CD8A_ENSG00000153563``);
3. the file's second name of the column (``feature_name``), by 1 and 2; a retired Ensembl id that
   HGNC knows;
4. the current symbol in another case; with dots for dashes, as R writes it (``HLA.DRA``);
5. a symbol the gene had before; an alias; a date that a spreadsheet made of a symbol, if only one
   gene can have been meant;
6. ``GENE.1`` and ``GENE-1`` where ``GENE`` is in the file and the longer name is no gene.

From 3 to 5 a name is only used if it points to a single gene, and if that gene is not in the file
already by a better name: a current symbol always beats an alias. A name that is an old name or
alias of one gene, and may as well be another name of the file numbered to make it unique
(``U6-3`` beside ``U6``), stays unresolved.

A symbol that GENCODE gives to several ids stands for the id HGNC names, else the protein-coding
one, else the lowest id. The tables are read on first use, never on import.
"""

from __future__ import annotations

import gzip
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np

from .errors import InputDataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Organism: TypeAlias = Literal["human", "mouse"]

ORGANISMS: Final[tuple[Organism, ...]] = ("human", "mouse")

_PAD: Final = " \t\r\n\v\f\0\"'`\ufeff\u00a0\u200b"
_MAX_NAME: Final = 500  # characters: a longer name is a broken file, and would cost 4 bytes each
_ENSEMBL = re.compile(
    r"(ENS(?:MUS)?G)(R?)(\d{10,11})(?:\.\d+)?(?:[_-](PAR[_-]Y))?(?:[.-]\d+)?(?:[-_|:; ]+(.+))?\Z"
)
_ENSEMBL_LAST = re.compile(r"(.+?)[-_|:; ]+(ENS(?:MUS)?G\d{11})(?:\.\d+)?\Z")
_GENOME = re.compile(
    r"(?:(hg\d\d|GRCh\d\d|human|hsapiens)|(mm\d\d?|GRCm\d\d|mouse|mmusculus))[_\-:|.]+(?=.)",
    re.IGNORECASE,
)
_ANY_PREFIX = re.compile(r"([^_:|]{1,40}(?:_+|:+|\|+))(?=.)")
_UNIQUE = re.compile(r"(.+)[.\-](\d{1,3})\Z")
_MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_DATES: Final = (
    re.compile(r"(?P<a>\d{1,2})[-. ](?P<month>[A-Za-z]{3,4})(?:[-. ]\d+)?\Z"),
    re.compile(r"(?P<month>[A-Za-z]{3,4})[-. ](?P<a>\d{1,2})(?:[-.]\d+)?\Z"),
    re.compile(r"\d\d(?P<b>\d\d)-(?P<number>\d\d)-(?P<a>\d\d)(?:[ T]00:00:00)?(?:[-.]\d+)?\Z"),
)
# What a spreadsheet takes for a date: symbols that are a month and a number
_DATE_SYMBOLS: Final = {"mar": ("MARCH", "MARC"), "sep": ("SEPT", "SEP"), "dec": ("DEC",)}

# in front of the name of a column that is an antibody and no gene, or that the authors set to zero;
# no gene's name has brackets
ANTIBODY_PREFIX: Final = "[antibody]"
FILTERED_PREFIX: Final = "[filtered]"

# best first: what a gene says whose columns were found in several ways
_HOW_ORDER: Final = (
    "ensembl",
    "ensembl_version",
    "par_y",
    "symbol",
    "joined",
    "ensembl_retired",
    "case",
    "previous_symbol",
    "alias",
    "date",
    "unresolved",
)


def clean_name(name: object) -> str:
    """A gene name without surrounding blanks and quotes; missing values are the empty name."""
    if isinstance(name, str):
        return name.strip(_PAD)
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace").strip(_PAD)
    if name is None or (isinstance(name, float) and math.isnan(name)):
        return ""
    return str(name).strip(_PAD)


class _Table:
    """The gene names of one organism, as dictionaries."""

    def __init__(self, organism: Organism) -> None:
        packed = resources.files("senoscore").joinpath("data", f"genes_{organism}.tsv.gz")
        lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
        self.organism = organism
        self.prefix = "ENSG" if organism == "human" else "ENSMUSG"
        self.symbol_of: dict[str, str] = {}  # gene id -> symbol
        self.merged: dict[str, str] = {}  # id of a pseudoautosomal copy on Y -> id on X
        self.retired: dict[str, str] = {}
        self.id_of: dict[str, str] = {}  # current symbol -> gene id
        self.previous: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        for line in lines[2:]:
            cells = line.split("\t")
            ensembl = cells[0]
            if len(cells) == 1:
                if ensembl:
                    self.symbol_of[ensembl] = ensembl
                continue
            symbol = cells[1]
            key = ensembl or symbol
            same_as = cells[2] if len(cells) > 2 else ""
            if same_as.startswith("="):
                self.merged[ensembl] = same_as[1:]
                continue
            self.symbol_of[key] = symbol or ensembl
            if symbol and not same_as:
                self.id_of[symbol] = key
            for column, names in zip(cells[3:], self._lists(), strict=False):
                if column:
                    for name in column.split("|"):
                        names[name] = key

    def _lists(self) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        return self.retired, self.previous, self.aliases

    @cached_property
    def any_case(self) -> dict[str, str]:
        """Upper-case symbol -> gene id, where only one symbol is spelled so."""
        return _upper(self.id_of)

    @cached_property
    def previous_any_case(self) -> dict[str, str]:
        """The same of previous symbols; none of them is a current symbol in any case."""
        return _upper(self.previous)

    @cached_property
    def known(self) -> frozenset[str]:
        """Every symbol, past or present, and alias."""
        return frozenset([*self.id_of, *self.previous, *self.aliases])

    def by_symbol(self, symbol: str) -> str | None:
        """The gene a symbol, old symbol or alias stands for."""
        for names in (self.id_of, self.previous, self.aliases):
            if symbol in names:
                return names[symbol]
        return None

    def by_ensembl(self, ensembl: str) -> str | None:
        """The gene an Ensembl id without version stands for, retired ones included."""
        ensembl = self.merged.get(ensembl, ensembl)
        return ensembl if ensembl in self.symbol_of else self.retired.get(ensembl)


def _upper(names: Mapping[str, str]) -> dict[str, str]:
    out: dict[str, str] = {}
    clash = set()
    for name, key in names.items():
        upper = name.upper()
        if out.setdefault(upper, key) != key:
            clash.add(upper)
    for upper in clash:
        del out[upper]
    return out


@lru_cache(maxsize=2)
def _table(organism: Organism) -> _Table:
    return _Table(organism)


class _Id(NamedTuple):
    """An Ensembl id taken apart."""

    ensembl: str  # without version
    exact: bool  # the name is the id and nothing else
    par_y: bool
    symbol: str  # what was joined to the id


def _ensembl(text: str) -> _Id | None:
    """The Ensembl gene id in a name, if it has one."""
    if "ENS" not in text:
        return None
    match = _ENSEMBL.match(text)
    if match is not None:
        kind, par_r, digits, par_y, rest = match.groups()
        if len(digits) == (10 if par_r else 11):
            ensembl = kind + digits.rjust(11, "0")
            return _Id(ensembl, text == ensembl, bool(par_r or par_y), clean_name(rest or ""))
    match = _ENSEMBL_LAST.match(text)
    if match is not None:
        return _Id(match[2], exact=False, par_y=False, symbol=clean_name(match[1]))
    return None


def _genome_of(text: str) -> tuple[Organism | None, str]:
    """The organism a genome prefix (``mm10_``) names, and the name without it."""
    match = _GENOME.match(text)
    if match is None:
        return None, text
    return ("human" if match[1] else "mouse"), clean_name(text[match.end() :])


@dataclass(frozen=True, eq=False)
class GeneIndex:
    """Which gene each column of a matrix is.

    Gene positions are in the order of `ids`, which is sorted: anything computed by position does
    not depend on the order of the columns.

    Attributes
    ----------
    organism
        None where the names are of neither organism; then no name is resolved.
    columns
        Gene position of each column of the file. Columns with the same position are to be summed.
    ids
        Per gene: Ensembl id without version, or the cleaned name of an unresolved column. (For
        the few genes HGNC knows by name only, the symbol.)
    symbols
        Per gene: current symbol, or the cleaned name.
    how
        Per gene: ``ensembl``, ``ensembl_version``, ``par_y``, ``ensembl_retired``, ``symbol``,
        ``joined``, ``case``, ``previous_symbol``, ``alias``, ``date`` or ``unresolved``, with
        what had to be undone first in front (``prefix+symbol``, ``feature_name+symbol``,
        ``dots+symbol``, ``suffix+symbol``). Where columns differ, the best.
    names
        The columns' names as they stand in the file.
    notes
        What a reader should know, in plain sentences.
    damaged
        Names that a spreadsheet turned into dates: ``(name, genes it may have been, gene used)``.
    """

    organism: Organism | None
    columns: NDArray[np.int32]
    ids: NDArray[np.str_]
    symbols: NDArray[np.str_]
    how: NDArray[np.str_]
    names: NDArray[np.str_]
    notes: tuple[str, ...] = ()
    damaged: tuple[tuple[str, str, str], ...] = ()

    @property
    def n_genes(self) -> int:
        """How many genes the file has, those not recognised included."""
        return len(self.ids)

    @property
    def n_vars(self) -> int:
        """How many columns the file has."""
        return len(self.columns)

    @cached_property
    def resolved(self) -> NDArray[np.bool_]:
        """Per gene: whether the name was recognised."""
        return np.asarray(self.how != "unresolved", dtype=np.bool_)

    @property
    def frac_resolved(self) -> float:
        """The fraction of columns (0 to 1) whose gene was recognised; 0 for no columns."""
        return float(self.resolved[self.columns].mean()) if self.n_vars else 0.0

    @cached_property
    def duplicates(self) -> pd.DataFrame:
        """Genes with several columns: ``gene``, ``ensembl``, ``columns``, ``n_columns``."""
        import pandas as pd

        counts = np.bincount(self.columns, minlength=self.n_genes)
        merged = np.flatnonzero(counts > 1)
        names = self._column_names(merged.tolist())
        return pd.DataFrame(
            {
                "gene": self.symbols[merged].astype(object),
                "ensembl": self.ids[merged].astype(object),
                "columns": pd.Series(names, dtype=object),
                "n_columns": counts[merged].astype(np.int64),
            }
        )

    def _column_names(self, positions: Sequence[int]) -> list[str]:
        """The file's names of each gene's columns, in the order of their names."""
        wanted = np.zeros(self.n_genes, dtype=bool)
        wanted[positions] = True
        found: dict[int, list[str]] = {position: [] for position in positions}
        for column in np.flatnonzero(wanted[self.columns]).tolist():
            found[int(self.columns[column])].append(str(self.names[column]))
        return [", ".join(sorted(found[position])) for position in positions]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.ids.tolist())}

    @cached_property
    def _position_of_symbol(self) -> dict[str, int]:
        positions: dict[str, int] = {}
        for position, symbol in enumerate(self.symbols.tolist()):
            positions.setdefault(symbol, position)
        return positions

    def locate(self, ensembl: Sequence[str], symbols: Sequence[str]) -> NDArray[np.int64]:
        """Positions of genes asked for by Ensembl id and symbol; -1 where not measured.

        The id decides where it is known. Without one (an empty string) the symbol does: current,
        else previous, else alias, in the case in which it is written. A gene that the file only
        has under another id of the same symbol is found too.

        Parameters
        ----------
        ensembl
            Ensembl ids, with or without version; empty strings where there is none.
        symbols
            Symbols, as many as ids; empty strings where there is none.
        """
        if len(ensembl) != len(symbols):
            raise InputDataError(
                f"{len(ensembl)} Ensembl ids but {len(symbols)} symbols were asked for; "
                "give one of each per gene, with '' where there is none"
            )
        asked = zip(ensembl, symbols, strict=True)
        return np.array([self._locate(clean_name(e), clean_name(s)) for e, s in asked], np.int64)

    def _locate(self, ensembl: str, symbol: str) -> int:
        here = self._position
        if self.organism is None:
            return here.get(ensembl or symbol, here.get(symbol, -1) if symbol else -1)
        table = _table(self.organism)
        taken_apart = _ensembl(ensembl)
        if taken_apart is not None:
            if not taken_apart.ensembl.startswith(table.prefix):
                return -1  # a gene of the other organism
            gene = table.by_ensembl(taken_apart.ensembl)
            for candidate in (gene, taken_apart.ensembl):
                if candidate in here:
                    return here[candidate]
            if gene is not None:
                symbol = table.symbol_of[gene]
                return self._position_of_symbol.get(symbol, -1)
        if not symbol:
            return -1
        gene = table.by_symbol(symbol)
        if gene is not None:
            if gene in here:
                return here[gene]
            current = table.symbol_of[gene]
            if current in self._position_of_symbol:
                return self._position_of_symbol[current]
        return self._position_of_symbol.get(symbol, here.get(symbol, -1))

    def report(self, ensembl: Sequence[str], symbols: Sequence[str]) -> pd.DataFrame:
        """How each gene asked for was found in the file.

        Returns
        -------
        DataFrame with one row per gene asked for: ``gene`` (the symbol asked for, else the id),
        ``ensembl`` (the id in the file, else the one asked for), ``columns`` (the file's names,
        joined by commas) and ``how`` (as in the index, or ``not measured``).
        """
        import pandas as pd

        positions = self.locate(ensembl, symbols)
        measured = positions >= 0
        names = iter(self._column_names(positions[measured].tolist()))
        rows = [
            {
                "gene": clean_name(s) or clean_name(e),
                "ensembl": str(self.ids[p]) if p >= 0 else clean_name(e),
                "columns": next(names) if p >= 0 else "",
                "how": str(self.how[p]) if p >= 0 else "not measured",
            }
            for e, s, p in zip(ensembl, symbols, positions.tolist(), strict=True)
        ]
        return pd.DataFrame(rows, columns=["gene", "ensembl", "columns", "how"], dtype=object)

    def mask(self, kind: str) -> NDArray[np.bool_]:
        """Which genes are of a kind: ``mito``, ``ribo``, ``haemoglobin`` or ``tcr_ig``.

        By symbol; see `patterns`. Unresolved genes count by their name.
        """
        found = patterns(self.organism)
        if kind not in found:
            raise InputDataError(f"no gene pattern {kind!r}; there are {', '.join(found)}")
        match = found[kind].match
        hits = [match(symbol) is not None for symbol in self.symbols.tolist()]
        return np.array(hits, dtype=np.bool_)


def patterns(organism: Organism | None) -> dict[str, re.Pattern[str]]:
    """Patterns of the gene families that are counted or set apart, for matching symbols.

    ``mito``
        The 37 genes of the mitochondrial genome.
    ``ribo``
        Ribosomal proteins (``RPS4X``, ``RPL10``, ``RPLP0``, ``RPSA``) and RACK1, a part of the
        small subunit; not the S6 kinases (``RPS6KA1``) or ``RPS19BP1``.
    ``haemoglobin``
        The globin genes one by one; not ``HBP1``, ``HBS1L`` or ``HBEGF``.
    ``tcr_ig``
        Variable, diversity and joining segments of T-cell receptor and immunoglobulin genes:
        they say which clone a cell is of. Not the constant genes (``IGHD``), not ``TRADD``.

    Without an organism the patterns of both are joined.
    """
    if organism is None:
        both = [_PATTERNS[name] for name in ORGANISMS]
        return {kind: re.compile("|".join(p[kind].pattern for p in both)) for kind in both[0]}
    return dict(_PATTERNS[_checked(organism)])


_PATTERNS: Final[dict[Organism, dict[str, re.Pattern[str]]]] = {
    "human": {
        "mito": re.compile(r"MT-"),
        "ribo": re.compile(r"RP[SL]\d+(?!\d|K[A-Z]|BP\d)|RPLP[012]\Z|RPSA\Z|RACK1\Z"),
        "haemoglobin": re.compile(r"HB(?:A[12]|B|D|E1|G[12]|M|Q1|Z)\Z"),
        "tcr_ig": re.compile(r"(?:TR[ABDG]|IG[HKL])[VJ]|(?:TRB|TRD|IGH)D\d"),
    },
    "mouse": {
        "mito": re.compile(r"mt-"),
        "ribo": re.compile(r"Rp[sl]\d+(?!\d|k[a-z]|bp\d)|Rplp[012]\Z|Rpsa\Z|Rack1\Z"),
        "haemoglobin": re.compile(r"Hb(?:a-(?:a[12]|x)|b-(?:b[12st]|bh[0-3]|y)|q1[ab])\Z"),
        "tcr_ig": re.compile(r"(?:Tr[abdg]|Ig[hkl])[vj]|(?:Trb|Trd|Igh)d\d|Tcrg-[VJ]"),
    },
}


def _checked(organism: str) -> Organism:
    for known in ORGANISMS:
        if organism == known:
            return known
    raise InputDataError(
        f"organism {organism!r} is not known to senoscore; it has gene tables for human and mouse"
    )


def guess_organism(names: Iterable[object]) -> tuple[Organism | None, str]:
    """The organism the gene names of a file belong to, and how that was seen.

    Ensembl ids decide, else genome prefixes (``mm10_``), else which organism's current symbols the
    names are. A file whose symbols were all put in the other organism's case is seen by the other
    organism explaining a tenth more of the names once case is ignored.

    Examples
    --------
    >>> guess_organism(["ENSMUSG00000053977.15", "ENSMUSG00000023274"])[0]
    'mouse'
    >>> guess_organism(["CD8A", "CD4", "Foxp3"])[0]
    'human'
    >>> guess_organism(["gene1", "gene2"])[0] is None
    True
    """
    return _guess([clean_name(name) for name in names])


def _guess(names: Sequence[str]) -> tuple[Organism | None, str]:
    texts = {name for name in names if name}
    if not texts:
        return None, "there are no gene names"
    prefixes: Counter[Organism] = Counter()
    ids: Counter[Organism] = Counter()
    plain: set[str] = set()
    for text in texts:
        genome, rest = _genome_of(text)
        if genome is not None:
            prefixes[genome] += 1
        found = _ensembl(rest)
        if found is not None:
            ids["mouse" if found.ensembl.startswith("ENSMUS") else "human"] += 1
        else:
            plain.add(rest)
    n = len(texts)
    for counts, what in ((ids, "Ensembl gene ids"), (prefixes, "names with a genome prefix")):
        human, mouse = counts["human"], counts["mouse"]
        if 10 * (human + mouse) >= n and human != mouse:
            organism: Organism = "human" if human > mouse else "mouse"
            return organism, f"{what}: {human:,} human, {mouse:,} mouse, of {n:,} names"
    organism_seen, how = _guess_by_symbol(plain)
    if organism_seen is None:
        known = [_table(organism).id_of for organism in ORGANISMS]
        prefix = _common_prefix(sorted(plain), lambda text: any(text in names for names in known))
        if prefix:
            organism_seen, how = _guess_by_symbol({text.removeprefix(prefix) for text in plain})
            how = f"{how} (without {prefix!r})"
    return organism_seen, how


def _guess_by_symbol(texts: set[str]) -> tuple[Organism | None, str]:
    exact: dict[Organism, int] = {}
    loose: dict[Organism, int] = {}
    upper = {text.upper() for text in texts}
    for organism in ORGANISMS:
        table = _table(organism)
        exact[organism] = sum(text in table.id_of for text in texts)
        old = table.previous_any_case
        loose[organism] = sum(text in table.any_case or text in old for text in upper)
    # mouse clone names (0610005C13Rik) come and go between annotations; no human symbol ends so
    clones = {text for text in upper if text.endswith("RIK")}
    loose["mouse"] += len(clones - _table("mouse").any_case.keys())
    n = len(texts)
    counts = f"{exact['human']:,} human and {exact['mouse']:,} mouse symbols of {n:,} names"
    best: Organism
    other: Organism
    best, other = ("human", "mouse") if exact["human"] >= exact["mouse"] else ("mouse", "human")
    if 10 * (loose[other] - loose[best]) > n:
        best, other = other, best
        counts += f"; ignoring case {loose[best]:,} are {best}, {loose[other]:,} {other}"
    elif exact[best] == exact[other]:
        if loose[best] == loose[other]:
            return None, f"names fit neither or both organisms: {counts}"
        if loose[other] > loose[best]:
            best, other = other, best
        counts += f"; ignoring case {loose[best]:,} are {best}, {loose[other]:,} {other}"
    if 5 * max(exact[best], loose[best]) < n:
        return None, f"too few names are gene symbols: {counts}"
    return best, counts


def _common_prefix(texts: Sequence[str], hits: Callable[[str], bool]) -> str:
    """A prefix of at least half of the names without which more of them are genes."""
    counts: Counter[str] = Counter()
    for text in texts:
        match = _ANY_PREFIX.match(text)
        if match is not None:
            counts[match[1]] += 1
    if not counts:
        return ""
    prefix, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    if count < 3 or 2 * count < len(texts):
        return ""
    carrying = [text for text in texts if text.startswith(prefix)]
    after = sum(hits(text[len(prefix) :]) for text in carrying)
    return prefix if 2 * after >= count and after > sum(map(hits, carrying)) else ""


class _Resolver:
    """The steps of `resolve_genes`, over lists with one entry per column."""

    def __init__(
        self, texts: list[str], seconds: list[str], foreign: list[bool], organism: Organism
    ) -> None:
        self.table = _table(organism)
        self.other: Organism = "mouse" if organism == "human" else "human"
        self.texts = texts
        self.seconds = seconds
        self.keys: list[str] = [""] * len(texts)
        self.how: list[str] = ["unresolved"] * len(texts)
        self.pending = [i for i, skip in enumerate(foreign) if not skip]
        self.present: set[str] = set()
        self.damaged: dict[int, tuple[str, str]] = {}  # column -> genes it may be, gene used
        self.whole_case = False

    def step(self, look: Callable[[int], tuple[str, str] | None], *, contested: bool) -> None:
        """Resolve what one way of looking finds among the columns still open.

        With `contested`, a gene that another column already is, is not taken again.
        """
        found: dict[int, tuple[str, str]] = {}
        for i in self.pending:
            hit = look(i)
            if hit is not None and not (contested and hit[0] in self.present):
                found[i] = hit
        for i, (key, how) in found.items():
            self.keys[i], self.how[i] = key, how
        self.present.update(key for key, _ in found.values())
        self.pending = [i for i in self.pending if i not in found]

    def by_id_or_symbol(self, text: str, *, retired: bool = False) -> tuple[str, str] | None:
        table = self.table
        key = table.id_of.get(text)
        if key is not None:
            return key, "symbol"
        taken_apart = _ensembl(text)
        if taken_apart is None:
            return None
        ensembl, exact, par_y, symbol = taken_apart
        if ensembl in table.symbol_of:
            if symbol:
                return ensembl, "joined"
            return ensembl, "ensembl" if exact else "par_y" if par_y else "ensembl_version"
        if ensembl in table.merged:
            return table.merged[ensembl], "par_y"
        if retired and ensembl in table.retired:
            return table.retired[ensembl], "ensembl_retired"
        if retired and symbol in table.id_of:
            return table.id_of[symbol], "joined"
        return None

    def by_case(self, text: str) -> tuple[str, str] | None:
        key = self.table.any_case.get(text.upper())
        return None if key is None or self.is_other_spelling(text) else (key, "case")

    def is_other_spelling(self, text: str) -> bool:
        """Whether a single name is the other organism's gene rather than a slip of case."""
        if self.whole_case:
            return False
        other = _table(self.other)
        return text in other.id_of or text in other.previous

    def by_dots(self, text: str) -> tuple[str, str] | None:
        key = self.table.id_of.get(text.replace(".", "-")) if "." in text else None
        return None if key is None or self.may_repeat(text) else (key, "dots+symbol")

    def by_previous(self, text: str) -> tuple[str, str] | None:
        key = self.table.previous.get(text)
        return None if key is None or self.may_repeat(text) else (key, "previous_symbol")

    def by_previous_case(self, text: str) -> tuple[str, str] | None:
        key = self.table.previous_any_case.get(text.upper())
        if key is None or self.is_other_spelling(text) or self.may_repeat(text):
            return None
        return key, "previous_symbol"

    def by_alias(self, text: str) -> tuple[str, str] | None:
        key = self.table.aliases.get(text)
        return None if key is None or self.may_repeat(text) else (key, "alias")

    def may_repeat(self, text: str) -> bool:
        """Whether a name may be another name of the file, numbered to make it unique."""
        match = _UNIQUE.match(text)
        return match is not None and match[1] in self.in_file

    @cached_property
    def in_file(self) -> set[str]:
        return set(self.texts)

    def second(
        self, look: Callable[[str], tuple[str, str] | None]
    ) -> Callable[[int], tuple[str, str] | None]:
        """The same way of looking, at the column's second name."""

        def look_at_second(i: int) -> tuple[str, str] | None:
            hit = look(self.seconds[i]) if self.seconds[i] else None
            return None if hit is None else (hit[0], f"feature_name+{hit[1]}")

        return look_at_second

    def run(self) -> None:
        def first(
            look: Callable[[str], tuple[str, str] | None],
        ) -> Callable[[int], tuple[str, str] | None]:
            return lambda i: look(self.texts[i])

        self.step(first(self.by_id_or_symbol), contested=False)
        self.step(self.second(self.by_id_or_symbol), contested=True)
        self.step(first(lambda text: self.by_id_or_symbol(text, retired=True)), contested=True)
        as_written = sum(map(bool, self.keys))
        only_case = sum(self.texts[i].upper() in self.table.any_case for i in self.pending)
        self.whole_case = only_case > as_written
        for look in (self.by_case, self.by_dots, self.by_previous, self.by_previous_case):
            self.step(first(look), contested=True)
            self.step(self.second(look), contested=True)
        self.run_aliases()
        self.run_dates()
        self.step(self.unsuffixed(), contested=False)

    def run_aliases(self) -> None:
        """Aliases, unless two different names of the file claim the same gene."""
        for look in (lambda i: self.by_alias(self.texts[i]), self.second(self.by_alias)):
            claims: dict[str, set[str]] = {}
            for i in self.pending:
                hit = look(i)
                if hit is not None:
                    claims.setdefault(hit[0], set()).add(self.texts[i])
            single = {key for key, texts in claims.items() if len(texts) == 1}

            def unclaimed(
                i: int,
                look: Callable[[int], tuple[str, str] | None] = look,
                single: set[str] = single,
            ) -> tuple[str, str] | None:
                hit = look(i)
                return hit if hit is not None and hit[0] in single else None

            self.step(unclaimed, contested=True)

    def run_dates(self) -> None:
        """Names a spreadsheet turned into dates: used only where one gene can be meant."""
        claims: dict[int, set[str]] = {}
        for i in self.pending:
            genes = self.dated(self.texts[i])
            if genes is not None:
                claims[i] = genes
        wanted = Counter(key for genes in claims.values() for key in genes)

        def look(i: int) -> tuple[str, str] | None:
            genes = claims.get(i, set())
            key = next(iter(genes)) if len(genes) == 1 else ""
            return (key, "date") if key and wanted[key] == 1 else None

        self.step(look, contested=True)
        for i, genes in claims.items():
            symbols = sorted(self.table.symbol_of[key] for key in genes)
            used = self.table.symbol_of[self.keys[i]] if self.keys[i] else ""
            self.damaged[i] = (" or ".join(symbols), used)

    def dated(self, text: str) -> set[str] | None:
        """The genes a date may have been; None if the name is not a date."""
        for pattern in _DATES:
            match = pattern.match(text)
            if match is None:
                continue
            parts = match.groupdict()
            if "number" in parts:
                month = _MONTHS[int(parts["number"]) - 1] if 0 < int(parts["number"]) < 13 else ""
            else:
                month = parts["month"].lower()
                month = "sep" if month == "sept" else month
            if month not in _MONTHS:
                continue
            numbers = {int(parts[part]) for part in ("a", "b") if parts.get(part)}
            spelled = [f"{stem}{n}" for stem in _DATE_SYMBOLS.get(month, ()) for n in numbers]
            if self.table.organism == "mouse":
                spelled = [name.capitalize() for name in spelled]
            hits = {self.table.by_symbol(name) for name in spelled}
            return {key for key in hits if key is not None}
        return None

    def unsuffixed(self) -> Callable[[int], tuple[str, str] | None]:
        """``GENE.1`` for ``GENE``, which the file has too and which was found."""
        found: dict[str, tuple[str, str]] = {}
        for text, key, how in zip(self.texts, self.keys, self.how, strict=True):
            if key:
                found.setdefault(text, (key, how))

        def look(i: int) -> tuple[str, str] | None:
            text = self.texts[i]
            match = _UNIQUE.match(text)
            known = self.table.known
            if match is None or text in known or text.replace(".", "-") in known:
                return None
            base = found.get(match[1])
            return None if base is None else (base[0], f"suffix+{base[1]}")

        return look


def _strip_prefixes(
    texts: list[str], organism: Organism
) -> tuple[list[str], list[bool], list[bool], list[str]]:
    """Names without the organism's prefix, which had one, which are foreign, and the notes."""
    table = _table(organism)
    stripped, prefixed, foreign = list(texts), [False] * len(texts), [False] * len(texts)
    notes: list[str] = []
    own: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for i, text in enumerate(texts):
        if text in table.id_of or text in table.symbol_of:  # most names: nothing to take off
            continue
        genome, rest = _genome_of(text)
        if genome is None:
            found = _ensembl(text)
            if found is not None and not found.ensembl.startswith(table.prefix):
                foreign[i] = True
                others["ENSMUSG" if organism == "human" else "ENSG"] += 1
        elif genome == organism:
            stripped[i], prefixed[i] = rest, True
            own[text[: len(text) - len(rest)]] += 1
        else:
            foreign[i] = True
            others[text[: len(text) - len(rest)]] += 1
    if not own:

        def is_gene(text: str) -> bool:
            return text in table.id_of or _ensembl(text) is not None

        prefix = _common_prefix([text for text in texts if text], is_gene)
        for i, text in enumerate(texts):
            if prefix and text.startswith(prefix) and not foreign[i]:
                stripped[i], prefixed[i] = clean_name(text[len(prefix) :]), True
                own[prefix] += 1
    for prefix, count in sorted(own.items()):
        notes.append(f"the prefix {prefix!r} was taken off {count:,} of {len(texts):,} gene names")
    for prefix, count in sorted(others.items()):
        notes.append(
            f"{count:,} of {len(texts):,} columns are genes of another organism ({prefix}...); "
            f"the file is read as {organism}, and these columns stay unresolved"
        )
    return stripped, prefixed, foreign, notes


def _check_names(names: Sequence[str], what: str) -> None:
    longest = max(names, key=len, default="")
    if len(longest) > _MAX_NAME:
        raise InputDataError(
            f"{what} {names.index(longest)} has {len(longest):,} characters "
            f"({longest[:40]!r}...); gene names of more than {_MAX_NAME} are not read: "
            "rename the column"
        )


def resolve_genes(
    names: Iterable[object],
    *,
    feature_names: Iterable[object] | None = None,
    organism: str | None = None,
) -> GeneIndex:
    """Which gene each column is, by all the ways in which files name genes.

    Parameters
    ----------
    names
        Names of the columns: ids, symbols, or a mixture.
    feature_names
        Second names of the same columns, used where the first do not resolve. If the file has
        both ids and symbols, give the ids as `names` and the symbols here.
    organism
        ``human`` or ``mouse``; by default seen from the names.

    Returns
    -------
    A `GeneIndex` with a position for each gene and one for each unresolved name. If no organism
    can be seen, every name is unresolved and a note says so.

    Raises
    ------
    InputDataError
        An organism without a gene table, as many second names as there are not columns, or a
        name of more than 500 characters.

    Examples
    --------
    >>> index = resolve_genes(["CD8A", "IL8", "my_transgene", "ENSG00000010610.10"])
    >>> for row in zip(index.ids, index.symbols, index.how):
    ...     print(*row)
    ENSG00000010610 CD4 ensembl_version
    ENSG00000153563 CD8A symbol
    ENSG00000169429 CXCL8 previous_symbol
    my_transgene my_transgene unresolved
    >>> index.columns
    array([1, 2, 3, 0], dtype=int32)
    """
    original = [name if isinstance(name, str) else clean_name(name) for name in names]
    texts = [name.strip(_PAD) for name in original]
    seconds = [""] * len(texts)
    if feature_names is not None:
        seconds = [clean_name(name) for name in feature_names]
        if len(seconds) != len(texts):
            raise InputDataError(
                f"there are {len(texts):,} gene names but {len(seconds):,} feature names; "
                "they must name the same columns"
            )
    _check_names(original, "gene name")
    _check_names(seconds, "feature name")

    notes: list[str] = []
    chosen: Organism | None
    if organism is None:
        chosen, how_known = _guess(texts)
        if chosen is None and feature_names is not None:
            chosen, how_known = _guess(seconds)
        if chosen is None:
            notes.append(f"the organism cannot be seen from the gene names ({how_known})")
    else:
        chosen = _checked(organism)
    if chosen is None:
        keys = [text or second for text, second in zip(texts, seconds, strict=True)]
        return _index(original, keys, keys, ["unresolved"] * len(keys), None, notes, ())

    stripped, prefixed, foreign, prefix_notes = _strip_prefixes(texts, chosen)
    notes += prefix_notes
    resolver = _Resolver(stripped, seconds, foreign, chosen)
    resolver.run()
    keys, symbols, hows = [], [], []
    for i, (key, how) in enumerate(zip(resolver.keys, resolver.how, strict=True)):
        if key:
            symbol = resolver.table.symbol_of[key]
            by_name = prefixed[i] and not how.startswith("feature_name")
            how = f"prefix+{how}" if by_name else how
        else:
            key, symbol = _own_name(stripped[i], "" if foreign[i] else seconds[i])
        keys.append(key)
        symbols.append(symbol)
        hows.append(how)
    damaged = tuple(sorted((original[i], *pair) for i, pair in resolver.damaged.items()))
    notes += _remarks(resolver, damaged, len(texts))
    return _index(original, keys, symbols, hows, chosen, notes, damaged)


def _own_name(text: str, second: str) -> tuple[str, str]:
    """Id and symbol of a gene that no table knows."""
    taken_apart = _ensembl(text)
    if taken_apart is None:
        return text or second, second or text
    return taken_apart.ensembl, second or taken_apart.symbol or taken_apart.ensembl


def _remarks(
    resolver: _Resolver, damaged: tuple[tuple[str, str, str], ...], n_columns: int
) -> list[str]:
    notes: list[str] = []
    if resolver.whole_case:
        count = sum(how.endswith("case") for how in resolver.how)
        notes.append(
            f"{count:,} of {n_columns:,} gene names are {resolver.table.organism} symbols in "
            "another case"
        )
    if damaged:
        lost = sum(not used for *_, used in damaged)
        listed = ", ".join(name for name, *_ in damaged[:3])
        notes.append(
            f"{len(damaged):,} gene names were turned into dates by a spreadsheet ({listed}"
            f"{', ...' if len(damaged) > 3 else ''}); {lost:,} of them could be several genes "
            "or none and stay unresolved"
        )
    return notes


def _index(
    original: list[str],
    keys: list[str],
    symbols: list[str],
    hows: list[str],
    organism: Organism | None,
    notes: list[str],
    damaged: tuple[tuple[str, str, str], ...],
) -> GeneIndex:
    """Give genes their positions; where columns of a gene differ, the best of them speaks."""
    best: dict[str, tuple[int, str, str]] = {}
    order = {how: place for place, how in enumerate(sorted(set(hows), key=_rank_of_how))}
    for key, symbol, how in zip(keys, symbols, hows, strict=True):
        row = (order[how], symbol, how)
        if key not in best or row < best[key]:
            best[key] = row
    ids = sorted(best)
    position = {key: place for place, key in enumerate(ids)}
    n_merged = len(keys) - len(ids)
    if n_merged:
        note = f"{n_merged:,} of {len(keys):,} columns name a gene that another column names too"
        notes = [*notes, f"{note}; they are summed"]
    return GeneIndex(
        organism=organism,
        columns=np.array([position[key] for key in keys], dtype=np.int32),
        ids=_strings(ids),
        symbols=_strings([best[key][1] for key in ids]),
        how=_strings([best[key][2] for key in ids]),
        names=_strings(original),
        notes=tuple(notes),
        damaged=damaged,
    )


def _rank_of_how(how: str) -> tuple[int, int, str]:
    """Best first; among equals, the one for which less had to be undone."""
    return _HOW_ORDER.index(how.split("+")[-1]), how.count("+"), how


def _strings(values: list[str]) -> NDArray[Any]:
    return np.array(values, dtype=np.str_) if values else np.empty(0, dtype=np.str_)
