"""Text of the Python files that leave: how a raw row becomes numbers, without NumPy."""

from __future__ import annotations

ENCODE = '''\
def _encode(row):
    """Return the numbers of a row: a dict of raw values, or all values in order."""
    out = []
    if hasattr(row, "keys"):
        missing = [name for _, name, _ in _COLUMNS if name not in row.keys()]
        if missing:
            raise ValueError("the row lacks %s" % ", ".join([ascii(each) for each in missing]))
    elif isinstance(row, (str, bytes)) or not hasattr(row, "__len__"):
        raise TypeError("a row must be a dict or a list, not %s" % ascii(row)[:80])
    elif len(row) != N_INPUTS:
        raise ValueError("a row of %d values expected, %d came" % (N_INPUTS, len(row)))
    for place, name, add in _COLUMNS:
        try:
            add(row[name if hasattr(row, "keys") else place], out)
        except ValueError as error:
            raise ValueError("column %s: %s" % (ascii(name), error)) from None
    return out or [0.0]


_IS_MISSING = re.compile(
    r"([+-]?(nan|inf|infinity)|n/?a|<na>|null|none|\\?|\\.|-{1,3}"
    r"|#(n/?a|div/0!|value!|ref!|name\\?|num!|null!)|)",
    re.I,
).fullmatch
_IS_NUMBER = re.compile(r"\\s*[+-]?(\\d+\\.?\\d*|\\.\\d+)(e[+-]?\\d+)?\\s*", re.I | re.A).fullmatch


def _is_missing(value):
    """Whether a value stands for nothing: None, NaN, or one of pandas' kinds."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(_plain(value), float) and bool(value != value)


def _plain(value):
    """Return Python's own object of one of NumPy's."""
    kind = value.dtype.kind if hasattr(value, "dtype") else ""
    return float(value) if kind == "f" else value.item() if kind and kind in "biuUS" else value'''

NUMBER = '''\
def _number(scale, flag, knots, gap, read):
    """Return what appends the outputs of a number to a list."""
    halves = [knot / 2 for knot in knots or ()]
    slopes = [1 / (above - below) for below, above in zip(halves, halves[1:])]

    def place(value):
        value /= 2
        if value >= halves[-1]:
            return float(len(halves) - 1)
        if value <= halves[0]:
            return 0.0
        i = bisect.bisect_right(halves, value) - 1
        return slopes[i] * (value - halves[i]) + i

    def add(value, out):
        try:
            value = read(value)
        except OverflowError:
            value = math.inf
        missing = value != value
        if abs(value) == math.inf:
            raise ValueError("%s is not a finite number" % value)
        if scale is not None:
            center, factor, clips = scale
            u = 0.0 if missing else (value - center) * factor
            if not -1e9 < u < 1e9:
                u = math.copysign(1e9, u)
            if clips:
                t = u / 3
                u /= math.sqrt(t * t + 1)
            out.append(u)
        if halves:
            out.append(place(gap if missing else value))
        if flag:
            out.append(float(missing))

    return add'''

NUMBER_OF = '''\
def _number_of(markers):
    """Return what reads a number in a cell; some words stand for a missing one."""

    def read(value):
        value = _plain(value)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            if _IS_NUMBER(value):
                return float(value)
            text = value.strip().lower()
            if text in ("true", "false"):
                return float(text == "true")
            if value in markers or (_IS_MISSING(text) and "inf" not in text):
                return math.nan
        elif _is_missing(value):
            return math.nan
        elif hasattr(value, "__float__") and not hasattr(value, "dtype"):
            return float(value)
        raise ValueError("a number expected, %s came" % ascii(value)[:80])

    return read'''

DURATION_OF = '''\
def _duration_of(value):
    """Return the seconds of a duration, or of a time of the day."""
    if _is_missing(value) or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if hasattr(value, "dtype") and value.dtype.kind == "m":
        return _seconds_of_numpy(value)
    raise ValueError("a duration expected, %s came" % ascii(value)[:80])'''

CATEGORY = '''\
def _category(levels, unseen):
    """Return what appends the outputs of a level, which is known by its text."""
    rows = dict(levels)

    def add(value, out):
        out.extend(rows.get(_key_of(value), unseen))

    return add


def _key_of(value):
    """Return the text of a level, the same for 1, 1.0 and "1"; None for a missing value."""
    kind = value.dtype.kind if hasattr(value, "dtype") else ""
    if _is_missing(value) or (kind in ("M", "m") and value != value):
        return None
    if kind == "f" and value.dtype.itemsize < 8:
        whole = abs(value) < math.inf and float(value).is_integer()
        return str(int(value)) if whole else str(value)
    if kind == "M":
        return _moment_text(_seconds_of_numpy(value.astype("datetime64[us]")))
    if kind == "m":
        value = value.item()
    value = _plain(value)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = str.__str__(value)
        return value if value.strip() else None
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(float(value))
    if isinstance(value, datetime.date):
        return _moment_text(_seconds_of(value))
    if isinstance(value, decimal.Decimal):
        whole = value.is_finite() and value == value.to_integral_value()
        return str(int(value)) if whole else str(value.normalize())
    if isinstance(value, (complex, list, tuple, dict, set, frozenset)) or hasattr(value, "dtype"):
        raise ValueError("a %s cannot be a category" % type(value).__name__)
    return _key_of(str(value))


def _moment_text(seconds):
    """Write a time in ISO's form, without a part that is zero."""
    day, us = divmod(round(seconds * 1e6), 86400 * 10**6)
    second, us = divmod(us, 10**6)
    text = "%04d-%02d-%02d" % _civil(day)
    if second or us:
        text += "T%02d:%02d:%02d" % (second // 3600, second // 60 % 60, second % 60)
    return text + (".%06d" % us if us else "")'''

