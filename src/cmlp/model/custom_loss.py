"""Losses that users write: which arguments they take, and what they must return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.arrays import refuse_masked
from cmlp.core.errstate import callers_state
from cmlp.core.layout import Array

CustomLoss = Callable[..., tuple[float, ArrayLike]]


def weights_argument(loss: CustomLoss) -> str:
    """Return how a loss takes weights.

    Returns
    -------
    str
        'keyword' or 'required keyword' if an argument is called `sample_weight`, at any
        position; otherwise, by the third argument, 'optional', 'required' or 'no'. A third argument
        with a value of its own, such as ``delta=1.0``, does not receive weights.
    """
    import inspect  # slow to import

    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):  # a builtin without a signature
        return "no"

    def takes(*args: Any, **kwargs: Any) -> bool:
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            return False
        return True

    if "sample_weight" in signature.parameters and takes(0, 1, sample_weight=2):
        return "keyword" if takes(0, 1) else "required keyword"
    third = list(signature.parameters.values())[2:3]
    if not takes(0, 1, 2) or (third and third[0].default not in (None, third[0].empty)):
        return "no"
    return "optional" if takes(0, 1) else "required"


def refuse_weights() -> ValueError:
    """Return the error for weights that the loss of a network does not take."""
    return ValueError(
        "sample_weight needs a loss with a third argument: loss(outputs, targets, sample_weight), "
        "which returns the weighted mean of the rows' losses and its derivative by the outputs; "
        "this network's loss has none for them"
    )


def call(
    loss: CustomLoss, argument: str, out: Array, y: Array, weights: NDArray[np.float64] | None
) -> tuple[float, Array]:
    """Call a loss, and check what it returns.

    Parameters
    ----------
    argument : str
        How it takes weights, as returned by :func:`weights_argument`.
    out, y : (n, n_out) arrays
    weights : (n,) array or None

    Returns
    -------
    value : float
    slope : (n, n_out) array
        Of the dtype of `out`.
    """
    if weights is not None and not weights.any():
        return 0.0, np.zeros_like(out)  # the weighted mean of nothing
    if weights is None and argument.startswith("required"):
        weights = np.ones(len(out))
    more = () if weights is None else (weights,)
    with callers_state():
        if more and argument.endswith("keyword"):
            result = loss(out, y, sample_weight=weights)
        else:
            result = loss(out, y, *more)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"a custom loss must return (value, gradient), not a {type(result).__name__}"
        )
    refuse_masked("the gradient of a custom loss", result[1])
    try:
        value, slope = float(result[0]), np.ascontiguousarray(result[1], out.dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"a custom loss must return a value and an array: {error}") from None
    if slope.shape != out.shape:
        raise ValueError(
            f"a custom loss must return a gradient of shape {out.shape}, like the outputs; "
            f"it is {slope.shape}"
        )
    return value, slope


def lost_loss(out: Array, y: Array) -> tuple[float, Array]:
    raise ValueError(
        "this network was saved with a loss of its own, which a file cannot hold: "
        "cmlp.load(path, loss=...) gives it back"
    )
