"""The data that ships with cmlp."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Digits(NamedTuple):
    """Handwritten digits: pixels are uint8 from 0 to 16, labels int64 from 0 to 9."""

    X_train: NDArray[Any]
    y_train: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]


def load_digits() -> Digits:
    """Load optdigits: 5,620 handwritten digits of 8x8 pixels.

    The official split: the 1,797 test digits have other writers than the 3,823 training digits.

    Returns
    -------
    Digits
        X_train (3823, 64), y_train (3823,), X_test (1797, 64), y_test (1797,).

    References
    ----------
    E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49; licensed CC BY 4.0.
    """
    from importlib.resources import files  # slow to import, rarely needed

    with files("cmlp.datasets").joinpath("optdigits.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        X, y, test = arrays["X"], arrays["y"].astype(np.int64), arrays["is_test"]
    return Digits(X[~test], y[~test], X[test], y[test])
