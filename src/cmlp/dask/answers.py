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
    model = dask.delayed(net, pure=False, traverse=False)
    if client is not None and sum(one.params.nbytes for one in networks_of(net)) > LARGE:
        model = dask.delayed(client.scatter(net, broadcast=True, hash=False))
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


def networks_of(model: Any) -> list[Any]:
    """Return the networks of a model: itself, its network, or its members."""
    if hasattr(model, "params"):
        return [model]
    return list(getattr(model, "estimators_", None) or [getattr(model, "network_", None)])


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
