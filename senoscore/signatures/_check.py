"""The validator: every mistake of a registry or of a user's file, all at once."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
from senoscore.signatures._read import (
    Row,
    Source,
    parse,
    read_table,
    registry_folder,
    registry_rows,
    signed_weight,
)

# named for exhaustion and for senescence alike: they may never decide between the two
SHARED_GENES: Final = (
    "HAVCR2", "TIGIT", "CTLA4", "FOXP3", "LCK", "ZAP70",
    "PRF1", "GZMA", "GZMB", "GZMH", "GZMK", "GZMM",
)  # fmt: skip
SENESCENCE_AXIS: Final = "t_discriminating_senescence_only"
EXHAUSTION_AXIS: Final = "t_discriminating_exhaustion_only"
# the axis of the verdict first, so that a message names the plain set where both hold a gene
EXHAUSTION_SETS: Final = ("t_axis_exhaustion", EXHAUSTION_AXIS)

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
_EVIDENCE_SIGN: Final = {"up": 1, "down": -1, "no change": 0}
_DATE: Final = re.compile(
    r"\d{1,2}-(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)-\d{1,4}"
    r"|\d{4}-\d{2}-\d{2}.*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Names:
    """The gene names of one organism."""

    symbol_of_id: Mapping[str, str]
    current: Mapping[str, str]  # every name that means one gene -> its current symbol

    def resolve(self, name: str) -> str:
        """The current symbol of a symbol, an older name or an Ensembl id; empty if unknown."""
        return self.current.get(name) or self.symbol_of_id.get(name.split(".")[0], "")

    def near(self, name: str) -> str:
        """Names close to an unknown one, as a question."""
        for other in (name.upper(), name.capitalize()):
            if other in self.current:
                return f" (did you mean {self.current[other]}?)"
        start = name[:3].lower()
        alike = [n for n in self.current if n[:3].lower() == start and abs(len(n) - len(name)) < 2]
        return did_you_mean(name, alike)


@functools.lru_cache(maxsize=2)
def _packaged_names(organism: str) -> _Names | None:
    table = Path(__file__).resolve().parents[1] / "data" / f"genes_{organism}.tsv.gz"
    if not table.is_file():
        return None
    symbol_of_id: dict[str, str] = {}
    current: dict[str, str] = {}
    rows = [row for _, row in read_table(table)[1]]
    for row in rows:
        for identifier in (row["ensembl"], *row["retired"].split("|")):
            symbol_of_id.setdefault(identifier, row["symbol"])
        for name in (*row["previous"].split("|"), *row["aliases"].split("|")):
            current[name] = row["symbol"]
    current |= {row["symbol"]: row["symbol"] for row in rows}
    for names in (symbol_of_id, current):
        names.pop("", None)
    return _Names(symbol_of_id, current)


def check_signatures(
    source: Source | SignatureSet | None = None,
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
    signatures = source if isinstance(source, SignatureSet) else parse(source, problems)
    evidence = {row["evidence_id"]: row for row in registry_rows("evidence.tsv")}
    tables = _tables(known)
    for name, signature in signatures.items():
        origin = signatures.origin(name)
        _check_set(signature, origin.log(problems, signature))
        for position, gene in enumerate(signature.genes):
            log = origin.gene_log(problems, signature, position)
            _check_gene(gene, log)
            if signature.role != "user":
                _check_support(signature, gene, evidence, log)
        _check_names(signature, origin, tables, problems)
    _check_rivals(signatures, problems)
    return problems


def _tables(known: Mapping[str, Iterable[str]] | None) -> dict[str, _Names]:
    if known is not None:
        return {o: _Names({}, {name: name for name in names}) for o, names in known.items()}
    packaged = {organism: _packaged_names(organism) for organism in ORGANISMS}
    return {organism: names for organism, names in packaged.items() if names is not None}


def _check_set(signature: Signature, log: Log) -> None:
    vocabularies = (
        ("lineages", signature.lineages, LINEAGES),
        ("species", signature.species, ORGANISMS),
        ("role", (signature.role,), ROLES),
    )
    reported = {p.rule for p in log.problems if p.signature == signature.name}  # while reading
    for rule, values, allowed in vocabularies:
        unknown = [value for value in values if value not in allowed]
        if rule in reported:
            continue
        if not values:
            log(rule, f"no {rule}", f"name where it is valid: {' '.join(allowed)}")
        if unknown:
            what = f"unknown {rule} {listed(unknown)}{did_you_mean(unknown[0], allowed)}"
            log(rule, what, f"use {' '.join(allowed)}")
    if signature.scored and not signature.voting() and not reported:
        todo = "let a gene vote, or set scored to no"
        log("no vote", "no gene votes, so there is nothing to score", todo)
    if signature.role != "user":
        for fact in ("source", "licence", "description"):
            if not getattr(signature, fact):
                log(fact, f"no {fact}", "say where the set comes from and who may use it")


def _check_gene(gene: SignatureGene, log: Log) -> None:
    if _DATE.fullmatch(gene.symbol):
        todo = "write the gene (MARCHF1, SEPTIN2, ...)"
        log("date", "this is a date that a spreadsheet made of a gene name", todo)
    if gene.direction not in (-1, 0, 1):
        log("direction", f"direction {gene.direction!r}", "use 1, -1 or 0")
    if gene.measurable not in MEASURABLE:
        log("measurable", f"measurable {gene.measurable!r}", "use yes, proxy or no")
    if not gene.votes:
        return
    if gene.direction == 0:
        log("direction", "votes without a direction", "give + or -, or set votes to no")
    if not (math.isfinite(gene.weight) and gene.weight > 0):
        what = f"votes with weight {gene.weight:g}"
        log("weight", what, "give a positive weight, or set votes to no")
    if gene.measurable == "no":
        what = "votes although gene-level RNA cannot measure it"
        log("unmeasurable vote", what, "set votes to no and keep the reason in the note")


def _check_support(
    signature: Signature, gene: SignatureGene, evidence: Mapping[str, Row], log: Log
) -> None:
    """A vote needs a named source, and no source of it may say the opposite."""
    supported = bool(gene.literature)
    for identifier in gene.evidence:
        row = evidence.get(identifier)
        if row is None:
            log("evidence", f"no evidence {identifier!r}", "use an evidence_id of evidence.tsv")
            continue
        if row["gene"] != gene.symbol:
            what = f"evidence {identifier} is about {row['gene'] or row['marker']}"
            log("evidence", what, "cite a row of this gene")
            continue
        if not gene.votes:
            continue
        sign = _EVIDENCE_SIGN.get(row["direction"])
        if sign is not None and sign != gene.direction:
            place = f"{identifier} ({row['location']}, {row['cell_type']})"
            what = f"direction {signed_weight(gene)}, but {place} says {row['direction']}"
            log("sign", what, "turn the sign, or withhold the vote and say why")
        if not set(_CELL_LINEAGES.get(row["cell_type"], ())) & set(signature.lineages):
            where = " ".join(signature.lineages)
            what = f"{identifier} is about {row['cell_type']} cells, the set is valid in {where}"
            log("lineage of evidence", what, "cite evidence from the same lineage")
        elif sign == gene.direction:
            supported = True
    if gene.votes and not supported:
        what = "votes without evidence of that sign and without named literature"
        todo = "cite an evidence_id, or name the paper in the column literature"
        log("unsupported vote", what, todo)


def _check_names(
    signature: Signature, origin: Origin, tables: Mapping[str, _Names], problems: list[Problem]
) -> None:
    """Unknown names, older names, ids of another gene, and one gene under two names."""
    valid = {organism: t for organism, t in tables.items() if organism in signature.species}
    own = signature.role == "user"
    seen: set[tuple[str, str]] = set()
    for position, gene in enumerate(signature.genes):
        log = origin.gene_log(problems, signature, position)
        found = {
            organism: table.resolve(gene.symbol if organism == "human" else gene.mouse_symbol)
            for organism, table in valid.items()
        }
        twice = [organism for organism, name in found.items() if name and (organism, name) in seen]
        if twice:
            what = f"already in the set under another name ({found[twice[0]]}), so it counts twice"
            log("gene twice", what, "keep one of them")
        seen.update((organism, name) for organism, name in found.items() if name)
        if gene.measurable == "no" or _DATE.fullmatch(gene.symbol) or not valid:
            continue
        if own:  # written in the names of one organism, and that may be either
            if not any(found.values()):
                near = next(iter(valid.values())).near(gene.symbol)
                what = f"no {' or '.join(valid)} gene {gene.symbol!r}{near}"
                log("unknown gene", what, "use its current symbol")
            continue
        for organism, table in valid.items():
            human = organism == "human"
            symbol = gene.symbol if human else gene.mouse_symbol
            if symbol:
                ensembl = gene.ensembl if human else gene.mouse_ensembl
                _check_name(symbol, ensembl, found[organism], organism, table, log)


def _check_name(
    symbol: str, ensembl: str, found: str, organism: str, table: _Names, log: Log
) -> None:
    if not found:
        what = f"no {organism} gene {symbol!r}{table.near(symbol)}"
        log("unknown gene", what, "use its current symbol, or set measurable and votes to no")
    elif found != symbol:
        log("old name", f"{symbol!r} is now {found}", "use the current symbol")
    named = table.symbol_of_id.get(ensembl)
    if ensembl and table.symbol_of_id and named != symbol:
        what = f"{ensembl} is {named or 'not a known id'}, not {symbol}"
        log("ensembl", what, "correct the id or the symbol")


def _check_rivals(signatures: SignatureSet, problems: list[Problem]) -> None:
    """Exhaustion and senescence may not be decided by a gene that both claim."""
    rivals = {
        gene.symbol: name
        for name in EXHAUSTION_SETS
        if name in signatures
        for gene in signatures[name].voting()
    }
    for name, signature in signatures.items():
        senescence = signature.role == "arm" or name == SENESCENCE_AXIS
        if not senescence and name not in EXHAUSTION_SETS:
            continue
        for position, gene in enumerate(signature.genes):
            log = signatures.origin(name).gene_log(problems, signature, position)
            if gene.votes and gene.symbol in SHARED_GENES:
                what = "named for exhaustion and for senescence, so it cannot decide between them"
                log("shared gene votes", what, "set votes to no")
            if gene.votes and senescence and gene.symbol in rivals:
                what = f"also votes in {rivals[gene.symbol]}"
                log("rival sets overlap", what, "let it vote on one side only")
