"""Antibody counts (CITE-seq): names, normalisation, which cells are positive, and the phenotype of T cells.

Functions on arrays; `senoscore.citeseq` finds the antibodies in files and does a whole data set.

**Normalisation.** Centred log ratio of each antibody over the cells of a sample, the variant that
Seurat calls ``margin = 2``: ``log1p(count / g)``, g = exp(mean over cells of log1p(count)). Alone it
leaves the cells' staining and capture in: cells with many molecules of everything look positive for
everything. So counts are first divided by the cell's size, the median over
antibodies of ``count / g`` (`size_factors`).

**Positive or negative.** A mixture of two normals per antibody and lineage (`fit_mixture`). It is
refused, with the reason, unless two populations are there: difference of BIC above 10, Ashman's
D above 2, enough cells in each, the upper one above the isotype controls where there are any. A
cell whose size is so small that a positive cell would hold fewer than three molecules is not judged.

**The phenotype** (`phenotype_arm`) is a mark gained (CD57 or KLRG1) *and* a mark lost (CD27 or
CD28), as one would gate it. P(phenotype) = P(any gained) P(any lost), from the posteriors; its
``pvalue`` is 1 - P, the probability that the cell does not have the phenotype (a local false
discovery rate), ``padj`` the mean of that over all cells called at least as readily. There are too
few antibodies for a null of random ones, and ranks in a lineage would call a fixed share of any data.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# Kass and Raftery 1995: "very strong"; Ashman, Bird and Zepf 1994: clearly apart
MIN_DELTA_BIC: Final = 10.0
MIN_SEPARATION: Final = 2.0
MIN_CELLS: Final = 50
MIN_CELLS_COMPONENT: Final = 10
# exp(-3) = 0.05: a positive cell that should hold three molecules holds none in one of twenty cases
MIN_EXPECTED: Final = 3.0
# fewer antibodies tell a cell's size from its type no longer
MIN_PANEL: Final = 10
# a mixture of two is fitted on no more order statistics than these
MAX_FITTED: Final = 2000
ISOTYPE_QUANTILE: Final = 0.95
_MIN_COMPARED: Final = 5

ANTIBODY, ISOTYPE, HASHTAG, UNKNOWN = "antibody", "isotype", "hashtag", "unknown"

# --------------------------------------------------------------------------------------------
# names


@lru_cache(maxsize=1)
def read_antibodies() -> pd.DataFrame:
    """The shipped table of antibodies: canonical ``protein``, ``gene``, role and weight.

    ``role`` is ``phenotype`` (votes in the T-cell phenotype arm, with ``direction`` and
    ``weight`` as in the signature ``t_arm_phenotype``), ``exhaustion``, ``both``, ``identity`` or
    ``other``.
    """
    path = resources.files("senoscore") / "data" / "antibodies.tsv"
    with path.open("r", encoding="utf-8") as file:
        table = pd.read_csv(file, sep="\t", keep_default_na=False, dtype=str)
    table["weight"] = pd.to_numeric(table["weight"].replace("", "0"))
    return table


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    table = read_antibodies()
    known = {_key(name): name for name in table["protein"]}
    for name, synonyms in zip(table["protein"], table["synonyms"], strict=True):
        for synonym in filter(None, synonyms.split(";")):
            known.setdefault(_key(synonym), name)
    return known


_HASHTAG: Final = re.compile(r"hash[-_ ]?tag|(?:^|[-_. ])hto(?:[-_. \d]|$)|cell ?hashing", re.I)
_ISOTYPE: Final = re.compile(
    r"isotype|(?:mouse|rat|hamster|armenian|syrian|rabbit|\bms|\bmm)[-_. ]*ig[gm]|"
    r"ig[gm]\d?[abc]?[-_. ]*(?:kappa|k|lambda|fc)?[-_. ]*(?:isotype|ctrl|control)|"
    # IgG2a and IgG2b are mouse and rat classes: no antibody to human surfaces
    r"^ig[g]2[ab](?:[-_. ]|$)",
    re.I,
)
_BARE_IGG1: Final = re.compile(r"^igg1$", re.I)
_PREFIX: Final = re.compile(
    r"^(?:(?:adt|ab|prot|protein|cite|citeseq|antibody|totalseq[-_ ]?[abcd]?)[-_.: ]+|"
    r"(?:hu(?:man)?(?:ms|mouse|rt|rat)*|ms(?:hu)?)[._ ]+|"
    r"anti[-_. ]*(?:(?:human|mouse|rat|hu|ms)[-_./ ]?)*[-_. ]+|"
    r"human[-_. ]+|[abcd]?0\d{3}[-_. ]+)",
    re.I,
)
_SUFFIX: Final = re.compile(
    r"[-_. ]*(?:total[-_ ]?seq(?:[-_ ]?[abcd])?|total[-_]?[abcd])(?:[-_ ]*\d{4})?$|"
    r"[-_.: ]+(?:adt|ab|prot|protein|cite|citeseq|antibody|a0\d{3})$",
    re.I,
)
_COPY: Final = re.compile(r"^(cd\d+[a-z]*)[-._](\d{1,2})$", re.I)
_LIGAND: Final = re.compile(r"^(?:l|lg|ligand)$", re.I)


def _stripped(name: str) -> str:
    before = None
    name = name.strip()
    while name != before:
        before = name
        name = _SUFFIX.sub("", _PREFIX.sub("", name)).strip()
    return name


def _match(name: str) -> str | None:
    known = _known()
    copy = _COPY.match(name)  # CD16-1 is the second CD16 of a file, not CD161
    if copy:
        name = copy[1]
    whole = known.get(_key(name))
    if whole is not None:
        return whole
    parts = [p for p in re.split(r"[_/|,()\[\]\s]+", name) if p]
    if any(_LIGAND.match(p) for p in parts):
        return None
    found = {known[_key(p)] for p in parts if _key(p) in known}
    if not found:
        # CD57-R, a recombinant clone; a dash is part of most names, so only what stands before it
        first, _, rest = name.partition("-")
        if rest and not _LIGAND.match(rest) and re.fullmatch(r"cd\d+[a-z]*", first, re.I):
            found = {known[_key(first)]} if _key(first) in known else set()
    return found.pop() if len(found) == 1 else None


def normalise_names(names: Sequence[str]) -> pd.DataFrame:
    """What each antibody of a panel is.

    Vendors' prefixes and suffixes are dropped (``anti-human_``, ``Hu.``, ``ADT_``, ``-TotalSeqC``),
    a gene, alias or clone beside the name is looked past (``CD45RA_PTPRC``, ``CD279 (PD-1)``). A name
    that stands for two proteins, or for none in the table, is not guessed.

    Returns
    -------
    DataFrame
        ``raw``; ``kind``: antibody, isotype, hashtag or unknown; ``protein``: the canonical name,
        empty unless an antibody.

    Examples
    --------
    >>> normalise_names(["anti-human_CD57", "PD-1_TotalSeqB", "Mouse-IgG1", "CD27L"])[
    ...     "protein"
    ... ].tolist()
    ['CD57', 'PD-1', '', '']
    """
    rows = []
    for raw in names:
        name = _stripped(str(raw))
        if _HASHTAG.search(str(raw)):
            rows.append((raw, HASHTAG, ""))
        elif _ISOTYPE.search(str(raw)) or _ISOTYPE.search(name):
            rows.append((raw, ISOTYPE, ""))
        else:
            protein = _match(name)
            rows.append((raw, UNKNOWN if protein is None else ANTIBODY, protein or ""))
    table = pd.DataFrame(rows, columns=["raw", "kind", "protein"])
    # IgG1 is also a class of human antibody; beside other controls it is a control
    if (table["kind"] == ISOTYPE).any():
        bare = [bool(_BARE_IGG1.match(_stripped(str(r)))) for r in names]
        table.loc[bare, "kind"] = ISOTYPE
    return table


# --------------------------------------------------------------------------------------------
# normalisation


def is_counts(values: Floats) -> bool:
    """Whether these are counts: finite, not negative, whole numbers."""
    return bool(np.isfinite(values).all() and (values >= 0).all() and (values % 1 == 0).all())


def _groups(groups: NDArray[np.int64] | None, n: int) -> list[NDArray[np.int64]]:
    if groups is None:
        return [np.arange(n)]
    return [np.flatnonzero(groups == g) for g in np.unique(groups)]


def geometric_levels(counts: Floats) -> NDArray[np.float64]:
    """Per antibody, ``exp(mean over cells of log1p(count))``: at least 1.

    The mean is over sorted values, so that it does not depend on the order of cells.
    """
    return np.asarray(
        [np.exp(np.log1p(np.sort(column.astype(np.float64))).mean()) for column in counts.T]
    )


def clr(counts: Floats, groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Centred log ratio per antibody over the cells of each group (sample).

    ``log1p(count / g)`` with ``g = exp(mean log1p(count))``: Stoeckius 2017 as in Seurat's
    ``NormalizeData(method = "CLR", margin = 2)``.

    Examples
    --------
    >>> clr(np.array([[0.0], [3.0]])).round(3).ravel().tolist()
    [0.0, 0.916]
    """
    out = np.empty(counts.shape, np.float32)
    for rows in _groups(groups, len(counts)):
        out[rows] = np.log1p(counts[rows] / geometric_levels(counts[rows]))
    return out


