"""What the simulated cells are: genes and their abundance, kinds of cell, planted programmes.

The tables ``data/simulation_{levels,profiles,populations}.tsv`` hold what was set by hand; every
other gene gets a log-normal abundance. See :mod:`senoscore.simulate` for why it is a fair test.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from senoscore.errors import SenoscoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# the biology (which gene is abundant, where) is one; the seed draws donors, effects and cells
BIOLOGY: Final = 20240229

# a registry signature that a programme stands for: its further genes respond too, some of them
_REGISTRY: Final[dict[str, tuple[str, ...]]] = {
    "exhaustion_core": ("t_exhaustion",),
    "exhaustion_terminal": ("t_exhaustion_terminal",),
    "exhaustion_progenitor": ("t_exhaustion_progenitor",),
    "temra": ("conf_temra_effector",),
    "arrest": ("core_senescence", "p53_tis"),
    "tcr_loss": ("tcr_signalling_loss",),
    "sasp_t": ("sasp_t", "sasp_core"),
    "nk_like": ("nk_like_gain",),
    "s_phase": ("conf_proliferation_s",),
    "g2m_phase": ("conf_proliferation_g2m",),
    "interferon": ("conf_interferon",),
    "activation": ("conf_recent_activation",),
    "dissociation": ("conf_dissociation",),
    "nk_adaptive": ("conf_cmv_adaptive_nk",),
    "senescence_b": ("b_senescence", "sasp_b"),
    "senescence_nk": ("nk_senescence",),
    "senescence_macrophage": ("macrophage_senescence", "sasp_macrophage"),
    "senescence_neutrophil": ("neutrophil_senescence", "sasp_neutrophil"),
    "senescence_fibroblast": ("core_senescence", "p53_tis", "sasp_core"),
}

# programmes without noise in their genes, and a cell's own departures from its kind: (name, sd)
UNPLANTED: Final = ("mito_high", "dissociation")
NUISANCE: Final = (
    ("ribosomal", 0.25),
    ("mito_high", 0.45),
    *((f"module_{i}", 1.0) for i in range(1, 7)),
)

RIBOSOMAL: Final = re.compile(r"^RP[SL]\d+(?:A|X|L|Y1|Y2)?$|^RPLP[0-2]$|^RPSA$")
MITO: Final = re.compile(r"^MT-(?:CO[123]|ATP[68]|CYB|ND[1-6]|ND4L)$")
_SILENT: Final = re.compile(
    r"^(?:OR\d+[A-Z]\d*|TAS[12]R\d|KRTAP|KRT[3-9]\d|DEFB|PCDH[ABG]|VN1R|MAGE|SPANX|GAGE|PRAMEF|"
    r"USP17L|LCE\d|SPRR|CRYG|MYH[1-8]$|INS$|GCG$|IAPP$|PRM\d|AMY|CELA|REG\d|UGT2|CYP2[ACD]|CGB|"
    r"CSH|GH[12]$|OPN1|RBMY|TSPY|DAZ|BPY|VCY|HTN|STATH|SMR3|ZP\d|PATE|SEMG|ACTL|TEX\d|SPATA31)"
)
_ENTRY: Final = re.compile(r"^(\S+?)([=+*])([0-9.]+)(!?)$")
# the shipped gene table has no biotype; names say enough to put protein-coding genes first
_NOT_CODING: Final = re.compile(
    r"^(?:LINC\d|LNC|MIR\d|MIRLET|MIR\w+HG$|SNOR[AD]|SCARNA|RNU\d|RNVU|RN7S|RNA5|RNA[12]8S|RNY\d|"
    r"VTRNA|TR[A-Z]-|NMTR|MT-[TR]|MT(?:CO|ND|ATP|CYB)\w*P\d*$|FAM\d+[A-Z]?P$|"
    r"[A-Z]{1,2}\d{5,}\.\d+|LOC\d|ENSG\d|HSALNG|"
    r"(?:IG[HKL]|TR[ABDG])[VDJ]|Metazoa|Y_RNA|U\d+$|SNHG\d|(?:RP|CT[ABCD]|KB|XX\w+|GS|LL)\d*-)|"
    r"-(?:AS|IT|OT|DT|BT)\d*$|-AS\d+$|\d-\w+-AS"
)


class Profile(NamedTuple):
    """Where the levels of a kind of cell come from, before anything is planted."""

    name: str
    sets: tuple[str, ...]  # later ones win
    markers: tuple[str, ...]  # types of the table of lineage markers
    group: str
    ribosomal: float
    load: float  # of the genes without a level of their own
    x: float
    y: float


class Population(NamedTuple):
    """One kind of cell with what is planted in it, the truth about it, and where it is found."""

    name: str
    profile: str
    lineage: str
    subset: str
    t_state: str  # empty outside T cells
    t_substate: str
    programmes: tuple[tuple[str, float], ...]
    senescent: bool
    label: str
    term: str
    rna: float  # counts relative to a memory T cell
    blood: float
    lung: float


def _rows(name: str) -> Iterator[list[str]]:
    text = files("senoscore").joinpath(f"data/{name}.tsv").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return (line.split("\t") for line in lines[1:])


@lru_cache(maxsize=1)
def read_profiles() -> dict[str, Profile]:
    return {
        name: Profile(
            name,
            tuple(sets.split(",")),
            tuple(markers.split(",")),
            group,
            *(float(v) for v in numbers),
        )
        for name, sets, markers, group, *numbers in _rows("simulation_profiles")
    }


@lru_cache(maxsize=1)
def read_populations() -> tuple[Population, ...]:
    found = []
    for name, profile, lineage, subset, state, substate, strengths, *rest in _rows(
        "simulation_populations"
    ):
        senescent, label, term, rna, blood, lung = rest
        programmes = [entry.split(":") for entry in strengths.split(";") if entry]
        found.append(
            Population(
                name,
                profile,
                lineage,
                subset,
                state,
                substate,
                tuple((programme, float(strength)) for programme, strength in programmes),
                senescent == "yes",
                label,
                term,
                float(rna),
                float(blood),
                float(lung),
            )
        )
    return tuple(found)


class _Effect(NamedTuple):
    gene: str
    operation: str  # "=" level, "+" counts per ten thousand added, "*" factor
    value: float
    certain: bool  # always responds


@lru_cache(maxsize=1)
def _sets() -> dict[str, tuple[_Effect, ...]]:
    sets: dict[str, tuple[_Effect, ...]] = {}
    for name, entries in _rows("simulation_levels"):
        effects = []
        for entry in entries.split():
            match = _ENTRY.match(entry)
            if match is None:
                raise SenoscoreError(f"simulation_levels.tsv, set {name}: cannot read {entry!r}")
            gene, operation, value, mark = match.groups()
            effects.append(_Effect(gene, operation, float(value), mark == "!"))
        sets[name] = tuple(effects)
    return sets


def _gene_table() -> pd.DataFrame:
    """Symbols with an Ensembl id, once each, sorted by id; ``coding`` is judged from the name."""
    path = files("senoscore").joinpath("data/genes_human.tsv.gz")
    with path.open("rb") as raw, gzip.open(raw, "rt", encoding="utf-8") as handle:
        table = pd.read_csv(handle, sep="\t", dtype=str, keep_default_na=False, comment="#")
    table = table[(table["symbol"] != "") & (table["ensembl"] != "") & (table["same_as"] == "")]
    table = table[table["symbol"] != table["ensembl"]]
    table = table.drop_duplicates("symbol").sort_values("ensembl", kind="stable")
    known = set(table["symbol"])
    coding = [
        _NOT_CODING.search(symbol) is None and not _is_pseudogene(symbol, known)
        for symbol in table["symbol"]
    ]
    return table[["symbol", "ensembl"]].assign(coding=coding).reset_index(drop=True)


def _is_pseudogene(symbol: str, known: set[str]) -> bool:
    """RPL3P4 is one, because RPL3 is a gene; IGFBP7 is none, because IGFB is not."""
    parent = re.sub(r"P\d*$", "", symbol)
    return parent != symbol and len(parent) > 2 and parent in known


class _Member(NamedTuple):
    gene: str
    direction: int  # 0: does not vote
    weight: float


def _registry() -> dict[str, tuple[str, tuple[_Member, ...]]]:
    """Signature -> its role and genes, without the published sets shipped for comparison."""
    from senoscore.signatures import read_signatures

    return {
        name: (
            signature.role,
            tuple(
                _Member(gene.symbol, gene.direction if gene.votes else 0, float(gene.weight))
                for gene in signature.genes
            ),
        )
        for name, signature in read_signatures().items()
        if signature.role != "comparator"
    }


@lru_cache(maxsize=1)
def _markers() -> dict[str, dict[str, float]]:
    """Lineage markers without a level of their own: gene -> type -> counts per ten thousand.

    Types that are not simulated are kept: their markers must be off in every cell.
    """
    by_hand = {e.gene for effects in _sets().values() for e in effects if e.operation == "="}
    found: dict[str, dict[str, float]] = {}
    for kind, _lineage, _subset, gene, _mouse, level, weight, *_ in _rows("lineage_markers"):
        if gene and gene not in by_hand and float(weight) >= 0.4:
            found.setdefault(gene, {})[kind] = float(level)
    return found


@dataclass(frozen=True)
class Universe:
    """Every gene that can be simulated, in a fixed order, with what it does on its own."""

    symbols: NDArray[Any]
    ensembl: NDArray[Any]
    coding: NDArray[np.bool_]
    required: NDArray[np.bool_]
    registry: NDArray[np.bool_]
    position: dict[str, int]
    generic: NDArray[np.float64]  # log counts per ten thousand


@lru_cache(maxsize=1)
def read_universe() -> Universe:
    table = _gene_table()
    symbols = table["symbol"].to_numpy(dtype=object)
    coding = table["coding"].to_numpy(dtype=bool)
    position = {str(symbol): i for i, symbol in enumerate(symbols)}
    n = len(symbols)
    rng = np.random.default_rng(BIOLOGY)
    generic = np.where(coding, -3.35 + 2.05 * rng.standard_normal(n), -5.6 + rng.standard_normal(n))
    generic = np.minimum(generic, 2.4)
    silent = np.array([bool(_SILENT.match(str(symbol))) for symbol in symbols])
    generic[silent] = -9.0 + rng.standard_normal(int(silent.sum()))
    named = {e.gene for effects in _sets().values() for e in effects} | _markers().keys()
    deciding: set[str] = set()
    registry: set[str] = set()
    for role, members in _registry().values():
        registry.update(member.gene for member in members)
        if role in ("axis", "arm", "lineage"):
            deciding.update(member.gene for member in members)
    required = np.array(
        [
            s in named or s in registry or bool(RIBOSOMAL.match(s)) or bool(MITO.match(s))
            for s in symbols
        ]
    )
    in_registry = np.array([s in registry for s in symbols])
    # signature genes without a hand-set level: rare to moderate for the sets that decide a call,
    # more abundant for the metabolic and stress programmes
    decides = np.array([s in deciding for s in symbols])
    generic[decides] = np.clip(generic[decides], np.log(0.01), np.log(0.6))
    other = in_registry & ~decides
    generic[other] = np.clip(generic[other] + 2.5, np.log(0.05), np.log(6.0))
    return Universe(
        symbols,
        table["ensembl"].to_numpy(dtype=object),
        coding,
        required,
        in_registry,
        position,
        generic,
    )


def build_levels(universe: Universe) -> NDArray[np.float32]:
    """Counts per ten thousand of every gene in every profile."""
    n = len(universe.symbols)
    rng = np.random.default_rng(BIOLOGY + 1)
    sets = _sets()
    ribosomal = np.array([bool(RIBOSOMAL.match(s)) for s in universe.symbols])
    # heavy tails: most genes differ little between kinds of cell, some differ by orders
    by_group = {g: 0.30 * rng.standard_t(3, n) for g in ("lymphoid", "myeloid", "stromal")}
    by_lineage: dict[str, NDArray[np.float64]] = {}
    ribo_level = np.exp(np.log(38.0) + 0.75 * rng.standard_normal(n))
    spread = np.exp(0.4 * rng.standard_normal(n))
    off = 0.012 * np.exp(0.8 * rng.standard_normal(n))
    levelled = {e.gene for effects in sets.values() for e in effects if e.operation == "="}
    markers = {g: kinds for g, kinds in _markers().items() if g in universe.position}
    levelled_at = np.array([universe.position[g] for g in sorted(levelled | markers.keys())])
    base = np.empty((len(read_profiles()), n), np.float32)
    for row, profile in enumerate(read_profiles().values()):
        lineage = next(p.lineage for p in read_populations() if p.profile == profile.name)
        if lineage not in by_lineage:
            by_lineage[lineage] = 0.18 * rng.standard_t(3, n)
        own = 0.10 * rng.standard_t(3, n)
        shift = np.clip(by_group[profile.group] + by_lineage[lineage] + own, -4.0, 2.5)
        shift[universe.registry] *= 0.5
        level = profile.load * np.exp(np.minimum(universe.generic + shift, 3.0))
        level[ribosomal] = profile.ribosomal * ribo_level[ribosomal]
        level[levelled_at] = off[levelled_at]
        for gene, kinds in markers.items():
            at = universe.position[gene]
            for kind, level_there in kinds.items():
                if kind in profile.markers:
                    level[at] = level_there * spread[at]
        for name in profile.sets:
            for effect in sets[name]:
                level[universe.position[effect.gene]] = effect.value
        base[row] = 1e4 * level / level.sum()
    return base


@dataclass(frozen=True)
class Programme:
    """What a state does to the genes: ``level * exp(a * log_factor) + a * added`` at activity a."""

    name: str
    genes: NDArray[np.int32]
    log_factor: NDArray[np.float32]
    added: NDArray[np.float32]  # counts per ten thousand
    role: NDArray[Any]  # planted, signature, bystander, nuisance; with or without response


class _Draft:
    """A programme while its genes are collected; the first to claim a gene keeps it."""

    def __init__(self) -> None:
        self.genes: dict[int, tuple[float, float, str]] = {}

    def put(self, gene: int, role: str, log_factor: float = 0.0, added: float = 0.0) -> None:
        self.genes.setdefault(gene, (log_factor, added, role))

    def finish(self, name: str) -> Programme:
        genes = sorted(self.genes)
        log_factor, added, role = zip(*(self.genes[g] for g in genes), strict=True)
        return Programme(
            name,
            np.array(genes, np.int32),
            np.array(log_factor, np.float32),
            np.array(added, np.float32),
            np.array(role, object),
        )


def build_programmes(
    universe: Universe, base: NDArray[np.float32], seed: int
) -> dict[str, Programme]:
    """What every programme does to every gene this time: levels, non-responders, bystanders."""
    names = [n for n, effects in _sets().items() if any(e.operation != "=" for e in effects)]
    registry = _registry()
    row = {name: i for i, name in enumerate(read_profiles())}
    built: dict[str, Programme] = {}
    for number, name in enumerate(names):
        draft = _Draft()
        rng = np.random.default_rng([seed, 1, number])
        _put_planted(draft, name, universe, rng)
        for signature in _REGISTRY.get(name, ()):
            _put_signature(draft, registry[signature][1], universe, rng)
        if name not in UNPLANTED:
            profile = next(p.profile for p in read_populations() if name in dict(p.programmes))
            _put_bystanders(draft, base[row[profile]], universe, rng)
        built[name] = draft.finish(name)
    for name in (n for n, _ in NUISANCE if n.startswith("module")):
        draft = _Draft()
        rng = np.random.default_rng([BIOLOGY, 1, int(name.removeprefix("module_"))])
        free = np.flatnonzero(~universe.required & (base.mean(0) > 0.02))
        for gene in rng.choice(free, size=250, replace=False).tolist():
            draft.put(gene, "nuisance", 0.32 * rng.standard_normal())
        built[name] = draft.finish(name)
    draft = _Draft()
    for gene, symbol in enumerate(universe.symbols):
        if RIBOSOMAL.match(symbol):
            draft.put(gene, "nuisance", 1.0)
    built["ribosomal"] = draft.finish("ribosomal")
    return built


def _put_planted(draft: _Draft, name: str, universe: Universe, rng: np.random.Generator) -> None:
    """The hand-set genes: each around its stated level, one in eight silent unless marked."""
    for effect in _sets()[name]:
        jitter, lot = rng.standard_normal(), rng.random()
        gene = universe.position[effect.gene]
        if name in UNPLANTED and effect.operation == "*":
            draft.put(gene, "planted", np.log(effect.value))
        elif lot < 0.12 and not effect.certain:
            draft.put(gene, "planted, does not respond")
        elif effect.operation == "+":
            draft.put(gene, "planted", added=effect.value * np.exp(0.30 * jitter - 0.045))
        else:
            draft.put(gene, "planted", np.log(effect.value) * np.exp(0.20 * jitter))


def _put_signature(
    draft: _Draft, members: tuple[_Member, ...], universe: Universe, rng: np.random.Generator
) -> None:
    """The further voting genes of a signature: two in three respond, by very different amounts."""
    for member in members:
        jitter, lot = rng.standard_normal(), rng.random()
        gene = universe.position.get(member.gene, -1)
        if gene < 0 or member.direction == 0:
            continue
        if lot < 0.35:
            draft.put(gene, "signature, does not respond")
            continue
        size = min(np.sqrt(member.weight) * np.exp(-0.5 + 0.5 * jitter), 1.6)
        # a rare gene must be able to appear
        added = 0.04 * member.weight * np.exp(0.5 * jitter) if member.direction > 0 else 0.0
        draft.put(gene, "signature", member.direction * size, added)


def _put_bystanders(
    draft: _Draft, level: NDArray[np.float32], universe: Universe, rng: np.random.Generator
) -> None:
    """160 expressed genes of no signature, 58 % of them up, changed by 1.2 to 4 times."""
    free = np.flatnonzero((level > 0.04) & (level < 12) & ~universe.required)
    change = np.exp(-0.6 + 0.45 * rng.standard_normal(160))
    change[rng.random(160) < 0.42] *= -1.0
    for gene, shift in zip(
        rng.choice(free, size=160, replace=False).tolist(), change.tolist(), strict=True
    ):
        draft.put(gene, "bystander", float(np.clip(shift, -1.4, 1.4)))
