"""Tasks for any workers of a cluster: each thread has one, until all are done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from cmlp.dask.cluster import Cluster, Task, TrainingFailed
from cmlp.dask.worker import outcome_of


class Pool:
    """Jobs, which are given to workers; those of one that is lost, or stopped, to others.

    Parameters
    ----------
    n_jobs : int
    take : callable
        From the address of a worker to jobs, taken out of those that are left, and a function with
        its arguments; to None if this worker cannot have any.
    n_threads : int
        Of a task.

    Attributes
    ----------
    left : list of int
        Jobs that no worker has.
    given : dict of Task to list of int
        Those that workers have.
    slots : dict of str to int
        How many tasks each worker may have.
    barred : dict of str to float
        Workers that get none, and until when.
    """

    def __init__(
        self, cluster: Cluster, n_jobs: int, take: Callable[[str], Any], n_threads: int = 1
    ) -> None:
        self.cluster, self.limits, self.n_threads = cluster, cluster.limits, n_threads
        self.take = take
        self.left, self.lost = list(range(n_jobs)), Counter[int]()
        self.given: dict[Task, list[int]] = {}
        self.slots: dict[str, int] = {}
        self.barred: dict[str, float] = {}
        self.heard = time.monotonic()

    def tasks(self) -> Iterator[tuple[list[int], Task]]:
        """Keep every thread busy; yield tasks that have ended, with their jobs."""
        pause = min(2.0, self.limits.timeout / 4)
        while self.left or self.given:
            self._give()
            for task, seen in self.cluster.ended(self.given, pause, self.limits.timeout).items():
                jobs = self.given.pop(task)
                if seen:
                    self._again(jobs, task.address, seen)
                else:
                    self.heard = time.monotonic()
                    yield jobs, task
            if any(task.runs for task in self.given):
                self.heard = time.monotonic()
            if time.monotonic() - self.heard > self.limits.timeout + self.limits.wait:
                raise TrainingFailed(
                    f"no worker has done anything for {self.limits.timeout + self.limits.wait:g} "
                    "s: they are busy, paused or stopped"
                )

    def result(self, jobs: list[int], task: Task) -> Any:
        """Return what a task has returned; None if that is lost, and another one is to do it."""
        found = task.outcome(self.limits.timeout)
        if found.kind == "error":
            found.value.add_note(f"This is of the jobs {jobs}, in {task.address}:\n{found.seen}")
            raise found.value
        if found.kind == "lost":
            self._again(jobs, task.address, found.seen)
        return found.value

    def _give(self) -> None:
        """Give work to every thread that has none."""
        now, taken = time.monotonic(), Counter(task.address for task in self.given)
        members = self.cluster.members()
        self.slots = {
            address: max(1, members[address]["nthreads"] // self.n_threads)
            for address in self.cluster.active(members)
            if self.barred.get(address, 0.0) < now
        }
        while self.left and (free := [at for at, n in self.slots.items() if taken[at] < n]):
            address = min(free, key=taken.__getitem__)
            work = self.take(address) if self.cluster.tell([address], str) else None
            if work is None:
                self.barred[address] = now + self.limits.timeout
                del self.slots[address]
            else:
                taken[address] += 1
                self.given[self.cluster.submit(address, outcome_of, *work[1])] = work[0]

    def _again(self, jobs: list[int], address: str, seen: str) -> None:
        """Let others do this, or the same worker later."""
        self.barred[address] = time.monotonic() + self.limits.timeout
        self.left = jobs + self.left
        self.lost.update(jobs)
        for job in jobs:
            if self.lost[job] > self.limits.retries:
                raise TrainingFailed(f"job {job} was lost {self.lost[job]} times: {address} {seen}")
