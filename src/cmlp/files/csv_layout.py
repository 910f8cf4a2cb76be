"""The layout of a CSV file: text, delimiter, header, and the columns to read."""

from __future__ import annotations

import csv
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from itertools import islice
from typing import Literal

from cmlp.data.cells import NUMBER, DataError, bare, listed_near, show
from cmlp.files.compressed import decompressed
from cmlp.files.header import has_header

DELIMITERS = ";\t|,"  # commas last: they also occur in text, so that the others win a tie


_UNCUT = " (cells are cut at ';', '|', ',' or a tab, of which line 1 has none)"


_NAMELESS = re.compile(r"(Unnamed: \d+(_level_\d+)*)?").fullmatch  # as pandas calls them


_SNIFFED = 20  # rows from which the delimiter is derived


_HEAD, _LATER = 60, 20  # rows from which the header is decided: at the start, and further down


_CELLS, _WIDE = 100_000, 1000  # at most about so many cells of those rows, and columns


_LONGEST = 2**31 - 1  # characters of a cell: the largest limit that csv takes everywhere


_MAGIC = {
    b"PK\x03\x04": "a zip archive (.npz? an Excel workbook?)",
    b"\x93NUMPY": "a .npy file",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\xff\xfe\0\0": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass(frozen=True)
class Selection:
    """What the caller specifies about the columns of a table."""

    target: str | int | None = None
    features: Sequence[str] | None = None
    """Names of the columns to read, in this order; None for all but the others named here."""
    ignore: Sequence[str] = ()
    """Names to leave out, if present."""
    leave_out: Sequence[str | int] = ()
    """Columns to leave out, which have to be there."""
    header: Literal["auto"] | bool = "auto"
    named: Sequence[str | int] = ()
    """Columns that are specified for something else."""


@dataclass(frozen=True)
class Layout:
    """Where the header, the target and the features of a CSV file are."""

    delimiter: str
    width: int
    names: list[str] | None
    """As the header has them; None without a header."""
    target: int
    """Column of the target; -1 for none."""
    features: list[int]
    """Columns of the features, in the order to read them."""
    first_line: int
    """Line (counted from 1) on which the first row of data starts."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user on how the file was read, a line each."""
    guessed: bool = False
    """Whether the header was decided here and not by the caller."""

    def rows(self, data: bytes, after: int = 0) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of the rows of data, from row `after` on."""
        return islice(rows_of(data, self.delimiter), after + bool(self.names), None)

    def place(self, line: int, column: int) -> str:
        """Return the place of a cell, for a message."""
        name = self.names[column] if self.names else ""
        return f"line {line}, column {show(name) if name else f'{column} (counted from 0)'}"


def is_number(column: str | int) -> bool:
    """Whether a column is specified by its number."""
    return re.fullmatch(r"\s*-?[0-9]{1,9}\s*", str(column)) is not None


# Bytes and rows ----------------------------------------------------------------------------------


def text_of(data: bytes) -> bytes:
    """Return UTF-8 without byte order mark or blank lines at the end, lines ended by a newline."""
    data = decompressed(data)
    at = data.find(b"\0")
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError as error:
        at = error.start if at < 0 else min(at, error.start)
    if at >= 0:
        raise DataError(
            f"expected CSV text in UTF-8, but byte {at} (0x{data[at]:02x}) is not text: the file "
            f"is probably {_kind(data)}; save it as UTF-8 CSV, .npy or .npz"
        )
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.rstrip(b" \n") if data.endswith((b"\n\n", b" \n", b" ")) else data


def _kind(data: bytes) -> str:
    """Name the format of a file that is not UTF-8."""
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    start = data[: 1 << 10]
    if b"\0" not in data:
        control = start.translate(None, bytes(range(32, 256)) + b"\t\n\f\r")
        return "binary" if control else "text in another encoding (Latin-1? Windows-1252?)"
    if not start[::2].strip(b"\0") or not start[1::2].strip(b"\0"):
        return "UTF-16 text"
    return "binary"


def without_hint(data: bytes) -> tuple[bytes, str | None]:
    """Return text whose first line, if it is Excel's "sep=;", is blank; and that delimiter."""
    found = re.match(rb'(?i)"?sep=([;\t|,])"?\n', data)
    return (data[found.end() - 1 :], found[1].decode()) if found else (data, None)


_limit = threading.Lock()


_lifted: list[int] = []  # the previous limit of csv, once for each thread that has lifted it


@contextmanager
def _no_limit() -> Iterator[None]:
    """Lift the limit of a cell's length, which csv has for the whole process."""
    with _limit:
        _lifted.append(_lifted[0] if _lifted else csv.field_size_limit(_LONGEST))
    try:
        yield
    finally:
        with _limit:
            usual = _lifted.pop()
            if not _lifted and csv.field_size_limit() == _LONGEST:
                csv.field_size_limit(usual)


def _any_length(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield a csv.reader's rows; the limit is lifted only while a row is read."""
    while True:
        with _no_limit():
            row = next(reader, None)
        if row is None:
            return
        yield row


def rows_of(
    data: bytes, delimiter: str, *, any_length: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the line that it starts on.

    In a table of one column a blank line is an empty cell, unless it is the first or the last.
    """
    lines = TextIOWrapper(BytesIO(data), "utf-8", newline="\n")
    spaced = delimiter != " "  # '1, "a"' is two clean cells, unless blanks are the delimiter
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=spaced, strict=True)
    line, done, width = 1, 0, 0
    blank: list[int] = []
    try:
        for row in _any_length(reader) if any_length else reader:
            # [""] is a cell '""', or a line of blanks that is not the last
            if len(row) > 1 or (row and (row[0].strip() or (width == 1 and not row[0]))):
                width = width or len(row)
                for gap in blank:
                    yield gap, [""]
                yield line, row
                done += 1 + len(blank)
                blank.clear()
            elif width == 1:
                blank.append(line)
            line = reader.line_num + 1
        return
    except csv.Error as error:
        what = str(error)
        if "limit" not in what or any_length:
            raise DataError(f"line {line}: {_unreadable(what)}") from error
    yield from islice(rows_of(data, delimiter, any_length=True), done, None)


def _unreadable(what: str) -> str:
    """Translate an error message of csv."""
    if "limit" in what:
        return f"a cell is longer than {csv.field_size_limit():,} characters"
    closed = "expected after" in what
    problem = "continues after its closing quote" if closed else "is not closed"
    return f'a quoted cell {problem} ({what}); a quote inside a quoted cell is written twice: ""'


def _sniff(data: bytes) -> str:
    """Return the delimiter that gives most of the first rows the same width, and most numbers."""
    best, scores = ",", (0, 0, 0)
    for delimiter in DELIMITERS:
        rows: list[list[str]] = []
        with suppress(DataError):  # a quote that only this delimiter misreads
            rows.extend(row for _, row in islice(rows_of(data, delimiter), _SNIFFED))
        if rows and len(rows[0]) > 1:
            alike = sum(len(row) == len(rows[0]) for row in rows)
            cells = [cell for row in rows for cell in row]
            numbers = sum(bool(NUMBER(cell) or bare(cell)) for cell in cells)
            if (alike, numbers, -len(cells)) > scores:
                best, scores = delimiter, (alike, numbers, -len(cells))
    return best


# The header --------------------------------------------------------------------------------------


def _names_in(first: Sequence[str], selection: Selection) -> bool:
    """Whether the first row has names that the user or the model specifies."""
    known = [name.strip() for name in (*(selection.features or ()), *selection.ignore)]
    specified = [selection.target, *selection.leave_out, *selection.named]
    given = [str(name) for name in specified if name is not None]
    # A number that is no column's is a name, as in --target 2000.
    given = [n for n in given if not is_number(n) or not -len(first) <= int(n) < len(first)]
    there = {*first}
    if there & {*given} or any(name in there for name in known if name and not NUMBER(name)):
        return True
    features = {*(selection.features or ())}  # numbers: a row of data may have one by chance
    return len(features & there) > len(features) / 2


def _sample(data: bytes, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the rows at the start, with their lines: fewer of a table with very many columns."""
    rows = rows_of(data, delimiter)
    first = list(islice(rows, 1))
    n = max(_SNIFFED, min(_HEAD, _CELLS // len(first[0][1]))) if first else 0
    return first + list(islice(rows, n))


def _later_rows(data: bytes, delimiter: str, width: int) -> Iterator[list[str]]:
    """Yield some rows from the middle and the end of a long file without quotes."""
    if len(data) < 1 << 20 or b'"' in data:
        return
    for at in (len(data) // 2, len(data) - (1 << 17)):
        start = data.find(b"\n", at) + 1
        end = data.rfind(b"\n", start, start + (1 << 17))
        if 0 < start < end:
            for _, row in islice(rows_of(data[start:end], delimiter), _LATER):
                if len(row) == width:
                    yield row


def _only_first_is_quoted(data: bytes, rows: Sequence[tuple[int, list[str]]], cut: str) -> bool:
    """Whether the numbers of the first row are quoted, and those in the rows below are not."""
    lines = data[: 1 << 17].decode(errors="replace").split("\n")

    def quotes(line: int) -> list[bool]:
        text = re.sub(r'"(?:[^"]|"")*"', '"', lines[line - 1] if line <= len(lines) else "")
        return [cell.strip() == '"' for cell in text.split(cut)]

    (line, first), *others = rows
    numbers = [i for i, cell in enumerate(first) if NUMBER(cell)]
    above = quotes(line)
    if len(above) != len(first) or not numbers or not all(above[i] for i in numbers):
        return False
    rest = [(quotes(line), row) for line, row in others[:_SNIFFED] if line < len(lines)]
    rest = [(marks, row) for marks, row in rest if len(marks) == len(row) == len(first)]
    below = [marks[i] for marks, row in rest for i in numbers if NUMBER(row[i])]
    return bool(below) and not any(below)


def _occurs(data: bytes, start: int, first: Sequence[str], column: int, cut: bytes) -> bool:
    """Whether a cell of the first row occurs again in its column, where no quoted cell is cut."""
    cell, end = first[column].encode(), b"\n" if column == len(first) - 1 else cut
    before = cut if column else b"\n"
    ways = [before + b + q + cell + q + end for b in (b"", b" ") for q in (b"", b'"')]
    # Bytes are found 20 times faster than an expression, and the names of a header hardly ever.
    if not any(data.find(way, start - 1) >= 0 for way in ways):
        return data.endswith(ways[0][:-1]) and end == b"\n"
    skipped = b"^(?:[^%b\n]*%b){%d}" % (re.escape(cut), re.escape(cut), column)
    again = re.compile(b'%b *"?%b"? *(?:%b|$)' % (skipped, re.escape(cell), re.escape(cut)), re.M)
    return again.search(data, start) is not None


def _judge(
    data: bytes, delimiter: str, sample: Sequence[tuple[int, list[str]]], selection: Selection
) -> tuple[bool, bool]:
    """Return whether the first row is a header, and whether that is sure."""
    first = [cell.strip() for cell in sample[0][1]]
    below = [row for _, row in sample[1:] if len(row) == len(first)]
    below += _later_rows(data, delimiter, len(first))
    quoted = b'"' in data[: 1 << 17] and _only_first_is_quoted(data, sample, delimiter)
    start = 0  # of the second row
    for _ in range(sample[1][0] - 1 if len(sample) > 1 else 0):
        start = data.find(b"\n", start) + 1

    columns = [*range(min(len(first), _WIDE))]  # these are enough; the last may be the target
    if len(first) > _WIDE and not NUMBER(first[-1]):
        columns.append(len(first) - 1)

    def recurs(i: int) -> bool:
        return bool(start) and _occurs(data, start, first, columns[i], delimiter.encode())

    cells = [[row[i].strip() for i in columns] for row in below]
    header, sure = has_header([first[i] for i in columns], cells, quoted, recurs)
    if _names_in(first, selection):
        # A row of numbers that are names of features may still be data, if it is not long.
        known = len(first) > 2 and {*(selection.features or ())} <= {*first}
        return True, header or known or not all(map(NUMBER, first))
    return header, sure


# The columns -------------------------------------------------------------------------------------


def _check_width(sample: Sequence[tuple[int, list[str]]], delimiter: str) -> None:
    """Refuse a first row, of words, that is of another width than all rows below it."""
    (line, first), *below = sample
    widths = {len(row) for _, row in below}
    if len(below) < 2 or len(widths) > 1 or len(first) in widths or any(map(NUMBER, first)):
        return
    raise DataError(
        f"line {line} has {len(first)} cells, but those below have {min(widths)}; cells are cut at "
        f"{show(delimiter)}: write a name above each column, and nothing above the names"
    )


def layout_of(data: bytes, selection: Selection, delimiter: str | None = None) -> Layout:
    """Find delimiter, header and columns."""
    if delimiter is None:
        delimiter = _sniff(data)
    elif len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(f"the delimiter has to be one character, not {show(delimiter)}")
    sample = _sample(data, delimiter)
    if not sample:
        raise DataError("the file is empty; expected rows of numbers")
    line, first = sample[0][0], [cell.strip() for cell in sample[0][1]]
    _check_width(sample, delimiter)
    header, sure = bool(selection.header), True
    if selection.header == "auto":
        header, sure = _judge(data, delimiter, sample, selection)
    notes = []
    if not sure:
        shown = ", ".join(map(show, first[:5])) + (", ..." if len(first) > 5 else "")
        what = "the names of the columns" if header else "data"
        todo = "--no-header if it is data" if header else "--header if it names the columns"
        notes.append(f"line {line} ({shown}) is taken for {what}; {todo}")
    if len(sample) <= header:
        raise DataError("there is only a header; expected rows of numbers below it")
    if line > 1 and len(first) == 1 and not header:
        raise DataError("line 1 is empty; fill in the cell, or remove the line")
    names = first if header else None
    target = -1 if selection.target is None else column_of(selection.target, names, len(first))
    features = features_of(selection, names, len(first), target, notes)
    if not features:
        raise DataError(
            f"no feature column is left after the target, ignored ones and those without a name; "
            f"columns: {len(first)}, cut at {show(delimiter)}{_UNCUT if len(first) == 1 else ''}"
        )
    start, guessed = sample[header][0], selection.header == "auto"
    return Layout(delimiter, len(first), names, target, features, start, notes, guessed)


def features_of(
    selection: Selection, names: list[str] | None, width: int, target: int, notes: list[str]
) -> list[int]:
    """Return the columns of the features; add a note on columns without a name.

    `notes` has one already if the header is in doubt: errors quote it.
    """
    dropped = {i for i, name in enumerate(names or []) if name in selection.ignore}
    for name in selection.leave_out:
        same = [i for i, other in enumerate(names or []) if other == name]
        left_out = same or [column_of(name, names, width)]
        if target in left_out:
            raise DataError(f"the target {show(name)} cannot be left out as well")
        dropped.update(left_out)
    if names and selection.features is not None:
        hint = f" ({notes[0]})" if notes else ""
        return _by_name(selection.features, names, dropped | {target}, hint)
    nameless = [i for i, name in enumerate(names or []) if _NAMELESS(name)]
    nameless = [i for i in nameless if i not in dropped and i != target]
    if nameless:
        which = ", ".join(map(str, nameless[:5])) + (", ..." if len(nameless) > 5 else "")
        notes.append(
            f"columns without a name are left out: {which} (counted from 0); write names above "
            "them to use them"
        )
    dropped.update(nameless, [target])
    return [i for i in range(width) if i not in dropped]


def column_of(column: str | int, names: list[str] | None, width: int) -> int:
    """Return the number of a column that is specified by name or number."""
    if names and column in names:
        if (count := names.count(str(column))) > 1:
            raise DataError(
                f"{count} columns are called {show(column)}; rename all but one, or give the "
                "target's number, counted from 0"
            )
        return names.index(str(column))
    if is_number(column):
        if -width <= int(column) < width:
            return int(column) % width
        raise DataError(f"there is no column {column}: the columns are 0 to {width - 1}")
    known = listed_near(column, names) if names else f"no names; give a number, 0 to {width - 1}"
    known += _UNCUT if width == 1 else ""
    raise DataError(f"there is no column {show(column)}; there are {known}")


def _by_name(
    features: Sequence[str], names: Sequence[str], dropped: set[int], hint: str
) -> list[int]:
    """Return the columns of a model's features; the table may have others, in any order."""
    features = [name.strip() for name in features]
    twice = [name for name, count in Counter(features).items() if count > 1]
    if twice:
        raise DataError(
            f"the model has several features called {show(twice[0])}, which no header can tell "
            "apart; --no-header and a file without one, its columns in the model's order"
        )
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    missing = [name for name in features if name not in places]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"there is no column {show(missing[0])}{more}, which the model was trained with; there "
            f"are {listed_near(missing[0], names)}{hint}"
        )
    found = []
    for name in features:
        free = [i for i in places[name] if i not in dropped]
        if not free:
            raise DataError(
                f"the model needs the column {show(name)} as a feature: it can be neither the "
                "target nor left out"
            )
        if len(free) > 1:
            raise DataError(
                f"{len(free)} columns are called {show(name)}, of which the model was trained with "
                f"one; rename the others, or leave them out by number, as with --ignore {free[-1]}"
            )
        found += free
    return found