def size_factors(
    counts: Floats, groups: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], bool]:
    """How much of everything each cell holds; geometric mean 1 in each group.

    The median over antibodies (those seen in at least half of the group's cells) of
    ``count / g``, g as in `clr`: most antibodies of a panel say nothing of a cell's type, so the
    median is the cell's staining and capture.

    Returns
    -------
    factors, and whether they were estimated; with fewer than `MIN_PANEL` such antibodies they
    are all 1. A cell without any of half the panel has the group's smallest factor, halved.
    """
    out = np.ones(len(counts))
    estimated = True
    for rows in _groups(groups, len(counts)):
        here = counts[rows]
        usable = (here > 0).mean(axis=0) >= 0.5
        if usable.sum() < MIN_PANEL:
            estimated = False
            continue
        level = geometric_levels(here[:, usable]).astype(np.float32)
        size = np.median(here[:, usable] / level, axis=1).astype(np.float64)
        size[size <= 0] = size[size > 0].min() / 2
        out[rows] = size / np.exp(np.sort(np.log(size)).mean())
    return out, estimated


# --------------------------------------------------------------------------------------------
# mixtures


@dataclass(frozen=True)
class Mixture:
    """Two normals fitted to one antibody, or the reason why not.

    ``separation`` is Ashman's D, ``|m1 - m0| / sqrt((s0² + s1²) / 2)``; ``delta_bic`` is how far
    two populations describe the values better than one.
    """

    n: int
    weight: float = np.nan
    mean: tuple[float, float] = (np.nan, np.nan)
    sd: tuple[float, float] = (np.nan, np.nan)
    separation: float = np.nan
    delta_bic: float = np.nan
    reason: str = ""

    def posterior(self, x: Floats) -> NDArray[np.float64]:
        """Probability that a cell is of the upper population; NaN where the fit was refused.

        Beyond the two means it stays as it is there: with unequal widths the wider normal would
        claim both tails.
        """
        if self.reason:
            return np.full(len(x), np.nan)
        at = np.clip(np.asarray(x, np.float64), *self.mean)
        log_odds = np.log(self.weight) - np.log1p(-self.weight) + np.log(self.sd[0] / self.sd[1])
        squares = [((at - m) / s) ** 2 for m, s in zip(self.mean, self.sd, strict=True)]
        return np.asarray(1 / (1 + np.exp(-(log_odds + 0.5 * (squares[0] - squares[1])))))


