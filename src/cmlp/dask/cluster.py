"""A driver's view of its cluster: who is alive, and calls that never wait without a limit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cmlp.dask.errors import ClusterLost, TrainingFailed

ANSWER = 2.0
"""Seconds that a worker's event loop has to answer; it is busy at times, but never for long."""

SILENCE = 15.0
"""Seconds without an answer after which the scheduler counts as lost."""


class Cluster:
    """Calls of Dask, each with a limit.

    Parameters
    ----------
    client : distributed.Client
    workers : int, list of str or None
        So many workers, those of these addresses or names, or all.
    """

    def __init__(self, client: Any, workers: Any) -> None:
        if client.asynchronous:
            raise TypeError("training needs a client that is not asynchronous")
        self.client, self.most = client, None
        self.only: set[Any] | None = None
        if isinstance(workers, int):
            self.most = workers
        elif workers is not None:
            self.only = {workers} if isinstance(workers, str) else set(workers)
        self.silent_since: float | None = None

    def _sync(self, made: Callable[[], Any], limit: float) -> Any:
        """Run a coroutine in the client's event loop."""
        loop = self.client.loop.asyncio_loop

        async def limited() -> Any:
            return await asyncio.wait_for(made(), limit)

        running = asyncio.run_coroutine_threadsafe(limited(), loop)
        try:
            return running.result(limit + 1)
        finally:
            running.cancel()

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the workers that may take part, by address, in order of their names.

        Raises
        ------
        ClusterLost
            If the scheduler has not answered for too long.
        """
        while True:
            try:
                if self.client.status in ("closed", "closing"):
                    raise ConnectionError("the client is closed")
                found = self._sync(lambda: self.client.scheduler.identity(), 5)["workers"]
            except (OSError, TimeoutError, AttributeError) as error:
                now = time.monotonic()
                self.silent_since = self.silent_since or now
                if now - self.silent_since > SILENCE - 5 or self.client.status == "closed":
                    raise ClusterLost(
                        "the scheduler does not answer any more; the network holds the last state "
                        "that was fetched: start a cluster, and train again with resume=True if "
                        f"there is a checkpoint ({error or type(error).__name__})"
                    ) from None
                time.sleep(0.5)
                continue
            self.silent_since = None
            taking_part = {
                address: about
                for address, about in found.items()
                if self.only is None or {address, about["name"]} & self.only
            }
            return dict(sorted(taking_part.items(), key=lambda item: _order(item[1]["name"])))

    def tell(
        self, addresses: Iterable[str], function: Any, *args: Any, limit: float = ANSWER
    ) -> dict[str, Any]:
        """Call a function in workers at once, while their tasks run; return the answers that came.

        An exception is an answer; a worker that does not answer in time is left out.
        """
        run = self.client.run

        async def one(address: str) -> Any:
            try:
                answer = await asyncio.wait_for(
                    run(function, *args, workers=[address], on_error="return"), limit
                )
                return address, answer[address]
            except Exception:  # Dask's own: what the function raises is its answer
                return None

        async def all_of_them() -> Any:
            return await asyncio.gather(*map(one, addresses))

        try:
            found = self._sync(all_of_them, limit + 5)
        except (OSError, TimeoutError):
            return {}
        return {
            address: answer
            for address, answer in filter(None, found)
            if not isinstance(answer, OSError)
        }

    def submit(self, address: str, function: Any, *args: Any) -> Task:
        """Start a task in one worker, which is never run anywhere else."""
        future = self.client.submit(
            function, *args, workers=[address], allow_other_workers=False, pure=False, retries=0,
            priority=100,
        )  # fmt: skip
        return Task(address, future)

    def send(self, address: str, data: Any, limit: float) -> Any:
        """Send data to a worker; return their future, or None if it has not taken them in time."""
        made = functools.partial(
            self.client.scatter, [data], workers=[address], hash=False, asynchronous=True
        )
        try:
            return self._sync(made, limit)[0]
        except (OSError, TimeoutError):
            return None

    def forget(self, tasks: Iterable[Task]) -> None:
        """Take back tasks that are not waited for any more: none of them starts late."""
        futures = [task.future for task in tasks]
        if futures:
            with contextlib.suppress(Exception):  # a client that is closed has none any more
                self._sync(lambda: self.client.cancel(futures, asynchronous=True), ANSWER)

    def spread(
        self, function: Any, arguments: list[Any], timeout: float, wait: float
    ) -> Iterator[Any]:
        """Run a task for each of some arguments, in any workers; yield the results in order.

        Tasks of a worker that is lost run again; so do those of one that does not answer when
        nothing has ended for `timeout` seconds.

        Raises
        ------
        TrainingFailed
            If nothing has ended for `wait` seconds more.
        """
        silent: set[str] = set()

        def begin(numbers: Iterable[int]) -> None:
            there = list(self.members())
            some = [address for address in there if address not in silent] or there
            chosen = some if silent or self.only is not None else None
            for i in numbers:
                tasks[i] = self.client.submit(function, *arguments[i], workers=chosen, pure=False)

        tasks: dict[int, Any] = {}
        begin(range(len(arguments)))
        n_left, since = len(tasks), time.monotonic()
        for i in range(len(arguments)):
            while True:
                try:
                    found = tasks[i].result(timeout=1)
                    break
                except TimeoutError:
                    members, now = self.members(), time.monotonic()
                except Exception:
                    if tasks[i].status == "error":
                        raise
                    begin([i])  # its result was lost
                    continue
                left = [j for j, task in tasks.items() if not task.done()]
                if len(left) != n_left:
                    n_left, since = len(left), now
                elif now - since > timeout + wait:
                    raise TrainingFailed(
                        f"no worker has finished a task for {now - since:.0f} s: they are busy, "
                        "paused or stopped"
                    )
                elif now - since > timeout:
                    new = members.keys() - self.tell(members, str).keys() - silent
                    silent |= new
                    begin({i, *left} if new else [])  # Dask forgets those that are not kept here
            del tasks[i]
            yield found


def _order(name: Any) -> Any:
    """Return a key by which 2 comes before 10, and text after numbers."""
    return (0, name, "") if isinstance(name, int) else (1, 0, str(name))


class Task:
    """A task in a worker.

    Attributes
    ----------
    address : str
    """

    def __init__(self, address: str, future: Any) -> None:
        self.address, self.future = address, future

    @property
    def ended(self) -> bool:
        """Whether it has a result, or will never have one."""
        return bool(self.future.status != "pending")

    def outcome(self, limit: float) -> Any:
        """Return its outcome; None if it has none, as of a worker that was lost."""
        try:
            return self.future.result(timeout=limit) if self.future.status == "finished" else None
        except Exception:  # the worker was lost just now
            return None

    def why(self) -> str:
        """Return why there is no outcome, where Dask knows."""
        if self.future.status != "error":
            return ""
        try:
            error = self.future.exception(timeout=ANSWER)
        except Exception:
            return "failed"
        return f"{type(error).__name__}: {error}"


class Waiting:
    """Waits for the end of any of some tasks."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.event = threading.Event()
        for task in tasks:
            task.future.add_done_callback(lambda _: self.event.set())

    def wait(self, seconds: float) -> None:
        """Return when one has ended since the last call, or after so many seconds."""
        if self.event.wait(seconds):
            self.event.clear()
