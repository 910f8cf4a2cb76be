"""The seam's one class: predictions whose preparations are made once."""

from __future__ import annotations

import numpy as np

from cmlp.core import front, layout
from cmlp.core.arrays import array_of
from cmlp.core.reference.predict import predict


class Predictor:
    """Compute a network's outputs, call after call, with the preparations made once.

    Called with x, one row (n_in,) or up to `batch_size` rows (n, n_in), it returns the outputs,
    (n_out,) or (n, n_out), in an array that the next call overwrites; or it writes them to `out`.
    Other dtypes than the network's are converted. NaN and infinity are not checked.

    Every call reads `params`, always this array and on this core. A predictor is for one thread at
    a time, and cannot be pickled or copied.

    Raises
    ------
    ValueError
        If `x` or `out` has another shape, or `out` another dtype.
    TypeError
        If `x` does not hold real numbers.
    RuntimeError
        If another thread is in a call.
    """

    def __init__(self, plan, params, input_scale=1.0, batch_size=1):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; it is {batch_size}")
        self._plan, self._params, self._input_scale = plan, params, input_scale
        self._n_in = front.columns_of(plan)
        self._n_out = int(layout.layers_of(plan)[-1, layout.N_OUT])
        self._out = np.empty((batch_size, self._n_out), params.dtype)

    def __reduce__(self):
        raise TypeError("a predictor cannot be pickled or copied: do so with its network")

    def outputs(self, X):
        """Return the outputs of rows X, (n, n_in), in a new array (n, n_out); or None.

        None: X is no array of such rows, is empty, or may hold NaN or infinity; or another thread
        is in a call. The caller then checks X itself.
        """
        return None  # the caller's checks cost little next to NumPy's time for a row

    def __call__(self, x, out=None):
        x = array_of("x", x)
        if x.dtype.kind not in "fiub":
            raise TypeError(f"x must hold real numbers; its dtype is {x.dtype}")
        n_in, batch_size = self._n_in, len(self._out)
        n = len(x) if x.ndim == 2 else 1
        if x.ndim not in (1, 2) or x.shape[-1] != n_in or (out is None and n > batch_size):
            raise ValueError(
                f"x must be ({n_in},) or (n, {n_in}) with n up to {batch_size}; "
                f"its shape is {x.shape}"
            )
        dtype, expected = self._params.dtype, (n, self._n_out)[2 - x.ndim :]
        if out is None:
            out = self._out[:n].reshape(expected)
        elif out.shape != expected or out.dtype != dtype:
            raise ValueError(f"out must be {expected}, {dtype}")
        predict(
            self._plan, self._params, x.reshape(n, n_in), None, out.reshape(n, self._n_out), None,
            self._input_scale,
        )  # fmt: skip
        return out
