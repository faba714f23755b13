"""From rows to series, and from one time to another: what came first trains."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pipelines.engine.config.schema import as_list, as_text
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits, fingerprint
from pipelines.forecasting.config import ForecastingConfig, ForecastingDataConfig

#: A change within this share of a whole ratio, and so many times as large as is usual, looks like
#: a split of the stock.
_LIKE_A_SPLIT, _RATIOS, _RARE = 0.03, np.array([2, 3, 4, 5, 7, 10, 20]), 10


class Step(NamedTuple):
    """One usable row: the numbers of one series (of a wide table: of several) at one time."""

    series: str
    #: Seconds since 1970, UTC.
    time: int
    #: One for each target; NaN where a wide table has no number.
    targets: tuple[float, ...]
    #: One for each further column; NaN where there is none yet.
    further: tuple[float, ...]
    place: str


@dataclass(frozen=True)
class Series:
    """Steps of one series in the order of time, none of them far from the next.

    Attributes:
        times: ``<int64>[steps]``, seconds since 1970.
        values: ``<float64>[steps, 1 + columns + 2 · ratios]``, raw: the target, the further
            columns, and above and below of each ratio.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    place: str

    def __len__(self) -> int:
        return len(self.times)


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


def load(config: ForecastingConfig) -> Splits:
    """Read every source of the config; all series are divided at the same two moments.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too short.
    """
    data, report = config.data, dict[str, Any]()
    series = read(data, data.source, report)
    times = np.unique(np.concatenate([s.times for s in series]))
    begins = _begins(data, times)
    splits: dict[str, list[Part]] = {"train": [], "validation": [], "test": []}
    for one in series:
        edges = np.searchsorted(one.times, [begins["validation"], begins["test"]])
        for name, start, stop in zip(splits, (0, *edges), (*edges, len(one)), strict=True):
            # What is scored has something before it that it can be forecast from.
            start = start if name == "train" else max(start, data.min_steps)
            if stop > start:
                splits[name].append(Part(one, int(start), int(stop)))
    for name, parts in splits.items():
        steps = sum(p.stop - p.start for p in parts)
        need = config.model.horizon if name == "test" else 1
        if name == "train":
            need += 2  # a change is two steps, and one to forecast
        if max((p.stop - p.start for p in parts), default=0) < need:
            raise UserError(
                f"{', '.join(as_list(data.source))}: the {name} split has {steps} steps, and no "
                f"series with {need} or more of them; give longer series, or other dates in "
                "data.validation and data.test"
            )
    report["records"] = {
        name: sum(p.stop - p.start for p in parts) for name, parts in splits.items()
    }
    report["series"] = {name: len(parts) for name, parts in splits.items()}
    report["begins"] = {name: str(np.datetime64(t, "s")) for name, t in begins.items()}
    digest = fingerprint(
        part
        for one in series
        for part in (one.name, one.times.tobytes().hex(), one.values.tobytes().hex())
    )
    tested = fingerprint(
        text
        for part in splits["test"]
        for text in (
            part.series.name,
            part.series.times[part.start : part.stop].tobytes().hex(),
            part.series.values[part.start : part.stop].tobytes().hex(),
        )
    )
    return Splits(**splits, fingerprint=digest, test_fingerprint=tested, report=report)


def read(
    data: ForecastingDataConfig, sources: str | list[str], report: dict[str, Any]
) -> list[Series]:
    """The series of one or more sources, in the order of their names.

    Rows are put in the order of time; a row that stands there twice counts once. Missing cells
    of further columns are those of the step before.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or no series that is long
            enough.
    """
    targets = as_list(data.target)
    wanted = [data.date, *([data.series] if data.series else []), *targets, *names_of(data)]
    steps = [
        step
        for source in as_list(sources)
        for step in loading.read(
            source,
            list(dict.fromkeys(wanted)),
            _parser(data),
            parts=lambda s: s[:4],
            leave_out=_outside(data),
            data=data,
            report=report,
        )
    ]
    found: defaultdict[str, list[Step]] = defaultdict(list)
    for step in steps:
        found[step.series].append(step)
    counts: Counter[str] = Counter()
    notes: list[str] = []
    series = []
    for name in sorted(found):
        for i, target in enumerate(targets):
            label = name if len(targets) == 1 else f"{name} {target}".strip()
            series += _assemble(label or str(targets[0]), found[name], i, data, counts, notes)
    if not series:
        raise UserError(
            f"{', '.join(as_list(sources))}: no series has data.min_steps ({data.min_steps}) steps "
            "or more"
        )
    report["steps"] = dict(counts)
    report["notes"] = notes
    return series


def _assemble(
    name: str, steps: list[Step], which: int, data: ForecastingDataConfig, counts: Counter[str],
    notes: list[str],
) -> list[Series]:  # fmt: skip
    """The pieces of one series without a wide gap; what had to be done is counted."""
    counts["out_of_order"] += sum(b.time < a.time for a, b in pairwise(steps))
    ordered = {step.time: step for step in reversed(steps)}  # the first of equal ones stays
    steps = [ordered[time] for time in sorted(ordered)]
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
        notes += _splits_of_stock(name, values[:, 0], times)
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    ends = [*np.flatnonzero(np.diff(times) > data.max_gap * usual) + 1, len(times)]
    counts["gaps"] += len(ends) - 1
    pieces, start = [], 0
    for end in ends:
        if end - start >= data.min_steps:
            here = slice(start, end)
            pieces.append(Series(name, times[here], values[here], places[start]))
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


