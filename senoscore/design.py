"""Who is compared with whom: units, terms and covariates of a comparison, or why there is none."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from senoscore import models
from senoscore.ages import Ages, parse_ages
from senoscore.donors import NOBODY, moments
from senoscore.errors import InputDataError, SenoscoreWarning

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MIN_DONORS: Final = 3

_CONTROL: Final = re.compile(
    r"normal|healthy(?: (?:control|donor|donors))?|controls?|ctrl|ctl|con|unstim(?:ulated)?|"
    r"untreated|vehicle|mock|baseline|wild ?type|wt|rest(?:ing)?|none",
    re.IGNORECASE,
)
_BATCH: Final = re.compile(
    r"(?:\w+ )?batch(?: id)?|assay(?: ontology term id)?|(?:library )?chemistry|"
    r"(?:sequencing )?platform|protocol|technology|study(?: id)?|dataset(?: id)?|cent(?:re|er)|"
    r"suspension type|sequencer|instrument|lane|run(?: id)?|pool(?: id)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Term:
    """What is compared: one level against the reference, or a slope.

    column: its values, one per unit. high, low: units of the level and of the reference, or None
    for a slope.
    """

    name: str
    level: str
    reference: str
    column: Floats
    high: NDArray[np.bool_] | None = None
    low: NDArray[np.bool_] | None = None

    @property
    def label(self) -> str:
        """In words."""
        return f"{self.level} v {self.reference}" if self.reference else self.level


@dataclass(frozen=True)
class Covariate:
    """One covariate: dummy columns of a grouping, or the numbers of cells to be averaged."""

    name: str
    columns: Floats | None
    cells: Floats | None = None


@dataclass(frozen=True)
class Plan:
    """Units (a donor, or a donor in one condition), terms and covariates of one comparison.

    unit: code of each cell's unit, -1 for cells left out. donor: code of each unit's donor.
    paired: donors have fixed effects, and only those in several conditions count.
    """

    unit: Codes
    donor: Codes
    table: pd.DataFrame
    terms: tuple[Term, ...]
    covariates: tuple[Covariate, ...]
    paired: bool
    model: str
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Units."""
        return len(self.donor)

    @property
    def design(self) -> str:
        """In words, how donors stand to the units."""
        if self.paired:
            return "paired"
        several = len(set(self.donor)) < self.n
        return "clustered by donor" if several else "between donors"


def clean(column: pd.Series) -> NDArray[np.object_]:
    """Values as text; empty where missing or a word for nothing known."""
    codes, names = pd.factorize(column.astype(object), use_na_sentinel=True)
    texts = [str(name).strip() for name in names]
    nothing = set(NOBODY) - {"pooled", "none"}
    kept = ["" if text.lower() in nothing else text for text in texts]
    return np.asarray(np.asarray([*kept, ""], dtype=object)[codes], dtype=object)


def choose_reference(column: pd.Series, levels: Sequence[str], asked: str | None) -> str:
    """The level others are compared with: the one asked for, the one that is named like a control,
    the first of an ordered column, else the first in the alphabet.

    Raises
    ------
    InputDataError
        The level asked for does not occur.
    """
    if asked is not None:
        if asked not in levels:
            raise InputDataError(
                f"reference '{asked}' is no value of '{column.name}'; there are {_list(levels)}"
            )
        return asked
    control = [level for level in levels if _CONTROL.fullmatch(re.sub(r"[_\W]+", " ", level))]
    if len(control) == 1:
        return control[0]
    if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
        ordered = [str(c).strip() for c in column.cat.categories]
        return min(levels, key=ordered.index)
    return min(levels)


