"""What the tensors of a foreign graph are: constants, or functions of X that a chain has.

Operators are read from the first to the last. A :class:`Value` knows what it was made of, so that
compositions, such as ``z sigmoid(z)``, are recognised when their last operator comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.vocabulary import LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE
from cmlp.formats.building import ramp
from cmlp.formats.chain import named

INPUT, AFFINE, SCALE, ACTIVATION, NORM, SUM = (
    "input",
    "affine",
    "scale",
    "activation",
    "norm",
    "sum",
)
STEPS = (INPUT, AFFINE, SCALE, ACTIVATION, NORM, SUM)
"""Kinds of values that a chain has; others are parts of compositions, or labels."""


@dataclass(frozen=True, eq=False)
class Value:
    """A function of X.

    Attributes
    ----------
    kind : str
    parents : tuple of Value
        What it is computed from.
    data : tuple
        Constants: of 'affine' weights and bias, of 'scale' factor and shift, of 'activation' a name
        and alphas, of 'norm' gamma, beta and epsilon.
    where : str
        The node, in messages.
    """

    kind: str
    parents: tuple[Value, ...] = ()
    data: tuple[Any, ...] = ()
    where: str = ""

    @property
    def parent(self) -> Value:
        """What it is computed from, if that is one value."""
        return self.parents[0]

    def is_(self, kind: str, *data: Any) -> bool:
        """Whether it is of a kind, and its constants begin with these: texts, and None."""
        pairs = zip(data, self.data, strict=False)
        return self.kind == kind and all(type(a) is type(b) and a == b for a, b in pairs)


Operand = Value | Array


def scale(x: Value, factor: Any, shift: Any, where: str) -> Value:
    """Return ``x factor + shift``; nothing is added for factor 1 and shift 0."""
    f, t = np.asarray(factor, np.float64), np.asarray(shift, np.float64)
    if f.size == t.size == 1 and f.item() == 1 and t.item() == 0:
        return x
    return Value(SCALE, (x,), (f, t), where)


def activation(z: Value, name: str, where: str, alphas: Array | None = None) -> Value:
    """Return an activation of z."""
    return Value(ACTIVATION, (z,), (name, alphas), where)


def number_of(value: Operand) -> float | None:
    """Return a constant that is one number, or None."""
    if isinstance(value, Value) or value.size != 1 or value.dtype.kind not in "fiu":
        return None
    return float(value.reshape(-1)[0])


def about(value: Operand, expected: float) -> bool:
    """Whether it is this constant, in the digits of float32."""
    number = number_of(value)
    return number is not None and math.isclose(number, expected, rel_tol=1e-6)


def stripped(value: Value) -> tuple[Value, float]:
    """Return what a number multiplies, and the number; 1 if there is none."""
    if value.kind == SCALE and value.data[0].size == 1 and not value.data[1].any():
        return value.parent, float(value.data[0].reshape(-1)[0])
    return value, 1.0


# Arithmetic --------------------------------------------------------------------------------------


def add(a: Operand, b: Operand, where: str) -> Value | None:
    """Return a + b, or None."""
    if not isinstance(b, Value):
        a, b = b, a
    if not isinstance(b, Value):
        return None
    if not isinstance(a, Value):
        return _plus(b, a, where)
    for z, other in ((a, b), (b, a)):
        found = _rectified(z, other, where)
        if found is not None:
            return found
        if other.kind == "alpha (f - z)" and other.parent is z:
            f, alphas = other.parents[1], other.data[0]
            return activation(z, f.data[0], where, alphas)
    if a.kind in STEPS and b.kind in STEPS and INPUT not in (a.kind, b.kind):
        return _sum([a, b], where)
    return None


def _rectified(relu: Value, other: Value, where: str) -> Value | None:
    """Return a multiple of max(z, 0) plus what makes it softplus, selu, or elu."""
    f, factor = stripped(relu)
    rest, floor = stripped(other)
    if not f.is_(ACTIVATION, "relu", None) or f.parent is not (rest.parents or (None,))[0]:
        return None
    if rest.kind == "log(1 + exp(-|z|))" and factor == floor == 1:
        return activation(f.parent, "softplus", where)
    if rest.kind != "exp(min(z, 0)) - 1":
        return None
    factors = ((factor, SELU_SCALE), (floor, SELU_SCALE * SELU_ALPHA))
    if all(math.isclose(given, own, rel_tol=1e-6) for given, own in factors):
        return activation(f.parent, "selu", where)
    return elu(f.parent, floor, where) if factor == 1 else None


def _plus(x: Value, constant: Array, where: str) -> Value | None:
    """Return a value plus a constant."""
    if x.kind == "erf" and about(constant, 1.0):
        return Value("1 + erf", (x.parent,), (), where)
    if x.kind == "variance":
        epsilon = number_of(constant)
        return None if epsilon is None else Value("variance + e", (x.parent,), (epsilon,), where)
    if x.kind == "exp(min(z, 0))" and about(constant, -1.0):
        return Value("exp(min(z, 0)) - 1", x.parents, (), where)
    if x.kind == "exp(-|z|)" and about(constant, 1.0):
        return Value("1 + exp(-|z|)", x.parents, (), where)
    if x.kind not in STEPS or constant.dtype.kind != "f":
        return None
    if x.kind == AFFINE and x.data[1] is None and constant.size == x.data[0].shape[1]:
        return Value(AFFINE, x.parents, (x.data[0], constant.reshape(-1)), x.where)
    return scale(x, 1.0, constant, where)


def _sum(parts: Sequence[Value], where: str) -> Value | None:
    members: list[Value] = []
    for part in parts:
        if part.kind == SUM and part.data[0] != 1:
            return None
        members += part.parents if part.kind == SUM else [part]
    if len(members) > 1000 or len(set(map(id, members))) < len(members):
        return None  # none of an ensemble's outputs is added twice
    return Value(SUM, tuple(members), (1.0,), where)


def total(parts: Sequence[Operand], where: str, share: float = 1.0) -> Value | None:
    """Return the sum of values, times a number."""
    values = [part for part in parts if isinstance(part, Value) and part.kind in STEPS]
    if len(values) < len(parts) or not values:
        return None
    found = values[0] if len(values) == 1 else _sum(values, where)
    return None if found is None else times(found, np.array(share), where)


def subtract(a: Operand, b: Operand, where: str) -> Value | None:
    """Return a - b, or None."""
    if isinstance(a, Value) and isinstance(b, Value):
        if b.kind == "mean" and b.parent is a:
            return Value("centred", (a,), (), where)
        if a.kind == ACTIVATION and a.parent is b and a.data[1] is None:
            return Value("f - z", (b, a), (), where)
        return None
    if isinstance(a, Value):
        assert not isinstance(b, Value)
        return _plus(a, -b, where) if b.dtype.kind == "f" else None
    if not isinstance(b, Value):
        return None
    if about(a, 1.0) and b.kind in (ACTIVATION, SUM):
        return Value("1 - p", (b,), (), where)
    negative = times(b, np.array(-1.0), where)
    return None if negative is None else add(a, negative, where)


def times(a: Operand, b: Operand, where: str) -> Value | None:
    """Return a b, or None."""
    if not isinstance(a, Value):
        a, b = b, a
    if not isinstance(a, Value):
        return None
    if not isinstance(b, Value):
        return _times_constant(a, b, where)
    if a is b and a.kind == "centred":
        return Value("squares", (a.parent,), (), where)
    if a.kind == "1 / deviation" or b.kind == "1 / deviation":
        centred, over = (a, b) if b.kind == "1 / deviation" else (b, a)
        return _normed(centred, over, where)
    for first, second in ((a, b), (b, a)):
        found = _gated(first, second, where)
        if found is not None:
            return found
    return None


def _times_constant(a: Value, b: Array, where: str) -> Value | None:
    if b.dtype.kind != "f":
        return None
    if a.kind == "f - z":
        return Value("alpha (f - z)", a.parents, (b.reshape(-1),), where)
    if a.kind == SUM:
        share = number_of(b)
        return None if share is None else Value(SUM, a.parents, (a.data[0] * share,), where)
    if a.kind == "|z|" and about(b, -1.0):
        return Value("-|z|", a.parents, (), where)
    inner, factor = stripped(a)
    if b.size == 1 and inner.is_(ACTIVATION, "gelu") and about(b * factor, 1.0):
        return inner
    if a.kind in STEPS or (a.kind in ("1 + erf", "exp(min(z, 0)) - 1") and b.size == 1):
        return scale(a, b, 0.0, where)
    return None


def _gated(z: Value, gate: Value, where: str) -> Value | None:
    """Return z times a function of z, if it is one of the activations."""
    f, outer = stripped(gate)
    for x, inner in ((z, 1.0), stripped(z)):
        if f.kind == "1 + erf":
            source, factor = stripped(f.parent)
            if source is x and math.isclose(factor, math.sqrt(0.5), rel_tol=1e-6):
                gelu = activation(x, "gelu", where)
                return scale(gelu, _rounded(2 * inner * outer), 0.0, where)
        elif inner == outer == 1 and f.is_(ACTIVATION, "logistic", None) and f.parent is x:
            return activation(x, "silu", where)
        elif inner == outer == 1 and f.is_(ACTIVATION, "tanh", None):
            softplus = f.parent
            if softplus.is_(ACTIVATION, "softplus", None) and softplus.parent is x:
                return activation(x, "mish", where)
    return None


def _rounded(factor: float) -> float:
    """Return 1 for what is 1 in float32."""
    return 1.0 if math.isclose(factor, 1.0, rel_tol=1e-6) else factor


def divide(a: Operand, b: Operand, where: str) -> Value | None:
    """Return a / b, or None."""
    if not isinstance(b, Value):
        if not isinstance(a, Value) or b.dtype.kind != "f" or not np.all(b):
            return None
        with np.errstate(over="ignore"):
            return times(a, 1 / b.astype(np.float64), where)
    if isinstance(a, Value) and b.kind == "deviation":
        return _normed(a, b, where)
    if not isinstance(a, Value) and b.kind == "deviation" and about(a, 1.0):
        return Value("1 / deviation", b.parents, b.data, where)
    return None


def _normed(centred: Value, over: Value, where: str) -> Value | None:
    if centred.kind != "centred" or centred.parent is not over.parent:
        return None
    return Value(NORM, (centred.parent,), (None, None, over.data[0]), where)


def power(a: Operand, b: Operand, where: str) -> Value | None:
    """Return a to the power b: a square, of what layer normalisation squares."""
    if isinstance(a, Value) and a.kind == "centred" and about(b, 2.0):
        return Value("squares", a.parents, (), where)
    return None


def mean(a: Operand, where: str) -> Value | None:
    """Return each row's mean."""
    if not isinstance(a, Value):
        return None
    if a.kind == "squares":
        return Value("variance", a.parents, (), where)
    return Value("mean", (a,), (), where) if a.kind in STEPS else None


