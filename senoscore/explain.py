"""Why a cell has its score and its call: gene by gene, and what each gene's absence would change.

A score is a sum over genes, so it can be taken apart without remainder:

    d = sum over g of  sign w (x_g - mean of x over g's controls)
    z = sum over g of  (contribution of g) / sd of the cell's null sets  -  reference

where the reference is what the run subtracts from every cell: the centre of the signature in the
lineage, and the median of the null at the cell's depth.

To see whether a call rests on one gene, each gene is left out in turn: out of the signature, and its
controls out of every null set. Computed anew are the cell's d, the spread of its null sets and so z;
the centre of the signature and of each null set (over the cells the run sampled); the pooled null of
the cell's depth. Held fixed are the genes' controls and their draw, the depth strata, the run's
relation between p and adjusted p (no other cell changes), what antibodies say, and what is powered. A gene that votes in
several signatures is left out of all of them at once, as if it had not been measured.

The run's null counts all cells of the lineage, the new one those sampled. Where these are not the
same cells, p is read off the run's null and multiplied by the ratio of the two sampled nulls (without
the gene and with it) at the same z: the tails are the run's, only their change is estimated.

In a run against a frozen reference the controls, centres, null and thresholds are the reference's; by
how much a gene's absence moves centres and null is estimated in the cells that the run sampled (fewer
than ten: not at all).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from senoscore import calling, keys
from senoscore.adjust import Recorder, Thresholds
from senoscore.citeseq import used_arm, with_arm
from senoscore.donors import donor_names
from senoscore.errors import InputDataError
from senoscore.inputs import read_input
from senoscore.io.blocks import RowBlocks, open_blocks
from senoscore.kernels.passes import (
    COUNTS,
    FIX_X,
    LOG,
    N_BINS,
    TARGET_SUM,
    UNIT,
    make_walk,
    null_z_rows,
)
from senoscore.null import (
    MIN_CELLS,
    ControlGenes,
    Plan,
    Rows,
    VotingGenes,
    align_depth,
    bin_of,
    build_sets,
    centre_of,
    draw_order,
    draw_sets,
    fixed_weights,
    join_sets,
    null_medians,
    p_values,
)
from senoscore.scoring import (
    choose_signatures,
    control_eligible,
    finish,
    finish_fitted,
    group_codes,
    id_rank,
    passes_again,
    powered_cells,
    prepare,
    require_scored,
    value_kind,
)
from senoscore.settings import CallSettings, Settings
from senoscore.streaming import Intake

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore.reference import Fitted

MAX_CELLS: Final = 200
_AT_ONCE: Final = 10
# rows nearer to each other than this are read in one go
_GAP: Final = 512

_CALLS: Final = (keys.OBS_T_STATE, keys.OBS_SENESCENCE_CALL)
_CELL_FACTS: Final = (
    keys.OBS_LINEAGE,
    keys.OBS_T_SUBSET,
    keys.OBS_QC_PASS,
    *calling.DOUBLET_FLAGS,
)


# -------------------------------------------------------------------------------------------------
# a run, as far as explanations need it


@dataclass(frozen=True)
class Judged:
    """A run as it stood when it made its calls: from its artefacts, or made again in memory.

    names, cells, donor, group: of all cells; `group` is the subset in words. voting, usable,
    score, z, pvalue, padj, aligned: of the signatures kept, columns in the order of `voting`
    (z as in the null, `aligned` as reported). calls: None where groups are not lineages. arm: the
    phenotype arm by antibodies, which no gene's absence changes; None where calls rest on RNA. read:
    rows -> their expression values, one column per gene. resting: as in `null.Plan`, of the
    signatures kept.
    """

    names: pd.Index
    cells: pd.DataFrame
    donor: NDArray[np.object_]
    group: NDArray[np.object_]
    lineages: tuple[str, ...]
    codes: NDArray[np.int64]
    strata: NDArray[np.int64]
    totals: NDArray[np.float64]
    voting: tuple[VotingGenes, ...]
    usable: NDArray[np.bool_]
    symbols: NDArray[Any]
    sums: NDArray[np.int64]
    eligible: NDArray[np.bool_]
    rank: NDArray[np.int64]
    centres: NDArray[np.float64]
    resting: Mapping[tuple[int, int], NDArray[np.int64]]
    fitted: Fitted | None
    kind: int
    n_null: int
    seed: int
    sample: Rows
    sample_rows: NDArray[np.int64]
    histogram: NDArray[np.int64]
    score: NDArray[np.float64]
    tables: calling.Tables
    powered: pd.DataFrame
    thresholds: Thresholds
    calls: pd.DataFrame | None
    settings: CallSettings
    arm: pd.DataFrame | None
    read: Callable[[NDArray[np.int64]], sparse.csr_matrix]

    @property
    def signatures(self) -> tuple[str, ...]:
        """Names of the signatures kept."""
        return tuple(v.name for v in self.voting)


def judge(
    *,
    cells: pd.DataFrame,
    plan: Plan,
    voting: Sequence[VotingGenes],
    histogram: NDArray[np.int64],
    score: NDArray[np.float64],
    z: NDArray[np.float64],
    able: NDArray[np.uint8],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    keep: Sequence[str],
    settings: CallSettings,
    arm: pd.DataFrame | None = None,
    fitted: Fitted | None = None,
    **others: Any,
) -> Judged:
    """The calls of a run, made again from its scores, for the signatures in `keep`.

    Parameters
    ----------
    cells
        ``lineage`` (or the column of groups under that name), ``t_subset``, ``qc_pass``,
        and the flags of doublets there are (`calling.DOUBLET_FLAGS`).
    plan, voting, histogram, score, z, able, codes, strata
        What both passes left, for all signatures of `plan`.
    keep
        Signatures to keep.
    settings
        Thresholds.
    arm
        Phenotype arm by antibodies, one row per cell, where calls rest on it.
    fitted
        The frozen reference by whose null and thresholds the cells were judged, if any; then
        `histogram` and `able` are its own.
    others
        The remaining fields of `Judged`.
    """
    at = [k for k, name in enumerate(plan.signatures) if name in set(keep)]
    names = [plan.signatures[k] for k in at]
    index = cells.index
    found = (
        finish(score[:, at], z[:, at], histogram[:, at], codes, strata)
        if fitted is None
        else finish_fitted(score, z, fitted, codes, strata).take(at)
    )
    score, z, histogram = score[:, at], z[:, at], histogram[:, at]

    def frame(values: NDArray[Any]) -> pd.DataFrame:
        return pd.DataFrame(values, index=index, columns=names)

    tables = calling.Tables(frame(found.z), frame(found.pvalue), frame(found.padj))
    rna = tables
    if arm is not None:
        tables = with_arm(tables, arm)
    powered = frame(powered_cells(able[:, :, at], codes, strata))
    recorder, calls = Recorder(), None
    if set(plan.lineages) <= set(keys.LINEAGES):
        adjust = recorder if fitted is None else fitted.thresholds.adjust
        calls = calling.verdicts(tables, cells, powered, settings=settings, adjust=adjust)
    lineage = np.asarray(cells[keys.OBS_LINEAGE].astype(object), dtype=object)
    thresholds = (
        Thresholds.of(
            rna.pvalue, rna.padj, lineage, recorder.curves,
            dict.fromkeys(plan.lineages, tuple(names)),
        )
        if fitted is None
        else fitted.thresholds
    )  # fmt: skip
    return Judged(
        names=index, cells=cells, lineages=plan.lineages, codes=codes, strata=strata,
        voting=tuple(voting[k] for k in at), usable=plan.usable[:, at], n_null=plan.n_null,
        histogram=histogram, score=score, tables=tables, powered=powered, thresholds=thresholds,
        calls=calls, settings=settings, arm=arm, centres=plan.centres[:, at], fitted=fitted,
        resting={(c, at.index(s)): near for (c, s), near in plan.resting.items() if s in at},
        **others,
    )  # fmt: skip


def judge_adata(
    adata: AnnData,
    *,
    signatures: Any = None,
    signature: str | None = None,
    donor: pd.Series | None = None,
    settings: CallSettings | None = None,
    threads: int = 1,
) -> Judged:
    """An AnnData scored in place (`tl.score`), scored again as far as explanations need it.

    Raises
    ------
    InputDataError
        It is not scored, or has changed since.
    """
    settings = settings or called_with(adata)
    how = _how_scored(adata)
    groupby = how.pop("groupby")
    data = read_input(adata, layer=how.pop("layer"))
    codes, groups = group_codes(adata, groupby)
    restrict = groupby is not None and set(groups) <= set(keys.LINEAGES)
    columns = list(adata.obsm[keys.OBSM_SCORE])
    chosen = choose_signatures(signatures if signatures is not None else columns)
    keep = set(columns)
    if restrict:
        keep &= {name for lineage in groups for name in calling.deciding(lineage)}
    if signature is not None:
        keep.add(signature)
    prepared = prepare(
        chosen.select([name for name in chosen if name in keep]), data.genes, lineages=groups,
        min_coverage=how.pop("min_coverage"), min_genes_found=how.pop("min_genes_found"),
        restrict=restrict,
    )  # fmt: skip
    if signature is not None:
        require_scored(prepared, signature)
    kind, log_base = value_kind(data.scale, data.matrix)
    intake = Intake(data.genes, kind, log_base)
    made = passes_again(adata, data, prepared, codes, threads=threads, **how)

    def read(rows: NDArray[np.int64]) -> sparse.csr_matrix:
        with open_blocks(adata, matrix=data.matrix) as blocks:
            return read_rows(blocks, intake, rows, threads=threads)

    cells = cell_facts(adata, np.asarray([*groups, None], dtype=object)[codes])
    subset = cells[keys.OBS_T_SUBSET].fillna("").astype(str)
    judged = judge(
        cells=cells, plan=made.plan, voting=prepared.voting, histogram=made.scored.histogram,
        score=made.scored.score, z=made.scored.z, able=made.able, codes=codes, strata=made.strata,
        keep=sorted(keep), settings=settings,
        donor=donor_names(donor, adata.n_obs),
        group=np.asarray((cells[keys.OBS_LINEAGE].astype(str) + " " + subset).str.strip()),
        totals=made.totals, symbols=data.genes.symbols, sums=made.first.sums,
        eligible=control_eligible(data.genes), rank=id_rank(data.genes), kind=kind,
        seed=how["seed"], sample=made.first.sample,
        sample_rows=made.first.sample_rows, read=read, arm=used_arm(adata, settings),
    )  # fmt: skip
    _check_adata(adata, judged)
    return judged


def called_with(adata: AnnData) -> CallSettings:
    """The settings `tl.call` had; the defaults where it told none."""
    return Settings.from_mapping(json.loads(adata.uns.get(keys.UNS, {}).get("settings", "{}"))).call


def _how_scored(adata: AnnData) -> dict[str, Any]:
    written = adata.uns.get(keys.UNS, {})
    if "reference" in written:
        raise InputDataError(
            "these cells were scored against a frozen reference: analyse them with it "
            "(score.reference) into a results folder, and explain that"
        )
    if keys.OBSM_PADJ not in adata.obsm or "scored" not in written:
        hint = (
            "it holds scores, not expression: give the results folder instead"
            if "facts" in written
            else "run senoscore.tl.score(adata) with method='matched' first"
        )
        raise InputDataError(f"this AnnData cannot be explained: {hint}")
    return dict(json.loads(written["scored"]))


def cell_facts(adata: AnnData, lineage: NDArray[np.object_]) -> pd.DataFrame:
    """What calls need to know of cells besides their scores."""
    n = adata.n_obs
    obs = adata.obs
    defaults: dict[str, Any] = {
        keys.OBS_T_SUBSET: np.full(n, None, dtype=object),
        keys.OBS_QC_PASS: np.ones(n, bool),
    }
    known = {
        name: obs[name].astype(values.dtype).to_numpy() if name in obs else values
        for name, values in defaults.items()
    } | {name: obs[name].to_numpy() for name in calling.DOUBLET_FLAGS if name in obs}
    return pd.DataFrame({keys.OBS_LINEAGE: lineage, **known}, index=adata.obs_names)


def _check_adata(adata: AnnData, judged: Judged) -> None:
    old = adata.obsm[keys.OBSM_SCORE]
    names = [name for name in judged.signatures if name in old]
    at = [judged.signatures.index(name) for name in names]
    if not np.allclose(
        old[names].to_numpy(np.float64), judged.score[:, at], atol=1e-6, equal_nan=True
    ):
        raise InputDataError(
            "scores made again differ from those in obsm['senoscore_score']: the AnnData has changed "
            "since; run senoscore.tl.score(adata) again"
        )
    if judged.calls is None:
        return
    for call in _CALLS:
        if call not in adata.obs:
            continue
        same = np.asarray(adata.obs[call].astype(object), dtype=object) == np.asarray(
            judged.calls[call].astype(object), dtype=object
        )
        if not (same | np.asarray(adata.obs[call].isna())).all():
            raise InputDataError(
                f"obs['{call}'] comes from other settings or scores: pass the settings that "
                "senoscore.tl.call had, or run it again"
            )


def read_rows(
    blocks: RowBlocks, intake: Intake, rows: NDArray[np.int64], *, threads: int = 1
) -> sparse.csr_matrix:
    """Some rows of a matrix (ascending), one column per gene; the others are left alone.

    Rows that lie close together are read in one go. A matrix stored by columns is read once.
    """
    parts = []
    for first, last in _runs(rows, _GAP if blocks.storage != "csc" else blocks.n_obs):
        for block in blocks.iter_blocks(rows=(first, last), threads=threads):
            here = rows[(rows >= block.start) & (rows < block.start + block.n_obs)]
            if len(here):
                parts.append(intake(block).to_csr()[here - block.start])
    if not parts:
        return sparse.csr_matrix((0, intake.n_genes), dtype=np.float32)
    return sparse.vstack(parts, format="csr")


def _runs(rows: NDArray[np.int64], gap: int) -> Iterator[tuple[int, int]]:
    if len(rows):
        cuts = np.flatnonzero(np.diff(rows) > gap) + 1
        for part in np.split(rows, cuts):
            yield int(part[0]), int(part[-1]) + 1


# -------------------------------------------------------------------------------------------------
# which cells


def choose_cells(
    judged: Judged,
    *,
    cells: str | Sequence[str] | None = None,
    state: str | None = None,
    donor: str | None = None,
    lineage: str | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Rows to explain, by group: the cells named, those of a state, or a donor's subsets.

    Raises
    ------
    InputDataError
        None or several of `cells`, `state` and `donor` given, or nothing found.
    """
    given = [what is not None for what in (cells, state, donor)]
    if sum(given) != 1:
        raise InputDataError(f"{sum(given)} of cells, state and donor were given: give one of them")
    scored = np.asarray(~np.isnan(judged.score).all(axis=1), bool)
    if cells is not None:
        wanted = [cells] if isinstance(cells, str) else list(cells)
        missing = [name for name in wanted if name not in set(judged.names)]
        if missing:
            raise InputDataError(
                f"there is no cell named {missing[0]!r}; names look like {judged.names[0]!r}"
            )
        rows = np.flatnonzero(np.isin(np.asarray(judged.names, dtype=object), wanted))
        unscored = rows[~scored[rows]]
        if len(unscored):
            raise InputDataError(
                f"cell {judged.names[unscored[0]]!r} was not scored: it has no lineage, or none of "
                "the signatures is valid in it"
            )
        return {str(judged.names[row]): np.asarray([row]) for row in rows}
    if state is not None:
        return {state: _of_state(judged, state, lineage or "T", scored)}
    here = (judged.donor == donor) & scored & judged.cells[keys.OBS_QC_PASS].to_numpy(bool)
    if lineage is not None:
        here &= np.asarray(judged.cells[keys.OBS_LINEAGE].astype(object) == lineage)
    if not here.any():
        known = sorted({str(d) for d in judged.donor} - {""})
        raise InputDataError(
            f"donor {donor!r} has no scored cells here; there are {', '.join(known) or 'no donors'}"
        )
    groups = judged.group[here]
    return {name: np.flatnonzero(here & (judged.group == name)) for name in sorted(set(groups))}


