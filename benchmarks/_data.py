"""Read the tables that networks are compared on, from a folder of ``.npz`` files.

Every file has X, one row per case with categories one-hot, and y: class numbers, or a number to
predict. MNIST has X_train, y_train, X_test and y_test instead. A table's official split is
kept: Adult (the first 16,281 rows are for the test), Letter (all but the first 16,000),
Satimage (all but the first ``n_train_official``), optdigits (``is_test``), MNIST. Of the others a
fifth of the shuffled rows is for the test, always the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ._work import Array


@dataclass(frozen=True)
class Table:
    """Rows to train on and rows to test on, as float64: what NumPy and pandas read from files.

    Columns, and a number to predict, have mean 0 and standard deviation 1 over the training rows;
    one-hot columns are unchanged, and pixels are divided by the largest.
    """

    name: str
    classifies: bool
    X: Array
    y: Array
    X_test: Array
    y_test: Array

    def astype(self, dtype: str) -> Table:
        """Return the table with X, and a number to predict, of another dtype."""
        y, y_test = (y if self.classifies else y.astype(dtype) for y in (self.y, self.y_test))
        X, X_test = self.X.astype(dtype), self.X_test.astype(dtype)
        return Table(self.name, self.classifies, X, y, X_test, y_test)


@dataclass(frozen=True)
class Source:
    """The file of a table, and how to read it."""

    file: str
    classifies: bool
    is_test: Callable[[Mapping[str, Array]], Array]
    pixels: bool = False


def _after(n: int) -> Callable[[Mapping[str, Array]], Array]:
    return lambda arrays: np.arange(len(arrays["y"])) >= n


def _fifth(arrays: Mapping[str, Array]) -> Array:
    n = len(arrays["y"])
    return np.random.default_rng(0).permutation(n) < n // 5


SOURCES = {
    "Letter": Source("letter.npz", True, _after(16_000)),
    "Satimage": Source(
        "satimage.npz", True, lambda arrays: _after(int(arrays["n_train_official"]))(arrays)
    ),
    "Adult": Source("adult.npz", True, lambda arrays: ~_after(16_281)(arrays)),
    "optdigits": Source("optdigits.npz", True, lambda arrays: arrays["is_test"], pixels=True),
    "California": Source("california_housing.npz", False, _fifth),
    "Diamonds": Source("diamonds.npz", False, _fifth),
    "Wine quality": Source("wine_quality.npz", False, _fifth),
    "MNIST": Source("mnist.npz", True, lambda arrays: arrays["is_test"], pixels=True),
}


def missing(folder: str, names: list[str]) -> list[str]:
    """Return the files that a folder lacks."""
    return [
        SOURCES[name].file for name in names if not (Path(folder) / SOURCES[name].file).exists()
    ]


def load(folder: str, name: str, rows: int | None = None) -> Table:
    """Read a table.

    Parameters
    ----------
    folder : str
        Folder that has its file.
    name : str
        One of `SOURCES`.
    rows : int, optional
        Limit for the training rows and for the test rows.
    """
    source = SOURCES[name]
    with np.load(Path(folder) / source.file, allow_pickle=False) as file:
        arrays: dict[str, Array] = {key: file[key] for key in file.files}
    if "X_train" in arrays:
        arrays = _joined(arrays)
    is_test = source.is_test(arrays)
    train = np.random.default_rng(1).permutation(np.flatnonzero(~is_test))  # some are sorted
    parts = train[:rows], np.flatnonzero(is_test)[:rows]
    X, X_test = (arrays["X"][part].reshape(len(part), -1).astype(np.float64) for part in parts)
    y, y_test = (arrays["y"][part] for part in parts)
    if source.pixels:
        largest = X.max()
        X /= largest
        X_test /= largest
    else:
        X, X_test = _standardised(X, X_test)
    if not source.classifies:
        y, y_test = (np.ravel(y) for y in _standardised(y[:, None], y_test[:, None]))
    return Table(name, source.classifies, X, y, X_test, y_test)


def _joined(arrays: dict[str, Array]) -> dict[str, Array]:
    """Join the training and test parts of a file into one table."""
    parts = ("train", "test")
    joined = {key: np.concatenate([arrays[f"{key}_{part}"] for part in parts]) for key in "Xy"}
    return {**joined, "is_test": np.arange(len(joined["y"])) >= len(arrays["y_train"])}


def _standardised(train: Array, test: Array) -> tuple[Array, Array]:
    """Scale columns to mean 0 and deviation 1 on the training rows, except those of 0 and 1."""
    one_hot = ((train == 0) | (train == 1)).all(axis=0)
    mean = np.where(one_hot, 0, train.mean(axis=0, dtype=np.float64))
    deviation = np.where(one_hot, 1, train.std(axis=0, dtype=np.float64))
    deviation[deviation == 0] = 1
    return (train - mean) / deviation, (test - mean) / deviation
