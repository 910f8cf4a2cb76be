"""Answers about Dask arrays and frames: lazy, block by block."""

from __future__ import annotations

from typing import Any

import cloudpickle
import numpy as np

from cmlp.dask.partitions import check_alike, check_array, check_name, check_rows, is_collection
from cmlp.data.labels import label_array
from cmlp.estimators.labels import is_text
from cmlp.model.state import State

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
    check_rows(X)
    method = getattr(type(net), what, None)
    if what.startswith("_") or not callable(method):
        raise ValueError(f"{type(net).__name__} has no method {what!r}")
    if hasattr(X, "columns"):
        import dask.dataframe  # map_partitions of dask 2025.1 hands a delayed model on as it is

        row = X._meta_nonempty.ffill()  # that of a nullable type has a gap in its second row
        meta = _answer(row, net, what).iloc[:0]
        answer, model, like = dask.delayed(_answer), _sent(client, net), meta.to_numpy()
        parts = [answer(part, model, what, like) for part in X.to_delayed()]
        how = {"meta": meta, "divisions": X.divisions, "verify_meta": False}
        return dask.dataframe.from_delayed(parts, **how)
    check_array("X", X, sizes=False)
    like = _answer(np.zeros((1, int(X.shape[1])), X.dtype), net, what)[:0]
    rows, *answers = X.chunks[0], *((n,) for n in like.shape[1:])
    return X.map_blocks(
        _answer, net=_sent(client, net), what=what, like=like, dtype=like.dtype, meta=like,
        chunks=(rows, *answers), drop_axis=[] if answers else [1],
    )  # fmt: skip


def _sent(client: Any, model: Any) -> Any:
    """Return a model for the graph; a large one is sent to the workers apart from it."""
    import dask

    if client is not None and len(cloudpickle.dumps(model)) > LARGE:
        return dask.delayed(client.scatter(model, broadcast=True, hash=False))
    return dask.delayed(model, pure=False, traverse=False)


def _answer(rows: Any, net: Any, what: str, like: Any = None) -> Any:
    """Return the answers about a block; of a frame with its index; `like` about no rows."""
    is_frame = hasattr(rows, "iloc")
    given = rows.to_numpy() if is_frame and isinstance(net, State) else rows  # it reads a matrix
    found = np.asarray(getattr(net, what)(given)) if rows.shape[0] else like
    if not is_frame:
        return found
    import pandas as pd

    return (pd.Series if found.ndim == 1 else pd.DataFrame)(found, index=rows.index)


def score(client: Any, model: Any, X: Any, y: Any, weight: Any = None) -> float:
    """Return the accuracy or R^2 of an estimator on a Dask collection, from sums of its blocks.

    Parameters
    ----------
    y : dask Array or Series, or name of a column
    weight : dask Array or Series, optional
    """
    import dask

    check_rows(X)
    if not hasattr(X, "columns"):
        check_array("X", X, sizes=False)
    elif not is_collection(y):
        check_name(y, list(X.columns))
        X, y = X.drop(columns=[y]), X[y]
    for name, part in {"y": y, "sample_weight": weight}.items():
        if part is not None or name == "y":
            check_alike(name, part, X, sizes=False)
    blocks = [
        [None] * X.npartitions if part is None else np.ravel(part.to_delayed())
        for part in (X, y, weight)
    ]
    sent = _sent(client, model)
    sums = dask.compute(*(dask.delayed(_sums)(*each, sent) for each in zip(*blocks, strict=True)))
    if not any(sums):
        raise ValueError("X has no rows")
    n, errors, mean, squares = (np.array(each) for each in zip(*filter(None, sums), strict=True))
    squares += n[:, None] * (mean - n @ mean / n.sum()) ** 2  # about the mean of all
    whole = squares.sum(axis=0) if model._estimator_type == "regressor" else n.sum()
    wrong = errors.sum(axis=0)  # constants that are missed have a score of 0
    return float(np.mean(np.where(whole, whole - wrong, wrong == 0) / np.where(whole, whole, 1)))


def _sums(X: Any, y: Any, weight: Any, model: Any) -> Any:
    """Return sums over a block: of weights, of squared errors, and of squares about its mean."""
    if len({len(part) for part in (X, y, weight) if part is not None}) > 1:
        raise ValueError(f"a partition of X has {len(X)} rows, and its y {len(y)}")
    if not len(X):
        return None
    y, answer = (label_array("y", each).reshape(len(X), -1) for each in (y, model.predict(X)))
    if is_text(y) != is_text(answer) and y.dtype != object:
        raise ValueError(f"y holds {y.dtype}, and the answers are {answer.dtype}")
    w = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    if model._estimator_type == "classifier":
        y = (answer != y).any(axis=1, keepdims=True)  # an error of 1 for each wrong label
        answer = np.zeros_like(y)
    y, answer = y.astype(np.float64), answer.astype(np.float64)
    mean = w @ y / max(w.sum(), 1e-300)
    return w.sum(), w @ (y - answer) ** 2, mean, w @ (y - mean) ** 2
