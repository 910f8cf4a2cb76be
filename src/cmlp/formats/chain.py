"""The neutral form of a model on its way out or in: steps from rows to outputs, in plain arrays.

Every exit reads a :class:`Chain` and every entry makes one, so that folding happens here, once:
batch normalisation, factors of inputs and a scale of X are in the weights, the mean of a scaler is
not (float32 would lose it; it is subtracted first). :func:`run` computes a chain in float64, from
the formulas of the NumPy twin: the oracle of all exits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core import front
from cmlp.core.layout import Array
from cmlp.core.public import set_module
from cmlp.core.reference import embed, periodic
from cmlp.core.reference.activations import CODES, function
from cmlp.core.vocabulary import (
    ACTIVATION_PARAMETERS,
    LARGEST_PARAMETER,
    activation_of,
    with_parameter,
)
from cmlp.model.folding import fold_statistics
from cmlp.model.state import State

LAYER_NORM_EPSILON = 1e-5


@set_module("cmlp")
class ConversionError(ValueError):
    """A model, or a file, has a part that has no counterpart on the other side."""


@dataclass(frozen=True)
class Affine:
    """``z = a W + b``.

    Attributes
    ----------
    weights : ndarray, (n_in, n_out)
    bias : ndarray, (n_out,), or None
    """

    weights: Array
    bias: Array | None


@dataclass(frozen=True)
class LayerNorm:
    """``gamma (z - mean) / sqrt(variance + epsilon) + beta``, mean and variance of each row."""

    gamma: Array
    beta: Array
    epsilon: float = LAYER_NORM_EPSILON


@dataclass(frozen=True)
class Activation:
    """``a = f(z)``; with `alphas`, one per unit, ``z + alpha (f(z) - z)``.

    The name may have a parameter: 'leaky_relu:0.3', as networks have it.
    """

    name: str
    alphas: Array | None = None

    @property
    def kind(self) -> str:
        """The name without the parameter: a key of the tables of all ways."""
        return self.name.partition(":")[0]

    @property
    def parameter(self) -> float:
        """The slope of leaky_relu, the alpha of elu; 0 of others."""
        return activation_of(self.name).parameter


Step = Affine | LayerNorm | Activation


def named(kind: str, parameter: Any, where: str) -> str:
    """Return the name of an activation with a parameter, as it came from `where`.

    A number that is one of float32 is its shortest text there: 0.3, and not 0.30000001192092896.

    Raises
    ------
    ConversionError
        If it is no parameter that cmlp has.
    """
    called = ACTIVATION_PARAMETERS[kind]
    if isinstance(parameter, bool) or not isinstance(parameter, (int, float)):
        raise ConversionError(f"{where} has a {called} that is no number")
    if not 0 <= parameter <= float(np.float32(LARGEST_PARAMETER)):  # which is a little larger
        raise ConversionError(
            f"{where} has the {called} {short(parameter)}; cmlp has those from 0 to "
            f"{LARGEST_PARAMETER:g}"
        )
    single = np.float32(parameter)
    number = float(str(single)) if float(single) == parameter else float(parameter)
    return with_parameter(activation_of(kind), number).name


@dataclass(frozen=True)
class Plain:
    """Columns that are inputs as they are, from `first` on."""

    first: int
    count: int


@dataclass(frozen=True)
class Periodic:
    """Columns that become ``V cos(2 pi w x + b) + d``, and x.

    Attributes
    ----------
    w, b : ndarray, (count, frequencies)
    V : ndarray, (count, width, frequencies)
    d : ndarray, (count, width)
    """

    first: int
    count: int
    w: Array
    b: Array
    V: Array
    d: Array


@dataclass(frozen=True)
class Table:
    """A column that tells a row of a table, or a place between two rows.

    Attributes
    ----------
    rows : ndarray, (n_rows, width)
    summed : bool
        Whether the row is added to the first layer's sums, and not an input.
    """

    column: int
    rows: Array
    summed: bool


Part = Plain | Periodic | Table


@dataclass(frozen=True)
class Unit:
    """What turns a member's outputs into numbers: ``clip(spread y + centre, low, high)``, each
    (n_outputs,)."""

    spread: Array
    centre: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Member:
    """One network.

    Attributes
    ----------
    front : tuple of Plain, Periodic and Table
        In the order of the first layer's inputs; empty if these are X's columns.
    steps : tuple of Affine, LayerNorm and Activation
        The last is the activation of the outputs.
    unit : Unit or None
    """

    steps: tuple[Step, ...]
    front: tuple[Part, ...] = ()
    unit: Unit | None = None

    @property
    def affine(self) -> list[Affine]:
        """The affine steps."""
        return [step for step in self.steps if isinstance(step, Affine)]

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return int(self.affine[-1].weights.shape[1])


@dataclass(frozen=True)
class Chain:
    """A model.

    Attributes
    ----------
    n_in : int
        Columns of X.
    members : tuple of Member
        Whose outputs are averaged.
    mean : ndarray, (n_in,), or None
        What is subtracted from X first.
    classes : ndarray or None
        Labels of a classifier: of the outputs, of both of one output, or of several labels a row.
    multilabel : bool
        Whether each output is a label of its own.
    feature_names : tuple of str, or None
    target_name : str or None
    """

    n_in: int
    members: tuple[Member, ...]
    mean: NDArray[np.float64] | None = None
    classes: Array | None = None
    multilabel: bool = False
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type of the weights."""
        return self.members[0].affine[0].weights.dtype

    @property
    def head(self) -> str:
        """What the outputs are: 'softmax', 'logistic' (one, of two classes), 'labels', 'numbers'.

        Without class labels an output is a number, whatever its activation is.
        """
        last = self.members[0].steps[-1]
        assert isinstance(last, Activation)
        if self.multilabel:
            return "labels"
        if last.name == "softmax":
            return "softmax"
        binary = last.name == "logistic" and self.members[0].n_out == 1
        return "logistic" if binary and self.classes is not None else "numbers"

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.members[0].n_out


