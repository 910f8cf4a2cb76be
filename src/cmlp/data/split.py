"""Held-out rows: drawn by the network's generator, or as scikit-learn draws them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array


def split(
    targets: Array, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the rows into training and validation rows.

    Class numbers, (n,), keep their proportions; rows of numbers, (n, n_out), are drawn at random.
    """
    n = len(targets)
    n_val = round(n * fraction)
    if not 0 < n_val < n:
        raise ValueError(
            f"validation_fraction={fraction:g} of {n} rows leaves {n - n_val} to train and "
            f"{n_val} to validate; both need at least one"
        )
    order = rng.permutation(n)
    if targets.ndim == 1:
        # Spread every class evenly over the line of rows, then cut the line into equal steps.
        by_class = order[np.argsort(targets[order], kind="stable")]
        validation = by_class[((np.arange(n_val) + 0.5) * n / n_val).astype(np.int64)]
    else:
        validation = order[:n_val]
    training = np.setdiff1d(order, validation, assume_unique=True)
    return training, np.sort(validation)


def split_like_sklearn(
    targets: Array, fraction: float, stratify: bool, rng: np.random.RandomState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the rows into training and validation rows with scikit-learn's random draws.

    With `stratify` the two classes in `targets` keep their proportions.
    """
    n = len(targets)
    n_val = math.ceil(n * fraction)
    if n_val < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )
    if n_val >= n:
        raise ValueError(
            f"validation_fraction={fraction:g} of {n} rows leaves none to train on; lower it"
        )
    if not stratify:
        order = rng.permutation(n)
        return order[n_val:], order[:n_val]
    labels = targets.ravel()
    counts = np.bincount(labels)
    train_counts = _shares(counts, n - n_val, rng)
    val_counts = _shares(counts - train_counts, n_val, rng)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    train, val = [], []
    for rows, n_train, n_held in zip(by_class, train_counts, val_counts, strict=True):
        rows = rows[rng.permutation(len(rows))]
        train.append(rows[:n_train])
        val.append(rows[n_train : n_train + n_held])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(val))


def _shares(counts: Array, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Divide n rows between classes in proportion to their counts; ties are drawn at random."""
    exact = counts / counts.sum() * n
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    rest = exact - shares
    for size in np.unique(rest)[::-1]:
        left = n - int(shares.sum())
        if not left:
            break
        tied = np.flatnonzero(rest == size)
        shares[rng.choice(tied, min(left, len(tied)), replace=False)] += 1
    return shares
