"""Architecture: what a network computes, apart from its numbers; resolved once, then frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import front
from cmlp.core.checks import check_dtype, check_input_scale, check_integer, check_number
from cmlp.core.layout import Array, make_plan
from cmlp.core.seam import Objective
from cmlp.core.vocabulary import (
    EXTERNAL_LOSS,
    LOSS_PARAMETERS,
    LOSSES,
    NORMALIZATION_EPS,
    NORMALIZATIONS,
    PRECISIONS,
    Loss,
    activation_of,
    lookup,
    number_text,
    unknown,
)
from cmlp.model import custom_loss as custom_losses
from cmlp.model.custom_loss import CustomLoss
from cmlp.model.inputs import Inputs


@dataclass(frozen=True)
class Architecture:
    """Layers, activations, loss and number type of a network.

    The attributes are those of :class:`cmlp.Network`; `activations` has the output's as its last.
    `loss` is None for a loss of the user's own, which is `custom_loss`.
    """

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: Loss | None
    loss_parameter: float
    dtype: np.dtype[Any]
    weight_init: str
    input_scale: float
    missing_targets: bool
    normalization: str | None
    parametric_activation: bool = False
    custom_loss: CustomLoss | None = None
    inputs: Inputs | None = None
    normalization_epsilon: float = NORMALIZATION_EPS
    precision: str | None = None

    @classmethod
    def resolve(
        cls,
        sizes: Sequence[int],
        activation: str | Sequence[str],
        out_activation: str | None,
        loss: str | CustomLoss | None,
        weight_init: str,
        dtype: Any,
        *,
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        input_scale: float = 1.0,
        missing_targets: bool = False,
        normalization: str | None = None,
        parametric_activation: bool = False,
        inputs: Inputs | None = None,
        normalization_epsilon: float = NORMALIZATION_EPS,
        precision: str | None = None,
    ) -> Architecture:
        """Check the parameters of :class:`cmlp.Network`, and fill in what they leave open."""
        units = check_sizes(sizes)
        normalization = _check_normalization(normalization, units)
        epsilon = check_normalization_epsilon(normalization_epsilon)
        parametric = _check_parametric(parametric_activation, units)
        inputs = _check_inputs(inputs, units)
        _check_memory(sizes, units, bool(normalization) + parametric, inputs)
        input_scale = check_input_scale(input_scale)
        if input_scale != 1 and inputs is not None:
            check_no_levels("input_scale", inputs)
        number_type = check_dtype(dtype)
        row, out = resolve_loss(loss, out_activation, units[-1])
        hidden = resolve_hidden(activation, len(units) - 2)
        parameters = loss_parameters(quantile, huber_delta)
        name = "custom" if row is None else row.name
        return cls(
            units,
            (*hidden, out),
            row,
            parameters.get(name, 0.0),
            number_type,
            weight_init,
            input_scale,
            check_missing_targets(missing_targets, name),
            normalization,
            parametric,
            loss if row is None and callable(loss) else None,
            inputs,
            epsilon if normalization else NORMALIZATION_EPS,
            check_precision(precision, number_type),
        )

    @property
    def loss_name(self) -> str:
        """The loss; 'custom' for a callable."""
        return "custom" if self.loss is None else self.loss.name

    @property
    def classifies(self) -> bool:
        """Whether the loss is a cross-entropy."""
        return self.loss is not None and self.loss.classifies

    @property
    def n_params(self) -> int:
        """Number of weights, biases, scales, alphas and numbers of a front, without the padding."""
        vectors = bool(self.normalization) + self.parametric_activation
        return n_params(self.sizes, vectors, self.inputs)

    @property
    def has_own_epsilon(self) -> bool:
        """Whether the normalisation adds another number to a variance than the default."""
        return self.normalization is not None and self.normalization_epsilon != NORMALIZATION_EPS

    @property
    def parts(self) -> list[front.Part]:
        """What happens to X's columns before the first layer; empty for nothing."""
        return [] if self.inputs is None else self.inputs.parts(*self.sizes[:2])

    @property
    def widths(self) -> tuple[int, ...]:
        """Fan-in of every layer, and the outputs: the sizes, but for a front."""
        return widths(self.sizes, self.inputs)

    @cached_property
    def unsuited(self) -> str:
        """Why the loss is not defined for the output activation; empty where it is."""
        try:
            resolve_loss(self.custom_loss or self.loss_name, self.activations[-1], self.sizes[-1])
        except ValueError as error:
            return str(error)
        return ""

    @cached_property
    def weights_argument(self) -> str:
        """How a loss of the user's own takes weights; see :mod:`cmlp.model.custom_loss`."""
        custom = self.custom_loss
        return "optional" if custom is None else custom_losses.weights_argument(custom)

    def plan(self) -> NDArray[np.int64]:
        """Return the layout of the layers, and of what is before the first one.

        See :func:`cmlp.core.layout.make_plan` and :func:`cmlp.core.front.with_front`.
        """
        plan = make_plan(
            self.widths, self.activations, self.dtype, self.normalization,
            self.parametric_activation, self.normalization_epsilon, self.precision,
        )  # fmt: skip
        if self.inputs is None:
            return plan
        return front.with_front(plan, self.parts, self.dtype)

    def with_activations(self, names: Any) -> Architecture:
        """Return a copy with these activations, one per layer, the output's last.

        The output's may be one that the loss is not defined for: see :attr:`unsuited`.
        """
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise TypeError(f"activations must be a list of names, one per layer, not {names!r}")
        listed, n_layers = list(names), len(self.sizes) - 1
        if len(listed) != n_layers:
            raise ValueError(
                f"activations must have {n_layers} names, one per layer, not {len(listed)}"
            )
        last = activation_of(listed.pop()).name
        hidden = resolve_hidden(listed, n_layers - 1)
        if last == "softmax" and self.sizes[-1] == 1:
            raise ValueError("softmax needs an output per class, but this network has 1 output")
        return replace(self, activations=(*hidden, last))

    def astype(self, dtype: Any) -> Architecture:
        """Return a copy with another number type; float64 has no precision."""
        found = check_dtype(dtype)
        return replace(self, dtype=found, precision=self.precision if found == np.float32 else None)

    def objective(
        self, *, label_smoothing: float = 0.0, l1: float = 0.0, l2: float = 0.0
    ) -> Objective:
        """Return what the core minimises."""
        if label_smoothing and not self.classifies:
            raise ValueError(
                f"label_smoothing needs a cross-entropy loss; this network's is {self.loss_name}"
            )
        code = EXTERNAL_LOSS if self.loss is None else self.loss.code
        missing = self.loss is not None and self.missing_targets
        return Objective(code, self.loss_parameter, label_smoothing, l1, l2, missing)

    def call_loss(
        self, out: Array, y: Array, weights: NDArray[np.float64] | None = None
    ) -> tuple[float, Array]:
        """Call the user's loss, and check what it returns: the value, and its slope."""
        assert self.custom_loss is not None
        return custom_losses.call(self.custom_loss, self.weights_argument, out, y, weights)

    # As text -------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return all but a loss of the user's own, as numbers, text and lists."""
        described = {
            "sizes": list(self.sizes),
            "activations": list(self.activations),
            "loss": self.loss_name,
            "loss_parameter": self.loss_parameter,
            "weight_init": self.weight_init,
            "dtype": self.dtype.name,
            "input_scale": self.input_scale,
            "missing_targets": self.missing_targets,
            "normalization": normalization_text(self.normalization, self.normalization_epsilon),
        }
        if self.parametric_activation:
            described["parametric_activation"] = True
        if self.precision is not None:
            described["precision"] = self.precision
        if self.unsuited:
            described["out_activation_given"] = True
        if self.inputs is not None:
            described["inputs"] = self.inputs.to_dict()
        return described

    @classmethod
    def from_dict(
        cls, described: dict[str, Any], custom_loss: CustomLoss | None = None
    ) -> Architecture:
        """Return what :meth:`to_dict` described; every entry is checked as a user's would be.

        Parameters
        ----------
        custom_loss : callable, optional
            The loss where it is 'custom'; without one, the first use of the loss raises.
        """
        *hidden, out = described["activations"]
        given = described.get("out_activation_given", False)
        loss = described["loss"]
        parameter = LOSS_PARAMETERS.get(loss)
        inputs = described.get("inputs")
        normalization, epsilon = read_normalization(described["normalization"])
        made = cls.resolve(
            described["sizes"],
            hidden,
            None if given else out,
            (custom_loss or custom_losses.lost_loss) if loss == "custom" else loss,
            described["weight_init"],
            described["dtype"],
            input_scale=described["input_scale"],
            missing_targets=described["missing_targets"],
            normalization=normalization,
            parametric_activation=described.get("parametric_activation", False),
            inputs=None if inputs is None else Inputs.from_dict(inputs),
            normalization_epsilon=epsilon,
            precision=described.get("precision"),
            **({parameter: described["loss_parameter"]} if parameter else {}),
        )
        return made.with_activations([*hidden, out]) if given else made

    def __str__(self) -> str:
        hidden = self.activations[:-1]
        activation: Any = hidden[0] if len(set(hidden)) == 1 else list(hidden)
        named = f", activation={activation!r}" if hidden else ""
        scaled = f", input_scale={self.input_scale!r}" if self.input_scale != 1 else ""
        if self.normalization:
            scaled += f", normalization={self.normalization!r}"
        if self.has_own_epsilon:
            scaled += f", normalization_epsilon={number_text(self.normalization_epsilon)}"
        if self.parametric_activation:
            scaled += ", parametric_activation=True"
        if self.precision is not None:
            scaled += f", precision={self.precision!r}"
        if self.inputs is not None:
            scaled += f", inputs={self.inputs}"
        loss = f"loss={self.loss_name!r}"
        if parameter := LOSS_PARAMETERS.get(self.loss_name):
            loss += f", {parameter}={self.loss_parameter!r}"
        return (
            f"{list(self.sizes)}{named}, out_activation={self.activations[-1]!r}, "
            f"{loss}, dtype={self.dtype.name!r}{scaled}"
        )

    def summary(self) -> str:
        """Return a table of the layers, with the number of parameters."""
        rows = [("layer", "in", "out", "activation", "weights", "biases")]
        layers = zip(pairwise(self.widths), self.activations, strict=True)
        for number, ((n_in, n_out), activation) in enumerate(layers, 1):
            weights, biases = f"{n_in * n_out:,}", f"{n_out:,}"
            rows.append((str(number), str(n_in), str(n_out), activation, weights, biases))
        columns = zip((5, 6, 5, 12, 9, 7), *rows, strict=True)
        widths = [max(least, *map(len, cells)) for least, *cells in columns]
        row = "{{:>{}}}  {{:>{}}} -> {{:>{}}}  {{:{}}}  {{:>{}}}  {{:>{}}}".format(*widths)
        lines = [row.format(*cells) for cells in rows]
        if self.inputs is not None:
            lines += [f"  {line}" for line in self.inputs.lines(*self.sizes[:2])]
        size = self.n_params * self.dtype.itemsize
        bytes = f"{size / 1000:,.1f} kB" if size >= 1000 else f"{size} bytes"
        scaled = f", inputs times {self.input_scale:g}" if self.input_scale != 1 else ""
        if self.normalization:
            scaled += f", hidden layers normalised by {self.normalization}"
        if self.has_own_epsilon:
            scaled += f" (epsilon {number_text(self.normalization_epsilon)})"
        if self.parametric_activation:
            scaled += ", hidden activations with an alpha per unit"
        if self.precision is not None:
            scaled += f", products in {self.precision}"
        lines.append(
            f"{self.n_params:,} parameters ({bytes}, {self.dtype.name}), "
            f"loss {self.loss_name}{scaled}"
        )
        return "\n".join(lines)


