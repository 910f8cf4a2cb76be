"""What is examined in the curve of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cmlp.core.formatting import percent
from cmlp.core.layout import Array
from cmlp.diagnosis.finding import Finding
from cmlp.diagnosis.of_fit import RISE_LEVEL, SKILL
from cmlp.diagnosis.subject import MIN_EPOCHS, Subject, Trained
from cmlp.diagnosis.trial import trial_loss

TINY = 1e-300
"""For a division by a loss of 0."""


@dataclass(frozen=True)
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


def curve(subject: Subject, trained: Trained) -> Iterator[Finding]:
    """Report a learning rate that is too high or too low, or else too few epochs."""
    losses = np.asarray(trained.curves.get("loss", []), np.float64)
    if not np.isfinite(losses).all():
        yield diverged(subject)
        return
    if len(losses) < MIN_EPOCHS or subject.model.solver == "lbfgs":
        return
    unit = trained.constant or abs(losses[0]) or 1.0
    level = trained.level or losses[-1] / unit
    curve = Curve(losses, max(2, len(losses) // 4), trained.epochs / len(losses), unit, level)
    for examination in (_too_fast, _too_slow, _too_short):
        finding = examination(subject, trained, curve)
        if finding is not None:
            yield finding
            return


def diverged(subject: Subject) -> Finding:
    word, rate = subject.model.word("learning_rate"), subject.rate
    return Finding(
        "learning-rate-too-high", "error", rate,
        f"{'Training' if subject.fitted else 'A trial'} with {word}={rate:g} diverged: the loss "
        "or a weight became infinite.",
        f"Lower {word} to {rate / 10:g}, scale X and y, or clip gradients (clip_norm=1).",
        word, rate / 10,
    )  # fmt: skip


# A learning rate that is too high ----------------------------------------------------------------

REBOUND = 0.5
"""Fraction of the loss reduction that was lost again; a transient spike does not count."""


RESTLESS, RESTLESS_LEVEL = 0.07, 0.1
"""Mean rise of the loss per epoch (falls count 0), relative to the loss, while that is still over
0.1 of a constant prediction's. Single-row descent on a few hundred rows stays below 0.03."""


CALMED, AT_REST = 0.3, 0.2
"""Part of a loss that goes away in five epochs with a tenth of the learning rate, while it is over
0.2 of a constant prediction's: noisy but sound trainings win a few per cent."""


def _too_fast(subject: Subject, trained: Trained, curve: Curve) -> Finding | None:
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
    elif subject.fitted and curve.level > AT_REST and (value := _calmed(subject, trained)) > CALMED:
        meaning = (
            f"The loss has come to rest at {percent(curve.level)}% of a constant prediction's; in "
            f"a trial with a tenth of the learning rate {percent(value)}% of it went away"
        )
    else:
        return None
    model, rate, slower = subject.model, subject.rate, subject.rate / 10
    word = model.word("learning_rate")
    how = "learning_rate='cosine'" if model.is_estimator else "schedule='cosine'"
    return Finding(
        "learning-rate-too-high", "warning", value,
        f"{meaning}: steps leap over the minimum.",
        f"Lower {word} from {rate:g} to {slower:g}, or let it fall: {how}.",
        word, slower,
    )  # fmt: skip


def _calmed(subject: Subject, trained: Trained) -> float:
    """Return the part of the loss that a tenth of the learning rate wins in a few epochs."""
    same, tenth = (
        trial_loss(trained.net, trained.data, subject.rate * factor) for factor in (1, 0.1)
    )
    return 1 - tenth / trained.loss if tenth < same else 0.0


# A learning rate that is too low -----------------------------------------------------------------

STRAIGHT = 0.5
"""Slope of the last quarter of the curve to the first quarter's. Curves bend; one that is straight
has hardly begun."""


UNLEARNED = 0.5
"""Loss relative to that of a constant prediction, above which little was learned."""


QUICKER = 3.0
"""What ten times the learning rate must win, on a trial, for it to be called too low."""


def _too_slow(subject: Subject, trained: Trained, curve: Curve) -> Finding | None:
    losses, quarter, rate = curve.losses, curve.quarter, subject.rate
    begin, end = losses[0] - losses[quarter], losses[-1 - quarter] - losses[-1]
    steady = np.mean(np.diff(losses) < 0) > 0.8 and end > STRAIGHT * begin
    to_come = (losses[0] - losses[-1]) * subject.model.planned / len(losses)
    projected = 0.0 if subject.fitted else to_come
    if not steady or curve.level < UNLEARNED or projected > (1 - UNLEARNED) * losses[0]:
        return None
    won, won_by_ten = (
        trained.loss - trial_loss(trained.net, trained.data, rate * factor) for factor in (1, 10)
    )
    if won_by_ten < max(QUICKER * won, SKILL * trained.loss):
        return None
    word = subject.model.word("learning_rate")
    fall = float(end / (quarter * curve.stride) / losses[-1])
    return Finding(
        "learning-rate-too-low", "warning", fall,
        f"The loss falls by only {percent(fall, 2)}% per epoch, in a nearly straight line, and "
        f"is {percent(curve.level)}% of a constant prediction's; in a trial with ten times the "
        f"learning rate it fell more than {QUICKER:g} times as fast.",
        f"Raise {word} from {rate:g} to {10 * rate:g}.",
        word, 10 * rate,
    )  # fmt: skip


# Too few epochs ----------------------------------------------------------------------------------

STILL_FALLING, REMAINING = 0.01, 0.1
"""Fall of the loss per epoch at the end, while it is over 10 % of a constant prediction's: another
ten epochs would take a tenth of it away."""


def _too_short(subject: Subject, trained: Trained, curve: Curve) -> Finding | None:
    losses, quarter = curve.losses, curve.quarter
    rates = trained.curves.get("learning_rate", [1.0])
    if not subject.fitted or trained.stopped not in ("epochs", "") or rates[-1] < 0.5 * max(rates):
        return None  # it ended for another reason, or the schedule has ended
    validation = np.asarray(trained.curves.get("val_loss", []), np.float64)
    known = np.isfinite(validation).any()
    if known and np.nanargmin(validation) < len(validation) - quarter:
        return None
    passed = quarter * curve.stride
    fall = float((losses[-1 - quarter] - losses[-1]) / passed / max(losses[-1], TINY))
    lowest = losses[-1] < 1.02 * losses.min()
    if not lowest or fall <= STILL_FALLING or curve.level <= REMAINING:
        return None
    word, more = subject.model.word("epochs"), 3 * trained.epochs
    return Finding(
        "too-few-epochs", "warning", fall,
        f"The loss was still falling by {percent(fall, 1)}% per epoch when training ended after "
        f"{trained.epochs}, and is {percent(curve.level)}% of a constant prediction's.",
        f"Train longer: {word}={more}.",
        word, more,
    )  # fmt: skip
