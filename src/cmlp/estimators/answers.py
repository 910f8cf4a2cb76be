"""Numbers of the hidden layers, and derivatives by the inputs, in portions."""

from __future__ import annotations

from typing import Any

from cmlp.core.layout import Array
from cmlp.data.checks import check_X
from cmlp.model import passes
from cmlp.network import Network


def propagate(net: Network, X: Any, n_layers: int | None = None, linear: bool = False) -> Array:
    """Propagate rows through some layers; `linear` stops short of the last activation."""
    return passes.predict_layer(net, check_X(X, net.sizes[0], net.dtype), n_layers, linear)


def slopes(net: Network, X: Any) -> Array:
    """Return the derivatives of the outputs by the inputs, (n, n_out, n_in)."""
    return passes.output_slopes(net, check_X(X, net.sizes[0], net.dtype))
