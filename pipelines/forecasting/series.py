"""Time series: ordered steps without long gaps."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import tzinfo
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pipelines.forecasting import dates
from pipelines.forecasting.config import ForecastingDataConfig
from pipelines.forecasting.dates import Moment
from pipelines.forecasting.frequency import Frequency

#: A price change looks like a stock split if its ratio is within 3 % of one of these, and its
#: logarithm is more than 10 times as large as the median.
_SPLIT_RATIOS = np.array([2, 3, 4, 5, 7, 10, 20])
_SPLIT_TOLERANCE, _SPLIT_SIZE = 0.03, 10


class Step(NamedTuple):
    """One usable row: the values of one series at one time, or of several in a wide table.

    Attributes:
        series: Name of the series.
        moment: The date.
        targets: The value of each target; NaN if missing in a wide table.
        covariates: The value of each further column; NaN if missing.
        place: Where the row was read, as ``file:line``.
    """

    series: str
    moment: Moment
    targets: tuple[float, ...]
    covariates: tuple[float, ...]
    place: str

    @property
    def time(self) -> int:
        return self.moment.time


@dataclass(frozen=True)
class Series:
    """Consecutive steps of one series, ordered by time.

    Attributes:
        name: Name of the series.
        times: ``<int64>[steps]``, microseconds since 1970, UTC.
        values: Raw values, ``<float64>[steps, 1 + columns + 2 · ratios]``: the target, the further
            columns, and the numerator and denominator of each ratio.
        place: Where the first step was read, as ``file:line``.
        zone: The time zone; None if the dates have no zone.
        history: The times of the whole series, ``<int64>[all steps]``, from which its frequency is
            inferred; ``times`` by default.
        missing: Values of the whole series that are missing in the data: of the target, whose
            steps are left out, and of further columns, which are filled.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    place: str
    zone: tzinfo | None = None
    history: np.ndarray | None = None
    missing: int = 0

    def __len__(self) -> int:
        return len(self.times)

    @property
    def seconds(self) -> np.ndarray:
        """The times in seconds since 1970, UTC, ``<int64>[steps]``."""
        return self.times // dates.SECOND

    @property
    def frequency(self) -> Frequency:
        """The frequency of the dates of the whole series."""
        history = self.times if self.history is None else self.history
        return dates.frequency(history, self.zone)

    def following(self, steps: int) -> np.ndarray:
        """Return the times of the next steps, ``<int64>[steps]`` in microseconds."""
        last = dates.to_index(self.times[-1:], self.zone)[0]
        return dates.to_microseconds(self.frequency.after(last, steps))


@dataclass(frozen=True)
class SeriesSlice:
    """The steps of a series that belong to a split.

    Attributes:
        series: The whole series. Steps before the slice may be used as inputs.
        start: Index of the first step of the slice.
        stop: Index after the last step of the slice.
    """

    series: Series
    start: int
    stop: int

    @property
    def place(self) -> str:
        return self.series.place


def column_names(data: ForecastingDataConfig) -> list[str]:
    """Return the names of the columns of ``Series.values`` after the target."""
    return [*data.columns, *(name for pair in data.ratios.items() for name in pair)]


def assemble(
    name: str,
    steps: list[Step],
    target: int,
    data: ForecastingDataConfig,
    counts: Counter[str],
    notes: list[str],
) -> list[Series]:
    """Order the steps of one series and divide it at its long gaps.

    Args:
        name: Name of the series.
        steps: Its steps in any order.
        target: Index of the target.
        data: The ``data`` section of the config.
        counts: Counts of the changes made; updated in place.
        notes: Messages about the series; updated in place.

    Returns:
        The parts that are at least ``data.min_steps`` long.
    """
    counts["out_of_order"] += sum(b.time < a.time for a, b in pairwise(steps))
    ordered = {step.time: step for step in reversed(steps)}  # the first of equal times is kept
    steps = [ordered[time] for time in sorted(ordered)]
    zone, consistent = dates.find_zone([s.moment.zone for s in steps], [s.time for s in steps])
    if not consistent:
        notes.append(
            f"{steps[0].place}: {name}: no time zone has all its UTC offsets; its dates are "
            "shown in UTC"
        )
    complete = [s for s in steps if not math.isnan(s.targets[target])]
    counts["missing"] += len(steps) - len(complete)
    if not complete:
        return []
    values = np.array([(s.targets[target], *s.covariates) for s in complete])
    filled = _fill_forward(values)
    if filled:
        counts["filled_forward"] += filled
    # Steps before the first value of a covariate cannot be filled.
    known = ~np.isnan(values).any(axis=1)
    counts["before_the_first_number"] += int((~known).sum())
    values = values[known]
    times = np.array([s.time for s in complete], np.int64)[known]
    places = [s.place for s, k in zip(complete, known, strict=True) if k]
    if data.values == "log_returns" and len(values) > 1:
        notes += _find_stock_splits(name, values[:, 0], times, zone)
    missing = len(steps) - len(complete) + filled
    whole = Series(name, times, values, places[0] if places else "", zone, times, missing)
    return _divide_at_gaps(whole, places, data, counts, notes)


def _divide_at_gaps(
    series: Series,
    places: list[str],
    data: ForecastingDataConfig,
    counts: Counter[str],
    notes: list[str],
) -> list[Series]:
    """The parts of a series between its long gaps that have enough steps; see `assemble`."""
    times = series.times
    usual_step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    ends = [*np.flatnonzero(np.diff(times) > data.max_gap * usual_step) + 1, len(times)]
    counts["gaps"] += len(ends) - 1
    parts, start = [], 0
    for end in ends:
        if end - start >= data.min_steps:
            part = slice(start, end)
            parts.append(
                replace(series, times=times[part], values=series.values[part], place=places[start])
            )
        elif end > start:
            counts["too_short"] += 1
            if counts["too_short"] <= 5:
                notes.append(
                    f"{places[start]}: {series.name} has {end - start} steps in a row, fewer than "
                    f"data.min_steps ({data.min_steps}): left out"
                )
        start = end
    return parts


def _fill_forward(values: np.ndarray) -> int:
    """Replace missing values by the previous one in place, and return their number."""
    missing = np.isnan(values)
    last = np.where(missing, 0, np.arange(len(values))[:, None])
    np.maximum.accumulate(last, axis=0, out=last)
    values[:] = np.take_along_axis(values, last, axis=0)
    return int(missing.sum() - np.isnan(values).sum())


def _find_stock_splits(
    name: str, prices: np.ndarray, times: np.ndarray, zone: tzinfo | None
) -> list[str]:
    """Return messages about price changes that look like unadjusted stock splits."""
    change = prices[1:] / prices[:-1]
    ratio = np.maximum(change, 1 / change)
    large = np.log(ratio) > _SPLIT_SIZE * np.median(np.log(ratio))
    near = np.abs(ratio[:, None] / _SPLIT_RATIOS - 1).min(axis=1) < _SPLIT_TOLERANCE
    return [
        f"{name}: {prices[i]:g} to {prices[i + 1]:g} on {date} looks like a split; choose a column "
        "with adjusted prices"
        for i in np.flatnonzero(large & near)[:2]
        for date in dates.isoformat(times[i + 1 : i + 2], zone)
    ]


def latest_steps(series: list[Series], steps: int) -> list[Series]:
    """Return the last ``steps`` of each series; for a divided series, of its last part."""
    last = {part.name: part for part in series}
    return [
        replace(part, times=part.times[-steps:], values=part.values[-steps:])
        for part in last.values()
    ]
