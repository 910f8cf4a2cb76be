"""cmlp: multilayer perceptrons on the CPU.

The map:

- :class:`MLPClassifier`, :class:`MLPRegressor`: scikit-learn's estimators, without scikit-learn
- :class:`Network`: the network; ``fit``, ``predict``, ``gradients``, ``trace_step``, ``save``
- :func:`load`: a network from its file
- :mod:`cmlp.schedules`: learning rates over time
- :func:`diagnose`: what is wrong with a training, in plain words
- :mod:`cmlp.plot`: pictures of trainings and networks, with matplotlib
- :func:`load_digits`: real data to begin with
- :func:`core_info`, :func:`use_core`: which compiled core runs, and how to take another one

Below that, for readers: ``network`` (layers and parameters), ``training`` (the fit loop),
``_reference`` (the arithmetic in NumPy: start there to learn backpropagation), ``_core`` (the same,
compiled), ``_dispatch`` (the choice between them), ``_spec`` (the names of everything).
"""

from typing import Any as _Any

from ._dispatch import CoreInfo, core_info, use_core
from .datasets import load_digits
from .network import Gradients, Network, Propagation, load
from .training import DivergenceError, History, TrainingState

__version__ = "0.1.0"

__all__ = [
    "ConvergenceWarning",
    "CoreInfo",
    "DataConversionWarning",
    "Diagnosis",
    "DivergenceError",
    "Finding",
    "GradientCheck",
    "Gradients",
    "History",
    "InvalidParameterError",
    "MLPClassifier",
    "MLPRegressor",
    "ModelFileError",
    "Network",
    "NotFittedError",
    "Propagation",
    "Trace",
    "TrainingState",
    "UndefinedMetricWarning",
    "core_info",
    "diagnose",
    "load",
    "load_digits",
    "plot",
    "schedules",
    "use_core",
]

_LAZY = {
    "ConvergenceWarning": "_sklearn",
    "DataConversionWarning": "_sklearn",
    "Diagnosis": "diagnosis",
    "Finding": "diagnosis",
    "GradientCheck": "tracing",
    "InvalidParameterError": "_sklearn",
    "MLPClassifier": "estimators",
    "MLPRegressor": "estimators",
    "ModelFileError": "io",
    "NotFittedError": "_sklearn",
    "Trace": "tracing",
    "UndefinedMetricWarning": "_sklearn",
    "diagnose": "diagnosis",
}


def __getattr__(name: str) -> _Any:
    """Import what a script that only predicts does not need when it is asked for."""
    import importlib

    if name in ("plot", "schedules"):
        return importlib.import_module(f"cmlp.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(f"cmlp.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'cmlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
