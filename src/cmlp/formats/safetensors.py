"""Files in the safetensors layout: named arrays and a little text, and no code.

They are written and read with NumPy and the standard library alone; other programs that know the
layout (https://github.com/huggingface/safetensors) read them, too:

    8 bytes    length of the header, little-endian
    header     JSON: {"__metadata__": {str: str},
                      name: {"dtype": "F32", "shape": [64, 32], "data_offsets": [begin, end]}, ...}
    data       the arrays, little-endian and row-major, one after the other without holes

`write` pads the header with spaces, so that the data starts at a multiple of 64 bytes, and puts
the widest items first, so that every array is aligned to its items. `read` trusts no file: until
all is checked, it needs as much memory as the header is long, not as the file claims.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from io import UnsupportedOperation
from reprlib import repr as short
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cmlp.core.public import set_module
from cmlp.formats.whole_file import write_files

DTYPES = {
    "F64": "f8", "I64": "i8", "U64": "u8", "F32": "f4", "I32": "i4", "U32": "u4",
    "F16": "f2", "I16": "i2", "U16": "u2", "I8": "i1", "U8": "u1", "BOOL": "b1",
}  # fmt: skip
"""Dtypes by their names in the layout: NumPy's kind and number of bytes."""


NAMES = {numpy_name: name for name, numpy_name in DTYPES.items()}


METADATA = "__metadata__"


ALIGNMENT = 64


MAX_HEADER = 16 * 2**20
"""Bytes of JSON in the largest header that is written or read."""


MAX_DIMS = 32


MAX_DIGITS = 19  # of 2^63 - 1


Path = str | os.PathLike[str]


File = Path | BinaryIO
"""A path, or a seekable file that is open in binary mode, such as a BytesIO."""


PATHS = (str, bytes, os.PathLike)


@set_module("cmlp")
class ModelFileError(ValueError):
    """The content of a model file is not what it should be; the message tells what to do."""


class ArrayInfo(NamedTuple):
    """One array, as a header describes it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


Validate = Callable[[dict[str, str], dict[str, ArrayInfo]], object]


def write(file: File, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a model file: the whole of it, or nothing.

    It is written under another name in the same directory, and replaces an older file when it is
    complete and on the disk. If anything fails, the older file stays as it was. Into a file that is
    already open the bytes are written directly.

    Parameters
    ----------
    file : str, path-like or binary file
        Symbolic links are followed; a new file gets the permissions of the one that it replaces.
    arrays : mapping of str to ndarray
        Of any shape, layout and byte order; booleans, integers, or floats of 2 to 8 bytes.
    metadata : mapping of str to str

    Raises
    ------
    TypeError, ValueError
        If a name, an array or the metadata cannot be stored.
    OSError
        If the file cannot be written.
    """
    layout = [(name, np.asarray(array)) for name, array in arrays.items()]
    layout.sort(key=lambda item: -item[1].itemsize)
    header = _header(layout, metadata)
    path = name_of(file)
    if not isinstance(file, PATHS):
        _write(file, header, layout)
        return
    write_files({path: lambda opened: _write(opened, header, layout)})


