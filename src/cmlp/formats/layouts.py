"""The arrays of a network as other libraries name and lay them out, and back.

PyTorch's ``weight`` is (n_out, n_in); Keras' and Flax' ``kernel`` is (n_in, n_out), as here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.formats.building import Builder
from cmlp.formats.chain import (
    LAYER_NORM_EPSILON,
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
)

LAYOUTS = ("torch", "keras", "flax")

TORCH_EPSILON = 1e-5
"""Of PyTorch's normalisations, unless a program has chosen another."""


def plain_member(chain: Chain, what: str) -> Member:
    """Return the member of a chain that is layers and nothing else.

    Raises
    ------
    ConversionError
        Naming what else there is; `what` is where it cannot be.
    """
    for member in chain.members:
        check_plain(member, what)
    if len(chain.members) > 1:
        raise ConversionError(
            f"{what} holds one network, but this is an ensemble of {len(chain.members)}: convert "
            "each of estimators_"
        )
    if chain.mean is not None:
        raise ConversionError(
            f"{what} has no place for the means that the pipeline's scaler subtracts: convert the "
            "last step, and scale X yourself"
        )
    member = chain.members[0]
    if member.unit is not None:
        raise ConversionError(f"{what} has no place for the unit of the targets")
    if any(isinstance(step, Activation) and step.alphas is not None for step in member.steps):
        raise ConversionError(f"{what} has no place for parametric activations")
    return member


def check_plain(member: Member, what: str) -> None:
    """Refuse a network with inputs=..., of which other libraries have no layers."""
    if member.front:
        raise ConversionError(
            f"{what} has no layer for inputs=... of a network (tables, periodic features): use "
            "to_onnx, to_c, to_python or to_javascript"
        )


def arrays_of(chain: Chain, layout: str) -> dict[str, Array]:
    """Return a network's arrays by the names of a layout, in their order.

    Raises
    ------
    ConversionError
        If there is more than layers.
    ValueError
        For an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    member = plain_member(chain, f"layout={layout!r}")
    for step in member.steps:
        if isinstance(step, LayerNorm) and step.epsilon != LAYER_NORM_EPSILON:
            raise ConversionError(
                f"arrays have no place for normalization_epsilon={step.epsilon:g}, and readers "
                f"take {LAYER_NORM_EPSILON:g}: use to_onnx"
            )
    if layout == "torch":
        return torch_arrays(member)
    named: dict[str, Array] = {}
    for name, arrays in named_layers(member, layout):
        for key, array in arrays.items():
            named[f"{name}/{key}" if layout == "keras" else f"params.{name}.{key}"] = array
    return named


def torch_arrays(member: Member) -> dict[str, Array]:
    """Return the state dict of the Sequential that :func:`cmlp.to_torch` makes."""
    arrays: dict[str, Array] = {}
    for number, step in enumerate(member.steps):
        if isinstance(step, Affine):
            arrays[f"{number}.weight"] = np.ascontiguousarray(step.weights.T)
            if step.bias is not None:
                arrays[f"{number}.bias"] = step.bias
        elif isinstance(step, LayerNorm):
            arrays |= {f"{number}.weight": step.gamma, f"{number}.bias": step.beta}
    return arrays


def named_layers(member: Member, layout: str) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield the layers that have arrays: their names in Keras or Flax, and the arrays."""
    dense = norms = 0
    for step in member.steps:
        if isinstance(step, Affine):
            name = keras_name("dense", dense) if layout == "keras" else f"Dense_{dense}"
            dense += 1
            bias = {} if step.bias is None else {"bias": step.bias}
            yield name, {"kernel": step.weights, **bias}
        elif isinstance(step, LayerNorm):
            in_keras = keras_name("layer_normalization", norms)
            yield (
                in_keras if layout == "keras" else f"LayerNorm_{norms}",
                {"gamma" if layout == "keras" else "scale": step.gamma}
                | {"beta" if layout == "keras" else "bias": step.beta},
            )
            norms += 1


def keras_name(kind: str, number: int) -> str:
    """Return Keras' name of the first layer of a kind, and of those after it."""
    return f"{kind}_{number}" if number else kind


# Arrays to layers --------------------------------------------------------------------------------


