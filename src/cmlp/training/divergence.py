"""The record of a training, what callbacks see of it, and how it fails."""

from __future__ import annotations

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.public import set_module
from cmlp.core.seam import SparseRows
from cmlp.data.numbers import is_finite
from cmlp.data.rows import Data
from cmlp.model import passes
from cmlp.model.history import History
from cmlp.model.state import State
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot


@set_module("cmlp")
class DivergenceError(ArithmeticError, ValueError):
    """Training stopped at a loss or a weight that is not finite; the last finite weights are kept.

    Attributes
    ----------
    history : History
        The epochs before.
    """

    history: History


def diverged(
    net: State,
    data: Data,
    recipe: Recipe,
    history: History,
    safe: Snapshot,
) -> DivergenceError:
    """Return an error with the layer and the usual remedy; restore the last finite weights."""
    where = first_bad_layer(net, data.X[:256])
    safe.put_back()
    causes = [f"the learning rate is too high (it was {recipe.learning_rate:g}; try a tenth)"]
    largest = net.input_scale * max(abs(float(data.X.min())), abs(float(data.X.max())))
    if largest > 20:
        pixels = data.X.dtype == np.uint8 and net.input_scale == 1
        how = ", as Network(..., input_scale=1/255) does" if pixels else ""
        causes.append(f"X is not scaled (values up to {largest:.3g}; bring them to about 1{how})")
    if net.loss_row is not None and not net.architecture.classifies:
        causes.append("y is not scaled")
    if recipe.clip_norm is None:
        causes.append("gradients are not clipped (try clip_norm=1)")
    epoch = len(history.get("epoch", [])) + 1
    error = DivergenceError(
        f"training diverged in epoch {epoch}, {where}. The network has the last finite weights, "
        f"those from the end of epoch {epoch - 1}. Usual causes: {'; '.join(causes)}."
    )
    error.history = history
    return error


def first_bad_layer(net: State, X: Array | SparseRows) -> str:
    """Name the layer where the numbers stop being finite: in its weights, or in its sums."""
    names = [
        f"layer {number} ({W.shape[0]} -> {W.shape[1]}, {activation})"
        for number, (W, activation) in enumerate(zip(net.weights, net.activations, strict=True), 1)
    ]
    for name, W, b in zip(names, net.weights, net.biases, strict=True):
        if not (is_finite(W) and is_finite(b)):
            return f"first in the weights of {name}"
    with np.errstate(all="ignore"):
        sums, _ = passes.forward(net, X)
    for name, z in zip(names, sums, strict=True):
        if not is_finite(z):
            return f"first in the weighted sums of {name}"
    return f"in the loss, after {names[-1]}"
