"""cmlp: multilayer perceptrons on the CPU.

The map:

- :class:`TabularClassifier`, :class:`TabularRegressor`: tables with text, gaps and dates
- :class:`MLPClassifier`, :class:`MLPRegressor`: scikit-learn's estimators, without scikit-learn
- :class:`Network`: the network; ``fit``, ``predict``, ``gradients``, ``trace_step``, ``save``
- :func:`cross_validate`: folds of the rows, for one estimator or a grid of settings
- :func:`fit_many`: many networks at once: grids, folds, random trials
- :func:`load`: a network, or an estimator for tables, from its file
- :mod:`cmlp.schedules`: learning rates over time
- ``to_onnx``, ``to_c``, ``to_python``, ``to_javascript``, ``to_sklearn``, ``to_torch``,
  ``to_keras``, ``to_flax``, ``to_safetensors``: a model for other programs and libraries
- ``from_onnx``, ``from_sklearn``, ``from_torch``, ``from_keras``, ``from_safetensors``: back
- :func:`diagnose`: what is wrong with a training, in plain words
- :func:`attributions`: how much each feature adds to an answer
- :mod:`cmlp.plot`: pictures of trainings and networks, with matplotlib
- :func:`play`: a page that draws a network while it learns
- :mod:`cmlp.course`: how a network learns, in eight lessons
- :mod:`cmlp.distributed`: one training on several machines
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
    from cmlp import course, distributed, plot, schedules
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
    from cmlp.estimators.cross_validation import cross_validate
    from cmlp.estimators.loading import load
    from cmlp.estimators.regressor import MLPRegressor
    from cmlp.estimators.tabular.classifier import TabularClassifier
    from cmlp.estimators.tabular.regressor import TabularRegressor
    from cmlp.exchange.c import to_c
    from cmlp.exchange.flax import to_flax
    from cmlp.exchange.javascript import to_javascript
    from cmlp.exchange.keras import from_keras, to_keras
    from cmlp.exchange.onnx import from_onnx, to_onnx
    from cmlp.exchange.python import to_python
    from cmlp.exchange.safetensors import from_safetensors, to_safetensors
    from cmlp.exchange.sklearn import from_sklearn, to_sklearn
    from cmlp.exchange.torch import from_torch, to_torch
    from cmlp.explain.attributions import Attributions
    from cmlp.explain.gradient_check import GradientCheck
    from cmlp.explain.trace import Trace
    from cmlp.formats.chain import ConversionError
    from cmlp.formats.safetensors import ModelFileError
    from cmlp.page.play import play
    from cmlp.training.callbacks import TrainingState
    from cmlp.training.divergence import DivergenceError
    from cmlp.training.many import fit_many

__version__ = "0.1.0"

__all__ = [
    "Attributions",
    "ConvergenceWarning",
    "ConversionError",
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
    "course",
    "cross_validate",
    "dask",
    "diagnose",
    "distributed",
    "fit_many",
    "from_keras",
    "from_onnx",
    "from_safetensors",
    "from_sklearn",
    "from_torch",
    "load",
    "load_digits",
    "play",
    "plot",
    "schedules",
    "to_c",
    "to_flax",
    "to_javascript",
    "to_keras",
    "to_onnx",
    "to_python",
    "to_safetensors",
    "to_sklearn",
    "to_torch",
    "use_core",
]

_LAZY = {
    "Attributions": "explain.attributions",
    "ConvergenceWarning": "core.errors",
    "ConversionError": "formats.chain",
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
    "cross_validate": "estimators.cross_validation",
    "diagnose": "diagnosis.report",
    "fit_many": "training.many",
    "from_keras": "exchange.keras",
    "from_onnx": "exchange.onnx",
    "from_safetensors": "exchange.safetensors",
    "from_sklearn": "exchange.sklearn",
    "from_torch": "exchange.torch",
    "load": "estimators.loading",
    "play": "page.play",
    "to_c": "exchange.c",
    "to_flax": "exchange.flax",
    "to_javascript": "exchange.javascript",
    "to_keras": "exchange.keras",
    "to_onnx": "exchange.onnx",
    "to_python": "exchange.python",
    "to_safetensors": "exchange.safetensors",
    "to_sklearn": "exchange.sklearn",
    "to_torch": "exchange.torch",
}


def __getattr__(name: str) -> _Any:
    """Import at its first use what a script that only predicts does not need."""
    import importlib

    if name in ("course", "dask", "distributed", "plot", "schedules"):
        return importlib.import_module(f"cmlp.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(f"cmlp.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'cmlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
