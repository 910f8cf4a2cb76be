"""The run that the first page begins with, made while its browser starts."""

from __future__ import annotations

import contextlib
import threading

from cmlp.page.build import Own, Rows, new_run, rows_of
from cmlp.page.run import Run
from cmlp.page.set_up import SetUp, SetUpError, first_set_up
from cmlp.training.divergence import DivergenceError


class Ahead:
    """Rows and a trained network in the making, for whoever takes them first.

    Parameters
    ----------
    own : Own, optional
        A model and rows that a program passed.
    setup : SetUp, optional
        What pages begin with.
    """

    def __init__(self, own: Own | None = None, setup: SetUp | None = None) -> None:
        self.own, self.setup = own, first_set_up(setup, own is not None)
        self.made: list[tuple[Rows, Run]] = []
        self.taken = threading.Lock()
        self.thread = threading.Thread(target=self._make, daemon=True)
        self.thread.start()

    def _make(self) -> None:
        with contextlib.suppress(SetUpError, DivergenceError):  # the session tells them to the page
            rows = rows_of(self.setup, self.own)
            self.made.append((rows, new_run(self.setup, rows, self.own)))

    def take(self, setup: SetUp) -> tuple[Rows, Run] | None:
        """Return rows and run once they are made; None for another set-up, and to all but one."""
        if setup != self.setup or not self.taken.acquire(blocking=False):
            return None
        self.thread.join()
        return self.made.pop() if self.made else None
