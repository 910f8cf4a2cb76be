"""What is examined in the answers: skill, and over-fitting."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cmlp.core import formatting
from cmlp.diagnosis.finding import Finding
from cmlp.diagnosis.subject import MIN_EPOCHS, Subject, Trained
from cmlp.model.scoring import evaluate, metric_of

SKILL = 0.02
"""What a network must win over a constant prediction: 2 % of its loss."""


def skill(subject: Subject, trained: Trained) -> Iterator[Finding]:
    """Report a network that is no better than a constant prediction."""
    model = subject.model
    if not subject.fitted or model.balanced or not _is_useless(subject, trained):
        return
    advice = (
        "Follow the other findings first; otherwise X may not hold what decides y, or the network "
        f"has too few units, or too much {model.word('l2')}."
    )
    parameter, suggestion = None, None
    epochs, patience = trained.epochs, model.patience
    if trained.stopped in ("tol", "patience") and math.isfinite(patience) and epochs:
        parameter, suggestion = "n_iter_no_change", 5 * int(patience)
        advice = (
            f"It stopped after {epochs} epochs, perhaps on the flat before the slope: "
            f"n_iter_no_change={suggestion} and tol=0. {advice}"
        )
    yield Finding(
        "no-better-than-constant", "warning", trained.level or trained.score,
        "The network does no better on these rows than the same answer for every row.",
        advice, parameter, suggestion,
    )  # fmt: skip


def _is_useless(subject: Subject, trained: Trained) -> bool:
    if trained.constant:
        return trained.loss > (1 - SKILL) * trained.constant
    counts = subject.sample.counts
    if counts is not None:
        return trained.score <= float(counts.max() / counts.sum())
    return trained.score < SKILL


def over_fitting(subject: Subject, trained: Trained) -> Iterator[Finding]:
    """Report over-fitting: from held-out rows, or else from the validation curve."""
    if not subject.fitted:
        return
    seen = _over_fitting_by_score(trained) or _over_fitting_by_curve(trained)
    if seen is None:
        return
    value, meaning = seen
    model = subject.model
    stop = "early_stopping=True" if model.is_estimator else "patience=5 with validation rows"
    yield Finding(
        "over-fitting", "warning", value,
        f"{meaning}: the network learns its rows by heart.",
        f"Stop earlier ({stop}), raise {model.word('l2')} tenfold, add dropout=0.2, use fewer "
        "units, or find more rows.",
        model.word("patience"), True if model.is_estimator else 5,
    )  # fmt: skip


SCORE_GAP = 0.1
"""Training score minus validation score (accuracy, R2)."""


def _over_fitting_by_score(trained: Trained) -> tuple[float, str] | None:
    net, score = trained.net, trained.score
    if trained.validation is None:
        return None
    metric = "Accuracy" if metric_of(net, trained.data.targets) == "accuracy" else "R2"
    validation_score = evaluate(net, trained.validation, None)[1]
    if score - validation_score <= SCORE_GAP:
        return None
    seen, unseen = formatting.score(score, 3), formatting.score(validation_score, 3)
    return score - validation_score, (
        f"{metric} is {seen} on the training rows and {unseen} on the validation rows"
    )


VALIDATION_RISE, RISE_LEVEL = 1.2, 0.05
"""Last validation loss to the lowest, and the difference relative to a constant prediction's
loss: validation losses of healthy classifiers creep up by less."""


def _over_fitting_by_curve(trained: Trained) -> tuple[float, str] | None:
    unit = trained.constant
    losses = np.asarray(trained.curves.get("val_loss", []), np.float64)
    if np.isfinite(losses).sum() < MIN_EPOCHS or trained.restored or unit is None:
        return None
    train_losses = np.asarray(trained.curves["loss"])
    best = int(np.nanargmin(losses))
    low, now = losses[best], float(np.nanmedian(losses[-3:]))
    rises = now > max(VALIDATION_RISE * low, low + RISE_LEVEL * unit)
    if not rises or train_losses[-1] >= train_losses[best]:
        return None
    return now / low, (
        f"The validation loss was lowest ({low:.3g}) in epoch {best + 1} and is {now:.3g} now, "
        "while the training loss kept falling"
    )
