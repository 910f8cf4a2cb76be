"""Warnings and errors that are scikit-learn's own where it is loaded, and how they are issued."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from cmlp.core.public import set_module

# Errors and warnings -----------------------------------------------------------------------------


@set_module("cmlp")
class NotFittedError(ValueError, AttributeError):
    """An estimator is used before it is fitted."""


@set_module("cmlp")
class InvalidParameterError(ValueError, TypeError):
    """A parameter of an estimator is out of range, or of the wrong type."""


@set_module("cmlp")
class ConvergenceWarning(UserWarning):
    """Training ended before it had converged."""


@set_module("cmlp")
class DataConversionWarning(UserWarning):
    """Data had another shape than expected, and was converted."""


@set_module("cmlp")
class UndefinedMetricWarning(UserWarning):
    """A score is not defined on these rows."""


@functools.cache
def _joined(ours: Any, theirs: Any) -> Any:
    """Return a class that is both, and that pickles as ours."""

    def reduce(error: Exception) -> tuple[Any, ...]:
        return sklearn_instance, (ours, *error.args)

    return type(
        ours.__name__, (ours, theirs), {"__module__": ours.__module__, "__reduce__": reduce}
    )


def class_of(ours: type[Exception]) -> Any:
    """Return our class; where scikit-learn is loaded, a class that is also scikit-learn's."""
    mine: Any = ours
    theirs: Any = getattr(sys.modules.get("sklearn.exceptions"), ours.__name__, None)
    return ours if theirs is None else _joined(mine, theirs)


def sklearn_instance(ours: type[Exception], *arguments: Any) -> Any:
    """Make an error or warning that is also scikit-learn's, where that is loaded."""
    return class_of(ours)(*arguments)


SKLEARN_MODULE = "sklearn.neural_network._multilayer_perceptron"
"""The module that warnings name where scikit-learn is loaded: programs filter by it."""


_held: ContextVar[list[tuple[str, type[Warning]]] | None] = ContextVar("_held", default=None)


@contextlib.contextmanager
def held_warnings() -> Iterator[list[tuple[str, type[Warning]]]]:
    """Collect the warnings of :func:`warn` in this thread instead of issuing them.

    ``warnings.catch_warnings`` would change the filters of all threads.
    """
    held: list[tuple[str, type[Warning]]] = []
    token = _held.set(held)
    try:
        yield held
    finally:
        _held.reset(token)


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """Issue a warning that points to the line which called into cmlp."""
    held = _held.get()
    if held is not None:
        held.append((message, kind))
        return
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("cmlp."):
        frame = frame.f_back
    theirs = "sklearn.exceptions" in sys.modules
    warnings.warn_explicit(
        kind(message) if kind is UserWarning else sklearn_instance(kind, message),
        None,
        frame.f_code.co_filename,
        frame.f_lineno,
        SKLEARN_MODULE if theirs else frame.f_globals.get("__name__", "<string>"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )
