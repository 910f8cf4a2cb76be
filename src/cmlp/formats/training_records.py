"""The training record, the optimizer's state and the random generator in a model file."""

from __future__ import annotations

import math
from reprlib import repr as short
from typing import Any

import numpy as np

from cmlp.data.records import NUMBER, entries
from cmlp.formats.entries import SOLVER_NAMES, check_name
from cmlp.model.history import MAX_EPOCHS, History

# The training record -----------------------------------------------------------------------------

_HISTORY: dict[str, tuple[type, ...]] = {
    "metric": (str,),
    "values": (dict,),
    "stopped": (str,),
    "best_epoch": (int, type(None)),
    "restored": (bool,),
    "solver": (str,),
    "lengths": (dict,),
}


def history_record(history: History, solver: str) -> dict[str, Any]:
    """Describe a training record for :func:`read_history`; a long one is thinned."""
    kept = history.thinned()
    n = max(map(len, kept.values()), default=0)
    values = {}
    for key, column in kept.items():
        try:
            values[str(key)] = [float(value) for value in column]
        except (TypeError, ValueError) as error:
            raise ValueError(f"history[{key!r}] must hold numbers: {error}") from None
    record = {
        "metric": str(history.metric),
        "values": {key: column + [math.nan] * (n - len(column)) for key, column in values.items()},
        "stopped": str(history.stopped),
        "best_epoch": None if history.best_epoch is None else int(history.best_epoch),
        "restored": bool(history.restored),
        "solver": solver,
    }
    shorter = {key: len(column) for key, column in values.items() if len(column) < n}
    return {**record, "lengths": shorter} if shorter else record


def read_history(record: object) -> History:
    """Return the training record that a JSON object describes."""
    older: dict[str, Any] = {
        "stopped": "epochs", "best_epoch": None, "restored": False, "solver": "", "lengths": {},
    }  # fmt: skip
    about = entries(record, "the history", _HISTORY, older)
    values, lengths, best = about["values"], about["lengths"], about["best_epoch"]
    n = max((len(column) for column in values.values() if type(column) is list), default=0)
    if n > MAX_EPOCHS:
        raise ValueError(f"the history has {n:,} epochs, {MAX_EPOCHS:,} is the limit")
    for key, column in values.items():
        if type(column) is not list or not all(type(value) in NUMBER for value in column):
            raise TypeError(f"the history of {short(key)} must be a list of numbers")
        if len(column) != n:
            raise ValueError("the lists of the history must be of one length")
    for key, length in lengths.items():
        if key not in values or type(length) is not int or not 0 <= length < n:
            raise ValueError(f"the length of the history of {short(key)} is not right")
    if best is not None and not 1 <= best < 1 << 53:
        raise ValueError("the best epoch must be a number of at least 1")
    if about["solver"] != "lbfgs":
        check_name("solver", about["solver"], SOLVER_NAMES)
    history = History(
        {key: [float(value) for value in column[: lengths.get(key, n)]]
         for key, column in values.items()},
        about["metric"],
    )  # fmt: skip
    history.stopped, history.best_epoch = about["stopped"], best
    history.restored, history.solver = about["restored"], about["solver"]
    return history


# The optimizer -----------------------------------------------------------------------------------

STATE: dict[str, tuple[type, ...]] = {
    "solver": (str,),
    "steps": (int,),
    "generator": (dict,),
    "averaged": (int,),
    "shown_average": (int, type(None)),
}


_BIT, _WORD32, _WORD64, _WORD128 = ((1 << bits) - 1 for bits in (1, 32, 64, 128))


_HALF = {"has_uint32": _BIT, "uinteger": _WORD32}  # the second half of a word, not yet used


_PCG = {"state": {"state": _WORD128, "inc": _WORD128}, **_HALF}


