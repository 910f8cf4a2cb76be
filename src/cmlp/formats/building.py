"""A chain from the layers of another library: what can be multiplied together is, in float64.

A factor and a shift per column (batch normalisation, scalers) go into the layer before, else into
the next one; in front of all layers the shift is subtracted from X. Arrays that no other is folded
into keep their bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.checks import check_dtype
from cmlp.core.layout import Array
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.formats.chain import (
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
    Step,
    check,
    named,
)

Wide = NDArray[np.float64]

COUNTERPARTS = (
    "linear layers, batch and layer normalisation, dropout, flattening, and the activations "
    + ", ".join(row.name for row in ACTIVATIONS)
)
"""What has one in cmlp, for messages."""


@dataclass
class Scale:
    """``x factor + shift``, per column, in float64."""

    factor: Wide
    shift: Wide


def no_counterpart(where: str, why: str = "") -> ConversionError:
    """Return the error for a layer that cannot come in; `where` is as 'layer 3 (PReLU)'."""
    reason = f" ({why})" if why else ""
    return ConversionError(
        f"{where} has no counterpart in cmlp{reason}; these have: {COUNTERPARTS}"
    )


def only(where: str, name: str, value: Any, has: Any) -> ConversionError:
    """Return the error for a constant that cmlp has another value of."""
    return ConversionError(
        f"{where} has {name}={value!r}, but cmlp has {name}={has!r} only: train it with that value"
    )


LARGEST_RAMP = 64.0
"""Limits of a ramp that float32 can take to 4e-6, once hard_sigmoid has made it 0 to 1."""


def ramp(low: float, high: float) -> tuple[float, float, float, float] | None:
    """Return factor, shift, height and floor of z between two limits, which is
    ``height hard_sigmoid(factor z + shift) + floor``; None if it would lose digits."""
    width = high - low
    if not width > 0 or max(abs(low), abs(high)) > LARGEST_RAMP:
        return None
    return 6 / width, -6 * low / width - 3, width, low


def wide_of(where: str, name: str, values: Any) -> Wide:
    """Return numbers in float64, which is exact.

    Raises
    ------
    ConversionError
        If they are none.
    """
    array = np.asarray(values)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ConversionError(f"{where} has a {name} of {array.dtype}, not of floating point")
    return array.astype(np.float64)


class Builder:
    """Collects layers, from the first to the last.

    Parameters
    ----------
    n_in : int, optional
        Columns of X, if they are known before the first layer with weights.
    """

    def __init__(self, n_in: int | None = None) -> None:
        self.steps: list[Step | Scale] = []
        self.width = n_in
        self.dtype: Any = np.dtype(np.float32)

    @property
    def _last(self) -> Step | Scale | None:
        return self.steps[-1] if self.steps else None

    def _take(self, where: str, name: str, values: Any, shape: tuple[int, ...] | None) -> Wide:
        """Return an array in float64, and note the wider of the number types."""
        array = np.asarray(values)
        wide = wide_of(where, name, array)
        if shape is not None and wide.shape != shape:
            raise ConversionError(f"{where} has a {name} of shape {wide.shape}, not {shape}")
        if array.dtype.itemsize == 8:
            self.dtype = np.dtype(np.float64)
        return wide

    def affine(self, where: str, weights: ArrayLike, bias: ArrayLike | None) -> None:
        """Add ``x W + b``, W (n_in, n_out); a bias may be (1, n_out), too."""
        W = self._take(where, "weight", weights, None)
        if W.ndim != 2 or not W.size:
            raise ConversionError(f"{where} has weights of shape {W.shape}, not (n_in, n_out)")
        if self.width is not None and len(W) != self.width:
            raise ConversionError(f"{where} takes {len(W)} inputs, but gets {self.width}")
        n = W.shape[1]
        b = None if bias is None else self._take(where, "bias", np.reshape(bias, -1), (n,))
        last = self._last
        if isinstance(last, Scale) and len(self.steps) > 1:
            self.steps.pop()
            b = last.shift @ W if b is None else last.shift @ W + b
            W = last.factor[:, None] * W
        elif isinstance(last, Affine):
            self.steps.pop()
            if last.bias is not None:
                b = last.bias @ W if b is None else last.bias @ W + b
            W = last.weights @ W
        elif isinstance(last, LayerNorm):
            self.steps.append(Activation("identity"))
        self.steps.append(Affine(W, b))
        self.width = n

    def scale(self, where: str, factor: ArrayLike, shift: ArrayLike) -> None:
        """Add ``x factor + shift``; one number or one per column."""
        factor, shift = np.asarray(factor, np.float64), np.asarray(shift, np.float64)
        n = self.width if self.width is not None else max(factor.size, shift.size)
        if not {factor.size, shift.size} <= {1, n}:
            raise ConversionError(f"{where} has {max(factor.size, shift.size)} columns, not {n}")
        f, s = (np.array(np.broadcast_to(x.reshape(-1), n)) for x in (factor, shift))
        last = self._last
        if isinstance(last, Affine):
            b = s if last.bias is None else last.bias * f + s
            self.steps[-1] = Affine(last.weights * f, b)
        elif isinstance(last, LayerNorm):
            self.steps[-1] = LayerNorm(last.gamma * f, last.beta * f + s, last.epsilon)
        elif isinstance(last, Scale):
            self.steps[-1] = Scale(last.factor * f, last.shift * f + s)
        else:
            self.steps.append(Scale(f, s))
        self.width = n

    def batch_norm(
        self, where: str, mean: Any, variance: Any, epsilon: float, gamma: Any, beta: Any
    ) -> None:
        """Add ``gamma (x - mean) / sqrt(variance + epsilon) + beta``; None for 1 and 0."""
        m = self._take(where, "mean", mean, None)
        v = self._take(where, "variance", variance, m.shape)
        g = np.ones(m.shape) if gamma is None else self._take(where, "gamma", gamma, m.shape)
        b = np.zeros(m.shape) if beta is None else self._take(where, "beta", beta, m.shape)
        if not (v + epsilon > 0).all():
            raise ConversionError(f"{where} has a variance below 0")
        factor = g / np.sqrt(v + epsilon)
        self.scale(where, factor, b - m * factor)

    def layer_norm(self, where: str, gamma: Any, beta: Any, epsilon: float) -> None:
        """Add the normalisation of each row; None for gamma 1 and beta 0."""
        n = self.width
        if n is None or not isinstance(self._last, Affine):
            raise ConversionError(
                f"{where} has no counterpart in cmlp: layer normalisation is of a linear layer's "
                "sums, in front of its activation"
            )
        g = np.ones(n) if gamma is None else self._take(where, "gamma", gamma, (n,))
        b = np.zeros(n) if beta is None else self._take(where, "beta", beta, (n,))
        self.steps.append(LayerNorm(g, b, float(epsilon)))

    def activation(self, where: str, name: str, alphas: Array | None = None) -> None:
        """Add an activation by the name that cmlp has for it; 'identity' adds nothing.

        With `alphas`, one or one per unit, it is ``z + alpha (f(z) - z)``.
        """
        if name == "identity":
            return
        if not isinstance(self._last, (Affine, LayerNorm)):
            raise ConversionError(
                f"{where} has no counterpart in cmlp: an activation is of a linear layer's sums"
            )
        if alphas is not None:
            width = self.width or 1
            if alphas.size not in (1, width):
                raise ConversionError(f"{where} has {alphas.size} slopes for {width} units")
            alphas = np.array(np.broadcast_to(alphas, width), self.dtype)
        self.steps.append(Activation(name, alphas))

    def rectifier(self, where: str, slopes: Array) -> None:
        """Add z above 0, and slope z below: leaky_relu of one slope, or relu with alphas."""
        if slopes.size == 1 and slopes >= 0:
            self.activation(where, named("leaky_relu", float(slopes.item()), where))
        else:
            self.activation(where, "relu", 1 - slopes.astype(np.float64))

    def scaled_activation(
        self, where: str, factor: float, shift: float, name: str, height: float, floor: float
    ) -> None:
        """Add ``height f(factor z + shift) + floor``: of the layer before, and of the next."""
        numbers = (factor, shift, height, floor)
        if not all(map(math.isfinite, numbers)) or factor <= 0 or height <= 0:
            raise no_counterpart(where, "with these constants")
        if (factor, shift) != (1, 0):
            self.scale(where, factor, shift)
        self.activation(where, name)
        if (height, floor) != (1, 0):
            self.scale(where, height, floor)

    def ends_linear(self) -> bool:
        """Whether there is no activation of the outputs yet."""
        return isinstance(self._last, Affine)

    def chain(self, **more: Any) -> Chain:
        """Return the chain; `more` are its other fields.

        Raises
        ------
        ConversionError
            If it is no network.
        """
        steps = list(self.steps)
        mean = factor = None
        if steps and isinstance(steps[0], Scale):
            first = steps.pop(0)
            assert isinstance(first, Scale)
            factor = first.factor
            if not factor.all():
                raise ConversionError("a column in front of the first layer has the factor 0")
            mean = -first.shift / factor
        if not steps or not isinstance(steps[0], Affine):
            raise ConversionError(f"there is no linear layer; expected are {COUNTERPARTS}")
        if isinstance(steps[-1], Scale):
            raise ConversionError(
                "a normalisation after the activation of the outputs has no counterpart in cmlp"
            )
        if factor is not None:
            steps[0] = Affine(steps[0].weights * factor[:, None], steps[0].bias)
        if isinstance(steps[-1], LayerNorm):
            raise ConversionError("layer normalisation of the outputs has no counterpart in cmlp")
        if isinstance(steps[-1], Affine):
            steps.append(Activation("identity"))
        member = Member(tuple(self._narrow(step) for step in steps))
        n_in = len(member.affine[0].weights)
        return check(
            Chain(n_in, (member,), None if mean is None or not mean.any() else mean, **more)
        )

    def _narrow(self, step: Step | Scale) -> Step:
        """Return a step in the number type of the weights that came."""
        dtype = check_dtype(self.dtype)

        def cast(array: Array) -> Array:
            with np.errstate(over="ignore"):  # infinity is refused by `check`
                return np.ascontiguousarray(array.astype(dtype))

        if isinstance(step, Affine):
            return Affine(cast(step.weights), None if step.bias is None else cast(step.bias))
        if isinstance(step, LayerNorm):
            return LayerNorm(cast(step.gamma), cast(step.beta), step.epsilon)
        assert isinstance(step, Activation)
        return step


def joined(chains: Sequence[Chain], **more: Any) -> Chain:
    """Return one chain with the members of several; `more` are its other fields.

    Raises
    ------
    ConversionError
        If there are none, or they take other rows, or subtract other means.
    """
    if not chains:
        raise ConversionError("the mean of no networks has no counterpart")
    first = chains[0]
    for other in chains[1:]:
        if (first.n_in, first.n_out) != (other.n_in, other.n_out):
            raise ConversionError("networks whose mean is taken have different numbers of units")
        if not _same_mean(first, other):
            raise ConversionError("networks whose mean is taken subtract different means of X")
    members = tuple(member for chain in chains for member in chain.members)
    return replace(first, members=members, **more)


def _same_mean(a: Chain, b: Chain) -> bool:
    """Whether two chains subtract the same from X."""
    if a.mean is None or b.mean is None:
        return a.mean is b.mean
    return np.array_equal(a.mean, b.mean)


def names_of(names: Iterable[Any] | None) -> tuple[str, ...] | None:
    """Return names of columns as text."""
    return None if names is None else tuple(map(str, names))
