"""Run each library in a process of its own, which works on request only.

A library reads its number of threads from the environment when it is loaded, and keeps a pool of
them: two libraries in one process would share the environment and disturb each other's pools. So
each has a process, set up for it and pinned to as many processors as it may have threads. The
processes take turns, and wait on a pipe in between.
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
26 ms) after their work. Disabling the spinning would slow them down inside their turns, too."""


def environment(threads: int) -> dict[str, str]:
    """Return the variables that limit every library's threads."""
    names = ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM", "NUMEXPR")
    variables = {f"{name}_NUM_THREADS": str(threads) for name in names}
    variables["VECLIB_MAXIMUM_THREADS"] = variables.pop("VECLIB_MAXIMUM_NUM_THREADS")
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        variables |= {"XLA_FLAGS": flags, "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    return variables


class WorkerError(RuntimeError):
    """A failure in a worker process; the message is its traceback."""


class Worker:
    """A process that creates one object, and calls its methods.

    Parameters
    ----------
    make : callable
        Creates the object, called in the process; a function or class of a module.
    *arguments
        Its arguments.
    threads : int
        Threads that libraries in the process may have, and processors that it is pinned to.
    variables : dict of str to str, optional
        More of its environment.

    Attributes
    ----------
    missing : str
        The module whose absence prevented the object; otherwise empty.
    idle : float
        Largest processor time, in seconds per second, used between turns.
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
        """Start a call of a method; :meth:`answer` waits for its result."""
        self._pipe.send((method, arguments))

    def answer(self) -> Any:
        """Wait for the result of the call."""
        kind, value = self._receive()
        if kind == "missing":
            raise WorkerError(f"no module named {value!r}, which another module needs")
        return value

    def turn(self) -> float:
        """Call the method `turn`; the worker is a turn for ``_timing.fastest``."""
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
    """Run in the process: create the object, then execute the calls from the pipe."""
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
    """Set variables for the processes that are started in the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