def make_plan(
    obs: pd.DataFrame,
    *,
    donor: NDArray[np.object_],
    keep: NDArray[np.bool_],
    condition: str | None = None,
    age: str | None = None,
    reference: str | None = None,
    covariates: Sequence[str] = (),
    batch_keys: Sequence[str] | None = None,
    min_donors: int = MIN_DONORS,
) -> Plan:
    """Settle the design, or refuse it with the reason.

    Parameters
    ----------
    obs
        Columns of the cells.
    donor
        Donor of each cell, empty for nobody.
    keep
        Cells that take part.
    condition, age, reference, covariates, batch_keys, min_donors
        As for `senoscore.tl.compare`.

    Raises
    ------
    InputDataError
        Nothing to compare, too few donors, or a design that cannot tell its terms apart.
    """
    if condition is None and age is None:
        raise InputDataError("name what to compare: condition= or age=")
    asked = [_plain(name) for name in covariates]
    for name in (condition, age, *asked, *(batch_keys or ())):
        if name is not None and name not in obs:
            raise InputDataError(
                f"obs has no column '{name}'; it has {_list(map(str, obs.columns))}"
            )
    keep = keep & (donor != "")
    if not keep.any():
        raise InputDataError("no cell has both a donor and quality enough: nothing to compare")
    notes: list[str] = []
    level = np.full(len(obs), "", dtype=object)
    if condition is not None:
        level = clean(obs[condition])
        if not (keep & (level != "")).any():
            raise InputDataError(f"condition '{condition}' has no value in any cell that counts")
        keep = keep & (level != "")
    years = np.zeros(len(obs))
    if age is not None:
        years, unread = _years(obs[age])
        if unread:
            notes.append(_told(age, unread))
        keep = keep & np.isfinite(years)
        if not keep.any():
            raise InputDataError(
                f"no age could be read in '{age}' ({_list(unread) or 'all are missing'}): give "
                "numbers of years, or texts such as '65-year-old stage'"
            )
    keep, raw = _complete(obs, list(covariates), keep, notes, donor)
    unit, table = _units(donor, level, keep)
    person, _ = pd.factorize(table["donor"], sort=True)
    person = person.astype(np.int64)
    made = [_covariate(name, values, unit, table) for name, values in raw.items()]
    terms: list[Term] = []
    paired = False
    if condition is not None:
        own, paired = _condition_terms(
            obs[condition].rename(condition), table, person, reference, min_donors
        )
        terms += own
    if age is not None:
        terms.append(_age_term(age, years, unit, table, person, min_donors))
        if paired and terms[-1].column.size and not varies_within(terms[-1].column, person):
            # donors are compared with each other by age: their fixed effects would absorb it
            paired = False
    words = [t for t in (condition, age) if t is not None] + [_plain(c) for c in covariates]
    model = " + ".join([*dict.fromkeys(words), *(["donor"] if paired else [])])
    plan = Plan(unit, person, table, tuple(terms), tuple(made), paired, model, tuple(notes))
    _refuse_few(plan, min_donors)
    if condition is not None:
        plan = _check_batches(plan, obs, condition, batch_keys, asked)
    _refuse_confounded(plan, min_donors)
    return plan


def count(n: int, what: str) -> str:
    """A number of things in words.

    Examples
    --------
    >>> count(1, "donor"), count(2, "donor")
    ('1 donor', '2 donors')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _list(values: Any, most: int = 6) -> str:
    texts = [f"'{v}'" if " " in str(v) else str(v) for v in values]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _plain(name: str) -> str:
    """Covariate ``C(batch)`` is the grouping ``batch``."""
    found = re.fullmatch(r"C\((.+)\)", name.strip())
    return found[1].strip() if found else name


def warn_unread(obs: pd.DataFrame, age: str | None) -> None:
    """Say which ages cannot be read: once, however many plans are made with them."""
    if age is not None and age in obs:
        _, unread = _years(obs[age])
        if unread:
            warnings.warn(
                f"{_told(age, unread)}; their donors are left out", SenoscoreWarning, stacklevel=3
            )


def _told(age: str, unread: list[str]) -> str:
    return f"ages not read in '{age}': {_list(unread)}"


def _years(column: pd.Series) -> tuple[Floats, list[str]]:
    found = parse_ages(column)
    return found.years, _unread(found)


def _unread(found: Ages) -> list[str]:
    """Values that mean something and could not be read as an age."""
    return [v for v in found.unread if v.strip().lower() not in NOBODY]


def _complete(
    obs: pd.DataFrame,
    names: list[str],
    keep: NDArray[np.bool_],
    notes: list[str],
    donor: NDArray[np.object_],
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Covariates as numbers or texts, and the cells that have all of them."""
    raw: dict[str, Any] = {}
    for name in names:
        column = obs[_plain(name)]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        values: Any
        if numeric and name == _plain(name):
            values = column.to_numpy(np.float64, na_value=np.nan)
            there = np.isfinite(values)
        else:
            values = clean(column)
            there = values != ""
            found = parse_ages(column)
            with_unit = ~found.table["how"].str.startswith("number")
            if name == _plain(name) and there.any() and not _unread(found) and with_unit.all():
                values, there = found.years, np.isfinite(found.years)
        lost = sorted(set(donor[keep]) - set(donor[keep & there]))
        if lost:
            notes.append(f"{count(len(lost), 'donor')} without '{_plain(name)}' left out")
        keep = keep & there
        raw[_plain(name)] = values
        if not keep.any():
            raise InputDataError(f"covariate '{_plain(name)}' has no value in any cell that counts")
    return keep, raw


