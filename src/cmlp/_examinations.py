"""The examinations of :func:`cmlp.diagnose`: each measures one thing, and reports it if it is odd.

A false alarm is worse than silence: every threshold lies well outside of what healthy trainings
show, and its reason stands beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _numbers
from ._case import REHEARSAL_EPOCHS, Case, Finding, State, rows_within, untrained
from ._history import solver_of
from ._numbers import percent
from ._scoring import evaluate, metric_of
from ._spec import UNITS
from ._steps import Data, Recipe

if TYPE_CHECKING:
    from .network import Network

Array = NDArray[Any]

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

DEAD_SHARE = 0.5
"""Share of a layer's units that are off on all rows; healthy layers of 32 units have up to 0.25."""

FLAT_SLOPE, FLAT_ROWS, SATURATED_SHARE = 0.05, 0.95, 0.3
"""A unit is saturated if its slope is below a twentieth of the steepest on 95 % of the rows;
healthy layers have almost none."""

GRADIENT_RATIO = 1e-3
"""Norm of the first layer's deltas to the last hidden layer's (or the reverse); four healthy
logistic layers begin at 0.02, and ratios grow towards 1 as they learn."""

REBOUND = 0.5
"""How much of what was won the loss gives back. A spike that heals is none."""

RESTLESS, RESTLESS_LEVEL = 0.07, 0.1
"""Mean rise of the loss per epoch (falls count 0), relative to the loss, while that is still over
0.1 of a constant prediction's. Single-row descent on a few hundred rows stays below 0.03."""

CALMED, AT_REST = 0.3, 0.2
"""Part of a loss that goes away in five epochs with a tenth of the learning rate, while it is over
0.2 of a constant prediction's: noisy but sound trainings win a few per cent."""

STRAIGHT = 0.5
"""Slope of the last quarter of the curve to the first quarter's. Curves bend; one that is straight
has hardly begun."""

UNLEARNED = 0.5
"""Loss relative to that of a constant prediction, above which little was learned."""

QUICKER = 3.0
"""What ten times the learning rate must win, on a trial, for it to be called too low."""

STILL_FALLING, REMAINING = 0.01, 0.1
"""Fall of the loss per epoch at the end, while it is over 10 % of a constant prediction's: another
ten epochs would take a tenth of it away."""

VALIDATION_RISE, RISE_LEVEL = 1.2, 0.05
"""Last validation loss to the lowest, and the difference relative to a constant prediction's
loss: validation losses of healthy classifiers creep up by less."""

SCORE_GAP = 0.1
"""Training score minus validation score (accuracy, R2)."""

SKILL = 0.02
"""What a network must win over a constant prediction: 2 % of its loss."""

MIN_EPOCHS = 5
"""Epochs that a curve needs to be read."""

TINY = 1e-300
"""For a division by a loss of 0."""


# The examinations --------------------------------------------------------------------------------


UNSCALED = {"unscaled-inputs", "unscaled-targets", "outliers"}
"""Findings that explain a learning rate that seems to be wrong."""


def examine(case: Case) -> Iterator[Finding]:
    """Run every examination that the case allows."""
    if case.missing:
        yield from _look_at_missing(case)
        return
    codes = set()
    for examination in DATA_EXAMINATIONS:
        for finding in examination(case):
            codes.add(finding.code)
            yield finding
    if case.diverged and not codes & UNSCALED:
        yield _diverged(case)  # otherwise that is why
    if case.state is None:
        return
    if not case.state.finite:
        yield Finding(
            "not-finite-outputs", "error", math.nan,
            "The network's outputs are NaN or infinite on these rows.",
            f"Train it again from the start, with a smaller {case.word('learning_rate')} and "
            "scaled inputs.",
        )  # fmt: skip
        return
    for examination in NETWORK_EXAMINATIONS:
        for finding in examination(case):
            if finding.code != "learning-rate-too-low" or not codes & UNSCALED:
                yield finding  # otherwise that is why


