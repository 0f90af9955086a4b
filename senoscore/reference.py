"""A run frozen into one file, against which cells of other data sets are scored one by one.

In a run everything a score is compared with comes from the run's own cells: control genes (by their
mean), centres, the null of each depth, and what p-value the false discovery rate asks for. A
reference holds all of these fixed, so that what is said of a cell is a function of that cell and the
file alone, and cells of different data sets are on one scale.

A data set rarely measures exactly the genes of the reference. What is done where one is missing:

* a signature gene that is missing takes no part, nor do its controls; below the coverage floor the
  signature is not scored in that lineage;
* the place of a missing control is taken by that one of the same gene's measured controls which is
  nearest to it in mean expression in the reference (the first by id if two are). So every null set
  keeps one control, with its weight, for every gene of the signature, and no set is rescaled;
* a signature gene less than half of whose controls are measured counts as missing itself.

Centres, null and thresholds stay those of the whole sets. The null sets of the data set, scored like
the signatures, tell how far they hold: `Fitted.transfer`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore.adjust import Curve, Thresholds
from senoscore.calibration import COLUMNS, LEVELS
from senoscore.calling import with_verdict
from senoscore.errors import InputDataError, SignatureError
from senoscore.genes import GeneIndex
from senoscore.io.artefacts import read_npz, write_npz
from senoscore.kernels.passes import FIX_X, N_BINS
from senoscore.null import (
    MAX_STRATA,
    ControlGenes,
    Plan,
    VotingGenes,
    align_depth,
    build_sets,
    draw_order,
    draw_sets,
    join_sets,
    null_medians,
    p_values,
    stratum_limits,
)
from senoscore.signatures import Signature, SignatureGene, SignatureSet

FORMAT: Final = 2
# scales whose values mean the same in any data set: all counts do, logs only with the same base
COUNT_SCALES: Final = ("counts", "fractional_counts")
SCALES: Final = (*COUNT_SCALES, "log1p", "log2", "log_other")
MIN_CONTROLS: Final = 0.5
# share of null sets at p <= .05 above which the null of the reference is said not to hold
MAX_FPR: Final = 0.1
COVERAGE: Final = (
    "lineage",
    "signature",
    "n_genes",
    "n_genes_missing",
    "frac_genes_missing",
    "frac_controls_missing",
    "coverage",
    "status",
    "reason",
)
_MAX_SIZE: Final = 2**30  # bytes of a null in memory; what a file asks for beyond is refused


@dataclass(frozen=True)
class FrozenSet:
    """One signature in one lineage.

    genes: positions of its genes in the reference. weights: signed. controls: genes × null sets,
    positions. centres: of the signature and of each null set.
    """

    genes: NDArray[np.int64]
    weights: NDArray[np.float64]
    controls: NDArray[np.int64]
    centres: NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """A frozen run.

    ids, symbols: the genes used, as signature gene or control. means: lineages × genes, mean
    expression in the run. sets: by position of lineage and signature. lowest, limits: per lineage,
    the depth of the shallowest cell and what parts the strata. histogram: the pooled null,
    lineages × signatures × strata × bins. able: lineages × strata × signatures, whether the
    programme would have been seen. cells, steps: p -> adjusted p, per lineage and signature, and
    per family of candidates. about: where it comes from.
    """

    organism: str
    scale: str
    n_null: int
    lineages: tuple[str, ...]
    signatures: SignatureSet
    ids: tuple[str, ...]
    symbols: tuple[str, ...]
    means: NDArray[np.float32]
    sets: Mapping[tuple[int, int], FrozenSet]
    lowest: NDArray[np.float64]
    limits: tuple[NDArray[np.float64], ...]
    histogram: NDArray[np.int64]
    able: NDArray[np.uint8]
    cells: Mapping[tuple[str, str], Curve]
    steps: Mapping[str, Curve]
    about: Mapping[str, Any]

    @property
    def n_strata(self) -> int:
        """The most depth strata of any lineage."""
        return int(self.histogram.shape[2])

    @cached_property
    def content(self) -> dict[str, NDArray[Any]]:
        """The arrays of the file, without the hash."""
        return _pack(self)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content."""
        return _hash(self.content)

    def write(self, path: str | Path) -> None:
        """Write the file: no pickle, and the same bytes for the same content."""
        write_npz({**self.content, "sha256": _text(self.sha256)}, path)

    @classmethod
    def read(cls, path: str | Path) -> Reference:
        """Read a file.

        Raises
        ------
        InputDataError
            It is missing, damaged, no reference, or of another version of the format.
        """
        if not Path(path).is_file():
            raise InputDataError(
                f"there is no reference at {str(path)!r}; make one: senoscore freeze"
            )
        try:
            arrays = read_npz(path)
        except InputDataError as error:
            raise InputDataError(f"{path} is damaged or no reference of senoscore") from error
        try:
            stored = _untext(arrays.pop("sha256"))
            found = json.loads(_untext(arrays["meta"]))
            version = found["format"]
        except (KeyError, ValueError, TypeError) as error:
            raise InputDataError(f"{path} is no reference of senoscore: freeze a run") from error
        if version != FORMAT:
            raise InputDataError(
                f"{path} is a reference of format {version!r}, this senoscore reads {FORMAT}: use "
                "the version it was made with, or freeze the run again"
            )
        if stored != _hash(arrays):
            raise InputDataError(f"{path} has been changed or damaged: its hash does not fit")
        try:
            return _unpack(arrays, found)
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            raise InputDataError(
                f"{path} holds a reference that contradicts itself ({error}): freeze the run again"
            ) from error

    # ---------------------------------------------------------------------------------------------

    def choose(self, names: object, *, comparators: bool = False) -> SignatureSet:
        """Its signatures: all for None, else those named, and its published sets where asked for.

        Raises
        ------
        SignatureError
            One is not in the reference, or definitions were given instead of names.
        """
        published = self.signatures.with_role("comparator")
        if comparators and not published:
            raise SignatureError(
                "the reference holds no published set to compare: freeze a run that was scored with "
                "score.comparators"
            )
        if names is None:
            return self.signatures
        wanted = [names] if isinstance(names, str) else names
        if not isinstance(wanted, Sequence) or not all(isinstance(n, str) for n in wanted):
            raise SignatureError(
                "a reference holds its own signatures: give names of these, not definitions"
            )
        wanted = with_verdict(wanted)
        unknown = [n for n in wanted if n not in self.signatures]
        if unknown:
            near = get_close_matches(unknown[0], list(self.signatures), n=1)
            raise SignatureError(
                f"signature {unknown[0]!r} is not among the {len(self.signatures)} of the reference; "
                + (f"did you mean {near[0]!r}?" if near else "freeze a run that has it")
            )
        chosen = self.signatures.select(wanted)
        return chosen | published if comparators else chosen

    def require_like(self, genes: GeneIndex, scale: str) -> None:
        """Refuse data of another organism, or values that are not comparable.

        Raises
        ------
        InputDataError
            With what differs.
        """
        if genes.organism != self.organism:
            raise InputDataError(
                f"the reference is of {self.organism} cells, the data are "
                f"{genes.organism or 'of no known organism'}: use a reference of that organism"
            )
        both_counts = scale in COUNT_SCALES and self.scale in COUNT_SCALES
        if scale != self.scale and not both_counts:
            raise InputDataError(
                f"the reference was made of {self.scale.replace('_', ' ')}, the data hold "
                f"{scale.replace('_', ' ')} values: name the matrix that is alike (config: "
                "dataset.counts) or use another reference"
            )

    def strata(
        self, depth: NDArray[np.float64], codes: NDArray[np.int64], lineages: Sequence[str]
    ) -> NDArray[np.int64]:
        """Depth stratum of each cell; -1 below the reference's shallowest cell of its lineage.

        depth: counts, or genes detected where values are logged.
        """
        out = np.full(len(depth), -1, np.int64)
        for code, name in enumerate(lineages):
            if name not in self.lineages:
                continue
            k = self.lineages.index(name)
            here = np.flatnonzero((codes == code) & (depth > 0))
            place = np.searchsorted(self.limits[k], depth[here], side="left")
            out[here] = np.where(depth[here] >= self.lowest[k], place, -1)
        return out

    def locate(self, genes: GeneIndex) -> NDArray[np.int64]:
        """Position of each gene of the reference in a data set, -1 where it is not measured."""
        known = {str(name): at for at, name in enumerate(genes.ids)}
        at = np.asarray([known.get(name, -1) for name in self.ids], np.int64)
        others = np.flatnonzero(at < 0)
        # another id of the same gene: retired, or a symbol
        at[others] = genes.locate([self.ids[k] for k in others], [self.symbols[k] for k in others])
        return at

    def fit(
        self,
        genes: GeneIndex,
        lineages: Sequence[str],
        signatures: Sequence[str],
        allowed: NDArray[np.bool_],
        *,
        min_coverage: float,
    ) -> Fitted:
        """The reference as it applies to a data set with these genes.

        Parameters
        ----------
        genes
            What the data set measures.
        lineages, signatures, allowed
            What may be scored where.
        min_coverage
            Least share (0-1) of a set's weight whose genes are measured.
        """
        at = self.locate(genes)
        names = list(self.signatures)
        shape = (len(lineages), len(signatures))
        usable = np.zeros(shape, bool)
        centres = np.zeros((*shape, self.n_null + 1))
        histogram = np.zeros((*shape, self.n_strata, N_BINS), np.int64)
        able = np.zeros((len(lineages), self.n_strata, len(signatures)), np.uint8)
        reasons: dict[tuple[str, str], str] = {}
        rows, tables = [], []
        drawn = {}
        everywhere = np.ones(genes.n_genes, np.int64)
        for code, lineage in enumerate(lineages):
            k = self.lineages.index(lineage) if lineage in self.lineages else -1
            voting, draws = [], []
            for s, name in enumerate(signatures):
                nothing = np.zeros(0, np.int64)
                own = VotingGenes(name, nothing, np.zeros(0), ())
                draw = None
                frozen = self.sets.get((k, names.index(name))) if name in names else None
                if allowed[code, s] and frozen is None:
                    missing = "this lineage" if k < 0 else "this signature in this lineage"
                    reasons[lineage, name] = f"the reference does not hold {missing}"
                elif allowed[code, s] and frozen is not None:
                    row, own, draw = _fit_one(frozen, name, at, self.means[k], min_coverage)
                    rows.append({"lineage": lineage, "signature": name, **row})
                    if draw is None:
                        reasons[lineage, name] = str(row["reason"])
                    else:
                        usable[code, s] = True
                        drawn[code, s] = (own, draw[0])
                        centres[code, s] = frozen.centres
                        histogram[code, s] = self.histogram[k, names.index(name)]
                        able[code, :, s] = self.able[k, :, names.index(name)]
                voting.append(own)
                draws.append(draw)
            tables.append(build_sets(voting, draws, everywhere, n_null=self.n_null))
        plan = Plan(
            tuple(lineages), tuple(signatures), self.n_null,
            join_sets(tables, genes.n_genes), usable, centres, reasons,
        )  # fmt: skip
        coverage = pd.DataFrame(rows, columns=list(COVERAGE))
        return Fitted(self, plan, histogram, able, coverage, drawn)

    def summary(self, level: float = 0.05) -> pd.DataFrame:
        """What it holds: per lineage and signature the genes, and the p a call takes.

        Parameters
        ----------
        level
            The false discovery rate that `critical_p` is for.
        """
        names = list(self.signatures)
        rows = [
            {
                "lineage": self.lineages[k],
                "signature": names[s],
                "n_genes": len(frozen.genes),
                "n_controls": len(np.unique(frozen.controls)),
                "critical_p": self.cells[self.lineages[k], names[s]].critical(level),
            }
            for (k, s), frozen in sorted(self.sets.items())
        ]
        return pd.DataFrame(rows)

    def provenance(self) -> dict[str, Any]:
        """What a result says of the reference it was scored against."""
        told = ("version", "input", "input_sha256", "signatures_sha256")
        return {
            "sha256": self.sha256,
            "format": FORMAT,
            **{key: str(self.about.get(key, "")) for key in told},
            "steps": steps_table(self.steps),
        }


