"""Time series: reading, and splitting by time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from typing import Any

import numpy as np

from pipelines.engine.config.schema import as_list
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
from pipelines.engine.data.inputs import where_possible
from pipelines.engine.data.sources.missing import label_text
from pipelines.engine.data.sources.numbers import number_hint, parse_number
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits, fingerprint
from pipelines.forecasting import dates
from pipelines.forecasting.config import ForecastingConfig, ForecastingDataConfig
from pipelines.forecasting.dates import Moment
from pipelines.forecasting.series import Series, SeriesSlice, Step, assemble, column_names


def load(config: ForecastingConfig) -> Splits:
    """Read all sources and split them by time; all series are divided at the same two dates.

    Raises:
        UserError: A source cannot be read, has too many unusable rows, or is too short.
    """
    data, report = config.data, dict[str, Any]()
    series = read_series(data, data.source, report)
    begins = _split_dates(data, series)
    splits: dict[str, list[SeriesSlice]] = {"train": [], "validation": [], "test": []}
    for s in series:
        edges = np.searchsorted(s.times, [_time_of(m, s.zone) for m in begins.values()])
        for name, start, stop in zip(splits, (0, *edges), (*edges, len(s)), strict=True):
            # Validation and test slices need steps before them to forecast from.
            start = start if name == "train" else max(start, data.min_steps)
            if stop > start:
                splits[name].append(SeriesSlice(s, int(start), int(stop)))
    for name, parts in splits.items():
        steps = sum(p.stop - p.start for p in parts)
        need = config.model.horizon if name == "test" else 1
        if name == "train":
            need += 2  # two steps for a change, and one to forecast
        if max((p.stop - p.start for p in parts), default=0) < need:
            raise UserError(
                f"{', '.join(as_list(data.source))}: the {name} split has {steps} steps, but no "
                f"series has {need} or more of them; give longer series, or other dates in "
                "data.validation and data.test"
            )
    report["records"] = {
        name: sum(p.stop - p.start for p in parts) for name, parts in splits.items()
    }
    report["series"] = {name: len(parts) for name, parts in splits.items()}
    zone = series[0].zone
    report["begins"] = {
        name: dates.isoformat(np.array([_time_of(moment, zone)]), zone)[0]
        for name, moment in begins.items()
    }
    _note_frequencies(series, report)
    digest = fingerprint(
        text for s in series for text in (s.name, _hex(s.times), s.values.tobytes().hex())
    )
    tested = fingerprint(
        text
        for part in splits["test"]
        for text in (
            part.series.name,
            _hex(part.series.times[part.start : part.stop]),
            part.series.values[part.start : part.stop].tobytes().hex(),
        )
    )
    return Splits(**splits, fingerprint=digest, test_fingerprint=tested, report=report)


def load_inputs(
    config: ForecastingConfig, source: str, report: dict[str, Any]
) -> list[SeriesSlice]:
    """Read the whole series of new data, whatever their dates.

    Raises:
        UserError: The source cannot be read, has too many unusable rows, or no series with a
            change that could be compared.
    """
    data = config.data.model_copy(update={"start": None, "end": None, "min_steps": 3})
    data = where_possible(source, data.columns_read, data, report)
    notes = report.pop("notes", [])
    series = read_series(data, source, report)
    report["notes"] = notes + report["notes"]
    return [SeriesSlice(s, 0, len(s)) for s in series]


def _note_frequencies(series: Sequence[Series], report: dict[str, Any]) -> None:
    """Add the frequencies of the series to the report, with a note for irregular ones."""
    report["frequencies"] = dict(Counter(s.frequency.name for s in series))
    irregular = [s for s in series if not s.frequency.regular]
    report["notes"] += [
        f"{s.place}: {s.name}: its dates are irregular; forecasts continue with the median step"
        for s in irregular[:5]
    ]


def _hex(times: np.ndarray) -> str:
    """Return times in hexadecimal, for fingerprints.

    Whole seconds are written in seconds, as in earlier versions.
    """
    whole = not (times % dates.SECOND).any()
    return (times // dates.SECOND if whole else times).tobytes().hex()


def read_series(
    data: ForecastingDataConfig, sources: str | list[str], report: dict[str, Any]
) -> list[Series]:
    """Read the series of one or several sources, ordered by name.

    Rows are ordered by time, and repeated rows are dropped. Missing cells of further columns are
    filled with the previous value.

    Args:
        data: The ``data`` section of the config.
        sources: Files or other sources.
        report: Gets counts of rows and steps, and notes.

    Raises:
        UserError: A source cannot be read, has too many unusable rows, or has no series that is
            long enough.
    """
    targets = as_list(data.target)
    parser = loading.RowParser[Step](
        columns=data.columns_read,
        parse=_parser(data),
        content=lambda s: s[:4],
        exclude=_outside_dates(data),
    )
    steps = [
        step for source in as_list(sources) for step in loading.read(source, parser, data, report)
    ]
    steps_of: defaultdict[str, list[Step]] = defaultdict(list)
    for step in steps:
        steps_of[step.series].append(step)
    counts: Counter[str] = Counter()
    notes: list[str] = []
    series = []
    for name in sorted(steps_of):
        for i, target in enumerate(targets):
            label = name if len(targets) == 1 else f"{name} {target}".strip()
            series += assemble(label or str(targets[0]), steps_of[name], i, data, counts, notes)
    if not series:
        raise UserError(
            f"{', '.join(as_list(sources))}: no series has data.min_steps ({data.min_steps}) steps "
            "or more"
        )
    report["steps"] = dict(counts)
    report["notes"] = notes
    return series


def _parser(data: ForecastingDataConfig) -> Callable[[Row], Step | str]:
    """Return a function that parses a row into a step, or returns why it is unusable."""
    targets = as_list(data.target)
    covariate_names = column_names(data)
    transforms = {**dict.fromkeys(covariate_names, "log_returns"), **data.columns}
    moments: dict[str, Moment | str] = {}
    zoned: list[bool] = []
    values_at: dict[tuple[str, int], tuple[Any, ...]] = {}

    def parse(row: Row) -> Step | str:
        cell = row.fields[data.date]
        if isinstance(cell, str) and cell in moments:
            moment = moments[cell]
        else:
            moment = dates.parse(cell, data.date_format)
            if isinstance(cell, str):
                moments[cell] = moment
        if isinstance(moment, str):
            return f"{data.date!r} {moment}"
        if not zoned:
            zoned.append(moment.zone is not None)
        if zoned[0] != (moment.zone is not None):
            has, first = ("no", "has one") if zoned[0] else ("a", "has none")
            return f"{data.date!r} has {has} UTC offset, but the first one {first}"
        name = ""
        if data.series:
            name = label_text(row.fields[data.series]) or ""
            if not name:
                return f"{data.series!r} is empty"
        numbers = []
        for column in targets:
            number = parse_number(row.fields[column], row.numbers)
            if number is None:
                return f"{column!r} is not a number{number_hint(row.fields[column])}"
            if data.values == "log_returns" and number <= 0:
                return f"{column!r} is zero or less and has no logarithm"
            numbers.append(number)
        if all(math.isnan(n) for n in numbers):
            return f"{targets[0]!r} is missing"
        covariates = []
        for column in covariate_names:
            number = parse_number(row.fields[column], row.numbers)
            if number is None:
                return f"{column!r} is not a number{number_hint(row.fields[column])}"
            if transforms[column] == "log_returns" and number <= 0:
                number = math.nan  # as a volume of zero
            covariates.append(number)
        step = Step(name, moment, tuple(numbers), tuple(covariates), row.place)
        values = (step.targets, step.covariates)
        if values_at.setdefault((name, moment.time), values) != values:
            return "another row has the same date but other numbers"
        return step

    return parse


def _config_date(key: str, value: str) -> Moment:
    """Parse a date of the config.

    Raises:
        UserError: The value is not a date.
    """
    moment = dates.parse(value)
    if isinstance(moment, str):
        raise UserError(f"data.{key}: {value!r} is neither a fraction nor a date as YYYY-MM-DD")
    return moment


def _time_of(moment: Moment, zone: tzinfo | None) -> int:
    """Return the time of a date of the config; without a zone, it is in the zone of the data."""
    return moment.time if moment.zone is not None else dates.from_wall_time(moment.time, zone)


def _outside_dates(data: ForecastingDataConfig) -> Callable[[Step], bool]:
    """Return a predicate for steps outside ``data.start`` and ``data.end``."""
    start, end = (
        None if value is None else _config_date(key, value)
        for key, value in (("start", data.start), ("end", data.end))
    )

    def is_before(step: Step, limit: Moment) -> bool:
        if limit.zone is not None:
            return step.time < limit.time
        return step.moment.wall < limit.time

    return lambda s: (
        (start is not None and is_before(s, start)) or (end is not None and not is_before(s, end))
    )


def _split_dates(data: ForecastingDataConfig, series: Sequence[Series]) -> dict[str, Moment]:
    """Return the first dates of the validation and test splits.

    Fractions are of all distinct times of all series.
    """
    times = np.unique(np.concatenate([s.times for s in series]))
    zone = series[0].zone
    fractions = 0.0
    begins: dict[str, Moment] = {}
    for name, setting in (("test", data.test), ("validation", data.validation)):
        if isinstance(setting, float):
            fractions += setting
            first = min(max(round((1 - fractions) * len(times)), 0), len(times) - 1)
            if name == "validation" and "test" in begins and not isinstance(data.test, float):
                before = int(np.searchsorted(times, _time_of(begins["test"], zone)))
                first = max(round(before - setting * len(times)), 0)
            begins[name] = Moment(int(times[first]), zone or UTC)
        else:
            begins[name] = _config_date(name, str(setting))
    if fractions >= 1 or _time_of(begins["validation"], zone) > _time_of(begins["test"], zone):
        raise UserError(
            "data.validation must begin before data.test and leave earlier steps for training"
        )
    return {"validation": begins["validation"], "test": begins["test"]}
