"""Conditions and ages compared with donors as the replicates: shift per cell, and of composition.

A donor's mean of a score can rise because its cells changed, or because it has more of the cells
that always score high. Both are estimated and kept apart (Kitagawa 1955, J Am Stat Assoc 50:1168):

* ``per_cell``: every donor's subset means, averaged with the same subset weights for all donors;
* ``composition``: every donor's subset shares, averaged with the same subset levels for all donors;
* ``mean``: the plain mean, which mixes the two.

Shares of called cells (``fraction_called``) and of subsets (``fraction_subset``) are compared as
odds. How few donors are modelled, and why so, is said in `senoscore.models`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore import keys, models
from senoscore.design import (
    MIN_DONORS,
    Plan,
    Term,
    count,
    covariate_blocks,
    donor_base,
    make_plan,
    too_few,
    varies_within,
    warn_unread,
)
from senoscore.donors import moments, moments_of
from senoscore.errors import InputDataError
from senoscore.null import benjamini_hochberg

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MEASURES: Final = ("per_cell", "composition", "mean", "fraction_called", "fraction_subset")
COLUMNS: Final = (
    "term", "level", "reference", "lineage", "measure", "name", "effect", "effect_low",
    "effect_high", "unit", "pvalue", "padj", "se", "df", "n_donors_reference", "n_donors",
    "n_cells", "value_reference", "value", "log2_depth_ratio", "model", "design", "note",
)  # fmt: skip

_READ: Final = (
    keys.OBS_LINEAGE, keys.OBS_LINEAGE_SUBSET, keys.OBS_T_SUBSET, keys.OBS_SENESCENCE_CALL,
    keys.OBS_T_STATE, "total_counts",
)  # fmt: skip

# cells of a subset from which a donor's mean of it is used
MIN_SUBSET_CELLS: Final = 5
# least share of the subset weights that a donor must have, to have a standardised mean
MIN_WEIGHT: Final = 0.5
# calls to be expected in each group before shares are compared
MIN_EXPECTED: Final = 5.0
# depth ratio of two groups worth a note
DEEPER: Final = 1.5


# --------------------------------------------------------------------------------------------
# what is measured, per unit and lineage


class Values(NamedTuple):
    """One number per unit, its sampling variance, and the cells behind it; NaN where unknown."""

    y: Floats
    sampling: Floats
    n: Codes


def additive_levels(means: Floats, known: NDArray[np.bool_]) -> Floats:
    """Level of each subset when every unit is a shift of the same levels (units × subsets).

    Least squares of ``mean = unit + level`` over the known means; the levels average 0. With all
    means known, a level is the mean over units less the overall mean. NaN for a subset that no
    unit shares with the rest.
    """
    levels = np.full(means.shape[1], np.nan)
    if not known.any():
        return levels
    # the normal equations of the levels, units swept out
    count = known.sum(axis=1)
    share = known / np.maximum(count, 1)[:, None]
    filled = np.where(known, means, 0.0)
    left = np.diag(known.sum(axis=0).astype(np.float64)) - known.T.astype(np.float64) @ share
    unit_mean = filled.sum(axis=1) / np.maximum(count, 1)
    right = (filled - known * unit_mean[:, None]).sum(axis=0)
    seen = known.any(axis=0)
    solved = np.linalg.pinv(left[np.ix_(seen, seen)], rcond=1e-10, hermitian=True) @ right[seen]
    levels[seen] = solved - solved.mean()
    # subsets that never occur beside the largest one have no level relative to it
    linked = _linked(known, int(np.argmax(known.sum(axis=0))))
    levels[~linked] = np.nan
    if linked.any():
        levels -= np.nanmean(levels)
    return levels


def _linked(known: NDArray[np.bool_], start: int) -> NDArray[np.bool_]:
    reached = np.zeros(known.shape[1], bool)
    reached[start] = True
    while True:
        more = known[known[:, reached].any(axis=1)].any(axis=0) | reached
        if (more == reached).all():
            return reached
        reached = more


class Shifts(NamedTuple):
    """The three measures of one score in one lineage."""

    per_cell: Values
    composition: Values | None
    mean: Values


def shifts(
    values: NDArray[np.floating],
    unit: Codes,
    subset: Codes,
    *,
    n_units: int,
    n_subsets: int,
    weights: Floats,
    min_cells: int,
) -> Shifts:
    """A score's mean per unit, and that mean split into shift per cell and composition.

    With m the mean of unit u in subset s, p its share of the subset, b the subset's level
    (`additive_levels`) and w the fixed weights:

    * per cell: ``Σ_s w_s (m_us - b_s) + Σ_s w_s b_s``, over the subsets of which the unit has at
      least 5 cells, w scaled to sum 1 over those; NaN where they hold less than half of w;
    * composition: ``Σ_s p_us b_s``;
    * mean: ``Σ_s p_us m_us``, the mean of its cells.

    Sampling variances come from the variance within units, pooled over units per subset.

    Parameters
    ----------
    values
        One score per cell of the lineage.
    unit, subset
        Codes of each cell.
    weights
        Of the subsets, sum 1.
    min_cells
        Units with fewer finite values are NaN.
    """
    n, mean, squares = moments(unit * n_subsets + subset, values, n_units * n_subsets)
    shape = (n_units, n_subsets)
    return _shifts(
        n.reshape(shape), mean.reshape(shape), squares.reshape(shape), weights, min_cells
    )


def _shifts(n: Codes, means: Floats, squares: Floats, weights: Floats, min_cells: int) -> Shifts:
    """`shifts` from the moments of each unit and subset (units × subsets)."""
    filled = np.where(n > 0, means, 0.0)
    total = n.sum(axis=1)
    enough = total >= max(min_cells, 1)
    freedom = np.maximum(n - 1, 0).sum(axis=0)
    pooled = float(squares.sum() / max(int(freedom.sum()), 1))
    variance = np.where(freedom >= 5, squares.sum(axis=0) / np.maximum(freedom, 1), pooled)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(total[:, None] > 0, n / total[:, None], np.nan)
        mean = (share * filled).sum(axis=1)
        mean_var = (share**2 * variance / np.where(n > 0, n, np.inf)).sum(axis=1)
    # means of few cells would move the levels more than they know
    used = (n >= MIN_SUBSET_CELLS) & enough[:, None]
    level = additive_levels(filled, used)
    used &= np.isfinite(level)
    known = np.where(np.isfinite(level), level, 0.0)
    own = np.where(used, weights, 0.0)
    reach = own.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = own / reach[:, None]
        shift = (own * (filled - known)).sum(axis=1) + float(weights @ known)
        shift_var = (own**2 * variance / np.where(n > 0, n, np.inf)).sum(axis=1)
    standard = enough & (reach >= MIN_WEIGHT * weights[np.isfinite(level)].sum())
    composition = None
    if np.isfinite(level).sum() > 1:
        placed = np.where(np.isfinite(level), n, 0)
        rest = placed.sum(axis=1)
        ok = enough & (rest >= max(min_cells, 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            part = placed / rest[:, None]
            c = part @ known
            c_var = (part @ known**2 - c**2) / rest
        composition = _values(c, np.maximum(c_var, 0.0), rest, ok)
    return Shifts(
        _values(shift, shift_var, (n * used).sum(axis=1), standard),
        composition,
        _values(mean, mean_var, total, enough),
    )


def _values(y: Floats, sampling: Floats, n: NDArray[Any], ok: NDArray[np.bool_]) -> Values:
    return Values(np.where(ok, y, np.nan), np.where(ok, sampling, np.nan), np.asarray(n, np.int64))


def subset_weights(counts: NDArray[np.int64], group: NDArray[np.object_]) -> Floats:
    """Mean share of each subset: over units within a level, then over levels; sums to 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / counts.sum(axis=1, keepdims=True)
    per_level = [np.nanmean(share[group == g], axis=0) for g in sorted(set(group))]
    weights = np.mean(per_level, axis=0)
    return np.asarray(weights / weights.sum(), np.float64)