def root(a: Operand, where: str) -> Value | None:
    """Return the square root, of a variance."""
    if isinstance(a, Value) and a.kind == "variance + e":
        return Value("deviation", a.parents, a.data, where)
    return None


def erf(a: Operand, where: str) -> Value | None:
    """Return the error function."""
    return Value("erf", (a,), (), where) if isinstance(a, Value) else None


def exp(a: Operand, where: str) -> Value | None:
    """Return the exponential function."""
    if not isinstance(a, Value):
        return None
    parts = {"min(z, 0)": "exp(min(z, 0))", "-|z|": "exp(-|z|)"}
    if a.kind in parts:
        return Value(parts[a.kind], a.parents, (), where)
    return activation(a, "exp", where) if a.kind in STEPS else None


def log(a: Operand, where: str) -> Value | None:
    """Return the logarithm, of what softplus takes it of."""
    if isinstance(a, Value) and a.kind == "1 + exp(-|z|)":
        return Value("log(1 + exp(-|z|))", a.parents, (), where)
    return None


def leaky(z: Value, slope: float, where: str) -> Value | None:
    """Return z above 0 and slope z below: leaky_relu, relu, or relu with an alpha."""
    if slope == 0 or math.isclose(slope, LEAKY_SLOPE, rel_tol=1e-6) or slope < 0:
        return rectified(z, np.array(slope), where)
    return activation(z, named("leaky_relu", slope, where), where)