@dataclass(frozen=True)
class Fitted:
    """A reference as it applies to one data set: lineages and signatures in that data set's order.

    coverage: per lineage and signature, what of the reference is not measured (columns `COVERAGE`).
    drawn: per code and position of a signature its genes and their controls, genes × null sets.
    """

    reference: Reference
    plan: Plan
    histogram: NDArray[np.int64]
    able: NDArray[np.uint8]
    coverage: pd.DataFrame
    drawn: Mapping[tuple[int, int], tuple[VotingGenes, NDArray[np.int64]]]

    @property
    def thresholds(self) -> Thresholds:
        """What p a call takes."""
        return Thresholds(self.reference.cells, self.reference.steps)

    def strata(self, depth: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `Reference.strata`, for the lineages of the data set."""
        return self.reference.strata(depth, codes, self.plan.lineages)

    def finish(
        self, z: NDArray[np.float64], codes: NDArray[np.int64], strata: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """z aligned over depths, p, and adjusted p of every cell, each from that cell alone."""
        p = p_values(z, codes, strata, self.histogram)
        padj = np.full(p.shape, np.nan)
        for code, lineage in enumerate(self.plan.lineages):
            cells = np.flatnonzero(codes == code)
            for s, name in enumerate(self.plan.signatures):
                if self.plan.usable[code, s]:
                    padj[cells, s] = self.reference.cells[lineage, name](p[cells, s])
        return align_depth(z, codes, strata, null_medians(self.histogram)), p, padj

    def transfer(
        self,
        histogram: NDArray[np.int64],
        depth: NDArray[np.float64],
        codes: NDArray[np.int64],
        strata: NDArray[np.int64],
    ) -> pd.DataFrame:
        """Does the null hold here? Share of this data set's null sets that the reference finds.

        Parameters
        ----------
        histogram
            The null sets of the data set, counted as in a run.
        depth, codes, strata
            Of its cells.

        Returns
        -------
        DataFrame
            Columns of ``calibration.tsv``: per lineage and depth stratum, ``fpr_0.05`` is the mean
            over signatures of the share of (cell, null set) with p <= .05 by the reference, and
            ``se_0.05`` its standard error over signatures.
        """
        above = np.flip(np.cumsum(np.flip(self.histogram, -1), -1), -1)
        p = (1 + above) / (1 + self.histogram.sum(-1, keepdims=True))
        total = histogram.sum(-1)
        rows = []
        for code, lineage in enumerate(self.plan.lineages):
            for stratum in range(self.reference.n_strata):
                tested = np.flatnonzero(self.plan.usable[code] & (total[code, :, stratum] > 0))
                here = (codes == code) & (strata == stratum)
                if not len(tested):
                    continue
                row: dict[str, object] = {
                    "lineage": lineage,
                    "depth_stratum": stratum,
                    "depth_median": float(np.median(depth[here])),
                    "n_cells": int(here.sum()),
                    "n_sets": len(tested) * self.plan.n_null,
                    "spearman_z_depth": np.nan,
                    "se_spearman_z_depth": np.nan,
                }
                for level in LEVELS:
                    hits = histogram[code, tested, stratum] * (p[code, tested, stratum] <= level)
                    share = hits.sum(-1) / total[code, tested, stratum]
                    row[f"fpr_{level:g}"] = float(share.mean())
                    row[f"se_{level:g}"] = (
                        float(share.std(ddof=1) / np.sqrt(len(share))) if len(share) > 1 else np.nan
                    )
                rows.append(row)
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def complaints(
        self, transfer: pd.DataFrame, codes: NDArray[np.int64], strata: NDArray[np.int64]
    ) -> list[str]:
        """What a reader must know before believing the result, in plain sentences."""
        said = []
        absent = [
            f"{name} ({(codes == code).sum()} cells)"
            for code, name in enumerate(self.plan.lineages)
            if name not in self.reference.lineages and (codes == code).any()
        ]
        if absent:
            said.append(f"the reference has no {', '.join(absent)}: these are not scored")
        known = np.isin(
            codes,
            [c for c, name in enumerate(self.plan.lineages) if name in self.reference.lineages],
        )
        shallow = int((known & (strata < 0)).sum())
        if shallow:
            said.append(
                f"{shallow} of {int(known.sum())} cells are shallower than any of the reference and "
                "get no p-value"
            )
        for lineage, table in transfer.groupby("lineage", sort=False):
            rate = float(np.average(table["fpr_0.05"], weights=table["n_cells"]))
            if rate > MAX_FPR:
                said.append(
                    f"the null of the reference does not hold in {lineage}: {rate:.0%} of random "
                    "sets reach p = .05 there; genes behave differently in these data"
                )
        return said

    def note(self, var: pd.DataFrame) -> None:
        """Add to the table of signatures what of the reference is missing, in the worst lineage."""
        for column in ("frac_genes_missing", "frac_controls_missing"):
            worst = self.coverage.groupby("signature")[column].max()
            var[f"reference_{column}"] = worst.reindex(var.index).to_numpy(np.float64)


def _fit_one(
    frozen: FrozenSet,
    name: str,
    at: NDArray[np.int64],
    means: NDArray[np.float32],
    min_coverage: float,
) -> tuple[dict[str, object], VotingGenes, tuple[NDArray[np.int64], NDArray[np.float64]] | None]:
    """One signature in one lineage with the genes at hand: row of the report, genes, null sets."""
    controls = at[frozen.controls]
    measured = (controls >= 0).mean(axis=1)
    kept = (at[frozen.genes] >= 0) & (measured >= MIN_CONTROLS)
    weight = np.abs(frozen.weights)
    coverage = float(weight[kept].sum() / weight.sum())
    n = len(kept)
    reason = ""
    if not kept.any() or coverage < min_coverage:
        reason = (
            f"{int(kept.sum())} of {n} genes of the reference measured ({coverage:.0%} of the "
            f"weight, {min_coverage:.0%} needed)"
        )
    row: dict[str, object] = {
        "n_genes": n,
        "n_genes_missing": int((~kept).sum()),
        "frac_genes_missing": float((~kept).mean()),
        "frac_controls_missing": float((controls < 0).mean()),
        "coverage": coverage,
        "status": "not scored" if reason else "scored",
        "reason": reason,
    }
    own = np.flatnonzero(kept)
    # ids only tell genes apart here: nothing is drawn any more
    ids = tuple(map(str, frozen.genes[own].tolist()))
    voting = VotingGenes(name, at[frozen.genes[own]], frozen.weights[own], ids)
    if reason:
        return row, voting, None
    for g in own[measured[own] < 1]:
        gone = np.flatnonzero(controls[g] < 0)
        # genes of the reference are in the order of their ids, so ties go to the first
        others = np.unique(frozen.controls[g][controls[g] >= 0])
        lost = means[frozen.controls[g][gone]].astype(np.float64)
        distance = np.abs(means[others].astype(np.float64)[None, :] - lost[:, None])
        controls[g, gone] = at[others[np.argmin(distance, axis=1)]]
    return row, voting, (controls[own], frozen.weights[own])


# -------------------------------------------------------------------------------------------------
# from a run


def build(
    *,
    plan: Plan,
    signatures: SignatureSet,
    voting: Sequence[VotingGenes],
    genes: GeneIndex,
    scale: str,
    sums: NDArray[np.int64],
    n_cells: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    rank: NDArray[np.int64],
    depth: NDArray[np.float64],
    codes: NDArray[np.int64],
    strata: NDArray[np.int64],
    histogram: NDArray[np.int64],
    able: NDArray[np.uint8],
    pvalue: NDArray[np.float64],
    padj: NDArray[np.float64],
    steps: Mapping[str, Curve],
    seed: int,
    about: Mapping[str, Any],
) -> Reference:
    """Freeze a run from what it left; see `Reference` for what the arguments become.

    Raises
    ------
    InputDataError
        The run's values mean nothing outside it, or nothing was scored.
    """
    if scale not in SCALES:
        raise InputDataError(
            f"a run on {scale.replace('_', ' ')} values cannot be frozen: what they mean differs "
            "between data sets; use counts or logged values"
        )
    lineages = [k for k in range(len(plan.lineages)) if plan.usable[k].any()]
    if not lineages:
        raise InputDataError("nothing was scored in this run: there is nothing to freeze")
    drawn: dict[
        tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
    ] = {}
    for k in lineages:
        controls = ControlGenes(sums[k], eligible, rank)
        for s in np.flatnonzero(plan.usable[k]).tolist():
            order = draw_order(voting[s], sums[k])
            found, weights = draw_sets(
                voting[s], controls, sums[k],
                lineage=plan.lineages[k], n_null=plan.n_null, seed=seed,
                resting=plan.resting[k, s],
            )  # fmt: skip
            drawn[k, s] = (voting[s].positions[order], found, weights)
    used = np.unique(np.concatenate([np.append(own, null) for own, null, _ in drawn.values()]))
    used = used[np.argsort(rank[used])]
    new = np.full(genes.n_genes, -1, np.int64)
    new[used] = np.arange(len(used))
    organism = str(genes.organism)
    limits, lowest, cells = [], [], {}
    for k in lineages:
        here = (codes == k) & (strata >= 0)
        limits.append(stratum_limits(depth[here]))
        lowest.append(float(depth[here].min()) if here.any() else np.inf)
        for s in np.flatnonzero(plan.usable[k]).tolist():
            at = codes == k
            curve = Curve.of(pvalue[at, s], padj[at, s]).compact()
            cells[plan.lineages[k], plan.signatures[s]] = curve
    definitions = signatures.select(plan.signatures)
    return Reference(
        organism=organism,
        scale=scale,
        n_null=plan.n_null,
        lineages=tuple(plan.lineages[k] for k in lineages),
        signatures=definitions,
        ids=tuple(str(genes.ids[g]) for g in used),
        symbols=tuple(str(genes.symbols[g]) for g in used),
        means=np.asarray(
            sums[lineages][:, used] / 2**FIX_X / np.maximum(n_cells[lineages], 1)[:, None],
            np.float32,
        ),
        sets={
            (lineages.index(k), s): FrozenSet(new[own], weights, new[null], plan.centres[k, s])
            for (k, s), (own, null, weights) in drawn.items()
        },
        lowest=np.asarray(lowest),
        limits=tuple(limits),
        histogram=histogram[lineages],
        able=able[lineages],
        cells=cells,
        steps={name: curve.compact() for name, curve in sorted(steps.items())},
        about={
            **about,
            "n_cells": {plan.lineages[k]: int(n_cells[k]) for k in lineages},
            "signatures_sha256": _definitions_hash(definitions),
        },
    )


def _definitions_hash(signatures: SignatureSet) -> str:
    told = json.dumps([dataclasses.asdict(s) for s in signatures.values()], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


# -------------------------------------------------------------------------------------------------
# curves as tables, for results


def steps_table(steps: Mapping[str, Curve]) -> pd.DataFrame:
    """The families of candidates, one row per corner of each curve."""
    parts = [
        pd.DataFrame({"family": name, "p": c.p, "padj": c.padj, "rank": c.rank, "factor": c.factor})
        for name, c in steps.items()
        if len(c.p)
    ]
    columns = ["family", "p", "padj", "rank", "factor"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def steps_from(table: pd.DataFrame) -> dict[str, Curve]:
    """What `steps_table` was made of."""
    return {
        str(name): Curve(
            part["p"].to_numpy(np.float64),
            part["padj"].to_numpy(np.float64),
            part["rank"].to_numpy(np.int64),
            float(part["factor"].iloc[0]),
        )
        for name, part in table.groupby("family", sort=False, observed=True)
    }


# -------------------------------------------------------------------------------------------------
# the file


def _text(value: str) -> NDArray[np.uint8]:
    return np.frombuffer(value.encode("utf-8"), np.uint8)


def _untext(array: NDArray[Any]) -> str:
    return np.asarray(array, np.uint8).tobytes().decode("utf-8")


def _hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _narrow(values: NDArray[np.int64]) -> NDArray[Any]:
    """Whole numbers from 0 in the smallest type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max()) if values.size else 0))


