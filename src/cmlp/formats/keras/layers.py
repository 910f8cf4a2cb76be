"""The description of a Keras model, of JSON's kinds, and its arrays become layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.formats.building import Builder, no_counterpart
from cmlp.formats.chain import ConversionError, named
from cmlp.formats.keras.file import MAX_DEPTH, Arrays, snake_case
from cmlp.formats.keras.graph import MODELS, chains_of_mean, check_chain

SAME = {
    "linear": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu", "elu": "elu",
    "selu": "selu", "gelu": "gelu", "silu": "silu", "swish": "silu", "mish": "mish",
    "softplus": "softplus", "exponential": "exp", "softmax": "softmax",
}  # fmt: skip
"""Keras' names of functions that are the same in all versions; others have a constant."""

WITHOUT_EFFECT = (
    "InputLayer", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "Identity",
    "ActivityRegularization",
)  # fmt: skip
"""Layers that leave rows as they are, in prediction."""

KERAS_SLOPE = 0.2
"""Of the function leaky_relu; the layer's own default is 0.3."""


class Layer(NamedTuple):
    """A layer: where it is, its class, its description, and its arrays."""

    where: str
    kind: str
    config: dict[str, Any]
    arrays: list[Array]


def builders_of(config: Any, version: str, arrays: Arrays) -> list[Builder]:
    """Collect the layers of a description.

    Returns
    -------
    list of Builder
        One; or one for each network whose mean the model ends in.

    Raises
    ------
    ConversionError
        Naming the first layer that has no counterpart.
    """
    kind, inner, layers = _described(config, 0)
    chains = [] if kind == "Sequential" else chains_of_mean(layers, inner.get("output_layers"))
    if not chains:
        return [_builder_of(_flat(config, (), arrays), version)]
    return [_builder_of(_flat(config, (), arrays, only=set(chain)), version) for chain in chains]


def _builder_of(layers: Iterable[Layer], version: str) -> Builder:
    """Collect the layers of one network."""
    builder, rank = Builder(), 2
    for layer in layers:
        shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
        if isinstance(shape, Sequence) and builder.width is None and rank == 2:
            rank = len(shape)
            sizes = [size for size in shape[1:] if isinstance(size, int) and size > 0]
            if rank >= 2 and len(sizes) == rank - 1:
                builder.width = math.prod(sizes)
        if layer.kind in WITHOUT_EFFECT:
            continue
        if layer.kind == "Flatten":
            if rank > 2 and layer.config.get("data_format") == "channels_first":
                raise no_counterpart(layer.where, "data_format='channels_first'")
            rank = 2
            continue
        if rank != 2 and layer.kind != "Rescaling":
            raise no_counterpart(layer.where, f"its rows have {rank - 1} axes; flatten them first")
        _add(builder, layer, version)
    return builder


def _described(config: Any, depth: int) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Return the class of a model, its description, and those of its layers in order."""
    if not isinstance(config, dict) or depth > MAX_DEPTH:
        raise ConversionError("the description of a model is not what Keras writes")
    kind, inner = config.get("class_name"), config.get("config")
    if kind not in MODELS or not isinstance(inner, dict):
        raise ConversionError(
            f"the model is a {short(kind)}; only Sequential and functional models of Keras are "
            "layers in a known order"
        )
    layers = inner.get("layers")
    if not (
        isinstance(layers, list)
        and all(isinstance(each, dict) and isinstance(each.get("config"), dict) for each in layers)
    ):
        raise ConversionError("the description of a model is not what Keras writes")
    return kind, inner, layers


def _children(
    config: Any, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, str, dict[str, Any]]]:
    """Yield place in the file, class, name and description of a model's layers."""
    _, _, layers = _described(config, len(place))
    used: Counter[str] = Counter()
    for layer in layers:
        kind, name = str(layer.get("class_name")), str(layer["config"].get("name"))
        key = snake_case(kind)
        number = used[key]
        used[key] += 1
        yield (*place, f"{key}_{number}" if number else key), kind, name, layer


def _flat(
    config: Any,
    place: tuple[str, ...],
    arrays: Arrays,
    above: tuple[str, ...] = (),
    only: Collection[str] | None = None,
) -> Iterator[Layer]:
    """Yield the layers of a model, and of models within it; or `only` some, which are a chain."""
    if only is None:
        model, inner, layers = _described(config, len(place))
        if model != "Sequential":
            check_chain(layers, inner.get("output_layers"))
    for number, (here, kind, name, layer) in enumerate(_children(config, place), 1):
        if only is not None and name not in only:
            continue
        module = layer.get("module")
        if module is not None and str(module).split(".")[0] not in ("keras", "tf_keras"):
            raise ConversionError(
                f"layer {number} is a {short(kind)} of {short(module)}, which is not Keras'"
            )
        if kind in MODELS:
            yield from _flat(layer, here, arrays, (*above, name))
            continue
        where = f"layer {number} ({short(kind)[1:-1]}, {short('/'.join((*above, name)))})"
        has_arrays = kind in ("Dense", "BatchNormalization", "LayerNormalization", "Normalization")
        found = arrays(here, (*above, name)) if has_arrays else []
        yield Layer(where, kind, layer["config"], found)


# Layers ------------------------------------------------------------------------------------------


