"""Models for PyTorch, which is imported when one is made, and networks from there.

No code of a module runs on the way in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.layout import Array
from cmlp.exchange import torch_modules
from cmlp.exchange.chains import chain_of
from cmlp.exchange.ensembles import finish_mean
from cmlp.exchange.networks import finish
from cmlp.formats import layouts
from cmlp.formats.building import LARGEST_RAMP, Builder, no_counterpart, only, ramp
from cmlp.formats.chain import (
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    named,
    with_narrow_mean,
)
from cmlp.model.custom_loss import CustomLoss
from cmlp.network import Network

IN_TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "identity": ("Identity", {}),
    "logistic": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "relu": ("ReLU", {}),
    "leaky_relu": ("LeakyReLU", {}),
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

PARAMETERS = {"leaky_relu": "negative_slope", "elu": "alpha"}
"""Arguments that an activation's parameter is."""

SAME = {
    "Identity": "identity", "ReLU": "relu", "SELU": "selu", "SiLU": "silu", "Mish": "mish",
    "Sigmoid": "logistic", "Hardsigmoid": "hard_sigmoid", "Tanh": "tanh",
}  # fmt: skip
"""Modules of PyTorch without parameters, and the activation that each is."""

SCALED = ("CELU", "Softplus", "Hardtanh", "ReLU6")
"""Modules that are an activation of cmlp's of scaled sums, scaled: the layers around take that."""

WITHOUT_EFFECT = ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "Identity", "Flatten")
"""Modules that leave rows as they are, in prediction."""


# Out ----------------------------------------------------------------------------------------------


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
    >>> net = cmlp.Network([4, 8, 3], "silu", seed=0)
    >>> cmlp.to_torch(net)  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): SiLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
      (3): Softmax(dim=-1)
    )
    """
    import torch

    chain = with_narrow_mean(chain_of(model))
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
        f = self.activation(step)
        if step.alphas is None:
            return f
        return torch_modules.modules()["Parametric"](f, self.of(step.alphas))

    def activation(self, step: Activation) -> Any:
        kind, arguments = IN_TORCH[step.kind]
        if step.kind in PARAMETERS:
            arguments = {PARAMETERS[step.kind]: step.parameter}
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
                norm = self.torch.nn.BatchNorm1d(
                    len(b), eps=net.normalization_epsilon, device="meta"
                )
                norm.weight, norm.bias = self.parameter(net.scales[number]), self.parameter(b)
                norm.running_mean, norm.running_var = map(self.of, net.running[number])
                norm.num_batches_tracked = self.torch.tensor(net.steps)
                layers.append(norm)
            alphas = net.alphas[number] if net.parametric_activation and number < last else None
            layers.append(self.layer(Activation(net.activations[number], alphas)))
        return layers


# In -----------------------------------------------------------------------------------------------


def from_torch(
    module: Any,
    *,
    activation: Any = None,
    out_activation: str | None = None,
    loss: str | CustomLoss | None = None,
    classes: ArrayLike | None = None,
    input_scale: float = 1.0,
    approximate: bool = False,
) -> Any:
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
    Network, MLPClassifier or MLPRegressor
        A network in float64 if a weight is, else float32; float16 and bfloat16 are widened. Of
        the mean that :func:`to_torch` makes of an ensemble an estimator, which has the networks in
        `estimators_`.

    Raises
    ------
    ConversionError
        Naming the first layer that has no counterpart.

    Examples
    --------
    >>> import cmlp
    >>> import numpy as np
    >>> state = {"0.weight": np.ones((3, 2)), "0.bias": np.zeros(3)}
    >>> cmlp.from_torch(state, out_activation="softmax").predict([[0.0, 1.0]]).round(2).tolist()
    [[0.33, 0.33, 0.33]]
    """
    if isinstance(module, Mapping):
        arrays = {str(name): _array(value) for name, value in module.items()}
        builder = layouts.read_arrays(arrays, "torch", activation, {}, ordered=True)
    else:
        if activation is not None:
            raise ConversionError("a module has its activations: leave activation out")
        layers = list(_flat(_sequential(module), ""))
        if _is_own(layers[-1][1] if layers else None, "MeanOfMembers"):
            return _ensemble(layers, (out_activation, loss, classes, input_scale), approximate)
        builder = _built(layers, approximate)
    return finish(builder, out_activation, loss, classes, input_scale)


