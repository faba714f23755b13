"""Dates go on as pandas has them, for every frequency, zone and start."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.forecasting.frequency import infer
from tests.support.matrix import thorough_after

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
FREQUENCIES = [
    *["s", "7s", "min", "15min", "h", "6h", "100ms", "250us"],
    *["D", "2D", "3D", "10D", "B", "2B", "3B", "W", "2W", "4W", "5W"],
    *[f"W-{day}" for day in WEEKDAYS],
    *["MS", "ME", "2MS", "2ME", "BMS", "BME", "SMS", "SME", "WOM-3FRI", "WOM-1MON"],
    *["QS", "QE", "BQS", "BQE", "2QS", "YS", "YE", "BYS", "BYE"],
    *[f"QS-{month}" for month in MONTHS[:3]],
    *[f"QE-{month}" for month in MONTHS[:3]],
]
#: Years that end or begin in each month.
YEARS = [f"{end}-{month}" for end in ("YE", "YS") for month in MONTHS]
ZONES = [None, "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney"]


@settings(max_examples=25)
@given(
    start=st.datetimes(pd.Timestamp("1972-01-01"), pd.Timestamp("2030-01-01")),
    zone=st.sampled_from(ZONES),
    count=st.integers(25, 60),
)
@pytest.mark.parametrize("alias", FREQUENCIES + thorough_after(0, YEARS))
def test_the_next_dates_are_those_of_date_range(alias, start, zone, count):
    tick = isinstance(pd.tseries.frequencies.to_offset(alias), pd.tseries.offsets.Tick)
    first = pd.Timestamp(start).floor("h")
    if tick:
        first = first.tz_localize(zone, nonexistent="shift_forward", ambiguous=True)
    whole = pd.date_range(first, periods=count + 8, freq=alias, unit="us")
    if not tick:
        dst = np.ones(len(whole), bool)
        whole = whole.tz_localize(zone, nonexistent="shift_forward", ambiguous=dst)
    found = infer(whole[:count])
    assert found.regular
    pd.testing.assert_index_equal(
        found.after(whole[count - 1], 8).as_unit("us"), whole[count:], exact=False
    )
