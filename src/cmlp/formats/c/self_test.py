"""Rows with known outputs, as a `main()` in the C file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.formats.c.text import lines_of, number
from cmlp.formats.chain import (
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
    Table,
    activate,
    expand,
    run,
)

ROWS = 4
DRAWN = 64
LARGEST_OUTPUT = 1e30
MARGIN = 1e-3  # between the two largest outputs of a row whose class is compared


@dataclass(frozen=True)
class Rows:
    """Rows of a self-test.

    Attributes
    ----------
    x, y : ndarray of float32 and of float64
        A few rows, and their outputs.
    classes : list of int
        -1 where two outputs are nearly equal.
    tolerance : float
        Of an output, times its magnitude if that is above 1.
    deviation : float
        Largest difference of float32 from float64 arithmetic on all `count` rows.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float64]
    classes: list[int]
    tolerance: float
    deviation: float
    count: int


def rows_of(chain: Chain, X: ArrayLike | None, *, raw: bool) -> Rows:
    """Return the first rows of X, or drawn ones, whose outputs are finite.

    Raises
    ------
    ConversionError
        If X has another number of columns.
    """
    x: NDArray[np.float32]
    x = _drawn(chain) if X is None else np.asarray(X, np.float64).astype(np.float32)
    if x.ndim != 2 or x.shape[1] != chain.n_in:
        raise ConversionError(f"X has the shape {x.shape}; expected (n, {chain.n_in})")
    y = run(chain, x, raw=raw)
    narrow = _run_float32(chain, x, raw=raw)
    finite = (np.abs(y) < LARGEST_OUTPUT).all(axis=1) & np.isfinite(narrow).all(axis=1)
    finite &= np.isfinite(x).all(axis=1)
    x, y, narrow = x[finite], y[finite], narrow[finite]
    deviation = float(np.abs(narrow - y).max(initial=0.0))
    relative = np.abs(narrow - y) / np.maximum(np.abs(y), 1)
    tolerance = max(1e-5, 16 * float(relative.max(initial=0.0)))
    few = y[:ROWS]
    return Rows(x[:ROWS], few, _classes(chain, few, raw), tolerance, deviation, len(x))


def _classes(chain: Chain, y: NDArray[np.float64], raw: bool) -> list[int]:
    if y.shape[1] == 1:
        threshold = 0.0 if raw else 0.5
        return [int(v > threshold) if abs(v - threshold) > MARGIN else -1 for v in y[:, 0]]
    ordered = np.sort(y, axis=1)
    near = ordered[:, -1] - ordered[:, -2] < MARGIN
    return np.where(near, -1, y.argmax(axis=1)).tolist()  # type: ignore[no-any-return]


def _drawn(chain: Chain) -> NDArray[np.float32]:
    """Draw rows: normal around the mean, whole numbers for tables."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(DRAWN, chain.n_in))
    for part in chain.members[0].front:
        if isinstance(part, Table):
            x[:, part.column] = rng.integers(0, len(part.rows), DRAWN)
    if chain.mean is not None:
        x += chain.mean
    return x.astype(np.float32)


def _run_float32(chain: Chain, x: NDArray[np.float32], *, raw: bool) -> NDArray[np.float64]:
    """Compute a chain as the C file does, in float32."""
    with np.errstate(all="ignore"):
        if chain.mean is not None:
            exact = x.astype(np.float64) - chain.mean
            x = exact.astype(np.float32)
        outputs = [_member_float32(member, x, raw) for member in chain.members]
    total = sum(outputs[1:], outputs[0].astype(np.float64))
    return np.asarray(total / len(outputs), np.float64)


def _member_float32(member: Member, x: NDArray[np.float32], raw: bool) -> NDArray[np.float64]:
    inputs, sums = expand(member.front, x.astype(np.float64))
    a = inputs.astype(np.float32)
    for number_, step in enumerate(member.steps):
        if isinstance(step, Affine):
            a = a @ step.weights.astype(np.float32)
            if step.bias is not None:
                a = a + step.bias.astype(np.float32)
            if number_ == 0 and sums is not None:
                a = a + sums.astype(np.float32)
        elif isinstance(step, LayerNorm):
            centred = a - a.mean(axis=1, keepdims=True)
            variance = np.square(centred).mean(axis=1, keepdims=True)
            a = centred / np.sqrt(variance + np.float32(step.epsilon)) * step.gamma + step.beta
            a = a.astype(np.float32)
        elif not (raw and number_ == len(member.steps) - 1):
            f = activate(step.name, a)
            a = f if step.alphas is None else a + step.alphas.astype(np.float32) * (f - a)
    if member.unit is not None:
        unit = member.unit
        return np.asarray(np.clip(a * unit.spread + unit.centre, unit.low, unit.high), np.float64)
    return a.astype(np.float64)


def self_test(name: str, chain: Chain, rows: Rows, *, with_class: bool) -> str:
    """Return tables and `main()`, or '' if there are no rows."""
    n, big = len(rows.x), name.upper()
    if not n:
        return ""
    inputs = lines_of(number(v) for v in rows.x.ravel().tolist())
    outputs = lines_of(number(v) for v in rows.y.astype(np.float32).ravel().tolist())
    n_in, n_out = chain.n_in, chain.n_out
    checks = "".join(
        f"        if (row == {row} && {name}_class(x, scratch) != {k})\n            failed = 1;\n"
        for row, k in enumerate(rows.classes)
        if with_class and k >= 0
    )
    return (
        f"#ifdef {big}_SELFTEST\n"
        f"static const float {name}_test_x[{n * n_in}] {big}_FLASH = {{\n{inputs}\n}};\n"
        f"static const float {name}_test_y[{n * n_out}] {big}_FLASH = {{\n{outputs}\n}};\n\n"
        "int main(void)\n{\n"
        f"    float x[{big}_INPUTS], y[{big}_OUTPUTS], scratch[{big}_SCRATCH];\n"
        f"    unsigned row, i;\n    int failed = 0;\n"
        f"    for (row = 0; row < {n}; row++) {{\n"
        f"        for (i = 0; i < {n_in}; i++)\n"
        f"            x[i] = {big}_READ({name}_test_x + row * {n_in} + i);\n"
        f"        {name}_outputs(x, y, scratch);\n"
        f"        for (i = 0; i < {n_out}; i++) {{\n"
        f"            const float known = {big}_READ({name}_test_y + row * {n_out} + i);\n"
        "            const float size = known < 0.0f ? -known : known, miss = y[i] - known;\n"
        f"            const float most = {number(rows.tolerance)} * (size > 1.0f ? size : 1.0f);\n"
        "            if (!(miss <= most && miss >= -most))\n                failed = 1;\n"
        "        }\n" + checks + "    }\n    return failed;\n}\n#endif\n"
    )