# --------------------------------------------------------------------------------------------
# the tests


class _Cases(NamedTuple):
    """A plan narrowed to the units that have a number."""

    units: NDArray[np.bool_]
    clusters: Codes
    means: Floats
    means_at: int
    shares: Floats
    shares_at: int
    reason: str


@dataclass
class _Lineage:
    """One lineage's designs, each narrowed set of units worked out once."""

    plan: Plan
    blocks: list[Floats]
    min_donors: int
    made: dict[tuple[int, bytes], _Cases] = field(default_factory=dict)

    def cases(self, index: int, units: NDArray[np.bool_]) -> _Cases:
        key = (index, np.packbits(units).tobytes())
        if key not in self.made:
            self.made[key] = self._narrow(index, units)
        return self.made[key]

    def _narrow(self, index: int, units: NDArray[np.bool_]) -> _Cases:
        plan, term = self.plan, self.plan.terms[index]
        nothing = np.zeros((0, 0))

        def no(reason: str) -> _Cases:
            return _Cases(units, plan.donor[:0], nothing, 0, nothing, 0, reason)

        if reason := too_few(term, plan, units, self.min_donors):
            return no(reason)
        units = units.copy()
        for other in plan.terms:  # a level of too few donors says nothing about the others
            if other.high is not None and too_few(other, plan, units, self.min_donors):
                units &= ~other.high
        if plan.paired:
            several = np.bincount(plan.donor[units], minlength=plan.donor.max() + 1) > 1
            units &= several[plan.donor]
        _, clusters = np.unique(plan.donor[units], return_inverse=True)
        others = [t.column[units][:, None] for k, t in enumerate(plan.terms) if k != index]
        blocks = [b[units] for b in self.blocks]
        own = term.column[units]
        designs = []
        for paired in (plan.paired, False):
            kept = blocks
            if plan.paired and not paired:  # pairs balance what does not vary within donors
                kept = [b for b in blocks if any(varies_within(c, clusters) for c in b.T)]
            base = donor_base(plan, units, paired=paired)
            nuisance = np.column_stack([base, *kept, *others])
            nuisance = nuisance[:, models.independent_columns(nuisance)]
            design = np.column_stack([nuisance, own])
            if models.rank(design) < design.shape[1]:
                return no(f"'{term.name}' coincides with covariates among the donors that are left")
            if len(design) <= design.shape[1]:
                return no(
                    f"{len(design)} donors (or donors × conditions) for {design.shape[1]} coefficients"
                )
            designs.append((design, design.shape[1] - 1))
        return _Cases(units, clusters.astype(np.int64), *designs[0], *designs[1], "")


