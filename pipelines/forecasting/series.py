"""Series of numbers: steps in the order of time, without a wide gap."""

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

#: A change within this share of a whole ratio, and so many times as large as is usual, looks like
#: a split of the stock.
_LIKE_A_SPLIT, _RATIOS, _RARE = 0.03, np.array([2, 3, 4, 5, 7, 10, 20]), 10


class Step(NamedTuple):
    """One usable row: the numbers of one series (of a wide table: of several) at one time."""

    series: str
    moment: Moment
    #: One for each target; NaN where a wide table has no number.
    targets: tuple[float, ...]
    #: One for each further column; NaN where there is none yet.
    further: tuple[float, ...]
    place: str

    @property
    def time(self) -> int:
        return self.moment.time


@dataclass(frozen=True)
class Series:
    """Steps of one series in the order of time, none of them far from the next.

    Attributes:
        times: ``<int64>[steps]``, microseconds since 1970, UTC.
        values: ``<float64>[steps, 1 + columns + 2 · ratios]``, raw: the target, the further
            columns, and the numerator and denominator of each ratio.
        place: where the first step stands.
        zone: None if the dates have no zone.
        history: ``<int64>[all]``, the times of the whole series, which its frequency is inferred
            from; ``times`` by default.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    place: str
    zone: tzinfo | None = None
    history: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.times)

    @property
    def seconds(self) -> np.ndarray:
        """``<int64>[steps]``, seconds since 1970, UTC."""
        return self.times // dates.SECOND

    @property
    def frequency(self) -> Frequency:
        """The frequency of the dates of the whole series."""
        history = self.times if self.history is None else self.history
        return dates.frequency(history, self.zone)

    def following(self, steps: int) -> np.ndarray:
        """The times of the next steps, ``<int64>[steps]``: they continue the series' dates."""
        last = dates.index(self.times[-1:], self.zone)[0]
        return dates.instants(self.frequency.after(last, steps))


@dataclass(frozen=True)
class Part:
    """The steps ``start … stop`` of a series are what a split asks for; all before is known."""

    series: Series
    start: int
    stop: int

    @property
    def place(self) -> str:
        return self.series.place


def names_of(data: ForecastingDataConfig) -> list[str]:
    """The columns of ``Series.values``, the target apart."""
    return [*data.columns, *(name for pair in data.ratios.items() for name in pair)]


def assemble(
    name: str, steps: list[Step], which: int, data: ForecastingDataConfig, counts: Counter[str],
    notes: list[str],
) -> list[Series]:  # fmt: skip
    """Put the steps of one series in order and divide it at its wide gaps.

    Args:
        which: the number of the target.
        counts, notes: get what had to be done.

    Returns:
        The pieces that are long enough.
    """
    counts["out_of_order"] += sum(b.time < a.time for a, b in pairwise(steps))
    ordered = {step.time: step for step in reversed(steps)}  # the first of equal ones stays
    steps = [ordered[time] for time in sorted(ordered)]
    zone, consistent = dates.zone_of([s.moment.zone for s in steps], [s.time for s in steps])
    if not consistent:
        notes.append(
            f"{steps[0].place}: {name}: no time zone has all its UTC offsets; shown in UTC"
        )
    whole = [s for s in steps if not math.isnan(s.targets[which])]
    counts["missing"] += len(steps) - len(whole)
    if not whole:
        return []
    values = np.array([(s.targets[which], *s.further) for s in whole])
    if filled := _fill_forward(values):
        counts["filled_forward"] += filled
    # Before a column's first number there is nothing that could be known.
    known = ~np.isnan(values).any(axis=1)
    counts["before_the_first_number"] += int((~known).sum())
    values = values[known]
    times = np.array([s.time for s in whole], np.int64)[known]
    places = [s.place for s, k in zip(whole, known, strict=True) if k]
    if data.values == "log_returns" and len(values) > 1:
        notes += _splits_of_stock(name, values[:, 0], times, zone)
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    ends = [*np.flatnonzero(np.diff(times) > data.max_gap * usual) + 1, len(times)]
    counts["gaps"] += len(ends) - 1
    pieces, start = [], 0
    for end in ends:
        if end - start >= data.min_steps:
            here = slice(start, end)
            pieces.append(Series(name, times[here], values[here], places[start], zone, times))
        elif end > start:
            counts["too_short"] += 1
            if counts["too_short"] <= 5:
                notes.append(
                    f"{places[start]}: {name} has {end - start} steps in a row, fewer than "
                    f"data.min_steps ({data.min_steps}): left out"
                )
        start = end
    return pieces


def _fill_forward(values: np.ndarray) -> int:
    """Give each missing number that of the step before; how many there were to give."""
    missing = np.isnan(values)
    last = np.where(missing, 0, np.arange(len(values))[:, None])
    np.maximum.accumulate(last, axis=0, out=last)
    values[:] = np.take_along_axis(values, last, axis=0)
    return int(missing.sum() - np.isnan(values).sum())


def _splits_of_stock(
    name: str, prices: np.ndarray, times: np.ndarray, zone: tzinfo | None
) -> list[str]:
    """Overnight changes that look like a split of the stock, not like news."""
    change = prices[1:] / prices[:-1]
    ratio = np.maximum(change, 1 / change)
    rare = np.log(ratio) > _RARE * np.median(np.log(ratio))
    near = np.abs(ratio[:, None] / _RATIOS - 1).min(axis=1) < _LIKE_A_SPLIT
    return [
        f"{name}: {prices[i]:g} to {prices[i + 1]:g} on {date} looks like a split; choose a column "
        "with adjusted prices"
        for i in np.flatnonzero(rare & near)[:2]
        for date in dates.written(times[i + 1 : i + 2], zone)
    ]


def latest(series: list[Series], steps: int) -> list[Series]:
    """The last ``steps`` of each series: of one in several pieces, its last piece."""
    last = {one.name: one for one in series}
    return [
        replace(one, times=one.times[-steps:], values=one.values[-steps:]) for one in last.values()
    ]
