"""Products of rounded operands: what they need of the processor, and the columns that they harm."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from cmlp.core import dispatch
from cmlp.core.layout import PRECISION, Array
from cmlp.core.seam import SparseRows
from cmlp.model.state import State

Some = TypeVar("Some", bound=State)

MOST_LOST = 2.0**-6
"""Deviation of a column's rounding errors that is refused, as a part of the column's deviation.
Standardised columns lose 0.002, one whose mean is 8 deviations from zero 0.018."""

SAMPLE = 1024
"""Rows that are examined."""


def check_runs(precision: str | None) -> None:
    """Check that the core in use has the instructions that a precision needs.

    Raises
    ------
    ValueError
        If it has not.
    """
    if precision == "bfloat16" and not dispatch.core.bfloat16:
        raise ValueError(
            "precision='bfloat16' needs a processor with AVX512_BF16 and the core 'avx512', or an "
            "ARM with FEAT_BF16 and Linux; the core in use is "
            f"{dispatch.core.name!r}. precision='bfloat16-emulated' rounds the same numbers in "
            "software, more slowly than float32; None is float32"
        )


def unrounded(net: Some) -> Some:
    """Return the network; of one with a precision, a copy without, which computes in float32."""
    if net.precision is None:
        return net
    other = net.astype(net.dtype)
    other.replace_architecture(replace(other.architecture, precision=None))
    return other


def check_columns(net: State, X: Array | SparseRows) -> None:
    """Check that rounding leaves the columns of checked rows their information.

    A bfloat16 has 8 bits: a latitude of 37.9 becomes 38, the year 2013 becomes 2016.

    Raises
    ------
    ValueError
        If it does not; the message names the column.
    """
    if not net.plan[0, PRECISION]:
        return
    from cmlp.core.reference.bfloat16 import rounded
    from cmlp.core.reference.front import noisy_columns
    from cmlp.core.reference.gather import gather

    some = np.unique(np.linspace(0, len(X) - 1, SAMPLE).astype(np.int64))
    with np.errstate(all="ignore"):
        x = gather(X, some, net.input_scale, net.dtype)
        columns = np.flatnonzero(noisy_columns(net.plan) & ~_surely_kept(x))
        x = x[:, columns]
        errors = (rounded(x) - x).std(axis=0, dtype=np.float64)
        lost = errors > MOST_LOST * x.std(axis=0, dtype=np.float64)
    if lost.any():
        column = int(columns[lost.argmax()])
        name = repr(net.feature_names[column]) if net.feature_names else str(column)
        example = x[0, lost.argmax()]
        raise ValueError(
            f"precision={net.precision!r} rounds X to 8 bits, in which column {name} loses what "
            f"its numbers differ by: {example:g} becomes {rounded(example[None])[0]:g}. "
            "Standardise this column (subtract its mean, divide by its deviation), or train with "
            "precision=None"
        )


def _surely_kept(x: Array) -> Array:
    """Return which columns lose less than that, most of them: a fit of few steps waits for it.

    An error is at most 2^-8 of its number, unless that is denormal. Where a column's mean is below
    3.6 deviations, errors have less than 2^-8 sqrt(1 + 3.6^2) < 2^-6 of the deviation.
    """
    means = np.ones(len(x), x.dtype) @ x / x.dtype.type(len(x))
    squares = np.einsum("ij,ij->j", x, x) / x.dtype.type(len(x))
    sure: Array = (means * means < 0.93 * squares) & (squares > 1e-30) & (squares < np.inf)
    return sure


def check_first_columns(net: State, X: Array | SparseRows) -> None:
    """Do so before the first step only: of many calls with a few rows each, that is the first."""
    if net.steps == 0:
        check_columns(net, X)
