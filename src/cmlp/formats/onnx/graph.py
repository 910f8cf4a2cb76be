"""A graph of ONNX under construction, and what may vary of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.formats.chain import ConversionError
from cmlp.formats.onnx import messages as om

OPSETS = range(13, 25)
"""What the tests cover."""

IR = {**dict.fromkeys((13, 14), 7), **dict.fromkeys((15, 16, 17, 18), 8), 19: 9, 20: 9, 21: 10,
      22: 10, 23: 11, 24: 12}  # fmt: skip
"""The least version of the format that has each version of the operators."""

NATIVE_LAYER_NORM, AXES_INPUT = 17, 18
"""Opsets from which LayerNormalization exists, and ReduceMean takes its axes as an input."""


@dataclass(frozen=True)
class Options:
    """What :func:`write` may vary.

    Attributes
    ----------
    dtype : str
        Of the arithmetic, 'float32' or 'float64'.
    input_dtype : str
        Of X: one of those, 'uint8' or 'int64'. Of columns that are numbers: one of those.
    names : tuple of str or None
        Of the outputs, in their order; None for the defaults.
    labels, raw, zipmap : bool
    batch : int or None
        A fixed number of rows.
    version : str
        Of cmlp, for the file.
    """

    dtype: str = "float32"
    input_dtype: str = "float32"
    input_name: str = "X"
    names: tuple[str, ...] | None = None
    labels: bool = True
    raw: bool = False
    zipmap: bool = False
    opset: int = 13
    batch: int | None = None
    version: str = ""


class Graph:
    """A graph under construction."""

    def __init__(self, options: Options, reserved: Sequence[str]) -> None:
        self.options = options
        self.dtype: np.dtype[Any] = np.dtype(options.dtype)
        self.nodes: list[bytes] = []
        self.tensors: list[bytes] = []
        self.inputs: list[bytes] = []
        self.outputs: list[bytes] = []
        self.ml = 0  # the version of ai.onnx.ml that it needs
        self._scalars: dict[tuple[str, str], str] = {}
        self._used = set(reserved)
        self._counts: dict[str, int] = {}

    def name(self, base: str) -> str:
        """Return a name that nothing has."""
        while True:
            self._counts[base] = number = self._counts.get(base, 0) + 1
            name = base if number == 1 else f"{base}_{number}"
            if name not in self._used:
                self._used.add(name)
                return name

    @property
    def rows(self) -> int | str:
        """The number of rows, or its name."""
        return "N" if self.options.batch is None else self.options.batch

    def input(self, name: str, code: int, width: int) -> str:
        """Add an input of the graph, (rows, width), and return its name."""
        self.inputs.append(om.tensor_value(name, code, (self.rows, width)))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return its output's name."""
        out = self.name(kind.lower())
        self.nodes.append(om.node(kind, inputs, [out], attributes))
        return out

    def result(self, kind: str, name: str, *inputs: str, domain: str = "", **more: Any) -> None:
        """Add a node whose output has this name."""
        self.nodes.append(om.node(kind, inputs, [name], more, domain))

    def array(self, base: str, values: Array) -> str:
        """Return the name of a constant array, of the graph's dtype if it holds floats."""
        if values.dtype.kind == "f":
            with np.errstate(all="ignore"):
                narrow = values.astype(self.dtype)
            if np.isinf(narrow).sum() > np.isinf(values).sum():
                raise ConversionError(
                    f"{base} has numbers that are too large for {self.dtype}: export with "
                    "dtype='float64'"
                )
            values = narrow
        return self.exactly(base, values)

    def exactly(self, base: str, values: Array) -> str:
        """Return the name of a constant array of its own dtype."""
        name = self.name(base)
        self.tensors.append(om.tensor(name, values))
        return name

    def scalar(self, value: float) -> str:
        """Return the name of a constant number; equal ones are one."""
        key = float(value).hex(), "f"
        if key not in self._scalars:
            self._scalars[key] = self.array("number", np.array(value, np.float64))
        return self._scalars[key]

    def double(self, value: float) -> str:
        """Return the name of a constant number of 64 bits; equal ones are one."""
        key = float(value).hex(), "d"
        if key not in self._scalars:
            self._scalars[key] = self.exactly("number", np.array(value, np.float64))
        return self._scalars[key]

    def whole(self, *values: int, scalar: bool = False) -> str:
        """Return the name of a constant vector of whole numbers, or of one number."""
        key = repr(values), "s" if scalar else "i"
        if key not in self._scalars:
            array = np.array(values[0] if scalar else values, np.int64)
            self._scalars[key] = self.exactly("places", array)
        return self._scalars[key]

    def mean(self, z: str) -> str:
        """Return each row's mean, a column."""
        if self.options.opset < AXES_INPUT:
            return self.op("ReduceMean", z, axes=[-1], keepdims=1)
        return self.op("ReduceMean", z, self.whole(-1), keepdims=1)