# From a network ----------------------------------------------------------------------------------


def member_of(net: State, unit: Unit | None = None) -> Member:
    """Return a network's steps, in its dtype, for prediction.

    Raises
    ------
    ConversionError
        If X has a scale, and a front whose columns are no numbers.
    """
    plain = fold_statistics(net)
    if net.input_scale != 1 and plain.inputs is not None:
        raise ConversionError(
            "a network with inputs=... and input_scale cannot leave: divide X before, and train "
            "with input_scale=1"
        )
    steps: list[Step] = []
    last = len(plain.weights) - 1
    for number, (W, b) in enumerate(zip(plain.weights, plain.biases, strict=True)):
        weights = np.ascontiguousarray(W)
        if number == 0 and net.input_scale != 1:
            weights = (weights.astype(np.float64) * net.input_scale).astype(net.dtype)
        normalised = plain.normalization == "layer" and number < last
        steps.append(Affine(weights, None if normalised else b.copy()))
        if normalised:
            gamma, epsilon = plain.scales[number].copy(), net.architecture.normalization_epsilon
            steps.append(LayerNorm(gamma, b.copy(), epsilon))
        alphas = plain.alphas[number].copy() if plain.alphas and number < last else None
        steps.append(Activation(plain.activations[number], alphas))
    return Member(tuple(steps), _front(plain), unit)


def _front(net: State) -> tuple[Part, ...]:
    """Return what happens to X's columns before the first layer."""
    if net.inputs is None:
        return ()
    plan, params = net.architecture.plan(), net.params
    parts: list[Part] = []
    for row in front.front_of(plan).tolist():
        kind, first, count = row[front.KIND], row[front.FIRST], row[front.COUNT]
        if kind == front.PLAIN:
            parts.append(Plain(first, count))
        elif kind == front.PERIODIC:
            waves = front.waves_of(row, params)
            parts.append(Periodic(first, count, *(np.array(array) for array in waves)))
        elif kind in (front.LEVELS, front.SUMMED):
            table = np.array(front.table_of(row, params))
            parts.append(Table(first, table, kind == front.SUMMED))
    return tuple(parts)


# The oracle --------------------------------------------------------------------------------------


def run(chain: Chain, X: ArrayLike, *, raw: bool = False) -> NDArray[np.float64]:
    """Compute a chain's outputs in float64.

    Parameters
    ----------
    X : array_like, (n, n_in)
    raw : bool
        Return the sums before the last activation.

    Returns
    -------
    ndarray of float64, (n, n_out)
    """
    x = np.asarray(X, np.float64)
    if chain.mean is not None:
        x = x - chain.mean
    with np.errstate(all="ignore"):
        outputs = [run_member(member, x, raw=raw) for member in chain.members]
    total = outputs[0].copy()
    for part in outputs[1:]:
        total += part
    return total / len(outputs)


def run_member(member: Member, x: NDArray[np.float64], *, raw: bool = False) -> NDArray[np.float64]:
    """Compute the outputs of one network, from rows whose means are subtracted."""
    a, sums = expand(member.front, x)
    for number, step in enumerate(member.steps):
        if isinstance(step, Affine):
            a = a @ step.weights.astype(np.float64)
            if step.bias is not None:
                a = a + step.bias
            if number == 0 and sums is not None:
                a = a + sums
        elif isinstance(step, LayerNorm):
            centred = a - a.mean(axis=1, keepdims=True)
            variance = np.square(centred).mean(axis=1, keepdims=True)
            a = step.gamma * centred / np.sqrt(variance + step.epsilon) + step.beta
        elif not (raw and number == len(member.steps) - 1):
            f = activate(step.name, a)
            a = f if step.alphas is None else a + step.alphas * (f - a)
    if member.unit is not None:
        unit = member.unit
        a = np.clip(a * unit.spread + unit.centre, unit.low, unit.high)
    return a


