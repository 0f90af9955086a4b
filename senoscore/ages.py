"""Ages as published files write them, in years; what cannot be read is said, not guessed."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# years of one unit
UNITS: Final = {"year": 1.0, "month": 1 / 12, "week": 7 / 365.25, "day": 1 / 365.25}
# a group of ages wider than this says too little to stand for its middle
WIDEST: Final = 20.0
OLDEST: Final = 130.0

_UNIT: Final = r"(?:years?|yrs?|yr|y|months?|mos?|weeks?|wks?|wk|w|days?|d)"
_NUMBER: Final = r"\d+(?:\.\d+)?"
_OLD: Final = r"(?:[\s-]*(?:old|of age|o))?"
_TAIL: Final = r"(?:\s+(?:human|mouse|child|mature|adult|juvenile|nursing|infant|stage))*"
_ONE: Final = re.compile(
    rf"(?:age\s*[:=]?\s*)?({_NUMBER})[\s_-]*({_UNIT})?{_OLD}{_TAIL}\s*", re.IGNORECASE
)
_RANGE: Final = re.compile(
    rf"(?:age\s*[:=]?\s*)?({_NUMBER})\s*(?:-|–|to)\s*({_NUMBER})[\s_-]*({_UNIT})?{_OLD}{_TAIL}\s*",
    re.IGNORECASE,
)
_BRACKET: Final = re.compile(rf"\s*[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]\s*")
_DECADE: Final = re.compile(r"(\w+) decade(?: human)?(?: stage)?", re.IGNORECASE)
_TERM: Final = re.compile(r"(?:HsapDv|MmusDv):\d{7}", re.IGNORECASE)
_DECADES: Final = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh",
)  # fmt: skip
_BEFORE_BIRTH: Final = re.compile(
    r"post[- ]?(?:fertili[sz]ation|conception)|\bpcw\b|gestation|carnegie|theiler|f(?:o)?etal|"
    r"embryo|prenatal|\bLMP\b",
    re.IGNORECASE,
)


class Age(NamedTuple):
    """Years (NaN where unknown), and how they were read: empty where they were not."""

    years: float
    how: str


UNKNOWN: Final = Age(np.nan, "")


def parse_age(value: object, *, unit: str = "year") -> Age:
    """One age in years.

    Read are numbers (in `unit`), "65-year-old stage", "65 year-old human stage", "65 y", "6 months",
    "12 weeks", "14-day-old stage", closed ranges no wider than 20 years ("60-79 year-old stage":
    their middle, which counts the whole of the last year), decades ("third decade stage": 25), and the
    HsapDv and MmusDv terms whose names say one of these. Not read: stages in words ("adult
    stage"), open ranges ("80 year-old and over"), ages before birth.

    Parameters
    ----------
    value
        Number, text or missing.
    unit
        ``year``, ``month``, ``week`` or ``day``: of numbers that have none.

    Returns
    -------
    Years and how they were read; NaN and an empty text where they were not.

    Examples
    --------
    >>> parse_age("65-year-old stage")
    Age(years=65.0, how='years')
    >>> parse_age("HsapDv:0000159")
    Age(years=65.0, how='HsapDv:0000159, 65-year-old stage')
    >>> parse_age("60-79 year-old stage")
    Age(years=70.0, how='middle of a range')
    >>> parse_age("adult stage").years
    nan
    """
    if value is None or isinstance(value, bool | np.bool_):
        return UNKNOWN
    if isinstance(value, int | float | np.integer | np.floating):
        return _checked(float(value) * UNITS[unit], f"number of {unit}s")
    text = str(value).strip()
    if _TERM.fullmatch(text):
        prefix, _, number = text.partition(":")
        term = f"{prefix[:4].capitalize()}Dv:{number}"
        label = _terms().get(term)
        if label is None:
            return UNKNOWN
        years, how = parse_age(label)
        return Age(years, f"{term}, {label}") if how else UNKNOWN
    if _BEFORE_BIRTH.search(text):
        return UNKNOWN
    if found := _ONE.fullmatch(text):
        named = _unit_of(found[2])
        how = f"{named or unit}s" if named else f"number of {unit}s"
        return _checked(float(found[1]) * UNITS[named or unit], how)
    found = _RANGE.fullmatch(text)
    if found or _BRACKET.fullmatch(text):
        return _range(text, found, unit)
    if (found := _DECADE.fullmatch(text)) and found[1].lower() in _DECADES:
        return Age(10.0 * _DECADES.index(found[1].lower()) + 5, "middle of a decade")
    return UNKNOWN


def _range(text: str, found: re.Match[str] | None, unit: str) -> Age:
    if found is None:  # (20, 30], as pandas cuts: no last year to complete
        bracket = _BRACKET.fullmatch(text)
        assert bracket is not None
        low, high = float(bracket[1]), float(bracket[2])
    else:
        named = _unit_of(found[3])
        unit = named or unit
        low, high = float(found[1]), float(found[2])
        # someone of 79 is between 79 and 80
        high += 1 if float(found[1]).is_integer() and float(found[2]).is_integer() else 0
    low, high = low * UNITS[unit], high * UNITS[unit]
    if not low < high or high - low > WIDEST + 1e-9:
        return UNKNOWN
    return _checked((low + high) / 2, "middle of a range")


def _checked(years: float, how: str) -> Age:
    return Age(years, how) if 0 <= years <= OLDEST else UNKNOWN


def _unit_of(text: str | None) -> str | None:
    """Name of a unit by its first letter; ``mo`` and ``m`` are months."""
    if not text:
        return None
    return {"y": "year", "m": "month", "w": "week", "d": "day"}[text[0].lower()]


def unit_in_name(column: str) -> str:
    """The unit a column's name gives to bare numbers, years where it gives none.

    Examples
    --------
    >>> unit_in_name("age_months"), unit_in_name("Age")
    ('month', 'year')
    """
    words = re.split(r"[^a-z]+", column.lower())
    for word in words:
        for unit in ("month", "week", "day"):
            if word in (unit, f"{unit}s"):
                return unit
    return "year"


class Ages(NamedTuple):
    """years: one per value, NaN where unknown. table: each distinct value, its years, how read."""

    years: NDArray[np.float64]
    table: pd.DataFrame

    @property
    def unread(self) -> list[str]:
        """Values that are there and could not be read."""
        return [str(v) for v in self.table.loc[self.table["how"] == "", "value"]]


def parse_ages(values: pd.Series | Iterable[object], *, name: str | None = None) -> Ages:
    """Ages of a whole column, each distinct value read once.

    Parameters
    ----------
    values
        The column.
    name
        Its name, which may tell the unit of bare numbers (``age_months``); None takes the Series'.

    Returns
    -------
    `Ages`: years per value, and a table ``value``, ``years``, ``how``, ``n``.
    """
    column = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
    unit = unit_in_name(str(name if name is not None else column.name or ""))
    codes, uniques = pd.factorize(column.astype(object), use_na_sentinel=True)
    read = [parse_age(v, unit=unit) for v in uniques]
    years = np.asarray([*(a.years for a in read), np.nan])
    table = pd.DataFrame(
        {
            "value": np.asarray(uniques, dtype=object),
            "years": [a.years for a in read],
            "how": [a.how for a in read],
            "n": np.bincount(codes[codes >= 0], minlength=len(uniques)),
        }
    )
    return Ages(years[codes], table)


@cache
def _terms() -> dict[str, str]:
    """HsapDv and MmusDv terms whose names hold an age: term -> name."""
    text = (resources.files("senoscore") / "data" / "development_stages.tsv").read_text("utf-8")
    rows = csv.DictReader(
        (line for line in text.splitlines() if not line.startswith("#")), delimiter="\t"
    )
    return {row["id"]: row["label"] for row in rows}
