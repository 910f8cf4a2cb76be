"""Labels of a classifier: from labels to targets, and from outputs to labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.arrays import refuse_masked
from cmlp.core.checks import check_number, plain
from cmlp.core.layout import Array
from cmlp.data.frames import check_container, is_sparse
from cmlp.data.labels import equal, is_missing, joined, label_array, not_labels, places
from cmlp.estimators.inputs import column


def read_labels(y: Any, *, learns: bool = False, name: str = "y") -> Array:
    """Return labels as a vector of one type, or a multi-label indicator as a 0/1 matrix.

    Parameters
    ----------
    learns : bool
        Whether they are to train on; a single column of them causes a warning then.

    Raises
    ------
    ValueError
        If y holds numbers that are not labels, masked or missing values, or labels of different
        types.
    TypeError
        For bytes, a np.matrix, and a lazy table.
    """
    check_container(name, y)
    array = column(label_array(name, y.toarray() if is_sparse(y) else y), warns=learns)
    if array.dtype == object:
        array = _with_missing(name, array)
    if array.dtype.kind == "S":
        raise TypeError(
            "Support for labels represented as bytes is not supported. Convert the labels to a "
            "string or integer format."
        )
    if array.ndim == 2:
        return _indicator(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        what = "NaN" if np.isnan(array).any() else "infinity or a value too large"
        raise ValueError(f"Input {name} contains {what}.")
    if array.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported for {name}: labels must be text or whole numbers"
        )
    if array.dtype.kind == "f" and (array != np.round(array)).any():
        raise ValueError(
            "Unknown label type: continuous. Maybe you are trying to fit a classifier, which "
            "expects discrete classes on a regression target with continuous values."
        )
    if array.ndim != 1:
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {array.shape} instead."
        )
    if array.dtype.kind not in "iubfU":
        raise not_labels(name, array)
    return array


def _with_missing(name: str, array: Array) -> Array:
    """Return a matrix with NaN for what is missing; refuse any other objects."""
    missing = np.array([is_missing(value) for value in array.ravel()]).reshape(array.shape)
    if not missing.any():
        error = not_labels(name, array)
        raise ValueError(f"Unknown label type: unknown. {error}")
    if array.ndim != 2:
        raise ValueError(f"Input {name} contains NaN.")
    return label_array(name, np.where(missing, np.nan, array))


def _indicator(array: Array) -> Array:
    """Check a matrix of 0, 1 and, where a label is missing, NaN."""
    numbers = array.dtype.kind in "fiub"
    unknown = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    if not (numbers and (np.isin(array, (0, 1)) | unknown).all()):
        raise ValueError(
            "Multioutput target data is not supported: a matrix y must be a multi-label "
            "indicator, with 0 and 1 only (NaN for a missing label)"
        )
    return array.astype(np.float32 if unknown.any() else np.uint8)


def is_text(labels: Array) -> bool:
    """Whether labels are text, and not numbers."""
    return labels.dtype.kind == "U"


@dataclass
class Labels:
    """The labels of a problem, in the order of the outputs."""

    classes: Array
    multilabel: bool = False
    sparse: bool = False
    assumed: bool = False
    """Whether the labels are defaults, 0 to n - 1."""

    @classmethod
    def of(cls, y: Array, sparse: bool = False) -> Labels:
        """Find the labels in what :func:`read_labels` returned."""
        if y.ndim == 2:
            return cls(np.arange(y.shape[1]), True, sparse)
        return cls(np.unique(y))

    @property
    def n_outputs(self) -> int:
        """Outputs that a network needs: one for two classes, one per label or class else."""
        n = len(self.classes)
        return n if self.multilabel or n > 2 else 1

    @property
    def of_network(self) -> Array | None:
        """The labels that a network keeps: one per row, of classes that have been named."""
        several = self.multilabel or len(self.classes) == 1
        return None if several or self.assumed else self.classes

    def are(self, classes: Array) -> bool:
        """Whether these are the labels, in whatever order."""
        return set(self.classes.tolist()) == set(classes.tolist())

    def check_counts(self, places: Array) -> None:
        """Check that every class has two rows at least, to divide; `places` are class numbers."""
        counts = np.bincount(places, minlength=len(self.classes))
        if counts.min() < 2:
            few = [str(label) for label in self.classes[counts < 2]]
            raise ValueError(
                f"The least populated classes in y have only {counts.min()} member, which is too "
                "few. The minimum number of groups for any class cannot be less than 2. Classes "
                f"with too few members are: {few}"
            )

    def check_comparable(self, y: Array) -> None:
        """Refuse labels of another shape or another type than those of the problem."""
        if self.multilabel != (y.ndim == 2) or (y.ndim == 2 and y.shape[1] != len(self.classes)):
            raise ValueError(
                f"y has the shape {y.shape}, but this classifier was fitted on "
                + (
                    "a 0/1 matrix of {} labels" if self.multilabel else "one of {} labels per row"
                ).format(len(self.classes))
            )
        if not self.multilabel and is_text(y) != is_text(self.classes):
            raise ValueError(
                "Mix of label input types (string and number); Got "
                f"{np.unique(y)} and {self.classes}."
            )

    def encode(self, y: Array) -> Array:
        """Return targets for the core: class numbers (n,), or 0 and 1 in (n, n_outputs).

        Raises
        ------
        ValueError
            For labels that are not among the classes, or of another shape or type.
        """
        self.check_comparable(y)
        if self.multilabel:
            return y
        place = places(self.classes, y)
        unseen = np.unique(y[place < 0])
        if len(unseen):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes}. "
                f"'y' has {unseen}."
            )
        return place if self.n_outputs > 1 else place[:, None]

    def right(self, predicted: Array, y: Array) -> NDArray[np.bool_]:
        """Return in which rows all labels are right; a missing one counts as right."""
        if self.multilabel:
            return np.asarray(((predicted == y) | np.isnan(y)).all(axis=1))
        return equal(predicted, y)

    def decode(self, outputs: Array) -> Any:
        """Return the label of each row of outputs; for several labels per row a 0/1 matrix."""
        if self.multilabel:
            matrix = (outputs > 0.5).astype(np.int64)
            if not self.sparse:
                return matrix
            from scipy.sparse import csr_matrix  # y came from there

            return csr_matrix(matrix)
        if len(self.classes) == 1:
            return np.repeat(self.classes, len(outputs))
        if outputs.shape[1] == 1:
            return self.classes[(outputs[:, 0] > 0.5).astype(np.intp)]
        return self.classes[outputs.argmax(axis=1)]


def class_weights(
    class_weight: Any, y: Array, labels: Labels, counted: Any = None
) -> NDArray[np.float64] | None:
    """Return each row's weight by its class.

    Parameters
    ----------
    class_weight : None, 'balanced' or dict
        'balanced': n / (number of classes * rows of the class); a dict maps labels to weights, 1
        where it has none.
    counted : Summary or Learned, optional
        What all rows hold, where y are some of them.
    """
    if class_weight is None:
        return None
    if labels.multilabel:
        raise ValueError(
            "class_weight needs one label per row, but y is a multi-label matrix; "
            "use sample_weight instead"
        )
    place = places(labels.classes, y)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight must be 'balanced', a dict or None; it is {class_weight!r}"
            )
        n, counts = len(y), np.bincount(place, minlength=len(labels.classes))
        if counted is not None and counted.labels is not None:
            whose = places(labels.classes, counted.labels)  # -1: of a gap
            counts = np.bincount(whose + 1, counted.counts, len(counts) + 1)[1:]
            n = counted.n_rows
        return np.asarray(n / ((counts > 0).sum() * np.maximum(counts, 1)), float)[place]
    if not hasattr(class_weight, "items"):
        raise ValueError(
            "class_weight must be 'balanced', a dict that maps labels to weights, or None; it is a "
            f"{type(class_weight).__name__}"
        )
    known = labels.classes.tolist()
    given = {plain(label): weight for label, weight in class_weight.items()}
    missing = [label for label in given if label not in known]
    if missing:
        raise ValueError(f"class_weight names {missing}, but the classes are {known}")
    refuse_masked("class_weight", list(given.values()))
    weights = [
        check_number(f"class_weight[{label!r}]", given.get(label, 1.0), 0) for label in known
    ]
    return np.array(weights)[place]


def extended(known: Labels, labels: ArrayLike) -> Labels:
    """Return the earlier classes and the new ones, sorted.

    Raises
    ------
    ValueError
        If outputs for them cannot be added.
    """
    if known.multilabel:
        raise ValueError(
            "add_classes needs one label per row, but this classifier was fitted on several: fit a "
            "new one to a y with more columns"
        )
    if len(known.classes) == 1:
        raise ValueError(
            f"this classifier knows one class, {known.classes}, and has learned nothing to keep: "
            "begin with partial_fit(X, y, classes=...) that names them all"
        )
    refuse_masked("labels", labels)
    given = read_labels([labels] if np.ndim(labels) == 0 else labels, name="labels")
    if len(given) and is_text(given) != is_text(known.classes):
        raise ValueError(
            f"labels must be of the type of those before, {known.classes}; they are {given}"
        )
    return Labels(joined("labels", known.classes, given)) if len(given) else known
