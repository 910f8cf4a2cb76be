"""Prediction: rows in, outputs out."""

from __future__ import annotations

import numpy as np

from cmlp.core.reference.forward import propagate
from cmlp.core.reference.gather import gather, passes


@np.errstate(all="ignore")
def predict(plan, params, X, rows, out, workspace, input_scale=1.0):
    """Write the output activations of the given rows of X (None: all) to `out`, (rows, n_out).

    Here and below, X is multiplied by `input_scale` as its rows are gathered.
    """
    for start, stop, part in passes(X, rows):
        x = gather(X, part, input_scale, params.dtype)
        out[start:stop] = propagate(plan, params, x, running=True)[2][-1]
