"""The network's arithmetic in NumPy: fallback, oracle and textbook.

This package and ``_core.pyx`` are twins: the same functions, the same parameters, the same numbers
up to rounding. Each module here has its counterpart in ``kernels``, by name. The formulas are in
the twin of NumPy; read it first, in this order:

1. ``activations``    a = f(z), and da/dz
2. ``losses``         the cost of each row, and dC/dz of the output layer
3. ``forward``        z = a_before W + b, layer by layer
4. ``backward``       dC/dz of each layer from that of the next one, and the gradient
5. ``step``           a batch: its gradient, its update, and an epoch of batches
6. ``updates``        penalties, and the rules that turn a gradient into a step
7. ``normalization``, ``parametric``, ``noise``   three additions to the layers
8. ``embed``, ``periodic``, ``front``   what happens to X's columns before the first layer
9. ``bfloat16``       operands of products that are rounded
10. ``gather``, ``predict``, ``predictor``, ``bound_trainer``   rows of X and y in, outputs out

Names: ``z`` is a layer's weighted sum, ``a`` its activation, ``delta`` is dC/dz, the derivative of
the cost by the weighted sum, and a gradient is ``d`` and the name of what it belongs to.

A network is a ``plan`` (one row of integers per layer, see ``layout.make_plan``) and ``params``,
one flat vector that holds each layer's weights W, (n_in, n_out), and bias b, (n_out,). Rows are
padded to 64 bytes with zeros; the padding takes part in nothing.

Everything is checked and allocated by the callers. ``workspace`` is scratch of the compiled twin;
here NumPy allocates. No function reports overflow: the compiled twin does not either, and callers
examine the loss.
"""

from __future__ import annotations

from cmlp.core.reference.activations import activate
from cmlp.core.reference.bound_trainer import BoundTrainer, blend
from cmlp.core.reference.forward import forward, largest, multiply_adds, product
from cmlp.core.reference.gather import workspace_size
from cmlp.core.reference.lanes import train_lanes
from cmlp.core.reference.predict import predict
from cmlp.core.reference.predictor import Predictor
from cmlp.core.reference.step import evaluate, gradient, train_epoch
from cmlp.core.reference.updates import update

name = "python"


vector_bytes = 0


bfloat16 = False


__all__ = [
    "BoundTrainer",
    "Predictor",
    "activate",
    "bfloat16",
    "blend",
    "evaluate",
    "forward",
    "gradient",
    "largest",
    "multiply_adds",
    "name",
    "predict",
    "product",
    "train_epoch",
    "train_lanes",
    "update",
    "vector_bytes",
    "workspace_size",
]
