"""From a set-up to rows, a network and a run."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.vocabulary import LOSSES, lookup
from cmlp.data.rows import Data
from cmlp.datasets import Digits, load_digits
from cmlp.network import Network
from cmlp.page import limits
from cmlp.page.points import HELD_OUT, RECIPES, held_out, in_box
from cmlp.page.run import Run
from cmlp.page.set_up import SetUp, SetUpError


@dataclass(frozen=True)
class Rows:
    """Rows to train on, and rows that are held out.

    Attributes
    ----------
    kind : str
        'digits', 'plane' (two columns) or 'rows'.
    y, y_val : array
        Numbers of classes, (n,); or numbers, (n, n_out), of a regression.
    classes : list of str
        Empty for a regression.
    black : float
        What a pixel of digits is that is all ink.
    """

    kind: str
    X: Array
    y: Array
    X_val: Array | None
    y_val: Array | None
    classes: list[str]
    black: float = 1.0

    def held_out_or_all(self) -> tuple[Array, Array]:
        """Return the rows that are held out, if there are any, and their targets."""
        if self.X_val is None or self.y_val is None:
            return self.X, self.y
        return self.X_val, self.y_val


@dataclass(frozen=True)
class Own:
    """A model and rows that a program passed to :func:`cmlp.play`.

    Attributes
    ----------
    classes : tuple of str
        Names of the outputs, where the network does not know them.
    """

    net: Network
    X: Any
    y: Any
    X_val: Any = None
    y_val: Any = None
    classes: tuple[str, ...] = ()


@functools.cache
def digits() -> Digits:
    """Return the digits, read once."""
    return load_digits()


def rows_of(setup: SetUp, own: Own | None) -> Rows:
    """Return the rows of a set-up.

    Raises
    ------
    SetUpError
        If there are too few points, or of one class.
    """
    if setup.data == "own":
        return own_rows(own)
    if setup.data == "digits":
        found, names = digits(), [str(n) for n in range(10)]
        scale = np.float32(16)
        return Rows(
            "digits",
            found.X_train / scale,
            found.y_train,
            found.X_test / scale,
            found.y_test,
            names,
        )
    if setup.data == "points":
        X, y = own_points(setup)
    else:
        X, y = RECIPES[setup.data](setup.n, setup.noise, np.random.default_rng(setup.data_seed))
    held = held_out(len(X))
    if len(X) < 2 * HELD_OUT:
        held[:] = False
    names = [str(n) for n in range(max(2, int(y.max()) + 1))]
    X = X.astype(np.float32)
    if not held.any():
        return Rows("plane", X, y, None, None, names)
    return Rows("plane", X[~held], y[~held], X[held], y[held], names)


def own_points(setup: SetUp) -> tuple[Array, Array]:
    """Return the points that the user made, scaled into the box."""
    if not setup.points:
        raise SetUpError("points", "there are none yet: click into the plane, or paste x,y,label")
    table = np.array(setup.points, np.float64)
    return in_box(table[:, :2]), table[:, 2].astype(np.int64)


def own_rows(own: Own | None) -> Rows:
    """Return the rows of a program's, its labels as numbers of classes."""
    if own is None:
        raise SetUpError("data", "'own' is for cmlp.play(model, X, y); choose other data")
    net = copy.deepcopy(own.net)
    data = net.encode_rows(own.X, own.y)
    validation = None if own.X_val is None else net.encode_rows(own.X_val, own.y_val, suffix="_val")
    n_in = net.sizes[0]
    known = () if net.classes is None else net.classes
    classes = [*own.classes] or [str(label) for label in known]
    if not classes and net.architecture.classifies:
        classes = [str(n) for n in range(net.sizes[-1])]
    if data.targets.ndim == 2 and data.targets.shape[1] > 1 and not _one_hot(data.targets):
        classes = []  # several labels of a row
    X = np.asarray(data.X, np.float32)
    black = float(X.max(initial=0))
    kind = "plane" if n_in == 2 and classes else "rows"
    if n_in == 64 and len(classes) == 10 and X.min(initial=0) >= 0 and black:
        kind = "digits"

    def labels(data: Data) -> Array:
        targets = data.targets
        if targets.ndim == 1 or not classes:
            return targets
        return targets.argmax(axis=1) if targets.shape[1] > 1 else targets[:, 0].astype(np.int64)

    if validation is None:
        return Rows(kind, X, labels(data), None, None, classes, black)
    X_val = np.asarray(validation.X, np.float32)
    return Rows(kind, X, labels(data), X_val, labels(validation), classes, black)


