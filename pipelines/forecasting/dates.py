"""Dates of a series: parsing, time zones and formatting.

Times are whole microseconds since 1970 in UTC. A date without a zone is stored as if it were in UTC
and formatted without a zone.
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
#: Zones that are tried first if several zones have the offsets of a history.
_COMMON = (
    "Europe/London", "Europe/Berlin", "Europe/Athens", "America/New_York", "America/Chicago",
    "America/Denver", "America/Los_Angeles", "America/Sao_Paulo", "Australia/Sydney",
    "Asia/Tehran", "Asia/Jerusalem", "Africa/Cairo",
)  # fmt: skip


class Moment(NamedTuple):
    """A parsed date.

    Attributes:
        time: Microseconds since 1970, UTC.
        zone: The time zone; None for a date without one.
    """

    time: int
    zone: tzinfo | None

    @property
    def wall(self) -> int:
        """The local time in the zone, in microseconds as if it were UTC."""
        if self.zone is None:
            return self.time
        offset = (_EPOCH + timedelta(microseconds=self.time)).astimezone(self.zone).utcoffset()
        assert offset is not None
        return self.time + offset // timedelta(microseconds=1)


def parse(value: Any, pattern: str | None = None) -> Moment | str:
    """Parse the date in a cell.

    Args:
        value: A string, a ``date``, a ``datetime`` or a ``numpy.datetime64``.
        pattern: The format of strings, as for `datetime.strptime`; None for ISO 8601.

    Returns:
        The date, or the reason why it cannot be used.
    """
    unreadable = f"is not a date as {pattern!r}" if pattern else "is not a date as YYYY-MM-DD"
    if isinstance(value, str):
        if _FINER.search(value):
            return "is finer than a microsecond"
        text = value.strip()
        try:
            value = datetime.strptime(text, pattern) if pattern else datetime.fromisoformat(text)
        except ValueError:
            return unreadable if pattern else f"{unreadable} (data.date_format)"
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


def find_zone(zones: Sequence[tzinfo | None], times: Sequence[int]) -> tuple[tzinfo | None, bool]:
    """Find the time zone of a series from the zones of its dates.

    For dates with several UTC offsets, such as those of summer and winter, this is a zone that has
    the same offsets at the same times, or UTC if there is none.

    Args:
        zones: The zone of each date.
        times: The time of each date, in microseconds since 1970.

    Returns:
        The zone, and whether it has the offsets of all dates.
    """
    named = {getattr(zone, "key", None) for zone in zones}
    if len(named) == 1 and None not in named:
        return zones[0], True
    offsets = [
        None if zone is None else _offset(zone, time)
        for zone, time in zip(zones, times, strict=True)
    ]
    distinct = set(offsets)
    if distinct == {None}:
        return None, True
    if len(distinct) == 1:
        (offset,) = distinct
        assert offset is not None
        return timezone(offset), True
    # The dates around each change of the offset suffice to distinguish zones.
    edges = {i for i in range(1, len(offsets)) if offsets[i] != offsets[i - 1]}
    checked = sorted({0, len(offsets) - 1} | edges | {i - 1 for i in edges})
    for name in (*_COMMON, *sorted(zoneinfo.available_timezones())):
        zone = zoneinfo.ZoneInfo(name)
        if all(_offset(zone, times[i]) == offsets[i] for i in checked):
            return zone, True
    return UTC, False


def to_index(times: np.ndarray, zone: tzinfo | None) -> pd.DatetimeIndex:
    """Convert times ``<int64>[steps]``, in microseconds, to dates in a zone."""
    dates = pd.DatetimeIndex(np.asarray(times, np.int64).astype("datetime64[us]"))
    return dates if zone is None else dates.tz_localize(UTC).tz_convert(zone)


def to_microseconds(dates: pd.DatetimeIndex) -> np.ndarray:
    """Convert dates to times ``<int64>[steps]``, in microseconds; the inverse of `to_index`."""
    utc = dates if dates.tz is None else dates.tz_convert(UTC).tz_localize(None)
    times: np.ndarray = utc.as_unit("us").to_numpy().astype("datetime64[us]").astype(np.int64)
    return times


def from_wall_time(wall: int, zone: tzinfo | None) -> int:
    """Return the time at which the local time in ``zone`` is ``wall``; both in microseconds."""
    if zone is None:
        return wall
    local = pd.DatetimeIndex([np.datetime64(wall, "us")])
    date = local.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.array([True]))
    return int(to_microseconds(date)[0])


def frequency(times: np.ndarray, zone: tzinfo | None) -> Frequency:
    """Infer the `Frequency` of the times ``<int64>[steps]`` of a history."""
    return _frequency(np.asarray(times, np.int64).tobytes(), zone)


@lru_cache(maxsize=1024)
def _frequency(times: bytes, zone: tzinfo | None) -> Frequency:
    # Cached, because many series often have the same dates.
    return infer(to_index(np.frombuffer(times, np.int64), zone))


def isoformat(times: np.ndarray, zone: tzinfo | None) -> list[str]:
    """Format times in ISO 8601, with the UTC offset if there is a zone."""
    return [stamp.isoformat() for stamp in to_index(times, zone)]


def _offset(zone: tzinfo, time: int) -> timedelta | None:
    return (_EPOCH + timedelta(microseconds=time)).astimezone(zone).utcoffset()