def fit_mixture(values: Floats, *, resolution: float = 0.0) -> Mixture:
    """Two populations in one antibody, if there are two.

    Maximum likelihood (scikit-learn's `GaussianMixture`) from three starts, on the sorted values
    (at most `MAX_FITTED` of them, evenly by rank), so that the order of cells does not matter.

    Parameters
    ----------
    values
        Of the cells of one lineage; NaN is left out.
    resolution
        What one molecule changes: no population can be narrower.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x = np.sort(np.asarray(values, np.float64)[np.isfinite(values)])
    n = len(x)
    if n < MIN_CELLS:
        return Mixture(n, reason=f"fewer than {MIN_CELLS} cells")
    if x[0] == x[-1]:
        return Mixture(n, reason="the same value in every cell")
    if n > MAX_FITTED:
        x = x[((np.arange(MAX_FITTED) + 0.5) * n / MAX_FITTED).astype(np.int64)]
    column = x[:, None]
    floor = max(resolution, 1e-3 * float(np.ptp(x))) ** 2
    best = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a poor start loses to the others
        for share in (0.25, 0.5, 0.75):
            at = min(max(2, int(share * len(x))), len(x) - 2)
            low, high = column[:at], column[at:]
            fit = GaussianMixture(
                2, covariance_type="diag", reg_covar=floor, max_iter=300, tol=1e-5,
                weights_init=[share, 1 - share], means_init=[low.mean(axis=0), high.mean(axis=0)],
                precisions_init=[1 / (low.var(axis=0) + floor), 1 / (high.var(axis=0) + floor)],
            ).fit(column)  # fmt: skip
            if best is None or fit.lower_bound_ > best.lower_bound_:
                best = fit
    assert best is not None
    order = np.argsort(best.means_.ravel())
    mean = best.means_.ravel()[order]
    sd = np.sqrt(best.covariances_.ravel()[order])
    weight = float(best.weights_[order][1])
    separation = float((mean[1] - mean[0]) / np.sqrt((sd**2).mean()))
    spread = float(x.var()) + floor
    one = len(x) * (np.log(2 * np.pi * spread) + x.var() / spread) + 2 * np.log(len(x))
    delta_bic = float(one - best.bic(column))
    fewest = min(weight, 1 - weight) * n
    if delta_bic < MIN_DELTA_BIC:
        reason = "one population describes it as well"
    elif fewest < MIN_CELLS_COMPONENT or min(weight, 1 - weight) * len(x) < MIN_CELLS_COMPONENT:
        reason = "the smaller population has too few cells"
    elif separation <= MIN_SEPARATION:
        reason = "the two populations overlap"
    else:
        reason = ""
    return Mixture(
        n, weight, (float(mean[0]), float(mean[1])), (float(sd[0]), float(sd[1])), separation,
        delta_bic, reason,
    )  # fmt: skip


@dataclass(frozen=True)
class Antibodies:
    """Antibodies of a panel measured in cells, judged.

    ``names``: canonical names, columns of the arrays. ``clr``: of counts divided by the cell's
    size. ``positive``: probability that the cell is positive, NaN where the antibody does not
    separate in the cell's lineage, or the cell is too small to tell. ``fits``: one row per
    antibody and lineage.
    """

    names: tuple[str, ...]
    clr: NDArray[np.float32]
    positive: NDArray[np.float32]
    fits: pd.DataFrame
    notes: tuple[str, ...] = ()


FIT_COLUMNS: Final = (
    "lineage", "protein", "antibody", "n_cells", "n_judged", "frac_detected", "frac_positive",
    "separation", "delta_bic", "status", "reason",
)  # fmt: skip


def judge(
    values: Floats,
    raw_names: Sequence[str],
    *,
    lineage: NDArray[np.object_],
    use: NDArray[np.bool_],
    sample: NDArray[np.int64] | None = None,
) -> Antibodies:
    """Normalise a panel and say which cells are positive for what.

    Parameters
    ----------
    values
        Cells × antibodies: counts, or values that someone normalised already (taken as they are).
    raw_names
        As the file has them; those the table does not know, isotype controls and hashtags are not
        judged. Of two antibodies to one protein the one with more molecules is.
    lineage, use
        Lineage of each cell, and whether it passed quality control: others are judged, not fitted.
    sample
        Codes of samples, normalised one by one.
    """
    table = normalise_names(raw_names)
    keep = (table["kind"] != HASHTAG).to_numpy()
    values, table = values[:, keep], table[keep].reset_index(drop=True)
    notes = []
    columns = _best_of_each(values, table)
    names = tuple(table["protein"][k] for k in columns)
    counted = is_counts(values)
    controls = np.flatnonzero(table["kind"] == ISOTYPE)
    background = np.nan
    n = len(values)
    if counted:
        size, estimated = size_factors(values, sample)
        if not estimated:
            notes.append(
                f"fewer than {MIN_PANEL} antibodies are seen in half of the cells: cells are not "
                "adjusted for how much they hold of everything"
            )
        scaled = (values[:, columns] / size[:, None]).astype(np.float32)
        x = clr(scaled, sample)
        level = np.median([geometric_levels(scaled[rows]) for rows in _groups(sample, n)], axis=0)
        if len(controls) and use.any():
            background = float(
                np.quantile(values[use][:, controls] / size[use, None], ISOTYPE_QUANTILE)
            )
            notes.append(f"{len(controls)} isotype controls")
    else:
        notes.append("the values are no counts: taken as they are, without detection or size")
        size, level = np.ones(n), np.ones(len(columns))
        x = values[:, columns].astype(np.float32)
    positive = np.full(x.shape, np.nan, np.float32)
    rows_of = {str(name): np.flatnonzero(lineage == name) for name in _lineages(lineage)}
    fits = []
    for name, rows in rows_of.items():
        fitted = rows[use[rows]]
        for k, protein in enumerate(names):
            fit, enough = _judge_one(
                x[:, k], rows, fitted, size=size if counted else None, level=float(level[k]),
                background=background,
            )  # fmt: skip
            posterior = fit.posterior(x[rows, k])
            posterior[~enough[rows]] = np.nan
            positive[rows, k] = posterior
            here = positive[fitted, k]
            judged = np.isfinite(here)
            fits.append(
                {
                    "lineage": name,
                    "protein": protein,
                    "antibody": str(table["raw"][columns[k]]),
                    "n_cells": len(fitted),
                    "n_judged": int(judged.sum()),
                    "frac_detected": float((values[fitted, columns[k]] > 0).mean())
                    if counted and len(fitted)
                    else np.nan,
                    "frac_positive": float((here[judged] >= 0.5).mean())
                    if judged.any()
                    else np.nan,
                    "separation": fit.separation,
                    "delta_bic": fit.delta_bic,
                    "status": "not judged" if fit.reason else "separates",
                    "reason": fit.reason,
                }
            )
    return Antibodies(
        names, x, positive, pd.DataFrame(fits, columns=list(FIT_COLUMNS)), tuple(notes)
    )


def _judge_one(
    x: Floats,
    rows: NDArray[np.int64],
    fitted: NDArray[np.int64],
    *,
    size: NDArray[np.float64] | None,
    level: float,
    background: float,
) -> tuple[Mixture, NDArray[np.bool_]]:
    """The mixture of one antibody in one lineage, and which cells are large enough to tell.

    Small cells hold zeros of whatever they carry, which look like a population. Once it is known
    how much a positive cell holds they are left out and the mixture is fitted again.
    """
    enough = np.ones(len(x), bool)
    if size is None:
        return fit_mixture(x[fitted]), enough
    resolution = float(np.log1p(1 / level))
    fit = fit_mixture(x[fitted], resolution=resolution)
    if np.isfinite(fit.mean[1]):
        enough = np.expm1(fit.mean[1]) * level * size >= MIN_EXPECTED
        if not enough[fitted].all():
            left = fitted[enough[fitted]]
            if len(left) < MIN_CELLS <= len(fitted):
                return Mixture(len(left), reason="too few molecules to tell in most cells"), enough
            fit = fit_mixture(x[left], resolution=resolution)
    if not fit.reason and np.expm1(fit.mean[1]) * level <= background:
        fit = Mixture(
            fit.n, fit.weight, fit.mean, fit.sd, fit.separation, fit.delta_bic,
            "the upper population is within the isotype controls",
        )  # fmt: skip
    return fit, enough


def _lineages(lineage: NDArray[np.object_]) -> list[str]:
    return sorted({str(v) for v in pd.unique(pd.Series(lineage)) if isinstance(v, str)})


def _best_of_each(values: Floats, table: pd.DataFrame) -> list[int]:
    """Column of each protein, in the order of the shipped table."""
    total = np.abs(values).sum(axis=0, dtype=np.float64) if len(values) else np.zeros(len(table))
    best: dict[str, int] = {}
    for k in np.flatnonzero(table["kind"] == ANTIBODY):
        protein = str(table["protein"][k])
        if protein not in best or total[k] > total[best[protein]]:
            best[protein] = int(k)
    return [best[p] for p in read_antibodies()["protein"] if p in best]


# --------------------------------------------------------------------------------------------
# the phenotype of T cells


@dataclass(frozen=True)
class Arm:
    """The phenotype arm from antibodies; NaN where a cell cannot be judged, all NaN if `reason`."""

    z: NDArray[np.float64]
    pvalue: NDArray[np.float64]
    padj: NDArray[np.float64]
    proteins: tuple[str, ...]
    reason: str


def _any(probabilities: Floats) -> NDArray[np.float64]:
    """Probability that at least one is true; NaN where none is known."""
    known = np.isfinite(probabilities)
    none = np.where(known, 1 - probabilities, 1.0).prod(axis=1)
    return np.where(known.any(axis=1), 1 - none, np.nan)


def local_to_tail(pvalue: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tail-area false discovery rate of local ones: the mean over all that are no larger.

    Examples
    --------
    >>> local_to_tail(np.array([0.4, 0.0, np.nan, 0.2])).round(2).tolist()
    [0.2, 0.0, nan, 0.1]
    """
    out = np.full(len(pvalue), np.nan)
    known = np.isfinite(pvalue)
    local = np.sort(pvalue[known])
    means = np.cumsum(local) / np.arange(1, len(local) + 1)
    # ties share the value of the last among them
    out[known] = means[np.searchsorted(local, pvalue[known], side="right") - 1]
    return out


