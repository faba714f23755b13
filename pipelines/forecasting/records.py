"""From rows to series, and from one time to another: what came first trains."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from typing import Any

import numpy as np

from pipelines.engine.config.schema import as_list, as_text
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits, fingerprint
from pipelines.forecasting import dates
from pipelines.forecasting.config import ForecastingConfig, ForecastingDataConfig
from pipelines.forecasting.dates import Moment
from pipelines.forecasting.series import Part, Series, Step, assemble, names_of


def load(config: ForecastingConfig) -> Splits:
    """Read every source of the config; all series are divided at the same two moments.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too short.
    """
    data, report = config.data, dict[str, Any]()
    series = read(data, data.source, report)
    begins = _begins(data, series)
    splits: dict[str, list[Part]] = {"train": [], "validation": [], "test": []}
    for one in series:
        edges = np.searchsorted(one.times, [_instant(m, one.zone) for m in begins.values()])
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
    zone = series[0].zone
    report["begins"] = {
        name: dates.written(np.array([_instant(moment, zone)]), zone)[0]
        for name, moment in begins.items()
    }
    _note_frequencies(series, report)
    digest = fingerprint(
        part for one in series for part in (one.name, _hex(one.times), one.values.tobytes().hex())
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


def _note_frequencies(series: Sequence[Series], report: dict[str, Any]) -> None:
    """Say how the dates of the series follow each other, and of which that cannot be said."""
    report["frequencies"] = dict(Counter(one.frequency.name for one in series))
    irregular = [one for one in series if not one.frequency.regular]
    report["notes"] += [
        f"{one.place}: {one.name}: its dates are irregular; forecasts continue with the median step"
        for one in irregular[:5]
    ]


def _hex(times: np.ndarray) -> str:
    """Of whole seconds as such, so that fingerprints are those of earlier versions."""
    whole = not (times % dates.SECOND).any()
    return (times // dates.SECOND if whole else times).tobytes().hex()


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
    parser = loading.RowParser[Step](
        columns=list(dict.fromkeys(wanted)),
        parse=_parser(data),
        content=lambda s: s[:4],
        exclude=_outside(data),
    )
    steps = [
        step for source in as_list(sources) for step in loading.read(source, parser, data, report)
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
            series += assemble(label or str(targets[0]), found[name], i, data, counts, notes)
    if not series:
        raise UserError(
            f"{', '.join(as_list(sources))}: no series has data.min_steps ({data.min_steps}) steps "
            "or more"
        )
    report["steps"] = dict(counts)
    report["notes"] = notes
    return series


def _parser(data: ForecastingDataConfig) -> Callable[[Row], Step | str]:
    """What makes a step of a row, or says why it cannot be one."""
    targets = as_list(data.target)
    further_names = names_of(data)
    read_as = {**dict.fromkeys(further_names, "log_returns"), **data.columns}
    moments: dict[str, Moment | str] = {}
    zoned: list[bool] = []
    seen: dict[tuple[str, int], tuple[Any, ...]] = {}

    def parse(row: Row) -> Step | str:
        written = row.fields[data.date]
        if isinstance(written, str) and written in moments:
            moment = moments[written]
        else:
            moment = dates.read(written, data.date_format)
            if isinstance(written, str):
                moments[written] = moment
        if isinstance(moment, str):
            return f"{data.date!r} {moment}"
        if not zoned:
            zoned.append(moment.zone is not None)
        if zoned[0] != (moment.zone is not None):
            has, first = ("no", "has one") if zoned[0] else ("a", "has none")
            return f"{data.date!r} has {has} UTC offset, but the first one {first}"
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
        step = Step(name, moment, tuple(numbers), tuple(further), row.place)
        numbered = (step.targets, step.further)
        if seen.setdefault((name, moment.time), numbered) != numbered:
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


def _moment(key: str, value: str) -> Moment:
    moment = dates.read(value)
    if isinstance(moment, str):
        raise UserError(f"data.{key}: {value!r} is neither a share nor a date as YYYY-MM-DD")
    return moment


def _instant(moment: Moment, zone: tzinfo | None) -> int:
    """A date of the config; without a zone, it is one of the data's own."""
    return moment.time if moment.zone is not None else dates.at_wall(moment.time, zone)


def _outside(data: ForecastingDataConfig) -> Callable[[Step], bool]:
    start, end = (
        None if value is None else _moment(key, value)
        for key, value in (("start", data.start), ("end", data.end))
    )

    def is_before(step: Step, limit: Moment) -> bool:
        if limit.zone is not None:
            return step.time < limit.time
        return step.moment.wall < limit.time

    return lambda s: (
        (start is not None and is_before(s, start)) or (end is not None and not is_before(s, end))
    )


def _begins(data: ForecastingDataConfig, series: Sequence[Series]) -> dict[str, Moment]:
    """The first moments of validation and test; shares are of all moments."""
    times = np.unique(np.concatenate([one.times for one in series]))
    zone = series[0].zone
    shares = 0.0
    found: dict[str, Moment] = {}
    for name, where in (("test", data.test), ("validation", data.validation)):
        if isinstance(where, float):
            shares += where
            first = min(max(round((1 - shares) * len(times)), 0), len(times) - 1)
            if name == "validation" and "test" in found and not isinstance(data.test, float):
                before = int(np.searchsorted(times, _instant(found["test"], zone)))
                first = max(round(before - where * len(times)), 0)
            found[name] = Moment(int(times[first]), zone or UTC)
        else:
            found[name] = _moment(name, str(where))
    if shares >= 1 or _instant(found["validation"], zone) > _instant(found["test"], zone):
        raise UserError(
            "data.validation comes before data.test, and leaves something before it to train on"
        )
    return {"validation": found["validation"], "test": found["test"]}
