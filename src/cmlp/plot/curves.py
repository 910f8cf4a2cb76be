"""Curves: losses and scores over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmlp.core.errstate import silent
from cmlp.core.formatting import score, significant
from cmlp.plot.models import networks_of
from cmlp.plot.style import COLOURS, GREY, axes_for, ink, logarithmic, tidy


@silent
def loss_curve(
    model: Any, *, ax: Any = None, log: bool | None = None, learning_rate: bool = False
) -> Any:
    """Draw the training loss of every epoch, and the validation loss; the best epoch is marked.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor or History
        What was trained, or its history.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.
    log : bool, optional
        A logarithmic axis; by default where the losses span more than a factor of 30.
    learning_rate : bool
        Draw that as well, with an axis of its own on the right.

    Returns
    -------
    matplotlib Axes
    """
    history = _history(model)
    curves = [("training", "loss"), ("validation", "val_loss")]
    ax = _curves(history, curves, ax)
    values = np.concatenate([history[key] for _, key in curves if key in history])
    known = values[np.isfinite(values)]
    if log or (log is None and known.size and 0 < known.max() > 30 * known.min() > 0):
        logarithmic(ax)
    ax.set_ylabel("loss")
    decisive = "val_loss" if _has(history, "val_loss") else "loss"
    _mark_best(ax, history, decisive, int(np.nanargmin(history[decisive])))
    if learning_rate and _has(history, "learning_rate"):
        other = ax.twinx()
        epochs, rates = history["epoch"], history["learning_rate"]
        other.plot(epochs, rates, color=GREY, ls=":", lw=1.5, label="learning rate")
        other.set_ylabel("learning rate", color=GREY)
        other.tick_params(axis="y", colors=GREY)
        other.set_ylim(bottom=0)
        other.spines["top"].set_visible(False)
        handles = [*ax.get_lines(), *other.get_lines()]
        ax.legend(handles=[h for h in handles if h.get_label()[0] != "_"], frameon=False)
    else:
        ax.legend(frameon=False)
    return ax


@silent
def validation_curve(model: Any, *, ax: Any = None) -> Any:
    """Draw the score (accuracy or R2) on the validation rows after every epoch.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor or History
        What was trained, or its history.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the training had no validation rows.
    """
    history = _history(model)
    if not _has(history, "val_score"):
        raise ValueError(
            "there are no validation scores: fit with X_val and y_val, or with validation_fraction "
            "(an estimator: early_stopping=True)"
        )
    ax = _curves(history, [("validation", "val_score")], ax)
    ax.set_ylabel(_metric(model, history))
    _mark_best(ax, history, "val_score", int(np.nanargmax(history["val_score"])))
    ax.legend(frameon=False)
    return ax


def _metric(model: Any, history: Any) -> str:
    """Name the validation score."""
    scoring = getattr(model, "scoring", None)
    kind = {"classifier": "accuracy", "regressor": "r2"}.get(getattr(model, "_estimator_type", ""))
    if scoring is not None:
        name = scoring if isinstance(scoring, str) else "score"
    else:
        name = getattr(history, "metric", "") or kind or "score"
    return {"r2": "R²", "loss": "negative loss"}.get(name, name.replace("_", " "))


def _curves(history: dict[str, list[float]], curves: Sequence[tuple[str, str]], ax: Any) -> Any:
    """Draw one line per (name, key) that the history has."""
    if not _has(history, "loss"):
        raise ValueError("there is no curve: fit the model first (solver='lbfgs' keeps none)")
    ax = axes_for(ax, (6.4, 4.0))
    for (name, key), colour, style in zip(curves, COLOURS, ("-", "--"), strict=False):
        if _has(history, key):
            few = "o" if len(history[key]) < 3 else None
            ax.plot(history["epoch"], history[key], color=colour, ls=style, marker=few, label=name)
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return tidy(ax)


def _mark_best(ax: Any, history: dict[str, list[float]], key: str, at: int) -> None:
    epoch, value = history["epoch"][at], history[key][at]
    shown = score(value, 3) if key == "val_score" else significant(value)
    ax.axvline(epoch, color=GREY, lw=0.8, ls=(0, (1, 3)), zorder=0)
    ax.plot(
        epoch, value, ls="", marker="o", ms=8, mfc="none", mec=ink(ax), mew=1.5,
        label=f"best: {shown} in epoch {epoch:.0f}",
    )  # fmt: skip


def _history(model: Any) -> Any:
    if isinstance(model, dict):
        return model
    history = getattr(model, "history_", None)  # of an ensemble it is the mean
    return networks_of(model)[0].history if history is None else history


def _has(history: dict[str, list[float]], key: str) -> bool:
    return bool(np.isfinite(history.get(key, [])).any())