TIMES = '''\
def _seconds_of(value):
    """Return the seconds since 1970 of a date or a time; without a zone, of its own clock."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    zone = None if value.tzinfo is None else datetime.timezone.utc
    return (value - datetime.datetime(1970, 1, 1, tzinfo=zone)).total_seconds()


def _seconds_of_numpy(value):
    """Return the seconds of a datetime64 or a timedelta64."""
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "ps": 10**12, "fs": 10**15}
    if value != value:
        return math.nan
    unit = value.dtype.str[4:-1]
    if unit not in units:
        unit = "us" if unit[:1].isdigit() or unit == "as" else "s"
        value = value.astype("%s8[%s]" % (value.dtype.kind, unit))
    return int(value.astype("int64")) / units[unit]


def _civil(day):
    """Return year, month and day of the month, of a number of days since 1970."""
    day += 719468
    era = day // 146097
    of_era = day - era * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    of_month = of_year - (153 * month + 2) // 5 + 1
    return year + era * 400 + (month > 9), (month + 2) % 12 + 1, of_month'''

DATE = '''\
def _date(add_seconds, zone, numeric, parts):
    """Return what appends the outputs of a date."""
    tz = None if zone is None else _zone(zone)

    def add(value, out):
        seconds, zoned = _moment_of(value, numeric)
        clock = isinstance(value, (str, datetime.date)) or _is_moment(value)
        if zoned != (tz is not None) and seconds == seconds and clock:
            raise ValueError(
                "%s has %s time zone, unlike the column in training"
                % (ascii(value)[:80], "a" if zoned else "no")
            )
        add_seconds(seconds, out)
        found = _parts_of(seconds, tz)
        for place, cycle, part in parts:
            if cycle is None:
                part(found[place], out)
            elif seconds != seconds:
                out += (0.0, 0.0)
            else:
                angle = found[place] * (2 * math.pi / cycle)
                out += (math.sin(angle), math.cos(angle))

    return add


def _is_moment(value):
    return hasattr(value, "dtype") and value.dtype.kind == "M"


def _parts_of(seconds, tz):
    """Return month, day, weekday (0 is Monday) and hour, with its fraction."""
    if not abs(seconds) < 1e15:
        return (math.nan,) * 4
    if tz is not None:
        second = min(max(int(seconds // 1), -62135510400), 253402214400)
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        local = (moment + datetime.timedelta(seconds=second)).astimezone(tz)
        seconds += int(local.utcoffset().total_seconds())
    day = int(seconds // 86400)
    _, month, of_month = _civil(day)
    return float(month), float(of_month), float((day + 3) % 7), (seconds - day * 86400) / 3600


_ISO = re.compile(
    r"(\\d{4})(-?)(\\d\\d)\\2(\\d\\d)"
    r"(?:[T ](\\d\\d)(?::?(\\d\\d)(?::?(\\d\\d)(?:[.,](\\d{1,6})\\d*)?)?)?"
    r"(Z|[+-]\\d\\d(?::?\\d\\d(?::?\\d\\d)?)?)?)?",
    re.A,
).fullmatch


def _moment_of(value, numeric):
    """Return the seconds since 1970 of a date or its ISO text, and whether it has a zone."""
    if isinstance(value, str):
        text = value.strip()
        if _IS_MISSING(text):
            return math.nan, False
        found = _ISO(text)
        if not found:
            raise ValueError(
                "a date as 2024-05-31 or 2024-05-31T09:30 expected, %s came" % ascii(value)[:80]
            )
        numbers = [int(found[part] or 0) for part in (1, 3, 4, 5, 6, 7)]
        value = datetime.datetime(*numbers, int((found[8] or "0").ljust(6, "0")))
        if found[9] is not None:
            value = value.replace(tzinfo=_zone(found[9]))
    if _is_missing(value):
        return math.nan, False
    if isinstance(value, datetime.date):
        return _seconds_of(value), getattr(value, "tzinfo", None) is not None
    if _is_moment(value):
        return _seconds_of_numpy(value), False
    value = _plain(value)
    if numeric and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value), False
    raise ValueError("a date expected, %s came" % ascii(value)[:80])


def _zone(name):
    """Return a time zone by its name, or by its offset."""
    if name in ("UTC", "Z", "GMT", "Etc/UTC"):
        return datetime.timezone.utc
    fixed = re.fullmatch(r"(?:UTC|GMT)?([+-])(\\d\\d):?(\\d\\d)?(?::?(\\d\\d))?", name, re.A)
    if fixed:
        hours, minutes, seconds = [int(part or 0) for part in fixed.groups()[1:]]
        offset = datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return datetime.timezone(-offset if fixed[1] == "-" else offset)
    try:
        import zoneinfo

        return zoneinfo.ZoneInfo(name)
    except (ImportError, ValueError, KeyError, OSError):
        raise ValueError(
            "the time zone %s is not known here; it needs Python 3.9 and perhaps tzdata"
            % ascii(name)
        ) from None'''
