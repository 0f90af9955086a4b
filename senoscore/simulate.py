"""A planted immune cohort: raw counts of several donors, with the truth about every cell beside them.

What is real in it and what is not
----------------------------------
The gene names, the lineages, the marker levels and the names of the states follow the literature;
the numbers are hand-set, rounded figures in ``data/simulation_levels.tsv`` (counts per ten
thousand), every other gene has a log-normal abundance. No data set is copied.

The states are planted so that finding them again is a fair test, not a circle:

* what a planted gene does differs by gene (log-normal around the stated level), some planted genes
  do not respond at all, and a third of a signature's further genes do nothing;
* every state also moves many genes that are in no signature, in both directions;
* each arm of a state (phenotype, arrest, loss of TCR signalling, SASP) has its own strength in each
  cell, and the hard negatives are there: TEMRA cells have the phenotype arm alone, recently
  activated cells have CDKN1A and TNF, cytomegalovirus-adaptive NK cells have B3GAT1, age-associated
  B cells have TBX21 and ITGAX, cells handled roughly have FOS and JUN;
* counts are negative binomial by gene, depth is log-normal by kind of cell, each donor has its own
  expression of each gene, a part of the counts comes from the ambient soup of the sample, and some
  droplets hold two cells (``true_doublet``; their labels are those of the larger) or a dying one.

``uns["simulation"]`` holds the parameters, the donors, the populations and the effect of every
programme on every gene as it was planted.
"""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import pandas as pd

from senoscore._planted import (
    BIOLOGY,
    NUISANCE,
    Programme,
    Universe,
    build_levels,
    build_programmes,
    read_populations,
    read_profiles,
    read_universe,
)
from senoscore.errors import SenoscoreError
from senoscore.io._workers import workers
from senoscore.keys import LINEAGES

if TYPE_CHECKING:
    from types import TracebackType

    from anndata import AnnData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

TRUE_T_STATES: Final = ("exhausted", "senescent", "both", "senescent_like", "cycling", "neither")
DEFAULT_DEPTH: Final = 4000.0

_SLICE: Final = 128  # cells drawn by one call of the kernel
_CHUNK: Final = 65536  # values in one HDF5 chunk
_GZIP_LEVEL: Final = 4

# how much cells of one population differ in the strength of a programme
_ACTIVITY_SD: Final = 0.35
_STRESS_SD: Final = 0.5
_DAMAGE: Final = 4.0