def _of_state(
    judged: Judged, state: str, lineage: str, scored: NDArray[np.bool_]
) -> NDArray[np.int64]:
    if judged.calls is None:
        raise InputDataError("these cells have no calls, for they were not scored by lineage")
    column, known = (
        (keys.OBS_T_STATE, keys.T_STATES)
        if lineage == "T"
        else (keys.OBS_SENESCENCE_CALL, keys.SENESCENCE_CALLS)
    )
    if lineage not in keys.LINEAGES or state not in known:
        what = "lineage" if lineage not in keys.LINEAGES else f"state of {lineage} cells"
        choices = keys.LINEAGES if lineage not in keys.LINEAGES else known
        wrong = lineage if lineage not in keys.LINEAGES else state
        raise InputDataError(f"'{wrong}' is no {what}; there are {', '.join(choices)}")
    here = np.asarray(judged.calls[column].astype(object) == state) & scored
    here &= np.asarray(judged.cells[keys.OBS_LINEAGE].astype(object) == lineage)
    if not here.any():
        raise InputDataError(f"no scored {lineage} cell is {state} here")
    return np.flatnonzero(here)


def thin_out(rows: NDArray[np.int64], names: pd.Index, n: int) -> NDArray[np.int64]:
    """At most `n` of the rows, chosen by a hash of their names; all, if there are no more."""
    if len(rows) <= n:
        return rows
    hashed = pd.util.hash_array(np.asarray(names[rows], dtype=object))
    return np.sort(rows[np.argsort(hashed, kind="stable")[:n]])


