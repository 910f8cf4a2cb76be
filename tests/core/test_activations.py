"""``core.activate``: every activation and its slope over the whole range of numbers."""

import math
from functools import cache

import numpy as np
import pytest
from oracle import ACTIVATIONS, HIDDEN, KINKS

from cmlp.core import vocabulary

ULPS = {"exp": 2, "tanh": 4, "logistic": 4}
"""What the compiled cores promise in float32, in units of the last place of the result."""
GELU_ULPS = 8
"""The same of gelu, until the result is subnormal."""
NUMPY_ULPS = 4
"""What NumPy promises for its float32 functions (numpy/_core/src/umath)."""

WIDE = np.longdouble
FLOOR = vocabulary.SELU_SCALE * vocabulary.SELU_ALPHA
_erfc = np.frompyfunc(math.erfc, 1, 1)


def cumulative_normal(z):
    return 0.5 * _erfc(np.asarray(-z / math.sqrt(2), np.float64)).astype(np.float64)


def logistic(z):
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def normal_density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def sech_squared(z):
    return (2 * np.exp(-np.abs(z)) / (1 + np.exp(-2 * np.abs(z)))) ** 2


def times(z, factor):
    """z * factor, where a factor of 0 beats an infinite z."""
    return np.where(factor == 0, 0, z * np.where(factor == 0, 0, factor))


def finite(z):
    """Far enough out that every slope has its limit there, and near enough to multiply with."""
    return np.clip(z, -1e4, 1e4)


EXACT = {
    "identity": (lambda z: z, np.ones_like),
    "logistic": (logistic, lambda z: logistic(z) * logistic(-z)),
    "tanh": (np.tanh, sech_squared),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1),
    "leaky_relu": (
        lambda z: np.where(z > 0, z, WIDE(vocabulary.LEAKY_SLOPE) * z),
        lambda z: np.where(z > 0, 1, vocabulary.LEAKY_SLOPE),
    ),
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.exp(np.minimum(z, 0)),
    ),
    "leaky_relu:0.3": (
        lambda z: np.where(z > 0, z, WIDE(0.3) * z),
        lambda z: np.where(z > 0, 1, 0.3),
    ),
    "elu:0.5": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0)) / 2),
        lambda z: np.where(z > 0, 1, np.exp(np.minimum(z, 0)) / 2),
    ),
    "selu": (
        lambda z: np.where(z > 0, vocabulary.SELU_SCALE * z, FLOOR * np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, vocabulary.SELU_SCALE, FLOOR * np.exp(np.minimum(z, 0))),
    ),
    "gelu": (
        lambda z: times(z, cumulative_normal(z)),
        lambda z: cumulative_normal(finite(z)) + finite(z) * normal_density(finite(z)),
    ),
    "silu": (
        lambda z: times(z, logistic(z)),
        lambda z: logistic(finite(z)) * (1 + finite(z) * logistic(-finite(z))),
    ),
    "mish": (
        lambda z: times(z, np.tanh(softplus(z))),
        lambda z: (
            np.tanh(softplus(finite(z)))
            + finite(z) * logistic(finite(z)) * sech_squared(softplus(finite(z)))
        ),
    ),
    "softplus": (softplus, logistic),
    "hard_sigmoid": (
        lambda z: np.clip(z / 6 + 0.5, 0, 1),
        lambda z: np.where((z > -3) & (z < 3), WIDE(1) / 6, 0),
    ),
    "exp": (np.exp, np.exp),
}


