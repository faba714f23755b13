"""Inference of the frequency of dates, and continuation of the dates.

A history may have gaps (holidays, missing months): its dates must be on one grid, and most of its
steps must be single steps of that grid. The grids are those of pandas: days, some weekdays, months,
quarters and years starting on any day, and fixed steps, during all hours or some hours of the day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.tseries import offsets

_DAY = pd.Timedelta(days=1)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: Minimum fraction of steps that must be single steps of the grid.
_MIN_SINGLE_STEPS = 0.5
#: Minimum fraction of dates with a zone that must have the same time of day.
_MIN_SAME_HOUR = 0.95
#: Minimum fraction of days that must have the same hours.
_MIN_SAME_HOURS = 0.7


@dataclass(frozen=True)
class Frequency:
    """The frequency of the dates of a series.

    Attributes:
        name: The alias of pandas if there is one, else a description.
        regular: Whether the dates are on a grid; if not, the median step continues them.
        after: A function ``(last date, number of steps)`` → next dates.
    """

    name: str
    regular: bool
    after: Callable[[pd.Timestamp, int], pd.DatetimeIndex]

    def in_local_time(self) -> Frequency:
        """Return this frequency for dates with a zone, continued in local time."""

        def after(date: pd.Timestamp, count: int) -> pd.DatetimeIndex:
            dates = self.after(date.tz_localize(None), count)
            if date.tz is None:
                return dates
            summer = np.ones(len(dates), bool)
            return dates.tz_localize(date.tz, nonexistent="shift_forward", ambiguous=summer)

        return Frequency(self.name, self.regular, after)


def infer(index: pd.DatetimeIndex) -> Frequency:
    """Infer the frequency of increasing dates.

    Args:
        index: Dates with or without a zone. Days, weeks and months are in local time; steps below a
            day are absolute, as in pandas.
    """
    if len(index) < 2:
        return _of_offset(offsets.Day(1))
    wall = _wall(index)
    days = wall.normalize()
    hours = (wall - days).value_counts(normalize=True)
    # The change to summer time may shift one date of a daily series.
    if hours.iloc[0] >= (1.0 if index.tz is None else _MIN_SAME_HOUR) and days.is_unique:
        found = _of_days(days)
        return found.in_local_time() if found else _irregular(index)
    if found := _of_fixed_step(index):
        return found
    found = _of_hours(wall)
    return found.in_local_time() if found else _irregular(index)


def _of_days(days: pd.DatetimeIndex) -> Frequency | None:
    """Return the grid of dates that have the same time of day."""
    steps = np.diff(days.to_numpy()).astype("timedelta64[D]").astype(int)
    if (steps == steps[0]).all() and (steps[0] < 28 or not _in_months(days)):
        weekly = steps[0] % 7 == 0
        return _of_offset(
            offsets.Week(steps[0] // 7, weekday=days[0].dayofweek)
            if weekly
            else offsets.Day(steps[0])
        )
    usual = np.median(steps)
    if usual >= 28 and (offset := _in_months(days)):
        return offset
    if 13 <= usual <= 17 and (offset := _in_half_months(days)):
        return offset
    weekdays = _weekdays(days)
    if len(weekdays) < 7:
        mask = np.isin(np.arange(7), weekdays)
        counts = np.diff(np.busday_count(days[0].date(), _dates(days), weekmask=mask))
        step = _mode(counts)
        if (counts == step).mean() >= _MIN_SINGLE_STEPS:
            if weekdays == [0, 1, 2, 3, 4]:
                return _of_offset(offsets.BusinessDay(step))
            names = " ".join(_DAYS[day] for day in weekdays)
            offset = offsets.CustomBusinessDay(step, weekmask=names)
            return _of_offset(offset, names if step == 1 else f"every {step} of {names}")
    step = _mode(steps)
    if (steps == step).mean() >= _MIN_SINGLE_STEPS and (steps % step == 0).all():
        return _of_offset(offsets.Day(step))
    return None


def _in_months(days: pd.DatetimeIndex) -> Frequency | None:
    """Return the grid of dates on the same day of a month: the first, the last business day, …"""
    steps = np.diff(days.year * 12 + days.month)
    step = _mode(steps)
    if step < 1 or (steps % step).any() or (steps == step).mean() < _MIN_SINGLE_STEPS:
        return None
    last, day = days.days_in_month, int(days.day.max())
    nth, weekday = (days.day - 1) // 7, int(days[0].dayofweek)
    grids: list[tuple[bool, offsets.BaseOffset]] = [
        (bool((days.day == 1).all()), offsets.MonthBegin(step)),
        (bool((days.day == last).all()), offsets.MonthEnd(step)),
        (_all_on(days, offsets.BMonthBegin()), offsets.BMonthBegin(step)),
        (_all_on(days, offsets.BMonthEnd()), offsets.BMonthEnd(step)),
    ]
    if (days.dayofweek == weekday).all():
        if (nth == nth[0]).all() and nth[0] < 4:
            grids.append((True, offsets.WeekOfMonth(step, week=int(nth[0]), weekday=weekday)))
        grids.append(((days.day + 7 > last).all(), offsets.LastWeekOfMonth(step, weekday=weekday)))
    for fits, offset in grids:
        if fits:
            return _of_offset(offset)
    if (days.day == np.minimum(day, last)).all():
        # Shorter months use their last day: 31 January, 28 February, 31 March.
        def after(date: pd.Timestamp, count: int) -> pd.DatetimeIndex:
            months = np.arange(1, count + 1) * step
            first = date.replace(day=1)
            starts = [first + pd.DateOffset(months=int(m)) for m in months]
            return pd.DatetimeIndex([s.replace(day=min(day, s.days_in_month)) for s in starts])

        every = "month" if step == 1 else f"{step} months"
        return Frequency(f"day {day} of every {every}", True, after)
    return None


def _in_half_months(days: pd.DatetimeIndex) -> Frequency | None:
    """Return the grid of two days a month: the first and another, or another and the last."""
    first, last = days.day == 1, days.day == days.days_in_month
    for edge, kind in ((first, offsets.SemiMonthBegin), (last, offsets.SemiMonthEnd)):
        others = days.day[~edge].unique()
        if edge.any() and len(others) == 1:
            return _of_offset(kind(day_of_month=int(others[0])))
    return None


def _of_fixed_step(index: pd.DatetimeIndex) -> Frequency | None:
    """Return the grid of a fixed absolute step."""
    steps = np.diff(index.asi8)
    step = _mode(steps)
    if (steps % step).any() or (steps == step).mean() < _MIN_SINGLE_STEPS:
        return None
    delta = pd.Timedelta(step, unit=index.unit)
    if delta < _DAY:
        wall = _wall(index)
        hours = (wall - wall.normalize()).nunique()
        gaps = bool((steps != step).any())
        if gaps and (hours < _DAY // delta or len(_weekdays(wall.normalize().unique())) < 7):
            return None  # only some hours or some days
    return _of_offset(pd.tseries.frequencies.to_offset(delta))


def _of_hours(wall: pd.DatetimeIndex) -> Frequency | None:
    """Return the grid of the same times on each day or on some weekdays, as of a market."""
    days = wall.normalize()
    times = pd.Series(wall - days).groupby(days.to_numpy()).agg(tuple)
    if len(times) < 3:
        return None
    common = times.mode().iloc[0]
    if (times == common).mean() < _MIN_SAME_HOURS or len(common) < 2:
        return None
    weekdays = _weekdays(pd.DatetimeIndex(times.index))
    names = " ".join(_DAYS[day] for day in weekdays)
    next_day = offsets.CustomBusinessDay(weekmask=names)

    def after(date: pd.Timestamp, count: int) -> pd.DatetimeIndex:
        day, dates = date.normalize(), list[pd.Timestamp]()
        while len(dates) < count:
            dates += [day + time for time in common if day + time > date]
            day += next_day
        return pd.DatetimeIndex(dates[:count])

    hours = f"{len(common)} times a day"
    return Frequency(hours if len(weekdays) == 7 else f"{hours}, {names}", True, after)


def _irregular(index: pd.DatetimeIndex) -> Frequency:
    """Return the frequency of dates without a grid: the median step."""
    step = pd.Timedelta(int(np.median(np.diff(index.asi8))), unit=index.unit)

    def after(date: pd.Timestamp, count: int) -> pd.DatetimeIndex:
        return pd.DatetimeIndex([date + step * k for k in range(1, count + 1)])

    return Frequency(f"irregular, {step} in the median", False, after)


def _of_offset(offset: offsets.BaseOffset, name: str | None = None) -> Frequency:
    def after(date: pd.Timestamp, count: int) -> pd.DatetimeIndex:
        # A date between two grid points continues with the later one.
        dates = pd.date_range(date, periods=count + 1, freq=offset)
        return dates[dates > date][:count]

    return Frequency(name or offset.freqstr, True, after)


def _wall(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return index if index.tz is None else index.tz_localize(None)


def _weekdays(days: pd.DatetimeIndex) -> list[int]:
    """Return the weekdays of a history, 0 for Monday.

    Weekdays that a short history does not cover are included.
    """
    whole = pd.date_range(days[0], days[-1], freq="D")
    return sorted(set(range(7)) - (set(whole.dayofweek) - set(days.dayofweek)))


def _all_on(days: pd.DatetimeIndex, offset: offsets.BaseOffset) -> bool:
    return all(offset.is_on_offset(day) for day in days)


def _dates(days: pd.DatetimeIndex) -> np.ndarray:
    dates: np.ndarray = days.to_numpy().astype("datetime64[D]")
    return dates


def _mode(values: np.ndarray) -> int:
    """Return the most frequent value; if there are several, the smallest one."""
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[np.argmax(counts)])
