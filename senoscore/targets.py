"""Targets of senolytic and senomorphic strategies: are they there, in the cells called senescent.

For each target gene, lineage and donor: how many cells show it and how much, in called against
not-called cells. Expression of a target says that a strategy has something to act on there, not that it
works; a kinase or a pathway is not its mRNA (``measurable``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from senoscore import calling, keys, models
from senoscore.annotate import panel_positions, target_positions
from senoscore.donors import ALL_DONORS, moments, moments_of, proportion_interval
from senoscore.null import benjamini_hochberg
from senoscore.scoring import KINDS, expression_matrix, refused_scale
from senoscore.signatures import SignatureSet, read_signatures

if TYPE_CHECKING:
    from senoscore.inputs import Input
    from senoscore.streaming import Panel

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

COLUMNS: Final = (
    "lineage", "donor", "target_id", "strategy", "class", "action", "gene", "measurable",
    "n_called", "n_not_called", "frac_called", "frac_called_low", "frac_called_high",
    "frac_not_called", "frac_not_called_low", "frac_not_called_high", "frac_difference",
    "frac_difference_low", "frac_difference_high", "mean_cp10k_called", "mean_cp10k_not_called",
    "mean_log_called", "mean_log_not_called", "log_difference", "log_difference_low",
    "log_difference_high", "pvalue", "padj", "n_donors", "log2_depth_ratio", "note",
)  # fmt: skip
EVERYONE: Final = "all donors"
# cells of either kind from which a donor's difference counts
MIN_EITHER: Final = 5
MIN_DONORS: Final = 3
_SIDES: Final = ("called", "not_called")


class Expression(NamedTuple):
    """Expression of the target genes, cells × genes.

    log: log1p(CP10k), or the file's logged values. cp10k: counts per 10,000, None without counts.
    columns: column of each gene name. absent: names that are not measured, or have no counterpart,
    and why.
    """

    log: sparse.csr_matrix
    cp10k: sparse.csr_matrix | None
    columns: Mapping[str, int]
    absent: Mapping[str, str]


def target_expression(
    panel: Panel, totals: Floats, data: Input, targets: pd.DataFrame
) -> Expression:
    """Expression of the targets from the panel that the first pass kept.

    Parameters
    ----------
    panel
        Stored values, cells × genes of `senoscore.annotate.panel_positions`.
    totals
        Counts of each cell.
    data
        The data set.
    targets
        `senoscore.signatures.read_targets`.
    """
    positions = target_positions(data)
    names = targets["gene"].astype(str).to_numpy()
    kept = panel_positions(data)
    at = {n: int(np.searchsorted(kept, p)) for n, p in zip(names, positions, strict=True) if p >= 0}
    absent = dict.fromkeys([n for n in names if n not in at], "not measured in this file")
    if data.genes.organism == "mouse":
        none = targets.loc[targets["mouse_gene"].isin(["", "none"]), "gene"].astype(str)
        absent |= dict.fromkeys(none, "no counterpart in the mouse")
    usable = data.scale in KINDS
    if not usable:
        absent |= dict.fromkeys(at, refused_scale(data.scale, data.matrix))
        at = {}
    values = panel.columns(list(at.values()))
    log = expression_matrix(values, totals, data.scale)
    linear = None
    if data.has_counts:
        linear = log.copy()
        np.expm1(linear.data, out=linear.data)
    return Expression(log, linear, {name: k for k, name in enumerate(at)}, absent)


def voters(lineage: str, signatures: SignatureSet | None = None) -> set[str]:
    """Genes that vote in the senescence call of a lineage: they differ there by construction."""
    known = read_signatures() if signatures is None else signatures
    names = [*calling.OTHER_LINEAGES.get(lineage, ())]
    if lineage == "T":
        names = [calling.PHENOTYPE, *calling.SUPPORT_ARMS.values()]
    if lineage in calling.LOW_CONFIDENCE:
        names.append(calling.CORE)
    return {g.symbol for name in names if name in known for g in known[name].voting()}


class _Gene(NamedTuple):
    """One gene's numbers per donor, first axis called and not called."""

    hits: NDArray[np.int64]
    log: Floats
    squares: Floats
    cp10k: Floats


class _Cells(NamedTuple):
    """Cells of one lineage: expression, code of kind × donor, and what is known of each donor."""

    log: sparse.csc_matrix
    cp10k: sparse.csc_matrix | None
    code: Codes
    donors: list[str]
    n: NDArray[np.int64]
    depth: Floats


