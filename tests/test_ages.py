"""Ages as files write them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from senoscore.ages import _terms, parse_age, parse_ages, unit_in_name

YEARS = [
    (65, 65.0),
    (65.5, 65.5),
    (np.float32(30), 30.0),
    (np.int64(7), 7.0),
    ("65", 65.0),
    (" 65.0 ", 65.0),
    ("65-year-old stage", 65.0),
    ("65-year-old human stage", 65.0),
    ("65 year-old human stage", 65.0),
    ("65-Year-Old Stage", 65.0),
    ("65 years", 65.0),
    ("65 years old", 65.0),
    ("65yrs", 65.0),
    ("65 yr", 65.0),
    ("65y", 65.0),
    ("65yo", 65.0),
    ("65 y/o", None),
    ("age: 65", 65.0),
    ("Age 65 years", 65.0),
    ("6-month-old stage", 0.5),
    ("18 months", 1.5),
    ("20 mo", 20 / 12),
    ("8 weeks", 8 * 7 / 365.25),
    ("8-week-old stage", 8 * 7 / 365.25),
    ("12wk", 12 * 7 / 365.25),
    ("14-day-old stage", 14 / 365.25),
    ("60-79 year-old stage", 70.0),
    ("20-29", 25.0),
    ("20 – 29 years", 25.0),
    ("20 to 29", 25.0),
    ("(20, 30]", 25.0),
    ("[20,30)", 25.0),
    ("4-6 days", 5.5 / 365.25),
    ("third decade stage", 25.0),
    ("third decade human stage", 25.0),
    ("Eighth decade stage", 75.0),
    ("HsapDv:0000159", 65.0),
    ("hsapdv:0000159", 65.0),
    ("HsapDv:0000237", 25.0),
    ("HsapDv:0000179", 0.5),
    ("HsapDv:0000246", 1.0),
    ("MmusDv:0000062", 2 / 12),
    ("MmusDv:0000129", 25 / 12),
    # said, not guessed
    ("adult stage", None),
    ("human adult stage", None),
    ("80 year-old and over stage", None),
    ("80 year-old and over human stage", None),
    (">80", None),
    ("80+", None),
    ("<1", None),
    ("under-1-year-old stage", None),
    ("0-100", None),
    ("30-20", None),
    ("20 week post-fertilization stage", None),
    ("20th week post-fertilization human stage", None),
    ("12 pcw", None),
    ("Carnegie stage 17", None),
    ("Theiler stage 21", None),
    ("third LMP month stage", None),
    ("HsapDv:0000258", None),
    ("HsapDv:0000003", None),
    ("HsapDv:9999999", None),
    ("unknown", None),
    ("old", None),
    ("", None),
    (None, None),
    (np.nan, None),
    (True, None),
    (-3, None),
    (999, None),
    ("1965", None),
    ("patient 65", None),
    ("65 cells", None),
    ("thousandth decade stage", None),
]


@pytest.mark.parametrize(("text", "years"), YEARS, ids=lambda v: str(v)[:40])
def test_ages_are_read_or_said_to_be_unknown(text: object, years: float | None) -> None:
    found = parse_age(text)
    if years is None:
        assert np.isnan(found.years)
        assert found.how == ""
    else:
        assert found.years == pytest.approx(years)
        assert found.how


def test_every_human_year_term_is_the_year_in_its_number() -> None:
    """HsapDv numbers 2 to 79 years from 96, 80 to 99 from 206: an independent witness."""
    for year in range(2, 80):
        assert parse_age(f"HsapDv:{year + 94:07d}").years == year
    for year in range(80, 100):
        assert parse_age(f"HsapDv:{year + 126:07d}").years == year
    assert len(_terms()) > 250
    assert all(parse_age(label).how for label in _terms().values())


def test_bare_numbers_take_the_unit_of_the_columns_name() -> None:
    assert unit_in_name("age_months") == "month"
    assert unit_in_name("Age (weeks)") == "week"
    assert unit_in_name("age_in_days") == "day"
    assert unit_in_name("age") == "year"
    assert unit_in_name("monthly_average") == "year"
    months = parse_ages(pd.Series([3, 24, np.nan], name="age_months"))
    np.testing.assert_allclose(months.years, [0.25, 2, np.nan])
    # a text with its own unit keeps it
    assert parse_ages(["2 years"], name="age_months").years.tolist() == [2.0]


def test_a_column_is_read_once_per_value_and_lists_what_it_could_not_read() -> None:
    column = pd.Series(
        pd.Categorical(
            ["30-year-old stage", "adult stage", None, "30-year-old stage", "41-year-old stage"],
            categories=["adult stage", "30-year-old stage", "41-year-old stage", "unused"],
        ),
        name="development_stage",
    )
    found = parse_ages(column)
    np.testing.assert_array_equal(found.years, [30, np.nan, np.nan, 30, 41])
    assert found.unread == ["adult stage"]
    assert found.table["n"].sum() == 4
    assert "unused" not in set(found.table["value"])
    assert len(parse_ages([]).years) == 0
