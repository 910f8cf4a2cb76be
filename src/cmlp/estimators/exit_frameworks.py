"""Models for PyTorch, Keras and Flax; each library is imported when its function is called."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.vocabulary import LEAKY_SLOPE
from cmlp.estimators import torch_modules
from cmlp.estimators.chains import chain_of
from cmlp.formats import layouts, safetensors
from cmlp.formats.chain import (
    LAYER_NORM_EPSILON,
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
)
from cmlp.network import Network

IN_TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "identity": ("Identity", {}),
    "logistic": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "relu": ("ReLU", {}),
    "leaky_relu": ("LeakyReLU", {"negative_slope": LEAKY_SLOPE}),
    "elu": ("ELU", {}),
    "selu": ("SELU", {}),
    "gelu": ("GELU", {}),
    "silu": ("SiLU", {}),
    "mish": ("Mish", {}),
    "softplus": ("Softplus", {"threshold": 40.0}),  # from there on it is z in float64, too
    "hard_sigmoid": ("Hardsigmoid", {}),
    "exp": ("Exp", {}),  # of torch_modules
    "softmax": ("Softmax", {"dim": -1}),
}
"""Module of each activation, and its arguments."""

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


# PyTorch -----------------------------------------------------------------------------------------


def to_torch(model: Any, *, raw: bool = False, fold: bool = True) -> Any:
    """Return a model as a PyTorch module.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        As for :func:`cmlp.to_onnx`; not a network with ``inputs=...``.
    raw : bool
        Leave out the activation of the outputs, and return the sums before it: what
        ``CrossEntropyLoss`` and ``BCEWithLogitsLoss`` take.
    fold : bool
        Fold batch normalisation into the weights. With False it becomes ``BatchNorm1d``, with the
        running statistics, to be trained further; of a single network only.

    Returns
    -------
    torch.nn.Sequential
        ``Linear``, activation, ``Linear``, ... in eval mode, in the network's number type; its
        weights are copies. ``Exp`` (the activation), ``Subtract`` (a scaler's means),
        ``Parametric``, ``Unit`` and ``MeanOfMembers`` (an ensemble) are modules of cmlp's, which
        must be installed to unpickle them. No text of the model goes into it: labels and names of
        columns stay here.

    Raises
    ------
    ConversionError
        Naming the part that has no module.
    ImportError
        Without PyTorch.

    Examples
    --------
    >>> import cmlp
    >>> from cmlp.estimators.exit_frameworks import to_torch
    >>> net = cmlp.Network([4, 8, 3], "silu", seed=0)
    >>> to_torch(net)  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): SiLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
      (3): Softmax(dim=-1)
    )
    """
    import torch

    chain = chain_of(model)
    if raw and len(chain.members) > 1:
        raise ConversionError("the mean of an ensemble has no raw sums: convert its estimators_")
    net = None if fold else _network_with_statistics(model)
    tensor = _Tensors(torch, chain)
    members = []
    for member in chain.members:
        layouts.check_plain(member, "PyTorch")
        steps = member.steps if net is None else ()
        layers = [tensor.layer(step) for step in steps] if net is None else tensor.unfolded(net)
        last = member.steps[-1]
        if raw or (isinstance(last, Activation) and last.name == "identity"):
            layers = layers[:-1]
        if member.unit is not None:
            unit = member.unit
            parts = (tensor.of(x) for x in (unit.spread, unit.centre, unit.low, unit.high))
            layers.append(torch_modules.modules()["Unit"](*parts))
        members.append(torch.nn.Sequential(*layers))
    whole = list(members[0])
    if len(members) > 1:
        whole = [torch_modules.modules()["MeanOfMembers"](members)]
    if chain.mean is not None:
        whole.insert(0, torch_modules.modules()["Subtract"](tensor.of(chain.mean)))
    return torch.nn.Sequential(*whole).eval()


def _network_with_statistics(model: Any) -> Network | None:
    """Return the network whose batch normalisation is kept; None if there is none to keep."""
    net: Any = getattr(model, "network_", model)
    return net if isinstance(net, Network) and net.normalization == "batch" else None


class _Tensors:
    """Makes modules of arrays; nothing random is drawn."""

    def __init__(self, torch: Any, chain: Chain) -> None:
        self.torch, self.dtype = torch, getattr(torch, chain.dtype.name)

    def of(self, array: Any) -> Any:
        """Return a copy as a tensor."""
        return self.torch.from_numpy(np.array(array)).to(self.dtype)

    def parameter(self, array: Any) -> Any:
        return self.torch.nn.Parameter(self.of(array))

    def linear(self, weights: Any, bias: Any) -> Any:
        n_in, n_out = weights.shape
        layer = self.torch.nn.Linear(n_in, n_out, bias=bias is not None, device="meta")
        layer.weight = self.parameter(weights.T)
        if bias is not None:
            layer.bias = self.parameter(bias)
        return layer

    def layer(self, step: Any) -> Any:
        """Return the module of a step."""
        if isinstance(step, Affine):
            return self.linear(step.weights, step.bias)
        if isinstance(step, LayerNorm):
            norm = self.torch.nn.LayerNorm(len(step.gamma), eps=step.epsilon, device="meta")
            norm.weight, norm.bias = self.parameter(step.gamma), self.parameter(step.beta)
            return norm
        f = self.activation(step.name)
        if step.alphas is None:
            return f
        return torch_modules.modules()["Parametric"](f, self.of(step.alphas))

    def activation(self, name: str) -> Any:
        kind, arguments = IN_TORCH[name]
        known = torch_modules.modules() if kind in torch_modules.NAMES else vars(self.torch.nn)
        return known[kind](**arguments)

    def unfolded(self, net: Network) -> list[Any]:
        """Return the modules of a network whose batch normalisation stays."""
        layers: list[Any] = []
        last = len(net.weights) - 1
        for number, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            if number == 0 and net.input_scale != 1:
                W = (W.astype(np.float64) * net.input_scale).astype(net.dtype)
            if number == last:
                layers.append(self.linear(W, b))
            else:
                layers.append(self.linear(W, None))
                norm = self.torch.nn.BatchNorm1d(len(b), eps=LAYER_NORM_EPSILON, device="meta")
                norm.weight, norm.bias = self.parameter(net.scales[number]), self.parameter(b)
                norm.running_mean, norm.running_var = map(self.of, net.running[number])
                norm.num_batches_tracked = self.torch.tensor(net.steps)
                layers.append(norm)
            alphas = net.alphas[number] if net.parametric_activation and number < last else None
            layers.append(self.layer(Activation(net.activations[number], alphas)))
        return layers


# Keras -------------------------------------------------------------------------------------------


def to_keras(model: Any) -> Any:
    """Return a model as one of Keras 3, with any of its backends.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        As for :func:`cmlp.to_onnx`; without ``inputs=...`` and ``parametric_activation``.

    Returns
    -------
    keras.Sequential
        ``Dense`` layers, in the network's number type; 'leaky_relu' is a layer of its own, as
        Keras' slopes are others, and so are layer normalisation with its epsilon, and the means
        that a pipeline's scaler subtracts. An ensemble becomes a functional model whose last layer
        is their ``Average``. It is not compiled.

    Raises
    ------
    ConversionError
        Naming the part that has no layer.
    ImportError
        Without Keras 3.

    Examples
    --------
    >>> import cmlp
    >>> from cmlp.estimators.exit_frameworks import to_keras
    >>> model = to_keras(cmlp.Network([4, 8, 3], seed=0))  # doctest: +SKIP
    """
    import keras

    if int(keras.__version__.split(".")[0]) < 3:
        raise ConversionError(f"Keras 3 is needed, this is Keras {keras.__version__}")
    chain = chain_of(model)
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
            name = IN_KERAS[following.name] if isinstance(following, Activation) else "linear"
            leaky = name == "LeakyReLU"
            layer = keras.layers.Dense(
                step.weights.shape[1],
                activation="linear" if leaky else name,
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
            name = IN_KERAS[following.name]
            leaky = name == "LeakyReLU"
            if not leaky:
                layers.append(keras.layers.Activation(name, dtype=dtype))
        else:
            continue
        if leaky:
            layers.append(keras.layers.LeakyReLU(negative_slope=LEAKY_SLOPE, dtype=dtype))
    return layers


def _set_keras_weights(whole: Any, chain: Chain) -> None:
    """Write the arrays into the layers of their names."""
    for number, member in enumerate(chain.members):
        prefix = f"member_{number}_" if len(chain.members) > 1 else ""
        for name, arrays in layouts.named_layers(member, "keras"):
            whole.get_layer(prefix + name).set_weights(list(arrays.values()))


# Flax, and files ---------------------------------------------------------------------------------


def to_flax(model: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a network's weights as the variables of a Flax module of ``Dense`` layers.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        One network of plain layers.

    Returns
    -------
    dict
        ``{"params": {"Dense_0": {"kernel": (n_in, n_out), "bias": (n_out,)}, ...}}`` of NumPy
        arrays; ``LayerNorm_0`` and so on have "scale" and "bias". No library is imported.

    Raises
    ------
    ConversionError
        Naming the part that has no place there.

    Notes
    -----
    The module is yours: ``nn.Dense`` layers with the network's activations. ``jax.nn.gelu`` is the
    tanh form by default, which differs by up to 5e-4: cmlp's is ``gelu(x, approximate=False)``.
    ``nn.LayerNorm`` has the epsilon 1e-6 by default: give ``epsilon=1e-5``, and
    ``nn.Dense(n, use_bias=False)`` in front of it. ``jax.nn.hard_sigmoid``, ``mish``, ``selu`` and
    ``leaky_relu`` are the same functions as here.

    Examples
    --------
    >>> import cmlp
    >>> from cmlp.estimators.exit_frameworks import to_flax
    >>> variables = to_flax(cmlp.Network([4, 8, 3], seed=0))
    >>> variables["params"]["Dense_1"]["kernel"].shape
    (8, 3)
    """
    member = layouts.plain_member(chain_of(model), "Flax")
    return {"params": dict(layouts.named_layers(member, "flax"))}


def to_safetensors(model: Any, path: safetensors.File, layout: str = "torch") -> None:
    """Write a network's weights for another library; the whole file or nothing.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        One network of plain layers.
    path : str, path-like or binary file
    layout : {'torch', 'keras', 'flax'}
        'torch': ``0.weight`` (n_out, n_in), ``0.bias``, ``2.weight``, ... which
        ``safetensors.torch.load_model`` loads into the module of :func:`cmlp.to_torch`; 'keras':
        ``dense/kernel`` (n_in, n_out), ``dense/bias``, ``dense_1/kernel``, ...; 'flax':
        ``params.Dense_0.kernel``, ... The file has weights only: no activations, no labels.

    Raises
    ------
    ConversionError
        If there is more than layers, or `layout` is unknown.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import cmlp, io
    >>> from cmlp.estimators.exit_frameworks import to_safetensors
    >>> to_safetensors(cmlp.Network([4, 8, 3], seed=0), io.BytesIO())
    """
    arrays = layouts.arrays_of(chain_of(model), layout)
    safetensors.write(path, arrays, {"format": {"torch": "pt"}.get(layout, layout)})