def phenotype_arm(
    positive: Floats, names: Sequence[str], cells: NDArray[np.bool_], *, strict: bool = True
) -> Arm:
    """Senescence phenotype of T cells from antibodies.

    With m = P(positive) of a mark that is gained and 1 - P(positive) of one that is lost,

        P = (1 - prod over CD57, KLRG1 of (1 - m)) (1 - prod over CD27, CD28 of (1 - m))
        pvalue = 1 - P;   padj = mean of pvalue over the cells with no larger one
        z = (S - mean of S) / sd of S, S = sum w m / sum w over all phenotype antibodies

    with mean and sd of S over the unaffected cells (each cell counted 1 - P). Taking the product for
    both marks assumes that a cell's errors in different antibodies are independent; where the marks
    occur together more often than by chance, P is too small and the calls too few, not too many.

    Parameters
    ----------
    positive
        Cells × antibodies, NaN where not judged (`judge`).
    names
        Canonical names of the columns.
    cells
        The T cells to judge.
    strict
        Refuse unless a gained and a lost mark separate; else z alone is given from what is there.
    """
    table = read_antibodies().set_index("protein")
    votes = table[table["role"] == "phenotype"]
    n = len(positive)
    nothing = np.full(n, np.nan)
    measured = [k for k, name in enumerate(names) if name in votes.index]
    usable = [k for k in measured if np.isfinite(positive[cells, k]).any()]
    proteins = tuple(names[k] for k in usable)
    sign = np.asarray([votes.loc[p, "direction"] == "+" for p in proteins], bool)
    weight = np.asarray([votes.loc[p, "weight"] for p in proteins], np.float64)
    mark = np.full((n, len(usable)), np.nan)
    if usable:
        mark[cells] = np.where(sign, positive[cells][:, usable], 1 - positive[cells][:, usable])
    main = weight >= 1
    gained, lost = _any(mark[:, main & sign]), _any(mark[:, main & ~sign])
    have = (bool((main & sign).any()), bool((main & ~sign).any()))
    reason = ""
    if not all(have):
        missing = [
            words
            for here, words in zip(have, ("CD57 or KLRG1", "CD27 or CD28"), strict=True)
            if not here
        ]
        reason = f"no antibody to {' and none to '.join(missing)} separates in T cells"
    if reason and (strict or not usable):
        return Arm(nothing, nothing, nothing, proteins, reason)
    pvalue = nothing if reason else 1 - gained * lost
    known = np.isfinite(mark)
    summed = np.where(known, weight, 0.0).sum(axis=1)
    share = np.where(known, weight * mark, 0.0).sum(axis=1) / np.where(summed > 0, summed, np.nan)
    unaffected = np.where(np.isfinite(share), 1.0 if reason else pvalue, np.nan)
    z = _standardised(share, unaffected)
    if not reason:
        z[~np.isfinite(pvalue)] = np.nan
    return Arm(z, pvalue, local_to_tail(pvalue), proteins, reason)


