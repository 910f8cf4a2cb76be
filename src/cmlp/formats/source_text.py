"""What the files of source code have in common: arrays in base64, labels as plain values."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.formats.chain import Activation, Chain, ConversionError
from cmlp.formats.raw_rows import CategorySpec, DateSpec, RawRows

LINE = 72
"""Bytes of a line of base64: 96 characters."""

Task = Literal["labels", "one", "both", "several", "numbers"]


class Arrays:
    """Arrays, one after the other, little-endian and row-major, in the order that they are read."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, array: Array | NDArray[Any]) -> tuple[str, tuple[int, ...]]:
        """Append an array, and return its code, 'f4' or 'f8', and its shape."""
        code = "f4" if array.dtype == np.float32 else "f8"
        self._parts.append(np.ascontiguousarray(array, "<" + code).tobytes())
        return code, tuple(array.shape)

    def lines(self) -> list[str]:
        """Return all of them as lines of base64."""
        data = b"".join(self._parts)
        parts = [data[at : at + LINE] for at in range(0, len(data), LINE)]
        return [binascii.b2a_base64(part, newline=False).decode("ascii") for part in parts]


def labels_of(chain: Chain) -> list[Any] | None:
    """Return a classifier's labels as Python's own objects, or None.

    Raises
    ------
    ConversionError
        For labels that are neither text, bytes, numbers nor truth values.
    """
    if chain.classes is None:
        return list(range(chain.n_out)) if chain.multilabel else None
    classes = np.asarray(chain.classes)
    if classes.dtype.kind not in "iubfUS" or classes.dtype.char == "g":
        raise ConversionError(
            f"labels of dtype {classes.dtype} cannot be written as source code; text, whole "
            "numbers, floats and truth values can"
        )
    labels: list[Any] = classes.tolist()
    return labels


def task_of(chain: Chain) -> Task:
    """Return how outputs become answers: a label each, the one or the likeliest, or numbers."""
    if chain.multilabel:
        return "labels"
    if chain.classes is None:
        return "numbers"
    if len(chain.classes) == 1:
        return "one"
    return "both" if chain.n_out == 1 else "several"


def last_activation(chain: Chain) -> str:
    """Return the name of the outputs' activation."""
    return str(getattr(chain.members[0].steps[-1], "name", "identity"))


def kind_of_outputs(chain: Chain, *, wide: bool) -> str:
    """Return what a member's outputs become before the mean: see the texts of the answers."""
    if not wide:
        return "plain"
    if chain.members[0].unit is not None:
        return "unit"
    return "labels" if chain.multilabel else "softmax"


def probabilities_of(chain: Chain, *, wide: bool) -> str | None:
    """Return how outputs become probabilities; None of numbers."""
    if task_of(chain) == "numbers":
        return None
    if wide:
        return "wide"
    if chain.n_out == 1 and not chain.multilabel:
        return "both"
    return "softmax" if last_activation(chain) == "softmax" else "each"


def activations_of(chain: Chain) -> list[str]:
    """Return the activations of all members, each once, in the order of their first use."""
    names = (getattr(step, "name", None) for member in chain.members for step in member.steps)
    return [name for name in dict.fromkeys(names) if name is not None]


def identifier(activation: str) -> str:
    """Return a name for an activation in source text: 'leaky_relu:0.3' is leaky_relu_0p3."""
    return activation.replace(":", "_").replace(".", "p").replace("-", "m")


def with_parameter(text: str, parameter: str) -> str:
    """Return a formula with its parameter in place of ``@``; a factor of 1 is left out."""
    one = float(parameter.rstrip("f")) == 1
    return text.replace("@ * ", "" if one else f"{parameter} * ")


def function_of(table: Mapping[str, str], activation: str, language: str) -> str:
    """Return the text of an activation's function, of a language's table.

    Raises
    ------
    ConversionError
        If the table has none.
    """
    step = Activation(activation)
    if step.kind not in table:
        raise ConversionError(
            f"the activation {activation!r} cannot be written as {language}; there are "
            + ", ".join(table)
        )
    text = with_parameter(table[step.kind], repr(step.parameter))
    return text.replace(f"{step.kind}(z)", f"{identifier(activation)}(z)", 1)


def has_front(chain: Chain) -> bool:
    """Whether X's columns are more than the first layer's inputs, in any member."""
    return any(member.front for member in chain.members)


def row_kinds(raw: RawRows) -> set[str]:
    """Return which kinds of columns there are; a date has a number in it."""
    found = {"row"}
    for column in raw.columns:
        if isinstance(column.spec, CategorySpec):
            found.add("category")
        elif isinstance(column.spec, DateSpec):
            found |= {"date", "number"}
        else:
            found |= {"number", "duration" if column.spec.duration else "plain number"}
    return found