def elu(z: Value, alpha: float, where: str) -> Value | None:
    """Return z above 0 and alpha (exp(z) - 1) below."""
    return activation(z, named("elu", alpha, where), where)


def celu(z: Value, alpha: float, where: str) -> Value | None:
    """Return z above 0 and alpha (exp(z / alpha) - 1) below: elu of a scaled z, scaled."""
    if not 0 < alpha < math.inf:
        return None
    return scale(activation(scale(z, 1 / alpha, 0.0, where), "elu", where), alpha, 0.0, where)


def rectified(z: Value, slope: Array, where: str) -> Value:
    """Return z above 0 and slope z below: leaky_relu, or relu with an alpha of 1 - slope."""
    if about(slope, LEAKY_SLOPE):
        return activation(z, "leaky_relu", where)
    if about(slope, 0.0):
        return activation(z, "relu", where)
    return activation(z, "relu", where, 1 - slope.astype(np.float64).reshape(-1))


def bounded(x: Operand, low: float, high: float, where: str) -> Value | None:
    """Return x between two limits: hard_sigmoid, or relu."""
    if not isinstance(x, Value):
        return None
    if low == 0 and high == math.inf:
        return activation(x, "relu", where)
    if low == -math.inf and high == 0:
        return Value("min(z, 0)", (x,), (), where)
    if (low, high) == (0, 1):
        return hard_sigmoid(x, 1.0, 0.0, where)
    found = ramp(low, high)
    if found is None:
        return None
    factor, shift, height, floor = found
    inner = activation(scale(x, factor, shift, where), "hard_sigmoid", where)
    return scale(inner, height, floor, where)


