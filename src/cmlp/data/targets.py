"""y of a network: labels become class numbers, or numbers are checked against the loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.arrays import label_array, not_labels, places
from cmlp.core.layout import Array
from cmlp.core.vocabulary import Loss
from cmlp.data.frames import listed
from cmlp.data.numbers import REAL, as_numbers, check_dense, check_finite


class _Expected(NamedTuple):
    """What a network expects of its targets; the arguments of :func:`check_targets`."""

    name: str
    n_out: int
    loss: Loss | None
    classes: Array | None
    dtype: np.dtype[Any]
    missing: bool

    @property
    def classifies(self) -> bool:
        return self.loss is not None and self.loss.classifies

    @property
    def outputs(self) -> str:
        return f"{self.n_out} output{'s' * (self.n_out > 1)}"


def check_targets(
    y: ArrayLike,
    n: int,
    n_out: int,
    loss: Loss | None,
    classes: Array | None,
    dtype: np.dtype[Any],
    name: str = "y",
    missing: bool = False,
) -> tuple[Array, Array | None]:
    """Encode targets for the cores.

    Parameters
    ----------
    y : array-like
        Class labels of any type, (n,); one-hot rows, probabilities or a 0/1 matrix, (n, n_out);
        numbers, (n,) or (n, n_out).
    loss : Loss or None
        None for a custom loss.
    classes : ndarray or None
        The labels in the order of the outputs, if they are known already.
    missing : bool
        Whether NaN is a missing target.

    Returns
    -------
    targets : ndarray
        Class numbers, int64 (n,), or numbers (n, n_out).
    classes : ndarray or None
        The labels of the outputs; None if y does not hold labels.
    """
    expected = _Expected(name, n_out, loss, classes, dtype, missing)
    check_dense(name, y)
    y = label_array(name, y)
    if y.ndim not in (1, 2) or len(y) != n:
        raise ValueError(f"{name} must have {n} rows like X, but its shape is {y.shape}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind in "fc":
        check_finite(name, y if y.dtype.kind == "f" else as_numbers(name, y), dtype, missing)
    if y.ndim == 2:
        return _check_matrix(y, expected), classes
    if n_out > 1 or y.dtype.kind not in REAL:
        return _check_labels(y, expected)
    return _check_column(y, expected)


# The three kinds ---------------------------------------------------------------------------------


def _check_labels(y: Array, expected: _Expected) -> tuple[Array, Array]:
    """Return class numbers, (n,), or for one output 0 and 1, (n, 1); and the labels."""
    name, n_out = expected.name, expected.n_out
    if n_out == 1 and not expected.classifies:
        raise ValueError(
            f"{name} holds {y.dtype} labels, but this network's loss is for numbers; use "
            "loss='binary_crossentropy' for two classes, or one output per class"
        )
    if not _is_label_like(y, expected.classifies):
        advice = "; for regression use loss='squared_error'" if expected.classifies else ""
        raise ValueError(
            f"{name} is one number per row, but this network has {n_out} outputs: expected "
            f"class labels or a matrix of shape ({len(y)}, {n_out}){advice}"
        )
    targets, classes = _index_labels(y, expected)
    return (targets, classes) if n_out > 1 else (targets[:, None], classes)


def _check_column(y: Array, expected: _Expected) -> tuple[Array, Array | None]:
    """Return numbers, (n, 1); for binary cross-entropy of labels such as -1 and 1 these, too."""
    name = expected.name
    if y.dtype.kind == "b" and not expected.classifies:
        raise ValueError(
            f"{name} holds True and False, but this network's loss is for numbers; use "
            f"loss='binary_crossentropy', or {name}.astype(float)"
        )
    y = as_numbers(name, y)
    if expected.classifies and _is_label_like(y, True) and len(y):
        place, classes = _index_labels(y, expected)
        return place[:, None], classes
    _check_domain(y, expected)
    return y[:, None], expected.classes


def _check_matrix(y: Array, expected: _Expected) -> Array:
    """Return numbers, (n, n_out)."""
    name, loss = expected.name, expected.loss
    if y.shape[1] != expected.n_out:
        raise ValueError(
            f"{name} has {y.shape[1]} columns, but this network has {expected.outputs}"
        )
    y = as_numbers(name, y)
    _check_domain(y, expected)
    if loss is not None and loss.name == "categorical_crossentropy":
        sums = y.sum(axis=1, dtype=np.float64)
        off = np.flatnonzero(np.abs(sums - 1) > 1e-3)
        if len(off):
            raise ValueError(
                f"row {off[0]} of {name} sums to {sums[off[0]]:g}; categorical cross-entropy "
                "expects one-hot rows or probabilities that sum to 1 (several labels per row: "
                "loss='binary_crossentropy'; regression: loss='squared_error')"
            )
    return y


# Labels ------------------------------------------------------------------------------------------


def _is_label_like(y: Array, classifies: bool) -> bool:
    """Whether a vector holds labels: text, integers, or whole floats given to a classifier."""
    if y.dtype.kind == "f":
        return classifies and bool(np.all(y == np.round(y)))
    return True


def _index_labels(y: Array, expected: _Expected) -> tuple[Array, Array]:
    """Return each label's index among the classes, which are derived from y if not yet known."""
    name, classes = expected.name, expected.classes
    if y.dtype.kind not in "iubfUS":
        raise not_labels(name, y)
    if classes is None:
        classes = _classes_of(y, expected)
    place = places(classes, y)
    unknown = np.flatnonzero(place < 0)
    if len(unknown):
        raise ValueError(
            f"{name} holds the label {y[unknown[0]].item()!r} at row {unknown[0]}, none of this "
            f"network's classes ({listed(classes, 5)})"
        )
    return place, classes


def _classes_of(y: Array, expected: _Expected) -> Array:
    """Return the labels in y: all numbers from 0 up if they are such, else those that occur."""
    found = np.unique(y)
    n_classes = max(expected.n_out, 2)
    small = y.dtype.kind in "iubf" and found[0] >= 0 and found[-1] < n_classes
    if small and (y.dtype.kind != "b" or n_classes == 2):
        fits = np.can_cast(np.min_scalar_type(n_classes - 1), y.dtype)
        return np.arange(n_classes).astype(y.dtype if fits else np.int64)
    if len(found) == n_classes:
        return found
    if len(found) == 1:
        raise ValueError(
            f"{expected.name} holds one class only ({found[0]}): with {expected.outputs} at least "
            "two are needed"
        )
    raise ValueError(
        f"{expected.name} has {len(found)} classes ({listed(found, 5)}), but this network has "
        f"{expected.outputs}; the last of its sizes should be {len(found)}"
    )


# Numbers -----------------------------------------------------------------------------------------


def _check_domain(y: Array, expected: _Expected) -> None:
    """Check that numbers are finite and that the loss is defined for them."""
    check_finite(expected.name, y, expected.dtype, expected.missing)
    if expected.missing:
        y = y[y == y]  # without NaN
    if expected.loss is None or y.size == 0:
        return
    low, high = expected.loss.targets
    for bad in (y.min(), y.max()):
        if not low <= bad <= high:
            bounds = f"between {low:g} and {high:g}" if np.isfinite(high) else f"at least {low:g}"
            raise ValueError(
                f"{expected.name} holds {bad}, but {expected.loss.name} needs targets {bounds}"
            )
