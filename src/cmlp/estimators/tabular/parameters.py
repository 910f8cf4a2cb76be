"""Parameters of tabular estimators: checked, and put in place of a preset's numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cmlp.core.checks import plain
from cmlp.core.errors import InvalidParameterError
from cmlp.core.vocabulary import SOLVERS
from cmlp.estimators.parameters import (
    check_bools,
    check_choice,
    check_count,
    check_real,
    is_count,
    refuse,
)
from cmlp.estimators.tabular.presets import MEMBERS, Facts, Preset, preset_for

COUNTS = ("batch_size", "max_iter", "n_ensemble")
"""Whole numbers of at least 1, or 'auto'."""

NUMERIC_EMBEDDINGS = ("auto", "piecewise", "periodic")

REALS = {
    "learning_rate_init": "(0, inf)", "weight_decay": "[0, inf)", "label_smoothing": "[0, 1)",
}  # fmt: skip
"""Numbers in an interval, or 'auto'."""

FRACTIONS = {"validation_fraction": "(0, 1)"}


def is_auto(value: Any) -> bool:
    """Whether a parameter leaves its value to the preset."""
    return isinstance(value, str) and value == "auto"


def check_parameters(estimator: Any) -> None:
    """Check what classifier and regressor share; networks and encoder check the others."""
    for name in COUNTS:
        check_count(estimator, name, "auto")
    _check_columns(estimator)
    for name, bounds in REALS.items():
        if hasattr(estimator, name) and not is_auto(getattr(estimator, name)):
            check_real(estimator, name, bounds)
    for name, bounds in FRACTIONS.items():
        check_real(estimator, name, bounds)
    _check_layers(estimator)
    check_choice(estimator, "solver", ("auto", *(row.name for row in SOLVERS)))
    check_bools(estimator, "early_stopping", "missing_targets")
    cv, patience = estimator.cv, estimator.n_iter_no_change
    pairs = np.iterable(cv) and not isinstance(cv, str)
    if not (cv is None or is_auto(cv) or is_count(cv, 2) or pairs):
        expected = "an int in the range [2, inf), pairs of row numbers, 'auto' or None"
        if hasattr(cv, "split"):
            expected += "; of a splitter pass cv.split(X, y)"
        raise refuse(estimator, "cv", expected)
    if not (is_auto(patience) or is_count(patience) or patience == np.inf):
        raise refuse(estimator, "n_iter_no_change", "an int in the range [1, inf), inf or 'auto'")
    if not (isinstance(estimator.verbose, (bool, np.bool_)) or is_count(estimator.verbose, 0)):
        raise refuse(estimator, "verbose", "an int in the range [0, inf) or an instance of 'bool'")
    if estimator.n_threads is not None:
        check_count(estimator, "n_threads", -1)
    if estimator.max_time is not None:
        check_real(estimator, "max_time", "[0, inf)")
    if not (isinstance(estimator.scoring, str) or callable(estimator.scoring)):
        raise refuse(estimator, "scoring", "a str or a callable")


def _check_columns(estimator: Any) -> None:
    """Check what becomes of columns."""
    for name in ("max_one_hot", "embedding_size"):
        value = getattr(estimator, name)
        if not (is_auto(value) or is_count(value, 0)):
            raise refuse(estimator, name, "an int in the range [0, inf) or 'auto'")
    if estimator.numeric_embedding is not None:
        check_choice(estimator, "numeric_embedding", NUMERIC_EMBEDDINGS)
    if estimator.max_categories is not None:
        check_count(estimator, "max_categories")


def _check_layers(estimator: Any) -> None:
    given = estimator.hidden_layer_sizes
    if is_auto(given):
        return
    sizes = [plain(size) for size in (given if np.iterable(given) else [given])]
    if isinstance(given, str) or not all(type(size) is int for size in sizes):
        raise refuse(estimator, "hidden_layer_sizes", "'auto', an int or a list of them")
    if min(sizes, default=1) < 1:
        raise InvalidParameterError(f"hidden_layer_sizes must be > 0, got {sizes}.")


def resolved(estimator: Any, facts: Facts, folds: bool) -> Preset:
    """Return the preset for a problem, with the estimator's parameters where they are set.

    Parameters
    ----------
    folds : bool
        Whether rows are divided into folds if nothing is set: they are held out, and not given.
    """
    preset = preset_for(facts)
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(Preset):
        value = getattr(estimator, field.name, "auto")
        if not is_auto(value):
            chosen[field.name] = value
            if field.name == "cv" and not (value is None or is_count(value)):
                chosen["cv"] = list(value)  # also of a generator, which is used once
            if field.name == "n_iter_no_change":
                chosen["stop_factor"] = 1.0
    if np.size(estimator.hidden_layer_sizes) == 0:  # there is nothing to switch off
        chosen = {"dropout": 0.0} | chosen
    if "cv" in chosen or "n_ensemble" in chosen:
        chosen = {"cv": None, "n_ensemble": 1, "folds_used": None} | chosen
    elif not folds:
        chosen |= {"cv": None, "n_ensemble": MEMBERS, "folds_used": None}
    others = [
        {name: value for name, value in each.items() if name not in chosen}
        for each in preset.by_member
    ]
    chosen["by_member"] = tuple(others) if any(others) else ()
    return dataclasses.replace(preset, **chosen)


def threads_of(estimator: Any) -> int | None:
    """Return how many threads may be used; None for as many as there are."""
    return None if estimator.n_threads in (None, -1) else int(estimator.n_threads)