def _units(
    donor: NDArray[np.object_], level: NDArray[np.object_], keep: NDArray[np.bool_]
) -> tuple[Codes, pd.DataFrame]:
    """Code of each cell's donor × level, and the table of those, sorted."""
    d, donors = pd.factorize(donor, sort=True)
    c, levels = pd.factorize(level, sort=True)
    both = d.astype(np.int64) * len(levels) + c
    present, n_cells = np.unique(both[keep], return_counts=True)
    unit = np.where(keep, np.searchsorted(present, both), -1).astype(np.int64)
    table = pd.DataFrame(
        {
            "donor": np.asarray(donors, dtype=object)[present // len(levels)],
            "level": np.asarray(levels, dtype=object)[present % len(levels)],
            "n_cells": n_cells,
        }
    )
    return unit, table


def _one_per_unit(name: str, values: NDArray[Any], unit: Codes, table: pd.DataFrame) -> pd.Series:
    """A column's value in each unit, refused where a unit has several."""
    used = unit >= 0
    pairs = pd.DataFrame({"unit": unit[used], "value": values[used]}).drop_duplicates()
    several = pairs[pairs["unit"].duplicated(keep=False)]
    if len(several):
        where = table.loc[int(several["unit"].iloc[0])]
        found = several.loc[several["unit"] == several["unit"].iloc[0], "value"]
        what = f"donor {where['donor']}" + (f" in {where['level']}" if where["level"] else "")
        raise InputDataError(
            f"'{name}' differs between cells of one donor ({what}: {_list(found)}): subset the "
            "data, or make it the condition"
        )
    return pairs.set_index("unit")["value"].sort_index()


def _covariate(name: str, values: NDArray[Any], unit: Codes, table: pd.DataFrame) -> Covariate:
    """Dummies of a grouping (first level left out), or numbers averaged over each unit's cells."""
    if values.dtype != object:
        return Covariate(name, None, np.asarray(values, np.float64))
    per_unit = _one_per_unit(name, values, unit, table)
    levels = sorted(set(per_unit))
    dummies = np.column_stack([(per_unit == v).to_numpy(float) for v in levels[1:]] or [[]])
    return Covariate(name, dummies.reshape(len(table), len(levels) - 1))


def _condition_terms(
    column: pd.Series, table: pd.DataFrame, person: Codes, asked: str | None, min_donors: int
) -> tuple[list[Term], bool]:
    """One term per level other than the reference, and whether the design is paired."""
    name = str(column.name)
    levels = sorted(set(table["level"]))
    if len(levels) < 2:
        raise InputDataError(
            f"condition '{name}' has one value only ({_list(levels)}): nothing to compare it with"
        )
    chosen = choose_reference(column, levels, asked)
    terms = []
    for level in levels:
        if level == chosen:
            continue
        high = (table["level"] == level).to_numpy()
        low = (table["level"] == chosen).to_numpy()
        terms.append(Term(name, level, chosen, high.astype(np.float64), high, low))
    n_levels = np.bincount(person)
    several = int((n_levels > 1).sum())
    single = {
        level: int((n_levels[person[(table["level"] == level).to_numpy()]] == 1).sum())
        for level in levels
    }
    unpaired = single[chosen] >= min_donors and any(
        single[v] >= min_donors for v in levels if v != chosen
    )
    paired = several >= min_donors and (several >= len(n_levels) / 2 or not unpaired)
    return terms, paired


def _age_term(
    name: str, years: Floats, unit: Codes, table: pd.DataFrame, person: Codes, min_donors: int
) -> Term:
    per_unit = _one_per_unit(name, years, unit, table).to_numpy(np.float64)
    step = 10.0 if per_unit.max() >= 10 else 1.0
    n_donors = len(set(person))
    if n_donors < 2 * min_donors:
        raise InputDataError(
            f"{count(n_donors, 'donor')} with a known age in '{name}': a slope needs {2 * min_donors}"
        )
    if np.ptp(per_unit) == 0:
        raise InputDataError(f"all donors have the same age in '{name}' ({per_unit[0]:g} years)")
    return Term(name, f"per {step:g} years" if step > 1 else "per year", "", per_unit / step)


def varies_within(values: Floats, person: Codes) -> bool:
    """Whether any donor has different values in different conditions."""
    frame = pd.Series(values).groupby(person)
    return bool((frame.max() - frame.min() > 1e-12).any())


def _refuse_few(plan: Plan, min_donors: int) -> None:
    """Refuse where no level has enough donors anywhere."""
    contrasts = [t for t in plan.terms if t.high is not None]
    if not contrasts:
        return
    reasons = {t.level: too_few(t, plan, np.ones(plan.n, bool), min_donors) for t in contrasts}
    if all(reasons.values()):
        raise InputDataError(
            f"condition '{contrasts[0].name}': {'; '.join(dict.fromkeys(reasons.values()))}. Cells "
            "of one donor are not independent, so fewer donors cannot be compared"
        )


def too_few(term: Term, plan: Plan, units: NDArray[np.bool_], min_donors: int) -> str:
    """Why a term cannot be tested with these units, empty if it can."""
    if term.high is None or term.low is None:
        n = len(set(plan.donor[units]))
        return "" if n >= 2 * min_donors else f"{count(n, 'donor')}, a slope needs {2 * min_donors}"
    high, low = (set(plan.donor[units & at]) for at in (term.high, term.low))
    if plan.paired:
        n = len(high & low)
        return (
            ""
            if n >= min_donors
            else f"{count(n, 'donor')} with both {term.level} and {term.reference}, {min_donors} needed"
        )
    for found, name in ((low, term.reference), (high, term.level)):
        if len(found) < min_donors:
            return f"{count(len(found), 'donor')} in {name}, {min_donors} needed"
    return ""


def _check_batches(
    plan: Plan,
    obs: pd.DataFrame,
    condition: str,
    batch_keys: Sequence[str] | None,
    covariates: Sequence[str],
) -> Plan:
    """Refuse a condition that coincides with a batch which no covariate names."""
    if batch_keys is None:
        skip = {condition, *covariates}
        batch_keys = [
            str(c)
            for c in obs.columns
            if c not in skip and _BATCH.fullmatch(re.sub(r"[_\W]+", " ", str(c)))
        ]
    notes = list(plan.notes)
    used = plan.unit >= 0
    for key in batch_keys:
        values = clean(obs[key])
        pairs = pd.DataFrame({"unit": plan.unit[used], "batch": values[used]}).drop_duplicates()
        pairs = pairs[pairs["batch"] != ""]
        if pairs["batch"].nunique() < 2 or pairs["unit"].nunique() < plan.n:
            continue
        pairs["level"] = plan.table["level"].to_numpy()[pairs["unit"]]
        for term in (t for t in plan.terms if t.reference):
            own = pairs[pairs["level"].isin([term.level, term.reference])]
            of = {
                level: set(own.loc[own["level"] == level, "batch"])
                for level in (term.level, term.reference)
            }
            if of[term.level] & of[term.reference]:
                continue
            if own["batch"].nunique() >= own["unit"].nunique():
                continue  # every donor is its own batch
            if min(map(len, of.values())) == 1:
                told = "; ".join(f"{level}: {_list(sorted(b))}" for level, b in of.items())
                raise InputDataError(
                    f"condition '{condition}' coincides with '{key}' ({told}): what the condition "
                    "does cannot be told from what the batch does. Compare within a batch, add data, "
                    "or, if this column is no batch, pass batch_keys=()"
                )
            notes.append(f"no '{key}' holds both {term.level} and {term.reference}")
    return replace(plan, notes=tuple(dict.fromkeys(notes)))


def _refuse_confounded(plan: Plan, min_donors: int) -> None:
    """Refuse a design in which covariates say all that a term says."""
    units = np.ones(plan.n, bool)
    alive = [not too_few(t, plan, units, min_donors) for t in plan.terms]
    for term, good in zip(plan.terms, alive, strict=True):
        if not good and term.high is not None:
            units &= ~term.high
    base = donor_base(plan, units, paired=plan.paired)
    cells = np.flatnonzero(plan.unit >= 0)
    named = [
        (c.name, block[units])
        for c, block in zip(plan.covariates, covariate_blocks(plan, cells), strict=True)
    ]
    columns = [
        (t, t.column[units][:, None]) for t, good in zip(plan.terms, alive, strict=True) if good
    ]
    for name in dict.fromkeys(t.name for t, _ in columns):
        own = np.column_stack([c for t, c in columns if t.name == name])
        others = [*named, *((t.name, c) for t, c in columns if t.name != name)]
        if _adds(own, base, others) > 0:
            continue  # some level can be told apart; the others get a reason in their rows
        if _adds(own, base, []) == 0:
            raise InputDataError(
                f"'{name}' does not vary within donors, who are their own controls"
            )
        culprit = next((f"'{n}'" for n, block in others if _adds(own, base, [(n, block)]) == 0), "")
        with_ = culprit or f"the covariates together ({_list(n for n, _ in others)})"
        raise InputDataError(
            f"'{name}' coincides with {with_}: no donors differ in the one and agree in the other, so "
            "its effect cannot be told apart. Leave the covariate out only if it cannot matter, or "
            "add donors"
        )
    full = models.rank(np.column_stack([base, *(b for _, b in named), *(c for _, c in columns)]))
    if len(base) <= full:
        what = "donors × conditions" if plan.paired else "donors"
        raise InputDataError(
            f"{len(base)} {what} for {full} coefficients ({plan.model}): none is left to show how "
            "donors vary; name fewer covariates"
        )


def _adds(own: Floats, base: Floats, others: Sequence[tuple[str, Floats]]) -> int:
    """Rank that some columns add to others."""
    before = np.column_stack([base, *(block for _, block in others)])
    return models.rank(np.column_stack([before, own])) - models.rank(before)


def donor_base(plan: Plan, units: NDArray[np.bool_], *, paired: bool) -> Floats:
    """Intercept, or one column per donor."""
    if not paired:
        return np.ones((int(units.sum()), 1))
    own = plan.donor[units]
    return np.asarray(own[:, None] == np.unique(own)[None, :], np.float64)


def covariate_blocks(plan: Plan, cells: Codes) -> list[Floats]:
    """Covariate columns of all units; numbers are averaged over these cells of each unit."""
    blocks = []
    for covariate in plan.covariates:
        if covariate.columns is not None:
            blocks.append(covariate.columns)
            continue
        assert covariate.cells is not None
        _, mean, _ = moments(plan.unit[cells], covariate.cells[cells], plan.n)
        blocks.append(np.where(np.isfinite(mean), mean - np.nanmean(mean), 0.0)[:, None])
    return blocks
