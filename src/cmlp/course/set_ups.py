"""What the page of ``cmlp play`` begins with, for each lesson: data, network, story."""

from __future__ import annotations

import base64
import json
from typing import Any

READER = {
    "activation": "logistic",
    "out_activation": "logistic",
    "loss": "squared_error",
    "learning_rate": 1.0,
    "momentum": 0.0,
}
"""The network of lessons 2 to 6, on digits."""

BY_HAND = {
    "story": "step",
    "data": "xor",
    "layers": [2],
    "activation": "logistic",
    "out_activation": "logistic",
    "loss": "squared_error",
    "one_output": True,
    "learning_rate": 1.0,
    "momentum": 0.0,
    "rows": [[[1, -1], 1]],
    "parameters": [[[[0.5, -1], [1, 0.5]], [0, 0.5]], [[[1], [-2]], [0.5]]],
}
"""That of lesson 5."""

SET_UPS: dict[int, dict[str, Any]] = {
    1: {"story": "plane", "data": "xor", "layers": [4], "activation": "identity", "speed": 30.0},
    2: {**READER, "story": "draw", "epochs": 20},
    3: {**READER, "story": "train", "epochs": 20},
    4: {**READER, "story": "train", "batch_size": 3823, "speed": 10.0},
    5: BY_HAND,
    6: {**READER, "story": "train", "speed": 0.0},
    7: {**BY_HAND, "loss": "binary_crossentropy"},
    8: {"story": "plane", "data": "moons", "n": 80, "noise": 0.3, "layers": [64, 64], "speed": 0.0},
}


def set_up(lesson: int) -> dict[str, Any]:
    """Return what ``cmlp play --lesson N`` begins with.

    Parameters
    ----------
    lesson : int
        1 to 8.

    Returns
    -------
    dict
        Fields of a set-up, as :func:`cmlp.play` takes them.

    Raises
    ------
    ValueError
        If there is no such lesson.

    Examples
    --------
    >>> from cmlp import course
    >>> course.set_up(5)["story"]
    'step'
    """
    if lesson not in SET_UPS:
        raise ValueError(f"lesson is {lesson!r}; there are 1 to {len(SET_UPS)}")
    return {"title": f"Lesson {lesson}", **SET_UPS[lesson]}


def link(lesson: int) -> str:
    """Return a set-up as the end of an address: it goes after that of a page that is open.

    Parameters
    ----------
    lesson : int
        1 to 8.

    Returns
    -------
    str
        ``#setup=`` and letters.

    Raises
    ------
    ValueError
        If there is no such lesson.
    """
    fields = json.dumps(set_up(lesson), separators=(",", ":")).encode()
    return "#setup=" + base64.urlsafe_b64encode(fields).decode().rstrip("=")
