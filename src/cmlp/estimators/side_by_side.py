"""Members of ensembles and folds, trained side by side where their networks are small.

One network is in each lane of a vector, see ``training.lanes``; every thread has as many of them as
are worth it, or trains one estimator after another. What an estimator learns is what it would learn
alone, up to the order of sums.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.errors import held_warnings
from cmlp.core.errstate import undisturbed
from cmlp.estimators.fit import StochasticFit, batch_size_of, recipe_of
from cmlp.estimators.networks import new_network
from cmlp.estimators.parameters import STOCHASTIC
from cmlp.estimators.pool import Pool
from cmlp.estimators.targets import Task
from cmlp.estimators.train import ready_to_train, train
from cmlp.training.divergence import DivergenceError
from cmlp.training.lanes import Job, Kind, Lanes, fewest_of, kind_of, rows_of

Work = tuple[Any, Task]
"""An estimator, and what it has to learn."""

Warnings = list[tuple[str, type[Warning]]]


class Trained(NamedTuple):
    """How the training of an estimator has ended."""

    warnings: Warnings
    divergence: DivergenceError | None = None


def train_all(
    works: Sequence[Work], pool: Pool, report: Callable[[int], None] = lambda number: None
) -> list[Trained | None]:
    """Train estimators, as many at once as the pool has threads; None for those that never began.

    One that diverges stops alone. Ctrl-C stops all of them. `report` is called with the number of
    each one that has not diverged, in the thread that has trained it.
    """
    blocks = _blocks(works, pool.n_workers)
    ended = pool.run(
        functools.partial(_train_block, [works[number] for number in block], block, pool, report)
        for block in blocks
    )  # fmt: skip
    trained: list[Trained | None] = [None] * len(works)
    for block, results in zip(blocks, ended, strict=True):
        for number, result in zip(block, results or [None] * len(block), strict=True):
            trained[number] = result
    return trained


def _blocks(works: Sequence[Work], n_threads: int) -> list[list[int]]:
    """Return the numbers of the works that a thread trains side by side; blocks of one: alone."""
    kinds: dict[tuple[Kind, int], list[int]] = {}
    blocks: list[list[int]] = []
    for number, work in enumerate(works):
        found = _kind(*work)
        if found is None:
            blocks.append([number])
        else:
            kinds.setdefault(found, []).append(number)
    for (_, fewest), numbers in kinds.items():
        if len(numbers) // n_threads < fewest:
            blocks += [[number] for number in numbers]
        else:
            blocks += [part.tolist() for part in np.array_split(numbers, n_threads)]
    return sorted(blocks)


def _kind(estimator: Any, task: Task) -> tuple[Kind, int] | None:
    """Return which networks a new one can be trained with, and how many have to be together.

    None: alone. A network of the same architecture is asked, not the one that will be trained.
    """
    if (
        estimator.solver not in STOCHASTIC
        or estimator.max_time is not None
        or estimator.callbacks
        or estimator.verbose
        or task.once
        or not task.first
        or task.windows is not None
    ):
        return None
    net = new_network(estimator, task.columns, task.targets.outputs)
    with held_warnings():
        batch_size = batch_size_of(estimator, len(task.numbers))
    kind = kind_of(net, recipe_of(estimator, net), task.data, batch_size)
    return None if kind is None else (kind, fewest_of(net, batch_size))


@undisturbed
def _train_block(
    works: Sequence[Work], numbers: Sequence[int], pool: Pool, report: Callable[[int], None]
) -> list[Trained | None]:
    """Train some estimators, in a thread of their own: side by side if they are several."""
    if len(works) == 1:
        with held_warnings() as held:
            try:
                train(*works[0])
            except DivergenceError as error:
                return [Trained(held, error)]
        report(numbers[0])
        return [Trained(held)]
    with contextlib.ExitStack() as stack:
        jobs = []
        for estimator, task in works:
            with held_warnings() as held:
                fit = stack.enter_context(ready_to_train(estimator, task))
            jobs.append(MemberJob(fit, held))
        _run(jobs, pool)
    for number, job in zip(numbers, jobs, strict=True):
        if job.begun and job.error is None:
            report(number)
    return [Trained(job.warnings, job.error) if job.begun else None for job in jobs]


def _run(jobs: Sequence[MemberJob], pool: Pool) -> None:
    """Train side by side; those that are left over continue alone."""
    fit = jobs[0].rules
    kind = kind_of(fit.net, fit.recipe, fit.data, fit.batch_size)
    assert kind is not None
    lanes = Lanes(kind, jobs, rows_of(kind, jobs[0]))
    try:
        lanes.run(pool.stopped)
        for job in lanes.alone:
            job.continue_alone()
    except KeyboardInterrupt:
        if not pool.stopped():
            raise
    finally:
        for job in jobs:
            job.close()


class MemberJob(Job):
    """The fit of an estimator's network."""

    rules: StochasticFit

    def __init__(self, rules: StochasticFit, warnings: Warnings) -> None:
        super().__init__(rules)
        self.warnings = warnings

    @property
    def begun(self) -> bool:
        """Whether it has learned anything."""
        return bool(self.rules.est.loss_curve_) or self.error is not None

    def record(self, losses: list[float], seconds: float) -> str:
        with self._hearing():
            return super().record(losses, seconds)

    def diverged(self, loss: float, failed: bool) -> None:
        with self._hearing():
            super().diverged(loss, failed)

    def end(self, stopped: str) -> None:
        with self._hearing():
            super().end(stopped)

    def continue_alone(self) -> None:
        with self._hearing():
            try:
                self.rules.continue_alone()
            except DivergenceError as error:
                self.error = error

    def close(self) -> None:
        """Leave the scratch memory; an estimator that has not begun stays as it was."""
        self.rules.trainer.close()
        if not self.begun:
            vars(self.rules.est).pop("network_", None)

    @contextlib.contextmanager
    def _hearing(self) -> Any:
        """Keep the warnings of this estimator."""
        with held_warnings() as held:
            try:
                yield
            finally:
                self.warnings += held
