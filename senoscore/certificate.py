"""Would the calls stand at half the depth? A certificate of every run that has counts.

The cells that the run sampled lose half, then three quarters of their molecules, each with the same
probability (binomial thinning), and are judged again inside the run: the same controls, weights and
centres, the null of cells of their new depth, and the run's own thresholds. What is asked is not
whether a shallower experiment finds the same cells, but whether a cell of this experiment would be
called something else had it been caught with fewer molecules. Depth may cost a call
(``indeterminate``); it should not change one.

The null of a thinned cell is that of the run's depth stratum in which its new depth falls. Below
the shallowest cell of its lineage the run has no null: there it is the pooled null of the thinned
cells themselves, in depth strata of their own. A frozen reference lends nothing of the kind: below
its shallowest cell there is no p-value, and a call becomes ``indeterminate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from senoscore import calling, keys, power
from senoscore.adjust import Thresholds
from senoscore.citeseq import with_arm
from senoscore.kernels.passes import COUNTS, N_BINS, GeneSets
from senoscore.kernels.thin import halve_rows
from senoscore.null import (
    MIN_CELLS_PER_STRATUM,
    Plan,
    Rows,
    SampledCells,
    VotingGenes,
    align_depth,
    depth_strata,
    null_medians,
    over_threads,
    p_values,
    pack_sample,
    score_lineage,
    stratum_limits,
    turn,
)
from senoscore.settings import CallSettings

DEPTHS: Final = (0.5, 0.25)
Within = Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.int64]]
ALL_CALLS: Final = "all calls"
# cells failed or set aside before any score: depth could not change their call
_CALLS: Final = (keys.OBS_T_STATE, keys.OBS_SENESCENCE_CALL)
_VOCABULARY: Final[Mapping[str, tuple[str, ...]]] = {
    keys.OBS_T_STATE: keys.T_STATES,
    keys.OBS_SENESCENCE_CALL: keys.SENESCENCE_CALLS,
}
INDETERMINATE: Final = "indeterminate"

COLUMNS: Final = (
    "depth",
    "lineage",
    "call",
    "state",
    "n_cells",
    "n_kept",
    "n_indeterminate",
    "n_flipped",
    "frac_kept",
    "frac_indeterminate",
    "frac_flipped",
    "flipped_to",
    "n_below_range",
)


@dataclass(frozen=True)
class Thinned:
    """Counts that cells have left: of the genes wanted, and totals over all genes."""

    counts: sparse.csr_matrix
    totals: NDArray[np.float64]


def thin(
    sample: Rows,
    rows: NDArray[np.int64],
    names: NDArray[np.object_],
    genes: NDArray[np.uint64],
    wanted: NDArray[np.bool_],
) -> tuple[Thinned, Thinned]:
    """The counts of these rows at half and at a quarter of their depth.

    Which molecules go depends on the names of cell and gene alone; `genes` are hashes of the
    latter. Counts are kept of the genes `wanted`.
    """
    cells = sample[rows]
    size = cells.nnz + 1
    totals, starts = np.empty((2, len(rows))), np.empty((2, len(rows) + 1), np.int64)
    indices, kept = np.empty((2, size), np.int32), np.empty((2, size), np.float32)
    halve_rows(
        cells.indptr.astype(np.int64, copy=False), cells.indices.astype(np.int32, copy=False),
        cells.data, pd.util.hash_array(np.asarray(names, dtype=object)), genes, wanted, totals,
        starts, indices, kept,
    )  # fmt: skip
    half, quarter = (
        Thinned(
            sparse.csr_matrix((value[: start[-1]], index[: start[-1]], start), shape=cells.shape),
            total,
        )
        for start, index, value, total in zip(starts, indices, kept, totals, strict=True)
    )
    return half, quarter


def restrict(plan: Plan, wanted: Mapping[str, Sequence[str]]) -> Plan:
    """The plan with no more than the signatures `wanted` in each lineage."""
    names = [n for n in plan.signatures if any(n in few for few in wanted.values())]
    width = plan.n_null + 1
    usable = np.zeros_like(plan.usable)
    for code, lineage in enumerate(plan.lineages):
        few = wanted.get(lineage, ())
        usable[code] = plan.usable[code] & np.asarray([n in few for n in plan.signatures], bool)
    at = np.asarray([plan.signatures.index(n) for n in names], np.int64)
    new = np.full(len(plan.signatures), -1, np.int64)
    new[at] = np.arange(len(at))
    signature, j = np.divmod(plan.sets.sets.astype(np.int64), width)
    first, last = plan.sets.offsets[:, 0], plan.sets.offsets[:, -1]
    lineage_of = np.repeat(np.arange(len(plan.lineages)), last - first)
    keep = usable[lineage_of, signature]
    counted = np.concatenate([[0], np.cumsum(keep)])
    sets = GeneSets(
        counted[plan.sets.offsets],
        (new[signature[keep]] * width + j[keep]).astype(np.int32),
        plan.sets.weights[keep],
    )
    return Plan(
        plan.lineages,
        tuple(names),
        plan.n_null,
        sets,
        usable[:, at],
        plan.centres[:, at],
        plan.reasons,
    )


def strata_at(
    new_depth: NDArray[np.float64],
    new_codes: NDArray[np.int64],
    depth: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The run's stratum in which each depth falls, -1 below the lineage's shallowest cell."""
    out = np.full(len(new_depth), -1, np.int64)
    for code in np.unique(new_codes[new_codes >= 0]):
        used = (codes == code) & (strata >= 0)
        if not used.any():
            continue
        here = np.flatnonzero(new_codes == code)
        limits = stratum_limits(depth[used])
        out[here] = np.searchsorted(limits, new_depth[here], side="left")
        out[here[new_depth[here] < depth[used].min()]] = -1
    return out


