"""``cmlp demo``: handwritten digits, from the data to a trained, tested and saved network.

The recipe was chosen by cross-validation over the training writers alone (five blocks of rows,
which are ordered by writer); the test digits are used once, at the end.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.cli.report import confusion_table
from cmlp.core import dispatch
from cmlp.core.formatting import percent, significant
from cmlp.datasets import Digits, load_digits
from cmlp.network import Network, load

HIDDEN = (300, 100)


WATCHED = 382
"""Rows at the end of the training set, by other writers: for the progress lines only."""


RECIPE: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 64,
    "solver": "sgd",
    "learning_rate": 0.12,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-4,
    "dropout": 0.2,
    "input_noise": 0.1,
    "label_smoothing": 0.1,
    "schedule": "one_cycle",
}


SHADES = " .:-=+*#%@"


def pixels(X: NDArray[Any]) -> NDArray[Any]:
    """Scale pixels from 0..16 to 0..1."""
    return X * np.float32(1 / 16)


def network(seed: int) -> Network:
    """Return the demo's network, untrained."""
    return Network([64, *HIDDEN, 10], "relu", seed=seed)


def train(net: Network, digits: Digits, **changes: Any) -> None:
    """Train on all but the last writers, who are the validation rows."""
    X = pixels(digits.X_train)
    net.fit(
        X[:-WATCHED],
        digits.y_train[:-WATCHED],
        X_val=X[-WATCHED:],
        y_val=digits.y_train[-WATCHED:],
        **{**RECIPE, **changes},
    )


def run(
    *, seed: int = 0, epochs: int | None = None, out: str | os.PathLike[str] | None = None
) -> int:
    """Train, test, save and load again, and print each step.

    Parameters
    ----------
    seed : int
    epochs : int, optional
        By default the recipe's.
    out : path, optional
        Where to keep the model; by default it is saved in a temporary folder and removed.

    Returns
    -------
    int
        Exit code: 0; 1 if the loaded model does not predict what the saved one did; 130 after
        Ctrl-C.
    """
    start = time.perf_counter()
    digits = load_digits()
    net = network(seed)
    print(f"Core: {dispatch.describe(dispatch.core.name)}")
    print(
        f"Data: {len(digits.X_train):,} handwritten digits to learn from, {len(digits.X_test):,} "
        f"by other writers for the test\n\n{net.summary()}\n"
    )
    train(net, digits, epochs=epochs or RECIPE["epochs"], verbose=2)
    if net.history.stopped == "interrupted":
        return 130
    trained = time.perf_counter() - start

    X_test = pixels(digits.X_test)
    read = net.predict_classes(X_test)
    right = float(np.mean(read == digits.y_test))
    print(f"\nTest: {percent(right, 2)}% of {len(read):,} digits by unseen writers read right\n")
    print(confusion_table(digits.y_test, read, np.arange(10)))
    wrong = np.flatnonzero(read != digits.y_test)[:4]
    if len(wrong):
        print(f"\nRead wrongly, for example:\n\n{drawings(digits, wrong, read)}")
    same = save_and_load(net, X_test, out)
    print(f"{significant(trained)} s to train, {significant(time.perf_counter() - start)} s in all")
    return 0 if same else 1


def drawings(digits: Digits, which: NDArray[Any], read: NDArray[Any]) -> str:
    """Draw test digits side by side, each pixel two characters wide."""
    captions, pictures = [], []
    for row in which:
        captions.append(f"a {digits.y_test[row]}, read as {read[row]}")
        image = digits.X_test[row].reshape(8, 8)
        pictures.append(
            ["".join(SHADES[value * 9 // 16] * 2 for value in line.tolist()) for line in image]
        )
    lines = ["   ".join(f"{caption:16}" for caption in captions)]
    lines += ["   ".join(parts) for parts in zip(*pictures, strict=True)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def save_and_load(net: Network, X: NDArray[Any], out: str | os.PathLike[str] | None) -> bool:
    """Save the network, load it again, and return whether it predicts the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(out or Path(folder, "digits.cmlp"))
        net.save(path)
        same = bool(np.array_equal(load(path).predict(X), net.predict(X)))
        where = str(path) if out else "a file"
        size = path.stat().st_size / 1000
    verdict = "predicts the same" if same else "PREDICTS SOMETHING ELSE"
    print(f"Saved to {where} ({size:.0f} kB) and loaded again: the copy {verdict}")
    return same