def read(
    file: File, validate: Validate | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a model file.

    Parameters
    ----------
    file : str, path-like or binary file
    validate : callable, optional
        Called with the metadata and each array's `ArrayInfo` when the header is checked and before
        the arrays take any memory; it raises `ModelFileError` if they do not fit.

    Returns
    -------
    arrays : dict of str to ndarray
        In the order of the file; each has its own memory, writable and in native byte order.
    metadata : dict of str to str

    Raises
    ------
    ModelFileError
        If the file is not whole and sound.
    OSError
        If it cannot be opened or read: `FileNotFoundError`, `IsADirectoryError`, ...
    """
    name = name_of(file)
    with _opened(file) as opened:
        metadata, infos = _parse(opened, name)
        if validate is not None:
            validate(metadata, infos)
        return {key: _read_array(opened, name, key, info) for key, info in infos.items()}, metadata


def metadata_of(file: File) -> dict[str, str]:
    """Return a file's metadata; an open file stays at its position.

    Raises
    ------
    ModelFileError, OSError
        As :func:`read` does.
    """
    name = name_of(file)
    with _opened(file) as opened:
        here = opened.tell()
        metadata, _ = _parse(opened, name)
        opened.seek(here)
        return metadata


def name_of(file: File) -> str:
    """Return the name of a file in messages.

    Raises
    ------
    TypeError
        If it is neither a path nor a file.
    """
    if isinstance(file, PATHS):
        return os.fsdecode(file)
    if not hasattr(file, "seek"):
        raise TypeError(f"a path or a binary file is expected, not {short(file)}")
    return str(getattr(file, "name", "the file"))


def parse_json(text: str, *, max_digits: int, constants: bool, surrogates: bool) -> Any:
    """Parse JSON more strictly than ``json`` does: keys are unique, integers have limits.

    Parameters
    ----------
    max_digits : int
        Digits of the longest integer, its sign included.
    constants : bool
        Whether NaN and Infinity may stand for numbers.
    surrogates : bool
        Whether text may hold lone surrogates, which cannot be encoded.

    Raises
    ------
    ValueError, RecursionError
    """
    surrogates = surrogates or "\\ud" not in text.lower()  # there are none to search for
    return _decoder(max_digits, constants, surrogates).decode(text)


@functools.cache
def _decoder(max_digits: int, constants: bool, surrogates: bool) -> json.JSONDecoder:
    def integer(digits: str) -> int:
        if len(digits) > max_digits:
            raise ValueError(f"it has a number of {len(digits)} digits")
        return int(digits)

    return json.JSONDecoder(
        object_pairs_hook=_unique if surrogates else _unicode,
        parse_int=integer,
        parse_constant=None if constants else _no_constant,
    )


def _opened(file: File) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open a path; leave an open file open."""
    return open(file, "rb") if isinstance(file, PATHS) else contextlib.nullcontext(file)


# Writing -----------------------------------------------------------------------------------------


def _write(file: BinaryIO, header: bytes, layout: list[tuple[str, np.ndarray]]) -> None:
    """Write the header and the arrays, one after the other."""
    file.write(header)
    for _, array in layout:
        little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        raw = little.reshape(-1).view(np.uint8)
        # A view can make NumPy booleans of any byte; the file must hold 0 and 1.
        file.write((raw != 0 if array.dtype == np.bool_ else raw).data)


def _header(layout: list[tuple[str, np.ndarray]], metadata: Mapping[str, str]) -> bytes:
    """Return all bytes before the data."""
    for text in (*metadata, *metadata.values(), *(name for name, _ in layout)):
        if not isinstance(text, str):
            raise TypeError(f"Names and metadata must be str, got {short(text)}.")
    header: dict[str, Any] = {METADATA: dict(metadata)}
    begin = 0
    for name, array in layout:
        dtype = NAMES.get(array.dtype.str[1:])
        if name in header:
            raise ValueError(f"An array cannot be called {name!r}; give it another name.")
        if dtype is None or array.ndim > MAX_DIMS:
            raise ValueError(
                f"Array {name!r} has dtype {array.dtype} and {array.ndim} dimensions, but a model "
                f"file holds {', '.join(DTYPES)} of up to {MAX_DIMS} dimensions."
            )
        end = begin + array.nbytes
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (begin, end)}
        begin = end
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT)
    if len(raw) > MAX_HEADER:
        raise ValueError(
            f"Names and metadata take {len(raw):,} bytes, {MAX_HEADER:,} is the limit."
        )
    return len(raw).to_bytes(8, "little") + raw


# Reading -----------------------------------------------------------------------------------------


def _damaged(path: str, expected: str, came: object) -> ModelFileError:
    return ModelFileError(
        f"{path} is damaged or not a model file: expected {expected}, got {short(came)}; "
        "copy or save it again"
    )


def _cut_off(path: str, promise: str, there: int) -> ModelFileError:
    return ModelFileError(
        f"{path} is cut off: {promise}, {there:,} are there; copy or save it again"
    )


def _size(file: BinaryIO) -> int:
    """Return the bytes from here to the end."""
    try:
        return os.fstat(file.fileno()).st_size - file.tell()
    except UnsupportedOperation:  # it is in memory
        here = file.tell()
        return file.seek(0, os.SEEK_END) - file.seek(here)