def compare_cells(
    obs: pd.DataFrame,
    z: pd.DataFrame,
    plan: Plan,
    *,
    min_cells: int,
    confidence: float,
    min_donors: int = MIN_DONORS,
    subset_key: str | None = None,
    only: str | None = None,
    done: dict[tuple[str, str], Shifts] | None = None,
) -> pd.DataFrame:
    """Every comparison of a plan: lineages × signatures, calls and subsets.

    Parameters
    ----------
    obs
        Columns ``lineage``; ``lineage_subset``, ``t_subset``, ``senescence_call``, ``t_state``,
        ``total_counts`` where present.
    z
        Cells × signatures.
    plan
        From `make_plan` with the same cells.
    min_cells
        A donor (in a condition) with fewer cells of a lineage is left out of it.
    confidence
        Of the intervals (0-1).
    min_donors
        Donors each group needs.
    subset_key
        Column whose subsets are kept apart; None takes ``t_subset`` in T cells, ``lineage_subset``
        elsewhere.
    only
        The one term whose rows are wanted; None all.
    done
        Filled with the measures of each lineage and signature, and read from: for a second plan
        of the same units.

    Returns
    -------
    DataFrame with `COLUMNS`, see `senoscore.tl.compare`.
    """
    rows: list[dict[str, Any]] = []
    columns = (*_READ, *([subset_key] if subset_key else []))
    obs = obs[[c for c in dict.fromkeys(columns) if c in obs]]
    values = z.to_numpy()
    for name in keys.LINEAGES:
        here = (obs[keys.OBS_LINEAGE] == name).to_numpy(bool)
        cells = np.flatnonzero(here & (plan.unit >= 0))
        if len(cells):
            own = obs.iloc[cells]
            rows += _lineage_rows(
                name, own, values, list(map(str, z.columns)), cells, plan, _subsets(name, own, subset_key),
                min_cells=min_cells, confidence=confidence, min_donors=min_donors, only=only,
                done={} if done is None else done,
            )  # fmt: skip
    return finish(rows)