def read_arrays(
    arrays: Mapping[str, Array],
    layout: str | None,
    activation: Any,
    metadata: Mapping[str, str],
    *,
    ordered: bool,
) -> Builder:
    """Return the layers of named arrays.

    Parameters
    ----------
    layout : str, optional
        Names and shapes decide without it.
    activation : str, sequence of str or None
        Of the hidden layers.
    ordered : bool
        Whether the arrays come in the order of the layers; else the numbers in their names tell
        it, or shapes that fit in one order only.

    Raises
    ------
    ConversionError
        Naming the first array that does not fit.
    """
    groups = _groups(arrays)
    if layout is None:
        layout = _layout_of(groups, metadata)
    elif layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    groups = {name: _torch_names(name, group, layout) for name, group in groups.items()}
    linear = [name for name, group in groups.items() if _rank(group) == 2]
    if layout != "torch":
        groups = _paired(groups, linear)
    elif not ordered:
        groups = _in_order(groups)
    hidden = _hidden(activation, max(len(linear) - 1, 0))
    builder, before = Builder(), ""
    for name, group in groups.items():
        where = f"layer {name!r}"
        if name in linear:
            if before:
                builder.activation(where, hidden.pop(0))
            _check_keys(where, group, {"weight", "bias"})
            weight = np.asarray(group["weight"])
            builder.affine(where, weight.T if layout == "torch" else weight, group.get("bias"))
            before = name
        elif "running_mean" in group:
            _check_follows(name, before, list(groups))
            _check_keys(where, group, {"weight", "bias", "running_mean", "running_var"})
            mean, variance = group["running_mean"], group.get("running_var")
            gamma, beta = group.get("weight"), group.get("bias")
            builder.batch_norm(where, mean, variance, TORCH_EPSILON, gamma, beta)
        elif _rank(group) == 1:
            if layout == "torch":
                _check_follows(name, before, list(groups))
            _check_keys(where, group, {"weight", "bias"})
            builder.layer_norm(where, group["weight"], group.get("bias"), LAYER_NORM_EPSILON)
        else:
            raise ConversionError(
                f"{where} with the arrays {', '.join(group)} is neither a linear layer nor a "
                "normalisation"
            )
    return builder


def _rank(group: dict[str, Array]) -> int:
    """Return the axes of a layer's weights; 0 if it has none."""
    return np.ndim(group.get("weight", 0))


def _in_order(groups: dict[str, dict[str, Array]]) -> dict[str, dict[str, Array]]:
    """Return the layers in the order of their numbers, else in the only one that fits."""
    numbered = [re.fullmatch(r"(.*?)\d+", name) for name in groups]
    if len({match and match[1] for match in numbered}) == 1 and all(numbered):
        return {name: groups[name] for name in sorted(groups, key=_natural)}
    shapes = {name: np.shape(group.get("weight", 0)) for name, group in groups.items()}
    fits = len(groups) < 2
    if all(len(shape) == 2 for shape in shapes.values()) and not fits:
        n_out, n_in = ([shape[i] for shape in shapes.values()] for i in (0, 1))
        firsts = [name for name, shape in shapes.items() if shape[1] not in n_out]
        order = firsts[:1]
        while order and len(order) < len(shapes):
            units = shapes[order[-1]][0]
            following = [name for name, shape in shapes.items() if shape[1] == units]
            if len(following) != 1 or following[0] in order:
                break
            order += following
        fits = len(firsts) == 1 and len(set(n_in)) == len(n_in) and len(order) == len(shapes)
        groups = {name: groups[name] for name in order} if fits else groups
    if not fits:
        raise ConversionError(
            f"the names {', '.join(groups)} do not tell the order of the layers: read the arrays "
            "into a dict, in order, and give that to from_torch"
        )
    return groups


def _paired(groups: dict[str, dict[str, Array]], linear: list[str]) -> dict[str, dict[str, Array]]:
    """Return the layers of Keras or Flax in order: a normalisation follows its linear layer."""
    dense = sorted(linear, key=_natural)
    norms = sorted(groups.keys() - set(dense), key=_natural)
    statistics = [name for name in norms if "running_mean" in groups[name]]
    if statistics or len(norms) not in (0, len(dense) - 1):
        raise ConversionError(
            f"the arrays do not tell where the normalisation {(statistics or norms)[0]!r} is: "
            "convert the model itself"
        )
    order = dense[:1]
    for number, name in enumerate(dense[1:]):
        order += [*norms[number : number + 1], name]
    return {name: groups[name] for name in order}