# What a user leaves open, and what does not fit -------------------------------------------------


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the units of the layers, of which there are two at least."""
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(f"sizes must be a sequence such as [64, 32, 10], not {sizes!r}")
    units = tuple(check_integer("every size", size, 1) for size in sizes)
    if len(units) < 2:
        raise ValueError(f"sizes needs inputs and outputs, as in [64, 10]; it is {sizes!r}")
    return units


def widths(sizes: tuple[int, ...], inputs: Inputs | None) -> tuple[int, ...]:
    """Return the fan-in of every layer, and the outputs."""
    if inputs is None:
        return sizes
    return front.n_inputs(inputs.parts(*sizes[:2])), *sizes[1:]


def n_params(sizes: tuple[int, ...], vectors: int = 0, inputs: Inputs | None = None) -> int:
    """Return the number of parameters, without the padding.

    `vectors` counts those that each hidden layer has besides its biases: gamma, alpha.
    """
    arrays = 0 if inputs is None else inputs.n_params(*sizes[:2])
    layers = pairwise(widths(sizes, inputs))
    return sum((n_in + 1) * n_out for n_in, n_out in layers) + vectors * sum(sizes[1:-1]) + arrays


def _check_inputs(inputs: Inputs | None, sizes: tuple[int, ...]) -> Inputs | None:
    """Check that the columns named are there; what leaves all of them as they are is None."""
    if inputs is None:
        return None
    if not isinstance(inputs, Inputs):
        raise TypeError(f"inputs must be a cmlp.Inputs, not {inputs!r}")
    inputs.parts(*sizes[:2])
    return None if inputs.is_plain else inputs


def check_no_levels(name: str, inputs: Inputs) -> None:
    """Refuse what would change the columns that hold numbers of rows of a table."""
    columns = inputs.columns_of_levels
    if columns:
        raise ValueError(
            f"{name} has no meaning for column {columns[0]}, which holds numbers of rows of a "
            "table: scale the other columns yourself"
        )


def _check_memory(given: Any, sizes: tuple[int, ...], vectors: int, inputs: Inputs | None) -> None:
    number = n_params(sizes, vectors, inputs)
    if number > 1 << 44:
        raise ValueError(f"sizes={given!r} takes {number:.1e} parameters: no memory holds them")


def resolve_loss(
    loss: str | CustomLoss | None, out_activation: str | None, n_out: int
) -> tuple[Loss | None, str]:
    """Find loss and output activation from each other, or from the number of outputs."""
    out = out_activation and activation_of(out_activation, "out_activation")
    if callable(loss):
        return None, out.name if out else "identity"
    if loss is None:
        names = {row.out_activation: row.name for row in reversed(LOSSES)}
        default = "categorical_crossentropy" if n_out > 1 else "squared_error"
        loss = names.get(out.name, "squared_error") if out else default
    row = lookup("loss", LOSSES, loss)
    out = out or activation_of(row.out_activation)
    if row.domain[0] > out.range[0] or row.domain[1] < out.range[1]:
        raise ValueError(
            f"{row.name} needs outputs between {row.domain[0]:g} and {row.domain[1]:g}, but "
            f"out_activation={out.name!r} leaves that range; use {row.out_activation!r}"
        )
    if n_out == 1 and "softmax" in (out.name, row.out_activation):
        raise ValueError(
            f"{row.name} with {out.name} needs an output per class; for two classes with one "
            "output use loss='binary_crossentropy'"
        )
    return row, out.name


def resolve_hidden(activation: str | Sequence[str], n_hidden: int) -> list[str]:
    """Return the activations of the hidden layers: one name for all, or a name for each."""
    if not isinstance(activation, Iterable):
        raise TypeError(f"activation must be a name or a list of names, not {activation!r}")
    names = [activation] * n_hidden if isinstance(activation, str) else list(activation)
    if isinstance(activation, str):
        activation_of(activation)
    if len(names) != n_hidden:
        raise ValueError(
            f"activation has {len(names)} names, but there are {n_hidden} hidden layers"
        )
    rows = [activation_of(name) for name in names]
    for row in rows:
        if row.output_only:
            raise ValueError(f"{row.name} is for the output layer: out_activation={row.name!r}")
    return [row.name for row in rows]


def loss_parameters(quantile: float, huber_delta: float) -> dict[str, float]:
    """Return the parameter of each loss that has one."""
    quantile = check_number("quantile", quantile, 0, 1)
    huber_delta = check_number("huber_delta", huber_delta, 0)
    return {"quantile": quantile, "huber": huber_delta}


def check_missing_targets(missing_targets: Any, loss_name: str) -> bool:
    """Return whether NaN targets are treated as missing."""
    if missing_targets and loss_name == "categorical_crossentropy":
        raise ValueError(
            "missing_targets has no meaning for categorical_crossentropy, whose outputs share "
            "one target: leave the rows out, or give them the sample_weight 0"
        )
    return bool(missing_targets)


def _check_normalization(normalization: str | None, sizes: tuple[int, ...]) -> str | None:
    if normalization is None:
        return None
    names = NORMALIZATIONS[1:]
    if normalization not in names:
        raise unknown("normalization", normalization, names, ("None", *names))
    if len(sizes) == 2:
        raise ValueError("normalization needs a hidden layer; this network has none")
    return normalization


def normalization_text(normalization: str | None, epsilon: float) -> str | None:
    """Return both as one text, 'layer:0.001', which a reader that has no epsilon refuses."""
    if normalization is None or epsilon == NORMALIZATION_EPS:
        return normalization
    return f"{normalization}:{number_text(epsilon)}"


def read_normalization(text: str | None) -> tuple[str | None, float]:
    """Return normalisation and epsilon of what :func:`normalization_text` returned.

    Raises
    ------
    ValueError
        If it is another text.
    """
    name, colon, number = (text or "").partition(":")
    if name not in NORMALIZATIONS or not colon:
        return text, NORMALIZATION_EPS
    epsilon = check_normalization_epsilon(float(number))
    if normalization_text(name, epsilon) != text:
        raise ValueError(f"unknown normalization {text!r}")
    return name, epsilon


def check_normalization_epsilon(epsilon: Any) -> float:
    """Return what is added to a variance as a float that is above zero also as a float32."""
    return check_number("normalization_epsilon", epsilon, 1e-37, 1e37)


def check_precision(precision: Any, dtype: np.dtype[Any]) -> str | None:
    """Return the precision of the products of a network with this number type."""
    if precision is None:
        return None
    if precision not in (names := PRECISIONS[1:]):
        raise unknown("precision", precision, names, ("None", *names))
    if dtype != np.float32:
        raise ValueError(
            f"precision={precision!r} rounds the numbers of float32; it is not for "
            f"dtype={dtype.name!r}"
        )
    return str(precision)


def _check_parametric(parametric_activation: Any, sizes: tuple[int, ...]) -> bool:
    if parametric_activation and len(sizes) == 2:
        raise ValueError("parametric_activation needs a hidden layer; this network has none")
    return bool(parametric_activation)