def _pack(ref: Reference) -> dict[str, NDArray[Any]]:
    pairs = sorted(ref.sets)
    sets = [ref.sets[pair] for pair in pairs]
    curves = [*(ref.cells[key] for key in sorted(ref.cells)), *ref.steps.values()]
    filled = np.flatnonzero(ref.histogram)
    meta = {
        "format": FORMAT,
        "organism": ref.organism,
        "scale": ref.scale,
        "n_null": ref.n_null,
        "lineages": ref.lineages,
        "signatures": [dataclasses.asdict(s) for s in ref.signatures.values()],
        "ids": ref.ids,
        "symbols": ref.symbols,
        "n_strata": ref.n_strata,
        "cells": sorted(ref.cells),
        "steps": list(ref.steps),
        "about": ref.about,
    }
    return {
        "meta": _text(json.dumps(meta, sort_keys=True, ensure_ascii=False)),
        "means": ref.means,
        "pairs": np.asarray(pairs, np.uint16),
        "set_size": _narrow(np.asarray([len(s.genes) for s in sets])),
        "set_gene": _narrow(np.concatenate([s.genes for s in sets])),
        "set_weight": np.concatenate([s.weights for s in sets]),
        "set_control": _narrow(np.concatenate([s.controls for s in sets])),
        "centre": np.asarray([s.centres for s in sets]),
        "lowest": ref.lowest,
        "limit_size": np.asarray([len(x) for x in ref.limits], np.uint8),
        "limit": np.concatenate(ref.limits),
        # nearly all steps are 1: the bins that are filled lie together
        "null_step": _narrow(np.diff(filled, prepend=0)),
        "null_count": _narrow(ref.histogram.ravel()[filled]),
        "able": np.asarray(ref.able, np.uint8).ravel(),
        "curve_size": np.asarray([len(c.p) for c in curves], np.uint32),
        "curve_factor": np.asarray([c.factor for c in curves], np.float64),
        "curve_p": np.concatenate([np.zeros(0), *(c.p for c in curves)]),
        "curve_padj": np.concatenate([np.zeros(0), *(c.padj for c in curves)]),
        "curve_rank": _narrow(np.concatenate([np.zeros(0, np.int64), *(c.rank for c in curves)])),
    }


