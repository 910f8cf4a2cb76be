"""Parameters of an estimator: by name as scikit-learn has them, and checks of their values."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cmlp.core.checks import plain
from cmlp.core.errors import InvalidParameterError
from cmlp.core.vocabulary import SOLVERS
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


# Values that are out of range, with scikit-learn's messages --------------------------------------


def refuse(estimator: Any, name: str, expected: str) -> InvalidParameterError:
    """Return the error about a parameter; `expected` describes its values."""
    value = getattr(estimator, name)
    return InvalidParameterError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {expected}. "
        f"Got {plain(value)!r} instead."
    )


@contextlib.contextmanager
def parameters_at_fault() -> Iterator[None]:
    """Re-raise TypeError and ValueError as InvalidParameterError."""
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


def check_choice(estimator: Any, name: str, choices: Iterable[str | None]) -> None:
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


STOCHASTIC = tuple(row.name for row in SOLVERS)
"""Solvers that take a step per batch: all but 'lbfgs'."""

REALS = {
    "alpha": "[0, inf)", "learning_rate_init": "(0, inf)", "power_t": "[0, inf)",
    "tol": "[0, inf)", "momentum": "[0, 1]", "validation_fraction": "[0, 1)",
    "beta_1": "[0, 1)", "beta_2": "[0, 1)", "epsilon": "(0, inf)", "l1_ratio": "[0, 1]",
    "weight_decay": "[0, inf)", "warmup_fraction": "[0, 1)", "input_noise": "[0, inf)",
    "ema": "[0, 1)",
}  # fmt: skip
"""Parameters that are numbers, and their intervals."""


def check_parameters(estimator: Any) -> None:
    """Check the parameters that classifier and regressor share; the network checks the others."""
    for name, bounds in REALS.items():
        check_real(estimator, name, bounds)
    for name in ("max_iter", "max_fun", "n_ensemble"):
        check_count(estimator, name)
    check_count(estimator, "batch_size", "auto")
    check_count(estimator, "n_iter_no_change", np.inf)
    check_bools(estimator, "shuffle", "warm_start", "nesterovs_momentum", "early_stopping")
    check_choice(estimator, "solver", ("lbfgs", *STOCHASTIC))
    verbose, scoring = estimator.verbose, estimator.scoring
    if not (isinstance(verbose, (bool, np.bool_)) or is_count(verbose, 0)):
        expected = "an int in the range [0, inf) or an instance of 'bool'"
        raise refuse(estimator, "verbose", expected)
    for name in ("n_threads", "n_jobs"):
        if getattr(estimator, name) is not None:
            check_count(estimator, name, -1)
    if estimator.max_time is not None:
        check_real(estimator, "max_time", "[0, inf)")
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise refuse(estimator, "scoring", "a str, a callable or None")
    if estimator.solver == "lbfgs":
        _check_lbfgs(estimator)


def _check_lbfgs(estimator: Any) -> None:
    """Refuse what needs batches or epochs."""
    if estimator.normalization == "batch":
        raise InvalidParameterError(
            "normalization='batch' keeps running means of its batches, and 'lbfgs' has none; "
            "use normalization='layer' or another solver"
        )
    if tuple(estimator.callbacks):
        raise InvalidParameterError(
            "callbacks are called after an epoch, and solver='lbfgs' has none; use another solver"
        )


@parameters_at_fault()
def random_state(seed: Any) -> np.random.RandomState:
    """Return the generator that scikit-learn would use: the same numbers for the same seed."""
    if seed is None or seed is np.random:
        return np.random.mtrand._rand
    if isinstance(seed, np.random.RandomState):
        return seed
    if isinstance(seed, np.random.Generator):
        return np.random.RandomState(seed.integers(2**32 - 1, dtype=np.uint32))
    if is_count(seed, 0):
        return np.random.RandomState(int(seed))
    raise ValueError(f"{seed!r} cannot be used to seed a numpy.random.RandomState instance")
