"""Signatures as values: a gene, a signature, a set of signatures, a mistake in one of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from senoscore.errors import SignatureError
from senoscore.keys import LINEAGES

if TYPE_CHECKING:
    from pandas import DataFrame

ORGANISMS: Final = ("human", "mouse")
ROLES: Final = ("axis", "arm", "lineage", "programme", "confounder", "comparator", "user")
MEASURABLE: Final = ("yes", "proxy", "no")


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

    def as_mouse(self) -> SignatureGene:
        """The gene under its mouse name; without one it keeps its name and loses its vote."""
        if self.mouse_symbol:
            return replace(self, symbol=self.mouse_symbol, ensembl=self.mouse_ensembl)
        note = "; ".join(part for part in ("no mouse gene", self.note) if part)
        return replace(self, ensembl="", votes=False, note=note)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signed list of genes with the lineages and species it is valid in.

    ``warning`` is shown beside every score of the signature. ``scored`` is False for sets that are
    shipped for comparison, or as a list of withheld genes, and are scored only when named.
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
        if not self.voting():
            return f"signature {self.name!r} has no voting gene"
        return ""

    def for_organism(self, organism: str) -> Signature:
        """The signature with the symbols and ids of one organism.

        For mouse, ``symbol`` and ``ensembl`` become the mouse ones. A gene without a mouse gene
        keeps its human symbol, loses its id and its vote, and says so in ``note``.

        Raises
        ------
        SignatureError
            The signature is not for that organism.
        """
        _require_organism(organism)
        if organism not in self.species:
            raise SignatureError(self.refusal(organism=organism))
        if organism == "human":
            return self
        return replace(self, genes=tuple(gene.as_mouse() for gene in self.genes))


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
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        about = [f"signature {self.signature!r}"] if self.signature else []
        about += [f"gene {self.gene}"] if self.gene else []
        parts = (place, ", ".join(about), self.what)
        return f"{': '.join(part for part in parts if part)}; {self.todo}"


@dataclass(frozen=True, slots=True)
class Log:
    """Collects problems; ``at`` narrows the place that the next ones are reported for."""

    problems: list[Problem]
    file: str = ""
    line: int | None = None
    signature: str = ""
    gene: str = ""

    def at(
        self,
        *,
        file: str | None = None,
        line: int | None = None,
        signature: str | None = None,
        gene: str | None = None,
    ) -> Log:
        return Log(
            self.problems,
            self.file if file is None else file,
            self.line if line is None else line,
            self.signature if signature is None else signature,
            self.gene if gene is None else gene,
        )

    def __call__(self, rule: str, what: str, todo: str) -> None:
        place = (self.signature, self.gene, self.file, self.line)
        self.problems.append(Problem(rule, what, todo, *place))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a signature was read: its file, the line of its facts, and the line of each gene."""

    file: str = ""
    line: int | None = None
    gene_lines: tuple[int, ...] = ()

    def log(self, problems: list[Problem], signature: Signature) -> Log:
        return Log(problems, self.file, self.line, signature.name)

    def gene_log(self, problems: list[Problem], signature: Signature, position: int) -> Log:
        line = self.gene_lines[position] if position < len(self.gene_lines) else self.line
        return Log(problems, self.file, line, signature.name, signature.genes[position].symbol)


class SignatureSet(Mapping[str, Signature]):
    """Signatures by name, in order; never changed after it is made.

    Examples
    --------
    >>> from senoscore.signatures import read_signatures
    >>> mine = read_signatures({"cycling": ["MKI67", "TOP2A", "BTG1-"]})
    >>> [(gene.symbol, gene.direction) for gene in mine["cycling"].voting()]
    [('MKI67', 1), ('TOP2A', 1), ('BTG1', -1)]
    """

    def __init__(
        self,
        signatures: Iterable[Signature] = (),
        *,
        origins: Mapping[str, Origin] | None = None,
    ) -> None:
        self._signatures: dict[str, Signature] = {}
        for signature in signatures:
            if signature.name in self._signatures:
                raise SignatureError(f"signature {signature.name!r} is given twice; rename one")
            self._signatures[signature.name] = signature
        self._origins: dict[str, Origin] = dict(origins or {})

    def __getitem__(self, name: str) -> Signature:
        if name not in self._signatures:
            raise KeyError(f"no signature {name!r}{did_you_mean(name, self._signatures)}")
        return self._signatures[name]

    def __contains__(self, name: object) -> bool:
        return name in self._signatures

    def __iter__(self) -> Iterator[str]:
        return iter(self._signatures)

    def __len__(self) -> int:
        return len(self._signatures)

    def __repr__(self) -> str:
        names = ", ".join([*list(self)[:4], *(["…"] if len(self) > 4 else [])])
        return f"SignatureSet({len(self)}: {names})"

    def __hash__(self) -> int:
        return hash(tuple(self._signatures.values()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SignatureSet):
            return NotImplemented
        return self._signatures == other._signatures

    def __or__(self, other: SignatureSet) -> SignatureSet:
        """Both sets together; two signatures of one name are an error, not a replacement."""
        taken = [name for name in self if name in other and self[name] != other[name]]
        if taken:
            raise SignatureError(
                f"the name {listed(taken)} is already taken by another signature; rename yours"
            )
        both = dict(self._signatures) | dict(other)
        return SignatureSet(both.values(), origins=other._origins | self._origins)

    def origin(self, name: str) -> Origin:
        """Where a signature was read; empty for one that was made in Python."""
        return self._origins.get(name, Origin())

    def select(self, names: str | Iterable[str]) -> SignatureSet:
        """The named signatures, in the order asked for.

        Raises
        ------
        SignatureError
            A name is not here; the message lists every such name with its nearest neighbours.
        """
        wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
        unknown = [name for name in wanted if name not in self]
        if unknown:
            named = "; ".join(f"{name!r}{did_you_mean(name, self)}" for name in unknown)
            raise SignatureError(
                f"no signature {named}; `senoscore signatures list` shows all {len(self)}"
            )
        return self._kept(wanted)

    def default(self) -> SignatureSet:
        """The signatures scored when none is named: all but the published comparators."""
        return self._kept([name for name, signature in self.items() if signature.scored])

    def with_role(self, *roles: str) -> SignatureSet:
        """The signatures of one or more roles."""
        unknown = [role for role in roles if role not in ROLES]
        if unknown:
            raise SignatureError(f"no role {listed(unknown)}; roles are {', '.join(ROLES)}")
        return self._kept([name for name, signature in self.items() if signature.role in roles])

    def in_lineage(self, lineage: str) -> SignatureSet:
        """The signatures valid in a lineage."""
        if lineage not in LINEAGES:
            raise SignatureError(f"no lineage {lineage!r}; lineages are {', '.join(LINEAGES)}")
        return self._kept([name for name, sig in self.items() if lineage in sig.lineages])

    def for_organism(self, organism: str) -> SignatureSet:
        """The signatures valid in an organism, with its symbols and ids."""
        _require_organism(organism)
        valid = [s.for_organism(organism) for s in self.values() if organism in s.species]
        return SignatureSet(valid, origins=self._origins)

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
        return SignatureSet([self._signatures[n] for n in names], origins=self._origins)


def _require_organism(organism: str) -> None:
    if organism not in ORGANISMS:
        raise SignatureError(f"no organism {organism!r}; signatures know {' and '.join(ORGANISMS)}")


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first few names in quotes, and how many more there are."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known names as a question in brackets; empty where none is near."""
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(lower[n] for n in near)}?)" if near else ""
