"""An ensemble in one estimator: members that differ in their seeds, trained side by side.

Every member is an estimator with a network of its own and one thread; the estimator that holds
them reads the data once, and answers with the mean.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlp.core import dispatch, formatting
from cmlp.core.errors import held_warnings, warn
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.model.history import History
from cmlp.training.divergence import DivergenceError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cmlp.data.rows import Data, HeldOut

MEMBERS_OWN = {"n_ensemble": 1, "n_threads": 1, "n_jobs": None, "verbose": 0}
"""Parameters that a member does not have from the ensemble."""


HEARING = 0.1
"""Seconds between two looks for Ctrl-C: on Windows it wakes nobody who waits for a lock, and
elsewhere not who is about to."""


class OfOneNetwork:
    """An attribute that an estimator with one network has, once it is fitted.

    It says where an ensemble has it; what a fit writes to the object comes before it.
    """

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else absent(instance, self.name)


def absent(estimator: Any, name: str) -> Any:
    """Say why an estimator does not have an attribute of one network."""
    who = f"{type(estimator).__name__!r} object has no attribute {name!r}: "
    if "estimators_" in vars(estimator):
        raise AttributeError(f"{who}an ensemble has one per member, as in estimators_[0].{name}")
    raise AttributeError(f"{who}it is not fitted")


# Training ----------------------------------------------------------------------------------------


def fit(
    ensemble: Any, data: Data, labels: Any, held_out: HeldOut | None, init: Any, *,
    generator: np.random.RandomState, first: bool, incremental: bool,
) -> None:  # fmt: skip
    """Train the members, as many at once as there are threads.

    Ctrl-C stops all of them; those that have begun are kept. One that diverges stops alone, and
    is reported when the others have ended.
    """
    from concurrent.futures import ThreadPoolExecutor, wait  # slow to import

    n = ensemble.n_ensemble
    workers = min(n, dispatch.threads_for(ensemble._threads()))
    members = _members(ensemble, [] if first else ensemble.estimators_, generator, workers)
    stop = threading.Event()

    @undisturbed
    def train(number: int) -> list[tuple[str, type[Warning]]]:
        member = members[number]
        with held_warnings() as said:
            member._halt = stop
            try:
                if stop.is_set():
                    return said
                member._train(data, labels, held_out, init, incremental=incremental)
            except DivergenceError:
                raise
            except BaseException:
                stop.set()
                raise
            finally:
                del member._halt
            if ensemble.verbose:
                epochs, loss = member.n_iter_, vars(member).get("loss_", np.nan)
                loss = formatting.number(loss, 8)
                print(f"estimators_[{number}]: {epochs} iterations, loss = {loss}")
        return said

    futures: list[Future[list[tuple[str, type[Warning]]]]] = []
    interrupted = False
    with ThreadPoolExecutor(workers, thread_name_prefix="cmlp-member") as pool:
        while True:
            try:
                while len(futures) < n and not stop.is_set():
                    futures.append(pool.submit(train, len(futures)))
                while wait(futures, HEARING).not_done:
                    pass
                break
            except KeyboardInterrupt:
                interrupted = True
                stop.set()
    while any("_halt" in vars(member) for member in members):
        time.sleep(0.001)  # Ctrl-C came while the pool started this one's thread
    errors = [future.exception() for future in futures]
    _raise_worst(errors)
    _keep(ensemble, members)
    _repeat([f.result() for f, error in zip(futures, errors, strict=True) if error is None], n)
    if interrupted:
        warn(f"Training interrupted by user. {len(ensemble.estimators_)} of {n} members are kept.")
    _report_divergence(errors, n)


def _members(
    ensemble: Any, present: Sequence[Any], generator: np.random.RandomState, workers: int
) -> list[Any]:
    """Return the members that there are and those to come, with parameters, names and labels."""
    n = ensemble.n_ensemble
    parameters = ensemble.get_params(deep=False) | MEMBERS_OWN
    if ensemble.max_time is not None:
        parameters["max_time"] = ensemble.max_time / -(-n // workers)
    members = list(present)
    if len(members) < n:
        seeds = generator.randint(2**31 - 1, size=n).tolist()
        members += [
            type(ensemble)(**parameters | {"random_state": seed}) for seed in seeds[len(members) :]
        ]
    known = ("n_features_in_", "feature_names_in_", "_labels")
    for member in members:
        member.set_params(**parameters | {"random_state": member.random_state})
        for name in known:
            vars(member).pop(name, None)
        vars(member).update(
            (name, vars(ensemble)[name]) for name in known if name in vars(ensemble)
        )
    return members


def _raise_worst(errors: Iterable[BaseException | None]) -> None:
    """Raise what stopped the ensemble: an error, else the Ctrl-C that it was answered with."""
    fatal = [e for e in errors if e is not None and not isinstance(e, DivergenceError)]
    for error in sorted(fatal, key=lambda e: isinstance(e, KeyboardInterrupt)):
        raise error


def _keep(ensemble: Any, members: list[Any]) -> None:
    """Keep the members that were trained, and write what they have in common or in the mean."""
    kept = [member for member in members if "network_" in vars(member)]
    if not kept:
        raise KeyboardInterrupt
    vars(ensemble).pop("network_", None)
    vars(ensemble).pop("best_iteration_", None)
    ensemble.estimators_ = kept
    for name in ("n_layers_", "n_outputs_"):
        setattr(ensemble, name, getattr(kept[0], name))
    for name in ("n_iter_", "t_"):
        setattr(ensemble, name, max(vars(member)[name] for member in kept))
    for name in ("loss_", "best_loss_", "best_validation_score_"):
        values = [vars(member).get(name) for member in kept]
        setattr(ensemble, name, None if None in values else float(np.mean(values)))
    ensemble.should_stop_ = all(vars(member).get("should_stop_", True) for member in kept)
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


def _repeat(said: list[list[tuple[str, type[Warning]]]], n: int) -> None:
    """Say once what several members have warned of."""
    counts = Counter(each for warnings in said for each in dict.fromkeys(warnings))
    for (message, kind), count in counts.items():
        warn(f"{count} of {n} members: {message}", kind)


def _report_divergence(errors: list[BaseException | None], n: int) -> None:
    """Raise what the first member that diverged has said, and name all that did."""
    diverged = {i: e for i, e in enumerate(errors) if isinstance(e, DivergenceError)}
    for number, first in diverged.items():
        others = "; the others are trained" if len(diverged) < n else ""
        error = DivergenceError(
            f"{first} This is of estimators_[{number}]; {len(diverged)} of {n} members "
            f"diverged, {list(diverged)}{others}."
        )
        error.history = first.history
        raise error


# Answers: each joins what the members say about the same rows ------------------------------------


def mean(parts: Iterable[Array]) -> Array:
    """Return the mean over the members."""
    parts = iter(parts)
    total, n = np.array(next(parts)), 1
    for part in parts:
        total += part
        n += 1
    total /= n
    return total


def mean_and_std(parts: Iterable[Array]) -> tuple[Array, Array]:
    """Return the mean and the standard deviation over the members."""
    parts = list(parts)
    centre = mean(parts)
    return centre, np.sqrt(mean((part - centre) ** 2 for part in parts))


def side_by_side(parts: Iterable[Array]) -> Array:
    """Return the members' columns, one member's behind the other's."""
    return np.concatenate(list(parts), axis=1)


def log_probabilities(sums: Iterable[Array]) -> Array:
    """Return the logarithm of the mean of softmax, which is finite however large the sums are."""
    parts = [z - np.logaddexp.reduce(z, axis=1, keepdims=True) for z in sums]
    total: Array = np.logaddexp.reduce(parts, axis=0)
    total -= np.log(len(parts))
    return total


def log_odds(sums: Iterable[Array]) -> Array:
    """Return log(p / (1 - p)) of the mean p of logistic functions, finite in the same way."""
    parts = list(sums)
    zero = parts[0].dtype.type(0)
    for_it: Array = np.logaddexp.reduce([-np.logaddexp(zero, -z) for z in parts], axis=0)
    against: Array = np.logaddexp.reduce([-np.logaddexp(zero, z) for z in parts], axis=0)
    return for_it - against