def finish(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table, with BH over lineages × names within each term, level and measure."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    table["padj"] = np.nan
    for index in table.groupby(["term", "level", "measure"], sort=False).groups.values():
        p = table.loc[index, "pvalue"].to_numpy(np.float64)
        table.loc[index, "padj"] = benjamini_hochberg(p)
    for column in ("n_donors_reference", "n_donors", "n_cells"):
        table[column] = table[column].astype("Int64")
    return table


def _lineage_rows(
    name: str,
    obs: pd.DataFrame,
    z: NDArray[np.floating],
    signatures: Sequence[str],
    cells: Codes,
    plan: Plan,
    divided: tuple[Codes, list[str]],
    *,
    min_cells: int,
    confidence: float,
    min_donors: int,
    only: str | None,
    done: dict[tuple[str, str], Shifts],
) -> list[dict[str, Any]]:
    unit = plan.unit[cells]
    n_cells = np.bincount(unit, minlength=plan.n)
    enough = n_cells >= max(min_cells, 1)
    state = _Lineage(plan, covariate_blocks(plan, cells), min_donors)
    depth = _depth(obs, unit, plan.n)
    left_out = int((~enough & (n_cells > 0)).sum())
    # where donors have several conditions, a unit is a donor in one of them
    unit_name = "donor" if plan.design == "between donors" else "donor × condition"
    few = f"{count(left_out, unit_name)} with fewer than {min_cells} cells left out"
    fewer = few if left_out else ""
    common = {"lineage": name, "notes": [*plan.notes, *([fewer] if fewer else [])]}
    alive = []
    rows = []
    for k, term in enumerate(plan.terms):
        if only is not None and term.name != only:
            continue
        cases = state.cases(k, enough)
        if cases.reason:
            rows.append(_row(plan, term, common, "all", "", note=cases.reason))
        else:
            alive.append(k)
    if not alive:
        return rows
    subset, subsets = divided
    counts = np.bincount(unit * len(subsets) + subset, minlength=plan.n * len(subsets)).reshape(
        plan.n, len(subsets)
    )
    group = np.asarray(plan.table["level"], dtype=object)
    weights = subset_weights(counts[enough], group[enough])
    new = np.asarray([k for k, s in enumerate(signatures) if (name, s) not in done], np.int64)
    code, shape = unit * len(subsets) + subset, (plan.n, len(subsets))
    found = moments_of(code, cells, z, new, shape[0] * shape[1])
    for k, n, mean, squares in zip(new.tolist(), *found, strict=True):
        if n.any():
            done[name, signatures[k]] = _shifts(
                n.reshape(shape), mean.reshape(shape), squares.reshape(shape), weights, min_cells
            )
    measured = [
        (measure, signature, data)
        for signature in signatures
        if (name, signature) in done
        for measure, data in zip(
            ("per_cell", "composition", "mean"), done[name, signature], strict=True
        )
        if data is not None and (measure != "composition" or len(subsets) > 1)
    ]
    fits = {k: _fit_means(state, k, [data for *_, data in measured]) for k in alive}
    for i, (measure, signature, data) in enumerate(measured):
        rows += [
            _mean_row(
                state, k, data, fits[k][i], enough, common, measure, signature, depth, confidence
            )
            for k in alive
        ]
    shares = {("fraction_called", call): hits for call, hits in _called(name, obs).items()}
    if len(subsets) > 1:
        shares |= {
            ("fraction_subset", label): subset == s for s, label in enumerate(subsets) if label
        }
    for (measure, what), hits in shares.items():
        k_of = np.bincount(unit, hits, minlength=plan.n).astype(np.float64)
        rows += [
            _share_row(state, k, k_of, n_cells, enough, common, measure, what, depth, confidence)
            for k in alive
        ]
    return rows


def _subsets(lineage: str, obs: pd.DataFrame, key: str | None) -> tuple[Codes, list[str]]:
    """Subset of each cell, as the pooled table divides them unless a column is named."""
    column = key or (keys.OBS_T_SUBSET if lineage == "T" else keys.OBS_LINEAGE_SUBSET)
    if column not in obs:
        return np.zeros(len(obs), np.int64), [""]
    codes, names = pd.factorize(obs[column], use_na_sentinel=True)
    # of the few distinct values: as text, sorted, a missing one empty
    texts = np.asarray([*map(str, names), ""], dtype=object)
    present = texts[np.unique(codes)]
    found = sorted(set(present))
    place = np.asarray([found.index(t) if t in found else -1 for t in texts], np.int64)
    return place[codes], found


def _called(lineage: str, obs: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Cells that were called, by call."""
    found: dict[str, NDArray[np.bool_]] = {}
    if keys.OBS_SENESCENCE_CALL in obs:
        called = obs[keys.OBS_SENESCENCE_CALL]
        if called.notna().any():
            found["senescent"] = (called == "senescent").to_numpy(bool)
    if lineage == "T" and keys.OBS_T_STATE in obs:
        state = obs[keys.OBS_T_STATE]
        if state.notna().any():
            found["exhausted"] = state.isin(["exhausted", "both"]).to_numpy(bool)
            found["senescent_like"] = (state == "senescent_like").to_numpy(bool)
    return found


def _depth(obs: pd.DataFrame, unit: Codes, n_units: int) -> Floats | None:
    """Mean log2 counts per cell of each unit."""
    if "total_counts" not in obs:
        return None
    total = obs["total_counts"].to_numpy(np.float64)
    logged = np.full(len(total), np.nan)
    np.log2(total, out=logged, where=total > 0)
    return moments(unit, logged, n_units)[1]


def _row(
    plan: Plan, term: Term, common: Mapping[str, Any], measure: str, name: str, **values: Any
) -> dict[str, Any]:
    notes = [values.pop("note", ""), *common["notes"]]
    return {
        **dict.fromkeys(COLUMNS, np.nan),
        "term": term.name,
        "level": term.level,
        "reference": term.reference,
        "lineage": common["lineage"],
        "measure": measure,
        "name": name,
        "unit": "",
        "model": plan.model,
        "design": plan.design,
        "note": "; ".join(dict.fromkeys(n for n in notes if n)),
        **values,
    }


def _group_facts(
    plan: Plan, term: Term, cases: _Cases, y: Floats, n: Codes, depth: Floats | None
) -> dict[str, Any]:
    units = cases.units
    facts: dict[str, Any] = {"n_cells": int(n[units].sum())}
    if term.high is None or term.low is None:
        facts["n_donors"] = len(set(plan.donor[units]))
        return facts
    high, low = units & term.high, units & term.low
    facts["n_donors"], facts["n_donors_reference"] = (
        len(set(plan.donor[at])) for at in (high, low)
    )
    facts["value"], facts["value_reference"] = float(y[high].mean()), float(y[low].mean())
    if depth is not None:
        with np.errstate(invalid="ignore"):
            ratio = float(depth[high].mean() - depth[low].mean())
        facts["log2_depth_ratio"] = ratio
        if abs(ratio) > np.log2(DEEPER):
            deep, other = (
                (term.level, term.reference) if ratio > 0 else (term.reference, term.level)
            )
            facts["note"] = (
                f"cells of {deep} have {2 ** abs(ratio):.1f} times the counts of {other}: scores and "
                "calls rise with depth"
            )
    return facts


def _fit_means(
    state: _Lineage, index: int, data: Sequence[Values]
) -> list[tuple[_Cases, models.Fit | None]]:
    """The fit of each measure, and the units it rests on; those of the same units in one go."""
    found: list[tuple[_Cases, models.Fit | None]] = []
    together: dict[int, tuple[_Cases, list[int]]] = {}
    for i, values in enumerate(data):
        cases = state.cases(index, np.isfinite(values.y) & np.isfinite(values.sampling))
        found.append((cases, None))
        if not cases.reason:
            together.setdefault(id(cases), (cases, []))[1].append(i)
    for cases, members in together.values():
        y, sampling = (
            np.stack([data[i][part][cases.units] for i in members]).astype(np.float64)
            for part in (0, 1)
        )
        fits = models.fits_of_means(y, sampling, cases.means, cases.means_at, cases.clusters)
        for i, fit in zip(members, fits, strict=True):
            found[i] = (cases, fit)
    return found


def _mean_row(
    state: _Lineage,
    index: int,
    data: Values,
    fitted: tuple[_Cases, models.Fit | None],
    enough: NDArray[np.bool_],
    common: Mapping[str, Any],
    measure: str,
    name: str,
    depth: Floats | None,
    confidence: float,
) -> dict[str, Any]:
    plan, term = state.plan, state.plan.terms[index]
    known = np.isfinite(data.y) & np.isfinite(data.sampling)
    if lost := len(set(plan.donor[enough]) - set(plan.donor[known])):
        few = "of the main subsets" if measure == "per_cell" else "with this score"
        told = f"{count(lost, 'donor')} with too few cells {few} left out"
        common = {**common, "notes": [*common["notes"], told]}
    cases, fit = fitted
    unit = "z" if term.reference else f"z {term.level}"
    if fit is None:
        return _row(plan, term, common, measure, name, unit=unit, note=cases.reason)
    facts = _group_facts(plan, term, cases, data.y, data.n, depth)
    if not np.isfinite(fit.se):
        facts["note"] = "donors do not vary: no test"
    return _row(plan, term, common, measure, name, unit=unit, **_numbers(fit, confidence), **facts)


def _share_row(
    state: _Lineage,
    index: int,
    hits: Floats,
    n: Codes,
    enough: NDArray[np.bool_],
    common: Mapping[str, Any],
    measure: str,
    name: str,
    depth: Floats | None,
    confidence: float,
) -> dict[str, Any]:
    plan, term = state.plan, state.plan.terms[index]
    cases = state.cases(index, enough)
    unit = "log2 odds ratio" if term.reference else f"log2 odds ratio {term.level}"
    if cases.reason:
        return _row(plan, term, common, measure, name, unit=unit, note=cases.reason)
    at = cases.units
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / n
    facts = _group_facts(plan, term, cases, share, n, depth)
    if reason := _too_rare(term, cases, hits, n):
        return _row(plan, term, common, measure, name, unit=unit, **{**facts, "note": reason})
    fit = models.fit_shares(
        hits[at], n[at].astype(np.float64), cases.shares, cases.shares_at, cases.clusters
    )
    if not np.isfinite(fit.se):
        facts["note"] = "no finite odds ratio"
    scaled = models.Fit(fit.effect / np.log(2), fit.se / np.log(2), fit.df)
    return _row(
        plan, term, common, measure, name, unit=unit, **_numbers(scaled, confidence), **facts
    )


def _too_rare(term: Term, cases: _Cases, hits: Floats, n: Codes) -> str:
    """Why shares cannot be compared: too few cells called, or not called, to be expected."""
    at = cases.units
    overall = hits[at].sum() / n[at].sum()
    groups = [at] if term.high is None or term.low is None else [at & term.high, at & term.low]
    need = MIN_EXPECTED * (2 if len(groups) == 1 else 1)
    for what, rate in (("called", overall), ("not called", 1 - overall)):
        least = min(float(n[g].sum() * rate) for g in groups)
        if least < need:
            return f"{least:.1f} cells {what} to be expected in a group, {need:g} needed"
    return ""


def _numbers(fit: models.Fit, confidence: float) -> dict[str, float]:
    low, high = fit.interval(confidence)
    return {
        "effect": fit.effect,
        "effect_low": low,
        "effect_high": high,
        "pvalue": fit.pvalue,
        "se": fit.se,
        "df": fit.df,
    }


def refused(term: str, reason: str) -> pd.DataFrame:
    """A table of one row that says why nothing was compared."""
    row = dict.fromkeys(COLUMNS, np.nan) | {"term": term, "measure": "all", "note": reason}
    for name in ("level", "reference", "lineage", "name", "unit", "model", "design"):
        row[name] = ""
    return finish([row])


def comparisons(
    obs: pd.DataFrame,
    z: pd.DataFrame,
    *,
    donor: NDArray[np.object_] | None,
    condition: str | None,
    age: str | None,
    reference: str | None = None,
    covariates: Sequence[str] = (),
    min_cells: int,
    confidence: float,
) -> pd.DataFrame:
    """The comparisons a data set allows, for its table: by condition, and by age.

    The condition is fitted with the covariates; age with the covariates and, where the donors
    suffice, the condition. What cannot be compared is a row with the reason instead of an error.

    Parameters
    ----------
    obs, z
        Cells, their columns as in `compare_cells`, and scores.
    donor
        Donor of each cell; None where the file names none.
    condition, age
        Columns, None where the file has none.
    reference, covariates, min_cells, confidence
        As for `senoscore.tl.compare`.

    Returns
    -------
    DataFrame with `COLUMNS`, at least one row.
    """
    if condition is None and age is None:
        return refused("", "no condition or age is known (config: dataset.condition, dataset.age)")
    if donor is None:
        return refused(
            condition or age or "",
            "the file names no donors (config: dataset.donor): cells of one person are not independent, "
            "so nothing can be compared",
        )
    keep = obs[keys.OBS_QC_PASS].to_numpy(bool) & obs[keys.OBS_LINEAGE].notna().to_numpy()
    warn_unread(obs, age)

    units: NDArray[np.int64] | None = None
    done: dict[tuple[str, str], Shifts] = {}

    def run(condition: str | None, age: str | None) -> pd.DataFrame:
        nonlocal units
        plan = make_plan(
            obs, donor=donor, keep=keep, condition=condition, age=age,
            reference=reference if condition is not None else None,
            covariates=[c for c in covariates if c not in (condition, age)],
        )  # fmt: skip
        if units is None or not np.array_equal(units, plan.unit):
            units = plan.unit
            done.clear()
        return compare_cells(
            obs, z, plan, min_cells=min_cells, confidence=confidence, done=done,
            only=age,
        )  # fmt: skip

    tables = []
    if condition is not None:
        try:
            tables.append(run(condition, None))
        except InputDataError as error:
            tables.append(refused(condition, str(error)))
    if age is not None and age != condition:
        found = None
        if condition is not None:
            with suppress(InputDataError):
                found = run(condition, age)
        try:
            tables.append(run(None, age) if found is None else found)
        except InputDataError as error:
            tables.append(refused(age, str(error)))
    made = [table for table in tables if len(table)]
    if not made:
        return refused(condition or age or "", "no lineage has cells to compare")
    return pd.concat(made, ignore_index=True)
