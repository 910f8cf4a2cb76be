"""What any estimator has: its parameters, how it is shown, copied and compared."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cmlp.core.checks import plain
from cmlp.core.errors import InvalidParameterError
from cmlp.estimators.protocols import Protocols


def _defaults(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator's constructor, sorted by name, and their defaults."""
    kind: Any = type(estimator)
    return _defaults_of(kind)


@functools.cache
def _defaults_of(kind: Any) -> dict[str, Any]:
    parameters = inspect.signature(kind.__init__).parameters
    named = [p for p in parameters.values() if p.name != "self" and p.kind != p.VAR_KEYWORD]
    return {p.name: p.default for p in sorted(named, key=lambda p: p.name)}


class Estimator(Protocols):
    """Parameters by name, as scikit-learn's estimators have them."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters and their values.

        Parameters
        ----------
        deep : bool
            Also those of parameters that are estimators themselves, as ``name__parameter``.
        """
        params: dict[str, Any] = {}
        for name in _defaults(self):
            value = params[name] = getattr(self, name)
            if deep and hasattr(value, "get_params") and not isinstance(value, type):
                params |= {f"{name}__{key}": inner for key, inner in value.get_params().items()}
        return params

    def set_params(self, **params: Any) -> Any:
        """Set parameters by name; ``name__parameter`` sets that of a parameter.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        known = _defaults(self)
        nested: dict[str, dict[str, Any]] = {}
        for key, value in params.items():
            name, delimiter, inner = key.partition("__")
            if name not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. "
                    f"Valid parameters are: {list(known)!r}."
                )
            if delimiter:
                nested.setdefault(name, {})[inner] = value
            else:
                setattr(self, name, value)
        for name, inner_params in nested.items():
            getattr(self, name).set_params(**inner_params)
        return self

    def __repr__(self) -> str:
        changed = (
            f"{name}={getattr(self, name)!r}"
            for name, default in _defaults(self).items()
            if repr(getattr(self, name)) != repr(default)
        )
        return f"{type(self).__name__}({', '.join(changed)})"


# Parameters that are out of range, in the words that users know ----------------------------------


def refuse(estimator: Any, name: str, expected: str) -> InvalidParameterError:
    """Return the complaint about a parameter."""
    value = getattr(estimator, name)
    return InvalidParameterError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {expected}. "
        f"Got {plain(value)!r} instead."
    )


@contextlib.contextmanager
def parameters_at_fault() -> Iterator[None]:
    """Turn the complaints of those who use the parameters into the estimators' own."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(str(error)) from None


def check_real(estimator: Any, name: str, bounds: str) -> None:
    """Check a number against an interval written as ``[0, inf)``."""
    low, high = (float(part) for part in bounds[1:-1].split(","))
    value = getattr(estimator, name)
    right = (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, (bool, np.bool_))
        and (value >= low if bounds[0] == "[" else value > low)
        and (value <= high if bounds[-1] == "]" else value < high)
    )
    if not right:
        shown = f"{bounds[0]}{low}, {high}{bounds[-1]}"
        raise refuse(estimator, name, f"a float in the range {shown}")


def is_count(value: Any, low: int = 1) -> bool:
    """Whether a value is a whole number of at least `low`."""
    return (
        isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= low)
    )


def check_count(estimator: Any, name: str, *others: Any) -> None:
    """Check that a parameter is a whole number of at least 1, or one of some other values."""
    value = getattr(estimator, name)
    if not is_count(value) and not any(value is o or value == o for o in others):
        also = "".join(f" or {other!r}" for other in others)
        raise refuse(estimator, name, f"an int in the range [1, inf){also}")


def check_choice(estimator: Any, name: str, choices: Iterable[str]) -> None:
    """Check that a parameter is one of some names."""
    choices = list(choices)
    if getattr(estimator, name) not in choices:
        shown = ", ".join(repr(choice) for choice in choices)
        raise refuse(estimator, name, f"a str among {{{shown}}}")


def check_bools(estimator: Any, *names: str) -> None:
    """Check that parameters are True or False."""
    for name in names:
        if not isinstance(getattr(estimator, name), (bool, np.bool_)):
            raise refuse(estimator, name, "an instance of 'bool'")
