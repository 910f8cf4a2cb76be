"""What several test files need: small data, messages, other processes."""

import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

import cmlp

DTYPES = ("float32", "float64")


def covering(*columns):
    """Return rows that hold every pair of values of two columns, far fewer than the product.

    Greedy: of all rows, the one with the most new pairs comes next (the first of equals).
    """
    columns = [list(column) for column in columns]
    rows = np.array(list(product(*(range(len(column)) for column in columns))), int)
    rows = rows.reshape(-1, len(columns))
    numbers, begin = [], 0  # of the pairs that each row holds
    for (i, one), (j, other) in combinations(enumerate(columns), 2):
        numbers.append(begin + rows[:, i] * len(other) + rows[:, j])
        begin += len(one) * len(other)
    numbers, missing, chosen = np.stack(numbers, axis=-1), np.zeros(begin, bool), []
    missing[numbers] = True
    while missing.any():
        best = missing[numbers].sum(axis=1).argmax()
        missing[numbers[best]] = False
        chosen.append(tuple(column[at] for column, at in zip(columns, rows[best], strict=True)))
    return chosen


def alternating(cores, cases):
    """Return each case on each core in one number type: the next case, and core, has the other."""
    return [
        (core, DTYPES[(i + j) % 2], case)
        for i, core in enumerate(cores)
        for j, case in enumerate(cases)
    ]


def dealt(cores, rows):
    """Return each row on one core in one number type: where it makes the most new pairs."""
    places, seen, found = list(product(cores, DTYPES)), set(), []
    for row in rows if places else ():  # an installation may have no compiled core
        pairs = {place: set(product(place, enumerate(row))) - seen for place in places}
        place = max(places, key=lambda place: len(pairs[place]))
        places.append(places.pop(places.index(place)))  # of equals, the one that waits longest
        seen |= pairs[place]
        found.append((*place, *row))
    return found


def blobs(n=60, n_in=3, n_classes=3, seed=0):
    """Rows around one centre per class, and the numbers of their classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n_classes, n_in))[y] * 3 + rng.normal(size=(n, n_in)) * 0.3, y


def waves(n=60, n_in=3, n_out=1, seed=0):
    """Rows, and smooth functions of them."""
    X = np.random.default_rng(seed).normal(size=(n, n_in))
    return X, np.sin(X[:, :1] + np.arange(n_out)) + 0.5 * X[:, 1:2]


def squared_error(outputs, targets):
    """The built-in loss, as a user would write it."""
    error = outputs - targets
    return 0.5 * (error**2).sum(axis=1).mean(), error / len(error)


@contextmanager
def refused(kind, *parts):
    """Expect an error whose message holds all these parts."""
    with pytest.raises(kind) as caught:
        yield
    missing = [part for part in parts if str(part) not in str(caught.value)]
    assert not missing, f"{missing} not in {caught.value}"


def python_process(*arguments, **environment):
    """Start another interpreter with the same cmlp; its two streams come as one text."""
    environment = {"PYTHONPATH": str(Path(cmlp.__file__).parents[1]), **environment}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def python_output(*arguments, **environment):
    """Run another interpreter to its end; return its exit code and its text."""
    process = python_process(*arguments, **environment)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def data_for(kind):
    """Small data for an estimator: classes or numbers."""
    return blobs() if kind is cmlp.MLPClassifier else (waves()[0], waves()[1][:, 0])


def fit_quietly(estimator, *arguments, **more):
    """Fit without a word about epochs that were too few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
        return estimator.fit(*arguments, **more)
