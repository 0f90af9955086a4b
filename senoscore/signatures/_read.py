"""Reading signatures from the registry, a folder, a TSV, a GMT or a dictionary."""

from __future__ import annotations

import csv
import difflib
import functools
import gzip
import io
import math
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from senoscore.errors import SenoscoreWarning, SignatureError
from senoscore.keys import LINEAGES
from senoscore.signatures._model import (
    MEASURABLE,
    ORGANISMS,
    ROLES,
    Log,
    Origin,
    Problem,
    Signature,
    SignatureGene,
    SignatureSet,
    did_you_mean,
    listed,
)

if TYPE_CHECKING:
    from pandas import DataFrame

Source: TypeAlias = str | Path | Mapping[str, object]
Row: TypeAlias = Mapping[str, str]
Parsed: TypeAlias = tuple[Signature, Origin]

_DIRECTIONS: Final = {
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
}
_YES_NO: Final = {"yes": True, "true": True, "no": False, "false": False}
_NO_GENE: Final = frozenset({"", "none", "na", "nan", "-"})
_ENSEMBL: Final = re.compile(r"(ENS(?:MUS)?G\d{11})(?:\.\d+)?")
_GENE_COLUMNS: Final = (
    "gene", "ensembl", "mouse_gene", "mouse_ensembl", "direction", "weight", "votes",
    "evidence_ids", "literature", "measurable", "note",
)  # fmt: skip
_SET_COLUMNS: Final = (
    "lineages", "species", "role", "title", "source", "licence", "warning", "description", "scored",
)  # fmt: skip
# tables of the registry that are not signatures
_NOT_SIGNATURES: Final = frozenset(
    {"index.tsv", "evidence.tsv", "targets.tsv", "dual_role.tsv", "references.tsv"}
)
# mistakes that leave no doubt about what was meant: mended, with a warning
_MENDED: Final = frozenset({"repeated gene"})
_MAX_SHOWN: Final = 20

#: Weights whose sums the kernels hold exactly (`kernels.passes`).
MIN_WEIGHT: Final = 1e-4
MAX_WEIGHT: Final = 1e3