def _built(layers: list[tuple[str, Any]], approximate: bool) -> Builder:
    """Return what collects the layers, each with its name."""
    builder = Builder()
    for number, (name, layer) in enumerate(layers, 1):
        kind = type(layer).__name__.removeprefix("Parametrized")
        where = f"layer {number} ({kind}, {name!r})"
        _add(builder, where, kind, layer, number == len(layers), approximate)
    return builder


def _ensemble(
    layers: list[tuple[str, Any]], ends: tuple[Any, Any, Any, Any], approximate: bool
) -> Any:
    """Return the estimator of the mean of several networks, which may follow other layers."""
    *before, (name, mean) = layers
    _check_hooks(f"module {name!r}", mean)
    members = [
        _built([*before, *_flat(member, f"{name}.members.{number}")], approximate)
        for number, member in enumerate(mean.members)
    ]
    return finish_mean(members, *ends)


def _is_own(module: Any, kind: str) -> bool:
    """Whether a module is one of `torch_modules`."""
    return type(module).__name__ == kind and type(module).__module__ == torch_modules.__name__


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
    elif own and kind == "Parametric":
        inner = type(layer.f).__name__
        f = "exp" if inner == "Exp" else _activation(where, inner, layer.f, approximate)
        builder.activation(where, f, _array(layer.alpha))
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
        builder.layer_norm(where, _array(layer.weight), _array(layer.bias), layer.eps)
    elif kind in WITHOUT_EFFECT:
        if kind == "Flatten" and (layer.start_dim, layer.end_dim) not in ((1, -1), (1, 1)):
            raise no_counterpart(where, f"start_dim={layer.start_dim}")
    elif kind == "LogSoftmax" and not last:
        raise no_counterpart(where, "in front of other layers")
    elif kind == "PReLU":
        builder.rectifier(where, _array(layer.weight))
    elif kind in SCALED:
        builder.scaled_activation(where, *_scaled(where, kind, layer))
    else:
        builder.activation(where, _activation(where, kind, layer, approximate))


def _scaled(where: str, kind: str, layer: Any) -> tuple[float, float, str, float, float]:
    """Return factor, shift, f, height and floor of ``height f(factor z + shift) + floor``."""
    if kind == "CELU":
        return _inverse(layer.alpha), 0.0, "elu", layer.alpha, 0.0
    if kind == "Softplus":
        if layer.threshold < 20:  # from there on it is z, to 2e-9
            raise only(where, "threshold", layer.threshold, float("inf"))
        return layer.beta, 0.0, "softplus", _inverse(layer.beta), 0.0
    found = ramp(layer.min_val, layer.max_val)
    if found is None:
        raise no_counterpart(where, f"limits beyond {LARGEST_RAMP:g} cost float32 its digits")
    factor, shift, height, floor = found
    return factor, shift, "hard_sigmoid", height, floor


def _inverse(number: float) -> float:
    return 1 / number if number else math.inf


def _activation(where: str, kind: str, layer: Any, approximate: bool) -> str:
    """Return the name of the activation that a module is.

    Raises
    ------
    ConversionError
        If it has a constant that cmlp has another value of.
    """
    if kind in SAME:
        return SAME[kind]
    if kind == "LeakyReLU":
        return named("leaky_relu", layer.negative_slope, where)
    if kind == "RReLU":  # random slopes, in training only
        return named("leaky_relu", (layer.lower + layer.upper) / 2, where)
    if kind == "ELU":
        return named("elu", layer.alpha, where)
    if kind == "Softplus" and layer.beta == 1 and layer.threshold >= 20:
        return "softplus"
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