def hard_sigmoid(x: Value, alpha: float, beta: float, where: str) -> Value:
    """Return ``clip(alpha x + beta, 0, 1)``, which is cmlp's of ``6 (alpha x + beta) - 3``."""
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return activation(x, "hard_sigmoid", where)
    if alpha == 1 and beta == 0 and x.kind == SCALE and about(x.data[1], 0.5):
        z, factor = stripped(x.parent)
        if about(x.data[0], 1.0) and math.isclose(factor, 1 / 6, rel_tol=1e-6):
            return activation(z, "hard_sigmoid", where)
    return activation(scale(x, 6 * alpha, 6 * beta - 3, where), "hard_sigmoid", where)


def larger(a: Operand, b: Operand, where: str) -> Value | None:
    """Return the larger of two: of z and a part of it, or a constant."""
    if not isinstance(a, Value) or not isinstance(b, Value):
        x, limit = (a, b) if isinstance(a, Value) else (b, a)
        return bounded(x, 0, math.inf, where) if about(limit, 0.0) else None
    for z, other in ((a, b), (b, a)):
        if other.kind == "exp(min(z, 0)) - 1" and other.parent is z:
            return activation(z, "elu", where)
        x, slope = stripped(other)
        if x is z and 0 <= slope < 1 and x is not other:
            return leaky(z, slope, where)
    return None


def smaller(a: Operand, b: Operand, where: str) -> Value | None:
    """Return the smaller of a value and 0, or more than itself."""
    if isinstance(a, Value) and isinstance(b, Value):
        for z, other in ((a, b), (b, a)):
            x, slope = stripped(other)
            if x is z and slope > 1:
                return leaky(z, slope, where)
        return None
    value, limit = (a, b) if isinstance(a, Value) else (b, a)
    return bounded(value, -math.inf, 0, where) if about(limit, 0.0) else None
