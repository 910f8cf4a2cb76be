"""Backpropagation: the chain rule, from the output layer's delta back to the first layer."""

from __future__ import annotations

from cmlp.core import layout
from cmlp.core.reference.bfloat16 import operands
from cmlp.core.reference.forward import raise_if_stopped, write_record
from cmlp.core.reference.normalization import normalised_delta
from cmlp.core.reference.parametric import add_alpha_gradient


def add_gradient(plan, params, inputs, slopes, differences, delta, kept, grads, deltas, team):
    """Add the gradient of one pass, from the output layer's delta; return the first layer's.

    ``dW = a_before^T delta``, ``db = sum delta``, ``delta_before = (delta W^T) * da/dz``. `inputs`
    are each layer's a_before, `slopes` each layer's da/dz, `differences` da/dalpha of those whose
    activation is parametric. With rows in `deltas`, every layer's delta is written there.
    """
    parameters, gradients = layout.layer_views(plan, params), layout.layer_views(plan, grads)
    for number in reversed(range(len(parameters))):
        raise_if_stopped(team)
        (W, _), (dW, db) = parameters[number], gradients[number]
        if kept[number]:
            delta = normalised_delta(plan[number], params, grads, delta, kept[number])
        if len(deltas):
            write_record(plan[number : number + 1], deltas, [delta])
        a, W, operand = operands(plan[number], inputs[number], W, delta)
        if not kept[number]:
            db += operand.sum(axis=0)
        dW += a.T @ operand
        if number:
            delta = operand @ W.T
            if plan[number - 1, layout.ALPHA]:
                add_alpha_gradient(plan[number - 1], grads, delta, differences[number - 1])
            delta = delta * slopes[number - 1]
    return delta
