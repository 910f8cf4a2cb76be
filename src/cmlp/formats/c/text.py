"""Text of C: numbers, strings, names and comments, from words that a stranger may have chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from cmlp.core.layout import Array
from cmlp.formats.chain import ConversionError

WIDTH = 116
"""Characters of the longest line of numbers."""

LONGEST_NAME = 48
LONGEST_STRING = 4095  # what every C99 compiler must take
LARGEST = 3.40282347e38  # of float32

WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
char8_t class co_await co_return co_yield compl complex concept const const_cast consteval
constexpr constinit continue decltype default defined delete do double dynamic_cast else enum
explicit export extern false float for friend goto if imaginary inline int long main mutable
namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast
struct switch template this thread_local throw true try typedef typeid typename typeof union
unsigned using virtual void volatile wchar_t while xor xor_eq
"""
KEYWORDS = frozenset(WORDS.split())


def check_name(name: str) -> str:
    """Return the name, if every identifier of a file may start with it.

    Raises
    ------
    ConversionError
        If it is no plain identifier, or a keyword of C or C++.
    """
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name, re.ASCII)
    if not plain or len(name) > LONGEST_NAME or name in KEYWORDS or "__" in name:
        raise ConversionError(
            f"name={name[:80]!r} cannot start C identifiers: letters, digits and single '_', first "
            f"a letter, no keyword of C or C++, at most {LONGEST_NAME} characters; set name=..."
        )
    return name


def number(value: float) -> str:
    """Return a float32 as a literal; nine digits are enough to read the same number."""
    text = f"{float(value):.9g}"
    if not any(mark in text for mark in ".en"):
        text += ".0"
    return text + "f"


def lines_of(items: Iterable[str], indent: str = "    ") -> str:
    """Return items between commas, as many on a line as fit."""
    lines, line = [], indent
    for item in items:
        if len(line) + len(item) + 1 > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += item + ", "
    lines.append(line.rstrip())
    return "\n".join(lines).rstrip(",")


def string(text: str) -> str:
    r"""Return a string literal: UTF-8, everything but harmless ASCII as octal escapes.

    An octal escape has three digits, so that no digit after it belongs to it; `?` is escaped since
    two of them may start a trigraph.

    Raises
    ------
    ConversionError
        If the text contains NUL, where a string of C ends, or is too long.
    """
    data = text.encode("utf-8", "surrogatepass")
    if 0 in data:
        raise ConversionError(f"the label {text[:40]!r} contains NUL, where a string of C ends")
    if len(data) > LONGEST_STRING:
        raise ConversionError(
            f"the label {text[:40]!r}... has {len(data)} bytes; a string of C has at most "
            f"{LONGEST_STRING}"
        )
    harmless = set(range(0x20, 0x7F)) - set(b'"\\?%')
    return '"' + "".join(chr(b) if b in harmless else f"\\{b:03o}" for b in data) + '"'


def comment(text: object, longest: int = 60) -> str:
    """Return text that can end neither a comment nor its line: printable ASCII, `_` for others."""
    plain = re.sub(r"[^ -~]|\\|\?(?=\?)", "_", str(text)[: longest + 1])
    if len(plain) > longest:
        plain = plain[: longest - 3] + "..."
    return re.sub(r"/(?=\*)", "/ ", re.sub(r"\*(?=/)", "* ", plain))


def names_in_comment(first: str, names: Iterable[object], most: int = 100) -> list[str]:
    """Return lines with one quoted name each, the first `most` of them."""
    names = list(names)
    lines = [f"  {first}[{n}] '{comment(name)}'" for n, name in enumerate(names[:most])]
    return lines + ([f"  ... and {len(names) - most} more"] if len(names) > most else [])


def whole_numbers(classes: Array) -> list[int] | None:
    """Return labels as whole numbers, if all are and 32 bits hold them, else None."""
    values = classes.tolist()
    if not all(isinstance(value, int) for value in values):  # booleans are among them
        return None
    numbers = [int(value) for value in values]
    return numbers if all(-(2**31) <= value < 2**31 for value in numbers) else None


def long_literal(value: int) -> str:
    """Return a whole number of 32 bits, the smallest included, which has no literal of its own."""
    return f"{value}L" if value > -(2**31) else f"(-{2**31 - 1}L - 1)"


def words(classes: Array) -> list[str]:
    """Return labels as text: bytes as latin-1, as in model files."""
    return [
        value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for value in classes.tolist()
    ]


def float32(values: Array, what: str) -> Array:
    """Return numbers as a flat float32 array; what float32 has only as a denormal is 0.

    Raises
    ------
    ConversionError
        If one is not finite in float32.
    """
    with np.errstate(over="ignore", under="ignore"):
        narrow: Array = np.asarray(values).astype(np.float32).ravel()
    if not np.isfinite(narrow).all():
        raise ConversionError(f"{what} has numbers that are not finite in float32")
    return np.where(np.abs(narrow) < np.finfo(np.float32).tiny, np.float32(0), narrow)
