"""Networks from PyTorch and from files of weights; no code of a file or of a module runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.layout import Array
from cmlp.core.vocabulary import ACTIVATIONS, LEAKY_SLOPE, lookup
from cmlp.data.labels import check_classes
from cmlp.estimators import torch_modules
from cmlp.estimators.entering import network_of, with_end
from cmlp.formats import layouts, safetensors
from cmlp.formats.building import Builder, no_counterpart, only
from cmlp.formats.chain import LAYER_NORM_EPSILON, Chain, ConversionError
from cmlp.model.custom_loss import CustomLoss
from cmlp.network import Network

SAME = {
    "Identity": "identity", "ReLU": "relu", "SELU": "selu", "SiLU": "silu", "Mish": "mish",
    "Sigmoid": "logistic", "Hardsigmoid": "hard_sigmoid", "Tanh": "tanh",
}  # fmt: skip
"""Modules of PyTorch without parameters, and the activation that each is."""

WITHOUT_EFFECT = ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "Identity", "Flatten")
"""Modules that leave rows as they are, in prediction."""


def from_torch(
    module: Any,
    *,
    activation: Any = None,
    out_activation: str | None = None,
    loss: str | CustomLoss | None = None,
    classes: ArrayLike | None = None,
    input_scale: float = 1.0,
    approximate: bool = False,
) -> Network:
    """Return the network that a PyTorch module is.

    Parameters
    ----------
    module : torch.nn.Sequential, another module whose only child is one, or a state dict
        Of ``Linear``, ``BatchNorm1d`` (folded), ``LayerNorm`` between a linear layer without bias
        and its activation, dropout, and activations that cmlp has; nested as you like. It is taken
        as it predicts in eval mode, in whatever mode it is. What ``forward`` of another class
        computes apart from its only child is not seen.
    activation : str or sequence of str, optional
        Of the hidden layers, which a state dict does not tell.
    out_activation : str, optional
        Of the outputs, where the module ends in a linear layer: 'softmax' after a training with
        ``CrossEntropyLoss``. ``LogSoftmax`` at the end becomes 'softmax'.
    loss : str or callable, optional
        By default the one that belongs to the activation of the outputs; a cross-entropy implies
        its activation.
    classes : array-like, optional
        Labels, in the order of the outputs.
    input_scale : float
        Factor of every input, where the module is trained on rows that have it.
    approximate : bool
        Take GELU in its tanh form, whose values differ by up to 5e-4 from those of 'gelu'.

    Returns
    -------
    Network
        float64 if a weight is, else float32; float16 and bfloat16 are widened.

    Raises
    ------
    ConversionError
        Naming the first layer that has no counterpart.

    Examples
    --------
    >>> import numpy as np
    >>> from cmlp.estimators.entry_frameworks import from_torch
    >>> state = {"0.weight": np.ones((3, 2)), "0.bias": np.zeros(3)}
    >>> from_torch(state, out_activation="softmax").predict([[0.0, 1.0]]).round(2).tolist()
    [[0.33, 0.33, 0.33]]
    """
    if isinstance(module, Mapping):
        arrays = {str(name): _array(value) for name, value in module.items()}
        builder = layouts.read_arrays(arrays, "torch", activation, {}, ordered=True)
    else:
        if activation is not None:
            raise ConversionError("a module has its activations: leave activation out")
        builder = Builder()
        layers = list(_flat(_sequential(module), ""))
        for number, (name, layer) in enumerate(layers, 1):
            kind = type(layer).__name__.removeprefix("Parametrized")
            where = f"layer {number} ({kind}, {name!r})"
            _add(builder, where, kind, layer, number == len(layers), approximate)
    return finish(builder, out_activation, loss, classes, input_scale)


def from_safetensors(
    path: safetensors.File,
    layout: str | None = None,
    *,
    activation: Any = None,
    out_activation: str | None = None,
    loss: str | CustomLoss | None = None,
    classes: ArrayLike | None = None,
    input_scale: float = 1.0,
) -> Network:
    """Return a network of the weights in a file of another library.

    Parameters
    ----------
    path : str, path-like or binary file
    layout : {'torch', 'keras', 'flax'}, optional
        How the arrays are named and laid out, as :func:`cmlp.to_safetensors` describes it. Without
        it names and shapes decide; those of square layers do not.
    activation, out_activation, loss, classes, input_scale
        As for :func:`cmlp.from_torch`.

    Returns
    -------
    Network

    Raises
    ------
    ConversionError
        Naming the first array that does not fit, or if the arrays do not tell what is needed.
    ModelFileError, OSError
        If the file is damaged or cannot be read.

    Examples
    --------
    >>> import cmlp, io
    >>> from cmlp.estimators.entry_frameworks import from_safetensors
    >>> from cmlp.estimators.exit_frameworks import to_safetensors
    >>> file = io.BytesIO()
    >>> to_safetensors(cmlp.Network([4, 8, 3], seed=0), file)
    >>> _ = file.seek(0)
    >>> from_safetensors(file, activation="relu", out_activation="softmax").sizes
    (4, 8, 3)
    """
    arrays, metadata = safetensors.read(path)
    if metadata.get("format", "").startswith("cmlp"):
        raise ConversionError("this is a file of cmlp's own: read it by cmlp.load")
    builder = layouts.read_arrays(arrays, layout, activation, metadata, ordered=False)
    return finish(builder, out_activation, loss, classes, input_scale)


def finish(
    builder: Builder, out_activation: Any, loss: Any, classes: ArrayLike | None, input_scale: float
) -> Network:
    """Return the network of collected layers, with the end and the labels that were given."""
    if out_activation is not None:
        out_activation = lookup("out_activation", ACTIVATIONS, out_activation).name
    chain: Chain = with_end(builder.chain(), out_activation, loss)
    if classes is not None:
        chain = replace(chain, classes=check_classes("classes", classes, max(chain.n_out, 2)))
    return network_of(chain, loss, input_scale=input_scale)


# Modules -----------------------------------------------------------------------------------------


def _is_sequential(module: Any) -> bool:
    """Whether it is a Sequential, or a class of it that runs its children as that does."""
    kinds = [kind for kind in type(module).__mro__ if kind.__name__ == "Sequential"]
    in_torch = [kind for kind in kinds if kind.__module__ == "torch.nn.modules.container"]
    return bool(in_torch) and vars(in_torch[0])["forward"] is getattr(type(module), "forward", None)


def _sequential(module: Any) -> Any:
    """Return the Sequential that a module is, or whose only child it is; or a single layer."""
    if not hasattr(module, "named_children"):
        raise ConversionError(
            f"expected a torch.nn.Sequential or a state dict, not {type(module).__name__}"
        )
    if _is_sequential(module):
        return module
    children = dict(module.named_children())
    own = dict(module.named_parameters(recurse=False))
    if len(children) == 1 and not own:
        (child,) = children.values()
        if _is_sequential(child):
            return child
    if _in_torch(module):
        return module
    raise ConversionError(
        f"{type(module).__name__} is no torch.nn.Sequential, nor is its only child one, so the "
        f"order of its parts ({', '.join(children) or 'none'}) is not known: put them into a "
        "Sequential, or give its state_dict() with activation=..."
    )


def _in_torch(module: Any) -> bool:
    """Whether a class is PyTorch's own, and does what its name means."""
    where = type(module).__module__
    return where.startswith(("torch.nn.modules.", "torch.nn.utils.parametrize"))