def _standardised(values: Floats, weights: Floats) -> NDArray[np.float64]:
    known = np.isfinite(values) & np.isfinite(weights)
    out = np.full(len(values), np.nan)
    if not known.any():
        return out
    # by value, so that sums do not depend on the order of cells
    order = np.lexsort((weights[known], values[known]))
    v, w = values[known][order], weights[known][order]
    total = w.sum()
    if total <= 0:
        return out
    mean = (w * v).sum() / total
    sd = np.sqrt((w * (v - mean) ** 2).sum() / total)
    out[known] = (values[known] - mean) / sd if sd > 0 else 0.0
    return out


# --------------------------------------------------------------------------------------------
# agreement


def auroc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive cell scores above another; NaN with fewer than five of either.

    Examples
    --------
    >>> auroc(np.arange(10.0), np.arange(10) >= 5)
    1.0
    """
    known = np.isfinite(score)
    score, positive = np.asarray(score, np.float64)[known], positive[known]
    n_in, n_out = int(positive.sum()), int((~positive).sum())
    if min(n_in, n_out) < _MIN_COMPARED:
        return float("nan")
    from scipy.stats import rankdata

    ranks = rankdata(score)
    return float((ranks[positive].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation over cells where both are known; NaN if either is constant."""
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 2 * _MIN_COMPARED:
        return float("nan")
    from scipy.stats import rankdata

    ranks = [rankdata(v[known]) - (known.sum() + 1) / 2 for v in (a, b)]
    length = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / length) if length > 0 else float("nan")