def certify(
    plan: Plan,
    thresholds: Thresholds,
    *,
    voting: Sequence[VotingGenes],
    histogram: NDArray[np.int64],
    able: NDArray[np.uint8],
    cells: pd.DataFrame,
    calls: pd.DataFrame,
    sample: Rows,
    sample_rows: NDArray[np.int64],
    gene_ids: NDArray[Any],
    sums: NDArray[np.int64],
    n_cells: NDArray[np.int64],
    depth: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    settings: CallSettings,
    arm: pd.DataFrame | None = None,
    within: Within | None = None,
    threads: int = 1,
) -> pd.DataFrame:
    """How many calls of the sampled cells stand when the cells lose molecules.

    Parameters
    ----------
    plan, histogram, able
        The run's plan, its pooled null, and its power (lineages × strata × signatures).
    thresholds
        The run's relation between p and adjusted p.
    voting
        The measured voting genes of each of the plan's signatures.
    cells, calls
        Of all cells: what `calling.verdicts` takes, and what it returned.
    sample, sample_rows, gene_ids
        Counts of the sampled cells, their rows in `cells`, and the ids of the genes.
    sums, n_cells
        The first pass: gene sums and cells per lineage.
    depth, codes, strata
        Of all cells: total counts, lineage, depth stratum.
    settings
        Thresholds.
    arm
        Phenotype arm by antibodies, of all cells: they lose no molecules.
    within
        The strata of a frozen reference, if it is its null the cells were judged by: depths and
        lineage codes -> stratum, -1 below its range.
    threads
        The result does not depend on it.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; per depth (0-1) and lineage one row per state of ``t_state`` (T cells)
        and ``senescence_call``, and a row ``all calls`` of the cells that had a call other than
        ``indeterminate``. ``flipped_to`` names what the flipped calls became, most frequent first;
        ``n_below_range`` counts cells that fell below the run's range of depths.
    """
    doublet = calling.is_doublet(cells.iloc[sample_rows])
    chosen = np.flatnonzero((strata[sample_rows] >= 0) & ~doublet)
    rows = sample_rows[chosen]
    if not len(rows):
        return pd.DataFrame(columns=list(COLUMNS))
    few = restrict(plan, {name: calling.deciding(name) for name in plan.lineages})
    at = [plan.signatures.index(name) for name in few.signatures]
    histogram, able = histogram[:, at], able[:, :, at]
    before, own, names = calls.iloc[rows], cells.iloc[rows], cells.index.to_numpy()[rows]
    genes = pd.util.hash_array(np.asarray(gene_ids, dtype=object))
    shallower = [_Shallower.empty(len(rows), len(at)) for _ in DEPTHS]

    def one(code: int) -> None:
        here = np.flatnonzero(codes[rows] == code)
        offsets = few.sets.offsets[code]
        halved = thin(sample, chosen[here], names[here], genes, offsets[1:] > offsets[:-1])
        for thinned, into in zip(halved, shallower, strict=True):
            _score_thinned(few, code, thinned, here, (depth, codes, strata), within, into)

    over_threads(one, np.unique(codes[rows]).tolist(), threads)
    tables = []
    for share, scored in zip(DEPTHS, shallower, strict=True):
        after = _judge_thinned(
            few, thresholds, [voting[k] for k in at], scored, histogram, able,
            own, codes[rows], sums=sums, n_cells=n_cells, settings=settings,
            arm=None if arm is None else arm.iloc[rows], threads=threads,
        )  # fmt: skip
        tables.append(compare(before, after, own, scored.below, share))
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class _Shallower:
    """Scores of thinned cells, and the null of those below the run's range of depths.

    inside: stratum of the run, -1 below its range (`below`, before lonely cells are lent one). own:
    stratum among the cells below. counted: lineage -> signatures × these strata × bins.
    """

    totals: NDArray[np.float64]
    score: NDArray[np.float64]
    z: NDArray[np.float64]
    inside: NDArray[np.int64]
    below: NDArray[np.bool_]
    own: NDArray[np.int64]
    counted: dict[int, NDArray[np.int64]]

    @classmethod
    def empty(cls, n: int, n_signatures: int) -> _Shallower:
        """Of so many cells, nothing known yet."""
        score, z = np.full((2, n, n_signatures), np.nan)
        return cls(np.zeros(n), score, z, np.full(n, -1), np.zeros(n, bool), np.full(n, -1), {})


