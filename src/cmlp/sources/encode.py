"""Rows of a source become rows of a core: checked, with the place of what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.cells import DataError, show
from cmlp.data.frames import listed
from cmlp.data.numbers import first_not_finite, not_finite
from cmlp.data.source import Block, Source
from cmlp.data.targets import check_targets
from cmlp.model.custom_loss import refuse_weights
from cmlp.model.state import State

Targets = Callable[[Array], Array]
"""From targets of some rows to the core's; raises ValueError."""

Where = Callable[[int], str]
"""The place of a row."""


class RowEncoder:
    """Checks rows of a source, and encodes their targets.

    Parameters
    ----------
    targets : callable
        From y to the core's targets. What it raises is about single rows: it is called again to
        find the first of them.
    weights : callable, optional
        From y to a factor of the weights, such as those of classes.
    """

    def __init__(
        self,
        source: Source,
        dtype: np.dtype[Any],
        targets: Targets,
        weights: Callable[[Array], Array | None] | None = None,
    ) -> None:
        self.names, self.dtype = source.feature_names, dtype
        self.targets, self.weights = targets, weights

    def __call__(self, found: Block, where: Where) -> Block:
        """Return rows with the core's targets; raises DataError with the place of a bad one."""
        at = first_not_finite(found.X, self.dtype)
        if at is not None:
            column = show(self.names[at[1]]) if self.names else f"{at[1]} (counted from 0)"
            error = not_finite("X", found.X[at], f"column {column}", self.dtype)
            raise DataError(f"{where(at[0])}: {error}")
        return Block(found.X, *self.of_targets(found, where))

    def of_targets(self, found: Block, where: Where) -> tuple[Array, NDArray[np.float64] | None]:
        """Return the core's targets, and the weights."""
        y = found.y[:, 0] if found.y.ndim == 2 and found.y.shape[1] == 1 else found.y
        try:
            targets = self.targets(y)
        except (TypeError, ValueError) as error:
            row, its_error = self._first(y, error)
            about = str(its_error).replace(" at row 0", "").replace("row 0 of y", "y")
            raise DataError(f"{where(row)}: {about}") from None
        weight = found.weight
        if weight is not None:
            bad = np.flatnonzero(~((weight >= 0) & (weight < np.inf)))
            if len(bad):
                raise DataError(
                    f"{where(int(bad[0]))}: the weight is {weight[bad[0]]}; weights must be "
                    "finite and not negative"
                )
        factor = None if self.weights is None else self.weights(y)
        if factor is not None:
            weight = factor if weight is None else weight * factor
        return targets, weight

    def _first(self, y: Array, error: Exception) -> tuple[int, Exception]:
        """Return the first row that is refused, and the error about it alone."""
        start, stop = 0, len(y)
        while stop - start > 1:
            middle = (start + stop) // 2
            try:
                self.targets(y[start:middle])
                start = middle
            except (TypeError, ValueError):
                stop = middle
        try:
            self.targets(y[start:stop])
        except (TypeError, ValueError) as found:
            return start, found
        return 0, error  # it is about all rows together


def check_names(net: State, source: Source) -> None:
    """Check that a source has the features of a network in their order, where both have names."""
    names, given = net.feature_names, source.feature_names
    if names and given and names != given:
        raise ValueError(
            f"the source has the features {listed(given, 10, show)}, but this network was trained "
            f"with {listed(names, 10, show)}: choose these, columns=net.feature_names"
        )


def network_encoder(net: State, source: Source) -> RowEncoder:
    """Return what encodes rows for a network; labels that it has not seen yet become its classes.

    Labels are read from the whole source once, where the network needs them.

    Raises
    ------
    ValueError
        If the source does not fit the network.
    """
    about = net.architecture
    if source.n_features != net.sizes[0]:
        raise ValueError(
            f"the source has {source.n_features} features, but this network expects {net.sizes[0]}"
        )
    check_names(net, source)
    if about.unsuited:
        raise ValueError(about.unsuited)

    def encoded(y: Array, classes: Array | None) -> tuple[Array, Array | None]:
        return check_targets(
            y, len(y), net.sizes[-1], about.loss, classes, net.dtype, "y", about.missing_targets
        )

    first = source.first(targets_only=True)
    if first.weight is not None and about.weights_argument == "no":
        raise refuse_weights()
    classes, y = net.classes, first.y
    by_label = net.sizes[-1] > 1 or y.dtype.kind not in "fiub" or about.classifies
    if classes is None and by_label and (y.ndim == 1 or y.shape[1] == 1):
        labels = source.summary(features=False).labels
        if labels is not None:
            labels = labels[labels == labels]  # a row with NaN is refused where it is read
            _, classes = encoded(labels, None)
            net.classes = classes
        elif net.sizes[-1] > 1 or y.dtype.kind not in "fiub":
            raise ValueError(
                f"y holds too many different labels for a network with {net.sizes[-1]} outputs, or "
                "labels that have no order: of different types, or with gaps"
            )
    return RowEncoder(source, net.dtype, lambda y: encoded(y, classes)[0])