def activate(name: str, z: Any) -> Any:
    """Return the values of an activation, whose parameter may follow its name."""
    row = activation_of(name)
    return function(row.code, row.parameter, z)  # type: ignore[no-untyped-call]


def expand(
    parts: tuple[Part, ...], x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the first layer's inputs, and what is added to its sums, or None."""
    if not parts:
        return x, None
    values: list[NDArray[np.float64]] = []
    sums: NDArray[np.float64] | None = None
    for part in parts:
        if isinstance(part, Plain):
            values.append(x[:, part.first : part.first + part.count])
        elif isinstance(part, Periodic):
            columns = x[:, part.first : part.first + part.count]
            e: Any = periodic.embed_periodic(part, columns)[0]  # type: ignore[no-untyped-call]
            values.append(e.reshape(len(x), -1))
        else:
            rows: Any = embed.embed(part.rows.astype(np.float64), x[:, part.column])  # type: ignore[no-untyped-call]
            if part.summed:
                sums = rows if sums is None else sums + rows
            else:
                values.append(rows)
    return np.concatenate(values, axis=1) if values else np.zeros((len(x), 1)), sums


# Scalers -----------------------------------------------------------------------------------------


def with_scaler(chain: Chain, mean: ArrayLike, factor: ArrayLike) -> Chain:
    """Put ``(x - mean) factor`` in front of a chain; the factors go into the first weights.

    Raises
    ------
    ConversionError
        If a member has a front: its columns are no plain numbers.
    """
    means: NDArray[np.float64] = np.asarray(mean, np.float64)
    factors: NDArray[np.float64] = np.asarray(factor, np.float64)
    if any(member.front for member in chain.members):
        raise ConversionError("a scaler before a network with inputs=... has no neutral form")
    if chain.mean is not None:  # (x - m) f - n = (x - (m + n / f)) f
        if not factors.all():
            raise ConversionError("a scaler with the factor 0 before another one")
        means = means + chain.mean / factors
    members = []
    for member in chain.members:
        first = member.steps[0]
        assert isinstance(first, Affine)
        W = (first.weights.astype(np.float64) * factors[:, None]).astype(first.weights.dtype)
        members.append(replace(member, steps=(Affine(W, first.bias), *member.steps[1:])))
    return replace(chain, members=tuple(members), mean=means if means.any() else None)


def with_narrow_mean(chain: Chain) -> Chain:
    """Return a chain whose mean has the digits of its number type; the first biases have the rest.

    A mean of 1e7 has an error of 0.5 in float32, which is no part of X there.
    """
    if chain.mean is None:
        return chain
    mean = chain.mean.astype(chain.dtype).astype(np.float64)
    members = []
    for member in chain.members:
        first = member.steps[0]
        assert isinstance(first, Affine)
        shift = (mean - chain.mean) @ first.weights.astype(np.float64)
        bias = shift if first.bias is None else first.bias + shift
        if shift.any():
            first = Affine(first.weights, bias.astype(chain.dtype))
        members.append(replace(member, steps=(first, *member.steps[1:])))
    return replace(chain, members=tuple(members), mean=mean)


def check(chain: Chain) -> Chain:
    """Return the chain, if its arrays fit each other and are finite.

    Raises
    ------
    ConversionError
        Naming the step that does not fit.
    """
    for number, member in enumerate(chain.members):
        of = f" of member {number}" if len(chain.members) > 1 else ""
        affine = member.affine
        for place, (a, b) in enumerate(pairwise(affine), 1):
            if a.weights.shape[1] != b.weights.shape[0]:
                raise ConversionError(
                    f"layer {place}{of} has {a.weights.shape[1]} outputs, the next one takes "
                    f"{b.weights.shape[0]}"
                )
        place = 0
        for step in member.steps:
            place += isinstance(step, Affine)
            arrays = [each for each in vars(step).values() if isinstance(each, np.ndarray)]
            if not all(np.isfinite(array).all() for array in arrays):
                raise ConversionError(f"layer {place}{of} has weights that are not finite")
    return chain


def check_names(chain: Chain) -> Chain:
    """Return the chain, if all ways out have its activations.

    Raises
    ------
    ConversionError
        Naming one that they do not have.
    """
    for member in chain.members:
        for step in member.steps:
            if isinstance(step, Activation) and step.kind not in CODES:
                raise ConversionError(
                    f"the activation {step.name!r} cannot leave; these can: {', '.join(CODES)}"
                )
    return chain
