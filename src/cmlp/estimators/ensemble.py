"""An ensemble in one estimator: members that differ in their seeds, trained at the same time.

Every member is an estimator with a network of its own and one thread; the estimator that holds
them reads the data once, and predicts the mean.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from cmlp.core import dispatch, formatting
from cmlp.core.errors import warn
from cmlp.estimators.fit import threads_of
from cmlp.estimators.networks import keep
from cmlp.estimators.parameters import random_state
from cmlp.estimators.pool import Pool
from cmlp.estimators.side_by_side import train_all
from cmlp.estimators.targets import Task
from cmlp.model.history import History
from cmlp.training.divergence import DivergenceError

MEMBERS_OWN = {"n_ensemble": 1, "n_threads": 1, "n_jobs": None, "verbose": 0}
"""Parameters that members override instead of inheriting."""


def fit(ensemble: Any, task: Task) -> None:
    """Train the members, as many at once as there are threads, small ones side by side.

    Ctrl-C stops all of them; those that have begun are kept. One that diverges stops alone, and
    is reported when the others have ended.
    """
    n = ensemble.n_ensemble
    pool = Pool(min(n, dispatch.threads_for(threads_of(ensemble))))
    present = [] if task.first else ensemble.estimators_
    members = members_of(ensemble, present, pool.n_workers)
    task = dataclasses.replace(task, halted=pool.stopped)
    works = [
        (member, dataclasses.replace(task, first=number >= len(present)))
        for number, member in enumerate(members)
    ]
    trained = train_all(works, pool, functools.partial(_report, ensemble, members))
    keep_members(ensemble, members, task)
    repeat_warnings(
        [each.warnings for each in trained if each is not None and not each.divergence], n
    )
    if pool.interrupted:
        warn(f"Training interrupted by user. {len(ensemble.estimators_)} of {n} members are kept.")
    report_divergence([each and each.divergence for each in trained], n)


def _report(ensemble: Any, members: list[Any], number: int) -> None:
    """Print how a member has ended."""
    if ensemble.verbose:
        member = members[number]
        loss = formatting.number(getattr(member, "loss_", np.nan), 8)
        print(f"estimators_[{number}]: {member.n_iter_} iterations, loss = {loss}")


def members_of(ensemble: Any, present: Sequence[Any], workers: int) -> list[Any]:
    """Return the earlier members and new ones, with the present parameters."""
    n = ensemble.n_ensemble
    parameters = ensemble.get_params(deep=False)
    if not parameters.keys() >= MEMBERS_OWN.keys():
        raise ValueError(
            "an ensemble makes its members from get_params(), but that of "
            f"{type(ensemble).__name__} lacks the parameters that its __init__ passes on as "
            "**kwargs: list them by name"
        )
    parameters |= MEMBERS_OWN
    if ensemble.max_time is not None:
        parameters["max_time"] = ensemble.max_time / -(-n // workers)
    members = list(present)
    if len(members) < n:
        seeds = random_state(ensemble.random_state).randint(2**31 - 1, size=n).tolist()
        members += [
            type(ensemble)(**parameters | {"random_state": seed}) for seed in seeds[len(members) :]
        ]
    for member in present:
        member.set_params(**parameters | {"random_state": member.random_state})
    return members


def keep_members(ensemble: Any, members: list[Any], task: Task) -> None:
    """Keep the members that were trained, and write what they have in common or in the mean."""
    kept = [member for member in members if hasattr(member, "network_")]
    if not kept:
        raise KeyboardInterrupt
    for name in ("network_", "best_iteration_"):
        vars(ensemble).pop(name, None)
    keep(ensemble, task.columns, task.targets.outputs, kept[0].n_layers_, estimators_=kept)
    for name in ("n_iter_", "t_"):
        setattr(ensemble, name, max(getattr(member, name) for member in kept))
    for name in ("loss_", "best_loss_", "best_validation_score_"):
        values: list[Any] = [getattr(member, name, None) for member in kept]
        setattr(ensemble, name, None if None in values else float(np.mean(values)))
    ensemble.should_stop_ = all(getattr(member, "should_stop_", True) for member in kept)
    ensemble.history_ = mean_history([member.history_ for member in kept])
    ensemble.loss_curve_ = ensemble.history_.get("loss", [])
    ensemble.validation_scores_ = ensemble.history_.get("val_score")
    ensemble.validation_loss_curve_ = ensemble.history_.get("val_loss")


def mean_history(histories: list[History]) -> History:
    """Average the members' records epoch by epoch, over those that have the epoch."""
    averages = History(metric=histories[0].metric)
    for key in dict.fromkeys(key for history in histories for key in history):
        epochs = zip_longest(*(history.get(key, []) for history in histories), fillvalue=np.nan)
        known = [[value for value in values if value == value] for values in epochs]
        averages[key] = [float(np.mean(values)) if values else np.nan for values in known]
    return averages


def repeat_warnings(
    held: list[list[tuple[str, type[Warning]]]], n: int, what: str = "members"
) -> None:
    """Issue once each warning that several members have in common."""
    counts = Counter(each for warnings in held for each in dict.fromkeys(warnings))
    for (message, kind), count in counts.items():
        warn(f"{count} of {n} {what}: {message}", kind)


def report_divergence(
    errors: list[DivergenceError | None], n: int, members: str = "estimators_"
) -> None:
    """Raise the error of the first member that diverged, with the numbers of all that did."""
    diverged = {number: error for number, error in enumerate(errors) if error}
    for number, first in diverged.items():
        others = "; the others are trained" if len(diverged) < n else ""
        error = DivergenceError(
            f"{first} This is of {members}[{number}]; {len(diverged)} of {n} members "
            f"diverged, {list(diverged)}{others}."
        )
        error.history = first.history
        raise error