# -------------------------------------------------------------------------------------------------
# taking a score apart


@dataclass(frozen=True)
class Parts:
    """One signature in some cells of one lineage, gene by gene (cells × genes).

    positions, weights: of the genes. x, control: expression, and the mean over the gene's
    controls. contribution: in units of d. sd: of each cell's null sets, in units of d.
    """

    positions: NDArray[np.int64]
    weights: NDArray[np.float64]
    x: NDArray[np.float64]
    control: NDArray[np.float64]
    contribution: NDArray[np.float64]
    sd: NDArray[np.float64]


def fixed_expression(
    values: sparse.csr_matrix, totals: NDArray[np.float64], kind: int
) -> sparse.csr_matrix:
    """Expression in the fixed point of the second pass (`kernels.passes.FIX_X` bits)."""
    data = values.data.astype(np.float64)
    if kind == COUNTS:
        per_cell = np.repeat(totals, np.diff(values.indptr))
        data = np.log1p(data * TARGET_SUM / per_cell)
    elif kind != LOG:
        data = np.log1p(data)
    fixed = np.rint(data * 2**FIX_X).astype(np.int64)
    return sparse.csr_matrix((fixed, values.indices, values.indptr), shape=values.shape)


def take_apart(x: sparse.csr_matrix, genes: VotingGenes, controls: NDArray[np.int64]) -> Parts:
    """Contribution of every gene to d, from fixed-point expression and the genes' controls."""
    n_genes, n_null = controls.shape
    weights = fixed_weights(genes.weights)
    ones = np.ones(controls.size, np.int64)
    shape = (x.shape[1], n_genes)
    of_gene = np.repeat(np.arange(n_genes), n_null)
    # cells × genes: sum of x over the gene's controls, each as often as it was drawn
    drawn = sparse.csr_matrix((ones, (controls.ravel(), of_gene)), shape=shape)
    control = (x @ drawn).toarray()
    own = x[:, genes.positions].toarray()
    # cells × null sets
    in_set = np.tile(np.arange(n_null), n_genes)
    sets = sparse.csr_matrix(
        (np.repeat(weights, n_null), (controls.ravel(), in_set)), shape=(x.shape[1], n_null)
    )
    null = (x @ sets).toarray() / UNIT
    return Parts(
        positions=genes.positions,
        weights=genes.weights,
        x=own / 2.0**FIX_X,
        control=control / n_null / 2.0**FIX_X,
        contribution=weights * (n_null * own - control) / n_null / UNIT,
        sd=null.std(axis=1, ddof=1),
    )