def target_table(
    expression: Expression,
    targets: pd.DataFrame,
    *,
    lineage: pd.Series | NDArray[np.object_],
    call: pd.Series | NDArray[np.object_],
    use: NDArray[np.bool_],
    donor: NDArray[np.object_],
    totals: Floats | None,
    confidence: float,
    signatures: SignatureSet | None = None,
) -> pd.DataFrame:
    """Detection and level of each target in called and not-called cells, by lineage and donor.

    Cells that are indeterminate, failed quality control or belong to nobody are left out. Rows of
    a donor describe that donor: shares with Wilson's interval, means, differences without
    interval. The row ``all donors`` speaks of donors where at least 3 have 5 cells of each kind:
    its numbers are means over those donors and its intervals Student's, differences within donors
    with CR2 errors (`senoscore.models.fit_means`). With fewer donors it pools the cells, has
    Wilson's intervals of the shares only, and says so.

    Parameters
    ----------
    expression
        Of all cells.
    targets
        `senoscore.signatures.read_targets`.
    lineage, call, use, donor
        Of each cell: lineage, senescence call, whether it counts, donor (empty for nobody).
    totals
        Counts of each cell; None where there are none.
    confidence
        Of the intervals (0-1).
    signatures
        The registry whose genes make the calls; None the shipped one.

    Returns
    -------
    DataFrame with `COLUMNS`, one row per lineage, donor with a called cell (and ``all donors``)
    and target of that lineage. ``frac_*``: share of cells with the gene (0-1). ``mean_cp10k_*``:
    mean counts per 10,000 (NaN without counts). ``mean_log_*``: mean log1p(CP10k), or of the
    logged values the file has. ``*_difference``: called less not called. ``pvalue``: two-sided,
    of the log difference over donors; ``padj``: Benjamini-Hochberg over lineages × genes.
    ``log2_depth_ratio``: mean log2 counts per cell, called less not called. ``note``: not measured,
    one of the genes that make the call, pooled, deeper.
    """
    rows: list[dict[str, Any]] = []
    called = np.asarray(call == "senescent", bool)
    use = use & (called | np.asarray(call == "not_senescent", bool)) & (donor != "")
    for name in keys.LINEAGES:
        own = targets[[name in str(text).split() for text in targets["lineages"]]]
        chosen = np.flatnonzero(use & np.asarray(lineage == name, bool))
        if not len(own) or not len(chosen):
            continue
        cells = _divide(expression, chosen, called, donor, totals)
        genes = list(dict.fromkeys(map(str, own["gene"])))
        made = _lineage_rows(expression, genes, cells, confidence, voters(name, signatures))
        for target in own.to_dict("records"):
            gene = str(target["gene"])
            facts = {
                "lineage": name,
                **{k: target[k] for k in ("target_id", "strategy", "class", "action", "gene")},
                "measurable": target["measurable"],
            }
            rows += [{**facts, **row} for row in made[gene]]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("n_called", "n_not_called", "n_donors"):
        table[column] = table[column].astype("Int64")
    table["padj"] = np.nan
    # a gene of two strategies is one test
    tested = table[table["pvalue"].notna()].drop_duplicates(["lineage", "gene"])
    adjusted = benjamini_hochberg(tested["pvalue"].to_numpy(np.float64))
    of = dict(zip(zip(tested["lineage"], tested["gene"], strict=True), adjusted, strict=True))
    known = table["pvalue"].notna().to_numpy()
    table.loc[known, "padj"] = [
        of[pair] for pair in zip(table.loc[known, "lineage"], table.loc[known, "gene"], strict=True)
    ]
    return table


def _divide(
    expression: Expression,
    chosen: Codes,
    called: NDArray[np.bool_],
    donor: NDArray[np.object_],
    totals: Floats | None,
) -> _Cells:
    """Cells of one lineage by donor and kind (0 called, 1 not)."""
    who, names = pd.factorize(donor[chosen], sort=True)
    kind = (~called[chosen]).astype(np.int64)
    code = kind * len(names) + who.astype(np.int64)
    n = np.bincount(code, minlength=2 * len(names)).reshape(2, -1)
    depth = np.full((2, len(names)), np.nan)
    if totals is not None:
        logged = np.full(len(chosen), np.nan)
        np.log2(totals[chosen], out=logged, where=totals[chosen] > 0)
        depth = moments(code, logged, 2 * len(names))[1].reshape(2, -1)
    linear = None if expression.cp10k is None else expression.cp10k[chosen].tocsc()
    return _Cells(expression.log[chosen].tocsc(), linear, code, [str(x) for x in names], n, depth)