@dataclass(frozen=True)
class _Settings:
    n_cells: int
    n_genes: int
    n_donors: int
    seed: int
    depth_median: float
    ambient_fraction: float
    doublet_fraction: float
    damaged_fraction: float
    effect_scale: float

    def check(self, universe: Universe) -> None:
        floor, ceiling = int(universe.required.sum()), len(universe.symbols)
        if not floor <= self.n_genes <= ceiling:
            raise SenoscoreError(
                f"simulate: n_genes is {self.n_genes}; choose {floor} (the genes of all "
                "signatures, lineage markers, mitochondrial and ribosomal genes) to "
                f"{ceiling} (every gene of the shipped table)."
            )
        for name, low, high in (
            ("n_cells", 1, 2**31 - 1),
            ("n_donors", 1, 1000),
            ("seed", 0, 2**63 - 1),
            ("depth_median", 50, 200_000),
            ("ambient_fraction", 0, 0.5),
            ("doublet_fraction", 0, 0.5),
            ("damaged_fraction", 0, 0.5),
            ("effect_scale", 0, 3),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # also NaN
                raise SenoscoreError(f"simulate: {name} is {value}; choose {low} to {high}.")


@dataclass(frozen=True)
class _Cohort:
    """Everything that is decided before a count is drawn; small but for the columns of cells."""

    settings: _Settings
    genes: NDArray[np.int64]  # positions in the universe
    base: NDArray[np.float32]
    donor_factor: NDArray[np.float32]
    size: NDArray[np.float32]
    programmes: dict[str, Programme]
    donors: pd.DataFrame
    samples: pd.DataFrame
    population: NDArray[np.int16]
    partner: NDArray[np.int16]
    sample: NDArray[np.int16]
    depth: NDArray[np.float32]
    partner_depth: NDArray[np.float32]
    ambient: NDArray[np.float32]
    damaged: NDArray[np.bool_]
    ambient_sum: NDArray[np.float64]

    @property
    def n_cells(self) -> int:
        return self.settings.n_cells

    @property
    def n_genes(self) -> int:
        return self.settings.n_genes


def _plan(settings: _Settings) -> _Cohort:
    universe = read_universe()
    settings.check(universe)
    n_cells, n_genes, seed = settings.n_cells, settings.n_genes, settings.seed
    genes = _choose_genes(universe, n_genes)
    all_base = build_levels(universe)
    programmes = build_programmes(universe, all_base, seed)
    back = np.full(len(universe.symbols), -1, np.int64)
    back[genes] = np.arange(n_genes)
    programmes = {name: _subset(p, back, settings.effect_scale) for name, p in programmes.items()}
    base = np.ascontiguousarray(all_base[:, genes])

    donors = _donors(settings.n_donors, seed)
    samples = _samples(donors, seed)
    rng = np.random.default_rng([seed, 2])
    frequency = _frequencies(samples, rng)
    share = np.exp(0.25 * rng.standard_normal(len(samples)))
    per_sample = rng.multinomial(n_cells, share / share.sum())
    sample = np.repeat(np.arange(len(samples), dtype=np.int16), per_sample)
    population = np.empty(n_cells, np.int16)
    partner = np.full(n_cells, -1, np.int16)
    cut = np.concatenate(([0], np.cumsum(per_sample)))
    for s in range(len(samples)):
        here = slice(cut[s], cut[s + 1])
        population[here] = rng.choice(len(read_populations()), size=per_sample[s], p=frequency[s])
        second = rng.choice(len(read_populations()), size=per_sample[s], p=frequency[s])
        double = rng.random(per_sample[s]) < settings.doublet_fraction
        partner[here][double] = second[double]

    rna = np.array([p.rna for p in read_populations()], np.float32)
    scale = np.exp(0.10 * rng.standard_normal(len(samples))).astype(np.float32)[sample]
    depth = rna[population] * scale
    depth *= np.exp(0.38 * rng.standard_normal(n_cells, dtype=np.float32))
    damaged = rng.random(n_cells, dtype=np.float32) < settings.damaged_fraction
    depth[damaged] *= 0.35
    partner_depth = rna[partner] * scale
    partner_depth *= np.exp(0.38 * rng.standard_normal(n_cells, dtype=np.float32))
    partner_depth[partner < 0] = 0.0
    # whoever annotates a droplet sees its larger cell
    swap = partner_depth > depth
    population[swap], partner[swap] = partner[swap], population[swap]
    depth[swap], partner_depth[swap] = partner_depth[swap], depth[swap]
    factor = settings.depth_median / float(np.median(depth + partner_depth))
    depth *= factor
    partner_depth *= factor
    soup = samples["ambient_fraction"].to_numpy() * (settings.ambient_fraction / 0.04)
    # the soup of a droplet does not know how large the cell is: small cells hold more of it
    ambient = (
        soup.astype(np.float32)[sample] * (settings.depth_median / (depth + partner_depth)) ** 0.5
    )
    ambient = np.clip(ambient, 0.0, 0.5).astype(np.float32)

    donor_factor = _donor_factors(universe, donors, seed)[:, genes]
    return _Cohort(
        settings=settings,
        genes=genes,
        base=base,
        donor_factor=np.ascontiguousarray(donor_factor),
        size=_sizes(universe, all_base)[genes],
        programmes=programmes,
        donors=donors,
        samples=samples,
        population=population,
        partner=partner,
        sample=sample,
        depth=depth,
        partner_depth=partner_depth,
        ambient=ambient,
        damaged=damaged,
        ambient_sum=_soups(universe, genes, base, programmes, samples, donor_factor, frequency),
    )


def _choose_genes(universe: Universe, n_genes: int) -> NDArray[np.int64]:
    """The required genes, then protein-coding ones from the most abundant, then the others."""
    rank = np.lexsort((-universe.generic, ~universe.coding, ~universe.required))[:n_genes]
    return rank[np.argsort(universe.ensembl[rank].astype(str), kind="stable")]


def _subset(programme: Programme, back: NDArray[np.int64], scale: float) -> Programme:
    at = back[programme.genes]
    keep = np.flatnonzero(at >= 0)
    keep = keep[np.argsort(at[keep])]
    factor = np.float32(1.0 if programme.name in dict(NUISANCE) else scale)
    return Programme(
        programme.name,
        at[keep].astype(np.int32),
        programme.log_factor[keep] * factor,
        programme.added[keep] * factor,
        programme.role[keep],
    )


def _donors(n_donors: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, 3])
    number = np.arange(n_donors)
    pair = number // 2
    # conditions alternate and share the range of ages, so neither stands for the other
    spread = np.linspace(24, 78, max(1, (n_donors + 1) // 2))
    age = np.rint(spread[pair] + rng.uniform(-3, 3, n_donors)).astype(int)
    return pd.DataFrame(
        {
            "donor_id": [f"D{i + 1:02d}" for i in number],
            "age": age,
            "sex": np.where((number // 2 + number) % 2 == 0, "female", "male"),
            "condition": np.where(number % 2 == 0, "healthy", "disease"),
            "cmv": np.where(rng.random(n_donors) < 0.5, "positive", "negative"),
        }
    )


def _samples(donors: pd.DataFrame, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, 4])
    # handling: tissue is digested, blood is not
    stress = {"blood": 0.12, "lung": 0.5}
    rows = [
        {
            "sample_id": f"{donor}_{tissue}",
            "donor": number,
            "tissue": tissue,
            "ambient_fraction": 0.04 * float(np.exp(0.35 * rng.standard_normal())),
            "stress": stress[tissue] * float(np.exp(0.4 * rng.standard_normal())),
        }
        for number, donor in enumerate(donors["donor_id"])
        for tissue in stress
    ]
    frame = pd.DataFrame(rows)
    traits = donors[["age", "sex", "condition", "cmv"]].iloc[frame["donor"]].reset_index(drop=True)
    return pd.concat([frame, traits], axis=1)


def _frequencies(samples: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.float64]:
    """Samples x populations: what each sample is made of, after age, condition and CMV."""
    rows = []
    for sample in samples.itertuples():
        decades = (float(sample.age) - 50.0) / 10.0
        lung, disease = sample.tissue == "lung", sample.condition == "disease"
        weights = []
        for p in read_populations():
            weight = p.lung if lung else p.blood
            if p.senescent:
                weight *= np.exp(0.28 * decades)
            if p.t_state in ("exhausted", "both") or p.t_substate == "cycling_exhausted":
                weight *= 1.8 if disease else (0.45 if lung else 0.6)
            if p.t_substate == "interferon":
                weight *= 1.7 if disease else 0.7
            if p.t_substate == "naive":
                weight *= np.exp(-0.15 * decades)
            if p.name in ("cd8_temra", "cd4_temra", "nk_adaptive"):
                weight *= 1.6 if sample.cmv == "positive" else 0.4
            weights.append(weight * np.exp(0.25 * rng.standard_normal()))
        rows.append(np.array(weights) / np.sum(weights))
    return np.array(rows)


def _donor_factors(universe: Universe, donors: pd.DataFrame, seed: int) -> NDArray[np.float32]:
    """Each donor has its own level of each gene; a few genes differ strongly (common variants)."""
    factors = np.empty((len(donors), len(universe.symbols)), np.float32)
    symbols = universe.symbols
    female = np.array([s == "XIST" for s in symbols])
    male = np.array([s in ("RPS4Y1", "DDX3Y", "EIF1AY", "UTY", "KDM5D") for s in symbols])
    for i, sex in enumerate(donors["sex"]):
        rng = np.random.default_rng([seed, 5, i])
        shift = 0.11 * rng.standard_normal(len(symbols))
        strong = rng.random(len(symbols)) < 0.02
        shift[strong & ~universe.required] *= 5.0
        factors[i] = np.exp(shift)
        factors[i, male if sex == "female" else female] = 0.0
    return factors


def _sizes(universe: Universe, base: NDArray[np.float32]) -> NDArray[np.float32]:
    """Negative binomial size of each gene: noisy when rare, steadier when abundant."""
    rng = np.random.default_rng(BIOLOGY + 2)
    level = np.quantile(base, 0.75, axis=0)
    dispersion = 0.05 + 0.65 / (1.0 + level / 11.0)
    dispersion *= np.exp(0.7 * rng.standard_normal(base.shape[1]))
    return np.asarray(1.0 / np.clip(dispersion, 0.03, 2.0), np.float32)


def _soups(
    universe: Universe,
    genes: NDArray[np.int64],
    base: NDArray[np.float32],
    programmes: dict[str, Programme],
    samples: pd.DataFrame,
    donor_factor: NDArray[np.float32],
    frequency: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Cumulative mean profile of every sample, with a little haemoglobin from lysed red cells."""
    rows = {profile: row for row, profile in enumerate(read_profiles())}
    means = np.empty((len(read_populations()), len(genes)))
    for i, p in enumerate(read_populations()):
        level = base[rows[p.profile]].astype(np.float64)
        for name, activity in p.programmes:
            planted = programmes[name]
            level[planted.genes] *= np.exp(activity * planted.log_factor)
            level[planted.genes] += activity * planted.added
        means[i] = p.rna * level / level.sum()
    sums = np.empty((len(samples), len(genes)))
    red = {"HBB": 0.02, "HBA2": 0.008, "HBA1": 0.005}
    where = {s: j for j, s in enumerate(universe.symbols[genes])}
    for s, donor in enumerate(samples["donor"].tolist()):
        soup = (frequency[s] @ means) * donor_factor[donor]
        soup /= soup.sum()
        for gene, amount in red.items():
            if gene in where:
                soup[where[gene]] += amount
        sums[s] = np.cumsum(soup / soup.sum())
    sums[:, -1] = 1.0
    return sums


# ------------------------------------------------------------------------------------------------
# drawing


class _Rows(NamedTuple):
    lengths: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]


class _Slots(NamedTuple):
    """Which programmes each population runs, for the kernel."""

    start: NDArray[np.int64]
    programme: NDArray[np.int16]
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    kind: NDArray[np.int8]


class _Effects(NamedTuple):
    """What each programme does to which gene, for the kernel."""

    start: NDArray[np.int64]
    gene: NDArray[np.int32]
    log_factor: NDArray[np.float32]
    added: NDArray[np.float32]


def _slots(programmes: dict[str, Programme]) -> _Slots:
    from senoscore.kernels.draw import DAMAGE, OWN, STATE, STRESS

    number = {name: i for i, name in enumerate(programmes)}
    slots = []
    start = [0]
    for p in read_populations():
        slots += [(number[name], mean, _ACTIVITY_SD, STATE) for name, mean in p.programmes]
        slots += [(number[name], 0.0, sd, OWN) for name, sd in NUISANCE]
        slots.append((number["dissociation"], 1.0, _STRESS_SD, STRESS))
        slots.append((number["mito_high"], _DAMAGE, 0.2, DAMAGE))
        start.append(len(slots))
    programme, mean, sd, kind = zip(*slots, strict=True)
    return _Slots(
        np.array(start, np.int64),
        np.array(programme, np.int16),
        np.array(mean, np.float32),
        np.array(sd, np.float32),
        np.array(kind, np.int8),
    )


def _effects(programmes: dict[str, Programme]) -> _Effects:
    all_of = list(programmes.values())
    return _Effects(
        np.concatenate(([0], np.cumsum([len(p.genes) for p in all_of]))).astype(np.int64),
        np.concatenate([p.genes for p in all_of]),
        np.concatenate([p.log_factor for p in all_of]),
        np.concatenate([p.added for p in all_of]),
    )


def _draw(cohort: _Cohort, *, threads: int) -> Iterator[_Rows]:
    """Rows of the matrix in order; slices are drawn ahead in threads and are always the same."""
    from senoscore.kernels.draw import draw_cells

    slots, effects = _slots(cohort.programmes), _effects(cohort.programmes)
    rows = {profile: row for row, profile in enumerate(read_profiles())}
    profile = np.array([rows[p.profile] for p in read_populations()], np.int16)
    donor = cohort.samples["donor"].to_numpy(np.int16)
    stress = cohort.samples["stress"].to_numpy(np.float32)
    seed = np.uint64(cohort.settings.seed)

    def one(first: int) -> _Rows:
        last = min(first + _SLICE, cohort.n_cells)
        part = slice(first, last)
        lengths = np.zeros(last - first, np.int64)
        indices = np.empty((last - first) * cohort.n_genes, np.int32)
        data = np.empty((last - first) * cohort.n_genes, np.float32)
        written = draw_cells(
            first,
            seed,
            cohort.population[part],
            cohort.partner[part],
            cohort.sample[part],
            cohort.depth[part],
            cohort.partner_depth[part],
            cohort.ambient[part],
            cohort.damaged[part],
            donor,
            stress,
            cohort.base,
            cohort.donor_factor,
            cohort.size,
            profile,
            *slots,
            *effects,
            cohort.ambient_sum,
            lengths,
            indices,
            data,
        )
        return _Rows(lengths, indices[:written].copy(), data[:written].copy())

    firsts = range(0, cohort.n_cells, _SLICE)
    yield from _ahead(one, firsts, threads)


def _ahead(function: Any, arguments: Sequence[Any], threads: int) -> Iterator[Any]:
    """`function` of each argument, in order, at most a few results in advance."""
    if threads <= 1:
        for argument in arguments:
            yield function(argument)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Any]] = []
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > 2 * threads:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


# ------------------------------------------------------------------------------------------------
# what stands beside the counts


def _categorical(codes: NDArray[Any], names: Sequence[str]) -> pd.Categorical:
    """Categories in the order given, those that occur only."""
    codes = np.asarray(codes)
    unique = list(dict.fromkeys(names))
    to_unique = np.array([unique.index(n) for n in names])
    codes = np.where(codes < 0, -1, to_unique[codes])
    present = [i for i in range(len(unique)) if (codes == i).any()]
    new = np.full(len(unique) + 1, -1)
    new[present] = np.arange(len(present))
    return pd.Categorical.from_codes(new[codes], categories=[unique[i] for i in present])


def _fixed(values: Sequence[str], categories: Sequence[str], rows: NDArray[Any]) -> pd.Categorical:
    """All of `categories`, whether they occur or not; an empty value is NaN."""
    code = np.array([categories.index(v) if v else -1 for v in values])
    return pd.Categorical.from_codes(code[rows], categories=list(categories))


def _obs(cohort: _Cohort) -> pd.DataFrame:
    who, sample = cohort.population, cohort.sample
    samples, donors = cohort.samples, cohort.donors
    labels = [p.label for p in read_populations()]
    donor = samples["donor"].to_numpy()[sample]
    diseases = ["normal" if c == "healthy" else "lung adenocarcinoma" for c in samples["condition"]]
    stages = [f"{a}-year-old stage" for a in donors["age"]]
    n = cohort.n_cells
    columns = {
        "cell_type": _categorical(who, labels),
        "cell_type_ontology_term_id": _categorical(who, [p.term for p in read_populations()]),
        "donor_id": _categorical(donor, donors["donor_id"].tolist()),
        "sample_id": _categorical(sample, samples["sample_id"].tolist()),
        "condition": _categorical(sample, samples["condition"].tolist()),
        "disease": _categorical(sample, diseases),
        "tissue": _categorical(sample, samples["tissue"].tolist()),
        "sex": _categorical(donor, donors["sex"].tolist()),
        "age": donors["age"].to_numpy(np.int16)[donor],
        "development_stage": _categorical(donor, stages),
        "assay": _categorical(np.zeros(n, np.int8), ["10x 3' v3"]),
        "suspension_type": _categorical(np.zeros(n, np.int8), ["cell"]),
        "is_primary_data": np.ones(n, bool),
        "true_lineage": _fixed([p.lineage for p in read_populations()], LINEAGES, who),
        "true_lineage_subset": _categorical(who, [p.subset for p in read_populations()]),
        "true_t_state": _fixed([p.t_state for p in read_populations()], TRUE_T_STATES, who),
        "true_t_substate": _categorical(
            np.where(_is_t()[who], who, -1), [p.t_substate for p in read_populations()]
        ),
        "true_senescent": np.array([p.senescent for p in read_populations()])[who],
        "true_population": _categorical(who, [p.name for p in read_populations()]),
        "true_doublet": cohort.partner >= 0,
        "true_low_quality": cohort.damaged,
        "true_ambient_fraction": cohort.ambient,
    }
    return pd.DataFrame(columns, index=pd.Index(_barcodes(cohort), name=None))


def _is_t() -> NDArray[np.bool_]:
    return np.array([p.lineage == "T" for p in read_populations()])


def _barcodes(cohort: _Cohort) -> list[str]:
    """Sixteen letters that look drawn at random and never repeat, then the sample's number."""
    number = np.arange(cohort.n_cells, dtype=np.uint64)
    # multiplying by an odd number modulo 2**32 is one to one; so is the shifted xor
    mixed = (number * np.uint64(2654435761) + np.uint64(0x1B873593)) & np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(15)
    mixed = (mixed * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    shifts = np.arange(0, 32, 2, dtype=np.uint64)
    letters = np.frombuffer(b"ACGT", np.uint8)
    text = np.empty((cohort.n_cells, 16), np.uint8)
    for column, shift in enumerate(shifts):
        text[:, column] = letters[((mixed >> shift) & np.uint64(3)).astype(np.intp)]
    names = text.view("S16").ravel().astype("U16")
    return [f"{a}-{b + 1}" for a, b in zip(names, cohort.sample.tolist(), strict=True)]


def _var(cohort: _Cohort) -> pd.DataFrame:
    universe = read_universe()
    return pd.DataFrame(
        {
            "gene_ids": universe.ensembl[cohort.genes].astype(object),
            "feature_types": _categorical(np.zeros(cohort.n_genes, np.int8), ["Gene Expression"]),
        },
        index=pd.Index(universe.symbols[cohort.genes].astype(object), name=None),
    )


def _umap(cohort: _Cohort) -> NDArray[np.float32]:
    """A layout, not an embedding: the centre of the profile, a step for the state, noise."""
    rng = np.random.default_rng([cohort.settings.seed, 6])
    step = np.random.default_rng(BIOLOGY + 3)
    place = read_profiles()
    centres = np.array(
        [
            np.array([place[p.profile].x, place[p.profile].y])
            + (0.9 * step.standard_normal(2) if p.programmes else 0.0)
            for p in read_populations()
        ],
        np.float32,
    )
    at = centres[cohort.population]
    double = cohort.partner >= 0
    at[double] = (at[double] + centres[cohort.partner[double]]) / 2
    return at + 0.45 * rng.standard_normal(at.shape, dtype=np.float32)


def _truth(cohort: _Cohort) -> dict[str, Any]:
    symbols = read_universe().symbols[cohort.genes]
    registry = read_universe().registry[cohort.genes]
    parts = [
        pd.DataFrame(
            {
                "programme": name,
                "gene": symbols[p.genes],
                "role": p.role,
                "log_factor": p.log_factor,
                "added_cp10k": p.added,
                "in_registry": registry[p.genes],
            }
        )
        for name, p in cohort.programmes.items()
        if name not in dict(NUISANCE)
    ]
    effects = pd.concat(parts, ignore_index=True)
    populations = pd.DataFrame(
        {
            "population": [p.name for p in read_populations()],
            "profile": [p.profile for p in read_populations()],
            "lineage": [p.lineage for p in read_populations()],
            "subset": [p.subset for p in read_populations()],
            "t_state": [p.t_state for p in read_populations()],
            "t_substate": [p.t_substate for p in read_populations()],
            "senescent": [p.senescent for p in read_populations()],
            "programmes": [
                ";".join(f"{name}:{activity:g}" for name, activity in p.programmes)
                for p in read_populations()
            ],
            "n_cells": np.bincount(cohort.population, minlength=len(read_populations())),
        }
    )
    for frame in (effects, populations):
        frame.index = frame.index.astype(str)
    donors, samples = cohort.donors.set_index("donor_id"), cohort.samples.set_index("sample_id")
    donors.index.name = samples.index.name = None
    return {
        "parameters": asdict(cohort.settings),
        "effects": effects,
        "populations": populations,
        "donors": donors,
        "samples": samples,
    }


def _uns(cohort: _Cohort) -> dict[str, Any]:
    return {
        "title": "Simulated immune cohort with planted senescent and exhausted cells",
        "organism": "Homo sapiens",
        "simulation": _truth(cohort),
    }


# ------------------------------------------------------------------------------------------------
# public


def simulate(
    n_cells: int = 6000,
    n_genes: int = 20000,
    *,
    n_donors: int = 8,
    seed: int = 0,
    depth_median: float | None = None,
    ambient_fraction: float = 0.04,
    doublet_fraction: float = 0.03,
    damaged_fraction: float = 0.03,
    effect_scale: float = 1.0,
    threads: int = 1,
) -> AnnData:
    """An immune cohort with planted senescent, exhausted, cycling, TEMRA and neutral cells.

    Every donor gives blood and lung tissue; half of the donors are diseased, ages run from young to
    old within both conditions. Senescence rises with age, exhaustion with disease, both modestly.

    Parameters
    ----------
    n_cells, n_genes
        Size. Genes are real human ones: those of every signature, lineage marker, mitochondrial and
        ribosomal genes always, then protein-coding genes, then others, in the order of Ensembl ids.
    n_donors
        How many people.
    seed
        Draws donors, effects and cells. Which gene is abundant where does not depend on it.
    depth_median
        Median counts per cell, 4000 unless said otherwise. Genes per cell follow from it: about
        1500 at 4000 counts, 2500 at 10000.
    ambient_fraction
        Mean share of the counts of a cell that come from the soup of its sample.
    doublet_fraction, damaged_fraction
        Share of droplets with two cells (of one sample), and of dying cells: few counts, many of
        them mitochondrial.
    effect_scale
        Multiplies what the programmes do; 0 plants nothing (the truth columns stay as drawn).
    threads
        Cells are drawn in this many threads. The result does not depend on it.

    Returns
    -------
    Counts as float32 CSR in ``X``; ``obs`` with ``cell_type``, ``cell_type_ontology_term_id``,
    ``donor_id``, ``sample_id``, ``condition``, ``disease``, ``tissue``, ``sex``, ``age``,
    ``development_stage`` and more as in a published file, and the truth:

    ``true_lineage``
        Exactly T, B, NK, mono_mac, neutrophil, DC, other.
    ``true_lineage_subset``
        CD4, CD8, Treg, innate_like, naive, memory, age_associated, plasma, CD56bright, …
    ``true_t_state``
        exhausted, senescent, both, senescent_like, cycling, neither; NaN outside T cells.
    ``true_t_substate``
        progenitor, terminal, arrested, sasp_high, nk_like, exhausted_senescent, temra, cycling,
        cycling_exhausted (its state is exhausted: cycling vetoes senescence only), naive, memory,
        interferon, activated, treg, mait, gamma_delta; NaN outside T cells.
    ``true_senescent``
        Whether a senescence programme was planted, in any lineage.
    ``true_doublet``, ``true_low_quality``, ``true_ambient_fraction``
        What else happened in the droplet. A doublet has the labels of the cell that gave it more counts:
        what most of its RNA is, and what an annotator would see. Which the other was is not kept.

    ``obsm["X_umap"]`` is a layout by kind of cell, computed from the truth: good for pictures, not
    evidence. ``uns["simulation"]`` holds the parameters, donors, populations and planted effects.

    Raises
    ------
    SenoscoreError
        A size, depth or fraction is out of range.

    Examples
    --------
    >>> adata = simulate(200, 3000, n_donors=2)
    >>> adata.shape
    (200, 3000)
    >>> adata.obs["true_t_state"].cat.categories.tolist()
    ['exhausted', 'senescent', 'both', 'senescent_like', 'cycling', 'neither']
    """
    from anndata import AnnData
    from scipy import sparse

    cohort = _plan(
        _Settings(
            n_cells,
            n_genes,
            n_donors,
            seed,
            DEFAULT_DEPTH if depth_median is None else float(depth_median),
            ambient_fraction,
            doublet_fraction,
            damaged_fraction,
            effect_scale,
        )
    )
    parts = list(_draw(cohort, threads=threads))
    lengths = np.concatenate([part.lengths for part in parts])
    nnz = int(lengths.sum())
    indptr = np.zeros(n_cells + 1, np.int32 if nnz < 2**31 else np.int64)
    np.cumsum(lengths, out=indptr[1:])
    matrix = sparse.csr_matrix(
        (
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.indices for part in parts]),
            indptr,
        ),
        shape=(n_cells, n_genes),
    )
    return AnnData(
        X=matrix,
        obs=_obs(cohort),
        var=_var(cohort),
        uns=_uns(cohort),
        obsm={"X_umap": _umap(cohort)},
    )


def simulate_to(
    path: str | Path,
    n_cells: int = 6000,
    n_genes: int = 20000,
    seed: int = 0,
    threads: int = 1,
    *,
    n_donors: int = 8,
    depth_median: float | None = None,
    ambient_fraction: float = 0.04,
    doublet_fraction: float = 0.03,
    damaged_fraction: float = 0.03,
    effect_scale: float = 1.0,
) -> Path:
    """Write the cohort of :func:`simulate` to an h5ad file, a few hundred cells at a time.

    Memory does not grow with the matrix: about 0.4 GB, plus some 300 bytes per cell for ``obs``. The
    same arguments give the same bytes on one installation, for any number of threads.

    Parameters
    ----------
    path
        Where to write; it appears when it is complete, and replaces what was there.
    n_cells, n_genes, seed, n_donors, depth_median
        As in :func:`simulate`.
    ambient_fraction, doublet_fraction, damaged_fraction, effect_scale
        As in :func:`simulate`.
    threads
        Cells are drawn and compressed in this many threads.

    Returns
    -------
    The path.

    Raises
    ------
    SenoscoreError
        A size, depth or fraction is out of range, or `path` is a folder.
    """
    from senoscore.io.artefacts import atomic_path

    path = Path(path)
    if path.is_dir():
        raise SenoscoreError(f"simulate: {path} is a folder; name the h5ad file to write.")
    cohort = _plan(
        _Settings(
            n_cells,
            n_genes,
            n_donors,
            seed,
            DEFAULT_DEPTH if depth_median is None else float(depth_median),
            ambient_fraction,
            doublet_fraction,
            damaged_fraction,
            effect_scale,
        )
    )
    with atomic_path(path) as part:
        _write(cohort, part, threads=threads)
    logger.info(
        "simulated %d cells x %d genes of %d donors (seed %d): %s",
        n_cells,
        n_genes,
        n_donors,
        seed,
        path,
    )
    return path


def _write(cohort: _Cohort, path: Path, *, threads: int) -> None:
    import anndata
    import h5py

    compressed = {"compression": "gzip", "compression_opts": _GZIP_LEVEL}
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file.attrs["encoding-version"] = "0.1.0"
        x = file.create_group("X")
        x.attrs["encoding-type"] = "csr_matrix"
        x.attrs["encoding-version"] = "0.1.0"
        x.attrs["shape"] = np.array([cohort.n_cells, cohort.n_genes], np.int64)
        lengths = []
        with _Values(x, threads) as values:
            for part in _draw(cohort, threads=threads):
                lengths.append(part.lengths)
                values.append(part.data, part.indices)
        indptr = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
        if indptr[-1] < 2**31:
            indptr = indptr.astype(np.int32)
        x.create_dataset("indptr", data=indptr, **compressed)
        write = anndata.io.write_elem
        write(file, "obs", _obs(cohort), dataset_kwargs=compressed)
        write(file, "var", _var(cohort), dataset_kwargs=compressed)
        write(file, "obsm", {"X_umap": _umap(cohort)}, dataset_kwargs=compressed)
        write(file, "uns", _uns(cohort), dataset_kwargs=compressed)
        for name in ("layers", "obsp", "varm", "varp"):
            write(file, name, {})


class _Values:
    """``data`` and ``indices`` of a growing CSR matrix, compressed in threads, stored chunk by chunk.

    Chunks go to the file in one order, whatever the threads and the sizes of the parts.
    """

    def __init__(self, group: Any, threads: int) -> None:
        self.datasets = [
            group.create_dataset(
                name,
                shape=(0,),
                maxshape=(None,),
                chunks=(_CHUNK,),
                dtype=dtype,
                compression="gzip",
                compression_opts=_GZIP_LEVEL,
            )
            for name, dtype in (("data", np.float32), ("indices", np.int32))
        ]
        self.pool = workers(threads)
        self.limit = 2 * max(1, threads)
        self.waiting: deque[tuple[Future[bytes], ...]] = deque()
        self.rest: list[tuple[NDArray[Any], ...]] = []
        self.n_rest = 0
        self.n_stored = 0  # whole chunks in the file
        self.n_values = 0

    def __enter__(self) -> Self:
        return self

    def append(self, data: NDArray[np.float32], indices: NDArray[np.int32]) -> None:
        self.rest.append((data, indices))
        self.n_rest += len(data)
        self.n_values += len(data)
        if self.n_rest >= _CHUNK:
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        joined = [np.concatenate(parts) for parts in zip(*self.rest, strict=True)]
        if last:
            filler = -self.n_rest % _CHUNK
            joined = [np.concatenate((a, np.zeros(filler, a.dtype))) for a in joined]
        whole = len(joined[0]) // _CHUNK * _CHUNK
        for first in range(0, whole, _CHUNK):
            chunk = slice(first, first + _CHUNK)
            self.waiting.append(
                tuple(
                    self.pool.submit(zlib.compress, a[chunk].tobytes(), _GZIP_LEVEL) for a in joined
                )
            )
            while len(self.waiting) > self.limit:
                self._store()
        self.rest = [tuple(a[whole:].copy() for a in joined)]
        self.n_rest = len(joined[0]) - whole

    def _store(self) -> None:
        for dataset, compressed in zip(self.datasets, self.waiting.popleft(), strict=True):
            dataset.resize(((self.n_stored + 1) * _CHUNK,))
            dataset.id.write_direct_chunk((self.n_stored * _CHUNK,), compressed.result())
        self.n_stored += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self.n_rest:
                    self._flush(last=True)
                while self.waiting:
                    self._store()
                for dataset in self.datasets:
                    dataset.resize((self.n_values,))
        finally:
            self.pool.shutdown(cancel_futures=True)
