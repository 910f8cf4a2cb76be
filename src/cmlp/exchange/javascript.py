"""A model as one JavaScript file."""

from __future__ import annotations

import os
from typing import Any

from cmlp.exchange.chains import chain_of, raw_rows
from cmlp.formats.js.source import javascript_source
from cmlp.formats.whole_file import write_files


def to_javascript(
    model: Any, path: str | os.PathLike[str] | None = None, *, module: bool = True
) -> str | None:
    """Write a model as one JavaScript file, which predicts in a browser or in Node.

    The file exports ``predict(x)``, of a classifier also ``predictProba(x)``, ``outputs(x)``,
    ``classes``, ``inputs`` (names of the columns, or null), ``nInputs`` and ``nOutputs``. It takes
    one row at a time: ``rows.map(predict)``.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        As of :func:`to_python`. The file of a tabular model takes a raw row: an object by column,
        or an array in the order of the columns. Dates are ISO text, or a Date, which has a time
        zone; durations are seconds; null and undefined are missing.
    path : str or path-like, optional
        The file to write, whole or not at all.
    module : bool
        Whether it is an ES module (``.mjs``); with False one of CommonJS (``.cjs``).

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
    It computes in doubles, from weights and rows in the number type of the network, and agrees with
    it to 1e-6. NaN and infinity are refused. The same model gives the same text, whose characters
    are ASCII; text of the model is in literals that a page may hold in a script, too. Labels that
    are whole numbers of 2^53 and more are of the type BigInt.

    Examples
    --------
    >>> import cmlp
    >>> text = cmlp.to_javascript(cmlp.Network([2, 3, 1], seed=0))
    >>> "export { predict, outputs, classes, inputs, nInputs, nOutputs };" in text
    True
    """
    chain, raw = chain_of(model), raw_rows(model)
    text = javascript_source(chain, module=module, wide=raw is not None, raw=raw)
    if path is None:
        return text
    write_files({path: text.encode("ascii")})
    return None
