"""The registry of signatures: which genes vote, in which lineage, and on whose word.

A signature is a signed, weighted list of genes that is valid inside named lineages only. The shipped
ones live in the ``signatures`` folder of the checkout (``senoscore/_signatures`` in a wheel): one
small table per signature beside ``index.tsv`` and ``evidence.tsv``. Users add their own as TSV, GMT
or a dictionary, and the same checks apply.
"""

from __future__ import annotations

import csv
import difflib
import functools
import gzip
import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from senoscore.errors import SenoscoreWarning, SignatureError
from senoscore.keys import LINEAGES

if TYPE_CHECKING:
    from pandas import DataFrame

Organism: TypeAlias = Literal["human", "mouse"]

ORGANISMS: Final[tuple[Organism, ...]] = ("human", "mouse")
ROLES: Final = ("axis", "arm", "lineage", "programme", "confounder", "comparator", "user")
MEASURABLE: Final = ("yes", "proxy", "no")

_DIRECTIONS: Final[dict[str, int]] = {
    "+": 1,
    "1": 1,
    "+1": 1,
    "up": 1,
    "-": -1,
    "-1": -1,
    "\N{MINUS SIGN}": -1,
    "down": -1,
    "0": 0,
    "no change": 0,
    "none": 0,
}
_YES_NO: Final[dict[str, bool]] = {
    "yes": True,
    "true": True,
    "1": True,
    "no": False,
    "false": False,
    "0": False,
}
_NO_GENE: Final = frozenset({"", "none", "na", "nan", "-"})
_GENE_COLUMNS: Final = (
    "gene",
    "ensembl",
    "mouse_gene",
    "mouse_ensembl",
    "direction",
    "weight",
    "votes",
    "evidence_ids",
    "literature",
    "measurable",
    "note",
)
_SET_COLUMNS: Final = (
    "lineages",
    "species",
    "role",
    "title",
    "source",
    "licence",
    "warning",
    "description",
    "scored",
)
_DATE: Final = re.compile(
    r"\d{1,2}-(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)-\d{1,4}"
    r"|\d{4}-\d{2}-\d{2}.*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SignatureGene:
    """One gene of a signature: its sign, its weight, whether it votes, and why.

    ``mouse_symbol`` is the gene to read in mouse data and empty where there is none. ``votes`` is
    False for genes carried for the report only (unmeasurable, contested, shared with a rival state).
    """

    symbol: str
    ensembl: str = ""
    mouse_symbol: str = ""
    mouse_ensembl: str = ""
    direction: int = 1
    weight: float = 1.0
    votes: bool = True
    evidence: tuple[str, ...] = ()
    measurable: str = "yes"
    note: str = ""
    literature: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signed list of genes with the lineages and species it is valid in.

    ``warning`` is shown beside every score of the signature. ``scored`` is False for sets that are
    shipped for comparison or as a list of withheld genes, and are scored only when asked for by name.
    """

    name: str
    genes: tuple[SignatureGene, ...]
    lineages: tuple[str, ...] = LINEAGES
    species: tuple[str, ...] = ORGANISMS
    role: str = "user"
    source: str = ""
    licence: str = ""
    warning: str = ""
    description: str = ""
    title: str = ""
    scored: bool = True

    def voting(self) -> tuple[SignatureGene, ...]:
        """The genes that enter the score."""
        return tuple(gene for gene in self.genes if gene.votes)

    def refusal(self, *, lineage: str | None = None, organism: str | None = None) -> str:
        """Why the signature may not be scored there, as one sentence; empty where it may.

        Examples
        --------
        >>> b_cells = Signature("abc", (SignatureGene("TBX21"),), lineages=("B",))
        >>> b_cells.refusal(lineage="mono_mac")
        "signature 'abc' is valid in B, not in mono_mac"
        >>> b_cells.refusal(lineage="B")
        ''
        """
        if lineage is not None and lineage not in self.lineages:
            return (
                f"signature {self.name!r} is valid in {' '.join(self.lineages)}, not in {lineage}"
            )
        if organism is not None and organism not in self.species:
            return (
                f"signature {self.name!r} is for {' and '.join(self.species)} only, not {organism}"
            )
        if not any(gene.votes for gene in self.genes):
            return f"signature {self.name!r} has no voting gene"
        return ""

    def for_organism(self, organism: str) -> Signature:
        """The signature with the symbols and ids of one organism.

        For mouse, ``symbol`` and ``ensembl`` become the mouse ones. A gene without a mouse gene
        keeps its human symbol, loses its id and its vote, and says so in ``note``.
        """
        if organism not in ORGANISMS:
            raise SignatureError(
                f"unknown organism {organism!r}: signatures know {' and '.join(ORGANISMS)}"
            )
        refusal = self.refusal(organism=organism) if organism not in self.species else ""
        if refusal:
            raise SignatureError(refusal)
        if organism == "human":
            return self
        return replace(self, genes=tuple(_as_mouse(gene) for gene in self.genes))


class _Report(Protocol):
    def __call__(self, rule: str, what: str, todo: str, gene: str) -> None: ...


def _as_mouse(gene: SignatureGene) -> SignatureGene:
    if gene.mouse_symbol:
        return replace(gene, symbol=gene.mouse_symbol, ensembl=gene.mouse_ensembl)
    note = f"no mouse gene; {gene.note}" if gene.note else "no mouse gene"
    return replace(gene, ensembl="", votes=False, note=note)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file of signatures: where, what, and what to do about it."""

    rule: str
    what: str
    todo: str
    signature: str = ""
    gene: str = ""
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = self.file
        if place and self.line is not None:
            place = f"{place}:{self.line}"
        about = [f"signature {self.signature!r}"] if self.signature else []
        about += [f"gene {self.gene}"] if self.gene else []
        return (
            ": ".join(part for part in (place, ", ".join(about), self.what) if part)
            + f"; {self.todo}"
        )


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a signature was read: its file, its line in the index, and the line of each gene."""

    file: str = ""
    line: int | None = None
    gene_lines: tuple[int, ...] = ()

    def of_gene(self, position: int) -> int | None:
        return self.gene_lines[position] if position < len(self.gene_lines) else self.line


class SignatureSet(Mapping[str, Signature]):
    """Signatures by name, in order; never changed after it is made.

    Examples
    --------
    >>> mine = read_signatures({"cycling": ["MKI67", "TOP2A", "BTG1-"]})
    >>> [(gene.symbol, gene.direction) for gene in mine["cycling"].voting()]
    [('MKI67', 1), ('TOP2A', 1), ('BTG1', -1)]
    """

    def __init__(
        self,
        signatures: Iterable[Signature] = (),
        *,
        _origins: Mapping[str, _Origin] | None = None,
    ) -> None:
        self._signatures: dict[str, Signature] = {}
        for signature in signatures:
            if signature.name in self._signatures:
                raise SignatureError(
                    f"signature {signature.name!r} is given twice; rename one of them"
                )
            self._signatures[signature.name] = signature
        self._origins: dict[str, _Origin] = dict(_origins or {})

    def __getitem__(self, name: str) -> Signature:
        if name not in self._signatures:
            raise KeyError(f"no signature {name!r}{_did_you_mean(name, self._signatures)}")
        return self._signatures[name]

    def __contains__(self, name: object) -> bool:
        return name in self._signatures

    def __iter__(self) -> Iterator[str]:
        return iter(self._signatures)

    def __len__(self) -> int:
        return len(self._signatures)

    def __repr__(self) -> str:
        return f"SignatureSet({len(self)} signatures: {', '.join(list(self)[:4])}{', …' * (len(self) > 4)})"

    def __hash__(self) -> int:
        return hash(tuple(self._signatures.values()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SignatureSet):
            return NotImplemented
        return self._signatures == other._signatures

    def __or__(self, other: SignatureSet) -> SignatureSet:
        """Both sets together; a name that is in both is an error, not a silent replacement."""
        shared = [name for name in self if name in other]
        if shared:
            raise SignatureError(
                f"the name {_listed(shared)} is already taken by another signature; rename yours"
            )
        return SignatureSet(
            [*self.values(), *other.values()], _origins=self._origins | other._origins
        )

    def select(self, names: str | Iterable[str]) -> SignatureSet:
        """The named signatures, in the order asked for.

        Raises
        ------
        SignatureError
            A name is not here; the message lists every such name with its nearest neighbours.
        """
        wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
        unknown = [name for name in wanted if name not in self._signatures]
        if unknown:
            lines = [f"{name!r}{_did_you_mean(name, self._signatures)}" for name in unknown]
            raise SignatureError(
                f"no signature {'; '.join(lines)}. `senoscore signatures list` shows all {len(self)}"
            )
        return self._kept(wanted)

    def default(self) -> SignatureSet:
        """The signatures scored when none is named: all but the published comparators."""
        return self._kept([name for name, signature in self.items() if signature.scored])

    def with_role(self, *roles: str) -> SignatureSet:
        """The signatures of one or more roles."""
        unknown = [role for role in roles if role not in ROLES]
        if unknown:
            raise SignatureError(f"no role {unknown[0]!r}; roles are {', '.join(ROLES)}")
        return self._kept([name for name, signature in self.items() if signature.role in roles])

    def in_lineage(self, lineage: str) -> SignatureSet:
        """The signatures valid in a lineage."""
        if lineage not in LINEAGES:
            raise SignatureError(f"no lineage {lineage!r}; lineages are {', '.join(LINEAGES)}")
        return self._kept(
            [name for name, signature in self.items() if lineage in signature.lineages]
        )

    def for_organism(self, organism: str) -> SignatureSet:
        """The signatures valid in an organism, with its symbols and ids."""
        if organism not in ORGANISMS:
            raise SignatureError(
                f"unknown organism {organism!r}: signatures know {' and '.join(ORGANISMS)}"
            )
        return SignatureSet(
            [s.for_organism(organism) for s in self.values() if organism in s.species],
            _origins=self._origins,
        )

    def to_frame(self) -> DataFrame:
        """One row per signature and gene."""
        import pandas as pd

        columns = [
            "signature", "role", "lineages", "species", "gene", "ensembl", "mouse_gene",
            "mouse_ensembl", "direction", "weight", "votes", "evidence_ids", "literature",
            "measurable", "note",
        ]  # fmt: skip
        rows = [
            (
                s.name, s.role, " ".join(s.lineages), " ".join(s.species), g.symbol, g.ensembl,
                g.mouse_symbol, g.mouse_ensembl, g.direction, g.weight, g.votes,
                ";".join(g.evidence), g.literature, g.measurable, g.note,
            )
            for s in self.values()
            for g in s.genes
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def _kept(self, names: Sequence[str]) -> SignatureSet:
        return SignatureSet([self._signatures[name] for name in names], _origins=self._origins)


def _listed(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(lower[n] for n in near)}?)" if near else ""


# ---------------------------------------------------------------------------------------------------
# reading


def registry_folder() -> Path:
    """Where the shipped registry is: inside an installed wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_signatures", package.parent / "signatures"):
        if (folder / "index.tsv").is_file():
            return folder
    raise SignatureError(
        f"the shipped signatures are missing: neither {package / '_signatures'} nor "
        f"{package.parent / 'signatures'} holds index.tsv; reinstall senoscore"
    )


def read_signatures(
    source: str | Path | Mapping[str, object] | SignatureSet | None = None,
) -> SignatureSet:
    """Read signatures: the shipped registry, or your own from a folder, TSV, GMT or dictionary.

    Parameters
    ----------
    source
        ``None`` for the shipped registry; a folder with ``index.tsv`` (or of loose TSV and GMT
        files); a ``.tsv``, ``.csv`` or ``.gmt`` file (also ``.gz``); or a dictionary name → genes,
        where ``"GENE-"`` is a gene that goes down. A TSV needs a column ``gene``; ``signature``,
        ``direction``, ``weight``, ``lineages``, ``species`` and the other registry columns are
        optional.

    Returns
    -------
    The signatures by name. Your own have the role ``user`` and, unless they say otherwise, are valid
    in every lineage.

    Raises
    ------
    SignatureError
        The file cannot be read as signatures; the message names every mistake with its line.
    """
    if isinstance(source, SignatureSet):
        return source
    if source is None:
        return _shipped()
    problems: list[Problem] = []
    signatures = _parse(source, problems)
    fatal = [problem for problem in problems if problem.rule not in _TOLERATED]
    if fatal:
        _raise_all(fatal)
    for problem in problems:
        warnings.warn(str(problem), SenoscoreWarning, stacklevel=2)
    return signatures


# mistakes that leave no doubt about what was meant: said once, then mended
_TOLERATED: Final = frozenset({"repeated gene"})


@functools.lru_cache(maxsize=1)
def _shipped() -> SignatureSet:
    problems: list[Problem] = []
    signatures = _parse(registry_folder(), problems)
    if problems:
        _raise_all(problems)
    return signatures


def _raise_all(problems: Sequence[Problem]) -> None:
    shown = "\n".join(f"  {problem}" for problem in problems[:20])
    more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
    noun = "mistake" if len(problems) == 1 else "mistakes"
    raise SignatureError(f"{len(problems)} {noun} in the signatures:\n{shown}{more}")


def _parse(source: str | Path | Mapping[str, object], problems: list[Problem]) -> SignatureSet:
    parsed: list[tuple[Signature, _Origin]]
    if isinstance(source, Mapping):
        parsed = list(_from_mapping(source, problems))
    else:
        path = Path(source)
        if path.is_dir():
            parsed = _from_folder(path, problems)
        elif path.is_file():
            parsed = list(_from_file(path, problems))
        else:
            raise SignatureError(f"no such file or folder of signatures: {path}")
    kept: dict[str, tuple[Signature, _Origin]] = {}
    for signature, origin in parsed:
        if signature.name in kept:
            problems.append(
                Problem(
                    "repeated signature",
                    f"also defined in {kept[signature.name][1].file or 'the same input'}",
                    "rename one of them",
                    signature=signature.name,
                    file=origin.file,
                    line=origin.line,
                )
            )
            continue
        kept[signature.name] = (signature, origin)
    if not kept and not problems:
        problems.append(
            Problem("empty", "no signature found", "give at least one", file=str(_where(source)))
        )
    return SignatureSet(
        [signature for signature, _ in kept.values()],
        _origins={name: origin for name, (_, origin) in kept.items()},
    )


def _where(source: str | Path | Mapping[str, object]) -> str:
    return "the dictionary" if isinstance(source, Mapping) else str(source)


def _from_folder(folder: Path, problems: list[Problem]) -> list[tuple[Signature, _Origin]]:
    indices = sorted(folder.glob("index.tsv")) + sorted(folder.glob("*/index.tsv"))
    if indices:
        return [pair for index in indices for pair in _from_index(index, problems)]
    files = sorted(p for p in folder.iterdir() if _kind(p))
    return [pair for file in files for pair in _from_file(file, problems)]


# tables of the registry that are not signatures
_NOT_SIGNATURES: Final = frozenset(
    {"index.tsv", "evidence.tsv", "targets.tsv", "dual_role.tsv", "references.tsv"}
)


def _from_index(index: Path, problems: list[Problem]) -> Iterator[tuple[Signature, _Origin]]:
    file = str(index)
    header, rows = _table(index)
    missing = [column for column in ("name", "role", "lineages", "species") if column not in header]
    if missing:
        problems.append(
            Problem(
                "column",
                f"no column {_listed(missing)}; found {', '.join(header)}",
                "add it",
                file=file,
                line=1,
            )
        )
        return
    present = {p.stem for p in index.parent.glob("*.tsv") if p.name not in _NOT_SIGNATURES}
    for line, row in rows:
        name = row["name"]
        path = index.parent / f"{name}.tsv"
        if not name or path.parent != index.parent or not path.is_file():
            problems.append(
                Problem(
                    "index",
                    f"the index names {name!r} but there is no file {name}.tsv beside it",
                    "add the file or drop the row",
                    signature=name,
                    file=file,
                    line=line,
                )
            )
            continue
        present.discard(name)
        facts = _set_facts(row, name, file, line, problems)
        table_header, table_rows = _table(path)
        if not _has_gene_column(table_header, str(path), problems):
            continue
        genes, lines = _genes(table_rows, name, str(path), problems)
        yield (
            replace(facts, genes=genes),
            _Origin(file=str(path), line=line, gene_lines=lines),
        )
    for stem in sorted(present):
        problems.append(
            Problem(
                "index",
                f"{stem}.tsv has no row in index.tsv",
                "add a row with its lineages, species, source and licence",
                signature=stem,
                file=file,
            )
        )


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    if path.name in _NOT_SIGNATURES or path.name.startswith((".", "_")):
        return ""
    return next((kind for kind in ("tsv", "csv", "gmt") if name.endswith(f".{kind}")), "")


def _from_file(path: Path, problems: list[Problem]) -> Iterator[tuple[Signature, _Origin]]:
    kind = _kind(path)
    if kind == "gmt":
        return _from_gmt(path, problems)
    if kind in ("tsv", "csv") or path.suffix == ".txt":
        return _from_table(path, problems)
    raise SignatureError(
        f"{path}: not a kind of file signatures are read from; use .gmt, .tsv or .csv (also .gz)"
    )


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SignatureError(f"{path}: cannot be read as a text file: {error}") from error
    if "\0" in text:
        raise SignatureError(f"{path}: holds zero bytes, so it is not a text file of signatures")
    return text


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows with their line numbers; comment lines and blank lines are skipped."""
    delimiter = "," if path.name.lower().removesuffix(".gz").endswith(".csv") else "\t"
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter)
    header: list[str] = []
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            values = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))
            rows.append((reader.line_num, dict(zip(header, values, strict=False))))
    except csv.Error as error:
        raise SignatureError(f"{path}:{reader.line_num}: not a readable table: {error}") from error
    return header, rows


def _has_gene_column(header: Sequence[str], file: str, problems: list[Problem]) -> bool:
    if "gene" not in header:
        found = ", ".join(header[:8]) or "nothing"
        problems.append(
            Problem(
                "column",
                f"no column 'gene'; the header line has {found}",
                "name the column of gene symbols 'gene', with tabs between columns",
                file=file,
                line=1,
            )
        )
        return False
    known = [*_GENE_COLUMNS, *_SET_COLUMNS, "signature", "name"]
    for column in header:
        near = difflib.get_close_matches(column.lower(), known, n=1, cutoff=0.8)
        if column not in known and near:
            problems.append(
                Problem(
                    "column",
                    f"unknown column {column!r}",
                    f"did you mean {near[0]!r}? rename it",
                    file=file,
                    line=1,
                )
            )
    return True


def _from_table(path: Path, problems: list[Problem]) -> Iterator[tuple[Signature, _Origin]]:
    file = str(path)
    header, rows = _table(path)
    if not _has_gene_column(header, file, problems):
        return
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    groups: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in rows:
        groups.setdefault(row.get("signature") or stem, []).append((line, row))
    for name, members in groups.items():
        first_line = members[0][0]
        facts_row: dict[str, str] = {}
        for column in _SET_COLUMNS:
            values = dict.fromkeys(row[column] for _, row in members if row.get(column))
            if len(values) > 1:
                problems.append(
                    Problem(
                        "column",
                        f"{column} is given as {_listed(values)}",
                        "give one value per signature",
                        signature=name,
                        file=file,
                        line=first_line,
                    )
                )
            facts_row[column] = next(iter(values), "")
        facts_row["lineages"] = facts_row["lineages"] or " ".join(LINEAGES)
        facts_row["species"] = facts_row["species"] or " ".join(ORGANISMS)
        facts_row["role"] = facts_row["role"] or "user"
        facts = _set_facts(facts_row, name, file, first_line, problems)
        genes, lines = _genes(members, name, file, problems)
        yield replace(facts, genes=genes), _Origin(file, first_line, lines)


def _from_gmt(path: Path, problems: list[Problem]) -> Iterator[tuple[Signature, _Origin]]:
    file = str(path)
    for line, text in enumerate(_text(path).splitlines(), start=1):
        if not text.strip() or text.startswith("#"):
            continue
        # the second field describes the set: its words are not genes
        name, *rest = text.split("\t")
        name = name.strip()
        description = rest[0].strip() if rest else ""
        rows = [(line, _signed(word)) for word in rest[1:] if word.strip()]
        if not rows:
            problems.append(
                Problem(
                    "empty",
                    "no gene on this line",
                    "a GMT line is name, description, genes, with tabs between them",
                    signature=name[:60],
                    file=file,
                    line=line,
                )
            )
            continue
        genes, lines = _genes(rows, name, file, problems)
        _check_name(name, file, line, problems)
        source = description if description.startswith("http") else ""
        yield (
            Signature(name, genes, source=source, description="" if source else description),
            _Origin(file, line, lines),
        )


def _from_mapping(
    source: Mapping[str, object], problems: list[Problem]
) -> Iterator[tuple[Signature, _Origin]]:
    for name, members in source.items():
        if isinstance(members, Signature):
            yield replace(members, name=name), _Origin()
            continue
        rows: list[tuple[int, dict[str, str]]]
        if isinstance(members, Mapping):
            rows = [
                (0, {"gene": str(gene).strip(), "weight": str(w)}) for gene, w in members.items()
            ]
        elif isinstance(members, str) or not isinstance(members, Iterable):
            problems.append(
                Problem(
                    "dictionary",
                    f"the value is {members!r}, not a list of genes",
                    'write {"name": ["GENE", "GENE-", ...]}',
                    signature=str(name),
                )
            )
            continue
        else:
            rows = [(0, _signed(str(word))) for word in members if str(word).strip()]
        _check_name(str(name), "", None, problems)
        genes, _ = _genes(rows, str(name), "", problems)
        yield Signature(str(name), genes), _Origin()


def _signed(word: str) -> dict[str, str]:
    """A gene with a trailing sign, as in UCell: ``"CD28-"`` goes down, ``"TOX+"`` goes up.

    No current human or mouse symbol ends in a sign, and a dash inside (``HLA-DRA``) stays.
    """
    word = word.strip()
    if word[-1:] in "+-" and len(word) > 1:
        return {"gene": word[:-1].strip(), "direction": word[-1]}
    return {"gene": word, "direction": "+"}


def _check_name(name: str, file: str, line: int | None, problems: list[Problem]) -> None:
    if not name or "/" in name or len(name) > 120 or not name.isprintable():
        problems.append(
            Problem(
                "name",
                f"{name[:60]!r} cannot name a signature",
                "use up to 120 printable characters without '/'",
                file=file,
                line=line,
            )
        )


def _set_facts(
    row: Mapping[str, str], name: str, file: str, line: int, problems: list[Problem]
) -> Signature:
    """The facts of a signature (not its genes) from an index row; mistakes go to ``problems``."""

    def words(column: str, allowed: Sequence[str]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(re.split(r"[\s,;|]+", row.get(column, "").strip())))
        found = tuple(word for word in found if word)
        unknown = [word for word in found if word not in allowed]
        if unknown:
            problems.append(
                Problem(
                    column,
                    f"unknown {column} {_listed(unknown)}{_did_you_mean(unknown[0], allowed)}",
                    f"use {' '.join(allowed)}",
                    signature=name,
                    file=file,
                    line=line,
                )
            )
        if not found:
            problems.append(
                Problem(
                    column,
                    f"no {column}",
                    f"name where it is valid: {' '.join(allowed)}",
                    signature=name,
                    file=file,
                    line=line,
                )
            )
        return tuple(word for word in found if word in allowed)

    _check_name(name, file, line, problems)
    role = row.get("role", "")
    if role not in ROLES:
        problems.append(
            Problem(
                "role",
                f"unknown role {role!r}{_did_you_mean(role, ROLES)}",
                f"use one of {' '.join(ROLES)}",
                signature=name,
                file=file,
                line=line,
            )
        )
    return Signature(
        name=name,
        genes=(),
        lineages=words("lineages", LINEAGES),
        species=words("species", ORGANISMS),
        role=role,
        source=row.get("source", ""),
        licence=row.get("licence", ""),
        warning=row.get("warning", ""),
        description=row.get("description", ""),
        title=row.get("title", ""),
        scored=_YES_NO.get(row.get("scored", "").lower(), role != "comparator"),
    )


def _genes(
    rows: Iterable[tuple[int, Mapping[str, str]]],
    name: str,
    file: str,
    problems: list[Problem],
) -> tuple[tuple[SignatureGene, ...], tuple[int, ...]]:
    """Genes of one signature with the line of each; mistakes go to ``problems``."""
    genes: dict[str, SignatureGene] = {}
    lines: list[int] = []
    for line, row in rows:

        def problem(rule: str, what: str, todo: str, gene: str) -> None:
            problems.append(Problem(rule, what, todo, name, gene, file, line or None))  # noqa: B023

        symbol = row.get("gene", "").strip()
        if not symbol:
            problem("gene", "a row without a gene", "fill the column 'gene' or drop the row", "")
            continue
        gene = _gene(symbol, row, problem)
        known = genes.get(symbol)
        if known is not None:
            if known.direction == gene.direction and known.weight == gene.weight:
                problem(
                    "repeated gene", "listed twice; counted once", "list each gene once", symbol
                )
            else:
                problem(
                    "repeated gene with another sign",
                    f"listed as {_sign(known)} and again as {_sign(gene)}",
                    "decide on one direction and weight",
                    symbol,
                )
            continue
        genes[symbol] = gene
        lines.append(line)
    if not genes:
        problems.append(Problem("empty", "no genes", "list at least one gene", name, "", file))
    return tuple(genes.values()), tuple(lines)


def _sign(gene: SignatureGene) -> str:
    return f"{'+' if gene.direction > 0 else '-' if gene.direction < 0 else ''}{gene.weight:g}"


def _gene(symbol: str, row: Mapping[str, str], problem: _Report) -> SignatureGene:
    weight, sign = _weight(symbol, row, problem)
    direction = sign
    if row.get("direction"):
        word = row["direction"].lower()
        if word not in _DIRECTIONS:
            problem("direction", f"direction {word!r}", "use + (up), - (down) or 0", symbol)
        direction = _DIRECTIONS.get(word, 0) * sign
        if sign < 0:
            problem(
                "weight",
                f"a weight below zero beside a direction ({row['weight']}, {word})",
                "put the sign in the direction and keep the weight positive",
                symbol,
            )
    votes = direction != 0 and weight > 0
    if row.get("votes"):
        word = row["votes"].lower()
        if word not in _YES_NO:
            problem("votes", f"votes {row['votes']!r}", "use yes or no", symbol)
        votes = _YES_NO.get(word, False)
    measurable = row.get("measurable") or "yes"
    if measurable not in MEASURABLE:
        problem("measurable", f"measurable {measurable!r}", "use yes, proxy or no", symbol)
    ensembl = row.get("ensembl", "")
    # a user's own list is read as written in both organisms; the registry states the mouse gene
    mouse = row.get("mouse_gene", symbol)
    return SignatureGene(
        symbol=symbol,
        ensembl="" if ensembl.lower() in _NO_GENE else ensembl,
        mouse_symbol="" if mouse.lower() in _NO_GENE else mouse,
        mouse_ensembl=""
        if row.get("mouse_ensembl", "").lower() in _NO_GENE
        else row["mouse_ensembl"],
        direction=direction,
        weight=weight,
        votes=votes,
        evidence=tuple(word for word in re.split(r"[;,\s]+", row.get("evidence_ids", "")) if word),
        measurable=measurable,
        note=row.get("note", ""),
        literature=row.get("literature", ""),
    )


def _weight(symbol: str, row: Mapping[str, str], problem: _Report) -> tuple[float, int]:
    """The weight without its sign, and the sign (a signed weight is a direction)."""
    text = row.get("weight", "")
    if not text:
        return (0.0 if _DIRECTIONS.get(row.get("direction", "").lower()) == 0 else 1.0), 1
    try:
        weight = float(text)
    except ValueError:
        problem("weight", f"weight {text!r} is not a number", "write a positive number", symbol)
        return 0.0, 1
    if not math.isfinite(weight):
        problem("weight", f"weight {text!r} is not finite", "write a positive number", symbol)
        return 0.0, 1
    return abs(weight), -1 if weight < 0 else 1


# ---------------------------------------------------------------------------------------------------
# the other tables of the registry


def _registry_rows(name: str) -> list[tuple[int, dict[str, str]]]:
    return _table(registry_folder() / name)[1]


def _registry_frame(name: str) -> DataFrame:
    import pandas as pd

    header, rows = _table(registry_folder() / name)
    return pd.DataFrame([row for _, row in rows], columns=header, dtype=str)


def read_evidence() -> DataFrame:
    """Every marker the reviews name: one row per statement and gene, with its place in the source.

    ``measurable`` says whether gene-level RNA can show the marker (yes, proxy, no) and ``reason``
    why not; ``gene`` is empty where a statement names no gene.
    """
    return _registry_frame("evidence.tsv")


def read_targets() -> DataFrame:
    """Senolytic and senomorphic strategies of Table 4 and the genes they act on."""
    return _registry_frame("targets.tsv")


def read_dual_role() -> DataFrame:
    """Features of senescent T cells that promote or inhibit tumours, after Table 2."""
    return _registry_frame("dual_role.tsv")


# ---------------------------------------------------------------------------------------------------
# checking

# named for exhaustion and for senescence alike: they may never decide between the two
SHARED_GENES: Final = (
    "HAVCR2", "TIGIT", "CTLA4", "FOXP3", "LCK", "ZAP70",
    "PRF1", "GZMA", "GZMB", "GZMH", "GZMK", "GZMM",
)  # fmt: skip
SENESCENCE_AXIS: Final = "t_discriminating_senescence_only"
EXHAUSTION_AXIS: Final = "t_discriminating_exhaustion_only"

_CELL_LINEAGES: Final[dict[str, tuple[str, ...]]] = {
    "any immune": LINEAGES,
    "T": ("T",),
    "CD4 T": ("T",),
    "CD8 T": ("T",),
    "B": ("B",),
    "NK": ("NK",),
    "macrophage": ("mono_mac",),
    "neutrophil": ("neutrophil",),
    "DC": ("DC",),
    "DC (cDC)": ("DC",),
    "DC (pDC)": ("DC",),
    "tumour cell": ("other",),
}
_EVIDENCE_SIGN: Final[dict[str, int]] = {"up": 1, "down": -1, "no change": 0}


@dataclass(frozen=True, slots=True)
class _Names:
    """The gene names of one organism."""

    symbol_of_id: Mapping[str, str]
    current: Mapping[str, str]  # current symbol -> itself, and older names -> current symbol

    def resolve(self, symbol: str) -> str:
        """The current symbol of a name, or nothing."""
        return self.current.get(symbol, "")


@functools.lru_cache(maxsize=2)
def _packaged_names(organism: str) -> _Names | None:
    table = Path(__file__).resolve().parent / "data" / f"genes_{organism}.tsv.gz"
    if not table.is_file():
        return None
    symbol_of_id: dict[str, str] = {}
    older: dict[str, set[str]] = {}
    _, rows = _table(table)
    for _, row in rows:
        symbol_of_id[row["ensembl"]] = row["symbol"]
        for column in ("previous", "aliases"):
            for name in row.get(column, "").split("|"):
                older.setdefault(name, set()).add(row["symbol"])
    current = {name: next(iter(s)) for name, s in older.items() if name and len(s) == 1}
    current |= {symbol: symbol for symbol in symbol_of_id.values()}
    return _Names(symbol_of_id, current)


def check_signatures(
    source: str | Path | Mapping[str, object] | SignatureSet | None = None,
    *,
    known: Mapping[str, Iterable[str]] | None = None,
) -> list[Problem]:
    """Every mistake in a set or a file of signatures at once; an empty list means none.

    Looked for: unknown genes, a gene twice (also under an older name), a sign that its evidence
    contradicts, a vote without evidence or literature, a vote of an unmeasurable gene, weights that
    are not positive numbers, sets without a vote, unknown lineages, species and roles, and genes
    that would decide between exhaustion and senescence although both claim them.

    Parameters
    ----------
    source
        As in :func:`read_signatures`; ``None`` checks the shipped registry.
    known
        Gene symbols by organism, instead of the packaged gene tables.
    """
    problems: list[Problem] = []
    if source is None:
        source = registry_folder()
    signatures = source if isinstance(source, SignatureSet) else _parse(source, problems)
    evidence = {row["evidence_id"]: row for _, row in _registry_rows("evidence.tsv")}
    names: dict[str, _Names | None] = {o: _names(o, known) for o in ORGANISMS}
    for signature in signatures.values():
        origin = signatures._origins.get(signature.name, _Origin())
        problems += _check_set(signature, origin)
        problems += _check_names(signature, origin, names)
        for position, gene in enumerate(signature.genes):
            report = _Reporter(problems, signature.name, gene.symbol, origin, position)
            _check_gene(signature, gene, report)
            if signature.role != "user":
                _check_support(signature, gene, evidence, report)
    problems += _check_rivals(signatures)
    return problems


def _names(organism: str, known: Mapping[str, Iterable[str]] | None) -> _Names | None:
    if known is None:
        return _packaged_names(organism)
    if organism not in known:
        return None
    return _Names({}, {symbol: symbol for symbol in known[organism]})


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Adds problems about one gene, with the line it was read from."""

    problems: list[Problem]
    signature: str
    gene: str
    origin: _Origin
    position: int

    def __call__(self, rule: str, what: str, todo: str) -> None:
        line = self.origin.of_gene(self.position)
        self.problems.append(
            Problem(rule, what, todo, self.signature, self.gene, self.origin.file, line)
        )


def _check_set(signature: Signature, origin: _Origin) -> Iterator[Problem]:
    """Facts of the set, for sets that were built in Python rather than read."""

    def problem(rule: str, what: str, todo: str) -> Problem:
        return Problem(rule, what, todo, signature.name, "", origin.file, origin.line)

    vocabularies = (
        ("lineages", signature.lineages, LINEAGES),
        ("species", signature.species, ORGANISMS),
        ("role", (signature.role,), ROLES),
    )
    for rule, values, allowed in vocabularies:
        unknown = [value for value in values if value not in allowed]
        if not values:
            yield problem(rule, f"no {rule}", f"name where it is valid: {' '.join(allowed)}")
        if unknown:
            yield problem(
                rule,
                f"unknown {rule} {_listed(unknown)}{_did_you_mean(unknown[0], allowed)}",
                f"use {' '.join(allowed)}",
            )
    if signature.scored and not signature.voting():
        yield problem(
            "no vote",
            "no gene votes, so there is nothing to score",
            "let a gene vote or set scored to no",
        )
    if signature.role != "user":
        for fact in ("source", "licence", "description"):
            if not getattr(signature, fact):
                yield problem(fact, f"no {fact}", "say where the set comes from and who may use it")


def _check_gene(signature: Signature, gene: SignatureGene, report: _Reporter) -> None:
    if _DATE.fullmatch(gene.symbol):
        report(
            "date",
            "this is a date a spreadsheet made of a gene name",
            "write the gene (MARCHF1, SEPTIN2, DELEC1, ...)",
        )
    if gene.direction not in (-1, 0, 1):
        report("direction", f"direction {gene.direction!r}", "use 1, -1 or 0")
    if gene.measurable not in MEASURABLE:
        report("measurable", f"measurable {gene.measurable!r}", "use yes, proxy or no")
    if not gene.votes:
        return
    if gene.direction == 0:
        report("direction", "votes without a direction", "give + or -, or set votes to no")
    if not (math.isfinite(gene.weight) and gene.weight > 0):
        report(
            "weight", f"votes with weight {gene.weight!r}", "give a positive weight or votes = no"
        )
    if gene.measurable == "no":
        report(
            "unmeasurable vote",
            "votes although gene-level RNA cannot measure it",
            "set votes to no and keep the reason in the note",
        )


def _check_support(
    signature: Signature,
    gene: SignatureGene,
    evidence: Mapping[str, Mapping[str, str]],
    report: _Reporter,
) -> None:
    """A vote needs a named source, and no source of it may say the opposite."""
    supported = bool(gene.literature)
    for identifier in gene.evidence:
        row = evidence.get(identifier)
        if row is None:
            report("evidence", f"no evidence {identifier!r}", "use an evidence_id of evidence.tsv")
            continue
        if row["gene"] != gene.symbol:
            report(
                "evidence",
                f"evidence {identifier} is about {row['gene'] or row['marker']}",
                "cite the row of this gene",
            )
            continue
        sign = _EVIDENCE_SIGN.get(row["direction"])
        if gene.votes and sign is not None and sign != gene.direction:
            report(
                "sign",
                f"direction {_sign(gene)} but {identifier} ({row['location']}, {row['cell_type']}) "
                f"says {row['direction']}",
                "turn the sign, or withhold the vote and say why",
            )
        lineages = _CELL_LINEAGES.get(row["cell_type"], ())
        if gene.votes and not set(lineages) & set(signature.lineages):
            report(
                "lineage of evidence",
                f"{identifier} is about {row['cell_type']} cells; the set is valid in "
                f"{' '.join(signature.lineages)}",
                "drop it, or cite evidence from the same lineage",
            )
            continue
        supported = supported or (sign is not None and sign == gene.direction)
    if gene.votes and not supported:
        report(
            "unsupported vote",
            "votes without evidence of that sign and without named literature",
            "cite an evidence_id or name the paper in the column literature",
        )


def _check_names(
    signature: Signature, origin: _Origin, names: Mapping[str, _Names | None]
) -> Iterator[Problem]:
    """Unknown names, ids that belong to another gene, and one gene under two names."""
    own = signature.role == "user"
    for organism in ORGANISMS:
        table = names[organism]
        if table is None or organism not in signature.species:
            continue
        seen: dict[str, str] = {}
        for position, gene in enumerate(signature.genes):
            problems: list[Problem] = []
            report = _Reporter(problems, signature.name, gene.symbol, origin, position)
            human = organism == "human"
            symbol, ensembl = (
                (gene.symbol, gene.ensembl) if human else (gene.mouse_symbol, gene.mouse_ensembl)
            )
            if not symbol or gene.measurable == "no" or _DATE.fullmatch(symbol):
                continue
            current = table.resolve(symbol) or table.symbol_of_id.get(symbol.split(".")[0], "")
            if (
                not current
                and own
                and any(t is not None and t.resolve(symbol) for t in names.values())
            ):
                continue  # a user's list is written in one organism's names
            if not current:
                near = _did_you_mean(symbol, table.current)
                report(
                    "unknown gene",
                    f"no {organism} gene {symbol!r}{near}",
                    "use its current symbol, or set measurable and votes to no",
                )
            elif current != symbol and not own:
                report("old name", f"{symbol!r} is now {current}", "use the current symbol")
            expected = table.symbol_of_id.get(ensembl)
            if ensembl and table.symbol_of_id and expected != symbol:
                report(
                    "ensembl",
                    f"{ensembl} is {expected or 'not a known id'}, not {symbol}",
                    "correct the id or the symbol",
                )
            if current and current in seen and seen[current] != gene.symbol:
                report(
                    "gene twice",
                    f"the same {organism} gene as {seen[current]} ({current}), so it counts twice",
                    "keep one of them",
                )
            seen.setdefault(current, gene.symbol)
            yield from problems


def _check_rivals(signatures: SignatureSet) -> Iterator[Problem]:
    """Exhaustion and senescence may not be decided by a gene that both claim."""
    exhaustion = signatures.get(EXHAUSTION_AXIS)
    senescence = [s for s in signatures.values() if s.role == "arm" or s.name == SENESCENCE_AXIS]
    deciding = senescence + ([exhaustion] if exhaustion else [])
    rivals = {gene.symbol for gene in exhaustion.voting()} if exhaustion else set()
    for signature in deciding:
        origin = signatures._origins.get(signature.name, _Origin())
        for position, gene in enumerate(signature.genes):
            problems: list[Problem] = []
            report = _Reporter(problems, signature.name, gene.symbol, origin, position)
            if gene.votes and gene.symbol in SHARED_GENES:
                report(
                    "shared gene votes",
                    "named for exhaustion and for senescence, so it cannot decide between them",
                    "set votes to no",
                )
            if gene.votes and gene.symbol in rivals and signature is not exhaustion:
                report(
                    "rival sets overlap",
                    f"also votes in {EXHAUSTION_AXIS}",
                    "let it vote on one side only",
                )
            yield from problems
