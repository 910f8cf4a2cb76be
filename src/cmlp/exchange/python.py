"""A model as one Python file."""

from __future__ import annotations

import os
from typing import Any

from cmlp.exchange.chains import chain_of, raw_rows
from cmlp.formats.python.source import python_source
from cmlp.formats.whole_file import write_files


def to_python(
    model: Any, path: str | os.PathLike[str] | None = None, *, pure: bool = False
) -> str | None:
    """Write a model as one Python file, which predicts without cmlp.

    The file has ``predict(X)``, of a classifier also ``predict_proba(X)``, ``outputs(X)``, and the
    constants ``CLASSES``, ``FEATURE_NAMES``, ``N_INPUTS`` and ``N_OUTPUTS``. As a program it reads
    CSV rows and writes predictions. It runs on Python 3.8 and newer.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        Fitted. A pipeline of scalers that ends in one of the others. The file of a tabular model
        takes raw rows: X is a list of dicts by column, or of lists in the order of the columns.
    path : str or path-like, optional
        The file to write, whole or not at all.
    pure : bool
        Whether the file does without NumPy, too: X is a list of rows then, and so are the answers.

    Returns
    -------
    str or None
        The text, without a path.

    Raises
    ------
    ConversionError
        If a part of the model cannot be written; the message names it.
    OSError
        If the file cannot be written.

    Notes
    -----
    With NumPy the file computes what ``cmlp.use_core("python")`` does, bit for bit where NumPy is
    the same: of a network with ``normalization="batch"``, or factors of its inputs, the bits are
    those of ``folded()`` of it. An ``input_scale`` and the factors of scalers are in the weights,
    which rounds them once; means of scalers are subtracted. Without NumPy it computes the same in
    float64, from rows in the number type of the network. NaN and infinity are refused. The same
    model gives the same text, whose characters are ASCII, whatever the labels and names of columns
    are; nothing of the model is run as code.

    Examples
    --------
    >>> import cmlp
    >>> text = cmlp.to_python(cmlp.Network([2, 3, 1], seed=0), pure=True)
    >>> "def predict(X):" in text
    True
    """
    chain, raw = chain_of(model), raw_rows(model)
    text = python_source(chain, pure=pure, wide=raw is not None, raw=raw)
    if path is None:
        return text
    write_files({path: text.encode("ascii")})
    return None