def every_exponent(dtype, count):
    """Numbers at equal distances in their bits: both signs, every exponent, subnormals; edges."""
    dtype = np.dtype(dtype)
    bits = {4: np.uint32, 8: np.uint64}[dtype.itemsize]
    step = (1 << 8 * dtype.itemsize) // count
    z = (np.arange(count, dtype=bits) * bits(step + 1 - step % 2)).view(dtype)
    edges = np.array([0.0, -0.0, 1, -1, 3, -3, 88.72, 88.73, -87.33, -103.97, -103.98, 709.78,
                      709.79, -708.4, -745.1, -745.2, 17.3, 36.7, np.finfo(dtype).tiny,
                      np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max], dtype)  # fmt: skip
    dense = np.linspace(-110, 110, count // 4, dtype=dtype)
    z = np.concatenate([z[np.isfinite(z)], edges, -edges, dense])
    return z[: len(z) // 16 * 16]


def activated(core, name, z):
    """The activation of z and its slope, as a core gives them."""
    padded = np.resize(z, -(-len(z) // 16) * 16)
    values = np.stack([padded, np.full_like(padded, np.nan)])
    with np.errstate(over="ignore"):  # exp(1000) is infinite, as it should be
        core.activate(ACTIVATIONS[name].code, values, ACTIVATIONS[name].parameter)
    return values[:, : len(z)]


def exact(name, z):
    """The same in extended precision."""
    with np.errstate(all="ignore"):
        return [np.asarray(f(z.astype(WIDE))) for f in EXACT[name]]


@cache
def of_every_exponent(name, dtype, count):
    """Numbers of every exponent and the exact activation there: once for all cores."""
    z = every_exponent(dtype, count)
    return z, exact(name, z)[0]


def errors_in_ulp(came, expected):
    """Distance in units of the last place of the right result; infinity must be met."""
    with np.errstate(over="ignore"):
        nearest = expected.astype(came.dtype)
    limit = np.isinf(nearest)
    # A result within rounding of the largest number may come as infinity, and the other way round.
    largest = np.finfo(came.dtype).max
    edge = np.abs(np.minimum(np.abs(expected), 2 * WIDE(largest)) - largest) < largest * 1e-6
    ulp = np.spacing(np.where(limit, 1, np.abs(nearest)))
    with np.errstate(invalid="ignore"):
        off = np.abs(came.astype(WIDE) - np.where(limit, 0, expected)) / ulp
    off = np.where(limit, np.where(came == nearest, 0, np.inf), off)
    return np.where(edge & ((came == nearest) | np.isinf(came) | limit), 0, off)


@pytest.mark.parametrize("name", ULPS)
def test_units_in_the_last_place(core, name):
    z, expected = of_every_exponent(name, np.float32, 500_000)
    off = errors_in_ulp(activated(core, name, z)[0], expected)
    limit = ULPS[name] if core.vector_bytes else NUMPY_ULPS
    assert off.max() <= limit, f"{off.max():.3g} ulp at {z[off.argmax()]!r}"


def test_gelu_far_below_zero(core):
    z = np.linspace(-13.5, 5, 50_000, dtype=np.float32)
    expected = exact("gelu", z)[0]
    normal = np.abs(expected) >= np.finfo(np.float32).tiny
    off = errors_in_ulp(activated(core, "gelu", z)[0], expected)[normal]
    assert off.max() <= GELU_ULPS, f"{off.max():.3g} ulp at {z[normal][off.argmax()]!r}"


def test_tanh_ends_at_one(core, dtype):
    z = np.linspace(4, 24, 100_000, dtype=dtype)
    value = activated(core, "tanh", np.concatenate([z, -z]))[0]
    assert (np.abs(value) <= 1).all()
    assert (np.abs(value)[np.concatenate([z, z]) >= 20] == 1).all()


@pytest.mark.parametrize("name", ULPS)
def test_thirteen_digits(core, name):
    z, expected = of_every_exponent(name, np.float64, 100_000)
    came = activated(core, name, z)[0]
    plain = (np.abs(expected) >= np.finfo(np.float64).tiny) & np.isfinite(came)
    assert (np.abs(came[plain] - expected[plain]) <= 1e-13 * np.abs(expected[plain])).all()
    assert errors_in_ulp(came, expected)[~plain].max() <= 2


@cache
def in_range(name, dtype):
    """Numbers whose activation is finite, it and its slope: once for all cores."""
    z = every_exponent(dtype, 30_000)
    z = z[np.abs(z) <= np.finfo(dtype).max / 2]
    if name == "exp":
        z = z[z < math.log(np.finfo(dtype).max) - 1e-3]
    return z, *exact(name, z)


@pytest.mark.parametrize("name", HIDDEN)
def test_values_and_slopes(core, dtype, name):
    """Values within 4 eps of max(1, |z|), slopes within 8 eps (of e^z for exp).

    A slope that is written with z (1 - s), as the twin writes those of silu and mish, has the
    rounding of 1 - s times z, until s rounds to 1.
    """
    z, a, da = in_range(name, dtype)
    value, slope = activated(core, name, z)
    eps, size = np.finfo(dtype).eps, np.maximum(1, np.abs(z.astype(WIDE)))
    if name == "exp":
        size = np.maximum(1, a)
    off = np.abs(value - a) / size
    assert off.max() <= 4 * eps, f"{off.max() / eps:.3g} eps at {z[off.argmax()]!r}"
    away = np.ones(len(z), bool)
    for kink in KINKS.get(name, ()):
        away &= (np.abs(z - kink) > 8 * eps) | (z == kink)
    room = size if name == "exp" else 1 + np.minimum(np.abs(z), 40) / 8
    off = np.where(away, np.abs(slope - da) / room, 0)
    assert off.max() <= 8 * eps, f"slope: {off.max() / eps:.3g} eps at {z[off.argmax()]!r}"


def test_nan_stays(core, dtype):
    z = np.linspace(-3, 3, 48).astype(dtype)
    z[[0, 7, 15, 16, 31, 47]] = np.nan
    for name in HIDDEN:
        value = activated(core, name, z)[0]
        np.testing.assert_array_equal(np.isnan(value), np.isnan(z), err_msg=name)


def test_infinity_has_its_limit(core, dtype):
    z = np.array([np.inf, -np.inf], dtype)
    limits = {
        "identity": (np.inf, -np.inf), "logistic": (1, 0), "tanh": (1, -1), "relu": (np.inf, 0),
        "leaky_relu": (np.inf, -np.inf), "elu": (np.inf, -1), "selu": (np.inf, -FLOOR),
        "gelu": (np.inf, 0), "silu": (np.inf, 0), "mish": (np.inf, 0), "softplus": (np.inf, 0),
        "hard_sigmoid": (1, 0), "exp": (np.inf, 0), "leaky_relu:0.3": (np.inf, -np.inf),
        "elu:0.5": (np.inf, -0.5),
    }  # fmt: skip
    for name in HIDDEN:
        value = activated(core, name, z)[0]
        np.testing.assert_allclose(value, limits[name], rtol=4 * np.finfo(dtype).eps, err_msg=name)


def test_zero(core, dtype):
    at_zero = {"logistic": 0.5, "softplus": math.log(2), "hard_sigmoid": 0.5, "exp": 1}
    slopes = {"logistic": 0.25, "relu": 0, "leaky_relu": 0.01, "selu": FLOOR, "gelu": 0.5,
              "silu": 0.5, "mish": 0.6, "softplus": 0.5, "hard_sigmoid": 1 / 6,
              "leaky_relu:0.3": 0.3, "elu:0.5": 0.5}  # fmt: skip
    eps = 4 * np.finfo(dtype).eps
    for name in HIDDEN:
        value, slope = activated(core, name, np.array([0.0, -0.0], dtype))
        np.testing.assert_allclose(value, at_zero.get(name, 0), rtol=eps, err_msg=name)
        np.testing.assert_allclose(slope, slopes.get(name, 1), rtol=eps, err_msg=name)


@pytest.mark.parametrize("name", ["tanh", "identity", "elu", "gelu", "silu", "mish"])
def test_tiny_numbers_keep_their_relative_accuracy(core, dtype, name):
    """Where an activation starts through 0, it does so without cancellation."""
    z = np.geomspace(1e-30, 1e-4, 64).astype(dtype)
    z = np.concatenate([z, -z])
    came, expected = activated(core, name, z)[0], exact(name, z)[0]
    off = np.abs(came - expected) / np.abs(expected)
    assert off.max() <= 8 * np.finfo(dtype).eps
