"""Matched control genes, the null they make, and p-values from it. Pure functions on arrays.

The statistic of cell *i*, signature *s* in lineage *L*: every voting gene *g* of weight w and sign
has N control genes, those nearest to it in mean expression within *L*. Null set *j* takes one
control of each gene, each control once, so that the mean over the null sets is the mean over all
controls:

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
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from senoscore.kernels.controls import nearest_in_mean
from senoscore.kernels.passes import (
    BINS_PER_Z,
    FIX_W,
    N_BINS,
    Z_MIN,
    GeneSets,
    null_z_rows,
)

N_NULL = 200
CENTRE_QUANTILE = 0.25
_NORMAL_QUARTILE = -0.6744897501960817
MIN_POOL = 20
MIN_CELLS = 10
MAX_STRATA = 10
MIN_CELLS_PER_STRATUM = 50


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
    """All that the second pass needs: which sets exist in which lineage, and their centres."""

    lineages: tuple[str, ...]
    signatures: tuple[str, ...]
    n_null: int
    sets: GeneSets
    usable: NDArray[np.bool_]
    centres: NDArray[np.float64]
    reasons: dict[tuple[str, str], str]


def rng_for(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on names, not on how many draws others made before."""
    digest = hashlib.blake2b("\x1f".join(names).encode(), digest_size=16).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, np.uint32).tolist()])


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
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """N null sets: for each expressed voting gene a row of N controls, one per null set.

    Each control of a gene is used equally often, and no set holds a gene twice where that can be
    avoided. Returns controls (genes × N) and the signed weights of those genes; a gene that no
    cell of the lineage expresses has nothing to be matched to and takes no part.
    """
    order = draw_order(genes, means)
    taken = np.empty((len(order), n_null), np.int64)
    drawn: list[NDArray[np.int64]] = []
    weights: list[float] = []
    for k in order:
        position = genes.positions[k]
        pool = controls.nearest(int(means[position]), controls.pool_size(n_null), genes.positions)
        rng = rng_for(seed, genes.name, lineage, genes.ids[k])
        row = rng.permutation(np.resize(pool, n_null))
        for _ in range(20 if drawn else 0):
            clash = np.flatnonzero((taken[: len(drawn)] == row).any(axis=0))
            if not len(clash):
                break
            for a, b in zip(clash, rng.integers(0, n_null, len(clash)), strict=True):
                row[a], row[b] = row[b], row[a]
        taken[len(drawn)] = row
        drawn.append(row)
        weights.append(float(genes.weights[k]))
    return np.asarray(drawn, np.int64).reshape(len(drawn), n_null), np.asarray(weights)


def build_sets(
    signatures: Sequence[VotingGenes],
    draws: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]] | None],
    means: NDArray[np.int64],
    *,
    n_null: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """One lineage's gene -> (set, weight) table: offsets, sets, fixed-point weights."""
    genes: list[NDArray[np.int64]] = []
    sets: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.int64]] = []
    for s, (signature, draw) in enumerate(zip(signatures, draws, strict=True)):
        if draw is None:
            continue
        controls, control_weights = draw
        base = s * (n_null + 1)
        voting = means[signature.positions] > 0
        own = signature.positions[voting]
        genes.append(own)
        sets.append(np.full(len(own), base))
        weights.append(fixed_weights(signature.weights[voting]))
        genes.append(controls.ravel())
        sets.append(np.tile(base + 1 + np.arange(n_null), len(controls)))
        weights.append(np.repeat(fixed_weights(control_weights), n_null))
    n_genes = len(means)
    if not genes:
        return np.zeros(n_genes + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64)
    gene, set_, weight = map(np.concatenate, (genes, sets, weights))
    order = np.lexsort((set_, gene))
    offsets = np.zeros(n_genes + 1, np.int64)
    np.cumsum(np.bincount(gene, minlength=n_genes), out=offsets[1:])
    return offsets, set_[order].astype(np.int32), weight[order]


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
    """Weights as integers, in units of 2**-FIX_W."""
    return np.rint(np.asarray(weights) * 2**FIX_W).astype(np.int64)


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
        centre[s] = np.where(np.isnan(level), 0.0, level - _NORMAL_QUARTILE)
    return centre