def leave_out(
    genes: VotingGenes, controls: NDArray[np.int64]
) -> list[tuple[VotingGenes, tuple[NDArray[np.int64], NDArray[np.float64]] | None]]:
    """The signature whole, then without each of its genes in turn, with what is left of its draw."""
    variants: list[Any] = [(genes, (controls, genes.weights))]
    for k in range(len(genes.positions)):
        keep = np.arange(len(genes.positions)) != k
        rest = replace(
            genes,
            positions=genes.positions[keep],
            weights=genes.weights[keep],
            ids=tuple(i for i, kept in zip(genes.ids, keep, strict=True) if kept),
        )
        variants.append((rest, (controls[keep], rest.weights) if keep.any() else None))
    return variants


@dataclass(frozen=True)
class Without:
    """z (as reported) and p of some cells without each gene in turn (cells × genes)."""

    z: NDArray[np.float64]
    pvalue: NDArray[np.float64]


def judge_without(
    judged: Judged,
    code: int,
    signature: int,
    genes: VotingGenes,
    controls: NDArray[np.int64],
    cells: sparse.csr_matrix,
    rows: NDArray[np.int64],
) -> Without:
    """z and p without each gene, against the null without it."""
    here = (judged.codes == code) & (judged.strata >= 0)
    fixed = judged.fitted is not None
    if fixed:
        here &= judged.cells[keys.OBS_QC_PASS].to_numpy(bool)
    sampled = np.flatnonzero(here[judged.sample_rows])
    # a reference scores single cells too: with so few the null and the centres stay as they are
    alone = fixed and len(sampled) < MIN_CELLS
    # what a reference holds is drawn, whether these cells express it or not
    sums = np.ones_like(judged.sums[code]) if fixed else judged.sums[code]
    sample, at = judged.sample[sampled], judged.sample_rows[sampled]
    n_strata = judged.histogram.shape[2]
    z, null = [], []
    variants = leave_out(genes, controls)
    for first in range(0, len(variants), _AT_ONCE):
        some = variants[first : first + _AT_ONCE]
        table = build_sets([v for v, _ in some], [d for _, d in some], sums, n_null=judged.n_null)
        null_z = _null_z(judged, sample, judged.totals[at], table, len(some))
        centre = centre_of(null_z)
        if first == 0:
            whole_centre = centre[0].copy()
        if fixed:
            # the reference's own, and by how much the gene's absence moves it here
            moved = np.zeros_like(centre) if alone else centre - whole_centre
            centre = judged.centres[code, signature] + moved
        null_z -= centre
        own = _null_z(judged, cells, judged.totals[rows], table, len(some))
        z.append(own[:, :, 0] - centre[:, 0])
        null.append(_counted(null_z[:, :, 1:], judged.strata[at], n_strata))
    own_z, counted = np.hstack(z), np.concatenate(null)
    run = judged.histogram[code, signature]

    def p_in(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
        zero = np.zeros(len(rows), np.int64)
        everywhere = np.broadcast_to(histogram, (len(variants), *run.shape))
        return p_values(own_z, zero, judged.strata[rows], everywhere[None])

    whole_run, whole, part = p_in(run), p_in(counted[0]), p_in(counted)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(whole_run == whole, part, np.minimum(1.0, whole_run * part / whole))
    if alone:
        p = whole_run
    medians = null_medians(run) + null_medians(counted) - null_medians(counted[0])
    aligned = align_depth(own_z, np.zeros(len(rows), np.int64), judged.strata[rows], medians[None])
    return Without(aligned[:, 1:], p[:, 1:])


def _null_z(
    judged: Judged,
    cells: sparse.csr_matrix,
    totals: NDArray[np.float64],
    table: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]],
    n_sets: int,
) -> NDArray[np.float64]:
    out = np.empty((len(totals), n_sets, judged.n_null + 1))
    null_z_rows(
        cells.indptr.astype(np.int64), cells.indices.astype(np.int32), cells.data, judged.kind,
        totals, *make_walk(join_sets([table], len(table[0]) - 1)), judged.n_null, out,
    )  # fmt: skip
    return out


