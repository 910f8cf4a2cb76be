"""Training on a Dask cluster: networks that survive the loss of a worker.

- :func:`train`: one network, on all workers at once
- :class:`DaskMLPClassifier`, :class:`DaskMLPRegressor`: the same as estimators
- :class:`DaskTabularClassifier`, :class:`DaskTabularRegressor`: of tables as people have them
- :func:`predict`: lazy answers about Dask arrays and frames
- :func:`fit_many`: many networks, each in one worker
- :func:`report`: what the workers have: rows, memory, versions
- :class:`TrainingFailed`, :class:`ClusterLost`: what ends a training for good

``pip install 'cmlp[dask]'``; nothing of Dask is imported before it is used.
"""

from typing import Any as _Any

_LAZY = {
    "ClusterLost": "cluster",
    "DaskMLPClassifier": "estimators",
    "DaskMLPRegressor": "estimators",
    "DaskTabularClassifier": "tabular",
    "DaskTabularRegressor": "tabular",
    "TrainingFailed": "cluster",
    "fit_many": "many",
    "predict": "answers",
    "report": "reports",
    "train": "training",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> _Any:
    """Import at its first use what few programs need."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(f"cmlp.dask.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'cmlp.dask' has no attribute {name!r}")
