"""Models for Keras, and networks from there: from a model in memory, or from its file.

Keras is imported when a model of it is made; files are read without its loader.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.layout import Array
from cmlp.exchange.chains import chain_of
from cmlp.exchange.ensembles import finish_mean
from cmlp.exchange.networks import finish
from cmlp.formats import layouts
from cmlp.formats.building import Builder
from cmlp.formats.chain import (
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
    with_narrow_mean,
)
from cmlp.formats.keras import file
from cmlp.formats.keras.layers import builders_of
from cmlp.model.custom_loss import CustomLoss

IN_KERAS = {
    "identity": "linear",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "LeakyReLU",  # a layer: the function has another slope
    "elu": "elu",
    "selu": "selu",
    "gelu": "gelu",
    "silu": "silu",
    "mish": "mish",
    "softplus": "softplus",
    "hard_sigmoid": "hard_sigmoid",
    "exp": "exponential",
    "softmax": "softmax",
}
"""Name of each activation in Keras 3."""


def to_keras(model: Any) -> Any:
    """Return a model as one of Keras 3, with any of its backends.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        As for :func:`cmlp.to_onnx`; without ``inputs=...`` and ``parametric_activation``.

    Returns
    -------
    keras.Sequential
        ``Dense`` layers, in the network's number type; 'leaky_relu', and 'elu' with an alpha, are
        layers of their own, as Keras' slopes are others, and so are layer normalisation with its
        epsilon, and the means that a pipeline's scaler subtracts. An ensemble becomes a functional
        model whose last layer is their ``Average``. It is not compiled.

    Raises
    ------
    ConversionError
        Naming the part that has no layer.
    ImportError
        Without Keras 3.

    Examples
    --------
    >>> import cmlp
    >>> model = cmlp.to_keras(cmlp.Network([4, 8, 3], seed=0))  # doctest: +SKIP
    """
    import keras

    if int(keras.__version__.split(".")[0]) < 3:
        raise ConversionError(f"Keras 3 is needed, this is Keras {keras.__version__}")
    chain = with_narrow_mean(chain_of(model))
    single = len(chain.members) == 1
    for member in chain.members:
        layouts.plain_member(Chain(chain.n_in, (member,)), "Keras")
    dtype = chain.dtype.name
    means = [] if chain.mean is None else [_keras_means(keras, chain.mean, dtype)]
    if single:
        layers = _keras_layers(keras, chain.members[0], dtype)
        whole = keras.Sequential([keras.Input((chain.n_in,), dtype=dtype), *means, *layers])
    else:
        rows = x = keras.Input((chain.n_in,), dtype=dtype)
        for layer in means:
            x = layer(x)
        outputs = []
        for number, member in enumerate(chain.members):
            out = x
            for layer in _keras_layers(keras, member, dtype, f"member_{number}_"):
                out = layer(out)
            outputs.append(out)
        whole = keras.Model(rows, keras.layers.Average(dtype=dtype)(outputs))
    _set_keras_weights(whole, chain)
    return whole


def _keras_means(keras: Any, mean: Any, dtype: str) -> Any:
    ones = [1.0] * len(mean)
    return keras.layers.Normalization(mean=mean.tolist(), variance=ones, dtype=dtype)


def _keras_layers(keras: Any, member: Member, dtype: str, prefix: str = "") -> list[Any]:
    """Return the layers of a network, without their weights."""
    layers: list[Any] = []
    dense = norms = 0
    for step, following in zip(member.steps, [*member.steps[1:], None], strict=True):
        if isinstance(step, Affine):
            after = following if isinstance(following, Activation) else Activation("identity")
            own = _parametric(keras, after, dtype)
            layer = keras.layers.Dense(
                step.weights.shape[1],
                activation="linear" if own else IN_KERAS[after.kind],
                use_bias=step.bias is not None,
                dtype=dtype,
                name=prefix + layouts.keras_name("dense", dense),
            )
            layers.append(layer)
            dense += 1
        elif isinstance(step, LayerNorm):
            name = prefix + layouts.keras_name("layer_normalization", norms)
            layers.append(
                keras.layers.LayerNormalization(epsilon=step.epsilon, dtype=dtype, name=name)
            )
            norms += 1
            assert isinstance(following, Activation)
            own = _parametric(keras, following, dtype) or [
                keras.layers.Activation(IN_KERAS[following.kind], dtype=dtype)
            ]
        else:
            continue
        layers += own
    return layers


def _parametric(keras: Any, step: Activation, dtype: str) -> list[Any]:
    """Return the layer of an activation that Keras' function has another parameter of."""
    if step.kind == "leaky_relu":
        return [keras.layers.LeakyReLU(negative_slope=step.parameter, dtype=dtype)]
    if step.kind == "elu" and step.parameter != 1:
        return [keras.layers.ELU(alpha=step.parameter, dtype=dtype)]
    return []


