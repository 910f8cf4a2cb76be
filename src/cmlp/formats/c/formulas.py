"""Activations in C: a row for each name of :data:`cmlp.core.vocabulary.ACTIVATIONS`.

Of the mathematical library only `expf`, `logf` and `tanhf` occur; none overflows where the result
is finite, and minus infinity has the limit.
"""

from __future__ import annotations

from typing import NamedTuple

from cmlp.core.vocabulary import SELU_ALPHA, SELU_SCALE
from cmlp.formats.c.text import number
from cmlp.formats.chain import Activation
from cmlp.formats.source_text import identifier, with_parameter


class Formula(NamedTuple):
    """An activation of one number.

    Attributes
    ----------
    expression : str
        In terms of `z`, and of the parameter `@`, if there is no body.
    body : tuple of str
        Lines of a function of `z`.
    library : tuple of str
        Functions of math.h that it calls.
    """

    expression: str
    body: tuple[str, ...] = ()
    library: tuple[str, ...] = ()


NORMAL = (
    "const float t = z < 0.0f ? -z : z;",
    "const float s = 1.0f / (1.0f + 0.2316419f * t);",
    "float p;",
    "if (z < -14.5f)",
    "    return 0.0f;",
    "p = s * (0.127414796f + s * (-0.142248368f + s * (0.710706871f + s * (-0.726576013f + s * 0.530702714f))));",  # noqa: E501
    "p *= expf(-0.5f * t * t);",
    "return z * (z < 0.0f ? p : 1.0f - p);",
)
"""z Phi(z): Abramowitz and Stegun 26.2.17, whose error is below 7.5e-8 (1.5e-7 as erf)."""


FORMULAS: dict[str, Formula | None] = {
    "identity": None,
    "logistic": Formula(
        "",
        (
            "const float e = expf(z < 0.0f ? z : -z);",
            "return (z < 0.0f ? e : 1.0f) / (1.0f + e);",
        ),
        ("expf",),
    ),
    "tanh": Formula("tanhf(z)", (), ("tanhf",)),
    "relu": Formula("z < 0.0f ? 0.0f : z"),
    "leaky_relu": Formula("z < 0.0f ? @ * z : z"),
    "elu": Formula("z < 0.0f ? @ * (expf(z) - 1.0f) : z", (), ("expf",)),
    "selu": Formula(
        f"z < 0.0f ? {number(SELU_SCALE * SELU_ALPHA)} * (expf(z) - 1.0f) "
        f": {number(SELU_SCALE)} * z",
        (),
        ("expf",),
    ),
    "gelu": Formula("", NORMAL, ("expf",)),
    "silu": Formula("z < -87.0f ? 0.0f : z / (1.0f + expf(-z))", (), ("expf",)),
    "mish": Formula(  # tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2)
        "",
        (
            "float e;",
            "if (z > 15.0f)",
            "    return z;",
            "if (z < -87.0f)",
            "    return 0.0f;",
            "e = expf(z);",
            "e *= e + 2.0f;",
            "return z * (e / (e + 2.0f));",
        ),
        ("expf",),
    ),
    "softplus": Formula(
        "(z < 0.0f ? 0.0f : z) + logf(1.0f + expf(z < 0.0f ? z : -z))", (), ("expf", "logf")
    ),
    "hard_sigmoid": Formula(
        "",
        (
            "const float a = z * 0.166666667f + 0.5f;",
            "return a < 0.0f ? 0.0f : (a > 1.0f ? 1.0f : a);",
        ),
    ),
    "exp": Formula("expf(z)", (), ("expf",)),
    "softmax": None,  # of a row: SOFTMAX
}


SOFTMAX = """\
static void {name}_softmax(float *y, unsigned n)
{{
    float largest = y[0], sum = 0.0f;
    unsigned j;
    for (j = 1; j < n; j++)
        if (y[j] > largest)
            largest = y[j];
    for (j = 0; j < n; j++) {{
        y[j] = expf(y[j] - largest);
        sum += y[j];
    }}
    for (j = 0; j < n; j++)
        y[j] /= sum;
}}
"""


def helper(name: str, activation: str) -> str:
    """Return the definition of a function `NAME_ACTIVATION`, or '' if none is needed."""
    step = Activation(activation)
    if step.kind == "softmax":
        return SOFTMAX.format(name=name)
    formula = FORMULAS[step.kind]
    if formula is None:
        return ""
    expression = with_parameter(formula.expression, number(step.parameter))
    body = formula.body or (f"return {expression};",)
    lines = "\n".join("    " + line for line in body)
    return f"static float {name}_{identifier(activation)}(float z)\n{{\n{lines}\n}}\n"


def library(kind: str) -> tuple[str, ...]:
    """Return the functions of math.h that an activation calls."""
    if kind == "softmax":
        return ("expf",)
    formula = FORMULAS[kind]
    return () if formula is None else formula.library