GENERATORS: dict[str, dict[str, Any]] = {
    "PCG64": _PCG,
    "PCG64DXSM": _PCG,
    "MT19937": {"state": {"key": (_WORD32, 624), "pos": 624}},
    "Philox": {
        "state": {"counter": (_WORD64, 4), "key": (_WORD64, 2)},
        "buffer": (_WORD64, 4), "buffer_pos": 4, **_HALF,
    },
    "SFC64": {"state": {"state": (_WORD64, 4)}, **_HALF},
}  # fmt: skip
"""NumPy's bit generators, and the largest number of each part of their state (of a list: also its
length). NumPy itself does not check places in a buffer, and reads beyond its end."""


def read_state(record: object) -> dict[str, Any]:
    """Return the optimizer's state, without its arrays."""
    older = {"averaged": 0, "shown_average": None}
    state = entries(record, "the optimizer", STATE, older)
    check_name("solver", state["solver"], SOLVER_NAMES)
    if not 0 <= state["steps"] < 1 << 62:
        raise ValueError("steps must be at least 0, and below 2^62")
    if not 0 <= state["averaged"] <= state["steps"] or (state["averaged"] and not state["solver"]):
        raise ValueError("a mean is of steps that were taken")
    if state["shown_average"] is not None and not 0 <= state["shown_average"] <= _WORD32:
        raise ValueError("shown_average must be a number of 32 bits")
    check_generator(state["generator"])
    return state


def check_generator(state: dict[str, Any]) -> None:
    """Check the state of a random generator."""
    kind = state.get("bit_generator")
    if type(kind) is not str or kind not in GENERATORS:
        raise ValueError(
            f"unknown random generator {short(kind)}; known: {', '.join(GENERATORS)}. Another "
            "seed, as in net.rng = 0, makes one of these"
        )
    if not _fits(state, {"bit_generator": str, **GENERATORS[kind]}):
        raise ValueError(f"the random generator's state is none of {kind}")


def _fits(value: object, expected: Any) -> bool:
    """Whether a generator's state has the expected parts, each in its range."""
    if isinstance(expected, dict):
        return (
            type(value) is dict
            and value.keys() == expected.keys()
            and all(_fits(value[key], part) for key, part in expected.items())
        )
    if isinstance(expected, tuple):
        most, n = expected
        return (
            type(value) is list
            and len(value) == n
            and set(map(type, value)) == {int}
            and min(value) >= 0
            and max(value) <= most
        )
    if expected is str:
        return type(value) is str
    return type(value) is int and 0 <= value <= expected


def generator(state: dict[str, Any]) -> np.random.Generator:
    """Return a random generator with a checked state."""
    bits = getattr(np.random, state["bit_generator"])(0)
    bits.state = state
    return np.random.Generator(bits)


# Where a training stood --------------------------------------------------------------------------

_RESUME: dict[str, tuple[type, ...]] = {
    "finished": (str,),
    "epoch": (int,),
    "rows": (int,),
    "loss": (float,),
    "weight": (float,),
    "windows": (dict,),
    "older": (int,),
    "rules": (dict,),
    "best": (bool,),
    "start": (dict,),
    "generator": (dict,),
    "same": (dict,),
}


_WINDOWS: dict[str, tuple[type, ...]] = {
    "rows": (int,), "lanes": (int,), "held": NUMBER, "shards": (int,),
}  # fmt: skip


def read_resume(record: object) -> dict[str, Any]:
    """Return where a training stood, of a checkpoint."""
    about = entries(record, "the checkpoint", _RESUME, {})
    windows = about["windows"] and entries(about["windows"], "the windows", _WINDOWS, {"shards": 0})
    for name, value in [*about.items(), *windows.items()]:
        if type(value) is int and not 0 <= value < 1 << 53:
            raise ValueError(f"{name} must be at least 0")
    made = windows and (windows["shards"] or (windows["rows"] and windows["lanes"]))
    if windows and not (made and 0 <= windows["held"] < 1):
        raise ValueError("windows must have rows, of blocks, of which not all are held out")
    for name in ("loss", "weight"):
        if not math.isfinite(about[name]):
            raise ValueError(f"{name} must be finite")
    for name in ("start", "generator"):
        check_generator(about[name])
    return about