def _splits_of_stock(name: str, prices: np.ndarray, times: np.ndarray) -> list[str]:
    """Overnight changes that look like a split of the stock, not like news."""
    change = prices[1:] / prices[:-1]
    ratio = np.maximum(change, 1 / change)
    rare = np.log(ratio) > _RARE * np.median(np.log(ratio))
    near = np.abs(ratio[:, None] / _RATIOS - 1).min(axis=1) < _LIKE_A_SPLIT
    return [
        f"{name}: {prices[i]:g} to {prices[i + 1]:g} on {np.datetime64(int(times[i + 1]), 's')} "
        "looks like a split; choose a column with adjusted prices"
        for i in np.flatnonzero(rare & near)[:2]
    ]


def _parser(data: ForecastingDataConfig) -> Callable[[Row], Step | str]:
    """What makes a step of a row, or says why it cannot be one."""
    targets = as_list(data.target)
    further_names = names_of(data)
    read_as = {**dict.fromkeys(further_names, "log_returns"), **data.columns}
    times: dict[str, int | None] = {}
    seen: dict[tuple[str, int], tuple[Any, ...]] = {}

    def parse(row: Row) -> Step | str:
        written = row.fields[data.date]
        if isinstance(written, str) and written in times:
            time = times[written]
        else:
            time = seconds(written, data.date_format)
            if isinstance(written, str):
                times[written] = time
        if time is None:
            how = repr(data.date_format) if data.date_format else "YYYY-MM-DD (data.date_format)"
            return f"{data.date!r} is not a date as {how}"
        name = ""
        if data.series:
            name = as_text(row.fields[data.series]) or ""
            if not name:
                return f"{data.series!r} is empty"
        numbers = []
        for column in targets:
            number = _number(row.fields[column])
            if number is None:
                return f"{column!r} is not a number"
            if data.values == "log_returns" and number <= 0:
                return f"{column!r} is zero or less, and has no logarithm"
            numbers.append(number)
        if all(math.isnan(n) for n in numbers):
            return f"{targets[0]!r} is missing"
        further = []
        for column in further_names:
            number = _number(row.fields[column])
            if number is None:
                return f"{column!r} is not a number"
            if read_as[column] == "log_returns" and number <= 0:
                number = math.nan  # no trade, no news
            further.append(number)
        step = Step(name, time, tuple(numbers), tuple(further), row.place)
        numbered = (step.targets, step.further)
        if seen.setdefault((name, time), numbered) != numbered:
            return "another row has the same date, and other numbers"
        return step

    return parse


def _number(value: Any) -> float | None:
    """NaN for a cell that is empty, None for one that holds no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        if value in ("", "NA", "NaN", "nan", "null"):
            return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isinf(number) else number


def seconds(value: Any, form: str | None = None) -> int | None:
    """A date as seconds since 1970 in UTC; None for what is none."""
    if isinstance(value, str):
        try:
            value = (
                datetime.strptime(value, form) if form else datetime.fromisoformat(value.strip())
            )
        except ValueError:
            return None
    elif isinstance(value, np.datetime64):
        return int(value.astype("datetime64[s]").astype(np.int64))
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, date):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    return None


def _moment(key: str, value: str) -> int:
    time = seconds(value)
    if time is None:
        raise UserError(f"data.{key}: {value!r} is neither a share nor a date as YYYY-MM-DD")
    return time


def _outside(data: ForecastingDataConfig) -> Callable[[Step], bool]:
    start, end = (
        None if value is None else _moment(key, value)
        for key, value in (("start", data.start), ("end", data.end))
    )
    return lambda s: (start is not None and s.time < start) or (end is not None and s.time >= end)


def _begins(data: ForecastingDataConfig, times: np.ndarray) -> dict[str, int]:
    """The first moment of validation and test; shares are of all moments."""
    behind = 0.0
    found: dict[str, int] = {}
    for name, where in (("test", data.test), ("validation", data.validation)):
        if isinstance(where, float):
            behind += where
            first = min(max(round((1 - behind) * len(times)), 0), len(times) - 1)
            if name == "validation" and "test" in found and not isinstance(data.test, float):
                before = int(np.searchsorted(times, found["test"]))
                first = max(round(before - where * len(times)), 0)
            found[name] = int(times[first])
        else:
            found[name] = _moment(name, str(where))
    if behind >= 1 or found["validation"] > found["test"]:
        raise UserError(
            "data.validation comes before data.test, and leaves something before it to train on"
        )
    return {"validation": found["validation"], "test": found["test"]}


def latest(series: list[Series], steps: int) -> list[Series]:
    """The last ``steps`` of each series: of one in several pieces, its last piece."""
    last = {one.name: one for one in series}
    return [
        replace(one, times=one.times[-steps:], values=one.values[-steps:]) for one in last.values()
    ]
