"""Libraries side by side, each in a process of its own that works only when it is told to.

A library reads its number of threads from the environment when it is loaded, and keeps a pool of
them: two libraries in one process would share the one and meet the other's. So each gets a process,
set up for it and pinned to as many processors as it may have threads. The processes take turns,
and wait on a pipe in between.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Self

from ._timing import pinned

PAUSE = 0.05
"""Seconds between the turns of libraries with several threads, which spin for a while (OpenBLAS:
26 ms) after their work. To forbid them that would slow them down inside their turns, too."""


def environment(threads: int) -> dict[str, str]:
    """Return what tells every library how many threads it may have."""
    names = ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM", "NUMEXPR")
    variables = {f"{name}_NUM_THREADS": str(threads) for name in names}
    variables["VECLIB_MAXIMUM_THREADS"] = variables.pop("VECLIB_MAXIMUM_NUM_THREADS")
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        variables |= {"XLA_FLAGS": flags, "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    return variables


class WorkerError(RuntimeError):
    """Something failed in another process; the message is its traceback."""


class Worker:
    """A process that makes one object, and calls its methods.

    Parameters
    ----------
    make : callable
        Called in the process to make the object; a function or class of a module.
    *arguments
        Its arguments.
    threads : int
        Threads that libraries in the process may have, and processors that it is pinned to.
    variables : dict of str to str, optional
        More of its environment.

    Attributes
    ----------
    missing : str
        The module that is not installed, if the object could not be made for that; else empty.
    idle : float
        Processor time, in seconds per second, that it used while it should have waited; at most.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        *arguments: Any,
        threads: int = 1,
        variables: dict[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, threads, make, arguments), daemon=True
        )
        with _environ({**environment(threads), **(variables or {})}):
            self._process.start()
        theirs.close()
        self.missing, self.idle = "", 0.0
        kind, value = self._receive()
        if kind == "missing":
            self.missing = value

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object and return what it returns."""
        self.ask(method, *arguments)
        return self.answer()

    def ask(self, method: str, *arguments: Any) -> None:
        """Have a method called, without waiting for what :meth:`answer` will return."""
        self._pipe.send((method, arguments))

    def answer(self) -> Any:
        """Wait for what the method returns."""
        kind, value = self._receive()
        if kind == "missing":
            raise WorkerError(f"no module named {value!r}, which another one needs")
        return value

    def turn(self) -> float:
        """Call the method `turn`, as ``_timing.fastest`` wants it."""
        return float(self.call("turn"))

    def _receive(self) -> tuple[str, Any]:
        try:
            kind, value, idle = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise WorkerError(f"a worker ended with {self._process.exitcode}") from None
        if kind == "error":
            raise WorkerError(value)
        self.idle = max(getattr(self, "idle", 0.0), idle)
        return kind, value

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _serve(pipe: Connection, threads: int, make: Callable[..., Any], arguments: Any) -> None:
    """Live in the process: make the object, then call what comes through the pipe."""
    subject: Any = None
    method, idle = "", 0.0
    with pinned(threads):
        while True:
            try:
                if subject is None:
                    subject, value = make(*arguments), None
                else:
                    value = getattr(subject, method)(*arguments)
                answer = "value", value, idle
            except ModuleNotFoundError as error:
                answer = "missing", error.name or "", idle
            except Exception:
                answer = "error", traceback.format_exc(), idle
            try:
                pipe.send(answer)
                time.sleep(PAUSE * (threads > 1))
                began, used = time.perf_counter(), time.process_time()
                method, arguments = pipe.recv()
            except (EOFError, BrokenPipeError):
                return
            waited = time.perf_counter() - began
            idle = (time.process_time() - used) / waited if waited > 0.1 else 0.0


@contextmanager
def _environ(variables: dict[str, str]) -> Any:
    """Set variables for the processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