def _measure(at: Sequence[int], cells: _Cells) -> list[_Gene]:
    """Numbers of the genes in these columns."""
    shape = (len(at), 2, len(cells.donors))
    rows, every = np.arange(len(cells.code)), np.arange(len(at))

    def of(matrix: sparse.csc_matrix) -> tuple[NDArray[np.float32], Floats, Floats]:
        dense = matrix[:, list(at)].toarray()
        found = moments_of(cells.code, rows, dense, every, shape[1] * shape[2])
        return dense, found[1], found[2]

    values, mean, squares = of(cells.log)
    hits = np.stack(
        [np.bincount(cells.code[column > 0], minlength=shape[1] * shape[2]) for column in values.T]
    )
    linear = np.full(mean.shape, np.nan) if cells.cp10k is None else of(cells.cp10k)[1]
    return [
        _Gene(*each)
        for each in zip(
            *(part.reshape(shape) for part in (hits, mean, squares, linear)), strict=True
        )
    ]


def _lineage_rows(
    expression: Expression,
    genes: Sequence[str],
    cells: _Cells,
    confidence: float,
    circular: set[str],
) -> dict[str, list[dict[str, Any]]]:
    """Rows of each gene in one lineage: all donors, then each donor that has a called cell."""
    counts = {"n_called": int(cells.n[0].sum()), "n_not_called": int(cells.n[1].sum())}
    rows: dict[str, list[dict[str, Any]]] = {
        gene: [{"donor": EVERYONE, **counts, "note": expression.absent[gene]}]
        for gene in genes
        if gene in expression.absent
    }
    measured = [gene for gene in genes if gene not in rows]
    if not measured:
        return rows
    data = _measure([expression.columns[gene] for gene in measured], cells)
    for gene, numbers, fits in zip(measured, data, _fits(data, cells), strict=True):
        notes = ["one of the genes that make this call"] if gene in circular else []
        rows[gene] = [_summary(numbers, cells, fits, confidence, notes)]
        if cells.donors != [ALL_DONORS]:
            rows[gene] += [
                _donor_row(numbers, cells, d, confidence, notes)
                for d in np.flatnonzero(cells.n[0] > 0)
            ]
    return rows


def _fits(data: Sequence[_Gene], cells: _Cells) -> list[dict[str, models.Fit]]:
    """Each gene's shares and differences over donors; empty where too few donors have both kinds."""
    both = (cells.n >= MIN_EITHER).all(axis=0)
    n_both = int(both.sum())
    if n_both < MIN_DONORS or cells.donors == [ALL_DONORS]:
        return [{} for _ in data]
    n = cells.n[:, both]
    # genes × kinds × donors
    hits, log, squares = (
        np.stack([getattr(gene, part) for gene in data])[:, :, both]
        for part in ("hits", "log", "squares")
    )
    share = hits / n
    # a donor in whom no cell shows the gene is not known to a certainty
    smooth = (hits + 0.5) / (n + 1)
    share_var = smooth * (1 - smooth) / n
    freedom = np.maximum(n - 1, 1).sum(axis=1, keepdims=True)
    log_var = squares.sum(axis=2, keepdims=True) / freedom / n
    ones, each = np.ones((n_both, 1)), np.arange(n_both, dtype=np.int64)
    fits = {
        # unweighted: the interval is centred on the mean it stands beside
        f"frac_{side}": models.weighted_fits(share[:, k], np.ones(share[:, k].shape), ones, 0, each)
        for k, side in enumerate(_SIDES)
    }
    for name, values, variance in (
        ("frac_difference", share[:, 0] - share[:, 1], share_var.sum(axis=1)),
        ("log_difference", log[:, 0] - log[:, 1], log_var.sum(axis=1)),
    ):
        fits[name] = models.fits_of_means(values, variance, ones, 0, each)
    return [dict(zip(fits, own, strict=True)) for own in zip(*fits.values(), strict=True)]


def _deeper(ratio: float) -> list[str]:
    """A note where called and not-called cells differ in depth by half or more."""
    if not np.isfinite(ratio) or abs(ratio) <= np.log2(1.5):
        return []
    deep, other = ("called", "not-called") if ratio > 0 else ("not-called", "called")
    return [
        f"{deep} cells have {2 ** abs(ratio):.1f} times the counts of {other} ones: detection "
        "rises with depth"
    ]


