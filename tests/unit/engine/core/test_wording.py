"""Names and numbers as readers see them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.core.wording import count, heading, listed, number, readable


@pytest.mark.parametrize(
    ("name", "words", "title"),
    [
        ("macro_f1", "macro F1", "Macro F1"),
        ("crps_next_to_ewma", "CRPS next to EWMA", "CRPS next to EWMA"),
        ("greedy_cider_d", "greedy CIDEr-D", "Greedy CIDEr-D"),
        ("chrf2", "chrF2", "chrF2"),
        ("worst_mistakes", "worst mistakes", "Worst mistakes"),
        ("Straße_1", "Straße 1", "Straße 1"),
        ("", "", ""),
    ],
)
def test_names(name, words, title):
    assert (readable(name), heading(name)) == (words, title)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.898432, "0.8984"), (0.0050861, "0.005086"), (34.6149, "34.61"), (999.46, "999.5"),
        (999.96, "1,000"), (9999.9, "10,000"), (123456.7, "123,457"), (30_000, "30,000"), (0, "0"),
        (-1234.5, "-1,234"), (1e-9, "1e-09"), (math.nan, "nan"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_numbers(value, shown):
    assert number(value) == shown


@given(st.floats(-1e12, 1e12))
def test_a_number_is_right_to_three_digits(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=1e-3, abs=1e-300)


def test_counts_and_lists():
    assert [count(1, "row"), count(1200, "row"), count(2, "series", "series")] == [
        "1 row", "1,200 rows", "2 series",
    ]  # fmt: skip
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
