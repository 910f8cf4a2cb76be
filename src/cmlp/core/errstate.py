"""NumPy's error state: none around our arithmetic, the caller's around the caller's own code.

Underflow and overflow are normal in training and prediction: callers examine the results, and the
compiled core raises no floating-point error. So ``np.errstate(all="raise")`` around a call must
change nothing. Code of the user's own (a callback, a loss, a scorer) runs in the user's state.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])


_callers: ContextVar[dict[str, Any] | None] = ContextVar("_callers", default=None)
"""The state in which cmlp was called, during the call."""


SILENT = dict.fromkeys(("divide", "over", "under", "invalid"), "ignore")


@contextlib.contextmanager
def callers_state() -> Iterator[None]:
    """Run a block, the caller's own code, in the caller's state."""
    state = _callers.get()
    if state is None:
        yield
        return
    token = _callers.set(None)
    try:
        with np.errstate(**state):
            yield
    finally:
        _callers.reset(token)


def undisturbed(function: Function) -> Function:
    """Decorate a function: it computes without NumPy's errors, whatever the caller's state."""
    return _decorated(function, np.geterr)


def silent(function: Function) -> Function:
    """Decorate a function: any of the caller's code that it calls runs without errors, too."""
    return _decorated(function, lambda: SILENT)


def _decorated(function: Function, state: Callable[[], Any]) -> Function:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _callers.get() is not None:  # a call within a call
            return function(*args, **kwargs)
        token = _callers.set(state())
        try:
            with np.errstate(all="ignore"):
                return function(*args, **kwargs)
        finally:
            _callers.reset(token)

    return cast(Function, call)
