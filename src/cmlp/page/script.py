"""A set-up as a script that repeats its run."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from cmlp.page.points import HELD_OUT, HELD_OUT_SEED, RECIPES, in_box
from cmlp.page.set_up import SetUp

DIGITS = """\
digits = cmlp.load_digits()
X, y = digits.X_train / np.float32(16), digits.y_train
X_val, y_val = digits.X_test / np.float32(16), digits.y_test
"""

HOLD_OUT = f"""\
X = X.astype(np.float32)
held = np.random.default_rng({HELD_OUT_SEED}).permutation(len(X)) % {HELD_OUT} == {HELD_OUT - 1}
X, y, X_val, y_val = X[~held], y[~held], X[held], y[held]
"""


def plain_source(function: Any) -> str:
    """Return a function's source without types."""
    head, rest = inspect.getsource(function).split("\n", 1)
    head = re.sub(r" -> [^:]+:", ":", re.sub(r": [\w.]+(?=[,)])", "", head))
    return f"{head}\n{rest}\n"


def script_of(setup: SetUp, n_in: int, n_out: int, epochs: int, changed: bool) -> str:
    """Return Python that trains the same network for so many epochs.

    Parameters
    ----------
    changed : bool
        Whether the recipe was changed during the run, which the script does not repeat.
    """
    parts = [
        '"""A run of `cmlp play`."""\n\n',
        "import numpy as np\n\nimport cmlp\n",
    ]
    if setup.data in RECIPES:
        parts.append("\n\n" + plain_source(RECIPES[setup.data]))
        rng = f"np.random.default_rng({setup.data_seed})"
        parts.append(f"\nX, y = {setup.data}({setup.n}, {setup.noise!r}, {rng})\n{HOLD_OUT}")
    elif setup.data == "points":
        parts.append("\n\n" + plain_source(in_box))
        parts.append(f"\npoints = np.array({json.dumps(setup.points)}, float)\n")
        few = len(setup.points) < 2 * HELD_OUT
        parts.append("X, y = in_box(points[:, :2]), points[:, 2].astype(int)\n")
        parts.append("X = X.astype(np.float32)\n" if few else HOLD_OUT)
    elif setup.data == "own":
        parts.append("# X, y: the rows that were passed to cmlp.play\n")
    else:
        parts.append(DIGITS)
    held_out = not (setup.data == "points" and len(setup.points) < 2 * HELD_OUT)
    parts.append(_targets(setup, n_out, held_out))
    parts.append(_network(setup, n_in, n_out))
    if changed:
        parts.append("# The recipe was changed during the run; this one is the last.\n")
    parts.append(_fit(setup, epochs, held_out))
    parts.append('print(history["epoch"][-1], history["loss"][-1])\n')
    return "".join(parts)


def _targets(setup: SetUp, n_out: int, held_out: bool) -> str:
    names = ["y", "y_val"] if held_out else ["y"]
    if setup.loss == "categorical_crossentropy" or (
        setup.loss == "binary_crossentropy" and n_out == 1
    ):
        return ""
    form = "{0}[:, None]" if n_out == 1 else f"({{0}}[:, None] == np.arange({n_out}))"
    return "".join(f"{name} = {form.format(name)}.astype(np.float32)\n" for name in names)


def _network(setup: SetUp, n_in: int, n_out: int) -> str:
    sizes = [n_in, *setup.layers, n_out]
    words = [repr(sizes), repr(setup.activation), f"loss={setup.loss!r}"]
    if setup.out_activation:
        words.append(f"out_activation={setup.out_activation!r}")
    if setup.weight_init != "auto":
        words.append(f"weight_init={setup.weight_init!r}")
    lines = [f"net = cmlp.Network({', '.join(words)}, seed={setup.seed})\n"]
    for number, (W, b) in enumerate(setup.parameters):
        lines.append(f"net.weights[{number}][...] = {[list(row) for row in W]}\n")
        lines.append(f"net.biases[{number}][...] = {list(b)}\n")
    return "".join(lines)


def _fit(setup: SetUp, epochs: int, held_out: bool) -> str:
    plain = SetUp().recipe_arguments() | {"learning_rate": 0.01}
    given: dict[str, Any] = {"epochs": epochs, "batch_size": setup.batch_size}
    given |= {k: v for k, v in setup.recipe_arguments().items() if v != plain[k]}
    words = [f"{name}={value!r}" for name, value in given.items()]
    words += ["X_val=X_val", "y_val=y_val"] if held_out else []
    return f"history = net.fit(\n    X, y, {', '.join(words)}, n_threads=1\n)\n"
