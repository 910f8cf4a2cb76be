"""Reading a model file, of a network or of an estimator for tables."""

from __future__ import annotations

import os
from typing import Any

from cmlp import network
from cmlp.core.errstate import undisturbed
from cmlp.formats import safetensors
from cmlp.formats.cmlp_file import TABULAR
from cmlp.model.custom_loss import CustomLoss


@undisturbed
def load(path: str | os.PathLike[str], *, loss: CustomLoss | None = None) -> Any:
    """Read what ``save`` wrote; nothing in the file is executed.

    Parameters
    ----------
    path : path
        The file.
    loss : callable, optional
        The loss of a network that was trained with one of its own.

    Returns
    -------
    Network, TabularClassifier or TabularRegressor
        What was saved.

    Raises
    ------
    ModelFileError
        If the file is cut off, damaged or of another kind; before anything large is allocated.
        Whatever the file holds, nothing else is raised.
    OSError
        If it cannot be opened or read.
    """
    if TABULAR not in safetensors.metadata_of(path):
        return network.load(path, loss=loss)
    from cmlp.estimators.tabular import file as tabular_file
    from cmlp.estimators.tabular.classifier import TabularClassifier
    from cmlp.estimators.tabular.regressor import TabularRegressor

    kinds = {kind.__name__: kind for kind in (TabularClassifier, TabularRegressor)}
    return tabular_file.load(path, kinds)
