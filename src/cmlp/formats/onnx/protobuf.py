"""Protocol buffers on the wire: fields of a message out, and in from files of strangers.

A message is a sequence of fields, each a number, a wire type and a value:

    0  varint      seven bits a byte, the lowest first; negative numbers are 64-bit, ten bytes long
    1  64 bits
    2  length and as many bytes: text, raw data, a message, packed numbers
    5  32 bits

A reader allocates nothing by what a file claims: lengths are compared with what is left first, and
values of type 2 are views of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5

SIZES = {WIDE: 8, NARROW: 4}
"""Bytes of a value."""

COUNTED = frozenset((VARINT, BYTES))
"""Types whose value begins with a number: itself, or that of its bytes."""

Value = int | memoryview


class WireError(ValueError):
    """These bytes are no protocol buffer."""


BYTE = [bytes((number,)) for number in range(128)]
"""Numbers that are one byte."""


# Writing -----------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Return a whole number of -2^63 to 2^64 - 1."""
    if 0 <= number < 128:
        return BYTE[number]
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer(field: int, number: int) -> bytes:
    """Return a field that holds a whole number."""
    return varint(field << 3 | VARINT) + varint(number)


def float32(field: int, number: float) -> bytes:
    """Return a field that holds a number of 32 bits."""
    return varint(field << 3 | NARROW) + struct.pack("<f", number)


def chunk(field: int, *parts: bytes | memoryview) -> bytes:
    """Return a field that holds bytes, a message, or what these parts make together."""
    length = sum(len(part) for part in parts)
    return b"".join((varint(field << 3 | BYTES), varint(length), *parts))


def text(field: int, value: str) -> bytes:
    """Return a field that holds text.

    Raises
    ------
    UnicodeEncodeError
        If it has lone surrogates.
    """
    return chunk(field, value.encode())


# Reading -----------------------------------------------------------------------------------------


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place after it."""
    number = shift = 0
    while True:
        if at >= len(data):
            raise WireError("it is cut off within a number")
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & (2**64 - 1), at
        shift += 7
        if shift > 63:
            raise WireError("it has a number of more than ten bytes")


def fields(data: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yield the fields of a message: number, wire type, and the value.

    Parameters
    ----------
    data : memoryview of bytes

    Yields
    ------
    tuple of (int, int, int or memoryview)
        A number for type 0, without a sign; for the others a view of its bytes.

    Raises
    ------
    WireError
        If a field is cut off, or of a type that is none of the four.
    """
    at, end = 0, len(data)
    while at < end:
        key = data[at]  # numbers below 128, nearly all, are one byte
        at += 1
        if key > 127:
            key, at = _varint(data, at - 1)
        field, wire = key >> 3, key & 7
        if not 0 < field < 2**29:
            raise WireError(f"it has a field with the number {field}")
        if wire in SIZES:
            length = SIZES[wire]
        elif wire in COUNTED:
            length = data[at] if at < end else 128
            at += 1
            if length > 127:
                length, at = _varint(data, at - 1)
            if wire == VARINT:
                yield field, wire, length
                continue
        else:
            raise WireError(f"it has a field of the wire type {wire}")
        if length > end - at:
            raise WireError(f"a field claims {length} bytes, {end - at} are left")
        yield field, wire, data[at : at + length]
        at += length


def signed(number: int) -> int:
    """Return a 64-bit number with its sign."""
    return number - 2**64 if number >= 2**63 else number


def as_int(value: Value) -> int:
    """Return a field's whole number.

    Raises
    ------
    WireError
        If the field holds bytes.
    """
    if not isinstance(value, int):
        raise WireError("it has bytes where a whole number belongs")
    return signed(value)


def as_bytes(value: Value) -> memoryview:
    """Return a field's bytes.

    Raises
    ------
    WireError
        If the field holds a number.
    """
    if isinstance(value, int):
        raise WireError("it has a number where bytes belong")
    return value


def as_text(value: Value) -> str:
    """Return a field's text.

    Raises
    ------
    WireError
        If the field holds a number, or bytes that are not UTF-8.
    """
    try:
        return str(as_bytes(value), "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"it has text that is not UTF-8: {error.reason}") from error


def as_float32(wire: int, value: Value) -> float:
    """Return a field's number of 32 bits.

    Raises
    ------
    WireError
        If the field is of another type.
    """
    if wire != NARROW:
        raise WireError("it has something else where a number of 32 bits belongs")
    return float(struct.unpack("<f", as_bytes(value))[0])


def integers(value: Value) -> Iterable[int]:
    """Return the whole numbers of a repeated field, which may be packed: one, or many.

    Raises
    ------
    WireError
        While they are iterated over, if the last is cut off.
    """
    if isinstance(value, int):
        return (signed(value),)
    return _packed(value)


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield signed(number)
