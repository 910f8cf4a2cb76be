"""What is examined in the answers: skill, and over-fitting."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cmlp.core import formatting
from cmlp.diagnosis.subject import MIN_EPOCHS, Case, Finding, State
from cmlp.model.scoring import evaluate, metric_of

VALIDATION_RISE, RISE_LEVEL = 1.2, 0.05
"""Last validation loss to the lowest, and the difference relative to a constant prediction's
loss: validation losses of healthy classifiers creep up by less."""


SCORE_GAP = 0.1
"""Training score minus validation score (accuracy, R2)."""


SKILL = 0.02
"""What a network must win over a constant prediction: 2 % of its loss."""


def skill(case: Case) -> Iterator[Finding]:
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


def over_fitting(case: Case) -> Iterator[Finding]:
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
    seen, unseen = formatting.score(state.score, 3), formatting.score(score, 3)
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
