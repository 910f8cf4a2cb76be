"""The training of one network: of an estimator, or of a member of an ensemble."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from cmlp.estimators.fit import StochasticFit, learning_rate_of
from cmlp.estimators.lbfgs import fit_lbfgs
from cmlp.estimators.networks import check_continues, first_network, keep
from cmlp.estimators.parameters import random_state
from cmlp.estimators.targets import Task
from cmlp.model.assignment import write
from cmlp.network import Network


def train(estimator: Any, task: Task, of_source: Any = None) -> None:
    """Train the network of an estimator, or a new one, on the rows of a task.

    The estimator stays as it was until everything is checked.

    Parameters
    ----------
    of_source : SourceFit, optional
        What reads the rows of a source, and writes checkpoints.
    """
    random = random_of(estimator, task, of_source)
    start = {} if of_source is None else random.get_state(legacy=False)
    with network_of(estimator, task, random) as net:
        if estimator.solver == "lbfgs":
            keep_network(estimator, task, net, random)
            fit_lbfgs(estimator, net, task)
            return
        ended = of_source is not None and of_source.begin(net)
        fit = _steps(estimator, task, net, random)
        if of_source is not None and of_source.keeper is not None:
            fit.checkpoints, fit.start = of_source.keeper, start
        try:
            fit.run(ended)
        finally:
            if fit.feed is not None:
                fit.feed.close()


@contextlib.contextmanager
def ready_to_train(estimator: Any, task: Task) -> Iterator[StochasticFit]:
    """Prepare a training by steps, whose curves have begun, as :func:`train` does."""
    random = random_of(estimator, task)
    with network_of(estimator, task, random) as net:
        fit = _steps(estimator, task, net, random)
        fit.begin()
        yield fit


def random_of(estimator: Any, task: Task, of_source: Any = None) -> np.random.RandomState:
    """Return the random state of a training, which that of a ``partial_fit`` continues."""
    random: np.random.RandomState | None = getattr(estimator, "_random_state", None)
    if task.first or not task.once or random is None:
        if of_source is not None:
            random = of_source.random(estimator)
        else:
            random = random_state(estimator.random_state)
    return random


@contextlib.contextmanager
def network_of(estimator: Any, task: Task, random: np.random.RandomState) -> Iterator[Network]:
    """Return a new network, or the estimator's; no other thread trains it meanwhile."""
    if task.first:
        net = first_network(estimator, task, random)
    else:
        net = estimator.network_
        check_continues(estimator, net, task)
    with net.exclusive_training():
        if not task.first:
            write(net, *task.init)
        yield net


def _steps(
    estimator: Any, task: Task, net: Network, random: np.random.RandomState
) -> StochasticFit:
    """Prepare the steps of a training, and make the network the estimator's."""
    rate = getattr(estimator, "_optimizer", None)
    if not task.once or rate is None:
        rate = learning_rate_of(estimator)
    rows, held_out = task.numbers, task.held_out
    feed = None
    if task.windows is not None:
        feed, taken = task.windows(task, random)
        held_out = taken or held_out
    elif held_out is None and estimator.early_stopping:
        rows, held_out = task.split(estimator.validation_fraction, random)
    fit = StochasticFit(estimator, net, task, rate, random, rows, held_out, feed)
    keep_network(estimator, task, net, random)
    estimator._optimizer = rate
    return fit


def keep_network(estimator: Any, task: Task, net: Network, random: np.random.RandomState) -> None:
    """Make a network, and the problem that it is to learn, the estimator's."""
    outputs = task.targets.outputs
    if net.classes is None:  # as of weights that were assigned without labels
        net.classes = outputs.classes
    more: dict[str, Any] = {"_random_state": random}
    if task.first:
        more |= {"network_": net, "history_": net.history, "n_iter_": 0, "t_": 0}
    keep(estimator, task.columns, outputs, len(net.sizes), **more)
    if task.first:
        for name in ("estimators_", "loss_curve_", "_assigned"):
            vars(estimator).pop(name, None)