def _counted(z: NDArray[np.float64], strata: NDArray[np.int64], n_strata: int) -> NDArray[np.int64]:
    """Histogram of each set's null: sets × strata × bins."""
    place = bin_of(z) + strata[:, None, None] * N_BINS
    out = np.empty((z.shape[1], n_strata, N_BINS), np.int64)
    for v in range(z.shape[1]):
        known = ~np.isnan(z[:, v])
        out[v] = np.bincount(place[:, v][known], minlength=n_strata * N_BINS).reshape(out.shape[1:])
    return out


# -------------------------------------------------------------------------------------------------
# explanations


@dataclass(frozen=True)
class Explanation:
    """Scores taken apart, and calls tried without each gene. All tables are tidy.

    groups: ``group``, ``n_cells`` (how many there are) and ``n_explained`` (how many were looked
    at, chosen by a hash of their names).

    scores: one row per cell and signature: ``score`` (d), ``z``, ``z_reference``, ``pvalue``,
    ``padj``. The ``z_contribution`` of its genes sum to ``z + z_reference``.

    contributions: one row per cell, signature and gene: ``weight`` (signed), ``expression``,
    ``control_mean``, ``contribution`` (sum to ``score``), ``z_contribution``, and ``z_without``,
    ``pvalue_without``, ``padj_without``: of the signature without this gene.

    removals: one row per cell and gene: ``t_state`` and ``senescence_call`` without this gene in
    any signature, and whether the call is ``kept``. Empty where cells have no calls.

    stability: one row per cell: ``t_state``, ``senescence_call``, ``n_removals``, ``n_kept``,
    ``frac_kept``, ``depends_on`` (genes without which the call is another, space-separated).

    genes: one row per group, lineage, signature and gene: means over the group's cells, and
    ``frac_call_lost``, the share of them whose call is another without the gene.
    """

    groups: pd.DataFrame
    scores: pd.DataFrame
    contributions: pd.DataFrame
    removals: pd.DataFrame
    stability: pd.DataFrame
    genes: pd.DataFrame
    fdr: float

    def to_frame(self) -> pd.DataFrame:
        """One table to keep: ``genes``, or for single cells ``contributions`` with what was lost.

        Single cells get the call without each gene: ``t_state_without``,
        ``senescence_call_without`` and ``call_kept``.
        """
        if (self.groups["n_cells"] > 1).any():
            return self.genes
        if self.removals.empty:
            return self.contributions
        names = {call: f"{call}_without" for call in _CALLS} | {"kept": "call_kept"}
        tried = self.removals.rename(columns=names)
        return self.contributions.merge(tried, on=["cell", "group", "lineage", "gene"], how="left")

    def describe(self, *, n_genes: int = 8) -> str:
        """The explanation in words, for a terminal."""
        return "\n".join(_describe(self, n_genes))