def _unpack(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Reference:
    lineages = tuple(map(str, meta["lineages"]))
    signatures = SignatureSet([_signature(s) for s in meta["signatures"]])
    n_null, n_strata, n_genes = int(meta["n_null"]), int(meta["n_strata"]), len(meta["ids"])
    shape = (len(lineages), len(signatures), n_strata, N_BINS)
    _require(0 < np.prod(shape, dtype=float) * 8 <= _MAX_SIZE, "the null is empty or too large")
    _require(2 < n_null <= 100_000 and 0 < n_strata <= MAX_STRATA, "numbers out of range")
    _require(meta["scale"] in SCALES and n_genes == len(meta["symbols"]), "facts do not fit")
    means = np.asarray(arrays["means"], np.float32)
    _require(means.shape == (len(lineages), n_genes), "means of other genes")
    ends = np.cumsum(arrays["set_size"], dtype=np.int64)
    gene = _positions(arrays["set_gene"], n_genes)
    control = _positions(arrays["set_control"], n_genes)
    weight = np.asarray(arrays["set_weight"], np.float64)
    centre = np.asarray(arrays["centre"], np.float64)
    pairs = [(int(k), int(s)) for k, s in arrays["pairs"]]
    _require(
        control.shape == (len(gene), n_null)
        and len(weight) == len(gene) == (ends[-1] if len(ends) else 0)
        and centre.shape == (len(pairs), n_null + 1)
        and len(pairs) == len(ends) == len(set(pairs))
        and bool(np.isfinite(weight).all() and (np.abs(weight) < 2**10).all()),
        "sets of other sizes",
    )
    _require(
        all(k < len(lineages) and s < len(signatures) for k, s in pairs), "sets of other signatures"
    )
    sets = {
        pair: FrozenSet(gene[a:b], weight[a:b], control[a:b], centre[i])
        for i, (pair, a, b) in enumerate(zip(pairs, [0, *ends], ends, strict=False))
    }
    filled = np.cumsum(arrays["null_step"], dtype=np.int64)
    histogram = np.zeros(shape, np.int64)
    _require(not len(filled) or int(filled[-1]) < histogram.size, "a null of another size")
    histogram.ravel()[filled] = arrays["null_count"]
    able = np.asarray(arrays["able"], np.uint8)
    _require(len(able) == len(lineages) * n_strata * len(signatures), "a power of another size")
    limits = np.split(
        np.asarray(arrays["limit"], np.float64),
        np.cumsum(arrays["limit_size"], dtype=np.int64)[:-1],
    )
    _require(
        len(limits) == len(lineages) == len(arrays["lowest"])
        and all(len(x) < n_strata for x in limits),
        "limits of other strata",
    )
    curves = _curves(arrays)
    cells = [(str(a), str(b)) for a, b in meta["cells"]]
    steps = [str(name) for name in meta["steps"]]
    _require(len(curves) == len(cells) + len(steps), "other curves")
    names = list(signatures)
    _require(all((lineages[k], names[s]) in set(cells) for k, s in pairs), "a curve is missing")
    return Reference(
        organism=str(meta["organism"]),
        scale=str(meta["scale"]),
        n_null=n_null,
        lineages=lineages,
        signatures=signatures,
        ids=tuple(map(str, meta["ids"])),
        symbols=tuple(map(str, meta["symbols"])),
        means=means,
        sets=sets,
        lowest=np.asarray(arrays["lowest"], np.float64),
        limits=tuple(limits),
        histogram=histogram,
        able=able.reshape(len(lineages), n_strata, len(signatures)),
        cells=dict(zip(cells, curves, strict=False)),
        steps=dict(zip(steps, curves[len(cells) :], strict=True)),
        about=dict(meta["about"]),
    )


def _require(held: bool, what: str) -> None:  # noqa: FBT001
    if not held:
        raise ValueError(what)


def _positions(values: NDArray[Any], n: int) -> NDArray[np.int64]:
    _require(values.dtype.kind == "u", "positions that are no whole numbers")
    out = values.astype(np.int64)
    _require(not out.size or int(out.max()) < n, "positions of genes that are not there")
    return out


def _curves(arrays: Mapping[str, NDArray[Any]]) -> list[Curve]:
    ends = np.cumsum(arrays["curve_size"], dtype=np.int64)
    p, padj, rank = arrays["curve_p"], arrays["curve_padj"], arrays["curve_rank"]
    _require(
        len(p) == len(padj) == len(rank) == (ends[-1] if len(ends) else 0)
        and len(ends) == len(arrays["curve_factor"]),
        "curves of other sizes",
    )
    return [
        Curve(
            np.asarray(p[a:b], np.float64), np.asarray(padj[a:b], np.float64),
            rank[a:b].astype(np.int64), float(factor),
        )
        for a, b, factor in zip([0, *ends], ends, arrays["curve_factor"], strict=False)
    ]  # fmt: skip


def _signature(told: Mapping[str, Any]) -> Signature:
    genes = tuple(
        SignatureGene(**{**gene, "evidence": tuple(gene["evidence"])}) for gene in told["genes"]
    )
    return Signature(
        **{
            **told,
            "genes": genes,
            "lineages": tuple(told["lineages"]),
            "species": tuple(told["species"]),
        }
    )