def _parse(file: BinaryIO, path: str) -> tuple[dict[str, str], dict[str, ArrayInfo]]:
    """Check the header, and leave `file` at the start of the data."""
    size = _size(file)
    length = int.from_bytes(file.read(8), "little")
    if size < 8:
        raise _cut_off(path, "a model file has at least 8 bytes", size)
    if length > MAX_HEADER:
        raise _damaged(path, f"a header of at most {MAX_HEADER} bytes", length)
    text = file.read(min(length, size - 8))
    if len(text) < length:
        raise _cut_off(path, f"it promises a header of {length:,} bytes", len(text))
    try:
        if not text.startswith(b"{"):
            raise ValueError("it does not start with '{'")
        header = parse_json(text.decode(), max_digits=MAX_DIGITS, constants=False, surrogates=False)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"a header of valid JSON ({error})", text[:20]) from error

    metadata = header.pop(METADATA, {})
    if not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        raise _damaged(path, "metadata that is all text", metadata)
    spans = {name: _check_entry(path, name, entry) for name, entry in header.items()}
    order = sorted(spans, key=lambda name: spans[name][:2])
    last, there = 0, size - 8 - length
    for name in order:
        begin, end, _ = spans[name]
        if begin != last:
            raise _damaged(path, f"array {short(name)} to begin at byte {last} of the data", begin)
        last = end
    if last > there:
        raise _cut_off(path, f"its header promises {last:,} bytes of data", there)
    if last < there:
        raise _damaged(path, f"{last} bytes of data", there)
    return metadata, {name: spans[name][2] for name in order}


def _check_entry(path: str, name: str, entry: object) -> tuple[int, int, ArrayInfo]:
    """Return begin, end and description of one array."""

    def damaged(expected: str, came: object) -> ModelFileError:
        return _damaged(path, f"array {short(name)} with {expected}", came)

    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise damaged("exactly dtype, shape and data_offsets", entry)
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ModelFileError(
            f"{path} cannot be read: expected array {short(name)} with a dtype among "
            f"{', '.join(DTYPES)}, got {short(code)}; convert it with the program that wrote it"
        )
    dtype = np.dtype(DTYPES[code])
    # NumPy limits the product of the sizes that are not 0, even if one is.
    if (
        not (_naturals(shape) and len(shape) <= MAX_DIMS)
        or math.prod(filter(None, shape)) * dtype.itemsize > sys.maxsize
    ):
        raise damaged(f"a shape of up to {MAX_DIMS} sizes that memory holds", shape)
    if not (_naturals(offsets) and len(offsets) == 2):
        raise damaged("data_offsets of two whole numbers", offsets)
    begin, end = offsets
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes != end - begin:
        raise damaged(f"{nbytes} bytes between its data_offsets", offsets)
    return begin, end, ArrayInfo(dtype, tuple(shape))


def _naturals(value: object) -> bool:
    return isinstance(value, list) and {*map(type, value)} <= {int} and min(value, default=0) >= 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object a dict, unless a key occurs twice."""
    result = dict(pairs)
    if len(result) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {short(twice)} comes twice")
    return result


def _unicode(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Do the same as :func:`_unique`, and refuse text that is not Unicode."""
    "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()
    return _unique(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"it has the number {name}")


def _read_array(file: BinaryIO, path: str, name: str, info: ArrayInfo) -> np.ndarray:
    """Read the array that begins at the file's position into memory of its own."""
    try:
        array = np.empty(info.shape, info.dtype.newbyteorder("<"))
    except MemoryError as error:  # the file is as large as its header claims
        raise ModelFileError(f"{path} cannot be read: array {short(name)}: {error}") from error
    raw = array.reshape(-1).view(np.uint8)
    count = file.readinto(raw.data)  # type: ignore[attr-defined]
    if count < raw.size:
        raise _cut_off(path, f"array {short(name)} has {raw.size:,} bytes", count)
    if info.dtype == np.bool_ and raw.max(initial=np.uint8(0)) > 1:
        raise _damaged(path, f"array {short(name)} with bytes of 0 and 1", int(raw.max()))
    return array.astype(info.dtype, copy=False)