def _look_at_missing(case: Case) -> Iterator[Finding]:
    columns = [case.names[int(key[1:])] for key in case.missing if key != "y"]
    where = [_listed(columns)] * bool(columns) + ["y"] * ("y" in case.missing)
    total = sum(case.missing.values())
    yield Finding(
        "not-finite", "error", total,
        f"{total:,} values are NaN or infinite, in {' and in '.join(where)}. No network can use "
        "them, and nothing else was looked at.",
        "Remove those rows, or fill them in (with the column's median, say).",
        names=(*columns, *["y"] * ("y" in case.missing)),
    )  # fmt: skip


def _listed(names: Sequence[str], most: int = 5) -> str:
    """Name some columns: "columns 'a', 'b' and 7 more"."""
    shown = ", ".join(_quoted(name) for name in names[:most])
    more = len(names) - most
    return f"column{'s' * (len(names) > 1)} {shown}" + (f" and {more:,} more" * (more > 0))


def _quoted(name: str) -> str:
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


def _look_at_inputs(case: Case) -> Iterator[Finding]:
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
            f"{_listed(names)}. They carry nothing.",
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
            f"Single values lie far from all others, in {_listed(names)}: up to "
            f"{columns.extreme[worst]:.3g} in column {_quoted(case.names[worst])}, whose deviation "
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
        f"{len(odd):,} of {len(rms):,} columns are not scaled: {_listed(names)}. "
        f"Column {_quoted(case.names[worst])} has mean {columns.mean[worst]:.3g} and deviation "
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


def _look_at_targets(case: Case) -> Iterator[Finding]:
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


def _look_at_classes(case: Case) -> Iterator[Finding]:
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


def _look_at_contradictions(case: Case) -> Iterator[Finding]:
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
    _look_at_inputs,
    _look_at_targets,
    _look_at_classes,
    _look_at_contradictions,
)


# With a network ----------------------------------------------------------------------------------


def _layer(net: Network, number: int) -> str:
    n_out = net.sizes[number + 1]
    return f"layer {number + 1} ({n_out} {net.activations[number]} units)"


def _some_rows(net: Network, data: Data) -> Data:
    """Take fewer rows, so that all activations of a wide network fit."""
    n = rows_within(int(net.plan[-1, UNITS]) + net.sizes[-1])
    weights = None if data.weights is None or not data.weights[:n].any() else data.weights[:n]
    return Data(data.X[:n], data.targets[:n], weights)


def _look_at_units(case: Case) -> Iterator[Finding]:
    net, data, _ = case.network
    rows = _some_rows(net, data).X
    dead: list[tuple[float, int, str]] = []
    saturated: list[tuple[float, int, str]] = []
    for number, a in enumerate(net.forward(rows, return_all=True).a[:-1]):
        name, layer = net.activations[number], _layer(net, number)
        if name == "relu":
            off = (a == 0).all(axis=0)
            dead.append((float(off.mean()), int(off.sum()), layer))
        elif name in FLATNESS:
            flat = (FLATNESS[name](a) < FLAT_SLOPE).mean(axis=0) > FLAT_ROWS
            saturated.append((float(flat.mean()), int(flat.sum()), layer))
    rate = case.word("learning_rate")
    slower = case.rate / 10
    if worst := [entry for entry in dead if entry[0] >= DEAD_SHARE]:
        share, count, layer = max(worst)
        blocked = share == 1
        yield Finding(
            "dead-units", "error" if blocked else "warning", share,
            f"{count} units of {layer} are 0 on all of {len(rows):,} rows: "
            + ("nothing passes, and the output is the same for every row."
               if blocked else "they pass nothing on, and no gradient can bring them back."),
            f"Train again with {rate}={slower:g}, or activation='leaky_relu'; and scale X.",
            rate, slower, tuple(entry[2] for entry in worst),
        )  # fmt: skip
    if worst := [entry for entry in saturated if entry[0] >= SATURATED_SHARE]:
        share, count, layer = max(worst)
        yield Finding(
            "saturated-units", "warning", share,
            f"{count} units of {layer} are at the end of their range, where the slope is nearly "
            f"0, on {FLAT_ROWS:.0%} of the rows and more: they hardly learn.",
            f"Scale X to about 1; then train again with {rate}={slower:g}, or "
            "activation='relu'.",
            rate, slower, tuple(entry[2] for entry in worst),
        )  # fmt: skip


