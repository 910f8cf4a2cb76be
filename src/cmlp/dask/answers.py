"""Answers about Dask arrays and frames: lazy, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGE = 1 << 23
"""Bytes from which a network is sent to the workers by itself, and not with the graph."""


def predict(client: Any, net: Any, X: Any, what: str = "predict") -> Any:
    """Return the answers about the rows of a Dask collection, which are not computed yet.

    Every block of X becomes a block of answers; the network is sent once. Many small blocks take
    Dask's time for each: ``X.rechunk({0: 100_000})`` before.

    Parameters
    ----------
    client : distributed.Client or None
        Needed for networks above 8 MB only.
    net : Network or estimator
    X : dask Array, (n, n_features), or DataFrame
    what : str
        The method that answers: 'predict', 'predict_classes', 'predict_proba', 'transform' ...

    Returns
    -------
    dask Array, Series or DataFrame
        Of arrays with the same chunks of rows, known or not; of frames with their index.

    Raises
    ------
    TypeError, ValueError
        For an X that is none of Dask's, or is cut by columns.
    """
    import dask

    from cmlp.dask.partitions import check_array, is_collection

    if not is_collection(X):
        raise TypeError(f"X must be an array or a frame of Dask, not {type(X).__name__}")
    method = getattr(type(net), what, None)
    if what.startswith("_") or not callable(method):
        raise ValueError(f"{type(net).__name__} has no method {what!r}")
    frame = hasattr(X, "columns")
    if not frame:
        check_array("X", X, 2, sizes=False)
    sample = X._meta_nonempty if frame else np.zeros((1, int(X.shape[1])), X.dtype)
    like = np.asarray(getattr(net, what)(sample))
    model = _sent(client, net)
    if frame:
        import dask.dataframe

        columns = None if like.ndim == 1 else list(range(like.shape[1]))
        meta = _framed(like[:0], X._meta.index[:0], columns)
        parts = [dask.delayed(_answer_frame)(part, model, what, columns) for part in X.to_delayed()]
        return dask.dataframe.from_delayed(
            parts, meta=meta, divisions=X.divisions, verify_meta=False
        )
    chunks = (X.chunks[0], *((n,) for n in like.shape[1:]))
    return X.map_blocks(
        _answer, net=model, what=what, dtype=like.dtype, chunks=chunks, meta=like[:0],
        drop_axis=[1] if like.ndim == 1 else [],
    )  # fmt: skip


def _sent(client: Any, model: Any) -> Any:
    """Return a model for the graph; a large one is sent to the workers apart from it."""
    import dask

    if hasattr(model, "params"):
        networks = [model]
    else:
        names = ("networks_", "estimators_")
        networks = next(filter(None, (getattr(model, n, None) for n in names)), []) or [
            model.network_
        ]
    if client is not None and sum(one.params.nbytes for one in networks) > LARGE:
        return dask.delayed(client.scatter(model, broadcast=True, hash=False))
    return dask.delayed(model, pure=False, traverse=False)


def score(client: Any, model: Any, X: Any, y: Any, weight: Any = None) -> float:
    """Return the accuracy or R^2 of an estimator on a Dask collection, from sums of its blocks.

    Parameters
    ----------
    y : dask Array or Series, or name of a column
    weight : dask Array or Series, optional
    """
    import dask

    parts = [
        [None] * X.npartitions if part is None or isinstance(part, str) else _blocks(part)
        for part in (X, y, weight)
    ]
    model, column = _sent(client, model), y if isinstance(y, str) else None
    sums = [dask.delayed(_sums)(*each, model, column) for each in zip(*parts, strict=True)]
    total = Sums()
    for found in dask.compute(*sums):
        total.add(found)
    return total.score


def _blocks(part: Any) -> Any:
    return np.ravel(part.to_delayed())


class Sums:
    """Sums of rows: of weights, of squared errors, and of squares about the mean of targets.

    Of labels an error is 0 or 1, and nothing is known about a mean.
    """

    weight, errors, mean, squares = 0.0, np.zeros(1), np.zeros(1), None

    def add(self, other: Sums) -> None:
        """Add other rows, by Chan's formula."""
        if not other.weight:
            return
        total, gap = self.weight + other.weight, other.mean - self.mean
        if other.squares is not None:
            before = 0.0 if self.squares is None else self.squares
            self.squares = before + other.squares + gap * gap * self.weight * other.weight / total
        self.mean = self.mean + gap * other.weight / total
        self.errors, self.weight = self.errors + other.errors, total

    @property
    def score(self) -> float:
        """The accuracy; or R^2, the mean over targets, 1 or 0 for those that are constant."""
        if self.squares is None:
            return float(1 - self.errors[0] / self.weight)
        constant = self.squares == 0
        share = self.errors / np.where(constant, 1.0, self.squares)
        return float(np.where(constant, self.errors == 0, 1 - share).mean())


def _sums(X: Any, y: Any, weight: Any, model: Any, column: str | None) -> Sums:
    """Return the sums of a block; runs in a worker."""
    found = Sums()
    if column is not None:
        X, y = X.drop(columns=[column]), X[column]
    if not len(X):
        return found
    y, answer = np.asarray(y), np.asarray(model.predict(X))
    w = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    found.weight = w.sum()
    if model._estimator_type == "classifier":
        wrong = answer != y
        found.errors = np.array([w @ (wrong if wrong.ndim == 1 else wrong.any(axis=1))])
        return found
    y, answer = (np.asarray(each, np.float64).reshape(len(y), -1) for each in (y, answer))
    found.mean = w @ y / max(found.weight, 1e-300)
    found.errors, found.squares = w @ (y - answer) ** 2, w @ (y - found.mean) ** 2
    return found


def _answer(block: Any, net: Any, what: str) -> Any:
    return np.asarray(getattr(net, what)(block))


def _framed(answer: Any, index: Any, columns: list[int] | None) -> Any:
    import pandas as pd

    if columns is None:
        return pd.Series(answer, index=index)
    return pd.DataFrame(answer, index=index, columns=columns)


def _answer_frame(rows: Any, net: Any, what: str, columns: list[int] | None) -> Any:
    if not len(rows):
        rows, index = None, rows.index
        n = (0,) if columns is None else (0, len(columns))
        return _framed(np.empty(n), index, columns)
    given = rows if hasattr(net, "feature_names_in_") or not hasattr(net, "params") else (
        rows.to_numpy()
    )  # fmt: skip
    return _framed(_answer(given, net, what), rows.index, columns)
