"""A set-up: which data, which network, how it is trained, and what a teacher hides or locks.

It comes from an address, a file or a message, so each of its fields is checked by itself, and
fields that do not exist are refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmlp.core.vocabulary import (
    ACTIVATIONS,
    INITIALISERS,
    LOSSES,
    SOLVERS,
    activation_of,
    lookup,
)
from cmlp.page import limits
from cmlp.page.points import RECIPES
from cmlp.training.recipe import Recipe

STORIES = ("draw", "train", "step", "plane", "table")
DATA = ("digits", *RECIPES, "points", "own")

HYPER = (
    "solver",
    "learning_rate",
    "momentum",
    "nesterov",
    "l1",
    "l2",
    "weight_decay",
    "dropout",
    "input_noise",
    "label_smoothing",
    "clip_norm",
)
"""Fields that a step depends on; another value takes effect at the next batch."""

CHANGEABLE = (*HYPER, "batch_size", "patience")


class SetUpError(ValueError):
    """A field of a set-up is not what it may be."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field, self.text = field, text


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What a run is made of; the same set-up gives the same run.

    Attributes
    ----------
    data : str
        'digits', one of the recipes of points, 'points' of one's own, or 'own' (a model's data).
    n, noise, data_seed
        Of a recipe of points.
    points : tuple of (x, y, label)
    epochs : int
        Trained before the first picture.
    rows : tuple of (inputs, label)
        Rows to step through; empty for rows of the data.
    one_output : bool
        Whether two classes share one output.
    parameters : tuple
        First weights and biases of each layer, ((W, b), ...); empty for random ones.
    hidden_panels, locked : tuple of str
        Controls that the page leaves out, or shows without letting them be changed.
    """

    story: str = "draw"
    title: str = ""
    data: str = "digits"
    n: int = 240
    noise: float = 0.08
    data_seed: int = 0
    points: tuple[tuple[float, float, int], ...] = ()
    layers: tuple[int, ...] = (16, 16)
    one_output: bool = False
    activation: str = "relu"
    out_activation: str = ""
    loss: str = "categorical_crossentropy"
    weight_init: str = "auto"
    seed: int = 0
    solver: str = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    batch_size: int = 32
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    input_noise: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    patience: int = 0
    epochs: int = 0
    speed: float = 300.0
    rows: tuple[tuple[tuple[float, ...], float], ...] = ()
    parameters: tuple[Any, ...] = ()
    hidden_panels: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> SetUp:
        """Check every field of a set-up.

        Raises
        ------
        SetUpError
            It names the field.
        """
        if not isinstance(given, Mapping):
            raise SetUpError("setup", "must be an object of named fields")
        return cls().changed(given)

    def changed(self, given: Mapping[str, Any]) -> SetUp:
        """Return a set-up with other values of some fields, which are checked."""
        checked = {}
        for name, value in given.items():
            if name not in CHECKS:
                raise SetUpError(str(name)[:40], "there is no such field")
            try:
                checked[name] = CHECKS[name](value)
            except (TypeError, ValueError, OverflowError) as error:
                raise SetUpError(name, str(error)) from None
        made = dataclasses.replace(self, **checked)
        try:
            made.recipe()
        except (TypeError, ValueError) as error:
            raise SetUpError(str(error).split(" ")[0], str(error)) from None
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return every field, for JSON."""
        return dataclasses.asdict(self)

    def differences(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults, for an address."""
        plain = SetUp()
        found = self.to_dict()
        return {name: value for name, value in found.items() if value != getattr(plain, name)}

    def recipe(self) -> Recipe:
        """Return what a step does."""
        return Recipe(**self.recipe_arguments())

    def recipe_arguments(self) -> dict[str, Any]:
        """Return the arguments of :meth:`cmlp.Network.fit` that a step depends on."""
        found = {name: getattr(self, name) for name in HYPER}
        found["clip_norm"] = self.clip_norm or None
        return found


PRESENTATION = ("story", "title", "speed", "hidden_panels", "locked", "epochs", "rows")
"""Fields that no weight depends on, once a run has begun."""


# Checks of single fields -------------------------------------------------------------------------

Check = Callable[[Any], Any]


def whole(low: int, high: int) -> Check:
    """Return a check of a whole number."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def real(low: float, high: float, below: bool = False) -> Check:
    """Return a check of a finite number; with `below` the upper end is excluded."""

    def check(value: Any) -> float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        if below and value == high:
            raise ValueError(f"must be below {high:g}")
        return float(value)

    return check


def one_of(names: Sequence[str]) -> Check:
    """Return a check of a name."""

    def check(value: Any) -> str:
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return str(value)

    return check


def named(kind: str, table: Any) -> Check:
    """Return a check of a name in the vocabulary."""

    def check(value: Any) -> str:
        return str(lookup(kind, table, value).name)

    return check


def text(value: Any) -> str:
    """Check a short text."""
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError("must be text of at most 200 characters")
    return value


def truth(value: Any) -> bool:
    """Check true or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def hidden_activation(value: Any) -> str:
    """Check an activation of the hidden layers."""
    row = activation_of(value)
    if row.output_only:
        raise ValueError(f"{row.name} is for the last layer")
    return row.name


def out_activation(value: Any) -> str:
    """Check the last activation; '' is the loss's own."""
    return "" if value == "" else activation_of(value).name


def layers(value: Any) -> tuple[int, ...]:
    """Check the widths of the hidden layers."""
    if not isinstance(value, (list, tuple)) or len(value) > limits.HIDDEN_LAYERS:
        raise ValueError(f"must be a list of at most {limits.HIDDEN_LAYERS} widths")
    return tuple(whole(1, limits.UNITS)(width) for width in value)


def names(value: Any) -> tuple[str, ...]:
    """Check a list of names."""
    if not isinstance(value, (list, tuple)) or len(value) > 100:
        raise ValueError("must be a list of at most 100 names")
    return tuple(text(name) for name in value)


def points(value: Any) -> tuple[tuple[float, float, int], ...]:
    """Check points: x, y and a label of 0 to 7."""
    if not isinstance(value, (list, tuple)) or len(value) > limits.POINTS:
        raise ValueError(f"must be a list of at most {limits.POINTS} points")
    place, label = real(-1e6, 1e6), whole(0, 7)
    return tuple((place(x), place(y), label(c)) for x, y, c in map(_three, value))


def _three(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ValueError("a point must be a list of x, y and a label")
    return value


def rows(value: Any) -> tuple[tuple[tuple[float, ...], float], ...]:
    """Check rows to step through: inputs and a target."""
    if not isinstance(value, (list, tuple)) or len(value) > 8:
        raise ValueError("must be a list of at most 8 rows")
    number, found = real(-1e6, 1e6), []
    for row in value:
        if (
            not isinstance(row, (list, tuple))
            or len(row) != 2
            or not isinstance(row[0], (list, tuple))
        ):
            raise ValueError("a row must be a list of its inputs and its target")
        found.append((tuple(number(x) for x in row[0][:1000]), number(row[1])))
    return tuple(found)


def parameters(value: Any) -> tuple[Any, ...]:
    """Check weights and biases, which are lists of numbers; their shapes are checked later."""
    if not isinstance(value, (list, tuple)) or len(value) > limits.HIDDEN_LAYERS + 1:
        raise ValueError(f"must be a list of at most {limits.HIDDEN_LAYERS + 1} layers")
    number, found = real(-1e6, 1e6), []
    for layer in value:
        if not isinstance(layer, (list, tuple)) or len(layer) != 2:
            raise ValueError("a layer must be a list of its weights and its biases")
        W, b = layer
        if not isinstance(W, (list, tuple)) or not isinstance(b, (list, tuple)):
            raise ValueError("weights and biases must be lists")
        matrix = tuple(tuple(number(x) for x in row) for row in W)
        found.append((matrix, tuple(number(x) for x in b)))
    return tuple(found)


CHECKS: dict[str, Check] = {
    "story": one_of(STORIES),
    "title": text,
    "data": one_of(DATA),
    "n": whole(8, limits.POINTS),
    "noise": real(0, 1),
    "data_seed": whole(0, 2**31),
    "points": points,
    "layers": layers,
    "one_output": truth,
    "activation": hidden_activation,
    "out_activation": out_activation,
    "loss": named("loss", LOSSES),
    "weight_init": lambda value: (
        "auto" if value == "auto" else lookup("weight_init", INITIALISERS, value).name
    ),
    "seed": whole(0, 2**31),
    "solver": named("solver", SOLVERS),
    "learning_rate": real(0, 1000),
    "momentum": real(0, 1),
    "nesterov": truth,
    "batch_size": whole(1, limits.ROWS),
    "l1": real(0, 100),
    "l2": real(0, 100),
    "weight_decay": real(0, 100),
    "dropout": real(0, 1, below=True),
    "input_noise": real(0, 100),
    "label_smoothing": real(0, 1, below=True),
    "clip_norm": real(0, 1e6),
    "patience": whole(0, limits.EPOCHS),
    "epochs": whole(0, 200),
    "speed": real(0, 1e9),
    "rows": rows,
    "parameters": parameters,
    "hidden_panels": names,
    "locked": names,
}

HIDDEN_ACTIVATIONS = tuple(row.name for row in ACTIVATIONS if not row.output_only)
OUT_ACTIVATIONS = tuple(row.name for row in ACTIVATIONS)


# Beginnings --------------------------------------------------------------------------------------

DIGITS = SetUp(epochs=12)
"""What a page begins with: a network that reads 94 of 100 digits, after 60 ms of training."""

PLANE = SetUp(
    story="plane",
    data="moons",
    layers=(6, 6),
    activation="tanh",
    learning_rate=0.1,
    batch_size=16,
    speed=300.0,
)
"""What the plane begins with."""

BY_HAND = {
    "story": "step",
    "data": "xor",
    "layers": [2],
    "activation": "logistic",
    "out_activation": "logistic",
    "loss": "squared_error",
    "one_output": True,
    "learning_rate": 1,
    "momentum": 0,
    "rows": [[[1, -1], 1]],
    "parameters": [[[[0.5, -1], [1, 0.5]], [0, 0.5]], [[[1], [-2]], [0.5]]],
}
"""A network whose numbers can be computed by hand: that of the course's lesson 5."""


def first_set_up(setup: SetUp | None, own: bool) -> SetUp:
    """Return what a page begins with: what is given, or a program's own model, or digits."""
    return setup or (SetUp(data="own", story="train") if own else DIGITS)