def _set_keras_weights(whole: Any, chain: Chain) -> None:
    """Write the arrays into the layers of their names."""
    for number, member in enumerate(chain.members):
        prefix = f"member_{number}_" if len(chain.members) > 1 else ""
        for name, arrays in layouts.named_layers(member, "keras"):
            whole.get_layer(prefix + name).set_weights(list(arrays.values()))


def from_keras(
    model: Any,
    *,
    out_activation: str | None = None,
    loss: str | CustomLoss | None = None,
    classes: ArrayLike | None = None,
    input_scale: float = 1.0,
) -> Any:
    """Return the network that a Keras model is.

    Parameters
    ----------
    model : keras.Model, str, path-like or binary file
        A ``Sequential`` or a functional model that is one chain of layers, or the ``Average`` of
        such; or its ``.keras`` or ``.h5`` file, saved by Keras 3. Files are read by cmlp (with
        h5py) and never by Keras, whose loader runs code of the file; nothing in them is executed.
    out_activation, loss, classes, input_scale : optional
        As for :func:`cmlp.from_torch`.

    Returns
    -------
    Network, MLPClassifier or MLPRegressor
        A network in float64 if a weight is, else float32; of an ``Average`` the estimator, which
        has the networks in `estimators_`. ``BatchNormalization``, ``Normalization`` and
        ``Rescaling`` are folded into the weights.

    Raises
    ------
    ConversionError
        Naming the first layer that has no counterpart.
    ModelFileError, OSError
        If the file is damaged, refers to other files, or cannot be read.
    ImportError
        For a file, without h5py.

    Notes
    -----
    Keras' leaky ReLU has the slope 0.3 as a layer and 0.2 as a function: 'leaky_relu:0.3' and
    'leaky_relu:0.2' here, where 'leaky_relu' alone has 0.01.

    Examples
    --------
    >>> import cmlp
    >>> net = cmlp.from_keras("model.keras", classes=["cat", "dog"])  # doctest: +SKIP
    """
    if isinstance(model, (str, bytes, os.PathLike)) or hasattr(model, "seek"):
        builders = file.read(model, builders_of)
    else:
        builders = _builders_of_live(model)
    if len(builders) > 1:
        return finish_mean(builders, out_activation, loss, classes, input_scale)
    return finish(builders[0], out_activation, loss, classes, input_scale)


def _builders_of_live(model: Any) -> list[Builder]:
    if not hasattr(model, "get_config") or not hasattr(model, "layers"):
        raise ConversionError(
            f"expected a model of Keras or the path of its file, not {type(model).__name__}"
        )

    def arrays(place: tuple[str, ...], names: tuple[str, ...]) -> list[Array]:
        layer = model
        for each in names:
            layer = layer.get_layer(each)
        if type(layer).__module__.split(".")[0] not in ("keras", "tf_keras"):
            raise ConversionError(f"layer {names[-1]!r} is of a class that is not Keras'")
        return [np.asarray(array) for array in layer.get_weights()]

    config = {"class_name": type(model).__name__, "config": _lists(model.get_config(), 0)}
    package = sys.modules.get(type(model).__module__.split(".")[0])
    return builders_of(config, str(getattr(package, "__version__", "")), arrays)


def _lists(value: Any, depth: int) -> Any:
    """Return a description as a file has it, with lists in place of tuples."""
    if depth < 32 and isinstance(value, dict):
        return {key: _lists(each, depth + 1) for key, each in value.items()}
    if depth < 32 and isinstance(value, (list, tuple)):
        return [_lists(each, depth + 1) for each in value]
    return value
