"""A chain, however it came in, becomes a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.vocabulary import LOSSES, activation_of, lookup
from cmlp.data.labels import check_classes
from cmlp.formats.building import Builder, only
from cmlp.formats.chain import (
    LAYER_NORM_EPSILON,
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Step,
    check,
)
from cmlp.model.custom_loss import CustomLoss
from cmlp.network import Network

Layer = tuple[Affine, LayerNorm | None, Activation]

LARGEST_SHIFT = 16.0
"""Sums of the means of X, times the weights, that float32 biases can take: 1e-6 is lost of them."""


def network_of(
    chain: Chain, loss: str | CustomLoss | None = None, *, input_scale: float = 1.0
) -> Network:
    """Return the network that a chain describes, ready to predict and to train.

    Affine steps in a row are multiplied together in float64, and means of X go into the first
    biases; a float32 network becomes float64 where that would cost digits.

    Parameters
    ----------
    chain : Chain
    loss : str or callable, optional
        By default the one that belongs to the last activation: 'softmax' has the categorical,
        'logistic' the binary cross-entropy, 'exp' the loss 'poisson', others the squared error.
    input_scale : float
        Factor of every input; the chain, means included, is of rows that have it.

    Returns
    -------
    Network

    Raises
    ------
    ConversionError
        Naming the first part that a network does not have.
    """
    chain = _without_mean(check(chain))
    if len(chain.members) > 1:
        raise ConversionError(
            f"a model of {len(chain.members)} members is no single network: convert each of them"
        )
    member = chain.members[0]
    if member.front or member.unit is not None:
        raise ConversionError("a network for tables has no way in: save it, and use cmlp.load")
    layers = _layers(_merged(member.steps))
    hidden = layers[:-1]
    _check_norms(layers)
    if layers[-1][2].alphas is not None:
        raise ConversionError(
            "the outputs have slopes of their own (PRelu, or a slope below 0), which cmlp has in "
            "hidden layers only"
        )
    parametric = any(activation.alphas is not None for _, _, activation in hidden)
    try:
        net = Network(
            [chain.n_in, *(int(affine.weights.shape[1]) for affine, _, _ in layers)],
            [activation.name for _, _, activation in hidden],
            layers[-1][2].name,
            loss,
            dtype=chain.dtype,
            normalization="layer" if hidden and hidden[0][1] is not None else None,
            normalization_epsilon=epsilon_of(layers),
            parametric_activation=parametric,
            input_scale=input_scale,
        )
    except ValueError as error:
        raise ConversionError(str(error)) from error
    for number, (affine, norm, activation) in enumerate(layers):
        net.weights[number][...] = affine.weights
        bias = affine.bias if norm is None else norm.beta
        net.biases[number][...] = 0 if bias is None else bias
        if norm is not None:
            net.scales[number][...] = norm.gamma
        if parametric and activation.alphas is not None:
            net.alphas[number][...] = activation.alphas
    if chain.classes is not None and not chain.multilabel:
        net.classes = chain.classes
    net.feature_names = list(chain.feature_names or [])
    net.target_name = chain.target_name
    return net


def with_end(
    chain: Chain, out_activation: str | None, loss: Any, where: str = "the model"
) -> Chain:
    """Return a chain whose sums at the end get the activation that was given, or that of the loss.

    Raises
    ------
    ConversionError
        If it has another one already.
    """
    name = out_activation
    last = chain.members[0].steps[-1]
    assert isinstance(last, Activation)
    if name is None and isinstance(loss, str) and last.name == "identity":
        row = lookup("loss", LOSSES, loss)
        name = row.out_activation if row.classifies or row.name == "poisson" else None
    if name is None or name == last.name:
        return chain
    if last.name != "identity":
        raise ConversionError(
            f"{where} ends in {last.name}, but out_activation={name!r} was given; leave it out"
        )
    member = chain.members[0]
    steps = (*member.steps[:-1], Activation(name))
    return replace(chain, members=(replace(member, steps=steps),))


def finish(
    builder: Builder, out_activation: Any, loss: Any, classes: ArrayLike | None, input_scale: float
) -> Network:
    """Return the network of collected layers, with the end and the labels that were given."""
    if out_activation is not None:
        out_activation = activation_of(out_activation, "out_activation").name
    chain: Chain = with_end(builder.chain(), out_activation, loss)
    if classes is not None:
        chain = replace(chain, classes=check_classes("classes", classes, max(chain.n_out, 2)))
    return network_of(chain, loss, input_scale=input_scale)


def _without_mean(chain: Chain) -> Chain:
    """Return a chain with the means of X in its first biases."""
    if chain.mean is None:
        return chain
    mean, members, dtype = chain.mean, [], chain.dtype
    for member in chain.members:
        first = member.affine[0]
        if member.front or isinstance(member.steps[1], LayerNorm):
            raise ConversionError(
                "means of X cannot go into a first layer with layer normalisation, which has no "
                "bias: subtract them yourself"
            )
        W = first.weights.astype(np.float64)
        b = -(mean @ W) if first.bias is None else first.bias - mean @ W
        if (np.abs(mean) @ np.abs(W)).max() > LARGEST_SHIFT:
            dtype = np.dtype(np.float64)
        members.append(replace(member, steps=(Affine(W, b), *member.steps[1:])))
    members = [
        replace(member, steps=tuple(_cast(step, dtype) for step in member.steps))
        for member in members
    ]
    return replace(chain, members=tuple(members), mean=None)


def _cast(step: Step, dtype: Any) -> Step:
    if isinstance(step, Affine):
        bias = None if step.bias is None else step.bias.astype(dtype)
        return Affine(step.weights.astype(dtype), bias)
    return step


def _merged(steps: tuple[Step, ...]) -> list[Step]:
    """Multiply affine steps in a row together."""
    merged: list[Step] = []
    for step in steps:
        last = merged[-1] if merged else None
        if isinstance(step, Affine) and isinstance(last, Affine):
            dtype, W = step.weights.dtype, step.weights.astype(np.float64)
            b = None if last.bias is None else last.bias.astype(np.float64) @ W
            if step.bias is not None:
                b = step.bias if b is None else b + step.bias
            product = (last.weights.astype(np.float64) @ W).astype(dtype)
            merged[-1] = Affine(product, None if b is None else b.astype(dtype))
        else:
            merged.append(step)
    return merged


def _layers(steps: list[Step]) -> list[Layer]:
    """Group the steps into layers."""
    layers: list[Layer] = []
    rest = list(steps)
    while rest:
        affine = rest.pop(0)
        norm = rest.pop(0) if rest and isinstance(rest[0], LayerNorm) else None
        activation = rest.pop(0) if rest else None
        number = len(layers) + 1
        if not isinstance(affine, Affine) or not isinstance(activation, Activation):
            raise ConversionError(
                f"layer {number} is not a linear layer, perhaps layer normalisation, and an "
                "activation, in this order"
            )
        assert norm is None or isinstance(norm, LayerNorm)
        if activation.name == "softmax" and rest:
            raise ConversionError(
                f"layer {number} has softmax, which cmlp has for the outputs only"
            )
        layers.append((affine, norm, activation))
    return layers


def epsilon_of(layers: list[Layer]) -> float:
    """Return the epsilon of the first layer normalisation."""
    return next((norm.epsilon for _, norm, _ in layers if norm is not None), LAYER_NORM_EPSILON)


def _check_norms(layers: list[Layer]) -> None:
    """Check that layer normalisation is what a network has: of all hidden layers, without bias."""
    given = [norm for _, norm, _ in layers[:-1]]
    if layers[-1][1] is not None or any((norm is None) != (given[0] is None) for norm in given):
        raise ConversionError(
            "cmlp normalises all hidden layers, and not the outputs, but layer normalisation is "
            f"of layers {[n for n, (_, norm, _) in enumerate(layers, 1) if norm is not None]} of "
            f"{len(layers)}"
        )
    epsilon = epsilon_of(layers)
    for number, (affine, norm, _) in enumerate(layers, 1):
        if norm is None:
            continue
        if norm.epsilon != epsilon:
            where = f"layer {number} (layer normalisation)"
            raise only(where, "epsilon", norm.epsilon, epsilon)
        if affine.bias is not None and np.ptp(affine.bias):
            raise ConversionError(
                f"layer {number} has a bias in front of its layer normalisation, which cmlp has "
                "not: train it with bias=False there (use_bias=False in Keras)"
            )
