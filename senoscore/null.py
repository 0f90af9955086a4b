"""Matched control genes, the null they make, and p-values from it. Pure functions on arrays.

The statistic of cell *i*, signature *s* in lineage *L*: every voting gene *g* of weight w and sign
has N control genes, those nearest to it in mean expression within *L*. Null set *j* takes one
control of each gene, each control once, so that the mean over the null sets is the mean over all
controls (where some cells carry the programme: nearest to the mean in the others, `resting_means`):

    d_i = sum over g of  sign w (x_ig - mean of x over g's controls)
    z_i = d_i / sd over the null sets of the same cell  -  centre_s  -  median of the null at its depth

A control is never a gene of any registered signature, nor of the signature itself. The centre puts the lower quartile of a
lineage's cells where a standard normal has it (-0.67): a quartile of cells must be free of the
programme, not the average cell, so that the scores of a tumour in which 40 % of the T cells are
exhausted are not shrunk by the exhausted ones. Each null set is centred by its own quartile, so
the null pays the same price.

p is the share of the pooled null (all null sets, all cells of the same lineage and depth stratum)
at or above z. It is one-sided: a signature is present or it is not.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from senoscore.kernels.controls import (
    draw_like,
    draw_null_sets,
    fill_sets,
    nearest_in_mean,
    streams,
)
from senoscore.kernels.nulls import (
    ByGene,
    by_gene,
    by_set,
    low_in_the_rest,
    score_sample,
    set_centres,
)
from senoscore.kernels.passes import BINS_PER_Z, COUNTS, FIX_W, N_BINS, Z_MIN, GeneSets
from senoscore.kernels.tails import medians, read_off, shift_rows

T = TypeVar("T")

N_NULL = 200
CENTRE_QUANTILE = 0.25
NORMAL_QUARTILE = -0.6744897501960817
# the share of a stratum's cells in which a gene is matched, and what its mean in all cells weighs there:
# as much as so many cells that express it
RESTING_SHARE = 0.5
RESTING_WEIGHT = 10.0
MIN_POOL = 20
MIN_CELLS = 10
MAX_STRATA = 10
# in a wider range of depth the null has a trend of its own; 20 cells × 200 null sets are enough of a tail
MIN_CELLS_PER_STRATUM = 20
_TOGETHER = 16  # signatures whose p-values are read off in one task: a cache line of a cell's row


@dataclass(frozen=True)
class VotingGenes:
    """The genes of one signature that vote and are measured.

    positions: gene positions. weights: signed. ids: what seeds the draw (not the position, which
    depends on the order of genes in the file).
    """

    name: str
    positions: NDArray[np.int64]
    weights: NDArray[np.float64]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All that the second pass needs: which sets exist in which lineage, and their centres.

    resting: (lineage, signature) -> the means at which controls of its genes were drawn
    (`resting_means`); a set that was not drawn in this run has none.
    """

    lineages: tuple[str, ...]
    signatures: tuple[str, ...]
    n_null: int
    sets: GeneSets
    usable: NDArray[np.bool_]
    centres: NDArray[np.float64]
    reasons: dict[tuple[str, str], str]
    resting: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` makes the same plan of; all names begin with ``plan_``."""
        told = {
            "lineages": self.lineages,
            "signatures": self.signatures,
            "n_null": self.n_null,
            "reasons": [[*pair, why] for pair, why in self.reasons.items()],
            "resting": [[*pair, len(means)] for pair, means in self.resting.items()],
        }
        return {
            "plan_told": np.frombuffer(json.dumps(told).encode(), np.uint8),
            "plan_offsets": self.sets.offsets,
            "plan_sets": self.sets.sets,
            "plan_weights": self.sets.weights,
            "plan_usable": self.usable,
            "plan_centres": self.centres,
            "plan_resting": np.concatenate([np.zeros(0, np.int64), *self.resting.values()]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Plan:
        """The plan that `to_arrays` was asked of."""
        told = json.loads(arrays["plan_told"].tobytes())
        ends = np.cumsum([0, *(n for *_, n in told["resting"])])
        resting = {
            (code, s): arrays["plan_resting"][a:b]
            for (code, s, _), (a, b) in zip(told["resting"], pairwise(ends), strict=True)
        }
        return cls(
            tuple(told["lineages"]),
            tuple(told["signatures"]),
            told["n_null"],
            GeneSets(arrays["plan_offsets"], arrays["plan_sets"], arrays["plan_weights"]),
            arrays["plan_usable"],
            arrays["plan_centres"],
            {(lineage, signature): why for lineage, signature, why in told["reasons"]},
            resting,
        )


class Rows(Protocol):
    """A matrix whose rows are taken by number: CSR in memory, or packed (`streaming.Panel`)."""

    def __getitem__(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        """These rows, in this order."""


class SampledCells(NamedTuple):
    """Some rows of a matrix: the matrix, the rows, and the total of each."""

    matrix: Rows
    rows: NDArray[np.int64]
    totals: NDArray[np.float64]


class Turned(NamedTuple):
    """Sampled cells gene by gene.

    values: their expression. column: per gene its place there, -1 where it was not wanted. depth: of each
    cell; counts, or genes found where values are none.
    """

    values: ByGene
    column: NDArray[np.int64]
    depth: NDArray[np.float64]

    @property
    def n_cells(self) -> int:
        """How many cells."""
        return len(self.depth)


def turn(sample: SampledCells, wanted: NDArray[np.bool_], kind: int) -> Turned:
    """The expression of the `wanted` genes in a sample, gene by gene."""
    column = np.where(wanted, np.cumsum(wanted) - 1, -1)
    cells = sample.matrix[sample.rows]
    values = by_gene(
        cells.indptr.astype(np.int64, copy=False), cells.indices.astype(np.int32, copy=False),
        cells.data, sample.totals, kind, column, int(wanted.sum()),
    )  # fmt: skip
    depth = sample.totals if kind == COUNTS else np.diff(cells.indptr).astype(np.float64)
    return Turned(values, column, depth)


@lru_cache(maxsize=1 << 16)
def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def streams_for(seed: int, *names: str, each: Sequence[str]) -> NDArray[np.uint64]:
    """Random streams that depend on names, not on how many draws others made before."""
    head = np.asarray([seed % 2**64, *map(_hash, names)], np.uint64)
    return streams(head, np.asarray([_hash(name) for name in each], np.uint64))


class ControlGenes:
    """The eligible control genes of one lineage, ordered by mean expression.

    Parameters
    ----------
    means
        Fixed-point sum of expression of each gene over the lineage's cells.
    eligible
        Genes that may be controls: expressed, in no registered signature.
    rank
        Order of the genes' ids: decides between genes of equal mean, so that the order of genes
        in the file cannot.
    """

    def __init__(
        self, means: NDArray[np.int64], eligible: NDArray[np.bool_], rank: NDArray[np.int64]
    ) -> None:
        genes = np.flatnonzero(eligible & (means > 0))
        self.genes = genes[np.lexsort((rank[genes], means[genes]))]
        self.means = means[self.genes]
        self.order = rank[self.genes]
        self.place = np.full(len(means), -1, np.int64)
        self.place[self.genes] = np.arange(len(self.genes))
        self.barred = np.zeros(len(self.genes), bool)

    def __len__(self) -> int:
        return len(self.genes)

    def pool_size(self, n_null: int) -> int:
        """Controls per gene: one per null set, fewer where so many would no longer be near."""
        return int(np.clip(len(self.genes) // 20, MIN_POOL, n_null))

    def nearest(self, mean: int, n: int, without: NDArray[np.int64]) -> NDArray[np.int64]:
        """The n genes nearest in mean, nearest first, none of them in `without`."""
        places = self.place[without]
        self.barred[places[places >= 0]] = True
        found = nearest_in_mean(self.means, self.order, self.barred, mean, n)
        self.barred[places[places >= 0]] = False
        return np.asarray(self.genes[found])

    def null_sets(
        self,
        means: NDArray[np.int64],
        without: NDArray[np.int64],
        begin: NDArray[np.uint64],
        n_null: int,
    ) -> NDArray[np.int64]:
        """Controls of genes with these means, genes × null sets (`kernels.draw_null_sets`)."""
        places = self.place[without]
        return np.asarray(
            self.genes[
                draw_null_sets(
                    self.means, self.order, places[places >= 0], means, begin,
                    self.pool_size(n_null), n_null,
                )
            ]
        )  # fmt: skip

    def random_set(
        self, means: NDArray[np.int64], without: NDArray[np.int64], begin: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """For each mean a random gene among the nearest, none twice; -1 where none is left."""
        places = self.place[without]
        found = draw_like(
            self.means, self.order, places[places >= 0], means, begin, self.pool_size(N_NULL)
        )
        return np.where(found >= 0, self.genes[found], -1)


def draw_order(genes: VotingGenes, means: NDArray[np.int64]) -> NDArray[np.int64]:
    """The voting genes that some cell expresses, in the order of their ids: rows of `draw_sets`."""
    order = np.argsort(np.asarray(genes.ids, dtype=object))
    return np.asarray(order[means[genes.positions[order]] > 0], np.int64)


def draw_sets(
    genes: VotingGenes,
    controls: ControlGenes,
    means: NDArray[np.int64],
    *,
    lineage: str,
    n_null: int,
    seed: int,
    resting: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """N null sets: for each expressed voting gene a row of N controls, one per null set.

    Controls are near in `means`, or to the mean that `resting` gives each voting gene instead. Each
    control of a gene is used equally often, and no set holds a gene twice where that can be
    avoided. Returns controls (genes × N) and the signed weights of those genes; a gene that no
    cell of the lineage expresses has nothing to be matched to and takes no part.
    """
    order = draw_order(genes, means)
    positions = genes.positions[order]
    near = means[positions] if resting is None else resting[order]
    begin = streams_for(seed, genes.name, lineage, each=[genes.ids[k] for k in order])
    drawn = controls.null_sets(near, genes.positions, begin, n_null)
    return drawn, np.asarray(genes.weights[order], np.float64)


def resting_means(
    signatures: Sequence[VotingGenes],
    means: NDArray[np.int64],
    sample: Turned,
    *,
    threads: int = 1,
) -> list[NDArray[np.int64]]:
    """What each voting gene has in cells that do not run the programme, on the scale of `means`.

    Where some cells of a lineage carry a programme, its genes have a higher mean than in all the
    others. Controls of that mean are noisier than the genes are in a cell without the programme; the
    null is too wide, and p too large. A gene is therefore matched at its mean in the half of the cells
    of each depth stratum that have least of the signature's other genes. It has no say in the
    choice itself, so that where no cell carries the programme its expected mean is that of all.

    `means` is multiplied by what a sample of the lineage shows: (sum in those cells + r) / (sum
    expected there + r), where r is worth `RESTING_WEIGHT` cells that express the gene, so that a rare gene
    follows chance no further than that. At least 1 where a gene is expressed. Of a lineage with fewer
    than 200 cells, ten strata, the means stay as they are: in wider strata the cells with least of some
    genes are the shallow ones.

    Returns
    -------
    Per signature, in the order of its `positions`.
    """
    found = [means[signature.positions] for signature in signatures]
    if sample.n_cells < MAX_STRATA * MIN_CELLS_PER_STRATUM:
        return found
    strata = np.searchsorted(stratum_limits(sample.depth), sample.depth, side="left")
    order = np.argsort(strata, kind="stable")
    limits = np.concatenate([[0], np.cumsum(np.bincount(strata))])

    def one(s: int) -> None:
        genes = signatures[s]
        low, n_low, everywhere, n_on = low_in_the_rest(
            sample.values, order, limits, sample.column[genes.positions],
            fixed_weights(genes.weights).astype(np.float64), RESTING_SHARE,
        )  # fmt: skip
        worth = RESTING_WEIGHT * everywhere / np.maximum(n_on, 1)
        expected = everywhere * (n_low / len(order))
        known = (everywhere > 0) & (found[s] > 0)
        ratio = (low[known] + worth[known]) / (expected[known] + worth[known])
        found[s][known] = np.maximum(np.rint(found[s][known] * ratio), 1)

    over_threads(one, range(len(signatures)), threads)
    return found


def build_sets(
    signatures: Sequence[VotingGenes],
    draws: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]] | None],
    means: NDArray[np.int64],
    *,
    n_null: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """One lineage's gene -> (set, weight) table: offsets, sets, fixed-point weights."""
    parts = []
    for s, (signature, draw) in enumerate(zip(signatures, draws, strict=True)):
        if draw is not None:
            voting = means[signature.positions] > 0
            own = signature.positions[voting]
            base = s * (n_null + 1)
            parts.append((base, own[:, None], fixed_weights(signature.weights[voting])))
            parts.append((base + 1, draw[0], fixed_weights(draw[1])))
    often = np.zeros(len(means), np.int64)
    for _, genes, _ in parts:
        often += np.bincount(genes.ravel(), minlength=len(means))
    offsets = np.concatenate([[0], np.cumsum(often)])
    at = offsets[:-1].copy()
    sets, weights = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64)
    for first_set, genes, weight in parts:
        fill_sets(genes, weight, first_set, at, sets, weights)
    return offsets, sets, weights


def join_sets(
    tables: Sequence[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]], n_genes: int
) -> GeneSets:
    """The tables of all lineages (`build_sets`) as one."""
    shift = np.cumsum([0, *(len(t[1]) for t in tables[:-1])])
    return GeneSets(
        np.vstack([t[0] + at for t, at in zip(tables, shift, strict=True)])
        if tables
        else np.zeros((0, n_genes + 1), np.int64),
        np.concatenate([t[1] for t in tables]) if tables else np.zeros(0, np.int32),
        np.concatenate([t[2] for t in tables]) if tables else np.zeros(0, np.int64),
    )


def fixed_weights(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Weights as integers, in units of 2**-FIX_W; ValueError for one beyond 31 bits."""
    fixed = np.rint(np.asarray(weights) * 2**FIX_W).astype(np.int64)
    if (np.abs(fixed) >= 2**31).any():
        raise ValueError(
            f"the largest weight is {np.abs(weights).max():g}, not below {2 ** (31 - FIX_W)}"
        )
    return fixed


def centre_of(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to subtract from each set's z, so that its lower quartile is a normal's.

    `z` is cells × signatures × sets. NaN (cells that express none of the genes) is left out; 0
    where nothing is left.
    """
    centre = np.zeros(z.shape[1:])
    for s in range(z.shape[1]):
        own = z[:, s]
        own = own[~np.isnan(own).all(axis=1)]
        if not len(own):
            continue
        quantile = np.nanquantile if np.isnan(own).any() else np.quantile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a set with no value at all
            level = quantile(own, CENTRE_QUANTILE, axis=0)
        centre[s] = np.where(np.isnan(level), 0.0, level - NORMAL_QUARTILE)
    return centre


def depth_strata(
    depth: NDArray[np.float64], codes: NDArray[np.int64], n_codes: int, use: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], int]:
    """Depth stratum of each cell within its lineage, -1 where not used; and the most strata.

    Up to ten of equal size, fewer where a stratum would hold fewer than 20 cells. Cells of equal
    depth share a stratum.
    """
    strata = np.full(len(depth), -1, np.int64)
    most = 1
    for code in range(n_codes):
        cells = np.flatnonzero((codes == code) & use)
        if not len(cells):
            continue
        limits = stratum_limits(depth[cells])
        strata[cells] = np.searchsorted(limits, depth[cells], side="left")
        most = max(most, len(limits) + 1)
    return strata, most


def stratum_limits(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The depths that part the cells of one lineage into strata: the upper limit of each but the last."""
    n = int(np.clip(len(depth) // MIN_CELLS_PER_STRATUM, 1, MAX_STRATA))
    return np.quantile(depth, np.arange(1, n) / n)


def bin_of(z: NDArray[np.float64]) -> NDArray[np.int64]:
    """The histogram bin each z falls into; NaN gives 0, mask it."""
    with np.errstate(invalid="ignore"):
        b = np.floor((np.where(np.isnan(z), Z_MIN, z) - Z_MIN) * BINS_PER_Z)
    return np.clip(b, 0, N_BINS - 1).astype(np.int64)


def p_values(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    histogram: NDArray[np.int64],
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    """p of each cell × signature: (1 + null at or above its bin) / (1 + null), in its stratum.

    NaN where z is NaN, where the cell is in no stratum, or where the stratum's null is empty.
    """
    p: NDArray[Any] = np.full(z.shape, np.nan, np.float32)
    _read_off(z, codes, strata, histogram, p, np.empty((0, 0), np.float32), threads)
    return p


def adjusted_p_values(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    histogram: NDArray[np.int64],
    *,
    threads: int = 1,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`p_values`, and these adjusted (`benjamini_hochberg`) within each lineage × signature.

    The same numbers as adjusting the cells one by one; sorting costs no more for more cells, for
    cells of one bin have one p.
    """
    p: NDArray[Any] = np.full(z.shape, np.nan, np.float32)
    padj: NDArray[Any] = np.full(z.shape, np.nan, np.float32)
    _read_off(z, codes, strata, histogram, p, padj, threads)
    return p, padj


def _read_off(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    histogram: NDArray[np.int64],
    p: NDArray[Any],
    padj: NDArray[Any],
    threads: int,
) -> None:
    """`kernels.tails.read_off` for a few signatures of one lineage at a time."""
    cells = [np.flatnonzero(codes == code) for code in range(len(histogram))]
    tasks = [
        (code, s)
        for code in range(len(histogram))
        for s in range(0, z.shape[1], _TOGETHER)
        if len(cells[code])
    ]

    def one(task: tuple[int, int]) -> None:
        code, s = task
        last = min(s + _TOGETHER, z.shape[1])
        read_off(z, cells[code], strata, histogram[code], s, last, p, padj)

    over_threads(one, tasks, threads)


def null_medians(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    """Median of each histogram's z (last axis: bins), interpolated within its bin; 0 if empty."""
    flat = np.ascontiguousarray(histogram).reshape(-1, histogram.shape[-1])
    out = np.empty(len(flat))
    medians(flat, out)
    return out.reshape(histogram.shape[:-1])


def align_depth(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    shift: NDArray[np.float64],
) -> NDArray[np.float64]:
    """z less the median of the null at the cell's depth (lineages × signatures × strata).

    The null is more skewed in shallow cells, so its median moves with depth; without this z would
    too. A cell in no stratum (it failed quality control) takes the first.
    """
    out = np.empty_like(z)
    shift_rows(z, codes, strata, shift, out)
    return out


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p-values of the finite entries; NaN stays NaN.

    ``scipy.stats.false_discovery_control``, without the second that importing it takes.
    """
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")][::-1]
    n = len(order)
    adjusted[order] = np.minimum(np.minimum.accumulate(p[order] * (n / np.arange(n, 0, -1))), 1)
    return adjusted


def storey(p: NDArray[np.float64], cut: float = 0.5) -> NDArray[np.float64]:
    """BH-adjusted p-values times the estimated share of true nulls (Storey 2002); NaN stays NaN.

    The share is (1 + number of p above `cut`) / ((1 - cut) n), at most 1. Worth it where most
    tests are expected to be true alternatives: in cells already selected by other evidence.
    """
    known = ~np.isnan(p)
    n = int(known.sum())
    if not n:
        return np.full(p.shape, np.nan)
    share = min(1.0, (1 + int((p[known] > cut).sum())) / ((1 - cut) * n))
    return np.minimum(1.0, benjamini_hochberg(p) * share)


def plan_scores(
    signatures: Sequence[VotingGenes],
    allowed: NDArray[np.bool_],
    *,
    lineages: Sequence[str],
    sums: NDArray[np.int64],
    n_cells: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    rank: NDArray[np.int64],
    sample: Sequence[SampledCells],
    kind: int,
    n_null: int = N_NULL,
    seed: int = 0,
    threads: int = 1,
) -> Plan:
    """Choose controls, draw null sets and centre them, for every lineage × signature.

    Parameters
    ----------
    allowed
        lineages × signatures: valid there, and enough of its genes measured.
    sums, n_cells
        From the first pass: per lineage, fixed-point expression sums and cells.
    eligible, rank
        Genes that may be controls; order of gene ids.
    sample
        Per lineage some of its cells: each set's centre comes from them.
    threads
        The result does not depend on it.

    Returns
    -------
    Plan
        `reasons` says, for each lineage × signature that was allowed and cannot be scored, why.
    """
    n_genes = sums.shape[1]
    usable = np.zeros((len(lineages), len(signatures)), bool)
    centres = np.zeros((len(lineages), len(signatures), n_null + 1))
    told: list[dict[tuple[str, str], str]] = [{} for _ in lineages]
    drawn_at: list[dict[tuple[int, int], NDArray[np.int64]]] = [{} for _ in lineages]
    tables: list[Any] = [None] * len(lineages)

    def one(code: int) -> None:
        lineage = lineages[code]
        draws: list[tuple[NDArray[np.int64], NDArray[np.float64]] | None] = []
        controls = ControlGenes(sums[code], eligible, rank)
        few = np.flatnonzero(allowed[code]).tolist()
        wanted = controls.place >= 0
        for s in few:
            wanted[signatures[s].positions] = True
        turned = turn(sample[code], wanted, kind)
        near = resting_means([signatures[s] for s in few], sums[code], turned)
        resting = dict(zip(few, near, strict=True))
        for s, signature in enumerate(signatures):
            draw = None
            if allowed[code, s]:
                if n_cells[code] < MIN_CELLS:
                    reason = f"{n_cells[code]} cells, a null needs {MIN_CELLS}"
                elif len(controls) < MIN_POOL:
                    reason = f"{len(controls)} control genes, a null needs {MIN_POOL}"
                else:
                    drawn = draw_sets(
                        signature, controls, sums[code],
                        lineage=lineage, n_null=n_null, seed=seed, resting=resting[s],
                    )  # fmt: skip
                    reason = "none of its genes is expressed" if not len(drawn[0]) else ""
                    draw = drawn if len(drawn[0]) else None
                if reason:
                    told[code][lineage, signature.name] = reason
            draws.append(draw)
            usable[code, s] = draw is not None
            if draw is not None:
                drawn_at[code][code, s] = resting[s]
        tables[code] = build_sets(signatures, draws, sums[code], n_null=n_null)
        if usable[code].any() and turned.n_cells:
            packed = pack_sample(turned, tables[code], np.flatnonzero(usable[code]), n_null)
            centres[code, usable[code]] = centres_of_sample(packed, threads=threads)

    over_threads(one, range(len(lineages)), threads)
    reasons = {pair: why for part in told for pair, why in part.items()}
    joined = join_sets(tables, n_genes)
    return Plan(
        tuple(lineages), tuple(s.name for s in signatures), n_null, joined, usable, centres, reasons,
        {pair: near for part in drawn_at for pair, near in part.items()},
    )  # fmt: skip


class PackedSample(NamedTuple):
    """A sample of cells by gene, and sets to be added up over it (`kernels.nulls`).

    values: their expression. n_cells: how many. which: the signatures wanted. first, genes,
    weights: the sets.
    """

    values: ByGene
    n_cells: int
    n_null: int
    which: NDArray[np.int64]
    first: NDArray[np.int64]
    genes: NDArray[np.int64]
    weights: NDArray[np.float64]

    def chunks(self, threads: int) -> list[slice]:
        """Which of the signatures wanted are done together."""
        n = len(self.which)
        cuts = np.unique(np.linspace(0, n, min(n, 4 * threads) + 1).astype(int)).tolist()
        return [slice(a, b) for a, b in pairwise(cuts)]


def pack_sample(
    sample: Turned,
    table: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]],
    which: NDArray[np.int64],
    n_null: int,
) -> PackedSample:
    """A sample and one lineage's sets (`build_sets`), as far as the signatures `which` need them."""
    offsets, sets, weights = table
    first, genes, entry = by_set(offsets, sets, (int(which.max()) + 1) * (n_null + 1))
    return PackedSample(
        sample.values, sample.n_cells, n_null, which, first, sample.column[genes],
        weights[entry].astype(np.float64),
    )  # fmt: skip


def centres_of_sample(packed: PackedSample, *, threads: int = 1) -> NDArray[np.float64]:
    """The centre of every set, signatures wanted × (N + 1), from a sample of cells."""
    centres = np.empty((len(packed.which), packed.n_null + 1))

    def one(some: slice) -> None:
        set_centres(
            packed.values, packed.n_cells, packed.n_null, packed.which[some], packed.first,
            packed.genes, packed.weights, CENTRE_QUANTILE, NORMAL_QUARTILE, centres[some],
        )  # fmt: skip

    over_threads(one, packed.chunks(threads), threads)
    return centres


def score_lineage(
    packed: PackedSample,
    strata: NDArray[np.int64],
    centres: NDArray[np.float64],
    n_strata: int,
    *,
    threads: int = 1,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What the second pass gives, over a sample of one lineage: d, z and the counted null.

    `strata` of its cells, -1 where the null is not counted; `centres` signatures × (N + 1).

    Returns
    -------
    d and z (signatures wanted × cells), histogram (signatures wanted × strata × bins).
    """
    shape = (len(packed.which), packed.n_cells)
    score, z = np.empty(shape), np.empty(shape)
    histogram = np.zeros((shape[0], n_strata, N_BINS), np.int64)

    def one(some: slice) -> None:
        score_sample(
            packed.values, strata, packed.n_null, packed.which[some], packed.first, packed.genes,
            packed.weights, centres, score[some], z[some], histogram[some],
        )  # fmt: skip

    over_threads(one, packed.chunks(threads), threads)
    return score, z, histogram


def over_threads(one: Callable[[T], None], tasks: Sequence[T], threads: int) -> None:
    """Call `one` on each task, several at a time."""
    if threads <= 1 or len(tasks) < 2:
        for task in tasks:
            one(task)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, tasks):
            pass
