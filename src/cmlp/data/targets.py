"""y of a network: labels become class numbers, or numbers are checked against the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.layout import Array
from cmlp.core.vocabulary import Loss
from cmlp.data.checks import as_numbers, check_dense, check_finite
from cmlp.data.labels import label_array, not_labels, places

# Targets -----------------------------------------------------------------------------------------


def _is_label_like(y: Array, classifies: bool) -> bool:
    """Whether a vector holds labels: text, integers, or whole floats given to a classifier."""
    if y.dtype.kind == "f":
        return classifies and bool(np.all(y == np.round(y)))
    return True


def _index_labels(y: Array, n_out: int, classes: Array | None, name: str) -> tuple[Array, Array]:
    """Number the labels by their place in `classes`, which is found from y where it is None."""
    if y.dtype.kind not in "iubfUS":
        raise not_labels(name, y)
    if classes is None:
        found = np.unique(y)
        n_classes = max(n_out, 2)
        small = y.dtype.kind in "iubf" and found[0] >= 0 and found[-1] < n_classes
        if small and (y.dtype.kind != "b" or n_classes == 2):
            fits = np.can_cast(np.min_scalar_type(n_classes - 1), y.dtype)
            classes = np.arange(n_classes).astype(y.dtype if fits else np.int64)
        elif len(found) == n_classes:
            classes = found
        else:
            raise ValueError(_class_count(name, found, n_out))
    place = places(classes, y)
    unknown = np.flatnonzero(place < 0)
    if len(unknown):
        raise ValueError(
            f"{name} holds the label {y[unknown[0]].item()!r} at row {unknown[0]}, none of this "
            f"network's classes ({_shortened(classes)})"
        )
    return place, classes


def _class_count(name: str, found: Array, n_out: int) -> str:
    """Complain that the labels are more or fewer than the outputs."""
    outputs = f"{n_out} output{'s' * (n_out > 1)}"
    if len(found) == 1:
        return f"{name} holds one class only ({found[0]}): with {outputs} at least two are needed"
    advice = f"the last of its sizes should be {len(found)}"
    return (
        f"{name} has {len(found)} classes ({_shortened(found)}), but this network has {outputs}; "
        f"{advice}"
    )


def _shortened(values: Sequence[Any] | Array, most: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (", ..." if len(values) > most else "")


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
        The labels, in the order of the outputs, where they are known already.
    missing : bool
        Whether NaN stands for a target that is not known.

    Returns
    -------
    targets : ndarray
        Class numbers, int64 (n,), or numbers (n, n_out).
    classes : ndarray or None
        The labels that belong to the outputs; None if y does not hold labels.
    """
    check_dense(name, y)
    y = label_array(name, y)
    if y.ndim not in (1, 2) or len(y) != n:
        raise ValueError(f"{name} must have {n} rows like X, but its shape is {y.shape}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind in "fc":
        check_finite(name, y if y.dtype.kind == "f" else as_numbers(name, y), dtype, missing)
    classifies = loss is not None and loss.classifies
    if y.ndim == 1 and (n_out > 1 or y.dtype.kind not in "fiub"):
        if n_out == 1 and not classifies:
            raise ValueError(
                f"{name} holds {y.dtype} labels, but this network's loss is for numbers; use "
                "loss='binary_crossentropy' for two classes, or one output per class"
            )
        if not _is_label_like(y, classifies):
            advice = "; for regression use loss='squared_error'" if classifies else ""
            raise ValueError(
                f"{name} is one number per row, but this network has {n_out} outputs: expected "
                f"class labels or a matrix of shape ({n}, {n_out}){advice}"
            )
        targets, classes = _index_labels(y, n_out, classes, name)
        return (targets, classes) if n_out > 1 else (targets[:, None], classes)
    if y.ndim == 1:
        return _check_single_output(y, loss, classes, dtype, name, missing)
    if y.shape[1] != n_out:
        raise ValueError(
            f"{name} has {y.shape[1]} columns, but this network has {n_out} "
            f"output{'s' * (n_out > 1)}"
        )
    y = as_numbers(name, y)
    _check_domain(y, loss, dtype, name, missing)
    if loss is not None and loss.name == "categorical_crossentropy":
        sums = y.sum(axis=1, dtype=np.float64)
        off = np.flatnonzero(np.abs(sums - 1) > 1e-3)
        if len(off):
            raise ValueError(
                f"row {off[0]} of {name} sums to {sums[off[0]]:g}; categorical cross-entropy "
                "expects one-hot rows or probabilities that sum to 1 (several labels per row: "
                "loss='binary_crossentropy'; regression: loss='squared_error')"
            )
    return y, classes


def _check_single_output(
    y: Array,
    loss: Loss | None,
    classes: Array | None,
    dtype: np.dtype[Any],
    name: str,
    missing: bool,
) -> tuple[Array, Array | None]:
    """Numbers for one output; for binary cross-entropy also two labels such as -1 and 1."""
    if y.dtype.kind == "b" and not (loss is not None and loss.classifies):
        raise ValueError(
            f"{name} holds True and False, but this network's loss is for numbers; use "
            f"loss='binary_crossentropy', or {name}.astype(float)"
        )
    y = as_numbers(name, y)
    if loss is not None and loss.classifies and _is_label_like(y, True) and len(y):
        place, classes = _index_labels(y, 1, classes, name)
        return place[:, None], classes
    _check_domain(y, loss, dtype, name, missing)
    return y[:, None], classes


def _check_domain(
    y: Array, loss: Loss | None, dtype: np.dtype[Any], name: str, missing: bool
) -> None:
    check_finite(name, y, dtype, missing)
    if missing:
        y = y[y == y]  # all but NaN
    if loss is None or y.size == 0:
        return
    low, high = loss.targets
    for bad in (y.min(), y.max()):
        if not low <= bad <= high:
            bounds = f"between {low:g} and {high:g}" if np.isfinite(high) else f"at least {low:g}"
            raise ValueError(f"{name} holds {bad}, but {loss.name} needs targets {bounds}")
