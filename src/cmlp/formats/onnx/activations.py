"""Activations as operators of ONNX: a row each for float32, and for float64.

ONNX Runtime has no kernels in float64 for some operators, and attributes are float32 in the
format; there the same numbers come from Exp, Log, Max and Min with constants of 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from cmlp.core.vocabulary import SELU_ALPHA, SELU_SCALE
from cmlp.formats.chain import Activation, ConversionError


class Builder(Protocol):
    """What a formula needs of the graph under construction."""

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return its output's name."""

    def scalar(self, value: float) -> str:
        """Return the name of a constant."""


Formula = Callable[[Builder, str], str]
"""A function of the builder and the name of z."""

Parametric = Callable[[Builder, str, float], str]
"""The same, and the activation's parameter."""


def _plain(kind: str, **attributes: Any) -> Formula:
    """Return the formula that is one operator."""
    return lambda g, z: g.op(kind, z, **attributes)


def _gelu(g: Builder, z: str) -> str:
    erf = g.op("Erf", g.op("Mul", z, g.scalar(math.sqrt(0.5))))
    return g.op("Mul", g.op("Mul", z, g.op("Add", erf, g.scalar(1.0))), g.scalar(0.5))


def _silu(g: Builder, z: str) -> str:
    return g.op("Mul", z, g.op("Sigmoid", z))


def _mish(g: Builder, z: str) -> str:
    return g.op("Mul", z, g.op("Tanh", g.op("Softplus", z)))


def _with(kind: str) -> Parametric:
    """Return the formula that is one operator, with the parameter as its attribute."""
    return lambda g, z, alpha: g.op(kind, z, alpha=alpha)


def _leaky_relu_64(g: Builder, z: str, slope: float) -> str:
    if slope in (0.0, 1.0):
        return z if slope else g.op("Relu", z)
    return g.op("Max" if slope < 1 else "Min", z, g.op("Mul", z, g.scalar(slope)))


def _exp_below_zero(g: Builder, z: str) -> str:
    """exp(min(z, 0)) - 1."""
    return g.op("Sub", g.op("Exp", g.op("Min", z, g.scalar(0.0))), g.scalar(1.0))


def _elu_64(g: Builder, z: str, alpha: float) -> str:
    if alpha == 1:
        return g.op("Max", z, _exp_below_zero(g, z))  # exp(z) - 1 is never below z
    floor = g.op("Mul", _exp_below_zero(g, z), g.scalar(alpha))
    return g.op("Add", g.op("Relu", z), floor)


def _selu_64(g: Builder, z: str) -> str:
    floor = g.op("Mul", _exp_below_zero(g, z), g.scalar(SELU_SCALE * SELU_ALPHA))
    return g.op("Add", g.op("Mul", g.op("Relu", z), g.scalar(SELU_SCALE)), floor)


def _softplus_64(g: Builder, z: str) -> str:
    e = g.op("Exp", g.op("Neg", g.op("Abs", z)))
    return g.op("Add", g.op("Relu", z), g.op("Log", g.op("Add", e, g.scalar(1.0))))


def _mish_64(g: Builder, z: str) -> str:
    return g.op("Mul", z, g.op("Tanh", _softplus_64(g, z)))


def _hard_sigmoid_64(g: Builder, z: str) -> str:
    a = g.op("Add", g.op("Mul", z, g.scalar(1 / 6)), g.scalar(0.5))
    return g.op("Clip", a, g.scalar(0.0), g.scalar(1.0))


def _refused_64(g: Builder, z: str) -> str:
    raise ConversionError(
        "gelu cannot leave in float64: ONNX Runtime has no Erf in float64; export with "
        "dtype='float32'"
    )


FLOAT32: dict[str, Formula] = {
    "identity": lambda g, z: z,
    "logistic": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "relu": _plain("Relu"),
    "selu": _plain("Selu", alpha=SELU_ALPHA, gamma=SELU_SCALE),
    "gelu": _gelu,
    "silu": _silu,
    "mish": _mish,
    "softplus": _plain("Softplus"),
    "hard_sigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "exp": _plain("Exp"),
    "softmax": _plain("Softmax", axis=-1),
}
"""a = FLOAT32[name](builder, z), of activations without a parameter."""

PARAMETRIC32: dict[str, Parametric] = {
    "leaky_relu": _with("LeakyRelu"),
    "elu": lambda g, z, alpha: g.op("Elu", z) if alpha == 1 else g.op("Elu", z, alpha=alpha),
}
"""a = PARAMETRIC32[name](builder, z, parameter)"""

FLOAT64: dict[str, Formula] = {
    **FLOAT32,
    "selu": _selu_64,
    "gelu": _refused_64,
    "mish": _mish_64,
    "softplus": _softplus_64,
    "hard_sigmoid": _hard_sigmoid_64,
}
PARAMETRIC64: dict[str, Parametric] = {"leaky_relu": _leaky_relu_64, "elu": _elu_64}
"""The same in float64."""


def apply(g: Builder, step: Activation, z: str, dtype: str) -> str:
    """Add the operators of an activation and return the name of its values."""
    single = dtype == "float32"
    parametric = (PARAMETRIC32 if single else PARAMETRIC64).get(step.kind)
    if parametric is not None:
        return parametric(g, z, step.parameter)
    return (FLOAT32 if single else FLOAT64)[step.kind](g, z)