def registry_folder() -> Path:
    """Where the shipped registry is: inside an installed wheel, else in the checkout."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "_signatures", package.parent / "signatures")
    for folder in folders:
        if (folder / "index.tsv").is_file():
            return folder
    raise SignatureError(
        f"the shipped signatures are missing: no index.tsv in {folders[0]} or {folders[1]}; "
        "reinstall senoscore"
    )


def read_signatures(source: Source | SignatureSet | None = None) -> SignatureSet:
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
    signatures = parse(source, problems)
    _raise_all([problem for problem in problems if problem.rule not in _MENDED])
    for problem in problems:
        warnings.warn(str(problem), SenoscoreWarning, stacklevel=2)
    return signatures


def read_evidence() -> DataFrame:
    """Every marker the reviews name: one row per statement and gene, with its place in the source.

    ``measurable`` says whether gene-level RNA can show the marker (yes, proxy, no) and ``reason``
    why not; ``gene`` is empty where a statement names no gene. ``direction`` is ``label`` where the
    gene names a population, not a level.
    """
    return _registry_frame("evidence.tsv")


def read_targets() -> DataFrame:
    """Senolytic and senomorphic strategies of Table 4 and the genes they act on."""
    return _registry_frame("targets.tsv")


def read_dual_role() -> DataFrame:
    """Features of senescent T cells that promote or inhibit tumours, after Table 2."""
    return _registry_frame("dual_role.tsv")


def registry_rows(name: str) -> list[dict[str, str]]:
    """The rows of one table of the registry."""
    return [row for _, row in read_table(registry_folder() / name)[1]]


def _registry_frame(name: str) -> DataFrame:
    import pandas as pd

    header, rows = read_table(registry_folder() / name)
    return pd.DataFrame([row for _, row in rows], columns=header, dtype=str)


@functools.lru_cache(maxsize=1)
def _shipped() -> SignatureSet:
    problems: list[Problem] = []
    signatures = parse(registry_folder(), problems)
    _raise_all(problems)
    return signatures


def _raise_all(problems: Sequence[Problem]) -> None:
    if not problems:
        return
    if len(problems) == 1:
        raise SignatureError(str(problems[0]))
    shown = "".join(f"\n  {problem}" for problem in problems[:_MAX_SHOWN])
    more = len(problems) - _MAX_SHOWN
    rest = f"\n  and {more} more" if more > 0 else ""
    raise SignatureError(f"{len(problems)} mistakes in the signatures:{shown}{rest}")


# ---------------------------------------------------------------------------------------------------
# sources


def parse(source: Source, problems: list[Problem]) -> SignatureSet:
    """Read as much as can be read; every mistake is added to ``problems``."""
    log = Log(problems)
    if isinstance(source, Mapping):
        parsed = _from_mapping(source, log)
    else:
        path = Path(source)
        log = log.at(file=str(path))
        if path.is_dir():
            parsed = _from_folder(path, log)
        elif path.is_file():
            parsed = _from_file(path, log)
        else:
            raise SignatureError(f"no such file or folder of signatures: {path}")
    kept: dict[str, Parsed] = {}
    for signature, origin in parsed:
        if signature.name in kept:
            place = log.at(file=origin.file, line=origin.line, signature=signature.name)
            first = kept[signature.name][1].file or "the same input"
            place("repeated signature", f"also defined in {first}", "rename one of them")
        else:
            kept[signature.name] = (signature, origin)
    if not kept and not problems:
        log("empty", "no signature found", "give at least one")
    origins = {name: origin for name, (_, origin) in kept.items()}
    return SignatureSet([signature for signature, _ in kept.values()], origins=origins)


def _from_folder(folder: Path, log: Log) -> Iterator[Parsed]:
    indices = sorted(folder.glob("index.tsv")) + sorted(folder.glob("*/index.tsv"))
    for index in indices:
        yield from _from_index(index, log.at(file=str(index)))
    if not indices:
        for path in sorted(path for path in folder.iterdir() if _kind(path)):
            yield from _from_file(path, log.at(file=str(path)))


def _from_index(index: Path, log: Log) -> Iterator[Parsed]:
    header, rows = read_table(index)
    missing = [column for column in ("name", "role", "lineages", "species") if column not in header]
    if missing:
        what = f"no column {listed(missing)}; found {', '.join(header)}"
        log.at(line=1)("column", what, "add it")
        return
    unlisted = {p.stem for p in index.parent.glob("*.tsv") if p.name not in _NOT_SIGNATURES}
    for line, row in rows:
        name = row["name"]
        place = log.at(line=line, signature=name)
        path = index.parent / f"{name}.tsv"
        if not name or path.parent != index.parent or not path.is_file():
            what = f"the index names {name!r} but there is no file {name}.tsv beside it"
            place("index", what, "add the file or drop the row")
            continue
        unlisted.discard(name)
        facts = _facts(row, name, place)
        table = log.at(file=str(path), signature=name)
        gene_header, gene_rows = read_table(path)
        if _has_gene_column(gene_header, table):
            genes, lines = _genes(gene_rows, table)
            yield replace(facts, genes=genes), Origin(str(path), line, lines)
    for stem in sorted(unlisted):
        what = f"{stem}.tsv has no row in index.tsv"
        todo = "add a row with its lineages, species, source and licence"
        log.at(signature=stem)("index", what, todo)


def _kind(path: Path) -> str:
    if path.name in _NOT_SIGNATURES or path.name.startswith((".", "_")):
        return ""
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in ("tsv", "csv", "gmt") if name.endswith(f".{kind}")), "")


def _from_file(path: Path, log: Log) -> Iterator[Parsed]:
    kind = _kind(path)
    if kind == "gmt":
        return _from_gmt(path, log)
    if kind:
        return _from_table(path, log)
    raise SignatureError(
        f"{path}: not a kind of file signatures are read from; use .gmt, .tsv or .csv (also .gz)"
    )


def _from_table(path: Path, log: Log) -> Iterator[Parsed]:
    header, rows = read_table(path)
    if not _has_gene_column(header, log):
        return
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    members: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in rows:
        members.setdefault(row.get("signature") or stem, []).append((line, row))
    for name, group in members.items():
        first = group[0][0]
        place = log.at(signature=name)
        facts = {"lineages": "all", "species": "all", "role": "user"}
        for column in _SET_COLUMNS:
            values = list(dict.fromkeys(row[column] for _, row in group if row.get(column)))
            if len(values) > 1:
                what = f"{column} is given as {listed(values)}"
                place.at(line=first)("column", what, "give one value per signature")
            if values:
                facts[column] = values[0]
        genes, lines = _genes(group, place)
        signature = replace(_facts(facts, name, place.at(line=first)), genes=genes)
        yield signature, Origin(str(path), first, lines)


def _from_gmt(path: Path, log: Log) -> Iterator[Parsed]:
    for line, text in enumerate(read_text(path).replace("\r", "\n").split("\n"), start=1):
        if not text.strip() or text.startswith("#"):
            continue
        # the second field describes the set: its words are not genes
        name, description, *words = [field.strip() for field in [*text.split("\t"), ""]]
        place = log.at(line=line, signature=name[:60])
        rows = [(line, _signed(word)) for word in words if word]
        if not rows:
            todo = "a GMT line is name, description, genes, with tabs between them"
            place("empty", "no gene on this line", todo)
            continue
        _require_name(name, place)
        genes, lines = _genes(rows, place)
        yield Signature(name, genes, description=description), Origin(str(path), line, lines)


def _from_mapping(source: Mapping[str, object], log: Log) -> Iterator[Parsed]:
    for name, members in source.items():
        place = log.at(signature=str(name))
        _require_name(str(name), place)
        rows: list[tuple[int, Row]]
        if isinstance(members, Signature):
            yield replace(members, name=name), Origin()
            continue
        if isinstance(members, Mapping):
            rows = [(0, {"gene": str(g), "weight": str(w)}) for g, w in members.items()]
        elif isinstance(members, Iterable) and not isinstance(members, str | bytes):
            rows = [(0, _signed(str(word))) for word in members if str(word).strip()]
        else:
            todo = 'write {"name": ["GENE", "GENE-", ...]}'
            place("dictionary", f"the value is {members!r}, not a list of genes", todo)
            continue
        yield Signature(str(name), _genes(rows, place)[0]), Origin()


def _signed(word: str) -> Row:
    """A gene with a trailing sign, as in UCell: ``"CD28-"`` goes down, ``"TOX+"`` goes up.

    No current human or mouse symbol ends in a sign, and a dash inside (``HLA-DRA``) stays.
    """
    word = word.strip()
    if len(word) > 1 and word[-1] in "+-":
        return {"gene": word[:-1], "direction": word[-1]}
    return {"gene": word}


# ---------------------------------------------------------------------------------------------------
# text and tables


def read_text(path: Path) -> str:
    """The text of a file, unpacked if its name ends in ``.gz``."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SignatureError(f"{path}: cannot be read as a text file: {error}") from error
    if "\0" in text:
        raise SignatureError(f"{path}: holds zero bytes, so it is not a text file of signatures")
    return text


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows with their line numbers; comment lines and blank lines are skipped."""
    delimiter = "," if path.name.lower().removesuffix(".gz").endswith(".csv") else "\t"
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    header: list[str] = []
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
                continue
            cells = [cell.strip() for cell in cells]
            if not header:
                header = cells
                continue
            cells += [""] * (len(header) - len(cells))
            rows.append((reader.line_num, dict(zip(header, cells, strict=False))))
    except csv.Error as error:
        raise SignatureError(f"{path}:{reader.line_num}: not a readable table: {error}") from error
    return header, rows


def _has_gene_column(header: Sequence[str], log: Log) -> bool:
    log = log.at(line=1)
    if "gene" not in header:
        found = ", ".join(header[:8]) or "nothing"
        todo = "name the column of gene symbols 'gene', with tabs between columns"
        log("column", f"no column 'gene'; the header line has {found}", todo)
        return False
    known = [*_GENE_COLUMNS, *_SET_COLUMNS, "signature", "name"]
    for column in header:
        near = difflib.get_close_matches(column.lower(), known, n=1, cutoff=0.8)
        if column not in known and near:
            log("column", f"unknown column {column!r}", f"did you mean {near[0]!r}? rename it")
    return True


# ---------------------------------------------------------------------------------------------------
# signatures and genes


def _require_name(name: str, log: Log) -> None:
    if not name or "/" in name or len(name) > 120 or not name.isprintable():
        what = f"{name[:60]!r} cannot name a signature"
        log("name", what, "use up to 120 printable characters without '/'")


def _facts(row: Row, name: str, log: Log) -> Signature:
    """The facts of a signature, without its genes."""
    _require_name(name, log)
    role = row.get("role", "")
    if role not in ROLES:
        what = f"unknown role {role!r}{did_you_mean(role, ROLES)}"
        log("role", what, f"use one of {' '.join(ROLES)}")
    scored = row.get("scored", "").lower()
    if scored and scored not in _YES_NO:
        log("scored", f"scored {scored!r}", "use yes or no")
    return Signature(
        name=name,
        genes=(),
        lineages=_words(row, "lineages", LINEAGES, log),
        species=_words(row, "species", ORGANISMS, log),
        role=role,
        source=row.get("source", ""),
        licence=row.get("licence", ""),
        warning=row.get("warning", ""),
        description=row.get("description", ""),
        title=row.get("title", ""),
        scored=_YES_NO.get(scored, True),
    )


def _words(row: Row, column: str, allowed: Sequence[str], log: Log) -> tuple[str, ...]:
    """The words of a cell, each of a fixed vocabulary; ``all`` is the whole of it."""
    words = dict.fromkeys(word for word in re.split(r"[\s,;|]+", row.get(column, "")) if word)
    if "all" in words:
        return tuple(allowed)
    unknown = [word for word in words if word not in allowed]
    if unknown:
        what = f"unknown {column} {listed(unknown)}{did_you_mean(unknown[0], allowed)}"
        log(column, what, f"use {' '.join(allowed)}")
    if not words:
        log(column, f"no {column}", f"name where it is valid: {' '.join(allowed)}")
    return tuple(word for word in words if word in allowed)


def _genes(
    rows: Iterable[tuple[int, Row]], log: Log
) -> tuple[tuple[SignatureGene, ...], tuple[int, ...]]:
    """The genes of one signature, and the line of each."""
    genes: dict[str, SignatureGene] = {}
    lines: list[int] = []
    for line, row in rows:
        symbol = row.get("gene", "").strip()
        place = log.at(line=line or None, gene=symbol)
        if not symbol:
            place("gene", "a row without a gene", "fill the column 'gene' or drop the row")
            continue
        gene = _gene(symbol, row, place)
        known = genes.get(symbol)
        if known is None:
            genes[symbol] = gene
            lines.append(line)
        elif (known.direction, known.weight) == (gene.direction, gene.weight):
            place("repeated gene", "listed twice and counted once", "list each gene once")
        else:
            what = f"listed as {signed_weight(known)} and again as {signed_weight(gene)}"
            place("repeated gene with another sign", what, "decide on one direction and weight")
    if not genes:
        log("empty", "no genes", "list at least one gene")
    return tuple(genes.values()), tuple(lines)


def signed_weight(gene: SignatureGene) -> str:
    """The direction and the weight of a gene, as in ``-0.5``."""
    return f"{'+' if gene.direction > 0 else '-' if gene.direction < 0 else ''}{gene.weight:g}"


def _gene(symbol: str, row: Row, log: Log) -> SignatureGene:
    word = row.get("direction", "").lower()
    if word and word not in _DIRECTIONS:
        log("direction", f"direction {word!r}", "use + (up), - (down) or 0")
    direction = _DIRECTIONS.get(word, 1)
    weight = _weight(row.get("weight", ""), log)
    if weight < 0 and word:
        what = f"a weight below zero ({row['weight']}) beside a direction ({word})"
        log("weight", what, "put the sign in the direction and keep the weight positive")
    elif weight < 0:  # a signed weight is a direction
        direction, weight = -1, -weight
    word = row.get("votes", "").lower()
    if word and word not in _YES_NO:
        log("votes", f"votes {word!r}", "use yes or no")
    votes = _YES_NO.get(word, direction != 0 and weight > 0)
    measurable = row.get("measurable") or "yes"
    if measurable not in MEASURABLE:
        log("measurable", f"measurable {measurable!r}", "use yes, proxy or no")
    ensembl, mouse_ensembl = _name(row, "ensembl"), _name(row, "mouse_ensembl")
    found = _ENSEMBL.fullmatch(symbol)
    if found:  # a list of ids
        human = symbol.startswith("ENSG")
        ensembl, mouse_ensembl = (found[1], "") if human else ("", found[1])
    return SignatureGene(
        symbol=symbol,
        ensembl=ensembl,
        # a user's own list is read as written in both organisms; the registry states the mouse gene
        mouse_symbol=_name(row, "mouse_gene") if "mouse_gene" in row else symbol,
        mouse_ensembl=mouse_ensembl,
        direction=direction,
        weight=weight,
        votes=votes,
        evidence=tuple(word for word in re.split(r"[;,\s]+", row.get("evidence_ids", "")) if word),
        measurable=measurable,
        note=row.get("note", ""),
        literature=row.get("literature", ""),
    )


def _name(row: Row, column: str) -> str:
    name = row.get(column, "")
    return "" if name.lower() in _NO_GENE else name


def _weight(text: str, log: Log) -> float:
    if not text:
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        log("weight", f"weight {text!r} is not a finite number", "write a positive number")
        return 0.0
    if weight and not MIN_WEIGHT <= abs(weight) <= MAX_WEIGHT:
        # scores are added up in fixed point (`kernels.passes`)
        what = f"weight {text} is outside {MIN_WEIGHT:g} to {MAX_WEIGHT:,g}"
        log("weight", what, "only ratios matter: multiply all weights by one factor")
        return 0.0
    return weight