FLATNESS: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda a: 1 - a * a,
    "logistic": lambda a: 4 * a * (1 - a),
    "hard_sigmoid": lambda a: ((a > 0) & (a < 1)).astype(a.dtype),
}
"""Slope relative to the steepest, from a layer's activations."""


def gradient_norms(net: Network, data: Data) -> tuple[list[float], list[float]]:
    """Return the Euclidean norms of dC/dz and dC/dW, layer by layer."""
    _, grads, record, _ = net._backpropagate(data, Recipe(), deltas=True)
    deltas, dweights = net._cut_record(record), net._views(grads)[0]
    return [_norm(delta) for delta in deltas], [_norm(dW) for dW in dweights]


def _norm(values: Array) -> float:
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))


def _look_at_gradients(case: Case) -> Iterator[Finding]:
    net, data, _ = case.network
    if len(net.sizes) < 4:
        return  # one hidden layer: nothing to compare
    norms = gradient_norms(net, _some_rows(net, data))[0]
    first, last = norms[0], norms[-2]
    if not (math.isfinite(first) and first > 0 and last > 0):
        return  # dead layers, or a loss of exactly 0
    ratio = first / last
    shown = f"The gradient at layer 1 is {ratio:.2g} times that at layer {len(norms) - 1}"
    bounded = any(name in ("logistic", "tanh", "hard_sigmoid") for name in net.activations[:-1])
    if ratio < GRADIENT_RATIO:
        yield Finding(
            "vanishing-gradients", "warning", ratio,
            f"{shown}: the first layers hardly learn.",
            ("Use activation='relu'" if bounded else "Use weight_init='he_normal'")
            + ", or fewer layers.",
            "activation" if bounded else "weight_init", "relu" if bounded else "he_normal",
        )  # fmt: skip
    elif ratio > 1 / GRADIENT_RATIO:
        yield Finding(
            "exploding-gradients", "warning", ratio,
            f"{shown}: its weights jump while the last ones hardly move.",
            "Use weight_init='auto' and clip_norm=1, or fewer layers.",
            "clip_norm", 1.0,
        )  # fmt: skip


# The curve ---------------------------------------------------------------------------------------


def _diverged(case: Case) -> Finding:
    word = case.word("learning_rate")
    return Finding(
        "learning-rate-too-high", "error", case.rate,
        f"{'Training' if case.fitted else 'A trial'} with {word}={case.rate:g} diverged: the loss "
        "or a weight became infinite.",
        f"Lower {word} to {case.rate / 10:g}, scale X and y, or clip gradients (clip_norm=1).",
        word, case.rate / 10,
    )  # fmt: skip