def _flat(module: Any, name: str) -> Any:
    """Yield name and layer of whatever is not a Sequential."""
    if not _is_sequential(module):
        yield name or "0", module
        return
    _check_hooks(f"module {name!r}", module)
    for key, child in module.named_children():
        yield from _flat(child, f"{name}.{key}" if name else key)


def _add(
    builder: Builder, where: str, kind: str, layer: Any, last: bool, approximate: bool
) -> None:
    """Add the layer that a module is."""
    own = type(layer).__module__ == torch_modules.__name__
    if not own and not _in_torch(layer):
        raise no_counterpart(where, f"{type(layer).__module__} is not PyTorch's")
    _check_hooks(where, layer)
    if own and kind == "Exp":
        builder.activation(where, "exp")
    elif own and kind == "Subtract":
        mean = _array(layer.mean)
        builder.scale(where, np.ones(len(mean)), -mean.astype(np.float64))
    elif own:
        raise no_counterpart(where)
    elif kind == "Linear":
        bias = None if layer.bias is None else _array(layer.bias)
        builder.affine(where, _weight(layer).T, bias)
    elif kind == "BatchNorm1d":
        _add_batch_norm(builder, where, layer)
    elif kind == "LayerNorm":
        if len(layer.normalized_shape) != 1:
            raise no_counterpart(where, f"normalized_shape={tuple(layer.normalized_shape)}")
        if layer.eps != LAYER_NORM_EPSILON:
            raise only(where, "eps", layer.eps, LAYER_NORM_EPSILON)
        builder.layer_norm(where, _array(layer.weight), _array(layer.bias), layer.eps)
    elif kind in WITHOUT_EFFECT:
        if kind == "Flatten" and (layer.start_dim, layer.end_dim) not in ((1, -1), (1, 1)):
            raise no_counterpart(where, f"start_dim={layer.start_dim}")
    elif kind == "LogSoftmax" and not last:
        raise no_counterpart(where, "in front of other layers")
    else:
        builder.activation(where, _activation(where, kind, layer, approximate))