def _score_thinned(
    plan: Plan,
    code: int,
    thinned: Thinned,
    here: NDArray[np.int64],
    run: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]],
    within: Within | None,
    into: _Shallower,
) -> None:
    """Score the thinned cells of one lineage, those at the places `here`."""
    totals, codes = thinned.totals, np.full(len(here), code)
    inside = strata_at(totals, codes, *run) if within is None else within(totals, codes)
    below = inside < 0
    if within is None and below.sum() < MIN_CELLS_PER_STRATUM:
        # a handful of cells makes no null: they take the nearest the run has
        inside[below] = 0
    alone = (inside < 0) & (totals > 0) & (within is None)
    own, n_own = depth_strata(totals, codes, code + 1, alone)
    into.totals[here], into.inside[here], into.below[here] = totals, inside, below
    into.own[here] = own
    into.counted[code] = np.zeros((len(plan.signatures), n_own, N_BINS), np.int64)
    which = np.flatnonzero(plan.usable[code])
    if not len(which):
        return
    offsets = plan.sets.offsets[code]
    cells = SampledCells(thinned.counts, np.arange(len(here)), totals)
    turned = turn(cells, np.diff(offsets) > 0, COUNTS)
    packed = pack_sample(turned, (offsets, plan.sets.sets, plan.sets.weights), which, plan.n_null)
    score, z, counted = score_lineage(packed, own, plan.centres[code], n_own)
    into.score[np.ix_(here, which)], into.z[np.ix_(here, which)] = score.T, z.T
    into.counted[code][which] = counted


