"""The threads that run a call of the core, and how Ctrl-C or a deadline ends it early.

A call that takes long runs in threads of its own, while the thread that called waits: a signal
reaches Python only between bytecodes of the main thread, and the core has none. The waiting thread
writes to the team's array, which the core reads between the phases of a step (``barrier.h``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cmlp.core.seam import TEAM_ABORTED, TEAM_STOP, Places

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Result = TypeVar("Result")


POLL = 0.05
"""Polling interval for Ctrl-C and the deadline, in seconds."""


def never() -> bool:
    """Return False: the deadline of a training without one."""
    return False


class Team:
    """Threads that run the ranks of a call.

    Parameters
    ----------
    size : int
        Number of threads; 0 runs rank 0 in the thread that calls, which nothing can end early. So
        it is with 1 where no thread can be started.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pool: ThreadPoolExecutor | None = None
        if size:
            from concurrent.futures import ThreadPoolExecutor  # slow to import

            self.pool = ThreadPoolExecutor(size, thread_name_prefix="cmlp")
        if size == 1 and self.pool is not None:
            try:
                self.pool.submit(never)
            except RuntimeError:  # as in an isolated sub-interpreter of Python 3.11
                self.pool.shutdown(wait=False, cancel_futures=True)
                self.pool = None

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()

    def run(
        self,
        call: Callable[[int, Places], Result],
        team: Places,
        out_of_time: Callable[[], bool] | None = None,
    ) -> Result:
        """Run ``call(rank, team)`` for every rank, and return what rank 0 returns.

        Parameters
        ----------
        out_of_time : callable, optional
            Whether to end the call early; None lets it finish, also after Ctrl-C.

        Raises
        ------
        KeyboardInterrupt
            After all ranks have returned, if Ctrl-C came while they ran.
        """
        if self.pool is None:
            return call(0, team)

        def run_rank(rank: int) -> Result:
            try:
                return call(rank, team)
            except BaseException:
                team[TEAM_ABORTED] = 1  # the others leave at their first barrier
                raise

        futures: list[Future[Result]] = []
        try:
            for rank in range(self.size):
                futures.append(self.pool.submit(run_rank, rank))
        except BaseException:
            team[TEAM_ABORTED] = 1
            raise
        finally:
            interrupt = _wait_for(futures, team, out_of_time)
        answer, *_ = [future.result() for future in futures]
        if interrupt is not None:
            raise interrupt
        return answer


def _wait_for(
    futures: list[Future[Any]], team: Places, out_of_time: Callable[[], bool] | None
) -> BaseException | None:
    """Wait until every call has returned; a Ctrl-C in the meantime is returned, not raised."""
    from concurrent.futures import wait

    interrupt: BaseException | None = None
    while True:
        try:
            while wait(futures, POLL).not_done:
                if out_of_time is not None and out_of_time():
                    team[TEAM_STOP] = 1
            return interrupt
        except KeyboardInterrupt as error:
            interrupt = error
            if out_of_time is not None:
                team[TEAM_STOP] = 1
