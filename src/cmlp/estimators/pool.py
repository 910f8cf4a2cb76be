"""Threads that run tasks until all are done, one fails, or Ctrl-C ends them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Result = TypeVar("Result")

POLL = 0.1
"""Polling interval for Ctrl-C, in seconds. Lock waits are not interruptible on Windows; elsewhere
a signal just before the wait is missed."""


class _Run(Generic[Result]):
    """One task, and its result or its error."""

    def __init__(self, task: Callable[[], Result]) -> None:
        self.task, self.begun, self.done = task, False, threading.Event()
        self.result: Result | None = None
        self.error: BaseException | None = None


class Pool:
    """Runs tasks, `n_workers` at once.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C has ended the tasks.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers, self.interrupted = n_workers, False
        self._stop, self._lock = threading.Event(), threading.Lock()

    def stopped(self) -> bool:
        """Whether tasks have to end; those that have not begun never do."""
        return self._stop.is_set()

    def run(self, tasks: Iterable[Callable[[], Result]]) -> list[Result | None]:
        """Run the tasks, and return their results; None for those that never began.

        Raises
        ------
        BaseException
            What a task has raised, which stops the others: an error rather than a Ctrl-C.
        """
        runs = [_Run(task) for task in tasks]
        threads: list[threading.Thread] = []
        while True:  # until no Ctrl-C comes in between
            try:
                if self.interrupted:
                    self._halt()
                self._start(runs, threads)
                self._wait(runs)
                for thread in threads:
                    if thread.is_alive():
                        thread.join()
                break
            except KeyboardInterrupt:
                self.interrupted = True
        errors = [run.error for run in runs if run.error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, KeyboardInterrupt)):
            raise error
        return [run.result for run in runs]

    def _start(self, runs: list[_Run[Result]], threads: list[threading.Thread]) -> None:
        while len(threads) < min(self.n_workers, len(runs)) and not self.stopped():
            name = f"cmlp-member_{len(threads)}"
            threads.append(threading.Thread(target=self._work, args=(runs,), name=name))
            try:
                threads[-1].start()
            except RuntimeError:  # no thread can be started
                if len(threads) == 1:
                    raise
                return  # those that run take all tasks

    def _work(self, runs: list[_Run[Result]]) -> None:
        """Take one task after the other, as long as there are any."""
        for run in runs:
            with self._lock:  # after `_halt`, `begun` does not change any more
                if self.stopped():
                    return
                if run.begun:
                    continue
                run.begun = True
            try:
                run.result = run.task()
            except BaseException as error:
                run.error = error
                self._halt()
            finally:
                run.done.set()

    def _halt(self) -> None:
        with self._lock:
            self._stop.set()

    def _wait(self, runs: list[_Run[Result]]) -> None:
        """Wait for all tasks that have begun, or still can."""
        for run in runs:
            while not run.done.wait(POLL):
                if self.stopped() and not run.begun:
                    break