def _activation(where: str, kind: str, layer: Any, approximate: bool) -> str:
    """Return the name of the activation that a module is.

    Raises
    ------
    ConversionError
        If it has a constant that cmlp has another value of.
    """
    if kind in SAME:
        return SAME[kind]
    constants = {
        "LeakyReLU": ("negative_slope", LEAKY_SLOPE, "leaky_relu"),
        "ELU": ("alpha", 1.0, "elu"),
        "CELU": ("alpha", 1.0, "elu"),
        "Softplus": ("beta", 1.0, "softplus"),
    }
    if kind in constants:
        name, has, activation = constants[kind]
        value = getattr(layer, name)
        if value != has:
            raise only(where, name, value, has)
        if kind == "Softplus" and layer.threshold < 20:
            raise only(where, "threshold", layer.threshold, float("inf"))
        return activation
    if kind == "GELU":
        if layer.approximate != "none" and not approximate:
            raise ConversionError(
                f"{where} has approximate={layer.approximate!r}, but cmlp has the exact gelu only: "
                "give approximate=True to accept differences of up to 5e-4"
            )
        return "gelu"
    if kind in ("Softmax", "LogSoftmax"):
        if layer.dim not in (None, -1, 1):
            raise no_counterpart(where, f"dim={layer.dim} is not that of the outputs")
        return "softmax"
    raise no_counterpart(where)


def _add_batch_norm(builder: Builder, where: str, layer: Any) -> None:
    if layer.running_mean is None:
        raise ConversionError(
            f"{where} has track_running_stats=False: what it predicts depends on the other rows"
        )
    arrays = [
        _array(each) for each in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    ]
    mean, variance, gamma, beta = arrays
    builder.batch_norm(where, mean, variance, layer.eps, gamma, beta)


def _weight(layer: Any) -> Array:
    """Return the weights of a linear layer; those of weight_norm as its next pass computes them."""
    for hook in layer._forward_pre_hooks.values():
        if type(hook).__name__ == "WeightNorm":
            weight: Array = _array(hook.compute_weight(layer))
            return weight
    weight = _array(layer.weight)
    return weight


def _check_hooks(where: str, layer: Any) -> None:
    """Refuse hooks, which may change what a layer computes."""
    before = [type(hook).__name__ for hook in layer._forward_pre_hooks.values()]
    others = [name for name in before if name != "WeightNorm"]
    if others or layer._forward_hooks:
        raise ConversionError(
            f"{where} has hooks, which may change what it computes: remove them first"
        )


def _array(tensor: Any) -> Any:
    """Return a tensor's numbers; of 16 bits in float32, None for None."""
    if tensor is None:
        return None
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) in ("torch.float16", "torch.bfloat16"):
            tensor = tensor.float()
        return tensor.numpy()
    return np.asarray(tensor)
