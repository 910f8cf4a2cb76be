"""What is examined in the rows and the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmlp.core.formatting import percent
from cmlp.core.layout import Array
from cmlp.data import frames
from cmlp.diagnosis.finding import Finding
from cmlp.diagnosis.sample import Sample
from cmlp.diagnosis.subject import Subject

UNSCALED = {"unscaled-inputs", "unscaled-targets", "outliers"}
"""Findings that explain a learning rate that seems to be wrong."""


def missing_values(subject: Subject) -> Iterator[Finding]:
    sample = subject.sample
    columns = [sample.names[int(key[1:])] for key in sample.missing if key != "y"]
    where = [listed(columns)] * bool(columns) + ["y"] * ("y" in sample.missing)
    total = sum(sample.missing.values())
    yield Finding(
        "not-finite", "error", total,
        f"{total:,} values are NaN or infinite, in {' and in '.join(where)}. No network can use "
        "them, and nothing else was looked at.",
        "Remove those rows, or fill them in (with the column's median, say).",
        names=(*columns, *["y"] * ("y" in sample.missing)),
    )  # fmt: skip


def listed(names: Sequence[str], most: int = 5) -> str:
    """Name some columns: "columns 'a', 'b' and 7 more"."""
    return f"column{'s' * (len(names) > 1)} {frames.listed(names, most, quoted)}"


def quoted(name: str) -> str:
    return name if name.isdigit() else repr(name)


# Columns of X -----------------------------------------------------------------------------------

OUTLIER_RANGES, OUTLIER, GREAT_OUTLIER = 100.0, 20.0, 1000.0
"""Interquartile ranges (where they are 0: ranges of the middle 98 %) from the median, and absolute
value, from which a value is an outlier: none in normal, uniform or exponential columns. At 1,000
one row moves the weights more than all others."""


@dataclass(frozen=True)
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


LARGE_INPUT = 15.0
"""Root mean square of a column. First weights are made for about 1: at 15, sums and gradients are
fifteen times too large. Pixels of 0 to 16 (13 at most) still train well, bytes (70 and more) do
not."""


SMALL_INPUT = 1e-3
"""Largest absolute value of a column. Its weights learn a thousand (with sgd a million) times more
slowly than those of a column around 1."""


OFFSET = 20.0
"""Mean over deviation: what varies is then one part in twenty of what the network sees."""


def inputs(subject: Subject) -> Iterator[Finding]:
    """Report columns that are not scaled, columns that never change, and outliers."""
    columns = Columns.of(subject.sample.X)
    rms = np.hypot(columns.mean, columns.std)
    varies = ~columns.constant
    large = rms > LARGE_INPUT
    small = varies & (columns.largest < SMALL_INPUT)
    offset = varies & ~columns.mostly_one_value & (np.abs(columns.mean) > OFFSET * columns.std)
    odd = np.flatnonzero((large | small | offset) & ~numbers_of_rows(subject))
    if len(odd):
        yield _unscaled(subject, columns, rms, odd)
    constant = np.flatnonzero(columns.constant)
    if len(constant) and subject.sample.n_rows > 1:
        yield _constant(subject.sample, constant)
    extreme = np.flatnonzero((columns.extreme > OUTLIER) & ~numbers_of_rows(subject))
    if len(extreme):
        yield _outliers(subject.sample, columns, extreme)


def numbers_of_rows(subject: Subject) -> NDArray[np.bool_]:
    """Return which columns hold numbers of rows of a table, which need no scale."""
    net, found = subject.model.network, np.zeros(len(subject.sample.names), bool)
    if net is not None and net.inputs is not None:
        found[net.inputs.columns_of_levels] = True
    return found


def _constant(sample: Sample, constant: Array) -> Finding:
    names = [sample.names[i] for i in constant]
    return Finding(
        "constant-columns", "note", len(constant),
        f"{len(constant):,} of {len(sample.names):,} columns never change: "
        f"{listed(names)}. They carry nothing.",
        "They can be left out.",
        names=tuple(names),
    )  # fmt: skip


def _outliers(sample: Sample, columns: Columns, extreme: Array) -> Finding:
    worst = extreme[np.argmax(columns.extreme[extreme])]
    names = [sample.names[i] for i in extreme]
    grave = columns.extreme[worst] > GREAT_OUTLIER
    return Finding(
        "outliers", "warning" if grave else "note", float(columns.extreme[worst]),
        f"Single values lie far from all others, in {listed(names)}: up to "
        f"{columns.extreme[worst]:.3g} in column {quoted(sample.names[worst])}, whose deviation "
        f"is {columns.std[worst]:.3g} without them. A few such rows can move the weights more "
        "than all others.",
        "Clip these columns, take logarithms or ranks, or correct the values if they are "
        "mistakes.",
        names=tuple(names),
    )  # fmt: skip


def _unscaled(subject: Subject, columns: Columns, rms: Array, odd: Array) -> Finding:
    sample = subject.sample
    worst = odd[np.argmax(np.abs(np.log(np.maximum(rms[odd], 1e-30))))]
    names = [sample.names[i] for i in odd]
    rest = np.setdiff1d(np.arange(len(rms)), odd)
    others = f"; the other columns' are around {np.median(rms[rest]):.2g}" if len(rest) else ""
    meaning = (
        f"{len(odd):,} of {len(rms):,} columns are not scaled: {listed(names)}. "
        f"Column {quoted(sample.names[worst])} has mean {columns.mean[worst]:.3g} and deviation "
        f"{columns.std[worst]:.3g}, root mean square {rms[worst]:.3g}{others}. Weights learn at "
        "the pace of their column's square: the largest columns drown the others, and saturate or "
        "kill units."
    )
    advice = (
        "Bring every column to mean 0 and deviation 1: X = (X - X.mean(axis=0)) / X.std(axis=0), "
        "with the numbers of the training rows for all later rows."
    )
    parameter, suggestion = None, None
    if subject.model.is_estimator:
        advice = "Scale the columns: make_pipeline(StandardScaler(), model)."
    elif sample.raw_bytes:
        most = 255 if sample.X.max() > 127 else int(sample.X.max())
        parameter, suggestion = "input_scale", 1 / most
        advice = f"Multiply the pixels on the way in: Network(..., input_scale=1/{most})."
    return Finding(
        "unscaled-inputs", "warning", float(rms[worst]), meaning, advice, parameter, suggestion,
        tuple(names),
    )  # fmt: skip


# Targets -----------------------------------------------------------------------------------------

LARGE_TARGET, SMALL_TARGET = 10.0, 0.01
"""Root mean square above, deviation below which targets slow learning: first outputs are about 1,
and tolerances are absolute."""


LEARNED = 0.9
"""R2 from which targets were learned in spite of their scale."""


def targets(subject: Subject) -> Iterator[Finding]:
    y = subject.sample.targets
    if y is None:
        return
    std = float(np.nanstd(y, axis=0).max())
    rms = float(np.sqrt(np.nanmean(y**2, axis=0)).max())
    if rms <= LARGE_TARGET and not 0 < std < SMALL_TARGET:
        return
    trained = subject.trained if subject.fitted else None
    learned = trained is not None and trained.score > LEARNED
    yield Finding(
        "unscaled-targets", "note" if learned else "warning", rms if rms > LARGE_TARGET else std,
        f"The targets have mean {np.nanmean(y):.3g} and deviation {std:.3g}, where first outputs "
        "are about 1: "
        + ("errors and gradients are huge, and the output's bias has far to go."
           if rms > LARGE_TARGET else
           "losses are so small that tolerances end the training early."),
        "Train on (y - y.mean()) / y.std(), and undo it after predict"
        + (": TransformedTargetRegressor(model, transformer=StandardScaler())."
           if subject.model.is_estimator else "."),
    )  # fmt: skip


IMBALANCE = 9.0
"""Rows of the most frequent class per row of the rarest: a constant answer is 90 % right."""


def class_counts(subject: Subject) -> Iterator[Finding]:
    sample = subject.sample
    if sample.classes is None or sample.counts is None or len(sample.classes) < 2:
        return
    counts = sample.counts
    most, least = int(np.argmax(counts)), int(np.argmin(np.where(counts > 0, counts, np.inf)))
    ratio = float(counts[most] / counts[least])
    if subject.model.balanced or ratio <= IMBALANCE:
        return
    share = float(counts[most] / counts.sum())
    often, seldom = str(sample.classes[most]), str(sample.classes[least])
    weights = "sample_weight=len(y) / (n_classes * number of rows of the row's class) in fit"
    yield Finding(
        "class-imbalance", "warning", share,
        f"Class {often!r} has {ratio:,.0f} times as many rows as {seldom!r}: always answering "
        f"{often!r} would be right on {percent(share, 1)}%. Accuracy is a poor measure here, and "
        "rare classes are learned last.",
        "If rare classes matter: class_weight='balanced'; and judge by balanced accuracy or F1."
        if subject.model.is_estimator
        else f"If rare classes matter: {weights}; and judge class by class.",
        "class_weight" if subject.model.is_estimator else "sample_weight",
        "balanced",
        (often, seldom),
    )  # fmt: skip


CONTRADICTION = 0.02
"""Share of rows that equal another row but for the label: above the noise of careful labels."""


def contradictions(subject: Subject) -> Iterator[Finding]:
    """Equal rows with different labels: no model can be right on all of them."""
    sample, trained = subject.sample, subject.trained
    if trained is None or sample.classes is None:
        return
    targets = trained.data.targets
    labels = targets.argmax(axis=1) if targets.ndim == 2 and targets.shape[1] > 1 else targets
    labels = np.asarray(labels).reshape(-1).astype(np.int64)
    rows = np.ascontiguousarray(sample.X + 0.0)  # -0.0 becomes 0.0
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


DATA_EXAMINATIONS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    inputs,
    targets,
    class_counts,
    contradictions,
)
