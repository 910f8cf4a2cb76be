"""cmlp: multilayer perceptrons on the CPU.

The map:

- :class:`TabularClassifier`, :class:`TabularRegressor`: tables with text, gaps and dates
- :class:`MLPClassifier`, :class:`MLPRegressor`: scikit-learn's estimators, without scikit-learn
- :class:`Network`: the network; ``fit``, ``predict``, ``gradients``, ``trace_step``, ``save``
- :func:`load`: a network, or an estimator for tables, from its file
- :mod:`cmlp.schedules`: learning rates over time
- :func:`diagnose`: what is wrong with a training, in plain words
- :func:`attributions`: how much each feature adds to an answer
- :mod:`cmlp.plot`: pictures of trainings and networks, with matplotlib
- :func:`load_digits`: real data to begin with
- :func:`core_info`, :func:`use_core`: which compiled core runs, and how to take another one

Below that, for readers: ``network`` (what users do with a network), ``training.loop`` (the epochs),
``core.reference`` (the arithmetic in NumPy: start there to learn backpropagation), ``core._core``
(the same, compiled), ``core.dispatch`` (the choice between them), ``core.vocabulary`` (the names of
everything).
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from cmlp.core.dispatch import CoreInfo, core_info, use_core
from cmlp.datasets import load_digits
from cmlp.model.history import History
from cmlp.model.inputs import Inputs
from cmlp.model.parameters import Gradients, Propagation
from cmlp.network import Network

if _TYPE_CHECKING:  # the others are imported when they are used: see __getattr__
    from cmlp import plot, schedules
    from cmlp.core.errors import (
        ConvergenceWarning,
        DataConversionWarning,
        InvalidParameterError,
        NotFittedError,
        UndefinedMetricWarning,
    )
    from cmlp.diagnosis.finding import Finding
    from cmlp.diagnosis.report import Diagnosis, diagnose
    from cmlp.estimators.attributions import attributions
    from cmlp.estimators.classifier import MLPClassifier
    from cmlp.estimators.loading import load
    from cmlp.estimators.regressor import MLPRegressor
    from cmlp.estimators.tabular.classifier import TabularClassifier
    from cmlp.estimators.tabular.regressor import TabularRegressor
    from cmlp.explain.attributions import Attributions
    from cmlp.explain.gradient_check import GradientCheck
    from cmlp.explain.trace import Trace
    from cmlp.formats.safetensors import ModelFileError
    from cmlp.training.callbacks import TrainingState
    from cmlp.training.divergence import DivergenceError

__version__ = "0.1.0"

__all__ = [
    "Attributions",
    "ConvergenceWarning",
    "CoreInfo",
    "DataConversionWarning",
    "Diagnosis",
    "DivergenceError",
    "Finding",
    "GradientCheck",
    "Gradients",
    "History",
    "Inputs",
    "InvalidParameterError",
    "MLPClassifier",
    "MLPRegressor",
    "ModelFileError",
    "Network",
    "NotFittedError",
    "Propagation",
    "TabularClassifier",
    "TabularRegressor",
    "Trace",
    "TrainingState",
    "UndefinedMetricWarning",
    "attributions",
    "core_info",
    "diagnose",
    "load",
    "load_digits",
    "plot",
    "schedules",
    "use_core",
]

_LAZY = {
    "Attributions": "explain.attributions",
    "ConvergenceWarning": "core.errors",
    "DataConversionWarning": "core.errors",
    "Diagnosis": "diagnosis.report",
    "DivergenceError": "training.divergence",
    "Finding": "diagnosis.finding",
    "GradientCheck": "explain.gradient_check",
    "InvalidParameterError": "core.errors",
    "MLPClassifier": "estimators.classifier",
    "MLPRegressor": "estimators.regressor",
    "ModelFileError": "formats.safetensors",
    "NotFittedError": "core.errors",
    "TabularClassifier": "estimators.tabular.classifier",
    "TabularRegressor": "estimators.tabular.regressor",
    "Trace": "explain.trace",
    "TrainingState": "training.callbacks",
    "UndefinedMetricWarning": "core.errors",
    "attributions": "estimators.attributions",
    "diagnose": "diagnosis.report",
    "load": "estimators.loading",
}


def __getattr__(name: str) -> _Any:
    """Import at its first use what a script that only predicts does not need."""
    import importlib

    if name in ("plot", "schedules"):
        return importlib.import_module(f"cmlp.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(f"cmlp.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'cmlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