def _one_hot(targets: Array) -> bool:
    return bool((targets.max(axis=1) == 1).all() and (targets != 0).sum(axis=1).max() == 1)


# The network --------------------------------------------------------------------------------------


def targets_of(setup: SetUp, y: Array, n_out: int) -> Array:
    """Return labels as the loss takes them: as they are, or as one number per output."""
    if setup.loss == "categorical_crossentropy" or (
        setup.loss == "binary_crossentropy" and n_out == 1
    ):
        return y
    if n_out == 1:
        return y[:, None].astype(np.float32)
    one_hot: Array = (y[:, None] == np.arange(n_out)).astype(np.float32)
    return one_hot


def network_of(setup: SetUp, rows: Rows) -> Network:
    """Return the untrained network of a set-up.

    Raises
    ------
    SetUpError
        If its parts do not go together.
    """
    n_out = len(rows.classes)
    if setup.one_output:
        if n_out != 2:
            raise SetUpError("one_output", f"is for two classes; there are {n_out}")
        n_out = 1
    if n_out == 1 and setup.loss == "categorical_crossentropy":
        raise SetUpError("loss", "categorical cross-entropy needs an output for each class")
    sizes = [rows.X.shape[1], *setup.layers, n_out]
    out = setup.out_activation or lookup("loss", LOSSES, setup.loss).out_activation
    try:
        net = Network(sizes, setup.activation, out, setup.loss, setup.weight_init, seed=setup.seed)
    except (TypeError, ValueError) as error:
        raise SetUpError("loss", str(error)) from None
    if setup.parameters:
        _set_parameters(net, setup)
    return net


def _set_parameters(net: Network, setup: SetUp) -> None:
    for number, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        try:
            W[...], b[...] = setup.parameters[number]
        except (IndexError, ValueError):
            expected = f"layer {number + 1} needs weights {W.shape} and biases {b.shape}"
            raise SetUpError("parameters", expected) from None


def is_plain(net: Network) -> bool:
    """Whether each z is a W + b, as the cards of the page write it."""
    about = net.architecture
    return not (about.inputs or about.normalization or about.parametric_activation)


def described(setup: SetUp, net: Network) -> SetUp:
    """Return a set-up whose network is that of a program, where it is one."""
    if setup.data != "own":
        return setup
    hidden, out = net.activations[:-1], net.activations[-1]
    return replace(
        setup,
        layers=tuple(net.sizes[1:-1]),
        activation=hidden[0] if hidden else setup.activation,
        out_activation=out,
        loss=net.loss_name,
    )


def new_run(setup: SetUp, rows: Rows, own: Own | None = None) -> Run:
    """Begin the run of a set-up, and train its first epochs.

    Raises
    ------
    SetUpError
    DivergenceError
        If the first epochs diverge.
    """
    held_out = None
    if setup.data == "own" and own is not None:
        net = copy.deepcopy(own.net)
        data = net.encode_rows(own.X, own.y)
        if own.X_val is not None:
            held_out = net.encode_rows(own.X_val, own.y_val, suffix="_val")
    else:
        net = network_of(setup, rows)
        n_out = net.sizes[-1]
        data = net.encode_rows(rows.X, targets_of(setup, rows.y, n_out))
        if rows.X_val is not None and rows.y_val is not None:
            held_out = net.encode_rows(rows.X_val, targets_of(setup, rows.y_val, n_out))
    try:
        run = Run(net, data, held_out, setup.recipe(), setup.batch_size, bool(rows.classes))
    except (TypeError, ValueError) as error:
        raise SetUpError(str(error).split(" ")[0], str(error)) from None
    if setup.epochs * run.n_rows * net.n_params > limits.FIRST_PRODUCTS:
        raise SetUpError("epochs", "are too many for this network before the first picture")
    run.advance(setup.epochs * run.batches_left)
    return run
