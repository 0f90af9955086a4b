"""Signatures against a matrix: what is measured, what may be scored where, and the scores."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from senoscore import keys
from senoscore.calibration import calibrate_lineage
from senoscore.calling import VERDICT, with_verdict
from senoscore.errors import InputDataError, SenoscoreWarning, SignatureError
from senoscore.kernels.passes import COUNTS, LINEAR, LOG, TARGET_SUM
from senoscore.null import (
    Plan,
    Rows,
    SampledCells,
    VotingGenes,
    adjusted_p_values,
    align_depth,
    depth_strata,
    null_medians,
    plan_scores,
)
from senoscore.settings import METHODS, CallSettings, Method, ScoreSettings
from senoscore.signatures import SignatureSet, read_signatures

if TYPE_CHECKING:
    from anndata import AnnData

    from senoscore.genes import GeneIndex
    from senoscore.reference import Fitted, Reference
    from senoscore.streaming import Scan, Scored

SAMPLE_PER_LINEAGE = 1000
# of a lineage x depth stratum. With 200 null sets the smallest p is 5e-7, at which Benjamini-Hochberg
# over a million cells needs ten calls.
NULL_CELLS = 10_000

_NOWHERE = "no cell of a lineage it is valid in"

KINDS: dict[str, tuple[int, float]] = {
    "counts": (COUNTS, np.e),
    "fractional_counts": (COUNTS, np.e),
    "linear_normalised": (LINEAR, np.e),
    "log1p": (LOG, np.e),
    "log2": (LOG, 2.0),
    "log_other": (LOG, np.e),
}


def value_kind(scale: str, what: str) -> tuple[int, float]:
    """How values of this scale become expression: kernel code and base of the logarithm.

    Raises
    ------
    InputDataError
        For scales on which a zero is not a zero (scaled, logged twice, unknown).
    """
    if scale not in KINDS:
        raise InputDataError(
            f"{refused_scale(scale, what)}; name the matrix of raw counts (config: dataset.counts) "
            "or use a rank method (method='ucell')"
        )
    return KINDS[scale]


def pass_kind(scale: str) -> tuple[int, float]:
    """As `value_kind`, for passes that only count genes where values cannot be used."""
    return KINDS.get(scale, (LOG, np.e))


def refused_scale(scale: str, what: str) -> str:
    """Why values of this scale are not scored, in words."""
    return f"{what} holds {scale.replace('_', ' ')} values: matched controls need counts or logged values"


def expression_matrix(
    values: sparse.csr_matrix, totals: NDArray[np.float64], scale: str
) -> sparse.csr_matrix:
    """Stored values of some genes as expression: log1p(CP10k) of counts, logged values as they are."""
    kind, _ = pass_kind(scale)
    out = values.astype(np.float64)
    if kind == COUNTS:
        with np.errstate(divide="ignore"):
            factor = np.where(totals > 0, TARGET_SUM / totals, 0.0)
        out = sparse.diags_array(factor).tocsr() @ out
        out = sparse.csr_matrix(out)
    if kind != LOG:
        out.data = np.log1p(out.data)
    return out


@dataclass(frozen=True)
class Prepared:
    """Signatures resolved against one file's genes.

    voting: per signature, its measured voting genes. allowed: lineages × signatures. var: one row
    per signature, what was found and why it is not scored.
    """

    signatures: SignatureSet
    voting: tuple[VotingGenes, ...]
    lineages: tuple[str, ...]
    allowed: NDArray[np.bool_]
    var: pd.DataFrame


def choose_signatures(
    signatures: str | Sequence[str] | Mapping[str, object] | SignatureSet | None,
    files: Sequence[str | Path] = (),
    *,
    comparators: bool = False,
) -> SignatureSet:
    """What the user asked for as a set: None is every shipped signature scored by default.

    Among names, ``verdict`` stands for those that the calls are read from. `comparators` adds the
    published sets.
    """
    shipped = read_signatures()
    for file in files:
        shipped = shipped | read_signatures(file)
    if VERDICT in shipped:
        raise SignatureError(
            f"'{VERDICT}' stands for all signatures that calls are read from: give yours another name"
        )
    published = shipped.with_role("comparator") if comparators else SignatureSet()
    if signatures is None:
        return shipped.default() | published
    if isinstance(signatures, SignatureSet):
        return signatures | published
    if isinstance(signatures, Mapping):
        return read_signatures(signatures) | published
    return shipped.select(with_verdict(signatures)) | published


def prepare(
    signatures: SignatureSet,
    genes: GeneIndex,
    *,
    lineages: Sequence[str],
    min_coverage: float,
    min_genes_found: int,
    restrict: bool = True,
) -> Prepared:
    """Find each signature's genes, and decide where it may be scored.

    Coverage is the share of the voting weight whose genes the file measures. A signature below
    `min_coverage`, or with fewer than `min_genes_found` of its genes (half of them, for a small
    signature), is not scored anywhere: missing is not zero.
    """
    voting, rows = [], []
    allowed = np.zeros((len(lineages), len(signatures)), bool)
    for s, (name, original) in enumerate(signatures.items()):
        if genes.organism is None:
            reason, signature = "gene names of neither human nor mouse", original
        else:
            reason = original.refusal(organism=genes.organism)
            signature = original if reason else original.for_organism(genes.organism)
        all_voting = list(signature.voting())
        # a gene without a counterpart in this organism still counts against coverage
        weight_all = sum(gene.weight for gene in original.voting())
        positions = np.asarray(
            genes.locate([g.ensembl for g in all_voting], [g.symbol for g in all_voting])
            if all_voting
            else [],
            np.int64,
        )
        found = [(g, p) for g, p in zip(all_voting, positions, strict=True) if p >= 0]
        unique: dict[int, tuple[float, str]] = {}
        for gene, position in found:
            # human paralogues that share one mouse gene vote once, with the larger weight
            weight = gene.weight * gene.direction
            if position not in unique or abs(weight) > abs(unique[position][0]):
                unique[int(position)] = (weight, gene.ensembl or gene.symbol)
        used = np.asarray(list(unique), np.int64)
        coverage = sum(g.weight for g, _ in found) / weight_all if weight_all else 0.0
        n_all = len(original.voting())
        need = min(min_genes_found, -(-n_all // 2))
        if not reason and len(unique) < need:
            reason = f"{len(unique)} of {n_all} genes measured, {need} needed"
        if not reason and coverage < min_coverage:
            reason = (
                f"{len(unique)} of {n_all} genes measured ({coverage:.0%} of the weight, "
                f"{min_coverage:.0%} needed)"
            )
        voting.append(
            VotingGenes(
                name,
                used,
                np.asarray([w for w, _ in unique.values()]),
                tuple(i for _, i in unique.values()),
            )
        )
        if not reason:
            for code, lineage in enumerate(lineages):
                allowed[code, s] = not restrict or lineage in original.lineages
        measured = {g.symbol for g, _ in found}
        rows.append(
            {
                "title": original.title or name,
                "role": original.role,
                "lineages": " ".join(original.lineages),
                "n_genes": n_all,
                "n_found": len(unique),
                "coverage": coverage,
                "genes_used": " ".join(g.symbol for g, _ in found),
                "genes_missing": " ".join(g.symbol for g in all_voting if g.symbol not in measured),
                "status": "not scored" if reason else "scored",
                "reason": reason,
                "warning": original.warning,
            }
        )
    var = pd.DataFrame(rows, index=pd.Index(list(signatures), name="signature"))
    return Prepared(signatures, tuple(voting), tuple(lineages), allowed, var)


def note_unscored(prepared: Prepared, usable: NDArray[np.bool_], plan: Plan | None) -> None:
    """Write into `prepared.var` why a signature that was allowed could not be scored.

    ``not_scored_in``: the lineages it is valid in where it has no null, and why. Where it has none
    at all, the status is "not scored".
    """
    reasons = {} if plan is None else plan.reasons
    told = [
        "; ".join(
            f"{lineage}: {reasons[lineage, name]}"
            for lineage in sorted(prepared.lineages)
            if (lineage, name) in reasons
        )
        for name in prepared.signatures
    ]
    prepared.var["not_scored_in"] = told
    for s, name in enumerate(prepared.signatures):
        if prepared.var.loc[name, "status"] != "scored" or usable[:, s].any():
            continue
        prepared.var.loc[name, "status"] = "not scored"
        prepared.var.loc[name, "reason"] = told[s] or _NOWHERE


def require_scored(prepared: Prepared, signature: str) -> None:
    """Refuse a signature that is not among those scored, with the reason or the near name."""
    if signature not in prepared.var.index:
        near = get_close_matches(signature, list(prepared.var.index), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see 'senoscore signatures list'"
        raise SignatureError(f"signature '{signature}' was not scored; {hint}")
    row = prepared.var.loc[signature]
    if row["status"] != "scored":
        raise SignatureError(f"signature '{signature}' was not scored: {row['reason']}")


def registry_positions(genes: GeneIndex) -> NDArray[np.bool_]:
    """Genes of any registered signature (comparators apart) and lineage markers."""
    from senoscore.lineages import marker_genes

    mouse = genes.organism == "mouse"
    wanted = {
        (g.mouse_ensembl, g.mouse_symbol) if mouse else (g.ensembl, g.symbol)
        for signature in read_signatures().values()
        if signature.role != "comparator"
        for g in signature.genes
    }
    wanted |= {("", symbol) for symbol in marker_genes(genes.organism)}
    wanted.discard(("", ""))
    ordered = sorted(wanted)
    found = genes.locate([e for e, _ in ordered], [s for _, s in ordered])
    mask = np.zeros(genes.n_genes, bool)
    mask[found[found >= 0]] = True
    return mask


def control_eligible(genes: GeneIndex) -> NDArray[np.bool_]:
    """Genes that may serve as controls: in no registered signature, not a lineage marker, not
    mitochondrial, not a clonal receptor gene.

    The registry is the shipped one, whatever is being scored: a score may not depend on what
    else was asked for.
    """
    return ~(registry_positions(genes) | genes.mask("mito") | genes.mask("tcr_ig"))


def id_rank(genes: GeneIndex) -> NDArray[np.int64]:
    """Place of each gene in the order of ids: breaks ties without looking at the file's order."""
    order = np.argsort(np.asarray(genes.ids, dtype=object), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def sample_cells(
    names: pd.Index, codes: NDArray[np.int64], n_codes: int, n: int = SAMPLE_PER_LINEAGE
) -> NDArray[np.bool_]:
    """About `n` cells of each lineage, chosen by a hash of their names, not by their place."""
    hashed = pd.util.hash_array(np.asarray(names, dtype=object))
    chosen = np.zeros(len(names), bool)
    for code in range(n_codes):
        cells = np.flatnonzero(codes == code)
        if len(cells) > n:
            limit = np.partition(hashed[cells], n - 1)[n - 1]
            cells = cells[hashed[cells] <= limit]
        chosen[cells] = True
    return chosen


def null_strata(
    names: pd.Index, codes: NDArray[np.int64], strata: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Strata of the cells whose null sets are counted; -1 for the others.

    In a lineage x stratum of more than `NULL_CELLS` cells about so many, chosen by a hash of their
    names.
    """
    n_strata = int(strata.max(initial=0)) + 1
    place = np.where((codes >= 0) & (strata >= 0), codes * n_strata + strata, -1)
    chosen = sample_cells(names, place, int(place.max(initial=-1)) + 1, NULL_CELLS)
    return np.where(chosen, strata, -1)


@dataclass(frozen=True)
class Matched:
    """Scores of all cells, cells × signatures, NaN where a signature is not valid or measured."""

    score: NDArray[np.float64]
    z: NDArray[np.float64]
    pvalue: NDArray[np.float64]
    padj: NDArray[np.float64]

    def take(self, columns: Sequence[int]) -> Matched:
        """Some of the signatures."""
        return Matched(*(v[:, columns] for v in (self.score, self.z, self.pvalue, self.padj)))


def powered_cells(
    able: NDArray[np.uint8], codes: NDArray[np.int64], strata: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Cells × signatures from lineages × strata × signatures: could the cell have been called.

    The values are those of `power.powered`.
    """
    told = able[np.maximum(codes, 0), np.maximum(strata, 0)]
    told[(codes < 0) | (strata < 0)] = 0
    return told


def finish(
    score: NDArray[np.float64],
    z: NDArray[np.float64],
    histogram: NDArray[np.int64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    *,
    threads: int = 1,
) -> Matched:
    """P from the pooled null, BH within each signature × lineage, z aligned over depths."""
    p, padj = adjusted_p_values(z, codes, strata, histogram, threads=threads)
    return Matched(score, align_depth(z, codes, strata, null_medians(histogram)), p, padj)


def calibrate(
    prepared: Prepared,
    plan: Plan,
    *,
    sums: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    genes: GeneIndex,
    sample: Rows,
    sample_rows: NDArray[np.int64],
    totals: NDArray[np.float64],
    depth: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    kind: int,
    n_sets: int,
    seed: int,
    threads: int = 1,
) -> pd.DataFrame:
    """`calibration.calibrate_lineage` for every lineage that has a null."""
    ids = np.asarray(genes.ids, dtype=object)
    rank = id_rank(genes)

    def one(code: int) -> pd.DataFrame | None:
        rows = np.flatnonzero(codes[sample_rows] == code)
        cells = sample_rows[rows]
        shapes = [v for s, v in enumerate(prepared.voting) if plan.usable[code, s]]
        if not len(rows) or not shapes:
            return None
        return calibrate_lineage(
            shapes,
            lineage=prepared.lineages[code],
            sums=sums[code],
            eligible=eligible,
            rank=rank,
            ids=ids,
            sample=SampledCells(sample, rows, totals[cells]),
            depth=depth[cells],
            strata=strata[cells],
            kind=kind,
            n_null=plan.n_null,
            n_sets=n_sets,
            seed=seed,
            threads=threads,
        )

    tables = [t for t in map(one, range(len(prepared.lineages))) if t is not None]
    from senoscore.calibration import COLUMNS

    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(COLUMNS))


def make_plan(
    prepared: Prepared,
    *,
    sums: NDArray[np.int64],
    n_cells: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    genes: GeneIndex,
    sample: Rows,
    sample_rows: NDArray[np.int64],
    totals: NDArray[np.float64],
    codes: NDArray[np.int64],
    use: NDArray[np.bool_],
    kind: int,
    n_null: int,
    seed: int,
    threads: int = 1,
) -> Plan:
    """`null.plan_scores` with each lineage's sampled cells (those that passed quality control)."""
    per_lineage = []
    for code in range(len(prepared.lineages)):
        rows = np.flatnonzero((codes[sample_rows] == code) & use[sample_rows])
        per_lineage.append(SampledCells(sample, rows, totals[sample_rows[rows]]))
    return plan_scores(
        prepared.voting, prepared.allowed, lineages=prepared.lineages, sums=sums,
        n_cells=n_cells, eligible=eligible, rank=id_rank(genes), sample=per_lineage, kind=kind,
        n_null=n_null, seed=seed, threads=threads,
    )  # fmt: skip


def score(
    adata: AnnData,
    signatures: str | Sequence[str] | Mapping[str, object] | SignatureSet | None = None,
    *,
    method: Method = "matched",
    groupby: str | None = "lineage",
    layer: str | None = None,
    n_null: int = ScoreSettings.n_null,
    rng: int = ScoreSettings.seed,
    min_coverage: float = ScoreSettings.min_coverage,
    min_genes_found: int = ScoreSettings.min_genes_found,
    reference: str | Path | Reference | None = None,
    threads: int = 1,
    block_size: int = 2048,
    copy: bool = False,
) -> AnnData | None:
    """How strongly each cell expresses each signature, and how surprising that is.

    ``matched`` compares every gene with control genes of the same mean expression in the same
    lineage: ``d = Σ w·sign·(x_g - mean of g's controls)`` on log1p(CP10k), divided by its standard
    deviation over null sets of such controls, centred on the lineage's lower quartile. *How to
    read it*: z is in standard deviations above an unaffected cell of that lineage; p is the share
    of null sets, in cells of the same lineage and depth, that reach z; padj is
    Benjamini-Hochberg's within signature and lineage. Cells that failed quality control
    (``obs["qc_pass"]``, after `pp.qc`) have z and no p, and no part in the null, as in
    `senoscore.analyse`.

    The other methods give a score only: ``ucell`` (Andreatta & Carmona 2021), ``aucell`` (Aibar
    2017), ``score_genes`` (scanpy), ``mean``.

    Parameters
    ----------
    adata
        Cells × genes. Which matrix holds counts, and how genes are named, is found as by
        `senoscore.pp.inspect`.
    signatures
        None (all that are scored by default), a name, names, a dict name → genes (``"CD27-"`` is a
        down gene), or a `SignatureSet`.
    method
        The statistic.
    groupby
        obs column whose groups have nulls of their own. Groups named as lineages admit only
        signatures valid there. None treats all observations as one group, in which every signature is
        admitted: for bulk samples and pseudobulks.
    layer
        Layer with the values; None leaves the choice to the facts.
    n_null
        Null sets per signature.
    rng
        Seed. Draws are seeded per signature, group and gene, so a score does not depend on what
        else is scored.
    min_coverage
        Least share (0-1) of a signature's voting weight that must be measured.
    min_genes_found
        Least number of its genes that must be measured.
    reference
        A run frozen by `tl.freeze`. Its controls, null and thresholds are used instead of those of
        these cells, so that no cell's numbers depend on the others; it brings its own signatures,
        null sets and seed.
    threads
        Threads; the result does not depend on it.
    block_size
        Rows handled at a time; the result does not depend on it.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, as DataFrames (cells × signatures, NaN where a signature is not
    valid, not measured, or the cell expresses none of the genes involved):
    ``obsm["senoscore_score"]``: d, or the method's score. For ``matched`` also
    ``obsm["senoscore_z"]``, ``["senoscore_pvalue"]`` (0-1), ``["senoscore_padj"]`` (0-1) and
    ``["senoscore_powered"]`` (would the programme have been seen at this depth: 0 no, 1 yes, 2 yes,
    but the cell is in a shallow stratum). The other methods remove these four.
    ``uns["senoscore"]["signatures"]``: DataFrame with genes found, coverage, and reasons.

    Raises
    ------
    SignatureError
        Unknown signature, or none that is valid in any group.
    InputDataError
        `groupby` or `layer` not found, or values that the method cannot use.
    """
    from senoscore.inputs import read_input, written_to
    from senoscore.io.blocks import open_blocks

    if method not in METHODS:
        raise SignatureError(f"method {method!r} is not known; choose one of {', '.join(METHODS)}")
    target = written_to(adata, copy=copy)
    data = read_input(adata, layer=layer)
    frozen = None if reference is None else open_reference(reference, data, method=method)
    chosen = choose_signatures(signatures) if frozen is None else frozen.choose(signatures)
    codes, groups = group_codes(adata, groupby)
    restrict = groupby is not None and set(groups) <= set(keys.LINEAGES)
    prepared = prepare(
        chosen,
        data.genes,
        lineages=groups,
        min_coverage=min_coverage,
        min_genes_found=min_genes_found,
        restrict=restrict,
    )
    if restrict:
        refuse_elsewhere(prepared, signatures)
    with open_blocks(adata, matrix=data.matrix) as source:
        if frozen is not None:
            result, powered, told = score_against(
                frozen, source, data, prepared, codes, min_coverage=min_coverage,
                threads=threads, block_size=block_size,
            )  # fmt: skip
        elif method == "matched":
            result, powered = score_matched(
                source, data, prepared, codes, n_null=n_null, seed=rng, names=adata.obs_names,
                passed=passed(adata), threads=threads, block_size=block_size,
            )  # fmt: skip
            told = {}
        if method == "matched":
            tables = {
                keys.OBSM_SCORE: result.score,
                keys.OBSM_Z: result.z,
                keys.OBSM_PVALUE: result.pvalue,
                keys.OBSM_PADJ: result.padj,
                keys.OBSM_POWERED: powered,
            }
        else:
            from senoscore.plain import score_plain

            values = score_plain(
                method,
                source,
                data,
                prepared,
                codes,
                kind=pass_kind(data.scale),
                seed=rng,
                threads=threads,
                block_size=block_size,
            )
            tables = {keys.OBSM_SCORE: values}
            # of an earlier call, with other scores or signatures: nothing may take them for these
            for key in (keys.OBSM_Z, keys.OBSM_PVALUE, keys.OBSM_PADJ, keys.OBSM_POWERED):
                target.obsm.pop(key, None)
    for sentence in unscored_sentences(prepared, asked=signatures is not None):
        warnings.warn(sentence, SenoscoreWarning, stacklevel=2)
    for key, table in tables.items():
        target.obsm[key] = pd.DataFrame(table, index=target.obs_names, columns=list(chosen))
    target.uns.setdefault(keys.UNS, {})
    target.uns[keys.UNS]["signatures"] = prepared.var.copy()
    target.uns[keys.UNS]["method"] = method
    target.uns[keys.UNS].pop("reference", None)
    if frozen is not None:
        target.uns[keys.UNS]["reference"] = told
    # what `tl.explain` needs to score the same cells again
    target.uns[keys.UNS]["scored"] = json.dumps(
        {
            "groupby": groupby,
            "layer": layer,
            "n_null": n_null,
            "seed": rng,
            "min_coverage": min_coverage,
            "min_genes_found": min_genes_found,
        }
    )
    return target if copy else None


def open_reference(
    reference: str | Path | Reference, data: Any, *, method: Method = "matched"
) -> Reference:
    """A frozen run, if these data can be scored against it."""
    from senoscore.reference import Reference

    if method != "matched":
        raise SignatureError(f"method '{method}' knows no reference; leave out one of the two")
    opened = reference if isinstance(reference, Reference) else Reference.read(reference)
    opened.require_like(data.genes, data.scale)
    return opened


def score_against(
    reference: Reference,
    source: Any,
    data: Any,
    prepared: Prepared,
    codes: NDArray[np.int64],
    *,
    min_coverage: float,
    threads: int = 1,
    block_size: int = 2048,
) -> tuple[Matched, NDArray[np.uint8], dict[str, Any]]:
    """Scores of all cells against a frozen run, what is powered, and what to tell of the reference."""
    from senoscore import streaming

    kind, base = value_kind(data.scale, data.matrix)
    intake = streaming.Intake(data.genes, kind, base)
    first = streaming.scan(
        source, intake, gene_class=np.zeros(intake.n_genes, np.uint8),
        codes=np.full(len(codes), -1), n_codes=1, panel=np.zeros(0, np.int64),
        sampled=np.zeros(len(codes), bool), block_size=block_size, threads=threads,
    )  # fmt: skip
    totals = first.metrics[:, 0]
    depth = first.metrics[:, 1] if kind == LOG else totals
    strata = reference.strata(depth, codes, prepared.lineages)
    fitted = reference.fit(
        data.genes, prepared.lineages, list(prepared.signatures), prepared.allowed,
        min_coverage=min_coverage,
    )  # fmt: skip
    scored = streaming.score(
        source, intake, fitted.plan, totals=totals, codes=codes, strata=strata,
        n_strata=reference.n_strata, groups=np.full(len(codes), -1, np.int64), n_groups=0,
        block_size=block_size, threads=threads,
    )  # fmt: skip
    note_unscored(prepared, fitted.plan.usable, fitted.plan)
    told = tell_reference(fitted, prepared, scored.histogram, depth, codes, strata)
    result = finish_fitted(scored.score, scored.z, fitted, codes, strata)
    return result, powered_cells(fitted.able, codes, strata), told


def finish_fitted(
    score: NDArray[np.float64],
    z: NDArray[np.float64],
    fitted: Fitted,
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
) -> Matched:
    """As `finish`, by the null and the thresholds of a reference."""
    return Matched(score, *fitted.finish(z, codes, strata))


def tell_reference(
    fitted: Fitted,
    prepared: Prepared,
    histogram: NDArray[np.int64],
    depth: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
) -> dict[str, Any]:
    """Provenance of scores against a reference; warns of what keeps the null from holding.

    `histogram`, `strata`: of the cells whose null sets are to be counted.
    """
    transfer = fitted.transfer(histogram, depth, codes, strata)
    for sentence in fitted.complaints(transfer, codes, strata):
        warnings.warn(sentence, SenoscoreWarning, stacklevel=3)
    fitted.note(prepared.var)
    return {
        **fitted.reference.provenance(),
        "coverage": fitted.coverage,
        "transfer": transfer,
    }


def passed(adata: AnnData) -> NDArray[np.bool_]:
    """The cells that passed quality control; all, where there was none."""
    if keys.OBS_QC_PASS in adata.obs:
        return np.asarray(adata.obs[keys.OBS_QC_PASS], bool)
    return np.ones(adata.n_obs, bool)


def group_codes(adata: AnnData, groupby: str | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Code of each observation's group (-1 for none) and the groups' names, sorted."""
    if groupby is None:
        return np.zeros(adata.n_obs, np.int64), ("all",)
    if groupby not in adata.obs:
        raise InputDataError(
            f"obs has no column '{groupby}' to group by; run senoscore.pp.lineages(adata) first, "
            f"pass groupby=None, or one of {', '.join(map(str, adata.obs.columns)) or '(none)'}"
        )
    values = adata.obs[groupby].astype("object")
    names = tuple(sorted({str(v) for v in values.dropna().unique()}))
    if not names:
        raise InputDataError(
            f"obs['{groupby}'] names no group: all its values are missing; run "
            "senoscore.pp.lineages(adata) first, or pass groupby=None"
        )
    lookup = {name: code for code, name in enumerate(names)}
    codes = np.asarray([lookup[str(v)] if pd.notna(v) else -1 for v in values], np.int64)
    return codes, names


def refuse_elsewhere(prepared: Prepared, asked: object) -> None:
    """Refuse signatures asked for by name that are valid in none of the lineages present."""
    nowhere = [
        (name, row)
        for (name, row), allowed in zip(
            prepared.var.iterrows(), np.atleast_1d(prepared.allowed.any(axis=0)), strict=True
        )
        if not allowed and not row["reason"]
    ]
    for name, row in nowhere:
        if asked is not None:
            raise SignatureError(
                f"signature '{name}' is valid in {row['lineages']}; the data hold "
                f"{', '.join(prepared.lineages)}: leave it out, or pass groupby=None to score all "
                "observations as one group"
            )
        prepared.var.loc[name, ["status", "reason"]] = [
            "not scored",
            _NOWHERE,
        ]


def unscored_sentences(prepared: Prepared, *, asked: bool) -> list[str]:
    """What to warn of: each signature that was asked for, or one sentence of all that were not.

    Of the latter, those of lineages that the data do not hold are as expected.
    """
    lost = prepared.var[prepared.var["reason"] != ""]
    if asked:
        return [
            f"signature '{name}' is not scored: {row['reason']}" for name, row in lost.iterrows()
        ]
    names = [str(name) for name in lost.index[lost["reason"] != _NOWHERE]]
    if not names:
        return []
    shown = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
    return [
        f"{len(names)} of {len(prepared.var)} signatures are not scored: {shown}; "
        "uns['senoscore']['signatures'] has the reasons"
    ]


@dataclass(frozen=True)
class Passes:
    """What both passes over a matrix leave, and how they were set up.

    able: lineages × strata × signatures, whether the programme would have been seen.
    """

    kind: int
    first: Scan
    totals: NDArray[np.float64]
    strata: NDArray[np.int64]
    plan: Plan
    scored: Scored
    able: NDArray[np.uint8]


def two_passes(
    source: Any,
    data: Any,
    prepared: Prepared,
    codes: NDArray[np.int64],
    *,
    n_null: int,
    seed: int,
    names: pd.Index,
    passed: NDArray[np.bool_],
    threads: int = 1,
    block_size: int = 2048,
) -> Passes:
    """Both passes over a matrix: gene sums and a sample of cells, then the scores.

    `passed`: the cells whose null sets are counted.
    """
    from senoscore import power, streaming

    kind, base = value_kind(data.scale, data.matrix)
    intake = streaming.Intake(data.genes, kind, base)
    n_codes = len(prepared.lineages)
    first = streaming.scan(
        source, intake, gene_class=np.zeros(intake.n_genes, np.uint8), codes=codes,
        n_codes=n_codes, panel=np.zeros(0, np.int64),
        sampled=sample_cells(names, codes, n_codes), block_size=block_size, threads=threads,
    )  # fmt: skip
    totals = first.metrics[:, 0]
    depth = first.metrics[:, 1] if kind == LOG else totals
    use = passed & (totals > 0)
    strata, n_strata = depth_strata(depth, codes, n_codes, use)
    plan = make_plan(
        prepared, sums=first.sums, n_cells=first.n_cells, eligible=control_eligible(data.genes),
        genes=data.genes, sample=first.sample, sample_rows=first.sample_rows, totals=totals,
        codes=codes, use=use, kind=kind, n_null=n_null, seed=seed, threads=threads,
    )  # fmt: skip
    note_unscored(prepared, plan.usable, plan)
    scored = streaming.score(
        source, intake, plan, totals=totals, codes=codes,
        strata=null_strata(names, codes, strata), n_strata=n_strata,
        groups=np.full(len(codes), -1, np.int64), n_groups=0,
        block_size=block_size, threads=threads,
    )  # fmt: skip
    able = power.powered(
        prepared.voting,
        score=scored.score,
        z=scored.z,
        centres=plan.centres,
        histogram=scored.histogram,
        codes=codes,
        strata=strata,
        totals=totals,
        sums=first.sums,
        n_cells=first.n_cells,
        kind=kind,
        level=CallSettings.fdr,
        on_cp10k=CallSettings.on_cp10k,
        share=CallSettings.power,
        shallow=CallSettings.shallow,
    )
    return Passes(kind, first, totals, strata, plan, scored, able)


def passes_again(
    adata: AnnData,
    data: Any,
    prepared: Prepared,
    codes: NDArray[np.int64],
    *,
    threads: int,
    **how: Any,
) -> Passes:
    """Both passes over cells that `score` has scored; `how`: its ``n_null`` and ``seed``."""
    from senoscore.io.blocks import open_blocks

    with open_blocks(adata, matrix=data.matrix) as source:
        return two_passes(
            source, data, prepared, codes, names=adata.obs_names, passed=passed(adata),
            threads=threads, **how,
        )  # fmt: skip


def score_matched(
    source: Any, data: Any, prepared: Prepared, codes: NDArray[np.int64], **how: Any
) -> tuple[Matched, NDArray[np.uint8]]:
    """Calibrated scores of all cells, and whether each programme would have been seen in each."""
    made = two_passes(source, data, prepared, codes, **how)
    scored = made.scored
    result = finish(scored.score, scored.z, scored.histogram, codes, made.strata)
    return result, powered_cells(made.able, codes, made.strata)
