"""What is examined in the rows and the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cmlp.core.formatting import percent
from cmlp.core.layout import Array
from cmlp.data import frames
from cmlp.diagnosis.subject import Case, Finding

# Thresholds --------------------------------------------------------------------------------------

LARGE_INPUT = 15.0
"""Root mean square of a column. First weights are made for about 1: at 15, sums and gradients are
fifteen times too large. Pixels of 0 to 16 (13 at most) still train well, bytes (70 and more) do
not."""


SMALL_INPUT = 1e-3
"""Largest absolute value of a column. Its weights learn a thousand (with sgd a million) times more
slowly than those of a column around 1."""


OFFSET = 20.0
"""Mean over deviation: what varies is then one part in twenty of what the network sees."""


OUTLIER_RANGES, OUTLIER, GREAT_OUTLIER = 100.0, 20.0, 1000.0
"""Interquartile ranges (where they are 0: ranges of the middle 98 %) from the median, and absolute
value, from which a value is an outlier: none in normal, uniform or exponential columns. At 1,000
one row moves the weights more than all others."""


IMBALANCE = 9.0
"""Rows of the most frequent class per row of the rarest: a constant answer is 90 % right."""


LARGE_TARGET, SMALL_TARGET = 10.0, 0.01
"""Root mean square above, deviation below which targets slow learning: first outputs are about 1,
and tolerances are absolute."""


LEARNED = 0.9
"""R2 from which targets were learned in spite of their scale."""


CONTRADICTION = 0.02
"""Share of rows that equal another row but for the label: above the noise of careful labels."""


TINY = 1e-300
"""For a division by a loss of 0."""


# The examinations --------------------------------------------------------------------------------


UNSCALED = {"unscaled-inputs", "unscaled-targets", "outliers"}
"""Findings that explain a learning rate that seems to be wrong."""


def missing_values(case: Case) -> Iterator[Finding]:
    columns = [case.names[int(key[1:])] for key in case.missing if key != "y"]
    where = [listed(columns)] * bool(columns) + ["y"] * ("y" in case.missing)
    total = sum(case.missing.values())
    yield Finding(
        "not-finite", "error", total,
        f"{total:,} values are NaN or infinite, in {' and in '.join(where)}. No network can use "
        "them, and nothing else was looked at.",
        "Remove those rows, or fill them in (with the column's median, say).",
        names=(*columns, *["y"] * ("y" in case.missing)),
    )  # fmt: skip


def listed(names: Sequence[str], most: int = 5) -> str:
    """Name some columns: "columns 'a', 'b' and 7 more"."""
    return f"column{'s' * (len(names) > 1)} {frames.listed(names, most, quoted)}"


def quoted(name: str) -> str:
    return name if name.isdigit() else repr(name)


@dataclass
class Columns:
    """Measures of each column, robust against single values."""

    mean: Array
    std: Array
    largest: Array
    constant: Array
    extreme: Array
    """Largest absolute value that lies far outside of what the column usually holds; 0 for none."""
    mostly_one_value: Array

    @classmethod
    def of(cls, X: Array) -> Columns:
        lowest, low, middle, high, highest = np.percentile(X, [1, 25, 50, 75, 99], axis=0)
        spread = np.where(high > low, high - low, highest - lowest)  # mostly 0, in the second case
        reach = np.where(spread > 0, OUTLIER_RANGES * spread, np.inf)
        outside = np.abs(X - middle) > reach
        usual = np.clip(X, middle - reach, middle + reach)
        return cls(
            usual.mean(axis=0),
            usual.std(axis=0),
            np.abs(X).max(axis=0),
            X.max(axis=0) == X.min(axis=0),
            np.max(np.abs(X), axis=0, where=outside, initial=0.0),
            (middle == X).mean(axis=0) > 0.5,
        )


def inputs(case: Case) -> Iterator[Finding]:
    columns = Columns.of(case.X)
    rms = np.hypot(columns.mean, columns.std)
    varies = ~columns.constant
    large = rms > LARGE_INPUT
    small = varies & (columns.largest < SMALL_INPUT)
    offset = varies & ~columns.mostly_one_value & (np.abs(columns.mean) > OFFSET * columns.std)
    odd = np.flatnonzero(large | small | offset)
    if len(odd):
        yield _unscaled(case, columns, rms, odd)
    constant = np.flatnonzero(columns.constant)
    if len(constant) and case.n_rows > 1:
        names = [case.names[i] for i in constant]
        yield Finding(
            "constant-columns", "note", len(constant),
            f"{len(constant):,} of {len(case.names):,} columns never change: "
            f"{listed(names)}. They carry nothing.",
            "They can be left out.",
            names=tuple(names),
        )  # fmt: skip
    extreme = np.flatnonzero(columns.extreme > OUTLIER)
    if len(extreme):
        worst = extreme[np.argmax(columns.extreme[extreme])]
        names = [case.names[i] for i in extreme]
        grave = columns.extreme[worst] > GREAT_OUTLIER
        yield Finding(
            "outliers", "warning" if grave else "note", float(columns.extreme[worst]),
            f"Single values lie far from all others, in {listed(names)}: up to "
            f"{columns.extreme[worst]:.3g} in column {quoted(case.names[worst])}, whose deviation "
            f"is {columns.std[worst]:.3g} without them. A few such rows can move the weights more "
            "than all others.",
            "Clip these columns, take logarithms or ranks, or correct the values if they are "
            "mistakes.",
            names=tuple(names),
        )  # fmt: skip


def _unscaled(case: Case, columns: Columns, rms: Array, odd: Array) -> Finding:
    worst = odd[np.argmax(np.abs(np.log(np.maximum(rms[odd], 1e-30))))]
    names = [case.names[i] for i in odd]
    rest = np.setdiff1d(np.arange(len(rms)), odd)
    beside = f"; the other columns' are around {np.median(rms[rest]):.2g}" if len(rest) else ""
    meaning = (
        f"{len(odd):,} of {len(rms):,} columns are not scaled: {listed(names)}. "
        f"Column {quoted(case.names[worst])} has mean {columns.mean[worst]:.3g} and deviation "
        f"{columns.std[worst]:.3g}, root mean square {rms[worst]:.3g}{beside}. Weights learn at "
        "the pace of their column's square: the largest columns drown the others, and saturate or "
        "kill units."
    )
    advice = (
        "Bring every column to mean 0 and deviation 1: X = (X - X.mean(axis=0)) / X.std(axis=0), "
        "with the numbers of the training rows for all later rows."
    )
    parameter, suggestion = None, None
    if case.estimator:
        advice = "Scale the columns: make_pipeline(StandardScaler(), model)."
    elif case.raw_bytes:
        most = 255 if case.X.max() > 127 else int(case.X.max())
        parameter, suggestion = "input_scale", 1 / most
        advice = f"Multiply the pixels on the way in: Network(..., input_scale=1/{most})."
    return Finding(
        "unscaled-inputs", "warning", float(rms[worst]), meaning, advice, parameter, suggestion,
        tuple(names),
    )  # fmt: skip


def targets(case: Case) -> Iterator[Finding]:
    y = case.targets
    if y is None:
        return
    std = float(np.nanstd(y, axis=0).max())
    rms = float(np.sqrt(np.nanmean(y**2, axis=0)).max())
    if rms <= LARGE_TARGET and not 0 < std < SMALL_TARGET:
        return
    learned = case.fitted and case.state is not None and case.state.score > LEARNED
    yield Finding(
        "unscaled-targets", "note" if learned else "warning", rms if rms > LARGE_TARGET else std,
        f"The targets have mean {np.nanmean(y):.3g} and deviation {std:.3g}, where first outputs "
        "are about 1: "
        + ("errors and gradients are huge, and the output's bias has far to go."
           if rms > LARGE_TARGET else
           "losses are so small that tolerances end the training early."),
        "Train on (y - y.mean()) / y.std(), and undo it after predict"
        + (": TransformedTargetRegressor(model, transformer=StandardScaler())."
           if case.estimator else "."),
    )  # fmt: skip


def class_counts(case: Case) -> Iterator[Finding]:
    if case.classes is None or case.counts is None or len(case.classes) < 2:
        return
    counts = case.counts
    most, least = int(np.argmax(counts)), int(np.argmin(np.where(counts > 0, counts, np.inf)))
    ratio = float(counts[most] / counts[least])
    if case.balanced or ratio <= IMBALANCE:
        return
    share = float(counts[most] / counts.sum())
    often, seldom = str(case.classes[most]), str(case.classes[least])
    weights = "sample_weight=len(y) / (n_classes * number of rows of the row's class) in fit"
    yield Finding(
        "class-imbalance", "warning", share,
        f"Class {often!r} has {ratio:,.0f} times as many rows as {seldom!r}: always answering "
        f"{often!r} would be right on {percent(share, 1)}%. Accuracy says little here, and "
        "rare classes are learned last.",
        "If rare classes matter: class_weight='balanced'; and judge by balanced accuracy or F1."
        if case.estimator
        else f"If rare classes matter: {weights}; and judge class by class.",
        "class_weight" if case.estimator else "sample_weight",
        "balanced",
        (often, seldom),
    )  # fmt: skip


def contradictions(case: Case) -> Iterator[Finding]:
    """Equal rows with different labels: no model can be right on all of them."""
    targets = None if case.data is None else case.data.targets
    if targets is None or case.classes is None:
        return
    labels = targets.argmax(axis=1) if targets.ndim == 2 and targets.shape[1] > 1 else targets
    labels = np.asarray(labels).reshape(-1).astype(np.int64)
    rows = np.ascontiguousarray(case.X + 0.0)  # -0.0 becomes 0.0
    keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    group = np.unique(keys, return_inverse=True)[1].ravel()
    counts = np.unique(group * (labels.max() + 1) + labels, return_counts=True)
    best = np.zeros(group.max() + 1, np.int64)
    np.maximum.at(best, counts[0] // (labels.max() + 1), counts[1])
    share = 1 - float(best.sum()) / len(labels)
    if share > CONTRADICTION:
        yield Finding(
            "contradictory-labels", "note", share,
            "Some rows equal each other in every column and have different labels: on these rows, "
            f"no model can be right more often than {percent(1 - share, 1)}%.",
            "Look for mistaken labels or a missing column; otherwise read probabilities, not "
            "labels.",
        )  # fmt: skip


DATA_EXAMINATIONS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    inputs,
    targets,
    class_counts,
    contradictions,
)
