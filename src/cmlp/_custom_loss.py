"""Losses that users write: which arguments they take, and what they must return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import refuse_masked
from ._errstate import callers_state

Array = NDArray[Any]
CustomLoss = Callable[..., tuple[float, ArrayLike]]


def weights_argument(loss: CustomLoss) -> str:
    """Return whether a loss takes weights as its third argument: 'no', 'optional' or 'required'."""
    import inspect  # slow to import

    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):  # of a builtin: it tells nothing
        return "no"

    def takes(n_arguments: int) -> bool:
        try:
            signature.bind(*range(n_arguments))
        except TypeError:
            return False
        return True

    return "no" if not takes(3) else "optional" if takes(2) else "required"


def refuse_weights() -> ValueError:
    """Return the error for weights that the loss of a network does not take."""
    return ValueError(
        "sample_weight needs a loss with a third argument: loss(outputs, targets, sample_weight), "
        "which returns the weighted mean of the rows' losses and its derivative by the outputs; "
        "this network's loss takes two"
    )


def call(
    loss: CustomLoss, argument: str, out: Array, y: Array, weights: NDArray[np.float64] | None
) -> tuple[float, Array]:
    """Call a loss, and check what it returns.

    Parameters
    ----------
    argument : {'no', 'optional', 'required'}
        What :func:`weights_argument` says of it.
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
    if weights is None and argument == "required":
        weights = np.ones(len(out))
    with callers_state():
        result = loss(out, y) if weights is None else loss(out, y, weights)
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