def _add(builder: Builder, layer: Layer, version: str) -> None:
    """Add a layer."""
    where, kind, config, arrays = layer
    if kind == "Dense":
        if config.get("quantization_config") or config.get("lora_rank"):
            raise no_counterpart(where, "quantised, or with LoRA")
        expected = 2 if config.get("use_bias", True) else 1
        _check_count(where, arrays, expected)
        builder.affine(where, arrays[0], arrays[1] if expected == 2 else None)
        _add_function(builder, where, config.get("activation"), version)
    elif kind == "BatchNormalization":
        _check_axis(where, config)
        gamma, beta, (mean, variance) = _gamma_beta(layer, 2)
        builder.batch_norm(where, mean, variance, _number(where, config, "epsilon"), gamma, beta)
    elif kind == "LayerNormalization":
        _check_axis(where, config)
        epsilon = _number(where, config, "epsilon")
        if config.get("rms_scaling"):
            raise no_counterpart(where, "rms_scaling=True")
        gamma, beta, _ = _gamma_beta(layer, 0)
        builder.layer_norm(where, gamma, beta, epsilon)
    elif kind == "Rescaling":
        factor, shift = (np.asarray(config.get(name)) for name in ("scale", "offset"))
        if not (
            factor.size == shift.size == 1 and {factor.dtype.kind, shift.dtype.kind} <= set("if")
        ):
            raise no_counterpart(where, "a scale per axis")
        if builder.width is None:
            raise ConversionError(f"{where} does not tell the number of columns: add an Input")
        builder.scale(where, factor, shift)
    elif kind == "Normalization":
        _add_normalization(builder, layer)
    elif kind == "Activation":
        _add_function(builder, where, config.get("activation"), version)
    else:
        builder.activation(where, _constants(where, kind, config, version))


def _add_function(builder: Builder, where: str, given: Any, version: str) -> None:
    """Add an activation: a name, or the description of a function or a layer."""
    if isinstance(given, dict):
        kind, inner = given.get("class_name"), given.get("config")
        if kind == "function" and isinstance(inner, str):
            given = inner
        elif isinstance(inner, dict) and str(given.get("module", "keras")).startswith("keras"):
            builder.activation(where, _constants(where, str(kind), inner, version))
            return
    name = "linear" if given is None else given
    if not isinstance(name, str):
        raise no_counterpart(where, f"activation={short(name)}")
    if name in SAME:
        builder.activation(where, SAME[name])
    elif name == "hard_sigmoid":
        if version.split(".")[0] in ("1", "2"):
            raise ConversionError(
                f"{where} has hard_sigmoid of Keras {version}, clip(0.2 x + 1/2, 0, 1), but cmlp "
                "has clip(x / 6 + 1/2, 0, 1), as Keras 3"
            )
        builder.activation(where, "hard_sigmoid")
    elif name == "leaky_relu":
        builder.activation(where, named("leaky_relu", KERAS_SLOPE, where))
    else:
        raise no_counterpart(where, f"activation={short(name)}")


def _constants(where: str, kind: str, config: dict[str, Any], version: str) -> str:
    """Return the activation that a layer of its own is, with its slope or alpha."""
    if kind == "ReLU":
        slope = config.get("negative_slope") or 0.0
        if config.get("max_value") is not None:
            raise no_counterpart(where, f"max_value={short(config['max_value'])}")
        if config.get("threshold"):
            raise no_counterpart(where, f"threshold={short(config['threshold'])}")
        return named("leaky_relu", slope, where) if slope else "relu"
    if kind == "LeakyReLU":
        slope = config.get("negative_slope", config.get("alpha", 0.3))
        return named("leaky_relu", slope, where)
    if kind == "ELU":
        return named("elu", config.get("alpha", 1.0), where)
    if kind == "Softmax":
        if config.get("axis", -1) not in (-1, 1, [-1], [1]):
            raise no_counterpart(where, f"axis={short(config['axis'])}")
        return "softmax"
    raise no_counterpart(where)


def _add_normalization(builder: Builder, layer: Layer) -> None:
    """Add ``(x - mean) / max(sqrt(variance), 1e-7)``, adapted or with the numbers given."""
    where, _, config, arrays = layer
    if config.get("invert"):
        raise no_counterpart(where, "invert=True")
    _check_axis(where, config)
    if config.get("mean") is not None:
        numbers = [config["mean"], config.get("variance")]
    else:
        if len(arrays) < 2:
            raise ConversionError(f"{where} was not adapted to data")
        numbers = list(arrays[:2])
    try:
        mean, variance = (np.asarray(each, np.float64).reshape(-1) for each in numbers)
    except (TypeError, ValueError) as error:
        raise no_counterpart(where, "its mean and variance are no numbers") from error
    factor = 1 / np.maximum(np.sqrt(np.maximum(variance, 0)), 1e-7)
    builder.scale(where, factor, -mean * factor)


def _gamma_beta(layer: Layer, more: int) -> tuple[Any, Any, list[Array]]:
    """Return gamma and beta of a normalisation, None for what it has not, and the other arrays."""
    names = [name for name in ("scale", "center") if layer.config.get(name, True)]
    _check_count(layer.where, layer.arrays, len(names) + more)
    rest = list(layer.arrays)
    gamma = rest.pop(0) if "scale" in names else None
    beta = rest.pop(0) if "center" in names else None
    return gamma, beta, rest


def _check_count(where: str, arrays: list[Array], expected: int) -> None:
    if len(arrays) != expected:
        raise ConversionError(f"{where} has {len(arrays)} arrays, {expected} are expected")


def _check_axis(where: str, config: dict[str, Any]) -> None:
    if config.get("axis", -1) not in (-1, 1, [-1], [1]):
        raise no_counterpart(where, f"axis={short(config['axis'])}")


def _number(where: str, config: dict[str, Any], name: str) -> float:
    value = config.get(name, 1e-3)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        raise ConversionError(f"{where} has {name}={short(value)}, not a number")
    return float(value)
