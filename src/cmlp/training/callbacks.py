"""Functions and objects that see a training after each epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cmlp.core.arrays import refuse_masked
from cmlp.core.errstate import callers_state
from cmlp.core.public import set_module
from cmlp.model.history import History


@set_module("cmlp")
@dataclass
class TrainingState:
    """What a callback sees.

    Attributes
    ----------
    network : Network
    history : History
        The epochs so far; the latest is the last entry of each list.
    epoch : int
        Epochs done in this fit.
    epochs : int
        Epochs requested.
    stop : bool
        Set it, or return anything true, to end the training after this epoch.
    """

    network: Any  # a Network, which is defined above this
    history: History
    epoch: int
    epochs: int
    stop: bool = False


EVENTS = ("on_train_begin", "on_epoch_end", "on_train_end")
"""Methods that a callback may have."""


def check_callbacks(callbacks: Iterable[Any]) -> tuple[Any, ...]:
    """Return callbacks as a tuple; refuse one that would never be called."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list, not {callbacks!r}")
    listed = tuple(callbacks)
    for callback in listed:
        if not (callable(callback) or any(hasattr(callback, event) for event in EVENTS)):
            raise TypeError(
                f"a callback must be a function or have a method {', '.join(EVENTS[:-1])} or "
                f"{EVENTS[-1]}; {callback!r} has none"
            )
    return listed


def call_back(callbacks: Iterable[Any], event: str, state: TrainingState) -> None:
    """Call every callback: of an object its method, of a plain function epochs only.

    What is true for Python ends the training: True, NumPy's True, 1.

    Raises
    ------
    TypeError
        For an answer that is neither true nor false, such as an array.
    """
    stops = False
    for callback in callbacks:
        method = getattr(callback, event, None)
        if method is None and event == "on_epoch_end" and callable(callback):
            method = callback
        with callers_state():
            answer = None if method is None else method(state)
        stops = _is_true(f"{callback!r} returned", answer) or stops
        _is_true(f"{callback!r} set state.stop to", state.stop)
    if stops:  # a later callback does not revoke it
        state.stop = True


def _is_true(whose: str, answer: Any) -> bool:
    """Return whether an answer is true; refuse one that is neither true nor false."""
    try:
        refuse_masked("the answer of a callback", answer)
        return bool(answer)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "a callback must return True to end the training, or False or None to continue; "
            f"{whose} a {type(answer).__name__} ({error})"
        ) from None