def depth_strata(
    depth: NDArray[np.float64], codes: NDArray[np.int64], n_codes: int, use: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], int]:
    """Depth stratum of each cell within its lineage, -1 where not used; and the most strata.

    Up to ten of equal size, fewer where a stratum would hold fewer than 50 cells. Cells of equal
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
) -> NDArray[np.float64]:
    """p of each cell × signature: (1 + null at or above its bin) / (1 + null), in its stratum.

    NaN where z is NaN, where the cell is in no stratum, or where the stratum's null is empty.
    """
    above = np.flip(np.cumsum(np.flip(histogram, -1), -1), -1)
    totals = histogram.sum(-1)
    p = np.full(z.shape, np.nan)
    bins = bin_of(z)
    used = np.flatnonzero((codes >= 0) & (strata >= 0))
    for s in range(z.shape[1]):
        cells = used[~np.isnan(z[used, s])]
        code, stratum = codes[cells], strata[cells]
        n = totals[code, s, stratum]
        hits = above[code, s, stratum, bins[cells, s]]
        with np.errstate(invalid="ignore", divide="ignore"):
            p[cells, s] = np.where(n > 0, (1 + hits) / (1 + n), np.nan)
    return p


def null_medians(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    """Median of each histogram's z (last axis: bins), interpolated within its bin; 0 if empty."""
    total = histogram.sum(-1)
    cumulated = np.cumsum(histogram, -1)
    at = np.argmax(2 * cumulated >= total[..., None], axis=-1)
    here = np.take_along_axis(histogram, at[..., None], -1)[..., 0]
    before = np.take_along_axis(cumulated, at[..., None], -1)[..., 0] - here
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(here > 0, (total / 2 - before) / here, 0.0)
    return np.where(total > 0, Z_MIN + (at + part) / BINS_PER_Z, 0.0)


def align_depth(
    z: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    medians: NDArray[np.float64],
) -> NDArray[np.float64]:
    """z less the median of the null at the cell's depth (lineages × signatures × strata).

    The null is more skewed in shallow cells, so its median moves with depth; without this z would
    too. A cell in no stratum (it failed quality control) takes the first.
    """
    known = codes >= 0
    out = z.copy()
    out[known] -= medians[codes[known], :, np.maximum(strata[known], 0)]
    return out


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p-values of the finite entries (scipy's); NaN stays NaN."""
    from scipy.stats import false_discovery_control

    adjusted = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        adjusted[known] = false_discovery_control(p[known], method="bh")
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
    sample: Sequence[
        tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.floating], NDArray[np.float64]]
    ],
    kind: int,
    n_null: int = N_NULL,
    seed: int = 0,
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
        Per lineage the CSR rows of sampled cells (indptr, indices, data) and their totals: each
        set's centre comes from them.

    Returns
    -------
    Plan
        `reasons` says, for each lineage × signature that was allowed and cannot be scored, why.
    """
    n_genes = sums.shape[1]
    usable = np.zeros((len(lineages), len(signatures)), bool)
    centres = np.zeros((len(lineages), len(signatures), n_null + 1))
    reasons: dict[tuple[str, str], str] = {}
    tables = []
    for code, lineage in enumerate(lineages):
        draws: list[tuple[NDArray[np.int64], NDArray[np.float64]] | None] = []
        controls = ControlGenes(sums[code], eligible, rank)
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
                        lineage=lineage, n_null=n_null, seed=seed,
                    )  # fmt: skip
                    reason = "none of its genes is expressed" if not len(drawn[0]) else ""
                    draw = drawn if len(drawn[0]) else None
                if reason:
                    reasons[lineage, signature.name] = reason
            draws.append(draw)
            usable[code, s] = draw is not None
        offsets, sets, weights = build_sets(signatures, draws, sums[code], n_null=n_null)
        tables.append((offsets, sets, weights))
        indptr, indices, data, totals = sample[code]
        if usable[code].any() and len(totals):
            centres[code] = centres_of_sample(
                indptr, indices, data, totals, kind, offsets, sets, weights,
                n_signatures=len(signatures), n_null=n_null,
            )  # fmt: skip
    joined = join_sets(tables, n_genes)
    return Plan(
        tuple(lineages), tuple(s.name for s in signatures), n_null, joined, usable, centres, reasons
    )


def centres_of_sample(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.floating],
    totals: NDArray[np.float64],
    kind: int,
    offsets: NDArray[np.int64],
    sets: NDArray[np.int32],
    weights: NDArray[np.int64],
    *,
    n_signatures: int,
    n_null: int,
) -> NDArray[np.float64]:
    """The centre of every set, signatures × (N + 1), from the sampled cells of one lineage."""
    out = np.empty((len(totals), n_signatures, n_null + 1))
    null_z_rows(indptr, indices, data, kind, totals, offsets, sets, weights, n_null, out)
    return centre_of(out)