def _groups(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Return the arrays of each layer."""
    groups: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        place, _, key = name.replace("/", ".").rpartition(".")
        if key == "num_batches_tracked":
            continue
        parametrized = re.fullmatch(r"(.*?)\.?parametrizations\.(\w+)", place)
        if parametrized:  # by weight_norm: original0 is the size, original1 the direction
            place = parametrized[1]
            key = parametrized[2] + {"original0": "_g", "original1": "_v"}.get(key, f".{key}")
        groups.setdefault(place, {})[key] = array
    return groups


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which layer 10 comes after layer 2; Keras' first layer has no number."""
    if not re.search(r"\d$", name):
        name += "_0"
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _torch_names(name: str, group: dict[str, Array], layout: str) -> dict[str, Array]:
    """Return a layer's arrays by the names that PyTorch has, weight_norm computed."""
    where = f"layer {name!r}"
    if layout == "keras" or layout == "flax":
        names = {
            "kernel": "weight", "gamma": "weight", "scale": "weight", "beta": "bias",
            "moving_mean": "running_mean", "moving_variance": "running_var",
        }  # fmt: skip
        return {names.get(key, key): array for key, array in group.items()}
    if "weight_g" not in group:
        return group
    size, direction = (np.asarray(group[key], np.float64) for key in ("weight_g", "weight_v"))
    if direction.ndim != 2 or size.shape != (len(direction), 1):
        raise ConversionError(
            f"{where} has a weight_norm over another axis than the rows: load it into its module, "
            "and convert that"
        )
    norm = np.sqrt(np.square(direction).sum(axis=1, keepdims=True))
    weight = (direction * (size / norm)).astype(np.asarray(group["weight_v"]).dtype)
    rest = {key: array for key, array in group.items() if key not in ("weight_g", "weight_v")}
    return {"weight": weight, **rest}


def _layout_of(groups: dict[str, dict[str, Array]], metadata: Mapping[str, str]) -> str:
    """Return the layout by names, and by shapes where names do not decide."""
    keys = {key for group in groups.values() for key in group}
    if "kernel" in keys:
        return "flax" if any(name.startswith("params.") for name in groups) else "keras"
    if metadata.get("format") == "pt" or keys & {"weight_g", "running_mean"}:
        return "torch"
    shapes = [np.shape(group["weight"]) for group in groups.values() if "weight" in group]
    shapes = [shape for shape in shapes if len(shape) == 2]
    pairs = list(pairwise(shapes))
    biases = [
        (np.shape(group["weight"]), np.shape(group["bias"]))
        for group in groups.values()
        if _rank(group) == 2 and "bias" in group
    ]
    fits = {
        "torch": all(a[0] == b[1] for a, b in pairs) and all(b == W[:1] for W, b in biases),
        "keras": all(a[1] == b[0] for a, b in pairs) and all(b == W[1:] for W, b in biases),
    }
    if fits["torch"] and fits["keras"] and shapes:
        raise ConversionError(
            "the weights are square: their shapes do not tell (n_out, n_in) from (n_in, n_out); "
            "give layout='torch' or layout='keras'"
        )
    return "keras" if fits["keras"] else "torch"


def _hidden(activation: Any, n: int) -> list[str]:
    """Return a name per hidden layer."""
    if not n:
        return []
    if activation is None:
        raise ConversionError(
            "arrays do not tell the activations of hidden layers: give activation='relu', or "
            "whatever they were trained with"
        )
    names = [activation] * n if isinstance(activation, str) else list(activation)
    if len(names) != n:
        raise ConversionError(f"activation has {len(names)} names, but there are {n} hidden layers")
    return names


def _check_follows(name: str, before: str, names: list[str]) -> None:
    """Refuse a normalisation of which no number tells that it is in front of the activation."""
    here, there = (re.fullmatch(r"(.*?)(\d+)", each) for each in (name, before))
    consecutive = here and there and here[1] == there[1] and int(here[2]) == int(there[2]) + 1
    if before and not consecutive:
        raise ConversionError(
            f"the arrays do not tell whether the normalisation {name!r} is in front of the "
            f"activation after {before!r} or follows it: convert the module itself"
        )
    if not before and names.index(name):
        raise ConversionError(f"layer {name!r} is in front of all linear layers, but not the first")


def _check_keys(where: str, group: dict[str, Array], known: set[str]) -> None:
    unknown = [key for key in group if key not in known]
    if unknown:
        raise ConversionError(
            f"{where} has an array {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