def _look_at_curve(case: Case) -> Iterator[Finding]:
    losses = np.asarray(case.history.get("loss", []), np.float64)
    if not np.isfinite(losses).all():
        yield _diverged(case)
        return
    if len(losses) < MIN_EPOCHS or case.solver == "lbfgs":
        return
    state = case.network[2]
    unit = state.constant or abs(losses[0]) or 1.0
    level = state.level or losses[-1] / unit
    curve = Curve(losses, max(2, len(losses) // 4), case.epochs / len(losses), unit, level)
    for sign in (_too_fast, _too_slow, _too_short):
        finding = sign(case, curve)
        if finding is not None:
            yield finding
            return


@dataclass
class Curve:
    """The losses of all epochs, and measures for them."""

    losses: Array
    quarter: int
    """A quarter of them."""
    stride: float
    """Epochs from one of them to the next: more than 1 in a long training."""
    unit: float
    """Loss of a constant prediction."""
    level: float
    """Present loss, relative to it."""


def _too_fast(case: Case, curve: Curve) -> Finding | None:
    losses = curve.losses
    low, now = losses.min(), float(np.median(losses[-curve.quarter :]))
    gave_back = float((now - low) / max(losses[0] - low, 1e-9 * curve.unit))
    second_half = losses[len(losses) // 2 :]
    rises = float(np.maximum(np.diff(second_half), 0).mean() / max(second_half.mean(), TINY))
    if gave_back > REBOUND and now - low > RISE_LEVEL * curve.unit:
        meaning, value = f"The loss went down to {low:.3g} and is back at {now:.3g}", gave_back
    elif rises > RESTLESS and second_half.mean() > RESTLESS_LEVEL * curve.unit:
        value = rises
        meaning = f"The loss jumps up and down: it rises by {percent(rises)}% of itself per epoch"
    elif case.fitted and curve.level > AT_REST and (value := _calmed(case)) > CALMED:
        meaning = (
            f"The loss has come to rest at {percent(curve.level)}% of a constant prediction's; in "
            f"a trial with a tenth of the learning rate {percent(value)}% of it went away"
        )
    else:
        return None
    word, rate, slower = case.word("learning_rate"), case.rate, case.rate / 10
    how = "learning_rate='cosine'" if case.estimator else "schedule='cosine'"
    return Finding(
        "learning-rate-too-high", "warning", value,
        f"{meaning}: steps leap over the minimum.",
        f"Lower {word} from {rate:g} to {slower:g}, or let it fall: {how}.",
        word, slower,
    )  # fmt: skip


def _calmed(case: Case) -> float:
    """Return the part of the loss that a tenth of the learning rate wins in a few epochs."""
    net, data, state = case.network
    same, tenth = (_trial(net, data, case.rate * factor) for factor in (1, 0.1))
    return 1 - tenth / state.loss if tenth < same else 0.0


def _too_slow(case: Case, curve: Curve) -> Finding | None:
    losses, quarter = curve.losses, curve.quarter
    begin, end = losses[0] - losses[quarter], losses[-1 - quarter] - losses[-1]
    steady = np.mean(np.diff(losses) < 0) > 0.8 and end > STRAIGHT * begin
    projected = 0.0 if case.fitted else (losses[0] - losses[-1]) * case.planned / len(losses)
    if not steady or curve.level < UNLEARNED or projected > (1 - UNLEARNED) * losses[0]:
        return None
    net, data, state = case.network
    won, won_by_ten = (state.loss - _trial(net, data, case.rate * factor) for factor in (1, 10))
    if won_by_ten < max(QUICKER * won, SKILL * state.loss):
        return None
    word, rate = case.word("learning_rate"), case.rate
    fall = float(end / (quarter * curve.stride) / losses[-1])
    return Finding(
        "learning-rate-too-low", "warning", fall,
        f"The loss falls by only {percent(fall, 2)}% per epoch, in a nearly straight line, and "
        f"is {percent(curve.level)}% of a constant prediction's; in a trial with ten times the "
        f"learning rate it fell more than {QUICKER:g} times as fast.",
        f"Raise {word} from {rate:g} to {10 * rate:g}.",
        word, 10 * rate,
    )  # fmt: skip


def _too_short(case: Case, curve: Curve) -> Finding | None:
    losses, quarter = curve.losses, curve.quarter
    rates = case.history.get("learning_rate", [1.0])
    if not case.fitted or case.stopped not in ("epochs", "") or rates[-1] < 0.5 * max(rates):
        return None  # it ended for another reason, or the schedule had come to its end
    validation = np.asarray(case.history.get("val_loss", []), np.float64)
    known = np.isfinite(validation).any()
    if known and np.nanargmin(validation) < len(validation) - quarter:
        return None
    passed = quarter * curve.stride
    fall = float((losses[-1 - quarter] - losses[-1]) / passed / max(losses[-1], TINY))
    lowest = losses[-1] < 1.02 * losses.min()
    if not lowest or fall <= STILL_FALLING or curve.level <= REMAINING:
        return None
    word, more = case.word("epochs"), 3 * case.epochs
    return Finding(
        "too-few-epochs", "warning", fall,
        f"The loss was still falling by {percent(fall, 1)}% per epoch when training ended after "
        f"{case.epochs}, and is {percent(curve.level)}% of a constant prediction's.",
        f"Train longer: {word}={more}.",
        word, more,
    )  # fmt: skip


def _trial(net: Network, data: Data, rate: float) -> float:
    """Return the loss after a few epochs more, with the network's solver, on a copy."""
    solver, net = solver_of(net) or "sgd", untrained(net)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            for _ in range(REHEARSAL_EPOCHS):
                net._train(data, Recipe(solver, rate), 32, True, np.arange(len(data.X)), 1)
        except ArithmeticError:
            return math.inf
    return evaluate(net, data, None)[0]


def _look_at_skill(case: Case) -> Iterator[Finding]:
    state = case.network[2]
    if not case.fitted or case.balanced or not _useless(case, state):
        return
    advice = (
        "Follow the other findings first; otherwise X may not hold what decides y, or the network "
        f"has too few units, or too much {case.word('l2')}."
    )
    parameter, suggestion = None, None
    epochs = case.epochs
    if case.stopped in ("tol", "patience") and math.isfinite(case.patience) and epochs:
        parameter, suggestion = "n_iter_no_change", 5 * int(case.patience)
        advice = (
            f"It stopped after {epochs} epochs, perhaps on the flat before the slope: "
            f"n_iter_no_change={suggestion} and tol=0. {advice}"
        )
    yield Finding(
        "no-better-than-constant", "warning", state.level or state.score,
        "The network does no better on these rows than the same answer for every row.",
        advice, parameter, suggestion,
    )  # fmt: skip


def _useless(case: Case, state: State) -> bool:
    if state.constant:
        return state.loss > (1 - SKILL) * state.constant
    if case.counts is not None:
        return state.score <= float(case.counts.max() / case.counts.sum())
    return state.score < SKILL


def _look_at_memory(case: Case) -> Iterator[Finding]:
    """Over-fitting: from held-out rows, or else from the validation curve."""
    if not case.fitted:
        return
    seen = _over_fitting_by_score(case) or _over_fitting_by_curve(case)
    if seen is None:
        return
    value, meaning = seen
    stop = "early_stopping=True" if case.estimator else "patience=5 with validation rows"
    yield Finding(
        "over-fitting", "warning", value,
        f"{meaning}: the network learns its rows by heart.",
        f"Stop earlier ({stop}), raise {case.word('l2')} tenfold, add dropout=0.2, use fewer "
        "units, or find more rows.",
        case.word("patience"), True if case.estimator else 5,
    )  # fmt: skip


def _over_fitting_by_score(case: Case) -> tuple[float, str] | None:
    net, data, state = case.network
    if case.validation is None:
        return None
    metric = "Accuracy" if metric_of(net, data.targets) == "accuracy" else "R2"
    score = evaluate(net, case.validation, None)[1]
    if state.score - score <= SCORE_GAP:
        return None
    seen, unseen = _numbers.score(state.score, 3), _numbers.score(score, 3)
    return state.score - score, (
        f"{metric} is {seen} on the training rows and {unseen} on the validation rows"
    )


def _over_fitting_by_curve(case: Case) -> tuple[float, str] | None:
    unit = case.network[2].constant
    losses = np.asarray(case.history.get("val_loss", []), np.float64)
    if np.isfinite(losses).sum() < MIN_EPOCHS or case.restored or unit is None:
        return None
    trained = np.asarray(case.history["loss"])
    best = int(np.nanargmin(losses))
    low, now = losses[best], float(np.nanmedian(losses[-3:]))
    if now <= max(VALIDATION_RISE * low, low + RISE_LEVEL * unit) or trained[-1] >= trained[best]:
        return None
    return now / low, (
        f"The validation loss was lowest ({low:.3g}) in epoch {best + 1} and is {now:.3g} now, "
        "while the training loss went on falling"
    )


NETWORK_EXAMINATIONS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _look_at_units,
    _look_at_gradients,
    _look_at_curve,
    _look_at_skill,
    _look_at_memory,
)
