"""A driver's view of its cluster: who is alive, and calls that never wait without a limit."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmlp.core.checks import check_integer, check_number
from cmlp.dask.worker import Outcome, running

ANSWER = 2.0
"""Seconds that a worker's event loop has to answer; it is busy at times, but never for long."""

GLANCE = 0.5
"""Seconds in which it tells what is running there; if it does not, it is asked again."""

SILENCE = 15.0
"""Seconds without an answer after which the scheduler counts as lost."""


class TrainingFailed(RuntimeError):
    """Rounds failed one after another, or too few workers are left.

    The network holds the state of the last round that was seen whole.

    Attributes
    ----------
    story : list of str
        Who was lost, when, and what was seen.
    """

    def __init__(self, message: str, story: list[str] | None = None) -> None:
        super().__init__("\n  ".join([message, *(story or [])]))
        self.message, self.story = message, story or []

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.story)


class ClusterLost(TrainingFailed):
    """The scheduler has gone, or does not answer."""


@dataclass
class Limits:
    """Who takes part, and how long to wait for what; see :func:`cmlp.dask.train`."""

    sync_every: Any = 1
    workers: Any = None
    min_workers: int = 1
    wait: float = 300
    timeout: float = 60
    retries: int = 3
    round_seconds: float = 15
    port: Any = 0
    shards: int | None = None

    def __post_init__(self) -> None:
        check_integer("min_workers", self.min_workers, 1)
        if isinstance(self.workers, (int, float, np.number)):
            check_integer("workers", self.workers, self.min_workers)
        check_integer("retries", self.retries, 0)
        if self.shards is not None:
            check_integer("shards", self.shards, 1)
        for name, least in (("wait", 0), ("timeout", 0.001), ("round_seconds", 0.001)):
            check_number(name, getattr(self, name), least)


@dataclass(eq=False)
class Task:
    """A task in one worker.

    Attributes
    ----------
    runs : bool
        Whether it was running when its worker was last asked.
    heard : float
        When that was so, or it was started.
    """

    address: str
    future: Any
    runs: bool = False
    heard: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """Whether it has a result, or will never have one."""
        return bool(self.future.status != "pending")

    def outcome(self, limit: float) -> Outcome:
        """Return what it has returned; 'lost' where that cannot be had, as of a killed worker."""
        try:
            found: Outcome = self.future.result(timeout=limit)
            return found
        except Exception as error:
            return Outcome("lost", seen=f"its answer was lost: {type(error).__name__}: {error}")


class Cluster:
    """Calls of Dask, each with a limit.

    Attributes
    ----------
    most : int or None
        So many workers may take part.
    only : set of str or None
        Those of these addresses or names may.
    """

    def __init__(self, client: Any, limits: Limits | None = None) -> None:
        if not hasattr(client, "who_has") or client.asynchronous:
            what = "an asynchronous one" if hasattr(client, "who_has") else type(client).__name__
            raise TypeError(f"client must be a distributed.Client that is synchronous, not {what}")
        self.client, self.limits, self.waiting = client, limits or Limits(), None
        workers = self.limits.workers
        self.most = workers if isinstance(workers, (int, np.integer)) else None
        self.only: set[str] | None = None
        if workers is not None and self.most is None:
            self.only = {workers} if isinstance(workers, str) else set(map(str, workers))

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the workers that may take part, by address, in order of their names.

        Raises
        ------
        ClusterLost
            If the scheduler has not answered for too long.
        """
        client, end = self.client, time.monotonic() + SILENCE - 5
        while True:
            try:
                if client.status in ("closed", "closing"):
                    raise ConnectionError("the client is closed")
                found = client.sync(client.scheduler.identity, callback_timeout=5)["workers"]
                break
            except (OSError, TimeoutError, AttributeError, RuntimeError) as error:
                if time.monotonic() > end or client.status == "closed":
                    raise ClusterLost(
                        "the scheduler does not answer any more; the network holds the last state "
                        "that was fetched: start a cluster, and train again with resume=True if "
                        f"there is a checkpoint ({error or type(error).__name__})"
                    ) from None
                time.sleep(0.5)
        taking_part = {
            address: about
            for address, about in found.items()
            if self.only is None or {address, str(about["name"])} & self.only
        }
        return dict(sorted(taking_part.items(), key=lambda item: _order(item[1]["name"])))

    def active(self, members: dict[str, dict[str, Any]] | None = None) -> list[Any]:
        """Return those that start tasks: one is paused whose memory is nearly full.

        If there is none, a task waits for one: adaptive scaling starts workers for tasks only.
        """
        members = self.members() if members is None else members
        found = [address for address, about in members.items() if about["status"] == "running"]
        self.waiting = None if found else self.waiting or self.client.submit(str, pure=False)
        return found

    def tell(
        self, addresses: Iterable[str], function: Any, *args: Any, limit: float = ANSWER
    ) -> dict[str, Any]:
        """Call a function in workers at once, while their tasks run; return the answers that came.

        An exception is an answer; a worker that does not answer in time is left out.
        """
        answers: dict[str, Any] = {}

        async def one(address: str) -> None:
            with contextlib.suppress(Exception):  # Dask's own: the function's is an answer
                asked = self.client.run(function, *args, workers=[address], on_error="return")
                answers.update(await asyncio.wait_for(asked, limit))

        async def all_of_them() -> None:
            await asyncio.gather(*map(one, addresses))

        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            self.client.sync(all_of_them, callback_timeout=limit + 5)
        return {at: told for at, told in list(answers.items()) if not isinstance(told, OSError)}

    def submit(self, address: str, function: Any, *args: Any) -> Task:
        """Start a task in one worker; it is never run elsewhere, and taken back if forgotten."""
        future = self.client.submit(
            function, *args, workers=[address], allow_other_workers=False, pure=False, retries=0,
            priority=100,
        )  # fmt: skip
        return Task(address, future)

    def ended(self, tasks: Iterable[Task], seconds: float, patience: float) -> dict[Task, str]:
        """Return tasks that have ended, as soon as there are any, and those that never will.

        Parameters
        ----------
        seconds : float
            After so many workers are asked.
        patience : float
            Seconds for which a worker need not answer, or may do something else; if infinite, none
            is asked.

        Returns
        -------
        dict of Task to str
            What was seen of the worker; nothing if it has ended its task.
        """
        tasks, end = list(tasks), time.monotonic() + seconds
        while not any(task.ended for task in tasks) and time.monotonic() < end:
            time.sleep(0.005)
        found = dict.fromkeys((task for task in tasks if task.ended), "")
        if not found:
            members, left = self.members(), "has left the cluster"
            found = {task: left for task in tasks if task.address not in members}
        if not found and patience < math.inf:
            told = self.tell({task.address for task in tasks}, running, limit=GLANCE)
            now = time.monotonic()
            for task in tasks:
                task.runs = task.future.key in told.get(task.address, ())
                if task.runs:
                    task.heard = now
                elif now - task.heard > patience:
                    found[task] = f"has not run its task for {patience:g} s: it is stopped, or busy"
        return found


def _order(name: Any) -> Any:
    """Return a key by which 2 comes before 10, and text after numbers."""
    return (0, name, "") if isinstance(name, int) else (1, 0, str(name))
