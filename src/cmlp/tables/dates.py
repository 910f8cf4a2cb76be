"""Dates and times: seconds since 1970, and the parts that clock and calendar of a zone show."""

from __future__ import annotations

import datetime
import functools
import re
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

DAY = 86400

ORDINAL_1970 = 719163
"""Day of 1 January 1970 from that of the year 1, which is 1."""

PARTS = {"month": 12, "day": 31, "weekday": 7, "hour": 24}
"""Parts of a date, and the length of their cycle."""

_FIXED = re.compile(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})(?::?(\d{2}))?", re.ASCII).fullmatch
"""A zone that is an offset alone."""


def zone_of(name: str) -> datetime.tzinfo:
    """Return a time zone by its name, or by its offset: "Europe/Berlin", "UTC", "+02:00".

    Raises
    ------
    ValueError
        If this machine has no zone of this name.
    """
    if name in ("UTC", "Z", "GMT", "Etc/UTC"):
        return datetime.UTC
    fixed = _FIXED(name)
    if fixed:
        hours, minutes, seconds = (int(part or 0) for part in fixed.groups()[1:])
        offset = datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
        if offset < datetime.timedelta(days=1):
            return datetime.timezone(-offset if fixed[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise ValueError(
            f"the time zone {name!r} is not known on this machine; install the package tzdata, or "
            "convert the dates to UTC"
        ) from None


def name_of_zone(zone: datetime.tzinfo) -> str:
    """Return the name under which :func:`zone_of` finds a zone."""
    return str(getattr(zone, "key", None) or getattr(zone, "zone", None) or zone)


def _offset(zone: datetime.tzinfo, second: int) -> int:
    """Return a zone's seconds ahead of UTC at a time; those of year 1 or 9999 outside of these."""
    second = min(max(second, -62135510400), 253402214400)
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    local = (moment + datetime.timedelta(seconds=second)).astimezone(zone)
    offset = local.utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def offsets(seconds: Seconds, zone: str) -> Seconds:
    """Return how many seconds a zone is ahead of UTC at each time, without NaN among them.

    A zone is looked up twice per day, not once per row.
    """
    tz = zone_of(zone)
    if isinstance(tz, datetime.timezone):
        return np.full(len(seconds), float(_offset(tz, 0)))
    days, where = np.unique(np.floor(seconds / DAY), return_inverse=True)
    found = np.array([_offsets_of_day(zone, int(day)) for day in days.tolist()], np.float64)
    first, last, change = found.T[:, where] if len(found) else np.zeros((3, 0))
    return np.asarray(np.where(seconds >= change, last, first), np.float64)


@functools.lru_cache(maxsize=1 << 16)
def _offsets_of_day(zone: str, day: int) -> tuple[int, int, int]:
    """Return the offset at the beginning and the end of a day, and the second it changes at."""
    tz = zone_of(zone)
    first, last = _offset(tz, day * DAY), _offset(tz, day * DAY + DAY - 1)
    return first, last, _change(tz, day * DAY, last) if first != last else 0


def _change(zone: datetime.tzinfo, start: int, new: int) -> int:
    """Return the second of a day from which the zone's offset is the new one."""
    low, high = start, start + DAY - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle) == new else (middle, high)
    return high


def parts_of(seconds: Seconds, zone: str | None) -> dict[str, Seconds]:
    """Return month (1 to 12), day (1 to 31), weekday (0 is Monday) and hour, with its fraction.

    Parameters
    ----------
    seconds : ndarray of float64, (n,)
        Seconds since 1970: of UTC with a zone, else of the clock that the dates were read from. NaN
        stays NaN.
    zone : str, optional
        The zone whose clock and calendar count.
    """
    missing = ~(np.abs(seconds) < 1e15)  # 30 million years: more is not a date
    local = np.where(missing, 0.0, seconds)
    if zone is not None:
        local = local + offsets(local, zone)
    whole = np.floor(local / DAY)
    date = whole.astype(np.int64).astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    found = {
        "month": month.astype(np.int64) % 12 + 1.0,
        "day": (date - month.astype("datetime64[D]")).astype(np.int64) + 1.0,
        "weekday": (whole + 3) % 7,  # 1 January 1970 was a Thursday
        "hour": (local - whole * DAY) / 3600,
    }
    for part in found.values():
        part[missing] = np.nan
    return found


def parts_of_one(seconds: float, zone: datetime.tzinfo | None) -> tuple[float, ...]:
    """Return the same of one time, without arrays."""
    if not abs(seconds) < 1e15:
        return (np.nan,) * len(PARTS)
    if zone is not None:
        seconds += _offset(zone, int(seconds // 1))
    day = int(seconds // DAY)
    if -719162 <= day <= 2932896:
        date = datetime.date.fromordinal(day + ORDINAL_1970)
        month, of_month = date.month, date.day
    else:
        far = np.int64(day).astype("datetime64[D]")
        start = far.astype("datetime64[M]")
        month = int(start.astype(np.int64) % 12) + 1
        of_month = int((far - start.astype("datetime64[D]")).astype(np.int64)) + 1
    return (float(month), float(of_month), float((day + 3) % 7), (seconds - day * DAY) / 3600)