_GENE: Final = ["group", "lineage", "signature", "gene"]


def explain_cells(
    judged: Judged,
    groups: Mapping[str, NDArray[np.int64]],
    *,
    signature: str | None = None,
    max_cells: int = MAX_CELLS,
) -> Explanation:
    """Take the scores of these cells apart, and try their calls without each gene.

    Parameters
    ----------
    judged
        The run.
    groups
        Rows by group (`choose_cells`).
    signature
        Only this signature; None takes all that can change the cells' calls.
    max_cells
        Cells of a group that are looked at.

    Raises
    ------
    InputDataError
        The signature was not scored in these cells, or the values are not those that were scored.
    """
    chosen = {name: thin_out(rows, judged.names, max_cells) for name, rows in groups.items()}
    sizes = pd.DataFrame(
        {
            "group": list(groups),
            "n_cells": [len(rows) for rows in groups.values()],
            "n_explained": [len(rows) for rows in chosen.values()],
        }
    )
    rows = np.unique(np.concatenate(list(chosen.values())))
    values = judged.read(rows)
    if len(rows) != values.shape[0]:
        raise InputDataError(f"{values.shape[0]} of {len(rows)} cells could be read")
    group_of = {int(row): name for name, some in chosen.items() for row in some}
    label = np.asarray([group_of[int(row)] for row in rows], dtype=object)
    scores, contributions, removals = [], [], []
    for code in np.unique(judged.codes[rows]):
        here = np.flatnonzero(judged.codes[rows] == code)
        s, c, r = _explain_lineage(
            judged, int(code), rows[here], values[here], label[here], signature
        )
        scores += s
        contributions += c
        removals += r
    if not scores:
        raise InputDataError(
            f"signature '{signature}' is not scored in these cells; it is in "
            f"{', '.join(_lineages_of(judged, signature)) or 'none'}"
        )
    frames = [_stacked(parts) for parts in (scores, contributions, removals)]
    stability = _stability(judged, frames[2])
    return Explanation(
        groups=sizes,
        scores=frames[0],
        contributions=frames[1],
        removals=frames[2].drop(columns="row", errors="ignore"),
        stability=stability,
        genes=_averages(frames[1], frames[2]),
        fdr=judged.settings.fdr,
    )


def _lineages_of(judged: Judged, signature: str | None) -> list[str]:
    at = [k for k, name in enumerate(judged.signatures) if name == signature]
    return [name for code, name in enumerate(judged.lineages) if judged.usable[code, at].any()]


