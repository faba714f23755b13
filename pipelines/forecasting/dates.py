"""Dates of a series: read from cells, kept as instants with their zone, written as they came.

An instant is a whole number of microseconds since 1970 in UTC. A date without a zone is kept as if
it were in UTC and is written without one.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipelines.forecasting.frequency import Frequency, infer

SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FINER = re.compile(r"[.,]\d{6}\d*[1-9]")
#: Zones that are tried first where a history has the offsets of several.
_COMMON = (
    "Europe/London", "Europe/Berlin", "Europe/Athens", "America/New_York", "America/Chicago",
    "America/Denver", "America/Los_Angeles", "America/Sao_Paulo", "Australia/Sydney",
    "Asia/Tehran", "Asia/Jerusalem", "Africa/Cairo",
)  # fmt: skip


class Moment(NamedTuple):
    """A date that was read.

    Attributes:
        time: microseconds since 1970, UTC.
        zone: None for a date without a zone.
    """

    time: int
    zone: tzinfo | None

    @property
    def wall(self) -> int:
        """What a clock in the zone shows, as if it were in UTC."""
        if self.zone is None:
            return self.time
        offset = (_EPOCH + timedelta(microseconds=self.time)).astimezone(self.zone).utcoffset()
        assert offset is not None
        return self.time + offset // timedelta(microseconds=1)


def read(value: Any, form: str | None = None) -> Moment | str:
    """Read the date in a cell.

    Args:
        value: a string, a ``date``, a ``datetime`` or a ``numpy.datetime64``.
        form: how strings are written, as for `datetime.strptime`; None for ISO 8601.

    Returns:
        The date, or why it cannot be used.
    """
    unreadable = f"is not a date as {form!r}" if form else "is not a date as YYYY-MM-DD"
    if isinstance(value, str):
        if _FINER.search(value):
            return "is finer than a microsecond"
        text = value.strip()
        try:
            value = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
        except ValueError:
            return unreadable if form else f"{unreadable} (data.date_format)"
    elif isinstance(value, np.datetime64 | pd.Timestamp):
        stamp = pd.Timestamp(value)
        if stamp is pd.NaT:
            return "is missing"
        if stamp.nanosecond:
            return "is finer than a microsecond"
        value = stamp.to_pydatetime()
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return Moment((aware - _EPOCH) // timedelta(microseconds=1), value.tzinfo)
    if isinstance(value, date):
        days = value.toordinal() - _EPOCH.toordinal()
        return Moment(days * 86_400 * SECOND, None)
    return "is missing" if value is None else unreadable


def zone_of(zones: Sequence[tzinfo | None], times: Sequence[int]) -> tuple[tzinfo | None, bool]:
    """The zone of a series whose dates have these.

    A history with the offsets of summer and of winter gets a zone that has them at the same times;
    without such a zone it is shown in UTC.

    Args:
        times: microseconds since 1970.

    Returns:
        The zone, and whether it has the offsets of all dates.
    """
    named = {getattr(zone, "key", None) for zone in zones}
    if len(named) == 1 and None not in named:
        return zones[0], True
    found = [
        None if zone is None else _offset(zone, time)
        for zone, time in zip(zones, times, strict=True)
    ]
    distinct = set(found)
    if distinct == {None}:
        return None, True
    if len(distinct) == 1:
        (offset,) = distinct
        assert offset is not None
        return timezone(offset), True
    # Where the offset changes, and a few dates between: enough to tell zones apart.
    edges = {i for i in range(1, len(found)) if found[i] != found[i - 1]}
    some = sorted({0, len(found) - 1} | edges | {i - 1 for i in edges})
    for name in (*_COMMON, *sorted(zoneinfo.available_timezones())):
        zone = zoneinfo.ZoneInfo(name)
        if all(_offset(zone, times[i]) == found[i] for i in some):
            return zone, True
    return UTC, False


def index(times: np.ndarray, zone: tzinfo | None) -> pd.DatetimeIndex:
    """``<int64>[steps]``, microseconds since 1970, as dates in their zone."""
    found = pd.DatetimeIndex(np.asarray(times, np.int64).astype("datetime64[us]"))
    return found if zone is None else found.tz_localize(UTC).tz_convert(zone)


def instants(dates: pd.DatetimeIndex) -> np.ndarray:
    """The opposite of `index`."""
    utc = dates if dates.tz is None else dates.tz_convert(UTC).tz_localize(None)
    return utc.as_unit("us").to_numpy().astype("datetime64[us]").astype(np.int64)


def at_wall(wall: int, zone: tzinfo | None) -> int:
    """The instant at which a clock in ``zone`` shows ``wall``."""
    if zone is None:
        return wall
    local = pd.DatetimeIndex([np.datetime64(wall, "us")])
    found = local.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.array([True]))
    return int(instants(found)[0])


def frequency(times: np.ndarray, zone: tzinfo | None) -> Frequency:
    """The `Frequency` of a history."""
    return _frequency(np.asarray(times, np.int64).tobytes(), zone)


@lru_cache(maxsize=1024)
def _frequency(times: bytes, zone: tzinfo | None) -> Frequency:
    # Many series often have the same dates.
    return infer(index(np.frombuffer(times, np.int64), zone))


def written(times: np.ndarray, zone: tzinfo | None) -> list[str]:
    """ISO 8601, with the offset of the zone where there is one."""
    return [stamp.isoformat() for stamp in index(times, zone)]


def _offset(zone: tzinfo, time: int) -> timedelta | None:
    return (_EPOCH + timedelta(microseconds=time)).astimezone(zone).utcoffset()