def _judge_thinned(
    plan: Plan,
    thresholds: Thresholds,
    voting: Sequence[VotingGenes],
    scored: _Shallower,
    histogram: NDArray[np.int64],
    able: NDArray[np.uint8],
    cells: pd.DataFrame,
    codes: NDArray[np.int64],
    *,
    sums: NDArray[np.int64],
    n_cells: NDArray[np.int64],
    settings: CallSettings,
    arm: pd.DataFrame | None,
    threads: int,
) -> pd.DataFrame:
    """Calls of thinned cells."""
    n_codes, n_signatures, n_strata = histogram.shape[:3]
    score, z, inside, own = scored.score, scored.z, scored.inside, scored.own
    n_own = max((counted.shape[1] for counted in scored.counted.values()), default=1)
    counted = np.zeros((n_codes, n_signatures, n_own, N_BINS), np.int64)
    for code, found in scored.counted.items():
        counted[code, :, : found.shape[1]] = found
    own_able = power.powered(
        voting, score=score, z=z, centres=plan.centres, histogram=counted, codes=codes,
        strata=own, totals=scored.totals, sums=sums, n_cells=n_cells, kind=COUNTS,
        level=settings.fdr, on_cp10k=settings.on_cp10k, share=settings.power, threads=threads,
    )  # fmt: skip
    # below the run's shallowest cell
    own_able[own_able > 0] = keys.SHALLOW
    joined = np.where(inside >= 0, inside, np.where(own >= 0, n_strata + own, -1))
    seen = np.concatenate([able, own_able], axis=1)[codes, np.maximum(joined, 0)]
    seen[joined < 0] = keys.UNSEEN

    def frame(values: NDArray[np.generic]) -> pd.DataFrame:
        return pd.DataFrame(values, index=cells.index, columns=list(plan.signatures))

    p = p_values(z, codes, inside, histogram, threads=threads)
    p = np.where(own[:, None] >= 0, p_values(z, codes, own, counted, threads=threads), p)
    medians = np.concatenate([null_medians(histogram), null_medians(counted)], axis=2)
    pvalue, aligned = frame(p), frame(align_depth(z, codes, joined, medians))
    lineage = np.asarray(cells[keys.OBS_LINEAGE].astype(object), dtype=object)
    tables = calling.Tables(aligned, pvalue, thresholds.adjusted(pvalue, lineage))
    if arm is not None:
        tables = with_arm(tables, arm)
    return calling.verdicts(tables, cells, frame(seen), settings=settings, adjust=thresholds.adjust)


def compare(
    before: pd.DataFrame,
    after: pd.DataFrame,
    cells: pd.DataFrame,
    below: NDArray[np.bool_],
    depth: float,
) -> pd.DataFrame:
    """Rows of the certificate for one depth: what became of every call."""
    lineage = np.asarray(cells[keys.OBS_LINEAGE].astype(object), dtype=object)
    rows: list[dict[str, object]] = []
    for name in keys.LINEAGES:
        for call in _CALLS:
            old = np.asarray(before[call].astype(object), dtype=object)
            new = np.asarray(after[call].astype(object), dtype=object)
            here = (lineage == name) & ~pd.isna(old)
            if not here.any():
                continue
            groups = [(s, here & (old == s)) for s in _VOCABULARY[call]]
            groups.append((ALL_CALLS, here & (old != INDETERMINATE)))
            for state, members in groups:
                rows.append(
                    {"depth": depth, "lineage": name, "call": call, "state": state}
                    | _fate(old[members], new[members])
                    | {"n_below_range": int(below[members].sum())}
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _fate(old: NDArray[np.object_], new: NDArray[np.object_]) -> dict[str, object]:
    n = len(old)
    kept = new == old
    lost = (new == INDETERMINATE) & ~kept
    flipped = ~kept & ~lost
    became = pd.Series(new[flipped], dtype=object).value_counts()
    ordered = sorted(became.items(), key=lambda item: (-item[1], str(item[0])))
    out: dict[str, object] = {"n_cells": n}
    for what, members in (("kept", kept), ("indeterminate", lost), ("flipped", flipped)):
        out[f"n_{what}"] = int(members.sum())
        out[f"frac_{what}"] = float(members.mean()) if n else np.nan
    return out | {"flipped_to": " ".join(f"{state}:{count}" for state, count in ordered)}


def sentences(table: pd.DataFrame) -> list[str]:
    """The certificate in words, one sentence per depth and lineage, for reports.

    Examples
    --------
    >>> row = dict(
    ...     depth=0.5,
    ...     lineage="T",
    ...     call="t_state",
    ...     state="all calls",
    ...     n_cells=200,
    ...     frac_kept=0.97,
    ...     frac_indeterminate=0.02,
    ...     frac_flipped=0.01,
    ... )
    >>> sentences(pd.DataFrame([row]))
    ['At 50 % of the depth, of 200 T calls 97 % stand, 2 % become indeterminate, 1 % change.']
    """
    said = []
    for row in table[(table["state"] == ALL_CALLS) & (table["n_cells"] > 0)].itertuples():
        # the senescence call of a T cell follows from its state
        if row.lineage == "T" and row.call != keys.OBS_T_STATE:
            continue
        said.append(
            f"At {row.depth:.0%} of the depth, of {row.n_cells:,} {row.lineage} calls "
            f"{row.frac_kept:.0%} stand, {row.frac_indeterminate:.0%} become indeterminate, "
            f"{row.frac_flipped:.0%} change.".replace("%", " %")
        )
    return said
