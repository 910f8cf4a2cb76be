"""Attributions: how much each feature of a row adds to a model's answer."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.formatting import number
from cmlp.core.layout import Array
from cmlp.core.public import set_module

SHOWN = 12
"""Features that the text of attributions lists."""


@set_module("cmlp")
@dataclass(frozen=True, repr=False, eq=False)
class Attributions:
    """What :func:`cmlp.attributions` found, with the names of ``shap.Explanation``.

    Of a model with one answer (a number, or the second of two classes) the last axis is missing.

    Attributes
    ----------
    values : ndarray, (rows, features, answers)
        How much each feature adds to the difference between a row's answer and the base value.
    base_values : ndarray, (rows, answers)
        The mean answer about the background, the same for all rows; read-only.
    answers : ndarray, (rows, answers)
        The model's answers about the rows: base_values + values.sum(axis=1), up to `error`.
    data : ndarray, (rows, features)
        The rows.
    feature_names, output_names : list of str
    method : str
    output : str
        'raw' or 'probability'.
    standard_errors : ndarray or None
        Of sampled Shapley values, in the shape of `values`.
    """

    values: NDArray[np.float64]
    base_values: NDArray[np.float64]
    answers: NDArray[np.float64]
    data: Array
    feature_names: list[str]
    output_names: list[str]
    method: str
    output: str
    standard_errors: NDArray[np.float64] | None = None

    @property
    def error(self) -> float:
        """The largest difference between a row's answer and what its attributions add up to."""
        gap = self.answers - self.base_values - self.values.sum(axis=1)
        return float(np.abs(gap).max(initial=0))

    @property
    def mean_absolute(self) -> NDArray[np.float64]:
        """Mean absolute value of each feature over the rows, (features,) or (features, answers)."""
        return np.asarray(np.abs(self.values).mean(axis=0))

    def order(self) -> NDArray[np.int64]:
        """Return the numbers of the features, those with the largest attributions first."""
        sizes = self.mean_absolute.reshape(len(self.feature_names), -1).sum(axis=1)
        return np.argsort(-sizes, kind="stable")

    def to_shap(self) -> Any:
        """Return a ``shap.Explanation``, for SHAP's pictures (``pip install shap``)."""
        explanation = importlib.import_module("shap").Explanation
        return explanation(
            values=self.values,
            base_values=np.array(self.base_values),
            data=self.data,
            feature_names=self.feature_names,
            output_names=self.output_names,
        )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        n, n_features = self.values.shape[:2]
        shape = f"{n:,} row{'s' * (n != 1)}, {n_features:,} feature{'s' * (n_features != 1)}"
        if self.values.ndim == 3:
            shape += f", {self.values.shape[2]:,} answers"
        sums = f"the sums are within {self.error:.1e} of the answers"
        lines = [f"Attributions by {self.method}, output {self.output!r}: {shape}; {sums}"]
        order = self.order()
        names = [self.feature_names[place] for place in order[:SHOWN]]
        width = max(map(len, [*names, "feature"]))
        heads = ["mean |value|"]
        if self.values.ndim == 3:
            heads += self.output_names[:SHOWN]
        lines.append("  ".join([f"{'feature':{width}}", *(f"{head:>12.12}" for head in heads)]))
        table = self.mean_absolute.reshape(n_features, -1)
        for place, name in zip(order[:SHOWN], names, strict=True):
            cells = [table[place].mean(), *(table[place][:SHOWN] if len(heads) > 1 else [])]
            lines.append("  ".join([f"{name:{width}}", *(f"{number(x):>12}" for x in cells)]))
        if n_features > SHOWN:
            lines.append(f"and {n_features - SHOWN:,} more")
        return "\n".join(lines)
