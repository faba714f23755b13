"""Dates are read as they are meant, go on in their own zone, and are written as they came."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.core.errors import UserError
from pipelines.forecasting import dates, records
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.series import Series

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Sydney", "Asia/Kolkata", "UTC"]


def load(tmp_path: Path, cells: list[str], **data: object) -> tuple[list[Series], dict]:
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["date,close", *(f"{c},{i + 1}" for i, c in enumerate(cells)), ""]))
    settings = {"source": str(path), "target": "close", "min_steps": 3} | data
    config = ForecastingConfig.model_validate({"data": settings})
    report: dict = {"notes": []}
    return records.read_series(config.data, str(path), report), report


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))
def test_a_date_is_read_to_the_microsecond_and_written_back(value):
    moment = dates.parse(value.isoformat())
    assert isinstance(moment, dates.Moment)
    assert dates.parse(value) == dates.parse(np.datetime64(value, "us")) == moment
    assert dates.isoformat(np.array([moment.time]), moment.zone) == [value.isoformat()]


@given(
    st.datetimes(datetime(1975, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(ZONES),
)
def test_a_date_with_a_zone_keeps_its_instant_and_its_clock(instant, zone):
    value = instant.astimezone(ZoneInfo(zone))
    moment = dates.parse(value)
    assert isinstance(moment, dates.Moment)
    assert datetime.fromisoformat(dates.isoformat(np.array([moment.time]), moment.zone)[0]) == value
    shown = datetime(1970, 1, 1) + (moment.wall * np.timedelta64(1, "us")).item()
    assert shown == value.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("yesterday", "is not a date as YYYY-MM-DD (data.date_format)"),
        ("2024-05-31T09:00:00.1234567", "is finer than a microsecond"),
        (np.datetime64("2024-05-31T09:00:00.000000001"), "is finer than a microsecond"),
        (np.datetime64("NaT"), "is missing"),
        (None, "is missing"),
        (7, "is not a date as YYYY-MM-DD"),
    ],
)
def test_what_is_no_date_says_why(value, reason):
    assert dates.parse(value) == reason


def test_a_fraction_of_zeros_is_no_finer_than_a_microsecond():
    assert dates.parse("2024-05-31 09:00:00.123000000") == dates.parse("2024-05-31 09:00:00.123")
    assert dates.parse(date(1970, 1, 2)) == dates.Moment(86_400 * dates.SECOND, None)


def test_ticks_within_one_second_are_all_there(tmp_path):
    stamps = [f"2024-05-31 09:00:00.{k:03}" for k in range(0, 900, 7)]
    (one,), _ = load(tmp_path, stamps)
    assert len(one) == len(stamps)
    assert dates.isoformat(one.times[1:2], one.zone) == ["2024-05-31T09:00:00.007000"]
    assert dates.isoformat(one.following(1), one.zone) == ["2024-05-31T09:00:00.903000"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("alias", ["D", "B", "W-MON", "MS"])
def test_offsets_go_on_through_daylight_saving(zone, alias, tmp_path):
    """The file has offsets only, of winter and summer; the next dates have theirs."""
    whole = pd.date_range("2021-01-04", periods=460, freq=alias, tz=zone)
    for end in (100, 287, 300, 451):
        (one,), _ = load(tmp_path, [stamp.isoformat() for stamp in whole[:end]])
        shown = dates.isoformat(one.following(5), one.zone)
        assert shown == [stamp.isoformat() for stamp in whole[end : end + 5]]


def test_one_offset_is_kept_as_it_is(tmp_path):
    cells = [f"2024-05-{day:02}T00:00:00+05:30" for day in range(1, 21)]
    (one,), _ = load(tmp_path, cells)
    assert dates.isoformat(one.times[:1], one.zone) == ["2024-05-01T00:00:00+05:30"]
    assert dates.isoformat(one.following(1), one.zone) == ["2024-05-21T00:00:00+05:30"]


def test_offsets_that_no_zone_has_are_said(tmp_path):
    cells = [f"2024-05-{day:02}T00:00:00+0{day % 7}:00" for day in range(1, 21)]
    (one,), report = load(tmp_path, cells)
    assert one.zone is UTC
    assert "no time zone has all its UTC offsets" in report["notes"][0]


@pytest.mark.parametrize(("first", "other"), [("", "+02:00"), ("+02:00", "")])
def test_dates_with_and_without_an_offset_do_not_mix(first, other, tmp_path):
    cells = [f"2024-05-{day:02}T00:00:00{first}" for day in range(1, 21)]
    (one,), report = load(tmp_path, [*cells, f"2024-05-21T00:00:00{other}"], max_bad_rows=0.5)
    assert len(one) == 20
    (found,) = report[str(tmp_path / "series.csv")]["unusable"]
    assert found.startswith("'date' has ")
    assert "UTC offset" in found


@pytest.mark.parametrize("offset", ["+09:00", "-08:00"])
def test_dates_of_the_config_are_those_of_the_datas_own_zone(offset, tmp_path):
    cells = [str(s).replace(" ", "T") for s in pd.date_range("2024-01-01", periods=120, freq="h")]
    settings = {"validation": "2024-01-03", "test": "2024-01-04", "end": "2024-01-05"}
    plain, zoned = (
        load_splits(tmp_path, [f"{cell}{mark}" for cell in cells], settings)
        for mark in ("", offset)
    )
    assert [len(p) for p in plain] == [len(p) for p in zoned] == [48, 24, 24]


def load_splits(tmp_path: Path, cells: list[str], settings: dict) -> list[np.ndarray]:
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["date,close", *(f"{c},{i + 1}" for i, c in enumerate(cells)), ""]))
    config = ForecastingConfig.model_validate(
        {"data": {"source": str(path), "target": "close"} | settings, "model": {"horizon": 2}}
    )
    splits = records.load(config)
    return [
        p.series.times[p.start : p.stop] for p in (*splits.train, *splits.validation, *splits.test)
    ]


def test_a_share_and_a_date_that_is_none():
    config = ForecastingConfig.model_validate({"data": {"source": "x", "test": "soon"}})
    with pytest.raises(UserError, match="neither a fraction nor a date"):
        records._config_date("test", str(config.data.test))


def test_irregular_dates_are_said_and_go_on_by_the_median_step(tmp_path):
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.cumsum(rng.integers(1, 40, 60))
    (one,), _ = load(tmp_path, [str(day) for day in days], max_gap=1000)
    assert not one.frequency.regular
    step = int(np.median(np.diff(one.times)))
    np.testing.assert_array_equal(one.following(2), one.times[-1] + step * np.arange(1, 3))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["31", "28", "31", "30", "31"], "2023-06-30T00:00:00"),  # ends of months
        (["30", "28", "30", "30", "30"], "2023-06-30T00:00:00"),  # the 30th, where there is one
        (["15", "15", "15", "15", "15"], "2023-06-15T00:00:00"),
    ],
)
def test_days_that_a_month_has_not(cells, expected, tmp_path):
    stamps = [f"2023-{month:02}-{day}" for month, day in enumerate(cells, 1)]
    (one,), _ = load(tmp_path, stamps)
    assert dates.isoformat(one.following(1), None) == [expected]


@pytest.mark.parametrize("weekdays", [[6, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 2, 4], [1, 3]])
def test_any_weekdays_go_on(weekdays, tmp_path):
    days = pd.date_range("2024-01-01", periods=90, freq="D")
    days = days[np.isin(days.dayofweek, weekdays)]
    (one,), _ = load(tmp_path, [str(day.date()) for day in days[:-6]])
    assert dates.isoformat(one.following(6), None) == [day.isoformat() for day in days[-6:]]


def test_a_market_that_closes_opens_again(tmp_path):
    hours = pd.date_range("2024-01-01", periods=24 * 40, freq="h")
    hours = hours[(hours.dayofweek < 5) & (hours.hour >= 9) & (hours.hour < 17)]
    (one, *more), _ = load(tmp_path, [str(hour) for hour in hours[:-20]], max_gap=1000)
    assert not more
    assert dates.isoformat(one.following(20), None) == [hour.isoformat() for hour in hours[-20:]]