def _stacked(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _explain_lineage(
    judged: Judged,
    code: int,
    rows: NDArray[np.int64],
    values: sparse.csr_matrix,
    label: NDArray[np.object_],
    signature: str | None,
) -> tuple[list[pd.DataFrame], list[pd.DataFrame], list[pd.DataFrame]]:
    lineage = judged.lineages[code]
    usable = [k for k in range(len(judged.voting)) if judged.usable[code, k]]
    deciding: list[int] = []
    if judged.calls is not None:
        few = calling.deciding(lineage)
        deciding = [k for k in usable if judged.voting[k].name in few]
    shown = deciding or usable
    if signature is not None:
        shown = [k for k in usable if judged.voting[k].name == signature]
    if not shown:
        return [], [], []
    controls = ControlGenes(judged.sums[code], judged.eligible, judged.rank)
    x = fixed_expression(values, judged.totals[rows], judged.kind)
    base = {"cell": np.asarray(judged.names[rows], dtype=object), "group": label}
    scores, contributions = [], []
    without: dict[int, tuple[NDArray[np.int64], Without]] = {}
    for k in sorted({*shown, *deciding}):
        genes, drawn = _drawn(judged, code, k, controls)
        changed = judge_without(judged, code, k, genes, drawn, values, rows)
        without[k] = (genes.positions, changed)
        if k not in shown:
            continue
        parts = take_apart(x, genes, drawn)
        _check(judged, k, rows, parts)
        frame = _score_rows(judged, k, rows, parts)
        scores.append(pd.DataFrame(base | {"lineage": lineage} | frame))
        contributions.append(_gene_rows(judged, lineage, k, rows, parts, changed, label))
    removals = []
    if deciding:
        genes_out = np.unique(np.concatenate([without[k][0] for k in shown]))
        removals.append(_removals(judged, lineage, rows, label, genes_out, deciding, without))
    return scores, contributions, removals


def _drawn(
    judged: Judged, code: int, k: int, controls: ControlGenes
) -> tuple[VotingGenes, NDArray[np.int64]]:
    """The expressed genes of a signature in the order of their draw, and the draw."""
    if judged.fitted is not None:
        place = judged.fitted.plan.signatures.index(judged.voting[k].name)
        return judged.fitted.drawn[code, place]
    genes, sums = judged.voting[k], judged.sums[code]
    order = draw_order(genes, sums)
    drawn, weights = draw_sets(
        genes, controls, sums, lineage=judged.lineages[code], n_null=judged.n_null,
        seed=judged.seed, resting=judged.resting[code, k],
    )  # fmt: skip
    ids = tuple(genes.ids[g] for g in order)
    return VotingGenes(genes.name, genes.positions[order], weights, ids), drawn


def _check(judged: Judged, k: int, rows: NDArray[np.int64], parts: Parts) -> None:
    known = judged.score[rows, k]
    off = np.abs(parts.contribution.sum(axis=1) - known)
    # as far as float32 goes, in which scores are kept
    if (off > 1e-6 * (1 + np.abs(known)))[~np.isnan(known)].any():
        cell = judged.names[rows[int(np.nanargmax(off))]]
        raise InputDataError(
            f"cell {cell!r} has another score now than in the run: the file or its annotations have "
            "changed since; run it again"
        )


def _score_rows(judged: Judged, k: int, rows: NDArray[np.int64], parts: Parts) -> dict[str, object]:
    name = judged.voting[k].name
    z = judged.tables.z[name].to_numpy(np.float64)[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        in_sd = judged.score[rows, k] / parts.sd
    return {
        "signature": name,
        "score": judged.score[rows, k],
        "z": z,
        "z_reference": in_sd - z,
        "pvalue": judged.tables.pvalue[name].to_numpy(np.float64)[rows],
        "padj": judged.tables.padj[name].to_numpy(np.float64)[rows],
    }


def _gene_rows(
    judged: Judged,
    lineage: str,
    k: int,
    rows: NDArray[np.int64],
    parts: Parts,
    changed: Without,
    label: NDArray[np.object_],
) -> pd.DataFrame:
    name, n_genes = judged.voting[k].name, len(parts.positions)
    with np.errstate(invalid="ignore", divide="ignore"):
        in_sd = parts.contribution / parts.sd[:, None]
    curve = judged.thresholds.cells[lineage, name]
    return pd.DataFrame(
        {
            "cell": np.repeat(np.asarray(judged.names[rows], dtype=object), n_genes),
            "group": np.repeat(label, n_genes),
            "lineage": lineage,
            "signature": name,
            "gene": np.tile(np.asarray(judged.symbols[parts.positions], dtype=object), len(rows)),
            "weight": np.tile(parts.weights, len(rows)),
            "expression": parts.x.ravel(),
            "control_mean": parts.control.ravel(),
            "contribution": parts.contribution.ravel(),
            "z_contribution": in_sd.ravel(),
            "z_without": changed.z.ravel(),
            "pvalue_without": changed.pvalue.ravel(),
            "padj_without": curve(changed.pvalue.ravel()),
        }
    )


def _removals(
    judged: Judged,
    lineage: str,
    rows: NDArray[np.int64],
    label: NDArray[np.object_],
    genes_out: NDArray[np.int64],
    deciding: Sequence[int],
    without: Mapping[int, tuple[NDArray[np.int64], Without]],
) -> pd.DataFrame:
    """Calls of every cell without every gene: one long table judged at once."""
    shape = (len(rows), len(genes_out))
    names = [judged.voting[k].name for k in deciding]
    z, p, padj = {}, {}, {}
    for k, name in zip(deciding, names, strict=True):
        positions, changed = without[k]
        votes = np.isin(genes_out, positions)
        column = {int(g): c for c, g in enumerate(positions)}
        at = np.asarray([column[int(g)] for g in genes_out[votes]], np.int64)

        def table(whole: pd.DataFrame, name: str = name) -> NDArray[np.float64]:
            own = whole[name].to_numpy(np.float64)[rows]
            return np.broadcast_to(own[:, None], shape).copy()

        new_z, new_p, new_q = map(
            table, (judged.tables.z, judged.tables.pvalue, judged.tables.padj)
        )
        if len(at):
            new_z[:, votes], new_p[:, votes] = changed.z[:, at], changed.pvalue[:, at]
            curve = judged.thresholds.cells[lineage, name]
            new_q[:, votes] = curve(changed.pvalue[:, at].ravel()).reshape(len(rows), -1)
        if name == calling.PHENOTYPE and judged.arm is not None:
            fixed = judged.arm["padj"].notna().to_numpy()[rows]
            for new, whole in (
                (new_z, judged.tables.z),
                (new_p, judged.tables.pvalue),
                (new_q, judged.tables.padj),
            ):
                new[fixed] = table(whole)[fixed]
        z[name], p[name], padj[name] = new_z.ravel(), new_p.ravel(), new_q.ravel()
    repeated = np.repeat(rows, len(genes_out))
    calls = calling.verdicts(
        calling.Tables(pd.DataFrame(z), pd.DataFrame(p), pd.DataFrame(padj)),
        judged.cells[[name for name in _CELL_FACTS if name in judged.cells]]
        .iloc[repeated]
        .reset_index(drop=True),
        judged.powered[names].iloc[repeated].reset_index(drop=True),
        settings=judged.settings,
        adjust=judged.thresholds.adjust,
    )
    out = pd.DataFrame(
        {
            "cell": np.asarray(judged.names[repeated], dtype=object),
            "group": np.repeat(label, len(genes_out)),
            "lineage": lineage,
            "gene": np.tile(np.asarray(judged.symbols[genes_out], dtype=object), len(rows)),
            "row": repeated,
        }
    )
    assert judged.calls is not None
    kept = np.ones(len(out), bool)
    for call in _CALLS:
        new = np.asarray(calls[call].astype(object), dtype=object)
        old = np.asarray(judged.calls[call].astype(object), dtype=object)[repeated]
        out[call] = new
        kept &= (new == old) | (pd.isna(new) & pd.isna(old))
    out["kept"] = kept
    return out


def _stability(judged: Judged, removals: pd.DataFrame) -> pd.DataFrame:
    columns = [
        "cell", "group", "lineage", *_CALLS, "n_removals", "n_kept", "frac_kept", "depends_on",
    ]  # fmt: skip
    if removals.empty:
        return pd.DataFrame(columns=columns)
    assert judged.calls is not None
    rows = []
    for row, own in removals.groupby("row", sort=True):
        calls = judged.calls.iloc[int(row)]
        rows.append(
            {
                "cell": own["cell"].iloc[0],
                "group": own["group"].iloc[0],
                "lineage": own["lineage"].iloc[0],
                **{call: calls[call] for call in _CALLS},
                "n_removals": len(own),
                "n_kept": int(own["kept"].sum()),
                "frac_kept": float(own["kept"].mean()),
                "depends_on": " ".join(own.loc[~own["kept"], "gene"]),
            }
        )
    return pd.DataFrame(rows, columns=columns)


def _averages(contributions: pd.DataFrame, removals: pd.DataFrame) -> pd.DataFrame:
    means = {
        "weight": ("weight", "first"),
        "n_cells": ("cell", "size"),
        **{
            name: (name, "mean")
            for name in ("expression", "control_mean", "contribution", "z_contribution")
        },
    }
    table = contributions.groupby(_GENE, sort=False, as_index=False).agg(**means)
    if removals.empty:
        return table.assign(frac_call_lost=np.nan)
    lost = (
        removals.groupby(["group", "lineage", "gene"], as_index=False)["kept"]
        .agg(lambda kept: 1 - kept.mean())
        .rename(columns={"kept": "frac_call_lost"})
    )
    return table.merge(lost, on=["group", "lineage", "gene"], how="left")


# -------------------------------------------------------------------------------------------------
# words


def _describe(e: Explanation, n_genes: int) -> Iterator[str]:
    for n, group in enumerate(e.groups.itertuples()):
        if n:
            yield ""
        scores = e.scores[e.scores["group"] == group.group]
        genes = e.genes[e.genes["group"] == group.group]
        stable = e.stability[e.stability["group"] == group.group]
        yield _headline(group, stable)
        for signature in _worth_showing(scores, e.fdr):
            own = scores[scores["signature"] == signature]
            yield f"  {signature}: {_score_words(own)}"
            rows = genes[genes["signature"] == signature]
            order = rows["z_contribution"].abs().sort_values(ascending=False).index[:n_genes]
            for row in rows.loc[order].itertuples():
                yield (
                    f"    {row.gene:<12}{row.contribution:+8.3f} d {row.z_contribution:+7.2f} z"
                    f"   (expression {row.expression:.2f}, controls {row.control_mean:.2f}, "
                    f"weight {row.weight:+g})"
                )
            if len(rows) > n_genes:
                rest = rows.drop(order)["z_contribution"].sum()
                yield f"    {len(rows) - n_genes} more {rest:+.2f} z"
        yield from _stability_words(stable, genes)


def _headline(group: Any, stable: pd.DataFrame) -> str:
    if group.n_cells == 1:
        name = f"cell {group.group}"
        if len(stable):
            row = stable.iloc[0]
            state = row[keys.OBS_T_STATE] if row["lineage"] == "T" else row[_CALLS[1]]
            name += f": {row['lineage']}, {state}"
        return name
    part = "" if group.n_cells == group.n_explained else f", {group.n_explained:,} looked at"
    return f"{group.group}: {group.n_cells:,} cells{part}"


def _worth_showing(scores: pd.DataFrame, fdr: float) -> list[str]:
    """Signatures significant in most of the cells; those the call is about if none is."""
    share = (scores["padj"] <= fdr).groupby(scores["signature"], sort=False).mean()
    wanted = [str(name) for name in share.index[share > 0.5]]
    about = [name for lineage in scores["lineage"].unique() for name in calling.subject(lineage)]
    return wanted or [name for name in about if name in share] or [str(n) for n in share.index[:2]]


def _score_words(scores: pd.DataFrame) -> str:
    if len(scores) == 1:
        row = scores.iloc[0]
        return (
            f"d {row['score']:.3f}, z {row['z']:.2f}, p {row['pvalue']:.2g}, FDR {row['padj']:.2g}"
        )
    return f"mean d {scores['score'].mean():.3f}, mean z {scores['z'].mean():.2f}"


def _stability_words(stable: pd.DataFrame, genes: pd.DataFrame) -> Iterator[str]:
    if stable.empty:
        return
    if len(stable) == 1:
        row = stable.iloc[0]
        yield f"  the call stands in {row['n_kept']} of {row['n_removals']} removals of one gene"
        if row["depends_on"]:
            yield f"  without one of these it is another: {row['depends_on']}"
        return
    safe = float((stable["frac_kept"] == 1).mean())
    yield f"  {safe:.0%} of the cells keep their call whichever gene is left out"
    lost = genes.drop_duplicates("gene").sort_values("frac_call_lost", ascending=False)
    lost = lost[lost["frac_call_lost"] > 0].head(5)
    if len(lost):
        named = ", ".join(f"{r.gene} ({r.frac_call_lost:.0%})" for r in lost.itertuples())
        yield f"  it depends most on {named} (share of cells with another call without it)"