def _donor_row(
    data: _Gene, cells: _Cells, d: np.intp, confidence: float, notes: Sequence[str]
) -> dict[str, Any]:
    """One donor, described."""
    row: dict[str, Any] = {"donor": cells.donors[d]}
    for k, side in enumerate(_SIDES):
        n, hits = int(cells.n[k, d]), int(data.hits[k, d])
        low, high = proportion_interval(hits, n, confidence)
        row |= {
            f"n_{side}": n,
            f"frac_{side}": hits / n if n else np.nan,
            f"frac_{side}_low": float(low),
            f"frac_{side}_high": float(high),
            f"mean_cp10k_{side}": data.cp10k[k, d],
            f"mean_log_{side}": data.log[k, d],
        }
    ratio = float(cells.depth[0, d] - cells.depth[1, d])
    row["frac_difference"] = row["frac_called"] - row["frac_not_called"]
    row["log_difference"] = row["mean_log_called"] - row["mean_log_not_called"]
    row["log2_depth_ratio"] = ratio
    row["note"] = "; ".join([*notes, *_deeper(ratio)])
    return row


def _summary(
    data: _Gene,
    cells: _Cells,
    fits: Mapping[str, models.Fit],
    confidence: float,
    notes: Sequence[str],
) -> dict[str, Any]:
    """All donors: over donors where three have both kinds of cells, else over cells."""
    both = (cells.n >= MIN_EITHER).all(axis=0)
    row: dict[str, Any] = {"donor": EVERYONE, "n_donors": int(both.sum())}
    for k, side in enumerate(_SIDES):
        row[f"n_{side}"] = int(cells.n[k].sum())
    if not fits:
        return _pooled(row, data, cells, confidence, notes)
    share = data.hits[:, both] / cells.n[:, both]
    for k, side in enumerate(_SIDES):
        low, high = fits[f"frac_{side}"].interval(confidence)
        row |= {
            f"frac_{side}": float(share[k].mean()),
            f"frac_{side}_low": max(low, 0.0) if np.isfinite(low) else low,
            f"frac_{side}_high": min(high, 1.0) if np.isfinite(high) else high,
            f"mean_cp10k_{side}": float(data.cp10k[k, both].mean()),
            f"mean_log_{side}": float(data.log[k, both].mean()),
        }
    for name in ("frac_difference", "log_difference"):
        row[name] = fits[name].effect
        row[f"{name}_low"], row[f"{name}_high"] = fits[name].interval(confidence)
    row["pvalue"] = fits["log_difference"].pvalue
    ratio = float((cells.depth[0, both] - cells.depth[1, both]).mean())
    row["log2_depth_ratio"] = ratio
    row["note"] = "; ".join([*notes, *_deeper(ratio)])
    return row


def _pooled(
    row: dict[str, Any], data: _Gene, cells: _Cells, confidence: float, notes: Sequence[str]
) -> dict[str, Any]:
    """Cells of all donors together: a description, no test."""
    for k, side in enumerate(_SIDES):
        n, hits = int(cells.n[k].sum()), int(data.hits[k].sum())
        low, high = proportion_interval(hits, n, confidence)

        def mean(values: Floats, k: int = k, n: int = n) -> float:
            there = cells.n[k] > 0
            return float((values[k] * cells.n[k])[there].sum() / n) if n else np.nan

        row |= {
            f"frac_{side}": hits / n if n else np.nan,
            f"frac_{side}_low": float(low),
            f"frac_{side}_high": float(high),
            f"mean_cp10k_{side}": mean(data.cp10k),
            f"mean_log_{side}": mean(data.log),
        }
        row[f"depth_{side}"] = mean(cells.depth)
    row["frac_difference"] = row["frac_called"] - row["frac_not_called"]
    row["log_difference"] = row["mean_log_called"] - row["mean_log_not_called"]
    ratio = row.pop("depth_called") - row.pop("depth_not_called")
    row["log2_depth_ratio"] = ratio
    why = (
        "no cell called senescent"
        if row["n_called"] == 0
        else "the file names no donors: cells pooled, intervals over cells"
        if cells.donors == [ALL_DONORS]
        else f"{row['n_donors']} donors have {MIN_EITHER} cells of each kind, {MIN_DONORS} needed: "
        "cells pooled, intervals over cells"
    )
    row["note"] = "; ".join([why, *notes, *_deeper(ratio)])
    return row
